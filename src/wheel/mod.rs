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
//! **Laziness.** At 10 M timers a cache miss is the price of everything, and the neighbours of a
//! timer are misses. So a timer that is moved to a later tick, the usual refresh, stays where it
//! hangs and is moved when its slot comes up; and a disarmed one stays there as well, dead, ready
//! to be used again in place by the next timer that is not due earlier. The dead count as room.
//!
//! What it does not do: it calls nobody, reads no clock and keeps no order inside one tick.

use core::time::Duration;

use crate::base::foresee;
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
const STATUS_SHIFT: usize = TICK_BITS;
const GENERATION_SHIFT: usize = STATUS_SHIFT + 2;
const GENERATION_MASK: u32 = (1 << (64 - GENERATION_SHIFT)) - 1;
/// Armed and linked.
const LIVE: u64 = 0;
/// Disarmed, still linked, and in the list of the dead.
const DEAD: u64 = 1;
/// Unlinked, in the free list.
const FREE: u64 = 2;
/// A `prev` from here on says: head of the slot with this number.
const HEAD: u32 = 1 << 31;
const NIL: u32 = u32::MAX;

const _: () = assert!(
    TICK_BITS == LEVEL_BITS * LEVELS + 1,
    "the top level must reach the last tick"
);
const _: () = assert!(
    TIMERS_MAX <= HEAD as usize,
    "a link is told from a head mark"
);
const _: () = assert!(size_of::<Node>() == 24, "10 M timers are 240 MB");

/// Names one armed timer; refused once the timer fired or was disarmed.
///
/// Generations have 21 bits: an id kept over exactly 2^21 reuses of its slot would be taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    /// Slot, and above it the generation: one word, so that it is handed over in a register. As two it went
    /// over the stack, and reading both at once waited there for every store before.
    packed: u64,
}

crate::fold_fields!(TimerId { packed });
crate::fold_blanks!(TimerId = TimerId::NONE);

impl TimerId {
    /// Names no timer; every wheel refuses it.
    pub const NONE: Self = Self::new(NIL, 0);

