//! What a user's pushes have in common: which clients get one, what each is to deliver, and what
//! follows from how it went (layer 3).
//!
//! One decision per user and change, further changes within `coalesce` of it make one more
//! (SEL-2). A decision looks at the registration, the queue and each device's past, and starts one
//! push per selected client, none waiting for another (PUSH-0b).

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::entropy::Jitter;
use crate::base::limits;
use crate::base::pool::Pool;
use crate::base::slab::Key;
use crate::base::surface::LinkKind;
use crate::base::time::Timestamp;
use crate::imdn::{self, Ending, Requested};
use crate::push::delivery::{self, Fit, Missing, Progress};
use crate::push::dialect::Dialect;
use crate::push::lines::{Asking, BEGUN_MAX, Lines, SPAN};
use crate::push::notices::Notices;
use crate::push::options::Grouping;
use crate::push::reason::MessageReason;
use crate::push::signalling;
use crate::push::user::{Ask, UserState};
use crate::push::{Ctx, INFLIGHT_MAX, Outcome, Push, PushState, guard_after};
use crate::reginfo::document::Document;
use crate::reginfo::familiar::Documents;
use crate::registry::features::KnownLists;
use crate::registry::{self, Class, Facts, OutcomeOptions, RegistryOptions, User, classify};
use crate::selection::rules::{RuleBook, Ruling};
use crate::selection::{
    self, CANDIDATES_MAX, DeviceView, Moment, Policy, QueueView, Selection, UserView, Verdict,
};
use crate::sip::uri;
use crate::store::index::{Entry, Fate, Goal, Mailbox, Marked};
use crate::store::op::{DepositFlags, Evidence, Mark, MarkKind, NOTICE_NUMBERS, RemovalReason};
use crate::store::record::{self, Record};

/// Options of campaigns.
#[derive(Clone, Debug)]
pub struct CampaignOptions {
    /// Changes within this time of a decision wait for its end (SEL-2).
    pub coalesce: Duration,
    /// Provider policy of the selection, until [`Campaigns::adopt`].
    pub policy: Policy,
    /// How documents are read.
    pub registry: RegistryOptions,
    /// Waits after failures.
    pub outcome: OutcomeOptions,
    /// When a message is done (AMB-1).
    pub goal: Goal,
    /// Decisions of one turn; the rest follow in the next.
    pub decisions_per_turn: usize,
    /// INVITEs under way from which on a shard that is behind begins no more. So many pushes stay in the
    /// caches; each further one makes all of them dearer.
    pub hot_invites: u32,
    /// Most pushes started a second; 0 leaves it to what the hops take (OVL-8).
    pub pushes_per_s: u32,
}

/// How much of the pace may be used at once.
const PACE_BATCH: Duration = Duration::from_millis(1);

/// A shard that has not caught up for this long is behind. At a pace it can keep it does within a
/// millisecond.
const BEHIND_AFTER: Duration = Duration::from_millis(4);

/// Users who need a decision, and what deciding needs.
#[derive(Debug)]
pub struct Campaigns {
    /// Options.
    pub options: CampaignOptions,
    /// The document of the NOTIFY at hand.
    pub document: Document,
    /// What documents before it looked like.
    pub documents: Documents,
    /// ICSI lists of documents before it.
    pub lists: KnownLists,
    /// Notices of clients on their way to the senders.
    pub notices: Notices,
    rules: Arc<RuleBook>,
    /// The slot of the registry from which on users have not been looked at since the rules changed.
    review_from: Option<u32>,
    queue: VecDeque<Key>,
    /// Users whom no hop could take.
    throttled: Lines,
    /// Some of them may have room by now.
    throttled_due: bool,
    /// Users who wait for a SUBSCRIBE.
    asks: Lines,
    /// When to look whether some of them have room.
    asks_at: Timestamp,
    asking: Asking,
    /// Up to when the pace is used up by pushes already started.
    paced_until: Timestamp,
    /// When the work began that has not come to an end since; `None`: it has.
    busy_from: Option<Timestamp>,
    /// Decisions wait until more is finished.
    held: bool,
    selection: Selection,
    devices: Vec<DeviceView>,
    keys: Vec<u64>,
}

