//! Next hops: trunks to the SIP core, how many INVITEs each may have open, and when one is avoided.
//!
//! There is a list of hops for each S-CSCF that the configuration names, and one for everybody else
//! (NH-1): a *set*. Within a set the lowest priority that is up gets the requests; hops of one priority
//! share them by weight. Where a request inside a dialog goes is `ways`' matter.
//!
//! A hop is an address of such a list. Over TCP it has some trunk connections, used in turn, each for
//! 128 requests: what leaves in one turn of the loop leaves by few writes, and so come the answers.
//! Over UDP it is the shard's own socket with the hop's address. A hop that refused with 503 and
//! `Retry-After`, or that cannot be reached, is skipped until its time has passed (RFC 3261
//! section 21.5.4). One that asks for less by RFC 7339 gets less ([`Throttle`]). One that leaves
//! several INVITEs in a row without any answer gets nothing but an OPTIONS now and then, until it
//! answers one (RFC 7339 section 5.9).

mod ways;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::outbox::{Destination, Outbox};
use crate::base::slab::Key;
use crate::base::surface::{LinkId, LinkKind};
use crate::base::time::Timestamp;
use crate::base::token::{Minter, Token, TokenKind, TokenParts};
use crate::push::names::{NameOptions, Names};
use crate::registry::outcome::RETRY_AFTER_MAX;
use crate::sip::message::Message;
use crate::sip::overload::{Feedback, Throttle};
use crate::sip::template::{OptionsFields, Templates};
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::client_non_invite::{ClientNonInvite, NonInviteAction};

use ways::Memo;
pub use ways::{SetOptions, Way};

#[cfg(test)]
mod tests;

/// The set of those whose S-CSCF has no list of its own.
pub const COMMON_SET: u8 = 0;
/// Most sets, the common one included.
pub const SETS_MAX: usize = 32;
/// Most hops of a set: each has a bit in what a request remembers of where it was.
pub const HOPS_PER_SET_MAX: usize = 64;
/// The set of hops that only routes lead to.
const FAR_SET: u8 = u8::MAX;

/// What a request asks of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// A new INVITE: counted while it is open, held back under overload.
    Invite,
    /// A new INVITE with priority: counted, but not held back (category 2 of RFC 7339 section 7.2).
    Priority,
    /// Another new request: held back under overload (category 1 of RFC 7339 section 7.2).
    New,
    /// A request that goes whatever the hop asks for.
    Owed,
}

/// How a hop is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HopTransport {
    /// Trunk connections; the default, since the INVITE is longer than 1300 octets.
    Tcp,
    /// Datagrams; only with a known path MTU (RFC 3261 section 18.1.1).
    Udp,
}

/// One entry of the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopOptions {
    /// Where the hop listens.
    pub address: SocketAddr,
    /// How it is reached.
    pub transport: HopTransport,
    /// Trunk connections of one shard, 1..=64.
    pub connections: u16,
    /// Most INVITEs without a final response.
    pub invite_inflight_max: u32,
    /// Whose list it is on: [`COMMON_SET`], or one more than the place of its [`SetOptions`].
    pub set: u8,
    /// Lower ones of a set are used first.
    pub priority: u16,
    /// Share among those of the same set and priority, at least 1.
    pub weight: u16,
}

/// What is known about the surroundings of the hops.
#[derive(Clone, Debug, Default)]
pub struct RoutingOptions {
    /// Shards that use the same hops, this one included, and share the rates they ask for. 0 is 1.
    pub shards: u32,
    /// Addresses beside the hops that a route may lead to.
    pub trusted: Vec<IpAddr>,
    /// Hosts and ports of the routes we preload: what names them goes by the user's set.
    pub own_routes: Vec<(String, u16)>,
    /// Lists of named S-CSCFs.
    pub sets: Vec<SetOptions>,
    /// Host names.
    pub names: NameOptions,
}

