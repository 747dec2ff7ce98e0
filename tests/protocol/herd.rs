//! A hundred thousand sessions at a time, each refreshed when it is due.
//!
//! A driver of its own: it reads as little of each message as an answer takes.
#![expect(
    clippy::unwrap_used,
    reason = "the script of a test is known to be right"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use volley::base::surface::{
    Core, Input, LinkCommand, LinkEvent, LinkId, LinkKind, Location, StoreBatch, StoreDone, TxBuf,
};
use volley::base::time::{Timestamp, UnixMillis};
use volley::shard::questions::{Answer, Memory, Question};
use volley::shard::{Shard, ShardOptions, ShardSeed};

use crate::allocation::live_octets;
use crate::harness::script::{PHONE_PATH, sdp};
use crate::harness::text::crlf;
use crate::harness::{WALL_S, patient_options};

const USERS: u64 = 12_500;
const DEVICES: u64 = 8;
const SESSIONS: usize = 100_000;
/// What phone and engine agree on, and the window in which a refresh is due (ST-8).
const INTERVAL_S: u64 = 1800;
const DUE: (Duration, Duration) = (Duration::from_secs(855), Duration::from_millis(900_020));

/// One session as its phone sees it.
#[derive(Debug)]
struct Session {
    /// When the last 2xx to a session interval was sent.
    since: Timestamp,
    refreshes: u32,
    late: u32,
}

struct Herd {
    shard: Shard,
    devices: u64,
    now: Timestamp,
    links: u32,
    trunk: Option<LinkId>,
    serial: u64,
    sessions: BTreeMap<Vec<u8>, Session>,
    /// Refreshes by the second in which they left.
    seconds: BTreeMap<u64, u32>,
    byes: u32,
    reports: u32,
    buffer: TxBuf,
    batch: StoreBatch,
    /// What the core says a moment later.
    late: Vec<u8>,
    /// The driver always has something to do.
    busy: bool,
    /// Octets of a stream that are no whole message yet.
    rests: BTreeMap<u32, Vec<u8>>,
}

fn line<'a>(head: &'a [u8], name: &str) -> &'a [u8] {
    let key = format!("\r\n{name}: ");
    let at = memchr_find(head, key.as_bytes()).unwrap_or_else(|| panic!("{name} in a message"));
    let value = &head[at + key.len()..];
    &value[..memchr_find(value, b"\r\n").unwrap_or(value.len())]
}