impl Campaigns {
    /// No user needs anything yet.
    #[must_use]
    pub fn new(options: CampaignOptions) -> Self {
        Self {
            rules: Arc::new(RuleBook::new(options.policy)),
            review_from: None,
            options,
            document: Document::new(),
            documents: Documents::new(),
            lists: KnownLists::default(),
            notices: Notices::default(),
            queue: VecDeque::with_capacity(1024),
            throttled: Lines::default(),
            throttled_due: false,
            asks: Lines::default(),
            asks_at: Timestamp::NEVER,
            asking: Asking::default(),
            paced_until: Timestamp::ZERO,
            busy_from: None,
            held: false,
            selection: Selection::default(),
            devices: Vec::with_capacity(64),
            keys: Vec::with_capacity(64),
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &RuleBook {
        &self.rules
    }

    /// Puts other rules in force. Users look themselves up again at their next decision; those with
    /// mail are to be decided on anew (SEL-1), see [`Campaigns::review`].
    pub fn adopt(&mut self, rules: &Arc<RuleBook>) {
        self.rules = if rules.edition() == self.rules.edition() {
            // Users would take what they know of the old ones for its rules.
            let mut rules = RuleBook::clone(rules);
            rules.follow(&self.rules);
            Arc::new(rules)
        } else {
            Arc::clone(rules)
        };
        self.review_from = Some(0);
    }

    /// The next slots of the registry, of `slots`, to be looked at after a change of the rules.
    pub fn review(&mut self, slots: u32) -> core::ops::Range<u32> {
        let Some(from) = self.review_from else {
            return 0..0;
        };
        let end = slots.min(from.saturating_add(REVIEWED_PER_TURN));
        self.review_from = (end < slots).then_some(end);
        from.min(end)..end
    }

    /// Makes sure that `user` knows which rules are its own.
    #[inline]
    pub fn rule(&self, user: &mut User) {
        if user.ruling.edition != self.rules.edition() {
            user.ruling = ruling_of(&self.rules, user);
        }
    }

    /// Something changed for `user`: decide in this turn, or at the end of the window (SEL-2). Who waits
    /// for a hop is decided on when it has room.
    pub fn changed(&mut self, now: Timestamp, user: Key, state: &mut UserState) {
        if state.queued || state.throttled == Some(state.set) {
            return;
        }
        let open_at = state
            .decided_at
            .map_or(now, |at| at + self.options.coalesce);
        if open_at > now {
            state.decide_at = state.decide_at.min(open_at);
            return;
        }
        state.queued = true;
        state.decide_at = Timestamp::NEVER;
        state.triggered_at = now;
        self.queue.push_back(user);
    }

    /// A hop came up or has room again: users who wait for it are looked at in this turn or the next.
    pub const fn hop_room(&mut self) {
        self.throttled_due = !self.throttled.is_empty();
        if !self.asks.is_empty() {
            self.asks_at = Timestamp::ZERO;
        }
    }

    /// The next user to decide on, unless the pace is used up: whose trigger is oldest. Those who found
    /// no hop come before those who come now, for lists of hops that take INVITEs by `has_room`; of them
    /// the line is told, too, for [`Campaigns::came_up`].
    pub fn poll_user(
        &mut self,
        now: Timestamp,
        has_room: impl FnMut(u8) -> bool,
    ) -> Option<(Option<u8>, Key)> {
        self.throttled_due = !self.throttled.is_empty();
        if self.is_paced(now) {
            return None;
        }
        if self.throttled_due {
            if let Some((line, user)) = self.throttled.pop(has_room) {
                return Some((Some(line), user));
            }
            self.throttled_due = false;
        }
        Some((None, self.queue.pop_front()?))
    }

    /// Whether to decide at all, with so many INVITEs under way: what was begun comes to its end before more
    /// is begun, while the shard is behind with its input.
    #[inline]
    pub fn may_begin(&mut self, now: Timestamp, invites: impl FnOnce() -> u32) -> bool {
        let from = *self.busy_from.get_or_insert(now);
        self.held = now.since(from) >= BEHIND_AFTER && invites() >= self.options.hot_invites;
        !self.held
    }

    /// All input was handled. True when decisions were put off until then.
    pub fn caught_up(&mut self) -> bool {
        self.busy_from = None;
        core::mem::take(&mut self.held) && !(self.queue.is_empty() && self.throttled.is_empty())
    }

    /// Who is decided on next, and then, and after that, if nobody waits for a hop.
    #[must_use]
    pub fn upcoming(&self) -> [Option<Key>; 3] {
        [0, 1, 2].map(|at| self.queue.get(at).copied())
    }

    /// A user left a line for INVITEs; `false` when it waits elsewhere, or no more.
    pub fn came_up(state: &mut UserState, line: u8) -> bool {
        state.invite_places.leave(line);
        state.throttled == Some(line)
    }

    /// Whether a SUBSCRIBE for a user of `set` may leave at once: nobody waits for one, and there is room.
    pub fn may_ask(&mut self, now: Timestamp, set: u8) -> bool {
        self.asks.is_empty() && self.begun(now, set) < BEGUN_MAX
    }

    /// `user` is to be asked about when it is its turn.
    pub fn ask_later(&mut self, now: Timestamp, user: Key, state: &mut UserState, why: Ask) {
        if state.ask == Ask::No || state.ask_line != state.set {
            state.ask_line = state.set;
            self.asks.join(&mut state.ask_places, state.set, now, user);
        }
        state.ask = state.ask.max(why);
    }

    /// The next user to ask the registrar about, for lists of hops that are up by `is_up`, and the line
    /// in which it stood.
    pub fn poll_ask(&mut self, now: Timestamp, is_up: impl Fn(u8) -> bool) -> Option<(u8, Key)> {
        self.asks_at = Timestamp::NEVER;
        if self.asks.is_empty() {
            return None;
        }
        let asking = self.asking.count(now);
        let (throttled, queue) = (&self.throttled, self.queue.len());
        let found = self
            .asks
            .pop(|set| is_up(set) && begun(asking, queue + throttled.waiting_for(set)) < BEGUN_MAX);
        // What was asked in vain counts no longer with time, and nobody says so.
        self.asks_at = found.map_or(now + SPAN, |_| Timestamp::ZERO);
        found
    }

    /// Users for whom something was begun that has not come to an INVITE, as those of `set` see it: a
    /// list of hops that takes nothing holds up its own users only.
    fn begun(&mut self, now: Timestamp, set: u8) -> u32 {
        let waiting = self.queue.len() + self.throttled.waiting_for(set);
        begun(self.asking.count(now), waiting)
    }

    /// The subscription of a user became pending, or is no longer.
    pub fn asked(&mut self, now: Timestamp, state: &mut UserState, is_pending: bool) {
        if is_pending {
            state.ask_span = self.asking.began(now);
        } else {
            self.asking.ended(now, state.ask_span);
        }
    }

    fn is_paced(&self, now: Timestamp) -> bool {
        self.paced_until >= now + PACE_BATCH
    }

    /// A push was started: the next ones leave their turn to time. Each takes a little more than its
    /// share, by chance, so that a crowd does not leave in step.
    fn pace(&mut self, now: Timestamp, jitter: &mut Jitter) {
        if let Some(share) = Duration::from_secs(1).checked_div(self.options.pushes_per_s) {
            let turn = jitter.duration(share, share + share / 8);
            self.paced_until = self.paced_until.max(now) + turn;
        }
    }

    /// When there is a decision to make next: at once ([`Timestamp::ZERO`]), or when the pace allows.
    #[must_use]
    pub fn due_at(&self) -> Timestamp {
        if self.review_from.is_some() {
            return Timestamp::ZERO;
        }
        if self.held || (self.queue.is_empty() && !self.throttled_due) {
            self.asks_at
        } else {
            self.asks_at.min(self.paced_until)
        }
    }

    /// `user` waits for a hop. One who stood in line before keeps its place.
    fn throttle(&mut self, user: Key, state: &mut UserState, before: Option<u8>) {
        let (places, set, since) = (&mut state.invite_places, state.set, state.triggered_at);
        if before == Some(set) {
            self.throttled.stay(places, set, since, user);
        } else {
            self.throttled.join(places, set, since, user);
        }
        state.throttled = Some(state.set);
    }

    /// Decides for `user` and starts a push for every selected client; their keys go to `started`.
    pub fn decide(
        &mut self,
        parts: &mut Parts<'_, '_>,
        key: Key,
        pushes: &mut Pool<Push>,
        started: &mut Vec<Key>,
    ) {
        let now = parts.ctx.now;
        parts.state.queued = false;
        let waited = parts.state.throttled.take();
        parts.state.decided_at = Some(now);
        parts.state.decide_at = Timestamp::NEVER;
        parts.ctx.probe.decisions_total += 1;
        for push in pushes.left().take(PUSHES_FORESEEN) {
            push.foresee_reuse();
        }
        self.evaluate(parts, key);
        parts.state.retry_at = self.look_again_at(parts, key);
        match self.selection.user_verdict() {
            Some(verdict) => *verdict.counter(parts.ctx.probe) += 1,
            None => {
                for verdict in self.selection.verdicts() {
                    *verdict.counter(parts.ctx.probe) += 1;
                }
            }
        }
        let waits = self.selection.verdicts().contains(&Verdict::Throttled);
        for index in self.selection.selected() {
            parts.ctx.probe.devices_selected_total += 1;
            let Some((push_key, push)) = pushes.insert() else {
                break;
            };
            push.foresee_texts();
            let device = &mut parts.user.devices[index];
            push.reset(parts.ctx.env, push_key, key, device.key);
            push.set = parts.state.set;
            push.triggered = parts.state.triggered_at;
            push.binding = device.binding;
            push.dialect = device.dialect;
            push.takes = self.rules.limit_of(parts.user.ruling, device.key);
            device.pushing = Some(push_key);
            parts.state.pushes += 1;
            started.push(push_key);
        }
        for _ in 0..started.len() {
            self.pace(now, parts.ctx.jitter);
        }
        if waits {
            self.throttle(key, parts.state, waited);
        }
    }

    fn evaluate(&mut self, parts: &mut Parts<'_, '_>, key: Key) {
        self.rule(parts.user);
        let ctx = &parts.ctx;
        let moment = Moment {
            now: ctx.now,
            wall: ctx.wall,
            tokens: ctx
                .hops
                .invite_room(ctx.out, ctx.now, parts.state.set)
                .min(ctx.post.load_room()),
        };
        let mailbox = parts.ctx.post.mailbox_ref(key.slot);
        weigh(
            (parts.user, mailbox),
            &self.rules,
            moment,
            &mut self.devices,
            &mut self.selection,
        );
    }

    /// When time alone may change what was just decided.
    fn look_again_at(&self, parts: &Parts<'_, '_>, key: Key) -> Timestamp {
        let at = self.selection.again_at();
        let Some(Verdict::UserPrefHold { until: Some(until) }) = self.selection.user_verdict()
        else {
            return at;
        };
        let mailbox = parts.ctx.post.mailbox_ref(key.slot);
        if mailbox.is_none_or(Mailbox::is_empty) {
            return at;
        }
        let wait = until.0.saturating_sub(parts.ctx.wall.0);
        at.min(parts.ctx.now + Duration::from_millis(wait))
    }

    /// Keys of the devices that message `number` waits for: those registered now that a decision could
    /// select for it.
    fn goal_devices(&mut self, user: &mut User, number: u64, mailbox: &Mailbox, now: Timestamp) {
        self.keys.clear();
        self.rule(user);
        let policy = self.rules.policy(user.ruling);
        let preference = self.rules.preference(user.ruling);
        let entry = mailbox.lookup(number);
        for device in &user.devices {
            let wanted = preference.is_none_or(|preference| {
                let limit = preference.limit_of(device.key);
                preference.admits(device.key)
                    && entry.is_none_or(|entry| limit.takes(entry.bytes(), entry.hints()))
            });
            let reachable = device.active && device.expires_at > now;
            if reachable && wanted && policy.is_capable(&DeviceView::of(device)) {
                self.keys.push(device.key);
            }
        }
    }

    /// Takes what happened to a message in a session into the queue and the store.
    pub fn record(
        &mut self,
        parts: &mut Parts<'_, '_>,
        user: Key,
        device: u64,
        progress: Progress,
    ) {
        let (number, fate, kind) = match progress {
            Progress::None | Progress::Session(_) | Progress::Failed { .. } => return,
            Progress::Delivered { number, by } => {
                let by = evidence(by);
                parts.ctx.probe.delivered_total += 1;
                if by == Evidence::HopAck {
                    parts.ctx.probe.delivered_hop_ack_total += 1;
                }
                (number, Fate::Delivered, MarkKind::Delivered { device, by })
            }
            Progress::Refused { number, reason } => {
                parts.ctx.probe.refused_total += 1;
                *reason.counter(parts.ctx.probe) += 1;
                let status = reason.status();
                (number, Fate::Refused, MarkKind::Refused { device, status })
            }
        };
        let mailbox = parts.ctx.post.mailbox(user.slot);
        if mailbox.mark(number, device, fate) != Marked::Recorded {
            return;
        }
        let goal = self.options.goal;
        let now = parts.ctx.now;
        self.goal_devices(parts.user, number, mailbox, now);
        let settled = mailbox.is_settled(number, goal, &self.keys);
        let Some(location) = mailbox.lookup(number).and_then(|entry| entry.location()) else {
            return;
        };
        parts.ctx.probe.marks_total += 1;
        // The last device's mark and the removal are one record: the removal says both.
        let kind = if settled {
            MarkKind::Removed {
                reason: RemovalReason::Delivered,
            }
        } else {
            kind
        };
        let mark = Mark {
            user: &parts.user.canonical,
            number,
            at: parts.ctx.wall,
            kind,
        };
        parts.ctx.post.append_mark(&mark, location, settled);
        if settled {
            parts.ctx.post.mailbox(user.slot).remove(number);
            parts.ctx.post.cache.remove(number);
            parts.ctx.post.count(false);
            parts.ctx.probe.messages_completed_total += 1;
        }
    }

    /// Removes messages whose life has ended (LIFE-3), but for those in transfer, whose numbers are
    /// `moving`. A sender who asked for it is told, once the removal is durable (IMDN-4).
    pub fn expire(&mut self, parts: &mut Parts<'_, '_>, user: Key, moving: &[u64]) {
        let now_s = seconds(parts.ctx);
        let is_moving = |number| moving.contains(&number);
        while let Some(entry) = parts
            .ctx
            .post
            .mailbox(user.slot)
            .poll_expired_unless(now_s, is_moving)
        {
            let location = entry.location().expect("only durable messages expire");
            let mark = Mark {
                user: &parts.user.canonical,
                number: entry.number(),
                at: parts.ctx.wall,
                kind: MarkKind::Removed {
                    reason: RemovalReason::Expired,
                },
            };
            if owes_notice(&entry) {
                parts.ctx.post.append_expired(&mark, location);
            } else {
                parts.ctx.post.append_mark(&mark, location, true);
                parts.ctx.post.cache.remove(entry.number());
            }
            parts.ctx.post.count(false);
            parts.ctx.probe.messages_expired_total += 1;
        }
    }

    /// Removes message `number` for another reason than its delivery or its age: it is told to nobody.
    pub fn purge(
        &mut self,
        parts: &mut Parts<'_, '_>,
        user: Key,
        number: u64,
        reason: RemovalReason,
    ) {
        let removed = parts.ctx.post.mailbox(user.slot).remove(number);
        let Some(location) = removed.and_then(|entry| entry.location()) else {
            return;
        };
        let mark = Mark {
            user: &parts.user.canonical,
            number,
            at: parts.ctx.wall,
            kind: MarkKind::Removed { reason },
        };
        parts.ctx.post.append_mark(&mark, location, true);
        parts.ctx.post.cache.remove(number);
        parts.ctx.post.count(false);
    }

    /// The session of `push` lost its connection: counts that against what was in transfer. The message
    /// during which it happened once too often is refused for this device, so that the rest gets
    /// through (BAD-30).
    pub fn blame(&mut self, parts: &mut Parts<'_, '_>, push: &Push) {
        let Some(device) = parts.user.device_mut(push.device) else {
            return;
        };
        let losses = device.losses.get_or_insert_default();
        if let Some(number) = losses.lost_during(&push.inflight) {
            let progress = Progress::Refused {
                number,
                reason: MessageReason::Poison,
            };
            self.record(parts, push.user(), push.device, progress);
        }
    }

    /// A push ended: its device may be pushed to again, now or later (RSP-1..30). True when the
    /// registrar should be asked for full state first (RSP-7).
    pub fn finish(&mut self, parts: &mut Parts<'_, '_>, push: &Push, outcome: Outcome) -> bool {
        let mut refresh = false;
        let now = parts.ctx.now;
        let class = class_of(outcome);
        apply_hop(parts.ctx, push, class);
        assert!(parts.state.pushes > 0, "a push ends once");
        parts.state.pushes -= 1;
        parts.ctx.probe.pushes_ended_total += 1;
        if !matches!(
            outcome,
            Outcome::Drained | Outcome::Cap | Outcome::PeerBye | Outcome::NoHop
        ) {
            parts.ctx.probe.pushes_failed_total += 1;
        }
        if let Some(device) = parts.user.device_mut(push.device)
            && device.pushing == push.key
        {
            device.pushing = None;
            if matches!(outcome, Outcome::Drained | Outcome::Cap) {
                device.losses = None;
            }
            if let Some(agents) = push.agents
                && agents != device.agents
            {
                device.agents = agents;
                let rules = &self.options.registry.dialects;
                device.dialect = rules.pick(device.features, agents);
            }
            let status = if let Outcome::Status { status, .. } = outcome {
                status
            } else {
                0
            };
            let binding = push.binding;
            let record = registry::Outcome {
                class,
                status,
                binding,
                required: parts.ctx.env.forms.common.demands_features() && !push.no_require,
                code: outcome.code(),
                note: &push.note,
            };
            let followup = device.record(now, record, parts.ctx.jitter, &self.options.outcome);
            refresh = followup.refresh_subscription;
        }
        let user = push.user();
        let has_mail = parts
            .ctx
            .post
            .mailbox_ref(user.slot)
            .is_some_and(|mailbox| !mailbox.is_empty());
        if has_mail
            && outcome == Outcome::NoHop
            && let Some(until) = parts.ctx.hops.held_until(now, push.set)
        {
            // Held back by what the hop asks for: offered again when that ends (OVL-4).
            parts.ctx.probe.pushes_throttled_total += 1;
            let until = until + parts.ctx.jitter.duration(Duration::ZERO, HELD_SPREAD);
            parts.state.decide_at = parts.state.decide_at.min(until);
        } else if has_mail {
            self.changed(now, user, parts.state);
        }
        self.hop_room();
        refresh
    }
}

fn begun(asking: u32, waiting: usize) -> u32 {
    asking.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX))
}

