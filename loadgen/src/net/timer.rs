//! Looks at the schedule when the next trigger is due, and every few milliseconds.

use std::rc::Rc;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::{Shared, flush, sample};

/// Longest and shortest distance between two looks at the schedule.
const TICK_MAX: Duration = Duration::from_millis(5);
const TICK_MIN: Duration = Duration::from_micros(50);

/// Looks at the schedule when the next trigger is due, and every few milliseconds. The runtime's own
/// timer counts in milliseconds, so this reads a timerfd through the ring.
pub(super) async fn tick(shared: Rc<Shared>) {
    let Ok(timer) = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC) else {
        return coarse_tick(shared).await;
    };
    let Ok(arm) = timer.try_clone() else {
        return coarse_tick(shared).await;
    };
    let gather = Duration::from_micros(shared.world.borrow().setup.gather_us.into());
    let timer = tokio_uring::fs::File::from_std(std::fs::File::from(timer));
    let mut expirations = vec![0u8; 8];
    loop {
        let wait = if gather.is_zero() {
            let due = shared.world.borrow().next_due();
            due.map_or(TICK_MAX, |due| {
                Duration::from_nanos(due.saturating_sub(shared.now()))
            })
            .clamp(TICK_MIN, TICK_MAX)
        } else {
            gather
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(wait.subsec_nanos()),
            },
        };
        if timerfd_settime(&arm, TimerfdTimerFlags::empty(), &once).is_err() {
            return coarse_tick(shared).await;
        }
        let (outcome, buffer) = timer.read_at(expirations, 0).await;
        expirations = buffer;
        if outcome.is_err() {
            return coarse_tick(shared).await;
        }
        pump(&shared);
        shared.cadence.notify_waiters();
    }
}

async fn coarse_tick(shared: Rc<Shared>) {
    loop {
        tokio::time::sleep(TICK_MAX).await;
        pump(&shared);
        shared.cadence.notify_waiters();
    }
}

fn pump(shared: &Rc<Shared>) {
    let now = shared.now();
    let mut world = shared.world.borrow_mut();
    world.pump(now);
    sample(&mut world, now, false);
    drop(world);
    flush(shared);
}
