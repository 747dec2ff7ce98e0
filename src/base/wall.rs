//! The wall clock as the core believes it (layer 0).
//!
//! Messages live by the wall clock, so a clock that jumps ahead by mistake would end all of their lives
//! at once, and tell every sender so. A reading that is not where the monotonic clock says it should be
//! is therefore doubted: lives are counted on as if nothing had happened, and only a clock that stays
//! where it jumped for [`ClockOptions::hold`] is believed. A clock that was set right by then, or that
//! comes back, costs nothing. Meanwhile a message that is taken in counts its life from the later of
//! both, so that it does not end early whichever was right.
//!
//! *Absent:* reading a clock; what is done about lives that ended.

use core::time::Duration;

use crate::base::time::{Timestamp, UnixMillis};

/// When a wall clock is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOptions {
    /// Largest step, ahead or back, that is taken at once. Default: 60 s.
    pub jump_max: Duration,
    /// Longest time between the newest record of the store and a start that is taken for real at once.
    /// Default: one day.
    pub absence_max: Duration,
    /// How long a clock must stay where it jumped until it is believed. Default: 15 minutes.
    pub hold: Duration,
}

impl Default for ClockOptions {
    fn default() -> Self {
        Self {
            jump_max: Duration::from_secs(60),
            absence_max: Duration::from_secs(86_400),
            hold: Duration::from_secs(900),
        }
    }
}

/// What a reading was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It is where it should be.
    Steady,
    /// It jumped just now and is not believed.
    Jumped,
    /// It is where it jumped, and still not believed.
    Doubted,
    /// It stayed there for so long that it is believed from now on.
    Believed,
}

/// A jump that is not believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    since: Timestamp,
    /// The last reading, and when that was.
    read: UnixMillis,
    at: Timestamp,
}

/// A wall clock that does not jump. Owner: the shard; the driver hands it a reading about once a second.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    options: ClockOptions,
    base: UnixMillis,
    at: Timestamp,
    doubt: Option<Doubt>,
}

impl WallClock {
    /// A clock that reads `wall` at `now` and is believed.
    #[must_use]
    pub const fn new(options: ClockOptions, wall: UnixMillis, now: Timestamp) -> Self {
        Self {
            options,
            base: wall,
            at: now,
            doubt: None,
        }
    }

    /// The time that lives are counted by.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> UnixMillis {
        later(self.base, now.since(self.at))
    }

    /// The time from which a new life is counted: never earlier than either clock.
    #[must_use]
    pub fn intake(&self, now: Timestamp) -> UnixMillis {
        let held = self.at(now);
        self.doubt.map_or(held, |doubt| {
            held.max(later(doubt.read, now.since(doubt.at)))
        })
    }

    /// The monotonic moment of a wall time; never earlier than the last reading that was believed.
    #[must_use]
    pub fn moment_of(&self, wall_s: u64) -> Timestamp {
        let ahead = UnixMillis::from_secs(wall_s).0.saturating_sub(self.base.0);
        self.at + Duration::from_millis(ahead)
    }

    /// Takes a reading.
    pub fn read(&mut self, now: Timestamp, wall: UnixMillis) -> Reading {
        let held = self.at(now);
        if is_near(held, wall, self.options.jump_max) {
            self.base = wall;
            self.at = now;
            self.doubt = None;
            return Reading::Steady;
        }
        let same = self.doubt.filter(|doubt| {
            let expected = later(doubt.read, now.since(doubt.at));
            is_near(expected, wall, self.options.jump_max)
        });
        let since = same.map_or(now, |doubt| doubt.since);
        if now.since(since) >= self.options.hold {
            *self = Self::new(self.options, wall, now);
            return Reading::Believed;
        }
        self.doubt = Some(Doubt {
            since,
            read: wall,
            at: now,
        });
        if same.is_some() {
            Reading::Doubted
        } else {
            Reading::Jumped
        }
    }

    /// After recovery, whose newest record is of `newest`: doubts a clock that says that the process was
    /// away for very long. One that is behind the record is taken: nothing ends early by it. True when
    /// it is doubted.
    pub fn compare(&mut self, now: Timestamp, newest: UnixMillis) -> bool {
        let wall = self.at(now);
        let late = later(newest, self.options.absence_max) < wall;
        if newest.0 == 0 || self.options.hold.is_zero() || !late {
            return false;
        }
        self.base = newest;
        self.at = now;
        self.doubt = Some(Doubt {
            since: now,
            read: wall,
            at: now,
        });
        true
    }
}

fn later(wall: UnixMillis, by: Duration) -> UnixMillis {
    let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(wall.0.saturating_add(millis))
}

