//! Octets of many small owners in few allocations: ranges of exact sizes, side by side.
//!
//! Layer 0. A range has the size of its class, a multiple of `STEP` octets; a class takes its ranges
//! from chunks of `CHUNK_BYTES` that never move. A freed range is taken again by the next text of its class
//! for which its chunk is the first with room; nothing is kept beside the ranges: the list of free ones lies in
//! themselves. Nothing is copied when the arena grows. A chunk in which nothing lies any more is given back, unless it is
//! the only one of its class with room, since texts that get a little longer move to the next class, all of them
//! in time.

/// Sizes are multiples of this, octets.
const STEP: usize = 16;
/// Classes: the largest range is their product with [`STEP`].
const CLASSES: usize = 64;
/// Longest text that is taken, octets.
const RANGE_BYTES_MAX: usize = CLASSES * STEP - HEAD;
/// Octets of a chunk.
const CHUNK_BYTES: usize = 16 * 1024;
/// The length in front of each text.
const HEAD: usize = 2;
const INDEX_BITS: u32 = 26;
/// No range.
const NIL: u16 = u16::MAX;
/// No chunk.
const NONE: u32 = u32::MAX;

const _: () = assert!(STEP >= size_of::<u16>(), "a free range holds a link");
const _: () = assert!(CLASSES << INDEX_BITS <= 1 << 32, "a place is 32 bits");
const _: () = assert!(
    CHUNK_BYTES / STEP < NIL as usize,
    "ranges of a chunk have 16 bits"
);

/// Where a text lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u32);

#[derive(Debug)]
struct Chunk {
    /// Empty when the memory was given back.
    bytes: Box<[u8]>,
    /// Ranges that lie in it.
    taken: u16,
    /// Ranges that were ever taken since it has its memory.
    made: u16,
    /// The first free range of those.
    free: u16,
    /// The chunk with room before and behind this one, while it has room itself.
    before: u32,
    behind: u32,
}

#[derive(Debug)]
struct Class {
    chunks: Vec<Chunk>,
    /// The first chunk with memory and room.
    roomy: u32,
    /// Chunks without memory, the next one last.
    bare: Vec<u32>,
}

/// See the module.
#[derive(Debug)]
pub struct Arena {
    classes: Vec<Class>,
    /// Octets of all chunks with memory.
    chunks: usize,
    ranges: usize,
    /// Octets of the ranges that are taken.
    taken: usize,
}

impl Default for Arena {
    fn default() -> Self {
        let class = || Class {
            chunks: Vec::new(),
            roomy: NONE,
            bare: Vec::new(),
        };
        Self {
            classes: (0..CLASSES).map(|_| class()).collect(),
            chunks: 0,
            ranges: 0,
            taken: 0,
        }
    }
}

impl Class {
    /// Puts a chunk that has room in front of the others that have.
    fn link(&mut self, chunk: u32) {
        let behind = core::mem::replace(&mut self.roomy, chunk);
        if behind != NONE {
            self.chunks[behind as usize].before = chunk;
        }
        let entry = &mut self.chunks[chunk as usize];
        (entry.before, entry.behind) = (NONE, behind);
    }

    /// Takes a chunk that has no room or no memory any more out of that line.
    fn unlink(&mut self, chunk: u32) {
        let entry = &self.chunks[chunk as usize];
        let (before, behind) = (entry.before, entry.behind);
        match before {
            NONE => self.roomy = behind,
            before => self.chunks[before as usize].behind = behind,
        }
        if behind != NONE {
            self.chunks[behind as usize].before = before;
        }
    }

