//! Byte classes and small scanners of the SIP grammar (RFC 3261 section 25.1). Layer 1.
//!
//! Everything here is total: no input panics, nothing allocates. White space inside a header value
//! may be a fold; the parser has already checked that every CR and LF in the header section belongs
//! to a line end, so the scanners treat CR, LF, SP and HTAB alike.

use core::hint::black_box;

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

/// `true` for an octet outside the class, which is one of [`HOST`], [`TOKEN`], [`URI`],
/// [`URI_PARAM`], [`PARAM_VALUE`] and [`WORD`] alone: what the table says, as comparisons that
/// vectorise.
#[inline]
const fn outside<const CLASS: u8>(byte: u8) -> bool {
    let blank = byte <= b' ';
    if CLASS == PARAM_VALUE {
        let comma = (byte == b',') | (byte == b';');
        let quote = (byte == b'"') | (byte == b'\\');
        return blank | comma | quote | (byte | 2 == b'>') | (byte == 0x7f);
    }
    if CLASS == HOST {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = (byte.wrapping_sub(b'-') < 13) & (byte != b'/');
        return !(letter | digit | (byte == b'_'));
    }
    let curly = (byte >= b'{') & (byte != b'~');
    if CLASS == URI_PARAM {
        let quote = (byte | 1 == b'#') | (byte == b',') | (byte == b'`');
        let colon = (byte >= b';') & (byte <= b'@');
        let slash = (byte == b'\\') | (byte == b'^');
        return blank | curly | quote | colon | slash;
    }
    if CLASS == URI {
        let quote = byte | 1 == b'#';
        let bracket = (byte | 2 == b'>') | (byte | 2 == b'^');
        return blank | curly | quote | bracket | (byte == b'`');
    }
    if CLASS == WORD {
        let hash = (byte | 1 == b'%') & (byte != b'%') | (byte == b'#') | (byte == b'&');
        let comma = (byte == b',') | (byte == b';') | (byte == b'=');
        let bar = (byte == b'^') | (byte == b'|');
        return blank | hash | comma | bar | (byte >= 0x7f);
    }
    let quote = (byte == b'"') | (byte == b'#') | (byte == b'$') | (byte == b'&');
    let bracket = (byte | 1 == b')') | (byte.wrapping_sub(b'[') <= 3);
    let comma = (byte == b',') | (byte == b'/');
    let colon = byte.wrapping_sub(b':') <= 6;
    blank | curly | quote | bracket | comma | colon
}

/// A one for each of sixteen octets that lies outside the class.
///
/// The marks pass through a black box: else the compiler mixes finding any with finding the first
/// and compares octet by octet.
#[inline]
fn marks<const CLASS: u8>(chunk: &[u8; 16]) -> u128 {
    let mut marks = [0_u8; 16];
    for (mark, byte) in marks.iter_mut().zip(chunk) {
        *mark = u8::from(outside::<CLASS>(*byte));
    }
    u128::from_le_bytes(black_box(marks))
}

/// As [`run_len`], for runs that are long as a rule; the class as for [`outside`].
#[inline]
pub(crate) fn long_run<const CLASS: u8>(bytes: &[u8]) -> usize {
    let Some(last) = bytes.last_chunk::<16>() else {
        return run_len(bytes, CLASS);
    };
    let (chunks, _) = bytes.as_chunks::<16>();
    let mut at = 0;
    for chunk in chunks {
        let marks = marks::<CLASS>(chunk);
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 16;
    }
    // The last sixteen overlap those before; without a mark the result is the length.
    bytes.len() - 16 + (marks::<CLASS>(last).trailing_zeros() / 8) as usize
}

