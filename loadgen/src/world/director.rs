//! The course of a run: which trigger goes out when, and when a step ends.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Call, LINK_BYTES_MAX, World};
use crate::arrivals::Plan;
use crate::behaviour::Behaviour;
use crate::gate::Gate;
use crate::scenario::{Kind, Late, Setup};
use crate::stats::Stage;

/// A step of a run, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Waiting for the connections to the engine.
    Connect,
    /// Messages are deposited for users that are away.
    Deposit,
    /// Users register.
    Register,
    /// Load before measuring.
    Warmup,
    /// Load while measuring.
    Measure,
    /// Phones hang up the sessions of a hold.
    HangUp,
    /// Outstanding pushes come to their end.
    Drain,
    /// Phones accept and fetch what was kept.
    Sweep,
    /// Over.
    Done,
}

impl Step {
    /// Name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Deposit => "deposit",
            Self::Register => "register",
            Self::Warmup => "warmup",
            Self::Measure => "measure",
            Self::HangUp => "hang-up",
            Self::Drain => "drain",
            Self::Sweep => "sweep",
            Self::Done => "done",
        }
    }
}

/// Triggers whose answers the client waits for that [`Stage::TriggerToInviteUncorrected`] imagines.
const LANES: u32 = 1;
/// Time a run stays to see late duplicates, nanoseconds.
const SETTLE: u64 = 300_000_000;
/// Wait for ACKs to 2xx of its last moment, and BYEs then overtaken, before the next look for them, nanoseconds.
const LOOK: u64 = 20_000_000;
/// A distance between two looks at the schedule that is no lateness but a standstill, nanoseconds.
const STILL: u64 = 1_000_000_000;
/// Final answers to deposits told apart in the report.
const REFUSALS_MAX: usize = 16;

/// State of the schedule.
#[derive(Debug)]
pub struct Director {
    /// The step.
    pub step: Step,
    /// Set when the step changed; the driver clears it after sampling.
    pub changed: bool,
    /// When the step began.
    pub since: u64,
    /// Why the run ended early, if it did.
    pub aborted: Option<&'static str>,
    /// Final answers other than 2xx to deposits.
    pub refusals: Vec<(u16, u64)>,
    /// Users with a trigger outstanding.
    pub open: u32,
    /// Deposits not answered.
    pub deposits_open: u32,
    /// Next item of a step that goes through a list.
    cursor: u64,
    /// Idle users, longest idle first.
    ready: VecDeque<u32>,
    /// Triggers by deadline.
    watched: VecDeque<(u64, u32, u32)>,
    /// When the triggers of an open loop are due.
    plan: Plan,
    /// When the next deposit of a paced deposit step is due.
    deposit_due: u64,
    /// Triggers outstanding whose answers a waiting client would wait for.
    lanes: u32,
    /// Somebody changed the rate by hand.
    pub scaled: bool,
    /// Somebody ended the measured step by hand.
    cut_short: bool,
    progress: (u64, u64),
    settle_from: Option<u64>,
    /// Until when that may be put off for ACKs and BYEs on their way.
    settle_end: u64,
    /// What this world shares with other workers of the run.
    pub gate: Option<Arc<Gate>>,
    /// The step it waits at the gate for.
    wanted: Option<Step>,
    /// The factor of the gate that was applied.
    factor: f64,
}

impl Director {
    /// The start of a run.
    pub fn new(setup: &Setup) -> Self {
        Self {
            step: Step::Connect,
            changed: false,
            since: 0,
            aborted: None,
            refusals: Vec::new(),
            open: 0,
            deposits_open: 0,
            cursor: 0,
            ready: VecDeque::with_capacity(setup.users as usize),
            watched: VecDeque::new(),
            plan: Plan::new(setup),
            deposit_due: 0,
            lanes: 0,
            scaled: false,
            cut_short: false,
            progress: (0, 0),
            settle_from: None,
            settle_end: 0,
            gate: None,
            wanted: None,
            factor: 1.0,
        }
    }

