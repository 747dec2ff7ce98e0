//! Whether the figures of a run are about the engine: was the generator or the host the limit?

use serde::{Deserialize, Serialize};

use crate::cpu::Usage;
use crate::net::Mark;
use crate::outcome::Outcome;
use crate::report::{Phase, Text, own_since};
use crate::scenario::{Kind, Transport};
use crate::stats::Stage;

/// Share of due triggers that must have been sent.
const SENT_SHARE_MIN: f64 = 0.999;
/// Own load above which this generator counts as saturated, and engine load that excuses it.
const OWN_BUSY_MAX: f64 = 0.95;
const ENGINE_BUSY_MIN: f64 = 0.90;
/// Share of the step below which waiting for a CPU does not matter.
const WAIT_MIN: f64 = 0.05;
/// Share of CPU time that a hypervisor may take.
const STEAL_SHARE_MAX: f64 = 0.05;

/// Why a run is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Short name for machines.
    pub code: Text,
    /// What was seen.
    pub what: String,
    /// What to do about it.
    pub remedy: Text,
}

/// Everything a judgement looks at.
struct Case<'a> {
    run: &'a Outcome,
    phase: &'a Phase,
    start: &'a Mark,
    end: &'a Mark,
    reasons: Vec<Reason>,
}

/// Judges the step named `headline`.
pub fn reasons(run: &Outcome, phases: &[Phase], headline: &str) -> Vec<Reason> {
    let found = phases.iter().position(|phase| phase.name == headline);
    let Some((index, phase)) = found.and_then(|index| Some((index, phases.get(index)?))) else {
        return vec![Reason {
            code: "not-reached".into(),
            what: "the measured step was never reached".to_owned(),
            remedy: "see where the run ended and what the ledger says".into(),
        }];
    };
    let mut case = Case {
        run,
        phase,
        start: &run.marks[index],
        end: &run.marks[index + 1],
        reasons: Vec::new(),
    };
    case.judge();
    case.reasons
}

