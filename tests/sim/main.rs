//! The simulator's runs: many seeds, the same laws; the same seed, the same trace.
//!
//! `VOLLEY_SIM_SEEDS=first..last` runs other seeds; the first that fails is shrunk, and the trace of what
//! is left is shown. `VOLLEY_SIM_REPLAY=seed` runs that one alone and shows the end of its trace, as many
//! lines as `VOLLEY_SIM_TAIL` says.

mod scenarios;

use std::collections::BTreeSet;
use std::time::Duration;

use volley::sim::{Options, Ratio, Report, World, shrink};

/// Seeds of an ordinary run.
const SEEDS: std::ops::Range<u64> = 1..1001;
/// Every fault, device behaviour and way a push goes that an ordinary run must reach.
const REACHED: &[&str] = &[
    "bye/bad-answer",
    "bye/cap",
    "bye/drained",
    "bye/fork",
    "bye/late",
    "bye/media",
    "bye/refresh",
    "engine/cancel",
    "engine/hold",
    "engine/leave",
    "engine/mesh",
    "engine/no-room",
    "engine/recovered-messages",
    "engine/segment-cleaned",
    "engine/segment-reclaimed",
    "engine/store-read",
    "engine/subscription-refresh",
    "fault/clock-jump",
    "fault/connect-refused",
    "fault/crash",
    "fault/crash-in-large",
    "fault/duplication",
    "fault/loss",
    "fault/missteered",
    "fault/msrp-reset",
    "fault/mark-on-full-disk",
    "fault/notify-gap",
    "fault/read-error",
    "fault/segmentation",
    "fault/sip-reset",
    "fault/store-stall",
    "fault/sync-error",
    "fault/unsynced-lost",
    "large/abort",
    "large/again",
    "large/bind-of-engine",
    "large/bye-of-engine",
    "large/chunk-refused",
    "large/cut",
    "large/gave-up",
    "large/hang-up",
    "large/hang-up-early",
    "large/invite",
    "large/mute",
    "large/never-connects",
    "large/no-ack",
    "large/no-answer",
    "large/refused",
    "large/reported",
    "operator/rules",
    "peer/480-to-subscribe",
    "peer/chunked",
    "peer/deposit-refused",
    "peer/invite-after-422",
    "peer/no-ack",
    "peer/no-report",
    "peer/notify-again",
    "peer/notify-partial",
    "peer/re-invite",
    "peer/register-again",
    "peer/register-new",
    "peer/report-pieces",
    "peer/response-repeated",
    "peer/subscription-deactivated",
    "peer/subscription-unknown",
    "peer/transaction-timeout",
    "peer/unregister",
    "peer/update",
    "peer/wish",
    "phase/healed",
    "plan/422",
    "plan/answer",
    "plan/bad-answer",
    "plan/fork",
    "plan/glare",
    "plan/late",
    "plan/no-contact",
    "plan/refuse",
    "plan/ring",
    "plan/silent",
    "trouble/413",
    "trouble/481",
    "trouble/cut",
    "trouble/die",
    "trouble/half-report",
    "trouble/hang-up",
    "trouble/mute",
    "trouble/never-bind",
    "trouble/no-refresh",
    "trouble/refuse-connect",
];
/// Lines of the trace shown for a run that failed.
const TAIL: usize = 150;

fn shards_of(seed: u64) -> usize {
    [1, 2, 7][usize::try_from(seed % 3).expect("below three")]
}

fn run(seed: u64, shards: usize) -> Report {
    World::populated(Options::drawn(seed, shards)).run()
}

fn range_from(text: &str) -> Option<std::ops::Range<u64>> {
    let (first, last) = text.split_once("..")?;
    Some(first.parse().ok()?..last.parse().ok()?)
}

fn seeds() -> Vec<u64> {
    let asked = std::env::var_os("VOLLEY_SIM_SEEDS");
    let asked = asked.and_then(|text| range_from(text.to_str()?));
    let known = include_str!("../data/seeds.txt")
        .lines()
        .filter_map(|line| {
            let number = line.split_whitespace().next()?;
            number.parse().ok()
        });
    let mut seeds: Vec<u64> = known.collect();
    seeds.extend(asked.unwrap_or(SEEDS));
    seeds
}

