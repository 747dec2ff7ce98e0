//! The highest load that meets the goals, in the terms of RFC 9971 (Multiple Loss Ratio Search).
//!
//! A *trial* is a run at one *load* (pushes per second) for a *trial duration*; its *loss ratio* is
//! the share of triggers that came to no INVITE within the goal's time. A *goal* says which loss ratio
//! a trial may have (*goal loss ratio*), how long trials finally last (*goal final trial duration*),
//! how much of them a load needs (*goal duration sum*) and which share may fail (*goal exceed
//! ratio*). A load is a *lower bound* when even failing all that is missing would keep the goal, an
//! *upper bound* when passing all of it would not. The search ends when the *relevant lower bound* and
//! the *relevant upper bound* are no further apart than the *goal width*.

use core::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;

use super::trial::{self, Engine};
use crate::report::{Report, Trial};

/// How often a run that is invalid by its own account is repeated.
const REPEATS: u32 = 2;

/// What `search` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Search {
    /// Lowest load, pushes per second
    #[arg(long, default_value_t = 100.0)]
    pub min: f64,
    /// Highest load, pushes per second
    #[arg(long)]
    pub max: f64,
    /// Goal width: the bounds may differ by this share
    #[arg(long, default_value_t = 0.05)]
    pub width: f64,
    /// Milliseconds from trigger to INVITE within which a trigger is no loss
    #[arg(long, default_value_t = 100.0)]
    pub within_ms: f64,
    /// Goal loss ratio
    #[arg(long, default_value_t = 0.001)]
    pub loss_ratio: f64,
    /// Goal initial trial duration, seconds
    #[arg(long, default_value_t = 1.0)]
    pub initial_s: f64,
    /// Goal final trial duration, seconds
    #[arg(long, default_value_t = 5.0)]
    pub final_s: f64,
    /// Goal duration sum, seconds
    #[arg(long, default_value_t = 20.0)]
    pub sum_s: f64,
    /// Goal exceed ratio
    #[arg(long, default_value_t = 0.3)]
    pub exceed_ratio: f64,
    /// Most trials
    #[arg(long, default_value_t = 60)]
    pub trials_max: u32,
    /// Start the engine anew for each trial, as "volley run --config a.toml"; without, one that runs
    /// is asked, and what a trial too much left in it meets the next
    #[arg(long, value_name = "COMMAND")]
    pub start: Option<String>,
    /// Directory removed before each start, such as the engine's store
    #[arg(long, value_name = "DIR", requires = "start")]
    pub fresh: Option<std::path::PathBuf>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
    /// Arguments of `run`, behind `--`
    #[arg(last = true, required = true)]
    pub run: Vec<String>,
}

/// What the trials of a load say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It meets the goal.
    Lower,
    /// More trials are needed.
    Undecided,
    /// It does not.
    Upper,
}

/// Result of a search.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Relevant lower bound, pushes per second; nothing when even the lowest load fails.
    pub relevant_lower_bound: Option<f64>,
    /// Relevant upper bound; nothing when even the highest load meets the goal.
    pub relevant_upper_bound: Option<f64>,
    /// Conditional throughput: the lower bound less the share of triggers lost there.
    pub conditional_throughput: Option<f64>,
    /// Every trial in its order.
    pub trials: Vec<Trial>,
}

impl Search {
    /// Classifies a load by its trials.
    pub fn classify(&self, load: f64, trials: &[Trial]) -> Bound {
        let (mut low_long, mut high_long, mut low_short, mut high_short) = (0.0, 0.0, 0.0, 0.0);
        for trial in trials.iter().filter(|trial| same(trial.load, load)) {
            let long = trial.seconds >= self.final_s * 0.999;
            let sum = match (trial.good, long) {
                (true, true) => &mut low_long,
                (false, true) => &mut high_long,
                (true, false) => &mut low_short,
                (false, false) => &mut high_short,
            };
            *sum += trial.seconds;
        }
        // Short trials with high loss count as far as short ones with low loss do not excuse them.
        let coefficient = self.exceed_ratio / (1.0 - self.exceed_ratio);
        let excess = f64::max(high_short - low_short * coefficient, 0.0);
        let high = high_long + excess;
        let whole = f64::max(low_long + high, self.sum_s);
        let may_fail = whole * self.exceed_ratio;
        let missing = whole - low_long - high;
        if high > may_fail {
            Bound::Upper
        } else if high + missing <= may_fail {
            Bound::Lower
        } else {
            Bound::Undecided
        }
    }

