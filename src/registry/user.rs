//! What is known of one user, and how a registration document changes it (REG-2..10). Layer 3.

use crate::base::foresee;
use crate::base::time::Timestamp;
use crate::reginfo::document::{
    ContactEvent, ContactRow, ContactStatus, Document, DocumentState, ParamKind, RegistrationRow,
    RegistrationStatus, Text,
};
use crate::reginfo::subscription::Subscription;
use crate::registry::bindings::{Bindings, Judge, Merged, Row};
use crate::registry::device::{Device, Target, deadline};
use crate::registry::features::{DialectRules, Features, KnownLists, marks_of};
use crate::registry::gruu::GruuPolicy;
use crate::registry::outcome::BindingId;
use crate::selection::Debounce;
use crate::selection::rules::Ruling;
use crate::sip::uri;

/// Most devices held per user, absent ones with a history included.
pub const DEVICES_HELD_MAX: usize = 32;
/// Absent devices with nothing to remember are replaced once this many devices are held.
const DEVICES_EASY: usize = 8;

/// How registration documents are read. Ranges are checked where configuration is read.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// ICSIs that are read, plain URNs; which of them a device needs is the policy's to say (section
    /// 9.3 step 8). At most 32.
    pub accepted_icsi: Vec<Vec<u8>>,
    /// Which handset dialect a device speaks.
    pub dialects: DialectRules,
    /// By which rules a device may be addressed.
    pub gruu: GruuPolicy,
    /// Read a full document with the version already known. Registrars exist whose version stays 0;
    /// for a true duplicate it changes nothing. Default true.
    pub full_at_equal_version: bool,
    /// Documents read in one turn; further ones are acknowledged unread and asked for again (SUB-9).
    pub documents_per_turn: u32,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            accepted_icsi: vec![
                b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred".to_vec(),
                b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg".to_vec(),
            ],
            dialects: DialectRules::default(),
            gruu: GruuPolicy::Strict,
            full_at_equal_version: true,
            documents_per_turn: 4096,
        }
    }
}

/// Where we stand in the notifier's sequence of documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistrationState {
    /// Version of the last document processed.
    pub version: u64,
    /// A document was processed in this subscription.
    pub known: bool,
}

impl RegistrationState {
    /// A new subscription starts: its first document sets the version, whatever that is.
    pub fn restart(&mut self) {
        self.known = false;
    }
}

/// Why a document was not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discarded {
    /// Its version is the one already known.
    Duplicate,
    /// Its version is lower than the one known.
    Outdated,
}

/// What a document did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Set when nothing was processed.
    pub discarded: Option<Discarded>,
    /// Something that selection looks at differs.
    pub changed: bool,
    /// Documents are missing: refresh the subscription for full state (REG-2).
    pub needs_refresh: bool,
    /// Devices that appeared, started anew, or were released from W, Q or B: a reason to decide.
    pub new_or_rebound_devices: u32,
    /// Devices active now.
    pub active_devices: u32,
    /// Rows whose GRUU is unfit for a request or not of its identity (BAD-23).
    pub gruu_refused: u32,
    /// Rows left out because a bound was reached.
    pub overflow: u32,
}

/// A user. Default, then [`User::reset`]; buffers stay when a slot is reused.
#[derive(Debug, Default)]
pub struct User {
    /// Public SIP identity: Request-URI and To of the SUBSCRIBE.
    pub identity: Vec<u8>,
    /// Key of the user (INT-11).
    pub canonical: Vec<u8>,
    /// Devices, present or remembered.
    pub devices: Vec<Device>,
    /// Where the subscription's documents stand.
    pub registration: RegistrationState,
    /// The subscription to the user's registration state.
    pub subscription: Subscription,
    /// Which rules of provider and user hold.
    pub ruling: Ruling,
    /// Provisioned and served here.
    pub served: bool,
    /// Suspended or barred by the operator.
    pub barred: bool,
    /// Whether the device that registered last roams, until it is known which one that was (IMS-6).
    pub visiting: Option<bool>,
    /// Spaces out decisions (SEL-2).
    pub debounce: Debounce,
    /// S-CSCF of the last third-party REGISTER (ISC-1): a URI, empty when unknown.
    pub scscf: Vec<u8>,
    /// P-Charging-Function-Addresses of the same, whole value (IMS-5).
    pub charging: Vec<u8>,
    /// `icid-value` of the same.
    pub icid: Vec<u8>,
    /// `orig-ioi` of the same.
    pub orig_ioi: Vec<u8>,
    pub(crate) aliases: Vec<u64>,
    bindings: Bindings,
    /// Length of the identity that GRUUs of `tel:` identities were last held against; it does not
    /// change once it is known.
    home_len: usize,
}

