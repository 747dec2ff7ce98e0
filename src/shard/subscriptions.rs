//! Registration: third-party REGISTER, SUBSCRIBE to the registration state, NOTIFY (REQUIREMENTS
//! section 9.1).

use core::time::Duration;
use std::io::Write as _;

use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::base::token::{TokenKind, TokenParts};
use crate::push::hops::{Offer, Way};
use crate::push::user::{Ask, UserState};
use crate::reginfo::subscription::{
    Action, Ended, Notify, NotifyBody, NotifyHead, NotifyState, SubscribeContext, SubscribeKind,
    SubscribeResponse, Subscription, SubscriptionState, TerminationReason,
};
use crate::registry::User;
use crate::shard::Shard;
use crate::shard::frames::Origin;
use crate::shard::requests::Reply;
use crate::sip::header::Parameterized;
use crate::sip::message::{HeaderName, Message};
use crate::sip::template::SubscribeFields;
use crate::sip::uri;

/// Dialogs of one user that identifiers tell apart; they come one after the other.
const DIALOGS: u16 = 128;
/// Users asked about in one turn out of the line of those who wait; the rest follow in the next.
const ASKS_PER_TURN: usize = 256;
/// How long a NOTIFY may take after a third-party REGISTER of a subscribed user with mail. It may be lost
/// with its connection, and its sender then forgets the subscription (RFC 6665 section 4.2.2); an S-CSCF
/// that was restarted has forgotten all of them, and would send none until ours are refreshed in a week.
const NOTIFY_WAIT: Duration = Duration::from_secs(5);
/// Shortest wait before full state is asked for in place of a NOTIFY that was not read.
const POSTPONED: Duration = Duration::from_secs(1);

impl Shard {
    /// Third-party REGISTER: something changed for this user (ISC-1). What, a NOTIFY will tell.
    pub(super) fn handle_register(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
    ) {
        let Ok(to) = message.to() else {
            return self.reply(now, origin, message, &Reply::plain(400));
        };
        let third_party = message.from().is_ok_and(|from| from.uri != to.uri);
        if !third_party {
            let extra = crate::shard::requests::ALLOW_WITHOUT_REGISTER;
            return self.reply(now, origin, message, &Reply { status: 405, extra });
        }
        let Some(user) = self.served_user(to.uri) else {
            return self.reply(now, origin, message, &Reply::plain(404));
        };
        if self.is_barred(user) {
            self.reply(now, origin, message, &Reply::plain(403));
            return self.rearm_user(user);
        }
        self.probe.registers_total += 1;
        let expires = message.expires().and_then(Result::ok).unwrap_or(0);
        let contact = message.header(HeaderName::Contact).unwrap_or_default();
        let mut extra = core::mem::take(&mut self.desk.lines);
        extra.clear();
        if !contact.is_empty() {
            extra.extend_from_slice(b"Contact: ");
            extra.extend_from_slice(contact);
            write!(extra, ";expires={expires}\r\n").expect("writing to memory");
        }
        extra.extend_from_slice(&self.env.server_line);
        self.reply(
            now,
            origin,
            message,
            &Reply {
                status: 200,
                extra: &extra,
            },
        );
        self.desk.lines = extra;
        let entry = self.registry.entry_mut(user).expect("found above");
        if entry.user.identity.is_empty() {
            entry.user.identity.extend_from_slice(to.uri);
        }
        if let Some(network) = message.header(HeaderName::PVisitedNetworkId) {
            entry.user.saw_network(!self.options.is_home(network));
        }
        let knows = expires > 0
            && self.options.subscribe.trust_register_body
            && self.take_registered(now, user, message);
        let entry = self.registry.entry_mut(user).expect("found above");
        let has_mail = self
            .post
            .mailbox_ref(user.slot)
            .is_some_and(|mailbox| !mailbox.is_empty());
        if let Some(set) = self.hops.set_named_by(message) {
            entry.extra.set = set;
        }
        let wanted = expires > 0 && !knows && (has_mail || self.options.subscribe_always);
        if wanted {
            // It may cross the 480 to a SUBSCRIBE sent before: that answer is out of date then.
            let state = entry.user.subscription.state();
            entry.extra.subscribe.registered_meanwhile = state == SubscriptionState::Pending;
            if state == SubscriptionState::Active {
                entry.extra.doubt_at = now + NOTIFY_WAIT;
            }
            self.ask_about(now, user, Ask::Registered);
        }
        self.rearm_user(user);
    }

