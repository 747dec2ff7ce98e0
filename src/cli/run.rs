//! `volley run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use volley::admin::engine::Engine;
use volley::admin::report::{self, Board};
use volley::io::host;

use super::{USAGE, complain, print};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A JSON line of all counters a second on standard output.
    #[arg(long)]
    json: bool,
    /// Print nothing but errors.
    #[arg(long, short)]
    quiet: bool,
}

impl Run {
    pub(super) fn main(&self) -> ExitCode {
        let config = match volley::config::load(&self.config) {
            Ok(config) => config,
            Err(error) => {
                complain(&error.to_string());
                return ExitCode::from(USAGE);
            }
        };
        if let Err(error) = host::probe() {
            complain(&error.to_string());
            return ExitCode::FAILURE;
        }
        let signals = match Signals::new([SIGTERM, SIGINT]) {
            Ok(signals) => signals,
            Err(error) => {
                complain(&format!("signals cannot be caught: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let engine = match Engine::start(&config) {
            Ok(engine) => engine,
            Err(error) => {
                complain(&error.to_string());
                return ExitCode::FAILURE;
            }
        };
        if !self.quiet {
            complain(&report::ready(&engine));
        }
        self.serve(engine, signals)
    }

    fn serve(&self, engine: Engine, mut signals: Signals) -> ExitCode {
        let stop = engine.host.stop_handle();
        let mut board = Board::new(engine.host.addresses().len());
        let mut stopping = false;
        loop {
            pause(Duration::from_millis(250));
            if signals.pending().next().is_some() {
                if !self.quiet && !stopping {
                    complain("stopping: no new pushes, running ones may finish");
                }
                stopping = true;
                stop.stop();
            }
            let moved = board.update(&engine);
            if moved && self.json {
                print(&format!("{}\n", board.json(&engine.host.counters())));
            } else if moved && !self.quiet {
                complain(&board.line());
            }
            if stopping {
                break;
            }
        }
        let snapshots = engine.snapshots.clone();
        let stats = engine.host.stats().to_vec();
        let ended = engine.host.join();
        board.absorb(&snapshots);
        if self.json {
            let counters: Vec<_> = stats.iter().map(|stats| stats.read()).collect();
            print(&format!("{}\n", board.json(&counters)));
        } else if !self.quiet {
            complain(&format!("stopped: {}", board.line()));
        }
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error.to_string());
                ExitCode::FAILURE
            }
        }
    }
}

/// Waits without a busy loop; the shards run in their own threads.
fn pause(wait: Duration) {
    std::thread::park_timeout(wait);
}