    /// An answer came that the imagined client waited for.
    pub(super) fn lane_done(&mut self) {
        self.lanes = self.lanes.saturating_sub(1);
    }

    /// A user's trigger has completed.
    pub(super) fn completed(&mut self, user: u32) {
        self.open = self.open.saturating_sub(1);
        self.ready.push_back(user);
    }

    /// A deposit got its final answer.
    pub(super) fn deposit_answered(&mut self) {
        self.deposits_open = self.deposits_open.saturating_sub(1);
    }

    /// A deposit was refused.
    pub(super) fn refused(&mut self, status: u16) {
        if let Some((_, count)) = self.refusals.iter_mut().find(|(known, _)| *known == status) {
            *count += 1;
        } else if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push((status, 1));
        }
    }
}

impl World {
    /// Begins a turn at `now`, nanoseconds of the run. Call before what came is handled: a standstill that ends
    /// here is known before anything is judged by its time.
    pub fn begin_turn(&mut self, now: u64) {
        self.stand_still(now);
        self.now = now;
    }

    /// Time of this turn, nanoseconds of the run.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Sends what is due and moves on when a step is over. Call after every batch and on a timer.
    pub fn pump(&mut self, now: u64) {
        self.begin_turn(now);
        self.look_at_gate();
        self.pump_later();
        self.pump_resend();
        self.pump_faults();
        self.pump_crossings();
        self.release_stalled();
        match self.director.step {
            Step::Connect => {
                // Others were not ready when this one was.
                if let Some(first) = self.director.wanted {
                    self.enter(first);
                }
            }
            Step::Done => {}
            Step::Deposit => self.pump_deposits(),
            Step::Register => self.pump_list(),
            Step::Warmup => {
                self.pump_triggers(
                    self.director.since + seconds(self.setup.warmup_s),
                    Step::Measure,
                );
            }
            Step::Measure => {
                let end = self.director.since + seconds(self.setup.duration_s);
                let next = if self.setup.hang_up && self.holds_sessions() {
                    Step::HangUp
                } else {
                    Step::Drain
                };
                self.pump_triggers(end, next);
            }
            Step::Sweep => self.pump_list(),
            Step::HangUp => self.pump_hang_ups(),
            Step::Drain => self.pump_drain(),
        }
        self.watch_progress();
    }

    /// All connections stand: begin.
    pub fn start(&mut self, now: u64) {
        self.now = now;
        // For a hold, the message follows its user's REGISTER.
        let first = if self.setup.messages > 0 && !self.holds_sessions() {
            Step::Deposit
        } else {
            Step::Register
        };
        self.enter(first);
    }

    /// When the next trigger of an open loop is due.
    pub fn next_due(&self) -> Option<u64> {
        let trigger = self.next_trigger();
        let later = self.next_later().into_iter().chain(self.resend.next());
        let later = later.chain(self.faults.next());
        trigger.into_iter().chain(later).min()
    }

    fn next_trigger(&self) -> Option<u64> {
        match self.director.step {
            Step::Warmup if !self.paced_warmup() => None,
            Step::Register if !self.paced_wave() => None,
            Step::Warmup | Step::Measure | Step::Register => {
                self.setup.open_loop().then(|| self.director.plan.due())
            }
            Step::Deposit => self.setup.deposit_rate.map(|_| self.director.deposit_due),
            Step::Connect | Step::HangUp | Step::Drain | Step::Sweep | Step::Done => None,
        }
    }

    /// Pushes per second the schedule asks for now; nothing in a closed loop.
    pub fn offered(&self) -> Option<f64> {
        let paced = self.setup.rate.is_some();
        paced.then(|| self.director.plan.rate_at(self.now))
    }

