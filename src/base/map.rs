//! Hash maps with a keyed hash whose keys the caller supplies, so that a run can be repeated.

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

/// An empty map with room for `capacity` entries.
#[must_use]
pub fn new_map<K, V>(keys: MapKeys, capacity: usize) -> Map<K, V> {
    Map::with_capacity_and_hasher(capacity, keys.hasher())
}
