//! MSRP frames on a stream (RFC 4975 sections 7 and 9). Layer 1.
//!
//! [`parse`] cuts the first frame off a buffer and reads it in one forward pass. A body ends at the
//! *first* end-line, whatever Byte-Range says, so the verdict does not depend on how the stream was
//! cut into reads. (Jumping by the range's length was tried and dropped: it reads a chunk that
//! contains an earlier end-line differently when it trickles in, and the vectorised search costs
//! about as much as the jump.)
//!
//! Three degrees of trouble: a [`FrameError`] means framing is lost and the connection must go; a
//! [`Fault`] means the frame is whole but must not be acted on (a request is answered with
//! [`Fault::status`], a response or REPORT is ignored); unknown headers are skipped.
//!
//! Not here: whether a path names a session of ours, reassembly, any state.

use std::sync::LazyLock;

use memchr::{memchr2, memmem};

use crate::base::limits::{MSRP_HEADER_BYTES_MAX, MSRP_INBOUND_BYTES_MAX, MSRP_PATH_URIS_MAX};
use crate::base::octets;
use crate::msrp::uri;

pub use crate::msrp::encode::{
    BindFields, OurPath, ReportFields, SendFields, comment, encode_bind, encode_report,
    encode_response, encode_send, end_line_collides,
};

/// Shortest transaction id, octets (RFC 4975 section 9).
pub const TID_BYTES_MIN: usize = 4;
/// Longest transaction id, octets (RFC 4975 section 9).
pub const TID_BYTES_MAX: usize = 32;
/// Most header lines of a frame; bounds the cost of reading a head that trickles in.
pub const HEADER_LINES_MAX: usize = 64;

/// The hyphens that open an end-line.
pub(super) const DASHES: &[u8; 7] = b"-------";
/// CRLF before the end-line, then hyphens, longest id, flag and CRLF.
const TAIL_BYTES_MAX: usize = 2 + DASHES.len() + TID_BYTES_MAX + 3;

/// What the end-line says about the rest of the message (RFC 4975 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// `#`: the sender gave up on the message.
    Aborted,
    /// `$`: these are the last octets.
    Complete,
    /// `+`: more chunks follow.
    More,
}

impl Continuation {
    /// The flag's octet.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Aborted => b'#',
            Self::Complete => b'$',
            Self::More => b'+',
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'#' => Some(Self::Aborted),
            b'$' => Some(Self::Complete),
            b'+' => Some(Self::More),
            _ => None,
        }
    }
}

/// The Failure-Report header (RFC 4975 section 7.1.1); absent means `Yes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureReport {
    /// No response at all.
    No,
    /// A response only when something is wrong.
    Partial,
    /// Always a response.
    #[default]
    Yes,
}

/// A Byte-Range. Octets count from 1; `1-0/0` is the empty message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First octet of the chunk; at least 1.
    pub start: u64,
    /// Last octet of the chunk; `None` for `*`.
    pub end: Option<u64>,
    /// Octets of the whole message; `None` for `*`.
    pub total: Option<u64>,
}

/// A Status header: namespace and code (RFC 4975 section 7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// `000` means the codes of the responses.
    pub namespace: u16,
    /// Three digits.
    pub code: u16,
}

/// What the start line asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// SEND.
    Send,
    /// REPORT.
    Report,
    /// Any other method.
    Other(&'a [u8]),
    /// A response with its status, 0 to 999.
    Response(u16),
}

/// One whole frame. Views into the buffer given to [`parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Transaction id, 4 to 32 octets.
    pub tid: &'a [u8],
    /// Method or status.
    pub start: Start<'a>,
    /// To-Path, URIs separated by spaces; not empty.
    pub to_path: &'a [u8],
    /// From-Path, URIs separated by spaces; not empty.
    pub from_path: &'a [u8],
    /// Message-ID.
    pub message_id: Option<&'a [u8]>,
    /// Byte-Range, if present and sound.
    pub byte_range: Option<ByteRange>,
    /// Success-Report: yes.
    pub success_report: bool,
    /// Failure-Report.
    pub failure_report: FailureReport,
    /// Status, if present and sound.
    pub status: Option<Status>,
    /// Content-Type with parameters.
    pub content_type: Option<&'a [u8]>,
    /// `None` without a body; an empty body is `Some`.
    pub body: Option<&'a [u8]>,
    /// The end-line's flag.
    pub continuation: Continuation,
    /// Why the frame must not be acted on, if it must not.
    pub fault: Option<Fault>,
}

