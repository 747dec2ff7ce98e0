//! Connected sockets: one for each peer that gets many datagrams.
//!
//! For each datagram of a socket without a peer the kernel looks up the route and copies the address. So
//! whoever has got [`MANY_DATAGRAMS`] gets a second socket, bound to the same address and port and connected
//! to that peer. The core knows nothing of it: it names the bound socket and hears from the bound socket.
//!
//! ```text
//! counted -> opened -> receiving -> used -> leaving -> closed
//!            |         |            |       connected to itself: the peer's datagrams come to the
//!            |         |            |       bound socket again; closed once nothing is left to read
//!            |         |            what goes to the peer leaves by it
//!            |         once the bound socket was read as far as the peer's datagrams may lie there
//!            what comes from the peer waits in it
//! ```
//!
//! * **What arrives where.** The kernel prefers the socket that is connected to the source, so a peer's
//!   datagrams come to its own one and all others to the bound one. Between `bind` and `connect` the new
//!   socket has a share in everything that comes to the address; that stays in its queue over the
//!   `connect` and is received with its source as any datagram is. All sockets of the address are of one
//!   shard, so nothing meets a stranger.
//! * **Not where shards share a port.** There every connected socket would be one more member of the group
//!   over which the kernel spreads peers, and skipping it makes its neighbour serve twice as many. And what
//!   a peer sends to the shared port would go to the shard that connected last.
//! * **Not where the address is a wildcard.** Connecting fixes our address to the one that the route says
//!   now; without, each datagram gets the one that its route says then.
//! * **Errors.** A connected socket hears of ICMP: the next send or the receive fails with what became of
//!   an earlier datagram. A send that fails is repeated once, by the bound socket, which hears of none: what
//!   fails there is its own. A receive that ends is armed again; reading the error has cleared it.
//! * **Order.** What came to the bound socket is handled before what came to the connected one, and what
//!   went by the bound socket is with the kernel before the first datagram goes by the connected one.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{SockRef, Socket};

use crate::base::surface::{Core, LinkId, LinkKind};
use crate::base::time::Timestamp;
use crate::io::driver::{Driver, StoreDriver};
use crate::io::links::{Link, Phase};
use crate::io::listen::{Sharing, unbound_datagram};
use crate::io::ring::{Kind, Token};
use crate::io::sys;
use crate::io::trains::{Exit, Run};

/// Datagrams to one peer after which it gets a socket of its own.
const MANY_DATAGRAMS: u32 = 64;
/// Most connected sockets beside one bound socket.
const CONNECTED_MAX: usize = 8;
/// Most peers counted at a time; the one with the fewest datagrams makes room.
const COUNTED_MAX: usize = 16;
/// A peer that gets nothing for this long is not counted, and loses its socket.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Receives of the bound socket that go before the first of a connected one, at most: what the peer sent
/// to the bound one lies among them, unless that is far behind.
const RECEIVES_FIRST_MAX: u32 = 1024;
/// How long to do without after a socket could not be had.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// A bound datagram socket, and those connected to peers from the same address.
#[derive(Debug)]
pub(in crate::io) struct SocketGroup {
    /// The one the core knows.
    bound: LinkId,
    address: SocketAddr,
    /// Runs on their way from the bound socket.
    runs: u32,
    connected: Vec<Connected>,
    counted: Vec<Counted>,
    /// No socket is tried before.
    retry_at: Timestamp,
}

/// A socket connected to a peer.
#[derive(Clone, Copy, Debug)]
struct Connected {
    link: LinkId,
    peer: SocketAddr,
    /// Runs on their way.
    runs: u32,
    /// When the peer got something last.
    used_at: Timestamp,
    stage: Stage,
}

/// Where a connected socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not received from yet: as many receives of the bound socket go first, or fewer if it is empty.
    Opened { first: u32 },
    /// Received from. Sends once nothing is on its way from the bound socket.
    Receiving,
    /// In use both ways.
    Used,
    /// Given up: takes no more, and is closed once it is read.
    Leaving,
}

