//! Bytes of a checkpoint (layer 1): what recovery would otherwise learn from every record.
//!
//! A checkpoint is a list of pieces, each a list of items. The engine of the store adds length,
//! place and checksum around a piece and says from which place on records must still be read; this
//! module trusts none of it: decoding is bounded and never panics. Little-endian, no padding.
//!
//! ```text
//! Start     01 version:u8 dedupe keys:2*u64 next number:u64 users:u64 ledger:5*u64 newest:u64
//! User      02 canonical identity (u16 length each) devices:u8 device:u64.. recent:u8 (hash:u64
//!              expires:u32).. entries:u32 (number:u64 hash:u64 segment offset length expires bytes
//!              delivered refused:7*u32 target:u8 flags:u8)..
//! Segments  03 count:u32 (segment:u32 kept:u8 marks:u32 (segment:u32)..)..
//! ```

use crate::base::surface::Location;
use crate::base::time::UnixMillis;
use crate::store::op::{DepositFlags, Hints, Ledger};
use crate::store::record::FIELD_BYTES_MAX;

/// Version of the items.
pub const CHECKPOINT_VERSION: u8 = 3;
/// Octets of an entry.
const ENTRY_BYTES: usize = 47;

const START: u8 = 1;
const USER: u8 = 2;
const SEGMENTS: u8 = 3;

/// What the whole store has in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Keys of the hash that recognises repeats; the hashes of the entries are made with them.
    pub dedupe_keys: [u64; 2],
    /// No message has this number or a higher one.
    pub next_number: u64,
    /// About how many users follow; for reserving memory.
    pub users: u64,
    /// The store's books.
    pub ledger: Ledger,
    /// When the newest record was written, by the wall clock.
    pub newest: UnixMillis,
}

/// One pending message. Its device bits name the devices of its user in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedEntry {
    /// Place in the order of intake.
    pub number: u64,
    /// Hash of what makes a repeat of it.
    pub dedupe: u64,
    /// Where its deposit lies.
    pub location: Location,
    /// When it expires, seconds since 1970.
    pub expires_s: u32,
    /// Octets of the body.
    pub bytes: u32,
    /// Devices that have it.
    pub delivered: u32,
    /// Devices that will not take it.
    pub refused: u32,
    /// Place of the only device that may get it in the list of devices, plus one; zero for all.
    pub target: u8,
    /// What decisions look at.
    pub hints: Hints,
    /// Facts about it.
    pub flags: DepositFlags,
}

/// One user's queue, read from a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedUser<'a> {
    /// Canonical identity.
    pub canonical: &'a [u8],
    /// Address of record.
    pub identity: &'a [u8],
    devices: &'a [u8],
    recent: &'a [u8],
    entries: &'a [u8],
}

/// One segment, read from a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedSegment<'a> {
    /// Its number.
    pub segment: u32,
    /// It holds something nobody understood and stays for good.
    pub kept: bool,
    marks: &'a [u8],
}

/// An item of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Comes first.
    Start(Start),
    /// A user with messages.
    User(SavedUser<'a>),
    /// A segment.
    Segment(SavedSegment<'a>),
}

/// A piece that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPiece {
    /// Octets from its start.
    pub at: usize,
}

/// Appends the first item.
pub fn put_start(start: &Start, out: &mut Vec<u8>) {
    out.extend_from_slice(&[START, CHECKPOINT_VERSION]);
    let ledger = start.ledger;
    for number in [
        start.dedupe_keys[0],
        start.dedupe_keys[1],
        start.next_number,
        start.users,
        ledger.deposited,
        ledger.delivered,
        ledger.expired,
        ledger.purged,
        ledger.rejected,
        start.newest.0,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Begins a user; its devices, recent hashes and entries follow by the functions below, in this
/// order and in the numbers given here.
pub fn put_user(canonical: &[u8], identity: &[u8], out: &mut Vec<u8>) {
    out.push(USER);
    for field in [canonical, identity] {
        let len = u16::try_from(field.len()).expect("identities are bounded by the records'");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(field);
    }
}

/// The user's devices: at most 255.
pub fn put_devices(devices: &[u64], out: &mut Vec<u8>) {
    out.push(u8::try_from(devices.len()).expect("a mailbox tells few devices apart"));
    for device in devices {
        out.extend_from_slice(&device.to_le_bytes());
    }
}

/// Messages that left and whose repeats are still recognised: at most 255.
pub fn put_recent(recent: impl ExactSizeIterator<Item = (u64, u32)>, out: &mut Vec<u8>) {
    out.push(u8::try_from(recent.len()).expect("few are remembered"));
    for (hash, expires_s) in recent {
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&expires_s.to_le_bytes());
    }
}

/// How many entries follow.
pub fn put_count(count: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&count.to_le_bytes());
}

