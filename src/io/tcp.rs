//! Streams of the driver: accepting, connecting, receiving, sending, and the ways they end.

use core::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{Shutdown, shutdown};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::base::surface::{Core, Input, LinkEvent, LinkId, LinkKind, TxBuf};
use crate::base::time::Timestamp;

use super::driver::{Driver, StoreDriver};
use super::links::{Link, Phase, is_inbound};
use super::listen::ShardAddresses;
use super::recorder::Event;
use super::ring::{Completion, Kind, Token};
use super::sys;

/// Octets a peer must take within the limit of a stalled one: less is a trick to hold our memory.
const TAKEN_LEAST: u64 = 1024;

impl<C: Core, S: StoreDriver> Driver<C, S> {
    pub(super) fn on_accept(&mut self, completion: Completion) {
        let index = completion.token.index as usize;
        if !completion.more {
            // After an error (no descriptors, say) the next tick tries again.
            self.listeners[index].armed = false;
            if completion.result >= 0 {
                self.hurry_tick();
            }
        }
        let Some(fd) = completion.accepted else {
            return;
        };
        let listener = &self.listeners[index];
        let (kind, bound) = (listener.kind, listener.address);
        let socket = SockRef::from(&fd);
        let Some(peer) = socket.peer_addr().ok().and_then(|peer| peer.as_socket()) else {
            return; // Reset before we got here.
        };
        let local = if bound.ip().is_unspecified() {
            let own = socket.local_addr().ok();
            own.and_then(|own| own.as_socket()).unwrap_or(bound)
        } else {
            bound
        };
        let capped = self.links.is_capped(kind, peer);
        let Some(id) = self.links.insert(kind, Phase::Open, fd, peer) else {
            self.counters.refused += 1;
            self.counters.refused_of_source += u64::from(capped);
            return;
        };
        self.counters.accepted += 1;
        self.arm_receive(id);
        self.tell(id, LinkEvent::Opened { kind, peer, local });
    }

    pub(super) fn connect(&mut self, token: u64, kind: LinkKind, address: SocketAddr) {
        let link = open_stream(address, self.source.of(kind))
            .and_then(|fd| self.links.insert(kind, Phase::Connecting, fd, address));
        let Some(id) = link else {
            self.counters.connects_failed += 1;
            self.core.handle(self.now, Input::ConnectFailed { token });
            return;
        };
        self.links
            .set_deadline(id, self.now + self.options.connect_limit);
        let link = self.links.lookup(id).expect("just inserted");
        link.connect = token;
        link.sending = true;
        let operation = Token::new(Kind::Connect, id.slot, id.generation);
        self.ring.connect(link.fd(), operation, address);
    }

    pub(super) fn on_connect(&mut self, completion: &Completion) {
        let id = link_of(completion.token);
        let now = self.now;
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        link.sending = false;
        let (token, kind, peer) = (link.connect, link.kind, link.peer);
        if completion.result < 0 {
            self.links.release(id);
            self.counters.connects_failed += 1;
            self.core.handle(now, Input::ConnectFailed { token });
            return;
        }
        link.phase = Phase::Open;
        let local = SockRef::from(&link.fd()).local_addr().ok();
        let local = local.and_then(|local| local.as_socket()).unwrap_or(peer);
        self.links.set_deadline(id, Timestamp::NEVER);
        self.counters.connected += 1;
        self.arm_receive(id);
        let event = LinkEvent::Connected {
            token,
            kind,
            peer,
            local,
        };
        self.tell(id, event);
    }

