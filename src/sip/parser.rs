//! From bytes to [`Message`]: line structure, mandatory headers, and the checks without which a
//! message must not be acted on (RFC 3261 sections 7, 8.1.1, 18.3, 25; RFC 4475). Layer 1.
//!
//! One pass over the header section finds line ends, colons and every stray CR, LF and NUL (`quick`;
//! what it does not take, folded lines above all, is read line by line here); each name is
//! recognised by a perfect hash. Header values that are not needed to route or match a message stay
//! unread until asked for: of a response that is also From, which only repeats ours.
//!
//! A head like one that was read before is not read again (`familiar`).
//!
//! Lenient where the field is: white space before the first header and before colons (folded too),
//! trailing blanks on the start line, blank lines before it, a datagram that ends after a complete
//! header line, RFC 2543 messages without tags and branches, UTF-8 in unquoted display names.
//! Strict about all that could make two readers disagree: line ends, lengths, repeated headers.

mod familiar;
mod quick;

pub use familiar::Familiar;

use crate::base::limits::{
    SIP_HEADER_SECTION_BYTES_MAX, SIP_LINE_BYTES_MAX, SIP_MESSAGE_BYTES_MAX,
};
use crate::sip::header::{AddrSpans, HeaderName, ViaSpans, parse_cseq, parse_seconds};
use crate::sip::message::{HeaderTable, Message, Method};
use crate::sip::scan::{
    LWS, WORD, decimal_u32, end_of_quoted, find_near, is, is_token, long_all, run_len, span,
};
use crate::sip::uri;

/// Why bytes are not a usable SIP message. `at` is an offset into what was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// Where, in octets from the start of the parsed bytes.
    pub at: u32,
}

/// The defects that are told apart, for counters and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseErrorKind {
    /// A header's value breaks its grammar or range.
    Bad(HeaderName),
    /// Bare CR, bare LF or NUL in the header section.
    BadLineEnd,
    /// A line without a colon, with an empty name, or whose name is no token.
    BadHeaderLine,
    /// The Request-URI breaks the grammar.
    BadRequestUri,
    /// Neither a request line nor a status line.
    BadStartLine,
    /// A status code outside 100 to 699.
    BadStatus,
    /// Octets that are not UTF-8, or UTF-8 where only ASCII may stand.
    BadText,
    /// A URI breaks the grammar.
    BadUri,
    /// A SIP version other than 2.0.
    BadVersion,
    /// A Contact of `*` where an address is needed.
    ContactStar,
    /// The method of CSeq is not that of the request line.
    CSeqMethod,
    /// A header that may stand once stands twice (or twice with different values).
    Duplicate(HeaderName),
    /// A mandatory header is absent.
    Missing(HeaderName),
    /// The message ends inside the header section, or before Content-Length octets of body.
    Truncated,
    /// Header section, line or message too long, or too many headers.
    TooLarge,
    /// Unknown method, and CSeq names another one.
    UnknownMethod,
}

/// An answer to a request that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Status code.
    pub status: u16,
    /// Reason phrase; names the header at fault.
    pub reason: &'static str,
}

impl ParseError {
    pub(crate) fn new(kind: ParseErrorKind, at: usize) -> Self {
        Self {
            kind,
            at: u32::try_from(at).unwrap_or(u32::MAX),
        }
    }

    /// The answer if the message was a request that [`salvage`] can route; `None`: drop it.
    ///
    /// An ACK is never answered, whatever this says.
    #[must_use]
    pub const fn reject(&self) -> Option<Reject> {
        let (status, reason) = match self.kind {
            ParseErrorKind::Bad(name) => (400, bad_reason(name)),
            ParseErrorKind::Missing(name) => (400, missing_reason(name)),
            ParseErrorKind::Duplicate(name) => (400, duplicate_reason(name)),
            ParseErrorKind::BadLineEnd => (400, "Bad Line End"),
            ParseErrorKind::BadHeaderLine => (400, "Bad Header Line"),
            ParseErrorKind::BadRequestUri => (400, "Bad Request-URI"),
            ParseErrorKind::BadStartLine => (400, "Bad Request Line"),
            ParseErrorKind::BadText => (400, "Bad Character"),
            ParseErrorKind::BadUri => (400, "Bad URI"),
            ParseErrorKind::BadVersion => (505, "Version Not Supported"),
            ParseErrorKind::ContactStar => (400, "Bad Contact"),
            ParseErrorKind::CSeqMethod => (400, "CSeq Method Mismatch"),
            ParseErrorKind::Truncated => (400, "Message Cut Short"),
            ParseErrorKind::TooLarge => (513, "Message Too Large"),
            ParseErrorKind::UnknownMethod => (501, "Not Implemented"),
            ParseErrorKind::BadStatus => return None,
        };
        Some(Reject { status, reason })
    }

