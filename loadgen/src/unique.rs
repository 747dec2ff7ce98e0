//! A bounded set of 64-bit hashes: was this identifier seen within the last few million?

/// Two generations of an open-addressed table. The older is dropped when the younger is half full,
/// so memory is bounded and an identifier is remembered for at least `window` insertions.
#[derive(Debug)]
pub struct RecentSet {
    young: Vec<u64>,
    old: Vec<u64>,
    filled: usize,
    mask: usize,
}

impl RecentSet {
    /// Remembers at least `window` insertions; takes 32 octets for each.
    pub fn new(window: usize) -> Self {
        let slots = (window * 2).next_power_of_two().max(64);
        Self {
            young: vec![0; slots],
            old: vec![0; slots],
            filled: 0,
            mask: slots - 1,
        }
    }

    /// Adds a hash; `false` when it was there already.
    #[inline]
    pub fn insert(&mut self, hash: u64) -> bool {
        let hash = hash.max(1);
        if contains(&self.old, self.mask, hash) {
            return false;
        }
        let mut at = hash as usize & self.mask;
        while self.young[at] != 0 {
            if self.young[at] == hash {
                return false;
            }
            at = (at + 1) & self.mask;
        }
        self.young[at] = hash;
        self.filled += 1;
        if self.filled * 2 > self.mask {
            core::mem::swap(&mut self.young, &mut self.old);
            self.young.fill(0);
            self.filled = 0;
        }
        true
    }
}

#[inline]
fn contains(table: &[u64], mask: usize, hash: u64) -> bool {
    let mut at = hash as usize & mask;
    while table[at] != 0 {
        if table[at] == hash {
            return true;
        }
        at = (at + 1) & mask;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_at_least_the_window_and_forgets_eventually() {
        let mut set = RecentSet::new(1000);
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 1..=100_000u64 {
            assert!(set.insert(hash(n)), "{n} is new");
            assert!(
                !set.insert(hash(n.saturating_sub(900).max(1))),
                "{n} less 900 is known"
            );
        }
        assert!(set.insert(hash(1)), "long gone");
    }
}
