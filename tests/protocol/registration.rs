//! Third-party REGISTER, the subscription to the registration state, and who is pushed to.

use std::time::Duration;

use crate::harness::script::{Answer, Contact, Notifier, PHONE_A, PHONE_B, USER, example, reginfo};
use crate::harness::text::Sip;
use crate::harness::{Bench, options};

const REG: &str = "Event: reg\nSubscription-State: active;expires=599999\n\
                   Content-Type: application/reginfo+xml\n";

fn asked() -> (Bench, Sip) {
    let mut bench = Bench::new();
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    (bench, subscribe)
}

fn register(bench: &mut Bench, expires: u32) {
    let n = bench.serial;
    bench.serial += 1;
    let text = example("f4-01-3p-register.txt")
        .replace("z9hG4bKs4a", &format!("z9hG4bKreg{n}"))
        .replace("Expires: 600000", &format!("Expires: {expires}"));
    bench.sip_in(&text);
    bench.expect("200");
}

// Proves: ISC-4, AMB-5
#[test]
fn a_registration_without_mail_asks_nobody() {
    let mut bench = Bench::new();
    register(&mut bench, 600_000);
    bench.run_s(60);
    bench.expect_quiet();
}

// Proves: ISC-1, INT-5
#[test]
fn a_registration_of_somebody_elses_user_is_refused() {
    let mut bench = Bench::new();
    let text = example("f4-01-3p-register.txt").replace(
        "To: <sip:+15550100@ims.example.net>",
        "To: <sip:+15550100@other.example>",
    );
    bench.sip_in(&text);
    bench.expect("404");
}

// Proves: ISC-2
#[test]
fn a_deregistration_is_only_a_hint() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.reply(&invite, "486 Busy Here", "");
    bench.expect("ACK");
    register(&mut bench, 0);
    bench.run_s(80);
    bench.expect("INVITE");
}

// Proves: SUB-2
#[test]
fn a_480_to_the_subscribe_waits_for_a_registration() {
    let (mut bench, subscribe) = asked();
    bench.reply(&subscribe, "480 Temporarily Unavailable", "");
    bench.run_s(40_000);
    bench.expect_quiet();
    register(&mut bench, 600_000);
    let again = bench.expect("SUBSCRIBE");
    assert_ne!(again.call_id(), subscribe.call_id());
}

// Proves: SUB-3
#[test]
fn without_a_notify_the_subscription_has_failed_and_is_made_anew() {
    let (mut bench, subscribe) = asked();
    bench.reply(&subscribe, "202 Accepted", "Expires: 600000\n");
    bench.run_s(31);
    bench.expect_quiet();
    bench.run_s(60);
    let again = bench.expect("SUBSCRIBE");
    assert_ne!(again.call_id(), subscribe.call_id());
}

// Proves: SUB-3
#[test]
fn a_notify_before_the_2xx_is_used() {
    let (mut bench, subscribe) = asked();
    let mut notifier = Notifier {
        call_id: subscribe.call_id().to_owned(),
        our_tag: subscribe.sender_tag().to_owned(),
        tag: "early".to_owned(),
        cseq: 0,
        version: 0,
    };
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    bench.expect("INVITE");
    bench.reply_as(&subscribe, "200 OK", "early", "Expires: 600000\n", "");
    bench.run_s(20);
    bench.expect_quiet();
}

// Proves: SUB-4, BAD-21
#[test]
fn a_second_notifier_and_a_forger_are_refused() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[]);
    let document = reginfo(1, "full", &[Contact::of(PHONE_A)]);
    let mut second = notifier.clone();
    second.tag = "second".to_owned();
    let mut stranger = notifier.clone();
    stranger.our_tag = "guess".to_owned();
    let mut elsewhere = notifier.clone();
    elsewhere.call_id = "guess@pf1.ims.example.net".to_owned();
    for forged in [&mut second, &mut stranger, &mut elsewhere] {
        let text = bench.notify_text(forged, REG, &document);
        bench.sip_in(&text);
        bench.expect("481");
        bench.expect_quiet();
    }
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    bench.expect("INVITE");
}

