//! Next hops that ask for less, or say nothing at all (RFC 7339).

use volley::push::post::PostOptions;
use volley::shard::ShardOptions;

use crate::harness::script::{Answer, Contact, PHONE_A};
use crate::harness::text::Sip;
use crate::harness::{Bench, SCSCF, addr, options};

/// A bench that nothing wakes but what it has to do: folding what rests, as all others do at once, would.
fn quiet() -> ShardOptions {
    let mut options = options();
    options.post = PostOptions::default();
    options
}

/// A bench that may push to many devices at once, and `n` contacts.
fn crowd(n: usize) -> (Bench, Vec<Contact>) {
    let mut options = quiet();
    options.campaign.policy.devices_max = 32;
    let contact = |at: usize| {
        let urn = format!("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6{at:03}");
        Contact::of(Box::leak(urn.into_boxed_str()))
    };
    (Bench::with(options), (0..n).map(contact).collect())
}

fn invites(bench: &mut Bench) -> usize {
    let sent = bench.take_sip();
    sent.iter()
        .filter(|message| message.what() == "INVITE")
        .count()
}

/// The first device rings and its hop asks for `oc`; then twenty more register.
fn twenty_after(oc: &str) -> Bench {
    let (mut bench, contacts) = crowd(21);
    bench.deposit("hello");
    let mut notifier = bench.subscribed(&contacts[..1]);
    let first = bench.expect("INVITE");
    bench.reply_with_wish(&first, "180 Ringing", oc);
    bench.run_ms(300);
    bench.notify(&mut notifier, "full", &contacts);
    bench
}

/// The hop answers the first SUBSCRIBE with the wish to get nothing new for so long.
fn halted_for(ms: u32) -> (Bench, Sip) {
    let halt = format!(";oc=100;oc-algo=\"loss\";oc-validity={ms};oc-seq=1.1");
    let mut bench = Bench::new();
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    bench.reply_with_wish(&subscribe, "100 Trying", &halt);
    (bench, subscribe)
}

// Proves: OVL-4, OVL-7
#[test]
fn a_trunk_whose_peer_does_not_read_gets_no_new_invite_and_loses_nothing_owed() {
    let (mut bench, contacts) = crowd(2);
    bench.deposit("hello");
    let mut notifier = bench.subscribed(&contacts[..1]);
    let first = bench.expect("INVITE");
    let trunk = bench.trunks[&addr(SCSCF)];
    bench.stick(trunk);
    bench.owe_answers();
    bench.notify(&mut notifier, "full", &contacts);
    bench.run_s(1);
    assert_eq!(
        bench.counter("invites_sent_total"),
        1,
        "one more would have to wait"
    );
    assert_eq!(bench.counter("pushes_failed_total"), 0);
    bench.send_200(&first, &Answer::active());
    bench.unstick(trunk);
    let sent = bench.take_sip();
    let count = |what: &str| sent.iter().filter(|message| message.what() == what).count();
    assert_eq!(count("ACK"), 1, "it is owed, whatever waits");
    assert_eq!(count("INVITE"), 1, "there is room again");
    assert_eq!(bench.counter("output_dropped_total"), 0);
}

// Proves: OK-0
#[test]
fn an_ack_that_a_full_connection_did_not_take_goes_before_the_bye_that_is_repeated() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let trunk = bench.trunks[&addr(SCSCF)];
    bench.stick(trunk);
    for _ in 0..4 {
        bench.owe_answers();
    }
    let mut answer = Answer::active();
    answer.sdp = answer.sdp.replace("m=message 2855", "m=message 0");
    let dropped = bench.counter("output_dropped_total");
    bench.send_200(&invite, &answer);
    // The ACK, once more before the BYE, and that.
    assert_eq!(bench.counter("output_dropped_total") - dropped, 3);
    bench.unstick(trunk);
    let is_ours = |sip: &Sip| matches!(sip.what(), "ACK" | "BYE");
    assert!(!bench.take_sip().iter().any(is_ours), "neither was taken");
    bench.run_s(1);
    let sent = bench.take_sip();
    let sent: Vec<&str> = sent.iter().map(Sip::what).collect();
    assert_eq!(sent, ["ACK", "BYE"]);
    bench.run_s(40);
    let again = bench.take_sip();
    assert!(!again.iter().any(|sip| sip.what() == "ACK"), "it left once");
}

