//! Answers of a shape seen before: handsets of one kind write one description, with other numbers.
//!
//! What [`judge_answer`] read is kept as a [`Shape`] with the places it found. Free are session ids of
//! paths, digits of addresses and ports, and the values of lines and attributes that nobody reads. Ports
//! are read anew; all else is as it was.

use crate::base::octets;
use crate::base::shape::{Freedom, Memory, Shape};
use crate::base::span::Span;
use crate::sdp::answer::{Answer, judge_answer};
use crate::sdp::scan::{Line, Lines, MediaLine, is_read, parse_port};
use crate::sdp::{Direction, SdpError, Setup};

/// Longest description that is kept, octets.
const BODY_BYTES_MAX: usize = 512;
/// Shapes kept.
const WAYS: usize = 8;

/// Answers that were judged before.
#[derive(Debug)]
pub struct Answers(Memory<Noted>);

/// One answer, or one refusal of the media.
#[derive(Debug)]
struct Noted {
    /// It refuses the media with port 0.
    refuses: bool,
    host: Span,
    port: Span,
    path: Span,
    /// The port in the path, which has one URI; empty when the path is as it was.
    path_port: Span,
    accept_types: Span,
    accept_wrapped_types: Option<Span>,
    setup: Option<Setup>,
    direction: Direction,
    max_size: Option<u64>,
    cema: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self::new()
    }
}

impl Answers {
    /// Knows nothing yet; all memory there will be (7 KiB).
    #[must_use]
    pub fn new() -> Self {
        Self(Memory::new(WAYS, BODY_BYTES_MAX, Noted::blank))
    }

    /// As [`judge_answer`].
    ///
    /// # Errors
    /// As [`judge_answer`].
    #[inline]
    pub fn judge<'a>(
        &mut self,
        body: &'a [u8],
        content_type: Option<&[u8]>,
    ) -> Result<Answer<'a>, SdpError> {
        // Of another type it may be a part of many.
        if content_type.is_none_or(|kind| !octets::is_word(kind, b"application/sdp")) {
            return judge_answer(body, content_type);
        }
        let recalled = self.0.recall(body);
        if let Some(judged) = recalled.and_then(|noted| noted.resolve(body)) {
            return judged;
        }
        let judged = judge_answer(body, content_type);
        if matches!(judged, Ok(_) | Err(SdpError::Port0)) {
            let answer = judged.as_ref().ok();
            self.0.learn(body, |noted, shape| {
                noted.read(body, answer, shape).is_some()
            });
        }
        judged
    }
}

impl Noted {
    const fn blank() -> Self {
        Self {
            refuses: false,
            host: Span::EMPTY,
            port: Span::EMPTY,
            path: Span::EMPTY,
            path_port: Span::EMPTY,
            accept_types: Span::EMPTY,
            accept_wrapped_types: None,
            setup: None,
            direction: Direction::Recvonly,
            max_size: None,
            cema: false,
        }
    }

    /// What to say of a body that fits; `None` when a number in it is none of the usual.
    #[inline]
    fn resolve<'a>(&self, body: &'a [u8]) -> Option<Result<Answer<'a>, SdpError>> {
        if self.refuses {
            return Some(Err(SdpError::Port0));
        }
        let in_range = |text| parse_port(text).filter(|&port| port > 0);
        let port = in_range(self.port.slice(body))?;
        if !self.path_port.is_empty() {
            in_range(self.path_port.slice(body))?;
        }
        Some(Ok(Answer {
            host: self.host.slice(body),
            port,
            path: self.path.slice(body),
            setup: self.setup,
            direction: self.direction,
            max_size: self.max_size,
            accept_types: self.accept_types.slice(body),
            accept_wrapped_types: self.accept_wrapped_types.map(|span| span.slice(body)),
            cema: self.cema,
        }))
    }

    /// Notes what stands where in `body`, an answer or a refusal of its one media line; `None`: it is not
    /// to be kept.
    fn read(&mut self, body: &[u8], answer: Option<&Answer<'_>>, shape: &mut Shape) -> Option<()> {
        self.refuses = answer.is_none();
        // What stands twice must be the same twice.
        let (mut hosts, mut paths) = (0, 0);
        for line in Lines::new(body) {
            let line = line.ok()?;
            hosts += usize::from(line.kind == b'c');
            if line.kind == b'a'
                && let Some(path) = line.value.strip_prefix(b"path:")
            {
                paths += 1;
                self.path = Span::of(body, path);
            }
            if line.kind == b'm' {
                let media = MediaLine::parse(line.value).ok()?;
                self.port = Span::of(body, media.port_text);
            }
            free_line(body, line, shape);
        }
        // Of a refusal nobody looks at the path but to see that it stands there once; its port stays.
        let Some(answer) = answer else {
            if paths == 1 {
                shape.free(self.path.range(), Freedom::Graphic);
            }
            return Some(());
        };
        self.host = Span::of(body, answer.host);
        if hosts == 1 {
            shape.free(self.host.range(), Freedom::Digit);
        }
        shape.free(self.port.range(), Freedom::Digit);
        self.path = Span::of(body, answer.path);
        self.path_port = Span::EMPTY;
        if paths == 1 {
            self.free_path(answer.path, shape);
        }
        let wrapped = answer.accept_wrapped_types;
        self.accept_types = Span::of(body, answer.accept_types);
        self.accept_wrapped_types = wrapped.map(|types| Span::of(body, types));
        self.setup = answer.setup;
        self.direction = answer.direction;
        self.max_size = answer.max_size;
        self.cema = answer.cema;
        Some(())
    }

    /// Frees the session id of a path of one URI to a numeric host, and the digits of its address.
    fn free_path(&mut self, path: &[u8], shape: &mut Shape) {
        let start = self.path.start as usize;
        if path.contains(&b' ') {
            return;
        }
        let authority = b"msrp://".len();
        let Some(slash) = octets::find(&path[authority..], b'/').map(|at| authority + at) else {
            return;
        };
        let session = slash + 1;
        let Some(end) = octets::find(&path[session..], b';').map(|at| session + at) else {
            return;
        };
        shape.free(start + session..start + end, Freedom::Word);
        let Some(colon) = memchr::memrchr(b':', &path[authority..slash]).map(|at| authority + at)
        else {
            return;
        };
        let host = &path[authority..colon];
        if host.iter().all(|c| c.is_ascii_digit() || *c == b'.') {
            shape.free(start + authority..start + slash, Freedom::Digit);
            self.path_port = Span::new(start + colon + 1, start + slash);
        }
    }
}

/// Frees what nobody reads of a line.
fn free_line(body: &[u8], line: Line<'_>, shape: &mut Shape) {
    let value = Span::of(body, line.value).range();
    match line.kind {
        b'v' | b'c' | b'm' => {}
        b'a' => {
            let colon = octets::find(line.value, b':');
            if let Some(at) = colon.filter(|&at| !is_read(&line.value[..at])) {
                shape.free(value.start + at + 1..value.end, Freedom::Graphic);
            }
        }
        _ => shape.free(value, Freedom::Graphic),
    }
}

#[cfg(test)]
mod tests;
