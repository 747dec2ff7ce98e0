#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

use super::*;
use crate::base::limits::SDP_BYTES_MAX;

const SDP: Option<&[u8]> = Some(b"application/sdp");

macro_rules! flow {
    ($name:literal) => {
        body_of(include_bytes!(concat!("../../tests/data/flows/", $name)))
    };
}

fn body_of(message: &[u8]) -> &[u8] {
    let head = memchr::memmem::find(message, b"\r\n\r\n").expect("a head end");
    &message[head + 4..]
}

/// A good answer with one line changed: `from` replaced by `to`.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let text = core::str::from_utf8(flow!("f1-03-200-invite.txt")).expect("text");
    assert!(text.contains(from), "the edit must bite: {from}");
    text.replacen(from, to, 1).into_bytes()
}

fn judged(from: &str, to: &str) -> Result<(), SdpError> {
    judge_answer(&changed(from, to), SDP).map(|_| ())
}

// Proves: SDP-11, SDP-12, SDP-14
#[test]
fn judges_the_worked_answers() {
    let good = judge_answer(flow!("f1-03-200-invite.txt"), SDP).expect("acceptable");
    assert_eq!(good.host, b"198.51.100.7");
    assert_eq!(good.port, 2855);
    assert_eq!(
        good.path,
        b"msrp://198.51.100.7:2855/Zt4hVd0PqL8nKx2cJf6u;tcp"
    );
    assert_eq!(good.setup, Some(Setup::Active));
    assert_eq!(good.direction, Direction::Recvonly);
    assert!(good.cema);
    assert_eq!(good.role(Setup::Actpass), Ok(Role::Wait));

    let passive = judge_answer(flow!("f5-05-200-A.txt"), SDP).expect("acceptable");
    assert_eq!(passive.role(Setup::Actpass), Ok(Role::Connect));
    assert_eq!(passive.role(Setup::Active), Ok(Role::Connect));

    let port0 = judge_answer(flow!("f7-01-200-port0.txt"), SDP);
    assert_eq!(port0, Err(SdpError::Port0));
    let inactive = judge_answer(flow!("f7-02-200-inactive.txt"), SDP).expect("held");
    assert_eq!(inactive.direction, Direction::Inactive);
    let both = judge_answer(flow!("f7-03-200-sendrecv.txt"), SDP).expect("tolerated");
    assert_eq!(both.direction, Direction::Sendrecv);
    assert_eq!(
        judge_answer(flow!("f7-04-200-nopath.txt"), SDP),
        Err(SdpError::Path)
    );
    assert_eq!(
        judge_answer(flow!("f7-05-200-types.txt"), SDP),
        Err(SdpError::Type)
    );
}