/// Users looked at in one turn after the rules changed.
/// Pushes that a decision may lead to, as far as their memory is asked for ahead.
const PUSHES_FORESEEN: usize = 4;
const REVIEWED_PER_TURN: u32 = 4096;

/// Decides for a user with its queue, into `selection`; `devices` is for its views. The one place that
/// gathers what [`selection::evaluate`] looks at, for shards and for explanations alike.
pub fn weigh(
    (user, mailbox): (&User, Option<&Mailbox>),
    rules: &RuleBook,
    moment: Moment,
    devices: &mut Vec<DeviceView>,
    selection: &mut Selection,
) {
    let now_s = u32::try_from(moment.wall.as_secs()).unwrap_or(u32::MAX);
    let preference = rules.preference(user.ruling);
    let mut queue = QueueView::default();
    devices.clear();
    for (index, device) in user.devices.iter().enumerate().take(CANDIDATES_MAX) {
        let fits = mailbox.is_some_and(|mailbox| {
            let next = match preference {
                None => mailbox.next_pending(device.key, 0, now_s),
                Some(preference) => {
                    let limit = preference.limit_of(device.key);
                    mailbox.next_fitting(device.key, 0, now_s, limit)
                }
            };
            next.is_some()
        });
        queue.fitting |= u32::from(fits) << index;
        devices.push(DeviceView::of(device));
    }
    let live = mailbox.map_or(0, Mailbox::len);
    queue.live = u32::try_from(live).unwrap_or(u32::MAX);
    let view = UserView::of(user, preference, moment.wall);
    let policy = rules.policy(user.ruling);
    selection::evaluate(&view, devices, &queue, policy, moment, selection);
}

