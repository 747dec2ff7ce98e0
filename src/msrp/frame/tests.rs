#![expect(clippy::cast_possible_truncation, reason = "small numbers in tests")]

use super::*;

const BIND: &[u8] = include_bytes!("../golden/f1-05-msrp-bind-send.txt");
const BIND_200: &[u8] = include_bytes!("../golden/f1-06-msrp-bind-200.txt");
const SEND_1: &[u8] = include_bytes!("../golden/f1-07-msrp-send-1.txt");
const OK_1: &[u8] = include_bytes!("../golden/f1-08-msrp-200-1.txt");
const REPORT_1: &[u8] = include_bytes!("../golden/f1-09-msrp-report-1.txt");
const SEND_2A: &[u8] = include_bytes!("../golden/f1-10-msrp-send-2a.txt");
const SEND_2B: &[u8] = include_bytes!("../golden/f1-11-msrp-send-2b.txt");
const OK_2A: &[u8] = include_bytes!("../golden/f1-12-msrp-200-2a.txt");
const OK_2B: &[u8] = include_bytes!("../golden/f1-13-msrp-200-2b.txt");
const REPORT_2: &[u8] = include_bytes!("../golden/f1-14-msrp-report-2.txt");
const FIRST_SEND: &[u8] = include_bytes!("../golden/f5-07-msrp-first-send.txt");
const UNKNOWN_SESSION: &[u8] = include_bytes!("../golden/fa-01-msrp-unknown-session.txt");
const R481: &[u8] = include_bytes!("../golden/fa-02-msrp-481.txt");
const SECOND_CONN: &[u8] = include_bytes!("../golden/fa-03-msrp-second-conn.txt");
const R506: &[u8] = include_bytes!("../golden/fa-04-msrp-506.txt");
const R413: &[u8] = include_bytes!("../golden/fa-05-msrp-413.txt");
const UNKNOWN_METHOD: &[u8] = include_bytes!("../golden/fa-06-msrp-unknown-method.txt");
const R501: &[u8] = include_bytes!("../golden/fa-07-msrp-501.txt");

const GOLDEN: [&[u8]; 18] = [
    BIND,
    BIND_200,
    SEND_1,
    OK_1,
    REPORT_1,
    SEND_2A,
    SEND_2B,
    OK_2A,
    OK_2B,
    REPORT_2,
    FIRST_SEND,
    UNKNOWN_SESSION,
    R481,
    SECOND_CONN,
    R506,
    R413,
    UNKNOWN_METHOD,
    R501,
];

const OUR_URI: &[u8] = b"msrp://192.0.2.10:2855/k9Qv3tZs1mXbW7aEoR2y;tcp";
const PEER_URI: &[u8] = b"msrp://198.51.100.7:2855/Zt4hVd0PqL8nKx2cJf6u;tcp";
const OUR_PATH: OurPath<'_> = OurPath {
    prefix: b"msrp://192.0.2.10:2855/",
    session: b"k9Qv3tZs1mXbW7aEoR2y",
    suffix: b";tcp",
};

fn whole(bytes: &[u8]) -> Frame<'_> {
    match parse(bytes, 0) {
        Ok(Parsed::Frame { frame, len }) => {
            assert_eq!(len, bytes.len());
            frame
        }
        other => panic!("{other:?} of {}", bytes.escape_ascii()),
    }
}

/// The body of a golden SEND, cut out without the parser.
fn body_of(golden: &[u8]) -> &[u8] {
    let start = golden.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let end = golden
        .windows(9)
        .rposition(|w| w == b"\r\n-------")
        .unwrap();
    &golden[start..end]
}

