//! One device of one user: the sum of its bindings under all identities of the implicit set, and its
//! past.
//!
//! Layer 3. Owner: [`User`](crate::registry::User), which also holds the bindings themselves. A
//! device is what has one instance id; several flows and several registrations of it are one row
//! (REG-8, REG-9). A device without bindings stays for its history's sake until its place is needed.

use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::fold::{Fold, Reader, Writer};
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::registry::bindings::{Binding, Short};
use crate::registry::features::Features;
use crate::registry::gruu::GruuRule;
use crate::registry::losses::Losses;
use crate::registry::outcome::{BindingId, Change, Class, DeviceState, OutcomeOptions};

/// Longest note kept of a peer's Reason or Warning, octets (RSP-32).
pub const NOTE_BYTES_MAX: usize = 128;
/// 480s in a row, with `require` on, after which it is dropped (RSP-17).
pub const NO_MATCH_MAX: u8 = 3;
/// The end of the last push attempt, for the inspection interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastOutcome {
    /// Status of the final response; zero when there was none yet.
    pub status: u16,
    /// When it came.
    pub at: Timestamp,
    /// The reason code of the end; empty when it was a final response.
    pub code: &'static str,
}

/// What the caller does besides, after [`Device::record`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followup {
    /// Ask for full registration state (404, or 480 three times).
    pub refresh_subscription: bool,
    /// Leave `require`/`explicit` out towards this device from now on (RSP-17).
    pub drop_require: bool,
    /// Tell an operator.
    pub alarm: bool,
}

/// Where to send a device's INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The Request-URI, byte for byte.
    pub uri: &'a [u8],
    /// By which rule it was found; recorded with each push.
    pub rule: GruuRule,
}

/// A device; see the module.
#[derive(Debug, Default)]
pub struct Device {
    /// FNV-1a of the lower-cased instance id, or of the contact URI when there is none (REG-10).
    pub key: u64,
    /// At least one binding is active. Its life may have run out: see `expires_at`.
    pub active: bool,
    /// When the last of its bindings ends; `NEVER` when the notifier gave no `expires`.
    pub expires_at: Timestamp,
    /// When the most recent of its bindings was made; orders devices (section 9.3 step 14).
    pub registered_at: Timestamp,
    /// Highest q of its bindings, in thousandths.
    pub q: u16,
    /// Union of its bindings' features.
    pub features: Features,
    /// The rule by which it is reached when no identity is preferred.
    pub rule: GruuRule,
    /// The registration last seen.
    pub binding: BindingId,
    /// What its past allows.
    pub history: DeviceState,
    /// The push that is open or pending, if any (RSP-31).
    pub pushing: Option<Key>,
    /// Whether it is roaming, if its access network is known.
    pub roaming: Option<bool>,
    /// Send no `require`/`explicit` to it (RSP-17).
    pub no_require: bool,
    /// Messages over which its sessions were lost lately, until a session ends well (BAD-30).
    pub losses: Option<Box<Losses>>,
    /// The end of its last attempt.
    pub last: LastOutcome,
    /// Patterns that its User-Agent fitted when it last answered.
    pub agents: u16,
    /// Index of the handset dialect it speaks.
    pub dialect: u8,
    no_match: u8,
    was_active: bool,
    /// In this merge something of its bindings changed.
    pub(crate) dirty: bool,
    announced: bool,
    /// In this merge it got a binding.
    pub(crate) bound: bool,
    /// The rule in force is that of a SIP identity.
    rule_of_sip: bool,
    change: Change,
    /// The instance id in the user's text, as it was written first.
    pub(crate) instance: Short,
    note: Vec<u8>,
}

impl Device {
    /// Makes this a fresh device named `key`. Buffers stay allocated.
    pub fn reset(&mut self, key: u64) {
        let mut note = core::mem::take(&mut self.note);
        note.clear();
        *self = Self {
            key,
            note,
            ..Self::default()
        };
    }

    /// Reason or Warning text of the last attempt, as it came: escape before showing.
    #[must_use]
    pub fn note(&self) -> &[u8] {
        &self.note
    }

