//! A cheap SIP tokenizer: one pass over the header lines of a message in a receive buffer.
//!
//! It finds the end of a message on a stream, names each header line and records spans; values are
//! looked at by whoever needs them. It is strict where a stream would lose its framing, and leaves
//! judgement to the rules. It shares no code with the engine.

use memchr::memchr;

use crate::mould::{Mould, Moulds, Reading};

/// Most header lines recorded of one message; more is a framing error.
pub const LINES_MAX: usize = 96;
/// Longest message taken from a stream, octets.
pub const MESSAGE_MAX: usize = 256 * 1024;
/// Longest header section, octets.
const HEAD_MAX: usize = 32 * 1024;

/// Header names the judge looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the header it is named after")]
pub enum Header {
    Accept,
    AcceptContact,
    Allow,
    CallId,
    Contact,
    ContentLength,
    ContentType,
    ContributionId,
    ConversationId,
    CSeq,
    Event,
    Expires,
    From,
    MaxForwards,
    MinSe,
    Other,
    PAccessNetworkInfo,
    PAssertedIdentity,
    PAssertedService,
    PChargingVector,
    PPreferred,
    PVisitedNetworkId,
    ProxyRequire,
    Reason,
    RecordRoute,
    Require,
    RetryAfter,
    Route,
    SessionExpires,
    SubscriptionState,
    Supported,
    To,
    UserAgent,
    Via,
}

/// Number of [`Header`] variants.
const HEADERS: usize = Header::Via as usize + 1;

/// Methods the judge knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the method it is named after")]
pub enum Method {
    Ack,
    Bye,
    Cancel,
    Invite,
    Message,
    Notify,
    Options,
    Other,
    Register,
    Subscribe,
    Update,
}

/// One header line: where its value lies in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The name.
    pub header: Header,
    /// First octet of the value.
    pub start: u32,
    /// One past the last octet of the value.
    pub end: u32,
}

/// The header lines of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    lines: Vec<Line>,
    /// Index of the first line of each name plus one; zero for none.
    first: [u8; HEADERS],
    /// Lines of each name.
    count: [u8; HEADERS],
}

/// Reusable storage of one message's header lines, and the forms of message seen before.
#[derive(Debug, Default)]
pub struct Table {
    layout: Layout,
    moulds: Moulds,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            first: [0; HEADERS],
            count: [0; HEADERS],
        }
    }
}

/// First octet and one past the last of a part of a message.
pub type Span = (u32, u32);

/// A message in a receive buffer.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The whole message.
    pub bytes: &'a [u8],
    /// Method of a request; [`Method::Other`] for a response.
    pub method: Method,
    /// Status of a response; zero for a request.
    pub status: u16,
    /// Request-URI of a request; reason phrase of a response.
    pub target: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// Number of the form this message is of, zero for a form not seen before. Two messages of one
    /// form differ in the octets of `free` only, and there in plain words of the same length.
    pub form: u32,
    /// Where messages of this form differ: first octet and one past the last.
    pub free: &'a [Span],
    layout: &'a Layout,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// The first line is no SIP start line.
    StartLine,
    /// A header line has no colon or there are too many lines.
    HeaderLine,
    /// Content-Length is missing or no number.
    ContentLength,
    /// Header section or message is longer than this judge takes.
    TooLong,
}

/// What lies at the start of a buffer.
#[derive(Debug)]
pub enum Scanned<'a> {
    /// A whole message and its length.
    Message(Message<'a>, usize),
    /// Keep-alive octets to skip (RFC 5626 section 3.5.1).
    KeepAlive(usize),
    /// More octets are needed.
    Incomplete,
    /// The stream is lost.
    Error(ScanError),
}

