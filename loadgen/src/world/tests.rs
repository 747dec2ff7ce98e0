//! The state machine without sockets.

use super::World;
use super::director::Step;
use crate::behaviour::Behaviour;
use crate::link::{LinkId, Protocol};
use crate::scenario::{Options, Phone, Setup};

fn setup(kind: &str) -> Setup {
    let text = format!(
        "kind = \"{kind}\"\nusers = 20000\ndevices = \"4\"\ntel_share = 0.0\n\
         engine = \"127.0.0.1:5060\"\nscscf_listen = \"127.0.0.1:5070\"\nrun_id = 1\n"
    );
    Setup::resolve(Options::parse("test", &text).unwrap(), 1).unwrap()
}

struct Bed {
    world: World,
    link: LinkId,
}

impl Bed {
    fn new(kind: &str) -> Self {
        let mut world = World::new(setup(kind));
        world.open_links(Protocol::Sip);
        let link = world
            .outbox
            .add(Protocol::Sip, "127.0.0.1:9".parse().unwrap());
        for user in 0..world.setup.users {
            world.send_deposit(user, 0);
            world.send_register(user);
        }
        Self { world, link }
    }

    fn drain(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let dirty = std::mem::take(&mut self.world.outbox.dirty);
        for link in dirty {
            let mut bytes = Vec::new();
            self.world.outbox.take(link, &mut bytes);
            if link == self.link {
                all = bytes;
            }
        }
        all
    }
}

const ICSI: &str = "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred";