/// The failures of a run, with what is left of its options and the end of that trace.
fn story(seed: u64, report: &Report) -> String {
    let kind = kind_of(&report.violations[0]);
    let full = Options::drawn(seed, shards_of(seed));
    let (small, taken) = shrink(&full, |options| {
        let report = World::populated(options.clone()).run();
        report.violations.iter().any(|what| kind_of(what) == kind)
    });
    let tail = tail_of(small.clone());
    format!(
        "seed {seed}: {:#?}\nshrunk by {taken:?} to {small:#?}\n{tail}",
        report.violations
    )
}

/// What a violation says, without the numbers and names of one run.
fn kind_of(violation: &str) -> String {
    violation
        .split_whitespace()
        .filter(|word| word.chars().all(char::is_alphabetic))
        .collect()
}

fn tail_of(options: Options) -> String {
    let traced = World::populated(options).traced().run();
    let asked = std::env::var_os("VOLLEY_SIM_TAIL").and_then(|text| text.to_str()?.parse().ok());
    let skip = traced.trace.len().saturating_sub(asked.unwrap_or(TAIL));
    traced.trace[skip..].join("\n")
}

#[test]
fn a_seed_can_be_replayed() {
    let asked = std::env::var_os("VOLLEY_SIM_REPLAY");
    let seed = asked.and_then(|text| text.to_str()?.parse().ok());
    let number = seed.unwrap_or(3);
    let tail = tail_of(Options::drawn(number, shards_of(number)));
    assert!(!tail.is_empty(), "a run leaves a trace");
    if seed.is_some() {
        let report = run(number, shards_of(number));
        println!("{tail}\n{:#?}", report.violations);
        assert_eq!(report.violations, [""; 0]);
    }
}

#[test]
fn the_laws_hold_for_every_seed_and_every_fault_is_reached() {
    let mut reach: BTreeSet<&'static str> = BTreeSet::new();
    let mut failed = Vec::new();
    let mut simulated = 0;
    for seed in seeds() {
        let report = run(seed, shards_of(seed));
        simulated += report.simulated.as_secs();
        reach.extend(&report.reach);
        if !report.violations.is_empty() {
            if failed.is_empty() {
                println!("{}", story(seed, &report));
            }
            failed.push((seed, report.violations[0].clone()));
        }
    }
    println!("{simulated} simulated seconds; reached: {reach:?}");
    for (seed, what) in &failed {
        println!("seed {seed}: {what}");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
    if std::env::var_os("VOLLEY_SIM_SEEDS").is_none() {
        let missed: Vec<_> = REACHED
            .iter()
            .filter(|mark| !reach.contains(*mark))
            .collect();
        assert!(missed.is_empty(), "not reached: {missed:?}");
    }
}

#[test]
fn one_seed_twice_is_one_trace() {
    for seed in [3, 17, 40] {
        let (first, second) = (run(seed, 2), run(seed, 2));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_ne!(
            first.hash,
            run(seed + 1, 2).hash,
            "the hash sees what happens"
        );
    }
}

#[test]
fn one_seed_has_one_outcome_however_many_shards() {
    let mut compared = 0;
    for seed in 1..40 {
        // Only what the shards cannot influence may differ between runs: no random network.
        let calm = |shards| Options {
            loss: Ratio::ZERO,
            duplication: Ratio::ZERO,
            delay: (Duration::from_millis(2), Duration::from_millis(2)),
            resets: 0,
            crashes: 0,
            missteered: Ratio::ZERO,
            gaps: Ratio::ZERO,
            mischief: Ratio::ZERO,
            stalls: Ratio::ZERO,
            sync_errors: Ratio::ZERO,
            read_errors: Ratio::ZERO,
            full_disks: 0,
            clock_jumps: 0,
            unsettled_max: 1024,
            ..Options::drawn(seed, shards)
        };
        let reports = [1, 2, 7].map(|shards| World::populated(calm(shards)).run());
        for report in &reports {
            assert_eq!(report.violations, [""; 0], "seed {seed}");
            assert_eq!(report.outcome, reports[0].outcome, "seed {seed}");
        }
        compared += reports[0]
            .outcome
            .iter()
            .filter(|(_, devices)| !devices.is_empty())
            .count();
    }
    assert!(compared > 100, "{compared} messages say too little");
}
