//! A range of bytes inside a buffer that somebody else owns.

use core::ops::Range;

/// Offset and length, 32 bits each. Resolving against the wrong buffer is a bug, so it panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First octet.
    pub start: u32,
    /// Octets covered.
    pub len: u32,
}

impl Span {
    /// The empty span.
    pub const EMPTY: Self = Self { start: 0, len: 0 };

    /// The span of `start..end`.
    ///
    /// # Panics
    /// When the range is reversed or does not fit 32 bits; callers bound their buffers far below.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        assert!(start <= end, "a span runs forward");
        Self {
            start: u32::try_from(start).expect("buffers are bounded below 4 GiB"),
            len: u32::try_from(end - start).expect("buffers are bounded below 4 GiB"),
        }
    }

    /// Where `part` lies inside `whole`.
    ///
    /// # Panics
    /// When `part` is not a sub-slice of `whole`.
    #[must_use]
    pub fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize)
            .checked_sub(whole.as_ptr() as usize)
            .expect("a part starts inside its whole");
        assert!(
            start + part.len() <= whole.len(),
            "a part ends inside its whole"
        );
        Self::new(start, start + part.len())
    }

    /// The bytes named by this span.
    ///
    /// # Panics
    /// When the span does not lie inside `bytes`.
    #[inline]
    #[must_use]
    pub fn slice(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.start as usize + self.len as usize]
    }

    /// What is covered.
    #[inline]
    #[must_use]
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// `true` when nothing is covered.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_again() {
        let whole = b"abcdef";
        let span = Span::of(whole, &whole[2..4]);
        assert_eq!(span.slice(whole), b"cd");
        assert!(Span::new(3, 3).is_empty());
    }
}
