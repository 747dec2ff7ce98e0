//! A queue at rest: which devices it knew, and which messages must not come twice.

use super::{Extra, Mailbox};
use crate::base::fold::{Fold, Reader, Writer};
use crate::base::pool::Idle;
use crate::base::slab::Key;

impl Idle for Mailbox {
    type Keeper = ();

    /// Empty: what is left are devices and repeats.
    fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    fn fold(&self, out: &mut Writer<'_>) {
        let Self {
            // None, and what is said of them follows.
            entries: _,
            extra,
            bytes: _,
            earliest_s: _,
        } = self;
        let nothing = Extra::default();
        let Extra {
            devices,
            recent,
            // Of messages that are here; none is.
            put_off: _,
        } = extra.as_deref().unwrap_or(&nothing);
        devices.len().fold(out);
        recent.len().fold(out);
        for key in devices {
            out.digest(*key);
        }
        for (hash, expires_s) in recent {
            out.digest(*hash);
            expires_s.fold(out);
        }
    }

    fn unfold(&mut self, (): &(), _: Key, from: &mut Reader<'_>) {
        self.entries.clear();
        self.bytes = 0;
        self.earliest_s = u32::MAX;
        let (mut devices, mut recent) = (0_usize, 0_usize);
        devices.unfold(from);
        recent.unfold(from);
        if let Some(extra) = &mut self.extra {
            extra.devices.clear();
            extra.recent.clear();
            extra.put_off.clear();
        }
        if devices + recent == 0 {
            return;
        }
        let extra = self.extra.get_or_insert_default();
        extra.devices.extend((0..devices).map(|_| from.digest()));
        for _ in 0..recent {
            let (hash, mut expires_s) = (from.digest(), 0_u32);
            expires_s.unfold(from);
            extra.recent.push_back((hash, expires_s));
        }
    }
}