fn memchr_find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    let mut at = 0;
    while let Some(step) = hay[at..].iter().position(|byte| *byte == first) {
        at += step;
        if hay[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn number(text: &[u8]) -> usize {
    std::str::from_utf8(text).unwrap().trim().parse().unwrap()
}

impl Herd {
    /// Users with `devices` each; without, no SUBSCRIBE finds them.
    fn new(devices: u64) -> Self {
        Self::with(devices, patient_options())
    }

    fn with(devices: u64, mut options: ShardOptions) -> Self {
        options.hops[0].invite_inflight_max = 200_000;
        options.users_max = 40_000;
        options.pushes_max = 120_000;
        options.push.msrp_reuse = true;
        options.post.cache_bytes_max = 1 << 30;
        let seed = ShardSeed {
            identifier_key: [3; 16],
            stream: [9; 32],
        };
        let now = Timestamp::from_millis(1000);
        let wall = UnixMillis::from_secs(WALL_S);
        let mut herd = Self {
            shard: Shard::new(options, seed, now, wall).expect("the profile is valid"),
            devices,
            now,
            links: 0,
            trunk: None,
            serial: 0,
            sessions: BTreeMap::new(),
            seconds: BTreeMap::new(),
            byes: 0,
            reports: 0,
            buffer: TxBuf::default(),
            batch: StoreBatch::default(),
            late: Vec::new(),
            busy: false,
            rests: BTreeMap::new(),
        };
        herd.turn();
        herd
    }

    /// One turn of a driver, and all that its outputs lead to.
    fn turn(&mut self) {
        loop {
            self.shard.advance(self.now);
            let mut moved = false;
            while let Some(command) = self.shard.poll_link() {
                moved = true;
                self.obey(command);
            }
            let mut batch = std::mem::take(&mut self.batch);
            if self.shard.poll_store(&mut batch) {
                moved = true;
                self.store(&batch);
                batch = StoreBatch::default();
            }
            self.batch = batch;
            let mut buffer = std::mem::take(&mut self.buffer);
            while let Some(sent) = self.shard.poll_transmit(&mut buffer) {
                moved = true;
                let link = sent.link;
                let event = LinkEvent::Sent;
                self.shard.handle(self.now, Input::Link { link, event });
                self.read(link, &buffer.bytes);
                buffer.bytes.clear();
            }
            self.buffer = buffer;
            let due = self.shard.next_deadline().is_some_and(|at| at <= self.now);
            if !moved && !due && (self.busy || !self.shard.caught_up()) {
                return;
            }
        }
    }

    fn obey(&mut self, command: LinkCommand) {
        let LinkCommand::Connect {
            token,
            kind,
            address,
        } = command
        else {
            return;
        };
        let link = LinkId {
            slot: self.links,
            generation: 1,
        };
        self.links += 1;
        if kind == LinkKind::SipOutbound {
            self.trunk = Some(link);
        }
        let event = LinkEvent::Connected {
            token,
            kind,
            peer: address,
            local: SocketAddr::from(([192, 0, 2, 10], 40_000)),
        };
        self.shard.handle(self.now, Input::Link { link, event });
    }

    fn store(&mut self, batch: &StoreBatch) {
        assert!(batch.reads.is_empty(), "bodies are in memory");
        let mut done = StoreDone::default();
        for &(ticket, len) in &batch.appends {
            let location = Location {
                segment: 1,
                offset: u32::try_from(ticket.0).unwrap(),
                len,
            };
            done.stored.push((ticket, location));
        }
        self.shard.handle(self.now, Input::Stored(&done));
    }

    fn feed(&mut self, link: LinkId, bytes: &[u8]) {
        self.shard.handle(self.now, Input::Bytes { link, bytes });
    }

    fn read(&mut self, link: LinkId, bytes: &[u8]) {
        if Some(link) == self.trunk {
            self.read_sip(link, bytes);
        } else {
            self.read_msrp(link, bytes);
        }
    }

    fn read_sip(&mut self, link: LinkId, bytes: &[u8]) {
        let mut rest = bytes;
        let mut replies = Vec::new();
        while !rest.is_empty() {
            let end = memchr_find(rest, b"\r\n\r\n").expect("whole messages") + 4;
            let head = &rest[..end];
            let len = end + number(line(head, "Content-Length"));
            self.answer(head, &mut replies);
            rest = &rest[len..];
        }
        if self.devices == 0 {
            self.late.extend_from_slice(&replies);
        } else {
            self.feed(link, &replies);
        }
    }

    fn answer(&mut self, head: &[u8], out: &mut Vec<u8>) {
        let method = head.split(|byte| *byte == b' ').next().unwrap();
        let (more, body) = match method {
            b"SUBSCRIBE" => ("Expires: 600000\r\n".to_owned(), String::new()),
            b"INVITE" | b"UPDATE" => {
                self.agreed(head, method == b"UPDATE");
                let timer = format!(
                    "Contact: <sip:ue@198.51.100.7:5060>\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n\
                     Require: timer\r\nSession-Expires: {INTERVAL_S};refresher=uac\r\n"
                );
                match method {
                    b"INVITE" => (
                        timer + "Content-Type: application/sdp\r\n",
                        sdp(PHONE_PATH, "passive", ""),
                    ),
                    _ => (timer, String::new()),
                }
            }
            b"BYE" => {
                self.byes += 1;
                (String::new(), String::new())
            }
            _ => return,
        };
        let is_away = self.devices == 0 && method == b"SUBSCRIBE";
        out.extend_from_slice(match is_away {
            true => b"SIP/2.0 480 Away\r\n",
            false => b"SIP/2.0 200 OK\r\n",
        });
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            let value = line(head, name);
            out.extend_from_slice(format!("{name}: ").as_bytes());
            out.extend_from_slice(value);
            if name == "To" && memchr_find(value, b";tag=").is_none() {
                out.extend_from_slice(b";tag=ue");
            }
            out.extend_from_slice(b"\r\n");
        }
        let tail = format!("{more}Content-Length: {}\r\n\r\n{body}", body.len());
        out.extend_from_slice(tail.as_bytes());
        if method == b"SUBSCRIBE" && !is_away {
            self.notify(head, out);
        }
    }

    /// A session interval begins, by an INVITE or by its refresh.
    fn agreed(&mut self, head: &[u8], is_refresh: bool) {
        let now = self.now;
        let session = self
            .sessions
            .entry(line(head, "Call-ID").to_vec())
            .or_insert_with(|| Session {
                since: now,
                refreshes: 0,
                late: 0,
            });
        if is_refresh {
            let passed = now.since(session.since);
            session.late += u32::from(!(DUE.0..=DUE.1).contains(&passed));
            session.refreshes += 1;
            session.since = now;
            *self.seconds.entry(now.as_millis() / 1000).or_default() += 1;
        }
    }

    /// All devices of the user are registered.
    fn notify(&mut self, subscribe: &[u8], out: &mut Vec<u8>) {
        self.serial += 1;
        let serial = self.serial;
        let uri = line(subscribe, "To");
        let uri = std::str::from_utf8(uri).unwrap().trim_matches(['<', '>']);
        let contacts: String = (0..self.devices)
            .map(|at| {
                let urn = format!("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6{at:03}");
                format!(
                    "<contact id=\"c{at}\" state=\"active\" event=\"registered\" callid=\"r{at}\" \
                     cseq=\"1\" expires=\"500000\"><uri>sip:ue@198.51.100.{at}</uri>\
                     <unknown-param name=\"+sip.instance\">\"&lt;{urn}&gt;\"</unknown-param>\
                     <unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aurn-7%3A3gpp-service.ims.\
                     icsi.oma.cpm.deferred\"</unknown-param>\
                     <gr:pub-gruu uri=\"{uri};gr={urn}\"/></contact>"
                )
            })
            .collect();
        let body = format!(
            "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
             xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"0\" state=\"full\">\
             <registration aor=\"{uri}\" id=\"r\" state=\"active\">{contacts}</registration>\
             </reginfo>"
        );
        let text = |name| std::str::from_utf8(line(subscribe, name)).unwrap();
        let head = crlf(&format!(
            "NOTIFY sip:push@pf1.ims.example.net SIP/2.0\n\
             Via: SIP/2.0/TCP 192.0.2.20:5060;branch=z9hG4bKn{serial}\nMax-Forwards: 70\n\
             From: <{uri}>;tag=ue\nTo: {}\nCall-ID: {}\nCSeq: 1 NOTIFY\n\
             Contact: <sip:scscf1.ims.example.net:5060;transport=tcp>\nEvent: reg\n\
             Subscription-State: active;expires=599999\nContent-Type: application/reginfo+xml\n\
             Content-Length: {}\n\n",
            text("From"),
            text("Call-ID"),
            body.len()
        ));
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    }

    /// Each message is taken and reported.
    fn read_msrp(&mut self, link: LinkId, bytes: &[u8]) {
        let mut buffer = self.rests.remove(&link.slot).unwrap_or_default();
        buffer.extend_from_slice(bytes);
        let mut rest = buffer.as_slice();
        let mut replies = Vec::new();
        while let Some(space) = memchr_find(rest, b" SEND\r\n") {
            let tid = std::str::from_utf8(&rest[b"MSRP ".len()..space]).unwrap();
            let end = format!("-------{tid}$\r\n");
            let Some(at) = memchr_find(rest, end.as_bytes()) else {
                break;
            };
            let head = &rest[..at];
            let text = |name| std::str::from_utf8(line(head, name)).unwrap();
            let (to, from) = (text("From-Path"), text("To-Path"));
            let total = text("Byte-Range").rsplit('/').next().unwrap();
            self.reports += 1;
            let report = self.reports;
            replies.extend_from_slice(
                crlf(&format!(
                    "MSRP {tid} 200 OK\nTo-Path: {to}\nFrom-Path: {from}\n-------{tid}$\n\
                     MSRP rep{report:08} REPORT\nTo-Path: {to}\nFrom-Path: {from}\n\
                     Message-ID: {}\nByte-Range: 1-{total}/{total}\nStatus: 000 200 OK\n\
                     -------rep{report:08}$\n",
                    text("Message-ID")
                ))
                .as_bytes(),
            );
            rest = &rest[at + end.len()..];
        }
        let rest = rest.to_vec();
        self.rests.insert(link.slot, rest);
        self.feed(link, &replies);
    }

    fn deposit(&mut self, user: u64) {
        self.offer(user);
        self.turn();
    }

    fn offer(&mut self, user: u64) {
        let to = format!("sip:+1555{user:07}@ims.example.net");
        let cpim = crlf(&format!(
            "From: <sip:+15550177@ims.example.net>\nTo: <{to}>\nNS: imdn <urn:ietf:params:imdn>\n\
             imdn.Message-ID: m{user}\n\nContent-Type: text/plain\n\nhello"
        ));
        let head = crlf(&format!(
            "MESSAGE {to} SIP/2.0\nVia: SIP/2.0/TCP 192.0.2.20:5060;branch=z9hG4bKm{user}\n\
             Max-Forwards: 66\nFrom: <sip:+15550177@ims.example.net>;tag=s{user}\nTo: <{to}>\n\
             Call-ID: msg{user}@sender\nCSeq: 1 MESSAGE\n\
             P-Asserted-Identity: <sip:+15550177@ims.example.net>\nContent-Type: message/cpim\n\
             Content-Length: {}\n\n",
            cpim.len()
        ));
        let trunk = self.trunk.expect("the trunk is up");
        self.feed(trunk, (head + &cpim).as_bytes());
    }

    fn run_until(&mut self, end: Timestamp) {
        while let Some(at) = self.shard.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.turn();
        }
        self.now = end;
    }
}

