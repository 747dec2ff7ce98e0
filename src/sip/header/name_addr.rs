//! `name-addr` and `addr-spec` with header parameters: From, To, Contact, Route and their kin.

use crate::base::shape::{Freedom, Shape};
use crate::base::span::Span;
use crate::sip::header::params::{Params, next_param};
use crate::sip::parser::{ParseError, ParseErrorKind};
use crate::sip::scan::{Cursor, LWS, TOKEN, URI, is, is_long_token, long_run, span};

use super::HeaderName;

/// A display name, a URI and header parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// As written, quotes included; `None` when absent.
    pub display: Option<&'a [u8]>,
    /// The URI without angle brackets; any scheme. Its characters are checked, its parts are not.
    pub uri: &'a [u8],
    /// Header parameters (outside the angle brackets).
    pub params: Params<'a>,
}

/// Where the parts lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddrSpans {
    display: Span,
    uri: Span,
    params: Span,
    tag: Span,
}

impl<'a> NameAddr<'a> {
    /// Reads one value; a comma list is refused.
    ///
    /// # Errors
    /// `Bad(Contact)` with the offset of the defect in `value`; `ContactStar` for a lone `*`.
    pub fn parse(value: &'a [u8]) -> Result<Self, ParseError> {
        let spans = AddrSpans::parse(value, 0, value.len(), HeaderName::Contact)?;
        if spans.end() != value.len() {
            return Err(ParseError::new(
                ParseErrorKind::Bad(HeaderName::Contact),
                spans.end(),
            ));
        }
        Ok(spans.resolve(value))
    }

    /// Reads the first value of a comma list.
    ///
    /// # Errors
    /// As [`NameAddr::parse`].
    pub fn parse_first(list: &'a [u8]) -> Result<Self, ParseError> {
        let spans = AddrSpans::parse(list, 0, list.len(), HeaderName::Contact)?;
        Ok(spans.resolve(list))
    }

    /// The `tag` parameter.
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.find(b"tag").filter(|tag| !tag.is_empty())
    }
}

/// Notes that the user of the URI at `uri` may be another of the same length. Escapes stay.
pub(crate) fn free_user(bytes: &[u8], uri: Span, shape: &mut Shape) {
    let (text, start) = (uri.slice(bytes), uri.start as usize);
    let scheme = memchr::memchr(b':', text);
    let (Some(scheme), Some(at)) = (scheme, memchr::memchr(b'@', text)) else {
        return;
    };
    shape.free(start + scheme..start + at, Freedom::Word);
    for escape in memchr::memchr_iter(b'%', &text[..at]) {
        shape.fix(start + escape..start + escape + 3);
    }
}

impl AddrSpans {
    /// Notes what may be another without a part moving: letters and digits of user and tag.
    pub(crate) fn free(&self, bytes: &[u8], shape: &mut Shape) {
        free_user(bytes, self.uri, shape);
        shape.free(self.tag.range(), Freedom::Word);
    }

