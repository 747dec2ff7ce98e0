//! A relay that stands between any SIP or MSRP peers and makes the network between them bad: datagrams
//! are lost, doubled, held back and delayed, streams are cut into odd pieces, delayed and reset.
//!
//! What happens to the nth datagram or piece of a line depends on the seed, the line's place and n
//! alone; when it happens depends on the machine. It reads no message and changes no octet.

mod datagrams;
mod streams;

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use serde::Serialize;

use crate::world::Random;

/// Most peers of one UDP pair and most connections of one TCP pair at a time; more are not relayed.
const PEERS_MAX: usize = 4096;
/// Most datagrams or pieces that wait in one pair at a time; more are dropped and counted, or not read.
const WAITING_MAX: usize = 65_536;

const EXAMPLES: &str = "\
Examples:
  volley-loadgen relay --pair udp:127.0.0.1:7000=127.0.0.1:5060 --loss 0.02 --duplicate 0.01
      What is sent to port 7000 reaches port 5060, mostly; answers come back the same way.
  volley-loadgen relay --pair tcp:127.0.0.1:7000=127.0.0.1:5060 --pair tcp:127.0.0.1:7001=127.0.0.1:15060 \\
      --delay-ms 20 --jitter-ms 5 --split 0.2 --reset 0.0001 --seconds 60 --json
      Both ways of an engine, for a minute, with a count of what was done at the end.

It ends after --seconds, or at Ctrl-C, and then prints what it did.";

/// What is relayed and how badly.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Relay {
    /// What to relay, as udp:LISTEN=TO or tcp:LISTEN=TO; may be repeated
    #[arg(long = "pair", value_name = "PROTOCOL:LISTEN=TO", required = true)]
    pub pairs: Vec<Pair>,
    #[command(flatten)]
    pub faults: Faults,
    /// What the faults are drawn from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// What was done as JSON
    #[arg(long)]
    pub json: bool,
}

/// How often what goes wrong. Shares are between zero and one.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Faults {
    /// Share of datagrams that are lost
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub loss: f64,
    /// Datagrams that are lost in a row once one is
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub burst: u32,
    /// Share of datagrams that come twice
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub duplicate: f64,
    /// Share of datagrams that others overtake
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub reorder: f64,
    /// How long those are held back
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub reorder_ms: u64,
    /// Delay of everything, one way
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub delay_ms: u64,
    /// Random delay on top, up to this
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub jitter_ms: u64,
    /// Share of a stream's pieces after which its connection is reset
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub reset: f64,
    /// Share of a stream's pieces that go on octet by octet up to 64 of them, then as a rest
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub split: f64,
    /// Share of connections that are refused once accepted
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub refuse: f64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".into()),
    }
}

/// One way through the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// UDP, else TCP.
    pub datagrams: bool,
    /// Where peers send to.
    pub listen: SocketAddr,
    /// Where that goes.
    pub to: SocketAddr,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text}: write udp:ADDRESS:PORT=ADDRESS:PORT or tcp:ADDRESS:PORT=ADDRESS:PORT")
        };
        let (protocol, way) = text.split_once(':').ok_or_else(wrong)?;
        let (listen, to) = way.split_once('=').ok_or_else(wrong)?;
        let datagrams = match protocol {
            "udp" => true,
            "tcp" => false,
            _ => return Err(wrong()),
        };
        Ok(Self {
            datagrams,
            listen: listen.parse().map_err(|_| wrong())?,
            to: to.parse().map_err(|_| wrong())?,
        })
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Datagrams that came.
    pub datagrams: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Held back so that others overtake them.
    pub held: u64,
    /// Dropped because too many waited, or from one peer too many.
    pub dropped: u64,
    /// Connections that came.
    pub connections: u64,
    /// Refused on purpose.
    pub refused: u64,
    /// Reset on purpose.
    pub resets: u64,
    /// Connections that could not be made onward.
    pub unreachable: u64,
    /// Pieces of streams.
    pub pieces: u64,
    /// Of these sent octet by octet.
    pub split: u64,
    /// Octets of datagrams and streams.
    pub octets: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "datagrams {}: {} lost, {} doubled, {} held back, {} dropped\n\
             connections {}: {} refused, {} reset, {} unreachable; {} pieces, {} split\n\
             octets {}",
            self.datagrams,
            self.lost,
            self.doubled,
            self.held,
            self.dropped,
            self.connections,
            self.refused,
            self.resets,
            self.unreachable,
            self.pieces,
            self.split,
            self.octets
        )
    }
}

/// What the lines of a relay share; all run on one thread.
#[derive(Debug)]
struct Desk {
    faults: Faults,
    seed: u64,
    done: Cell<Done>,
}

impl Desk {
    fn count(&self, change: impl FnOnce(&mut Done)) {
        let mut done = self.done.get();
        change(&mut done);
        self.done.set(done);
    }

    fn line(&self, place: u64) -> Line {
        Line {
            random: RefCell::new(Random::new(
                self.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            )),
            burst: Cell::new(0),
        }
    }
}

/// One direction between two peers, with its own draws.
#[derive(Debug)]
struct Line {
    random: RefCell<Random>,
    /// Datagrams still to be lost in a row.
    burst: Cell<u32>,
}

