//! The subscriber's side of one reg-event subscription (RFC 6665, RFC 3680; SUB-1..10). Layer 2.
//!
//! Owner: a user. Decides when to send which SUBSCRIBE and what a NOTIFY's end means; the dialog
//! (route set, tags, our CSeq) and the bytes belong to the caller.
//!
//! ```text
//! Idle --wanted/registered--> Pending --NOTIFY--> Active --terminated, expiry--> Pending | Waiting | Dormant
//! Pending --480, 403--> Dormant --third-party REGISTER--> Pending
//! Pending --failure, no NOTIFY in 64*T1--> Waiting --time--> Pending
//! Pending --no room for its SUBSCRIBE--> Idle
//! Active --unsubscribe--> Ending --NOTIFY terminated or 64*T1--> Idle
//! ```
//! Armed timers follow from the state: Pending and Ending wait for `timer_n`, Active for `refresh_at`,
//! `expires_at` and, after a refresh, `timer_n`; Waiting and a probing Dormant for `wake_at`.

use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::time::Timestamp;
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::client_non_invite::{
    ClientNonInvite, ClientNonInviteState, NonInviteAction,
};

/// Durations and the asked life. Ranges are checked where configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Take over the contacts that a third-party REGISTER brings along, and do not subscribe then
    /// (ISC-3).
    pub trust_register_body: bool,
    /// `Expires` of each SUBSCRIBE, seconds. Default 600000.
    pub expires_s: u32,
    /// Timer N: 64*T1. Default 32 s.
    pub timer_n: Duration,
    /// First wait after a failure. Default 30 s.
    pub backoff_min: Duration,
    /// Longest wait after failures. Default 3600 s.
    pub backoff_max: Duration,
    /// The late probe after an unexplained end (SUB-7). Default 30 s.
    pub probe_after: Duration,
    /// Timers of the SUBSCRIBE transaction.
    pub transaction: TransactionOptions,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            trust_register_body: false,
            expires_s: 600_000,
            timer_n: Duration::from_secs(32),
            backoff_min: Duration::from_secs(30),
            backoff_max: Duration::from_secs(3600),
            probe_after: Duration::from_secs(30),
            transaction: TransactionOptions::default(),
        }
    }
}

/// What every step needs.
#[derive(Debug)]
pub struct SubscribeContext<'a> {
    /// The present moment.
    pub now: Timestamp,
    /// Spreads refreshes and retries.
    pub jitter: &'a mut Jitter,
    /// Options.
    pub options: &'a SubscribeOptions,
}

/// Which SUBSCRIBE to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscribeKind {
    /// Outside a dialog, with the Call-ID of the new [`Subscription::sequence`]. Whatever dialog
    /// there was is over, and the next document sets the version.
    Initial,
    /// In the dialog; asks for full state.
    Refresh,
    /// In the dialog, with `Expires: 0`.
    Unsubscribe,
}

/// Why a subscription is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// 403: the notifier does not trust us. Tell an operator.
    NotAuthorised,
    /// The user has no binding, or the notifier says no.
    NotRegistered,
    /// Refused, failed or silent; tried again later.
    Failed,
    /// We asked for it.
    Unsubscribed,
}

/// What the caller must do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub enum Action {
    /// Nothing.
    #[default]
    None,
    /// Send this SUBSCRIBE with [`Subscription::asked_expires_s`].
    Subscribe(SubscribeKind),
    /// Send the last SUBSCRIBE again, octet for octet.
    Retransmit,
    /// Forget the dialog; the machine goes on by itself.
    Ended(Ended),
}

/// Plain values of a response to a SUBSCRIBE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeResponse {
    /// The status; a local time-out or transport failure counts as 408.
    pub status: u16,
    /// `Expires`, seconds.
    pub expires_s: Option<u32>,
    /// `Min-Expires`, seconds.
    pub min_expires_s: Option<u32>,
    /// `Retry-After`, seconds.
    pub retry_after_s: Option<u32>,
}

/// `Subscription-State` without its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotifyState {
    /// In force.
    Active,
    /// Known to the notifier, not yet granted.
    Pending,
    /// Over.
    Terminated,
}

