//! Whole pushes through a shard: the time its calls take, without what peers and links cost.
//!
//! The peers of the protocol tests play the world; the clock runs only inside calls of the core, some
//! fifteen of them a push, each with the price of reading the clock twice.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use harness::script::{Answer, Contact, Notifier, PHONE_A};
use harness::{Bench, options};

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/protocol/harness/mod.rs"]
mod harness;

/// Stands in for the counter of the tests: adds nanoseconds instead of allocations.
mod allocation {
    use super::Instant;

    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    pub(crate) fn counted<T>(total: &mut u64, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        *total += u64::try_from(start.elapsed().as_nanos()).expect("a short time");
        result
    }
}

/// A user with phone A whose first push was refused, and a message that stays.
fn waiting() -> (Bench, Notifier) {
    let mut options = options();
    options.post.kept_warm = volley::base::limits::WARM_KEPT;
    options.push.linger = Duration::ZERO;
    let mut bench = Bench::with(options);
    bench.reuse_links = true;
    bench.deposit("stays");
    let notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
    let first = bench.expect("INVITE");
    bench.reply(&first, "403 Forbidden", "");
    bench.expect("ACK");
    (bench, notifier)
}

/// The phone registers anew.
fn register(bench: &mut Bench, notifier: &mut Notifier) {
    let mut contact = Contact::of(PHONE_A);
    contact.call_id = format!("call{}", notifier.cseq);
    bench.notify(notifier, "partial", &[contact]);
}

fn taken(bench: &mut Bench) -> Duration {
    Duration::from_nanos(std::mem::take(&mut bench.shard.allocated))
}

fn register_to_invite(c: &mut Criterion) {
    let (mut bench, mut notifier) = waiting();
    let mut group = c.benchmark_group("shard/turn");
    group.throughput(Throughput::Elements(1));
    group.bench_function("register_to_invite", |b| {
        b.iter_custom(|rounds| {
            for _ in 0..rounds {
                bench.run_s(1);
                bench.shard.watching = true;
                register(&mut bench, &mut notifier);
                bench.shard.watching = false;
                let invite = bench.expect("INVITE");
                bench.reply(&invite, "403 Forbidden", "");
                bench.expect("ACK");
            }
            taken(&mut bench)
        });
    });
    group.finish();
}

fn signalling(c: &mut Criterion) {
    let (mut bench, mut notifier) = waiting();
    let mut answer = Answer::active();
    answer.sdp = "v=0\r\n".to_owned();
    let mut group = c.benchmark_group("shard/push");
    group.throughput(Throughput::Elements(1));
    group.bench_function("signalling", |b| {
        b.iter_custom(|rounds| {
            bench.shard.watching = true;
            for _ in 0..rounds {
                register(&mut bench, &mut notifier);
                bench.run_s(1);
                let invite = bench.expect("INVITE");
                bench.reply(&invite, "100 Trying", "");
                bench.accept(&invite, &answer);
                let bye = bench.expect("BYE");
                bench.reply(&bye, "200 OK", "");
            }
            taken(&mut bench)
        });
    });
    group.finish();
}

fn full(c: &mut Criterion) {
    let (mut bench, mut notifier) = waiting();
    register(&mut bench, &mut notifier);
    bench.run_s(1);
    session(&mut bench);
    let mut group = c.benchmark_group("shard/push");
    group.throughput(Throughput::Elements(1));
    group.bench_function("full", |b| {
        b.iter_custom(|rounds| {
            bench.shard.watching = true;
            for _ in 0..rounds {
                bench.run_s(1);
                bench.deposit("hello");
                session(&mut bench);
                register(&mut bench, &mut notifier);
            }
            taken(&mut bench)
        });
    });
    group.finish();
}

/// From INVITE to the 200 of the BYE, every message delivered.
fn session(bench: &mut Bench) {
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    for send in bench.take_msrp() {
        bench.take_message(&send);
    }
    let bye = bench.expect("BYE");
    bench.reply(&bye, "200 OK", "");
}

criterion_group!(benches, register_to_invite, signalling, full);
criterion_main!(benches);
