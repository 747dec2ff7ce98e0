//! Start from what the store holds: queues are rebuilt, nothing else was promised.
//!
//! Registrations, subscriptions and sessions are not stored. Users with mail are asked about at the
//! registrar, paced, so that a restart is no storm (OVL-10).

use core::time::Duration;

use crate::base::slab::Key;
use crate::base::surface::Location;
use crate::base::time::Timestamp;
use crate::shard::Shard;
use crate::store::checkpoint::{self, Item};
use crate::store::index::{Fate, Mailbox, NewEntry};
use crate::store::op::{DepositFlags, Hints, MarkKind};
use crate::store::parts;
use crate::store::record::{self, Record};

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Messages pending.
    pub messages: u64,
    /// Records read.
    pub records: u64,
    /// Records that could not be understood; their segments are kept.
    pub unreadable: u64,
    /// A checkpoint came first.
    pub has_checkpoint: bool,
    /// Messages of these that came from it.
    pub saved: u64,
    /// Time it took; filled in by who reads the clock.
    pub took: Duration,
}

/// Users of a checkpoint that share one piece, at most.
const PIECE_USERS: usize = 512;
/// A piece ends with the user that makes it this long, octets.
const PIECE_BYTES: usize = 64 * 1024;

impl Shard {
    /// Appends the next piece of a checkpoint to `out`: everything recovery would learn from the
    /// records that the driver has reported so far. Bounded work; call it again with what it
    /// returns, other work may come between. Zero begins, `None` says that this piece was the last.
    ///
    /// What changes meanwhile may be in it or not: its record comes later than the beginning and is
    /// read by recovery too, and takes no harm from being known already.
    pub(super) fn save(&self, at: u64, out: &mut Vec<u8>) -> Option<u64> {
        if at == 0 {
            let start = checkpoint::Start {
                dedupe_keys: self.post.dedupe_keys,
                next_number: self.post.next_number(),
                users: self.registry.len() as u64,
                ledger: self.post.ledger,
                newest: self.post.newest(),
            };
            checkpoint::put_start(&start, out);
        }
        let slots = u64::from(self.post.mailboxes.slots());
        let mut next = at;
        for _ in 0..PIECE_USERS {
            if next >= slots || out.len() > PIECE_BYTES {
                break;
            }
            let slot = u32::try_from(next).expect("slots have 32 bits");
            next += 1;
            let Some(mailbox) = self.post.mailbox_ref(slot).filter(|held| !held.is_empty()) else {
                continue;
            };
            if let Some(entry) = self.registry.at(slot) {
                mailbox.save(&entry.user.canonical, &entry.user.identity, out);
                self.save_parts(mailbox, out);
            }
        }
        if next < slots {
            return Some(next);
        }
        self.post.segments.save(out);
        None
    }

    /// Appends where the parts of a mailbox's large messages lie.
    fn save_parts(&self, mailbox: &Mailbox, out: &mut Vec<u8>) {
        if self.post.parts.is_empty() {
            return;
        }
        for entry in mailbox.iter().filter(|entry| entry.location().is_some()) {
            let places = self.post.parts.places(entry.number());
            if !places.is_empty() {
                checkpoint::put_parts(entry.number(), places, out);
            }
        }
    }

