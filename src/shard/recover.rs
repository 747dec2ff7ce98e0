//! Start from what the store holds: queues are rebuilt, nothing else was promised.
//!
//! Registrations, subscriptions and sessions are not stored. Users with mail are asked about at the
//! registrar, paced, so that a restart is no storm (OVL-10).

use core::time::Duration;

use crate::base::slab::Key;
use crate::base::surface::Location;
use crate::base::time::Timestamp;
use crate::shard::Shard;
use crate::store::index::{Fate, NewEntry};
use crate::store::op::{Hints, MarkKind};
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
}

impl Shard {
    /// Takes one record of the store, in the order of their places, before any other input.
    pub fn recover(&mut self, location: Location, payload: &[u8], found: &mut Recovered) {
        found.records += 1;
        match record::decode(payload) {
            Ok(Record::Deposit(deposit)) => {
                self.post.saw_number(deposit.number);
                let Some((user, is_new)) = self.registry.lookup_or_create(deposit.user) else {
                    found.unreadable += 1;
                    self.post.segments.deposit(location);
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
                    bytes: u32::try_from(deposit.cpim.len()).unwrap_or(u32::MAX),
                    target: deposit.target_instance,
                    flags: deposit.flags,
                    hints: Hints::of(deposit.content_type, deposit.conversation_id),
                };
                if self.post.mailbox(user.slot).restore(&new, location) {
                    self.post.segments.deposit(location);
                    self.post.count(true);
                    found.messages += 1;
                }
            }
            Ok(Record::Mark(mark)) => self.recover_mark(location, &mark, found),
            Err(_) => {
                found.unreadable += 1;
                // Something unknown lives in this segment: keep it for good.
                self.post.segments.deposit(location);
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
        let Some(user) = self.registry.lookup(mark.user) else {
            self.post.segments.mark(location, None);
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
            MarkKind::Removed { .. } => {
                if mailbox.remove(mark.number).is_some() {
                    self.post.count(false);
                    found.messages -= 1;
                }
            }
        }
        self.post.segments.mark(location, of);
        if let (MarkKind::Removed { .. }, Some(of)) = (mark.kind, of) {
            self.post.segments.dead(of);
        }
    }

    /// After the last record: plans when to ask the registrar about each user with mail, and
    /// subscribes the configured users.
    pub fn recovered(&mut self, now: Timestamp) {
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