fn invite(n: u32, user: u32, device: u8) -> String {
    let sdp = format!(
        "v=0\r\no=- {n} 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=message 2855 TCP/MSRP *\r\na=path:msrp://127.0.0.1:2855/k9Qv3tZs1mXb{n:08};tcp\r\n\
         a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\n\
         a=msrp-cema\r\na=sendonly\r\n"
    );
    format!(
        "INVITE sip:+1555{user:07}@home.example;gr=urn:uuid:00000000-0000-1000-8000-\
         {device:04}{user:08} SIP/2.0\r\n\
         Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK-i-{n};oc;oc-algo=\"loss,rate\"\r\n\
         Max-Forwards: 70\r\nRoute: <sip:127.0.0.1:5070;transport=tcp;lr>\r\n\
         From: <sip:cpm-pf@home.example>;tag=pf{n}\r\nTo: <sip:+1555{user:07}@home.example>\r\n\
         Call-ID: 5f0c6a1e9d2b{n}@127.0.0.1\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:push@127.0.0.1:5060;transport=tcp>;+g.3gpp.icsi-ref=\"{ICSI}\";automata\r\n\
         Accept-Contact: *;+g.3gpp.icsi-ref=\"{ICSI}\"\r\n\
         P-Asserted-Identity: <sip:cpm-pf@home.example>\r\n\
         P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
         P-Charging-Vector: icid-value=\"ic{n}\";icid-generated-at=pf1;orig-ioi=\"home.example\"\r\n\
         User-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS\r\nSupported: timer\r\n\
         Session-Expires: 1800;refresher=uac\r\n\
         Conversation-ID: 00000001-0000-4000-9000-{user:012}\r\n\
         Contribution-ID: 00000001-0000-4000-8000-{user:012}\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

fn in_dialog(method: &str, cseq: u32, n: u32, user: u32, device: u8) -> String {
    let supported = if method == "BYE" {
        "Supported: timer\r\n"
    } else {
        ""
    };
    format!(
        "{method} sip:+1555{user:07}@phones.home.example:5060;transport=tcp;dev={device:04} SIP/2.0\r\n\
         Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK-{method}-{n};oc;oc-algo=\"loss,rate\"\r\n\
         Max-Forwards: 70\r\nRoute: <sip:mt@127.0.0.1:5070;transport=tcp;lr>\r\n\
         Route: <sip:mt@pcscf1.home.example:5060;lr>\r\nFrom: <sip:cpm-pf@home.example>;tag=pf{n}\r\n\
         To: <sip:+1555{user:07}@home.example>;tag=ph{n:08}\r\nCall-ID: 5f0c6a1e9d2b{n}@127.0.0.1\r\n\
         CSeq: {cseq} {method}\r\n{supported}Content-Length: 0\r\n\r\n"
    )
}

// Proves: PUSH-a, OK-2, DLG-8, RSP-31, DLG-6, REG-5
#[test]
fn judges_the_order_of_requests_in_a_push() {
    let mut bed = Bed::new("signalling");
    let (link, broken) = (bed.link, |bed: &Bed| {
        bed.world
            .violations
            .broken()
            .map(|(rule, _)| rule.id())
            .collect::<Vec<_>>()
    });
    bed.world
        .handle_sip(link, invite(1, 3, 1).as_bytes())
        .unwrap();
    let answer = String::from_utf8(bed.drain()).unwrap();
    assert!(answer.starts_with("SIP/2.0 100 Trying\r\n"), "{answer}");
    assert!(answer.contains("m=message 0 TCP/MSRP *\r\n"), "{answer}");
    bed.world
        .handle_sip(link, in_dialog("ACK", 1, 1, 3, 1).as_bytes())
        .unwrap();
    bed.world
        .handle_sip(link, in_dialog("BYE", 2, 1, 3, 1).as_bytes())
        .unwrap();
    assert_eq!(broken(&bed), [""; 0]);
    assert_eq!(bed.world.counters.pushes, 1);
    bed.world.ledger.row(3).unwrap().deposit = crate::ledger::Deposit::Accepted;
    let sums = bed.world.balance();
    assert_eq!((sums.expected, sums.kept, sums.lost), (4, 1, 3));
    bed.world
        .handle_sip(link, in_dialog("BYE", 2, 1, 3, 1).as_bytes())
        .unwrap();
    assert_eq!(broken(&bed), ["DLG-6"]);

    let mut bed = Bed::new("signalling");
    bed.world
        .handle_sip(link, invite(1, 3, 1).as_bytes())
        .unwrap();
    bed.world
        .handle_sip(link, invite(2, 3, 1).as_bytes())
        .unwrap();
    assert_eq!(broken(&bed), ["RSP-31"]);

    let mut bed = Bed::new("signalling");
    bed.world
        .handle_sip(link, invite(1, 3, 1).as_bytes())
        .unwrap();
    bed.world
        .handle_sip(link, in_dialog("BYE", 2, 1, 3, 1).as_bytes())
        .unwrap();
    assert_eq!(broken(&bed), ["DLG-8"]);
}

impl Bed {
    fn take(&mut self, link: LinkId, text: &str) {
        self.world.handle_sip(link, text.as_bytes()).unwrap();
    }

    /// The rules broken so far.
    fn broken(&self) -> Vec<&'static str> {
        let broken = self.world.violations.broken();
        broken.map(|(rule, _)| rule.id()).collect()
    }
}

/// A session of a phone that broke its connection, so the engine may end it and begin the next at once; and
/// another link of the engine.
fn broken_session() -> (Bed, LinkId) {
    let mut bed = Bed::new("full");
    bed.world.setup.phone = Phone::Active;
    let peer = "127.0.0.1:8".parse().unwrap();
    let other = bed.world.outbox.add(Protocol::Sip, peer);
    bed.world.users[3].accepted = 3;
    let link = bed.link;
    bed.take(link, &invite(1, 3, 1));
    bed.take(link, &in_dialog("ACK", 1, 1, 3, 1));
    bed.world.devices[13].excused = true;
    (bed, other)
}

// Proves: RSP-31, DLG-8, OK-3
#[test]
fn an_invite_may_overtake_the_bye_before_it_by_another_connection_and_only_so() {
    let (second, bye) = (invite(2, 3, 1), in_dialog("BYE", 2, 1, 3, 1));
    let (mut bed, other) = broken_session();
    let link = bed.link;
    bed.take(other, &second);
    bed.take(link, &bye);
    bed.take(link, &in_dialog("ACK", 1, 2, 3, 1));
    bed.world.finish();
    assert_eq!(bed.broken(), [""; 0]);
    let counters = bed.world.counters;
    assert_eq!((counters.invites_crossed, counters.pushes), (1, 1));
    assert_eq!(counters.msrp_opened, 2, "the next session has a connection");

    // One connection keeps its order.
    let (mut bed, _) = broken_session();
    bed.take(bed.link, &second);
    assert_eq!(bed.broken(), ["RSP-31"]);

    // The BYE left behind the INVITE.
    let (mut bed, other) = broken_session();
    bed.take(other, &second);
    bed.take(other, &bye);
    assert_eq!(bed.broken(), ["RSP-31"]);

    // There is no BYE: for two seconds, or until the end of the run.
    let (mut bed, other) = broken_session();
    bed.take(other, &second);
    bed.at(1.9);
    assert_eq!(bed.broken(), [""; 0]);
    bed.at(2.1);
    assert_eq!(bed.broken(), ["RSP-31"]);
    // When it comes after all, it is still of its own session, and so is one too many.
    bed.take(other, &in_dialog("ACK", 1, 2, 3, 1));
    bed.take(bed.link, &bye);
    assert_eq!(bed.broken(), ["RSP-31"]);
    assert_eq!(bed.world.counters.byes_late, 1);
    bed.take(bed.link, &bye);
    assert_eq!(bed.broken(), ["RSP-31", "DLG-6"]);
    let (mut bed, other) = broken_session();
    bed.take(other, &second);
    bed.take(other, &in_dialog("ACK", 1, 2, 3, 1));
    bed.world.finish();
    assert_eq!(bed.broken(), ["RSP-31"]);

    // What is owed to the session before is owed still.
    let (mut bed, other) = broken_session();
    bed.world.devices[13].excused = false;
    bed.take(other, &second);
    bed.take(bed.link, &bye);
    assert_eq!(bed.broken(), ["OK-3"]);
}

// Proves: RSP-31
#[test]
fn an_invite_may_overtake_the_answer_to_the_bye_of_a_phone() {
    for answered in [true, false] {
        let (mut bed, _) = broken_session();
        let link = bed.link;
        bed.world.devices[13].behaviour = Behaviour::HangUp;
        bed.take(link, &invite(2, 3, 1));
        if answered {
            let branch = "z9hG4bKb00000003000100000001";
            let answer = format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 127.0.0.1:5070;branch={branch}\r\n\
                 From: <sip:a>;tag=ph00000001\r\nTo: <sip:b>;tag=pf1\r\nCall-ID: c\r\n\
                 CSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"
            );
            bed.take(link, &answer);
        }
        bed.take(link, &in_dialog("ACK", 1, 2, 3, 1));
        bed.at(2.1);
        let expected: &[&str] = if answered { &[] } else { &["RSP-31"] };
        assert_eq!(bed.broken(), expected);
        assert_eq!(bed.world.counters.hung_up, u64::from(answered));
        assert_eq!(bed.world.counters.msrp_opened, 2);
    }
}

