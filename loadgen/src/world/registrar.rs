//! Registrar, notifier and senders: REGISTER, SUBSCRIBE, NOTIFY, MESSAGE and their answers.

use super::{Compact, NO_LINK, World, bench};
use crate::check::subscribe;
use crate::forms::{Notify, REGISTRATION_S, Shape, put_subscription_tag};
use crate::identity::read_digits;
use crate::ledger::{Deposit, NONE};
use crate::link::{LinkId, Protocol};
use crate::rules::Rule;
use crate::scan::{Header, Message, name_addr, parse_number};
use crate::stats::Stage;

impl World {
    pub(super) fn engine_link(&self, user: u32) -> LinkId {
        self.engine_links[user as usize % self.engine_links.len()]
    }

    /// Sends a third-party REGISTER for `user`.
    pub(crate) fn send_register(&mut self, user: u32) {
        let link = self.engine_link(user);
        let entry = &mut self.users[user as usize];
        entry.registered = true;
        entry.register_answered = false;
        entry.registers += 1;
        let cseq = entry.registers;
        self.forms
            .put_register(user, cseq, self.outbox.buffer(link));
        self.request_sent(link);
        self.counters.registers += 1;
    }

    /// Deposits one message for `user`.
    pub(crate) fn send_deposit(&mut self, user: u32, intended_at: u64) {
        let link = self.engine_link(user);
        let class = self.ledger.len() % self.forms.classes();
        let queue = &mut self.users[user as usize].queue;
        let number = self.ledger.deposit(queue, user, class as u8, intended_at);
        self.counters.deposits += 1;
        if self.forms.is_large(class) {
            return self.send_large(user, class, number, link);
        }
        let out = self.outbox.buffer(link);
        self.forms.put_message(class, user, u64::from(number), out);
        self.request_sent(link);
    }

    /// Shows every device of `user` with a new binding; nothing without a subscription.
    pub(super) fn send_notify(&mut self, user: u32, state: &[u8]) -> bool {
        if self.users[user as usize].subscription.is_empty() {
            return false;
        }
        if self.has_faults() {
            self.rebind(user, u8::MAX);
        } else {
            self.users[user as usize].binding += 1;
        }
        self.send_document(user, state, None);
        true
    }

    /// Sends a NOTIFY with a document of another shape.
    pub(super) fn send_shape(&mut self, user: u32, state: &[u8], shape: &Shape) {
        if !self.users[user as usize].subscription.is_empty() {
            self.send_document(user, state, Some(shape));
        }
    }

    fn send_document(&mut self, user: u32, state: &[u8], shape: Option<&Shape>) {
        let entry = &mut self.users[user as usize];
        let mut subscription = core::mem::take(&mut self.unpacked);
        self.patterns.text(&entry.subscription, &mut subscription);
        let (contact, rest) = subscription.split_at(usize::from(entry.contact_len));
        let (from, call_id) = rest.split_at(usize::from(entry.from_len));
        entry.notify_cseq += 1;
        entry.notified_at = self.now;
        self.scratch.clear();
        self.names.put_aor(user, &mut self.scratch);
        let notify = Notify {
            target: contact,
            to: from,
            call_id,
            aor: &self.scratch,
            user,
            devices: entry.devices,
            tel: entry.tel,
            cseq: entry.notify_cseq,
            version: entry.version,
            binding: entry.binding,
            state,
        };
        let out = self.outbox.buffer(entry.notify_link);
        match shape {
            None => self.forms.put_notify(&notify, out),
            Some(shape) => self.forms.put_shaped(&notify, shape, out),
        }
        self.unpacked = subscription;
        entry.version += 1;
        let link = entry.notify_link;
        self.request_sent(link);
        self.counters.notifies += 1;
    }