/// Reads the message at the start of `buffer`.
pub fn scan<'a>(buffer: &'a [u8], table: &'a mut Table) -> Scanned<'a> {
    if buffer.starts_with(b"\r\n") {
        return Scanned::KeepAlive(2);
    }
    if buffer == b"\r" {
        return Scanned::Incomplete;
    }
    if let Some(bucket) = table.moulds.find(buffer) {
        return cast(buffer, table.moulds.front(bucket));
    }
    let Some(line_end) = memchr(b'\n', &buffer[..buffer.len().min(HEAD_MAX)]) else {
        return incomplete(buffer, HEAD_MAX);
    };
    let Some((method, status, target)) = start_line(trim_end(&buffer[..line_end])) else {
        return Scanned::Error(ScanError::StartLine);
    };
    let layout = &mut table.layout;
    layout.lines.clear();
    layout.first = [0; HEADERS];
    layout.count = [0; HEADERS];
    let mut at = line_end + 1;
    match head(buffer, &mut at, layout) {
        Head::Whole => {}
        Head::Short => return incomplete(buffer, HEAD_MAX),
        Head::Broken(error) => return Scanned::Error(error),
    }
    let total = match total_length(buffer, at, layout) {
        Ok(total) => total,
        Err(error) => return Scanned::Error(error),
    };
    if buffer.len() < total {
        return Scanned::Incomplete;
    }
    let target_at = if status == 0 {
        memchr(b' ', buffer).map_or(0, |space| space + 1)
    } else {
        SIP_STATUS_LEN
    };
    if buffer[..at].ends_with(b"\r\n\r\n") {
        table.moulds.learn(&Reading {
            head: &buffer[..at],
            method,
            status,
            target: (target_at as u32, (target_at + target.len()) as u32),
            layout: &table.layout,
        });
    }
    let message = Message {
        bytes: &buffer[..total],
        method,
        status,
        target,
        body: &buffer[at..total],
        form: 0,
        free: &[],
        layout: &table.layout,
    };
    Scanned::Message(message, total)
}

/// Octets of `SIP/2.0 200 `.
const SIP_STATUS_LEN: usize = 12;

/// A message of a form known before.
#[inline]
fn cast<'a>(buffer: &'a [u8], mould: &'a Mould) -> Scanned<'a> {
    let at = mould.head_len();
    let total = match total_length(buffer, at, &mould.layout) {
        Ok(total) => total,
        Err(error) => return Scanned::Error(error),
    };
    if buffer.len() < total {
        return Scanned::Incomplete;
    }
    let message = Message {
        bytes: &buffer[..total],
        method: mould.method,
        status: mould.status,
        target: &buffer[mould.target.0 as usize..mould.target.1 as usize],
        body: &buffer[at..total],
        form: mould.id,
        free: &mould.runs,
        layout: &mould.layout,
    };
    Scanned::Message(message, total)
}

/// Octets of the message whose head ends at `at`.
#[inline]
fn total_length(buffer: &[u8], at: usize, layout: &Layout) -> Result<usize, ScanError> {
    let length = layout
        .last_of(Header::ContentLength)
        .and_then(|line| parse_number(&buffer[line.start as usize..line.end as usize]))
        .ok_or(ScanError::ContentLength)?;
    let total = at + length as usize;
    if total > MESSAGE_MAX {
        return Err(ScanError::TooLong);
    }
    Ok(total)
}

/// How reading the header section ended.
enum Head {
    Broken(ScanError),
    Short,
    Whole,
}

/// Reads header lines from `at` up to and with the empty line.
fn head(buffer: &[u8], at: &mut usize, layout: &mut Layout) -> Head {
    loop {
        let rest = &buffer[*at..];
        let Some(end) = memchr(b'\n', rest) else {
            return Head::Short;
        };
        let line = trim_end(&rest[..end]);
        if line.is_empty() {
            *at += end + 1;
            return Head::Whole;
        }
        if *at > HEAD_MAX {
            return Head::Broken(ScanError::TooLong);
        }
        if layout.lines.len() == LINES_MAX || !push_line(layout, line, *at) {
            return Head::Broken(ScanError::HeaderLine);
        }
        *at += end + 1;
    }
}

fn incomplete(buffer: &[u8], max: usize) -> Scanned<'_> {
    if buffer.len() >= max {
        Scanned::Error(ScanError::TooLong)
    } else {
        Scanned::Incomplete
    }
}

/// Records one line; `false` when it is no header line.
fn push_line(layout: &mut Layout, line: &[u8], at: usize) -> bool {
    if line[0] == b' ' || line[0] == b'\t' {
        // A folded line prolongs the value before it.
        let Some(last) = layout.lines.last_mut() else {
            return false;
        };
        last.end = (at + line.len()) as u32;
        return true;
    }
    let Some(colon) = memchr(b':', line) else {
        return false;
    };
    let header = header_of(trim_end(&line[..colon]));
    let mut start = colon + 1;
    while start < line.len() && (line[start] == b' ' || line[start] == b'\t') {
        start += 1;
    }
    layout.push(header, at + start, at + line.len());
    true
}

