//! The timer wheel at 10 M armed timers, next to a binary heap with lazy deletion and tokio-util's
//! `DelayQueue`, in one run on one machine.
//!
//! `arm_disarm`: a random timer is disarmed and armed again up to 30 minutes ahead. `refresh`: a random
//! timer is moved to 30 minutes ahead, as a session timer is. `expire`: time
//! passes in 10 ms ticks; each timer that fires is armed again 30 minutes ahead, so that the
//! number armed stays. With 10 k timers the 30 minutes are 1.8 s, so that a tick fires as many. The
//! worst tick and the memory of the wheel are printed. `memory/touch` is the floor of both: a random node of
//! as many, read and written. Times are CPU time of the thread, so that a busy machine shows
//! as misses in the caches but not as time spent elsewhere.
//!
//! `cargo bench --bench wheel -- --record 5` measures the ten million in five interleaved rounds instead: a line
//! of `benches/record` for each figure of each round (without the commit, which it does not know), then the rows
//! of the table in `benches/PERFORMANCE.md`.

use core::hint::black_box;
use core::task::Poll;
use core::time::Duration;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;
use volley::base::entropy::Jitter;
use volley::base::time::Timestamp;
use volley::wheel::{DEFAULT_TICK, TimerId, Wheel};

const SIZES: [(u32, &str); 2] = [(10_000, "10k_armed"), (10_000_000, "10M_armed")];

/// All timers lie this far ahead at most: 180 us per timer, 30 minutes for 10 M.
fn span(armed: u32) -> Duration {
    Duration::from_micros(180) * armed
}

fn pick(dice: &mut Jitter, span: Duration) -> Duration {
    Duration::from_nanos(dice.below(nanos(span)))
}

fn any(dice: &mut Jitter, armed: u32) -> u32 {
    u32::try_from(dice.below(u64::from(armed))).expect("below a u32")
}

struct WheelBed {
    wheel: Wheel,
    ids: Vec<TimerId>,
    dice: Jitter,
    now: Timestamp,
}

impl WheelBed {
    fn new(armed: u32) -> Self {
        let mut dice = Jitter::new(1);
        let mut wheel = Wheel::new(DEFAULT_TICK, armed as usize, Timestamp::ZERO);
        let ids = (0..armed)
            .map(|key| {
                let deadline = Timestamp::ZERO + pick(&mut dice, span(armed));
                wheel.arm(deadline, key.into()).expect("room for all")
            })
            .collect();
        Self {
            wheel,
            ids,
            dice,
            now: Timestamp::ZERO,
        }
    }

    fn arm_disarm(&mut self, iterations: u64) -> Duration {
        let armed = u32::try_from(self.ids.len()).expect("a bench size");
        let start = cpu_time();
        for _ in 0..iterations {
            let key = any(&mut self.dice, armed);
            let id = &mut self.ids[key as usize];
            black_box(self.wheel.disarm(*id));
            let deadline = self.now + pick(&mut self.dice, span(armed));
            *id = self.wheel.arm(deadline, key.into()).expect("one was freed");
        }
        cpu_time() - start
    }

    fn refresh(&mut self, iterations: u64) -> Duration {
        let armed = u32::try_from(self.ids.len()).expect("a bench size");
        let start = cpu_time();
        for _ in 0..iterations {
            let key = any(&mut self.dice, armed);
            black_box(
                self.wheel
                    .rearm(self.ids[key as usize], self.now + span(armed)),
            );
        }
        cpu_time() - start
    }

    fn expire(&mut self, iterations: u64) -> Duration {
        let start = cpu_time();
        let span = span(u32::try_from(self.ids.len()).expect("a bench size"));
        let mut fired = 0;
        while fired < iterations {
            self.now = self.now + DEFAULT_TICK;
            while let Some((_, key)) = self.wheel.pop_due(self.now) {
                let id = self.wheel.arm(self.now + span, key).expect("one was freed");
                self.ids[usize::try_from(key).expect("an index")] = id;
                fired += 1;
            }
        }
        per_iteration(cpu_time() - start, fired, iterations)
    }
}

