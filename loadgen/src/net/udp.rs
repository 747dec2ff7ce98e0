//! SIP over datagrams: one socket for every peer.
//!
//! With `--reply-style trains` datagrams of one size to one peer leave as one operation (`UDP_SEGMENT`)
//! and joined ones are asked for (`UDP_GRO`); with `datagrams` each passes the kernel by itself. Calls
//! are batched either way (`recvmmsg`, `sendmmsg`), so that the judge costs little.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt,
    sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::trains::Trains;
use super::{Shared, flush};
use crate::scenario::ReplyStyle;

/// Receives of one call.
const RECEIVES: usize = 32;
/// Calls of one turn.
const CALLS: usize = 8;
/// Octets of each receive buffer: a whole train.
const RECEIVE_BYTES: usize = 65_536;
/// Datagrams of one call where each is sent by itself.
const SENDS: usize = 64;
/// Largest datagram that is put into a train.
const SEGMENT_BYTES: usize = 1_472;

pub(super) fn datagram_socket(
    address: SocketAddr,
    style: ReplyStyle,
) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.bind(&address.into())?;
    socket.set_recv_buffer_size(16 * 1024 * 1024)?;
    socket.set_send_buffer_size(4 * 1024 * 1024)?;
    socket.set_nonblocking(true)?;
    if style == ReplyStyle::Trains {
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    }
    Ok(socket.into())
}

/// One socket for every SIP peer over UDP.
pub(super) fn datagrams(shared: &Rc<Shared>, socket: Rc<UdpSocket>, style: ReplyStyle) {
    let (reader, writer) = (Rc::clone(shared), Rc::clone(shared));
    let sending = Rc::clone(&socket);
    tokio_uring::spawn(async move {
        let mut receiver = Receiver::new();
        while socket.readable().await.is_ok() {
            receive_batch(&reader, &socket, &mut receiver);
            flush(&reader);
        }
    });
    tokio_uring::spawn(async move {
        let mut sender = Sender::new(style);
        loop {
            let next = {
                let mut world = writer.world.borrow_mut();
                let link = world.outbox.dirty.pop();
                link.map(|link| {
                    let entry = world.outbox.link(link);
                    sender.ends.clear();
                    sender.ends.extend_from_slice(&entry.ends);
                    let peer = entry.peer;
                    world.outbox.take(link, &mut sender.bytes);
                    peer
                })
            };
            let Some(peer) = next else {
                writer.datagrams.notified().await;
                continue;
            };
            sender.send(&sending, peer).await;
        }
    });
}

/// Buffers for what comes in, and where in them it lies.
struct Receiver {
    buffers: Vec<Vec<u8>>,
    /// For each buffer that was filled: octets, of each datagram but the last, and from whom.
    filled: Vec<(usize, usize, SocketAddr)>,
}

impl Receiver {
    fn new() -> Self {
        Self {
            buffers: vec![vec![0; RECEIVE_BYTES]; RECEIVES],
            filled: Vec::with_capacity(RECEIVES),
        }
    }

    /// Takes in what has come, as much as one call brings.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.filled.clear();
        let Self { buffers, filled } = self;
        // Made anew: a call leaves in them how much was received, not how much may be.
        let mut headers = MultiHeaders::preallocate(RECEIVES, Some(nix::cmsg_space!(i32)));
        socket.try_io(Interest::READABLE, || {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = socket.as_raw_fd();
            for message in recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None)? {
                let mut segment = message.bytes;
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::UdpGroSegments(size) = control {
                        segment = usize::try_from(size).unwrap_or(0);
                    }
                }
                let peer = message.address.as_ref().and_then(peer_of);
                let peer = peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
                filled.push((message.bytes, segment.max(1), peer));
            }
            Ok(())
        })
    }
}

/// The address of a peer.
pub(crate) fn peer_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::from((v6.ip(), v6.port())))
}

fn receive_batch(shared: &Rc<Shared>, socket: &UdpSocket, receiver: &mut Receiver) {
    let mut world = shared.world.borrow_mut();
    let now = shared.now();
    world.begin_turn(now);
    world.counters.turns += 1;
    // Only an empty receive tells the runtime that nothing is left, so the last one is in vain.
    for _ in 0..CALLS {
        if receiver.receive(socket).is_err() || receiver.filled.is_empty() {
            break;
        }
        for (buffer, &(len, segment, peer)) in receiver.buffers.iter().zip(&receiver.filled) {
            world.counters.bytes_in += len as u64;
            let link = world.datagram_link(peer);
            let datagrams = buffer[..len].chunks(segment);
            world.counters.datagrams_in += datagrams.len() as u64;
            world.counters.receives += 1;
            for bytes in datagrams {
                world.handle_datagram(link, bytes);
            }
        }
    }
    world.pump(now);
}

