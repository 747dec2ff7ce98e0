//! Hash maps with a keyed hash whose keys the caller supplies, so that a run can be repeated.

use core::hash::{BuildHasher, Hasher};

use ahash::RandomState;

/// Map keyed by ahash. Build with [`new_map`]; iterate only where order cannot leak.
#[expect(
    clippy::disallowed_types,
    reason = "the one place that names the std type"
)]
pub type Map<K, V> = std::collections::HashMap<K, V, RandomState>;

/// Keys for all maps of one shard, drawn once from its CSPRNG.
#[derive(Clone, Copy, Debug)]
pub struct MapKeys(pub [u64; 4]);

impl MapKeys {
    /// The hasher built from these keys.
    #[must_use]
    pub fn hasher(self) -> RandomState {
        let [a, b, c, d] = self.0;
        RandomState::with_seeds(a, b, c, d)
    }
}

/// A map by numbers that we give out one after the other: neighbours are neighbours in memory, so that what
/// came together costs few misses when it is asked for together. Nobody else chooses such a number.
#[expect(
    clippy::disallowed_types,
    reason = "the one place that names the std type"
)]
pub type NumberMap<V> = std::collections::HashMap<u64, V, ByNumber>;

/// Places eight numbers one behind the other, and the eights anywhere. Longer rows would leave marks of
/// removed ones behind, over which every look for a number that is not there must go.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByNumber(u64);

impl BuildHasher for ByNumber {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for ByNumber {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let mixed = (number / ROW).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // All bits of a number count. The map takes the place from the lower ones, and tells neighbours apart by the upper seven.
        let row = mixed >> 32 ^ mixed >> 50;
        let place = row * ROW + number % ROW;
        self.0 = place | number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & (0x7f << 57);
    }
}

/// Numbers that are placed together.
const ROW: u64 = 8;

/// An empty map by numbers with room for `capacity` entries.
#[must_use]
pub fn new_number_map<V>(capacity: usize) -> NumberMap<V> {
    NumberMap::with_capacity_and_hasher(capacity, ByNumber::default())
}

/// An empty map with room for `capacity` entries.
#[must_use]
pub fn new_map<K, V>(keys: MapKeys, capacity: usize) -> Map<K, V> {
    Map::with_capacity_and_hasher(capacity, keys.hasher())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        ByNumber::default().hash_one(number)
    }

    #[test]
    fn neighbours_are_placed_together_and_nothing_crowds() {
        for number in (0..1 << 16).step_by(8) {
            let places = [0, 1, 7].map(|step| hash(number + step) & 0xffff_ffff);
            assert_eq!(places[1] - places[0], 1);
            assert_eq!(places[2] - places[0], 7);
        }
        // Numbers of sixteen starts of an engine, and notices of each: they agree in many bits.
        const PLACES: usize = 1 << 17;
        let mut taken = vec![0_u8; PLACES];
        for start in 0..16_u64 {
            for step in 0..2048_u64 {
                let number = (1_795_000_000_000 + start * 60_000) << 20 | step;
                for number in [number, number | 1 << 63] {
                    taken[usize::try_from(hash(number)).unwrap() & (PLACES - 1)] += 1;
                }
            }
        }
        // Half of the places: as many meet as by chance.
        assert!(taken.iter().all(|&numbers| numbers < 9));
        let alone = taken.iter().filter(|&&numbers| numbers == 1).count();
        assert!(alone > PLACES / 4, "{alone}");
    }
}
