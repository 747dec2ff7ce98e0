//! Two sets of reports against each other: is the second better, the same, worse, or can that not be
//! said?
//!
//! Confidence intervals come from a block bootstrap. What happens in one slot of time depends on the
//! slots before, so blocks of neighbouring slots are drawn with replacement and not slots; with
//! several rounds on a side, rounds are drawn first. Rounds that ran in turn are compared pair by pair
//! and the median of the pairs counts: a host that is slow for a minute then is slow for both, and a
//! neighbour that disturbs one round does not decide.

use core::fmt::Write as _;

use serde::Serialize;

use crate::curve::SlotRow;
use crate::report::Report;
use crate::world::Random;

/// Fewest pairs of rounds of which a median says more than their sum.
const PAIRS_MIN: usize = 3;
/// Resamples drawn.
const DRAWS: usize = 2000;
/// The same reports give the same intervals.
const SEED: u64 = 0x00c0_ffee;
/// Slots of one block.
const BLOCK: usize = 10;

/// What one figure says about the second side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Better by more than the tolerance, with confidence.
    Better,
    /// Within the tolerance, with confidence.
    Same,
    /// Worse by more than the tolerance, with confidence.
    Worse,
    /// The interval reaches from one into another.
    Unclear,
}

impl Word {
    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Same => "same",
            Self::Worse => "worse",
            Self::Unclear => "unclear",
        }
    }
}

/// A figure compared.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The figure.
    pub name: &'static str,
    /// Of the first side.
    pub a: f64,
    /// Of the second side.
    pub b: f64,
    /// Second over first.
    pub ratio: f64,
    /// The ratio's 95 % confidence interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// What it says.
    pub word: Word,
}

/// Sums of some slots, from which every figure follows.
#[derive(Clone, Debug, Default)]
struct Sums {
    covers: f64,
    pushes: f64,
    engine_s: f64,
    own_s: f64,
    heat: Vec<f64>,
}

impl Sums {
    fn add(&mut self, slot: &SlotRow) {
        self.covers += slot.covers;
        self.pushes += slot.pushes as f64;
        self.engine_s += slot.engine_s;
        self.own_s += slot.own_s;
        for &(row, count) in &slot.heat {
            let row = usize::from(row);
            if self.heat.len() <= row {
                self.heat.resize(row + 1, 0.0);
            }
            self.heat[row] += f64::from(count);
        }
    }

    /// Latency at a quantile, milliseconds, interpolated within its row.
    fn latency(&self, quantile: f64, rows_ms: &[f64]) -> f64 {
        let total: f64 = self.heat.iter().sum();
        let mut left = total * quantile;
        for (row, &count) in self.heat.iter().enumerate() {
            if count > 0.0 && left <= count {
                let at = |row: usize| rows_ms.get(row).copied().unwrap_or(0.0);
                return at(row) + (at(row + 1) - at(row)) * (left / count);
            }
            left -= count;
        }
        f64::NAN
    }
}

/// A figure of some slots, given the bounds of the latency rows.
type Of = fn(&Sums, &[f64]) -> f64;