    pub(super) fn on_bytes(&mut self, completion: &Completion) {
        let id = link_of(completion.token);
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        if !completion.more {
            link.receiving = false;
        }
        let (phase, kind, peer) = (link.phase, link.kind, link.peer);
        let octets = usize::try_from(completion.result).unwrap_or(0);
        if let (Some(buffer), true) = (completion.buffer, octets > 0) {
            self.counters.rx_bytes += octets as u64;
            if phase == Phase::Open && !link.close_wanted {
                let group = completion.token.kind.group();
                let bytes = self.ring.received(group, buffer, octets);
                let event = Event {
                    at: self.now,
                    link: id,
                    kind,
                    peer,
                    outgoing: false,
                };
                self.recorder.record(&event, bytes);
                self.core.handle(self.now, Input::Bytes { link: id, bytes });
            }
        }
        if completion.more {
            return;
        }
        // Any end but a fault is an end of buffers or of the kernel's patience: go on.
        // A receive that was stopped for a held link goes on when that is closed.
        let wanted = matches!(phase, Phase::Open | Phase::Leaving | Phase::Lingering);
        let stopped = completion.result == -libc::ECANCELED && wanted;
        if octets > 0 || completion.result == -libc::ENOBUFS || stopped {
            if self.links.lookup(id).is_some_and(|link| !link.held) {
                self.arm_receive(id);
            }
        } else {
            self.on_end_of_stream(id, completion.result);
        }
    }

    /// Stops reading from a stream, or goes on. The peer's last octet is then noticed late; its time
    /// is bounded by the core, which holds a link only while its own store is behind.
    pub(super) fn hold(&mut self, id: LinkId, held: bool) {
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        if link.phase != Phase::Open || link.held == held {
            return;
        }
        link.held = held;
        if held && link.receiving {
            let target = Token::new(Kind::Receive, id.slot, id.generation);
            self.ring.cancel(target, Token::ignored());
        } else if !held && !link.receiving {
            self.arm_receive(id);
        }
    }

    /// The peer sent its last octet (`result` 0), or the stream failed.
    fn on_end_of_stream(&mut self, id: LinkId, result: i32) {
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        match link.phase {
            Phase::Open if result == 0 && (is_inbound(link.kind) || link.sending) => {
                link.phase = Phase::HalfClosed;
                self.links.urgent += 1;
                self.links
                    .set_deadline(id, self.now + self.options.half_closed_limit);
                self.hurry_tick();
            }
            Phase::Open | Phase::HalfClosed => self.lose(id),
            Phase::Leaving => self.left(id, true),
            Phase::Lingering | Phase::Dying => {
                self.links.release(id);
            }
            Phase::Connecting | Phase::Free => {}
        }
    }

    pub(super) fn send_bytes(&mut self, id: LinkId, buffer: TxBuf) {
        let limit = self.now + self.options.stall_limit;
        let link = self.links.lookup(id).filter(|link| {
            matches!(link.phase, Phase::Open | Phase::HalfClosed) && !link.close_wanted
        });
        let Some(link) = link else {
            self.pool.put(buffer);
            return;
        };
        assert!(!link.sending, "the core sent twice without a Sent between");
        if buffer.bytes.is_empty() {
            self.pool.put(buffer);
            self.tell(id, LinkEvent::Sent);
            return;
        }
        link.sending = true;
        self.sends_in_flight += 1;
        let event = Event {
            at: self.now,
            link: id,
            kind: link.kind,
            peer: link.peer,
            outgoing: true,
        };
        self.recorder.record(&event, &buffer.bytes);
        let token = Token::new(Kind::Send, id.slot, id.generation);
        self.ring.send(link.fd(), token, buffer);
        if link.phase == Phase::Open {
            self.links.set_deadline(id, limit);
        }
    }

