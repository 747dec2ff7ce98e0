//! Via (RFC 3261 section 20.42, RFC 3581, RFC 7339).

use core::ops::Range;

use crate::base::shape::{Freedom, Shape};
use crate::base::span::Span;
use crate::base::token::{FILLER, TOKEN_LEN};
use crate::sip::header::params::{Params, next_param};
use crate::sip::parser::{ParseError, ParseErrorKind};
use crate::sip::scan::{
    Cursor, HOST, PARAM_VALUE, TOKEN, decimal_u32, long_run, port_at, span, split_comma,
    starts_with_token, word,
};

use super::HeaderName;

/// How a Via value begins.
const PROTOCOL: &[u8; 8] = b"SIP/2.0/";
/// What stands before a branch.
const BRANCH: &[u8; 8] = b";branch=";
/// Octets of the magic cookie (RFC 3261 section 8.1.1.7).
const MAGIC_LEN: usize = MAGIC.len();
/// With it a branch is one of RFC 3261.
const MAGIC: &[u8] = b"z9hG4bK";

/// One Via value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// `UDP`, `TCP`, `TLS`...; compare without case.
    pub transport: &'a [u8],
    /// Host of sent-by; an IPv6 reference keeps its brackets.
    pub host: &'a [u8],
    /// Port of sent-by; `None` when absent.
    pub port: Option<u16>,
    /// The branch, magic cookie included; `None` in RFC 2543 messages.
    pub branch: Option<&'a [u8]>,
    /// All parameters, those above included; overload parameters are found here (`oc`).
    pub params: Params<'a>,
    /// `Some(None)` asks for `rport` (RFC 3581), `Some(Some(port))` carries it. Of a parsed response
    /// only what precedes the branch is read; the rest is found in `params`. So too `received`.
    pub rport: Option<Option<u16>>,
    /// The `received` parameter, as written.
    pub received: Option<&'a [u8]>,
}

/// Where the parts of a Via value lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ViaSpans {
    transport: Span,
    host: Span,
    branch: Span,
    params: Span,
    received: Span,
    port: Option<u16>,
    rport: Option<Option<u16>>,
    /// No comma follows in the same line.
    alone: bool,
}

impl<'a> Via<'a> {
    /// Reads one value (no comma list).
    ///
    /// # Errors
    /// `Bad(Via)` with the offset of the defect in `value`.
    pub fn parse(value: &'a [u8]) -> Result<Self, ParseError> {
        let spans = ViaSpans::parse(value, 0, value.len())?;
        Ok(spans.resolve(value))
    }

    /// `true` when the branch carries the magic cookie and something after it.
    #[must_use]
    pub fn has_rfc3261_branch(&self) -> bool {
        self.branch
            .is_some_and(|branch| branch.len() > 7 && branch[..7].eq_ignore_ascii_case(b"z9hG4bK"))
    }
}

impl ViaSpans {
    /// Notes what may be another without a part moving: the branch behind the magic cookie.
    pub(crate) fn free(&self, bytes: &[u8], shape: &mut Shape) {
        let branch = self.branch.slice(bytes);
        if branch.starts_with(MAGIC) {
            let Range { start, end } = self.branch.range();
            shape.free(start + MAGIC_LEN..end, Freedom::Word);
        }
    }

    /// Reads the first value of `bytes[start..end]`; it ends at a comma or at `end`.
    pub(crate) fn parse(bytes: &[u8], start: usize, end: usize) -> Result<Self, ParseError> {
        let mut via = Self::default();
        let mut cursor = Cursor::new(bytes, start, end);
        let read = if let Some(branch_end) = via.read_usual(bytes, start, end) {
            if branch_end == end {
                via.alone = true;
                return Ok(via);
            }
            cursor.pos = branch_end;
            via.read_params(&mut cursor)
        } else {
            via = Self::default();
            via.read(&mut cursor)
        };
        read.map_err(|at| ParseError::new(ParseErrorKind::Bad(HeaderName::Via), at))?;
        Ok(via)
    }