    /// The next load and duration to try; `None` when the search is over.
    pub fn next(&self, trials: &[Trial]) -> Option<(f64, f64)> {
        if trials.len() >= self.trials_max as usize {
            return None;
        }
        let (lower, upper) = self.bounds(trials);
        // First the ends, briefly.
        for load in [self.max, self.min] {
            if !trials.iter().any(|trial| same(trial.load, load)) {
                return Some((load, self.initial_s));
            }
        }
        // A load in work is brought to an end before another is begun.
        let undecided = trials.iter().rev().map(|trial| trial.load).find(|&load| {
            let open = self.classify(load, trials) == Bound::Undecided;
            open && lower.is_none_or(|lower| load > lower) && upper.is_none_or(|upper| load < upper)
        });
        if let Some(load) = undecided {
            let spent = trials.iter().filter(|trial| same(trial.load, load)).count();
            let doubled = self.initial_s * f64::from(1 << spent.min(20) as u32);
            return Some((load, doubled.min(self.final_s)));
        }
        let (Some(lower), Some(upper)) = (lower, upper) else {
            return None;
        };
        if upper <= lower * (1.0 + self.width) {
            return None;
        }
        Some(((lower * upper).sqrt(), self.initial_s))
    }

    /// Highest lower bound below the lowest upper bound, and that one.
    fn bounds(&self, trials: &[Trial]) -> (Option<f64>, Option<f64>) {
        let of = |wanted: Bound| {
            trials
                .iter()
                .map(|trial| trial.load)
                .filter(move |&load| self.classify(load, trials) == wanted)
        };
        let upper = of(Bound::Upper).reduce(f64::min);
        let lower = of(Bound::Lower)
            .filter(|&load| upper.is_none_or(|upper| load < upper))
            .reduce(f64::max);
        (lower, upper)
    }

    /// Searches with `measure`, which runs one trial.
    pub fn search(
        &self,
        mut measure: impl FnMut(f64, f64) -> Result<Trial, String>,
    ) -> Result<Found, String> {
        if !(self.min > 0.0 && self.max > self.min && (0.0..1.0).contains(&self.exceed_ratio)) {
            return Err(
                "--min, --max: 0 < min < max is wanted; --exceed-ratio: 0 to below 1".into(),
            );
        }
        let mut trials: Vec<Trial> = Vec::new();
        while let Some((load, seconds)) = self.next(&trials) {
            trials.push(measure(load, seconds)?);
        }
        let (lower, upper) = self.bounds(&trials);
        let loss = |load: f64| {
            let of = trials
                .iter()
                .filter(|trial| same(trial.load, load) && trial.good);
            of.map(|trial| trial.loss_ratio).fold(0.0, f64::max)
        };
        Ok(Found {
            relevant_lower_bound: lower,
            relevant_upper_bound: upper,
            conditional_throughput: lower.map(|load| load * (1.0 - loss(load))),
            trials,
        })
    }

