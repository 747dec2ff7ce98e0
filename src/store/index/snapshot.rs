//! A mailbox as a checkpoint keeps it.

use super::{DURABLE, Entry, Fate, MAILBOX_TARGETS_MAX, Mailbox, NewEntry};
use crate::base::surface::Location;
use crate::store::checkpoint::{self, SavedEntry, SavedUser};

impl Mailbox {
    /// Appends what is durable here to a piece, behind the user's names; false, and nothing is
    /// appended, when nothing is. Messages in flight are records that recovery reads anyway.
    pub fn save(&self, canonical: &[u8], identity: &[u8], out: &mut Vec<u8>) -> bool {
        let durable = self
            .entries
            .iter()
            .filter(|entry| entry.location().is_some());
        let count = u32::try_from(durable.clone().count()).unwrap_or(u32::MAX);
        if count == 0 {
            return false;
        }
        checkpoint::put_user(canonical, identity, out);
        let (devices, recent) = match &self.extra {
            Some(extra) => (extra.devices.as_slice(), Some(&extra.recent)),
            None => (&[][..], None),
        };
        checkpoint::put_devices(devices, out);
        match recent {
            Some(recent) => checkpoint::put_recent(recent.iter().copied(), out),
            None => checkpoint::put_recent([].into_iter(), out),
        }
        checkpoint::put_count(count, out);
        for entry in durable {
            checkpoint::put_entry(
                &SavedEntry {
                    number: entry.number,
                    dedupe: entry.dedupe,
                    location: entry.location,
                    expires_s: entry.expires_s,
                    bytes: entry.bytes,
                    delivered: entry.delivered,
                    refused: entry.refused,
                    target: entry.target,
                    hints: entry.hints,
                    flags: entry.flags(),
                },
                out,
            );
        }
        true
    }

    /// Puts a saved queue back; calls `kept` with the place of each message that was put back.
    pub fn load(&mut self, saved: &SavedUser<'_>, mut kept: impl FnMut(u64, Location)) {
        if !self.entries.is_empty() {
            return self.merge(saved, kept);
        }
        self.reset();
        if saved.devices().len() + saved.recent().len() > 0 {
            let extra = self.extra.get_or_insert_default();
            extra.devices.extend(saved.devices());
            extra.recent.extend(saved.recent());
        }
        self.entries.reserve_exact(saved.entries().len());
        let mut targeted = 0_u32;
        for entry in saved.entries() {
            // Ascending, or the piece lies; then the entry is not taken.
            if self
                .entries
                .back()
                .is_some_and(|last| last.number >= entry.number)
            {
                continue;
            }
            self.bytes += u64::from(entry.bytes);
            self.earliest_s = self.earliest_s.min(entry.expires_s);
            // As in `restore`, one target too many is none: earlier versions took as many as there are slots.
            let slot = entry.target.checked_sub(1).map(u32::from);
            let bit = slot.and_then(|slot| 1_u32.checked_shl(slot)).unwrap_or(0);
            let is_one_more = targeted & bit == 0;
            let target = if is_one_more && targeted.count_ones() >= MAILBOX_TARGETS_MAX || bit == 0
            {
                0
            } else {
                targeted |= bit;
                entry.target
            };
            self.entries.push_back(Entry {
                number: entry.number,
                dedupe: entry.dedupe,
                location: entry.location,
                expires_s: entry.expires_s,
                bytes: entry.bytes,
                delivered: entry.delivered,
                refused: entry.refused,
                target,
                hints: entry.hints,
                bits: entry.flags.bits() | DURABLE,
            });
            kept(entry.number, entry.location);
        }
    }

    /// A user who was saved twice: left and came back while the checkpoint was made. The lists of
    /// devices differ, so each message is put in by itself.
    fn merge(&mut self, saved: &SavedUser<'_>, mut kept: impl FnMut(u64, Location)) {
        let device = |slot: usize| saved.devices().nth(slot).unwrap_or(0);
        for entry in saved.entries() {
            let new = NewEntry {
                number: entry.number,
                dedupe: entry.dedupe,
                expires_s: entry.expires_s,
                bytes: entry.bytes,
                target: usize::from(entry.target).checked_sub(1).map_or(0, device),
                pushes: 0,
                hints: entry.hints,
                flags: entry.flags,
            };
            if !self.restore(&new, entry.location) {
                continue;
            }
            kept(entry.number, entry.location);
            for (slot, key) in saved.devices().enumerate().take(32) {
                if entry.delivered >> slot & 1 == 1 {
                    self.mark(entry.number, key, Fate::Delivered);
                }
                if entry.refused >> slot & 1 == 1 {
                    self.mark(entry.number, key, Fate::Refused);
                }
            }
        }
    }

    /// Takes out every message that lies in none of the segments `present`, ascending; their numbers into
    /// `gone`.
    pub fn forget_absent(&mut self, present: &[u32], gone: &mut Vec<u64>) {
        self.entries.retain(|entry| {
            let segment = entry.location().map(|at| at.segment);
            let stays = segment.is_none_or(|segment| present.binary_search(&segment).is_ok());
            if !stays {
                gone.push(entry.number);
            }
            stays
        });
        self.bytes = self
            .entries
            .iter()
            .map(|entry| u64::from(entry.bytes))
            .sum();
        if self.entries.is_empty() {
            self.earliest_s = u32::MAX;
        }
    }

    /// The deposit of `number` was written again at `to`; where it lay before. `None` when it is not
    /// here, or lies there already.
    pub fn relocate(&mut self, number: u64, to: Location) -> Option<Location> {
        let at = self.find(number)?;
        let entry = &mut self.entries[at];
        let from = entry.location().filter(|from| *from != to)?;
        entry.location = to;
        Some(from)
    }
}
