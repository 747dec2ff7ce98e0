use super::*;
use crate::base::time::UnixMillis;

const STORED: &[u8] = include_bytes!("golden/f6-01-cpim.txt");
const DELIVERED: &[u8] = include_bytes!("golden/f1-07-cpim.txt");
const NOTICE: &[u8] = include_bytes!("golden/f6-03-cpim.txt");
const CONVERSATION: &[u8] = b"4f93f0fe-86d6-462c-9ba2-e4bc3d1cafcc";
const CONTRIBUTION: &[u8] = b"94d850fb-ed40-437e-9609-de9ea0e393d9";

/// A message whose headers are From, To and `lines`.
fn with(lines: &str) -> Vec<u8> {
    format!("From: <sip:a@b>\r\nTo: <sip:c@d>\r\n{lines}\r\nContent-Type: text/plain\r\n\r\nhi")
        .into_bytes()
}

fn kind_of(bytes: &[u8]) -> CpimErrorKind {
    parse(bytes).expect_err("refused").kind
}

// Proves: CPIM-2, IMDN-1
#[test]
fn golden_messages_are_read() {
    let cpim = parse(DELIVERED).unwrap();
    assert_eq!(
        address_uri(cpim.find_core(b"From").unwrap()).unwrap(),
        b"sip:+15550177@ims.example.net"
    );
    assert_eq!(
        cpim.find_core(b"DateTime"),
        Some(&b"2026-11-22T05:58:01Z"[..])
    );
    assert_eq!(
        cpim.find_imdn(b"Message-ID"),
        Some(&b"0a76cec9c5f44f1da502"[..])
    );
    let wanted = &b"positive-delivery, negative-delivery"[..];
    assert_eq!(cpim.find_imdn(b"Disposition-Notification"), Some(wanted));
    assert_eq!(cpim.find_cpm(b"Conversation-ID"), Some(CONVERSATION));
    assert_eq!(cpim.find_cpm(b"Contribution-ID"), Some(CONTRIBUTION));
    assert_eq!(cpim.find_cpm(b"InReplyTo-Contribution-ID"), None);
    assert_eq!(cpim.content_type(), b"text/plain; charset=UTF-8");
    assert!(is_type(cpim.content_type(), b"text/plain"));
    assert_eq!(cpim.content(), b"Running late, start without me.");
    assert_eq!(cpim.headers().count(), 9);
    let notice = parse(NOTICE).unwrap();
    assert_eq!(
        notice.mime_header(b"content-disposition"),
        Some(&b"notification"[..])
    );
    assert_eq!(notice.content().len(), 434);
}

// Proves: CPIM-5, CPIM-1, IMDN-1
#[test]
fn the_cpm_identifiers_are_inserted_once() {
    let mut out = Vec::new();
    ensure_cpm_headers(STORED, CONVERSATION, CONTRIBUTION, b"", &mut out).unwrap();
    assert_eq!(out, DELIVERED);
    let mut again = Vec::new();
    ensure_cpm_headers(&out, b"other", b"another", b"", &mut again).unwrap();
    assert_eq!(again, DELIVERED, "what is there stays");
    again.clear();
    ensure_cpm_headers(&out, b"", b"", b"reply-1", &mut again).unwrap();
    let cpim = parse(&again).unwrap();
    assert_eq!(
        cpim.find_cpm(b"InReplyTo-Contribution-ID"),
        Some(&b"reply-1"[..])
    );
    assert_eq!(cpim.content(), parse(STORED).unwrap().content());
    let count = cpim.headers().filter(|header| header.name == b"NS").count();
    assert_eq!(count, 2, "the known prefix is used");
    again.clear();
    ensure_cpm_headers(STORED, b"", b"", b"", &mut again).unwrap();
    assert_eq!(again, STORED);
}