/// Longest wait between two attempts to connect a trunk.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Octets that may wait for a trunk before new requests leave it alone. What is owed in dialogs that are
/// there has the rest of the link's room (OVL-7).
const TRUNK_BACKLOG_MAX: usize = 1024 * 1024;
/// First wait after a trunk was lost.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// Unanswered INVITEs in a row after which a hop counts as silent.
const SILENCE_MAX: u32 = 3;
/// First and longest wait between two probes of a silent hop.
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(60);
/// Longest wait of a request that a share left out, before it is offered again.
const HELD_MAX: Duration = Duration::from_secs(5);
/// Shortest time between two looks at whether a hop's rate has room.
const ROOM_LOOKS: Duration = Duration::from_millis(1);
/// Over how long requests that were held back are spread.
const HELD_SPREAD: Duration = Duration::from_millis(500);
/// Requests in a row that a trunk gets before the next one does. A peer that gives each connection to a worker of
/// its own has them one after the other: at 30 us a request a run keeps it busy for 4 ms.
const RUN: u32 = 128;

#[derive(Debug)]
struct Trunk {
    link: Option<LinkId>,
    retry_at: Timestamp,
    failures: u32,
    connecting: bool,
}

/// A hop with its live state.
#[derive(Debug)]
pub struct Hop {
    options: HopOptions,
    trunks: Vec<Trunk>,
    /// The trunk in use.
    at: usize,
    /// Requests it got in a row.
    run: u32,
    invites_inflight: u32,
    avoid_until: Timestamp,
    throttle: Throttle,
    /// INVITEs in a row that nobody answered.
    silence: u32,
    probe: Probe,
    /// One past the last hop of its set and priority.
    group_end: usize,
    /// Its bit in a set of hops that were tried, of those of its own list; 0 for hops of [`FAR_SET`], which
    /// no list offers.
    bit: u64,
    /// Weighted turn within the group.
    credit: i64,
    /// When a route last led here; for hops of [`FAR_SET`].
    used_at: Timestamp,
}

/// The OPTIONS by which a silent hop is watched.
#[derive(Debug)]
struct Probe {
    /// When the next one leaves; `NEVER` while the hop answers or one is under way.
    at: Timestamp,
    /// Probes since the hop fell silent.
    sent: u32,
    /// Names the probe in its branch.
    serial: u32,
    transaction: Option<ClientNonInvite>,
}

impl Hop {
    fn new(options: HopOptions, shards: u32, (group_end, bit): (usize, u64)) -> Self {
        let trunk = || Trunk {
            link: None,
            retry_at: Timestamp::ZERO,
            failures: 0,
            connecting: false,
        };
        Self {
            options,
            trunks: (0..options.connections.max(1)).map(|_| trunk()).collect(),
            at: 0,
            run: 0,
            invites_inflight: 0,
            avoid_until: Timestamp::ZERO,
            throttle: Throttle::new(shards),
            silence: 0,
            probe: Probe {
                at: Timestamp::NEVER,
                sent: 0,
                serial: 0,
                transaction: None,
            },
            group_end,
            bit,
            credit: 0,
            used_at: Timestamp::ZERO,
        }
    }

    const fn is_silent(&self) -> bool {
        self.silence >= SILENCE_MAX
    }

    /// Whether it may get a new request, its transport aside.
    fn is_open(&self, now: Timestamp) -> bool {
        self.avoid_until <= now && !self.is_silent()
    }

    fn trunk(&self) -> Option<LinkId> {
        self.trunks.iter().find_map(|trunk| trunk.link)
    }

    /// A trunk is up on which not too much waits.
    fn has_room(&self, out: &Outbox) -> bool {
        let mut links = self.trunks.iter().filter_map(|trunk| trunk.link);
        links.any(|link| has_room(out, link))
    }

    /// How the hop is reached.
    #[must_use]
    pub const fn transport(&self) -> HopTransport {
        self.options.transport
    }
}

/// All hops of a shard: by set, priority and place in the configuration, then those of routes.
#[derive(Debug)]
pub struct Hops {
    shard: u8,
    shards: u32,
    hops: Vec<Hop>,
    trusted: Vec<IpAddr>,
    own_routes: Vec<(String, u16)>,
    sets: Vec<SetOptions>,
    names: Names,
    /// The shard's datagram socket.
    socket: Option<LinkId>,
    /// Where the last route led.
    memo: Memo,
    /// Who waits for a name or a connection, and since when.
    waiting: Vec<Key>,
    waiting_since: Timestamp,
    news: bool,
    /// Links of hops that made room for others.
    retired: Vec<LinkId>,
}

