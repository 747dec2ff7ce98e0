//! The checkers: conservation laws over what crossed the engine's border.
//!
//! Nothing here looks into the engine. Every law is stated where it is checked; what breaks one is
//! kept as text, and a run with any such text has failed.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::time::Timestamp;
use crate::sim::host::deposit_mark;
use crate::sim::text::Sip;
use crate::store::op::MarkKind;
use crate::store::record::{self, Record};

/// 64 * T1: Timers B, F and L, and how long a CANCEL is waited for.
pub(super) const TIMEOUT: Duration = Duration::from_secs(32);

/// Within this time the outputs of one turn leave, by whatever links.
const TURN: Duration = Duration::from_millis(20);

/// What became of a message at one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Receipt {
    /// Times it came whole.
    pub(super) count: u32,
    /// The process that had the evidence.
    evidence: Option<u32>,
    /// The device refused it for good.
    pub(super) refused: bool,
}

/// A message, from the sender's first try to the devices.
#[derive(Clone, Debug, Default)]
pub(super) struct Letter {
    pub(super) user: usize,
    pub(super) text: String,
    pub(super) tries: u32,
    pub(super) durable_at: Option<Timestamp>,
    pub(super) acked: bool,
    /// It is sent by INVITE and MSRP.
    pub(super) is_large: bool,
    pub(super) message_id: String,
    /// The user's devices.
    pub(super) phones: Vec<usize>,
    /// The process died before the sender had its 202: what it sends again may count as another
    /// message.
    pub(super) crossed: bool,
    pub(super) receipts: BTreeMap<usize, Receipt>,
    /// Mailbox and number of its record.
    pub(super) place: (Vec<u8>, u64),
    /// Devices that are spared it because it cost them three sessions (BAD-30).
    pub(super) poisoned: usize,
}

/// One INVITE of the engine with all that belongs to its Call-ID.
#[derive(Clone, Debug, Default)]
struct Trail {
    phone: usize,
    first: Timestamp,
    epoch: u32,
    cseq: u32,
    invite_branch: String,
    provisional: bool,
    accepted: bool,
    cancelled_at: Option<Timestamp>,
    over: bool,
    legs: BTreeMap<String, Leg>,
    /// The tag of the dialog that the push kept: the first.
    main: String,
    contactless: bool,
}

/// One dialog of a trail.
#[derive(Clone, Debug, Default)]
struct Leg {
    accepted: u32,
    acks: u32,
    byes: BTreeSet<String>,
    /// When the last of them left first.
    bye_at: Timestamp,
    peer_bye: bool,
    cseq: u32,
    /// A 2xx came after the dialog was ended.
    again: bool,
}

/// Everything the checkers remember.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) violations: Vec<String>,
    pub(super) letters: Vec<Letter>,
    /// Messages that came whole, over all devices.
    pub(super) receipts_total: u64,
    trails: BTreeMap<String, Trail>,
    sent: BTreeMap<String, (u64, u32, u32)>,
    /// Connections to the core of whose loss the engine knows: each may have taken a request along.
    pub(super) trunks_lost: u32,
    suspects: VecDeque<(Timestamp, String)>,
}

impl Ledger {
    pub(super) fn violation(&mut self, now: Timestamp, what: &str) {
        if self.violations.len() < 20 {
            self.violations
                .push(format!("{} ms: {what}", now.as_millis()));
        }
    }

    /// A record reached the disk.
    pub(super) fn durable(&mut self, now: Timestamp, payload: &[u8]) {
        match record::decode(payload) {
            Ok(Record::Deposit(deposit)) => {
                let letter = deposit_mark(payload).and_then(|at| self.letters.get_mut(at));
                if let Some(letter) = letter {
                    letter.durable_at.get_or_insert(now);
                    letter.place = (deposit.user.to_vec(), deposit.number);
                }
            }
            Ok(Record::Mark(mark)) => match mark.kind {
                MarkKind::Refused { status: 0, .. } => {
                    self.poisoned(now, mark.user, mark.number);
                }
                // The last device's refusal and the removal are one record.
                MarkKind::Removed { .. } => self.removed(mark.user, mark.number),
                MarkKind::Delivered { .. } | MarkKind::Refused { .. } => {}
            },
            Ok(Record::Part(_)) | Err(_) => {}
        }
    }

