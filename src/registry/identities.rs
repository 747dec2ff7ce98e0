//! Who an identity leads to: a table of hashes, a line of the cache for three of them. Layer 3.
//!
//! A registry of millions is cold wherever it is looked into, so a look shall cost one line. Rows lie in the line
//! that their hash names, or in one of the next when that is full. Each line counts the rows that passed it by, so a look ends where
//! none did, and a row that is taken out leaves no mark behind. Lines are in the order of the hashes, so growing
//! reads and writes memory from front to back.
//!
//! Owner: the registry. Not here: what is hashed, and how.

use core::mem;

use crate::base::slab::Key;

/// Rows of a line.
const ROWS: usize = 3;
/// Most rows for every so many places.
const FULL: (usize, usize) = (4, 5);
/// Lines of the smallest table.
const LINES_MIN: usize = 4;
/// No user has this slot.
const FREE: u32 = u32::MAX;

/// Two independent keyed hashes of one identity, as far as they are kept: two identities that have both in common
/// are taken for one. Odds of 2^-96 for a pair, by keys that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    /// Names the line.
    pub(super) place: u64,
    pub(super) check: u32,
}

#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Line {
    places: [u64; ROWS],
    checks: [u32; ROWS],
    slots: [u32; ROWS],
    generations: [u32; ROWS],
    /// Rows whose line is this one or one before, and that lie behind it.
    passed: u32,
}

const _: () = assert!(size_of::<Line>() == 64, "a look costs one line");

const EMPTY: Line = Line {
    places: [0; ROWS],
    checks: [0; ROWS],
    slots: [FREE; ROWS],
    generations: [0; ROWS],
    passed: 0,
};

