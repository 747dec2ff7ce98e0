//! What a shard keeps in memory of its store (layer 3): places, deadlines and device bits; bodies
//! stay on disk.
//!
//! A [`Mailbox`] belongs to one user. A [`SegmentTable`] belongs to one shard and says which
//! segments may go. Neither reads a clock or allocates once its buffers have grown.
//!
//! Rules of reclaiming, which make sure that no message comes back:
//! * a deposit matters until its `Removed` mark is durable;
//! * a mark matters as long as the segment of its deposit exists, because recovery reads deposits
//!   again whether or not their marks are still there.

use std::collections::VecDeque;

use crate::base::foresee;
use crate::base::surface::Location;
use crate::store::op::{DepositFlags, Evidence, Hints, MarkKind, MediaLimit, STATUS_UNKNOWN};

mod folded;
mod put_off;
mod segments;
mod snapshot;

pub use segments::{CleanOptions, SegmentTable, VICTIMS_MAX};

/// Device keys one mailbox tells apart: those that took a message which is still here, and those that one is
/// meant for alone. A device beyond them gets none until a message leaves: it is not selected (`D-NO-PLACE`).
pub const MAILBOX_DEVICES_MAX: usize = 32;
/// Devices that the messages of one mailbox may be meant for alone (INT-12). A sender names them, and nobody
/// need ever have registered one: the other slots stay for devices that do get messages.
pub const MAILBOX_TARGETS_MAX: u32 = 8;
const _: () = assert!(
    (MAILBOX_TARGETS_MAX as usize) < MAILBOX_DEVICES_MAX,
    "a device that took a message must find a slot"
);
/// Messages that left a mailbox whose repeats are still recognised (INT-4).
pub const RECENT_MAX: usize = 16;

/// Seconds until an expired message that is in transfer is looked at again.
pub const RECHECK_S: u32 = 10;

/// Set in `Entry::bits` once the deposit is durable.
const DURABLE: u8 = 0x80;
const _: () = assert!(
    DepositFlags::ALL.bits() & DURABLE == 0,
    "one byte holds both"
);
const _: () = assert!(
    size_of::<Entry>() <= 48,
    "the target of the design per pending message"
);
const _: () = assert!(
    size_of::<Mailbox>() <= 64,
    "the target of the design per user"
);

/// One message of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    number: u64,
    dedupe: u64,
    location: Location,
    expires_s: u32,
    bytes: u32,
    delivered: u32,
    refused: u32,
    /// Slot of the only device that may get it, plus one; zero for every device.
    target: u8,
    bits: u8,
    hints: Hints,
}

impl Entry {
    /// Place in the shard's order of intake.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Where the deposit lies; `None` until it is durable.
    #[must_use]
    pub const fn location(&self) -> Option<Location> {
        if self.bits & DURABLE == 0 {
            None
        } else {
            Some(self.location)
        }
    }

    /// From when on no SEND may start, seconds since 1970 (LIFE-2).
    #[must_use]
    pub const fn expires_s(&self) -> u32 {
        self.expires_s
    }

    /// Octets of the body, as counted by the quota.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Facts about the message.
    #[must_use]
    pub fn flags(&self) -> DepositFlags {
        DepositFlags::from_bits(self.bits & !DURABLE).expect("only flags were put in")
    }

    /// What decisions look at besides.
    #[must_use]
    pub const fn hints(&self) -> Hints {
        self.hints
    }

    /// `true` once a device has it.
    #[must_use]
    pub const fn is_delivered(&self) -> bool {
        self.delivered != 0
    }
}

/// Bounds of one mailbox (INT-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Most messages. Default: 1,000.
    pub messages_max: u32,
    /// Most octets of bodies. Default: 8 MiB.
    pub bytes_max: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            messages_max: 1000,
            bytes_max: 8 << 20,
        }
    }
}