// Proves: CPIM-5
#[test]
fn the_identifiers_take_the_prefix_that_the_sender_chose() {
    let own = with("NS: x <http://www.openmobilealliance.org/cpm/>\r\nx.Conversation-ID: c1\r\n");
    let mut out = Vec::new();
    ensure_cpm_headers(&own, b"c2", b"k2", b"", &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("x.Conversation-ID: c1\r\nx.Contribution-ID: k2\r\n\r\n"),
        "{text}"
    );
    let default = with("NS: <http://www.openmobilealliance.org/cpm/>\r\n");
    let mut out = Vec::new();
    ensure_cpm_headers(&default, b"c2", b"", b"", &mut out).unwrap();
    assert_eq!(
        parse(&out).unwrap().find_cpm(b"Conversation-ID"),
        Some(&b"c2"[..])
    );
    let taken = with("NS: cpm <urn:something>\r\ncpm.Conversation-ID: no\r\n");
    let mut out = Vec::new();
    ensure_cpm_headers(&taken, b"c2", b"", b"", &mut out).unwrap();
    let cpim = parse(&out).unwrap();
    assert_eq!(cpim.find_cpm(b"Conversation-ID"), Some(&b"c2"[..]));
    assert_eq!(
        cpim.find(b"urn:something", b"Conversation-ID"),
        Some(&b"no"[..])
    );
}

// Proves: CPIM-3, CPIM-4
#[test]
fn plain_content_is_wrapped_with_three_headers() {
    let fields = TextFields {
        from: b"sip:+15550177@ims.example.net",
        to: b"sip:+15550100@ims.example.net",
        when: UnixMillis::from_secs(1_795_327_081),
        content_type: b"text/plain; charset=UTF-8",
        content: b"Running late, start without me.",
    };
    let mut out = Vec::new();
    wrap_text(&fields, &mut out).unwrap();
    assert_eq!(
        out,
        b"From: <sip:+15550177@ims.example.net>\r\nTo: <sip:+15550100@ims.example.net>\r\n\
          DateTime: 2026-11-22T05:58:01Z\r\n\r\nContent-Type: text/plain; charset=UTF-8\r\n\r\n\
          Running late, start without me."
    );
    assert_eq!(parse(&out).unwrap().content(), fields.content);
    out.clear();
    wrap_text(
        &TextFields {
            from: ANONYMOUS,
            ..fields
        },
        &mut out,
    )
    .unwrap();
    assert!(out.starts_with(b"From: <sip:anonymous@anonymous.invalid>\r\n"));
    out.clear();
    for bad in [
        TextFields {
            from: b"sip:a>\r\nX: y",
            ..fields
        },
        TextFields { to: b"", ..fields },
        TextFields {
            to: b"sip:a b",
            ..fields
        },
        TextFields {
            content_type: b"text/plain\r\nX: y",
            ..fields
        },
    ] {
        assert_eq!(
            wrap_text(&bad, &mut out).unwrap_err().kind,
            CpimErrorKind::BadValue
        );
    }
    let bad = ensure_cpm_headers(STORED, b"a\r\nTo: <x>", b"", b"", &mut out).unwrap_err();
    assert_eq!((bad.kind, bad.sip_status()), (CpimErrorKind::BadValue, 400));
    assert!(out.is_empty());
}

// Proves: CPIM-2
#[test]
fn names_keep_their_case_and_prefixes_their_namespace() {
    let bytes = with(
        "NS: a <urn:ietf:params:imdn>\r\nMessage-ID: core\r\na.message-id: lower\r\n\
         b.Message-ID: unbound\r\na.Message-ID: right\r\nNS: a <urn:else>\r\na.Message-ID: late\r\n\
         Subject:;lang=fr Objet\r\n",
    );
    let cpim = parse(&bytes).unwrap();
    assert_eq!(cpim.find_imdn(b"Message-ID"), Some(&b"right"[..]));
    assert_eq!(cpim.find(b"urn:else", b"Message-ID"), Some(&b"late"[..]));
    assert_eq!(cpim.find_core(b"Message-ID"), Some(&b"core"[..]));
    assert_eq!(cpim.find_core(b"from"), None);
    let subject = cpim
        .headers()
        .find(|header| header.name == b"Subject")
        .unwrap();
    assert_eq!(
        (subject.params, subject.value),
        (&b";lang=fr"[..], &b"Objet"[..])
    );
}

