//! Transactions and dialogs of a push, and the framing of what carries them.

use crate::harness::script::{
    Answer, Contact, PHONE_A, PHONE_B, PHONE_PATH, USER, message, reginfo, response, sdp,
};
use crate::harness::text::Sip;
use crate::harness::{Bench, SCSCF, addr};
use volley::base::surface::{Input, LinkKind};

// Proves: TX-2, TX-3, RSP-9
#[test]
fn an_unanswered_invite_is_repeated_over_udp_and_given_up_after_32_s() {
    let mut bench = Bench::udp();
    let (first, _) = bench.invited();
    bench.run_ms(31_990);
    let sends = bench.take_sip();
    let times: Vec<_> = sends
        .iter()
        .map(|m| m.at.since(first.at).as_millis())
        .collect();
    for (time, due) in times.iter().zip([500, 1500, 3500, 7500, 15_500, 31_500]) {
        assert!((due..=due + 20).contains(time), "{times:?}");
    }
    assert_eq!(times.len(), 6);
    assert!(
        sends.iter().all(|m| m.text == first.text),
        "repeats are the same octets"
    );
    assert_eq!(bench.pushes(), 1);
    bench.run_ms(50);
    assert_eq!(bench.pushes(), 0);
    assert_eq!(bench.messages(), 1);
    bench.run_s(20);
    bench.expect_quiet();
    bench.run_s(20);
    let retry = bench.expect("INVITE");
    assert_ne!(retry.call_id(), first.call_id());
}

/// The characters behind the token in the branch.
fn filler(branch: &str) -> String {
    let token = branch
        .strip_prefix("z9hG4bK")
        .expect("the cookie begins a branch");
    token.split_at(32).1.to_owned()
}

// Proves: TX-5, TX-13, DLG-3
#[test]
fn requests_in_datagrams_fill_their_size_class_and_what_repeats_a_branch_repeats_the_filler() {
    let mut fillers = std::collections::BTreeSet::new();
    for refused in [false, true] {
        let mut bench = Bench::udp();
        let (invite, _) = bench.invited();
        // Larger than the path takes with filler, or a whole class.
        let len = invite.text.len();
        assert!(len % 64 == 0 || len.next_multiple_of(64) > 1472, "{len}");
        assert_eq!(len % 64 == 0, !filler(invite.branch()).is_empty());
        if refused {
            let busy = response(&invite, "486 Busy Here", "b", "", "");
            bench.datagram(addr(SCSCF), busy.as_bytes());
            assert_eq!(bench.expect("ACK").branch(), invite.branch());
        } else {
            bench.reply(&invite, "180 Ringing", "");
            bench.run_ms(60_100);
            let cancel = bench.expect("CANCEL");
            assert_eq!(cancel.branch(), invite.branch());
        }
        fillers.insert(filler(invite.branch()));
    }
    let mut bench = Bench::udp();
    let (invite, _) = bench.invited();
    let ack = bench.accept(&invite, &Answer::active());
    assert_eq!(ack.text.len() % 64, 0);
    assert_ne!(ack.branch(), invite.branch());
    // Nobody connects for the message, so the session ends.
    let bye = loop {
        bench.run_s(1);
        if let Some(bye) = bench.take_sip().pop() {
            break bye;
        }
    };
    assert_eq!((bye.what(), bye.text.len() % 64), ("BYE", 0));
    fillers.extend([filler(ack.branch()), filler(bye.branch())]);
    // The answer names the branch with its filler and is taken; another text behind the token is none
    // of ours.
    let forged = bench.counter("responses_forged_total");
    let odd = response(&bye, "200 OK", "peer", "", "").replacen(
        bye.branch(),
        &format!("{}x", bye.branch()),
        1,
    );
    bench.datagram(addr(SCSCF), odd.as_bytes());
    assert_eq!(bench.counter("responses_forged_total"), forged + 1);
    assert_eq!(bench.pushes(), 1, "still waits");
    bench.reply(&bye, "200 OK", "");
    assert_eq!(bench.pushes(), 0);
    assert!(
        fillers.iter().any(|filler| !filler.is_empty()),
        "{fillers:?}"
    );
    assert!(
        fillers
            .iter()
            .all(|filler| filler.bytes().all(|c| c == b'0'))
    );
}