// Proves: OVL-1, OVL-2, OVL-3, OVL-4
#[test]
fn of_twenty_new_invites_a_loss_of_forty_percent_sends_twelve_and_the_rest_later() {
    let mut bench = twenty_after(";oc=40;oc-algo=\"loss\";oc-validity=2000;oc-seq=1795329601.250");
    assert_eq!(invites(&mut bench), 12);
    assert_eq!(bench.counter("pushes_throttled_total"), 8);
    assert_eq!(
        bench.counter("pushes_failed_total"),
        0,
        "waiting is no failure"
    );
    bench.run_ms(1500);
    assert_eq!(invites(&mut bench), 0, "they wait until the feedback ends");
    bench.run_s(2);
    assert_eq!(invites(&mut bench), 8);
}

// Proves: OVL-2, OVL-3
#[test]
fn a_rate_of_zero_sends_nothing_and_validity_zero_ends_it() {
    let mut bench = twenty_after(";oc=0;oc-algo=\"rate\";oc-validity=60000;oc-seq=5.1");
    bench.run_s(3);
    assert_eq!(invites(&mut bench), 0);
    bench.run_s(60);
    assert_eq!(invites(&mut bench), 20, "the feedback ended");
}

// Proves: OVL-3, OVL-4
#[test]
fn a_rate_is_used_while_it_lasts() {
    let mut bench = twenty_after(";oc=5;oc-algo=\"rate\";oc-validity=60000;oc-seq=5.1");
    let from = bench.now;
    bench.run_s(5);
    let sent = bench.take_sip();
    let after: Vec<u128> = sent
        .iter()
        .filter(|sip| sip.what() == "INVITE")
        .map(|sip| sip.at.since(from).as_millis())
        .collect();
    let due: Vec<u128> = (0..20_u128)
        .map(|nth| nth.saturating_sub(3) * 200)
        .collect();
    assert_eq!(after, due, "four at once, then one each 200 ms");
    assert_eq!(bench.counter("pushes_failed_total"), 0);
    assert_eq!(bench.counter("pushes_throttled_total"), 16, "once each");
}

// Proves: OVL-3, OVL-4
#[test]
fn under_a_rate_whoever_waited_longest_is_first_and_subscribes_count_too() {
    let mut bench = Bench::with(quiet());
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    let rate = ";oc=20;oc-algo=\"rate\";oc-validity=60000;oc-seq=1.1";
    bench.reply_with_wish(&subscribe, "100 Trying", rate);
    let from = bench.now;
    let others: Vec<String> = (0..30)
        .map(|at| format!("sip:+155502{at:02}@ims.example.net"))
        .collect();
    for other in &others {
        let text = bench.deposit_text(other, "hello", "");
        bench.sip_in(&text);
    }
    bench.run_s(2);
    let sent = bench.take_sip();
    let asks = || sent.iter().filter(|sip| sip.what() == "SUBSCRIBE");
    let of: Vec<&str> = asks().map(Sip::uri).collect();
    assert_eq!(of, others);
    let after = asks().map(|sip| sip.at.since(from).as_millis());
    let due = (0..30_u128).map(|nth| nth.saturating_sub(3) * 50);
    assert!(after.eq(due), "four at once, then one each 50 ms");
}

