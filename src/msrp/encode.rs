//! Writers of MSRP frames (RFC 4975 sections 7.1 and 7.2). Layer 1; reached through
//! [`crate::msrp::frame`].

use std::sync::LazyLock;

use memchr::memmem;

use crate::msrp::frame::{ByteRange, Continuation, DASHES, Frame};
use crate::msrp::uri;

/// Our URI, as written: in three pieces around the session-id, or whole in `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OurPath<'a> {
    /// `msrp://host:port/`, or everything.
    pub prefix: &'a [u8],
    /// The session-id.
    pub session: &'a [u8],
    /// `;tcp`.
    pub suffix: &'a [u8],
}

impl<'a> OurPath<'a> {
    /// A path that exists in one piece.
    #[must_use]
    pub const fn whole(path: &'a [u8]) -> Self {
        Self {
            prefix: path,
            session: b"",
            suffix: b"",
        }
    }
}

/// What varies in a SEND with a body. All texts are ours or were checked: they hold no CR or LF.
#[derive(Clone, Copy, Debug)]
pub struct SendFields<'a> {
    /// Transaction id; [`end_line_collides`] must be false for it and the body.
    pub tid: &'a [u8],
    /// The peer's path.
    pub to_path: &'a [u8],
    /// Our path.
    pub from_path: OurPath<'a>,
    /// The message's id, the same on every attempt (MSRP-4).
    pub message_id: &'a [u8],
    /// First octet of the chunk, from 1.
    pub start: u64,
    /// Last octet of the chunk; `start - 1` for an empty body.
    pub end: u64,
    /// Octets of the message.
    pub total: u64,
    /// Ask for a success REPORT.
    pub success_report: bool,
    /// Ask for responses and failure REPORTs (`yes`), or for none (`no`).
    pub failure_report: bool,
    /// Content-Type of the message.
    pub content_type: &'a [u8],
    /// The chunk.
    pub body: &'a [u8],
    /// The end-line's flag.
    pub continuation: Continuation,
}

/// What varies in a bodiless SEND that binds a connection (RFC 4975 section 5.4).
#[derive(Clone, Copy, Debug)]
pub struct BindFields<'a> {
    /// Transaction id.
    pub tid: &'a [u8],
    /// The peer's path.
    pub to_path: &'a [u8],
    /// Our path.
    pub from_path: OurPath<'a>,
    /// An id of no message.
    pub message_id: &'a [u8],
}

/// What varies in a REPORT in namespace 000.
#[derive(Clone, Copy, Debug)]
pub struct ReportFields<'a> {
    /// Transaction id.
    pub tid: &'a [u8],
    /// The From-Path of the SEND, whole.
    pub to_path: &'a [u8],
    /// Our path.
    pub from_path: OurPath<'a>,
    /// The SEND's Message-ID.
    pub message_id: &'a [u8],
    /// What is reported on.
    pub range: ByteRange,
    /// Three digits.
    pub status: u16,
}

/// Appends a SEND with a body.
pub fn encode_send(fields: &SendFields<'_>, out: &mut Vec<u8>) {
    const FIXED: usize = 320;
    let f = fields;
    out.reserve(
        FIXED
            + f.tid.len() * 2
            + f.to_path.len()
            + f.from_path.prefix.len()
            + f.from_path.session.len()
            + f.from_path.suffix.len()
            + f.message_id.len()
            + f.content_type.len()
            + f.body.len(),
    );
    put_request_head(f.tid, b" SEND\r\nTo-Path: ", f.to_path, f.from_path, out);
    out.extend_from_slice(b"\r\nMessage-ID: ");
    out.extend_from_slice(f.message_id);
    out.extend_from_slice(match (f.success_report, f.failure_report) {
        (true, true) => b"\r\nSuccess-Report: yes\r\nFailure-Report: yes\r\nByte-Range: ",
        (true, false) => b"\r\nSuccess-Report: yes\r\nFailure-Report: no\r\nByte-Range: ",
        (false, true) => b"\r\nSuccess-Report: no\r\nFailure-Report: yes\r\nByte-Range: ",
        (false, false) => b"\r\nSuccess-Report: no\r\nFailure-Report: no\r\nByte-Range: ",
    });
    put_range(f.start, f.end, f.total, out);
    out.extend_from_slice(b"\r\nContent-Type: ");
    out.extend_from_slice(f.content_type);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(f.body);
    put_end_line(f.tid, f.continuation, out);
}

/// Appends a SEND without a body: the first request on a connection that has nothing else to say.
pub fn encode_bind(fields: &BindFields<'_>, out: &mut Vec<u8>) {
    let f = fields;
    put_request_head(f.tid, b" SEND\r\nTo-Path: ", f.to_path, f.from_path, out);
    out.extend_from_slice(b"\r\nMessage-ID: ");
    out.extend_from_slice(f.message_id);
    out.extend_from_slice(b"\r\nByte-Range: 1-0/0");
    put_end_line(f.tid, Continuation::Complete, out);
}