// Proves: TX-4
#[test]
fn a_provisional_response_stops_the_repeats() {
    let mut bench = Bench::udp();
    let (invite, _) = bench.invited();
    bench.reply(&invite, "180 Ringing", "");
    bench.run_ms(59_900);
    bench.expect_quiet();
    bench.run_ms(200);
    bench.expect("CANCEL");
}

// Proves: TX-5
#[test]
fn each_repeated_failure_is_acknowledged_and_counts_once() {
    let mut bench = Bench::udp();
    let (invite, _) = bench.invited();
    let busy = response(&invite, "486 Busy Here", "b", "", "");
    for _ in 0..3 {
        bench.datagram(addr(SCSCF), busy.as_bytes());
    }
    let acks = bench.take_sip();
    assert_eq!(acks.len(), 3);
    assert!(
        acks.iter()
            .all(|ack| ack.what() == "ACK" && ack.text == acks[0].text)
    );
    assert_eq!(acks[0].branch(), invite.branch());
    assert_eq!(acks[0].uri(), invite.uri());
    assert_eq!(acks[0].get("Route"), invite.get("Route"));
    assert_eq!(acks[0].to_tag(), "b");
    assert_eq!(bench.counter("pushes_ended_total"), 1);
    bench.run_s(33);
    bench.datagram(addr(SCSCF), busy.as_bytes());
    bench.expect_quiet();
}

// Proves: TX-6, DLG-3
#[test]
fn each_repeated_2xx_gets_the_same_ack() {
    for udp in [false, true] {
        let mut bench = if udp { Bench::udp() } else { Bench::new() };
        let (invite, _) = bench.invited();
        for _ in 0..4 {
            bench.send_200(&invite, &Answer::active());
        }
        let acks = bench.take_sip();
        assert_eq!(acks.len(), 4);
        assert!(
            acks.iter()
                .all(|ack| ack.what() == "ACK" && ack.text == acks[0].text)
        );
        assert!(!acks[0].has("Session-Expires") && acks[0].body.is_empty());
        assert_eq!(acks[0].cseq(), invite.cseq());
        assert_ne!(acks[0].branch(), invite.branch());
        assert_eq!(bench.pushes(), 1);
    }
}

// Proves: TX-8, TX-9, BAD-19
#[test]
fn responses_that_are_not_ours_have_no_effect() {
    let mut bench = Bench::udp();
    let (invite, _) = bench.invited();
    let good = response(&invite, "486 Busy Here", "b", "", "");
    let via = format!("Via: {}\r\n", invite.get("Via"));
    let branch = invite.branch().to_owned();
    let mut other = branch.clone();
    let last = if other.pop() == Some('a') { 'b' } else { 'a' };
    other.push(last);
    let bad = [
        good.replace(&branch, "z9hG4bKforeign"),
        good.replace(&branch, &other),
        good.replace("1 INVITE", "1 OPTIONS"),
        good.replace("1 INVITE", "2 INVITE"),
        good.replace(
            &via,
            &format!("{via}Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKx\r\n"),
        ),
        good.replace(
            "pf1.ims.example.net:5060;branch",
            "pf2.ims.example.net:5060;branch",
        ),
        good.replace(invite.call_id(), "someone@else"),
        good.replace(&via, ""),
    ];
    for text in &bad {
        bench.datagram(addr(SCSCF), text.as_bytes());
        bench.expect_quiet();
    }
    assert_eq!(bench.pushes(), 1);
    let before = bench.shard.population();
    for _ in 0..1000 {
        bench.datagram(addr(SCSCF), bad[0].as_bytes());
    }
    bench.expect_quiet();
    assert_eq!(bench.shard.population(), before);
    bench.datagram(addr(SCSCF), good.as_bytes());
    bench.expect("ACK");
}