#[test]
fn a_run_does_not_end_between_an_invite_and_the_bye_it_overtook_but_in_time_without_one() {
    let late = |bye_at: Option<f64>| {
        let (mut bed, other) = broken_session();
        bed.all();
        bed.world.setup.sweep = false;
        bed.world.enter(Step::Drain);
        bed.world.director.open = 0;
        bed.world.director.deposits_open = 0;
        bed.at(0.0);
        bed.at(0.29);
        bed.take(other, &invite(2, 3, 1));
        bed.take(other, &in_dialog("ACK", 1, 2, 3, 1));
        for step in 30..2000 {
            let at = f64::from(step) / 100.0;
            if bye_at == Some(at) {
                bed.take(bed.link, &in_dialog("BYE", 2, 1, 3, 1));
            }
            bed.at(at);
            if bed.world.director.step == Step::Done {
                // One more crosses when the run is over.
                bed.take(bed.link, &invite(3, 3, 1));
                bed.take(bed.link, &in_dialog("ACK", 1, 3, 3, 1));
                bed.world.finish();
                return (at, bed.broken());
            }
        }
        panic!("the run goes on");
    };
    let (at, broken) = late(Some(0.4));
    assert!((0.4..0.45).contains(&at), "{at}");
    assert_eq!(broken, [""; 0]);
    let (at, broken) = late(None);
    assert!((2.2..2.4).contains(&at), "{at}");
    assert_eq!(broken, ["RSP-31"]);
}