    /// A message is gone that some device never had: it may have cost that device three sessions.
    fn removed(&mut self, user: &[u8], number: u64) {
        let is_it = |letter: &&mut Letter| letter.place.0 == user && letter.place.1 == number;
        let Some(letter) = self.letters.iter_mut().find(is_it) else {
            return;
        };
        let receipts = &letter.receipts;
        let had = |phone: &usize| receipts.get(phone).is_some_and(|receipt| receipt.count > 0);
        let missing = letter.phones.iter().filter(|phone| !had(phone));
        let trails = &self.trails;
        let spared = missing.filter(|&&phone| {
            let of = |trail: &&Trail| trail.phone == phone && trail.accepted;
            trails.values().filter(of).count() >= 3
        });
        letter.poisoned = letter.poisoned.max(spared.count());
    }

    /// Law: a device is spared a message only after three sessions (BAD-30).
    fn poisoned(&mut self, now: Timestamp, user: &[u8], number: u64) {
        let is_it = |letter: &&mut Letter| letter.place.0 == user && letter.place.1 == number;
        let Some(letter) = self.letters.iter_mut().find(is_it) else {
            return;
        };
        letter.poisoned += 1;
        let phones = &letter.phones;
        let accepted = self.trails.values().filter(|trail| trail.accepted);
        let sessions = accepted.filter(|trail| phones.contains(&trail.phone));
        if sessions.count() < 3 {
            self.violation(now, "a message is called poison before three sessions");
        }
    }

    /// Law: nothing is acknowledged before it is durable.
    pub(super) fn answered(&mut self, now: Timestamp, letter: usize, status: u16) {
        if status == 202 && self.letters[letter].durable_at.is_none() {
            self.violation(now, &format!("202 for message {letter} before its record"));
        }
    }

    /// Law: no INVITE before the record of its message; no second push to a device that has one.
    pub(super) fn invite(&mut self, now: Timestamp, message: &Sip, phone: usize, epoch: u32) {
        let mark = deposit_mark(message.need("Contribution-ID").as_bytes());
        let durable = mark
            .and_then(|at| self.letters.get(at))
            .map(|letter| letter.durable_at);
        match durable {
            None => self.violation(now, "an INVITE for no message"),
            Some(None) => self.violation(now, "an INVITE before its message was durable"),
            Some(Some(_)) => {}
        }
        let busy = self.trails.iter().filter(|(call_id, trail)| {
            trail.phone == phone
                && trail.epoch == epoch
                && *call_id != message.call_id()
                && !trail.is_over(now)
        });
        // A BYE of the same turn may leave by another way, after the INVITE.
        self.suspects
            .extend(busy.map(|(call_id, _)| (now, call_id.clone())));
        let trail = self.trails.entry(message.call_id().to_owned()).or_default();
        if trail.invite_branch.is_empty() {
            trail.first = now;
            trail.epoch = epoch;
            trail.phone = phone;
        } else if trail.invite_branch != message.branch() {
            trail.first = now;
            trail.over = false;
            trail.provisional = false;
        }
        message.branch().clone_into(&mut trail.invite_branch);
    }

    /// Time has passed: what looked wrong within a turn must have come right.
    pub(super) fn settle(&mut self, now: Timestamp) {
        while let Some((at, call_id)) = self.suspects.pop_front_if(|entry| entry.0 + TURN < now) {
            let trail = &self.trails[&call_id];
            if !trail.is_over(at) {
                let what = format!("a second push to busy device {} ({call_id})", trail.phone);
                self.violation(now, &what);
            }
        }
    }

    /// The device gave no Contact in its 2xx: nobody can be asked to acknowledge it twice.
    pub(super) fn contactless(&mut self, call_id: &str) {
        if let Some(trail) = self.trails.get_mut(call_id) {
            trail.contactless = true;
        }
    }

