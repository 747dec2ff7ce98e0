#![expect(
    clippy::cast_possible_truncation,
    reason = "random picks fit by construction"
)]

use super::*;

#[path = "../../../tests/data/sip_messages.rs"]
pub(crate) mod messages;

const HEAD: &str = "Via: SIP/2.0/UDP h.example;branch=z9hG4bKx\r\n\
    From: <sip:a@x.example>;tag=1\r\n\
    To: <sip:b@x.example>\r\n\
    Call-ID: c@x.example\r\n\
    CSeq: 7 OPTIONS\r\n";

/// A request with `line` as start line, the usual headers, and `more` lines after them.
fn request(line: &str, more: &str) -> Vec<u8> {
    format!("{line}\r\n{HEAD}{more}\r\n").into_bytes()
}

fn options(more: &str) -> Vec<u8> {
    request("OPTIONS sip:b@x.example SIP/2.0", more)
}

/// The usual request with one of its header lines replaced (an empty `with` removes it).
fn replaced(line: &str, with: &str) -> Vec<u8> {
    let text = String::from_utf8(options("")).unwrap();
    let start = text.find(line).unwrap();
    let end = start + text[start..].find("\r\n").unwrap() + 2;
    format!("{}{with}{}", &text[..start], &text[end..]).into_bytes()
}

fn verdict(bytes: &[u8]) -> Result<(), ParseErrorKind> {
    parse(bytes, &mut HeaderTable::new())
        .map(|_| ())
        .map_err(|error| error.kind)
}

fn rejection(bytes: &[u8]) -> Option<(u16, &'static str)> {
    let mut table = HeaderTable::new();
    let error = parse(bytes, &mut table).err()?;
    salvage(bytes, &mut table)?;
    error.reject().map(|reject| (reject.status, reject.reason))
}

#[test]
fn reads_all_that_a_push_needs_of_its_answer() {
    let mut table = HeaderTable::new();
    let message = parse(messages::OK_INVITE, &mut table).unwrap();
    assert!(!message.is_request());
    assert_eq!((message.status(), message.reason()), (200, &b"OK"[..]));
    assert_eq!(
        (message.method(), message.method_bytes()),
        (Method::Invite, &b"INVITE"[..])
    );
    let via = message.via_top().unwrap();
    assert_eq!(via.transport, b"TCP");
    assert_eq!(
        (via.host, via.port),
        (&b"push1.home.example"[..], Some(5060))
    );
    assert_eq!(
        via.branch,
        Some(&b"z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb"[..])
    );
    assert_eq!(via.params.find(b"oc-seq"), Some(&b"1795329600.001"[..]));
    assert_eq!(message.via_count(), 1);
    assert_eq!(
        message.from_tag(),
        Some(&b"bq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb"[..])
    );
    assert_eq!(message.to_tag(), Some(&b"phone-5d2f01"[..]));
    assert_eq!(message.to().unwrap().uri, b"sip:+15550123@home.example");
    assert_eq!(
        message.call_id(),
        b"cq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb@push1.home.example"
    );
    assert_eq!(message.cseq().unwrap().number, 1);
    let routes: Vec<_> = message.values(HeaderName::RecordRoute).collect();
    assert_eq!(
        routes,
        [
            &b"<sip:term@edge.home.example:5060;lr>"[..],
            b"<sip:core.home.example:5060;transport=tcp;lr>"
        ]
    );
    let contact = message.contact().unwrap().unwrap();
    assert!(uri::is_public_gruu(contact.uri));
    let icsi = contact.params.find(b"+g.3gpp.icsi-ref").unwrap();
    assert!(crate::sip::feature::contains(
        icsi,
        b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred"
    ));
    assert!(message.lists(HeaderName::Allow, b"UPDATE"));
    assert!(!message.lists(HeaderName::Allow, b"PRACK"));
    assert!(!message.lists(HeaderName::Allow, b"UPDAT"));
    assert!(message.lists(HeaderName::Supported, b"TIMER"));
    let timer = message.session_expires().unwrap().unwrap();
    assert_eq!(timer.interval_s, 1800);
    assert!(message.body().starts_with(b"v=0\r\n") && message.body().ends_with(b"recvonly\r\n"));
    assert_eq!(message.request_uri(), b"");
    assert_eq!(message.min_se(), None);
}