#[test]
fn a_standstill_that_ends_with_something_received_is_seen_and_puts_deadlines_off() {
    const STILL_S: f64 = 3.0;
    let (mut bed, other) = broken_session();
    bed.world.enter(Step::Drain);
    bed.at(0.1);
    bed.take(other, &invite(2, 3, 1));
    // What came meanwhile is read before the timer is looked at: the BYE is late by the standstill alone.
    let now = ((0.1 + STILL_S) * 1e9) as u64;
    bed.world.begin_turn(now);
    bed.take(other, &in_dialog("ACK", 1, 2, 3, 1));
    bed.world.pump(now);
    assert_eq!(bed.broken(), [""; 0]);
    bed.take(bed.link, &in_dialog("BYE", 2, 1, 3, 1));
    bed.at(0.2 + STILL_S);
    assert_eq!(bed.broken(), [""; 0]);
    assert_eq!(bed.world.counters.stood_still_ms, 3000);
}

/// A request of the first world as it goes by datagrams.
fn udp(text: String) -> String {
    text.replace("SIP/2.0/TCP", "SIP/2.0/UDP")
        .replace(":5070;transport=tcp", ":5070;transport=udp")
}

/// A world whose SIP goes by datagrams, with one user of one device.
fn datagram_bed(more: &str) -> Bed {
    let text = format!(
        "kind = \"full\"\nusers = 4\ndevices = \"1\"\ntel_share = 0.0\ntransport = \"udp\"\n\
         path_mtu = 65535\nengine = \"127.0.0.1:5060\"\nscscf_listen = \"127.0.0.1:5070\"\n{more}"
    );
    let setup = Setup::resolve(Options::parse("test", &text).unwrap(), 1).unwrap();
    let mut world = World::new(setup);
    world.open_links(Protocol::SipDatagram);
    let peer = "127.0.0.1:9".parse().unwrap();
    let link = world.outbox.add(Protocol::SipDatagram, peer);
    Bed { world, link }
}

impl Bed {
    /// Everything that goes to any peer, as text.
    fn all(&mut self) -> String {
        let mut all = Vec::new();
        for link in std::mem::take(&mut self.world.outbox.dirty) {
            let mut bytes = Vec::new();
            self.world.outbox.take(link, &mut bytes);
            all.extend(bytes);
        }
        String::from_utf8(all).unwrap()
    }

    fn at(&mut self, seconds: f64) -> String {
        self.world.pump((seconds * 1e9) as u64);
        self.all()
    }
}

#[test]
fn a_request_over_datagrams_is_repeated_until_it_is_answered_and_no_longer_than_timer_f() {
    let mut bed = datagram_bed("");
    bed.world.send_register(1);
    let first = bed.all();
    assert!(first.starts_with("REGISTER "), "{first}");
    let mut sent = Vec::new();
    for step in 1..400 {
        let seconds = f64::from(step) / 10.0;
        let again = bed.at(seconds);
        if !again.is_empty() {
            assert_eq!(again, first, "the same octets");
            sent.push(seconds);
        }
    }
    assert_eq!(sent[..5], [0.5, 1.5, 3.5, 7.5, 11.5]);
    assert!(sent.last().unwrap() < &32.0 && sent.len() == 10, "{sent:?}");
    assert_eq!(bed.world.counters.requests_given_up, 1);

    let mut bed = datagram_bed("");
    bed.world.send_register(1);
    let request = bed.all();
    bed.at(0.6);
    let via = request
        .lines()
        .find(|line| line.starts_with("Via"))
        .unwrap();
    let answer = format!(
        "SIP/2.0 200 OK\r\n{via}\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: c\r\n\
         CSeq: 1 REGISTER\r\nContact: <sip:127.0.0.1:5070;transport=udp>;expires=600000\r\n\
         Content-Length: 0\r\n\r\n"
    );
    bed.world.handle_datagram(bed.link, answer.as_bytes());
    bed.world.handle_datagram(bed.link, answer.as_bytes());
    assert_eq!(bed.world.counters.answers_again, 1);
    assert_eq!(bed.world.violations.total(), 0);
    for step in 7..400 {
        assert_eq!(bed.at(f64::from(step) / 10.0), "");
    }
}

