//! A shard with a fixed seed in virtual time, with links, store and peers played by the test.
//!
//! The test writes octets in and reads octets out; messages of peers are plain text.

pub(crate) mod script;
pub(crate) mod text;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::allocation::counted;
use text::{Msrp, Sip};
use volley::base::limits::SIP_MESSAGE_BYTES_MAX;
use volley::base::surface::{
    Core, Input, LinkCommand, LinkEvent, LinkId, LinkKind, Location, NameQuery, StoreBatch,
    StoreDone, Transmit, TxBuf,
};
use volley::base::time::{Timestamp, UnixMillis};
use volley::metrics::probe::Probe;
use volley::msrp::inbound::InboundOptions;
use volley::push::campaign::CampaignOptions;
use volley::push::hops::{COMMON_SET, HopOptions, HopTransport};
use volley::push::inspect::UserReport;
use volley::push::names::NameOptions;
use volley::push::options::PushOptions;
use volley::push::post::PostOptions;
use volley::reginfo::subscription::SubscribeOptions;
use volley::registry::{OutcomeOptions, RegistryOptions};
use volley::selection::Policy;
use volley::shard::recover::Recovered;
use volley::shard::{Ages, Order, Population, Shard, ShardOptions, ShardSeed};
use volley::sip::template::Profile;
use volley::sip::transaction::TransactionOptions;
use volley::sip::transaction::server::ServerOptions;
use volley::store::index::Goal;

/// Four seconds after the Date of the first example message.
pub(crate) const WALL_S: u64 = 1_795_327_085;
/// The S-CSCF.
pub(crate) const SCSCF: &str = "192.0.2.20:5060";
/// The spare S-CSCF of the tests with two hops.
pub(crate) const SPARE: &str = "192.0.2.21:5060";
/// Where phones listen for MSRP.
pub(crate) const PHONE: &str = "198.51.100.7:2855";

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address of the test")
}

/// The options most tests run with: one TCP hop, the example's profile.
pub(crate) fn options() -> ShardOptions {
    ShardOptions {
        shard: 0,
        shards: 1,
        profile: Profile::default(),
        domains: vec![b"ims.example.net".to_vec()],
        trusted_peers: vec![addr(SCSCF).ip(), addr(SPARE).ip()],
        hops: vec![hop(SCSCF, HopTransport::Tcp)],
        sets: Vec::new(),
        names: NameOptions::default(),
        message_max: SIP_MESSAGE_BYTES_MAX,
        push: PushOptions::default(),
        campaign: CampaignOptions {
            coalesce: Duration::from_millis(250),
            policy: Policy::default(),
            registry: RegistryOptions::default(),
            outcome: OutcomeOptions::default(),
            goal: Goal::EachSelected,
            decisions_per_turn: 256,
            hot_invites: 2048,
            pushes_per_s: 0,
        },
        // What rests is folded at once, whatever else a test is about.
        post: PostOptions {
            kept_warm: 0,
            ..PostOptions::default()
        },
        subscribe: SubscribeOptions {
            transaction: TransactionOptions {
                reliable: true,
                ..TransactionOptions::default()
            },
            ..SubscribeOptions::default()
        },
        clock: volley::base::wall::ClockOptions::default(),
        subscribe_always: false,
        subscribe_users: Vec::new(),
        subscribe_pace_per_s: 2000,
        inbound: InboundOptions::default(),
        pager_max: 65_536,
        users_max: 10_000,
        pushes_max: 10_000,
        pushes_warm: 64,
        server: ServerOptions::default(),
        tick: Duration::from_millis(10),
    }
}

/// Sessions that neither linger nor age out soon.
pub(crate) fn patient_options() -> ShardOptions {
    let mut options = options();
    options.push.max_session = Duration::from_secs(100_000);
    options.push.linger = Duration::from_secs(90_000);
    options
}

/// The same over datagrams.
pub(crate) fn udp_options() -> ShardOptions {
    let mut options = options();
    options.hops = vec![hop(SCSCF, HopTransport::Udp)];
    options.profile.transport = "UDP".into();
    options.profile.datagram_max = 1472;
    options.subscribe.transaction.reliable = false;
    options.push.transaction.reliable = false;
    options
}

