//! Sockets that are looked at all the time: nobody who sends here wakes a sleeper, and none is billed for
//! it. Calls are batched (`recvmmsg`, `sendmmsg`, one write for a turn), so that this side costs little.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt,
    sockopt,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::net::trains::Trains;
use crate::scan::{Message, Scanned, Table, scan};
use crate::scenario::Transport;

/// Datagrams of one call, received and sent.
const BATCH: usize = 64;
/// Octets of a receive buffer over UDP: a joined train at most.
const DATAGRAM_BYTES: usize = 65_536;
/// Largest datagram that is put into a train: what the loopback takes whole.
const SEGMENT_BYTES: usize = 60_000;
/// Octets read from a connection in one call.
const READ_BYTES: usize = 256 * 1024;
/// Octets of the socket's buffers that are asked for.
const SOCKET_BYTES: usize = 16 << 20;
/// Turns between two looks for new connections.
const ACCEPT_TURNS: u32 = 64;

/// A connection, or the address of a peer over UDP.
pub(super) type LineId = usize;

/// What happens with a message.
pub(super) trait Role {
    /// Takes a message that came on `line`; what it says goes into `lines`.
    fn message(&mut self, line: LineId, message: &Message<'_>, lines: &mut Lines);
}

/// What waits to leave on each line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Vec<Line>,
    dirty: Vec<LineId>,
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<u32>,
    /// Octets that left (connections), messages that left (datagrams).
    left: usize,
    dirty: bool,
}

impl Lines {
    /// The buffer that a message for `line` is appended to; [`Self::end`] follows.
    #[inline]
    pub(super) fn buffer(&mut self, line: LineId) -> &mut Vec<u8> {
        &mut self.lines[line].bytes
    }

    /// Ends a message.
    #[inline]
    pub(super) fn end(&mut self, line: LineId) {
        let entry = &mut self.lines[line];
        entry.ends.push(entry.bytes.len() as u32);
        if !core::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(line);
        }
    }

    fn add(&mut self) -> LineId {
        self.lines.push(Line::default());
        self.lines.len() - 1
    }
}

impl Line {
    fn forget(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.left = 0;
        self.dirty = false;
    }
}

/// The sockets of one transport.
#[derive(Debug)]
pub(super) struct Wire {
    /// What waits to leave.
    pub(super) lines: Lines,
    table: Table,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    Tcp(Streams),
    Udp(Datagrams),
}

#[derive(Debug)]
struct Datagrams {
    socket: UdpSocket,
    peers: Vec<SocketAddr>,
    buffers: Vec<Vec<u8>>,
    headers: MultiHeaders<SockaddrStorage>,
    /// What leaves is put into trains, as long as the path takes them.
    trains: Option<Trains>,
}

#[derive(Debug)]
struct Streams {
    listener: TcpListener,
    /// By line; `None` when it ended.
    streams: Vec<Option<(TcpStream, Vec<u8>)>>,
    spare: Vec<u8>,
    until_accept: u32,
}