    /// Octets that it owns beside its row.
    pub(crate) fn memory(&self) -> usize {
        let losses = self.losses.as_ref().map_or(0, |_| size_of::<Losses>());
        self.note.capacity() + losses
    }

    /// Takes the end of an attempt that was started for `binding` into the history.
    ///
    /// `required`: the request carried `require`. When the device registered anew meanwhile, what
    /// would have waited for that ends at once.
    pub fn record(
        &mut self,
        now: Timestamp,
        outcome: Outcome<'_>,
        jitter: &mut Jitter,
        options: &OutcomeOptions,
    ) -> Followup {
        let Outcome {
            class,
            status,
            binding,
            required,
            code,
            note,
        } = outcome;
        if class == Class::Provisional {
            return Followup::default();
        }
        self.last = LastOutcome {
            status,
            at: now,
            code,
        };
        if !(note.is_empty() && self.note.is_empty()) {
            self.note.clear();
            self.note
                .extend_from_slice(&note[..note.len().min(NOTE_BYTES_MAX)]);
        }
        let change = Change {
            registered: binding.register != self.binding.register,
            restarted: binding.call_id != self.binding.call_id,
            reappeared: false,
        };
        self.history = self
            .history
            .after(class, now, binding, jitter, options)
            .after_registration(now, change);
        self.followup(class, required)
    }

    fn followup(&mut self, class: Class, required: bool) -> Followup {
        let mut followup = Followup::default();
        let mut no_match = false;
        match class {
            Class::Wait {
                refresh,
                no_match: unmatched,
                ..
            } => {
                followup.refresh_subscription = refresh;
                no_match = unmatched;
            }
            Class::Backoff {
                no_match: unmatched,
                ..
            } => no_match = unmatched,
            Class::Quarantine { alarm } => followup.alarm = alarm,
            Class::Provisional
            | Class::Session
            | Class::Cancelled
            | Class::RetryNow(_)
            | Class::NextHop(_) => {}
        }
        if !no_match {
            self.no_match = 0;
            return followup;
        }
        self.no_match = self.no_match.saturating_add(1);
        if required && self.no_match >= NO_MATCH_MAX {
            self.no_match = 0;
            self.no_require = true;
            followup.drop_require = true;
            followup.refresh_subscription = true;
            // The request changes, so there is no reason to wait for the registration to change.
            self.history = DeviceState::Ready;
        }
        followup
    }

    /// Whether its place may go to another device. `easy`: only if it has no history either.
    pub(crate) fn is_forgettable(&self, easy: bool) -> bool {
        !self.active
            && !self.was_active
            && !self.bound
            && self.pushing.is_none()
            && (!easy || self.history == DeviceState::Ready)
    }

    /// Starts a merge.
    pub(crate) fn begin(&mut self) {
        self.was_active = self.active;
        self.dirty = false;
        self.announced = false;
        self.bound = false;
        self.change = Change::default();
    }

    /// A REGISTER not seen before made one of its bindings.
    pub(crate) const fn registered_anew(
        &mut self,
        binding: BindingId,
        restarted: bool,
        announced: bool,
    ) {
        self.binding = binding;
        self.change.registered = true;
        self.change.restarted |= restarted;
        self.announced |= announced;
    }

    /// Adds one of its bindings to the sum; the first one since `active` was cleared starts it.
    #[inline]
    pub(crate) fn add(&mut self, binding: &Binding) {
        let usable = binding.rule != GruuRule::None;
        if !self.active {
            self.active = true;
            self.q = binding.q;
            self.expires_at = binding.expires_at;
            self.registered_at = binding.registered_at;
            self.features = binding.features;
            self.rule = binding.rule;
            self.rule_of_sip = usable && binding.sip;
            return;
        }
        self.q = self.q.max(binding.q);
        self.expires_at = self.expires_at.max(binding.expires_at);
        self.registered_at = self.registered_at.max(binding.registered_at);
        self.features.icsi |= binding.features.icsi;
        self.features.refuses_invite |= binding.features.refuses_invite;
        self.features.marks |= binding.features.marks;
        self.features.speaks |= binding.features.speaks;
        let better = self.rule == GruuRule::None || (binding.sip && !self.rule_of_sip);
        if usable && better {
            self.rule = binding.rule;
            self.rule_of_sip = binding.sip;
        }
    }

