//! The head of an ordinary message, start line and header lines: no folds, no tabs, no other control
//! characters, nothing above 127.
//!
//! One pass: sixteen octets at a step it looks for the first control character, which in an ordinary
//! message is the CR of the line's end, so that finding the lines proves that they are ordinary; the
//! colon and the name come from the same words. Whatever is out of the ordinary is left to the
//! careful reader next door, which also finds the words for a refusal; both note the same for the
//! same octets.

use crate::base::limits::SIP_LINE_BYTES_MAX;
use crate::sip::header::HeaderName;
use crate::sip::message::{HeaderTable, Method};
use crate::sip::scan::{find_near, is_token, plain_len, span, word, zero_octets};

/// Reads start line and header lines. `false`: not ordinary, or not whole; the table then holds some
/// of it.
pub(super) fn head(bytes: &[u8], table: &mut HeaderTable) -> bool {
    // A head within this limit has no line beyond it.
    let bytes = &bytes[..bytes.len().min(SIP_LINE_BYTES_MAX)];
    let end = plain_len(bytes);
    if !ends_line(bytes, end) || !start_line(&bytes[..end], table) {
        return false;
    }
    let mut start = end + 2;
    loop {
        let Some(rest) = bytes.get(start..) else {
            return false;
        };
        let len = plain_len(rest);
        if !ends_line(rest, len) {
            return false;
        }
        if len == 0 {
            table.headers_end = start + 2;
            table.unfolded = true;
            return true;
        }
        if !header_line(rest, start, len, table) {
            return false;
        }
        start += len + 2;
    }
}

/// CRLF stands at `at`.
#[inline]
fn ends_line(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at..), Some([b'\r', b'\n', ..]))
}

/// Notes a start line in the usual form.
#[inline]
fn start_line(line: &[u8], table: &mut HeaderTable) -> bool {
    if let [b'S', b'I', b'P', b'/', rest @ ..] = line {
        return status_line(rest, line.len(), table);
    }
    request_line(line, table)
}

/// Notes what follows `SIP/` in a status line of `len` octets.
#[inline]
fn status_line(rest: &[u8], len: usize, table: &mut HeaderTable) -> bool {
    let [b'2', b'.', b'0', b' ', a, b, c, reason @ ..] = rest else {
        return false;
    };
    let [a, b, c] = [a, b, c].map(|digit| digit.wrapping_sub(b'0'));
    let digits = a.wrapping_sub(1) < 6 && b < 10 && c < 10;
    if !digits || !matches!(reason.first(), None | Some(b' ')) {
        return false;
    }
    table.start.status = u16::from(a) * 100 + u16::from(b) * 10 + u16::from(c);
    table.start.text = span(12.min(len), len);
    true
}

fn request_line(line: &[u8], table: &mut HeaderTable) -> bool {
    const VERSION: &[u8] = b" SIP/2.0";
    let Some(head) = line.strip_suffix(VERSION) else {
        return false;
    };
    let Some(method) = head.iter().position(|byte| *byte == b' ') else {
        return false;
    };
    let uri = method + 1;
    table.method = Method::lookup(&head[..method]);
    if table.method == Method::Unknown || uri == head.len() {
        return false;
    }
    table.start.text = span(0, method);
    table.start.uri = span(uri, head.len());
    find_near(&head[uri..], b' ').is_none()
}

/// Notes the line that `rest` starts with, `len` octets at `start`; `false` when it is a fold, has no
/// colon, its name is no token, or the table is full.
#[inline]
fn header_line(rest: &[u8], start: usize, len: usize, table: &mut HeaderTable) -> bool {
    let Some((name, colon)) = name(rest) else {
        return false;
    };
    let Some(value) = rest.get(colon + 1..len) else {
        return false;
    };
    if name == HeaderName::Other && !is_token(&rest[..colon]) {
        return false;
    }
    let mut value = value;
    while let [b' ', kept @ ..] = value {
        value = kept;
    }
    let at = len - value.len();
    while let [kept @ .., b' '] = value {
        value = kept;
    }
    let at = start + at;
    table.push(name, start, colon, span(at, at + value.len()))
}

/// The name before the first colon, and where the colon is.
#[inline]
fn name(rest: &[u8]) -> Option<(HeaderName, usize)> {
    let head = word(rest, 0).unwrap_or_default();
    let marks = colons(head);
    if marks != 0 {
        let len = (marks.trailing_zeros() / 8) as usize;
        return Some((HeaderName::lookup_short(head, len, rest), len));
    }
    let colon = long_colon(rest)?;
    Some((HeaderName::lookup_in(rest, colon), colon))
}

/// Bit 7 of each octet that is a colon; those above the lowest set may be wrong.
#[inline]
const fn colons(word: u64) -> u64 {
    zero_octets(word ^ u64::from_le_bytes([b':'; 8]))
}

/// The first colon, looked for eight octets at a step.
#[inline]
fn long_colon(rest: &[u8]) -> Option<usize> {
    let (words, tail) = rest.as_chunks::<8>();
    let mut marks = 0;
    let found = words.iter().position(|word| {
        marks = colons(u64::from_le_bytes(*word));
        marks != 0
    });
    if let Some(index) = found {
        return Some(index * 8 + (marks.trailing_zeros() / 8) as usize);
    }
    let step = tail.iter().position(|byte| *byte == b':')?;
    Some(words.len() * 8 + step)
}