    /// Mail for a user of whom nothing is known: ask the registrar (ISC-4).
    pub(super) fn want_subscription(&mut self, now: Timestamp, user: Key) {
        self.ask_about(now, user, Ask::Wanted);
    }

    /// Asks the registrar about `user` if that leads to a new subscription: at once, or when those who
    /// have waited longer had their turn.
    fn ask_about(&mut self, now: Timestamp, user: Key, why: Ask) {
        let Some(entry) = self.registry.entry_mut(user) else {
            return;
        };
        let asks = match entry.user.subscription.state() {
            SubscriptionState::Idle => true,
            SubscriptionState::Dormant | SubscriptionState::Waiting => why == Ask::Registered,
            SubscriptionState::Active | SubscriptionState::Ending | SubscriptionState::Pending => {
                false
            }
        };
        if !asks {
            return;
        }
        let set = entry.extra.set;
        if self.campaigns.may_ask(now, set) && self.hops.is_up(&self.out, now, set) {
            self.ask_now(now, user, why);
        } else {
            self.probe.subscribes_delayed_total += 1;
            self.campaigns.ask_later(now, user, &mut entry.extra, why);
        }
    }

    fn ask_now(&mut self, now: Timestamp, user: Key, why: Ask) {
        match why {
            Ask::No => {}
            Ask::Wanted => self.subscription_step(now, user, Subscription::wanted),
            Ask::Registered => self.subscription_step(now, user, Subscription::registered),
        }
    }

    /// Users in line whose turn it is are asked about.
    pub(super) fn run_asks(&mut self, now: Timestamp) {
        if self.starts_nothing() {
            return;
        }
        for _ in 0..ASKS_PER_TURN {
            let (hops, out) = (&self.hops, &self.out);
            let is_up = |set| hops.is_up(out, now, set);
            let Some((line, user)) = self.campaigns.poll_ask(now, is_up) else {
                self.look_again(now);
                break;
            };
            let Some(entry) = self.registry.entry_mut(user) else {
                continue;
            };
            let state = &mut entry.extra;
            state.ask_places.leave(line);
            if state.ask == Ask::No || state.ask_line != line {
                continue;
            }
            let why = core::mem::take(&mut state.ask);
            if state.set == line {
                self.ask_now(now, user, why);
            } else {
                // Another S-CSCF serves it by now.
                self.ask_about(now, user, why);
            }
            self.rearm_user(user);
        }
    }

    /// The registrar named the user, and no NOTIFY said what changed: asks.
    pub(super) fn settle_doubt(&mut self, now: Timestamp, user: Key) {
        let Some(entry) = self.registry.entry_mut(user) else {
            return;
        };
        if entry.extra.doubt_at > now {
            return;
        }
        entry.extra.doubt_at = Timestamp::NEVER;
        self.refresh_subscription(now, user);
    }

    /// A client is not where the registrar said: asks for full state (RSP-7).
    pub(super) fn refresh_subscription(&mut self, now: Timestamp, user: Key) {
        self.subscription_step(now, user, Subscription::refresh);
    }