/// Which rules of the book are `user`'s, by any of the identities that it is known under.
#[cold]
#[must_use]
pub fn ruling_of(rules: &RuleBook, user: &User) -> Ruling {
    if rules.is_uniform() {
        return rules.look_up(core::iter::empty());
    }
    let mut names = vec![user.canonical.clone()];
    let written = core::iter::once(&user.identity[..]).chain(user.registered_identities());
    for identity in written {
        let mut name = Vec::new();
        if uri::canonical_identity(identity, &mut name).is_ok() && !names.contains(&name) {
            names.push(name);
        }
    }
    rules.look_up(names.iter().map(Vec::as_slice))
}

/// A user's parts, with the context of the turn.
#[derive(Debug)]
pub struct Parts<'a, 'b> {
    /// The user.
    pub user: &'a mut User,
    /// The shard's state of the user.
    pub state: &'a mut UserState,
    /// The turn.
    pub ctx: &'a mut Ctx<'b>,
}

/// Whether the sender of a message that expired is told (IMDN-4, IMDN-7). One that a device has was
/// not lost, whatever other devices missed.
fn owes_notice(entry: &Entry) -> bool {
    let flags = entry.flags();
    let ending = if entry.is_delivered() {
        Ending::Delivered
    } else {
        Ending::Expired
    };
    let requested = Requested {
        negative_delivery: flags.contains(DepositFlags::IMDN_NEGATIVE),
        ..Requested::default()
    };
    let is_notice = flags.contains(DepositFlags::IS_IMDN);
    imdn::notice_due(requested, ending, is_notice, false).is_some()
}

