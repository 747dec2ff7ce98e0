//! When triggers fall due in an open loop.
//!
//! A schedule is a function of seed and scenario alone: nothing the engine does moves it.

use std::sync::Arc;

use crate::scenario::{Arrivals, Setup, StormShape};
use crate::world::Random;

/// One arrival of a replayed schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Nanoseconds from the start of the step.
    pub at: u64,
    /// The user, when the schedule names one.
    pub user: Option<u32>,
}

/// Draws the times of triggers, one after the other.
#[derive(Debug)]
pub struct Plan {
    arrivals: Arrivals,
    rate: f64,
    rate_to: f64,
    steps: Vec<f64>,
    span: f64,
    period: f64,
    depth: f64,
    within: f64,
    shape: StormShape,
    storm_users: u32,
    replay: Arc<[Arrival]>,
    random: Random,
    /// Start of the step, nanoseconds of the run.
    origin: u64,
    /// Whether the load of the step moves with time; before measuring it does not.
    moving: bool,
    due: u64,
    number: u64,
    /// What the load was multiplied by.
    factor: f64,
    /// Share of a distance by which the first trigger is later, so that workers take turns.
    phase: f64,
}

impl Plan {
    /// The schedule of a setup.
    pub fn new(setup: &Setup) -> Self {
        let rate = setup.rate.unwrap_or(1.0);
        Self {
            arrivals: setup.arrivals,
            rate,
            rate_to: setup.rate_to.unwrap_or(rate),
            steps: setup.steps.clone(),
            span: setup.duration_s,
            period: setup.sine_period_s,
            depth: setup.sine_depth,
            within: setup.storm_within_s,
            shape: setup.storm_shape,
            storm_users: setup.users,
            replay: Arc::clone(&setup.replayed),
            random: Random::new(setup.seed ^ 0x7269_6e67 ^ u64::from(setup.worker) << 40),
            origin: 0,
            moving: false,
            due: 0,
            number: 0,
            factor: 1.0,
            phase: f64::from(setup.worker) / f64::from(setup.workers),
        }
    }

    /// A step begins at `now`. `moving` says that load that changes with time counts from here;
    /// `keep` that the times drawn so far go on.
    pub fn start(&mut self, now: u64, moving: bool, keep: bool) {
        self.origin = now;
        self.moving = moving;
        if !keep || self.listed() {
            self.due = now + (self.phase * 1e9 / self.rate.max(1e-3)) as u64;
            self.number = 0;
            if self.listed() {
                self.due = self.listed_due();
            }
        }
    }

    /// Whether times come from a list or a shape and not from a rate.
    fn listed(&self) -> bool {
        self.moving && matches!(self.arrivals, Arrivals::Storm | Arrivals::Replay)
    }

    /// When the next trigger is due; `u64::MAX` when there is none.
    #[inline]
    pub fn due(&self) -> u64 {
        self.due
    }

    /// Multiplies the load from the next trigger on.
    pub fn scale(&mut self, factor: f64) {
        self.factor *= factor;
    }

    /// The user the next trigger is for, when the schedule names one.
    pub fn user(&self) -> Option<u32> {
        if !self.listed() {
            return None;
        }
        self.replay.get(self.number as usize)?.user
    }

    /// Goes on behind a trigger that stands for `pushes` pushes.
    pub fn step(&mut self, pushes: u8) {
        self.number += 1;
        if self.listed() {
            self.due = self.listed_due();
            return;
        }
        let mean = 1e9 * f64::from(pushes) / self.rate_at(self.due).max(1e-3);
        let gap = match self.arrivals {
            Arrivals::Poisson => -mean * (1.0 - self.random.unit()).ln(),
            Arrivals::Uniform => 2.0 * mean * self.random.unit(),
            Arrivals::Constant
            | Arrivals::Ramp
            | Arrivals::Steps
            | Arrivals::Sine
            | Arrivals::Storm
            | Arrivals::Replay => mean,
        };
        self.due += (gap as u64).max(1);
    }

