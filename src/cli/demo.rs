//! `volley demo`: this binary twice, as engine and as judge, over loopback.
//!
//! The engine is started as it ships (`run` with a configuration file), the judge as `judge run`.
//! Both are children with a lifeline ([`super::child`]); files of the engine live in a
//! [`Place`] that is removed at the end.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use volley::io::backend::Backend;
use volley::io::clock::Clock;
use volley::io::host;

use super::child::{LOOK, Process};
use super::place::Place;
use super::{USAGE, complain};

/// How long the engine may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a drained engine may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// Ports for the simulated core come from here: below the range of outgoing connections.
const PORTS: core::ops::Range<u16> = 20_000..30_000;
/// Lines of the engine's log that are shown when it fails.
const LOG_TAIL_LINES: usize = 12;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Users; each has 1 to 3 devices.
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// Keep the engine's store and configuration in DIR (default: a temporary directory).
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Where report.txt, report.json, engine.json and engine.log are written.
    #[arg(long, value_name = "DIR", default_value = "volley-report")]
    report_dir: PathBuf,
    /// What the engine's shards run on.
    #[arg(long, value_enum, default_value = "auto")]
    backend: Backend,
    /// The report as JSON on standard output, nothing else there.
    #[arg(long)]
    json: bool,
}

/// Why there is no verdict.
#[derive(Debug)]
enum Failure {
    /// Something of this machine or the engine; one message for people.
    Failed(String),
    /// A signal asked us to stop.
    Interrupted(i32),
    /// A flag that cannot work.
    Usage(String),
}

impl Demo {
    pub(super) fn main(&self) -> ExitCode {
        match self.run() {
            Ok(code) => ExitCode::from(code),
            Err(Failure::Failed(why)) => {
                complain(&why);
                ExitCode::FAILURE
            }
            Err(Failure::Interrupted(signal)) => {
                complain("demo: interrupted; both processes are stopped and their files removed");
                ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
            }
            Err(Failure::Usage(why)) => {
                complain(&why);
                ExitCode::from(USAGE)
            }
        }
    }