fn seconds(ctx: &Ctx<'_>) -> u32 {
    u32::try_from(ctx.wall.as_secs()).unwrap_or(u32::MAX)
}

fn evidence(by: crate::msrp::session::Evidence) -> Evidence {
    match by {
        crate::msrp::session::Evidence::HopAck => Evidence::HopAck,
        crate::msrp::session::Evidence::Imdn => Evidence::Imdn,
        crate::msrp::session::Evidence::Report => Evidence::Report,
    }
}

/// The class of section 4 for any end of a push.
#[must_use]
pub fn class_of(outcome: Outcome) -> Class {
    let backoff = Class::Backoff {
        pace: registry::outcome::Pace::Exponential,
        at_least: None,
        no_match: false,
    };
    match outcome {
        Outcome::Drained | Outcome::Cap => Class::Session,
        Outcome::Status {
            status,
            retry_after_s,
        } => {
            let facts = Facts {
                alternate_tried: true,
                min_se_exhausted: true,
                ..Facts::default()
            };
            classify(status, retry_after_s, facts)
        }
        // An answer that cannot be used: the next binding may bring a better one.
        Outcome::Sdp(_) | Outcome::NoContact => Class::Quarantine { alarm: false },
        // Nothing was sent: neither success nor fault of the device.
        Outcome::NoHop => Class::Cancelled,
        Outcome::NoAnswer
        | Outcome::MsrpConnect
        | Outcome::MsrpBind
        | Outcome::MsrpTimeout
        | Outcome::MsrpLost
        | Outcome::MsrpStatus(_)
        | Outcome::PeerBye
        | Outcome::Refresh => backoff,
    }
}

