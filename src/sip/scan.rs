//! Byte classes and small scanners of the SIP grammar (RFC 3261 section 25.1). Layer 1.
//!
//! Everything here is total: no input panics, nothing allocates. White space inside a header value
//! may be a fold; the parser has already checked that every CR and LF in the header section belongs
//! to a line end, so the scanners treat CR, LF, SP and HTAB alike.

use crate::base::lanes::{self, Lanes, Marks};
use crate::base::span::Span;

/// `token` characters.
pub(crate) const TOKEN: u8 = 1;
/// Characters any URI may hold: unreserved, reserved, escape, brackets.
pub(crate) const URI: u8 = 2;
/// Host names and IPv4 addresses; the underscore is seen in the field.
pub(crate) const HOST: u8 = 4;
/// White space, folds included.
pub(crate) const LWS: u8 = 8;
/// User part and password of a SIP URI.
pub(crate) const USER: u8 = 16;
/// Names and values of URI parameters.
pub(crate) const URI_PARAM: u8 = 32;
/// Unquoted values of parameters, wider than the grammar: all but white space, controls, separators
/// of lists and quotes. Octets above 127 were judged by the parser.
pub(crate) const PARAM_VALUE: u8 = 64;
/// Words of Call-ID.
pub(crate) const WORD: u8 = 128;

