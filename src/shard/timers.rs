//! Timers: one wheel entry per push, user and watched link, armed late and moved seldom.
//!
//! A part's deadline may move later without touching the wheel: the entry fires, finds nothing due
//! and is armed again. Only an earlier deadline moves the entry.

use core::time::Duration;

use crate::base::slab::Key;
use crate::base::surface::{LinkId, StoreDone};
use crate::base::time::Timestamp;
use crate::metrics::drops::StreamsBroken;
use crate::push::campaign::{self, Campaigns, Parts};
use crate::push::delivery::{self, Progress};
use crate::push::folded::link_mark;
use crate::push::hops::Offer;
use crate::push::large::Intake;
use crate::push::post::After;
use crate::push::signalling;
use crate::push::{Ctx, Outcome, Push, PushState};
use crate::shard::frames::PARTIAL_MAX;
use crate::shard::{Shard, ctx, subscriptions};
use crate::store::index::Mailbox;
use crate::store::op::RemovalReason;
use crate::wheel::{TimerId, Wheel};

/// Timers fired in one turn; the rest follow in the next.
const TIMERS_PER_TURN: usize = 4096;
/// Unbound inbound MSRP connections are closed after this long (MSRP-19).
const UNBOUND_MAX: Duration = Duration::from_secs(10);
/// Links that timers watch at a time; further ones go unwatched, and the driver's own caps still hold. Anybody
/// may open connections: they must not take the entries of others.
pub(super) const WATCHES_MAX: usize = 61_440;
const _: () = assert!(
    UNBOUND_MAX.as_millis() <= PARTIAL_MAX.as_millis(),
    "the one timer of a link that is not bound is early enough for its first message, too"
);

const KIND_PUSH: u64 = 0;
const KIND_USER: u64 = 1;
const KIND_LINK: u64 = 2;
const KIND_NOTICE: u64 = 3;
const KIND_INTAKE: u64 = 4;

/// Makes the wheel cover the push's deadline.
fn cover_push(wheel: &mut Wheel, push: &mut Push, key: Key) {
    let timer = timer_key(KIND_PUSH, key.slot, key.generation);
    let deadline = push.deadline();
    cover(wheel, &mut push.armed, deadline, timer);
    if push.is_at_rest() {
        put_off(wheel, &mut push.armed, deadline);
    }
}

/// Makes the wheel cover the deadline of a session in which a large message is taken in.
pub(super) fn cover_intake(wheel: &mut Wheel, intake: &mut Intake, key: Key) {
    let timer = timer_key(KIND_INTAKE, key.slot, key.generation);
    let deadline = intake.deadline();
    cover(wheel, &mut intake.armed, deadline, timer);
}

/// Makes the wheel cover `deadline`: an entry that fires earlier stays where it is.
fn cover(
    wheel: &mut Wheel,
    armed: &mut Option<(TimerId, Timestamp)>,
    deadline: Timestamp,
    timer: u64,
) {
    if deadline.is_never() {
        return;
    }
    match *armed {
        Some((_, at)) if at <= deadline => {}
        Some((id, _)) => {
            assert!(wheel.rearm(id, deadline), "an armed entry is in the wheel");
            *armed = Some((id, deadline));
        }
        None => {
            let id = wheel
                .arm(deadline, timer)
                .expect("the wheel has an entry for each owner");
            *armed = Some((id, deadline));
        }
    }
}

/// Moves an entry that fires before anything is due on to `deadline`: an owner at rest is made warm by its
/// timer, and that must not be for nothing.
fn put_off(wheel: &mut Wheel, armed: &mut Option<(TimerId, Timestamp)>, deadline: Timestamp) {
    let Some((id, _)) = armed.filter(|&(_, at)| at < deadline) else {
        return;
    };
    *armed = if deadline.is_never() {
        assert!(wheel.disarm(id), "an armed entry is in the wheel");
        None
    } else {
        assert!(wheel.rearm(id, deadline), "an armed entry is in the wheel");
        Some((id, deadline))
    };
}

