use std::task::Waker;

use crate::base::surface::NameQuery;
use crate::io::names::tests::unheard_asker;
use crate::io::udp::tests::{BOTH, Exchange, PLAN, driver_on};

use super::*;

/// A store that always wants a piece of a checkpoint.
#[derive(Debug, Default)]
struct Eager {
    pieces: u32,
}

impl StoreDriver for Eager {
    fn submit(&mut self, _batch: &mut StoreBatch) -> bool {
        unreachable!("nothing is stored here")
    }

    fn poll(&mut self, _done: &mut StoreDone) -> bool {
        false
    }

    fn is_idle(&self) -> bool {
        true
    }

    fn set_waker(&mut self, _waker: Waker) {}

    fn wants_piece(&mut self) -> Option<u64> {
        Some(0)
    }

    fn take_piece(&mut self, _piece: &mut Vec<u8>, _next: Option<u64>) {
        self.pieces += 1;
    }

    async fn close(self) {}
}

/// A turn in which the core has a datagram to send, `behind` after there was last nothing to do: pieces taken.
fn busy_turn(driver: &mut Driver<Exchange, Eager>, behind: Duration) -> u32 {
    let peer = "127.0.0.1:9".parse().unwrap();
    driver.core.out.push_back((peer, vec![vec![b'x']]));
    driver.idle_at = driver.clock.now() - behind;
    let before = driver.store.pieces;
    assert_eq!(driver.turn().unwrap(), Progress::Some);
    driver.store.pieces - before
}

#[test]
fn a_checkpoint_waits_for_a_shard_that_is_behind_but_not_for_ever() {
    for backend in BOTH {
        let core = Exchange::default();
        let (mut driver, _) = driver_on(backend, core, Eager::default(), PLAN, |_| {});
        assert_eq!(busy_turn(&mut driver, Duration::ZERO), 1, "it keeps up");
        assert_eq!(busy_turn(&mut driver, BEHIND), 0);
        assert_eq!(busy_turn(&mut driver, CHECKPOINT_WAIT / 2), 0);
        assert_eq!(busy_turn(&mut driver, 2 * CHECKPOINT_WAIT), 1);

        assert_eq!(busy_turn(&mut driver, BEHIND), 0);
        let before = driver.store.pieces;
        let mut idle = false;
        while !idle {
            driver.idle_at = driver.clock.now() - BEHIND;
            let progress = driver.turn().unwrap();
            idle = driver.now.since(driver.idle_at).is_zero();
            assert_eq!(
                progress,
                Progress::Some,
                "nobody may rest while a piece is wanted"
            );
        }
        assert_eq!(driver.store.pieces, before);
        driver.turn().unwrap();
        assert_eq!(
            driver.store.pieces,
            before + 1,
            "it did not go to sleep with a piece wanted"
        );
    }
}

#[test]
fn names_that_find_no_room_are_published_with_the_figures_of_their_shard() {
    for backend in BOTH {
        let core = Exchange::default();
        let (mut driver, _) = driver_on(backend, core, Eager::default(), PLAN, |_| {});
        let (asker, _asked) = unheard_asker(&driver.shared);
        driver.names = asker;
        driver.core.queries = (0..4)
            .map(|token| NameQuery {
                token,
                name: "core.example".to_owned(),
            })
            .collect();
        driver.turn().unwrap();
        driver.publish();
        let counters = driver.stats.read();
        assert_eq!((counters.names_dropped, counters.names_unasked), (3, 3));
    }
}
