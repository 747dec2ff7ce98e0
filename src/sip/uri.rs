//! SIP, SIPS and tel URIs (RFC 3261 section 19.1, RFC 3966, RFC 5627). Layer 1.
//!
//! Views only; nothing is decoded in place. Other schemes are recognised and left alone.

use crate::base::limits::URI_BYTES_MAX;
use crate::sip::header::Params;
use crate::sip::parser::{ParseError, ParseErrorKind};
use crate::sip::scan::{
    Cursor, HOST, URI, URI_PARAM, USER, all, decimal_u32, find_near, is, long_run, port_at, run_len,
};

/// The scheme of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// Any other; answered 416 in a Request-URI (BAD-9).
    Other,
}

/// The parts of a URI as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// User part of sip and sips, number of tel; `None` when absent.
    pub user: Option<&'a [u8]>,
    /// Password, which nobody should send.
    pub password: Option<&'a [u8]>,
    /// Host of sip and sips, brackets of IPv6 included; all after the scheme for other schemes;
    /// empty for tel.
    pub host: &'a [u8],
    /// Port; `None` when absent.
    pub port: Option<u16>,
    /// URI parameters.
    pub params: Params<'a>,
    /// Headers after `?`, without it; usually empty.
    pub headers: &'a [u8],
}

impl<'a> Uri<'a> {
    /// The value of a URI parameter (name in any case); empty for a flag such as `lr`.
    #[must_use]
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.params.find(name)
    }

    const fn empty(scheme: Scheme) -> Self {
        Self {
            scheme,
            user: None,
            password: None,
            host: &[],
            port: None,
            params: Params::new(&[]),
            headers: &[],
        }
    }
}

fn bad(at: usize) -> ParseError {
    ParseError::new(ParseErrorKind::BadUri, at)
}

/// Reads a URI.
///
/// # Errors
/// `BadUri` with the offset of the defect: no scheme, an octet no URI holds (white space, angle
/// brackets, quotes, controls, octets above 127), a broken escape, no host, a port out of range.
pub fn parse(bytes: &[u8]) -> Result<Uri<'_>, ParseError> {
    if let Some(uri) = parse_usual(bytes) {
        return Ok(uri);
    }
    parse_any(bytes)
}

/// Whether a URI is a sound one of the form `sip:[user@]host[:port][;parameters]` without escapes.
#[must_use]
pub(crate) fn is_usual(bytes: &[u8]) -> bool {
    parse_usual(bytes).is_some()
}

/// Reads `sip:[user@]host[:port][;parameters]` without escapes, password and headers. `None`: another
/// form, or a defect.
#[inline]
fn parse_usual(bytes: &[u8]) -> Option<Uri<'_>> {
    const START: usize = b"sip:".len();
    if !bytes.starts_with(b"sip:") {
        return None;
    }
    let mut uri = Uri::empty(Scheme::Sip);
    let mut at = START;
    if let Some(len) = find_near(&bytes[START..], b'@') {
        let user = &bytes[START..START + len];
        let plain = |byte: &u8| is(*byte, USER) && *byte != b'%';
        if user.is_empty() || !user.iter().all(plain) {
            return None;
        }
        uri.user = Some(user);
        at += len + 1;
    }
    let host = &bytes[at..];
    uri.host = &host[..long_run::<HOST>(host)];
    at += uri.host.len();
    if let Some(b':') = bytes.get(at) {
        let (port, end) = port_at(bytes, at + 1)?;
        uri.port = Some(port);
        at = end;
    }
    let params = at;
    while let Some(b';') = bytes.get(at) {
        let name = run_len(&bytes[at + 1..], URI_PARAM);
        if name == 0 {
            return None;
        }
        at += 1 + name;
        if let Some(b'=') = bytes.get(at) {
            at += 1 + long_run::<URI_PARAM>(&bytes[at + 1..]);
        }
    }
    let text = &bytes[params..];
    if at != bytes.len() || uri.host.is_empty() || find_near(text, b'%').is_some() {
        return None;
    }
    uri.params = Params::new(text);
    Some(uri)
}

