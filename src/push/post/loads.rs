//! Who waits for records that the store reads back.

use std::collections::BTreeSet;

use crate::base::map::{NumberMap, new_number_map};
use crate::base::slab::Key;

/// Sorts before every key.
const FIRST_KEY: Key = Key {
    slot: 0,
    generation: 0,
};

/// The pushes that wait for records.
#[derive(Debug)]
pub(super) struct Loads {
    /// The first push that waits for each.
    first: NumberMap<Key>,
    /// The others: messages that several devices get at a time.
    others: BTreeSet<(u64, Key)>,
}

impl Loads {
    pub(super) fn new() -> Self {
        Self {
            first: new_number_map(super::LOADING_MAX),
            others: BTreeSet::new(),
        }
    }

    /// `push` waits for `number`; true when that must be read.
    pub(super) fn wait(&mut self, number: u64, push: Key) -> bool {
        match self.first.get(&number) {
            None => {
                self.first.insert(number, push);
                return true;
            }
            Some(first) if *first == push => {}
            Some(_) => {
                self.others.insert((number, push));
            }
        }
        false
    }

    /// The push that waits for `number` first: one look-up.
    pub(super) fn waiter(&self, number: u64) -> Option<Key> {
        self.first.get(&number).copied()
    }

    /// The pushes that wait for `number`, the first one first.
    pub(super) fn waiters(&self, number: u64) -> impl Iterator<Item = Key> + '_ {
        let others = self.others.range((number, FIRST_KEY)..);
        let others = others.take_while(move |&&(at, _)| at == number);
        let first = self.waiter(number);
        first.into_iter().chain(others.map(|&(_, push)| push))
    }

    /// The next push that waits for `number`, which was read; `None`: there is no other.
    pub(super) fn take(&mut self, number: u64) -> Option<Key> {
        if !self.others.is_empty() {
            let next = self.others.range((number, FIRST_KEY)..).next().copied();
            if let Some((_, push)) = next.filter(|&(at, _)| at == number) {
                self.others.remove(&(number, push));
                return self.first.insert(number, push);
            }
        }
        self.first.remove(&number)
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.others.len()
    }
}
