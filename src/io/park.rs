//! Parking the datapath in the executor until its ring, another shard or the store has news.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use std::os::fd::OwnedFd;
use std::rc::Rc;

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

    pub(super) async fn park(&mut self) {
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
                return Poll::Pending;
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
