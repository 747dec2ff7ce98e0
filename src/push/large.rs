//! Sessions in which large messages are taken in: the S-CSCF invites us, its message comes by MSRP and
//! goes to the store in parts (INT-13; layer 3).
//!
//! ```text
//! Waiting -> Receiving -> Ending -> (slot freed)
//! ```
//! `Waiting` for the connection, `Receiving` on it, `Ending` with our BYE under way; a BYE of the peer
//! frees the slot at once. Memory of a session: one part that fills, the header section of the message,
//! and the INVITE. What the store has not taken yet is bounded by not reading from the connection.
//!
//! Octets of a message must come in order; what came before may come again. Not here: SIP and MSRP
//! frames (the shard reads and writes them), who the recipient is.

use core::time::Duration;
use std::collections::VecDeque;

use crate::base::outbox::Destination;
use crate::base::slab::{Key, Slab};
use crate::base::surface::{LinkId, Location};
use crate::base::time::Timestamp;
use crate::cpim::{self, CpimErrorKind, Identifiers};
use crate::msrp::frame::{Continuation, Frame};
use crate::push::post::{Post, Reply};
use crate::sip::transaction::client_non_invite::ClientNonInvite;
use crate::sip::transaction::server_invite::ServerInvite;
use crate::store::op::Part;
use crate::store::parts::{HEAD_BYTES_MAX, PART_BYTES, PARTS_MAX};
use crate::wheel::TimerId;

/// Largest message that can be configured, octets.
pub const LARGE_BYTES_MAX: u64 = (PARTS_MAX * PART_BYTES) as u64;
/// Longest INVITE of such a session, octets: it is kept.
pub const INVITE_BYTES_MAX: usize = 16 * 1024;
/// Parts of a session that may wait for the store before its connection is not read any more.
pub const PARTS_AHEAD: u32 = 4;
/// Whole messages of a session that may wait for their records.
pub const CLOSING_MAX: usize = 8;
/// Repeats in pager mode whose answers may wait for one message.
pub const WAITING_MAX: usize = 4;

/// How large messages are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeOptions {
    /// Largest message, octets, at most [`LARGE_BYTES_MAX`]; zero refuses such sessions. Default:
    /// 10 MiB.
    pub bytes_max: u64,
    /// Most sessions at a time. Default: 256.
    pub sessions_max: usize,
    /// Longest silence of a sender before the session is ended. Default: 30 s.
    pub idle: Duration,
    /// Longest session. Default: one hour.
    pub session_max: Duration,
}

impl Default for LargeOptions {
    fn default() -> Self {
        Self {
            bytes_max: 10 << 20,
            sessions_max: 256,
            idle: Duration::from_secs(30),
            session_max: Duration::from_secs(3600),
        }
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntakeState {
    /// Answered; its connection is awaited or being made.
    #[default]
    Waiting,
    /// Bound to its connection.
    Receiving,
    /// Our BYE is under way.
    Ending,
}

/// Our BYE.
#[derive(Debug)]
pub struct Bye {
    /// Its octets.
    pub bytes: Vec<u8>,
    /// Where it goes.
    pub to: Destination,
    /// Its transaction.
    pub transaction: ClientNonInvite,
}

/// One session. Owner: [`Intakes`].
#[derive(Debug, Default)]
pub struct Intake {
    /// Where it stands.
    pub state: IntakeState,
    /// The INVITE, whole: what the deposit and a BYE need of it.
    pub invite: Vec<u8>,
    /// Our 200 to the last INVITE, until its ACK.
    pub response: Vec<u8>,
    /// Where that INVITE came from.
    pub way_back: Option<Destination>,
    /// Its transaction, until the ACK.
    pub server: Option<ServerInvite>,
    /// Its `CSeq` number, which the ACK has, too.
    pub invite_cseq: u32,
    /// Highest `CSeq` number of the peer.
    pub peer_cseq: u32,
    /// Our description of the session.
    pub description: Vec<u8>,
    /// The peer's path.
    pub path: Vec<u8>,
    /// We make the connection.
    pub connects: bool,
    /// The connection.
    pub link: Option<LinkId>,
    /// The connection is not read for now.
    pub held: bool,
    /// Largest message it may bring, octets: what we said in `a=max-size`.
    pub limit: u64,
    /// When the state's own wait ends.
    pub guard: Option<Timestamp>,
    /// When the session ends in any case.
    pub end: Option<Timestamp>,
    /// The wheel entry that covers [`Intake::deadline`].
    pub armed: Option<(TimerId, Timestamp)>,
    /// The message that is coming.
    pub message: Option<Incoming>,
    /// Messages that came whole and whose records are being written, in order.
    pub closing: VecDeque<Incoming>,
    /// A repeat that came whole: to be reported once its last chunk is answered.
    pub repeat: Option<Incoming>,
    /// Our BYE.
    pub bye: Option<Bye>,
}

impl Intake {
    /// Makes the slot new.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// When the session has something to do without input.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        let never = Timestamp::NEVER;
        let server = self.server.as_ref().map_or(never, ServerInvite::deadline);
        if let Some(bye) = &self.bye {
            return bye.transaction.deadline().min(server);
        }
        let guard = self.guard.unwrap_or(never);
        guard.min(self.end.unwrap_or(never)).min(server)
    }

    /// The message `number` of this session, coming or being written.
    pub fn message_mut(&mut self, number: u64) -> Option<&mut Incoming> {
        self.message
            .iter_mut()
            .chain(&mut self.closing)
            .find(|message| message.number == Some(number))
    }

    /// Parts of the session that the store has not taken.
    #[must_use]
    pub fn parts_pending(&self) -> u32 {
        let closing = self.closing.iter().map(|message| message.pending);
        let coming = self.message.as_ref().map_or(0, |message| message.pending);
        closing.sum::<u32>() + coming
    }
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Taken.
    Taken,
    /// The sender gave the message up.
    Aborted,
    /// To be answered with this status; the message is of no use any more.
    Refused(u16),
}

/// What the header section of a message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Not whole yet.
    Missing,
    /// It is here.
    Found,
    /// It cannot be used: status.
    Refused(u16),
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Its header section is being collected.
    #[default]
    Head,
    /// Its octets go to the store.
    Storing,
    /// It is a repeat of a message that is here or was: its octets are thrown away.
    Repeat,
}