fn parse_any(bytes: &[u8]) -> Result<Uri<'_>, ParseError> {
    let colon = memchr::memchr(b':', bytes).ok_or_else(|| bad(0))?;
    let scheme = &bytes[..colon];
    let rest = colon + 1;
    if scheme.eq_ignore_ascii_case(b"sip") {
        parse_sip(bytes, rest, Scheme::Sip)
    } else if scheme.eq_ignore_ascii_case(b"sips") {
        parse_sip(bytes, rest, Scheme::Sips)
    } else if scheme.eq_ignore_ascii_case(b"tel") {
        parse_tel(bytes, rest)
    } else {
        let more = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
        let named = scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(more);
        if !named || !all(&bytes[rest..], URI) {
            return Err(bad(0));
        }
        let host = &bytes[rest..];
        Ok(Uri {
            host,
            ..Uri::empty(Scheme::Other)
        })
    }
}

fn parse_sip(bytes: &[u8], start: usize, scheme: Scheme) -> Result<Uri<'_>, ParseError> {
    let mut uri = Uri::empty(scheme);
    let mut at = start;
    if let Some(len) = memchr::memchr(b'@', &bytes[start..]) {
        let info = &bytes[start..start + len];
        let (user, password) = match memchr::memchr(b':', info) {
            Some(colon) => (&info[..colon], Some(&info[colon + 1..])),
            None => (info, None),
        };
        check_escaped(user, start, USER)?;
        if let Some(password) = password.filter(|text| !text.is_empty()) {
            check_escaped(password, start, USER)?;
        }
        if user.is_empty() {
            return Err(bad(start));
        }
        uri.user = Some(user);
        uri.password = password;
        at = start + len + 1;
    }
    let mut cursor = Cursor::new(bytes, at, bytes.len());
    uri.host = host(&mut cursor)?;
    if cursor.eat(b':') {
        let digits = &bytes[cursor.pos..];
        let len = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let port = decimal_u32(&digits[..len]).and_then(|port| u16::try_from(port).ok());
        uri.port = Some(
            port.filter(|port| *port != 0)
                .ok_or_else(|| bad(cursor.pos))?,
        );
        cursor.pos += len;
    }
    uri.params = params(&mut cursor)?;
    if cursor.eat(b'?') {
        uri.headers = &bytes[cursor.pos..];
        let fine = |byte: &u8| is(*byte, URI_PARAM) || matches!(byte, b'?' | b'=');
        if uri.headers.is_empty() || !uri.headers.iter().all(fine) {
            return Err(bad(cursor.pos));
        }
        check_escapes(uri.headers, cursor.pos)?;
        cursor.pos = bytes.len();
    }
    if cursor.at_end() {
        Ok(uri)
    } else {
        Err(bad(cursor.pos))
    }
}

fn parse_tel(bytes: &[u8], start: usize) -> Result<Uri<'_>, ParseError> {
    let mut cursor = Cursor::new(bytes, start, bytes.len());
    let mut digits = 0;
    while let Some(byte) = cursor.peek() {
        let digit = byte.is_ascii_hexdigit() || matches!(byte, b'*' | b'#');
        let plus = byte == b'+' && cursor.pos == start;
        if !digit && !plus && !is_separator(byte) {
            break;
        }
        digits += usize::from(digit);
        cursor.pos += 1;
    }
    if digits == 0 {
        return Err(bad(start));
    }
    let user = &bytes[start..cursor.pos];
    let params = params(&mut cursor)?;
    if !cursor.at_end() {
        return Err(bad(cursor.pos));
    }
    Ok(Uri {
        user: Some(user),
        params,
        ..Uri::empty(Scheme::Tel)
    })
}

fn host<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], ParseError> {
    let start = cursor.pos;
    if cursor.peek() == Some(b'[') {
        let span = crate::sip::header::via_host(cursor).map_err(bad)?;
        return Ok(span.slice(cursor.bytes));
    }
    let span = cursor.run(HOST);
    if span.is_empty() {
        Err(bad(start))
    } else {
        Ok(span.slice(cursor.bytes))
    }
}