impl Wire {
    /// Binds `address`. With `trains` datagrams are taken joined (`UDP_GRO`) and sent so (`UDP_SEGMENT`).
    pub(super) fn bind(
        address: SocketAddr,
        transport: Transport,
        trains: bool,
    ) -> io::Result<Self> {
        let sockets = match transport {
            Transport::Tcp => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Sockets::Tcp(Streams {
                    listener,
                    streams: Vec::new(),
                    spare: vec![0; READ_BYTES],
                    until_accept: 0,
                })
            }
            Transport::Udp => Sockets::Udp(Datagrams::bind(address, trains)?),
        };
        Ok(Self {
            lines: Lines::default(),
            table: Table::default(),
            sockets,
        })
    }

    /// The line to `address`, which is opened.
    pub(super) fn line_to(&mut self, address: SocketAddr) -> io::Result<LineId> {
        match &mut self.sockets {
            Sockets::Tcp(streams) => {
                let stream = TcpStream::connect(address)?;
                streams.add(stream, &mut self.lines)
            }
            Sockets::Udp(datagrams) => Ok(datagrams.line(address, &mut self.lines)),
        }
    }

    /// Waits until something has come, for a moment at most: a caller that would only look again and again
    /// is not to be billed for it.
    pub(super) fn wait(&self) {
        let socket = match &self.sockets {
            Sockets::Tcp(streams) => streams
                .streams
                .iter()
                .flatten()
                .next()
                .map(|(it, _)| it.as_fd()),
            Sockets::Udp(datagrams) => Some(datagrams.socket.as_fd()),
        };
        if let Some(socket) = socket {
            let mut ready = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
            let moment = Timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000,
            };
            let _ = poll(&mut ready, Some(&moment));
        }
    }

    /// Takes in what has come, and sends what was said: number of messages.
    pub(super) fn turn(&mut self, role: &mut impl Role) -> io::Result<u64> {
        let (lines, table) = (&mut self.lines, &mut self.table);
        match &mut self.sockets {
            Sockets::Tcp(streams) => {
                let count = streams.receive(table, lines, role)?;
                streams.send(lines);
                Ok(count)
            }
            Sockets::Udp(datagrams) => {
                let count = datagrams.receive(table, lines, role)?;
                datagrams.send(lines)?;
                Ok(count)
            }
        }
    }
}

