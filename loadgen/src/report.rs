//! The result of a run: three verdicts that are never mixed, the figures behind them, text and JSON.

use core::fmt::Write as _;

use std::borrow::Cow;
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cpu::{self, Usage};
use crate::curve::{self, Curve, Series};
use crate::goodput::{self, Goodput};
use crate::ledger::Balance;
use crate::net::Mark;
use crate::outcome::Outcome;
use crate::scenario::{Check, Setup};
use crate::stats::{Counters, Stage, parse_latency_objective};
use crate::validity::{self, Reason};
use crate::world::Step;

/// Exit code: everything as demanded.
pub const EXIT_OK: i32 = 0;
/// Exit code: an objective was missed.
pub const EXIT_OBJECTIVE: i32 = 1;
/// Exit code: wrong usage.
pub const EXIT_USAGE: i32 = 2;
/// Exit code: the generator or the host was the limit.
pub const EXIT_INVALID: i32 = 3;
/// Exit code: a rule was broken or the ledger does not balance.
pub const EXIT_VIOLATION: i32 = 4;
/// Exit code: a comparison found a figure worse.
pub const EXIT_REGRESSION: i32 = 5;
/// Exit code: the engine was not reached.
pub const EXIT_UNREACHABLE: i32 = 6;

/// Text that is mostly constant.
pub type Text = Cow<'static, str>;

/// One step of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// Name of the step.
    pub name: Text,
    /// Seconds it took.
    pub seconds: f64,
    /// Pushes completed in it.
    pub pushes: u64,
    /// Deposits accepted in it.
    pub deposits: u64,
    /// Pushes per second.
    pub pushes_per_s: f64,
    /// Engine CPU per push (per deposit in the deposit step), microseconds.
    pub engine_us_per_push: Option<f64>,
    /// Pushes (deposits) per second of engine CPU.
    pub pushes_per_engine_core_second: Option<f64>,
    /// Engine CPU over time; above one with several threads.
    pub engine_busy: Option<f64>,
    /// Share of engine CPU spent in the kernel.
    pub engine_system_share: Option<f64>,
    /// Share of the time it could have run that the engine waited for a CPU.
    pub engine_wait_share: Option<f64>,
    /// The same of this generator.
    pub own_wait_share: f64,
    /// Share of CPU time that a hypervisor took.
    pub host_steal_share: f64,
    /// Share of all CPU time of this host that was used.
    pub host_busy: f64,
    /// Engine context switches per push.
    pub engine_switches_per_push: Option<f64>,
    /// CPU of this generator per push, microseconds.
    pub own_us_per_push: f64,
    /// CPU of this generator over time; above one with several workers.
    pub own_busy: f64,
    /// CPU of its busiest thread over time.
    #[serde(default)]
    pub busiest_worker: f64,
    /// Messages per turn: how well work is batched.
    pub octets_per_turn: f64,
}

/// One stage's latency, milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// The stage.
    pub stage: Text,
    /// Samples.
    pub count: u64,
    /// Half of the samples are at most this.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn new(stage: &str, histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Self {
            stage: stage.to_owned().into(),
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e6,
        }
    }
}

/// A broken rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Broken {
    /// Row of the requirements.
    pub rule: Text,
    /// What it demands.
    pub text: Text,
    /// Times broken.
    pub count: u64,
}

/// A message that broke a rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OffenderRow {
    /// Row of the requirements.
    pub rule: Text,
    /// What was wrong.
    pub what: Text,
    /// The message.
    pub message: String,
}

/// An objective and how it came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ObjectiveRow {
    /// As given.
    pub name: String,
    /// The bound.
    pub bound: f64,
    /// What was measured.
    pub measured: Option<f64>,
    /// Whether it is met.
    pub met: bool,
}

/// The ledger as JSON.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each field is the field of `Balance` of the same name"
)]
pub struct LedgerRow {
    pub deposited: u64,
    pub accepted: u64,
    pub refused: u64,
    pub unanswered: u64,
    pub expected: u64,
    pub delivered: u64,
    pub kept: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub foreign: u64,
}