impl<'a> Frame<'a> {
    /// Whether a request with this header set is answered with `status` (RFC 4975 section 7.2).
    ///
    /// Responses and REPORTs are never answered; `Failure-Report: no` asks for silence and
    /// `partial` for bad news only.
    #[must_use]
    pub const fn wants_response(&self, status: u16) -> bool {
        match self.start {
            Start::Report | Start::Response(_) => false,
            Start::Send | Start::Other(_) => match self.failure_report {
                FailureReport::No => false,
                FailureReport::Partial => status != 200,
                FailureReport::Yes => true,
            },
        }
    }

    /// Message-ID, range and code of a REPORT that may be acted on.
    ///
    /// `None` for other frames, faulty ones, foreign namespaces and missing parts (section 7.1.2).
    #[must_use]
    pub fn report(&self) -> Option<(&'a [u8], ByteRange, u16)> {
        if self.start != Start::Report || self.fault.is_some() {
            return None;
        }
        let status = self.status.filter(|status| status.namespace == 0)?;
        Some((self.message_id?, self.byte_range?, status.code))
    }
}

/// What is wrong inside a frame whose borders are clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Byte-Range: no numbers, over 64 bits, end before start, beyond the total.
    ByteRange,
    /// A header that may occur once occurs twice.
    Duplicate,
    /// A header line without a name or without a colon.
    Header,
    /// A SEND or REPORT without Message-ID.
    MessageId,
    /// More URIs in a path than [`MSRP_PATH_URIS_MAX`].
    Path,
    /// A Status that is not two groups of three digits.
    Status,
}

impl Fault {
    /// The answer to a request with this fault, if [`Frame::wants_response`] says so.
    #[must_use]
    pub const fn status(self) -> u16 {
        400
    }
}

/// Why framing is lost. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameErrorKind {
    /// A CR without LF in the header section.
    BareCr,
    /// An LF without CR in the header section.
    BareLf,
    /// A body longer than [`MSRP_INBOUND_BYTES_MAX`].
    BodyTooLong,
    /// An end-line with another id or an unknown flag.
    EndLine,
    /// A header section longer than [`MSRP_HEADER_BYTES_MAX`].
    HeaderTooLong,
    /// The stream does not start with `MSRP `.
    NotMsrp,
    /// To-Path or From-Path is missing or empty.
    Path,
    /// A start line that is neither request nor response.
    StartLine,
    /// A transaction id that is too short, too long or not an ident.
    Tid,
    /// More than [`HEADER_LINES_MAX`] header lines.
    TooManyHeaders,
}

/// Framing lost, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// What is wrong.
    pub kind: FrameErrorKind,
    /// Offset in the buffer.
    pub at: u32,
}

impl FrameError {
    const fn new(kind: FrameErrorKind, at: usize) -> Self {
        // Buffers are bounded far below 4 GiB by the limits of this module.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "offsets stay below the frame limit"
        )]
        Self {
            kind,
            at: at as u32,
        }
    }

    /// The status to answer before closing; [`peek_request`] finds whom. `None`: close silently.
    #[must_use]
    pub const fn answer(self) -> Option<u16> {
        match self.kind {
            FrameErrorKind::BodyTooLong => Some(413),
            FrameErrorKind::BareCr
            | FrameErrorKind::BareLf
            | FrameErrorKind::EndLine
            | FrameErrorKind::HeaderTooLong
            | FrameErrorKind::NotMsrp
            | FrameErrorKind::Path
            | FrameErrorKind::StartLine
            | FrameErrorKind::Tid
            | FrameErrorKind::TooManyHeaders => None,
        }
    }
}

/// Result of looking at a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The frame's end has not arrived yet.
    Incomplete,
    /// The first frame, `len` octets of the buffer.
    Frame {
        /// Its content.
        frame: Frame<'a>,
        /// Octets to consume.
        len: usize,
    },
}

/// Reads the first frame of `buffer`.
///
/// `already_scanned` is the length of the buffer when the last call for this same frame returned
/// [`Parsed::Incomplete`], else 0; it spares octets from being searched twice and never changes the
/// verdict. The buffer never needs more than the header limit plus the body limit plus 64 octets.
///
/// # Errors
/// [`FrameError`]: framing is lost.
pub fn parse(buffer: &[u8], already_scanned: usize) -> Result<Parsed<'_>, FrameError> {
    parse_within(buffer, already_scanned, MSRP_INBOUND_BYTES_MAX)
}