/// A message that comes in chunks.
#[derive(Debug, Default)]
pub struct Incoming {
    /// The sender's Message-ID.
    pub message_id: Vec<u8>,
    /// From-Path of its chunks: where a REPORT goes.
    pub from_path: Vec<u8>,
    /// Whether a success REPORT is wanted.
    pub success_report: bool,
    /// Where it stands.
    pub stage: Stage,
    /// Octets that came, without a gap.
    pub received: u64,
    /// Octets it is said to have.
    pub total: Option<u64>,
    /// All of it came.
    pub complete: bool,
    /// The recipient, once it has a place in the mailbox.
    pub user: Option<Key>,
    /// Its number, likewise.
    pub number: Option<u64>,
    /// The header sections of the message as stored.
    pub head: Vec<u8>,
    /// Octets that are in no part yet.
    pub buffer: Vec<u8>,
    /// Octets handed to the store.
    pub stored: u64,
    /// Parts handed to the store.
    pub handed: u32,
    /// Of these, not durable yet.
    pub pending: u32,
    /// Where the others lie.
    pub places: Vec<Location>,
    /// The deposit that lists them is being written.
    pub closed: bool,
    /// It repeats a message that may still fail: nothing is said of it.
    pub unsure: bool,
    /// Answers to MESSAGEs that repeat it: at most [`WAITING_MAX`], until its deposit is being written.
    pub waiting: Vec<Reply>,
}

impl Incoming {
    /// The message whose first chunk is `frame`.
    #[must_use]
    pub fn new(frame: &Frame<'_>) -> Self {
        Self {
            message_id: frame.message_id.unwrap_or_default().to_vec(),
            from_path: frame.from_path.to_vec(),
            ..Self::default()
        }
    }

    /// Takes the octets of a chunk; `limit` is the largest message allowed.
    pub fn add(&mut self, frame: &Frame<'_>, limit: u64) -> Chunk {
        let body = frame.body.unwrap_or_default();
        let (first, total) = frame
            .byte_range
            .map_or((1, None), |range| (range.start, range.total));
        let start = first - 1;
        let Some(end) = start.checked_add(body.len() as u64) else {
            return Chunk::Refused(400);
        };
        let said = total.or(self.total);
        if end > limit || said.is_some_and(|said| said > limit) {
            return Chunk::Refused(413);
        }
        let differs = self.total.is_some_and(|known| Some(known) != said);
        if differs || said.is_some_and(|said| end > said) || start > self.received {
            return Chunk::Refused(400);
        }
        self.total = said;
        self.success_report |= frame.success_report;
        if end > self.received {
            let known = usize::try_from(self.received - start).expect("within the body");
            if self.stage != Stage::Repeat {
                self.buffer.extend_from_slice(&body[known..]);
            }
            self.received = end;
        }
        match frame.continuation {
            Continuation::Aborted => Chunk::Aborted,
            Continuation::More => Chunk::Taken,
            Continuation::Complete if end != self.received || said.is_some_and(|t| t != end) => {
                Chunk::Refused(400)
            }
            Continuation::Complete => {
                self.total = Some(end);
                self.complete = true;
                Chunk::Taken
            }
        }
    }