// Proves: SUB-8, BAD-22, REG-12
#[test]
fn notifies_are_judged_by_form() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[]);
    let good = reginfo(1, "full", &[Contact::of(PHONE_A)]);
    let cases = [
        (
            "Event: reg\nContent-Type: application/reginfo+xml\n",
            good.as_str(),
            "400",
        ),
        (
            "Event: presence\nSubscription-State: active\nContent-Type: application/reginfo+xml\n",
            good.as_str(),
            "489",
        ),
        (
            "Event: reg\nSubscription-State: active\nContent-Type: text/plain\n",
            "x",
            "415",
        ),
        (REG, "<reginfo", "400"),
        (REG, "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "400"),
    ];
    for (lines, body, status) in cases {
        let text = bench.notify_text(&mut notifier, lines, body);
        bench.sip_in(&text);
        bench.expect(status);
        for message in bench.take_sip() {
            assert_eq!(
                message.what(),
                "SUBSCRIBE",
                "at most a refresh follows {status}"
            );
            bench.reply(&message, "200 OK", "Expires: 600000\n");
        }
        bench.run_s(40);
        bench.take_sip();
    }
    assert_eq!(bench.counter("invites_sent_total"), 0);
}

// Proves: SUB-10
#[test]
fn an_old_notify_is_refused_and_changes_nothing() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    notifier.cseq = 10;
    bench.notify(&mut notifier, "full", &[]);
    notifier.cseq = 4;
    let document = reginfo(1, "full", &[Contact::of(PHONE_A)]);
    let text = bench.notify_text(&mut notifier, REG, &document);
    bench.sip_in(&text);
    bench.expect("500");
    bench.run_s(5);
    bench.expect_quiet();
}

// Proves: SUB-5
#[test]
fn the_subscription_is_refreshed_in_time() {
    for (granted, least, most) in [(600u64, 285, 301), (600_000, 560_000, 599_401)] {
        let (mut bench, subscribe) = asked();
        let lines = format!("Expires: {granted}\n");
        bench.reply_as(&subscribe, "200 OK", "scnot01", &lines, "");
        let mut notifier = Notifier {
            call_id: subscribe.call_id().to_owned(),
            our_tag: subscribe.sender_tag().to_owned(),
            tag: "scnot01".to_owned(),
            cseq: 0,
            version: 0,
        };
        let document = reginfo(0, "full", &[]);
        let lines = format!(
            "Event: reg\nSubscription-State: active;expires={granted}\n\
             Content-Type: application/reginfo+xml\n"
        );
        let text = bench.notify_text(&mut notifier, &lines, &document);
        let from = bench.now;
        bench.sip_in(&text);
        bench.expect("200");
        bench.run_s(granted);
        let refresh = bench.expect("SUBSCRIBE");
        let after = refresh.at.since(from).as_secs();
        assert!(
            (least..=most).contains(&after),
            "{granted} s refreshed after {after} s"
        );
        assert_eq!(refresh.call_id(), subscribe.call_id());
        assert_eq!(refresh.to_tag(), "scnot01");
        assert_eq!(refresh.cseq(), subscribe.cseq() + 1);
    }
}

// Proves: SUB-6
#[test]
fn a_423_is_retried_with_the_asked_duration() {
    let mut options = options();
    options.subscribe.expires_s = 3600;
    let mut bench = Bench::with(options);
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    assert_eq!(subscribe.get("Expires"), "3600");
    bench.reply(&subscribe, "423 Interval Too Brief", "Min-Expires: 7200\n");
    bench.run_s(1);
    let again = bench.expect("SUBSCRIBE");
    assert_eq!(again.get("Expires"), "7200");
}

fn refreshing() -> (Bench, Sip) {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[]);
    notifier.version = 5;
    bench.notify(&mut notifier, "partial", &[]);
    let refresh = bench.expect("SUBSCRIBE");
    assert_eq!(refresh.call_id(), subscribe.call_id());
    (bench, refresh)
}

// Proves: SUB-6
#[test]
fn some_answers_to_a_refresh_end_the_subscription() {
    for status in [404, 405, 410, 416, 481, 482, 483, 484, 485, 489, 501, 604] {
        let (mut bench, refresh) = refreshing();
        bench.reply(&refresh, &format!("{status} No"), "");
        bench.run_s(7200);
        let again = bench.expect("SUBSCRIBE");
        assert_ne!(again.call_id(), refresh.call_id(), "{status}");
    }
    for status in [400, 500, 503] {
        let (mut bench, refresh) = refreshing();
        bench.reply(&refresh, &format!("{status} No"), "");
        bench.run_s(7200);
        for again in bench.take_sip() {
            assert_eq!(again.call_id(), refresh.call_id(), "{status}");
        }
    }
}