const fn classes() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let c = byte.to_le_bytes()[0];
        let mut class = 0;
        if c.is_ascii_alphanumeric() {
            class = TOKEN | URI | HOST | USER | URI_PARAM | WORD;
        }
        class |= class_of_mark(c);
        let separator = matches!(c, b';' | b',' | b'"' | b'<' | b'>' | b'\\' | 0x7f);
        if c > b' ' && !separator {
            class |= PARAM_VALUE;
        }
        if matches!(c, b' ' | b'\t' | b'\r' | b'\n') {
            class |= LWS;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

const fn class_of_mark(c: u8) -> u8 {
    let mut class = 0;
    if matches!(
        c,
        b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
    ) {
        class |= TOKEN | WORD;
    }
    if matches!(
        c,
        b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' | b'%'
    ) {
        class |= URI | USER | URI_PARAM;
    }
    if matches!(
        c,
        b';' | b'/' | b'?' | b':' | b'@' | b'&' | b'=' | b'+' | b'$' | b','
    ) {
        class |= URI;
    }
    if matches!(c, b'[' | b']') {
        class |= URI | URI_PARAM | WORD;
    }
    if matches!(c, b'-' | b'.' | b'_') {
        class |= HOST;
    }
    if matches!(c, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/') {
        class |= USER;
    }
    if matches!(c, b'/' | b':' | b'&' | b'+' | b'$') {
        class |= URI_PARAM;
    }
    let rest = matches!(
        c,
        b'(' | b')' | b'<' | b'>' | b':' | b'\\' | b'"' | b'/' | b'?'
    );
    if rest || matches!(c, b'{' | b'}' | b'@') {
        class |= WORD;
    }
    class
}

static CLASS: [u8; 256] = classes();

/// `true` when `byte` belongs to one of the classes in `mask`.
#[inline]
pub(crate) fn is(byte: u8, mask: u8) -> bool {
    CLASS[usize::from(byte)] & mask != 0
}

/// Bytes of the classes `mask` at the start of `bytes`.
#[inline]
pub(crate) fn run_len(bytes: &[u8], mask: u8) -> usize {
    bytes
        .iter()
        .position(|&byte| !is(byte, mask))
        .unwrap_or(bytes.len())
}

/// Marks octets outside the class, which is one of [`HOST`], [`TOKEN`], [`URI`], [`URI_PARAM`],
/// [`PARAM_VALUE`] and [`WORD`] alone: what the table says, sixteen at a time.
#[inline]
fn outside<const CLASS: u8>(lanes: Lanes) -> Marks {
    if CLASS == HOST {
        let letter = lanes.with(0x20).between(b'a', b'z');
        let digit = lanes.between(b'-', b'9') & !lanes.equal(b'/');
        return !(letter | digit | lanes.equal(b'_'));
    }
    let blank = lanes.at_most(b' ');
    if CLASS == PARAM_VALUE {
        let list = lanes.either(b',', b';') | lanes.with(2).equal(b'>');
        return blank | list | lanes.either(b'"', b'\\') | lanes.equal(0x7f);
    }
    if CLASS == WORD {
        let marks = lanes.between(b'#', b'&') & !lanes.equal(b'%');
        let list = lanes.either(b',', b';') | lanes.equal(b'=');
        return blank | marks | list | lanes.either(b'^', b'|') | lanes.between(0x7f, 0xff);
    }
    let curly = lanes.between(b'{', 0xff) & !lanes.equal(b'~');
    if CLASS == URI_PARAM {
        let quote = lanes.with(1).equal(b'#') | lanes.either(b',', b'`');
        return blank | curly | quote | lanes.between(b';', b'@') | lanes.either(b'\\', b'^');
    }
    if CLASS == URI {
        let quote = lanes.with(1).equal(b'#') | lanes.equal(b'`');
        return blank | curly | quote | lanes.with(2).equal(b'>') | lanes.with(2).equal(b'^');
    }
    let quote = lanes.between(b'"', b'&') & !lanes.equal(b'%');
    let list = lanes.either(b',', b'/') | lanes.with(1).equal(b')');
    blank | curly | quote | list | lanes.between(b':', b'@') | lanes.between(b'[', b'^')
}

/// As [`run_len`], for runs that are long as a rule; the class as for [`outside`].
#[inline]
pub(crate) fn long_run<const CLASS: u8>(bytes: &[u8]) -> usize {
    lanes::before(bytes, outside::<CLASS>)
}

/// As [`all`], for texts that are long as a rule; the class as for [`outside`].
#[inline]
pub(crate) fn long_all<const CLASS: u8>(bytes: &[u8]) -> bool {
    !bytes.is_empty() && long_run::<CLASS>(bytes) == bytes.len()
}

/// [`is_token`] for what is mostly letters and digits, dots and dashes.
#[inline]
pub(crate) fn is_long_token(bytes: &[u8]) -> bool {
    long_all::<HOST>(bytes) || all(bytes, TOKEN)
}

/// Whether `bytes` starts with 32 letters and digits, as our own tokens do.
#[inline]
pub(crate) fn starts_with_token(bytes: &[u8]) -> bool {
    let Some(chunk) = bytes.first_chunk::<32>() else {
        return false;
    };
    let (first, rest) = chunk.as_chunks::<16>().0.split_first().expect("32 are two");
    let odd = |octets: &[u8; 16]| {
        let lanes = Lanes::load(octets);
        !(lanes.with(0x20).between(b'a', b'z') | lanes.between(b'0', b'9'))
    };
    let second = rest.first().expect("32 are two");
    (odd(first) | odd(second)).bits() == 0
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// Bit 7 of each zero octet; bits above the lowest one set may be wrong.
#[inline]
pub(crate) const fn zero_octets(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Octets before the first that is a control character or no ASCII; DEL passes.
#[inline]
pub(crate) fn plain_len(bytes: &[u8]) -> usize {
    lanes::before(bytes, |lanes| lanes.at_most(b' ' - 1) | lanes.not_ascii())
}

/// Where `needle` stands first, for needles that are near: an inlined search costs less than the
/// call of a better one.
#[inline]
pub(crate) fn find_near(bytes: &[u8], needle: u8) -> Option<usize> {
    lanes::find(bytes, needle)
}

/// Octets before the first of two needles, each octet taken with the bits `fold` set.
#[inline]
pub(crate) fn before_either(bytes: &[u8], fold: u8, needles: (u8, u8)) -> usize {
    lanes::before(bytes, |lanes| lanes.with(fold).either(needles.0, needles.1))
}

/// The eight octets from `at` on as a number, the first lowest; `None` too near the end.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*chunk))
}

/// `true` when `bytes` is not empty and every byte belongs to `mask`.
#[inline]
pub(crate) fn all(bytes: &[u8], mask: u8) -> bool {
    !bytes.is_empty() && run_len(bytes, mask) == bytes.len()
}

/// `true` when `bytes` is a token.
#[inline]
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    all(bytes, TOKEN)
}

/// `bytes` without white space (folds included) at both ends.
#[inline]
#[must_use]
pub fn trim(bytes: &[u8]) -> &[u8] {
    let mut start = 0;
    let mut end = bytes.len();
    while start < end && is(bytes[start], LWS) {
        start += 1;
    }
    while end > start && is(bytes[end - 1], LWS) {
        end -= 1;
    }
    &bytes[start..end]
}

/// A decimal number that fits 32 bits; `None` when empty, not all digits, or too large.
#[inline]
#[must_use]
pub fn decimal_u32(bytes: &[u8]) -> Option<u32> {
    let value = decimal_u64(bytes)?;
    u32::try_from(value).ok()
}

/// A decimal number below 10^18; leading zeros are fine at any length up to 64 digits.
#[inline]
#[must_use]
pub fn decimal_u64(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 64 {
        return None;
    }
    let mut value = 0_u64;
    for &byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 || value >= 100_000_000_000_000_000 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

/// A port of at most five digits at `at`, not zero, and where its digits end.
#[inline]
pub(crate) fn port_at(bytes: &[u8], at: usize) -> Option<(u16, usize)> {
    let mut value = 0_u32;
    let mut end = at;
    while let Some(digit) = bytes.get(end).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        value = value * 10 + u32::from(digit);
        end += 1;
        if end - at > 5 {
            return None;
        }
    }
    let port = u16::try_from(value).ok()?;
    (port != 0).then_some((port, end))
}

/// Strips one pair of double quotes, if both are there. Escapes inside stay as they are.
#[inline]
#[must_use]
pub fn unquote(bytes: &[u8]) -> &[u8] {
    match bytes {
        [b'"', inner @ .., b'"'] => inner,
        _ => bytes,
    }
}

/// The first value of a comma list and what follows its comma; quotes and `<>` are respected.
///
/// An unterminated quote or bracket swallows the rest, which the typed parser then refuses.
#[must_use]
pub fn split_comma(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(step) = memchr::memchr3(b',', b'"', b'<', &bytes[at..]) {
        let hit = at + step;
        match bytes[hit] {
            b',' => return (&bytes[..hit], &bytes[hit + 1..]),
            b'"' => at = end_of_quoted(bytes, hit).unwrap_or(bytes.len()),
            _ => {
                let close = memchr::memchr(b'>', &bytes[hit..]);
                at = close.map_or(bytes.len(), |len| hit + len + 1);
            }
        }
    }
    (bytes, &[])
}

/// One past the closing quote of the quoted string that opens at `open`.
#[inline]
pub(crate) fn end_of_quoted(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        let hit = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[hit] == b'"' {
            return Some(hit + 1);
        }
        at = hit + 2;
    }
}

