//! A bounded scanner for the part of XML 1.0 that reginfo uses. Layer 1.
//!
//! Checks well-formedness (tags nest, attributes are unique, characters are legal UTF-8, references
//! are predefined or numeric) and refuses every DTD, hence every entity bomb and external reference
//! (REG-11). Knows nothing of namespaces or of reginfo.

use memchr::{memchr, memchr2, memchr3, memmem};

use crate::base::limits::{REGINFO_BYTES_MAX, REGINFO_DEPTH_MAX};
use crate::base::span::Span;

/// Most attributes of one element.
pub const ATTRIBUTES_MAX: usize = 32;
/// Longest attribute value, octets.
pub const ATTRIBUTE_BYTES_MAX: usize = 16 * 1024;
/// Longest element or attribute name, octets.
pub const NAME_BYTES_MAX: usize = 256;

/// Why a document is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReginfoErrorKind {
    /// A document type declaration.
    Doctype,
    /// Not UTF-8, or declared as something else (REG-12).
    Encoding,
    /// More of something than the bounds allow.
    Limit,
    /// Well-formed, but the root is not `reginfo` of RFC 3680.
    NotReginfo,
    /// Not well-formed.
    Syntax,
    /// A required attribute is missing or has no legal value.
    Value,
}

/// A refused document: what is wrong, and at which octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReginfoError {
    /// The kind of fault.
    pub kind: ReginfoErrorKind,
    /// Offset of the fault in the document.
    pub at: u32,
}

impl ReginfoError {
    /// An error of `kind` at octet `at`.
    #[must_use]
    pub fn new(kind: ReginfoErrorKind, at: usize) -> Self {
        Self {
            kind,
            at: u32::try_from(at).unwrap_or(u32::MAX),
        }
    }

    /// Status for the NOTIFY that carried the document; 400 never ends the subscription
    /// (RFC 6665 section 4.2.2).
    #[must_use]
    pub const fn status(self) -> u16 {
        400
    }
}

/// Attribute names that are told apart while scanning; compared with case and prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the attribute of that name")]
pub enum Known {
    Aor,
    Callid,
    Cseq,
    DurationRegistered,
    Event,
    Expires,
    Id,
    Name,
    #[default]
    Other,
    Q,
    State,
    Uri,
    Version,
}

impl Known {
    #[inline]
    fn lookup(name: &[u8]) -> Self {
        match name {
            b"aor" => Self::Aor,
            b"callid" => Self::Callid,
            b"cseq" => Self::Cseq,
            b"duration-registered" => Self::DurationRegistered,
            b"event" => Self::Event,
            b"expires" => Self::Expires,
            b"id" => Self::Id,
            b"name" => Self::Name,
            b"q" => Self::Q,
            b"state" => Self::State,
            b"uri" => Self::Uri,
            b"version" => Self::Version,
            _ => Self::Other,
        }
    }
}

/// An attribute as it stands in the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attribute {
    /// Name with its prefix.
    pub name: Span,
    /// The name, if it is one that means something here.
    pub known: Known,
    /// Value between the quotes, references not decoded.
    pub value: Span,
    /// `true` when the value holds no reference.
    pub plain: bool,
}

/// The attributes of the start tag last seen. Reused.
#[derive(Debug)]
pub struct Attributes {
    rows: [Attribute; ATTRIBUTES_MAX],
    len: usize,
    /// One bit for each known name.
    seen: u32,
    declares: bool,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            rows: [Attribute::default(); ATTRIBUTES_MAX],
            len: 0,
            seen: 0,
            declares: false,
        }
    }
}

impl Attributes {
    /// The attributes in document order.
    #[must_use]
    pub fn rows(&self) -> &[Attribute] {
        &self.rows[..self.len]
    }

    /// Whether a namespace declaration may be among them.
    #[must_use]
    pub const fn declares(&self) -> bool {
        self.declares
    }

    fn clear(&mut self) {
        self.len = 0;
        self.seen = 0;
        self.declares = false;
    }

