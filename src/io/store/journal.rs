//! The journal as the driver uses it, and the state its tasks share.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::base::surface::{Location, Room, StoreBatch, StoreDone, StoreTicket};
use crate::io::exec::{self, Join};
use crate::io::store::checkpoint::{self, Walk};
use crate::io::store::error::JournalError;
use crate::io::store::format::{self, BLOCK, COMMIT, HEADER, Key, Stamp};
use crate::io::store::gate::Gate;
use crate::io::store::group::{Group, Sizes};
use crate::io::store::recover::Recovery;
use crate::io::store::signal::Signal;
use crate::io::store::{directory, keeper, reader, recover, segment, writer};

/// Damaged places a report lists; more are only counted.
pub(crate) const DAMAGES_MAX: usize = 64;
/// Octets read back that may wait to be collected; then the readers pause.
pub(crate) const LOADED_BYTES_MAX: usize = 16 << 20;
/// Segment files kept open for reading.
const FILES_MAX: usize = 64;

/// What recovery does about damaged records that had been acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DamagePolicy {
    /// Do not open: an operator decides.
    #[default]
    Refuse,
    /// Go on without them; [`Recovered`] counts them.
    Skip,
}

/// Settings of a journal. `Default` is meant for production.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Octets of a segment; a multiple of 4096. Bounds what one live message can keep from being
    /// reclaimed. Default: 64 MiB.
    pub segment_bytes: u32,
    /// Largest group, octets; a multiple of 4096, with room in a segment. Bounds a payload, too:
    /// see [`JournalOptions::payload_max`]. Default: 1 MiB.
    pub commit_bytes: u32,
    /// A group this large is written without waiting for more, octets. Default: 128 KiB.
    pub commit_now_bytes: u32,
    /// Longest time the first record of a group waits for others. Default: 1 ms.
    pub commit_age: Duration,
    /// Appends taken while a group is written and the next is full, octets. Default: 8 MiB.
    pub queue_bytes_max: usize,
    /// Reads waiting. Default: 16,384.
    pub reads_max: usize,
    /// Reads under way at a time. Default: 8.
    pub readers: usize,
    /// Largest read that answers several requests at once, octets. Default: 256 KiB.
    pub read_window_bytes: u32,
    /// Octets between two requested records that one read passes over. Default: 16 KiB.
    pub read_gap_bytes: u32,
    /// Segments kept ready beyond the one being written. When one cannot be made the journal says
    /// [`Health::SpaceLow`]; those that are left are the room for marks. At least 1. Default: 2.
    pub spare_segments: u32,
    /// Dead segments kept to be written over, beyond an eighth of those in use; zero keeps none. A sync of
    /// blocks that were written before needs one write instead of three (ext4, XFS). Default: 4.
    pub free_segments: u32,
    /// Octets written after which a checkpoint is made, or the size of the last one if that is more;
    /// looked at whenever a segment is full. Zero makes none. Default: 128 MiB.
    pub checkpoint_after_bytes: u64,
    /// Octets of a checkpoint written in a second, at most. Default: 64 MiB.
    pub checkpoint_bytes_per_s: u64,
    /// The shard this directory belongs to.
    pub shard: u32,
    /// What to do about damaged records.
    pub on_damage: DamagePolicy,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            commit_bytes: 1 << 20,
            commit_now_bytes: 128 << 10,
            commit_age: Duration::from_millis(1),
            queue_bytes_max: 8 << 20,
            reads_max: 16_384,
            readers: 8,
            read_window_bytes: 256 << 10,
            read_gap_bytes: 16 << 10,
            spare_segments: 2,
            free_segments: 4,
            checkpoint_after_bytes: 128 << 20,
            checkpoint_bytes_per_s: 64 << 20,
            shard: 0,
            on_damage: DamagePolicy::Refuse,
        }
    }
}

impl JournalOptions {
    /// Longest payload that can be appended, octets. The core's records must fit
    /// ([`RECORD_BYTES_MAX`](crate::store::record::RECORD_BYTES_MAX) does by default).
    #[must_use]
    pub const fn payload_max(&self) -> usize {
        self.commit_bytes.saturating_sub(COMMIT + HEADER + 8) as usize
    }

