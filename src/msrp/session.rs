//! The sending side of one MSRP session (RFC 4975 sections 7.1 to 7.3): a window of unanswered
//! SENDs, their timeouts, and the evidence that a message reached its device. Layer 2.
//!
//! Owner: one push. Fixed size, no heap. The session hands out [`Chunk`]s; its owner mints the
//! transaction id from the chunk's sequence, encodes and sends. Life of a message:
//!
//! | state | on | next | outcome |
//! |-------|----|------|---------|
//! | sending | all chunks taken and answered 200 | awaiting | `HopAcked` |
//! | sending, awaiting | REPORTs cover all octets, all chunks taken | gone | `Delivered` by `Report` |
//! | sending, awaiting | [`Session::confirm`] | gone | `Delivered` by `Imdn` |
//! | awaiting | report wait over | gone | `Delivered` by `HopAck`, or `Unconfirmed` |
//! | sending, awaiting | 403, 413, 415 | gone | `MessageRefused` |
//! | sending, awaiting | 400, 423, any other failure | gone | `MessageFailed` |
//! | any | 408, 30 s of silence, 481, 501, 506, second 400 | session failed | `SessionFailed` |
//!
//! After `SessionFailed` nothing is sent and no input counts; [`Session::take_unfinished`] lists
//! what goes back to the queue.
//!
//! Not here: which types a peer refused (415), linger, binding of connections, the BYE.

use core::time::Duration;

use crate::base::limits::{MSRP_CHUNK_BYTES_MAX, MSRP_WINDOW};
use crate::base::time::Timestamp;
use crate::base::token::SEQUENCE_MODULUS;
use crate::msrp::coverage::Coverage;
use crate::msrp::frame::{ByteRange, Continuation};

/// Most messages of one session that are being sent or await their REPORT.
pub const MESSAGES_MAX: usize = 32;
/// Ranges reported beyond a gap, over all messages of a session.
pub const STRAGGLERS_MAX: usize = 12;

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// From the last octet of a SEND to its response (RFC 4975 section 7.1.1). Default 30 s.
    pub transaction_timeout: Duration,
    /// From the last 200 to giving up on a REPORT (DLV-2). Zero: do not wait. Default 10 s.
    pub report_wait: Duration,
    /// Whether the 200s alone count as delivery when the report wait is over. Default true.
    pub accept_hop_ack: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            transaction_timeout: Duration::from_secs(30),
            report_wait: Duration::from_secs(10),
            accept_hop_ack: true,
        }
    }
}

/// The next piece to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The owner's name for the message.
    pub handle: u32,
    /// Names the transaction; goes into the token. Below [`SEQUENCE_MODULUS`].
    pub sequence: u16,
    /// First octet, from 1.
    pub start: u64,
    /// Octets; 0 only for an empty message, at most [`MSRP_CHUNK_BYTES_MAX`].
    pub len: u32,
    /// Octets of the message.
    pub total: u64,
    /// `Complete` on the last chunk, else `More`.
    pub continuation: Continuation,
}

/// What showed that a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Only the next hop's 200s (DLV-2; weaker).
    HopAck,
    /// A positive-delivery notification.
    Imdn,
    /// REPORTs with 200 over every octet.
    Report,
}

/// Why a session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFailure {
    /// A second message was answered 400 (or 423).
    BadRequests,
    /// The bind request was refused.
    BindRefused,
    /// 506: the session is bound to another connection.
    InUse,
    /// 481.
    NoSession,
    /// 501.
    NotImplemented,
    /// No response in time, or 408.
    Timeout,
}

/// What an input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Nothing to act on.
    None,
    /// The bind request was answered 200.
    Bound,
    /// The next hop took all of it; evidence of delivery is awaited.
    HopAcked {
        /// The message.
        handle: u32,
    },
    /// The message arrived.
    Delivered {
        /// The message.
        handle: u32,
        /// What showed it.
        by: Evidence,
    },
    /// The device does not want this message (403), its size (413) or its type (415): never again.
    MessageRefused {
        /// The message.
        handle: u32,
        /// 403, 413 or 415.
        status: u16,
    },
    /// The message failed here; it returns to the queue, for another session.
    MessageFailed {
        /// The message.
        handle: u32,
        /// What the peer answered.
        status: u16,
    },
    /// No evidence in time and hop-acks do not count: it returns to the queue.
    Unconfirmed {
        /// The message.
        handle: u32,
    },
    /// The session is over; end the dialog.
    SessionFailed {
        /// Why.
        reason: SessionFailure,
    },
}