    /// Looks for the header sections at the front of the octets, and completes them with the CPM
    /// identifiers (CPIM-5) and, where `route` is one, with our place on the way of notices (IMDN-2).
    pub fn read_head(&mut self, ids: &Identifiers<'_>, route: &[u8]) -> Head {
        let parsed = match cpim::parse(&self.buffer) {
            Ok(parsed) => parsed,
            Err(error) if error.kind == CpimErrorKind::Truncated && !self.complete => {
                return if self.buffer.len() < HEAD_BYTES_MAX {
                    Head::Missing
                } else {
                    Head::Refused(400)
                };
            }
            Err(error) => return Head::Refused(error.sip_status()),
        };
        let mut written = Vec::with_capacity(PART_BYTES);
        if let Err(error) = cpim::add_identifiers(&self.buffer, &parsed, ids, &mut written) {
            return Head::Refused(error.sip_status());
        }
        if !route.is_empty() && parsed.find_imdn(b"Disposition-Notification").is_some() {
            cpim::record_route(route, &mut written);
        }
        let head_len = written.len() - parsed.content().len();
        if head_len > HEAD_BYTES_MAX {
            return Head::Refused(400);
        }
        self.head.extend_from_slice(&written[..head_len]);
        self.buffer = written;
        Head::Found
    }

    /// Octets the message will have as stored, as far as its sender told; `limit` when it did not.
    #[must_use]
    pub fn expected(&self, limit: u64) -> u64 {
        let added = (self.buffer.len() as u64).saturating_sub(self.received);
        self.total.unwrap_or(limit).saturating_add(added)
    }

    /// Whether its octets, with what was added to its head, fit into the parts of a message, as far as its
    /// sender told how many come.
    #[must_use]
    pub fn fits(&self) -> bool {
        let to_come = self.total.unwrap_or(0).saturating_sub(self.received);
        let here = self.stored + self.buffer.len() as u64;
        here.saturating_add(to_come) <= LARGE_BYTES_MAX
    }

    /// Hands over what fills a part, or what is left once all has come.
    pub fn cut(&mut self, intake: Key, post: &mut Post) {
        let Some(number) = self.number.filter(|_| self.stage == Stage::Storing) else {
            return;
        };
        let mut taken = 0;
        loop {
            let rest = &self.buffer[taken..];
            let enough = rest.len() >= PART_BYTES || (self.complete && !rest.is_empty());
            if !enough {
                break;
            }
            let bytes = &rest[..rest.len().min(PART_BYTES)];
            let part = Part {
                number,
                index: self.handed,
                bytes,
            };
            post.append_part(intake, &part);
            self.handed += 1;
            self.pending += 1;
            self.stored += bytes.len() as u64;
            taken += bytes.len();
        }
        self.buffer.drain(..taken);
        if self.complete {
            self.buffer = Vec::new();
        }
    }
}

/// All sessions of a shard.
#[derive(Debug)]
pub struct Intakes {
    slots: Slab<Intake>,
    /// Options.
    pub options: LargeOptions,
}

impl Intakes {
    /// No session yet.
    #[must_use]
    pub fn new(options: &LargeOptions) -> Self {
        Self {
            slots: Slab::new(options.sessions_max, 0),
            options: *options,
        }
    }

    /// A new session; `None` when there are enough.
    pub fn insert(&mut self) -> Option<(Key, &mut Intake)> {
        let (key, intake) = self.slots.insert()?;
        intake.reset();
        Some((key, intake))
    }

    /// The session of `key`.
    #[must_use]
    pub fn lookup(&self, key: Key) -> Option<&Intake> {
        self.slots.lookup(key)
    }

    /// The same, mutable.
    pub fn lookup_mut(&mut self, key: Key) -> Option<&mut Intake> {
        self.slots.lookup_mut(key)
    }

    /// The session bound to `link`.
    #[must_use]
    pub fn on(&self, link: LinkId) -> Option<Key> {
        self.slots
            .keys()
            .find(|&key| self.lookup(key).is_some_and(|at| at.link == Some(link)))
    }

    /// The message `number` if its deposit is not being written yet: it is coming, or its parts are on
    /// their way to the store. Looks at every session.
    pub fn unclosed_mut(&mut self, number: u64) -> Option<&mut Incoming> {
        let has = |intake: &Intake| {
            let mut messages = intake.message.iter().chain(&intake.closing);
            messages.any(|message| message.number == Some(number) && !message.closed)
        };
        let mut keys = self.slots.keys();
        let key = keys.find(|&key| self.lookup(key).is_some_and(has))?;
        drop(keys);
        self.lookup_mut(key)?.message_mut(number)
    }

    /// Frees a slot, and the memory of its buffers.
    pub fn remove(&mut self, key: Key) {
        if let Some(intake) = self.slots.lookup_mut(key) {
            intake.reset();
            self.slots.remove(key);
        }
    }

    /// Sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// `true` when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_to_a_message_counts_against_the_parts_it_may_have() {
        let message = |received: u64, added: usize, total| Incoming {
            received,
            total,
            stored: received,
            buffer: vec![0; added],
            ..Incoming::default()
        };
        for (received, total) in [
            (LARGE_BYTES_MAX - 100, None),
            (1, Some(LARGE_BYTES_MAX - 100)),
        ] {
            assert!(message(received, 100, total).fits());
            assert!(!message(received, 101, total).fits());
        }
    }
}
