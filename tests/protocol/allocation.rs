//! A warm shard does not allocate: whole pushes under a counting allocator.
//!
//! Only calls of the core count; what the test itself builds does not.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;

use crate::harness::script::{Answer, Contact, PHONE_A};
use crate::harness::{Bench, options};

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
    /// Octets allocated on this thread and not freed.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    /// Whether the next allocation is to be shown.
    static SHOW: Cell<bool> = const { Cell::new(false) };
}

/// Counts what a thread allocates while it asks for it.
struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written without it")]
// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        grow(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        grow(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        grow(layout.size(), size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note() {
    // A thread that is ending has no counter any more.
    let _gone = COUNT.try_with(|count| {
        let Some(n) = count.take() else { return };
        if SHOW.with(Cell::get) {
            eprintln!("{}", Backtrace::force_capture());
        }
        count.set(Some(n + 1));
    });
}

fn grow(from: usize, to: usize) {
    // Sizes are below 2^63.
    let change = to.cast_signed().wrapping_sub(from.cast_signed()) as i64;
    let _gone = LIVE.try_with(|live| live.set(live.get() + change));
}

/// Octets that this thread has allocated and nobody freed.
pub(crate) fn live_octets() -> i64 {
    LIVE.with(Cell::get)
}

/// Runs `work` and adds what it allocated to `total`.
pub(crate) fn counted<T>(total: &mut u64, work: impl FnOnce() -> T) -> T {
    COUNT.with(|count| count.set(Some(0)));
    let result = work();
    *total += COUNT.with(|count| count.replace(None)).unwrap_or(0);
    result
}

/// Pushes before counting starts, and pushes counted.
const WARM: usize = 300;
const COUNTED: usize = 10_000;

fn bench() -> Bench {
    let mut options = options();
    options.push.linger = std::time::Duration::ZERO;
    options.campaign.outcome.backoff_min = std::time::Duration::from_secs(1);
    options.pushes_max = 64;
    options.post.kept_warm = volley::base::limits::WARM_KEPT;
    let mut bench = Bench::with(options);
    bench.reuse_links = true;
    bench
}

/// Runs `push` warm, then counts what the core allocates in it.
fn measure(bench: &mut Bench, mut push: impl FnMut(&mut Bench)) -> u64 {
    for _ in 0..WARM {
        push(bench);
    }
    bench.shard.watching = true;
    SHOW.with(|show| show.set(std::env::var_os("VOLLEY_SHOW_ALLOCATIONS").is_some()));
    for _ in 0..COUNTED {
        push(bench);
        if bench.shard.allocated > 50 && SHOW.with(Cell::get) {
            break;
        }
    }
    SHOW.with(|show| show.set(false));
    bench.shard.allocated
}

// Proves: TX-12
#[test]
fn ten_thousand_warm_signalling_pushes_allocate_nothing() {
    let mut bench = bench();
    bench.deposit("stays");
    let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
    let first = bench.expect("INVITE");
    bench.reply(&first, "403 Forbidden", "");
    bench.expect("ACK");
    let mut cseq = 1;
    let allocated = measure(&mut bench, |bench| {
        cseq += 1;
        let mut contact = Contact::of(PHONE_A);
        contact.call_id = format!("call{cseq}");
        bench.notify(&mut notifier, "partial", &[contact]);
        bench.run_s(1);
        let invite = bench.expect("INVITE");
        bench.reply(&invite, "100 Trying", "");
        // An answer without a media line: a session that is agreed and ended at once.
        bench.take_sip();
        let mut answer = Answer::active();
        answer.sdp = "v=0\r\n".to_owned();
        bench.accept(&invite, &answer);
        let bye = bench.expect("BYE");
        bench.reply(&bye, "200 OK", "");
    });
    assert_eq!(allocated, 0);
}

#[test]
fn ten_thousand_warm_full_pushes_allocate_nothing() {
    let mut bench = bench();
    bench.deposit("first");
    let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
    let mut cseq = 1;
    let session = |bench: &mut Bench| {
        let invite = bench.expect("INVITE");
        bench.bound(&invite, &Answer::active());
        let sends = bench.take_msrp();
        assert!(!sends.is_empty());
        for send in &sends {
            bench.take_message(send);
        }
        let bye = bench.expect("BYE");
        bench.reply(&bye, "200 OK", "");
    };
    session(&mut bench);
    let allocated = measure(&mut bench, |bench| {
        bench.run_s(1);
        bench.deposit("hello");
        session(bench);
        cseq += 1;
        let mut contact = Contact::of(PHONE_A);
        contact.event = "refreshed";
        contact.cseq = cseq;
        bench.notify(&mut notifier, "partial", &[contact]);
    });
    assert_eq!(bench.messages(), 0);
    assert_eq!(allocated, 0);
}
