//! Messages over MSRP: what is sent, what counts as delivered, and what ends a session.

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_PATH, USER, sdp};
use crate::harness::text::{Msrp, crlf};
use crate::harness::{Bench, PHONE, addr, options};
use volley::base::surface::LinkKind;
use volley::push::options::Grouping;

/// A bench with `texts` deposited and the phone's session bound; the first SENDs are out.
fn session_with(mut bench: Bench, texts: &[&str]) -> Bench {
    for text in texts {
        bench.deposit(text);
    }
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    bench
}

// Proves: MSRP-9, DLV-1
#[test]
fn a_send_nobody_answers_ends_the_session_after_30_s() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    bench.expect_msrp("SEND");
    bench.run_ms(29_900);
    bench.expect_quiet();
    bench.run_ms(200);
    bench.expect("BYE");
    assert_eq!(bench.messages(), 1);
}

// Proves: DLV-2, MSRP-10, AMB-3
#[test]
fn the_next_hops_200_counts_only_after_a_wait() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    bench.msrp_reply(&send, "200 OK");
    bench.run_ms(9_900);
    assert_eq!(bench.messages(), 1, "no report yet");
    bench.run_ms(200);
    assert_eq!(bench.messages(), 0);
    assert_eq!(bench.counter("delivered_hop_ack_total"), 1);

    let mut options = options();
    options.push.session.accept_hop_ack = false;
    let mut bench = session_with(Bench::with(options), &["hello"]);
    let send = bench.expect_msrp("SEND");
    bench.msrp_reply(&send, "200 OK");
    bench.run_s(11);
    assert_eq!(bench.messages(), 1, "a strict core waits for the report");
    bench.expect("BYE");
}

// Proves: DLV-2, MSRP-22
#[test]
fn reports_may_come_in_pieces_and_out_of_order() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    let (_, _, total) = send.range();
    bench.msrp_report(&send, &format!("101-{total}/{total}"), "200 OK");
    bench.msrp_report(&send, &format!("101-{total}/{total}"), "200 OK");
    bench.msrp_report(&send, &format!("1-50/{total}"), "200 OK");
    assert_eq!(bench.messages(), 1);
    bench.msrp_report(&send, &format!("40-110/{total}"), "200 OK");
    bench.msrp_reply(&send, "200 OK");
    assert_eq!(bench.messages(), 0);
    assert_eq!(bench.counter("delivered_total"), 1);
    bench.msrp_report(&send, &format!("1-{total}/{total}"), "200 OK");
    assert_eq!(bench.counter("delivered_total"), 1);
    assert!(bench.take_msrp().is_empty(), "a REPORT is never answered");
}

/// What the phone says when it takes each of `sends`: a 200 and a whole REPORT.
fn taken(sends: &[Msrp]) -> String {
    let texts = sends.iter().map(|send| {
        let (tid, id, (_, _, total)) = (&send.tid, send.get("Message-ID"), send.range());
        let rep = &tid[8..];
        let (to, from) = (send.get("From-Path"), send.get("To-Path"));
        format!(
            "MSRP {tid} 200 OK\nTo-Path: {to}\nFrom-Path: {from}\n-------{tid}$\n\
             MSRP {rep} REPORT\nTo-Path: {to}\nFrom-Path: {from}\nMessage-ID: {id}\n\
             Byte-Range: 1-{total}/{total}\nStatus: 000 200 OK\n-------{rep}$\n"
        )
    });
    crlf(&texts.collect::<String>())
}

#[test]
fn a_session_goes_on_after_all_that_one_read_brought_about_it() {
    let texts: Vec<String> = (0..20).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut bench = session_with(Bench::new(), &texts);
    let first = bench.take_msrp();
    assert_eq!(first.len(), 8, "as many as may be unanswered");
    let text = taken(&first);
    bench.feed(first[0].link, text.as_bytes());
    assert_eq!(bench.messages(), 12, "each was reported");
    let second = bench.take_msrp();
    assert_eq!(second.len(), 8, "the window is open again");
    // In two reads that cut a frame, and the second one ends in what is no frame.
    let text = taken(&second[..6]);
    let (early, late) = text.as_bytes().split_at(text.len() - 20);
    bench.feed(second[0].link, early);
    assert_eq!(bench.messages(), 7);
    assert_eq!(bench.take_msrp().len(), 4, "the last ones");
    let late = [late, b"no frame of MSRP\r\n\r\n"].concat();
    bench.feed(second[0].link, &late);
    assert_eq!(bench.messages(), 6, "what came before counts");
}

