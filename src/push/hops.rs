//! Next hops: trunks to the SIP core, how many INVITEs each may have open, and when one is avoided.
//!
//! A hop is an address of the configured list. Over TCP it has some trunk connections, used in turn;
//! over UDP it is the shard's own socket with the hop's address. A hop that refused with 503 and
//! `Retry-After`, or that cannot be reached, is skipped until its time has passed (RFC 3261
//! section 21.5.4). One that asks for less by RFC 7339 gets less ([`Throttle`]). One that leaves
//! several INVITEs in a row without any answer gets nothing but an OPTIONS now and then, until it
//! answers one (RFC 7339 section 5.9).

use core::net::SocketAddr;
use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::outbox::{Destination, Outbox};
use crate::base::surface::{LinkId, LinkKind};
use crate::base::time::Timestamp;
use crate::base::token::{Minter, Token, TokenKind, TokenParts};
use crate::sip::overload::{Feedback, Throttle};
use crate::sip::template::{OptionsFields, Templates};
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::client_non_invite::{ClientNonInvite, NonInviteAction};

/// What a request asks of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// A new INVITE: counted while it is open, held back under overload.
    Invite,
    /// A new INVITE with priority: counted, but not held back (category 2 of RFC 7339 section 7.2).
    Priority,
    /// Another new request: held back under overload (category 1 of RFC 7339 section 7.2).
    New,
    /// A request that goes whatever the hop asks for.
    Owed,
}

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
/// Unanswered INVITEs in a row after which a hop counts as silent.
const SILENCE_MAX: u32 = 3;
/// First and longest wait between two probes of a silent hop.
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(60);

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
    throttle: Throttle,
    /// INVITEs in a row that nobody answered.
    silence: u32,
    probe: Probe,
}

/// The OPTIONS by which a silent hop is watched.
#[derive(Debug)]
struct Probe {
    /// When the next one leaves; `NEVER` while the hop answers or one is under way.
    at: Timestamp,
    /// Probes since the hop fell silent.
    sent: u32,
    /// Names the probe in its branch.
    serial: u32,
    transaction: Option<ClientNonInvite>,
}

impl Hop {
    const fn is_silent(&self) -> bool {
        self.silence >= SILENCE_MAX
    }

    /// Whether it may get a new request, its transport aside.
    fn is_open(&self, now: Timestamp) -> bool {
        self.avoid_until <= now && !self.is_silent()
    }

