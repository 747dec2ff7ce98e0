//! Our SIP parser against two others, about the same octets: method, Request-URI or status, each header's
//! values, body. Where they differ, one of the known habits of the other parser must explain it.
//!
//! The octets: this project's worked examples and messages, hostile ones from `VOLLEY_TORTURE_DIR` if it
//! is set, and seeded mutations of all of them.

#![cfg(test)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rust_rcs_core::internet::body::Body;
use rust_rcs_core::sip::sip_message::SipMessage as RcsMessage;
use rust_rcs_core::sip::sip_parser::SipParser;
use volley::sip::message::{HeaderName, HeaderTable};
use volley::sip::parser::parse;

#[path = "../data/sip_messages.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod sip_messages;

/// Mutations of each message.
const MUTATIONS: u64 = 400;

/// Shown of each kind of unexplained difference.
const EXAMPLES: usize = 3;

/// What a parser makes of a message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Method or status.
    what: String,
    /// Empty for a response.
    uri: String,
    /// Values by name in full, lower case; each on one line.
    headers: BTreeMap<String, Vec<String>>,
    body: Option<Vec<u8>>,
}

/// A difference, and all that may explain it.
struct Case<'a> {
    oracle: &'static str,
    /// `takes ERROR` (of ours), `refuses`, `panics`, `what`, `uri`, `header NAME` or `body`.
    kind: &'a str,
    bytes: &'a [u8],
    ours: Option<&'a Said>,
    theirs: Option<&'a Said>,
}

mod habits;
use habits::HABITS;

/// The head, with the line end of its last line; all of it if no empty line ends it.
fn head_of(bytes: &[u8]) -> &[u8] {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    &bytes[..end.map_or(bytes.len(), |at| at + 2)]
}

/// A value on one line, with single spaces where it was folded or had more.
fn one_line(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn full_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let full = match lower.as_str() {
        "v" => "via",
        "f" => "from",
        "t" => "to",
        "i" => "call-id",
        "m" => "contact",
        "l" => "content-length",
        "c" => "content-type",
        "e" => "content-encoding",
        "k" => "supported",
        "s" => "subject",
        "o" => "event",
        "u" => "allow-events",
        "r" => "refer-to",
        "x" => "session-expires",
        "a" => "accept-contact",
        "j" => "reject-contact",
        "d" => "request-disposition",
        "y" => "identity",
        "b" => "referred-by",
        other => other,
    };
    full.to_owned()
}

/// The names whose values are compared, with how often each may stand.
const NAMES: &[&str] = &[
    "via",
    "from",
    "to",
    "call-id",
    "cseq",
    "contact",
    "route",
    "record-route",
    "max-forwards",
    "allow",
    "supported",
    "require",
    "content-type",
    "content-length",
    "expires",
    "event",
    "subscription-state",
    "session-expires",
    "min-se",
    "retry-after",
    "accept-contact",
    "p-asserted-identity",
    "p-charging-vector",
    "reason",
    "user-agent",
];

fn ours(bytes: &[u8]) -> Result<Said, String> {
    let mut table = HeaderTable::new();
    let message = parse(bytes, &mut table).map_err(|error| format!("{:?}", error.kind))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let what = if message.is_request() {
        text(message.method_bytes())
    } else {
        message.status().to_string()
    };
    let mut headers = BTreeMap::new();
    for name in NAMES {
        let known = HeaderName::lookup(name.as_bytes());
        let values: Vec<String> = if known == HeaderName::Other {
            let value = message.header_named(name.as_bytes());
            value.into_iter().map(one_line).collect()
        } else {
            message.headers(known).map(one_line).collect()
        };
        if !values.is_empty() {
            headers.insert((*name).to_owned(), values);
        }
    }
    Ok(Said {
        what,
        uri: text(message.request_uri()),
        headers,
        body: Some(message.body().to_vec()),
    })
}

fn collect(pairs: impl Iterator<Item = (String, String)>) -> BTreeMap<String, Vec<String>> {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in pairs {
        let name = full_name(&name);
        if NAMES.contains(&name.as_str()) {
            headers
                .entry(name)
                .or_default()
                .push(one_line(value.as_bytes()));
        }
    }
    headers
}