// Proves: MSRP-22
#[test]
fn reports_about_other_messages_are_ignored() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    let mut other = send.clone();
    other.text = other
        .text
        .replace(send.get("Message-ID"), "v0000000000000001.00");
    bench.msrp_report(&other, "1-10/10", "200 OK");
    other.text = send.text.replace(send.get("Message-ID"), "whatever");
    bench.msrp_report(&other, "1-10/10", "200 OK");
    assert_eq!(bench.messages(), 1);
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
}

// Proves: MSRP-23, MSRP-9
#[test]
fn a_failure_report_sends_the_message_back_to_the_queue() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    let (_, _, total) = send.range();
    bench.msrp_reply(&send, "200 OK");
    bench.msrp_report(&send, &format!("1-{total}/{total}"), "408 Timeout");
    bench.expect("BYE");
    assert_eq!(bench.messages(), 1);
}

// Proves: MSRP-11
#[test]
fn one_400_stops_a_message_and_two_the_session() {
    let mut bench = session_with(Bench::new(), &["one", "two", "three"]);
    let sends = bench.take_msrp();
    assert_eq!(sends.len(), 3);
    bench.msrp_reply(&sends[0], "400 Bad");
    bench.take_message(&sends[1]);
    assert_eq!(bench.sent(), Vec::<String>::new());
    bench.msrp_reply(&sends[2], "400 Bad");
    bench.expect("BYE");
}

// Proves: MSRP-12, LIFE-4, DLV-1
#[test]
fn a_message_refused_with_403_is_not_offered_to_that_phone_again() {
    let mut bench = session_with(Bench::new(), &["one", "two"]);
    let sends = bench.take_msrp();
    bench.msrp_reply(&sends[0], "403 Forbidden");
    bench.take_message(&sends[1]);
    bench.finish();
    bench.run_s(1);
    bench.deposit("three");
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let again = bench.take_msrp();
    assert_eq!(again.len(), 1);
    assert!(again[0].body.ends_with("three"));
}

// Proves: MSRP-14
#[test]
fn a_415_leaves_other_messages_alone() {
    let mut bench = session_with(Bench::new(), &["one", "two"]);
    let sends = bench.take_msrp();
    bench.msrp_reply(&sends[0], "415 Unsupported");
    bench.take_message(&sends[1]);
    bench.finish();
}

// Proves: MSRP-15
#[test]
fn a_session_the_peer_does_not_know_is_ended() {
    for status in ["481 No session", "506 In use", "501 Unknown"] {
        let mut bench = session_with(Bench::new(), &["one"]);
        let send = bench.expect_msrp("SEND");
        bench.msrp_reply(&send, status);
        bench.expect("BYE");
        assert_eq!(bench.messages(), 1, "{status}");
    }
}

// Proves: MSRP-18
#[test]
fn phones_behind_one_address_share_a_connection_when_allowed() {
    let mut options = options();
    options.push.msrp_reuse = true;
    options.push.linger = std::time::Duration::from_secs(100);
    let mut bench = Bench::with(options);
    bench.deposit("hello");
    let contacts = [
        Contact::of(PHONE_A),
        Contact::of(crate::harness::script::PHONE_B),
    ];
    bench.subscribed(&contacts);
    let (a, b) = (bench.expect("INVITE"), bench.expect("INVITE"));
    bench.accept(&a, &Answer::passive());
    let mut other = Answer::passive();
    other.sdp = sdp("msrp://198.51.100.7:2855/otherphone00;tcp", "passive", "");
    bench.accept(&b, &other);
    assert_eq!(bench.connects, [addr(PHONE)]);
    let sends = bench.take_msrp();
    assert_eq!(sends.len(), 2);
    assert_eq!(sends[0].link, sends[1].link);
    assert_ne!(sends[0].get("To-Path"), sends[1].get("To-Path"));
    for send in &sends {
        bench.take_message(send);
    }
    assert_eq!(bench.messages(), 0);
}