/// As [`parse`], for a connection whose bodies may have up to `body_max` octets.
///
/// # Errors
/// [`FrameError`]: framing is lost.
pub fn parse_within(
    buffer: &[u8],
    already_scanned: usize,
    body_max: usize,
) -> Result<Parsed<'_>, FrameError> {
    const MAGIC: &[u8; 5] = b"MSRP ";
    let known = MAGIC.len().min(buffer.len());
    if buffer[..known] != MAGIC[..known] {
        return Err(FrameError::new(FrameErrorKind::NotMsrp, 0));
    }
    let scanned = already_scanned.min(buffer.len());
    // Within the header section only a line end can change the verdict, and so it is in a body.
    if scanned > 0
        && buffer.len() < MSRP_HEADER_BYTES_MAX
        && memchr2(b'\r', b'\n', &buffer[scanned - 1..]).is_none()
    {
        return Ok(Parsed::Incomplete);
    }
    let Some((mut frame, end)) = read_head(buffer)? else {
        return Ok(Parsed::Incomplete);
    };
    match end {
        HeadEnd::EndLine { len } => Ok(Parsed::Frame { frame, len }),
        HeadEnd::Body { start } => {
            let Some(tail) = find_tail(buffer, (start, body_max), frame.tid, scanned)? else {
                return Ok(Parsed::Incomplete);
            };
            frame.body = Some(&buffer[start..tail.body_end]);
            frame.continuation = tail.continuation;
            Ok(Parsed::Frame {
                frame,
                len: tail.len,
            })
        }
    }
}

/// The head of the request at the start of `buffer`, for the answer that precedes a close.
///
/// The body is left out; `None` when the head is incomplete, malformed or not a request's.
#[must_use]
pub fn peek_request(buffer: &[u8]) -> Option<Frame<'_>> {
    match read_head(buffer) {
        Ok(Some((frame, _))) if !matches!(frame.start, Start::Response(_)) => Some(frame),
        Ok(_) | Err(_) => None,
    }
}

enum HeadEnd {
    /// The frame ended without a body after `len` octets.
    EndLine { len: usize },
    /// The body starts here.
    Body { start: usize },
}

fn read_head(buffer: &[u8]) -> Result<Option<(Frame<'_>, HeadEnd)>, FrameError> {
    let Some(end) = line_end(buffer, 0)? else {
        return Ok(None);
    };
    let mut frame = read_start_line(&buffer[..end])?;
    let mut at = end + 2;
    let mut lines = 0;
    let head_end = loop {
        // The end-line first: most frames have no body, and this spares a search near the end.
        if buffer.get(at) == Some(&b'-')
            && let Some(rest) = buffer[at..].strip_prefix(DASHES)
            && at + TAIL_BYTES_MAX <= MSRP_HEADER_BYTES_MAX
            && let TailMatch::Full(continuation) = match_tail(rest, frame.tid)
        {
            frame.continuation = continuation;
            let len = at + DASHES.len() + frame.tid.len() + 3;
            break HeadEnd::EndLine { len };
        }
        if lines < HEADER_LINES_MAX
            && let Some(next) = quick_path(&mut frame, buffer, at)
        {
            lines += 1;
            at = next;
            continue;
        }
        let Some(end) = line_end(buffer, at)? else {
            return Ok(None);
        };
        let line = &buffer[at..end];
        match line.first() {
            None => break HeadEnd::Body { start: end + 2 },
            Some(b'-') if line.starts_with(DASHES) => {
                frame.continuation = end_line_flag(line, frame.tid)
                    .ok_or_else(|| FrameError::new(FrameErrorKind::EndLine, at))?;
                break HeadEnd::EndLine { len: end + 2 };
            }
            Some(_) => read_header(&mut frame, line),
        }
        lines += 1;
        if lines > HEADER_LINES_MAX {
            return Err(FrameError::new(FrameErrorKind::TooManyHeaders, at));
        }
        at = end + 2;
    };
    if frame.to_path.is_empty() || frame.from_path.is_empty() {
        return Err(FrameError::new(FrameErrorKind::Path, at));
    }
    if frame.message_id.is_none() && matches!(frame.start, Start::Send | Start::Report) {
        frame.fault.get_or_insert(Fault::MessageId);
    }
    Ok(Some((frame, head_end)))
}

