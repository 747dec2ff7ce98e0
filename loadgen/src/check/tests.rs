//! One message after the pattern of the worked examples, and single mutations of it: each trips
//! exactly the rule it breaks.

use super::dialog::{Dialog, DialogCheck};
use super::invite::{InviteCheck, Policy};
use super::sdp::DirectionLevel;
use super::{Bench, Hasher, subscribe};
use crate::identity::Names;
use crate::rules::{Rule, Violations};
use crate::scan::{Scanned, Table, scan};

const INVITE: &str = "INVITE sip:+15550000007@ims.example.net;gr=urn:uuid:00000000-0000-1000-8000-000100000007 SIP/2.0\r\n\
Via: SIP/2.0/TCP pf1.ims.example.net:5060;branch=z9hG4bK-1-7a1f03c2d4e5b697;oc;oc-algo=\"loss,rate\"\r\n\
Max-Forwards: 70\r\n\
Route: <sip:127.0.0.1:5070;transport=tcp;lr>\r\n\
From: <sip:cpm-pf@ims.example.net>;tag=pf7d21c0aa\r\n\
To: <sip:+15550000007@ims.example.net>\r\n\
Call-ID: 5f0c6a1e9d2b4c7781aa@pf1.ims.example.net\r\n\
CSeq: 1 INVITE\r\n\
Contact: <sip:push@pf1.ims.example.net:5060;transport=tcp>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\";automata\r\n\
Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"\r\n\
P-Asserted-Identity: <sip:cpm-pf@ims.example.net>\r\n\
P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
P-Charging-Vector: icid-value=\"7c1e0f5a9b\";icid-generated-at=pf1.ims.example.net;orig-ioi=\"ims.example.net\"\r\n\
User-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\n\
Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS\r\n\
Supported: timer\r\n\
Session-Expires: 1800;refresher=uac\r\n\
Conversation-ID: 00000001-0000-4000-9000-000000000042\r\n\
Contribution-ID: 00000001-0000-4000-8000-000000000042\r\n\
Content-Type: application/sdp\r\n";

const SDP: &str = "v=0\r\n\
o=- 3973000001 1 IN IP4 192.0.2.10\r\n\
s=-\r\n\
c=IN IP4 192.0.2.10\r\n\
t=0 0\r\n\
m=message 2855 TCP/MSRP *\r\n\
a=path:msrp://192.0.2.10:2855/k9Qv3tZs1mXbW7aEoR2y;tcp\r\n\
a=accept-types:message/cpim\r\n\
a=accept-wrapped-types:*\r\n\
a=setup:actpass\r\n\
a=msrp-cema\r\n\
a=sendonly\r\n";

fn policy() -> Policy {
    let icsi = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred";
    Policy {
        cema: true,
        level: DirectionLevel::Media,
        transport: b"TCP",
        path_mtu: None,
        icsi: icsi.to_owned(),
        icsi_encoded: icsi.replace(':', "%3A").into_bytes(),
        scscf: b"127.0.0.1:5070".to_vec(),
    }
}