impl Hops {
    /// Hops from the configuration; nothing is connected yet.
    ///
    /// # Panics
    /// When a set has more than [`HOPS_PER_SET_MAX`] hops.
    #[must_use]
    pub fn new(shard: u8, options: &[HopOptions], routing: RoutingOptions) -> Self {
        let mut options = options.to_vec();
        options.sort_by_key(|hop| (hop.set, hop.priority));
        let group = |hop: &HopOptions| (hop.set, hop.priority);
        let hops = (0..).zip(&options).map(|(at, &hop)| {
            let start = options.partition_point(|other| other.set < hop.set);
            let end = options.partition_point(|other| group(other) <= group(&hop));
            let place: usize = at - start;
            assert!(
                place < HOPS_PER_SET_MAX,
                "more hops in a set than told apart"
            );
            Hop::new(hop, routing.shards, (end, 1 << place))
        });
        Self {
            shard,
            shards: routing.shards,
            hops: hops.collect(),
            trusted: routing.trusted,
            own_routes: routing.own_routes,
            sets: routing.sets,
            names: Names::new(routing.names),
            socket: None,
            memo: Memo::default(),
            waiting: Vec::new(),
            waiting_since: Timestamp::NEVER,
            news: false,
            retired: Vec::new(),
        }
    }

    /// Where a request of a user of `set` may go now: the first hop that is up, not avoided and, for a
    /// new request, takes it. The hop's index is needed to account for an INVITE.
    pub fn pick(
        &mut self,
        out: &Outbox,
        now: Timestamp,
        set: u8,
        offer: Offer,
    ) -> Option<(u16, Destination)> {
        self.pick_untried(out, now, set, (offer, 0))
    }

    /// As [`Self::pick`], leaving out the hops whose bits are set in `tried` (NH-3).
    pub fn pick_untried(
        &mut self,
        out: &Outbox,
        now: Timestamp,
        set: u8,
        (offer, tried): (Offer, u64),
    ) -> Option<(u16, Destination)> {
        let mut at = 0;
        while let Some(hop) = self.hops.get(at) {
            let end = hop.group_end;
            if hop.options.set == set {
                let chosen = if end == at + 1 {
                    self.takes(out, now, at, (offer, tried)).then_some(at)
                } else {
                    self.pick_by_weight(out, now, (at, end), (offer, tried))
                };
                if let Some(chosen) = chosen {
                    let index = u16::try_from(chosen).expect("fewer hops than 2^16");
                    let roomy = offer != Offer::Owed;
                    let link = match roomy {
                        true => self.roomy_trunk(out, index),
                        false => self.next_trunk(index, |_| true),
                    };
                    return link.map(|link| (index, self.to_hop(index, link)));
                }
            }
            at = end;
        }
        None
    }

    /// The hops of one priority in turn, each as often as its weight says: the one that is furthest
    /// behind its share.
    fn pick_by_weight(
        &mut self,
        out: &Outbox,
        now: Timestamp,
        (start, end): (usize, usize),
        (offer, mut tried): (Offer, u64),
    ) -> Option<usize> {
        for _ in start..end {
            let able = |hops: &Self, at: &usize| hops.is_able(out, now, *at, (offer, tried));
            let behind = |hop: &Hop| hop.credit + i64::from(hop.options.weight);
            let best = (start..end)
                .filter(|at| able(self, at))
                .max_by_key(|&at| (behind(&self.hops[at]), usize::MAX - at))?;
            if !self.takes(out, now, best, (offer, tried)) {
                tried |= self.hops[best].bit;
                continue;
            }
            let mut total = 0;
            for at in start..end {
                if able(self, &at) {
                    let weight = i64::from(self.hops[at].options.weight);
                    self.hops[at].credit += weight;
                    total += weight;
                }
            }
            self.hops[best].credit -= total;
            return Some(best);
        }
        None
    }

    /// Whether hop `at` could get the request, what it asks for aside.
    fn is_able(
        &self,
        out: &Outbox,
        now: Timestamp,
        at: usize,
        (offer, tried): (Offer, u64),
    ) -> bool {
        let hop = &self.hops[at];
        let is_full = hop.invites_inflight >= hop.options.invite_inflight_max;
        tried & hop.bit == 0
            && hop.is_open(now)
            && !(matches!(offer, Offer::Invite | Offer::Priority) && is_full)
            && match offer {
                Offer::Owed => hop.trunk().is_some(),
                Offer::Invite | Offer::Priority | Offer::New => hop.has_room(out),
            }
    }

