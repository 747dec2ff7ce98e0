//! The times of a push's stages, as they are measured: from what, to what, in simulated time.

use core::time::Duration;

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_B, USER, example};
use crate::harness::{Bench, addr, options};
use volley::base::surface::LinkKind;
use volley::metrics::histogram::Histogram;
use volley::shard::Ages;

/// Milliseconds of all that was counted, and how much that was.
fn counted(times: &Histogram) -> (u64, u64) {
    (times.sum_us() / 1000, times.count())
}

fn triggers(bench: &Bench) -> (u64, u64) {
    counted(&bench.shard.probe().trigger_time)
}

/// A bench whose pushes may be two at a time.
fn bench() -> Bench {
    let mut options = options();
    options.campaign.policy.devices_max = 2;
    Bench::with(options)
}

#[test]
fn an_invite_counts_from_its_notify_to_the_end_of_the_turn() {
    let mut bench = bench();
    bench.turn_length = Duration::from_millis(3);
    bench.invited();
    assert_eq!(triggers(&bench), (3, 1));
    bench.run_s(1);
    assert_eq!(triggers(&bench), (3, 1), "once");
}

#[test]
fn an_invite_counts_what_its_notify_waited_for_the_end_of_the_window() {
    let mut bench = bench();
    let (_, mut notifier) = bench.invited();
    assert_eq!(triggers(&bench), (0, 1));
    bench.run_ms(100);
    let both = [Contact::of(PHONE_A), Contact::of(PHONE_B)];
    bench.notify(&mut notifier, "full", &both);
    bench.run_ms(50);
    // A change within the window is part of the same decision; the first one counts.
    bench.notify(&mut notifier, "full", &both);
    bench.expect_quiet();
    bench.run_ms(200);
    bench.expect("INVITE");
    let (waited, invites) = triggers(&bench);
    assert_eq!(invites, 2);
    assert!((150..=151).contains(&waited), "{waited} ms of 150");
}

#[test]
fn an_invite_counts_what_its_message_waited_for_the_disk() {
    let mut bench = bench();
    let (_, _, frame) = bench.sending();
    bench.take_message(&frame);
    let bye = bench.finish();
    bench.reply(&bye, "200 OK", "");
    bench.run_s(60);
    assert_eq!(triggers(&bench), (0, 1));
    bench.durable = false;
    let message = bench.deposit_text(USER, "again", "");
    bench.sip_in(&message);
    bench.run_ms(40);
    let ages = bench.shard.ages(bench.now);
    assert_eq!(ages.deposit, Duration::from_millis(40));
    bench.release();
    let ages = bench.shard.ages(bench.now);
    let pending = Duration::from_millis(40);
    assert_eq!(
        ages,
        Ages {
            pending,
            ..Ages::default()
        }
    );
    let sent = bench.take_sip();
    let found = sent.iter().any(|sip| sip.what() == "INVITE");
    assert!(found, "{sent:?}");
    assert_eq!(triggers(&bench), (40, 2));
}

#[test]
fn the_age_of_the_oldest_message_is_told_in_every_shard_and_after_a_restart() {
    let mut bench = bench();
    let told = |bench: &Bench| bench.shard.ages(bench.now).pending.as_secs();
    bench.run_s(1000);
    assert_eq!(told(&bench), 0, "nothing waits");
    let _ = bench.invited();
    bench.run_s(500);
    bench.deposit("another, much later");
    bench.take_sip();
    assert!((500..=508).contains(&told(&bench)), "{}", told(&bench));
    // A start sees what is there, by the numbers in the records.
    let mut fresh = Bench::restarted(options(), &bench.records.clone(), 2);
    fresh.run_s(4000);
    let since_intake = told(&fresh);
    assert!((2500..=3008).contains(&since_intake), "{since_intake}");
    // One whose life has ended waits no more.
    let mut bench = self::bench();
    let short = bench.deposit_text(USER, "short life", "Expires: 600\n");
    bench.sip_in(&short);
    bench.run_s(300);
    assert!((300..=308).contains(&told(&bench)), "{}", told(&bench));
    bench.run_s(400);
    assert_eq!((bench.messages(), told(&bench)), (0, 0));
}

#[test]
fn a_delivery_counts_from_its_own_send_and_the_first_from_the_ack() {
    let mut bench = Bench::patient();
    let (invite, _) = bench.invited();
    let accepted = bench.now;
    let session = bench.bound(&invite, &Answer::passive());
    let first = bench.expect_msrp("SEND");
    assert_eq!(bench.now, accepted, "the script takes no time");
    bench.run_ms(30);
    bench.take_message(&first);
    let stages = |bench: &Bench| {
        let probe = bench.shard.probe();
        (
            counted(&probe.delivery_time),
            counted(&probe.first_delivery_time),
        )
    };
    assert_eq!(stages(&bench), ((30, 1), (30, 1)));
    // The session lingers; another message comes.
    bench.run_ms(1500);
    bench.deposit("later");
    let second = bench.expect_msrp("SEND");
    assert_eq!(second.get("To-Path"), first.get("To-Path"), "{session:?}");
    bench.run_ms(20);
    bench.take_message(&second);
    assert_eq!(stages(&bench), ((50, 2), (30, 1)));
}

#[test]
fn every_timer_that_fires_is_counted_and_how_late() {
    let mut bench = bench();
    // A user's, and one of a connection that nobody binds.
    let (_, _) = bench.invited();
    bench.open(LinkKind::MsrpInbound, addr("198.51.100.7:49152"));
    bench.run_s(700);
    let probe = bench.shard.probe();
    let (_, lateness) = counted(&probe.timer_lateness);
    assert!(lateness > 3);
    assert_eq!(lateness, probe.timers_fired_total);
    let on_time = probe.timer_lateness.over(Duration::from_millis(1));
    assert_eq!(on_time, 0, "each at its tick");

    // One that fires 40 ms after its moment, at a turn that comes so late.
    let mut bench = self::bench();
    bench.open(LinkKind::MsrpInbound, addr("198.51.100.7:49152"));
    bench.run_ms(9_900);
    let before = bench.shard.probe().timer_lateness.count();
    bench.now = bench.now + Duration::from_millis(140);
    bench.pump();
    let late = &bench.shard.probe().timer_lateness;
    assert_eq!(late.count(), before + 1);
    assert_eq!(late.over(Duration::from_millis(30)), 1);
    assert_eq!(late.over(Duration::from_millis(48)), 0);
}

#[test]
fn a_message_that_waits_makes_no_timer_fire_before_its_end() {
    let mut bench = Bench::new();
    let before = bench.counter("timers_fired_total");
    bench.sip_in(&example("f6-01-message-in.txt"));
    bench.expect("202");
    bench.run_ms(20);
    assert_eq!(bench.counter("timers_fired_total"), before);
}
