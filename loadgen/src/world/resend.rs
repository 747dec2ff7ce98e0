//! What goes over datagrams is repeated: our requests until they are answered (RFC 3261 section 17.1.2,
//! Timers E and F; for an INVITE A and B), our final answers to INVITEs until their ACK (sections
//! 13.3.1.4 and 17.2.1), and the answer to a request that is repeated, octet by octet (section 17.2.2).
//!
//! A 2xx to an INVITE is repeated over streams, too: its ACK may be lost with another connection. There its
//! octets are found by the phone's slot, without a map: most are acknowledged at once, and then a copy and
//! an entry of a queue is all they cost. So that a repeat does not hide an ACK that was forgotten, there have to
//! be as many ACKs as copies in the end, unless their connection was lost.

use core::cmp::Reverse;
use core::net::SocketAddr;

use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::{Call, World};
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
pub(super) const LIFE: u64 = 64 * T1;
/// Answers kept at most; older ones are forgotten earlier.
const ANSWERS_MAX: usize = 400_000;
/// Phones whose 2xx waits for its ACK on a stream at most; those of others are sent once.
const ACCEPTED_MAX: usize = 65_536;

/// What waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The 2xx of a device to the INVITE of this serial, over a stream.
    Accepted { index: usize, serial: u32 },
    /// A final answer to an INVITE, which waits for its ACK, over datagrams.
    Final,
    /// An INVITE: intervals double without bound, and a provisional answer ends it.
    Invite,
    /// Another request.
    Request,
}

#[derive(Debug)]
struct Pending {
    /// Its name in `keys`, unless it is an accepted INVITE over a stream.
    key: u64,
    kind: Kind,
    link: LinkId,
    /// What the link led to: its number may be used again.
    peer: SocketAddr,
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
    keys: BTreeMap<u64, u32>,
    live: usize,
    /// Due times by interval; each is in order because its interval is the same for all.
    due: [VecDeque<(u64, u32, u32)>; DOUBLINGS + 1],
    /// Those of INVITEs beyond T2.
    long: VecDeque<(u64, u32, u32)>,
    answers: BTreeMap<u64, Answer>,
    oldest: VecDeque<(u64, u64)>,
    /// Hashes of final answers that came, to compare repeated ones with.
    seen: BTreeMap<u64, u64>,
    seen_order: VecDeque<(u64, u64)>,
    /// Calls whose 2xx went out again over a stream, by the hash of their Call-IDs.
    accepted_again: BTreeMap<u64, Owed>,
    accepted_order: VecDeque<(u64, u64)>,
    /// The request that is being answered.
    current: Option<(u64, u64)>,
    /// Datagrams that chance holds back, and how many there were.
    held: BinaryHeap<Reverse<Held>>,
    count: u64,
}

/// ACKs to the copies of a 2xx.
#[derive(Clone, Copy, Debug)]
struct Owed {
    /// Copies sent, less ACKs that came.
    acks: u32,
    /// The stream of the first copy.
    link: LinkId,
    peer: SocketAddr,
    judged: bool,
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

    fn keep(&mut self, now: u64, key: u64, kind: Kind, whose: (LinkId, SocketAddr), bytes: &[u8]) {
        self.forget(key);
        let slot = self.hold(now, kind, whose, bytes);
        self.slots[slot as usize].key = key;
        self.keys.insert(key, slot);
    }

