//! The task for what need not be done in a hurry: the next segments, and removing dead ones.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::io::store::checkpoint;
use crate::io::store::error::JournalError;
use crate::io::store::journal::{Shared, SpareFailure, State};
use crate::io::store::segment;

/// How soon to look again whether a segment that is to go is still being opened.
const OPENING: Duration = Duration::from_millis(1);

/// Wait before a segment that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

enum Chore {
    /// Make the segment of this number.
    Make(u32),
    /// Remove this one.
    Reclaim(u32),
    /// The disk is full and segments wait for the next checkpoint: do without one.
    Forget,
    /// Nothing to do.
    Rest,
    /// A segment could not be made: try again later.
    Retry,
    /// The journal ends.
    Stop,
}

/// Works until the journal ends.
pub(crate) async fn run(shared: Rc<Shared>) {
    loop {
        let chore = decide(&shared, &mut shared.state());
        match chore {
            Chore::Make(number) => make(&shared, number).await,
            Chore::Reclaim(number) => {
                reclaim(&shared, number).await;
                let mut state = shared.state();
                state.reclaiming = false;
                // There may be space now.
                if state.spare_failed == Some(SpareFailure::Full) {
                    state.spare_failed = None;
                }
                state.wake();
            }
            Chore::Forget => forget(&shared).await,
            Chore::Rest => shared.chores.wait().await,
            Chore::Retry => {
                shared.chores.wait_at_most(RETRY).await;
                let mut state = shared.state();
                if state.spare_failed == Some(SpareFailure::Full) {
                    state.spare_failed = None;
                }
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
        return Chore::Rest;
    }
    // On a full disk removing comes first: it is what making waits for.
    let full = state.spare_failed.is_some();
    let missing = state
        .missing_spare(shared.options.spare_segments)
        .filter(|_| !full && !state.closing);
    // The writer waits when there is none left; else the dead go first.
    let urgent = missing.filter(|_| state.spares.is_empty());
    if let Some(number) = urgent {
        state.making = true;
        return Chore::Make(number);
    }
    if let Some(number) = state.next_dead() {
        state.reclaiming = true;
        return Chore::Reclaim(number);
    }
    if full && state.checkpoint.is_some() && !state.deferred.is_empty() {
        state.checkpoint = None;
        return Chore::Forget;
    }
    match (missing, state.spare_failed) {
        (Some(number), _) => {
            state.making = true;
            Chore::Make(number)
        }
        (None, Some(SpareFailure::Full)) => Chore::Retry,
        (None, Some(SpareFailure::Other) | None) => Chore::Rest,
    }
}

async fn make(shared: &Shared, number: u32) {
    let made = segment::create(&shared.directory, shared.plan(number)).await;
    let mut state = shared.state();
    state.making = false;
    match made {
        Ok(file) => {
            state.spares.push_back((number, file));
            if state.missing_spare(shared.options.spare_segments).is_none() {
                state.set_space_low(false);
            }
        }
        Err(error) => {
            state.spare_failed = Some(kind_of(&error));
            state.set_space_low(true);
        }
    }
    drop(state);
    shared.spare.notify();
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
async fn forget(shared: &Shared) {
    let path = shared.directory.join(checkpoint::NAME);
    let removed = std::fs::remove_file(path).is_ok();
    let synced = segment::sync_directory(&shared.directory).await.is_ok();
    if removed && synced {
        return;
    }
    // It may be there after a crash: what waits for it stays until the next start.
    let mut state = shared.state();
    state.deferred.clear();
}

/// Removes one segment durably before the next: a mark must not go before its deposit.
async fn reclaim(shared: &Shared, number: u32) {
    if number >= shared.state().current {
        return;
    }
    while !shared.state().gate.remove(number) {
        crate::io::exec::sleep(OPENING).await;
    }
    shared.state().forget_file(number);
    remove(shared, number).await;
    shared.state().gate.removed();
}

async fn remove(shared: &Shared, number: u32) {
    let path = segment::path(&shared.directory, number);
    // Through a handle, so that freeing 64 MiB of extents does not stop the datapath.
    let Ok(file) = segment::open(&path, false).await else {
        return;
    };
    let removed = file.remove().await.is_ok();
    if let Ok(file) = Rc::try_unwrap(file) {
        // Nothing of it matters any more.
        file.close().await.ok();
    }
    let synced = segment::sync_directory(&shared.directory).await.is_ok();
    if removed && synced {
        shared.state().totals.reclaimed += 1;
    }
}
