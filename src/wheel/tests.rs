#![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

use std::collections::BTreeMap;

use super::*;
use crate::base::entropy::Jitter;

const TICK: Duration = Duration::from_millis(10);

fn millis(value: u64) -> Timestamp {
    Timestamp::from_millis(value)
}

/// What the wheel must do, said with a sorted map: key by deadline and serial number.
#[derive(Default)]
struct Oracle {
    by_key: BTreeMap<u64, (Timestamp, TimerId)>,
}

struct Trial {
    wheel: Wheel,
    oracle: Oracle,
    stale: Vec<TimerId>,
    dice: Jitter,
    now: Timestamp,
    polled: Timestamp,
    key: u64,
    tick: Duration,
}

impl Trial {
    fn new(seed: u64, tick: Duration) -> Self {
        let mut dice = Jitter::new(seed);
        let now = Timestamp::from_nanos(dice.below(1 << 40));
        Self {
            wheel: Wheel::new(tick, 300, now),
            oracle: Oracle::default(),
            stale: Vec::new(),
            dice,
            now,
            polled: now,
            key: 0,
            tick,
        }
    }

    fn pick_delay(&mut self, bits: u64) -> Duration {
        if self.dice.below(3) == 0 {
            // A few favourites, so that slots hold many timers.
            return Duration::from_secs(1 << (2 * self.dice.below(8)));
        }
        let bits = self.dice.below(bits);
        Duration::from_nanos(self.dice.below(1 << bits))
    }

    fn arm(&mut self) {
        let delay = self.pick_delay(58);
        let past = self.dice.below(8) == 0;
        let deadline = if past {
            self.now - delay
        } else {
            self.now + delay
        };
        self.key += 1;
        match self.wheel.arm(deadline, self.key) {
            Some(id) => {
                self.oracle.by_key.insert(self.key, (deadline, id));
            }
            None => assert_eq!(self.oracle.by_key.len(), 300, "refuses only when full"),
        }
    }

    fn pick_armed(&mut self) -> Option<(u64, TimerId)> {
        let nth = self.dice.below(self.oracle.by_key.len() as u64) as usize;
        let (key, (_, id)) = self.oracle.by_key.iter().nth(nth)?;
        Some((*key, *id))
    }

    fn disarm(&mut self) {
        if let Some((key, id)) = self.pick_armed() {
            assert!(self.wheel.disarm(id), "an armed timer can be disarmed");
            self.oracle.by_key.remove(&key);
            self.stale.push(id);
        }
    }

    fn rearm(&mut self) {
        let deadline = self.now + self.pick_delay(58);
        if let Some((key, id)) = self.pick_armed() {
            assert!(self.wheel.rearm(id, deadline));
            self.oracle.by_key.insert(key, (deadline, id));
        }
    }

    fn jump(&mut self) {
        let to_deadline = self.dice.below(2) == 0;
        let target = match self.wheel.next_deadline() {
            Some(deadline) if to_deadline => deadline.max(self.now),
            _ => self.now + self.pick_delay(51),
        };
        self.now = target;
        self.poll();
    }

    fn tick_of(&self, deadline: Timestamp) -> u64 {
        let origin = self.wheel.origin;
        let nanos = deadline.since(origin).as_nanos();
        nanos.div_ceil(self.tick.as_nanos()) as u64
    }

    fn poll(&mut self) {
        let mut last = 0;
        while let Some((id, key)) = self.wheel.pop_due(self.now) {
            let (deadline, expected) = self.oracle.by_key.remove(&key).expect("fires once");
            assert_eq!(id, expected);
            assert!(
                deadline <= self.now,
                "early: {deadline:?} at {:?}",
                self.now
            );
            let tick = self.tick_of(deadline).max(self.tick_of(self.polled));
            assert!(tick >= last, "out of order: {tick} after {last}");
            last = tick;
            self.stale.push(id);
        }
        self.polled = self.now;
        for (deadline, _) in self.oracle.by_key.values() {
            assert!(
                *deadline + self.tick > self.now,
                "late: {deadline:?} at {:?}",
                self.now
            );
        }
    }

