//! Octets of many small owners in few allocations: ranges of exact sizes, side by side.
//!
//! Layer 0. A range has the size of its class, a multiple of `STEP` octets; a class takes its ranges
//! from chunks of `CHUNK_BYTES` that never move. A freed range is the next one of its class to be
//! taken. Nothing is copied when the arena grows, and nothing is kept beside the ranges: the list of free
//! ones lies in themselves. Memory of a class is not given back to others.

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
const NIL: u32 = u32::MAX;

const _: () = assert!(STEP >= size_of::<u32>(), "a free range holds a link");
const _: () = assert!(CLASSES << INDEX_BITS <= 1 << 32, "a place is 32 bits");

/// Where a text lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u32);

#[derive(Debug)]
struct Class {
    chunks: Vec<Box<[u8]>>,
    /// Ranges that were ever taken.
    made: u32,
    /// The first free range.
    free: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Arena {
    classes: Vec<Class>,
    chunks: usize,
    ranges: usize,
    /// Octets of the ranges that are taken.
    taken: usize,
}

impl Default for Arena {
    fn default() -> Self {
        let class = || Class {
            chunks: Vec::new(),
            made: 0,
            free: NIL,
        };
        Self {
            classes: (0..CLASSES).map(|_| class()).collect(),
            chunks: 0,
            ranges: 0,
            taken: 0,
        }
    }
}

impl Arena {
    /// Keeps a copy of `text`; `None` when it is longer than a range may be, or the class is full.
    pub fn put(&mut self, text: &[u8]) -> Option<Place> {
        if text.len() > RANGE_BYTES_MAX {
            return None;
        }
        let number = (text.len() + HEAD).div_ceil(STEP) - 1;
        let class = &mut self.classes[number];
        let per_chunk = per_chunk(number);
        let index = if class.free != NIL {
            let index = class.free;
            let range = range_of(&mut class.chunks, number, index);
            let link = range.first_chunk().expect("a range holds a link");
            class.free = u32::from_le_bytes(*link);
            index
        } else {
            let index = class.made;
            if index >= 1 << INDEX_BITS {
                return None;
            }
            if index as usize == class.chunks.len() * per_chunk {
                let bytes = per_chunk * size_of_class(number);
                class.chunks.push(vec![0; bytes].into_boxed_slice());
                self.chunks += bytes;
            }
            class.made += 1;
            index
        };
        let range = range_of(&mut class.chunks, number, index);
        let len = u16::try_from(text.len()).expect("bounded above");
        range[..HEAD].copy_from_slice(&len.to_le_bytes());
        range[HEAD..HEAD + text.len()].copy_from_slice(text);
        self.ranges += 1;
        self.taken += size_of_class(number);
        let class = u32::try_from(number).expect("few classes");
        Some(Place(class << INDEX_BITS | index))
    }

    /// The text at `place`.
    ///
    /// # Panics
    /// When nothing was ever put there.
    #[must_use]
    pub fn text(&self, place: Place) -> &[u8] {
        let (number, index) = parts(place);
        let (chunk, start) = locate(number, index);
        let range = &self.classes[number].chunks[chunk][start..start + size_of_class(number)];
        let len = u16::from_le_bytes([range[0], range[1]]);
        &range[HEAD..HEAD + usize::from(len)]
    }

    /// Gives the range at `place` back. It must be taken: freeing twice would lend it twice.
    ///
    /// # Panics
    /// When nothing was ever put there.
    pub fn free(&mut self, place: Place) {
        let (number, index) = parts(place);
        let class = &mut self.classes[number];
        let link = class.free.to_le_bytes();
        range_of(&mut class.chunks, number, index)[..link.len()].copy_from_slice(&link);
        class.free = index;
        self.ranges -= 1;
        self.taken -= size_of_class(number);
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
        let lists = self.classes.iter().map(|class| class.chunks.capacity());
        self.chunks + lists.sum::<usize>() * size_of::<Box<[u8]>>()
    }
}

const fn size_of_class(number: usize) -> usize {
    (number + 1) * STEP
}

const fn per_chunk(number: usize) -> usize {
    CHUNK_BYTES / size_of_class(number)
}

const fn parts(place: Place) -> (usize, u32) {
    let number = (place.0 >> INDEX_BITS) as usize;
    (number, place.0 & ((1 << INDEX_BITS) - 1))
}

const fn locate(number: usize, index: u32) -> (usize, usize) {
    let (index, per_chunk) = (index as usize, per_chunk(number));
    (index / per_chunk, index % per_chunk * size_of_class(number))
}

fn range_of(chunks: &mut [Box<[u8]>], number: usize, index: u32) -> &mut [u8] {
    let (chunk, start) = locate(number, index);
    &mut chunks[chunk][start..start + size_of_class(number)]
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
        let full = arena.memory();
        for &(_, place) in &places {
            arena.free(place);
        }
        for &(len, _) in &places {
            arena.put(&text(len)).unwrap();
        }
        assert_eq!(arena.memory(), full, "nothing new was needed");
        assert_eq!(arena.put(&text(RANGE_BYTES_MAX + 1)), None);
    }
}