    fn run(&self) -> Result<u8, Failure> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])
            .map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;
        host::probe().map_err(|error| Failure::Failed(error.to_string()))?;
        let reports = self.reports()?;
        let place = self.place(&reports)?;
        let core_port = free_port()?;
        let config = place.path().join("volley.toml");
        fs::write(&config, self.config(core_port, &place.path().join("store")))
            .map_err(|error| cannot("write", &config, &error))?;

        let mut engine = Engine::start(&config, self.backend, &reports.join("engine.log"))?;
        let listening = engine.wait_until_ready(&mut signals)?;
        super::tell(&self.opening(&engine, &listening, &place));
        let clock = Clock;
        let start = clock.now();
        let mut judge = self.judge(&engine, listening.sip, core_port, &reports)?;
        let status = watch(&mut engine, &mut judge, &mut signals)?;
        let took = clock.now().since(start);
        let judge_peak = judge.peak_kib;
        drop(judge);
        let (engine_peak, stopped) = engine.stop(&reports.join("engine.json"));

        let code = status.code().and_then(|code| u8::try_from(code).ok());
        let stopped = stopped.is_some_and(|status| status.success());
        super::tell(&format!(
            "\n{} ({:.1} s; peak memory: engine {} MiB, judge {} MiB)\nreports: {}",
            verdict(code, stopped),
            took.as_secs_f64(),
            engine_peak >> 10,
            judge_peak >> 10,
            ["report.txt", "report.json", "engine.json", "engine.log"]
                .map(|name| reports.join(name).display().to_string())
                .join(" ")
        ));
        Ok(match code {
            Some(0) if !stopped => 1,
            Some(code) => code,
            None => 1,
        })
    }

    fn reports(&self) -> Result<PathBuf, Failure> {
        let path = &self.report_dir;
        let probe = path.join("engine.log");
        fs::create_dir_all(path)
            .and_then(|()| File::create(&probe).map(drop))
            .map_err(|error| {
                Failure::Failed(format!(
                    "reports cannot be written to {}: {error}; run in a directory you may write \
                     to, or give --report-dir",
                    path.display()
                ))
            })?;
        for stale in ["report.txt", "report.json", "engine.json"] {
            // Only of an earlier run; a missing one is the normal case.
            let _ = fs::remove_file(path.join(stale));
        }
        Ok(path.clone())
    }

    fn place(&self, reports: &Path) -> Result<Place, Failure> {
        match &self.keep {
            Some(path) => Place::kept(path).map_err(Failure::Usage),
            None => Place::temporary(&[std::env::temp_dir(), reports.to_owned()])
                .map_err(Failure::Failed),
        }
    }

    fn config(&self, core_port: u16, store: &Path) -> String {
        let dir = toml::Value::String(store.display().to_string());
        let users_max = u64::from(self.users) * 2 + 1000;
        format!(
            "# Written by `volley demo`.\n\
             [node]\ndrain_s = 5\n\n\
             [sip]\nlisten = \"127.0.0.1:0\"\n\
             next_hops = [{{ address = \"127.0.0.1:{core_port}\", connections = 4 }}]\n\n\
             [identity]\npf_uri = \"sip:cpm-pf@home.example\"\ndomains = [\"home.example\"]\n\n\
             # Phones are on loopback and share one address; a session ends with its last message.\n\
             [push]\nlinger_ms = 0\n\n\
             [msrp]\nlisten = \"127.0.0.1:0\"\nreuse = true\nguard = false\n\n\
             [store]\ndir = {dir}\nsegment_mib = 16\n\n\
             [limits]\nusers_max = {users_max}\npushes_max = 100000\n"
        )
    }

    fn opening(&self, engine: &Engine, listening: &Listening, place: &Place) -> String {
        let memory = if place.in_memory() {
            " (a RAM disk: syncs cost nothing there)"
        } else {
            ""
        };
        format!(
            "volley demo: {} users with 1 to 3 devices each\n  \
             engine  process {}, SIP {}, MSRP {}, store {}{memory}\n  \
             deposit a SIP MESSAGE for each absent user: 202 only after it is durable\n  \
             wave    the phones register; SUBSCRIBE, NOTIFY, selection, an INVITE to each device,\n          \
             MSRP, report, durable `delivered`, BYE; every INVITE is checked rule by rule",
            self.users,
            engine.process.id(),
            listening.sip,
            listening.msrp,
            place.path().display(),
        )
    }

    fn judge(
        &self,
        engine: &Engine,
        sip: SocketAddr,
        core_port: u16,
        reports: &Path,
    ) -> Result<Process, Failure> {
        let mut command = own()?;
        command
            .args(["judge", super::LIFELINE, "run", "--scenario", "full"])
            .args(["--users", &self.users.to_string()])
            .args(["--engine", &sip.to_string()])
            .args(["--engine-pid", &engine.process.id().to_string()])
            .args(["--scscf-listen", &format!("127.0.0.1:{core_port}")])
            .args(["--msrp-listen", "127.0.0.1:0"])
            .arg("--report-dir")
            .arg(reports);
        if self.json {
            command.args(["--json", "-"]);
        }
        Process::start(&mut command)
            .map_err(|error| Failure::Failed(format!("the judge cannot be started: {error}")))
    }
}

/// Where the engine listens.
#[derive(Debug)]
struct Listening {
    sip: SocketAddr,
    msrp: SocketAddr,
}

/// The engine's process, its output and its log.
#[derive(Debug)]
struct Engine {
    process: Process,
    lines: Receiver<String>,
    last: String,
    log: PathBuf,
}

impl Engine {
    fn start(config: &Path, backend: Backend, log: &Path) -> Result<Self, Failure> {
        let file = File::create(log).map_err(|error| cannot("write", log, &error))?;
        let mut command = own()?;
        command
            .args(["run", "--json", super::LIFELINE, "--config"])
            .arg(config)
            .args(["--backend", backend.name()])
            .stdout(Stdio::piped())
            .stderr(file);
        let start = || {
            let mut process = Process::start(&mut command)?;
            let lines = process.lines()?;
            Ok((process, lines))
        };
        let started: std::io::Result<_> = { start }();
        let (process, lines) = started
            .map_err(|error| Failure::Failed(format!("the engine cannot be started: {error}")))?;
        Ok(Self {
            process,
            lines,
            last: String::new(),
            log: log.to_owned(),
        })
    }

