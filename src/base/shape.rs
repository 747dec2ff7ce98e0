//! Texts of a shape seen before: same length, same structure, other names in the same places.
//!
//! What peers send differs mostly in identifiers: branches, tags, names of users, numbers. A [`Shape`]
//! is a text that was read with care once, with a note for each octet of what may stand there instead
//! without the reader finding other parts at other places. Whoever comes with a text that fits spares
//! the reading and takes the places found the first time. The notes are the reader's to make, and to
//! answer for: an octet that nobody spoke of must be the same.
//!
//! Thirty-two octets are compared at a step, and only steps that differ are looked at.

use core::ops::Range;

use crate::base::lanes::{LANES, Lanes, Marks};

/// What may stand in place of an octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freedom {
    /// A digit in place of a digit.
    Digit,
    /// A letter or digit in place of a letter or digit.
    Word,
    /// `!` to `~` in place of the same: no blanks, no control characters, nothing above 127.
    Graphic,
}

impl Freedom {
    const fn has(self, octet: u8) -> bool {
        match self {
            Self::Digit => octet.is_ascii_digit(),
            Self::Word => octet.is_ascii_alphanumeric(),
            Self::Graphic => octet.is_ascii_graphic(),
        }
    }
}

/// Octets compared at a step.
const STEP: usize = 2 * LANES;

/// How free the octets of a step are: bit n speaks of octet n. One of no kind is graphic, or behind the end.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    fixed: u32,
    digit: u32,
    word: u32,
    graphic: u32,
}

/// A text, and what may stand in place of its octets.
///
/// A text of whole steps and a rest has its last 32 octets as the step behind them: what they share
/// with the step before is looked at twice. Only a text below one step is padded. A rest that is copied to
/// be padded is read as a whole right after, which waits until all stores before it have reached the cache.
#[derive(Debug)]
pub struct Shape {
    text: Box<[[u8; STEP]]>,
    bounds: Box<[Bounds]>,
    len: usize,
    /// The step in which another text differed last; looked at first.
    hint: usize,
}

impl Shape {
    /// Room for texts of up to `octets`; the only allocations.
    #[must_use]
    pub fn with_room(octets: usize) -> Self {
        let steps = octets.div_ceil(STEP);
        Self {
            text: vec![[0; STEP]; steps].into(),
            bounds: vec![Bounds::default(); steps].into(),
            len: 0,
            hint: 0,
        }
    }

    /// Octets of the text; 0 before the first.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// `true` before the first text.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `text`, no octet of it free. `false`, and empty, when there is no room for it.
    pub fn cast(&mut self, text: &[u8]) -> bool {
        self.len = 0;
        self.hint = 0;
        if text.len() > self.text.len() * STEP {
            return false;
        }
        let steps = self.text.iter_mut().zip(&mut self.bounds);
        let (whole, rest) = text.as_chunks::<STEP>();
        let last = match text.last_chunk() {
            _ if rest.is_empty() => None,
            Some(tail) => Some((*tail, STEP)),
            None => Some((padded(rest), rest.len())),
        };
        let chunks = whole.iter().map(|chunk| (*chunk, STEP)).chain(last);
        for ((octets, bounds), (chunk, len)) in steps.zip(chunks) {
            *octets = chunk;
            *bounds = Bounds {
                fixed: u32::MAX >> (STEP - len),
                ..Bounds::default()
            };
        }
        self.len = text.len();
        true
    }

    /// Notes that the octets of `range` are as free as `freedom` says, as far as they are of its kind.
    pub fn free(&mut self, range: Range<usize>, freedom: Freedom) {
        for at in range.start..range.end.min(self.len) {
            for (step, place) in self.places(at).into_iter().flatten() {
                if !freedom.has(self.text[step][place]) {
                    continue;
                }
                let (bounds, bit) = (&mut self.bounds[step], 1 << place);
                bounds.forget(bit);
                match freedom {
                    Freedom::Digit => bounds.digit |= bit,
                    Freedom::Word => bounds.word |= bit,
                    Freedom::Graphic => bounds.graphic |= bit,
                }
            }
        }
    }

    /// Takes back the freedom of `range`.
    pub fn fix(&mut self, range: Range<usize>) {
        for at in range.start..range.end.min(self.len) {
            for (step, place) in self.places(at).into_iter().flatten() {
                let (bounds, bit) = (&mut self.bounds[step], 1 << place);
                bounds.forget(bit);
                bounds.fixed |= bit;
            }
        }
    }