    /// Pushes per second wanted at a time of the run.
    pub fn rate_at(&self, at: u64) -> f64 {
        self.factor * self.planned_at(at)
    }

    fn planned_at(&self, at: u64) -> f64 {
        if !self.moving {
            return match self.arrivals {
                Arrivals::Steps => self.steps.first().copied().unwrap_or(self.rate),
                Arrivals::Constant
                | Arrivals::Poisson
                | Arrivals::Uniform
                | Arrivals::Ramp
                | Arrivals::Sine
                | Arrivals::Storm
                | Arrivals::Replay => self.rate,
            };
        }
        let t = at.saturating_sub(self.origin) as f64 / 1e9;
        let part = (t / self.span).clamp(0.0, 1.0);
        match self.arrivals {
            Arrivals::Ramp => self.rate + (self.rate_to - self.rate) * part,
            Arrivals::Steps if !self.steps.is_empty() => {
                let index = (part * self.steps.len() as f64) as usize;
                self.steps[index.min(self.steps.len() - 1)]
            }
            Arrivals::Sine => {
                let wave = (core::f64::consts::TAU * t / self.period).sin();
                self.rate * (1.0 + self.depth * wave)
            }
            Arrivals::Constant
            | Arrivals::Poisson
            | Arrivals::Uniform
            | Arrivals::Steps
            | Arrivals::Storm
            | Arrivals::Replay => self.rate,
        }
    }

    fn listed_due(&self) -> u64 {
        if self.arrivals == Arrivals::Replay {
            let arrival = self.replay.get(self.number as usize);
            return arrival.map_or(u64::MAX, |arrival| self.origin + arrival.at);
        }
        if self.number >= u64::from(self.storm_users) {
            return u64::MAX;
        }
        let part = (self.number as f64 + 0.5) / f64::from(self.storm_users);
        self.origin + (self.within * 1e9 * storm_at(self.shape, part)) as u64
    }
}

/// When, as a share of the storm, the given share of its users has come.
fn storm_at(shape: StormShape, part: f64) -> f64 {
    match shape {
        StormShape::Flat => part,
        // Dies away over four time constants, as after an outage.
        StormShape::Front => -(1.0 - part * (1.0 - (-4.0f64).exp())).ln() / 4.0,
        // Swells and dies away: the inverse of the smooth step 3x^2 - 2x^3.
        StormShape::Bell => 0.5 - ((1.0 - 2.0 * part).asin() / 3.0).sin(),
    }
}

