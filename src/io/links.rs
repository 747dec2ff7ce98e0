//! The table of links: slots with generations, what is in flight on each, and their deadlines.
//!
//! ```text
//! Free -> Connecting -> Open -> HalfClosed -> Lingering -> Free
//!                            \-> Leaving -> Free, or Lingering
//! ```
//! All may go straight to Dying and Free, from Connecting to Free, too.
//!
//! A slot is freed, and its descriptor closed, only when no operation names it any more: a queued
//! operation must never meet a reused descriptor number.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::base::map::{Map, MapKeys, new_map};
use crate::base::surface::{LinkId, LinkKind};
use crate::base::time::Timestamp;

/// Where a link is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Our connect is under way; the core knows only its token.
    Connecting,
    /// Failed; the core was told. Waits for its operations to end.
    Dying,
    /// In no use.
    Free,
    /// The peer sent its last octet; what we owe it still goes out.
    HalfClosed,
    /// Of no use any more, and the core was told; the peer's octets are thrown away until it closes, which is its part.
    Leaving,
    /// We sent our last octet and told the core; the peer's octets are thrown away until it ends.
    Lingering,
    /// In use.
    Open,
}

/// One slot.
#[derive(Debug)]
pub(super) struct Link {
    pub generation: u32,
    pub phase: Phase,
    pub kind: LinkKind,
    pub fd: Option<OwnedFd>,
    pub peer: SocketAddr,
    /// The token of our connect.
    pub connect: u64,
    /// A multishot receive is armed.
    pub receiving: bool,
    /// The core wants nothing read for now.
    pub held: bool,
    /// A send or a connect is in flight.
    pub sending: bool,
    /// Close once the send is through.
    pub close_wanted: bool,
    /// Octets the peer had acknowledged when a send last took longer than it should; stale ones are of a
    /// send before.
    pub acknowledged: Option<u64>,
}

/// How many accepted connections a source may have, and has: an IPv4 address, or an IPv6 /64.
#[derive(Debug)]
pub(super) struct SourceCap {
    /// Connections of each source; nothing while there is no cap.
    sources: Map<IpAddr, u32>,
    most: u32,
    uncapped: Arc<[IpAddr]>,
}

impl SourceCap {
    /// At most `most` of a source (0: no cap), but of each of `uncapped` as many as there is room for.
    pub(super) fn new(most: u32, uncapped: Arc<[IpAddr]>, keys: MapKeys) -> Self {
        Self {
            sources: new_map(keys, 0),
            most,
            uncapped,
        }
    }

    /// Whether a connection of `peer` counts: those of addresses without a cap do not, or they would use up
    /// what others of their network may have.
    fn counts(&self, kind: LinkKind, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        self.most > 0
            && is_inbound(kind)
            && !self
                .uncapped
                .iter()
                .any(|known| known.to_canonical() == address)
    }

    fn add(&mut self, kind: LinkKind, peer: SocketAddr) {
        if self.counts(kind, peer) {
            *self.sources.entry(source(peer)).or_insert(0) += 1;
        }
    }

    fn take(&mut self, kind: LinkKind, peer: SocketAddr) {
        let source = source(peer);
        if self.counts(kind, peer)
            && let Some(count) = self.sources.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    fn is_reached(&self, kind: LinkKind, peer: SocketAddr) -> bool {
        let source = source(peer);
        self.sources
            .get(&source)
            .is_some_and(|&count| count >= self.most)
            && self.counts(kind, peer)
    }
}

/// What a peer is counted by: an IPv4 address, also on a socket of IPv6, or the /64 of an IPv6 one, of which a
/// single host has all addresses to choose from.
const fn source(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

/// All links of a driver.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<Link>,
    /// Beside the links, so that a sweep reads eight octets a slot.
    deadlines: Vec<Timestamp>,
    free: Vec<u32>,
    bound: u32,
    cap: SourceCap,
    /// Links whose deadline must be watched more often than once a second.
    pub urgent: u32,
    /// Links in [`Phase::Leaving`].
    pub leaving: u32,
}

impl Links {
    /// Room for `bound` links, and for accepted ones of one source by `cap`.
    pub(super) const fn new(bound: u32, cap: SourceCap) -> Self {
        Self {
            links: Vec::new(),
            deadlines: Vec::new(),
            free: Vec::new(),
            bound,
            cap,
            urgent: 0,
            leaving: 0,
        }
    }

