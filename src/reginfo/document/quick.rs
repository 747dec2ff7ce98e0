//! Registrations and contacts in the form that notifiers write, read in one pass.
//!
//! Whole `contact` elements and start tags of `registration` are taken if nothing about them is
//! unusual: double quotes, one blank between attributes, no reference but those around an instance
//! id, no comment, no CDATA, no element but those we read. Anything else leaves no trace and is the
//! scanner's. What is taken here, the scanner would take with the same rows.

use super::{
    Binding, ContactEvent, ContactRow, ContactStatus, Document, DocumentState, Element,
    GRUU_NAMESPACE, NAMESPACES_MAX, Namespace, PARAMS_MAX, ParamKind, ParamRow, REGINFO_NAMESPACE,
    REGISTRATIONS_MAX, RegistrationRow, RegistrationStatus, event, index, number, quality,
};
use crate::base::limits::REGINFO_CONTACTS_MAX;
use crate::base::span::Span;
use crate::reginfo::scan::{ATTRIBUTE_BYTES_MAX, ReginfoError, Scanner, span, text_end, value_end};

/// Texts from this length on are first compared with the last such text.
const LONG: usize = 32;

/// A place in the document. `None` from its methods is "not in the usual form".
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Steps over `text`, if it stands here.
    #[inline(always)]
    fn eat<const N: usize>(&mut self, text: &[u8; N]) -> Option<()> {
        if self.bytes.get(self.at..)?.first_chunk::<N>()? != text {
            return None;
        }
        self.at += N;
        Some(())
    }

    /// The attribute value that starts here, and steps over the quote behind it.
    #[inline(always)]
    fn value(&mut self) -> Option<Span> {
        let rest = self.bytes.get(self.at..)?;
        let len = value_end(b'"', rest)?;
        if rest.get(len) != Some(&b'"') || len > ATTRIBUTE_BYTES_MAX {
            return None;
        }
        let value = span(self.at, self.at + len);
        self.at += len + 1;
        Some(value)
    }

    /// A number of seconds below 10^9 and the quote behind it.
    #[inline(always)]
    fn seconds(&mut self) -> Option<u32> {
        let mut sum = 0;
        let digits = self.bytes.get(self.at..)?;
        for (len, &byte) in digits.iter().take(10).enumerate() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                if byte != b'"' || len == 0 {
                    return None;
                }
                self.at += len + 1;
                return Some(sum);
            }
            if len == 9 {
                return None;
            }
            sum = sum * 10 + u32::from(digit);
        }
        None
    }

    /// The text up to the next tag; without white space at its ends.
    #[inline(always)]
    fn text(&mut self) -> Option<Span> {
        let rest = self.bytes.get(self.at..)?;
        let len = text_end(rest)?;
        if rest.get(len) != Some(&b'<') {
            return None;
        }
        let start = self.at;
        self.at += len;
        let text = rest.get(..len)?;
        let is_ink = |byte: Option<&u8>| byte.is_none_or(|&byte| byte > b' ');
        if is_ink(text.first()) && is_ink(text.last()) {
            return Some(span(start, start + len));
        }
        let from_start = text.trim_ascii_start();
        let start = start + (len - from_start.len());
        Some(span(start, start + from_start.trim_ascii_end().len()))
    }

    /// Steps over white space. The screen let no other octet up to the blank pass.
    #[inline(always)]
    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte <= b' ') {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn slice(&self, span: Span) -> &[u8] {
        span.slice(self.bytes)
    }
}

impl Document {
    /// Takes what stands at the scanner's place inside `parent`, if it has the usual form. Answers
    /// the element that is open then; `None` when nothing was taken.
    ///
    /// # Errors
    /// As [`Scanner::enter`].
    #[inline]
    pub(super) fn take_quickly(
        &mut self,
        scanner: &mut Scanner<'_>,
        bytes: &[u8],
        parent: Element,
    ) -> Result<Option<Element>, ReginfoError> {
        #[cfg(test)]
        if self.careful {
            return Ok(None);
        }
        if scanner.has_cdata_end() {
            return Ok(None);
        }
        scanner.skip_space();
        let mut cursor = Cursor {
            bytes,
            at: scanner.position(),
        };
        if parent == Element::Ignored {
            let start = cursor.at + 1;
            if scanner.depth() > 0 || self.quick_root(&mut cursor).is_none() {
                return Ok(None);
            }
            scanner.enter(span(start, start + "reginfo".len()), cursor.at)?;
            return Ok(Some(Element::Reginfo));
        }
        if !self.plain_is_reginfo {
            return Ok(None);
        }
        if parent == Element::Reginfo {
            let start = cursor.at + 1;
            if self.quick_registration(&mut cursor).is_none() {
                return Ok(None);
            }
            scanner.enter(span(start, start + "registration".len()), cursor.at)?;
            return Ok(Some(Element::Registration));
        }
        if cursor.eat(b"<contact").is_none() {
            return Ok(None);
        }
        let params = self.params.len();
        if self.quick_contact(&mut cursor).is_none() {
            self.params.truncate(params);
            return Ok(None);
        }
        scanner.resume(cursor.at);
        Ok(Some(parent))
    }

