//! What is known of one user, and how a registration document changes it (REG-2..10). Layer 3.

use crate::base::time::Timestamp;
use crate::base::time::UnixMillis;
use crate::reginfo::document::{
    ContactEvent, ContactRow, ContactStatus, Document, DocumentState, RegistrationRow,
    RegistrationStatus,
};
use crate::reginfo::subscription::Subscription;
use crate::registry::device::{Device, Merged, Row, deadline};
use crate::registry::features::{Features, unquoted};
use crate::registry::gruu::GruuPolicy;
use crate::registry::outcome::BindingId;
use crate::selection::Debounce;

/// Most devices held per user, absent ones with a history included.
pub const DEVICES_HELD_MAX: usize = 32;
/// Absent devices with nothing to remember are replaced once this many devices are held.
const DEVICES_EASY: usize = 8;

/// How registration documents are read. Ranges are checked where configuration is read.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// ICSIs of which a device needs one, plain URNs, best first (section 9.3 step 8). At most 32.
    pub accepted_icsi: Vec<Vec<u8>>,
    /// By which rules a device may be addressed.
    pub gruu: GruuPolicy,
    /// Read a full document with the version already known. Registrars exist whose version stays 0;
    /// for a true duplicate it changes nothing. Default true.
    pub full_at_equal_version: bool,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            accepted_icsi: vec![
                b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred".to_vec(),
                b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg".to_vec(),
            ],
            gruu: GruuPolicy::Strict,
            full_at_equal_version: true,
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

/// Preferences of a user, from provisioning (section 9.3, input U).
#[derive(Clone, Debug, Default)]
pub struct Preferences {
    /// Hold everything (`deferred.mode = hold`).
    pub hold: bool,
    /// Quiet hours: nothing before this moment.
    pub quiet_until: UnixMillis,
    /// Keys of the only devices allowed; empty allows all.
    pub allow: Vec<u64>,
    /// Keys of devices never to push to.
    pub deny: Vec<u64>,
    /// Key of the device to serve first; 0 for none.
    pub priority: u64,
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
    /// Preferences; defaults push at any time to any device.
    pub preferences: Preferences,
    /// Provisioned and served here.
    pub served: bool,
    /// Suspended or barred by the operator.
    pub barred: bool,
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
}

impl User {
    /// Makes this a fresh, served user. Buffers stay allocated, those of devices included.
    pub fn reset(&mut self, canonical: &[u8]) {
        for device in &mut self.devices {
            device.reset(0);
        }
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
        self.preferences.hold = false;
        self.preferences.quiet_until = UnixMillis::default();
        self.preferences.allow.clear();
        self.preferences.deny.clear();
        self.preferences.priority = 0;
        self.served = true;
        self.barred = false;
        self.debounce = Debounce::default();
        self.aliases.clear();
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

    /// Whether any device is active.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.devices.iter().any(|device| device.active)
    }

    /// Merges a document that arrived at `now`.
    ///
    /// A document out of order changes nothing. A warm merge in which no text differs allocates
    /// nothing.
    pub fn apply(
        &mut self,
        now: Timestamp,
        document: &Document,
        options: &RegistryOptions,
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
            device.begin(full);
        }
        for registration in &document.registrations {
            self.apply_registration(now, document, registration, options, &mut applied);
        }
        for device in &mut self.devices {
            let finished = device.finish(now);
            applied.changed |= finished.changed;
            applied.new_or_rebound_devices += u32::from(finished.triggers);
            applied.active_devices += u32::from(device.active);
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
        now: Timestamp,
        document: &Document,
        registration: &RegistrationRow,
        options: &RegistryOptions,
        applied: &mut Applied,
    ) {
        let id = fnv(document.text(registration.id));
        let active = registration.state == RegistrationStatus::Active;
        if !active {
            for device in &mut self.devices {
                device.drop_registration(id);
            }
        }
        let aor = document.text(registration.aor).trim_ascii();
        // The contacts of a user mostly show the same features: read once, compared after.
        let mut known = KnownFeatures::default();
        for contact in document.contacts_of(registration) {
            let mut row = row_of(now, document, contact, (options, &mut known));
            row.registration = id;
            row.row = mix(id, row.row);
            row.aor = aor;
            let alive = active && is_alive(contact);
            self.apply_contact(row, alive, options, applied);
        }
    }

