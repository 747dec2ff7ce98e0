//! Programs: messages compiled into static pieces and holes, and the two ways to run them.
//!
//! A message is described once as a list of [`Op`]s. From it come two programs. The *general* one
//! takes values of any length. The *fast* one was compiled for the usual ones (tokens of 32
//! characters, UUIDs, CSeq of one digit, ...): those holes lie inside the static pieces as filler and are
//! patched after a single copy, all of one width in a row, so that an INVITE is four large copies
//! instead of forty small ones. Which one runs is decided per message; both give the same bytes.

use super::numbers::{LENGTH_DIGITS, Origin, Text, Timer, digit, three_digits};
use crate::base::token::TOKEN_LEN;

/// Length of a UUID, the usual Conversation-ID and Contribution-ID.
const UUID_LEN: usize = 36;

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

    const fn usual(self) -> Usual {
        match self {
            Self::Branch | Self::CallId | Self::FromTag | Self::Icid | Self::MsrpSession => {
                Usual::Token
            }
            Self::ContributionId | Self::ConversationId => Usual::Uuid,
            Self::Cseq => Usual::Digit,
            Self::ContentLength => Usual::Length,
            Self::ExtraAcceptContact | Self::ExtraHeaders | Self::MinSe | Self::RelatedIcid => {
                Usual::Absent
            }
            Self::Origin => Usual::Origin,
            Self::SessionExpires => Usual::Timer,
            Self::AssertedIdentity
            | Self::Body
            | Self::ContentType
            | Self::Expires
            | Self::Filler
            | Self::FromUri
            | Self::Reason
            | Self::RequestUri
            | Self::RouteLines
            | Self::To => Usual::Any,
        }
    }
}

/// What a fast program expects of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usual {
    /// Nothing.
    Absent,
    /// Any length.
    Any,
    /// One digit.
    Digit,
    /// [`LENGTH_DIGITS`] digits.
    Length,
    /// What [`Origin`] takes.
    Origin,
    /// The profile's session timer, which is text then.
    Timer,
    /// [`TOKEN_LEN`] octets.
    Token,
    /// [`UUID_LEN`] octets.
    Uuid,
}

/// The numbers of a message. A fast program writes them where they go; a general one wants them as text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub cseq: u32,
    /// Session id and version of the o= line, of a message with an offer.
    pub origin: (u64, u32),
    pub session_expires: Option<Timer>,
    pub min_se: Option<u32>,
}

impl Figures {
    /// Of a message without offer and session timer.
    pub(super) fn numbered(cseq: u32) -> Self {
        Self {
            cseq,
            ..Self::default()
        }
    }
}

/// One value per slot; unset ones are empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    texts: [&'a [u8]; Slot::COUNT],
    /// Not zero when a value that was set has not its slot's usual length.
    unusual: usize,
}

impl<'a> Values<'a> {
    pub(super) const fn new() -> Self {
        Self {
            texts: [b""; Slot::COUNT],
            unusual: 0,
        }
    }

    /// Sets one value.
    ///
    /// Callers pass validated values. A line end or NUL would let the value's author write headers
    /// of our request, so debug builds stop on it.
    #[inline]
    pub(super) fn set(&mut self, slot: Slot, value: &'a [u8]) -> &mut Self {
        debug_assert!(
            slot.may_hold_lines() || !value.iter().any(|c| b"\r\n\0".contains(c)),
            "a value for {slot:?} holds a line end or NUL"
        );
        debug_assert!(
            slot == Slot::Body || value.is_empty() || !slot.may_hold_lines() || is_lines(value),
            "lines for {slot:?} must be complete"
        );
        // Folds to one operation or none, for slots are named where they are set.
        self.unusual |= match slot.usual() {
            Usual::Absent => value.len(),
            Usual::Token => value.len() ^ TOKEN_LEN,
            Usual::Uuid => value.len() ^ UUID_LEN,
            Usual::Any | Usual::Digit | Usual::Length | Usual::Origin | Usual::Timer => 0,
        };
        self.texts[slot as usize] = value;
        self
    }

    const fn at(&self, slot: Slot) -> &'a [u8] {
        self.texts[slot as usize]
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
    piece: u8,
    slot: Slot,
}

/// Text, then a value.
#[derive(Clone, Debug)]
struct Piece {
    text: Box<[u8]>,
    hole: Option<Slot>,
    /// The piece is left out when this slot is empty.
    when: Option<Slot>,
}

/// A message whose values are the usual ones.
#[derive(Clone, Debug)]
struct Fast {
    pieces: Box<[Piece]>,
    tokens: Box<[Patch]>,
    uuids: Box<[Patch]>,
    cseq: Option<Patch>,
    content_length: Option<Patch>,
    has_origin: bool,
    /// The session timer in its text; `None` for a message that says nothing of one.
    timer: Option<Option<Timer>>,
}