    /// The start tag of the root. Leaves nothing behind when it fails.
    fn quick_root(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        cursor.eat(b"<reginfo")?;
        let mut bindings = [None; 3];
        let (mut version, mut state) = (None, None);
        loop {
            match cursor.peek()? {
                b' ' => cursor.at += 1,
                b'>' => break,
                _ => return None,
            }
            let twice = match cursor.peek()? {
                b'x' => {
                    let binding = quick_namespace(cursor)?;
                    let same = |other: &Binding| {
                        cursor.slice(other.prefix) == cursor.slice(binding.prefix)
                    };
                    let twice = bindings.iter().flatten().any(same);
                    *bindings.iter_mut().find(|place| place.is_none())? = Some(binding);
                    twice
                }
                b'v' => {
                    cursor.eat(b"version=\"")?;
                    let value = cursor.value()?;
                    version.replace(number(cursor.slice(value))?).is_some()
                }
                b's' => {
                    cursor.eat(b"state=\"")?;
                    let value = match cursor.eat(b"full\"") {
                        Some(()) => DocumentState::Full,
                        None => {
                            cursor.eat(b"partial\"")?;
                            DocumentState::Partial
                        }
                    };
                    state.replace(value).is_some()
                }
                _ => return None,
            };
            if twice {
                return None;
            }
        }
        cursor.at += 1;
        let is_ours = |binding: &Binding| {
            binding.prefix.is_empty() && binding.namespace == Namespace::Reginfo
        };
        if !bindings.iter().flatten().any(is_ours) {
            return None;
        }
        (self.version, self.state) = (version?, state?);
        self.plain_is_reginfo = true;
        self.namespaces.extend(bindings.into_iter().flatten());
        Some(())
    }

    fn quick_registration(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        cursor.eat(b"<registration")?;
        if self.registrations.len() == REGISTRATIONS_MAX {
            return None;
        }
        let (mut aor, mut id, mut state) = (None, None, None);
        loop {
            match cursor.peek()? {
                b' ' => cursor.at += 1,
                b'>' => break,
                _ => return None,
            }
            let twice = match cursor.peek()? {
                b'a' => {
                    cursor.eat(b"aor=\"")?;
                    aor.replace(cursor.value()?).is_some()
                }
                b'i' => {
                    cursor.eat(b"id=\"")?;
                    id.replace(cursor.value()?).is_some()
                }
                b's' => {
                    cursor.eat(b"state=\"")?;
                    let value = cursor.value()?;
                    let status = match cursor.slice(value) {
                        b"active" => RegistrationStatus::Active,
                        b"init" => RegistrationStatus::Init,
                        b"terminated" => RegistrationStatus::Terminated,
                        _ => return None,
                    };
                    state.replace(status).is_some()
                }
                _ => return None,
            };
            if twice {
                return None;
            }
        }
        cursor.at += 1;
        self.registrations.push(RegistrationRow {
            aor: aor?,
            id: id?,
            state: state?,
            first_contact: index(self.contacts.len()),
            contacts: 0,
        });
        Some(())
    }

    /// From behind `<contact` to behind `</contact>`. Parameters may be left behind when it fails.
    fn quick_contact(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        if self.contacts.len() == REGINFO_CONTACTS_MAX {
            return None;
        }
        let mut row = ContactRow::before(index(self.params.len()));
        if quick_attributes(cursor, &mut row)? {
            loop {
                cursor.skip_space();
                if cursor.eat(b"<unknown-param name=\"").is_some() {
                    self.quick_param(cursor, &mut row)?;
                } else if cursor.eat(b"<uri>").is_some() {
                    row.uri = cursor.text()?;
                    cursor.eat(b"</uri>")?;
                } else if cursor.eat(b"</contact>").is_some() {
                    break;
                } else {
                    self.quick_gruu(cursor, &mut row)?;
                }
            }
        }
        self.contacts.push(row);
        self.registrations.last_mut()?.contacts += 1;
        Some(())
    }

