//! What the tasks of a shard run on: glommio where io_uring is allowed, else a small executor of our own
//! (`plain`) with one helper thread per shard that reads, writes and syncs files (`file`). While a driver
//! runs in a thread of glommio's, the files and timers of tasks are its business (`reactor`).
//!
//! The store and the datapath name only this module, so they are the same code on both. Which one it is
//! belongs to the thread and is decided when the thread starts ([`run`]).
//!
//! Deliberately absent: fairness between tasks beyond first come first served, and anything but files
//! and timers. Sockets are the datapath's.

mod file;
mod plain;
mod reactor;
mod timers;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub(crate) use file::{File, OpenOptions, Read, rename, sync_directory};
pub(crate) use plain::{Park, run};
pub(crate) use reactor::{Attached, Job, Request, attach};

/// Lets other tasks of this thread go on. False, and nothing done, inside glommio.
pub(crate) async fn breathe() -> bool {
    if plain::current().is_none() {
        return false;
    }
    let mut waited = false;
    poll_fn(|context| {
        if core::mem::replace(&mut waited, true) {
            return Poll::Ready(true);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Waits for `time`.
pub(crate) async fn sleep(time: Duration) {
    if let Some(plain) = plain::current() {
        plain.sleep(time).await;
    } else if let Some(reactor) = reactor::current() {
        reactor.sleep(time).await;
    } else {
        reactor::elsewhere(glommio::timer::sleep(time)).await;
    }
}

/// A task of this thread. Dropping it ends the task; [`Task::detach`] lets it go on.
#[derive(Debug)]
pub(crate) struct Task<T>(Inner<T>);

/// A task that goes on by itself; gives `None` when it was ended.
#[derive(Debug)]
pub(crate) struct Join<T>(InnerJoin<T>);

#[derive(Debug)]
enum Inner<T> {
    Glommio(glommio::Task<T>),
    Plain(PlainTask<T>),
}

#[derive(Debug)]
enum InnerJoin<T> {
    Glommio(glommio::task::JoinHandle<T>),
    Plain(Rc<Outcome<T>>),
}

#[derive(Debug)]
struct PlainTask<T> {
    outcome: Rc<Outcome<T>>,
    /// The task to end with this handle.
    number: Option<plain::Number>,
}

/// What a task leaves behind.
#[derive(Debug)]
struct Outcome<T> {
    value: RefCell<Option<T>>,
    waiter: RefCell<Option<Waker>>,
    over: Cell<bool>,
}

impl<T> Outcome<T> {
    fn poll(&self, context: &Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.value.borrow_mut().take() {
            return Poll::Ready(Some(value));
        }
        if self.over.get() {
            return Poll::Ready(None);
        }
        *self.waiter.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Marks the end of a task however it comes.
struct AtEnd<T>(Rc<Outcome<T>>);

impl<T> Drop for AtEnd<T> {
    fn drop(&mut self) {
        self.0.over.set(true);
        if let Some(waiter) = self.0.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }
}

/// Starts a task in this thread.
pub(crate) fn spawn_local<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let Some(plain) = plain::current() else {
        let future = reactor::counted(future);
        return Task(Inner::Glommio(glommio::spawn_local(future)));
    };
    let outcome = Rc::new(Outcome {
        value: RefCell::new(None),
        waiter: RefCell::new(None),
        over: Cell::new(false),
    });
    let end = AtEnd(Rc::clone(&outcome));
    let number = plain.spawn(Box::pin(async move {
        let value = future.await;
        *end.0.value.borrow_mut() = Some(value);
    }));
    Task(Inner::Plain(PlainTask {
        outcome,
        number: Some(number),
    }))
}

impl<T: 'static> Task<T> {
    /// Lets the task go on by itself; its end can still be awaited.
    pub(crate) fn detach(self) -> Join<T> {
        Join(match self.0 {
            Inner::Glommio(task) => InnerJoin::Glommio(task.detach()),
            Inner::Plain(mut task) => {
                task.number = None;
                InnerJoin::Plain(Rc::clone(&task.outcome))
            }
        })
    }

    /// Ends the task where it waits. What the helper thread does for it is still done.
    pub(crate) async fn cancel(self) {
        match self.0 {
            Inner::Glommio(task) => {
                task.cancel().await;
            }
            Inner::Plain(task) => drop(task),
        }
    }
}

impl<T> Drop for PlainTask<T> {
    fn drop(&mut self) {
        if let (Some(number), Some(plain)) = (self.number, plain::current()) {
            plain.end(number);
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            Inner::Glommio(task) => Pin::new(task).poll(context),
            Inner::Plain(task) => task
                .outcome
                .poll(context)
                .map(|value| value.expect("a task that is awaited is not ended by others")),
        }
    }
}

impl<T> Future for Join<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        match &mut self.0 {
            InnerJoin::Glommio(join) => Pin::new(join).poll(context),
            InnerJoin::Plain(outcome) => outcome.poll(context),
        }
    }
}

#[cfg(test)]
mod tests;