// Proves: SDP-11, SDP-12, SDP-14, BAD-25
#[test]
fn refuses_each_wrong_line_with_its_own_code() {
    let path = "a=path:msrp://198.51.100.7:2855/Zt4hVd0PqL8nKx2cJf6u;tcp";
    let long_host = format!("a=path:msrp://{}:2855/s;tcp", "h".repeat(10_000));
    let many_uris = format!("a=path:{}", "msrp://h:1/s;tcp ".repeat(17).trim_end());
    let cases: &[(&str, &str, SdpError)] = &[
        ("v=0", "v=1", SdpError::None),
        ("v=0\r\n", "", SdpError::None),
        (
            "m=message 2855 TCP/MSRP *",
            "m=audio 2855 RTP/AVP 0",
            SdpError::Proto,
        ),
        (
            "m=message 2855 TCP/MSRP *",
            "m=message 2855 TCP/TLS/MSRP *",
            SdpError::Proto,
        ),
        (
            "m=message 2855",
            "m=audio 1 RTP/AVP 0\r\nm=message 2855",
            SdpError::Proto,
        ),
        (
            "m=message 2855",
            "m=message 99999999999999999999",
            SdpError::None,
        ),
        ("m=message 2855", "m=message 65536", SdpError::None),
        ("m=message 2855", "m=message -1", SdpError::None),
        ("m=message 2855", "m=message 2855/2", SdpError::None),
        (
            "m=message 2855 TCP/MSRP *",
            "m=message 2855",
            SdpError::None,
        ),
        ("m=message 2855 TCP/MSRP *\r\n", "", SdpError::None),
        (path, &long_host, SdpError::Path),
        (path, &many_uris, SdpError::Path),
        (path, "a=path:", SdpError::Path),
        (
            path,
            "a=path:msrps://198.51.100.7:2855/s;tcp",
            SdpError::Path,
        ),
        (
            path,
            "a=path:msrp://user@198.51.100.7:2855/s;tcp",
            SdpError::Path,
        ),
        (
            path,
            "a=path:msrp://198.51.100.7:2855/s;tcp#frag",
            SdpError::Path,
        ),
        (path, "a=path:msrp://198.51.100.7/s;tcp", SdpError::Path),
        (path, "a=path:msrp://198.51.100.7:0/s;tcp", SdpError::Path),
        (path, "a=path:msrp://198.51.100.7:2855;tcp", SdpError::Path),
        (
            path,
            "a=path:msrp://198.51.100.7:2855/s;udp",
            SdpError::Path,
        ),
        (path, "a=path:msrp://198.51.100.7:2855/s", SdpError::Path),
        (path, "a=path:msrp://[::1:2855/s;tcp", SdpError::Path),
        (
            path,
            "a=path:msrp://a:1/s;tcp\r\na=path:msrp://b:1/s;tcp",
            SdpError::Path,
        ),
        ("a=accept-types:message/cpim\r\n", "", SdpError::Type),
        ("message/cpim", "message/cpimx", SdpError::Type),
        ("a=setup:active", "a=setup:actpass", SdpError::Setup),
        ("a=setup:active", "a=setup:holdconn", SdpError::Setup),
        ("a=setup:active", "a=setup:sideways", SdpError::Setup),
        ("a=recvonly", "a=sendonly", SdpError::Dir),
        ("a=recvonly", "a=recvonly\r\na=inactive", SdpError::Dir),
        ("c=IN IP4 198.51.100.7\r\n", "", SdpError::Addr),
        (
            "c=IN IP4 198.51.100.7",
            "c=IN IP4 224.2.1.1/127/3",
            SdpError::Addr,
        ),
        ("c=IN IP4 198.51.100.7", "c=ATM NSAP 1", SdpError::Addr),
        ("a=recvonly", "a=max-size:1e9\r\na=recvonly", SdpError::None),
        ("s=-", "s=-\r\n\r\nx", SdpError::None),
        ("s=-", "no line", SdpError::None),
        ("s=-", "s=\0", SdpError::None),
        ("s=-", "s=a\rb", SdpError::None),
    ];
    for &(from, to, error) in cases {
        assert_eq!(
            judged(from, to),
            Err(error),
            "{from} -> {}",
            &to[..to.len().min(60)]
        );
    }
}

// Proves: SDP-11, SDP-20
#[test]
fn tolerates_what_does_no_harm() {
    for (from, to) in [
        ("message/cpim", "MESSAGE/CPIM text/plain"),
        ("message/cpim", "text/plain message/*"),
        ("message/cpim", "*"),
        ("m=message 2855", "m=message 9"),
        ("msrp://198.51.100.7", "MSRP://[2001:db8::7]"),
        ("msrp://198.51.100.7", "msrp://ue.example.net"),
        (
            "a=recvonly",
            "a=recvonly\r\na=connection:new\r\na=unknown\r\na=x:y",
        ),
        (
            "a=recvonly",
            "a=max-size:99999999999999999999999\r\na=recvonly",
        ),
        ("a=recvonly\r\n", "a=recvonly"),
        ("a=recvonly", "a=recvonly\r\na=recvonly"),
    ] {
        assert_eq!(judged(from, to), Ok(()), "{to}");
    }
    let bare_lf: Vec<u8> = flow!("f1-03-200-invite.txt")
        .iter()
        .copied()
        .filter(|&c| c != b'\r')
        .collect();
    assert!(judge_answer(&bare_lf, SDP).is_ok());
    // A direction at session level counts when the media has none, and gives way when it has.
    let body = changed("t=0 0", "t=0 0\r\na=inactive");
    assert_eq!(
        judge_answer(&body, SDP).expect("good").direction,
        Direction::Recvonly
    );
}