/// Takes the line at `at` if it is a path of one URI in the usual spelling: the longest lines of every
/// frame, whose end and single URI one look finds. Returns where the next line starts.
#[inline]
fn quick_path<'a>(frame: &mut Frame<'a>, buffer: &'a [u8], at: usize) -> Option<usize> {
    let window = &buffer[..buffer.len().min(MSRP_HEADER_BYTES_MAX)];
    let line = window.get(at..)?;
    let (slot, value) = if let Some(value) = line.strip_prefix(b"To-Path: ") {
        (&mut frame.to_path, value)
    } else if let Some(value) = line.strip_prefix(b"From-Path: ") {
        (&mut frame.from_path, value)
    } else {
        return None;
    };
    let len = octets::find_blank(value);
    if len == 0 || !slot.is_empty() || value.get(len..len + 2)? != b"\r\n" {
        return None;
    }
    *slot = &value[..len];
    Some(at + (line.len() - value.len()) + len + 2)
}

/// Offset of the CR of the CRLF that ends the line starting at `from`; `None` when not there yet.
fn line_end(buffer: &[u8], from: usize) -> Result<Option<usize>, FrameError> {
    let window = buffer.len().min(MSRP_HEADER_BYTES_MAX);
    let found = match buffer.get(from..window) {
        Some(line) => line_feed(line),
        None => None,
    };
    let Some(offset) = found else {
        return match buffer.len() < MSRP_HEADER_BYTES_MAX {
            true => Ok(None),
            false => Err(FrameError::new(FrameErrorKind::HeaderTooLong, window)),
        };
    };
    let at = from + offset;
    if at + 1 >= MSRP_HEADER_BYTES_MAX {
        return Err(FrameError::new(FrameErrorKind::HeaderTooLong, at));
    }
    if buffer[at] == b'\n' {
        return Err(FrameError::new(FrameErrorKind::BareLf, at));
    }
    match buffer.get(at + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(at)),
        Some(_) => Err(FrameError::new(FrameErrorKind::BareCr, at)),
    }
}

/// Offset of the first CR or LF. Most lines are short, and those that are not are searched faster.
#[inline]
fn line_feed(line: &[u8]) -> Option<usize> {
    const NEAR: usize = 64;
    let near = &line[..line.len().min(NEAR)];
    let mut at = 0;
    while at < near.len() {
        at += octets::find_control(&near[at..]).at;
        match near.get(at) {
            Some(b'\r' | b'\n') => return Some(at),
            Some(_) => at += 1,
            None => break,
        }
    }
    memchr2(b'\r', b'\n', &line[near.len()..]).map(|far| near.len() + far)
}

/// Reads `MSRP tid METHOD` or `MSRP tid code [comment]`; the first five octets are known.
fn read_start_line(line: &[u8]) -> Result<Frame<'_>, FrameError> {
    let rest = line
        .get(5..)
        .ok_or_else(|| FrameError::new(FrameErrorKind::StartLine, 0))?;
    // No ident holds a space: it ends at the first one, if it is an ident at all.
    let near = &rest[..rest.len().min(TID_BYTES_MAX + 1)];
    let tid_len = octets::find(near, b' ').unwrap_or(0);
    let is_ident = |text: &[u8]| {
        text.iter()
            .fold(true, |all, &c| all & IDENT[usize::from(c)])
    };
    if tid_len < TID_BYTES_MIN || !rest[0].is_ascii_alphanumeric() || !is_ident(&rest[..tid_len]) {
        return Err(FrameError::new(FrameErrorKind::Tid, 5));
    }
    let (tid, what) = (&rest[..tid_len], &rest[tid_len + 1..]);
    let start = read_start(what)
        .ok_or_else(|| FrameError::new(FrameErrorKind::StartLine, 5 + tid_len + 1))?;
    Ok(Frame {
        tid,
        start,
        to_path: b"",
        from_path: b"",
        message_id: None,
        byte_range: None,
        success_report: false,
        failure_report: FailureReport::Yes,
        status: None,
        content_type: None,
        body: None,
        continuation: Continuation::Complete,
        fault: None,
    })
}

fn read_start(what: &[u8]) -> Option<Start<'_>> {
    match what {
        b"SEND" => Some(Start::Send),
        b"REPORT" => Some(Start::Report),
        [b'0'..=b'9', ..] => match what {
            [a, b, c] | [a, b, c, b' ', ..] => three_digits(*a, *b, *c).map(Start::Response),
            [..] => None,
        },
        [] => None,
        [..] if what
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')) =>
        {
            Some(Start::Other(what))
        }
        [..] => None,
    }
}

