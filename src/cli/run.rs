//! `volley run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;
use volley::admin::api::{Desk, Reload};
use volley::admin::dump::{self, Dumps};
use volley::admin::engine::Engine;
use volley::admin::log::{Form, Log};
use volley::admin::watch::Watch;
use volley::admin::{reload, report};
use volley::config::file::Level;
use volley::config::{Config, ConfigError};
use volley::io::backend::Backend;

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
    /// Log nothing but errors.
    #[arg(long, short)]
    quiet: bool,
    /// How lines on standard error look.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Stop as with SIGTERM when standard input ends: for a parent that must not be outlived.
    #[arg(long)]
    lifeline: bool,
    /// What the shards run on, instead of `node.backend`.
    #[arg(long, value_enum)]
    backend: Option<Backend>,
}

/// How lines on standard error look.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    /// Time, level, module, text.
    Text,
    /// A JSON object a line.
    Json,
    /// A priority that journald understands, and the text.
    JournaldPrefix,
}

impl From<LogFormat> for Form {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
            LogFormat::JournaldPrefix => Self::JournaldPrefix,
        }
    }
}

impl Run {
    fn log(&self, config: &Config) -> Log {
        let instruments = &config.instruments;
        let level = if self.quiet {
            Level::Error
        } else {
            instruments.log_level
        };
        let log = Log::new(self.log_format.into(), level, instruments.log_identities);
        log.install();
        log
    }

    pub(super) fn main(&self) -> ExitCode {
        let config = match read(&self.config, self.backend) {
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
        let signals = match Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2]) {
            Ok(signals) => signals,
            Err(error) => {
                complain(&format!("signals cannot be caught: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let log = self.log(&config);
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
        let desk = Arc::new(Desk::new(&engine, &config, log.clone()));
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
        if let Some(line) = report::fallback(&engine) {
            tracing::warn!("{line}");
        }
        if let Some(line) = report::shortage(&engine) {
            tracing::warn!("{line}");
        }
        tracing::info!("{}", report::ready(&engine, &places));
        let running = Running {
            path: &self.config,
            backend: self.backend,
            json: self.json,
            config,
            log,
            desk: &desk,
            dumps: Dumps::default(),
            watch: Watch::default(),
        };
        let code = running.serve(engine, signals, &orphaned);
        if let Some(socket) = places.socket {
            let _ = std::fs::remove_file(socket);
        }
        code
    }
}

/// The configuration file, and what the command line says instead.
fn read(path: &Path, backend: Option<Backend>) -> Result<Config, ConfigError> {
    let mut config = volley::config::load(path)?;
    config.node.backend = backend.unwrap_or(config.node.backend);
    Ok(config)
}

/// An engine that serves, as the main thread sees it.
struct Running<'a> {
    /// The configuration file.
    path: &'a Path,
    backend: Option<Backend>,
    /// A JSON line of all counters a second.
    json: bool,
    /// What holds.
    config: Config,
    log: Log,
    desk: &'a Desk,
    dumps: Dumps,
    watch: Watch,
}

impl Running<'_> {
    fn serve(
        mut self,
        mut engine: Engine,
        mut signals: Signals,
        orphaned: &AtomicBool,
    ) -> ExitCode {
        let stop = engine.host.stop_handle();
        let mut stopping = false;
        loop {
            pause(LOOK);
            let mut ends = orphaned.load(Ordering::Relaxed) || self.desk.is_drain_asked();
            for signal in signals.pending() {
                match signal {
                    SIGHUP => drop(self.reload(&mut engine)),
                    SIGUSR2 => self.dump("on a signal"),
                    _ => ends = true,
                }
            }
            while let Some(asker) = self.desk.take_reload() {
                let _ = asker.try_send(self.reload(&mut engine));
            }
            if ends {
                tracing::info!("stopping: no new pushes, running ones may finish");
                stopping = true;
                stop.stop();
            } else if engine.host.is_stopping() {
                // Nobody asked: a shard has ended, and with it all of them.
                break;
            }
            self.look(&engine);
            if stopping {
                break;
            }
        }
        self.end(engine, stopping)
    }

    /// Shows what the shards have shown since the last look.
    fn look(&mut self, engine: &Engine) {
        let counters = engine.host.counters();
        let (watch, json) = (&mut self.watch, self.json);
        let moved = self.desk.with_board(|board| {
            let moved = board.update(&engine.snapshots);
            if moved && json {
                print(&format!("{}\n", board.json(&counters)));
            } else if moved {
                board.log();
            }
            watch.look(board.shards(), &counters);
            moved.then(|| board.total().trigger_time)
        });
        let Some(trigger_time) = moved else { return };
        let objective = self.config.instruments.objective_trigger_to_invite_ms;
        let late = self
            .dumps
            .breach(&trigger_time, Duration::from_millis(objective));
        if let Some(late) = late {
            tracing::warn!(late, objective_ms = objective, "INVITEs left late");
            if self.config.instruments.dump_dir.is_some() {
                self.dump("because of late INVITEs");
            }
        }
    }

    fn dump(&self, why: &str) {
        let directory = self.config.instruments.dump_dir.as_deref();
        match dump::write(self.desk.inquiry(), directory) {
            Ok(path) => tracing::info!(file = %path.display(), "flight recorder dumped {why}"),
            Err(error) => tracing::error!("the flight recorder could not be dumped {why}: {error}"),
        }
    }

    /// Puts the files in force as they are now. A mistake in them changes nothing.
    fn reload(&mut self, engine: &mut Engine) -> Reload {
        let before = self.config.instruments.clone();
        let done = read(self.path, self.backend)
            .and_then(|new| reload::reload(&new, &mut self.config, engine));
        match done {
            Ok(done) => {
                let now = &self.config.instruments;
                self.log.set_identities(now.log_identities);
                // A level that was set by an order stays, unless the file has another one than before.
                if now.log_level != before.log_level {
                    let _ = self.log.set_level(now.log_level, None);
                }
                tracing::info!("{}: read again, {}", self.path.display(), done.text());
                Ok(done)
            }
            Err(error) => {
                tracing::error!("everything stays as it was: {error}");
                Err(format!("everything stays as it was: {error}"))
            }
        }
    }

    fn end(self, engine: Engine, stopping: bool) -> ExitCode {
        let snapshots = engine.snapshots.clone();
        let stats = engine.host.stats().to_vec();
        let ended = engine.host.join();
        self.desk.with_board(|board| {
            board.absorb(&snapshots);
            if self.json {
                let counters: Vec<_> = stats.iter().map(|stats| stats.read()).collect();
                print(&format!("{}\n", board.json(&counters)));
            } else {
                tracing::info!("stopped: {}", board.line());
            }
        });
        match ended {
            Ok(()) if stopping => ExitCode::SUCCESS,
            Ok(()) => {
                tracing::error!("a shard ended although nobody asked it to; all are stopped");
                ExitCode::FAILURE
            }
            Err(error) => {
                tracing::error!("{error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Waits without a busy loop; the shards run in their own threads.
fn pause(wait: Duration) {
    std::thread::park_timeout(wait);
}
