//! Message/CPIM (RFC 3862): reading what intake gets, wrapping what came without it, and adding the
//! CPM identifiers. Layer 1.
//!
//! | part | does |
//! |------|------|
//! | [`parse`], [`Cpim`] | header iteration with namespaces, the wrapped part |
//! | `compose` | [`wrap_text`], [`ensure_cpm_headers`] |
//! | `route` | [`record_route`], [`take_route`]: the way of notifications |
//! | [`datetime`] | `DateTime` values from wall-clock time |
//!
//! Stored bytes are replayed unchanged, so nothing here rewrites a message except by inserting
//! lines. Not here: what a header's value means beyond its syntax, MIME multipart.

mod compose;
pub mod datetime;
mod route;

use crate::base::octets;

pub use compose::{
    ANONYMOUS, Identifiers, TextFields, add_identifiers, ensure_cpm_headers, wrap_text,
};
pub use route::{record_route, take_route};

/// Namespace of the notification headers (RFC 5438 section 6).
pub const NS_IMDN: &[u8] = b"urn:ietf:params:imdn";
/// Namespace of the CPM identifiers.
pub const NS_CPM: &[u8] = b"http://www.openmobilealliance.org/cpm/";
/// Largest header section of a message, octets; the wrapped part's headers apart.
pub const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Most header lines of a message.
pub const HEADER_LINES_MAX: usize = 64;
/// Most namespace prefixes of a message.
pub const NAMESPACES_MAX: usize = 8;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpimErrorKind {
    /// A value that we were to insert holds CR, LF or another control character.
    BadValue,
    /// A line that is not `name: value`.
    Header,
    /// From or To is missing.
    MissingAddress,
    /// An `NS` header that is not `[prefix] <uri>`.
    Namespace,
    /// A `Require` header names a header that we do not know (RFC 3862 section 4.7).
    Require,
    /// More than the limits of this module.
    TooLong,
    /// No blank line where one must be.
    Truncated,
    /// The header section is not UTF-8.
    Utf8,
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpimError {
    /// What.
    pub kind: CpimErrorKind,
    /// Offset in the message.
    pub at: u32,
}

impl CpimError {
    const fn new(kind: CpimErrorKind, at: usize) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "offsets stay below the header limit"
        )]
        Self {
            kind,
            at: at as u32,
        }
    }

    /// The SIP status for the request that brought it: 415 for `Require`, else 400 (CPIM-2).
    #[must_use]
    pub const fn sip_status(self) -> u16 {
        match self.kind {
            CpimErrorKind::Require => 415,
            CpimErrorKind::BadValue
            | CpimErrorKind::Header
            | CpimErrorKind::MissingAddress
            | CpimErrorKind::Namespace
            | CpimErrorKind::TooLong
            | CpimErrorKind::Truncated
            | CpimErrorKind::Utf8 => 400,
        }
    }
}

/// One header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// What stands before the dot, or empty.
    pub prefix: &'a [u8],
    /// The name after it. Case counts.
    pub name: &'a [u8],
    /// Parameters such as `;lang=en`, with their semicolon, or empty.
    pub params: &'a [u8],
    /// The value, escapes not resolved; see [`unescape`].
    pub value: &'a [u8],
}

/// A checked message. Views into the bytes given to [`parse`].
///
/// What intake needs was found in the one pass of [`parse`]; [`Cpim::find`] looks for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpim<'a> {
    /// Header lines with their CRLFs, without the blank line.
    headers: &'a [u8],
    /// MIME header lines of the wrapped part with their CRLFs, without the blank line.
    mime: &'a [u8],
    content: &'a [u8],
    known: Known<'a>,
}

/// The first header of each name that intake and delivery ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known<'a> {
    message_id: Option<&'a [u8]>,
    disposition: Option<&'a [u8]>,
    conversation: Option<&'a [u8]>,
    contribution: Option<&'a [u8]>,
    in_reply_to: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    /// The prefix bound to the CPM namespace where the header section ends.
    cpm_prefix: Option<&'a [u8]>,
    lines: usize,
    namespaces: usize,
}

/// Reads a message and checks all its headers (CPIM-2).
///
/// # Errors
/// [`CpimError`]; nothing of a message with an error is used.
pub fn parse(bytes: &[u8]) -> Result<Cpim<'_>, CpimError> {
    // The quick pass stops at any trouble; the careful one tells what it is.
    match read_quickly(bytes) {
        Some(cpim) => Ok(cpim),
        None => read_carefully(bytes),
    }
}

