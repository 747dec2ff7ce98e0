//! A parsed SIP message: a view over the bytes and a reusable table of spans. Layer 1.
//!
//! [`HeaderTable`] belongs to whoever parses and is used again for each message; a [`Message`]
//! borrows it together with the bytes and is copied freely. What a push needs of every message (top
//! Via, From, To, Call-ID, CSeq) was read while parsing; the rest is read when asked for. Nothing
//! here allocates and nothing outlives the turn in which the bytes arrived.

pub use crate::sip::header::{
    CSeq, HeaderName, NameAddr, Param, Parameterized, Params, Refresher, SessionExpires, Via,
};

use core::fmt;
use core::ops::Range;

use crate::base::limits::SIP_HEADERS_MAX;
use crate::base::span::Span;
use crate::base::time::UnixMillis;
use crate::sip::header::{
    AddrSpans, COUNT, CSeqSpans, ViaSpans, date, parse_seconds, parse_session_expires,
};
use crate::sip::parser::{ParseError, ParseErrorKind};
use crate::sip::scan::{LWS, before_either, decimal_u32, is, split_comma, trim};

/// A request method. Names are compared with case (RFC 3261 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `ACK`
    Ack,
    /// `BYE`
    Bye,
    /// `CANCEL`
    Cancel,
    /// `INFO`
    Info,
    /// `INVITE`
    Invite,
    /// `MESSAGE`
    Message,
    /// `NOTIFY`
    Notify,
    /// `OPTIONS`
    Options,
    /// `PRACK`
    Prack,
    /// `PUBLISH`
    Publish,
    /// `REFER`
    Refer,
    /// `REGISTER`
    Register,
    /// `SUBSCRIBE`
    Subscribe,
    /// `UPDATE`
    Update,
    /// Any other token.
    Unknown,
}

impl Method {
    /// The method a token names.
    #[must_use]
    pub fn lookup(token: &[u8]) -> Self {
        match token {
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"INFO" => Self::Info,
            b"INVITE" => Self::Invite,
            b"MESSAGE" => Self::Message,
            b"NOTIFY" => Self::Notify,
            b"OPTIONS" => Self::Options,
            b"PRACK" => Self::Prack,
            b"PUBLISH" => Self::Publish,
            b"REFER" => Self::Refer,
            b"REGISTER" => Self::Register,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UPDATE" => Self::Update,
            _ => Self::Unknown,
        }
    }

    /// The token; empty for [`Method::Unknown`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Info => "INFO",
            Self::Invite => "INVITE",
            Self::Message => "MESSAGE",
            Self::Notify => "NOTIFY",
            Self::Options => "OPTIONS",
            Self::Prack => "PRACK",
            Self::Publish => "PUBLISH",
            Self::Refer => "REFER",
            Self::Register => "REGISTER",
            Self::Subscribe => "SUBSCRIBE",
            Self::Update => "UPDATE",
            Self::Unknown => "",
        }
    }
}

/// No entry: the end of a chain.
pub(crate) const NONE: u16 = u16::MAX;

const _: () = assert!(
    SIP_HEADERS_MAX < NONE as usize,
    "an index never looks like the end"
);

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Where the line (its name) starts.
    line: u32,
    /// Where the trimmed value starts.
    value: u32,
    /// Where the trimmed value ends.
    end: u32,
    /// The next line of the same name.
    next: u16,
    name_len: u8,
    pub(crate) name: HeaderName,
}

impl Entry {
    /// Where the line, its name, starts.
    pub(crate) const fn line(&self) -> usize {
        self.line as usize
    }

    pub(crate) const fn value(&self) -> (usize, usize) {
        (self.value as usize, self.end as usize)
    }
}

/// What the start line says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StartLine {
    /// 0 for a request.
    pub(crate) status: u16,
    /// Method token of a request, reason phrase of a response.
    pub(crate) text: Span,
    /// Request-URI of a request.
    pub(crate) uri: Span,
}

/// The values every message must carry, read while parsing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) via: Option<ViaSpans>,
    pub(crate) from: Option<AddrSpans>,
    pub(crate) to: Option<AddrSpans>,
    pub(crate) cseq: Option<CSeqSpans>,
}