/// A figure: name, whether less is better, and how to get it.
type Figure = (&'static str, bool, Of);

const FIGURES: &[Figure] = &[
    ("engine_us_per_push", true, |sums, _| {
        if sums.engine_s > 0.0 {
            sums.engine_s * 1e6 / sums.pushes
        } else {
            f64::NAN
        }
    }),
    ("pushes_per_s", false, |sums, _| sums.pushes / sums.covers),
    ("p50_trigger_to_invite_ms", true, |sums, rows| {
        sums.latency(0.5, rows)
    }),
    ("p99_trigger_to_invite_ms", true, |sums, rows| {
        sums.latency(0.99, rows)
    }),
];

/// One side: the slots of the measured step of each round.
struct Side {
    rounds: Vec<Vec<SlotRow>>,
    rows_ms: Vec<f64>,
}

impl Side {
    fn new(reports: &[Report]) -> Result<Self, String> {
        let rounds: Vec<Vec<SlotRow>> = reports.iter().map(measured).collect();
        if rounds.iter().any(|slots| slots.len() < 5) {
            return Err(
                "a report has fewer than five slots in its measured step; measure longer".into(),
            );
        }
        let rows_ms = reports.first().map(|first| first.series.rows_ms.clone());
        Ok(Self {
            rounds,
            rows_ms: rows_ms.ok_or("a side without a report")?,
        })
    }

    fn all(&self) -> Sums {
        let mut sums = Sums::default();
        for slot in self.rounds.iter().flatten() {
            sums.add(slot);
        }
        sums
    }

    /// Rounds with replacement, and blocks of each with replacement.
    fn draw(&self, random: &mut Random) -> Sums {
        let mut sums = Sums::default();
        for _ in 0..self.rounds.len() {
            self.draw_of(below(random, self.rounds.len()), random, &mut sums);
        }
        sums
    }

    /// Blocks of one round with replacement.
    fn draw_of(&self, round: usize, random: &mut Random, sums: &mut Sums) {
        let round = &self.rounds[round];
        let block = BLOCK.min(round.len().div_ceil(4));
        for _ in 0..round.len().div_ceil(block) {
            let start = below(random, round.len() - block + 1);
            for slot in &round[start..start + block] {
                sums.add(slot);
            }
        }
    }

    /// A figure of each round.
    fn each(&self, figure: Of) -> Vec<f64> {
        let of = |slots: &Vec<SlotRow>| {
            let mut sums = Sums::default();
            slots.iter().for_each(|slot| sums.add(slot));
            figure(&sums, &self.rows_ms)
        };
        self.rounds.iter().map(of).collect()
    }
}

fn below(random: &mut Random, bound: usize) -> usize {
    (random.unit() * bound as f64) as usize
}

/// The slots of a report's measured step.
fn measured(report: &Report) -> Vec<SlotRow> {
    let seconds = report.measured().map_or(0.0, |phase| phase.seconds);
    let within =
        |slot: &&SlotRow| slot.covers > 0.0 && slot.t + report.series.width <= seconds * 1.001;
    report.series.slots.iter().filter(within).cloned().collect()
}

/// Compares `b` with `a`; differences up to `tolerance` (a share) count as the same.
pub fn compare(a: &[Report], b: &[Report], tolerance: f64) -> Result<Vec<Row>, String> {
    let (a, b) = (Side::new(a)?, Side::new(b)?);
    let mut random = Random::new(SEED);
    let mut samples = vec![Vec::with_capacity(DRAWS); FIGURES.len()];
    for _ in 0..DRAWS {
        let (one, other) = (a.draw(&mut random), b.draw(&mut random));
        for (ratios, &(_, _, figure)) in samples.iter_mut().zip(FIGURES) {
            ratios.push(figure(&other, &b.rows_ms) / figure(&one, &a.rows_ms));
        }
    }
    let (all_a, all_b) = (a.all(), b.all());
    let whole = |figure: Of| {
        let (of_a, of_b) = (figure(&all_a, &a.rows_ms), figure(&all_b, &b.rows_ms));
        (of_a, of_b, of_b / of_a)
    };
    Ok(rows(whole, samples, tolerance))
}

/// Compares rounds that ran in turn: the n-th of `b` with the n-th of `a`. The ratio is the median of
/// the pairs'; fewer than three pairs are compared as [`compare`] does.
pub fn compare_pairs(a: &[Report], b: &[Report], tolerance: f64) -> Result<Vec<Row>, String> {
    if a.len() != b.len() || a.len() < PAIRS_MIN {
        return compare(a, b, tolerance);
    }
    let (a, b) = (Side::new(a)?, Side::new(b)?);
    let pairs = a.rounds.len();
    let mut random = Random::new(SEED);
    let mut samples = vec![Vec::with_capacity(DRAWS); FIGURES.len()];
    let mut ratios = vec![Vec::with_capacity(pairs); FIGURES.len()];
    for _ in 0..DRAWS {
        for _ in 0..pairs {
            let pair = below(&mut random, pairs);
            let (mut one, mut other) = (Sums::default(), Sums::default());
            // The same blocks of both sides: what ran at the same time met the same host.
            b.draw_of(pair, &mut random.clone(), &mut other);
            a.draw_of(pair, &mut random, &mut one);
            for (ratios, &(_, _, figure)) in ratios.iter_mut().zip(FIGURES) {
                ratios.push(figure(&other, &b.rows_ms) / figure(&one, &a.rows_ms));
            }
        }
        for (medians, ratios) in samples.iter_mut().zip(&mut ratios) {
            medians.push(median(ratios).unwrap_or(f64::NAN));
            ratios.clear();
        }
    }
    let whole = |figure: Of| {
        let (mut of_a, mut of_b) = (a.each(figure), b.each(figure));
        let mut ratios: Vec<f64> = of_a.iter().zip(&of_b).map(|(a, b)| b / a).collect();
        let middle = |values| median(values).unwrap_or(f64::NAN);
        (middle(&mut of_a), middle(&mut of_b), middle(&mut ratios))
    };
    Ok(rows(whole, samples, tolerance))
}

/// A row for each figure that both sides have: `whole` gives those of the sides and their ratio,
/// `samples` the ratios that were drawn.
fn rows(whole: impl Fn(Of) -> (f64, f64, f64), samples: Vec<Vec<f64>>, tolerance: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (&(name, less, figure), mut ratios) in FIGURES.iter().zip(samples) {
        let (a, b, ratio) = whole(figure);
        ratios.retain(|ratio| ratio.is_finite());
        ratios.sort_by(f64::total_cmp);
        let at = |part: f64| ratios[((ratios.len() - 1) as f64 * part) as usize];
        if !(ratio.is_finite() && a > 0.0) || ratios.is_empty() {
            continue;
        }
        let (low, high) = (at(0.025), at(0.975));
        rows.push(Row {
            name,
            a,
            b,
            ratio,
            low,
            high,
            word: word(low, high, tolerance, less),
        });
    }
    rows
}

/// The middle one of the finite values; `None` when there is none.
fn median(values: &mut Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[half]),
        _ => Some(f64::midpoint(values[half - 1], values[half])),
    }
}

