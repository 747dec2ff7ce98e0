//! The embedded store (layer 5): a journal of checksummed records on glommio DMA files.
//!
//! One [`Journal`] per shard, single writer, in the shard's own executor. It keeps no index: the
//! shard does ([`store::index`](crate::store::index)), and recovery feeds it every payload again.
//!
//! ```text
//! directory   LOCK  FORMAT  checkpoint  00000007.seg  00000008.seg ..  00000005.free ..
//! segment     [header block][group][group].. free rest      preallocated, or written over
//! group       [commit record][record].. zeros to the block  one write, one fdatasync
//! record      crc len position epoch kind version magic | payload | zeros to 8 octets
//! ```
//!
//! * **A block that was synced is never written again**: a group ends with zeros up to the next
//!   4 KiB, and the next begins there. Filling up the last block instead would save on average half a
//!   block per sync (1 % under load, much when idle), but a torn rewrite could then destroy records
//!   that were acknowledged. Also after a restart: it begins a new segment.
//! * **One group is in flight at a time.** So a damaged place with a whole group behind it was durable
//!   once and is reported as corruption; without one it is the torn tail of the last write and was
//!   never acknowledged.
//! * Each commit record names the end of the group before it, so a lost or zeroed group is noticed.
//! * Every record names its own place: a record read from anywhere else is refused. It is made with the
//!   store's key (`format::Key`), so nothing that was sent to us passes for one.
//! * **Dead segments are written over** (`keeper`, `segment::renew`): some are kept, and go on under a
//!   higher number. A write to a block that was only allocated changes what the file system knows of the
//!   file, which its log must have before the sync is over: three writes to the disk instead of one, and a
//!   worker of the kernel at the end of the write. What the file held names other places, so it is no record;
//!   recovery takes it for the free rest. A file loses its old name durably before it gets a new header, and
//!   gets the new name after that.
//! * A failed write or sync ends the journal: what was not acknowledged by then never will be. The
//!   sync is not tried again, because the kernel may have dropped the pages it failed on. Nor is one that
//!   succeeded believed, unless the file system is still alive after it (`exec::File::write_durably`).
//!
//! `O_DIRECT` is demanded where the file system has it, since what a cache holds is not durable and
//! because the page cache would cost a copy and memory the shards were promised. A file system that
//! refuses it is refused with a sentence. tmpfs has none and nothing to make durable: glommio then
//! uses plain reads and writes by itself, which suits tests and demonstrations.
//!
//! * Segments are made ahead. When the next cannot be, the disk is full: deposits are refused from
//!   then on, and the room that is left takes the marks of what is still delivered. Should that be
//!   used up too, the writer waits for a segment to be reclaimed; nothing is lost meanwhile.
//! * A checkpoint of the core's index, made in the background, spares a start most of the reading
//!   (`checkpoint`). It is never needed.

mod checkpoint;
mod directory;
mod error;
mod format;
mod gate;
mod group;
mod journal;
mod keeper;
mod offline;
mod reader;
mod recover;
mod segment;
mod signal;
mod writer;

#[cfg(test)]
mod model;

pub use error::JournalError;
pub use journal::{Damage, DamagePolicy, Health, Journal, JournalOptions, Recovered, Totals};
pub use offline::{Rewriter, SegmentFile, Survey, View, block_on, survey};
pub use recover::Recovery;
