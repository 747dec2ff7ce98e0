//! Hostile peers: forged responses, and the templates beside the public messages.
//!
//! The templates are not part of the repository. Set `VOLLEY_TORTURE_DIR` to the directory that
//! holds them; without it those tests print one line and pass.

use std::path::PathBuf;

use crate::harness::script::{Answer, PHONE_PATH, USER, response};
use crate::harness::text::{Msrp, Sip, crlf};
use crate::harness::{Bench, SCSCF, addr, options, udp_options};
use volley::base::surface::LinkKind;

fn templates(group: &str) -> Vec<(String, Vec<u8>)> {
    let Some(directory) = std::env::var_os("VOLLEY_TORTURE_DIR").map(PathBuf::from) else {
        eprintln!("skipped: VOLLEY_TORTURE_DIR is not set");
        return Vec::new();
    };
    let mut found: Vec<_> = std::fs::read_dir(directory.join(group))
        .expect("the templates are there")
        .map(|entry| entry.expect("readable").path())
        .map(|path| {
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read(&path).expect("readable"))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no templates in {group}");
    found
}

fn fill(bytes: &[u8], values: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (name, value) in values {
        let hole = format!("@{name}@");
        let mut from = 0;
        while let Some(at) = crate::harness::text::find(&bytes[from..], hole.as_bytes()) {
            let at = from + at;
            bytes.splice(at..at + hole.len(), value.bytes());
            from = at + value.len();
        }
    }
    bytes
}

/// Content-Length made right again after filling.
fn with_length(bytes: Vec<u8>) -> Vec<u8> {
    let Some(head) = crate::harness::text::find(&bytes, b"\r\n\r\n") else {
        return bytes;
    };
    let Some(at) = crate::harness::text::find(&bytes[..head + 2], b"\r\nContent-Length: ") else {
        return bytes;
    };
    let start = at + 18;
    let end = start + crate::harness::text::find(&bytes[start..], b"\r\n").expect("a line end");
    let body = bytes.len() - head - 4;
    let mut out = bytes[..start].to_vec();
    out.extend_from_slice(body.to_string().as_bytes());
    out.extend_from_slice(&bytes[end..]);
    out
}

struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

// Proves: TX-8, TX-9, SDP-4
#[test]
fn a_hundred_thousand_forged_responses_change_nothing() {
    let mut bench = Bench::udp();
    let (invite, _) = bench.invited();
    let good = response(&invite, "200 OK", "f", &format!("Contact: <{USER}>\n"), "");
    let branch = invite
        .branch()
        .strip_prefix("z9hG4bK")
        .expect("the cookie")
        .to_owned();
    assert_eq!(good.matches(&branch).count(), 1);
    let mut random = Xorshift(0x5eed_1234_5678_9abc);
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    for _ in 0..100_000 {
        let mut forged = branch.clone().into_bytes();
        // Half of the forgers have seen a branch and change the end of it only.
        let from = if random.next() & 1 == 0 {
            0
        } else {
            forged.len() / 2
        };
        for slot in &mut forged[from..] {
            *slot = alphabet[usize::try_from(random.next() % 32).expect("small")];
        }
        let forged = String::from_utf8(forged).expect("ASCII");
        let text = good.replace(&branch, &forged);
        let link = bench.udp.expect("a socket");
        let input = volley::base::surface::Input::Datagram {
            link,
            source: addr(SCSCF),
            bytes: text.as_bytes(),
        };
        bench.shard.handle(bench.now, input);
    }
    bench.pump();
    bench.expect_quiet();
    assert_eq!(bench.counter("responses_forged_total"), 100_000);
    assert_eq!((bench.pushes(), bench.messages()), (1, 1));
    bench.bound(&invite, &Answer::active());
}

/// What became of a push whose INVITE got a template as its answer.
fn after_response(name: &str, bytes: &[u8]) -> (Bench, Sip) {
    let mut options = udp_options();
    options.push.media_guard = name.contains("ssrf");
    let mut bench = Bench::with(options);
    let (invite, _) = bench.invited();
    let cseq = invite.cseq().to_string();
    let via = invite.get("Via").to_owned();
    let values = [
        ("VIA", via.as_str()),
        ("VIA_UPPER", via.as_str()),
        ("FROM", invite.get("From")),
        ("TO", invite.get("To")),
        ("CALLID", invite.call_id()),
        ("CSEQ", cseq.as_str()),
        ("PEER", SCSCF),
        ("PPORT", "5060"),
        ("MPEER", "198.51.100.7:2855"),
        ("MPORT", "2855"),
        ("ADMIN", "9"),
    ];
    if name == "to-tag-fork" {
        bench.send_200(&invite, &Answer::passive());
        bench.take_sip();
    }
    let mut filled = fill(bytes, &values);
    if name == "trail-garbage" {
        // The length is that of the description; what follows it is the garbage.
        let end = crate::harness::text::find(&filled, b"a=setup:passive\r\n").expect("SDP") + 17;
        let garbage = filled.split_off(end);
        filled = with_length(filled);
        filled.extend_from_slice(&garbage);
    } else if !name.starts_with("cl-") {
        filled = with_length(filled);
    }
    bench.datagram(addr(SCSCF), &filled);
    (bench, invite)
}

/// The messages of the templates that end in ACK and BYE, in discarding, and in ACK alone.
const ENDED: &[&str] = &[
    "contact-javascript",
    "sdp-no-path",
    "sdp-none",
    "sdp-path-hops",
    "sdp-path-ssrf-meta",
    "sdp-setup-holdconn",
    "sdp-two-m",
    "sdp-types-none",
];
const DISCARDED: &[&str] = &[
    "callid-other",
    "cl-two",
    "cseq-method",
    "hdr-bare-cr",
    "hdr-empty-name",
    "r100rel",
    "r700",
    "via-wrong-branch",
];
const REFUSED: &[&str] = &["r302-evil", "r401", "r422-huge", "r503-max"];
const AGREED: &[&str] = &[
    "contact-crlf-fold",
    "ok",
    "rr-strict",
    "sdp-lf",
    "se-absent",
    "se-max",
    "se-zero",
    "trail-garbage",
];

// Proves: BAD-19, BAD-24, BAD-25, SDP-21, DLG-13, ST-7
#[test]
fn answers_written_against_this_engine_get_their_verdict() {
    for (name, bytes) in templates("own-response") {
        let (mut bench, invite) = after_response(&name, &bytes);
        let sent: Vec<String> = bench
            .take_sip()
            .iter()
            .map(|m| m.what().to_owned())
            .collect();
        let name = name.as_str();
        if ENDED.contains(&name) {
            assert!(
                sent == ["ACK", "BYE"] || sent == ["ACK"],
                "{name}: {sent:?}"
            );
            assert!(bench.connects.is_empty(), "{name} connected");
        } else if DISCARDED.contains(&name) {
            assert!(sent.is_empty(), "{name}: {sent:?}");
            assert_eq!(bench.pushes(), 1, "{name}");
        } else if REFUSED.contains(&name) {
            assert_eq!(sent, ["ACK"], "{name}");
            bench.run_s(1);
            bench.take_sip();
        } else if AGREED.contains(&name) {
            assert_eq!(sent, ["ACK"], "{name}");
            assert_eq!(bench.connects.len(), 1, "{name}");
        } else if name == "to-tag-fork" {
            assert_eq!(sent, ["ACK", "BYE"], "{name}");
            assert_eq!(bench.connects.len(), 1, "{name}");
        } else {
            assert!(
                sent.iter()
                    .all(|what| ["ACK", "BYE"].contains(&what.as_str())),
                "{name}"
            );
        }
        assert_eq!(bench.messages(), 1, "{name}: nothing is lost or delivered");
        let text = invite.text;
        assert!(!text.contains("evil"));
        works_on(&mut bench, name);
    }
}

/// The next good message on a fresh transaction works.
fn works_on(bench: &mut Bench, name: &str) {
    bench.take_sip();
    let text = bench.deposit_text("sip:+15550999@ims.example.net", "next", "");
    bench.sip_in(&text);
    let sent = bench.take_sip();
    assert!(
        sent.iter().any(|m| m.what() == "202"),
        "after {name}: {sent:?}"
    );
}

// Proves: BAD-17, BAD-21, SUB-8, SX-3, DLG-6, ST-14, NH-10
#[test]
fn requests_written_against_this_engine_get_their_verdict() {
    for (name, bytes) in templates("own-request") {
        let mut bench = Bench::udp();
        let (session, notifier, _) = bench.sending();
        let remote = format!("<{USER}>;tag={}", session.answer.tag);
        let sub_from = format!("<sip:cpm-pf@ims.example.net>;tag={}", notifier.our_tag);
        let sub_to = format!("<{USER}>;tag={}", notifier.tag);
        let values = [
            ("PEER", SCSCF),
            ("ENGINE", "sip:push@pf1.ims.example.net:5060"),
            ("ENGINEHP", "pf1.ims.example.net:5060"),
            ("LCALL", session.invite.call_id()),
            ("LFROM", session.invite.get("From")),
            ("LTO", remote.as_str()),
            ("SUBCALL", notifier.call_id.as_str()),
            ("SUBFROM", sub_from.as_str()),
            ("SUBTO", sub_to.as_str()),
            ("RND", "r4nd0m"),
            ("MPORT", "2855"),
            ("MPEER", "198.51.100.7:2855"),
        ];
        let mut filled = fill(&bytes, &values);
        if !name.starts_with("tcp-") {
            filled = with_length(filled);
        }
        let invites = bench.counter("invites_sent_total");
        request_case(&mut bench, &name, &filled);
        assert_eq!(
            bench.counter("invites_sent_total"),
            invites,
            "{name} pushed"
        );
        works_on(&mut bench, &name);
    }
}

fn request_case(bench: &mut Bench, name: &str, filled: &[u8]) {
    let source = if name == "bye-offdialog-source" {
        addr("203.0.113.3:5060")
    } else {
        addr(SCSCF)
    };
    if name.starts_with("tcp-") {
        let link = bench.open(LinkKind::SipInbound, source);
        bench.feed(link, filled);
        assert_eq!(bench.is_open(link), name != "tcp-http", "{name}");
        bench.expect_quiet();
        return;
    }
    bench.datagram(source, filled);
    let expected: &[&str] = match name {
        "ack-stray" | "bye-offdialog-source" => &[],
        "bye-ok" | "rport-forged" | "options-1e5" => &["200"],
        "bye-no-to-tag" | "notify-wrong-tag" => &["481"],
        // From a trusted core: judged like a first answer; what was under way starts again there.
        "reinvite-path-steal" => &["488", "200"],
        "update-se" => &["422", "200"],
        "register-stray" => &["405", "404"],
        "notify-old-cseq" => &["500"],
        "notify-no-substate" => &["400"],
        "notify-gzip" | "notify-multipart" => &["415"],
        _ => &["200", "400"],
    };
    let sent = bench.take_sip();
    let answers: Vec<_> = sent
        .iter()
        .filter(|m| m.start.starts_with("SIP/2.0"))
        .collect();
    assert_eq!(
        answers.len(),
        usize::from(!expected.is_empty()),
        "{name}: {sent:?}"
    );
    for answer in answers {
        assert!(
            expected.contains(&answer.what()),
            "{name}: {}",
            answer.start
        );
        assert_eq!(
            answer.to,
            Some(source),
            "{name}: back to where it came from"
        );
    }
}

// Proves: BAD-26, MSRP-13, MSRP-15, MSRP-22, MSRP-26
#[test]
fn frames_written_against_this_engine_get_their_verdict() {
    for (name, bytes) in templates("own-msrp") {
        let mut bench = Bench::new();
        let (_, _, send) = bench.sending();
        let (_, _, total) = send.range();
        let total = total.to_string();
        let values = [
            ("TID", send.tid.as_str()),
            ("FROMPATH", send.get("From-Path")),
            ("TOPATH", send.get("To-Path")),
            ("MSGID", send.get("Message-ID")),
            ("MSGID_OTHER", "v0000000000000001.00"),
            ("LEN", total.as_str()),
        ];
        let filled = fill(&bytes, &values);
        bench.feed(send.link, &filled);
        msrp_case(&mut bench, &name, &send);
        assert_eq!(
            bench.counter("delivered_total"),
            0,
            "{name} counts as delivered"
        );
        works_on(&mut bench, &name);
    }
}

fn msrp_case(bench: &mut Bench, name: &str, send: &Msrp) {
    let frames = bench.take_msrp();
    let sent = bench.take_sip();
    let ended = sent.iter().any(|m| m.what() == "BYE");
    match name {
        "413" => assert!(!ended, "{name}"),
        "481" | "999" | "report-413" => {}
        "binary" | "endline-badflag" | "hdr-long" | "lf-only" | "path-missing" | "path-1000"
        | "status-4digits" | "tid-3" => {
            bench.run_s(31);
            assert!(!bench.is_open(send.link), "{name} stays open");
        }
        "method-unknown" => assert_eq!(frames[0].what, "501"),
        "send-huge-total" => assert!(["403", "413"].contains(&frames[0].what.as_str())),
        "range-reversed" => assert_eq!(frames[0].what, "400"),
        _ => assert!(frames.is_empty() && !ended, "{name}: {frames:?} {sent:?}"),
    }
    if name == "481" {
        assert!(ended);
    }
}

// Proves: MSRP-2
#[test]
fn a_phone_that_claims_to_be_another_changes_nothing() {
    let mut bench = Bench::new();
    let (_, _, send) = bench.sending();
    let other = crlf(&format!(
        "MSRP {} 200 OK\nTo-Path: {}\nFrom-Path: msrp://203.0.113.4:2855/x;tcp\n-------{}$\n",
        send.tid,
        send.get("From-Path"),
        send.tid
    ));
    bench.feed(send.link, other.as_bytes());
    assert_eq!(bench.counter("msrp_rejected_total"), 1);
    assert_eq!(send.get("To-Path"), PHONE_PATH);
    bench.run_s(10);
    assert_eq!(bench.messages(), 1, "it was not taken for a confirmation");
}

// Proves: MSRP-19, BAD-26
#[test]
fn connections_that_come_and_go_leave_the_timers_of_others_alone() {
    let mut options = options();
    (options.users_max, options.pushes_max) = (16, 16);
    options.pushes_warm = 4;
    let mut bench = Bench::with(options);
    bench.reuse_links = true;
    let peer = addr("198.51.100.9:40000");
    for _ in 0..36_000 {
        let link = bench.open(LinkKind::MsrpInbound, peer);
        bench.feed(link, b"M");
        bench.close(link);
    }
    // As many as stay take no more than their share.
    for _ in 0..62_000 {
        let link = bench.open(LinkKind::MsrpInbound, peer);
        bench.feed(link, b"M");
    }
    let (invite, _) = bench.invited();
    bench.reply(&invite, "486 Busy Here", "");
    bench.expect("ACK");
    bench.run_s(11);
    assert!(bench.counter("streams_broken_total") > 60_000);
}
