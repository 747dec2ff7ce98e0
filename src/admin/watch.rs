//! What changed since the last look at the shards' figures, said once: next hops lost and regained,
//! stores that fail or run out of space, slow turns, a clock that jumps, connections over a cap.

use std::net::SocketAddr;

use crate::admin::engine::Snapshot;
use crate::io::stats::Counters;

/// What was known of each shard.
#[derive(Debug, Default)]
pub struct Watch(Vec<Known>);

#[derive(Clone, Debug, Default)]
struct Known {
    failed: bool,
    low: bool,
    jumps: u64,
    slow: u64,
    broken: u64,
    refused: u64,
    refused_of_source: u64,
    hops: Vec<(SocketAddr, bool)>,
}

/// Something to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    ClockJumped,
    Crowded(u64),
    CrowdedBySource(u64),
    HopLost(SocketAddr),
    HopReached(SocketAddr),
    SlowTurns(u64),
    StoreFailed,
    StoreFull,
    StoreLow,
    StoreRoomy,
    StreamsBroken(u64),
}

impl Watch {
    /// Looks at what the shards show, and logs what is new.
    pub fn look(&mut self, shards: &[Snapshot], drivers: &[Counters]) {
        self.0.resize(shards.len(), Known::default());
        let both = shards.iter().zip(drivers).zip(&mut self.0);
        for (shard, ((snapshot, driver), known)) in both.enumerate() {
            known.news(snapshot, driver, |news| say(shard, news));
        }
    }
}

fn say(shard: usize, news: News) {
    match news {
        News::ClockJumped => {
            tracing::warn!(shard, "the wall clock jumped; it is believed after a while");
        }
        News::Crowded(count) => tracing::warn!(
            shard,
            count,
            "connections were refused: there were limits.connections_max, or as many as RLIMIT_NOFILE leaves"
        ),
        News::CrowdedBySource(count) => tracing::warn!(
            shard,
            count,
            "connections were refused: their source (an IPv4 address, an IPv6 /64) had limits.connections_per_source_max; an SBC or a \
             relay belongs into limits.uncapped_sources"
        ),
        News::HopLost(hop) => tracing::warn!(shard, hop = %hop, "a next hop is lost"),
        News::HopReached(hop) => tracing::info!(shard, hop = %hop, "a next hop is reached"),
        News::SlowTurns(count) => tracing::warn!(shard, count, "turns took 10 ms or longer"),
        News::StoreFailed => tracing::error!(
            shard,
            "the store failed: nothing more is acknowledged; restart once its disk is well"
        ),
        News::StoreLow => {
            tracing::warn!(
                shard,
                "the store cannot make segments ahead, for the reason it said: deposits are refused"
            );
        }
        News::StoreFull => {
            tracing::warn!(
                shard,
                "the store's disk is full: deposits are refused until there is space"
            );
        }
        News::StoreRoomy => tracing::info!(shard, "the store makes segments ahead again"),
        News::StreamsBroken(count) => {
            tracing::warn!(
                shard,
                count,
                "connections were closed: their framing was lost"
            );
        }
    }
}

impl Known {
    fn news(&mut self, snapshot: &Snapshot, driver: &Counters, mut tell: impl FnMut(News)) {
        let (held, probe) = (&snapshot.population, &snapshot.probe);
        let failed = held.stores_failed > 0;
        if failed && !core::mem::replace(&mut self.failed, failed) {
            tell(News::StoreFailed);
        }
        let low = held.stores_low > 0;
        match (core::mem::replace(&mut self.low, low), low) {
            (false, true) if held.stores_full > 0 => tell(News::StoreFull),
            (false, true) => tell(News::StoreLow),
            (true, false) => tell(News::StoreRoomy),
            (false, false) | (true, true) => {}
        }
        let more = |known: &mut u64, now: u64| now.saturating_sub(core::mem::replace(known, now));
        if more(&mut self.jumps, probe.clock_jumps_total) > 0 {
            tell(News::ClockJumped);
        }
        let slow = more(&mut self.slow, driver.slow_turns);
        if slow > 0 {
            tell(News::SlowTurns(slow));
        }
        let broken = more(&mut self.broken, probe.drops.streams_broken());
        if broken > 0 {
            tell(News::StreamsBroken(broken));
        }
        let of_source = more(&mut self.refused_of_source, driver.refused_of_source);
        let others = more(&mut self.refused, driver.refused).saturating_sub(of_source);
        if of_source > 0 {
            tell(News::CrowdedBySource(of_source));
        }
        if others > 0 {
            tell(News::Crowded(others));
        }
        for &(hop, reached) in &snapshot.hops {
            let known = self.hops.iter_mut().find(|(known, _)| *known == hop);
            match known {
                // Before the first look it was neither: being lost is only worth a word afterwards.
                None => {
                    self.hops.push((hop, reached));
                    if reached {
                        tell(News::HopReached(hop));
                    }
                }
                Some((_, before)) if *before != reached => {
                    *before = reached;
                    tell(if reached {
                        News::HopReached(hop)
                    } else {
                        News::HopLost(hop)
                    });
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::drops::StreamsBroken;

    #[test]
    fn each_change_is_said_once() {
        let hop = SocketAddr::from(([192, 0, 2, 1], 5060));
        let mut known = Known::default();
        let mut snapshot = Snapshot::default();
        let mut driver = Counters::default();
        let mut look = |snapshot: &Snapshot, driver: &Counters| {
            let mut news = Vec::new();
            known.news(snapshot, driver, |one| news.push(one));
            news
        };
        snapshot.hops = vec![(hop, false)];
        assert_eq!(look(&snapshot, &driver), []);
        snapshot.hops = vec![(hop, true)];
        driver.slow_turns = 3;
        snapshot.population.stores_low = 1;
        let all = [News::StoreLow, News::SlowTurns(3), News::HopReached(hop)];
        assert_eq!(look(&snapshot, &driver), all);
        assert_eq!(look(&snapshot, &driver), []);
        snapshot.hops = vec![(hop, false)];
        snapshot.population.stores_low = 0;
        assert_eq!(
            look(&snapshot, &driver),
            [News::StoreRoomy, News::HopLost(hop)]
        );
        snapshot.population.stores_low = 1;
        snapshot.population.stores_full = 1;
        assert_eq!(look(&snapshot, &driver), [News::StoreFull]);
        snapshot.population.stores_low = 0;
        snapshot.population.stores_full = 0;
        snapshot.population.stores_failed = 1;
        snapshot.hops = vec![(hop, true)];
        assert_eq!(
            look(&snapshot, &driver),
            [News::StoreFailed, News::StoreRoomy, News::HopReached(hop)]
        );
        snapshot.hops = vec![(hop, false)];
        snapshot.probe.clock_jumps_total = 1;
        StreamsBroken::Framing.count_many(&mut snapshot.probe.drops, 2);
        driver.refused = 7;
        driver.refused_of_source = 4;
        let all = [
            News::ClockJumped,
            News::StreamsBroken(2),
            News::CrowdedBySource(4),
            News::Crowded(3),
            News::HopLost(hop),
        ];
        assert_eq!(look(&snapshot, &driver), all);
        assert_eq!(look(&snapshot, &driver), []);
    }
}
