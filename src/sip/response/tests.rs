use super::*;
use crate::sip::message::HeaderTable;
use crate::sip::parser::parse;

macro_rules! flow {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/data/flows/", $name))
    };
}

const SOURCE: &str = "192.0.2.20:5060";

fn source(text: &str) -> SocketAddr {
    text.parse().expect("literal")
}

struct Case<'a> {
    status: u16,
    to_tag: &'a [u8],
    extra: &'a [u8],
    body: &'a [u8],
}

const PLAIN: Case<'_> = Case {
    status: 200,
    to_tag: b"ours",
    extra: b"",
    body: b"",
};

fn answer(request: &[u8], from: &str, case: &Case<'_>) -> String {
    let mut table = HeaderTable::new();
    let message = parse(request, &mut table).expect("a good request");
    let mut out = Vec::new();
    respond(
        &message,
        source(from),
        case.status,
        "",
        case.to_tag,
        case.extra,
        case.body,
        &mut out,
    );
    String::from_utf8(out).expect("text")
}

fn request(via: &str, rest: &str) -> Vec<u8> {
    request_of("OPTIONS", via, rest)
}

fn request_of(method: &str, via: &str, rest: &str) -> Vec<u8> {
    format!(
        "{method} sip:a@b.example SIP/2.0\r\n{via}\r\nMax-Forwards: 70\r\n\
         From: <sip:x@y.example>;tag=f\r\nTo: <sip:a@b.example>\r\nCall-ID: c1\r\n\
         CSeq: 7 {method}\r\n{rest}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn via_of(response: &str) -> &str {
    let line = response.lines().find(|line| line.starts_with("Via: "));
    line.expect("a Via").trim_start_matches("Via: ")
}

// Proves: INT-2, ISC-1
#[test]
fn responses_equal_the_worked_flows() {
    let got = answer(
        flow!("f4-01-3p-register.txt"),
        SOURCE,
        &Case {
            to_tag: b"pf-reg-1",
            extra: b"Contact: <sip:scscf1.ims.example.net:5060;transport=tcp>;expires=600000\r\n\
                Server: CPM-serv/OMA2.2 volley/0.1.0\r\n",
            ..PLAIN
        },
    );
    assert_eq!(got.as_bytes(), flow!("f4-02-200-3p-register.txt"));
    let got = answer(flow!("f4-05-notify-full-2dev.txt"), SOURCE, &PLAIN);
    assert_eq!(got.as_bytes(), flow!("f4-06-200-notify.txt"));
    let got = answer(
        flow!("f6-01-message-in.txt"),
        SOURCE,
        &Case {
            status: 202,
            to_tag: b"pfm1",
            extra: b"Server: CPM-serv/OMA2.2 volley/0.1.0\r\n",
            ..PLAIN
        },
    );
    assert_eq!(got.as_bytes(), flow!("f6-02-202-message.txt"));
}

// Proves: SX-3
#[test]
fn received_and_rport_tell_where_the_request_came_from() {
    let cases = [
        ("SIP/2.0/UDP 192.0.2.20:5060;branch=z9hG4bKa", SOURCE, ""),
        (
            "SIP/2.0/UDP 192.0.2.21;branch=z9hG4bKa",
            SOURCE,
            ";received=192.0.2.20",
        ),
        (
            "SIP/2.0/TCP 192.0.2.21;branch=z9hG4bKa",
            SOURCE,
            ";received=192.0.2.20",
        ),
        (
            "SIP/2.0/UDP s.example;branch=z9hG4bKa",
            SOURCE,
            ";received=192.0.2.20",
        ),
        ("SIP/2.0/TCP s.example;branch=z9hG4bKa", SOURCE, ""),
        (
            "SIP/2.0/UDP 192.0.2.20;branch=z9hG4bKa",
            "[::ffff:192.0.2.20]:9",
            "",
        ),
        (
            "SIP/2.0/UDP [2001:DB8:0::1];branch=z9hG4bKa",
            "[2001:db8::1]:9",
            "",
        ),
        (
            "SIP/2.0/UDP [2001:db8::2];branch=z9hG4bKa",
            "[2001:db8::1]:9",
            ";received=2001:db8::1",
        ),
    ];
    for (via, from, added) in cases {
        let response = answer(&request(&format!("Via: {via}"), ""), from, &PLAIN);
        assert_eq!(via_of(&response), format!("{via}{added}"));
    }
    let asked = request(
        "Via: SIP/2.0/UDP 192.0.2.20;rport;branch=z9hG4bKa;x=\"a;b\"",
        "",
    );
    assert_eq!(
        via_of(&answer(&asked, "192.0.2.20:40000", &PLAIN)),
        "SIP/2.0/UDP 192.0.2.20;rport=40000;branch=z9hG4bKa;x=\"a;b\";received=192.0.2.20"
    );
    let forged = request(
        "Via: SIP/2.0/UDP 192.0.2.9;received=203.0.113.1;branch=z9hG4bKa",
        "",
    );
    assert_eq!(
        via_of(&answer(&forged, SOURCE, &PLAIN)),
        "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa;received=192.0.2.20"
    );
}

// Proves: SX-3
#[test]
fn udp_responses_go_to_the_port_asked_for() {
    for (via, want) in [
        (
            "SIP/2.0/UDP 192.0.2.9:5080;branch=z9hG4bKa",
            "192.0.2.20:5080",
        ),
        ("SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa", "192.0.2.20:5060"),
        (
            "SIP/2.0/UDP 192.0.2.9:5080;rport;branch=z9hG4bKa",
            "192.0.2.20:40000",
        ),
    ] {
        let bytes = request(&format!("Via: {via}"), "");
        let mut table = HeaderTable::new();
        let message = parse(&bytes, &mut table).expect("a good request");
        assert_eq!(
            reply_address(&message, source("192.0.2.20:40000")),
            source(want)
        );
    }
}

#[test]
fn every_via_is_copied_in_order_and_only_the_top_one_changes() {
    let bytes = request(
        "v: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa , SIP/2.0/TCP two.example;branch=z9hG4bKb\r\n\
         Via: SIP/2.0/UDP\r\n three.example;received=192.0.2.3;branch=z9hG4bKc",
        "",
    );
    let response = answer(&bytes, SOURCE, &PLAIN);
    let vias: Vec<&str> = response
        .lines()
        .filter(|line| line.starts_with("Via"))
        .collect();
    assert_eq!(
        vias,
        [
            "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa;received=192.0.2.20 , \
             SIP/2.0/TCP two.example;branch=z9hG4bKb",
            "Via: SIP/2.0/UDP three.example;received=192.0.2.3;branch=z9hG4bKc",
        ]
    );
}

#[test]
fn the_tag_is_added_once_and_never_to_a_100() {
    let via = "Via: SIP/2.0/TCP s.example;branch=z9hG4bKa";
    let fresh = request(via, "");
    assert!(answer(&fresh, SOURCE, &PLAIN).contains("To: <sip:a@b.example>;tag=ours\r\n"));
    let trying = Case {
        status: 100,
        ..PLAIN
    };
    let timed = request_of(
        "INVITE",
        via,
        "Timestamp: 54\r\nRecord-Route: <sip:p;lr>\r\n",
    );
    let text = answer(&timed, SOURCE, &trying);
    assert!(text.starts_with("SIP/2.0 100 Trying\r\n"));
    assert!(text.contains("To: <sip:a@b.example>\r\n") && text.contains("Timestamp: 54\r\n"));
    assert!(!text.contains("Record-Route"));
    let tagged = String::from_utf8(fresh).expect("text");
    let tagged = tagged.replace("b.example>\r\nCall", "b.example>;tag=old\r\nCall");
    let text = answer(tagged.as_bytes(), SOURCE, &PLAIN);
    assert!(text.contains("To: <sip:a@b.example>;tag=old\r\n") && !text.contains("ours"));
}

#[test]
fn record_route_is_copied_where_a_dialog_may_form() {
    let via = "Via: SIP/2.0/TCP s.example;branch=z9hG4bKa";
    let routes = "Record-Route: <sip:p1;lr>, <sip:p2;lr>\r\nRecord-Route: <sip:p3;lr>\r\n";
    for (method, status, copied) in [
        ("INVITE", 200, true),
        ("INVITE", 180, true),
        ("INVITE", 486, false),
        ("SUBSCRIBE", 200, true),
        ("MESSAGE", 200, false),
        ("BYE", 200, false),
    ] {
        let bytes = request_of(method, via, routes);
        let text = answer(&bytes, SOURCE, &Case { status, ..PLAIN });
        assert_eq!(text.contains(routes), copied, "{method} {status}");
    }
}

#[test]
fn a_body_is_counted_and_comes_last() {
    let bytes = request("Via: SIP/2.0/TCP s.example;branch=z9hG4bKa", "");
    let case = Case {
        extra: b"Content-Type: application/sdp\r\n",
        body: b"v=0\r\n",
        ..PLAIN
    };
    let text = answer(&bytes, SOURCE, &case);
    let end =
        "CSeq: 7 OPTIONS\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn every_status_has_a_phrase() {
    for status in 100..700 {
        let phrase = reason_phrase(status);
        assert!(!phrase.is_empty() && phrase.is_ascii(), "{status}");
    }
    assert_eq!(reason_phrase(481), "Call/Transaction Does Not Exist");
    assert_eq!(reason_phrase(499), reason_phrase(400));
}

/// A fold or list element of the request must not become a line of its own in the response.
#[test]
fn mutated_requests_add_no_lines_to_responses() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).expect("below a usize")
    };
    let base = flow!("f6-01-message-in.txt");
    let mut table = HeaderTable::new();
    let mut out = Vec::new();
    let mut answered = 0;
    for _ in 0..20_000 {
        let mut bytes = base.to_vec();
        for _ in 0..=random(3) {
            let at = random(400);
            match random(3) {
                0 => bytes[at] = b"\r\n\0;,\"<>\\ =:"[random(12)],
                1 => drop(bytes.remove(at)),
                _ => drop(bytes.splice(at..at, *b"\r\n ")),
            }
        }
        let Ok(message) = parse(&bytes, &mut table) else {
            continue;
        };
        if !message.is_request() {
            continue;
        }
        answered += 1;
        out.clear();
        respond(&message, source(SOURCE), 202, "", b"t", b"", b"", &mut out);
        let text = String::from_utf8_lossy(&out);
        let names = [
            "SIP/2.0 202",
            "Via: ",
            "From: ",
            "To: ",
            "Call-ID: ",
            "CSeq: ",
            "Content-L",
        ];
        let vias = message.header_lines(HeaderName::Via).count();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines.len(), names.len() + vias - 1 + 2, "{text}");
        for line in &lines[..lines.len() - 2] {
            assert!(names.iter().any(|name| line.starts_with(name)), "{text}");
            assert!(!line.contains(['\r', '\n']), "{text}");
        }
    }
    assert!(answered > 1_000, "{answered}");
}

#[test]
fn addresses_read_as_the_standard_library_reads_them() {
    let mut text = *b"192.0.2.10:";
    for at in 0..11 {
        for byte in *b"0129.:a[" {
            let kept = text[at];
            text[at] = byte;
            for end in 0..=11 {
                let host = &text[..end];
                let oracle = core::str::from_utf8(host).unwrap().parse().ok();
                let found = plain_ipv4(host);
                let expected = oracle.filter(IpAddr::is_ipv4);
                assert_eq!(found, expected, "{}", String::from_utf8_lossy(host));
            }
            text[at] = kept;
        }
    }
    for host in [
        "256.1.1.1",
        "1.1.1",
        "1.1.1.1.1",
        "01.1.1.1",
        "1..1.1",
        "0.0.0.0",
    ] {
        let oracle = host.parse::<IpAddr>().ok();
        assert_eq!(plain_ipv4(host.as_bytes()), oracle, "{host}");
    }
}
