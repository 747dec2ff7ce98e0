//! The task that makes groups durable, one at a time.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::io::exec::File;
use crate::io::store::checkpoint::Walk;
use crate::io::store::format;
use crate::io::store::group::Group;
use crate::io::store::journal::{Shared, State, now};

/// Longest wait of a group's first record while space is low.
const AGE_SPACE_LOW: Duration = Duration::from_millis(100);

enum Next {
    /// Take the group and write it.
    Commit,
    /// All is written and the journal closes.
    Finish,
    /// Give the group this much time to grow.
    Gather(Duration),
    /// Nothing to do.
    Sleep,
    /// Failed or abandoned.
    Stop,
}

/// Writes until the journal fails, closes or is abandoned.
pub(crate) async fn run(shared: Rc<Shared>, file: Rc<File>) {
    let mut writer = Writer { shared, file };
    loop {
        let next = decide(&writer.shared, &writer.shared.state());
        match next {
            Next::Commit => {
                let group = take(&writer.shared);
                writer.commit(group).await;
            }
            Next::Finish => {
                let mut group = take(&writer.shared);
                group.push_nothing(writer.shared.options.sizes());
                writer.commit(group).await;
                break;
            }
            Next::Gather(time) => {
                writer.shared.work.wait_at_most(time).await;
            }
            Next::Sleep => writer.shared.work.wait().await,
            Next::Stop => break,
        }
    }
}

fn decide(shared: &Shared, state: &State) -> Next {
    if state.stopping || state.failed {
        return Next::Stop;
    }
    let Some(since) = state.fill.since else {
        return if state.closing {
            Next::Finish
        } else {
            Next::Sleep
        };
    };
    let large = state.fill.bytes() >= shared.options.commit_now_bytes;
    if large || state.closing || state.has_waiting() {
        return Next::Commit;
    }
    let age = now().saturating_duration_since(since);
    // Marks are small and nobody waits for them: few groups make the room last.
    let longest = if state.room.is_low() {
        shared.options.commit_age.max(AGE_SPACE_LOW)
    } else {
        shared.options.commit_age
    };
    match longest.checked_sub(age).filter(|rest| !rest.is_zero()) {
        Some(rest) => Next::Gather(rest),
        None => Next::Commit,
    }
}

/// Takes the gathered group and puts the other one in its place, right behind it.
fn take(shared: &Shared) -> Group {
    let mut state = shared.state();
    let sizes = shared.options.sizes();
    let mut next = state.other.take().expect("one group is written at a time");
    let end = format::block_up(state.fill.end());
    next.reset(state.fill.segment, end, sizes);
    let group = core::mem::replace(&mut state.fill, next);
    state.refill(shared.stamp, sizes);
    group
}

struct Writer {
    shared: Rc<Shared>,
    /// The segment being written.
    file: Rc<File>,
}

impl Writer {
    async fn commit(&mut self, mut group: Group) {
        let result = self.write(&mut group).await;
        let mut state = self.shared.state();
        match result {
            Ok(written) => {
                if let Some(&(ticket, _)) = group.stored.last() {
                    state.acknowledged = ticket.0;
                }
                state.totals.appends += group.stored.len() as u64;
                let payloads = group.stored.iter().map(|(_, at)| u64::from(at.len));
                state.totals.append_bytes += payloads.sum::<u64>();
                state.totals.syncs += 1;
                state.totals.written_bytes += written;
                state.acknowledged_to = format::position(group.segment, group.end());
                let bytes = self.shared.options.segment_bytes;
                state.written_to = format::linear(state.acknowledged_to, bytes);
                if matches!(state.walk, Walk::Settling) {
                    self.shared.checkpoint.notify();
                }
                state.done.stored.append(&mut group.stored);
                state.wake();
            }
            // The reason is in the system's log; the core only needs to know that it is over.
            Err(_) => state.fail(),
        }
        state.other = Some(group);
    }

    async fn write(&mut self, group: &mut Group) -> io::Result<u64> {
        if group.segment != self.shared.state().current {
            self.rotate(group.segment).await?;
        }
        let size = group.padded() as usize;
        let mut buffer = self.file.buffer(size);
        let before = {
            let mut state = self.shared.state();
            let end = format::position(group.segment, group.end());
            core::mem::replace(&mut state.before, end)
        };
        group.seal(before, self.shared.stamp, buffer.as_bytes_mut());
        let start = u64::from(group.start);
        self.file.write_durably(buffer, start).await?;
        Ok(size as u64)
    }

    /// Goes on in the next segment. While none can be made, on a full disk until a segment was reclaimed,
    /// it waits there: nothing is acknowledged meanwhile, and nothing is lost.
    async fn rotate(&mut self, segment: u32) -> io::Result<()> {
        let spare = self.wait_for_spare(segment).await;
        let file = match spare {
            Some(file) => file,
            None => {
                let made = self.shared.make_segment(segment).await;
                made.map_err(io::Error::other)?
            }
        };
        let mut state = self.shared.state();
        state.current = segment;
        state.keep_file(segment, Rc::clone(&file));
        drop(state);
        self.file = file;
        self.shared.chores.notify();
        self.shared.checkpoint.notify();
        Ok(())
    }

    async fn wait_for_spare(&self, segment: u32) -> Option<Rc<File>> {
        loop {
            {
                let mut state = self.shared.state();
                if let Some((number, file)) = state.spares.pop_front() {
                    assert!(number == segment, "segments follow each other");
                    return Some(file);
                }
                // The keeper may be gone by then.
                if state.stopping || (state.closing && !state.making) {
                    return None;
                }
            }
            self.shared.spare.wait().await;
        }
    }
}
