use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::base::surface::{LinkCommand, MeshFrame, NameQuery, StoreBatch, Transmit};
use crate::base::time::Timestamp;
use crate::io::backend::Backend;
use crate::io::driver::{DriverOptions, NullStore, Shared};
use crate::io::listen::Plan;
use crate::io::mesh::Mesh;
use crate::io::names::{self, Answers};
use crate::io::ring::REAP_BYTES;
use crate::io::stats::DriverStats;
use crate::io::stores::StoreDriver;

use super::*;

/// Sends what it is told to, each entry as one buffer, and keeps what comes.
#[derive(Default)]
pub(in crate::io) struct Exchange {
    pub(in crate::io) link: Option<LinkId>,
    pub(in crate::io) out: VecDeque<(SocketAddr, Vec<Vec<u8>>)>,
    pub(super) got: Vec<(SocketAddr, Vec<u8>)>,
    pub(in crate::io) queries: VecDeque<NameQuery>,
}

impl Core for Exchange {
    fn handle(&mut self, _now: Timestamp, input: Input<'_>) {
        match input {
            Input::Datagram {
                link,
                source,
                bytes,
            } => {
                assert_eq!(Some(link), self.link, "the core knows one socket");
                self.got.push((source, bytes.to_vec()));
            }
            Input::Link { link, .. } => {
                assert!(self.link.is_none_or(|known| known == link));
                self.link = Some(link);
            }
            Input::Bytes { .. }
            | Input::ConnectFailed { .. }
            | Input::Drain
            | Input::Mesh(_)
            | Input::Resolved { .. }
            | Input::Stored(_)
            | Input::Wall(_) => {}
        }
    }

    fn advance(&mut self, _now: Timestamp) {}

    fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    fn poll_transmit(&mut self, buffer: &mut TxBuf) -> Option<Transmit> {
        let link = self.link?;
        let (destination, datagrams) = self.out.pop_front()?;
        for datagram in datagrams {
            buffer.bytes.extend_from_slice(&datagram);
            buffer.cuts.push(u32::try_from(buffer.bytes.len()).unwrap());
        }
        buffer.destination = Some(destination);
        Some(Transmit { link })
    }

    fn poll_store(&mut self, _batch: &mut StoreBatch) -> bool {
        false
    }

    fn poll_mesh(&mut self) -> Option<MeshFrame> {
        None
    }

    fn poll_link(&mut self) -> Option<LinkCommand> {
        None
    }

    fn poll_query(&mut self) -> Option<NameQuery> {
        self.queries.pop_front()
    }

    fn room(&self) -> bool {
        true
    }

    fn is_drained(&self) -> bool {
        self.out.is_empty()
    }
}

impl Exchange {
    /// Sends each of `bursts`, as datagrams of these sizes, to `peer`. Each datagram says its place.
    fn of_bursts(peer: &UdpSocket, bursts: &[Vec<u32>]) -> Self {
        let peer = peer.local_addr().unwrap();
        let datagrams = |burst: &Vec<u32>| {
            let datagram = |(place, &size): (u8, &u32)| vec![place; size as usize];
            (0..).zip(burst).map(datagram).collect()
        };
        Self {
            out: bursts
                .iter()
                .map(|burst| (peer, datagrams(burst)))
                .collect(),
            ..Self::default()
        }
    }
}

/// What both backends must do.
pub(in crate::io) const BOTH: [Backend; 2] = [Backend::IoUring, Backend::Mmsg];

/// One shard with a port of its own.
pub(in crate::io) const PLAN: Plan = Plan {
    shards: 1,
    sip_tcp: None,
    sip_udp: Some(ANY),
    shard_port_base: None,
    msrp: ANY,
};
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A driver of `core` with the datagram socket of the first shard of `plan`, and where that is.
pub(super) fn driver_of(
    backend: Backend,
    core: Exchange,
    plan: Plan,
    spoil: impl FnOnce(&DatagramSocket),
) -> (Driver<Exchange, NullStore>, SocketAddr) {
    driver_on(backend, core, NullStore::default(), plan, spoil)
}

/// The same with a store.
pub(in crate::io) fn driver_on<S: StoreDriver>(
    backend: Backend,
    core: Exchange,
    store: S,
    plan: Plan,
    spoil: impl FnOnce(&DatagramSocket),
) -> (Driver<Exchange, S>, SocketAddr) {
    let sockets = plan.bind().unwrap().remove(0);
    spoil(&sockets.sip_udp[0]);
    let address = sockets.sip_udp[0].address;
    let shared = Arc::new(Shared {
        mesh: Mesh::new(1).unwrap(),
        answers: Answers::new(1),
        stop: AtomicBool::new(false),
        asked: vec![AtomicBool::new(false)],
    });
    let asker = names::start(&shared, 1).unwrap().remove(0);
    let stats = Arc::new(DriverStats::default());
    let options = DriverOptions {
        backend,
        ..DriverOptions::default()
    };
    let driver = Driver::new(core, store, sockets, options, (shared, asker), stats);
    (driver.unwrap(), address)
}

