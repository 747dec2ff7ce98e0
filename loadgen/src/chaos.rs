//! Loss, duplication, delay and so reordering of datagrams, in user space, drawn from a seed.

use crate::world::Random;

/// How much of it, each a share between 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Odds {
    /// Datagrams that are lost.
    pub loss: f64,
    /// Datagrams that come twice.
    pub duplicate: f64,
    /// Datagrams that come later, behind others.
    pub delay: f64,
    /// Longest delay, milliseconds.
    pub delay_ms: f64,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is lost.
    Drop,
    /// It goes in so many nanoseconds.
    Later(u64),
    /// It goes.
    Pass,
    /// It goes twice.
    Twice,
}

/// Draws fates and counts them.
#[derive(Debug)]
pub struct Chaos {
    odds: Odds,
    random: Random,
    /// Datagrams lost so far.
    pub dropped: u64,
    /// Datagrams doubled so far.
    pub doubled: u64,
    /// Datagrams held back so far.
    pub delayed: u64,
}

impl Chaos {
    /// Chance of these odds; nothing when all are zero.
    pub fn new(odds: Odds, seed: u64) -> Option<Self> {
        let any = odds.loss > 0.0 || odds.duplicate > 0.0 || odds.delay > 0.0;
        any.then(|| Self {
            odds,
            random: Random::new(seed ^ 0x6368_616f),
            dropped: 0,
            doubled: 0,
            delayed: 0,
        })
    }

    /// What becomes of the next datagram.
    pub fn draw(&mut self) -> Fate {
        let mut left = self.random.unit();
        if left < self.odds.loss {
            self.dropped += 1;
            return Fate::Drop;
        }
        left -= self.odds.loss;
        if left < self.odds.duplicate {
            self.doubled += 1;
            return Fate::Twice;
        }
        left -= self.odds.duplicate;
        if left < self.odds.delay {
            self.delayed += 1;
            let wait = self.random.unit() * self.odds.delay_ms * 1e6;
            return Fate::Later(wait as u64);
        }
        Fate::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_come_by_their_odds_and_the_same_for_one_seed() {
        let odds = Odds {
            loss: 0.1,
            duplicate: 0.05,
            delay: 0.2,
            delay_ms: 10.0,
        };
        let draws = |seed| -> Vec<Fate> {
            let mut chaos = Chaos::new(odds, seed).unwrap();
            (0..20_000).map(|_| chaos.draw()).collect()
        };
        let one = draws(3);
        assert_eq!(one, draws(3));
        assert_ne!(one, draws(4));
        let count = |wanted: fn(&Fate) -> bool| one.iter().filter(|fate| wanted(fate)).count();
        assert!((1_800..2_200).contains(&count(|fate| *fate == Fate::Drop)));
        assert!((850..1_150).contains(&count(|fate| *fate == Fate::Twice)));
        let late = count(|fate| matches!(fate, Fate::Later(wait) if *wait <= 10_000_000));
        assert!((3_700..4_300).contains(&late));
        assert!(Chaos::new(Odds::default(), 1).is_none());
    }
}
