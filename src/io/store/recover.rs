//! Reads a journal back: hands every whole record to the caller, finds where the writing stopped.
//!
//! | place | verdict |
//! |---|---|
//! | invalid, and a whole commit record lies behind it in any segment | damaged: it was durable once |
//! | invalid, nothing whole behind it | torn tail: cut off, was never acknowledged |
//! | a commit names another end of the group before than what was read | damaged: a group is gone |
//! | no record of this segment behind the last group | the segment's free rest: zeros, or what an earlier life of the file left |
//!
//! Behind a damaged place the scan goes on at the next record that names its own place, so one bad
//! block costs the records in it and no others. A bit flipped in the very last group cannot be told
//! from a torn write, unless the journal was closed in order: that leaves an empty group behind.

use std::path::Path;

use crate::base::surface::Location;
use crate::io::store::checkpoint::{self, End};
use crate::io::store::directory;
use crate::io::store::error::JournalError;
use crate::io::store::format::{self, BLOCK, HEADER, Key, Kind};
use crate::io::store::journal::{DAMAGES_MAX, Damage, Recovered};
use crate::io::store::segment;

/// Takes what a journal holds when it is opened: first the pieces of a checkpoint, if there is one,
/// then every record that is not in it, in order.
pub trait Recovery {
    /// A piece as [`Core::checkpoint`](crate::base::surface::Core::checkpoint) gave it. False when it
    /// cannot be used; `restart` follows then.
    fn piece(&mut self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }

    /// The pieces so far were of no use: forget them, all records follow.
    fn restart(&mut self) {}

    /// The next record.
    fn record(&mut self, at: Location, payload: &[u8]);

    /// All was read, and only `segments`, ascending, exist: how many messages must be in others, and
    /// so are lost.
    fn finish(&mut self, segments: &[u32]) -> u64 {
        let _ = segments;
        0
    }
}

/// A recovery that wants records only.
pub(crate) struct Records<'a>(pub(crate) &'a mut dyn FnMut(Location, &[u8]));

impl Recovery for Records<'_> {
    fn record(&mut self, at: Location, payload: &[u8]) {
        (self.0)(at, payload);
    }
}

/// What the next life of the journal starts from.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) recovered: Recovered,
    /// Highest number of any segment; zero for none.
    pub(crate) newest: u32,
    /// Where the last whole record ends; zero for a new store.
    pub(crate) before: u64,
    /// Segments without any record.
    pub(crate) empty: Vec<u32>,
    /// The checkpoint that was used.
    pub(crate) checkpoint: Option<End>,
    /// The oldest segment.
    pub(crate) oldest: u32,
    /// Segment files there are.
    pub(crate) segments: usize,
    /// What the store's records are made with; `None` while it has no segment.
    pub(crate) key: Option<Key>,
}

/// Scans every segment of `directory` in order. Changes nothing on disk.
pub(crate) async fn run(
    directory: &Path,
    shard: u32,
    recovery: &mut dyn Recovery,
) -> Result<Outcome, JournalError> {
    let checkpoint = checkpoint::load(directory, shard, recovery).await?;
    let refused = checkpoint.is_none() && directory.join(checkpoint::NAME).exists();
    if refused {
        recovery.restart();
    }
    let mut outcome = scan(&mut Files(directory), shard, checkpoint, recovery).await?;
    outcome.recovered.checkpoint_refused = refused;
    Ok(outcome)
}

/// As [`run`], without a look at the checkpoint.
pub(crate) async fn run_all(
    directory: &Path,
    shard: u32,
    recovery: &mut dyn Recovery,
) -> Result<Outcome, JournalError> {
    scan(&mut Files(directory), shard, None, recovery).await
}

/// Where segments are read from.
pub(crate) trait Source {
    /// Numbers of all segments, ascending.
    fn numbers(&self) -> Result<Vec<u32>, JournalError>;
    /// Reads a whole segment into `bytes`, replacing what is there.
    async fn load(&mut self, number: u32, bytes: &mut Vec<u8>) -> Result<(), JournalError>;
    /// As [`Source::load`], the first block only.
    async fn load_head(&mut self, number: u32, bytes: &mut Vec<u8>) -> Result<(), JournalError>;
}

/// The files of a directory.
struct Files<'a>(&'a Path);

impl Source for Files<'_> {
    fn numbers(&self) -> Result<Vec<u32>, JournalError> {
        directory::segments(self.0)
    }

    async fn load(&mut self, number: u32, bytes: &mut Vec<u8>) -> Result<(), JournalError> {
        let path = segment::path(self.0, number);
        let file = segment::open(&path, false).await?;
        segment::load(&file, &path, bytes).await?;
        segment::close(file, &path).await
    }

    async fn load_head(&mut self, number: u32, bytes: &mut Vec<u8>) -> Result<(), JournalError> {
        let path = segment::path(self.0, number);
        let file = segment::open(&path, false).await?;
        let read = file.read_at(0, BLOCK as usize).await;
        let read = read.map_err(|source| JournalError::io("read", &path, source))?;
        bytes.clear();
        bytes.extend_from_slice(&read);
        drop(read);
        segment::close(file, &path).await
    }
}

