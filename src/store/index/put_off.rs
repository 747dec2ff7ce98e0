//! Messages that a device does without until the next start, because their records cannot be read back.
//!
//! Not a decision of the device: such a message waits for it as before, so that it stays in the store, and
//! neither a mark nor a checkpoint speaks of it.

use super::Mailbox;

impl Mailbox {
    /// `device` does without message `number` from now on.
    pub fn put_off(&mut self, number: u64, device: u64) {
        if device == 0 || self.find(number).is_none() {
            return;
        }
        let slot = self.slot_for(device);
        let put_off = &mut self.extra.get_or_insert_default().put_off;
        match put_off.binary_search_by_key(&number, |&(number, _)| number) {
            Ok(at) => put_off[at].1 |= 1 << slot,
            Err(at) => put_off.insert(at, (number, 1 << slot)),
        }
    }

    pub(super) fn is_put_off(&self, number: u64, slot: Option<usize>) -> bool {
        let (Some(slot), Some(extra)) = (slot, &self.extra) else {
            return false;
        };
        let put_off = &extra.put_off;
        !put_off.is_empty()
            && put_off
                .binary_search_by_key(&number, |&(number, _)| number)
                .is_ok_and(|at| put_off[at].1 >> slot & 1 == 1)
    }

    /// Slots of devices that do without a message, as bits.
    pub(super) fn put_off_slots(&self) -> u32 {
        let extra = self.extra.iter();
        extra
            .flat_map(|extra| &extra.put_off)
            .fold(0, |bits, &(_, slots)| bits | slots)
    }

    /// Another device has that slot now.
    pub(super) fn clear_put_off(&mut self, slot: u32) {
        if let Some(extra) = &mut self.extra {
            for (_, slots) in &mut extra.put_off {
                *slots &= !(1 << slot);
            }
        }
    }

    /// Message `number` is gone.
    pub(super) fn forget_put_off(&mut self, number: u64) {
        if let Some(extra) = &mut self.extra
            && !extra.put_off.is_empty()
        {
            extra.put_off.retain(|&(other, _)| other != number);
        }
    }
}