/// What leaves for one peer.
struct Sender {
    style: ReplyStyle,
    bytes: Vec<u8>,
    ends: Vec<u32>,
    trains: Trains,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Sender {
    fn new(style: ReplyStyle) -> Self {
        Self {
            style,
            bytes: Vec::new(),
            ends: Vec::new(),
            trains: Trains::new(SEGMENT_BYTES),
            headers: MultiHeaders::preallocate(SENDS, None),
        }
    }

    async fn send(&mut self, socket: &UdpSocket, peer: SocketAddr) {
        let peer = SockaddrStorage::from(peer);
        match self.style {
            ReplyStyle::Trains => {
                let mut refused: Vec<(u32, u32)> = Vec::new();
                for train in self.trains.sort(&self.ends) {
                    let send = || {
                        train
                            .send(socket.as_raw_fd(), &self.bytes, &peer)
                            .map_err(io::Error::from)
                    };
                    let outcome = socket.async_io(Interest::WRITABLE, send).await;
                    if outcome.is_err() && train.parts().len() > 1 {
                        refused.extend(train.parts());
                    }
                }
                if !refused.is_empty() {
                    // The path takes no trains.
                    self.style = ReplyStyle::Datagrams;
                    self.send_singles(socket, &refused, &peer).await;
                }
            }
            ReplyStyle::Datagrams => {
                let mut start = 0;
                let part = |&end: &u32| (core::mem::replace(&mut start, end), end);
                let parts: Vec<_> = self.ends.iter().map(part).collect();
                self.send_singles(socket, &parts, &peer).await;
            }
        }
        self.bytes.clear();
    }

    async fn send_singles(
        &mut self,
        socket: &UdpSocket,
        parts: &[(u32, u32)],
        peer: &SockaddrStorage,
    ) {
        let (bytes, headers) = (&self.bytes, &mut self.headers);
        let mut left = parts;
        while !left.is_empty() {
            let count = left.len().min(SENDS);
            let slices: Vec<[IoSlice<'_>; 1]> = left[..count]
                .iter()
                .map(|&(start, end)| [IoSlice::new(&bytes[start as usize..end as usize])])
                .collect();
            let peers = vec![Some(*peer); count];
            let flags = MsgFlags::MSG_DONTWAIT;
            let send = || {
                sendmmsg(socket.as_raw_fd(), headers, &slices, &peers, [], flags)
                    .map(Iterator::count)
                    .map_err(io::Error::from)
            };
            // A datagram that cannot be sent is lost, as datagrams may be.
            let sent = socket.async_io(Interest::WRITABLE, send).await.unwrap_or(1);
            left = &left[sent.clamp(1, count)..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(sizes: &[usize]) -> Sender {
        let mut sender = Sender::new(ReplyStyle::Trains);
        for (number, &size) in sizes.iter().enumerate() {
            let len = sender.bytes.len() + size;
            sender.bytes.resize(len, number as u8);
            sender.ends.push(len as u32);
        }
        sender
    }

    #[test]
    fn what_is_sent_in_either_style_comes_in_datagram_by_datagram() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let sizes = [300, 900, 300, 300, 900, 64];
        for (from, to, receives) in [
            (ReplyStyle::Trains, ReplyStyle::Trains, 3),
            (ReplyStyle::Trains, ReplyStyle::Datagrams, 6),
            (ReplyStyle::Datagrams, ReplyStyle::Datagrams, 6),
        ] {
            let _inside = runtime.enter();
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let open = |style| UdpSocket::from_std(datagram_socket(any, style).unwrap()).unwrap();
            let (a, b) = (open(from), open(to));
            let peer = b.local_addr().unwrap();
            let mut receiver = Receiver::new();
            runtime.block_on(async {
                // A lone datagram first, which leaves other headers behind than a train.
                for sizes in [&[100][..], &sizes] {
                    let mut sender = sender(sizes);
                    sender.style = from;
                    sender.send(&a, peer).await;
                    b.readable().await.unwrap();
                    receiver.receive(&b).unwrap();
                }
            });
            assert_eq!(receiver.filled.len(), receives, "{from:?} to {to:?}");
            let mut got = Vec::new();
            for (buffer, &(len, segment, peer)) in receiver.buffers.iter().zip(&receiver.filled) {
                assert_eq!(peer, a.local_addr().unwrap());
                for bytes in buffer[..len].chunks(segment) {
                    assert!(bytes.iter().all(|&octet| octet == bytes[0]));
                    got.push((usize::from(bytes[0]), bytes.len()));
                }
            }
            got.sort_unstable();
            assert_eq!(got, sizes.into_iter().enumerate().collect::<Vec<_>>());
        }
    }
}
