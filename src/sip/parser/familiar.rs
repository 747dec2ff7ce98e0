//! Heads of a shape seen before.
//!
//! A peer writes the same header lines in the same order all day; what differs is who, not what. A
//! head that was read whole is kept as a [`Shape`]: names, structure, and every value that the parser
//! looks into stay as they are, but for the letters and digits of branches, tags, Call-IDs and users.
//! Values that only later readers look into may change altogether as long as their lines stay lines. A
//! message that fits gets the places found then; CSeq and Content-Length are read anew.
//!
//! *Holds:* a head that is recalled is one that [`parse`](super::parse) would take, and the table says
//! the same. The tests change octets at random and compare. Peers whose messages never fit cost a
//! look now and then: a set that misses for long sleeps.

use crate::base::limits::SIP_MESSAGE_BYTES_MAX;
use crate::base::shape::{Freedom, Memory, Shape};
use crate::base::span::Span;
use crate::sip::header::{HeaderName, free_user, parse_cseq};
use crate::sip::message::{Entry, HeaderTable, Message};
use crate::sip::scan::{decimal_u32, span};

/// Longest head that is kept, octets.
const HEAD_BYTES_MAX: usize = 1280;
/// Most header lines of a head that is kept.
const LINES_MAX: usize = 40;
/// Kinds of messages that are told apart, by method or status.
const SETS: usize = 8;
/// Shapes kept of a kind.
const WAYS: usize = 8;

/// Heads that were read before.
pub struct Familiar {
    sets: Box<[Memory<Noted>]>,
    /// The set that was asked last.
    asked: usize,
}

/// What was found in a head.
struct Noted {
    table: HeaderTable,
    cseq: Span,
    content_length: Span,
}

impl core::fmt::Debug for Familiar {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Familiar").finish_non_exhaustive()
    }
}

impl Default for Familiar {
    fn default() -> Self {
        Self::new()
    }
}

impl Familiar {
    /// Knows nothing yet; all memory there will be (200 KiB).
    #[must_use]
    pub fn new() -> Self {
        let blank = || Noted {
            table: HeaderTable::with_room(LINES_MAX),
            cseq: Span::EMPTY,
            content_length: Span::EMPTY,
        };
        let set = |_| Memory::new(WAYS, HEAD_BYTES_MAX, blank);
        Self {
            sets: (0..SETS).map(set).collect(),
            asked: 0,
        }
    }

    /// Finds the message that `buffer` starts with, if its head has a known shape and its body is
    /// whole, and fills `table`; returns its octets. `None` says nothing about the buffer.
    #[inline]
    pub fn recall(&mut self, buffer: &[u8], table: &mut HeaderTable) -> Option<usize> {
        self.asked = kind_of(buffer);
        let (noted, head) = self.sets[self.asked].recall_start(buffer)?;
        noted.restore(buffer, head, table)
    }

    /// Keeps the shape of `message`, the one that was not recalled, if there is to be one.
    #[inline]
    pub fn learn(&mut self, message: &Message<'_>) {
        let (bytes, table) = message.parts();
        let head = &bytes[..table.headers_end];
        self.sets[self.asked].learn(head, |noted, shape| noted.read(bytes, table, shape));
    }
}

/// The set for messages that start as `buffer` does: by status code, or the start of the method.
#[inline]
fn kind_of(buffer: &[u8]) -> usize {
    let Some(start) = buffer.first_chunk::<12>() else {
        return 0;
    };
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|step| start[at + step]));
    let kind = match word(0) {
        version if version == u32::from_le_bytes(*b"SIP/") => word(8),
        method => method,
    };
    (kind.wrapping_mul(0x9e37_79b1) >> 29) as usize
}

const _: () = assert!(SETS == 1 << (32 - 29), "a kind is a set's index");

impl Noted {
    /// The table of a message that fits, with a head of `head` octets.
    #[inline]
    fn restore(&self, buffer: &[u8], head: usize, table: &mut HeaderTable) -> Option<usize> {
        let body = decimal_u32(self.content_length.slice(buffer))? as usize;
        let len = head + body;
        if len > buffer.len() || len > SIP_MESSAGE_BYTES_MAX {
            return None;
        }
        let cseq = self.cseq.range();
        let cseq = parse_cseq(buffer, cseq.start, cseq.end)?;
        table.copy_from(&self.table);
        table.body = span(head, len);
        table.facts.cseq = Some(cseq);
        Some(len)
    }

    /// Notes what `table` says; `false` for a head that is not to be kept.
    fn read(&mut self, bytes: &[u8], table: &HeaderTable, shape: &mut Shape) -> bool {
        let single = |name| {
            let first = table.first(name)?;
            let (start, end) = first.value();
            table.after(first).is_none().then(|| span(start, end))
        };
        let (Some(cseq), Some(content_length)) =
            (single(HeaderName::CSeq), single(HeaderName::ContentLength))
        else {
            return false;
        };
        if !table.unfolded || table.entries().len() > LINES_MAX {
            return false;
        }
        (self.cseq, self.content_length) = (cseq, content_length);
        self.table.copy_from(table);
        free(bytes, table, shape);
        true
    }
}

/// Notes what the parser does not look at, or looks at without minding which letter it is.
fn free(bytes: &[u8], table: &HeaderTable, shape: &mut Shape) {
    let is_response = table.start.status != 0;
    for entry in table.entries() {
        if let Some(freedom) = freedom_of(entry, is_response) {
            let (start, end) = entry.value();
            shape.free(start..end, freedom);
        }
    }
    let facts = &table.facts;
    if let Some(via) = &facts.via {
        via.free(bytes, shape);
    }
    for address in [&facts.from, &facts.to].into_iter().flatten() {
        address.free(bytes, shape);
    }
    free_user(bytes, table.start.uri, shape);
}

/// How free the value of a line is as a whole.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every header not named here is read later, if at all"
)]
const fn freedom_of(entry: &Entry, is_response: bool) -> Option<Freedom> {
    match entry.name {
        HeaderName::CSeq | HeaderName::ContentLength => Some(Freedom::Digit),
        HeaderName::Via | HeaderName::To | HeaderName::MaxForwards | HeaderName::Expires => None,
        HeaderName::From if !is_response => None,
        HeaderName::CallId if !is_response => Some(Freedom::Word),
        _ => Some(Freedom::Graphic),
    }
}

#[cfg(test)]
mod tests;