fn is_near(one: UnixMillis, other: UnixMillis, most: Duration) -> bool {
    u128::from(one.0.abs_diff(other.0)) <= most.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixMillis = UnixMillis(1_800_000_000_000);
    const YEAR_S: u64 = 365 * 86_400;

    fn clock() -> WallClock {
        WallClock::new(ClockOptions::default(), NOON, Timestamp::ZERO)
    }

    fn after(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn small_steps_are_taken_at_once() {
        let mut clock = clock();
        assert_eq!(clock.read(after(10), NOON.plus_secs(69)), Reading::Steady);
        assert_eq!(clock.at(after(11)), NOON.plus_secs(70));
        assert_eq!(clock.read(after(12), NOON.plus_secs(12)), Reading::Steady);
        assert_eq!(clock.at(after(12)), NOON.plus_secs(12));
    }

    #[test]
    fn a_jump_that_comes_back_changes_nothing() {
        for jumped in [NOON.plus_secs(YEAR_S), UnixMillis(1)] {
            let mut clock = clock();
            assert_eq!(clock.read(after(1), jumped), Reading::Jumped);
            for second in 2..800 {
                let read = clock.read(after(second), jumped.plus_secs(second - 1));
                assert_eq!(read, Reading::Doubted);
                assert_eq!(clock.at(after(second)), NOON.plus_secs(second));
            }
            let read = clock.read(after(800), NOON.plus_secs(800));
            assert_eq!(read, Reading::Steady);
            // And the next jump is held for the whole time again.
            assert_eq!(clock.read(after(801), jumped), Reading::Jumped);
            assert_eq!(clock.read(after(1600), jumped), Reading::Jumped);
        }
    }

    #[test]
    fn a_clock_that_stays_where_it_jumped_is_believed_in_the_end() {
        let mut clock = clock();
        let jumped = NOON.plus_secs(YEAR_S);
        assert_eq!(clock.read(after(0), jumped), Reading::Jumped);
        assert_eq!(
            clock.read(after(899), jumped.plus_secs(899)),
            Reading::Doubted
        );
        assert_eq!(
            clock.read(after(900), jumped.plus_secs(900)),
            Reading::Believed
        );
        assert_eq!(clock.at(after(901)), jumped.plus_secs(901));
        assert_eq!(
            clock.read(after(902), jumped.plus_secs(902)),
            Reading::Steady
        );
    }

    #[test]
    fn a_clock_that_jumps_about_is_never_believed() {
        let mut clock = clock();
        for second in 1..5000 {
            let read = clock.read(after(second), NOON.plus_secs(YEAR_S * (1 + second % 7)));
            assert_ne!(read, Reading::Believed);
            assert_eq!(clock.at(after(second)), NOON.plus_secs(second));
        }
    }

    #[test]
    fn a_new_life_is_counted_from_the_later_clock() {
        let mut ahead = clock();
        ahead.read(after(1), NOON.plus_secs(YEAR_S));
        assert_eq!(ahead.intake(after(2)), NOON.plus_secs(YEAR_S + 1));
        let mut back = clock();
        back.read(after(1), UnixMillis(5));
        assert_eq!(back.intake(after(2)), NOON.plus_secs(2));
    }

    #[test]
    fn a_start_long_after_the_newest_record_is_doubted() {
        let mut late = clock();
        assert!(late.compare(Timestamp::ZERO, UnixMillis(NOON.0 - 2 * 86_400_000)));
        assert_eq!(
            late.at(Timestamp::ZERO),
            UnixMillis(NOON.0 - 2 * 86_400_000)
        );
        assert_eq!(late.intake(Timestamp::ZERO), NOON);
        assert_eq!(late.read(after(1), NOON.plus_secs(1)), Reading::Doubted);
        assert_eq!(
            late.read(after(900), NOON.plus_secs(900)),
            Reading::Believed
        );
        for newest in [
            NOON.plus_secs(YEAR_S),
            UnixMillis(NOON.0 - 80_000_000),
            UnixMillis(0),
        ] {
            let mut fine = clock();
            assert!(!fine.compare(Timestamp::ZERO, newest));
            assert_eq!(fine.at(Timestamp::ZERO), NOON);
        }
    }

    #[test]
    fn without_a_hold_every_reading_is_taken() {
        let options = ClockOptions {
            hold: Duration::ZERO,
            ..ClockOptions::default()
        };
        let mut clock = WallClock::new(options, NOON, Timestamp::ZERO);
        assert!(!clock.compare(Timestamp::ZERO, UnixMillis(1)));
        let jumped = NOON.plus_secs(YEAR_S);
        assert_eq!(clock.read(after(1), jumped), Reading::Believed);
        assert_eq!(clock.at(after(1)), jumped);
    }
}