// Proves: AMB-8
#[test]
fn a_connection_is_shared_only_where_the_address_repeats_and_policy_allows() {
    for (reuse, port, connections) in [(true, 2855, 1), (true, 2856, 2), (false, 2855, 2)] {
        let mut options = options();
        options.push.msrp_reuse = reuse;
        let mut bench = Bench::with(options);
        bench.deposit("hello");
        let second = crate::harness::script::PHONE_B;
        bench.subscribed(&[Contact::of(PHONE_A), Contact::of(second)]);
        let (a, b) = (bench.expect("INVITE"), bench.expect("INVITE"));
        bench.accept(&a, &Answer::passive());
        let mut other = Answer::passive();
        let path = format!("msrp://198.51.100.7:{port}/otherphone00;tcp");
        other.sdp = sdp(&path, "passive", "");
        bench.accept(&b, &other);
        assert_eq!(bench.connects.len(), connections, "{reuse} {port}");
        let sends = bench.take_msrp();
        let shared = sends[0].link == sends[1].link;
        assert_eq!(shared, connections == 1, "{reuse} {port}");
    }
}

// Proves: MSRP-19, BAD-28
#[test]
fn a_connection_that_binds_nothing_is_closed() {
    let mut bench = Bench::new();
    let silent = bench.open(LinkKind::MsrpInbound, addr("203.0.113.1:1"));
    let chatty = bench.open(LinkKind::MsrpInbound, addr("203.0.113.1:2"));
    let noise = format!("MSRP abcd1234 SEND\r\nX: {}", "y".repeat(9000));
    bench.feed(chatty, noise.as_bytes());
    assert!(!bench.is_open(chatty), "8 KiB without a bind");
    let guesser = bench.open(LinkKind::MsrpInbound, addr("203.0.113.1:3"));
    let guess = crlf(
        "MSRP abcd1234 SEND\nTo-Path: msrp://192.0.2.10:2855/guessed1;tcp\n\
         From-Path: msrp://203.0.113.1:2855/x;tcp\nMessage-ID: m1234\n\
         Byte-Range: 1-0/0\n-------abcd1234$\n",
    );
    let tries = (0..100).take_while(|_| {
        bench.feed(guesser, guess.as_bytes());
        bench.is_open(guesser)
    });
    let tries = tries.count() * guess.len();
    let most = 8 * 1024 + guess.len();
    assert!(
        (8 * 1024..=most).contains(&tries),
        "{tries} octets of guesses"
    );
    assert!(bench.take_msrp().iter().all(|answer| answer.what == "481"));
    bench.run_s(9);
    assert!(bench.is_open(silent));
    bench.run_s(2);
    assert!(!bench.is_open(silent));
}

// Proves: MSRP-20
#[test]
fn connections_that_do_not_come_about_end_the_session() {
    let mut bench = Bench::new();
    bench.silent.push(addr(PHONE));
    let (invite, _) = bench.invited();
    bench.accept(&invite, &Answer::passive());
    bench.run_s(9);
    bench.expect_quiet();
    bench.run_s(3);
    bench.expect("BYE");

    let mut bench = Bench::new();
    bench.refused.push(addr(PHONE));
    let (invite, _) = bench.invited();
    bench.accept(&invite, &Answer::passive());
    bench.expect("BYE");
    assert_eq!(bench.messages(), 1);

    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    bench.accept(&invite, &Answer::active());
    bench.run_ms(14_900);
    bench.expect_quiet();
    bench.run_ms(200);
    bench.expect("BYE");
}

fn from_phone(send: &Msrp, tid: &str, lines: &str, body: &str) -> String {
    let body = if body.is_empty() {
        String::new()
    } else {
        format!("\n{body}\n")
    };
    crlf(&format!(
        "MSRP {tid} SEND\nTo-Path: {}\nFrom-Path: {}\n{lines}{body}-------{tid}$\n",
        send.get("From-Path"),
        send.get("To-Path")
    ))
}

