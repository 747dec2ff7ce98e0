//! What a user's pushes have in common: which clients get one, what each is to deliver, and what
//! follows from how it went (layer 3).
//!
//! One decision per user and change, further changes within `coalesce` of it make one more
//! (SEL-2). A decision looks at the registration, the queue and each device's past, and starts one
//! push per selected client, none waiting for another (PUSH-0b).

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::limits;
use crate::base::pool::Pool;
use crate::base::slab::Key;
use crate::base::surface::LinkKind;
use crate::base::time::Timestamp;
use crate::push::delivery::{self, Fit, Missing, Progress};
use crate::push::dialect::Dialect;
use crate::push::hops::Offer;
use crate::push::lines::{Asking, Lines};
use crate::push::notices::Notices;
use crate::push::options::Grouping;
use crate::push::reason::MessageReason;
use crate::push::signalling;
use crate::push::user::UserState;
use crate::push::{Ctx, INFLIGHT_MAX, Outcome, Push, PushState, guard_after};
use crate::reginfo::document::Document;
use crate::reginfo::familiar::Documents;
use crate::registry::features::KnownLists;
use crate::registry::{OutcomeOptions, RegistryOptions, User};
use crate::selection::rules::{RuleBook, Ruling};
use crate::selection::{
    self, CANDIDATES_MAX, DeviceView, Moment, Policy, QueueView, Selection, UserView, Verdict,
};
use crate::sip::uri;
use crate::store::index::{Goal, MAILBOX_DEVICES_MAX, Mailbox};
use crate::store::op::{DepositFlags, NOTICE_NUMBERS};
use crate::store::record::{self, Record};

mod ends;
mod turns;

pub use ends::class_of;

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
    /// When a hop's rate has room for the next of them.
    throttled_at: Timestamp,
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
            throttled_at: Timestamp::NEVER,
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
            push.stage_from = parts.state.triggered_at;
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
            // Each push is counted once, when its user comes to stand in line.
            if waited != Some(parts.state.set) && parts.ctx.hops.is_rated(now, parts.state.set) {
                let verdicts = self.selection.verdicts().iter();
                let held = verdicts.filter(|&&verdict| verdict == Verdict::Throttled);
                parts.ctx.probe.pushes_throttled_total += held.count() as u64;
            }
            self.throttle(key, parts.state, waited);
        } else {
            parts.state.triggered_at = Timestamp::NEVER;
        }
    }

    fn evaluate(&mut self, parts: &mut Parts<'_, '_>, key: Key) {
        self.rule(parts.user);
        let ctx = &parts.ctx;
        let moment = Moment {
            now: ctx.now,
            wall: ctx.wall,
            tokens: self.invite_room(parts, key).min(ctx.post.load_room()),
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

    /// INVITEs that may leave for a user now. What a hop asks for does not count where all are urgent (OVL-11).
    #[inline]
    fn invite_room(&self, parts: &Parts<'_, '_>, key: Key) -> u32 {
        let room = |offer| {
            let ctx = &parts.ctx;
            ctx.hops
                .invite_room(ctx.out, ctx.now, parts.state.set, offer)
        };
        match room(Offer::Invite) {
            0 if room(Offer::Priority) > 0 && self.is_urgent(parts, key) => room(Offer::Priority),
            room => room,
        }
    }

    /// Whether each device of the user with something to get is to get something urgent first.
    #[cold]
    fn is_urgent(&self, parts: &Parts<'_, '_>, key: Key) -> bool {
        let Some(mailbox) = parts.ctx.post.mailbox_ref(key.slot) else {
            return false;
        };
        let now_s = seconds(parts.ctx);
        let first = |key| {
            let limit = self.rules.limit_of(parts.user.ruling, key);
            mailbox.next_fitting(key, 0, now_s, limit)
        };
        let devices = parts.user.devices.iter();
        let mut firsts = devices.filter_map(|device| first(device.key));
        firsts.all(|entry| entry.flags().contains(DepositFlags::PRIORITY))
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
}

/// Users looked at in one turn after the rules changed.
const REVIEWED_PER_TURN: u32 = 4096;
/// Pushes that a decision may lead to, as far as their memory is asked for ahead.
const PUSHES_FORESEEN: usize = 4;

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
    if let Some(mailbox) = mailbox
        && mailbox.device_count() + devices.len() > MAILBOX_DEVICES_MAX
    {
        seat(mailbox, devices, &mut queue);
    }
    let view = UserView::of(user, preference, moment.wall);
    let policy = rules.policy(user.ruling);
    selection::evaluate(&view, devices, &queue, policy, moment, selection);
}

/// The mailbox may not be able to tell all devices apart: says which of them have no slot of their own yet,
/// and for how many of them there is one beside those being pushed to.
#[cold]
fn seat(mailbox: &Mailbox, devices: &[DeviceView], queue: &mut QueueView) {
    for (index, device) in devices.iter().enumerate() {
        queue.unplaced |= u32::from(!mailbox.names(device.key)) << index;
    }
    let busy = devices.iter().filter(|device| device.pushing).count();
    let places = mailbox.places().saturating_sub(busy);
    queue.places = u32::try_from(places).unwrap_or(u32::MAX);
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

fn seconds(ctx: &Ctx<'_>) -> u32 {
    u32::try_from(ctx.wall.as_secs()).unwrap_or(u32::MAX)
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
                delivery::begin(push, parts.ctx.now, number, (total, in_parts));
            }
            // As with a record that cannot be read back: this device does without until the next start.
            Fit::Unreadable => {
                push.looked_at(number);
                parts.ctx.post.mailbox(user.slot).put_off(number, device);
                parts.ctx.probe.store_put_off_total += 1;
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
        push.inflight.retain(|other| other.number != number);
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

#[cfg(test)]
mod tests;
