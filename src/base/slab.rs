//! Slots with generations: a key that outlives its element is refused, never resolved to another.

/// Names one element of a [`Slab`]. Stays unique until its slot was reused 2^28 times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Index of the slot.
    pub slot: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

/// Generations wrap after 28 bits, the width an identifier carries.
pub const GENERATION_MASK: u32 = (1 << 28) - 1;
/// Uses of a slot before it rests.
const SHIFT: u32 = 1 << 20;

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    live: bool,
    value: T,
}

/// A bounded pool whose values are kept when freed, so that a warm slot's buffers are reused.
///
/// The slot freed last is used next: its memory is still in a cache. After `SHIFT` uses it rests
/// until every other slot has had its turn, so that the generations of all slots, not of a few, stand
/// between two uses of the same key. The pool grows up to `bound` as needed and never shrinks; the
/// values of free slots stay allocated. Addresses for all of them are reserved at once, so that it never moves:
/// to double a table of server transactions took 40 ms in one turn.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    /// Slots to be used, the next one last.
    free: Vec<u32>,
    /// Slots that rest, the longest first.
    resting: std::collections::VecDeque<u32>,
    live: usize,
    bound: usize,
}

impl<T: Default> Slab<T> {
    /// A pool for at most `bound` live elements, with `warm` slots made up front.
    ///
    /// # Panics
    /// When `bound` is zero or needs more than 26 bits, or `warm` is larger than `bound`.
    #[must_use]
    pub fn new(bound: usize, warm: usize) -> Self {
        assert!(bound > 0 && bound <= 1 << 26, "slot numbers have 26 bits");
        assert!(warm <= bound, "cannot warm more slots than the bound");
        let mut slab = Self {
            entries: Vec::with_capacity(bound),
            free: Vec::with_capacity(warm),
            resting: std::collections::VecDeque::new(),
            live: 0,
            bound,
        };
        for _ in 0..warm {
            let slot = slab.grow();
            slab.free.push(slot);
        }
        slab
    }

    fn grow(&mut self) -> u32 {
        let slot = u32::try_from(self.entries.len()).expect("the bound has 26 bits");
        self.entries.push(Entry {
            generation: 0,
            live: false,
            value: T::default(),
        });
        slot
    }

    /// Takes a slot. The value is whatever the slot's last user left: reset it.
    ///
    /// `None` when `bound` elements are live.
    pub fn insert(&mut self) -> Option<(Key, &mut T)> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.entries.len() < self.bound => self.grow(),
            None => self.resting.pop_front()?,
        };
        self.live += 1;
        let entry = &mut self.entries[slot as usize];
        assert!(!entry.live, "a free slot is not live");
        entry.live = true;
        Some((
            Key {
                slot,
                generation: entry.generation,
            },
            &mut entry.value,
        ))
    }

    /// The element of `key`, if it is still that one.
    #[must_use]
    pub fn lookup(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.slot as usize)?;
        (entry.live && entry.generation == key.generation).then_some(&entry.value)
    }

    /// The element of `key`, mutable.
    pub fn lookup_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        (entry.live && entry.generation == key.generation).then_some(&mut entry.value)
    }

    /// Makes room for `count` elements in all, within the bound.
    pub fn reserve(&mut self, count: usize) {
        let more = count.min(self.bound).saturating_sub(self.entries.len());
        self.entries.reserve_exact(more);
    }

    /// The live element in `slot`, whatever its generation.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<&T> {
        let entry = self.entries.get(slot as usize)?;
        entry.live.then_some(&entry.value)
    }

    /// The live element in `slot` with its key; for indices that are known to be current.
    pub fn at_mut(&mut self, slot: u32) -> Option<(Key, &mut T)> {
        let entry = self.entries.get_mut(slot as usize)?;
        entry.live.then_some((
            Key {
                slot,
                generation: entry.generation,
            },
            &mut entry.value,
        ))
    }

    /// Frees `key`'s slot. The value stays in place for its next user.
    ///
    /// # Panics
    /// When `key` is stale: freeing twice is our error.
    pub fn remove(&mut self, key: Key) {
        let entry = &mut self.entries[key.slot as usize];
        assert!(
            entry.live && entry.generation == key.generation,
            "freed twice"
        );
        entry.live = false;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        let rests = entry.generation.is_multiple_of(SHIFT);
        self.live -= 1;
        if rests {
            self.resting.push_back(key.slot);
        } else {
            self.free.push(key.slot);
        }
    }

    /// Live elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// `true` when nothing is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Elements that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bound - self.live
    }

    /// Slots there are, live or not.
    #[must_use]
    pub fn slots(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("slot numbers have 26 bits")
    }

    /// The key of the element in `slot`, if one lives there.
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        let entry = self.entries.get(slot as usize)?;
        let generation = entry.generation;
        entry.live.then_some(Key { slot, generation })
    }

    /// Octets of the slots themselves, taken or not; what values own besides is theirs to say.
    #[must_use]
    pub fn memory(&self) -> usize {
        // What lies beyond was never touched.
        self.entries.len() * size_of::<Entry<T>>()
            + (self.free.capacity() + self.resting.capacity()) * size_of::<u32>()
    }

    /// Keys of all live elements, in slot order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0u32..)
            .zip(self.entries.iter())
            .filter(|(_, entry)| entry.live)
            .map(|(slot, entry)| Key {
                slot,
                generation: entry.generation,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_is_refused_after_reuse() {
        let mut slab: Slab<u32> = Slab::new(1, 1);
        let (old, value) = slab.insert().unwrap();
        *value = 7;
        assert!(slab.insert().is_none(), "the bound holds");
        slab.remove(old);
        let (new, value) = slab.insert().unwrap();
        assert_eq!(*value, 7, "the slot keeps its value for reuse");
        assert_eq!(new.slot, old.slot);
        assert!(slab.lookup(old).is_none());
        assert!(slab.lookup(new).is_some());
    }

    #[test]
    fn values_stay_where_they_are_while_the_slab_grows_to_its_bound() {
        let mut slab: Slab<u64> = Slab::new(100_000, 10);
        let (first, _) = slab.insert().unwrap();
        let place = |slab: &Slab<u64>| core::ptr::from_ref(slab.lookup(first).unwrap()).addr();
        let before = place(&slab);
        let few = slab.memory();
        while slab.insert().is_some() {}
        assert_eq!(place(&slab), before);
        assert!(
            slab.memory() > 1000 * few,
            "and what is not used does not count"
        );
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn freeing_twice_is_caught() {
        let mut slab: Slab<u32> = Slab::new(2, 0);
        let (key, _) = slab.insert().unwrap();
        slab.remove(key);
        slab.remove(key);
    }

    #[test]
    fn the_slot_freed_last_is_used_next_until_it_rests() {
        let mut slab: Slab<u32> = Slab::new(2, 0);
        let (first, _) = slab.insert().unwrap();
        slab.remove(first);
        for generation in 1..SHIFT {
            let (key, _) = slab.insert().unwrap();
            assert_eq!((key.slot, key.generation), (first.slot, generation));
            slab.remove(key);
        }
        let (other, _) = slab.insert().unwrap();
        assert_ne!(other.slot, first.slot, "the first slot rests");
        let (again, _) = slab.insert().unwrap();
        assert_eq!((again.slot, again.generation), (first.slot, SHIFT));
        assert!(slab.insert().is_none());
    }
}