// Proves: OVL-2, OVL-4
#[test]
fn what_waited_goes_when_the_hop_takes_its_wish_back() {
    for halt in ["oc=0;oc-algo=\"rate\"", "oc=100;oc-algo=\"loss\""] {
        let (mut bench, contacts) = crowd(21);
        bench.deposit("hello");
        let mut notifier = bench.subscribed(&contacts[..1]);
        let first = bench.expect("INVITE");
        let wish = |oc: &str, seq: u32| format!(";{oc};oc-validity=3600000;oc-seq={seq}.1");
        bench.reply_with_wish(&first, "180 Ringing", &wish(halt, 1));
        bench.run_ms(300);
        bench.notify(&mut notifier, "full", &contacts);
        bench.run_s(30);
        assert_eq!(invites(&mut bench), 0, "{halt}");
        let over = wish("oc=0;oc-algo=\"loss\"", 2);
        bench.reply_with_wish(&first, "183 Session Progress", &over);
        bench.run_ms(10);
        assert_eq!(invites(&mut bench), 20, "{halt}");
    }
}

// Proves: OVL-3
#[test]
fn a_share_of_an_hour_is_offered_again_within_seconds() {
    let mut bench = twenty_after(";oc=40;oc-algo=\"loss\";oc-validity=3600000;oc-seq=5.1");
    assert_eq!(invites(&mut bench), 12);
    bench.run_s(6);
    let again = invites(&mut bench);
    assert!((4..=5).contains(&again), "{again} of eight");
    bench.run_s(30);
    assert_eq!(invites(&mut bench), 8 - again);
}

// Proves: OVL-2, OVL-4
#[test]
fn what_a_hop_asks_for_in_answers_to_other_requests_counts_too() {
    let (mut bench, subscribe) = halted_for(60_000);
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    bench.run_s(50);
    assert_eq!(invites(&mut bench), 0);
    assert_eq!(bench.counter("overload_feedback_total"), 1);
    bench.run_s(15);
    assert_eq!(invites(&mut bench), 1);
}

// Proves: OVL-3, OVL-4
#[test]
fn a_first_subscribe_that_is_held_back_leaves_when_that_ends() {
    let (mut bench, _) = halted_for(2000);
    let message = bench.deposit_text("sip:+15550188@ims.example.net", "hello", "");
    bench.sip_in(&message);
    bench.expect_some("202");
    bench.run_ms(1900);
    let asks = |bench: &mut Bench| {
        let sent = bench.take_sip();
        let of_other = |sip: &&Sip| sip.uri().contains("+15550188");
        sent.iter().filter(of_other).count()
    };
    assert_eq!(asks(&mut bench), 0);
    bench.run_ms(700);
    assert_eq!(asks(&mut bench), 1);
    assert_eq!(bench.counter("subscribes_delayed_total"), 1);
    assert_eq!(bench.counter("subscribes_sent_total"), 2);
}

// Proves: OVL-2
#[test]
fn stale_feedback_changes_nothing() {
    let (mut bench, contacts) = crowd(3);
    bench.deposit("hello");
    let mut notifier = bench.subscribed(&contacts[..1]);
    let first = bench.expect("INVITE");
    bench.reply_with_wish(&first, "180 Ringing", ";oc=0;oc-algo=\"loss\";oc-seq=9.1");
    bench.reply_with_wish(
        &first,
        "180 Ringing",
        ";oc=100;oc-algo=\"loss\";oc-validity=60000;oc-seq=8.9",
    );
    bench.run_ms(300);
    bench.notify(&mut notifier, "full", &contacts);
    assert_eq!(invites(&mut bench), 2);
    assert_eq!(bench.counter("overload_feedback_total"), 1);
}