fn word(low: f64, high: f64, tolerance: f64, less: bool) -> Word {
    let (small, large) = (1.0 - tolerance, 1.0 + tolerance);
    if low >= small && high <= large {
        Word::Same
    } else if low > 1.0 && (low + high) / 2.0 > large {
        if less { Word::Worse } else { Word::Better }
    } else if high < 1.0 && (low + high) / 2.0 < small {
        if less { Word::Better } else { Word::Worse }
    } else {
        Word::Unclear
    }
}

/// The comparison as text.
pub fn text(rows: &[Row], tolerance: f64) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<28}{:>12}{:>12}{:>9}{:>20}  verdict (same: within {:.1} %)",
        "figure",
        "A",
        "B",
        "B/A",
        "95 % of B/A",
        tolerance * 100.0
    );
    for row in rows {
        let _ = writeln!(
            out,
            "{:<28}{:>12.3}{:>12.3}{:>9.3}{:>20}  {}",
            row.name,
            row.a,
            row.b,
            row.ratio,
            format!("{:.3} .. {:.3}", row.low, row.high),
            row.word.name()
        );
    }
    out
}

/// Whether any of the figures that count is worse. Of an open loop the rate does not count, and of a
/// closed one the latencies do not: they follow from what was set.
pub fn regressed(rows: &[Row], figures: &[String]) -> bool {
    rows.iter()
        .filter(|row| figures.is_empty() || figures.iter().any(|name| name == row.name))
        .any(|row| row.word == Word::Worse)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report whose slots have this engine CPU for each push, with noise.
    pub(crate) fn report(us: f64, seed: u64, slots: usize) -> Report {
        let mut random = Random::new(seed);
        let mut report = crate::report::tests::sample();
        report.headline = "measure".into();
        report.phases[0].name = "measure".into();
        report.phases[0].seconds = slots as f64 / 10.0;
        report.series.width = 0.1;
        report.series.rows_ms = (0..57).map(|row| 0.001 * f64::from(row)).collect();
        // Noise that lasts for some slots, as on a real machine.
        let mut drift = 0.0;
        report.series.slots = (0..slots)
            .map(|n| {
                drift = 0.8 * drift + 0.02 * (random.unit() - 0.5);
                SlotRow {
                    t: n as f64 / 10.0,
                    covers: 0.1,
                    pushes: 1000,
                    engine_s: us / 1e6 * 1000.0 * (1.0 + drift),
                    heat: vec![(10, 900), (20, 100)],
                    ..SlotRow::default()
                }
            })
            .collect();
        report
    }

    fn engine(rows: &[Row]) -> &Row {
        rows.iter()
            .find(|row| row.name == "engine_us_per_push")
            .unwrap()
    }

    #[test]
    fn tells_a_tenth_more_cpu_from_noise() {
        let a: Vec<Report> = (0..3).map(|n| report(10.0, n, 100)).collect();
        let same: Vec<Report> = (10..13).map(|n| report(10.0, n, 100)).collect();
        let worse: Vec<Report> = (20..23).map(|n| report(11.0, n, 100)).collect();
        let rows = compare(&a, &same, 0.03).unwrap();
        assert_eq!(engine(&rows).word, Word::Same, "{rows:?}");
        assert!(!regressed(&rows, &[]));
        let rows = compare(&a, &worse, 0.03).unwrap();
        assert_eq!(engine(&rows).word, Word::Worse, "{rows:?}");
        assert!(regressed(&rows, &[]));
        assert!(!regressed(&rows, &["pushes_per_s".to_owned()]));
        let rows = compare(&worse, &a, 0.03).unwrap();
        assert_eq!(engine(&rows).word, Word::Better);
    }

    #[test]
    fn says_unclear_when_the_noise_is_larger_than_the_question() {
        let mut noisy = vec![report(10.0, 1, 60), report(13.0, 2, 60), report(8.0, 3, 60)];
        let rows = compare(&[report(10.0, 4, 60)], &noisy, 0.03).unwrap();
        assert_eq!(engine(&rows).word, Word::Unclear, "{rows:?}");
        noisy.truncate(1);
        assert!(compare(&noisy, &[report(10.0, 4, 3)], 0.03).is_err());
    }

    #[test]
    fn rounds_in_turn_see_through_a_host_that_is_slow_for_a_while() {
        // Half of the rounds ran while the host was 1.6 times as slow, one was disturbed by itself.
        let phase = |n: u64| if n < 4 { 1.6 } else { 1.0 };
        let side = |us: f64, seed: u64| -> Vec<Report> {
            let of = |n| report(us * phase(n), seed + n, 60);
            let mut rounds: Vec<Report> = (0..9).map(of).collect();
            rounds[6] = report(us * (1.0 + seed as f64 / 100.0), seed, 60);
            rounds
        };
        let (a, same, worse) = (side(10.0, 0), side(10.0, 40), side(11.0, 80));
        assert_eq!(
            engine(&compare(&a, &same, 0.03).unwrap()).word,
            Word::Unclear
        );
        let rows = compare_pairs(&a, &same, 0.03).unwrap();
        assert_eq!(engine(&rows).word, Word::Same, "{rows:?}");
        let rows = compare_pairs(&a, &worse, 0.03).unwrap();
        assert_eq!(engine(&rows).word, Word::Worse, "{rows:?}");
    }

    #[test]
    fn a_larger_rate_is_better() {
        assert_eq!(word(1.1, 1.2, 0.02, false), Word::Better);
        assert_eq!(word(1.1, 1.2, 0.02, true), Word::Worse);
        assert_eq!(word(0.99, 1.01, 0.02, true), Word::Same);
        assert_eq!(word(0.9, 1.1, 0.02, true), Word::Unclear);
    }
}