    /// A chunk with memory and room, and what memory was needed for it; `None` when the class is full.
    fn chunk(&mut self, number: usize) -> Option<(u32, usize)> {
        if self.roomy != NONE {
            return Some((self.roomy, 0));
        }
        let bytes = per_chunk(number) * size_of_class(number);
        let chunk = match self.bare.pop() {
            Some(chunk) => chunk,
            None => {
                if (self.chunks.len() + 1) * per_chunk(number) > 1 << INDEX_BITS {
                    return None;
                }
                self.chunks.push(Chunk {
                    bytes: Box::default(),
                    taken: 0,
                    made: 0,
                    free: NIL,
                    before: NONE,
                    behind: NONE,
                });
                u32::try_from(self.chunks.len() - 1).expect("an index has 26 bits")
            }
        };
        let entry = &mut self.chunks[chunk as usize];
        entry.bytes = vec![0; bytes].into_boxed_slice();
        (entry.taken, entry.made, entry.free) = (0, 0, NIL);
        self.link(chunk);
        Some((chunk, bytes))
    }
}

impl Arena {
    /// Keeps a copy of `text`; `None` when it is longer than a range may be, or the class is full.
    pub fn put(&mut self, text: &[u8]) -> Option<Place> {
        if text.len() > RANGE_BYTES_MAX {
            return None;
        }
        let number = (text.len() + HEAD).div_ceil(STEP) - 1;
        let (size, per_chunk) = (size_of_class(number), per_chunk(number));
        let class = &mut self.classes[number];
        let (chunk, grown) = class.chunk(number)?;
        self.chunks += grown;
        let entry = &mut class.chunks[chunk as usize];
        let range = if entry.free == NIL {
            entry.made += 1;
            entry.made - 1
        } else {
            let at = usize::from(entry.free) * size;
            let link = entry.bytes[at..].first_chunk();
            core::mem::replace(
                &mut entry.free,
                u16::from_le_bytes(*link.expect("a range holds a link")),
            )
        };
        entry.taken += 1;
        let at = usize::from(range) * size;
        let len = u16::try_from(text.len()).expect("bounded above");
        entry.bytes[at..at + HEAD].copy_from_slice(&len.to_le_bytes());
        entry.bytes[at + HEAD..at + HEAD + text.len()].copy_from_slice(text);
        if usize::from(entry.taken) == per_chunk {
            class.unlink(chunk);
        }
        self.ranges += 1;
        self.taken += size;
        let index = chunk as usize * per_chunk + usize::from(range);
        let place = number << INDEX_BITS | index;
        Some(Place(u32::try_from(place).expect("both are bounded")))
    }

    /// The text at `place`.
    ///
    /// # Panics
    /// When nothing was ever put there.
    #[must_use]
    pub fn text(&self, place: Place) -> &[u8] {
        let (number, chunk, range) = parts(place);
        let size = size_of_class(number);
        let range = &self.classes[number].chunks[chunk as usize].bytes[range * size..][..size];
        let len = u16::from_le_bytes([range[0], range[1]]);
        &range[HEAD..HEAD + usize::from(len)]
    }

    /// Gives the range at `place` back. It must be taken: freeing twice would lend it twice.
    ///
    /// # Panics
    /// When nothing was ever put there.
    pub fn free(&mut self, place: Place) {
        let (number, chunk, range) = parts(place);
        let size = size_of_class(number);
        let class = &mut self.classes[number];
        let entry = &mut class.chunks[chunk as usize];
        let was_full = usize::from(entry.taken) == per_chunk(number);
        let link = entry.free.to_le_bytes();
        entry.bytes[range * size..][..link.len()].copy_from_slice(&link);
        entry.free = u16::try_from(range).expect("ranges of a chunk have 16 bits");
        entry.taken -= 1;
        let is_empty = entry.taken == 0;
        if was_full {
            class.link(chunk);
        }
        // The only one with room stays, or a text that comes and goes would cost a chunk each time.
        let entry = &mut class.chunks[chunk as usize];
        if is_empty && (entry.before, entry.behind) != (NONE, NONE) {
            self.chunks -= entry.bytes.len();
            entry.bytes = Box::default();
            class.unlink(chunk);
            class.bare.push(chunk);
        }
        self.ranges -= 1;
        self.taken -= size;
    }

    /// Texts held.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ranges
    }

    /// Octets of the ranges in which they lie.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// `true` when none is held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges == 0
    }

    /// Octets of all chunks, taken or not.
    #[must_use]
    pub fn memory(&self) -> usize {
        let lists = self.classes.iter().map(|class| {
            class.chunks.capacity() * size_of::<Chunk>() + class.bare.capacity() * size_of::<u32>()
        });
        self.chunks + lists.sum::<usize>()
    }
}

