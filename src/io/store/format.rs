//! Bytes of the journal: record headers, commit records, segment headers. All little-endian.
//!
//! ```text
//! 0 crc32c of everything behind it, payload included   4 payload length   8 position
//! 16 epoch   24 kind   25 version   26 zero   28 magic   32 payload
//! ```

/// Version of everything on disk; the directory's FORMAT file names it.
///
/// 2 added checkpoints and records that were moved; its segments are those of 1, which are read as
/// they are.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// Oldest version that is read; opening makes it [`FORMAT_VERSION`].
pub(crate) const FORMAT_OLDEST: u32 = 1;
/// Groups begin and are written in whole blocks of this many octets.
pub(crate) const BLOCK: u32 = 4096;
/// Octets of a record's header.
pub(crate) const HEADER: u32 = 32;
/// Octets of a whole commit record.
pub(crate) const COMMIT: u32 = HEADER + COMMIT_PAYLOAD;
const COMMIT_PAYLOAD: u32 = 24;
const SEGMENT_PAYLOAD: u32 = 16;
const MAGIC: u32 = u32::from_le_bytes(*b"vlyJ");
const RECORD_VERSION: u8 = 1;

const _: () =
    assert!(COMMIT.is_multiple_of(8) && HEADER.is_multiple_of(8) && BLOCK.is_multiple_of(8));

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
pub(crate) fn write(out: &mut [u8], kind: Kind, place: u64, epoch: u64, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("payloads are bounded far below");
    let end = (HEADER + len) as usize;
    out[4..8].copy_from_slice(&len.to_le_bytes());
    out[8..16].copy_from_slice(&place.to_le_bytes());
    out[16..24].copy_from_slice(&epoch.to_le_bytes());
    out[24..28].copy_from_slice(&[kind.byte(), RECORD_VERSION, 0, 0]);
    out[28..32].copy_from_slice(&MAGIC.to_le_bytes());
    out[32..end].copy_from_slice(payload);
    out[end..].fill(0);
    let crc = crc32c::crc32c(&out[4..end]);
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

/// The record that begins at `bytes` and claims to lie at `place`; `None` when any bit is wrong.
pub(crate) fn read(bytes: &[u8], place: u64) -> Option<Found<'_>> {
    if bytes.len() < HEADER as usize || word(bytes, 28) != MAGIC || double(bytes, 8) != place {
        return None;
    }
    let len = word(bytes, 4);
    let size = record_bytes(len)?;
    let record = bytes.get(..(HEADER + len) as usize)?;
    if crc32c::crc32c(&record[4..]) != word(bytes, 0) {
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

/// Octets that the record at the front of `bytes` says it takes; `None` when its header is not there
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
pub(crate) fn write_commit(out: &mut [u8], place: u64, epoch: u64, commit: Commit) {
    let mut payload = [0; COMMIT_PAYLOAD as usize];
    payload[0..8].copy_from_slice(&commit.before.to_le_bytes());
    payload[8..12].copy_from_slice(&commit.bytes.to_le_bytes());
    payload[12..16].copy_from_slice(&commit.records.to_le_bytes());
    write(out, Kind::Commit, place, epoch, &payload);
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
pub(crate) fn write_segment_header(out: &mut [u8], segment: u32, epoch: u64, shard: u32) {
    let mut payload = [0; SEGMENT_PAYLOAD as usize];
    payload[0..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    payload[4..8].copy_from_slice(&shard.to_le_bytes());
    write(out, Kind::Segment, position(segment, 0), epoch, &payload);
}

/// Epoch and shard in the header of `segment`, when it checks out.
pub(crate) fn read_segment_header(bytes: &[u8], segment: u32) -> Option<(u64, u32)> {
    let found = read(bytes, position(segment, 0))?;
    let right = found.kind == Kind::Segment && found.payload.len() == SEGMENT_PAYLOAD as usize;
    right.then(|| (found.epoch, word(found.payload, 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_golden_bytes() {
        let mut out = [0xEE; 40];
        write(&mut out, Kind::Data, position(2, 4152), 3, b"hello");
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
    fn every_flipped_bit_and_every_other_place_is_refused() {
        let mut out = [0; 40];
        write(&mut out, Kind::Data, position(2, 4152), 3, b"hello");
        assert!(read(&out, position(2, 4152)).is_some());
        assert!(read(&out, position(2, 4160)).is_none());
        assert!(read(&out, position(1, 4152)).is_none());
        for bit in 0..37 * 8 {
            let mut flipped = out;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped, position(2, 4152)).is_none(), "bit {bit}");
        }
        for cut in 0..37 {
            assert!(read(&out[..cut], position(2, 4152)).is_none(), "cut {cut}");
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
        write_commit(&mut out, position(2, 4096), 9, commit);
        let found = read(&out, position(2, 4096)).unwrap();
        assert_eq!(
            (as_commit(&found), found.bytes, found.epoch),
            (Some(commit), COMMIT, 9)
        );
        let mut block = [0; BLOCK as usize];
        write_segment_header(&mut block, 2, 9, 7);
        assert_eq!(read_segment_header(&block, 2), Some((9, 7)));
        assert_eq!(read_segment_header(&block, 3), None);
        assert_eq!(as_commit(&read(&block, position(2, 0)).unwrap()), None);
    }

    #[test]
    fn lengths_near_the_end_of_32_bits_are_refused() {
        assert_eq!(record_bytes(u32::MAX), None);
        assert_eq!(record_bytes(0), Some(32));
        assert_eq!(record_bytes(1), Some(40));
        let mut out = [0; 40];
        write(&mut out, Kind::Data, 5, 3, b"hello");
        out[4..8].copy_from_slice(&(u32::MAX - 40).to_le_bytes());
        assert!(read(&out, 5).is_none());
    }
}