    /// `true` when a stream's next message boundary cannot be trusted after this: close it.
    #[must_use]
    pub const fn breaks_framing(&self) -> bool {
        matches!(
            self.kind,
            ParseErrorKind::BadLineEnd
                | ParseErrorKind::BadStartLine
                | ParseErrorKind::BadHeaderLine
                | ParseErrorKind::TooLarge
                | ParseErrorKind::Truncated
                | ParseErrorKind::Bad(HeaderName::ContentLength)
                | ParseErrorKind::Duplicate(HeaderName::ContentLength)
                | ParseErrorKind::Missing(HeaderName::ContentLength)
        )
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only checked headers have a phrase"
)]
const fn bad_reason(name: HeaderName) -> &'static str {
    match name {
        HeaderName::CallId => "Bad Call-ID",
        HeaderName::Contact => "Bad Contact",
        HeaderName::ContentLength => "Bad Content-Length",
        HeaderName::CSeq => "Bad CSeq",
        HeaderName::Expires => "Bad Expires",
        HeaderName::From => "Bad From",
        HeaderName::MaxForwards => "Bad Max-Forwards",
        HeaderName::MinSe => "Bad Min-SE",
        HeaderName::SessionExpires => "Bad Session-Expires",
        HeaderName::To => "Bad To",
        HeaderName::Via => "Bad Via",
        _ => "Bad Header",
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only mandatory headers have a phrase"
)]
const fn missing_reason(name: HeaderName) -> &'static str {
    match name {
        HeaderName::CallId => "Missing Call-ID",
        HeaderName::ContentLength => "Missing Content-Length",
        HeaderName::CSeq => "Missing CSeq",
        HeaderName::From => "Missing From",
        HeaderName::To => "Missing To",
        HeaderName::Via => "Missing Via",
        _ => "Missing Header",
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only singletons have a phrase"
)]
const fn duplicate_reason(name: HeaderName) -> &'static str {
    match name {
        HeaderName::CallId => "Multiple Call-ID",
        HeaderName::ContentLength => "Conflicting Content-Length",
        HeaderName::CSeq => "Multiple CSeq",
        HeaderName::From => "Multiple From",
        HeaderName::MaxForwards => "Multiple Max-Forwards",
        HeaderName::To => "Multiple To",
        _ => "Multiple Header",
    }
}

type Checked<T> = Result<T, ParseError>;

#[cold]
fn fail<T>(kind: ParseErrorKind, at: usize) -> Checked<T> {
    Err(ParseError::new(kind, at))
}

/// Reads one message: a datagram, or exactly one frame of a stream.
///
/// Octets after the body (Content-Length shorter than the datagram) are ignored. Without
/// Content-Length the body reaches to the end; a stream needs the header, which
/// [`framing`](crate::sip::framing) enforces.
///
/// # Errors
/// The message must not be acted on; [`ParseError::reject`] and [`salvage`] say what to answer.
pub fn parse<'a>(bytes: &'a [u8], table: &'a mut HeaderTable) -> Checked<Message<'a>> {
    if bytes.len() > SIP_MESSAGE_BYTES_MAX {
        return fail(ParseErrorKind::TooLarge, SIP_MESSAGE_BYTES_MAX);
    }
    table.reset();
    if !quick::head(bytes, table) {
        careful_head(bytes, table)?;
    }
    complete(bytes, table)
}

/// Finds the message that a stream's buffer starts with and notes its lines; returns its octets.
/// What is noted is for [`complete`], with just these octets.
///
/// `None` says nothing about the buffer: a message that is unusual or not whole is for
/// [`frame`](crate::sip::framing::frame) and [`parse`], which give the same answer where this gives
/// one.
pub fn outline(buffer: &[u8], table: &mut HeaderTable) -> Option<usize> {
    table.reset();
    if !quick::head(buffer, table) {
        return None;
    }
    let entry = table.first(HeaderName::ContentLength)?;
    let (start, end) = entry.value();
    let body = decimal_u32(&buffer[start..end])?;
    let len = table.headers_end + body as usize;
    let whole = len <= buffer.len() && len <= SIP_MESSAGE_BYTES_MAX;
    (whole && table.after(entry).is_none()).then_some(len)
}