/// The span of `start..end` without the checks of [`Span::new`], for the hot loops: `start <= end`
/// holds by construction, and messages are far shorter than 4 GiB (longer text only reads wrong).
#[expect(
    clippy::cast_possible_truncation,
    reason = "messages are bounded by a named limit"
)]
#[inline]
pub(crate) const fn span(start: usize, end: usize) -> Span {
    Span {
        start: start as u32,
        len: end.wrapping_sub(start) as u32,
    }
}

/// A position in a value; offsets are those of `bytes`.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) pos: usize,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes[start..end]`.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], start: usize, end: usize) -> Self {
        Self {
            bytes: &bytes[..end],
            pos: start,
        }
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    #[inline]
    pub(crate) fn at_end(&self) -> bool {
        self.pos >= self.bytes.len()
    }

    /// Steps over `byte` if it is next.
    #[inline]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.pos += usize::from(hit);
        hit
    }

    /// What has not been read yet.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..).unwrap_or_default()
    }

    /// Skips white space; `true` when there was some.
    #[inline]
    pub(crate) fn skip_lws(&mut self) -> bool {
        if !self.peek().is_some_and(|byte| is(byte, LWS)) {
            return false;
        }
        self.pos += run_len(self.rest(), LWS);
        true
    }

    /// The longest run of bytes of the classes `mask`; may be empty.
    #[inline]
    pub(crate) fn run(&mut self, mask: u8) -> Span {
        let start = self.pos;
        self.pos += run_len(self.rest(), mask);
        span(start, self.pos)
    }

    /// As [`Cursor::run`], for runs that are long as a rule; the class as for [`outside`].
    #[inline]
    pub(crate) fn long_run<const CLASS: u8>(&mut self) -> Span {
        let start = self.pos;
        self.pos += long_run::<CLASS>(self.rest());
        span(start, self.pos)
    }

    /// A quoted string, quotes included; `None` when it does not end.
    #[inline]
    pub(crate) fn quoted(&mut self) -> Option<Span> {
        let end = end_of_quoted(self.bytes, self.pos)?;
        let span = span(self.pos, end);
        self.pos = end;
        Some(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_inside_quotes_or_brackets_does_not_split() {
        let (first, rest) = split_comma(b"\"a, \\\"b\" <sip:x,y@z>;p=1, <sip:q>");
        assert_eq!(first, b"\"a, \\\"b\" <sip:x,y@z>;p=1");
        assert_eq!(trim(rest), b"<sip:q>");
        assert_eq!(split_comma(b"\"open, x"), (&b"\"open, x"[..], &b""[..]));
        assert_eq!(split_comma(b"\"open\\"), (&b"\"open\\"[..], &b""[..]));
    }

    fn long_runs_agree<const CLASS: u8>() {
        for byte in 0..=u8::MAX {
            for at in 0..40 {
                let mut text = [b'a'; 40];
                text[at] = byte;
                for end in [0, at, at + 1, 17, 33, 40] {
                    let text = &text[..end];
                    assert_eq!(long_run::<CLASS>(text), run_len(text, CLASS), "{byte:#x}");
                    assert_eq!(long_all::<CLASS>(text), all(text, CLASS), "{byte:#x}");
                    assert_eq!(find_near(text, byte), memchr::memchr(byte, text));
                }
            }
        }
    }

    #[test]
    fn plain_text_ends_at_the_first_control_or_octet_above_127() {
        for byte in 0..=u8::MAX {
            for at in 0..40 {
                let mut text = [b'a'; 40];
                text[at] = byte;
                let plain = (b' '..0x80).contains(&byte);
                assert_eq!(plain_len(&text), if plain { 40 } else { at }, "{byte:#x}");
                let token = byte.is_ascii_alphanumeric() || at >= 32;
                assert_eq!(starts_with_token(&text), token, "{byte:#x}");
                assert!(!starts_with_token(&text[..31]));
            }
        }
    }

    #[test]
    fn long_runs_agree_with_the_table() {
        long_runs_agree::<TOKEN>();
        long_runs_agree::<URI>();
        long_runs_agree::<PARAM_VALUE>();
        long_runs_agree::<WORD>();
        long_runs_agree::<HOST>();
        long_runs_agree::<URI_PARAM>();
    }

    #[test]
    fn numbers_are_bounded_and_may_carry_leading_zeros() {
        assert_eq!(decimal_u32(b"0009"), Some(9));
        assert_eq!(decimal_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(decimal_u32(b"4294967296"), None);
        assert_eq!(decimal_u32(b"36893488147419103232"), None);
        assert_eq!(decimal_u32(b"-1"), None);
        assert_eq!(decimal_u32(b""), None);
    }

    #[test]
    fn tokens_hold_the_marks_of_the_grammar_and_no_others() {
        assert!(is_token(b"!interesting-Method0123456789_*+`.%indeed'~"));
        for byte in [b'^', b'(', b'@', b' ', b';', b'"', 0x80, 0, 0x7f] {
            assert!(!is_token(&[b'a', byte]), "{byte:#x}");
        }
    }
}