    pub(super) fn on_sent(&mut self, completion: &Completion) {
        let token = completion.token;
        let id = link_of(token);
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        let octets = usize::try_from(completion.result).unwrap_or(0);
        self.counters.tx_bytes += octets as u64;
        let alive = matches!(link.phase, Phase::Open | Phase::HalfClosed);
        if octets > 0 && alive && self.ring.send_rest(link.fd(), token, octets) {
            return; // A short send goes on.
        }
        link.sending = false;
        self.sends_in_flight -= 1;
        let phase = link.phase;
        let close_wanted = link.close_wanted;
        if let Some(buffer) = self.ring.take_sent(token.index) {
            self.pool.put(buffer);
        }
        match phase {
            Phase::Open | Phase::HalfClosed if octets == 0 => self.lose(id),
            Phase::Open | Phase::HalfClosed if close_wanted => self.finish(id),
            Phase::Open => {
                self.links.set_deadline(id, Timestamp::NEVER);
                self.tell(id, LinkEvent::Sent);
            }
            Phase::HalfClosed => self.tell(id, LinkEvent::Sent),
            Phase::Dying | Phase::Lingering => {
                self.links.release(id);
            }
            Phase::Connecting | Phase::Free | Phase::Leaving => {}
        }
    }

    /// The core wants the link closed; what is on its way goes out first.
    pub(super) fn close(&mut self, id: LinkId) {
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        match link.phase {
            Phase::Open | Phase::HalfClosed if link.sending => link.close_wanted = true,
            Phase::Open | Phase::HalfClosed if link.kind != LinkKind::SipUdp => self.finish(id),
            Phase::Open | Phase::HalfClosed => {} // A datagram socket lives as long as the shard.
            Phase::Connecting | Phase::Dying | Phase::Free | Phase::Leaving | Phase::Lingering => {}
        }
    }

    /// The core needs the link no more; its peer is to close it, and to remember the pair of ports. Where many wait
    /// for that already, their peers do not, and it is closed.
    pub(super) fn leave(&mut self, id: LinkId) {
        // Those that wait take no more than an eighth of the room for new ones.
        let options = &self.options;
        let most = options.leaving_max.min(options.connections_max / 8);
        let full = self.links.leaving >= most;
        let limit = self.now + self.options.leave_limit;
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        // What is not read from shows no end.
        if link.phase != Phase::Open || link.sending || !link.receiving || full {
            return self.close(id);
        }
        link.phase = Phase::Leaving;
        self.links.leaving += 1;
        self.links.set_deadline(id, limit);
        self.counters.closed += 1;
        self.tell(id, LinkEvent::Closed);
    }

    /// The peer of a link that was left to it closed it, or took too long for that.
    fn left(&mut self, id: LinkId, in_time: bool) {
        self.links.leaving -= 1;
        if in_time {
            self.counters.left += 1;
            self.links.release(id);
            return;
        }
        self.counters.left_overdue += 1;
        let linger = self.now + self.options.linger_limit;
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        link.phase = Phase::Lingering;
        let _ = shutdown(link.fd(), Shutdown::Write);
        self.links.set_deadline(id, linger);
    }

    /// Ends our side in good order and tells the core; the peer may take its time.
    fn finish(&mut self, id: LinkId) {
        let linger = self.now + self.options.linger_limit;
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        let half_closed = link.phase == Phase::HalfClosed;
        link.phase = Phase::Lingering;
        // A peer that has ended its side needs no notice beforehand: closing tells it.
        if link.receiving || !half_closed {
            let _ = shutdown(link.fd(), Shutdown::Write);
        }
        // A held link is not read from. Closed with unread octets it would end with a reset, which takes
        // with it what is still queued for the peer.
        link.held = false;
        if !link.receiving && !half_closed {
            self.arm_receive(id);
        }
        self.leave_half_closed(half_closed);
        self.links.set_deadline(id, linger);
        self.counters.closed += 1;
        self.tell(id, LinkEvent::Closed);
        self.links.release(id);
    }

    /// The link is broken: ends both sides and tells the core.
    fn lose(&mut self, id: LinkId) {
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        let half_closed = link.phase == Phase::HalfClosed;
        link.phase = Phase::Dying;
        if link.receiving || link.sending {
            let _ = shutdown(link.fd(), Shutdown::Both);
        }
        self.leave_half_closed(half_closed);
        self.links.set_deadline(id, Timestamp::NEVER);
        self.counters.closed += 1;
        self.tell(id, LinkEvent::Closed);
        self.links.release(id);
    }

