//! The protocols as a peer sees them: messages in, messages out.

mod flows;
mod harness;
mod torture;
