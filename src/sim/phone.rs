//! Devices: they answer, refuse, keep silent, die; they repeat a 2xx until its ACK. What they intend is drawn in
//! `plan`; `media` takes messages over MSRP and reports on them.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::base::entropy::Jitter;
use crate::base::time::Timestamp;
use crate::sim::hub::{Purpose, T1, T2};
use crate::sim::ledger::TIMEOUT;
use crate::sim::net::{ConnId, Note, Timer, Way};
use crate::sim::options::SIP_PORT;
use crate::sim::text::{Sip, port_of, sdp_attribute, uri_of};
use crate::sim::world::World;

mod media;
mod plan;

pub use plan::{Plan, Reports, Trouble};

/// Names a device in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhoneId(pub(super) usize);

/// A device.
#[derive(Debug)]
pub(super) struct Phone {
    pub(super) user: usize,
    pub(super) instance: String,
    pub(super) gruu: String,
    pub(super) address: SocketAddr,
    pub(super) capable: bool,
    pub(super) registered: bool,
    pub(super) binding: u32,
    pub(super) register_cseq: u32,
    pub(super) departures: u32,
    pub(super) known_since: Option<Timestamp>,
    pub(super) refuses_until: Timestamp,
    pub(super) hold: Duration,
    pub(super) script: VecDeque<Plan>,
    pub(super) requests: Vec<String>,
    dice: Jitter,
}

impl Phone {
    pub(super) fn new(
        (user, number): (usize, usize),
        aor: &str,
        address: SocketAddr,
        seed: u64,
    ) -> Self {
        let instance = format!("urn:uuid:f81d4fae-7dec-11d0-a765-{number:012x}");
        Self {
            user,
            gruu: format!("{aor};gr={instance}"),
            instance,
            address,
            capable: true,
            registered: false,
            binding: 0,
            register_cseq: 0,
            departures: 0,
            known_since: None,
            refuses_until: Timestamp::ZERO,
            hold: Duration::ZERO,
            script: VecDeque::new(),
            requests: Vec::new(),
            dice: Jitter::new(seed),
        }
    }
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallState {
    /// No final response sent.
    Early,
    /// A failure was sent, its ACK is awaited.
    Refused,
    /// A 2xx was sent, its ACK is awaited.
    Answered,
    /// The ACK came.
    Confirmed,
    /// Ended, refused and acknowledged, or the device died.
    Over,
}

/// A message on its way in.
#[derive(Debug, Default)]
struct Part {
    body: Vec<u8>,
    have: Vec<bool>,
}

/// One INVITE and its dialog, at the device.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) phone: usize,
    pub(super) call_id: String,
    tag: String,
    invite: Sip,
    way: Way,
    plan: Plan,
    state: CallState,
    /// The fork's 2xx waits for its ACK.
    fork_waits: bool,
    last: Vec<u8>,
    fork: Vec<u8>,
    interval: Duration,
    give_up_at: Timestamp,
    generation: u32,
    session: String,
    peer_path: String,
    conn: Option<ConnId>,
    parts: BTreeMap<String, Part>,
    frames: u32,
    tids: u32,
    dead: bool,
}

impl World {
    /// Plans for the next INVITEs to a device, in order; scenarios use it.
    pub fn plan(&mut self, phone: PhoneId, plans: &[Plan]) {
        self.phones[phone.0].script.extend(plans.iter().copied());
    }

    fn draw_plan(&mut self, phone: usize) -> Plan {
        let (healed, mischief) = (self.net.healed, self.options.mischief);
        let state = &mut self.phones[phone];
        if let Some(plan) = state.script.pop_front() {
            return plan;
        }
        if !state.registered {
            return Plan::Refuse(480, None);
        }
        if !healed && mischief.hits(&mut state.dice) {
            return state.mischief();
        }
        state.good_answer()
    }

    pub(super) fn invite(&mut self, way: Way, message: &Sip) {
        let Some(&at) = self.call_ids.get(message.call_id()) else {
            return self.new_call(way, message);
        };
        let call = &mut self.calls[at];
        if message.cseq() < call.invite.cseq() {
            // A repetition of an INVITE that was refused before: its transaction is over.
            return;
        }
        call.way = way;
        if message.branch() == call.invite.branch() {
            if call.state != CallState::Early && !call.last.is_empty() && !call.dead {
                let bytes = call.last.clone();
                self.respond_call(at, &bytes);
            }
            return;
        }
        self.phones[call.phone].requests.push("INVITE".into());
        let call = &mut self.calls[at];
        call.invite = message.clone();
        if message.tag("To").is_some() {
            return self.reinvite(at);
        }
        self.net.mark("peer/invite-after-422");
        let plan = self.phones[self.calls[at].phone].good_answer();
        self.calls[at].plan = plan;
        self.begin(at);
    }

