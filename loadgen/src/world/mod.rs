//! The world the engine sees: S-CSCF, registrar, notifier, senders and phones as one plain state
//! machine. It gets octets and the time, and appends octets to an outbox; the driver does the rest.

mod compact;
mod crossed;
mod director;
mod faults;
mod hops;
mod large;
mod media;
mod mood;
mod phone;
mod refresh;
mod registrar;
mod resend;

use std::net::SocketAddr;

use crate::behaviour::{Behaviour, Hop, Refresher, Registrar};
use crate::chaos::Chaos;
use crate::check::dialog::{Dialog, DialogCheck};
use crate::check::invite::{InviteCheck, Policy};
use crate::check::sdp::DirectionLevel;
use crate::check::{Bench, Hasher};
use crate::forms::Forms;
use crate::identity::Names;
use crate::ledger::{Balance, Ledger, Queue};
use crate::link::{LinkId, Outbox, Protocol};
use crate::rules::{Rule, Violations};
use crate::scan::{Header, Message, Method, Scanned, Table, scan};
use crate::scenario::{Check, Kind, Setup};
use crate::stats::{Counters, Latencies};
use crate::timeline::{Timeline, Totals};

use compact::{Compact, Patterns};

pub use director::{Director, Step};

/// No link.
pub const NO_LINK: LinkId = LinkId::MAX;
/// Octets queued on one link above which the director holds back.
pub const LINK_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Where a phone stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Call {
    /// 200 sent, no ACK yet.
    Answered,
    /// ACK received.
    Confirmed,
    /// No dialog.
    #[default]
    Idle,
    /// Refused, no ACK yet.
    Refused,
    /// Refused with 422 and acknowledged: another INVITE is to come.
    Retry,
    /// No final answer yet.
    Ringing,
}

/// One device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Device {
    dialog: Dialog,
    call: Call,
    /// A trigger is outstanding for it.
    pending: bool,
    /// The first SEND of this session has come.
    fed: bool,
    /// This push is judged.
    judged: bool,
    /// What the phone does with this push.
    behaviour: Behaviour,
    /// Who refreshes this session.
    refresher: Refresher,
    /// When it was refreshed last.
    refreshed_at: u64,
    /// The phone cut this session short, so not every message is owed.
    excused: bool,
    /// Pushes so far, as far as what the phone does is drawn from them.
    nth: u32,
    /// The binding shown last, where a registrar shows devices one by one.
    binding: u32,
    /// The last INVITE was declined while it named the oldest message: the engine holds it.
    holds: bool,
    /// Intended time of the outstanding trigger.
    trigger_due: u64,
    /// When it was sent.
    trigger_sent: u64,
    /// When the 200 was sent.
    answered_at: u64,
    /// Newest message accepted when the INVITE came; all up to it belong into the session.
    owed: u32,
    /// Reassembly buffer plus one; zero for none.
    partial: u32,
    /// Octets got of the message in transfer.
    partial_len: u64,
    /// Link plus one of a connection the phone opened.
    media: u32,
    /// Slot plus one of the 2xx that is sent again over a stream until its ACK.
    again: u32,
}

const _: () = assert!(
    size_of::<Device>() <= 128,
    "a hold keeps millions of devices"
);

/// One user.
#[derive(Debug, Default)]
pub struct User {
    first_device: u32,
    devices: u8,
    tel: bool,
    registered: bool,
    /// Subscription data; empty without a subscription.
    subscription: Compact,
    /// Parts of `subscription`: Contact URI, From value; the rest is the Call-ID.
    contact_len: u16,
    from_len: u16,
    notify_link: LinkId,
    /// CSeq number of the last NOTIFY.
    notify_cseq: u32,
    version: u32,
    binding: u32,
    notified_at: u64,
    queue: Queue,
    /// Newest message answered 202, or `ledger::NONE`.
    accepted: u32,
    /// Devices whose push the current trigger waits for.
    open: u8,
    /// Counts triggers, to tell a stalled one from its successor.
    trigger: u32,
    /// The last REGISTER was answered.
    register_answered: bool,
    /// Third-party REGISTERs sent for it.
    registers: u32,
    /// Triggers drawn from the registrar's mix.
    faults: u32,
    /// The last of them.
    fault: Registrar,
    /// No push is due before.
    hushed_until: u64,
    /// No SUBSCRIBE is due before.
    unsubscribed_until: u64,
    /// A refresh of the subscription is due.
    owes_refresh: bool,
    /// A client that waits for answers would wait for this one.
    lane: bool,
}

