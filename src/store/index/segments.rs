//! Which segments of a shard's store may go, which are sparse, and what a checkpoint keeps of them.

use std::collections::VecDeque;

use crate::base::surface::Location;
use crate::store::checkpoint::{self, SavedSegment};

/// Segments that are cleaned in one pass over the index, at most.
pub const VICTIMS_MAX: usize = 8;

/// When segments are cleaned: their live deposits written again elsewhere, so that they can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanOptions {
    /// Octets that a segment takes on disk.
    pub segment_bytes: u64,
    /// The store may take this many hundredths of its live octets, and the slack. Default: 200.
    pub space_max_percent: u32,
    /// Segments that a store may have beyond that. Default: 4.
    pub slack_segments: u32,
    /// A segment with fewer live octets than this many hundredths of its size is sparse. Default: 50.
    pub fill_max_percent: u32,
    /// Octets copied in a second, at most; zero cleans nothing. Default: 8 MiB.
    pub bytes_per_s: u64,
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            space_max_percent: 200,
            slack_segments: 4,
            fill_max_percent: 50,
            bytes_per_s: 8 << 20,
        }
    }
}

/// What each segment of a shard's store is still needed for.
///
/// Feed it every record, live and at recovery, in the order of their places; take what may go from
/// [`SegmentTable::poll_dead`]. The newest segment is never dead: it is being written.
#[derive(Debug, Default)]
pub struct SegmentTable {
    /// Ascending by segment.
    rows: VecDeque<Row>,
    /// Lists of rows that are gone, for reuse.
    spare: Vec<Vec<u32>>,
    /// Some row may have died since the last complete look.
    changed: bool,
}

#[derive(Debug, Default)]
struct Row {
    segment: u32,
    /// Deposits in this segment that are not removed.
    live: u32,
    /// Octets of these.
    live_bytes: u64,
    /// Cleaning did not empty it; not to be tried before one more of its deposits dies.
    tried: bool,
    /// Other segments whose deposits this one's marks speak of; ascending.
    marks: Vec<u32>,
    /// Holds something nobody understood.
    kept: bool,
}

impl SegmentTable {
    /// A deposit is durable at `at`.
    pub fn deposit(&mut self, at: Location) {
        let row = self.row(at.segment);
        row.live += 1;
        row.live_bytes += u64::from(at.len);
    }

    /// Something that matters only once a deposit names it lies at `at`: a part. Its segment is known
    /// from now on, and may go while no part in it was counted by [`SegmentTable::deposit`].
    pub fn note(&mut self, at: Location) {
        self.row(at.segment);
        self.changed = true;
    }

    /// A mark is durable at `at`; `of` is its deposit, `None` when that is not in the index.
    pub fn mark(&mut self, at: Location, of: Option<Location>) {
        let other = of
            .map(|of| of.segment)
            .filter(|&segment| segment != at.segment);
        let other = other.filter(|&segment| self.find(segment).is_ok());
        let row = self.row(at.segment);
        if let Some(segment) = other
            && let Err(place) = row.marks.binary_search(&segment)
        {
            row.marks.insert(place, segment);
        }
    }

    /// The deposit at `of` no longer matters: its `Removed` mark is durable.
    ///
    /// # Panics
    /// When its segment has no live deposit: counting twice is our error.
    pub fn dead(&mut self, of: Location) {
        let at = self
            .find(of.segment)
            .expect("a live deposit keeps its segment's row");
        let row = &mut self.rows[at];
        assert!(row.live > 0, "every deposit dies once");
        row.live -= 1;
        row.live_bytes = row.live_bytes.saturating_sub(u64::from(of.len));
        row.tried = false;
        self.changed |= row.live == 0;
    }

    /// The next segment nothing depends on; each is told once and then forgotten. Reclaim them in
    /// the order they are told: a mark's segment comes after its deposit's.
    pub fn poll_dead(&mut self) -> Option<u32> {
        if !self.changed {
            return None;
        }
        let sealed = self.rows.len().saturating_sub(1);
        let dead = |row: &Row| row.live == 0 && row.marks.is_empty() && !row.kept;
        let Some(at) = self.rows.iter().take(sealed).position(dead) else {
            self.changed = false;
            return None;
        };
        let row = self.rows.remove(at)?;
        self.spare.push(row.marks);
        for other in &mut self.rows {
            if let Ok(place) = other.marks.binary_search(&row.segment) {
                other.marks.remove(place);
            }
        }
        Some(row.segment)
    }