impl WheelBed {
    /// The longest of 20,000 ticks, re-arming included.
    fn worst_tick(&mut self) -> Duration {
        let ticks = (0..20_000).map(|_| {
            let start = cpu_time();
            self.expire(1);
            cpu_time() - start
        });
        ticks.max().expect("many ticks")
    }
}

/// The heap keeps (deadline, slot, generation); a stale generation is skipped when it surfaces, and
/// the heap is rebuilt when stale entries outnumber the armed ones.
struct HeapBed {
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
    generations: Vec<u32>,
    dice: Jitter,
    now: u64,
}

impl HeapBed {
    fn new(armed: u32) -> Self {
        let mut dice = Jitter::new(1);
        let mut heap = BinaryHeap::with_capacity(2 * armed as usize + 1);
        heap.extend((0..armed).map(|slot| Reverse((nanos(pick(&mut dice, span(armed))), slot, 0))));
        Self {
            heap,
            generations: vec![0; armed as usize],
            dice,
            now: 0,
        }
    }

    fn arm(&mut self, slot: u32, deadline: u64) {
        if self.heap.len() == 2 * self.generations.len() {
            let generations = &self.generations;
            self.heap.retain(|Reverse((_, slot, generation))| {
                generations[*slot as usize] == *generation
            });
        }
        let generation = self.generations[slot as usize];
        self.heap.push(Reverse((deadline, slot, generation)));
    }

    fn arm_disarm(&mut self, iterations: u64) -> Duration {
        let armed = u32::try_from(self.generations.len()).expect("a bench size");
        let start = cpu_time();
        for _ in 0..iterations {
            let slot = any(&mut self.dice, armed);
            self.generations[slot as usize] = self.generations[slot as usize].wrapping_add(1);
            let deadline = self.now + nanos(pick(&mut self.dice, span(armed)));
            self.arm(slot, deadline);
        }
        cpu_time() - start
    }

    fn refresh(&mut self, iterations: u64) -> Duration {
        let armed = u32::try_from(self.generations.len()).expect("a bench size");
        let start = cpu_time();
        for _ in 0..iterations {
            let slot = any(&mut self.dice, armed);
            self.generations[slot as usize] = self.generations[slot as usize].wrapping_add(1);
            self.arm(slot, self.now + nanos(span(armed)));
        }
        cpu_time() - start
    }

    fn expire(&mut self, iterations: u64) -> Duration {
        let start = cpu_time();
        let span = span(u32::try_from(self.generations.len()).expect("a bench size"));
        let mut fired = 0;
        while fired < iterations {
            self.now += nanos(DEFAULT_TICK);
            while let Some(Reverse((deadline, slot, generation))) = self.heap.peek().copied() {
                if deadline > self.now {
                    break;
                }
                self.heap.pop();
                if self.generations[slot as usize] == generation {
                    self.generations[slot as usize] = generation.wrapping_add(1);
                    self.arm(slot, self.now + nanos(span));
                    fired += 1;
                }
            }
        }
        per_iteration(cpu_time() - start, fired, iterations)
    }
}

struct QueueBed {
    runtime: tokio::runtime::Runtime,
    queue: DelayQueue<u32>,
    keys: Vec<Key>,
    dice: Jitter,
}

impl QueueBed {
    fn new(armed: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O");
        let mut dice = Jitter::new(1);
        let guard = runtime.enter();
        let mut queue = DelayQueue::with_capacity(armed as usize);
        let keys = (0..armed)
            .map(|slot| queue.insert(slot, pick(&mut dice, span(armed))))
            .collect();
        drop(guard);
        Self {
            runtime,
            queue,
            keys,
            dice,
        }
    }

    fn arm_disarm(&mut self, iterations: u64) -> Duration {
        let armed = u32::try_from(self.keys.len()).expect("a bench size");
        let _guard = self.runtime.enter();
        let start = cpu_time();
        for _ in 0..iterations {
            let slot = any(&mut self.dice, armed);
            let key = &mut self.keys[slot as usize];
            black_box(self.queue.remove(key));
            *key = self.queue.insert(slot, pick(&mut self.dice, span(armed)));
        }
        cpu_time() - start
    }

