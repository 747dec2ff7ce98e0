//! One device of one user: its bindings under all identities of the implicit set, and its past.
//!
//! Layer 3. Owner: [`User`](crate::registry::User). A device is what has one instance id; several
//! flows and several registrations of it are one row (REG-8, REG-9). A device without bindings stays
//! for its history's sake until its place is needed.

use core::time::Duration;

use memchr::memmem;

use crate::base::entropy::Jitter;
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::registry::features::Features;
use crate::registry::gruu::{GruuPolicy, GruuRule, is_gruu_of, is_safe_instance, safe_sip_uri};
use crate::registry::outcome::{BindingId, Change, Class, DeviceState, OutcomeOptions};

/// Most bindings (contact rows) of one device.
pub const BINDINGS_MAX: usize = 64;
/// Longest note kept of a peer's Reason or Warning, octets (RSP-32).
pub const NOTE_BYTES_MAX: usize = 128;
/// 480s in a row, with `require` on, after which it is dropped (RSP-17).
pub const NO_MATCH_MAX: u8 = 3;
/// Octets of unused text a device may carry before it is packed.
const SLACK_BYTES: usize = 512;

/// A range of a device's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Short {
    start: u16,
    len: u16,
}

impl Short {
    fn slice(self, text: &[u8]) -> &[u8] {
        &text[usize::from(self.start)..usize::from(self.start) + usize::from(self.len)]
    }
}

/// One active contact row.
#[derive(Clone, Copy, Debug)]
struct Binding {
    row: u64,
    registration: u64,
    id: BindingId,
    expires_at: Timestamp,
    registered_at: Timestamp,
    aor: Short,
    uri: Short,
    target: Short,
    features: Features,
    q: u16,
    rule: GruuRule,
    sip_aor: bool,
    stale: bool,
}

/// A contact row of a document, ready to be merged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) row: u64,
    pub(crate) registration: u64,
    pub(crate) id: BindingId,
    pub(crate) expires_at: Timestamp,
    pub(crate) registered_at: Timestamp,
    pub(crate) aor: &'a [u8],
    pub(crate) uri: &'a [u8],
    pub(crate) pub_gruu: Option<&'a [u8]>,
    /// Without quotes and angle brackets; empty when the contact has none.
    pub(crate) instance: &'a [u8],
    pub(crate) features: Features,
    pub(crate) q: u16,
    /// The event says that the binding is new.
    pub(crate) announced: bool,
}

/// The end of the last push attempt, for the inspection interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastOutcome {
    /// Status of the final response; zero when there was none yet.
    pub status: u16,
    /// When it came.
    pub at: Timestamp,
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
    /// The end of its last attempt.
    pub last: LastOutcome,
    no_match: u8,
    was_active: bool,
    dirty: bool,
    announced: bool,
    change: Change,
    instance: Short,
    bindings: Vec<Binding>,
    note: Vec<u8>,
    text: Vec<u8>,
}

impl Device {
    /// Makes this a fresh device named `key`. Buffers stay allocated.
    pub fn reset(&mut self, key: u64) {
        let mut bindings = core::mem::take(&mut self.bindings);
        let mut note = core::mem::take(&mut self.note);
        let mut text = core::mem::take(&mut self.text);
        bindings.clear();
        note.clear();
        text.clear();
        *self = Self {
            key,
            bindings,
            note,
            text,
            ..Self::default()
        };
    }

    /// The instance id without quotes and angle brackets; empty when it has none.
    #[must_use]
    pub fn instance(&self) -> &[u8] {
        self.instance.slice(&self.text)
    }

    /// The contact URI of its first binding; empty when it has none.
    #[must_use]
    pub fn contact_uri(&self) -> &[u8] {
        self.bindings
            .first()
            .map_or(&[], |binding| binding.uri.slice(&self.text))
    }

    /// The Request-URI for a message addressed to `aor`: of that identity, else of the first SIP
    /// identity, else of any (REG-9). Identities are compared as written, ignoring case.
    #[must_use]
    pub fn gruu_for(&self, aor: &[u8]) -> Option<&[u8]> {
        self.target_for(aor).map(|target| target.uri)
    }

