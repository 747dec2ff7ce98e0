//! INVITEs written in a turn, until the driver says that they left. Layer 1.
//!
//! The core reads no clock, so it cannot know how long its turn takes. It keeps the moments that asked for
//! the INVITEs of the turn; the driver's next clock read, once the kernel has what the turn wrote, ends them all.

use crate::base::time::Timestamp;
use crate::metrics::histogram::Histogram;

/// Different moments kept. What a turn decides on came with it, mostly: hundreds of INVITEs have one moment.
const MOMENTS_MAX: usize = 1024;

/// When what asked for the INVITEs of a turn came.
#[derive(Debug)]
pub struct Departures {
    /// A moment, and for how many INVITEs.
    moments: Vec<(Timestamp, u32)>,
}

impl Default for Departures {
    fn default() -> Self {
        Self {
            moments: Vec::with_capacity(MOMENTS_MAX),
        }
    }
}

impl Departures {
    /// An INVITE was written for what came at `triggered`. Beyond the bound it is counted with the one before
    /// it, from the earlier moment of the two.
    #[inline]
    pub fn add(&mut self, triggered: Timestamp) {
        let full = self.moments.len() == MOMENTS_MAX;
        if let Some((last, count)) = self.moments.last_mut()
            && (*last == triggered || full)
        {
            *last = (*last).min(triggered);
            *count += 1;
        } else {
            self.moments.push((triggered, 1));
        }
    }

    /// They had left at `now`.
    #[inline]
    pub fn left(&mut self, now: Timestamp, times: &mut Histogram) {
        for (triggered, count) in self.moments.drain(..) {
            times.record_many(now.since(triggered), count.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn beyond_the_bound_invites_count_from_the_earlier_moment_and_none_is_lost() {
        let mut departures = Departures::default();
        let capacity = departures.moments.capacity();
        let at = |ms: usize| Timestamp::from_millis(ms as u64);
        for ms in 0..MOMENTS_MAX {
            departures.add(at(10_000 + ms));
            departures.add(at(10_000 + ms));
        }
        departures.add(at(20_000));
        departures.add(at(9_000));
        assert_eq!(departures.moments.len(), MOMENTS_MAX);
        assert_eq!(departures.moments.last(), Some(&(at(9_000), 4)));
        let mut times = Histogram::default();
        departures.left(at(21_000), &mut times);
        assert_eq!(times.count(), 2 * MOMENTS_MAX as u64 + 2);
        assert_eq!(times.over(Duration::from_millis(11_500)), 4);
        departures.left(at(22_000), &mut times);
        assert_eq!(times.count(), 2 * MOMENTS_MAX as u64 + 2);
        assert_eq!(departures.moments.capacity(), capacity);
    }
}
