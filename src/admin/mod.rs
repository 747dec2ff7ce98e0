//! Layer 6: puts the engine together from its configuration, and tells the operator how it is.

pub mod answers;
pub mod api;
pub mod ask;
pub mod doctor;
pub mod dump;
pub mod engine;
pub mod explain;
pub mod http;
pub mod inquiry;
pub mod inspect;
pub mod log;
pub mod metrics;
pub mod options;
pub mod reload;
pub mod report;
pub mod trace;
pub mod watch;