    pub(crate) const fn sizes(&self) -> Sizes {
        Sizes {
            segment_bytes: self.segment_bytes,
            commit_bytes: self.commit_bytes,
        }
    }

    fn check(&self) -> Result<(), JournalError> {
        let blocks = self.segment_bytes.is_multiple_of(BLOCK)
            && self.commit_bytes.is_multiple_of(BLOCK)
            && self.commit_bytes > 0;
        let what = if !blocks {
            "segment_bytes and commit_bytes must be multiples of 4096; round them up"
        } else if self.segment_bytes.saturating_sub(BLOCK) < self.commit_bytes {
            "segment_bytes must exceed commit_bytes by 4096 at least; raise segment_bytes"
        } else if self.segment_bytes > 1 << 31 {
            "segment_bytes must not exceed 2 GiB; lower it"
        } else if self.spare_segments == 0 {
            "spare_segments must not be zero: marks need room on a full disk; raise it"
        } else if self.readers == 0 || self.reads_max == 0 || self.queue_bytes_max == 0 {
            "readers, reads_max and queue_bytes_max must not be zero; raise them"
        } else {
            return Ok(());
        };
        Err(JournalError::Options { what })
    }
}

/// A place in the journal that is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u32,
    /// Octets from its start.
    pub offset: u32,
}

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Payloads handed out.
    pub records: u64,
    /// Octets of them.
    pub bytes: u64,
    /// Segments read.
    pub segments: u32,
    /// Epoch of the last owner; the new one writes with the next.
    pub epoch: u64,
    /// Where the last write was cut short; nothing acknowledged was lost there.
    pub torn: Option<Damage>,
    /// The first damaged places. Acknowledged records may be lost there.
    pub damaged: Vec<Damage>,
    /// All damaged places.
    pub damaged_places: u64,
    /// Octets of the checkpoint that was used; zero for none.
    pub checkpoint_bytes: u64,
    /// There is a checkpoint that could not be used: the whole journal was read.
    pub checkpoint_refused: bool,
    /// Messages in segments that are not there.
    pub lost: u64,
}

/// How the journal fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Well,
    /// A spare segment cannot be made: refuse intake, what room there is belongs to marks.
    SpaceLow,
    /// Stopped for good.
    Failed,
}

/// Counters since the start, and what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Segments now, those made ahead included.
    pub segments: u64,
    /// Files now that are kept to be written over.
    pub free_segments: u64,
    /// Records made durable.
    pub appends: u64,
    /// Octets of their payloads.
    pub append_bytes: u64,
    /// Groups written, each with one sync.
    pub syncs: u64,
    /// Octets written, padding and headers included.
    pub written_bytes: u64,
    /// Records read back.
    pub reads: u64,
    /// Reads of the disk for them.
    pub read_windows: u64,
    /// Records that could not be read back.
    pub reads_failed: u64,
    /// Segments reclaimed.
    pub reclaimed: u64,
    /// Segments made of earlier ones.
    pub renewed: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Octets written for checkpoints.
    pub checkpoint_bytes: u64,
}

/// Appends that wait for the next group.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    bytes: Vec<u8>,
    taken: usize,
    appends: VecDeque<(StoreTicket, u32)>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    fn push(&mut self, ticket: StoreTicket, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("checked against the largest payload");
        self.bytes.extend_from_slice(payload);
        self.appends.push_back((ticket, len));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.appends.clear();
        self.taken = 0;
    }

    /// Forgets the octets taken, once they outweigh those that move for it.
    fn compact(&mut self) {
        if self.taken > self.bytes.len() / 2 || self.appends.is_empty() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

/// Why a segment could not be made ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpareFailure {
    /// No space: segments that are reclaimed may give some.
    Full,
    /// Anything else, no descriptor being left for one: it may pass.
    Other,
}

