//! Layer 5 drivers.

pub mod store;