    /// One trial. A run that is invalid by its own account measured the generator or the host: it is
    /// repeated up to `REPEATS` times, and then counts as not met.
    pub fn trial(&self, load: f64, seconds: f64) -> Result<Trial, String> {
        let mut repeats = 0;
        loop {
            let report = self.run_once(load, seconds)?;
            let again = !report.valid && report.conformant && repeats < REPEATS;
            let loss_ratio = self.loss(&report);
            let good = report.valid && report.conformant && loss_ratio <= self.loss_ratio;
            let reasons: Vec<&str> = report
                .invalid_reasons
                .iter()
                .map(|one| &*one.code)
                .collect();
            let _ = writeln!(
                std::io::stderr(),
                "trial {load:>10.0}/s {seconds:>5.1} s: loss ratio {loss_ratio:.5}, {}{}{}",
                report.verdict(),
                if reasons.is_empty() {
                    String::new()
                } else {
                    format!(" [{}]", reasons.join(" "))
                },
                match (good, again) {
                    (true, _) => "",
                    (false, true) => " - again",
                    (false, false) => " - not met",
                }
            );
            if !again {
                return Ok(Trial {
                    load,
                    seconds,
                    loss_ratio,
                    good,
                    valid: report.valid,
                });
            }
            repeats += 1;
        }
    }

    /// A run of its own, with an engine of its own where one is to be started.
    fn run_once(&self, load: f64, seconds: f64) -> Result<Report, String> {
        let mut args = self.run.clone();
        args.extend(["--rate".to_owned(), format!("{load:.1}")]);
        args.extend(["--duration-s".to_owned(), format!("{seconds}")]);
        let mut engine = None;
        if let Some(command) = &self.start {
            let address = trial::engine_address(&args)?;
            let started = Engine::start(command, self.fresh.as_ref(), address)?;
            args.extend(["--engine-pid".to_owned(), started.pid().to_string()]);
            engine = Some(started);
        }
        let report = trial::judge(&args);
        drop(engine);
        report
    }

    /// Share of the due triggers that had no INVITE within the goal's time.
    fn loss(&self, report: &Report) -> f64 {
        let due = report.counters.get("triggers_due").copied().unwrap_or(0);
        let sent = report.counters.get("triggers_sent").copied().unwrap_or(0);
        let stalled = report
            .counters
            .get("triggers_stalled")
            .copied()
            .unwrap_or(0);
        let unsent = (due - sent.min(due) + stalled) as f64 / due.max(1) as f64;
        let late = report
            .curves
            .iter()
            .find(|curve| curve.stage == "trigger_to_invite")
            .map_or(1.0, |curve| {
                let good = curve.points.iter().filter(|(_, ms)| *ms <= self.within_ms);
                1.0 - good.map(|(quantile, _)| *quantile).fold(0.0, f64::max)
            });
        (unsent + late).min(1.0)
    }
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.05
}

impl Found {
    /// The result as text.
    pub fn text(&self, search: &Search) -> String {
        let mut out = String::new();
        let some = |value: Option<f64>| {
            value.map_or_else(|| "none".to_owned(), |value| format!("{value:.0}"))
        };
        let _ = writeln!(
            out,
            "goal: loss ratio <= {} within {} ms, final trials of {} s, duration sum {} s, exceed \
             ratio {}, width {:.1} %",
            search.loss_ratio,
            search.within_ms,
            search.final_s,
            search.sum_s,
            search.exceed_ratio,
            search.width * 100.0
        );
        let _ = writeln!(
            out,
            "relevant lower bound {} pushes/s, relevant upper bound {} pushes/s, conditional \
             throughput {} pushes/s, {} trials",
            some(self.relevant_lower_bound),
            some(self.relevant_upper_bound),
            some(self.conditional_throughput),
            self.trials.len()
        );
        if self.is_limit_of_generator() {
            let _ = writeln!(
                out,
                "no trial at the upper bound was valid: that is the limit of the generator or of this \
                 host, and the engine's may be higher (the reasons stand in brackets above)"
            );
        }
        out
    }

