//! Cleaning while serving: what still matters in sparse segments is written again, so that they can go.
//!
//! A pass walks the queues once, a bounded number a step, and asks for the records of deposits that lie
//! in one of its victims. Each that comes back is appended as a copy, with a mark for every device that
//! decided on it, because the marks it had are of no use to recovery once its first record is gone.
//!
//! | moment | what happens |
//! |---|---|
//! | the copy is durable | the index names the copy; its segment depends on the old one and so stays longer |
//! | marks that named the old place become durable | they count for the copy |
//! | the last record of the copy is durable | the old record is dead |
//!
//! A message that is removed while its copy is written keeps both until its `Removed` mark is durable;
//! that mark counts for the copy. Recovery sees the deposit, then the copy, then the mark, in this order,
//! and takes the copy for the same message.
//!
//! *Holds:* no more than [`CleanOptions::bytes_per_s`] are copied, nothing while the store is behind, its
//! disk full, failed, or the process drains; whatever is half done at a crash was never necessary.

use core::time::Duration;
use std::collections::VecDeque;

use crate::base::surface::{Location, StoreTicket};
use crate::base::time::Timestamp;
use crate::push::post::{After, Post};
use crate::store::index::{CleanOptions, Fate};
use crate::store::op::Mark;
use crate::store::record::{self, Record};

/// Time between steps of a pass.
const STEP: Duration = Duration::from_millis(10);
/// Queues looked at in a step.
const WALK: u32 = 1024;
/// Copies under way, from the request of the record to its durable copy.
const COPIES_MAX: usize = 64;
/// Steps whose bandwidth may be saved up.
const BURST: i64 = 25;

/// The state of a pass. Owner: [`Post`].
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    options: CleanOptions,
    /// Segments of this pass; empty when there is none.
    victims: Vec<u32>,
    /// Next queue to look at, and the number in it behind which to go on.
    at: (u32, u64),
    /// Records asked for: number and slot of the user.
    reading: Vec<(u64, u32)>,
    /// Copies that are not durable yet.
    writing: usize,
    /// Deposits that have a copy, and the last ticket that may name the old place.
    moved: VecDeque<(Location, Location, StoreTicket)>,
    /// Octets that may be copied now; below zero after a record that was larger than what was left.
    allowance: i64,
    /// When the next step is due.
    due: Timestamp,
    /// Messages and octets copied.
    pub(super) copied: (u64, u64),
}

impl Cleaner {
    pub(super) fn new(options: CleanOptions) -> Self {
        Self {
            options,
            due: Timestamp::NEVER,
            ..Self::default()
        }
    }
}

impl Post {
    /// Begins a pass if there is none and one is worth it. Called about once a second.
    pub fn consider_cleaning(&mut self, now: Timestamp) {
        let cleaner = &mut self.cleaner;
        if cleaner.options.bytes_per_s == 0 || !cleaner.victims.is_empty() || self.failed {
            return;
        }
        self.segments
            .victims(&cleaner.options, &mut cleaner.victims);
        if !cleaner.victims.is_empty() {
            cleaner.at = (0, 0);
            cleaner.due = now;
        }
    }

    /// When [`Self::clean`] has work.
    #[must_use]
    pub const fn cleaning_due(&self) -> Timestamp {
        self.cleaner.due
    }

    /// One step of a pass, if it is due.
    pub fn clean(&mut self, now: Timestamp) {
        if self.cleaner.due > now {
            return;
        }
        self.cleaner.due = now + STEP;
        let a_step = i64::try_from(self.cleaner.options.bytes_per_s / 100).unwrap_or(i64::MAX);
        let most = a_step.saturating_mul(BURST).max(1);
        let allowance = self.cleaner.allowance.saturating_add(a_step.max(1));
        self.cleaner.allowance = allowance.min(most);
        if self.failed {
            self.end_pass();
            return;
        }
        // Whoever waits for the store comes first, and the room on a full disk belongs to marks.
        if self.store_room.is_low() || self.after.len() > self.options.unsettled_max / 8 {
            return;
        }
        if self.walk() && self.cleaner.reading.is_empty() && self.cleaner.writing == 0 {
            self.end_pass();
        }
    }

    fn end_pass(&mut self) {
        for segment in self.cleaner.victims.drain(..) {
            self.segments.tried(segment);
        }
        self.cleaner.due = Timestamp::NEVER;
    }