/// What a mailbox needs to know of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewEntry {
    /// Place in the shard's order of intake.
    pub number: u64,
    /// [`Deposit::dedupe`](crate::store::op::Deposit::dedupe); zero is never a repeat.
    pub dedupe: u64,
    /// When it expires, seconds since 1970.
    pub expires_s: u32,
    /// Octets of the body.
    pub bytes: u32,
    /// Key of the only device that may get it; zero for every device (INT-12).
    pub target: u64,
    /// Pushes of the user under way, whose devices may each need a slot of their own yet.
    pub pushes: u32,
    /// Facts about it.
    pub flags: DepositFlags,
    /// What decisions look at besides.
    pub hints: Hints,
}

/// Answer of [`Mailbox::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has its place; append the deposit, then call [`Mailbox::stored`] or [`Mailbox::cancel`].
    Accepted,
    /// A repeat of a message that is here (INT-4): 202 at once, or once that one is durable.
    Repeat {
        /// Number of the message that is here.
        number: u64,
        /// Whether that one is durable already.
        durable: bool,
    },
    /// A repeat of a message that left the mailbox within its life: 202, nothing stored.
    RepeatOfRemoved,
    /// No room: 480 with Retry-After, never 503 (INT-9).
    Full,
}

/// What a device did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has it.
    Delivered,
    /// It will not take it.
    Refused,
}

impl Fate {
    /// The mark that says it of `device` again, of what the index keeps: neither evidence nor status.
    #[must_use]
    pub const fn again(self, device: u64) -> MarkKind {
        match self {
            Self::Delivered => MarkKind::Delivered {
                device,
                by: Evidence::Report,
            },
            Self::Refused => MarkKind::Refused {
                device,
                status: STATUS_UNKNOWN,
            },
        }
    }
}

/// Answer of [`Mailbox::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// New: worth a durable mark.
    Recorded,
    /// Known before.
    Repeated,
    /// The message is not here (expired or removed meanwhile), or the key is no device's.
    Unknown,
}

/// When a delivered message leaves the store (DLV-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// One device has it.
    Any,
    /// One device has it and no selected device still waits for it.
    #[default]
    EachSelected,
    /// Its life ended: devices that appear until then get it too.
    UntilExpiry,
}

/// The queue of one user: oldest first by number (LIFE-4). Owner: the user's row in the registry.
///
/// `Default` is empty and owns no memory; [`Mailbox::reset`] makes a used one empty and keeps its
/// buffers. Numbers are unique; entries are kept in their order whatever order they come in.
#[derive(Debug)]
pub struct Mailbox {
    entries: VecDeque<Entry>,
    extra: Option<Box<Extra>>,
    bytes: u64,
    /// Not later than the earliest expiry of any durable entry; `u32::MAX` in an empty mailbox.
    earliest_s: u32,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            extra: None,
            bytes: 0,
            earliest_s: u32::MAX,
        }
    }
}

/// Octets of entries that are asked for of an empty mailbox, which is about to get some.
const FORESEEN_BYTES: usize = 64;

/// What most mailboxes never need.
#[derive(Debug, Default)]
struct Extra {
    /// Key of each slot of the device bits; zero is free.
    devices: Vec<u64>,
    /// Dedupe hash and expiry of messages that left, oldest first.
    recent: VecDeque<(u64, u32)>,
    /// By number, which devices do without a message for now, as bits of their slots. Nothing on disk says so.
    put_off: Vec<(u64, u32)>,
}

impl Mailbox {
    /// Asks for its entries.
    pub fn foresee(&self) {
        let (front, back) = self.entries.as_slices();
        foresee::bring(front, FORESEEN_BYTES.max(size_of_val(front)));
        foresee::bring_whole(back);
        if let Some(extra) = &self.extra {
            foresee::bring_whole(&**extra);
        }
    }

    /// Then for what it remembers of devices and of messages that left.
    pub fn foresee_memories(&self) {
        if let Some(extra) = &self.extra {
            foresee::bring_whole(&extra.devices[..]);
            let (front, back) = extra.recent.as_slices();
            foresee::bring_whole(front);
            foresee::bring_whole(back);
        }
    }

