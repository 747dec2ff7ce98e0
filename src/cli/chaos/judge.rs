//! The S-CSCF, the registrar and the phones, in one thread with plain sockets.
//!
//! Threads read, one each a connection, and hand what they read to the judge; it writes by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::text::{Frame, Sip, find};

/// Events that wait for the judge at most; then the readers, and so the engine, wait.
const EVENTS_MAX: usize = 4096;
/// Longest time a write to the engine may take; it may be stopped.
const WRITE_WAIT: Duration = Duration::from_secs(5);
/// Sessions whose BYE is kept.
const SESSIONS_KEPT: usize = 64;
/// Deposits that wait for their answer at most.
const WINDOW: usize = 48;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The engine's to the S-CSCF.
    Trunk,
    /// The S-CSCF's to the engine.
    Deposits,
    /// The engine's to a phone.
    Media,
}

#[derive(Debug)]
enum Event {
    Opened(u64, Kind, TcpStream),
    Bytes(u64, Vec<u8>),
    Closed(u64),
}

#[derive(Debug)]
struct Link {
    kind: Kind,
    stream: TcpStream,
    bytes: Vec<u8>,
    /// The engine process it belongs to.
    epoch: u32,
}

/// Chooses; the same seed gives the same choices.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// The world around the engine.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) ledger: Ledger,
    pub(super) dice: Dice,
    /// Number of the engine process.
    epoch: u32,
    /// Users absent in a round are chosen by this many of a hundred.
    pub(super) absent_percent: u64,
    /// Whether deposits are sent.
    pub(super) feeding: bool,
    /// Deposits refused since the last look.
    pub(super) refused: u64,
    accepted: u64,
    alive: bool,
    users: u64,
    sender: SyncSender<Event>,
    events: Receiver<Event>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    next_message: u64,
    outstanding: usize,
    deposits: Option<u64>,
    /// Media port of the phones.
    media: u16,
    trunk: u16,
    notify_cseq: BTreeMap<String, u32>,
    /// Sessions that no BYE has ended yet: a BYE of the phone for each, by Call-ID.
    sessions: BTreeMap<String, String>,
    /// The same of processes that are no more.
    left: BTreeMap<String, String>,
    /// BYEs sent in dialogs of an earlier process.
    asked: BTreeSet<String>,
    /// How many of these were refused as they must be.
    pub(super) old_dialogs: u64,
    parts: BTreeMap<String, Vec<u8>>,
    reports: u64,
}

#[expect(clippy::disallowed_methods, reason = "the judge is not the engine")]
fn now() -> Instant {
    Instant::now()
}

fn listen(kind: Kind, sender: &SyncSender<Event>, first: u64) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let sender = sender.clone();
    std::thread::Builder::new().spawn(move || {
        let mut number = first;
        for stream in listener.incoming().map_while(Result::ok) {
            number += 2;
            if watch(number, kind, stream, &sender).is_err() {
                break;
            }
        }
    })?;
    Ok(port)
}

/// Reads `stream` in a thread of its own.
fn watch(number: u64, kind: Kind, stream: TcpStream, sender: &SyncSender<Event>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_WAIT))?;
    let mut reader = stream.try_clone()?;
    let sender = sender.clone();
    std::thread::Builder::new().spawn(move || {
        if sender.send(Event::Opened(number, kind, stream)).is_err() {
            return;
        }
        let mut part = vec![0; 64 << 10];
        loop {
            let len = match reader.read(&mut part) {
                Ok(len @ 1..) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
            };
            if sender
                .send(Event::Bytes(number, part[..len].to_vec()))
                .is_err()
            {
                return;
            }
        }
        let _ = sender.send(Event::Closed(number));
    })?;
    Ok(())
}

impl Judge {
    pub(super) fn new(seed: u64, users: u64) -> io::Result<Self> {
        let (sender, events) = sync_channel(EVENTS_MAX);
        Ok(Self {
            ledger: Ledger::default(),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            epoch: 0,
            absent_percent: 30,
            feeding: false,
            refused: 0,
            accepted: 0,
            alive: false,
            users,
            trunk: listen(Kind::Trunk, &sender, 1)?,
            media: listen(Kind::Media, &sender, 2)?,
            sender,
            events,
            links: BTreeMap::new(),
            next_link: 1 << 32,
            next_message: 1,
            outstanding: 0,
            deposits: None,
            notify_cseq: BTreeMap::new(),
            sessions: BTreeMap::new(),
            left: BTreeMap::new(),
            asked: BTreeSet::new(),
            old_dialogs: 0,
            parts: BTreeMap::new(),
            reports: 0,
        })
    }

