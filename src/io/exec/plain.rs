//! The executor without io_uring: a queue of tasks, a list of timers, one `poll` when idle, and a helper
//! thread for files.
//!
//! *Holds:* a task that was woken is polled again after the wake, by whichever thread it was woken; the
//! thread sleeps only with its queue empty, and whoever fills the queue meanwhile ends the sleep.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::io::Errno;

use super::timers::{Sleep, Timers, now};

/// Jobs that may wait for the helper thread. The store has a dozen tasks, each with one job at a time
/// but for a few reads ahead; should there be more, the shard's thread waits.
const JOBS_MAX: usize = 256;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Plain>>> = const { RefCell::new(None) };
}

type Job = Box<dyn FnOnce() + Send>;
type Boxed = Pin<Box<dyn Future<Output = ()>>>;

/// Names a task; a later task of the same place has another use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    place: usize,
    serial: u64,
}

/// The executor of this thread, when it is this one.
pub(super) fn current() -> Option<Rc<Plain>> {
    CURRENT.with_borrow(Clone::clone)
}

/// The executor without io_uring, of one thread.
pub(super) struct Plain {
    ready: Arc<Ready>,
    tasks: RefCell<Vec<Entry>>,
    free: RefCell<Vec<usize>>,
    timers: Rc<Timers>,
    parked: RefCell<Option<Parked>>,
    jobs: SyncSender<Job>,
    serial: Cell<u64>,
}

struct Entry {
    serial: u64,
    /// Absent while it is polled, and when the place is free.
    future: Option<Boxed>,
    waker: Arc<TaskWaker>,
}

/// The datapath, waiting for its descriptor.
struct Parked {
    fd: Rc<OwnedFd>,
    until: Instant,
    waker: Waker,
}

/// Tasks that can go on, filled from any thread.
#[derive(Debug)]
struct Ready {
    queue: SegQueue<usize>,
    /// The thread sleeps, or is about to.
    asleep: AtomicBool,
    wake: OwnedFd,
}

#[derive(Debug)]
struct TaskWaker {
    place: usize,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        self.ready.queue.push(self.place);
        // Either we see the thread asleep, or it sees the queue filled: see `sleep`.
        fence(Ordering::SeqCst);
        if self.ready.asleep.swap(false, Ordering::SeqCst) {
            // Fails only when 2^64 - 2 wake-ups are unread.
            let _ = rustix::io::write(&self.ready.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// Runs `main` to its end on an executor without io_uring, in this thread. Tasks that are left then are
/// dropped.
///
/// # Errors
/// No descriptor or no thread was to be had.
pub(crate) fn run<T: 'static>(main: impl Future<Output = T> + 'static) -> io::Result<T> {
    let (jobs, work) = sync_channel::<Job>(JOBS_MAX);
    let shard = std::thread::current();
    let name = format!("{}-files", shard.name().unwrap_or("volley"));
    let helper = std::thread::Builder::new()
        .name(name)
        .spawn(move || serve(&work))?;
    let ready = Arc::new(Ready {
        queue: SegQueue::new(),
        asleep: AtomicBool::new(false),
        wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
    });
    let plain = Rc::new(Plain {
        ready,
        tasks: RefCell::default(),
        free: RefCell::default(),
        timers: Rc::default(),
        parked: RefCell::default(),
        jobs,
        serial: Cell::new(0),
    });
    CURRENT.set(Some(Rc::clone(&plain)));
    let outcome = Rc::new(RefCell::new(None));
    let place = Rc::clone(&outcome);
    plain.spawn(Box::pin(async move {
        let value = main.await;
        *place.borrow_mut() = Some(value);
    }));
    let value = loop {
        plain.run_ready();
        if let Some(value) = outcome.borrow_mut().take() {
            break Ok(value);
        }
        if let Err(error) = plain.rest() {
            break Err(error);
        }
    };
    // Futures may use the executor when they are dropped, so they go while it is still known.
    let left = core::mem::take(&mut *plain.tasks.borrow_mut());
    drop(left);
    CURRENT.set(None);
    drop(plain);
    let _ = helper.join();
    value
}

fn serve(work: &Receiver<Job>) {
    while let Ok(job) = work.recv() {
        job();
    }
}

impl Plain {
    pub(super) fn spawn(&self, future: Boxed) -> Number {
        let mut tasks = self.tasks.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or(tasks.len());
        let waker = Arc::new(TaskWaker {
            place,
            queued: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        });
        let serial = self.next_serial();
        let entry = Entry {
            serial,
            future: Some(future),
            waker: Arc::clone(&waker),
        };
        if place == tasks.len() {
            tasks.push(entry);
        } else {
            tasks[place] = entry;
        }
        waker.wake();
        Number { place, serial }
    }

    /// Waits for `time`.
    pub(super) fn sleep(&self, time: Duration) -> Sleep {
        Rc::clone(&self.timers).sleep(time)
    }

    /// Drops a task that waits. One that is over, or is just running, is left alone.
    pub(super) fn end(&self, number: Number) {
        let future = {
            let mut tasks = self.tasks.borrow_mut();
            let entry = tasks.get_mut(number.place);
            entry
                .filter(|entry| entry.serial == number.serial)
                .and_then(|entry| entry.future.take())
        };
        if future.is_some() {
            drop(future);
            self.free.borrow_mut().push(number.place);
        }
    }

    /// Timers that somebody waits for.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }

    fn next_serial(&self) -> u64 {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        serial
    }

    /// Lets every task go on that could when this began.
    fn run_ready(&self) {
        self.fire();
        for _ in 0..self.ready.queue.len() {
            let Some(place) = self.ready.queue.pop() else {
                return;
            };
            let (future, waker) = {
                let mut tasks = self.tasks.borrow_mut();
                let entry = &mut tasks[place];
                (entry.future.take(), Arc::clone(&entry.waker))
            };
            // Before the poll: what wakes it during the poll must queue it again.
            waker.queued.store(false, Ordering::SeqCst);
            let Some(mut future) = future else { continue };
            let waker = Waker::from(waker);
            let outcome = future.as_mut().poll(&mut Context::from_waker(&waker));
            if outcome.is_pending() {
                self.tasks.borrow_mut()[place].future = Some(future);
            } else {
                drop(future);
                self.free.borrow_mut().push(place);
            }
        }
    }

    /// Wakes whoever waits for a moment that has come.
    fn fire(&self) {
        let now = now();
        self.timers.fire(now);
        let parked = self
            .parked
            .borrow_mut()
            .take_if(|parked| parked.until <= now);
        if let Some(parked) = parked {
            parked.waker.wake();
        }
    }

    /// Looks at the descriptor of the datapath, when that is parked; waits for it, a timer or a waker of
    /// another thread, when no task can go on.
    fn rest(&self) -> io::Result<()> {
        let ready = &self.ready;
        let mut wait = Duration::ZERO;
        let mut bounded = true;
        if ready.queue.is_empty() {
            ready.asleep.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if ready.queue.is_empty() {
                let next = self.next_moment();
                bounded = next.is_some();
                wait = next.map_or(wait, |at| at.saturating_duration_since(now()));
            }
        }
        let limit = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let parked = self
            .parked
            .borrow()
            .as_ref()
            .map(|parked| Rc::clone(&parked.fd));
        let watched = parked.as_deref().unwrap_or(&ready.wake);
        let mut fds = [
            PollFd::new(&ready.wake, PollFlags::IN),
            PollFd::new(watched, PollFlags::IN),
        ];
        let seen = if bounded && wait.is_zero() && parked.is_none() {
            Ok(0)
        } else {
            rustix::event::poll(&mut fds, bounded.then_some(&limit))
        };
        ready.asleep.store(false, Ordering::SeqCst);
        match seen {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            let _ = rustix::io::read(&ready.wake, &mut [0; 8]);
        }
        if parked.is_some()
            && !fds[1].revents().is_empty()
            && let Some(parked) = self.parked.borrow_mut().take()
        {
            parked.waker.wake();
        }
        Ok(())
    }

    /// When the next timer is due, or the park ends.
    fn next_moment(&self) -> Option<Instant> {
        let timer = self.timers.next();
        let parked = self.parked.borrow().as_ref().map(|parked| parked.until);
        timer.into_iter().chain(parked).min()
    }
}

/// Where the datapath waits for its descriptor.
#[derive(Debug)]
pub(crate) struct Park(Rc<OwnedFd>);

impl Park {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Rc::new(fd))
    }