fn error_of(bytes: &[u8]) -> FrameErrorKind {
    parse(bytes, 0).expect_err("framing is lost").kind
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One to four random changes: flips, cuts, copies, and pieces that mean something.
fn mutate(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
    const PIECES: [&[u8]; 22] = [
        b"\r\n",
        b"\r",
        b"\n",
        b"-------",
        b"$",
        b"+",
        b"#",
        b" ",
        b":",
        b"MSRP ",
        b"SEND",
        b"200",
        b"\0",
        b"*",
        b"/",
        b"18446744073709551616",
        b"To-Path: x\r\n",
        b"from-path:y\r\n",
        b"\r\n\r\n",
        b"\r\n-------t4Ke91XbQz07WmPd$\r\n",
        b"Byte-Range: 5-3/10\r\n",
        b"\xff",
    ];
    let mut bytes = seed.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len());
        let end = (at + rng.below(40)).min(bytes.len());
        match rng.below(5) {
            0 if !bytes.is_empty() => bytes[at] = rng.next() as u8,
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                let to = rng.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            3 => bytes.truncate(at),
            _ => {
                let piece = PIECES[rng.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

/// Feeds octet by octet; returns the verdict that a connection would reach.
fn trickle(bytes: &[u8]) -> Result<Parsed<'_>, FrameError> {
    let mut scanned = 0;
    for len in 1..=bytes.len() {
        match parse(&bytes[..len], scanned) {
            Ok(Parsed::Incomplete) => scanned = len,
            // Views of a prefix and of the whole are equal as bytes.
            verdict @ (Ok(Parsed::Frame { .. }) | Err(_)) => return verdict,
        }
    }
    Ok(Parsed::Incomplete)
}

// Proves: MSRP-1, MSRP-3, MSRP-5, MSRP-8, MSRP-17
#[test]
fn our_sends_are_the_golden_bytes() {
    let mut out = Vec::new();
    let bodies = [SEND_1, SEND_2A, SEND_2B].map(body_of);
    let base = SendFields {
        tid: b"t4Ke91XbQz07WmPd",
        to_path: PEER_URI,
        from_path: OUR_PATH,
        message_id: b"vM0000a1.u7F3kQ",
        start: 1,
        end: 493,
        total: 493,
        success_report: true,
        failure_report: true,
        content_type: b"message/cpim",
        body: bodies[0],
        continuation: Continuation::Complete,
    };
    encode_send(&base, &mut out);
    assert_eq!(out, SEND_1);
    out.clear();
    let second = SendFields {
        total: 3515,
        message_id: b"vM0000a2.p4C9tL",
        ..base
    };
    encode_send(
        &SendFields {
            tid: b"c1Rm84TfLq20VxNa",
            end: 2048,
            body: bodies[1],
            continuation: Continuation::More,
            ..second
        },
        &mut out,
    );
    assert_eq!(out, SEND_2A);
    out.clear();
    encode_send(
        &SendFields {
            tid: b"c2Hs17YwKd93GbUe",
            start: 2049,
            end: 3515,
            body: bodies[2],
            ..second
        },
        &mut out,
    );
    assert_eq!(out, SEND_2B);
    out.clear();
    encode_send(
        &SendFields {
            tid: b"aF7c2K91xTq4Wz80",
            to_path: b"msrp://198.51.100.7:2855/Oo3Pp4Qq5Rr6Ss7Tt8Uu;tcp",
            from_path: OurPath::whole(b"msrp://192.0.2.10:2855/Aa1Bb2Cc3Dd4Ee5Ff6Gg;tcp"),
            ..base
        },
        &mut out,
    );
    assert_eq!(out, FIRST_SEND);
    assert_eq!(bodies.map(<[u8]>::len), [493, 2048, 1467]);
}

// Proves: MSRP-1, MSRP-16, MSRP-21, MSRP-24, MSRP-26, BAD-27
#[test]
fn binds_reports_and_responses_are_the_golden_bytes() {
    let mut out = Vec::new();
    encode_bind(
        &BindFields {
            tid: b"b1ndA7c3e91f5d20",
            to_path: OUR_URI,
            from_path: OurPath::whole(PEER_URI),
            message_id: b"ue0bind0001",
        },
        &mut out,
    );
    assert_eq!(out, BIND);
    for (report, tid, message_id, total) in [
        (
            REPORT_1,
            &b"rpA7c3e91f5d2041"[..],
            &b"vM0000a1.u7F3kQ"[..],
            493,
        ),
        (REPORT_2, b"rpB2d8f04c6e1937", b"vM0000a2.p4C9tL", 3515),
    ] {
        out.clear();
        let range = ByteRange {
            start: 1,
            end: Some(total),
            total: Some(total),
        };
        let from_path = OurPath::whole(PEER_URI);
        let to_path = OUR_URI;
        let fields = ReportFields {
            tid,
            to_path,
            from_path,
            message_id,
            range,
            status: 200,
        };
        encode_report(&fields, &mut out);
        assert_eq!(out, report);
    }
    for (request, status, response) in [
        (BIND, 200, BIND_200),
        (SEND_1, 200, OK_1),
        (SEND_2A, 200, OK_2A),
        (SEND_2B, 200, OK_2B),
        (UNKNOWN_SESSION, 481, R481),
        (SECOND_CONN, 506, R506),
        (SEND_2A, 413, R413),
        (UNKNOWN_METHOD, 501, R501),
    ] {
        out.clear();
        let request = whole(request);
        let to = uri::first_uri(request.to_path);
        encode_response(&request, to, status, comment(status), &mut out);
        assert_eq!(out, response, "{status}");
    }
}

#[test]
fn golden_frames_are_read() {
    let send = whole(SEND_2A);
    assert_eq!(send.start, Start::Send);
    assert_eq!(send.tid, b"c1Rm84TfLq20VxNa");
    assert_eq!((send.to_path, send.from_path), (PEER_URI, OUR_URI));
    assert_eq!(send.message_id, Some(&b"vM0000a2.p4C9tL"[..]));
    let range = ByteRange {
        start: 1,
        end: Some(2048),
        total: Some(3515),
    };
    assert_eq!(send.byte_range, Some(range));
    assert!(send.success_report);
    assert_eq!(send.content_type, Some(&b"message/cpim"[..]));
    assert_eq!(send.body.unwrap().len(), 2048);
    assert_eq!(send.continuation, Continuation::More);
    assert_eq!(send.fault, None);
    assert_eq!(whole(BIND).body, None);
    assert_eq!(whole(R413).start, Start::Response(413));
    assert_eq!(whole(UNKNOWN_METHOD).start, Start::Other(b"NICKNAME"));
    let range = ByteRange {
        start: 1,
        end: Some(493),
        total: Some(493),
    };
    assert_eq!(
        whole(REPORT_1).report(),
        Some((&b"vM0000a1.u7F3kQ"[..], range, 200))
    );
    assert_eq!(whole(SEND_1).report(), None);
}

/// A frame with `head` lines after the paths and `rest` after them.
fn framed(start: &str, rest: &str) -> Vec<u8> {
    format!("MSRP abcd {start}\r\nTo-Path: msrp://a/1;tcp\r\nFrom-Path: msrp://b/2;tcp\r\n{rest}")
        .into_bytes()
}

// Proves: MSRP-26
#[test]
fn status_comments_header_case_and_unknown_headers_do_not_matter() {
    let bare = framed("200", "-------abcd$\r\n");
    assert_eq!(whole(&bare).start, Start::Response(200));
    let odd = framed(
        "SEND",
        "X-New: thing\r\nMESSAGE-id:  m1 \r\nbyte-range: 1-*/*\r\nsuccess-report: YES\r\n\
         Failure-Report: partial\r\nContent-TYPE: text/plain;a=b\r\n\r\nhi\r\n-------abcd+\r\n",
    );
    let frame = whole(&odd);
    assert_eq!(frame.message_id, Some(&b"m1"[..]));
    assert_eq!(
        frame.byte_range,
        Some(ByteRange {
            start: 1,
            end: None,
            total: None
        })
    );
    assert!(frame.success_report);
    assert_eq!(frame.failure_report, FailureReport::Partial);
    assert_eq!(frame.content_type, Some(&b"text/plain;a=b"[..]));
    assert_eq!(frame.body, Some(&b"hi"[..]));
    assert_eq!(frame.fault, None);
    for (text, namespace, code) in [("000 200", 0, 200), ("001 413 x y", 1, 413)] {
        let rest = format!("Message-ID: m\r\nStatus: {text}\r\n-------abcd$\r\n");
        let bytes = framed("REPORT", &rest);
        assert_eq!(whole(&bytes).status, Some(Status { namespace, code }));
    }
    let foreign = "Message-ID: m\r\nByte-Range: 1-1/1\r\nStatus: 001 200\r\n-------abcd$\r\n";
    assert_eq!(whole(&framed("REPORT", foreign)).report(), None);
}

// Proves: MSRP-21
#[test]
fn only_requests_are_answered_and_only_when_they_wish_it() {
    for (value, on_200, on_403) in [
        ("", true, true),
        ("Failure-Report: yes\r\n", true, true),
        ("Failure-Report: partial\r\n", false, true),
        ("Failure-Report: no\r\n", false, false),
        ("Failure-Report: maybe\r\n", true, true),
    ] {
        for (method, answered) in [("SEND", true), ("FUTURE", true), ("REPORT", false)] {
            let bytes = framed(method, &format!("Message-ID: m\r\n{value}-------abcd$\r\n"));
            let frame = whole(&bytes);
            assert_eq!(
                frame.wants_response(200),
                answered && on_200,
                "{method} {value}"
            );
            assert_eq!(
                frame.wants_response(403),
                answered && on_403,
                "{method} {value}"
            );
        }
    }
    assert!(!whole(OK_1).wants_response(400));
}

// Proves: BAD-26
#[test]
fn unsound_headers_are_faults_and_framing_goes_on() {
    for (rest, fault) in [
        ("Message-ID: m\r\nByte-Range: 5-3/10\r\n", Fault::ByteRange),
        ("Message-ID: m\r\nByte-Range: 0-3/10\r\n", Fault::ByteRange),
        ("Message-ID: m\r\nByte-Range: 11-*/10\r\n", Fault::ByteRange),
        ("Message-ID: m\r\nByte-Range: 1-11/10\r\n", Fault::ByteRange),
        ("Message-ID: m\r\nByte-Range: 2-1/0\r\n", Fault::ByteRange),
        (
            "Message-ID: m\r\nByte-Range: 1-18446744073709551616/*\r\n",
            Fault::ByteRange,
        ),
        ("Message-ID: m\r\nByte-Range: 1-2/3x\r\n", Fault::ByteRange),
        ("Message-ID: m\r\nByte-Range: *-2/3\r\n", Fault::ByteRange),
        ("Message-ID: m\r\nMessage-ID: n\r\n", Fault::Duplicate),
        (
            "Message-ID: m\r\nTo-Path: msrp://c/3;tcp\r\n",
            Fault::Duplicate,
        ),
        ("Message-ID: m\r\nnonsense\r\n", Fault::Header),
        ("Message-ID: m\r\n: x\r\n", Fault::Header),
        ("Byte-Range: 1-1/1\r\n", Fault::MessageId),
        ("Message-ID: m\r\nStatus: 2000\r\n", Fault::Status),
        ("Message-ID: m\r\nStatus: 000 2000\r\n", Fault::Status),
    ] {
        let bytes = framed("SEND", &format!("{rest}-------abcd$\r\n"));
        assert_eq!(whole(&bytes).fault, Some(fault), "{rest}");
        assert_eq!(fault.status(), 400);
    }
    for sound in [
        "1-0/0",
        "1-*/*",
        "1-0/*",
        "7-7/7",
        "1-*/18446744073709551615",
        "1-*/0",
    ] {
        let rest = format!("Message-ID: m\r\nByte-Range: {sound}\r\n-------abcd$\r\n");
        assert_eq!(whole(&framed("SEND", &rest)).fault, None, "{sound}");
    }
    let hops = "msrp://h/x;tcp ".repeat(MSRP_PATH_URIS_MAX + 1);
    let bytes = format!("MSRP abcd 200\r\nTo-Path: {hops}\r\nFrom-Path: a\r\n-------abcd$\r\n");
    assert_eq!(whole(bytes.as_bytes()).fault, Some(Fault::Path));
}

// Proves: BAD-26
#[test]
fn lost_framing_is_an_error() {
    use FrameErrorKind as Kind;
    let long = "x".repeat(33);
    for (bytes, kind) in [
        ("HTTP/1.1 200 OK".to_owned(), Kind::NotMsrp),
        ("MSRQ".to_owned(), Kind::NotMsrp),
        ("MSRP abc SEND\r\n".to_owned(), Kind::Tid),
        (format!("MSRP {long} SEND\r\n"), Kind::Tid),
        ("MSRP ab_d SEND\r\n".to_owned(), Kind::Tid),
        ("MSRP .bcd SEND\r\n".to_owned(), Kind::Tid),
        ("MSRP abcd\r\n".to_owned(), Kind::Tid),
        ("MSRP abcd \r\n".to_owned(), Kind::StartLine),
        ("MSRP abcd 2000 OK\r\n".to_owned(), Kind::StartLine),
        ("MSRP abcd 20 OK\r\n".to_owned(), Kind::StartLine),
        ("MSRP abcd SEND now\r\n".to_owned(), Kind::StartLine),
        ("MSRP abcd SEND\n".to_owned(), Kind::BareLf),
        ("MSRP abcd SEND\r\nX: a\rb\r\n".to_owned(), Kind::BareCr),
        ("MSRP abcd SEND\r\n-------abcd$\r\n".to_owned(), Kind::Path),
        (
            "MSRP abcd SEND\r\nTo-Path:\r\nFrom-Path: a\r\n\r\n".to_owned(),
            Kind::Path,
        ),
        (
            "MSRP abcd SEND\r\nTo-Path: a\r\n-------abcd!\r\n".to_owned(),
            Kind::EndLine,
        ),
        (
            "MSRP abcd SEND\r\n-------abce$\r\n".to_owned(),
            Kind::EndLine,
        ),
        (
            "MSRP abcd SEND\r\n-------abcd$x\r\n".to_owned(),
            Kind::EndLine,
        ),
        (
            format!("MSRP abcd SEND\r\n{}", "a: b\r\n".repeat(65)),
            Kind::TooManyHeaders,
        ),
        (
            format!("MSRP abcd SEND\r\nX: {}", "v".repeat(9000)),
            Kind::HeaderTooLong,
        ),
        (
            format!("MSRP abcd SEND\r\nX: {}\r\n", "v".repeat(9000)),
            Kind::HeaderTooLong,
        ),
    ] {
        assert_eq!(error_of(bytes.as_bytes()), kind, "{:.60}", bytes);
        let trickled = trickle(bytes.as_bytes()).expect_err("also octet by octet");
        assert_eq!(trickled.kind, kind, "{:.60}", bytes);
    }
}

// Proves: BAD-26
#[test]
fn a_body_without_end_is_cut_off_at_the_limit_and_answered_413() {
    let mut bytes = framed("SEND", "Message-ID: m\r\nContent-Type: a/b\r\n\r\n");
    let start = bytes.len();
    bytes.resize(start + MSRP_INBOUND_BYTES_MAX, b'\n');
    let mut fits = bytes.clone();
    fits.extend_from_slice(b"\r\n-------abcd$\r\n");
    assert_eq!(whole(&fits).body.unwrap().len(), MSRP_INBOUND_BYTES_MAX);
    assert_eq!(parse(&bytes, 0), Ok(Parsed::Incomplete));
    bytes.resize(start + MSRP_INBOUND_BYTES_MAX + 64, b'\n');
    let error = parse(&bytes, 0).expect_err("too long");
    assert_eq!(
        (error.kind, error.answer()),
        (FrameErrorKind::BodyTooLong, Some(413))
    );
    assert_eq!(trickle(&bytes), Err(error));
    let head = peek_request(&bytes).expect("there is somebody to answer");
    assert_eq!((head.tid, head.body), (&b"abcd"[..], None));
    fits.insert(start, b'x');
    assert_eq!(error_of(&fits), FrameErrorKind::BodyTooLong);
}

#[test]
fn an_empty_body_may_share_the_blank_lines_crlf() {
    for tail in ["\r\n\r\n-------abcd$\r\n", "\r\n-------abcd$\r\n"] {
        let bytes = framed(
            "SEND",
            &format!("Message-ID: m\r\nContent-Type: a/b\r\n{tail}"),
        );
        assert_eq!(whole(&bytes).body, Some(&b""[..]));
    }
}

// Proves: MSRP-2, BAD-31
#[test]
fn bodies_that_look_like_frames_arrive_unchanged() {
    const PIECES: [&[u8]; 12] = [
        b"-------",
        b"-",
        b"\r\n",
        b"\n",
        b"\r",
        b"abcdefgh",
        b"abcdefgi$",
        b"$\r\n",
        b"MSRP abcd SEND\r\n",
        b"\r\n\r\n-------abcdefgi+\r\n",
        b"INVITE sip:a@b SIP/2.0\r\n",
        b"\r\n-------abcdefgh",
    ];
    let mut rng = Rng(0x5eed_0001);
    let (mut collided, mut out) = (0, Vec::new());
    for _ in 0..20_000 {
        let mut body = Vec::new();
        for _ in 0..rng.below(12) {
            body.extend_from_slice(PIECES[rng.below(PIECES.len())]);
        }
        let naive = body.windows(15).any(|w| w == b"-------abcdefgh");
        assert_eq!(
            end_line_collides(&body, b"abcdefgh"),
            naive,
            "{}",
            body.escape_ascii()
        );
        let tid: &[u8] = if naive { b"zzzzzzzz" } else { b"abcdefgh" };
        collided += usize::from(naive);
        out.clear();
        let len = body.len() as u64;
        let fields = SendFields {
            tid,
            to_path: PEER_URI,
            from_path: OUR_PATH,
            message_id: b"m001",
            start: 1,
            end: len,
            total: len,
            success_report: true,
            failure_report: false,
            content_type: b"text/plain",
            body: &body,
            continuation: Continuation::Complete,
        };
        encode_send(&fields, &mut out);
        out.extend_from_slice(b"MSRP next");
        let Ok(Parsed::Frame { frame, len }) = parse(&out, 0) else {
            panic!("whole: {}", out.escape_ascii());
        };
        assert_eq!(frame.body, Some(&body[..]));
        assert_eq!(&out[len..], b"MSRP next");
    }
    assert!(collided > 1000, "the case was reached: {collided}");
}

/// Length, body and flag of a frame.
type Reading = (usize, Option<Vec<u8>>, u8);

/// What a plain reading of the grammar says: line by line, no cleverness.
fn oracle(bytes: &[u8]) -> Option<Result<Reading, ()>> {
    let mut at = 0;
    let mut next_line = || -> Option<Result<(usize, usize), ()>> {
        let from = at;
        loop {
            match *bytes.get(at)? {
                b'\n' => return Some(Err(())),
                b'\r' if *bytes.get(at + 1)? == b'\n' => break,
                b'\r' => return Some(Err(())),
                _ => at += 1,
            }
        }
        at += 2;
        Some(Ok((from, at - 2)))
    };
    if bytes.iter().zip(b"MSRP ").any(|(a, b)| a != b) {
        return Some(Err(()));
    }
    let Ok((from, end)) = next_line()? else {
        return Some(Err(()));
    };
    let line = &bytes[from..end];
    let words: Vec<&[u8]> = line.splitn(3, |&c| c == b' ').collect();
    let [_, tid, what] = words[..] else {
        return Some(Err(()));
    };
    let ident = |c: &u8| c.is_ascii_alphanumeric() || b".-+%=".contains(c);
    let tid_fits = (4..=32).contains(&tid.len()) && tid[0].is_ascii_alphanumeric();
    if !tid_fits || !tid.iter().all(ident) {
        return Some(Err(()));
    }
    let code = what.iter().take_while(|c| c.is_ascii_digit()).count();
    let response = code == 3 && matches!(what.get(3), None | Some(b' '));
    let method = |c: &u8| c.is_ascii_alphanumeric() || b"-_".contains(c);
    let request = !what.is_empty() && !what[0].is_ascii_digit() && what.iter().all(method);
    if !response && !request {
        return Some(Err(()));
    }
    let (mut to, mut from_path) = (false, false);
    loop {
        let Ok((from, end)) = next_line()? else {
            return Some(Err(()));
        };
        let line = bytes[from..end].to_ascii_lowercase();
        if line.is_empty() || line.starts_with(b"-------") {
            let known: Vec<Vec<u8>> = b"$+#"
                .iter()
                .map(|f| [b"-------", tid, &[*f]].concat())
                .collect();
            if !line.is_empty() && !known.iter().any(|k| k[..] == bytes[from..end]) {
                return Some(Err(()));
            }
            if !to || !from_path {
                return Some(Err(()));
            }
            if !line.is_empty() {
                return Some(Ok((end + 2, None, bytes[end - 1])));
            }
            let body = end + 2;
            for stop in body..bytes.len() {
                for flag in b"$+#" {
                    let tail = [b"\r\n-------", tid, &[*flag], b"\r\n"].concat();
                    if bytes[stop..].starts_with(&tail) {
                        let content = bytes[body..stop].to_vec();
                        return Some(Ok((stop + tail.len(), Some(content), *flag)));
                    }
                    if stop == body && bytes[stop..].starts_with(&tail[2..]) {
                        return Some(Ok((stop + tail.len() - 2, Some(Vec::new()), *flag)));
                    }
                }
            }
            return None;
        }
        let value =
            |name: &[u8]| line.starts_with(name) && !line[name.len()..].trim_ascii().is_empty();
        to |= value(b"to-path:");
        from_path |= value(b"from-path:");
    }
}

// Proves: BAD-26
#[test]
fn mutated_frames_agree_with_a_plain_reading_in_one_piece_and_octet_by_octet() {
    let mut rng = Rng(0x0123_4567_89ab_cdef);
    let mut seen = [0; 3];
    let seeds = [
        SEND_1,
        BIND,
        OK_1,
        REPORT_1,
        UNKNOWN_METHOD,
        R413,
        FIRST_SEND,
    ];
    for round in 0..20_000 {
        let mut bytes = mutate(&mut rng, seeds[round % seeds.len()]);
        if round % 3 == 0 {
            bytes.extend_from_slice(GOLDEN[rng.below(GOLDEN.len())]);
        }
        let verdict = parse(&bytes, 0);
        match (verdict, oracle(&bytes)) {
            (Ok(Parsed::Incomplete), None) => seen[0] += 1,
            (Err(_), Some(Err(()))) => seen[1] += 1,
            (Ok(Parsed::Frame { frame, len }), Some(Ok((want_len, body, flag)))) => {
                assert_eq!((len, frame.body), (want_len, body.as_deref()));
                assert_eq!(frame.continuation.as_byte(), flag);
                seen[2] += 1;
            }
            (got, want) => panic!("{got:?} but {want:?}: {}", bytes.escape_ascii()),
        }
        assert_eq!(trickle(&bytes), verdict, "{}", bytes.escape_ascii());
    }
    assert!(
        seen.iter().all(|&count| count > 500),
        "all verdicts are reached: {seen:?}"
    );
}

// Proves: BAD-26
#[test]
fn golden_frames_read_the_same_octet_by_octet_and_back_to_back() {
    let mut stream = Vec::new();
    for golden in GOLDEN {
        assert_eq!(trickle(golden), parse(golden, 0));
        stream.extend_from_slice(golden);
    }
    let mut at = 0;
    for golden in GOLDEN {
        let Ok(Parsed::Frame { len, .. }) = parse(&stream[at..], 0) else {
            panic!("a whole frame");
        };
        assert_eq!(len, golden.len());
        at += len;
    }
    assert_eq!(at, stream.len());
}

/// The engine's verdict on a torture file: what becomes of the bytes at this layer.
fn torture_verdict(name: &str, bytes: &[u8]) -> &'static str {
    let mut at = 0;
    let mut verdict = "accept";
    while at < bytes.len() {
        match parse(&bytes[at..], 0) {
            Err(_) => return "reject",
            Ok(Parsed::Incomplete) => return "incomplete",
            Ok(Parsed::Frame { frame, len }) => {
                let changed_path = frame.from_path != PEER_URI;
                let never_success = matches!(frame.start, Start::Response(600..));
                if frame.fault.is_some() || changed_path || never_success {
                    verdict = "reject";
                }
                at += len;
            }
        }
    }
    assert!(at == bytes.len(), "{name} is consumed");
    verdict
}

// Proves: BAD-26
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the corpus is named by the environment only"
)]
fn own_torture_files_get_their_verdict() {
    let Ok(dir) = std::env::var("VOLLEY_TORTURE_DIR") else {
        println!("skipped: VOLLEY_TORTURE_DIR is not set");
        return;
    };
    let index = std::fs::read_to_string(format!("{dir}/INDEX-own.tsv")).unwrap();
    let mut checked = 0;
    for row in index.lines().filter(|row| row.starts_with("own-msrp\t")) {
        let columns: Vec<&str> = row.split('\t').collect();
        let (name, expected) = (columns[1], columns[5]);
        let raw = std::fs::read(format!("{dir}/own-msrp/{name}")).unwrap();
        let mut bytes = raw;
        for (hole, value) in [
            (&b"@TID@"[..], &b"t4Ke91XbQz07WmPd"[..]),
            (b"@FROMPATH@", OUR_URI),
            (b"@TOPATH@", PEER_URI),
            (b"@MSGID@", b"vM0000a1.u7F3kQ"),
            (b"@LEN@", b"493"),
        ] {
            while let Some(at) = memmem::find(&bytes, hole) {
                bytes.splice(at..at + hole.len(), value.iter().copied());
            }
        }
        let verdict = torture_verdict(name, &bytes);
        if expected == "either" {
            assert_ne!(verdict, "incomplete", "{name}");
        } else {
            assert_eq!(verdict, expected, "{name}");
        }
        let trickled = trickle(&bytes);
        assert_eq!(trickled, parse(&bytes, 0), "{name}");
        checked += 1;
    }
    assert_eq!(checked, 23);
}
