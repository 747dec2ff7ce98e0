//! INVITEs that overtook the BYE of the session before them. Between connections there is no order, nor between
//! datagrams (RFC 3261 section 18): an engine that ends one push of a device and begins the next at once may
//! be read the other way round.
//!
//! The session before is kept as it was until its BYE comes, or the answer to that of the phone, and is judged
//! by it; the device has begun the next one already. Sessions of a hold do not follow each other so closely
//! and are left out. What has no such excuse breaks RSP-31: an INVITE by the connection that its BYE was to
//! take, and one whose BYE does not come.

use std::collections::BTreeMap;

use super::{Call, Device, World, bench};
use crate::behaviour::Behaviour;
use crate::check::dialog::Dialog;
use crate::link::LinkId;
use crate::rules::Rule;
use crate::scan::{Header, Message};

/// How much later the BYE may come, nanoseconds.
const GRACE: u64 = 2_000_000_000;
/// What an INVITE did that had no BYE before it.
const SECOND: &str = "a second push to one device";

/// A session whose end is still on its way.
#[derive(Debug)]
struct Crossing {
    /// The device as it was.
    device: Device,
    /// The INVITE that overtook, where it came from, and when.
    invite: Box<[u8]>,
    link: LinkId,
    since: u64,
}

/// Sessions whose end is still on its way: one for a device at most.
#[derive(Debug, Default)]
pub(super) struct Crossings(BTreeMap<usize, Crossing>);

impl Crossings {
    /// Ends the wait of a device if the dialog that it waits for is the right one.
    fn take(&mut self, index: usize, is_it: impl Fn(&Dialog) -> bool) -> Option<Crossing> {
        let waits = self.0.get(&index);
        waits.filter(|one| is_it(&one.device.dialog))?;
        self.0.remove(&index)
    }
}

impl World {
    /// Whether no session of a device is in the way of an INVITE, by all one can know; keeps one whose end may
    /// be on its way.
    pub(super) fn is_free(&mut self, link: LinkId, index: usize, invite: &Message<'_>) -> bool {
        self.overtakes_bye(link, index, invite)
            || self.devices[index].call == Call::Idle
            || self.is_cut_off(index)
    }

    /// Whether an INVITE may have left behind the BYE of the session that stands, or behind the answer to the
    /// BYE of the phone, which has a connection of its own.
    fn overtakes_bye(&mut self, link: LinkId, index: usize, invite: &Message<'_>) -> bool {
        let device = &self.devices[index];
        let apart = self.is_datagram()
            || link != device.dialog.ack_link
            || device.behaviour == Behaviour::HangUp;
        let stands = device.call == Call::Confirmed && !self.holds_sessions();
        if !stands || !apart || self.crossings.0.contains_key(&index) {
            return false;
        }
        let crossing = Crossing {
            device: *device,
            invite: invite.bytes.into(),
            link,
            since: self.now,
        };
        self.crossings.0.insert(index, crossing);
        self.counters.invites_crossed += 1;
        // The next session begins with the first octet.
        self.forget_partial(index);
        true
    }

    /// A BYE; true when it is that of the session before and was judged by it.
    pub(super) fn crossed_bye(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        (user, number, index): (u32, u8, usize),
    ) -> bool {
        if self.crossings.0.is_empty() {
            return false;
        }
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let call_id = self.hasher.hash(1, call_id);
        let its = |dialog: &Dialog| dialog.call_id == call_id;
        let Some(mut crossing) = self.crossings.take(index, its) else {
            return false;
        };
        let behind = !self.is_datagram() && link == crossing.link && self.owes_bye(&crossing);
        let broken = self.broken_at != 0 && crossing.device.answered_at <= self.broken_at;
        let unsent = !broken && self.leaves_unsent(&crossing.device, (user, number));
        let old = &mut crossing.device;
        if old.judged {
            let mut bench = bench(&mut self.violations, message);
            bench.demand(!behind, Rule::Rsp31, SECOND);
            self.dialogs.bye(message, &mut old.dialog, &mut bench);
            bench.demand(
                !unsent,
                Rule::Ok3,
                "BYE before every queued message was sent",
            );
        }
        self.counters.byes += 1;
        self.counters.pushes += 1;
        self.reply(link, message, b"200 OK", None, b"");
        // From its ACK on, the next session has a connection of its own.
        if self.devices[index].call != Call::Confirmed {
            self.leave_media(index);
        }
        true
    }

    /// The answer to the BYE of a phone; true when that ended the session before.
    pub(super) fn crossed_bye_answered(&mut self, index: usize, serial: u64) -> bool {
        let its = |dialog: &Dialog| u64::from(dialog.serial) == serial;
        if self.crossings.take(index, its).is_none() {
            return false;
        }
        self.counters.hung_up += 1;
        if self.devices[index].call != Call::Confirmed {
            self.close_media(index);
        }
        true
    }

    /// Whether the end of a session must come, and not behind the INVITE.
    fn owes_bye(&self, one: &Crossing) -> bool {
        let excused = self.is_out_of_order() || self.was_cut_off(one.device.answered_at);
        one.device.judged && !excused
    }

    /// Whether the end of a session is still on its way.
    pub(super) fn awaits_bye(&self) -> bool {
        self.crossings.0.values().any(|one| self.owes_bye(one))
    }

    /// RSP-31 for INVITEs whose BYE did not come in time.
    pub(super) fn pump_crossings(&mut self) {
        self.judge_crossings(self.now.saturating_sub(GRACE));
    }

    /// RSP-31 for INVITEs from before that time whose BYE did not come.
    pub(super) fn judge_crossings(&mut self, before: u64) {
        let mut crossings = core::mem::take(&mut self.crossings.0);
        crossings.retain(|_, one| {
            let over = one.since < before;
            if over && self.owes_bye(one) {
                self.violations.record(Rule::Rsp31, SECOND, &one.invite);
            }
            !over
        });
        self.crossings.0 = crossings;
    }

    /// The generator did not run for that long: a BYE has more time to come.
    pub(super) fn put_off_crossings(&mut self, gap: u64) {
        for one in self.crossings.0.values_mut() {
            one.since += gap;
        }
    }
}