fn apply_hop(ctx: &mut Ctx<'_>, push: &Push, class: Class) {
    let Class::NextHop(trouble) = class else {
        return;
    };
    if let (registry::outcome::HopTrouble::Unavailable { hold: Some(hold) }, Some(hop)) =
        (trouble, push.used_hop)
    {
        ctx.hops.avoid(hop, ctx.now + hold);
    }
}

/// Prepares and starts a push: its addresses, and the identifiers of its first message. Waits in
/// `Loading` while that message's record is not in memory.
pub fn launch(push: &mut Push, parts: &mut Parts<'_, '_>) -> Option<Outcome> {
    let now_s = seconds(parts.ctx);
    let user = push.user();
    let first = parts
        .ctx
        .post
        .mailbox_ref(user.slot)
        .and_then(|mailbox| mailbox.next_fitting(push.device, 0, now_s, push.takes))
        .map(|entry| (entry.number(), entry.location(), entry.hints()));
    let Some((number, location, hints)) = first else {
        push.state = PushState::Ending;
        return Some(Outcome::Drained);
    };
    let Some(payload) = parts.ctx.post.cache.lookup(number) else {
        push.state = PushState::Loading;
        push.guard = guard_after(parts.ctx.now, LOAD_MAX);
        push.waiting_for = Some(number);
        let location = location.expect("pending messages are durable");
        parts.ctx.probe.store_loads_total += 1;
        parts.ctx.post.load(number, location, push.key());
        return None;
    };
    let Ok(Record::Deposit(deposit)) = record::decode(payload) else {
        push.state = PushState::Ending;
        return Some(Outcome::Drained);
    };
    push.waiting_for = None;
    let device = parts.user.device(push.device)?;
    let Some(target) = parts.user.target_for(push.device, deposit.identity) else {
        push.state = PushState::Ending;
        return Some(Outcome::Drained);
    };
    let user = &parts.user;
    let ids = (deposit.conversation_id, deposit.contribution_id);
    push.careful = device.losses.is_some();
    push.no_require = device.no_require;
    push.urgent = deposit.flags.contains(DepositFlags::PRIORITY);
    if deposit.flags.contains(DepositFlags::RARE_FIELDS) {
        push.target.repeat(deposit.related_icid, deposit.lines);
    }
    let dialect = parts.ctx.env.dialect(push);
    if dialect.referred_by || dialect.from_sender {
        name_sender(push, dialect, deposit.sender);
    }
    push.conversation = (dialect.grouping == Grouping::Conversation).then_some(hints);
    push.target.write(ids, deposit.identity, target.uri, |out| {
        if target.rule.needs_instance() {
            user.write_accept_contact(device, out);
        }
    });
    signalling::start(push, parts.ctx)
}

