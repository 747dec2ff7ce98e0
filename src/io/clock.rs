//! The two clocks a driver reads: monotonic once a turn, wall about once a second.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::base::time::{Timestamp, UnixMillis};

/// Nanoseconds of one second.
const SECOND_NS: u64 = 1_000_000_000;

/// Reads the machine's clocks. All shards of a process see one time line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The monotonic clock, in nanoseconds since the machine's own origin. Never goes back.
    #[must_use]
    pub fn now(self) -> Timestamp {
        Timestamp::from_nanos(nanos(clock_gettime(ClockId::Monotonic)))
    }

    /// The wall clock; a moment before 1970 reads as zero. By way of the C library, so that a test can
    /// give the process another one; it is read about once a second.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
    pub fn wall(self) -> UnixMillis {
        let passed = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = passed.map_or(0, |passed| passed.as_millis());
        UnixMillis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// CPU time this thread has used so far, user and kernel, in microseconds.
    #[must_use]
    pub fn thread_cpu_us(self) -> u64 {
        nanos(clock_gettime(ClockId::ThreadCPUTime)) / 1_000
    }
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(SECOND_NS).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_does_not_go_back_and_wall_time_is_of_this_century() {
        let clock = Clock;
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.wall().as_secs() > 1_600_000_000);
    }
}
