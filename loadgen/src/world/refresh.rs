//! Sessions that last: who refreshes them, when, and what happens when nobody does (RFC 4028).
//!
//! What a phone does is drawn from the seed: it leaves refreshing to the engine, refreshes itself, or
//! says that it will and does not. Octets are kept only for phones that refresh.

use std::collections::{BTreeMap, VecDeque};

use super::{Call, Compact, Step, World, bench, device_key};
use crate::behaviour::Refresher;
use crate::check::dialog::phone_tag;
use crate::identity::{put_fixed, put_plain, read_digits};
use crate::link::LinkId;
use crate::rules::Rule;
use crate::scan::{Header, Message, lists, name_addr, param, parse_number};
use crate::scenario::Kind;

/// How late a refresh or an end may be beside what the rows allow: ticks, load, nanoseconds.
const SLACK: u64 = 1_500_000_000;
/// How long after the 200 to a phone's BYE a refresh may arrive that left before it, nanoseconds.
const CROSSING: u64 = 1_000_000_000;
/// How much earlier than half the interval a refresh may come, beside its jitter, nanoseconds.
const EARLY: u64 = 200_000_000;

/// What a phone needs to send a request in the dialog of a push.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// Contact of the INVITE, its To with the phone's tag, its From, its Call-ID; a line each.
    texts: Compact,
    cseq: u32,
}

/// Phones that send requests of their own, by device, and when they refresh next.
#[derive(Debug, Default)]
pub(super) struct Sides {
    by_device: BTreeMap<u32, Side>,
    /// Due time, device and serial; all wait equally long, so they are in order.
    refreshes: VecDeque<(u64, u32, u32)>,
    /// Devices up to this one have hung up, or had nothing to hang up.
    hung_up_to: usize,
    /// Their BYEs without an answer.
    byes_open: u32,
}

impl Sides {
    /// When a phone refreshes next.
    pub(super) fn next(&self) -> Option<u64> {
        self.refreshes.front().map(|&(due, ..)| due)
    }
}

impl World {
    /// Whether sessions are held and their timers judged.
    pub(super) fn holds_sessions(&self) -> bool {
        self.setup.kind == Kind::Hold
    }

    /// Who refreshes this push's session.
    pub(super) fn draw_refresher(&self, user: u32, device: u8, nth: u32) -> Refresher {
        let key = device_key(&self.names, user, device);
        self.setup.refreshers.draw(key, nth)
    }

    /// A push is answered: a phone that refreshes remembers its dialog.
    pub(super) fn session_begins(&mut self, message: &Message<'_>, index: usize) {
        let refreshes = self.devices[index].refresher == Refresher::Phone;
        if !self.holds_sessions() || !(refreshes || self.setup.hang_up) {
            return;
        }
        let value = |header| message.value(header).unwrap_or(&[]);
        let contact = name_addr(value(Header::Contact)).map_or(&[][..], |(uri, _)| uri);
        let tag = phone_tag(self.devices[index].dialog.serial);
        let parts = [
            contact,
            b"\n",
            value(Header::To),
            b";tag=",
            &tag,
            b"\n",
            value(Header::From),
            b"\n",
            value(Header::CallId),
        ];
        let mut text = core::mem::take(&mut self.unpacked);
        text.clear();
        parts.iter().for_each(|part| text.extend_from_slice(part));
        let texts = self.patterns.keep(&text);
        self.unpacked = text;
        let side = Side { texts, cseq: 0 };
        self.sides.by_device.insert(index as u32, side);
    }

    /// The ACK is here: a phone that refreshes does so at half the interval.
    pub(super) fn session_stands(&mut self, index: usize) {
        self.devices[index].refreshed_at = self.devices[index].answered_at;
        if self.devices[index].refresher == Refresher::Phone {
            self.refresh_later(index);
        }
    }

    fn refresh_later(&mut self, index: usize) {
        let due = self.now + self.half();
        let serial = self.devices[index].dialog.serial;
        self.sides.refreshes.push_back((due, index as u32, serial));
    }

    /// Phones whose refresh is due send it.
    pub(super) fn pump_refreshes(&mut self) {
        while let Some(&(due, index, serial)) = self.sides.refreshes.front()
            && due <= self.now
        {
            self.sides.refreshes.pop_front();
            let device = &self.devices[index as usize];
            if device.dialog.serial == serial && device.call == Call::Confirmed {
                self.phone_refresh(index as usize);
            }
        }
    }