/// Who sent the first message stands in the INVITE, where the dialect wants it; for a sender who cannot
/// be written there, and in From only, the service.
fn name_sender(push: &mut Push, dialect: &Dialect, sender: &[u8]) {
    let fit = !sender.is_empty()
        && sender.len() <= limits::URI_BYTES_MAX
        && sender
            .iter()
            .all(|&c| c.is_ascii_graphic() && !matches!(c, b'<' | b'>' | b'"'));
    let named = if fit { sender } else { &dialect.pf_uri };
    push.target
        .name_sender(named, fit && dialect.referred_by, dialect.from_sender);
}

/// Over how long requests that were held back are spread.
const HELD_SPREAD: Duration = Duration::from_millis(500);

/// Longest wait for a record that is read back.
const LOAD_MAX: Duration = Duration::from_secs(10);

/// Moves a bound session forward: starts what is pending, sends what fits, lingers or ends when
/// nothing is left.
pub fn pump(
    push: &mut Push,
    campaigns: &mut Campaigns,
    parts: &mut Parts<'_, '_>,
) -> Option<Outcome> {
    if push.state != PushState::Delivering || push.is_paused() {
        return None;
    }
    let (user, device) = (push.user(), push.device);
    loop {
        if let Some(missing) = delivery::flow(push, parts.ctx) {
            return wait_for(push, parts, missing);
        }
        let inflight_max = if push.careful { 1 } else { INFLIGHT_MAX };
        if !push.session.can_start() || push.inflight.len() >= inflight_max {
            return None;
        }
        let limit = match parts.ctx.env.dialect(push).grouping {
            Grouping::User | Grouping::Conversation => parts.ctx.env.options.max_messages,
            Grouping::Message => 1,
        };
        let now_s = seconds(parts.ctx);
        let next = (push.messages_sent < limit)
            .then(|| {
                let mailbox = parts.ctx.post.mailbox_ref(user.slot)?;
                next_number(push, mailbox, now_s)
            })
            .flatten();
        let Some(number) = next else {
            return drained(push, parts, limit);
        };
        match delivery::judge(push, parts.ctx, number) {
            Fit::Load => {
                let missing = Missing {
                    key: number,
                    part: None,
                };
                return wait_for(push, parts, missing);
            }
            Fit::Send { .. } if delivery::is_named(push, number) => return None,
            Fit::Send { .. } if !is_of_conversation(push, parts.ctx, number) => {
                push.looked_at(number);
            }
            Fit::Send { total, in_parts } => {
                push.guard = Timestamp::NEVER;
                push.looked_at(number);
                foresee_next(push, parts.ctx, now_s);
                delivery::begin(push, number, total, in_parts);
            }
            // Not in this session and not for this device: the others may still take it.
            Fit::TooLarge => {
                push.looked_at(number);
                let progress = Progress::Refused {
                    number,
                    reason: MessageReason::TooLarge,
                };
                campaigns.record(parts, user, device, progress);
            }
            Fit::Type => {
                push.looked_at(number);
                let progress = Progress::Refused {
                    number,
                    reason: MessageReason::Type,
                };
                campaigns.record(parts, user, device, progress);
            }
        }
    }
}

