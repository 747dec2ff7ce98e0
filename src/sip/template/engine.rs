//! Programs: messages compiled into static pieces and holes, and the two ways to run them.
//!
//! A message is described once as a list of [`Op`]s. From it come two programs. The *general* one
//! takes values of any length. The *fast* one was compiled for the usual widths (tokens of 32
//! characters, CSeq of one digit, ...): those holes lie inside the static pieces as filler and are
//! patched after a single copy, so that an INVITE is four large copies instead of forty small
//! ones. Which one runs is decided per message by comparing lengths; both give the same bytes.

/// A value's place in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Slot {
    AssertedIdentity,
    Body,
    Branch,
    CallId,
    ContentLength,
    ContentType,
    ContributionId,
    ConversationId,
    Cseq,
    Expires,
    ExtraAcceptContact,
    ExtraHeaders,
    Filler,
    FromTag,
    FromUri,
    Icid,
    MinSe,
    MsrpSession,
    Origin,
    Reason,
    RelatedIcid,
    RequestUri,
    RouteLines,
    SessionExpires,
    To,
}

impl Slot {
    const COUNT: usize = Self::To as usize + 1;

    /// Slots whose value is not one header or attribute value but whole lines or a body.
    const fn may_hold_lines(self) -> bool {
        matches!(self, Self::Body | Self::ExtraHeaders | Self::RouteLines)
    }
}

/// One value per slot; unset ones are empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a>([&'a [u8]; Slot::COUNT]);

impl<'a> Values<'a> {
    pub(super) const fn new() -> Self {
        Self([b""; Slot::COUNT])
    }

    /// Sets one value.
    ///
    /// Callers pass validated values. A line end or NUL would let the value's author write headers
    /// of our request, so debug builds stop on it.
    pub(super) fn set(&mut self, slot: Slot, value: &'a [u8]) -> &mut Self {
        debug_assert!(
            slot.may_hold_lines() || !value.iter().any(|c| b"\r\n\0".contains(c)),
            "a value for {slot:?} holds a line end or NUL"
        );
        debug_assert!(
            slot == Slot::Body || value.is_empty() || !slot.may_hold_lines() || is_lines(value),
            "lines for {slot:?} must be complete"
        );
        self.0[slot as usize] = value;
        self
    }

    const fn at(&self, slot: Slot) -> &'a [u8] {
        self.0[slot as usize]
    }
}

/// Complete header lines: each not empty and ended by CRLF, so that no body can begin in them.
fn is_lines(value: &[u8]) -> bool {
    value.strip_suffix(b"\r\n").is_some_and(|lines| {
        lines
            .split(|&c| c == b'\n')
            .all(|line| !line.is_empty() && line != b"\r" && !line.contains(&0))
    })
}

/// A part of a message as the builder says it.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Fixed text.
    Text(String),
    /// A value.
    Hole(Slot),
    /// Text around a value, all absent when the value is empty.
    Optional(Slot, &'static str, &'static str),
}

/// A value copied over filler.
#[derive(Clone, Copy, Debug)]
struct Patch {
    /// From the start of the piece's text.
    at: u32,
    slot: Slot,
}

/// Text, then a value.
#[derive(Clone, Debug)]
struct Piece {
    text: Box<[u8]>,
    patches: Box<[Patch]>,
    hole: Option<Slot>,
    /// The piece is left out when this slot is empty.
    when: Option<Slot>,
}

/// A compiled message.
#[derive(Clone, Debug)]
pub(super) struct Program {
    general: Box<[Piece]>,
    fast: Box<[Piece]>,
    /// Widths that `fast` was compiled for.
    expected: Box<[(Slot, usize)]>,
    /// Octets of the body's text.
    body_text: usize,
    /// Holes of the body.
    body_holes: usize,
    /// Upper end of the text of one message.
    text_len: usize,
}

/// Most parts of a vectored message.
pub(super) const PARTS_MAX: usize = 64;

