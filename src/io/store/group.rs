//! One group being gathered: records with their final places and checksums, ready to be written.

use std::time::Instant;

use crate::base::surface::{Location, StoreTicket};
use crate::io::store::format::{self, BLOCK, COMMIT, Commit, Kind, Stamp};

/// Records that will become durable together. Two of them alternate: one gathers, one is written.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its bytes from the commit record on; not padded.
    bytes: Vec<u8>,
    /// Tickets and places of its records, in order.
    pub(crate) stored: Vec<(StoreTicket, Location)>,
    pub(crate) segment: u32,
    /// Where it begins in the segment, at a block.
    pub(crate) start: u32,
    /// Octets it may take.
    capacity: u32,
    /// When its first record came; `None` while it is empty.
    pub(crate) since: Option<Instant>,
}

/// Sizes that decide where a group goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) segment_bytes: u32,
    pub(crate) commit_bytes: u32,
}

impl Group {
    /// An empty group at the start of `segment`.
    pub(crate) fn new(segment: u32, sizes: Sizes) -> Self {
        let mut group = Self {
            bytes: Vec::with_capacity(sizes.commit_bytes as usize),
            stored: Vec::with_capacity(256),
            segment,
            start: BLOCK,
            capacity: 0,
            since: None,
        };
        group.reset(segment, BLOCK, sizes);
        group
    }

    /// Empties it and gives it the place behind a group that ends at `start`, a multiple of a block.
    pub(crate) fn reset(&mut self, segment: u32, start: u32, sizes: Sizes) {
        assert!(start.is_multiple_of(BLOCK), "groups begin at blocks");
        self.bytes.clear();
        self.bytes.resize(COMMIT as usize, 0);
        self.stored.clear();
        self.segment = segment;
        self.start = start;
        self.capacity = sizes
            .commit_bytes
            .min(sizes.segment_bytes.saturating_sub(start));
        self.since = None;
    }

    /// Octets of its buffers, full or not.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() + self.stored.capacity() * size_of::<(StoreTicket, Location)>()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Octets so far, the commit record included.
    pub(crate) fn bytes(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("bounded by the capacity")
    }

    /// Where its last record ends in the segment.
    pub(crate) fn end(&self) -> u32 {
        self.start + self.bytes()
    }

    /// Octets it takes on disk.
    pub(crate) fn padded(&self) -> u32 {
        format::block_up(self.bytes())
    }

    /// Moves an empty group that has no room for `size` octets to the next segment.
    fn roll(&mut self, size: u32, sizes: Sizes) {
        if self.is_empty() && COMMIT + size > self.capacity {
            self.reset(self.segment + 1, BLOCK, sizes);
        }
    }

    /// Adds a record; false when it must wait for the next group.
    pub(crate) fn push(
        &mut self,
        ticket: StoreTicket,
        payload: &[u8],
        stamp: Stamp,
        sizes: Sizes,
    ) -> bool {
        let len = u32::try_from(payload.len()).expect("checked against the largest payload");
        let size = format::record_bytes(len).expect("checked against the largest payload");
        self.roll(size, sizes);
        let offset = self.bytes.len();
        if self.bytes() + size > self.capacity {
            return false;
        }
        let place = self.end();
        self.bytes.resize(offset + size as usize, 0);
        let out = &mut self.bytes[offset..];
        format::write(
            out,
            Kind::Data,
            format::position(self.segment, place),
            stamp,
            payload,
        );
        self.stored.push((
            ticket,
            Location {
                segment: self.segment,
                offset: place,
                len,
            },
        ));
        true
    }

    /// Makes room for a group without records, which marks a clean end.
    pub(crate) fn push_nothing(&mut self, sizes: Sizes) {
        self.roll(0, sizes);
    }

    /// Writes the commit record and copies the group into `out`, which has [`Group::padded`] octets.
    pub(crate) fn seal(&mut self, before: u64, stamp: Stamp, out: &mut [u8]) {
        let commit = Commit {
            before,
            bytes: self.bytes(),
            records: u32::try_from(self.stored.len()).expect("fewer than octets"),
        };
        let place = format::position(self.segment, self.start);
        format::write_commit(&mut self.bytes[..COMMIT as usize], place, stamp, commit);
        out[..self.bytes.len()].copy_from_slice(&self.bytes);
        out[self.bytes.len()..].fill(0);
    }
}