/// A message without a final outcome, for the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The message.
    pub handle: u32,
    /// Whether the next hop had taken all of it.
    pub hop_acked: bool,
}

/// Milliseconds since the session's epoch: half the size of a [`Timestamp`]. Sessions last minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Offset(u32);

#[derive(Clone, Copy, Debug, Default)]
struct Message {
    handle: u32,
    total: u32,
    /// When the report wait ends; counts only in `acked`.
    due: Offset,
}

#[derive(Clone, Copy, Debug, Default)]
struct Transaction {
    due: Offset,
    sequence: u16,
    slot: u8,
    /// Its octets are with the kernel, so `due` is final.
    handed: bool,
}

/// Slot of a transaction whose message is gone.
const GONE: u8 = 0xff;
/// Slot of the bind request.
const BIND: u8 = 0xfe;
const _: () = assert!(MESSAGES_MAX <= 32, "message sets are bits of a u32");
const _: () = assert!(MSRP_WINDOW == 8, "the window is exactly the bits of a u8");
const _: () = assert!(
    MSRP_CHUNK_BYTES_MAX <= u32::MAX as usize,
    "chunk lengths are u32"
);

/// The sending side of one MSRP session. See the module's table.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    options: SessionOptions,
    epoch: Option<Timestamp>,
    messages: [Message; MESSAGES_MAX],
    window: [Transaction; MSRP_WINDOW],
    covered: Coverage<MESSAGES_MAX, STRAGGLERS_MAX>,
    /// Slots of `messages` in use.
    live: u32,
    /// Of these, fully answered with 200: waiting for evidence.
    acked: u32,
    /// Slots of `window` in use.
    pending: u8,
    /// Slot of the message being sent.
    current: Option<u8>,
    /// Octets of the current message already taken.
    taken: u32,
    sequence: u16,
    bad_requests: u8,
    failed: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            options: SessionOptions::default(),
            epoch: None,
            messages: [Message::default(); MESSAGES_MAX],
            window: [Transaction::default(); MSRP_WINDOW],
            covered: Coverage::default(),
            live: 0,
            acked: 0,
            pending: 0,
            current: None,
            taken: 0,
            sequence: 0,
            bad_requests: 0,
            failed: false,
        }
    }
}

impl Session {
    /// Makes the session new. The sequence goes on, so that ids of the last use stay foreign.
    pub fn reset(&mut self, options: &SessionOptions) {
        let sequence = self.sequence;
        *self = Self {
            options: *options,
            sequence,
            ..Self::default()
        };
    }

    /// Whether [`Session::start_message`] may be called.
    #[must_use]
    pub const fn can_start(&self) -> bool {
        !self.failed && self.current.is_none() && self.live != u32::MAX
    }

    /// Begins a message of `total` octets, named `handle` by the owner; no two live ones alike.
    ///
    /// # Panics
    /// When [`Session::can_start`] is false, or `total` does not fit 32 bits (the store is far
    /// smaller).
    pub fn start_message(&mut self, handle: u32, total: u64) {
        assert!(self.can_start(), "one message at a time, and room for it");
        if self.is_idle() {
            // Nothing counts from it: offsets would come to their end in a session of seven weeks.
            self.epoch = None;
        }
        debug_assert!(self.find(handle).is_none(), "live handles differ");
        let total = u32::try_from(total).expect("stored messages are bounded below 4 GiB");
        let slot = self.live.trailing_ones();
        let slot = u8::try_from(slot).expect("a free slot below 32");
        self.live |= bit(slot);
        self.messages[usize::from(slot)] = Message {
            handle,
            total,
            due: Offset::default(),
        };
        self.covered.clear(slot);
        self.current = Some(slot);
        self.taken = 0;
    }

    /// Whether [`Session::poll_chunk`] would return a chunk.
    #[must_use]
    pub const fn has_chunk(&self) -> bool {
        !self.failed && self.current.is_some() && self.pending != u8::MAX
    }

    /// Octets of the message being sent that chunks have taken.
    #[must_use]
    pub const fn taken(&self) -> u32 {
        self.taken
    }