    #[inline]
    fn push(&mut self, bytes: &[u8], row: Attribute) -> Result<(), ReginfoErrorKind> {
        let Some(place) = self.rows.get_mut(self.len) else {
            return Err(ReginfoErrorKind::Limit);
        };
        *place = row;
        if row.known == Known::Other {
            let name = row.name.slice(bytes);
            self.declares |= name.starts_with(b"xmlns");
            for other in &self.rows[..self.len] {
                if other.name.slice(bytes) == name {
                    return Err(ReginfoErrorKind::Syntax);
                }
            }
        } else {
            let bit = 1 << row.known as u32;
            if self.seen & bit != 0 {
                return Err(ReginfoErrorKind::Syntax);
            }
            self.seen |= bit;
        }
        self.len += 1;
        Ok(())
    }
}

/// What the scanner found next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A start tag; its attributes are in [`Attributes`]. `empty` for `<a/>`, which has no `End`.
    Start {
        /// Name with its prefix.
        name: Span,
        /// Whether the tag closes itself.
        empty: bool,
    },
    /// An end tag that matches its start.
    End,
    /// Character data; `plain` when it holds no reference.
    Text {
        /// The raw text.
        span: Span,
        /// Whether it can be used as it is.
        plain: bool,
    },
    /// The document is over, and was well-formed.
    Finish,
}

/// Walks one document.
#[derive(Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    open: [Span; REGINFO_DEPTH_MAX],
    depth: usize,
    root_seen: bool,
    brackets: bool,
}

const SPACE: u8 = 1;
const NAME: u8 = 2;
const NAME_START: u8 = 4;

const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut c = 0u8;
    loop {
        table[c as usize] = match c {
            b' ' | b'\t' | b'\r' | b'\n' => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':' | 0x80..=0xff => NAME | NAME_START,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            _ => 0,
        };
        if c == u8::MAX {
            return table;
        }
        c += 1;
    }
}

#[inline]
const fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

