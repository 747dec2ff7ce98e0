//! What to answer to a peer's MSRP request, and the reassembly of its notifications. Layer 2.
//!
//! On a push session the peer may send three things in spite of our `a=sendonly` (RFC 4975 section
//! 8.9): requests without a body, REPORTs, and SENDs that carry a disposition notification. Anything
//! else is refused with 403 unless intake on the session is enabled (SDP-13).
//!
//! Order of the checks: is it a request at all, does its To-Path name a session of this connection
//! ([`Binding`]), is its method known, is it sound, does it fit, may it come.

use crate::base::limits::MSRP_INBOUND_BYTES_MAX;
use crate::cpim;
use crate::imdn;
use crate::msrp::coverage::Coverage;
use crate::msrp::frame::{ByteRange, Continuation, Frame, Start};

/// Gaps that a reassembly may have at one time; more tiny chunks are refused.
const GAPS_MAX: usize = 12;

/// What the owner found when it looked up the session named by a request's To-Path (MSRP-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A session of ours, bound to another connection.
    Elsewhere,
    /// A session of ours that has no connection yet: this one is its own now.
    Fresh,
    /// The session of this connection.
    Here,
    /// No session of ours (RFC 4975 section 7.3; also one of another connection's, BAD-27).
    Unknown,
}

/// What a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundOptions {
    /// Largest message taken, octets; at most [`MSRP_INBOUND_BYTES_MAX`].
    pub bytes_max: usize,
    /// Whether ordinary messages are taken on a push session. Default false.
    pub intake: bool,
}

impl Default for InboundOptions {
    fn default() -> Self {
        Self {
            bytes_max: MSRP_INBOUND_BYTES_MAX,
            intake: false,
        }
    }
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer with this status, if [`Frame::wants_response`] says so, and do nothing else.
    Answer(u16),
    /// Give it to [`Reassembly::accept`] and answer what comes of it.
    Collect,
    /// Not a request that is answered: a response or a REPORT, for the session; or nothing at all.
    Pass,
}

/// Judges `frame`, whose To-Path the owner has looked up.
#[must_use]
pub fn judge(frame: &Frame<'_>, binding: Binding, options: &InboundOptions) -> Verdict {
    match frame.start {
        Start::Response(_) | Start::Report => return Verdict::Pass,
        Start::Send | Start::Other(_) => {}
    }
    match binding {
        Binding::Unknown => return Verdict::Answer(481),
        Binding::Elsewhere => return Verdict::Answer(506),
        Binding::Fresh | Binding::Here => {}
    }
    if frame.start != Start::Send {
        return Verdict::Answer(501);
    }
    if let Some(fault) = frame.fault {
        return Verdict::Answer(fault.status());
    }
    let Some(body) = frame.body else {
        return Verdict::Answer(200);
    };
    let range = range_of(frame);
    let limit = options.bytes_max as u64;
    let last = range
        .start
        .saturating_add(body.len() as u64)
        .saturating_sub(1);
    if last > limit || range.total.is_some_and(|total| total > limit) {
        return Verdict::Answer(413);
    }
    let content_type = frame.content_type.unwrap_or_default();
    let may_be_notice =
        imdn::is_notice_type(content_type) || cpim::is_type(content_type, b"message/cpim");
    if may_be_notice || options.intake {
        Verdict::Collect
    } else {
        Verdict::Answer(403)
    }
}

/// What a collected chunk led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected<'a> {
    /// Whole: answer 200 if it is wanted, else what the content deserves.
    Complete(&'a [u8]),
    /// The sender gave up: answer 200, nothing is kept.
    Dropped,
    /// Answer 200 and wait.
    More,
    /// Answer with this status; nothing is kept.
    Refused(u16),
}

/// One message of a peer, being put together (RFC 4975 section 7.3.1).
///
/// Chunks come in any order, later octets win, the `$` chunk tells the total. Memory grows with
/// octets that arrived, up to the limit, never with a number the peer wrote.
#[derive(Debug, Default)]
pub struct Reassembly {
    bytes: Vec<u8>,
    message_id: Vec<u8>,
    total: Option<u32>,
    claimed_total: Option<u64>,
    active: bool,
    covered: Coverage<1, GAPS_MAX>,
}

impl Reassembly {
    /// No message is in work.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        !self.active
    }

    /// Forgets the message in work; keeps the memory.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.message_id.clear();
        self.total = None;
        self.claimed_total = None;
        self.active = false;
        self.covered.clear(0);
    }

    /// Octets that it owns beside its place.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.bytes.capacity() + self.message_id.capacity()
    }

    /// Takes a chunk that [`judge`] wants collected. Another Message-ID drops what was in work.
    pub fn accept(&mut self, frame: &Frame<'_>, options: &InboundOptions) -> Collected<'_> {
        let id = frame.message_id.unwrap_or_default();
        if !self.active || self.message_id != id {
            self.reset();
            self.message_id.extend_from_slice(id);
            self.active = true;
        }
        match self.add(frame, options) {
            Ok(false) => Collected::More,
            Ok(true) => {
                self.active = false;
                Collected::Complete(&self.bytes)
            }
            Err(None) => {
                self.reset();
                Collected::Dropped
            }
            Err(Some(status)) => {
                self.reset();
                Collected::Refused(status)
            }
        }
    }

    /// `Ok(true)` when whole, `Err(None)` when the sender gave up.
    fn add(&mut self, frame: &Frame<'_>, options: &InboundOptions) -> Result<bool, Option<u16>> {
        let body = frame.body.unwrap_or_default();
        let range = range_of(frame);
        let limit = options.bytes_max.min(MSRP_INBOUND_BYTES_MAX);
        let first = usize::try_from(range.start - 1).map_err(|_| Some(413))?;
        let last = first
            .checked_add(body.len())
            .filter(|&last| last <= limit)
            .ok_or(Some(413))?;
        if range.total.is_some()
            && self
                .claimed_total
                .is_some_and(|old| Some(old) != range.total)
        {
            return Err(Some(400));
        }
        self.claimed_total = self.claimed_total.or(range.total);
        let last_u32 = u32::try_from(last).map_err(|_| Some(413))?;
        match frame.continuation {
            Continuation::Aborted => return Err(None),
            Continuation::Complete if self.total.is_some_and(|total| total != last_u32) => {
                return Err(Some(400));
            }
            Continuation::Complete => self.total = Some(last_u32),
            Continuation::More => {}
        }
        if self
            .total
            .is_some_and(|total| last_u32 > total || self.bytes.len() > total as usize)
        {
            return Err(Some(400));
        }
        if self.bytes.len() < last {
            self.bytes.resize(last, 0);
        }
        self.bytes[first..last].copy_from_slice(body);
        let first_u32 = u32::try_from(first + 1).map_err(|_| Some(413))?;
        if !self.covered.insert(0, first_u32, last_u32) {
            return Err(Some(413));
        }
        Ok(self
            .total
            .is_some_and(|total| self.covered.prefix(0) >= total))
    }
}

/// The range to report on when a message of `total` octets is complete (MSRP-24).
#[must_use]
pub const fn whole_range(total: u64) -> ByteRange {
    ByteRange {
        start: 1,
        end: Some(total),
        total: Some(total),
    }
}

/// The chunk's range; a SEND without Byte-Range starts at 1 (RFC 4975 section 7.3.1).
fn range_of(frame: &Frame<'_>) -> ByteRange {
    frame.byte_range.unwrap_or(ByteRange {
        start: 1,
        end: None,
        total: None,
    })
}

#[cfg(test)]
mod tests;