impl Layout {
    /// The header lines in order.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    #[inline]
    fn push(&mut self, header: Header, start: usize, end: usize) {
        if self.lines.len() == LINES_MAX {
            return;
        }
        self.lines.push(Line {
            header,
            start: start as u32,
            end: end as u32,
        });
        let index = header as usize;
        if self.count[index] == 0 {
            self.first[index] = self.lines.len() as u8;
        }
        self.count[index] += 1;
    }

    fn last_of(&self, header: Header) -> Option<Line> {
        match self.count[header as usize] {
            0 => None,
            1 => Some(self.lines[usize::from(self.first[header as usize]) - 1]),
            _ => self
                .lines
                .iter()
                .rev()
                .find(|line| line.header == header)
                .copied(),
        }
    }
}

fn start_line(line: &[u8]) -> Option<(Method, u16, &[u8])> {
    if let Some(rest) = line.strip_prefix(b"SIP/2.0 ") {
        if rest.len() < 3 {
            return None;
        }
        let status = parse_number(&rest[..3])?;
        if !(100..700).contains(&status) {
            return None;
        }
        return Some((Method::Other, status as u16, rest.get(4..).unwrap_or(&[])));
    }
    let rest = line.strip_suffix(b" SIP/2.0")?;
    let space = memchr(b' ', rest)?;
    let method = method_of(&rest[..space]);
    let target = &rest[space + 1..];
    (!target.is_empty() && memchr(b' ', target).is_none()).then_some((method, 0, target))
}

/// The method a token names.
pub fn method_of(token: &[u8]) -> Method {
    match token {
        b"ACK" => Method::Ack,
        b"BYE" => Method::Bye,
        b"CANCEL" => Method::Cancel,
        b"INVITE" => Method::Invite,
        b"MESSAGE" => Method::Message,
        b"NOTIFY" => Method::Notify,
        b"OPTIONS" => Method::Options,
        b"REGISTER" => Method::Register,
        b"SUBSCRIBE" => Method::Subscribe,
        b"UPDATE" => Method::Update,
        _ => Method::Other,
    }
}

/// Names by length, so that at most a few comparisons decide.
fn header_of(name: &[u8]) -> Header {
    let candidates: &[(&[u8], Header)] = match name.len() {
        1 => &[
            (b"v", Header::Via),
            (b"f", Header::From),
            (b"t", Header::To),
            (b"i", Header::CallId),
            (b"m", Header::Contact),
            (b"c", Header::ContentType),
            (b"l", Header::ContentLength),
            (b"k", Header::Supported),
            (b"a", Header::AcceptContact),
            (b"x", Header::SessionExpires),
            (b"o", Header::Event),
        ],
        2 => &[(b"To", Header::To)],
        3 => &[(b"Via", Header::Via)],
        4 => &[(b"From", Header::From), (b"CSeq", Header::CSeq)],
        5 => &[
            (b"Route", Header::Route),
            (b"Allow", Header::Allow),
            (b"Event", Header::Event),
        ],
        6 => &[
            (b"Accept", Header::Accept),
            (b"Reason", Header::Reason),
            (b"Min-SE", Header::MinSe),
        ],
        7 => &[
            (b"Call-ID", Header::CallId),
            (b"Contact", Header::Contact),
            (b"Expires", Header::Expires),
            (b"Require", Header::Require),
        ],
        9 => &[(b"Supported", Header::Supported)],
        10 => &[(b"User-Agent", Header::UserAgent)],
        11 => &[(b"Retry-After", Header::RetryAfter)],
        12 => &[
            (b"Max-Forwards", Header::MaxForwards),
            (b"Content-Type", Header::ContentType),
            (b"Record-Route", Header::RecordRoute),
        ],
        13 => &[(b"Proxy-Require", Header::ProxyRequire)],
        14 => &[
            (b"Content-Length", Header::ContentLength),
            (b"Accept-Contact", Header::AcceptContact),
        ],
        15 => &[
            (b"Session-Expires", Header::SessionExpires),
            (b"Conversation-ID", Header::ConversationId),
            (b"Contribution-ID", Header::ContributionId),
        ],
        17 => &[(b"P-Charging-Vector", Header::PChargingVector)],
        18 => &[
            (b"P-Asserted-Service", Header::PAssertedService),
            (b"Subscription-State", Header::SubscriptionState),
        ],
        19 => &[(b"P-Asserted-Identity", Header::PAssertedIdentity)],
        20 => &[(b"P-Preferred-Identity", Header::PPreferred)],
        21 => &[(b"P-Access-Network-Info", Header::PAccessNetworkInfo)],
        22 => &[(b"P-Visited-Network-ID", Header::PVisitedNetworkId)],
        _ => {
            if name.len() > 12 && name[..12].eq_ignore_ascii_case(b"P-Preferred-") {
                return Header::PPreferred;
            }
            &[]
        }
    };
    for &(candidate, header) in candidates {
        if candidate == name || candidate.eq_ignore_ascii_case(name) {
            return header;
        }
    }
    if name.len() > 12 && name[..12].eq_ignore_ascii_case(b"P-Preferred-") {
        return Header::PPreferred;
    }
    Header::Other
}