/// Where the parts of one message lie; used again for each message, allocates only in `new`.
pub struct HeaderTable {
    entries: Box<[Entry]>,
    count: u16,
    first: [u16; COUNT],
    last: [u16; COUNT],
    pub(crate) start: StartLine,
    pub(crate) method: Method,
    pub(crate) body: Span,
    /// First octet after the header section.
    pub(crate) headers_end: usize,
    /// No value holds a line end: no line is folded.
    pub(crate) unfolded: bool,
    pub(crate) facts: Facts,
}

impl fmt::Debug for HeaderTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderTable")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Default for HeaderTable {
    fn default() -> Self {
        Self::new()
    }
}

impl HeaderTable {
    /// An empty table with room for the most headers a message may have (4 KiB).
    #[must_use]
    pub fn new() -> Self {
        Self::with_room(SIP_HEADERS_MAX)
    }

    /// An empty table with room for `lines` header lines.
    pub(crate) fn with_room(lines: usize) -> Self {
        let blank = Entry {
            line: 0,
            value: 0,
            end: 0,
            next: NONE,
            name_len: 0,
            name: HeaderName::Other,
        };
        Self {
            entries: vec![blank; lines].into(),
            count: 0,
            first: [NONE; COUNT],
            last: [NONE; COUNT],
            start: StartLine::default(),
            method: Method::Unknown,
            body: Span::EMPTY,
            headers_end: 0,
            unfolded: false,
            facts: Facts::default(),
        }
    }

    /// Forgets the message before.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.count = 0;
        self.first.fill(NONE);
        self.start = StartLine::default();
        self.method = Method::Unknown;
        self.body = Span::EMPTY;
        self.headers_end = 0;
        self.unfolded = false;
        self.facts = Facts::default();
    }

    /// Says what `other` says; it has no more lines than there is room for.
    #[inline]
    pub(crate) fn copy_from(&mut self, other: &Self) {
        let lines = usize::from(other.count);
        self.entries[..lines].copy_from_slice(&other.entries[..lines]);
        self.count = other.count;
        self.first = other.first;
        self.last = other.last;
        self.start = other.start;
        self.method = other.method;
        self.body = other.body;
        self.headers_end = other.headers_end;
        self.unfolded = other.unfolded;
        self.facts = other.facts;
    }

    /// Adds a line that starts at `line`, with its trimmed value; `false` when the table is full.
    /// Offsets are below 2^32 by the size limit.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "messages are bounded by a named limit"
    )]
    #[inline]
    pub(crate) fn push(
        &mut self,
        name: HeaderName,
        line: usize,
        name_len: usize,
        value: Range<usize>,
    ) -> bool {
        let index = self.count;
        let Some(entry) = self.entries.get_mut(usize::from(index)) else {
            return false;
        };
        *entry = Entry {
            line: line as u32,
            value: value.start as u32,
            end: value.end as u32,
            next: NONE,
            name_len: name_len.min(255) as u8,
            name,
        };
        self.count = index + 1;
        let slot = name.index();
        if self.first[slot] == NONE {
            self.first[slot] = index;
        } else {
            self.entries[usize::from(self.last[slot])].next = index;
        }
        self.last[slot] = index;
        true
    }

    /// The first line of that name.
    #[inline]
    pub(crate) fn first(&self, name: HeaderName) -> Option<&Entry> {
        self.entries.get(usize::from(self.first[name.index()]))
    }

    /// The line of the same name after `entry`.
    #[inline]
    pub(crate) fn after(&self, entry: &Entry) -> Option<&Entry> {
        self.entries.get(usize::from(entry.next))
    }

    /// All lines, in order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries[..usize::from(self.count)]
    }
}

/// A message. Made by [`parse`](crate::sip::parser::parse) and by
/// [`salvage`](crate::sip::parser::salvage), which guarantees less.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    table: &'a HeaderTable,
}

impl<'a> Message<'a> {
    pub(crate) const fn new(bytes: &'a [u8], table: &'a HeaderTable) -> Self {
        Self { bytes, table }
    }