impl Line {
    fn key(&self, row: usize) -> Key {
        Key {
            slot: self.slots[row],
            generation: self.generations[row],
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Identities {
    lines: Box<[Line]>,
    len: usize,
}

impl Identities {
    /// Room for `identities` before it grows.
    pub(super) fn with_capacity(identities: usize) -> Self {
        Self {
            lines: vec![EMPTY; lines_for(identities)].into(),
            len: 0,
        }
    }

    /// Who `hashes` lead to.
    pub(super) fn lookup(&self, hashes: Hashes) -> Option<Key> {
        let (line, row) = self.find(hashes)?;
        Some(self.lines[line].key(row))
    }

    /// Makes `hashes` lead to `key`; they lead nowhere so far.
    ///
    /// # Panics
    /// When `key` has a slot that no user can have.
    pub(super) fn insert(&mut self, hashes: Hashes, key: Key) {
        assert!(key.slot != FREE, "a pool is smaller");
        if self.len >= capacity(self.lines.len()) {
            self.grow(self.len + 1);
        }
        self.put(hashes, key);
        self.len += 1;
    }

    /// The row of `key` with this `place` is no more, if there is one.
    pub(super) fn remove(&mut self, place: u64, key: Key) {
        let is_its = |line: &Line, row: usize| line.places[row] == place && line.key(row) == key;
        let Some((at, row)) = self.seek(place, is_its) else {
            return;
        };
        self.lines[at].slots[row] = FREE;
        self.len -= 1;
        let mut passed = self.home(place);
        while passed != at {
            self.lines[passed].passed -= 1;
            passed = self.after(passed);
        }
    }

    /// Makes room for `identities` at once.
    pub(super) fn reserve(&mut self, identities: usize) {
        if identities > capacity(self.lines.len()) {
            self.grow(identities);
        }
    }

    /// Octets that it owns.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.lines)
    }

    fn find(&self, hashes: Hashes) -> Option<(usize, usize)> {
        self.seek(hashes.place, |line, row| {
            line.places[row] == hashes.place && line.checks[row] == hashes.check
        })
    }

    /// The first row that is it, from the line of `place` on.
    #[inline]
    fn seek(&self, place: u64, is_it: impl Fn(&Line, usize) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(place);
        // As rows come and go, each line of a small table may have been passed by one that is still there.
        for _ in 0..self.lines.len() {
            let line = &self.lines[at];
            let taken = |&row: &usize| line.slots[row] != FREE;
            if let Some(row) = (0..ROWS).filter(taken).find(|&row| is_it(line, row)) {
                return Some((at, row));
            }
            if line.passed == 0 {
                break;
            }
            at = self.after(at);
        }
        None
    }

    fn put(&mut self, hashes: Hashes, key: Key) {
        let mut at = self.home(hashes.place);
        let row = loop {
            let line = &mut self.lines[at];
            if let Some(row) = line.slots.iter().position(|&slot| slot == FREE) {
                break row;
            }
            line.passed += 1;
            at = self.after(at);
        };
        let line = &mut self.lines[at];
        line.places[row] = hashes.place;
        line.checks[row] = hashes.check;
        line.slots[row] = key.slot;
        line.generations[row] = key.generation;
    }

    /// By half as much again at least, so that what a row costs on the average has a bound.
    #[cold]
    fn grow(&mut self, identities: usize) {
        let lines = lines_for(identities).max(self.lines.len() + self.lines.len() / 2);
        let old = mem::replace(&mut self.lines, vec![EMPTY; lines].into());
        for line in &old {
            for row in (0..ROWS).filter(|&row| line.slots[row] != FREE) {
                let hashes = Hashes {
                    place: line.places[row],
                    check: line.checks[row],
                };
                self.put(hashes, line.key(row));
            }
        }
    }

    /// The line of a hash: as far from the first as the hash is from 0.
    fn home(&self, place: u64) -> usize {
        let at = u128::from(place) * self.lines.len() as u128;
        usize::try_from(at >> 64).expect("below the number of lines")
    }

    fn after(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() {
            0
        } else {
            line + 1
        }
    }
}

/// Rows that so many lines take.
const fn capacity(lines: usize) -> usize {
    lines * ROWS * FULL.0 / FULL.1
}

/// Lines that take so many rows.
fn lines_for(identities: usize) -> usize {
    (identities * FULL.1).div_ceil(ROWS * FULL.0).max(LINES_MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::entropy::Jitter;

    fn key(slot: u32) -> Key {
        Key {
            slot,
            generation: slot ^ 5,
        }
    }

    /// Hashes that crowd at both ends, so that rows pass lines by and go around the end.
    fn crowded(dice: &mut Jitter) -> Hashes {
        let spread = dice.next_u64() >> dice.below(64);
        Hashes {
            place: if dice.below(2) == 0 {
                spread
            } else {
                u64::MAX - spread
            },
            check: u32::try_from(dice.below(3)).unwrap(),
        }
    }

    #[test]
    fn it_says_what_a_map_says_whatever_comes_and_goes() {
        let mut dice = Jitter::new(3);
        for capacity in [0, 100, 4000] {
            let mut table = Identities::with_capacity(capacity);
            let mut known: BTreeMap<(u64, u32), Key> = BTreeMap::new();
            for step in 0..30_000 {
                let hashes = crowded(&mut dice);
                let wanted = (hashes.place, hashes.check);
                let found = known.get(&wanted).copied();
                assert_eq!(table.lookup(hashes), found);
                let goes = step / 5000 % 2 == 1;
                if goes && let Some((&(place, check), &key)) = known.range(wanted..).next() {
                    known.remove(&(place, check));
                    table.remove(place, key);
                    assert_eq!(table.lookup(Hashes { place, check }), None);
                } else if !goes && found.is_none() {
                    known.insert(wanted, key(step));
                    table.insert(hashes, key(step));
                }
                assert_eq!(table.len, known.len());
            }
            for (&(place, check), &key) in &known {
                assert_eq!(table.lookup(Hashes { place, check }), Some(key));
            }
            for ((place, check), key) in mem::take(&mut known) {
                table.remove(place, key);
                assert_eq!(table.lookup(Hashes { place, check }), None);
            }
            assert!(table.lines.iter().all(|line| line.passed == 0), "no marks");
        }
    }

    #[test]
    fn a_look_ends_though_every_line_was_passed() {
        let mut table = Identities::with_capacity(0);
        // The first of line `line` and the next ones.
        let of = |line: u64, check| Hashes {
            place: (line << 62) + u64::from(check),
            check,
        };
        for check in 0..9 {
            table.insert(of(0, check), key(check));
        }
        table.put(of(0, 9), key(9));
        table.len += 1;
        for check in 0..6 {
            table.remove(of(0, check).place, key(check));
        }
        for check in 10..14 {
            table.insert(of(3, check), key(check));
        }
        assert!(table.lines.len() == LINES_MIN && table.lines.iter().all(|line| line.passed > 0));
        assert_eq!(table.lookup(of(1, 99)), None);
        table.remove(of(1, 99).place, key(99));
        assert_eq!(table.lookup(of(3, 13)), Some(key(13)));
        assert_eq!(table.lookup(of(0, 9)), Some(key(9)));
    }

    #[test]
    fn what_was_there_before_room_was_made_is_there_since() {
        let mut dice = Jitter::new(3);
        let mut table = Identities::with_capacity(0);
        let all: Vec<_> = (0..500).map(|slot| (crowded(&mut dice), slot)).collect();
        let mut known = BTreeMap::new();
        for &(hashes, slot) in &all {
            if known
                .insert((hashes.place, hashes.check), key(slot))
                .is_none()
            {
                table.insert(hashes, key(slot));
            }
        }
        let firsts: Vec<_> = all
            .iter()
            .map(|&(hashes, _)| table.lookup(hashes))
            .collect();
        assert!(firsts.iter().all(Option::is_some));
        table.reserve(40_000);
        let room = table.memory();
        let since: Vec<_> = all
            .iter()
            .map(|&(hashes, _)| table.lookup(hashes))
            .collect();
        assert_eq!(firsts, since);
        table.reserve(500);
        assert_eq!(table.memory(), room, "room is not given back");
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        let mut table = Identities::with_capacity(3);
        let hashes = Hashes { place: 7, check: 1 };
        table.insert(hashes, key(1));
        table.remove(7, key(2));
        table.remove(8, key(1));
        assert_eq!(table.lookup(hashes), Some(key(1)));
        table.remove(7, key(1));
        assert_eq!(table.lookup(hashes), None);
        table.remove(7, key(1));
        assert_eq!(table.len, 0);
    }

    #[test]
    fn a_row_costs_two_thirds_of_a_line_at_most_and_a_look_a_line_and_a_half() {
        let mut dice = Jitter::new(3);
        let mut table = Identities::with_capacity(0);
        let rows = 200_000;
        let mut all = Vec::new();
        for slot in 0..rows {
            let hashes = Hashes {
                place: dice.next_u64(),
                check: slot,
            };
            table.insert(hashes, key(slot));
            all.push(hashes);
        }
        assert!(table.memory() <= rows as usize * 41, "{}", table.memory());
        let full = lines_for(rows as usize);
        table.lines = vec![EMPTY; full].into();
        let mut lines = 0;
        for (slot, &hashes) in (0..).zip(&all) {
            table.put(hashes, key(slot));
        }
        for &hashes in &all {
            let (found, _) = table.find(hashes).unwrap();
            lines += (found + full - table.home(hashes.place)) % full + 1;
        }
        // As full as it gets.
        assert!(lines < all.len() * 8 / 5, "{lines}");
    }
}
