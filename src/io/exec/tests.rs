#![expect(
    clippy::disallowed_methods,
    reason = "the peers of these tests are plain blocking threads"
)]

#[cfg(feature = "demo")]
mod cuts;

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;

use rustix::event::{EventfdFlags, eventfd};

use super::plain::{current, off_thread};
use super::*;

/// `None` when `future` takes longer than any of these tests should: a wake-up was lost.
async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut limit = pin!(sleep(Duration::from_secs(20)));
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        limit.as_mut().poll(context).map(|()| None)
    })
    .await
}

fn wake() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

#[test]
fn timers_fire_in_the_order_of_their_moments_and_go_with_those_who_wait() {
    run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for millis in [30, 10, 20] {
            let order = Rc::clone(&order);
            tasks.push(spawn_local(async move {
                sleep(Duration::from_millis(millis)).await;
                order.borrow_mut().push(millis);
            }));
        }
        let given_up = spawn_local(sleep(Duration::from_secs(3600)));
        breathe().await;
        assert_eq!(current().unwrap().timers(), 4);
        given_up.cancel().await;
        assert_eq!(current().unwrap().timers(), 3);
        for task in tasks {
            task.await;
        }
        assert_eq!(*order.borrow(), [10, 20, 30]);
        assert_eq!(current().unwrap().timers(), 0);
    })
    .unwrap();
}

#[test]
fn no_wake_up_by_another_thread_is_lost() {
    run(async {
        for round in 0..20_000_u64 {
            // Now and then the answer comes before, while and after the thread falls asleep.
            let work = move || {
                for _ in 0..(round * 7 % 400) {
                    core::hint::spin_loop();
                }
                Ok(round)
            };
            let answer = soon(off_thread(work)).await;
            assert_eq!(answer.expect("it comes").unwrap(), round);
        }
    })
    .unwrap();
}

#[test]
fn jobs_of_many_tasks_all_get_their_own_answer() {
    run(async {
        let mut tasks = Vec::new();
        for number in 0..1000_u32 {
            let job = async move { off_thread(move || Ok(number)).await.unwrap() };
            tasks.push((number, spawn_local(job)));
        }
        for (number, task) in tasks {
            assert_eq!(soon(task).await, Some(number));
        }
    })
    .unwrap();
}

#[test]
fn a_job_that_panics_is_an_error_for_whoever_waits_and_for_all_after_it() {
    let outcome = std::thread::spawn(|| {
        run(async {
            let broken = soon(off_thread(|| -> io::Result<()> { panic!("on purpose") })).await;
            let after = soon(off_thread(|| Ok(()))).await;
            (
                broken.map(|done| done.is_err()),
                after.map(|done| done.is_err()),
            )
        })
    });
    let outcome = outcome.join().unwrap().unwrap();
    assert_eq!(outcome, (Some(true), Some(true)));
}

#[test]
fn a_park_ends_by_its_descriptor_by_its_limit_and_by_a_waker() {
    run(async {
        let fd = wake();
        let park = Park::new(fd.try_clone().unwrap());
        assert!(soon(park.park(Duration::from_millis(5))).await.is_some());
        let bell = fd.try_clone().unwrap();
        let ring = std::thread::spawn(move || {
            let _ = rustix::thread::nanosleep(&rustix::thread::Timespec {
                tv_sec: 0,
                tv_nsec: 5_000_000,
            });
            rustix::io::write(&bell, &1_u64.to_ne_bytes()).unwrap();
        });
        let before = std::time::Instant::now();
        assert!(soon(park.park(Duration::from_secs(3600))).await.is_some());
        assert!(before.elapsed() < Duration::from_secs(10));
        ring.join().unwrap();
        rustix::io::read(&fd, &mut [0; 8]).unwrap();
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let theirs = Rc::clone(&waker);
        let parked = spawn_local(async move {
            let me = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
            *theirs.borrow_mut() = Some(me);
            park.park(Duration::from_secs(3600)).await;
        });
        sleep(Duration::from_millis(5)).await;
        waker.borrow().as_ref().unwrap().wake_by_ref();
        assert!(soon(parked).await.is_some());
    })
    .unwrap();
}

#[test]
fn a_descriptor_is_looked_at_though_tasks_keep_the_thread_busy() {
    run(async {
        let fd = wake();
        rustix::io::write(&fd, &1_u64.to_ne_bytes()).unwrap();
        let busy = spawn_local(async {
            loop {
                breathe().await;
            }
        });
        let park = Park::new(fd);
        let before = std::time::Instant::now();
        park.park(Duration::from_secs(15)).await;
        assert!(before.elapsed() < Duration::from_secs(10));
        busy.cancel().await;
    })
    .unwrap();
}

#[test]
fn a_cancelled_task_ends_where_it_waits_and_a_detached_one_goes_on() {
    struct Told(Rc<Cell<bool>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    run(async {
        let dropped = Rc::new(Cell::new(false));
        let told = Told(Rc::clone(&dropped));
        let task = spawn_local(async move {
            let _told = told;
            pending::<()>().await;
        });
        breathe().await;
        assert!(!dropped.get());
        task.cancel().await;
        assert!(dropped.get());
        let join = spawn_local(async { 7 }).detach();
        assert_eq!(soon(join).await, Some(Some(7)));
        // What was left waiting goes with the executor.
        drop(spawn_local(pending::<()>()).detach());
    })
    .unwrap();
}

#[test]
fn files_keep_what_is_written_and_end_where_they_end() {
    let path = std::env::temp_dir().join(format!("volley-exec-{}", std::process::id()));
    let path_moved = path.clone();
    run(async move {
        let options = OpenOptions {
            write: true,
            create: true,
            truncate: true,
            ..OpenOptions::default()
        };
        let file = options.open(&path_moved).await.unwrap();
        let mut buffer = file.buffer(8192);
        buffer.as_bytes_mut().fill(7);
        file.write_durably(buffer, 4096).await.unwrap();
        assert_eq!(file.size().await.unwrap(), 12_288);
        let read = file.read_at(8192, 8192).await.unwrap();
        assert_eq!(*read, [7; 4096], "up to the end");
        file.truncate(5000).await.unwrap();
        assert_eq!(file.read_at(4096, 4096).await.unwrap().len(), 904);
        sync_directory(path_moved.parent().unwrap()).await.unwrap();
        file.remove().await.unwrap();
        file.close().await.unwrap();
    })
    .unwrap();
    assert!(!path.exists());
    let missing = run(async move { OpenOptions::default().open(&path).await.err() }).unwrap();
    assert_eq!(missing.unwrap().kind(), io::ErrorKind::NotFound);
}
