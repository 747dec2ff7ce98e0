//! The simulator: the shipped engine, driven through [`Core`](crate::base::surface::Core) in
//! virtual time, with everything around it made up from one seed. Layer 5, a stranger to `io`.
//!
//! ```text
//! World -- host    the process: 1..=8 shards, links, store double, crash and restart
//!       -- net     virtual time; datagrams lost, doubled, reordered; streams cut and reset
//!       -- hub     S-CSCF, registrar and notifier, senders of MESSAGE
//!       -- sender  senders of large messages, by INVITE and MSRP
//!       -- phone   devices: SIP and MSRP
//!       -- ledger  the laws that must hold, whatever happened
//! shrink          a failing run made small
//! ```
//! A run has two phases: faults, then healing. After it everything must come to rest: no push, no
//! message owed to a device that was there. Peers build and read their text themselves (`text`);
//! they share no codec and no state machine with the engine.
//!
//! Not here: the real store, sockets and threads (`io` and its tests).

mod host;
mod hub;
mod ledger;
mod net;
mod options;
mod phone;
mod sender;
mod shrink;
mod text;
mod world;

pub use options::{Options, Ratio, Transport};
pub use phone::{PhoneId, Plan, Reports, Trouble};
pub use shrink::shrink;
pub use world::{Report, World};