    /// Lets the user's subscription take a step, and does what it asks for.
    fn subscription_step(
        &mut self,
        now: Timestamp,
        user: Key,
        step: impl FnOnce(&mut Subscription, &mut SubscribeContext<'_>) -> Action,
    ) {
        let Some(entry) = self.registry.entry_mut(user) else {
            return;
        };
        let mut context = SubscribeContext {
            now,
            jitter: &mut self.desk.jitter,
            options: &self.options.subscribe,
        };
        let subscription = &mut entry.user.subscription;
        let before = subscription.state() == SubscriptionState::Pending;
        let action = step(subscription, &mut context);
        let after = subscription.state() == SubscriptionState::Pending;
        if !after {
            entry.extra.subscribe.tried_hops = 0;
        }
        if before != after {
            self.campaigns.asked(now, &mut entry.extra, after);
        }
        self.subscription_action(now, user, action);
    }

    fn subscription_action(&mut self, now: Timestamp, user: Key, action: Action) {
        match action {
            Action::None => {}
            Action::Subscribe(kind) => self.send_subscribe(now, user, kind),
            Action::Retransmit => {
                self.probe.retransmissions_total += 1;
                self.transmit_subscribe(user);
            }
            Action::Ended(ended) => {
                let Some(entry) = self.registry.entry_mut(user) else {
                    return;
                };
                entry.extra.subscribe.dialog.reset();
                if ended == Ended::NotAuthorised {
                    self.probe.notifies_rejected_total += 1;
                }
            }
        }
    }

    fn send_subscribe(&mut self, now: Timestamp, user: Key, kind: SubscribeKind) {
        let Some(entry) = self.registry.entry_mut(user) else {
            return;
        };
        let state = &mut entry.extra.subscribe;
        if kind == SubscribeKind::Initial {
            entry.user.registration.restart();
            state.dialog.reset();
            state.requests = 0;
        }
        let set = entry.extra.set;
        let state = &mut entry.extra.subscribe;
        let followed = if state.dialog.is_established() {
            self.hops.way(now, state.dialog.next_hop_uri())
        } else {
            Way::Own
        };
        // A refresh has time: it goes by the user's own hops while the way of its Route is unknown.
        let routed = match followed {
            Way::Hop(hop) => self.hops.destination(hop),
            Way::Own | Way::Waiting | Way::Refused => None,
        };
        let picked = match routed {
            Some(trunk) => Some((0, trunk)),
            None => {
                // In a dialog it is not for a hop to leave out (OVL-3).
                let offer = match state.dialog.is_established() {
                    true => Offer::Owed,
                    false => Offer::New,
                };
                let picked = self.hops.pick(&self.out, now, set, offer);
                picked.map(|(hop, trunk)| (self.hops.bit(hop), trunk))
            }
        };
        let Some((tried_hops, trunk)) = picked else {
            if kind == SubscribeKind::Initial {
                if !self.hops.is_up(&self.out, now, set) {
                    return self.stand_in_line(now, user);
                }
                if let Some(until) = self.hops.held_until(now, set, &mut self.desk.jitter) {
                    return self.hold_back(now, user, until);
                }
            }
            // Counts as a failure of the transport; the machine tries again later.
            self.subscription_step(now, user, |subscription, context| {
                let _waits = subscription.handle_transport_error(context);
                Action::None
            });
            return;
        };
        state.trunk = Some(trunk);
        state.requests = (state.requests + 1) % 128;
        state.cseq = state.dialog.next_cseq();
        state.in_dialog = state.dialog.is_established();
        // In a dialog the Route says where to, not the list.
        state.tried_hops = if state.in_dialog { 0 } else { tried_hops };
        self.probe.subscribes_sent_total += 1;
        self.transmit_subscribe(user);
    }

    /// The hop failed, not the registrar: the same first SUBSCRIBE once more by the next hop of the list, as a
    /// new transaction with the same Call-ID, tag and CSeq (NH-3). False when no other hop is up.
    fn subscribe_elsewhere(&mut self, now: Timestamp, user: Key) -> bool {
        let Some(entry) = self.registry.entry_mut(user) else {
            return false;
        };
        let (subscription, state) = (&mut entry.user.subscription, &mut entry.extra.subscribe);
        if state.in_dialog || !subscription.may_move() {
            return false;
        }
        let untried = (Offer::New, state.tried_hops);
        let picked = self
            .hops
            .pick_untried(&self.out, now, entry.extra.set, untried);
        let Some((hop, trunk)) = picked else {
            return false;
        };
        state.trunk = Some(trunk);
        state.tried_hops |= self.hops.bit(hop);
        state.requests = (state.requests + 1) % 128;
        let context = SubscribeContext {
            now,
            jitter: &mut self.desk.jitter,
            options: &self.options.subscribe,
        };
        subscription.moved(&context);
        self.probe.subscribes_sent_total += 1;
        self.transmit_subscribe(user);
        true
    }

    /// No hop has room for a first SUBSCRIBE: it leaves when one has, in the order of those who wait.
    fn stand_in_line(&mut self, now: Timestamp, user: Key) {
        self.subscription_step(now, user, |subscription, _| {
            subscription.postpone();
            Action::None
        });
        if let Some(entry) = self.registry.entry_mut(user) {
            self.probe.subscribes_delayed_total += 1;
            self.campaigns
                .ask_later(now, user, &mut entry.extra, Ask::Registered);
        }
    }

    /// What the hops ask for holds a first SUBSCRIBE back: it is offered again at `until`, as a push is (OVL-4).
    fn hold_back(&mut self, now: Timestamp, user: Key, until: Timestamp) {
        self.probe.subscribes_delayed_total += 1;
        self.subscription_step(now, user, |subscription, _| {
            subscription.hold_back(until);
            Action::None
        });
    }

    fn transmit_subscribe(&mut self, key: Key) {
        let Some(entry) = self.registry.entry_mut(key) else {
            return;
        };
        let (user, state) = (&entry.user, &entry.extra.subscribe);
        let Some(trunk) = state.trunk else { return };
        let sequence = user.subscription.sequence() % DIALOGS;
        let branch = self.env.token(
            TokenKind::SubscribeBranch,
            key,
            sequence << 7 | state.requests,
        );
        let tag = self.env.token(TokenKind::SubscribeTag, key, sequence);
        let call_id = self.env.token(TokenKind::SubscribeCallId, key, sequence);
        let icid = self
            .env
            .token(TokenKind::SubscribeChargingId, key, sequence);
        let in_dialog = state.in_dialog;
        let mut to_value = core::mem::take(&mut self.desk.lines);
        to_value.clear();
        if !in_dialog {
            to_value.push(b'<');
            to_value.extend_from_slice(&user.identity);
            to_value.push(b'>');
        }
        let fields = SubscribeFields {
            request_uri: if in_dialog {
                state.dialog.request_uri()
            } else {
                &user.identity
            },
            branch: branch.as_bytes(),
            route_lines: in_dialog.then(|| state.dialog.route_lines()),
            from_tag: tag.as_bytes(),
            to_value: if in_dialog {
                state.dialog.to_value()
            } else {
                &to_value
            },
            call_id: call_id.as_bytes(),
            cseq: state.cseq,
            expires_s: user.subscription.asked_expires_s(),
            icid: icid.as_bytes(),
        };
        let templates = self.env.templates_of(entry.extra.set);
        self.out
            .send(trunk, |out| templates.subscribe(&fields, out));
        self.desk.lines = to_value;
    }

    pub(super) fn subscribe_response(
        &mut self,
        now: Timestamp,
        message: &Message<'_>,
        parts: TokenParts,
    ) {
        let Some(entry) = self.registry.entry_mut(parts.key) else {
            self.probe.responses_stray_total += 1;
            return;
        };
        let state = &mut entry.extra.subscribe;
        let current = (entry.user.subscription.sequence() % DIALOGS) << 7 | state.requests;
        let ours = message
            .cseq()
            .is_ok_and(|cseq| cseq.method_bytes == b"SUBSCRIBE" && cseq.number == state.cseq);
        if !ours || parts.sequence != current {
            self.probe.responses_stray_total += 1;
            return;
        }
        let response = SubscribeResponse {
            status: message.status(),
            expires_s: message.expires().and_then(Result::ok),
            min_expires_s: message.min_expires(),
            retry_after_s: message.retry_after(),
        };
        let user = parts.key;
        if matches!(response.status, 502..=504) && self.subscribe_elsewhere(now, user) {
            return self.rearm_user(user);
        }
        let mut absent = false;
        self.subscription_step(now, user, |subscription, context| {
            let action = subscription.handle_response(context, response);
            absent = action == Action::Ended(Ended::NotRegistered);
            action
        });
        if absent
            && let Some(entry) = self.registry.entry_mut(user)
            && core::mem::take(&mut entry.extra.subscribe.registered_meanwhile)
        {
            self.ask_about(now, user, Ask::Registered);
        }
        self.rearm_user(user);
    }

    /// Timers of the user's subscription and of its transaction.
    pub(super) fn subscription_timer(&mut self, now: Timestamp, user: Key) {
        // Each step moves the machine on; the bound only guards against our own error.
        for _ in 0..4 {
            let Some(entry) = self.registry.entry_mut(user) else {
                return;
            };
            if entry.user.subscription.deadline() > now {
                return;
            }
            if entry.user.subscription.is_timing_out(now) && self.subscribe_elsewhere(now, user) {
                return;
            }
            self.subscription_step(now, user, Subscription::handle_timeout);
        }
    }

    pub(super) fn handle_notify(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        dialog: Option<TokenParts>,
    ) {
        match self.take_notify(now, origin, message, dialog) {
            Ok(()) => self.probe.notifies_total += 1,
            Err((status, extra)) => {
                self.probe.notifies_rejected_total += 1;
                self.reply(now, origin, message, &Reply { status, extra });
            }
        }
        if let Some(parts) = dialog {
            self.rearm_user(parts.key);
        }
    }

    fn take_notify(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        dialog: Option<TokenParts>,
    ) -> Result<(), (u16, &'static [u8])> {
        let parts = dialog.filter(|parts| parts.kind == TokenKind::SubscribeTag);
        let parts = parts.ok_or((481, &b""[..]))?;
        let entry = self.registry.entry_mut(parts.key).ok_or((481, &b""[..]))?;
        let env = &self.env;
        let is_ours = |call_id: &[u8]| {
            let ours = env.token(TokenKind::SubscribeCallId, parts.key, parts.sequence);
            call_id.starts_with(ours.as_bytes())
        };
        if parts.sequence != entry.user.subscription.sequence() % DIALOGS
            || !entry
                .extra
                .subscribe
                .dialog
                .admits(message.call_id(), is_ours)
        {
            return Err((481, b""));
        }
        let state_value = message
            .header(HeaderName::SubscriptionState)
            .unwrap_or_default();
        let active = active_for(state_value);
        let state = Parameterized::parse(if active.is_some() { b"" } else { state_value });
        let parsed = match state.value {
            _ if active.is_some() => Some(NotifyState::Active),
            value if value.eq_ignore_ascii_case(b"active") => Some(NotifyState::Active),
            value if value.eq_ignore_ascii_case(b"pending") => Some(NotifyState::Pending),
            value if value.eq_ignore_ascii_case(b"terminated") => Some(NotifyState::Terminated),
            _ => None,
        };
        let event = message.header(HeaderName::Event).unwrap_or_default();
        let head = NotifyHead {
            from_tag: message.from_tag().unwrap_or_default(),
            cseq: message.cseq().map_or(0, |cseq| cseq.number),
            event_is_reg: event == b"reg"
                || Parameterized::parse(event)
                    .value
                    .eq_ignore_ascii_case(b"reg"),
            state_present: parsed.is_some(),
        };
        entry
            .user
            .subscription
            .admit_notify(head)
            .map_err(|status| (status, &b""[..]))?;
        let state_now = parsed.expect("admitted only when present");
        let mut notify = Notify {
            state: state_now,
            expires_s: active.or_else(|| number_of(&state, b"expires")),
            reason: TerminationReason::Unstated,
            retry_after_s: None,
            body: NotifyBody::Empty,
        };
        if state_now == NotifyState::Terminated {
            notify.reason = TerminationReason::parse(state.params.find(b"reason").unwrap_or(b""));
            notify.retry_after_s = number_of(&state, b"retry-after");
        }
        self.apply_notify(now, origin, message, parts.key, notify)
    }

    fn apply_notify(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        key: Key,
        mut notify: Notify,
    ) -> Result<(), (u16, &'static [u8])> {
        let mut refused = None;
        let mut decide = false;
        let entry = self.registry.entry_mut(key).expect("looked up before");
        // The dialog comes with the first NOTIFY; later ones may move its target (SUB-4).
        if entry.extra.subscribe.dialog.establish(message) {
            // After a restart no REGISTER has said which S-CSCF it is.
            let named = self.hops.set_of(entry.extra.subscribe.dialog.request_uri());
            entry.extra.set = named.unwrap_or(entry.extra.set);
        }
        if !message.body().is_empty() && self.postpones(now) {
            self.postpone(now, key);
        } else if !message.body().is_empty() {
            match self.read_document(message) {
                Ok(()) => {
                    let campaigns = &mut self.campaigns;
                    let entry = self.registry.entry_mut(key).expect("looked up before");
                    let applied = entry.user.apply(
                        now,
                        &campaigns.document,
                        &campaigns.options.registry,
                        &mut campaigns.lists,
                    );
                    entry.extra.doubt_at = Timestamp::NEVER;
                    decide = applied.changed || applied.new_or_rebound_devices > 0;
                    notify.body = NotifyBody::Applied {
                        needs_refresh: applied.needs_refresh,
                        registered: applied.active_devices > 0,
                    };
                }
                Err(reply) => {
                    self.probe.reginfo_rejected_total += 1;
                    notify.body = NotifyBody::Refused;
                    refused = Some(reply);
                }
            }
        }
        if decide {
            self.learn_aliases(key);
        }
        // Answered before any decision, store read or INVITE (SUB-8).
        if refused.is_none() {
            self.reply(now, origin, message, &Reply::plain(200));
        }
        self.subscription_step(now, key, |subscription, context| {
            subscription.handle_notify(context, notify)
        });
        if decide {
            let entry = self.registry.entry_mut(key).expect("looked up before");
            self.campaigns.changed(now, key, &mut entry.extra);
        }
        refused.map_or(Ok(()), Err)
    }

    /// Whether this turn has read as many documents as it may. A NOTIFY is never refused for want of
    /// time: the refusals there are would end the subscription (SUB-9).
    fn postpones(&mut self, now: Timestamp) -> bool {
        let (turn, read) = &mut self.desk.documents;
        if *turn != now {
            (*turn, *read) = (now, 0);
        }
        *read += 1;
        *read > self.campaigns.options.registry.documents_per_turn
    }

    /// Plans to ask for full state, at the pace of subscriptions after a restart.
    fn postpone(&mut self, now: Timestamp, key: Key) {
        self.probe.notifies_postponed_total += 1;
        let pace = Duration::from_secs(1) / self.options.subscribe_pace_per_s.max(1);
        let at = self.desk.dirty_at.max(now + POSTPONED);
        let entry = self.registry.entry_mut(key).expect("looked up before");
        // The versions missed are no gap to ask about a second time.
        entry.user.registration.restart();
        let state = &mut entry.extra;
        if !state.dirty {
            state.dirty = true;
            state.subscribe_at = state.subscribe_at.min(at);
            self.desk.dirty_at = at + pace;
        }
    }

    /// The other identities of the implicit set lead to the same mailbox (INT-11).
    fn learn_aliases(&mut self, key: Key) {
        let mut name = core::mem::take(&mut self.desk.identity);
        let mut from = 0;
        while let Some((place, aor)) = self
            .registry
            .user_mut(key)
            .and_then(|user| user.next_unlearned(from))
        {
            name.clear();
            let ours = uri::canonical_identity(aor, &mut name).is_ok()
                && self.options.serves(aor, &name)
                && self.options.owner(&name) == self.env.shard;
            // An identity that leads elsewhere, or one too many, stays as it is, and is tried again
            // at the next change.
            if !ours || self.registry.alias(key, &name) {
                if let Some(user) = self.registry.user_mut(key) {
                    user.learned(place);
                }
            } else {
                self.registry.contest(key, &name);
            }
            from = place + 1;
        }
        self.desk.identity = name;
    }

    fn read_document(&mut self, message: &Message<'_>) -> Result<(), (u16, &'static [u8])> {
        if message
            .header(HeaderName::ContentEncoding)
            .is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"))
        {
            return Err((415, b"Accept-Encoding: identity\r\n"));
        }
        let content_type = message.header(HeaderName::ContentType).unwrap_or_default();
        let is_reginfo = |value: &[u8]| value.eq_ignore_ascii_case(b"application/reginfo+xml");
        if !(is_reginfo(content_type) || is_reginfo(Parameterized::parse(content_type).value)) {
            return Err((415, b"Accept: application/reginfo+xml\r\n"));
        }
        let campaigns = &mut self.campaigns;
        let read = campaigns
            .documents
            .read(message.body(), &mut campaigns.document);
        read.map_err(|_| (400, &b""[..]))
    }
}

/// The seconds of `active;expires=`, which is what a Subscription-State mostly is. `None` is anything
/// else, not a verdict.
fn active_for(value: &[u8]) -> Option<u32> {
    let digits = value.strip_prefix(b"active;expires=")?;
    if !(1..=9).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0, |sum, &byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u32::from(byte - b'0'))
    })
}

/// A parameter of a Subscription-State that is a number.
fn number_of(state: &Parameterized<'_>, name: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(state.params.find(name)?).ok()?;
    text.parse().ok()
}

/// `true` if nothing about the user is worth remembering. What it was sent lately is forgotten too: a
/// repeat of a message delivered before that is taken for a new one.
pub(super) fn is_forgettable(user: &User, state: &UserState) -> bool {
    state.pushes == 0
        && !state.queued
        && state.throttled.is_none()
        && state.ask == Ask::No
        && !user.is_registered()
        && user.subscription.deadline().is_never()
}
