//! Parking the datapath in the executor until its ring, another shard or the store has news.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use glommio::timer::Timer;

use super::sys::executor_file;

type WakeRead = Pin<Box<dyn Future<Output = ()>>>;

/// Waits for the eventfd, or for anything else that wakes the task, whichever is first.
pub(super) struct Parker {
    file: Rc<glommio::io::BufferedFile>,
    /// Survives a park that ended otherwise, so that there is never more than one read.
    read: Option<WakeRead>,
}

impl Parker {
    pub(super) fn new(wake: OwnedFd) -> Self {
        Self {
            file: Rc::new(executor_file(wake)),
            read: None,
        }
    }

    /// Waits for at most `limit`.
    ///
    /// The limit is a timer of the executor and not of our ring on purpose: should the executor
    /// ever sleep with our task ready, this is what wakes it.
    pub(super) async fn park(&mut self, limit: Duration) {
        let mut timer = Timer::new(limit);
        let mut first = true;
        poll_fn(|context| {
            let file = &self.file;
            let read = self.read.get_or_insert_with(|| {
                let file = Rc::clone(file);
                Box::pin(async move {
                    // An error ends the park as well; the turn then finds out.
                    let _ = file.read_at(0, 8).await;
                })
            });
            if read.as_mut().poll(context).is_ready() {
                self.read = None;
                return Poll::Ready(());
            }
            if core::mem::take(&mut first) {
                return Pin::new(&mut timer).poll(context).map(drop);
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for the last read; the eventfd must have been written.
    pub(super) async fn finish(mut self) {
        if let Some(read) = self.read.take() {
            read.await;
        }
    }
}

/// Lets the executor run its other tasks and look at their completions, then goes on.
///
/// Not by its own `yield_now`: then our task stays ready, and the executor looks at completions only
/// when its preemption timer fires. Worse, when that timer fires just as it is about to run tasks,
/// glommio takes that for having none and goes to sleep with ours ready. With a timer of our own it
/// has something to wait for, and with the preemption timer set far away (`host`) it never strikes.
pub(super) async fn breathe() {
    Timer::new(Duration::ZERO).await;
}