/// Reads the message whose lines `table` holds, noted by [`outline`] from the same octets.
///
/// # Errors
/// As [`parse`].
pub fn complete<'a>(bytes: &'a [u8], table: &'a mut HeaderTable) -> Checked<Message<'a>> {
    body(bytes, table)?;
    mandatory(bytes, table)?;
    if table.start.status == 0 {
        request_checks(bytes, table)?;
    }
    Ok(Message::new(bytes, table))
}

/// The message that a [`Familiar`] filled `table` for.
#[must_use]
pub const fn recalled<'a>(bytes: &'a [u8], table: &'a HeaderTable) -> Message<'a> {
    Message::new(bytes, table)
}

/// Start line and header section of a message that is not ordinary.
#[cold]
fn careful_head(bytes: &[u8], table: &mut HeaderTable) -> Checked<()> {
    table.reset();
    let begin = skip_blank_lines(bytes);
    let first = start_line(bytes, begin, table)?;
    header_section(bytes, begin, first, table)?;
    if !bytes[first..table.headers_end].is_ascii() {
        check_text(bytes, table)?;
    }
    if !bytes[begin..first].is_ascii() {
        check_start_text(bytes, begin, table)?;
    }
    Ok(())
}

/// RFC 3261 section 7.5: empty lines before the start line are ignored.
fn skip_blank_lines(bytes: &[u8]) -> usize {
    let mut at = 0;
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    at
}

/// Reads the start line; returns the offset after its line end.
fn start_line(bytes: &[u8], begin: usize, table: &mut HeaderTable) -> Checked<usize> {
    let rest = &bytes[begin..];
    let Some(len) = line_len(rest) else {
        return fail(ParseErrorKind::Truncated, bytes.len());
    };
    if len > SIP_LINE_BYTES_MAX {
        return fail(ParseErrorKind::TooLarge, begin + len);
    }
    let end = begin + len;
    let line = &rest[..len];
    // The version first: an HTTP request or noise is not worth a finer diagnosis.
    if line.starts_with(b"SIP/")
        || line
            .get(..4)
            .is_some_and(|p| p.eq_ignore_ascii_case(b"SIP/"))
    {
        status_line(bytes, begin, end, table)?;
    } else {
        request_line(bytes, begin, end, table)?;
    }
    if !rest[len..].starts_with(b"\r\n") {
        return fail(ParseErrorKind::BadLineEnd, end);
    }
    Ok(end + 2)
}

/// Octets before the first CR, LF or NUL.
#[inline]
fn line_len(rest: &[u8]) -> Option<usize> {
    if let Some(feed) = find_near(rest, b'\n')
        && let Some((b'\r', line)) = rest[..feed].split_last()
        && !line
            .iter()
            .fold(false, |odd, byte| odd | (*byte == b'\r') | (*byte == 0))
    {
        return Some(line.len());
    }
    memchr::memchr3(b'\r', b'\n', 0, rest)
}

fn status_line(bytes: &[u8], begin: usize, end: usize, table: &mut HeaderTable) -> Checked<()> {
    let line = &bytes[begin..end];
    let mut space = 7;
    if !line.starts_with(b"SIP/2.0 ") {
        space = memchr::memchr(b' ', line).unwrap_or(line.len());
        if !line[..space].eq_ignore_ascii_case(b"SIP/2.0") {
            return fail(version_error(&line[..space]), begin);
        }
    }
    let digits = &line[(space + 1).min(line.len())..];
    let (Some(&[a, b, c]), follow) = (digits.first_chunk::<3>(), digits.get(3).copied()) else {
        return fail(ParseErrorKind::BadStatus, begin + space);
    };
    let all_digits = [a, b, c].iter().all(u8::is_ascii_digit);
    let status = u16::from(a.wrapping_sub(b'0')) * 100
        + u16::from(b.wrapping_sub(b'0')) * 10
        + u16::from(c.wrapping_sub(b'0'));
    if !all_digits || !(100..=699).contains(&status) || follow.is_some_and(|byte| byte != b' ') {
        return fail(ParseErrorKind::BadStatus, begin + space);
    }
    table.start.status = status;
    table.start.text = span((begin + space + 5).min(end), end);
    Ok(())
}

