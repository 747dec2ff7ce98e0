//! Durations by powers of two, for the hot path: one addition to one cell. Layer 1.

use core::time::Duration;

/// Cells: the first holds what took at most a microsecond, each further one twice as long; the last
/// all that took longer than 2^30 microseconds (18 minutes).
pub const CELLS: usize = 32;

/// How long something took, many times over. Merging loses nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    cells: [u64; CELLS],
    sum_us: u64,
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
        let cell = (u64::BITS - us.saturating_sub(1).leading_zeros()) as usize;
        self.cells[cell.min(CELLS - 1)] += count;
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
        let bounds = (0..CELLS).map(|cell| (cell < CELLS - 1).then(|| 1_u64 << cell));
        let mut sum = 0;
        bounds.zip(&self.cells).map(move |(bound, cell)| {
            sum += cell;
            (bound, sum)
        })
    }

    /// How many certainly took longer than `limit`: those in cells that begin at it or later. One that
    /// took little longer may be missed, at most twice as long.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_longer_than_a_limit_is_counted_by_whole_cells() {
        let mut histogram = Histogram::default();
        for us in [1, 900, 1000, 1024, 1025, 4000, 5_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let over = |us| histogram.over(Duration::from_micros(us));
        assert_eq!((over(1000), over(1024), over(1025)), (3, 3, 2));
        assert_eq!(over(3_600_000_000), 0);
    }

    #[test]
    fn a_duration_is_counted_in_the_first_cell_that_holds_it() {
        for (us, bound) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 4),
            (4, 4),
            (5, 8),
            (1024, 1024),
            (1025, 2048),
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
        assert_eq!(low.at_most_us(0.9), Some(128));
        assert_eq!(low.at_most_us(0.91), Some(131_072));
    }
}
