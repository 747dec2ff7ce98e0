//! `volley-loadgen`: the judge. It plays the IMS core and the phones around a deferred-message push
//! engine in one process, checks every message the engine sends, and keeps the ledger of every
//! message and device. It shares no code with the engine.
//!
//! Layers, from the bottom: [`identity`] and [`template`] (names and rendering), [`scan`] and
//! [`msrp`] (tokenizers), [`rules`] and [`check`] (judgement), [`ledger`] and [`stats`] (book
//! keeping), [`world`] (the state machine: no socket, no clock), [`net`] (the driver on
//! tokio-uring), [`workers`] and [`outcome`] (threads, and their sum), [`report`] and [`cli`].
#![expect(
    clippy::disallowed_methods,
    reason = "a load generator reads clocks and starts its thread; only `net`, `cli` and tests do"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "spans are below the 256 KiB message bound, counts below bounds checked in `scenario`"
)]

pub mod answer;
pub mod arrivals;
pub mod behaviour;
pub mod capture;
pub mod chaos;
pub mod check;
pub mod cli;
pub mod cpu;
pub mod curve;
pub mod forms;
pub mod gate;
pub mod goodput;
pub mod host;
pub mod html;
pub mod identity;
pub mod ledger;
pub mod link;
mod mould;
pub mod msrp;
pub mod mutate;
pub mod net;
pub mod outcome;
pub mod panel;
pub mod pcap;
pub mod relay;
pub mod report;
pub mod rules;
pub mod scan;
pub mod scenario;
pub mod stats;
pub mod svg;
pub mod template;
pub mod timeline;
pub mod tools;
pub mod unique;
pub mod validity;
pub mod workers;
pub mod world;

pub use cli::cli_main;
