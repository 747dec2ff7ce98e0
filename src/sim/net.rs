//! Virtual time and the network: what is under way, how long it takes, what gets lost.
//!
//! Datagrams are lost, doubled and overtake each other; streams keep their order, are cut anywhere,
//! and may be reset with everything in flight.

use core::cmp::Reverse;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeSet, BinaryHeap};

use crate::base::entropy::Jitter;
use crate::base::surface::{LinkId, LinkKind, MeshFrame};
use crate::base::time::Timestamp;
use crate::sim::options::{Options, Ratio};
use crate::sim::text::{FNV, Msrp, Sip, fnv};

/// A stream connection.
pub(super) type ConnId = usize;

/// What an octet sequence means once the engine has it.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// A BYE of the device.
    Bye { call_id: String },
    /// A final response to an INVITE.
    Final {
        call_id: String,
        status: u16,
        tag: String,
    },
    /// A REPORT that completes the evidence for a message.
    Evidence { call: usize, message: usize },
}

/// Where a SIP message of the engine came from, and so where answers go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// The connection, over TCP.
    pub(super) conn: Option<ConnId>,
    /// The shard whose socket or connection it left by.
    pub(super) shard: u8,
    /// Our address it went to.
    pub(super) at: SocketAddr,
}

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    Bytes {
        conn: ConnId,
        bytes: Vec<u8>,
        note: Option<Note>,
    },
    Closed {
        conn: ConnId,
    },
    ConnectFailed {
        shard: u8,
        epoch: u32,
        token: u64,
    },
    Datagram {
        shard: u8,
        source: SocketAddr,
        bytes: Vec<u8>,
        note: Option<Note>,
    },
    Mesh {
        epoch: u32,
        frame: MeshFrame,
    },
    Opened {
        conn: ConnId,
    },
    PeerClosed {
        conn: ConnId,
    },
    Sent {
        shard: u8,
        epoch: u32,
        link: LinkId,
    },
    Stored {
        shard: u8,
        epoch: u32,
    },
    Timer(Timer),
    ToHub {
        way: Way,
        message: Box<Sip>,
    },
    ToPhone {
        conn: ConnId,
        frame: Box<Msrp>,
    },
}

/// A wait of a peer or of the run itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A response of call `.0` is due, to be repeated or followed; `.1` guards against old ones.
    Answer(usize, u32),
    /// A shard has done all that was at hand.
    CaughtUp(u8),
    Connect(usize),
    Crash,
    /// The disk gets full, or has room again.
    ClockJump(bool),
    DiskFull(bool),
    Deposit(usize),
    HangUp(usize),
    Heal,
    Notify(usize),
    /// The operator changes the rules of selection, as drawn by this number.
    Order(u64),
    Register(usize),
    Report(
        usize,
        usize,
        Vec<(usize, usize)>,
        Box<(String, String, String)>,
    ),
    Reset,
    Restart,
    /// A message that is stored is sent again, if the process `.1` still runs.
    SendAgain(usize, u32),
    /// Whether session `.0` of a sender still moves.
    Sender(usize),
    Tell(usize),
    Transaction(String),
    Unregister(usize),
}

/// A stream connection between the engine and a peer.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) shard: u8,
    pub(super) kind: LinkKind,
    pub(super) link: Option<LinkId>,
    pub(super) token: Option<u64>,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) epoch: u32,
    /// Reset: whatever is under way is lost.
    pub(super) dead: bool,
    /// The engine closed it or was told that it is closed.
    pub(super) engine_gone: bool,
    /// The peer closed it or was told that it is closed.
    pub(super) peer_gone: bool,
    to_engine_at: Timestamp,
    to_peer_at: Timestamp,
}

