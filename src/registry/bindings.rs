//! The bindings of a user: active contact rows under all its identities, with their texts. Layer 3.
//!
//! Owner: [`User`](crate::registry::User). All bindings of a user lie in one table and all their
//! texts in one buffer, because users are touched in no order: what a document needs of a user
//! should be in few places. A row of a document that says what is stored is compared, not judged
//! again.

use crate::base::foresee;
use crate::base::limits::{REGINFO_CONTACTS_MAX, URI_BYTES_MAX};
use crate::base::time::Timestamp;
use crate::reginfo::document::REGISTRATIONS_MAX;
use crate::registry::device::{Device, Target};
use crate::registry::features::Features;
use crate::registry::gruu::{GruuPolicy, GruuRule, is_gruu_of, is_safe_instance, safe_sip_uri};
use crate::registry::outcome::BindingId;

/// What a user may have at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Bindings (contact rows).
    rows: usize,
    /// Identities (registrations) with a binding.
    identities: usize,
    /// Octets of text.
    text: usize,
}

/// Up to which partial documents may let a user grow.
const PARTIAL: Bounds = Bounds {
    rows: 191,
    identities: 32,
    text: 32 * 1024,
};
/// Up to which a full document may: it stands beside what it replaces until its end.
const FULL: Bounds = Bounds {
    rows: PARTIAL.rows + REGINFO_CONTACTS_MAX,
    identities: PARTIAL.identities + REGISTRATIONS_MAX,
    text: u16::MAX as usize,
};
/// Octets of unused text a user may carry before its text is packed.
const SLACK_BYTES: usize = 512;

/// A range of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Short {
    start: u16,
    len: u16,
}

impl Short {
    #[inline]
    pub(crate) fn slice(self, text: &[u8]) -> &[u8] {
        &text[usize::from(self.start)..usize::from(self.start) + usize::from(self.len)]
    }

    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A registration with at least one binding.
#[derive(Clone, Copy, Debug, Default)]
struct Identity {
    /// Digest of the registration's id.
    id: u64,
    aor: Short,
    /// A SIP URI that is fit for a request.
    sip: bool,
    /// The same, without parameters.
    plain: bool,
    /// It leads to its user, or never will.
    learned: bool,
}

/// One active contact row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Binding {
    row: u64,
    pub(crate) id: BindingId,
    pub(crate) expires_at: Timestamp,
    pub(crate) registered_at: Timestamp,
    uri: Short,
    target: Short,
    pub(crate) features: Features,
    pub(crate) q: u16,
    pub(crate) rule: GruuRule,
    /// Index of its device.
    pub(crate) device: u8,
    /// Index of its registration.
    identity: u8,
    /// Its identity is a SIP URI.
    pub(crate) sip: bool,
    stale: bool,
}

/// A contact row of a document, ready to be merged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) row: u64,
    pub(crate) id: BindingId,
    pub(crate) expires_at: Timestamp,
    pub(crate) registered_at: Timestamp,
    pub(crate) uri: &'a [u8],
    pub(crate) pub_gruu: Option<&'a [u8]>,
    /// Without quotes and angle brackets; empty when the contact has none.
    pub(crate) instance: &'a [u8],
    pub(crate) features: Features,
    pub(crate) q: u16,
    /// The event says that the binding is new.
    pub(crate) announced: bool,
}

/// How GRUUs are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    pub(crate) policy: GruuPolicy,
    /// The user's SIP identity; empty when unknown.
    pub(crate) home: &'a [u8],
    /// `home` is not what it was: look at known GRUUs again.
    pub(crate) again: bool,
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

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    rows: Vec<Binding>,
    identities: Vec<Identity>,
    text: Vec<u8>,
    /// Octets of the text that nothing names.
    waste: usize,
    /// Some binding was dropped in this merge.
    dropped: bool,
    /// The merge is that of a full document.
    full: bool,
}

impl Bindings {
    /// Asks for its tables and texts.
    pub(crate) fn foresee(&self) {
        foresee::bring_whole(&self.rows[..]);
        foresee::bring_whole(&self.identities[..]);
        foresee::bring_whole(&self.text[..]);
    }

