//! Users and their devices, as registration documents and push outcomes make them. Layer 3.
//!
//! [`Registry`] finds a user by any of its identities; [`User::apply`] merges documents (REG-2..10);
//! [`outcome`] says what the end of a push means for a device (RSP-1..31). Not here: which devices
//! to push to (`selection`), the messages themselves (`store`), anything on the wire.

mod bindings;
pub mod device;
pub mod features;
pub mod gruu;
mod identities;
pub mod losses;
pub mod outcome;
pub mod user;

use core::hash::{BuildHasher, Hasher};

use crate::base::fold::{Fold, Reader, Writer};
use crate::base::foresee;
use crate::base::map::MapKeys;
use crate::base::pool::{Idle, Peek, Pool};
use crate::base::slab::Key;
use crate::sip::uri;

use identities::{Hashes, Identities};

pub use device::{Device, Followup, Outcome, Target};
pub use gruu::{GruuPolicy, GruuRule};
pub use outcome::{BindingId, Class, DeviceState, Facts, OutcomeOptions, classify};
pub use user::{Applied, Discarded, RegistrationState, RegistryOptions, User, device_key};

/// Identities of one user that lead to it, its canonical one included.
pub const IDENTITIES_MAX: usize = 32;

/// A user with whatever else its owner keeps per user (the mailbox, with the shard).
#[derive(Debug, Default)]
pub struct Entry<X> {
    /// The user.
    pub user: User,
    /// The owner's part. Left as it is when a slot is reused: reset it.
    pub extra: X,
}

/// What an owner keeps with each user.
pub trait Extra: Default + core::fmt::Debug + Fold {
    /// Nothing is under way that is not written.
    fn is_idle(&self) -> bool {
        true
    }
}

impl<X: Extra> Idle for Entry<X> {
    type Keeper = ();

    fn is_idle(&self) -> bool {
        self.extra.is_idle() && self.user.is_foldable()
    }

    fn fold(&self, out: &mut Writer<'_>) {
        self.user.fold(out);
        self.extra.fold(out);
    }

    fn unfold(&mut self, (): &(), _: Key, from: &mut Reader<'_>) {
        self.user.unfold(from);
        self.extra.unfold(from);
    }
}

/// All users of a shard; bounded, allocation-free once warm.
///
/// Identities are kept as two independent keyed hashes, not as text: a lookup that meets both
/// by accident has odds of 2^-96 per pair, and the keys are secret.
#[derive(Debug)]
pub struct Registry<X: Extra> {
    entries: Pool<Entry<X>>,
    by_identity: Identities,
    keys: [ahash::RandomState; 2],
    /// Canonical identities that lead to one user although another one registered them too, with that
    /// other one; mostly none.
    contested: Vec<(Vec<u8>, Key)>,
}

/// Contested identities remembered at a time.
pub const CONTESTED_MAX: usize = 1024;

impl<X: Extra> Registry<X> {
    /// A registry for at most `bound` users, `warm` of them allocated up front; `kept_warm` are never
    /// folded.
    ///
    /// # Panics
    /// As [`Pool::new`].
    #[must_use]
    pub fn new(keys: MapKeys, bound: usize, warm: usize, kept_warm: usize) -> Self {
        let [a, b, c, d] = keys.0;
        let hashers = [
            keys.hasher(),
            MapKeys([!b, d ^ 0x5bd1_e995, a, !c]).hasher(),
        ];
        Self {
            entries: Pool::new((), bound, warm, kept_warm),
            by_identity: Identities::with_capacity(warm.saturating_mul(2)),
            keys: hashers,
            contested: Vec::new(),
        }
    }

    /// Users held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// `true` when no user is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The user with the canonical identity `identity` (INT-11), own or alias.
    #[must_use]
    pub fn lookup(&self, identity: &[u8]) -> Option<Key> {
        self.by_identity.lookup(self.hashes(identity))
    }

    /// As [`Registry::lookup`], making the user when there is none; the flag says whether it is new.
    ///
    /// `None` when the registry is full.
    pub fn lookup_or_create(&mut self, identity: &[u8]) -> Option<(Key, bool)> {
        let hashes = self.hashes(identity);
        if let Some(key) = self.by_identity.lookup(hashes) {
            return Some((key, false));
        }
        let (key, entry) = self.entries.insert()?;
        entry.user.reset(identity);
        entry.user.aliases.push(hashes.place);
        self.by_identity.insert(hashes, key);
        Some((key, true))
    }