    /// Multiplies the load of an open loop from now on.
    pub fn scale(&mut self, factor: f64) {
        self.director.plan.scale(factor);
        self.director.scaled = true;
    }

    /// Ends the measured step now.
    pub fn cut_short(&mut self) {
        self.director.cut_short = true;
    }

    /// Time in which this generator did not run counts against nobody: deadlines move by it. A run in which
    /// that happened while measuring says so by its send lag.
    fn stand_still(&mut self, now: u64) {
        let gap = now.saturating_sub(self.now);
        if gap < STILL || self.director.step == Step::Connect {
            return;
        }
        self.counters.stood_still_ms += gap / 1_000_000;
        for (deadline, ..) in &mut self.director.watched {
            *deadline += gap;
        }
        self.director.progress.1 += gap;
        self.put_off_crossings(gap);
    }

    /// A connection to the engine was lost: REGISTERs that went with it go again on the next.
    pub(crate) fn register_again(&mut self, link: crate::link::LinkId) {
        for user in 0..self.setup.users {
            let entry = &self.users[user as usize];
            let lost = entry.registered && !entry.register_answered;
            if lost && self.engine_link(user) == link {
                self.counters.registers_again += 1;
                self.send_register(user);
            }
        }
    }

    /// Waits for the other workers of the run; false while one is not ready for `step`.
    fn pass_gate(&mut self, step: Step) -> bool {
        let director = &mut self.director;
        let Some(gate) = director.gate.as_ref().filter(|_| step != Step::Done) else {
            return true;
        };
        if director.wanted != Some(step) {
            director.wanted = Some(step);
            gate.arrive(step);
        }
        gate.is_open(step)
    }

    /// What the operator asks of all workers, and whether another one ended early.
    fn look_at_gate(&mut self) {
        let Some(gate) = &self.director.gate else {
            return;
        };
        let (factor, aborted) = (gate.factor(), gate.is_aborted());
        self.director.cut_short |= gate.is_cut_short();
        if (factor - self.director.factor).abs() > 1e-9 {
            let more = factor / core::mem::replace(&mut self.director.factor, factor);
            self.scale(more);
        }
        if aborted && self.director.wanted.is_some() {
            self.director.aborted = Some(self.director.step.name());
            self.enter(Step::Done);
        }
    }

    pub(super) fn enter(&mut self, step: Step) {
        if !self.pass_gate(step) {
            return;
        }
        let director = &mut self.director;
        director.wanted = None;
        director.step = step;
        director.changed = true;
        director.since = self.now;
        director.cursor = 0;
        director.settle_from = None;
        director.progress.1 = self.now;
        director.deposit_due = self.now;
        let measured = step == self.setup.kind.measured();
        let keep = step == Step::Measure && self.setup.rate.is_some();
        director.plan.start(self.now, measured, keep);
        if measured {
            let totals = self.totals(0, 0);
            self.timeline.start(self.now, totals);
        }
        match step {
            Step::Measure => self.latencies.reset(),
            Step::Sweep => {
                self.accepting = true;
                for user in &self.users {
                    let first = user.first_device as usize;
                    for device in &mut self.devices[first..first + usize::from(user.devices)] {
                        device.holds = false;
                    }
                }
            }
            // What stood is counted before it ends.
            Step::HangUp => self.judge_held(),
            Step::Connect
            | Step::Deposit
            | Step::Register
            | Step::Warmup
            | Step::Drain
            | Step::Done => {}
        }
    }

    fn pump_deposits(&mut self) {
        let total = u64::from(self.setup.users) * u64::from(self.setup.messages);
        while self.director.cursor < total
            && self.director.deposits_open < self.setup.deposits_in_flight
        {
            let due = match self.setup.deposit_rate {
                Some(rate) => {
                    let due = self.director.deposit_due;
                    if due > self.now {
                        break;
                    }
                    self.director.deposit_due = due + (1e9 / rate) as u64;
                    due
                }
                None => self.now,
            };
            let user = (self.director.cursor % u64::from(self.setup.users)) as u32;
            self.director.cursor += 1;
            self.director.deposits_open += 1;
            self.send_deposit(user, due);
        }
        if self.director.cursor == total && self.director.deposits_open == 0 {
            self.enter(Step::Register);
        }
    }