/// The wheel's name of a notice.
pub(super) fn notice_timer_key(key: Key) -> u64 {
    timer_key(KIND_NOTICE, key.slot, key.generation)
}

fn timer_key(kind: u64, slot: u32, generation: u32) -> u64 {
    kind << 60 | u64::from(slot) << 28 | u64::from(generation & 0x0fff_ffff)
}

/// What a timer is for, as its place in [`TIMER_KINDS`](crate::shard::questions::TIMER_KINDS).
pub(super) const fn kind_of(timer: u64) -> usize {
    (timer >> 60) as usize
}

fn parts_of(timer: u64) -> (u64, Key) {
    let slot = u32::try_from(timer >> 28 & 0xffff_ffff).expect("masked");
    let generation = u32::try_from(timer & 0x0fff_ffff).expect("masked");
    (timer >> 60, Key { slot, generation })
}

impl Shard {
    pub(super) fn fire_timers(&mut self, now: Timestamp) {
        for _ in 0..TIMERS_PER_TURN {
            let Some((_, timer)) = self.wheel.pop_due(now) else {
                self.desk.fired_until = now;
                break;
            };
            self.probe.timers_fired_total += 1;
            // One that is due at a moment which had passed when it was armed was not late before that.
            let due = self.wheel.reached().max(self.desk.fired_until);
            self.probe.timer_lateness.record(now.since(due));
            self.foresee_timer();
            let (kind, key) = parts_of(timer);
            match kind {
                KIND_PUSH => self.push_timer(now, key),
                KIND_USER => self.user_timer(now, key),
                KIND_LINK => self.link_timer(now, key),
                KIND_NOTICE => self.notice_timer(now, key),
                KIND_INTAKE => self.intake_timer(now, key),
                _ => unreachable!("timer keys are made above"),
            }
        }
        self.server.advance(now);
        self.probe.server_transactions_forgotten_total = self.server.forgotten();
    }

    /// Asks for whose timer fires next.
    #[inline]
    fn foresee_timer(&self) {
        let Some((kind, key)) = self.wheel.upcoming().map(parts_of) else {
            return;
        };
        match kind {
            KIND_PUSH => self.pushes.foresee(key.slot, Push::FRONT_BYTES),
            KIND_USER => self.foresee_user(key),
            _ => {}
        }
    }

    fn push_timer(&mut self, now: Timestamp, key: Key) {
        let Some(push) = self.pushes.lookup_mut(key) else {
            return;
        };
        push.armed = None;
        if push.deadline() > now {
            cover_push(&mut self.wheel, push, key);
            return;
        }
        let outcome = signalling::handle_timeout(push, &mut ctx!(self, now));
        if outcome.is_none() {
            let push = self.pushes.lookup_mut(key).expect("still live");
            let progress = delivery::handle_timeout(push, &ctx!(self, now));
            if progress != Progress::None {
                self.after_progress(now, key, progress);
                return;
            }
        }
        self.after_push(now, key, outcome);
    }

    /// A session step's meaning for the messages, then whatever follows.
    pub(super) fn after_progress(&mut self, now: Timestamp, key: Key, progress: Progress) {
        let outcome = match progress {
            Progress::None => None,
            Progress::Delivered { .. } | Progress::Refused { .. } => {
                self.record(now, key, progress);
                None
            }
            // A message that failed ends its session; recovery needs a new one (MSRP-23).
            Progress::Failed { .. } => self
                .end_session(now, key)
                .then_some(Outcome::MsrpStatus(408)),
            // What a phone says after the BYE does not end the dialog a second time.
            Progress::Session(_) if !self.end_session(now, key) => return,
            Progress::Session(outcome) => Some(outcome),
        };
        self.after_push(now, key, outcome);
    }

    /// BYE to a session for what its media did; false when it was ended before.
    fn end_session(&mut self, now: Timestamp, key: Key) -> bool {
        let push = self
            .pushes
            .lookup_mut(key)
            .expect("a session belongs to a push");
        let lives = push.has_session();
        if lives {
            signalling::bye_media(push, &mut ctx!(self, now));
        }
        lives
    }

