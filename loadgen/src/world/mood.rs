//! Phones that do not simply answer: refusals, delays, silence, hanging up. Answers that are due later
//! wait here.

use std::collections::BinaryHeap;

use core::cmp::Reverse;

use super::{Call, World, bench, put_head};
use crate::behaviour::{Behaviour, MIN_SE_S};
use crate::check::dialog::{Dialog, phone_tag};
use crate::identity::{put_fixed, put_plain, read_digits};
use crate::link::{LinkId, Protocol};
use crate::rules::Rule;
use crate::scan::{Header, Message, parse_number};

/// Octets that leave later.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Later {
    due: u64,
    /// Keeps those of one time in order.
    number: u64,
    kind: Kind,
    link: LinkId,
    index: usize,
    serial: u32,
    bytes: Vec<u8>,
}

/// What the octets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The 200 to an INVITE.
    Answer,
    /// A BYE of the phone.
    Bye,
    /// MSRP of a slow receiver.
    Media,
    /// The connection of a session that is over was to be closed by the engine.
    Close,
}

/// What waits, by time.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    heap: BinaryHeap<Reverse<Later>>,
    count: u64,
}

impl World {
    /// When something that waits is due.
    pub(super) fn next_later(&self) -> Option<u64> {
        let first = self.waiting.heap.peek().map(|Reverse(later)| later.due);
        first.into_iter().chain(self.sides.next()).min()
    }

    /// Sends what is due by now.
    pub(super) fn pump_later(&mut self) {
        self.pump_refreshes();
        while let Some(Reverse(first)) = self.waiting.heap.peek()
            && first.due <= self.now
        {
            let Some(Reverse(later)) = self.waiting.heap.pop() else {
                return;
            };
            let device = &mut self.devices[later.index];
            if later.kind == Kind::Close {
                if device.media == later.link + 1 && device.dialog.serial == later.serial {
                    self.close_media(later.index);
                }
                continue;
            }
            let live = device.dialog.serial == later.serial
                && match later.kind {
                    Kind::Answer => device.call == Call::Ringing,
                    Kind::Bye => device.call == Call::Confirmed,
                    Kind::Media => !self.outbox.peek(later.link).closed,
                    Kind::Close => false,
                };
            if !live {
                continue;
            }
            if later.kind == Kind::Answer {
                device.call = Call::Answered;
                device.answered_at = self.now;
            }
            let out = self.outbox.buffer(later.link);
            let start = out.len();
            out.extend_from_slice(&later.bytes);
            match later.kind {
                Kind::Answer => self.accepted_sent(later.link, later.index, start),
                Kind::Bye => self.request_sent(later.link),
                Kind::Close | Kind::Media => self.outbox.sent(later.link),
            }
        }
    }

    /// Lets octets leave in `ms` milliseconds, if the push is still the same then.
    pub(super) fn later(
        &mut self,
        kind: Kind,
        ms: f64,
        link: LinkId,
        index: usize,
        bytes: Vec<u8>,
    ) {
        self.waiting.count += 1;
        self.waiting.heap.push(Reverse(Later {
            due: self.now + (ms * 1e6) as u64,
            number: self.waiting.count,
            kind,
            link,
            index,
            serial: self.devices[index].dialog.serial,
            bytes,
        }));
    }

    /// Refuses an INVITE; the engine keeps the message.
    pub(super) fn refuse(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        index: usize,
        (status, tail): (&[u8], &[u8]),
    ) {
        let device = &mut self.devices[index];
        device.call = Call::Refused;
        device.holds = true;
        let serial = device.dialog.serial;
        let out = self.outbox.buffer(link);
        put_head(out, message, status, Some(&phone_tag(serial)));
        out.extend_from_slice(tail);
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        self.final_sent(link, serial);
    }

    /// ACK to a refusal (TX-5): hop by hop, so all of it is the INVITE's but for the tag of To.
    pub(super) fn ack_refusal(&mut self, message: &Message<'_>, whose: (u32, u8, usize)) {
        let (user, device_number, index) = whose;
        self.final_acknowledged(index);
        let device = &mut self.devices[index];
        if device.judged {
            let mut bench = bench(&mut self.violations, message);
            self.dialogs
                .ack_refusal(message, &device.dialog, &mut bench);
        }
        if device.behaviour == Behaviour::TooSmall {
            device.call = Call::Retry;
            return;
        }
        device.call = Call::Idle;
        self.counters.refused += 1;
        self.push_over(user, device_number, index);
    }

