//! Durations in cells an eighth apart, for the hot path: a shift and an addition to one cell. Layer 1.

use core::time::Duration;

/// Cells of an octave: a bound is at most an eighth above what it bounds.
const PER_OCTAVE: usize = 8;
/// The last octave ends at 2^30 microseconds (18 minutes).
const OCTAVES_END: u32 = 30;
/// Cells: one for each of the first eight microseconds, eight for each octave above, and one for all that took
/// longer.
pub const CELLS: usize = PER_OCTAVE * (OCTAVES_END as usize - 2) + 1;

/// How long something took, many times over. Merging loses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    cells: [u64; CELLS],
    sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            cells: [0; CELLS],
            sum_us: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, took: Duration) {
        self.record_many(took, 1);
    }

    /// Counts `count` of the same duration.
    #[inline]
    pub fn record_many(&mut self, took: Duration, count: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.cells[cell_of(us)] += count;
        self.sum_us = self.sum_us.saturating_add(us.saturating_mul(count));
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (cell, more) in self.cells.iter_mut().zip(&other.cells) {
            *cell += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// All durations together, microseconds.
    #[must_use]
    pub const fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Upper bound of each cell in microseconds, `None` for the last, with the number counted up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let mut sum = 0;
        self.cells.iter().enumerate().map(move |(cell, count)| {
            sum += count;
            (bound_of(cell), sum)
        })
    }

    /// As [`Histogram::cumulative`], by powers of two only: what is published has so few series.
    pub fn octaves(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        self.cumulative()
            .filter(|(bound, _)| bound.is_none_or(u64::is_power_of_two))
    }

    /// How many certainly took longer than `limit`: those in cells that begin at it or later. One that
    /// took little longer may be missed, by an eighth at most.
    #[must_use]
    pub fn over(&self, limit: Duration) -> u64 {
        let us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let mut upto = self.cumulative();
        let within = upto.find(|(bound, _)| bound.is_none_or(|bound| bound >= us));
        self.count() - within.map_or(0, |(_, count)| count)
    }

    /// The upper bound of the cell that `quantile` of all durations do not exceed, microseconds;
    /// `None` when nothing was counted. `quantile` is between 0 and 1.
    #[must_use]
    pub fn at_most_us(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among counted durations; exact below 2^53"
        )]
        let rank = (count as f64 * quantile.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut cells = self.cumulative();
        let (bound, _) = cells.find(|(_, up_to)| count > 0 && *up_to >= rank)?;
        Some(bound.unwrap_or(u64::MAX))
    }
}

/// The cell of a duration: the first whose bound it does not exceed.
#[inline]
const fn cell_of(us: u64) -> usize {
    let below = us.saturating_sub(1);
    // The first two octaves have a cell for each microsecond.
    let octave = u64::BITS - (below | (2 * PER_OCTAVE as u64 - 1)).leading_zeros();
    if octave > OCTAVES_END {
        return CELLS - 1;
    }
    let shift = octave - 4;
    #[expect(clippy::cast_possible_truncation, reason = "below 16")]
    let inner = (below >> shift) as usize;
    shift as usize * PER_OCTAVE + inner
}

/// The longest duration of a cell, microseconds; `None` for the last cell.
const fn bound_of(cell: usize) -> Option<u64> {
    if cell >= CELLS - 1 {
        return None;
    }
    if cell < PER_OCTAVE {
        return Some(cell as u64 + 1);
    }
    let shift = cell / PER_OCTAVE - 1;
    Some(((cell % PER_OCTAVE + PER_OCTAVE + 1) as u64) << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_longer_than_a_limit_is_counted_by_whole_cells() {
        let mut histogram = Histogram::default();
        for us in [1, 600, 900, 1000, 1024, 1025, 4000, 5_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let over = |us| histogram.over(Duration::from_micros(us));
        assert_eq!(
            (over(700), over(1000), over(1024), over(1025)),
            (6, 3, 3, 2)
        );
        assert_eq!(over(3_600_000_000), 0);
    }

    #[test]
    fn a_duration_is_counted_in_the_first_cell_that_holds_it() {
        for (us, bound) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (7, 7),
            (8, 8),
            (9, 9),
            (16, 16),
            (17, 18),
            (600, 640),
            (1000, 1024),
            (1024, 1024),
            (1025, 1152),
        ] {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_micros(us));
            assert_eq!(histogram.at_most_us(1.0), Some(bound), "{us}");
            assert_eq!((histogram.count(), histogram.sum_us()), (1, us));
        }
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.cumulative().last(), Some((None, 1)));
        assert_eq!(Histogram::default().at_most_us(0.5), None);
    }

    #[test]
    fn every_bound_holds_its_own_and_is_an_eighth_above_the_one_before() {
        let mut before = 0;
        for cell in 0..CELLS - 1 {
            let bound = bound_of(cell).expect("all but the last have one");
            assert_eq!(cell_of(bound), cell, "{bound}");
            assert_eq!(cell_of(bound + 1), cell + 1, "{bound}");
            assert!(bound - before <= (before / 8).max(1), "{before} {bound}");
            before = bound;
        }
        assert_eq!(before, 1 << OCTAVES_END);
    }

    #[test]
    fn what_is_published_are_powers_of_two_with_all_that_is_below_them() {
        let mut histogram = Histogram::default();
        for us in [600, 1000, 1100] {
            histogram.record(Duration::from_micros(us));
        }
        let octaves: Vec<_> = histogram.octaves().collect();
        assert_eq!(octaves.len(), 32);
        assert_eq!(
            octaves[9..12],
            [(Some(512), 0), (Some(1024), 2), (Some(2048), 3)]
        );
        assert_eq!(octaves[31], (None, 3));
    }

    #[test]
    fn quantiles_follow_the_order_and_merging_adds() {
        let mut low = Histogram::default();
        let mut high = Histogram::default();
        for _ in 0..90 {
            low.record(Duration::from_micros(100));
        }
        for _ in 0..10 {
            high.record(Duration::from_millis(100));
        }
        low.merge(&high);
        assert_eq!(low.count(), 100);
        assert_eq!(low.at_most_us(0.9), Some(104));
        assert_eq!(low.at_most_us(0.91), Some(106_496));
    }
}