#[test]
fn reads_a_request_and_reuses_the_table() {
    let mut table = HeaderTable::new();
    parse(messages::OK_INVITE, &mut table).unwrap();
    let message = parse(messages::INVITE, &mut table).unwrap();
    assert!(message.is_request());
    assert_eq!((message.method(), message.status()), (Method::Invite, 0));
    assert!(
        message
            .request_uri()
            .starts_with(b"sip:+15550123@home.example;gr=")
    );
    assert_eq!(message.header(HeaderName::RecordRoute), None);
    assert_eq!(message.max_forwards(), Some(70));
    assert_eq!(message.reason(), b"");
    let id = message.header(HeaderName::ConversationId);
    assert_eq!(id, Some(&b"11111111-2222-4333-8444-555555555555"[..]));
}

// Proves: NH-8
#[test]
fn accepts_folds_compact_names_odd_case_and_lists() {
    let bytes = b"\r\n\r\nOPTIONS sip:b@[2001:db8::10]:5070 sip/2.0  \r\n\
        \x20 TO :\r\n sip:b@x.example ;  tag = 19\r\n\
        f: \"Q \\\"q\\\"\" <sip:a@x.example>\r\n ;\r\n\ttag=1\r\n\
        MaX-fOrWaRdS: 0068\r\n\
        i\r\n : c\r\n\
        cseq: 0009\r\n  OPTIONS\r\n\
        v: SIP / 2.0 / TCP  one.example ; branch = z9hG4bKa ,\r\n SIP/2.0/UDP [::1]:7\r\n\
        X-Odd: ;;,,;;\r\n\
        Via: SIP/2.0/UDP three.example\r\n\
        k: timer,\r\n 100rel\r\n\
        s :\r\n\
        Supported: gruu\r\n\
        l: 2\r\n\
        \r\nabc";
    let mut table = HeaderTable::new();
    let message = parse(bytes, &mut table).unwrap();
    assert_eq!(message.to_tag(), Some(&b"19"[..]));
    assert_eq!(
        message.from().unwrap().display,
        Some(&b"\"Q \\\"q\\\"\""[..])
    );
    assert_eq!(message.call_id(), b"c");
    assert_eq!(message.cseq().unwrap().number, 9);
    assert_eq!(message.via_count(), 3);
    assert_eq!(message.via_top().unwrap().branch, Some(&b"z9hG4bKa"[..]));
    assert_eq!(message.header_lines(HeaderName::Via).count(), 2);
    let supported: Vec<_> = message.values(HeaderName::Supported).collect();
    assert_eq!(supported, [&b"timer"[..], b"100rel", b"gruu"]);
    assert_eq!(message.header_named(b"x-odd"), Some(&b";;,,;;"[..]));
    assert_eq!(message.header_named(b"Subject"), Some(&b""[..]));
    assert_eq!(message.header_named(b"x-none"), None);
    assert_eq!(message.body(), b"ab");
}

