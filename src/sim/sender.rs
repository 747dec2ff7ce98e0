//! Senders of large messages: an INVITE to the engine, the message over MSRP, a REPORT that says that
//! it is stored, a BYE; and what goes wrong on the way.
//!
//! A sender tries again, in a new session, until it was told that its message is stored. What it
//! keeps of a session that is over is enough to answer what still comes for it.

use core::net::SocketAddr;
use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::surface::LinkKind;
use crate::base::time::Timestamp;
use crate::sim::host::msrp_address;
use crate::sim::hub::Purpose;
use crate::sim::net::{ConnId, Timer};
use crate::sim::options::{MSRP_PORT, SIP_PORT, hop_address};
use crate::sim::text::{Msrp, Sip, port_of, sdp_attribute, uri_of};
use crate::sim::world::World;

/// SENDs without an answer yet.
const WINDOW: usize = 4;
/// How long nothing may happen before the sender ends the session: longer than the engine waits.
const IDLE: Duration = Duration::from_secs(100);

/// Where senders listen.
pub(super) fn sender_address() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 77], 2855))
}

/// What goes wrong in a session of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slip {
    /// It interrupts its message for good, by `#`.
    Abort,
    /// It sends a message again that is stored.
    Again,
    /// Its connection breaks.
    Cut,
    /// It ends the session in the middle.
    HangUp,
    /// It ends the session as soon as the last octet is sent.
    HangUpEarly,
    /// It sends nothing more.
    Mute,
    /// It does not acknowledge the 200.
    NoAck,
    /// It never connects.
    NeverConnects,
    None,
}

const SLIPS: [Slip; 8] = [
    Slip::Abort,
    Slip::Again,
    Slip::Cut,
    Slip::HangUp,
    Slip::HangUpEarly,
    Slip::Mute,
    Slip::NoAck,
    Slip::NeverConnects,
];

/// One session of a sender.
#[derive(Debug)]
pub(super) struct Sending {
    letter: usize,
    number: usize,
    aor: String,
    /// Process of the engine that it began with.
    epoch: u32,
    branch: String,
    /// `To` of the 2xx, the engine's Contact and its MSRP path, once there are.
    to: String,
    target: String,
    path: String,
    active: bool,
    slip: Slip,
    /// Octets after which it goes wrong.
    slip_at: usize,
    chunk: usize,
    conn: Option<ConnId>,
    body: Vec<u8>,
    sent: usize,
    waiting: usize,
    tids: u32,
    moved_at: Timestamp,
    over: bool,
    bye_sent: bool,
    /// The message is stored already: nobody waits for the report.
    is_repeat: bool,
}

impl Sending {
    fn call_id(&self) -> String {
        format!("large{}@sender", self.number)
    }

    fn session(&self) -> String {
        format!("snd{:06}", self.number)
    }

    fn own_path(&self) -> String {
        format!("msrp://{}/{};tcp", sender_address(), self.session())
    }

    /// The lines of a request in the dialog, behind the Via.
    fn lines(&self, method: &str, cseq: u32) -> String {
        let (number, call_id) = (self.number, self.call_id());
        let to = if self.to.is_empty() {
            format!("<{}>", self.aor)
        } else {
            self.to.clone()
        };
        format!(
            "From: <sip:+15550177@ims.example.net>;tag=large{number}\r\nTo: {to}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
        )
    }
}

/// All sessions of senders, and where their draws come from.
#[derive(Debug)]
pub(super) struct Senders {
    all: Vec<Sending>,
    dice: Jitter,
}

impl Senders {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            all: Vec::new(),
            // A stream of its own: the other draws are what they were without.
            dice: Jitter::new(seed ^ 0x6c61_7267_6500),
        }
    }

    /// Which messages are large, and how large, before the run.
    pub(super) fn draw(&mut self, share: crate::sim::options::Ratio) -> Option<usize> {
        const SIZES: [usize; 4] = [20_000, 66_000, 131_072, 200_000];
        if share.0 == 0 || !share.hits(&mut self.dice) {
            return None;
        }
        let at = usize::try_from(self.dice.below(4)).expect("small");
        Some(SIZES[at])
    }

    fn named(&self, session: &str) -> Option<usize> {
        let number: usize = session.strip_prefix("snd")?.parse().ok()?;
        (number < self.all.len()).then_some(number)
    }

    fn of_call(&self, call_id: &str) -> Option<usize> {
        let text = call_id.strip_prefix("large")?.strip_suffix("@sender")?;
        let number: usize = text.parse().ok()?;
        (number < self.all.len()).then_some(number)
    }

    /// A session with a message under way.
    pub(super) fn is_sending(&self) -> bool {
        self.all
            .iter()
            .any(|sending| !sending.over && sending.sent > 0)
    }

    /// No session waits for anything.
    pub(super) fn is_quiet(&self) -> bool {
        self.all.iter().all(|sending| sending.over)
    }
}

