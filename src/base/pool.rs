//! Slots with generations whose idle values are folded: the population is large, the part of it that does
//! anything is not (layer 0).
//!
//! A [`Pool`] is used as a [`Slab`](crate::base::slab::Slab). Beside each slot it knows whether the value is
//! *warm*, as it is worked with, or *cold*: written as octets ([`fold`](crate::base::fold)), squeezed
//! ([`Squeezer`]) and kept in an [`Arena`]. Whoever asks for a cold value gets it warm.
//!
//! ```text
//! insert -> warm -- untouched for a round of tidy, and idle --> cold
//!            ^------------- lookup_mut -------------------------/
//! ```
//! [`Pool::tidy`] goes round the warm values, so many at a time, and folds those that nobody touched since
//! it came by last. A number of them stays warm in any case, so that a small population never folds, and
//! the places of folded ones are used again, the last one first, with their buffers.
//!
//! What it does not do: it reads no clock; when to tidy is the owner's to say.

use core::fmt::Debug;
use core::ops::Deref;

use crate::base::arena::{Arena, Place};
use crate::base::fold::{Reader, Writer};
use crate::base::foresee;
use crate::base::slab::{GENERATION_MASK, Key};
use crate::base::squeeze::{Squeezer, TEXT_BYTES_MAX};

/// What a pool holds.
pub trait Idle: Default + Debug {
    /// What making a value again needs besides what was written.
    type Keeper: Debug;

    /// Nothing is under way that [`Idle::fold`] does not write.
    fn is_idle(&self) -> bool;

    /// A few bits that can be asked of a cold value without making it again.
    fn cold_mark(&self) -> u8 {
        0
    }

    /// Writes the value.
    fn fold(&self, out: &mut Writer<'_>);

    /// Makes it again in a place that another value may have left.
    fn unfold(&mut self, keeper: &Self::Keeper, key: Key, from: &mut Reader<'_>);
}

/// Uses of a slot before it rests, see [`Slab`](crate::base::slab::Slab).
const SHIFT: u32 = 1 << 20;
/// Free warm places that keep their memory: bursts beyond give it back.
const FREE_WARM_MAX: usize = 2048;
const LIVE: u32 = 1 << 31;
const COLD: u32 = 1 << 30;
const _: () = assert!(
    GENERATION_MASK < COLD,
    "two bits are free beside a generation"
);

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Generation, [`LIVE`] and [`COLD`].
    state: u32,
    /// Index of the warm place, or place in the arena.
    place: u32,
}

impl Slot {
    const fn is_live(self) -> bool {
        self.state & LIVE != 0
    }

    const fn is_cold(self) -> bool {
        self.state & COLD != 0
    }

    const fn generation(self) -> u32 {
        self.state & GENERATION_MASK
    }
}

#[derive(Debug)]
struct Warm<T> {
    /// The slot whose value it is; `u32::MAX` for none.
    slot: u32,
    touched: bool,
    value: T,
}

const NOBODY: u32 = u32::MAX;
const STIRRED: u8 = 2;
const TAKEN: &str = "a warm place in use has its memory";

/// A value that is only read: a warm one itself, of a cold one a copy.
#[derive(Debug)]
pub enum Peek<'a, T> {
    /// In its place.
    Warm(&'a T),
    /// Made for this look.
    Cold(Box<T>),
}

impl<T> Deref for Peek<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Warm(value) => value,
            Self::Cold(value) => value,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pool<T: Idle> {
    slots: Vec<Slot>,
    /// Slots to be used, the next one last.
    free: Vec<u32>,
    /// Slots that rest, the longest first.
    resting: std::collections::VecDeque<u32>,
    live: usize,
    bound: usize,
    /// Each in an allocation of its own, so that one that is not needed any more can go.
    warm: Vec<Option<Box<Warm<T>>>>,
    /// Warm places without a value, the next one last.
    free_warm: Vec<u32>,
    /// Places whose memory was given back.
    empty_warm: Vec<u32>,
    cold: Arena,
    squeezer: Squeezer,
    keeper: T::Keeper,
    /// Warm values that are never folded, if there are no more.
    kept_warm: usize,
    /// Where [`Pool::tidy`] goes on.
    hand: u32,
    /// [`STIRRED`] when something was touched or folded since the hand was at the first place, one less in
    /// a round that has found nothing yet, 0 after one that found nothing.
    stirred: u8,
    scratch: [Vec<u8>; 2],
}

impl<T: Idle> Pool<T> {
    /// A pool for at most `bound` live values, with `warm` places made up front; `kept_warm` values are
    /// never folded.
    ///
    /// # Panics
    /// As [`Slab::new`](crate::base::slab::Slab::new).
    #[must_use]
    pub fn new(keeper: T::Keeper, bound: usize, warm: usize, kept_warm: usize) -> Self {
        assert!(bound > 0 && bound <= 1 << 26, "slot numbers have 26 bits");
        assert!(warm <= bound, "cannot warm more slots than the bound");
        let mut pool = Self {
            slots: Vec::with_capacity(warm),
            free: Vec::with_capacity(warm),
            resting: std::collections::VecDeque::new(),
            live: 0,
            bound,
            warm: Vec::new(),
            free_warm: Vec::with_capacity(warm),
            empty_warm: Vec::new(),
            cold: Arena::default(),
            squeezer: Squeezer::default(),
            keeper,
            kept_warm,
            hand: 0,
            stirred: 0,
            scratch: [Vec::new(), Vec::new()],
        };
        for _ in 0..warm {
            let (slot, place) = (pool.grow(), pool.grow_warm());
            pool.free.push(slot);
            pool.free_warm.push(place);
        }
        pool
    }

