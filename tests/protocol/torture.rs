//! Replays hostile SIP messages as datagrams and as streams and compares the verdicts with the
//! index beside them.

use std::path::{Path, PathBuf};

use volley::sip::framing::{Frame, FrameError, frame};
use volley::sip::message::{HeaderName, HeaderTable};
use volley::sip::parser::{parse, salvage};

/// What a receiver makes of the octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A message that may be acted on.
    Accepted,
    /// Refused, connection closed.
    Refused,
    /// A stream that waits for more octets.
    Waiting,
}

/// One line of an index.
struct Case {
    group: String,
    name: String,
    kind: String,
    eol: String,
    verdict: String,
}

fn directory() -> Option<PathBuf> {
    std::env::var_os("VOLLEY_TORTURE_DIR").map(PathBuf::from)
}

fn cases(index: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(index).expect("the index is readable");
    let mut lines = text.lines();
    let head: Vec<&str> = lines
        .next()
        .expect("the index has a head")
        .split('\t')
        .collect();
    let column = |name: &str| head.iter().position(|cell| *cell == name);
    let field = |cells: &[&str], name: &str| {
        column(name).map_or_else(String::new, |at| cells[at].to_owned())
    };
    lines
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|cells| Case {
            group: field(&cells, "group"),
            name: field(&cells, "name"),
            kind: field(&cells, "kind"),
            eol: field(&cells, "eol"),
            verdict: field(&cells, "parse"),
        })
        .collect()
}

/// CR before every LF that has none.
fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    let mut last = 0;
    for &byte in bytes {
        if byte == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        last = byte;
    }
    out
}

/// The verdict of an LF file is that of its CRLF form; of a mixed file only the header section is
/// brought into that form, and only when it is needed.
fn normalised(case: &Case, bytes: &[u8]) -> Vec<u8> {
    match case.eol.as_str() {
        "LF" => with_crlf(bytes),
        "mixed" => {
            let end = (0..bytes.len())
                .find(|at| bytes[*at..].starts_with(b"\n\r\n") || bytes[*at..].starts_with(b"\n\n"))
                .map_or(bytes.len(), |at| {
                    at + if bytes[at + 1] == b'\n' { 2 } else { 3 }
                });
            let mut out = with_crlf(&bytes[..end]);
            out.extend_from_slice(&bytes[end..]);
            out
        }
        _ => bytes.to_vec(),
    }
}

fn as_datagram(bytes: &[u8], table: &mut HeaderTable) -> Outcome {
    if parse(bytes, table).is_ok() {
        Outcome::Accepted
    } else {
        Outcome::Refused
    }
}

/// Feeds a stream in steps of `step` octets; the verdict on its first message.
fn as_stream(bytes: &[u8], step: usize, table: &mut HeaderTable) -> (Outcome, Option<FrameError>) {
    let (mut start, mut end, mut scanned) = (0, 0, 0);
    loop {
        let buffer = &bytes[start..end];
        match frame(buffer, scanned) {
            Ok(Frame::Message { len }) => return (as_datagram(&buffer[..len], table), None),
            Ok(Frame::Ping) => (start, scanned) = (start + 4, 0),
            Ok(Frame::Pong { len }) => (start, scanned) = (start + len, 0),
            Ok(Frame::Incomplete { need_at_least }) => {
                assert!(
                    need_at_least > buffer.len(),
                    "an incomplete frame needs more"
                );
                scanned = buffer.len();
                if end == bytes.len() {
                    return (Outcome::Waiting, None);
                }
                end = bytes.len().min(end + step);
            }
            Err(error) => return (Outcome::Refused, Some(error)),
        }
    }
}

