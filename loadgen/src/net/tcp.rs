//! Streams: accepting, connecting, one reader and one writer for each.
//!
//! A batch of received messages is handled in one turn, and whatever it appended to a connection leaves
//! in one write. Connections per session (MSRP) start with small buffers that grow when a read fills
//! them.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::{TcpListener, TcpStream};

use super::{DriveError, Shared, Waker, flush, renew};
use crate::link::{Connect, LinkId, Protocol};

/// Read buffer of a SIP connection, octets.
const SIP_READ: usize = 256 * 1024;
/// First read buffer of an MSRP connection, octets; it grows up to [`MSRP_READ_MAX`].
const MSRP_READ: usize = 4 * 1024;
/// Addresses of phones on loopback.
const PHONE_ADDRESSES: u32 = 4000;
/// Largest read buffer of an MSRP connection, octets.
const MSRP_READ_MAX: usize = 256 * 1024;

pub(super) fn accept(shared: &Rc<Shared>, listener: TcpListener, protocol: Protocol, hop: u8) {
    let shared = Rc::clone(shared);
    tokio_uring::spawn(async move {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                // Out of descriptors: wait for some to close.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let link = {
                let mut world = shared.world.borrow_mut();
                match protocol {
                    Protocol::Msrp => world.counters.msrp_accepted += 1,
                    Protocol::Sip | Protocol::SipDatagram => world.counters.sip_accepted += 1,
                }
                let link = world.outbox.add(protocol, peer);
                world.outbox.link(link).hop = hop;
                link
            };
            let waker = renew(&shared, link);
            tokio_uring::spawn(incoming(Rc::clone(&shared), stream, link, protocol, waker));
        }
    });
}

async fn incoming(
    shared: Rc<Shared>,
    stream: TcpStream,
    link: LinkId,
    protocol: Protocol,
    waker: Rc<Waker>,
) {
    serve(&shared, stream, link, protocol, &waker).await;
    shared.world.borrow_mut().outbox.release(link);
}