    /// The registration wave, or the sweep: every user once.
    fn pump_list(&mut self) {
        let sweep = self.director.step == Step::Sweep;
        let open_loop = self.paced_wave() && !sweep;
        let total = u64::from(self.setup.users);
        while self.director.cursor < total && self.may_trigger(open_loop) {
            let user = self.director.cursor as u32;
            let Some(due) = self.due(open_loop, self.users[user as usize].devices, u64::MAX) else {
                break;
            };
            self.director.cursor += 1;
            let holds = self.holds_sessions() && !sweep;
            if holds {
                self.send_register(user);
                for _ in 0..self.setup.messages {
                    self.director.deposits_open += 1;
                    self.send_deposit(user, due);
                }
            }
            let waiting = self.arm(user, due, u8::MAX);
            if !sweep {
                self.counters.triggers_due += 1;
                self.counters.triggers_sent += 1;
                self.latencies.record(Stage::SendLag, due, self.now);
                if !holds {
                    self.send_register(user);
                }
            } else if waiting {
                self.send_notify(user, b"active;expires=599999");
            }
        }
        if self.director.cursor == total && self.director.open == 0 {
            let next = match self.setup.kind {
                Kind::Full => Step::Drain,
                Kind::Hold => Step::Measure,
                Kind::Signalling | Kind::Steady if sweep => Step::Drain,
                Kind::Signalling | Kind::Steady => Step::Warmup,
            };
            if next == Step::Warmup {
                self.director.ready = (0..self.setup.users).collect();
            }
            self.enter(next);
        }
    }

    /// Whether users register at the times of the schedule.
    fn paced_wave(&self) -> bool {
        self.setup.rate.is_some()
            || (self.setup.open_loop() && self.setup.kind.measured() == Step::Register)
    }

    /// Whether the load before measuring is paced as the measured load is.
    fn paced_warmup(&self) -> bool {
        self.setup.rate.is_some()
    }

    fn pump_triggers(&mut self, end: u64, next: Step) {
        let measuring = next != Step::Measure;
        let end = if self.director.cut_short {
            end.min(self.now)
        } else {
            end
        };
        if self.setup.open_loop() && (measuring || self.paced_warmup()) {
            self.pump_open(end);
        } else if !self.setup.open_loop() && self.setup.kind != Kind::Hold {
            self.pump_closed(end);
        }
        if self.now >= end {
            if self.setup.open_loop() && (measuring || self.paced_warmup()) {
                self.count_missed(end);
            }
            self.enter(next);
        }
    }

    /// A trigger for each idle user as long as fewer are outstanding than wanted.
    fn pump_closed(&mut self, end: u64) {
        while self.now < end && self.may_trigger(false) {
            let Some(user) = self.director.ready.pop_front() else {
                break;
            };
            self.counters.triggers_due += 1;
            self.latencies.record(Stage::SendLag, self.now, self.now);
            self.trigger(user, self.now);
        }
    }

    /// Every trigger that is due by now, in the order and at the times of the schedule.
    fn pump_open(&mut self, end: u64) {
        let bound = seconds(self.setup.late_bound_ms / 1e3);
        loop {
            let due = self.director.plan.due();
            if due > self.now || due >= end || !self.may_trigger(true) {
                return;
            }
            self.counters.triggers_due += 1;
            if self.setup.late == Late::Skip && self.now - due > bound {
                self.counters.missed_late += 1;
                self.director.plan.step(self.setup.devices.0);
                continue;
            }
            let Some(user) = self.next_user() else {
                self.counters.missed_no_user += 1;
                self.director.plan.step(self.setup.devices.0);
                continue;
            };
            self.director.plan.step(self.users[user as usize].devices);
            self.latencies.record(Stage::SendLag, due, self.now);
            self.trigger(user, due);
        }
    }