    /// From behind `<unknown-param name="` to behind its end.
    #[inline]
    fn quick_param(&mut self, cursor: &mut Cursor<'_>, row: &mut ContactRow) -> Option<()> {
        if self.params.len() == PARAMS_MAX {
            return None;
        }
        let start = cursor.at;
        row.params += 1;
        if cursor.eat(b"+sip.instance\">\"&lt;").is_some() {
            let len = text_end(cursor.bytes.get(cursor.at..)?)?;
            let instance = span(cursor.at, cursor.at + len);
            cursor.at += len;
            cursor.eat(b"&gt;\"</unknown-param>")?;
            row.instance = instance;
            let value = self.unescape_around(instance)?;
            self.params.push(ParamRow {
                name: span(start, start + "+sip.instance".len()),
                value,
                kind: ParamKind::Instance,
            });
            return Some(());
        }
        let name = cursor.value()?;
        let kind = ParamKind::of(cursor.slice(name));
        if kind == ParamKind::Instance {
            return None;
        }
        let value = if cursor.eat(b"/>").is_some() {
            Span::EMPTY
        } else {
            cursor.eat(b">")?;
            let value = self.quick_text(cursor)?;
            cursor.eat(b"</unknown-param>")?;
            value
        };
        self.params.push(ParamRow { name, value, kind });
        Some(())
    }

    /// As [`Cursor::text`]. The contacts of a user mostly show the same features: a text equal to
    /// the last long one is that one.
    #[inline(always)]
    fn quick_text(&mut self, cursor: &mut Cursor<'_>) -> Option<Span> {
        let known = self.last_text;
        if !known.is_empty()
            && let Some((head, [b'<', ..])) = cursor
                .bytes
                .get(cursor.at..)?
                .split_at_checked(known.len as usize)
            && head == cursor.slice(known)
        {
            cursor.at += head.len();
            return Some(known);
        }
        let text = cursor.text()?;
        if text.len as usize >= LONG {
            self.last_text = text;
        }
        Some(text)
    }

    /// Writes `"<` and `>"` around an instance id, where the document has references: they are
    /// longer than that, and nothing else is ever read from their place.
    fn unescape_around(&mut self, instance: Span) -> Option<Span> {
        let start = instance.start as usize;
        let end = start + instance.len as usize;
        self.arena
            .get_mut(start - 2..start)?
            .copy_from_slice(b"\"<");
        self.arena.get_mut(end..end + 2)?.copy_from_slice(b">\"");
        Some(span(start - 2, end + 2))
    }

    /// A GRUU value made of identity and instance id, as nearly all are, and the quote behind it:
    /// compared with both, which were looked through before, it needs no look of its own.
    #[inline]
    fn composed_gruu(&self, cursor: &mut Cursor<'_>, row: &ContactRow) -> Option<Span> {
        let aor = self.registrations.last()?.aor;
        if row.instance.is_empty() || (aor.start + aor.len) as usize > cursor.bytes.len() {
            return None;
        }
        let mut ahead = *cursor;
        for part in [aor, row.instance] {
            let text = cursor.slice(part);
            if !ahead.bytes.get(ahead.at..)?.starts_with(text) {
                return None;
            }
            ahead.at += text.len();
            if part == aor {
                ahead.eat(b";gr=")?;
            }
        }
        ahead.eat(b"\"")?;
        let uri = span(cursor.at, ahead.at - 1);
        *cursor = ahead;
        Some(uri)
    }