// Proves: MSRP-21, SDP-13
#[test]
fn requests_of_the_phone_are_answered_as_far_as_it_wants() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    let text = "Message-ID: p1\nByte-Range: 1-2/2\nFailure-Report: FR\nContent-Type: text/plain\n";
    for (report, answered) in [("yes", true), ("partial", true), ("no", false)] {
        let frame = from_phone(&send, "fromphone1", &text.replace("FR", report), "hi");
        bench.feed(send.link, frame.as_bytes());
        let frames = bench.take_msrp();
        assert_eq!(frames.len(), usize::from(answered), "{report}");
        if answered {
            assert_eq!(frames[0].what, "403");
            assert_eq!(frames[0].get("To-Path"), PHONE_PATH);
        }
    }
    let empty = "Message-ID: p2\nByte-Range: 1-0/0\nFailure-Report: FR\n";
    for (report, answered) in [("yes", true), ("partial", false), ("no", false)] {
        let frame = from_phone(&send, "fromphone2", &empty.replace("FR", report), "");
        bench.feed(send.link, frame.as_bytes());
        let frames = bench.take_msrp();
        assert_eq!(frames.len(), usize::from(answered), "{report}");
        assert!(frames.iter().all(|frame| frame.what == "200"));
    }
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
}

// Proves: MSRP-29, DLV-4, MSRP-4
#[test]
fn a_lost_connection_leads_to_redelivery_with_the_same_identifiers() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    bench.close(send.link);
    let bye = bench.expect("BYE");
    bench.reply(&bye, "200 OK", "");
    bench.run_s(40);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let again = bench.expect_msrp("SEND");
    assert_eq!(again.get("Message-ID"), send.get("Message-ID"));
    assert_eq!(again.body, send.body);
    assert_ne!(again.tid, send.tid);
}

// Proves: MSRP-29
#[test]
fn a_connection_the_phone_opened_is_left_to_it_when_its_bye_is_answered() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    bench.run_s(3);
    let bye = bench.expect("BYE");
    assert_eq!(bench.left, [], "not while the session lives");
    bench.reply(&bye, "200 OK", "");
    assert_eq!(bench.left, [send.link]);
}

// Proves: DLV-1, DLV-4, DLV-8, MSRP-4
#[test]
fn after_a_restart_what_was_not_delivered_is_sent_again() {
    let mut bench = session_with(Bench::new(), &["one", "two", "three"]);
    let sends = bench.take_msrp();
    bench.take_message(&sends[0]);
    bench.msrp_reply(&sends[1], "403 Forbidden");
    let records = bench.records.clone();
    let mut fresh = Bench::restarted(options(), &records, 2);
    fresh.run_s(1);
    fresh.subscribed(&[Contact::of(PHONE_A)]);
    let invite = fresh.expect("INVITE");
    fresh.bound(&invite, &Answer::active());
    let again = fresh.take_msrp();
    assert_eq!(again.len(), 1, "delivered and refused are durable");
    assert_eq!(again[0].body, sends[2].body);
    assert_eq!(again[0].get("Message-ID"), sends[2].get("Message-ID"));
}

// Proves: DLV-5
#[test]
fn a_message_that_comes_while_the_session_lingers_uses_it() {
    let mut bench = session_with(Bench::new(), &["one"]);
    let one = bench.expect_msrp("SEND");
    bench.take_message(&one);
    bench.run_s(1);
    bench.deposit("two");
    let two = bench.expect_msrp("SEND");
    assert_eq!(two.link, one.link);
    bench.take_message(&two);
    bench.run_ms(1900);
    bench.expect_quiet();
    bench.run_ms(200);
    bench.expect("BYE");
    assert_eq!(bench.counter("invites_sent_total"), 1);
}

