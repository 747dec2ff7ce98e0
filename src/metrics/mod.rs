//! Counters of a shard: plain stores, merged by whoever reads them.

pub mod departures;
pub mod histogram;
pub mod probe;