    /// Waits until the descriptor is readable, anything else wakes the task, or `limit` has passed.
    pub(crate) async fn park(&self, limit: Duration) {
        let Some(plain) = current() else { return };
        let until = now() + limit;
        let mut waited = false;
        core::future::poll_fn(|context| {
            if core::mem::replace(&mut waited, true) {
                plain.parked.borrow_mut().take();
                return Poll::Ready(());
            }
            *plain.parked.borrow_mut() = Some(Parked {
                fd: Rc::clone(&self.0),
                until,
                waker: context.waker().clone(),
            });
            Poll::Pending
        })
        .await;
    }
}

/// What a job leaves behind; whoever waits is woken after the value, or its absence, is there to see.
struct Promise<T> {
    value: SyncSender<io::Result<T>>,
    #[expect(dead_code, reason = "dropped last, which wakes")]
    waker: WakeAtEnd,
}

struct WakeAtEnd(Waker);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        self.0.wake_by_ref();
    }
}

/// Lets the helper thread do `job`, and waits for it. The job is done to its end even when nobody waits
/// any more.
pub(super) async fn off_thread<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut job = Some(job);
    let mut answer = None;
    core::future::poll_fn(move |context| {
        if let Some(job) = job.take() {
            let (value, taken) = sync_channel(1);
            answer = Some(taken);
            let promise = Promise {
                value,
                waker: WakeAtEnd(context.waker().clone()),
            };
            let work: Job = Box::new(move || {
                // The receiver is gone when nobody waits any more.
                let _ = promise.value.send(job());
                drop(promise);
            });
            let Some(plain) = current() else {
                return Poll::Ready(Err(gone()));
            };
            if plain.jobs.send(work).is_err() {
                return Poll::Ready(Err(gone()));
            }
        }
        match answer.as_ref().map(Receiver::try_recv) {
            Some(Ok(value)) => Poll::Ready(value),
            Some(Err(TryRecvError::Empty)) => Poll::Pending,
            Some(Err(TryRecvError::Disconnected)) | None => Poll::Ready(Err(gone())),
        }
    })
    .await
}
