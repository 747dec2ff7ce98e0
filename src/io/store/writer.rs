//! The task that makes groups durable, one at a time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use glommio::io::DmaFile;

use crate::io::store::format;
use crate::io::store::group::Group;
use crate::io::store::journal::{Shared, State, now};
use crate::io::store::segment;

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
pub(crate) async fn run(shared: Rc<Shared>, file: Rc<DmaFile>) {
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
                let mut time = pin!(glommio::timer::sleep(time));
                let mut more = pin!(writer.shared.work.wait());
                poll_fn(|context| {
                    let late = time.as_mut().poll(context).is_ready();
                    if late || more.as_mut().poll(context).is_ready() {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
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
    match shared
        .options
        .commit_age
        .checked_sub(age)
        .filter(|rest| !rest.is_zero())
    {
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
    state.refill(shared.epoch, sizes);
    group
}

struct Writer {
    shared: Rc<Shared>,
    /// The segment being written.
    file: Rc<DmaFile>,
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
        let mut buffer = self.file.alloc_dma_buffer(size);
        let before = {
            let mut state = self.shared.state();
            let end = format::position(group.segment, group.end());
            core::mem::replace(&mut state.before, end)
        };
        group.seal(before, self.shared.epoch, buffer.as_bytes_mut());
        let written = self.file.write_at(buffer, u64::from(group.start)).await?;
        if written != size {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        self.file.fdatasync().await?;
        self.ask_for_spare(group);
        Ok(size as u64)
    }

    /// Past the middle of a segment the keeper makes the next one ready.
    fn ask_for_spare(&self, group: &Group) {
        let mut state = self.shared.state();
        // A closing journal's keeper may be gone; the next life makes its own segment.
        let half = group.start > self.shared.options.segment_bytes / 2;
        if half && state.wanted == group.segment && !state.closing {
            state.wanted = group.segment + 1;
            self.shared.chores.notify();
        }
    }

    async fn rotate(&mut self, segment: u32) -> io::Result<()> {
        let spare = self.wait_for_spare(segment).await;
        let file = match spare {
            Some(file) => file,
            // It could not be made ahead of time; perhaps there is space by now.
            None => segment::create(&self.shared.directory, self.shared.plan(segment))
                .await
                .map_err(io::Error::other)?,
        };
        let mut state = self.shared.state();
        state.current = segment;
        state.wanted = segment;
        state.spare_failed = false;
        state.space_low = false;
        state.keep_file(segment, Rc::clone(&file));
        self.file = file;
        Ok(())
    }

    async fn wait_for_spare(&self, segment: u32) -> Option<Rc<DmaFile>> {
        loop {
            {
                let mut state = self.shared.state();
                if let Some((number, file)) = state.spare.take() {
                    assert!(number == segment, "segments follow each other");
                    return Some(file);
                }
                if state.spare_failed || state.wanted != segment || state.stopping {
                    return None;
                }
            }
            self.shared.spare.wait().await;
        }
    }
}
