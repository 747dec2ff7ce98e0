//! Records that the store cannot read back for a while, or at all.

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_B, USER};
use crate::harness::{Bench, options};

/// One message waits for an absent user, and is in no cache.
fn waiting() -> Bench {
    let mut options = options();
    options.post.cache_bytes_max = 1;
    let mut bench = Bench::with(options);
    bench.deposit("hello");
    let other = bench.deposit_text("sip:+15550101@ims.example.net", "text", "");
    bench.sip_in(&other);
    bench.expect_some("202");
    bench
}

/// The SUBSCRIBE for the user with mail is answered: these phones are there.
fn found(bench: &mut Bench, contacts: &[Contact]) {
    let subscribe = bench.expect_some("SUBSCRIBE");
    assert_eq!(subscribe.uri(), USER);
    bench.take_sip();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", contacts);
}

/// Takes what comes in `seconds`, by connections that we make; gives how many times the message came.
fn taken(bench: &mut Bench, seconds: u64) -> usize {
    let mut count = 0;
    for _ in 0..seconds * 10 {
        for sip in bench.take_sip() {
            match sip.what() {
                "INVITE" => bench.send_200(&sip, &Answer::passive()),
                "BYE" => bench.reply(&sip, "200 OK", ""),
                _ => {}
            }
        }
        for send in bench.take_msrp() {
            assert!(send.body.ends_with("hello"));
            bench.take_message(&send);
            count += 1;
        }
        bench.run_ms(100);
    }
    count
}

// Proves: DLV-1, RSP-30
#[test]
fn a_record_that_cannot_be_read_for_some_seconds_is_sent_to_every_phone() {
    let mut bench = waiting();
    bench.unreadable = true;
    found(&mut bench, &[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
    bench.run_ms(3_000);
    bench.expect_quiet();
    let asked = bench.counter("store_unreadable_total");
    assert!((2..=4).contains(&asked), "with waits between: {asked}");
    bench.unreadable = false;
    assert_eq!(taken(&mut bench, 20), 2);
    assert_eq!(bench.messages(), 1, "that of the other user");
    assert_eq!(bench.counter("store_put_off_total"), 0);
}

// Proves: DLV-1, DLV-3, RSP-30
#[test]
fn a_record_that_stays_unreadable_is_kept_for_that_phone_until_the_next_start() {
    let mut bench = waiting();
    bench.unreadable = true;
    found(&mut bench, &[Contact::of(PHONE_A)]);
    bench.run_s(30);
    bench.expect_quiet();
    assert_eq!(bench.counter("store_put_off_total"), 1);
    assert_eq!(bench.counter("store_unreadable_total"), 5);
    bench.unreadable = false;
    assert_eq!(taken(&mut bench, 20), 0, "nothing more for now");
    assert_eq!(bench.messages(), 2);
    let records = bench.records.clone();
    let mut fresh = Bench::restarted(options(), &records, 2);
    fresh.run_s(1);
    found(&mut fresh, &[Contact::of(PHONE_A)]);
    assert_eq!(taken(&mut fresh, 20), 1);
}

// Proves: DLV-1, DLV-3, RSP-30
#[test]
fn a_message_that_another_phone_has_waits_for_the_one_whose_record_was_unreadable() {
    let mut bench = waiting();
    bench.unreadable = true;
    let subscribe = bench.expect_some("SUBSCRIBE");
    bench.take_sip();
    let mut notifier = bench.notifier(&subscribe);
    let (a, b) = (Contact::of(PHONE_A), Contact::of(PHONE_B));
    bench.notify(&mut notifier, "full", std::slice::from_ref(&a));
    bench.run_s(30);
    assert_eq!(bench.counter("store_put_off_total"), 1);
    bench.unreadable = false;
    bench.notify(&mut notifier, "full", &[a.clone(), b]);
    assert_eq!(taken(&mut bench, 20), 1, "the other phone");
    assert_eq!(bench.messages(), 2, "it stays for the first");
    let records = bench.records.clone();
    let mut fresh = Bench::restarted(options(), &records, 2);
    fresh.run_s(1);
    found(&mut fresh, &[a]);
    assert_eq!(taken(&mut fresh, 20), 1);
}
