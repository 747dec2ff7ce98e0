//! The messages of a shard: who waits for what, what is being written, what is in memory (layer 3).
//!
//! Durability order: an effect that must not precede a record (the 202 of a deposit) waits in
//! `after` under the record's ticket and happens when the store says so. Bodies live in the store;
//! those written or read lately are also in a cache of bounded size.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::foresee;
use crate::base::limits;
use crate::base::map::MapKeys;
use crate::base::outbox::Destination;
use crate::base::pool::Pool;
use crate::base::slab::Key;
use crate::base::surface::{LinkId, Location, Room, StoreBatch, StoreTicket};
use crate::base::time::{Timestamp, UnixMillis};
use crate::push::large::{Intakes, LargeOptions, WAITING_MAX};
use crate::sip::dialog::Dialog;
use crate::sip::transaction::server::ServerKey;
use crate::store::index::{CleanOptions, Mailbox, Quota, SegmentTable};
use crate::store::op::{
    Deposit, Ledger, LifeOptions, Mark, MarkKind, NOTICE_NUMBERS, Part, RemovalReason,
};
use crate::store::parts::PartTable;
use crate::store::record::{self, RecordError};

mod cache;
mod clean;
mod loads;
mod shared_links;
mod spans;

pub use cache::Cache;
use loads::Loads;
pub use shared_links::SharedLinks;
use spans::Spans;

/// Times a record that cannot be read is asked for.
const READS_MAX: u8 = 5;
/// First wait before it is asked for again; four times as long each time. All of them end before a push that
/// waits gives up.
const READ_AGAIN: Duration = Duration::from_millis(100);
/// Most pushes that wait for records at a time.
const LOADING_MAX: usize = 4096;
/// Users have slots below this.
const SLOTS_MAX: usize = 1 << 26;

/// Options of a shard's messages.
#[derive(Clone, Debug)]
pub struct PostOptions {
    /// Bounds of a user's queue (INT-9).
    pub quota: Quota,
    /// Bounds of a message's life (LIFE-1).
    pub life: LifeOptions,
    /// Octets of bodies kept in memory.
    pub cache_bytes_max: usize,
    /// Records written but not yet durable above which intake holds back.
    pub unsettled_max: usize,
    /// Longest wait of a deposit for the store before further ones are refused (OVL-7).
    pub store_delay_max: Duration,
    /// Our URI in IMDN-Record-Route headers of messages whose sender wants notices (IMDN-2); empty: none
    /// is added.
    pub imdn_route: Vec<u8>,
    /// Tell senders who ask for `processing` notices that their message is stored (IMDN-5).
    pub stored_notices: bool,
    /// Let senders take back messages that are not being sent yet (DLV-7).
    pub revoke: bool,
    /// Intake of large messages.
    pub large: LargeOptions,
    /// When sparse segments are cleaned.
    pub clean: CleanOptions,
    /// Keep a message's charging identifier and addresses, and repeat them in its push (IMS-4, IMS-5).
    pub charging: bool,
    /// Queues that never fold, if there are no more.
    pub kept_warm: usize,
}

impl Default for PostOptions {
    fn default() -> Self {
        Self {
            quota: Quota::default(),
            life: LifeOptions::default(),
            cache_bytes_max: 64 * 1024 * 1024,
            unsettled_max: 65_536,
            store_delay_max: Duration::from_secs(10),
            imdn_route: Vec::new(),
            stored_notices: false,
            revoke: false,
            large: LargeOptions::default(),
            clean: CleanOptions::default(),
            charging: false,
            kept_warm: limits::WARM_KEPT,
        }
    }
}

/// Notices owed at one time; further ones are lost and counted.
pub const OWED_MAX: usize = 65_536;
/// Records read back for notices at one time.
const READING_MAX: usize = 64;

/// A response that waits for a record.
#[derive(Debug)]
pub struct Reply {
    /// The way back.
    pub to: Destination,
    /// The whole response, ready to go.
    pub bytes: Vec<u8>,
    /// Its server transaction, over datagrams.
    pub transaction: Option<ServerKey>,
}