/// `*( ";" name [ "=" value ] )` without white space; a value may be empty.
fn params<'a>(cursor: &mut Cursor<'a>) -> Result<Params<'a>, ParseError> {
    let start = cursor.pos;
    while cursor.eat(b';') {
        let name = cursor.run(URI_PARAM);
        if name.is_empty() {
            return Err(bad(cursor.pos));
        }
        if cursor.eat(b'=') {
            // Base64 padding in `gr` and tokens: `=` inside a value is seen and harmless.
            while cursor
                .peek()
                .is_some_and(|byte| is(byte, URI_PARAM) || byte == b'=')
            {
                cursor.pos += 1;
            }
        }
    }
    let text = &cursor.bytes[start..cursor.pos];
    check_escapes(text, start)?;
    Ok(Params::new(text))
}

fn check_escaped(text: &[u8], at: usize, mask: u8) -> Result<(), ParseError> {
    if !text.iter().all(|byte| is(*byte, mask)) {
        return Err(bad(at));
    }
    check_escapes(text, at)
}

/// Every `%` is followed by two hexadecimal digits.
fn check_escapes(text: &[u8], at: usize) -> Result<(), ParseError> {
    for percent in memchr::memchr_iter(b'%', text) {
        let fine = text
            .get(percent + 1..percent + 3)
            .is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        if !fine {
            return Err(bad(at + percent));
        }
    }
    Ok(())
}

const fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b'(' | b')')
}

/// The octets of a text with its escapes decoded, one at a time. Broken escapes pass through.
#[derive(Clone, Debug)]
pub(crate) struct Decoded<'a> {
    bytes: &'a [u8],
}

impl<'a> Decoded<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let [b'%', high, low, rest @ ..] = self.bytes
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            self.bytes = rest;
            return Some(high << 4 | low);
        }
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Compares with escapes decoded, with case.
fn same_decoded(a: &[u8], b: &[u8]) -> bool {
    Decoded::new(a).eq(Decoded::new(b))
}

/// Compares with escapes decoded, without case.
pub(crate) fn same_decoded_fold(a: &[u8], b: &[u8]) -> bool {
    let fold = |byte: u8| byte.to_ascii_lowercase();
    Decoded::new(a).map(fold).eq(Decoded::new(b).map(fold))
}

/// Equality of URIs (RFC 3261 section 19.1.4; RFC 3966 section 4 for tel; other schemes by octet).
///
/// Texts that do not parse equal nothing, themselves included.
#[must_use]
pub fn equivalent(a: &[u8], b: &[u8]) -> bool {
    let (Ok(left), Ok(right)) = (parse(a), parse(b)) else {
        return false;
    };
    if left.scheme != right.scheme {
        return false;
    }
    match left.scheme {
        Scheme::Other => a == b,
        Scheme::Tel => same_number(&left, &right) && covers_all(&left, &right),
        Scheme::Sip | Scheme::Sips => {
            same_part(left.user, right.user)
                && same_part(left.password, right.password)
                && left.host.eq_ignore_ascii_case(right.host)
                && left.port == right.port
                && params_match(&left, &right)
                && params_match(&right, &left)
                && headers_match(left.headers, right.headers)
                && headers_match(right.headers, left.headers)
        }
    }
}

fn same_part(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => same_decoded(a, b),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Parameters that must match even when only one side has them (`gr`: RFC 5627 section 4.2).
const DECISIVE: [&[u8]; 6] = [b"user", b"ttl", b"method", b"maddr", b"transport", b"gr"];

fn params_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.params
        .iter()
        .all(|param| match b.params.find(param.name) {
            Some(other) => same_decoded_fold(param.value.unwrap_or_default(), other),
            None => !DECISIVE
                .iter()
                .any(|name| name.eq_ignore_ascii_case(param.name)),
        })
}

fn covers_all(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    let covered = |a: &Uri<'_>, b: &Uri<'_>| {
        a.params.iter().all(|param| {
            b.params
                .find(param.name)
                .is_some_and(|value| same_decoded_fold(param.value.unwrap_or_default(), value))
        })
    };
    covered(a, b) && covered(b, a)
}