/// One pass over the header section, line by line. `None` for anything out of order.
fn read_quickly(bytes: &[u8]) -> Option<Cpim<'_>> {
    let mut reader = Reader::default();
    let window = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    let (mut at, mut ascii) = (0, true);
    let headers = loop {
        let rest = window.get(at..)?;
        let mut line_end = 0;
        // A tab may stand inside a line.
        loop {
            let found = octets::find_control(&rest[line_end..]);
            ascii &= found.ascii;
            line_end += found.at;
            match rest.get(line_end..line_end + 2)? {
                b"\r\n" => break,
                [b'\t', _] => line_end += 1,
                _ => return None,
            }
        }
        if line_end == 0 {
            break &bytes[..at];
        }
        let line = &rest[..line_end];
        reader
            .take(quick_header(line).or_else(|| read_header(line))?)
            .ok()?;
        at += line_end + 2;
    };
    if !ascii && core::str::from_utf8(headers).is_err() {
        return None;
    }
    let (mime_len, content_type) = read_mime(bytes.get(at + 2..)?)?;
    let known = reader.finish(content_type).ok()?;
    let part = &bytes[at + 2..];
    Some(Cpim {
        headers,
        mime: &part[..mime_len],
        content: &part[mime_len + 2..],
        known,
    })
}

/// A header line of the plain form `[prefix.]name: value`, whose octets hold no control but tabs.
#[inline]
fn quick_header(line: &[u8]) -> Option<Header<'_>> {
    let colon = octets::find(line, b':')?;
    let value = line.get(colon + 1..)?.strip_prefix(b" ")?;
    let (prefix, name) = match octets::find(&line[..colon], b'.') {
        Some(dot) => (&line[..dot], &line[dot + 1..colon]),
        None => (&line[..0], &line[..colon]),
    };
    let named = |text: &[u8]| {
        text.iter()
            .fold(true, |all, &c| all & NAME_CHAR[usize::from(c)])
    };
    if name.is_empty() || line.first() == Some(&b'.') || !named(name) || !named(prefix) {
        return None;
    }
    Some(Header {
        prefix,
        name,
        params: b"",
        value: octets::trim(value),
    })
}

/// Length of the MIME header lines that `part` starts with, and their Content-Type.
fn read_mime(part: &[u8]) -> Option<(usize, Option<&[u8]>)> {
    let window = &part[..part.len().min(HEADER_BYTES_MAX)];
    let (mut at, mut content_type) = (0, None);
    loop {
        // The first line, or one behind a CRLF.
        let start = at;
        if window.get(at..at + 2)? == b"\r\n" {
            return Some((at, content_type));
        }
        loop {
            at += octets::find(window.get(at..)?, b'\r')?;
            if window.get(at + 1) != Some(&b'\n') {
                at += 1;
                continue;
            }
            at += 2;
            if !matches!(window.get(at), Some(b' ' | b'\t')) {
                break;
            }
        }
        let line = &window[start..at];
        if content_type.is_none()
            && let Some((name, value)) = line.split_first_chunk::<13>()
            && octets::is_word(name, b"content-type:")
        {
            content_type = Some(octets::trim(value.trim_ascii_end()));
        }
    }
}

fn read_carefully(bytes: &[u8]) -> Result<Cpim<'_>, CpimError> {
    let headers_len =
        section_len(&bytes[..bytes.len().min(HEADER_BYTES_MAX)]).ok_or_else(|| {
            let kind = if bytes.len() < HEADER_BYTES_MAX {
                CpimErrorKind::Truncated
            } else {
                CpimErrorKind::TooLong
            };
            CpimError::new(kind, bytes.len().min(HEADER_BYTES_MAX))
        })?;
    let headers = &bytes[..headers_len];
    let part = &bytes[headers_len + 2..];
    let mime_len = section_len(&part[..part.len().min(HEADER_BYTES_MAX)])
        .ok_or_else(|| CpimError::new(CpimErrorKind::Truncated, headers_len + 2))?;
    let mime = &part[..mime_len];
    let known = check(headers, mime_header(mime, b"Content-Type"))?;
    Ok(Cpim {
        headers,
        mime,
        content: &part[mime_len + 2..],
        known,
    })
}

/// Length of the lines before the first blank line; 0 when the section is empty.
fn section_len(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(0);
    }
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 2)
}

