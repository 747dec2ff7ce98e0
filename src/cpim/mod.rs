//! Message/CPIM (RFC 3862): reading what intake gets, wrapping what came without it, and adding the
//! CPM identifiers. Layer 1.
//!
//! | part | does |
//! |------|------|
//! | [`parse`], [`Cpim`] | header iteration with namespaces, the wrapped part |
//! | `compose` | [`wrap_text`], [`ensure_cpm_headers`] |
//! | [`datetime`] | `DateTime` values from wall-clock time |
//!
//! Stored bytes are replayed unchanged, so nothing here rewrites a message except by inserting
//! lines. Not here: what a header's value means beyond its syntax, MIME multipart.

mod compose;
pub mod datetime;

pub use compose::{ANONYMOUS, TextFields, ensure_cpm_headers, wrap_text};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpim<'a> {
    /// Header lines with their CRLFs, without the blank line.
    headers: &'a [u8],
    /// MIME header lines of the wrapped part with their CRLFs, without the blank line.
    mime: &'a [u8],
    content: &'a [u8],
}

/// Reads a message and checks all its headers (CPIM-2).
///
/// # Errors
/// [`CpimError`]; nothing of a message with an error is used.
pub fn parse(bytes: &[u8]) -> Result<Cpim<'_>, CpimError> {
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
    let cpim = Cpim {
        headers,
        mime: &part[..mime_len],
        content: &part[mime_len + 2..],
    };
    check(headers)?;
    Ok(cpim)
}

/// Length of the lines before the first blank line; 0 when the section is empty.
fn section_len(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(0);
    }
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 2)
}

fn check(headers: &[u8]) -> Result<(), CpimError> {
    if let Err(error) = core::str::from_utf8(headers) {
        return Err(CpimError::new(CpimErrorKind::Utf8, error.valid_up_to()));
    }
    let mut at = 0;
    let mut namespaces = Namespaces::default();
    let (mut from, mut to) = (false, false);
    for (count, line) in lines(headers).enumerate() {
        let error = |kind| Err(CpimError::new(kind, at));
        if count == HEADER_LINES_MAX {
            return error(CpimErrorKind::TooLong);
        }
        let Some(header) = read_header(line) else {
            return error(CpimErrorKind::Header);
        };
        match (header.prefix, header.name) {
            (b"", b"From") => from = true,
            (b"", b"To") => to = true,
            (b"", b"NS") if !namespaces.learn(header.value) => {
                return error(CpimErrorKind::Namespace);
            }
            (b"", b"Require") if !knows_all(header.value, &namespaces) => {
                return error(CpimErrorKind::Require);
            }
            (_, _) => {}
        }
        at += line.len() + 2;
    }
    if from && to {
        Ok(())
    } else {
        Err(CpimError::new(CpimErrorKind::MissingAddress, 0))
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
        self.find(NS_IMDN, name)
    }

    /// The first CPM header `name`, such as `Conversation-ID` (CPIM-5).
    #[must_use]
    pub fn find_cpm(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.find(NS_CPM, name)
    }

    /// The first MIME header `name` of the wrapped part; case does not count; folds may be inside.
    #[must_use]
    pub fn mime_header(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut rest = self.mime;
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

    /// Content type of the wrapped part with its parameters; `text/plain` when it has none.
    #[must_use]
    pub fn content_type(&self) -> &'a [u8] {
        self.mime_header(b"Content-Type").unwrap_or(b"text/plain")
    }

    /// The wrapped part's content, untouched.
    #[must_use]
    pub const fn content(&self) -> &'a [u8] {
        self.content
    }
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

/// NAMECHAR of RFC 3862 section 3.6.
const fn is_name_char(c: u8) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, 0x21 | 0x23..=0x27 | 0x2a | 0x2b | 0x2d | 0x5e..=0x60 | 0x7c | 0x7e)
}

/// Prefixes seen so far; a later `NS` with the same prefix takes over.
#[derive(Clone, Copy, Debug, Default)]
struct Namespaces<'a> {
    known: [(&'a [u8], &'a [u8]); NAMESPACES_MAX],
    len: usize,
}

impl<'a> Namespaces<'a> {
    /// Learns from the value of an `NS` header; `false` when it is malformed or one too many.
    fn learn(&mut self, value: &'a [u8]) -> bool {
        let Some(uri) = address_uri(value) else {
            return false;
        };
        let prefix = value[..value.len() - uri.len() - 2].trim_ascii();
        if !prefix.iter().all(|&c| is_name_char(c)) {
            return false;
        }
        if let Some(slot) = self.known[..self.len]
            .iter_mut()
            .find(|slot| slot.0 == prefix)
        {
            slot.1 = uri;
            return true;
        }
        if self.len == NAMESPACES_MAX {
            return false;
        }
        self.known[self.len] = (prefix, uri);
        self.len += 1;
        true
    }

    fn uri_of(&self, prefix: &[u8]) -> Option<&'a [u8]> {
        self.known[..self.len]
            .iter()
            .find(|slot| slot.0 == prefix)
            .map(|slot| slot.1)
    }

    /// The prefix now bound to `uri`.
    fn prefix_of(&self, uri: &[u8]) -> Option<&'a [u8]> {
        self.known[..self.len]
            .iter()
            .rfind(|slot| slot.1 == uri)
            .map(|slot| slot.0)
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
