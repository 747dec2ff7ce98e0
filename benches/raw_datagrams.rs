//! The raw limit of the datapath over datagrams: no protocol, only what a push's messages must cost.
//!
//! A signalling push is three datagrams in (100, 200, 200 to BYE) and three out (INVITE, ACK, BYE). The
//! core answers each datagram of 880 octets with one of 1,408, and each of 330 with one of 448; a client
//! thread on another CPU keeps a number of pushes' datagrams in flight. Reported per push: CPU time of the
//! shard's thread (user and kernel, from the kernel's own account), calls of `io_uring_enter`, trains.
//!
//! ```text
//! cargo bench --bench raw_datagrams -- [trains|datagrams,..] [pushes in flight,..] [seconds]
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads clocks and starts its client"
)]

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{IoSlice, IoSliceMut, Write, stdout};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmmsg, sendmsg, setsockopt, sockopt,
};
use volley::base::surface::{
    Core, Input, LinkCommand, LinkEvent, LinkId, MeshFrame, StoreBatch, Transmit, TxBuf,
};
use volley::base::time::Timestamp;
use volley::io::driver::DriverOptions;
use volley::io::host::{Host, HostConfig, Storeless};
use volley::io::listen::ShardAddresses;
use volley::io::stats::Counters;

#[path = "shared/runs.rs"]
mod runs;
use runs::{after_tick, list};

/// What comes in and what goes out for it: a 200 and an INVITE, a 100 or a 200 and an ACK or a BYE.
const LARGE: (usize, usize) = (880, 1408);
const SMALL: (usize, usize) = (330, 448);
/// Datagrams of a push, each way.
const PER_PUSH: u64 = 3;
const TRAIN: usize = 16;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers datagrams to the one client there is.
#[derive(Default)]
struct Answering {
    waiting: TxBuf,
    link: Option<LinkId>,
    busy: bool,
}