    /// As [`Self::after_progress`], after a frame of an MSRP stream: a session that goes on does so at
    /// [`Self::go_on`], once for all frames about it that stand together.
    pub(super) fn after_frame(&mut self, now: Timestamp, key: Key, progress: Progress) {
        match progress {
            Progress::None => {}
            Progress::Delivered { .. } | Progress::Refused { .. } => {
                self.record(now, key, progress);
            }
            Progress::Failed { .. } | Progress::Session(_) => {
                self.desk.stirred = None;
                return self.after_progress(now, key, progress);
            }
        }
        self.desk.stirred = Some(key);
    }

    /// Moves the session forward that frames were about, unless that is the one of `but`.
    #[inline]
    pub(super) fn go_on(&mut self, now: Timestamp, but: Option<Key>) {
        if self.desk.stirred != but
            && let Some(key) = self.desk.stirred.take()
        {
            self.after_push(now, key, None);
        }
    }

    /// Takes what became of a message into the user's queue and the store.
    fn record(&mut self, now: Timestamp, key: Key, progress: Progress) {
        let push = self
            .pushes
            .lookup_mut(key)
            .expect("a session belongs to a push");
        let (user, device) = (push.user(), push.device);
        if let Progress::Delivered { since, .. } = progress {
            self.probe.delivery_time.record(now.since(since));
            let acknowledged = core::mem::replace(&mut push.stage_from, Timestamp::NEVER);
            if !acknowledged.is_never() {
                let took = now.since(acknowledged);
                self.probe.first_delivery_time.record(took);
            }
        }
        if let Some(entry) = self.registry.entry_mut(user) {
            let mut ctx = ctx!(self, now);
            let mut parts = Parts {
                user: &mut entry.user,
                state: &mut entry.extra,
                ctx: &mut ctx,
            };
            self.campaigns.record(&mut parts, user, device, progress);
        }
    }

    /// After anything happened to a push: report its end, move its session forward, free its slot
    /// or cover its deadline.
    pub(super) fn after_push(&mut self, now: Timestamp, key: Key, outcome: Option<Outcome>) {
        let mut outcome = outcome;
        let mut refresh = false;
        let Some(push) = self.pushes.lookup_mut(key) else {
            return;
        };
        let is_quiet = outcome.is_none() && push.state != PushState::Delivering;
        // Most inputs only move the push's own deadline, and once its end was reported its user has
        // no more to do with it and may be gone.
        if is_quiet || push.reported {
            return self.settle_push(now, key);
        }
        if outcome.is_none() && push.is_settled(&self.post, &self.env) {
            return self.settle_push(now, key);
        }
        let user = push.user();
        let Some(entry) = self.registry.entry_mut(user) else {
            unreachable!("a user stays while a push of it has not been reported")
        };
        let mut ctx = ctx!(self, now);
        let mut parts = Parts {
            user: &mut entry.user,
            state: &mut entry.extra,
            ctx: &mut ctx,
        };
        if outcome.is_none() && push.state == PushState::Delivering {
            outcome = campaign::pump(push, &mut self.campaigns, &mut parts);
        }
        if let Some(outcome) = outcome {
            // While a BYE is under way the connection stays, for the peer to close it (MSRP-29).
            if push.other.is_none() {
                delivery::unbind(push, parts.ctx);
            }
            if outcome == Outcome::MsrpLost {
                self.campaigns.blame(&mut parts, push);
            }
            push.inflight.clear();
            push.reported = true;
            refresh = self.campaigns.finish(&mut parts, push, outcome);
        }
        self.settle_push(now, key);
        if refresh {
            self.refresh_subscription(now, user);
        }
        self.rearm_user(user);
    }