    /// Writes a request of a phone in its dialog, without what follows CSeq; gives its link. The branch is
    /// `kind` and `digits`.
    fn put_in_dialog(
        &mut self,
        index: usize,
        method: &[u8],
        (kind, digits): (u8, [(u64, usize); 3]),
    ) -> Option<LinkId> {
        let side = self.sides.by_device.get_mut(&(index as u32))?;
        side.cseq += 1;
        let cseq = side.cseq;
        let mut text = core::mem::take(&mut self.unpacked);
        self.patterns.text(&side.texts, &mut text);
        let mut lines = text.split(|&byte| byte == b'\n');
        let mut line = || lines.next().unwrap_or(&[]);
        let (target, own, peer, call_id) = (line(), line(), line(), line());
        let link = self.notify_link(target);
        let out = self.outbox.buffer(link);
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(target);
        out.extend_from_slice(b" SIP/2.0\r\nVia: SIP/2.0/");
        out.extend_from_slice(self.transport);
        out.push(b' ');
        out.extend_from_slice(self.setup.scscf_listen.to_string().as_bytes());
        out.extend_from_slice(b";branch=z9hG4bK");
        out.push(kind);
        for (value, width) in digits {
            put_fixed(value, width, out);
        }
        out.extend_from_slice(b"\r\nMax-Forwards: 70\r\nFrom: ");
        out.extend_from_slice(own);
        out.extend_from_slice(b"\r\nTo: ");
        out.extend_from_slice(peer);
        out.extend_from_slice(b"\r\nCall-ID: ");
        out.extend_from_slice(call_id);
        out.extend_from_slice(b"\r\nCSeq: ");
        put_plain(u64::from(cseq), out);
        out.push(b' ');
        out.extend_from_slice(method);
        out.extend_from_slice(b"\r\n");
        self.unpacked = text;
        Some(link)
    }

    /// The UPDATE of a phone.
    fn phone_refresh(&mut self, index: usize) {
        let serial = self.devices[index].dialog.serial;
        let side = self.sides.by_device.get(&(index as u32));
        let next = side.map_or(0, |side| side.cseq + 1);
        let digits = [
            (index as u64, 10),
            (u64::from(serial), 8),
            (u64::from(next), 8),
        ];
        let Some(link) = self.put_in_dialog(index, b"UPDATE", (b'u', digits)) else {
            return;
        };
        let out = self.outbox.buffer(link);
        out.extend_from_slice(b"Supported: timer\r\nSession-Expires: ");
        put_plain(u64::from(self.setup.session_expires_s), out);
        out.extend_from_slice(b";refresher=uac\r\nContent-Length: 0\r\n\r\n");
        self.request_sent(link);
        self.counters.phone_refreshes += 1;
    }

    /// The hold is over: phones hang up, so many at a time.
    pub(super) fn pump_hang_ups(&mut self) {
        while self.sides.hung_up_to < self.devices.len()
            && self.sides.byes_open < self.setup.users_in_flight
        {
            let index = self.sides.hung_up_to;
            let full = self
                .engine_links
                .iter()
                .chain(self.notify_links.iter().map(|(_, link)| link));
            let mut lens = full.map(|&link| self.outbox.peek(link).buffer.len());
            if lens.any(|len| len > super::LINK_BYTES_MAX) {
                return;
            }
            self.sides.hung_up_to += 1;
            let device = &self.devices[index];
            if device.call != Call::Confirmed {
                continue;
            }
            let serial = device.dialog.serial;
            let digits = [(index as u64, 10), (u64::from(serial), 8), (0, 1)];
            let Some(link) = self.put_in_dialog(index, b"BYE", (b'h', digits)) else {
                continue;
            };
            self.outbox
                .buffer(link)
                .extend_from_slice(b"Content-Length: 0\r\n\r\n");
            self.request_sent(link);
            self.sides.byes_open += 1;
        }
        if self.sides.hung_up_to == self.devices.len() && self.sides.byes_open == 0 {
            self.enter(Step::Drain);
        }
    }

    /// The phone of `index` hung up so lately that a refresh of the engine may have been on its way over
    /// another connection.
    pub(super) fn hung_up_just_now(&self, index: usize) -> bool {
        let at = self.devices[index].refreshed_at;
        index < self.sides.hung_up_to && self.now.saturating_sub(at) < CROSSING
    }

    /// Whose request in its dialog bore `digits` in its branch, and whether that session still stands.
    fn asked_by(&mut self, digits: &[u8]) -> Option<(usize, bool)> {
        let part = |from: usize, to: usize| digits.get(from..to).and_then(read_digits);
        let index = part(0, 10).and_then(|index| usize::try_from(index).ok());
        let device = index.and_then(|index| self.devices.get(index));
        let (Some(index), Some(device), Some(serial)) = (index, device, part(10, 18)) else {
            self.counters.strays += 1;
            return None;
        };
        let is_same = u64::from(device.dialog.serial) == serial;
        Some((index, is_same && device.call == Call::Confirmed))
    }