/// A trial of a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// Load, pushes per second.
    pub load: f64,
    /// Seconds measured.
    pub seconds: f64,
    /// Share of the triggers that missed the goal.
    pub loss_ratio: f64,
    /// Whether the goals were met.
    pub good: bool,
    /// Whether the run was valid by its own account; if not, the generator or the host was the limit.
    pub valid: bool,
}

/// Everything about a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of this layout.
    pub schema: u32,
    /// Course of the run.
    pub kind: Text,
    /// Transport of SIP.
    pub transport: Text,
    /// Over UDP: `trains` or `datagrams`; `none` over TCP.
    #[serde(default)]
    pub reply_style: Text,
    /// Users and devices of the world.
    pub users: u32,
    /// Devices of all users.
    pub devices: u64,
    /// `full`, `off` or `sampled:N`.
    pub check: String,
    /// Whether the figures may be believed.
    pub valid: bool,
    /// Why not, each with a remedy.
    pub invalid_reasons: Vec<Reason>,
    /// Whether no rule was broken.
    pub conformant: bool,
    /// Whether the ledger balances and every trigger came to its push.
    pub ledger_balances: bool,
    /// Whether every objective is met.
    pub objectives_met: bool,
    /// The step in which nothing moved any more, if the run was ended for that.
    pub aborted: Option<Text>,
    /// Name of the phase that the headline is about.
    pub headline: Text,
    /// Steps in order.
    pub phases: Vec<Phase>,
    /// Latencies.
    pub latencies: Vec<Latency>,
    /// The ledger.
    pub ledger: LedgerRow,
    /// Broken rules.
    pub broken: Vec<Broken>,
    /// First offenders.
    pub offenders: Vec<OffenderRow>,
    /// Objectives.
    pub objectives: Vec<ObjectiveRow>,
    /// Final answers other than 2xx to deposits.
    pub refusals: Vec<(u16, u64)>,
    /// Events by name.
    pub counters: BTreeMap<Text, u64>,
    /// Latencies by percentile.
    pub curves: Vec<Curve>,
    /// The measured step over time.
    pub series: Series,
    /// How the engine stood more than it can do, in an open loop.
    #[serde(default)]
    pub goodput: Option<Goodput>,
    /// Most memory this generator had at a time, KiB.
    #[serde(default)]
    pub own_peak_kib: u64,
    /// Most memory the engine had at a time, KiB.
    #[serde(default)]
    pub engine_peak_kib: Option<u64>,
    /// All latencies in the interval log format of HdrHistogram.
    pub hlog: String,
    /// Trials of a search.
    #[serde(default)]
    pub trials: Vec<Trial>,
    /// Exit code.
    pub exit_code: i32,
}

