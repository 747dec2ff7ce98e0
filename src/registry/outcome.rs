//! What the end of a push attempt means for its device (section 4 of the requirements). Layer 3.
//!
//! [`classify`] is the table RSP-1..30, a pure function; [`DeviceState::after`] applies a class to a
//! device. No class removes a message (RSP-30): nothing here knows of messages.
//!
//! ```text
//! Ready --B--> Backoff --time--> Ready          Ready --W--> WaitRegistration --changed--> Ready
//! Ready --Q--> Quarantine --new Call-ID or time--> Ready
//! ```

use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::fold::{Fold, Reader, Writer};
use crate::base::time::Timestamp;

/// Longest `Retry-After` honoured (section 4: capped at 24 h).
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Facts beside the status that the table looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// We sent CANCEL for this attempt (RSP-22).
    pub cancelled: bool,
    /// The alternate SDP profile was tried before, or there is none (RSP-23).
    pub alternate_tried: bool,
    /// 422 retries are used up, or its Min-SE is unusable (RSP-13).
    pub min_se_exhausted: bool,
    /// `Unsupported` names something we can leave out and have not left out yet (RSP-12).
    pub can_drop_extension: bool,
}

/// What to change in an immediate second attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Use the alternate SDP profile (488, 606).
    AlternateSdp,
    /// Raise the session interval to Min-SE (422).
    MinSe,
    /// Leave out what `Unsupported` lists (420).
    WithoutExtension,
}

/// How long a backoff lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pace {
    /// The exponential default of [`OutcomeOptions`].
    Exponential,
    /// `base` instead of the default's first step; grows the same way.
    From(Duration),
    /// Uniform between the two, not growing (491).
    Between(Duration, Duration),
}

/// Which trouble the next hop has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HopTrouble {
    /// Unreachable beyond it (502, 504): try another hop once.
    BadGateway,
    /// The request loops (482, 483): stop the template for this hop when it repeats (AMB-9).
    Loop,
    /// 503: silence towards this hop for `hold`, if given; try the alternate.
    Unavailable {
        /// Retry-After, capped; `None` when absent.
        hold: Option<Duration>,
    },
}

/// Outcome class of a response to a push INVITE: S, R, B, W, Q or H of section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 1xx: the attempt goes on (RSP-1).
    Provisional,
    /// 2xx: a session; ACK first, judge later (RSP-2).
    Session,
    /// 487 after our own CANCEL: neither success nor fault (RSP-22).
    Cancelled,
    /// Try again now, changed; bounded by [`Facts`].
    RetryNow(Retry),
    /// Try again later while registered.
    Backoff {
        /// How long.
        pace: Pace,
        /// Retry-After, a lower bound.
        at_least: Option<Duration>,
        /// 480 with or without: the registrar found no contact for us (RSP-17).
        no_match: bool,
    },
    /// Wait until the device's registration changes.
    Wait {
        /// Not before this long, even then (`decline_hold` of 603).
        declined: bool,
        /// Refresh the subscription for full state (404).
        refresh: bool,
        /// As for `Backoff`.
        no_match: bool,
    },
    /// Leave this binding alone until its Call-ID changes or a day has passed.
    Quarantine {
        /// An operator should look: our request or our credentials are at fault.
        alarm: bool,
    },
    /// The hop, not the device, is in trouble; when no other hop is left the device backs off.
    NextHop(HopTrouble),
}

const BUSY: Duration = Duration::from_secs(60);
const GLARE_MIN: Duration = Duration::from_millis(2100);
const GLARE_MAX: Duration = Duration::from_secs(4);

/// The class of final (or provisional) `status`, with `Retry-After` in seconds if there was one.
///
/// Statuses the table does not list count as their class's x00 (RFC 3261 section 8.1.3.2). Those
/// below 100 or above 699 never reach this point; they count as 500.
#[must_use]
pub fn classify(status: u16, retry_after_s: Option<u32>, facts: Facts) -> Class {
    let at_least =
        retry_after_s.map(|seconds| Duration::from_secs(u64::from(seconds)).min(RETRY_AFTER_MAX));
    let backoff = |pace| Class::Backoff {
        pace,
        at_least,
        no_match: false,
    };
    let wait = |declined, refresh| Class::Wait {
        declined,
        refresh,
        no_match: false,
    };
    let quarantine = |alarm| Class::Quarantine { alarm };
    match status {
        100..=199 => Class::Provisional,
        200..=299 => Class::Session,
        300..=399 | 410 | 430 | 439 => wait(false, false),
        401 | 407 => quarantine(true),
        403 | 484 | 485 => quarantine(false),
        404 => wait(false, true),
        408 | 481 => backoff(Pace::Exponential),
        413 if at_least.is_some() => backoff(Pace::Exponential),
        420 if facts.can_drop_extension => Class::RetryNow(Retry::WithoutExtension),
        422 if !facts.min_se_exhausted => Class::RetryNow(Retry::MinSe),
        480 if at_least.is_some() => Class::Backoff {
            pace: Pace::Exponential,
            at_least,
            no_match: true,
        },
        480 => Class::Wait {
            declined: false,
            refresh: false,
            no_match: true,
        },
        482 | 483 => Class::NextHop(HopTrouble::Loop),
        486 => backoff(Pace::From(BUSY)),
        487 if facts.cancelled => Class::Cancelled,
        487 => backoff(Pace::Exponential),
        488 | 606 if !facts.alternate_tried => Class::RetryNow(Retry::AlternateSdp),
        491 => backoff(Pace::Between(GLARE_MIN, GLARE_MAX)),
        // 400, 405, 406, 413, 415, 416, 420..=429, 433, 436..=438, 470, 488, 489, 493, 494.
        400..=499 | 606 => quarantine(status == 400),
        501 | 505 | 513 => quarantine(true),
        502 | 504 => Class::NextHop(HopTrouble::BadGateway),
        503 => Class::NextHop(HopTrouble::Unavailable { hold: at_least }),
        580 => quarantine(false),
        // An I-CSCF answers 600 when it is misconfigured: not the user's word.
        600 => backoff(Pace::Exponential),
        601..=699 => wait(true, false),
        _ => backoff(Pace::Exponential),
    }
}

