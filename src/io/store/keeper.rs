//! The task for what need not be done in a hurry: the next segments, and removing dead ones.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::base::surface::Room;
use crate::io::exec;
use crate::io::store::checkpoint;
use crate::io::store::error::JournalError;
use crate::io::store::journal::{Shared, SpareFailure, State};
use crate::io::store::segment;

/// How soon to look again whether a segment that is to go is still being opened.
const OPENING: Duration = Duration::from_millis(1);

/// Wait before what failed is tried again, the first time.
const RETRY: Duration = Duration::from_secs(1);
/// How often that wait is doubled.
const DOUBLINGS_MAX: u32 = 3;

enum Chore {
    /// Make the segment of this number.
    Make(u32),
    /// Remove this one.
    Reclaim(u32),
    /// The disk is full and segments wait for the next checkpoint: do without this one.
    Forget((u64, u64)),
    /// Nothing to do.
    Rest,
    /// A segment could not be made or removed: try again later.
    Retry,
    /// The journal ends.
    Stop,
}

/// What went wrong, said once, and how often in a row.
#[derive(Default)]
struct Trouble {
    sentence: String,
    tries: u32,
}

impl Trouble {
    fn note(&mut self, shared: &Shared, outcome: Result<(), JournalError>) {
        let Err(error) = outcome else {
            *self = Self::default();
            return;
        };
        self.tries += 1;
        let sentence = error.to_string();
        if sentence != self.sentence {
            let shard = shared.options.shard;
            tracing::warn!(shard, "{sentence}; it is tried again");
            self.sentence = sentence;
        }
    }

    fn wait(&self) -> Duration {
        RETRY * (1 << self.tries.saturating_sub(1).min(DOUBLINGS_MAX))
    }
}

/// Works until the journal ends.
pub(crate) async fn run(shared: Rc<Shared>) {
    let (mut making, mut reclaiming) = (Trouble::default(), Trouble::default());
    loop {
        let chore = decide(&shared, &mut shared.state());
        match chore {
            Chore::Make(number) => making.note(&shared, make(&shared, number).await),
            Chore::Reclaim(number) => reclaiming.note(&shared, reclaim(&shared, number).await),
            Chore::Forget(checkpoint) => forget(&shared, checkpoint).await,
            Chore::Rest => shared.chores.wait().await,
            Chore::Retry => {
                let wait = making.wait().max(reclaiming.wait());
                shared.chores.wait_at_most(wait).await;
                let mut state = shared.state();
                state.spare_failed = None;
                state.reclaim_failed = false;
            }
            Chore::Stop => return,
        }
    }
}

fn decide(shared: &Shared, state: &mut State) -> Chore {
    if state.stopping || (state.closing && state.dead.is_empty()) {
        return Chore::Stop;
    }
    // After a failure the index may know of things that the disk does not: remove nothing.
    if state.failed {
        state.dead.clear();
        return if state.closing {
            Chore::Stop
        } else {
            Chore::Rest
        };
    }
    // On a full disk removing comes first: it is what making waits for.
    let missing = state
        .missing_spare(shared.options.spare_segments)
        .filter(|_| state.spare_failed.is_none() && !state.closing);
    // The writer waits when there is none left; else the dead go first.
    let urgent = missing.filter(|_| state.spares.is_empty());
    if let Some(number) = urgent {
        state.making = true;
        return Chore::Make(number);
    }
    if !state.reclaim_failed
        && let Some(number) = state.next_dead()
    {
        state.reclaiming = true;
        return Chore::Reclaim(number);
    }
    // Nobody would wake us any more.
    if state.closing {
        return Chore::Stop;
    }
    let full = state.spare_failed == Some(SpareFailure::Full);
    if full
        && !state.reclaim_failed
        && !state.deferred.is_empty()
        && let Some(checkpoint) = state.checkpoint.take()
    {
        return Chore::Forget(checkpoint);
    }
    match missing {
        Some(number) => {
            state.making = true;
            Chore::Make(number)
        }
        None if state.spare_failed.is_some() || state.reclaim_failed => Chore::Retry,
        None => Chore::Rest,
    }
}