/// Everything the tasks change. Borrowed only between awaits.
#[derive(Debug)]
pub(crate) struct State {
    /// The group that gathers.
    pub(crate) fill: Group,
    /// The other one, unless it is being written.
    pub(crate) other: Option<Group>,
    pub(crate) waiting: Waiting,
    /// Where the group taken last for writing ends.
    pub(crate) before: u64,
    pub(crate) done: StoreDone,
    /// Last ticket acknowledged.
    pub(crate) acknowledged: u64,
    /// Last ticket submitted; zero before the first.
    submitted: u64,
    pub(crate) failed: bool,
    pub(crate) room: Room,
    /// Flush, then end.
    pub(crate) closing: bool,
    /// End at once.
    pub(crate) stopping: bool,
    pub(crate) reads: VecDeque<(u64, Location)>,
    /// Reads taken by a reader.
    pub(crate) reading: usize,
    /// What was read ahead.
    pub(crate) trails: reader::Trails,
    /// Who opens which segment, and which one goes.
    pub(crate) gate: Gate,
    /// Open segments, most recently used last.
    files: VecDeque<(u32, Rc<exec::File>)>,
    /// The segment being written.
    pub(crate) current: u32,
    /// Segments made ahead, in the order of their numbers, the next one first.
    pub(crate) spares: VecDeque<(u32, Rc<exec::File>)>,
    /// Files kept to be written over, by the number each had.
    pub(crate) free: VecDeque<u32>,
    /// Segment files there are.
    pub(crate) segments: usize,
    /// The keeper is making a segment.
    pub(crate) making: bool,
    /// Why the last try to make one failed.
    pub(crate) spare_failed: Option<SpareFailure>,
    pub(crate) dead: VecDeque<u32>,
    /// Dead ones that the checkpoint still needs, in the order they died.
    pub(crate) deferred: VecDeque<u32>,
    pub(crate) reclaiming: bool,
    /// The first of `dead` could not be removed; the others wait for it.
    pub(crate) reclaim_failed: bool,
    /// Where the last group that was acknowledged ends.
    pub(crate) acknowledged_to: u64,
    /// The same, octets since the start of the store.
    pub(crate) written_to: u64,
    /// Floor and octets of the checkpoint that counts.
    pub(crate) checkpoint: Option<(u64, u64)>,
    /// Its floor, or where the last try gave up, octets since the start of the store.
    pub(crate) checkpoint_at: u64,
    /// The checkpoint being made.
    pub(crate) walk: Walk,
    /// Its floor.
    pub(crate) floor: u64,
    /// For the next piece.
    pub(crate) piece_buffer: Vec<u8>,
    waker: Option<Waker>,
    pub(crate) totals: Totals,
}

impl State {
    /// Wakes the driver to collect what is done.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// The number the next spare would have, while one is missing.
    pub(crate) fn missing_spare(&self, target: u32) -> Option<u32> {
        let last = self
            .spares
            .back()
            .map_or(self.current, |&(number, _)| number);
        (last < self.current.saturating_add(target)).then(|| last + 1)
    }

    /// Whether one more dead segment is to be kept.
    pub(crate) fn wants_free(&self, options: &JournalOptions) -> bool {
        self.free.len() < free_max(options, self.segments)
    }

    /// Says what room there is, when that changes.
    pub(crate) fn set_room(&mut self, room: Room) {
        if self.room != room {
            self.room = room;
            self.done.room = Some(room);
            self.wake();
        }
    }

    /// Stops acknowledging, for good.
    pub(crate) fn fail(&mut self) {
        if !self.failed {
            self.failed = true;
            self.done.failed_from = Some(StoreTicket(self.acknowledged + 1));
            self.waiting.clear();
        }
        self.wake();
    }

    /// Fills the gathering group from what waits.
    pub(crate) fn refill(&mut self, stamp: Stamp, sizes: Sizes) {
        while let Some(&(ticket, len)) = self.waiting.appends.front() {
            let end = self.waiting.taken + len as usize;
            let payload = &self.waiting.bytes[self.waiting.taken..end];
            if !self.fill.push(ticket, payload, stamp, sizes) {
                break;
            }
            self.waiting.taken = end;
            self.waiting.appends.pop_front();
        }
        self.waiting.compact();
        if !self.fill.is_empty() && self.fill.since.is_none() {
            self.fill.since = Some(now());
        }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.appends.is_empty()
    }