    fn refresh(&mut self, iterations: u64) -> Duration {
        let armed = u32::try_from(self.keys.len()).expect("a bench size");
        let _guard = self.runtime.enter();
        let start = cpu_time();
        for _ in 0..iterations {
            let slot = any(&mut self.dice, armed);
            self.queue.reset(&self.keys[slot as usize], span(armed));
        }
        cpu_time() - start
    }

    fn expire(&mut self, iterations: u64) -> Duration {
        let span = span(u32::try_from(self.keys.len()).expect("a bench size"));
        let (queue, keys) = (&mut self.queue, &mut self.keys);
        self.runtime.block_on(async {
            let start = cpu_time();
            let mut fired = 0;
            while fired < iterations {
                tokio::time::advance(DEFAULT_TICK).await;
                fired += core::future::poll_fn(|context| {
                    let mut due = 0;
                    while let Poll::Ready(Some(expired)) = queue.poll_expired(context) {
                        let slot = expired.into_inner();
                        keys[slot as usize] = queue.insert(slot, span);
                        due += 1;
                    }
                    Poll::Ready(due)
                })
                .await;
            }
            per_iteration(cpu_time() - start, fired, iterations)
        })
    }
}

/// A node of the wheel's size, and nothing of a wheel.
struct MemoryBed {
    nodes: Vec<[u64; 3]>,
    dice: Jitter,
}

impl MemoryBed {
    fn new(armed: u32) -> Self {
        Self {
            nodes: vec![[1; 3]; armed as usize],
            dice: Jitter::new(1),
        }
    }

    fn touch(&mut self, iterations: u64) -> Duration {
        let armed = u32::try_from(self.nodes.len()).expect("a bench size");
        let start = cpu_time();
        for _ in 0..iterations {
            let key = any(&mut self.dice, armed);
            let node = &mut self.nodes[key as usize];
            node[0] = node[0].wrapping_add(black_box(1));
        }
        cpu_time() - start
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("time since the thread started")
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("half an hour")
}

/// A tick fires a few more than asked for; scales the time to the number asked for.
fn per_iteration(elapsed: Duration, fired: u64, iterations: u64) -> Duration {
    let scaled = elapsed.as_nanos() * u128::from(iterations) / u128::from(fired);
    Duration::from_nanos(u64::try_from(scaled).expect("no longer than before"))
}

/// One structure at a time, so that 10 M timers of only one are in memory.
fn compare(criterion: &mut Criterion) {
    for (armed, case) in SIZES {
        let mut bed = MemoryBed::new(armed);
        measure(criterion, "memory", "touch", case, |n| bed.touch(n));
        drop(bed);
        let mut bed = WheelBed::new(armed);
        measure(criterion, "wheel", "arm_disarm", case, |n| {
            bed.arm_disarm(n)
        });
        measure(criterion, "wheel", "refresh", case, |n| bed.refresh(n));
        measure(criterion, "wheel", "expire", case, |n| bed.expire(n));
        let octets = bed.wheel.memory() as f64 / f64::from(armed);
        eprintln!(
            "wheel: with {case}: {octets:.1} octets a timer, worst tick {:?}",
            bed.worst_tick()
        );
        drop(bed);
        let mut bed = HeapBed::new(armed);
        measure(criterion, "binary_heap", "arm_disarm", case, |n| {
            bed.arm_disarm(n)
        });
        measure(criterion, "binary_heap", "refresh", case, |n| {
            bed.refresh(n)
        });
        measure(criterion, "binary_heap", "expire", case, |n| bed.expire(n));
        drop(bed);
        let mut bed = QueueBed::new(armed);
        measure(criterion, "delay_queue", "arm_disarm", case, |n| {
            bed.arm_disarm(n)
        });
        measure(criterion, "delay_queue", "refresh", case, |n| {
            bed.refresh(n)
        });
        measure(criterion, "delay_queue", "expire", case, |n| bed.expire(n));
    }
}

fn measure(
    criterion: &mut Criterion,
    subject: &str,
    operation: &str,
    case: &str,
    mut run: impl FnMut(u64) -> Duration,
) {
    let mut group = criterion.benchmark_group(subject);
    group.throughput(Throughput::Elements(1));
    group.sample_size(10);
    group.warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(3));
    group.bench_function(BenchmarkId::new(operation, case), |bencher| {
        bencher.iter_custom(&mut run);
    });
    group.finish();
}