// Proves: CPIM-2
#[test]
fn required_headers_must_be_known() {
    for fine in [
        "Require: From, DateTime\r\n",
        "NS: i <urn:ietf:params:imdn>\r\nRequire: i.Message-ID,i.Disposition-Notification\r\n",
        "NS: c <http://www.openmobilealliance.org/cpm/>\r\nRequire: c.Conversation-ID\r\n",
    ] {
        assert!(parse(&with(fine)).is_ok(), "{fine}");
    }
    for unknown in [
        "Require: Vitality\r\n",
        "Require: imdn.Message-ID\r\n",
        "NS: v <urn:vital>\r\nRequire: v.Features\r\n",
        "Require: From,,To\r\n",
    ] {
        let error = parse(&with(unknown)).unwrap_err();
        assert_eq!(
            (error.kind, error.sip_status()),
            (CpimErrorKind::Require, 415),
            "{unknown}"
        );
    }
}

// Proves: CPIM-1, CPIM-2
#[test]
fn malformed_messages_are_refused() {
    let from_only = b"From: <sip:a@b>\r\n\r\n\r\n";
    assert_eq!(kind_of(from_only), CpimErrorKind::MissingAddress);
    assert_eq!(kind_of(b"\r\n\r\nhi"), CpimErrorKind::MissingAddress);
    assert_eq!(kind_of(b""), CpimErrorKind::Truncated);
    assert_eq!(
        kind_of(b"From: <a>\r\nTo: <b>\r\n"),
        CpimErrorKind::Truncated
    );
    assert_eq!(
        kind_of(b"From: <a>\r\nTo: <b>\r\n\r\nX: y\r\n"),
        CpimErrorKind::Truncated
    );
    for (line, kind) in [
        ("nocolon\r\n", CpimErrorKind::Header),
        ("Subject:nospace\r\n", CpimErrorKind::Header),
        (": x\r\n", CpimErrorKind::Header),
        (".x: y\r\n", CpimErrorKind::Header),
        ("a.b.c: y\r\n", CpimErrorKind::Header),
        ("a b: y\r\n", CpimErrorKind::Header),
        ("Subject: a\rb\r\n", CpimErrorKind::Header),
        ("Subject: a\nb\r\n", CpimErrorKind::Header),
        ("Subject: a\0b\r\n", CpimErrorKind::Header),
        ("NS: imdn urn:x\r\n", CpimErrorKind::Namespace),
        ("NS: a b <urn:x>\r\n", CpimErrorKind::Namespace),
    ] {
        assert_eq!(kind_of(&with(line)), kind, "{line}");
    }
    let mut bytes = with("Subject: x\r\n");
    let at = bytes.iter().position(|&c| c == b'x').unwrap();
    bytes[at] = 0xff;
    assert_eq!(kind_of(&bytes), CpimErrorKind::Utf8);
    assert_eq!(
        kind_of(&with(&"A: b\r\n".repeat(70))),
        CpimErrorKind::TooLong
    );
    assert_eq!(
        kind_of(&with(&format!("A: {}\r\n", "b".repeat(9000)))),
        CpimErrorKind::TooLong
    );
    let many: String = (0..9).map(|n| format!("NS: p{n} <urn:{n}>\r\n")).collect();
    assert_eq!(kind_of(&with(&many)), CpimErrorKind::Namespace);
}