    /// Reads the first value of `bytes[start..end]`; it ends at a comma or at `end`.
    pub(crate) fn parse(
        bytes: &[u8],
        start: usize,
        end: usize,
        name: HeaderName,
    ) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(bytes, start, end);
        if cursor.rest() == b"*" {
            return Err(ParseError::new(ParseErrorKind::ContactStar, start));
        }
        let mut addr = Self::default();
        let read = if addr.read_usual(&mut cursor) {
            addr.read_params(&mut cursor)
        } else {
            addr.read(&mut cursor)
        };
        read.map_err(|at| ParseError::new(ParseErrorKind::Bad(name), at))?;
        Ok(addr)
    }

    /// Reads `<sip:..>`, the form nearly everybody writes. `false`, and nothing read: another form, or
    /// a defect.
    #[inline]
    fn read_usual(&mut self, cursor: &mut Cursor<'_>) -> bool {
        let text = cursor.rest();
        let [b'<', b's', b'i', b'p', b':', ..] = text else {
            return false;
        };
        let end = 1 + long_run::<URI>(&text[1..]);
        // The scheme alone is no URI.
        if end == b"<sip:".len() || text.get(end) != Some(&b'>') {
            return false;
        }
        self.uri = span(cursor.pos + 1, cursor.pos + end);
        cursor.pos += end + 1;
        true
    }

    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        cursor.skip_lws();
        if cursor.eat(b'<') {
            self.read_bracketed(cursor)?;
        } else if cursor.peek() == Some(b'"') {
            self.display = cursor.quoted().ok_or(cursor.pos)?;
            cursor.skip_lws();
            if !cursor.eat(b'<') {
                return Err(cursor.pos);
            }
            self.read_bracketed(cursor)?;
        } else {
            self.read_unquoted(cursor)?;
        }
        self.read_params(cursor)
    }

    /// Header parameters up to a comma or the end.
    #[inline]
    fn read_params(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        let start = cursor.pos;
        match cursor.rest() {
            [] | [b',', ..] => {
                self.params = span(start, start);
                return Ok(());
            }
            [b';', b't', b'a', b'g', b'=', tag @ ..] if is_long_token(tag) => {
                cursor.pos = cursor.bytes.len();
                self.params = span(start, cursor.pos);
                self.tag = span(start + b";tag=".len(), cursor.pos);
                return Ok(());
            }
            [..] => {}
        }
        self.read_any_params(cursor)
    }

    fn read_any_params(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        let start = cursor.pos;
        while let Some((name, value)) = next_param(cursor, TOKEN)? {
            if name.slice(cursor.bytes).eq_ignore_ascii_case(b"tag") && self.tag.is_empty() {
                let span = value.ok_or(name.start as usize)?;
                if !is_long_token(span.slice(cursor.bytes)) {
                    return Err(span.start as usize);
                }
                self.tag = span;
            }
        }
        self.params = span(start, cursor.pos);
        if !cursor.at_end() && cursor.peek() != Some(b',') {
            return Err(cursor.pos);
        }
        Ok(())
    }

    /// The rest of `<uri>`.
    fn read_bracketed(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        let start = cursor.pos;
        self.uri = cursor.long_run::<URI>();
        if !has_scheme(self.uri.slice(cursor.bytes)) {
            return Err(start);
        }
        if cursor.eat(b'>') {
            Ok(())
        } else {
            Err(cursor.pos)
        }
    }

    /// Display name of words before `<`, or a bare `addr-spec`, whose `;` starts header parameters
    /// and which may hold neither `?` nor `,` (RFC 3261 section 20).
    fn read_unquoted(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
        let start = cursor.pos;
        let mut words_end = start;
        let mut words = true;
        while let Some(byte) = cursor.peek() {
            if byte == b'<' || matches!(byte, b';' | b',') {
                break;
            }
            if !is(byte, LWS) {
                words &= is(byte, TOKEN) || byte >= 0x80;
                words_end = cursor.pos + 1;
            }
            cursor.pos += 1;
        }
        if cursor.peek() == Some(b'<') {
            if !words {
                return Err(start);
            }
            self.display = span(start, words_end);
            cursor.pos += 1;
            return self.read_bracketed(cursor);
        }
        cursor.pos = start;
        let more = |byte: &u8| !is(*byte, URI) || matches!(byte, b';' | b',' | b'?');
        let rest = cursor.rest();
        cursor.pos += rest.iter().position(more).unwrap_or(rest.len());
        self.uri = span(start, cursor.pos);
        if has_scheme(self.uri.slice(cursor.bytes)) {
            Ok(())
        } else {
            Err(start)
        }
    }

    pub(crate) fn resolve(self, bytes: &[u8]) -> NameAddr<'_> {
        NameAddr {
            display: (!self.display.is_empty()).then(|| self.display.slice(bytes)),
            uri: self.uri.slice(bytes),
            params: Params::new(self.params.slice(bytes)),
        }
    }

    /// Where the URI is.
    pub(crate) const fn uri(&self) -> Span {
        self.uri
    }

    /// One past the last octet read, white space before a comma or the end included.
    pub(crate) const fn end(&self) -> usize {
        self.params.start as usize + self.params.len as usize
    }

    pub(crate) fn tag(self, bytes: &[u8]) -> Option<&[u8]> {
        (!self.tag.is_empty()).then(|| self.tag.slice(bytes))
    }
}

