//! MSRP (RFC 4975): frame codec and URIs (layer 1), then the sending session and the inbound rules
//! (layer 2).
//!
//! | part | does |
//! |------|------|
//! | [`frame`] | cuts one frame out of a stream and reads it; writes SEND, REPORT and responses |
//! | [`uri`] | reads `msrp:` URIs and compares them |
//! | [`coverage`] | which octets of a message are known to have arrived, in bounded space |
//! | [`session`] | our SENDs of one push: window, timeouts, evidence of delivery |
//! | [`inbound`] | what to answer to a peer's request; reassembly of its notifications |
//!
//! Not here: connections and which session is bound to which (the push and the shard own those),
//! the choice of transaction ids (minted as tokens), TLS.

pub mod coverage;
mod encode;
pub mod familiar;
pub mod frame;
pub mod inbound;
pub mod session;
pub mod uri;