    /// The next chunk, if a message is being sent and the window has room. Its 30 s start now, and
    /// again at [`Session::handle_sent`].
    pub fn poll_chunk(&mut self, now: Timestamp) -> Option<Chunk> {
        if !self.has_chunk() {
            return None;
        }
        let slot = self.current?;
        let Message { handle, total, .. } = self.messages[usize::from(slot)];
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the constant is asserted above"
        )]
        let len = (total - self.taken).min(MSRP_CHUNK_BYTES_MAX as u32);
        let start = u64::from(self.taken) + 1;
        self.taken += len;
        let last = self.taken == total;
        if last {
            self.current = None;
        }
        let sequence = self.open_transaction(now, slot);
        Some(Chunk {
            handle,
            sequence,
            start,
            len,
            total: u64::from(total),
            continuation: if last {
                Continuation::Complete
            } else {
                Continuation::More
            },
        })
    }

    /// Opens the transaction of a bodiless SEND that binds the connection; `None` without room.
    ///
    /// Its outcome is [`Outcome::Bound`] or a failed session.
    pub fn poll_bind(&mut self, now: Timestamp) -> Option<u16> {
        let free = !self.failed && self.pending != u8::MAX;
        free.then(|| self.open_transaction(now, BIND))
    }

    /// Gives an open transaction another sequence: its id occurs in the body (MSRP-2).
    ///
    /// Returns `sequence` itself when no such transaction is open.
    pub fn renumber(&mut self, sequence: u16) -> u16 {
        let Some(at) = self.find_transaction(sequence) else {
            return sequence;
        };
        let fresh = self.next_sequence();
        self.window[at].sequence = fresh;
        fresh
    }

    /// The kernel took all octets given to it: the open transactions' 30 s start (MSRP-9).
    pub fn handle_sent(&mut self, now: Timestamp) {
        let due = self.offset(now, self.options.transaction_timeout);
        for at in bits(u32::from(self.pending)) {
            let transaction = &mut self.window[usize::from(at)];
            if !transaction.handed {
                transaction.due = due;
                transaction.handed = true;
            }
        }
    }

    /// A response to our SEND with `sequence`. Unknown ones lead to nothing.
    pub fn handle_response(&mut self, now: Timestamp, sequence: u16, status: u16) -> Outcome {
        if self.failed {
            return Outcome::None;
        }
        let Some(at) = self.find_transaction(sequence) else {
            return Outcome::None;
        };
        self.pending &= !(1 << at);
        match (self.window[at].slot, Verdict::of(status)) {
            (_, Verdict::Session(reason)) => self.fail(reason),
            (BIND, Verdict::Good) => Outcome::Bound,
            (BIND, Verdict::Bad | Verdict::Refused | Verdict::Failed) => {
                self.fail(SessionFailure::BindRefused)
            }
            (GONE, Verdict::Good | Verdict::Bad | Verdict::Refused | Verdict::Failed) => {
                Outcome::None
            }
            (slot, Verdict::Good) => self.chunk_taken(now, slot),
            (slot, verdict @ (Verdict::Bad | Verdict::Refused | Verdict::Failed)) => {
                self.message_ends(slot, verdict, status)
            }
        }
    }

    /// A REPORT in namespace 000 on message `handle` (RFC 4975 section 7.1.2).
    ///
    /// Success counts for octets that were sent, when the range is closed and the total ours;
    /// failure ends the message whatever its range. Unknown handles lead to nothing.
    pub fn handle_report(
        &mut self,
        _now: Timestamp,
        handle: u32,
        range: ByteRange,
        status: u16,
    ) -> Outcome {
        let Some(slot) = self.find(handle).filter(|_| !self.failed) else {
            return Outcome::None;
        };
        match Verdict::of(status) {
            Verdict::Session(reason) => self.fail(reason),
            verdict @ (Verdict::Bad | Verdict::Refused | Verdict::Failed) => {
                self.message_ends(slot, verdict, status)
            }
            Verdict::Good if status == 200 => self.cover(slot, range),
            Verdict::Good => Outcome::None,
        }
    }

    /// A positive-delivery notification for message `handle` came (DLV-2, IMDN-9).
    pub fn confirm(&mut self, handle: u32) -> Outcome {
        match self
            .find(handle)
            .filter(|&slot| !self.failed && self.current != Some(slot))
        {
            Some(slot) => {
                self.forget(slot);
                Outcome::Delivered {
                    handle,
                    by: Evidence::Imdn,
                }
            }
            None => Outcome::None,
        }
    }

    /// Stops caring about `handle`: expired or revoked. No further chunk of it is sent.
    pub fn abandon(&mut self, handle: u32) {
        if let Some(slot) = self.find(handle) {
            self.forget(slot);
        }
    }

    /// What is due at `now`, one at a time: call until [`Outcome::None`].
    pub fn handle_timeout(&mut self, now: Timestamp) -> Outcome {
        let Some(epoch) = self.epoch.filter(|_| !self.failed) else {
            return Outcome::None;
        };
        let is_due = |due: Offset| epoch + Duration::from_millis(u64::from(due.0)) <= now;
        // Messages first: what has its evidence shall not be pulled down by a failing session.
        let over = bits(self.acked).find(|&slot| is_due(self.messages[usize::from(slot)].due));
        if let Some(slot) = over {
            return self.wait_is_over(slot);
        }
        let silent =
            bits(u32::from(self.pending)).any(|at| is_due(self.window[usize::from(at)].due));
        if silent {
            self.fail(SessionFailure::Timeout)
        } else {
            Outcome::None
        }
    }

    /// When [`Session::handle_timeout`] is next needed; [`Timestamp::NEVER`] when nothing waits.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        let Some(epoch) = self.epoch.filter(|_| !self.failed) else {
            return Timestamp::NEVER;
        };
        let messages = bits(self.acked).map(|slot| self.messages[usize::from(slot)].due);
        let window = bits(u32::from(self.pending)).map(|at| self.window[usize::from(at)].due);
        match messages.chain(window).min() {
            Some(due) => epoch + Duration::from_millis(u64::from(due.0)),
            None => Timestamp::NEVER,
        }
    }

    /// Nothing being sent, unanswered or awaited.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.live == 0 && self.pending == 0
    }

    /// No message and no transaction is open: what is written of it is all there is.
    #[must_use]
    pub const fn is_foldable(&self) -> bool {
        self.is_idle() && self.current.is_none() && !self.failed
    }

    /// The session failed; nothing more comes out of it.
    #[must_use]
    pub const fn is_failed(&self) -> bool {
        self.failed
    }

    /// Messages being sent or awaiting evidence.
    #[must_use]
    pub const fn messages(&self) -> u32 {
        self.live.count_ones()
    }

    /// Takes one message that had no final outcome, for the queue; call until `None` at the end.
    pub fn take_unfinished(&mut self) -> Option<Unfinished> {
        let slot = bits(self.live).next()?;
        let hop_acked = self.acked & bit(slot) != 0;
        let handle = self.messages[usize::from(slot)].handle;
        self.forget(slot);
        Some(Unfinished { handle, hop_acked })
    }

    fn open_transaction(&mut self, now: Timestamp, slot: u8) -> u16 {
        let at = self.pending.trailing_ones() as usize;
        let due = self.offset(now, self.options.transaction_timeout);
        let sequence = self.next_sequence();
        self.window[at] = Transaction {
            due,
            sequence,
            slot,
            handed: false,
        };
        self.pending |= 1 << at;
        sequence
    }

    const fn next_sequence(&mut self) -> u16 {
        let sequence = self.sequence;
        self.sequence = (sequence + 1) % SEQUENCE_MODULUS;
        sequence
    }

    /// A chunk of the message in `slot` was answered 2xx.
    fn chunk_taken(&mut self, now: Timestamp, slot: u8) -> Outcome {
        let open =
            bits(u32::from(self.pending)).any(|at| self.window[usize::from(at)].slot == slot);
        if open || self.current == Some(slot) {
            return Outcome::None;
        }
        if self.options.report_wait.is_zero() {
            return self.wait_is_over(slot);
        }
        let due = self.offset(now, self.options.report_wait);
        let message = &mut self.messages[usize::from(slot)];
        message.due = due;
        self.acked |= bit(slot);
        Outcome::HopAcked {
            handle: message.handle,
        }
    }

    /// Success was reported for `range` of the message in `slot`.
    fn cover(&mut self, slot: u8, range: ByteRange) -> Outcome {
        let Message { handle, total, .. } = self.messages[usize::from(slot)];
        let sending = self.current == Some(slot);
        let sent = if sending { self.taken } else { total };
        let ours = range
            .total
            .is_none_or(|claimed| claimed == u64::from(total));
        let Some(end) = range.end.filter(|_| ours) else {
            return Outcome::None;
        };
        // Octets beyond what was sent cannot have arrived.
        let last = u32::try_from(end).unwrap_or(u32::MAX).min(sent);
        if let Ok(first) = u32::try_from(range.start) {
            self.covered.insert(slot, first, last);
        }
        if sending || self.covered.prefix(slot) < total {
            return Outcome::None;
        }
        self.forget(slot);
        Outcome::Delivered {
            handle,
            by: Evidence::Report,
        }
    }

    /// The message in `slot` was refused or failed.
    fn message_ends(&mut self, slot: u8, verdict: Verdict, status: u16) -> Outcome {
        let handle = self.messages[usize::from(slot)].handle;
        if verdict == Verdict::Bad {
            self.bad_requests += 1;
            if self.bad_requests > 1 {
                return self.fail(SessionFailure::BadRequests);
            }
        }
        self.forget(slot);
        if verdict == Verdict::Refused {
            Outcome::MessageRefused { handle, status }
        } else {
            Outcome::MessageFailed { handle, status }
        }
    }

    /// The report wait of the message in `slot` is over.
    fn wait_is_over(&mut self, slot: u8) -> Outcome {
        let handle = self.messages[usize::from(slot)].handle;
        self.forget(slot);
        if self.options.accept_hop_ack {
            Outcome::Delivered {
                handle,
                by: Evidence::HopAck,
            }
        } else {
            Outcome::Unconfirmed { handle }
        }
    }

    const fn fail(&mut self, reason: SessionFailure) -> Outcome {
        self.failed = true;
        self.pending = 0;
        self.current = None;
        Outcome::SessionFailed { reason }
    }

    /// Frees `slot`; its open transactions stay, so that their silence still counts.
    fn forget(&mut self, slot: u8) {
        self.live &= !bit(slot);
        self.acked &= !bit(slot);
        self.covered.clear(slot);
        if self.current == Some(slot) {
            self.current = None;
        }
        for transaction in &mut self.window {
            if transaction.slot == slot {
                transaction.slot = GONE;
            }
        }
    }

    fn find(&self, handle: u32) -> Option<u8> {
        bits(self.live).find(|&slot| self.messages[usize::from(slot)].handle == handle)
    }

    fn find_transaction(&self, sequence: u16) -> Option<usize> {
        bits(u32::from(self.pending))
            .map(usize::from)
            .find(|&at| self.window[at].sequence == sequence)
    }

    /// `now + wait` in whole milliseconds since the epoch, rounded up: never early.
    fn offset(&mut self, now: Timestamp, wait: Duration) -> Offset {
        let epoch = *self.epoch.get_or_insert(now);
        let passed = (now + wait).since(epoch);
        let millis = u64::from(passed.subsec_nanos().div_ceil(1_000_000));
        let millis = passed.as_secs().saturating_mul(1000).saturating_add(millis);
        Offset(u32::try_from(millis).unwrap_or(u32::MAX))
    }
}

