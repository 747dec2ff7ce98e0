//! Hierarchical timer wheel: O(1) arm and disarm, no burst when a coarse level is unfolded.
//!
//! Layer 0. Five levels of 512 slots; a slot of level `n` spans 256^n ticks, so that level 0 holds
//! the next 512 ticks exactly and the top level reaches past the end of [`Timestamp`]. Timers are
//! nodes of one bounded pool, 24 octets each, linked by `u32` indices.
//!
//! ```text
//! level   slot spans      reaches (10 ms ticks)
//! 0       1 tick          5 s
//! 1       256 ticks       22 min
//! 2       65,536 ticks    93 h
//! 3       2^24 ticks      2.7 years
//! 4       2^32 ticks      697 years
//! ```
//!
//! **Cascading.** A level has twice as many slots as the slot above it spans. So the slot after
//! the current one fits whole into the level below and is moved down *while the current one
//! passes*, a share per tick, instead of all at once at its start. New timers go to the lowest
//! level that reaches them, so that the slot being emptied only shrinks. A timer is moved at most
//! once per level.
//!
//! What it does not do: it calls nobody, reads no clock and keeps no order inside one tick.

use core::time::Duration;

use crate::base::time::Timestamp;

#[cfg(test)]
mod tests;

/// The default tick: fine enough for SIP transactions.
pub const DEFAULT_TICK: Duration = Duration::from_millis(10);
/// The finest tick: 2^41 of them are 69 years.
pub const TICK_MIN: Duration = Duration::from_millis(1);
/// Most timers of one wheel.
pub const TIMERS_MAX: usize = 1 << 26;

const LEVELS: usize = 5;
const LEVEL_BITS: usize = 8;
const SLOTS: usize = 2 << LEVEL_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
const WORDS: usize = SLOTS / 64;
/// A wake-up moves about this many timers of one level at most, if the owner comes in time.
const MOVES_PER_WAKE: u64 = 64;

const TICK_BITS: usize = 41;
const TICK_MAX: u64 = (1 << TICK_BITS) - 1;
const LEVEL_SHIFT: usize = TICK_BITS;
const GENERATION_SHIFT: usize = LEVEL_SHIFT + 3;
const GENERATION_MASK: u32 = (1 << (64 - GENERATION_SHIFT)) - 1;
const FREE: usize = 7;
const NIL: u32 = u32::MAX;

const _: () = assert!(
    TICK_BITS == LEVEL_BITS * LEVELS + 1,
    "the top level must reach the last tick"
);
const _: () = assert!(LEVELS <= FREE, "a level and the free mark fit three bits");
const _: () = assert!(size_of::<Node>() == 24, "10 M timers are 240 MB");

/// Names one armed timer; refused once the timer fired or was disarmed.
///
/// Generations have 20 bits: an id kept over exactly 2^20 reuses of its slot would be taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

impl TimerId {
    /// Names no timer; every wheel refuses it.
    pub const NONE: Self = Self {
        slot: NIL,
        generation: 0,
    };
}

/// One timer. `state` packs tick (41 bits), level (3) and generation (20).
#[derive(Clone, Copy, Debug)]
struct Node {
    key: u64,
    state: u64,
    next: u32,
    prev: u32,
}

impl Node {
    const fn tick(&self) -> u64 {
        self.state & TICK_MAX
    }

    const fn level(&self) -> usize {
        ((self.state >> LEVEL_SHIFT) & 7) as usize
    }

    const fn generation(&self) -> u32 {
        (self.state >> GENERATION_SHIFT) as u32
    }

