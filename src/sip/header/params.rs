//! `;name=value` lists, in headers and URIs.

use crate::base::span::Span;
use crate::sip::scan::{Cursor, PARAM_VALUE, TOKEN, URI_PARAM, unquote};

/// The parameters of a header value or URI, leading semicolon included; may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    bytes: &'a [u8],
}

/// One parameter. A value keeps its quotes; [`Param::unquoted`] strips them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// The name as written; compare without case.
    pub name: &'a [u8],
    /// The value as written; `None` for a flag.
    pub value: Option<&'a [u8]>,
}

impl<'a> Param<'a> {
    /// The value without its outer quotes; empty for a flag.
    #[must_use]
    pub fn unquoted(&self) -> &'a [u8] {
        unquote(self.value.unwrap_or_default())
    }
}

impl<'a> Params<'a> {
    /// Parameters that start with a semicolon (or nothing). Iteration stops at the first defect.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The list as written.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// `true` without any parameter.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All parameters in order.
    #[must_use]
    pub const fn iter(&self) -> ParamIter<'a> {
        ParamIter {
            bytes: self.bytes,
            pos: 0,
        }
    }

    /// The value of the first parameter called `name` (any case), quotes kept; empty for a flag.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&'a [u8]> {
        let hit = self
            .iter()
            .find(|param| param.name.eq_ignore_ascii_case(name))?;
        Some(hit.value.unwrap_or_default())
    }
}

impl<'a> IntoIterator for Params<'a> {
    type Item = Param<'a>;
    type IntoIter = ParamIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterates [`Params`].
#[derive(Clone, Debug)]
pub struct ParamIter<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Iterator for ParamIter<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        let mut cursor = Cursor::new(self.bytes, self.pos, self.bytes.len());
        let spans = next_param(&mut cursor, TOKEN | URI_PARAM).ok().flatten();
        self.pos = if spans.is_some() {
            cursor.pos
        } else {
            self.bytes.len()
        };
        let (name, value) = spans?;
        Some(Param {
            name: name.slice(self.bytes),
            value: value.map(|span| span.slice(self.bytes)),
        })
    }
}

/// Reads `; name [= value]`. `Ok(None)` when no semicolon is next, `Err(offset)` for a defect.
///
/// The cursor ends behind the parameter and the white space after it.
#[inline]
pub(crate) fn next_param(
    cursor: &mut Cursor<'_>,
    name_mask: u8,
) -> Result<Option<(Span, Option<Span>)>, usize> {
    if cursor.peek() != Some(b';') {
        cursor.skip_lws();
        if cursor.peek() != Some(b';') {
            return Ok(None);
        }
    }
    cursor.pos += 1;
    let mut name = cursor.run(name_mask);
    if name.is_empty() {
        cursor.skip_lws();
        name = cursor.run(name_mask);
        if name.is_empty() {
            return Err(cursor.pos);
        }
    }
    if cursor.peek() == Some(b';') {
        return Ok(Some((name, None)));
    }
    cursor.skip_lws();
    if !cursor.eat(b'=') {
        return Ok(Some((name, None)));
    }
    cursor.skip_lws();
    let value = if cursor.peek() == Some(b'"') {
        cursor.quoted().ok_or(cursor.pos)?
    } else {
        cursor.long_run::<PARAM_VALUE>()
    };
    if value.is_empty() {
        return Err(cursor.pos);
    }
    cursor.skip_lws();
    Ok(Some((name, Some(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_quotes_and_flags_are_understood() {
        let params = Params::new(b" ; a = 1;b=\"x;,\\\"y\" ;lr; C =\r\n z");
        let all: Vec<_> = params.iter().map(|p| (p.name, p.value)).collect();
        assert_eq!(
            all,
            [
                (&b"a"[..], Some(&b"1"[..])),
                (b"b", Some(b"\"x;,\\\"y\"")),
                (b"lr", None),
                (b"C", Some(b"z")),
            ]
        );
        assert_eq!(params.find(b"LR"), Some(&b""[..]));
        assert_eq!(params.find(b"c"), Some(&b"z"[..]));
        assert_eq!(params.find(b"d"), None);
    }

    #[test]
    fn a_defect_ends_the_list() {
        for text in [&b";;a=1"[..], b";a=", b";=x", b"a=1", b";a=\"open"] {
            assert_eq!(Params::new(text).iter().count(), 0, "{text:?}");
        }
    }
}
