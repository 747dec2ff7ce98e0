//! The driver with an echoing core: what goes in comes out, whatever the peers do.
#![expect(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "the peers of these tests are plain blocking threads with small numbers and must work"
)]

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use volley::admin::ask::{AskError, Line, Questions};
use volley::base::surface::{
    Core, Input, LinkCommand, LinkEvent, LinkId, LinkKind, MeshBody, MeshFrame, StoreBatch,
    StoreTicket, Transmit, TxBuf,
};
use volley::base::time::Timestamp;
use volley::io::backend::Backend;
use volley::io::driver::DriverOptions;
use volley::io::host::{Host, HostConfig, Storeless};
use volley::shard::questions::Question;

const PATIENCE: Duration = Duration::from_secs(8);

/// More than the receive buffer of a peer.
const MUCH: usize = 1 << 20;

/// What the tests see of a core from outside.
#[derive(Debug, Default)]
struct Seen {
    opened: AtomicU64,
    connected: AtomicU64,
    connect_failed: AtomicU64,
    closed: AtomicU64,
    stored: AtomicU64,
    wall: AtomicU64,
    shut: AtomicBool,
}

/// This file is compiled once for each backend.
fn backend() -> Backend {
    if module_path!().ends_with("_mmsg") {
        Backend::Mmsg
    } else {
        Backend::IoUring
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Bytes come back at once.
    Echo,
    /// Bytes cross to the next shard and come back from there.
    Mesh,
    /// Bytes come back, then the link is closed.
    EchoAndClose,
    /// Bytes come back, then the link is left to the peer.
    EchoAndLeave,
    /// Reading stops, much is sent, then the link is closed.
    HoldAndClose,
    /// Bytes come back once a store operation on their behalf has finished.
    Store,
}

#[derive(Debug, Default)]
struct Out {
    bytes: Vec<u8>,
    busy: bool,
    close: bool,
    leave: bool,
}

struct Echo {
    manner: Manner,
    shard: u8,
    seen: Arc<Seen>,
    outs: BTreeMap<LinkId, Out>,
    datagrams: VecDeque<(LinkId, SocketAddr, Vec<u8>)>,
    datagram_busy: bool,
    frames: VecDeque<MeshFrame>,
    commands: VecDeque<LinkCommand>,
    tickets: u64,
    waiting: VecDeque<(LinkId, Vec<u8>)>,
    unsent: usize,
    draining: bool,
}

impl Echo {
    fn new(manner: Manner, shard: u8, seen: Arc<Seen>, connect: Option<SocketAddr>) -> Self {
        let commands = connect.map(|address| LinkCommand::Connect {
            token: 7,
            kind: LinkKind::SipOutbound,
            address,
        });
        Self {
            manner,
            shard,
            seen,
            outs: BTreeMap::new(),
            datagrams: VecDeque::new(),
            datagram_busy: false,
            frames: VecDeque::new(),
            commands: commands.into_iter().collect(),
            tickets: 0,
            waiting: VecDeque::new(),
            unsent: 0,
            draining: false,
        }
    }

    fn say(&mut self, link: LinkId, bytes: &[u8]) {
        if let Some(out) = self.outs.get_mut(&link) {
            out.bytes.extend_from_slice(bytes);
        }
    }

    fn on_bytes(&mut self, link: LinkId, bytes: &[u8]) {
        assert!(self.outs.contains_key(&link), "bytes of an open link only");
        match self.manner {
            Manner::Echo => self.say(link, bytes),
            Manner::EchoAndClose => {
                self.say(link, bytes);
                self.outs.get_mut(&link).unwrap().close = true;
            }
            Manner::EchoAndLeave => {
                self.say(link, bytes);
                self.outs.get_mut(&link).unwrap().leave = true;
            }
            Manner::HoldAndClose => {
                let out = self.outs.get_mut(&link).unwrap();
                if !out.close {
                    out.close = true;
                    out.bytes = pattern(9, MUCH);
                    self.commands
                        .push_back(LinkCommand::Hold { link, held: true });
                }
            }
            Manner::Mesh => self.frames.push_back(MeshFrame {
                to: 1 - self.shard,
                from: self.shard,
                body: MeshBody::Sip {
                    link,
                    kind: LinkKind::SipInbound,
                    source: SocketAddr::from(([127, 0, 0, 1], 1)),
                    bytes: bytes.to_vec(),
                },
            }),
            Manner::Store => self.waiting.push_back((link, bytes.to_vec())),
        }
    }

    fn on_link(&mut self, link: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Opened { kind, .. } => {
                if kind != LinkKind::SipUdp {
                    self.seen.opened.fetch_add(1, Ordering::Relaxed);
                    assert!(self.outs.insert(link, Out::default()).is_none());
                }
            }
            LinkEvent::Connected { token, .. } => {
                assert_eq!(token, 7);
                self.seen.connected.fetch_add(1, Ordering::Relaxed);
                let out = Out {
                    bytes: b"hello".to_vec(),
                    ..Out::default()
                };
                self.outs.insert(link, out);
            }
            LinkEvent::Sent => match self.outs.get_mut(&link) {
                Some(out) => {
                    assert!(out.busy, "one Sent for one buffer");
                    out.busy = false;
                    if out.leave {
                        self.commands.push_back(LinkCommand::Leave { link });
                    }
                }
                None => self.datagram_busy = false,
            },
            LinkEvent::Closed => {
                self.seen.closed.fetch_add(1, Ordering::Relaxed);
                assert!(self.outs.remove(&link).is_some(), "one Closed per link");
            }
        }
    }

    fn on_frame(&mut self, frame: &MeshFrame) {
        assert_eq!(frame.to, self.shard);
        match &frame.body {
            MeshBody::Sip { link, bytes, .. } => self.frames.push_back(MeshFrame {
                to: frame.from,
                from: self.shard,
                body: MeshBody::Send {
                    link: *link,
                    destination: None,
                    last: false,
                    bytes: bytes.clone(),
                },
            }),
            MeshBody::Send { link, bytes, .. } => self.say(*link, bytes),
        }
    }
}

