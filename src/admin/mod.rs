//! Layer 6: puts the engine together from its configuration, and tells the operator how it is.

pub mod engine;
pub mod explain;
pub mod options;
pub mod report;