/// What a status means (RFC 4975 section 10; MSRP-9 to MSRP-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// 400, 423: ours or the peer's mistake; the second one ends the session.
    Bad,
    /// Any other failure.
    Failed,
    /// 2xx.
    Good,
    /// 403, 413, 415.
    Refused,
    Session(SessionFailure),
}

impl Verdict {
    const fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Good,
            400 | 423 => Self::Bad,
            403 | 413 | 415 => Self::Refused,
            408 => Self::Session(SessionFailure::Timeout),
            481 => Self::Session(SessionFailure::NoSession),
            501 => Self::Session(SessionFailure::NotImplemented),
            506 => Self::Session(SessionFailure::InUse),
            _ => Self::Failed,
        }
    }
}

const fn bit(slot: u8) -> u32 {
    1 << slot
}

/// The numbers of the bits set in `mask`, rising.
fn bits(mask: u32) -> impl Iterator<Item = u8> {
    let mut rest = mask;
    core::iter::from_fn(move || {
        let lowest = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        u8::try_from(lowest).ok().filter(|&lowest| lowest < 32)
    })
}

crate::fold_fields!(Session {
    options,
    epoch,
    sequence,
    bad_requests,
} but {
    messages = [Message::default(); MESSAGES_MAX],
    window = [Transaction::default(); MSRP_WINDOW],
    covered = Coverage::default(),
    live = 0,
    acked = 0,
    pending = 0,
    current = None,
    taken = 0,
    failed = false,
});
crate::fold_fields!(SessionOptions {
    transaction_timeout,
    report_wait,
    accept_hop_ack
});

#[cfg(test)]
mod tests;