/// Everything.
#[derive(Debug)]
pub struct World {
    /// What was asked for.
    pub setup: Setup,
    names: Names,
    forms: Forms,
    invites: InviteCheck,
    dialogs: DialogCheck,
    hasher: Hasher,
    /// Rules broken.
    pub violations: Violations,
    /// Messages and deliveries.
    pub ledger: Ledger,
    users: Vec<User>,
    devices: Vec<Device>,
    /// Output.
    pub outbox: Outbox,
    /// Latencies since the last reset.
    pub latencies: Latencies,
    /// Events.
    pub counters: Counters,
    /// Time of this turn, nanoseconds of the run; set by [`World::begin_turn`].
    now: u64,
    /// Octets that leave later.
    waiting: mood::Waiting,
    /// What is sent again.
    resend: resend::Resend,
    /// Dialogs of phones that refresh.
    sides: refresh::Sides,
    /// What next hops have done.
    hops: hops::Hops,
    /// Sessions that an INVITE found before their BYE came.
    crossings: crossed::Crossings,
    /// When a phone last broke a connection that sessions share.
    broken_at: u64,
    /// The phone that reports now does so in parts.
    reports_in_parts: bool,
    /// What the registrar has in mind.
    faults: faults::Faults,
    /// The measured step over time.
    pub timeline: Timeline,
    /// The schedule.
    pub director: Director,
    engine_links: Vec<LinkId>,
    notify_links: Vec<(SocketAddr, LinkId)>,
    /// Paths of the engine that phones are to connect to, by device.
    active_paths: std::collections::BTreeMap<usize, Box<[u8]>>,
    /// What the texts of subscriptions and dialogs have in common.
    patterns: Patterns,
    partials: Vec<Vec<u8>>,
    free_partials: Vec<u32>,
    larges: std::collections::BTreeMap<u32, large::Large>,
    table: Table,
    scratch: Vec<u8>,
    /// A text out of its compact form.
    unpacked: Vec<u8>,
    sampled: u32,
    serial: u32,
    accepting: bool,
    transport: &'static [u8],
}

impl World {
    /// A world for a resolved setup whose listening addresses are final.
    pub fn new(setup: Setup) -> Self {
        let names = Names::new(&setup.domain, setup.run_id).starting_at(setup.first_user);
        let forms = Forms::new(&setup, &names);
        let transport = setup.transport.via().as_bytes();
        let policy = Policy {
            cema: setup.expect_cema,
            level: if setup.sendonly_session_level {
                DirectionLevel::Session
            } else {
                DirectionLevel::Media
            },
            transport,
            path_mtu: setup.path_mtu,
            icsi: setup.icsi.clone(),
            icsi_encoded: setup.icsi.replace(':', "%3A").into_bytes(),
            scscf: setup.scscf_listen.to_string().into_bytes(),
        };
        let dialogs = DialogCheck::new(transport, forms.routes.clone());
        let (users, devices) = populate(&setup);
        Self {
            invites: InviteCheck::new(policy, setup.uniqueness_window),
            dialogs,
            hasher: Hasher::default(),
            violations: Violations::default(),
            ledger: Ledger::with_capacity(setup.users as usize * setup.messages as usize),
            active_paths: std::collections::BTreeMap::new(),
            patterns: Patterns::default(),
            users,
            devices,
            outbox: outbox(&setup),
            latencies: Latencies::default(),
            counters: Counters::default(),
            now: 0,
            waiting: mood::Waiting::default(),
            resend: resend::Resend::default(),
            faults: faults::Faults::default(),
            sides: refresh::Sides::default(),
            hops: hops::Hops::default(),
            crossings: crossed::Crossings::default(),
            broken_at: 0,
            reports_in_parts: false,
            timeline: Timeline::default(),
            director: Director::new(&setup),
            engine_links: Vec::new(),
            notify_links: Vec::new(),
            partials: Vec::new(),
            free_partials: Vec::new(),
            larges: std::collections::BTreeMap::new(),
            table: Table::default(),
            scratch: Vec::with_capacity(8192),
            unpacked: Vec::new(),
            sampled: 0,
            serial: 0,
            accepting: setup.kind != Kind::Signalling,
            transport,
            names,
            forms,
            setup,
        }
    }

    /// Appends the CPIM of a message as it was deposited.
    pub fn put_deposited(&self, user: u32, message: u64, out: &mut Vec<u8>) {
        self.forms.put_cpim(0, user, message, out);
    }

