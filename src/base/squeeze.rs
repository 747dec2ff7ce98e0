//! Short texts that resemble each other, written as what differs (layer 0).
//!
//! What is kept of one session looks like that of another: route sets, hosts, names of parameters. A
//! [`Squeezer`] learns a dictionary from the first texts it sees and writes each as copies from the
//! dictionary or from itself, and the rest as it is; of hexadecimal digits two in an octet. No statistics
//! and no bit streams: a text is read back in a few copies.
//!
//! | octet | meaning |
//! |-------|---------|
//! | `0x00..=0x5f` | the next 1 to 96 octets are the text's |
//! | `0x60..=0x7f` | 2 to 33 octets follow that are 4 to 66 digits `0-9a-f` |
//! | `0x80..=0xbf` | a copy of 3 to 66 octets that goes on where the last copy's source would be now |
//! | `0xc0..=0xff` | the same from the place in the next two octets |
//!
//! Places count from the start of the dictionary, behind whose bound the text itself begins. The dictionary
//! only grows, so that what was written stays readable. It belongs to one process and is never stored.

/// Octets of the dictionary at most.
const DICTIONARY_BYTES_MAX: usize = 12 * 1024;
/// Longest text, octets.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Texts after which none is learned any more.
const LESSONS_END: u64 = 1 << 20;
const HASH_BITS: u32 = 12;
/// Of the text at hand: it is short, and its table shall be so, too, since it is cold each time.
const TEXT_HASH_BITS: u32 = 10;
const MATCH_MIN: usize = 4;
/// Shortest copy that goes on from the last one: it costs one octet.
const FOLLOW_MIN: usize = 3;
const COPY_MAX: usize = 66;
const LITERAL_MAX: usize = 96;
const HEX_DIGITS_MIN: usize = 8;
const HEX_DIGITS_MAX: usize = 66;

const _: () = assert!(
    DICTIONARY_BYTES_MAX + TEXT_BYTES_MAX <= u16::MAX as usize,
    "a place is two octets"
);

/// See the module.
#[derive(Debug)]
pub struct Squeezer {
    /// Room for the whole dictionary, and behind it the text at hand.
    window: Vec<u8>,
    /// Octets of the dictionary so far.
    known: usize,
    /// Places in the dictionary by the hash of what begins there.
    by_hash: Vec<u16>,
    /// The same for the text at hand, each with the number of its text, as far as sixteen bits tell: those of others
    /// are passed over, and one that is not is compared anyhow.
    of_text: Vec<(u16, u16)>,
    texts: u64,
    next_lesson: u64,
}

impl Default for Squeezer {
    fn default() -> Self {
        Self {
            window: Vec::new(),
            known: 0,
            by_hash: Vec::new(),
            of_text: Vec::new(),
            texts: 0,
            next_lesson: 1,
        }
    }
}

impl Squeezer {
    /// Appends to `out` what `text` is read back from.
    ///
    /// # Panics
    /// When `text` is longer than [`TEXT_BYTES_MAX`].
    pub fn squeeze(&mut self, text: &[u8], out: &mut Vec<u8>) {
        assert!(text.len() <= TEXT_BYTES_MAX, "the owner bounds its texts");
        if self.by_hash.is_empty() {
            self.by_hash = vec![u16::MAX; 1 << HASH_BITS];
            self.of_text = vec![(0, u16::MAX); 1 << TEXT_HASH_BITS];
            self.window.resize(DICTIONARY_BYTES_MAX, 0);
        }
        self.texts += 1;
        self.window.truncate(DICTIONARY_BYTES_MAX);
        self.window.extend_from_slice(text);
        self.write(out);
        if self.texts == self.next_lesson {
            self.learn(text);
        }
    }

