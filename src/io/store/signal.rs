//! Wakes the journal's tasks; all live on one thread.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

/// A condition several tasks of one thread may wait for. Waiters check their condition themselves.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    waiters: RefCell<Vec<Waker>>,
    rounds: Cell<u64>,
}

impl Signal {
    /// Wakes everyone who waits.
    pub(crate) fn notify(&self) {
        self.rounds.set(self.rounds.get() + 1);
        // Waking only schedules; no waiter runs in here.
        for waker in self.waiters.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Wakes the one who has waited longest; the others go on waiting.
    pub(crate) fn notify_one(&self) {
        self.rounds.set(self.rounds.get() + 1);
        let mut waiters = self.waiters.borrow_mut();
        if !waiters.is_empty() {
            waiters.remove(0).wake();
        }
    }

    /// Returns after the next [`Signal::notify`]. Call with the condition checked and no await since.
    pub(crate) async fn wait(&self) {
        let seen = self.rounds.get();
        poll_fn(|context| {
            if self.rounds.get() != seen {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|waker| waker.will_wake(context.waker())) {
                waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// As [`Signal::wait`], for `time` at most.
    pub(crate) async fn wait_at_most(&self, time: Duration) {
        let mut time = pin!(crate::io::exec::sleep(time));
        let mut more = pin!(self.wait());
        poll_fn(|context| {
            let late = time.as_mut().poll(context).is_ready();
            if late || more.as_mut().poll(context).is_ready() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
