//! INVITEs that overtook the BYE of the session before them. Between connections there is no order, nor between
//! datagrams (RFC 3261 section 18): an engine that ends one push of a device and begins the next at once may
//! be read the other way round.
//!
//! The session before is kept as it was, and what comes of its dialog is judged by it; the device has begun the
//! next one already. Sessions of a hold do not follow each other so closely and are left
//! out. What has no such excuse breaks RSP-31: an INVITE by the connection that its BYE was to take, and one
//! whose BYE does not come within two seconds.
//!
//! A BYE that got lost is sent again for 64 times T1, and may come that much later. So a session is known that
//! long, whatever became of it, and of a device as many as INVITEs were faster. Where more wait than there is
//! room for, the oldest are forgotten, and a BYE that may be of one of them is counted and not judged.

use std::collections::{BTreeMap, VecDeque};

use super::resend::LIFE;
use super::{Call, Device, World, bench};
use crate::behaviour::Behaviour;
use crate::link::LinkId;
use crate::rules::Rule;
use crate::scan::{Header, Message};

/// How much later the BYE may come, nanoseconds.
const GRACE: u64 = 2_000_000_000;
/// How long a session is known, nanoseconds: the last copy of its BYE leaves 64 * T1 after the first.
const KNOWN: u64 = LIFE + GRACE;
/// Sessions known at most; 200 octets each, and an INVITE for two seconds where one is owed.
const CROSSINGS_MAX: usize = 65_536;
/// What an INVITE did that had no BYE before it.
const SECOND: &str = "a second push to one device";

/// What became of the end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It may come.
    Awaited,
    /// The BYE came, or the answer to that of the phone.
    Came,
    /// It did not come in time.
    Missed,
}

/// A session whose end is or was still on its way.
#[derive(Debug)]
struct Crossing {
    /// The device as it was.
    device: Device,
    /// The INVITE that overtook, empty when it can break no rule any more; where it came from, and when.
    invite: Box<[u8]>,
    link: LinkId,
    since: u64,
    end: End,
}

/// A device and the hash of a Call-ID.
type Key = (usize, u64);

/// Sessions whose end is or was still on its way.
#[derive(Debug, Default)]
pub(super) struct Crossings {
    known: BTreeMap<Key, Crossing>,
    /// Those whose time is not over, and those not to be forgotten yet, by their INVITEs' times.
    awaited: VecDeque<Key>,
    order: VecDeque<Key>,
    /// When one was last forgotten for want of room.
    forgot_at: Option<u64>,
}

impl Crossings {
    /// Whether the end of a session of a device may come in time.
    fn awaits(&self, index: usize) -> bool {
        let mut all = self.known.range((index, 0)..=(index, u64::MAX));
        all.any(|(_, one)| one.end == End::Awaited)
    }