impl<'a> Message<'a> {
    /// First value of a header.
    #[inline]
    pub fn value(&self, header: Header) -> Option<&'a [u8]> {
        let first = self.layout.first[header as usize];
        if first == 0 {
            return None;
        }
        let line = self.layout.lines[usize::from(first) - 1];
        Some(&self.bytes[line.start as usize..line.end as usize])
    }

    /// Lines that carry a header.
    #[inline]
    pub fn count(&self, header: Header) -> u8 {
        self.layout.count[header as usize]
    }

    /// Where a part of this message lies; an empty span for what is no part of it.
    pub fn span(&self, part: &[u8]) -> Span {
        let at = (part.as_ptr() as usize).wrapping_sub(self.bytes.as_ptr() as usize);
        if at > self.bytes.len() || part.len() > self.bytes.len() - at {
            return (0, 0);
        }
        (at as u32, (at + part.len()) as u32)
    }

    /// The part of this message at a span.
    #[inline]
    pub fn part(&self, (from, to): Span) -> &'a [u8] {
        &self.bytes[from as usize..to as usize]
    }

    /// Every value of a header, in order.
    pub fn values(&self, header: Header) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.layout
            .lines
            .iter()
            .filter(move |line| line.header == header)
            .map(move |line| &bytes[line.start as usize..line.end as usize])
    }

    /// Number and method token of CSeq.
    pub fn cseq(&self) -> Option<(u32, &'a [u8])> {
        let value = self.value(Header::CSeq)?;
        let space = memchr(b' ', value)?;
        Some((
            parse_number(&value[..space])?,
            trim_start(&value[space + 1..]),
        ))
    }
}

/// Splits off trailing white space and CR.
#[inline]
pub fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t' | b'\r'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Splits off leading white space.
#[inline]
pub fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Reads a decimal number that fits 32 bits.
#[inline]
pub fn parse_number(digits: &[u8]) -> Option<u32> {
    crate::identity::read_digits(digits).and_then(|value| u32::try_from(value).ok())
}

/// The URI of a name-addr or addr-spec and its header parameters (from the first semicolon on).
pub fn name_addr(value: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(open) = memchr(b'<', value) {
        let close = memchr(b'>', &value[open..])? + open;
        return Some((&value[open + 1..close], &value[close + 1..]));
    }
    let end = memchr(b';', value).unwrap_or(value.len());
    Some((&value[..end], &value[end..]))
}

/// Value of parameter `name` in a `;name=value;name` list; empty for a bare parameter. Quoted values
/// are returned with their quotes.
pub fn param<'a>(list: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    params(list)
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// Iterates `;name=value` pairs; a bare parameter has an empty value.
pub fn params(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = list;
    core::iter::from_fn(move || {
        rest = trim_start(rest);
        rest = rest.strip_prefix(b";")?;
        let end = param_end(rest);
        let (one, tail) = rest.split_at(end);
        rest = tail;
        let one = trim_start(one);
        Some(match memchr(b'=', one) {
            Some(equals) => (
                trim_end(&one[..equals]),
                trim_end(trim_start(&one[equals + 1..])),
            ),
            None => (trim_end(one), &one[one.len()..]),
        })
    })
}

fn param_end(bytes: &[u8]) -> usize {
    let mut quoted = false;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b';' | b',' if !quoted => return at,
            _ => {}
        }
    }
    bytes.len()
}

/// The next value of a comma-separated list, quotes and angle brackets respected.
pub fn next_in_list<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let bytes = trim_start(rest);
    if bytes.is_empty() {
        return None;
    }
    let (mut quoted, mut angled) = (false, false);
    let mut end = bytes.len();
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'<' if !quoted => angled = true,
            b'>' if !quoted => angled = false,
            b',' if !quoted && !angled => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    *rest = bytes.get(end + 1..).unwrap_or(&[]);
    Some(trim_end(&bytes[..end]))
}