    /// Last ticket submitted.
    pub(crate) const fn submitted(&self) -> u64 {
        self.submitted
    }

    /// `true` when nothing new begins any more.
    pub(crate) const fn is_over(&self) -> bool {
        self.stopping || self.closing || self.failed
    }

    /// The next dead segment that may go. Those that a checkpoint needs wait for the next one.
    pub(crate) fn next_dead(&mut self) -> Option<u32> {
        let walks = !matches!(self.walk, Walk::Idle | Walk::Due);
        let floor = match self.checkpoint {
            Some((floor, _)) => Some(floor),
            None => walks.then_some(self.floor),
        };
        let Some(floor) = floor else {
            if !self.deferred.is_empty() {
                let dead = core::mem::take(&mut self.deferred);
                for number in dead.into_iter().rev() {
                    self.dead.push_front(number);
                }
            }
            return self.dead.pop_front();
        };
        let floor = format::split(floor).0;
        while let Some(number) = self.dead.pop_front() {
            if number >= floor {
                self.deferred.push_back(number);
                continue;
            }
            return Some(number);
        }
        // Of a checkpoint before the last.
        let at = self.deferred.iter().position(|&number| number < floor)?;
        self.deferred.remove(at)
    }

    /// The open file of `segment`, if it is kept.
    pub(crate) fn file(&mut self, segment: u32) -> Option<Rc<exec::File>> {
        let at = self
            .files
            .iter()
            .position(|&(number, _)| number == segment)?;
        let entry = self.files.remove(at)?;
        let file = Rc::clone(&entry.1);
        self.files.push_back(entry);
        Some(file)
    }

    /// Keeps `file` for reads; forgets the one used longest ago.
    pub(crate) fn keep_file(&mut self, segment: u32, file: Rc<exec::File>) {
        if self.file(segment).is_none() {
            if self.files.len() == FILES_MAX {
                self.files.pop_front();
            }
            self.files.push_back((segment, file));
        }
    }

    pub(crate) fn forget_file(&mut self, segment: u32) {
        self.files.retain(|&(number, _)| number != segment);
    }
}

/// The driver's clock, for the age of a group.
#[expect(
    clippy::disallowed_methods,
    reason = "a driver reads the clock; the core never sees it"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Shared by the journal and its tasks, all on one thread.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RefCell<State>,
    pub(crate) directory: PathBuf,
    pub(crate) options: JournalOptions,
    pub(crate) stamp: Stamp,
    /// For the writer: something to write, or to end.
    pub(crate) work: Signal,
    /// For the readers.
    pub(crate) reads: Signal,
    /// For the keeper: a segment to make or to remove.
    pub(crate) chores: Signal,
    /// For the writer: the keeper has made a segment or failed to.
    pub(crate) spare: Signal,
    /// For the task that makes checkpoints.
    pub(crate) checkpoint: Signal,
    /// Held until the last task is gone.
    _lock: File,
}

impl Shared {
    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Makes the segment of that number, of an earlier one if one was kept.
    pub(crate) async fn make_segment(&self, number: u32) -> Result<Rc<exec::File>, JournalError> {
        let plan = segment::Plan {
            number,
            bytes: self.options.segment_bytes,
            stamp: self.stamp,
            shard: self.options.shard,
        };
        let old = self.state().free.pop_front();
        let file = match old {
            Some(old) => segment::renew(&self.directory, old, plan).await?,
            None => segment::create(&self.directory, plan).await?,
        };
        let mut state = self.state();
        state.segments += 1;
        state.totals.renewed += u64::from(old.is_some());
        Ok(file)
    }

    fn notify_all(&self) {
        self.work.notify();
        self.reads.notify();
        self.chores.notify();
        self.spare.notify();
        self.checkpoint.notify();
    }
}

