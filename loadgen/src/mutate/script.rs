//! The honest engine of the self-test: text without sockets.

use super::cases::{Case, Fault, Turn};
use super::text::{ICSI, RUN, answer, cancel, head, in_dialog, invite, reframed, subscribe};
use crate::ledger::NONE;
use crate::link::{LinkId, Protocol};
use crate::scenario::{Kind, Options, Setup, Transport};
use crate::world::World;

/// Which message of a push is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// The answer to a MESSAGE.
    MessageAnswer,
    /// The answer to a REGISTER.
    RegisterAnswer,
    /// SUBSCRIBE.
    Subscribe,
    /// The answer to a NOTIFY.
    NotifyAnswer,
    /// INVITE.
    Invite,
    /// ACK.
    Ack,
    /// SEND.
    Send,
    /// UPDATE.
    Update,
    /// CANCEL.
    Cancel,
    /// BYE.
    Bye,
    /// ACK to a refusal.
    Refused,
    /// INVITE after a 422.
    Retried,
}

/// Users of a script; each has two devices.
const USERS: u32 = 64;

/// A world and the engine's side of it.
pub(super) struct Script {
    pub(super) world: World,
    case: &'static Case,
    sip: LinkId,
    msrp: LinkId,
    serial: u32,
    user: u32,
    /// The case's message is due.
    armed: bool,
    over: bool,
}

impl Script {
    pub(super) fn new(case: &'static Case) -> Self {
        let text = format!(
            "kind = \"full\"\nusers = {USERS}\ndevices = \"2\"\ntel_share = 0.0\nmessages = 1\n\
             body_bytes = [300]\nengine = \"127.0.0.1:5060\"\nscscf_listen = \"127.0.0.1:5070\"\n\
             msrp_listen = \"127.0.0.1:2856\"\n"
        );
        let mut options = Options::parse("self-test", &text).expect("constant options");
        options.registrar = case.registrar().map(|name| vec![format!("{name}:1")]);
        let protocol = if case.datagrams() {
            options.transport = Some(Transport::Udp);
            options.path_mtu = Some(65_535);
            Protocol::SipDatagram
        } else {
            Protocol::Sip
        };
        if case.before == Some(Turn::Retry) {
            options.mix = Some(vec!["too-small:1".to_owned()]);
        }
        options.session_expires_s = Some(if case.refresher().is_some() { 90 } else { 1800 });
        options.refreshers = case.refresher().map(|name| vec![format!("{name}:1")]);
        options.kind = Some(if case.refresher().is_some() {
            Kind::Hold
        } else if case.declined {
            Kind::Signalling
        } else {
            Kind::Full
        });
        let setup = Setup::resolve(options, RUN).expect("constant options");
        let mut world = World::new(setup);
        world.open_links(protocol);
        let peer = "127.0.0.1:9".parse().expect("a constant address");
        let (sip, msrp) = (
            world.outbox.add(protocol, peer),
            world.outbox.add(Protocol::Msrp, peer),
        );
        Self {
            world,
            case,
            sip,
            msrp,
            serial: 0,
            user: 0,
            armed: false,
            over: false,
        }
    }

    /// Pushes to the first device of `count` users without a fault.
    pub(super) fn warm(&mut self, count: u32) {
        for _ in 0..count {
            self.arrive();
            self.push(0);
            self.user += 1;
        }
    }

    /// The broken message, and nothing behind it.
    pub(super) fn break_one(&mut self) {
        self.armed = true;
        self.arrive();
        match self.case.fault {
            Fault::Text { .. } => self.push(0),
            Fault::Turn(turn) => self.turn(turn),
        }
    }

    fn sip(&mut self, spot: Spot, text: String) {
        if self.over {
            return;
        }
        let text = match self.broken(spot, &text) {
            Some(broken) => reframed(&broken),
            None => text,
        };
        let text = if self.case.datagrams() {
            text.replace("SIP/2.0/TCP", "SIP/2.0/UDP")
                .replace(":5070;transport=tcp", ":5070;transport=udp")
        } else {
            text
        };
        self.world.handle_sip(self.sip, text.as_bytes());
        self.settle();
    }