    /// Takes a slot; `None` at the bound, or when an accepted peer's address is at its cap.
    pub(super) fn insert(
        &mut self,
        kind: LinkKind,
        phase: Phase,
        fd: OwnedFd,
        peer: SocketAddr,
    ) -> Option<LinkId> {
        if self.is_capped(kind, peer) {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.grow(peer)?,
        };
        self.cap.add(kind, peer);
        let link = &mut self.links[slot as usize];
        assert!(link.phase == Phase::Free, "a free slot is unused");
        link.phase = phase;
        link.kind = kind;
        link.fd = Some(fd);
        link.peer = peer;
        link.connect = 0;
        link.receiving = false;
        link.held = false;
        link.sending = false;
        link.close_wanted = false;
        link.acknowledged = None;
        Some(LinkId {
            slot,
            generation: link.generation,
        })
    }

    fn grow(&mut self, peer: SocketAddr) -> Option<u32> {
        let slot = u32::try_from(self.links.len()).ok()?;
        if slot >= self.bound {
            return None;
        }
        self.links.push(Link {
            generation: 1,
            phase: Phase::Free,
            kind: LinkKind::SipInbound,
            fd: None,
            peer,
            connect: 0,
            receiving: false,
            held: false,
            sending: false,
            close_wanted: false,
            acknowledged: None,
        });
        self.deadlines.push(Timestamp::NEVER);
        Some(slot)
    }

    /// Whether an accepted peer's address has as many links as it may.
    pub(super) fn is_capped(&self, kind: LinkKind, peer: SocketAddr) -> bool {
        self.cap.is_reached(kind, peer)
    }

    /// The link of `id`, unless that use of the slot is over.
    pub(super) fn lookup(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links
            .get_mut(id.slot as usize)
            .filter(|link| link.generation == id.generation && link.phase != Phase::Free)
    }

    /// The link in `slot` with its id, if the slot is in use.
    pub(super) fn at(&mut self, slot: u32) -> Option<(LinkId, &mut Link)> {
        let link = self.links.get_mut(slot as usize)?;
        let id = LinkId {
            slot,
            generation: link.generation,
        };
        (link.phase != Phase::Free).then_some((id, link))
    }

    /// Watches `id` until `deadline`; see [`Self::due`].
    pub(super) fn set_deadline(&mut self, id: LinkId, deadline: Timestamp) {
        self.deadlines[id.slot as usize] = deadline;
    }

    /// The slots whose deadline has passed, into `out`.
    pub(super) fn due(&self, now: Timestamp, out: &mut Vec<u32>) {
        for (slot, &deadline) in (0_u32..).zip(&self.deadlines) {
            if deadline <= now {
                out.push(slot);
            }
        }
    }

    /// Frees the slot when no operation names it; true when it did.
    pub(super) fn release(&mut self, id: LinkId) -> bool {
        let Some(link) = self.lookup(id) else {
            return false;
        };
        if link.receiving || link.sending {
            return false;
        }
        link.fd = None;
        link.phase = Phase::Free;
        link.generation = link.generation.wrapping_add(1);
        let (kind, peer) = (link.kind, link.peer);
        self.deadlines[id.slot as usize] = Timestamp::NEVER;
        self.free.push(id.slot);
        self.cap.take(kind, peer);
        true
    }

    /// Slots in use.
    pub(super) const fn len(&self) -> usize {
        self.links.len() - self.free.len()
    }
}

impl Link {
    /// The descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd
            .as_ref()
            .expect("a slot in use has its descriptor")
            .as_fd()
    }
}

