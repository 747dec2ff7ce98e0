use super::*;
use crate::imdn::{self, ImdnStatus};
use crate::msrp::frame::{Parsed, parse};

const NOTICE: &str = "<?xml version=\"1.0\"?><imdn xmlns=\"urn:ietf:params:xml:ns:imdn\">\
    <message-id>0a76</message-id><delivery-notification><status><delivered/></status>\
    </delivery-notification></imdn>";

fn frame(head: &str, body: &str, flag: &str) -> Vec<u8> {
    format!(
        "MSRP abcd SEND\r\nTo-Path: msrp://a/1;tcp\r\nFrom-Path: msrp://b/2;tcp\r\n\
         Message-ID: m001\r\n{head}\r\n\r\n{body}\r\n-------abcd{flag}\r\n"
    )
    .into_bytes()
}

fn read(bytes: &[u8]) -> Frame<'_> {
    match parse(bytes, 0) {
        Ok(Parsed::Frame { frame, .. }) => frame,
        other => panic!("{other:?}"),
    }
}

fn judged(bytes: &[u8]) -> Verdict {
    judge(&read(bytes), Binding::Here, &InboundOptions::default())
}

// Proves: SDP-13, MSRP-21, MSRP-26, BAD-26
#[test]
fn a_push_session_takes_bodiless_requests_reports_and_notices_only() {
    let bind = include_bytes!("../golden/f1-05-msrp-bind-send.txt");
    let report = include_bytes!("../golden/f1-09-msrp-report-1.txt");
    let ok = include_bytes!("../golden/f1-08-msrp-200-1.txt");
    let nickname = include_bytes!("../golden/fa-06-msrp-unknown-method.txt");
    assert_eq!(judged(bind), Verdict::Answer(200));
    assert_eq!(judged(report), Verdict::Pass);
    assert_eq!(judged(ok), Verdict::Pass);
    assert_eq!(judged(nickname), Verdict::Answer(501));
    for (head, verdict) in [
        ("Content-Type: text/plain", Verdict::Answer(403)),
        ("Content-Type: message/imdn+xml", Verdict::Collect),
        ("Content-Type: Message/CPIM;x=y", Verdict::Collect),
        (
            "Byte-Range: 5-3/10\r\nContent-Type: message/cpim",
            Verdict::Answer(400),
        ),
        (
            "Byte-Range: 1-*/18446744073709551615\r\nContent-Type: text/plain",
            Verdict::Answer(413),
        ),
        (
            "Byte-Range: 18446744073709551615-*/*\r\nContent-Type: message/cpim",
            Verdict::Answer(413),
        ),
    ] {
        assert_eq!(judged(&frame(head, "hello", "$")), verdict, "{head}");
    }
    let text = frame("Content-Type: text/plain", "hello", "$");
    let open = InboundOptions {
        intake: true,
        ..InboundOptions::default()
    };
    assert_eq!(judge(&read(&text), Binding::Here, &open), Verdict::Collect);
}

// Proves: MSRP-16, MSRP-18, BAD-27
#[test]
fn requests_for_no_session_or_a_foreign_one_are_refused_before_anything_else() {
    let unknown = include_bytes!("../golden/fa-01-msrp-unknown-session.txt");
    let nickname = include_bytes!("../golden/fa-06-msrp-unknown-method.txt");
    let options = InboundOptions::default();
    for bytes in [&unknown[..], nickname] {
        let frame = read(bytes);
        assert_eq!(
            judge(&frame, Binding::Unknown, &options),
            Verdict::Answer(481)
        );
        assert_eq!(
            judge(&frame, Binding::Elsewhere, &options),
            Verdict::Answer(506)
        );
    }
    assert_eq!(
        judge(&read(unknown), Binding::Fresh, &options),
        Verdict::Answer(200)
    );
}

fn chunk(start: usize, body: &str, total: &str, flag: &str) -> Vec<u8> {
    let end = start + body.len() - 1;
    let head = format!("Byte-Range: {start}-{end}/{total}\r\nContent-Type: message/imdn+xml");
    frame(&head, body, flag)
}