// Proves: TX-10
#[test]
fn unknown_codes_count_as_their_class() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    bench.reply(&invite, "199 Early", "");
    bench.expect_quiet();
    bench.reply(&invite, "499 Odd", "");
    bench.expect("ACK");
    bench.run_s(7200);
    bench.expect_quiet();
}

// Proves: TX-13
#[test]
fn nothing_is_cancelled_before_a_provisional_response() {
    let mut bench = Bench::new();
    bench.invited();
    bench.run_s(32);
    bench.expect_quiet();
    assert_eq!(bench.pushes(), 0, "Timer B");
    assert_eq!(bench.counter("cancels_sent_total"), 0);
}

// Proves: TX-13
#[test]
fn an_invite_without_final_response_is_dropped_some_time_after_its_cancel() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    bench.reply(&invite, "180 Ringing", "");
    bench.run_s(60);
    let cancel = bench.expect("CANCEL");
    assert_eq!(cancel.get("Route"), invite.get("Route"));
    assert_eq!(cancel.uri(), invite.uri());
    assert!(!cancel.has("Require") && !cancel.has("Proxy-Require"));
    assert_eq!(cancel.to_tag(), "");
    bench.reply(&cancel, "200 OK", "");
    bench.run_ms(32_100);
    assert_eq!(bench.pushes(), 0);
    bench.expect_quiet();
}

// Proves: TX-14
#[test]
fn a_2xx_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    bench.reply(&invite, "180 Ringing", "");
    bench.run_s(60);
    let cancel = bench.expect("CANCEL");
    bench.accept(&invite, &Answer::active());
    let bye = bench.expect("BYE");
    assert_eq!(bye.to_tag(), "ue-9c41b7");
    bench.reply(&cancel, "200 OK", "");
    bench.reply(&bye, "200 OK", "");
    bench.run_ms(10);
    assert_eq!(bench.pushes(), 0);
    assert_eq!(bench.messages(), 1);
}

// Proves: TX-6, RSP-2
#[test]
fn a_2xx_after_we_gave_up_is_acknowledged_and_ended() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    bench.run_s(33);
    assert_eq!(bench.pushes(), 0);
    bench.expect_quiet();
    bench.accept(&invite, &Answer::active());
    let bye = bench.expect("BYE");
    assert_eq!(bye.call_id(), invite.call_id());
    bench.expect_quiet();
}

// Proves: SX-1
#[test]
fn a_repeated_notify_gets_the_same_answer_and_is_applied_once() {
    let mut bench = Bench::udp();
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    let mut notifier = bench.notifier(&subscribe);
    let document = reginfo(0, "full", &[Contact::of(PHONE_A)]);
    let lines = "Event: reg\nSubscription-State: active;expires=599999\n\
                 Content-Type: application/reginfo+xml\n";
    let text = bench.notify_text(&mut notifier, lines, &document);
    for _ in 0..5 {
        bench.sip_in(&text);
    }
    let sent = bench.take_sip();
    let answers: Vec<_> = sent.iter().filter(|m| m.what() == "200").collect();
    assert_eq!(answers.len(), 5);
    assert!(answers.iter().all(|answer| answer.text == answers[0].text));
    assert_eq!(sent.iter().filter(|m| m.what() == "INVITE").count(), 1);
    assert_eq!(bench.counter("notifies_total"), 1);
}

// Proves: SX-1, INT-4
#[test]
fn a_repeated_message_is_answered_alike_and_stored_once() {
    let mut bench = Bench::udp();
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&text);
    bench.sip_in(&text);
    let sent = bench.take_sip();
    let answers: Vec<_> = sent.iter().filter(|m| m.what() == "202").collect();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0].text, answers[1].text);
    assert_eq!(bench.messages(), 1);
    assert_eq!(bench.records.len(), 1);
}