    /// The case's version of a message, when it is the one to break; nothing comes behind it.
    fn broken(&mut self, spot: Spot, text: &str) -> Option<String> {
        let Fault::Text { spot: at, from, to } = self.case.fault else {
            return None;
        };
        if !self.armed || at != spot {
            return None;
        }
        assert!(text.contains(from), "the case's text is not there: {from}");
        self.over = true;
        let times = if spot == Spot::Send { usize::MAX } else { 1 };
        Some(text.replacen(from, to, times))
    }

    /// Takes what the world wants to send.
    fn settle(&mut self) {
        let mut dirty = core::mem::take(&mut self.world.outbox.dirty);
        for &link in &dirty {
            self.world.outbox.taken(link);
        }
        dirty.clear();
        self.world.outbox.dirty = dirty;
        self.world.outbox.connects.clear();
    }

    /// A message is deposited and its user registers.
    fn arrive(&mut self) {
        let user = self.user;
        self.world.send_deposit(user, 0);
        if self.case.registrar().is_some() {
            self.world.arm(user, 0, u8::MAX);
        }
        self.settle();
        self.sip(
            Spot::MessageAnswer,
            answer("202 Accepted", &format!("m{user:012}"), "MESSAGE", ""),
        );
        self.world.send_register(user);
        self.settle();
        let contact = "Contact: <sip:127.0.0.1:5070;transport=tcp>;expires=600000\r\n";
        let branch = format!("r{user:08}00000001");
        self.sip(
            Spot::RegisterAnswer,
            answer("200 OK", &branch, "REGISTER", contact),
        );
        self.sip(Spot::Subscribe, subscribe(user));
        let branch = format!("n{user:08}00000001");
        self.sip(Spot::NotifyAnswer, answer("200 OK", &branch, "NOTIFY", ""));
    }

    /// A whole push.
    fn push(&mut self, device: u8) {
        self.invite(device);
        if self.case.before == Some(Turn::Retry) {
            self.retry(device);
            return;
        }
        if self.case.before == Some(Turn::GoodCancel) {
            self.extra();
        }
        self.ack(device);
        if self.case.before == Some(Turn::GoodUpdate) {
            self.extra();
        }
        if !self.case.declined {
            self.send(device, true);
        }
        self.sip_in(Spot::Bye, "BYE", device, "Supported: timer\r\n");
    }

    fn invite(&mut self, device: u8) {
        self.serial += 1;
        let text = invite(self.serial, self.user, device);
        self.sip(Spot::Invite, text);
    }

    /// The push is refused with 422: ACK, and another INVITE. Nothing comes behind it: its dialog has
    /// another tag than this script's other messages.
    fn retry(&mut self, device: u8) {
        let (n, user) = (self.serial, self.user);
        let ack = cancel(n, user, device).replace("CANCEL", "ACK").replacen(
            "home.example>\r\nCall",
            &format!("home.example>;tag=ph{n:08}\r\nCall"),
            1,
        );
        self.sip(Spot::Refused, ack);
        let again = invite(n, user, device)
            .replacen(&format!("z9hG4bKi{n:08}"), &format!("z9hG4bKr{n:08}"), 1)
            .replace("CSeq: 1 INVITE", "CSeq: 2 INVITE")
            .replace(
                "Expires: 1800;refresher=uac\r\n",
                "Expires: 3600;refresher=uac\r\nMin-SE: 3600\r\n",
            );
        // The world counts INVITEs.
        self.serial += 1;
        self.sip(Spot::Retried, reframed(&again));
        // Over UDP or TCP, an INVITE that is never acknowledged has no rule before the run ends.
    }

    fn ack(&mut self, device: u8) {
        self.sip_in(Spot::Ack, "ACK", device, "");
    }

    /// A request in the dialog of the last INVITE.
    fn sip_in(&mut self, spot: Spot, method: &str, device: u8, extra: &str) {
        let updated = self.case.before == Some(Turn::GoodUpdate);
        let cseq = match method {
            "ACK" => 1,
            "BYE" if updated => 3,
            _ => 2,
        };
        let whose = (self.serial, self.user, device);
        let text = in_dialog(method, cseq, whose, extra);
        self.sip(spot, text);
    }

    fn send(&mut self, device: u8, own_id: bool) {
        if self.over {
            return;
        }
        let id = if own_id { self.user } else { self.user + 9000 };
        let text = self.send_text(device, id, (0, 0, 0));
        let text = self.broken(Spot::Send, &text).unwrap_or(text);
        self.msrp(&text);
    }