/// Opens a connection and serves it; SIP connections are opened again when lost.
pub(super) async fn outgoing(shared: Rc<Shared>, connect: Connect, waker: Rc<Waker>) {
    let mut first = true;
    loop {
        match open(&shared, &connect).await {
            Ok(stream) => {
                if connect.protocol == Protocol::Sip && first {
                    first = false;
                    connected(&shared, connect.address);
                }
                serve(&shared, stream, connect.link, connect.protocol, &waker).await;
                if connect.protocol == Protocol::Msrp {
                    shared.world.borrow_mut().media_ended(connect.link);
                    return;
                }
                {
                    let mut world = shared.world.borrow_mut();
                    world.counters.links_lost += 1;
                    world.register_again(connect.link);
                }
            }
            Err(error) => {
                if connect.protocol == Protocol::Msrp {
                    let mut world = shared.world.borrow_mut();
                    world.link_lost(connect.link);
                    world.media_ended(connect.link);
                    return;
                }
                let reach = shared.world.borrow().setup.reach_s;
                if first && shared.start.elapsed().as_secs_f64() > reach {
                    shared.fail(DriveError::Unreachable(connect.address, error));
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Connects. On loopback every phone has an address of its own, as phones have: of one address no more than some
/// 28,000 ports can be used in a minute, or a second where the kernel lends them again.
async fn open(shared: &Shared, connect: &Connect) -> std::io::Result<TcpStream> {
    let SocketAddr::V4(to) = connect.address else {
        return TcpStream::connect(connect.address).await;
    };
    if connect.protocol != Protocol::Msrp || !to.ip().is_loopback() {
        return TcpStream::connect(connect.address).await;
    }
    let phone = shared.world.borrow().outbox.peek(connect.link).device;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&address_of(phone).into())?;
    socket.set_nonblocking(true)?;
    match socket.connect(&connect.address.into()) {
        // The first operation on it waits until it stands.
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
        Ok(()) | Err(_) => socket.set_nonblocking(false)?,
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// The loopback address of a phone, any port.
fn address_of(phone: u32) -> SocketAddr {
    let [.., third, fourth] = (phone % PHONE_ADDRESSES + 1).to_be_bytes();
    SocketAddr::from(([127, 64, third, fourth], 0))
}

/// The run begins when every connection to the engine stands.
fn connected(shared: &Rc<Shared>, address: SocketAddr) {
    {
        let mut world = shared.world.borrow_mut();
        let mut waiting = shared.waiting.borrow_mut();
        if *waiting == 0 || address != world.setup.engine {
            return;
        }
        *waiting -= 1;
        if *waiting > 0 {
            return;
        }
        let now = shared.now();
        world.start(now);
        world.pump(now);
    }
    flush(shared);
}

/// Reads and writes one stream until it ends.
async fn serve(
    shared: &Rc<Shared>,
    stream: TcpStream,
    link: LinkId,
    protocol: Protocol,
    waker: &Waker,
) {
    let _ = stream.set_nodelay(true);
    let stream = &stream;
    let read = async {
        read_all(shared, stream, link, protocol).await;
        *waker.ended.borrow_mut() = true;
        *waker.closing.borrow_mut() = true;
        waker.notify.notify_one();
    };
    tokio::join!(read, write_all(shared, stream, link, waker));
    *waker.closing.borrow_mut() = false;
    *waker.ended.borrow_mut() = false;
}

async fn read_all(shared: &Rc<Shared>, stream: &TcpStream, link: LinkId, protocol: Protocol) {
    let mut size = if protocol == Protocol::Msrp {
        MSRP_READ
    } else {
        SIP_READ
    };
    let mut buffer: Vec<u8> = Vec::with_capacity(size);
    let gathers = protocol == Protocol::Sip && shared.world.borrow().setup.gather_us > 0;
    loop {
        if gathers {
            shared.cadence.notified().await;
        }
        let filled = buffer.len();
        let (outcome, slice) = stream.read(buffer.slice(filled..)).await;
        buffer = slice.into_inner();
        let Ok(count @ 1..) = outcome else {
            return;
        };
        let consumed = {
            let mut world = shared.world.borrow_mut();
            let now = shared.now();
            world.begin_turn(now);
            world.counters.turns += 1;
            world.counters.bytes_in += count as u64;
            let consumed = match protocol {
                Protocol::Msrp => world.handle_msrp(link, &buffer),
                Protocol::Sip | Protocol::SipDatagram => world.handle_sip(link, &buffer),
            };
            world.pump(now);
            consumed
        };
        flush(shared);
        let Some(consumed) = consumed else {
            return;
        };
        buffer.drain(..consumed);
        if filled + count >= size && size < MSRP_READ_MAX {
            size = (size * 4).min(MSRP_READ_MAX);
        }
        let room = buffer.capacity() - buffer.len();
        if room < size / 2 {
            buffer.reserve(size.max(buffer.len()));
        }
    }
}

async fn write_all(shared: &Rc<Shared>, stream: &TcpStream, link: LinkId, waker: &Waker) {
    let mut spare = Vec::new();
    loop {
        shared.world.borrow_mut().outbox.take(link, &mut spare);
        if spare.is_empty() {
            if *waker.ended.borrow() {
                return;
            }
            if *waker.closing.borrow() {
                let how = if *waker.reset.borrow() && linger_not(stream).is_ok() {
                    // Our reader ends, and the last close of the socket resets the connection.
                    std::net::Shutdown::Read
                } else {
                    std::net::Shutdown::Both
                };
                let _ = stream.shutdown(how);
                return;
            }
            waker.notify.notified().await;
            continue;
        }
        let (outcome, buffer) = stream.write_all(spare).await;
        spare = buffer;
        spare.clear();
        if outcome.is_err() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// Makes the close of a connection a reset. The runtime lends no socket, so this goes by a duplicate.
fn linger_not(stream: &TcpStream) -> std::io::Result<()> {
    let own = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )?;
    let flags = rustix::process::PidfdGetfdFlags::empty();
    let socket = rustix::process::pidfd_getfd(&own, stream.as_raw_fd(), flags)?;
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}
