//! A bounded set of 64-bit hashes: was this identifier seen within the last few million?

/// Slots a set starts with.
const SLOTS_MIN: usize = 8192;

/// Two generations of an open-addressed table. The younger grows to its bound; when it is half full
/// at its bound it becomes the older one and the older is dropped. So memory is bounded, a short run
/// stays within the cache, and an identifier is remembered for at least `window` insertions.
#[derive(Debug)]
pub struct RecentSet {
    young: Vec<u64>,
    old: Vec<u64>,
    filled: usize,
    slots_max: usize,
}

impl RecentSet {
    /// Remembers at least `window` insertions; takes up to 64 octets for each.
    pub fn new(window: usize) -> Self {
        let slots_max = (window * 2).next_power_of_two().max(64);
        let slots = slots_max.min(SLOTS_MIN);
        Self {
            young: vec![0; slots],
            old: Vec::new(),
            filled: 0,
            slots_max,
        }
    }

    /// Adds a hash; `false` when it was there already.
    #[inline]
    pub fn insert(&mut self, hash: u64) -> bool {
        let hash = hash.max(1);
        if !self.old.is_empty() && contains(&self.old, hash) {
            return false;
        }
        if !place(&mut self.young, hash) {
            return false;
        }
        self.filled += 1;
        if self.filled * 2 >= self.young.len() {
            self.make_room();
        }
        true
    }

    /// Adds several hashes; says of each whether it was new. Their places are looked at side by side
    /// first, so that the cache misses overlap.
    pub fn insert_all<const N: usize>(&mut self, hashes: &[u64; N]) -> [bool; N] {
        let mut seen = 0;
        for &hash in hashes {
            seen |= self.young[hash as usize & (self.young.len() - 1)];
            if !self.old.is_empty() {
                seen |= self.old[hash as usize & (self.old.len() - 1)];
            }
        }
        core::hint::black_box(seen);
        hashes.map(|hash| self.insert(hash))
    }

    #[cold]
    fn make_room(&mut self) {
        if self.young.len() < self.slots_max {
            let mut larger = vec![0; self.young.len() * 2];
            for &hash in self.young.iter().filter(|&&hash| hash != 0) {
                place(&mut larger, hash);
            }
            self.young = larger;
            return;
        }
        if self.old.is_empty() {
            self.old = vec![0; self.slots_max];
        }
        core::mem::swap(&mut self.young, &mut self.old);
        self.young.fill(0);
        self.filled = 0;
    }
}

#[inline]
fn place(table: &mut [u64], hash: u64) -> bool {
    let mask = table.len() - 1;
    let mut at = hash as usize & mask;
    while table[at] != 0 {
        if table[at] == hash {
            return false;
        }
        at = (at + 1) & mask;
    }
    table[at] = hash;
    true
}

#[inline]
fn contains(table: &[u64], hash: u64) -> bool {
    let mask = table.len() - 1;
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