/// Durations of section 16 that shape the states. Ranges are checked where configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeOptions {
    /// First backoff step. Default 30 s.
    pub backoff_min: Duration,
    /// Longest backoff without Retry-After. Default 3600 s.
    pub backoff_max: Duration,
    /// Attempts per binding before W takes the place of B (AMB-11). Default 24.
    pub tries_max: u8,
    /// How long a 6xx holds even against a new registration. Default 1 h.
    pub decline_hold: Duration,
    /// How long a quarantine lasts for one binding. Default 24 h.
    pub quarantine: Duration,
}

impl Default for OutcomeOptions {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_secs(30),
            backoff_max: Duration::from_secs(3600),
            tries_max: 24,
            decline_hold: Duration::from_secs(3600),
            quarantine: Duration::from_secs(24 * 3600),
        }
    }
}

/// Identity of a binding: which REGISTER made it. Zero when unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BindingId {
    /// Hash of the REGISTER's Call-ID: changes when the device starts anew.
    pub call_id: u64,
    /// Hash of Call-ID and CSeq: changes at every REGISTER.
    pub register: u64,
}

/// How a device's registration changed from one document to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// A REGISTER not seen before: Call-ID or CSeq is new.
    pub registered: bool,
    /// The Call-ID is new: the device started anew.
    pub restarted: bool,
    /// The device was gone, or unknown, before.
    pub reappeared: bool,
}

impl Change {
    /// Whether anything changed.
    #[must_use]
    pub const fn any(self) -> bool {
        self.registered || self.restarted || self.reappeared
    }
}

/// What a device's past allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceState {
    /// May be pushed to.
    #[default]
    Ready,
    /// B: not before `until`. Stays, with its count, while the next attempt runs.
    Backoff {
        /// When the next attempt may start.
        until: Timestamp,
        /// Failed attempts of this binding so far.
        tries: u8,
        /// The peer asked for this wait; a new registration does not cut it short.
        firm: bool,
    },
    /// W: until the registration differs from `binding`.
    WaitRegistration {
        /// The binding that failed.
        binding: BindingId,
        /// Not before this moment, even when it differs.
        not_before: Timestamp,
    },
    /// Q: until `until`, or until the Call-ID differs from that of `binding`.
    Quarantine {
        /// The binding that failed.
        binding: BindingId,
        /// When it is forgiven.
        until: Timestamp,
    },
}

impl DeviceState {
    /// The state after an attempt that was started for `binding` ended with `class` at `now`.
    ///
    /// `jitter` spreads backoffs by 20 % either way. `Provisional` changes nothing, and `RetryNow`
    /// neither: its attempt goes on. A hop's trouble backs the device off; call this only when no
    /// alternate hop is left.
    #[must_use]
    pub fn after(
        self,
        class: Class,
        now: Timestamp,
        binding: BindingId,
        jitter: &mut Jitter,
        options: &OutcomeOptions,
    ) -> Self {
        match class {
            Class::Provisional | Class::RetryNow(_) | Class::Cancelled => self,
            Class::Session => Self::Ready,
            Class::Backoff { pace, at_least, .. } => {
                self.back_off((pace, at_least), now, binding, jitter, options)
            }
            Class::NextHop(HopTrouble::Unavailable { hold }) => {
                self.back_off((Pace::Exponential, hold), now, binding, jitter, options)
            }
            Class::NextHop(HopTrouble::Loop | HopTrouble::BadGateway) => {
                self.back_off((Pace::Exponential, None), now, binding, jitter, options)
            }
            Class::Wait { declined, .. } => {
                let hold = if declined {
                    options.decline_hold
                } else {
                    Duration::ZERO
                };
                Self::WaitRegistration {
                    binding,
                    not_before: now + hold,
                }
            }
            Class::Quarantine { .. } => Self::Quarantine {
                binding,
                until: now + options.quarantine,
            },
        }
    }