// Proves: SDP-20
#[test]
fn finds_the_description_in_a_multipart_body() {
    let sdp = flow!("f1-03-200-invite.txt");
    let mut body = b"preamble\r\n--b1\r\nContent-Type: text/plain\r\n\r\nv=0\r\n--b1\r\n".to_vec();
    body.extend_from_slice(b"Content-ID: <x>\r\ncontent-type: Application/SDP;x=y\r\n\r\n");
    body.extend_from_slice(sdp);
    body.extend_from_slice(b"\r\n--b1--\r\n");
    for kind in [
        &b"multipart/mixed;boundary=b1"[..],
        b"Multipart/Alternative; a=b; BOUNDARY=\"b1\"",
    ] {
        let answer = judge_answer(&body, Some(kind)).expect("found");
        assert_eq!(answer.port, 2855);
    }
    for (body, kind) in [
        (&body[..], Some(&b"multipart/mixed"[..])),
        (&body[..], Some(b"multipart/mixed;boundary=other")),
        (&body[..], Some(b"text/plain")),
        (&body[..], Some(b"application/sdpx")),
        (sdp, None),
        (b"", SDP),
        (b"", None),
        (b"\r\n", SDP),
    ] {
        assert_eq!(judge_answer(body, kind), Err(SdpError::None));
    }
}

// Proves: SDP-15, SDP-17
#[test]
fn connects_by_cema_to_c_and_m_and_else_to_the_first_path_uri() {
    let other = "c=IN IP4 203.0.113.9";
    let with = changed("c=IN IP4 198.51.100.7", other);
    let address = |body: &[u8]| judge_answer(body, SDP).expect("good").connect_address();
    assert_eq!(
        address(&with),
        Ok("203.0.113.9:2855".parse().expect("literal"))
    );
    let without = String::from_utf8(with.clone())
        .expect("text")
        .replace("a=msrp-cema\r\n", "");
    assert_eq!(
        address(without.as_bytes()),
        Ok("198.51.100.7:2855".parse().expect("literal"))
    );
    // Through relays the first URI is the place, and the whole path the To-Path.
    let relays = "a=path:msrp://192.0.2.77:9000/r;tcp msrp://198.51.100.7:2855/s;tcp";
    let text = changed(
        "a=path:msrp://198.51.100.7:2855/Zt4hVd0PqL8nKx2cJf6u;tcp",
        relays,
    );
    let answer = judge_answer(&text, SDP).expect("good");
    assert!(answer.has_relay());
    assert_eq!(
        answer.connect_address(),
        Ok("192.0.2.77:9000".parse().expect("literal"))
    );
    assert_eq!(answer.path, &relays.as_bytes()["a=path:".len()..]);
    assert_eq!(answer.first_path_uri(), b"msrp://192.0.2.77:9000/r;tcp");
    let name = changed("c=IN IP4 198.51.100.7", "c=IN IP4 ue.example.net");
    assert_eq!(address(&name), Err(SdpError::Addr));
}

// The criteria of SDP-16; the new offer is not sent yet.
#[test]
fn asks_for_the_cema_fallback_only_when_all_three_criteria_hold() {
    let strip = |body: Vec<u8>| {
        String::from_utf8(body)
            .expect("text")
            .replace("a=msrp-cema\r\n", "")
            .into_bytes()
    };
    let anchored = strip(changed("c=IN IP4 198.51.100.7", "c=IN IP4 203.0.113.9"));
    let judge = |body: &[u8]| {
        judge_answer(body, SDP)
            .expect("good")
            .needs_cema_fallback(Setup::Actpass)
    };
    assert!(judge(&anchored));
    assert!(judge(&strip(changed("m=message 2855", "m=message 4000"))));
    assert!(!judge(&strip(changed("m=message 2855", "m=message 9"))));
    assert!(!judge(&strip(changed("s=-", "s=-"))), "nothing differs");
    assert!(
        !judge(&changed("c=IN IP4 198.51.100.7", "c=IN IP4 203.0.113.9")),
        "cema known"
    );
    let passive = String::from_utf8(anchored)
        .expect("text")
        .replace("active", "passive");
    assert!(!judge(passive.as_bytes()), "we connect");
}

