//! Which octets of a message are known to have arrived, in bounded space. Layer 1.
//!
//! Ranges come in any order, overlapping and repeated (RFC 4975 sections 7.1.2 and 7.3.1). Almost
//! always they come in order, so each message keeps one number, the covered prefix, and the
//! stragglers of all messages share one small pool. When the pool is full a straggler is dropped:
//! evidence is lost, never invented.

/// Covered octets of up to `MESSAGES` messages with at most `EXTRAS` ranges beyond a gap.
#[derive(Clone, Copy, Debug)]
pub struct Coverage<const MESSAGES: usize, const EXTRAS: usize> {
    /// Octets `1..=prefix` are covered.
    prefix: [u32; MESSAGES],
    extras: [Extra; EXTRAS],
    extras_len: u8,
}

/// A covered range that does not touch its message's prefix. `first > prefix + 1`.
#[derive(Clone, Copy, Debug, Default)]
struct Extra {
    first: u32,
    last: u32,
    message: u8,
}

impl<const MESSAGES: usize, const EXTRAS: usize> Default for Coverage<MESSAGES, EXTRAS> {
    fn default() -> Self {
        Self {
            prefix: [0; MESSAGES],
            extras: [Extra {
                first: 0,
                last: 0,
                message: 0,
            }; EXTRAS],
            extras_len: 0,
        }
    }
}

impl<const MESSAGES: usize, const EXTRAS: usize> Coverage<MESSAGES, EXTRAS> {
    const FITS: () = assert!(MESSAGES <= 256 && EXTRAS <= 255, "counters are one octet");

    /// Forgets what is known of `message`, a number below `MESSAGES`.
    pub fn clear(&mut self, message: u8) {
        self.prefix[usize::from(message)] = 0;
        self.retain(|extra| extra.message != message);
    }

    /// Octets `1..=n` of `message` are covered, for the returned `n`.
    #[must_use]
    pub const fn prefix(&self, message: u8) -> u32 {
        self.prefix[message as usize]
    }

    /// Adds octets `first..=last` (from 1) of `message`; an empty or reversed range adds nothing.
    ///
    /// Returns `false` when the pool of stragglers is full and the range was dropped.
    pub fn insert(&mut self, message: u8, first: u32, last: u32) -> bool {
        const { Self::FITS };
        if first == 0 || last < first {
            return true;
        }
        let (mut first, mut last) = (first, last);
        let prefix = self.prefix[usize::from(message)];
        if first <= prefix.saturating_add(1) {
            self.extend_prefix(message, last.max(prefix));
            return true;
        }
        // Swallow what overlaps or touches. The extras of one message never touch each other, but a
        // grown range may reach further ones: repeat until nothing changes (at most EXTRAS times).
        loop {
            let (low, high) = (first, last);
            self.retain(|extra| {
                let apart = extra.message != message
                    || extra.first > high.saturating_add(1)
                    || extra.last.saturating_add(1) < low;
                if !apart {
                    first = first.min(extra.first);
                    last = last.max(extra.last);
                }
                apart
            });
            if (low, high) == (first, last) {
                break;
            }
        }
        let len = usize::from(self.extras_len);
        if len == EXTRAS {
            return false;
        }
        self.extras[len] = Extra {
            first,
            last,
            message,
        };
        self.extras_len += 1;
        true
    }

    fn extend_prefix(&mut self, message: u8, to: u32) {
        let mut prefix = to;
        loop {
            let before = prefix;
            self.retain(|extra| {
                let apart = extra.message != message || extra.first > prefix.saturating_add(1);
                if !apart {
                    prefix = prefix.max(extra.last);
                }
                apart
            });
            if prefix == before {
                break;
            }
        }
        self.prefix[usize::from(message)] = prefix;
    }

    /// Keeps the extras for which `keep` holds; order is not kept.
    fn retain(&mut self, mut keep: impl FnMut(&Extra) -> bool) {
        let mut at = 0;
        while at < usize::from(self.extras_len) {
            if keep(&self.extras[at]) {
                at += 1;
            } else {
                self.extras_len -= 1;
                self.extras[at] = self.extras[usize::from(self.extras_len)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rng(u64);

    impl Rng {
        fn below(&mut self, bound: u32) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            u32::try_from(self.0 >> 33).unwrap() % bound
        }
    }

    // Proves: MSRP-22
    #[test]
    fn random_ranges_agree_with_a_bitmap_while_the_pool_has_room() {
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2_000 {
            let mut coverage = Coverage::<3, 32>::default();
            let mut bitmap = [[false; 102]; 3];
            for _ in 0..12 {
                let message = rng.below(3);
                let first = rng.below(100);
                let last = first + rng.below(12);
                assert!(coverage.insert(u8::try_from(message).unwrap(), first, last.min(100)));
                if first > 0 {
                    for at in first..=last.min(100) {
                        bitmap[message as usize][at as usize] = true;
                    }
                }
                for (message, bits) in (0u8..).zip(&bitmap) {
                    let oracle = bits[1..].iter().take_while(|&&bit| bit).count();
                    assert_eq!(coverage.prefix(message) as usize, oracle);
                }
            }
        }
    }

    #[test]
    fn a_full_pool_drops_a_straggler_and_never_invents_octets() {
        let mut coverage = Coverage::<1, 2>::default();
        assert!(coverage.insert(0, 10, 11));
        assert!(coverage.insert(0, 20, 21));
        assert!(!coverage.insert(0, 30, 31));
        assert!(coverage.insert(0, 12, 19), "joins two into one");
        assert!(coverage.insert(0, 1, 9));
        assert_eq!(coverage.prefix(0), 21);
        assert!(coverage.insert(0, 1, u32::MAX));
        assert_eq!(coverage.prefix(0), u32::MAX);
        coverage.clear(0);
        assert_eq!(coverage.prefix(0), 0);
    }
}