/// What happens when a record is durable.
#[derive(Debug)]
pub enum After {
    /// A deposit: pending from then on, and its 202 may go.
    Deposit {
        /// The recipient.
        user: Key,
        /// The message.
        number: u64,
        /// The 202.
        reply: Option<Reply>,
        /// When it was appended.
        since: Timestamp,
    },
    /// A mark on the deposit at `of`.
    Mark {
        /// Where the deposit lies.
        of: Location,
        /// Why the mark removes it, if it does.
        removes: Option<RemovalReason>,
    },
    /// The mark that ends the life of the message at `of`, whose sender is owed a notice (IMDN-4).
    Expired {
        /// Where the deposit lies.
        of: Location,
        /// The message.
        number: u64,
    },
    /// A part of a large message that session `intake` takes in.
    Part {
        /// The session.
        intake: Key,
        /// The message.
        number: u64,
    },
    /// The deposit that makes a series of parts a message.
    Closed {
        /// The session.
        intake: Key,
        /// The recipient.
        user: Key,
        /// The message.
        number: u64,
    },
    /// A copy of a deposit, made to free the segment of the first record.
    Copied {
        /// Slot of the recipient.
        slot: u32,
        /// The message.
        number: u64,
        /// Where the first record lies.
        from: Location,
    },
    /// The last record of a copy: the first deposit, at `of`, no longer matters.
    Freed {
        /// Where it lies.
        of: Location,
    },
    /// Only a reply, to a repeat of a deposit that is still being written.
    Reply(Reply),
}

/// Buffers in which a message taken in is put together.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Plain text in its CPIM wrapper.
    pub wrapped: Vec<u8>,
    /// The CPIM as it will be delivered.
    pub content: Vec<u8>,
    /// Header lines that the push repeats.
    pub lines: Vec<u8>,
}

/// A shard's messages.
#[derive(Debug)]
pub struct Post {
    /// Queues, by user slot. Empty ones fold, so that a cold one holds no message.
    pub mailboxes: Pool<Mailbox>,
    /// What each segment is needed for.
    pub segments: SegmentTable,
    /// Records in memory.
    pub cache: Cache,
    /// Messages stored in parts.
    pub parts: PartTable,
    /// Sessions in which large messages are taken in.
    pub intakes: Intakes,
    /// MSRP connections that several sessions use.
    pub shared_links: SharedLinks,
    /// Sessions that wait for room on their connections, by connection and the place in its line.
    held_back: BTreeMap<(LinkId, u64), Key>,
    /// The last place given.
    last_place: u64,
    /// A dialog for answering 2xx that no push owns.
    pub scratch_dialog: Dialog,
    /// Bytes for one message.
    pub scratch: Scratch,
    /// Options.
    pub options: PostOptions,
    /// Keys of the dedupe hash.
    pub dedupe_keys: [u64; 2],
    /// The store's books, counted as records become durable.
    pub ledger: Ledger,
    batch: StoreBatch,
    after: VecDeque<(StoreTicket, After)>,
    spare: Vec<Vec<u8>>,
    loads: Loads,
    /// Records for which somebody waits and that could not be read, with how often that was tried.
    tries: BTreeMap<u64, u8>,
    /// When which of them is asked for again.
    again: BTreeSet<(Timestamp, u64)>,
    /// Messages whose end their senders are to be told, and the places of their deposits.
    owed: VecDeque<(u64, Location)>,
    /// Of these, those whose records are being read.
    reading: Vec<(u64, Location)>,
    next_ticket: u64,
    next_number: u64,
    /// Messages accepted and not yet gone, by when they came.
    pub queue: Spans,
    /// Messages that left the queue and whose `Removed` mark is not yet durable.
    leaving: usize,
    failed: bool,
    store_room: Room,
    newest: UnixMillis,
    cleaner: clean::Cleaner,
}

