//! Files and timers of the tasks beside a driver, while that runs: their operations go through the ring of
//! the datapath, so that one wait of the thread is for sockets, files and timers alike.
//!
//! A wait in the executor's own reactor submits and collects on three rings several times over; one in our
//! ring is one system call. So while a driver is attached ([`attach`]) the executor only runs tasks: the
//! driver takes what they ask for ([`Attached::next`]), says how it ended ([`Attached::finish`]), and fires
//! their timers. What began before or after, and what is rare (to open, allocate, remove), goes through the
//! executor's reactor; it is counted ([`elsewhere`]), and while there is any the executor has to be asked.
//!
//! *Holds:* what an operation points to is owned by its request, and then by the ring, until it is over; who
//! waits for it may go before. A driver that waits in the executor is woken by whatever a task asks for
//! meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use glommio::io::{DmaBuffer, DmaFile};

use super::timers::{Sleep, Timers, now};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
    /// Operations of this thread's tasks that the executor's own reactor has.
    static ELSEWHERE: Cell<usize> = const { Cell::new(0) };
    /// How often this thread's tasks were polled.
    static POLLS: Cell<u64> = const { Cell::new(0) };
}

/// What a task asks of the ring.
#[derive(Debug)]
pub(crate) struct Request {
    /// Names the request towards [`Attached::finish`].
    pub(crate) place: u32,
    /// Keeps the descriptor.
    pub(crate) file: Rc<DmaFile>,
    pub(crate) job: Job,
}

/// An operation on a file. The whole buffer is written, or filled as far as the file goes.
#[derive(Debug)]
pub(crate) enum Job {
    Read { buffer: DmaBuffer, at: u64 },
    Write { buffer: DmaBuffer, at: u64 },
    SyncData,
}

/// What became of it: octets read or written, and the buffer it had.
type Outcome = (io::Result<usize>, Option<DmaBuffer>);

#[derive(Debug, Default)]
enum Place {
    #[default]
    Free,
    Waiting(Option<Waker>),
    Over(Outcome),
    /// Nobody waits any more.
    Left,
}

/// The requests and timers of one thread's tasks.
#[derive(Debug)]
pub(super) struct Reactor {
    requests: RefCell<VecDeque<Request>>,
    places: RefCell<Vec<Place>>,
    free: RefCell<Vec<u32>>,
    timers: Rc<Timers>,
    driver: Waker,
    /// The driver waits in the executor and would not look here by itself.
    is_parked: Cell<bool>,
}

/// The driver's end. Dropping it lets tasks use the executor's reactor again; what is not over then has
/// failed for who waits for it.
#[derive(Debug)]
pub(crate) struct Attached {
    reactor: Rc<Reactor>,
    /// Wakes up now and then. The executor can take a preemption for having nothing to run and go to sleep
    /// with tasks ready: see [`crate::io::park`]. This bounds that sleep.
    _guard: glommio::Task<()>,
}

/// How long the executor may sleep by mistake.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// That of this thread, while a driver is attached.
pub(super) fn current() -> Option<Rc<Reactor>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Makes the caller, whom `driver` wakes, the one who does what this thread's tasks ask for.
pub(crate) fn attach(driver: Waker) -> Attached {
    let reactor = Rc::new(Reactor {
        requests: RefCell::default(),
        places: RefCell::default(),
        free: RefCell::default(),
        timers: Rc::default(),
        driver,
        is_parked: Cell::new(false),
    });
    CURRENT.set(Some(Rc::clone(&reactor)));
    let guard = glommio::spawn_local(async {
        loop {
            glommio::timer::sleep(SLEEP_MAX).await;
        }
    });
    Attached {
        reactor,
        _guard: guard,
    }
}

/// Does something that needs the executor's own reactor.
pub(super) async fn elsewhere<T>(work: impl Future<Output = T>) -> T {
    struct Count;
    impl Drop for Count {
        fn drop(&mut self) {
            ELSEWHERE.set(ELSEWHERE.get() - 1);
        }
    }
    ELSEWHERE.set(ELSEWHERE.get() + 1);
    let _count = Count;
    work.await
}

/// Counts how often `task` is polled.
pub(super) async fn counted<T>(task: impl Future<Output = T>) -> T {
    let mut task = core::pin::pin!(task);
    poll_fn(|context| {
        POLLS.set(POLLS.get() + 1);
        task.as_mut().poll(context)
    })
    .await
}

impl Reactor {
    /// Fills `buffer` from `at` on: as much of it as the file has.
    pub(super) async fn read(
        &self,
        file: &Rc<DmaFile>,
        buffer: DmaBuffer,
        at: u64,
    ) -> io::Result<DmaBuffer> {
        let (result, buffer) = self.submit(file, Job::Read { buffer, at }).await;
        let (octets, buffer) = (result?, buffer.ok_or(io::ErrorKind::UnexpectedEof)?);
        let mut buffer = buffer;
        buffer.trim_to_size(octets.min(buffer.len()));
        Ok(buffer)
    }

    /// Writes `buffer` at `at`: how much of it.
    pub(super) async fn write(
        &self,
        file: &Rc<DmaFile>,
        buffer: DmaBuffer,
        at: u64,
    ) -> io::Result<usize> {
        self.submit(file, Job::Write { buffer, at }).await.0
    }

