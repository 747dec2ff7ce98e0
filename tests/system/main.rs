//! Black-box tests: real sockets, real threads, real processes.

mod datapath;
/// The same tests on the backend without io_uring.
#[path = "datapath.rs"]
#[expect(clippy::duplicate_mod, reason = "one text of tests for both backends")]
mod datapath_mmsg;
mod fallback;
mod instruments;
mod judge;
mod operators;
mod policy;
mod program;
mod questions;
mod store;