// Proves: DLV-6
#[test]
fn a_session_takes_so_many_messages_and_another_the_rest() {
    let mut options = options();
    options.push.max_messages = 3;
    let mut bench = session_with(Bench::with(options), &["1", "2", "3", "4"]);
    let sends = bench.take_msrp();
    assert_eq!(sends.len(), 3);
    for send in &sends {
        bench.take_message(send);
    }
    let bye = bench.expect("BYE");
    bench.reply(&bye, "200 OK", "");
    bench.run_s(1);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let last = bench.expect_msrp("SEND");
    bench.take_message(&last);
    assert_eq!(bench.messages(), 0);
}

// Proves: DLV-6
#[test]
fn a_session_ends_at_its_longest_duration() {
    let mut options = options();
    options.push.linger = std::time::Duration::from_secs(1000);
    let mut bench = session_with(Bench::with(options), &["1"]);
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    bench.run_s(299);
    bench.expect_quiet();
    bench.run_s(2);
    bench.expect("BYE");
}

// Proves: AMB-2
#[test]
fn with_one_message_a_session_each_has_its_own_identifiers() {
    let mut options = options();
    options.push.grouping = Grouping::Message;
    let mut bench = Bench::with(options);
    for n in 1..=2 {
        let lines = format!("Conversation-ID: conv{n}\nContribution-ID: cont{n}\n");
        let text = bench.deposit_text(USER, &format!("message {n}"), &lines);
        bench.sip_in(&text);
        bench.expect_some("202");
    }
    bench.subscribed(&[Contact::of(PHONE_A)]);
    for n in 1..=2 {
        bench.run_s(1);
        let invite = bench.expect("INVITE");
        assert_eq!(invite.get("Conversation-ID"), format!("conv{n}"));
        assert_eq!(invite.get("Contribution-ID"), format!("cont{n}"));
        bench.bound(&invite, &Answer::active());
        let send = bench.expect_msrp("SEND");
        assert!(send.body.ends_with(&format!("message {n}")));
        bench.expect_quiet();
        bench.take_message(&send);
        let bye = bench.expect("BYE");
        bench.reply(&bye, "200 OK", "");
    }
}

// Proves: LIFE-4, MSRP-6
#[test]
fn messages_go_out_in_the_order_they_came() {
    let texts = ["1", "2", "3", "4", "5"];
    let mut bench = session_with(Bench::new(), &texts);
    let sends = bench.take_msrp();
    for (send, text) in sends.iter().zip(texts) {
        assert!(send.body.ends_with(text));
    }
    assert_eq!(sends.len(), 5);
    for (at, send) in sends.iter().enumerate() {
        if at == 1 {
            bench.msrp_reply(send, "413 Stop");
        } else {
            bench.take_message(send);
        }
    }
    bench.finish();
}

// Proves: MSRP-7, MSRP-5, MSRP-6
#[test]
fn a_long_message_keeps_its_window_and_covers_every_octet() {
    let mut bench = session_with(Bench::new(), &[&"0123456789".repeat(6000)]);
    let mut next = 1;
    let mut whole = String::new();
    loop {
        let sends = bench.take_msrp();
        assert!(sends.len() <= 8, "window");
        let Some(last) = sends.last().cloned() else {
            break;
        };
        for send in &sends {
            let (start, end, total) = send.range();
            assert_eq!(start, next);
            assert_eq!(end + 1 - start, send.body.len() as u64);
            assert!(send.body.len() <= 2048);
            assert_eq!(send.flag, if end == total { '$' } else { '+' });
            whole += &send.body;
            next = end + 1;
        }
        for send in &sends {
            bench.msrp_reply(send, "200 OK");
        }
        if last.flag == '$' {
            bench.msrp_report(&last, &format!("1-{0}/{0}", next - 1), "200 OK");
        }
    }
    assert!(whole.contains(&"0123456789".repeat(6000)));
    assert_eq!(bench.messages(), 0);
}

