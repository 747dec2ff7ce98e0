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
use crate::base::shape::{Attention, Freedom, Shape};
use crate::base::span::Span;
use crate::sip::header::{HeaderName, parse_cseq};
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
    sets: Box<[Set]>,
    /// The set that missed and wants the message it missed.
    wanted: Option<usize>,
}

struct Set {
    ways: Box<[Way]>,
    /// Where the next shape is looked for a place.
    hand: usize,
    attention: Attention,
}

struct Way {
    shape: Shape,
    table: HeaderTable,
    cseq: Span,
    content_length: Span,
    /// It fitted since the hand came by.
    used: bool,
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
    /// Knows nothing yet; all memory there will be (250 KiB).
    #[must_use]
    pub fn new() -> Self {
        let way = || Way {
            shape: Shape::with_room(HEAD_BYTES_MAX),
            table: HeaderTable::with_room(LINES_MAX),
            cseq: Span::EMPTY,
            content_length: Span::EMPTY,
            used: false,
        };
        let set = || Set {
            ways: (0..WAYS).map(|_| way()).collect(),
            hand: 0,
            attention: Attention::default(),
        };
        Self {
            sets: (0..SETS).map(|_| set()).collect(),
            wanted: None,
        }
    }

    /// Finds the message that `buffer` starts with, if its head has a known shape and its body is
    /// whole, and fills `table`; returns its octets. `None` says nothing about the buffer.
    #[inline]
    pub fn recall(&mut self, buffer: &[u8], table: &mut HeaderTable) -> Option<usize> {
        self.wanted = None;
        let kind = kind_of(buffer)?;
        let set = &mut self.sets[kind];
        if !set.attention.is_awake() {
            return None;
        }
        for way in &mut set.ways {
            if way.shape.fits(buffer) {
                set.attention.hit();
                way.used = true;
                return way.restore(buffer, table);
            }
        }
        let room = set.ways.iter().any(|way| way.shape.is_empty());
        if set.attention.missed(room) {
            self.wanted = Some(kind);
        }
        None
    }

    /// Keeps the shape of `message`, the one that was not recalled, if there is to be one.
    #[inline]
    pub fn learn(&mut self, message: &Message<'_>) {
        if let Some(kind) = self.wanted.take() {
            self.sets[kind].learn(message);
        }
    }
}

/// The set for messages that start as `buffer` does: by status code, or the start of the method.
#[inline]
fn kind_of(buffer: &[u8]) -> Option<usize> {
    let start = buffer.first_chunk::<12>()?;
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|step| start[at + step]));
    let kind = match word(0) {
        version if version == u32::from_le_bytes(*b"SIP/") => word(8),
        method => method,
    };
    Some((kind.wrapping_mul(0x9e37_79b1) >> 29) as usize)
}

const _: () = assert!(SETS == 1 << (32 - 29), "a kind is a set's index");

impl Set {
    #[cold]
    fn learn(&mut self, message: &Message<'_>) {
        while core::mem::take(&mut self.ways[self.hand].used) {
            self.hand = (self.hand + 1) % WAYS;
        }
        self.ways[self.hand].learn(message);
        self.hand = (self.hand + 1) % WAYS;
    }
}

impl Way {
    /// The table of a message that fits.
    #[inline]
    fn restore(&self, buffer: &[u8], table: &mut HeaderTable) -> Option<usize> {
        let body = decimal_u32(self.content_length.slice(buffer))? as usize;
        let head = self.shape.len();
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

    fn learn(&mut self, message: &Message<'_>) {
        let (bytes, table) = message.parts();
        self.shape.cast(b"");
        let single = |name| {
            let first = table.first(name)?;
            let (start, end) = first.value();
            table.after(first).is_none().then(|| span(start, end))
        };
        let (Some(cseq), Some(content_length)) =
            (single(HeaderName::CSeq), single(HeaderName::ContentLength))
        else {
            return;
        };
        let usual = table.unfolded && table.entries().len() <= LINES_MAX;
        if !usual || !self.shape.cast(&bytes[..table.headers_end]) {
            return;
        }
        (self.cseq, self.content_length) = (cseq, content_length);
        self.table.copy_from(table);
        self.free(bytes);
    }

    /// Notes what the parser does not look at, or looks at without minding which letter it is.
    fn free(&mut self, bytes: &[u8]) {
        let Self { shape, table, .. } = self;
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
        let uri = table.start.uri;
        crate::sip::header::free_user(bytes, uri, shape);
    }
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