    /// Whether hop `at` gets the request; counts it against what the hop asks for.
    fn takes(
        &mut self,
        out: &Outbox,
        now: Timestamp,
        at: usize,
        (offer, tried): (Offer, u64),
    ) -> bool {
        let is_exempt = matches!(offer, Offer::Owed | Offer::Priority);
        self.is_able(out, now, at, (offer, tried))
            && (is_exempt || self.hops[at].throttle.admit(now))
    }

    /// The next trunk of hop `index`, if it has one.
    pub fn destination(&mut self, index: u16) -> Option<Destination> {
        self.next_trunk(index, |_| true)
            .map(|link| self.to_hop(index, link))
    }

    /// A trunk of hop `index`, or a socket and its address.
    #[inline]
    fn to_hop(&self, index: u16, link: LinkId) -> Destination {
        let shard = self.shard;
        let options = &self.hops[usize::from(index)].options;
        // Each is made where it goes: an address that is passed about is copied in pieces and read as a
        // whole, which waits for every store before.
        match options.transport {
            HopTransport::Tcp => Destination {
                shard,
                link,
                address: None,
            },
            HopTransport::Udp => Destination {
                shard,
                link,
                address: Some(options.address),
            },
        }
    }

    /// The next trunk of hop `index` that new requests may use.
    fn roomy_trunk(&mut self, out: &Outbox, index: u16) -> Option<LinkId> {
        self.next_trunk(index, |link| has_room(out, link))
    }

    fn next_trunk(&mut self, index: u16, is_fit: impl Fn(LinkId) -> bool) -> Option<LinkId> {
        let hop = self.hops.get_mut(usize::from(index))?;
        let count = hop.trunks.len();
        let first = hop.at + usize::from(hop.run >= RUN);
        for step in 0..count {
            let at = (first + step) % count;
            if let Some(link) = hop.trunks[at].link
                && is_fit(link)
            {
                let goes_on = at == hop.at && hop.run < RUN;
                hop.run = if goes_on { hop.run + 1 } else { 1 };
                hop.at = at;
                return Some(link);
            }
        }
        None
    }

    /// Whether any hop of `set` can take a request now.
    #[must_use]
    pub fn is_up(&self, out: &Outbox, now: Timestamp, set: u8) -> bool {
        self.of_set(set)
            .any(|hop| hop.is_open(now) && hop.has_room(out) && hop.throttle.room(now) > 0)
    }