    /// Empties the mailbox and forgets devices and repeats; keeps buffers for the next user.
    pub fn reset(&mut self) {
        self.entries.clear();
        self.bytes = 0;
        self.earliest_s = u32::MAX;
        if let Some(extra) = &mut self.extra {
            extra.devices.clear();
            extra.recent.clear();
            extra.put_off.clear();
        }
    }

    /// Gives a new message its place, unless it is a repeat or the quota is used up.
    ///
    /// A message in flight counts for both, but is not pending before [`Mailbox::stored`].
    pub fn admit(&mut self, quota: &Quota, now_s: u32, new: &NewEntry) -> Admission {
        if let Some(repeat) = self.find_repeat(now_s, new.dedupe) {
            return repeat;
        }
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let bytes = self.bytes.saturating_add(u64::from(new.bytes));
        if count >= quota.messages_max || bytes > quota.bytes_max {
            return Admission::Full;
        }
        match self.place(new) {
            Some(_) => Admission::Accepted,
            None => Admission::Full,
        }
    }

    /// The body of `number`, still in flight, has `bytes` octets and no more (INT-9).
    pub fn resize(&mut self, number: u64, bytes: u32) {
        if let Some(at) = self.find(number) {
            let entry = &mut self.entries[at];
            self.bytes = self.bytes - u64::from(entry.bytes) + u64::from(bytes);
            entry.bytes = bytes;
        }
    }

