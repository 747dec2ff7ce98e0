//! Bytes of the journal: record headers, commit records, segment headers. All little-endian.
//!
//! ```text
//! 0 crc32c of everything behind it, payload included   4 payload length   8 position
//! 16 epoch   24 kind   25 version   26 zero   28 magic   32 payload
//! ```
//!
//! The magic and the start of the checksum come from the store's [`Key`], but for segment headers, which
//! have it written in them, and checkpoints.

/// Version of everything on disk; the directory's FORMAT file names it.
///
/// 2 added checkpoints and records that were moved; 3 the key, which is zero where an earlier version
/// made the first segment, and segments that are written over.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// Oldest version that is read; opening makes it [`FORMAT_VERSION`].
pub(crate) const FORMAT_OLDEST: u32 = 1;
/// Groups begin and are written in whole blocks of this many octets.
pub(crate) const BLOCK: u32 = 4096;
/// Octets of a record's header.
pub(crate) const HEADER: u32 = 32;
/// Octets of a whole commit record.
pub(crate) const COMMIT: u32 = HEADER + COMMIT_PAYLOAD;
const COMMIT_PAYLOAD: u32 = 24;
/// Version, shard, key. The key's octets were zero before version 3.
const SEGMENT_PAYLOAD: u32 = 16;
const MAGIC: u32 = u32::from_le_bytes(*b"vlyJ");
const RECORD_VERSION: u8 = 1;

const _: () =
    assert!(COMMIT.is_multiple_of(8) && HEADER.is_multiple_of(8) && BLOCK.is_multiple_of(8));

/// What every record of a store is made with, drawn once for each store: a segment that is written over is
/// full of what others sent, and so is the rest behind a damaged record, and none of it may pass for a
/// record. Who sends messages does not see the key, so what looks like one by chance is one in 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64);

impl Key {
    /// For what no one searches for records.
    pub(crate) const NONE: Self = Self(0);

    fn magic(self) -> u32 {
        MAGIC ^ split(self.0).0
    }

    fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(split(self.0).1, bytes)
    }
}

/// Who writes a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The life of the journal.
    pub(crate) epoch: u64,
    pub(crate) key: Key,
}

/// What a segment's first block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) stamp: Stamp,
    pub(crate) shard: u32,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Begins a group.
    Commit,
    /// A payload of the core.
    Data,
    /// Ends a checkpoint.
    End,
    /// A piece of a checkpoint.
    Piece,
    /// Begins a segment.
    Segment,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::Commit => 2,
            Self::Data => 3,
            Self::Piece => 4,
            Self::End => 5,
        }
    }
}

/// Where a record lies: segment in the upper half, offset in the lower.
pub(crate) const fn position(segment: u32, offset: u32) -> u64 {
    (segment as u64) << 32 | offset as u64
}

/// The two halves of a position.
pub(crate) fn split(position: u64) -> (u32, u32) {
    let half = |value: u64| u32::try_from(value & 0xffff_ffff).expect("32 bits");
    (half(position >> 32), half(position))
}

/// Octets a record with a payload of `len` takes; `None` past 32 bits.
pub(crate) fn record_bytes(len: u32) -> Option<u32> {
    Some((HEADER.checked_add(len)?).checked_add(7)? & !7)
}

/// `offset` rounded up to a block.
pub(crate) const fn block_up(offset: u32) -> u32 {
    offset.div_ceil(BLOCK) * BLOCK
}

/// A header that checked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) kind: Kind,
    pub(crate) epoch: u64,
    pub(crate) payload: &'a [u8],
    /// Octets the record takes.
    pub(crate) bytes: u32,
}

/// Contents of a commit record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Where the group before ended; zero for the first of a store.
    pub(crate) before: u64,
    /// Octets from the group's start to the end of its last record.
    pub(crate) bytes: u32,
    /// Data records in it.
    pub(crate) records: u32,
}

/// Writes a record of `kind` over `out`, which is exactly as long as it takes.
pub(crate) fn write(out: &mut [u8], kind: Kind, place: u64, stamp: Stamp, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("payloads are bounded far below");
    let end = (HEADER + len) as usize;
    out[4..8].copy_from_slice(&len.to_le_bytes());
    out[8..16].copy_from_slice(&place.to_le_bytes());
    out[16..24].copy_from_slice(&stamp.epoch.to_le_bytes());
    out[24..28].copy_from_slice(&[kind.byte(), RECORD_VERSION, 0, 0]);
    out[28..32].copy_from_slice(&stamp.key.magic().to_le_bytes());
    out[32..end].copy_from_slice(payload);
    out[end..].fill(0);
    let crc = stamp.key.checksum(&out[4..end]);
    out[0..4].copy_from_slice(&crc.to_le_bytes());
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..]
        .first_chunk()
        .expect("the caller checked the header's length");
    u32::from_le_bytes(*word)
}

