//! CSeq, Session-Expires, dates, and values of the shape `token;params`.

use crate::base::span::Span;
use crate::base::time::UnixMillis;
use crate::sip::header::params::Params;
use crate::sip::message::Method;
use crate::sip::scan::{Cursor, TOKEN, decimal_u32, decimal_u64, end_of_quoted, span, trim};

/// CSeq: the number (below 2^31, RFC 3261 section 8.1.1.5) and the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Sequence number.
    pub number: u32,
    /// The method, [`Method::Unknown`] when we have no name for it.
    pub method: Method,
    /// The method as written.
    pub method_bytes: &'a [u8],
}

/// The same as [`CSeq`] over spans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CSeqSpans {
    pub(crate) number: u32,
    pub(crate) method: Method,
    pub(crate) method_span: Span,
}

/// Reads `bytes[start..end]`; `None` for a defect or a number of 2^31 or more.
pub(crate) fn parse_cseq(bytes: &[u8], start: usize, end: usize) -> Option<CSeqSpans> {
    if let Some(spans) = usual_cseq(bytes.get(start..end)?, start) {
        return Some(spans);
    }
    let mut cursor = Cursor::new(bytes, start, end);
    let digits = cursor.run(TOKEN);
    let number = decimal_u32(digits.slice(bytes)).filter(|number| *number < 1 << 31)?;
    if !cursor.skip_lws() {
        return None;
    }
    let method_span = cursor.run(TOKEN);
    if method_span.is_empty() || !cursor.at_end() {
        return None;
    }
    Some(CSeqSpans {
        number,
        method: Method::lookup(method_span.slice(bytes)),
        method_span,
    })
}

/// Up to eight digits, a blank, a method we know; `value` starts at `start`.
#[inline]
fn usual_cseq(value: &[u8], start: usize) -> Option<CSeqSpans> {
    let mut number = 0;
    let mut at = 0;
    while let Some(byte) = value.get(at).filter(|byte| byte.is_ascii_digit()) {
        number = number * 10 + u32::from(byte - b'0');
        at += 1;
        if at > 8 {
            return None;
        }
    }
    let [b' ', name @ ..] = value.get(at..)? else {
        return None;
    };
    let method = Method::lookup(name);
    if at == 0 || method == Method::Unknown {
        return None;
    }
    Some(CSeqSpans {
        number,
        method,
        method_span: span(start + at + 1, start + value.len()),
    })
}

/// Who refreshes the session (RFC 4028 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresher {
    /// The side that sent the request carrying the header.
    Uac,
    /// The side that answers it.
    Uas,
}

/// Session-Expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// The interval in seconds as written; the session timer clamps it.
    pub interval_s: u32,
    /// `None` when the parameter is absent.
    pub refresher: Option<Refresher>,
}

/// Leading digits, then nothing, parameters or a comment. `None` above 2^32-1.
pub(crate) fn parse_seconds(value: &[u8]) -> Option<u32> {
    let len = value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let rest = trim(&value[len..]);
    let fine = rest.is_empty() || matches!(rest[0], b';' | b'(');
    if fine {
        decimal_u32(&value[..len])
    } else {
        None
    }
}

/// RFC 4028 section 4. `None` for a bad number or an unknown refresher.
pub(crate) fn parse_session_expires(value: &[u8]) -> Option<SessionExpires> {
    let digits = value.len().saturating_sub(b";refresher=uac".len());
    let (number, who) = value.split_at(digits);
    let refresher = match who {
        b";refresher=uac" => Some(Refresher::Uac),
        b";refresher=uas" => Some(Refresher::Uas),
        [..] => None,
    };
    // Nearly everybody writes it so; all else is read with care.
    if let (Some(interval_s), Some(_)) = (decimal_u32(number), refresher) {
        return Some(SessionExpires {
            interval_s,
            refresher,
        });
    }
    let interval_s = parse_seconds(value)?;
    let start = memchr::memchr(b';', value).unwrap_or(value.len());
    let refresher = match Params::new(&value[start..]).find(b"refresher") {
        None => None,
        Some(who) if who.eq_ignore_ascii_case(b"uac") => Some(Refresher::Uac),
        Some(who) if who.eq_ignore_ascii_case(b"uas") => Some(Refresher::Uas),
        Some(_) => return None,
    };
    Some(SessionExpires {
        interval_s,
        refresher,
    })
}

/// A value such as `active;expires=5`, `reg` or `application/sdp; charset=x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameterized<'a> {
    /// What stands before the parameters, trimmed; not checked further.
    pub value: &'a [u8],
    /// The parameters.
    pub params: Params<'a>,
}

