//! Next hops: trunks to the SIP core, how many INVITEs each may have open, and when one is avoided.
//!
//! A hop is an address of the configured list. Over TCP it has some trunk connections, used in turn;
//! over UDP it is the shard's own socket with the hop's address. A hop that refused with 503 and
//! `Retry-After`, or that cannot be reached, is skipped until its time has passed (RFC 3261
//! section 21.5.4).

use core::net::SocketAddr;
use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::outbox::{Destination, Outbox};
use crate::base::surface::{LinkId, LinkKind};
use crate::base::time::Timestamp;

/// How a hop is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HopTransport {
    /// Trunk connections; the default, since the INVITE is longer than 1300 octets.
    Tcp,
    /// Datagrams; only with a known path MTU (RFC 3261 section 18.1.1).
    Udp,
}

/// One entry of the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopOptions {
    /// Where the hop listens.
    pub address: SocketAddr,
    /// How it is reached.
    pub transport: HopTransport,
    /// Trunk connections of one shard, 1..=64.
    pub connections: u16,
    /// Most INVITEs without a final response.
    pub invite_inflight_max: u32,
}

/// Longest wait between two attempts to connect a trunk.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// First wait after a trunk was lost.
const RECONNECT_MIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Trunk {
    link: Option<LinkId>,
    retry_at: Timestamp,
    failures: u32,
    connecting: bool,
}

/// A hop with its live state.
#[derive(Debug)]
pub struct Hop {
    options: HopOptions,
    trunks: Vec<Trunk>,
    next: usize,
    invites_inflight: u32,
    avoid_until: Timestamp,
}

impl Hop {
    /// How the hop is reached.
    #[must_use]
    pub const fn transport(&self) -> HopTransport {
        self.options.transport
    }

    /// INVITEs without a final response.
    #[must_use]
    pub const fn invites_inflight(&self) -> u32 {
        self.invites_inflight
    }
}

/// All hops of a shard, in configured order.
#[derive(Debug)]
pub struct Hops {
    shard: u8,
    hops: Vec<Hop>,
}

impl Hops {
    /// Hops from the configuration; nothing is connected yet.
    #[must_use]
    pub fn new(shard: u8, options: &[HopOptions]) -> Self {
        let hops = options
            .iter()
            .map(|&options| Hop {
                options,
                trunks: (0..options.connections.max(1))
                    .map(|_| Trunk {
                        link: None,
                        retry_at: Timestamp::ZERO,
                        failures: 0,
                        connecting: false,
                    })
                    .collect(),
                next: 0,
                invites_inflight: 0,
                avoid_until: Timestamp::ZERO,
            })
            .collect();
        Self { shard, hops }
    }

    /// Where a request may go now: the first hop that is up, not avoided and, for a new INVITE, has
    /// room. The hop's index is needed to account for the INVITE.
    pub fn pick(&mut self, now: Timestamp, is_invite: bool) -> Option<(u16, Destination)> {
        self.pick_untried(now, is_invite, 0)
    }

    /// As [`Self::pick`], leaving out the hops whose bits are set in `tried` (NH-3).
    pub fn pick_untried(
        &mut self,
        now: Timestamp,
        is_invite: bool,
        tried: u64,
    ) -> Option<(u16, Destination)> {
        let shard = self.shard;
        for (index, hop) in (0u16..).zip(self.hops.iter_mut()) {
            if tried & hop_bit(index) != 0 {
                continue;
            }
            if hop.avoid_until > now
                || (is_invite && hop.invites_inflight >= hop.options.invite_inflight_max)
            {
                continue;
            }
            let count = hop.trunks.len();
            for step in 0..count {
                let at = (hop.next + step) % count;
                let Some(link) = hop.trunks[at].link else {
                    continue;
                };
                hop.next = at + 1;
                let address = match hop.options.transport {
                    HopTransport::Tcp => None,
                    HopTransport::Udp => Some(hop.options.address),
                };
                return Some((
                    index,
                    Destination {
                        shard,
                        link,
                        address,
                    },
                ));
            }
        }
        None
    }