// Proves: SUB-7
#[test]
fn the_reason_of_an_end_tells_what_comes_next() {
    for (reason, least, most) in [
        (";reason=deactivated", 0, 5),
        (";reason=timeout", 0, 5),
        (";reason=probation;retry-after=300", 300, 400),
        (";reason=giveup;retry-after=300", 300, 400),
        ("", 25, 45),
    ] {
        let (mut bench, subscribe) = asked();
        let mut notifier = bench.notifier(&subscribe);
        bench.notify(&mut notifier, "full", &[]);
        bench.run_s(60);
        let lines = format!("Event: reg\nSubscription-State: terminated{reason}\n");
        let text = bench.notify_text(&mut notifier, &lines, "");
        let from = bench.now;
        bench.sip_in(&text);
        bench.expect("200");
        bench.run_s(most);
        let again = bench.expect("SUBSCRIBE");
        assert_ne!(again.call_id(), subscribe.call_id());
        let after = again.at.since(from).as_secs();
        assert!((least..=most).contains(&after), "{reason}: {after} s");
    }
    for reason in ["rejected", "noresource", "invariant"] {
        let (mut bench, subscribe) = asked();
        let mut notifier = bench.notifier(&subscribe);
        bench.notify(&mut notifier, "full", &[]);
        let lines = format!("Event: reg\nSubscription-State: terminated;reason={reason}\n");
        let text = bench.notify_text(&mut notifier, &lines, "");
        bench.sip_in(&text);
        bench.expect("200");
        bench.run_s(40_000);
        bench.expect_quiet();
        register(&mut bench, 600_000);
        bench.expect("SUBSCRIBE");
    }
}

// Proves: SUB-1, TX-7
#[test]
fn a_subscribe_is_repeated_over_udp_until_it_is_answered() {
    let mut bench = Bench::udp();
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    bench.run_ms(3600);
    let sends = bench.take_sip();
    assert_eq!(sends.len(), 3);
    assert!(sends.iter().all(|m| m.text == subscribe.text));
    bench.notifier(&subscribe);
    bench.run_s(20);
    bench.expect_quiet();
}

// Proves: SEL-2, SEL-1
#[test]
fn a_burst_of_notifies_makes_one_push_at_once() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    let from = bench.now;
    for _ in 0..5 {
        let document = reginfo(notifier.version, "full", &[Contact::of(PHONE_A)]);
        notifier.version += 1;
        let text = bench.notify_text(&mut notifier, REG, &document);
        bench.sip_in(&text);
        bench.run_ms(20);
    }
    bench.run_s(2);
    let sent = bench.take_sip();
    let invites: Vec<_> = sent.iter().filter(|m| m.what() == "INVITE").collect();
    assert_eq!(invites.len(), 1);
    assert!(invites[0].at.since(from) < Duration::from_millis(5));
    assert!(bench.counter("decisions_total") <= 3);
}

// Proves: SEL-4, DLV-3, AMB-1
#[test]
fn a_phone_that_appears_while_the_message_is_there_gets_it_too() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let a = bench.expect("INVITE");
    bench.bound(&a, &Answer::active());
    let to_a = bench.expect_msrp("SEND");
    bench.notify(
        &mut notifier,
        "full",
        &[Contact::of(PHONE_A), Contact::of(PHONE_B)],
    );
    bench.run_ms(260);
    let b = bench.expect("INVITE");
    assert!(b.uri().ends_with(PHONE_B));
    bench.take_message(&to_a);
    assert_eq!(bench.messages(), 1, "B has not got it");
    bench.bound(&b, &Answer::active());
    let to_b = bench.expect_msrp("SEND");
    bench.take_message(&to_b);
    assert_eq!(bench.messages(), 0);
}

// Proves: REG-4, REG-3
#[test]
fn contacts_that_are_gone_are_not_pushed_to() {
    for event in [
        "expired",
        "deactivated",
        "probation",
        "unregistered",
        "rejected",
    ] {
        let (mut bench, subscribe) = asked();
        let mut notifier = bench.notifier(&subscribe);
        let mut gone = Contact::of(PHONE_A);
        gone.state = "terminated";
        gone.event = event;
        bench.notify(&mut notifier, "full", &[gone]);
        bench.run_s(5);
        bench.expect_quiet();
        assert_eq!(bench.counter("invites_sent_total"), 0, "{event}");
    }
}

// Proves: REG-10, PUSH-a2, SEL-6, AMB-6
#[test]
fn a_phone_without_public_gruu_is_not_pushed_to() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    let mut bare = Contact::of(PHONE_A);
    bare.gruu = None;
    bench.notify(&mut notifier, "full", &[bare]);
    bench.run_s(5);
    bench.expect_quiet();
    assert_eq!(bench.messages(), 1);
}