    fn leave_half_closed(&mut self, was: bool) {
        if was {
            self.links.urgent -= 1;
        }
    }

    /// Deals with links whose deadline has passed.
    pub(super) fn sweep(&mut self) {
        let mut due = core::mem::take(&mut self.due);
        self.links.due(self.now, &mut due);
        for slot in due.drain(..) {
            self.overdue(slot);
        }
        self.due = due;
    }

    fn overdue(&mut self, slot: u32) {
        let Some((id, link)) = self.links.at(slot) else {
            return;
        };
        if link.phase == Phase::Open && link.sending && !link.close_wanted && goes_on(link) {
            let limit = self.now + self.options.stall_limit;
            self.links.set_deadline(id, limit);
            return;
        }
        match link.phase {
            Phase::Connecting => {
                let target = Token::new(Kind::Connect, id.slot, id.generation);
                self.links.set_deadline(id, Timestamp::NEVER);
                self.ring.cancel(target, Token::ignored());
            }
            Phase::Open => {
                self.counters.stalled += 1;
                self.lose(id);
            }
            Phase::HalfClosed if link.sending && !link.close_wanted => {
                // It still takes what we owe: give it the time a stalled peer gets.
                link.close_wanted = true;
                self.links
                    .set_deadline(id, self.now + self.options.stall_limit);
            }
            Phase::HalfClosed if link.sending => {
                self.counters.stalled += 1;
                self.lose(id);
            }
            Phase::HalfClosed => self.finish(id),
            Phase::Leaving => self.left(id, false),
            Phase::Lingering => {
                let _ = shutdown(link.fd(), Shutdown::Both);
                self.links.set_deadline(id, Timestamp::NEVER);
            }
            Phase::Dying | Phase::Free => {}
        }
    }

    pub(super) fn tell(&mut self, link: LinkId, event: LinkEvent) {
        self.core.handle(self.now, Input::Link { link, event });
    }
}

/// Addresses our own connections come from: those we listen on, so that peers know us by them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sources {
    msrp: Option<IpAddr>,
    sip: Option<IpAddr>,
}

impl Sources {
    pub(super) fn new(addresses: &ShardAddresses) -> Self {
        // A loopback listener is a test or sits behind a relay; it reaches nobody from there.
        let usable = |address: SocketAddr| {
            let ip = address.ip();
            (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
        };
        Self {
            msrp: usable(addresses.msrp),
            sip: addresses.sip_tcp.and_then(usable),
        }
    }

    const fn of(&self, kind: LinkKind) -> Option<IpAddr> {
        match kind {
            LinkKind::MsrpInbound | LinkKind::MsrpOutbound => self.msrp,
            LinkKind::SipInbound | LinkKind::SipOutbound | LinkKind::SipUdp => self.sip,
        }
    }
}

/// Whether the peer took a little since this was asked last; the first time it has the benefit of the doubt.
/// A send of many octets to a slow peer ends late, and nothing else tells that it moves.
fn goes_on(link: &mut Link) -> bool {
    let Some(now) = sys::acknowledged(link.fd()) else {
        return false;
    };
    let before = link.acknowledged.replace(now);
    before.is_none_or(|before| now.saturating_sub(before) >= TAKEN_LEAST)
}

fn open_stream(address: SocketAddr, source: Option<IpAddr>) -> Option<OwnedFd> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket.set_tcp_nodelay(true).ok()?;
    if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        // Without it the bind takes a port of its own, which works while there are enough.
        let _ = sys::defer_port(socket.as_fd());
        socket.bind(&SocketAddr::new(source, 0).into()).ok()?;
    }
    Some(socket.into())
}

const fn link_of(token: Token) -> LinkId {
    LinkId {
        slot: token.index,
        generation: token.generation,
    }
}