/// A shard's store. Make it and use it inside the shard's executor; its tasks run in the task queue
/// it is opened in.
///
/// The driver calls [`Journal::submit`] and [`Journal::poll`] every turn. Dropping it stops without
/// writing what was not acknowledged, as a crash would; [`Journal::close`] writes it.
#[derive(Debug)]
pub struct Journal {
    shared: Rc<Shared>,
    tasks: Vec<Join<()>>,
    recovered: Recovered,
}

impl Journal {
    /// Opens `directory`, making it when it is missing, and hands every record's payload to
    /// `recover` in the order they were appended.
    ///
    /// # Errors
    /// See [`JournalError`]; then nothing was changed on disk but the lock file, and `recover` may
    /// have seen some of the records.
    pub async fn open(
        directory: &Path,
        options: &JournalOptions,
        recover: &mut dyn FnMut(Location, &[u8]),
    ) -> Result<Self, JournalError> {
        // A checkpoint is of no use to who takes records only, and would be of none later.
        let options = JournalOptions {
            checkpoint_after_bytes: 0,
            ..*options
        };
        Self::open_with(directory, &options, &mut recover::Records(recover)).await
    }

    /// As [`Journal::open`], for one who can take the pieces of a checkpoint instead of records.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with(
        directory: &Path,
        options: &JournalOptions,
        recovery: &mut dyn Recovery,
    ) -> Result<Self, JournalError> {
        options.check()?;
        let lock = directory::claim(directory)?;
        let outcome = recover::run(directory, options.shard, recovery).await?;
        if outcome.recovered.lost > 0 && options.on_damage == DamagePolicy::Refuse {
            return Err(JournalError::Missing {
                path: directory.to_owned(),
                messages: outcome.recovered.lost,
            });
        }
        if let (DamagePolicy::Refuse, Some(first)) =
            (options.on_damage, outcome.recovered.damaged.first())
        {
            return Err(JournalError::Damaged {
                path: segment::path(directory, first.segment),
                offset: first.offset,
                places: usize::try_from(outcome.recovered.damaged_places).unwrap_or(usize::MAX),
            });
        }
        let stamp = Stamp {
            epoch: outcome.recovered.epoch + 1,
            key: match outcome.key {
                Some(key) => key,
                None => Key(getrandom::u64().map_err(|source| {
                    JournalError::io("draw a key for", directory, io::Error::other(source))
                })?),
            },
        };
        cut_tail(directory, outcome.before).await?;
        // Of no use, and no longer protected: segments it needs may be reclaimed from now on. The
        // removal is durable with the segment made below.
        if outcome.checkpoint.is_none() {
            std::fs::remove_file(directory.join(checkpoint::NAME)).ok();
        }
        // First, so that a full disk has room for the segment this life begins with.
        let free = sort_out(directory, options, &outcome).await?;
        // Above what any file there was or is, so that nothing in it names a place of ours.
        let current = outcome.newest.max(free.last().copied().unwrap_or(0)) + 1;
        let mut state = new_state(options, current, &outcome);
        state.free = free.into();
        let shared = Rc::new(Shared {
            state: RefCell::new(state),
            directory: directory.to_owned(),
            options: *options,
            stamp,
            work: Signal::default(),
            reads: Signal::default(),
            chores: Signal::default(),
            spare: Signal::default(),
            checkpoint: Signal::default(),
            _lock: lock,
        });
        let file = shared.make_segment(current).await?;
        directory::mark_format(directory)?;
        shared.state().keep_file(current, Rc::clone(&file));
        let mut tasks = vec![
            exec::spawn_local(writer::run(Rc::clone(&shared), file)).detach(),
            exec::spawn_local(keeper::run(Rc::clone(&shared))).detach(),
            exec::spawn_local(checkpoint::run(Rc::clone(&shared))).detach(),
        ];
        for _ in 0..options.readers {
            tasks.push(exec::spawn_local(reader::run(Rc::clone(&shared))).detach());
        }
        Ok(Self {
            shared,
            tasks,
            recovered: outcome.recovered,
        })
    }

    /// What recovery found when this journal was opened.
    #[must_use]
    pub const fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Takes everything in `batch` and leaves it empty with its capacity; false and nothing taken
    /// while the queues are full: stop taking work from the core until it is true again.
    ///
    /// Tickets ascend by one from batch to batch. After a failure appends are dropped: `failed_from`
    /// spoke for them. A payload longer than [`JournalOptions::payload_max`] fails the journal.
    pub fn submit(&mut self, batch: &mut StoreBatch) -> bool {
        let shared = &self.shared;
        let mut state = shared.state();
        let full = state.has_waiting()
            && state.waiting.len() + batch.bytes.len() > shared.options.queue_bytes_max;
        let reads = state.reads.len() + batch.reads.len();
        if full || (!state.reads.is_empty() && reads > shared.options.reads_max) {
            return false;
        }
        if !batch.appends.is_empty() {
            submit_appends(shared, &mut state, batch);
        }
        if !batch.reads.is_empty() {
            // In the order of their places, so that neighbours share a read.
            batch
                .reads
                .sort_unstable_by_key(|&(_, at)| (at.segment, at.offset));
            state.reads.extend(batch.reads.drain(..));
            shared.reads.notify_one();
        }
        if !batch.dead_segments.is_empty() {
            state.dead.extend(batch.dead_segments.drain(..));
            shared.chores.notify();
        }
        batch.bytes.clear();
        batch.appends.clear();
        true
    }

    /// Moves what finished since the last call into `done`, replacing its contents; false when
    /// nothing did.
    pub fn poll(&mut self, done: &mut StoreDone) -> bool {
        done.clear();
        let mut state = self.shared.state();
        let some = !state.done.is_empty();
        if some {
            core::mem::swap(done, &mut state.done);
            // Readers wait while too much is uncollected.
            if !state.reads.is_empty() {
                self.shared.reads.notify_one();
            }
        }
        some
    }

    /// `true` when all submitted work is done and collected. Segments that could not be removed do not count:
    /// they are tried again, and a shutdown that waited for them would take until its limit whenever a disk
    /// refuses. Nothing of them comes back: their marks stay in front of them in the same line, and the next
    /// start finds them dead again.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.shared.state();
        let appended = state.failed
            || (state.fill.is_empty() && state.other.is_some() && !state.has_waiting());
        let reads = state.reads.is_empty() && state.reading == 0;
        let reclaimed = (state.dead.is_empty() || state.reclaim_failed) && !state.reclaiming;
        appended && reads && reclaimed && state.done.is_empty()
    }

    /// The segment being written.
    #[must_use]
    pub fn current_segment(&self) -> u32 {
        self.shared.state().current
    }

    /// Removes the checkpoint, so that every segment may be reclaimed; the next start reads all
    /// records. For tools that write the whole store anew.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn forget_checkpoint(&mut self) -> Result<(), JournalError> {
        let path = self.shared.directory.join(checkpoint::NAME);
        match std::fs::remove_file(&path) {
            Ok(()) => segment::sync_directory(&self.shared.directory).await?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(JournalError::io("remove", &path, source)),
        }
        self.shared.state().checkpoint = None;
        self.shared.chores.notify();
        Ok(())
    }

    /// Where the core is to go on with a checkpoint, when the journal wants the next piece. Ask when
    /// all that [`Journal::poll`] gave was handed to the core and all its work was submitted.
    pub fn wants_piece(&mut self) -> Option<u64> {
        let mut state = self.shared.state();
        match state.walk {
            Walk::Due if state.done.stored.is_empty() => {
                state.floor = state.acknowledged_to;
                Some(0)
            }
            Walk::Next(at) => Some(at),
            Walk::Due | Walk::Idle | Walk::Piece(..) | Walk::Settling => None,
        }
    }

    /// Octets of buffers: for what is to be written, and for what was read.
    #[must_use]
    pub fn memory(&self) -> (usize, usize) {
        let state = self.shared.state();
        let group = state.fill.memory();
        // The other one is as large, also while it is being written.
        let writes = 2 * group
            + state.waiting.bytes.capacity()
            + state.waiting.appends.capacity() * size_of::<(StoreTicket, u32)>()
            + state.done.stored.capacity() * size_of::<(StoreTicket, Location)>()
            + state.piece_buffer.capacity();
        let reads = state.trails.memory()
            + state.reads.capacity() * size_of::<(u64, Location)>()
            + state.done.loaded.capacity() * size_of::<(u64, u32, u32)>()
            + state.done.bytes.capacity();
        (writes, reads)
    }

    /// Takes the piece that was wanted and gives an empty buffer for the next; `next` is where the
    /// core goes on, `None` after the last.
    pub fn take_piece(&mut self, piece: &mut Vec<u8>, next: Option<u64>) {
        let mut state = self.shared.state();
        let mut empty = core::mem::take(&mut state.piece_buffer);
        empty.clear();
        state.walk = Walk::Piece(core::mem::replace(piece, empty), next);
        drop(state);
        self.shared.checkpoint.notify();
    }

    /// Woken whenever [`Journal::poll`] has something new; stays set.
    pub fn set_waker(&mut self, waker: Waker) {
        self.shared.state().waker = Some(waker);
    }

    /// How it fares.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = self.shared.state();
        match (state.failed, state.room.is_low()) {
            (true, _) => Health::Failed,
            (false, true) => Health::SpaceLow,
            (false, false) => Health::Well,
        }
    }

    /// Counters since the start, and what there is now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let state = self.shared.state();
        Totals {
            segments: state.segments as u64,
            free_segments: state.free.len() as u64,
            ..state.totals
        }
    }

    /// Writes what was submitted, marks a clean end, ends the tasks and gives up the lock. Returns
    /// what nobody has collected.
    pub async fn close(mut self) -> StoreDone {
        self.shared.state().closing = true;
        self.shared.notify_all();
        for task in self.tasks.drain(..) {
            task.await;
        }
        core::mem::take(&mut self.shared.state().done)
    }

    /// Ends the tasks without writing anything more, as if the process were killed, and gives up the
    /// lock. For tests and for a shard that is rebuilt.
    pub async fn abandon(mut self) {
        self.shared.state().stopping = true;
        self.shared.notify_all();
        for task in self.tasks.drain(..) {
            task.await;
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.notify_all();
    }
}