/// A peer that may get many datagrams.
#[derive(Clone, Copy, Debug)]
struct Counted {
    peer: SocketAddr,
    datagrams: u32,
    used_at: Timestamp,
}

impl SocketGroup {
    fn new(bound: LinkId, address: SocketAddr) -> Self {
        Self {
            bound,
            address,
            runs: 0,
            connected: Vec::new(),
            counted: Vec::new(),
            retry_at: Timestamp::ZERO,
        }
    }

    /// The socket of `peer`, which is used now; `None` while there is none or it may not send.
    fn socket_of(&mut self, peer: SocketAddr, now: Timestamp) -> Option<LinkId> {
        let own = self.connected.iter_mut().find(|own| own.serves(peer))?;
        own.used_at = now;
        if own.stage == Stage::Receiving && self.runs == 0 {
            own.stage = Stage::Used;
        }
        (own.stage == Stage::Used).then_some(own.link)
    }

    /// Counts what goes to `peer` by the bound socket. True when that is enough for a socket of its own
    /// and one may be had.
    fn count(&mut self, peer: SocketAddr, datagrams: u32, now: Timestamp) -> bool {
        // Who writes to itself would be connected to where sockets go when they leave.
        let is_barred = now < self.retry_at || peer == self.address;
        let is_full = self.connected.len() >= CONNECTED_MAX;
        if is_barred || is_full || self.connected.iter().any(|own| own.serves(peer)) {
            return false;
        }
        let known = self.counted.iter().position(|counted| counted.peer == peer);
        let at = known.unwrap_or_else(|| {
            if self.counted.len() >= COUNTED_MAX {
                let fewest = (0..self.counted.len()).min_by_key(|&at| self.counted[at].datagrams);
                self.counted.swap_remove(fewest.expect("the table is full"));
            }
            self.counted.push(Counted {
                peer,
                datagrams: 0,
                used_at: now,
            });
            self.counted.len() - 1
        });
        let counted = &mut self.counted[at];
        if counted.datagrams >= MANY_DATAGRAMS {
            self.counted.swap_remove(at);
            return true;
        }
        counted.datagrams = counted.datagrams.saturating_add(datagrams);
        counted.used_at = now;
        false
    }

    /// The runs on their way from a socket of this group.
    fn runs(&mut self, exit: Exit) -> Option<&mut u32> {
        if self.bound.slot == exit.slot {
            return Some(&mut self.runs);
        }
        let mut connected = self.connected.iter_mut();
        let own = connected.find(|own| own.link.slot == exit.slot)?;
        Some(&mut own.runs)
    }

    fn place_of(&self, link: LinkId) -> Option<usize> {
        self.connected.iter().position(|own| own.link == link)
    }
}

impl Connected {
    fn serves(&self, peer: SocketAddr) -> bool {
        self.peer == peer && self.stage != Stage::Leaving
    }
}

impl<C: Core, S: StoreDriver> Driver<C, S> {
    /// Gives the bound `socket`, which is `link`, a group, where connected ones may stand beside it.
    pub(super) fn add_socket_group(&mut self, link: LinkId, socket: (SocketAddr, Sharing)) {
        let (address, sharing) = socket;
        if sharing == Sharing::Alone && !address.ip().is_unspecified() {
            self.socket_groups.push(SocketGroup::new(link, address));
        }
    }

