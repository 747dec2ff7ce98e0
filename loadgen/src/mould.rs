//! Moulds: what one engine's messages of one form have in common.
//!
//! An engine writes its messages from a few templates: most octets are equal from message to message,
//! and the others stand at the same places. A mould remembers such a form: its octets, which of them
//! are free to differ, and where the header lines lie. A message that fits needs no tokenizing, and
//! what a rule found good in the fixed octets of a form holds for every message of that form.

use crate::scan::{Layout, Method};

/// Forms remembered of messages that begin with the same octet.
const FORMS_MAX: usize = 8;

/// One form of message.
#[derive(Debug)]
pub(crate) struct Mould {
    /// Changes whenever more octets become free.
    pub(crate) id: u32,
    pub(crate) method: Method,
    pub(crate) status: u16,
    /// Where the Request-URI or reason phrase lies.
    pub(crate) target: (u32, u32),
    pub(crate) layout: Layout,
    /// The head, from the start line up to and with the empty line.
    head: Vec<u8>,
    /// All ones where an octet is fixed, zero where it is free.
    mask: Vec<u8>,
    /// Runs of free octets: first and one past the last.
    pub(crate) runs: Vec<(u32, u32)>,
}

/// The moulds of one stream.
#[derive(Debug, Default)]
pub(crate) struct Moulds {
    /// By first octet, the last one used first.
    buckets: Vec<Vec<Mould>>,
    ids: u32,
}

/// What a slow reading found, to be remembered.
pub(crate) struct Reading<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) method: Method,
    pub(crate) status: u16,
    pub(crate) target: (u32, u32),
    pub(crate) layout: &'a Layout,
}

impl Moulds {
    /// Moves the mould that `buffer` starts with to the front of its bucket; gives that bucket.
    #[inline]
    pub(crate) fn find(&mut self, buffer: &[u8]) -> Option<usize> {
        let bucket = usize::from(*buffer.first()? & 31);
        let moulds = self.buckets.get_mut(bucket)?;
        let found = moulds.iter().position(|mould| mould.fits(buffer))?;
        if found != 0 {
            moulds.swap(0, found);
        }
        Some(bucket)
    }

    /// The first mould of a bucket.
    #[inline]
    pub(crate) fn front(&self, bucket: usize) -> &Mould {
        &self.buckets[bucket][0]
    }

    /// Remembers a message that fitted no mould.
    #[cold]
    pub(crate) fn learn(&mut self, reading: &Reading<'_>) {
        if self.buckets.is_empty() {
            self.buckets.resize_with(32, Vec::new);
        }
        let Some(first) = reading.head.first() else {
            return;
        };
        let moulds = &mut self.buckets[usize::from(*first & 31)];
        self.ids = self.ids.wrapping_add(1).max(1);
        for mould in moulds.iter_mut() {
            if mould.widen(reading) {
                mould.id = self.ids;
                return;
            }
        }
        if moulds.len() == FORMS_MAX {
            moulds.pop();
        }
        moulds.insert(0, Mould::new(reading, self.ids));
    }
}

/// Octets that may be free: those that no grammar gives a meaning.
#[inline]
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'+'
}

/// [`is_plain`] by octet: zero for those that are.
const STRANGE: [u8; 256] = {
    let mut table = [1; 256];
    let mut byte = 0;
    while byte < 256 {
        if is_plain(byte as u8) {
            table[byte] = 0;
        }
        byte += 1;
    }
    table
};

/// Whether every octet is plain; sixteen at a time, without branches.
#[inline]
fn all_plain(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<16>();
    let mut strange = 0;
    for block in blocks {
        let mut found = [0u8; 16];
        for (found, &byte) in found.iter_mut().zip(block) {
            let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
            let digit = byte.wrapping_sub(b'0') < 10;
            let sign = byte == b'-' || byte == b'+';
            *found = u8::from(!(letter | digit | sign));
        }
        strange |= u128::from_le_bytes(found);
    }
    let mut last = 0;
    for &byte in rest {
        last |= STRANGE[usize::from(byte)];
    }
    strange == 0 && last == 0
}

impl Mould {
    fn new(reading: &Reading<'_>, id: u32) -> Self {
        Self {
            id,
            method: reading.method,
            status: reading.status,
            target: reading.target,
            layout: reading.layout.clone(),
            head: reading.head.to_vec(),
            mask: vec![0xff; reading.head.len()],
            runs: Vec::new(),
        }
    }

    /// Octets of the head.
    #[inline]
    pub(crate) fn head_len(&self) -> usize {
        self.head.len()
    }

    /// Whether `buffer` starts with a head of this form.
    #[inline]
    fn fits(&self, buffer: &[u8]) -> bool {
        let length = self.head.len();
        let Some(head) = buffer.get(..length) else {
            return false;
        };
        // Another form differs in length, so that its empty line is elsewhere.
        if head[length - 4..] != *b"\r\n\r\n" {
            return false;
        }
        let mut at = 0;
        for &(from, to) in &self.runs {
            let (from, to) = (from as usize, to as usize);
            if head[at..from] != self.head[at..from] || !all_plain(&head[from..to]) {
                return false;
            }
            at = to;
        }
        head[at..] == self.head[at..]
    }

    /// Frees the octets in which a message of the same layout differs; `false` when it is of another
    /// form.
    fn widen(&mut self, reading: &Reading<'_>) -> bool {
        let same = self.head.len() == reading.head.len()
            && self.method == reading.method
            && self.status == reading.status
            && self.target == reading.target
            && self.layout == *reading.layout;
        if !same {
            return false;
        }
        let mut mask = self.mask.clone();
        let lines = self.layout.lines();
        let mut spans: Vec<(u32, u32)> = lines.map(|line| (line.start, line.end)).collect();
        if self.status == 0 {
            spans.push(self.target);
        }
        for (start, end) in spans {
            let (start, end) = (start as usize, end as usize);
            let plain = |at: usize| is_plain(self.head[at]) && is_plain(reading.head[at]);
            for at in start..end {
                if self.head[at] == reading.head[at] || mask[at] == 0 {
                    continue;
                }
                if !plain(at) {
                    return false;
                }
                // The whole word is an identifier or a number.
                let from = (start..at).rev().take_while(|&at| plain(at)).last();
                let to = (at..end).take_while(|&at| plain(at)).last();
                mask[from.unwrap_or(at)..=to.unwrap_or(at)].fill(0);
            }
        }
        let fixed_differ =
            (0..mask.len()).any(|at| mask[at] != 0 && self.head[at] != reading.head[at]);
        if fixed_differ {
            return false;
        }
        self.runs = runs(&mask);
        self.mask = mask;
        true
    }
}

/// Where `mask` is zero.
fn runs(mask: &[u8]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (at, _) in (0u32..).zip(mask).filter(|&(_, &mask)| mask == 0) {
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end += 1,
            _ => runs.push((at, at + 1)),
        }
    }
    runs
}