    /// A `pub-gruu` or `temp-gruu` element without contents, under any prefix of its namespace.
    #[inline]
    fn quick_gruu(&self, cursor: &mut Cursor<'_>, row: &mut ContactRow) -> Option<()> {
        cursor.eat(b"<")?;
        let start = cursor.at;
        let window = cursor.bytes.get(start..start + 16)?;
        // `gr:` as a rule.
        let colon = match window.get(2) {
            Some(b':') if !window[..2].contains(&b':') => 2,
            _ => window.iter().position(|&byte| byte == b':')?,
        };
        let prefix = &window[..colon];
        let known = |binding: &&Binding| binding.prefix.slice(cursor.bytes) == prefix;
        let binding = self.namespaces.iter().rev().find(known)?;
        if binding.namespace != Namespace::Gruu {
            return None;
        }
        cursor.at += colon + 1;
        if cursor.eat(b"pub-gruu uri=\"").is_some() {
            let uri = match self.composed_gruu(cursor, row) {
                Some(uri) => uri,
                None => cursor.value()?,
            };
            cursor.eat(b"/>")?;
            row.pub_gruu = Some(uri);
            return Some(());
        }
        cursor.eat(b"temp-gruu uri=\"")?;
        cursor.value()?;
        if cursor.eat(b" first-cseq=\"").is_some() {
            cursor.value()?;
        }
        cursor.eat(b"/>")?;
        row.has_temp_gruu = true;
        Some(())
    }
}

/// A namespace declaration of the root.
fn quick_namespace(cursor: &mut Cursor<'_>) -> Option<Binding> {
    cursor.eat(b"xmlns")?;
    let start = cursor.at + 1;
    let prefix = if cursor.eat(b":").is_some() {
        let rest = cursor.bytes.get(start..)?;
        let len = rest.iter().position(|byte| !byte.is_ascii_lowercase())?;
        cursor.at += len;
        if len == 0 || len > 32 {
            return None;
        }
        span(start, start + len)
    } else {
        Span::EMPTY
    };
    cursor.eat(b"=\"")?;
    let value = cursor.value()?;
    let namespace = match cursor.slice(value) {
        REGINFO_NAMESPACE => Namespace::Reginfo,
        GRUU_NAMESPACE => Namespace::Gruu,
        _ => Namespace::Other,
    };
    Some(Binding {
        prefix,
        namespace,
        depth: 1,
    })
}

const _: () = assert!(NAMESPACES_MAX >= 3, "the root's declarations fit");

const ID: u8 = 1;
const STATE: u8 = 2;
const EVENT: u8 = 4;
const EXPIRES: u8 = 8;
const CALL_ID: u8 = 16;
const CSEQ: u8 = 32;
const DURATION: u8 = 64;
const QUALITY: u8 = 128;

/// The attributes of a contact; whether it has contents.
#[inline]
fn quick_attributes(cursor: &mut Cursor<'_>, row: &mut ContactRow) -> Option<bool> {
    let mut seen = 0;
    let open = loop {
        // The blank, and the start of a name.
        let bit = match *cursor.bytes.get(cursor.at..)? {
            [b'>', ..] => {
                cursor.at += 1;
                break true;
            }
            [b' ', b'i', ..] => {
                cursor.eat(b" id=\"")?;
                row.id = cursor.value()?;
                ID
            }
            [b' ', b's', ..] => {
                cursor.eat(b" state=\"")?;
                row.state = if cursor.eat(b"active\"").is_some() {
                    ContactStatus::Active
                } else {
                    cursor.eat(b"terminated\"")?;
                    ContactStatus::Terminated
                };
                STATE
            }
            [b' ', b'e', b'v', ..] => {
                cursor.eat(b" event=\"")?;
                row.event = if cursor.eat(b"registered\"").is_some() {
                    Some(ContactEvent::Registered)
                } else {
                    let value = cursor.value()?;
                    event(cursor.slice(value))
                };
                EVENT
            }
            [b' ', b'e', ..] => {
                cursor.eat(b" expires=\"")?;
                row.expires_s = Some(cursor.seconds()?);
                EXPIRES
            }
            [b' ', b'c', b'a', ..] => {
                cursor.eat(b" callid=\"")?;
                row.call_id = cursor.value()?;
                CALL_ID
            }
            [b' ', b'c', ..] => {
                cursor.eat(b" cseq=\"")?;
                row.cseq = cursor.value()?;
                CSEQ
            }
            [b' ', b'd', ..] => {
                cursor.eat(b" duration-registered=\"")?;
                row.duration_registered_s = Some(cursor.seconds()?);
                DURATION
            }
            [b' ', b'q', ..] => {
                cursor.eat(b" q=\"")?;
                let value = cursor.value()?;
                row.q = quality(cursor.slice(value));
                QUALITY
            }
            _ => {
                cursor.eat(b"/>")?;
                break false;
            }
        };
        if seen & bit != 0 {
            return None;
        }
        seen |= bit;
    };
    (seen & (ID | STATE) == ID | STATE).then_some(open)
}
