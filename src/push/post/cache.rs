//! Records of messages in memory.

use std::collections::VecDeque;

use crate::base::foresee;
use crate::base::map::{NumberMap, new_number_map};

/// Octets of a record that are asked for ahead.
const FORESEEN_BYTES_MAX: usize = 2048;

#[derive(Debug, Default)]
struct Cached {
    number: u64,
    bytes: Vec<u8>,
}

/// Records in memory, oldest out first when the bound is reached. Freed buffers are reused.
#[derive(Debug)]
pub struct Cache {
    map: NumberMap<u32>,
    entries: Vec<Cached>,
    free: Vec<u32>,
    order: VecDeque<u64>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            map: new_number_map(1024),
            entries: Vec::new(),
            free: Vec::new(),
            // Numbers of removed records stay in the order until it is swept.
            order: VecDeque::with_capacity(4096),
            bytes: 0,
            bytes_max,
        }
    }

    /// Keeps a copy of `payload` under `number`. The newest record stays even when it alone is larger
    /// than the bound: who asked for it must find it, or would ask for ever.
    pub fn insert(&mut self, number: u64, payload: &[u8]) {
        if self.map.contains_key(&number) {
            return;
        }
        while self.bytes + payload.len() > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.remove(oldest);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Cached::default());
            u32::try_from(self.entries.len() - 1).expect("bounded by the cache's size")
        });
        let entry = &mut self.entries[at as usize];
        entry.number = number;
        entry.bytes.clear();
        entry.bytes.extend_from_slice(payload);
        self.bytes += payload.len();
        self.map.insert(number, at);
        if self.order.len() > 2 * self.map.len() + 1024 {
            let map = &self.map;
            self.order.retain(|number| map.contains_key(number));
        }
        self.order.push_back(number);
    }

    /// The record of `number`, if it is in memory.
    #[must_use]
    pub fn lookup(&self, number: u64) -> Option<&[u8]> {
        let &at = self.map.get(&number)?;
        Some(&self.entries[at as usize].bytes)
    }

    /// Asks for the record of `number`, which is sent next.
    #[inline]
    pub fn foresee(&self, number: u64) {
        if let Some(record) = self.lookup(number) {
            foresee::bring(record, record.len().min(FORESEEN_BYTES_MAX));
        }
    }

    /// Drops the record of `number`.
    pub fn remove(&mut self, number: u64) {
        if let Some(at) = self.map.remove(&number) {
            self.bytes -= self.entries[at as usize].bytes.len();
            self.free.push(at);
        }
    }

    /// Octets held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_record_makes_room_and_buffers_are_reused() {
        let mut cache = Cache::new(10);
        cache.insert(1, b"aaaa");
        cache.insert(2, b"bbbb");
        cache.insert(3, b"cccc");
        assert_eq!(cache.lookup(1), None);
        assert_eq!(cache.lookup(3), Some(&b"cccc"[..]));
        assert_eq!(
            (cache.bytes(), cache.entries.len()),
            (8, 2),
            "slot of 1 was reused by 3"
        );
        // The newest stays whatever its size: a push waits for it.
        cache.insert(4, b"larger than ten");
        assert_eq!(cache.lookup(3), None, "everything older makes room");
        assert_eq!(
            cache.lookup(4),
            Some(&b"larger than ten"[..]),
            "the newest stays"
        );
    }

    #[test]
    fn removed_numbers_do_not_pile_up_in_the_order() {
        let mut cache = Cache::new(1 << 20);
        cache.insert(0, b"stays");
        for number in 1..10_000 {
            cache.insert(number, b"x");
            cache.remove(number);
        }
        assert!(cache.order.len() < 2048);
        assert_eq!(cache.lookup(0), Some(&b"stays"[..]));
    }
}