    /// Counts for the timeline.
    pub fn totals(&self, engine_ns: u64, own_ns: u64) -> Totals {
        let counters = &self.counters;
        Totals {
            due: counters.triggers_due,
            sent: counters.triggers_sent,
            invites: counters.invites,
            pushes: counters.pushes,
            engine_ns,
            own_ns,
        }
    }

    /// Devices of all users.
    pub fn device_count(&self) -> usize {
        self.devices.len()
    }

    /// Asks for the connections to the engine's well-known port.
    pub fn open_links(&mut self, protocol: Protocol) {
        for _ in 0..self.setup.connections {
            let link = self.outbox.connect(protocol, self.setup.engine);
            self.engine_links.push(link);
            if protocol == Protocol::SipDatagram {
                break;
            }
        }
        self.notify_links
            .push((self.setup.engine, self.engine_links[0]));
    }

    /// Handles SIP octets received on a stream; gives how many were consumed, or `None` when the
    /// stream is lost.
    pub fn handle_sip(&mut self, link: LinkId, bytes: &[u8]) -> Option<usize> {
        let mut table = core::mem::take(&mut self.table);
        let mut at = 0;
        let outcome = loop {
            if at == bytes.len() {
                break Some(at);
            }
            match scan(&bytes[at..], &mut table) {
                Scanned::Message(message, length) => {
                    self.message(link, &message);
                    at += length;
                }
                Scanned::KeepAlive(length) => at += length,
                Scanned::Incomplete => break Some(at),
                Scanned::Error(_) => {
                    self.violations
                        .record(Rule::Nh6, "stream cannot be framed", &bytes[at..]);
                    break None;
                }
            }
        };
        self.table = table;
        outcome
    }

    fn message(&mut self, link: LinkId, message: &Message<'_>) {
        if message.status != 0 {
            if !self.remembers() || self.first_answer(message) {
                self.response(message);
            }
            return;
        }
        let kept = self.remembers() && !matches!(message.method, Method::Invite | Method::Ack);
        if kept && self.answered_before(link, message) {
            return;
        }
        self.request(link, message);
        self.request_done();
    }

    fn request(&mut self, link: LinkId, message: &Message<'_>) {
        match message.method {
            Method::Invite => self.invite(link, message),
            Method::Ack => self.ack(link, message),
            Method::Bye => self.bye(link, message),
            Method::Cancel => self.cancel(link, message),
            Method::Update => self.update(link, message),
            Method::Subscribe => self.subscribe(link, message),
            Method::Message => self.notice(link, message),
            Method::Options => self.reply(link, message, b"200 OK", None, b""),
            Method::Notify | Method::Register | Method::Other => {
                self.counters.strays += 1;
                self.reply(link, message, b"405 Method Not Allowed", None, b"");
            }
        }
    }

    /// A MESSAGE of the engine: a notice to a sender.
    fn notice(&mut self, link: LinkId, message: &Message<'_>) {
        self.counters.notices += 1;
        // Nothing expires and nothing is refused by policy in these scenarios.
        self.violations.record(
            Rule::Imdn4,
            "a notice nobody has reason to send",
            message.bytes,
        );
        self.reply(link, message, b"200 OK", Some(b"snd-ok"), b"");
    }

    /// Appends an answer: status line, the five headers of the request, `tail` of complete lines.
    fn reply(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        status: &[u8],
        to_tag: Option<&[u8]>,
        tail: &[u8],
    ) {
        let out = self.outbox.buffer(link);
        put_head(out, message, status, to_tag);
        out.extend_from_slice(tail);
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        self.reply_sent(link);
    }

    /// Whether the next push is judged.
    fn sample(&mut self) -> bool {
        match self.setup.check {
            Check::Full => true,
            Check::Off => false,
            Check::Sampled(n) => {
                self.sampled = (self.sampled + 1) % n;
                self.sampled == 0
            }
        }
    }

    /// A connection is gone.
    pub fn link_lost(&mut self, link: LinkId) {
        self.counters.links_lost += 1;
        self.outbox.close(link);
    }

    /// The ledger's sums.
    pub fn balance(&self) -> Balance {
        self.ledger.balance(
            |user| self.users[user as usize].devices,
            |user, device| {
                let first = self.users[user as usize].first_device;
                self.devices[first as usize + usize::from(device)].holds
            },
        )
    }