/// What the value of Content-Length is made of.
#[derive(Clone, Debug)]
struct Body {
    /// Octets of text.
    text: usize,
    holes: Box<[Slot]>,
}

/// A compiled message.
#[derive(Clone, Debug)]
pub(super) struct Program {
    general: Box<[Piece]>,
    fast: Fast,
    body: Body,
    /// Upper end of the text of one message.
    text_len: usize,
}

/// Most pieces of a fast program.
const PIECES_MAX: usize = 16;

/// Most parts of a vectored message.
pub(super) const PARTS_MAX: usize = 64;

impl Program {
    /// Compiles `head` (through the blank line) and `body`, with a fast program for `timer`.
    pub(super) fn compile(head: &[Op], body: &[Op], timer: Option<Timer>) -> Self {
        let all: Vec<Op> = head.iter().chain(body).cloned().collect();
        let general = general(&all);
        assert!(
            2 * general.len() <= PARTS_MAX,
            "a message fits a vectored write"
        );
        Self {
            text_len: general.iter().map(|piece| piece.text.len()).sum(),
            fast: Fast::compile(&all, timer),
            general,
            body: Body::of(body),
        }
    }

    /// Octets of the body: the value of Content-Length.
    pub(super) fn body_len(&self, values: &Values<'_>) -> usize {
        let of = |slot: &Slot| values.at(*slot).len();
        self.body.text + self.body.holes.iter().map(of).sum::<usize>()
    }

    /// What the fast program needs beside `values`; `None` when they are not the usual ones.
    #[inline]
    pub(super) fn usual(&self, values: &Values<'_>, figures: &Figures) -> Option<Ready> {
        self.fast.ready(&self.body, values, figures)
    }

    /// Appends a message whose values are usual.
    #[inline]
    pub(super) fn encode_usual(&self, values: &Values<'_>, ready: &Ready, out: &mut Vec<u8>) {
        self.fast.encode(values, ready, out);
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

    /// Octets of a message whose values are usual.
    #[inline]
    pub(super) fn usual_len(&self, values: &Values<'_>, ready: &Ready) -> usize {
        ready.origin.len() + message_len(&self.fast.pieces, values)
    }

    /// Octets of the message.
    pub(super) fn general_len(&self, values: &Values<'_>) -> usize {
        message_len(&self.general, values)
    }
}

#[inline]
fn message_len(pieces: &[Piece], values: &Values<'_>) -> usize {
    let mut len = 0;
    for piece in pieces {
        if piece.when.is_some_and(|slot| values.at(slot).is_empty()) {
            continue;
        }
        len += piece.text.len() + piece.hole.map_or(0, |slot| values.at(slot).len());
    }
    len
}

impl Fast {
    fn compile(ops: &[Op], timer: Option<Timer>) -> Self {
        let mut fast = Self {
            pieces: Box::default(),
            tokens: Box::default(),
            uuids: Box::default(),
            cseq: None,
            content_length: None,
            has_origin: false,
            timer: None,
        };
        let (mut tokens, mut uuids) = (Vec::new(), Vec::new());
        let mut open = Open::default();
        for op in ops {
            let (slot, before, after, optional) = match op {
                Op::Text(text) => {
                    open.text.extend_from_slice(text.as_bytes());
                    continue;
                }
                Op::Hole(slot) => (*slot, "", "", false),
                Op::Optional(slot, before, after) => (*slot, *before, *after, true),
            };
            match slot.usual() {
                Usual::Absent => {}
                Usual::Origin => {
                    fast.has_origin = true;
                    open.close(Some(slot), None);
                }
                Usual::Any if optional => open.optional(slot, before, after),
                Usual::Any => open.close(Some(slot), None),
                Usual::Digit => fast.cseq = Some(open.patch(slot, 1)),
                Usual::Length => fast.content_length = Some(open.patch(slot, LENGTH_DIGITS)),
                Usual::Timer => {
                    fast.timer = Some(timer);
                    if let Some(timer) = timer {
                        let mut text = Text::new();
                        text.push_timer(timer);
                        for part in [before.as_bytes(), text.as_bytes(), after.as_bytes()] {
                            open.text.extend_from_slice(part);
                        }
                    }
                }
                Usual::Token | Usual::Uuid => {
                    open.text.extend_from_slice(before.as_bytes());
                    match slot.usual() == Usual::Token {
                        true => tokens.push(open.patch(slot, TOKEN_LEN)),
                        false => uuids.push(open.patch(slot, UUID_LEN)),
                    }
                    open.text.extend_from_slice(after.as_bytes());
                }
            }
        }
        fast.pieces = open.done();
        assert!(fast.pieces.len() <= PIECES_MAX, "each piece has its start");
        (fast.tokens, fast.uuids) = (tokens.into(), uuids.into());
        fast
    }