// Proves: BAD-23
#[test]
fn a_gruu_that_would_break_a_request_is_not_used() {
    for bad in ["&#13;&#10;X: y", " z", "&lt;z&gt;", "&#9;", "&#0;"] {
        let (mut bench, subscribe) = asked();
        let mut notifier = bench.notifier(&subscribe);
        let mut contact = Contact::of(PHONE_A);
        contact.gruu = Some(format!("{USER};gr=urn:x{bad}"));
        let document = reginfo(0, "full", &[contact]);
        let text = bench.notify_text(&mut notifier, REG, &document);
        bench.sip_in(&text);
        bench.take_sip();
        bench.run_s(5);
        assert_eq!(bench.counter("invites_sent_total"), 0, "{bad}");
    }
}

// Proves: PUSH-a1
#[test]
fn a_newer_gruu_replaces_the_old() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let old = bench.expect("INVITE");
    bench.reply(&old, "486 Busy Here", "");
    bench.expect("ACK");
    let mut newer = Contact::of(PHONE_A);
    newer.gruu = Some(format!(
        "{USER};gr=urn:uuid:00000000-7dec-11d0-a765-00a0c91e6bf6"
    ));
    bench.notify(&mut notifier, "full", &[newer.clone()]);
    bench.run_s(90);
    let retry = bench.expect("INVITE");
    assert_eq!(Some(retry.uri()), newer.gruu.as_deref());
}

// Proves: REG-5
#[test]
fn a_refresh_of_a_satisfied_phone_triggers_nothing() {
    let (mut bench, notifier, send) = {
        let mut bench = Bench::new();
        let (_, notifier, send) = bench.sending();
        (bench, notifier, send)
    };
    let mut notifier = notifier;
    bench.take_message(&send);
    bench.finish();
    for cseq in 2..10 {
        let mut contact = Contact::of(PHONE_A);
        contact.event = "refreshed";
        contact.cseq = cseq;
        bench.notify(&mut notifier, "partial", &[contact]);
        bench.run_s(1);
    }
    bench.expect_quiet();
}

// Proves: ISC-5, SUB-7
#[test]
fn a_user_of_whom_nothing_is_left_is_forgotten() {
    let mut bench = Bench::new();
    let (_, mut notifier, send) = bench.sending();
    bench.take_message(&send);
    bench.finish();
    let lines = "Event: reg\nSubscription-State: terminated;reason=rejected\n\
                 Content-Type: application/reginfo+xml\n";
    let document = reginfo(notifier.version, "full", &[]);
    let text = bench.notify_text(&mut notifier, lines, &document);
    bench.sip_in(&text);
    bench.expect("200");
    bench.run_s(7200);
    bench.expect_quiet();
    assert_eq!(bench.shard.population().users, 0);
    bench.deposit("again");
    bench.expect("SUBSCRIBE");
}

// Proves: ISC-1, SUB-7
#[test]
fn a_notify_that_never_comes_is_asked_for() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[]);
    // The user registers; the NOTIFY of that is lost with its connection.
    register(&mut bench, 600_000);
    bench.run_ms(4900);
    bench.expect_quiet();
    bench.run_ms(200);
    let refresh = bench.expect("SUBSCRIBE");
    assert_eq!(refresh.call_id(), notifier.call_id);
    // The notifier has forgotten us: a new subscription.
    bench.reply(&refresh, "481 Call/Transaction Does Not Exist", "");
    bench.run_s(2);
    let again = bench.expect_some("SUBSCRIBE");
    assert_ne!(again.call_id(), notifier.call_id);
    let mut notifier = bench.notifier(&again);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    bench.expect("INVITE");
    // With a NOTIFY in time, nobody is asked.
    register(&mut bench, 600_000);
    bench.notify(&mut notifier, "partial", &[]);
    bench.run_s(20);
    bench.expect_quiet();
}

// Proves: ISC-1, ISC-4, SUB-6
#[test]
fn an_s_cscf_that_was_restarted_is_found_out_by_its_next_registration() {
    let (mut bench, subscribe) = asked();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.reply(&invite, "480 Temporarily Unavailable", "");
    bench.expect("ACK");
    // It knows no subscription any more, so the phone's new binding reaches nobody.
    register(&mut bench, 600_000);
    bench.run_ms(4900);
    bench.expect_quiet();
    bench.run_ms(200);
    let refresh = bench.expect("SUBSCRIBE");
    assert_eq!(refresh.call_id(), notifier.call_id);
    bench.reply(&refresh, "481 Call/Transaction Does Not Exist", "");
    bench.run_s(2);
    let again = bench.expect_some("SUBSCRIBE");
    assert_ne!(again.call_id(), notifier.call_id);
    let mut notifier = bench.notifier(&again);
    let mut contact = Contact::of(PHONE_A);
    contact.cseq = 2;
    bench.notify(&mut notifier, "full", &[contact]);
    bench.expect_some("INVITE");
}