fn check<'a>(headers: &'a [u8], content_type: Option<&'a [u8]>) -> Result<Known<'a>, CpimError> {
    if let Err(error) = core::str::from_utf8(headers) {
        return Err(CpimError::new(CpimErrorKind::Utf8, error.valid_up_to()));
    }
    let mut at = 0;
    let mut reader = Reader::default();
    for line in lines(headers) {
        let error = |kind| CpimError::new(kind, at);
        if reader.known.lines == HEADER_LINES_MAX {
            return Err(error(CpimErrorKind::TooLong));
        }
        let header = read_header(line).ok_or_else(|| error(CpimErrorKind::Header))?;
        reader.take(header).map_err(error)?;
        at += line.len() + 2;
    }
    reader
        .finish(content_type)
        .map_err(|kind| CpimError::new(kind, 0))
}

/// What a pass over the headers has learnt so far.
#[derive(Default)]
struct Reader<'a> {
    namespaces: Namespaces<'a>,
    known: Known<'a>,
    from: bool,
    to: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, header: Header<'a>) -> Result<(), CpimErrorKind> {
        let Header {
            prefix,
            name,
            value,
            ..
        } = header;
        if self.known.lines == HEADER_LINES_MAX {
            return Err(CpimErrorKind::TooLong);
        }
        self.known.lines += 1;
        if prefix.is_empty() {
            match name {
                b"From" => self.from = true,
                b"To" => self.to = true,
                b"NS" => {
                    return match self.namespaces.learn(value) {
                        true => Ok(()),
                        false => Err(CpimErrorKind::Namespace),
                    };
                }
                b"Require" if !knows_all(value, &self.namespaces) => {
                    return Err(CpimErrorKind::Require);
                }
                _ => {}
            }
        }
        let known = &mut self.known;
        let slot = match (self.namespaces.kind_of(prefix), name) {
            (Namespace::Imdn, b"Message-ID") => &mut known.message_id,
            (Namespace::Imdn, b"Disposition-Notification") => &mut known.disposition,
            (Namespace::Cpm, b"Conversation-ID") => &mut known.conversation,
            (Namespace::Cpm, b"Contribution-ID") => &mut known.contribution,
            (Namespace::Cpm, b"InReplyTo-Contribution-ID") => &mut known.in_reply_to,
            (Namespace::Cpm | Namespace::Imdn | Namespace::Other, _) => return Ok(()),
        };
        if slot.is_none() {
            *slot = Some(value);
        }
        Ok(())
    }

    fn finish(mut self, content_type: Option<&'a [u8]>) -> Result<Known<'a>, CpimErrorKind> {
        if !self.from || !self.to {
            return Err(CpimErrorKind::MissingAddress);
        }
        self.known.content_type = content_type;
        self.known.cpm_prefix = self.namespaces.prefix_of(Namespace::Cpm);
        self.known.namespaces = self.namespaces.len;
        Ok(self.known)
    }
}

impl<'a> Cpim<'a> {
    /// The header lines in order, `NS` lines included.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        lines(self.headers).filter_map(read_header)
    }

    /// The first core header `name`, such as `From`, outside any namespace.
    #[must_use]
    pub fn find_core(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.headers()
            .find(|header| header.prefix.is_empty() && header.name == name)
            .map(|header| header.value)
    }

    /// The first header `name` of namespace `uri`, whatever prefix it was given.
    #[must_use]
    pub fn find(&self, uri: &[u8], name: &[u8]) -> Option<&'a [u8]> {
        let mut namespaces = Namespaces::default();
        for header in self.headers() {
            if header.prefix.is_empty() && header.name == b"NS" {
                namespaces.learn(header.value);
            } else if header.name == name && namespaces.uri_of(header.prefix) == Some(uri) {
                return Some(header.value);
            }
        }
        None
    }

    /// The first notification header `name`, such as `Message-ID` (RFC 5438 section 6).
    #[must_use]
    pub fn find_imdn(&self, name: &[u8]) -> Option<&'a [u8]> {
        match name {
            b"Message-ID" => self.known.message_id,
            b"Disposition-Notification" => self.known.disposition,
            _ => self.find(NS_IMDN, name),
        }
    }

    /// The first CPM header `name`, such as `Conversation-ID` (CPIM-5).
    #[must_use]
    pub fn find_cpm(&self, name: &[u8]) -> Option<&'a [u8]> {
        match name {
            b"Conversation-ID" => self.known.conversation,
            b"Contribution-ID" => self.known.contribution,
            b"InReplyTo-Contribution-ID" => self.known.in_reply_to,
            _ => self.find(NS_CPM, name),
        }
    }

    /// The first MIME header `name` of the wrapped part; case does not count; folds may be inside.
    #[must_use]
    pub fn mime_header(&self, name: &[u8]) -> Option<&'a [u8]> {
        mime_header(self.mime, name)
    }

    /// Content type of the wrapped part with its parameters; `text/plain` when it has none.
    #[must_use]
    pub fn content_type(&self) -> &'a [u8] {
        self.known.content_type.unwrap_or(b"text/plain")
    }

    /// The wrapped part's content, untouched.
    #[must_use]
    pub const fn content(&self) -> &'a [u8] {
        self.content
    }
}