    /// The user the schedule names, or the one that was idle longest; `None` when there is none.
    fn next_user(&mut self) -> Option<u32> {
        match self.director.plan.user() {
            Some(user) => {
                let idle = self.users[user as usize].open == 0;
                let at = idle
                    .then(|| self.director.ready.iter().position(|&ready| ready == user))
                    .flatten()?;
                self.director.ready.remove(at)
            }
            None => self.director.ready.pop_front(),
        }
    }

    /// Slots of an open loop that fell due and were not used: never silently dropped.
    fn count_missed(&mut self, end: u64) {
        while self.director.plan.due() < end {
            self.counters.triggers_due += 1;
            self.counters.missed_late += 1;
            self.director.plan.step(self.setup.devices.0);
        }
    }

    fn trigger(&mut self, user: u32, due: u64) {
        match self.setup.kind {
            Kind::Steady => {
                self.director.deposits_open += 1;
                self.send_deposit(user, due);
                self.arm(user, due, u8::MAX);
                self.counters.triggers_sent += 1;
            }
            Kind::Signalling | Kind::Full | Kind::Hold => {
                if self.has_faults() && self.faulty_trigger(user, due) {
                    self.counters.triggers_sent += 1;
                    return;
                }
                self.arm(user, due, u8::MAX);
                if self.send_notify(user, b"active;expires=599999") {
                    self.counters.triggers_sent += 1;
                } else {
                    // The subscription ended; a third-party REGISTER brings it back (ISC-1).
                    self.send_register(user);
                    self.counters.triggers_sent += 1;
                }
            }
        }
    }

    /// Marks the user's devices in `mask` as waited for; `false` when nothing is queued for them.
    pub(crate) fn arm(&mut self, user: u32, due: u64, mask: u8) -> bool {
        let (now, deadline) = (self.now, self.now + seconds(self.setup.drain_s));
        let entry = &mut self.users[user as usize];
        let first = entry.first_device as usize;
        entry.open = 0;
        for number in 0..entry.devices {
            let device = &mut self.devices[first + usize::from(number)];
            device.pending =
                mask & (1 << number) != 0 && self.ledger.oldest_for(&entry.queue, number).is_some();
            device.trigger_due = due;
            device.trigger_sent = now;
            entry.open += u8::from(device.pending);
        }
        if entry.open == 0 {
            return false;
        }
        entry.trigger = entry.trigger.wrapping_add(1);
        if !entry.lane && self.director.lanes < LANES {
            entry.lane = true;
            self.director.lanes += 1;
        }
        self.director.open += 1;
        self.director
            .watched
            .push_back((deadline, user, entry.trigger));
        true
    }

    /// Intended time of the next trigger, if it is due and before `end`.
    fn due(&mut self, open_loop: bool, pushes: u8, end: u64) -> Option<u64> {
        if !open_loop {
            return Some(self.now);
        }
        let due = self.director.plan.due();
        if due > self.now || due >= end {
            return None;
        }
        self.director.plan.step(pushes);
        Some(due)
    }

    fn may_trigger(&self, open_loop: bool) -> bool {
        let room = self
            .engine_links
            .iter()
            .all(|&link| self.outbox.peek(link).buffer.len() < LINK_BYTES_MAX);
        room && (open_loop || self.director.open < self.setup.users_in_flight)
    }