    fn back_off(
        self,
        (pace, at_least): (Pace, Option<Duration>),
        now: Timestamp,
        binding: BindingId,
        jitter: &mut Jitter,
        options: &OutcomeOptions,
    ) -> Self {
        let tries = self.tries().saturating_add(1);
        if tries >= options.tries_max {
            let not_before = now + at_least.unwrap_or(Duration::ZERO);
            return Self::WaitRegistration {
                binding,
                not_before,
            };
        }
        let wait = match pace {
            Pace::Exponential => spread(step(options.backoff_min, tries, options), jitter),
            // Busy grows too, but never below what the table says.
            Pace::From(base) => {
                let wait = spread(step(base, tries, options), jitter);
                wait.max(base)
            }
            Pace::Between(low, high) => jitter.duration(low, high),
        };
        let firm = at_least.is_some();
        let until = now + wait.max(at_least.unwrap_or(Duration::ZERO));
        Self::Backoff { until, tries, firm }
    }

    /// Failed attempts of the present binding.
    #[must_use]
    pub const fn tries(self) -> u8 {
        match self {
            Self::Backoff { tries, .. } => tries,
            Self::Ready | Self::WaitRegistration { .. } | Self::Quarantine { .. } => 0,
        }
    }

    /// The state after the registration changed in the ways of `change`.
    ///
    /// W ends at any change, Q only at a new Call-ID, and a new Call-ID makes B count anew and ends
    /// its wait unless the peer asked for it (REG-5, RSP-6, RSP-10).
    #[must_use]
    pub fn after_registration(self, now: Timestamp, change: Change) -> Self {
        match self {
            Self::WaitRegistration { not_before, .. } if change.any() => {
                if not_before > now {
                    Self::Backoff {
                        until: not_before,
                        tries: 0,
                        firm: true,
                    }
                } else {
                    Self::Ready
                }
            }
            Self::Quarantine { .. } if change.restarted => Self::Ready,
            Self::Backoff {
                until, firm: true, ..
            } if change.restarted => Self::Backoff {
                until,
                tries: 0,
                firm: true,
            },
            Self::Backoff { .. } if change.restarted => Self::Ready,
            Self::Ready
            | Self::WaitRegistration { .. }
            | Self::Quarantine { .. }
            | Self::Backoff { .. } => self,
        }
    }

    /// When the state alone stops forbidding a push: `ZERO` for now, `NEVER` for "not by time".
    #[must_use]
    pub fn until(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ready => Timestamp::ZERO,
            Self::Backoff { until, .. } | Self::Quarantine { until, .. } if until <= now => {
                Timestamp::ZERO
            }
            Self::Backoff { until, .. } | Self::Quarantine { until, .. } => until,
            Self::WaitRegistration { .. } => Timestamp::NEVER,
        }
    }
}

/// `base * 2^(tries - 1)`, at most the longest backoff (but never less than `base`).
fn step(base: Duration, tries: u8, options: &OutcomeOptions) -> Duration {
    let doublings = u32::from(tries.saturating_sub(1)).min(20);
    base.saturating_mul(1 << doublings)
        .min(options.backoff_max.max(base))
}

/// `wait` give or take 20 %.
fn spread(wait: Duration, jitter: &mut Jitter) -> Duration {
    let fifth = wait / 5;
    jitter.duration(wait - fifth, wait + fifth)
}

#[cfg(test)]
mod tests;

crate::fold_fields!(Change {
    registered,
    restarted,
    reappeared
});

crate::fold_fields!(BindingId {
    call_id as digest,
    register as digest
});

impl Fold for DeviceState {
    fn fold(&self, out: &mut Writer<'_>) {
        match self {
            Self::Ready => out.number(0),
            Self::Backoff { until, tries, firm } => {
                out.number(1);
                until.fold(out);
                tries.fold(out);
                firm.fold(out);
            }
            Self::WaitRegistration {
                binding,
                not_before,
            } => {
                out.number(2);
                binding.fold(out);
                not_before.fold(out);
            }
            Self::Quarantine { binding, until } => {
                out.number(3);
                binding.fold(out);
                until.fold(out);
            }
        }
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        let kind = from.number();
        let (mut binding, mut at) = (BindingId::default(), Timestamp::ZERO);
        let (mut tries, mut firm) = (0_u8, false);
        if kind >= 2 {
            binding.unfold(from);
        }
        if kind >= 1 {
            at.unfold(from);
        }
        if kind == 1 {
            tries.unfold(from);
            firm.unfold(from);
        }
        *self = match kind {
            0 => Self::Ready,
            1 => Self::Backoff {
                until: at,
                tries,
                firm,
            },
            2 => Self::WaitRegistration {
                binding,
                not_before: at,
            },
            _ => Self::Quarantine { binding, until: at },
        };
    }
}