    fn wait_until_ready(&mut self, signals: &mut Signals) -> Result<Listening, Failure> {
        let clock = Clock;
        let limit = clock.now() + START_LIMIT;
        while clock.now() < limit {
            if let Some(signal) = signals.pending().next() {
                return Err(Failure::Interrupted(signal));
            }
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => {
                    if let Some(listening) = listening(&line) {
                        return Ok(listening);
                    }
                }
                Err(_) if self.process.ended().is_some() => {
                    return Err(self.failure("the engine did not start"));
                }
                Err(_) => {}
            }
        }
        Err(self.failure("the engine was not ready in time"))
    }

    /// Keeps the last line of counters.
    fn read(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.last = line;
        }
    }

    /// Ends it, writes its last counters; its peak memory in KiB, and its status if it ended
    /// by itself.
    fn stop(mut self, counters: &Path) -> (u64, Option<ExitStatus>) {
        let peak = self.process.peak_kib;
        let status = self.process.stop(STOP_LIMIT);
        // The process is gone, so the channel ends.
        while let Ok(line) = self.lines.recv() {
            self.last = line;
        }
        if status.is_none() {
            complain("the engine did not end when asked and was killed");
        }
        let text = serde_json::from_str::<serde_json::Value>(&self.last)
            .and_then(|value| serde_json::to_string_pretty(&value))
            .unwrap_or_else(|_| "{}".to_owned());
        if let Err(error) = fs::write(counters, text + "\n") {
            complain(&format!("{}: {error}", counters.display()));
        }
        (peak, status)
    }

    fn failure(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        Failure::Failed(format!(
            "{what}; the end of {}:\n  {}",
            self.log.display(),
            tail.join("\n  ")
        ))
    }
}

/// Until the judge ends: its status. An engine that ends before is a failure.
fn watch(
    engine: &mut Engine,
    judge: &mut Process,
    signals: &mut Signals,
) -> Result<ExitStatus, Failure> {
    loop {
        if let Some(signal) = signals.pending().next() {
            return Err(Failure::Interrupted(signal));
        }
        engine.read();
        if let Some(status) = judge.ended() {
            // Ctrl-C at a terminal reaches all three of us, and the judge may end first.
            return match signals.pending().next() {
                Some(signal) => Err(Failure::Interrupted(signal)),
                None => Ok(status),
            };
        }
        if let Some(status) = engine.process.ended() {
            return Err(engine.failure(&format!("the engine ended ({status})")));
        }
        std::thread::park_timeout(LOOK);
    }
}

/// The sentence at the end.
fn verdict(code: Option<u8>, stopped: bool) -> &'static str {
    match code {
        Some(0) if !stopped => "FAILED: the judge is content, but the engine did not end in order",
        Some(0) => {
            "PASSED: every message reached every selected device exactly once, no rule was broken"
        }
        Some(1) => "FAILED: an objective was missed",
        Some(3) => "NO VERDICT: the judge or this machine was the limit",
        Some(4) => "FAILED: a rule was broken or the ledger does not balance",
        Some(6) => "FAILED: the judge could not reach the engine",
        Some(_) => "FAILED: the judge did not run",
        None => "FAILED: the judge was killed",
    }
}

/// The addresses in the engine's first line.
fn listening(line: &str) -> Option<Listening> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let shard = value.get("ready")?.get("shards")?.get(0)?;
    let address = |name: &str| shard.get(name)?.as_str()?.parse().ok();
    Some(Listening {
        sip: address("sip_tcp")?,
        msrp: address("msrp")?,
    })
}

/// A port of loopback that nobody listens on.
fn free_port() -> Result<u16, Failure> {
    let span = u32::from(PORTS.end - PORTS.start);
    let first = std::process::id().wrapping_mul(31) % span;
    (0..1000)
        .map(|step| PORTS.start + u16::try_from((first + step) % span).unwrap_or(0))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .ok_or_else(|| {
            Failure::Failed(format!(
                "no port of 127.0.0.1 from {} to {} is free; see `ss -lnt`",
                PORTS.start, PORTS.end
            ))
        })
}

/// This program, to be started again.
fn own() -> Result<Command, Failure> {
    std::env::current_exe()
        .map(Command::new)
        .map_err(|error| Failure::Failed(format!("this program does not find itself: {error}")))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot {what} {}: {error}", path.display()))
}