    /// As [`ViaSpans::parse`] for a value that repeats ours: reads up to the branch, and looks for
    /// the end of the value without judging the parameters before it.
    pub(crate) fn parse_echo(bytes: &[u8], start: usize, end: usize) -> Result<Self, ParseError> {
        let mut via = Self::default();
        if let Some(branch_end) = via.read_usual(bytes, start, end) {
            via.end_echo(bytes, branch_end, end);
            return Ok(via);
        }
        via = Self::default();
        let mut cursor = Cursor::new(bytes, start, end);
        via.read_echo(&mut cursor)
            .map_err(|at| ParseError::new(ParseErrorKind::Bad(HeaderName::Via), at))?;
        Ok(via)
    }

    /// Reads a value as nearly everybody writes it, up to its branch, which comes first among the
    /// parameters; returns where the branch ends. `None`: another spelling, or a defect.
    #[inline]
    fn read_usual(&mut self, bytes: &[u8], start: usize, end: usize) -> Option<usize> {
        let text = bytes.get(start..end)?;
        let (protocol, text) = text.split_first_chunk::<8>()?;
        let (transport, _) = text.split_first_chunk::<4>()?;
        let known = matches!(transport, b"TCP " | b"UDP " | b"TLS ");
        if protocol != PROTOCOL || !known {
            return None;
        }
        let host = start + PROTOCOL.len() + 4;
        let mut at = host + long_run::<HOST>(bytes.get(host..)?);
        self.transport = span(host - 4, host - 1);
        self.host = span(host, at);
        if bytes.get(at) == Some(&b':') {
            let (port, end) = port_at(bytes, at + 1)?;
            self.port = Some(port);
            at = end;
        }
        if word(bytes, at)? != u64::from_le_bytes(*BRANCH) || self.host.is_empty() {
            return None;
        }
        let branch = at + BRANCH.len();
        let rest = bytes.get(branch..)?;
        // Ours are 32 letters and digits behind the magic cookie, over datagrams often with filler.
        let mut ours = MAGIC_LEN + TOKEN_LEN;
        if rest.get(ours) == Some(&FILLER[0]) {
            ours += long_run::<PARAM_VALUE>(&rest[ours..]);
        }
        let len = match rest.get(ours) {
            Some(b';' | b'\r')
                if starts_with_token(&rest[MAGIC_LEN..]) && rest.starts_with(b"z9hG4bK") =>
            {
                ours
            }
            _ => long_run::<PARAM_VALUE>(rest),
        };
        let stop = branch + len;
        let fine = stop == end || (stop < end && bytes[stop] == b';');
        if len == 0 || !fine {
            return None;
        }
        self.branch = span(branch, stop);
        self.params = span(at, stop);
        Some(stop)
    }

    fn read_echo(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        self.read_sent_by(cursor)?;
        let start = cursor.pos;
        while let Some((name, value)) = next_param(cursor, TOKEN)? {
            self.note(cursor, name, value)?;
            if !self.branch.is_empty() {
                break;
            }
        }
        if !matches!(cursor.peek(), None | Some(b';' | b',')) {
            return Err(cursor.pos);
        }
        self.params = span(start, start);
        self.end_echo(cursor.bytes, cursor.pos, cursor.bytes.len());
        Ok(())
    }