// Proves: NH-8, BAD-18
#[test]
fn accepts_what_is_unusual_but_sound() {
    let sound: [Vec<u8>; 16] = [
        options(""),
        options("Content-Length: 0\r\nContent-Length: 00\r\n"),
        options("Unknown_Header-1: \r\n"),
        options("Subject: \u{43f}\u{440}\u{438}\r\nX-Free: \u{fc}\r\n"),
        options("Contact: \u{416} <sip:q@x.example>\r\n"),
        options("Warning: 399 x \"\u{fc}\"\r\n"),
        options("Date: Fri, 01 Jan 2010 16:00:00 EST\r\n"),
        replaced("From", "From: \"a \\\u{0} b\" <sip:a@x.example>;tag=1\r\n"),
        replaced("From", "From: http://www.example.com\r\n"),
        replaced("From", "From: sip:%00@x.example;tag=1;x=\"a;b\"\r\n"),
        replaced("Via", "Via: SIP/2.0/UNKNOWN h.example\r\n"),
        replaced("CSeq", "CSeq: 2147483647 OPTIONS\r\n"),
        request("OPTIONS soap.beep://192.0.2.3:3002 SIP/2.0", ""),
        request("OPTIONS tel:+1-555-0100;phone-context=x SIP/2.0", ""),
        request(
            "OPTIONS sip:1_a~(be!s)&is+n't$/?,;;*:&p=1,w!*@x.example SIP/2.0",
            "",
        ),
        // A datagram that ends behind a header line.
        options("")[..options("").len() - 2].to_vec(),
    ];
    for bytes in sound {
        assert_eq!(
            verdict(&bytes),
            Ok(()),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    let odd = request("A!%-_.*+`'~ sip:b@x.example SIP/2.0", "");
    let text = String::from_utf8(odd)
        .unwrap()
        .replace("7 OPTIONS", "7 A!%-_.*+`'~");
    assert_eq!(verdict(text.as_bytes()), Ok(()));
    for line in [
        "SIP/2.0 100 ",
        "SIP/2.0 100",
        "SIP/2.0 200 = 2**3 \u{43d}\u{43e}",
    ] {
        assert_eq!(verdict(&request(line, "")), Ok(()));
    }
}

// Proves: BAD-1, BAD-2, BAD-3, BAD-18
#[test]
fn refuses_with_a_reason_that_names_the_defect() {
    let cases = [
        (
            replaced("Via", "Via: SIP/2.0/UDP h;;branch=x\r\n"),
            0,
            "Bad Via",
        ),
        (replaced("Via", ""), 0, "Missing Via"),
        (replaced("From", ""), 0, "Missing From"),
        (
            replaced("From", "From: \"open <sip:a@x>\r\n"),
            400,
            "Bad From",
        ),
        (
            replaced("From", "From: <sip:a@x>;tag=1, <sip:b@x>;tag=2\r\n"),
            400,
            "Bad From",
        ),
        (
            replaced("From", "From: Bell, A <sip:a@x>;tag=1\r\n"),
            400,
            "Bad From",
        ),
        (replaced("To", "To: <sip:b@x>;tag=\r\n"), 400, "Bad To"),
        (replaced("Call-ID", "Call-ID: a b\r\n"), 400, "Bad Call-ID"),
        (options("Call-ID: d@x.example\r\n"), 400, "Multiple Call-ID"),
        (options("t: <sip:b@x.example>\r\n"), 400, "Multiple To"),
        (replaced("CSeq", "CSeq: 7\r\n"), 400, "Bad CSeq"),
        (
            replaced("CSeq", "CSeq: 36893488147419103232 OPTIONS\r\n"),
            400,
            "Bad CSeq",
        ),
        (
            replaced("CSeq", "CSeq: 2147483648 OPTIONS\r\n"),
            400,
            "Bad CSeq",
        ),
        (
            replaced("CSeq", "CSeq: 7 INVITE\r\n"),
            400,
            "CSeq Method Mismatch",
        ),
        (
            request("NEWMETHOD sip:b@x.example SIP/2.0", ""),
            501,
            "Not Implemented",
        ),
    ];
    assert_refused(&cases);
}

// Proves: BAD-1, BAD-2, BAD-3, BAD-12, BAD-18
#[test]
fn refuses_bad_ranges_lengths_line_ends_and_sizes() {
    let long = "x".repeat(SIP_LINE_BYTES_MAX + 1);
    let many = "X: 1\r\n".repeat(260);
    let cases = [
        (options("Max-Forwards: 300\r\n"), 400, "Bad Max-Forwards"),
        (
            options("Max-Forwards: 5\r\nMax-Forwards: 5\r\n"),
            400,
            "Multiple Max-Forwards",
        ),
        (options("Expires: 10000000000\r\n"), 400, "Bad Expires"),
        (
            options("Expires: Fri, 01 Jan 2010 16:00:00 EST\r\n"),
            400,
            "Bad Expires",
        ),
        (options("Content-Length: -9\r\n"), 400, "Bad Content-Length"),
        (
            options("Content-Length: 0\r\nl: 1\r\n"),
            400,
            "Conflicting Content-Length",
        ),
        (options("Content-Length: 1\r\n"), 400, "Message Cut Short"),
        (
            options("X: a\rRoute: <sip:evil.example>\r\n"),
            400,
            "Bad Line End",
        ),
        (
            options("X: a\nRoute: <sip:evil.example>\r\n"),
            400,
            "Bad Line End",
        ),
        (options("X: a\0b\r\n"), 400, "Bad Line End"),
        (options(": v\r\n"), 400, "Bad Header Line"),
        (options("no colon\r\n"), 400, "Bad Header Line"),
        (options("Contact: <sip:\u{fc}@x>\r\n"), 400, "Bad Character"),
        (
            request("OPTIONS sip:b@x.example SIP/7.0", ""),
            505,
            "Version Not Supported",
        ),
        (options(&format!("X: {long}\r\n")), 513, "Message Too Large"),
        (options(&many), 513, "Message Too Large"),
    ];
    assert_refused(&cases);
}

/// Each input is refused, and answered with that status (0: not answered) and reason.
fn assert_refused(cases: &[(Vec<u8>, u16, &'static str)]) {
    for (bytes, status, reason) in cases {
        let expected = (*status != 0).then_some((*status, *reason));
        assert!(verdict(bytes).is_err(), "{reason}");
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(rejection(bytes), expected, "{text}");
    }
}

// Proves: BAD-1, BAD-9
#[test]
fn refuses_request_lines_that_two_readers_could_split_differently() {
    for line in [
        "OPTIONS  sip:b@x.example SIP/2.0",
        "OPTIONS sip:b@x.example  SIP/2.0",
        "OPTIONS sip:b@x.example; lr SIP/2.0",
        "OPTIONS <sip:b@x.example> SIP/2.0",
        "OPTIONS sip:b@x.example?Route=%3Csip:e.example%3E SIP/2.0",
        "OPTIONS sip:2001:db8::10 SIP/2.0",
        "OPTIONS sip:b@x.example SIP/2.0/UDP",
        "OPTIONS sip:b@x.example HTTP/1.1",
        "OPTIONS sip:b@x.example",
        "OPTIONS b SIP/2.0",
        "OP(IONS sip:b@x.example SIP/2.0",
        "OPTIONS sip:\u{fc}@x.example SIP/2.0",
        " OPTIONS sip:b@x.example SIP/2.0",
        "",
    ] {
        assert!(verdict(&request(line, "")).is_err(), "{line}");
    }
}

// Proves: BAD-19
#[test]
fn a_bad_response_is_dropped_not_answered() {
    for line in [
        "SIP/2.0 700 High",
        "SIP/2.0 099 Low",
        "SIP/2.0 4294967301 better not break the receiver",
        "SIP/2.0 2x0 OK",
        "SIP/2.0  200 OK",
        "SIP/2.0",
        "SIP/3.0 200 OK",
    ] {
        let bytes = request(line, "");
        assert!(verdict(&bytes).is_err(), "{line}");
        assert_eq!(rejection(&bytes), None, "{line}");
    }
    let bytes = request("SIP/2.0 200 OK", "Call-ID: again\r\n");
    assert!(verdict(&bytes).is_err());
    assert_eq!(rejection(&bytes), None);
    let mut latin = request("SIP/2.0 200 OK", "");
    latin[12] = 0xe9;
    assert_eq!(verdict(&latin), Err(ParseErrorKind::BadText));
}

#[test]
fn header_sections_and_messages_have_limits() {
    let folds = format!("X: a{}\r\n", "\r\n b".repeat(4000));
    assert_eq!(verdict(&options(&folds)), Ok(()));
    let folds = format!("X: a{}\r\n", "\r\n b".repeat(9000));
    assert_eq!(verdict(&options(&folds)), Err(ParseErrorKind::TooLarge));
    let lines = format!("X: {}\r\n", "y".repeat(15_000)).repeat(5);
    assert_eq!(verdict(&options(&lines)), Err(ParseErrorKind::TooLarge));
    let huge = vec![b'a'; SIP_MESSAGE_BYTES_MAX + 1];
    assert_eq!(verdict(&huge), Err(ParseErrorKind::TooLarge));
}

#[test]
fn a_salvaged_request_keeps_what_an_answer_copies() {
    let mut table = HeaderTable::new();
    let bytes = replaced(
        "CSeq",
        "CSeq: 7\r\nX: a\rb\r\njunk\r\nVia: SIP/2.0/UDP second\r\n",
    );
    let view = salvage(&bytes, &mut table).unwrap();
    assert!(view.is_request());
    assert_eq!(view.method(), Method::Options);
    assert_eq!(view.header(HeaderName::CSeq), Some(&b"7"[..]));
    assert!(view.cseq().is_err());
    assert_eq!(view.via_count(), 2);
    assert_eq!(view.via_top().unwrap().host, b"h.example");
    assert_eq!(view.call_id(), b"c@x.example");
    assert_eq!(view.body(), b"");
    for bytes in [
        &b""[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\n",
        b"\0",
    ] {
        assert!(salvage(bytes, &mut table).is_none());
    }
    let no_to = replaced("To", "");
    assert!(salvage(&no_to, &mut table).is_none());
}

#[test]
fn octets_behind_the_body_are_ignored() {
    let mut bytes = options("Content-Length: 3\r\n");
    bytes.extend_from_slice(b"abc\xff\xff\0OPTIONS sip:second@x.example SIP/2.0\r\n");
    let mut table = HeaderTable::new();
    assert_eq!(parse(&bytes, &mut table).unwrap().body(), b"abc");
}

/// Splits header lines the slow way: the oracle of the scanner.
fn naive_values(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let head = text.split("\r\n\r\n").next().unwrap();
    let joined = head
        .replace("\r\n ", "\u{1}\u{2} ")
        .replace("\r\n\t", "\u{1}\u{2}\t");
    joined
        .split("\r\n")
        .skip(1)
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            let restored = value.replace('\u{1}', "\r").replace('\u{2}', "\n");
            let octets = restored.trim_matches([' ', '\t', '\r', '\n']).chars();
            (
                name.trim().to_ascii_lowercase(),
                octets.map(|c| c as u8).collect(),
            )
        })
        .collect()
}

#[test]
fn the_scanner_finds_the_same_lines_as_a_naive_splitter() {
    let folded = options("Subject: a\r\n b\r\nX-One:\r\n\t1\r\nx-two : 2 \r\nSubject:\r\n");
    for bytes in [messages::OK_INVITE, messages::INVITE, &folded] {
        let mut table = HeaderTable::new();
        let message = parse(bytes, &mut table).unwrap();
        let lines = naive_values(bytes);
        for (name, value) in &lines {
            let known = HeaderName::lookup(name.as_bytes());
            let same: Vec<_> = lines
                .iter()
                .filter(|(other, _)| HeaderName::lookup(other.as_bytes()) == known)
                .map(|(_, value)| value.as_slice())
                .collect();
            assert_eq!(message.headers(known).collect::<Vec<_>>(), same);
            if known == HeaderName::Other {
                assert_eq!(
                    message.header_named(name.as_bytes()),
                    Some(value.as_slice())
                );
            }
        }
    }
}

/// xorshift64*: the tests' own random numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// One to four random edits with bytes the grammar cares about.
pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const SPICE: &[u8] = b"\r\n\0 \t:;,<>\"\\=@[]?/%+*aZ09\x7f\x80\xff\xc3";
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1)).min(bytes.len());
        let byte = SPICE[random.below(SPICE.len())];
        match random.below(6) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] = byte,
            3 => bytes.truncate(at),
            4 => {
                let end = (at + random.below(40)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => drop(bytes.splice(at..at, *b"\r\n ")),
        }
    }
}

