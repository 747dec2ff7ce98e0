//! Frames of a shape seen before: responses, REPORTs and other frames without a body.
//!
//! Of a frame that [`parse`](super::frame::parse) took without fault a [`Shape`] is kept. Free are its
//! transaction id, which must still be that of its end-line, what is visible in its paths and its
//! Message-ID, and the digits of its Byte-Range, which is read anew.

use crate::base::octets;
use crate::base::shape::{Freedom, Memory, Shape};
use crate::base::span::Span;
use crate::msrp::frame::{
    ByteRange, Continuation, FailureReport, Frame, Start, Status, byte_range, value_of,
};

/// Longest frame that is kept, octets.
const FRAME_BYTES_MAX: usize = 640;
/// Shapes kept.
const WAYS: usize = 8;
/// CRLF and flag at the end of a frame, octets.
const FLAG_BYTES: usize = 3;

/// Frames that were read before.
#[derive(Debug)]
pub struct Frames(Memory<Noted>);

/// What was found in a frame.
#[derive(Clone, Copy, Debug)]
struct Noted {
    tid: Span,
    /// The id in the end-line.
    end_tid: Span,
    start: Kind,
    to_path: Span,
    from_path: Span,
    message_id: Option<Span>,
    byte_range: Option<Span>,
    success_report: bool,
    failure_report: FailureReport,
    status: Option<Status>,
    continuation: Continuation,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Send,
    Report,
    Response(u16),
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// Knows nothing yet; all memory there will be (9 KiB).
    #[must_use]
    pub fn new() -> Self {
        let blank = || Noted {
            tid: Span::EMPTY,
            end_tid: Span::EMPTY,
            start: Kind::Send,
            to_path: Span::EMPTY,
            from_path: Span::EMPTY,
            message_id: None,
            byte_range: None,
            success_report: false,
            failure_report: FailureReport::Yes,
            status: None,
            continuation: Continuation::Complete,
        };
        Self(Memory::new(WAYS, FRAME_BYTES_MAX, blank))
    }

    /// The frame that `buffer` starts with, if its shape is known, and its octets. `None` says nothing
    /// about the buffer.
    #[inline]
    pub fn recall<'a>(&mut self, buffer: &'a [u8]) -> Option<(Frame<'a>, usize)> {
        let (noted, len) = self.0.recall_start(buffer)?;
        Some((noted.resolve(buffer)?, len))
    }

    /// Keeps the shape of `frame`, which [`parse`](super::frame::parse) read from the first `len` octets
    /// of `buffer` after they were not recalled.
    #[inline]
    pub fn learn(&mut self, buffer: &[u8], frame: &Frame<'_>, len: usize) {
        let bare = frame.body.is_none() && frame.content_type.is_none() && frame.fault.is_none();
        if bare {
            let text = &buffer[..len];
            self.0.learn(text, |noted, shape| {
                noted.read(text, frame, shape).is_some()
            });
        }
    }
}

impl Noted {
    #[inline]
    fn resolve<'a>(&self, buffer: &'a [u8]) -> Option<Frame<'a>> {
        let tid = self.tid.slice(buffer);
        if tid != self.end_tid.slice(buffer) {
            return None;
        }
        let byte_range: Option<ByteRange> = match self.byte_range {
            Some(place) => Some(byte_range(place.slice(buffer))?),
            None => None,
        };
        Some(Frame {
            tid,
            start: match self.start {
                Kind::Send => Start::Send,
                Kind::Report => Start::Report,
                Kind::Response(status) => Start::Response(status),
            },
            to_path: self.to_path.slice(buffer),
            from_path: self.from_path.slice(buffer),
            message_id: self.message_id.map(|place| place.slice(buffer)),
            byte_range,
            success_report: self.success_report,
            failure_report: self.failure_report,
            status: self.status,
            content_type: None,
            body: None,
            continuation: self.continuation,
            fault: None,
        })
    }

    /// Notes what `frame`, all of `text`, says; `None`: it is not to be kept.
    fn read(&mut self, text: &[u8], frame: &Frame<'_>, shape: &mut Shape) -> Option<()> {
        let place = |part: &[u8]| Span::of(text, part);
        *self = Self {
            tid: place(frame.tid),
            end_tid: {
                let end = text.len().checked_sub(FLAG_BYTES)?;
                Span::new(end.checked_sub(frame.tid.len())?, end)
            },
            start: match frame.start {
                Start::Send => Kind::Send,
                Start::Report => Kind::Report,
                Start::Response(status) => Kind::Response(status),
                Start::Other(_) => return None,
            },
            to_path: place(frame.to_path),
            from_path: place(frame.from_path),
            message_id: frame.message_id.map(place),
            byte_range: match frame.byte_range {
                Some(_) => Some(place(byte_range_value(text)?)),
                None => None,
            },
            success_report: frame.success_report,
            failure_report: frame.failure_report,
            status: frame.status,
            continuation: frame.continuation,
        };
        shape.free(self.tid.range(), Freedom::Word);
        shape.free(self.end_tid.range(), Freedom::Word);
        shape.free(self.to_path.range(), Freedom::Graphic);
        shape.free(self.from_path.range(), Freedom::Graphic);
        if let Some(id) = self.message_id {
            shape.free(id.range(), Freedom::Graphic);
        }
        if let Some(range) = self.byte_range {
            shape.free(range.range(), Freedom::Digit);
        }
        Some(())
    }
}

/// The value of the first Byte-Range line.
fn byte_range_value(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    while let Some(end) = octets::find(rest, b'\r') {
        if let Some(value) = value_of(&rest[..end], b"Byte-Range") {
            return Some(value);
        }
        rest = rest.get(end + 2..)?;
    }
    None
}

#[cfg(test)]
mod tests;