    /// Every hop that the configuration names, and whether it is reached: connected, and not silent.
    pub fn reached(&self) -> impl Iterator<Item = (SocketAddr, bool)> + '_ {
        let named = self.hops.iter().filter(|hop| hop.options.set != FAR_SET);
        named.map(|hop| {
            let connected = hop.trunks.iter().any(|trunk| trunk.link.is_some());
            (hop.options.address, connected && !hop.is_silent())
        })
    }

    fn of_set(&self, set: u8) -> impl Iterator<Item = &Hop> {
        self.hops.iter().filter(move |hop| hop.options.set == set)
    }

    /// INVITEs that may be started now, over all hops of `set` that are up.
    #[must_use]
    pub fn invite_room(&self, out: &Outbox, now: Timestamp, set: u8, offer: Offer) -> u32 {
        let takes = |hop: &Hop| match offer {
            Offer::Priority | Offer::Owed => u32::MAX,
            Offer::Invite | Offer::New => hop.throttle.room(now),
        };
        self.of_set(set)
            .filter(|hop| hop.is_open(now) && hop.has_room(out))
            .map(|hop| {
                let most = hop.options.invite_inflight_max;
                takes(hop).min(most.saturating_sub(hop.invites_inflight))
            })
            .fold(0, u32::saturating_add)
    }

    /// Whether a hop of `set` asks for so many requests a second, or none.
    #[must_use]
    pub fn is_rated(&self, now: Timestamp, set: u8) -> bool {
        self.of_set(set)
            .any(|hop| hop.throttle.room(now) != u32::MAX)
    }

    /// When the first of the hops that ask for so little that nothing may leave has room again, a millisecond from now at
    /// the least.
    #[must_use]
    pub fn room_at(&self, now: Timestamp) -> Timestamp {
        let ends = self.hops.iter().filter_map(|hop| hop.throttle.room_at(now));
        let first = ends.min().unwrap_or(Timestamp::NEVER);
        first.max(now + ROOM_LOOKS)
    }

    /// The hop of an index that [`Self::pick`] gave.
    #[must_use]
    pub fn hop(&self, index: u16) -> Option<&Hop> {
        self.hops.get(usize::from(index))
    }

    /// The bit that says of hop `index` that a request was tried there. Bits of different sets are the same,
    /// as a request goes by one set.
    #[must_use]
    pub fn bit(&self, index: u16) -> u64 {
        self.hop(index).map_or(0, |hop| hop.bit)
    }

    /// An INVITE left for hop `index`.
    pub fn invite_started(&mut self, index: u16) {
        if let Some(hop) = self.hops.get_mut(usize::from(index)) {
            hop.invites_inflight += 1;
        }
    }

    /// An INVITE of hop `index` got its final response or was given up.
    ///
    /// # Panics
    /// When more INVITEs end than started: our accounting is wrong.
    pub fn invite_ended(&mut self, index: u16) {
        if let Some(hop) = self.hops.get_mut(usize::from(index)) {
            assert!(
                hop.invites_inflight > 0,
                "an INVITE ended that never started"
            );
            hop.invites_inflight -= 1;
        }
    }

    /// INVITEs without a final response, of all hops. Looks at each.
    #[must_use]
    pub fn invites_inflight(&self) -> u32 {
        self.hops.iter().map(|hop| hop.invites_inflight).sum()
    }

    /// The hop answered 503: it gets no new request until `until`. Several answers do not add up.
    pub fn avoid(&mut self, index: u16, until: Timestamp) {
        if let Some(hop) = self.hops.get_mut(usize::from(index)) {
            hop.avoid_until = hop.avoid_until.max(until);
        }
    }

    /// When a request that was left out for the sake of a hop's share is offered again: after the earliest end of
    /// what a hop asked for, since not all shall come at once, and after `HELD_MAX` at most, since it may ask for less
    /// by then. `None` when none asks for a share.
    pub fn held_until(&self, now: Timestamp, set: u8, jitter: &mut Jitter) -> Option<Timestamp> {
        let ends = self.of_set(set).filter_map(|hop| hop.throttle.until(now));
        let end = ends.min()?.min(now + HELD_MAX);
        Some(end + jitter.duration(Duration::ZERO, HELD_SPREAD))
    }

    /// What a response of hop `index` says of the hop, whatever it answers: that it is there, how much it
    /// takes (OVL-2), that it wants nothing for a while (RSP-28). True when how much it takes changed.
    pub fn heard(&mut self, now: Timestamp, index: u16, message: &Message<'_>) -> bool {
        self.answered(index);
        if message.status() == 503
            && let Some(hold_s) = message.retry_after()
        {
            let hold = Duration::from_secs(u64::from(hold_s)).min(RETRY_AFTER_MAX);
            self.avoid(index, now + hold);
        }
        Feedback::of(message).is_some_and(|feedback| self.hear(now, index, &feedback))
    }

    /// A response of hop `index` carried overload parameters. True when they changed what it gets.
    fn hear(&mut self, now: Timestamp, index: u16, feedback: &Feedback) -> bool {
        self.hops
            .get_mut(usize::from(index))
            .is_some_and(|hop| hop.throttle.hear(now, feedback))
    }

    /// The hop a message came from.
    #[must_use]
    pub fn index_of(&self, from: Destination) -> Option<u16> {
        (0u16..)
            .zip(&self.hops)
            .find(|(_, hop)| match from.address {
                Some(address) => hop.options.address == address,
                None => hop.trunks.iter().any(|trunk| trunk.link == Some(from.link)),
            })
            .map(|(index, _)| index)
    }

    /// Hop `index` answered something: it is not silent.
    pub fn answered(&mut self, index: u16) {
        if let Some(hop) = self.hops.get_mut(usize::from(index))
            && hop.silence > 0
        {
            hop.silence = 0;
            hop.probe.at = Timestamp::NEVER;
            hop.probe.sent = 0;
            hop.probe.transaction = None;
        }
    }

    /// Nobody answered an INVITE by hop `index`.
    pub fn unanswered(&mut self, now: Timestamp, index: u16) {
        let Some(hop) = self.hops.get_mut(usize::from(index)) else {
            return;
        };
        hop.silence = hop.silence.saturating_add(1);
        if hop.silence == SILENCE_MAX {
            hop.probe.at = now + PROBE_MIN;
        }
    }

    /// A response to a probe, named by the parts of its branch.
    pub fn probe_answered(&mut self, parts: TokenParts) {
        let Ok(index) = u16::try_from(parts.key.slot) else {
            return;
        };
        let is_current = self
            .hops
            .get(usize::from(index))
            .is_some_and(|hop| hop.probe.serial == parts.key.generation);
        if is_current {
            self.answered(index);
        }
    }

    /// Sends the probes that are due, and repeats those over datagrams.
    pub fn probe(&mut self, now: Timestamp, out: &mut Outbox, kit: &ProbeKit<'_>) {
        let shard = self.shard;
        for (index, hop) in (0u32..).zip(self.hops.iter_mut()) {
            let send = if hop.probe.at <= now {
                hop.probe.at = Timestamp::NEVER;
                hop.probe.serial = (hop.probe.serial + 1) & crate::base::slab::GENERATION_MASK;
                hop.probe.sent = hop.probe.sent.saturating_add(1);
                let mut options = kit.transaction;
                options.reliable = hop.options.transport == HopTransport::Tcp;
                hop.probe.transaction = Some(ClientNonInvite::start(now, &options));
                true
            } else {
                hop.step_probe(now)
            };
            let (true, Some(link)) = (send, hop.trunk()) else {
                continue;
            };
            let to = Destination {
                shard,
                link,
                address: (hop.options.transport == HopTransport::Udp)
                    .then_some(hop.options.address),
            };
            let name = |kind| kit.name(kind, shard, index, hop.probe.serial);
            let (branch, tag) = (name(TokenKind::HopBranch), name(TokenKind::ServerTag));
            let call_id = name(TokenKind::OtherCallId);
            let uri = format_uri(hop.options.address);
            let fields = OptionsFields {
                request_uri: uri.as_bytes(),
                branch: branch.as_bytes(),
                from_tag: tag.as_bytes(),
                to_uri: uri.as_bytes(),
                call_id: call_id.as_bytes(),
                cseq: 1,
            };
            out.send(to, |out| kit.templates.options(&fields, out));
        }
    }

    /// The shard's datagram socket is bound: UDP hops are up.
    pub fn socket_bound(&mut self, link: LinkId) {
        self.socket = Some(link);
        self.tell();
        for hop in &mut self.hops {
            if hop.options.transport == HopTransport::Udp {
                hop.trunks[0].link = Some(link);
            }
        }
    }

    /// A trunk connected. `token` is the one passed to [`Outbox::connect`].
    pub fn connected(&mut self, token: u64, link: LinkId) {
        if let Some(trunk) = self.trunk_mut(token) {
            trunk.connecting = false;
            trunk.failures = 0;
            trunk.link = Some(link);
        }
        self.tell();
    }

    /// A trunk did not connect: try again later.
    pub fn connect_failed(&mut self, now: Timestamp, token: u64, jitter: &mut Jitter) {
        if let Some(trunk) = self.trunk_mut(token) {
            trunk.connecting = false;
            trunk.failures = trunk.failures.saturating_add(1);
            let wait = RECONNECT_MIN
                .saturating_mul(1 << trunk.failures.min(9))
                .min(RECONNECT_MAX);
            trunk.retry_at = now + jitter.duration(wait / 2, wait);
        }
        self.tell();
    }

    /// A link closed; true if it was a trunk. With its last one a hop may have gone, and what it says
    /// when it is back is not compared with what it said before (RFC 7339 section 5.4).
    pub fn closed(&mut self, now: Timestamp, link: LinkId) -> bool {
        for hop in &mut self.hops {
            for trunk in &mut hop.trunks {
                if trunk.link == Some(link) {
                    trunk.link = None;
                    trunk.retry_at = now + RECONNECT_MIN;
                    if hop.trunk().is_none() {
                        hop.throttle.forget_sequence();
                    }
                    self.memo.forget();
                    return true;
                }
            }
        }
        false
    }

    /// Starts every connection that is due.
    pub fn advance(&mut self, now: Timestamp, out: &mut Outbox) {
        for link in self.retired.drain(..) {
            out.close(link);
        }
        if self.names.expire(now) {
            self.tell();
        }
        for (index, hop) in (0u64..).zip(self.hops.iter_mut()) {
            if hop.options.transport == HopTransport::Udp || hop.is_idle(now) {
                continue;
            }
            for (at, trunk) in (0u64..).zip(hop.trunks.iter_mut()) {
                if trunk.link.is_none() && !trunk.connecting && trunk.retry_at <= now {
                    trunk.connecting = true;
                    let token = TRUNK_TOKEN | index << 16 | at;
                    out.connect(token, LinkKind::SipOutbound, hop.options.address);
                }
            }
        }
    }

    /// When [`Self::advance`] has work next; also when an avoided hop may be used again.
    #[must_use]
    pub fn deadline(&self, now: Timestamp) -> Timestamp {
        let mut earliest = self.names.deadline();
        if !self.retired.is_empty() || self.news {
            earliest = Timestamp::ZERO;
        }
        if !self.waiting.is_empty() {
            earliest = earliest.min(self.waiting_since + ways::WAIT_MAX);
        }
        for hop in &self.hops {
            if hop.avoid_until > now {
                earliest = earliest.min(hop.avoid_until);
            }
            earliest = earliest.min(hop.probe.at);
            if let Some(transaction) = &hop.probe.transaction {
                earliest = earliest.min(transaction.deadline());
            }
            if hop.options.transport == HopTransport::Udp || hop.is_idle(now) {
                continue;
            }
            for trunk in &hop.trunks {
                if trunk.link.is_none() && !trunk.connecting {
                    earliest = earliest.min(trunk.retry_at);
                }
            }
        }
        earliest
    }

    fn trunk_mut(&mut self, token: u64) -> Option<&mut Trunk> {
        debug_assert!(is_trunk_token(token));
        let index = usize::try_from(token >> 16 & 0xffff).ok()?;
        let at = usize::try_from(token & 0xffff).ok()?;
        self.hops.get_mut(index)?.trunks.get_mut(at)
    }
}