impl World {
    /// A sender invites the engine to take its message.
    pub(super) fn deposit_large(&mut self, letter: usize, is_repeat: bool) {
        let number = self.senders.all.len();
        let mischief = self.options.mischief;
        let dice = &mut self.senders.dice;
        let slips = !self.net.healed && !is_repeat && mischief.hits(dice);
        let pick = usize::try_from(dice.below(8)).expect("small");
        let slip = if slips { SLIPS[pick] } else { Slip::None };
        let active = slip == Slip::NeverConnects || dice.below(3) > 0;
        let chunk = usize::try_from(2000 + dice.below(30_000)).expect("small");
        let aor = self.users[self.ledger.letters[letter].user].aor.clone();
        let body = self.large_body(letter);
        let slip_at = usize::try_from(dice_of(&mut self.senders.dice, body.len())).expect("small");
        let now = self.net.now;
        self.net.note(|| {
            format!("sender {number}: message {letter}, {slip:?} at {slip_at}, repeat {is_repeat}")
        });
        self.net.mark("large/invite");
        self.senders.all.push(Sending {
            letter,
            number,
            aor: aor.clone(),
            epoch: self.epoch,
            branch: String::new(),
            to: String::new(),
            target: String::new(),
            path: String::new(),
            active,
            slip,
            slip_at,
            chunk,
            conn: None,
            body,
            sent: 0,
            waiting: 0,
            tids: 0,
            moved_at: now,
            over: false,
            bye_sent: false,
            is_repeat,
        });
        let sending = &self.senders.all[number];
        let (address, path, hop) = (sender_address(), sending.own_path(), hop_address(0));
        let setup = if active { "active" } else { "passive" };
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=message {port} TCP/MSRP *\r\na=path:{path}\r\na=accept-types:message/cpim\r\n\
             a=accept-wrapped-types:*\r\na=setup:{setup}\r\na=sendonly\r\n",
            ip = address.ip(),
            port = address.port()
        );
        let call_id = sending.call_id();
        let text = format!(
            "From: <sip:+15550177@ims.example.net>;tag=large{number}\r\nTo: <{aor}>\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:sender@{hop}>\r\n\
             P-Asserted-Identity: <sip:+15550177@ims.example.net>\r\n\
             P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg\r\n\
             Conversation-ID: conv-{letter:06}\r\nContribution-ID: contrib-{letter:06}\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        let shard = self.some_sender_shard();
        self.core_request(
            ("INVITE", &aor),
            shard,
            Purpose::Invite(number),
            &text,
            None,
        );
        self.senders.all[number].branch = self.last_branch();
        self.net.after(IDLE, Timer::Sender(number));
    }

    fn some_sender_shard(&mut self) -> u8 {
        let shards = u64::from(self.shards());
        u8::try_from(self.senders.dice.below(shards)).expect("a handful of shards")
    }

    fn large_body(&self, letter: usize) -> Vec<u8> {
        let state = &self.ledger.letters[letter];
        let aor = &self.users[state.user].aor;
        format!(
            "From: <sip:+15550177@ims.example.net>\r\nTo: <{aor}>\r\n\
             DateTime: 2026-11-22T05:58:01Z\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
             imdn.Message-ID: imdn{letter:06}\r\n\r\n\
             Content-Type: text/plain; charset=UTF-8\r\n\r\n{}",
            state.text
        )
        .into_bytes()
    }

    /// The final answer to a sender's INVITE, or none came (`message` is `None`).
    pub(super) fn sender_answered(&mut self, number: usize, status: u16, message: Option<&Sip>) {
        let Some(message) = message else {
            self.net.mark("large/no-answer");
            return self.end_sending(number);
        };
        if status < 300 {
            return self.sender_accepted(number, message);
        }
        self.net.mark("large/refused");
        self.acknowledge_refusal(number, message);
        self.end_sending(number);
    }

    fn acknowledge_refusal(&mut self, number: usize, message: &Sip) {
        let sending = &self.senders.all[number];
        let mut lines = sending.lines("ACK", 1);
        lines = lines.replace(&format!("<{}>", sending.aor), message.need("To"));
        let (uri, branch) = (sending.aor.clone(), sending.branch.clone());
        let shard = self.some_sender_shard();
        self.core_send(("ACK", &uri), shard, &branch, &lines);
    }