    /// The engine's answer to the BYE of a phone that hangs up at the end.
    pub(super) fn hang_up_answered(&mut self, message: &Message<'_>, digits: &[u8]) {
        if message.status < 200 {
            return;
        }
        let Some((index, stands)) = self.asked_by(digits) else {
            return;
        };
        self.sides.byes_open = self.sides.byes_open.saturating_sub(1);
        if !stands {
            // The engine's own BYE was faster.
            return;
        }
        let device = &mut self.devices[index];
        device.call = Call::Idle;
        device.refreshed_at = self.now;
        self.counters.hung_up += 1;
        self.sides.by_device.remove(&(index as u32));
        if message.status != 200 {
            let what = "the BYE of a phone is not answered 200";
            self.violations.record(Rule::Dlg8, what, message.bytes);
        }
    }

    /// The engine's answer to an UPDATE of a phone (ST-14, ST-15).
    pub(super) fn phone_refresh_answered(&mut self, message: &Message<'_>, digits: &[u8]) {
        if message.status < 200 {
            return;
        }
        let Some((index, true)) = self.asked_by(digits) else {
            return;
        };
        let asked = self.setup.session_expires_s;
        let mut bench = bench(&mut self.violations, message);
        let good = message.status == 200;
        bench.demand(
            good,
            Rule::St14,
            "a refresh of the phone is not answered 200",
        );
        if good {
            let expires = message.value(Header::SessionExpires).unwrap_or(&[]);
            let digits = expires.iter().take_while(|byte| byte.is_ascii_digit());
            let count = digits.count();
            let granted = parse_number(&expires[..count]);
            let fits = granted.is_some_and(|granted| (90..=asked).contains(&granted));
            bench.demand(fits, Rule::St14, "Session-Expires is missing or larger");
            let role = param(&expires[count..], b"refresher") == Some(b"uac");
            bench.demand(role, Rule::St14, "the refresher is another than asked");
            let required = lists(message.value(Header::Require).unwrap_or(&[]), b"timer");
            bench.demand(required, Rule::St14, "Require does not list timer");
            let none = message.count(Header::MinSe) == 0;
            bench.demand(none, Rule::St15, "Min-SE in a response other than 422");
            self.devices[index].refreshed_at = self.now;
            self.refresh_later(index);
        }
    }

    /// A refresh of the engine came: at half the interval, less at most a twentieth (ST-8).
    pub(super) fn judge_refresh(&mut self, index: usize, message: &[u8]) {
        if !self.holds_sessions() {
            return;
        }
        let half = self.half();
        let device = &mut self.devices[index];
        let after = self.now.saturating_sub(device.refreshed_at);
        device.refreshed_at = self.now;
        if device.refresher != Refresher::Engine {
            let what = "the engine refreshes what the phone is to refresh";
            self.violations.record(Rule::St8, what, message);
        } else if after + EARLY < half - half / 20 || after > half + SLACK {
            let what = "a refresh not at half the interval less at most 5 %";
            self.violations.record(Rule::St8, what, message);
        }
    }

    fn half(&self) -> u64 {
        u64::from(self.setup.session_expires_s) * 500_000_000
    }

    /// The engine ends a session: a phone that does not refresh has waited for it (ST-13).
    pub(super) fn judge_end(&mut self, index: usize, message: &[u8]) {
        if !self.holds_sessions() {
            return;
        }
        self.sides.by_device.remove(&(index as u32));
        let device = &self.devices[index];
        let after = self.now.saturating_sub(device.refreshed_at);
        // A BYE that comes earlier has other reasons: nothing is left to send.
        if device.refresher != Refresher::Silent || after + EARLY < self.end_after() {
            self.counters.sessions_ended += 1;
            return;
        }
        self.counters.sessions_expired += 1;
        if after > self.end_after() + SLACK {
            let what = "BYE later than the expiry less the smaller of 32 s and a third";
            self.violations.record(Rule::St13, what, message);
        }
    }

    fn end_after(&self) -> u64 {
        let whole = u64::from(self.setup.session_expires_s) * 1_000_000_000;
        whole - (whole / 3).min(32_000_000_000)
    }

    /// The run is over: sessions that stand, and those whose timers ran out unseen.
    pub(super) fn judge_held(&mut self) {
        if !self.holds_sessions() || self.counters.sessions_held > 0 {
            return;
        }
        let (half, end) = (self.half(), self.end_after());
        let mut held = 0;
        for device in &self.devices {
            if device.call != Call::Confirmed {
                continue;
            }
            held += 1;
            let after = self.now.saturating_sub(device.refreshed_at);
            match device.refresher {
                Refresher::Engine if after > half + SLACK => {
                    self.violations
                        .record(Rule::St8, "no refresh at half the interval", b"");
                }
                Refresher::Silent if after > end + SLACK => {
                    self.violations.record(
                        Rule::St13,
                        "a session without refresh is not ended",
                        b"",
                    );
                }
                Refresher::Engine | Refresher::Phone | Refresher::Silent => {}
            }
        }
        self.counters.sessions_held = held;
    }
}