impl<'a> Scanner<'a> {
    /// Checks size, encoding and characters, and reads the XML declaration.
    ///
    /// # Errors
    /// `Limit`, `Encoding` or `Syntax`; nothing else was looked at yet.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ReginfoError> {
        if bytes.len() > REGINFO_BYTES_MAX {
            return Err(ReginfoError::new(
                ReginfoErrorKind::Limit,
                REGINFO_BYTES_MAX,
            ));
        }
        screen(bytes)?;
        let brackets = has_cdata_end(bytes);
        let mut scanner = Self {
            bytes,
            at: 0,
            open: [Span::EMPTY; REGINFO_DEPTH_MAX],
            depth: 0,
            root_seen: false,
            brackets,
        };
        if bytes.starts_with(b"\xef\xbb\xbf") {
            scanner.at = 3;
        }
        scanner.declaration()?;
        Ok(scanner)
    }

    /// Octet the scanner stands at.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Open elements.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Whether `]]>` stands anywhere: where it does, text needs a closer look.
    pub(super) const fn has_cdata_end(&self) -> bool {
        self.brackets
    }

    /// Goes on behind what a caller read by itself: whole elements and white space.
    pub(super) const fn resume(&mut self, at: usize) {
        self.at = at;
    }

    /// Goes on behind a start tag that a caller read by itself; `name` is its element's.
    ///
    /// # Errors
    /// `Limit` when it is nested too deeply, `Syntax` when it is a second root.
    pub(super) fn enter(&mut self, name: Span, at: usize) -> Result<(), ReginfoError> {
        if self.depth == 0 && self.root_seen {
            return self.syntax();
        }
        self.root_seen = true;
        let Some(place) = self.open.get_mut(self.depth) else {
            return self.fail(ReginfoErrorKind::Limit);
        };
        *place = name;
        self.depth += 1;
        self.at = at;
        Ok(())
    }

    fn fail<T>(&self, kind: ReginfoErrorKind) -> Result<T, ReginfoError> {
        Err(ReginfoError::new(kind, self.at))
    }

    fn syntax<T>(&self) -> Result<T, ReginfoError> {
        self.fail(ReginfoErrorKind::Syntax)
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Steps over white space. No other octet up to the blank passed the screen.
    #[inline]
    pub(super) fn skip_space(&mut self) {
        while let Some(word) = self.word() {
            let ink = above_blank(word);
            if ink != 0 {
                self.at += (ink.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|byte| is(byte, SPACE)) {
            self.at += 1;
        }
    }

    /// The next eight octets.
    #[inline]
    fn word(&self) -> Option<u64> {
        let rest = self.bytes.get(self.at..)?;
        rest.first_chunk::<8>()
            .map(|word| u64::from_le_bytes(*word))
    }

    /// The next event. White space between tags is reported only while `collecting`.
    ///
    /// # Errors
    /// `Syntax`, `Doctype` or `Limit`.
    #[inline]
    pub fn next(
        &mut self,
        attributes: &mut Attributes,
        collecting: bool,
    ) -> Result<Event, ReginfoError> {
        loop {
            let start = self.at;
            self.skip_space();
            let Some(byte) = self.peek() else {
                let complete = self.depth == 0 && self.root_seen;
                return if complete {
                    Ok(Event::Finish)
                } else {
                    self.syntax()
                };
            };
            if byte != b'<' || (collecting && self.depth > 0 && start != self.at) {
                return self.text(start);
            }
            match self.bytes.get(self.at + 1) {
                Some(b'/') => return self.end_tag(),
                Some(b'!') => {
                    if let Some(event) = self.bang()? {
                        return Ok(event);
                    }
                }
                Some(b'?') => self.instruction()?,
                Some(_) => return self.start_tag(attributes),
                None => return self.syntax(),
            }
        }
    }

    fn text(&mut self, start: usize) -> Result<Event, ReginfoError> {
        if self.depth == 0 {
            return self.syntax();
        }
        let mut plain = true;
        loop {
            match memchr2(b'<', b'&', &self.bytes[self.at..]) {
                None => {
                    self.at = self.bytes.len();
                    return self.syntax();
                }
                Some(step) => self.at += step,
            }
            if self.bytes[self.at] == b'<' {
                break;
            }
            plain = false;
            self.at += reference(&self.bytes[self.at..], self.at)?.1;
        }
        let raw = &self.bytes[start..self.at];
        if self.brackets && memmem::find(raw, b"]]>").is_some() {
            return self.syntax();
        }
        Ok(Event::Text {
            span: span(start, self.at),
            plain,
        })
    }

    #[inline]
    fn end_tag(&mut self) -> Result<Event, ReginfoError> {
        if self.depth == 0 {
            return self.syntax();
        }
        let name = self.open[self.depth - 1];
        self.at += 2;
        if !self.bytes[self.at..].starts_with(name.slice(self.bytes)) {
            return self.syntax();
        }
        self.at += name.len as usize;
        if self.peek() != Some(b'>') {
            self.skip_space();
            if self.peek() != Some(b'>') {
                return self.syntax();
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(Event::End)
    }

    #[inline]
    fn start_tag(&mut self, attributes: &mut Attributes) -> Result<Event, ReginfoError> {
        if self.depth == 0 && self.root_seen {
            return self.syntax();
        }
        self.at += 1;
        let name = self.name()?;
        attributes.clear();
        let empty = loop {
            let before = self.at;
            match self.bytes.get(before..) {
                // One blank, as nearly always.
                Some([b' ', next, ..]) if *next > b' ' => self.at += 1,
                Some([b'>', ..]) | None => {}
                Some(_) => self.skip_space(),
            }
            match self.peek() {
                Some(b'>') => {
                    self.at += 1;
                    break false;
                }
                Some(b'/') if self.bytes.get(self.at + 1) == Some(&b'>') => {
                    self.at += 2;
                    break true;
                }
                Some(_) if before != self.at => self.attribute(attributes)?,
                Some(_) | None => return self.syntax(),
            }
        };
        self.root_seen = true;
        if self.depth == REGINFO_DEPTH_MAX {
            return self.fail(ReginfoErrorKind::Limit);
        }
        if !empty {
            self.open[self.depth] = name;
            self.depth += 1;
        }
        Ok(Event::Start { name, empty })
    }

    #[inline]
    fn name(&mut self) -> Result<Span, ReginfoError> {
        let start = self.at;
        let rest = &self.bytes[start..];
        if !rest.first().is_some_and(|&byte| is(byte, NAME_START)) {
            return self.syntax();
        }
        let len = rest.iter().position(|&byte| !is(byte, NAME));
        self.at += len.unwrap_or(rest.len());
        if self.at - start > NAME_BYTES_MAX {
            return self.fail(ReginfoErrorKind::Limit);
        }
        Ok(span(start, self.at))
    }

    /// The name of an attribute, looked for by its end: a known one needs no look at its octets.
    #[inline]
    fn attribute_name(&mut self) -> Result<(Span, Known), ReginfoError> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let (words, _) = rest.as_chunks::<8>();
        let equals = LOW * u64::from(b'=');
        for (index, word) in words.iter().take(3).enumerate() {
            let hits = zero_bytes(u64::from_le_bytes(*word) ^ equals);
            if hits != 0 {
                let len = index * 8 + (hits.trailing_zeros() / 8) as usize;
                let known = Known::lookup(&rest[..len]);
                if known != Known::Other {
                    self.at += len;
                    return Ok((span(start, self.at), known));
                }
                break;
            }
        }
        let name = self.name()?;
        Ok((name, Known::lookup(name.slice(self.bytes))))
    }

    #[inline]
    fn attribute(&mut self, attributes: &mut Attributes) -> Result<(), ReginfoError> {
        let (name, known) = self.attribute_name()?;
        if self.peek() != Some(b'=') {
            self.skip_space();
            if self.peek() != Some(b'=') {
                return self.syntax();
            }
        }
        self.at += 1;
        if self.peek() != Some(b'"') {
            self.skip_space();
        }
        let Some(quote @ (b'"' | b'\'')) = self.peek() else {
            return self.syntax();
        };
        self.at += 1;
        let start = self.at;
        let mut plain = true;
        loop {
            let Some(step) = value_end(quote, &self.bytes[self.at..]) else {
                return self.syntax();
            };
            self.at += step;
            match self.bytes[self.at] {
                b'<' => return self.syntax(),
                b'&' => {
                    plain = false;
                    self.at += reference(&self.bytes[self.at..], self.at)?.1;
                }
                _ => break,
            }
        }
        if self.at - start > ATTRIBUTE_BYTES_MAX {
            return self.fail(ReginfoErrorKind::Limit);
        }
        let value = span(start, self.at);
        self.at += 1;
        let row = Attribute {
            name,
            known,
            value,
            plain,
        };
        attributes
            .push(self.bytes, row)
            .map_err(|kind| ReginfoError::new(kind, start))
    }

    /// Comments (skipped), CDATA (reported as plain text), and everything a DTD would need (refused).
    fn bang(&mut self) -> Result<Option<Event>, ReginfoError> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(b"<!--") {
            // Two hyphens may only stand at the end (XML 1.0 section 2.5).
            match memmem::find(&rest[4..], b"--") {
                Some(len) if rest.get(4 + len + 2) == Some(&b'>') => {
                    self.at += 4 + len + 3;
                    return Ok(None);
                }
                Some(_) | None => return self.syntax(),
            }
        }
        if rest.starts_with(b"<![CDATA[") && self.depth > 0 {
            let Some(len) = memmem::find(&rest[9..], b"]]>") else {
                return self.syntax();
            };
            let start = self.at + 9;
            self.at = start + len + 3;
            return Ok(Some(Event::Text {
                span: span(start, start + len),
                plain: true,
            }));
        }
        if rest.starts_with(b"<!DOCTYPE") || rest.starts_with(b"<!ENTITY") {
            return self.fail(ReginfoErrorKind::Doctype);
        }
        self.syntax()
    }

    fn instruction(&mut self) -> Result<(), ReginfoError> {
        self.at += 2;
        let target = self.name()?.slice(self.bytes);
        if target.eq_ignore_ascii_case(b"xml") {
            return self.syntax();
        }
        match memmem::find(&self.bytes[self.at..], b"?>") {
            Some(len) => {
                self.at += len + 2;
                Ok(())
            }
            None => self.syntax(),
        }
    }

    /// `<?xml version=.. encoding=..?>`, at the very start or not at all (XML 1.0 section 2.8).
    fn declaration(&mut self) -> Result<(), ReginfoError> {
        let rest = &self.bytes[self.at..];
        for usual in USUAL_DECLARATIONS {
            if rest.starts_with(usual) {
                self.at += usual.len();
                return Ok(());
            }
        }
        if !(rest.starts_with(b"<?xml") && rest.get(5).is_some_and(|&byte| is(byte, SPACE))) {
            return Ok(());
        }
        let Some(len) = memmem::find(rest, b"?>") else {
            return self.syntax();
        };
        let inside = &rest[5..len];
        if let Some(found) = memmem::find(inside, b"encoding") {
            let value = pseudo_value(&inside[found + 8..]);
            if !value.is_some_and(|name| name.eq_ignore_ascii_case(b"UTF-8")) {
                return self.fail(ReginfoErrorKind::Encoding);
            }
        }
        if memmem::find(inside, b"version").is_none() {
            return self.syntax();
        }
        self.at += len + 2;
        Ok(())
    }
}

/// Declarations that need no look inside.
const USUAL_DECLARATIONS: [&[u8]; 2] = [
    b"<?xml version=\"1.0\"?>",
    b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
];

/// Where the first `quote`, `<` or `&` stands.
#[inline]
pub(super) fn value_end(quote: u8, rest: &[u8]) -> Option<usize> {
    // Either quote and the ampersand differ in one bit, which is set in both here.
    let bit = quote ^ b'&';
    find_end(rest, bit, quote | bit, [quote, b'&'])
}

/// Where the first `<` or `&` stands.
#[inline]
pub(super) fn text_end(rest: &[u8]) -> Option<usize> {
    find_end(rest, 0, b'&', [b'&', b'&'])
}

/// Where the first `<`, or octet that is `wanted` once `bits` are set in it, stands; `same` are the
/// octets that is. Most values are short: a call to memchr costs more than a few words looked at
/// here, so it only gets the long ones.
#[inline]
fn find_end(rest: &[u8], bits: u8, wanted: u8, same: [u8; 2]) -> Option<usize> {
    const WORDS: usize = 8;
    let less = LOW * u64::from(b'<');
    let (bits, wanted) = (LOW * u64::from(bits), LOW * u64::from(wanted));
    let (words, _) = rest.as_chunks::<8>();
    for (index, word) in words.iter().take(WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = zero_bytes((word | bits) ^ wanted) | zero_bytes(word ^ less);
        if hits != 0 {
            return Some(index * 8 + (hits.trailing_zeros() / 8) as usize);
        }
    }
    let start = words.len().min(WORDS) * 8;
    memchr3(same[0], same[1], b'<', &rest[start..]).map(|at| start + at)
}

const LOW: u64 = 0x0101_0101_0101_0101;

/// Bit 7 of each octet above the blank, exact.
#[inline]
const fn above_blank(word: u64) -> u64 {
    (((word & !(LOW << 7)) + LOW * 0x5f) | word) & (LOW << 7)
}

/// Bit 7 of each zero byte of `word`; bits above the lowest one set may be wrong.
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & (LOW << 7)
}

/// The quoted value after a pseudo attribute's name.
fn pseudo_value(after: &[u8]) -> Option<&[u8]> {
    let after = after
        .trim_ascii_start()
        .strip_prefix(b"=")?
        .trim_ascii_start();
    let (&quote, value) = after.split_first()?;
    if quote != b'"' && quote != b'\'' {
        return None;
    }
    Some(&value[..memchr(quote, value)?])
}

/// The span of `start..end` without the checks of [`Span::new`]: both lie in a document, which is
/// far shorter than 4 GiB, and in this order.
#[expect(
    clippy::cast_possible_truncation,
    reason = "documents are bounded by a named limit"
)]
#[inline]
pub(super) const fn span(start: usize, end: usize) -> Span {
    Span {
        start: start as u32,
        len: end.wrapping_sub(start) as u32,
    }
}