fn whole(head: &str, body: &str) -> String {
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Rules broken by each of `messages` in turn, before one checker.
fn judge(checker: &mut InviteCheck, text: &str) -> Vec<Rule> {
    let names = Names::new("ims.example.net", 1);
    let mut violations = Violations::default();
    let mut table = Table::default();
    let Scanned::Message(message, length) = scan(text.as_bytes(), &mut table) else {
        panic!("not a message: {text}");
    };
    assert_eq!(length, text.len());
    let mut bench = Bench::new(&mut violations, message.bytes);
    let _ = checker.check(&names, &message, &mut bench);
    violations.broken().map(|(rule, _)| rule).collect()
}

/// A second message with other identifiers.
fn fresh(text: &str) -> String {
    text.replace("7a1f03c2d4e5b697", "8b1f03c2d4e5b698")
        .replace("pf7d21c0aa", "pf7d21c0ab")
        .replace("5f0c6a1e9d2b4c7781aa", "5f0c6a1e9d2b4c7781ab")
        .replace("7c1e0f5a9b", "7c1e0f5a9c")
        .replace("k9Qv3tZs1mXbW7aEoR2y", "k9Qv3tZs1mXbW7aEoR2z")
}

// Proves: AMB-4
#[test]
fn a_push_with_another_service_is_right_only_where_the_scenario_says_so() {
    let text = whole(INVITE, SDP).replace("cpm.deferred", "cpm.largemsg");
    let broken = judge(&mut InviteCheck::new(policy(), 10), &text);
    assert_eq!(broken, [Rule::PushB, Rule::PushD, Rule::PushJ]);
    let mut both = policy();
    both.icsi = format!(
        "{},{}",
        both.icsi,
        both.icsi.replace("deferred", "largemsg")
    );
    both.icsi_encoded = both.icsi.replace(':', "%3A").into_bytes();
    let mut checker = InviteCheck::new(both, 10);
    assert_eq!(judge(&mut checker, &text), []);
    let neither = text.replace("cpm.largemsg", "cpm.session");
    assert!(!judge(&mut checker, &neither).is_empty());
}

// Proves: PUSH-a, PUSH-b, PUSH-b1, PUSH-b2, PUSH-c, PUSH-d, PUSH-e, PUSH-f, PUSH-f1, PUSH-f2
// Proves: PUSH-f3, PUSH-g, PUSH-h, PUSH-i, PUSH-j, PUSH-k, PUSH-l, IMS-1, IMS-6, TX-8, NH-4
#[test]
fn each_mutation_of_the_header_section_trips_exactly_its_rule() {
    let cases: &[(&str, &str, Rule)] = &[
        (
            "8000-000100000007 SIP",
            "8000-0001000000AB SIP",
            Rule::PushA,
        ),
        (";gr=urn:uuid", ";user=phone;gr=urn:uuid", Rule::Reg9),
        ("Accept-Contact: *;+g", "Subject: *;+g", Rule::PushB),
        (
            "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp",
            "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A4gpp",
            Rule::PushB,
        ),
        ("Accept-Contact: *;", "Accept-Contact: x;", Rule::PushB),
        (
            "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3A",
            "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn:",
            Rule::PushB1,
        ),
        (
            "Accept-Contact: *",
            "Accept-Contact: *;require",
            Rule::PushB2,
        ),
        (
            "Accept-Contact: *",
            "Accept-Contact: *;explicit",
            Rule::PushB2,
        ),
        ("CPM-serv/OMA2.2", "CPM-serv/2.2", Rule::PushC),
        ("User-Agent: ", "X-Agent: ", Rule::PushC),
        (
            "tcp>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"",
            "tcp>",
            Rule::PushD,
        ),
        (";automata", "", Rule::PushE),
        (";automata", ";automata=\"FALSE\"", Rule::PushE),
        ("Session-Expires: 1800", "Session-Expires: 89", Rule::PushF),
        ("Session-Expires: 1800;refresher=uac\r\n", "", Rule::PushF),
        (";refresher=uac", ";refresher=uas", Rule::PushF1),
        (";refresher=uac", "", Rule::PushF1),
        ("Supported: timer", "Supported: path", Rule::PushF2),
        (
            "Supported: timer",
            "Supported: timer\r\nRequire: timer",
            Rule::PushF3,
        ),
        (
            "Supported: timer",
            "Supported: timer\r\nProxy-Require: timer",
            Rule::PushF3,
        ),
        ("Supported: timer", "Supported: timer, 100rel", Rule::PushL),
        ("application/sdp", "text/plain", Rule::PushG),
        (
            "Route: <sip:127.0.0.1:5070",
            "Route: <sip:127.0.0.1:5071",
            Rule::PushH,
        ),
        (";lr>", ">", Rule::PushH),
        ("Route: ", "X-Route: ", Rule::PushH),
        (";lr>", ";lr;orig>", Rule::Ims1),
        ("Conversation-ID: ", "X-ID: ", Rule::PushI),
        (
            "8000-000000000042\r\n",
            "8000-000000000043\r\n",
            Rule::PushI,
        ),
        ("P-Asserted-Identity", "P-Preferred-Identity", Rule::PushJ),
        ("Service: urn:urn-7", "Service: urn%3Aurn-7", Rule::PushJ),
        ("icid-value=", "icid-walue=", Rule::PushK),
        (";orig-ioi=\"ims.example.net\"", "", Rule::PushK),
        ("Max-Forwards: 70", "Max-Forwards: 69", Rule::PushL),
        (
            "To: <sip:+15550000007@ims.example.net>",
            "To: <sip:+15550000007@ims.example.net>;tag=x",
            Rule::PushL,
        ),
        (
            "To: <sip:+15550000007@",
            "To: <sip:+15550000008@",
            Rule::PushL,
        ),
        (";tag=pf7d21c0aa", "", Rule::PushL),
        ("CSeq: 1 INVITE", "CSeq: 2147483648 INVITE", Rule::PushL),
        (
            "Allow: INVITE, ACK, CANCEL, BYE",
            "Allow: INVITE, ACK, CANCEL",
            Rule::PushL,
        ),
        (
            "User-Agent",
            "P-Access-Network-Info: x\r\nUser-Agent",
            Rule::Ims6,
        ),
        ("z9hG4bK", "z9hG4bX", Rule::Tx8),
        ("Via: SIP/2.0/TCP", "Via: SIP/2.0/UDP", Rule::Nh4),
    ];
    for (from, to, rule) in cases {
        // The checker has seen a good message before: known-good values must not hide a bad one.
        let mut checker = InviteCheck::new(policy(), 1000);
        assert_eq!(judge(&mut checker, &whole(INVITE, SDP)), []);
        assert!(INVITE.contains(from), "{from}");
        let next = fresh(&INVITE.replacen(from, to, 1));
        let broken = judge(&mut checker, &whole(&next, &fresh(SDP)));
        assert_eq!(broken, [*rule], "{from} -> {to}");
        let mut checker = InviteCheck::new(policy(), 1000);
        let broken = judge(&mut checker, &whole(&INVITE.replacen(from, to, 1), SDP));
        assert_eq!(broken, [*rule], "{from} -> {to}, first message");
    }
}

// Proves: SDP-1, SDP-2, SDP-3, SDP-4, SDP-5, SDP-6, SDP-7, SDP-8, SDP-9, SDP-10, PUSH-g.i/ii
#[test]
fn each_mutation_of_the_offer_trips_exactly_its_rule() {
    let cases: &[(&str, &str, Rule)] = &[
        (
            "s=-\r\nc=IN IP4 192.0.2.10\r\n",
            "c=IN IP4 192.0.2.10\r\ns=-\r\n",
            Rule::Sdp1,
        ),
        ("s=-\r\n", "s=-\n", Rule::Sdp1),
        ("t=0 0", "t=1 0", Rule::Sdp1),
        ("c=IN IP4", "c=IN IP6", Rule::Sdp1),
        ("o=- ", "o=pf ", Rule::Sdp2),
        ("o=- 3973000001", "o=- x", Rule::Sdp2),
        ("m=message 2855", "m=message 2856", Rule::Sdp3),
        ("TCP/MSRP *", "TCP/TLS/MSRP *", Rule::Sdp3),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 192.0.2.11", Rule::Sdp3),
        ("192.0.2.10:2855/", "192.0.2.10/", Rule::Sdp4),
        ("W7aEoR2y;tcp", "W7aEoR2y", Rule::Sdp4),
        ("/k9Qv3tZs1mXbW7aEoR2y", "/k9Qv3tZs1mXbW", Rule::Sdp4),
        ("types:message/cpim", "types:text/plain", Rule::Sdp5),
        ("wrapped-types:*", "wrapped-types:text/plain", Rule::Sdp6),
        ("a=msrp-cema", "a=max-size:x\r\na=msrp-cema", Rule::Sdp7),
        ("setup:actpass", "setup:passive", Rule::Sdp8),
        (
            "a=setup:actpass",
            "a=setup:actpass\r\na=connection:new",
            Rule::Sdp8,
        ),
        ("a=msrp-cema\r\n", "", Rule::Sdp9),
        ("a=sendonly\r\n", "", Rule::Sdp10),
        (
            "a=sendonly\r\n",
            "a=sendonly\r\na=sendonly\r\n",
            Rule::Sdp10,
        ),
        ("a=sendonly", "a=recvonly", Rule::PushGI),
        ("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n", Rule::Sdp10),
    ];
    for (from, to, rule) in cases {
        let mut checker = InviteCheck::new(policy(), 1000);
        assert!(SDP.contains(from), "{from}");
        let body = SDP.replacen(from, to, 1);
        let broken = judge(&mut checker, &whole(INVITE, &body));
        assert_eq!(broken, [*rule], "{from} -> {to}");
    }
    let session = SDP
        .replace("a=sendonly\r\n", "")
        .replace("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n");
    let mut checker = InviteCheck::new(policy(), 1000);
    assert_eq!(
        judge(&mut checker, &whole(INVITE, &session)),
        [Rule::PushGI]
    );
    let plain = SDP.replace("a=msrp-cema\r\n", "");
    let mut checker = InviteCheck::new(
        Policy {
            cema: false,
            ..policy()
        },
        1000,
    );
    assert_eq!(judge(&mut checker, &whole(INVITE, &plain)), []);
    assert_eq!(
        judge(&mut checker, &whole(&fresh(INVITE), &fresh(SDP))),
        [Rule::Sdp9]
    );
    let level = DirectionLevel::Session;
    let mut checker = InviteCheck::new(Policy { level, ..policy() }, 1000);
    assert_eq!(judge(&mut checker, &whole(INVITE, &session)), []);
    let head = INVITE.replace("Content-Type: application/sdp\r\n", "");
    let mut checker = InviteCheck::new(policy(), 1000);
    assert_eq!(judge(&mut checker, &whole(&head, "")), [Rule::PushG]);
}

// Proves: PUSH-0a, PUSH-k, TX-8, TX-12
#[test]
fn each_identifier_used_twice_is_seen() {
    let cases: &[(&str, &str, Rule)] = &[
        ("8b1f03c2d4e5b698", "7a1f03c2d4e5b697", Rule::Tx8),
        ("pf7d21c0ab", "pf7d21c0aa", Rule::Push0a),
        ("5f0c6a1e9d2b4c7781ab", "5f0c6a1e9d2b4c7781aa", Rule::Push0a),
        ("7c1e0f5a9c", "7c1e0f5a9b", Rule::PushK),
        ("k9Qv3tZs1mXbW7aEoR2z", "k9Qv3tZs1mXbW7aEoR2y", Rule::Push0a),
    ];
    for (from, to, rule) in cases {
        let mut checker = InviteCheck::new(policy(), 1000);
        let first = whole(INVITE, SDP);
        assert_eq!(judge(&mut checker, &first), []);
        assert_eq!(
            judge(&mut checker, &fresh(&first).replace(from, to)),
            [*rule],
            "{from}"
        );
    }
}

// Proves: NH-4
#[test]
fn a_long_request_over_udp_needs_a_known_path_mtu() {
    let text = whole(INVITE, SDP).replace("SIP/2.0/TCP", "SIP/2.0/UDP");
    let mut checker = InviteCheck::new(
        Policy {
            transport: b"UDP",
            ..policy()
        },
        1000,
    );
    assert_eq!(judge(&mut checker, &text), [Rule::Nh4]);
    let path_mtu = Some(65_535);
    let mut checker = InviteCheck::new(
        Policy {
            transport: b"UDP",
            path_mtu,
            ..policy()
        },
        1000,
    );
    assert_eq!(judge(&mut checker, &text), []);
}

const ACK: &str = "ACK sip:+15550000007@phones.ims.example.net:5060;transport=tcp;dev=0001 SIP/2.0\r\n\
Via: SIP/2.0/TCP pf1.ims.example.net:5060;branch=z9hG4bK-1-9c3e55d0b7a81f42;oc\r\n\
Max-Forwards: 70\r\n\
Route: <sip:mt@127.0.0.1:5070;transport=tcp;lr>\r\n\
Route: <sip:mt@pcscf1.ims.example.net:5060;lr>\r\n\
From: <sip:cpm-pf@ims.example.net>;tag=pf7d21c0aa\r\n\
To: <sip:+15550000007@ims.example.net>;tag=ph00000005\r\n\
Call-ID: 5f0c6a1e9d2b4c7781aa@pf1.ims.example.net\r\n\
CSeq: 1 ACK\r\n\
Content-Length: 0\r\n\r\n";

fn dialog() -> Dialog {
    let hasher = Hasher::default();
    Dialog {
        call_id: hasher.hash(1, b"5f0c6a1e9d2b4c7781aa@pf1.ims.example.net"),
        from_tag: hasher.hash(2, b"pf7d21c0aa"),
        branch: hasher.hash(3, b"z9hG4bK-1-7a1f03c2d4e5b697"),
        invite_cseq: 1,
        last_cseq: 1,
        serial: 5,
        ..Dialog::default()
    }
}

fn judge_dialog(text: &str, bye: bool) -> Vec<Rule> {
    let routes = [
        b"<sip:mt@127.0.0.1:5070;transport=tcp;lr>".to_vec(),
        b"<sip:mt@pcscf1.ims.example.net:5060;lr>".to_vec(),
    ];
    let mut checker = DialogCheck::new(b"TCP", routes);
    let mut violations = Violations::default();
    let mut table = Table::default();
    let Scanned::Message(message, _) = scan(text.as_bytes(), &mut table) else {
        panic!("not a message: {text}");
    };
    let mut bench = Bench::new(&mut violations, message.bytes);
    if bye {
        checker.bye(&message, &mut dialog(), &mut bench);
    } else {
        checker.ack(&message, &mut dialog(), &mut bench);
    }
    violations.broken().map(|(rule, _)| rule).collect()
}

// Proves: DLG-1, DLG-3, DLG-5, TX-8, PUSH-f2
#[test]
fn each_mutation_of_ack_and_bye_trips_exactly_its_rule() {
    assert_eq!(judge_dialog(ACK, false), []);
    let folded = ACK.replace("lr>\r\nRoute: ", "lr>, ");
    assert_eq!(
        judge_dialog(&folded, false),
        [],
        "one Route line with a list is the same"
    );
    let cases: &[(&str, &str, Rule)] = &[
        ("-1-9c3e55d0b7a81f42", "-1-7a1f03c2d4e5b697", Rule::Dlg3),
        ("CSeq: 1", "CSeq: 2", Rule::Dlg3),
        (
            "CSeq: 1 ACK",
            "Session-Expires: 90\r\nCSeq: 1 ACK",
            Rule::Dlg3,
        ),
        ("5f0c6a", "5f0c6b", Rule::Dlg1),
        ("tag=pf7d21c0aa", "tag=pf7d21c0ab", Rule::Dlg1),
        ("tag=ph00000005", "tag=ph00000006", Rule::Dlg1),
        (
            "Route: <sip:mt@pcscf1.ims.example.net:5060;lr>\r\n",
            "",
            Rule::Dlg1,
        ),
        (
            "mt@127.0.0.1:5070;transport=tcp;lr",
            "mt@127.0.0.1:5070;lr",
            Rule::Dlg1,
        ),
        ("z9hG4bK", "abcdefg", Rule::Tx8),
    ];
    for (from, to, rule) in cases {
        assert_eq!(
            judge_dialog(&ACK.replacen(from, to, 1), false),
            [*rule],
            "{from} -> {to}"
        );
    }
    let bye = ACK
        .replace("ACK sip", "BYE sip")
        .replace("CSeq: 1 ACK", "CSeq: 2 BYE\r\nSupported: timer");
    assert_eq!(judge_dialog(&bye, true), []);
    assert_eq!(
        judge_dialog(&bye.replace("CSeq: 2", "CSeq: 3"), true),
        [Rule::Dlg5]
    );
    assert_eq!(
        judge_dialog(&bye.replace("Supported: timer", "X: y"), true),
        [Rule::PushF2]
    );
    let reused = bye.replace("-1-9c3e55d0b7a81f42", "-1-7a1f03c2d4e5b697");
    assert_eq!(judge_dialog(&reused, true), [Rule::Tx8]);
}

const SUBSCRIBE: &str = "SUBSCRIBE sip:+15550000007@ims.example.net SIP/2.0\r\n\
Via: SIP/2.0/TCP pf1.ims.example.net:5060;branch=z9hG4bK-4-a0a1a2a3a4a5a6a7\r\n\
Max-Forwards: 70\r\n\
Route: <sip:127.0.0.1:5070;transport=tcp;lr>\r\n\
From: <sip:cpm-pf@ims.example.net>;tag=pfsub01\r\n\
To: <sip:+15550000007@ims.example.net>\r\n\
Call-ID: reg-0b7c5d1e2f@pf1.ims.example.net\r\n\
CSeq: 1 SUBSCRIBE\r\n\
Contact: <sip:push@192.0.2.10:5060;transport=tcp>\r\n\
Event: reg\r\n\
Accept: application/reginfo+xml\r\n\
Expires: 600000\r\n\
Supported: timer\r\n\
P-Asserted-Identity: <sip:cpm-pf@ims.example.net>\r\n\
Content-Length: 0\r\n\r\n";

fn judge_subscribe(text: &str) -> (Option<u32>, Vec<Rule>) {
    let names = Names::new("ims.example.net", 1);
    let mut violations = Violations::default();
    let mut table = Table::default();
    let Scanned::Message(message, _) = scan(text.as_bytes(), &mut table) else {
        panic!("not a message: {text}");
    };
    let mut bench = Bench::new(&mut violations, message.bytes);
    let user = subscribe::subscribe(&names, &message, b"TCP", &mut bench);
    (user, violations.broken().map(|(rule, _)| rule).collect())
}

// Proves: SUB-1, PUSH-f2
#[test]
fn each_mutation_of_a_subscribe_trips_exactly_its_rule() {
    assert_eq!(judge_subscribe(SUBSCRIBE), (Some(7), Vec::new()));
    for name in [
        "Route",
        "Contact",
        "Event",
        "Accept",
        "Expires",
        "P-Asserted-Identity",
    ] {
        let text = SUBSCRIBE.replace(&format!("\r\n{name}: "), "\r\nX-Gone: ");
        assert_eq!(
            judge_subscribe(&text),
            (Some(7), vec![Rule::Sub1]),
            "{name}"
        );
    }
    let text = SUBSCRIBE.replace("Supported", "X-Gone");
    assert_eq!(judge_subscribe(&text), (Some(7), vec![Rule::PushF2]));
}

#[test]
fn never_panics_on_mutated_invites() {
    let mut checker = InviteCheck::new(policy(), 1000);
    let names = Names::new("ims.example.net", 1);
    let mut table = Table::default();
    let mut state = 0x0dd0_5eed_1234_5678u64;
    let original = whole(INVITE, SDP).into_bytes();
    for _ in 0..20_000 {
        let mut bytes = original.clone();
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = (state % bytes.len() as u64) as usize;
            bytes[at] = (state >> 32) as u8;
        }
        if let Scanned::Message(message, _) = scan(&bytes, &mut table) {
            let mut violations = Violations::default();
            let mut bench = Bench::new(&mut violations, message.bytes);
            let _ = checker.check(&names, &message, &mut bench);
        }
    }
}
