use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use crate::io::exec::{File, OpenOptions, spawn_local};
use crate::io::ring::Kind;
use crate::io::sys::RawRing;

const BLOCK: usize = 4096;

/// The part of a driver that this is about.
struct Driver {
    ring: RawRing,
    tasks: Attached,
    operations: usize,
}

impl Driver {
    fn new() -> Self {
        Self::woken_by(Waker::noop())
    }

    fn woken_by(waker: &Waker) -> Self {
        Self {
            ring: RawRing::new(8, 16).unwrap(),
            tasks: attach(waker.clone()),
            operations: 0,
        }
    }

    /// One turn; false if there was nothing to do.
    async fn turn(&mut self) -> bool {
        let went_on = self.tasks.run_others().await;
        let before = self.operations;
        while let Some(request) = self.tasks.next() {
            self.operations += 1;
            self.ring.operate(request);
        }
        self.ring.enter(Some(Duration::from_millis(1))).unwrap();
        let mut reaped = Vec::new();
        self.ring.reap(&mut reaped, 64, usize::MAX);
        for completion in &reaped {
            assert_eq!(completion.token.kind, Kind::File);
            let place = completion.token.index;
            let buffer = self.ring.take_file(place);
            self.tasks.finish(place, completion.result, buffer);
        }
        went_on || self.operations > before || !reaped.is_empty() || self.tasks.fire()
    }

    /// Turns until the value is there.
    async fn run_until<T>(&mut self, value: &Late<T>) -> T {
        for _ in 0..10_000 {
            if let Some(value) = value.borrow_mut().take() {
                return value;
            }
            self.turn().await;
        }
        panic!("the task does not come to its end");
    }
}

/// What a task leaves behind.
type Late<T> = Rc<RefCell<Option<T>>>;

fn start<T: 'static>(task: impl Future<Output = T> + 'static) -> Late<T> {
    let place = Late::default();
    let late = Rc::clone(&place);
    spawn_local(async move {
        let value = task.await;
        *place.borrow_mut() = Some(value);
    })
    .detach();
    late
}

