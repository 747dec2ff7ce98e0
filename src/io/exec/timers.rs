//! Timers of tasks, for whoever wakes a thread's tasks itself: the executor without io_uring, and a driver
//! while it runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Who waits for which moment. Of one thread.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// By the moment and a number of its own.
    rows: RefCell<BTreeMap<(Instant, u64), Waker>>,
    serial: Cell<u64>,
    /// Nobody will look at these timers any more.
    ended: Cell<bool>,
}

impl Timers {
    /// Waits for `time`, or until nobody looks at the timers any more. The timer goes with the future.
    pub(super) fn sleep(self: Rc<Self>, time: Duration) -> Sleep {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        Sleep {
            key: (now() + time, serial),
            timers: self,
        }
    }

    /// When the next timer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.rows.borrow().first_key_value().map(|(at, _)| at.0)
    }

    /// Wakes whoever waits for a moment that has come.
    pub(super) fn fire(&self, now: Instant) {
        let late = self.rows.borrow().range(..=(now, u64::MAX)).count();
        for _ in 0..late {
            let timer = self.rows.borrow_mut().pop_first();
            if let Some((_, waker)) = timer {
                waker.wake();
            }
        }
    }

    /// Ends every wait.
    pub(super) fn end(&self) {
        self.ended.set(true);
        for (_, waker) in core::mem::take(&mut *self.rows.borrow_mut()) {
            waker.wake();
        }
    }

    /// Timers that somebody waits for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rows.borrow().len()
    }
}

/// Waits for a moment.
#[derive(Debug)]
pub(super) struct Sleep {
    timers: Rc<Timers>,
    key: (Instant, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timers.ended.get() || now() >= self.key.0 {
            return Poll::Ready(());
        }
        let mut rows = self.timers.rows.borrow_mut();
        rows.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.timers.rows.borrow_mut().remove(&self.key);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "timers of tasks, as the executor's library has its own"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}