    /// Frees the slot of a push that is over; else covers its deadline.
    fn settle_push(&mut self, now: Timestamp, key: Key) {
        let Some(push) = self.pushes.lookup_mut(key) else {
            return;
        };
        if !push.is_over() {
            return cover_push(&mut self.wheel, push, key);
        }
        if let Some((id, _)) = push.armed.take() {
            self.wheel.disarm(id);
        }
        debug_assert!(push.reported, "a push ends with an outcome");
        delivery::unbind(push, &mut ctx!(self, now));
        self.pushes.remove(key);
    }

    /// Decisions that are due, then the pushes they start.
    pub(super) fn run_campaigns(&mut self, now: Timestamp) {
        if self.starts_nothing() {
            return;
        }
        self.review(now);
        let mut started = core::mem::take(&mut self.desk.started);
        let mut loading = 0;
        for _ in 0..self.campaigns.options.decisions_per_turn {
            if !self
                .campaigns
                .may_begin(now, || self.hops.invites_inflight())
            {
                self.probe.turns_held_total += 1;
                break;
            }
            let (hops, post, out) = (&self.hops, &self.post, &self.out);
            // Of what may leave, those that wait for their records will take a part.
            let has_room = |set| {
                post.load_room() > 0 && hops.invite_room(out, now, set, Offer::Invite) > loading
            };
            let Some((line, user)) = self.campaigns.poll_user(now, has_room) else {
                break;
            };
            self.foresee_users(self.campaigns.upcoming());
            let Some(entry) = self.registry.entry_mut(user) else {
                continue;
            };
            if line.is_some_and(|line| !Campaigns::came_up(&mut entry.extra, line)) {
                continue;
            }
            let mut ctx = ctx!(self, now);
            let mut parts = Parts {
                user: &mut entry.user,
                state: &mut entry.extra,
                ctx: &mut ctx,
            };
            self.campaigns
                .decide(&mut parts, user, &mut self.pushes, &mut started);
            for key in started.drain(..) {
                self.launch(now, key);
                if line.is_some() {
                    let push = self.pushes.peek(key);
                    loading += u32::from(push.is_some_and(|push| push.state == PushState::Loading));
                }
            }
            self.rearm_user(user);
        }
        self.desk.started = started;
        self.look_again(now);
    }

    /// Who still waits for a hop is looked at when the first whose rate is used up has room again.
    pub(super) fn look_again(&mut self, now: Timestamp) {
        if self.campaigns.anyone_waits() {
            self.campaigns.look_again(self.hops.room_at(now));
        }
    }

    /// After a change of the rules: users with mail are decided on anew, so many in a turn.
    fn review(&mut self, now: Timestamp) {
        for slot in self.campaigns.review(self.registry.slots()) {
            let waits = self
                .post
                .mailbox_ref(slot)
                .is_some_and(|mailbox| !mailbox.is_empty());
            if waits
                && let Some(key) = self.registry.key_at(slot)
                && let Some(entry) = self.registry.entry_mut(key)
            {
                self.campaigns.changed(now, key, &mut entry.extra);
                self.rearm_user(key);
            }
        }
    }

    pub(super) fn launch(&mut self, now: Timestamp, key: Key) {
        let Some(push) = self.pushes.lookup_mut(key) else {
            return;
        };
        let user = push.user();
        let Some(entry) = self.registry.entry_mut(user) else {
            return;
        };
        let mut ctx = ctx!(self, now);
        let mut parts = Parts {
            user: &mut entry.user,
            state: &mut entry.extra,
            ctx: &mut ctx,
        };
        let outcome = campaign::launch(push, &mut parts);
        self.after_push(now, key, outcome);
    }

    pub(super) fn handle_stored(&mut self, now: Timestamp, done: &StoreDone) {
        for &(ticket, location) in &done.stored {
            while let Some(after) = self.post.take_after(ticket) {
                self.foresee_users(self.post.foresee_after());
                self.settle(now, after, Some(location));
            }
        }
        if let Some(&(ticket, _)) = done.stored.last() {
            self.post.forget_moved(ticket);
        }
        if let Some(room) = done.room {
            self.post.set_store_room(room);
        }
        if done.failed_from.is_some() {
            self.probe.store_failures_total += 1;
            while let Some(after) = self.post.take_failed() {
                self.settle(now, after, None);
            }
        }
        self.handle_loaded(now, done);
    }

