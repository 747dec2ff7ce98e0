//! The durable queue of deferred messages as the core sees it (layers 1 and 3).
//!
//! * [`op`] names what is recorded: a message taken in, and what became of it.
//! * [`record`] gives both their bytes, [`checkpoint`] those of the whole index at a time.
//! * [`index`] is what a shard keeps in memory: one [`index::Mailbox`] per user and one
//!   [`index::SegmentTable`] per shard.
//! * [`parts`]: messages too large for one record, whose deposit lists the places of their parts.
//!
//! Nothing here names an engine, a file or a clock. A driver (`io::store` or the simulator's) takes
//! payloads with tickets and answers with [`Location`](crate::base::surface::Location)s; another
//! engine fits the same operations.
//!
//! Life of a message:
//!
//! | step | index | record |
//! |---|---|---|
//! | intake | `admit` (quota, repeat), not yet pending | `Deposit` appended |
//! | durable | `stored`: pending, 202 goes out | - |
//! | a device has it, or refuses it | `mark` | `Mark::Delivered`, `Mark::Refused` |
//! | goal reached, expired, purged | `remove` or `poll_expired` | `Mark::Removed` |
//! | `Removed` durable | `SegmentTable::dead` | segment reclaimed when nothing in it matters |

pub mod checkpoint;
pub mod index;
pub mod op;
pub mod parts;
pub mod record;