    /// Looks from `at` on for the end of the value, a comma outside quotes or `end`.
    fn end_echo(&mut self, bytes: &[u8], at: usize, end: usize) {
        let rest = &bytes[at..end];
        let mut value = rest;
        // What follows a branch is long where overload control is spoken, but mostly has no comma.
        if memchr::memchr(b',', rest).is_some() {
            (value, _) = split_comma(rest);
        }
        self.params = span(self.params.start as usize, at + value.len());
        self.alone = value.len() == rest.len();
    }

    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        self.read_sent_by(cursor)?;
        self.params = span(cursor.pos, cursor.pos);
        self.read_params(cursor)
    }

    /// The parameters from the cursor on; those before it are read.
    fn read_params(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        while let Some((name, value)) = next_param(cursor, TOKEN)? {
            self.note(cursor, name, value)?;
        }
        self.params = span(self.params.start as usize, cursor.pos);
        self.alone = cursor.at_end();
        if !cursor.at_end() && cursor.peek() != Some(b',') {
            return Err(cursor.pos);
        }
        Ok(())
    }

    fn read_sent_by(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        self.read_protocol(cursor)?;
        if !cursor.skip_lws() {
            return Err(cursor.pos);
        }
        self.host = host(cursor)?;
        cursor.skip_lws();
        if cursor.eat(b':') {
            cursor.skip_lws();
            let digits = cursor.run(TOKEN);
            self.port = Some(port(digits.slice(cursor.bytes)).ok_or(cursor.pos)?);
            cursor.skip_lws();
        }
        Ok(())
    }

    fn read_protocol(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        if cursor.rest().starts_with(b"SIP/2.0/") {
            cursor.pos += 8;
            // RFC 3261 section 25.1: SLASH takes white space on both sides.
            cursor.skip_lws();
        } else {
            let name = cursor.run(TOKEN);
            if !name.slice(cursor.bytes).eq_ignore_ascii_case(b"SIP") {
                return Err(cursor.pos);
            }
            slash(cursor)?;
            if cursor.run(TOKEN).slice(cursor.bytes) != b"2.0" {
                return Err(cursor.pos);
            }
            slash(cursor)?;
        }
        self.transport = cursor.run(TOKEN);
        if self.transport.is_empty() {
            Err(cursor.pos)
        } else {
            Ok(())
        }
    }

    /// Keeps the parameters that routing needs; a repeated one counts once, the first.
    #[inline]
    fn note(&mut self, cursor: &Cursor<'_>, name: Span, value: Option<Span>) -> Result<(), usize> {
        let text = name.slice(cursor.bytes);
        let at = name.start as usize;
        if text.eq_ignore_ascii_case(b"branch") {
            let span = value.ok_or(at)?;
            if self.branch.is_empty() {
                self.branch = span;
            }
        } else if text.eq_ignore_ascii_case(b"rport") {
            let number = match value {
                None => None,
                Some(span) => Some(port(span.slice(cursor.bytes)).ok_or(at)?),
            };
            self.rport = self.rport.or(Some(number));
        } else if text.eq_ignore_ascii_case(b"received") {
            let span = value.ok_or(at)?;
            if self.received.is_empty() {
                self.received = span;
            }
        }
        Ok(())
    }

    /// `true` when the line holds this value only.
    pub(crate) const fn is_alone(&self) -> bool {
        self.alone
    }

    /// The value over the bytes it was read from.
    pub(crate) fn resolve<'a>(&self, bytes: &'a [u8]) -> Via<'a> {
        let some = |span: Span| (!span.is_empty()).then(|| span.slice(bytes));
        Via {
            transport: self.transport.slice(bytes),
            host: self.host.slice(bytes),
            port: self.port,
            branch: some(self.branch),
            params: Params::new(self.params.slice(bytes)),
            rport: self.rport,
            received: some(self.received),
        }
    }
}

fn slash(cursor: &mut Cursor<'_>) -> Result<(), usize> {
    cursor.skip_lws();
    if !cursor.eat(b'/') {
        return Err(cursor.pos);
    }
    cursor.skip_lws();
    Ok(())
}