    /// As [`Device::gruu_for`], with the rule that gave it.
    #[must_use]
    pub fn target_for(&self, aor: &[u8]) -> Option<Target<'_>> {
        let usable = || {
            self.bindings
                .iter()
                .filter(|binding| binding.rule != GruuRule::None)
        };
        let chosen = usable()
            .find(|binding| binding.aor.slice(&self.text).eq_ignore_ascii_case(aor))
            .or_else(|| usable().find(|binding| binding.sip_aor))
            .or_else(|| usable().next())?;
        Some(Target {
            uri: chosen.target.slice(&self.text),
            rule: chosen.rule,
        })
    }

    /// The public identities it is registered under, in the notifier's order.
    pub fn aors(&self) -> impl Iterator<Item = &[u8]> {
        self.bindings
            .iter()
            .map(|binding| binding.aor.slice(&self.text))
    }

    /// Appends the Accept-Contact value that steers a request to this instance (PUSH-a2).
    pub fn write_accept_contact(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*;+sip.instance=\"<");
        out.extend_from_slice(self.instance());
        out.extend_from_slice(b">\";require;explicit");
    }

    /// Reason or Warning text of the last attempt, as it came: escape before showing.
    #[must_use]
    pub fn note(&self) -> &[u8] {
        &self.note
    }

    /// Whether its past forbids a push now, and until when (`NEVER`: until something changes).
    #[must_use]
    pub fn blocked_until(&self, now: Timestamp) -> Timestamp {
        self.history.until(now)
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
            note,
        } = outcome;
        if class == Class::Provisional {
            return Followup::default();
        }
        self.last = LastOutcome { status, at: now };
        self.note.clear();
        self.note
            .extend_from_slice(&note[..note.len().min(NOTE_BYTES_MAX)]);
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

    /// Addresses and capacities of its buffers, to see that a warm merge touches none.
    #[cfg(test)]
    pub(crate) fn buffers(&self) -> [usize; 4] {
        [
            self.text.as_ptr() as usize,
            self.text.capacity(),
            self.bindings.as_ptr() as usize,
            self.bindings.capacity(),
        ]
    }

    /// Whether its place may go to another device. `easy`: only if it has no history either.
    pub(crate) fn is_forgettable(&self, easy: bool) -> bool {
        self.bindings.is_empty()
            && !self.was_active
            && self.pushing.is_none()
            && (!easy || self.history == DeviceState::Ready)
    }

    /// Starts a merge; `full` makes every binding stale until its row shows up.
    pub(crate) fn begin(&mut self, full: bool) {
        self.was_active = self.active;
        self.dirty = false;
        self.announced = false;
        self.change = Change::default();
        for binding in &mut self.bindings {
            binding.stale = full;
        }
    }

    /// Drops the binding of `row`; answers whether it was there.
    pub(crate) fn drop_row(&mut self, row: u64) -> bool {
        self.drop_where(|binding| binding.row == row)
    }

    /// Drops all bindings of `registration`.
    pub(crate) fn drop_registration(&mut self, registration: u64) -> bool {
        self.drop_where(|binding| binding.registration == registration)
    }

    fn drop_where(&mut self, gone: impl Fn(&Binding) -> bool) -> bool {
        let before = self.bindings.len();
        self.bindings.retain(|binding| !gone(binding));
        let dropped = self.bindings.len() != before;
        self.dirty |= dropped;
        dropped
    }

    /// Merges one active contact row.
    pub(crate) fn merge(&mut self, row: &Row<'_>, home: &[u8], policy: GruuPolicy) -> Merged {
        let known = self
            .bindings
            .iter()
            .position(|binding| binding.row == row.row);
        if known.is_none() && self.bindings.len() >= 2 * BINDINGS_MAX {
            return Merged::Overflow;
        }
        self.note_registration(row);
        let old = known.map(|at| self.bindings[at]);
        let hint = |pick: fn(&Binding) -> Short| old.as_ref().map(pick).unwrap_or_default();
        let (aor_hint, uri_hint) = (hint(|b| b.aor), hint(|b| b.uri));
        let target_hint = hint(|b| b.target);
        let refused = row
            .pub_gruu
            .is_some_and(|gruu| !is_gruu_of(gruu, row.aor, home));
        let rule = if refused {
            GruuRule::None
        } else {
            rule_for(row, policy)
        };
        let target = match (rule, row.pub_gruu) {
            (GruuRule::PubGruu, Some(gruu)) => self.intern(gruu, target_hint),
            (GruuRule::Composed, _) => self.intern_composed(row.aor, row.instance),
            (GruuRule::ContactByInstance | GruuRule::Contact, _) => {
                self.intern(row.uri, target_hint)
            }
            (GruuRule::AorByInstance, _) => self.intern(row.aor, target_hint),
            (GruuRule::PubGruu | GruuRule::None, _) => Some(Short::default()),
        };
        let aor = self.intern(row.aor, aor_hint);
        let uri = self.intern(row.uri, uri_hint);
        // The key says that it is the same instance, if written otherwise: the first form stays.
        let instance = match self.instance.len {
            0 => self.intern(row.instance, self.instance),
            _ => Some(self.instance),
        };
        let (Some(target), Some(aor), Some(uri), Some(instance)) = (target, aor, uri, instance)
        else {
            return Merged::Overflow;
        };
        self.instance = instance;
        let binding = Binding {
            row: row.row,
            registration: row.registration,
            id: row.id,
            expires_at: row.expires_at,
            registered_at: row.registered_at,
            aor,
            uri,
            target,
            features: row.features,
            q: row.q,
            rule,
            sip_aor: safe_sip_uri(row.aor).is_some(),
            stale: false,
        };
        self.dirty |= old.is_none_or(|old| differs(&old, &binding));
        match known {
            Some(at) => self.bindings[at] = binding,
            None => self.bindings.push(binding),
        }
        if refused {
            Merged::GruuRefused
        } else {
            Merged::Done
        }
    }

    fn note_registration(&mut self, row: &Row<'_>) {
        let seen = |same: fn(BindingId, BindingId) -> bool| {
            same(self.binding, row.id) || self.bindings.iter().any(|b| same(b.id, row.id))
        };
        let new_register = !seen(|a, b| a.register == b.register);
        let new_call_id = !seen(|a, b| a.call_id == b.call_id);
        if new_register {
            self.binding = row.id;
            self.change.registered = true;
            self.change.restarted |= new_call_id;
            self.announced |= row.announced;
        }
    }

    /// Ends a merge: drops stale bindings, sums up, releases what the change releases.
    pub(crate) fn finish(&mut self, now: Timestamp) -> Finished {
        self.drop_where(|binding| binding.stale);
        self.sum_up();
        self.pack();
        self.change.reappeared = self.active && !self.was_active;
        let mut released = false;
        if self.active && self.change.any() {
            let before = self.history;
            self.history = before.after_registration(now, self.change);
            released = self.history != before;
            self.no_match = 0;
        }
        let new = self.change.reappeared || self.change.restarted || self.announced;
        Finished {
            changed: self.dirty || self.active != self.was_active,
            triggers: self.active && (new || released),
        }
    }

    fn sum_up(&mut self) {
        self.active = !self.bindings.is_empty();
        if !self.active {
            return;
        }
        (self.q, self.expires_at, self.registered_at) = (0, Timestamp::ZERO, Timestamp::ZERO);
        self.features = Features::default();
        for binding in &self.bindings {
            self.q = self.q.max(binding.q);
            self.expires_at = self.expires_at.max(binding.expires_at);
            self.registered_at = self.registered_at.max(binding.registered_at);
            self.features.icsi |= binding.features.icsi;
            self.features.refuses_invite |= binding.features.refuses_invite;
            self.features.speaks |= binding.features.speaks;
        }
        self.rule = self
            .target_for(b"")
            .map_or(GruuRule::None, |target| target.rule);
    }

    /// Where `bytes` lie in the text: at `hint`, elsewhere, or appended.
    fn intern(&mut self, bytes: &[u8], hint: Short) -> Option<Short> {
        if hint.slice(&self.text) == bytes {
            return Some(hint);
        }
        if let Some(at) = memmem::find(&self.text, bytes) {
            return short(at, bytes.len());
        }
        let found = short(self.text.len(), bytes.len())?;
        self.text.extend_from_slice(bytes);
        Some(found)
    }

    fn intern_composed(&mut self, aor: &[u8], instance: &[u8]) -> Option<Short> {
        let start = self.text.len();
        for part in [aor, b";gr=", instance] {
            self.text.extend_from_slice(part);
        }
        let len = self.text.len() - start;
        let (before, composed) = self.text.split_at(start);
        match memmem::find(before, composed) {
            Some(at) => {
                self.text.truncate(start);
                short(at, len)
            }
            None => short(start, len),
        }
    }

    /// Rewrites the text when too much of it is unused.
    fn pack(&mut self) {
        let used: usize = self
            .bindings
            .iter()
            .map(|b| usize::from(b.aor.len) + usize::from(b.uri.len) + usize::from(b.target.len))
            .sum();
        if self.text.len() <= used + usize::from(self.instance.len) + SLACK_BYTES {
            return;
        }
        let base = self.text.len();
        let mut instance = self.instance;
        let mut moved = true;
        for binding in &mut self.bindings {
            for span in [&mut binding.target, &mut binding.aor, &mut binding.uri] {
                moved &= carry(&mut self.text, base, span);
            }
        }
        moved &= carry(&mut self.text, base, &mut instance);
        assert!(moved, "a packed text is shorter than the text it came from");
        self.instance = instance;
        self.text.drain(..base);
    }
}