impl Core for Echo {
    fn handle(&mut self, _now: Timestamp, input: Input<'_>) {
        match input {
            Input::Bytes { link, bytes } => {
                assert!(!bytes.is_empty());
                assert!(self.room(), "no bytes without room");
                self.on_bytes(link, bytes);
            }
            Input::Datagram {
                link,
                source,
                bytes,
            } => self.datagrams.push_back((link, source, bytes.to_vec())),
            Input::Link { link, event } => self.on_link(link, event),
            Input::ConnectFailed { token } => {
                assert_eq!(token, 7);
                self.seen.connect_failed.fetch_add(1, Ordering::Relaxed);
            }
            Input::Stored(done) => {
                for _ in &done.stored {
                    self.seen.stored.fetch_add(1, Ordering::Relaxed);
                    let (link, bytes) = self.waiting.pop_front().unwrap();
                    self.say(link, &bytes);
                    self.unsent -= 1;
                }
            }
            Input::Resolved { .. } => {}
            Input::Mesh(frame) => self.on_frame(frame),
            Input::Wall(wall) => self.seen.wall.store(wall.0, Ordering::Relaxed),
            Input::Drain => self.draining = true,
        }
    }

    fn advance(&mut self, _now: Timestamp) {}

    fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    fn poll_transmit(&mut self, buffer: &mut TxBuf) -> Option<Transmit> {
        if !self.datagram_busy
            && let Some((link, source, _)) = self.datagrams.front()
        {
            let (link, source) = (*link, *source);
            while let Some((_, next, bytes)) = self.datagrams.front()
                && *next == source
            {
                buffer.bytes.extend_from_slice(bytes);
                buffer.cuts.push(buffer.bytes.len() as u32);
                self.datagrams.pop_front();
            }
            buffer.destination = Some(source);
            self.datagram_busy = true;
            return Some(Transmit { link });
        }
        for (&link, out) in &mut self.outs {
            if !out.busy && !out.bytes.is_empty() {
                buffer.bytes.append(&mut out.bytes);
                out.busy = true;
                if out.close {
                    self.commands.push_back(LinkCommand::Close { link });
                }
                return Some(Transmit { link });
            }
        }
        None
    }