/// A host name, IPv4 address or bracketed IPv6 address.
pub(crate) fn host(cursor: &mut Cursor<'_>) -> Result<Span, usize> {
    let start = cursor.pos;
    if cursor.eat(b'[') {
        while cursor
            .peek()
            .is_some_and(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        {
            cursor.pos += 1;
        }
        let empty = cursor.pos == start + 1;
        if empty || !cursor.eat(b']') {
            return Err(cursor.pos);
        }
        return Ok(span(start, cursor.pos));
    }
    let span = cursor.run(HOST);
    if span.is_empty() {
        Err(start)
    } else {
        Ok(span)
    }
}

/// A port: decimal, 1 to 65535.
pub(crate) fn port(digits: &[u8]) -> Option<u16> {
    let value = u16::try_from(decimal_u32(digits)?).ok()?;
    (value != 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::parser::tests::{Random, mutate};

    #[test]
    fn reads_every_spelling_the_grammar_allows() {
        let via = Via::parse(b"SIP/2.0/UDP 192.0.2.2;branch=390skdjuw").unwrap();
        assert_eq!(
            (via.transport, via.host, via.port),
            (&b"UDP"[..], &b"192.0.2.2"[..], None)
        );
        assert_eq!(via.branch, Some(&b"390skdjuw"[..]));
        assert!(!via.has_rfc3261_branch());
        let via = Via::parse(
            b"sip  /   2.0\r\n /TCP\r\n  [2001:db8::9:1] : 5070 ; Branch =\r\n z9hG4bK9 ;rport;received=::1",
        )
        .unwrap();
        assert_eq!((via.host, via.port), (&b"[2001:db8::9:1]"[..], Some(5070)));
        assert_eq!(via.branch, Some(&b"z9hG4bK9"[..]));
        assert_eq!(via.rport, Some(None));
        assert_eq!(via.received, Some(&b"::1"[..]));
        let via = Via::parse(b"SIP/2.0/ TCP h;branch=z9hG4bKx").unwrap();
        assert_eq!((via.transport, via.host), (&b"TCP"[..], &b"h"[..]));
        let oc = b"SIP/2.0/TCP h;branch=z9hG4bKx;oc=0;oc-algo=\"loss,rate\";oc-validity=0;rport=9";
        let via = Via::parse(oc).unwrap();
        assert_eq!(via.params.find(b"oc"), Some(&b"0"[..]));
        assert_eq!(via.params.find(b"oc-algo"), Some(&b"\"loss,rate\""[..]));
        assert_eq!(via.rport, Some(Some(9)));
    }

    #[test]
    fn refuses_what_cannot_route_an_answer() {
        let bad: [&[u8]; 15] = [
            b"",
            b"SIP/2.0/UDP",
            b"SIP/2.0/ host",
            b"SIP/2.0/ ",
            b"SIP/3.0/UDP host",
            b"HTTP/2.0/UDP host",
            b"SIP/2.0/UDP ;branch=x",
            b"SIP/2.0/UDP h;branch=",
            b"SIP/2.0/UDP h;;branch=x",
            b"SIP/2.0/UDP h;branch=x junk",
            b"SIP/2.0/UDP h:0",
            b"SIP/2.0/UDP h:65536",
            b"SIP/2.0/UDP 2001:db8::1",
            b"SIP/2.0/UDP [::1",
            b"SIP/2.0/UDP h;rport=x",
        ];
        for text in bad {
            assert!(
                Via::parse(text).is_err(),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn the_usual_spelling_reads_as_all_others_do() {
        let seeds: [&[u8]; 4] = [
            b"SIP/2.0/TCP push1.home.example:5060;branch=z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb;oc=0;oc-algo=\"loss\"\r\n",
            b"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb\r\n",
            b"SIP/2.0/TLS h;branch=z9hG4bK-7, SIP/2.0/TCP other;branch=z9hG4bK8\r\n",
            b"SIP/2.0/TCP host-1.example:65535;branch=x;rport=1;received=::1\r\n",
        ];
        let mut random = Random(0x5eed_0004);
        let mut taken = 0;
        for round in 0..40_000 {
            let mut bytes = seeds[round % seeds.len()].to_vec();
            mutate(&mut random, &mut bytes);
            let end = bytes
                .iter()
                .position(|b| *b == b'\r')
                .unwrap_or(bytes.len());
            let slow = |echo: bool| {
                let mut cursor = Cursor::new(&bytes, 0, end);
                let mut via = ViaSpans::default();
                let read = if echo {
                    via.read_echo(&mut cursor)
                } else {
                    via.read(&mut cursor)
                };
                read.map(|()| via).ok()
            };
            taken += usize::from(ViaSpans::default().read_usual(&bytes, 0, end).is_some());
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(ViaSpans::parse(&bytes, 0, end).ok(), slow(false), "{text}");
            assert_eq!(
                ViaSpans::parse_echo(&bytes, 0, end).ok(),
                slow(true),
                "{text}"
            );
        }
        assert!(taken > 5_000, "{taken} in the usual spelling");
    }

    #[test]
    fn an_echo_ends_at_a_comma_outside_quotes() {
        let own = "SIP/2.0/TCP h:5060;branch=z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb";
        let quoted = ";oc;oc-algo=\"loss,rate\"";
        for (rest, params, alone) in [
            (quoted.to_owned(), quoted, true),
            (format!("{quoted}, SIP/2.0/TCP x"), quoted, false),
            (", SIP/2.0/TCP x;y=\"1,2\"".to_owned(), "", false),
        ] {
            let text = format!("{own}{rest}");
            let read = ViaSpans::parse_echo(text.as_bytes(), 0, text.len());
            let via = read.unwrap();
            let expected = format!("{}{params}", &own[own.find(';').unwrap()..]);
            let params = via.resolve(text.as_bytes()).params.as_bytes();
            assert_eq!(params, expected.as_bytes(), "{text}");
            assert_eq!(via.is_alone(), alone, "{text}");
        }
    }
}