fn submit_appends(shared: &Shared, state: &mut State, batch: &StoreBatch) {
    let first = batch.appends.first().map_or(0, |&(ticket, _)| ticket.0);
    if state.submitted == 0 {
        state.acknowledged = first.saturating_sub(1);
        state.submitted = state.acknowledged;
    }
    let was_empty = state.fill.is_empty();
    let mut rest = batch.bytes.as_slice();
    for &(ticket, len) in &batch.appends {
        assert!(ticket.0 == state.submitted + 1, "tickets ascend by one");
        state.submitted = ticket.0;
        let (payload, behind) = rest.split_at(len as usize);
        rest = behind;
        if payload.len() > shared.options.payload_max() {
            state.fail();
        }
        if state.failed || state.closing {
            continue;
        }
        let (stamp, sizes) = (shared.stamp, shared.options.sizes());
        if state.has_waiting() || !state.fill.push(ticket, payload, stamp, sizes) {
            state.waiting.push(ticket, payload);
        }
    }
    assert!(rest.is_empty(), "lengths of the appends cover the bytes");
    if state.fill.since.is_none() && !state.fill.is_empty() {
        state.fill.since = Some(now());
    }
    let large = state.fill.bytes() >= shared.options.commit_now_bytes;
    if was_empty || large || state.has_waiting() || state.failed {
        shared.work.notify();
    }
}