    /// Makes `identity` lead to `key` too, as the other identities of an implicit set do.
    ///
    /// False when it leads to another user already, or the user has too many.
    pub fn alias(&mut self, key: Key, identity: &[u8]) -> bool {
        let hashes = self.hashes(identity);
        if let Some(found) = self.by_identity.lookup(hashes) {
            return found == key;
        }
        let Some(entry) = self.entries.lookup_mut(key) else {
            return false;
        };
        if entry.user.aliases.len() == IDENTITIES_MAX {
            return false;
        }
        entry.user.aliases.push(hashes.place);
        self.by_identity.insert(hashes, key);
        true
    }

    /// A NOTIFY of user `key` has the canonical identity `name`, which leads to another user. When that
    /// one has it registered as well, and the two share no device, nobody can say whose it is (BAD-14).
    pub fn contest(&mut self, key: Key, name: &[u8]) {
        let Some(owner) = self.lookup(name).filter(|&owner| owner != key) else {
            return;
        };
        let known = self.contested.iter().any(|(known, _)| known == name);
        if !known && self.contested.len() < CONTESTED_MAX && self.is_shared(owner, key, name) {
            self.contested.push((name.to_vec(), key));
        }
    }

    /// Whether the public identity `identity` is of two users. One that no longer is, is forgotten.
    #[inline]
    pub fn is_contested(&mut self, identity: &[u8]) -> bool {
        !self.contested.is_empty() && self.find_contest(identity)
    }

    #[cold]
    fn find_contest(&mut self, identity: &[u8]) -> bool {
        let mut name = Vec::new();
        if uri::canonical_identity(identity, &mut name).is_err() {
            return false;
        }
        let Some(at) = self.contested.iter().position(|(known, _)| *known == name) else {
            return false;
        };
        let rival = self.contested[at].1;
        let owner = self.lookup(&name);
        let holds = owner.is_some_and(|owner| self.is_shared(owner, rival, &name));
        if !holds {
            self.contested.swap_remove(at);
        }
        holds
    }

    /// Whether both users have `name` registered and no device in common.
    fn is_shared(&self, owner: Key, rival: Key, name: &[u8]) -> bool {
        let (Some(owner), Some(rival)) = (self.entry(owner), self.entry(rival)) else {
            return false;
        };
        let (owner, rival) = (&owner.user, &rival.user);
        let active = |user: &User, key| user.device(key).is_some_and(|device| device.active);
        let mut devices = owner.devices.iter().filter(|device| device.active);
        owner.has_registered(name)
            && rival.has_registered(name)
            && !devices.any(|device| active(rival, device.key))
    }