    fn msrp(&mut self, text: &str) {
        self.world.handle_msrp(self.msrp, text.as_bytes());
        self.settle();
    }

    fn send_text(&self, device: u8, id: u32, off: (i32, i32, i32)) -> String {
        let (user, n) = (self.user, self.serial);
        let mut cpim = Vec::new();
        self.world.put_deposited(user, u64::from(user), &mut cpim);
        let cpim = String::from_utf8(cpim).expect("bodies are ASCII");
        let (head, rest) = cpim.split_once("\r\n\r\n").expect("a CPIM has two parts");
        let body = format!(
            "{head}\r\nNS: cpm <http://www.openmobilealliance.org/cpm/>\r\n\
             cpm.Conversation-ID: {RUN:08x}-0000-4000-9000-{user:012}\r\n\
             cpm.Contribution-ID: {RUN:08x}-0000-4000-8000-{user:012}\r\n\r\n{rest}"
        );
        let length = i32::try_from(body.len()).expect("a small body");
        let (start, end, total) = (1 + off.0, length + off.1, length + off.2);
        let tid = format!("t4Ke91Xb{n:08}");
        format!(
            "MSRP {tid} SEND\r\nTo-Path: msrp://127.0.0.1:2856/p{user:08}{device:04}{n:08};tcp\r\n\
             From-Path: msrp://127.0.0.1:2855/k9Qv3tZs1mXb{n:08};tcp\r\nMessage-ID: vM{id:08}.u7\r\n\
             Success-Report: yes\r\nFailure-Report: yes\r\nByte-Range: {start}-{end}/{total}\r\n\
             Content-Type: message/cpim\r\n\r\n{body}\r\n-------{tid}$\r\n"
        )
    }

