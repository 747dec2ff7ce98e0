//! Counters of a shard: plain stores, merged by whoever reads them.

pub mod departures;
pub mod drops;
pub mod histogram;
pub mod probe;