    fn insert(&mut self, key: Key, crossing: Crossing) {
        if self.known.len() >= CROSSINGS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.forgot_at = Some(crossing.since);
        }
        self.known.insert(key, crossing);
        self.awaited.push_back(key);
        self.order.push_back(key);
    }

    /// Forgets what began before that time.
    fn forget(&mut self, before: u64) {
        let since = |one: &Crossing| one.since;
        while let Some(key) = self.order.front()
            && self.known.get(key).map_or(0, since) < before
        {
            self.known.remove(key);
            self.order.pop_front();
        }
        self.forgot_at = self.forgot_at.filter(|&at| at >= before);
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
    /// BYE of the phone, which has a connection of its own. Where datagrams get lost, its ACK may be, too, and
    /// the ends of several sessions.
    fn overtakes_bye(&mut self, link: LinkId, index: usize, invite: &Message<'_>) -> bool {
        let device = self.devices[index];
        let lossy = self.is_out_of_order();
        let apart = self.is_datagram()
            || link != device.dialog.ack_link
            || device.behaviour == Behaviour::HangUp;
        let stands = device.call == Call::Confirmed || lossy && device.call == Call::Answered;
        if !stands || self.holds_sessions() || !apart {
            return false;
        }
        if !lossy && self.crossings.awaits(index) {
            return false;
        }
        let crossing = Crossing {
            device,
            invite: if lossy {
                Box::default()
            } else {
                invite.bytes.into()
            },
            link,
            since: self.now,
            end: End::Awaited,
        };
        let key = (index, device.dialog.call_id);
        self.crossings.insert(key, crossing);
        self.counters.invites_crossed += 1;
        // The next session begins with the first octet.
        self.forget_partial(index);
        true
    }

    /// The session before of a device that a request is of, by the Call-ID, which is new for each. Whether the tags
    /// are those of the session, too, is a question of DLG-1.
    fn crossed_key(&self, message: &Message<'_>, index: usize) -> Option<Key> {
        if self.crossings.known.is_empty() {
            return None;
        }
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let key = (index, self.hasher.hash(1, call_id));
        self.crossings.known.contains_key(&key).then_some(key)
    }

    /// An ACK; true when it is of a session before, and was judged by it.
    pub(super) fn crossed_ack(&mut self, message: &Message<'_>, index: usize) -> bool {
        let Some(key) = self.crossed_key(message, index) else {
            return false;
        };
        let Some(crossing) = self.crossings.known.get_mut(&key) else {
            return false;
        };
        let old = &mut crossing.device;
        if old.judged {
            let mut bench = bench(&mut self.violations, message);
            self.dialogs.ack(message, &mut old.dialog, &mut bench);
        }
        let serial = old.dialog.serial;
        if core::mem::replace(&mut old.call, Call::Confirmed) != Call::Answered {
            self.counters.repeats += 1;
        }
        self.final_settled(serial);
        true
    }

    /// A BYE; true when it is that of a session before and was judged by it.
    pub(super) fn crossed_bye(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        (user, number, index): (u32, u8, usize),
    ) -> bool {
        let Some(key) = self.crossed_key(message, index) else {
            return self.may_be_forgotten(link, message, index);
        };
        let Some(mut crossing) = self.crossings.known.remove(&key) else {
            return false;
        };
        match crossing.end {
            End::Came => {
                self.crossings.known.insert(key, crossing);
                self.ended_again(link, message);
                return true;
            }
            End::Missed => self.counters.byes_late += 1,
            End::Awaited => {}
        }
        let in_time = crossing.end == End::Awaited;
        let behind =
            in_time && !self.is_datagram() && link == crossing.link && self.owes_bye(&crossing);
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
        self.final_settled(crossing.device.dialog.serial);
        crossing.end = End::Came;
        crossing.invite = Box::default();
        self.crossings.known.insert(key, crossing);
        // From its ACK on, the next session has a connection of its own.
        if self.devices[index].call != Call::Confirmed {
            self.leave_media(index);
        }
        true
    }

    /// A BYE of a session before whose end has come. Over datagrams both sides may end it.
    fn ended_again(&mut self, link: LinkId, message: &Message<'_>) {
        if self.remembers() {
            self.counters.repeats += 1;
            return self.reply(link, message, b"200 OK", None, b"");
        }
        self.violations
            .record(Rule::Dlg6, "BYE without a dialog", message.bytes);
        let gone = b"481 Call/Transaction Does Not Exist";
        self.reply(link, message, gone, None, b"");
    }

    /// A BYE of no session that is known; true when that may be because one had to be forgotten.
    fn may_be_forgotten(&mut self, link: LinkId, message: &Message<'_>, index: usize) -> bool {
        if self.crossings.forgot_at.is_none() || self.is_of_call(message, index) {
            return false;
        }
        self.counters.byes_late += 1;
        let gone = b"481 Call/Transaction Does Not Exist";
        self.reply(link, message, gone, None, b"");
        true
    }

    /// The answer to the BYE of a phone; true when that ended a session before.
    pub(super) fn crossed_bye_answered(&mut self, index: usize, serial: u64) -> bool {
        let range = (index, 0)..=(index, u64::MAX);
        let mut all = self.crossings.known.range_mut(range);
        let its = |one: &Crossing| u64::from(one.device.dialog.serial) == serial;
        let Some((_, one)) = all.find(|(_, one)| its(one) && one.end != End::Came) else {
            return false;
        };
        one.end = End::Came;
        one.invite = Box::default();
        self.counters.hung_up += 1;
        if self.devices[index].call != Call::Confirmed {
            self.close_media(index);
        }
        true
    }

    /// Whether the end of a session must come, and not behind the INVITE.
    fn owes_bye(&self, one: &Crossing) -> bool {
        let excused = self.is_out_of_order() || self.was_cut_off(one.device.answered_at);
        one.end == End::Awaited && one.device.judged && !excused
    }

    /// Whether the end of a session is still on its way.
    pub(super) fn awaits_bye(&self) -> bool {
        let awaited = self.crossings.awaited.iter();
        let mut awaited = awaited.filter_map(|key| self.crossings.known.get(key));
        awaited.any(|one| self.owes_bye(one))
    }

    /// RSP-31 for INVITEs whose BYE did not come in time; sessions whose BYE cannot come any more are forgotten.
    pub(super) fn pump_crossings(&mut self) {
        self.judge_crossings(self.now.saturating_sub(GRACE));
        self.crossings.forget(self.now.saturating_sub(KNOWN));
    }

    /// RSP-31 for INVITEs from before that time whose BYE did not come.
    pub(super) fn judge_crossings(&mut self, before: u64) {
        while let Some(&key) = self.crossings.awaited.front() {
            if let Some(one) = self.crossings.known.get(&key) {
                if one.since >= before {
                    return;
                }
                if self.owes_bye(one) {
                    self.violations.record(Rule::Rsp31, SECOND, &one.invite);
                }
            }
            self.crossings.awaited.pop_front();
            if let Some(one) = self.crossings.known.get_mut(&key)
                && one.end == End::Awaited
            {
                one.end = End::Missed;
                one.invite = Box::default();
            }
        }
    }

    /// The generator did not run for that long: a BYE has more time to come.
    pub(super) fn put_off_crossings(&mut self, gap: u64) {
        for one in self.crossings.known.values_mut() {
            one.since += gap;
        }
    }

    /// Sessions that are known, for tests.
    #[cfg(test)]
    pub(super) fn known_crossings(&self) -> usize {
        self.crossings.known.len()
    }
}