fn request_line(bytes: &[u8], begin: usize, end: usize, table: &mut HeaderTable) -> Checked<()> {
    let line = &bytes[begin..end];
    let Some(method) = memchr::memchr(b' ', line).filter(|len| is_token(&line[..*len])) else {
        return fail(ParseErrorKind::BadStartLine, begin);
    };
    table.start.text = span(begin, begin + method);
    table.method = Method::lookup(&line[..method]);
    let start = method + 1;
    let Some(len) = memchr::memchr(b' ', &line[start..]) else {
        return fail(ParseErrorKind::BadStartLine, begin + start);
    };
    let version = line[start + len + 1..].trim_ascii_end();
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        return fail(version_error(version), begin + start + len);
    }
    if len == 0 {
        return fail(ParseErrorKind::BadStartLine, begin + start);
    }
    table.start.uri = span(begin + start, begin + start + len);
    Ok(())
}

/// `SIP/<digits>.<digits>` is another version; anything else is not SIP.
fn version_error(text: &[u8]) -> ParseErrorKind {
    let numbers = text
        .get(..4)
        .filter(|p| p.eq_ignore_ascii_case(b"SIP/"))
        .map(|_| &text[4..]);
    let fine = numbers.is_some_and(|numbers| {
        numbers.first().is_some_and(u8::is_ascii_digit)
            && numbers
                .iter()
                .all(|byte| byte.is_ascii_digit() || *byte == b'.')
    });
    if fine {
        ParseErrorKind::BadVersion
    } else {
        ParseErrorKind::BadStartLine
    }
}

/// Reads all header lines from `first` to the empty line and notes where the body starts.
fn header_section(
    bytes: &[u8],
    begin: usize,
    first: usize,
    table: &mut HeaderTable,
) -> Checked<()> {
    let mut at = first;
    loop {
        if bytes[at..].starts_with(b"\r\n") {
            table.headers_end = at + 2;
            return Ok(());
        }
        if at == bytes.len() && at > first {
            table.headers_end = at;
            return Ok(());
        }
        let (end, next) = logical_line(bytes, at)?;
        if next - begin > SIP_HEADER_SECTION_BYTES_MAX {
            return fail(ParseErrorKind::TooLarge, next);
        }
        header_line(bytes, at, end, table)?;
        at = next;
    }
}

/// Finds the end of the line that starts at `at`, folds included: (end of text, next line).
#[inline]
fn logical_line(bytes: &[u8], at: usize) -> Checked<(usize, usize)> {
    let mut from = at;
    let mut nul = false;
    loop {
        let Some(step) = memchr::memchr3(b'\r', b'\n', 0, &bytes[from..]) else {
            return fail(ParseErrorKind::Truncated, bytes.len());
        };
        let hit = from + step;
        if hit - at > SIP_LINE_BYTES_MAX {
            return fail(ParseErrorKind::TooLarge, hit);
        }
        if bytes[hit] == b'\r' && bytes.get(hit + 1) == Some(&b'\n') {
            match bytes.get(hit + 2) {
                Some(b' ' | b'\t') => from = hit + 3,
                _ if nul => return nul_line(bytes, at, hit),
                _ => return Ok((hit, hit + 2)),
            }
        } else if bytes[hit] == 0 {
            nul = true;
            from = hit + 1;
        } else {
            return fail(ParseErrorKind::BadLineEnd, hit);
        }
    }
}

/// NUL may stand only behind a backslash in a quoted string (RFC 3261 section 25.1).
#[cold]
fn nul_line(bytes: &[u8], at: usize, end: usize) -> Checked<(usize, usize)> {
    let line = &bytes[at..end];
    let mut pos = 0;
    while let Some(step) = memchr::memchr2(b'"', 0, &line[pos..]) {
        let hit = pos + step;
        let close = if line[hit] == b'"' {
            end_of_quoted(line, hit)
        } else {
            None
        };
        let Some(close) = close else {
            return fail(ParseErrorKind::BadLineEnd, at + hit);
        };
        let inner = &line[hit..close];
        let bare = memchr::memchr_iter(0, inner).any(|nul| !is_escaped(inner, nul));
        if bare {
            return fail(ParseErrorKind::BadLineEnd, at + hit);
        }
        pos = close;
    }
    Ok((end, end + 2))
}