/// Reads one header line into `frame`; trouble becomes the frame's fault.
fn read_header<'a>(frame: &mut Frame<'a>, line: &'a [u8]) {
    let known = match line[0] | 0x20 {
        b't' => value_of(line, b"To-Path").map(|value| set_path(&mut frame.to_path, value)),
        b'f' => match value_of(line, b"From-Path") {
            Some(value) => Some(set_path(&mut frame.from_path, value)),
            None => value_of(line, b"Failure-Report").map(|value| {
                frame.failure_report = failure_report(value);
                None
            }),
        },
        b'm' => value_of(line, b"Message-ID").map(|value| set_once(&mut frame.message_id, value)),
        b'b' => value_of(line, b"Byte-Range").map(|value| match byte_range(value) {
            Some(range) => set_once(&mut frame.byte_range, range),
            None => Some(Fault::ByteRange),
        }),
        b's' => match value_of(line, b"Success-Report") {
            Some(value) => {
                frame.success_report = value.eq_ignore_ascii_case(b"yes");
                Some(None)
            }
            None => value_of(line, b"Status").map(|value| match status(value) {
                Some(status) => set_once(&mut frame.status, status),
                None => Some(Fault::Status),
            }),
        },
        b'c' => {
            value_of(line, b"Content-Type").map(|value| set_once(&mut frame.content_type, value))
        }
        _ => None,
    };
    let fault = match known {
        Some(fault) => fault,
        // Unknown: skipped, if it is a header at all.
        None => match octets::find(line, b':') {
            Some(1..) => None,
            Some(0) | None => Some(Fault::Header),
        },
    };
    if frame.fault.is_none() {
        frame.fault = fault;
    }
}

/// The value of `line` if it is header `name`, whose case does not count.
#[inline]
pub(super) fn value_of<'a, const N: usize>(line: &'a [u8], name: &[u8; N]) -> Option<&'a [u8]> {
    let (head, rest) = line.split_first_chunk::<N>()?;
    let value = rest.strip_prefix(b":")?;
    // One blank in front of the value is what everybody writes.
    let value = value.strip_prefix(b" ").unwrap_or(value);
    (head == name || head.eq_ignore_ascii_case(name)).then(|| octets::trim(value))
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Option<Fault> {
    match slot {
        Some(_) => Some(Fault::Duplicate),
        None => {
            *slot = Some(value);
            None
        }
    }
}

fn set_path<'a>(slot: &mut &'a [u8], value: &'a [u8]) -> Option<Fault> {
    if !slot.is_empty() {
        return Some(Fault::Duplicate);
    }
    *slot = value;
    // The scan for more than one URI ends at the first octet for nearly every path.
    let one = uri::first_uri(value).len() == value.len();
    (!one && uri::uris(value).count() > MSRP_PATH_URIS_MAX).then_some(Fault::Path)
}

const fn failure_report(value: &[u8]) -> FailureReport {
    if value.eq_ignore_ascii_case(b"no") {
        FailureReport::No
    } else if value.eq_ignore_ascii_case(b"partial") {
        FailureReport::Partial
    } else {
        FailureReport::Yes
    }
}

pub(super) fn byte_range(value: &[u8]) -> Option<ByteRange> {
    let (start, rest) = number(value)?;
    let (end, rest) = number_or_star(rest.strip_prefix(b"-")?)?;
    let (total, rest) = number_or_star(rest.strip_prefix(b"/")?)?;
    let range = ByteRange { start, end, total };
    let empty = (start, end) == (1, Some(0));
    let sound = rest.is_empty()
        && start >= 1
        && (empty || end.is_none_or(|end| end >= start))
        && total.is_none_or(|total| {
            (start <= total || (start == 1 && total == 0)) && end.is_none_or(|end| end <= total)
        });
    sound.then_some(range)
}

fn number(value: &[u8]) -> Option<(u64, &[u8])> {
    let mut sum = 0u64;
    let mut len = 0;
    for &c in value {
        let digit = c.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        sum = sum.checked_mul(10)?.checked_add(u64::from(digit))?;
        len += 1;
    }
    (len > 0).then(|| (sum, &value[len..]))
}