    /// Octets and table.
    pub(crate) const fn parts(&self) -> (&'a [u8], &'a HeaderTable) {
        (self.bytes, self.table)
    }

    /// `true` for a request, `false` for a response.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        self.table.start.status == 0
    }

    /// The method of a request; of a response the one its CSeq names.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.table.method
    }

    /// The token behind [`Message::method`].
    #[must_use]
    pub fn method_bytes(&self) -> &'a [u8] {
        if self.is_request() {
            self.table.start.text.slice(self.bytes)
        } else {
            let cseq = self.table.facts.cseq;
            cseq.map_or(&[], |cseq| cseq.method_span.slice(self.bytes))
        }
    }

    /// The Request-URI as written; empty for a response.
    #[must_use]
    pub fn request_uri(&self) -> &'a [u8] {
        self.table.start.uri.slice(self.bytes)
    }

    /// 100 to 699, or 0 for a request.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.table.start.status
    }

    /// The reason phrase of a response; may be empty; UTF-8.
    #[must_use]
    pub fn reason(&self) -> &'a [u8] {
        if self.is_request() {
            &[]
        } else {
            self.table.start.text.slice(self.bytes)
        }
    }

    /// Everything that was parsed, surplus octets of a datagram included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Octets before the body.
    #[must_use]
    pub(crate) const fn headers_len(&self) -> usize {
        self.table.headers_end
    }

    /// The body, cut to Content-Length; without that header all that follows the header section.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.table.body.slice(self.bytes)
    }

    /// The first value line of that name, trimmed; folds and commas may be inside.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&'a [u8]> {
        let (start, end) = self.table.first(name)?.value();
        Some(&self.bytes[start..end])
    }

    /// Every value line of that name, trimmed, in order.
    #[must_use]
    pub fn headers(&self, name: HeaderName) -> HeaderIter<'a> {
        HeaderIter {
            bytes: self.bytes,
            table: self.table,
            next: self.table.first(name),
        }
    }

    /// The ranges of [`Message::headers`] in [`Message::bytes`].
    pub(crate) fn spans(&self, name: HeaderName) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        self.entries(name).map(Entry::value)
    }

    /// Every line of that name, in order.
    pub(crate) fn entries(&self, name: HeaderName) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let table = self.table;
        core::iter::successors(table.first(name), |entry| table.after(entry))
    }

    /// `true` when it is known that no header line is folded.
    pub(crate) const fn is_unfolded(&self) -> bool {
        self.table.unfolded
    }

    /// `true` when the first Via line is one value; `false` may also mean that nobody looked.
    pub(crate) fn top_via_is_alone(&self) -> bool {
        self.table.facts.via.is_some_and(|via| via.is_alone())
    }

    /// The same as [`Message::headers`]: values to copy into a response line by line, unchanged.
    #[must_use]
    pub fn header_lines(&self, name: HeaderName) -> HeaderIter<'a> {
        self.headers(name)
    }

    /// The first line of a header this engine has no name for; `name` in any case.
    #[must_use]
    pub fn header_named(&self, name: &[u8]) -> Option<&'a [u8]> {
        let known = HeaderName::lookup(name);
        if known != HeaderName::Other {
            return self.header(known);
        }
        let mut entry = self.table.first(HeaderName::Other);
        while let Some(line) = entry {
            let start = line.line as usize;
            let text = &self.bytes[start..start + usize::from(line.name_len)];
            if text.eq_ignore_ascii_case(name) {
                let (start, end) = line.value();
                return Some(&self.bytes[start..end]);
            }
            entry = self.table.after(line);
        }
        None
    }

    /// Every value of that name, comma lists split (quotes and `<>` respected), trimmed; empty
    /// list elements are skipped.
    #[must_use]
    pub fn values(&self, name: HeaderName) -> ValueIter<'a> {
        ValueIter {
            lines: self.headers(name),
            values: Values { rest: &[] },
        }
    }

    /// The first line of that name as `value;params` (Event, Subscription-State, Content-Type).
    #[must_use]
    pub fn parameterized(&self, name: HeaderName) -> Option<Parameterized<'a>> {
        self.header(name).map(Parameterized::parse)
    }

    /// The topmost Via value.
    ///
    /// # Errors
    /// Only on a salvaged message.
    pub fn via_top(&self) -> Result<Via<'a>, ParseError> {
        // Read where it is: a copy in pieces would be waited for until it is in the cache.
        let spans = self.table.facts.via.as_ref();
        let spans = spans.ok_or_else(|| bad(HeaderName::Via))?;
        Ok(spans.resolve(self.bytes))
    }

    /// Via values in the message, comma lists counted by element.
    #[must_use]
    pub fn via_count(&self) -> usize {
        let first = self.table.first(HeaderName::Via);
        if let (Some(first), Some(via)) = (first, self.table.facts.via)
            && via.is_alone()
            && self.table.after(first).is_none()
        {
            return 1;
        }
        let count = |line: &[u8]| {
            if memchr::memchr(b',', line).is_none() {
                return usize::from(!line.is_empty());
            }
            Values { rest: line }.count()
        };
        self.headers(HeaderName::Via).map(count).sum()
    }

    /// From. Of a response it is read here, for it only repeats ours.
    ///
    /// # Errors
    /// On a salvaged message, and on a response whose From is not what we wrote.
    pub fn from(&self) -> Result<NameAddr<'a>, ParseError> {
        Ok(self.sender_spans()?.resolve(self.bytes))
    }

    fn sender_spans(&self) -> Result<AddrSpans, ParseError> {
        let (Some(entry), None) = (self.table.first(HeaderName::From), self.table.facts.from)
        else {
            return self.table.facts.from.ok_or_else(|| bad(HeaderName::From));
        };
        let (start, end) = entry.value();
        let spans = AddrSpans::parse(self.bytes, start, end, HeaderName::From)?;
        if spans.end() == end {
            Ok(spans)
        } else {
            Err(bad(HeaderName::From))
        }
    }

    /// To.
    ///
    /// # Errors
    /// Only on a salvaged message.
    pub fn to(&self) -> Result<NameAddr<'a>, ParseError> {
        let spans = self.table.facts.to.ok_or_else(|| bad(HeaderName::To))?;
        Ok(spans.resolve(self.bytes))
    }

    /// The From tag.
    #[must_use]
    pub fn from_tag(&self) -> Option<&'a [u8]> {
        self.sender_spans().ok()?.tag(self.bytes)
    }

    /// The To tag, read while parsing.
    #[must_use]
    pub fn to_tag(&self) -> Option<&'a [u8]> {
        self.table.facts.to?.tag(self.bytes)
    }

    /// Call-ID; never empty.
    #[must_use]
    pub fn call_id(&self) -> &'a [u8] {
        self.header(HeaderName::CallId).unwrap_or_default()
    }

    /// CSeq.
    ///
    /// # Errors
    /// Only on a salvaged message.
    pub fn cseq(&self) -> Result<CSeq<'a>, ParseError> {
        let spans = self.table.facts.cseq.ok_or_else(|| bad(HeaderName::CSeq))?;
        Ok(CSeq {
            number: spans.number,
            method: spans.method,
            method_bytes: spans.method_span.slice(self.bytes),
        })
    }

    /// The first Contact value.
    ///
    /// # Errors
    /// Inside `Some`: `Bad(Contact)`, or `ContactStar` for `*`.
    #[must_use]
    pub fn contact(&self) -> Option<Result<NameAddr<'a>, ParseError>> {
        let line = self.header(HeaderName::Contact)?;
        Some(NameAddr::parse_first(line))
    }

    /// Expires in seconds.
    ///
    /// # Errors
    /// Inside `Some`: not a number below 2^32 (requests with that do not parse at all).
    #[must_use]
    pub fn expires(&self) -> Option<Result<u32, ParseError>> {
        let value = self.header(HeaderName::Expires)?;
        Some(parse_seconds(value).ok_or_else(|| bad(HeaderName::Expires)))
    }

    /// Session-Expires, the first if repeated.
    ///
    /// # Errors
    /// Inside `Some`: bad number or unknown refresher.
    #[must_use]
    pub fn session_expires(&self) -> Option<Result<SessionExpires, ParseError>> {
        let value = self.header(HeaderName::SessionExpires)?;
        Some(parse_session_expires(value).ok_or_else(|| bad(HeaderName::SessionExpires)))
    }

    /// Min-SE in seconds.
    ///
    /// # Errors
    /// Inside `Some`: not a number below 2^32.
    #[must_use]
    pub fn min_se(&self) -> Option<Result<u32, ParseError>> {
        let value = self.header(HeaderName::MinSe)?;
        Some(parse_seconds(value).ok_or_else(|| bad(HeaderName::MinSe)))
    }

    /// Min-Expires in seconds; `None` when absent or not a number.
    #[must_use]
    pub fn min_expires(&self) -> Option<u32> {
        parse_seconds(self.header(HeaderName::MinExpires)?)
    }

    /// Retry-After in seconds, unclamped; `None` when absent or not a number; a number too large
    /// for 32 bits reads as the largest.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        let value = self.header(HeaderName::RetryAfter)?;
        let digits = value
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 {
            return None;
        }
        Some(decimal_u32(&value[..digits]).unwrap_or(u32::MAX))
    }

    /// Max-Forwards; `None` when absent.
    #[must_use]
    pub fn max_forwards(&self) -> Option<u8> {
        let value = parse_seconds(self.header(HeaderName::MaxForwards)?)?;
        u8::try_from(value).ok()
    }

    /// Date; `None` when absent or not an RFC 1123 date in GMT.
    #[must_use]
    pub fn date(&self) -> Option<UnixMillis> {
        date(self.header(HeaderName::Date)?)
    }

    /// `true` when the header's lists hold `token`, compared without case and up to parameters
    /// (Supported, Require, Allow, Accept).
    #[must_use]
    pub fn lists(&self, name: HeaderName, token: &[u8]) -> bool {
        self.headers(name).any(|line| line_lists(line, token))
    }
}