impl Program {
    /// Compiles `head` (through the blank line) and `body`, with a fast program for `expected`.
    pub(super) fn compile(head: &[Op], body: &[Op], expected: &[(Slot, usize)]) -> Self {
        let all: Vec<Op> = head.iter().chain(body).cloned().collect();
        let used: Box<[(Slot, usize)]> = expected
            .iter()
            .filter(|(slot, _)| all.iter().any(|op| names(op, *slot)))
            .copied()
            .collect();
        let mut body_text = 0;
        let mut body_holes = 0;
        for op in body {
            match op {
                Op::Text(text) => body_text += text.len(),
                Op::Hole(_) => body_holes += 1,
                Op::Optional(..) => unreachable!("bodies have no optional lines"),
            }
        }
        let general = pieces(&all, &[]);
        assert!(
            2 * general.len() <= PARTS_MAX,
            "a message fits a vectored write"
        );
        Self {
            text_len: general.iter().map(|piece| piece.text.len()).sum(),
            fast: pieces(&all, &used),
            general,
            expected: used,
            body_text,
            body_holes,
        }
    }

    /// Octets of the body with `values` in its holes: the value of Content-Length.
    #[inline]
    pub(super) fn body_len(&self, values: &[&[u8]]) -> u64 {
        debug_assert_eq!(
            values.len(),
            self.body_holes,
            "one value per hole of the body"
        );
        values
            .iter()
            .fold(self.body_text, |len, value| len + value.len()) as u64
    }

    /// Appends the message.
    #[inline]
    pub(super) fn encode(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        if self.fits_fast(values) {
            run_fast(&self.fast, values, out);
        } else {
            self.encode_general(values, out);
        }
    }

    pub(super) fn encode_general(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        out.reserve(self.text_len);
        for piece in &self.general {
            if piece.when.is_some_and(|slot| values.at(slot).is_empty()) {
                continue;
            }
            out.extend_from_slice(&piece.text);
            if let Some(slot) = piece.hole {
                out.extend_from_slice(values.at(slot));
            }
        }
    }

    /// Writes the message as a list of parts; empty parts are left out. Returns their number.
    pub(super) fn parts<'a>(
        &'a self,
        values: &Values<'a>,
        parts: &mut [&'a [u8]; PARTS_MAX],
    ) -> usize {
        let mut len = 0;
        for piece in &self.general {
            if piece.when.is_some_and(|slot| values.at(slot).is_empty()) {
                continue;
            }
            for part in [
                &piece.text[..],
                piece.hole.map_or(&b""[..], |slot| values.at(slot)),
            ] {
                if !part.is_empty() {
                    parts[len] = part;
                    len += 1;
                }
            }
        }
        len
    }

    /// Octets of the message.
    #[inline]
    pub(super) fn message_len(&self, values: &Values<'_>) -> usize {
        // What the fast program knows in advance it has as text.
        let pieces = if self.fits_fast(values) {
            &self.fast
        } else {
            &self.general
        };
        let mut len = 0;
        for piece in pieces {
            if piece.when.is_some_and(|slot| values.at(slot).is_empty()) {
                continue;
            }
            len += piece.text.len() + piece.hole.map_or(0, |slot| values.at(slot).len());
        }
        len
    }

    #[inline]
    pub(super) fn fits_fast(&self, values: &Values<'_>) -> bool {
        self.expected
            .iter()
            .all(|&(slot, width)| values.at(slot).len() == width)
    }
}

#[inline]
fn run_fast(pieces: &[Piece], values: &Values<'_>, out: &mut Vec<u8>) {
    for piece in pieces {
        if piece.when.is_some_and(|slot| values.at(slot).is_empty()) {
            continue;
        }
        let base = out.len();
        out.extend_from_slice(&piece.text);
        let text = &mut out[base..];
        for patch in &piece.patches {
            let value = values.at(patch.slot);
            copy_short(&mut text[patch.at as usize..][..value.len()], value);
        }
        if let Some(slot) = piece.hole {
            out.extend_from_slice(values.at(slot));
        }
    }
}

/// Copies a short value of equal length without a call: its ends as two overlapping blocks.
#[inline]
fn copy_short(place: &mut [u8], value: &[u8]) {
    #[inline]
    fn ends<const N: usize>(place: &mut [u8], value: &[u8]) -> bool {
        let (Some(first), Some(last)) = (value.first_chunk::<N>(), value.last_chunk::<N>()) else {
            return false;
        };
        if let Some(start) = place.first_chunk_mut::<N>() {
            *start = *first;
        }
        if let Some(end) = place.last_chunk_mut::<N>() {
            *end = *last;
        }
        true
    }
    debug_assert_eq!(place.len(), value.len());
    let done = match value.len() {
        0 => true,
        1 => ends::<1>(place, value),
        2..=3 => ends::<2>(place, value),
        4..=7 => ends::<4>(place, value),
        8..=15 => ends::<8>(place, value),
        16..=31 => ends::<16>(place, value),
        32..=64 => ends::<32>(place, value),
        _ => false,
    };
    if !done {
        place.copy_from_slice(value);
    }
}

