//! Messages that are stored in parts (layers 1 and 3): the list of parts that stands in the deposit in
//! place of a body, and what a shard keeps of such messages in memory.
//!
//! A part has [`PART_BYTES`] octets but for the last. Its record is durable before the deposit that
//! names it is written, so a deposit read by recovery finds all of its parts; parts that no deposit
//! names are what is left of a transfer that broke off.

use crate::base::map::{Map, MapKeys, new_map};
use crate::base::surface::Location;

/// Octets of every part but the last. A multiple of what one SEND carries.
pub const PART_BYTES: usize = 64 * 1024;
/// Most parts of a message.
pub const PARTS_MAX: usize = 4096;
/// Longest header section that a list keeps, octets.
pub const HEAD_BYTES_MAX: usize = 20 * 1024;

/// Set in the keys of parts, and in no number of a message.
const PART_KEY: u64 = 1 << 62;
/// Octets of a place in a list.
pub const PLACE_BYTES: usize = 12;

const _: () = assert!(
    PART_BYTES.is_multiple_of(crate::base::limits::MSRP_CHUNK_BYTES_MAX),
    "a chunk comes from one part"
);

/// What a deposit in parts has in place of its body.
///
/// ```text
/// total:u64 head (u32 length) (segment:u32 offset:u32 length:u32)..
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest<'a> {
    /// Octets of the message.
    pub total: u64,
    /// The CPIM up to where its content begins: what notices about it need.
    pub head: &'a [u8],
    places: &'a [u8],
}

impl<'a> Manifest<'a> {
    /// Reads a list; `None` when it is not one, or says what cannot be.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (total, rest) = bytes.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (head, places) = rest.split_at_checked(len)?;
        let total = u64::from_le_bytes(*total);
        let count = places.len() / PLACE_BYTES;
        let wanted = total.div_ceil(PART_BYTES as u64);
        let sound = places.len().is_multiple_of(PLACE_BYTES)
            && count <= PARTS_MAX
            && u64::try_from(count) == Ok(wanted);
        sound.then_some(Self {
            total,
            head,
            places,
        })
    }

    /// Where the parts lie, in their order.
    pub fn places(&self) -> impl Iterator<Item = Location> + use<'a> {
        read_places(self.places)
    }
}

/// The places that [`write_places`] wrote.
pub fn read_places(bytes: &[u8]) -> impl Iterator<Item = Location> + use<'_> {
    bytes.chunks_exact(PLACE_BYTES).map(|place| {
        let word = |at: usize| {
            let word = place[at..].first_chunk().expect("a place has three words");
            u32::from_le_bytes(*word)
        };
        Location {
            segment: word(0),
            offset: word(4),
            len: word(8),
        }
    })
}