/// Whether any octet is not ASCII, and whether `rank` puts any of them below 0x1f. It should do so with
/// controls, except for those that wrap to the top.
#[inline]
fn lanes(bytes: &[u8], rank: impl Fn(u8) -> u8) -> (bool, bool) {
    const STEP: usize = 32;
    let (mut all, mut least) = ([0_u8; STEP], [u8::MAX; STEP]);
    let (chunks, rest) = bytes.as_chunks::<STEP>();
    for chunk in chunks {
        for at in 0..STEP {
            all[at] |= chunk[at];
            least[at] = least[at].min(rank(chunk[at]));
        }
    }
    let (mut any, mut lowest) = (0, u8::MAX);
    for at in 0..STEP {
        any |= all[at];
        lowest = lowest.min(least[at]);
    }
    for &byte in rest {
        any |= byte;
        lowest = lowest.min(rank(byte));
    }
    (any >= 0x80, lowest < 0x1f)
}

/// Refuses octets that are no XML characters.
fn screen(bytes: &[u8]) -> Result<(), ReginfoError> {
    // Most documents hold no control but line feeds, some end lines with a carriage return before.
    let (mut high, mut control) = lanes(bytes, |byte| (byte ^ b'\n').wrapping_sub(1));
    if control {
        (high, control) = lanes(bytes, |byte| {
            let (feed, carriage) = (byte ^ b'\n', byte ^ b'\r');
            feed.wrapping_sub(1).max(carriage.wrapping_sub(1))
        });
    }
    if high {
        if bytes.starts_with(b"\xfe\xff") || bytes.starts_with(b"\xff\xfe") {
            return Err(ReginfoError::new(ReginfoErrorKind::Encoding, 0));
        }
        if let Err(error) = core::str::from_utf8(bytes) {
            return Err(ReginfoError::new(
                ReginfoErrorKind::Encoding,
                error.valid_up_to(),
            ));
        }
        for noncharacter in [b"\xef\xbf\xbe", b"\xef\xbf\xbf"] {
            if let Some(at) = memmem::find(bytes, noncharacter) {
                return Err(ReginfoError::new(ReginfoErrorKind::Syntax, at));
            }
        }
    }
    if control {
        let legal = |byte: u8| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r');
        if let Some(at) = bytes.iter().position(|&byte| !legal(byte)) {
            return Err(ReginfoError::new(ReginfoErrorKind::Syntax, at));
        }
    }
    Ok(())
}