    fn poll_store(&mut self, batch: &mut StoreBatch) -> bool {
        while self.unsent < self.waiting.len() {
            self.unsent += 1;
            self.tickets += 1;
            batch.bytes.push(0);
            batch.appends.push((StoreTicket(self.tickets), 1));
        }
        !batch.appends.is_empty()
    }

    fn poll_mesh(&mut self) -> Option<MeshFrame> {
        self.frames.pop_front()
    }

    fn poll_link(&mut self) -> Option<LinkCommand> {
        self.commands.pop_front()
    }

    fn room(&self) -> bool {
        !self.seen.shut.load(Ordering::Relaxed)
    }

    fn is_drained(&self) -> bool {
        self.draining
    }
}

struct Running {
    host: Host,
    seen: Arc<Seen>,
}

impl Running {
    fn start(shards: usize, manner: Manner) -> Self {
        Self::start_with(shards, manner, DriverOptions::default(), None)
    }

    fn start_with(
        shards: usize,
        manner: Manner,
        driver: DriverOptions,
        connect: Option<SocketAddr>,
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let driver = DriverOptions {
            backend: backend(),
            ..driver
        };
        let config = HostConfig {
            shards,
            pin: None,
            sip_tcp: Some(any),
            sip_udp: Some(any),
            shard_port_base: Some(0),
            msrp: any,
            driver,
        };
        let seen = Arc::new(Seen::default());
        let cores = Arc::clone(&seen);
        let factory = Storeless(move |addresses: &volley::io::listen::ShardAddresses| {
            Echo::new(manner, addresses.shard, Arc::clone(&cores), connect)
        });
        let host = Host::start(&config, factory).unwrap();
        Self { host, seen }
    }

    fn tcp(&self) -> TcpStream {
        let address = self.host.addresses()[0].shared_sip_tcp.unwrap();
        stream(address)
    }

    fn wait(&self, what: &str, until: impl Fn(&Seen) -> bool) {
        let start = Instant::now();
        while !until(&self.seen) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", self.seen);
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(self) {
        let start = Instant::now();
        self.host.stop_handle().stop();
        self.host.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(3), "a quick stop");
    }
}

fn stream(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn pattern(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

fn expect_echo(stream: &mut TcpStream, sent: &[u8]) {
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == sent, "the echo differs");
}

#[test]
fn echoes_on_many_connections_at_once() {
    let running = Running::start(1, Manner::Echo);
    let mut streams: Vec<_> = (0..300).map(|_| running.tcp()).collect();
    for round in 0..4 {
        for (seed, stream) in (0..).zip(&mut streams) {
            stream.write_all(&pattern(seed + round, 3000)).unwrap();
        }
        for (seed, stream) in (0..).zip(&mut streams) {
            expect_echo(stream, &pattern(seed + round, 3000));
        }
    }
    assert_eq!(running.seen.opened.load(Ordering::Relaxed), 300);
    assert!(running.seen.wall.load(Ordering::Relaxed) > 1_600_000_000_000);
    drop(streams);
    running.wait("all closed", |seen| {
        seen.closed.load(Ordering::Relaxed) == 300
    });
    running.stop();
}

#[test]
fn echoes_one_octet_at_a_time() {
    let running = Running::start(1, Manner::Echo);
    let mut stream = running.tcp();
    for octet in pattern(5, 400) {
        stream.write_all(&[octet]).unwrap();
        expect_echo(&mut stream, &[octet]);
    }
    running.stop();
}

#[test]
fn a_half_closed_peer_gets_its_answer_and_then_the_end() {
    let running = Running::start(1, Manner::Echo);
    let mut stream = running.tcp();
    let sent = pattern(9, 50_000);
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == sent);
    running.wait("closed", |seen| seen.closed.load(Ordering::Relaxed) == 1);
    running.stop();
}

#[test]
fn a_close_by_the_core_comes_after_the_last_octet() {
    let running = Running::start(1, Manner::EchoAndClose);
    for seed in 0..50 {
        let mut stream = running.tcp();
        let sent = pattern(seed, 1000);
        stream.write_all(&sent).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == sent);
    }
    running.wait("closed", |seen| seen.closed.load(Ordering::Relaxed) == 50);
    running.stop();
}