    /// Whether any hop can take a request now.
    #[must_use]
    pub fn is_up(&self, now: Timestamp) -> bool {
        self.hops.iter().any(|hop| {
            hop.avoid_until <= now && hop.trunks.iter().any(|trunk| trunk.link.is_some())
        })
    }

    /// INVITEs that may be started now, over all hops that are up.
    #[must_use]
    pub fn invite_room(&self, now: Timestamp) -> u32 {
        self.hops
            .iter()
            .filter(|hop| {
                hop.avoid_until <= now && hop.trunks.iter().any(|trunk| trunk.link.is_some())
            })
            .map(|hop| {
                hop.options
                    .invite_inflight_max
                    .saturating_sub(hop.invites_inflight)
            })
            .fold(0, u32::saturating_add)
    }

    /// The hop of an index that [`Self::pick`] gave.
    #[must_use]
    pub fn hop(&self, index: u16) -> Option<&Hop> {
        self.hops.get(usize::from(index))
    }

    /// An INVITE left for hop `index`.
    pub fn invite_started(&mut self, index: u16) {
        if let Some(hop) = self.hops.get_mut(usize::from(index)) {
            hop.invites_inflight += 1;
        }
    }

    /// An INVITE of hop `index` got its final response or was given up.
    ///
    /// # Panics
    /// When more INVITEs end than started: our accounting is wrong.
    pub fn invite_ended(&mut self, index: u16) {
        if let Some(hop) = self.hops.get_mut(usize::from(index)) {
            assert!(
                hop.invites_inflight > 0,
                "an INVITE ended that never started"
            );
            hop.invites_inflight -= 1;
        }
    }

    /// The hop answered 503: it gets no new request until `until`. Several answers do not add up.
    pub fn avoid(&mut self, index: u16, until: Timestamp) {
        if let Some(hop) = self.hops.get_mut(usize::from(index)) {
            hop.avoid_until = hop.avoid_until.max(until);
        }
    }

    /// The shard's datagram socket is bound: UDP hops are up.
    pub fn socket_bound(&mut self, link: LinkId) {
        for hop in &mut self.hops {
            if hop.options.transport == HopTransport::Udp {
                hop.trunks[0].link = Some(link);
            }
        }
    }

    /// A trunk connected. `token` is the one passed to [`Outbox::connect`].
    pub fn connected(&mut self, token: u64, link: LinkId) {
        if let Some(trunk) = self.trunk_mut(token) {
            trunk.connecting = false;
            trunk.failures = 0;
            trunk.link = Some(link);
        }
    }

    /// A trunk did not connect: try again later.
    pub fn connect_failed(&mut self, now: Timestamp, token: u64, jitter: &mut Jitter) {
        if let Some(trunk) = self.trunk_mut(token) {
            trunk.connecting = false;
            trunk.failures = trunk.failures.saturating_add(1);
            let wait = RECONNECT_MIN
                .saturating_mul(1 << trunk.failures.min(9))
                .min(RECONNECT_MAX);
            trunk.retry_at = now + jitter.duration(wait / 2, wait);
        }
    }

    /// A link closed; true if it was a trunk.
    pub fn closed(&mut self, now: Timestamp, link: LinkId) -> bool {
        for hop in &mut self.hops {
            for trunk in &mut hop.trunks {
                if trunk.link == Some(link) {
                    trunk.link = None;
                    trunk.retry_at = now + RECONNECT_MIN;
                    return true;
                }
            }
        }
        false
    }

    /// Starts every connection that is due.
    pub fn advance(&mut self, now: Timestamp, out: &mut Outbox) {
        for (index, hop) in (0u64..).zip(self.hops.iter_mut()) {
            if hop.options.transport == HopTransport::Udp {
                continue;
            }
            for (at, trunk) in (0u64..).zip(hop.trunks.iter_mut()) {
                if trunk.link.is_none() && !trunk.connecting && trunk.retry_at <= now {
                    trunk.connecting = true;
                    let token = TRUNK_TOKEN | index << 16 | at;
                    out.connect(token, LinkKind::SipOutbound, hop.options.address);
                }
            }
        }
    }

