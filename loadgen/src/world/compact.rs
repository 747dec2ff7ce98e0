//! Texts of ten million sessions: what they share is kept once.
//!
//! A text is cut into a *pattern*, with a hole for each word of seven or more letters and digits that has a
//! digit in it (tokens, numbers), and the words. The engine's identifiers are opaque here: whatever does
//! not repeat is a word, and patterns of which there are too many are not kept, but the text whole.

use std::collections::BTreeMap;

/// Shortest word that is cut out.
const WORD_MIN: usize = 7;
/// Most patterns kept; texts of further ones are kept whole.
const PATTERNS_MAX: usize = 250;
/// In place of a pattern's number: the text is whole.
const WHOLE: u8 = 255;
/// A hole of a pattern; no text of SIP has this octet.
const HOLE: u8 = 0;

/// A text, as long as what is its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compact(Box<[u8]>);

impl Compact {
    /// Nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Patterns seen so far.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    known: Vec<Box<[u8]>>,
    by_text: BTreeMap<Box<[u8]>, u8>,
    pattern: Vec<u8>,
    words: Vec<u8>,
}

impl Patterns {
    /// Keeps `text`.
    pub(super) fn keep(&mut self, text: &[u8]) -> Compact {
        self.pattern.clear();
        self.words.clear();
        self.words.push(WHOLE);
        let mut rest = text;
        let mut fits = !text.contains(&HOLE);
        while !rest.is_empty() {
            let len = rest
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric())
                .count();
            let (word, behind) = rest.split_at(len);
            if len >= WORD_MIN && word.iter().any(u8::is_ascii_digit) && len < 256 {
                self.pattern.push(HOLE);
                self.words.push(len as u8);
                self.words.extend_from_slice(word);
            } else {
                self.pattern.extend_from_slice(word);
            }
            let Some((&byte, behind)) = behind.split_first() else {
                break;
            };
            self.pattern.push(byte);
            rest = behind;
        }
        let number = match self.by_text.get(&self.pattern[..]) {
            Some(&number) => number,
            None if self.known.len() < PATTERNS_MAX && fits => {
                let number = self.known.len() as u8;
                self.known.push(self.pattern[..].into());
                self.by_text.insert(self.pattern[..].into(), number);
                number
            }
            None => {
                fits = false;
                WHOLE
            }
        };
        if !fits {
            self.words.truncate(1);
            self.words.extend_from_slice(text);
        }
        self.words[0] = number;
        Compact(self.words[..].into())
    }

    /// Replaces `out` by the text that was kept.
    pub(super) fn text(&self, kept: &Compact, out: &mut Vec<u8>) {
        out.clear();
        let Some((&number, mut words)) = kept.0.split_first() else {
            return;
        };
        if number == WHOLE {
            return out.extend_from_slice(words);
        }
        for &byte in &self.known[usize::from(number)] {
            if byte != HOLE {
                out.push(byte);
                continue;
            }
            let (&len, rest) = words.split_first().expect("as many words as holes");
            let (word, rest) = rest.split_at(usize::from(len));
            out.extend_from_slice(word);
            words = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_cost_their_words() {
        let mut patterns = Patterns::default();
        let mut out = Vec::new();
        for number in 0..1000 {
            let text = format!(
                "sip:abcdefgh{number:024}@127.0.0.1:5060;transport=tcp\n<sip:pf@home.example>;tag=xyz{number:029}"
            );
            let kept = patterns.keep(text.as_bytes());
            patterns.text(&kept, &mut out);
            assert_eq!(out, text.as_bytes());
            assert_eq!(kept.0.len(), 1 + 33 + 33);
        }
        for text in [&b""[..], b"a", b"\0odd", b"word123", b"word123;"] {
            let kept = patterns.keep(text);
            patterns.text(&kept, &mut out);
            assert_eq!(out, text);
        }
        for number in 0..2 * PATTERNS_MAX {
            let text = "x-".repeat(number);
            let kept = patterns.keep(text.as_bytes());
            patterns.text(&kept, &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