/// Appends places.
pub fn write_places(places: &[Location], out: &mut Vec<u8>) {
    for place in places {
        for word in [place.segment, place.offset, place.len] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

/// Appends the list of a message of `total` octets to `out`.
pub fn write_manifest(total: u64, head: &[u8], places: &[Location], out: &mut Vec<u8>) {
    out.extend_from_slice(&total.to_le_bytes());
    let len = u32::try_from(head.len()).expect("a head is bounded");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(head);
    write_places(places, out);
}

/// One part as its reader finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlace {
    /// Its name among records in memory.
    pub key: u64,
    /// Where it lies.
    pub location: Location,
    /// The first octet of the message in it, from zero.
    pub start: u64,
}

#[derive(Debug)]
struct Large {
    /// Key of the first part.
    first: u64,
    places: Box<[Location]>,
}

/// The stored messages of a shard that have parts: 12 octets of memory for 64 KiB on disk.
#[derive(Debug)]
pub struct PartTable {
    messages: Map<u64, Large>,
    /// Parts of messages whose removal is being written, by the place of the deposit.
    leaving: Vec<(Location, Box<[Location]>)>,
    next_key: u64,
}

impl PartTable {
    /// No such message yet.
    #[must_use]
    pub fn new(keys: MapKeys) -> Self {
        Self {
            messages: new_map(keys, 0),
            leaving: Vec::new(),
            next_key: PART_KEY,
        }
    }

    /// Message `number` lies in parts at `places`.
    pub fn insert(&mut self, number: u64, places: Box<[Location]>) {
        let first = self.next_key;
        self.next_key += places.len() as u64;
        self.messages.insert(number, Large { first, places });
    }

    /// `true` when `key` names a part.
    #[must_use]
    pub const fn is_part(key: u64) -> bool {
        key >> 62 == 1
    }

    /// The part of `number` with octet `offset`, from zero.
    #[must_use]
    pub fn find(&self, number: u64, offset: u64) -> Option<PartPlace> {
        let large = self.messages.get(&number)?;
        let index = offset / PART_BYTES as u64;
        let location = *large.places.get(usize::try_from(index).ok()?)?;
        Some(PartPlace {
            key: large.first + index,
            location,
            start: index * PART_BYTES as u64,
        })
    }

    /// The places of message `number`, in order; empty for one without parts.
    #[must_use]
    pub fn places(&self, number: u64) -> &[Location] {
        self.messages
            .get(&number)
            .map_or(&[], |large| &large.places)
    }

    /// Every place of every message, in no order that means anything.
    pub fn all_places(&self) -> impl Iterator<Item = Location> {
        self.messages
            .values()
            .flat_map(|large| large.places.iter().copied())
    }

    /// Forgets message `number`.
    pub fn remove(&mut self, number: u64) {
        self.messages.remove(&number);
    }

    /// The removal of `number`, whose deposit lies at `of`, is being written: [`PartTable::take_left`]
    /// gives its parts when it is durable.
    pub fn leave(&mut self, number: u64, of: Location) {
        if let Some(large) = self.messages.remove(&number) {
            self.leaving.push((of, large.places));
        }
    }

    /// The parts of the deposit at `of`, whose removal is durable.
    pub fn take_left(&mut self, of: Location) -> Option<Box<[Location]>> {
        let at = self.leaving.iter().position(|(left, _)| *left == of)?;
        Some(self.leaving.swap_remove(at).1)
    }

    /// Recovery is over and the segments in `present`, ascending, exist: forgets messages of which a
    /// part is not there. Nobody can get them.
    pub fn forget_absent(&mut self, present: &[u32]) {
        self.messages.retain(|_, large| {
            let mut places = large.places.iter();
            places.all(|place| present.binary_search(&place.segment).is_ok())
        });
    }

    /// Messages held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// `true` when there is none, and none is leaving.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.leaving.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u32) -> Location {
        Location {
            segment: 3,
            offset,
            len: 7,
        }
    }

    #[test]
    fn a_list_says_what_was_written_and_nothing_that_cannot_be() {
        let places = [place(1), place(2)];
        let total = PART_BYTES as u64 + 1;
        let mut bytes = Vec::new();
        write_manifest(total, b"head", &places, &mut bytes);
        let list = Manifest::read(&bytes).unwrap();
        assert_eq!((list.total, list.head), (total, &b"head"[..]));
        assert!(list.places().eq(places));
        for cut in 0..bytes.len() {
            assert_eq!(Manifest::read(&bytes[..cut]), None, "cut at {cut}");
        }
        bytes.clear();
        write_manifest(PART_BYTES as u64, b"", &places, &mut bytes);
        assert_eq!(Manifest::read(&bytes), None, "a part too many");
    }

    #[test]
    fn an_octet_is_found_in_its_part_until_the_message_has_left() {
        let mut table = PartTable::new(MapKeys([1; 4]));
        table.insert(5, vec![place(1), place(2)].into());
        table.insert(6, vec![place(3)].into());
        let last = table.find(5, PART_BYTES as u64).unwrap();
        assert_eq!((last.location, last.start), (place(2), PART_BYTES as u64));
        let first = table.find(5, PART_BYTES as u64 - 1).unwrap();
        assert_eq!((first.location, first.start), (place(1), 0));
        assert!(first.key != last.key && PartTable::is_part(first.key));
        assert!(!PartTable::is_part(5) && !PartTable::is_part(1 << 63 | 5));
        assert_ne!(table.find(6, 0).unwrap().key, last.key);
        assert_eq!(table.find(5, 2 * PART_BYTES as u64), None);
        table.leave(5, place(9));
        assert_eq!(table.find(5, 0), None);
        assert_eq!(table.take_left(place(8)), None);
        let left = table.take_left(place(9)).unwrap();
        assert_eq!(*left, [place(1), place(2)]);
        assert_eq!((table.len(), table.take_left(place(9))), (1, None));
    }
}