    /// SUBSCRIBE: answered and followed by a NOTIFY with the full state.
    pub(super) fn subscribe(&mut self, link: LinkId, message: &Message<'_>) {
        self.counters.subscribes += 1;
        let mut bench = bench(&mut self.violations, message);
        let user = subscribe::subscribe(&self.names, message, self.transport, &mut bench);
        let Some(user) = user.filter(|&user| (user as usize) < self.users.len()) else {
            self.reply(link, message, b"404 Not Found", Some(b"sc-none"), b"");
            return;
        };
        let to = message.value(Header::To).unwrap_or(&[]);
        let initial = crate::check::tag(to).is_none();
        if initial {
            self.judge_rate(link, message.bytes);
        }
        if !initial && self.users[user as usize].subscription.is_empty() {
            // A subscription of the registrar that was here before.
            self.reply(link, message, b"481 Subscription Does Not Exist", None, b"");
            return;
        }
        if !self.users[user as usize].registered {
            let status = b"480 Temporarily Unavailable";
            self.reply(link, message, status, Some(b"sc-absent"), b"");
            return;
        }
        let expires = message
            .value(Header::Expires)
            .and_then(parse_number)
            .unwrap_or(0);
        let expires = expires.min(REGISTRATION_S);
        let mut tag = Vec::with_capacity(9);
        put_subscription_tag(user, &mut tag);
        let mut tail = b"Contact: <".to_vec();
        tail.extend_from_slice(&self.forms.scscf_uri);
        tail.extend_from_slice(b">\r\nExpires: ");
        crate::identity::put_plain(u64::from(expires), &mut tail);
        tail.extend_from_slice(b"\r\n");
        self.reply(
            link,
            message,
            b"200 OK",
            initial.then_some(tag.as_slice()),
            &tail,
        );
        self.judge_subscribe(user, initial, message.bytes);
        self.remember_subscription(user, initial, message);
        if !initial && expires > 0 && self.has_faults() {
            // Asked to repeat the state, the registrar has no news.
            return self.show_again(user);
        }
        self.wave_notify(user, expires);
        if initial && expires > 0 {
            self.fault_behind(user);
        }
    }

    fn remember_subscription(&mut self, user: u32, initial: bool, message: &Message<'_>) {
        let contact = message.value(Header::Contact).and_then(name_addr);
        let (contact, _) = contact.unwrap_or((&[], &[]));
        let from = message.value(Header::From).unwrap_or(&[]);
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let link = self.notify_link(contact);
        let entry = &mut self.users[user as usize];
        if initial {
            // CSeq goes on: with the user it makes the branch.
            entry.version = 0;
        }
        entry.notify_link = link;
        entry.contact_len = u16::try_from(contact.len()).unwrap_or(0);
        entry.from_len = u16::try_from(from.len()).unwrap_or(0);
        let mut data = Vec::with_capacity(contact.len() + from.len() + call_id.len());
        data.extend_from_slice(contact);
        data.extend_from_slice(from);
        data.extend_from_slice(call_id);
        entry.subscription = self.patterns.keep(&data);
    }

    /// NOTIFY after a SUBSCRIBE; it is the trigger of a user who waits in the wave.
    fn wave_notify(&mut self, user: u32, expires: u32) {
        if expires == 0 {
            self.send_notify(user, b"terminated;reason=timeout");
            self.users[user as usize].subscription = Compact::default();
            return;
        }
        if !self.send_notify(user, b"active;expires=599999") {
            return;
        }
        let entry = &self.users[user as usize];
        let first = entry.first_device as usize;
        for device in &mut self.devices[first..first + usize::from(entry.devices)] {
            if device.pending && self.setup.kind != crate::scenario::Kind::Steady {
                device.trigger_due = self.now;
                device.trigger_sent = self.now;
            }
        }
    }

    /// The connection to a SUBSCRIBE's Contact, opened at first use.
    pub(super) fn notify_link(&mut self, contact: &[u8]) -> LinkId {
        let address = contact
            .strip_prefix(b"sip:")
            .map(|rest| rest.split(|&byte| byte == b';').next().unwrap_or(rest))
            .map(|rest| memchr::memchr(b'@', rest).map_or(rest, |at| &rest[at + 1..]))
            .and_then(|text| core::str::from_utf8(text).ok())
            .and_then(|text| text.parse().ok());
        let Some(address) = address else {
            self.violations.record(
                Rule::Sub1,
                "Contact has no numeric host and port to send a NOTIFY to",
                contact,
            );
            return self.engine_links[0];
        };
        if let Some(&(_, link)) = self
            .notify_links
            .iter()
            .find(|&&(known, _)| known == address)
        {
            return link;
        }
        let protocol = self.outbox.peek(self.engine_links[0]).protocol;
        let link = self.outbox.connect(protocol, address);
        self.notify_links.push((address, link));
        assert!(link != NO_LINK, "links are counted from zero");
        debug_assert!(protocol != Protocol::Msrp, "SIP goes by SIP links");
        link
    }