struct Scheduled {
    at: Timestamp,
    seq: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// Time, and everything under way.
pub(super) struct Net {
    pub(super) now: Timestamp,
    pub(super) conns: Vec<Conn>,
    pub(super) healed: bool,
    pub(super) hash: u64,
    pub(super) reach: BTreeSet<&'static str>,
    pub(super) trace: Option<Vec<String>>,
    heap: BinaryHeap<Reverse<Scheduled>>,
    seq: u64,
    dice: Jitter,
    loss: Ratio,
    duplication: Ratio,
    delay: (Duration, Duration),
}

impl core::fmt::Debug for Net {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Net")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Net {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            now: Timestamp::from_millis(1000),
            conns: Vec::new(),
            healed: false,
            hash: FNV,
            reach: BTreeSet::new(),
            trace: None,
            heap: BinaryHeap::new(),
            seq: 0,
            dice: Jitter::new(options.seed ^ 0x6e65_7477_6f72_6b00),
            loss: options.loss,
            duplication: options.duplication,
            delay: options.delay,
        }
    }

    pub(super) fn mark(&mut self, what: &'static str) {
        self.reach.insert(what);
    }

    /// Folds something that happened into the run's fingerprint.
    pub(super) fn fold(&mut self, what: u64, print: u64) {
        let mut hash = fnv(self.hash, &self.now.as_nanos().to_le_bytes());
        hash = fnv(hash, &what.to_le_bytes());
        self.hash = fnv(hash, &print.to_le_bytes());
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.as_millis();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>9} {}", line()));
        }
    }

    pub(super) fn at(&mut self, at: Timestamp, event: Event) {
        self.seq += 1;
        let at = at.max(self.now);
        self.heap.push(Reverse(Scheduled {
            at,
            seq: self.seq,
            event,
        }));
    }

    pub(super) fn after(&mut self, wait: Duration, timer: Timer) {
        self.at(self.now + wait, Event::Timer(timer));
    }

    pub(super) fn next_at(&self) -> Timestamp {
        self.heap
            .peek()
            .map_or(Timestamp::NEVER, |Reverse(next)| next.at)
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let due = self.next_at() <= self.now;
        due.then(|| self.heap.pop().map(|Reverse(next)| next.event))
            .flatten()
    }

    pub(super) fn way_time(&mut self) -> Duration {
        let (low, high) = self.delay;
        self.dice.duration(low, high)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.dice.below(bound)
    }

    /// How many copies of a datagram arrive.
    fn copies(&mut self) -> u32 {
        if self.healed {
            return 1;
        }
        if self.loss.hits(&mut self.dice) {
            self.mark("fault/loss");
            return 0;
        }
        if self.duplication.hits(&mut self.dice) {
            self.mark("fault/duplication");
            return 2;
        }
        1
    }

    pub(super) fn datagram_to_shard(
        &mut self,
        shard: u8,
        source: SocketAddr,
        bytes: &[u8],
        note: Option<&Note>,
    ) {
        for _ in 0..self.copies() {
            let at = self.now + self.way_time();
            let (bytes, note) = (bytes.to_vec(), note.cloned());
            self.at(
                at,
                Event::Datagram {
                    shard,
                    source,
                    bytes,
                    note,
                },
            );
        }
    }

    pub(super) fn datagram_to_hub(&mut self, way: Way, message: &Sip) {
        for _ in 0..self.copies() {
            let at = self.now + self.way_time();
            let message = Box::new(message.clone());
            self.at(at, Event::ToHub { way, message });
        }
    }

    /// A connection that opens after one way's time; the engine learns of it then.
    pub(super) fn connect(
        &mut self,
        (shard, epoch): (u8, u32),
        kind: LinkKind,
        token: Option<u64>,
        (peer, local): (SocketAddr, SocketAddr),
    ) -> ConnId {
        let open_at = self.now + self.way_time();
        let conn = self.conns.len();
        self.conns.push(Conn {
            shard,
            kind,
            link: None,
            token,
            peer,
            local,
            epoch,
            dead: false,
            engine_gone: false,
            peer_gone: false,
            to_engine_at: open_at,
            to_peer_at: open_at,
        });
        self.at(open_at, Event::Opened { conn });
        conn
    }

    /// Octets from a peer: in order, cut anywhere.
    pub(super) fn stream_to_engine(&mut self, conn: ConnId, bytes: &[u8], note: Option<Note>) {
        let state = &self.conns[conn];
        if state.dead || state.peer_gone {
            return;
        }
        let mut rest = bytes;
        let mut note = note;
        while !rest.is_empty() {
            let whole = self.dice.below(3) > 0;
            let len = if whole {
                rest.len()
            } else {
                self.mark("fault/segmentation");
                let cut = self.dice.below(rest.len() as u64) + 1;
                usize::try_from(cut).expect("within the message")
            };
            let (part, after) = rest.split_at(len);
            rest = after;
            let wait = self.way_time();
            let at = self.conns[conn].to_engine_at.max(self.now + wait);
            self.conns[conn].to_engine_at = at;
            let last = if rest.is_empty() { note.take() } else { None };
            self.at(
                at,
                Event::Bytes {
                    conn,
                    bytes: part.to_vec(),
                    note: last,
                },
            );
        }
    }

    /// When something the engine sends on `conn` now is there.
    pub(super) fn stream_to_peer_at(&mut self, conn: ConnId) -> Timestamp {
        let wait = self.way_time();
        let at = self.conns[conn].to_peer_at.max(self.now + wait);
        self.conns[conn].to_peer_at = at;
        at
    }

    /// The peer closes: what it sent before still arrives.
    pub(super) fn close_by_peer(&mut self, conn: ConnId) {
        if self.conns[conn].peer_gone || self.conns[conn].dead {
            return;
        }
        self.conns[conn].peer_gone = true;
        let at = self.conns[conn]
            .to_engine_at
            .max(self.now + Duration::from_millis(1));
        self.at(at, Event::Closed { conn });
    }

    /// The engine closes, after giving the peer `time` to: what it sent before still arrives.
    pub(super) fn close_by_engine(&mut self, conn: ConnId, time: Duration) {
        let at = self.conns[conn]
            .to_peer_at
            .max(self.now + Duration::from_millis(1) + time);
        self.at(at, Event::PeerClosed { conn });
        self.at(self.now + Duration::from_millis(1), Event::Closed { conn });
    }

    /// Cut: both sides notice at once, everything under way is lost.
    pub(super) fn reset(&mut self, conn: ConnId) {
        if self.conns[conn].dead {
            return;
        }
        self.conns[conn].dead = true;
        self.at(self.now, Event::Closed { conn });
        self.at(self.now, Event::PeerClosed { conn });
    }
}