/// The key of the store, from the first of `numbers` whose header checks out.
///
/// # Errors
/// [`JournalError::Headless`] when there is none in any of them and something else is.
async fn find_key<S: Source>(source: &mut S, numbers: &[u32]) -> Result<Option<Key>, JournalError> {
    let mut bytes = Vec::new();
    for &number in numbers {
        source.load_head(number, &mut bytes).await?;
        if let Some(header) = format::read_segment_header(&bytes, number) {
            return Ok(Some(header.stamp.key));
        }
    }
    // The making of the first segment may have been cut short: it is all zeros then.
    for &segment in numbers {
        source.load(segment, &mut bytes).await?;
        if bytes.iter().any(|&byte| byte != 0) {
            return Err(JournalError::Headless { segment });
        }
    }
    Ok(None)
}

/// Reads every record behind what `checkpoint` covers.
pub(crate) async fn scan<S: Source>(
    source: &mut S,
    shard: u32,
    checkpoint: Option<End>,
    recovery: &mut dyn Recovery,
) -> Result<Outcome, JournalError> {
    let numbers = source.numbers()?;
    let found_key = find_key(source, &numbers).await?;
    let key = found_key.unwrap_or_default();
    let mut bytes = Vec::new();
    let mut recovered = Recovered::default();
    let mut empty = Vec::new();
    let mut last = None;
    let floor = checkpoint.map_or(0, |end| end.floor);
    let (floor_segment, floor_offset) = format::split(floor);
    recovered.checkpoint_bytes = checkpoint.map_or(0, |end| end.bytes);
    recovered.epoch = checkpoint.map_or(0, |end| end.epoch);
    for &number in numbers.iter().rev() {
        if number < floor_segment {
            break;
        }
        source.load(number, &mut bytes).await?;
        check_owner(number, (shard, key), &bytes, &mut recovered)?;
        if let Some(commit) = last_commit(&bytes, number, key) {
            last = Some((number, commit));
            break;
        }
        if is_begun(&bytes, number, BLOCK, key) {
            recovered.torn = Some(Damage {
                segment: number,
                offset: BLOCK,
            });
        }
        if number > floor_segment {
            empty.push(number);
        }
    }
    let newest = numbers.last().copied().unwrap_or(0);
    let mut scan = Scan {
        numbers: &numbers,
        key,
        visit: recovery,
        recovered,
        expected: floor,
    };
    let reached = last.map_or(0, |(number, commit): (u32, u32)| {
        format::position(number, commit)
    });
    if floor > 0 && reached < floor && scan.is_last_group_before(&bytes, last, floor) {
        // The checkpoint knows more than the journal: its end is gone.
        scan.damage(floor_segment, floor_offset);
    }
    if let Some((last, commit)) = last {
        let read = numbers.iter().skip_while(|&&number| number < floor_segment);
        for &number in read.take_while(|&&number| number <= last) {
            source.load(number, &mut bytes).await?;
            check_owner(number, (shard, key), &bytes, &mut scan.recovered)?;
            let before = (scan.recovered.records, scan.recovered.damaged_places);
            let from = if number == floor_segment {
                format::block_up(floor_offset).max(BLOCK)
            } else {
                BLOCK
            };
            scan.segment(number, &bytes, (number == last).then_some(commit), from);
            if number > floor_segment
                && before == (scan.recovered.records, scan.recovered.damaged_places)
            {
                empty.push(number);
            }
            scan.recovered.segments += 1;
        }
    }
    let (mut recovered, before) = (scan.recovered, scan.expected);
    recovered.lost = recovery.finish(&numbers);
    Ok(Outcome {
        recovered,
        newest,
        before,
        empty,
        checkpoint,
        segments: numbers.len(),
        oldest: numbers.first().copied().unwrap_or(newest),
        key: found_key,
    })
}

/// Takes the epoch of a segment, and refuses one of another shard or another store.
fn check_owner(
    number: u32,
    (wanted, key): (u32, Key),
    bytes: &[u8],
    recovered: &mut Recovered,
) -> Result<(), JournalError> {
    let Some(found) = format::read_segment_header(bytes, number) else {
        return Ok(());
    };
    if found.shard != wanted {
        return Err(JournalError::OtherShard {
            segment: number,
            found: found.shard,
            wanted,
        });
    }
    // None of its records could be told from a free rest.
    if found.stamp.key != key {
        return Err(JournalError::OtherStore { segment: number });
    }
    recovered.epoch = recovered.epoch.max(found.stamp.epoch);
    Ok(())
}

/// Whether a record of segment `number` was begun at `from` or behind it.
fn is_begun(bytes: &[u8], number: u32, from: u32, key: Key) -> bool {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let places = (from.next_multiple_of(8)..size).step_by(8);
    let mut records = places.map(|at| (&bytes[at as usize..], format::position(number, at)));
    records.any(|(record, place)| format::is_begun(record, place, key))
}