// Proves: SDP-14
#[test]
fn nobody_or_both_connecting_is_refused() {
    let with_setup = |line: &str| changed("a=setup:active\r\n", line);
    let table = [
        ("a=setup:active\r\n", Setup::Actpass, Ok(Role::Wait)),
        ("a=setup:active\r\n", Setup::Passive, Ok(Role::Wait)),
        ("a=setup:active\r\n", Setup::Active, Err(SdpError::Setup)),
        ("a=setup:passive\r\n", Setup::Actpass, Ok(Role::Connect)),
        ("a=setup:passive\r\n", Setup::Active, Ok(Role::Connect)),
        ("a=setup:passive\r\n", Setup::Passive, Err(SdpError::Setup)),
        ("", Setup::Actpass, Ok(Role::Connect)),
        ("", Setup::Passive, Err(SdpError::Setup)),
    ];
    for (line, offered, role) in table {
        let body = with_setup(line);
        let answer = judge_answer(&body, SDP).expect("good");
        assert_eq!(answer.role(offered), role, "{line} to {offered:?}");
    }
}

// Proves: SDP-19, SDP-18
#[test]
fn wrapped_types_and_sizes_follow_the_answer() {
    let any = judge_answer(flow!("f1-03-200-invite.txt"), SDP).expect("good");
    assert!(any.accepts_wrapped(b"image/png"));
    assert_eq!(any.max_size, None);
    let narrow = changed(
        "wrapped-types:*",
        "wrapped-types:text/plain image/*\r\na=max-size:500",
    );
    let narrow = judge_answer(&narrow, SDP).expect("good");
    assert!(narrow.accepts_wrapped(b"text/plain; charset=UTF-8"));
    assert!(narrow.accepts_wrapped(b"Image/PNG"));
    assert!(!narrow.accepts_wrapped(b"text/plainer"));
    assert!(!narrow.accepts_wrapped(b"imagex/png"));
    assert!(!narrow.accepts_wrapped(b""));
    assert_eq!(narrow.max_size, Some(500));
    let none = changed("a=accept-wrapped-types:*\r\n", "");
    let none = judge_answer(&none, SDP).expect("good");
    assert!(none.accepts_wrapped(b"message/cpim"));
    assert!(!none.accepts_wrapped(b"text/plain"));
}

// Proves: SDP-21
#[test]
fn the_guard_refuses_inner_addresses_and_well_known_ports() {
    let allowed = |text: &str| address_allowed(text.parse().expect("literal"), true);
    for good in [
        "198.51.100.7:2855",
        "198.51.100.7:9",
        "[2001:db8::1]:1024",
        "100.128.0.1:5000",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in [
        "127.0.0.1:2855",
        "198.51.100.7:22",
        "198.51.100.7:1023",
        "198.51.100.7:0",
        "0.0.0.0:2855",
        "0.1.2.3:2855",
        "10.0.0.1:2855",
        "172.16.0.1:2855",
        "192.168.1.1:2855",
        "169.254.169.254:2855",
        "100.64.0.1:2855",
        "224.0.0.1:2855",
        "240.0.0.1:2855",
        "255.255.255.255:2855",
        "[::]:2855",
        "[::1]:2855",
        "[::ffff:127.0.0.1]:2855",
        "[::ffff:10.0.0.1]:2855",
        "[64:ff9b::7f00:1]:2855",
        "[fe80::1]:2855",
        "[fec0::1]:2855",
        "[fd00::1]:2855",
        "[ff02::1]:2855",
    ] {
        assert!(!allowed(bad), "{bad}");
    }
    let open = |text: &str| address_allowed(text.parse().expect("literal"), false);
    assert!(open("127.0.0.1:22"));
    assert!(!open("127.0.0.1:0"));
    assert!(!open("0.0.0.0:2855"));
}

// Proves: BAD-25
#[test]
fn bounds_lines_and_size() {
    let lines = changed("a=recvonly", &"a=x\r\n".repeat(10_000));
    assert_eq!(judge_answer(&lines, SDP), Err(SdpError::None));
    let few = changed("a=recvonly", &"a=x\r\n".repeat(600));
    assert!(few.len() < SDP_BYTES_MAX);
    assert_eq!(judge_answer(&few, SDP), Err(SdpError::None));
    let big = changed("s=-", &format!("s={}", "x".repeat(SDP_BYTES_MAX)));
    assert_eq!(judge_answer(&big, SDP), Err(SdpError::None));
}

fn local() -> LocalMedia<'static> {
    LocalMedia {
        session: 3_973_000_001,
        version: 2,
        host: "192.0.2.10".parse().expect("literal"),
        port: 2855,
        msrp_session: b"k9Qv3tZs1mXbW7aEoR2y",
        accept_types: b"message/cpim",
        accept_wrapped_types: b"*",
        max_size: None,
        cema: true,
        role: Setup::Passive,
    }
}