fn is_escaped(quoted: &[u8], at: usize) -> bool {
    let slashes = quoted[..at]
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count();
    slashes % 2 == 1
}

/// Notes one header line: name, trimmed value.
#[inline]
fn header_line(bytes: &[u8], at: usize, end: usize, table: &mut HeaderTable) -> Checked<()> {
    // Only before the first header: elsewhere white space continues the line before.
    let start = at + run_len(&bytes[at..end], LWS);
    let Some(colon) = colon(&bytes[start..end]).map(|len| start + len) else {
        return fail(ParseErrorKind::BadHeaderLine, at);
    };
    let text = trim_end(&bytes[start..colon]);
    let name = HeaderName::lookup(text);
    if name == HeaderName::Other && !is_token(text) {
        return fail(ParseErrorKind::BadHeaderLine, at);
    }
    let value = colon + 1 + run_len(&bytes[colon + 1..end], LWS);
    let value_end = value + trim_end(&bytes[value..end]).len();
    if table.push(name, start, text.len(), value..value_end) {
        Ok(())
    } else {
        fail(ParseErrorKind::TooLarge, at)
    }
}

/// The first colon. Names are short: eight octets at a step beat a call of the vectorised search.
#[inline]
fn colon(line: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(part) = line.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        // A zero octet marks a colon; the lowest mark is exact.
        let word = u64::from_le_bytes(*part) ^ (ONES * b':' as u64);
        let marks = word.wrapping_sub(ONES) & !word & HIGH;
        if marks != 0 {
            return Some(at + (marks.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let rest = line.get(at..)?;
    rest.iter()
        .position(|byte| *byte == b':')
        .map(|step| at + step)
}

#[inline]
fn trim_end(bytes: &[u8]) -> &[u8] {
    let kept = bytes.iter().rposition(|byte| !is(*byte, LWS));
    &bytes[..kept.map_or(0, |last| last + 1)]
}

/// Content-Length (every copy must agree) and the body it cuts.
fn body(bytes: &[u8], table: &mut HeaderTable) -> Checked<()> {
    const NAME: HeaderName = HeaderName::ContentLength;
    let start = table.headers_end;
    let available = bytes.len() - start;
    let mut length = available;
    if let Some(first) = table.first(NAME) {
        let (at, end) = first.value();
        let Some(announced) = decimal_u32(&bytes[at..end]) else {
            return fail(ParseErrorKind::Bad(NAME), at);
        };
        let mut entry = table.after(first);
        while let Some(other) = entry {
            let (at, end) = other.value();
            if decimal_u32(&bytes[at..end]) != Some(announced) {
                return fail(ParseErrorKind::Duplicate(NAME), at);
            }
            entry = table.after(other);
        }
        length = announced as usize;
        if length > available {
            return fail(ParseErrorKind::Truncated, bytes.len());
        }
    }
    table.body = span(start, start + length);
    Ok(())
}

/// A header that must stand exactly once: its value's range.
#[inline]
fn single(table: &HeaderTable, name: HeaderName) -> Checked<(usize, usize)> {
    let Some(entry) = table.first(name) else {
        return fail(ParseErrorKind::Missing(name), table.headers_end);
    };
    match table.after(entry) {
        None => Ok(entry.value()),
        Some(other) => fail(ParseErrorKind::Duplicate(name), other.value().0),
    }
}

/// RFC 3261 section 8.1.1: the headers of every message, read into the table's facts.
fn mandatory(bytes: &[u8], table: &mut HeaderTable) -> Checked<()> {
    let Some(via) = table.first(HeaderName::Via).map(|entry| entry.value()) else {
        return fail(ParseErrorKind::Missing(HeaderName::Via), table.headers_end);
    };
    let (from, from_end) = single(table, HeaderName::From)?;
    let (to, to_end) = single(table, HeaderName::To)?;
    let (call_id, call_id_end) = single(table, HeaderName::CallId)?;
    let (cseq, cseq_end) = single(table, HeaderName::CSeq)?;
    if table.start.status == 0 {
        table.facts.via = Some(ViaSpans::parse(bytes, via.0, via.1)?);
        table.facts.from = Some(address(bytes, from, from_end, HeaderName::From)?);
        if !long_all::<WORD>(&bytes[call_id..call_id_end]) {
            return fail(ParseErrorKind::Bad(HeaderName::CallId), call_id);
        }
    } else {
        // These repeat what we wrote; the owner compares branch and Call-ID with what it knows.
        table.facts.via = Some(ViaSpans::parse_echo(bytes, via.0, via.1)?);
        if from == from_end {
            return fail(ParseErrorKind::Bad(HeaderName::From), from);
        }
        if call_id == call_id_end {
            return fail(ParseErrorKind::Bad(HeaderName::CallId), call_id);
        }
    }
    table.facts.to = Some(address(bytes, to, to_end, HeaderName::To)?);
    let Some(spans) = parse_cseq(bytes, cseq, cseq_end) else {
        return fail(ParseErrorKind::Bad(HeaderName::CSeq), cseq);
    };
    if table.start.status != 0 {
        table.method = spans.method;
    } else if spans.method_span.slice(bytes) != table.start.text.slice(bytes) {
        let kind = if table.method == Method::Unknown {
            ParseErrorKind::UnknownMethod
        } else {
            ParseErrorKind::CSeqMethod
        };
        return fail(kind, cseq);
    }
    table.facts.cseq = Some(spans);
    Ok(())
}

/// From and To hold one address, never a list.
fn address(bytes: &[u8], start: usize, end: usize, name: HeaderName) -> Checked<AddrSpans> {
    let spans = AddrSpans::parse(bytes, start, end, name)?;
    if spans.end() == end {
        Ok(spans)
    } else {
        fail(ParseErrorKind::Bad(name), spans.end())
    }
}

/// What only requests carry: a sound Request-URI, Max-Forwards and Expires within range.
fn request_checks(bytes: &[u8], table: &HeaderTable) -> Checked<()> {
    let uri = table.start.uri;
    let request_uri = uri.slice(bytes);
    match uri::parse(request_uri) {
        // RFC 3261 section 19.1.1: headers are not allowed in a Request-URI.
        Ok(parsed) if parsed.headers.is_empty() => {}
        Ok(_) => return fail(ParseErrorKind::BadRequestUri, uri.start as usize),
        Err(error) => {
            return fail(
                ParseErrorKind::BadRequestUri,
                uri.start as usize + error.at as usize,
            );
        }
    }
    if let Some(entry) = table.first(HeaderName::MaxForwards) {
        let (start, end) = entry.value();
        if decimal_u32(&bytes[start..end]).is_none_or(|hops| hops > 255) {
            return fail(ParseErrorKind::Bad(HeaderName::MaxForwards), start);
        }
        if table.after(entry).is_some() {
            return fail(ParseErrorKind::Duplicate(HeaderName::MaxForwards), start);
        }
    }
    if let Some(entry) = table.first(HeaderName::Expires) {
        let (start, end) = entry.value();
        if parse_seconds(&bytes[start..end]).is_none() {
            return fail(ParseErrorKind::Bad(HeaderName::Expires), start);
        }
    }
    Ok(())
}

/// Which octets above 127 a header may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    /// Anywhere in the value.
    Free,
    /// In the display name and in quoted strings.
    Address,
    /// In quoted strings.
    Quoted,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every header not named here is structured"
)]
const fn text_rule(name: HeaderName) -> Text {
    match name {
        HeaderName::Other
        | HeaderName::Organization
        | HeaderName::Server
        | HeaderName::Subject
        | HeaderName::UserAgent => Text::Free,
        HeaderName::Contact
        | HeaderName::From
        | HeaderName::HistoryInfo
        | HeaderName::PAssertedIdentity
        | HeaderName::PAssociatedUri
        | HeaderName::PCalledPartyId
        | HeaderName::PPreferredIdentity
        | HeaderName::PServedUser
        | HeaderName::Path
        | HeaderName::RecordRoute
        | HeaderName::ReferTo
        | HeaderName::ReferredBy
        | HeaderName::Route
        | HeaderName::ServiceRoute
        | HeaderName::To => Text::Address,
        _ => Text::Quoted,
    }
}

/// Octets above 127 must be UTF-8 and stand where the grammar has UTF-8 text (section 7.3.1, 25.1).
#[cold]
fn check_text(bytes: &[u8], table: &HeaderTable) -> Checked<()> {
    for entry in table.entries() {
        let (start, end) = entry.value();
        let value = &bytes[start..end];
        if value.is_ascii() {
            continue;
        }
        if core::str::from_utf8(value).is_err() || !text_allowed(value, text_rule(entry.name)) {
            return fail(ParseErrorKind::BadText, start);
        }
    }
    Ok(())
}

/// A reason phrase is UTF-8, all else in a start line ASCII.
#[cold]
fn check_start_text(bytes: &[u8], begin: usize, table: &HeaderTable) -> Checked<()> {
    let reason = table.start.text.slice(bytes);
    if table.start.status != 0 && core::str::from_utf8(reason).is_ok() {
        return Ok(());
    }
    fail(ParseErrorKind::BadText, begin)
}

fn text_allowed(value: &[u8], rule: Text) -> bool {
    let mut at = 0;
    let mut bracket = false;
    let mut display = rule == Text::Address;
    while at < value.len() {
        match value[at] {
            b'"' if !bracket => {
                let Some(close) = end_of_quoted(value, at) else {
                    return rule == Text::Free;
                };
                at = close;
                continue;
            }
            b'<' => {
                bracket = true;
                display = false;
            }
            b'>' => bracket = false,
            b',' if !bracket => display = rule == Text::Address,
            byte if byte >= 0x80 && rule != Text::Free && !display => return false,
            _ => {}
        }
        at += 1;
    }
    true
}

/// A best-effort view of a request that [`parse`] refused, to send the refusal back.
///
/// `Some` only for a request other than a response or noise, whose top Via is sound and which holds
/// From, To, Call-ID and CSeq at least once; of repeated ones the first counts. Lines that are not
/// header lines are skipped. Values may break their grammar ([`Message::from`] and its like then
/// fail) but hold no bare CR or LF, and NUL only as a quoted pair, so copying them into a response
/// is safe.
#[must_use]
pub fn salvage<'a>(bytes: &'a [u8], table: &'a mut HeaderTable) -> Option<Message<'a>> {
    table.reset();
    let bytes = &bytes[..bytes.len().min(SIP_MESSAGE_BYTES_MAX)];
    let begin = skip_blank_lines(bytes);
    let len = memchr::memchr(b'\n', &bytes[begin..])?;
    let line = bytes[begin..begin + len].trim_ascii_end();
    let method = memchr::memchr(b' ', line).filter(|len| is_token(&line[..*len]))?;
    memchr::memmem::find(line, b" SIP/")?;
    table.start.text = span(begin, begin + method);
    table.method = Method::lookup(&line[..method]);
    salvage_lines(bytes, begin + len + 1, table);
    let spans = |name| table.first(name).map(crate::sip::message::Entry::value);
    let (via, via_end) = spans(HeaderName::Via)?;
    let (from, from_end) = spans(HeaderName::From)?;
    let (to, to_end) = spans(HeaderName::To)?;
    let (cseq, cseq_end) = spans(HeaderName::CSeq)?;
    let (call_id, call_id_end) = spans(HeaderName::CallId)?;
    if [
        (from, from_end),
        (to, to_end),
        (cseq, cseq_end),
        (call_id, call_id_end),
    ]
    .iter()
    .any(|(start, end)| start == end)
    {
        return None;
    }
    table.facts.via = Some(ViaSpans::parse(bytes, via, via_end).ok()?);
    table.facts.from = address(bytes, from, from_end, HeaderName::From).ok();
    table.facts.to = address(bytes, to, to_end, HeaderName::To).ok();
    table.facts.cseq = parse_cseq(bytes, cseq, cseq_end);
    Some(Message::new(bytes, table))
}

/// Notes every sound header line, within the limits; stops at the empty line or the first limit.
fn salvage_lines(bytes: &[u8], first: usize, table: &mut HeaderTable) {
    let limit = bytes.len().min(first + SIP_HEADER_SECTION_BYTES_MAX);
    let mut at = first;
    while at < limit && !bytes[at..].starts_with(b"\r\n") {
        match logical_line(&bytes[..limit], at) {
            Ok((end, next)) => {
                let full = matches!(
                    header_line(bytes, at, end, table),
                    Err(ParseError {
                        kind: ParseErrorKind::TooLarge,
                        ..
                    })
                );
                if full {
                    break;
                }
                at = next;
            }
            Err(_) => {
                let Some(step) = memchr::memmem::find(&bytes[at..limit], b"\r\n") else {
                    break;
                };
                at += step + 2;
            }
        }
    }
    table.headers_end = at;
    table.body = span(at, at);
}

#[cfg(test)]
pub(crate) mod tests;