    fn apply_contact(
        &mut self,
        row: Row<'_>,
        alive: bool,
        options: &RegistryOptions,
        applied: &mut Applied,
    ) {
        let key = match (row.instance, row.uri) {
            ([], []) => 0,
            ([], uri) => fnv(uri),
            (instance, _) => fnv_lower(instance),
        };
        // A row's id names one contact; notifiers reuse ids, so it may have been another device's.
        for device in &mut self.devices {
            if !(alive && device.key == key) {
                device.drop_row(row.row);
            }
        }
        if !alive {
            return;
        }
        let Some(device) = self.device_or_new(key) else {
            applied.overflow += 1;
            return;
        };
        let at = self.devices.iter().position(|held| held.key == device);
        let Some(at) = at else {
            return;
        };
        match self.devices[at].merge(&row, &self.identity, options.gruu) {
            Merged::Done => {}
            Merged::GruuRefused => applied.gruu_refused += 1,
            Merged::Overflow => applied.overflow += 1,
        }
    }

    /// Makes sure that a device named `key` is held; answers its key.
    fn device_or_new(&mut self, key: u64) -> Option<u64> {
        if key == 0 {
            return None;
        }
        if self.device(key).is_some() {
            return Some(key);
        }
        // After `reset` the vector holds blank devices: take those first.
        if let Some(blank) = self.devices.iter_mut().find(|device| device.key == 0) {
            blank.reset(key);
            return Some(key);
        }
        if self.devices.len() >= DEVICES_EASY
            && let Some(idle) = self
                .devices
                .iter_mut()
                .find(|device| device.is_forgettable(true))
        {
            idle.reset(key);
            return Some(key);
        }
        if self.devices.len() < DEVICES_HELD_MAX {
            let mut device = Device::default();
            device.reset(key);
            self.devices.push(device);
            return Some(key);
        }
        let idle = self
            .devices
            .iter_mut()
            .find(|device| device.is_forgettable(false))?;
        idle.reset(key);
        Some(key)
    }
}

/// Whether the contact is bound, by state, event and remaining life (REG-4).
fn is_alive(contact: &ContactRow) -> bool {
    contact.state == ContactStatus::Active
        && !contact.event.is_some_and(ContactEvent::terminates)
        && contact.expires_s != Some(0)
}

/// The last long parameter value read, and what it said.
#[derive(Debug, Default)]
struct KnownFeatures<'a> {
    name: &'a [u8],
    value: &'a [u8],
    said: Features,
}

impl<'a> KnownFeatures<'a> {
    fn add(
        &mut self,
        features: &mut Features,
        (name, value): (&'a [u8], &'a [u8]),
        accepted: &[Vec<u8>],
    ) {
        if self.value.is_empty() || self.name != name || self.value != value {
            let mut said = Features::default();
            said.add(name, value, accepted);
            *self = Self { name, value, said };
        }
        features.icsi |= self.said.icsi;
        features.refuses_invite |= self.said.refuses_invite;
        features.speaks |= self.said.speaks;
    }
}

fn row_of<'a>(
    now: Timestamp,
    document: &'a Document,
    contact: &ContactRow,
    (options, known): (&RegistryOptions, &mut KnownFeatures<'a>),
) -> Row<'a> {
    let mut features = Features::default();
    let mut instance: &[u8] = &[];
    for (name, value) in document.params_of(contact) {
        if name.eq_ignore_ascii_case(b"+sip.instance") {
            instance = bare_instance(value);
        } else {
            known.add(&mut features, (name, value), &options.accepted_icsi);
        }
    }
    let call_id = fnv(document.text(contact.call_id));
    let since = core::time::Duration::from_secs(u64::from(
        contact.duration_registered_s.unwrap_or_default(),
    ));
    Row {
        row: fnv(document.text(contact.id)),
        registration: 0,
        id: BindingId {
            call_id,
            register: mix(call_id, fnv(document.text(contact.cseq))),
        },
        expires_at: contact
            .expires_s
            .map_or(Timestamp::NEVER, |s| deadline(now, s)),
        registered_at: now - since,
        aor: &[],
        uri: document.text(contact.uri),
        pub_gruu: contact.pub_gruu.map(|gruu| document.text(gruu)),
        instance,
        features,
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

/// An instance id without its quotes and angle brackets.
fn bare_instance(value: &[u8]) -> &[u8] {
    let value = unquoted(value).trim_ascii();
    match value {
        [b'<', inner @ .., b'>'] => inner,
        _ => value,
    }
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