/// Reads a schedule: a line for each trigger, seconds from the start and, if wanted, the number of the
/// user; `#` starts a comment.
pub fn parse_replay(file: &str, text: &str, users: u32) -> Result<Vec<Arrival>, String> {
    let mut arrivals: Vec<Arrival> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let at = words.next().and_then(|word| word.parse::<f64>().ok());
        let user = words.next().map(str::parse::<u32>);
        let (Some(at), None | Some(Ok(_)), None) = (at, &user, words.next()) else {
            return Err(format!("{file}:{number}: not SECONDS [USER]"));
        };
        let user = user.and_then(Result::ok);
        if !(0.0..=1e7).contains(&at) {
            return Err(format!(
                "{file}:{number}: {at} is not within 0 and 10000000 seconds"
            ));
        }
        if user.is_some_and(|user| user >= users) {
            return Err(format!(
                "{file}:{number}: there is no such user; raise --users"
            ));
        }
        let at = (at * 1e9) as u64;
        if arrivals.last().is_some_and(|last| last.at > at) {
            return Err(format!(
                "{file}:{number}: earlier than the line before; sort the file"
            ));
        }
        arrivals.push(Arrival { at, user });
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Options;

    fn plan(text: &str) -> Plan {
        let text = format!("engine = \"127.0.0.1:5060\"\nrate = 1000.0\nduration_s = 10.0\n{text}");
        let setup = Setup::resolve(Options::parse("test", &text).unwrap(), 1).unwrap();
        let mut plan = Plan::new(&setup);
        plan.start(0, true, false);
        plan
    }

    /// Arrivals in each of ten equal parts of ten seconds.
    fn parts(mut plan: Plan) -> [u32; 10] {
        let mut parts = [0; 10];
        while plan.due() < 10_000_000_000 {
            parts[(plan.due() / 1_000_000_000) as usize] += 1;
            plan.step(1);
        }
        parts
    }

    fn near(parts: [u32; 10], wanted: [u32; 10], tolerance: u32) {
        for (part, wanted) in parts.iter().zip(wanted) {
            assert!(part.abs_diff(wanted) <= tolerance, "{parts:?}");
        }
    }

    #[test]
    fn every_shape_has_its_load_at_its_time() {
        near(parts(plan("arrivals = \"constant\"")), [1000; 10], 1);
        near(parts(plan("arrivals = \"uniform\"")), [1000; 10], 80);
        near(parts(plan("arrivals = \"poisson\"")), [1000; 10], 130);
        let ramp = [1050, 1150, 1250, 1350, 1450, 1550, 1650, 1750, 1850, 1950];
        near(
            parts(plan("arrivals = \"ramp\"\nrate_to = 2000.0")),
            ramp,
            3,
        );
        let steps = [500, 500, 500, 500, 500, 2000, 2000, 2000, 2000, 2000];
        near(
            parts(plan("arrivals = \"steps\"\nsteps = [500.0, 2000.0]")),
            steps,
            3,
        );
        let sine = parts(plan(
            "arrivals = \"sine\"\nsine_period_s = 10.0\nsine_depth = 0.5",
        ));
        assert!(sine[2] > 1400 && sine[7] < 600, "{sine:?}");
        let storm = |shape: &str| {
            parts(plan(&format!(
                "arrivals = \"storm\"\nusers = 1000\nstorm_within_s = 10.0\nstorm_shape = \"{shape}\""
            )))
        };
        near(storm("flat"), [100; 10], 1);
        let front = storm("front");
        assert!(front[0] > 300 && front[9] < 20, "{front:?}");
        let bell = storm("bell");
        assert!(bell[0] < 40 && bell[4] > 130 && bell[9] < 40, "{bell:?}");
        assert_eq!(bell.iter().sum::<u32>(), 1000);
    }

    #[test]
    fn distances_of_one_seed_are_the_same_and_of_poisson_exponential() {
        let gaps = |seed: u32| {
            let mut plan = plan(&format!("arrivals = \"poisson\"\nseed = {seed}"));
            let mut gaps: Vec<u64> = Vec::new();
            for _ in 0..20_000 {
                let before = plan.due();
                plan.step(1);
                gaps.push(plan.due() - before);
            }
            gaps
        };
        assert_eq!(gaps(5), gaps(5));
        assert_ne!(gaps(5), gaps(6));
        // The standard deviation of an exponential distribution is its mean.
        let gaps = gaps(5);
        let mean = gaps.iter().sum::<u64>() as f64 / gaps.len() as f64;
        let square = gaps
            .iter()
            .map(|&gap| (gap as f64 - mean).powi(2))
            .sum::<f64>();
        let deviation = (square / gaps.len() as f64).sqrt();
        assert!((mean / 1e6 - 1.0).abs() < 0.05 && (deviation / mean - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_replayed_schedule_is_read_strictly() {
        let read = |text: &str| parse_replay("x", text, 10);
        let good = read("# start\n0.5\n0.75 3 # the third\n\n2\n").unwrap();
        assert_eq!(good.len(), 3);
        assert_eq!(
            good[1],
            Arrival {
                at: 750_000_000,
                user: Some(3)
            }
        );
        assert_eq!(
            read("1\n0.5\n").unwrap_err(),
            "x:2: earlier than the line before; sort the file"
        );
        assert!(read("1 x").unwrap_err().starts_with("x:1: not SECONDS"));
        assert!(read("1 10").unwrap_err().contains("--users"));
        assert!(read("-1").is_err() && read("1 2 3").is_err());
    }
}