/// `reason` of a terminated `Subscription-State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TerminationReason {
    /// Subscribe again at once, perhaps elsewhere.
    Deactivated,
    /// Permission is lacking; later.
    Giveup,
    /// The state will not change any more.
    Invariant,
    /// The resource is gone.
    NoResource,
    /// Later.
    Probation,
    /// Permission was withdrawn.
    Rejected,
    /// It was not refreshed in time.
    Timeout,
    /// None given, or one we do not know.
    Unstated,
}

impl TerminationReason {
    /// The reason named `text`, ignoring case.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        const NAMES: [(&[u8], TerminationReason); 7] = [
            (b"deactivated", TerminationReason::Deactivated),
            (b"giveup", TerminationReason::Giveup),
            (b"invariant", TerminationReason::Invariant),
            (b"noresource", TerminationReason::NoResource),
            (b"probation", TerminationReason::Probation),
            (b"rejected", TerminationReason::Rejected),
            (b"timeout", TerminationReason::Timeout),
        ];
        NAMES
            .iter()
            .find(|(name, _)| text.eq_ignore_ascii_case(name))
            .map_or(Self::Unstated, |&(_, reason)| reason)
    }
}

/// What the NOTIFY's body brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyBody {
    /// None; some notifiers begin with one.
    Empty,
    /// A document was taken (or discarded as old).
    Applied {
        /// Documents are missing.
        needs_refresh: bool,
        /// At least one device is active.
        registered: bool,
    },
    /// Refused: unfit document or type. Answered 400 or 415.
    Refused,
}

/// The decisive values of an accepted NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// `Subscription-State`.
    pub state: NotifyState,
    /// Its `expires`, seconds. Ignored when terminated.
    pub expires_s: Option<u32>,
    /// Its `reason`.
    pub reason: TerminationReason,
    /// Its `retry-after`, seconds.
    pub retry_after_s: Option<u32>,
    /// Its body.
    pub body: NotifyBody,
}

/// States of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SubscriptionState {
    /// A NOTIFY came; the dialog exists.
    Active,
    /// Over until a third-party REGISTER tells of the user, or one late probe.
    Dormant,
    /// We unsubscribe.
    Ending,
    /// Never wanted, or no longer.
    #[default]
    Idle,
    /// SUBSCRIBE sent, no NOTIFY yet.
    Pending,
    /// Failed; tried again at a set time.
    Waiting,
}

/// One subscription; see the module.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    state: SubscriptionState,
    sequence: u16,
    failures: u8,
    faults: u8,
    interval_retries: u8,
    firm: bool,
    refreshing: bool,
    refresh_again: bool,
    asked_s: u32,
    granted_s: Option<u32>,
    remote_cseq: Option<u32>,
    remote_tag: Option<u64>,
    started_at: Timestamp,
    timer_n: Timestamp,
    refresh_at: Timestamp,
    expires_at: Timestamp,
    wake_at: Timestamp,
    transaction: Option<ClientNonInvite>,
}

/// Raised intervals accepted in a row (423).
const INTERVAL_RETRIES_MAX: u8 = 3;
/// Longest life we ask for, whatever Min-Expires says: about four months.
const EXPIRES_MAX_S: u32 = 10_000_000;
/// A refresh leaves this much of a long life unused (SUB-5).
const REFRESH_MARGIN_S: u32 = 600;
/// A subscription that ended sooner than this is not renewed at once again.
const RESTART_SPACING: Duration = Duration::from_secs(5);
/// Longest Retry-After or retry-after honoured.
const RETRY_AFTER_MAX_S: u32 = 24 * 3600;

impl Default for Subscription {
    fn default() -> Self {
        Self {
            state: SubscriptionState::Idle,
            sequence: 0,
            failures: 0,
            faults: 0,
            interval_retries: 0,
            firm: false,
            refreshing: false,
            refresh_again: false,
            asked_s: 0,
            granted_s: None,
            remote_cseq: None,
            remote_tag: None,
            started_at: Timestamp::ZERO,
            timer_n: Timestamp::NEVER,
            refresh_at: Timestamp::NEVER,
            expires_at: Timestamp::NEVER,
            wake_at: Timestamp::NEVER,
            transaction: None,
        }
    }
}