    /// Ends a merge, after the bindings were added up: releases what the change releases.
    pub(crate) fn finish(&mut self, now: Timestamp) -> Finished {
        self.change.reappeared = self.active && !self.was_active;
        let mut released = false;
        if self.active && self.change.any() {
            let before = self.history;
            self.history = before.after_registration(now, self.change);
            released = self.history != before;
            // A mere refresh of the registration says nothing new about what it matches (RSP-17).
            if self.change.restarted || self.change.reappeared {
                self.no_match = 0;
            }
        }
        let new = self.change.reappeared || self.change.restarted || self.announced;
        Finished {
            changed: self.dirty || self.active != self.was_active,
            triggers: self.active && (new || released),
        }
    }
}

/// The end of an attempt, as [`Device::record`] takes it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Its class.
    pub class: Class,
    /// The final status (a local 408 for a time-out).
    pub status: u16,
    /// [`Device::binding`] when the attempt started.
    pub binding: BindingId,
    /// The request carried `require`.
    pub required: bool,
    /// Reason code of an end that was no final response; else empty.
    pub code: &'static str,
    /// Reason or Warning text, for show only.
    pub note: &'a [u8],
}

/// What a merge did to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) changed: bool,
    pub(crate) triggers: bool,
}

/// Seconds after `now`, held at ten years so that sums stay far from `NEVER`.
pub(crate) fn deadline(now: Timestamp, seconds: u32) -> Timestamp {
    const TEN_YEARS_S: u64 = 10 * 365 * 24 * 3600;
    now + Duration::from_secs(u64::from(seconds).min(TEN_YEARS_S))
}

crate::fold_fields!(Device {
    key as digest,
    active,
    expires_at,
    registered_at,
    q,
    features,
    rule,
    binding,
    history,
    pushing,
    roaming,
    no_require,
    last,
    agents,
    dialect,
    no_match,
    was_active,
    dirty,
    announced,
    bound,
    rule_of_sip,
    change,
    instance,
    note,
} but { losses = None });

impl Fold for LastOutcome {
    fn fold(&self, out: &mut Writer<'_>) {
        let Self { status, at, code } = self;
        status.fold(out);
        at.fold(out);
        place_of(code).unwrap_or_default().fold(out);
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        self.status.unfold(from);
        self.at.unfold(from);
        let mut place = 0_u8;
        place.unfold(from);
        self.code = CODES[usize::from(place)];
    }
}

impl Device {
    /// What is written of it is all there is.
    pub(crate) fn is_foldable(&self) -> bool {
        self.losses.is_none() && place_of(self.last.code).is_some()
    }
}

/// The reason codes that a device's last attempt may have, the empty one first. A device with another is not
/// folded; `push` has a test that there is none.
pub(crate) const CODES: [&str; 25] = [
    "",
    "DELIVERED",
    "R-422",
    "R-REDIRECT",
    "R-SIP",
    "R-NO-ANSWER",
    "S-THROTTLED",
    "R-NO-CONTACT",
    "R-SDP-ADDR",
    "R-SDP-DIR",
    "R-SDP-NONE",
    "R-SDP-PATH",
    "R-SDP-PORT0",
    "R-SDP-PROTO",
    "R-SDP-SETUP",
    "R-SDP-TYPE",
    "R-MSRP-CONNECT",
    "R-MSRP-BIND",
    "R-MSRP-TIMEOUT",
    "R-MSRP-LOST",
    "R-MSRP-506",
    "R-MSRP-481",
    "R-PEER-BYE",
    "R-REFRESH",
    "S-CAP",
];

pub(crate) fn place_of(code: &str) -> Option<u8> {
    let place = CODES.iter().position(|&known| known == code)?;
    u8::try_from(place).ok()
}