impl Post {
    /// No messages yet. Numbers start above every one given out before `wall`.
    #[must_use]
    pub fn new(options: &PostOptions, keys: MapKeys, wall: UnixMillis) -> Self {
        Self {
            mailboxes: Pool::new((), SLOTS_MAX, 0, options.kept_warm),
            segments: SegmentTable::default(),
            cache: Cache::new(options.cache_bytes_max),
            parts: PartTable::new(keys),
            intakes: Intakes::new(&options.large),
            shared_links: SharedLinks::new(keys),
            held_back: BTreeMap::new(),
            last_place: 0,
            scratch_dialog: Dialog::default(),
            scratch: Scratch::default(),
            options: options.clone(),
            dedupe_keys: [keys.0[0], keys.0[1]],
            batch: StoreBatch::default(),
            after: VecDeque::with_capacity(1024),
            spare: Vec::new(),
            loads: Loads::new(),
            tries: BTreeMap::new(),
            again: BTreeSet::new(),
            owed: VecDeque::new(),
            reading: Vec::new(),
            next_ticket: 1,
            // A million messages a millisecond would be needed to catch up with the clock.
            next_number: (wall.0 << spans::NUMBER_BITS).max(1),
            queue: Spans::default(),
            leaving: 0,
            ledger: Ledger::default(),
            failed: false,
            store_room: Room::Enough,
            newest: UnixMillis(0),
            cleaner: clean::Cleaner::new(options.clean),
        }
    }

    /// The queue of the user in `slot`, made when first asked for.
    pub fn mailbox(&mut self, slot: u32) -> &mut Mailbox {
        self.mailboxes.place(slot)
    }

    /// Puts the session of push `key` at the end of the line for room on `link`: its place there, never 0.
    pub fn hold_back(&mut self, link: LinkId, key: Key) -> u64 {
        self.last_place += 1;
        self.held_back.insert((link, self.last_place), key);
        self.last_place
    }

    /// Takes the session at `place` out of the line for `link`.
    pub fn leave_line(&mut self, link: LinkId, place: u64) {
        self.held_back.remove(&(link, place));
    }

    /// Takes the session out that has waited longest for room on `link`.
    pub fn next_in_line(&mut self, link: LinkId) -> Option<Key> {
        let line = (link, 0)..=(link, u64::MAX);
        let place = *self.held_back.range(line).next()?.0;
        self.held_back.remove(&place)
    }

    /// Whether a session waits for room on `link`.
    #[must_use]
    pub fn has_line(&self, link: LinkId) -> bool {
        let line = (link, 0)..=(link, u64::MAX);
        self.held_back.range(line).next().is_some()
    }

    /// The queue of the user in `slot`; `None` when it was never used, or rests without a message.
    #[must_use]
    pub fn mailbox_ref(&self, slot: u32) -> Option<&Mailbox> {
        self.mailboxes.warm_of(slot)
    }

    /// A number for a new message: larger than every earlier one of its kind; those of notices are
    /// larger than all others ([`NOTICE_NUMBERS`]). It says when the message came: numbers follow the clock.
    pub const fn take_number(&mut self, wall: UnixMillis, is_notice: bool) -> u64 {
        if let Some(number) = spans::number_of_clock(wall, self.next_number) {
            self.next_number = number;
        }
        let number = self.next_number;
        self.next_number += 1;
        if is_notice {
            number | NOTICE_NUMBERS
        } else {
            number
        }
    }

    /// Recovery saw `number`: later ones must be larger. Numbers of notices count without their bit.
    pub fn saw_number(&mut self, number: u64) {
        let number = number & !NOTICE_NUMBERS;
        self.next_number = self.next_number.max(number + 1);
    }

    /// The life of message `number` ended durably and its sender is owed a notice: keeps in mind what it
    /// is made of. False when too many are owed; the notice is lost then.
    pub fn owe(&mut self, number: u64, of: Location) -> bool {
        let has_room = self.owed.len() < OWED_MAX;
        if has_room {
            self.owed.push_back((number, of));
        }
        has_room
    }

    /// The next notice whose message is in memory; asks for the records of those whose is not, a few at
    /// a time.
    pub fn poll_owed(&mut self) -> Option<(u64, Location)> {
        while let Some(&(number, of)) = self.owed.front() {
            if self.cache.lookup(number).is_none() {
                if self.reading.len() >= READING_MAX {
                    return None;
                }
                self.reading.push((number, of));
                self.batch.reads.push((number, of));
                self.owed.pop_front();
                continue;
            }
            return self.owed.pop_front();
        }
        None
    }

