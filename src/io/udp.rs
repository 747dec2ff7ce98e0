//! Datagram sockets of the driver: trains out (UDP GSO), joined datagrams in (UDP GRO).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use io_uring::types::RecvMsgOut;

use crate::base::surface::{Core, Input, LinkEvent, LinkId, LinkKind, TxBuf};

use super::driver::{Driver, StoreDriver};
use super::links::Phase;
use super::listen::DatagramSocket;
use super::ring::Completion;
use super::sys::Run;

/// Most datagrams of one train. More brought nothing and some drivers cap there.
const TRAIN_DATAGRAMS_MAX: usize = 16;
/// Most octets of one train: what an IP packet can hold, less headers.
const TRAIN_BYTES_MAX: u32 = 65_000;
/// Largest datagram that may travel in a train: it must fit the path unfragmented.
const TRAIN_SEGMENT_BYTES_MAX: u32 = 1_452;
/// Buffers of datagrams in flight before a socket takes no more.
const TRAINS_IN_FLIGHT_MAX: u32 = 64;

impl<C: Core, S: StoreDriver> Driver<C, S> {
    pub(super) fn open_datagram_socket(&mut self, socket: DatagramSocket) {
        let local = socket.address;
        let kind = LinkKind::SipUdp;
        let id = self
            .links
            .insert(kind, Phase::Open, socket.fd, local)
            .expect("the first links of a driver are within its bound");
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
            let group = completion.token.kind.group();
            self.counters.rx_bytes += len as u64;
            let message = self.ring.received_datagram(group, buffer, len);
            let taken = message.filter(|message| !message.is_payload_truncated());
            let source = taken
                .as_ref()
                .and_then(|message| address(message.name_data()));
            if let (Some(message), Some(source)) = (taken, source) {
                let payload = message.payload_data();
                for bytes in payload.chunks(segment(&message).unwrap_or(payload.len()).max(1)) {
                    self.counters.rx_datagrams += 1;
                    let input = Input::Datagram {
                        link: id,
                        source,
                        bytes,
                    };
                    self.core.handle(self.now, input);
                }
            } else {
                self.counters.datagrams_lost += 1;
            }
        }
        if !completion.more {
            if let Some(link) = self.links.lookup(id) {
                link.receiving = false;
            }
            self.arm_receive(id);
        }
    }

    pub(super) fn send_datagrams(&mut self, id: LinkId, buffer: TxBuf) {
        let mut runs = core::mem::take(&mut self.runs);
        runs.clear();
        let train_max = if self.options.trains {
            TRAIN_DATAGRAMS_MAX
        } else {
            1
        };
        split_runs(&buffer.cuts, train_max, &mut runs);
        let link = self.links.lookup(id);
        if let (Some(link), Some(destination), false) = (link, buffer.destination, runs.is_empty())
        {
            assert_eq!(
                buffer.cuts.last().copied(),
                u32::try_from(buffer.bytes.len()).ok(),
                "the last cut is the end of the buffer"
            );
            self.trains_in_flight += 1;
            self.ring
                .send_train(link.fd(), id.slot, buffer, destination.into(), &runs);
        } else {
            self.pool.put(buffer);
        }
        self.runs = runs;
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
        let (run, slot) = self.ring.train_run(index, number);
        match u64::try_from(completion.result) {
            Ok(octets) => {
                self.counters.tx_bytes += octets;
                self.counters.tx_datagrams += datagrams(run);
            }
            Err(_) if run.segment > 0 => self.retry_as_singles(index, slot, run),
            Err(_) => self.counters.datagrams_lost += 1,
        }
        if let Some(buffer) = self.ring.finish_run(index) {
            self.trains_in_flight -= 1;
            self.pool.put(buffer);
        }
    }

    /// The path takes no trains: sends this one's datagrams each by itself, and no more trains.
    fn retry_as_singles(&mut self, index: u32, slot: u32, run: Run) {
        self.options.trains = false;
        let mut singles = core::mem::take(&mut self.runs);
        singles.clear();
        let mut start = run.start;
        for &end in self.ring.train_cuts(index) {
            if end > run.start && end <= run.end {
                let segment = 0;
                singles.push(Run {
                    start,
                    end,
                    segment,
                });
                start = end;
            }
        }
        if let Some((_, link)) = self.links.at(slot) {
            for &single in &singles {
                self.ring.push_run(link.fd(), index, single);
            }
        }
        self.runs = singles;
    }
}