/// Streams whose bytes came back, and which were then left to their peers.
fn left_alone(running: &Running, count: u64) -> Vec<TcpStream> {
    let mut streams: Vec<_> = (0..count).map(|_| running.tcp()).collect();
    for stream in &mut streams {
        stream.write_all(b"to the end").unwrap();
        expect_echo(stream, b"to the end");
    }
    // The core is told at once.
    running.wait("closed", |seen| {
        seen.closed.load(Ordering::Relaxed) == count
    });
    streams
}

/// Whether a pair of ports of this connection is remembered by the one with `local`.
fn remembers(local: SocketAddr, remote: SocketAddr) -> bool {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    // TIME-WAIT is state 6.
    let row = format!(" {} {} 06 ", hex(local), hex(remote));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| line.contains(&row))
}

// Proves: MSRP-29
#[test]
fn who_closes_a_link_that_was_left_to_it_remembers_the_ports() {
    let options = DriverOptions {
        leave_limit: PATIENCE,
        ..DriverOptions::default()
    };
    let running = Running::start_with(1, Manner::EchoAndLeave, options, None);
    let ends = left_alone(&running, 20)
        .into_iter()
        .map(|mut stream| {
            // What still comes is thrown away, and no reset answers it.
            stream.write_all(b"late").unwrap();
            let ends = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
            ends
        })
        .collect::<Vec<_>>();
    running.wait("no link left", |_| running.host.counters()[0].left == 20);
    assert_eq!(running.host.counters()[0].left_overdue, 0);
    assert!(ends.iter().any(|&(peer, own)| remembers(peer, own)));
    assert!(!ends.iter().any(|&(peer, own)| remembers(own, peer)));
    running.stop();
}

#[test]
fn a_link_that_its_peer_does_not_close_is_closed_by_us() {
    // As many wait as may, and no more than an eighth of all there may be.
    for (leaving_max, connections_max) in [(3, 1000), (1000, 24)] {
        let options = DriverOptions {
            leave_limit: Duration::from_millis(50),
            leaving_max,
            connections_max,
            ..DriverOptions::default()
        };
        let running = Running::start_with(1, Manner::EchoAndLeave, options, None);
        for mut stream in left_alone(&running, 5) {
            assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "the end");
        }
        let overdue = || running.host.counters()[0].left_overdue;
        running.wait("closed by us", |_| overdue() == 3);
        assert_eq!(running.host.counters()[0].left, 0);
        running.stop();
    }
}

#[test]
fn a_connection_whose_opener_says_nothing_is_accepted_in_the_end() {
    let running = Running::start(1, Manner::Echo);
    // MSRP's wait in the kernel for their first octets (`TCP_DEFER_ACCEPT`), a second at most.
    let mut mute = stream(running.host.addresses()[0].msrp);
    running.wait("accepted", |seen| seen.opened.load(Ordering::Relaxed) == 1);
    mute.write_all(b"at last").unwrap();
    expect_echo(&mut mute, b"at last");
    running.stop();
}

