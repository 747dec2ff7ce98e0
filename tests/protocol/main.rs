//! Protocol tests that replay whole messages from outside: hostile inputs and worked examples.
//!
//! The files are not part of the repository. Set `VOLLEY_TORTURE_DIR` to the directory that holds
//! `INDEX-public.tsv`; without it the replays print one line and pass.

mod torture;
