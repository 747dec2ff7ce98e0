//! Two engines in turn, round by round, so that what the machine does meanwhile meets both.

use std::io::Write as _;
use std::path::PathBuf;

use super::compare::{self, Row};
use super::trial::{self, Engine};
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
    pub fn compare(&self) -> Result<Vec<Row>, String> {
        let address = trial::engine_address(&self.run)?;
        let (mut a, mut b): (Vec<Report>, Vec<Report>) = (Vec::new(), Vec::new());
        for place in 0..self.rounds * 2 {
            let (command, name) = if second(place) {
                (&self.b, "B")
            } else {
                (&self.a, "A")
            };
            let engine = Engine::start(command, self.fresh.as_ref(), address)?;
            let mut args = self.run.clone();
            args.extend(["--engine-pid".to_owned(), engine.pid().to_string()]);
            let report = trial::judge(&args)?;
            drop(engine);
            let _ = writeln!(
                std::io::stderr(),
                "round {} {name}: {} (exit {})",
                place / 2 + 1,
                report.verdict(),
                report.exit_code
            );
            if !report.conformant || !report.ledger_balances {
                return Err(format!(
                    "engine {name} is not conformant; run it alone to see why"
                ));
            }
            if second(place) {
                b.push(report);
            } else {
                a.push(report);
            }
        }
        compare::compare(&a, &b, self.tolerance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_get_as_many_early_places_as_late_ones() {
        let places: Vec<u32> = (0..8).filter(|&place| second(place)).collect();
        assert_eq!(places, [1, 2, 5, 6]);
    }
}