impl Core for Answering {
    fn handle(&mut self, _now: Timestamp, input: Input<'_>) {
        match input {
            Input::Datagram {
                link,
                source,
                bytes,
            } => {
                let len = if bytes.len() == LARGE.0 {
                    LARGE.1
                } else {
                    SMALL.1
                };
                let end = self.waiting.bytes.len() + len;
                self.waiting.bytes.resize(end, b'x');
                let end = u32::try_from(end).expect("a bounded number in flight");
                self.waiting.cuts.push(end);
                self.waiting.destination = Some(source);
                self.link = Some(link);
            }
            Input::Link {
                event: LinkEvent::Sent,
                ..
            } => self.busy = false,
            Input::Bytes { .. }
            | Input::ConnectFailed { .. }
            | Input::Drain
            | Input::Link { .. }
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
        let link = self.link.filter(|_| !self.busy)?;
        if self.waiting.cuts.is_empty() {
            return None;
        }
        core::mem::swap(buffer, &mut self.waiting);
        self.busy = true;
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

    fn room(&self) -> bool {
        true
    }

    fn is_drained(&self) -> bool {
        true
    }
}

/// Keeps the datagrams of `depth` pushes in flight until told to end.
fn client(host: SocketAddr, trains: bool, depth: usize, end: &AtomicBool) {
    pin(1);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = UdpSocket::bind(any).expect("a port is free");
    socket.set_nonblocking(true).expect("a socket");
    setsockopt(&socket, sockopt::RcvBuf, &(16 << 20)).expect("a wish");
    setsockopt(&socket, sockopt::UdpGroSegment, &trains).expect("this kernel joins");
    let fd = socket.as_raw_fd();
    let peer = SockaddrStorage::from(host);
    let bytes = vec![b'r'; 64 * LARGE.0];
    let mut buffers = vec![vec![0; 65_536]; 32];
    let mut send = MultiHeaders::preallocate(64, None);
    // How many are to be sent of each size.
    let mut owed = [(LARGE.0, depth), (SMALL.0, 2 * depth)];
    while !end.load(Ordering::Relaxed) {
        for (size, count) in &mut owed {
            while *count > 0 {
                let sent = if trains {
                    let segment = u16::try_from(*size).expect("small");
                    let part = [IoSlice::new(&bytes[..*size * TRAIN.min(*count)])];
                    let control = [ControlMessage::UdpGsoSegments(&segment)];
                    let flags = MsgFlags::empty();
                    sendmsg(fd, &part, &control, flags, Some(&peer)).map(|octets| octets / *size)
                } else {
                    let parts = vec![[IoSlice::new(&bytes[..*size])]; 64.min(*count)];
                    let peers = vec![Some(peer); parts.len()];
                    sendmmsg(fd, &mut send, &parts, &peers, [], MsgFlags::empty())
                        .map(Iterator::count)
                };
                let Ok(sent) = sent else { break };
                *count -= sent;
            }
        }
        let mut slices: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        // Made anew: a call leaves in them how much was received.
        let mut receive =
            MultiHeaders::<SockaddrStorage>::preallocate(32, Some(nix::cmsg_space!(i32)));
        let Ok(messages) = recvmmsg(fd, &mut receive, slices.iter_mut(), flags, None) else {
            continue;
        };
        for message in messages {
            let mut segment = message.bytes;
            for control in message.cmsgs().expect("there is room for one") {
                if let ControlMessageOwned::UdpGroSegments(size) = control {
                    segment = usize::try_from(size).expect("a size");
                }
            }
            // A train ends with a shorter datagram at most; both sizes may be in one.
            let full = message.bytes / segment.max(1);
            let rest = message.bytes % segment.max(1);
            for (answer, count) in [(segment, full), (rest, usize::from(rest > 0))] {
                owed[usize::from(answer != LARGE.1)].1 += count;
            }
        }
    }
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    // On a machine with one CPU the client shares it; the report says so by its low rate.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

fn measure(trains: bool, depth: usize, seconds: u64) -> String {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = HostConfig {
        shards: 1,
        pin: Some(vec![0]),
        sip_tcp: None,
        sip_udp: Some(any),
        shard_port_base: None,
        msrp: any,
        driver: DriverOptions {
            train_segment_bytes_max: if trains { 1_472 } else { 0 },
            ..DriverOptions::default()
        },
    };
    let factory = Storeless(|_: &ShardAddresses| Answering::default());
    let host = Host::start(&config, factory).expect("the host starts");
    let address = host.addresses()[0].shared_sip_udp.expect("configured");
    let end = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&end);
    let peer = thread::spawn(move || client(address, trains, depth, &ending));
    // The CPU account comes out with the driver's tick, so the window is cut there.
    thread::sleep(Duration::from_millis(1000));
    let (first, start) = (after_tick(&host)[0], Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (last, took) = (after_tick(&host)[0], start.elapsed());
    end.store(true, Ordering::Relaxed);
    peer.join().expect("the client ended well");
    host.stop_handle().stop();
    host.join().expect("the host ended well");
    let pushes = (last.rx_datagrams - first.rx_datagrams) as f64 / PER_PUSH as f64;
    let cpu_us = (last.cpu_us - first.cpu_us) as f64;
    let per = |of: fn(&Counters) -> u64| (of(&last) - of(&first)) as f64 / pushes;
    let name = if trains { "trains" } else { "datagrams" };
    format!(
        "{name} x {depth:>4} in flight: {:>9.0}/s, {:>9.0} per core second; per push {:.3} us CPU, \
         {:.4} enters, {:.3} receives and {:.3} sends; {:.0} % of a CPU",
        pushes / took.as_secs_f64(),
        pushes / cpu_us * 1e6,
        cpu_us / pushes,
        per(|counters| counters.enters),
        per(|counters| counters.rx_datagrams - counters.rx_train_datagrams + counters.rx_trains),
        per(|counters| counters.tx_datagrams - counters.tx_train_datagrams + counters.tx_trains),
        cpu_us / took.as_micros() as f64 * 100.0,
    )
}

fn main() {
    let seconds = list(2, "3")[0];
    for style in list::<String>(0, "datagrams,trains") {
        for depth in list(1, "256") {
            let line = measure(style == "trains", depth, seconds);
            let _ = writeln!(stdout(), "{line}");
        }
    }
}