/// How many datagrams a run holds.
fn datagrams(run: Run) -> u64 {
    let octets = u64::from(run.end - run.start);
    match run.segment {
        0 => 1,
        segment => octets.div_ceil(u64::from(segment)),
    }
}

/// Groups datagrams that end at `cuts` into runs of equal size, the last of a run possibly shorter.
fn split_runs(cuts: &[u32], train_max: usize, out: &mut Vec<Run>) {
    let mut start = 0;
    let mut rest = cuts;
    while let Some((&first, more)) = rest.split_first() {
        let size = first - start;
        let mut end = first;
        let mut count = 1;
        if size > 0 && size <= TRAIN_SEGMENT_BYTES_MAX {
            for &cut in more {
                let next = cut - end;
                let fits = count < train_max && cut - start <= TRAIN_BYTES_MAX;
                if !fits || next > size || next == 0 {
                    break;
                }
                end = cut;
                count += 1;
                if next < size {
                    break;
                }
            }
        }
        let segment = if count > 1 {
            u16::try_from(size).unwrap_or(0)
        } else {
            0
        };
        if end > start {
            out.push(Run {
                start,
                end,
                segment,
            });
        }
        start = end;
        rest = &rest[count..];
    }
}

/// The size of the joined datagrams, if the kernel joined any: the value of `UDP_GRO`.
fn segment(message: &RecvMsgOut<'_>) -> Option<usize> {
    control_value(message.control_data(), libc::SOL_UDP, libc::UDP_GRO)
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
fn address(name: &[u8]) -> Option<SocketAddr> {
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
mod tests {
    use super::*;

    fn runs(cuts: &[u32], max: usize) -> Vec<(u32, u32, u16)> {
        let mut out = Vec::new();
        split_runs(cuts, max, &mut out);
        out.iter()
            .map(|run| (run.start, run.end, run.segment))
            .collect()
    }

    #[test]
    fn equal_datagrams_travel_together_and_a_shorter_one_ends_the_train() {
        assert_eq!(runs(&[100, 200, 300], 16), [(0, 300, 100)]);
        assert_eq!(
            runs(&[100, 200, 250, 350], 16),
            [(0, 250, 100), (250, 350, 0)]
        );
        assert_eq!(runs(&[100, 250], 16), [(0, 100, 0), (100, 250, 0)]);
        assert_eq!(runs(&[100, 200, 300], 2), [(0, 200, 100), (200, 300, 0)]);
        assert_eq!(runs(&[100, 200], 1), [(0, 100, 0), (100, 200, 0)]);
        assert_eq!(runs(&[3000, 6000], 16), [(0, 3000, 0), (3000, 6000, 0)]);
        assert_eq!(runs(&[], 16), []);
    }

    #[test]
    fn runs_cover_every_octet_once() {
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..2000 {
            let mut cuts = Vec::new();
            let mut end = 0;
            for _ in 0..state % 40 {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                end += [300, 300, 300, 299, 301, 1500][(state % 6) as usize];
                cuts.push(end);
            }
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let mut expected = 0;
            let mut count = 0;
            for (start, stop, segment) in runs(&cuts, 16) {
                assert_eq!(start, expected);
                count += datagrams(Run {
                    start,
                    end: stop,
                    segment,
                });
                expected = stop;
            }
            assert_eq!(expected, end);
            assert_eq!(count, cuts.len() as u64);
        }
    }

    #[test]
    fn reads_addresses_as_the_kernel_writes_them() {
        for text in ["192.0.2.7:5060", "[2001:db8::1]:5062"] {
            let expected: SocketAddr = text.parse().unwrap();
            let mut bytes = Vec::new();
            match expected {
                SocketAddr::V4(v4) => {
                    bytes.extend(u16::try_from(libc::AF_INET).unwrap().to_ne_bytes());
                    bytes.extend(v4.port().to_be_bytes());
                    bytes.extend(v4.ip().octets());
                }
                SocketAddr::V6(v6) => {
                    bytes.extend(u16::try_from(libc::AF_INET6).unwrap().to_ne_bytes());
                    bytes.extend(v6.port().to_be_bytes());
                    bytes.extend([0; 4]);
                    bytes.extend(v6.ip().octets());
                    bytes.extend([0; 4]);
                }
            }
            assert_eq!(address(&bytes), Some(expected));
            assert_eq!(address(&bytes[..7]), None);
        }
    }
}