// Proves: ST-8, OVL-10
#[test]
fn a_hundred_thousand_sessions_are_refreshed_on_time_and_not_in_step() {
    let mut herd = Herd::new(DEVICES);
    let begin = herd.now;
    for user in 0..USERS {
        herd.now = begin + Duration::from_millis(user);
        herd.deposit(user);
    }
    assert_eq!(herd.sessions.len(), SESSIONS);
    herd.run_until(begin + Duration::from_secs(60));
    assert_eq!(herd.shard.population().pushes, SESSIONS, "all are open");
    assert_eq!(herd.shard.population().messages, 0, "all was delivered");
    assert!(herd.links < 10, "one connection for all phones");
    // Two rounds of refreshes, each at half the interval or up to 5 % before.
    herd.run_until(begin + Duration::from_secs(1900));
    let late = herd.sessions.values().filter(|one| one.late > 0).count();
    assert_eq!(late, 0, "refreshed too late or too early");
    let rounds = herd.sessions.values().map(|one| one.refreshes);
    assert_eq!(rounds.clone().min(), Some(2));
    assert_eq!(rounds.max(), Some(2));
    assert_eq!((herd.byes, herd.shard.population().pushes), (0, SESSIONS));
    // All began within 12.5 s: without jitter 8,000 would be refreshed in the same second.
    let busiest = herd.seconds.values().max().copied();
    assert!(busiest < Some(3000), "{busiest:?} refreshes in one second");
}