    const fn new(slot: u32, generation: u32) -> Self {
        Self {
            packed: (generation as u64) << 32 | slot as u64,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    const fn slot(self) -> u32 {
        self.packed as u32
    }

    const fn generation(self) -> u32 {
        (self.packed >> 32) as u32
    }
}

/// One timer. `state` packs tick (41 bits), status (2) and generation (21). A live node hangs in a
/// slot that comes up at its tick or earlier; the key of a dead one links the list of the dead.
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

    const fn status(&self) -> u64 {
        (self.state >> STATUS_SHIFT) & 3
    }

    const fn generation(&self) -> u32 {
        (self.state >> GENERATION_SHIFT) as u32
    }

    const fn set(&mut self, generation: u32, status: u64, tick: u64) {
        self.state = (generation as u64) << GENERATION_SHIFT | status << STATUS_SHIFT | tick;
    }
}

/// The list of one slot. `count` is exact or too high, and zero when the list is empty.
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
    /// The node that died last.
    dead: u32,
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
            dead: NIL,
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
        let tick = self.tick_of(deadline).max(self.current);
        if self.len == self.capacity {
            return None;
        }
        let slot = self.place(tick);
        let node = &mut self.nodes[slot as usize];
        let generation = node.generation();
        node.key = key;
        node.set(generation, LIVE, tick);
        self.len += 1;
        Some(TimerId::new(slot, generation))
    }

    /// Disarms `id`. `false` when it already fired or was disarmed.
    pub fn disarm(&mut self, id: TimerId) -> bool {
        if !self.is_armed(id) {
            return false;
        }
        self.bury(id.slot());
        self.len -= 1;
        true
    }

    /// Asks for the entry of `id`, which is going to be moved or disarmed.
    #[inline]
    pub fn foresee(&self, id: TimerId) {
        if let Some(node) = self.nodes.get(id.slot() as usize) {
            foresee::bring_whole(node);
        }
    }

    /// Moves an armed timer to another deadline; the id stays. `false` when `id` is stale.
    pub fn rearm(&mut self, id: TimerId, deadline: Timestamp) -> bool {
        if !self.is_armed(id) {
            return false;
        }
        let tick = self.tick_of(deadline).max(self.current);
        let node = &mut self.nodes[id.slot() as usize];
        let stays = tick >= node.tick();
        node.set(id.generation(), LIVE, tick);
        if !stays {
            self.unlink(id.slot());
            self.link(id.slot(), tick);
        }
        true
    }

    /// `true` while `id` waits to fire.
    #[must_use]
    pub fn is_armed(&self, id: TimerId) -> bool {
        self.nodes
            .get(id.slot() as usize)
            .is_some_and(|node| node.generation() == id.generation() && node.status() == LIVE)
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
                if let Some(fired) = self.fire(head) {
                    return Some(fired);
                }
                continue;
            }
            if self.current < target {
                self.advance(target);
            } else {
                self.wake = self.find_wake();
            }
        }
        None
    }

    /// The key of the timer that [`Wheel::pop_due`] is likely to give next, if it stands beside the one it gave
    /// last; asks for the one behind it.
    #[inline]
    #[must_use]
    pub fn upcoming(&self) -> Option<u64> {
        let head = self.buckets[0][slot_index(self.current)].head;
        let node = self.nodes.get(head as usize)?;
        if let Some(next) = self.nodes.get(node.next as usize) {
            foresee::bring_whole(next);
        }
        (node.status() == LIVE).then_some(node.key)
    }

    /// The tick up to which the timer was rounded that [`Wheel::pop_due`] gave last; for one that was armed
    /// too late, the one it was found at.
    #[must_use]
    pub fn reached(&self) -> Timestamp {
        self.time_of(self.current)
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

    /// Nodes that were ever used, armed or not; bounds [`Wheel::survey`].
    #[must_use]
    pub fn nodes(&self) -> u32 {
        u32::try_from(self.nodes.len()).expect("the capacity has 26 bits")
    }

    /// The armed timers among the nodes of `range`: key, and the moment that each is due at. For who
    /// inspects; no order.
    pub fn survey(&self, range: core::ops::Range<u32>) -> impl Iterator<Item = (u64, Timestamp)> {
        let end = (range.end as usize).min(self.nodes.len());
        let start = (range.start as usize).min(end);
        self.nodes[start..end]
            .iter()
            .filter(|node| node.status() == LIVE)
            .map(|node| (node.key, self.time_of(node.tick())))
    }

    /// Octets of memory in use; the pool's untouched part is none.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + size_of_val(&*self.buckets) + size_of::<Self>()
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

    /// A node that hangs where `tick` will find it: a dead one in place when it hangs early enough,
    /// else a free one, a new one, or a dead one moved.
    fn place(&mut self, tick: u64) -> u32 {
        let dead = self.dead;
        if dead != NIL && self.nodes[dead as usize].tick() <= tick {
            self.exhume(dead);
            return dead;
        }
        let slot = if self.free != NIL {
            let slot = self.free;
            self.free = self.nodes[slot as usize].next;
            slot
        } else if self.nodes.len() < self.capacity {
            let slot = u32::try_from(self.nodes.len()).expect("the capacity has 26 bits");
            self.nodes.push(Node {
                key: 0,
                state: 0,
                next: NIL,
                prev: NIL,
            });
            slot
        } else {
            assert!(dead != NIL, "the nodes are live, free or dead");
            self.exhume(dead);
            self.unlink(dead);
            dead
        };
        self.link(slot, tick);
        slot
    }

    /// Ends a node's life where it hangs.
    fn bury(&mut self, slot: u32) {
        let top = self.dead;
        let node = &mut self.nodes[slot as usize];
        let generation = (node.generation() + 1) & GENERATION_MASK;
        node.set(generation, DEAD, node.tick());
        node.key = u64::from(top) << 32 | u64::from(NIL);
        if top != NIL {
            let key = &mut self.nodes[top as usize].key;
            *key = *key >> 32 << 32 | u64::from(slot);
        }
        self.dead = slot;
    }

    /// Takes a node out of the list of the dead.
    fn exhume(&mut self, slot: u32) {
        let key = self.nodes[slot as usize].key;
        let (older, newer) = halves(key);
        if older != NIL {
            let key = &mut self.nodes[older as usize].key;
            *key = *key >> 32 << 32 | u64::from(newer);
        }
        if newer == NIL {
            self.dead = older;
        } else {
            let key = &mut self.nodes[newer as usize].key;
            *key = u64::from(older) << 32 | (*key & u64::from(NIL));
        }
    }

    /// Puts an unlinked node into the free list.
    fn release(&mut self, slot: u32, generation: u32) {
        let node = &mut self.nodes[slot as usize];
        node.set(generation, FREE, 0);
        node.next = self.free;
        self.free = slot;
    }

    /// Hangs a node into the slot of the lowest level that reaches `tick`.
    fn link(&mut self, slot: u32, tick: u64) {
        let mut level = 0;
        while (tick >> shift(level)) - (self.current >> shift(level)) > SLOT_MASK {
            level += 1;
        }
        let block = tick >> shift(level);
        let index = slot_index(block);
        // A coarse slot is opened one slot early.
        let opens = (block - u64::from(level > 0)) << shift(level);
        self.wake = self.wake.min(opens);
        let bucket = &mut self.buckets[level][index];
        let head = bucket.head;
        bucket.head = slot;
        bucket.count = bucket.count.saturating_add(1);
        if head == NIL {
            self.occupied[level][index / 64] |= 1 << (index % 64);
        } else {
            self.nodes[head as usize].prev = slot;
        }
        let node = &mut self.nodes[slot as usize];
        node.next = head;
        node.prev = head_mark(level, index);
    }

    fn unlink(&mut self, slot: u32) {
        let Node { next, prev, .. } = self.nodes[slot as usize];
        if next != NIL {
            self.nodes[next as usize].prev = prev;
        }
        if prev < HEAD {
            self.nodes[prev as usize].next = next;
            return;
        }
        let number = (prev - HEAD) as usize;
        let (level, index) = (number / SLOTS, number % SLOTS);
        let bucket = &mut self.buckets[level][index];
        assert!(bucket.head == slot, "the mark names the slot it heads");
        bucket.head = next;
        if next == NIL {
            bucket.count = 0;
            self.occupied[level][index / 64] &= !(1 << (index % 64));
        } else {
            bucket.count = bucket.count.saturating_sub(1).max(1);
        }
    }

    /// Takes the head of the current tick's slot: fires it, or moves or frees it when it is lazy.
    fn fire(&mut self, slot: u32) -> Option<(TimerId, u64)> {
        let node = self.nodes[slot as usize];
        if node.status() == DEAD || node.tick() > self.current {
            self.settle(slot);
            return None;
        }
        self.unlink(slot);
        let generation = node.generation();
        self.release(slot, (generation + 1) & GENERATION_MASK);
        self.len -= 1;
        Some((TimerId::new(slot, generation), node.key))
    }

    /// Moves a live node to where its tick belongs now; frees a dead one.
    fn settle(&mut self, slot: u32) {
        self.unlink(slot);
        let node = self.nodes[slot as usize];
        if node.status() == DEAD {
            self.exhume(slot);
            self.release(slot, node.generation());
        } else {
            self.link(slot, node.tick());
        }
        self.moved_total += 1;
    }

    /// Goes to the next tick at which something is due or must be moved, at most to `target`, and
    /// moves the share of each level that the passed ticks stand for.
    fn advance(&mut self, target: u64) {
        let from = self.current;
        let mut stop = target;
        let mut opened = 0_u8;
        if let Some(tick) = self.first_occupied(0, from + 1) {
            stop = stop.min(tick);
        }
        for level in 1..LEVELS {
            let block = from >> shift(level);
            if self.buckets[level][slot_index(block + 1)].count > 0 {
                opened |= 1 << level;
                stop = stop.min((block + 1) << shift(level));
            } else if let Some(found) = self.first_occupied(level, block + 2) {
                stop = stop.min((found - 1) << shift(level));
            }
        }
        assert!(stop > from, "time moves");
        self.current = stop;
        // Told before the first move: what moves down may reuse the index of a slot just passed.
        for level in (1..LEVELS).rev() {
            if opened >> level & 1 == 1 {
                self.unfold(level, from, stop);
            }
        }
    }

    /// Moves down from the slot of `level` that followed the one of tick `from`: the share of
    /// `stop - from` in the ticks that were left until that slot begins.
    fn unfold(&mut self, level: usize, from: u64, stop: u64) {
        let block = (from >> shift(level)) + 1;
        let index = slot_index(block);
        let count = u64::from(self.buckets[level][index].count);
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
        let mut moved = 0;
        // A count may be too high, and at the start of the slot nothing may stay.
        while moved < share || passed == left {
            let slot = self.buckets[level][index].head;
            if slot == NIL {
                return;
            }
            self.settle(slot);
            moved += 1;
        }
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

/// The `prev` of the first node of a slot.
#[expect(clippy::cast_possible_truncation, reason = "there are 2,560 slots")]
const fn head_mark(level: usize, index: usize) -> u32 {
    HEAD | (level * SLOTS + index) as u32
}

/// The links a dead node keeps in its key: the one that died before it and the one after.
#[expect(clippy::cast_possible_truncation, reason = "the halves of 64 bits")]
const fn halves(key: u64) -> (u32, u32) {
    ((key >> 32) as u32, key as u32)
}