impl SubscriptionState {
    /// A word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Dormant => "dormant",
            Self::Ending => "ending",
            Self::Idle => "idle",
            Self::Pending => "pending",
            Self::Waiting => "waiting",
        }
    }
}

impl Subscription {
    /// Back to `Idle`. The sequence goes on, so that the next Call-ID is new.
    pub fn reset(&mut self) {
        *self = Self {
            sequence: self.sequence,
            ..Self::default()
        };
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> SubscriptionState {
        self.state
    }

    /// Counts the initial SUBSCRIBEs; part of the Call-ID, so that a late NOTIFY of an earlier
    /// dialog does not match.
    #[must_use]
    pub const fn sequence(&self) -> u16 {
        self.sequence
    }

    /// When what the notifier granted ends; `NEVER` while there is nothing.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// `Expires` of the SUBSCRIBE to send; zero while ending.
    #[must_use]
    pub fn asked_expires_s(&self) -> u32 {
        if self.state == SubscriptionState::Ending {
            0
        } else {
            self.asked_s
        }
    }

    /// When [`Subscription::handle_timeout`] has work.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        let resend_at = self
            .transaction
            .map_or(Timestamp::NEVER, |machine| machine.deadline());
        self.timer_n
            .min(self.refresh_at)
            .min(self.expires_at)
            .min(self.wake_at)
            .min(resend_at)
    }

    /// Mail arrived or policy wants a subscription. Nothing while one exists, is retried later, or
    /// the user is known to be away (SUB-2: only a third-party REGISTER changes that).
    pub fn wanted(&mut self, context: &mut SubscribeContext<'_>) -> Action {
        match self.state {
            SubscriptionState::Idle => self.start(context),
            SubscriptionState::Active
            | SubscriptionState::Dormant
            | SubscriptionState::Ending
            | SubscriptionState::Pending
            | SubscriptionState::Waiting => Action::None,
        }
    }

    /// A third-party REGISTER came for the user, and a subscription is wanted (ISC-4). Cuts a wait
    /// short unless the notifier asked for it.
    pub fn registered(&mut self, context: &mut SubscribeContext<'_>) -> Action {
        match self.state {
            SubscriptionState::Waiting if self.firm => Action::None,
            SubscriptionState::Idle | SubscriptionState::Dormant | SubscriptionState::Waiting => {
                self.start(context)
            }
            SubscriptionState::Active | SubscriptionState::Ending | SubscriptionState::Pending => {
                Action::None
            }
        }
    }

    /// The first SUBSCRIBE could not leave, and its owner asks again when it can: as if it had not been
    /// wanted yet. Failures before it still count.
    pub fn postpone(&mut self) {
        if self.state == SubscriptionState::Pending {
            self.disarm();
            self.state = SubscriptionState::Idle;
        }
    }

    /// A hop asks for less, and the first SUBSCRIBE is what it does not get: it is offered again at `until`
    /// (RFC 7339 section 5.3). No failure.
    pub fn hold_back(&mut self, until: Timestamp) {
        if self.state == SubscriptionState::Pending {
            self.disarm();
            self.state = SubscriptionState::Waiting;
            self.firm = true;
            self.wake_at = until;
        }
    }

    /// Asks for full state now (a 404 to a push, an operator).
    pub fn refresh(&mut self, context: &mut SubscribeContext<'_>) -> Action {
        if self.state != SubscriptionState::Active {
            return Action::None;
        }
        if self.refreshing {
            self.refresh_again = true;
            return Action::None;
        }
        self.send_refresh(context)
    }

    /// Ends the subscription on purpose.
    pub fn unsubscribe(&mut self, context: &mut SubscribeContext<'_>) -> Action {
        match self.state {
            SubscriptionState::Active => {
                self.disarm();
                self.state = SubscriptionState::Ending;
                self.send(context, SubscribeKind::Unsubscribe)
            }
            SubscriptionState::Pending => {
                self.reset();
                Action::Ended(Ended::Unsubscribed)
            }
            SubscriptionState::Dormant | SubscriptionState::Waiting => {
                self.reset();
                Action::None
            }
            SubscriptionState::Ending | SubscriptionState::Idle => Action::None,
        }
    }