/// Where the last whole commit record of a segment lies.
fn last_commit(bytes: &[u8], number: u32, key: Key) -> Option<u32> {
    let blocks = u32::try_from(bytes.len()).unwrap_or(u32::MAX) / BLOCK;
    (1..=blocks)
        .rev()
        .map(|block| block.saturating_mul(BLOCK))
        .find(|&at| {
            let found = bytes
                .get(at as usize..)
                .and_then(|rest| format::read(rest, format::position(number, at), key));
            found.is_some_and(|found| format::as_commit(&found).is_some())
        })
}

struct Scan<'a> {
    numbers: &'a [u32],
    key: Key,
    visit: &'a mut dyn Recovery,
    recovered: Recovered,
    /// Where the last whole record ended.
    expected: u64,
}

impl Scan<'_> {
    /// Hands out the records of one segment from the block at `from` on. `last_commit` is given for the last segment in use:
    /// what is invalid behind it is the torn tail.
    fn segment(&mut self, number: u32, bytes: &[u8], last_commit: Option<u32>, from: u32) {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if format::read_segment_header(bytes, number).is_none() {
            self.damage(number, 0);
        }
        // Where the current group ends by its commit record, and whether it is known to be damaged.
        let (mut group_end, mut flagged) = (from, false);
        let mut at = from;
        while at.saturating_add(HEADER) <= size {
            let place = format::position(number, at);
            let found = format::read(&bytes[at as usize..], place, self.key);
            let commit = found.as_ref().and_then(format::as_commit);
            if let (Some(found), Some(commit)) = (&found, commit) {
                let gap = commit.before != self.expected && self.is_present(commit.before);
                if gap && !flagged {
                    let (segment, offset) = format::split(self.expected.min(commit.before));
                    self.damage(segment, offset);
                }
                flagged = false;
                group_end = at.saturating_add(commit.bytes);
                at += found.bytes;
                self.expected = format::position(number, at);
                self.recovered.epoch = self.recovered.epoch.max(found.epoch);
            } else if let Some(found) = found.filter(|found| found.kind == Kind::Data) {
                if at >= group_end && !flagged {
                    // Its commit record is unreadable.
                    flagged = true;
                    self.damage(number, at);
                }
                self.data(number, at, found.payload);
                at += found.bytes;
                self.expected = format::position(number, at);
            } else if last_commit.is_some_and(|commit| at > commit) {
                let from = if at < group_end {
                    at
                } else {
                    format::block_up(at)
                };
                if at < group_end || is_begun(bytes, number, from, self.key) {
                    self.recovered.torn = Some(Damage {
                        segment: number,
                        offset: at,
                    });
                }
                return;
            } else if at < group_end {
                flagged = true;
                self.damage(number, at);
                at = resync(bytes, number, at + 8, self.key);
            } else if !at.is_multiple_of(BLOCK) {
                at = format::block_up(at);
            } else {
                at = resync(bytes, number, at + 8, self.key);
            }
        }
        // A file that ends right behind a record was cut there by an earlier recovery.
        if last_commit.is_some() && at < group_end && at < size {
            self.recovered.torn = Some(Damage {
                segment: number,
                offset: at,
            });
        }
    }

    fn data(&mut self, segment: u32, offset: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("the header's length has 32 bits");
        self.recovered.records += 1;
        self.recovered.bytes += u64::from(len);
        self.visit.record(
            Location {
                segment,
                offset,
                len,
            },
            payload,
        );
    }

    /// Whether the group that `last` begins ends before `floor`, in a segment that is still there:
    /// `bytes` is that segment.
    fn is_last_group_before(&self, bytes: &[u8], last: Option<(u32, u32)>, floor: u64) -> bool {
        if !self.is_present(floor) {
            return false;
        }
        let Some((number, at)) = last else {
            return true;
        };
        let found = bytes
            .get(at as usize..)
            .and_then(|rest| format::read(rest, format::position(number, at), self.key));
        let commit = found.as_ref().and_then(format::as_commit);
        commit
            .is_none_or(|commit| format::position(number, at.saturating_add(commit.bytes)) < floor)
    }

    /// Whether the segment of `position` is still there: groups of reclaimed ones are no loss.
    fn is_present(&self, position: u64) -> bool {
        self.numbers
            .binary_search(&format::split(position).0)
            .is_ok()
    }

    fn damage(&mut self, segment: u32, offset: u32) {
        self.recovered.damaged_places += 1;
        if self.recovered.damaged.len() < DAMAGES_MAX {
            self.recovered.damaged.push(Damage { segment, offset });
        }
    }
}

/// The next place from `from` on, a multiple of 8, where a whole record lies; else the end.
fn resync(bytes: &[u8], number: u32, from: u32, key: Key) -> u32 {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut at = from;
    while at.saturating_add(HEADER) <= size {
        // A free rest is long and mostly zeros.
        if at.is_multiple_of(BLOCK)
            && let Some(block) = bytes[at as usize..].first_chunk::<{ BLOCK as usize }>()
            && *block == [0; BLOCK as usize]
        {
            at += BLOCK;
            continue;
        }
        if format::read(&bytes[at as usize..], format::position(number, at), key).is_some() {
            return at;
        }
        at += 8;
    }
    size
}
