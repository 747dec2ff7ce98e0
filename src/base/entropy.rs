//! Random streams, seeded by the caller: a CSPRNG for identifiers and keys, a cheap one for jitter.
//!
//! Nothing here asks the operating system; the driver (or the simulator) hands the seed in.

use core::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Cryptographic stream for keys and identifiers. Not `Clone`, so that no stream is used twice.
#[derive(Debug)]
pub struct Csprng(ChaCha12Rng);

impl Csprng {
    /// A stream determined by `seed`.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// Fills `out` with stream bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// An independent stream for another concern, derived from this one.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Self::from_seed(seed)
    }
}

/// Fast statistical stream (SplitMix64) for jitter and test choices; never for identifiers.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A stream determined by `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A value in `0..bound`; zero when `bound` is zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.next_u64() % bound
        }
    }

    /// A duration in `low..=high`; `low` when the range is empty.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low);
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_from_their_seed_and_forks_differ() {
        let mut a = Csprng::from_seed([7; 32]);
        let mut b = Csprng::from_seed([7; 32]);
        assert_eq!(a.next_u64(), b.next_u64());
        let mut fork = a.fork();
        assert_ne!(fork.next_u64(), a.next_u64());
    }

    #[test]
    fn jitter_stays_in_its_range() {
        let mut jitter = Jitter::new(1);
        let (low, high) = (Duration::from_millis(2100), Duration::from_millis(4000));
        for _ in 0..1000 {
            let pick = jitter.duration(low, high);
            assert!(pick >= low && pick <= high);
        }
        assert_eq!(jitter.duration(high, low), high);
    }
}