/// Asks for the record of the message behind the one that is being begun.
fn foresee_next(push: &Push, ctx: &Ctx<'_>, now_s: u32) {
    let next = ctx
        .post
        .mailbox_ref(push.user().slot)
        .and_then(|mailbox| mailbox.next_fitting(push.device, push.last_number, now_s, push.takes));
    if let Some(entry) = next {
        ctx.post.cache.foresee(entry.number());
    }
}

/// The next message of the session: in order of intake, notices after all others (LIFE-4, AMB-19).
fn next_number(push: &Push, mailbox: &Mailbox, now_s: u32) -> Option<u64> {
    let after = |number| {
        let mut number = number;
        loop {
            let next = mailbox.next_fitting(push.device, number, now_s, push.takes)?;
            let other = push
                .conversation
                .is_some_and(|hints| !hints.may_share_conversation(next.hints()));
            if !other {
                return Some(next.number());
            }
            number = next.number();
        }
    };
    match after(push.last_number) {
        Some(number) if number >= NOTICE_NUMBERS => after(push.last_notice),
        next => next,
    }
}

fn has_more(push: &Push, ctx: &Ctx<'_>) -> bool {
    let mailbox = ctx.post.mailbox_ref(push.user().slot);
    mailbox.is_some_and(|mailbox| {
        mailbox
            .next_fitting(push.device, 0, seconds(ctx), push.takes)
            .is_some()
    })
}

/// Whether a session of one conversation may carry message `number`, whose record is in memory.
fn is_of_conversation(push: &Push, ctx: &Ctx<'_>, number: u64) -> bool {
    if push.conversation.is_none() {
        return true;
    }
    let Some(Ok(Record::Deposit(deposit))) = ctx.post.cache.lookup(number).map(record::decode)
    else {
        return true;
    };
    deposit.conversation_id == push.target.conversation_id()
}

fn wait_for(push: &mut Push, parts: &mut Parts<'_, '_>, missing: Missing) -> Option<Outcome> {
    let number = missing.key;
    if push.waiting_for == Some(number) {
        return None;
    }
    let location = missing.part.or_else(|| {
        let mailbox = parts.ctx.post.mailbox_ref(push.user().slot)?;
        mailbox.lookup(number)?.location()
    });
    let Some(location) = location.filter(|_| missing.part.is_some() || !push.lacks_parts(number))
    else {
        // Gone meanwhile (expired): the session forgets it.
        push.session.abandon(delivery::handle_of(number));
        push.inflight.retain(|&other| other != number);
        return None;
    };
    push.waiting_for = Some(number);
    parts.ctx.probe.store_loads_total += 1;
    parts.ctx.post.load(number, location, push.key());
    None
}

/// Nothing more to send: stay for late reports, then linger for new messages, then BYE (DLV-5).
fn drained(push: &mut Push, parts: &mut Parts<'_, '_>, limit: u32) -> Option<Outcome> {
    if !push.inflight.is_empty() || !push.session.is_idle() {
        return None;
    }
    let ours = |link| {
        let state = parts.ctx.out.lookup(link);
        state.is_some_and(|state| state.kind == LinkKind::MsrpOutbound)
    };
    if push.messages_sent == 0 && !push.bound_by_us && push.msrp_link.is_some_and(ours) {
        push.bound_by_us = true;
        delivery::send_bind(push, parts.ctx);
    }
    if push.messages_sent >= limit {
        signalling::bye_drained(push, parts.ctx);
        return Some(Outcome::Cap);
    }
    if push.conversation.is_some() && has_more(push, parts.ctx) {
        // Of another conversation, whose session it holds up.
        signalling::bye_drained(push, parts.ctx);
        return Some(Outcome::Cap);
    }
    let linger = parts.ctx.env.options.linger;
    if linger.is_zero() {
        signalling::bye_drained(push, parts.ctx);
        return Some(Outcome::Drained);
    }
    if push.guard.is_never() {
        push.guard = guard_after(parts.ctx.now, linger);
    }
    None
}