    /// Replaces `out` by the text of which `from` was written.
    ///
    /// # Panics
    /// When `from` was not written by this squeezer.
    pub fn expand(&self, from: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let dictionary = &self.window[..DICTIONARY_BYTES_MAX.min(self.window.len())];
        let mut at = 0;
        // Where the last copy's source goes on.
        let mut follow = 0;
        while let Some(&head) = from.get(at) {
            at += 1;
            match head {
                0..=0x5f => {
                    let len = usize::from(head) + 1;
                    out.extend_from_slice(&from[at..at + len]);
                    at += len;
                    follow += len;
                }
                0x60..=0x7f => {
                    let len = usize::from(head - 0x60) + 2;
                    for &pair in &from[at..at + len] {
                        out.push(digit(pair >> 4));
                        out.push(digit(pair & 0xf));
                    }
                    at += len;
                    follow += 2 * len;
                }
                0x80..=0xff => {
                    let len = usize::from(head & 0x3f) + FOLLOW_MIN;
                    if head >= 0xc0 {
                        follow = usize::from(u16::from_le_bytes([from[at], from[at + 1]]));
                        at += 2;
                    }
                    copy(dictionary, follow, len, out);
                    follow += len;
                }
            }
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        let Self {
            window,
            known,
            by_hash,
            of_text,
            texts,
            ..
        } = self;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an epoch, compared only with itself"
        )]
        let epoch = *texts as u16;
        let window = &window[..];
        let mut at = DICTIONARY_BYTES_MAX;
        let mut literal = at;
        let mut follow = 0;
        while at + MATCH_MIN <= window.len() {
            let text = word_at(window, at);
            // Nearly every place that is tried differs at once.
            let mut source = follow + (at - literal);
            let mut follows = (word_at(window, source) ^ text) << 8 == 0;
            let mut len = if follows {
                match_len(window, source, at, *known)
            } else {
                0
            };
            if len < FOLLOW_MIN {
                let hash = hash_of(text);
                follows = false;
                len = 0;
                let of_text = &mut of_text[hash >> (HASH_BITS - TEXT_HASH_BITS)];
                let (stamp, place) = *of_text;
                for candidate in [(stamp == epoch).then_some(place), Some(by_hash[hash])] {
                    let candidate = usize::from(candidate.unwrap_or(u16::MAX));
                    if word_at(window, candidate) == text {
                        let found = match_len(window, candidate, at, *known);
                        if found > len {
                            (source, len) = (candidate, found);
                        }
                    }
                }
                *of_text = (epoch, place_of(at));
            }
            if len < if follows { FOLLOW_MIN } else { MATCH_MIN } {
                at += 1;
                continue;
            }
            literals(&window[literal..at], out);
            let head = u8::try_from(len - FOLLOW_MIN).expect("copies are short");
            if follows {
                out.push(0x80 | head);
            } else {
                out.push(0xc0 | head);
                out.extend_from_slice(&place_of(source).to_le_bytes());
            }
            at += len;
            literal = at;
            follow = source + len;
        }
        literals(&window[literal..], out);
    }

    /// Takes the text at hand into the dictionary, if there is room.
    #[cold]
    fn learn(&mut self, text: &[u8]) {
        self.next_lesson = if self.texts < LESSONS_END {
            self.texts * 4
        } else {
            u64::MAX
        };
        let start = self.known;
        let end = start + text.len();
        if end > DICTIONARY_BYTES_MAX {
            return;
        }
        self.window[start..end].copy_from_slice(text);
        self.known = end;
        for at in start..self.known.saturating_sub(MATCH_MIN - 1) {
            self.by_hash[hash_of(word_at(&self.window, at))] = place_of(at);
        }
    }

    /// Octets that it owns beside its place.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.window.capacity()
            + self.by_hash.capacity() * size_of::<u16>()
            + self.of_text.capacity() * size_of::<(u16, u16)>()
    }
}

