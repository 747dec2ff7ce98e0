//! `volley demo`: this binary twice, as engine and as judge, over loopback.

use std::process::ExitCode;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Users; each has 1 to 3 devices.
    #[arg(long, default_value_t = 20_000)]
    users: u32,
}

impl Demo {
    pub(super) fn main(&self) -> ExitCode {
        let _ = self.users;
        ExitCode::FAILURE
    }
}