    fn new_call(&mut self, way: Way, message: &Sip) {
        let Some(phone) = self.phone_of(&message.uri) else {
            let bytes = message.answer(404, "core", "", "");
            return self.respond(way, message, &bytes, None);
        };
        self.phones[phone].requests.push("INVITE".into());
        let plan = self.draw_plan(phone);
        let at = self.calls.len();
        self.net
            .note(|| format!("device {phone} call {at}: {plan:?}"));
        let session = format!("ue{at:012}");
        self.sessions.insert(session.clone(), at);
        self.call_ids.insert(message.call_id().to_owned(), at);
        let path = sdp_attribute(&message.body, "path").unwrap_or_default();
        self.calls.push(Call {
            phone,
            call_id: message.call_id().to_owned(),
            tag: format!("ue{at}"),
            invite: message.clone(),
            way,
            plan,
            state: CallState::Early,
            fork_waits: false,
            last: Vec::new(),
            fork: Vec::new(),
            interval: T1,
            give_up_at: Timestamp::NEVER,
            generation: 0,
            session,
            peer_path: path.to_owned(),
            conn: None,
            parts: BTreeMap::new(),
            frames: 0,
            tids: 0,
            dead: false,
        });
        self.begin(at);
    }

    /// A new INVITE: provisional now, the rest when the plan says.
    fn begin(&mut self, at: usize) {
        let plan = self.calls[at].plan;
        self.calls[at].state = CallState::Early;
        let hold = self.phones[self.calls[at].phone].hold;
        let (ring, wait) = match plan {
            Plan::Answer { wait, .. } => (wait > Duration::from_millis(200), Some(wait)),
            Plan::BadAnswer | Plan::Fork | Plan::NoContact | Plan::TooSmall => {
                (false, Some(Duration::from_millis(60)))
            }
            Plan::Refuse(..) => (false, Some(Duration::from_millis(40))),
            Plan::Glare | Plan::Ring => (true, None),
            Plan::Late(wait) => (false, Some(wait)),
            Plan::Silent => (false, None),
        };
        self.net.mark(match plan {
            Plan::Answer { .. } => "plan/answer",
            Plan::BadAnswer => "plan/bad-answer",
            Plan::Fork => "plan/fork",
            Plan::Glare => "plan/glare",
            Plan::Late(_) => "plan/late",
            Plan::NoContact => "plan/no-contact",
            Plan::Refuse(..) => "plan/refuse",
            Plan::Ring => "plan/ring",
            Plan::Silent => "plan/silent",
            Plan::TooSmall => "plan/422",
        });
        if ring && hold.is_zero() {
            let call = &self.calls[at];
            let extra = "Record-Route: <sip:mt@198.51.100.1:5060;lr>\r\n\
                         Contact: <sip:ue@203.0.113.1:5060>\r\n";
            let bytes = call.invite.answer(180, &call.tag, extra, "");
            self.respond_call(at, &bytes);
        }
        if let Some(wait) = wait {
            let generation = self.calls[at].generation;
            self.net.after(wait + hold, Timer::Answer(at, generation));
        }
    }

    fn respond_call(&mut self, at: usize, bytes: &[u8]) {
        let call = &self.calls[at];
        let status = core::str::from_utf8(&bytes[8..11])
            .ok()
            .and_then(|text| text.parse().ok());
        let tag = Sip::parse(bytes)
            .ok()
            .and_then(|sip| sip.tag("To").map(str::to_owned));
        let note = Note::Final {
            call_id: call.call_id.clone(),
            status: status.expect("we wrote it"),
            tag: tag.unwrap_or_default(),
        };
        let (way, invite) = (call.way, call.invite.clone());
        self.respond(way, &invite, bytes, Some(note));
    }