    /// The message here whose repeat would have this hash ([`Deposit::dedupe`](crate::store::op::Deposit)).
    #[must_use]
    pub fn find_repeated(&self, dedupe: u64) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.dedupe == dedupe && dedupe != 0)
    }

    fn find_repeat(&self, now_s: u32, dedupe: u64) -> Option<Admission> {
        if dedupe == 0 {
            return None;
        }
        if let Some(entry) = self.entries.iter().find(|entry| entry.dedupe == dedupe) {
            let durable = entry.location().is_some();
            return Some(Admission::Repeat {
                number: entry.number,
                durable,
            });
        }
        let recent = &self.extra.as_ref()?.recent;
        let left = recent
            .iter()
            .any(|&(hash, expires_s)| hash == dedupe && now_s < expires_s);
        left.then_some(Admission::RepeatOfRemoved)
    }

    /// Index of the new entry; `None` when its target finds no slot or its number is taken.
    fn place(&mut self, new: &NewEntry) -> Option<usize> {
        let target = match new.target {
            0 => 0,
            key if self.may_target(key, new.pushes) => u8::try_from(self.slot_for(key)).ok()? + 1,
            _ => return None,
        };
        let at = match self.entries.back() {
            Some(last) if last.number >= new.number => self
                .entries
                .binary_search_by_key(&new.number, |entry| entry.number)
                .err()?,
            Some(_) | None => self.entries.len(),
        };
        let entry = Entry {
            number: new.number,
            dedupe: new.dedupe,
            location: Location::default(),
            expires_s: new.expires_s,
            bytes: new.bytes,
            delivered: 0,
            refused: 0,
            target,
            bits: new.flags.bits(),
            hints: new.hints,
        };
        self.entries.insert(at, entry);
        self.bytes += u64::from(new.bytes);
        Some(at)
    }

    /// The deposit of `number` is durable at `location`; it is pending from now on. False when it is
    /// no longer here.
    pub fn stored(&mut self, number: u64, location: Location) -> bool {
        let Some(at) = self.find(number) else {
            return false;
        };
        self.make_durable(at, location);
        true
    }

    fn make_durable(&mut self, at: usize, location: Location) {
        let entry = &mut self.entries[at];
        entry.location = location;
        entry.bits |= DURABLE;
        self.earliest_s = self.earliest_s.min(entry.expires_s);
    }

    /// The deposit of `number` failed: takes it out as if it had never come.
    pub fn cancel(&mut self, number: u64) -> bool {
        let Some(at) = self.find(number) else {
            return false;
        };
        self.take(at);
        true
    }

    /// Puts back a deposit read by recovery, past any quota: it was accepted once. False when the
    /// number is taken; then the record says nothing new.
    pub fn restore(&mut self, new: &NewEntry, location: Location) -> bool {
        let untargeted = NewEntry { target: 0, ..*new };
        // Without a slot the message goes to every device rather than to none.
        let Some(at) = self.place(new).or_else(|| self.place(&untargeted)) else {
            return false;
        };
        self.make_durable(at, location);
        true
    }

    /// Records what `device` did with a message (DLV-1). `Delivered` outweighs `Refused`.
    pub fn mark(&mut self, number: u64, device: u64, fate: Fate) -> Marked {
        let Some(at) = self.find(number).filter(|_| device != 0) else {
            return Marked::Unknown;
        };
        let slot = self.slot_for(device);
        let entry = &mut self.entries[at];
        let bit = 1 << slot;
        let known = match fate {
            Fate::Delivered => entry.delivered & bit != 0,
            Fate::Refused => (entry.delivered | entry.refused) & bit != 0,
        };
        if known {
            return Marked::Repeated;
        }
        match fate {
            Fate::Delivered => entry.delivered |= bit,
            Fate::Refused => entry.refused |= bit,
        }
        Marked::Recorded
    }

    /// What devices did with the message of `number`: their keys and fates.
    pub fn fates(&self, number: u64) -> impl Iterator<Item = (u64, Fate)> + '_ {
        let entry = self.lookup(number).copied();
        let devices = self.extra.iter().flat_map(|extra| extra.devices.iter());
        devices.enumerate().filter_map(move |(slot, &key)| {
            let entry = entry.filter(|_| key != 0)?;
            let bit = |bits: u32| bits >> slot & 1 == 1;
            match (bit(entry.delivered), bit(entry.refused)) {
                (true, _) => Some((key, Fate::Delivered)),
                (false, true) => Some((key, Fate::Refused)),
                (false, false) => None,
            }
        })
    }

    /// The oldest durable message with a number above `after` that lies in one of `segments`.
    #[must_use]
    pub fn next_in(&self, after: u64, segments: &[u32]) -> Option<&Entry> {
        let from = self.entries.partition_point(|entry| entry.number <= after);
        self.entries.range(from..).find(|entry| {
            let location = entry.location();
            location.is_some_and(|at| segments.contains(&at.segment))
        })
    }

    /// Takes a message out and remembers it for repeats within its life. The caller appends the
    /// `Removed` mark and tells the [`SegmentTable`] when that is durable.
    pub fn remove(&mut self, number: u64) -> Option<Entry> {
        let at = self.find(number)?;
        Some(self.take_and_remember(at))
    }

    /// Takes out one message whose life ended, oldest first; `None` when there is none. Each comes
    /// out once (LIFE-3). A message still in flight waits until it is durable.
    pub fn poll_expired(&mut self, now_s: u32) -> Option<Entry> {
        self.poll_expired_unless(now_s, |_| false)
    }

    /// As [`Self::poll_expired`], leaving alone messages whose number `is_moving`: they are in transfer
    /// and may finish (LIFE-2). Those are looked at again [`RECHECK_S`] later.
    pub fn poll_expired_unless(
        &mut self,
        now_s: u32,
        is_moving: impl Fn(u64) -> bool,
    ) -> Option<Entry> {
        if now_s < self.earliest_s {
            return None;
        }
        let due = |entry: &Entry| {
            entry.location().is_some() && entry.expires_s <= now_s && !is_moving(entry.number)
        };
        if let Some(at) = self.entries.iter().position(due) {
            return Some(self.take_and_remember(at));
        }
        let again = |entry: &Entry| {
            if entry.expires_s <= now_s {
                now_s.saturating_add(RECHECK_S)
            } else {
                entry.expires_s
            }
        };
        let durable = self
            .entries
            .iter()
            .filter(|entry| entry.location().is_some());
        self.earliest_s = durable.map(again).min().unwrap_or(u32::MAX);
        None
    }

    /// When [`Mailbox::poll_expired`] may have work, seconds since 1970: never later than that.
    #[must_use]
    pub fn next_expiry_s(&self) -> Option<u32> {
        // Asked after each message of a push: the entries are not looked at, which left the caches.
        (self.earliest_s != u32::MAX).then_some(self.earliest_s)
    }

    /// The oldest message after number `after` that `device` should get at `now_s`; start with zero.
    ///
    /// Skips what is in flight, expired, delivered to, refused by or put off for it, or meant for another; so a
    /// refusal never holds up what comes behind (LIFE-4).
    #[must_use]
    pub fn next_pending(&self, device: u64, after: u64, now_s: u32) -> Option<&Entry> {
        let from = self.entries.partition_point(|entry| entry.number <= after);
        let slot = self.slot_of(device);
        self.entries
            .range(from..)
            .find(|entry| self.is_pending(entry, slot, now_s))
    }

    /// As [`Mailbox::next_pending`], of the messages that `limit` lets through.
    #[must_use]
    pub fn next_fitting(
        &self,
        device: u64,
        after: u64,
        now_s: u32,
        limit: MediaLimit,
    ) -> Option<&Entry> {
        if limit == MediaLimit::NONE {
            return self.next_pending(device, after, now_s);
        }
        let from = self.entries.partition_point(|entry| entry.number <= after);
        let slot = self.slot_of(device);
        self.entries.range(from..).find(|entry| {
            limit.takes(entry.bytes, entry.hints) && self.is_pending(entry, slot, now_s)
        })
    }

    /// Everything `device` should get at `now_s`, oldest first.
    pub fn pending(&self, device: u64, now_s: u32) -> impl Iterator<Item = &Entry> {
        let slot = self.slot_of(device);
        self.entries
            .iter()
            .filter(move |entry| self.is_pending(entry, slot, now_s))
    }

    /// Whether the message has reached `goal` and leaves the store (DLV-3). `selected` are the keys
    /// of the devices chosen for delivery now.
    #[must_use]
    pub fn is_settled(&self, number: u64, goal: Goal, selected: &[u64]) -> bool {
        let Some(entry) = self.find(number).map(|at| &self.entries[at]) else {
            return false;
        };
        // Nor for a device that cannot be given it, as there is no slot to say that it took it.
        let waits = |&device: &u64| {
            let slot = self.slot_of(device);
            is_for(entry, slot)
                && !is_decided(entry, slot)
                && (self.device_count() < MAILBOX_DEVICES_MAX || self.has_place(device, 0))
        };
        match goal {
            Goal::Any => entry.is_delivered(),
            Goal::UntilExpiry => false,
            Goal::EachSelected => entry.is_delivered() && !selected.iter().any(waits),
        }
    }

    /// The message of `number`.
    #[must_use]
    pub fn lookup(&self, number: u64) -> Option<&Entry> {
        self.find(number).map(|at| &self.entries[at])
    }

    /// All messages, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Messages held, those in flight included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// `true` when nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Octets of the bodies held.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives memory back that a long queue needed once. Not for warm paths.
    pub fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// Octets that it owns beside its place in the table.
    #[must_use]
    pub fn memory(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |extra| {
            size_of::<Extra>()
                + extra.devices.capacity() * size_of::<u64>()
                + extra.recent.capacity() * size_of::<(u64, u32)>()
                + extra.put_off.capacity() * size_of::<(u64, u32)>()
        });
        self.entries.capacity() * size_of::<Entry>() + extra
    }

    fn is_pending(&self, entry: &Entry, slot: Option<usize>, now_s: u32) -> bool {
        entry.location().is_some()
            && now_s < entry.expires_s
            && is_for(entry, slot)
            && !is_decided(entry, slot)
            && !self.is_put_off(entry.number, slot)
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.entries
            .binary_search_by_key(&number, |entry| entry.number)
            .ok()
    }

    fn take(&mut self, at: usize) -> Entry {
        let entry = self.entries.remove(at).expect("the caller found it there");
        self.bytes -= u64::from(entry.bytes);
        if self.entries.is_empty() {
            self.earliest_s = u32::MAX;
        }
        self.forget_put_off(entry.number);
        entry
    }

    fn take_and_remember(&mut self, at: usize) -> Entry {
        let entry = self.take(at);
        if entry.dedupe != 0 {
            let recent = &mut self.extra.get_or_insert_default().recent;
            if recent.len() == RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back((entry.dedupe, entry.expires_s));
        }
        entry
    }

    fn slot_of(&self, device: u64) -> Option<usize> {
        self.extra
            .as_ref()?
            .devices
            .iter()
            .position(|&key| key == device && key != 0)
    }

    /// Slots of the devices that messages are meant for alone, as bits.
    fn targeted(&self) -> u32 {
        let slots = self
            .entries
            .iter()
            .filter_map(|entry| entry.target.checked_sub(1));
        slots.fold(0, |bits, slot| bits | 1 << slot)
    }

    /// Device keys it remembers.
    #[must_use]
    pub fn device_count(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.devices.len())
    }

    /// Slots of the devices that some message names, as bits.
    fn named(&self) -> u32 {
        let rest = self.put_off_slots() | self.targeted();
        self.entries
            .iter()
            .fold(rest, |bits, entry| bits | entry.delivered | entry.refused)
    }

    /// Devices that no message names yet and that may still take one.
    #[must_use]
    pub fn places(&self) -> usize {
        let named = usize::try_from(self.named().count_ones()).unwrap_or(usize::MAX);
        MAILBOX_DEVICES_MAX.saturating_sub(named)
    }

    /// Whether some message names `device`, so that its slot is its own.
    #[must_use]
    pub fn names(&self, device: u64) -> bool {
        self.slot_of(device)
            .is_some_and(|slot| self.named() >> slot & 1 == 1)
    }

    /// Whether `device` can take a message, or be meant alone by one, while `others` that have no slot of
    /// their own yet may each need one.
    #[must_use]
    pub fn has_place(&self, device: u64, others: usize) -> bool {
        self.device_count().saturating_add(others) < MAILBOX_DEVICES_MAX
            || self.places() > others
            || self.names(device)
    }

    /// Whether one more message may be for `device` alone.
    fn may_target(&self, device: u64, pushes: u32) -> bool {
        let targeted = self.targeted();
        let is_one = self
            .slot_of(device)
            .is_some_and(|slot| targeted >> slot & 1 == 1);
        let others = usize::try_from(pushes).unwrap_or(usize::MAX);
        is_one || targeted.count_ones() < MAILBOX_TARGETS_MAX && self.has_place(device, others)
    }

    /// The device's slot, taking one when it has none: a free one, else one that no message names. Who
    /// gives it a message has made sure of one ([`Mailbox::has_place`]). Only records of more devices than
    /// there are slots, read by recovery, find none: then the first that no message targets (that device
    /// may see a repeat, never a loss).
    ///
    /// # Panics
    /// When every slot is targeted: [`MAILBOX_TARGETS_MAX`] is less than there are.
    fn slot_for(&mut self, device: u64) -> usize {
        assert!(device != 0, "zero is no device");
        if let Some(slot) = self.slot_of(device) {
            return slot;
        }
        let devices = &mut self.extra.get_or_insert_default().devices;
        if devices.len() < MAILBOX_DEVICES_MAX {
            devices.push(device);
            return devices.len() - 1;
        }
        let slot = [!self.named(), !self.targeted()]
            .into_iter()
            .find(|&slots| slots != 0)
            .expect("fewer slots are targeted than there are")
            .trailing_zeros();
        for entry in &mut self.entries {
            entry.delivered &= !(1 << slot);
            entry.refused &= !(1 << slot);
        }
        self.clear_put_off(slot);
        let slot = usize::try_from(slot).expect("a bit of 32");
        self.extra.get_or_insert_default().devices[slot] = device;
        slot
    }
}

fn is_for(entry: &Entry, slot: Option<usize>) -> bool {
    entry.target == 0 || slot.is_some_and(|slot| slot + 1 == usize::from(entry.target))
}

fn is_decided(entry: &Entry, slot: Option<usize>) -> bool {
    slot.is_some_and(|slot| (entry.delivered | entry.refused) & (1 << slot) != 0)
}

#[cfg(test)]
mod tests;
