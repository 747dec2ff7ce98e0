//! The tasks that read records back. Neighbouring requests share one read of the disk.

use std::rc::Rc;

use crate::base::surface::Location;
use crate::io::exec::{File, Read};
use crate::io::store::format::{self, BLOCK, Key, Kind};
use crate::io::store::journal::{LOADED_BYTES_MAX, Shared, State};
use crate::io::store::segment;

/// Places in the journal at which reads go forward, that are remembered.
const TRAILS_MAX: usize = 32;
/// Octets that the first read beyond what was asked for takes; each further one of a trail twice as many.
const AHEAD_BYTES: u32 = 32 << 10;

/// Reads that follow each other in the journal, as when users come in the order in which their messages
/// came: from the second one on, more is read than was asked for, and kept for those who ask next.
#[derive(Debug)]
struct Trail {
    segment: u32,
    /// What the last read covers, from a block on.
    start: u32,
    end: u32,
    /// Octets that the next one takes at least.
    ahead: u32,
    /// What it brought, while more may be asked of it.
    bytes: Option<Read>,
    /// The read is under way.
    reading: bool,
    /// Requests that wait for it.
    waiting: Vec<(u64, Location)>,
    /// When it was of use last.
    used: u64,
}

/// The trails of a journal.
#[derive(Debug, Default)]
pub(crate) struct Trails {
    rows: Vec<Trail>,
    clock: u64,
}

impl Trails {
    /// Octets of what was read ahead.
    pub(crate) fn memory(&self) -> usize {
        let read = |row: &Trail| row.bytes.as_ref().map_or(0, |bytes| bytes.len());
        let waiting = |row: &Trail| row.waiting.capacity() * size_of::<(u64, Location)>();
        self.rows.iter().map(|row| read(row) + waiting(row)).sum()
    }

    /// The trail whose last read covers the record at `at`.
    fn covering(&self, at: Location) -> Option<usize> {
        let end = end_of(at)?;
        self.rows
            .iter()
            .position(|row| row.segment == at.segment && row.start <= at.offset && end <= row.end)
    }

    /// A read of `segment` from `start` to `end` begins: the trail it belongs to, and the octets it takes.
    /// `None`: all trails are being read on.
    fn follow(&mut self, place: (u32, u32, u32), gap: u32, most: u32) -> Option<(usize, u32)> {
        let (segment, start, end) = place;
        self.clock += 1;
        let goes_on = |row: &Trail| {
            let near = row.start..=row.end.saturating_add(gap);
            row.segment == segment && !row.reading && near.contains(&start)
        };
        let found = self.rows.iter().position(goes_on);
        let at = match found {
            Some(at) => at,
            None if self.rows.len() < TRAILS_MAX => {
                self.rows.push(Trail {
                    segment,
                    start,
                    end,
                    ahead: 0,
                    bytes: None,
                    reading: false,
                    waiting: Vec::new(),
                    used: 0,
                });
                self.rows.len() - 1
            }
            None => {
                let idle = self.rows.iter().enumerate().filter(|(_, row)| !row.reading);
                idle.min_by_key(|(_, row)| row.used)?.0
            }
        };
        let row = &mut self.rows[at];
        row.ahead = match (found, row.ahead) {
            (None, _) => 0,
            (Some(_), 0) => AHEAD_BYTES,
            (Some(_), ahead) => ahead.saturating_mul(2),
        };
        row.ahead = row.ahead.min(most);
        let size = (end - start).max(row.ahead);
        (row.segment, row.start, row.end) = (segment, start, start.saturating_add(size));
        row.bytes = None;
        row.reading = true;
        row.used = self.clock;
        Some((at, size))
    }
}

/// Reads until the journal ends. Several of these run.
pub(crate) async fn run(shared: Rc<Shared>) {
    let mut window = Vec::new();
    loop {
        window.clear();
        let read = {
            let mut state = shared.state();
            if state.stopping || (state.closing && state.reads.is_empty()) {
                return;
            }
            gather(&shared, &mut state, &mut window);
            plan(&shared, &mut state, &window)
        };
        let Some((segment, start, size, trail)) = read else {
            if !shared.state().closing {
                shared.reads.wait().await;
            }
            continue;
        };
        if !shared.state().reads.is_empty() {
            shared.reads.notify_one();
        }
        let bytes = load(&shared, segment, start, size).await;
        let mut state = shared.state();
        answer(
            &mut state,
            shared.stamp.key,
            &window,
            start,
            bytes.as_deref().unwrap_or_default(),
        );
        state.totals.read_windows += 1;
        let Some(trail) = trail else { continue };
        let mut waiting = core::mem::take(&mut state.trails.rows[trail].waiting);
        answer_waiting(
            &mut state,
            shared.stamp.key,
            &waiting,
            start,
            bytes.as_deref().unwrap_or_default(),
        );
        waiting.clear();
        let row = &mut state.trails.rows[trail];
        row.waiting = waiting;
        row.reading = false;
        row.bytes = bytes.filter(|_| row.ahead > 0);
        if row.bytes.is_none() {
            // Of where it ended alone.
            row.start = row.end;
        }
    }
}