// Part of DLG-10: the answer alone, not on the wire yet.
#[test]
fn answers_a_peers_offer_and_keeps_our_direction() {
    for (line, outcome, ours) in [
        ("a=sendrecv", OfferOutcome::Continue, "a=sendonly"),
        ("a=recvonly", OfferOutcome::Continue, "a=sendonly"),
        ("a=inactive", OfferOutcome::Paused, "a=inactive"),
        ("a=sendonly", OfferOutcome::Paused, "a=inactive"),
        ("a=other", OfferOutcome::Continue, "a=sendonly"),
    ] {
        let offer = changed("a=recvonly", line);
        let mut out = b"kept".to_vec();
        let answer = answer_offer(&offer, SDP, &local(), &mut out).expect("answerable");
        assert_eq!(answer.outcome, outcome, "{line}");
        assert_eq!(answer.peer.map(|peer| peer.port), Some(2855));
        let expected = format!(
            "keptv=0\r\no=- 3973000001 2 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\n\
             t=0 0\r\nm=message 2855 TCP/MSRP *\r\n\
             a=path:msrp://192.0.2.10:2855/k9Qv3tZs1mXbW7aEoR2y;tcp\r\n\
             a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:passive\r\n\
             a=msrp-cema\r\n{ours}\r\n"
        );
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}

// Part of DLG-10: the answer alone, not on the wire yet.
#[test]
fn unknown_media_lines_get_port_0_and_port_0_ends_the_stream() {
    let offer = changed(
        "m=message",
        "m=audio 4000 RTP/AVP 0 8\r\na=sendrecv\r\nm=message",
    );
    let mut out = Vec::new();
    let answer = answer_offer(&offer, SDP, &local(), &mut out).expect("answerable");
    assert_eq!(answer.outcome, OfferOutcome::Continue);
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("t=0 0\r\nm=audio 0 RTP/AVP 0 8\r\nm=message 2855 TCP/MSRP *\r\n"));

    let second = changed(
        "a=recvonly",
        "a=recvonly\r\nm=message 5000 TCP/MSRP *\r\na=inactive",
    );
    let mut out = Vec::new();
    let answer = answer_offer(&second, SDP, &local(), &mut out).expect("answerable");
    assert_eq!(answer.outcome, OfferOutcome::Continue);
    assert!(out.ends_with(b"a=sendonly\r\nm=message 0 TCP/MSRP *\r\n"));

    let ended = changed("m=message 2855", "m=message 0");
    let mut out = Vec::new();
    let answer = answer_offer(&ended, SDP, &local(), &mut out).expect("answerable");
    assert_eq!((answer.outcome, answer.peer), (OfferOutcome::Ended, None));
    assert!(memchr::memmem::find(&out, b"m=message 0 TCP/MSRP *").is_some());

    let mut out = Vec::new();
    let bad = changed("m=message 2855 TCP/MSRP *", "m=audio 1 RTP/AVP 0");
    assert_eq!(
        answer_offer(&bad, SDP, &local(), &mut out),
        Err(SdpError::Proto)
    );
    assert!(out.is_empty());
}

struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

// Proves: BAD-25
#[test]
fn no_mutation_panics_and_no_accepted_value_holds_a_line_end() {
    let base = flow!("f1-03-200-invite.txt");
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    let mut out = Vec::new();
    for _ in 0..20_000 {
        let mut body = base.to_vec();
        for _ in 0..=random.next() % 3 {
            let at = (random.next() as usize) % body.len();
            match random.next() % 4 {
                0 => body[at] = random.next() as u8,
                1 => drop(body.remove(at)),
                2 => body.insert(at, b"\r\n\0:= /;"[random.next() as usize % 8]),
                _ => body.truncate(at.max(8)),
            }
        }
        if let Ok(answer) = judge_answer(&body, SDP) {
            accepted += 1;
            let _ = answer.connect_address();
            let _ = answer.needs_cema_fallback(Setup::Actpass);
            for value in [answer.path, answer.accept_types, answer.host] {
                assert!(!value.iter().any(|c| b"\r\n\0".contains(c)));
            }
        }
        out.clear();
        let _ = answer_offer(&body, SDP, &local(), &mut out);
        let _ = judge_answer(&body, Some(b"multipart/mixed;boundary=\"0\""));
    }
    assert!(
        accepted > 1_000,
        "the mutations must leave some answers good: {accepted}"
    );
}