/// One entry.
pub fn put_entry(entry: &SavedEntry, out: &mut Vec<u8>) {
    out.extend_from_slice(&entry.number.to_le_bytes());
    out.extend_from_slice(&entry.dedupe.to_le_bytes());
    let at = entry.location;
    for word in [
        at.segment,
        at.offset,
        at.len,
        entry.expires_s,
        entry.bytes,
        entry.delivered,
        entry.refused,
    ] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&[entry.target, entry.hints.bits(), entry.flags.bits()]);
}

/// One segment with the segments whose deposits its marks speak of.
pub fn put_segment(segment: u32, kept: bool, marks: &[u32], out: &mut Vec<u8>) {
    out.push(SEGMENTS);
    out.extend_from_slice(&segment.to_le_bytes());
    out.push(u8::from(kept));
    put_count(
        u32::try_from(marks.len()).expect("fewer than segments"),
        out,
    );
    for mark in marks {
        out.extend_from_slice(&mark.to_le_bytes());
    }
}

/// Reads the items of a piece; ends after the first that is bad.
pub fn items(piece: &[u8]) -> impl Iterator<Item = Result<Item<'_>, BadPiece>> {
    let mut reader = Some(Reader { piece, at: 0 });
    core::iter::from_fn(move || {
        let mut rest = reader.take()?;
        if rest.at == piece.len() {
            return None;
        }
        let at = rest.at;
        let item = rest.item();
        if item.is_some() {
            reader = Some(rest);
        }
        Some(item.ok_or(BadPiece { at }))
    })
}

struct Reader<'a> {
    piece: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.piece.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn double(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    fn field(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(u16::from_le_bytes(*self.take(2)?.first_chunk()?));
        let field = self.take(len)?;
        (!field.is_empty() && len <= FIELD_BYTES_MAX).then_some(field)
    }

    fn list(&mut self, count: usize, each: usize) -> Option<&'a [u8]> {
        self.take(count.checked_mul(each)?)
    }

    fn item(&mut self) -> Option<Item<'a>> {
        match self.byte()? {
            START => {
                if self.byte()? != CHECKPOINT_VERSION {
                    return None;
                }
                Some(Item::Start(Start {
                    dedupe_keys: [self.double()?, self.double()?],
                    next_number: self.double()?,
                    users: self.double()?,
                    ledger: Ledger {
                        deposited: self.double()?,
                        delivered: self.double()?,
                        expired: self.double()?,
                        purged: self.double()?,
                        rejected: self.double()?,
                    },
                    newest: UnixMillis(self.double()?),
                }))
            }
            USER => self.user().map(Item::User),
            SEGMENTS => {
                let segment = self.word()?;
                let kept = match self.byte()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                let count = usize::try_from(self.word()?).ok()?;
                let marks = self.list(count, 4)?;
                Some(Item::Segment(SavedSegment {
                    segment,
                    kept,
                    marks,
                }))
            }
            _ => None,
        }
    }

    fn user(&mut self) -> Option<SavedUser<'a>> {
        let (canonical, identity) = (self.field()?, self.field()?);
        let count = usize::from(self.byte()?);
        let devices = self.list(count, 8)?;
        let count = usize::from(self.byte()?);
        let recent = self.list(count, 12)?;
        let count = usize::try_from(self.word()?).ok()?;
        let entries = self.list(count, ENTRY_BYTES)?;
        let known = entries
            .chunks_exact(ENTRY_BYTES)
            .all(|entry| DepositFlags::from_bits(entry[ENTRY_BYTES - 1]).is_some());
        known.then_some(SavedUser {
            canonical,
            identity,
            devices,
            recent,
            entries,
        })
    }
}

