//! Layer 5: the driver that runs a [`Core`](crate::base::surface::Core) on real sockets.
//!
//! One thread per shard ([`host`]), a glommio executor in it, and the datapath as one task of that
//! executor ([`driver`]) on a raw io_uring of its own (`ring`). Where the host forbids io_uring, the same
//! driver and the same store run on epoll (`poll`) and an executor of our own (`exec`); see [`backend`].
//! Shards exchange frames over bounded queues ([`mesh`]). Everything unsafe sits in `sys`, but for what
//! `poll` promises it.
//!
//! What it deliberately does not do: parse a message, keep a timer of the core, or decide about a
//! peer beyond counting its connections.

pub mod backend;
pub mod clock;
#[cfg(feature = "demo")]
pub mod disk;
pub mod driver;
pub mod host;
pub mod listen;
pub mod mesh;
mod names;
pub mod nic;
pub mod pin;
pub mod recorder;
pub mod stats;
pub mod store;
pub mod trains;

mod bufs;
mod exec;
mod links;
mod park;
mod poll;
mod ring;
mod stores;
mod sys;
mod tcp;
mod udp;