    /// Takes one piece of a checkpoint, in their order and before any record. False when the piece
    /// cannot be understood; then this shard is of no use any more.
    pub fn load(&mut self, piece: &[u8], found: &mut Recovered) -> bool {
        for item in checkpoint::items(piece) {
            match item {
                Ok(Item::Start(start)) => {
                    self.post.dedupe_keys = start.dedupe_keys;
                    self.post.saw_number(start.next_number.saturating_sub(1));
                    self.post.ledger = start.ledger;
                    self.post.saw_moment(start.newest);
                    found.has_checkpoint = true;
                    let users = usize::try_from(start.users).unwrap_or(usize::MAX);
                    self.registry.reserve(users);
                    self.post.mailboxes.reserve(users);
                }
                Ok(Item::Segment(segment)) => self.post.segments.load(&segment),
                Ok(Item::User(saved)) => {
                    let Some((user, is_new)) = self.registry.lookup_or_create(saved.canonical)
                    else {
                        return false;
                    };
                    let entry = self.registry.entry_mut(user).expect("just found");
                    if is_new {
                        entry.extra.reset();
                        self.post.mailbox(user.slot).reset();
                    }
                    if entry.user.identity.is_empty() {
                        entry.user.identity.extend_from_slice(saved.identity);
                    }
                    let post = &mut self.post;
                    let (mailboxes, segments) = (&mut post.mailboxes, &mut post.segments);
                    let (queue, mut count) = (&mut post.queue, 0);
                    mailboxes.place(user.slot).load(&saved, |number, location| {
                        segments.deposit(location);
                        queue.arrived(number);
                        count += 1;
                    });
                    found.messages += count;
                    found.saved += count;
                }
                Ok(Item::Parts { number, places }) => {
                    let places = parts::read_places(places).collect();
                    self.post.parts.insert(number, places);
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// After the last record, with the segments that exist, ascending: gives up messages whose
    /// segment is not there any more though nothing says that they may go. How many there were; the
    /// books do not balance by so much from then on.
    pub fn forget_absent(&mut self, present: &[u32]) -> u64 {
        let lost = self.post.segments.forget_absent(present);
        self.post.parts.forget_absent(present);
        if lost == 0 {
            return 0;
        }
        let mut gone = Vec::new();
        for mailbox in self.post.mailboxes.warm_values() {
            mailbox.forget_absent(present, &mut gone);
        }
        for number in gone {
            self.post.queue.left(number);
        }
        lost
    }

    /// Takes one record of the store, in the order of their places, before any other input.
    pub fn recover(&mut self, location: Location, payload: &[u8], found: &mut Recovered) {
        found.records += 1;
        match record::decode(payload) {
            Ok(Record::Deposit(deposit)) => {
                self.post.saw_number(deposit.number);
                self.post.saw_moment(deposit.received);
                let Some((user, is_new)) = self.registry.lookup_or_create(deposit.user) else {
                    found.unreadable += 1;
                    self.post.segments.keep(location);
                    return;
                };
                let entry = self.registry.entry_mut(user).expect("just found");
                if is_new {
                    entry.extra.reset();
                    self.post.mailbox(user.slot).reset();
                }
                if entry.user.identity.is_empty() {
                    entry.user.identity.extend_from_slice(deposit.identity);
                }
                let new = NewEntry {
                    number: deposit.number,
                    dedupe: deposit.dedupe(self.post.dedupe_keys),
                    expires_s: u32::try_from(deposit.expires.as_secs()).unwrap_or(u32::MAX),
                    bytes: u32::try_from(deposit.body_bytes()).unwrap_or(u32::MAX),
                    target: deposit.target_instance,
                    pushes: 0,
                    flags: deposit.flags.without(DepositFlags::COPY),
                    hints: Hints::of(deposit.content_type, deposit.conversation_id),
                };
                let mailbox = self.post.mailbox(user.slot);
                let is_new = mailbox.restore(&new, location);
                if is_new {
                    self.post.segments.deposit(location);
                    self.post.queue.arrived(deposit.number);
                    found.messages += 1;
                    if let Some(list) = deposit.parts() {
                        let places = list.places().collect();
                        self.post.parts.insert(deposit.number, places);
                    }
                } else if let Some(old) = mailbox.relocate(deposit.number, location) {
                    // Written again to free the segment it lay in. Its parts may have moved, too.
                    if let Some(list) = deposit.parts() {
                        let places = list.places().collect();
                        self.post.parts.insert(deposit.number, places);
                    }
                    self.post.segments.deposit(location);
                    self.post.segments.mark(location, Some(old));
                    self.post.segments.dead(old);
                }
                // A copy is no new message, but may be the only record left of one. The books of a
                // checkpoint are older than its pieces, which may have the message already, and have
                // every message of which there are copies behind them.
                let is_copy = deposit.flags.contains(DepositFlags::COPY);
                let counts = match (is_copy, found.has_checkpoint) {
                    (false, true) => true,
                    (true, true) => false,
                    (_, false) => is_new,
                };
                self.post.ledger.deposited += u64::from(counts);
            }
            Ok(Record::Part(part)) => {
                // Counts once a deposit names it; else it is what is left of a broken transfer.
                self.post.saw_number(part.number);
                self.post.segments.note(location);
            }
            Ok(Record::Mark(mark)) => self.recover_mark(location, &mark, found),
            Err(_) => {
                found.unreadable += 1;
                // Something unknown lives in this segment: keep it for good.
                self.post.segments.keep(location);
            }
        }
    }

    fn recover_mark(
        &mut self,
        location: Location,
        mark: &crate::store::op::Mark<'_>,
        found: &mut Recovered,
    ) {
        self.post.saw_number(mark.number);
        self.post.saw_moment(mark.at);
        if matches!(mark.kind, MarkKind::Removed { .. }) {
            self.post.parts.remove(mark.number);
        }
        let Some(user) = self.registry.lookup(mark.user) else {
            self.post.segments.mark(location, None);
            // Its last message left while the checkpoint was made, whose books have the deposit; a
            // user without messages is in no piece of it.
            if let (MarkKind::Removed { reason }, true) = (mark.kind, found.has_checkpoint) {
                self.post.ledger.removed(reason);
            }
            return;
        };
        let mailbox = self.post.mailbox(user.slot);
        let of = mailbox
            .lookup(mark.number)
            .and_then(|entry| entry.location());
        match mark.kind {
            MarkKind::Delivered { device, .. } => {
                mailbox.mark(mark.number, device, Fate::Delivered);
            }
            MarkKind::Refused { device, .. } => {
                mailbox.mark(mark.number, device, Fate::Refused);
            }
            MarkKind::Removed { reason } => {
                let was_here = mailbox.remove(mark.number).is_some();
                if was_here {
                    self.post.queue.left(mark.number);
                    found.messages -= 1;
                }
                // The books of a checkpoint have every deposit of which marks come later, also of
                // those that left while it was made.
                if was_here || found.has_checkpoint {
                    self.post.ledger.removed(reason);
                }
            }
        }
        self.post.segments.mark(location, of);
        if let (MarkKind::Removed { .. }, Some(of)) = (mark.kind, of) {
            self.post.segments.dead(of);
        }
    }

    /// After the last record: doubts the wall clock if it says that much time passed since, plans when to ask the registrar about each user with mail, and
    /// subscribes the configured users.
    pub fn recovered(&mut self, now: Timestamp) {
        // Only now is it known whose parts still matter: those of removed messages may be gone.
        for place in self.post.parts.all_places() {
            self.post.segments.deposit(place);
        }
        if self.desk.wall.compare(now, self.post.newest()) {
            self.probe.clock_jumps_total += 1;
        }
        let pace = Duration::from_secs(1) / self.options.subscribe_pace_per_s.max(1);
        let mut at = now;
        let users: Vec<Key> = self.registry.keys().collect();
        for user in users {
            if self
                .post
                .mailbox_ref(user.slot)
                .is_some_and(|mailbox| !mailbox.is_empty())
            {
                self.probe_later(user, at);
                at = at + pace;
            } else {
                // All its messages were removed again: nothing is left to remember.
                self.rearm_user(user);
            }
        }
        for identity in core::mem::take(&mut self.options.subscribe_users) {
            if let Some(user) = self.served_user(identity.as_bytes()) {
                let entry = self.registry.entry_mut(user).expect("found above");
                if entry.user.identity.is_empty() {
                    entry.user.identity.extend_from_slice(identity.as_bytes());
                }
                self.probe_later(user, at);
                at = at + pace;
            }
        }
    }

    fn probe_later(&mut self, user: Key, at: Timestamp) {
        if let Some(entry) = self.registry.entry_mut(user) {
            entry.extra.subscribe_at = at;
        }
        self.rearm_user(user);
    }
}
