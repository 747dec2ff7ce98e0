//! The judge on trial: one broken message for each rule, and exactly that rule must trip.
//!
//! Each case has a world of its own. A scripted engine pushes in it a while without a fault, so that
//! every form of message is known and proven; then one message is changed.

mod cases;
mod script;
pub(crate) mod text;

use crate::rules::Rule;

pub use cases::{CASES, Case, Fault, Turn};
use script::Script;
pub use script::Spot;

/// Pushes without a fault before the broken one.
const WARM: u32 = 24;

/// How a case came out.
#[derive(Debug)]
pub struct Outcome {
    /// The case.
    pub case: &'static Case,
    /// Rules that tripped.
    pub tripped: Vec<Rule>,
    /// What the first one said.
    pub said: Option<String>,
}

impl Outcome {
    /// Exactly the rule that was broken tripped.
    pub fn good(&self) -> bool {
        self.tripped == [self.case.rule]
    }
}

/// Runs one case.
pub fn run(case: &'static Case) -> Outcome {
    let mut script = Script::new(case);
    script.warm(WARM);
    assert!(
        script.world.violations.total() == 0,
        "the honest engine of the self-test broke a rule: {:?}",
        script.world.violations.offenders().first()
    );
    script.break_one();
    let violations = &script.world.violations;
    Outcome {
        case,
        tripped: violations.broken().map(|(rule, _)| rule).collect(),
        said: violations
            .offenders()
            .first()
            .map(|first| first.what.to_owned()),
    }
}

/// Runs every case; gives the text to print and whether all is well.
pub fn report(verbose: bool) -> (String, bool) {
    use core::fmt::Write as _;
    let mut text = String::new();
    let outcomes: Vec<Outcome> = CASES.iter().map(run).collect();
    let mut good = true;
    for rule in Rule::all() {
        let of: Vec<&Outcome> = outcomes
            .iter()
            .filter(|one| one.case.rule == rule)
            .collect();
        let bitten = of.iter().filter(|one| one.good()).count();
        let fine = !of.is_empty() && bitten == of.len();
        good &= fine;
        let word = if fine { "trips" } else { "FAILS" };
        let _ = writeln!(text, "{:<12} {word}  {bitten} of {}", rule.id(), of.len());
        for one in of.iter().filter(|one| verbose || !one.good()) {
            let ids: Vec<&str> = one.tripped.iter().map(|rule| rule.id()).collect();
            let said = one.said.as_deref().unwrap_or("nothing");
            let _ = writeln!(
                text,
                "    {}: {} [{}]",
                one.case.about(),
                said,
                ids.join(", ")
            );
        }
    }
    let rules = Rule::all().count();
    let _ = writeln!(
        text,
        "{} broken messages, {rules} rules: {}",
        outcomes.len(),
        if good {
            "each trips exactly its rule"
        } else {
            "NOT every rule trips alone"
        }
    );
    (text, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_message_trips_exactly_its_rule_and_no_rule_is_without_one() {
        let (text, good) = report(false);
        assert!(good, "{text}");
        assert!(Rule::all().count() >= 60);
    }

    #[test]
    fn a_rule_that_does_not_trip_is_told() {
        // A change that changes nothing a rule asks for.
        static HARMLESS: Case =
            Case::text(Rule::PushC, Spot::Invite, "volley/0.1.0", "volley/0.1.1");
        let outcome = run(&HARMLESS);
        assert!(!outcome.good());
        assert_eq!(outcome.tripped, []);
    }
}