// Proves: SX-3
#[test]
fn answers_over_udp_go_to_where_the_request_came_from() {
    let mut bench = Bench::udp();
    let source = addr("192.0.2.20:5099");
    for (via, marks) in [
        ("192.0.2.20:5060;rport", ";received=192.0.2.20;rport=5099"),
        ("192.0.2.77:5060;rport", ";received=192.0.2.20;rport=5099"),
    ] {
        let n = via.len() + usize::from(via.contains("77"));
        let options = message(
            &format!(
                "OPTIONS {USER} SIP/2.0\nVia: SIP/2.0/UDP {via};branch=z9hG4bKo{n}\n\
                 Max-Forwards: 70\nFrom: <sip:x@y>;tag=1\nTo: <{USER}>\nCall-ID: o{n}\n\
                 CSeq: 1 OPTIONS\n"
            ),
            "",
        );
        bench.datagram(source, options.as_bytes());
        let ok = bench.expect("200");
        assert_eq!(ok.to, Some(source));
        let value = ok.get("Via");
        for mark in marks.split(';') {
            assert!(value.contains(mark), "{value}");
        }
    }
}

// Proves: SX-7
#[test]
fn a_merged_request_is_refused() {
    let mut bench = Bench::udp();
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&text);
    bench.expect("202");
    let other = text.replace("branch=z9hG4bKm", "branch=z9hG4bKother");
    bench.sip_in(&other);
    bench.expect_some("482");
    assert_eq!(bench.messages(), 1);
}

// Proves: SX-5, DLG-6
#[test]
fn requests_for_no_known_dialog_are_refused() {
    let mut bench = Bench::new();
    for (at, method) in ["BYE", "UPDATE", "INVITE", "NOTIFY", "CANCEL", "ACK"]
        .iter()
        .enumerate()
    {
        let text = message(
            &format!(
                "{method} sip:push@pf1.ims.example.net:5060;transport=tcp SIP/2.0\n\
                 Via: SIP/2.0/TCP 192.0.2.20:5060;branch=z9hG4bKu{at}\nMax-Forwards: 70\n\
                 From: <{USER}>;tag=a\nTo: <sip:cpm-pf@ims.example.net>;tag=gone\n\
                 Call-ID: gone@{at}\nCSeq: 7 {method}\nEvent: reg\n\
                 Subscription-State: active\n"
            ),
            "",
        );
        bench.sip_in(&text);
        if *method != "ACK" {
            bench.expect("481");
        }
        bench.expect_quiet();
    }
}

// Proves: DLG-4, BAD-20
#[test]
fn a_fork_is_acknowledged_and_ended_and_the_first_dialog_kept() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let mut session = bench.bound(&invite, &Answer::passive());
    let send = bench.expect_msrp("SEND");
    session.link = send.link;
    let mut fork = Answer::passive();
    fork.tag = "other";
    let ack = bench.accept(&invite, &fork);
    assert_eq!(ack.to_tag(), "other");
    let bye = bench.expect("BYE");
    assert_eq!(bye.to_tag(), "other");
    assert_eq!(bench.connects.len(), 1, "one MSRP session");
    bench.reply(&bye, "200 OK", "");
    bench.take_message(&send);
    assert_eq!(bench.finish().to_tag(), "ue-9c41b7");
    assert_eq!(bench.messages(), 0);
}

// Proves: BAD-20
#[test]
fn a_storm_of_forks_costs_little() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    bench.bound(&invite, &Answer::active());
    bench.take_msrp();
    for n in 0..500 {
        let lines = format!(
            "Contact: <{USER};gr={PHONE_A}>\nRequire: timer\n\
             Session-Expires: 1800;refresher=uac\nContent-Type: application/sdp\n"
        );
        let body = sdp(PHONE_PATH, "passive", "");
        bench.reply_as(&invite, "200 OK", &format!("storm{n}"), &lines, &body);
    }
    let sent = bench.take_sip();
    let count = |what: &str| sent.iter().filter(|m| m.what() == what).count();
    assert_eq!((count("ACK"), count("BYE")), (8, 8));
    assert_eq!(bench.pushes(), 1);
    assert!(bench.connects.is_empty());
}