/// As [`all`], for texts that are long as a rule; the class as for [`outside`].
#[inline]
pub(crate) fn long_all<const CLASS: u8>(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<16>() else {
        return all(bytes, CLASS);
    };
    // The last sixteen overlap those before.
    let (chunks, _) = bytes.as_chunks::<16>();
    let fine = |chunk| marks::<CLASS>(chunk) == 0;
    fine(last) && chunks.iter().all(fine)
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
    let odd = |byte: u8| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        !letter & (byte.wrapping_sub(b'0') > 9)
    };
    let mut marks = [0_u8; 32];
    for (mark, byte) in marks.iter_mut().zip(chunk) {
        *mark = u8::from(odd(*byte));
    }
    marks == [0; 32]
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// Bit 7 of each zero octet; bits above the lowest one set may be wrong.
#[inline]
pub(crate) const fn zero_octets(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Octets before the first that `marks` marks: bit 7 of an octet, of which the lowest set is right.
#[inline]
fn run_until(bytes: &[u8], marks: impl Fn(u64) -> u64 + Copy) -> usize {
    let mut at = 0;
    while let Some(pair) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let step = first_mark(pair, marks);
        if step < 16 {
            return at + step;
        }
        at += 16;
    }
    if let Some(last) = bytes.last_chunk::<16>() {
        // They overlap those before; without a mark the result is the length.
        return bytes.len() - 16 + first_mark(last, marks);
    }
    let stops = |byte: &u8| marks(u64::from(*byte) | FILL) & 0x80 != 0;
    bytes.iter().position(stops).unwrap_or(bytes.len())
}

/// Octets before the first of sixteen that is marked.
#[inline]
fn first_mark(pair: &[u8; 16], marks: impl Fn(u64) -> u64) -> usize {
    let pair = u128::from_le_bytes(*pair);
    let (low, high) = (marks(low_half(pair)), marks(low_half(pair >> 64)));
    if low | high == 0 {
        return 16;
    }
    let (word, base) = if low == 0 { (high, 8) } else { (low, 0) };
    base + (word.trailing_zeros() / 8) as usize
}

/// Seven octets above one that is looked at alone.
const FILL: u64 = u64::from_le_bytes([0, b'a', b'a', b'a', b'a', b'a', b'a', b'a']);

#[expect(clippy::cast_possible_truncation, reason = "half of it is wanted")]
#[inline]
const fn low_half(pair: u128) -> u64 {
    pair as u64
}

/// Octets before the first that is a control character or no ASCII; DEL passes.
#[inline]
pub(crate) fn plain_len(bytes: &[u8]) -> usize {
    let odd = |byte: &u8| byte.cast_signed() < 0x20;
    // Of an octet below the blank the difference borrows; those beyond ASCII have the bit already.
    let marks = |word: u64| (word.wrapping_sub(ONES * 0x20) | word) & HIGHS;
    let (chunks, tail) = bytes.as_chunks::<16>();
    let any = |chunk: &[u8; 16]| chunk.iter().fold(false, |any, byte| any | odd(byte));
    match chunks.iter().position(any) {
        Some(index) => index * 16 + first_mark(&chunks[index], marks),
        None => chunks.len() * 16 + tail.iter().position(odd).unwrap_or(tail.len()),
    }
}

/// Where `needle` stands first, for needles that are near: an inlined search costs less than the
/// call of a better one.
#[inline]
pub(crate) fn find_near(bytes: &[u8], needle: u8) -> Option<usize> {
    let pattern = ONES * u64::from(needle);
    let at = run_until(bytes, |word| zero_octets(word ^ pattern));
    (at < bytes.len()).then_some(at)
}

/// Octets before the first of two needles, each octet taken with the bits `fold` set.
#[inline]
pub(crate) fn before_either(bytes: &[u8], fold: u8, needles: (u8, u8)) -> usize {
    let fold = ONES * u64::from(fold);
    let (a, b) = (ONES * u64::from(needles.0), ONES * u64::from(needles.1));
    run_until(bytes, |word| {
        let word = word | fold;
        zero_octets(word ^ a) | zero_octets(word ^ b)
    })
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
