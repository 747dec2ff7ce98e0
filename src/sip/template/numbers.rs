//! Numbers as text: on the stack, where any may come, and in registers for those that usually do.

use crate::sip::message::Refresher;

/// Digits of the usual Content-Length.
pub(super) const LENGTH_DIGITS: usize = 3;

/// A session interval in seconds and who refreshes.
pub(super) type Timer = (u32, Refresher);

/// Session id and version of an o= line as words whose lowest octet is the first. They go from registers
/// to their place: what is written in pieces and read as a whole waits for the stores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    high: u64,
    /// Digits of `high`.
    high_len: usize,
    low: u64,
    /// Digits of `low`.
    low_len: usize,
    version: u8,
    len: usize,
}

impl Origin {
    /// Of a message without offer.
    pub(super) const NONE: Self = Self {
        high: 0,
        high_len: 0,
        low: 0,
        low_len: 0,
        version: 0,
        len: 0,
    };

    /// `None` for a session id of more than sixteen digits and a version of more than one.
    #[inline]
    pub(super) fn new((session, version): (u64, u32)) -> Option<Self> {
        let (high, low) = (session / EIGHT_DIGITS, session % EIGHT_DIGITS);
        if high >= EIGHT_DIGITS || version > 9 {
            return None;
        }
        let (high, high_len) = if high > 0 {
            shown(eight_digits(high))
        } else {
            (0, 0)
        };
        let low = eight_digits(low);
        let (low, low_len) = if high_len > 0 {
            (low | ZEROS, 8)
        } else {
            shown(low)
        };
        Some(Self {
            high,
            high_len,
            low,
            low_len,
            version: digit(version),
            len: high_len + low_len + 2,
        })
    }

    /// Octets of the text.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        if self.high_len > 0 {
            let end = out.len() + self.high_len;
            out.extend_from_slice(&self.high.to_le_bytes());
            out.truncate(end);
        }
        let end = out.len() + self.low_len;
        out.extend_from_slice(&self.low.to_le_bytes());
        out.truncate(end);
        out.extend_from_slice(&[b' ', self.version]);
    }
}

const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);

/// Digits as text without the zeros before them, and how many.
#[inline]
fn shown(digits: u64) -> (u64, usize) {
    // A zero has one digit.
    let zeros = (digits.trailing_zeros() / 8).min(7);
    ((digits | ZEROS) >> (8 * zeros), 8 - zeros as usize)
}

const EIGHT_DIGITS: u64 = 100_000_000;

/// The eight digits of a number below [`EIGHT_DIGITS`] as numbers, the first in the lowest octet: halves
/// of four digits, then pairs, then digits, all of a step at once.
#[inline]
const fn eight_digits(value: u64) -> u64 {
    let halves = (value / 10_000) | (value % 10_000) << 32;
    // As far as they go, n * 10486 >> 20 is n / 100 and n * 103 >> 10 is n / 10.
    let hundreds = (halves.wrapping_mul(10_486) >> 20) & 0x7f_0000_007f;
    let pairs = hundreds | halves.wrapping_sub(hundreds.wrapping_mul(100)) << 16;
    let tens = (pairs.wrapping_mul(103) >> 10) & 0x000f_000f_000f_000f;
    tens | pairs.wrapping_sub(tens.wrapping_mul(10)) << 8
}

/// The digit of a number below ten.
#[inline]
pub(super) const fn digit(value: u32) -> u8 {
    b'0' + value.to_le_bytes()[0]
}

/// The digits of a number from 100 to 999.
#[inline]
pub(super) fn three_digits(value: usize) -> [u8; LENGTH_DIGITS] {
    [value / 100, value / 10 % 10, value % 10].map(|digit| b'0' + digit.to_le_bytes()[0])
}

/// Short text on the stack: numbers and values made of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Text {
    /// Two 64-bit numbers and a few words.
    const CAPACITY: usize = 32;

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

    /// Appends the value of Session-Expires.
    #[inline]
    pub(super) fn push_timer(&mut self, (seconds, refresher): Timer) {
        self.push_number(u64::from(seconds));
        self.push(match refresher {
            Refresher::Uac => b";refresher=uac",
            Refresher::Uas => b";refresher=uas",
        });
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