// Proves: MSRP-18
#[test]
fn sessions_that_wait_for_room_on_a_connection_go_on_in_turn_and_once_each() {
    const USERS: u64 = 400;
    let mut options = patient_options();
    options.push.msrp_backlog_bytes_max = 4096;
    let mut herd = Herd::with(1, options);
    for user in 0..USERS {
        herd.offer(user);
    }
    herd.turn();
    assert!(herd.links < 10, "one connection for all phones");
    assert_eq!(u64::from(herd.reports), USERS);
    assert_eq!(herd.shard.population().messages, 0, "all was delivered");
    let counters = herd.shard.probe();
    let waits = counters
        .iter()
        .find(|(name, _)| *name == "msrp_held_back_total");
    let waits = waits.unwrap().1;
    // All but the first few found the connection full, and had room when they went on.
    assert!((USERS / 2..=USERS).contains(&waits), "{waits} waits");
}

/// Most octets of heap for one session at rest, its user with registration, subscription and devices
/// included: one device for each user, and three.
const OCTETS_MAX: [(u64, u64); 2] = [(1, 410), (3, 340)];

/// Octets of heap that a shard has with `sessions` of users with `devices` each, and those it tells of.
fn heap_of(sessions: u64, devices: u64) -> [u64; 2] {
    let mut herd = Herd::new(devices);
    let begin = herd.now;
    for user in 0..sessions / devices {
        herd.now = begin + Duration::from_micros(100 * user);
        herd.deposit(user);
    }
    // The INVITEs' transactions end after 32 s.
    herd.run_until(begin + Duration::from_secs(60));
    let population = herd.shard.population();
    assert_eq!(population.pushes as u64, sessions, "all are open");
    assert_eq!(population.messages, 0, "all was delivered");
    let told = told_memory(&mut herd);
    let before = live_octets();
    drop(herd.shard);
    let held = u64::try_from(before - live_octets()).unwrap();
    [held, told]
}

