//! Messages over which a phone loses its session each time (BAD-30).

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_B};
use crate::harness::text::Sip;
use crate::harness::{Bench, options};

/// Lets time pass until an INVITE is out; everything else of ours is answered with 200.
fn next_invite(bench: &mut Bench) -> Option<Sip> {
    for _ in 0..4000 {
        let mut found = None;
        for sip in bench.take_sip() {
            match sip.what() {
                "INVITE" => found = Some(sip),
                "BYE" | "SUBSCRIBE" => bench.reply(&sip, "200 OK", ""),
                _ => {}
            }
        }
        if found.is_some() {
            return found;
        }
        bench.run_s(1);
    }
    None
}

/// One session of a phone that takes messages in order and dies over any with `poison` in it. What it
/// took, and whether it died.
fn session(bench: &mut Bench, invite: &Sip) -> (Vec<String>, bool) {
    bench.bound(invite, &Answer::active());
    let mut taken = Vec::new();
    loop {
        let sends = bench.take_msrp();
        if sends.is_empty() {
            return (taken, false);
        }
        for send in sends {
            if send.body.contains("poison") {
                bench.close(send.link);
                return (taken, true);
            }
            let text = send.body.rsplit("\r\n").next().expect("a line").to_owned();
            bench.take_message(&send);
            taken.push(text);
        }
    }
}

// Proves: BAD-30, SEL-6, LIFE-4
#[test]
fn the_third_session_lost_over_a_message_is_the_last() {
    let mut bench = Bench::new();
    for text in ["one", "poison", "two", "three"] {
        bench.deposit(text);
    }
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let mut all = Vec::new();
    let mut died = 0;
    while let Some(invite) = next_invite(&mut bench) {
        let (taken, lost) = session(&mut bench, &invite);
        all.extend(taken);
        died += u32::from(lost);
        assert!(died <= 3, "no fourth session is lost over it");
    }
    assert_eq!(died, 3);
    assert_eq!(all, ["one", "two", "three"], "the rest is delivered, once");
    assert_eq!(bench.counter("refused_poison_total"), 1);
    assert_eq!(bench.messages(), 1, "another phone may still take it");
    // The refusal is durable.
    let records = bench.records.clone();
    let mut fresh = Bench::restarted(options(), &records, 2);
    fresh.run_s(1);
    fresh.subscribed(&[Contact::of(PHONE_A)]);
    fresh.run_s(4000);
    assert_eq!(fresh.counter("invites_sent_total"), 0);
}

// Proves: BAD-30
#[test]
fn poison_for_one_phone_is_a_message_for_another() {
    let mut bench = Bench::new();
    bench.deposit("poison");
    let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
    for _ in 0..3 {
        let invite = next_invite(&mut bench).expect("tried three times");
        assert!(session(&mut bench, &invite).1);
    }
    assert!(next_invite(&mut bench).is_none());
    bench.notify(
        &mut notifier,
        "full",
        &[Contact::of(PHONE_A), Contact::of(PHONE_B)],
    );
    let invite = next_invite(&mut bench).expect("the other phone is asked");
    assert!(invite.uri().ends_with(PHONE_B));
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
}

// Proves: BAD-30
#[test]
fn after_a_loss_messages_go_one_by_one_until_a_session_ends_well() {
    let mut bench = Bench::new();
    let texts = ["one", "two", "three"];
    for text in texts {
        bench.deposit(text);
    }
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = next_invite(&mut bench).expect("the first try");
    bench.bound(&invite, &Answer::active());
    let sends = bench.take_msrp();
    assert_eq!(sends.len(), 3, "nothing is suspected yet");
    bench.close(sends[0].link);
    let invite = next_invite(&mut bench).expect("tried again");
    bench.bound(&invite, &Answer::active());
    for text in texts {
        let sends = bench.take_msrp();
        assert_eq!(sends.len(), 1, "so that a further loss has one culprit");
        assert!(sends[0].body.ends_with(text));
        bench.take_message(&sends[0]);
    }
    bench.run_s(5);
    bench.expect_some("BYE");
    for text in texts {
        bench.deposit(text);
    }
    let invite = next_invite(&mut bench).expect("more mail");
    bench.bound(&invite, &Answer::active());
    assert_eq!(bench.take_msrp().len(), 3, "forgiven");
}