// Proves: TX-7, SX-1
#[test]
fn a_2xx_over_datagrams_is_repeated_until_its_ack_and_a_repeated_bye_gets_the_same_answer() {
    let mut bed = datagram_bed("");
    for user in 0..2 {
        bed.world.send_deposit(user, 0);
        bed.world.send_register(user);
    }
    bed.all();
    let invite = udp(invite(1, 1, 0));
    bed.world.handle_datagram(bed.link, invite.as_bytes());
    let answers = bed.all();
    let answer = answers[answers.find("SIP/2.0 200").unwrap()..].to_owned();
    let count = |text: &str| text.matches(answer.as_str()).count();
    assert_eq!(count(&bed.at(0.51)), 1);
    assert_eq!(count(&bed.at(1.52)), 1);
    bed.world.handle_datagram(bed.link, invite.as_bytes());
    assert_eq!(count(&bed.all()), 1, "the INVITE came again");
    assert_eq!(bed.world.counters.answers_resent, 2);
    bed.world
        .handle_datagram(bed.link, udp(in_dialog("ACK", 1, 1, 1, 0)).as_bytes());
    for step in 16..400 {
        assert_eq!(count(&bed.at(f64::from(step) / 10.0)), 0);
    }
    let bye = udp(in_dialog("BYE", 2, 1, 1, 0));
    bed.world.handle_datagram(bed.link, bye.as_bytes());
    let first = bed.all();
    bed.world.handle_datagram(bed.link, bye.as_bytes());
    assert_eq!(bed.all(), first);
    assert!(first.starts_with("SIP/2.0 200 OK"), "{first}");
    assert_eq!(bed.world.counters.byes, 1);
}

/// A world that loses datagrams now and then, with one user registered. What the tests hand it is not lost.
fn lossy_bed() -> Bed {
    let mut bed = datagram_bed("loss = 1e-9\n");
    for user in 0..2 {
        bed.world.send_deposit(user, 0);
        bed.world.send_register(user);
    }
    bed.all();
    bed
}

impl Bed {
    /// A request of push number `n` to the one phone of user 1, by a datagram.
    fn datagram(&mut self, method: &str, n: u32) -> String {
        let text = match method {
            "INVITE" => invite(n, 1, 0),
            "ACK" => in_dialog(method, 1, n, 1, 0),
            _ => in_dialog(method, 2, n, 1, 0),
        };
        // The phone numbers its tags as it answers, and so are the pushes.
        self.take(self.link, &udp(text));
        self.all()
    }
}

// Proves: DLG-1, DLG-6, RSP-31
#[test]
fn a_bye_that_was_lost_and_comes_late_is_judged_by_its_own_session() {
    let mut bed = lossy_bed();
    for (n, at) in [(1, 0.0), (2, 0.1), (3, 3.0)] {
        bed.at(at);
        bed.datagram("INVITE", n);
        bed.datagram("ACK", n);
    }
    // They were sent again after 0.5, 1.5, 3.5 s and so on; one got through.
    bed.at(7.6);
    for n in [2, 1] {
        let answer = bed.datagram("BYE", n);
        assert!(answer.starts_with("SIP/2.0 200 OK"), "{answer}");
    }
    assert_eq!(bed.broken(), [""; 0]);
    let counters = bed.world.counters;
    let counts = (counters.invites_crossed, counters.byes_late);
    assert_eq!((counts, counters.pushes), ((2, 2), 2));
    // The session that stands has not ended by it.
    bed.datagram("BYE", 3);
    assert_eq!((bed.broken(), bed.world.counters.pushes), (vec![], 3));
    bed.at(7.6 + 34.1);
    assert_eq!(bed.world.known_crossings(), 0, "none can come any more");
    bed.world.finish();
    assert_eq!(bed.broken(), [""; 0]);
}