fn rsipstack(bytes: &[u8]) -> Result<Said, String> {
    use rsipstack::sip::SipMessage;
    let message =
        rsipstack::sip::parser::parse_message(bytes).map_err(|error| error.to_string())?;
    Ok(match message {
        SipMessage::Request(request) => Said {
            what: request.method.to_string(),
            uri: request.uri.to_string(),
            headers: collect(
                request
                    .headers
                    .iter()
                    .map(|one| (one.name().to_owned(), one.value().to_owned())),
            ),
            body: Some(request.body),
        },
        SipMessage::Response(response) => Said {
            what: response.status_code.code().to_string(),
            uri: String::new(),
            headers: collect(
                response
                    .headers
                    .iter()
                    .map(|one| (one.name().to_owned(), one.value().to_owned())),
            ),
            body: Some(response.body),
        },
    })
}

fn rust_rcs(bytes: &[u8]) -> Result<Said, String> {
    let mut parser = SipParser::new();
    parser.feed(bytes);
    let message = parser
        .produce()
        .map_err(str::to_owned)?
        .ok_or("waits for more")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().unwrap_or_default();
    let headers = collect(
        headers
            .iter()
            .map(|one| (text(one.get_name()), text(one.get_value()))),
    );
    let raw = |body: Option<std::sync::Arc<Body>>| match body.as_deref() {
        None => Some(Vec::new()),
        Some(Body::Raw(bytes)) => Some(bytes.clone()),
        // It was taken apart; its parts are not compared.
        Some(Body::Message(_) | Body::Multipart(_) | Body::Streamed(_)) => None,
    };
    let body = raw(message.get_body());
    match &message {
        RcsMessage::Request(line, ..) => Ok(Said {
            what: text(&line.method),
            uri: text(&line.uri),
            headers,
            body,
        }),
        RcsMessage::Response(line, ..) => Ok(Said {
            what: line.status_code.to_string(),
            uri: String::new(),
            headers,
            body,
        }),
        RcsMessage::Ping | RcsMessage::Pong => Err("a keep-alive".to_owned()),
    }
}

/// How two readings differ; nothing if they agree.
fn differences(ours: &Result<Said, String>, theirs: &Result<Said, String>) -> Vec<String> {
    match (ours, theirs) {
        (Err(_), Err(_)) => Vec::new(),
        (Err(kind), Ok(_)) => vec![format!("takes {kind}")],
        (Ok(_), Err(_)) => vec!["refuses".to_owned()],
        (Ok(a), Ok(b)) => {
            let mut found = Vec::new();
            if a.what != b.what {
                found.push("what".to_owned());
            }
            if a.uri != b.uri {
                found.push("uri".to_owned());
            }
            for name in NAMES {
                let (left, right) = (a.headers.get(*name), b.headers.get(*name));
                // Of a name unknown to ours only the first line can be asked for.
                let known = HeaderName::lookup(name.as_bytes()) != HeaderName::Other;
                let equal = if known {
                    left == right
                } else {
                    left.and_then(|all| all.first()) == right.and_then(|all| all.first())
                };
                if !equal {
                    found.push(format!("header {name}"));
                }
            }
            if let (Some(left), Some(right)) = (&a.body, &b.body)
                && left != right
            {
                found.push("body".to_owned());
            }
            found
        }
    }
}

