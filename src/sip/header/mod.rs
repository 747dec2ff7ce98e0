//! Header fields: names, and typed values read from spans on demand. Layer 1.
//!
//! Values borrow from the message. The parser has checked line structure; the types here check the
//! grammar of one value. They do not unfold: white space inside a value may be a fold.

mod name;
mod name_addr;
mod params;
mod value;
mod via;

pub(crate) use name::COUNT;
pub use name::HeaderName;
pub use name_addr::NameAddr;
pub(crate) use name_addr::{AddrSpans, free_user};
pub use params::{Param, Params};
pub use value::{CSeq, Parameterized, Refresher, SessionExpires};
pub(crate) use value::{CSeqSpans, date, parse_cseq, parse_seconds, parse_session_expires};
pub use via::Via;
pub(crate) use via::{ViaSpans, host as via_host};