fn mime_header<'a>(section: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = section;
    while !rest.is_empty() {
        let len = unfolded_len(rest);
        let line = &rest[..len];
        rest = &rest[len..];
        let value = line
            .get(name.len())
            .filter(|&&c| c == b':' && line[..name.len()].eq_ignore_ascii_case(name))
            .map(|_| line[name.len() + 1..].trim_ascii());
        if value.is_some() {
            return value;
        }
    }
    None
}

/// The URI inside the angle brackets of a From or To value.
#[must_use]
pub fn address_uri(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii_end().strip_suffix(b">")?;
    let open = memchr::memrchr(b'<', value)?;
    Some(&value[open + 1..]).filter(|uri| !uri.is_empty())
}

/// Whether `content_type` names `wanted`, parameters and case apart.
#[must_use]
pub fn is_type(content_type: &[u8], wanted: &[u8]) -> bool {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    content_type[..end]
        .trim_ascii()
        .eq_ignore_ascii_case(wanted)
}

/// Appends `value` with its backslash escapes resolved (RFC 3862 section 3.4).
///
/// An escape that the RFC does not know, or one that is cut off, is kept as written.
pub fn unescape(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (plain, used) = match rest.get(at + 1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b't') => ('\t', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(&c @ (b'"' | b'\'' | b'\\')) => (char::from(c), 2),
            Some(b'u') => match unicode_escape(&rest[at + 2..]) {
                Some(c) => (c, 6),
                None => ('\\', 1),
            },
            Some(_) | None => ('\\', 1),
        };
        let mut utf8 = [0; 4];
        out.extend_from_slice(plain.encode_utf8(&mut utf8).as_bytes());
        rest = &rest[at + used..];
    }
    out.extend_from_slice(rest);
}

fn unicode_escape(digits: &[u8]) -> Option<char> {
    let digits = digits.first_chunk::<4>()?;
    let mut code = 0;
    for &digit in digits {
        code = code * 16 + char::from(digit).to_digit(16)?;
    }
    char::from_u32(code)
}

/// Lines of a section whose every line ends with CRLF, without it.
fn lines(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = section;
    core::iter::from_fn(move || {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        Some(line)
    })
}

/// Length of the first MIME header of `section` with its folds and last CRLF.
fn unfolded_len(section: &[u8]) -> usize {
    let mut at = 0;
    while let Some(end) = memchr::memmem::find(&section[at..], b"\r\n") {
        at += end + 2;
        if !matches!(section.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
    section.len()
}

/// `[prefix "."] name ":" *(";" parameter) SP value` (RFC 3862 section 3.5).
fn read_header(line: &[u8]) -> Option<Header<'_>> {
    let colon = memchr::memchr(b':', line)?;
    let (prefix, name) = match memchr::memchr(b'.', &line[..colon]) {
        Some(dot) => (&line[..dot], &line[dot + 1..colon]),
        None => (&line[..0], &line[..colon]),
    };
    let named = name.iter().all(|&c| is_name_char(c)) && !name.is_empty();
    let prefixed = prefix.iter().all(|&c| is_name_char(c)) && line.first() != Some(&b'.');
    let space = memchr::memchr(b' ', &line[colon + 1..])?;
    let (params, value) = line[colon + 1..].split_at(space);
    let params_open = params.first().is_none_or(|&c| c == b';');
    // A CR here is a bare one; other controls have no place in a header either.
    let clean = line.iter().all(|&c| c >= b' ' && c != 0x7f || c == b'\t');
    let header = Header {
        prefix,
        name,
        params,
        value: value[1..].trim_ascii(),
    };
    (named && prefixed && params_open && clean).then_some(header)
}

/// [`is_name_char`] of each octet.
const NAME_CHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0;
    while c < 128 {
        table[c as usize] = is_name_char(c);
        c += 1;
    }
    table
};