/// Whether `]]>` stands anywhere in `bytes`.
fn has_cdata_end(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b']', bytes).any(|at| bytes[at..].starts_with(b"]]>"))
}

/// The character a reference at the start of `rest` stands for, and the reference's length.
fn reference(rest: &[u8], at: usize) -> Result<(char, usize), ReginfoError> {
    if let [b'&', letter @ (b'l' | b'g'), b't', b';', ..] = rest {
        return Ok((if *letter == b'l' { '<' } else { '>' }, 4));
    }
    let error = ReginfoError::new(ReginfoErrorKind::Syntax, at);
    let window = &rest[..rest.len().min(14)];
    let end = memchr(b';', window).ok_or(error)?;
    let name = &window[1..end];
    let character = match name {
        b"lt" => '<',
        b"gt" => '>',
        b"amp" => '&',
        b"quot" => '"',
        b"apos" => '\'',
        [b'#', digits @ ..] => numeric(digits).ok_or(error)?,
        _ => return Err(error),
    };
    Ok((character, end + 1))
}

fn numeric(digits: &[u8]) -> Option<char> {
    let (radix, digits) = match digits {
        [b'x', rest @ ..] => (16, rest),
        rest => (10, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u32;
    for &digit in digits {
        let digit = char::from(digit).to_digit(radix)?;
        value = value.checked_mul(radix)?.checked_add(digit)?;
    }
    let legal = match value {
        0x9 | 0xa | 0xd => true,
        0..0x20 | 0xfffe | 0xffff => false,
        _ => true,
    };
    char::from_u32(value).filter(|_| legal)
}

/// Appends `raw` with its references replaced. `raw` was scanned before, so it decodes.
///
/// # Errors
/// `Syntax` at a reference that is none; cannot happen for text from a [`Scanner`].
pub fn decode(raw: &[u8], out: &mut Vec<u8>) -> Result<(), ReginfoError> {
    let mut rest = raw;
    while let Some(at) = memchr(b'&', rest) {
        out.extend_from_slice(&rest[..at]);
        let (character, len) = reference(&rest[at..], at)?;
        let mut utf8 = [0; 4];
        out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests;
