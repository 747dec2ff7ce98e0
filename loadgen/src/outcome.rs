//! What a worker's world has come to, and the sum over workers.

use crate::ledger::Balance;
use crate::net::Mark;
use crate::rules::Violations;
use crate::scenario::Setup;
use crate::stats::{Counters, Latencies};
use crate::timeline::Timeline;
use crate::world::World;

/// Everything a report is made of.
#[derive(Debug)]
pub struct Outcome {
    /// What was asked for.
    pub setup: Setup,
    /// Starts of steps.
    pub marks: Vec<Mark>,
    /// Devices of all users.
    pub devices: u64,
    /// Events.
    pub counters: Counters,
    /// Latencies of the measured step.
    pub latencies: Latencies,
    /// The ledger's sums.
    pub balance: Balance,
    /// Rules broken.
    pub violations: Violations,
    /// The measured step over time.
    pub timeline: Timeline,
    /// Final answers other than 2xx to deposits.
    pub refusals: Vec<(u16, u64)>,
    /// The step in which nothing moved any more.
    pub aborted: Option<&'static str>,
    /// Somebody changed the rate by hand.
    pub scaled: bool,
}

impl Outcome {
    /// Takes what a finished world found.
    pub fn take(world: &mut World, marks: Vec<Mark>) -> Self {
        Self {
            setup: world.setup.clone(),
            marks,
            devices: world.device_count() as u64,
            counters: world.counters,
            balance: world.balance(),
            latencies: core::mem::take(&mut world.latencies),
            violations: core::mem::take(&mut world.violations),
            timeline: core::mem::take(&mut world.timeline),
            refusals: core::mem::take(&mut world.director.refusals),
            aborted: world.director.aborted,
            scaled: world.director.scaled,
        }
    }

    /// Adds another worker's outcome. Setup, host and engine stay those of the first.
    pub fn absorb(&mut self, other: Self) {
        self.devices += other.devices;
        self.counters.add(&other.counters);
        self.latencies.add(&other.latencies);
        self.balance.add(&other.balance);
        self.violations.add(other.violations);
        self.timeline.add(other.timeline);
        for (status, count) in other.refusals {
            match self.refusals.iter_mut().find(|(known, _)| *known == status) {
                Some((_, sum)) => *sum += count,
                None => self.refusals.push((status, count)),
            }
        }
        self.aborted = self.aborted.or(other.aborted);
        self.scaled |= other.scaled;
        // Steps come in one order; one that a worker did not reach has no sum.
        self.marks.truncate(other.marks.len());
        for (mark, more) in self.marks.iter_mut().zip(other.marks) {
            mark.counters.add(&more.counters);
            mark.own.extend(more.own);
            mark.at = mark.at.max(more.at);
        }
    }
}