    /// Where an octet of the text is: among the whole steps, in the last one, or in both.
    fn places(&self, at: usize) -> [Option<(usize, usize)>; 2] {
        let whole = self.len / STEP;
        let last_start = self.len.saturating_sub(STEP);
        let in_last = !self.len.is_multiple_of(STEP) && at >= last_start;
        [
            (at / STEP < whole).then_some((at / STEP, at % STEP)),
            in_last.then(|| (whole, at - last_start)),
        ]
    }

    /// `true` when `text` starts with a text of this shape. What is behind it is not looked at.
    #[inline]
    #[must_use]
    pub fn fits(&mut self, text: &[u8]) -> bool {
        let Some(text) = text.get(..self.len).filter(|text| !text.is_empty()) else {
            return false;
        };
        let (steps, rest) = text.as_chunks::<STEP>();
        // Shapes of one kind differ in the same places again and again.
        if steps
            .get(self.hint)
            .is_some_and(|new| !self.allows(self.hint, new))
        {
            return false;
        }
        let mut at = 0;
        for (old, new) in self.text.iter().zip(steps) {
            let differs = differences(old, new);
            if differs != 0 && !self.bounds[at].allow(differs, new) {
                self.hint = at;
                return false;
            }
            at += 1;
        }
        match text.last_chunk() {
            _ if rest.is_empty() => true,
            Some(tail) => self.allows(at, tail),
            None => self.allows(at, &padded(rest)),
        }
    }

    fn allows(&self, at: usize, new: &[u8; STEP]) -> bool {
        let differs = differences(&self.text[at], new);
        differs == 0 || self.bounds[at].allow(differs, new)
    }
}

/// Which octets are not the same.
#[inline]
fn differences(old: &[u8; STEP], new: &[u8; STEP]) -> u32 {
    let ([old_a, old_b], [new_a, new_b]) = (halves(old), halves(new));
    join(old_a.unlike(new_a), old_b.unlike(new_b))
}

#[inline]
fn halves(octets: &[u8; STEP]) -> [Lanes; 2] {
    let (halves, _) = octets.as_chunks::<LANES>();
    [Lanes::load(&halves[0]), Lanes::load(&halves[1])]
}

#[inline]
fn join(a: Marks, b: Marks) -> u32 {
    a.bits() | b.bits() << LANES
}

/// Octets with zeros behind.
fn padded(octets: &[u8]) -> [u8; STEP] {
    let mut whole = [0; STEP];
    whole[..octets.len()].copy_from_slice(octets);
    whole
}

impl Bounds {
    fn forget(&mut self, bit: u32) {
        for bits in [
            &mut self.fixed,
            &mut self.digit,
            &mut self.word,
            &mut self.graphic,
        ] {
            *bits &= !bit;
        }
    }

    /// Whether the octets of `new` that `differs` marks may be what they are.
    #[inline]
    fn allow(&self, differs: u32, new: &[u8; STEP]) -> bool {
        if differs & self.fixed != 0 {
            return false;
        }
        let digit = halves(new).map(|half| half.between(b'0', b'9'));
        let letter = halves(new).map(|half| half.with(0x20).between(b'a', b'z'));
        let not_word = differs & !join(digit[0] | letter[0], digit[1] | letter[1]);
        let of_digits = differs & self.digit;
        if not_word | of_digits == 0 {
            return true;
        }
        let graphic = halves(new).map(|half| half.between(b'!', b'~'));
        not_word & self.word == 0
            && of_digits & !join(digit[0], digit[1]) == 0
            && differs & self.graphic & !join(graphic[0], graphic[1]) == 0
    }
}

/// Credit of a memory: a hit gives one, a miss takes one.
const CREDIT: i16 = 64;
/// Texts that pass unseen when the credit is spent.
const SLEEP: u16 = 1024;
/// One miss of so many is learned.
const LEARN_EVERY: i16 = 4;

/// Whether a memory is worth asking: where hardly anything fits, it is hardly ever asked.
#[derive(Clone, Copy, Debug, Default)]
struct Attention {
    credit: i16,
    sleep: u16,
}

impl Attention {
    /// `true` when the next text is to be looked at.
    #[inline]
    const fn is_awake(&mut self) -> bool {
        if self.sleep == 0 {
            return true;
        }
        self.sleep -= 1;
        false
    }

    #[inline]
    fn hit(&mut self) {
        self.credit = (self.credit + 1).min(CREDIT);
    }

