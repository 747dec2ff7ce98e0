//! The session timer of one dialog (RFC 4028), and what a 422 before the dialog teaches. Layer 2.
//!
//! ```text
//! phase       armed             meaning
//! Off         -                 no timer agreed
//! Waiting     refresh, expiry   we refresh; the next one is scheduled
//! InFlight    expiry            our refresh is on its way
//! Exhausted   expiry            our refreshes failed; BYE when the expiry comes
//! Guarding    expiry            the peer refreshes; BYE when it does not
//! Kept        refresh           the peer knows no timer; we refresh for the proxies, nothing expires
//! KeptFlight  -                 the same, while the refresh's transaction runs (timer F ends it)
//! Ended       -                 the owner was told to send BYE
//! ```
//!
//! Times count from the 2xx: its receipt as a client, its sending as a server (RFC 4028 sections 7.2
//! and 9). Nothing here survives a restart.

use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::time::Timestamp;
use crate::sip::message::{Refresher, SessionExpires};

#[cfg(test)]
mod tests;

/// No session interval is shorter, seconds (RFC 4028 section 4).
pub const SESSION_INTERVAL_S_MIN: u32 = 90;
/// Most refreshes sent, or 422 answered, in a row without success.
pub const TRIES_MAX: u8 = 3;
/// Most 491 answered in a row; each waits 2.1 to 4 s.
pub const GLARES_MAX: u8 = 10;

/// Session-timer policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimerOptions {
    /// `Session-Expires` we ask for, seconds; `None` asks for no timer.
    pub ask_s: Option<u32>,
    /// Shortest interval we accept from a peer, seconds; at least 90.
    pub min_se_s: u32,
    /// Longest interval followed, and the largest `Min-SE` obeyed, seconds.
    pub cap_s: u32,
    /// Refresh although the peer knows no session timer.
    pub keep_when_unsupported: bool,
}

impl Default for SessionTimerOptions {
    fn default() -> Self {
        Self {
            ask_s: Some(1800),
            min_se_s: SESSION_INTERVAL_S_MIN,
            cap_s: 86_400,
            keep_when_unsupported: true,
        }
    }
}

impl SessionTimerOptions {
    /// `true` when 90 <= Min-SE <= asked <= cap (ST-1). Checked at start.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let ask = self.ask_s.unwrap_or(self.min_se_s);
        self.min_se_s >= SESSION_INTERVAL_S_MIN && self.min_se_s <= ask && ask <= self.cap_s
    }
}

/// What an INVITE carries before there is a dialog, and what a 422 to it changes (ST-2, ST-3).
///
/// Dropped when the dialog is established: its memory is not used for refreshes (ST-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialMinSe {
    /// `Session-Expires` of the INVITE, seconds.
    pub session_expires_s: Option<u32>,
    /// `Min-SE` of the INVITE, seconds: the largest seen for this Call-ID.
    pub min_se_s: Option<u32>,
    tries: u8,
}

/// What to do about a 422 to the initial INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialRetry {
    /// Send the INVITE again with the changed values: same Call-ID, From tag and To, next `CSeq`.
    Retry,
    /// No usable or no larger `Min-SE`, or too many retries: the push failed (R-422).
    GiveUp,
}

impl InitialMinSe {
    /// For the first INVITE of a Call-ID.
    #[must_use]
    pub const fn new(options: &SessionTimerOptions) -> Self {
        Self {
            session_expires_s: options.ask_s,
            min_se_s: None,
            tries: 0,
        }
    }

    /// A 422 came with this `Min-SE` (`None`: absent or not a number).
    pub fn handle_422(
        &mut self,
        min_se_s: Option<u32>,
        options: &SessionTimerOptions,
    ) -> InitialRetry {
        let Some(wanted) = min_se_s else {
            return InitialRetry::GiveUp;
        };
        let larger = wanted > self.min_se_s.unwrap_or(0);
        if !larger || wanted > options.cap_s || self.tries == TRIES_MAX {
            return InitialRetry::GiveUp;
        }
        self.tries += 1;
        let wanted = wanted.max(SESSION_INTERVAL_S_MIN);
        self.min_se_s = Some(wanted);
        self.session_expires_s = Some(self.session_expires_s.unwrap_or(0).max(wanted));
        InitialRetry::Retry
    }
}

