//! Records that come back from the store, and the pushes that waited for them.

use crate::base::slab::Key;
use crate::base::surface::{Location, StoreDone};
use crate::base::time::Timestamp;
use crate::push::{PushState, delivery};
use crate::shard::Shard;
use crate::store::parts::PartTable;

impl Shard {
    /// Records that were read back.
    pub(super) fn handle_loaded(&mut self, now: Timestamp, done: &StoreDone) {
        for (at, &(number, start, end)) in done.loaded.iter().enumerate() {
            self.foresee_loaded(&done.loaded[at + 1..]);
            let payload = &done.bytes[start as usize..end as usize];
            if self.post.take_for_cleaning(number, payload) {
                continue;
            }
            if payload.is_empty() && self.read_later(now, number) {
                continue;
            }
            self.post.loaded(number, payload);
            self.wake_waiters(now, number);
            self.read_for_notice(now, number);
        }
        if !done.loaded.is_empty() && self.post.load_room() > 0 {
            self.campaigns.hop_room();
        }
    }

    fn loaded(&mut self, now: Timestamp, key: Key, number: u64) {
        let Some(push) = self.pushes.lookup_mut(key) else {
            return;
        };
        if push.waiting_for != Some(number) {
            return;
        }
        if self.post.cache.lookup(number).is_none() {
            return self.unreadable(now, key, number);
        }
        push.waiting_for = None;
        if push.state == PushState::Loading {
            push.guard = Timestamp::NEVER;
            return self.launch(now, key);
        }
        self.after_push(now, key, None);
    }

    fn wake_waiters(&mut self, now: Timestamp, number: u64) {
        while let Some(key) = self.post.take_waiter(number) {
            self.loaded(now, key, number);
        }
    }

    /// A record could not be read back: it is asked for again, a few times with growing waits, while anybody
    /// waits for it. What is wrong may be over in a moment, as with a process that is out of descriptors.
    fn read_later(&mut self, now: Timestamp, number: u64) -> bool {
        self.probe.store_unreadable_total += 1;
        self.wanted_at(number).is_some() && self.post.try_later(now, number)
    }

    /// Asks again for the records for which that is due.
    pub(super) fn read_again(&mut self, now: Timestamp) {
        while let Some(number) = self.post.take_again(now) {
            let wanted = self.wanted_at(number);
            match wanted.filter(|_| self.post.cache.lookup(number).is_none()) {
                Some(location) => self.post.read(number, location),
                // It came another way, or nobody waits any more.
                None => {
                    self.post.loaded(number, b"");
                    self.wake_waiters(now, number);
                }
            }
        }
    }

    /// Where the record lies that pushes wait for; `None` when none of them does any more.
    fn wanted_at(&self, number: u64) -> Option<Location> {
        let is_part = PartTable::is_part(number);
        self.post.waiters(number).find_map(|key| {
            let push = self.pushes.lookup_warm(key)?;
            if push.waiting_for != Some(number) {
                None
            } else if is_part {
                delivery::part_of(push, &self.post).map(|part| part.location)
            } else {
                let mailbox = self.post.mailbox_ref(push.user().slot)?;
                mailbox.lookup(number)?.location()
            }
        })
    }

    /// A record cannot be read back: this device does without the message until the next start, so
    /// that those behind it are not held up.
    fn unreadable(&mut self, now: Timestamp, key: Key, number: u64) {
        let push = self.pushes.lookup_mut(key).expect("the caller found it");
        let sending = push.inflight.last().map(|message| message.number);
        let number = sending
            .filter(|_| PartTable::is_part(number))
            .unwrap_or(number);
        // Nothing on disk says so: the next start tries again.
        let mailbox = self.post.mailbox(push.user().slot);
        mailbox.put_off(number, push.device);
        self.probe.store_put_off_total += 1;
        push.waiting_for = None;
        push.session.abandon(delivery::handle_of(number));
        push.inflight.retain(|other| other.number != number);
        if push.state == PushState::Loading {
            push.guard = Timestamp::NEVER;
            return self.launch(now, key);
        }
        self.after_push(now, key, None);
    }
}
