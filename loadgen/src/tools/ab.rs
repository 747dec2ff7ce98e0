//! Two engines in turn, so that what the machine does meanwhile meets both: round by round, or in
//! slices of some milliseconds.
//!
//! The cores of a shared host are faster or slower by half from one second to the next. Rounds of some
//! seconds then differ more than the engines do; slices of a tenth of a second meet the same host.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::compare::{self, Row};
use super::trial::{self, Engine, Judge};
use crate::report::Report;

/// What `ab` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Ab {
    /// Command of the first engine, as "volley run --config a.toml"
    #[arg(long, value_name = "COMMAND")]
    pub a: String,
    /// Command of the second engine
    #[arg(long, value_name = "COMMAND")]
    pub b: String,
    /// Rounds of each; they alternate A B B A A B ..
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Directory removed before each start, such as the engine's store
    #[arg(long, value_name = "DIR")]
    pub fresh: Option<PathBuf>,
    /// Differences up to this share count as the same
    #[arg(long, default_value_t = 0.03)]
    pub tolerance: f64,
    /// Both engines at once, taking turns of so many milliseconds: while one side runs, the other's
    /// engine and judge are stopped. For hosts whose speed changes from one second to the next;
    /// latencies are not compared. Needs --b-run
    #[arg(long, value_name = "MS", requires = "b_run", value_parser = clap::value_parser!(u64).range(10..=2000))]
    pub slice_ms: Option<u64>,
    /// Arguments of `run` that are others for B, as "--engine 127.0.0.1:5070 --scscf-listen 127.0.0.1:15070"
    #[arg(long, value_name = "RUN", allow_hyphen_values = true)]
    pub b_run: Option<String>,
    /// Directory of B's store when both run at once, removed as --fresh is
    #[arg(long, value_name = "DIR")]
    pub b_fresh: Option<PathBuf>,
    /// Figures that count for the exit code; all without
    #[arg(long, value_name = "NAME")]
    pub figure: Vec<String>,
    /// Arguments of `run`, behind `--`
    #[arg(last = true, required = true)]
    pub run: Vec<String>,
}

/// Which engine runs at a place of the order A B B A A B B A ..
fn second(place: u32) -> bool {
    matches!(place % 4, 1 | 2)
}

impl Ab {
    /// Runs all rounds and compares.
    ///
    /// # Errors
    /// An engine or a judge that does not start, and an engine that is not conformant.
    pub fn compare(&self) -> Result<Vec<Row>, String> {
        let (mut a, mut b): (Vec<Report>, Vec<Report>) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            if let Some(slice) = self.slice_ms {
                let (of_a, of_b) = self.together(Duration::from_millis(slice))?;
                a.push(looked_at(of_a, (round, "A"))?);
                b.push(looked_at(of_b, (round, "B"))?);
                continue;
            }
            for place in [2 * round, 2 * round + 1] {
                if second(place) {
                    b.push(looked_at(self.alone(true)?, (round, "B"))?);
                } else {
                    a.push(looked_at(self.alone(false)?, (round, "A"))?);
                }
            }
        }
        let mut rows = compare::compare_pairs(&a, &b, self.tolerance)?;
        if self.slice_ms.is_some() {
            rows.retain(|row| !row.name.ends_with("_ms"));
        }
        Ok(rows)
    }

    /// One round of one engine.
    fn alone(&self, second: bool) -> Result<Report, String> {
        let (engine, args) = self.start(second)?;
        let report = trial::judge(&args);
        drop(engine);
        report
    }

    /// One round of both.
    fn together(&self, slice: Duration) -> Result<(Report, Report), String> {
        let mut a = Pair::start(self.start(false)?)?;
        a.signal(Signal::STOP);
        let mut b = Pair::start(self.start(true)?)?;
        let mut turn = false;
        loop {
            std::thread::sleep(slice);
            let (stops, goes) = if turn { (&a, &b) } else { (&b, &a) };
            stops.signal(Signal::STOP);
            goes.signal(Signal::CONT);
            turn = !turn;
            if a.judge.has_ended()? || b.judge.has_ended()? {
                break;
            }
        }
        a.signal(Signal::CONT);
        b.signal(Signal::CONT);
        Ok((a.report()?, b.report()?))
    }

    /// An engine, and what its judge is told.
    fn start(&self, second: bool) -> Result<(Engine, Vec<String>), String> {
        let other = self.b_run.as_deref().filter(|_| second).unwrap_or("");
        let mut args = replaced(&self.run, other);
        let address = trial::engine_address(&args)?;
        let own_store = second && self.b_fresh.is_some();
        let fresh = if own_store {
            &self.b_fresh
        } else {
            &self.fresh
        };
        let command = if second { &self.b } else { &self.a };
        let engine = Engine::start(command, fresh.as_ref(), address)?;
        args.extend(["--engine-pid".to_owned(), engine.pid().to_string()]);
        Ok((engine, args))
    }
}

/// An engine and its judge, stopped and continued as one.
#[derive(Debug)]
struct Pair {
    engine: Engine,
    judge: Judge,
}

impl Pair {
    fn start((engine, args): (Engine, Vec<String>)) -> Result<Self, String> {
        let judge = Judge::start(&args)?;
        Ok(Self { engine, judge })
    }

    fn signal(&self, signal: Signal) {
        trial::signal(self.judge.pid(), signal);
        trial::signal(self.engine.pid(), signal);
    }

    fn report(self) -> Result<Report, String> {
        let Self { engine, judge } = self;
        let report = judge.report();
        drop(engine);
        report
    }
}

/// `args` with each `--name value` of `others` in the place of its own.
fn replaced(args: &[String], others: &str) -> Vec<String> {
    let others: Vec<&str> = others.split_ascii_whitespace().collect();
    let mut kept = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg.starts_with("--") && others.contains(&arg.as_str()) {
            rest.next();
        } else {
            kept.push(arg.clone());
        }
    }
    kept.extend(others.iter().map(|&word| word.to_owned()));
    kept
}

/// Says how a round went; an engine that is not conformant ends it all.
fn looked_at(report: Report, (round, name): (u32, &str)) -> Result<Report, String> {
    let _ = writeln!(
        std::io::stderr(),
        "round {} {name}: {}, {} (exit {})",
        round + 1,
        cost(&report),
        report.verdict(),
        report.exit_code
    );
    if report.conformant && report.ledger_balances {
        Ok(report)
    } else {
        Err(format!(
            "engine {name} is not conformant; run it alone to see why. Does its store hold what the round \
             before left? --fresh and --b-fresh remove it"
        ))
    }
}

/// What a push cost, for the line of a round.
fn cost(report: &Report) -> String {
    let phase = report.measured();
    let cost = phase.and_then(|phase| phase.engine_us_per_push);
    cost.map_or_else(
        || "no push".to_owned(),
        |cost| format!("{cost:.2} us a push"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_get_as_many_early_places_as_late_ones() {
        let places: Vec<u32> = (0..8).filter(|&place| second(place)).collect();
        assert_eq!(places, [1, 2, 5, 6]);
    }

    #[test]
    fn what_is_other_for_the_second_engine_takes_the_place_of_its_namesake() {
        let args = ["--engine", "127.0.0.1:5060", "--users", "8", "--quiet"].map(str::to_owned);
        let words = replaced(&args, "--engine 127.0.0.1:5070 --cpu 1");
        let wanted = "--users 8 --quiet --engine 127.0.0.1:5070 --cpu 1";
        assert_eq!(words.join(" "), wanted);
        assert_eq!(replaced(&args, ""), args);
    }
}