    /// When [`Self::advance`] has work next; also when an avoided hop may be used again.
    #[must_use]
    pub fn deadline(&self, now: Timestamp) -> Timestamp {
        let mut earliest = Timestamp::NEVER;
        for hop in &self.hops {
            if hop.avoid_until > now {
                earliest = earliest.min(hop.avoid_until);
            }
            if hop.options.transport == HopTransport::Udp {
                continue;
            }
            for trunk in &hop.trunks {
                if trunk.link.is_none() && !trunk.connecting {
                    earliest = earliest.min(trunk.retry_at);
                }
            }
        }
        earliest
    }

    fn trunk_mut(&mut self, token: u64) -> Option<&mut Trunk> {
        debug_assert!(is_trunk_token(token));
        let index = usize::try_from(token >> 16 & 0xffff).ok()?;
        let at = usize::try_from(token & 0xffff).ok()?;
        self.hops.get_mut(index)?.trunks.get_mut(at)
    }
}

/// The bit of a hop in a set of hops; hops past the 64th share the last one.
#[must_use]
pub fn hop_bit(index: u16) -> u64 {
    1 << index.min(63)
}

const TRUNK_TOKEN: u64 = 1 << 63;

/// `true` if a connect token belongs to a trunk rather than to a push.
#[must_use]
pub const fn is_trunk_token(token: u64) -> bool {
    token & TRUNK_TOKEN != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(port: u16) -> HopOptions {
        HopOptions {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            transport: HopTransport::Tcp,
            connections: 2,
            invite_inflight_max: 2,
        }
    }

    fn link(slot: u32) -> LinkId {
        LinkId {
            slot,
            generation: 0,
        }
    }

    fn connected() -> Hops {
        let mut hops = Hops::new(0, &[hop(1), hop(2)]);
        let mut out = Outbox::new(0);
        hops.advance(Timestamp::ZERO, &mut out);
        let mut slot = 0;
        while let Some(command) = out.poll_link() {
            if let crate::base::surface::LinkCommand::Connect { token, .. } = command {
                hops.connected(token, link(slot));
                slot += 1;
            }
        }
        assert_eq!(slot, 4, "two hops with two trunks each");
        hops
    }

    #[test]
    fn trunks_are_used_in_turn_and_full_hops_are_passed_over() {
        let mut hops = connected();
        let now = Timestamp::ZERO;
        let (first, a) = hops.pick(now, true).unwrap();
        let (_, b) = hops.pick(now, true).unwrap();
        assert_ne!(a.link, b.link);
        hops.invite_started(first);
        hops.invite_started(first);
        assert_eq!(
            hops.pick(now, true).unwrap().0,
            1,
            "hop 0 has no room for an INVITE"
        );
        assert_eq!(
            hops.pick(now, false).unwrap().0,
            0,
            "other requests still go there"
        );
    }

    #[test]
    fn an_avoided_hop_gets_nothing_until_its_time() {
        let mut hops = connected();
        let until = Timestamp::from_millis(8000);
        hops.avoid(0, until);
        hops.avoid(0, Timestamp::from_millis(10));
        assert_eq!(hops.pick(Timestamp::from_millis(7999), true).unwrap().0, 1);
        assert_eq!(hops.pick(until, true).unwrap().0, 0);
    }

    #[test]
    fn a_lost_trunk_is_connected_again_with_growing_waits() {
        let mut hops = connected();
        let mut out = Outbox::new(0);
        let mut jitter = Jitter::new(5);
        let now = Timestamp::from_millis(1000);
        assert!(hops.closed(now, link(0)));
        assert!(!hops.closed(now, link(0)));
        hops.advance(hops.deadline(now), &mut out);
        let Some(crate::base::surface::LinkCommand::Connect { token, .. }) = out.poll_link() else {
            panic!("a connect was due");
        };
        hops.connect_failed(now, token, &mut jitter);
        let first = hops.deadline(now).since(now);
        hops.advance(hops.deadline(now), &mut out);
        hops.connect_failed(now, token, &mut jitter);
        hops.connect_failed(now, token, &mut jitter);
        assert!(hops.deadline(now).since(now) > first);
    }
}