    fn check(&mut self) {
        check_structure(&self.wheel);
        assert_eq!(self.wheel.len(), self.oracle.by_key.len());
        let earliest = self
            .oracle
            .by_key
            .values()
            .map(|(deadline, _)| *deadline)
            .min();
        match (earliest, self.wheel.next_deadline()) {
            (None, None) => {}
            (Some(earliest), Some(next)) => {
                assert!(
                    next < earliest.max(self.polled) + self.tick,
                    "next_deadline is late"
                );
            }
            (earliest, next) => panic!("{earliest:?} but {next:?}"),
        }
        if let Some(id) = self.stale.pop() {
            assert!(!self.wheel.disarm(id), "a stale id is refused");
            assert!(!self.wheel.rearm(id, self.now));
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.dice.below(10) {
                0..=3 => self.arm(),
                4 => self.disarm(),
                5 => self.rearm(),
                _ => self.jump(),
            }
            self.check();
        }
        while let Some(next) = self.wheel.next_deadline() {
            self.now = next.max(self.now);
            self.poll();
            self.check();
        }
        assert!(self.oracle.by_key.is_empty(), "everything fired in the end");
    }
}

/// Each node hangs in the slot its tick and level name, within reach, and is counted once.
fn check_structure(wheel: &Wheel) {
    let (mut live, mut dead) = (0, 0);
    for level in 0..LEVELS {
        for index in 0..SLOTS {
            let bucket = wheel.buckets[level][index];
            let bit = wheel.occupied[level][index / 64] >> (index % 64) & 1;
            assert_eq!(bit == 1, bucket.head != NIL, "the bit tells occupied slots");
            let (mut at, mut prev, mut count) = (bucket.head, NIL, 0);
            while at != NIL {
                let node = wheel.nodes[at as usize];
                let linked = if at == bucket.head {
                    head_mark(level, index)
                } else {
                    prev
                };
                assert_eq!(node.prev, linked);
                assert!(node.status() != FREE);
                live += usize::from(node.status() == LIVE);
                dead += usize::from(node.status() == DEAD);
                let block = wheel.current >> shift(level);
                let ahead = (index as u64).wrapping_sub(block) & SLOT_MASK;
                assert!(
                    ahead >= u64::from(level > 0),
                    "coarse slots are emptied in time"
                );
                let comes_up = (block + ahead) << shift(level);
                assert!(node.tick() >= comes_up, "its slot comes up in time");
                assert!(wheel.wake <= comes_up, "the owner is woken in time");
                (at, prev, count) = (node.next, at, count + 1);
            }
            assert!(count <= bucket.count, "a bound");
            assert_eq!(count == 0, bucket.count == 0);
        }
    }
    let mut at = wheel.dead;
    while at != NIL {
        let node = wheel.nodes[at as usize];
        assert_eq!(node.status(), DEAD);
        dead = dead.checked_sub(1).expect("each dead node is linked");
        at = halves(node.key).0;
    }
    assert_eq!((live, dead), (wheel.len(), 0));
}

// Proves: ST-17
#[test]
fn agrees_with_a_sorted_map_over_random_arms_disarms_and_jumps() {
    for seed in 0..60 {
        Trial::new(seed, TICK).run(600);
        Trial::new(seed, Duration::from_millis(1)).run(300);
        Trial::new(seed, Duration::from_nanos(7_654_321)).run(300);
    }
}

#[test]
fn a_timer_fires_once_and_its_id_is_stale_then() {
    let mut wheel = Wheel::new(TICK, 4, millis(5));
    let id = wheel.arm(millis(100), 7).unwrap();
    assert_eq!(wheel.pop_due(millis(99)), None);
    assert_eq!(wheel.pop_due(millis(110)), Some((id, 7)));
    assert_eq!(wheel.pop_due(millis(9_999_999)), None);
    assert!(!wheel.disarm(id));
    let reused = wheel.arm(millis(0), 8).unwrap();
    assert_eq!(reused.slot(), id.slot());
    assert!(!wheel.disarm(id), "the slot's new user is not hit");
    assert!(wheel.is_armed(reused));
    assert!(!wheel.disarm(TimerId::NONE));
}