    /// The socket by which `datagrams` further ones to `peer` leave that the core sends by `bound`.
    pub(super) fn exit(&mut self, bound: LinkId, peer: SocketAddr, datagrams: u32) -> Exit {
        let unconnected = Exit {
            slot: bound.slot,
            is_connected: false,
        };
        let mut groups = self.socket_groups.iter_mut();
        let Some(at) = groups.position(|group| group.bound == bound) else {
            return unconnected;
        };
        let group = &mut self.socket_groups[at];
        let mut own = group.socket_of(peer, self.now);
        if own.is_none() && group.count(peer, datagrams, self.now) {
            self.open_connected(at, peer);
            own = self.socket_groups[at].socket_of(peer, self.now);
        }
        own.map_or(unconnected, |link| Exit {
            slot: link.slot,
            is_connected: true,
        })
    }

    /// `runs` further ones are on their way by `exit`.
    pub(super) fn runs_begin(&mut self, exit: Exit, runs: u32) {
        let mut groups = self.socket_groups.iter_mut();
        if let Some(count) = groups.find_map(|group| group.runs(exit)) {
            *count += runs;
        }
    }

    /// One run that left by `exit` is through, or failed.
    pub(super) fn run_ends(&mut self, exit: Exit) {
        let mut groups = self.socket_groups.iter_mut();
        if let Some(count) = groups.find_map(|group| group.runs(exit)) {
            *count -= 1;
        }
    }

    /// Sends a run once more that a connected socket refused, past it. Whatever the error was, it may be
    /// of an earlier datagram; the bound socket says what is wrong with this one.
    pub(super) fn repeat_unconnected(&mut self, index: u32, exit: Exit, run: Run) {
        let mut groups = self.socket_groups.iter_mut();
        let bound = groups.find_map(|group| group.runs(exit).is_some().then_some(group.bound));
        let bound = bound.expect("a connected socket stays while a run is on its way");
        let unconnected = Exit {
            slot: bound.slot,
            is_connected: false,
        };
        self.counters.tx_repeated_datagrams += u64::from(run.count);
        self.push_run(unconnected, index, run);
    }

    /// The socket the core knows for one that received.
    pub(super) fn bound_socket(&self, link: LinkId) -> LinkId {
        let mut groups = self.socket_groups.iter();
        let group = groups.find(|group| group.place_of(link).is_some());
        group.map_or(link, |group| group.bound)
    }

    /// Opens a socket for `peer` beside the bound one of group `at`. Where that fails it goes on without.
    fn open_connected(&mut self, at: usize, peer: SocketAddr) {
        let address = self.socket_groups[at].address;
        // Where there is no way to the peer, better to know before anybody's datagrams come to the socket.
        let has_way = unbound_datagram(address).and_then(|socket| socket.connect(&peer.into()));
        self.share_port(at, true);
        let opened = has_way.and_then(|()| {
            let socket = bind_beside(address)?;
            socket.connect(&peer.into())?;
            socket.set_reuse_port(false)?;
            Ok(socket.into())
        });
        self.share_port(at, false);
        self.adopt_connected(at, peer, opened);
    }

    /// Takes a socket connected to `peer` into group `at`, if it `opened`.
    fn adopt_connected(&mut self, at: usize, peer: SocketAddr, opened: io::Result<OwnedFd>) {
        let kind = LinkKind::SipUdp;
        let link = opened.ok().and_then(|fd| {
            if self.options.train_segment_bytes_max > 0 {
                // Without it datagrams come one by one.
                let _ = sys::enable_gro(fd.as_fd());
            }
            self.links.insert(kind, Phase::Open, fd, peer)
        });
        let group = &mut self.socket_groups[at];
        let Some(link) = link else {
            group.retry_at = self.now + RETRY_PAUSE;
            self.counters.udp_connects_failed += 1;
            return;
        };
        group.connected.push(Connected {
            link,
            peer,
            runs: 0,
            used_at: self.now,
            stage: Stage::Opened {
                first: RECEIVES_FIRST_MAX,
            },
        });
        self.counters.udp_connected += 1;
        self.receive_connected(at);
    }

    /// The bound socket `id` was received from: connected ones may follow.
    pub(super) fn bound_received(&mut self, id: LinkId) {
        let mut groups = self.socket_groups.iter();
        if let Some(at) = groups.position(|group| group.bound == id) {
            self.receive_connected(at);
        }
    }