    const fn place(&mut self, level: usize, tick: u64) {
        self.state =
            (self.generation() as u64) << GENERATION_SHIFT | (level as u64) << LEVEL_SHIFT | tick;
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    head: u32,
    count: u32,
}

/// The wheel. Owner: one shard; `pop_due` is called until `None` in every turn.
///
/// Ticks count from `now` of [`Wheel::new`]. A deadline is rounded up to a tick, so that a timer is
/// never early and at most one tick late. A deadline 2^41 - 1 or more ticks after that origin (69
/// years at the finest tick) never fires; [`Timestamp::NEVER`] is such a deadline.
#[derive(Debug)]
pub struct Wheel {
    tick: u64,
    origin: Timestamp,
    /// Every timer of an earlier tick has fired.
    current: u64,
    /// Nothing is due and nothing must be moved before this tick.
    wake: u64,
    nodes: Vec<Node>,
    free: u32,
    capacity: usize,
    len: usize,
    moved_total: u64,
    buckets: Box<[[Bucket; SLOTS]; LEVELS]>,
    occupied: [[u64; WORDS]; LEVELS],
}

impl Wheel {
    /// An empty wheel for at most `capacity` timers. Reserves 24 octets of address space per timer;
    /// memory is touched as timers are armed.
    ///
    /// # Panics
    /// When `tick` is below [`TICK_MIN`], or `capacity` is zero or above [`TIMERS_MAX`].
    #[must_use]
    pub fn new(tick: Duration, capacity: usize, now: Timestamp) -> Self {
        assert!(
            tick >= TICK_MIN,
            "a finer tick would bring the last one near"
        );
        let tick = u64::try_from(tick.as_nanos()).expect("a tick is far below 584 years");
        assert!(capacity > 0, "a wheel without room carries nothing");
        assert!(capacity <= TIMERS_MAX, "links are u32 with a sentinel");
        let empty = Bucket {
            head: NIL,
            count: 0,
        };
        Self {
            tick,
            origin: now,
            current: 0,
            wake: TICK_MAX,
            nodes: Vec::with_capacity(capacity),
            free: NIL,
            capacity,
            len: 0,
            moved_total: 0,
            buckets: Box::new([[empty; SLOTS]; LEVELS]),
            occupied: [[0; WORDS]; LEVELS],
        }
    }

    /// Arms a timer that yields `key` once, at `deadline` or up to a tick later; a deadline in the
    /// past is due at once. `None` when `capacity` timers are armed.
    pub fn arm(&mut self, deadline: Timestamp, key: u64) -> Option<TimerId> {
        let slot = self.allocate(key)?;
        self.link(slot, self.tick_of(deadline));
        Some(TimerId {
            slot,
            generation: self.nodes[slot as usize].generation(),
        })
    }

    /// Disarms `id`. `false` when it already fired or was disarmed.
    pub fn disarm(&mut self, id: TimerId) -> bool {
        if !self.is_armed(id) {
            return false;
        }
        self.unlink(id.slot);
        self.release(id.slot);
        true
    }

    /// Moves an armed timer to another deadline; the id stays. `false` when `id` is stale.
    pub fn rearm(&mut self, id: TimerId, deadline: Timestamp) -> bool {
        if !self.is_armed(id) {
            return false;
        }
        self.unlink(id.slot);
        self.link(id.slot, self.tick_of(deadline));
        true
    }

    /// `true` while `id` waits to fire.
    #[must_use]
    pub fn is_armed(&self, id: TimerId) -> bool {
        self.nodes
            .get(id.slot as usize)
            .is_some_and(|node| node.generation() == id.generation && node.level() != FREE)
    }

    /// Takes one timer that is due at `now`, in the order of ticks; call until `None`.
    ///
    /// Each call also moves on the cascade. An owner that comes by [`Wheel::next_deadline`] pays
    /// about 64 moves per level and wake, or the inherent rate of timers per tick when that is
    /// higher; after a jump past that deadline the backlog is moved at once.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<(TimerId, u64)> {
        let passed = now.as_nanos().saturating_sub(self.origin.as_nanos());
        let target = (passed / self.tick).min(TICK_MAX - 1);
        while self.wake <= target {
            let head = self.buckets[0][slot_index(self.current)].head;
            if head != NIL {
                return Some(self.fire(head));
            }
            if self.current < target {
                self.advance(target);
            } else {
                self.wake = self.find_wake();
            }
        }
        None
    }