fn double(bytes: &[u8], at: usize) -> u64 {
    let double = bytes[at..]
        .first_chunk()
        .expect("the caller checked the header's length");
    u64::from_le_bytes(*double)
}

/// Whether a record of this store was begun at the front of `bytes`, which lie at `place`. No more of it
/// was checked.
pub(crate) fn is_begun(bytes: &[u8], place: u64, key: Key) -> bool {
    bytes.len() >= HEADER as usize && word(bytes, 28) == key.magic() && double(bytes, 8) == place
}

/// The record that begins at `bytes` and claims to lie at `place`; `None` when any bit is wrong.
pub(crate) fn read(bytes: &[u8], place: u64, key: Key) -> Option<Found<'_>> {
    if !is_begun(bytes, place, key) {
        return None;
    }
    let len = word(bytes, 4);
    let size = record_bytes(len)?;
    let record = bytes.get(..(HEADER + len) as usize)?;
    if key.checksum(&record[4..]) != word(bytes, 0) {
        return None;
    }
    let kind = match record[24..28] {
        [1, RECORD_VERSION, 0, 0] => Kind::Segment,
        [2, RECORD_VERSION, 0, 0] => Kind::Commit,
        [3, RECORD_VERSION, 0, 0] => Kind::Data,
        [4, RECORD_VERSION, 0, 0] => Kind::Piece,
        [5, RECORD_VERSION, 0, 0] => Kind::End,
        _ => return None,
    };
    let payload = &record[HEADER as usize..];
    Some(Found {
        kind,
        epoch: double(bytes, 16),
        payload,
        bytes: size,
    })
}

/// Octets that the record of a checkpoint at the front of `bytes` says it takes; `None` when its header is not there
/// or claims too much. Nothing of it was checked.
pub(crate) fn claimed_bytes(bytes: &[u8]) -> Option<u32> {
    (bytes.len() >= HEADER as usize && word(bytes, 28) == MAGIC).then(|| word(bytes, 4))?;
    record_bytes(word(bytes, 4))
}

/// The place that the record at the front of `bytes` says it has. Nothing of it was checked.
pub(crate) fn claimed_place(bytes: &[u8]) -> Option<u64> {
    (bytes.len() >= HEADER as usize).then(|| double(bytes, 8))
}

/// How far `position` is from the start of a store whose segments have `segment_bytes`.
pub(crate) fn linear(position: u64, segment_bytes: u32) -> u64 {
    let (segment, offset) = split(position);
    u64::from(segment) * u64::from(segment_bytes) + u64::from(offset)
}

/// Writes a commit record over `out`, which has [`COMMIT`] octets.
pub(crate) fn write_commit(out: &mut [u8], place: u64, stamp: Stamp, commit: Commit) {
    let mut payload = [0; COMMIT_PAYLOAD as usize];
    payload[0..8].copy_from_slice(&commit.before.to_le_bytes());
    payload[8..12].copy_from_slice(&commit.bytes.to_le_bytes());
    payload[12..16].copy_from_slice(&commit.records.to_le_bytes());
    write(out, Kind::Commit, place, stamp, &payload);
}

/// Contents of `found` when it is a commit record.
pub(crate) fn as_commit(found: &Found<'_>) -> Option<Commit> {
    if found.kind != Kind::Commit || found.payload.len() != COMMIT_PAYLOAD as usize {
        return None;
    }
    Some(Commit {
        before: double(found.payload, 0),
        bytes: word(found.payload, 8),
        records: word(found.payload, 12),
    })
}