impl Datagrams {
    fn bind(address: SocketAddr, trains: bool) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
        socket.bind(&address.into())?;
        // Root may ask for more than the host's bound.
        if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BYTES).is_err() {
            socket.set_recv_buffer_size(SOCKET_BYTES)?;
        }
        socket.set_send_buffer_size(SOCKET_BYTES)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::UdpGroSegment, &trains)?;
        Ok(Self {
            socket: socket.into(),
            peers: Vec::new(),
            buffers: vec![vec![0; DATAGRAM_BYTES]; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
            trains: trains.then(|| Trains::new(SEGMENT_BYTES)),
        })
    }

    fn line(&mut self, peer: SocketAddr, lines: &mut Lines) -> LineId {
        if let Some(line) = self.peers.iter().position(|known| *known == peer) {
            return line;
        }
        self.peers.push(peer);
        lines.add()
    }

    fn receive(
        &mut self,
        table: &mut Table,
        lines: &mut Lines,
        role: &mut impl Role,
    ) -> io::Result<u64> {
        let mut filled = [(0, 0, None); BATCH];
        let mut count = 0;
        {
            // Made anew: a call leaves in them how much was received, not how much may be.
            let mut headers = MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(i32)));
            let mut slices: Vec<_> = self
                .buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT;
            let messages = match recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None) {
                Ok(messages) => messages,
                // Refused: a datagram before came to a port that nobody has any more.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(0),
                Err(error) => return Err(error.into()),
            };
            for message in messages {
                let mut segment = message.bytes;
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::UdpGroSegments(size) = control {
                        segment = usize::try_from(size).unwrap_or(0);
                    }
                }
                let peer = message.address.as_ref().and_then(crate::net::peer_of);
                filled[count] = (message.bytes, segment.max(1), peer);
                count += 1;
            }
        }
        let mut taken = 0;
        for (at, &(len, segment, peer)) in filled[..count].iter().enumerate() {
            let Some(peer) = peer else { continue };
            let line = self.line(peer, lines);
            for datagram in self.buffers[at][..len].chunks(segment) {
                if let Scanned::Message(message, _) = scan(datagram, table) {
                    taken += 1;
                    role.message(line, &message, lines);
                }
            }
        }
        Ok(taken)
    }

    /// Sends what waits on `line` in trains; `false` when the path takes none.
    fn send_trains(&mut self, line: &Line, peer: &SockaddrStorage) -> io::Result<bool> {
        let Some(trains) = self.trains.as_mut().filter(|_| line.left == 0) else {
            return Ok(false);
        };
        for train in trains.sort(&line.ends) {
            loop {
                match train.send(self.socket.as_raw_fd(), &line.bytes, peer) {
                    Ok(()) | Err(Errno::ECONNREFUSED) => break,
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) => {
                        // What left before it leaves once more, this one time.
                        self.trains = None;
                        return Ok(false);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(true)
    }

    fn send(&mut self, lines: &mut Lines) -> io::Result<()> {
        let mut at = 0;
        while at < lines.dirty.len() {
            let id = lines.dirty[at];
            let peer = SockaddrStorage::from(self.peers[id]);
            if self.send_trains(&lines.lines[id], &peer)? {
                lines.lines[id].left = lines.lines[id].ends.len();
            }
            let line = &mut lines.lines[id];
            while line.left < line.ends.len() {
                let batch = &line.ends[line.left..line.ends.len().min(line.left + BATCH)];
                let mut from = line
                    .left
                    .checked_sub(1)
                    .map_or(0, |last| line.ends[last] as usize);
                let slices: Vec<_> = batch
                    .iter()
                    .map(|&end| {
                        let slice = IoSlice::new(&line.bytes[from..end as usize]);
                        from = end as usize;
                        [slice]
                    })
                    .collect();
                let peers = [Some(peer); BATCH];
                let fd = self.socket.as_raw_fd();
                let flags = MsgFlags::MSG_DONTWAIT;
                let peers = &peers[..slices.len()];
                match sendmmsg(fd, &mut self.headers, &slices, peers, [], flags) {
                    Ok(sent) => line.left += sent.count().max(1),
                    Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if line.left >= line.ends.len() {
                line.forget();
                lines.dirty.swap_remove(at);
            } else {
                at += 1;
            }
        }
        Ok(())
    }
}

impl Streams {
    fn add(&mut self, stream: TcpStream, lines: &mut Lines) -> io::Result<LineId> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.streams
            .push(Some((stream, Vec::with_capacity(2 * READ_BYTES))));
        Ok(lines.add())
    }

    fn receive(
        &mut self,
        table: &mut Table,
        lines: &mut Lines,
        role: &mut impl Role,
    ) -> io::Result<u64> {
        if self.until_accept == 0 {
            self.until_accept = ACCEPT_TURNS;
            if let Ok((stream, _)) = self.listener.accept() {
                self.add(stream, lines)?;
            }
        }
        self.until_accept -= 1;
        let mut taken = 0;
        for line in 0..self.streams.len() {
            let Some((stream, kept)) = &mut self.streams[line] else {
                continue;
            };
            let count = match stream.read(&mut self.spare) {
                Ok(count @ 1..) => count,
                Err(error) if retried(&error) => continue,
                Ok(0) | Err(_) => {
                    self.streams[line] = None;
                    continue;
                }
            };
            // Nearly always a read ends with a message: then nothing is copied.
            let whole = kept.is_empty();
            if !whole {
                kept.extend_from_slice(&self.spare[..count]);
            }
            let bytes: &[u8] = if whole { &self.spare[..count] } else { kept };
            let mut at = 0;
            let mut lost = false;
            while at < bytes.len() {
                match scan(&bytes[at..], table) {
                    Scanned::Message(message, len) => {
                        taken += 1;
                        role.message(line, &message, lines);
                        at += len;
                    }
                    Scanned::KeepAlive(len) => at += len,
                    Scanned::Incomplete => break,
                    Scanned::Error(_) => {
                        lost = true;
                        break;
                    }
                }
            }
            if whole {
                kept.extend_from_slice(&self.spare[at..count]);
            } else {
                kept.drain(..at);
            }
            if lost {
                self.streams[line] = None;
            }
        }
        Ok(taken)
    }

    fn send(&mut self, lines: &mut Lines) {
        let mut at = 0;
        while at < lines.dirty.len() {
            let id = lines.dirty[at];
            let line = &mut lines.lines[id];
            while line.left < line.bytes.len() {
                let Some((stream, _)) = &mut self.streams[id] else {
                    line.left = line.bytes.len();
                    break;
                };
                match stream.write(&line.bytes[line.left..]) {
                    Ok(count) => line.left += count,
                    Err(error) if retried(&error) => break,
                    Err(_) => self.streams[id] = None,
                }
            }
            if line.left >= line.bytes.len() {
                line.forget();
                lines.dirty.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }
}

fn retried(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