#[test]
fn a_part_may_have_no_headers_or_folded_ones() {
    let bare = parse(b"From: <a>\r\nTo: <b>\r\n\r\n\r\nbody\r\n\r\nmore").unwrap();
    assert_eq!(
        (bare.content_type(), bare.content()),
        (&b"text/plain"[..], &b"body\r\n\r\nmore"[..])
    );
    let folded = b"From: <a>\r\nTo: <b>\r\n\r\nX: 1\r\nCONTENT-type: a/b;\r\n c=d\r\nY: 2\r\n\r\nz";
    let folded = parse(folded).unwrap();
    assert_eq!(folded.content_type(), b"a/b;\r\n c=d");
    assert_eq!(folded.mime_header(b"Y"), Some(&b"2"[..]));
    assert_eq!(folded.mime_header(b"Z"), None);
}

// Proves: CPIM-2
#[test]
fn escapes_are_resolved() {
    for (escaped, plain) in [
        (&br"plain"[..], &b"plain"[..]),
        (br"a\\b\'c\qd", b"a\\b'c\\qd"),
        (br"\t\n\r\b", b"\t\n\r\x08"),
        (br"caf\u00E9 \u20ac", "caf\u{e9} \u{20ac}".as_bytes()),
        (br"\ud800 \u12", br"\ud800 \u12"),
        (b"end\\", b"end\\"),
        (b"\\\"", b"\""),
    ] {
        let mut out = Vec::new();
        unescape(escaped, &mut out);
        assert_eq!(out, plain, "{}", escaped.escape_ascii());
    }
}

#[test]
fn addresses_give_their_uri() {
    assert_eq!(address_uri(b"\"A <x>\" <sip:a@b>"), Some(&b"sip:a@b"[..]));
    assert_eq!(
        address_uri(b"MR SANDERS <im:piglet@100akerwood.com>"),
        Some(&b"im:piglet@100akerwood.com"[..])
    );
    assert_eq!(address_uri(b"<>"), None);
    assert_eq!(address_uri(b"sip:a@b"), None);
}

/// What a plain reading by lines says of a value: the oracle of [`Cpim::find_core`].
fn oracle_core(bytes: &[u8], name: &str) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let head = text.split("\r\n\r\n").next().unwrap();
    head.split("\r\n").find_map(|line| {
        let (left, right) = line.split_once(':')?;
        let (params, value) = right.split_once(' ')?;
        let named = left == name && (params.is_empty() || params.starts_with(';'));
        named.then(|| value.as_bytes().trim_ascii().to_vec())
    })
}