fn same_number(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    fn clean(text: &[u8]) -> impl Iterator<Item = u8> {
        text.iter()
            .copied()
            .filter(|byte| !is_separator(*byte))
            .map(|b| b.to_ascii_lowercase())
    }
    clean(a.user.unwrap_or_default()).eq(clean(b.user.unwrap_or_default()))
}

fn headers_match(a: &[u8], b: &[u8]) -> bool {
    fn parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
        text.split(|byte| *byte == b'&')
            .filter(|part| !part.is_empty())
    }
    parts(a).all(|header| parts(b).any(|other| same_decoded_fold(header, other)))
}

/// `true` for text that may be put into a Request-URI as a device's public GRUU (BAD-23): a sip or
/// sips URI of at most 1 KiB with a user, a `gr` parameter and no header part. [`parse`] lets no
/// control character, white space or angle bracket through.
#[must_use]
pub fn is_public_gruu(bytes: &[u8]) -> bool {
    if bytes.len() > URI_BYTES_MAX {
        return false;
    }
    parse(bytes).is_ok_and(|uri| {
        matches!(uri.scheme, Scheme::Sip | Scheme::Sips)
            && uri.user.is_some()
            && uri.headers.is_empty()
            && uri.param(b"gr").is_some_and(|value| !value.is_empty())
    })
}

/// What [`canonical_identity`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityKind {
    /// `user@host`.
    Address,
    /// `+digits`, the same for every spelling of an E.164 number.
    Number,
}

/// Appends the mailbox key of a public identity (INT-11): one key for sip, sips, tel and
/// `user=phone` spellings of a global number, `user@host` else, with the host in lower case, the
/// user's escapes of unreserved characters decoded, and all parameters dropped.
///
/// # Errors
/// `BadUri`: no URI, another scheme, a tel number that is not global, or longer than 1 KiB.
pub fn canonical_identity(bytes: &[u8], out: &mut Vec<u8>) -> Result<IdentityKind, ParseError> {
    if bytes.len() > URI_BYTES_MAX {
        return Err(bad(URI_BYTES_MAX));
    }
    let uri = parse(bytes)?;
    let user = uri.user.unwrap_or_default();
    // `+1555;phone-context=..@host`: parameters of the number inside the user part.
    let number = user.split(|byte| *byte == b';').next().unwrap_or_default();
    match uri.scheme {
        Scheme::Other => Err(bad(0)),
        Scheme::Tel if is_global_number(user) => Ok(append_number(user, out)),
        Scheme::Tel => Err(bad(0)),
        Scheme::Sip | Scheme::Sips if is_global_number(number) => Ok(append_number(number, out)),
        Scheme::Sip | Scheme::Sips => {
            if !user.is_empty() {
                append_user(user, out);
                out.push(b'@');
            }
            out.extend(uri.host.iter().map(u8::to_ascii_lowercase));
            Ok(IdentityKind::Address)
        }
    }
}

/// `+`, then only digits and visual separators, at least one digit; escapes decoded.
fn is_global_number(text: &[u8]) -> bool {
    let mut octets = Decoded::new(text);
    let mut digits = 0_usize;
    if octets.next() != Some(b'+') {
        return false;
    }
    for byte in octets {
        if !byte.is_ascii_digit() && !is_separator(byte) {
            return false;
        }
        digits += usize::from(byte.is_ascii_digit());
    }
    digits > 0
}

fn append_number(text: &[u8], out: &mut Vec<u8>) -> IdentityKind {
    out.extend(Decoded::new(text).filter(|byte| !is_separator(*byte)));
    IdentityKind::Number
}

/// Decodes escapes of octets that need none, and writes the others with upper-case digits.
fn append_user(user: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut rest = user;
    while let Some((&first, tail)) = rest.split_first() {
        let mut octet = Decoded::new(rest);
        let escaped = first == b'%';
        let byte = octet.next().unwrap_or(first);
        if escaped && !(byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte)) {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        } else {
            out.push(byte);
        }
        rest = if escaped { octet.bytes } else { tail };
    }
}

#[cfg(test)]
mod tests;