    /// Receives from the sockets of group `at` that were opened since the bound one had nothing to read.
    /// While it has, one of its receives will end and ask again.
    fn receive_connected(&mut self, at: usize) {
        let group = &mut self.socket_groups[at];
        let mut opened = group.connected.iter();
        if !opened.any(|own| matches!(own.stage, Stage::Opened { .. })) {
            return;
        }
        let bound = self.links.lookup(group.bound);
        let is_read = bound.is_none_or(|link| !has_octets(link));
        for place in 0..self.socket_groups[at].connected.len() {
            let own = &mut self.socket_groups[at].connected[place];
            let Stage::Opened { first } = own.stage else {
                continue;
            };
            if is_read || first == 0 {
                own.stage = Stage::Receiving;
                let link = own.link;
                self.arm_receive(link);
            } else {
                own.stage = Stage::Opened { first: first - 1 };
            }
        }
    }

    /// Lets a further socket bind to the address of group `at`, or no more. Only while one does: the kernel
    /// would spread what comes over all of them, and admit another process of this user.
    fn share_port(&mut self, at: usize, on: bool) {
        let group = &self.socket_groups[at];
        let connected = group.connected.iter().map(|own| own.link);
        for id in connected.chain([group.bound]) {
            if let Some(link) = self.links.lookup(id) {
                // Where it fails so does the bind, and that is counted.
                let _ = SockRef::from(&link.fd()).set_reuse_port(on);
            }
        }
    }

    /// Gives up connected sockets whose peers get nothing any more.
    pub(in crate::io) fn give_up_idle_sockets(&mut self) {
        let now = self.now;
        let is_idle = |used_at: Timestamp| used_at + IDLE_LIMIT <= now;
        for group in &mut self.socket_groups {
            group.counted.retain(|counted| !is_idle(counted.used_at));
            for own in &mut group.connected {
                let Some(link) = self.links.lookup(own.link) else {
                    continue;
                };
                let may_leave = matches!(own.stage, Stage::Receiving | Stage::Used);
                if may_leave && own.runs == 0 && is_idle(own.used_at) {
                    own.stage = Stage::Leaving;
                    // Away from its peer, whose datagrams come to the bound socket again. To whom does
                    // not matter, and there is always a way to ourselves.
                    let _ = SockRef::from(&link.fd()).connect(&group.address.into());
                }
                if own.stage == Stage::Leaving {
                    let id = own.link;
                    let target = Token::new(Kind::ReceiveDatagrams, id.slot, id.generation);
                    self.ring.cancel(target, Token::ignored());
                }
            }
        }
    }

    /// The receive of `id` has ended: closes the socket if it was given up and nothing is left to read.
    pub(super) fn close_connected(&mut self, id: LinkId) -> bool {
        let mut groups = self.socket_groups.iter_mut();
        let found = groups.find_map(|group| group.place_of(id).map(|place| (group, place)));
        let Some((group, place)) =
            found.filter(|(group, at)| group.connected[*at].stage == Stage::Leaving)
        else {
            return false;
        };
        if self.links.lookup(id).is_none_or(|link| has_octets(link)) {
            return false; // What is left is read first, and the next tick ends the receive again.
        }
        let own = group.connected.swap_remove(place);
        assert!(own.runs == 0, "who leaves takes no more");
        let released = self.links.release(id);
        assert!(released, "no operation names it");
        self.counters.udp_disconnected += 1;
        true
    }
}

fn has_octets(socket: &Link) -> bool {
    rustix::io::ioctl_fionread(socket.fd()).is_ok_and(|octets| octets > 0)
}

/// A further socket at `address`, which its others share for now.
fn bind_beside(address: SocketAddr) -> io::Result<Socket> {
    let socket = unbound_datagram(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