// Proves: SDP-18, SDP-19, SEL-6
#[test]
fn what_the_phone_does_not_take_is_not_sent_to_it() {
    for more in ["a=max-size:500\n", "a=max-size:0\n"] {
        let mut bench = Bench::new();
        bench.deposit(&"long".repeat(200));
        bench.deposit("short");
        bench.subscribed(&[Contact::of(PHONE_A)]);
        let invite = bench.expect("INVITE");
        let mut answer = Answer::active();
        answer.sdp = sdp(PHONE_PATH, "active", more);
        bench.bound(&invite, &answer);
        let mut sends = bench.take_msrp();
        sends.retain(|send| !send.body.is_empty());
        assert_eq!(sends.len(), usize::from(more.contains("500")));
        assert!(sends.iter().all(|send| send.body.ends_with("short")));
    }
}

// Proves: SDP-19
#[test]
fn a_wrapped_type_goes_when_either_list_names_it_whatever_its_parameters() {
    for (types, wrapped, goes) in [
        ("message/cpim", "text/plain", true),
        ("message/cpim", "image/png text/*", true),
        ("message/cpim text/plain", "image/png", true),
        ("message/cpim", "image/png", false),
        ("message/cpim", "text/plain2", false),
    ] {
        let mut bench = Bench::new();
        bench.deposit("hello");
        bench.subscribed(&[Contact::of(PHONE_A)]);
        let invite = bench.expect("INVITE");
        let mut answer = Answer::active();
        answer.sdp = sdp(PHONE_PATH, "active", "")
            .replace(
                "a=accept-types:message/cpim",
                &format!("a=accept-types:{types}"),
            )
            .replace(
                "a=accept-wrapped-types:*",
                &format!("a=accept-wrapped-types:{wrapped}"),
            );
        bench.bound(&invite, &answer);
        let sends = bench.take_msrp();
        let sent = sends.iter().any(|send| send.body.ends_with("hello"));
        assert_eq!(sent, goes, "{types} | {wrapped}");
    }
}

// Proves: MSRP-2, BAD-31
#[test]
fn content_that_looks_like_frames_arrives_unchanged() {
    let text = "-------abcdefgh$\r\nMSRP abcdefgh SEND\r\n\r\nINVITE sip:x SIP/2.0\r\n-------";
    let mut bench = session_with(Bench::new(), &[text]);
    let send = bench.expect_msrp("SEND");
    assert!(send.body.ends_with(text));
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
}

// Proves: DLV-2, IMDN-1
#[test]
fn identifiers_of_the_notices_pass_untouched() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    assert!(
        send.body
            .contains("imdn.Disposition-Notification: positive-delivery\r\n")
    );
    assert!(send.body.contains("imdn.Message-ID: m1\r\n"));
    bench.take_message(&send);
}

// Proves: MSRP-27, SDP-21
#[test]
fn addresses_that_must_not_be_connected_to_are_not() {
    for (from, to) in [
        ("198.51.100.7", "127.0.0.1"),
        ("198.51.100.7", "10.1.2.3"),
        (":2855/", ":22/"),
        ("msrp://", "msrps://"),
    ] {
        let mut bench = Bench::new();
        let (invite, _) = bench.invited();
        let mut answer = Answer::passive();
        answer.sdp = answer.sdp.replace(from, to);
        bench.accept(&invite, &answer);
        bench.expect("BYE");
        assert!(bench.connects.is_empty(), "{to}");
    }
}

// Proves: SDP-17, SDP-15
#[test]
fn a_relay_in_the_path_is_where_we_connect() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let mut answer = Answer::passive();
    let path = format!("msrp://198.51.100.99:9000/relay0;tcp {PHONE_PATH}");
    answer.sdp = sdp(&path, "passive", "");
    bench.accept(&invite, &answer);
    assert_eq!(bench.connects, [addr("198.51.100.99:9000")]);
    let send = bench.expect_msrp("SEND");
    assert_eq!(send.get("To-Path"), path);
}

/// A notice of the phone about message `id`, as the CPIM it sends.
fn notice(id: &str) -> String {
    let xml = format!(
        "<?xml version=\"1.0\"?><imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>{id}</message-id>\
         <datetime>2026-11-22T05:58:01Z</datetime><delivery-notification><status><delivered/></status>\
         </delivery-notification></imdn>"
    );
    crlf(&format!(
        "From: <{USER}>\nTo: <sip:+15550177@ims.example.net>\nDateTime: 2026-11-22T05:58:09Z\n\
         NS: imdn <urn:ietf:params:imdn>\nimdn.Message-ID: n1\n\n\
         Content-Type: message/imdn+xml\nContent-Disposition: notification\n\
         Content-Length: {}\n\n{xml}",
        xml.len()
    ))
}