    /// Messages that are good one by one and wrong in their order.
    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::NoAck => {
                self.invite(0);
                self.world.finish();
            }
            Turn::SecondInvite => {
                self.invite(0);
                self.invite(0);
            }
            Turn::ByeBeforeAck => {
                self.invite(0);
                self.sip_in(Spot::Bye, "BYE", 0, "Supported: timer\r\n");
            }
            Turn::ByeBeforeSend => {
                self.invite(0);
                self.ack(0);
                self.sip_in(Spot::Bye, "BYE", 0, "Supported: timer\r\n");
            }
            Turn::ByeTwice => {
                self.push(0);
                self.sip_in(Spot::Bye, "BYE", 0, "Supported: timer\r\n");
            }
            Turn::ChangedRepeat => {
                self.push(0);
                let whose = (self.serial, self.user, 0);
                let text = in_dialog("BYE", 2, whose, "Supported: timer\r\n");
                self.sip(Spot::Bye, text.clone());
                self.sip(
                    Spot::Bye,
                    text.replace("Supported: timer", "Supported: TIMER"),
                );
            }
            Turn::ChangedAnswer => {
                let branch = format!("n{:08}00000001", self.user);
                let text = answer("200 OK", &branch, "NOTIFY", "");
                self.sip(Spot::NotifyAnswer, text);
                let text = answer("200 OK", &branch, "NOTIFY", "Server: another\r\n");
                self.sip(Spot::NotifyAnswer, text);
            }
            Turn::After(fault) => {
                // The second time there is an old version.
                for _ in 0..2 {
                    self.world.provoke(self.user);
                    self.settle();
                }
                match fault {
                    "gap" => self.world.pump(6_000_000_000),
                    "rejected" | "probation" => {
                        let text = subscribe(self.user);
                        self.sip(Spot::Subscribe, text);
                    }
                    _ => self.invite(0),
                }
            }
            Turn::Hop(how) => self.hop(how),
            Turn::Hurry => self.hurry(),
            Turn::Held(how) => self.held(how),
            Turn::NothingQueued => {
                self.push(0);
                self.invite(0);
            }
            Turn::Repeated(what) => self.repeated(what),
            Turn::OtherMessageId => {
                self.push(0);
                self.invite(1);
                self.ack(1);
                self.send(1, false);
            }
            Turn::Range(start, end, total) => {
                self.invite(0);
                self.ack(0);
                let text = self.send_text(0, self.user, (start, end, total));
                self.msrp(&text);
            }
            Turn::Notice => {
                let text = format!(
                    "MESSAGE sip:+15560000001@home.example SIP/2.0\r\n{}CSeq: 1 MESSAGE\r\n\
                     Content-Length: 0\r\n\r\n",
                    head("n1", "pf1", "sip:+15560000001@home.example", "", "notice1")
                );
                self.sip(Spot::Invite, text);
            }
            Turn::Garbage => self.sip(Spot::Invite, "\u{1}nonsense\r\n\r\n".to_owned()),
            Turn::GoodCancel | Turn::GoodUpdate | Turn::Retry => {}
        }
    }

    /// An INVITE with an identifier of the one before.
    fn repeated(&mut self, what: &str) {
        let old = what.replace("{n}", &self.serial.to_string());
        let new = what.replace("{n}", &(self.serial + 1).to_string());
        self.serial += 1;
        let text = invite(self.serial, self.user, 0);
        assert!(text.contains(&new), "the identifier is not there: {new}");
        self.sip(Spot::Invite, reframed(&text.replace(&new, &old)));
    }

    /// A session that stays, and its timers.
    fn held(&mut self, how: &str) {
        self.invite(0);
        self.ack(0);
        self.send(0, true);
        let (seconds, update) = match how {
            "early" => (40.0, true),
            "late" => (47.0, true),
            "end-late" => (63.0, false),
            "never" | "no-end" => (70.0, false),
            _ => (45.0, false),
        };
        self.world.pump((seconds * 1e9) as u64);
        self.settle();
        match how {
            "never" | "no-end" => self.world.finish(),
            "end-late" => self.sip_in(Spot::Bye, "BYE", 0, "Supported: timer\r\n"),
            _ if update => {
                let extra = format!(
                    "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n\
                     Contact: <sip:push@127.0.0.1:5060>;+g.3gpp.icsi-ref=\"{ICSI}\";automata\r\n"
                );
                self.sip_in(Spot::Update, "UPDATE", 0, &extra);
            }
            _ => {
                let (expires, more) = match how {
                    "role" => ("90;refresher=uas", ""),
                    "larger" => ("1800;refresher=uac", ""),
                    _ => ("90;refresher=uac", "Min-SE: 90\r\n"),
                };
                let (index, serial) = (self.user * 2, self.serial);
                let branch = format!("u{index:010}{serial:08}00000001");
                let lines = format!("Require: timer\r\nSession-Expires: {expires}\r\n{more}");
                let text = answer("200 OK", &branch, "UPDATE", &lines);
                self.sip(Spot::Update, text);
            }
        }
    }

    /// More new requests in a moment than a hop asked for in a second.
    fn hurry(&mut self) {
        self.world.provoke_hops("rate");
        self.invite(0);
        self.world.pump(500_000_000);
        self.settle();
        while self.user + 1 < USERS {
            self.user += 1;
            self.arrive();
            self.invite(0);
            self.invite(1);
        }
    }

    /// A next hop answers 503, and the INVITE that follows is not as it must be.
    fn hop(&mut self, how: &str) {
        self.world.provoke_hops("busy");
        self.invite(0);
        let (n, user) = (self.serial, self.user);
        match how {
            "early" => {
                self.world.pump(500_000_000);
                self.settle();
                self.invite(1);
            }
            "cseq" => {
                let again = invite(n, user, 0)
                    .replacen(&format!("z9hG4bKi{n:08}"), &format!("z9hG4bKr{n:08}"), 1)
                    .replace("CSeq: 1 INVITE", "CSeq: 2 INVITE");
                self.sip(Spot::Invite, again);
            }
            _ => self.sip(Spot::Invite, invite(n, user, 0)),
        }
    }

    /// Sends the messages that only some pushes have.
    pub(super) fn extra(&mut self) {
        match self.case.before {
            Some(Turn::GoodUpdate) => {
                let extra = format!(
                    "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n\
                     Contact: <sip:push@127.0.0.1:5060>;+g.3gpp.icsi-ref=\"{ICSI}\";automata\r\n"
                );
                self.sip_in(Spot::Update, "UPDATE", 0, &extra);
            }
            Some(Turn::GoodCancel) => {
                let text = cancel(self.serial, self.user, 0);
                self.sip(Spot::Cancel, text);
            }
            _ => {}
        }
    }
}

const _: () = assert!(NONE > USERS, "message numbers are user numbers here");
