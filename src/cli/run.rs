//! `volley run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use volley::admin::api::Desk;
use volley::admin::engine::Engine;
use volley::admin::report;
use volley::config::Config;
use volley::config::file::Backend;

use super::lifeline::when_input_ends;
use super::{USAGE, complain, print};

/// How often signals and the shards' snapshots are looked at.
const LOOK: Duration = Duration::from_millis(100);

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
    /// Stop as with SIGTERM when standard input ends: for a parent that must not be outlived.
    #[arg(long)]
    lifeline: bool,
    /// What the shards run on, instead of `node.backend`.
    #[arg(long, value_enum)]
    backend: Option<Backend>,
}

impl Run {
    pub(super) fn main(&self) -> ExitCode {
        let mut config = match volley::config::load(&self.config) {
            Ok(config) => config,
            Err(error) => {
                complain(&error.to_string());
                return ExitCode::from(USAGE);
            }
        };
        let rules = match volley::config::policy::load(&config) {
            Ok(rules) => rules,
            Err(error) => {
                complain(&error.to_string());
                return ExitCode::from(USAGE);
            }
        };
        if let Some(backend) = self.backend {
            config.node.backend = backend;
        }
        let signals = match Signals::new([SIGTERM, SIGINT, SIGHUP]) {
            Ok(signals) => signals,
            Err(error) => {
                complain(&format!("signals cannot be caught: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let engine = match Engine::start(&config, rules) {
            Ok(engine) => engine,
            Err(error) => {
                complain(&error.to_string());
                return ExitCode::FAILURE;
            }
        };
        let orphaned = Arc::new(AtomicBool::new(false));
        if self.lifeline {
            let told = Arc::clone(&orphaned);
            let main = std::thread::current();
            let tell = move || {
                told.store(true, Ordering::Relaxed);
                main.unpark();
            };
            if let Err(error) = when_input_ends(tell) {
                complain(&format!("cannot start a thread: {error}"));
                return ExitCode::FAILURE;
            }
        }
        let desk = Arc::new(Desk::new(&engine));
        let places = match desk.open(&config) {
            Ok(places) => places,
            Err(error) => {
                complain(&error.to_string());
                engine.host.stop_handle().stop();
                let _ = engine.host.join();
                return ExitCode::FAILURE;
            }
        };
        if self.json {
            print(&format!("{}\n", report::ready_json(&engine, &places)));
        }
        if !self.quiet {
            if let Some(line) = report::fallback(&engine) {
                complain(&line);
            }
            complain(&report::ready(&engine, &places));
        }
        let code = self.serve(&config, engine, &desk, signals, &orphaned);
        if let Some(socket) = places.socket {
            let _ = std::fs::remove_file(socket);
        }
        code
    }

    fn serve(
        &self,
        config: &Config,
        mut engine: Engine,
        desk: &Desk,
        mut signals: Signals,
        orphaned: &AtomicBool,
    ) -> ExitCode {
        let stop = engine.host.stop_handle();
        let mut stopping = false;
        loop {
            pause(LOOK);
            let mut ends = orphaned.load(Ordering::Relaxed) || desk.is_drain_asked();
            for signal in signals.pending() {
                if signal == SIGHUP {
                    reread(config, &mut engine);
                } else {
                    ends = true;
                }
            }
            if ends {
                if !self.quiet {
                    complain("stopping: no new pushes, running ones may finish");
                }
                stopping = true;
                stop.stop();
            } else if engine.host.is_stopping() {
                // Nobody asked: a shard has ended, and with it all of them.
                break;
            }
            desk.with_board(|board| {
                let moved = board.update(&engine.snapshots);
                if moved && self.json {
                    print(&format!("{}\n", board.json(&engine.host.counters())));
                } else if moved && !self.quiet {
                    complain(&board.line());
                }
            });
            if stopping {
                break;
            }
        }
        let snapshots = engine.snapshots.clone();
        let stats = engine.host.stats().to_vec();
        let ended = engine.host.join();
        desk.with_board(|board| {
            board.absorb(&snapshots);
            if self.json {
                let counters: Vec<_> = stats.iter().map(|stats| stats.read()).collect();
                print(&format!("{}\n", board.json(&counters)));
            } else if !self.quiet {
                complain(&format!("stopped: {}", board.line()));
            }
        });
        match ended {
            Ok(()) if stopping => ExitCode::SUCCESS,
            Ok(()) => {
                complain("a shard ended although nobody asked it to; all are stopped");
                ExitCode::FAILURE
            }
            Err(error) => {
                complain(&error.to_string());
                ExitCode::FAILURE
            }
        }
    }
}

/// Puts the policy file in force as it is now. One with a mistake changes nothing.
fn reread(config: &Config, engine: &mut Engine) {
    let Some(path) = &config.selection.policy else {
        complain("SIGHUP: selection.policy names no file, so there is nothing to read again");
        return;
    };
    match volley::config::policy::load(config) {
        Ok(rules) => {
            let (overrides, preferences) = rules.counts();
            engine.adopt(rules);
            complain(&format!(
                "{}: in force, with {overrides} overrides and {preferences} preferences",
                path.display()
            ));
        }
        Err(error) => complain(&format!("the rules stay as they were: {error}")),
    }
}

/// Waits without a busy loop; the shards run in their own threads.
fn pause(wait: Duration) {
    std::thread::park_timeout(wait);
}