    /// Where the engine's next hop is.
    pub(super) const fn trunk_port(&self) -> u16 {
        self.trunk
    }

    /// A new engine process has been started and may not live until it is ready.
    pub(super) fn begin_unready(&mut self) {
        self.epoch += 1;
        self.alive = true;
        self.outstanding = 0;
        self.notify_cseq.clear();
    }

    /// A new engine process serves at `sip`.
    pub(super) fn begin(&mut self, sip: SocketAddr) -> io::Result<()> {
        self.begin_unready();
        let stream = TcpStream::connect(sip)?;
        self.next_link += 1;
        self.deposits = Some(self.next_link);
        watch(self.next_link, Kind::Deposits, stream, &self.sender)
    }

    /// The process was stopped and goes on.
    pub(super) fn resume(&mut self) {
        self.ledger.resumed(self.epoch, now());
    }

    /// The process has ended: what it sent before is still taken in.
    pub(super) fn end(&mut self) {
        self.ledger.ended(self.epoch, now());
        self.alive = false;
        // Connections that nobody has accepted yet are its, too.
        self.play(Duration::from_millis(200));
        let until = now() + Duration::from_millis(500);
        while !self.links.is_empty() && now() < until {
            self.step(Duration::from_millis(20));
        }
        for (_, link) in core::mem::take(&mut self.links) {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        self.deposits = None;
        self.parts.clear();
        self.asked.clear();
        self.left = core::mem::take(&mut self.sessions);
    }

    /// Plays for `time`.
    pub(super) fn play(&mut self, time: Duration) {
        let until = now() + time;
        while now() < until {
            self.step(Duration::from_millis(10));
        }
    }

    /// Plays until `more` deposits are acknowledged, or `patience` is over.
    pub(super) fn warm_up(&mut self, more: u64, patience: Duration) {
        let until = now() + patience;
        let wanted = self.accepted + more;
        while now() < until && self.accepted < wanted {
            self.step(Duration::from_millis(10));
        }
    }

    /// Plays until every acknowledged message is with its phone; false when `patience` is over.
    pub(super) fn settle(&mut self, patience: Duration) -> bool {
        let until = now() + patience;
        while now() < until {
            self.play(Duration::from_millis(200));
            if self.outstanding == 0 && self.ledger.waiting() == 0 {
                return true;
            }
        }
        false
    }

    fn step(&mut self, wait: Duration) {
        self.feed();
        match self.events.recv_timeout(wait) {
            Ok(event) => self.handle(event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Opened(number, kind, stream) => {
                let link = Link {
                    kind,
                    stream,
                    bytes: Vec::new(),
                    epoch: self.epoch,
                };
                self.links.insert(number, link);
                if kind == Kind::Deposits {
                    self.end_sessions(number);
                }
            }
            Event::Closed(number) => {
                self.links.remove(&number);
            }
            Event::Bytes(number, bytes) => {
                let Some(link) = self.links.get_mut(&number) else {
                    return;
                };
                link.bytes.extend_from_slice(&bytes);
                let kind = link.kind;
                let mut bytes = core::mem::take(&mut link.bytes);
                match kind {
                    Kind::Media => {
                        while let Some(frame) = Frame::take(&mut bytes) {
                            self.frame(number, &frame);
                        }
                    }
                    Kind::Trunk | Kind::Deposits => {
                        while let Some(message) = Sip::take(&mut bytes) {
                            self.message(number, &message);
                        }
                    }
                }
                if let Some(link) = self.links.get_mut(&number) {
                    link.bytes = bytes;
                }
            }
        }
    }

    /// True when it was written while the process lived.
    fn write(&mut self, number: u64, bytes: &[u8]) -> bool {
        let alive = self.alive;
        self.links
            .get_mut(&number)
            .is_some_and(|link| link.stream.write_all(bytes).is_ok() && alive)
    }

    fn user(&self, number: u64) -> String {
        format!("sip:+1555{:07}@home.example", number % self.users)
    }

    /// Keeps the window of deposits full.
    fn feed(&mut self) {
        let Some(link) = self.deposits.filter(|_| self.feeding && self.alive) else {
            return;
        };
        while self.outstanding < WINDOW && self.links.contains_key(&link) {
            let number = self.next_message;
            let user = self.dice.below(self.users);
            let user = self.user(user);
            self.next_message += 1;
            self.outstanding += 1;
            self.ledger.sent(number);
            let body = format!(
                "From: <sip:+15550177@home.example>\r\nTo: <{user}>\r\n\
                 DateTime: 2026-11-22T05:58:01Z\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
                 imdn.Message-ID: id-{number:012}\r\n\r\n\
                 Content-Type: text/plain; charset=UTF-8\r\n\r\n{}",
                words(number)
            );
            let request = format!(
                "MESSAGE {user} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKd{number}\r\n\
                 Max-Forwards: 66\r\nFrom: <sip:+15550177@home.example>;tag=t{number}\r\n\
                 To: <{user}>\r\nCall-ID: d{number}\r\nCSeq: 1 MESSAGE\r\nExpires: 86400\r\n\
                 P-Asserted-Identity: <sip:+15550177@home.example>\r\n\
                 Conversation-ID: 4f93f0fe-86d6-462c-9ba2-{number:012x}\r\n\
                 Contribution-ID: 94d850fb-ed40-437e-9609-{number:012x}\r\n\
                 Content-Type: message/cpim\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if !self.write(link, request.as_bytes()) {
                break;
            }
        }
    }

    fn message(&mut self, number: u64, message: &Sip) {
        let status = message.status();
        if status > 0 {
            let call_id = message.header("Call-ID");
            let deposit = call_id.strip_prefix('d').and_then(|at| at.parse().ok());
            if status >= 200 && self.asked.remove(call_id) {
                self.old_dialogs += u64::from(status == 481);
                if status != 481 {
                    let what = format!("a BYE in a dialog of an earlier process got {status}");
                    self.ledger.broken(what);
                }
            }
            if let (Some(deposit), 200..) = (deposit, status) {
                self.outstanding = self.outstanding.saturating_sub(1);
                self.refused += u64::from(status != 202);
                self.accepted += u64::from(status == 202);
                self.ledger.answered(deposit, status);
            }
            return;
        }
        if message.method() == "BYE" {
            self.sessions.remove(message.header("Call-ID"));
        }
        match message.method() {
            "SUBSCRIBE" => self.subscribe(number, message),
            "INVITE" => self.invite(number, message),
            "ACK" => {}
            _ => {
                self.write(number, &message.answer("200 OK", "", ""));
            }
        }
    }

    fn subscribe(&mut self, number: u64, message: &Sip) {
        let expires = message.header("Expires").to_owned();
        let extra = format!(
            "Contact: <sip:127.0.0.1:{};transport=tcp>\r\nExpires: {expires}\r\n",
            self.trunk
        );
        self.write(number, &message.answer("200 OK", &extra, ""));
        let aor = message
            .uri()
            .split(';')
            .next()
            .unwrap_or_default()
            .to_owned();
        let absent = self.dice.below(100) < self.absent_percent;
        let body = if absent {
            format!(
                "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
                 version=\"0\" state=\"full\"><registration aor=\"{aor}\" id=\"r1\" \
                 state=\"init\"/></reginfo>"
            )
        } else {
            let user = aor
                .trim_start_matches("sip:+")
                .split('@')
                .next()
                .unwrap_or_default();
            let instance = format!("urn:uuid:{user:0>8.8}-0000-4000-8000-{user:0>12}");
            format!(
                "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
                 xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"0\" state=\"full\">\
                 <registration aor=\"{aor}\" id=\"r1\" state=\"active\"><contact id=\"c1\" \
                 state=\"active\" event=\"registered\" callid=\"c-{user}\" cseq=\"1\" \
                 expires=\"3600\"><uri>sip:{user}@127.0.0.1:{media}</uri>\
                 <unknown-param name=\"+sip.instance\">\"&lt;{instance}&gt;\"</unknown-param>\
                 <unknown-param name=\"+g.3gpp.icsi-ref\">\
                 \"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"</unknown-param>\
                 <gr:pub-gruu uri=\"{aor};gr={instance}\"/></contact></registration></reginfo>",
                media = self.media
            )
        };
        let call_id = message.header("Call-ID").to_owned();
        let cseq = self.notify_cseq.entry(call_id.clone()).or_insert(0);
        *cseq += 1;
        let contact = message.header("Contact");
        let target = contact
            .split(['<', '>'])
            .nth(1)
            .unwrap_or("sip:push@127.0.0.1")
            .to_owned();
        let notify = format!(
            "NOTIFY {target} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:{port};branch=z9hG4bKn{call_id}{cseq}\
             \r\nMax-Forwards: 70\r\nFrom: {};tag=judge\r\nTo: {}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} NOTIFY\r\nContact: <sip:127.0.0.1:{port};transport=tcp>\r\nEvent: reg\r\n\
             Subscription-State: active;expires=3600\r\n\
             Content-Type: application/reginfo+xml\r\nContent-Length: {}\r\n\r\n{body}",
            message
                .header("To")
                .split(";tag=")
                .next()
                .unwrap_or_default(),
            message.header("From"),
            body.len(),
            port = self.trunk
        );
        self.write(number, notify.as_bytes());
    }

    fn invite(&mut self, number: u64, message: &Sip) {
        let session = message.header("Call-ID").to_owned();
        let session: String = session
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let media = self.media;
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=message {media} TCP/MSRP *\r\na=path:msrp://127.0.0.1:{media}/{session};tcp\r\n\
             a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:passive\r\n\
             a=recvonly\r\n"
        );
        let extra = format!(
            "Contact: <sip:phone@127.0.0.1:{};transport=tcp>\r\nContent-Type: application/sdp\r\n",
            self.trunk
        );
        self.write(number, &message.answer("200 OK", &extra, &sdp));
        self.keep_session(message);
    }

    /// Writes the BYE by which the phone of this session could end it.
    fn keep_session(&mut self, message: &Sip) {
        if self.sessions.len() >= SESSIONS_KEPT {
            return;
        }
        let call_id = message.header("Call-ID");
        let target = message.header("Contact").split(['<', '>']).nth(1);
        let Some(target) = target.filter(|_| !message.header("To").contains(";tag=")) else {
            return;
        };
        let bye = format!(
            "BYE {target} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKold{call_id}\r\n\
             Max-Forwards: 66\r\nFrom: {};tag=judge\r\nTo: {}\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
            message.header("To"),
            message.header("From"),
        );
        self.sessions.insert(call_id.to_owned(), bye);
    }

    /// Sessions of a process that is no more are ended by their phones. No later process may have taken
    /// one over: it says that it knows none of them.
    fn end_sessions(&mut self, link: u64) {
        for (call_id, bye) in core::mem::take(&mut self.left) {
            if self.write(link, bye.as_bytes()) {
                self.asked.insert(call_id);
            }
        }
    }

    fn frame(&mut self, number: u64, frame: &Frame) {
        if frame.method != "SEND" {
            return;
        }
        let (to, from) = (frame.header("To-Path"), frame.header("From-Path"));
        let id = frame.header("Message-ID");
        let transaction = &frame.transaction;
        let mut answer = format!(
            "MSRP {transaction} 200 OK\r\nTo-Path: {from}\r\nFrom-Path: {to}\r\n-------{transaction}$\r\n"
        );
        let mut whole = self.parts.remove(id).unwrap_or_default();
        whole.extend_from_slice(&frame.body);
        if frame.flag == b'+' {
            self.parts.insert(id.to_owned(), whole);
            self.write(number, answer.as_bytes());
            return;
        }
        if whole.is_empty() {
            self.write(number, answer.as_bytes());
            return;
        }
        let len = whole.len();
        // An id of our own: theirs has all the length that one may have.
        self.reports += 1;
        let report = format!("report{:010}", self.reports);
        answer.push_str(&format!(
            "MSRP {report} REPORT\r\nTo-Path: {from}\r\nFrom-Path: {to}\r\nMessage-ID: {id}\r\n\
             Byte-Range: 1-{len}/{len}\r\nStatus: 000 200 OK\r\n-------{report}$\r\n"
        ));
        let epoch = self
            .links
            .get(&number)
            .map_or(self.epoch, |link| link.epoch);
        let reported = self.write(number, answer.as_bytes()).then(now);
        let text = String::from_utf8_lossy(&whole).into_owned();
        let named = text.lines().find_map(|line| {
            line.strip_prefix("imdn.Message-ID: id-")?
                .trim()
                .parse()
                .ok()
        });
        match named {
            Some(message) => {
                let same = find(&whole, words(message).as_bytes()).is_some();
                self.ledger.received(message, same, epoch, reported);
            }
            None => {
                let what = format!("a phone got a message without its Message-ID: {text:.200}");
                self.ledger.broken(what);
            }
        }
    }
}

/// The text of message `number`: about 200 octets that no other message has.
fn words(number: u64) -> String {
    let mut text = format!("message {number}:");
    for step in 0..20 {
        text.push_str(&format!(
            " {:08x}",
            number.wrapping_mul(2_654_435_761 + step) & u64::from(u32::MAX)
        ));
    }
    text
}
