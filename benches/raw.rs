//! The raw limit of the datapath: no protocol, only what any exchange must cost.
//!
//! A core answers each 950-octet message with 330 and 1,000 octets; a client thread on another CPU
//! keeps a number of messages in flight on each connection. Reported per exchange: CPU time of the
//! shard's thread (user and kernel, from the kernel's own account) and calls of `io_uring_enter`.
//!
//! ```text
//! cargo bench --bench raw -- [connections,..] [in flight per connection,..] [seconds]
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads clocks and starts its client"
)]

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write, stdout};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use volley::base::surface::{
    Core, Input, LinkCommand, LinkEvent, LinkId, LinkKind, MeshFrame, StoreBatch, Transmit, TxBuf,
};
use volley::base::time::Timestamp;
use volley::io::driver::DriverOptions;
use volley::io::host::{Host, HostConfig, Storeless};
use volley::io::listen::ShardAddresses;

#[path = "shared/runs.rs"]
mod runs;
use runs::{after_tick, list};

const REQUEST: usize = 950;
const ANSWERS: [usize; 2] = [330, 1000];
const ANSWER: usize = ANSWERS[0] + ANSWERS[1];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Per link: octets of an unfinished message, answers owed, and whether a send is in flight.
#[derive(Clone, Debug, Default)]
struct Peer {
    generation: u32,
    rest: usize,
    owed: usize,
    busy: bool,
    queued: bool,
}

/// Answers by count of octets.
struct Answering {
    peers: Vec<Peer>,
    dirty: VecDeque<u32>,
    body: Vec<u8>,
}

impl Answering {
    fn new() -> Self {
        Self {
            peers: Vec::new(),
            dirty: VecDeque::new(),
            body: vec![b'x'; ANSWER],
        }
    }

    fn peer(&mut self, link: LinkId) -> &mut Peer {
        let slot = link.slot as usize;
        if self.peers.len() <= slot {
            self.peers.resize(slot + 1, Peer::default());
        }
        &mut self.peers[slot]
    }

    fn touch(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        if peer.owed > 0 && !peer.busy && !peer.queued {
            peer.queued = true;
            self.dirty.push_back(slot);
        }
    }
}

impl Core for Answering {
    fn handle(&mut self, _now: Timestamp, input: Input<'_>) {
        match input {
            Input::Bytes { link, bytes } => {
                let peer = self.peer(link);
                let octets = peer.rest + bytes.len();
                peer.owed += octets / REQUEST;
                peer.rest = octets % REQUEST;
                self.touch(link.slot);
            }
            Input::Link { link, event } => match event {
                LinkEvent::Opened { kind, .. } if kind != LinkKind::SipUdp => {
                    *self.peer(link) = Peer {
                        generation: link.generation,
                        ..Peer::default()
                    };
                }
                LinkEvent::Sent => {
                    self.peer(link).busy = false;
                    self.touch(link.slot);
                }
                LinkEvent::Closed | LinkEvent::Connected { .. } | LinkEvent::Opened { .. } => {}
            },
            Input::ConnectFailed { .. }
            | Input::Datagram { .. }
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
        let slot = self.dirty.pop_front()?;
        let peer = &mut self.peers[slot as usize];
        peer.queued = false;
        peer.busy = true;
        for _ in 0..core::mem::take(&mut peer.owed) {
            buffer.bytes.extend_from_slice(&self.body[..ANSWERS[0]]);
            buffer.bytes.extend_from_slice(&self.body[ANSWERS[0]..]);
        }
        let generation = peer.generation;
        Some(Transmit {
            link: LinkId { slot, generation },
        })
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

    fn room(&self) -> bool {
        true
    }

    fn is_drained(&self) -> bool {
        true
    }
}

/// One connection of the client.
struct Line {
    stream: TcpStream,
    partial: usize,
    to_send: usize,
}

/// Keeps `depth` messages in flight on each line until told to end.
fn client(address: SocketAddr, connections: usize, depth: usize, end: &AtomicBool) {
    pin(1);
    let mut lines: Vec<_> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("the host listens");
            stream.set_nodelay(true).expect("a stream");
            stream.set_nonblocking(true).expect("a stream");
            Line {
                stream,
                partial: 0,
                to_send: depth * REQUEST,
            }
        })
        .collect();
    let requests = vec![b'r'; depth * REQUEST];
    let mut back = vec![0; 256 * 1024];
    while !end.load(Ordering::Relaxed) {
        for line in &mut lines {
            if let Some(octets) = tried(line.stream.read(&mut back)) {
                let octets = octets + line.partial;
                line.to_send += octets / ANSWER * REQUEST;
                line.partial = octets % ANSWER;
            }
            if line.to_send > 0 {
                let part = line.to_send.min(requests.len());
                line.to_send -= tried(line.stream.write(&requests[..part])).unwrap_or(0);
            }
        }
    }
}

fn tried(outcome: std::io::Result<usize>) -> Option<usize> {
    match outcome {
        Ok(octets) => Some(octets),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("the host went away: {error}"),
    }
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    // On a machine with one CPU the client shares it; the report says so by its low rate.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

fn measure(connections: usize, depth: usize, seconds: u64) -> String {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = HostConfig {
        shards: 1,
        pin: Some(vec![0]),
        sip_tcp: Some(any),
        sip_udp: None,
        shard_port_base: None,
        msrp: any,
        driver: DriverOptions::default(),
    };
    let factory = Storeless(|_: &ShardAddresses| Answering::new());
    let host = Host::start(&config, factory).expect("the host starts");
    let address = host.addresses()[0].shared_sip_tcp.expect("configured");
    let end = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&end);
    let peer = thread::spawn(move || client(address, connections, depth, &ending));
    // The CPU account comes out with the driver's tick, so the window is cut there.
    thread::sleep(Duration::from_millis(1000));
    let (first, start) = (after_tick(&host)[0], Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (last, took) = (after_tick(&host)[0], start.elapsed());
    end.store(true, Ordering::Relaxed);
    peer.join().expect("the client ended well");
    host.stop_handle().stop();
    host.join().expect("the host ended well");
    let exchanges = (last.rx_bytes - first.rx_bytes) as f64 / REQUEST as f64;
    format!(
        "{connections:>5} connections x {depth:>4} in flight: {:>9.0}/s  per exchange {:.3} us \
         CPU, {:.4} enters, {:.4} turns, {:.4} completions, {:.4} parks; {:.0} % of a CPU",
        exchanges / took.as_secs_f64(),
        (last.cpu_us - first.cpu_us) as f64 / exchanges,
        (last.enters - first.enters) as f64 / exchanges,
        (last.turns - first.turns) as f64 / exchanges,
        (last.completions - first.completions) as f64 / exchanges,
        (last.parks - first.parks) as f64 / exchanges,
        (last.cpu_us - first.cpu_us) as f64 / took.as_micros() as f64 * 100.0,
    )
}

fn main() {
    let seconds = list(2, "3")[0];
    for connections in list(0, "4") {
        for depth in list(1, "16,64") {
            let line = measure(connections, depth, seconds);
            let _ = writeln!(stdout(), "{line}");
        }
    }
}
