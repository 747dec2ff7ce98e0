//! Rules of provider and users at work: what a change of them does, quiet hours, limits of devices, and
//! what is shown of a user.

use std::sync::Arc;
use std::time::Duration;

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_B, USER, example, reginfo};
use crate::harness::{Bench, options};
use volley::registry::device_key;
use volley::selection::Policy;
use volley::selection::rules::{DeviceMedia, Preference, Quiet, RuleBook, Whose};
use volley::shard::Order;
use volley::store::op::{MediaClass, MediaLimit};

/// Key of the user's mailbox.
const CANONICAL: &[u8] = b"+15550100";

fn rules(provider: Policy, preference: Option<Preference>) -> Order {
    let mut book = RuleBook::new(provider);
    if let Some(preference) = preference {
        let rule = book.add_preference(preference).expect("room for one");
        book.give_preference(Whose::Identity(CANONICAL), rule)
            .expect("room for one");
    }
    book.seal().expect("nobody is named twice");
    Order::Rules(Arc::new(book))
}

fn phone_a_takes(limit: MediaLimit) -> Preference {
    Preference {
        media: vec![DeviceMedia {
            device: device_key(PHONE_A.as_bytes()),
            limit,
        }],
        ..Preference::default()
    }
}

fn stopped() -> Policy {
    Policy {
        stopped: true,
        ..Policy::default()
    }
}

// Proves: SEL-1
#[test]
fn a_change_of_the_rules_decides_anew_on_users_with_mail() {
    let mut bench = Bench::new();
    bench.operate(&rules(stopped(), None));
    bench.deposit("hello");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    bench.run_s(3600);
    bench.expect_quiet();
    bench.operate(&rules(Policy::default(), None));
    bench.expect("INVITE");
    assert_eq!(bench.counter("rules_adopted_total"), 2);
}

// Proves: SEL-1, PUSH-0
#[test]
fn quiet_hours_end_by_themselves() {
    // It is 05:58:05 on a Sunday.
    let night = Quiet {
        days: Quiet::DAILY,
        from_min: 22 * 60,
        to_min: 6 * 60,
    };
    let preference = Preference {
        quiet: vec![night],
        ..Preference::default()
    };
    let mut bench = Bench::new();
    bench.operate(&rules(Policy::default(), Some(preference)));
    bench.deposit("hello");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    bench.run_s(114);
    bench.expect_quiet();
    bench.run_s(2);
    bench.expect("INVITE");
}

// Proves: PUSH-0
#[test]
fn a_hold_lasts_until_the_user_wants_otherwise() {
    let hold = Preference {
        hold: true,
        ..Preference::default()
    };
    let mut bench = Bench::new();
    bench.operate(&rules(Policy::default(), Some(hold)));
    bench.deposit("hello");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    bench.run_s(86_400);
    bench.expect_quiet();
    bench.operate(&rules(Policy::default(), None));
    bench.expect("INVITE");
}

// Proves: INT-5
#[test]
fn messages_and_registrations_of_barred_users_are_refused() {
    let mut bench = Bench::new();
    let mut book = RuleBook::default();
    book.bar(Whose::Pattern(b"+1555*")).unwrap();
    book.seal().unwrap();
    bench.operate(&Order::Rules(Arc::new(book)));
    let message = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&message);
    bench.expect("403");
    bench.sip_in(&example("f4-01-3p-register.txt"));
    bench.expect("403");
    bench.run_s(60);
    bench.expect_quiet();
    assert_eq!(bench.shard.population().users, 0, "nothing is kept of them");
}