    /// Forgets everything; buffers stay.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.identities.clear();
        self.text.clear();
        self.waste = 0;
    }

    #[inline]
    pub(crate) fn text(&self, text: Short) -> &[u8] {
        text.slice(&self.text)
    }

    /// The contact URI of the device's first binding; empty when it has none.
    pub(crate) fn contact_uri(&self, device: usize) -> &[u8] {
        let first = self
            .rows
            .iter()
            .find(|row| usize::from(row.device) == device);
        first.map_or(&[], |row| row.uri.slice(&self.text))
    }

    /// As [`User::target_for`](crate::registry::User::target_for), for the device at this index.
    pub(crate) fn target_for(&self, device: usize, aor: &[u8]) -> Option<Target<'_>> {
        let (mut first, mut first_sip) = (None, None);
        for row in &self.rows {
            if usize::from(row.device) != device || row.rule == GruuRule::None {
                continue;
            }
            let identity = self.identities[usize::from(row.identity)];
            if identity.aor.slice(&self.text).eq_ignore_ascii_case(aor) {
                return Some(self.target(row));
            }
            first = first.or(Some(row));
            if row.sip {
                first_sip = first_sip.or(Some(row));
            }
        }
        first_sip.or(first).map(|row| self.target(row))
    }

    fn target(&self, row: &Binding) -> Target<'_> {
        Target {
            uri: row.target.slice(&self.text),
            rule: row.rule,
        }
    }

    /// The identities with a binding, as they were written.
    pub(crate) fn identities(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let text = &self.text;
        self.identities
            .iter()
            .map(|identity| identity.aor.slice(text))
    }

    /// The next identity from the `from`-th on that was not learned yet, with its place.
    pub(crate) fn next_unlearned(&self, from: usize) -> Option<(usize, &[u8])> {
        let rest = self.identities.get(from..)?;
        let step = rest.iter().position(|identity| !identity.learned)?;
        Some((from + step, rest[step].aor.slice(&self.text)))
    }

    /// The identity at `place` needs no further look.
    pub(crate) fn learned(&mut self, place: usize) {
        self.identities[place].learned = true;
    }

    /// Starts a merge; `full` makes every binding stale until its row shows up.
    pub(crate) fn begin(&mut self, full: bool) {
        self.dropped = false;
        self.full = full;
        for row in &mut self.rows {
            row.stale = full;
        }
    }

    const fn bounds(&self) -> Bounds {
        if self.full { FULL } else { PARTIAL }
    }

    /// The binding of `row`; looked for at `hint` first.
    #[inline]
    pub(crate) fn find(&self, row: u64, hint: usize) -> Option<usize> {
        if self.rows.get(hint).is_some_and(|held| held.row == row) {
            return Some(hint);
        }
        self.rows.iter().position(|held| held.row == row)
    }

    /// Index of the device of the binding at `at`.
    #[inline]
    pub(crate) fn device_at(&self, at: usize) -> usize {
        usize::from(self.rows[at].device)
    }

    /// Drops the binding at `at`.
    pub(crate) fn remove(&mut self, at: usize, devices: &mut [Device]) {
        let row = self.rows.remove(at);
        self.forget(&row, devices);
    }

    /// Drops all bindings of the registration with the id digest `id`.
    pub(crate) fn drop_registration(&mut self, id: u64, devices: &mut [Device]) {
        for at in (0..self.rows.len()).rev() {
            let identity = usize::from(self.rows[at].identity);
            if self.identities[identity].id == id {
                self.remove(at, devices);
            }
        }
    }

    fn forget(&mut self, row: &Binding, devices: &mut [Device]) {
        devices[usize::from(row.device)].dirty = true;
        self.waste += usize::from(row.uri.len) + usize::from(row.target.len);
        self.dropped = true;
    }

    /// The place of the registration `id` of `aor`, made if need be; `None` when there are too many.
    pub(crate) fn identity(&mut self, id: u64, aor: &[u8]) -> Option<u8> {
        let same = |held: &Identity| held.id == id && held.aor.slice(&self.text) == aor;
        if let Some(at) = self.identities.iter().position(same) {
            return u8::try_from(at).ok();
        }
        if self.identities.len() >= self.bounds().identities {
            return None;
        }
        let at = u8::try_from(self.identities.len()).ok()?;
        let parts = safe_sip_uri(aor);
        let identity = Identity {
            id,
            aor: self.append(&[aor])?,
            sip: parts.is_some(),
            plain: parts.is_some_and(|parts| parts.params.is_empty()),
            learned: false,
        };
        self.identities.push(identity);
        Some(at)
    }

    /// Where the instance id of a device lies from now on; `None` when the text is full.
    pub(crate) fn keep_instance(&mut self, instance: &[u8]) -> Option<Short> {
        self.append(&[instance])
    }

    /// A device was forgotten, and its instance id with it.
    pub(crate) fn drop_instance(&mut self, instance: Short) {
        self.waste += usize::from(instance.len);
    }

    /// Merges one active contact row of `identity` into the binding at `at`, or into a new one, of
    /// the device at index `place`.
    pub(crate) fn merge(
        &mut self,
        at: Option<usize>,
        row: &Row<'_>,
        (place, device): (u8, &mut Device),
        identity: u8,
        judge: Judge<'_>,
    ) -> Merged {
        let room = 2 * row.uri.len() + row.instance.len() + row.pub_gruu.map_or(0, <[u8]>::len);
        let bounds = self.bounds();
        if (at.is_none() && self.rows.len() >= bounds.rows)
            || self.text.len() + room + URI_BYTES_MAX > bounds.text
        {
            return Merged::Overflow;
        }
        self.note_registration(row, place, device);
        let old = at.map(|at| self.rows[at]);
        let old = old.as_ref();
        let mut changed = false;
        let uri = self.keep(row.uri, old.map(|old| old.uri), &mut changed);
        let same_gruu = !judge.again
            && old.is_some_and(|old| {
                old.rule == GruuRule::PubGruu
                    && old.identity == identity
                    && row.pub_gruu == Some(old.target.slice(&self.text))
            });
        let old_target = old.map(|old| old.target);
        let known = |gruu: &[u8]| {
            // The binding that this one takes the place of, as a rule.
            !judge.again
                && self.rows.iter().any(|held| {
                    (held.device, held.identity) == (place, identity)
                        && held.rule == GruuRule::PubGruu
                        && held.target.slice(&self.text) == gruu
                })
        };
        let (rule, target, refused) = if same_gruu {
            (GruuRule::PubGruu, old_target, false)
        } else if let Some(gruu) = row.pub_gruu.filter(|gruu| known(gruu)) {
            let target = self.keep(gruu, old_target, &mut changed);
            (GruuRule::PubGruu, target, false)
        } else {
            let (rule, refused) = self.rule_for(row, identity, judge);
            let target = self.write_target(row, rule, identity, old_target, &mut changed);
            (rule, target, refused)
        };
        let (Some(uri), Some(target)) = (uri, target) else {
            return Merged::Overflow;
        };
        let binding = Binding {
            row: row.row,
            id: row.id,
            expires_at: row.expires_at,
            registered_at: row.registered_at,
            uri,
            target,
            features: row.features,
            q: row.q,
            rule,
            device: place,
            identity,
            sip: self.identities[usize::from(identity)].sip,
            stale: false,
        };
        device.dirty |= changed || old.is_none_or(|old| differs(old, &binding));
        match at {
            Some(at) => self.rows[at] = binding,
            None => self.rows.push(binding),
        }
        if refused {
            Merged::GruuRefused
        } else {
            Merged::Done
        }
    }

    #[inline]
    fn note_registration(&self, row: &Row<'_>, place: u8, device: &mut Device) {
        if device.binding.register == row.id.register {
            return;
        }
        let (mut known, mut same_call) = (false, device.binding.call_id == row.id.call_id);
        for held in self.rows.iter().filter(|held| held.device == place) {
            known |= held.id.register == row.id.register;
            same_call |= held.id.call_id == row.id.call_id;
        }
        if !known {
            device.registered_anew(row.id, !same_call, row.announced);
        }
    }

    /// The rule by which a row's target is found, and whether its GRUU was refused.
    fn rule_for(&self, row: &Row<'_>, identity: u8, judge: Judge<'_>) -> (GruuRule, bool) {
        let identity = self.identities[usize::from(identity)];
        let aor = identity.aor.slice(&self.text);
        if let Some(gruu) = row.pub_gruu {
            // The key says that it is the same instance, if written otherwise.
            let sound = is_gruu_of(gruu, aor, identity.plain, judge.home);
            return if sound {
                (GruuRule::PubGruu, false)
            } else {
                (GruuRule::None, true)
            };
        }
        if judge.policy == GruuPolicy::Strict {
            return (GruuRule::None, false);
        }
        let has_instance = is_safe_instance(row.instance);
        let fits = aor.len() + row.instance.len() + 4 <= URI_BYTES_MAX;
        let contact_is_safe = safe_sip_uri(row.uri).is_some();
        let composes = has_instance && identity.plain && fits && !row.instance.contains(&b';');
        let candidates = [
            (GruuRule::Composed, composes),
            (GruuRule::AorByInstance, has_instance && identity.plain),
            (GruuRule::ContactByInstance, has_instance && contact_is_safe),
            (GruuRule::Contact, contact_is_safe),
        ];
        let rule = candidates
            .into_iter()
            .find(|&(rule, applies)| applies && judge.policy.allows(rule))
            .map_or(GruuRule::None, |(rule, _)| rule);
        (rule, false)
    }

    fn write_target(
        &mut self,
        row: &Row<'_>,
        rule: GruuRule,
        identity: u8,
        old: Option<Short>,
        changed: &mut bool,
    ) -> Option<Short> {
        let aor = self.identities[usize::from(identity)].aor;
        match (rule, row.pub_gruu) {
            (GruuRule::PubGruu, Some(gruu)) => self.keep(gruu, old, changed),
            (GruuRule::ContactByInstance | GruuRule::Contact, _) => {
                self.keep(row.uri, old, changed)
            }
            (GruuRule::Composed | GruuRule::AorByInstance, _) => {
                let start = self.text.len();
                let aor = usize::from(aor.start)..usize::from(aor.start) + usize::from(aor.len);
                self.text.extend_from_within(aor);
                if rule == GruuRule::Composed {
                    self.text.extend_from_slice(b";gr=");
                    self.text.extend_from_slice(row.instance);
                }
                let made = self.text.len() - start;
                let (before, composed) = self.text.split_at(start);
                if let Some(old) = old.filter(|old| old.slice(before) == composed) {
                    self.text.truncate(start);
                    return Some(old);
                }
                *changed = true;
                self.waste += old.map_or(0, |old| usize::from(old.len));
                short(start, made)
            }
            (GruuRule::PubGruu | GruuRule::None, _) => self.keep(b"", old, changed),
        }
    }

    /// Where `bytes` lie from now on, which lay at `old` before or were something else there.
    #[inline]
    fn keep(&mut self, bytes: &[u8], old: Option<Short>, changed: &mut bool) -> Option<Short> {
        let Some(old) = old else {
            *changed = true;
            return self.append(&[bytes]);
        };
        if old.slice(&self.text) == bytes {
            return Some(old);
        }
        *changed = true;
        if usize::from(old.len) == bytes.len() {
            // No text is shared, so the place is free for the new one.
            let start = usize::from(old.start);
            self.text[start..start + bytes.len()].copy_from_slice(bytes);
            return Some(old);
        }
        self.waste += usize::from(old.len);
        self.append(&[bytes])
    }

    #[inline]
    fn append(&mut self, parts: &[&[u8]]) -> Option<Short> {
        let start = self.text.len();
        let len = parts.iter().map(|part| part.len()).sum();
        let place = short(start, len)?;
        for part in parts {
            self.text.extend_from_slice(part);
        }
        Some(place)
    }

    /// Ends a merge: drops stale bindings and sums the others up into their devices.
    pub(crate) fn finish(&mut self, devices: &mut [Device]) {
        if self.rows.iter().any(|row| row.stale) {
            for row in self.rows.iter().filter(|row| row.stale) {
                devices[usize::from(row.device)].dirty = true;
                self.waste += usize::from(row.uri.len) + usize::from(row.target.len);
            }
            self.rows.retain(|row| !row.stale);
            self.dropped = true;
        }
        for device in &mut *devices {
            device.active = false;
        }
        for row in &self.rows {
            devices[usize::from(row.device)].add(row);
        }
        if self.dropped {
            self.drop_identities();
        }
        if self.waste > SLACK_BYTES {
            self.pack(devices);
        }
    }

    /// Drops identities without a binding.
    fn drop_identities(&mut self) {
        let mut used = 0_u64;
        for row in &self.rows {
            used |= 1 << row.identity;
        }
        for at in (0..self.identities.len()).rev() {
            if used & (1 << at) != 0 {
                continue;
            }
            self.waste += usize::from(self.identities.remove(at).aor.len);
            for row in &mut self.rows {
                row.identity -= u8::from(usize::from(row.identity) > at);
            }
        }
    }

    /// Rewrites the text without what nothing names.
    fn pack(&mut self, devices: &mut [Device]) {
        let base = self.text.len();
        let rows = self
            .rows
            .iter_mut()
            .flat_map(|row| [&mut row.uri, &mut row.target]);
        let identities = self.identities.iter_mut().map(|identity| &mut identity.aor);
        let instances = devices.iter_mut().map(|device| &mut device.instance);
        for text in rows.chain(identities).chain(instances) {
            let range = usize::from(text.start)..usize::from(text.start) + usize::from(text.len);
            let start = self.text.len() - base;
            self.text.extend_from_within(range);
            *text = short(start, usize::from(text.len))
                .expect("a packed text is shorter than the text it came from");
        }
        self.text.drain(..base);
        self.waste = 0;
    }

    /// Octets of its buffers.
    pub(crate) fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<Binding>()
            + self.identities.capacity() * size_of::<Identity>()
            + self.text.capacity()
    }

    /// Addresses and capacities of its buffers, to see that a warm merge touches none.
    #[cfg(test)]
    pub(crate) fn buffers(&self) -> [usize; 4] {
        [
            self.text.as_ptr() as usize,
            self.text.capacity(),
            self.rows.as_ptr() as usize,
            self.rows.capacity(),
        ]
    }
}

fn short(start: usize, len: usize) -> Option<Short> {
    let (Ok(start), Ok(len), true) = (
        u16::try_from(start),
        u16::try_from(len),
        start + len <= FULL.text,
    ) else {
        return None;
    };
    Some(Short { start, len })
}

/// Whether two states of one row differ in more than their texts and the time they have left.
fn differs(a: &Binding, b: &Binding) -> bool {
    (a.identity, a.id, a.features, a.q, a.rule) != (b.identity, b.id, b.features, b.q, b.rule)
}

const _: () = assert!(
    crate::registry::user::DEVICES_HELD_MAX <= u8::MAX as usize,
    "a binding names its device with an octet"
);
const _: () = assert!(
    FULL.identities <= u64::BITS as usize,
    "one bit for each identity"
);

crate::fold_fields!(Short { start, len });

crate::fold_fields!(Identity {
    id as digest,
    aor,
    sip,
    plain,
    learned
});
crate::fold_fields!(Binding {
    row as digest,
    id,
    expires_at,
    registered_at,
    uri,
    target,
    features,
    q,
    rule,
    device,
    identity,
    sip,
    stale,
});
crate::fold_fields!(Bindings {
    rows as list,
    identities as list,
    text,
    waste,
    dropped,
    full,
});
