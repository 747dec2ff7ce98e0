//! Progress of a run: a panel redrawn on a terminal, else a line a second; and JSON lines for
//! machines.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

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

/// What a worker shows of its world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glance {
    /// Events so far.
    pub counters: Counters,
    step: Option<Step>,
    offered: Option<f64>,
    open: u32,
    violations: u64,
    /// Trigger to INVITE: 50 %, 99 %, 99.9 %; send lag: 99 %; milliseconds.
    quantiles: [f64; 4],
}

impl Glance {
    /// Looks at `world`.
    pub fn new(world: &World) -> Self {
        let ms = |stage: Stage, quantile: f64| {
            world.latencies.of(stage).value_at_quantile(quantile) as f64 / 1e6
        };
        Self {
            counters: world.counters,
            step: Some(world.director.step),
            offered: world.offered(),
            open: world.director.open,
            violations: world.violations.total(),
            quantiles: [
                ms(Stage::TriggerToInvite, 0.5),
                ms(Stage::TriggerToInvite, 0.99),
                ms(Stage::TriggerToInvite, 0.999),
                ms(Stage::SendLag, 0.99),
            ],
        }
    }
}

/// Sums what the workers show; `earlier` is what was counted `span` seconds ago. Quantiles are those of
/// the worst worker.
pub fn look(
    all: &[Glance],
    setup: &Setup,
    earlier: &Counters,
    (span, seconds): (f64, f64),
) -> (Look, Counters) {
    let mut counters = Counters::default();
    let mut quantiles = [0.0f64; 4];
    for glance in all {
        counters.add(&glance.counters);
        for (worst, one) in quantiles.iter_mut().zip(glance.quantiles) {
            *worst = worst.max(one);
        }
    }
    let violations = all.iter().map(|glance| glance.violations).sum();
    let missed = counters.missed_late + counters.missed_no_user;
    let [p50_ms, p99_ms, p999_ms, lag_p99_ms] = quantiles;
    let verdict = if violations > 0 {
        "NOT CONFORMANT"
    } else if lag_p99_ms > setup.lag_bound_ms || missed * 1000 > counters.triggers_due {
        "INVALID so far"
    } else {
        "good so far"
    };
    let offered = all.iter().filter_map(|glance| glance.offered);
    let look = Look {
        seconds,
        step: all
            .iter()
            .filter_map(|glance| glance.step)
            .min()
            .map_or("start", Step::name),
        pushes_per_s: (counters.pushes - earlier.pushes) as f64 / span.max(1e-6),
        offered_per_s: offered.reduce(|sum, one| sum + one),
        pushes: counters.pushes,
        deposits: counters.deposits_accepted,
        delivered: counters.reports,
        open: all.iter().map(|glance| glance.open).sum(),
        missed,
        p50_ms,
        p99_ms,
        p999_ms,
        lag_p99_ms,
        violations,
        verdict,
    };
    (look, counters)
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
    /// Seconds of the run and counts of the last look.
    last: (f64, Counters),
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
            last: (0.0, Counters::default()),
        })
    }

    /// Whether anybody looks.
    pub fn wanted(&self) -> bool {
        !self.quiet || self.ndjson.is_some()
    }

    /// Shows what the workers show, when `every` has passed since the last time.
    pub fn tick(&mut self, all: &[Glance], setup: &Setup, seconds: f64, every: Duration) {
        let (then, earlier) = self.last;
        let span = seconds - then;
        if span < every.as_secs_f64() {
            return;
        }
        let (look, counters) = look(all, setup, &earlier, (span, seconds));
        self.last = (seconds, counters);
        self.show(&look, setup);
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