impl User {
    /// Makes this a fresh, served user. Buffers stay allocated.
    pub fn reset(&mut self, canonical: &[u8]) {
        self.devices.clear();
        self.bindings.clear();
        self.home_len = 0;
        for buffer in [
            &mut self.identity,
            &mut self.canonical,
            &mut self.scscf,
            &mut self.charging,
            &mut self.icid,
            &mut self.orig_ioi,
        ] {
            buffer.clear();
        }
        self.canonical.extend_from_slice(canonical);
        self.registration = RegistrationState::default();
        self.subscription.reset();
        self.ruling = Ruling::default();
        self.served = true;
        self.barred = false;
        self.visiting = None;
        self.debounce = Debounce::default();
        self.aliases.clear();
    }

    /// Asks for what a document is compared with.
    pub(crate) fn foresee(&self) {
        foresee::bring_whole(&self.devices[..]);
        self.bindings.foresee();
    }

    /// The device named `key`.
    #[must_use]
    pub fn device(&self, key: u64) -> Option<&Device> {
        self.devices.iter().find(|device| device.key == key)
    }

    /// The device named `key`, mutable.
    pub fn device_mut(&mut self, key: u64) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.key == key)
    }

    /// A registration of the user came from a network of its own operator or from another one. It is
    /// the only device's, or that of the device which the next document shows as new.
    pub fn saw_network(&mut self, roams: bool) {
        let mut active = self.devices.iter_mut().filter(|device| device.active);
        match (active.next(), active.next()) {
            (Some(device), None) => device.roaming = Some(roams),
            (None, _) | (Some(_), Some(_)) => self.visiting = Some(roams),
        }
    }

    /// Whether any device is active.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.devices.iter().any(|device| device.active)
    }

    fn index_of(&self, key: u64) -> Option<usize> {
        self.devices.iter().position(|device| device.key == key)
    }

    /// Where to send a message for `aor` to the device named `key`: by that identity, else by the
    /// first SIP identity, else by any (REG-9). Identities are compared as written, ignoring case.
    #[must_use]
    pub fn target_for(&self, key: u64, aor: &[u8]) -> Option<Target<'_>> {
        self.bindings.target_for(self.index_of(key)?, aor)
    }

    /// The instance id of `device` without quotes and angle brackets; empty when it has none.
    #[must_use]
    pub fn instance(&self, device: &Device) -> &[u8] {
        self.bindings.text(device.instance)
    }

    /// The contact URI of the first binding of the device named `key`; empty when it has none.
    #[must_use]
    pub fn contact_uri(&self, key: u64) -> &[u8] {
        self.index_of(key)
            .map_or(&[], |index| self.bindings.contact_uri(index))
    }

    /// Appends the Accept-Contact value that steers a request to `device` (PUSH-a2).
    pub fn write_accept_contact(&self, device: &Device, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*;+sip.instance=\"<");
        out.extend_from_slice(self.instance(device));
        out.extend_from_slice(b">\";require;explicit");
    }

    /// The next public identity from the `from`-th on that may not lead here yet, with its place for
    /// [`User::learned`].
    #[must_use]
    pub fn next_unlearned(&self, from: usize) -> Option<(usize, &[u8])> {
        self.bindings.next_unlearned(from)
    }

    /// The identity at `place` leads here, or never will.
    ///
    /// # Panics
    /// When there is none at that place.
    pub fn learned(&mut self, place: usize) {
        // A rule may name it.
        self.ruling.edition = 0;
        self.bindings.learned(place);
    }

    /// Whether a device is registered under the identity with the canonical form `name`.
    #[must_use]
    pub fn has_registered(&self, name: &[u8]) -> bool {
        let mut canonical = Vec::new();
        self.registered_identities().any(|identity| {
            canonical.clear();
            uri::canonical_identity(identity, &mut canonical).is_ok() && canonical == name
        })
    }

    /// The public identities under which devices are registered, as they were written.
    pub fn registered_identities(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.bindings.identities()
    }

    /// Merges a document that arrived at `now`. `lists` are known for the ICSIs of `options`.
    ///
    /// A document out of order changes nothing. A warm merge in which no text gets longer allocates
    /// nothing.
    pub fn apply(
        &mut self,
        now: Timestamp,
        document: &Document,
        options: &RegistryOptions,
        lists: &mut KnownLists,
    ) -> Applied {
        let mut applied = Applied::default();
        match self.judge(document, options) {
            Ok(needs_refresh) => applied.needs_refresh = needs_refresh,
            Err(discarded) => {
                applied.discarded = Some(discarded);
                return applied;
            }
        }
        self.registration = RegistrationState {
            version: document.version,
            known: true,
        };
        let full = document.state == DocumentState::Full;
        for device in &mut self.devices {
            device.begin();
        }
        self.bindings.begin(full);
        let mut merge = Merge {
            now,
            document,
            options,
            lists,
            again: self.home_len != self.identity.len(),
            next: 0,
            last_list: (Text::EMPTY, 0),
        };
        self.home_len = self.identity.len();
        for registration in &document.registrations {
            self.apply_registration(&mut merge, registration, &mut applied);
        }
        self.bindings.finish(&mut self.devices);
        let mut new = None;
        for (index, device) in self.devices.iter_mut().enumerate() {
            let finished = device.finish(now);
            if finished.triggers {
                new = Some(index);
            }
            applied.changed |= finished.changed;
            if finished.changed {
                device.dialect = options.dialects.pick(device.features, device.agents);
            }
            applied.new_or_rebound_devices += u32::from(finished.triggers);
            applied.active_devices += u32::from(device.active);
        }
        if let (Some(index), 1) = (new, applied.new_or_rebound_devices)
            && let Some(roams) = self.visiting.take()
        {
            self.devices[index].roaming = Some(roams);
        }
        applied
    }

    /// Whether to process, and if so whether documents are missing before this one (REG-2).
    fn judge(&self, document: &Document, options: &RegistryOptions) -> Result<bool, Discarded> {
        let full = document.state == DocumentState::Full;
        let RegistrationState {
            version: local,
            known,
        } = self.registration;
        if !known {
            // RFC 3680 section 5.2: a partial document has nothing to amend yet.
            return Ok(!full);
        }
        match document.version.cmp(&local) {
            core::cmp::Ordering::Less => Err(Discarded::Outdated),
            core::cmp::Ordering::Equal if full && options.full_at_equal_version => Ok(false),
            core::cmp::Ordering::Equal => Err(Discarded::Duplicate),
            core::cmp::Ordering::Greater => Ok(document.version - local > 1),
        }
    }

    fn apply_registration(
        &mut self,
        merge: &mut Merge<'_>,
        registration: &RegistrationRow,
        applied: &mut Applied,
    ) {
        let document = merge.document;
        let id = digest(document.text(registration.id));
        let active = registration.state == RegistrationStatus::Active;
        if !active {
            self.bindings.drop_registration(id, &mut self.devices);
        }
        let aor = document.text(registration.aor).trim_ascii();
        let mut identity = None;
        for contact in document.contacts_of(registration) {
            let row = mix(id, digest(document.text(contact.id)));
            let at = self.bindings.find(row, merge.next);
            if !(active && is_alive(contact)) {
                if let Some(at) = at {
                    self.bindings.remove(at, &mut self.devices);
                }
                continue;
            }
            identity = identity.or_else(|| self.bindings.identity(id, aor));
            let merged = match identity {
                Some(identity) => self.apply_contact(merge, contact, (row, at), identity),
                None => Merged::Overflow,
            };
            match merged {
                Merged::Done => {}
                Merged::GruuRefused => applied.gruu_refused += 1,
                Merged::Overflow => applied.overflow += 1,
            }
        }
    }

    fn apply_contact(
        &mut self,
        merge: &mut Merge<'_>,
        contact: &ContactRow,
        (row, mut at): (u64, Option<usize>),
        identity: u8,
    ) -> Merged {
        let row = merge.row_of(row, contact);
        let before = at.map(|at| self.bindings.device_at(at));
        let device = self.device_of(&row, before);
        // A row's id names one contact; notifiers reuse ids, so it may have been another device's.
        if let Some(held) = at
            && before != device
        {
            self.bindings.remove(held, &mut self.devices);
            at = None;
        }
        let Some(index) = device else {
            return Merged::Overflow;
        };
        let device = &mut self.devices[index];
        if device.instance.is_empty() && !row.instance.is_empty() {
            // The key says that it is the same instance, if written otherwise: the first form stays.
            let Some(kept) = self.bindings.keep_instance(row.instance) else {
                return Merged::Overflow;
            };
            device.instance = kept;
        }
        device.bound = true;
        merge.next = at.map_or(usize::MAX, |at| at + 1);
        let judge = Judge {
            policy: merge.options.gruu,
            home: &self.identity,
            again: merge.again,
        };
        let place = u8::try_from(index).expect("asserted where it is defined");
        self.bindings
            .merge(at, &row, (place, device), identity, judge)
    }

    /// Index of the device that a row is of, which is `before` as a rule; made if need be. `None`
    /// when it has no name or there is no place for it.
    fn device_of(&mut self, row: &Row<'_>, before: Option<usize>) -> Option<usize> {
        if !row.instance.is_empty() {
            let is_it = |device: &Device| self.bindings.text(device.instance) == row.instance;
            if before.is_some_and(|index| is_it(&self.devices[index])) {
                return before;
            }
            if let Some(index) = self.devices.iter().position(is_it) {
                return Some(index);
            }
        }
        let key = match (row.instance, row.uri) {
            ([], []) => return None,
            ([], uri) => fnv(uri),
            (instance, _) => fnv_lower(instance),
        };
        self.index_of(key).or_else(|| self.new_device(key))
    }

    /// A place for a device named `key`, which is not held yet.
    fn new_device(&mut self, key: u64) -> Option<usize> {
        let idle = |devices: &[Device], easy| {
            devices
                .iter()
                .position(|device| device.is_forgettable(easy))
        };
        let easy = (self.devices.len() >= DEVICES_EASY)
            .then(|| idle(&self.devices, true))
            .flatten();
        let index = match easy {
            Some(index) => index,
            None if self.devices.len() < DEVICES_HELD_MAX => {
                self.devices.push(Device::default());
                self.devices.len() - 1
            }
            None => idle(&self.devices, false)?,
        };
        let device = &mut self.devices[index];
        self.bindings.drop_instance(device.instance);
        device.reset(key);
        Some(index)
    }

    /// Octets that it owns beside its place in the table, by part: the user's own texts and bindings, and
    /// its devices.
    #[must_use]
    pub fn memory(&self) -> (usize, usize) {
        let texts = [
            &self.identity,
            &self.canonical,
            &self.scscf,
            &self.charging,
            &self.icid,
            &self.orig_ioi,
        ];
        let texts: usize = texts.iter().map(|text| text.capacity()).sum();
        let aliases = self.aliases.capacity() * size_of::<u64>();
        let own: usize = self.devices.iter().map(Device::memory).sum();
        let devices = self.devices.capacity() * size_of::<Device>() + own;
        (texts + aliases + self.bindings.memory(), devices)
    }

    /// Addresses and capacities of its buffers, to see that a warm merge touches none.
    #[cfg(test)]
    pub(crate) fn buffers(&self) -> [usize; 4] {
        self.bindings.buffers()
    }
}