// Proves: DLG-1, DLG-5
#[test]
fn a_late_bye_that_is_wrong_is_found_wrong() {
    let late = |spoil: fn(String) -> String| {
        let mut bed = lossy_bed();
        for n in [1, 2] {
            bed.datagram("INVITE", n);
            bed.datagram("ACK", n);
        }
        bed.at(2.5);
        let bye = spoil(udp(in_dialog("BYE", 2, 1, 1, 0)));
        bed.take(bed.link, &bye);
        bed.broken()
    };
    assert_eq!(late(|bye| bye), [""; 0]);
    assert_eq!(late(|bye| bye.replace("2 BYE", "1 BYE")), ["DLG-5"]);
    assert_eq!(late(|bye| bye.replace("tag=pf1", "tag=pf2")), ["DLG-1"]);
    let of_none = late(|bye| bye.replace("2b1@", "2b9@"));
    assert_eq!(of_none, ["DLG-1"]);
}

#[test]
fn an_ack_that_comes_behind_the_next_invite_ends_the_repeats_of_its_own_2xx() {
    let mut bed = lossy_bed();
    let answers = bed.datagram("INVITE", 1);
    let first = &answers[answers.find("SIP/2.0 200").unwrap()..];
    bed.at(0.1);
    bed.datagram("INVITE", 2);
    assert!(bed.at(0.51).contains(first), "its ACK was lost");
    bed.datagram("ACK", 1);
    bed.datagram("ACK", 1);
    assert!(!bed.at(1.6).contains(first));
    assert_eq!(bed.world.counters.repeats, 1);
    for (method, n) in [("ACK", 2), ("BYE", 1), ("BYE", 2)] {
        bed.datagram(method, n);
    }
    assert_eq!((bed.broken(), bed.world.counters.pushes), (vec![], 2));
}

#[test]
fn a_bye_stands_for_an_ack_that_was_lost() {
    let mut bed = lossy_bed();
    bed.datagram("INVITE", 1);
    bed.datagram("BYE", 1);
    for step in 1..20 {
        assert!(!bed.at(f64::from(step) / 2.0).contains("SIP/2.0 200"));
    }
    assert_eq!(bed.broken(), [""; 0]);
}

#[test]
fn sessions_whose_bye_may_come_late_are_bounded() {
    const MOST: u32 = 65_536;
    let mut bed = lossy_bed();
    for n in 1..=MOST + 2 {
        bed.datagram("INVITE", n);
        bed.datagram("ACK", n);
    }
    assert_eq!(bed.world.known_crossings(), MOST as usize);
    assert!(bed.datagram("BYE", 1).starts_with("SIP/2.0 481"));
    assert!(bed.datagram("BYE", 2).starts_with("SIP/2.0 200"));
    let late = bed.world.counters.byes_late;
    assert_eq!((bed.broken(), late), (vec![], 1));
}

/// What a phone of the first world says to INVITE number `n`, and the 200 of it.
fn answered(bed: &mut Bed, n: u32) -> String {
    let link = bed.link;
    bed.world
        .handle_sip(link, invite(n, 3, 1).as_bytes())
        .unwrap();
    let answers = String::from_utf8(bed.drain()).unwrap();
    answers[answers.find("SIP/2.0 200").unwrap()..].to_owned()
}