/// Copies `span` behind `base` unless its bytes are there already; answers whether it fits.
fn carry(text: &mut Vec<u8>, base: usize, span: &mut Short) -> bool {
    let range = usize::from(span.start)..usize::from(span.start) + usize::from(span.len);
    let (old, new) = text.split_at(base);
    let at = memmem::find(new, &old[range.clone()]).unwrap_or_else(|| {
        let at = text.len() - base;
        text.extend_from_within(range);
        at
    });
    match short(at, usize::from(span.len)) {
        Some(moved) => {
            *span = moved;
            true
        }
        None => false,
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
    /// Reason or Warning text, for show only.
    pub note: &'a [u8],
}

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    Done,
    /// Merged, but its GRUU is unfit: not reachable by this row (BAD-23).
    GruuRefused,
    /// A bound is reached; the row was left out.
    Overflow,
}

/// What a merge did to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) changed: bool,
    pub(crate) triggers: bool,
}

fn short(start: usize, len: usize) -> Option<Short> {
    let end_fits = u16::try_from(start + len).is_ok();
    let (Ok(start), Ok(len), true) = (u16::try_from(start), u16::try_from(len), end_fits) else {
        return None;
    };
    Some(Short { start, len })
}

/// The strongest rule that applies to a row whose GRUU, if any, is sound.
fn rule_for(row: &Row<'_>, policy: GruuPolicy) -> GruuRule {
    if row.pub_gruu.is_some() {
        return GruuRule::PubGruu;
    }
    let has_instance = is_safe_instance(row.instance);
    let plain_aor = safe_sip_uri(row.aor).is_some_and(|aor| aor.params.is_empty());
    let fits = row.aor.len() + row.instance.len() + 4 <= crate::base::limits::URI_BYTES_MAX;
    let contact_is_safe = safe_sip_uri(row.uri).is_some();
    let composes = has_instance && plain_aor && fits && !row.instance.contains(&b';');
    let candidates = [
        (GruuRule::Composed, composes),
        (GruuRule::AorByInstance, has_instance && plain_aor),
        (GruuRule::ContactByInstance, has_instance && contact_is_safe),
        (GruuRule::Contact, contact_is_safe),
    ];
    candidates
        .into_iter()
        .find(|&(rule, applies)| applies && policy.allows(rule))
        .map_or(GruuRule::None, |(rule, _)| rule)
}

/// Whether two states of one row differ in more than the time they have left.
fn differs(a: &Binding, b: &Binding) -> bool {
    (a.registration, a.id, a.aor, a.uri, a.target) != (b.registration, b.id, b.aor, b.uri, b.target)
        || (a.features, a.q, a.rule) != (b.features, b.q, b.rule)
}

/// Seconds after `now`, held at ten years so that sums stay far from `NEVER`.
pub(crate) fn deadline(now: Timestamp, seconds: u32) -> Timestamp {
    const TEN_YEARS_S: u64 = 10 * 365 * 24 * 3600;
    now + Duration::from_secs(u64::from(seconds).min(TEN_YEARS_S))
}