    fn trunk(&self) -> Option<LinkId> {
        self.trunks.iter().find_map(|trunk| trunk.link)
    }

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
                throttle: Throttle::default(),
                silence: 0,
                probe: Probe {
                    at: Timestamp::NEVER,
                    sent: 0,
                    serial: 0,
                    transaction: None,
                },
            })
            .collect();
        Self { shard, hops }
    }

    /// Where a request may go now: the first hop that is up, not avoided and, for a new request, takes
    /// it. The hop's index is needed to account for an INVITE.
    pub fn pick(&mut self, now: Timestamp, offer: Offer) -> Option<(u16, Destination)> {
        self.pick_untried(now, offer, 0)
    }

    /// As [`Self::pick`], leaving out the hops whose bits are set in `tried` (NH-3).
    pub fn pick_untried(
        &mut self,
        now: Timestamp,
        offer: Offer,
        tried: u64,
    ) -> Option<(u16, Destination)> {
        let shard = self.shard;
        for (index, hop) in (0u16..).zip(self.hops.iter_mut()) {
            if tried & hop_bit(index) != 0 {
                continue;
            }
            let is_full = hop.invites_inflight >= hop.options.invite_inflight_max;
            if !hop.is_open(now) || (matches!(offer, Offer::Invite | Offer::Priority) && is_full) {
                continue;
            }
            let is_exempt = matches!(offer, Offer::Owed | Offer::Priority);
            let is_held = |hop: &mut Hop| !is_exempt && !hop.throttle.admit(now);
            if hop.trunk().is_none() || is_held(hop) {
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
        self.hops
            .iter()
            .any(|hop| hop.is_open(now) && hop.trunk().is_some())
    }

    /// INVITEs that may be started now, over all hops that are up.
    #[must_use]
    pub fn invite_room(&self, now: Timestamp) -> u32 {
        self.hops
            .iter()
            .filter(|hop| hop.is_open(now) && hop.trunk().is_some())
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

    /// When a request that no hop took may be offered again: the earliest end of what a hop asked for.
    /// `None` when none asks for less.
    #[must_use]
    pub fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.hops
            .iter()
            .filter_map(|hop| hop.throttle.until(now))
            .min()
    }

    /// A response of hop `index` carried overload parameters. True when they changed what it gets.
    pub fn hear(&mut self, now: Timestamp, index: u16, feedback: &Feedback) -> bool {
        self.hops
            .get_mut(usize::from(index))
            .is_some_and(|hop| hop.throttle.hear(now, feedback))
    }

    /// The hop a message came from.
    #[must_use]
    pub fn index_of(&self, from: Destination) -> Option<u16> {
        (0u16..)
            .zip(&self.hops)
            .find(|(_, hop)| match from.address {
                Some(address) => hop.options.address == address,
                None => hop.trunks.iter().any(|trunk| trunk.link == Some(from.link)),
            })
            .map(|(index, _)| index)
    }

    /// Hop `index` answered something: it is not silent.
    pub fn answered(&mut self, index: u16) {
        if let Some(hop) = self.hops.get_mut(usize::from(index))
            && hop.silence > 0
        {
            hop.silence = 0;
            hop.probe.at = Timestamp::NEVER;
            hop.probe.sent = 0;
            hop.probe.transaction = None;
        }
    }

    /// Nobody answered an INVITE by hop `index`.
    pub fn unanswered(&mut self, now: Timestamp, index: u16) {
        let Some(hop) = self.hops.get_mut(usize::from(index)) else {
            return;
        };
        hop.silence = hop.silence.saturating_add(1);
        if hop.silence == SILENCE_MAX {
            hop.probe.at = now + PROBE_MIN;
        }
    }

    /// A response to a probe, named by the parts of its branch.
    pub fn probe_answered(&mut self, parts: TokenParts) {
        let Ok(index) = u16::try_from(parts.key.slot) else {
            return;
        };
        let is_current = self
            .hops
            .get(usize::from(index))
            .is_some_and(|hop| hop.probe.serial == parts.key.generation);
        if is_current {
            self.answered(index);
        }
    }

    /// Sends the probes that are due, and repeats those over datagrams.
    pub fn probe(&mut self, now: Timestamp, out: &mut Outbox, kit: &ProbeKit<'_>) {
        let shard = self.shard;
        for (index, hop) in (0u32..).zip(self.hops.iter_mut()) {
            let send = if hop.probe.at <= now {
                hop.probe.at = Timestamp::NEVER;
                hop.probe.serial = (hop.probe.serial + 1) & crate::base::slab::GENERATION_MASK;
                hop.probe.sent = hop.probe.sent.saturating_add(1);
                let mut options = kit.transaction;
                options.reliable = hop.options.transport == HopTransport::Tcp;
                hop.probe.transaction = Some(ClientNonInvite::start(now, &options));
                true
            } else {
                hop.step_probe(now)
            };
            let (true, Some(link)) = (send, hop.trunk()) else {
                continue;
            };
            let to = Destination {
                shard,
                link,
                address: (hop.options.transport == HopTransport::Udp)
                    .then_some(hop.options.address),
            };
            let name = |kind| kit.name(kind, shard, index, hop.probe.serial);
            let (branch, tag) = (name(TokenKind::HopBranch), name(TokenKind::ServerTag));
            let call_id = name(TokenKind::OtherCallId);
            let uri = format_uri(hop.options.address);
            let fields = OptionsFields {
                request_uri: uri.as_bytes(),
                branch: branch.as_bytes(),
                from_tag: tag.as_bytes(),
                to_uri: uri.as_bytes(),
                call_id: call_id.as_bytes(),
                cseq: 1,
            };
            out.send(to, |out| kit.templates.options(&fields, out));
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
            earliest = earliest.min(hop.probe.at);
            if let Some(transaction) = &hop.probe.transaction {
                earliest = earliest.min(transaction.deadline());
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

impl Hop {
    /// Moves the probe under way on; true when it is to be sent again.
    fn step_probe(&mut self, now: Timestamp) -> bool {
        let Some(transaction) = &mut self.probe.transaction else {
            return false;
        };
        if transaction.deadline() > now {
            return false;
        }
        match transaction.handle_timeout(now) {
            NonInviteAction::Retransmit => true,
            NonInviteAction::TimedOut
            | NonInviteAction::TransportFailed
            | NonInviteAction::Terminated => {
                self.probe.transaction = None;
                let wait = PROBE_MIN.saturating_mul(1 << self.probe.sent.min(6));
                self.probe.at = now + wait.min(PROBE_MAX);
                false
            }
            NonInviteAction::Nothing
            | NonInviteAction::Provisional(_)
            | NonInviteAction::Final(_) => false,
        }
    }
}

/// What a probe is made with.
#[derive(Debug)]
pub struct ProbeKit<'a> {
    /// Mints its identifiers.
    pub minter: &'a Minter,
    /// Encodes it.
    pub templates: &'a Templates,
    /// Its timers.
    pub transaction: TransactionOptions,
}

impl ProbeKit<'_> {
    fn name(&self, kind: TokenKind, shard: u8, slot: u32, generation: u32) -> Token {
        self.minter.mint(TokenParts {
            kind,
            shard,
            key: crate::base::slab::Key { slot, generation },
            sequence: 0,
        })
    }
}

/// Probes are rare: this may allocate.
fn format_uri(address: SocketAddr) -> String {
    format!("sip:{address}")
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
        let (first, a) = hops.pick(now, Offer::Invite).unwrap();
        let (_, b) = hops.pick(now, Offer::Invite).unwrap();
        assert_ne!(a.link, b.link);
        hops.invite_started(first);
        hops.invite_started(first);
        assert_eq!(
            hops.pick(now, Offer::Invite).unwrap().0,
            1,
            "hop 0 has no room for an INVITE"
        );
        assert_eq!(
            hops.pick(now, Offer::Owed).unwrap().0,
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
        assert_eq!(
            hops.pick(Timestamp::from_millis(7999), Offer::Invite)
                .unwrap()
                .0,
            1
        );
        assert_eq!(hops.pick(until, Offer::Invite).unwrap().0, 0);
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