/// Whether the comma list `line` holds `token`, up to parameters.
fn line_lists(line: &[u8], token: &[u8]) -> bool {
    let Some(first) = token.first().map(|byte| byte | 0x20) else {
        return false;
    };
    // Only places that look like the first letter are looked at.
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let step = before_either(rest, 0x20, (first, b'"'));
        at += step;
        match line.get(at) {
            None => return false,
            Some(b'"') => break,
            Some(_) if starts_value(&line[..at]) && is_value(&line[at..], token) => return true,
            Some(_) => at += 1,
        }
    }
    Values { rest: line }.any(|value| is_value(value, token))
}

/// Whether a list element begins behind `before`.
fn starts_value(before: &[u8]) -> bool {
    let last = before.iter().rev().find(|byte| !is(**byte, LWS));
    matches!(last, None | Some(b','))
}

/// Whether `text` begins with `token` and a delimiter.
fn is_value(text: &[u8], token: &[u8]) -> bool {
    text.get(..token.len())
        .is_some_and(|text| text.eq_ignore_ascii_case(token))
        && text
            .get(token.len())
            .is_none_or(|byte| matches!(byte, b',' | b';') || is(*byte, LWS))
}

fn bad(name: HeaderName) -> ParseError {
    ParseError::new(ParseErrorKind::Bad(name), 0)
}

/// Iterates the lines of one name.
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    bytes: &'a [u8],
    table: &'a HeaderTable,
    next: Option<&'a Entry>,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let entry = self.next?;
        self.next = self.table.after(entry);
        let (start, end) = entry.value();
        Some(&self.bytes[start..end])
    }
}

/// Iterates the comma-separated values of one name.
#[derive(Clone, Debug)]
pub struct ValueIter<'a> {
    lines: HeaderIter<'a>,
    values: Values<'a>,
}

impl<'a> Iterator for ValueIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if let Some(value) = self.values.next() {
                return Some(value);
            }
            self.values.rest = self.lines.next()?;
        }
    }
}

/// Iterates the values of one line; empty ones are skipped.
#[derive(Clone, Debug)]
struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (value, rest) = split_comma(self.rest);
            self.rest = rest;
            let value = trim(value);
            if !value.is_empty() {
                return Some(value);
            }
        }
        None
    }
}