    /// A record is durable at `location`, or its store has failed.
    fn settle(
        &mut self,
        now: Timestamp,
        after: After,
        location: Option<crate::base::surface::Location>,
    ) {
        match after {
            After::Deposit {
                user,
                number,
                reply,
                since,
            } => {
                let mailbox = self.post.mailbox(user.slot);
                let Some(location) = location else {
                    mailbox.cancel(number);
                    self.post.cache.remove(number);
                    if let Some(reply) = reply {
                        self.refuse_stored(now, reply);
                    }
                    return;
                };
                if mailbox.stored(number, location) {
                    self.post.queue.arrived(number);
                }
                self.post.ledger.deposited += 1;
                self.post.segments.deposit(location);
                self.probe.deposits_total += 1;
                if let Some(reply) = reply {
                    self.send_reply(now, reply);
                }
                self.tell_stored(now, user, number);
                self.deposited(now, since, user);
            }
            After::Mark { of, removes } => {
                let Some(location) = location else { return };
                let first = of;
                let of = self.post.moved(of);
                self.post.segments.mark(location, Some(of));
                if let Some(reason) = removes {
                    self.post.segments.dead(of);
                    self.post.dead_parts(first);
                    self.post.gone(reason);
                }
            }
            After::Expired { of, number } => {
                let Some(location) = location else { return };
                // A notice needs the deposit, not its parts.
                self.post.dead_parts(of);
                let of = self.post.moved(of);
                self.post.segments.mark(location, Some(of));
                self.post.gone(RemovalReason::Expired);
                self.owe_notice(now, number, of);
            }
            After::Part { intake, number } => self.part_stored(now, (intake, number), location),
            After::Closed {
                intake,
                user,
                number,
            } => self.large_stored(now, (intake, user, number), location),
            After::Copied { slot, number, from } => {
                if let Some(to) = location {
                    self.post.copied(slot, number, from, to);
                }
            }
            After::Freed { of } => {
                if location.is_some() {
                    self.post.freed(of);
                }
            }
            After::Reply(reply) => {
                if location.is_some() {
                    self.send_reply(now, reply);
                } else {
                    self.refuse_stored(now, reply);
                }
            }
        }
    }

    fn user_timer(&mut self, now: Timestamp, key: Key) {
        let mailbox = self.post.mailbox_ref(key.slot);
        let expiry_s = mailbox.and_then(Mailbox::next_expiry_s);
        if expiry_s.is_some_and(|at| u64::from(at) <= self.desk.wall.at(now).as_secs()) {
            self.expire(now, key);
        }
        let Some(entry) = self.registry.entry_mut(key) else {
            return;
        };
        entry.extra.armed = None;
        let due_at = entry.extra.decide_at.min(entry.extra.retry_at);
        if due_at <= now {
            entry.extra.decide_at = Timestamp::NEVER;
            entry.extra.retry_at = Timestamp::NEVER;
            self.campaigns
                .changed_since(now, due_at, key, &mut entry.extra);
        }
        let ask = entry.extra.subscribe_at <= now;
        if ask {
            entry.extra.subscribe_at = Timestamp::NEVER;
            if core::mem::take(&mut entry.extra.dirty) {
                self.refresh_subscription(now, key);
            } else {
                self.want_subscription(now, key);
            }
        }
        self.settle_doubt(now, key);
        self.subscription_timer(now, key);
        self.rearm_user(key);
    }

    /// Takes out what a user's queue has too long, but for what is being sent.
    fn expire(&mut self, now: Timestamp, key: Key) {
        let Some(entry) = self.registry.entry_mut(key) else {
            return;
        };
        let mut moving = core::mem::take(&mut self.desk.numbers);
        for push in entry
            .user
            .devices
            .iter()
            .filter_map(|device| device.pushing)
        {
            // One at rest has no message in flight.
            let push = self.pushes.lookup_warm(push);
            let messages = push.into_iter().flat_map(|push| &push.inflight);
            moving.extend(messages.map(|message| message.number));
        }
        let mut ctx = ctx!(self, now);
        let mut parts = Parts {
            user: &mut entry.user,
            state: &mut entry.extra,
            ctx: &mut ctx,
        };
        self.campaigns.expire(&mut parts, key, &moving);
        moving.clear();
        self.desk.numbers = moving;
    }

