use super::*;
use crate::base::time::UnixMillis;

const NOTICE: &[u8] = include_bytes!("../cpim/golden/f6-03-cpim.txt");
const STORED: &[u8] = include_bytes!("../cpim/golden/f6-01-cpim.txt");

fn fields() -> NoticeFields<'static> {
    NoticeFields {
        from: b"sip:+15550100@ims.example.net",
        to: b"sip:+15550177@ims.example.net",
        now: UnixMillis::from_secs(1_795_413_481),
        notice_id: b"5d0f1a7be2c94c7f8a11",
        message_id: b"0a76cec9c5f44f1da502",
        message_datetime: b"2026-11-22T05:58:01Z",
        recipient_uri: b"sip:+15550100@ims.example.net",
        original_recipient_uri: b"sip:+15550100@ims.example.net",
        status: NoticeStatus::Failed,
    }
}

// Proves: IMDN-6
#[test]
fn a_failed_notice_is_the_golden_bytes() {
    let mut out = Vec::new();
    encode_failed(&fields(), &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(NOTICE)
    );
    let cpim = cpim::parse(&out).unwrap();
    assert!(is_notice(&cpim));
    assert_eq!(
        cpim.find_imdn(b"Disposition-Notification"),
        None,
        "asks for nothing itself"
    );
    let length = cpim.mime_header(b"Content-Length").unwrap();
    assert_eq!(length, cpim.content().len().to_string().as_bytes());
}

// Proves: IMDN-3, IMDN-6
#[test]
fn every_status_is_read_back_and_none_of_ours_says_delivered() {
    for (status, kind, read) in [
        (NoticeStatus::Error, "delivery", ImdnStatus::Error),
        (NoticeStatus::Failed, "delivery", ImdnStatus::Failed),
        (NoticeStatus::Forbidden, "delivery", ImdnStatus::Forbidden),
        (NoticeStatus::Stored, "processing", ImdnStatus::Stored),
    ] {
        let mut out = Vec::new();
        let odd = NoticeFields {
            status,
            recipient_uri: b"sip:a@b;x=<&>\"",
            original_recipient_uri: b"",
            notice_id: b"n1\r\nX: y",
            ..fields()
        };
        encode_notice(&odd, &mut out);
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(text.contains(&format!("<{kind}-notification>")));
        assert!(text.contains("<recipient-uri>sip:a@b;x=&lt;&amp;&gt;&quot;</recipient-uri>"));
        assert!(!text.contains("original-recipient-uri"));
        assert!(
            text.contains("imdn.Message-ID: n1X: y\r\n"),
            "no line is smuggled in"
        );
        let notice = extract(b"message/cpim", &out).unwrap();
        assert_eq!(
            notice,
            Imdn {
                message_id: b"0a76cec9c5f44f1da502",
                status: read
            }
        );
        assert_ne!(notice.status, ImdnStatus::Delivered);
    }
}

// Proves: IMDN-3
#[test]
fn a_notice_is_due_once_and_only_when_asked_for() {
    let asked = Requested::of(&cpim::parse(STORED).unwrap());
    let both = Requested {
        positive_delivery: true,
        negative_delivery: true,
        ..Requested::default()
    };
    assert_eq!(asked, both);
    let silent = Requested {
        positive_delivery: true,
        ..Requested::default()
    };
    for (requested, ending, is_notice, already_sent, due) in [
        (
            asked,
            Ending::Expired,
            false,
            false,
            Some(NoticeStatus::Failed),
        ),
        (
            asked,
            Ending::Refused,
            false,
            false,
            Some(NoticeStatus::Forbidden),
        ),
        (asked, Ending::Delivered, false, false, None),
        (asked, Ending::RefusedAtIntake, false, false, None),
        (asked, Ending::Expired, false, true, None),
        (asked, Ending::Expired, true, false, None),
        (silent, Ending::Expired, false, false, None),
        (Requested::default(), Ending::Refused, false, false, None),
    ] {
        assert_eq!(
            notice_due(requested, ending, is_notice, already_sent),
            due,
            "{ending:?}"
        );
    }
}