    /// A response to the SUBSCRIBE last sent, matched by its branch. Repeats change nothing.
    pub fn handle_response(
        &mut self,
        context: &mut SubscribeContext<'_>,
        response: SubscribeResponse,
    ) -> Action {
        let Some(machine) = &mut self.transaction else {
            return Action::None;
        };
        let step = machine.handle_response(context.now, response.status);
        self.forget_finished();
        match step {
            NonInviteAction::Final(_) => self.handle_final(context, response),
            NonInviteAction::Nothing
            | NonInviteAction::Provisional(_)
            | NonInviteAction::Retransmit
            | NonInviteAction::Terminated
            | NonInviteAction::TimedOut
            | NonInviteAction::TransportFailed => Action::None,
        }
    }

    /// Whether the first SUBSCRIBE of a dialog has no final response and may be sent to another hop.
    #[must_use]
    pub fn may_move(&self) -> bool {
        let waits = |machine: &ClientNonInvite| machine.is_unanswered();
        self.state == SubscriptionState::Pending && self.transaction.as_ref().is_some_and(waits)
    }

    /// The same when nobody answered it in time.
    #[must_use]
    pub fn is_timing_out(&self, now: Timestamp) -> bool {
        let times_out = |machine: &ClientNonInvite| machine.is_timing_out(now);
        self.state == SubscriptionState::Pending && self.transaction.as_ref().is_some_and(times_out)
    }

    /// The same SUBSCRIBE goes to another hop as a new transaction (NH-3). Only while [`Subscription::may_move`].
    pub fn moved(&mut self, context: &SubscribeContext<'_>) {
        debug_assert!(self.may_move(), "a SUBSCRIBE waits for its answer");
        let _sent = self.send(context, SubscribeKind::Initial);
    }

    /// The SUBSCRIBE could not be sent: acts as a 503 without Retry-After.
    pub fn handle_transport_error(&mut self, context: &mut SubscribeContext<'_>) -> Action {
        let Some(machine) = &mut self.transaction else {
            return Action::None;
        };
        if machine.handle_transport_error() != NonInviteAction::TransportFailed {
            return Action::None;
        }
        self.forget_finished();
        self.handle_final(
            context,
            SubscribeResponse {
                status: 503,
                ..Default::default()
            },
        )
    }

    fn handle_final(
        &mut self,
        context: &mut SubscribeContext<'_>,
        response: SubscribeResponse,
    ) -> Action {
        let outstanding = self.state == SubscriptionState::Pending || self.refreshing;
        match (response.status, self.state) {
            (0..=199, _) | (_, SubscriptionState::Ending) => Action::None,
            (200..=299, SubscriptionState::Pending) => {
                self.granted_s = response.expires_s;
                Action::None
            }
            (200..=299, SubscriptionState::Active) => {
                self.granted_s = response.expires_s;
                if let Some(granted) = response.expires_s {
                    self.schedule(context, granted);
                }
                Action::None
            }
            (_, _) if !outstanding => Action::None,
            (423, _) => self.raise_interval(context, response),
            (_, SubscriptionState::Active) => self.refresh_failed(context, response),
            (403, _) => self.sleep(Timestamp::NEVER, Ended::NotAuthorised),
            (404 | 480 | 604, _) => self.sleep(Timestamp::NEVER, Ended::NotRegistered),
            (_, _) => self.fail(context, response.retry_after_s),
        }
    }