    fn grow(&mut self) -> u32 {
        let slot = u32::try_from(self.slots.len()).expect("the bound has 26 bits");
        self.slots.push(Slot { state: 0, place: 0 });
        slot
    }

    fn grow_warm(&mut self) -> u32 {
        let made = Some(Box::new(Warm {
            slot: NOBODY,
            touched: false,
            value: T::default(),
        }));
        if let Some(place) = self.empty_warm.pop() {
            self.warm[place as usize] = made;
            return place;
        }
        self.warm.push(made);
        u32::try_from(self.warm.len() - 1).expect("no more than slots")
    }

    #[inline]
    fn warm_at(&self, place: u32) -> &Warm<T> {
        self.warm[place as usize].as_ref().expect(TAKEN)
    }

    #[inline]
    fn warm_at_mut(&mut self, place: u32) -> &mut Warm<T> {
        self.stirred = STIRRED;
        let entry = self.warm[place as usize].as_mut().expect(TAKEN);
        entry.touched = true;
        entry
    }

    /// A warm place for `slot`.
    fn take_warm(&mut self, slot: u32) -> u32 {
        let place = match self.free_warm.pop() {
            Some(place) => place,
            None => self.grow_warm(),
        };
        self.warm_at_mut(place).slot = slot;
        place
    }

    /// The place at `place` has no value any more.
    fn leave_warm(&mut self, place: u32) {
        if self.free_warm.len() >= FREE_WARM_MAX {
            self.warm[place as usize] = None;
            self.empty_warm.push(place);
            return;
        }
        let entry = self.warm[place as usize].as_mut().expect(TAKEN);
        entry.slot = NOBODY;
        entry.touched = false;
        self.free_warm.push(place);
    }