    /// Makes the wheel cover the user's next deadline; forgets a user of whom nothing is left.
    pub(super) fn rearm_user(&mut self, key: Key) {
        let Some(entry) = self.registry.entry_mut(key) else {
            return;
        };
        let state = &mut entry.extra;
        let mut deadline = state.decide_at.min(state.retry_at);
        deadline = deadline
            .min(entry.user.subscription.deadline())
            .min(state.subscribe_at)
            .min(state.doubt_at);
        if let Some(expiry_s) = self
            .post
            .mailbox_ref(key.slot)
            .and_then(|mailbox| mailbox.next_expiry_s())
        {
            deadline = deadline.min(self.desk.wall.moment_of(u64::from(expiry_s)));
        }
        put_off(&mut self.wheel, &mut state.armed, deadline);
        if deadline.is_never() {
            if subscriptions::is_forgettable(&entry.user, state)
                && self
                    .post
                    .mailbox_ref(key.slot)
                    .is_none_or(|mailbox| mailbox.is_empty())
            {
                self.registry.remove(key);
            }
            return;
        }
        let timer = timer_key(KIND_USER, key.slot, key.generation);
        cover(&mut self.wheel, &mut state.armed, deadline, timer);
    }

    /// Watches a link that may never say anything useful. One timer does: what else it is to see to is
    /// looked at when it fires.
    pub(super) fn watch_link(&mut self, now: Timestamp, link: LinkId, wait: Duration) {
        let timer = timer_key(KIND_LINK, link.slot, link.generation);
        let has_room = self.desk.watches < WATCHES_MAX;
        if let Some(state) = self.out.lookup_mut(link)
            && state.watch.is_none()
            && has_room
        {
            state.watch = self.wheel.arm(now + wait, timer);
            self.desk.watches += usize::from(state.watch.is_some());
        }
    }

    /// A link was bound: nothing is left to watch over, unless part of a message has come. At ten
    /// thousand connections a second the timers would else be a hundred thousand.
    pub(super) fn unwatch(&mut self, link: LinkId) {
        if self.out.lookup(link).is_some_and(|state| !state.watched) {
            self.disarm_watch(link);
        }
    }

    /// Takes a link's timer away, if it has one.
    pub(super) fn disarm_watch(&mut self, link: LinkId) {
        if let Some(state) = self.out.lookup_mut(link)
            && let Some(id) = state.watch.take()
            && self.wheel.disarm(id)
        {
            self.desk.watches -= 1;
        }
    }

    pub(super) fn watch_unbound(&mut self, now: Timestamp, link: LinkId) {
        self.watch_link(now, link, UNBOUND_MAX);
    }

    fn link_timer(&mut self, now: Timestamp, key: Key) {
        self.desk.watches -= 1;
        let link = LinkId {
            slot: key.slot,
            generation: key.generation,
        };
        let Some(state) = self.out.lookup_mut(link) else {
            return;
        };
        state.watched = false;
        state.watch = None;
        let unbound =
            state.kind == crate::base::surface::LinkKind::MsrpInbound && state.bound.is_none();
        let since = state.partial_since;
        let stalled = !since.is_never() && since + PARTIAL_MAX <= now;
        if unbound || stalled {
            let reason = if stalled {
                StreamsBroken::Partial
            } else {
                StreamsBroken::Unbound
            };
            reason.count(&mut self.probe.drops);
            self.out.close(link);
        } else if !since.is_never() {
            state.watched = true;
            self.watch_link(now, link, (since + PARTIAL_MAX).since(now));
        }
    }