    /// Whether a NOTIFY is ours, in order, and of the right kind; its CSeq and tag are kept if so.
    ///
    /// The caller has matched Call-ID and our tag, and answers `state_present == false` with 400.
    ///
    /// # Errors
    /// The status to answer with: 481, 500, 489 or 400 (SUB-4, SUB-8, SUB-10).
    pub fn admit_notify(&mut self, head: NotifyHead<'_>) -> Result<(), u16> {
        let tag = hash(head.from_tag);
        match self.state {
            SubscriptionState::Idle | SubscriptionState::Dormant | SubscriptionState::Waiting => {
                return Err(481);
            }
            SubscriptionState::Active | SubscriptionState::Ending | SubscriptionState::Pending => {}
        }
        if self.remote_tag.is_some_and(|known| known != tag) {
            return Err(481);
        }
        if self.remote_cseq.is_some_and(|last| head.cseq <= last) {
            return Err(500);
        }
        if !head.event_is_reg {
            return Err(489);
        }
        if !head.state_present {
            return Err(400);
        }
        self.remote_tag = Some(tag);
        self.remote_cseq = Some(head.cseq);
        Ok(())
    }

    /// An admitted NOTIFY, after its body was looked at.
    pub fn handle_notify(&mut self, context: &mut SubscribeContext<'_>, notify: Notify) -> Action {
        match (notify.state, self.state) {
            (_, SubscriptionState::Idle | SubscriptionState::Dormant)
            | (_, SubscriptionState::Waiting) => Action::None,
            (NotifyState::Terminated, SubscriptionState::Ending) => {
                self.reset();
                Action::Ended(Ended::Unsubscribed)
            }
            (NotifyState::Active | NotifyState::Pending, SubscriptionState::Ending) => Action::None,
            (NotifyState::Terminated, SubscriptionState::Active | SubscriptionState::Pending) => {
                self.terminated(context, notify)
            }
            (
                NotifyState::Active | NotifyState::Pending,
                SubscriptionState::Active | SubscriptionState::Pending,
            ) => self.in_force(context, notify),
        }
    }

    /// Timers due at `context.now`. Call until [`Subscription::deadline`] lies ahead.
    pub fn handle_timeout(&mut self, context: &mut SubscribeContext<'_>) -> Action {
        let now = context.now;
        if let Some(machine) = &mut self.transaction
            && machine.deadline() <= now
        {
            let step = machine.handle_timeout(now);
            self.forget_finished();
            return match step {
                NonInviteAction::Retransmit => Action::Retransmit,
                NonInviteAction::TimedOut => {
                    let response = SubscribeResponse {
                        status: 408,
                        ..Default::default()
                    };
                    self.handle_final(context, response)
                }
                NonInviteAction::Nothing
                | NonInviteAction::Provisional(_)
                | NonInviteAction::Final(_)
                | NonInviteAction::Terminated
                | NonInviteAction::TransportFailed => Action::None,
            };
        }
        if self.timer_n <= now {
            if self.state == SubscriptionState::Ending {
                self.reset();
                return Action::Ended(Ended::Unsubscribed);
            }
            // No NOTIFY within 64*T1: failed, whatever the response said (RFC 6665 section 4.1.2.4).
            return self.fail(context, None);
        }
        if self.expires_at <= now {
            return self.restart(context);
        }
        if self.refresh_at <= now {
            return self.send_refresh(context);
        }
        if self.wake_at <= now {
            return self.start(context);
        }
        Action::None
    }

    fn disarm(&mut self) {
        self.timer_n = Timestamp::NEVER;
        self.refresh_at = Timestamp::NEVER;
        self.expires_at = Timestamp::NEVER;
        self.wake_at = Timestamp::NEVER;
        self.refreshing = false;
        self.refresh_again = false;
        self.transaction = None;
    }

    fn send(&mut self, context: &SubscribeContext<'_>, kind: SubscribeKind) -> Action {
        let options = context.options;
        self.timer_n = context.now + options.timer_n;
        self.transaction = Some(ClientNonInvite::start(context.now, &options.transaction));
        Action::Subscribe(kind)
    }

    fn forget_finished(&mut self) {
        let finished =
            |machine: &ClientNonInvite| machine.state() == ClientNonInviteState::Terminated;
        if self.transaction.as_ref().is_some_and(finished) {
            self.transaction = None;
        }
    }

    fn start(&mut self, context: &SubscribeContext<'_>) -> Action {
        self.disarm();
        self.state = SubscriptionState::Pending;
        self.sequence = self.sequence.wrapping_add(1);
        self.firm = false;
        self.faults = 0;
        self.interval_retries = 0;
        self.asked_s = context.options.expires_s;
        self.granted_s = None;
        self.remote_cseq = None;
        self.remote_tag = None;
        self.started_at = context.now;
        self.send(context, SubscribeKind::Initial)
    }

