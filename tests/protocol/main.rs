//! The protocols as a peer sees them: messages in, messages out.

mod allocation;
mod delivery;
mod flows;
mod fuzzing;
mod harness;
mod hostile;
mod intake;
mod large;
mod notices;
mod outcomes;
mod overload;
mod poison;
mod registration;
mod reoffer;
mod rows;
mod service;
mod signalling;
mod timer;
mod torture;