    fn sender_accepted(&mut self, number: usize, message: &Sip) {
        let path = sdp_attribute(&message.body, "path").unwrap_or_default();
        let sending = &mut self.senders.all[number];
        let is_first = sending.to.is_empty();
        message.need("To").clone_into(&mut sending.to);
        uri_of(message.need("Contact")).clone_into(&mut sending.target);
        path.clone_into(&mut sending.path);
        if sending.slip == Slip::NoAck && !self.net.healed {
            return self.net.mark("large/no-ack");
        }
        self.sender_ack(number);
        let sending = &self.senders.all[number];
        if sending.over {
            // It gave up before: what was agreed all the same is ended.
            return self.sender_bye(number);
        }
        if is_first && sending.active {
            if sending.slip == Slip::NeverConnects {
                return self.net.mark("large/never-connects");
            }
            self.sender_connect(number);
        }
    }

    /// A 2xx that comes again, or for a session that is over.
    pub(super) fn sender_repeated(&mut self, message: &Sip) {
        let Some(number) = self.senders.of_call(message.call_id()) else {
            return;
        };
        if message.status >= 300 {
            return self.acknowledge_refusal(number, message);
        }
        self.sender_accepted(number, message);
    }

    fn sender_ack(&mut self, number: usize) {
        let sending = &self.senders.all[number];
        let (target, lines) = (sending.target.clone(), sending.lines("ACK", 1));
        let shard = self.shard_of(&target);
        let branch = format!("{}ack", sending.branch);
        self.core_send(("ACK", &target), shard, &branch, &lines);
    }

    fn sender_bye(&mut self, number: usize) {
        let sending = &mut self.senders.all[number];
        if sending.to.is_empty() || core::mem::replace(&mut sending.bye_sent, true) {
            return;
        }
        let (target, lines) = (sending.target.clone(), sending.lines("BYE", 2));
        let shard = self.shard_of(&target);
        self.core_request(("BYE", &target), shard, Purpose::Bye, &lines, None);
    }

    fn shard_of(&self, uri: &str) -> u8 {
        let port = port_of(uri).unwrap_or(SIP_PORT);
        let shard = u8::try_from(port.saturating_sub(SIP_PORT)).unwrap_or(0);
        shard.min(self.shards() - 1)
    }

    fn sender_connect(&mut self, number: usize) {
        let path = &self.senders.all[number].path;
        let host = path.trim_start_matches("msrp://");
        let port = port_of(host.split('/').next().unwrap_or_default()).unwrap_or(MSRP_PORT);
        let shard = u8::try_from(port.saturating_sub(MSRP_PORT))
            .unwrap_or(0)
            .min(self.shards() - 1);
        if self.seats[usize::from(shard)].core.is_none() {
            return self.end_sending(number);
        }
        let mut peer = sender_address();
        peer.set_port(30_000 + u16::try_from(number % 10_000).expect("small"));
        let ends = (peer, msrp_address(shard));
        let conn = self
            .net
            .connect((shard, self.epoch), LinkKind::MsrpInbound, None, ends);
        self.senders.all[number].conn = Some(conn);
        self.send_more(number);
    }

    /// Sends chunks until the window is full or something goes wrong.
    fn send_more(&mut self, number: usize) {
        loop {
            let sending = &mut self.senders.all[number];
            let Some(conn) = sending.conn else { return };
            let total = sending.body.len();
            if sending.over || sending.sent == total || sending.waiting >= WINDOW {
                return;
            }
            let end = (sending.sent + sending.chunk).min(total);
            let (slip, strikes) = (sending.slip, end > sending.slip_at && !self.net.healed);
            let mut flag = if end == total { '$' } else { '+' };
            match slip {
                Slip::Abort if strikes => flag = '#',
                Slip::Cut if strikes => {
                    self.net.mark("large/cut");
                    return self.net.reset(conn);
                }
                Slip::HangUp if strikes => {
                    self.net.mark("large/hang-up");
                    return self.end_sending(number);
                }
                Slip::Mute if strikes => return self.net.mark("large/mute"),
                Slip::Abort
                | Slip::Again
                | Slip::Cut
                | Slip::HangUp
                | Slip::HangUpEarly
                | Slip::Mute
                | Slip::NeverConnects
                | Slip::NoAck
                | Slip::None => {}
            }
            self.send_chunk(number, conn, end, flag);
            if flag == '#' {
                self.net.mark("large/abort");
                return self.end_sending(number);
            }
            if flag == '$' && slip == Slip::HangUpEarly && !self.net.healed {
                self.net.mark("large/hang-up-early");
                return self.end_sending(number);
            }
        }
    }