/// Checks one input on all transports; says what deviates from `verdict`.
fn check(verdict: &str, bytes: &[u8], table: &mut HeaderTable) -> Result<(), String> {
    let datagram = as_datagram(bytes, table);
    let error = parse(bytes, table).err();
    let announced = parse(bytes, table)
        .is_ok_and(|message| message.header(HeaderName::ContentLength).is_some());
    if error.is_some() {
        // Never a panic, and what it gives can always be printed and copied.
        let _ = salvage(bytes, table).map(|view| (view.via_count(), view.call_id().len()));
    }
    let (whole, whole_error) = as_stream(bytes, bytes.len().max(1), table);
    let (bytewise, _) = as_stream(bytes, 1, table);
    if whole != bytewise {
        return Err(format!(
            "stream whole {whole:?}, octet by octet {bytewise:?}"
        ));
    }
    match (datagram, whole) {
        (Outcome::Accepted, Outcome::Accepted) if announced => {}
        // A stream needs Content-Length, and an end of the header section.
        (Outcome::Accepted, Outcome::Refused)
            if !announced && whole_error == Some(FrameError::MissingContentLength) => {}
        (Outcome::Accepted, Outcome::Waiting) if !announced => {}
        (Outcome::Refused, Outcome::Refused | Outcome::Waiting) => {}
        _ => return Err(format!("datagram {datagram:?} {error:?}, stream {whole:?}")),
    }
    match (verdict, datagram) {
        ("accept", Outcome::Accepted) | ("reject", Outcome::Refused) | ("either", _) => Ok(()),
        _ => Err(format!("{datagram:?} {error:?}, must {verdict}")),
    }
}

fn report(deviations: &[String], checked: usize) {
    assert!(checked > 0, "the index names no case");
    assert!(
        deviations.is_empty(),
        "{} of {checked} deviate:\n{}",
        deviations.len(),
        deviations.join("\n")
    );
}

/// Verdicts of the index that we do not share, with ours and why.
const DISPUTED: [(&str, &str); 2] = [
    // Content-Length 4 and no body: RFC 3261 section 18.3 has a datagram like that refused.
    ("message.sip", "reject"),
    // A sound REGISTER with Content-Length 0, then surplus octets: section 18.3 discards those.
    ("test10.txt", "accept"),
];

// Proves: NH-6, NH-7, NH-8, BAD-1, BAD-2, BAD-3, BAD-18, BAD-19
#[test]
fn public_messages_get_the_verdict_of_the_index_on_every_transport() {
    let Some(dir) = directory() else {
        println!("skipped: VOLLEY_TORTURE_DIR is not set");
        return;
    };
    let mut table = HeaderTable::new();
    let (mut deviations, mut checked) = (Vec::new(), 0);
    for case in cases(&dir.join("INDEX-public.tsv")) {
        let raw = std::fs::read(dir.join(&case.group).join(&case.name)).expect("the file is there");
        let bytes = normalised(&case, &raw);
        // What is no SIP at all (SDP, XML, HTTP) must only not hurt.
        let sip = matches!(case.kind.as_str(), "req" | "resp");
        let ours = DISPUTED.iter().find(|(name, _)| *name == case.name);
        let theirs = if sip { case.verdict.as_str() } else { "either" };
        let verdict = ours.map_or(theirs, |(_, verdict)| *verdict);
        if let Err(why) = check(verdict, &bytes, &mut table) {
            deviations.push(format!("{}/{}: {why}", case.group, case.name));
        }
        if case.eol == "LF" && sip && check("reject", &raw, &mut table).is_err() {
            deviations.push(format!("{}/{}: bare LF accepted", case.group, case.name));
        }
        checked += 1;
    }
    report(&deviations, checked);
}

/// Of the cases to be refused, those that only the layers above can refuse: they parse.
const LAYERS_ABOVE: [&str; 12] = [
    "bye-offdialog-source.tmpl",
    "callid-other.tmpl",
    "contact-javascript.tmpl",
    "contact-star.tmpl",
    "cseq-method.tmpl",
    "sdp-no-path.tmpl",
    "sdp-none.tmpl",
    "sdp-path-hops.tmpl",
    "sdp-path-ssrf-meta.tmpl",
    "sdp-two-m.tmpl",
    "se-zero.tmpl",
    "via-wrong-branch.tmpl",
];