fn number_or_star(value: &[u8]) -> Option<(Option<u64>, &[u8])> {
    match value.strip_prefix(b"*") {
        Some(rest) => Some((None, rest)),
        None => number(value).map(|(number, rest)| (Some(number), rest)),
    }
}

const fn status(value: &[u8]) -> Option<Status> {
    match value {
        [a, b, c, b' ', d, e, f] | [a, b, c, b' ', d, e, f, b' ', ..] => {
            match (three_digits(*a, *b, *c), three_digits(*d, *e, *f)) {
                (Some(namespace), Some(code)) => Some(Status { namespace, code }),
                (Some(_) | None, _) => None,
            }
        }
        [..] => None,
    }
}

const fn three_digits(a: u8, b: u8, c: u8) -> Option<u16> {
    if !a.is_ascii_digit() || !b.is_ascii_digit() || !c.is_ascii_digit() {
        return None;
    }
    Some((a - b'0') as u16 * 100 + (b - b'0') as u16 * 10 + (c - b'0') as u16)
}

/// The characters of `ident` (RFC 4975 section 9); the first is alphanumeric.
const IDENT: [bool; 256] = ident_table();

const fn ident_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut c = 0u8;
    while c < 128 {
        table[c as usize] =
            c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'+' | b'%' | b'=');
        c += 1;
    }
    table
}

/// The flag of `line` if it is the end-line of `tid`.
fn end_line_flag(line: &[u8], tid: &[u8]) -> Option<Continuation> {
    match line.strip_prefix(DASHES)?.strip_prefix(tid)? {
        [flag] => Continuation::from_byte(*flag),
        [..] => None,
    }
}

struct Tail {
    body_end: usize,
    continuation: Continuation,
    /// Octets of the whole frame.
    len: usize,
}

static LINE_OF_DASHES: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(b"\n-------"));

/// The first end-line at or after `start`, where the body starts (right after a CRLF).
///
/// Kept out of line: most frames have no body, and inlined it costs those 10 ns (measured).
#[inline(never)]
fn find_tail(
    buffer: &[u8],
    (start, body_max): (usize, usize),
    tid: &[u8],
    scanned: usize,
) -> Result<Option<Tail>, FrameError> {
    let too_long = FrameError::new(FrameErrorKind::BodyTooLong, start);
    // The LF of the blank line serves an empty body whose own CRLF was left out.
    let mut at = (start - 1).max(scanned.saturating_sub(TAIL_BYTES_MAX));
    while let Some(offset) = LINE_OF_DASHES.find(&buffer[at..]) {
        let line_feed = at + offset;
        let after = line_feed + 1 + DASHES.len();
        match match_tail(&buffer[after..], tid) {
            TailMatch::Partial => break,
            TailMatch::Full(continuation) => {
                let body_end = match line_feed.checked_sub(1) {
                    _ if line_feed < start => Some(start),
                    Some(cr) if cr >= start && buffer[cr] == b'\r' => Some(cr),
                    Some(_) | None => None,
                };
                if let Some(body_end) = body_end {
                    let len = after + tid.len() + 3;
                    let tail = Tail {
                        body_end,
                        continuation,
                        len,
                    };
                    let fits = body_end - start <= body_max;
                    return if fits { Ok(Some(tail)) } else { Err(too_long) };
                }
            }
            TailMatch::No => {}
        }
        at = line_feed + 1;
    }
    let longest = start + body_max + 2 + DASHES.len() + tid.len() + 3;
    if buffer.len() >= longest {
        Err(too_long)
    } else {
        Ok(None)
    }
}

enum TailMatch {
    Full(Continuation),
    No,
    /// The buffer ends before the verdict.
    Partial,
}

/// Compares `rest`, what follows the hyphens, with `tid`, a flag and CRLF.
fn match_tail(rest: &[u8], tid: &[u8]) -> TailMatch {
    let have = rest.len().min(tid.len());
    if rest[..have] != tid[..have] {
        return TailMatch::No;
    }
    match &rest[have..] {
        [] => TailMatch::Partial,
        [flag, end @ ..] => match (Continuation::from_byte(*flag), end) {
            (Some(_), [] | [b'\r']) => TailMatch::Partial,
            (Some(continuation), [b'\r', b'\n', ..]) => TailMatch::Full(continuation),
            (Some(_), [..]) | (None, _) => TailMatch::No,
        },
    }
}

#[cfg(test)]
mod tests;