    /// Takes a slot. The value is whatever some other user left: reset it.
    ///
    /// `None` when `bound` values are live.
    pub fn insert(&mut self) -> Option<(Key, &mut T)> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.bound => self.grow(),
            None => self.resting.pop_front()?,
        };
        self.live += 1;
        let place = self.take_warm(slot);
        let entry = &mut self.slots[slot as usize];
        assert!(!entry.is_live(), "a free slot is not live");
        entry.state |= LIVE;
        entry.place = place;
        let generation = entry.generation();
        Some((Key { slot, generation }, &mut self.warm_at_mut(place).value))
    }

    /// The value in `slot`, made when there is none yet: for owners whose slots are numbered elsewhere.
    /// A value that is made is a fresh one.
    pub fn place(&mut self, slot: u32) -> &mut T {
        while self.slots.len() <= slot as usize {
            self.grow();
        }
        let entry = self.slots[slot as usize];
        if let Some(key) = self.key_at(slot) {
            let place = if entry.is_cold() {
                self.unfold(key)
            } else {
                entry.place
            };
            return &mut self.warm_at_mut(place).value;
        }
        self.live += 1;
        let place = self.take_warm(slot);
        self.slots[slot as usize] = Slot {
            state: entry.generation() | LIVE,
            place,
        };
        let value = &mut self.warm_at_mut(place).value;
        *value = T::default();
        value
    }

    /// The value in `slot` if there is one and it is warm.
    #[must_use]
    pub fn warm_of(&self, slot: u32) -> Option<&T> {
        let entry = *self.slots.get(slot as usize)?;
        let is_warm = entry.is_live() && !entry.is_cold();
        is_warm.then(|| &self.warm_at(entry.place).value)
    }

    /// All warm values, in no order.
    pub fn warm_values(&mut self) -> impl Iterator<Item = &mut T> {
        let entries = self.warm.iter_mut().flatten();
        let taken = entries.filter(|entry| entry.slot != NOBODY);
        taken.map(|entry| &mut entry.value)
    }

    #[inline]
    fn slot_of(&self, key: Key) -> Option<Slot> {
        let slot = *self.slots.get(key.slot as usize)?;
        (slot.state & !COLD == key.generation | LIVE).then_some(slot)
    }

    /// The value of `key`, if it is still that one and warm.
    #[must_use]
    #[inline]
    pub fn lookup_warm(&self, key: Key) -> Option<&T> {
        let slot = self.slot_of(key).filter(|slot| !slot.is_cold())?;
        Some(&self.warm_at(slot.place).value)
    }

    /// Asks for the first `octets` of the value in `slot`, if it is warm: it is going to be looked up.
    #[inline]
    pub fn foresee(&self, slot: u32, octets: usize) {
        if let Some(value) = self.warm_of(slot) {
            foresee::bring(value, octets);
        }
    }

    /// The values that others left in the places that will be used next.
    pub fn left(&self) -> impl Iterator<Item = &T> {
        let places = self.free_warm.iter().rev();
        places.map(|&place| &self.warm_at(place).value)
    }

    /// `true` when the value of `key` is still that one, and cold.
    #[must_use]
    pub fn is_cold(&self, key: Key) -> bool {
        self.slot_of(key).is_some_and(Slot::is_cold)
    }

    /// The value of `key`, if it is still that one. One that is cold is made for this look, which costs an
    /// allocation.
    #[must_use]
    pub fn peek(&self, key: Key) -> Option<Peek<'_, T>> {
        let slot = self.slot_of(key)?;
        Some(self.look(key, slot))
    }

    fn look(&self, key: Key, slot: Slot) -> Peek<'_, T> {
        if !slot.is_cold() {
            return Peek::Warm(&self.warm_at(slot.place).value);
        }
        let mut value = Box::<T>::default();
        let mut plain = Vec::new();
        let text = self.cold.text(Place(slot.place));
        self.squeezer.expand(&text[1..], &mut plain);
        value.unfold(&self.keeper, key, &mut Reader::new(&plain));
        Peek::Cold(value)
    }

    /// The value of `key`, mutable and warm.
    #[inline]
    pub fn lookup_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slot_of(key)?;
        let place = if slot.is_cold() {
            self.unfold(key)
        } else {
            slot.place
        };
        Some(&mut self.warm_at_mut(place).value)
    }

    #[cold]
    fn unfold(&mut self, key: Key) -> u32 {
        let warm = self.take_warm(key.slot);
        let slot = &mut self.slots[key.slot as usize];
        let cold = Place(slot.place);
        slot.state &= !COLD;
        slot.place = warm;
        let mut plain = core::mem::take(&mut self.scratch[0]);
        self.squeezer.expand(&self.cold.text(cold)[1..], &mut plain);
        self.cold.free(cold);
        let entry = self.warm[warm as usize].as_mut().expect(TAKEN);
        let mut reader = Reader::new(&plain);
        entry.value.unfold(&self.keeper, key, &mut reader);
        assert!(reader.is_at_end(), "both directions list the same");
        self.scratch[0] = plain;
        warm
    }

    /// The bits of [`Idle::cold_mark`], warm or cold; `None` when nothing lives under `key`.
    #[must_use]
    pub fn mark(&self, key: Key) -> Option<u8> {
        let slot = self.slot_of(key)?;
        Some(if slot.is_cold() {
            self.cold.text(Place(slot.place))[0]
        } else {
            self.warm_at(slot.place).value.cold_mark()
        })
    }

    /// Most values that may live.
    #[must_use]
    pub const fn bound(&self) -> usize {
        self.bound
    }

    /// Makes room for `count` slots in all, within the bound.
    pub fn reserve(&mut self, count: usize) {
        let more = count.min(self.bound).saturating_sub(self.slots.len());
        self.slots.reserve_exact(more);
    }

    /// The live value in `slot`, whatever its generation.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<Peek<'_, T>> {
        self.peek(self.key_at(slot)?)
    }

    /// The live value in `slot` if it is warm, with its key.
    pub fn warm_in(&mut self, slot: u32) -> Option<(Key, &mut T)> {
        let key = self.key_at(slot)?;
        let slot = self.slots[slot as usize];
        (!slot.is_cold()).then(|| (key, &mut self.warm_at_mut(slot.place).value))
    }

    /// Frees `key`'s slot.
    ///
    /// # Panics
    /// When `key` is stale: freeing twice is our error.
    pub fn remove(&mut self, key: Key) {
        let slot = self.slot_of(key).expect("freed twice");
        if slot.is_cold() {
            self.cold.free(Place(slot.place));
        } else {
            self.leave_warm(slot.place);
        }
        let generation = (key.generation + 1) & GENERATION_MASK;
        self.slots[key.slot as usize].state = generation;
        self.live -= 1;
        if generation.is_multiple_of(SHIFT) {
            self.resting.push_back(key.slot);
        } else {
            self.free.push(key.slot);
        }
    }

    /// Looks at the next `most` warm places; folds at most `folds` that are idle and were not touched since
    /// the last look. How many it looked at: fewer than `most` when it folded all it may, or when it is not
    /// [untidy](Pool::is_untidy) any more.
    pub fn tidy(&mut self, most: usize, folds: usize) -> usize {
        let places = self.warm_places();
        let mut left = folds;
        for looked in 0..most.min(places) {
            if left == 0 || self.warm_len() <= self.kept_warm {
                return looked;
            }
            if self.hand as usize >= places {
                self.hand = 0;
                self.stirred = self.stirred.saturating_sub(1);
                if self.stirred == 0 {
                    return looked;
                }
            }
            let place = self.hand;
            self.hand += 1;
            let entry = self.warm[place as usize].as_mut();
            let Some(entry) = entry.filter(|entry| entry.slot != NOBODY) else {
                continue;
            };
            if core::mem::take(&mut entry.touched) {
                self.stirred = STIRRED;
            } else if entry.value.is_idle() && self.fold(place) {
                self.stirred = STIRRED;
                left -= 1;
            }
        }
        most.min(places)
    }

    /// Something may be there to fold: `false` once a round found nothing, until something is touched.
    #[must_use]
    #[inline]
    pub fn is_untidy(&self) -> bool {
        self.stirred > 0 && self.warm_len() > self.kept_warm
    }

    /// Writes the value at `place` into the arena; `false` when it is too long.
    fn fold(&mut self, place: u32) -> bool {
        let [mut plain, mut short] = core::mem::take(&mut self.scratch);
        plain.clear();
        short.clear();
        let entry = self.warm_at(place);
        let slot = entry.slot;
        entry.value.fold(&mut Writer::new(&mut plain));
        short.push(entry.value.cold_mark());
        let cold = (plain.len() <= TEXT_BYTES_MAX).then(|| {
            self.squeezer.squeeze(&plain, &mut short);
            self.cold.put(&short)
        });
        self.scratch = [plain, short];
        let Some(cold) = cold.flatten() else {
            return false;
        };
        let slot = &mut self.slots[slot as usize];
        slot.state |= COLD;
        slot.place = cold.0;
        self.leave_warm(place);
        true
    }

    /// Warm places, taken or not.
    #[must_use]
    pub fn warm_places(&self) -> usize {
        self.warm.len()
    }

    /// Values that are warm.
    #[must_use]
    #[inline]
    pub fn warm_len(&self) -> usize {
        self.live - self.cold.len()
    }

    /// Live values.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live
    }

    /// `true` when nothing is live.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Slots there are, live or not.
    #[must_use]
    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("slot numbers have 26 bits")
    }

    /// The key of the value in `slot`, if one lives there.
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        let entry = *self.slots.get(slot as usize)?;
        let generation = entry.generation();
        entry.is_live().then_some(Key { slot, generation })
    }

    /// Cold values, and the octets in which they lie.
    #[must_use]
    pub const fn cold(&self) -> (usize, usize) {
        (self.cold.len(), self.cold.taken())
    }

    /// Octets of slots, warm places and cold texts; what warm values own besides is theirs to say.
    #[must_use]
    pub fn memory(&self) -> usize {
        let warm = self.warm.len() - self.empty_warm.len();
        let lists = self.free.capacity()
            + self.resting.capacity()
            + self.free_warm.capacity()
            + self.empty_warm.capacity();
        self.slots.capacity() * size_of::<Slot>()
            + self.warm.capacity() * size_of::<Option<Box<Warm<T>>>>()
            + warm * size_of::<Warm<T>>()
            + lists * size_of::<u32>()
            + self.cold.memory()
            + self.squeezer.memory()
    }

    /// Keys of all live values, in slot order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..self.slots()).filter_map(|slot| self.key_at(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fold::Fold;

    #[derive(Debug, Default, PartialEq)]
    struct Thing {
        busy: bool,
        text: Vec<u8>,
        number: u64,
    }

    impl Idle for Thing {
        type Keeper = u64;

        fn is_idle(&self) -> bool {
            !self.busy
        }

        fn cold_mark(&self) -> u8 {
            self.text.len().to_le_bytes()[0]
        }

        fn fold(&self, out: &mut Writer<'_>) {
            self.text.fold(out);
        }

        fn unfold(&mut self, keeper: &u64, key: Key, from: &mut Reader<'_>) {
            self.busy = false;
            self.text.unfold(from);
            self.number = keeper + u64::from(key.slot);
        }
    }

    fn fill(pool: &mut Pool<Thing>, count: u32) -> Vec<Key> {
        let mut keys = Vec::new();
        for number in 0..count {
            let (key, thing) = pool.insert().unwrap();
            thing.busy = number % 10 == 0;
            thing.text = format!("sip:user{number:07}@home.example").into_bytes();
            thing.number = 1000 + u64::from(key.slot);
            keys.push(key);
        }
        keys
    }

    fn settle(pool: &mut Pool<Thing>) {
        settle_by(pool, (64, 16));
    }

    fn settle_by(pool: &mut Pool<Thing>, (most, folds): (usize, usize)) {
        for _ in 0..10_000 {
            pool.tidy(most, folds);
            if !pool.is_untidy() {
                return;
            }
        }
        panic!("tidying never ends");
    }

    #[test]
    fn nothing_idle_is_left_warm_however_small_the_steps() {
        for step in [(1, 1), (7, 1), (64, 3), (3000, 3000)] {
            let mut pool: Pool<Thing> = Pool::new(0, 1000, 0, 0);
            fill(&mut pool, 1000);
            settle_by(&mut pool, step);
            assert_eq!(pool.warm_len(), 100, "every tenth is busy, {step:?}");
        }
    }

    #[test]
    fn idle_values_fold_busy_ones_stay_and_all_come_back() {
        let mut pool: Pool<Thing> = Pool::new(1000, 4000, 10, 100);
        let keys = fill(&mut pool, 2000);
        settle(&mut pool);
        assert_eq!(pool.warm_len(), 200, "every tenth is busy");
        assert!(!pool.is_untidy(), "nothing was touched");
        for (number, &key) in keys.iter().enumerate() {
            let text = format!("sip:user{number:07}@home.example").into_bytes();
            assert_eq!(pool.mark(key), Some(text.len().to_le_bytes()[0]));
            assert_eq!(pool.peek(key).unwrap().text, text);
            let thing = pool.lookup_mut(key).unwrap();
            let made = (&thing.text, thing.number);
            assert_eq!(made, (&text, 1000 + u64::from(key.slot)));
        }
        assert_eq!(pool.warm_len(), 2000);
        settle(&mut pool);
        for &key in &keys {
            pool.remove(key);
            assert!(pool.peek(key).is_none() && pool.lookup_mut(key).is_none());
        }
        assert_eq!((pool.len(), pool.warm_len()), (0, 0));
    }

    #[test]
    fn what_is_touched_stays_warm_for_a_round() {
        let mut pool: Pool<Thing> = Pool::new(0, 300, 0, 0);
        let keys = fill(&mut pool, 300);
        while pool.is_untidy() {
            assert_eq!(pool.tidy(300, 300), 300);
            pool.lookup_mut(keys[7]).unwrap();
            if pool.warm_len() == 31 {
                break;
            }
        }
        assert!(pool.lookup_warm(keys[7]).is_some());
        assert!(pool.lookup_warm(keys[8]).is_none());
    }

    #[test]
    fn few_values_are_never_folded() {
        let mut pool: Pool<Thing> = Pool::new(0, 300, 0, 100);
        let keys = fill(&mut pool, 100);
        settle(&mut pool);
        assert!(keys.iter().all(|&key| pool.lookup_warm(key).is_some()));
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn freeing_twice_is_caught() {
        let mut pool: Pool<Thing> = Pool::new(0, 3, 0, 0);
        let (key, _) = pool.insert().unwrap();
        pool.remove(key);
        pool.remove(key);
    }
}
