//! Workers go from step to step together: nobody measures while another still warms up.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::world::Step;

/// Steps of a run.
const STEPS: usize = Step::Done as usize + 1;

/// What the workers of a run share: where each stands, and what the operator asked for.
#[derive(Debug)]
pub struct Gate {
    workers: u32,
    arrived: [AtomicU32; STEPS],
    aborted: AtomicBool,
    /// Bits of the factor that the rate is multiplied by.
    factor: AtomicU64,
    cut_short: AtomicBool,
}

impl Gate {
    /// A gate for so many workers.
    pub fn new(workers: u32) -> Self {
        Self {
            workers,
            arrived: Default::default(),
            aborted: AtomicBool::new(false),
            factor: AtomicU64::new(1.0f64.to_bits()),
            cut_short: AtomicBool::new(false),
        }
    }

    /// One worker is ready for `step`; each says so once.
    pub fn arrive(&self, step: Step) {
        self.arrived[step as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// Whether every worker is ready for `step`.
    pub fn is_open(&self, step: Step) -> bool {
        self.arrived[step as usize].load(Ordering::Acquire) >= self.workers
    }

    /// A worker ended early: nobody waits for it.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
    }

    /// Whether a worker ended early.
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Multiplies the rate of every worker.
    pub fn scale(&self, factor: f64) {
        let now = self.factor() * factor;
        self.factor.store(now.to_bits(), Ordering::Release);
    }

    /// What the rate is multiplied by.
    pub fn factor(&self) -> f64 {
        f64::from_bits(self.factor.load(Ordering::Acquire))
    }

    /// Ends the measured step of every worker.
    pub fn cut_short(&self) {
        self.cut_short.store(true, Ordering::Release);
    }

    /// Whether the measured step is to end.
    pub fn is_cut_short(&self) -> bool {
        self.cut_short.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_begins_when_the_last_worker_is_ready() {
        let gate = Gate::new(2);
        gate.arrive(Step::Measure);
        assert!(!gate.is_open(Step::Measure));
        gate.arrive(Step::Measure);
        assert!(gate.is_open(Step::Measure) && !gate.is_open(Step::Drain));
        gate.scale(2.0);
        gate.scale(1.5);
        assert!((gate.factor() - 3.0).abs() < 1e-12);
    }
}
