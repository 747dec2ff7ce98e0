//! Looking for octets over short distances, sixteen at a time ([`lanes`]).
//!
//! Header lines, URIs and SDP attributes are shorter than what a call of the vectorised search costs
//! before it looks at anything. For distances beyond some fifty octets `memchr` is the better tool.

use super::lanes::{self, LANES, Lanes};

/// Offset of the first `needle`.
#[inline]
#[must_use]
pub fn find(bytes: &[u8], needle: u8) -> Option<usize> {
    lanes::find(bytes, needle)
}

/// Offset of the last `needle`.
#[inline]
#[must_use]
pub fn rfind(bytes: &[u8], needle: u8) -> Option<usize> {
    bytes.iter().rposition(|&c| c == needle)
}

/// What [`find_control`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Offset of the first octet below 0x20 or equal to 0x7f, or the length.
    pub at: usize,
    /// False when some octet before `at`, or shortly behind it, is not ASCII.
    pub ascii: bool,
}

/// Looks for the first control character.
#[inline]
#[must_use]
pub fn find_control(bytes: &[u8]) -> Controls {
    let marks = |lanes: Lanes| (lanes.at_most(b' ' - 1) | lanes.equal(0x7f)).bits();
    let (chunks, rest) = bytes.as_chunks::<LANES>();
    let (mut at, mut odd) = (0, 0);
    for chunk in chunks {
        let lanes = Lanes::load(chunk);
        odd |= lanes.not_ascii().bits();
        let mask = marks(lanes);
        if mask != 0 {
            return Controls {
                at: at + mask.trailing_zeros() as usize,
                ascii: odd == 0,
            };
        }
        at += LANES;
    }
    let lanes = Lanes::load(&lanes::padded(rest));
    odd |= lanes.not_ascii().bits();
    // A bit above those of the rest ends it.
    let mask = marks(lanes) | 1 << rest.len();
    Controls {
        at: at + mask.trailing_zeros() as usize,
        ascii: odd == 0,
    }
}

/// Offset of the first octet up to and including the space, or the length.
#[inline]
#[must_use]
pub fn find_blank(bytes: &[u8]) -> usize {
    lanes::before(bytes, |lanes| lanes.at_most(b' '))
}

/// Whether `a` and `b` are equal, for texts whose lengths are known to be short.
#[inline]
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b)
}

/// `text` without the white space of ASCII at both ends: mostly there is none.
#[inline]
#[must_use]
pub const fn trim(text: &[u8]) -> &[u8] {
    match text {
        [first, .., last] if *first > b' ' && *last > b' ' => text,
        [..] => text.trim_ascii(),
    }
}

/// `true` when `bytes` equals `lower`, which holds no upper-case letter, but for the case of letters.
#[inline]
#[must_use]
pub fn is_word<const N: usize>(bytes: &[u8], lower: &[u8; N]) -> bool {
    let Some((bytes, [])) = bytes.split_first_chunk::<N>() else {
        return false;
    };
    let differs = |c: u8, l: u8| (c | u8::from(c.wrapping_sub(b'A') < 26) << 5) ^ l;
    let mut at = 0;
    let mut differences = 0;
    while at < N {
        differences |= differs(bytes[at], lower[at]);
        at += 1;
    }
    differences == 0
}

/// Whether `text` fits `pattern`, in which `*` stands for any octets, none included.
#[must_use]
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last `*`, and how far the text was when it was met.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match star {
                // The last `*` takes one octet more.
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, t) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_a_naive_matcher_says() {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern, text) {
                ([], text) => text.is_empty(),
                ([b'*', rest @ ..], text) => {
                    (0..=text.len()).any(|taken| naive(rest, &text[taken..]))
                }
                ([a, pattern @ ..], [b, text @ ..]) => a == b && naive(pattern, text),
                (_, []) => false,
            }
        }
        let pieces: [&[u8]; 5] = [b"a", b"b", b"*", b"ab", b""];
        let mut yes = 0;
        for n in 0..5_usize.pow(4) {
            let of = |n: usize| {
                [n % 5, n / 5 % 5, n / 25 % 5, n / 125]
                    .map(|at| pieces[at])
                    .concat()
            };
            let pattern = of(n);
            for m in 0..5_usize.pow(3) {
                let text: Vec<u8> = of(m).into_iter().filter(|&c| c != b'*').collect();
                let want = naive(&pattern, &text);
                assert_eq!(glob(&pattern, &text), want, "{pattern:?} {text:?}");
                yes += usize::from(want);
            }
        }
        assert!(yes > 1000);
    }

    #[test]
    fn every_octet_is_found_at_every_place() {
        for len in 0..40 {
            for at in 0..len {
                for needle in 0..=u8::MAX {
                    let mut text = vec![needle.wrapping_add(1); len];
                    text[at] = needle;
                    assert_eq!(find(&text, needle), Some(at));
                    assert_eq!(rfind(&text, needle), Some(at));
                    text[at] = needle.wrapping_add(3);
                    assert_eq!(find(&text, needle), None);
                }
            }
        }
    }

    #[test]
    fn the_first_control_is_found_and_what_is_not_ascii_is_told() {
        let plain = |c: u8| c >= b' ' && c != 0x7f;
        for len in 0..24_usize {
            for at in 0..len {
                for c in 0..=u8::MAX {
                    for filler in [b'a', 0xff, 0x80, 0x20, 0x7e] {
                        let mut text = vec![filler; len];
                        text[at] = c;
                        let found = find_control(&text);
                        let want = text.iter().position(|&c| !plain(c)).unwrap_or(len);
                        assert_eq!(found.at, want);
                        let blank = text.iter().position(|&c| c <= b' ').unwrap_or(len);
                        assert_eq!(find_blank(&text), blank);
                        assert!(text[..want].is_ascii() || !found.ascii);
                        assert!(!text.is_ascii() || found.ascii);
                    }
                }
            }
        }
    }

    #[test]
    fn trimming_is_that_of_the_library() {
        for text in [
            &b""[..],
            b" ",
            b"a",
            b" a",
            b"a\t",
            b"ab",
            b"a b",
            b"\x0ca b\r\n",
            b"\x0b",
            b"\x01\x01",
        ] {
            assert_eq!(trim(text), text.trim_ascii());
        }
    }

    #[test]
    fn words_compare_without_case() {
        assert!(is_word(b"Accept-TYPES", b"accept-types"));
        assert!(!is_word(b"accept-typez", b"accept-types"));
        assert!(!is_word(b"accept-type", b"accept-types"));
        assert!(!is_word(b"accept\rtypes", b"accept-types"));
        for c in 0..=u8::MAX {
            for l in (0..=u8::MAX).filter(|l| !l.is_ascii_uppercase()) {
                assert_eq!(is_word(&[c], &[l]), c.to_ascii_lowercase() == l);
            }
        }
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"ab", b"abc"));
    }
}