impl<'a> Parameterized<'a> {
    /// Splits at the first semicolon outside quotes. Never fails; what is odd stays in `value`.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Self {
        let mut at = 0;
        while let Some(step) = memchr::memchr2(b';', b'"', &bytes[at..]) {
            let hit = at + step;
            if bytes[hit] == b';' {
                return Self {
                    value: trim(&bytes[..hit]),
                    params: Params::new(&bytes[hit..]),
                };
            }
            at = end_of_quoted(bytes, hit).unwrap_or(bytes.len());
        }
        Self {
            value: trim(bytes),
            params: Params::default(),
        }
    }
}

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// An RFC 1123 date in GMT: `Sun, 22 Nov 2026 05:58:01 GMT`. The weekday is not checked.
pub(crate) fn date(value: &[u8]) -> Option<UnixMillis> {
    let comma = memchr::memchr(b',', value)?;
    let mut parts = value[comma + 1..]
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|part| !part.is_empty());
    let day = decimal_u64(parts.next()?)?;
    let name = parts.next()?;
    let month = MONTHS
        .iter()
        .position(|month| month.eq_ignore_ascii_case(name))?;
    let year = decimal_u64(parts.next()?)?;
    let mut clock = parts.next()?.split(|byte| *byte == b':');
    let hour = decimal_u64(clock.next()?)?;
    let minute = decimal_u64(clock.next()?)?;
    let second = decimal_u64(clock.next()?)?;
    let zone = parts.next()?;
    let ends = clock.next().is_none() && parts.next().is_none();
    if !ends || !zone.eq_ignore_ascii_case(b"GMT") {
        return None;
    }
    let month = u64::try_from(month).ok()? + 1;
    if !(1970..=9999).contains(&year) || day == 0 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    Some(UnixMillis::from_secs(
        ((days * 24 + hour) * 60 + minute) * 60 + second,
    ))
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + is_leap(year) as u64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of the month.
fn days_before(year: u64, month: u64) -> u64 {
    let years = year - 1970;
    let past = year - 1;
    let leaps = (past / 4 - past / 100 + past / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let months: u64 = (1..month).map(|earlier| days_in(year, earlier)).sum();
    years * 365 + leaps + months
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_match_known_instants() {
        let at = |text: &[u8]| date(text).map(UnixMillis::as_secs);
        assert_eq!(at(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(at(b"Sun, 22 Nov 2026 05:58:01 GMT"), Some(1_795_327_081));
        assert_eq!(at(b"Tue, 29 Feb 2000 23:59:59 GMT"), Some(951_868_799));
        assert_eq!(at(b"Sat, 13 Nov 2010 23:29:00 GMT"), Some(1_289_690_940));
        for bad in [
            &b"Fri, 01 Jan 2010 16:00:00 EST"[..],
            b"Fri, 29 Feb 2010 16:00:00 GMT",
            b"Fri, 01 Jan 2010 24:00:00 GMT",
            b"Fri, 01 Jan 2010 16:00 GMT",
            b"01 Jan 2010 16:00:00 GMT",
            b"Fri, 1 Foo 2010 16:00:00 GMT",
            b"",
        ] {
            assert_eq!(at(bad), None);
        }
    }

    #[test]
    fn session_expires_needs_a_number_and_a_known_refresher() {
        let read = |text: &[u8]| parse_session_expires(text).map(|s| (s.interval_s, s.refresher));
        assert_eq!(
            read(b"1800;refresher=uac"),
            Some((1800, Some(Refresher::Uac)))
        );
        assert_eq!(
            read(b"90 ; x ; Refresher = UAS"),
            Some((90, Some(Refresher::Uas)))
        );
        assert_eq!(read(b"4294967295"), Some((u32::MAX, None)));
        assert_eq!(read(b"4294967296"), None);
        assert_eq!(read(b"90;refresher=me"), None);
        assert_eq!(read(b"soon"), None);
        assert_eq!(read(b""), None);
    }

    #[test]
    fn cseq_is_bounded() {
        let read = |text: &[u8]| parse_cseq(text, 0, text.len()).map(|c| (c.number, c.method));
        assert_eq!(read(b"0009\r\n  INVITE"), Some((9, Method::Invite)));
        assert_eq!(
            read(b"2147483647 FOO"),
            Some((2_147_483_647, Method::Unknown))
        );
        for bad in [
            &b"2147483648 INVITE"[..],
            b"101",
            b"1INVITE",
            b"x INVITE",
            b"1 A B",
            b"",
        ] {
            assert_eq!(read(bad), None);
        }
    }

    #[test]
    fn parameterized_values_split_at_the_first_semicolon() {
        let value = Parameterized::parse(b"active ;expires=599999");
        assert_eq!(value.value, b"active");
        assert_eq!(value.params.find(b"expires"), Some(&b"599999"[..]));
        assert_eq!(Parameterized::parse(b"reg").params, Params::default());
    }
}
