//! Black-box tests: real sockets, real threads, real processes.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the peers are plain blocking threads, and a broken one fails its test"
)]

mod datapath;
mod program;