/// NAMECHAR of RFC 3862 section 3.6.
const fn is_name_char(c: u8) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, 0x21 | 0x23..=0x27 | 0x2a | 0x2b | 0x2d | 0x5e..=0x60 | 0x7c | 0x7e)
}

/// Which namespace a prefix stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Namespace {
    /// That of the CPM identifiers.
    Cpm,
    /// That of the notification headers.
    Imdn,
    /// None, or one that we do not look into.
    #[default]
    Other,
}

impl Namespace {
    fn of(uri: &[u8]) -> Self {
        match uri {
            NS_CPM => Self::Cpm,
            NS_IMDN => Self::Imdn,
            _ => Self::Other,
        }
    }
}

/// Prefixes seen so far; a later `NS` with the same prefix takes over.
#[derive(Clone, Copy, Debug, Default)]
struct Namespaces<'a> {
    known: [Binding<'a>; NAMESPACES_MAX],
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Binding<'a> {
    prefix: &'a [u8],
    uri: &'a [u8],
    kind: Namespace,
}

impl<'a> Namespaces<'a> {
    /// Learns from the value of an `NS` header; `false` when it is malformed or one too many.
    fn learn(&mut self, value: &'a [u8]) -> bool {
        let Some(uri) = address_uri(value) else {
            return false;
        };
        let prefix = octets::trim(value[..value.len() - uri.len() - 2].trim_ascii_end());
        if !prefix.iter().all(|&c| is_name_char(c)) {
            return false;
        }
        let binding = Binding {
            prefix,
            uri,
            kind: Namespace::of(uri),
        };
        if let Some(slot) = self.known[..self.len]
            .iter_mut()
            .find(|slot| slot.prefix == prefix)
        {
            *slot = binding;
            return true;
        }
        if self.len == NAMESPACES_MAX {
            return false;
        }
        self.known[self.len] = binding;
        self.len += 1;
        true
    }

    fn binding(&self, prefix: &[u8]) -> Option<&Binding<'a>> {
        self.known[..self.len]
            .iter()
            .find(|slot| octets::same(slot.prefix, prefix))
    }

    fn uri_of(&self, prefix: &[u8]) -> Option<&'a [u8]> {
        self.binding(prefix).map(|slot| slot.uri)
    }

    fn kind_of(&self, prefix: &[u8]) -> Namespace {
        self.binding(prefix)
            .map_or(Namespace::Other, |slot| slot.kind)
    }

    /// The prefix now bound to `kind`.
    fn prefix_of(&self, kind: Namespace) -> Option<&'a [u8]> {
        self.known[..self.len]
            .iter()
            .rfind(|slot| slot.kind == kind)
            .map(|slot| slot.prefix)
    }
}

/// Whether every header named in a `Require` value is one that we know.
fn knows_all(value: &[u8], namespaces: &Namespaces<'_>) -> bool {
    const CORE: [&[u8]; 7] = [
        b"From",
        b"To",
        b"cc",
        b"DateTime",
        b"Subject",
        b"NS",
        b"Require",
    ];
    const IMDN: [&[u8]; 5] = [
        b"Message-ID",
        b"Disposition-Notification",
        b"Original-To",
        b"IMDN-Record-Route",
        b"IMDN-Route",
    ];
    const CPM: [&[u8]; 3] = [
        b"Conversation-ID",
        b"Contribution-ID",
        b"InReplyTo-Contribution-ID",
    ];
    value
        .split(|&c| c == b',')
        .map(<[u8]>::trim_ascii)
        .all(|wanted| {
            let (prefix, name) = match memchr::memchr(b'.', wanted) {
                Some(dot) => (&wanted[..dot], &wanted[dot + 1..]),
                None => (&wanted[..0], wanted),
            };
            match namespaces.uri_of(prefix) {
                Some(NS_IMDN) => IMDN.contains(&name),
                Some(NS_CPM) => CPM.contains(&name),
                Some(_) => false,
                None => prefix.is_empty() && CORE.contains(&name),
            }
        })
}

#[cfg(test)]
mod tests;