/// Reads everything a message offers.
fn read_all(message: &Message<'_>) -> usize {
    let mut sum = message.body().len() + message.via_count() + message.call_id().len();
    sum += message.via_top().map_or(0, |via| via.params.iter().count());
    sum += message.from().map_or(0, |from| from.params.iter().count());
    sum += message
        .to()
        .map_or(0, |to| to.uri.len() + to.tag().map_or(0, <[u8]>::len));
    sum += message.contact().map_or(0, |c| {
        c.map_or(1, |c| usize::from(uri::parse(c.uri).is_ok()))
    });
    sum += usize::from(message.session_expires().is_some_and(|timer| timer.is_ok()));
    sum += usize::from(message.min_se().is_some()) + usize::from(message.date().is_some());
    sum += usize::from(message.expires().is_some()) + usize::from(message.retry_after().is_some());
    sum += usize::from(message.lists(HeaderName::Supported, b"timer"));
    sum += message
        .values(HeaderName::RecordRoute)
        .map(<[u8]>::len)
        .sum::<usize>();
    let content = message.parameterized(HeaderName::ContentType);
    sum + content.map_or(0, |content| {
        content.value.len() + content.params.iter().count()
    })
}

// Proves: BAD-1, BAD-18
#[test]
fn no_mutation_panics_or_slips_a_line_end_into_a_value() {
    let mut random = Random(0x5eed_0001);
    let mut table = HeaderTable::new();
    let folded = options("Subject: a\r\n b\r\nContact: \"x\\\0\" <sip:a@x>, <sip:b@x>;q=1\r\n");
    let seeds: [&[u8]; 3] = [messages::OK_INVITE, messages::INVITE, &folded];
    let (mut accepted, mut refused, mut salvaged) = (0, 0, 0);
    for round in 0..20_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        mutate(&mut random, &mut bytes);
        match parse(&bytes, &mut table) {
            Ok(message) => {
                accepted += 1;
                read_all(&message);
                assert!(message.via_top().is_ok() && message.cseq().is_ok());
                // From of a response repeats ours and is not judged.
                assert!(message.from().is_ok() || !message.is_request());
                assert!(message.to().is_ok());
                assert!(!message.call_id().is_empty());
                let uri = message.request_uri();
                assert!(uri.iter().all(|byte| byte.is_ascii_graphic()));
                for name in [HeaderName::Via, HeaderName::To, HeaderName::Other] {
                    message.headers(name).for_each(assert_only_folds);
                }
            }
            Err(error) => {
                refused += 1;
                assert!(error.at as usize <= bytes.len());
                if let Some(view) = salvage(&bytes, &mut table) {
                    salvaged += 1;
                    read_all(&view);
                    for name in [HeaderName::Via, HeaderName::From, HeaderName::CallId] {
                        view.headers(name).for_each(assert_only_folds);
                    }
                }
            }
        }
    }
    assert!(
        accepted > 2_000,
        "{accepted} accepted: the mutations are too wild"
    );
    assert!(
        refused > 2_000,
        "{refused} refused: the mutations are too tame"
    );
    assert!(salvaged > 500, "{salvaged} salvaged");
}