/// Operations of each figure in a record.
const RECORD_OPERATIONS: u64 = 1_000_000;

/// What was measured of each operation by each structure, in nanoseconds, over the rounds.
#[derive(Default)]
struct Record(Vec<(&'static str, &'static str, Vec<f64>)>);

impl Record {
    fn take(
        &mut self,
        operation: &'static str,
        by: &'static str,
        run: impl FnOnce(u64) -> Duration,
    ) {
        let each = run(RECORD_OPERATIONS).as_nanos() as f64 / RECORD_OPERATIONS as f64;
        self.put(operation, by, each);
    }

    fn put(&mut self, operation: &'static str, by: &'static str, ns: f64) {
        // No comma in a column.
        let case = operation.replace(", ", "_").replace(' ', "_");
        let of = if operation == "worst tick" {
            "of 20000 ticks"
        } else {
            "1000000 operations"
        };
        let how = "CPU time; one structure in memory";
        say(&format!(
            ",wheel,{case}/{by}/10M_armed,{ns:.1},ns,{of}; {how}"
        ));
        let known = self
            .0
            .iter_mut()
            .find(|row| (row.0, row.1) == (operation, by));
        match known {
            Some((.., all)) => all.push(ns),
            None => self.0.push((operation, by, vec![ns])),
        }
    }

    /// Rows of a page: median and range, grouped by operation.
    fn table(&mut self) {
        self.0.sort_by_key(|row| row.0);
        say("| operation | by | median (range) |\n|---|---|---|");
        for (operation, by, all) in &mut self.0 {
            all.sort_by(f64::total_cmp);
            let (least, median, most) = (all[0], all[all.len() / 2], all[all.len() - 1]);
            say(&format!(
                "| {operation} | {by} | {median:.0} ns ({least:.0}-{most:.0}) |"
            ));
        }
    }
}

/// A line on standard output, whatever the lints think of it.
fn say(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stdout().lock(), "{line}").expect("somebody reads it");
}

/// Interleaved rounds: each structure once a round, one at a time in memory.
fn record(rounds: u32) {
    let (armed, mut record) = (SIZES[1].0, Record::default());
    for _ in 0..rounds {
        let mut bed = MemoryBed::new(armed);
        record.take("a random node touched", "floor", |n| bed.touch(n));
        drop(bed);
        let mut bed = WheelBed::new(armed);
        record.take("disarm, arm", "volley", |n| bed.arm_disarm(n));
        record.take("refresh", "volley", |n| bed.refresh(n));
        record.take("expire, arm", "volley", |n| bed.expire(n));
        record.put("worst tick", "volley", bed.worst_tick().as_nanos() as f64);
        drop(bed);
        let mut bed = HeapBed::new(armed);
        record.take("disarm, arm", "BinaryHeap", |n| bed.arm_disarm(n));
        record.take("refresh", "BinaryHeap", |n| bed.refresh(n));
        record.take("expire, arm", "BinaryHeap", |n| bed.expire(n));
        drop(bed);
        let mut bed = QueueBed::new(armed);
        record.take("disarm, arm", "DelayQueue", |n| bed.arm_disarm(n));
        record.take("refresh", "DelayQueue", |n| bed.refresh(n));
        record.take("expire, arm", "DelayQueue", |n| bed.expire(n));
    }
    record.table();
}

criterion_group!(benches, compare);

fn main() {
    let mut words = std::env::args().skip_while(|word| word != "--record");
    if words.next().is_some() {
        let rounds = words.next().and_then(|rounds| rounds.parse().ok());
        return record(rounds.unwrap_or(5));
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
