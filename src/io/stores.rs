//! What the driver asks of a store, and the two it knows.

use core::future::Future;
use core::task::Waker;

use crate::base::surface::{Location, StoreBatch, StoreDone};

use super::store::{Journal, Totals};

/// A store as the driver sees it. Lives in the shard's executor; does its work in tasks of its own.
pub trait StoreDriver {
    /// Takes the contents of `batch` and leaves it empty, with its capacity. False, and nothing is
    /// taken, while its queues are full: the driver offers the batch again and asks for no other.
    fn submit(&mut self, batch: &mut StoreBatch) -> bool;
    /// Moves finished work into `done` (empty on entry); false when there is none.
    fn poll(&mut self, done: &mut StoreDone) -> bool;
    /// True when nothing is submitted and unfinished, and nothing finished is left to poll. What failed and
    /// is tried again in the background, such as removing a segment, is not waited for: no promise hangs on
    /// it, and the next start tries it as well.
    fn is_idle(&self) -> bool;
    /// What to wake whenever `poll` may have something; set once before the first `submit`.
    fn set_waker(&mut self, waker: Waker);
    /// Where the core is to go on with a checkpoint, when the store wants a piece of one.
    fn wants_piece(&mut self) -> Option<u64> {
        None
    }
    /// Takes the piece it wanted, leaving an empty buffer; `next` is where the core goes on.
    fn take_piece(&mut self, piece: &mut Vec<u8>, next: Option<u64>) {
        let _ = (piece, next);
    }
    /// Octets of its buffers: for what is to be written, and for what was read.
    fn memory(&self) -> (usize, usize) {
        (0, 0)
    }
    /// What it did since the start.
    fn totals(&self) -> Totals {
        Totals::default()
    }
    /// Finishes what was submitted and leaves the store in good order.
    fn close(self) -> impl Future<Output = ()>;
}

impl StoreDriver for Journal {
    fn submit(&mut self, batch: &mut StoreBatch) -> bool {
        Self::submit(self, batch)
    }

    fn poll(&mut self, done: &mut StoreDone) -> bool {
        Self::poll(self, done)
    }

    fn is_idle(&self) -> bool {
        Self::is_idle(self)
    }

    fn set_waker(&mut self, waker: Waker) {
        Self::set_waker(self, waker);
    }

    fn wants_piece(&mut self) -> Option<u64> {
        Self::wants_piece(self)
    }

    fn take_piece(&mut self, piece: &mut Vec<u8>, next: Option<u64>) {
        Self::take_piece(self, piece, next);
    }

    fn memory(&self) -> (usize, usize) {
        Self::memory(self)
    }

    fn totals(&self) -> Totals {
        Self::totals(self)
    }

    async fn close(self) {
        // What nobody collected by now is for a core that has drained: nothing.
        let _ = Self::close(self).await;
    }
}

/// A store that keeps nothing and calls everything stored at once. For benches and tests.
#[derive(Debug, Default)]
pub struct NullStore {
    pending: StoreDone,
}

impl StoreDriver for NullStore {
    fn submit(&mut self, batch: &mut StoreBatch) -> bool {
        for &(ticket, len) in &batch.appends {
            let location = Location {
                segment: 0,
                offset: 0,
                len,
            };
            self.pending.stored.push((ticket, location));
        }
        for &(token, _) in &batch.reads {
            self.pending.loaded.push((token, 0, 0));
        }
        batch.bytes.clear();
        batch.appends.clear();
        batch.reads.clear();
        batch.dead_segments.clear();
        true
    }

    fn poll(&mut self, done: &mut StoreDone) -> bool {
        if self.is_idle() {
            return false;
        }
        core::mem::swap(done, &mut self.pending);
        true
    }

    fn is_idle(&self) -> bool {
        self.pending.stored.is_empty() && self.pending.loaded.is_empty()
    }

    fn set_waker(&mut self, _waker: Waker) {}

    async fn close(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::surface::StoreTicket;

    #[test]
    fn the_null_store_answers_every_append_and_read_once() {
        let mut store = NullStore::default();
        let mut batch = StoreBatch {
            bytes: vec![1, 2, 3],
            appends: vec![(StoreTicket(1), 2), (StoreTicket(2), 1)],
            reads: vec![(7, Location::default())],
            dead_segments: vec![1],
        };
        assert!(store.submit(&mut batch));
        assert!(batch.bytes.is_empty() && batch.appends.is_empty() && batch.reads.is_empty());
        assert!(!store.is_idle());
        let mut done = StoreDone::default();
        assert!(store.poll(&mut done));
        assert_eq!(done.stored.len(), 2);
        assert_eq!(done.loaded, [(7, 0, 0)]);
        assert!(store.is_idle());
        done.stored.clear();
        assert!(!store.poll(&mut done));
    }
}