/// A value may hold a line end only as part of a fold.
fn assert_only_folds(value: &[u8]) {
    for (at, byte) in value.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(value.get(at + 1), Some(&b'\n')),
            b'\n' => {
                assert!(at > 0 && value[at - 1] == b'\r');
                assert!(matches!(value.get(at + 1), Some(b' ' | b'\t')));
            }
            0 => assert_eq!(value[at - 1], b'\\'),
            _ => {}
        }
    }
}

const SEEDS: [&[u8]; 5] = [
    messages::OK_INVITE,
    messages::INVITE,
    messages::TRYING,
    messages::OK_BYE,
    messages::NOTIFY,
];

/// The same octets by the careful reader alone.
fn carefully(bytes: &[u8], table: &mut HeaderTable) -> Result<(), ParseErrorKind> {
    table.reset();
    let begin = skip_blank_lines(bytes);
    start_line(bytes, begin, table)
        .and_then(|first| header_section(bytes, begin, first, table))
        .map_err(|error| error.kind)
}

#[test]
fn the_quick_reader_notes_what_the_careful_one_notes() {
    let (mut quick, mut careful) = (HeaderTable::new(), HeaderTable::new());
    let mut taken = 0;
    let mut random = Random(0x5eed_0002);
    for round in 0..20_000 {
        let mut bytes = SEEDS[round % SEEDS.len()].to_vec();
        if round % 16 > 4 {
            mutate(&mut random, &mut bytes);
        }
        let expected = carefully(&bytes, &mut careful);
        quick.reset();
        if !quick::head(&bytes, &mut quick) {
            continue;
        }
        taken += 1;
        assert_eq!(expected, Ok(()), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(quick.headers_end, careful.headers_end);
        let start = |table: &HeaderTable| (table.start.status, table.start.text, table.start.uri);
        assert_eq!(start(&quick), start(&careful));
        assert!(quick.start.status != 0 || quick.method == careful.method);
        let lines = |table: &HeaderTable| -> Vec<_> {
            let line = |entry: &crate::sip::message::Entry| (entry.name, entry.value());
            table.entries().iter().map(line).collect()
        };
        assert_eq!(lines(&quick), lines(&careful));
    }
    assert!(taken > 2_500, "ordinary messages are taken, {taken} were");
}

#[test]
fn what_is_outlined_is_framed_and_parsed_alike_by_the_slow_way() {
    use crate::sip::framing::{Frame, frame};
    let (mut quick, mut slow) = (HeaderTable::new(), HeaderTable::new());
    let mut random = Random(0x5eed_0003);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = SEEDS[round % SEEDS.len()].to_vec();
        if round % 16 > 4 {
            mutate(&mut random, &mut bytes);
        }
        bytes.extend_from_slice(SEEDS[random.below(SEEDS.len())]);
        bytes.truncate(bytes.len() - random.below(9));
        let Some(len) = outline(&bytes, &mut quick) else {
            continue;
        };
        taken += 1;
        assert_eq!(frame(&bytes, 0), Ok(Frame::Message { len }));
        let message = complete(&bytes[..len], &mut quick).map(|message| read_all(&message));
        refused += usize::from(message.is_err());
        let expected = parse(&bytes[..len], &mut slow).map(|message| read_all(&message));
        assert_eq!(message, expected, "{}", String::from_utf8_lossy(&bytes));
    }
    assert!(taken > 4_000, "ordinary messages are taken, {taken} were");
    assert!(refused > 200, "outlines may prove bad, {refused} did");
}

#[test]
fn half_a_message_has_no_outline() {
    let mut table = HeaderTable::new();
    for seed in SEEDS {
        assert_eq!(outline(seed, &mut table), Some(seed.len()));
        for len in 0..seed.len() {
            assert_eq!(outline(&seed[..len], &mut table), None, "{len}");
        }
    }
    let text = "OPTIONS sip:b@x.example SIP/2.0\r\n";
    for lines in ["", "Content-Length: 0\r\nl: 0\r\n", "Content-Length: x\r\n"] {
        let bytes = request(text.trim_end(), lines);
        assert_eq!(outline(&bytes, &mut table), None, "{lines}");
    }
}