    /// An INVITE after a 422 (ST-2).
    pub(super) fn judge_retry(&mut self, message: &Message<'_>, index: usize, new: &Dialog) {
        let old = self.devices[index].dialog;
        let mut bench = bench(&mut self.violations, message);
        let same = old.call_id == new.call_id && old.from_tag == new.from_tag;
        bench.demand(
            same,
            Rule::St2,
            "Call-ID or From tag of the retry is another",
        );
        let next = new.invite_cseq == old.invite_cseq.wrapping_add(1);
        bench.demand(next, Rule::St2, "CSeq of the retry is not one more");
        let number = |header| {
            message.value(header).map(|value| {
                let end = value
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                parse_number(&value[..end]).unwrap_or(0)
            })
        };
        let least = number(Header::MinSe) == Some(MIN_SE_S);
        bench.demand(least, Rule::St2, "Min-SE of the retry is not the 422's");
        let interval = number(Header::SessionExpires).is_some_and(|value| value >= MIN_SE_S);
        bench.demand(
            interval,
            Rule::St2,
            "Session-Expires of the retry is below Min-SE",
        );
    }

    /// CANCEL of an INVITE that is not answered: 487.
    pub(super) fn terminate(&mut self, link: LinkId, message: &Message<'_>, index: usize) {
        let device = &mut self.devices[index];
        device.call = Call::Refused;
        device.holds = true;
        let serial = device.dialog.serial;
        let tag = phone_tag(serial);
        let number = message.cseq().map_or(0, |(number, _)| number);
        let out = self.outbox.buffer(link);
        put_head(out, message, b"487 Request Terminated", Some(&tag));
        // The head ends with the CANCEL's CSeq.
        let end = out.len() - b"CANCEL\r\n".len();
        out.truncate(end);
        out.extend_from_slice(b"INVITE\r\nContent-Length: 0\r\n\r\n");
        debug_assert!(number > 0, "a CANCEL that was judged has a CSeq");
        self.final_sent(link, serial);
    }

    /// A BYE of the phone in the dialog that an INVITE opens.
    pub(super) fn phone_bye(&mut self, message: &Message<'_>, whose: (u32, u8, usize)) {
        let (user, device, index) = whose;
        let serial = self.devices[index].dialog.serial;
        let value = |header| message.value(header).unwrap_or(&[]);
        let contact = crate::scan::name_addr(value(Header::Contact));
        let (contact, _) = contact.unwrap_or((&[], &[]));
        let link = self.notify_link(contact);
        let mut out = b"BYE ".to_vec();
        out.extend_from_slice(contact);
        out.extend_from_slice(b" SIP/2.0\r\nVia: SIP/2.0/");
        out.extend_from_slice(self.transport);
        out.push(b' ');
        out.extend_from_slice(self.setup.scscf_listen.to_string().as_bytes());
        out.extend_from_slice(b";branch=z9hG4bKb");
        put_fixed(u64::from(user), 8, &mut out);
        put_fixed(u64::from(device), 4, &mut out);
        put_fixed(u64::from(serial), 8, &mut out);
        out.extend_from_slice(b"\r\nMax-Forwards: 70\r\nFrom: ");
        out.extend_from_slice(value(Header::To));
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(&phone_tag(serial));
        out.extend_from_slice(b"\r\nTo: ");
        out.extend_from_slice(value(Header::From));
        out.extend_from_slice(b"\r\nCall-ID: ");
        out.extend_from_slice(value(Header::CallId));
        out.extend_from_slice(b"\r\nCSeq: 1 BYE\r\nContent-Length: ");
        put_plain(0, &mut out);
        out.extend_from_slice(b"\r\n\r\n");
        let ms = self.setup.ring_ms;
        self.later(Kind::Bye, ms, link, index, out);
        debug_assert!(
            self.outbox.peek(link).protocol != Protocol::Msrp,
            "SIP goes by SIP links"
        );
    }

    /// The answer to a BYE of a phone.
    pub(super) fn phone_bye_answered(&mut self, message: &Message<'_>, digits: &[u8]) {
        if message.status < 200 {
            return;
        }
        let part = |from: usize, to: usize| digits.get(from..to).and_then(read_digits);
        let (Some(user), Some(device), Some(serial)) = (part(0, 8), part(8, 12), part(12, 20))
        else {
            self.counters.strays += 1;
            return;
        };
        let (user, device) = (user as u32, device as u8);
        let Some(index) = self.device_index(user, device) else {
            self.counters.strays += 1;
            return;
        };
        if self.crossed_bye_answered(index, serial) {
            return;
        }
        let entry = &mut self.devices[index];
        if u64::from(entry.dialog.serial) != serial || entry.call != Call::Confirmed {
            // The engine's own BYE was faster.
            return;
        }
        entry.call = Call::Idle;
        entry.holds = true;
        self.counters.hung_up += 1;
        self.forget_partial(index);
        self.close_media(index);
        self.push_over(user, device, index);
    }
}