/// Builds the report of a finished run.
pub fn build(run: &Outcome) -> Report {
    let marks = &run.marks;
    let setup = &run.setup;
    let balance = run.balance;
    let phases: Vec<Phase> = marks
        .windows(2)
        .map(|pair| phase(&pair[0], &pair[1]))
        .collect();
    let headline = setup.kind.measured().name();
    let measured_s = phases
        .iter()
        .find(|phase| phase.name == headline)
        .map_or(0.0, |phase| phase.seconds);
    let invalid_reasons = validity::reasons(run, &phases, headline);
    let series = curve::series(&run.timeline);
    let open_loop = setup.rate.is_some();
    let goodput = open_loop
        .then(|| goodput::judge(&series, setup.goodput_maximum))
        .flatten();
    let objectives = objectives(run, &phases, headline, goodput);
    let mut report = Report {
        schema: 2,
        kind: setup.kind.name().into(),
        transport: setup.transport.param().into(),
        reply_style: setup.reply_style_name().into(),
        users: setup.users,
        devices: run.devices,
        check: match setup.check {
            Check::Full => "full".to_owned(),
            Check::Off => "off".to_owned(),
            Check::Sampled(n) => format!("sampled:{n}"),
        },
        valid: invalid_reasons.is_empty(),
        invalid_reasons,
        conformant: run.violations.total() == 0,
        ledger_balances: balance.holds()
            && balance.unanswered == 0
            && run.counters.triggers_stalled == 0
            && run.aborted.is_none(),
        objectives_met: objectives.iter().all(|objective| objective.met),
        aborted: run.aborted.map(Text::from),
        headline: headline.into(),
        phases,
        latencies: latencies(run),
        ledger: ledger_row(&balance),
        broken: broken(run),
        offenders: offenders(run),
        objectives,
        refusals: run.refusals.clone(),
        counters: named(&run.counters),
        curves: curve::curves(&run.latencies),
        series,
        goodput,
        hlog: curve::hlog(&curve::histograms(&run.latencies), measured_s),
        own_peak_kib: cpu::peak_kib(std::process::id()).unwrap_or(0),
        engine_peak_kib: setup.engine_pid.and_then(cpu::peak_kib),
        trials: Vec::new(),
        exit_code: EXIT_OK,
    };
    report.exit_code = report.code();
    report
}

fn named(counters: &Counters) -> BTreeMap<Text, u64> {
    let rows = counters.rows().into_iter();
    rows.map(|(name, count)| (name.into(), count)).collect()
}

fn phase(start: &Mark, end: &Mark) -> Phase {
    let counters = end.counters.since(&start.counters);
    let seconds = end.at.saturating_sub(start.at) as f64 / 1e9;
    let own = own_since(start, end);
    let (own_ns, busiest_ns, wait_share) = (
        own.iter().map(|usage| usage.run_ns).sum::<u64>(),
        own.iter().map(|usage| usage.run_ns).max().unwrap_or(0),
        own.iter().map(Usage::wait_share).fold(0.0, f64::max),
    );
    let host = end.host.since(&start.host);
    let engine = match (start.engine, end.engine) {
        (Some(start), Some(end)) => Some(end.since(&start)),
        _ => None,
    };
    let work = if start.step == Step::Deposit {
        counters.deposits_accepted
    } else {
        counters.pushes
    };
    let per = |ns: u64| ns as f64 / 1e3 / work.max(1) as f64;
    let busy = |ns: u64| {
        if seconds > 0.0 {
            ns as f64 / 1e9 / seconds
        } else {
            0.0
        }
    };
    let some = |value: f64| (work > 0).then_some(value);
    Phase {
        name: start.step.name().into(),
        seconds,
        pushes: counters.pushes,
        deposits: counters.deposits_accepted,
        pushes_per_s: if seconds > 0.0 {
            counters.pushes as f64 / seconds
        } else {
            0.0
        },
        engine_us_per_push: engine.and_then(|usage| some(per(usage.run_ns))),
        pushes_per_engine_core_second: engine
            .filter(|usage| usage.run_ns > 0)
            .and_then(|usage| some(work as f64 * 1e9 / usage.run_ns as f64)),
        engine_busy: engine.map(|usage| busy(usage.run_ns)),
        engine_system_share: engine.map(|usage| usage.system_share()),
        engine_wait_share: engine.map(|usage| usage.wait_share()),
        own_wait_share: wait_share,
        host_steal_share: host.steal_share(),
        host_busy: host.busy_share(),
        engine_switches_per_push: engine
            .and_then(|usage| some(usage.switches as f64 / work.max(1) as f64)),
        own_us_per_push: per(own_ns),
        own_busy: busy(own_ns),
        busiest_worker: busy(busiest_ns),
        octets_per_turn: counters.bytes_in as f64 / counters.turns.max(1) as f64,
    }
}

/// What each worker's thread used between two marks.
pub(crate) fn own_since(start: &Mark, end: &Mark) -> Vec<Usage> {
    let pairs = start.own.iter().zip(&end.own);
    pairs.map(|(start, end)| end.since(start)).collect()
}