#[test]
fn a_2xx_over_a_stream_is_repeated_until_its_ack_too() {
    let mut bed = Bed::new("signalling");
    bed.all();
    let answer = answered(&mut bed, 1);
    let mut sent = Vec::new();
    for step in 1..400 {
        let seconds = f64::from(step) / 10.0;
        let again = bed.at(seconds);
        if !again.is_empty() {
            assert_eq!(again, answer, "the same octets");
            sent.push(seconds);
        }
    }
    assert_eq!(sent[..5], [0.5, 1.5, 3.5, 7.5, 11.5]);
    assert!(sent.last().unwrap() < &32.0 && sent.len() == 10, "{sent:?}");
    assert_eq!(bed.world.counters.requests_given_up, 1);

    let mut bed = Bed::new("signalling");
    bed.all();
    answered(&mut bed, 1);
    let link = bed.link;
    let take = |bed: &mut Bed, method, cseq, n| {
        let text = in_dialog(method, cseq, n, 3, 1);
        bed.world.handle_sip(link, text.as_bytes()).unwrap();
    };
    for seconds in [0.51, 1.51, 3.51] {
        assert!(!bed.at(seconds).is_empty());
    }
    take(&mut bed, "ACK", 1, 1);
    for step in 36..400 {
        assert_eq!(bed.at(f64::from(step) / 10.0), "");
    }
    // The engine answers each copy, when it comes to it.
    take(&mut bed, "ACK", 1, 1);
    take(&mut bed, "BYE", 2, 1);
    take(&mut bed, "ACK", 1, 1);
    answered(&mut bed, 2);
    take(&mut bed, "ACK", 1, 1);
    take(&mut bed, "ACK", 1, 2);
    take(&mut bed, "BYE", 2, 2);
    let counters = bed.world.counters;
    assert_eq!((counters.pushes, counters.repeats), (2, 2));
    assert_eq!(bed.world.violations.total(), 0);
    bed.world.finish();
    assert_eq!(bed.world.violations.total(), 0);
    // That of one which was not repeated comes once.
    take(&mut bed, "ACK", 1, 2);
    assert_eq!(bed.world.violations.total(), 1);
}

// Proves: OK-0
#[test]
fn a_repeat_does_not_hide_that_an_ack_is_missing() {
    for (acks, lost, broken) in [(2, false, 0), (1, false, 1), (1, true, 0)] {
        let mut bed = Bed::new("signalling");
        bed.all();
        answered(&mut bed, 1);
        bed.at(0.51);
        for (method, cseq) in [("ACK", 1); 2][..acks].iter().chain(&[("BYE", 2)]) {
            let text = in_dialog(method, *cseq, 1, 3, 1);
            bed.world.handle_sip(bed.link, text.as_bytes()).unwrap();
        }
        if lost {
            bed.world.outbox.release(bed.link);
        }
        bed.world.finish();
        assert_eq!(bed.world.violations.total(), broken, "{acks} {lost}");
    }
}

#[test]
fn a_2xx_whose_stream_is_gone_is_repeated_by_another() {
    let mut bed = Bed::new("signalling");
    bed.all();
    let answer = answered(&mut bed, 1);
    bed.world.outbox.release(bed.link);
    assert_eq!(bed.at(0.51), answer);
    // Its number is used again, for media.
    let peer = "127.0.0.1:10".parse().unwrap();
    assert_eq!(bed.world.outbox.add(Protocol::Msrp, peer), bed.link);
    bed.world.pump(1_520_000_000);
    assert!(bed.world.outbox.peek(bed.link).buffer.is_empty());
    assert_eq!(bed.all(), answer);
}

#[test]
fn a_run_does_not_end_between_a_2xx_and_its_ack_but_in_time_without_one() {
    // The engine begins a push in the last moment of a run.
    let late = |ack_at: Option<f64>| {
        let mut bed = Bed::new("signalling");
        bed.all();
        bed.world.setup.sweep = false;
        bed.world.enter(Step::Drain);
        bed.world.director.deposits_open = 0;
        bed.at(0.0);
        bed.at(0.29);
        answered(&mut bed, 1);
        for step in 30..2000 {
            let at = f64::from(step) / 100.0;
            if ack_at == Some(at) {
                let ack = in_dialog("ACK", 1, 1, 3, 1);
                bed.world.handle_sip(bed.link, ack.as_bytes()).unwrap();
            }
            bed.at(at);
            if bed.world.director.step == Step::Done {
                // One to another phone comes when the run is over.
                let later = invite(2, 4, 1);
                bed.world.handle_sip(bed.link, later.as_bytes()).unwrap();
                bed.world.finish();
                let found = bed.world.violations.broken().map(|(rule, _)| rule.id());
                return (at, found.collect::<Vec<_>>());
            }
        }
        panic!("the run goes on");
    };
    let (at, broken) = late(Some(0.4));
    assert!(
        (0.4..0.45).contains(&at) && broken.is_empty(),
        "{at} {broken:?}"
    );
    let (at, broken) = late(None);
    assert!((10.0..10.7).contains(&at), "{at}");
    assert_eq!(broken, ["OK-0"]);
}