    /// Law: within a dialog each new request has a higher CSeq; a repeated one is the same octets,
    /// and over TCP there is none but the ACK's and that of what a lost connection took along.
    pub(super) fn request(&mut self, now: Timestamp, message: &Sip, reliable: bool) {
        let key = format!("{} {}", message.branch(), message.method);
        let (print, count, before) = *self
            .sent
            .entry(key)
            .and_modify(|(_, count, _)| *count += 1)
            .or_insert((message.print, 1, self.trunks_lost));
        // NH-9: what a lost connection took along goes out again on another one.
        let may_be_lost = self.trunks_lost - before >= count - 1
            && matches!(&*message.method, "INVITE" | "BYE" | "CANCEL" | "UPDATE");
        if print != message.print {
            self.violation(now, &format!("a repeated {} differs", message.method));
        }
        // The ACK to a failure shares the branch of its INVITE, that to a 2xx does not.
        let to_failure = self
            .sent
            .contains_key(&format!("{} INVITE", message.branch()));
        let trail = self.trails.entry(message.call_id().to_owned()).or_default();
        let method = message.method.as_str();
        let tag = message.tag("To").unwrap_or_default();
        // A copy of a sender's INVITE that comes after Timer L is a call of its own (RFC 6026).
        let is_old = |leg: &Leg| !leg.byes.is_empty() && now.since(leg.bye_at) >= TIMEOUT;
        if trail.invite_branch.is_empty() && trail.legs.get(tag).is_some_and(is_old) {
            *trail = Trail::default();
        }
        if method == "CANCEL" {
            trail.cancelled_at.get_or_insert(now);
        }
        let mut wrong = None;
        if method == "ACK" {
            if !to_failure {
                trail.legs.entry(tag.to_owned()).or_default().acks += 1;
            }
        } else if method != "CANCEL" && count == 1 {
            let base = trail.cseq;
            // The push ended between two copies of another fork's 2xx: both are answered, the second without memory.
            let is_fork = !trail.main.is_empty() && trail.main != tag && trail.main_is_over();
            let leg = trail.legs.get_mut(tag).filter(|_| !tag.is_empty());
            let (again, last) = match leg {
                Some(leg) => (leg.again || is_fork && leg.accepted > 1, &mut leg.cseq),
                None => (false, &mut trail.cseq),
            };
            // NH-3: by the next hop the same request, with its CSeq, is a new transaction.
            let moves = matches!(method, "INVITE" | "SUBSCRIBE" | "MESSAGE");
            let elsewhere = moves && tag.is_empty() && message.cseq() == *last;
            if !again && !elsewhere && message.cseq() <= base.max(*last) {
                wrong = Some(format!("CSeq of {method} does not rise"));
            }
            *last = message.cseq();
        } else if reliable && count > 1 && (method != "BYE" || trail.legs.len() <= 1) {
            // Only a 2xx that no push owns is answered statelessly, BYE included, each time: copies of it may have
            // waited in a connection that was not read from until the push was over.
            let copies = trail.legs.get(tag).map_or(0, |leg| leg.accepted);
            let is_owed = trail.is_late(now) || trail.main_is_over() && count <= copies;
            if !may_be_lost && (method != "BYE" || !is_owed) {
                wrong = Some(format!("{method} repeated over a reliable transport"));
            }
        }
        if method == "BYE" {
            let main_over = trail.main_is_over();
            trail.over |= trail.main == tag || trail.main.is_empty();
            let leg = trail.legs.entry(tag.to_owned()).or_default();
            if leg.byes.insert(message.branch().to_owned()) {
                leg.bye_at = now;
            }
            // Once the push is gone, a 2xx still on its way is answered without memory. It may have
            // reached the engine before the BYE to its first copy reached the peer.
            let repeated = leg.again || leg.accepted > 1;
            let allowed = if main_over && repeated { 2 } else { 1 };
            if leg.byes.len() > allowed {
                wrong = Some("a dialog is ended twice".into());
            }
        }
        if let Some(what) = wrong {
            let call_id = message.call_id();
            self.violation(now, &format!("{what} ({call_id})"));
        }
    }

    /// A final or provisional response to an INVITE reached the engine.
    pub(super) fn final_response(
        &mut self,
        now: Timestamp,
        (call_id, tag): (&str, &str),
        status: u16,
        epoch: u32,
    ) {
        let Some(trail) = self.trails.get_mut(call_id) else {
            return;
        };
        if trail.epoch != epoch {
            return;
        }
        match status {
            // After Timer B it tells the engine nothing.
            100..=199 => trail.provisional |= !trail.is_late(now),
            // Nothing says where ACK and BYE would go: the INVITE's target was forgotten with its push, and To is
            // the user's.
            200..=299 if trail.contactless && trail.is_over(now) => {}
            200..=299 => {
                trail.accepted = true;
                if trail.main.is_empty() {
                    tag.clone_into(&mut trail.main);
                }
                let leg = trail.legs.entry(tag.to_owned()).or_default();
                leg.again |= leg.peer_bye || !leg.byes.is_empty();
                leg.accepted += 1;
            }
            _ if !trail.accepted => trail.over = true,
            _ => {}
        }
    }