    /// Asks for records of the next queues; true when all were looked at.
    fn walk(&mut self) -> bool {
        let cleaner = &mut self.cleaner;
        let slots = self.mailboxes.slots();
        for _ in 0..WALK {
            let (slot, after) = cleaner.at;
            if slot >= slots {
                return true;
            }
            if cleaner.reading.len() + cleaner.writing >= COPIES_MAX || cleaner.allowance <= 0 {
                return false;
            }
            let mailbox = self.mailboxes.warm_of(slot);
            let Some(entry) = mailbox.and_then(|held| held.next_in(after, &cleaner.victims)) else {
                cleaner.at = (slot + 1, 0);
                continue;
            };
            cleaner.at.1 = entry.number();
            let location = entry.location().expect("only durable ones lie anywhere");
            cleaner.allowance -= i64::from(location.len);
            cleaner.reading.push((entry.number(), slot));
            self.batch.reads.push((entry.number(), location));
        }
        false
    }

    /// A record came back: whether cleaning asked for it, and takes it then.
    pub fn take_for_cleaning(&mut self, number: u64, payload: &[u8]) -> bool {
        let mut reading = self.cleaner.reading.iter();
        let Some(at) = reading.position(|&(asked, _)| asked == number) else {
            return false;
        };
        let (_, slot) = self.cleaner.reading.swap_remove(at);
        self.copy(slot, number, payload);
        true
    }

    /// Appends a copy of the deposit in `payload`, unless it is gone or cannot be read.
    fn copy(&mut self, slot: u32, number: u64, payload: &[u8]) {
        if self.failed || self.store_room.is_low() {
            return;
        }
        let Ok(Record::Deposit(deposit)) = record::decode(payload) else {
            return;
        };
        let Some(mailbox) = self.mailboxes.warm_of(slot) else {
            return;
        };
        let from = mailbox.lookup(number).and_then(|entry| entry.location());
        let Some(from) = from.filter(|at| self.cleaner.victims.contains(&at.segment)) else {
            return;
        };
        let fates: Vec<(u64, Fate)> = mailbox.fates(number).collect();
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(payload);
        let is_deposit = record::mark_copy(&mut self.batch.bytes[start..]);
        assert!(is_deposit, "it was decoded as one");
        self.cleaner.writing += 1;
        self.cleaner.copied.0 += 1;
        self.cleaner.copied.1 += payload.len() as u64;
        self.push_append(start, After::Copied { slot, number, from });
        for (device, fate) in fates {
            let kind = fate.again(device);
            let mark = Mark {
                user: deposit.user,
                number,
                at: deposit.received,
                kind,
            };
            self.append_mark(&mark, from, false);
        }
        let last = StoreTicket(self.next_ticket - 1);
        self.after.push_back((last, After::Freed { of: from }));
    }

    /// The copy of `number`, whose first record lies at `from`, is durable at `to`.
    pub fn copied(&mut self, slot: u32, number: u64, from: Location, to: Location) {
        self.segments.deposit(to);
        // While the old segment is there, recovery reads the old record again: the copy, and with it
        // whatever speaks of the copy, must be there to be read behind it.
        self.segments.mark(to, Some(from));
        self.mailbox(slot).relocate(number, to);
        let last = StoreTicket(self.next_ticket - 1);
        self.cleaner.moved.push_back((from, to, last));
    }

    /// The old record of a copy no longer matters.
    pub fn freed(&mut self, of: Location) {
        self.cleaner.writing = self.cleaner.writing.saturating_sub(1);
        self.segments.dead(of);
    }

    /// Where the deposit lies that lay at `of` when its mark was appended.
    #[must_use]
    pub fn moved(&self, of: Location) -> Location {
        let mut moved = self.cleaner.moved.iter();
        moved
            .find(|(from, ..)| *from == of)
            .map_or(of, |&(_, to, _)| to)
    }

    /// Everything up to `ticket` is settled: nothing that is still under way names places of before.
    pub fn forget_moved(&mut self, ticket: StoreTicket) {
        let moved = &mut self.cleaner.moved;
        while moved.front().is_some_and(|&(.., last)| last <= ticket) {
            moved.pop_front();
        }
    }

    /// Messages and octets copied by cleaning since the start.
    #[must_use]
    pub const fn cleaned(&self) -> (u64, u64) {
        self.cleaner.copied
    }
}

#[cfg(test)]
mod tests;