#[test]
fn answers_that_are_acknowledged_share_their_memory() {
    let mut bed = Bed::new("signalling");
    bed.all();
    let link = bed.link;
    for n in 1..=1000 {
        answered(&mut bed, n);
        for (method, cseq) in [("ACK", 1), ("BYE", 2)] {
            let text = in_dialog(method, cseq, n, 3, 1);
            bed.world.handle_sip(link, text.as_bytes()).unwrap();
        }
        bed.at(f64::from(n) / 1e6);
        assert_eq!(bed.world.next_due(), None, "nothing waits");
    }
    assert_eq!(bed.world.kept_answers(), 1);
}

#[test]
fn lost_doubled_and_late_datagrams_are_counted_and_only_those() {
    let mut bed = datagram_bed("loss = 0.2\nduplicate = 0.2\ndelay = 0.2\ndelay_ms = 5.0\n");
    for user in 0..400 {
        bed.world.send_register(user % 4);
    }
    let registers = bed.all().matches("REGISTER sip:").count() as u64;
    bed.at(0.1);
    let counters = bed.world.counters;
    let lost = counters.chaos_dropped + counters.chaos_delayed;
    assert_eq!(registers + lost, 400 + counters.chaos_doubled);
    for count in [
        counters.chaos_dropped,
        counters.chaos_doubled,
        counters.chaos_delayed,
    ] {
        assert!((50..110).contains(&count), "{counters:?}");
    }
}

/// CPU time of this thread, nanoseconds: the machine may be shared.
fn thread_time() -> u128 {
    if std::env::var_os("PUSHES").is_some() {
        // Counted by a profiler, which need not know this clock.
        return 0;
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u128 * 1_000_000_000 + time.tv_nsec as u128
}

/// One turn, with a name that a profiler can be told to count.
#[inline(never)]
fn counted(world: &mut World, link: LinkId, text: &str) {
    world.handle_sip(link, text.as_bytes()).unwrap();
}

/// CPU of the state machine alone; run by hand in release mode.
#[test]
#[ignore = "a measurement"]
fn cost_per_push() {
    const BATCH: u32 = 64;
    let mut bed = Bed::new("signalling");
    bed.drain();
    let link = bed.link;
    let (mut invites, mut acks, mut byes) = (0u128, 0u128, 0u128);
    let total = std::env::var("PUSHES").map_or(400_000u32, |text| text.parse().unwrap());
    for start in (0..total).step_by(BATCH as usize) {
        let whose = |n: u32| (n / 4 % 20_000, (n % 4) as u8);
        let range = start + 1..start + 1 + BATCH;
        let text: String = range
            .clone()
            .map(|n| invite(n, whose(n).0, whose(n).1))
            .collect();
        let clock = thread_time();
        counted(&mut bed.world, link, &text);
        invites += thread_time() - clock;
        bed.drain();
        for (method, cseq, spent) in [("ACK", 1, &mut acks), ("BYE", 2, &mut byes)] {
            let text: String = range
                .clone()
                .map(|n| in_dialog(method, cseq, n, whose(n).0, whose(n).1))
                .collect();
            let clock = thread_time();
            counted(&mut bed.world, link, &text);
            *spent += thread_time() - clock;
            bed.drain();
        }
    }
    assert_eq!(
        bed.world.violations.total(),
        0,
        "{:?}",
        bed.world.violations.offenders().first()
    );
    let per = |spent: u128| spent / u128::from(total);
    eprintln!(
        "INVITE {} ns, ACK {} ns, BYE {} ns",
        per(invites),
        per(acks),
        per(byes)
    );
}
