//! Makes a failing run small: the same failure with fewer faults and fewer things in the world.

use core::time::Duration;

use crate::sim::options::{Options, Ratio};

/// Runs at most, whatever they find.
const RUNS_MAX: usize = 400;

/// One way to make a world simpler; without effect where it is as simple already.
type Step = fn(&mut Options);

/// Faults off first, then fewer of everything, then the set-up nearest to the usual one.
const STEPS: &[(&str, Step)] = &[
    ("large messages", |o| o.large = Ratio::ZERO),
    ("crashes", |o| o.crashes = 0),
    ("clock jumps", |o| o.clock_jumps = 0),
    ("resets", |o| o.resets = 0),
    ("loss", |o| o.loss = Ratio::ZERO),
    ("duplication", |o| o.duplication = Ratio::ZERO),
    ("stalls", |o| o.stalls = Ratio::ZERO),
    ("mischief", |o| o.mischief = Ratio::ZERO),
    ("gaps", |o| o.gaps = Ratio::ZERO),
    ("missteered", |o| o.missteered = Ratio::ZERO),
    ("wishes", |o| o.wishes = Ratio::ZERO),
    ("absent", |o| o.absent = Ratio::ZERO),
    ("churn", |o| o.churn = 0),
    ("shards", |o| o.shards = 1),
    ("hops", |o| o.hops = 1),
    ("phones", |o| o.phones_max = 1),
    ("half the messages", |o| o.messages = o.messages.div_ceil(2)),
    ("half the users", |o| o.users = o.users.div_ceil(2)),
    ("half the crashes", |o| o.crashes /= 2),
    ("half the resets", |o| o.resets /= 2),
    ("half the churn", |o| o.churn /= 2),
    ("one message less", |o| o.messages = (o.messages - 1).max(1)),
    ("shorter", |o| {
        o.safety = (o.safety / 2).max(Duration::from_secs(10))
    }),
    ("fixed delay", |o| o.delay.1 = o.delay.0),
    ("no reuse", |o| o.reuse = false),
    ("grouped", |o| o.one_by_one = false),
];

/// The simplest options found for which `fails` still holds, and the names of the steps that led
/// there. `fails` must hold for `options`; it is asked at most 400 times.
pub fn shrink(
    options: &Options,
    mut fails: impl FnMut(&Options) -> bool,
) -> (Options, Vec<&'static str>) {
    let mut best = options.clone();
    let (mut taken, mut runs) = (Vec::new(), 0);
    loop {
        let before = taken.len();
        for (name, step) in STEPS {
            let mut simpler = best.clone();
            step(&mut simpler);
            if format!("{simpler:?}") == format!("{best:?}") || runs == RUNS_MAX {
                continue;
            }
            runs += 1;
            if fails(&simpler) {
                best = simpler;
                taken.push(*name);
            }
        }
        if taken.len() == before {
            return (best, taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_failure_does_not_need_goes_and_what_it_needs_stays() {
        let full = Options {
            crashes: 3,
            messages: 24,
            users: 6,
            shards: 7,
            loss: Ratio(200),
            mischief: Ratio(900),
            ..Options::calm()
        };
        let mut asked = 0;
        let (small, taken) = shrink(&full, |options| {
            asked += 1;
            options.messages >= 5 && options.loss != Ratio::ZERO && options.crashes > 0
        });
        assert_eq!(
            (small.messages, small.crashes, small.loss),
            (5, 1, Ratio(200))
        );
        assert_eq!(
            (small.shards, small.users, small.mischief),
            (1, 1, Ratio::ZERO)
        );
        assert!(taken.contains(&"half the crashes") && !taken.contains(&"crashes"));
        assert!(asked <= RUNS_MAX);
    }
}