    /// When to call [`Wheel::pop_due`] next; never later than the next timer, earlier when timers
    /// must be moved. `None` when nothing is armed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        (self.len > 0).then(|| self.time_of(self.wake))
    }

    /// Armed timers.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// `true` when nothing is armed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Timers that can still be armed.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.capacity - self.len
    }

    /// How often a timer was moved to a finer level since the start; for metrics and tests.
    #[must_use]
    pub const fn moved_total(&self) -> u64 {
        self.moved_total
    }

    /// The first tick at or after `deadline`.
    fn tick_of(&self, deadline: Timestamp) -> u64 {
        let nanos = deadline.as_nanos().saturating_sub(self.origin.as_nanos());
        nanos.div_ceil(self.tick).min(TICK_MAX)
    }

    fn time_of(&self, tick: u64) -> Timestamp {
        let nanos = tick.saturating_mul(self.tick);
        Timestamp::from_nanos(self.origin.as_nanos().saturating_add(nanos))
    }

    fn allocate(&mut self, key: u64) -> Option<u32> {
        let slot = if self.free != NIL {
            let slot = self.free;
            let node = &mut self.nodes[slot as usize];
            self.free = node.next;
            node.key = key;
            slot
        } else if self.nodes.len() < self.capacity {
            let slot = u32::try_from(self.nodes.len()).expect("the capacity has 26 bits");
            self.nodes.push(Node {
                key,
                state: (FREE as u64) << LEVEL_SHIFT,
                next: NIL,
                prev: NIL,
            });
            slot
        } else {
            return None;
        };
        self.len += 1;
        Some(slot)
    }

    fn release(&mut self, slot: u32) {
        let node = &mut self.nodes[slot as usize];
        let generation = (node.generation() + 1) & GENERATION_MASK;
        node.state = u64::from(generation) << GENERATION_SHIFT | (FREE as u64) << LEVEL_SHIFT;
        node.next = self.free;
        self.free = slot;
        self.len -= 1;
    }

    /// Puts a node into the slot of the lowest level that reaches `tick`.
    fn link(&mut self, slot: u32, tick: u64) {
        let tick = tick.max(self.current);
        let mut level = 0;
        while (tick >> shift(level)) - (self.current >> shift(level)) > SLOT_MASK {
            level += 1;
        }
        let block = tick >> shift(level);
        let index = slot_index(block);
        // A coarse slot is opened one slot early.
        self.wake = self
            .wake
            .min((block - u64::from(level > 0)) << shift(level));
        let bucket = &mut self.buckets[level][index];
        let head = bucket.head;
        bucket.head = slot;
        bucket.count += 1;
        if head == NIL {
            self.occupied[level][index / 64] |= 1 << (index % 64);
        } else {
            self.nodes[head as usize].prev = slot;
        }
        let node = &mut self.nodes[slot as usize];
        node.place(level, tick);
        node.next = head;
        node.prev = NIL;
    }

    fn unlink(&mut self, slot: u32) {
        let node = self.nodes[slot as usize];
        let level = node.level();
        let index = slot_index(node.tick() >> shift(level));
        let bucket = &mut self.buckets[level][index];
        bucket.count -= 1;
        if node.prev == NIL {
            assert!(
                bucket.head == slot,
                "a node without predecessor is the head"
            );
            bucket.head = node.next;
            if node.next == NIL {
                self.occupied[level][index / 64] &= !(1 << (index % 64));
            }
        } else {
            self.nodes[node.prev as usize].next = node.next;
        }
        if node.next != NIL {
            self.nodes[node.next as usize].prev = node.prev;
        }
    }

    fn fire(&mut self, slot: u32) -> (TimerId, u64) {
        let node = self.nodes[slot as usize];
        let id = TimerId {
            slot,
            generation: node.generation(),
        };
        self.unlink(slot);
        self.release(slot);
        (id, node.key)
    }

    /// Goes to the next tick at which something is due or must be moved, at most to `target`, and
    /// moves the share of each level that the passed ticks stand for.
    fn advance(&mut self, target: u64) {
        let from = self.current;
        let mut stop = target;
        if let Some(tick) = self.first_occupied(0, from + 1) {
            stop = stop.min(tick);
        }
        for level in 1..LEVELS {
            let block = from >> shift(level);
            if self.buckets[level][slot_index(block + 1)].count > 0 {
                stop = stop.min((block + 1) << shift(level));
            } else if let Some(found) = self.first_occupied(level, block + 2) {
                stop = stop.min((found - 1) << shift(level));
            }
        }
        assert!(stop > from, "time moves");
        self.current = stop;
        for level in (1..LEVELS).rev() {
            self.unfold(level, from, stop);
        }
    }

    /// Moves down from the slot of `level` that followed the one of tick `from`: the share of
    /// `stop - from` in the ticks that were left until that slot begins.
    fn unfold(&mut self, level: usize, from: u64, stop: u64) {
        let block = (from >> shift(level)) + 1;
        let index = slot_index(block);
        let count = u64::from(self.buckets[level][index].count);
        if count == 0 {
            return;
        }
        let left = (block << shift(level)) - from;
        let passed = stop - from;
        assert!(passed <= left, "stops at the start of an occupied slot");
        let share = if passed == left {
            count
        } else {
            (u128::from(count) * u128::from(passed))
                .div_ceil(left.into())
                .try_into()
                .expect("below count")
        };
        for _ in 0..share {
            let slot = self.buckets[level][index].head;
            self.unlink(slot);
            self.link(slot, self.nodes[slot as usize].tick());
            debug_assert!(self.nodes[slot as usize].level() < level, "moves go down");
        }
        self.moved_total += share;
    }

    /// The next tick at which something is due or must be moved; later than `current` when nothing
    /// is due.
    fn find_wake(&self) -> u64 {
        let due = self.first_occupied(0, self.current).unwrap_or(TICK_MAX);
        (1..LEVELS).fold(due, |wake, level| wake.min(self.wake_of(level)))
    }

    /// The tick by which the owner must come back on behalf of `level` (not 0).
    fn wake_of(&self, level: usize) -> u64 {
        let block = self.current >> shift(level);
        let next = self.buckets[level][slot_index(block + 1)].count;
        if next > 0 {
            let start = (block + 1) << shift(level);
            let left = start - self.current;
            let step = left * MOVES_PER_WAKE / u64::from(next);
            return self.current + step.clamp(1, left);
        }
        match self.first_occupied(level, block + 2) {
            None => TICK_MAX,
            Some(found) => {
                let count = u64::from(self.buckets[level][slot_index(found)].count);
                let opens = if count > MOVES_PER_WAKE {
                    found - 1
                } else {
                    found
                };
                opens << shift(level)
            }
        }
    }

    /// The first occupied slot of `level` at or after absolute slot number `from`, within the
    /// level's reach.
    fn first_occupied(&self, level: usize, from: u64) -> Option<u64> {
        let words = &self.occupied[level];
        let start = slot_index(from);
        let (first, bit) = (start / 64, start % 64);
        let here = words[first] >> bit;
        if here != 0 {
            return Some(from + u64::from(here.trailing_zeros()));
        }
        for step in 1..=WORDS {
            let word = words[(first + step) % WORDS];
            if word != 0 {
                let distance = 64 * step - bit + word.trailing_zeros() as usize;
                return Some(from + distance as u64);
            }
        }
        None
    }
}

const fn shift(level: usize) -> usize {
    LEVEL_BITS * level
}

const fn slot_index(number: u64) -> usize {
    (number & SLOT_MASK) as usize
}