// Proves: DLG-5
#[test]
fn an_old_cseq_of_the_peer_is_refused_and_the_session_lives() {
    let mut bench = Bench::new();
    let (session, _, send) = bench.sending();
    let update = bench.in_dialog(&session, "UPDATE", 50, "Supported: timer\n", "");
    bench.sip_in(&update);
    bench.expect("200");
    let bye = bench.in_dialog(&session, "BYE", 49, "", "");
    bench.sip_in(&bye);
    bench.expect("500");
    bench.take_message(&send);
    bench.finish();
    assert_eq!(bench.messages(), 0);
}

// Proves: DLG-7
#[test]
fn a_bye_of_the_peer_ends_the_session_and_keeps_the_rest() {
    let mut bench = Bench::new();
    bench.deposit("one");
    bench.deposit("two");
    let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    let session = bench.bound(&invite, &Answer::active());
    let (one, two) = (bench.expect_msrp("SEND"), bench.expect_msrp("SEND"));
    bench.take_message(&one);
    let bye = bench.in_dialog(&session, "BYE", 1, "", "");
    bench.sip_in(&bye);
    bench.expect("200");
    assert!(!bench.is_open(session.link));
    assert_eq!(bench.messages(), 1);
    bench.run_s(1);
    bench.expect_quiet();
    let mut again = Contact::of(PHONE_A);
    again.cseq = 2;
    again.call_id = "another".into();
    bench.notify(&mut notifier, "full", &[again]);
    bench.run_s(1);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    assert_eq!(send.body, two.body);
    assert_eq!(send.get("Message-ID"), two.get("Message-ID"));
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
}

// Proves: DLG-8, TX-7
#[test]
fn an_unanswered_bye_is_repeated_over_udp_and_then_forgotten() {
    let mut bench = Bench::udp();
    let (_, _, send) = bench.sending();
    bench.take_message(&send);
    bench.run_s(2);
    let bye = bench.expect("BYE");
    bench.run_ms(31_900);
    let sends = bench.take_sip();
    let times: Vec<_> = sends
        .iter()
        .map(|m| m.at.since(bye.at).as_millis())
        .collect();
    let due = [
        500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
    ];
    assert_eq!(times.len(), due.len(), "{times:?}");
    for (time, due) in times.iter().zip(due) {
        assert!((due..=due + 20).contains(time), "{times:?}");
    }
    assert!(sends.iter().all(|m| m.text == bye.text));
    bench.run_s(60);
    bench.expect_quiet();
    assert_eq!(bench.pushes(), 0);
}

// Proves: OK-2, DLG-2
#[test]
fn routes_follow_the_record_route_of_the_2xx() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let target = "sip:ue@198.51.100.7:5071;transport=tcp";
    let body = sdp(PHONE_PATH, "active", "");
    // No Record-Route: no Route.
    let lines = format!("Contact: <{target}>\nContent-Type: application/sdp\n");
    bench.reply_as(&invite, "200 OK", "t", &lines, &body);
    let ack = bench.expect("ACK");
    assert_eq!(ack.uri(), target);
    assert!(!ack.has("Route"));

    // A strict router: it becomes the Request-URI, the target the last Route.
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let lines = format!(
        "Record-Route: <sip:last.example.net;lr>\nRecord-Route: <sip:strict.example.net>\n\
         Contact: <{target}>\nContent-Type: application/sdp\n"
    );
    bench.reply_as(&invite, "200 OK", "t", &lines, &body);
    let ack = bench.expect("ACK");
    assert_eq!(ack.uri(), "sip:strict.example.net");
    let routes = ack.all("Route").join(", ");
    assert_eq!(routes, format!("<sip:last.example.net;lr>, <{target}>"));
}

