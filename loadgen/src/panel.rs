//! Progress of a run: a panel redrawn on a terminal, else a line a second; and JSON lines for
//! machines.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use serde::Serialize;

use crate::scenario::Setup;
use crate::stats::{Counters, Stage};
use crate::world::{Step, World};

/// One look at a running world.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    /// Seconds since the start.
    pub seconds: f64,
    /// The step.
    pub step: &'static str,
    /// Pushes per second since the last look.
    pub pushes_per_s: f64,
    /// Pushes wanted per second, in an open loop.
    pub offered_per_s: Option<f64>,
    /// Pushes so far.
    pub pushes: u64,
    /// Deposits accepted so far.
    pub deposits: u64,
    /// Messages delivered so far.
    pub delivered: u64,
    /// Triggers outstanding.
    pub open: u32,
    /// Triggers not sent.
    pub missed: u64,
    /// Trigger to INVITE, milliseconds: half of them are at most this.
    pub p50_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// The generator's own lateness, 99 %, milliseconds.
    pub lag_p99_ms: f64,
    /// Rules broken so far.
    pub violations: u64,
    /// The verdict so far.
    pub verdict: &'static str,
}

/// Looks at `world`; `earlier` is what was counted `span` seconds ago.
pub fn look(world: &World, earlier: &Counters, span: f64, seconds: f64) -> Look {
    let counters = &world.counters;
    let ms = |stage: Stage, quantile: f64| {
        world.latencies.of(stage).value_at_quantile(quantile) as f64 / 1e6
    };
    let lag = ms(Stage::SendLag, 0.99);
    let missed = counters.missed_late + counters.missed_no_user;
    let verdict = if world.violations.total() > 0 {
        "NOT CONFORMANT"
    } else if lag > world.setup.lag_bound_ms || missed * 1000 > counters.triggers_due {
        "INVALID so far"
    } else {
        "good so far"
    };
    Look {
        seconds,
        step: world.director.step.name(),
        pushes_per_s: (counters.pushes - earlier.pushes) as f64 / span.max(1e-6),
        offered_per_s: world.offered(),
        pushes: counters.pushes,
        deposits: counters.deposits_accepted,
        delivered: counters.reports,
        open: world.director.open,
        missed,
        p50_ms: ms(Stage::TriggerToInvite, 0.5),
        p99_ms: ms(Stage::TriggerToInvite, 0.99),
        p999_ms: ms(Stage::TriggerToInvite, 0.999),
        lag_p99_ms: lag,
        violations: world.violations.total(),
        verdict,
    }
}

impl Look {
    /// As one line of text.
    pub fn line(&self) -> String {
        format!(
            "{:7.1} s  {:<9}{:>9.0} pushes/s  {:>10} pushes  {:>8} deposits  {:>9} delivered  \
             {:>6} open  {} violations",
            self.seconds,
            self.step,
            self.pushes_per_s,
            self.pushes,
            self.deposits,
            self.delivered,
            self.open,
            self.violations,
        )
    }

    /// As the lines of the panel.
    fn lines(&self, setup: &Setup, keys: bool) -> Vec<String> {
        let offered = self.offered_per_s.map_or_else(
            || "closed loop".to_owned(),
            |rate| format!("{rate:.0}/s offered"),
        );
        let of = if setup.kind.measured() == Step::Measure {
            setup.duration_s
        } else {
            0.0
        };
        let mut lines = vec![
            format!(
                "{:>8.1} s   step {:<9} verdict {}",
                self.seconds, self.step, self.verdict
            ),
            format!(
                "{:>8.0} pushes/s   {offered}   {} pushes   {} missed",
                self.pushes_per_s, self.pushes, self.missed
            ),
            format!(
                "{:>8} open   {} deposits   {} delivered   {} violations",
                self.open, self.deposits, self.delivered, self.violations
            ),
            format!(
                "trigger to INVITE, ms: p50 {:.3}  p99 {:.3}  p99.9 {:.3}   send lag p99 {:.3}",
                self.p50_ms, self.p99_ms, self.p999_ms, self.lag_p99_ms
            ),
        ];
        if of > 0.0 && self.step == "measure" {
            lines.push(format!("measures {of:.0} s"));
        }
        if keys {
            lines.push("keys: + and - change the rate by a tenth, q ends the run".to_owned());
        }
        lines
    }
}

/// Keys typed at a terminal, one by one.
#[derive(Debug)]
pub struct Keys(Receiver<u8>);

impl Keys {
    /// Listens for keys; nothing without a terminal.
    pub fn start() -> Option<Self> {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return None;
        }
        terminal(&["-icanon", "-echo", "min", "1"]);
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut key = [0];
            while let Ok(1) = std::io::stdin().read(&mut key) {
                if sender.send(key[0]).is_err() {
                    return;
                }
            }
        });
        Some(Self(receiver))
    }

    /// Keys typed since the last call.
    pub fn typed(&self) -> impl Iterator<Item = u8> {
        self.0.try_iter()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        terminal(&["icanon", "echo"]);
    }
}

/// Sets modes of the terminal; without `stty` keys need a return behind them.
fn terminal(modes: &[&str]) {
    let _ = std::process::Command::new("stty").args(modes).status();
}

/// Where progress goes.
#[derive(Debug)]
pub struct Panel {
    quiet: bool,
    drawn: usize,
    ndjson: Option<File>,
    keys: bool,
}

impl Panel {
    /// A panel for a setup; the error names the file that cannot be written.
    pub fn new(setup: &Setup, keys: bool) -> Result<Self, String> {
        let ndjson = match setup.ndjson.as_deref() {
            None => None,
            Some(path) => {
                let place = if path == Path::new("-") {
                    Path::new("/dev/stdout")
                } else {
                    path
                };
                let file = File::create(place)
                    .map_err(|error| format!("--ndjson {}: {error}", path.display()))?;
                Some(file)
            }
        };
        Ok(Self {
            quiet: setup.quiet,
            drawn: 0,
            ndjson,
            keys,
        })
    }

    /// Whether anybody looks.
    pub fn wanted(&self) -> bool {
        !self.quiet || self.ndjson.is_some()
    }

    /// Shows one look.
    pub fn show(&mut self, look: &Look, setup: &Setup) {
        if let Some(file) = &mut self.ndjson {
            let mut line = serde_json::to_string(look).unwrap_or_default();
            line.push('\n');
            let _ = file.write_all(line.as_bytes());
        }
        if self.quiet {
            return;
        }
        let mut out = std::io::stderr().lock();
        if out.is_terminal() {
            let lines = look.lines(setup, self.keys);
            if self.drawn > 0 {
                let _ = write!(out, "\x1b[{}A", self.drawn);
            }
            // In raw mode a line feed does not return the carriage.
            for line in &lines {
                let _ = write!(out, "\r\x1b[2K{line}\r\n");
            }
            self.drawn = lines.len();
        } else {
            let _ = writeln!(out, "{}", look.line());
        }
        let _ = out.flush();
    }
}