    /// A new dialog at once, unless the last one was begun just now.
    fn restart(&mut self, context: &mut SubscribeContext<'_>) -> Action {
        if context.now.since(self.started_at) < RESTART_SPACING {
            return self.fail(context, None);
        }
        self.start(context)
    }

    fn send_refresh(&mut self, context: &SubscribeContext<'_>) -> Action {
        self.refreshing = true;
        self.refresh_again = false;
        self.interval_retries = 0;
        self.refresh_at = Timestamp::NEVER;
        self.send(context, SubscribeKind::Refresh)
    }

    fn fail(&mut self, context: &mut SubscribeContext<'_>, retry_after_s: Option<u32>) -> Action {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff(context, self.failures);
        self.wait(context.now, wait, retry_after_s)
    }

    fn wait(&mut self, now: Timestamp, wait: Duration, retry_after_s: Option<u32>) -> Action {
        self.disarm();
        let floor = retry_after_s.map_or(Duration::ZERO, capped_seconds);
        self.state = SubscriptionState::Waiting;
        self.firm = retry_after_s.is_some();
        self.wake_at = now + wait.max(floor);
        Action::Ended(Ended::Failed)
    }

    fn sleep(&mut self, probe_at: Timestamp, why: Ended) -> Action {
        self.disarm();
        self.failures = 0;
        self.state = SubscriptionState::Dormant;
        self.wake_at = probe_at;
        Action::Ended(why)
    }

    fn raise_interval(
        &mut self,
        context: &mut SubscribeContext<'_>,
        response: SubscribeResponse,
    ) -> Action {
        let usable = response
            .min_expires_s
            .filter(|&min| min > self.asked_s && min <= EXPIRES_MAX_S);
        let (Some(min), true) = (usable, self.interval_retries < INTERVAL_RETRIES_MAX) else {
            return match self.state {
                SubscriptionState::Active => self.refresh_failed(context, response),
                SubscriptionState::Dormant
                | SubscriptionState::Ending
                | SubscriptionState::Idle
                | SubscriptionState::Pending
                | SubscriptionState::Waiting => self.fail(context, response.retry_after_s),
            };
        };
        self.interval_retries += 1;
        self.asked_s = min;
        let kind = match self.state {
            SubscriptionState::Active => SubscribeKind::Refresh,
            SubscriptionState::Dormant
            | SubscriptionState::Ending
            | SubscriptionState::Idle
            | SubscriptionState::Pending
            | SubscriptionState::Waiting => SubscribeKind::Initial,
        };
        self.send(context, kind)
    }

    /// A refresh was refused: some codes end the subscription, others leave it to its expiry.
    fn refresh_failed(
        &mut self,
        context: &mut SubscribeContext<'_>,
        response: SubscribeResponse,
    ) -> Action {
        match response.status {
            481 => self.restart(context),
            404 | 405 | 410 | 416 | 480..=485 | 489 | 501 | 604 => {
                self.fail(context, response.retry_after_s)
            }
            _ => {
                self.refreshing = false;
                self.timer_n = Timestamp::NEVER;
                self.failures = self.failures.saturating_add(1);
                let floor = response
                    .retry_after_s
                    .map_or(Duration::ZERO, capped_seconds);
                self.refresh_at = context.now + backoff(context, self.failures).max(floor);
                Action::None
            }
        }
    }