// Proves: OK-2a
#[test]
fn the_peer_can_move_its_target() {
    let mut bench = Bench::new();
    let (session, _, send) = bench.sending();
    let moved = "sip:+15550100@198.51.100.99:5060";
    let lines = format!("Contact: <{moved}>\nSupported: timer\n");
    let update = bench.in_dialog(&session, "UPDATE", 1, &lines, "");
    bench.sip_in(&update);
    bench.expect("200");
    bench.take_message(&send);
    assert_eq!(bench.finish().uri(), moved);
}

// Proves: OK-2b, SEL-6
#[test]
fn a_2xx_without_contact_is_acknowledged_and_ended() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let body = sdp(PHONE_PATH, "active", "");
    bench.reply_as(
        &invite,
        "200 OK",
        "t",
        "Content-Type: application/sdp\n",
        &body,
    );
    let ack = bench.expect("ACK");
    assert_eq!(ack.uri(), invite.uri());
    assert_ne!(ack.branch(), invite.branch());
    let bye = bench.expect("BYE");
    assert_eq!(bye.to_tag(), "t");
    assert_eq!(bye.cseq(), invite.cseq() + 1);
    assert!(bench.connects.is_empty());
    assert_eq!(bench.messages(), 1);
}

// Proves: BAD-24
#[test]
fn a_2xx_that_makes_no_dialog_is_acknowledged_and_left() {
    let body = sdp(PHONE_PATH, "active", "");
    let routes = "Record-Route: <sip:r.example.net;lr>\n".repeat(33);
    for lines in [
        format!("{routes}Contact: <{USER}>\nContent-Type: application/sdp\n"),
        "Contact: <sip:a b>\nContent-Type: application/sdp\n".to_owned(),
    ] {
        let mut bench = Bench::new();
        let (invite, _) = bench.invited();
        bench.reply_as(&invite, "200 OK", "t", &lines, &body);
        let sent = bench.take_sip();
        assert!(
            sent.iter().any(|m| m.what() == "ACK") || sent.is_empty(),
            "{sent:?}"
        );
        assert!(bench.connects.is_empty());
        assert_eq!(bench.messages(), 1);
    }
}