impl Hop {
    /// Moves the probe under way on; true when it is to be sent again.
    fn step_probe(&mut self, now: Timestamp) -> bool {
        let Some(transaction) = &mut self.probe.transaction else {
            return false;
        };
        if transaction.deadline() > now {
            return false;
        }
        match transaction.handle_timeout(now) {
            NonInviteAction::Retransmit => true,
            NonInviteAction::TimedOut
            | NonInviteAction::TransportFailed
            | NonInviteAction::Terminated => {
                self.probe.transaction = None;
                let wait = PROBE_MIN.saturating_mul(1 << self.probe.sent.min(6));
                self.probe.at = now + wait.min(PROBE_MAX);
                false
            }
            NonInviteAction::Nothing
            | NonInviteAction::Provisional(_)
            | NonInviteAction::Final(_) => false,
        }
    }
}

/// What a probe is made with.
#[derive(Debug)]
pub struct ProbeKit<'a> {
    /// Mints its identifiers.
    pub minter: &'a Minter,
    /// Encodes it.
    pub templates: &'a Templates,
    /// Its timers.
    pub transaction: TransactionOptions,
}

impl ProbeKit<'_> {
    fn name(&self, kind: TokenKind, shard: u8, slot: u32, generation: u32) -> Token {
        self.minter.mint(TokenParts {
            kind,
            shard,
            key: Key { slot, generation },
            sequence: 0,
        })
    }
}

/// Probes are rare: this may allocate.
fn format_uri(address: SocketAddr) -> String {
    format!("sip:{address}")
}

const TRUNK_TOKEN: u64 = 1 << 63;

/// Whether new requests may use the trunk `link`.
#[must_use]
pub fn has_room(out: &Outbox, link: LinkId) -> bool {
    out.backlog(link) < TRUNK_BACKLOG_MAX
}

/// `true` if a connect token belongs to a trunk rather than to a push.
#[must_use]
pub const fn is_trunk_token(token: u64) -> bool {
    token & TRUNK_TOKEN != 0
}