const fn size_of_class(number: usize) -> usize {
    (number + 1) * STEP
}

const fn per_chunk(number: usize) -> usize {
    CHUNK_BYTES / size_of_class(number)
}

/// Class, chunk, and range in the chunk.
fn parts(place: Place) -> (usize, u32, usize) {
    let number = (place.0 >> INDEX_BITS) as usize;
    let index = (place.0 & ((1 << INDEX_BITS) - 1)) as usize;
    let chunk = u32::try_from(index / per_chunk(number)).expect("an index has 26 bits");
    (number, chunk, index % per_chunk(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_come_back_and_freed_ranges_are_used_again() {
        let mut arena = Arena::default();
        let text = |len: usize| -> Vec<u8> {
            (0..len).map(|at| (at * 7 + len).to_le_bytes()[0]).collect()
        };
        let mut places = Vec::new();
        for round in 0..3 {
            for len in 0..=RANGE_BYTES_MAX {
                places.push((len, arena.put(&text(len)).unwrap()));
            }
            assert_eq!(arena.len(), places.len());
            for &(len, place) in &places {
                assert_eq!(arena.text(place), text(len));
            }
            if round == 1 {
                for (_, place) in places.drain(..) {
                    arena.free(place);
                }
                assert!(arena.is_empty());
            }
        }
        // All but one in three go and come again.
        let full = arena.memory();
        let back = |at: &usize| !at.is_multiple_of(3);
        for at in (0..places.len()).filter(back) {
            arena.free(places[at].1);
        }
        for at in (0..places.len()).filter(back) {
            places[at].1 = arena.put(&text(places[at].0)).unwrap();
        }
        assert_eq!(arena.memory(), full, "nothing new was needed");
        for &(len, place) in &places {
            assert_eq!(arena.text(place), text(len));
        }
        assert_eq!(arena.put(&text(RANGE_BYTES_MAX + 1)), None);
    }

    #[test]
    fn texts_that_get_longer_leave_nothing_behind() {
        const TEXTS: usize = 10_000;
        let mut arena = Arena::default();
        let mut places: Vec<Place> = (0..TEXTS).map(|_| arena.put(&[7; 100]).unwrap()).collect();
        let full = arena.memory();
        // In an order of no chunk's, a few at a time, into the next class.
        for at in 0..TEXTS {
            let place = &mut places[at * 7_919 % TEXTS];
            arena.free(*place);
            *place = arena.put(&[9; 120]).unwrap();
        }
        assert_eq!((arena.len(), arena.taken()), (TEXTS, TEXTS * 128));
        assert!(places.iter().all(|&place| arena.text(place) == [9; 120]));
        let now = arena.memory();
        assert!(
            now < full * 128 / 112 + full / 20,
            "{now} octets, {full} before"
        );
        for place in places {
            arena.free(place);
        }
        assert!(arena.is_empty());
        assert!(arena.chunks <= 2 * CHUNK_BYTES, "one of each class is left");
    }

    #[test]
    fn a_chunk_that_was_left_is_used_again() {
        let mut arena = Arena::default();
        for round in 0..5 {
            // Two chunks and a half, of which the line of those with room changes in every way.
            let per_chunk = per_chunk(7);
            let mut places: Vec<Place> = (0..per_chunk * 5 / 2)
                .map(|at| arena.put(&[at.to_le_bytes()[0]; 120]).unwrap())
                .collect();
            assert!(
                places.iter().all(|place| (place.0 & 0x03ff_ffff) < 3 * 128),
                "round {round}"
            );
            for step in [2, 3, 1] {
                let mut at = 0;
                places.retain(|&place| {
                    at += 1;
                    let stays = at % step != 0;
                    if !stays {
                        arena.free(place);
                    }
                    stays
                });
            }
            assert_eq!((arena.len(), arena.taken()), (0, 0));
            assert_eq!(arena.chunks, CHUNK_BYTES, "one stays");
        }
    }
}