fn explanation(case: &Case<'_>) -> Option<usize> {
    HABITS.iter().position(|habit| {
        habit.of.contains(&case.oracle)
            && habit.kinds.iter().any(|of| match of.strip_suffix('*') {
                Some(begin) => case.kind.starts_with(begin),
                None => case.kind == *of,
            })
            && (habit.shown)(case)
    })
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let ours = String::from_utf8(sip_messages::OK_INVITE.to_vec()).expect("text");
    let long = format!("\r\nX-Long: {}\r\nCSeq: ", "x".repeat(17 * 1024));
    let lower = ours.replace("SIP/2.0 200 OK", "invite sip:a@ims.example.net SIP/2.0");
    let mut all = vec![
        (
            "methods in lower case".to_owned(),
            lower.replace(" INVITE\r\n", " invite\r\n").into_bytes(),
        ),
        (
            "a long line".to_owned(),
            ours.replace("\r\nCSeq: ", &long).into_bytes(),
        ),
        ("a 200 of ours".to_owned(), ours.into_bytes()),
    ];
    let mut take = |directory: &Path| {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let extension = path.extension().unwrap_or_default();
            if extension == "msrp" || extension == "tsv" || extension == "md" || path.is_dir() {
                continue;
            }
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let bytes = std::fs::read(&path).expect("a readable file");
            if name.contains("msrp") || name == "INDEX.txt" {
                continue;
            }
            all.push((name, bytes));
        }
    };
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    take(&top.join("../data/flows"));
    match std::env::var_os("VOLLEY_TORTURE_DIR") {
        None => println!("VOLLEY_TORTURE_DIR is not set: no hostile messages"),
        Some(directory) => {
            let mut groups: Vec<_> = std::fs::read_dir(directory)
                .expect("the directory is there")
                .flatten()
                .map(|entry| entry.path())
                .collect();
            groups.sort();
            for group in groups {
                let name = group
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if group.is_dir() && !name.starts_with("own-") && name != "sdp" {
                    take(&group);
                }
            }
        }
    }
    all
}

/// The same mutations each run.
fn mutate(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound.max(1) as u64).expect("below a length")
    };
    let mut out = bytes.to_vec();
    const TEXTS: &[&[u8]] = &[
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"<",
        b">",
        b"\"",
        b"\n",
        b"=",
        b"@",
        b"\r\n ",
        b"\0",
        b"\xc3\xa9",
        b"0",
        b"SIP/2.0",
    ];
    for _ in 0..=below(2) {
        let at = below(out.len());
        match below(5) {
            0 => {
                out.remove(at.min(out.len() - 1));
            }
            1 => {
                let text = TEXTS[below(TEXTS.len())];
                out.splice(at..at, text.iter().copied());
            }
            2 => out[at] = b'a' + u8::try_from(below(26)).expect("a letter"),
            3 => out[at] ^= 0x20,
            _ => {
                let end = (at + below(40)).min(out.len());
                let piece = out[at..end].to_vec();
                let to = below(out.len());
                out.splice(to..to, piece);
            }
        }
        if out.is_empty() {
            break;
        }
    }
    out
}

/// What to show of a difference that nothing explains.
fn example(case: &Case<'_>, read: &std::thread::Result<Result<Said, String>>) -> String {
    let pick = |said: Option<&Said>| {
        let said = said?;
        Some(match case.kind.strip_prefix("header ") {
            Some(name) => format!("{:?}", said.headers.get(name)),
            None if case.kind == "body" => format!("{:?}", said.body.as_ref().map(Vec::len)),
            None => format!("{} {}", said.what, said.uri),
        })
    };
    let theirs = match read {
        Ok(Ok(said)) => pick(Some(said)),
        Ok(Err(why)) => Some(why.clone()),
        Err(_) => None,
    };
    let head = String::from_utf8_lossy(head_of(case.bytes)).into_owned();
    format!(
        "ours {:?}, theirs {theirs:?}\n{}",
        pick(case.ours),
        head.replace('\r', "\\r")
    )
}