// Proves: OVL-2
#[test]
fn a_hop_that_was_restarted_is_heard_though_its_sequence_began_again() {
    let (mut bench, contacts) = crowd(3);
    bench.deposit("hello");
    let mut notifier = bench.subscribed(&contacts[..1]);
    let first = bench.expect("INVITE");
    let halt = |seq: &str| format!(";oc=100;oc-algo=\"loss\";oc-validity=60000;oc-seq={seq}");
    let free = |seq: &str| format!(";oc=0;oc-algo=\"loss\";oc-validity=500;oc-seq={seq}");
    bench.reply_with_wish(&first, "180 Ringing", &free("900.1"));
    bench.close(bench.trunks[&addr(SCSCF)]);
    bench.run_s(1);
    bench.reply_with_wish(&first, "180 Ringing", &halt("1.1"));
    bench.notify(&mut notifier, "full", &contacts);
    bench.run_ms(300);
    assert_eq!(invites(&mut bench), 0, "no word of before can still come");
    assert_eq!(bench.counter("overload_feedback_total"), 2);
    // While the connection lasts, the sequence is what it says.
    bench.reply_with_wish(&first, "180 Ringing", &free("0.9"));
    bench.run_s(58);
    assert_eq!(invites(&mut bench), 0);
    assert_eq!(bench.counter("overload_feedback_total"), 2);
    bench.run_s(4);
    assert_eq!(invites(&mut bench), 2);
}

// Proves: OVL-3
#[test]
fn requests_in_a_dialog_are_never_held_back() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    bench.reply_with_wish(
        &invite,
        "180 Ringing",
        ";oc=100;oc-algo=\"loss\";oc-validity=60000;oc-seq=1.1",
    );
    let mut answer = Answer::active();
    answer.sdp = answer.sdp.replace("m=message 2855", "m=message 0");
    bench.accept(&invite, &answer);
    bench.expect("BYE");
}

// Proves: OVL-3
#[test]
fn a_refresh_is_in_a_dialog_and_not_held_back() {
    let (mut bench, subscribe) = halted_for(3_600_000);
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[]);
    notifier.version = 5; // What lies between was lost.
    bench.notify(&mut notifier, "partial", &[]);
    let refresh = bench.expect("SUBSCRIBE");
    assert_eq!(refresh.call_id(), subscribe.call_id());
    assert_eq!(refresh.to_tag(), "scnot01");
}

// Proves: OVL-5
#[test]
fn a_silent_hop_is_probed_with_growing_waits_and_used_again_once_it_answers() {
    let (mut bench, contacts) = crowd(3);
    bench.deposit("hello");
    bench.subscribed(&contacts);
    assert_eq!(invites(&mut bench), 3);
    let silent_at = {
        bench.run_s(31);
        bench.expect_quiet();
        bench.run_s(2);
        bench.now
    };
    let probe = bench.expect("OPTIONS");
    assert!(bench.passed_ms(silent_at) < 2500);
    // Not answered: 32 s for its transaction, then a longer wait than the first.
    bench.run_s(33);
    bench.expect_quiet();
    bench.run_s(3);
    let second = bench.expect("OPTIONS");
    assert_ne!(probe.branch(), second.branch());
    bench.run_s(33);
    bench.expect_quiet();
    bench.run_s(5);
    let third = bench.expect("OPTIONS");
    assert!(third.at.since(second.at) > second.at.since(probe.at));
    bench.run_s(1);
    bench.expect_quiet();
    bench.reply(&third, "200 OK", "");
    bench.run_s(60);
    assert_eq!(invites(&mut bench), 3, "traffic resumes");
    // The answer to an old probe means nothing now.
    bench.reply(&probe, "200 OK", "");
    bench.expect_quiet();
}

// Proves: OVL-5
#[test]
fn one_that_answers_now_and_then_is_not_silent() {
    let mut bench = Bench::new();
    bench.deposit("hello");
    let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
    for round in 0..4 {
        let invite = bench.expect("INVITE");
        if round == 2 {
            bench.reply(&invite, "486 Busy Here", "");
            bench.expect("ACK");
        }
        bench.run_s(40);
        let mut contact = Contact::of(PHONE_A);
        contact.call_id = format!("again{round}");
        bench.notify(&mut notifier, "partial", &[contact]);
        bench.run_s(1);
    }
    bench.expect("INVITE");
}