pub(crate) fn hop(address: &str, transport: HopTransport) -> HopOptions {
    HopOptions {
        address: addr(address),
        transport,
        connections: 1,
        invite_inflight_max: 64,
        set: COMMON_SET,
        priority: u16::from(address == SPARE),
        weight: 1,
    }
}

/// The shard, with a count of what its calls allocate while that is asked for.
pub(crate) struct Watched {
    inner: Shard,
    pub(crate) watching: bool,
    pub(crate) allocated: u64,
}

impl Watched {
    fn watch<T>(&mut self, work: impl FnOnce(&mut Shard) -> T) -> T {
        if self.watching {
            counted(&mut self.allocated, || work(&mut self.inner))
        } else {
            work(&mut self.inner)
        }
    }

    pub(crate) fn handle(&mut self, now: Timestamp, input: Input<'_>) {
        self.watch(|shard| shard.handle(now, input));
    }

    pub(crate) fn foresee(&mut self, front: &[u8]) {
        self.watch(|shard| shard.foresee(front));
    }

    fn advance(&mut self, now: Timestamp) {
        self.watch(|shard| shard.advance(now));
    }

    fn next_deadline(&mut self) -> Option<Timestamp> {
        self.watch(|shard| shard.next_deadline())
    }

    fn poll_transmit(&mut self, buffer: &mut TxBuf) -> Option<Transmit> {
        self.watch(|shard| shard.poll_transmit(buffer))
    }

    fn poll_store(&mut self, batch: &mut StoreBatch) -> bool {
        self.watch(|shard| shard.poll_store(batch))
    }

    fn poll_link(&mut self) -> Option<LinkCommand> {
        self.watch(Core::poll_link)
    }

    pub(crate) fn probe(&self) -> Probe {
        self.inner.probe()
    }

    fn operate(&mut self, order: &Order) {
        self.inner.operate(order);
    }

    pub(crate) fn ages(&self, now: Timestamp) -> Ages {
        self.inner.ages(now)
    }

    pub(crate) fn population(&self) -> Population {
        self.inner.population()
    }
}

#[derive(Debug)]
struct FakeLink {
    id: LinkId,
    kind: LinkKind,
    peer: SocketAddr,
    open: bool,
    /// The engine wants nothing read.
    held: bool,
    /// The peer reads nothing: what was given for it is not sent.
    stuck: bool,
    /// What the engine sent and the test has not read as a message yet.
    unread: Vec<u8>,
}