    /// No shape fitted; `true` when the text's is to be learned. `room`: there is an empty place.
    const fn missed(&mut self, room: bool) -> bool {
        self.credit -= 1;
        if self.credit <= -CREDIT {
            *self = Self {
                credit: 0,
                sleep: SLEEP,
            };
            return false;
        }
        room || self.credit % LEARN_EVERY == 0
    }
}

/// Shapes of one kind of text, and what reading found in each. A miss now and then is learned, in the
/// place of one that did not fit for long.
#[derive(Debug)]
pub struct Memory<T> {
    ways: Box<[Way<T>]>,
    /// Where the next shape is looked for a place.
    hand: usize,
    attention: Attention,
    /// The last text was not known, and its like is to be.
    wanted: bool,
}

#[derive(Debug)]
struct Way<T> {
    shape: Shape,
    found: T,
    /// It fitted since the hand came by.
    used: bool,
}

impl<T> Memory<T> {
    /// Room for `ways` texts of up to `octets`, at least one; all memory there will be.
    ///
    /// # Panics
    /// Without ways.
    #[must_use]
    pub fn new(ways: usize, octets: usize, blank: impl Fn() -> T) -> Self {
        assert!(ways > 0, "a memory remembers something");
        let way = |_| Way {
            shape: Shape::with_room(octets),
            found: blank(),
            used: false,
        };
        Self {
            ways: (0..ways).map(way).collect(),
            hand: 0,
            attention: Attention::default(),
            wanted: false,
        }
    }

    /// What was found in a text that `text` is like, which is as long.
    #[inline]
    pub fn recall(&mut self, text: &[u8]) -> Option<&T> {
        let is_like = |shape: &mut Shape| shape.len() == text.len() && shape.fits(text);
        Some(&self.look(is_like)?.found)
    }

    /// What was found in a text that `text` starts like, and how many octets are alike.
    #[inline]
    pub fn recall_start(&mut self, text: &[u8]) -> Option<(&T, usize)> {
        let way = self.look(|shape| shape.fits(text))?;
        Some((&way.found, way.shape.len()))
    }

    #[inline]
    fn look(&mut self, mut is_like: impl FnMut(&mut Shape) -> bool) -> Option<&Way<T>> {
        self.wanted = false;
        if !self.attention.is_awake() {
            return None;
        }
        let Some(at) = self.ways.iter_mut().position(|way| is_like(&mut way.shape)) else {
            let room = self.ways.iter().any(|way| way.shape.is_empty());
            self.wanted = self.attention.missed(room);
            return None;
        };
        self.attention.hit();
        let way = &mut self.ways[at];
        way.used = true;
        Some(way)
    }

    /// Keeps `text`, the one that was not recalled, if it is wanted. `read` notes what was found in it and
    /// what is free, or says that it is not to be kept.
    #[inline]
    pub fn learn(&mut self, text: &[u8], read: impl FnOnce(&mut T, &mut Shape) -> bool) {
        if core::mem::take(&mut self.wanted) {
            self.keep(text, read);
        }
    }