type Oracle = (&'static str, fn(&[u8]) -> Result<Said, String>);

#[test]
fn every_difference_to_other_parsers_is_one_of_their_known_habits() {
    const ORACLES: [Oracle; 2] = [("rsipstack", rsipstack), ("rust-rcs-core", rust_rcs)];
    let hostile = std::env::var_os("VOLLEY_TORTURE_DIR").is_some();
    let corpus = corpus();
    assert!(
        corpus.len() > 40,
        "{} messages say too little",
        corpus.len()
    );
    let (mut compared, mut agreed) = (0_u64, 0_u64);
    let mut used = BTreeMap::new();
    let mut unknown: BTreeMap<String, (u32, Vec<String>)> = BTreeMap::new();
    // A parser that panics is a habit too, not this test's end.
    std::panic::set_hook(Box::new(|_| {}));
    for (name, message) in &corpus {
        for seed in 0..=MUTATIONS {
            let bytes = if seed == 0 {
                message.clone()
            } else {
                mutate(message, seed)
            };
            let own = ours(&bytes);
            for (oracle, read) in ORACLES {
                compared += 1;
                let read = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
                let kinds = match &read {
                    Ok(theirs) => differences(&own, theirs),
                    Err(_) => vec!["panics".to_owned()],
                };
                agreed += u64::from(kinds.is_empty());
                for kind in kinds {
                    let theirs = read.as_ref().ok().and_then(|said| said.as_ref().ok());
                    let case = Case {
                        oracle,
                        kind: &kind,
                        bytes: &bytes,
                        ours: own.as_ref().ok(),
                        theirs,
                    };
                    match explanation(&case) {
                        Some(habit) => *used.entry(habit).or_insert(0_u64) += 1,
                        None => {
                            let example = format!("{name} seed {seed}: {}", example(&case, &read));
                            let entry = unknown.entry(format!("{oracle} {kind}"));
                            let entry = entry.or_insert((0, Vec::new()));
                            entry.0 += 1;
                            if entry.1.len() < EXAMPLES {
                                entry.1.push(example);
                            }
                        }
                    }
                }
            }
        }
    }
    let _ = std::panic::take_hook();
    println!(
        "{} messages, {compared} readings, {agreed} agree; {} habits explain the others",
        corpus.len(),
        used.len()
    );
    for (kind, (count, examples)) in &unknown {
        println!("== {kind}, {count} times:\n{}", examples.join("\n-- "));
    }
    let kinds: Vec<_> = unknown.keys().collect();
    assert!(unknown.is_empty(), "no known habit explains: {kinds:#?}");
    let stale = HABITS
        .iter()
        .enumerate()
        .filter(|(at, habit)| !used.contains_key(at) && (hostile || !habit.only_hostile));
    let stale: Vec<_> = stale.map(|(_, habit)| habit.habit).collect();
    assert!(stale.is_empty(), "habits that nothing shows: {stale:#?}");
}

/// Where the others agree with each other and not with us, ours must not give in.
#[test]
fn what_is_ambiguous_is_refused_though_others_take_it() {
    let text = String::from_utf8(sip_messages::OK_INVITE.to_vec()).expect("text");
    let twice = |name: &str, value: &str| {
        let line = format!("\r\n{name}: ");
        assert!(text.contains(&line), "{name} is there");
        text.replacen(&line, &format!("\r\n{name}: {value}{line}"), 1)
    };
    for (name, value) in [
        ("Content-Length", "7"),
        ("Call-ID", "another@h"),
        ("CSeq", "9 INVITE"),
        ("To", "<sip:b@h>;tag=1"),
    ] {
        let bytes = twice(name, value).into_bytes();
        assert!(
            rsipstack(&bytes).is_ok() && rust_rcs(&bytes).is_ok(),
            "{name}"
        );
        assert!(ours(&bytes).is_err(), "two different {name}");
    }
}

/// The comparison sees what it is for.
#[test]
fn a_planted_difference_is_seen() {
    let bytes = sip_messages::OK_INVITE;
    let own = ours(bytes);
    for read in [rsipstack, rust_rcs] {
        let theirs = read(bytes);
        assert_eq!(differences(&own, &theirs), [""; 0]);
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        for (from, to) in [
            ("SIP/2.0 200", "SIP/2.0 202"),
            ("tag=phone-5d2f01", "tag=phone-5d2f02"),
            ("Supported: timer\r\n", ""),
            ("a=setup:active", "a=setup:actpas"),
        ] {
            let theirs = read(text.replace(from, to).as_bytes());
            assert!(!differences(&own, &theirs).is_empty(), "{from}");
        }
    }
}
