//! A bounded set of 64-bit hashes: was this identifier seen within the last few million?

/// Slots a set starts with.
const SLOTS_MIN: usize = 8192;

/// Slots of a table that is moved from which one insertion moves: all are moved long before the new table is
/// half full.
const MOVED_SLOTS: usize = 8;

/// Two generations of an open-addressed table. The younger grows to its bound; when it is half full
/// at its bound it becomes the older one and the older is dropped. So memory is bounded, a short run
/// stays within the cache, and an identifier is remembered for at least `window` insertions.
///
/// A table that grows is moved a few slots with each insertion: moved at once, a few million identifiers
/// would let whoever measures stand still for tens of milliseconds.
#[derive(Debug)]
pub struct RecentSet {
    young: Vec<u64>,
    old: Vec<u64>,
    /// What `young` was before it grew; empty once all of it is in there.
    moving: Vec<u64>,
    /// Slots of `moving` that are done.
    moved: usize,
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
            moving: Vec::new(),
            moved: 0,
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
        if !self.moving.is_empty() {
            if contains(&self.moving, hash) {
                return false;
            }
            self.move_some();
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
            for table in [&self.young, &self.old, &self.moving] {
                let place = hash as usize & table.len().wrapping_sub(1);
                seen |= table.get(place).copied().unwrap_or(0);
            }
        }
        core::hint::black_box(seen);
        hashes.map(|hash| self.insert(hash))
    }

    /// Moves a few slots to the larger table.
    fn move_some(&mut self) {
        let end = self.moving.len().min(self.moved + MOVED_SLOTS);
        for &hash in self.moving[self.moved..end]
            .iter()
            .filter(|&&hash| hash != 0)
        {
            place(&mut self.young, hash);
        }
        self.moved = end;
        if end == self.moving.len() {
            (self.moving, self.moved) = (Vec::new(), 0);
        }
    }

    #[cold]
    fn make_room(&mut self) {
        assert!(self.moving.is_empty(), "moved before it is half full again");
        if self.young.len() < self.slots_max {
            let larger = vec![0; self.young.len() * 2];
            self.moving = core::mem::replace(&mut self.young, larger);
            return;
        }
        // A new one comes zeroed from the system, page by page as it is used.
        self.old = core::mem::replace(&mut self.young, vec![0; self.slots_max]);
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

    #[test]
    fn a_table_that_grows_is_moved_a_little_at_a_time_and_forgets_nothing() {
        let mut set = RecentSet::new(1 << 18);
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (mut moves, mut left) = (0, 0);
        for n in 1..=200_000u64 {
            assert!(set.insert(hash(n)), "{n} is new");
            moves += usize::from(left == 0 && !set.moving.is_empty());
            let now = set.moving.len() - set.moved;
            assert!(left == 0 || left - now <= 2 * MOVED_SLOTS, "{left} {now}");
            left = now;
            // Some that were moved and some that were not yet.
            for known in [1, n / 3 + 1, n / 2 + 1, n] {
                assert!(!set.insert(hash(known)), "{known} of {n} is known");
                left = set.moving.len() - set.moved;
            }
        }
        assert_eq!(moves, 6, "from 8,192 slots to 524,288");
    }
}