// Proves: PUSH-0, DLV-3
#[test]
fn a_message_that_a_device_does_not_take_goes_to_the_other_and_waits_for_none() {
    let pictures = MediaLimit {
        classes: MediaClass::Image.bit(),
        ..MediaLimit::NONE
    };
    let mut bench = Bench::new();
    bench.operate(&rules(Policy::default(), Some(phone_a_takes(pictures))));
    bench.deposit("text");
    bench.subscribed(&[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
    let invite = bench.expect("INVITE");
    assert!(invite.start.contains(PHONE_B), "{}", invite.start);
    bench.expect_quiet();
    bench.bound(&invite, &Answer::passive());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0, "the other device is not waited for");
}

// Proves: OVL-4, OVL-11
#[test]
fn an_urgent_message_that_a_device_does_not_take_does_not_free_the_next_one() {
    let short = MediaLimit {
        bytes_max: 1500,
        ..MediaLimit::NONE
    };
    let mut options = options();
    options.campaign.coalesce = Duration::ZERO;
    let mut bench = Bench::with(options);
    bench.operate(&rules(Policy::default(), Some(phone_a_takes(short))));
    let urgent = bench.deposit_text(USER, &"long".repeat(800), "Resource-Priority: wps.2\n");
    bench.sip_in(&urgent);
    bench.expect_some("202");
    let subscribe = bench.expect_some("SUBSCRIBE");
    bench.deposit("hi");
    let halt = ";oc=0;oc-algo=\"rate\";oc-validity=60000;oc-seq=1.1";
    bench.reply_with_wish(&subscribe, "100 Trying", halt);
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    bench.run_s(1);
    bench.expect_quiet();
    let decisions = bench.counter("decisions_total");
    assert!(decisions <= 5, "{decisions} for nothing");
    bench.run_s(60);
    bench.expect("INVITE");
}

// Proves: PUSH-0
#[test]
fn a_denied_device_gets_nothing_and_is_not_waited_for() {
    let preference = Preference {
        deny: vec![device_key(PHONE_B.as_bytes())],
        ..Preference::default()
    };
    let mut bench = Bench::new();
    bench.operate(&rules(Policy::default(), Some(preference)));
    bench.deposit("text");
    bench.subscribed(&[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
    let invite = bench.expect("INVITE");
    assert!(invite.start.contains(PHONE_A));
    bench.expect_quiet();
    bench.bound(&invite, &Answer::passive());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
}

// Proves: IMS-6
#[test]
fn a_phone_that_registered_from_another_network_roams() {
    let stays_home = Policy {
        allow_roaming: false,
        ..Policy::default()
    };
    for (network, code) in [
        ("\"ims.other.example\"", "D-ROAMING"),
        ("notims.example.net", "D-ROAMING"),
        ("\"Visited.IMS.example.net\";x=y", "D-BUSY-PUSH"),
    ] {
        let mut bench = Bench::new();
        bench.operate(&rules(stays_home, None));
        let register = example("f4-01-3p-register.txt").replace(
            "Max-Forwards",
            &format!("P-Visited-Network-ID: {network}\r\nMax-Forwards"),
        );
        bench.deposit("hello");
        bench.sip_in(&register);
        bench.expect_some("200");
        bench.subscribed(&[Contact::of(PHONE_A)]);
        let report = bench.inspect(USER).unwrap();
        assert_eq!(report.devices[0].verdict.code(), code, "{network}");
    }
}

// Proves: RSP-32, BAD-32
#[test]
fn what_a_phone_says_of_its_refusal_is_shown_escaped_and_cut() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let lines = format!(
        "Reason: Q.850;cause=17;text=\"busy \u{e9}\"\nWarning: 399 h \"{}\"\n",
        "x".repeat(500)
    );
    bench.reply(&invite, "486 Busy Here", &lines);
    bench.expect("ACK");
    let report = bench.inspect(USER).expect("the user is known");
    let device = &report.devices[0];
    assert_eq!(device.verdict.code(), "D-BACKOFF");
    assert_eq!(device.state, "backoff");
    assert_eq!(device.last.status, 486);
    let shown = "Reason: Q.850;cause=17;text=\\\"busy \\xc3\\xa9\\\"; Warning: 399 h \\\"xxx";
    assert!(device.note.starts_with(shown), "{}", device.note);
    assert!(device.note.len() < 160, "{}", device.note.len());
    // It does not decide anything: the 486 is as any other.
    bench.run_s(60);
    bench.expect_quiet();
    bench.run_s(20);
    bench.expect("INVITE");
    assert!(bench.inspect("sip:nobody@ims.example.net").is_none());
}

// Proves: SEL-3
#[test]
fn a_user_is_shown_as_a_decision_would_find_it() {
    let mut bench = Bench::new();
    bench.deposit("hello");
    let mut gone = Contact::of(PHONE_B);
    gone.gruu = None;
    bench.subscribed(&[Contact::of(PHONE_A), gone]);
    bench.expect("INVITE");
    let report = bench.inspect(USER).unwrap();
    assert_eq!(bench.counter("verdict_selected_total"), 1);
    assert_eq!(bench.counter("verdict_no_gruu_total"), 1);
    let codes: Vec<_> = report.devices.iter().map(|it| it.verdict.code()).collect();
    assert_eq!(codes, ["D-BUSY-PUSH", "D-NO-GRUU"]);
    assert_eq!(report.messages, 1);
    assert_eq!(report.devices[0].instance, PHONE_A);
}

// Proves: BAD-14
#[test]
fn a_message_for_an_identity_that_two_users_have_is_refused() {
    const OTHER: &str = "sip:+15550199@ims.example.net";
    let mut bench = Bench::with(options());
    bench.deposit("for the first");
    let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
    bench.expect("INVITE");
    let shared = "sip:shared@ims.example.net";
    let with_alias = |document: String, id: &str| {
        document.replace(
            "</reginfo>",
            &format!(
                "<registration aor=\"{shared}\" id=\"{id}\" state=\"active\">\
                 <contact id=\"z\" state=\"active\" event=\"created\" callid=\"q\" cseq=\"1\">\
                 <uri>sip:z@198.51.100.9</uri><unknown-param name=\"+sip.instance\">\
                 \"&lt;urn:uuid:{id}&gt;\"</unknown-param></contact></registration></reginfo>"
            ),
        )
    };
    let lines = "Event: reg\nSubscription-State: active;expires=599999\n\
                 Content-Type: application/reginfo+xml\n";
    let first = with_alias(reginfo(1, "full", &[Contact::of(PHONE_A)]), "first");
    let text = bench.notify_text(&mut notifier, lines, &first);
    bench.sip_in(&text);
    bench.expect("200");
    let message = bench.deposit_text(shared, "one owner", "");
    bench.sip_in(&message);
    bench.expect("202");
    bench.run_s(1);
    bench.take_sip();

    let message = bench.deposit_text(OTHER, "for the second", "");
    bench.sip_in(&message);
    bench.expect_some("202");
    let subscribe = bench.expect_some("SUBSCRIBE");
    let mut second = bench.notifier(&subscribe);
    let document =
        with_alias(reginfo(0, "full", &[Contact::of(PHONE_B)]), "second").replace(USER, OTHER);
    let text = bench.notify_text(&mut second, lines, &document);
    bench.sip_in(&text);
    bench.expect_some("200");
    bench.take_sip();
    let message = bench.deposit_text(shared, "whose?", "");
    bench.sip_in(&message);
    bench.expect("485");
    let message = bench.deposit_text(OTHER, "clear", "");
    bench.sip_in(&message);
    bench.expect_some("202");

    // The first gives it up: from then on it is clear again.
    let first = reginfo(2, "full", &[Contact::of(PHONE_A)]);
    let text = bench.notify_text(&mut notifier, lines, &first);
    bench.sip_in(&text);
    bench.take_sip();
    let message = bench.deposit_text(shared, "clear again", "");
    bench.sip_in(&message);
    bench.expect_some("202");
}