    /// A record came back: whether a notice waited for it, and where it lies.
    pub fn take_reading(&mut self, number: u64) -> Option<Location> {
        let at = self
            .reading
            .iter()
            .position(|&(reading, _)| reading == number)?;
        Some(self.reading.swap_remove(at).1)
    }

    /// Notices owed to senders.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed.len() + self.reading.len()
    }

    /// Appends a deposit; `reply` goes out once it is durable.
    ///
    /// # Errors
    /// When a field of the deposit is longer than a record may hold; nothing was appended.
    pub fn append_deposit(
        &mut self,
        since: Timestamp,
        user: Key,
        deposit: &Deposit<'_>,
        reply: Option<Reply>,
    ) -> Result<(), RecordError> {
        let start = self.batch.bytes.len();
        if let Err(error) = record::encode_deposit(deposit, &mut self.batch.bytes) {
            self.batch.bytes.truncate(start);
            return Err(error);
        }
        self.saw_moment(deposit.received);
        self.cache
            .insert(deposit.number, &self.batch.bytes[start..]);
        self.push_append(
            start,
            After::Deposit {
                user,
                number: deposit.number,
                reply,
                since,
            },
        );
        Ok(())
    }

    /// Appends a part of the message that session `intake` takes in.
    pub fn append_part(&mut self, intake: Key, part: &Part<'_>) {
        let start = self.batch.bytes.len();
        record::encode_part(part, &mut self.batch.bytes);
        let number = part.number;
        self.push_append(start, After::Part { intake, number });
    }

    /// Appends the deposit, already encoded, that makes a series of parts a message; nothing waits for it
    /// but session `intake`.
    pub fn append_closing(&mut self, intake: Key, user: Key, number: u64, deposit: &[u8]) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(deposit);
        self.push_append(
            start,
            After::Closed {
                intake,
                user,
                number,
            },
        );
    }

    /// The removal of a deposit that lay at `of` when it was decided is durable: its parts no longer
    /// matter.
    pub fn dead_parts(&mut self, of: Location) {
        if self.parts.is_empty() {
            return;
        }
        for part in self.parts.take_left(of).unwrap_or_default() {
            self.segments.dead(part);
        }
    }

    /// Appends a mark on the deposit at `of`.
    ///
    /// # Panics
    /// When the mark does not encode: its user is an identity that was stored before.
    pub fn append_mark(&mut self, mark: &Mark<'_>, of: Location, removes: bool) {
        if self.failed {
            // Nobody would ever answer; after the next start the device gets the message again.
            return;
        }
        if removes && !self.parts.is_empty() {
            self.parts.leave(mark.number, of);
        }
        let start = self.batch.bytes.len();
        record::encode_mark(mark, &mut self.batch.bytes).expect("a stored identity fits a mark");
        let removes = match mark.kind {
            MarkKind::Removed { reason } if removes => Some(reason),
            MarkKind::Delivered { .. } | MarkKind::Refused { .. } | MarkKind::Removed { .. } => {
                None
            }
        };
        self.leaving += usize::from(removes.is_some());
        self.push_append(start, After::Mark { of, removes });
    }

    /// As [`Self::append_mark`] for the end of message `number`, of which its sender is to be told once
    /// the mark is durable: the mark is the evidence that it was told, at most once (LIFE-3).
    ///
    /// # Panics
    /// When the mark does not encode: its user is an identity that was stored before.
    pub fn append_expired(&mut self, mark: &Mark<'_>, of: Location) {
        if self.failed {
            return;
        }
        self.leaving += 1;
        if !self.parts.is_empty() {
            self.parts.leave(mark.number, of);
        }
        let start = self.batch.bytes.len();
        record::encode_mark(mark, &mut self.batch.bytes).expect("a stored identity fits a mark");
        let number = mark.number;
        self.push_append(start, After::Expired { of, number });
    }

    /// A record of `wall` is written, or was read by recovery.
    pub fn saw_moment(&mut self, wall: UnixMillis) {
        self.newest = self.newest.max(wall);
    }

    /// When the newest record was written, by the wall clock of that time; zero without any.
    #[must_use]
    pub const fn newest(&self) -> UnixMillis {
        self.newest
    }

    fn push_append(&mut self, start: usize, after: After) {
        let ticket = StoreTicket(self.next_ticket);
        self.next_ticket += 1;
        let len = u32::try_from(self.batch.bytes.len() - start).expect("records are bounded");
        self.batch.appends.push((ticket, len));
        self.after.push_back((ticket, after));
    }

    /// Lets `reply` wait for the deposit of message `number`, which is not durable yet. Gives it back when
    /// enough wait for that one.
    pub fn reply_after(&mut self, number: u64, reply: Reply) -> Option<Reply> {
        match self.intakes.unclosed_mut(number) {
            // Its deposit has no ticket yet, and may never get one.
            Some(message) if message.waiting.len() < WAITING_MAX => message.waiting.push(reply),
            Some(_) => return Some(reply),
            None => self.reply_after_all(reply),
        }
        None
    }

    /// Lets `reply` wait for everything appended so far.
    pub fn reply_after_all(&mut self, reply: Reply) {
        let ticket = StoreTicket(self.next_ticket - 1);
        self.after.push_back((ticket, After::Reply(reply)));
    }

    /// The users of the deposits that the next effects are about; the memory of the first one's reply is asked
    /// for.
    pub fn foresee_after(&self) -> [Option<Key>; 3] {
        let user = |at: usize| {
            let After::Deposit { user, reply, .. } = &self.after.get(at)?.1 else {
                return None;
            };
            if let (0, Some(reply)) = (at, reply) {
                foresee::bring_whole(&reply.bytes[..]);
            }
            Some(*user)
        };
        [0, 1, 2].map(user)
    }

    /// Asks for the queue of the user in `slot`.
    #[inline]
    pub fn foresee(&self, slot: u32) {
        self.mailboxes.foresee(slot, size_of::<Mailbox>());
    }

    /// Then for what is in it.
    pub fn foresee_entries(&self, slot: u32) {
        if let Some(mailbox) = self.mailboxes.warm_of(slot) {
            mailbox.foresee();
        }
    }

    /// And for what it remembers.
    pub fn foresee_memories(&self, slot: u32) {
        if let Some(mailbox) = self.mailboxes.warm_of(slot) {
            mailbox.foresee_memories();
        }
    }

    /// The next effect whose record is durable up to `ticket`.
    pub fn take_after(&mut self, ticket: StoreTicket) -> Option<After> {
        if self.after.front()?.0 > ticket {
            return None;
        }
        self.after.pop_front().map(|(_, after)| after)
    }

    /// The store failed for good: every effect that waits, to be refused.
    pub fn take_failed(&mut self) -> Option<After> {
        self.failed = true;
        self.after.pop_front().map(|(_, after)| after)
    }

    /// `true` once the store has failed: nothing more is accepted.
    #[must_use]
    pub const fn is_failed(&self) -> bool {
        self.failed
    }

    /// The store came to have this much room.
    pub const fn set_store_room(&mut self, room: Room) {
        self.store_room = room;
    }

    /// What room the store has.
    #[must_use]
    pub const fn store_room(&self) -> Room {
        self.store_room
    }

    /// `true` while only marks are taken: the room that is left is theirs.
    #[must_use]
    pub const fn is_space_low(&self) -> bool {
        self.store_room.is_low()
    }

    /// Asks for message `number`'s record on behalf of a push.
    pub fn load(&mut self, number: u64, location: Location, push: Key) {
        if self.loads.wait(number, push) {
            self.batch.reads.push((number, location));
        }
    }

    /// A push that waits for `number`, which goes on waiting.
    #[must_use]
    pub fn waiter(&self, number: u64) -> Option<Key> {
        self.loads.waiter(number)
    }

    /// The pushes that wait for `number`, which go on waiting.
    pub fn waiters(&self, number: u64) -> impl Iterator<Item = Key> + '_ {
        self.loads.waiters(number)
    }

    /// Pushes that may still begin to wait for records, which the store must bring while they have the
    /// patience: with more, most would end unsent and begin again.
    #[must_use]
    pub fn load_room(&self) -> u32 {
        u32::try_from(LOADING_MAX.saturating_sub(self.loads.len())).unwrap_or(u32::MAX)
    }

    /// Asks for the record of `number` again for those who wait.
    pub fn read(&mut self, number: u64, location: Location) {
        self.batch.reads.push((number, location));
    }

    /// The record of `number` could not be read: plans to ask for it again, on behalf of those who wait.
    /// False when it was asked for often enough.
    pub fn try_later(&mut self, now: Timestamp, number: u64) -> bool {
        let tries = self.tries.entry(number).or_insert(0);
        *tries += 1;
        if *tries >= READS_MAX {
            self.tries.remove(&number);
            return false;
        }
        let wait = READ_AGAIN.saturating_mul(1 << (2 * (*tries - 1)));
        self.again.insert((now + wait, number));
        true
    }

    /// The next record that is to be asked for again by now.
    pub fn take_again(&mut self, now: Timestamp) -> Option<u64> {
        let due = self.again.first().is_some_and(|&(at, _)| at <= now);
        due.then(|| self.again.pop_first().expect("just seen").1)
    }

    /// When [`Self::take_again`] has something.
    #[must_use]
    pub fn again_due(&self) -> Timestamp {
        self.again.first().map_or(Timestamp::NEVER, |&(at, _)| at)
    }

    /// A record came back: keeps it and gives the pushes that wait for it, one a call.
    pub fn loaded(&mut self, number: u64, payload: &[u8]) {
        self.tries.remove(&number);
        if !payload.is_empty() {
            self.cache.insert(number, payload);
        }
    }

    /// The next push that waits for `number`.
    pub fn take_waiter(&mut self, number: u64) -> Option<Key> {
        self.loads.take(number)
    }

    /// Moves the work of this turn into `batch`.
    pub fn poll_store(&mut self, batch: &mut StoreBatch) -> bool {
        debug_assert!(batch.appends.is_empty() && batch.reads.is_empty());
        while let Some(segment) = self.segments.poll_dead() {
            self.batch.dead_segments.push(segment);
        }
        if self.batch.appends.is_empty()
            && self.batch.reads.is_empty()
            && self.batch.dead_segments.is_empty()
        {
            return false;
        }
        core::mem::swap(&mut self.batch, batch);
        true
    }

    /// Records that may still be written before intake holds back.
    #[must_use]
    pub fn room(&self) -> usize {
        self.options.unsettled_max.saturating_sub(self.after.len())
    }

    /// `true` when the store is so far behind that new messages are better refused: half of the records
    /// it may owe are outstanding, or a deposit has waited for longer than it should (OVL-7). What
    /// needs no record is still served then, and there is room for marks.
    #[must_use]
    pub fn is_behind(&self, now: Timestamp) -> bool {
        let is_late = match self.after.front() {
            Some((_, After::Deposit { since, .. })) => {
                now.since(*since) > self.options.store_delay_max
            }
            Some(_) | None => false,
        };
        is_late || self.after.len() >= self.options.unsettled_max / 2
    }

    /// Since when the deposit waits for the store that is next; `None`: what is next is no deposit.
    #[must_use]
    pub fn deposit_since(&self) -> Option<Timestamp> {
        let (_, next) = self.after.front()?;
        let After::Deposit { since, .. } = next else {
            return None;
        };
        Some(*since)
    }

    /// `true` when nothing waits for the store.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.after.is_empty() && self.batch.appends.is_empty()
    }

    /// Messages accepted and not yet gone.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.queue.count()
    }

    /// How long the oldest of them has waited; nothing when none waits, else more by what
    /// `Spans` says.
    #[must_use]
    pub fn oldest_age(&self, wall: UnixMillis) -> Option<Duration> {
        let since = self.queue.oldest()?;
        Some(Duration::from_millis(wall.0.saturating_sub(since.0)))
    }

    /// A `Removed` mark is durable: the books say why the message left.
    pub const fn gone(&mut self, reason: RemovalReason) {
        self.leaving = self.leaving.saturating_sub(1);
        self.ledger.removed(reason);
    }

    /// Messages on disk that are not removed there: those pending, and those whose removal is being
    /// written. The ledger balances with this number.
    #[must_use]
    pub const fn pending_on_disk(&self) -> usize {
        self.pending() + self.leaving
    }

    /// A higher number than any given out so far.
    #[must_use]
    pub const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// A buffer for a response, empty.
    pub fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// Gives a buffer back.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < 4096 && buffer.capacity() <= 64 * 1024 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_pushes_wait_for_records_as_there_is_room_for_and_each_is_told_once() {
        let keys = MapKeys([1, 2, 3, 4]);
        let mut post = Post::new(&PostOptions::default(), keys, UnixMillis(0));
        let at = Location {
            segment: 1,
            offset: 4096,
            len: 300,
        };
        let key = |slot| Key {
            slot,
            generation: 3,
        };
        // Two devices for each message: one read.
        for slot in 0..4000 {
            post.load(u64::from(slot / 2), at, key(slot));
        }
        assert_eq!(post.batch.reads.len(), 2000);
        assert_eq!(post.load_room(), 96);
        for slot in 4000..4200 {
            post.load(u64::from(slot), at, key(slot));
        }
        assert_eq!(post.load_room(), 0, "never below nothing");
        let waiters: Vec<_> = post.waiters(7).collect();
        assert_eq!(waiters, [key(14), key(15)], "who goes on waiting");
        let told: Vec<_> = std::iter::from_fn(|| post.take_waiter(7)).collect();
        assert_eq!(told, [key(14), key(15)]);
        assert_eq!(post.waiters(7).next(), None);
        assert_eq!(post.waiters(8).next(), Some(key(16)));
        for number in 0..4200 {
            while post.take_waiter(number).is_some() {}
        }
        assert_eq!(post.load_room() as usize, LOADING_MAX);
    }

    #[test]
    fn sessions_wait_in_a_line_for_their_own_connection() {
        let mut post = Post::new(
            &PostOptions::default(),
            MapKeys([1, 2, 3, 4]),
            UnixMillis(0),
        );
        let link = |slot| LinkId {
            slot,
            generation: 1,
        };
        let key = |slot| Key {
            slot,
            generation: 9 - slot,
        };
        let places = [(1, 5), (0, 1), (1, 0), (2, 3), (1, 4)]
            .map(|(on, slot)| post.hold_back(link(on), key(slot)));
        assert!(places.is_sorted() && places[0] > 0);
        post.leave_line(link(1), places[2]);
        assert_eq!(post.next_in_line(link(1)), Some(key(5)));
        assert!(post.has_line(link(1)));
        // Who comes again is last.
        post.hold_back(link(1), key(5));
        assert_eq!(post.next_in_line(link(1)), Some(key(4)));
        assert_eq!(post.next_in_line(link(1)), Some(key(5)));
        assert_eq!(post.next_in_line(link(1)), None);
        assert!(!post.has_line(link(1)) && post.has_line(link(0)) && post.has_line(link(2)));
    }

    #[test]
    fn effects_wait_for_their_own_ticket() {
        let mut post = Post::new(&PostOptions::default(), MapKeys([1; 4]), UnixMillis(1));
        let user = Key {
            slot: 0,
            generation: 0,
        };
        let deposit = |number| Deposit {
            user: b"+1",
            identity: b"sip:a@b",
            number,
            cpim: b"x",
            ..Deposit::default()
        };
        let zero = UnixMillis(0);
        let (one, two) = (post.take_number(zero, false), post.take_number(zero, false));
        assert!(post.take_number(zero, true) > post.take_number(zero, false));
        assert!(two > one);
        let now = Timestamp::from_millis(1);
        post.append_deposit(now, user, &deposit(one), None).unwrap();
        post.append_deposit(now, user, &deposit(two), None).unwrap();
        assert!(post.take_after(StoreTicket(0)).is_none());
        assert!(
            matches!(post.take_after(StoreTicket(1)), Some(After::Deposit { number, .. }) if number == one)
        );
        assert!(
            post.take_after(StoreTicket(1)).is_none(),
            "the second is not durable yet"
        );
        let mut batch = StoreBatch::default();
        assert!(post.poll_store(&mut batch));
        assert_eq!(batch.appends.len(), 2);
        assert!(!post.is_settled());
    }
}