    fn in_force(&mut self, context: &mut SubscribeContext<'_>, notify: Notify) -> Action {
        self.state = SubscriptionState::Active;
        self.timer_n = Timestamp::NEVER;
        self.refreshing = false;
        self.failures = 0;
        let asked = self.asked_s;
        let granted = self.granted_s.unwrap_or(asked);
        self.schedule(
            context,
            notify.expires_s.map_or(granted, |s| s.min(granted)),
        );
        let again = core::mem::take(&mut self.refresh_again);
        match notify.body {
            NotifyBody::Applied {
                needs_refresh: false,
                ..
            } => self.faults = 0,
            NotifyBody::Empty => {}
            NotifyBody::Applied {
                needs_refresh: true,
                ..
            } => {
                self.faults = self.faults.saturating_add(1);
                if self.faults == 1 {
                    return self.send_refresh(context);
                }
                self.refresh_later(context);
            }
            NotifyBody::Refused => {
                self.faults = self.faults.saturating_add(1);
                self.refresh_later(context);
            }
        }
        if again {
            self.send_refresh(context)
        } else {
            Action::None
        }
    }

    /// A notifier that keeps sending what we cannot use is asked ever more rarely.
    fn refresh_later(&mut self, context: &mut SubscribeContext<'_>) {
        let at = context.now + backoff(context, self.faults);
        self.refresh_at = self.refresh_at.min(at);
    }

    fn terminated(&mut self, context: &mut SubscribeContext<'_>, notify: Notify) -> Action {
        let registered = matches!(
            notify.body,
            NotifyBody::Applied {
                registered: true,
                ..
            }
        );
        match notify.reason {
            TerminationReason::Deactivated | TerminationReason::Timeout => self.restart(context),
            TerminationReason::Probation | TerminationReason::Giveup => {
                if notify.retry_after_s.is_none() {
                    return self.fail(context, None);
                }
                self.wait(context.now, Duration::ZERO, notify.retry_after_s)
            }
            TerminationReason::Rejected
            | TerminationReason::NoResource
            | TerminationReason::Invariant => self.sleep(Timestamp::NEVER, Ended::NotRegistered),
            TerminationReason::Unstated if registered => self.restart(context),
            // A re-registration may have raced the end: look once more, late (SUB-7).
            TerminationReason::Unstated => self.sleep(
                context.now + context.options.probe_after,
                Ended::NotRegistered,
            ),
        }
    }

    /// Life of `seconds` from now: refresh at the later of half and all but ten minutes (SUB-5).
    fn schedule(&mut self, context: &mut SubscribeContext<'_>, seconds: u32) {
        let seconds = seconds.clamp(1, EXPIRES_MAX_S);
        let after = (seconds / 2).max(seconds.saturating_sub(REFRESH_MARGIN_S));
        let after = Duration::from_secs(u64::from(after)).max(Duration::from_millis(500));
        let play = (after / 20).min(Duration::from_secs(u64::from(REFRESH_MARGIN_S) / 2));
        self.expires_at = context.now + Duration::from_secs(u64::from(seconds));
        if !self.refreshing {
            self.refresh_at = context.now + context.jitter.duration(after - play, after);
        }
    }
}

/// What identifies a NOTIFY within its subscription.
#[derive(Clone, Copy, Debug)]
pub struct NotifyHead<'a> {
    /// The notifier's tag.
    pub from_tag: &'a [u8],
    /// CSeq number.
    pub cseq: u32,
    /// `Event` is `reg`.
    pub event_is_reg: bool,
    /// `Subscription-State` is present and legal.
    pub state_present: bool,
}

fn backoff(context: &mut SubscribeContext<'_>, failures: u8) -> Duration {
    let options = context.options;
    let doublings = u32::from(failures.saturating_sub(1)).min(20);
    let wait = options
        .backoff_min
        .saturating_mul(1 << doublings)
        .min(options.backoff_max);
    let fifth = wait / 5;
    context.jitter.duration(wait - fifth, wait + fifth)
}

fn capped_seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds.min(RETRY_AFTER_MAX_S)))
}

fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

impl Subscription {
    /// No request of ours waits for its answer.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.transaction.is_none()
    }
}

crate::fold_fields!(Subscription {
    state, sequence, failures, faults, interval_retries, firm, refreshing, refresh_again, asked_s,
    granted_s, remote_cseq, remote_tag, started_at, timer_n, refresh_at, expires_at, wake_at,
} but { transaction = None });
crate::fold_variants!(SubscriptionState {
    Active,
    Dormant,
    Ending,
    Idle,
    Pending,
    Waiting
});

#[cfg(test)]
mod tests;