    pub(super) fn peer_bye(&mut self, call_id: &str, epoch: u32) {
        if let Some(trail) = self.trails.get_mut(call_id)
            && trail.epoch == epoch
        {
            trail.over = true;
            for leg in trail.legs.values_mut() {
                leg.peer_bye = true;
            }
        }
    }

    /// The engine has all evidence that the device has the message, on a session still open.
    pub(super) fn evidence(&mut self, call_id: &str, phone: usize, letter: usize, epoch: u32) {
        let open = self
            .trails
            .get(call_id)
            .is_some_and(|trail| trail.epoch == epoch && !trail.over);
        if open {
            let receipt = self.letters[letter].receipts.entry(phone).or_default();
            receipt.evidence = Some(epoch);
        }
    }

    /// Law: a device gets a message again only if the engine never had the evidence, or lost it in
    /// a crash; and always under the same Message-ID.
    pub(super) fn received(
        &mut self,
        now: Timestamp,
        (letter, phone): (usize, usize),
        message_id: &str,
        epoch: u32,
    ) {
        self.receipts_total += 1;
        let entry = &mut self.letters[letter];
        let mut wrong = None;
        if entry.message_id.is_empty() || entry.crossed {
            message_id.clone_into(&mut entry.message_id);
        } else if entry.message_id != message_id {
            wrong = Some(format!("message {letter} came under another Message-ID"));
        }
        let receipt = entry.receipts.entry(phone).or_default();
        receipt.count += 1;
        if receipt.evidence == Some(epoch) {
            wrong = Some(format!(
                "device {phone} got message {letter} again, without a reason"
            ));
        }
        if let Some(what) = wrong {
            self.violation(now, &what);
        }
    }

    pub(super) fn crashed(&mut self, epoch: u32) {
        for letter in self.letters.iter_mut().filter(|letter| letter.tries > 0) {
            letter.crossed |= !letter.acked;
        }
        for trail in self.trails.values_mut() {
            if trail.epoch == epoch {
                trail.over = true;
            }
        }
    }

    /// Laws of the end, for dialogs of the process that still runs: as many ACKs as 2xx, and each
    /// dialog ended from one side.
    ///
    /// With `streams_broke` connections to the core were lost: what found none is sent again when the
    /// peer repeats its answer, so one ACK is enough.
    pub(super) fn close(&mut self, now: Timestamp, epoch: u32, streams_broke: bool) {
        let mut wrong = Vec::new();
        for (call_id, trail) in self.trails.iter().filter(|(_, trail)| trail.epoch == epoch) {
            for (tag, leg) in &trail.legs {
                let owed = if trail.contactless {
                    leg.accepted.min(1)
                } else {
                    leg.accepted
                };
                let least = if streams_broke { owed.min(1) } else { owed };
                if !(least..=owed).contains(&leg.acks) {
                    let (got, sent) = (leg.accepted, leg.acks);
                    wrong.push(format!("{got} 2xx but {sent} ACKs ({call_id} {tag})"));
                }
                if leg.accepted > 0 && leg.byes.is_empty() && !leg.peer_bye {
                    wrong.push(format!("a dialog has no end ({call_id} {tag})"));
                }
            }
            if !trail.is_over(now) && !trail.invite_branch.is_empty() {
                wrong.push(format!("a push without end ({call_id})"));
            }
        }
        for what in wrong {
            self.violation(now, &what);
        }
    }
}

impl Trail {
    /// Whether the engine may have given up the push: ended, refused, or out of time.
    fn is_over(&self, now: Timestamp) -> bool {
        // The engine counts from its turn; the request may have left a little later.
        let timed_out = self.first + TIMEOUT <= now + TURN;
        let silent = !self.provisional && !self.accepted && timed_out;
        let unanswered = !self.accepted && self.cancelled_at.is_some_and(|at| at + TIMEOUT <= now);
        self.over || silent || unanswered
    }

    /// The dialog that the push kept was ended, from either side.
    fn main_is_over(&self) -> bool {
        let main = self.legs.get(&self.main);
        main.is_some_and(|leg| leg.peer_bye || !leg.byes.is_empty())
    }

    fn is_late(&self, now: Timestamp) -> bool {
        self.first + TIMEOUT <= now
    }
}
