//! Opening a store of many pending messages: time and memory, from its records and from a checkpoint.
//!
//! ```text
//! cargo bench --bench recovery -- fill DIR [messages] [users] [window]   make the store
//! cargo bench --bench recovery -- checkpoint DIR                  open it, make a checkpoint
//! cargo bench --bench recovery -- open DIR                        open it, as a start does
//! ```
//! DIR is kept; give each step a process of its own, so that memory is that of the step.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use volley::base::surface::{Core, Location, StoreBatch, StoreDone, StoreTicket};
use volley::base::time::{Timestamp, UnixMillis};
use volley::io::store::{Journal, JournalOptions, Recovery};
use volley::shard::recover::Recovered;
use volley::shard::{Shard, ShardSeed};
use volley::store::op::Deposit;
use volley::store::record;

#[expect(
    dead_code,
    reason = "the options of the tests' shards are all that is needed here"
)]
#[path = "../tests/protocol/harness/mod.rs"]
mod harness;

/// Stands in for the counter of the tests.
mod allocation {
    pub(crate) fn counted<T>(_total: &mut u64, work: impl FnOnce() -> T) -> T {
        work()
    }
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Memory of this process, MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

struct Loader {
    shard: Shard,
    found: Recovered,
}

impl Recovery for Loader {
    fn piece(&mut self, bytes: &[u8]) -> bool {
        self.shard.load(bytes, &mut self.found)
    }

    fn record(&mut self, at: Location, payload: &[u8]) {
        self.shard.recover(at, payload, &mut self.found);
    }

