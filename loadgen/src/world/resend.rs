//! What goes over datagrams is repeated: our requests until they are answered (RFC 3261 section 17.1.2,
//! Timers E and F; for an INVITE A and B), our final answers to INVITEs until their ACK (sections
//! 13.3.1.4 and 17.2.1), and the answer to a request that is repeated, octet by octet (section 17.2.2).

use core::cmp::Reverse;

use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::World;
use crate::chaos::{Chaos, Fate};
use crate::check::Hasher;
use crate::link::{LinkId, Protocol};
use crate::rules::Rule;
use crate::scan::{Header, Message};

/// T1 and T2, nanoseconds.
const T1: u64 = 500_000_000;
/// Doublings of T1 up to T2, 4 s.
const DOUBLINGS: usize = 3;
/// How long requests are repeated and answers are kept: 64 * T1.
const LIFE: u64 = 64 * T1;
/// Answers kept at most; older ones are forgotten earlier.
const ANSWERS_MAX: usize = 400_000;

/// Keys are hashes already.
pub(super) type Keyed = core::hash::BuildHasherDefault<Plain>;

/// Takes a hash as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plain(u64);

impl core::hash::Hasher for Plain {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A final answer to an INVITE, which waits for its ACK.
    Final,
    /// An INVITE: intervals double without bound, and a provisional answer ends it.
    Invite,
    /// Another request.
    Request,
}

#[derive(Debug)]
struct Pending {
    key: u64,
    kind: Kind,
    link: LinkId,
    bytes: Vec<u8>,
    since: u64,
    step: usize,
    /// Tells users of one slot apart.
    turn: u32,
    live: bool,
}

/// Everything that may have to be sent again.
#[derive(Debug, Default)]
pub(super) struct Resend {
    slots: Vec<Pending>,
    free: Vec<u32>,
    keys: HashMap<u64, u32, Keyed>,
    /// Due times by interval; each is in order because its interval is the same for all.
    due: [VecDeque<(u64, u32, u32)>; DOUBLINGS + 1],
    /// Those of INVITEs beyond T2.
    long: VecDeque<(u64, u32, u32)>,
    answers: HashMap<u64, Answer, Keyed>,
    oldest: VecDeque<(u64, u64)>,
    /// Hashes of final answers that came, to compare repeated ones with.
    seen: HashMap<u64, u64, Keyed>,
    seen_order: VecDeque<(u64, u64)>,
    /// The request that is being answered.
    current: Option<(u64, u64)>,
    /// Datagrams that chance holds back, and how many there were.
    held: BinaryHeap<Reverse<Held>>,
    count: u64,
}

/// A datagram that goes or comes later.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: u64,
    number: u64,
    link: LinkId,
    incoming: bool,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    request: u64,
    bytes: Box<[u8]>,
}

impl Resend {
    /// When the next thing is to be sent again.
    pub(super) fn next(&self) -> Option<u64> {
        let fronts = self.due.iter().chain(core::iter::once(&self.long));
        let fronts = fronts.filter_map(|queue| Some(queue.front()?.0));
        let held = self.held.peek().map(|Reverse(held)| held.due);
        fronts.chain(held).min()
    }

    fn keep(&mut self, now: u64, key: u64, kind: Kind, link: LinkId, bytes: &[u8]) {
        self.forget(key);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Pending {
                key: 0,
                kind,
                link,
                bytes: Vec::new(),
                since: 0,
                step: 0,
                turn: 0,
                live: false,
            });
            (self.slots.len() - 1) as u32
        });
        let pending = &mut self.slots[slot as usize];
        pending.key = key;
        pending.kind = kind;
        pending.link = link;
        pending.bytes.clear();
        pending.bytes.extend_from_slice(bytes);
        pending.since = now;
        pending.step = 0;
        pending.turn = pending.turn.wrapping_add(1);
        pending.live = true;
        let turn = pending.turn;
        self.keys.insert(key, slot);
        self.due[0].push_back((now + T1, slot, turn));
    }

    /// Nothing is repeated under `key` any more.
    pub(super) fn forget(&mut self, key: u64) -> bool {
        let Some(slot) = self.keys.remove(&key) else {
            return false;
        };
        self.slots[slot as usize].live = false;
        self.free.push(slot);
        true
    }

    /// The slot of the next thing that is due by `now`.
    fn pop(&mut self, now: u64) -> Option<u32> {
        loop {
            let queues = self.due.iter_mut().chain(core::iter::once(&mut self.long));
            let queue = queues
                .filter(|queue| queue.front().is_some_and(|&(due, ..)| due <= now))
                .min_by_key(|queue| queue.front().map_or(u64::MAX, |&(due, ..)| due))?;
            let (_, slot, turn) = queue.pop_front()?;
            let pending = &self.slots[slot as usize];
            if pending.live && pending.turn == turn {
                return Some(slot);
            }
        }
    }

    /// Arms the next repetition of what was just sent again.
    fn again(&mut self, now: u64, slot: u32) {
        let pending = &mut self.slots[slot as usize];
        pending.step += 1;
        let (step, turn) = (pending.step, pending.turn);
        if pending.kind == Kind::Invite && step > DOUBLINGS {
            let wait = T1 << step.min(7);
            let at = (now + wait, slot, turn);
            let place = self.long.partition_point(|&(due, ..)| due <= at.0);
            self.long.insert(place, at);
            return;
        }
        let step = step.min(DOUBLINGS);
        self.due[step].push_back((now + (T1 << step), slot, turn));
    }

    fn drop_old_answers(&mut self, now: u64) {
        while let Some(&(at, key)) = self.oldest.front()
            && (at + LIFE < now || self.oldest.len() > ANSWERS_MAX)
        {
            self.oldest.pop_front();
            self.answers.remove(&key);
        }
        while let Some(&(at, key)) = self.seen_order.front()
            && (at + LIFE < now || self.seen_order.len() > ANSWERS_MAX)
        {
            self.seen_order.pop_front();
            self.seen.remove(&key);
        }
    }
}

