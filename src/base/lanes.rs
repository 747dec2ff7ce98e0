//! Sixteen octets looked at in one register.
//!
//! Header lines, URIs and SDP attributes are shorter than what a call of the vectorised search costs
//! before it looks at anything; what is here is inlined, and text of any length is looked at without a
//! loop over its rest. For distances beyond some hundred octets `memchr` is the better tool.

use core::ops::{BitAnd, BitOr, Not};

use wide::u8x16;

/// Octets of a register.
pub const LANES: usize = 16;

/// Sixteen octets.
#[derive(Clone, Copy, Debug)]
pub struct Lanes(u8x16);

/// What was found of each of sixteen octets: all ones or all zeros.
#[derive(Clone, Copy, Debug)]
pub struct Marks(u8x16);

impl Lanes {
    /// Reads sixteen octets.
    #[inline]
    #[must_use]
    pub fn load(octets: &[u8; LANES]) -> Self {
        Self(u8x16::new(*octets))
    }

    /// Which octets are `needle`.
    #[inline]
    #[must_use]
    pub fn equal(self, needle: u8) -> Marks {
        Marks(self.0.simd_eq(u8x16::splat(needle)))
    }

    /// Which octets are not those of `other`.
    #[inline]
    #[must_use]
    pub fn unlike(self, other: Self) -> Marks {
        !Marks(self.0.simd_eq(other.0))
    }

    /// Which octets are one of two.
    #[inline]
    #[must_use]
    pub fn either(self, a: u8, b: u8) -> Marks {
        self.equal(a) | self.equal(b)
    }

    /// All octets with the bits `bits` set.
    #[inline]
    #[must_use]
    pub fn with(self, bits: u8) -> Self {
        Self(self.0 | u8x16::splat(bits))
    }

    /// Which octets are no larger than `limit`.
    #[inline]
    #[must_use]
    pub fn at_most(self, limit: u8) -> Marks {
        Marks(self.0.min(u8x16::splat(limit)).simd_eq(self.0))
    }

    /// Which octets lie between two, both included.
    #[inline]
    #[must_use]
    pub fn between(self, first: u8, last: u8) -> Marks {
        Self(self.0 - u8x16::splat(first)).at_most(last - first)
    }

    /// Which octets are above 127. Only [`Marks::bits`] of it is right.
    #[inline]
    #[must_use]
    pub const fn not_ascii(self) -> Marks {
        Marks(self.0)
    }
}

impl Marks {
    /// Bit n speaks of octet n.
    #[inline]
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.to_bitmask()
    }
}

impl BitOr for Marks {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Marks {
    type Output = Self;

    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Marks {
    type Output = Self;

    #[inline]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// Octets before the first that `marks` marks, or all.
#[inline]
pub fn before(octets: &[u8], marks: impl Fn(Lanes) -> Marks) -> usize {
    let (chunks, rest) = octets.as_chunks::<LANES>();
    let mut at = 0;
    for chunk in chunks {
        let bits = marks(Lanes::load(chunk)).bits();
        if bits != 0 {
            return at + bits.trailing_zeros() as usize;
        }
        at += LANES;
    }
    // A bit above those of the rest ends it.
    let bits = marks(Lanes::load(&padded(rest))).bits() | 1 << rest.len();
    at + bits.trailing_zeros() as usize
}

/// Where `needle` stands first.
#[inline]
#[must_use]
pub fn find(octets: &[u8], needle: u8) -> Option<usize> {
    let at = before(octets, |lanes| lanes.equal(needle));
    (at < octets.len()).then_some(at)
}

/// Up to sixteen octets with zeros behind, read in two overlapping pieces.
#[inline]
#[must_use]
pub fn padded(octets: &[u8]) -> [u8; LANES] {
    let len = octets.len();
    let text = if let Some(whole) = octets.first_chunk::<LANES>() {
        return *whole;
    } else if let (Some(first), Some(last)) = (octets.first_chunk::<8>(), octets.last_chunk::<8>())
    {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        u128::from(first) | u128::from(last) << (8 * (len - 8))
    } else if let (Some(first), Some(last)) = (octets.first_chunk::<4>(), octets.last_chunk::<4>())
    {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        u128::from(first) | u128::from(last) << (8 * (len - 4))
    } else {
        let piece = |at: usize| {
            octets
                .get(at)
                .map_or(0, |octet| u128::from(*octet) << (8 * at))
        };
        piece(0) | piece(1) | piece(2)
    };
    text.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_found_at_every_place_in_texts_of_every_length() {
        for len in 0..50 {
            for at in 0..len {
                for needle in 0..=u8::MAX {
                    let mut text = vec![needle.wrapping_add(1); len];
                    text[at] = needle;
                    assert_eq!(find(&text, needle), Some(at));
                    let either = before(&text, |lanes| lanes.either(needle, needle));
                    assert_eq!(either, at);
                    text[at] = needle.wrapping_add(3);
                    assert_eq!(find(&text, needle), None);
                }
            }
        }
    }

    #[test]
    fn marks_say_what_comparing_octets_says() {
        for octet in 0..=u8::MAX {
            let mut octets = [b'x'; LANES];
            octets[5] = octet;
            let lanes = Lanes::load(&octets);
            let fifth = |marks: Marks| marks.bits() & 1 << 5 != 0;
            assert_eq!(fifth(lanes.not_ascii()), octet > 127);
            assert_eq!(fifth(lanes.with(0x20).equal(b'a')), octet | 0x20 == b'a');
            assert_eq!(
                fifth(!lanes.either(b'a', b'z')),
                octet != b'a' && octet != b'z'
            );
            for limit in [0, 32, 127, 128, 255] {
                assert_eq!(fifth(lanes.at_most(limit)), octet <= limit);
                assert_eq!(
                    fifth(lanes.between(30, limit.max(30))),
                    (30..=limit.max(30)).contains(&octet)
                );
            }
        }
    }

    #[test]
    fn padding_is_zeros() {
        let text: Vec<u8> = (1..=16).collect();
        for len in 0..=16 {
            let mut want = [0; LANES];
            want[..len].copy_from_slice(&text[..len]);
            assert_eq!(padded(&text[..len]), want);
        }
    }
}