fn new_state(options: &JournalOptions, current: u32, outcome: &recover::Outcome) -> State {
    let sizes = options.sizes();
    let oldest = format::position(outcome.oldest, 0);
    State {
        fill: Group::new(current, sizes),
        other: Some(Group::new(current, sizes)),
        waiting: Waiting::default(),
        before: outcome.before,
        done: StoreDone::default(),
        acknowledged: 0,
        submitted: 0,
        failed: false,
        room: Room::Enough,
        closing: false,
        stopping: false,
        reads: VecDeque::new(),
        reading: 0,
        trails: reader::Trails::default(),
        gate: Gate::default(),
        files: VecDeque::with_capacity(FILES_MAX),
        current,
        spares: VecDeque::new(),
        free: VecDeque::new(),
        segments: outcome.segments.saturating_sub(outcome.empty.len()),
        making: false,
        spare_failed: None,
        dead: VecDeque::new(),
        deferred: VecDeque::new(),
        reclaiming: false,
        reclaim_failed: false,
        acknowledged_to: outcome.before,
        written_to: format::linear(outcome.before, options.segment_bytes),
        checkpoint: outcome.checkpoint.map(|end| (end.floor, end.bytes)),
        checkpoint_at: format::linear(
            outcome.checkpoint.map_or(oldest, |end| end.floor),
            options.segment_bytes,
        ),
        walk: Walk::Idle,
        floor: 0,
        piece_buffer: Vec::new(),
        waker: None,
        totals: Totals::default(),
    }
}

