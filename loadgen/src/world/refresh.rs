//! Sessions that last: who refreshes them, when, and what happens when nobody does (RFC 4028).
//!
//! What a phone does is drawn from the seed: it leaves refreshing to the engine, refreshes itself, or
//! says that it will and does not. Octets are kept only for phones that refresh.

use std::collections::HashMap;

use super::resend::Keyed;
use super::{Call, World, bench, device_key};
use crate::behaviour::Refresher;
use crate::check::dialog::phone_tag;
use crate::identity::{put_fixed, put_plain, read_digits};
use crate::rules::Rule;
use crate::scan::{Header, Message, lists, name_addr, param, parse_number};
use crate::scenario::Kind;

/// How late a refresh or an end may be beside what the rows allow: ticks, load, nanoseconds.
const SLACK: u64 = 1_500_000_000;
/// How much earlier than half the interval a refresh may come, beside its jitter, nanoseconds.
const EARLY: u64 = 200_000_000;

/// What a phone needs to send a request in the dialog of a push.
#[derive(Clone, Debug)]
pub(super) struct Side {
    target: Box<[u8]>,
    /// To and From of the INVITE, which change places.
    own: Box<[u8]>,
    peer: Box<[u8]>,
    call_id: Box<[u8]>,
    cseq: u32,
}

/// Phones that refresh, by device.
pub(super) type Sides = HashMap<u64, Side, Keyed>;

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
        if self.devices[index].refresher != Refresher::Phone {
            return;
        }
        let value = |header| message.value(header).unwrap_or(&[]);
        let contact = name_addr(value(Header::Contact)).map_or(&[][..], |(uri, _)| uri);
        let mut own = value(Header::To).to_vec();
        own.extend_from_slice(b";tag=");
        own.extend_from_slice(&phone_tag(self.devices[index].dialog.serial));
        let side = Side {
            target: contact.into(),
            own: own.into(),
            peer: value(Header::From).into(),
            call_id: value(Header::CallId).into(),
            cseq: 0,
        };
        self.sides.insert(index as u64, side);
    }

    /// The ACK is here: a phone that refreshes does so at half the interval.
    pub(super) fn session_stands(&mut self, index: usize) {
        self.devices[index].refreshed_at = self.devices[index].answered_at;
        if self.devices[index].refresher == Refresher::Phone {
            self.refresh_later(index);
        }
    }

    fn refresh_later(&mut self, index: usize) {
        let ms = f64::from(self.setup.session_expires_s) * 500.0;
        let link = self.engine_links[0];
        self.later(super::mood::Kind::Refresh, ms, link, index, Vec::new());
    }

    /// The UPDATE of a phone.
    pub(super) fn phone_refresh(&mut self, index: usize) {
        let Some(side) = self.sides.get_mut(&(index as u64)) else {
            return;
        };
        side.cseq += 1;
        let side = side.clone();
        let link = self.notify_link(&side.target);
        let serial = self.devices[index].dialog.serial;
        let out = self.outbox.buffer(link);
        out.extend_from_slice(b"UPDATE ");
        out.extend_from_slice(&side.target);
        out.extend_from_slice(b" SIP/2.0\r\nVia: SIP/2.0/");
        out.extend_from_slice(self.transport);
        out.push(b' ');
        out.extend_from_slice(self.setup.scscf_listen.to_string().as_bytes());
        out.extend_from_slice(b";branch=z9hG4bKu");
        put_fixed(index as u64, 10, out);
        put_fixed(u64::from(serial), 8, out);
        put_fixed(u64::from(side.cseq), 8, out);
        out.extend_from_slice(b"\r\nMax-Forwards: 70\r\nFrom: ");
        out.extend_from_slice(&side.own);
        out.extend_from_slice(b"\r\nTo: ");
        out.extend_from_slice(&side.peer);
        out.extend_from_slice(b"\r\nCall-ID: ");
        out.extend_from_slice(&side.call_id);
        out.extend_from_slice(b"\r\nCSeq: ");
        put_plain(u64::from(side.cseq), out);
        out.extend_from_slice(b" UPDATE\r\nSupported: timer\r\nSession-Expires: ");
        put_plain(u64::from(self.setup.session_expires_s), out);
        out.extend_from_slice(b";refresher=uac\r\nContent-Length: 0\r\n\r\n");
        self.request_sent(link);
        self.counters.phone_refreshes += 1;
    }

    /// The engine's answer to an UPDATE of a phone (ST-14, ST-15).
    pub(super) fn phone_refresh_answered(&mut self, message: &Message<'_>, digits: &[u8]) {
        if message.status < 200 {
            return;
        }
        let part = |from: usize, to: usize| digits.get(from..to).and_then(read_digits);
        let (Some(index), Some(serial)) = (part(0, 10), part(10, 18)) else {
            self.counters.strays += 1;
            return;
        };
        let index = index as usize;
        let live = self.devices.get(index).is_some_and(|device| {
            u64::from(device.dialog.serial) == serial && device.call == Call::Confirmed
        });
        if !live {
            return;
        }
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
        self.sides.remove(&(index as u64));
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
        if !self.holds_sessions() {
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