#[test]
fn peers_that_vanish_under_load_leave_nothing_behind() {
    let running = Running::start(1, Manner::Echo);
    let mut steady = running.tcp();
    let address = running.host.addresses()[0].msrp;
    let vandals: Vec<_> = (0..4_u32)
        .map(|vandal| {
            thread::spawn(move || {
                for round in 0..60 {
                    let mut stream = stream(address);
                    stream.set_nonblocking(true).unwrap();
                    let sent = pattern(vandal * 100 + round, 40_000);
                    match stream.write(&sent) {
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                    // Unread data makes this close a reset.
                    drop(stream);
                }
            })
        })
        .collect();
    for seed in 0..100 {
        let sent = pattern(seed, 2000);
        steady.write_all(&sent).unwrap();
        expect_echo(&mut steady, &sent);
    }
    for vandal in vandals {
        vandal.join().unwrap();
    }
    running.wait("all closed", |seen| {
        seen.closed.load(Ordering::Relaxed) == 240
    });
    drop(steady);
    running.wait("the last", |seen| {
        seen.closed.load(Ordering::Relaxed) == 241
    });
    running.stop();
}

#[test]
fn a_peer_that_reads_slowly_gets_everything() {
    let running = Running::start(1, Manner::Echo);
    let mut stream = running.tcp();
    let sent = pattern(3, 6 << 20);
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let feeding = thread::spawn(move || writer.write_all(&copy).unwrap());
    thread::sleep(Duration::from_millis(300));
    expect_echo(&mut stream, &sent);
    feeding.join().unwrap();
    running.stop();
}

/// A connection with a small receive buffer.
fn narrow(running: &Running) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let address = running.host.addresses()[0].shared_sip_tcp.unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_held_link_that_is_closed_still_delivers_what_is_queued() {
    let running = Running::start(1, Manner::HoldAndClose);
    let mut stream = narrow(&running);
    let mut writer = stream.try_clone().unwrap();
    // Most of it is not read: the link is held after the first of it.
    let feeding = thread::spawn(move || {
        let _ = writer.write_all(&pattern(3, 4 << 20));
    });
    running.wait("closed", |seen| seen.closed.load(Ordering::Relaxed) == 1);
    thread::sleep(Duration::from_millis(100));
    expect_echo(&mut stream, &pattern(9, MUCH));
    drop(stream);
    feeding.join().unwrap();
    running.stop();
}

#[test]
fn a_peer_that_takes_little_at_a_time_is_not_a_stalled_one() {
    let options = DriverOptions {
        stall_limit: Duration::from_millis(500),
        ..DriverOptions::default()
    };
    let running = Running::start_with(1, Manner::Echo, options, None);
    let mut stream = narrow(&running);
    let mut writer = stream.try_clone().unwrap();
    let feeding = thread::spawn(move || {
        let _ = writer.write_all(&pattern(3, 24 << 20));
    });
    // A send that takes longer than the limit many times over.
    let start = Instant::now();
    let mut part = vec![0; 40 << 10];
    while start.elapsed() < Duration::from_secs(5) {
        stream.read_exact(&mut part).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(running.seen.closed.load(Ordering::Relaxed), 0);
    // Now it takes nothing.
    running.wait("stalled", |seen| seen.closed.load(Ordering::Relaxed) == 1);
    drop(stream);
    feeding.join().unwrap();
    running.stop();
}

#[test]
fn a_core_without_room_gets_nothing_and_loses_nothing() {
    let options = DriverOptions {
        stream_buffers: 4,
        stream_buffer_bytes: 1024,
        ..DriverOptions::default()
    };
    let running = Running::start_with(1, Manner::Echo, options, None);
    let mut streams: Vec<_> = (0..10).map(|_| running.tcp()).collect();
    running.wait("open", |seen| seen.opened.load(Ordering::Relaxed) == 10);
    running.seen.shut.store(true, Ordering::Relaxed);
    for (seed, stream) in (0..).zip(&mut streams) {
        stream.write_all(&pattern(seed, 20_000)).unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    running.seen.shut.store(false, Ordering::Relaxed);
    for (seed, stream) in (0..).zip(&mut streams) {
        expect_echo(stream, &pattern(seed, 20_000));
    }
    running.stop();
}

#[test]
fn two_shards_answer_through_each_other() {
    let running = Running::start(2, Manner::Mesh);
    let addresses: Vec<_> = running.host.addresses().to_vec();
    let mut streams: Vec<_> = (0..40)
        .map(|n| stream(addresses[n % 2].sip_tcp.unwrap()))
        .collect();
    for round in 0..20 {
        for (seed, stream) in (0..).zip(&mut streams) {
            stream.write_all(&pattern(seed + round, 900)).unwrap();
        }
        for (seed, stream) in (0..).zip(&mut streams) {
            expect_echo(stream, &pattern(seed + round, 900));
        }
    }
    // From rest, both must be woken.
    for stream in &mut streams[..4] {
        thread::sleep(Duration::from_millis(20));
        stream.write_all(b"ping").unwrap();
        expect_echo(stream, b"ping");
    }
    running.stop();
}

#[test]
fn answers_after_the_store_has_answered() {
    let running = Running::start(1, Manner::Store);
    let mut stream = running.tcp();
    for seed in 0..50 {
        let sent = pattern(seed, 700);
        stream.write_all(&sent).unwrap();
        expect_echo(&mut stream, &sent);
    }
    assert!(running.seen.stored.load(Ordering::Relaxed) >= 50);
    running.stop();
}

/// One datagram. A process that was stopped and continued sees waits with a timeout interrupted.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> usize {
    loop {
        match socket.recv(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other.unwrap(),
        }
    }
}

#[test]
fn echoes_datagrams_of_all_sizes_and_in_bursts() {
    let running = Running::start(1, Manner::Echo);
    for own in [false, true] {
        let addresses = running.host.addresses()[0];
        let address = if own {
            addresses.sip_udp
        } else {
            addresses.shared_sip_udp
        };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address.unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut back = vec![0; 65_536];
        for len in [1, 300, 1400, 9000, 60_000] {
            let sent = pattern(len, len as usize);
            socket.send(&sent).unwrap();
            let got = receive(&socket, &mut back);
            assert!(back[..got] == sent, "{len}");
        }
        for _ in 0..10 {
            for seed in 0..24 {
                socket.send(&pattern(seed, 950)).unwrap();
            }
            for seed in 0..24 {
                let got = receive(&socket, &mut back);
                assert!(back[..got] == pattern(seed, 950), "{seed}");
            }
        }
    }
    running.stop();
}

/// Sends `sizes` as one train and gives back what the engine echoes, each receive by itself.
fn echo_of_train(running: &Running, segment: usize, last: usize, joined: bool) -> Vec<Vec<u8>> {
    const FULL: usize = 63;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
        .connect(running.host.addresses()[0].sip_udp.unwrap())
        .unwrap();
    let size = i32::try_from(segment).unwrap();
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGsoSegment, &size).unwrap();
    if joined {
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGroSegment, &true)
            .unwrap();
    }
    let sent = pattern(7, FULL * segment + last);
    assert_eq!(socket.send(&sent).unwrap(), sent.len());
    let mut got = Vec::new();
    let mut octets = 0;
    let mut buffer = vec![0; 65_536];
    while octets < sent.len() {
        let len = receive(&socket, &mut buffer);
        octets += len;
        got.push(buffer[..len].to_vec());
    }
    // The order of datagrams of one size is kept, and the shorter one was the last anyway.
    assert!(got.concat() == sent);
    got
}

