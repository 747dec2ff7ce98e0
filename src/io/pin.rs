//! Which CPU a shard's thread runs on.

use glommio::Placement;

/// The CPU of each shard, or nothing for the scheduler's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinning(Option<Vec<usize>>);

impl Pinning {
    /// Shard `n` runs on `cpus[n % cpus.len()]`; `None` or an empty list leaves it to the kernel.
    #[must_use]
    pub fn new(cpus: Option<Vec<usize>>) -> Self {
        Self(cpus.filter(|list| !list.is_empty()))
    }

    /// The CPU of `shard`, if it is pinned.
    #[must_use]
    pub fn cpu(&self, shard: usize) -> Option<usize> {
        let cpus = self.0.as_ref()?;
        cpus.get(shard % cpus.len()).copied()
    }

    pub(super) fn placement(&self, shard: usize) -> Placement {
        match self.cpu(shard) {
            Some(cpu) => Placement::Fixed(cpu),
            None => Placement::Unbound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_take_the_listed_cpus_in_turn() {
        let pinning = Pinning::new(Some(vec![3, 5]));
        assert_eq!(pinning.cpu(0), Some(3));
        assert_eq!(pinning.cpu(1), Some(5));
        assert_eq!(pinning.cpu(2), Some(3));
        assert_eq!(Pinning::new(Some(Vec::new())).cpu(0), None);
        assert_eq!(Pinning::new(None).cpu(0), None);
    }
}