// Proves: CPIM-2, BAD-31
#[test]
fn mutated_messages_never_panic_and_what_is_accepted_agrees_with_a_plain_reading() {
    let mut state = 0x1357_9bdf_0246_8ace_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % bound.max(1)
    };
    let pieces: [&[u8]; 12] = [
        b"\r\n",
        b"\r",
        b"\n",
        b":",
        b" ",
        b".",
        b"<",
        b">",
        b"NS: ",
        b"Require: x\r\n",
        b"\\u",
        b"\0",
    ];
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = [STORED, DELIVERED, NOTICE][round % 3].to_vec();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            let end = (at + below(30)).min(bytes.len());
            match below(4) {
                0 if !bytes.is_empty() => bytes[at] = u8::try_from(below(256)).unwrap(),
                1 => drop(bytes.drain(at..end)),
                2 => bytes.truncate(at.max(below(bytes.len()))),
                _ => {
                    let piece = pieces[below(pieces.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
        let Ok(cpim) = parse(&bytes) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        for name in ["From", "To", "DateTime"] {
            let found = cpim.find_core(name.as_bytes()).map(<[u8]>::to_vec);
            assert_eq!(found, oracle_core(&bytes, name), "{}", bytes.escape_ascii());
        }
        assert!(bytes.ends_with(cpim.content()));
        let mut out = Vec::new();
        ensure_cpm_headers(&bytes, b"c", b"k", b"r", &mut out).unwrap_or_else(|error| {
            panic!("{error:?}: {}", bytes.escape_ascii());
        });
        let both = parse(&out).map(|added| (added.content(), added.find_cpm(b"Conversation-ID")));
        // One line too many or a namespace too many may turn a message at the limit into none.
        if let Ok((content, conversation)) = both {
            assert_eq!(content, cpim.content());
            assert!(conversation.is_some());
        }
    }
    assert!(accepted > 2000 && refused > 2000, "{accepted} {refused}");
}

/// What the quick pass takes the careful one takes too, and both find the same.
fn agree(bytes: &[u8]) -> bool {
    let quick = read_quickly(bytes);
    if let Some(quick) = &quick {
        assert_eq!(
            Ok(*quick),
            read_carefully(bytes),
            "{}",
            bytes.escape_ascii()
        );
        for (uri, name, found) in [
            (NS_IMDN, &b"Message-ID"[..], quick.known.message_id),
            (
                NS_IMDN,
                b"Disposition-Notification",
                quick.known.disposition,
            ),
            (NS_CPM, b"Conversation-ID", quick.known.conversation),
            (NS_CPM, b"Contribution-ID", quick.known.contribution),
            (
                NS_CPM,
                b"InReplyTo-Contribution-ID",
                quick.known.in_reply_to,
            ),
        ] {
            assert_eq!(quick.find(uri, name), found, "{}", bytes.escape_ascii());
        }
        assert_eq!(quick.mime_header(b"Content-Type"), quick.known.content_type);
    }
    quick.is_some()
}

#[test]
fn the_quick_pass_agrees_with_the_careful_one_under_every_small_change() {
    let own = with(
        "NS: <urn:ietf:params:imdn>\r\nMessage-ID: m\r\nNS: a <http://www.openmobilealliance.org/cpm/>\r\n\
         a.Contribution-ID: k\r\nSubject:;lang=de Gr\u{fc}\u{df}e\tan alle\r\nNS: a <urn:x>\r\na.Conversation-ID: c\r\n",
    );
    for sample in [STORED, DELIVERED, NOTICE, &own] {
        assert!(agree(sample), "the plain form is taken quickly");
        let mut bytes = sample.to_vec();
        for at in 0..bytes.len().min(700) {
            for c in *b"\r\n\t :.;<aN\x00\x7f\x80\xc3" {
                let old = core::mem::replace(&mut bytes[at], c);
                agree(&bytes);
                bytes[at] = old;
            }
            let gone = bytes.remove(at);
            agree(&bytes);
            bytes.insert(at, gone);
            agree(&bytes[..at]);
        }
    }
    let line = "X: y\r\n";
    for lines in [60, 61, 62, 63, 64] {
        assert_eq!(agree(&with(&line.repeat(lines))), lines <= 62);
    }
    let room = HEADER_BYTES_MAX - with("X: \r\n").iter().position(|&c| c == b'X').unwrap();
    for len in room - 12..room {
        agree(&with(&format!("X: {}\r\n", "y".repeat(len))));
    }
}

// Proves: CPIM-2
#[test]
fn what_is_added_counts_against_the_limits_of_the_header_section() {
    let mut out = Vec::new();
    let full = with(&"X: y\r\n".repeat(61));
    let error = ensure_cpm_headers(&full, b"c", b"", b"", &mut out).unwrap_err();
    assert_eq!(error.kind, CpimErrorKind::TooLong);
    let namespaces: String = (0..8).map(|at| format!("NS: p{at} <urn:x>\r\n")).collect();
    let error = ensure_cpm_headers(&with(&namespaces), b"c", b"", b"", &mut out).unwrap_err();
    assert_eq!(error.kind, CpimErrorKind::Namespace);
    let long = with(&format!("X: {}\r\n", "y".repeat(8100)));
    let error = ensure_cpm_headers(&long, b"c", b"", b"", &mut out).unwrap_err();
    assert_eq!(error.kind, CpimErrorKind::TooLong);
    assert!(out.is_empty());
    let taken = namespaces.replace("p3", "cpm");
    ensure_cpm_headers(&with(&taken), b"c", b"", b"", &mut out).unwrap();
    assert_eq!(
        parse(&out).unwrap().find_cpm(b"Conversation-ID"),
        Some(&b"c"[..])
    );
}