#[test]
fn what_the_next_message_of_a_read_is_about_is_asked_for_before_its_turn() {
    let mut bench = Bench::new();
    bench.deposit("hello");
    let mut notifier = bench.subscribed(&[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
    let (a, b) = (bench.expect("INVITE"), bench.expect("INVITE"));
    let trying = |invite: &Sip| response(invite, "100 Trying", "", "", "");
    let document = reginfo(notifier.version, "partial", &[Contact::of(PHONE_A)]);
    let lines = "Event: reg\nSubscription-State: active;expires=599999\n\
                 Content-Type: application/reginfo+xml\n";
    let notify = bench.notify_text(&mut notifier, lines, &document);
    let foreign = trying(&a).replace("z9hG4bK", "z9hG4bKnot");
    for (read, wanted) in [
        (trying(&a), 0),
        (trying(&a) + &trying(&b), 1),
        (trying(&b) + &notify + &trying(&a), 2),
        // Of nobody here.
        (trying(&b) + &foreign, 0),
    ] {
        let before = bench.counter("messages_foreseen_total");
        bench.feed(a.link, read.as_bytes());
        let foreseen = bench.counter("messages_foreseen_total") - before;
        assert_eq!(foreseen, wanted, "{read}");
    }
    // A driver that knows the next read says how it begins, before this one.
    let before = bench.counter("messages_foreseen_total");
    let (first, second) = (trying(&a), trying(&b));
    bench.shard.foresee(second.as_bytes());
    bench.feed(a.link, first.as_bytes());
    bench.shard.foresee(b"");
    bench.feed(a.link, second.as_bytes());
    bench.feed(a.link, first.as_bytes());
    assert_eq!(bench.counter("messages_foreseen_total") - before, 1);
    bench.expect("200");
}

// Proves: OK-4, PUSH-0b
#[test]
fn what_happens_to_one_phone_does_not_touch_the_other() {
    let mut bench = Bench::new();
    bench.deposit("hello");
    bench.subscribed(&[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
    let (a, b) = (bench.expect("INVITE"), bench.expect("INVITE"));
    bench.bound(&a, &Answer::active());
    let lost = bench.expect_msrp("SEND");
    bench.close(lost.link);
    bench.expect("BYE");
    bench.bound(&b, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    assert_eq!(bench.finish().call_id(), b.call_id());
    assert_eq!(bench.messages(), 1, "A still waits");
}

// Proves: NH-6
#[test]
fn a_stream_may_be_cut_anywhere_and_joined_anyhow() {
    let mut bench = Bench::new();
    let link = bench.trunks[&addr(SCSCF)];
    let text = bench.deposit_text(USER, "octet by octet", "");
    let padded = format!("\r\n\r\n\r\n{text}");
    for byte in padded.as_bytes() {
        let bytes = std::slice::from_ref(byte);
        bench.shard.handle(bench.now, Input::Bytes { link, bytes });
    }
    bench.pump();
    bench.expect("202");
    bench.expect("SUBSCRIBE");
    let many: String = (0..100)
        .map(|n| bench.deposit_text(USER, &format!("one of many {n}"), ""))
        .collect();
    bench.feed(link, many.as_bytes());
    assert_eq!(
        bench
            .take_sip()
            .iter()
            .filter(|m| m.what() == "202")
            .count(),
        100
    );
    assert_eq!(bench.messages(), 101);
}

// Proves: NH-6
#[test]
fn a_stream_without_content_length_is_refused_and_closed() {
    let mut bench = Bench::new();
    let link = bench.open(LinkKind::SipInbound, addr(SCSCF));
    let text = bench.deposit_text(USER, "x", "");
    let cut = text.replace("Content-Length", "X-Length");
    bench.feed(link, cut.as_bytes());
    bench.expect("400");
    assert!(!bench.is_open(link));
}

// Proves: NH-10, BAD-29
#[test]
fn strangers_get_no_answer() {
    let mut bench = Bench::udp();
    let text = bench.deposit_text(USER, "x", "");
    bench.datagram(addr("203.0.113.66:5060"), text.as_bytes());
    bench.expect_quiet();
    assert_eq!(bench.counter("untrusted_total"), 1);
    assert_eq!(bench.messages(), 0);
    let link = bench.open(LinkKind::SipInbound, addr("203.0.113.66:5060"));
    assert!(!bench.is_open(link));
}

// Proves: DLG-12, BAD-4
#[test]
fn other_methods_are_answered_by_what_they_are() {
    let mut bench = Bench::new();
    for (method, status) in [
        ("OPTIONS", "200"),
        ("SUBSCRIBE", "405"),
        ("PUBLISH", "405"),
        ("REFER", "405"),
        ("BREW", "501"),
    ] {
        let text = message(
            &format!(
                "{method} {USER} SIP/2.0\nVia: SIP/2.0/TCP 192.0.2.20:5060;branch=z9hG4bK{method}\n\
                 Max-Forwards: 70\nFrom: <sip:x@y>;tag=1\nTo: <{USER}>\nCall-ID: {method}\n\
                 CSeq: 1 {method}\n"
            ),
            "",
        );
        bench.sip_in(&text);
        let answer = bench.expect(status);
        assert!(answer.get("Allow").contains("MESSAGE"), "{method}");
        if method == "OPTIONS" {
            assert!(answer.has("Accept") && answer.get("Supported").contains("timer"));
        }
    }
}