/// `scheme ":"` and at least one octet after it.
fn has_scheme(uri: &[u8]) -> bool {
    if uri.starts_with(b"sip:") && uri.len() > 4 {
        return true;
    }
    let Some((&first, rest)) = uri.split_first() else {
        return false;
    };
    if !first.is_ascii_alphabetic() {
        return false;
    }
    let more = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
    let len = rest.iter().take_while(|c| more(c)).count();
    rest.get(len) == Some(&b':') && rest.len() > len + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::parser::tests::{Random, mutate};

    #[test]
    fn reads_the_forms_of_the_grammar() {
        let addr = NameAddr::parse(b"\"J \\\"R\\\\\" <sip:j@x>\r\n ;\r\n tag = 98 ;q=0.3").unwrap();
        assert_eq!(addr.display, Some(&b"\"J \\\"R\\\\\""[..]));
        assert_eq!((addr.uri, addr.tag()), (&b"sip:j@x"[..], Some(&b"98"[..])));
        let addr = NameAddr::parse(b"caller<sip:c@x;lr>;tag=323").unwrap();
        assert_eq!(
            (addr.display, addr.uri),
            (Some(&b"caller"[..]), &b"sip:c@x;lr"[..])
        );
        let addr = NameAddr::parse(b"sip:c@x:5060 ;   tag    = n").unwrap();
        assert_eq!((addr.display, addr.uri), (None, &b"sip:c@x:5060"[..]));
        assert_eq!(addr.tag(), Some(&b"n"[..]));
        let addr = NameAddr::parse(b"A. B. C  <tel:+1>").unwrap();
        assert_eq!(addr.display, Some(&b"A. B. C"[..]));
        assert_eq!(addr.tag(), None);
        assert_eq!(
            NameAddr::parse(b"http://www.example.com").unwrap().params,
            Params::new(b"")
        );
        let text = "Жора <sip:z@x>".as_bytes();
        assert_eq!(NameAddr::parse(text).unwrap().uri, b"sip:z@x");
    }

    #[test]
    fn refuses_defects_and_names_the_star() {
        let bad: [&[u8]; 18] = [
            b"",
            b"<>",
            b"\"open <sip:a@b>",
            b"\"x\" sip:a@b",
            b"<sip:a@b",
            b"<sip:a b>",
            b"< sip:a@b >",
            b"Bell, A <sip:a@b>",
            b"sip:a@b?x=y",
            b"<sip:a@b>;tag=",
            b"<sip:a@b>;tag",
            b"<sip:a@b>;tag=a^",
            b"<sip:a@b>;;tag=a",
            b"<sip:a@b> junk",
            b"<:a@b>",
            b"sip",
            b"sip:",
            b"<sip:a@b>;tag=\"q",
        ];
        for text in bad {
            assert!(
                NameAddr::parse(text).is_err(),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
        assert_eq!(
            NameAddr::parse(b"*").unwrap_err().kind,
            ParseErrorKind::ContactStar
        );
    }

    impl AddrSpans {
        /// The grammar without short cuts.
        fn read_slowly(&mut self, cursor: &mut Cursor<'_>) -> Result<(), usize> {
            cursor.skip_lws();
            if cursor.peek() == Some(b'"') {
                self.display = cursor.quoted().ok_or(cursor.pos)?;
                cursor.skip_lws();
                if cursor.peek() != Some(b'<') {
                    return Err(cursor.pos);
                }
            }
            if cursor.eat(b'<') {
                self.read_bracketed(cursor)?;
            } else {
                self.read_unquoted(cursor)?;
            }
            self.read_any_params(cursor)
        }
    }

    #[test]
    fn the_usual_form_reads_as_all_others_do() {
        let seeds: [&[u8]; 4] = [
            b"<sip:+15550123@home.example>;tag=bq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb\r\n",
            b"<sip:term@edge.home.example:5060;lr>, <sip:core.home.example;lr>\r\n",
            b"<sip:a>;tag=1\r\n",
            b"<sip:+15550123@home.example;gr=urn:uuid:0f3c2b1a>\r\n",
        ];
        let mut random = Random(0x5eed_0005);
        let mut taken = 0;
        for round in 0..40_000 {
            let mut bytes = seeds[round % seeds.len()].to_vec();
            mutate(&mut random, &mut bytes);
            let end = bytes
                .iter()
                .position(|b| *b == b'\r')
                .unwrap_or(bytes.len());
            let mut cursor = Cursor::new(&bytes, 0, end);
            let mut slow = AddrSpans::default();
            let slow = slow.read_slowly(&mut cursor).map(|()| slow);
            taken += usize::from(AddrSpans::default().read_usual(&mut Cursor::new(&bytes, 0, end)));
            let quick = AddrSpans::parse(&bytes, 0, end, HeaderName::To);
            let slow = slow.map_err(|at| ParseError::new(ParseErrorKind::Bad(HeaderName::To), at));
            if quick.map_err(|error| error.kind) != Err(ParseErrorKind::ContactStar) {
                assert_eq!(quick, slow, "{}", String::from_utf8_lossy(&bytes));
            }
        }
        assert!(taken > 5_000, "{taken} in the usual form");
    }
}