    fn finish(&mut self, segments: &[u32]) -> u64 {
        self.shard.forget_absent(segments)
    }
}

fn shard() -> Shard {
    let mut options = harness::options();
    options.post.kept_warm = volley::base::limits::WARM_KEPT;
    options.users_max = 8_000_000;
    let seed = ShardSeed {
        identifier_key: [7; 16],
        stream: [9; 32],
    };
    Shard::new(
        options,
        seed,
        Timestamp::ZERO,
        UnixMillis(1_800_000_000_000),
    )
    .expect("the options of the tests compile")
}

async fn open(place: &Path) -> (Shard, Journal) {
    let begun = Instant::now();
    let mut loader = Loader {
        shard: shard(),
        found: Recovered::default(),
    };
    let journal = Journal::open_with(place, &JournalOptions::default(), &mut loader)
        .await
        .expect("it opens");
    let read = begun.elapsed();
    loader.shard.recovered(Timestamp::ZERO);
    let recovered = journal.recovered();
    println!(
        "open: {:.2} s to read, {:.2} s in all; {} messages, {} from the checkpoint of {} MiB, {} \
         records of {} MiB read; peak memory {} MiB",
        read.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        loader.found.messages,
        loader.found.saved,
        recovered.checkpoint_bytes >> 20,
        recovered.records,
        recovered.bytes >> 20,
        resident()
    );
    (loader.shard, journal)
}

async fn fill(place: PathBuf, messages: u64, users: u64, window: u64) {
    let body = vec![b'x'; 600];
    let mut journal = Journal::open(&place, &JournalOptions::default(), &mut |_, _| ())
        .await
        .expect("it opens");
    let (mut batch, mut done) = (StoreBatch::default(), StoreDone::default());
    let (mut next, mut acknowledged) = (0, 0);
    let begun = Instant::now();
    // When each batch was handed over, by its last ticket; then how long each took.
    let mut handed: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut took: Vec<u64> = Vec::new();
    while acknowledged < messages {
        while next < messages && next - acknowledged < window && batch.appends.is_empty() {
            for _ in 0..64 {
                // Users in no order, so that one user's messages lie apart.
                let user = (next * 7_919) % users;
                let canonical = format!("+49{user:010}");
                let identity = format!("sip:+49{user:010}@ims.example.net");
                let id = format!("id-{next:020}");
                let deposit = Deposit {
                    user: canonical.as_bytes(),
                    identity: identity.as_bytes(),
                    number: next + 1,
                    received: UnixMillis(1_800_000_000_000),
                    expires: UnixMillis(1_800_600_000_000 + next),
                    sender: b"sip:+49307654321@ims.example.net",
                    imdn_message_id: id.as_bytes(),
                    contribution_id: b"94d850fb-ed40-437e-9609-000000000000",
                    conversation_id: b"4f93f0fe-86d6-462c-9ba2-000000000000",
                    content_type: b"text/plain",
                    cpim: &body,
                    ..Deposit::default()
                };
                let from = batch.bytes.len();
                record::encode_deposit(&deposit, &mut batch.bytes).expect("within its limits");
                let len = u32::try_from(batch.bytes.len() - from).expect("small");
                next += 1;
                batch.appends.push((StoreTicket(next), len));
            }
            handed.push_back((next, Instant::now()));
            if !journal.submit(&mut batch) {
                break;
            }
        }
        glommio::timer::sleep(Duration::from_micros(200)).await;
        if !batch.appends.is_empty() {
            journal.submit(&mut batch);
        }
        if journal.poll(&mut done) {
            acknowledged += done.stored.len() as u64;
            while let Some(&(last, since)) = handed.front().filter(|at| at.0 <= acknowledged) {
                took.push(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
                handed.pop_front();
                debug_assert!(last <= next);
            }
        }
    }
    let totals = journal.totals();
    took.sort_unstable();
    let at = |share: usize| took.get(took.len() * share / 1000).map_or(0, |&us| us) as f64 / 1e3;
    println!(
        "filled: {messages} messages of {users} users in {:.1} s, {} MiB of records, {} MiB written in \
         {} syncs; durable after {:.1} ms (half), {:.1} ms (99 %), {:.1} ms (99.9 %)",
        begun.elapsed().as_secs_f64(),
        totals.append_bytes >> 20,
        totals.written_bytes >> 20,
        totals.syncs,
        at(500),
        at(990),
        at(999)
    );
    journal.close().await;
}

async fn checkpoint(place: PathBuf) {
    let (shard, mut journal) = open(&place).await;
    let (mut batch, mut done) = (StoreBatch::default(), StoreDone::default());
    let (mut piece, mut ticket) = (Vec::new(), 1);
    let (begun, mut busy, mut pieces) = (Instant::now(), Duration::ZERO, 0);
    let mut longest = Duration::ZERO;
    while journal.totals().checkpoints == 0 {
        // One more record of no message at a time, so that segments fill and the journal looks.
        if pieces == 0 {
            let filler = vec![0; 60 << 10];
            batch.bytes.extend_from_slice(&filler);
            batch.appends.push((StoreTicket(ticket), 60 << 10));
            ticket += 1;
            journal.submit(&mut batch);
        }
        glommio::timer::sleep(Duration::from_micros(100)).await;
        journal.poll(&mut done);
        if let Some(at) = journal.wants_piece() {
            piece.clear();
            let started = Instant::now();
            let next = shard.checkpoint(at, &mut piece);
            let took = started.elapsed();
            busy += took;
            longest = longest.max(took);
            pieces += 1;
            journal.take_piece(&mut piece, next);
        }
    }
    let totals = journal.totals();
    println!(
        "checkpoint: {} MiB in {pieces} pieces, {:.1} s; the core worked {:.0} ms for it, {:.0} us at \
         most at a time",
        totals.checkpoint_bytes >> 20,
        begun.elapsed().as_secs_f64(),
        busy.as_secs_f64() * 1e3,
        longest.as_secs_f64() * 1e6
    );
    journal.close().await;
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|at| at != "--bench")
        .collect();
    let Some((step, place)) = arguments.first().zip(arguments.get(1)) else {
        println!("give a step and a directory; see the head of benches/recovery.rs");
        return;
    };
    let place = std::path::absolute(place).expect("a path");
    let number = |at: usize, or: u64| {
        arguments
            .get(at)
            .and_then(|at| at.parse().ok())
            .unwrap_or(or)
    };
    let (messages, users) = (number(2, 5_000_000), number(3, 1_000_000));
    let window = number(4, 8192);
    let step = step.clone();
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(2 << 20);
    builder
        .spawn(move || async move {
            match step.as_str() {
                "fill" => fill(place, messages, users, window).await,
                "checkpoint" => checkpoint(place).await,
                _ => {
                    let (_shard, journal) = open(&place).await;
                    journal.close().await;
                }
            }
        })
        .expect("an executor")
        .join()
        .expect("it runs");
}