/// Lets the kernel refuse trains on `socket`: it makes none where it may not compute checksums.
pub(super) fn refuse_trains(socket: BorrowedFd<'_>) {
    assert!(sys::options::set_int(
        socket,
        libc::SOL_SOCKET,
        libc::SO_NO_CHECK,
        1
    ));
}

/// What arrives of `bursts` as (octets, first octet), and the driver's counters.
fn deliver(
    backend: Backend,
    bursts: &[Vec<u32>],
    spoil: impl FnOnce(&DatagramSocket),
) -> (Vec<(usize, u8)>, crate::io::stats::Counters) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let (mut driver, _) = driver_of(backend, Exchange::of_bursts(&peer, bursts), PLAN, spoil);
    let expected = bursts.iter().map(Vec::len).sum::<usize>() as u64;
    for _ in 0..200 {
        driver.turn().unwrap();
        let counters = driver.counters;
        if counters.tx_datagrams + counters.datagrams_lost == expected {
            break;
        }
    }
    let mut got = Vec::new();
    let mut buffer = [0; 2048];
    for _ in 0..driver.counters.tx_datagrams {
        // A ring of this thread may interrupt the wait.
        let len = loop {
            match peer.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.unwrap(),
            }
        };
        assert!(buffer[..len].iter().all(|&octet| octet == buffer[0]));
        got.push((len, buffer[0]));
    }
    assert_eq!(driver.trains_in_flight, 0, "every buffer came back");
    (got, driver.counters)
}

#[test]
fn each_size_of_a_buffer_leaves_as_a_train_of_its_own() {
    for backend in BOTH {
        let bursts = [vec![500, 300, 500, 300, 500, 200]];
        let (mut got, counters) = deliver(backend, &bursts, |_| {});
        got.sort_unstable();
        assert_eq!(
            got,
            [(200, 5), (300, 1), (300, 3), (500, 0), (500, 2), (500, 4)]
        );
        assert_eq!((counters.tx_trains, counters.tx_train_datagrams), (2, 6));
        assert_eq!(counters.train_fallbacks, 0);
    }
}

#[test]
fn a_path_that_takes_no_trains_gets_their_datagrams_one_by_one_and_is_remembered() {
    let spoil = |socket: &DatagramSocket| refuse_trains(socket.fd.as_fd());
    let bursts = [vec![500, 300, 500, 300, 400], vec![500; 4]];
    for backend in BOTH {
        let (mut got, counters) = deliver(backend, &bursts, spoil);
        got.sort_unstable();
        let sizes: Vec<usize> = got.iter().map(|&(len, _)| len).collect();
        assert_eq!(sizes, [300, 300, 400, 500, 500, 500, 500, 500, 500]);
        assert_eq!((counters.tx_trains, counters.datagrams_lost), (0, 0));
        assert_eq!(counters.train_fallbacks, 1, "told once");
    }
}

/// Whatever the backend, a turn takes what came since the last one, as far as that is a turn's worth: a
/// burst goes through the socket's own buffer, which has room for a fifth of it at most.
#[test]
fn a_burst_comes_in_as_fast_as_turns_can_take_it() {
    const BURST: usize = 2000;
    const PER_TURN: usize = 32;
    const OCTETS: usize = 1400;
    // The kernel counts its own memory for each, 2 KiB and more, and doubles what was asked for.
    const SOCKET_OCTETS: i32 = 200_000;
    for backend in BOTH {
        let small = |socket: &DatagramSocket| {
            let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
            assert!(sys::options::set_int(
                socket.fd.as_fd(),
                level,
                option,
                SOCKET_OCTETS
            ));
        };
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut driver, address) = driver_of(backend, Exchange::default(), PLAN, small);
        for sent in 0..BURST {
            peer.send_to(&[b'x'; OCTETS], address).unwrap();
            if (sent + 1).is_multiple_of(PER_TURN) {
                let before = driver.core.got.len();
                driver.turn().unwrap();
                let taken = driver.core.got.len() - before;
                assert!(taken * OCTETS <= REAP_BYTES + OCTETS, "a turn is bounded");
            }
        }
        // What is left is in the socket's buffer, or was lost.
        for _ in 0..BURST {
            driver.turn().unwrap();
        }
        assert_eq!(driver.core.got.len(), BURST, "{backend:?}");
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