/// True for a connection a peer opened.
pub(super) const fn is_inbound(kind: LinkKind) -> bool {
    match kind {
        LinkKind::MsrpInbound | LinkKind::SipInbound => true,
        LinkKind::MsrpOutbound | LinkKind::SipOutbound | LinkKind::SipUdp => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
    }

    fn links(bound: u32, cap: u32, uncapped: &[IpAddr]) -> Links {
        let cap = SourceCap::new(cap, uncapped.into(), MapKeys([1, 2, 3, 4]));
        Links::new(bound, cap)
    }

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 5060))
    }

    fn open(links: &mut Links, last: u8) -> Option<LinkId> {
        links.insert(LinkKind::SipInbound, Phase::Open, fd(), peer(last))
    }

    #[test]
    fn a_slot_in_flight_is_not_reused_and_a_stale_id_finds_nothing() {
        let mut links = links(8, 0, &[]);
        let first = open(&mut links, 1).unwrap();
        links.lookup(first).unwrap().receiving = true;
        assert!(!links.release(first));
        links.lookup(first).unwrap().receiving = false;
        assert!(links.release(first));
        assert!(links.lookup(first).is_none());
        let second = open(&mut links, 1).unwrap();
        assert_eq!(second.slot, first.slot);
        assert_ne!(second.generation, first.generation);
        assert!(links.lookup(first).is_none());
    }

    #[test]
    fn the_table_and_each_source_have_a_bound() {
        let mut links = links(3, 2, &[]);
        let first = open(&mut links, 1).unwrap();
        open(&mut links, 1).unwrap();
        assert!(open(&mut links, 1).is_none(), "source cap");
        open(&mut links, 2).unwrap();
        assert!(open(&mut links, 3).is_none(), "table bound");
        assert!(links.release(first));
        open(&mut links, 1).unwrap();
        assert_eq!(links.len(), 3);
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_share_a_cap() {
        let at =
            |high: u16, low: u16| SocketAddr::from(([0x2001, 0xdb8, 0, high, 0, 0, 0, low], 5060));
        let mut links = links(8, 2, &[at(1, 9).ip()]);
        let mut open = |peer| links.insert(LinkKind::MsrpInbound, Phase::Open, fd(), peer);
        // One that has no cap leaves the others of its network theirs.
        for _ in 0..3 {
            open(at(1, 9)).unwrap();
        }
        let first = open(at(1, 1)).unwrap();
        open(at(1, 2)).unwrap();
        assert!(open(at(1, 3)).is_none(), "another address of the same /64");
        open(at(2, 1)).unwrap();
        assert!(links.is_capped(LinkKind::SipInbound, at(1, 4)));
        assert!(!links.is_capped(LinkKind::SipInbound, at(1, 9)));
        assert!(links.release(first));
        assert!(!links.is_capped(LinkKind::SipInbound, at(1, 4)));
    }

    #[test]
    fn a_source_that_is_named_has_no_cap_and_is_known_on_either_family() {
        let mut links = links(8, 1, &[peer(1).ip()]);
        let mapped = SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0x7f00, 2], 5060));
        for _ in 0..3 {
            open(&mut links, 1).unwrap();
        }
        open(&mut links, 2).unwrap();
        assert!(links.is_capped(LinkKind::MsrpInbound, mapped));
        assert!(!links.is_capped(LinkKind::MsrpOutbound, mapped));
    }

    #[test]
    fn only_passed_deadlines_are_due() {
        let mut links = links(8, 0, &[]);
        let first = open(&mut links, 1).unwrap();
        let second = open(&mut links, 2).unwrap();
        links.set_deadline(first, Timestamp::from_millis(5));
        links.set_deadline(second, Timestamp::from_millis(6));
        let mut due = Vec::new();
        links.due(Timestamp::from_millis(5), &mut due);
        assert_eq!(due, [first.slot]);
    }
}