    /// Keeps octets that are sent again from T1 on; the slot is named by the caller.
    fn hold(
        &mut self,
        now: u64,
        kind: Kind,
        (link, peer): (LinkId, SocketAddr),
        bytes: &[u8],
    ) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Pending {
                key: 0,
                kind,
                link,
                peer,
                bytes: Vec::new(),
                since: 0,
                step: 0,
                turn: 0,
                live: false,
            });
            (self.slots.len() - 1) as u32
        });
        let pending = &mut self.slots[slot as usize];
        pending.kind = kind;
        pending.link = link;
        pending.peer = peer;
        pending.bytes.clear();
        pending.bytes.extend_from_slice(bytes);
        pending.since = now;
        pending.step = 0;
        pending.turn = pending.turn.wrapping_add(1);
        pending.live = true;
        let turn = pending.turn;
        self.live += 1;
        self.due[0].push_back((now + T1, slot, turn));
        slot
    }

    /// Nothing is repeated under `key` any more.
    pub(super) fn forget(&mut self, key: u64) -> bool {
        let Some(slot) = self.keys.remove(&key) else {
            return false;
        };
        self.let_go(slot);
        true
    }

    fn let_go(&mut self, slot: u32) {
        self.slots[slot as usize].live = false;
        self.live -= 1;
        self.free.push(slot);
    }

    /// Ends whatever is sent again from a slot.
    fn give_up(&mut self, slot: u32) {
        let Pending { key, kind, .. } = self.slots[slot as usize];
        match kind {
            Kind::Accepted { .. } => self.let_go(slot),
            Kind::Final | Kind::Invite | Kind::Request => {
                self.forget(key);
            }
        }
    }

    /// Drops what was acknowledged or answered from the fronts of the queues, so that nobody waits for it.
    fn prune(&mut self) {
        let slots = &self.slots;
        for queue in self.due.iter_mut().chain(core::iter::once(&mut self.long)) {
            while let Some(&(_, slot, turn)) = queue.front() {
                let pending = &slots[slot as usize];
                if pending.live && pending.turn == turn {
                    break;
                }
                queue.pop_front();
            }
        }
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
        let whose = (link, self.outbox.peek(link).peer);
        self.resend.keep(self.now, key, kind, whose, bytes);
        self.outbox.fate(link);
    }

    /// Ends a 2xx to an INVITE, which begins at `start` of the link's buffer, and repeats it until its ACK.
    pub(super) fn accepted_sent(&mut self, link: LinkId, index: usize, start: usize) {
        let serial = self.devices[index].dialog.serial;
        if self.is_datagram() {
            return self.final_sent(link, serial);
        }
        if self.resend.live < ACCEPTED_MAX {
            let way = self.outbox.peek(link);
            let kind = Kind::Accepted { index, serial };
            let (whose, bytes) = ((link, way.peer), &way.buffer[start..]);
            let slot = self.resend.hold(self.now, kind, whose, bytes);
            self.devices[index].again = slot + 1;
        }
        self.outbox.sent(link);
    }

    /// Slots that were ever in use, for tests.
    #[cfg(test)]
    pub(super) fn kept_answers(&self) -> usize {
        self.resend.slots.len()
    }

    /// The slot of what a device sends again over a stream, while the push is the one that it was for.
    fn accepted_slot(&self, index: usize) -> Option<u32> {
        let device = &self.devices[index];
        let slot = device.again.checked_sub(1)?;
        let pending = &self.resend.slots[slot as usize];
        let serial = device.dialog.serial;
        (pending.live && pending.kind == Kind::Accepted { index, serial }).then_some(slot)
    }

    /// A 2xx goes out again, so what its dialog brings may come twice.
    fn note_accepted_again(&mut self, slot: u32) {
        let pending = &self.resend.slots[slot as usize];
        let Kind::Accepted { index, .. } = pending.kind else {
            return;
        };
        let device = &self.devices[index];
        let first = Owed {
            acks: 1,
            link: pending.link,
            peer: pending.peer,
            judged: device.judged,
        };
        let (resend, call_id) = (&mut self.resend, device.dialog.call_id);
        resend
            .accepted_again
            .entry(call_id)
            .or_insert_with(|| {
                resend.accepted_order.push_back((self.now, call_id));
                first
            })
            .acks += 1;
    }

    /// What is owed to the dialog of a message, if its 2xx was sent more than once over streams.
    fn owed(&mut self, message: &Message<'_>) -> Option<&mut Owed> {
        if self.resend.accepted_again.is_empty() {
            return None;
        }
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let call_id = self.hasher.hash(1, call_id);
        self.resend.accepted_again.get_mut(&call_id)
    }

    /// Whether an ACK may be one of several.
    pub(super) fn acknowledges_again(&mut self, message: &Message<'_>) -> bool {
        let owed = self.owed(message);
        owed.map(|owed| owed.acks = owed.acks.saturating_sub(1))
            .is_some()
    }

    /// Whether a BYE may come behind the end of its push.
    pub(super) fn comes_again(&mut self, message: &Message<'_>) -> bool {
        self.owed(message).is_some()
    }

    /// OK-0 for what was repeated: the run is over.
    pub(super) fn judge_acknowledgements(&mut self) {
        while let Some((_, owed)) = self.resend.accepted_again.pop_first() {
            self.judge_owed(owed);
        }
    }

    fn judge_owed(&mut self, owed: Owed) {
        if owed.acks > 0 && owed.judged && self.stands(owed.link, owed.peer) {
            let text = "fewer ACKs than copies of a 2xx over a connection that stands";
            self.violations.record(Rule::Ok0, text, b"");
        }
    }

    fn drop_old_accepted(&mut self) {
        let most = |resend: &Resend| resend.accepted_order.len() > ANSWERS_MAX;
        while let Some(&(at, key)) = self.resend.accepted_order.front()
            && (at + 2 * LIFE < self.now || most(&self.resend))
        {
            self.resend.accepted_order.pop_front();
            if let Some(owed) = self.resend.accepted_again.remove(&key)
                && at + 2 * LIFE < self.now
            {
                self.judge_owed(owed);
            }
        }
    }

    /// Ends a final answer to an INVITE, and repeats it over datagrams until its ACK.
    pub(super) fn final_sent(&mut self, link: LinkId, serial: u32) {
        self.outbox.sent(link);
        if self.outbox.peek(link).protocol == Protocol::SipDatagram {
            let key = final_key(&self.hasher, serial);
            let whose = (link, self.outbox.peek(link).peer);
            let bytes = self.outbox.last(link);
            self.resend.keep(self.now, key, Kind::Final, whose, bytes);
            self.outbox.fate(link);
        }
    }

    /// The ACK to a final answer has come.
    pub(super) fn final_acknowledged(&mut self, index: usize) {
        if self.is_datagram() {
            let serial = self.devices[index].dialog.serial;
            self.resend.forget(final_key(&self.hasher, serial));
        } else if let Some(slot) = self.accepted_slot(index) {
            self.resend.let_go(slot);
        }
    }

    /// The final answer of a push that is not a device's last one arrived, by what came of its dialog.
    pub(super) fn final_settled(&mut self, serial: u32) {
        if self.is_datagram() {
            self.resend.forget(final_key(&self.hasher, serial));
        }
    }

    /// Sends the final answer of a push again because its INVITE came again.
    pub(super) fn final_again(&mut self, index: usize) {
        let key = final_key(&self.hasher, self.devices[index].dialog.serial);
        let slot = self.resend.keys.get(&key).copied();
        if let Some(slot) = slot.or_else(|| self.accepted_slot(index)) {
            self.put_again(slot);
        }
    }

    /// Where a message goes again: by its link, or when that is gone by one of ours (RFC 3261 section 18.2.2).
    fn way_again(&self, pending: &Pending) -> Option<LinkId> {
        if self.stands(pending.link, pending.peer) {
            return Some(pending.link);
        }
        let mut own = self.engine_links.iter().copied();
        own.find(|&link| !self.outbox.peek(link).closed)
    }

    /// Whether a link is the one it was.
    fn stands(&self, link: LinkId, peer: SocketAddr) -> bool {
        let link = self.outbox.peek(link);
        !link.closed && link.protocol != Protocol::Msrp && link.peer == peer
    }

    fn put_again(&mut self, slot: u32) {
        let pending = &self.resend.slots[slot as usize];
        let Some(link) = self.way_again(pending) else {
            return;
        };
        self.note_accepted_again(slot);
        let pending = &self.resend.slots[slot as usize];
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
        self.resend.prune();
        if self.resend.live == 0 {
            return;
        }
        while let Some(slot) = self.resend.pop(self.now) {
            let pending = &self.resend.slots[slot as usize];
            let kind = pending.kind;
            if self.now >= pending.since + LIFE {
                self.counters.requests_given_up += 1;
                self.resend.give_up(slot);
                continue;
            }
            match kind {
                Kind::Accepted { index, serial } => {
                    let device = &self.devices[index];
                    if device.call != Call::Answered || device.dialog.serial != serial {
                        self.resend.give_up(slot);
                        continue;
                    }
                    self.counters.answers_resent += 1;
                }
                Kind::Final => self.counters.answers_resent += 1,
                Kind::Invite | Kind::Request => self.counters.requests_resent += 1,
            }
            self.put_again(slot);
            self.resend.again(self.now, slot);
        }
        self.resend.drop_old_answers(self.now);
        self.drop_old_accepted();
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