/// Whether a comma-separated list of tokens contains `token`.
pub fn lists(mut list: &[u8], token: &[u8]) -> bool {
    while let Some(one) = next_in_list(&mut list) {
        if one.eq_ignore_ascii_case(token) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: &[u8] =
        b"ACK sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKx;oc\r\nRoute: <sip:a;lr>\r\n\
        route: <sip:b;lr>\r\nFrom: <sip:x>;tag=1\r\nl: 3\r\nSubject: a\r\n b\r\n\r\nabcSIP";

    #[test]
    fn finds_message_and_headers() {
        let mut table = Table::default();
        let Scanned::Message(message, length) = scan(ACK, &mut table) else {
            panic!("not a message");
        };
        assert_eq!(length, ACK.len() - 3);
        assert_eq!(message.method, Method::Ack);
        assert_eq!(message.target, b"sip:a@b");
        assert_eq!(message.body, b"abc");
        assert_eq!(message.count(Header::Route), 2);
        let routes: Vec<_> = message.values(Header::Route).collect();
        assert_eq!(routes, [b"<sip:a;lr>".as_slice(), b"<sip:b;lr>"]);
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let mut table = Table::default();
        for end in 0..ACK.len() - 3 {
            assert!(
                matches!(scan(&ACK[..end], &mut table), Scanned::Incomplete),
                "{end}"
            );
        }
    }

    #[test]
    fn a_mould_never_changes_what_is_read() {
        // Whatever was read before, a message is read as by a fresh table.
        let mut warm = Table::default();
        let mut state = 0x5151_5151_5151_5151u64;
        let read = |bytes: &[u8], table: &mut Table| match scan(bytes, table) {
            Scanned::Message(message, length) => {
                let lines: Vec<_> = message
                    .layout
                    .lines
                    .iter()
                    .map(|line| (line.header, line.start, line.end))
                    .collect();
                format!("{length} {lines:?} {:?}", message.body)
            }
            other @ (Scanned::KeepAlive(_) | Scanned::Incomplete | Scanned::Error(_)) => {
                format!("{other:?}")
            }
        };
        for round in 0..20_000 {
            let mut bytes = ACK.to_vec();
            if round % 3 != 0 {
                for _ in 0..2 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let at = (state % bytes.len() as u64) as usize;
                    match state >> 60 {
                        0..4 => bytes[at] = b"\r\n :;x"[(state >> 40) as usize % 6],
                        4..8 => drop(bytes.remove(at)),
                        8..12 => bytes.insert(at, b' '),
                        _ => bytes[at] = (state >> 32) as u8,
                    }
                }
            }
            let fresh = read(&bytes, &mut Table::default());
            assert_eq!(
                read(&bytes, &mut warm),
                fresh,
                "{:?}",
                String::from_utf8_lossy(&bytes)
            );
            if round % 1000 == 0 {
                warm = Table::default();
            }
        }
    }

    #[test]
    fn splits_lists_and_parameters() {
        let (uri, tail) = name_addr(b"<sip:a;lr>;+x=\"a;b,c\";automata;tag = 5").unwrap();
        assert_eq!(uri, b"sip:a;lr");
        assert_eq!(param(tail, b"tag"), Some(b"5".as_slice()));
        assert_eq!(param(tail, b"+x"), Some(b"\"a;b,c\"".as_slice()));
        assert_eq!(param(tail, b"automata"), Some(b"".as_slice()));
        let mut list: &[u8] = b"<sip:a,b>;x=\",\", *;c , d";
        let mut seen = Vec::new();
        while let Some(one) = next_in_list(&mut list) {
            seen.push(one);
        }
        assert_eq!(seen, [b"<sip:a,b>;x=\",\"".as_slice(), b"*;c", b"d"]);
    }

    #[test]
    fn never_panics_on_mutated_input() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut table = Table::default();
        for _ in 0..20_000 {
            let mut bytes = ACK.to_vec();
            for _ in 0..4 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state % bytes.len() as u64) as usize;
                bytes[at] = (state >> 32) as u8;
            }
            if let Scanned::Message(message, _) = scan(&bytes, &mut table) {
                for value in message.values(Header::Via) {
                    let _ = params(value).count();
                }
                let _ = message.cseq();
            }
        }
    }
}
