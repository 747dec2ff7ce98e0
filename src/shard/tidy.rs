//! When sessions, users and queues at rest are folded ([`Pool::tidy`](crate::base::pool::Pool::tidy)).
//!
//! All that is warm is gone round in [`ROUND`], a share in each step: what is touched every second or two stays as it
//! is. A step folds at once only a few of its share, for whoever comes meanwhile waits for it; the rest of the share
//! is for the moments in which the driver has nothing to do. A shard that has none folds little, as long as not too
//! much is warm: users who come back in a storm do not pay for their rest while it lasts.

use core::time::Duration;

use super::Shard;
use crate::base::limits::WARM_EASY;
use crate::base::time::Timestamp;

/// Between two steps.
const EVERY: Duration = Duration::from_millis(10);
/// Steps in which everything warm was looked at once.
const ROUND: usize = 128;
/// Most that a step folds of each kind itself, as long as no more than [`WARM_EASY`] are warm.
const FOLDS_EASY: usize = 64;
/// Most that it folds of each kind in any case: about as long as the time between two steps.
const FOLDS_MAX: usize = 4096;
/// Of each kind, what is looked at and folded before the driver sees whether something came: some 30 us.
const LEISURE: (usize, usize) = (64, 8);

/// Most that a step folds of a kind of which `warm` are warm. What is above the easy number goes within a
/// second or two, or whatever touches many would fill the memory; not all at once, or whoever comes meanwhile
/// would wait for it.
fn folds_at(warm: usize) -> usize {
    let above = warm.saturating_sub(WARM_EASY);
    (FOLDS_EASY + above / ROUND).min(FOLDS_MAX)
}

/// Where the round is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tidying {
    /// When the next step is due.
    pub at: Timestamp,
    /// Sessions, users and queues of this step's share that are still to be looked at.
    left: [usize; 3],
}

impl Tidying {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            at: now,
            left: [0; 3],
        }
    }
}

impl Shard {
    #[inline]
    pub(super) fn is_untidy(&self) -> bool {
        self.pushes.is_untidy() || self.registry.is_untidy() || self.post.mailboxes.is_untidy()
    }

    /// Takes the next share and begins with it, if it is time.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        if self.desk.tidying.at > now || !self.is_untidy() {
            return;
        }
        self.desk.tidying.at = now + EVERY;
        let (users, user_places) = self.registry.warm();
        let (pushes, queues) = (&self.pushes, &self.post.mailboxes);
        let places = [pushes.warm_places(), user_places, queues.warm_places()];
        self.desk.tidying.left = places.map(|places| places / ROUND + 1);
        let warm = [pushes.warm_len(), users, queues.warm_len()];
        self.tidy_some(usize::MAX, warm.map(folds_at));
    }

    /// Goes on with the share, nothing else being to do. True when some of it is left.
    pub(super) fn tidy_at_leisure(&mut self) -> bool {
        if self.desk.tidying.left == [0; 3] {
            return false;
        }
        let (looks, folds) = LEISURE;
        self.tidy_some(looks, [folds; 3]);
        self.desk.tidying.left != [0; 3]
    }

    fn tidy_some(&mut self, looks: usize, folds: [usize; 3]) {
        let left = &mut self.desk.tidying.left;
        let [pushes, users, queues] = left.map(|left| left.min(looks));
        let looked = [
            self.pushes.tidy(pushes, folds[0]),
            self.registry.tidy(users, folds[1]),
            self.post.mailboxes.tidy(queues, folds[2]),
        ];
        let untidy = [
            self.pushes.is_untidy(),
            self.registry.is_untidy(),
            self.post.mailboxes.is_untidy(),
        ];
        for ((left, looked), untidy) in left.iter_mut().zip(looked).zip(untidy) {
            *left = if untidy { *left - looked } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_folded_soon_and_a_little_at_a_time() {
        let mut warm = 4 * WARM_EASY;
        let mut steps = 0;
        while warm > WARM_EASY + WARM_EASY / 8 {
            assert!(folds_at(warm) <= warm / ROUND);
            warm -= folds_at(warm);
            steps += 1;
        }
        assert!(steps < 500, "{steps} steps of ten milliseconds");
        assert_eq!(folds_at(WARM_EASY), FOLDS_EASY);
        assert_eq!(folds_at(1 << 24), FOLDS_MAX);
    }
}
