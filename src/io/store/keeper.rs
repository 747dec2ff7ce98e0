//! The task for what need not be done in a hurry: the next segment, and removing dead ones.

use std::rc::Rc;

use crate::io::store::journal::Shared;
use crate::io::store::segment;

/// Works until the journal ends.
pub(crate) async fn run(shared: Rc<Shared>) {
    loop {
        let (spare, dead) = {
            let mut state = shared.state();
            let ready = state.spare.is_some() || state.spare_failed;
            let spare = (state.wanted > state.current && !ready).then_some(state.wanted);
            if state.stopping || (state.closing && state.dead.is_empty() && spare.is_none()) {
                return;
            }
            // After a failure the index may know of things that the disk does not: remove nothing.
            if state.failed {
                state.dead.clear();
            }
            let dead = if spare.is_none() {
                state.dead.pop_front()
            } else {
                None
            };
            state.reclaiming = dead.is_some();
            (spare, dead)
        };
        match (spare, dead) {
            (Some(number), _) => make(&shared, number).await,
            (None, Some(number)) => {
                reclaim(&shared, number).await;
                let mut state = shared.state();
                state.reclaiming = false;
                state.wake();
            }
            (None, None) => shared.chores.wait().await,
        }
    }
}

async fn make(shared: &Shared, number: u32) {
    let made = segment::create(&shared.directory, shared.plan(number)).await;
    let mut state = shared.state();
    match made {
        Ok(file) => state.spare = Some((number, file)),
        Err(_) => {
            state.spare_failed = true;
            state.space_low = true;
            state.wake();
        }
    }
    shared.spare.notify();
}

/// Removes one segment durably before the next: a mark must not go before its deposit.
async fn reclaim(shared: &Shared, number: u32) {
    {
        let mut state = shared.state();
        if number >= state.current {
            return;
        }
        state.forget_file(number);
    }
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