/// Appends a REPORT.
///
/// # Panics
/// When the range is open: we report on octets that we hold.
pub fn encode_report(fields: &ReportFields<'_>, out: &mut Vec<u8>) {
    let f = fields;
    let end = f.range.end.expect("a report names octets that arrived");
    let total = f
        .range
        .total
        .expect("a report is sent when the total is known");
    put_request_head(f.tid, b" REPORT\r\nTo-Path: ", f.to_path, f.from_path, out);
    out.extend_from_slice(b"\r\nMessage-ID: ");
    out.extend_from_slice(f.message_id);
    out.extend_from_slice(b"\r\nByte-Range: ");
    put_range(f.range.start, end, total, out);
    out.extend_from_slice(b"\r\nStatus: 000 ");
    put_status(f.status, comment(f.status), out);
    put_end_line(f.tid, Continuation::Complete, out);
}

/// Appends the response to `request` (RFC 4975 section 7.2): back to the first URI it came from.
///
/// `our_path` is the URI it was sent to; `comment` may be empty.
pub fn encode_response(
    request: &Frame<'_>,
    our_path: &[u8],
    status: u16,
    comment: &str,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(request.tid);
    out.push(b' ');
    put_status(status, comment, out);
    out.extend_from_slice(b"\r\nTo-Path: ");
    out.extend_from_slice(uri::first_uri(request.from_path));
    out.extend_from_slice(b"\r\nFrom-Path: ");
    out.extend_from_slice(our_path);
    put_end_line(request.tid, Continuation::Complete, out);
}

/// The comment we write after `status`; empty for codes that we never send.
#[must_use]
pub const fn comment(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad request",
        403 => "Not allowed",
        408 => "Timed out",
        413 => "Stop Sending Message",
        415 => "Media type not understood",
        423 => "Parameter out of bounds",
        481 => "No such session",
        501 => "Unknown method",
        506 => "Session already in use",
        _ => "",
    }
}

/// Whether `body` holds what could be read as the end-line of `tid` (RFC 4975 section 7.1).
///
/// The flag after it is not looked at; when true, take another transaction id.
#[must_use]
pub fn end_line_collides(body: &[u8], tid: &[u8]) -> bool {
    let mut rest = body;
    while let Some(at) = HYPHENS.find(rest) {
        // A longer run of hyphens: only its last seven can be followed by an id.
        let run = rest[at..].iter().take_while(|&&c| c == b'-').count();
        rest = &rest[at + run..];
        if rest.starts_with(tid) {
            return true;
        }
        // An id cannot start with a hyphen, but be safe for one that is not ours.
        if tid.first() == Some(&b'-') {
            return true;
        }
    }
    false
}

static HYPHENS: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(DASHES));

fn put_request_head(
    tid: &[u8],
    method: &[u8],
    to_path: &[u8],
    from_path: OurPath<'_>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(tid);
    out.extend_from_slice(method);
    out.extend_from_slice(to_path);
    out.extend_from_slice(b"\r\nFrom-Path: ");
    out.extend_from_slice(from_path.prefix);
    out.extend_from_slice(from_path.session);
    out.extend_from_slice(from_path.suffix);
}

fn put_status(status: u16, comment: &str, out: &mut Vec<u8>) {
    debug_assert!(status < 1000, "a status has three digits");
    let mut digits = [0; 3];
    let mut rest = status % 1000;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).expect("below ten");
        rest /= 10;
    }
    out.extend_from_slice(&digits);
    if !comment.is_empty() {
        out.push(b' ');
        out.extend_from_slice(comment.as_bytes());
    }
}

fn put_end_line(tid: &[u8], continuation: Continuation, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n-------");
    out.extend_from_slice(tid);
    out.extend_from_slice(&[continuation.as_byte(), b'\r', b'\n']);
}

/// Writes `start-end/total` through one buffer on the stack.
fn put_range(start: u64, end: u64, total: u64, out: &mut Vec<u8>) {
    // Three numbers of at most 20 digits and two separators.
    let mut text = [0; 62];
    let mut at = text.len();
    at = put_number(total, &mut text, at);
    at -= 1;
    text[at] = b'/';
    at = put_number(end, &mut text, at);
    at -= 1;
    text[at] = b'-';
    at = put_number(start, &mut text, at);
    out.extend_from_slice(&text[at..]);
}

/// Writes `value` so that it ends before `at`; returns where it starts.
fn put_number(value: u64, text: &mut [u8; 62], at: usize) -> usize {
    let (mut rest, mut at) = (value, at);
    loop {
        at -= 1;
        text[at] = b'0' + u8::try_from(rest % 10).expect("below ten");
        rest /= 10;
        if rest == 0 {
            return at;
        }
    }
}