    #[inline]
    fn ready(&self, body: &Body, values: &Values<'_>, figures: &Figures) -> Option<Ready> {
        let usual = figures.cseq < 10
            && self
                .timer
                .is_none_or(|timer| timer == figures.session_expires)
            && figures.min_se.is_none()
            && values.unusual == 0;
        if !usual {
            return None;
        }
        let origin = match self.has_origin {
            true => Origin::new(figures.origin)?,
            false => Origin::NONE,
        };
        let mut length = body.text;
        for &slot in &body.holes {
            length += if slot == Slot::Origin {
                origin.len()
            } else {
                values.at(slot).len()
            };
        }
        if self.content_length.is_some() && !(100..1000).contains(&length) {
            return None;
        }
        Some(Ready {
            cseq: digit(figures.cseq),
            origin,
            length: three_digits(length),
        })
    }

    #[inline]
    fn encode(&self, values: &Values<'_>, ready: &Ready, out: &mut Vec<u8>) {
        let mut starts = [0; PIECES_MAX];
        for (piece, start) in self.pieces.iter().zip(&mut starts) {
            if piece.when.is_some_and(|slot| values.at(slot).is_empty()) {
                continue;
            }
            *start = out.len();
            out.extend_from_slice(&piece.text);
            match piece.hole {
                None => {}
                Some(Slot::Origin) => ready.origin.put(out),
                Some(slot) => out.extend_from_slice(values.at(slot)),
            }
        }
        let out = &mut out[..];
        let place = |patch: &Patch| starts[patch.piece as usize % PIECES_MAX] + patch.at as usize;
        for patch in &self.tokens {
            put_block::<TOKEN_LEN>(&mut out[place(patch)..], values.at(patch.slot));
        }
        for patch in &self.uuids {
            put_block::<UUID_LEN>(&mut out[place(patch)..], values.at(patch.slot));
        }
        if let Some(patch) = &self.cseq {
            out[place(patch)] = ready.cseq;
        }
        if let Some(patch) = &self.content_length {
            put_block::<LENGTH_DIGITS>(&mut out[place(patch)..], &ready.length);
        }
    }
}

impl Body {
    fn of(ops: &[Op]) -> Self {
        let mut text = 0;
        let mut holes = Vec::new();
        for op in ops {
            match op {
                Op::Text(part) => text += part.len(),
                Op::Hole(slot) => holes.push(*slot),
                Op::Optional(..) => unreachable!("bodies have no optional lines"),
            }
        }
        Self {
            text,
            holes: holes.into(),
        }
    }
}

/// The usual numbers of a message, as they are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    cseq: u8,
    origin: Origin,
    length: [u8; LENGTH_DIGITS],
}

/// Copies a value of known length without a call.
#[inline]
fn put_block<const N: usize>(place: &mut [u8], value: &[u8]) {
    let value = value.first_chunk::<N>().expect("the length was looked at");
    *place
        .first_chunk_mut::<N>()
        .expect("filler was left for it") = *value;
}

/// Collects text until a hole ends the piece.
#[derive(Default)]
struct Open {
    text: Vec<u8>,
    done: Vec<Piece>,
}

impl Open {
    fn patch(&mut self, slot: Slot, width: usize) -> Patch {
        let at = self.text.len();
        self.text.resize(at + width, b'?');
        Patch {
            at: u32::try_from(at).expect("profile values are bounded"),
            piece: u8::try_from(self.done.len()).expect("programs are short"),
            slot,
        }
    }

    fn close(&mut self, hole: Option<Slot>, when: Option<Slot>) {
        if self.text.is_empty() && hole.is_none() {
            return;
        }
        let text = core::mem::take(&mut self.text).into();
        self.done.push(Piece { text, hole, when });
    }

    fn optional(&mut self, slot: Slot, before: &str, after: &str) {
        self.close(None, None);
        self.text.extend_from_slice(before.as_bytes());
        self.close(Some(slot), Some(slot));
        self.text.extend_from_slice(after.as_bytes());
        self.close(None, Some(slot));
    }

    fn done(mut self) -> Box<[Piece]> {
        self.close(None, None);
        self.done.into()
    }
}

fn general(ops: &[Op]) -> Box<[Piece]> {
    let mut open = Open::default();
    for op in ops {
        match op {
            Op::Text(text) => open.text.extend_from_slice(text.as_bytes()),
            Op::Hole(slot) => open.close(Some(*slot), None),
            Op::Optional(slot, before, after) => open.optional(*slot, before, after),
        }
    }
    open.done()
}
