//! Layer 0: types every other layer stands on. Owns no behaviour of SIP or MSRP.

pub mod arena;
pub mod entropy;
pub mod fold;
pub mod foresee;
pub mod lanes;
pub mod limits;
pub mod map;
pub mod octets;
pub mod outbox;
pub mod pool;
pub mod queue;
pub mod redact;
pub mod shape;
pub mod slab;
pub mod span;
pub mod squeeze;
pub mod surface;
pub mod time;
pub mod token;
pub mod wall;