// Proves: MSRP-25, IMDN-3, MSRP-24
#[test]
fn chunks_in_any_order_and_overlapping_make_one_notice() {
    let total = NOTICE.len();
    let last = chunk(101, &NOTICE[100..], "*", "$");
    let middle = chunk(41, &"x".repeat(80), &total.to_string(), "+");
    let middle_again = chunk(41, &NOTICE[40..120], "*", "+");
    let first = chunk(1, &NOTICE[..60], &total.to_string(), "+");
    let options = InboundOptions::default();
    let mut reassembly = Reassembly::default();
    for bytes in [&last, &middle, &middle_again] {
        assert_eq!(reassembly.accept(&read(bytes), &options), Collected::More);
    }
    let bytes = reassembly.accept(&read(&first), &options);
    assert_eq!(bytes, Collected::Complete(NOTICE.as_bytes()));
    let Collected::Complete(bytes) = bytes else {
        unreachable!()
    };
    let notice = imdn::extract(b"message/imdn+xml", bytes).unwrap();
    assert_eq!(
        (notice.message_id, notice.status),
        (&b"0a76"[..], ImdnStatus::Delivered)
    );
    let whole = whole_range(bytes.len() as u64);
    assert_eq!(
        (whole.start, whole.end, whole.total),
        (1, Some(total as u64), Some(total as u64))
    );
}

// Proves: MSRP-25, BAD-26
#[test]
fn sizes_gaps_and_changing_totals_are_bounded() {
    let options = InboundOptions {
        bytes_max: 100,
        intake: false,
    };
    let mut reassembly = Reassembly::default();
    let long = chunk(1, &"y".repeat(101), "*", "$");
    assert_eq!(
        reassembly.accept(&read(&long), &options),
        Collected::Refused(413)
    );
    let far = chunk(95, "1234567", "*", "+");
    assert_eq!(
        reassembly.accept(&read(&far), &options),
        Collected::Refused(413)
    );
    assert_eq!(
        reassembly.bytes.capacity(),
        0,
        "nothing was allocated for refused octets"
    );
    for (a, b) in [
        (chunk(1, "abc", "50", "+"), chunk(4, "abc", "60", "+")),
        (chunk(10, "abc", "*", "$"), chunk(20, "abc", "*", "+")),
        (chunk(20, "abc", "*", "+"), chunk(10, "abc", "*", "$")),
        (chunk(10, "abc", "*", "$"), chunk(11, "abc", "*", "$")),
    ] {
        assert_eq!(reassembly.accept(&read(&a), &options), Collected::More);
        assert_eq!(
            reassembly.accept(&read(&b), &options),
            Collected::Refused(400)
        );
    }
    let islands = (3..100).step_by(2).map(|start| chunk(start, "z", "*", "+"));
    let refused = islands
        .map(|bytes| reassembly.accept(&read(&bytes), &options) == Collected::Refused(413))
        .position(|refused| refused);
    assert_eq!(refused, Some(GAPS_MAX), "many tiny islands");
}

#[test]
fn an_aborted_message_and_one_that_is_overtaken_leave_nothing() {
    let options = InboundOptions::default();
    let mut reassembly = Reassembly::default();
    let first = chunk(1, "abc", "*", "+");
    let aborted = chunk(4, "abc", "*", "#");
    assert_eq!(reassembly.accept(&read(&first), &options), Collected::More);
    assert_eq!(
        reassembly.accept(&read(&aborted), &options),
        Collected::Dropped
    );
    assert_eq!(reassembly.accept(&read(&first), &options), Collected::More);
    let other = String::from_utf8(chunk(1, "xy", "2", "$"))
        .unwrap()
        .replace("m001", "m002");
    let whole = reassembly.accept(&read(other.as_bytes()), &options);
    assert_eq!(whole, Collected::Complete(b"xy"));
    let single = frame("Content-Type: message/imdn+xml", "no range", "$");
    let whole = reassembly.accept(&read(&single), &options);
    assert_eq!(whole, Collected::Complete(b"no range"));
}