fn objectives(
    run: &Outcome,
    phases: &[Phase],
    headline: &str,
    goodput: Option<Goodput>,
) -> Vec<ObjectiveRow> {
    let phase = phases.iter().find(|phase| phase.name == headline);
    run.setup
        .objectives
        .iter()
        .map(|objective| {
            let name = objective.name.as_str();
            let (measured, least) = match name {
                "min_pushes_per_s" => (phase.map(|phase| phase.pushes_per_s), true),
                "max_engine_us_per_push" => {
                    (phase.and_then(|phase| phase.engine_us_per_push), false)
                }
                "min_pushes_per_core_second" => (
                    phase.and_then(|phase| phase.pushes_per_engine_core_second),
                    true,
                ),
                // Who was never asked for more than it could do has no goodput to lose.
                "min_goodput" => (goodput.map(|found| found.least.unwrap_or(1.0)), true),
                "max_recovery_s" => (goodput.and_then(|found| found.recovery_s), false),
                _ => (latency_objective(run, name), false),
            };
            let met = measured.is_some_and(|value| {
                if least {
                    value >= objective.bound
                } else {
                    value <= objective.bound
                }
            });
            ObjectiveRow {
                name: name.to_owned(),
                bound: objective.bound,
                measured,
                met,
            }
        })
        .collect()
}

fn latency_objective(run: &Outcome, name: &str) -> Option<f64> {
    let (quantile, stage) = parse_latency_objective(name)?;
    let histogram = run.latencies.of(stage);
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1e6)
}

fn latencies(run: &Outcome) -> Vec<Latency> {
    Stage::all()
        .filter_map(|stage| {
            let histogram = run.latencies.of(stage);
            (!histogram.is_empty()).then(|| Latency::new(stage.name(), histogram))
        })
        .collect()
}

fn ledger_row(balance: &Balance) -> LedgerRow {
    LedgerRow {
        deposited: balance.deposited,
        accepted: balance.accepted,
        refused: balance.refused,
        unanswered: balance.unanswered,
        expected: balance.expected,
        delivered: balance.delivered,
        kept: balance.kept,
        lost: balance.lost,
        duplicated: balance.duplicated,
        corrupted: balance.corrupted,
        foreign: balance.foreign,
    }
}

fn broken(run: &Outcome) -> Vec<Broken> {
    run.violations
        .broken()
        .map(|(rule, count)| Broken {
            rule: rule.id().into(),
            text: rule.text().into(),
            count,
        })
        .collect()
}

fn offenders(run: &Outcome) -> Vec<OffenderRow> {
    run.violations
        .offenders()
        .iter()
        .map(|offender| OffenderRow {
            rule: offender.rule.id().into(),
            what: offender.what.into(),
            message: offender.message.clone(),
        })
        .collect()
}

impl Report {
    /// The exit code that the verdicts stand for.
    pub fn code(&self) -> i32 {
        if !self.conformant || !self.ledger_balances {
            EXIT_VIOLATION
        } else if !self.valid {
            EXIT_INVALID
        } else if !self.objectives_met {
            EXIT_OBJECTIVE
        } else {
            EXIT_OK
        }
    }

    /// Reads a report from a file that `run --json` wrote.
    pub fn read(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{path}: not a report: {error}"))
    }