/// Branch of the first Via of one of our own messages.
fn branch_of(bytes: &[u8]) -> &[u8] {
    memchr::memmem::find(bytes, b";branch=z9hG4bK").map_or(&[], |at| {
        let rest = &bytes[at + 15..];
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b';' | b'\r' | b','));
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// Key of the final answer to an INVITE.
fn final_key(hasher: &Hasher, serial: u32) -> u64 {
    hasher.hash(8, &serial.to_le_bytes())
}

impl World {
    /// Ends a request that was appended to a link, and repeats it until it is answered.
    pub(super) fn request_sent(&mut self, link: LinkId) {
        self.outbox.sent(link);
        if self.outbox.peek(link).protocol != Protocol::SipDatagram {
            return;
        }
        let bytes = self.outbox.last(link);
        let kind = if bytes.starts_with(b"INVITE ") {
            Kind::Invite
        } else {
            Kind::Request
        };
        let key = self.hasher.hash(7, branch_of(bytes));
        self.resend.keep(self.now, key, kind, link, bytes);
        self.outbox.fate(link);
    }

    /// Ends a final answer to an INVITE, and repeats it until its ACK.
    pub(super) fn final_sent(&mut self, link: LinkId, serial: u32) {
        self.outbox.sent(link);
        if self.outbox.peek(link).protocol == Protocol::SipDatagram {
            let key = final_key(&self.hasher, serial);
            let bytes = self.outbox.last(link);
            self.resend.keep(self.now, key, Kind::Final, link, bytes);
            self.outbox.fate(link);
        }
    }

    /// The ACK to a final answer has come.
    pub(super) fn final_acknowledged(&mut self, serial: u32) {
        if self.is_datagram() {
            self.resend.forget(final_key(&self.hasher, serial));
        }
    }

    /// Sends the final answer of a push again because its INVITE came again.
    pub(super) fn final_again(&mut self, serial: u32) {
        let key = final_key(&self.hasher, serial);
        if let Some(&slot) = self.resend.keys.get(&key) {
            self.put_again(slot);
        }
    }

    fn put_again(&mut self, slot: u32) {
        let pending = &self.resend.slots[slot as usize];
        let link = pending.link;
        self.outbox.buffer(link).extend_from_slice(&pending.bytes);
        self.outbox.sent(link);
        self.outbox.fate(link);
    }

    /// Whether SIP goes by datagrams.
    pub(super) fn is_datagram(&self) -> bool {
        self.transport == b"UDP"
    }

    /// Handles a datagram, unless chance has other plans.
    pub fn handle_datagram(&mut self, link: LinkId, bytes: &[u8]) {
        let fate = self.outbox.chaos.as_mut().map_or(Fate::Pass, Chaos::draw);
        match fate {
            Fate::Drop => {}
            Fate::Later(wait) => self.hold(wait, link, true, bytes.to_vec()),
            Fate::Pass => {
                let _ = self.handle_sip(link, bytes);
            }
            Fate::Twice => {
                let _ = self.handle_sip(link, bytes);
                let _ = self.handle_sip(link, bytes);
            }
        }
    }

    fn hold(&mut self, wait: u64, link: LinkId, incoming: bool, bytes: Vec<u8>) {
        self.resend.count += 1;
        let held = Held {
            due: self.now + wait,
            number: self.resend.count,
            link,
            incoming,
            bytes,
        };
        self.resend.held.push(Reverse(held));
    }

    /// Lets go of what was held back long enough.
    fn pump_held(&mut self) {
        while let Some((link, wait, bytes)) = self.outbox.held.pop() {
            self.hold(wait, link, false, bytes);
        }
        while let Some(Reverse(first)) = self.resend.held.peek()
            && first.due <= self.now
        {
            let Some(Reverse(held)) = self.resend.held.pop() else {
                return;
            };
            if held.incoming {
                let _ = self.handle_sip(held.link, &held.bytes);
            } else {
                self.outbox.buffer(held.link).extend_from_slice(&held.bytes);
                self.outbox.sent(held.link);
            }
        }
        if let Some(chaos) = &self.outbox.chaos {
            self.counters.chaos_dropped = chaos.dropped;
            self.counters.chaos_doubled = chaos.doubled;
            self.counters.chaos_delayed = chaos.delayed;
        }
    }

    /// Whether datagrams may come in another order than they were sent in.
    pub(super) fn is_out_of_order(&self) -> bool {
        self.outbox.chaos.is_some()
    }

    /// Sends what is due again, and gives up what nobody answers.
    pub(super) fn pump_resend(&mut self) {
        if self.outbox.chaos.is_some() {
            self.pump_held();
        }
        if self.resend.keys.is_empty() {
            return;
        }
        while let Some(slot) = self.resend.pop(self.now) {
            let pending = &self.resend.slots[slot as usize];
            let (key, kind) = (pending.key, pending.kind);
            if self.now >= pending.since + LIFE {
                self.counters.requests_given_up += 1;
                self.resend.forget(key);
                continue;
            }
            match kind {
                Kind::Final => self.counters.answers_resent += 1,
                Kind::Invite | Kind::Request => self.counters.requests_resent += 1,
            }
            self.put_again(slot);
            self.resend.again(self.now, slot);
        }
        self.resend.drop_old_answers(self.now);
    }

    /// Whether a response is the first final one to its request; a provisional one passes, too.
    pub(super) fn first_answer(&mut self, message: &Message<'_>) -> bool {
        let via = message.value(Header::Via).unwrap_or(&[]);
        let key = self.hasher.hash(7, branch_of(via));
        if message.status < 200 {
            // An INVITE is not repeated any more; others go on at T2, which comes by itself.
            let slot = self.resend.keys.get(&key);
            let is_invite =
                slot.is_some_and(|&slot| self.resend.slots[slot as usize].kind == Kind::Invite);
            if is_invite {
                self.resend.forget(key);
            }
            return true;
        }
        let hash = self.hasher.hash(9, message.bytes);
        self.resend.forget(key);
        // A 2xx to an INVITE is repeated by the engine until our ACK, and answered by one each time.
        match self.resend.seen.get(&key) {
            Some(&before) => {
                self.counters.answers_again += 1;
                if before != hash {
                    self.violations.record(
                        Rule::Sx1,
                        "another answer to a request that was repeated",
                        message.bytes,
                    );
                }
                message
                    .cseq()
                    .is_some_and(|(_, method)| method == b"INVITE")
            }
            None => {
                self.resend.seen.insert(key, hash);
                self.resend.seen_order.push_back((self.now, key));
                true
            }
        }
    }

    /// A request came again: the answer of the first time goes out again. Otherwise its answer will be
    /// kept. INVITE and ACK have their own ways.
    pub(super) fn answered_before(&mut self, link: LinkId, message: &Message<'_>) -> bool {
        let (number, method) = message.cseq().unwrap_or((0, b""));
        let via = message.value(Header::Via).unwrap_or(&[]);
        let mut name = branch_of(via).to_vec();
        name.extend_from_slice(&number.to_le_bytes());
        name.extend_from_slice(method);
        let key = self.hasher.hash(10, &name);
        let request = self.hasher.hash(11, message.bytes);
        let Some(answer) = self.resend.answers.get(&key) else {
            self.resend.current = Some((key, request));
            return false;
        };
        self.counters.repeats += 1;
        if answer.request != request {
            self.violations.record(
                Rule::Tx7,
                "a repeated request differs from the first",
                message.bytes,
            );
        }
        self.outbox.buffer(link).extend_from_slice(&answer.bytes);
        self.outbox.sent(link);
        self.outbox.fate(link);
        true
    }

    /// The answer to the current request was appended: it is kept for repetitions.
    pub(super) fn reply_sent(&mut self, link: LinkId) {
        self.outbox.sent(link);
        if let Some((key, request)) = self.resend.current.take() {
            let bytes = self.outbox.last(link).into();
            self.resend.answers.insert(key, Answer { request, bytes });
            self.resend.oldest.push_back((self.now, key));
        }
        self.outbox.fate(link);
    }

    /// No request is being answered any more.
    pub(super) fn request_done(&mut self) {
        self.resend.current = None;
    }
}
