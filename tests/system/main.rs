//! Black-box tests: real sockets, real threads, real processes.

mod datapath;
mod instruments;
mod judge;
mod operators;
mod policy;
mod program;
mod questions;
mod store;