    #[cold]
    fn keep(&mut self, text: &[u8], read: impl FnOnce(&mut T, &mut Shape) -> bool) {
        while core::mem::take(&mut self.ways[self.hand].used) {
            self.hand = (self.hand + 1) % self.ways.len();
        }
        let way = &mut self.ways[self.hand];
        if way.shape.cast(text) && !read(&mut way.found, &mut way.shape) {
            way.shape.cast(b"");
        }
        self.hand = (self.hand + 1) % self.ways.len();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::entropy::Jitter;

    /// `text` with up to three octets of `within` changed: into letters and digits, marks that structure
    /// texts, or anything.
    pub(crate) fn scribbled(dice: &mut Jitter, text: &[u8], within: Range<usize>) -> Vec<u8> {
        const NAMES: &[u8] = b"0123456789abcxyzABCXYZ";
        const MARKS: &[u8] = b" ,;:=<>@%\"\r\n\t?&\\/.-+[]*#$";
        let mut text = text.to_vec();
        let mut below = |bound: usize| usize::try_from(dice.below(bound as u64)).unwrap();
        for _ in 0..below(4) {
            let at = within.start + below(within.len());
            text[at] = match below(4) {
                0 => u8::try_from(below(256)).unwrap(),
                1 => MARKS[below(MARKS.len())],
                _ => NAMES[below(NAMES.len())],
            };
        }
        text
    }

    #[test]
    fn an_octet_may_be_what_it_was_said_to_be_at_every_place_and_length() {
        for len in 1..100 {
            for at in 0..len {
                for (freedom, old) in [
                    (None, b'7'),
                    (Some(Freedom::Digit), b'7'),
                    (Some(Freedom::Word), b'q'),
                    (Some(Freedom::Graphic), b'='),
                    // Not of its kind, so not free.
                    (Some(Freedom::Digit), b'q'),
                    (Some(Freedom::Word), b'='),
                    (Some(Freedom::Graphic), b' '),
                ] {
                    let mut text = vec![b'~'; len];
                    text[at] = old;
                    let mut shape = Shape::with_room(100);
                    assert!(shape.cast(&text));
                    if let Some(freedom) = freedom {
                        shape.free(at..at + 1, freedom);
                    }
                    let freedom = freedom.filter(|freedom| freedom.has(old));
                    for new in 0..=u8::MAX {
                        text[at] = new;
                        let want = new == old || freedom.is_some_and(|kind| kind.has(new));
                        assert_eq!(shape.fits(&text), want, "{len} {at} {freedom:?} {new}");
                    }
                    shape.fix(at..at + 1);
                    for new in [b'5', b'z', b'+'] {
                        text[at] = new;
                        assert!(!shape.fits(&text), "{len} {at} {freedom:?} {new} fixed");
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_word_on_an_octet_counts() {
        let mut shape = Shape::with_room(64);
        assert!(shape.cast(b"12345678901234567890"));
        shape.free(0..20, Freedom::Graphic);
        shape.free(2..20, Freedom::Word);
        shape.free(18..20, Freedom::Digit);
        shape.fix(0..1);
        assert!(shape.fits(b"1=a45678901234567x90 and more"));
        assert!(!shape.fits(b"2=a4567890123456789a"));
        assert!(!shape.fits(b"1==45678901234567890"));
        assert!(!shape.fits(b"1=a456789012345678x0"));
        assert!(!shape.fits(b"1=a4567890123456789"), "too short");
        assert!(!shape.cast(&[b'x'; 65]));
        assert!(
            shape.is_empty() && !shape.fits(b""),
            "nothing fits no shape"
        );
    }

    #[test]
    fn a_memory_that_misses_is_left_alone_for_a_while() {
        let mut attention = Attention::default();
        let mut learned = 0;
        let looked = (0..10_000).filter(|_| {
            let awake = attention.is_awake();
            learned += u32::from(awake && attention.missed(false));
            awake
        });
        assert!((500..700).contains(&looked.count()));
        assert!((100..200).contains(&learned), "{learned}");
        // One that mostly hits stays awake.
        let mut attention = Attention::default();
        for round in 0..10_000 {
            assert!(attention.is_awake());
            if round % 3 == 0 {
                attention.missed(false);
            } else {
                attention.hit();
            }
        }
    }

    #[test]
    fn more_texts_than_places_do_not_push_out_what_is_in_use() {
        let mut memory = Memory::new(8, 64, || 0);
        let text = |length: usize| vec![b'x'; length];
        let mut recalled = |length: usize| {
            let known = memory.recall(&text(length)).copied();
            memory.learn(&text(length), |found, _| {
                *found = length;
                !length.is_multiple_of(5)
            });
            known
        };
        for length in 1..=4 {
            assert_eq!(recalled(length), None);
        }
        for round in 0..200 {
            for length in 1..=4 {
                assert_eq!(recalled(length), Some(length));
            }
            let stranger = 6 + round % 50;
            assert!(recalled(stranger).is_none_or(|found| found == stranger));
        }
        assert_eq!(recalled(15), None, "not kept");
        assert_eq!(recalled(15), None);
        assert_eq!(recalled(65), None, "no room");
    }

    #[test]
    fn where_texts_differed_last_changes_no_answer() {
        let mut dice = Jitter::new(3);
        let text = [b'a'; 45];
        let mut shape = Shape::with_room(48);
        assert!(shape.cast(&text));
        shape.free(10..30, Freedom::Word);
        for _ in 0..20_000 {
            let mut other = text;
            let at = usize::try_from(dice.below(45)).unwrap();
            other[at] = b"a0~"[usize::try_from(dice.below(3)).unwrap()];
            let want = other[at] == b'a' || (other[at] == b'0' && (10..30).contains(&at));
            assert_eq!(shape.fits(&other), want, "{at}");
        }
    }
}
