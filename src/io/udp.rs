//! Datagram sockets of the driver: trains out (UDP GSO), joined datagrams in (UDP GRO), and sockets of
//! their own for peers that get many ([`connected`]).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;

use crate::base::surface::{Core, Input, LinkEvent, LinkId, LinkKind, TxBuf};

use super::driver::{Driver, StoreDriver};
use super::links::Phase;
use super::listen::DatagramSocket;
use super::recorder::Event;
use super::ring::Completion;
use super::sys;
use super::trains::{Exit, Run, RunLimits, TRAIN_DATAGRAMS_MAX, refuses_trains};

pub(super) use connected::SocketGroup;

mod connected;

/// Buffers of datagrams in flight before a socket takes no more.
const TRAINS_IN_FLIGHT_MAX: u32 = 64;

impl<C: Core, S: StoreDriver> Driver<C, S> {
    pub(super) fn open_datagram_socket(&mut self, socket: DatagramSocket) {
        let (local, sharing) = (socket.address, socket.sharing);
        if self.options.train_segment_bytes_max > 0 {
            // Without it datagrams come one by one.
            let _ = sys::enable_gro(socket.fd.as_fd());
        }
        let kind = LinkKind::SipUdp;
        let id = self
            .links
            .insert(kind, Phase::Open, socket.fd, local)
            .expect("the first links of a driver are within its bound");
        self.add_socket_group(id, (local, sharing));
        self.arm_receive(id);
        let event = LinkEvent::Opened {
            kind,
            peer: local,
            local,
        };
        self.tell(id, event);
    }

    pub(super) fn on_datagrams(&mut self, completion: &Completion) {
        let id = LinkId {
            slot: completion.token.index,
            generation: completion.token.generation,
        };
        if let (Some(buffer), Ok(len)) = (completion.buffer, usize::try_from(completion.result)) {
            self.counters.rx_bytes += len as u64;
            let link = self.bound_socket(id);
            if let Some(received) = self.ring.received_datagrams(buffer, len) {
                let source = received.source;
                let before = self.counters.rx_datagrams;
                for bytes in received.payload.chunks(received.segment.max(1)) {
                    self.counters.rx_datagrams += 1;
                    let event = Event {
                        at: self.now,
                        link,
                        kind: LinkKind::SipUdp,
                        peer: source,
                        outgoing: false,
                    };
                    self.recorder.record(&event, bytes);
                    let input = Input::Datagram {
                        link,
                        source,
                        bytes,
                    };
                    self.core.handle(self.now, input);
                }
                let joined = self.counters.rx_datagrams - before;
                if joined > 1 {
                    self.counters.rx_trains += 1;
                    self.counters.rx_train_datagrams += joined;
                }
            } else {
                self.counters.datagrams_lost += 1;
                self.counters.datagrams_cut += 1;
            }
        }
        if !completion.more {
            if let Some(link) = self.links.lookup(id) {
                link.receiving = false;
            }
            if !self.close_connected(id) {
                self.arm_receive(id);
            }
        }
        self.bound_received(id);
    }

    /// Sends a buffer of the bound socket `id`.
    pub(super) fn send_datagrams(&mut self, id: LinkId, buffer: TxBuf) {
        if let (Some(destination), false) = (buffer.destination, buffer.cuts.is_empty()) {
            assert_eq!(
                buffer.cuts.last().copied(),
                u32::try_from(buffer.bytes.len()).ok(),
                "the last cut is the end of the buffer"
            );
            if self.recorder.is_on() {
                let event = Event {
                    at: self.now,
                    link: id,
                    kind: LinkKind::SipUdp,
                    peer: destination,
                    outgoing: true,
                };
                let mut start = 0;
                for &end in &buffer.cuts {
                    let datagram = &buffer.bytes[start..end as usize];
                    self.recorder.record(&event, datagram);
                    start = end as usize;
                }
            }
            let is_refused = self.refusals.holds(destination, self.now);
            let limits = RunLimits {
                datagrams: TRAIN_DATAGRAMS_MAX,
                segment_bytes: if is_refused {
                    0
                } else {
                    self.options.train_segment_bytes_max
                },
            };
            self.sorter.sort(&buffer.cuts, limits);
            self.trains_in_flight += 1;
            let exit = self.exit(id, destination, bounded(buffer.cuts.len()));
            self.runs_begin(exit, bounded(self.sorter.runs.len()));
            let (_, link) = self.links.at(exit.slot).expect("the socket is open");
            let sorted = (&self.sorter.parts[..], &self.sorter.runs[..]);
            self.ring
                .send_train(link.fd(), exit, buffer, destination, sorted);
        } else {
            self.pool.put(buffer);
        }
        self.sent_datagrams.push(id);
    }