/// The read for `window`: its segment, start and octets, and the trail it is on.
fn plan(
    shared: &Shared,
    state: &mut State,
    window: &[(u64, Location)],
) -> Option<(u32, u32, u32, Option<usize>)> {
    let (first, last) = (window.first()?, window.last()?);
    let options = &shared.options;
    let segment = first.1.segment;
    let start = first.1.offset / BLOCK * BLOCK;
    let end = end_of(last.1).unwrap_or(last.1.offset);
    let size = format::block_up(end.saturating_sub(start)).max(BLOCK);
    // Behind what was acknowledged nothing can be asked for yet.
    let (newest, written) = format::split(state.acknowledged_to);
    let limit = if segment == newest {
        written
    } else {
        options.segment_bytes
    };
    let place = (segment, start, start.saturating_add(size));
    let most = options.read_window_bytes / BLOCK * BLOCK;
    let most = most.min(format::block_up(limit.saturating_sub(start)));
    match state.trails.follow(place, options.read_gap_bytes, most) {
        Some((trail, size)) => Some((segment, start, size, Some(trail))),
        None => Some((segment, start, size, None)),
    }
}

fn end_of(at: Location) -> Option<u32> {
    at.offset.checked_add(format::record_bytes(at.len)?)
}

/// Answers requests from the front that a read made ahead covers, and takes others as long as one read can
/// answer them.
fn gather(shared: &Shared, state: &mut State, window: &mut Vec<(u64, Location)>) {
    let options = &shared.options;
    while let Some(&(token, at)) = state.reads.front() {
        if state.done.bytes.len() > LOADED_BYTES_MAX && !state.closing {
            return;
        }
        if let Some(trail) = state.trails.covering(at)
            && recall(state, shared.stamp.key, trail, (token, at))
        {
            continue;
        }
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

/// Lets the read of `trail`, which covers it, answer the request at the front. False when what was read is
/// not the record: it may have been written since.
fn recall(state: &mut State, key: Key, trail: usize, (token, at): (u64, Location)) -> bool {
    let row = &mut state.trails.rows[trail];
    if row.reading {
        row.waiting.push((token, at));
        state.reads.pop_front();
        state.reading += 1;
        return true;
    }
    let Some(bytes) = row.bytes.take() else {
        return false;
    };
    let payload = record_at(&bytes, key, row.start, at);
    if payload.is_some() {
        state.reads.pop_front();
        give(state, token, payload);
        state.wake();
        state.trails.clock += 1;
    }
    let is_there = payload.is_some();
    let used = state.trails.clock;
    let row = &mut state.trails.rows[trail];
    row.used = used;
    row.bytes = Some(bytes);
    is_there
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

/// The payload of the record at `at` in `bytes`, which begin at `start`, if it is there unharmed.
fn record_at(bytes: &[u8], key: Key, start: u32, at: Location) -> Option<&[u8]> {
    let record = bytes.get((at.offset - start) as usize..)?;
    let found = format::read(record, format::position(at.segment, at.offset), key)?;
    let is_it = found.kind == Kind::Data && u32::try_from(found.payload.len()) == Ok(at.len);
    is_it.then_some(found.payload)
}

fn answer(state: &mut State, key: Key, window: &[(u64, Location)], start: u32, bytes: &[u8]) {
    for &(token, at) in window {
        give(state, token, record_at(bytes, key, start, at));
    }
    state.reading -= window.len();
    state.wake();
}

/// As [`answer`], for requests that had not asked for this read: those whose record it did not bring get one
/// of their own.
fn answer_waiting(
    state: &mut State,
    key: Key,
    waiting: &[(u64, Location)],
    start: u32,
    bytes: &[u8],
) {
    for &(token, at) in waiting {
        match record_at(bytes, key, start, at) {
            Some(payload) => give(state, token, Some(payload)),
            None => state.reads.push_front((token, at)),
        }
    }
    state.reading -= waiting.len();
    state.wake();
}

/// The answer to the request of `token`; `None`: its record cannot be read.
fn give(state: &mut State, token: u64, payload: Option<&[u8]>) {
    let from = state.done.bytes.len();
    if let Some(payload) = payload {
        state.done.bytes.extend_from_slice(payload);
        state.totals.reads += 1;
    } else {
        state.totals.reads_failed += 1;
    }
    let to = state.done.bytes.len();
    let range = |at: usize| u32::try_from(at).expect("bounded by the queue of reads");
    state.done.loaded.push((token, range(from), range(to)));
}
