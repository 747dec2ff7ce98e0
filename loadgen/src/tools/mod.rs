//! What works on finished reports, or runs many: compare, ab, search, merge.

pub mod ab;
pub mod compare;
pub mod merge;
pub mod search;
pub mod trial;
