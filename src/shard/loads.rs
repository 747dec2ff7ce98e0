//! Records that come back from the store, and the pushes that waited for them.

use crate::base::slab::Key;
use crate::base::surface::StoreDone;
use crate::base::time::Timestamp;
use crate::push::{PushState, delivery};
use crate::shard::Shard;
use crate::store::index::Fate;
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
            if payload.is_empty() && self.read_again(number) {
                continue;
            }
            self.post.loaded(number, payload);
            while let Some(key) = self.post.take_waiter(number) {
                self.loaded(now, key, number);
            }
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

    /// A record could not be read back: asks for it again, a few times, on behalf of those who wait.
    fn read_again(&mut self, number: u64) -> bool {
        self.probe.store_unreadable_total += 1;
        let waiter = self.post.waiter(number);
        let push = waiter.and_then(|key| self.pushes.lookup_warm(key));
        let location = if PartTable::is_part(number) {
            push.and_then(|push| delivery::part_of(push, &self.post))
                .map(|part| part.location)
        } else {
            push.and_then(|push| self.post.mailbox_ref(push.user().slot))
                .and_then(|mailbox| mailbox.lookup(number))
                .and_then(|entry| entry.location())
        };
        let Some(location) = location else {
            return false;
        };
        self.post.may_try_again(number) && self.post.read(number, location)
    }

    /// A record cannot be read back: this device does without the message until the next start, so
    /// that those behind it are not held up.
    fn unreadable(&mut self, now: Timestamp, key: Key, number: u64) {
        let push = self.pushes.lookup_mut(key).expect("the caller found it");
        let sending = push.inflight.last().map(|message| message.number);
        let number = sending
            .filter(|_| PartTable::is_part(number))
            .unwrap_or(number);
        let mailbox = self.post.mailbox(push.user().slot);
        // No record of it: the next start tries again.
        mailbox.mark(number, push.device, Fate::Refused);
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
