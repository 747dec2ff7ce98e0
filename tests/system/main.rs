//! Black-box tests: real sockets, real threads, real processes.

mod datapath;
mod policy;
mod program;
