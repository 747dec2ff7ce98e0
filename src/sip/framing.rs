//! Message boundaries on a stream (RFC 3261 sections 7.5 and 18.3) and keep-alives (RFC 5626
//! section 4.4.1). Layer 1.
//!
//! [`frame`] looks at the octets received so far and says what is first among them. It keeps no
//! state. What it returns as a message goes to
//! [`parse`](crate::sip::parser::parse) as if it were a datagram; a parse error that
//! [`breaks_framing`](crate::sip::parser::ParseError::breaks_framing) ends the connection.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::base::limits::{
    SIP_HEADER_SECTION_BYTES_MAX, SIP_LINE_BYTES_MAX, SIP_MESSAGE_BYTES_MAX,
};
use crate::sip::header::HeaderName;
use crate::sip::scan::{TOKEN, decimal_u32, is, trim};

/// What a stream's buffer starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing whole yet. At least this many octets in total are needed before another look can
    /// tell more. A buffer of exactly CRLF is this too: a pong, or half a ping; the owner of an
    /// idle connection may take it for the pong it waits for.
    Incomplete {
        /// Octets the buffer must hold; more than it holds now, at most the largest message.
        need_at_least: usize,
    },
    /// A whole message of `len` octets.
    Message {
        /// Octets of header section and body.
        len: usize,
    },
    /// CRLFCRLF, four octets: to be answered with CRLF.
    Ping,
    /// A CRLF before something else: the answer to a ping, or a stray; skip `len` octets.
    Pong {
        /// Octets to skip.
        len: usize,
    },
}

/// Why a stream cannot be read on. Every kind ends the connection; some deserve an answer first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameError {
    /// Content-Length is not a number.
    BadContentLength,
    /// Start line or header section beyond the limits: 513, close.
    HeaderTooLong,
    /// Header section and announced body beyond the limit: 513, close.
    MessageTooLong,
    /// A header section without Content-Length: 400, close (NH-6).
    MissingContentLength,
    /// The octets are not SIP: close.
    NotSip,
}

/// Longest method we have patience for; a start line must show a space by then.
const METHOD_BYTES_MAX: usize = 256;

/// Finds the first message or keep-alive in `buffer`.
///
/// `already_scanned` is the length of the buffer when it was last shown and nothing could be made of
/// it, else 0: without a fresh octet there is nothing new to find. The header section is searched
/// from its start each time, at most 64 KiB: an owner that waits for a body cannot know whether a
/// blank line lies in the part it has shown, and a blank line of the body must never count.
///
/// # Errors
/// The connection is of no more use. To answer, [`salvage`](crate::sip::parser::salvage) the buffer.
pub fn frame(buffer: &[u8], already_scanned: usize) -> Result<Frame, FrameError> {
    match buffer {
        [] | [b'\r'] => {
            return Ok(Frame::Incomplete {
                need_at_least: buffer.len() + 1,
            });
        }
        [b'\r', b'\n'] => return Ok(Frame::Incomplete { need_at_least: 4 }),
        [b'\r', b'\n', b'\r'] => return Ok(Frame::Incomplete { need_at_least: 4 }),
        [b'\r', b'\n', b'\r', b'\n', ..] => return Ok(Frame::Ping),
        [b'\r', b'\n', ..] => return Ok(Frame::Pong { len: 2 }),
        [..] => {}
    }
    if already_scanned >= buffer.len() {
        return Ok(Frame::Incomplete {
            need_at_least: buffer.len() + 1,
        });
    }
    let Some(line_end) = start_line(buffer)? else {
        return Ok(Frame::Incomplete {
            need_at_least: buffer.len() + 1,
        });
    };
    let Some(head) = header_end(buffer, line_end - 1) else {
        if buffer.len() > SIP_HEADER_SECTION_BYTES_MAX {
            return Err(FrameError::HeaderTooLong);
        }
        return Ok(Frame::Incomplete {
            need_at_least: buffer.len() + 1,
        });
    };
    if head > SIP_HEADER_SECTION_BYTES_MAX {
        return Err(FrameError::HeaderTooLong);
    }
    let body = content_length(buffer, line_end + 1, head - 2)?;
    let len = head.saturating_add(body);
    if len > SIP_MESSAGE_BYTES_MAX {
        return Err(FrameError::MessageTooLong);
    }
    if len > buffer.len() {
        return Ok(Frame::Incomplete { need_at_least: len });
    }
    Ok(Frame::Message { len })
}

/// Built once: making a searcher costs more than most searches.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// One past the empty line that ends the header section, looked for from `first` on.
fn header_end(buffer: &[u8], first: usize) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    let limit = buffer.len().min(SIP_HEADER_SECTION_BYTES_MAX + END.len());
    let text = buffer.get(first..limit)?;
    EMPTY_LINE.find(text).map(|at| first + at + END.len())
}

/// The offset of the LF of a plausible start line; `None` while it has not ended.
///
/// A peer that speaks another protocol, or ends lines with a bare LF, is found out here rather than
/// by a timeout.
fn start_line(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        let head = &buffer[..buffer.len().min(METHOD_BYTES_MAX)];
        let word = head.iter().position(|byte| !is(*byte, TOKEN));
        let fine = match word {
            None => buffer.len() < METHOD_BYTES_MAX,
            Some(0) => false,
            Some(at) => buffer[at] == b' ' || &buffer[..at] == b"SIP",
        };
        if !fine {
            return Err(FrameError::NotSip);
        }
        if buffer.len() > SIP_LINE_BYTES_MAX {
            return Err(FrameError::HeaderTooLong);
        }
        return Ok(None);
    };
    let Some(line) = buffer[..end].strip_suffix(b"\r") else {
        return Err(FrameError::NotSip);
    };
    if line.len() > SIP_LINE_BYTES_MAX {
        return Err(FrameError::HeaderTooLong);
    }
    let version = |text: &[u8]| {
        text.get(..4)
            .is_some_and(|p| p.eq_ignore_ascii_case(b"SIP/"))
    };
    let response = version(line);
    let last = memchr::memrchr(b' ', line.trim_ascii_end()).map(|at| &line[at + 1..]);
    let request = line.first().is_some_and(|byte| is(*byte, TOKEN)) && last.is_some_and(version);
    if response || request {
        Ok(Some(end))
    } else {
        Err(FrameError::NotSip)
    }
}

/// Content-Length among the header lines `buffer[first..end]`, searched from the back, where it
/// usually stands. Of several the last counts; the parser refuses the message if they differ.
fn content_length(buffer: &[u8], first: usize, end: usize) -> Result<usize, FrameError> {
    let mut line_end = end;
    let mut line_start = end;
    while line_start > first {
        // `line_start` is where a line begins; step back to the line before it.
        line_start = memchr::memrchr(b'\n', &buffer[first..line_start - 1])
            .map_or(first, |at| first + at + 1);
        let folded = matches!(buffer[line_start], b' ' | b'\t') && line_start > first;
        if folded {
            continue;
        }
        let line = &buffer[line_start..line_end];
        line_end = line_start;
        let plausible = line
            .first()
            .is_some_and(|byte| matches!(byte, b'C' | b'c' | b'L' | b'l' | b' ' | b'\t'));
        if !plausible {
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        if HeaderName::lookup(trim(&line[..colon])) == HeaderName::ContentLength {
            let digits = trim(&line[colon + 1..]);
            let value = decimal_u32(digits).ok_or(FrameError::BadContentLength)?;
            return Ok(value as usize);
        }
    }
    Err(FrameError::MissingContentLength)
}

#[cfg(test)]
mod tests;