    /// The measured step.
    pub fn measured(&self) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == self.headline)
    }

    /// The verdict in one line.
    pub fn verdict(&self) -> String {
        let mut out = String::new();
        let word = |good: bool, yes: &'static str, no: &'static str| if good { yes } else { no };
        let _ = write!(
            out,
            "{} | {} | LEDGER {} | objectives {}",
            word(self.valid, "VALID", "INVALID"),
            word(self.conformant, "CONFORMANT", "NOT CONFORMANT"),
            word(self.ledger_balances, "balances", "DOES NOT BALANCE"),
            match (self.objectives.is_empty(), self.objectives_met) {
                (true, _) => "none",
                (false, true) => "met",
                (false, false) => "MISSED",
            },
        );
        out
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "volley-loadgen: {} over {}{}, {} users, {} devices, check {}",
            self.kind,
            self.transport,
            match self.reply_style.as_ref() {
                "trains" => " in trains",
                "datagrams" => " one by one",
                _ => "",
            },
            self.users,
            self.devices,
            self.check
        );
        let _ = writeln!(out, "VERDICT  {} (exit {})", self.verdict(), self.exit_code);
        for reason in &self.invalid_reasons {
            let (what, remedy) = (&reason.what, &reason.remedy);
            let _ = writeln!(out, "  invalid: {what} [{}]; {remedy}", reason.code);
        }
        if let Some(step) = &self.aborted {
            let _ = writeln!(
                out,
                "  ended early: nothing moved any more in step `{step}`"
            );
        }
        self.text_phases(&mut out);
        self.text_latencies(&mut out);
        self.text_ledger(&mut out);
        self.text_goodput(&mut out);
        for objective in &self.objectives {
            let measured = objective
                .measured
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
            let _ = writeln!(
                out,
                "objective {} {}: measured {measured} {}",
                objective.name,
                objective.bound,
                if objective.met { "met" } else { "MISSED" }
            );
        }
        self.text_rules(&mut out);
        out
    }

    fn text_goodput(&self, out: &mut String) {
        let Some(found) = self.goodput else {
            return;
        };
        let recovery = found.recovery_s.map_or_else(
            || "some pushes never came".to_owned(),
            |seconds| format!("the last push {seconds:.1} s after the last trigger"),
        );
        let percent = |share: Option<f64>| share.unwrap_or(0.0) * 100.0;
        let kept = if found.loaded_s > 0.0 {
            format!(
                "{:.0} s with more to do than that: {:.0} % of it done, {:.0} % in the worst second (at {:.0} s)",
                found.loaded_s,
                percent(found.mean),
                percent(found.least),
                found.least_at_s
            )
        } else {
            "never more to do than that".to_owned()
        };
        let _ = writeln!(
            out,
            "goodput  {:.0} pushes a second at most; {kept}; {recovery}",
            found.maximum
        );
    }

    fn text_phases(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<10}{:>9}{:>12}{:>12}{:>14}{:>14}{:>9}{:>12}{:>8}",
            "step",
            "seconds",
            "pushes",
            "pushes/s",
            "engine us/push",
            "per core-s",
            "busy",
            "own us/push",
            "busy"
        );
        for phase in &self.phases {
            let some = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            };
            let percent = |value: Option<f64>| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{:.0} %", value * 100.0))
            };
            let mark = if phase.name == self.headline { "*" } else { "" };
            let _ = writeln!(
                out,
                "{:<10}{:>9.3}{:>12}{:>12.0}{:>14}{:>14}{:>9}{:>12.3}{:>8}",
                format!("{}{mark}", phase.name),
                phase.seconds,
                if phase.name == "deposit" {
                    phase.deposits
                } else {
                    phase.pushes
                },
                if phase.name == "deposit" {
                    phase.deposits as f64 / phase.seconds.max(1e-9)
                } else {
                    phase.pushes_per_s
                },
                some(phase.engine_us_per_push, 3),
                some(phase.pushes_per_engine_core_second, 0),
                percent(phase.engine_busy),
                phase.own_us_per_push,
                percent(Some(phase.own_busy)),
            );
        }
        let _ = writeln!(out, "(* measured; in the deposit step a push is a deposit)");
        let each = |kib: u64| kib * 1024 / self.devices.max(1);
        let _ = write!(
            out,
            "memory   generator {} MiB at most, {} octets a device",
            self.own_peak_kib >> 10,
            each(self.own_peak_kib)
        );
        if let Some(kib) = self.engine_peak_kib {
            let _ = write!(
                out,
                "; engine {} MiB, {} octets a device",
                kib >> 10,
                each(kib)
            );
        }
        out.push('\n');
    }

    fn text_latencies(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<32}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "latency, ms", "count", "p50", "p90", "p99", "p99.9", "max"
        );
        for row in &self.latencies {
            let _ = writeln!(
                out,
                "{:<32}{:>10}{:>10.3}{:>10.3}{:>10.3}{:>10.3}{:>10.3}",
                row.stage, row.count, row.p50, row.p90, row.p99, row.p999, row.max
            );
        }
    }

    fn text_ledger(&self, out: &mut String) {
        let ledger = &self.ledger;
        let _ = writeln!(
            out,
            "\nledger   messages: {} deposited, {} accepted, {} refused, {} unanswered",
            ledger.deposited, ledger.accepted, ledger.refused, ledger.unanswered
        );
        let _ = writeln!(
            out,
            "         message x device: {} expected = {} delivered + {} kept; \
            {} lost, {} duplicated, {} corrupted, {} foreign",
            ledger.expected,
            ledger.delivered,
            ledger.kept,
            ledger.lost,
            ledger.duplicated,
            ledger.corrupted,
            ledger.foreign
        );
        if ledger.foreign > 0 {
            let _ = writeln!(
                out,
                "         foreign: mail of another run; start the engine with an empty store"
            );
        }
        for (status, count) in &self.refusals {
            let _ = writeln!(out, "         {count} deposits answered {status}");
        }
        let stalled = self.counters.get("triggers_stalled").copied().unwrap_or(0);
        if stalled > 0 {
            let _ = writeln!(
                out,
                "         {stalled} triggers did not come to their pushes in time"
            );
        }
        let notable: Vec<String> = self
            .counters
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let _ = writeln!(out, "counters {}", notable.join(", "));
    }

    fn text_rules(&self, out: &mut String) {
        for broken in &self.broken {
            let _ = writeln!(
                out,
                "\nbroken   {} x{}: {}",
                broken.rule, broken.count, broken.text
            );
            let first = self
                .offenders
                .iter()
                .find(|offender| offender.rule == broken.rule);
            if let Some(offender) = first {
                let _ = writeln!(out, "  first: {}", offender.what);
                for line in offender.message.lines().take(40) {
                    let _ = writeln!(out, "  | {}", line.escape_debug());
                }
            }
        }
    }

    /// The report as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has string keys only")
    }
}