/// How to refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshMethod {
    /// INVITE with the unchanged offer.
    Reinvite,
    /// UPDATE without a body.
    Update,
}

/// The session-timer fields of a refresh (ST-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Which request.
    pub method: RefreshMethod,
    /// `Session-Expires`, seconds.
    pub session_expires_s: u32,
    /// Its `refresher`: `Uac` while we refresh, `Uas` while the peer does.
    pub refresher: Refresher,
    /// `Min-SE`, seconds, when one was learnt inside the dialog.
    pub min_se_s: Option<u32>,
}

/// What the owner has to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAction {
    /// Nothing.
    Nothing,
    /// Send this refresh and report its outcome.
    Refresh(Refresh),
    /// Send BYE: the session is over.
    Expire,
}

/// What became of a refresh. A local timeout is status 408, a transport error 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshOutcome {
    /// Final status.
    pub status: u16,
    /// `Session-Expires` of a 2xx.
    pub answered: Option<SessionExpires>,
    /// `Min-SE` of a 422, seconds.
    pub min_se_s: Option<u32>,
    /// `Retry-After`, seconds.
    pub retry_after_s: Option<u32>,
}

/// The fields of a peer's UPDATE or re-INVITE that concern the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRefresh {
    /// `Session-Expires`, if present.
    pub session_expires: Option<SessionExpires>,
    /// `Min-SE`, seconds.
    pub min_se_s: Option<u32>,
    /// `Supported` lists `timer`.
    pub lists_timer: bool,
}

/// How to answer a peer's refresh (ST-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// A 2xx.
    Accept {
        /// `Session-Expires` with its refresher; `None`: no such header.
        session_expires: Option<(u32, Refresher)>,
        /// Add `Require: timer`.
        require_timer: bool,
    },
    /// A 422 with this `Min-SE`, seconds.
    TooSmall {
        /// Value of `Min-SE`.
        min_se_s: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Off,
    Waiting,
    InFlight,
    Exhausted,
    Guarding,
    Kept,
    KeptFlight,
    Ended,
}

/// The timer of one established dialog. Owner: a push, which arms `deadline()` in the wheel.
#[derive(Clone, Copy, Debug)]
pub struct SessionTimer {
    refresh_at: Timestamp,
    /// When BYE is due: before the expiry by the smaller of 32 s and a third (RFC 4028 section 10).
    bye_at: Timestamp,
    /// Agreed interval, seconds; what a refresh asks for again.
    interval_s: u32,
    /// Largest `Min-SE` learnt inside the dialog, seconds; 0 when none.
    min_se_s: u32,
    phase: Phase,
    /// Refreshes sent since the last success.
    tries: u8,
    /// 491 received since the last success.
    glares: u8,
    peer_updates: bool,
    update_refused: bool,
}

const _: () = assert!(size_of::<SessionTimer>() <= 48);

impl Default for SessionTimer {
    fn default() -> Self {
        Self {
            refresh_at: Timestamp::NEVER,
            bye_at: Timestamp::NEVER,
            interval_s: 0,
            min_se_s: 0,
            phase: Phase::Off,
            tries: 0,
            glares: 0,
            peer_updates: false,
            update_refused: false,
        }
    }
}

impl SessionTimer {
    /// The 2xx that establishes the dialog came (OK-1, OK-1a). `asked_s` is what the INVITE said,
    /// `peer_updates` whether the 2xx's `Allow` lists UPDATE. Forgets everything before.
    pub fn on_2xx(
        &mut self,
        now: Timestamp,
        asked_s: Option<u32>,
        answered: Option<SessionExpires>,
        peer_updates: bool,
        agreement: Agreement<'_>,
    ) {
        *self = Self {
            peer_updates,
            ..Self::default()
        };
        self.agree(now, asked_s, answered, agreement);
        self.check();
    }