fn names(op: &Op, slot: Slot) -> bool {
    match op {
        Op::Text(_) => false,
        Op::Hole(named) | Op::Optional(named, ..) => *named == slot,
    }
}

/// Collects text and patches until a hole of unknown width ends the piece.
#[derive(Default)]
struct Open {
    text: Vec<u8>,
    patches: Vec<Patch>,
}

impl Open {
    fn patch(&mut self, slot: Slot, width: usize) {
        self.patches.push(Patch {
            at: u32::try_from(self.text.len()).expect("profile values are bounded"),
            slot,
        });
        self.text.resize(self.text.len() + width, b'?');
    }

    fn close(&mut self, hole: Option<Slot>, when: Option<Slot>, done: &mut Vec<Piece>) {
        if self.text.is_empty() && hole.is_none() {
            return;
        }
        let open = core::mem::take(self);
        done.push(Piece {
            text: open.text.into(),
            patches: open.patches.into(),
            hole,
            when,
        });
    }
}

fn pieces(ops: &[Op], expected: &[(Slot, usize)]) -> Box<[Piece]> {
    let width = |slot: Slot| {
        expected
            .iter()
            .find(|(known, _)| *known == slot)
            .map(|&(_, width)| width)
    };
    let mut done = Vec::new();
    let mut open = Open::default();
    for op in ops {
        match op {
            Op::Text(text) => open.text.extend_from_slice(text.as_bytes()),
            Op::Hole(slot) => match width(*slot) {
                Some(width) => open.patch(*slot, width),
                None => open.close(Some(*slot), None, &mut done),
            },
            Op::Optional(slot, before, after) => match width(*slot) {
                Some(0) => {}
                Some(width) => {
                    open.text.extend_from_slice(before.as_bytes());
                    open.patch(*slot, width);
                    open.text.extend_from_slice(after.as_bytes());
                }
                None => {
                    open.close(None, None, &mut done);
                    open.text.extend_from_slice(before.as_bytes());
                    open.close(Some(*slot), Some(*slot), &mut done);
                    open.text.extend_from_slice(after.as_bytes());
                    open.close(None, Some(*slot), &mut done);
                }
            },
        }
    }
    open.close(None, None, &mut done);
    done.into()
}

/// Short text on the stack: numbers and values made of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Text {
    /// Two 64-bit numbers and a few words.
    const CAPACITY: usize = 48;

    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; Self::CAPACITY],
            len: 0,
        }
    }

    /// One number in decimal.
    #[inline]
    pub(super) fn number(value: u64) -> Self {
        let mut text = Self::new();
        text.push_number(value);
        text
    }

    /// Appends; the caller stays below the capacity.
    #[inline]
    pub(super) fn push(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    /// Appends `value` in decimal.
    #[inline]
    pub(super) fn push_number(&mut self, value: u64) {
        let digits = value.checked_ilog10().map_or(1, |log| log as usize + 1);
        let place = &mut self.bytes[self.len..self.len + digits];
        self.len += digits;
        let mut rest = value;
        let mut pairs = place.rchunks_exact_mut(2);
        for pair in &mut pairs {
            let low = usize::try_from(rest % 100).expect("below 100");
            pair.copy_from_slice(&DIGIT_PAIRS[low]);
            rest /= 100;
        }
        if let [first] = pairs.into_remainder() {
            *first = DIGIT_PAIRS[usize::try_from(rest).expect("below 10")][1];
        }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

const DIGIT_PAIRS: [[u8; 2]; 100] = digit_pairs();

const fn digit_pairs() -> [[u8; 2]; 100] {
    let mut pairs = [[b'0'; 2]; 100];
    let (mut tens, mut at) = (b'0', 0);
    while at < 100 {
        let mut ones = b'0';
        while ones <= b'9' {
            pairs[at] = [tens, ones];
            ones += 1;
            at += 1;
        }
        tens += 1;
    }
    pairs
}