impl User {
    /// What is written of it is all there is.
    #[must_use]
    pub fn is_foldable(&self) -> bool {
        self.subscription.is_quiet() && self.devices.iter().all(Device::is_foldable)
    }
}

crate::fold_fields!(RegistrationState { version, known });

crate::fold_fields!(User {
    identity,
    canonical,
    devices as list,
    registration,
    subscription,
    ruling,
    served,
    barred,
    visiting,
    debounce,
    scscf,
    charging,
    icid,
    orig_ioi,
    aliases as list,
    bindings,
    home_len,
});

/// A merge under way.
#[derive(Debug)]
struct Merge<'a> {
    now: Timestamp,
    document: &'a Document,
    options: &'a RegistryOptions,
    lists: &'a mut KnownLists,
    /// Known GRUUs are to be judged again.
    again: bool,
    /// Where the binding of the next row is likely to be.
    next: usize,
    /// The ICSI list last read, and what it said.
    last_list: (Text, u32),
}

/// Whether the contact is bound, by state, event and remaining life (REG-4).
fn is_alive(contact: &ContactRow) -> bool {
    contact.state == ContactStatus::Active
        && !contact.event.is_some_and(ContactEvent::terminates)
        && contact.expires_s != Some(0)
}

impl<'a> Merge<'a> {
    fn row_of(&mut self, row: u64, contact: &ContactRow) -> Row<'a> {
        let (now, document) = (self.now, self.document);
        let call_id = digest(document.text(contact.call_id));
        let since = core::time::Duration::from_secs(u64::from(
            contact.duration_registered_s.unwrap_or_default(),
        ));
        Row {
            row,
            id: BindingId {
                call_id,
                register: mix(call_id, digest(document.text(contact.cseq))),
            },
            expires_at: contact
                .expires_s
                .map_or(Timestamp::NEVER, |s| deadline(now, s)),
            registered_at: now - since,
            uri: document.text(contact.uri),
            pub_gruu: contact.pub_gruu.map(|gruu| document.text(gruu)),
            instance: document.text(contact.instance),
            features: self.features_of(contact),
            q: contact.q,
            announced: match contact.event {
                Some(ContactEvent::Registered | ContactEvent::Created) => true,
                Some(
                    ContactEvent::Refreshed
                    | ContactEvent::Shortened
                    | ContactEvent::Expired
                    | ContactEvent::Deactivated
                    | ContactEvent::Probation
                    | ContactEvent::Unregistered
                    | ContactEvent::Rejected,
                )
                | None => false,
            },
        }
    }

    fn features_of(&mut self, contact: &ContactRow) -> Features {
        let (document, accepted) = (self.document, &self.options.accepted_icsi);
        let mut features = Features::default();
        for param in document.param_rows_of(contact) {
            match param.kind {
                ParamKind::Instance => {}
                ParamKind::IcsiRef => {
                    features.speaks = true;
                    if self.last_list.0 != param.value || param.value.is_empty() {
                        let value = document.text(param.value);
                        self.last_list = (param.value, self.lists.icsi(value, accepted));
                    }
                    features.icsi |= self.last_list.1;
                }
                ParamKind::Other => {
                    let (name, value) = (document.text(param.name), document.text(param.value));
                    let mut said = Features::default();
                    said.add(name, value, accepted);
                    features.icsi |= said.icsi;
                    features.refuses_invite |= said.refuses_invite;
                    features.speaks |= said.speaks;
                    features.marks |= marks_of(name, value, &self.options.dialects.features);
                }
            }
        }
        features
    }
}

/// A digest to compare texts by; not keyed, never zero, good within this process only.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut take = |word: u64| {
        hash = (hash ^ word).wrapping_mul(FACTOR);
        hash ^= hash >> 29;
    };
    for word in words {
        take(u64::from_le_bytes(*word));
    }
    take(
        rest.iter()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    );
    hash.wrapping_mul(FACTOR).max(1)
}

/// FNV-1a, 64 bits; never zero, which names no device.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    fnv_of(bytes.iter().copied())
}

fn fnv_lower(bytes: &[u8]) -> u64 {
    fnv_of(bytes.iter().map(u8::to_ascii_lowercase))
}

fn fnv_of(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.max(1)
}

fn mix(a: u64, b: u64) -> u64 {
    (a.rotate_left(23) ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The key a device with this instance id (without quotes and brackets) has.
#[must_use]
pub fn device_key(instance: &[u8]) -> u64 {
    fnv_lower(instance)
}

#[cfg(test)]
mod tests;