    /// A later message of the peer carried `Allow`.
    pub fn set_peer_updates(&mut self, lists_update: bool) {
        self.peer_updates = lists_update;
    }

    /// When to call [`SessionTimer::handle_timeout`]; `NEVER` when nothing is armed.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.refresh_at.min(self.bye_at)
    }

    /// The agreed interval, seconds; `None` when no timer runs.
    #[must_use]
    pub fn interval_s(&self) -> Option<u32> {
        (self.interval_s > 0).then_some(self.interval_s)
    }

    /// The session-timer fields for an UPDATE or re-INVITE that we send for another reason; `None`
    /// when no timer runs.
    #[must_use]
    pub fn request_fields(&self) -> Option<(u32, Refresher, Option<u32>)> {
        let refresher = match self.phase {
            Phase::Off | Phase::Ended => return None,
            Phase::Guarding => Refresher::Uas,
            Phase::Waiting
            | Phase::InFlight
            | Phase::Exhausted
            | Phase::Kept
            | Phase::KeptFlight => Refresher::Uac,
        };
        let least = self.min_se_s.max(SESSION_INTERVAL_S_MIN);
        let min_se_s = (self.min_se_s > 0).then_some(self.min_se_s);
        Some((self.interval_s.max(least), refresher, min_se_s))
    }

    /// Does what is due at `now`; nothing before the deadline.
    pub fn handle_timeout(&mut self, now: Timestamp) -> SessionAction {
        let action = if self.bye_at <= now {
            self.end()
        } else if self.refresh_at <= now {
            self.send()
        } else {
            SessionAction::Nothing
        };
        self.check();
        action
    }

    /// Our refresh was answered finally or failed locally (ST-11, ST-12).
    pub fn refresh_outcome(
        &mut self,
        now: Timestamp,
        outcome: &RefreshOutcome,
        agreement: Agreement<'_>,
    ) -> SessionAction {
        if !matches!(self.phase, Phase::InFlight | Phase::KeptFlight) {
            return SessionAction::Nothing;
        }
        let action = match outcome.status {
            0..=199 => SessionAction::Nothing,
            200..=299 => {
                self.extend(now, outcome.answered, agreement);
                SessionAction::Nothing
            }
            408 | 481 => self.end(),
            405 | 501 if self.method() == RefreshMethod::Update => {
                self.update_refused = true;
                self.again_or_give_up(now)
            }
            422 if self.raise_min_se(outcome.min_se_s, agreement.options) => {
                self.again_or_give_up(now)
            }
            491 if self.glares < GLARES_MAX => {
                self.glares += 1;
                self.tries -= 1;
                self.schedule(now + glare_delay(agreement.dice));
                SessionAction::Nothing
            }
            422 => {
                self.give_up(now);
                SessionAction::Nothing
            }
            _ => {
                self.retry_later(now, outcome.retry_after_s);
                SessionAction::Nothing
            }
        };
        self.check();
        action
    }

    /// A peer's UPDATE or re-INVITE is about to be answered 2xx at `now` (ST-14): decides the
    /// timer's part of the answer and, unless that is a 422, starts over from `now`.
    pub fn handle_peer_refresh(
        &mut self,
        now: Timestamp,
        request: &PeerRefresh,
        agreement: Agreement<'_>,
    ) -> PeerAnswer {
        let policy = agreement.options.min_se_s.max(SESSION_INTERVAL_S_MIN);
        if let Some(asked) = request.session_expires
            && asked.interval_s < policy
            && request.lists_timer
        {
            return PeerAnswer::TooSmall { min_se_s: policy };
        }
        let answer = self.accept_peer(now, request, agreement);
        self.check();
        answer
    }

    fn accept_peer(
        &mut self,
        now: Timestamp,
        request: &PeerRefresh,
        agreement: Agreement<'_>,
    ) -> PeerAnswer {
        let cap = agreement.options.cap_s;
        if let Some(floor) = request.min_se_s {
            self.min_se_s = self.min_se_s.max(floor.min(cap));
        }
        let silent = PeerAnswer::Accept {
            session_expires: None,
            require_timer: false,
        };
        let asked = match request.session_expires {
            Some(asked) => asked,
            None if matches!(self.phase, Phase::Off | Phase::Ended) => return silent,
            // A peer without timers: its request proves it alive, but agrees to nothing.
            None if !request.lists_timer
                && matches!(self.phase, Phase::Kept | Phase::KeptFlight) =>
            {
                return silent;
            }
            None => SessionExpires {
                interval_s: self.interval_s,
                refresher: None,
            },
        };
        let floor = self.min_se_s.max(SESSION_INTERVAL_S_MIN);
        let interval_s = asked.interval_s.min(cap).max(floor);
        // RFC 4028 table 2. A peer without timers cannot refresh; a free choice keeps the roles.
        let refresher = match asked.refresher {
            _ if !request.lists_timer => Refresher::Uas,
            Some(refresher) => refresher,
            None if matches!(self.phase, Phase::Off | Phase::Guarding) => Refresher::Uac,
            None => Refresher::Uas,
        };
        self.arm(now, interval_s, refresher == Refresher::Uas, agreement.dice);
        PeerAnswer::Accept {
            session_expires: Some((interval_s, refresher)),
            require_timer: request.lists_timer,
        }
    }

    /// Takes over what a 2xx to our own request says.
    fn agree(
        &mut self,
        now: Timestamp,
        asked_s: Option<u32>,
        answered: Option<SessionExpires>,
        agreement: Agreement<'_>,
    ) {
        match (answered, asked_s) {
            (Some(answered), _) => {
                let most = asked_s.unwrap_or(agreement.options.cap_s);
                let interval_s = answered.interval_s.min(most).max(SESSION_INTERVAL_S_MIN);
                let ours = answered.refresher != Some(Refresher::Uas);
                self.arm(now, interval_s, ours, agreement.dice);
            }
            (None, Some(asked)) if agreement.options.keep_when_unsupported => {
                self.keep(now, asked, agreement.dice);
            }
            (None, _) => self.switch_off(),
        }
    }

    /// A 2xx to a refresh: only it moves the expiry; without the header it ends the timer.
    fn extend(
        &mut self,
        now: Timestamp,
        answered: Option<SessionExpires>,
        agreement: Agreement<'_>,
    ) {
        let asked = self.interval_s.max(self.min_se_s);
        match (answered, self.phase == Phase::KeptFlight) {
            (None, true) => self.keep(now, asked, agreement.dice),
            (None, false) => self.switch_off(),
            (Some(_), _) => self.agree(now, Some(asked), answered, agreement),
        }
    }

    fn arm(&mut self, now: Timestamp, interval_s: u32, ours: bool, dice: &mut Jitter) {
        let interval = Duration::from_secs(interval_s.into());
        self.interval_s = interval_s;
        self.bye_at = now + (interval - (interval / 3).min(Duration::from_secs(32)));
        self.tries = 0;
        self.glares = 0;
        if ours {
            self.phase = Phase::Waiting;
            self.refresh_at = now + half(interval, dice);
        } else {
            self.phase = Phase::Guarding;
            self.refresh_at = Timestamp::NEVER;
        }
    }

    fn keep(&mut self, now: Timestamp, interval_s: u32, dice: &mut Jitter) {
        self.arm(now, interval_s, true, dice);
        self.phase = Phase::Kept;
        self.bye_at = Timestamp::NEVER;
    }

    fn switch_off(&mut self) {
        self.phase = Phase::Off;
        self.interval_s = 0;
        self.refresh_at = Timestamp::NEVER;
        self.bye_at = Timestamp::NEVER;
    }

    fn end(&mut self) -> SessionAction {
        self.phase = Phase::Ended;
        self.refresh_at = Timestamp::NEVER;
        self.bye_at = Timestamp::NEVER;
        SessionAction::Expire
    }

    fn is_kept(&self) -> bool {
        matches!(self.phase, Phase::Kept | Phase::KeptFlight)
    }

    fn method(&self) -> RefreshMethod {
        if self.peer_updates && !self.update_refused {
            RefreshMethod::Update
        } else {
            RefreshMethod::Reinvite
        }
    }

    fn send(&mut self) -> SessionAction {
        self.refresh_at = Timestamp::NEVER;
        self.tries += 1;
        self.phase = if self.is_kept() {
            Phase::KeptFlight
        } else {
            Phase::InFlight
        };
        let (session_expires_s, refresher, min_se_s) =
            self.request_fields().expect("a timer runs in both phases");
        SessionAction::Refresh(Refresh {
            method: self.method(),
            session_expires_s,
            refresher,
            min_se_s,
        })
    }

    fn schedule(&mut self, when: Timestamp) {
        self.phase = if self.is_kept() {
            Phase::Kept
        } else {
            Phase::Waiting
        };
        self.refresh_at = when;
    }

    fn again_or_give_up(&mut self, now: Timestamp) -> SessionAction {
        if self.tries < TRIES_MAX {
            return self.send();
        }
        self.give_up(now);
        SessionAction::Nothing
    }

    /// Another try after the server's wish, but spaced by an eighth of the time that remains.
    fn retry_later(&mut self, now: Timestamp, retry_after_s: Option<u32>) {
        let remaining = if self.is_kept() {
            Duration::from_secs(u64::from(self.interval_s) / 2)
        } else {
            self.bye_at.since(now)
        };
        let asked = Duration::from_secs(retry_after_s.unwrap_or(0).into());
        let pause = asked.max(remaining / 8);
        if self.tries < TRIES_MAX && pause < remaining {
            self.schedule(now + pause);
        } else {
            self.give_up(now);
        }
    }

    /// No refresh any more before the expiry; a kept session tries again after half an interval.
    fn give_up(&mut self, now: Timestamp) {
        if self.is_kept() {
            self.tries = 0;
            self.glares = 0;
            let pause = Duration::from_secs(u64::from(self.interval_s) / 2);
            self.schedule(now + pause);
        } else {
            self.phase = Phase::Exhausted;
        }
    }

    /// Learns from a 422 inside the dialog; `false` when a retry would be refused again.
    fn raise_min_se(&mut self, min_se_s: Option<u32>, options: &SessionTimerOptions) -> bool {
        match min_se_s {
            Some(wanted) if wanted > self.min_se_s && wanted <= options.cap_s => {
                self.min_se_s = wanted.max(SESSION_INTERVAL_S_MIN);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The armed timers are a function of the phase.
    fn check(&self) {
        let (refreshes, expires) = match self.phase {
            Phase::Off | Phase::KeptFlight | Phase::Ended => (false, false),
            Phase::Waiting => (true, true),
            Phase::InFlight | Phase::Exhausted | Phase::Guarding => (false, true),
            Phase::Kept => (true, false),
        };
        assert!(refreshes != self.refresh_at.is_never(), "refresh by phase");
        assert!(expires != self.bye_at.is_never(), "expiry by phase");
    }
}

/// What an agreement is made with: policy and a stream for jitter.
#[derive(Debug)]
pub struct Agreement<'a> {
    /// Policy.
    pub options: &'a SessionTimerOptions,
    /// Spreads refreshes over the last twentieth before half the interval.
    pub dice: &'a mut Jitter,
}

/// Pause before a request that met a 491 is sent again: 2.10 to 4.00 s in steps of 10 ms, for the
/// side that made the Call-ID, which we are (RFC 3261 section 14.1).
pub fn glare_delay(dice: &mut Jitter) -> Duration {
    Duration::from_millis(2100 + 10 * dice.below(191))
}

/// Half of `interval`, less up to a twentieth, so that a herd spreads; never later.
fn half(interval: Duration, dice: &mut Jitter) -> Duration {
    let half = interval / 2;
    dice.duration(half - half / 20, half)
}

crate::fold_fields!(SessionTimer {
    refresh_at,
    bye_at,
    interval_s,
    min_se_s,
    phase,
    tries,
    glares,
    peer_updates,
    update_refused,
});
crate::fold_variants!(Phase {
    Off,
    Waiting,
    InFlight,
    Exhausted,
    Guarding,
    Kept,
    KeptFlight,
    Ended,
});
