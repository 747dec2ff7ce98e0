//! The driver: carries octets between sockets and the world, on one thread with tokio-uring.
//!
//! Each stream has one reader and one writer in one task; a batch of received messages is handled in
//! one turn, and whatever it appended to a connection leaves in one write. Connections per session
//! (MSRP) start with small buffers that grow when a read fills them.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::sync::Notify;
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::{TcpListener, TcpStream};

use crate::cpu::{self, Usage};
use crate::host;
use crate::link::{Connect, LinkId, Protocol};
use crate::stats::Counters;
use crate::world::{Step, World};

/// Read buffer of a SIP connection, octets.
const SIP_READ: usize = 256 * 1024;
/// First read buffer of an MSRP connection, octets; it grows up to [`MSRP_READ_MAX`].
const MSRP_READ: usize = 4 * 1024;
/// Largest read buffer of an MSRP connection, octets.
const MSRP_READ_MAX: usize = 256 * 1024;
/// Longest and shortest distance between two looks at the schedule.
const TICK_MAX: Duration = Duration::from_millis(5);
const TICK_MIN: Duration = Duration::from_micros(50);

/// A step's start: time, counters and CPU.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The step that begins.
    pub step: Step,
    /// Nanoseconds of the run.
    pub at: u64,
    /// Events so far.
    pub counters: Counters,
    /// This process.
    pub own: Usage,
    /// The engine, when its process is known and alive.
    pub engine: Option<Usage>,
    /// The host.
    pub host: host::Sample,
}

/// Why a run could not take place.
#[derive(Debug)]
pub enum DriveError {
    /// A listening address could not be taken.
    Bind(&'static str, SocketAddr, io::Error),
    /// The engine did not accept connections.
    Unreachable(SocketAddr, io::Error),
}

/// What the driver's tasks share.
struct Shared {
    world: RefCell<World>,
    wakers: RefCell<Vec<Rc<Waker>>>,
    marks: RefCell<Vec<Mark>>,
    start: Instant,
    waiting: RefCell<u16>,
    failed: RefCell<Option<DriveError>>,
    done: Notify,
    datagrams: Notify,
}

#[derive(Default)]
struct Waker {
    notify: Notify,
    closing: RefCell<bool>,
}

/// Handle on a running world.
pub struct Driver {
    shared: Rc<Shared>,
}

impl core::fmt::Debug for Driver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Driver")
    }
}

/// Listening sockets, taken before the world is built, so that port 0 works.
#[derive(Debug)]
pub struct Listeners {
    sip: Option<std::net::TcpListener>,
    datagram: Option<std::net::UdpSocket>,
    msrp: std::net::TcpListener,
}

impl Listeners {
    /// Takes the addresses and writes the final ones back.
    pub fn bind(setup: &mut crate::scenario::Setup) -> Result<Self, DriveError> {
        let listen = |name, address: SocketAddr| {
            listener(address).map_err(|error| DriveError::Bind(name, address, error))
        };
        let (mut sip, mut datagram) = (None, None);
        match setup.transport {
            crate::scenario::Transport::Tcp => {
                let socket = listen("--scscf-listen", setup.scscf_listen)?;
                if let Ok(address) = socket.local_addr() {
                    setup.scscf_listen = address;
                }
                sip = Some(socket);
            }
            crate::scenario::Transport::Udp => {
                let address = setup.scscf_listen;
                let socket = datagram_socket(address)
                    .map_err(|error| DriveError::Bind("--scscf-listen", address, error))?;
                if let Ok(address) = socket.local_addr() {
                    setup.scscf_listen = address;
                }
                datagram = Some(socket);
            }
        }
        let msrp = listen("--msrp-listen", setup.msrp_listen)?;
        if let Ok(address) = msrp.local_addr() {
            setup.msrp_listen = address;
        }
        Ok(Self {
            sip,
            datagram,
            msrp,
        })
    }
}

fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn datagram_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.bind(&address.into())?;
    socket.set_recv_buffer_size(16 * 1024 * 1024)?;
    socket.set_send_buffer_size(4 * 1024 * 1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Driver {
    /// Starts every task of a world; must run inside the tokio-uring runtime.
    pub fn start(world: World, listeners: Listeners) -> Self {
        let waiting = world.setup.connections;
        let shared = Rc::new(Shared {
            world: RefCell::new(world),
            wakers: RefCell::new(Vec::new()),
            marks: RefCell::new(Vec::new()),
            start: Instant::now(),
            waiting: RefCell::new(waiting),
            failed: RefCell::new(None),
            done: Notify::new(),
            datagrams: Notify::new(),
        });
        if let Some(socket) = listeners.sip {
            accept(&shared, TcpListener::from_std(socket), Protocol::Sip);
        }
        accept(
            &shared,
            TcpListener::from_std(listeners.msrp),
            Protocol::Msrp,
        );
        let datagram = listeners.datagram.is_some();
        if let Some(socket) = listeners.datagram {
            let socket = tokio::net::UdpSocket::from_std(socket).expect("inside the runtime");
            datagrams(&shared, Rc::new(socket));
        }
        {
            let mut world = shared.world.borrow_mut();
            world.open_links(if datagram {
                Protocol::SipDatagram
            } else {
                Protocol::Sip
            });
        }
        if datagram {
            shared.world.borrow_mut().start(0);
        }
        flush(&shared);
        tokio_uring::spawn(tick(Rc::clone(&shared)));
        Self { shared }
    }

    /// Waits for the end of the run.
    pub async fn done(&self) -> Result<(), DriveError> {
        self.shared.done.notified().await;
        match self.shared.failed.borrow_mut().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Looks at the world between turns.
    pub fn world<R>(&self, look: impl FnOnce(&mut World) -> R) -> R {
        look(&mut self.shared.world.borrow_mut())
    }

    /// Starts of steps so far.
    pub fn marks(&self) -> Vec<Mark> {
        self.shared.marks.borrow().clone()
    }

    /// Nanoseconds of the run.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn waker(&self, link: LinkId) -> Rc<Waker> {
        let mut wakers = self.wakers.borrow_mut();
        let index = link as usize;
        while wakers.len() <= index {
            wakers.push(Rc::default());
        }
        Rc::clone(&wakers[index])
    }

    fn fail(&self, error: DriveError) {
        self.failed.borrow_mut().get_or_insert(error);
        self.done.notify_one();
    }

    fn mark(&self, world: &mut World) {
        world.director.changed = false;
        let now = world.now;
        sample(world, now, true);
        let engine = world.setup.engine_pid.and_then(cpu::read);
        let own = cpu::read_own_thread();
        world.counters.bytes_out = world.outbox.bytes;
        self.marks.borrow_mut().push(Mark {
            step: world.director.step,
            at: world.now,
            counters: world.counters,
            own,
            engine,
            host: host::read(),
        });
        if world.director.step == Step::Done {
            self.done.notify_one();
        }
    }
}

/// Carries out what the world asked for.
fn flush(shared: &Rc<Shared>) {
    let mut world = shared.world.borrow_mut();
    if world.director.changed {
        shared.mark(&mut world);
    }
    if !world.outbox.dirty.is_empty() {
        let wakers = shared.wakers.borrow();
        let mut datagram = false;
        let mut kept = Vec::new();
        let dirty = core::mem::take(&mut world.outbox.dirty);
        for &link in &dirty {
            if world.outbox.peek(link).protocol == Protocol::SipDatagram {
                datagram = true;
                kept.push(link);
            } else if let Some(waker) = wakers.get(link as usize) {
                waker.notify.notify_one();
            }
        }
        world.outbox.dirty = dirty;
        world.outbox.dirty.clear();
        if datagram {
            // The datagram task takes these itself.
            world.outbox.dirty.extend_from_slice(&kept);
            shared.datagrams.notify_one();
        }
    }
    while let Some(connect) = world.outbox.connects.pop() {
        if connect.protocol != Protocol::SipDatagram {
            let waker = renew(shared, connect.link);
            tokio_uring::spawn(outgoing(Rc::clone(shared), connect, waker));
        }
    }
    while let Some(link) = world.outbox.closes.pop() {
        let waker = shared.waker(link);
        *waker.closing.borrow_mut() = true;
        waker.notify.notify_one();
    }
}

/// A fresh waker for a link number that may have served another connection before.
fn renew(shared: &Shared, link: LinkId) -> Rc<Waker> {
    shared.waker(link);
    let waker = Rc::new(Waker::default());
    shared.wakers.borrow_mut()[link as usize] = Rc::clone(&waker);
    waker
}

fn accept(shared: &Rc<Shared>, listener: TcpListener, protocol: Protocol) {
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
                world.outbox.add(protocol, peer)
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
async fn outgoing(shared: Rc<Shared>, connect: Connect, waker: Rc<Waker>) {
    let mut first = true;
    loop {
        match TcpStream::connect(connect.address).await {
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
                shared.world.borrow_mut().counters.links_lost += 1;
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
        *waker.closing.borrow_mut() = true;
        waker.notify.notify_one();
    };
    tokio::join!(read, write_all(shared, stream, link, waker));
    *waker.closing.borrow_mut() = false;
}

async fn read_all(shared: &Rc<Shared>, stream: &TcpStream, link: LinkId, protocol: Protocol) {
    let mut size = if protocol == Protocol::Msrp {
        MSRP_READ
    } else {
        SIP_READ
    };
    let mut buffer: Vec<u8> = Vec::with_capacity(size);
    loop {
        let filled = buffer.len();
        let (outcome, slice) = stream.read(buffer.slice(filled..)).await;
        buffer = slice.into_inner();
        let Ok(count @ 1..) = outcome else {
            return;
        };
        let consumed = {
            let mut world = shared.world.borrow_mut();
            let now = shared.now();
            world.now = now;
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
            if *waker.closing.borrow() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
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

/// One socket for every SIP peer over UDP.
fn datagrams(shared: &Rc<Shared>, socket: Rc<tokio::net::UdpSocket>) {
    let (reader, writer) = (Rc::clone(shared), Rc::clone(shared));
    let sending = Rc::clone(&socket);
    tokio_uring::spawn(async move {
        let mut buffer = vec![0u8; 65_536];
        while socket.readable().await.is_ok() {
            receive_batch(&reader, &socket, &mut buffer);
            flush(&reader);
        }
    });
    tokio_uring::spawn(async move {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        loop {
            let next = {
                let mut world = writer.world.borrow_mut();
                let link = world.outbox.dirty.pop();
                link.map(|link| {
                    let entry = world.outbox.link(link);
                    ends.clear();
                    ends.extend_from_slice(&entry.ends);
                    let peer = entry.peer;
                    world.outbox.take(link, &mut bytes);
                    peer
                })
            };
            let Some(peer) = next else {
                writer.datagrams.notified().await;
                continue;
            };
            let mut from = 0;
            for &end in &ends {
                let _ = sending.send_to(&bytes[from..end as usize], peer).await;
                from = end as usize;
            }
            bytes.clear();
        }
    });
}

fn receive_batch(shared: &Rc<Shared>, socket: &tokio::net::UdpSocket, buffer: &mut [u8]) {
    let mut world = shared.world.borrow_mut();
    let now = shared.now();
    world.now = now;
    world.counters.turns += 1;
    for _ in 0..256 {
        let Ok((count, peer)) = socket.try_recv_from(buffer) else {
            break;
        };
        world.counters.bytes_in += count as u64;
        let link = world.datagram_link(peer);
        let _ = world.handle_sip(link, &buffer[..count]);
    }
    world.pump(now);
}

/// Looks at the schedule when the next trigger is due, and every few milliseconds. The runtime's own
/// timer counts in milliseconds, so this reads a timerfd through the ring.
async fn tick(shared: Rc<Shared>) {
    let Ok(timer) = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC) else {
        return coarse_tick(shared).await;
    };
    let Ok(arm) = timer.try_clone() else {
        return coarse_tick(shared).await;
    };
    let timer = tokio_uring::fs::File::from_std(std::fs::File::from(timer));
    let mut expirations = vec![0u8; 8];
    loop {
        let due = shared.world.borrow().next_due();
        let wait = due
            .map_or(TICK_MAX, |due| {
                Duration::from_nanos(due.saturating_sub(shared.now()))
            })
            .clamp(TICK_MIN, TICK_MAX);
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(wait.subsec_nanos()),
            },
        };
        if timerfd_settime(&arm, TimerfdTimerFlags::empty(), &once).is_err() {
            return coarse_tick(shared).await;
        }
        let (outcome, buffer) = timer.read_at(expirations, 0).await;
        expirations = buffer;
        if outcome.is_err() {
            return coarse_tick(shared).await;
        }
        pump(&shared);
    }
}

/// Enters the counts into the timeline, once for each of its slots.
fn sample(world: &mut World, now: u64, always: bool) {
    let measured = world.setup.kind.measured();
    let over = world.director.step > measured && world.director.step != Step::Drain;
    if world.director.step < measured || over || (!always && now < world.timeline.next_sample()) {
        return;
    }
    let engine = world.setup.engine_pid.and_then(cpu::read);
    let own = cpu::read_own_thread();
    let totals = world.totals(engine.map_or(0, |usage| usage.run_ns), own.run_ns);
    let open = world.director.open;
    world.timeline.sample(now, totals, open);
}

async fn coarse_tick(shared: Rc<Shared>) {
    loop {
        tokio::time::sleep(TICK_MAX).await;
        pump(&shared);
    }
}

fn pump(shared: &Rc<Shared>) {
    let now = shared.now();
    let mut world = shared.world.borrow_mut();
    world.pump(now);
    sample(&mut world, now, false);
    drop(world);
    flush(shared);
}