    fn sdp(&self, at: usize, port: u16, active: bool) -> String {
        let (call, phone) = (&self.calls[at], &self.phones[self.calls[at].phone]);
        let (ip, session) = (phone.address.ip(), &call.session);
        let setup = if active { "active" } else { "passive" };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=message {port} TCP/MSRP *\r\na=path:msrp://{}/{session};tcp\r\n\
             a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:{setup}\r\n\
             a=recvonly\r\n",
            phone.address
        )
    }

    fn ok(&self, at: usize, contact: bool, sdp: &str, tag: &str) -> Vec<u8> {
        let call = &self.calls[at];
        let updates = matches!(call.plan, Plan::Answer { updates: true, .. });
        let update = if updates { ", UPDATE" } else { "" };
        let expires = call.invite.need("Session-Expires");
        let seconds = expires.split(';').next().unwrap_or_default();
        let contact = if contact {
            format!("Contact: <{}>\r\n", self.phones[call.phone].gruu)
        } else {
            String::new()
        };
        let timer = if seconds.is_empty() {
            String::new()
        } else {
            format!("Require: timer\r\nSession-Expires: {seconds};refresher=uac\r\n")
        };
        let extra = format!(
            "Record-Route: <sip:mt@198.51.100.9:5060;lr>, <sip:mt@198.51.100.1:5060;lr>\r\n\
             {contact}Allow: INVITE, ACK, CANCEL, BYE{update}\r\nSupported: timer\r\n{timer}"
        );
        call.invite.answer(200, tag, &extra, sdp)
    }

    /// A first response or a repeated one is due.
    pub(super) fn answer_due(&mut self, at: usize, generation: u32) {
        let call = &self.calls[at];
        if call.generation != generation || call.dead {
            return;
        }
        match call.state {
            CallState::Early => self.answer(at),
            CallState::Answered | CallState::Refused => self.repeat(at),
            CallState::Confirmed if call.fork_waits => self.repeat(at),
            CallState::Confirmed | CallState::Over => {}
        }
    }

    fn answer(&mut self, at: usize) {
        let call = &self.calls[at];
        let (tag, port) = (call.tag.clone(), self.phones[call.phone].address.port());
        let (bytes, state) = match call.plan {
            Plan::Refuse(status, retry_after) => {
                let extra =
                    retry_after.map_or(String::new(), |wait| format!("Retry-After: {wait}\r\n"));
                (
                    call.invite.answer(status, &tag, &extra, ""),
                    CallState::Refused,
                )
            }
            Plan::TooSmall => {
                let extra = "Min-SE: 2000\r\n";
                (call.invite.answer(422, &tag, extra, ""), CallState::Refused)
            }
            Plan::BadAnswer => (
                self.ok(at, true, &self.sdp(at, 0, true), &tag),
                CallState::Answered,
            ),
            Plan::NoContact => (
                self.ok(at, false, &self.sdp(at, port, true), &tag),
                CallState::Answered,
            ),
            Plan::Answer { active, .. } => (
                self.ok(at, true, &self.sdp(at, port, active), &tag),
                CallState::Answered,
            ),
            Plan::Fork | Plan::Glare | Plan::Late(_) | Plan::Ring | Plan::Silent => (
                self.ok(at, true, &self.sdp(at, port, true), &tag),
                CallState::Answered,
            ),
        };
        if call.plan == Plan::NoContact {
            self.ledger.contactless(&call.call_id);
        }
        let call = &self.calls[at];
        if call.plan == Plan::Fork {
            let fork = self.ok(at, true, &self.sdp(at, port, true), &format!("{tag}fork"));
            self.calls[at].fork = fork;
            self.calls[at].fork_waits = true;
        }
        let wait = self.phones[self.calls[at].phone].dice.below(300);
        self.start_media(at, Duration::from_millis(wait));
        let now = self.net.now;
        let call = &mut self.calls[at];
        call.last = bytes;
        call.state = state;
        call.interval = T1;
        call.give_up_at = now + TIMEOUT;
        self.send_answers(at);
    }

    fn start_media(&mut self, at: usize, wait: Duration) {
        let now = self.net.now;
        let Plan::Answer {
            active, trouble, ..
        } = self.calls[at].plan
        else {
            if matches!(
                self.calls[at].plan,
                Plan::Fork | Plan::Glare | Plan::Late(_)
            ) {
                self.net.after(wait, Timer::Connect(at));
            }
            return;
        };
        match trouble {
            Trouble::NeverBind => self.net.mark("trouble/never-bind"),
            Trouble::RefuseConnect => {
                self.net.mark("trouble/refuse-connect");
                let phone = self.calls[at].phone;
                self.phones[phone].refuses_until = now + Duration::from_secs(40);
            }
            Trouble::Cut
            | Trouble::Die
            | Trouble::HalfReport
            | Trouble::HangUp
            | Trouble::Mute
            | Trouble::NoRefresh
            | Trouble::None
            | Trouble::TooLarge
            | Trouble::Unknown => {
                if active {
                    self.net.after(wait, Timer::Connect(at));
                }
            }
        }
    }

    /// Sends what is not acknowledged, and plans the next time.
    fn send_answers(&mut self, at: usize) {
        let call = &self.calls[at];
        let (last, fork) = (call.last.clone(), call.fork.clone());
        let (waits, fork_waits) = (call.state != CallState::Confirmed, call.fork_waits);
        let reliable = self.options.transport == crate::sim::options::Transport::Tcp;
        let repeats = call.state != CallState::Refused || !reliable;
        if waits {
            self.respond_call(at, &last);
        }
        if fork_waits {
            self.respond_call(at, &fork);
        }
        if repeats {
            let call = &mut self.calls[at];
            call.generation += 1;
            let (wait, generation) = (call.interval, call.generation);
            self.net.after(wait, Timer::Answer(at, generation));
        }
    }

    fn repeat(&mut self, at: usize) {
        let now = self.net.now;
        let call = &mut self.calls[at];
        if now >= call.give_up_at {
            call.fork_waits = false;
            if call.state == CallState::Answered {
                // RFC 3261 section 13.3.1.4: no ACK came, the session is ended.
                self.net.mark("peer/no-ack");
                self.send_bye(at);
            }
            self.calls[at].state = CallState::Over;
            return;
        }
        self.net.mark("peer/response-repeated");
        let call = &mut self.calls[at];
        call.interval = (call.interval * 2).min(T2);
        self.send_answers(at);
    }

    fn reinvite(&mut self, at: usize) {
        let call = &self.calls[at];
        let phone = call.phone;
        let refuses = matches!(
            call.plan,
            Plan::Answer {
                trouble: Trouble::NoRefresh,
                ..
            }
        );
        let over = matches!(call.state, CallState::Over) || call.dead;
        let now = self.net.now;
        if refuses || over {
            self.net.mark("trouble/no-refresh");
            let call = &mut self.calls[at];
            call.last = call.invite.answer(481, "", "", "");
            let bytes = call.last.clone();
            return self.respond_call(at, &bytes);
        }
        self.net.mark("peer/re-invite");
        let active = matches!(call.plan, Plan::Answer { active: true, .. });
        let sdp = self.sdp(at, self.phones[phone].address.port(), active);
        let tag = self.calls[at].tag.clone();
        let bytes = self.ok(at, true, &sdp, &tag);
        let call = &mut self.calls[at];
        call.last = bytes;
        call.state = CallState::Answered;
        call.interval = T1;
        call.give_up_at = now + TIMEOUT;
        self.send_answers(at);
    }

    fn call_of(&self, message: &Sip) -> Option<usize> {
        self.call_ids.get(message.call_id()).copied()
    }

    pub(super) fn ack(&mut self, message: &Sip) {
        let Some(at) = self.call_of(message) else {
            return;
        };
        let phone = self.calls[at].phone;
        self.phones[phone].requests.push("ACK".into());
        let call = &mut self.calls[at];
        let tag = message.tag("To").unwrap_or_default();
        if call.state == CallState::Refused {
            call.state = CallState::Over;
        } else if tag == call.tag {
            if call.state == CallState::Answered {
                call.state = CallState::Confirmed;
            }
        } else {
            call.fork_waits = false;
        }
    }

    pub(super) fn cancel(&mut self, way: Way, message: &Sip) -> Vec<u8> {
        self.net.mark("engine/cancel");
        let Some(at) = self.call_of(message) else {
            return message.answer(481, "core", "", "");
        };
        let phone = self.calls[at].phone;
        self.phones[phone].requests.push("CANCEL".into());
        let call = &mut self.calls[at];
        let tag = call.tag.clone();
        if call.state == CallState::Early && !call.dead && call.plan != Plan::Silent {
            call.way = way;
            if call.plan != Plan::Glare {
                call.plan = Plan::Refuse(487, None);
            }
            self.answer(at);
        }
        message.answer(200, &tag, "", "")
    }

    pub(super) fn bye(&mut self, message: &Sip) -> Vec<u8> {
        let Some(at) = self.call_of(message) else {
            return message.answer(481, "core", "", "");
        };
        let reason = message.need("Reason").to_owned();
        self.net.mark(bye_mark(&reason));
        let phone = self.calls[at].phone;
        self.phones[phone].requests.push("BYE".into());
        let call = &mut self.calls[at];
        if message.tag("To") != Some(call.tag.as_str()) {
            return message.answer(200, "", "", "");
        }
        if call.dead || call.state == CallState::Over {
            return message.answer(481, "", "", "");
        }
        call.state = CallState::Over;
        if let Some(conn) = call.conn
            && !self.options.reuse
        {
            self.net.close_by_peer(conn);
        }
        message.answer(200, "", "", "")
    }

    pub(super) fn update(&mut self, message: &Sip) -> Vec<u8> {
        let Some(at) = self.call_of(message) else {
            return message.answer(481, "core", "", "");
        };
        let call = &self.calls[at];
        self.phones[call.phone].requests.push("UPDATE".into());
        let refuses = matches!(
            call.plan,
            Plan::Answer {
                trouble: Trouble::NoRefresh,
                ..
            }
        );
        if refuses || call.dead || call.state == CallState::Over {
            self.net.mark("trouble/no-refresh");
            return message.answer(481, "", "", "");
        }
        self.net.mark("peer/update");
        let seconds = message
            .need("Session-Expires")
            .split(';')
            .next()
            .unwrap_or_default();
        let extra = format!(
            "Contact: <{}>\r\nRequire: timer\r\nSession-Expires: {seconds};refresher=uac\r\n",
            self.phones[call.phone].gruu
        );
        message.answer(200, "", &extra, "")
    }

    /// The device ends the dialog.
    fn send_bye(&mut self, at: usize) {
        let call = &mut self.calls[at];
        call.state = CallState::Over;
        call.generation += 1;
        let target = uri_of(call.invite.need("Contact")).to_owned();
        let (to, tag, call_id) = (call.invite.need("To"), &call.tag, call.call_id.clone());
        let from = to.split(";tag=").next().unwrap_or_default();
        let text = format!(
            "From: {from};tag={tag}\r\nTo: {}\r\nCall-ID: {call_id}\r\nCSeq: 1 BYE\r\n\
             Content-Length: 0\r\n\r\n",
            call.invite.need("From")
        );
        let port = port_of(&target).unwrap_or(SIP_PORT);
        let shard = u8::try_from(port - SIP_PORT)
            .unwrap_or(0)
            .min(self.shards() - 1);
        let note = Note::Bye { call_id };
        self.core_request(("BYE", &target), shard, Purpose::Bye, &text, Some(note));
    }

    pub(super) fn hang_up(&mut self, at: usize) {
        let call = &self.calls[at];
        if call.dead || call.state != CallState::Confirmed {
            return;
        }
        self.net.mark("trouble/hang-up");
        self.send_bye(at);
    }

    /// The device is switched off.
    fn die(&mut self, at: usize) {
        self.net.mark("trouble/die");
        let phone = self.calls[at].phone;
        let mut conns = Vec::new();
        for call in self.calls.iter_mut().filter(|call| call.phone == phone) {
            call.dead = true;
            conns.extend(call.conn);
        }
        if !self.options.reuse {
            for conn in conns {
                self.net.reset(conn);
            }
        }
        self.net
            .after(Duration::from_secs(3), Timer::Register(phone));
    }

    /// A REGISTER at the registrar: a refresh of the binding, or a new one.
    pub(super) fn register_phone(&mut self, phone: usize) {
        let healed = self.net.healed;
        let state = &mut self.phones[phone];
        if state.registered && !healed && state.dice.below(2) == 0 {
            state.register_cseq += 1;
            self.net.mark("peer/register-again");
        } else {
            state.binding += 1;
            state.register_cseq = 1;
            self.net.mark("peer/register-new");
        }
        self.phones[phone].registered = true;
        self.net.note(|| format!("REGISTER of device {phone}"));
        self.registration_changed(self.phones[phone].user);
    }

    pub(super) fn unregister_phone(&mut self, phone: usize) {
        let state = &mut self.phones[phone];
        if self.net.healed || !state.registered {
            return;
        }
        state.registered = false;
        state.departures += 1;
        state.known_since = None;
        let user = state.user;
        self.net.mark("peer/unregister");
        self.net.note(|| format!("device {phone} leaves"));
        self.registration_changed(user);
    }
}

/// The mark of a BYE, by its Reason.
fn bye_mark(reason: &str) -> &'static str {
    const REASONS: [(&str, &str); 6] = [
        ("queue drained", "bye/drained"),
        ("answer not acceptable", "bye/bad-answer"),
        ("refresh failed", "bye/refresh"),
        ("message session failed", "bye/media"),
        ("answered elsewhere", "bye/fork"),
        ("session limit", "bye/cap"),
    ];
    let found = REASONS.iter().find(|(text, _)| reason.contains(text));
    found.map_or("bye/late", |&(_, mark)| mark)
}