#[test]
fn a_train_comes_in_as_its_datagrams_and_their_answers_leave_as_one() {
    let running = Running::start(1, Manner::Echo);
    assert!(running.host.trains().sends && running.host.trains().joins);
    // Asked for one by one, each datagram has its size: the train was cut, and where it must be.
    let singles = echo_of_train(&running, 900, 333, false);
    let sizes: Vec<usize> = singles.iter().map(Vec::len).collect();
    assert_eq!(sizes, [&[900; 63][..], &[333]].concat());
    // Asked for joined, the answers come as the one train they left as.
    let joined = echo_of_train(&running, 640, 640, true);
    assert_eq!(joined.len(), 1, "one operation");
    running.host.stop_handle().stop();
    let stats = running.host.stats().to_vec();
    running.host.join().unwrap();
    let counters = stats[0].read();
    assert_eq!(counters.rx_datagrams, 128);
    assert_eq!((counters.rx_trains, counters.rx_train_datagrams), (2, 128));
    assert_eq!(counters.tx_datagrams, 128);
    assert_eq!((counters.tx_trains, counters.tx_train_datagrams), (2, 128));
    assert_eq!(counters.tx_trains_full, 2);
    assert_eq!((counters.train_fallbacks, counters.datagrams_lost), (0, 0));
}

#[test]
fn without_trains_datagrams_travel_one_by_one() {
    let options = DriverOptions {
        train_segment_bytes_max: 0,
        ..DriverOptions::default()
    };
    let running = Running::start_with(1, Manner::Echo, options, None);
    assert!(!running.host.trains().sends);
    let joined = echo_of_train(&running, 640, 100, true);
    assert_eq!(joined.len(), 64);
    running.host.stop_handle().stop();
    let stats = running.host.stats().to_vec();
    running.host.join().unwrap();
    let counters = stats[0].read();
    assert_eq!((counters.rx_datagrams, counters.rx_trains), (64, 0));
    assert_eq!((counters.tx_datagrams, counters.tx_trains), (64, 0));
}