async fn make(shared: &Shared, number: u32) -> Result<(), JournalError> {
    let made = shared.make_segment(number).await;
    let mut state = shared.state();
    state.making = false;
    let outcome = match made {
        Ok(file) => {
            state.spares.push_back((number, file));
            if state.missing_spare(shared.options.spare_segments).is_none() {
                state.set_room(Room::Enough);
            }
            Ok(())
        }
        Err(error) => {
            let failure = kind_of(&error);
            state.spare_failed = Some(failure);
            state.set_room(match failure {
                SpareFailure::Full => Room::NoSpace,
                SpareFailure::Other => Room::NoSegment,
            });
            Err(error)
        }
    };
    drop(state);
    shared.spare.notify();
    outcome
}

fn kind_of(error: &JournalError) -> SpareFailure {
    const FULL: [io::ErrorKind; 2] = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    let full = matches!(error, JournalError::Io { source, .. } if FULL.contains(&source.kind()));
    if full {
        SpareFailure::Full
    } else {
        SpareFailure::Other
    }
}

/// Removes the checkpoint durably: recovery reads the whole journal then, and every dead segment may
/// go.
async fn forget(shared: &Shared, checkpoint: (u64, u64)) {
    let path = shared.directory.join(checkpoint::NAME);
    let removed = match std::fs::remove_file(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let synced = segment::sync_directory(&shared.directory).await.is_ok();
    if removed && synced {
        return;
    }
    // It may be there after a crash: what it needs stays until that can be said.
    shared.state().checkpoint.get_or_insert(checkpoint);
    shared.chores.wait_at_most(RETRY).await;
}

/// Removes one segment durably before the next: a mark must not go before its deposit.
async fn reclaim(shared: &Shared, number: u32) -> Result<(), JournalError> {
    let mut outcome = Ok(());
    if number < shared.state().current {
        while !shared.state().gate.remove(number) {
            exec::sleep(OPENING).await;
        }
        shared.state().forget_file(number);
        outcome = retire(shared, number).await;
        shared.state().gate.removed();
    }
    let mut state = shared.state();
    state.reclaiming = false;
    if outcome.is_err() {
        state.reclaim_failed = true;
        state.dead.push_front(number);
    } else if state.spare_failed == Some(SpareFailure::Full) {
        // There may be space now.
        state.spare_failed = None;
    }
    state.wake();
    outcome
}

/// Takes a segment's name away, durably: the file is kept to be written over, or removed.
async fn retire(shared: &Shared, number: u32) -> Result<(), JournalError> {
    let path = segment::path(&shared.directory, number);
    // One that a start has cut would have to grow again.
    let is_whole = segment::length(&path) == u64::from(shared.options.segment_bytes);
    let free = segment::free_path(&shared.directory, number);
    let keeps = is_whole && shared.state().wants_free(&shared.options);
    let retired = if keeps {
        let renamed = exec::rename(&path, &free).await;
        renamed.map_err(|source| JournalError::io("rename", &path, source))
    } else {
        remove(&path).await
    };
    match retired {
        Ok(()) => {}
        // A try before this one came so far.
        Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    segment::sync_directory(&shared.directory).await?;
    let is_kept = segment::length(&free) > 0;
    let mut state = shared.state();
    state.totals.reclaimed += 1;
    state.segments = state.segments.saturating_sub(1);
    // Only now: before that the old name could come back, with another's header in it.
    if is_kept {
        state.free.push_back(number);
    }
    Ok(())
}

/// Through a handle, so that freeing 64 MiB of extents does not stop the datapath.
async fn remove(path: &Path) -> Result<(), JournalError> {
    let file = segment::open(path, false).await?;
    let removed = file.remove().await;
    if let Ok(file) = Rc::try_unwrap(file) {
        // Nothing of it matters any more.
        file.close().await.ok();
    }
    removed.map_err(|source| JournalError::io("remove", path, source))
}