    /// The entry of `key`, for a look; see [`Pool::peek`].
    #[must_use]
    pub fn entry(&self, key: Key) -> Option<Peek<'_, Entry<X>>> {
        self.entries.peek(key)
    }

    /// Asks for the entry of `key`, which is going to be looked up: its own octets first.
    #[inline]
    pub fn foresee(&self, key: Key) {
        self.entries.foresee(key.slot, size_of::<Entry<X>>());
    }

    /// Then for its devices.
    #[inline]
    pub fn foresee_devices(&self, key: Key) {
        if let Some(entry) = self.entries.lookup_warm(key) {
            foresee::bring_whole(&entry.user.devices[..]);
        }
    }

    /// Or for the texts and tables that a document is compared with.
    pub fn foresee_merge(&self, key: Key) {
        if let Some(entry) = self.entries.lookup_warm(key) {
            entry.user.foresee();
        }
    }

    /// Folds what is idle; see [`Pool::tidy`].
    pub fn tidy(&mut self, most: usize, folds: usize) -> usize {
        self.entries.tidy(most, folds)
    }

    /// See [`Pool::is_untidy`].
    #[must_use]
    #[inline]
    pub fn is_untidy(&self) -> bool {
        self.entries.is_untidy()
    }

    /// Users that are warm, and places for such.
    #[must_use]
    pub fn warm(&self) -> (usize, usize) {
        (self.entries.warm_len(), self.entries.warm_places())
    }

    /// See [`Pool::cold`].
    #[must_use]
    pub const fn cold(&self) -> (usize, usize) {
        self.entries.cold()
    }

    /// The entry in `slot` if it is warm.
    #[must_use]
    pub fn warm_of(&self, slot: u32) -> Option<&Entry<X>> {
        self.entries.warm_of(slot)
    }

    /// The entry of `key`, mutable.
    pub fn entry_mut(&mut self, key: Key) -> Option<&mut Entry<X>> {
        self.entries.lookup_mut(key)
    }

    /// Makes room for `users` at once, within the bound: growing step by step copies.
    pub fn reserve(&mut self, users: usize) {
        let users = users.min(self.entries.bound());
        self.entries.reserve(users);
        self.by_identity.reserve(users);
    }

    /// The entry in `slot`, whatever its generation.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<Peek<'_, Entry<X>>> {
        self.entries.at(slot)
    }

    /// Octets of the table of users, and of the one that finds them by their identities; what a user
    /// owns besides says [`User::memory`].
    #[must_use]
    pub fn memory(&self) -> (usize, usize) {
        (self.entries.memory(), self.by_identity.memory())
    }

    /// The user of `key`, mutable.
    pub fn user_mut(&mut self, key: Key) -> Option<&mut User> {
        self.entries.lookup_mut(key).map(|entry| &mut entry.user)
    }

    /// Keys of all users, in slot order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.entries.keys()
    }

    /// Slots of users, taken or not.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.entries.slots()
    }

    /// The user in `slot`, if there is one.
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        self.entries.key_at(slot)
    }

    /// Forgets a user and all its identities.
    ///
    /// # Panics
    /// When `key` is stale.
    pub fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.lookup_mut(key) {
            for place in entry.user.aliases.drain(..) {
                self.by_identity.remove(place, key);
            }
        }
        self.entries.remove(key);
    }

    fn hashes(&self, identity: &[u8]) -> Hashes {
        let hash = |state: &ahash::RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write(identity);
            hasher.finish()
        };
        Hashes {
            place: hash(&self.keys[0]),
            check: (hash(&self.keys[1]) >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Extra for u32 {}

    fn registry(bound: usize) -> Registry<u32> {
        Registry::new(MapKeys([1, 2, 3, 4]), bound, 1, 0)
    }

    // Proves: INT-11
    #[test]
    fn every_identity_of_a_user_leads_to_it_until_it_is_removed() {
        let mut registry = registry(4);
        let (alice, new) = registry.lookup_or_create(b"+1555").unwrap();
        assert!(new);
        assert!(registry.alias(alice, b"alice@ims.example"));
        assert_eq!(
            registry.lookup_or_create(b"alice@ims.example"),
            Some((alice, false))
        );
        let (bob, _) = registry.lookup_or_create(b"+1556").unwrap();
        assert!(
            !registry.alias(bob, b"alice@ims.example"),
            "taken identities stay where they are"
        );
        registry.remove(alice);
        assert_eq!(registry.lookup(b"+1555"), None);
        assert_eq!(registry.lookup(b"alice@ims.example"), None);
        assert_eq!(registry.lookup(b"+1556"), Some(bob));
        assert_eq!(registry.keys().count(), 1);
    }

    #[test]
    fn a_full_registry_refuses_new_users_and_keeps_the_old() {
        let mut registry = registry(1);
        let (key, _) = registry.lookup_or_create(b"a").unwrap();
        assert_eq!(registry.lookup_or_create(b"b"), None);
        assert_eq!(registry.lookup(b"b"), None);
        registry.remove(key);
        assert!(registry.lookup_or_create(b"b").is_some());
    }

    #[test]
    fn room_is_made_for_no_more_users_than_may_be() {
        let mut registry = registry(100);
        registry.reserve(usize::MAX);
        let (_, index) = registry.memory();
        assert!(index < 100 * 64, "{index}");
        for number in 0..100_u32 {
            assert!(registry.lookup_or_create(&number.to_be_bytes()).is_some());
        }
        assert_eq!(registry.memory().1, index, "it did not grow");
    }

    #[test]
    fn a_reused_slot_shows_nothing_of_its_last_user() {
        let mut registry = registry(1);
        let (key, _) = registry.lookup_or_create(b"a").unwrap();
        let user = registry.user_mut(key).unwrap();
        user.barred = true;
        user.identity.extend_from_slice(b"sip:a@h");
        registry.remove(key);
        let (key, _) = registry.lookup_or_create(b"b").unwrap();
        let user = registry.user_mut(key).unwrap();
        assert!(!user.barred && user.served && user.identity.is_empty());
        assert_eq!(user.canonical, b"b");
    }
}