/// The bench a shard stands on.
pub(crate) struct Bench {
    pub(crate) shard: Watched,
    pub(crate) now: Timestamp,
    /// Appends are durable at once; else they wait for [`Bench::release`].
    pub(crate) durable: bool,
    /// How long the engine takes from its look at the clock to the end of its output.
    pub(crate) turn_length: Duration,
    /// More input is always at hand: the shard does not catch up.
    pub(crate) behind: bool,
    /// Connects that are refused.
    pub(crate) refused: Vec<SocketAddr>,
    /// Connects that stay open for ever.
    pub(crate) silent: Vec<SocketAddr>,
    /// MSRP connects asked for and made.
    pub(crate) connects: Vec<SocketAddr>,
    /// Connections that were left to their peers.
    pub(crate) left: Vec<LinkId>,
    /// Names the engine wants to know.
    pub(crate) queries: Vec<NameQuery>,
    /// The store cannot read anything back.
    pub(crate) unreadable: bool,
    /// Records of the store in order, with their places.
    pub(crate) records: Vec<(Location, Vec<u8>)>,
    links: Vec<FakeLink>,
    free: Vec<u32>,
    buffer: TxBuf,
    batch: StoreBatch,
    sip: VecDeque<Sip>,
    msrp: VecDeque<Msrp>,
    /// Slots of closed links are used again, as a driver does.
    pub(crate) reuse_links: bool,
    held: StoreDone,
    /// The segment that is written to.
    pub(crate) segment: u32,
    /// Segments that the engine gave back.
    pub(crate) given_back: Vec<u32>,
    places: BTreeMap<u32, usize>,
    next_offset: u32,
    pub(crate) udp: Option<LinkId>,
    pub(crate) trunks: BTreeMap<SocketAddr, LinkId>,
    pub(crate) serial: u32,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(options())
    }

    pub(crate) fn udp() -> Self {
        Self::with(udp_options())
    }

    /// Sessions stay open as long as their timers let them.
    pub(crate) fn patient() -> Self {
        Self::with(patient_options())
    }

    pub(crate) fn with(options: ShardOptions) -> Self {
        Self::restarted(options, &[], 1)
    }

    /// A shard that starts from `records`; `boot` makes its identifiers new.
    pub(crate) fn restarted(
        options: ShardOptions,
        records: &[(Location, Vec<u8>)],
        boot: u8,
    ) -> Self {
        let udp = options
            .hops
            .iter()
            .any(|hop| hop.transport == HopTransport::Udp);
        let seed = ShardSeed {
            identifier_key: [boot; 16],
            stream: [7; 32],
        };
        let now = Timestamp::from_millis(1000);
        let wall = UnixMillis::from_secs(WALL_S);
        let shard = Shard::new(options, seed, now, wall).expect("the profile is valid");
        let mut bench = Self {
            shard: Watched {
                inner: shard,
                watching: false,
                allocated: 0,
            },
            now,
            durable: true,
            refused: Vec::new(),
            silent: Vec::new(),
            connects: Vec::new(),
            left: Vec::new(),
            queries: Vec::new(),
            unreadable: false,
            turn_length: Duration::ZERO,
            behind: false,
            records: Vec::new(),
            links: Vec::new(),
            free: Vec::new(),
            buffer: TxBuf::default(),
            batch: StoreBatch::default(),
            sip: VecDeque::new(),
            msrp: VecDeque::new(),
            reuse_links: false,
            held: StoreDone::default(),
            places: BTreeMap::new(),
            segment: 1,
            given_back: Vec::new(),
            next_offset: 0,
            udp: None,
            trunks: BTreeMap::new(),
            serial: 0,
        };
        let mut found = Recovered::default();
        for (location, payload) in records {
            bench.shard.inner.recover(*location, payload, &mut found);
            bench.places.insert(location.offset, bench.records.len());
            bench.next_offset = location.offset + location.len + 4096;
            bench.records.push((*location, payload.clone()));
        }
        bench.shard.inner.recovered(now);
        bench.shard.handle(now, Input::Wall(wall));
        if udp {
            let link = bench.open(LinkKind::SipUdp, addr("192.0.2.10:5060"));
            bench.udp = Some(link);
        }
        bench.shard.advance(now);
        bench.pump();
        bench
    }

    fn slot(&mut self, kind: LinkKind, peer: SocketAddr) -> LinkId {
        let fake = |id| FakeLink {
            id,
            kind,
            peer,
            open: true,
            held: false,
            stuck: false,
            unread: Vec::new(),
        };
        if let Some(slot) = self.free.pop() {
            let old = &mut self.links[slot as usize];
            let generation = old.id.generation + 1;
            *old = fake(LinkId { slot, generation });
            return LinkId { slot, generation };
        }
        let slot = u32::try_from(self.links.len()).expect("few links");
        let id = LinkId {
            slot,
            generation: 1,
        };
        self.links.push(fake(id));
        id
    }

    fn ended(&mut self, link: LinkId) {
        self.links[link.slot as usize].open = false;
        if self.reuse_links {
            self.free.push(link.slot);
        }
        let event = LinkEvent::Closed;
        self.shard.handle(self.now, Input::Link { link, event });
    }

    /// A peer connects, or a socket is bound.
    pub(crate) fn open(&mut self, kind: LinkKind, peer: SocketAddr) -> LinkId {
        let link = self.slot(kind, peer);
        let event = LinkEvent::Opened {
            kind,
            peer,
            local: addr("192.0.2.10:5060"),
        };
        self.shard.handle(self.now, Input::Link { link, event });
        self.pump();
        link
    }

    /// The peer of a link reads nothing more.
    pub(crate) fn stick(&mut self, link: LinkId) {
        self.links[link.slot as usize].stuck = true;
    }

    /// It reads again.
    pub(crate) fn unstick(&mut self, link: LinkId) {
        self.links[link.slot as usize].stuck = false;
        let event = LinkEvent::Sent;
        self.shard.handle(self.now, Input::Link { link, event });
        self.pump();
    }

    /// The peer closes a link.
    pub(crate) fn close(&mut self, link: LinkId) {
        self.ended(link);
        self.pump();
    }

    pub(crate) fn is_open(&self, link: LinkId) -> bool {
        let fake = &self.links[link.slot as usize];
        fake.open && fake.id == link
    }

    /// An operator wants something.
    pub(crate) fn operate(&mut self, order: &Order) {
        self.shard.operate(order);
        self.pump();
    }

    /// What an operator is shown of a user.
    pub(crate) fn inspect(&self, identity: &str) -> Option<UserReport> {
        self.shard.inner.inspect(self.now, identity.as_bytes())
    }

    /// Whether the engine wants nothing read from a link.
    pub(crate) fn is_held(&self, link: LinkId) -> bool {
        self.links[link.slot as usize].held
    }

    /// Octets arrive on a link.
    pub(crate) fn feed(&mut self, link: LinkId, bytes: &[u8]) {
        if self.is_open(link) {
            self.shard.handle(self.now, Input::Bytes { link, bytes });
        }
        self.pump();
    }

    pub(crate) fn datagram(&mut self, source: SocketAddr, bytes: &[u8]) {
        let link = self.udp.expect("a socket");
        let input = Input::Datagram {
            link,
            source,
            bytes,
        };
        self.shard.handle(self.now, input);
        self.pump();
    }

    /// What a name stands for.
    pub(crate) fn answer(&mut self, token: u64, addresses: &[std::net::IpAddr]) {
        let input = Input::Resolved { token, addresses };
        self.shard.handle(self.now, input);
        self.pump();
    }

    pub(crate) fn is_closed(&self, link: LinkId) -> bool {
        !self.is_open(link)
    }

    /// A copy of the next SIP message, which must be a `what`.
    #[track_caller]
    pub(crate) fn peek(&self, what: &str) -> Sip {
        let message = self.sip.front().expect("something was sent");
        assert_eq!(message.what(), what, "{}", message.text);
        message.clone()
    }

    /// A SIP message arrives from the S-CSCF, by whichever transport the bench has.
    pub(crate) fn sip_in(&mut self, text: &str) {
        if self.udp.is_some() {
            self.datagram(addr(SCSCF), text.as_bytes());
        } else {
            let link = self.trunks[&addr(SCSCF)];
            self.feed(link, text.as_bytes());
        }
    }

    /// Drains every output until nothing moves.
    pub(crate) fn pump(&mut self) {
        self.shard.advance(self.now);
        for _ in 0..100_000 {
            let mut moved = self.pump_due();
            moved |= self.pump_transmit();
            moved |= self.pump_store();
            moved |= self.pump_links();
            while let Some(query) = self.shard.inner.poll_query() {
                self.queries.push(query);
            }
            if !moved && (self.behind || !self.shard.inner.caught_up()) {
                let left = self.now + self.turn_length;
                self.shard.watch(|shard| shard.handed_over(left));
                return;
            }
        }
        panic!("the shard does not come to rest");
    }

    fn pump_due(&mut self) -> bool {
        let due = self.shard.next_deadline().is_some_and(|at| at <= self.now);
        if due {
            self.shard.advance(self.now);
        }
        due
    }

    fn pump_transmit(&mut self) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let sent = self.shard.poll_transmit(&mut buffer);
        let moved = sent.is_some();
        if let Some(sent) = sent {
            self.read_out(sent, &buffer);
        }
        buffer.bytes.clear();
        buffer.cuts.clear();
        self.buffer = buffer;
        moved
    }

    fn read_out(&mut self, sent: Transmit, buffer: &TxBuf) {
        let fake = &mut self.links[sent.link.slot as usize];
        if let Some(to) = buffer.destination {
            let mut at = 0;
            for &cut in &buffer.cuts {
                let one = &buffer.bytes[at..cut as usize];
                let message = Sip::parse(sent.link, Some(to), self.now, one);
                let length: usize = message.get("Content-Length").parse().expect("a number");
                assert_eq!(length, message.body.len(), "Content-Length of a datagram");
                self.sip.push_back(message);
                at = cut as usize;
            }
        } else if fake.open {
            fake.unread.extend_from_slice(&buffer.bytes);
            let mut used = 0;
            match fake.kind {
                LinkKind::MsrpInbound | LinkKind::MsrpOutbound => {
                    while let Some((frame, len)) = Msrp::parse(sent.link, &fake.unread[used..]) {
                        self.msrp.push_back(frame);
                        used += len;
                    }
                }
                LinkKind::SipInbound | LinkKind::SipOutbound | LinkKind::SipUdp => {
                    while fake.unread[used..].starts_with(b"\r\n") {
                        used += 2;
                    }
                    while let Some(len) = text::sip_len(&fake.unread[used..]) {
                        let one = &fake.unread[used..used + len];
                        self.sip
                            .push_back(Sip::parse(sent.link, None, self.now, one));
                        used += len;
                    }
                }
            }
            fake.unread.drain(..used);
        }
        if self.links[sent.link.slot as usize].stuck {
            return;
        }
        let event = LinkEvent::Sent;
        let link = sent.link;
        self.shard.handle(self.now, Input::Link { link, event });
    }

    fn pump_store(&mut self) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        if !self.shard.poll_store(&mut batch) {
            self.batch = batch;
            return false;
        }
        let mut at = 0;
        for (ticket, len) in batch.appends.drain(..) {
            let location = Location {
                segment: self.segment,
                offset: self.next_offset,
                len,
            };
            let payload = batch.bytes[at..at + len as usize].to_vec();
            self.places.insert(self.next_offset, self.records.len());
            self.records.push((location, payload));
            self.next_offset += len + 4096;
            at += len as usize;
            self.held.stored.push((ticket, location));
        }
        for (token, location) in batch.reads.drain(..) {
            let record = &self.records[self.places[&location.offset]].1;
            let start = u32::try_from(self.held.bytes.len()).expect("small");
            if !self.unreadable {
                self.held.bytes.extend_from_slice(record);
            }
            let end = u32::try_from(self.held.bytes.len()).expect("small");
            self.held.loaded.push((token, start, end));
        }
        batch.bytes.clear();
        self.given_back.append(&mut batch.dead_segments);
        self.batch = batch;
        if self.durable {
            self.hand_over();
        }
        true
    }

    fn hand_over(&mut self) {
        let done = std::mem::take(&mut self.held);
        self.shard.handle(self.now, Input::Stored(&done));
    }

    /// What waited for the store becomes durable.
    pub(crate) fn release(&mut self) {
        self.hand_over();
        self.pump();
    }

    /// The store fails for good.
    pub(crate) fn fail_store(&mut self) {
        let first = self
            .held
            .stored
            .first()
            .map_or_else(Default::default, |one| one.0);
        let done = StoreDone {
            failed_from: Some(first),
            ..StoreDone::default()
        };
        self.shard.handle(self.now, Input::Stored(&done));
        self.pump();
    }

    fn pump_links(&mut self) -> bool {
        match self.shard.poll_link() {
            None => return false,
            Some(LinkCommand::Close { link }) => self.ended(link),
            Some(LinkCommand::Leave { link }) => {
                self.left.push(link);
                self.ended(link);
            }
            Some(LinkCommand::Hold { link, held }) => {
                self.links[link.slot as usize].held = held;
            }
            Some(LinkCommand::Connect {
                token,
                kind,
                address,
            }) => self.connect(token, kind, address),
        }
        true
    }

    fn connect(&mut self, token: u64, kind: LinkKind, address: SocketAddr) {
        if kind == LinkKind::MsrpOutbound {
            self.connects.push(address);
        }
        if self.silent.contains(&address) {
            return;
        }
        if self.refused.contains(&address) {
            self.shard.handle(self.now, Input::ConnectFailed { token });
            return;
        }
        let link = self.slot(kind, address);
        if kind == LinkKind::SipOutbound {
            self.trunks.insert(address, link);
        }
        let event = LinkEvent::Connected {
            token,
            kind,
            peer: address,
            local: addr("192.0.2.10:40000"),
        };
        self.shard.handle(self.now, Input::Link { link, event });
    }

    /// Lets time pass, firing every timer at its own moment.
    pub(crate) fn run(&mut self, wait: Duration) {
        let end = self.now + wait;
        self.pump();
        while let Some(at) = self.shard.next_deadline().filter(|&at| at <= end) {
            self.now = at.max(self.now);
            self.pump();
        }
        self.now = end;
        self.pump();
    }

    pub(crate) fn run_s(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    pub(crate) fn run_ms(&mut self, millis: u64) {
        self.run(Duration::from_millis(millis));
    }

    /// Seconds since `from`, with three decimals.
    pub(crate) fn passed_ms(&self, from: Timestamp) -> u128 {
        self.now.since(from).as_millis()
    }

    /// The next SIP message the engine sent, which must be a `what`.
    #[track_caller]
    pub(crate) fn expect(&mut self, what: &str) -> Sip {
        let Some(message) = self.sip.pop_front() else {
            panic!("expected {what}, nothing was sent");
        };
        assert_eq!(
            message.what(),
            what,
            "unexpected message:\n{}",
            message.text
        );
        message
    }

    /// As [`Bench::expect`], anywhere among what was sent.
    #[track_caller]
    pub(crate) fn expect_some(&mut self, what: &str) -> Sip {
        let at = self.sip.iter().position(|message| message.what() == what);
        let Some(at) = at else {
            panic!("no {what} among {:?}", self.sent());
        };
        self.sip.remove(at).expect("found")
    }

    /// What was sent and not read.
    pub(crate) fn sent(&self) -> Vec<String> {
        self.sip
            .iter()
            .map(|message| message.start.clone())
            .collect()
    }

    /// Takes everything that was sent.
    pub(crate) fn take_sip(&mut self) -> Vec<Sip> {
        self.sip.drain(..).collect()
    }

    #[track_caller]
    pub(crate) fn expect_quiet(&self) {
        assert!(self.sip.is_empty(), "unexpected SIP: {:#?}", self.sip);
        assert!(self.msrp.is_empty(), "unexpected MSRP: {:#?}", self.msrp);
    }

    /// The next MSRP frame, which must be a `what`.
    #[track_caller]
    pub(crate) fn expect_msrp(&mut self, what: &str) -> Msrp {
        let Some(frame) = self.msrp.pop_front() else {
            panic!("expected MSRP {what}, nothing was sent");
        };
        assert_eq!(frame.what, what, "unexpected frame:\n{}", frame.text);
        frame
    }

    /// The frame is the next to be read again.
    pub(crate) fn put_back(&mut self, frame: Msrp) {
        self.msrp.push_front(frame);
    }

    pub(crate) fn take_msrp(&mut self) -> Vec<Msrp> {
        self.msrp.drain(..).collect()
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let found = self.shard.probe().iter().find(|(key, _)| *key == name);
        found.unwrap_or_else(|| panic!("no counter {name}")).1
    }

    /// How often something was dropped for this reason.
    pub(crate) fn dropped(&self, family: &str, reason: &str) -> u64 {
        let families = self.shard.probe().drops.families();
        let family = families.iter().find(|found| found.name == family);
        let cells = family.map_or(&[][..], |family| &family.cells);
        let cell = cells.iter().find(|cell| cell.reason == reason);
        cell.expect("a reason of that kind").count
    }

    pub(crate) fn peer_of(&self, link: LinkId) -> SocketAddr {
        self.links[link.slot as usize].peer
    }
}
