//! The journal under load: appends a second, CPU per append, syncs a second, reads, reopening.
//!
//! ```text
//! cargo bench --bench store [-- seconds]
//! ```
//! Writes to a directory of its own below the system's directory for temporary files; set TMPDIR to
//! measure another disk. Prints one line per case; figures in docs name machine and disk.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use rustix::time::{ClockId, clock_gettime};
use volley::base::surface::{Location, StoreBatch, StoreDone, StoreTicket};
use volley::base::time::UnixMillis;
use volley::io::store::{Journal, JournalOptions};
use volley::store::op::{Deposit, Mark, MarkKind, RemovalReason};
use volley::store::record;

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).expect("counts up"), {
        u32::try_from(time.tv_nsec).expect("below a second")
    })
}

struct Case {
    name: &'static str,
    /// Appends handed over at once, as one turn of a shard does.
    batch: usize,
    /// Appends outstanding at most; stands for the clients that wait for their 202.
    window: usize,
    payload: Vec<u8>,
}

fn deposit() -> Vec<u8> {
    let body = vec![b'x'; 430];
    let deposit = Deposit {
        user: b"+49301234567",
        identity: b"sip:+49301234567@ims.example",
        number: 1,
        received: UnixMillis(1_700_000_000_000),
        expires: UnixMillis(1_700_600_000_000),
        sender: b"sip:+49307654321@ims.example",
        imdn_message_id: b"Dfs8a97fd80sa7f9",
        contribution_id: b"abcdef-1234-5678-90ab",
        content_type: b"text/plain",
        cpim: &body,
        ..Deposit::default()
    };
    let mut out = Vec::new();
    record::encode_deposit(&deposit, &mut out).expect("within its limits");
    out
}

fn mark() -> Vec<u8> {
    let mark = Mark {
        user: b"+49301234567",
        number: 1,
        at: UnixMillis(1_700_000_000_000),
        kind: MarkKind::Removed {
            reason: RemovalReason::Delivered,
        },
    };
    let mut out = Vec::new();
    record::encode_mark(&mark, &mut out).expect("within its limits");
    out
}

async fn append(place: &Path, case: &Case, time: Duration) -> Vec<Location> {
    let options = JournalOptions::default();
    let mut journal = Journal::open(place, &options, &mut |_, _| ())
        .await
        .expect("it opens");
    let (mut batch, mut done) = (StoreBatch::default(), StoreDone::default());
    let (mut next, mut acknowledged) = (1u64, 0u64);
    let mut places = Vec::new();
    let mut latencies = Vec::with_capacity(1 << 20);
    let mut sent = std::collections::VecDeque::new();
    let (start, cpu_start) = (Instant::now(), cpu());
    while start.elapsed() < time {
        let at = Instant::now();
        while next - acknowledged <= case.window as u64 {
            for _ in 0..case.batch {
                batch.bytes.extend_from_slice(&case.payload);
                let len = u32::try_from(case.payload.len()).expect("small");
                batch.appends.push((StoreTicket(next), len));
                next += 1;
            }
            if !journal.submit(&mut batch) {
                next -= case.batch as u64;
                batch.bytes.clear();
                batch.appends.clear();
                break;
            }
            sent.push_back((next, at));
        }
        glommio::timer::sleep(Duration::from_micros(50)).await;
        while journal.poll(&mut done) {
            assert!(done.failed_from.is_none(), "the disk failed");
            acknowledged += done.stored.len() as u64;
            let keep = places.len() < 200_000;
            places.extend(done.stored.iter().filter(|_| keep).map(|&(_, at)| at));
            while sent
                .front()
                .is_some_and(|&(last, _)| last <= acknowledged + 1)
            {
                let (_, at) = sent.pop_front().expect("just seen");
                latencies.push(at.elapsed());
            }
        }
    }
    let (wall, busy) = (start.elapsed(), cpu() - cpu_start);
    let totals = journal.totals();
    journal.close().await;
    latencies.sort_unstable();
    let rank = |share: usize| latencies.get(latencies.len() * share / 1000).copied();
    let appends = u32::try_from(totals.appends)
        .expect("a bench is short")
        .max(1);
    println!(
        "{:<28} {:>9.0} appends/s  {:>6.2} us CPU/append  {:>6.0} syncs/s  {:>6.1} appends/sync  \
         {:>5.2} written/payload  p50 {:.1?}  p99 {:.1?}",
        case.name,
        f64::from(appends) / wall.as_secs_f64(),
        busy.as_secs_f64() * 1e6 / f64::from(appends),
        totals.syncs as f64 / wall.as_secs_f64(),
        f64::from(appends) / totals.syncs as f64,
        totals.written_bytes as f64 / totals.append_bytes as f64,
        rank(500).unwrap_or_default(),
        rank(990).unwrap_or_default(),
    );
    places
}

