//! The header section of an ordinary message: no folds, no NUL, nothing above 127.
//!
//! One vectorised search a line finds its end; one pass over the whole, which the compiler turns
//! into vector code, then proves that there was nothing but CRLF at line ends. Whatever is out of
//! the ordinary is left to the careful reader next door, which also finds the words for a refusal;
//! both note the same for the same octets.

use crate::base::limits::SIP_LINE_BYTES_MAX;
use crate::sip::header::HeaderName;
use crate::sip::message::HeaderTable;
use crate::sip::scan::{LWS, find_near, is, is_token, span};

/// Reads the header lines from `first` on. `false`: not ordinary; the table then holds some lines.
pub(super) fn header_section(bytes: &[u8], first: usize, table: &mut HeaderTable) -> bool {
    // A section within this limit has no line beyond it.
    let bytes = &bytes[..bytes.len().min(first + SIP_LINE_BYTES_MAX)];
    let mut start = first;
    loop {
        let rest = &bytes[start..];
        let Some(len) = find_near(rest, b'\n') else {
            return false;
        };
        if len < 2 {
            table.headers_end = start + len + 1;
            return len == 1 && is_ordinary(&bytes[first..table.headers_end]);
        }
        if !header_line(bytes, start, start + len - 1, table) {
            return false;
        }
        start += len + 1;
    }
}

/// Each CR is followed by LF, each LF preceded by CR, and there is no NUL and nothing above 127.
/// `section` ends in LF.
fn is_ordinary(section: &[u8]) -> bool {
    const STEP: usize = 32;
    // The top bit tells: of an octet above 127, of the predecessor of zero, of all ones.
    let odd = |byte: u8, next: u8| {
        let stray = (byte == b'\r') ^ (next == b'\n');
        byte | byte.wrapping_sub(1) | u8::from(stray) << 7
    };
    let nexts = &section[1..];
    let (chunks, rest) = section[..nexts.len()].as_chunks::<STEP>();
    let (next_chunks, next_rest) = nexts.as_chunks::<STEP>();
    let mut found = [0_u8; STEP];
    for (chunk, next) in chunks.iter().zip(next_chunks) {
        for at in 0..STEP {
            found[at] |= odd(chunk[at], next[at]);
        }
    }
    let mut last = 0;
    for (byte, next) in rest.iter().zip(next_rest) {
        last |= odd(*byte, *next);
    }
    let found = found.iter().fold(last, |all, lane| all | lane);
    found < 0x80 && section[0] != b'\n'
}

/// Notes the line `bytes[start..end]`; `false` when it is a fold, has no colon, its name is no
/// token, or the table is full.
#[inline]
fn header_line(bytes: &[u8], start: usize, end: usize, table: &mut HeaderTable) -> bool {
    let rest = &bytes[start..];
    let line = &rest[..end - start];
    let Some(colon) = colon(rest).filter(|colon| *colon < line.len()) else {
        return false;
    };
    let name = HeaderName::lookup_in(rest, colon);
    if name == HeaderName::Other && !is_token(&rest[..colon]) {
        return false;
    }
    let mut value = colon + 1;
    let mut value_end = line.len();
    while value < line.len() && is(line[value], LWS) {
        value += 1;
    }
    while value < value_end && is(line[value_end - 1], LWS) {
        value_end -= 1;
    }
    table.push(name, start, colon, span(start + value, start + value_end))
}

/// The first colon. Names are short: eight octets at a step find it.
#[inline]
fn colon(rest: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let (words, tail) = rest.as_chunks::<8>();
    let mut marks = 0;
    let word = words.iter().position(|word| {
        // A zero octet marks a colon; the lowest mark is exact.
        let word = u64::from_le_bytes(*word) ^ (ONES * b':' as u64);
        marks = word.wrapping_sub(ONES) & !word & HIGH;
        marks != 0
    });
    match word {
        Some(index) => Some(index * 8 + (marks.trailing_zeros() / 8) as usize),
        None => {
            let step = tail.iter().position(|byte| *byte == b':')?;
            Some(words.len() * 8 + step)
        }
    }
}