impl Case<'_> {
    fn judge(&mut self) {
        let setup = &self.run.setup;
        if setup.kind == Kind::Hold {
            self.held();
        } else if self.phase.pushes == 0 {
            self.add(
                "no-push",
                "no push completed while measuring".to_owned(),
                "see whether anything is registered and subscribed, and what the engine's log says",
            );
        }
        if self.run.scaled {
            self.add(
                "by-hand",
                "the rate was changed by hand while measuring".to_owned(),
                "run again at the rate you found",
            );
        }
        if setup.open_loop() {
            self.schedule();
            self.pressure();
        }
        let is_paced = !matches!(setup.kind, Kind::Full | Kind::Hold) || setup.open_loop();
        if is_paced {
            self.saturation();
        }
        self.drops();
    }

    fn add(&mut self, code: &'static str, what: String, remedy: &'static str) {
        self.reasons.push(Reason {
            code: code.into(),
            what,
            remedy: remedy.into(),
        });
    }

    /// Sessions stayed as long as they were to.
    fn held(&mut self) {
        let counters = &self.run.counters;
        let (held, ended) = (counters.sessions_held, counters.sessions_ended);
        if held == 0 || ended > 0 {
            self.add(
                "not-held",
                format!("{held} sessions stood at the end, {ended} were ended before"),
                "raise push.linger_ms and push.max_session_s of the engine above the hold",
            );
        }
    }

    fn lag_p99_ms(&self) -> f64 {
        let lag = self.run.latencies.of(Stage::SendLag);
        lag.value_at_quantile(0.99) as f64 / 1e6
    }

    /// The schedule was kept: triggers were sent, and in time.
    fn schedule(&mut self) {
        let counters = self.end.counters.since(&self.start.counters);
        let share = counters.triggers_sent as f64 / counters.triggers_due.max(1) as f64;
        if share < SENT_SHARE_MIN {
            let remedy = if counters.missed_no_user > counters.missed_late {
                "no user was idle when they fell due: raise --users, or lower --rate"
            } else {
                "the generator fell behind: lower --rate or give it a CPU of its own (--cpu)"
            };
            let what = format!(
                "only {:.2} % of the {} scheduled triggers were sent ({} late, {} without an idle \
                 user)",
                share * 100.0,
                counters.triggers_due,
                counters.missed_late,
                counters.missed_no_user
            );
            self.add("sent-share", what, remedy);
        }
        let (lag, bound) = (self.lag_p99_ms(), self.run.setup.lag_bound_ms);
        if lag > bound {
            self.add(
                "send-lag",
                format!("send lag p99 is {lag:.2} ms, over {bound} ms: the generator was late"),
                "lower --rate, or pin the generator to a CPU of its own (--cpu)",
            );
        }
    }

    /// Neither side waited much for a CPU. Only for an open loop: CPU time for each push, which a
    /// closed loop is about, does not grow by waiting.
    fn pressure(&mut self) {
        let bound = self.run.setup.pressure_bound;
        let span = self.end.at.saturating_sub(self.start.at).max(1) as f64;
        let matters =
            |usage: &Usage| usage.wait_share() > bound && usage.wait_ns as f64 / span > WAIT_MIN;
        let own = own_since(self.start, self.end);
        let worst = own.iter().filter(|usage| matters(usage));
        if let Some(share) = worst.map(Usage::wait_share).reduce(f64::max) {
            let what = format!(
                "the generator waited for a CPU {:.0} % of the time it could have run",
                share * 100.0
            );
            self.add(
                "generator-waited",
                what,
                "give each worker of the generator a CPU of its own (--cpu) and stop other work on \
                 this host",
            );
        }
        if let (Some(start), Some(end)) = (self.start.engine, self.end.engine) {
            let engine = end.since(&start);
            if matters(&engine) {
                let what = format!(
                    "the engine waited for a CPU {:.0} % of the time it could have run",
                    engine.wait_share() * 100.0
                );
                self.add(
                    "engine-waited",
                    what,
                    "stop other work on this host, or give the engine CPUs of its own",
                );
            }
        }
        let host = self.end.host.since(&self.start.host);
        if host.steal_share() > STEAL_SHARE_MAX {
            let what = format!(
                "the hypervisor took {:.0} % of this host's CPU time",
                host.steal_share() * 100.0
            );
            self.add("steal", what, "use a host with CPUs of its own");
        }
    }

    /// None of this generator's threads was the limit.
    fn saturation(&mut self) {
        let open = self.run.setup.open_loop();
        let late = self.lag_p99_ms() > self.run.setup.lag_bound_ms;
        let engine_busy = self.phase.engine_busy;
        let excused = !open && engine_busy.is_some_and(|busy| busy >= ENGINE_BUSY_MIN);
        if self.phase.busiest_worker > OWN_BUSY_MAX && !excused && (late || !open) {
            let what = format!(
                "the generator's busiest thread was {:.0} % busy and the engine was not seen to be: the \
                 generator was the limit",
                self.phase.busiest_worker * 100.0
            );
            self.add(
                "generator-busy",
                what,
                "use more --workers, --check sampled:N, a CPU of its own, or name the engine with --engine-pid",
            );
        }
    }

    /// The kernel dropped nothing between the two.
    fn drops(&mut self) {
        let host = self.end.host.since(&self.start.host);
        if self.run.setup.transport == Transport::Udp && host.datagrams_dropped > 0 {
            let what = format!("the kernel dropped {} datagrams", host.datagrams_dropped);
            self.add(
                "socket-drops",
                what,
                "raise net.core.rmem_max and net.core.wmem_max, or lower the rate",
            );
        }
        if host.accepts_dropped > 0 {
            let what = format!("the kernel dropped {} connections", host.accepts_dropped);
            self.add(
                "accept-drops",
                what,
                "raise net.core.somaxconn, or lower the rate of new connections",
            );
        }
    }
}