    /// Which segments are worth being copied elsewhere, ascending into `out`; none while the store takes
    /// no more room than [`CleanOptions`] allow. The newest segment is never among them.
    ///
    /// Sparse ones come first, oldest before. When there is none and segments are kept only by what
    /// their marks speak of, it is the oldest of those that are spoken of, however full.
    pub fn victims(&self, options: &CleanOptions, out: &mut Vec<u32>) {
        out.clear();
        let sealed = self.rows.len().saturating_sub(1);
        let size = options.segment_bytes;
        let taken = (sealed as u64).saturating_mul(size);
        let live: u64 = self.rows.iter().map(|row| row.live_bytes).sum();
        let allowed = live.saturating_mul(u64::from(options.space_max_percent)) / 100;
        if taken <= allowed.saturating_add(u64::from(options.slack_segments).saturating_mul(size)) {
            return;
        }
        let sparse = size.saturating_mul(u64::from(options.fill_max_percent)) / 100;
        let rows = self.rows.iter().take(sealed);
        let worth = |row: &&Row| row.live > 0 && !row.tried && row.live_bytes < sparse;
        out.extend(rows.filter(worth).take(VICTIMS_MAX).map(|row| row.segment));
        if !out.is_empty() {
            return;
        }
        let mut pinned = self.rows.iter().filter(|row| row.live == 0 && !row.kept);
        let pinning = pinned.find_map(|row| row.marks.first().copied());
        let at = pinning.and_then(|segment| self.find(segment).ok());
        let row = at.map(|at| &self.rows[at]);
        out.extend(
            row.filter(|row| row.live > 0 && !row.tried)
                .map(|row| row.segment),
        );
    }

    /// Cleaning has been through `segment`: if something is left in it, it is not tried again for now.
    pub fn tried(&mut self, segment: u32) {
        if let Ok(at) = self.find(segment) {
            self.rows[at].tried = true;
        }
    }

    /// Segments known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// `true` when no segment is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Live deposits over all segments.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(row.live)).sum()
    }

    fn find(&self, segment: u32) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&segment, |row| row.segment)
    }

    fn row(&mut self, segment: u32) -> &mut Row {
        let at = match self.find(segment) {
            Ok(at) => at,
            Err(at) => {
                let marks = self.spare.pop().unwrap_or_default();
                self.rows.insert(
                    at,
                    Row {
                        segment,
                        live: 0,
                        live_bytes: 0,
                        tried: false,
                        marks,
                        kept: false,
                    },
                );
                // The row before may have waited only for not being the newest.
                self.changed = true;
                at
            }
        };
        &mut self.rows[at]
    }
}

// As a checkpoint keeps it.
impl SegmentTable {
    /// Something at `at` is not understood: its segment stays for good.
    pub fn keep(&mut self, at: Location) {
        self.row(at.segment).kept = true;
    }

    /// Recovery is over and the segments in `present`, ascending, exist: forgets all others. Returns how many live deposits were in those, which are lost.
    pub fn forget_absent(&mut self, present: &[u32]) -> u64 {
        let is_absent = |segment: u32| present.binary_search(&segment).is_err();
        let mut lost = 0;
        for row in &self.rows {
            if is_absent(row.segment) {
                lost += u64::from(row.live);
            }
        }
        self.rows.retain(|row| !is_absent(row.segment));
        // Told dead before the checkpoint, and still there: to be told again.
        for &segment in present {
            self.row(segment);
        }
        for row in &mut self.rows {
            row.marks.retain(|&segment| !is_absent(segment));
        }
        self.changed = true;
        lost
    }

    /// Appends every segment to a piece.
    pub fn save(&self, out: &mut Vec<u8>) {
        for row in &self.rows {
            checkpoint::put_segment(row.segment, row.kept, &row.marks, out);
        }
    }

    /// Puts a saved segment back; its live deposits are counted as they come.
    pub fn load(&mut self, saved: &SavedSegment<'_>) {
        let row: &mut Row = self.row(saved.segment);
        row.kept |= saved.kept;
        for mark in saved.marks() {
            if let Err(place) = row.marks.binary_search(&mark) {
                row.marks.insert(place, mark);
            }
        }
    }
}