/// What becomes of a datagram: when its copies go on; none is a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fate {
    first: Option<Duration>,
    second: Option<Duration>,
    held: bool,
}

impl Line {
    fn chance(&self, share: f64) -> bool {
        // Drawn in any case: one fault less must not change which datagrams meet another.
        self.random.borrow_mut().unit() < share
    }

    fn delay(&self, faults: &Faults) -> Duration {
        let jitter = self.random.borrow_mut().unit() * faults.jitter_ms as f64;
        Duration::from_millis(faults.delay_ms) + Duration::from_secs_f64(jitter / 1e3)
    }

    fn fate(&self, faults: &Faults) -> Fate {
        let (lost, doubled) = (self.chance(faults.loss), self.chance(faults.duplicate));
        let (held, first) = (self.chance(faults.reorder), self.delay(faults));
        let second = self.delay(faults);
        if lost {
            self.burst.set(self.burst.get().max(faults.burst));
        }
        if self.burst.get() > 0 {
            self.burst.set(self.burst.get() - 1);
            return Fate {
                first: None,
                second: None,
                held: false,
            };
        }
        let hold = if held { faults.reorder_ms } else { 0 };
        Fate {
            first: Some(first + Duration::from_millis(hold)),
            second: doubled.then_some(second),
            held,
        }
    }
}

impl Relay {
    /// Relays until its time is over or the process is interrupted.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn run(&self) -> Result<Done, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        tokio::task::LocalSet::new().block_on(&runtime, self.serve())
    }

    async fn serve(&self) -> Result<Done, String> {
        let desk = Rc::new(Desk {
            faults: self.faults,
            seed: self.seed,
            done: Cell::default(),
        });
        for (number, pair) in (0u64..).zip(&self.pairs) {
            let place = number << 48;
            let begun = if pair.datagrams {
                datagrams::open(Rc::clone(&desk), *pair, place).await
            } else {
                streams::open(Rc::clone(&desk), *pair, place).await
            };
            begun.map_err(|error| {
                format!(
                    "{} cannot be listened on: {error}; name another address",
                    pair.listen
                )
            })?;
        }
        let interrupted = tokio::signal::ctrl_c();
        match self.seconds {
            Some(seconds) => {
                let limit = Duration::from_secs_f64(seconds.clamp(0.0, 1e9));
                let _ = tokio::time::timeout(limit, interrupted).await;
            }
            None => {
                let _ = interrupted.await;
            }
        }
        Ok(desk.done.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(faults: &Faults, seed: u64, place: u64) -> Vec<Fate> {
        let desk = Desk {
            faults: *faults,
            seed,
            done: Cell::default(),
        };
        let line = desk.line(place);
        (0..2000).map(|_| line.fate(faults)).collect()
    }

    #[test]
    fn the_same_seed_has_the_same_faults_and_another_has_others() {
        let faults = Faults {
            loss: 0.1,
            burst: 1,
            duplicate: 0.1,
            reorder: 0.1,
            jitter_ms: 9,
            ..Faults::default()
        };
        assert_eq!(fates(&faults, 7, 3), fates(&faults, 7, 3));
        assert_ne!(fates(&faults, 7, 3), fates(&faults, 8, 3));
        assert_ne!(fates(&faults, 7, 3), fates(&faults, 7, 4));
        let lost = fates(&faults, 7, 3)
            .iter()
            .filter(|fate| fate.first.is_none())
            .count();
        assert!((120..=280).contains(&lost), "{lost} of 2,000");
    }

    #[test]
    fn one_fault_less_does_not_move_the_others() {
        let all = Faults {
            loss: 0.1,
            burst: 1,
            duplicate: 0.2,
            ..Faults::default()
        };
        let less = Faults { loss: 0.0, ..all };
        let doubled = |faults: &Faults| -> Vec<usize> {
            let fates = fates(faults, 1, 1);
            (0..2000).filter(|&n| fates[n].second.is_some()).collect()
        };
        let (some, more) = (doubled(&all), doubled(&less));
        assert!(some.iter().all(|n| more.contains(n)) && some.len() < more.len());
    }

    #[test]
    fn bursts_are_as_long_as_asked_for() {
        let faults = Faults {
            loss: 0.01,
            burst: 5,
            ..Faults::default()
        };
        let mut runs = Vec::new();
        let mut run = 0;
        for fate in fates(&faults, 2, 1) {
            match fate.first {
                None => run += 1,
                Some(_) => {
                    if run > 0 {
                        runs.push(run);
                    }
                    run = 0;
                }
            }
        }
        assert!(
            !runs.is_empty() && runs.iter().all(|&run| run >= 5),
            "{runs:?}"
        );
    }

    #[test]
    fn a_pair_is_read_and_a_wrong_one_says_how_it_is_written() {
        let pair: Pair = "udp:127.0.0.1:7000=[::1]:5060".parse().unwrap();
        assert!(pair.datagrams && pair.listen.port() == 7000 && pair.to.is_ipv6());
        for wrong in [
            "",
            "udp:7000=5060",
            "sctp:127.0.0.1:1=127.0.0.1:2",
            "tcp:127.0.0.1:1",
        ] {
            let error = wrong.parse::<Pair>().unwrap_err();
            assert!(error.contains("udp:ADDRESS:PORT="), "{error}");
        }
    }
}