// Proves: IMDN-9, IMDN-3, DLV-2, MSRP-24, MSRP-25, AMB-17
#[test]
fn a_notice_of_the_phone_is_evidence_and_goes_to_the_sender() {
    for cuts in [&[][..], &[100, 250][..]] {
        let mut bench = session_with(Bench::new(), &["hello"]);
        let send = bench.expect_msrp("SEND");
        bench.msrp_reply(&send, "200 OK");
        assert_eq!(bench.messages(), 1);
        let body = notice("m1");
        send_notice_and_report(&mut bench, &send, &body, cuts);
        let message = bench.expect("MESSAGE");
        assert_eq!(message.uri(), "sip:+15550177@ims.example.net");
        assert_eq!(message.body, body);
        assert_eq!(message.get("Content-Type"), "message/cpim");
        assert!(message.get("Route").contains(";orig"));
        assert!(message.get("From").starts_with(&format!("<{USER}>")));
        assert_eq!(bench.messages(), 0, "delivered by the phone's own word");
        bench.reply(&message, "200 OK", "");
        bench.finish();
        bench.run_s(1000);
        bench.expect_quiet();
    }
}

fn send_notice_and_report(bench: &mut Bench, send: &Msrp, body: &str, cuts: &[usize]) {
    send_notice_parts(bench, send, body, cuts);
    let frames = bench.take_msrp();
    let report = frames.iter().find(|frame| frame.what == "REPORT");
    let report = report.expect("a REPORT was asked for");
    assert_eq!(report.range(), (1, body.len() as u64, body.len() as u64));
    assert_eq!(report.get("Status"), "000 200 OK");
    assert!(
        frames
            .iter()
            .all(|frame| frame.what == "200" || frame.what == "REPORT")
    );
}

fn send_notice_parts(bench: &mut Bench, send: &Msrp, body: &str, cuts: &[usize]) {
    let total = body.len();
    let mut from = 0;
    for (n, &to) in cuts.iter().chain(&[total]).enumerate() {
        let flag = if to == total { '$' } else { '+' };
        let lines = format!(
            "Message-ID: notice1\nSuccess-Report: yes\nByte-Range: {}-{to}/{total}\n\
             Content-Type: message/cpim\n",
            from + 1
        );
        let tid = format!("notice{n:04}");
        let frame = from_phone(send, &tid, &lines, &body[from..to])
            .replace(&format!("-------{tid}$"), &format!("-------{tid}{flag}"));
        bench.feed(send.link, frame.as_bytes());
        from = to;
    }
}

// Proves: IMDN-8
#[test]
fn a_notice_that_is_refused_is_sent_five_times() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    send_notice_parts(&mut bench, &send, &notice("m1"), &[]);
    bench.take_msrp();
    let mut times = Vec::new();
    let mut texts = Vec::new();
    for _ in 0..7200 {
        for message in bench.take_sip() {
            if message.what() == "MESSAGE" {
                times.push(bench.now.as_millis() / 1000);
                texts.push(message.branch().to_owned());
                bench.reply(&message, "480 Away", "");
            } else {
                bench.reply(&message, "200 OK", "");
            }
        }
        bench.run_s(1);
    }
    assert_eq!(times.len(), 5);
    let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    texts.dedup();
    assert_eq!(texts.len(), 5, "new transactions");
}

// Proves: SDP-13
#[test]
fn an_ordinary_message_in_cpim_is_refused() {
    let mut bench = session_with(Bench::new(), &["hello"]);
    let send = bench.expect_msrp("SEND");
    let body = notice("m1").replace("message/imdn+xml", "text/plain");
    send_notice_parts(&mut bench, &send, &body, &[]);
    bench.expect_msrp("403");
    bench.expect_quiet();
}
