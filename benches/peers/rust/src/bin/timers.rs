//! Ten million timers: our wheel, `DelayQueue` of tokio-util, and memory alone, in turn in every round.
//!
//! `touch`: a random node of the wheel's size is read and written: the floor. `refresh`: a random timer is
//! moved to 30 minutes ahead, as a session timer is (`disarm, arm`: by its two operations). `worst tick`: the
//! longest of 2,000 ticks of 10 ms in which some 55 timers fire and are armed anew. CPU time of the thread.
//!
//! ```text
//! timers [ROUNDS] [MILLIONS] [--page FILE]
//! ```

use std::hint::black_box;
use std::task::Poll;
use std::time::Duration;

use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;
use volley::base::entropy::Jitter;
use volley::base::time::Timestamp;
use volley::wheel::{DEFAULT_TICK, TimerId, Wheel};

#[path = "../page.rs"]
mod page;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// All deadlines lie this far ahead at most.
const SPAN: Duration = Duration::from_secs(30 * 60);
/// Operations of a round.
const OPERATIONS: u64 = 1_000_000;
const TICKS: usize = 2000;

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("time since the thread started")
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = cpu_time();
    work();
    (cpu_time() - start).as_nanos() as f64
}

fn deadline(dice: &mut Jitter) -> Duration {
    Duration::from_nanos(dice.below(SPAN.as_nanos() as u64))
}

struct Ours {
    wheel: Wheel,
    ids: Vec<TimerId>,
    now: Timestamp,
}

impl Ours {
    fn new(count: u64, dice: &mut Jitter) -> Self {
        let mut wheel = Wheel::new(DEFAULT_TICK, count as usize, Timestamp::ZERO);
        let ids = (0..count)
            .map(|key| {
                wheel
                    .arm(Timestamp::ZERO + deadline(dice), key)
                    .expect("room for all")
            })
            .collect();
        let now = Timestamp::ZERO;
        Self { wheel, ids, now }
    }

    fn refresh(&mut self, dice: &mut Jitter) {
        for _ in 0..OPERATIONS {
            let key = dice.below(self.ids.len() as u64) as usize;
            black_box(self.wheel.rearm(self.ids[key], self.now + SPAN));
        }
    }

    fn disarm_and_arm(&mut self, dice: &mut Jitter) {
        for _ in 0..OPERATIONS {
            let key = dice.below(self.ids.len() as u64);
            let id = &mut self.ids[key as usize];
            black_box(self.wheel.disarm(*id));
            *id = self.wheel.arm(self.now + SPAN, key).expect("one was freed");
        }
    }

    fn tick(&mut self) {
        self.now = self.now + DEFAULT_TICK;
        while let Some((_, key)) = self.wheel.pop_due(self.now) {
            self.ids[key as usize] = self.wheel.arm(self.now + SPAN, key).expect("one was freed");
        }
    }
}

struct Theirs {
    runtime: tokio::runtime::Runtime,
    queue: DelayQueue<u32>,
    keys: Vec<Key>,
}

impl Theirs {
    fn new(count: u64, dice: &mut Jitter) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O");
        let guard = runtime.enter();
        let mut queue = DelayQueue::with_capacity(count as usize);
        let keys = (0..count as u32)
            .map(|slot| queue.insert(slot, deadline(dice)))
            .collect();
        drop(guard);
        Self {
            runtime,
            queue,
            keys,
        }
    }

    fn refresh(&mut self, dice: &mut Jitter) {
        let _guard = self.runtime.enter();
        for _ in 0..OPERATIONS {
            let slot = dice.below(self.keys.len() as u64) as usize;
            self.queue.reset(&self.keys[slot], SPAN);
        }
    }

    fn ticks(&mut self) -> f64 {
        let (queue, keys) = (&mut self.queue, &mut self.keys);
        self.runtime.block_on(async {
            let mut worst = 0.0f64;
            for _ in 0..TICKS {
                let start = cpu_time();
                tokio::time::advance(DEFAULT_TICK).await;
                std::future::poll_fn(|context| {
                    while let Poll::Ready(Some(expired)) = queue.poll_expired(context) {
                        let slot = expired.into_inner();
                        keys[slot as usize] = queue.insert(slot, SPAN);
                    }
                    Poll::Ready(())
                })
                .await;
                worst = worst.max((cpu_time() - start).as_nanos() as f64);
            }
            worst
        })
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut numbers = arguments
        .iter()
        .filter_map(|argument| argument.parse::<u64>().ok());
    let rounds = numbers.next().unwrap_or(5).max(1) as usize;
    let count = numbers.next().unwrap_or(10) * 1_000_000;
    let mut dice = Jitter::new(1);
    let mut nodes = vec![[1u64; 3]; count as usize];
    let mut ours = Ours::new(count, &mut dice);
    let mut theirs = Theirs::new(count, &mut dice);
    let names = [
        ("random node, read and written", "memory: the floor", "ns"),
        ("refresh", "volley", "ns"),
        ("refresh by disarm, arm", "volley", "ns"),
        ("refresh", "DelayQueue", "ns"),
        ("worst tick", "volley", "us"),
        ("worst tick", "DelayQueue", "us"),
    ];
    let mut figures = vec![Vec::new(); names.len()];
    for _ in 0..rounds {
        let each = OPERATIONS as f64;
        figures[0].push(
            timed(|| {
                for _ in 0..OPERATIONS {
                    let node = &mut nodes[dice.below(count) as usize];
                    node[0] = node[0].wrapping_add(black_box(1));
                }
            }) / each,
        );
        figures[1].push(timed(|| ours.refresh(&mut dice)) / each);
        figures[2].push(timed(|| ours.disarm_and_arm(&mut dice)) / each);
        figures[3].push(timed(|| theirs.refresh(&mut dice)) / each);
        let worst = (0..TICKS)
            .map(|_| timed(|| ours.tick()))
            .fold(0.0, f64::max);
        figures[4].push(worst / 1e3);
        figures[5].push(theirs.ticks() / 1e3);
    }
    let mut rows: Vec<page::Row> = names
        .iter()
        .zip(figures)
        .map(|(&(what, who, unit), figures)| page::Row::new(what, who, unit, figures))
        .collect();
    let octets = ours.wheel.memory() as f64 / count as f64;
    rows.push(page::Row::new(
        "memory a timer",
        "volley",
        "octets",
        vec![octets],
    ));
    page::publish(&rows, "timers", &arguments);
}