    /// Makes what was written durable.
    pub(super) async fn sync_data(&self, file: &Rc<DmaFile>) -> io::Result<()> {
        self.submit(file, Job::SyncData).await.0.map(drop)
    }

    /// Waits for `time`.
    pub(super) fn sleep(&self, time: Duration) -> Sleep {
        self.wake_driver();
        Rc::clone(&self.timers).sleep(time)
    }

    fn wake_driver(&self) {
        if self.is_parked.take() {
            self.driver.wake_by_ref();
        }
    }

    async fn submit(&self, file: &Rc<DmaFile>, job: Job) -> Outcome {
        let place = self.take_place();
        let request = Request {
            place,
            file: Rc::clone(file),
            job,
        };
        self.requests.borrow_mut().push_back(request);
        self.wake_driver();
        let _end = EndOfWait {
            reactor: self,
            place,
        };
        poll_fn(|context| {
            let mut places = self.places.borrow_mut();
            let entry = &mut places[place as usize];
            match core::mem::take(entry) {
                Place::Over(outcome) => Poll::Ready(outcome),
                Place::Free | Place::Left | Place::Waiting(_) => {
                    *entry = Place::Waiting(Some(context.waker().clone()));
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn take_place(&self) -> u32 {
        let mut places = self.places.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            places.push(Place::Free);
            u32::try_from(places.len() - 1).expect("a dozen tasks with an operation each")
        });
        places[place as usize] = Place::Waiting(None);
        place
    }

    fn is_queued(&self, place: u32) -> bool {
        let requests = self.requests.borrow();
        requests.iter().any(|request| request.place == place)
    }
}

/// Gives the place of a request back, when its operation is over.
struct EndOfWait<'a> {
    reactor: &'a Reactor,
    place: u32,
}

impl Drop for EndOfWait<'_> {
    fn drop(&mut self) {
        let reactor = self.reactor;
        let entry = core::mem::take(&mut reactor.places.borrow_mut()[self.place as usize]);
        let with_driver = matches!(entry, Place::Waiting(_)) && !reactor.is_queued(self.place);
        if with_driver {
            reactor.places.borrow_mut()[self.place as usize] = Place::Left;
            return;
        }
        let mut requests = reactor.requests.borrow_mut();
        requests.retain(|request| request.place != self.place);
        reactor.free.borrow_mut().push(self.place);
    }
}

impl Attached {
    /// The next request, which the caller then owes an end.
    pub(crate) fn next(&self) -> Option<Request> {
        self.reactor.requests.borrow_mut().pop_front()
    }

    /// The operation of the request called `place` ended with `result`, as a system call would return it.
    pub(crate) fn finish(&self, place: u32, result: i32, buffer: Option<DmaBuffer>) {
        let result = usize::try_from(result)
            .map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()));
        let entry = &mut self.reactor.places.borrow_mut()[place as usize];
        match core::mem::take(entry) {
            Place::Waiting(waker) => {
                *entry = Place::Over((result, buffer));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Place::Left => self.reactor.free.borrow_mut().push(place),
            Place::Free | Place::Over(_) => unreachable!("an operation ends once"),
        }
    }

    /// True while a task waits for an operation.
    pub(crate) fn is_waited_for(&self) -> bool {
        let places = self.reactor.places.borrow();
        places
            .iter()
            .any(|place| matches!(place, Place::Waiting(_)))
    }

    /// Wakes the tasks whose time has come; true if there may be any.
    pub(crate) fn fire(&self) -> bool {
        // Mostly there is none, and then this is no reason to read the clock every turn.
        let Some(first) = self.reactor.timers.next() else {
            return false;
        };
        let now = now();
        let due = first <= now;
        if due {
            self.reactor.timers.fire(now);
        }
        due
    }

    /// When the next timer is due.
    pub(crate) fn next_moment(&self) -> Option<Duration> {
        let at: Instant = self.reactor.timers.next()?;
        Some(at.saturating_duration_since(now()))
    }

    /// True while the executor has to be asked for what some task waits for.
    pub(crate) fn needs_executor(&self) -> bool {
        ELSEWHERE.get() > 0
    }

    /// The driver is about to wait in the executor: the next request or timer wakes it. It must have taken
    /// the requests there are, and know of [`Self::next_moment`].
    pub(crate) fn park(&self) {
        debug_assert!(self.reactor.requests.borrow().is_empty());
        self.reactor.is_parked.set(true);
    }

    /// The wait is over.
    pub(crate) fn unpark(&self) {
        self.reactor.is_parked.set(false);
    }

    /// Lets the tasks of this thread go on until none can. True if any did.
    pub(crate) async fn run_others(&self) -> bool {
        let first = POLLS.get();
        loop {
            let before = POLLS.get();
            yield_once().await;
            if POLLS.get() == before {
                return before != first;
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        CURRENT.set(None);
        self.reactor.requests.borrow_mut().clear();
        self.reactor.timers.end();
        for entry in self.reactor.places.borrow_mut().iter_mut() {
            if let Place::Waiting(waker) = entry {
                let waker = waker.take();
                *entry = Place::Over((Err(io::ErrorKind::Interrupted.into()), None));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

/// Lets those who are ready go first. The executor does not look at its completions for that.
async fn yield_once() {
    let mut waited = false;
    poll_fn(|context| {
        if core::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
