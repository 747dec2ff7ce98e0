//! The protocols as a peer sees them: messages in, messages out.

mod allocation;
mod delivery;
mod flows;
mod harness;
mod hostile;
mod intake;
mod outcomes;
mod overload;
mod registration;
mod signalling;
mod timer;
mod torture;
