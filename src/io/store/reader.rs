//! The tasks that read records back. Neighbouring requests share one read of the disk.

use std::rc::Rc;

use crate::base::surface::Location;
use crate::io::exec::{File, Read};
use crate::io::store::format::{self, BLOCK, Kind};
use crate::io::store::journal::{LOADED_BYTES_MAX, Shared, State};
use crate::io::store::segment;

/// Reads until the journal ends. Several of these run.
pub(crate) async fn run(shared: Rc<Shared>) {
    let mut window = Vec::new();
    loop {
        window.clear();
        {
            let mut state = shared.state();
            if state.stopping || (state.closing && state.reads.is_empty()) {
                return;
            }
            gather(&shared, &mut state, &mut window);
        }
        let (Some(first), Some(last)) = (window.first(), window.last()) else {
            shared.reads.wait().await;
            continue;
        };
        if !shared.state().reads.is_empty() {
            shared.reads.notify_one();
        }
        let segment = first.1.segment;
        let start = first.1.offset / BLOCK * BLOCK;
        let end = end_of(last.1).unwrap_or(last.1.offset);
        let size = format::block_up(end.saturating_sub(start)).max(BLOCK);
        let bytes = load(&shared, segment, start, size).await;
        answer(
            &mut shared.state(),
            &window,
            start,
            bytes.as_deref().unwrap_or_default(),
        );
    }
}

fn end_of(at: Location) -> Option<u32> {
    at.offset.checked_add(format::record_bytes(at.len)?)
}

/// Takes requests from the front as long as one read can answer them.
fn gather(shared: &Shared, state: &mut State, window: &mut Vec<(u64, Location)>) {
    let options = &shared.options;
    if state.done.bytes.len() > LOADED_BYTES_MAX && !state.closing {
        return;
    }
    while let Some(&(token, at)) = state.reads.front() {
        if let (Some(first), Some(last)) = (window.first(), window.last()) {
            let first: &(u64, Location) = first;
            let last: &(u64, Location) = last;
            let near = at.segment == last.1.segment
                && at.offset >= last.1.offset
                && end_of(last.1)
                    .is_some_and(|end| at.offset <= end.saturating_add(options.read_gap_bytes))
                && end_of(at).is_some_and(|end| end - first.1.offset <= options.read_window_bytes);
            if !near {
                break;
            }
        }
        window.push((token, at));
        state.reads.pop_front();
        state.reading += 1;
    }
}

async fn load(shared: &Shared, segment: u32, start: u32, size: u32) -> Option<Read> {
    // A location that no segment can hold: not ours, answered as unreadable.
    if size > shared.options.segment_bytes.max(1 << 26) {
        return None;
    }
    let file = file(shared, segment).await?;
    file.read_at(u64::from(start), size as usize).await.ok()
}

async fn file(shared: &Shared, segment: u32) -> Option<Rc<File>> {
    if let Some(file) = shared.state().file(segment) {
        return Some(file);
    }
    if !shared.state().gate.open(segment) {
        return None;
    }
    let path = segment::path(&shared.directory, segment);
    let file = segment::open(&path, false).await;
    shared.state().gate.opened(segment);
    let file = file.ok()?;
    shared.state().keep_file(segment, Rc::clone(&file));
    Some(file)
}

fn answer(state: &mut State, window: &[(u64, Location)], start: u32, bytes: &[u8]) {
    state.totals.read_windows += 1;
    for &(token, at) in window {
        let record = bytes
            .get((at.offset - start) as usize..)
            .unwrap_or_default();
        let found = format::read(record, format::position(at.segment, at.offset));
        let payload = found.filter(|found| {
            found.kind == Kind::Data && u32::try_from(found.payload.len()) == Ok(at.len)
        });
        let from = state.done.bytes.len();
        if let Some(found) = payload {
            state.done.bytes.extend_from_slice(found.payload);
            state.totals.reads += 1;
        } else {
            state.totals.reads_failed += 1;
        }
        let to = state.done.bytes.len();
        let range = |at: usize| u32::try_from(at).expect("bounded by the queue of reads");
        state.done.loaded.push((token, range(from), range(to)));
    }
    state.reading -= window.len();
    state.wake();
}