async fn read(place: &Path, places: &[Location], scattered: bool) {
    let options = JournalOptions::default();
    let start = Instant::now();
    let mut journal = Journal::open(place, &options, &mut |_, _| ())
        .await
        .expect("it opens");
    let recovered = journal.recovered().clone();
    if !scattered {
        println!(
            "{:<28} {:>9.0} records/s  {} records, {} MiB, {:.2?}",
            "reopen",
            recovered.records as f64 / start.elapsed().as_secs_f64(),
            recovered.records,
            recovered.bytes >> 20,
            start.elapsed()
        );
    }
    let (mut batch, mut done) = (StoreBatch::default(), StoreDone::default());
    let count = if scattered {
        places.len().min(20_000)
    } else {
        places.len()
    };
    let (start, cpu_start) = (Instant::now(), cpu());
    let (mut asked, mut got) = (0, 0);
    while got < count {
        while asked < count && asked - got < 2048 {
            for _ in 0..64.min(count - asked) {
                let pick = if scattered {
                    asked * 7919 % places.len()
                } else {
                    asked
                };
                batch.reads.push((asked as u64, places[pick]));
                asked += 1;
            }
            assert!(journal.submit(&mut batch), "within the bound");
        }
        glommio::timer::sleep(Duration::from_micros(50)).await;
        while journal.poll(&mut done) {
            got += done.loaded.len();
            assert!(
                done.loaded.iter().all(|&(_, from, to)| from < to),
                "every record is there"
            );
        }
    }
    let totals = journal.totals();
    println!(
        "{:<28} {:>9.0} reads/s    {:>6.2} us CPU/read    {:>6.1} records/disk read",
        if scattered {
            "read, scattered"
        } else {
            "read, in order"
        },
        count as f64 / start.elapsed().as_secs_f64(),
        (cpu() - cpu_start).as_secs_f64() * 1e6 / count as f64,
        totals.reads as f64 / totals.read_windows as f64,
    );
    journal.close().await;
}

fn run(place: PathBuf, seconds: u64) {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(4 << 20);
    let executor = builder.make().expect("io_uring is there");
    executor.run(async move {
        let cases = [
            Case {
                name: "deposit, one at a time",
                batch: 1,
                window: 1,
                payload: deposit(),
            },
            Case {
                name: "deposit, 256 outstanding",
                batch: 8,
                window: 256,
                payload: deposit(),
            },
            Case {
                name: "deposit, 8192 outstanding",
                batch: 64,
                window: 8192,
                payload: deposit(),
            },
            Case {
                name: "mark, 8192 outstanding",
                batch: 64,
                window: 8192,
                payload: mark(),
            },
        ];
        println!(
            "deposit {} octets, mark {} octets",
            deposit().len(),
            mark().len()
        );
        let mut places = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let found = append(&place, case, Duration::from_secs(seconds)).await;
            if number == 2 {
                places = found;
            }
        }
        read(&place, &places, false).await;
        read(&place, &places, true).await;
    });
}

fn main() {
    let seconds = std::env::args()
        .filter_map(|word| word.parse().ok())
        .next()
        .unwrap_or(3);
    let place = std::env::temp_dir().join(format!("volley-bench-store-{}", std::process::id()));
    std::fs::create_dir(&place).expect("the directory for temporary files is writable");
    run(place.clone(), seconds);
    std::fs::remove_dir_all(&place).expect("it was just made");
}