/// A setup in one line for the panel's head.
pub fn headline(setup: &Setup) -> String {
    format!(
        "judge at {} (SIP/{}) and {} (MSRP), engine {}",
        setup.scscf_listen,
        setup.transport.via(),
        setup.msrp_listen,
        setup.engine
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::world::World;

    /// A report of a run in which nothing happened.
    pub(crate) fn sample() -> Report {
        let text = "engine = \"127.0.0.1:5060\"\nkind = \"signalling\"\nusers = 3\n";
        let options = crate::scenario::Options::parse("test", text).unwrap();
        let mut world = World::new(Setup::resolve(options, 1).unwrap());
        let counters = world.counters;
        let mark = |step, at| Mark {
            step,
            at,
            counters,
            own: vec![Usage::default()],
            engine: None,
            host: crate::host::Sample::default(),
        };
        let marks = vec![mark(Step::Measure, 0), mark(Step::Drain, 1_000_000_000)];
        build(&Outcome::take(&mut world, marks))
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let report = sample();
        let read: Report = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(read.json(), report.json());
        assert_eq!(read.code(), EXIT_INVALID);
    }

    #[test]
    fn a_page_stands_alone_and_cannot_be_scripted() {
        let mut report = sample();
        report.offenders.push(OffenderRow {
            rule: "PUSH-a".into(),
            what: "x".into(),
            message: "<script>alert(1)</script>".to_owned(),
        });
        let page = crate::html::page(&report);
        assert!(!page.contains("<script") && !page.contains("http"));
        assert!(page.matches("<svg").count() >= 5 && page.ends_with("</html>\n"));
    }
}