/// Writes a segment's first block over `out`.
pub(crate) fn write_segment_header(out: &mut [u8], segment: u32, header: SegmentHeader) {
    let mut payload = [0; SEGMENT_PAYLOAD as usize];
    payload[0..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    payload[4..8].copy_from_slice(&header.shard.to_le_bytes());
    payload[8..16].copy_from_slice(&header.stamp.key.0.to_le_bytes());
    let open = Stamp {
        epoch: header.stamp.epoch,
        key: Key::NONE,
    };
    write(out, Kind::Segment, position(segment, 0), open, &payload);
}

/// The header of `segment`, when it checks out.
pub(crate) fn read_segment_header(bytes: &[u8], segment: u32) -> Option<SegmentHeader> {
    let found = read(bytes, position(segment, 0), Key::NONE)?;
    let right = found.kind == Kind::Segment && found.payload.len() == SEGMENT_PAYLOAD as usize;
    right.then(|| SegmentHeader {
        stamp: Stamp {
            epoch: found.epoch,
            key: Key(double(found.payload, 8)),
        },
        shard: word(found.payload, 4),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Stamp = Stamp {
        epoch: 3,
        key: Key::NONE,
    };
    const KEYED: Stamp = Stamp {
        epoch: 9,
        key: Key(0x0123_4567_89ab_cdef),
    };

    #[test]
    fn a_record_has_golden_bytes() {
        let mut out = [0xEE; 40];
        write(&mut out, Kind::Data, position(2, 4152), OPEN, b"hello");
        assert_eq!(out[4..8], 5u32.to_le_bytes());
        assert_eq!(out[8..16], [0x38, 0x10, 0, 0, 2, 0, 0, 0]);
        assert_eq!(out[16..32], *b"\x03\0\0\0\0\0\0\0\x03\x01\0\0vlyJ");
        assert_eq!(out[32..], *b"hello\0\0\0");
        // CRC-32C of the 33 octets above, from an independent implementation of RFC 3720 B.4.
        let crc = out[4..37].iter().fold(!0u32, |mut crc, &byte| {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0x82F6_3B78
                } else {
                    crc >> 1
                };
            }
            crc
        });
        assert_eq!(out[0..4], (!crc).to_le_bytes());
    }

    #[test]
    fn a_record_of_another_store_is_none_whichever_half_of_the_key_differs() {
        let mut out = [0; 40];
        write(&mut out, Kind::Data, position(2, 4152), KEYED, b"hello");
        assert!(read(&out, position(2, 4152), KEYED.key).is_some());
        for bit in 0..64 {
            let other = Key(KEYED.key.0 ^ 1 << bit);
            assert!(read(&out, position(2, 4152), other).is_none(), "bit {bit}");
        }
        assert!(read(&out, position(2, 4152), Key::NONE).is_none());
        assert!(is_begun(&out, position(2, 4152), KEYED.key));
        assert!(!is_begun(&out, position(2, 4152), Key::NONE));
        assert!(!is_begun(&out, position(3, 4152), KEYED.key));
    }

    #[test]
    fn every_flipped_bit_and_every_other_place_is_refused() {
        let mut out = [0; 40];
        write(&mut out, Kind::Data, position(2, 4152), KEYED, b"hello");
        assert!(read(&out, position(2, 4152), KEYED.key).is_some());
        assert!(read(&out, position(2, 4160), KEYED.key).is_none());
        assert!(read(&out, position(1, 4152), KEYED.key).is_none());
        for bit in 0..37 * 8 {
            let mut flipped = out;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                read(&flipped, position(2, 4152), KEYED.key).is_none(),
                "bit {bit}"
            );
        }
        for cut in 0..37 {
            assert!(
                read(&out[..cut], position(2, 4152), KEYED.key).is_none(),
                "cut {cut}"
            );
        }
    }

    #[test]
    fn commit_and_segment_headers_survive_a_round_trip() {
        let mut out = [0; COMMIT as usize];
        let commit = Commit {
            before: position(1, 8192),
            bytes: 777,
            records: 3,
        };
        write_commit(&mut out, position(2, 4096), KEYED, commit);
        let found = read(&out, position(2, 4096), KEYED.key).unwrap();
        assert_eq!(
            (as_commit(&found), found.bytes, found.epoch),
            (Some(commit), COMMIT, KEYED.epoch)
        );
        let mut block = [0; BLOCK as usize];
        let header = SegmentHeader {
            stamp: KEYED,
            shard: 7,
        };
        write_segment_header(&mut block, 2, header);
        assert_eq!(read_segment_header(&block, 2), Some(header));
        assert_eq!(read_segment_header(&block, 3), None);
        assert_eq!(
            as_commit(&read(&block, position(2, 0), Key::NONE).unwrap()),
            None
        );
    }

    #[test]
    fn lengths_near_the_end_of_32_bits_are_refused() {
        assert_eq!(record_bytes(u32::MAX), None);
        assert_eq!(record_bytes(0), Some(32));
        assert_eq!(record_bytes(1), Some(40));
        let mut out = [0; 40];
        write(&mut out, Kind::Data, 5, KEYED, b"hello");
        out[4..8].copy_from_slice(&(u32::MAX - 40).to_le_bytes());
        assert!(read(&out, 5, KEYED.key).is_none());
    }
}