    /// Whether all that failed at the relevant upper bound failed by the generator's own account.
    fn is_limit_of_generator(&self) -> bool {
        let upper = self.relevant_upper_bound;
        let at_upper = |trial: &&Trial| upper.is_some_and(|load| same(trial.load, load));
        let mut failed = self
            .trials
            .iter()
            .filter(at_upper)
            .filter(|one| !one.good)
            .peekable();
        failed.peek().is_some() && failed.all(|trial| !trial.valid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Random;

    fn search() -> Search {
        Search {
            min: 100.0,
            max: 100_000.0,
            width: 0.05,
            within_ms: 100.0,
            loss_ratio: 0.001,
            initial_s: 1.0,
            final_s: 5.0,
            sum_s: 20.0,
            exceed_ratio: 0.3,
            trials_max: 200,
            start: None,
            fresh: None,
            json: None,
            run: Vec::new(),
        }
    }

    /// An engine with a sharp limit and some bad luck.
    fn run(limit: f64, luck: f64, seed: u64) -> Found {
        let mut random = Random::new(seed);
        search()
            .search(|load, seconds| {
                let good = load <= limit && random.unit() >= luck;
                let loss_ratio = if good { 0.0 } else { 0.2 };
                Ok(Trial {
                    load,
                    seconds,
                    loss_ratio,
                    good,
                    valid: true,
                })
            })
            .unwrap()
    }

    #[test]
    fn two_searches_end_within_the_width_around_the_limit() {
        for seed in 0..20 {
            let limit = 1_000.0 + 2_900.0 * seed as f64;
            let found = run(limit, 0.0, seed);
            let (lower, upper) = (
                found.relevant_lower_bound.unwrap(),
                found.relevant_upper_bound.unwrap(),
            );
            assert!(upper <= lower * 1.0501, "{lower} {upper}");
            assert!(lower <= limit && limit < upper, "{lower} {limit} {upper}");
        }
        let found = run(12_345.0, 0.0, 1);
        assert!(found.relevant_lower_bound.unwrap() <= 12_345.0);
        assert!(found.relevant_upper_bound.unwrap() > 12_345.0);
    }

    #[test]
    fn the_ends_are_results_too() {
        let found = run(1e9, 0.0, 1);
        assert_eq!(found.relevant_lower_bound, Some(100_000.0));
        assert_eq!(found.relevant_upper_bound, None);
        let found = run(1.0, 0.0, 1);
        assert_eq!(found.relevant_lower_bound, None);
        assert_eq!(found.relevant_upper_bound, Some(100.0));
    }

    #[test]
    fn a_load_needs_its_duration_sum_before_it_is_a_bound() {
        let search = search();
        let trial = |seconds: f64, good: bool| Trial {
            load: 500.0,
            seconds,
            loss_ratio: 0.0,
            good,
            valid: true,
        };
        assert_eq!(
            search.classify(500.0, &[trial(5.0, true)]),
            Bound::Undecided
        );
        let two = [trial(5.0, true), trial(5.0, true)];
        assert_eq!(search.classify(500.0, &two), Bound::Undecided);
        let three = [
            trial(5.0, true),
            trial(5.0, true),
            trial(1.0, true),
            trial(5.0, true),
        ];
        assert_eq!(search.classify(500.0, &three), Bound::Lower);
        assert_eq!(
            search.classify(500.0, &[trial(5.0, false)]),
            Bound::Undecided
        );
        let failed = [trial(5.0, false), trial(5.0, true), trial(5.0, false)];
        assert_eq!(search.classify(500.0, &failed), Bound::Upper);
        let found = |valid: bool| Found {
            relevant_lower_bound: None,
            relevant_upper_bound: Some(500.0),
            conditional_throughput: None,
            trials: vec![
                Trial {
                    load: 500.0,
                    valid,
                    ..trial(5.0, false)
                },
                Trial {
                    load: 500.0,
                    valid: false,
                    ..trial(5.0, false)
                },
            ],
        };
        assert!(found(false).is_limit_of_generator());
        assert!(!found(true).is_limit_of_generator());
        // A short failure does not decide alone.
        assert_eq!(
            search.classify(500.0, &[trial(1.0, false)]),
            Bound::Undecided
        );
    }
}