#[test]
fn requests_are_read_word_by_word() {
    let all = Requested::read(b"Positive-Delivery;x=y,negative-delivery , processing,display,odd");
    assert!(all.positive_delivery && all.negative_delivery && all.processing && all.display);
    assert_eq!(Requested::read(b"positive-deliver"), Requested::default());
    assert_eq!(Requested::read(b""), Requested::default());
}

fn notice(kind: &str, status: &str) -> String {
    format!(
        "\u{feff}<?xml version='1.0'?><!-- <imdn> --><i:imdn xmlns:i='urn:x>y'><i:message-id >\n id1 \
         </i:message-id><i:subject/><i:{kind}-notification><i:status><i:{status} a='1'></i:{status}>\
         </i:status></i:{kind}-notification></i:imdn>\n"
    )
}

// Proves: DLV-2
#[test]
fn notices_of_other_writers_are_read() {
    for (kind, status, read) in [
        ("delivery", "delivered", ImdnStatus::Delivered),
        ("display", "displayed", ImdnStatus::Displayed),
        ("processing", "processed", ImdnStatus::Processed),
        ("delivery", "displayed", ImdnStatus::Other),
        ("display", "forbidden", ImdnStatus::Forbidden),
    ] {
        let text = notice(kind, status);
        let got = extract(b"message/imdn+xml;charset=utf-8", text.as_bytes());
        assert_eq!(
            got,
            Some(Imdn {
                message_id: b"id1",
                status: read
            }),
            "{text}"
        );
    }
    let text = notice("delivery", "delivered");
    assert_eq!(extract(b"text/plain", text.as_bytes()), None);
    assert_eq!(extract(b"message/cpim", STORED), None);
}

#[test]
fn malformed_notices_are_refused() {
    let good = notice("delivery", "delivered");
    let deep = format!("<imdn>{}", "<a>".repeat(40));
    let long = format!("<imdn>{}</imdn>", " ".repeat(20_000));
    for (text, error) in [
        ("<!DOCTYPE imdn><imdn/>".to_owned(), ImdnError::Declaration),
        (
            good.replace("<i:subject/>", "<![CDATA[x]]>"),
            ImdnError::Declaration,
        ),
        (
            good.replace("<i:subject/>", "<i:subject>"),
            ImdnError::WellFormedness,
        ),
        (good.replace("</i:imdn>", ""), ImdnError::WellFormedness),
        (format!("{good}x"), ImdnError::WellFormedness),
        (format!("x{good}"), ImdnError::WellFormedness),
        ("<html/>".to_owned(), ImdnError::WellFormedness),
        ("<imdn".to_owned(), ImdnError::WellFormedness),
        ("<imdn></imdn></imdn>".to_owned(), ImdnError::WellFormedness),
        ("<imdn/>".to_owned(), ImdnError::Incomplete),
        (String::new(), ImdnError::Incomplete),
        (
            good.replace("message-id", "message-ix"),
            ImdnError::Incomplete,
        ),
        (good.replace("i:status", "i:stat"), ImdnError::Incomplete),
        (deep, ImdnError::TooLong),
        (long, ImdnError::TooLong),
    ] {
        assert_eq!(parse(text.as_bytes()), Err(error), "{text:.80}");
    }
}

#[test]
fn mutated_notices_never_panic_and_name_a_text_of_the_document() {
    let mut state = 0x0bad_cafe_dead_beef_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % bound.max(1)
    };
    let seed = &NOTICE[NOTICE.len() - 434..];
    let pieces: [&[u8]; 10] = [
        b"<",
        b">",
        b"/",
        b"<!--",
        b"-->",
        b"<a>",
        b"</a>",
        b"'",
        b"<?",
        b"delivered",
    ];
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = seed.to_vec();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            let end = (at + below(20)).min(bytes.len());
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
        if let Ok(notice) = parse(&bytes) {
            accepted += 1;
            // An id that we read is a text of the document as it stands.
            let id = notice.message_id;
            assert!(bytes.windows(id.len()).any(|window| window == id));
            assert!(!id.contains(&b'<'));
        }
    }
    assert!(accepted > 1000, "{accepted}");
}