#[test]
fn connects_where_the_core_wants_and_says_when_it_cannot() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = peer.local_addr().unwrap();
    let running = Running::start_with(1, Manner::Echo, DriverOptions::default(), Some(address));
    let (mut stream, _) = peer.accept().unwrap();
    expect_echo(&mut stream, b"hello");
    stream.write_all(b"you").unwrap();
    expect_echo(&mut stream, b"you");
    assert_eq!(running.seen.connected.load(Ordering::Relaxed), 1);
    running.stop();

    // Bound and not listening refuses for certain; a port let go could be anybody's next.
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    closed
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = closed.local_addr().unwrap().as_socket().unwrap();
    let running = Running::start_with(1, Manner::Echo, DriverOptions::default(), Some(address));
    running.wait("refused", |seen| {
        seen.connect_failed.load(Ordering::Relaxed) == 1
    });
    running.stop();
}

#[test]
fn a_connect_ends_at_its_limit() {
    // A listener that accepts nothing: with its queue full, further handshakes get no answer.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    silent.bind(&any.into()).unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let _filling = TcpStream::connect(address).unwrap();
    let options = DriverOptions {
        connect_limit: Duration::from_millis(200),
        ..DriverOptions::default()
    };
    let running = Running::start_with(1, Manner::Echo, options, Some(address));
    running.wait("timed out", |seen| {
        seen.connect_failed.load(Ordering::Relaxed) == 1
    });
    running.stop();
}

#[test]
fn connections_over_the_caps_are_closed_at_once() {
    let options = DriverOptions {
        connections_per_source_max: 5,
        ..DriverOptions::default()
    };
    let running = Running::start_with(1, Manner::Echo, options, None);
    let mut streams: Vec<_> = (0..8).map(|_| running.tcp()).collect();
    let mut served = 0;
    for stream in &mut streams {
        let _ = stream.write_all(b"x");
        // `read_exact`: a single read is interrupted by what rings of this process do.
        if stream.read_exact(&mut [0]).is_ok() {
            served += 1;
        }
    }
    assert_eq!(served, 5);
    drop(streams.remove(0));
    running.wait("closed", |seen| seen.closed.load(Ordering::Relaxed) == 1);
    running.stop();
}

#[test]
fn a_second_process_on_the_same_port_is_told_so() {
    let running = Running::start(1, Manner::Echo);
    let address = running.host.addresses()[0].shared_sip_tcp.unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = HostConfig {
        shards: 1,
        pin: None,
        sip_tcp: Some(address),
        sip_udp: None,
        shard_port_base: None,
        msrp: any,
        driver: DriverOptions {
            backend: backend(),
            ..DriverOptions::default()
        },
    };
    let seen = Arc::new(Seen::default());
    let factory = Storeless(move |_: &volley::io::listen::ShardAddresses| {
        Echo::new(Manner::Echo, 0, Arc::clone(&seen), None)
    });
    let error = Host::start(&config, factory).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    assert!(error.contains("in use"), "{error}");
    running.stop();
}

#[test]
fn an_idle_host_sleeps() {
    let running = Running::start(2, Manner::Echo);
    thread::sleep(Duration::from_millis(100));
    let before = running.host.counters()[0];
    thread::sleep(Duration::from_millis(1500));
    let after = running.host.counters()[0];
    assert!(after.turns - before.turns < 40, "{before:?} {after:?}");
    running.stop();
}

#[test]
fn a_shard_that_answers_no_questions_is_named_in_time_and_takes_only_so_many() {
    let running = Running::start(2, Manner::Echo);
    let line = Line::new(Questions::new(2), running.host.knocker());
    let ask = || line.ask(1, Question::Timers { from: 0 }).unwrap_err();
    let start = Instant::now();
    let errors: Vec<AskError> = thread::scope(|scope| {
        let asked: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(start.elapsed() < PATIENCE);
    let count = |error| errors.iter().filter(|&&one| one == error).count();
    assert_eq!(count(AskError::Late { shard: 1 }), 16, "{errors:?}");
    assert_eq!(count(AskError::Busy { shard: 1 }), 4, "{errors:?}");
    let words = AskError::Late { shard: 1 }.to_string();
    assert!(
        words.contains("shard 1 did not answer within 2 s"),
        "{words}"
    );
    running.stop();
}