    fn send_chunk(&mut self, number: usize, conn: ConnId, end: usize, flag: char) {
        let sending = &mut self.senders.all[number];
        sending.tids += 1;
        sending.waiting += 1;
        let tid = format!("snd{number:06}n{:06}", sending.tids);
        let (to, from) = (&sending.path, sending.own_path());
        let (start, total) = (sending.sent + 1, sending.body.len());
        let letter = sending.letter;
        let mut bytes = format!(
            "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n\
             Message-ID: large{letter}s{number}\r\nSuccess-Report: yes\r\n\
             Byte-Range: {start}-{end}/{total}\r\nContent-Type: message/cpim\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(&sending.body[sending.sent..end]);
        bytes.extend_from_slice(format!("\r\n-------{tid}{flag}\r\n").as_bytes());
        sending.sent = end;
        self.net.stream_to_engine(conn, &bytes, None);
    }

    /// A frame of the engine for a session of a sender; `false`: it is for a device.
    pub(super) fn sender_frame(&mut self, conn: ConnId, frame: &Msrp) -> bool {
        let Some(number) = self.senders.named(frame.session()) else {
            return false;
        };
        let now = self.net.now;
        let state = &self.net.conns[conn];
        let sending = &mut self.senders.all[number];
        if state.dead || state.peer_gone || sending.over {
            return true;
        }
        sending.moved_at = now;
        match (frame.method.as_str(), frame.status) {
            ("SEND", _) => {
                self.net.mark("large/bind-of-engine");
                self.net.stream_to_engine(conn, &frame.answer(200), None);
                let sending = &mut self.senders.all[number];
                sending.conn = Some(conn);
                self.send_more(number);
            }
            ("REPORT", _) => self.sender_report(number, frame),
            (_, 200) => {
                sending.waiting = sending.waiting.saturating_sub(1);
                self.send_more(number);
            }
            _ => {
                self.net.mark("large/chunk-refused");
                self.end_sending(number);
            }
        }
        true
    }

    /// Law: a message is reported whole, and only when its record is durable.
    fn sender_report(&mut self, number: usize, frame: &Msrp) {
        let now = self.net.now;
        let sending = &self.senders.all[number];
        let (letter, total, again) = (sending.letter, sending.body.len(), sending.slip);
        let is_whole = frame.range() == Some((1, total, total)) && sending.sent == total;
        let is_good = frame.need("Status") == "000 200" || frame.need("Status") == "000 200 OK";
        if !is_whole || !is_good {
            let (range, status) = (frame.need("Byte-Range"), frame.need("Status"));
            let what = format!("a report of {range}, {status} on message {letter}, sent {total}");
            return self.ledger.violation(now, &what);
        }
        self.ledger.answered(now, letter, 202);
        self.ledger.letters[letter].acked = true;
        self.net.mark("large/reported");
        self.end_sending(number);
        if again == Slip::Again {
            let wait = Duration::from_millis(self.net.below(5000));
            self.net.after(wait, Timer::SendAgain(letter, self.epoch));
        }
    }

    /// A sender sends a message that is stored once more, unless the engine died meanwhile.
    pub(super) fn send_again(&mut self, letter: usize, epoch: u32) {
        if self.epoch == epoch && self.seats[0].core.is_some() {
            self.net.mark("large/again");
            self.deposit_large(letter, true);
        }
    }

    /// The session is over for its sender: BYE if there is a dialog, and another try if it must be.
    fn end_sending(&mut self, number: usize) {
        let sending = &mut self.senders.all[number];
        if core::mem::replace(&mut sending.over, true) {
            return;
        }
        let (letter, conn, is_repeat) = (sending.letter, sending.conn.take(), sending.is_repeat);
        sending.body = Vec::new();
        self.sender_bye(number);
        if let Some(conn) = conn {
            self.net.close_by_peer(conn);
        }
        if !is_repeat && !self.ledger.letters[letter].acked {
            let wait = Duration::from_millis(1000 + self.net.below(3000));
            self.net.after(wait, Timer::Deposit(letter));
        }
    }

    /// The connection of a session is gone.
    pub(super) fn sender_closed(&mut self, conn: ConnId) {
        let of = |sending: &Sending| sending.conn == Some(conn);
        if let Some(number) = self.senders.all.iter().position(of) {
            self.senders.all[number].conn = None;
            self.end_sending(number);
        }
    }

    /// The engine ends a session; `false`: it is no session of a sender.
    pub(super) fn sender_got_bye(&mut self, message: &Sip) -> bool {
        let Some(number) = self.senders.of_call(message.call_id()) else {
            return false;
        };
        self.net.mark("large/bye-of-engine");
        self.senders.all[number].bye_sent = true;
        self.end_sending(number);
        true
    }

    /// Looks whether a session still moves.
    pub(super) fn sender_due(&mut self, number: usize) {
        let sending = &self.senders.all[number];
        if sending.over {
            return;
        }
        let idle_at = sending.moved_at + IDLE;
        let is_orphan = sending.epoch != self.epoch;
        if idle_at <= self.net.now || is_orphan {
            self.net.mark("large/gave-up");
            return self.end_sending(number);
        }
        let wait = idle_at.since(self.net.now);
        self.net.after(wait, Timer::Sender(number));
    }
}

fn dice_of(dice: &mut Jitter, len: usize) -> u64 {
    dice.below(len as u64)
}