/// Runs `test` in an executor, in an empty directory of its own.
fn run<T: 'static>(name: &str, test: impl AsyncFnOnce(PathBuf) -> T + 'static) -> T {
    let directory = std::env::temp_dir().join(format!("volley-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("file");
    let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
    let value = executor.run(test(path));
    std::fs::remove_dir_all(&directory).unwrap();
    value
}

async fn create(path: &std::path::Path) -> Rc<File> {
    let options = OpenOptions {
        write: true,
        create: true,
        ..OpenOptions::default()
    };
    Rc::new(options.open(path).await.unwrap())
}

fn filled(file: &File, with: u8) -> crate::io::exec::file::Buffer {
    let mut buffer = file.buffer(BLOCK);
    buffer.as_bytes_mut().fill(with);
    buffer
}

#[test]
fn what_is_written_durably_is_read_again_and_the_executor_has_no_part_in_it() {
    run("reactor-files", async |path| {
        let file = create(&path).await;
        let mut driver = Driver::new();
        let task = start(async move {
            file.write_durably(filled(&file, 1), 0).await.unwrap();
            let written = file.write_at(filled(&file, 2), BLOCK as u64).await;
            assert_eq!(written.unwrap(), BLOCK);
            let both = file.read_at(0, 2 * BLOCK).await.unwrap();
            assert!(both[..BLOCK].iter().all(|&octet| octet == 1));
            assert!(both[BLOCK..].iter().all(|&octet| octet == 2));
            let end = file.read_at(BLOCK as u64, 4 * BLOCK).await.unwrap();
            assert_eq!(end.len(), BLOCK, "no more than the file has");
            assert_eq!(ELSEWHERE.get(), 0, "nothing is begun there");
            file
        });
        let file = driver.run_until(&task).await;
        // A durable write is two.
        assert_eq!(driver.operations, 5);
        assert!(!driver.tasks.is_waited_for());
        // What is rare is the executor's, and known to be.
        let size = spawn_local(async move { file.size().await.unwrap() });
        driver.turn().await;
        assert!(driver.tasks.needs_executor());
        assert_eq!(size.await, 2 * BLOCK as u64);
        assert!(!driver.tasks.needs_executor());
    });
}

#[test]
fn an_error_is_that_of_the_system_call() {
    run("reactor-error", async |path| {
        std::fs::write(&path, vec![0; BLOCK]).unwrap();
        let file = OpenOptions::default().open(&path).await.unwrap();
        let mut driver = Driver::new();
        let task = start(async move { file.write_at(filled(&file, 1), 0).await });
        let error = driver.run_until(&task).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
fn who_goes_before_the_end_takes_a_request_back_or_leaves_its_buffer_to_the_ring() {
    run("reactor-left", async |path| {
        let file = create(&path).await;
        let mut driver = Driver::new();
        let write = |with: u8| {
            let file = Rc::clone(&file);
            spawn_local(async move { file.write_at(filled(&file, with), 0).await })
        };
        let queued = write(1);
        driver.tasks.run_others().await;
        queued.cancel().await;
        assert!(driver.tasks.next().is_none(), "nobody wants it any more");
        let taken = write(2);
        driver.tasks.run_others().await;
        let request = driver.tasks.next().unwrap();
        let place = request.place;
        driver.ring.operate(request);
        taken.cancel().await;
        // Its place is not given away before the kernel is done with it.
        let other = write(3);
        driver.tasks.run_others().await;
        let request = driver.tasks.next().unwrap();
        assert_ne!(request.place, place);
        driver.ring.operate(request);
        while driver.tasks.is_waited_for() || driver.ring.in_flight() > 0 {
            driver.turn().await;
        }
        assert_eq!(other.await.unwrap(), BLOCK);
        let places = driver.tasks.reactor.places.borrow().len();
        assert_eq!(places, 2);
        assert_eq!(driver.tasks.reactor.free.borrow().len(), places);
    });
}

#[test]
fn a_driver_that_goes_leaves_nobody_waiting() {
    run("reactor-detach", async |path| {
        let file = create(&path).await;
        let driver = Driver::new();
        let write = {
            let file = Rc::clone(&file);
            spawn_local(async move { file.write_at(filled(&file, 1), 0).await })
        };
        let sleeper = spawn_local(crate::io::exec::sleep(Duration::from_secs(3600)));
        driver.tasks.run_others().await;
        assert!(driver.tasks.is_waited_for());
        assert!(driver.tasks.next_moment() > Some(Duration::from_secs(3000)));
        drop(driver);
        let error = write.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        let mut patience = core::pin::pin!(glommio::timer::sleep(Duration::from_secs(20)));
        let mut sleeper = core::pin::pin!(sleeper);
        let woke = poll_fn(|context| match sleeper.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => patience.as_mut().poll(context).map(|()| false),
        });
        assert!(woke.await);
        // From now on it is the executor's business.
        let written = file.write_at(filled(&file, 2), 0).await.unwrap();
        assert_eq!(written, BLOCK);
    });
}

/// Counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_is_asked_for_while_the_driver_waits_in_the_executor_wakes_it() {
    run("reactor-parked", async |path| {
        let file = create(&path).await;
        let wakes = Arc::new(Wakes::default());
        let mut driver = Driver::woken_by(&Waker::from(Arc::clone(&wakes)));
        let count = || wakes.0.load(Ordering::Relaxed);
        let write = {
            let file = Rc::clone(&file);
            move || {
                let file = Rc::clone(&file);
                async move { file.write_durably(filled(&file, 1), 0).await.unwrap() }
            }
        };
        let awake = start(write());
        driver.run_until(&awake).await;
        assert_eq!(count(), 0, "it looks by itself");
        driver.tasks.park();
        let task = start(write());
        driver.tasks.run_others().await;
        assert_eq!(count(), 1);
        driver.tasks.unpark();
        driver.run_until(&task).await;
        // A timer may be due before the wait that the driver reckoned without it is over.
        driver.tasks.park();
        let task = start(crate::io::exec::sleep(Duration::from_millis(1)));
        driver.tasks.run_others().await;
        assert_eq!(count(), 2);
        driver.run_until(&task).await;
    });
}

#[test]
fn others_run_until_none_can_and_timers_fire_when_they_are_due() {
    run("reactor-tasks", async |_path| {
        let mut driver = Driver::new();
        assert!(!driver.tasks.run_others().await, "there are none");
        let slow = start(async {
            for _ in 0..3 {
                yield_once().await;
            }
        });
        let behind = {
            let slow = Late::clone(&slow);
            start(async move {
                while slow.borrow().is_none() {
                    yield_once().await;
                }
            })
        };
        assert!(behind.borrow().is_none());
        assert!(driver.tasks.run_others().await);
        assert!(behind.borrow().is_some(), "four rounds");
        assert!(!driver.tasks.run_others().await);
        let task = start(crate::io::exec::sleep(Duration::from_millis(50)));
        driver.tasks.run_others().await;
        assert!(!driver.tasks.fire(), "not yet");
        assert!(!driver.tasks.run_others().await);
        assert!(task.borrow().is_none());
        driver.run_until(&task).await;
        assert_eq!(driver.tasks.next_moment(), None);
    });
}