fn filled(template: &[u8], fix_length: bool) -> Vec<u8> {
    const FILL: [(&str, &str); 20] = [
        (
            "@VIA@",
            "SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bK-1-7a1f;oc=0;oc-algo=\"loss,rate\"",
        ),
        (
            "@VIA_UPPER@",
            "SIP/2.0/TCP 192.0.2.10:5060;branch=Z9HG4BK-1-7A1F",
        ),
        ("@FROM@", "<sip:pf@home.example>;tag=ours"),
        ("@TO@", "<sip:+15550100@home.example>"),
        ("@CALLID@", "c0ffee@192.0.2.10"),
        ("@CSEQ@", "1"),
        ("@PEER@", "192.0.2.77:5070"),
        ("@PPORT@", "5070"),
        ("@MPEER@", "192.0.2.78:2855"),
        ("@MPORT@", "2855"),
        ("@ADMIN@", "9100"),
        ("@ENGINE@", "sip:push@192.0.2.10:5060;transport=tcp"),
        ("@ENGINEHP@", "192.0.2.10:5060"),
        ("@LCALL@", "live@192.0.2.10"),
        ("@LFROM@", "<sip:pf@home.example>;tag=ours"),
        ("@LTO@", "<sip:+15550100@home.example>;tag=theirs"),
        ("@SUBCALL@", "sub@192.0.2.10"),
        ("@SUBFROM@", "<sip:pf@home.example>;tag=sub"),
        ("@SUBTO@", "<sip:+15550100@home.example>;tag=notifier"),
        ("@RND@", "4f1c"),
    ];
    let mut bytes = template.to_vec();
    for (hole, value) in FILL {
        while let Some(at) = find(&bytes, hole.as_bytes()) {
            bytes.splice(at..at + hole.len(), value.bytes());
        }
    }
    let head = find(&bytes, b"\r\n\r\n").map(|at| at + 4);
    if let (true, Some(head), Some(at)) = (fix_length, head, find(&bytes, b"Content-Length: ")) {
        let start = at + "Content-Length: ".len();
        let digits = bytes[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let announced: usize = core::str::from_utf8(&bytes[start..start + digits])
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        // Octets behind the body stay behind it.
        let surplus = template_surplus(template, announced);
        let body = (bytes.len() - head - surplus).to_string();
        bytes.splice(start..start + digits, body.bytes());
    }
    bytes
}

fn template_surplus(template: &[u8], announced: usize) -> usize {
    let head = find(template, b"\r\n\r\n").map_or(template.len(), |at| at + 4);
    let tail = &template[head..];
    if tail
        .last()
        .is_some_and(|byte| *byte == 0xff || *byte == 0x80)
        && tail.len() > announced
    {
        tail.iter().rev().take_while(|byte| **byte >= 0x80).count()
    } else {
        0
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

// Proves: NH-6, NH-7, BAD-1, BAD-18, BAD-19
#[test]
fn messages_written_against_this_engine_get_their_verdict_on_every_transport() {
    let Some(dir) = directory() else {
        println!("skipped: VOLLEY_TORTURE_DIR is not set");
        return;
    };
    let mut table = HeaderTable::new();
    let (mut deviations, mut checked) = (Vec::new(), 0);
    for case in cases(&dir.join("INDEX-own.tsv")) {
        if !case.kind.starts_with("sip-") || case.name == "tcp-crlf-flood.tmpl" {
            continue;
        }
        let raw = std::fs::read(dir.join(&case.group).join(&case.name)).expect("the file is there");
        let fix = !case.name.starts_with("cl-") && !case.name.starts_with("tcp-");
        let bytes = filled(&raw, fix);
        let above = LAYERS_ABOVE.contains(&case.name.as_str());
        let verdict = if above {
            "accept"
        } else {
            case.verdict.as_str()
        };
        if let Err(why) = check(verdict, &bytes, &mut table) {
            deviations.push(format!("{}/{}: {why}", case.group, case.name));
        }
        checked += 1;
    }
    report(&deviations, checked);
}

// Proves: NH-6
#[test]
fn every_worked_example_parses_on_every_transport() {
    let Some(dir) = directory() else {
        println!("skipped: VOLLEY_TORTURE_DIR is not set");
        return;
    };
    let examples = dir.join("../spec/examples");
    let mut table = HeaderTable::new();
    let (mut deviations, mut checked) = (Vec::new(), 0);
    for entry in std::fs::read_dir(&examples).expect("the examples are readable") {
        let path = entry.expect("the directory is readable").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("")
            .to_owned();
        let bytes = std::fs::read(&path).expect("the example is readable");
        if name.contains("msrp") || !name.starts_with('f') {
            continue;
        }
        let verdict = check("accept", &bytes, &mut table);
        let typed = parse(&bytes, &mut table).map_or(Ok(()), |message| {
            let whole = message.via_top().is_ok()
                && message.to().is_ok()
                && message.contact().is_none_or(|contact| contact.is_ok())
                && message.session_expires().is_none_or(|timer| timer.is_ok())
                && message.from_tag().is_some();
            if whole {
                Ok(())
            } else {
                Err("a typed header does not read".to_owned())
            }
        });
        if let Err(why) = verdict.and(typed) {
            deviations.push(format!("{name}: {why}"));
        }
        checked += 1;
    }
    report(&deviations, checked);
}