    /// Output of a link went out: sessions that held back go on in the order in which they came, as long as
    /// it has room. All of them would find none, again and again: there may be a hundred thousand.
    pub(super) fn link_drained(&mut self, now: Timestamp, link: LinkId) {
        if !self.out.take_stalled(link) {
            return;
        }
        let most = self.env.options.msrp_backlog_bytes_max;
        while self.out.backlog(link) < most
            && let Some(key) = self.post.next_in_line(link)
        {
            if let Some(push) = self.pushes.lookup_mut(key) {
                push.held_back = 0;
                self.after_push(now, key, None);
            }
        }
        if self.post.has_line(link)
            && let Some(state) = self.out.lookup_mut(link)
        {
            state.stalled = true;
        }
    }

    /// Live pushes bound to `link`. A connection of one session names it, so that only one that many
    /// share costs a look at every push.
    fn pushes_on(&self, link: LinkId) -> Vec<Key> {
        let mark = link_mark(Some(link));
        let is_on = |key: &Key| {
            self.pushes.mark(*key) == Some(mark)
                && self
                    .pushes
                    .peek(*key)
                    .is_some_and(|push| push.msrp_link == Some(link))
        };
        if let Some(state) = self.out.lookup(link)
            && state.bound_count == 1
            && let Some(key) = state.bound.filter(is_on)
        {
            return vec![key];
        }
        self.pushes.keys().filter(is_on).collect()
    }

    pub(super) fn msrp_lost(&mut self, now: Timestamp, link: LinkId) {
        if self.large_lost(now, link) {
            return;
        }
        if let Some(state) = self.out.lookup(link) {
            self.post.shared_links.closed(state.peer, link);
            if state.bound_count == 0 {
                return;
            }
        }
        while self.post.next_in_line(link).is_some() {}
        for key in self.pushes_on(link) {
            self.probe.msrp_lost_total += 1;
            let push = self.pushes.lookup_mut(key).expect("just listed");
            push.msrp_link = None;
            push.held_back = 0;
            if push.has_session() {
                signalling::bye_media(push, &mut ctx!(self, now));
                self.after_push(now, key, Some(Outcome::MsrpLost));
            }
        }
    }

    pub(super) fn msrp_connected(&mut self, now: Timestamp, token: u64, link: LinkId) {
        let Some(key) = delivery::push_of_token(token) else {
            return self.large_connected(now, token, link);
        };
        let mut waiting = vec![key];
        let moves = delivery::moves_of_token(token);
        let mut shared = None;
        if self.env.options.msrp_reuse
            && let Some(peer) = self.out.lookup(link).map(|state| state.peer)
        {
            waiting = self.post.shared_links.connected(peer, link);
            shared = Some(peer);
        }
        let mut used = false;
        for key in waiting {
            let Some(push) = self.pushes.lookup_mut(key) else {
                continue;
            };
            if delivery::awaits(push, moves, shared) {
                used = true;
                delivery::bind(push, &mut ctx!(self, now), link);
                self.after_bind(now, key);
            }
        }
        if !used && !self.env.options.msrp_reuse {
            self.out.close(link);
        }
    }

    pub(super) fn msrp_connect_failed(&mut self, now: Timestamp, token: u64) {
        let Some(key) = delivery::push_of_token(token) else {
            return self.large_connect_failed(now, token);
        };
        let mut waiting = vec![key];
        let moves = delivery::moves_of_token(token);
        if self.env.options.msrp_reuse {
            waiting = self.post.shared_links.failed(key);
        }
        for key in waiting {
            let Some(push) = self.pushes.lookup_mut(key) else {
                continue;
            };
            if delivery::awaits(push, moves, None) {
                self.probe.msrp_lost_total += 1;
                signalling::bye_media(push, &mut ctx!(self, now));
                self.after_push(now, key, Some(Outcome::MsrpConnect));
            }
        }
    }

    /// A session has its connection: the first message goes out now.
    pub(super) fn after_bind(&mut self, now: Timestamp, key: Key) {
        self.after_push(now, key, None);
    }
}