    /// Closes the books: what should have come and did not.
    pub fn finish(&mut self) {
        self.judge_held();
        self.judge_acknowledgements();
        // What came once the run was over has nobody who would wait for its ACK, or for the BYE before it.
        let over = if self.director.step == Step::Done {
            self.director.since
        } else {
            u64::MAX
        };
        self.judge_crossings(over);
        for device in &self.devices {
            if device.call == Call::Answered && device.judged && device.answered_at < over {
                self.violations
                    .record(Rule::Ok0, "no ACK until the end of the run", b"");
            }
        }
    }

    fn device_index(&self, user: u32, device: u8) -> Option<usize> {
        let entry = self.users.get(user as usize)?;
        (device < entry.devices).then_some(entry.first_device as usize + usize::from(device))
    }
}

/// Appends status line, Via, From, To, Call-ID and CSeq.
fn put_head(out: &mut Vec<u8>, message: &Message<'_>, status: &[u8], to_tag: Option<&[u8]>) {
    out.extend_from_slice(b"SIP/2.0 ");
    out.extend_from_slice(status);
    if message.count(Header::Via) == 1 {
        out.extend_from_slice(b"\r\nVia: ");
        out.extend_from_slice(message.value(Header::Via).unwrap_or(&[]));
    } else {
        for via in message.values(Header::Via) {
            out.extend_from_slice(b"\r\nVia: ");
            out.extend_from_slice(via);
        }
    }
    out.extend_from_slice(b"\r\nFrom: ");
    out.extend_from_slice(message.value(Header::From).unwrap_or(&[]));
    out.extend_from_slice(b"\r\nTo: ");
    out.extend_from_slice(message.value(Header::To).unwrap_or(&[]));
    if let Some(tag) = to_tag {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag);
    }
    out.extend_from_slice(b"\r\nCall-ID: ");
    out.extend_from_slice(message.value(Header::CallId).unwrap_or(&[]));
    out.extend_from_slice(b"\r\nCSeq: ");
    out.extend_from_slice(message.value(Header::CSeq).unwrap_or(&[]));
    out.extend_from_slice(b"\r\n");
}

/// An outbox for a setup.
fn outbox(setup: &Setup) -> Outbox {
    let mut outbox = Outbox::new(Chaos::new(
        setup.chaos,
        setup.seed ^ u64::from(setup.worker) << 32,
    ));
    outbox.ends_kept = !setup.hops.is_only(Hop::Good);
    outbox
}

/// A number for a device that does not depend on how users are shared out.
#[inline]
fn device_key(names: &Names, user: u32, device: u8) -> usize {
    names.written(user) as usize * usize::from(crate::identity::DEVICES_MAX) + usize::from(device)
}

/// Draws the users and their devices.
fn populate(setup: &Setup) -> (Vec<User>, Vec<Device>) {
    let mut users = Vec::with_capacity(setup.users as usize);
    let mut devices = 0u32;
    let (low, high) = setup.devices;
    for user in 0..setup.users {
        // By the user's number alone, so that workers share out the same world.
        let number = u64::from(setup.first_user + user);
        let mut random = Random::new(setup.seed ^ number << 20);
        let span = u64::from(high - low) + 1;
        let count = low + (random.bits() % span) as u8;
        let tel = random.unit() < setup.tel_share;
        users.push(User {
            first_device: devices,
            devices: count,
            tel,
            notify_link: NO_LINK,
            accepted: crate::ledger::NONE,
            ..User::default()
        });
        devices += u32::from(count);
    }
    (users, vec![Device::default(); devices as usize])
}

/// SplitMix64: seeded, small, good enough for drawing a world.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number from zero up to, not including, one.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A bench on which nothing is judged still needs somewhere to write.
fn bench<'a>(violations: &'a mut Violations, message: &'a Message<'_>) -> Bench<'a> {
    Bench::new(violations, message.bytes)
}

impl World {
    /// The link of a datagram peer, made at first sight.
    pub fn datagram_link(&mut self, peer: SocketAddr) -> LinkId {
        if let Some(&(_, link)) = self.notify_links.iter().find(|&&(known, _)| known == peer) {
            return link;
        }
        let link = self.outbox.add(Protocol::SipDatagram, peer);
        self.notify_links.push((peer, link));
        link
    }

    /// A connection that a phone had opened has ended.
    pub fn media_ended(&mut self, link: LinkId) {
        let device = self.outbox.peek(link).device;
        if device != 0 {
            let entry = &mut self.devices[device as usize - 1];
            if entry.media == link + 1 {
                entry.media = 0;
            }
        }
        self.outbox.release(link);
    }
}

#[cfg(test)]
mod tests;