fn double(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |at| u64::from_le_bytes(*at))
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |at| u32::from_le_bytes(*at))
}

impl<'a> SavedUser<'a> {
    /// Keys of the devices that the bits of its entries name.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.devices.chunks_exact(8).map(double)
    }

    /// Hash and expiry of messages that left, oldest first.
    pub fn recent(&self) -> impl ExactSizeIterator<Item = (u64, u32)> + 'a {
        self.recent
            .chunks_exact(12)
            .map(|at| (double(at), word(&at[8..])))
    }

    /// Its messages, oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = SavedEntry> + 'a {
        self.entries.chunks_exact(ENTRY_BYTES).map(|at| SavedEntry {
            number: double(at),
            dedupe: double(&at[8..]),
            location: Location {
                segment: word(&at[16..]),
                offset: word(&at[20..]),
                len: word(&at[24..]),
            },
            expires_s: word(&at[28..]),
            bytes: word(&at[32..]),
            delivered: word(&at[36..]),
            refused: word(&at[40..]),
            target: at[44],
            hints: Hints::from_bits(at[45]),
            flags: DepositFlags::from_bits(at[46]).unwrap_or_default(),
        })
    }
}

impl<'a> SavedSegment<'a> {
    /// Segments whose deposits its marks speak of, ascending.
    pub fn marks(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.marks.chunks_exact(4).map(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Start, SavedEntry) {
        let start = Start {
            dedupe_keys: [1, 2],
            next_number: 9,
            users: 1,
            ledger: Ledger {
                deposited: 5,
                delivered: 1,
                expired: 1,
                purged: 0,
                rejected: 1,
            },
            newest: UnixMillis(77),
        };
        let entry = SavedEntry {
            number: 8,
            dedupe: 77,
            location: Location {
                segment: 3,
                offset: 4152,
                len: 500,
            },
            expires_s: 1000,
            bytes: 430,
            delivered: 1,
            refused: 2,
            target: 2,
            hints: Hints::of(b"image/png", b"c"),
            flags: DepositFlags::IMDN_NEGATIVE,
        };
        let mut out = Vec::new();
        put_start(&start, &mut out);
        put_user(b"+1", b"sip:+1@x", &mut out);
        put_devices(&[10, 11], &mut out);
        put_recent([(5, 6)].into_iter(), &mut out);
        put_count(1, &mut out);
        put_entry(&entry, &mut out);
        put_segment(3, true, &[1, 2], &mut out);
        (out, start, entry)
    }

    #[test]
    fn items_survive_a_round_trip() {
        let (piece, start, entry) = sample();
        let found: Vec<_> = items(&piece).map(Result::unwrap).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], Item::Start(start));
        let Item::User(user) = found[1] else {
            panic!("{:?}", found[1])
        };
        assert_eq!(
            (user.canonical, user.identity),
            (&b"+1"[..], &b"sip:+1@x"[..])
        );
        assert_eq!(user.devices().collect::<Vec<_>>(), [10, 11]);
        assert_eq!(user.recent().collect::<Vec<_>>(), [(5, 6)]);
        assert_eq!(user.entries().collect::<Vec<_>>(), [entry]);
        let Item::Segment(segment) = found[2] else {
            panic!("{:?}", found[2])
        };
        assert_eq!((segment.segment, segment.kept), (3, true));
        assert_eq!(segment.marks().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_cut_piece_ends_in_an_error_and_no_octet_makes_it_panic() {
        let (piece, ..) = sample();
        let mut whole = Vec::new();
        let mut at = 0;
        for item in items(&piece) {
            item.unwrap();
            at += 1;
            whole.push(at);
        }
        let cuts = (1..piece.len())
            .filter(|&cut| items(&piece[..cut]).any(|item| item.is_err()))
            .count();
        assert_eq!(
            cuts,
            piece.len() - 1 - 2,
            "all but the two at an item's end"
        );
        for at in 0..piece.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = piece.clone();
                changed[at] = value;
                for item in items(&changed).flatten() {
                    if let Item::User(user) = item {
                        let _ = user.entries().count() + user.recent().count();
                    }
                }
            }
        }
    }
}
