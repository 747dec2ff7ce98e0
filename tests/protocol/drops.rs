//! What is dropped is counted by the reason for it.

use crate::harness::script::{Answer, PHONE_PATH, message};
use crate::harness::text::crlf;
use crate::harness::{Bench, SCSCF, addr};
use volley::base::surface::LinkKind;

/// The reasons of `family` that were counted, each with how often.
fn counted(bench: &Bench, family: &str) -> Vec<(&'static str, u64)> {
    let families = bench.shard.probe().drops.families();
    let found = families.into_iter().find(|found| found.name == family);
    let cells = found.expect("a kind of drop").cells.into_iter();
    let cells = cells.map(|cell| (cell.reason, cell.count));
    cells.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn sip_that_gets_no_answer_is_counted_as_ack_response_or_unanswerable() {
    let mut bench = Bench::udp();
    let head = "Via: SIP/2.0/UDP 192.0.2.20:5060;branch=z9hG4bKx\nFrom: <sip:x@y>;tag=1\n\
                To: <sip:push@192.0.2.10:5060>\nCall-ID: 1\n";
    let ack = format!("ACK sip:push@192.0.2.10 SIP/2.0\n{head}CSeq: many ACK\n\n");
    let response = format!("SIP/2.0 999 Beyond\n{head}CSeq: 1 INVITE\n\n");
    let request = "OPTIONS sip:push@192.0.2.10 SIP/2.0\nCSeq: 1 OPTIONS\n\n".to_owned();
    for (text, times) in [(ack, 1), (response, 2), (request, 3)] {
        for _ in 0..times {
            bench.datagram(addr(SCSCF), crlf(&text).as_bytes());
        }
    }
    assert!(bench.take_sip().is_empty(), "none of them is answered");
    let all = [("ack", 1), ("response", 2), ("unanswerable", 3)];
    assert_eq!(counted(&bench, "sip_dropped"), all);
    assert_eq!(bench.counter("sip_dropped_total"), 6);
}

#[test]
fn a_stream_that_is_closed_for_what_it_brought_counts_what_got_no_answer() {
    let mut bench = Bench::new();
    let link = bench.open(LinkKind::SipInbound, addr(SCSCF));
    bench.feed(
        link,
        b"\x01\x02 nothing that anybody sent on purpose\r\n\r\n",
    );
    assert!(bench.is_closed(link));
    assert_eq!(counted(&bench, "sip_dropped"), [("unanswerable", 1)]);
    assert_eq!(counted(&bench, "streams_broken"), [("framing", 1)]);
}

#[test]
fn output_is_dropped_for_a_full_a_lost_and_a_gone_link() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let trunk = bench.trunks[&addr(SCSCF)];
    bench.stick(trunk);
    for _ in 0..4 {
        bench.owe_answers();
    }
    let full = bench.dropped("output_dropped", "link_full");
    let mut answer = Answer::active();
    answer.sdp = answer.sdp.replace("m=message 2855", "m=message 0");
    bench.send_200(&invite, &answer);
    // The ACK, once more before the BYE, and that.
    assert_eq!(bench.dropped("output_dropped", "link_full"), full + 3);
    assert_eq!(bench.dropped("output_dropped", "link_lost"), 0);
    bench.close(trunk);
    assert_eq!(bench.dropped("output_dropped", "link_lost"), 1);
    let all: u64 = counted(&bench, "output_dropped")
        .iter()
        .map(|(_, count)| count)
        .sum();
    assert_eq!(bench.counter("output_dropped_total"), all);
}

#[test]
fn msrp_is_rejected_for_its_place_its_session_its_form_or_what_it_brings() {
    let mut bench = Bench::new();
    let (_, _, send) = bench.sending();
    let frame = |tid: &str, to: &str, lines: &str| {
        let text = format!(
            "MSRP {tid} SEND\nTo-Path: {to}\nFrom-Path: {PHONE_PATH}\n{lines}-------{tid}$\n"
        );
        crlf(&text)
    };
    let ours = send.get("From-Path").to_owned();
    let body = "Message-ID: m1\nByte-Range: 1-2/2\nContent-Type: text/plain\n\nhi\n";
    bench.feed(send.link, frame("aaaa1111", &ours, body).as_bytes());
    assert_eq!(bench.take_msrp()[0].what, "403");
    assert_eq!(counted(&bench, "msrp_rejected"), [("refused", 1)]);
    let nowhere = "msrp://192.0.2.10:2855/nobody;tcp";
    bench.feed(send.link, frame("aaaa2222", nowhere, body).as_bytes());
    assert_eq!(bench.take_msrp()[0].what, "481");
    let stranger = bench.open(LinkKind::MsrpInbound, addr("198.51.100.9:40000"));
    bench.feed(stranger, frame("aaaa3333", &ours, body).as_bytes());
    assert_eq!(bench.take_msrp()[0].what, "506");
    bench.feed(stranger, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    let all = [
        ("misplaced", 1),
        ("refused", 1),
        ("sessionless", 1),
        ("unreadable", 1),
    ];
    assert_eq!(counted(&bench, "msrp_rejected"), all);
    assert_eq!(counted(&bench, "streams_broken"), [("framing", 1)]);
}

#[test]
fn streams_that_bring_no_session_or_half_a_message_are_told_apart() {
    let mut bench = Bench::new();
    let silent = bench.open(LinkKind::MsrpInbound, addr("198.51.100.9:40000"));
    bench.run_s(11);
    assert!(bench.is_closed(silent));
    assert_eq!(counted(&bench, "streams_broken"), [("unbound", 1)]);
    let half = bench.open(LinkKind::SipInbound, addr(SCSCF));
    bench.feed(
        half,
        &message("OPTIONS sip:push@192.0.2.10 SIP/2.0\n", "").as_bytes()[..20],
    );
    bench.run_s(31);
    assert!(bench.is_closed(half));
    assert_eq!(
        counted(&bench, "streams_broken"),
        [("partial", 1), ("unbound", 1)]
    );
}
