//! What a store holds, learnt without a shard: for `volley store`.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::surface::Location;
use crate::io::store::Recovery;
use crate::store::checkpoint::{self, Item};
use crate::store::index::Fate;
use crate::store::op::{Deposit, DepositFlags, Ledger, MarkKind};
use crate::store::record::{self, Record};

/// A pending message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Places of the parts it lies in, of a message that does; a look at a checkpoint has none.
    pub parts: Vec<Location>,
    /// Where its deposit lies.
    pub at: Location,
    /// When it expires, seconds since 1970.
    pub expires_s: u32,
    /// Octets of its body.
    pub bytes: u32,
    /// Devices that decided on it.
    pub devices: Vec<(u64, Fate)>,
}

/// Everything pending, by number, with the books. Fed by a look at a store.
#[derive(Debug, Default)]
pub struct Replay {
    /// Pending messages.
    pub held: BTreeMap<u64, Held>,
    /// The books: those of the checkpoint, or counted from the first record that is there.
    pub ledger: Ledger,
    /// Deposits read.
    pub deposits: u64,
    /// Marks read.
    pub marks: u64,
    /// Records and pieces nobody understands.
    pub unreadable: u64,
    /// Keys of users with messages; a hash each.
    users: BTreeMap<u64, u64>,
    owners: BTreeMap<u64, u64>,
    /// Progress, for people: called with the segment whenever it changes.
    pub progress: Option<Progress>,
    segment: u32,
    /// A checkpoint came first.
    saved: bool,
}

/// Draws how far a look has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress(pub fn(u32));

fn places(deposit: &Deposit<'_>) -> Vec<Location> {
    let parts = deposit.parts();
    parts.map_or_else(Vec::new, |list| list.places().collect())
}

fn owner(canonical: &[u8]) -> u64 {
    use core::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher24::new_with_keys(3, 7);
    hasher.write(canonical);
    hasher.finish()
}

impl Replay {
    /// An empty one that shows how far it is.
    #[must_use]
    pub fn watched(progress: Option<Progress>) -> Self {
        Self {
            progress,
            ..Self::default()
        }
    }

    /// Users with pending messages.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Octets of pending bodies.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.held.values().map(|held| u64::from(held.bytes)).sum()
    }

    /// Octets of live records in each segment.
    #[must_use]
    pub fn live_bytes(&self) -> BTreeMap<u32, u64> {
        let mut live = BTreeMap::new();
        for held in self.held.values() {
            *live.entry(held.at.segment).or_default() += u64::from(held.at.len);
        }
        live
    }

    /// Numbers of what is pending here and there but not in both, some of them.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Vec<u64> {
        let ours: BTreeSet<_> = self.held.keys().collect();
        let theirs: BTreeSet<_> = other.held.keys().collect();
        ours.symmetric_difference(&theirs)
            .take(10)
            .map(|&&number| number)
            .collect()
    }

    /// Whether the books and what is pending agree.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.ledger.balances(self.held.len() as u64)
    }

    fn add(&mut self, number: u64, canonical: u64, held: Held) {
        self.held.insert(number, held);
        if self.owners.insert(number, canonical).is_none() {
            *self.users.entry(canonical).or_default() += 1;
        }
    }

    fn take(&mut self, number: u64) -> bool {
        if self.held.remove(&number).is_none() {
            return false;
        }
        if let Some(owner) = self.owners.remove(&number)
            && let Some(count) = self.users.get_mut(&owner)
        {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&owner);
            }
        }
        true
    }

    fn show(&mut self, segment: u32) {
        if let Some(Progress(show)) = self.progress
            && self.segment != segment
        {
            self.segment = segment;
            show(segment);
        }
    }
}

impl Recovery for Replay {
    fn piece(&mut self, bytes: &[u8]) -> bool {
        for item in checkpoint::items(bytes) {
            match item {
                Ok(Item::Start(start)) => {
                    self.ledger = start.ledger;
                    self.saved = true;
                }
                Ok(Item::Parts { .. } | Item::Segment(_)) => {}
                Ok(Item::User(user)) => {
                    let keys: Vec<u64> = user.devices().collect();
                    let owner = owner(user.canonical);
                    for entry in user.entries() {
                        let decided =
                            keys.iter().take(32).enumerate().filter_map(|(slot, &key)| {
                                let bit = |bits: u32| bits >> slot & 1 == 1;
                                match (bit(entry.delivered), bit(entry.refused)) {
                                    (true, _) => Some((key, Fate::Delivered)),
                                    (false, true) => Some((key, Fate::Refused)),
                                    (false, false) => None,
                                }
                            });
                        let held = Held {
                            parts: Vec::new(),
                            at: entry.location,
                            expires_s: entry.expires_s,
                            bytes: entry.bytes,
                            devices: decided.collect(),
                        };
                        self.add(entry.number, owner, held);
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn restart(&mut self) {
        *self = Self::watched(self.progress);
    }

    fn record(&mut self, at: Location, payload: &[u8]) {
        self.show(at.segment);
        match record::decode(payload) {
            Ok(Record::Deposit(deposit)) => {
                self.deposits += 1;
                // A copy is no new message; the books of a checkpoint have every message of which
                // copies come later.
                let is_copy = deposit.flags.contains(DepositFlags::COPY);
                if let Some(held) = self.held.get_mut(&deposit.number) {
                    // Known from the checkpoint, whose books do not have it yet; or written again
                    // to another place.
                    self.ledger.deposited += u64::from(self.saved && !is_copy);
                    held.at = at;
                    held.parts = places(&deposit);
                    return;
                }
                self.ledger.deposited += u64::from(!(self.saved && is_copy));
                let held = Held {
                    parts: places(&deposit),
                    at,
                    expires_s: u32::try_from(deposit.expires.as_secs()).unwrap_or(u32::MAX),
                    bytes: u32::try_from(deposit.body_bytes()).unwrap_or(u32::MAX),
                    devices: Vec::new(),
                };
                self.add(deposit.number, owner(deposit.user), held);
            }
            // Counts with the deposit that names it.
            Ok(Record::Part(_)) => {}
            Ok(Record::Mark(mark)) => {
                self.marks += 1;
                let fate = match mark.kind {
                    MarkKind::Delivered { device, .. } => (device, Fate::Delivered),
                    MarkKind::Refused { device, .. } => (device, Fate::Refused),
                    MarkKind::Removed { reason } => {
                        // The books of a checkpoint have every deposit of which marks come later.
                        if self.take(mark.number) || self.saved {
                            self.ledger.removed(reason);
                        }
                        return;
                    }
                };
                if let Some(held) = self.held.get_mut(&mark.number)
                    && !held.devices.contains(&fate)
                {
                    held.devices.push(fate);
                }
            }
            Err(_) => self.unreadable += 1,
        }
    }
}