/// Cuts the last segment in use behind its last whole record: gives its free rest back, and makes
/// sure that a torn tail is never read again.
async fn cut_tail(directory: &Path, end: u64) -> Result<(), JournalError> {
    let (number, offset) = format::split(end);
    let path = segment::path(directory, number);
    // A checkpoint may end in a segment that was reclaimed.
    if number == 0 || !path.exists() {
        return Ok(());
    }
    let file = segment::open(&path, true).await?;
    let length = file.size().await;
    let length = length.map_err(|source| JournalError::io("look at", &path, source))?;
    if length > u64::from(offset) {
        let cut = file.truncate(u64::from(offset)).await;
        cut.map_err(|source| JournalError::io("shorten", &path, source))?;
        let synced = file.sync().await;
        synced.map_err(|source| JournalError::io("sync", &path, source))?;
    }
    segment::close(file, &path).await
}

/// Files kept to be written over, at most, by the number of segments in use.
fn free_max(options: &JournalOptions, segments: usize) -> usize {
    match options.free_segments {
        0 => 0,
        least => least as usize + segments / 8,
    }
}

/// What an earlier life left without any record of use: segments that are empty, and files it had kept.
/// Those that can be written over are kept, ascending by their numbers, the others are removed.
async fn sort_out(
    directory: &Path,
    options: &JournalOptions,
    outcome: &recover::Outcome,
) -> Result<Vec<u32>, JournalError> {
    let most = free_max(options, outcome.segments);
    let mut free = Vec::new();
    let kept = directory::free(directory)?;
    let changed = !outcome.empty.is_empty();
    let empty = outcome.empty.iter().map(|&number| (number, true));
    let all = kept.into_iter().map(|number| (number, false)).chain(empty);
    for (number, is_segment) in all {
        let name = segment::free_path(directory, number);
        let path = if is_segment {
            segment::path(directory, number)
        } else {
            name.clone()
        };
        let is_whole = segment::length(&path) == u64::from(options.segment_bytes);
        if !is_whole || free.len() >= most {
            std::fs::remove_file(&path)
                .map_err(|source| JournalError::io("remove", &path, source))?;
            continue;
        }
        if is_segment {
            std::fs::rename(&path, &name)
                .map_err(|source| JournalError::io("rename", &path, source))?;
        }
        free.push(number);
    }
    // The old name of one that gets another's header must not come back.
    if changed {
        segment::sync_directory(directory).await?;
    }
    free.sort_unstable();
    Ok(free)
}

#[cfg(test)]
mod tests;

/// The same tests on the executor without io_uring.
#[cfg(test)]
#[path = "journal/tests.rs"]
#[expect(clippy::duplicate_mod, reason = "one text of tests for both backends")]
mod tests_plain;
