//! The protocols as a peer sees them: messages in, messages out.

mod allocation;
mod delivery;
mod dialects;
mod flows;
mod fuzzing;
mod harness;
mod herd;
mod hostile;
mod intake;
mod large;
mod notices;
mod outcomes;
mod overload;
mod poison;
mod policy;
mod registration;
mod reoffer;
mod rows;
mod service;
mod signalling;
mod stages;
mod storm;
mod timer;
mod torture;
mod trunks;
mod ways;