    /// Lets sockets take a further buffer while the last ones are on their way; true if any may.
    pub(super) fn release_datagram_sockets(&mut self) -> bool {
        if self.sent_datagrams.is_empty() || self.trains_in_flight >= TRAINS_IN_FLIGHT_MAX {
            return false;
        }
        while let Some(id) = self.sent_datagrams.pop() {
            self.tell(id, LinkEvent::Sent);
        }
        true
    }

    pub(super) fn on_train(&mut self, completion: &Completion) {
        let (index, number) = (completion.token.index, completion.token.generation);
        let (run, exit) = self.ring.train_run(index, number);
        let count = u64::from(run.count);
        match u64::try_from(completion.result) {
            Ok(octets) => {
                self.counters.tx_bytes += octets;
                self.counters.tx_datagrams += count;
                self.counters.trains.record(count);
                self.counters.tx_connected_datagrams += u64::from(exit.is_connected) * count;
                if count > 1 {
                    self.counters.tx_trains += 1;
                    self.counters.tx_train_datagrams += count;
                    self.counters.tx_trains_full += u64::from(run.count == TRAIN_DATAGRAMS_MAX);
                }
            }
            Err(_) if exit.is_connected => self.repeat_unconnected(index, exit, run),
            Err(_) if count > 1 && refuses_trains(-completion.result) => {
                self.retry_as_singles(index, exit, run);
            }
            Err(_) => {
                self.counters.datagrams_lost += count;
                self.counters.datagrams_unsent += count;
            }
        }
        self.run_ends(exit);
        if let Some(buffer) = self.ring.finish_run(index) {
            self.trains_in_flight -= 1;
            self.pool.put(buffer);
        }
    }

    /// The path takes no trains: sends this one's datagrams each by itself, and so for a while all
    /// that go there.
    fn retry_as_singles(&mut self, index: u32, exit: Exit, run: Run) {
        let peer = self.ring.train_destination(index);
        if peer.is_some_and(|peer| self.refusals.note(peer, self.now)) {
            self.counters.train_fallbacks += 1;
        }
        for first in run.first..run.first + run.count {
            let single = Run {
                first,
                count: 1,
                segment: 0,
            };
            self.push_run(exit, index, single);
        }
    }

    /// Sends one more part of a train that is on its way.
    fn push_run(&mut self, exit: Exit, index: u32, run: Run) {
        self.runs_begin(exit, 1);
        let (_, link) = self.links.at(exit.slot).expect("the socket is open");
        self.ring.push_run(link.fd(), exit, index, run);
    }
}

/// A number of datagrams of one buffer.
fn bounded(number: usize) -> u32 {
    u32::try_from(number).expect("a buffer has fewer than 2^32 octets")
}

/// The size of the joined datagrams, if the kernel joined any: the value of `UDP_GRO` in what it wrote
/// as control data.
pub(super) fn segment(control: &[u8]) -> Option<usize> {
    control_value(control, libc::SOL_UDP, libc::UDP_GRO)
}

/// The `int` of the first control message, if it is of this level and kind.
fn control_value(control: &[u8], level: i32, kind: i32) -> Option<usize> {
    let at = |range: core::ops::Range<usize>| -> Option<i32> {
        let bytes = control.get(range)?.try_into().ok()?;
        Some(i32::from_ne_bytes(bytes))
    };
    let matches = at(8..12)? == level && at(12..16)? == kind;
    let value = usize::try_from(at(16..20)?).ok()?;
    (matches && value > 0).then_some(value)
}

/// The socket address in `name` as the kernel writes it.
pub(super) fn address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(name.get(0..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(octets), port).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(name.get(24..28)?.try_into().ok()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