/// Octets that the places `source` and `at` have in common, at most [`COPY_MAX`]. A copy ends where the
/// dictionary does: what lies behind is another text when it is read.
fn match_len(window: &[u8], source: usize, at: usize, known: usize) -> usize {
    let end = if source < DICTIONARY_BYTES_MAX {
        known
    } else {
        at
    };
    if source >= end {
        return 0;
    }
    let most = COPY_MAX.min(end - source).min(window.len() - at);
    let (from, text) = (&window[source..source + most], &window[at..at + most]);
    let (from_words, from_rest) = from.as_chunks::<8>();
    let (text_words, text_rest) = text.as_chunks::<8>();
    let mut len = 0;
    for (a, b) in from_words.iter().zip(text_words) {
        let differs = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differs != 0 {
            return len + differs.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    let rest = from_rest.iter().zip(text_rest);
    len + rest.take_while(|(a, b)| a == b).count()
}

fn copy(dictionary: &[u8], source: usize, len: usize, out: &mut Vec<u8>) {
    if source < DICTIONARY_BYTES_MAX {
        out.extend_from_slice(&dictionary[source..source + len]);
    } else {
        let source = source - DICTIONARY_BYTES_MAX;
        out.extend_from_within(source..source + len);
    }
}

/// The octets from `at` on that a match begins with, in the order of the text; of a place behind the end, zeros.
#[inline]
fn word_at(window: &[u8], at: usize) -> u32 {
    let octets = window.get(at..).and_then(<[u8]>::first_chunk);
    octets.copied().map_or(0, u32::from_le_bytes)
}

fn hash_of(word: u32) -> usize {
    (word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

fn place_of(at: usize) -> u16 {
    u16::try_from(at).expect("dictionary and text are bounded")
}

const fn digit(value: u8) -> u8 {
    if value < 10 {
        b'0' + value
    } else {
        b'a' + value - 10
    }
}

/// What a digit counts; [`NO_DIGIT`] for other octets.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[digit(value) as usize] = value;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = 0xff;

const fn value_of(digit: u8) -> u8 {
    VALUES[digit as usize]
}

/// Writes octets as they are, runs of hexadecimal digits in pairs.
fn literals(text: &[u8], out: &mut Vec<u8>) {
    let mut plain = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = text[at..].iter().take(HEX_DIGITS_MAX);
        let run = rest.take_while(|&&byte| value_of(byte) != NO_DIGIT).count() & !1;
        if run < HEX_DIGITS_MIN {
            at += run.max(1);
            continue;
        }
        as_they_are(&text[plain..at], out);
        let head = u8::try_from(run / 2 - 2).expect("runs are short");
        out.push(0x60 | head);
        for pair in text[at..at + run].chunks_exact(2) {
            out.push(value_of(pair[0]) << 4 | value_of(pair[1]));
        }
        at += run;
        plain = at;
    }
    as_they_are(&text[plain..], out);
}

fn as_they_are(text: &[u8], out: &mut Vec<u8>) {
    for piece in text.chunks(LITERAL_MAX) {
        out.push(u8::try_from(piece.len() - 1).expect("pieces are short"));
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn every_text_comes_back_also_after_the_dictionary_has_grown() {
        let mut squeezer = Squeezer::default();
        let mut state = 88_172_645_463_325_252;
        let mut kept: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for number in 0..3000_u64 {
            let mut text = Vec::new();
            for _ in 0..random(&mut state) % 30 {
                match random(&mut state) % 5 {
                    0 => text.extend_from_slice(b"Route: <sip:127.0.0.1:5060;lr>\r\n"),
                    1 => text.extend_from_slice(format!("{:016x}", random(&mut state)).as_bytes()),
                    2 => text.extend_from_slice(&random(&mut state).to_le_bytes()),
                    3 => text.extend(core::iter::repeat_n(
                        b'a',
                        (random(&mut state) & 0xff) as usize,
                    )),
                    _ => text.extend_from_slice(format!("sip:user{number}@home").as_bytes()),
                }
            }
            let mut short = Vec::new();
            squeezer.squeeze(&text, &mut short);
            kept.push((text, short));
        }
        let mut back = Vec::new();
        for (text, short) in &kept {
            squeezer.expand(short, &mut back);
            assert_eq!(&back, text);
        }
    }

    #[test]
    fn a_text_like_the_one_before_costs_little_more_than_what_differs() {
        let mut squeezer = Squeezer::default();
        let text = |number: u64| {
            format!(
                "<sip:user{number:07}@home.example>;tag=ph{number:08}\r\n\
                 Route: <sip:127.0.0.1:5060;transport=tcp;lr>\r\nRoute: <sip:pcscf.home.example;lr>\r\n\
                 <sip:{number:08}@192.0.2.1:5060;transport=tcp>"
            )
            .into_bytes()
        };
        let mut short = Vec::new();
        for number in 0..64 {
            short.clear();
            squeezer.squeeze(&text(number * 7919), &mut short);
        }
        assert!(short.len() < 40, "{}", short.len());
    }
}
