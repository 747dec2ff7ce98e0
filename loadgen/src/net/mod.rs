//! The driver: carries octets between sockets and the world, on one thread with tokio-uring.
//!
//! `listen` takes the addresses, `tcp` serves streams, `udp` the one datagram socket, `trains` puts
//! datagrams together, `timer` looks at the schedule; here is what they share.

mod listen;
mod tcp;
mod timer;
pub(crate) mod trains;
mod udp;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_uring::net::TcpListener;

use crate::cpu::{self, Usage};
use crate::host;
use crate::link::{LinkId, Protocol};
use crate::stats::Counters;
use crate::world::{Step, World};

pub use listen::Listeners;
use tcp::{accept, outgoing};
use timer::tick;
use udp::datagrams;
pub(crate) use udp::peer_of;

/// A step's start: time, counters and CPU.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The step that begins.
    pub step: Step,
    /// Nanoseconds of the run.
    pub at: u64,
    /// Events so far.
    pub counters: Counters,
    /// The workers' threads of this process.
    pub own: Vec<Usage>,
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
    /// Readers of SIP streams may go on, when they gather.
    cadence: Notify,
}

#[derive(Default)]
struct Waker {
    notify: Notify,
    closing: RefCell<bool>,
    /// The peer has ended the connection: the close of our socket is all it takes.
    ended: RefCell<bool>,
    /// The connection ends with a reset.
    reset: RefCell<bool>,
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

impl Driver {
    /// Starts every task of a world; must run inside the tokio-uring runtime.
    ///
    /// `start` is the beginning of the run, the same for every worker.
    pub fn start(world: World, listeners: Listeners, start: Instant) -> Self {
        let waiting = world.setup.connections;
        let shared = Rc::new(Shared {
            world: RefCell::new(world),
            wakers: RefCell::new(Vec::new()),
            marks: RefCell::new(Vec::new()),
            start,
            waiting: RefCell::new(waiting),
            failed: RefCell::new(None),
            done: Notify::new(),
            datagrams: Notify::new(),
            cadence: Notify::new(),
        });
        for (hop, socket) in (0..).zip(listeners.sip) {
            accept(&shared, TcpListener::from_std(socket), Protocol::Sip, hop);
        }
        let msrp = TcpListener::from_std(listeners.msrp);
        accept(&shared, msrp, Protocol::Msrp, 0);
        let datagram = listeners.datagram.is_some();
        if let Some(socket) = listeners.datagram {
            let socket = tokio::net::UdpSocket::from_std(socket).expect("inside the runtime");
            let style = shared.world.borrow().setup.reply_style;
            datagrams(&shared, Rc::new(socket), style);
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
        let now = world.now();
        sample(world, now, true);
        let engine = world.setup.engine_pid.and_then(cpu::read);
        let own = cpu::read_own_thread();
        world.counters.bytes_out = world.outbox.bytes;
        self.marks.borrow_mut().push(Mark {
            step: world.director.step,
            at: now,
            counters: world.counters,
            own: vec![own],
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
    while let Some(link) = world.outbox.resets.pop() {
        *shared.waker(link).reset.borrow_mut() = true;
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