    /// A response of the engine: ours to match by the branch we chose.
    pub(super) fn response(&mut self, message: &Message<'_>) {
        let via = message.value(Header::Via).unwrap_or(&[]);
        let branch = memchr::memmem::find(via, b";branch=z9hG4bK").map_or(&[][..], |at| {
            let rest = &via[at + 15..];
            &rest[..memchr::memchr(b';', rest).unwrap_or(rest.len())]
        });
        match branch.first() {
            Some(b'm') => self.deposit_answered(message, &branch[1..]),
            Some(b'i') => self.large_answered(message, &branch[1..]),
            Some(b'l') => {}
            Some(b'r') => self.register_answered(message, &branch[1..]),
            Some(b'n') => self.notify_answered(message, &branch[1..]),
            Some(b'b') => self.phone_bye_answered(message, &branch[1..]),
            Some(b'h') => self.hang_up_answered(message, &branch[1..]),
            Some(b'u') => self.phone_refresh_answered(message, &branch[1..]),
            _ => self.counters.strays += 1,
        }
    }

    fn deposit_answered(&mut self, message: &Message<'_>, digits: &[u8]) {
        let Some(number) = read_digits(digits) else {
            self.counters.strays += 1;
            return;
        };
        if message.status < 200 {
            return;
        }
        let row = self.ledger.row(number);
        if row.is_none_or(|row| row.deposit != Deposit::Sent) {
            self.counters.strays += 1;
            return;
        }
        if message.status < 300 {
            let mut bench = bench(&mut self.violations, message);
            subscribe::message_answer(message, &mut bench);
        }
        self.deposit_done(number, message.status);
    }

    /// The engine has taken message `number`, or refused it with `status`.
    pub(super) fn deposit_done(&mut self, number: u64, status: u16) {
        let now = self.now;
        let Some(row) = self.ledger.row(number) else {
            return;
        };
        let (user, due) = (row.user, row.intended_at);
        let accepted = status < 300;
        row.deposit = if accepted {
            Deposit::Accepted
        } else {
            Deposit::Refused
        };
        if accepted {
            self.counters.deposits_accepted += 1;
            self.latencies.record(Stage::DepositToAccepted, due, now);
            let entry = &mut self.users[user as usize];
            let newest = number as u32;
            entry.accepted = if entry.accepted == NONE {
                newest
            } else {
                entry.accepted.max(newest)
            };
        } else {
            self.counters.deposits_refused += 1;
            self.director.refused(status);
        }
        self.director.deposit_answered();
        if !accepted {
            self.give_up(user);
        }
    }

    fn register_answered(&mut self, message: &Message<'_>, digits: &[u8]) {
        if message.status < 200 {
            return;
        }
        let number = digits.get(..8).and_then(read_digits);
        let user = number.map(|number| self.names.read_user(number));
        let Some(entry) = user.and_then(|user| self.users.get_mut(user as usize)) else {
            self.counters.strays += 1;
            return;
        };
        entry.register_answered = true;
        let mut bench = bench(&mut self.violations, message);
        subscribe::register_answer(message, &self.forms.scscf_uri, REGISTRATION_S, &mut bench);
    }

    fn notify_answered(&mut self, message: &Message<'_>, digits: &[u8]) {
        if message.status < 200 {
            return;
        }
        let user = digits
            .get(..8)
            .and_then(read_digits)
            .map_or(usize::MAX, |user| user as usize);
        let Some(entry) = self.users.get(user) else {
            self.counters.strays += 1;
            return;
        };
        if message.status == 200 {
            self.counters.notifies_answered += 1;
            self.latencies
                .record(Stage::NotifyToAnswer, entry.notified_at, self.now);
        } else {
            self.violations
                .record(Rule::Sub8, "NOTIFY not answered 200", message.bytes);
        }
    }
}