    /// Takes triggers whose time is over off the count, so that one loss does not hold the rest.
    fn release_stalled(&mut self) {
        while let Some(&(deadline, user, trigger)) = self.director.watched.front() {
            let entry = &mut self.users[user as usize];
            let live = entry.open > 0 && entry.trigger == trigger;
            if live && deadline > self.now {
                return;
            }
            self.director.watched.pop_front();
            if live {
                entry.open = 0;
                if core::mem::take(&mut entry.lane) {
                    self.director.lanes -= 1;
                }
                let first = entry.first_device as usize;
                let mut refused = true;
                for device in &mut self.devices[first..first + usize::from(entry.devices)] {
                    let unanswered = device.call == Call::Ringing;
                    refused &= !device.pending || device.holds || unanswered;
                    device.pending = false;
                }
                // Phones that refuse are asked again when the engine sees fit.
                if refused && !self.setup.mix.is_only(Behaviour::Answer) {
                    self.counters.triggers_refused += 1;
                } else {
                    self.counters.triggers_stalled += 1;
                }
                self.director.completed(user);
            }
        }
    }

    /// A message was refused: nobody waits for its delivery any more.
    pub(super) fn give_up(&mut self, user: u32) {
        let entry = &mut self.users[user as usize];
        if entry.open == 0 || self.setup.kind != Kind::Steady {
            return;
        }
        let first = entry.first_device as usize;
        for number in 0..entry.devices {
            let device = &mut self.devices[first + usize::from(number)];
            if device.pending && self.ledger.oldest_for(&entry.queue, number).is_none() {
                device.pending = false;
                entry.open -= 1;
            }
        }
        if entry.open == 0 {
            self.director.completed(user);
        }
    }

    fn pump_drain(&mut self) {
        if self.director.open > 0 || self.director.deposits_open > 0 {
            return;
        }
        let from = *self.director.settle_from.get_or_insert_with(|| {
            self.director.settle_end = self.now + SETTLE + seconds(self.setup.drain_s);
            self.now
        });
        if self.now < from + SETTLE {
            return;
        }
        if self.now < self.director.settle_end && (self.awaits_ack() || self.awaits_bye()) {
            self.director.settle_from = Some(from + LOOK);
            return;
        }
        let swept = self.accepting;
        if self.setup.kind == Kind::Signalling && self.setup.sweep && !swept {
            self.enter(Step::Sweep);
        } else {
            self.enter(Step::Done);
        }
    }

    /// Whether the ACK to a 2xx may be on its way. A phone that refused is tried again when the engine sees
    /// fit, and that may be just before the end of a run.
    fn awaits_ack(&self) -> bool {
        let wait = seconds(self.setup.drain_s);
        let awaits = |call, answered_at| call == Call::Answered && self.now < answered_at + wait;
        let mut judged = self.devices.iter().filter(|device| device.judged);
        judged.any(|device| awaits(device.call, device.answered_at))
    }

    /// Ends a run in which nothing moves any more.
    fn watch_progress(&mut self) {
        let counters = &self.counters;
        let sum = counters.pushes
            + counters.sends
            + counters.invites
            + counters.deposits_accepted
            + counters.deposits_refused
            + counters.chunks_deposited
            + counters.triggers_sent
            + counters.triggers_stalled
            + counters.hung_up
            + counters.triggers_refused;
        if self.director.progress.0 != sum {
            self.director.progress = (sum, self.now);
            return;
        }
        let limit = seconds(self.setup.drain_s) + 2_000_000_000;
        let still = self.now.saturating_sub(self.director.progress.1);
        let waiting = match self.director.step {
            Step::Connect | Step::Done => false,
            Step::Warmup | Step::Measure => self.director.open > 0,
            Step::Deposit | Step::Register | Step::HangUp | Step::Drain | Step::Sweep => {
                self.director.wanted.is_none()
            }
        };
        if waiting && still > limit {
            self.director.aborted = Some(self.director.step.name());
            if let Some(gate) = &self.director.gate {
                gate.abort();
            }
            self.enter(Step::Done);
        }
    }
}

/// Seconds as nanoseconds.
fn seconds(value: f64) -> u64 {
    (value * 1e9) as u64
}