/// What the shard says its components hold.
fn told_memory(herd: &mut Herd) -> u64 {
    let sum = memory_of(herd);
    // The wheel is allocated with the shard.
    let grown = sum.iter().filter(|(name, _)| *name != "wheel");
    grown.map(|(_, held)| held.bytes).sum()
}

fn memory_of(herd: &mut Herd) -> Memory {
    let (mut sum, mut next) = (Memory::default(), Some(0));
    while let Some(from) = next {
        let Answer::Memory(part, more) = herd.shard.ask(herd.now, &Question::Memory { from })
        else {
            panic!("asked about memory");
        };
        sum.merge(&part);
        next = more;
    }
    sum
}

#[test]
fn a_session_at_rest_takes_few_octets_with_all_that_belongs_to_it() {
    for (devices, most) in OCTETS_MAX {
        // What a shard has anyway, and what stays warm, is in both.
        let (few, many) = (6_000, 27_000);
        let (large, small) = (heap_of(many, devices), heap_of(few, devices));
        let each = [0, 1].map(|which| (large[which] - small[which]) / (many - few));
        let [held, told] = each;
        assert!(
            held <= most,
            "{held} octets a session with {devices} devices a user"
        );
        // Nothing is told twice, and little is left out. What a shard has anyway is not quite the same in
        // both: a hundredth of it is nobody's.
        assert!(
            told <= held + held / 64 && told >= held - held / 8,
            "{told} octets a session told of {held}"
        );
    }
}

/// Sessions and users that are folded two rounds after the last of 12,000 sessions came to rest.
fn folded(busy: bool) -> [u64; 2] {
    const USERS: u64 = 12_000;
    let mut herd = Herd::new(1);
    herd.busy = busy;
    let begin = herd.now;
    for user in 0..USERS {
        herd.now = begin + Duration::from_micros(10 * user);
        herd.deposit(user);
    }
    assert_eq!(herd.shard.population().pushes as u64, USERS);
    herd.run_until(herd.now + Duration::from_millis(2600));
    let memory = memory_of(&mut herd);
    [memory.cold_sessions, memory.cold_users].map(|held| held.count)
}

#[test]
fn who_rests_is_folded_when_there_is_time_for_it() {
    // All, in the second round.
    assert_eq!(folded(false), [12_000; 2]);
    // 64 in ten milliseconds, for somebody waits.
    for folded in folded(true) {
        assert!((7_000..9_000).contains(&folded), "{folded} were folded");
    }
}

/// What is at rest is made warm by its timers, at the price of a message: none may be left of what was answered.
#[test]
fn nobody_at_rest_is_woken_for_nothing() {
    const USERS: u64 = 2_000;
    // Neither for Timer M of the INVITE nor for what waited for the NOTIFY.
    for devices in [0, 1] {
        let mut herd = Herd::new(devices);
        let begin = herd.now;
        for user in 0..USERS {
            herd.now = begin + Duration::from_millis(user);
            herd.deposit(user);
            herd.now = herd.now + Duration::from_micros(500);
            let late = std::mem::take(&mut herd.late);
            herd.feed(herd.trunk.expect("it is up"), &late);
            herd.turn();
        }
        herd.run_until(begin + Duration::from_secs(5));
        let population = herd.shard.population();
        assert_eq!(population.pushes as u64, USERS * devices);
        assert_eq!(population.messages as u64, USERS * (1 - devices));
        let before = herd.shard.probe().timers_fired_total;
        // Long before the first refresh.
        herd.run_until(begin + Duration::from_secs(700));
        let woken = herd.shard.probe().timers_fired_total - before;
        assert_eq!(woken, 0, "with {devices} devices");
    }
}