#[test]
fn a_full_wheel_refuses_and_recovers() {
    let mut wheel = Wheel::new(TICK, 2, Timestamp::ZERO);
    let first = wheel.arm(millis(1), 1).unwrap();
    assert!(wheel.arm(millis(1), 2).is_some());
    assert!(wheel.arm(millis(1), 3).is_none());
    assert_eq!(wheel.room(), 0);
    assert!(wheel.disarm(first));
    assert!(wheel.arm(millis(1), 3).is_some());
}

#[test]
fn the_end_of_time_neither_fires_nor_overflows() {
    let mut wheel = Wheel::new(Duration::from_millis(1), 4, millis(1));
    let id = wheel.arm(Timestamp::NEVER, 1).unwrap();
    let decades = millis(1000 * 3600 * 24 * 365 * 40);
    assert_eq!(wheel.pop_due(decades), None);
    assert!(wheel.next_deadline().is_some_and(|next| next > decades));
    assert!(wheel.disarm(id));
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn each_tick_moves_a_bounded_number_of_timers() {
    const TIMERS: u64 = 100_000;
    // Worst cases: all in one tick, and spread evenly over 30 minutes.
    for spread_ms in [1, 1_800_000] {
        let mut wheel = Wheel::new(TICK, TIMERS as usize, Timestamp::ZERO);
        let mut dice = Jitter::new(spread_ms);
        for key in 0..TIMERS {
            let deadline = millis(1_500_000 + dice.below(spread_ms));
            wheel.arm(deadline, key).unwrap();
        }
        let (mut worst, mut fired, mut now) = (0, 0, Timestamp::ZERO);
        while let Some(next) = wheel.next_deadline() {
            now = next.max(now);
            let before = wheel.moved_total();
            while wheel.pop_due(now).is_some() {
                fired += 1;
            }
            worst = worst.max(wheel.moved_total() - before);
        }
        assert_eq!(fired, TIMERS);
        // Level 1 holds all timers of 256 ticks and has 256 ticks to hand them down.
        let inherent = TIMERS.div_ceil(256) + 2 * MOVES_PER_WAKE;
        assert!(
            worst <= inherent,
            "{worst} moves in one wake, {inherent} allowed"
        );
        assert!(wheel.moved_total() <= 2 * TIMERS, "each level is left once");
    }
}

#[test]
fn an_owner_that_sleeps_to_the_deadline_wakes_seldom() {
    let mut wheel = Wheel::new(TICK, 10, Timestamp::ZERO);
    for key in 0..10 {
        wheel.arm(millis(1_800_000 + key), key).unwrap();
    }
    let (mut wakes, mut now) = (0, Timestamp::ZERO);
    while let Some(next) = wheel.next_deadline() {
        now = next.max(now);
        while wheel.pop_due(now).is_some() {}
        wakes += 1;
    }
    assert!(wakes <= 5, "{wakes} wakes for one moment half an hour away");
}

#[test]
fn whose_turn_is_next_is_known_among_timers_of_one_moment() {
    let mut wheel = Wheel::new(TICK, 100, Timestamp::ZERO);
    assert_eq!(wheel.upcoming(), None);
    let ids: Vec<_> = (0..5)
        .map(|key| wheel.arm(millis(50), key).unwrap())
        .collect();
    wheel.arm(millis(900), 9).unwrap();
    let mut popped = 0;
    let mut said = None;
    while let Some((id, key)) = wheel.pop_due(millis(100)) {
        assert_eq!(id, ids[key as usize]);
        assert!(said.is_none_or(|said| said == key), "{said:?}, not {key}");
        said = wheel.upcoming();
        popped += 1;
        assert_eq!(said.is_some(), popped < 5, "after {popped}");
    }
    assert_eq!(popped, 5);
}
