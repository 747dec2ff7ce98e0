//! Parking the datapath in the executor, until its ring or a task has news.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use glommio::timer::Timer;

use super::exec::{self, Park};
use super::sys::executor_file;

type WakeRead = Pin<Box<dyn Future<Output = ()>>>;

/// Waits for the datapath's news, or for anything else that wakes the task, whichever is first.
pub(super) enum Parker {
    /// The eventfd that the ring writes, read through glommio.
    Signal {
        fd: OwnedFd,
        file: Rc<glommio::io::BufferedFile>,
        /// Survives a park that ended otherwise, so that there is never more than one read.
        read: Option<WakeRead>,
    },
    /// epoll, which is told of everything.
    Epoll(Park),
}

impl Parker {
    pub(super) fn on_signal(fd: OwnedFd) -> io::Result<Self> {
        let file = Rc::new(executor_file(fd.try_clone()?));
        Ok(Self::Signal {
            fd,
            file,
            read: None,
        })
    }

    pub(super) fn on_epoll(epoll: OwnedFd) -> Self {
        Self::Epoll(Park::new(epoll))
    }

    /// Waits for at most `limit`.
    pub(super) async fn park(&mut self, limit: Duration) {
        match self {
            Self::Signal { file, read, .. } => park_on_signal(file, read, limit).await,
            Self::Epoll(park) => park.park(limit).await,
        }
    }

    /// Ends the last read.
    pub(super) async fn finish(self) {
        if let Self::Signal {
            fd,
            read: Some(read),
            ..
        } = self
        {
            // Fails only when 2^64 - 2 signals are unread; then there is one to read anyway.
            let _ = rustix::io::write(&fd, &1_u64.to_ne_bytes());
            read.await;
        }
    }
}

/// The limit is a timer of the executor and not of our ring on purpose: should the executor ever sleep
/// with our task ready, this is what wakes it.
async fn park_on_signal(
    file: &Rc<glommio::io::BufferedFile>,
    read: &mut Option<WakeRead>,
    limit: Duration,
) {
    let mut timer = Timer::new(limit);
    let mut first = true;
    poll_fn(|context| {
        let reading = read.get_or_insert_with(|| {
            let file = Rc::clone(file);
            Box::pin(async move {
                // An error ends the park as well; the turn then finds out.
                let _ = file.read_at(0, 8).await;
            })
        });
        if reading.as_mut().poll(context).is_ready() {
            *read = None;
            return Poll::Ready(());
        }
        if core::mem::take(&mut first) {
            return Pin::new(&mut timer).poll(context).map(drop);
        }
        Poll::Ready(())
    })
    .await;
}

/// Lets the executor run its other tasks and look at their completions, then goes on.
///
/// Not by its own `yield_now`: then our task stays ready, and the executor looks at completions only
/// when its preemption timer fires. Worse, when that timer fires just as it is about to run tasks,
/// glommio takes that for having none and goes to sleep with ours ready. With a timer of our own it
/// has something to wait for, and with the preemption timer set far away (`host`) it never strikes.
pub(super) async fn breathe() {
    if !exec::breathe().await {
        Timer::new(Duration::ZERO).await;
    }
}
