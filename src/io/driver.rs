//! The datapath: one task that turns completions into inputs of a [`Core`] and its outputs into
//! operations.
//!
//! ```text
//! turn: enter (submits what the last turn queued, collects what has happened)
//!       -> reap a bounded batch -> read the clock once -> handle each -> mesh -> store
//!       -> advance -> drain every poll to its end
//! then: the tasks of the thread; again while there is work, else wait in the ring, or in the executor
//!       where that has something under way
//! ```
//! Invariants: the core sees bytes of one stream in order, at most one send per link is in flight,
//! and no link id is used after its `Closed`. When the core has no room, received buffers are held
//! back; the kernel runs out of buffers and the peers run into flow control.
//!
//! Streams are handled in `io::tcp`, datagram sockets in `io::udp`.

use core::future::poll_fn;
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::base::map::MapKeys;
use crate::base::surface::{
    Core, Input, LinkCommand, LinkId, LinkKind, MeshFrame, StoreBatch, StoreDone, TxBuf,
};
use crate::base::time::Timestamp;

use super::backend::{Backend, Ring};
use super::bufs::TxPool;
use super::clock::Clock;
use super::exec::Attached;
use super::links::{Links, SourceCap};
use super::listen::ShardSockets;
use super::mesh::Mesh;
use super::names::{Answers, Asker};
use super::park::{Parker, breathe};
use super::poll::PollRing;
use super::recorder::Recorder;
use super::ring::{Completion, DATAGRAM_GROUP, Kind, REAP_BYTES, SLOTS_MAX, STREAM_GROUP, Token};
use super::stats::{Counters, DriverStats};
use super::sys::{DATAGRAM_HEADROOM, RawRing};
use super::tcp::Sources;
use super::trains::{Refusals, Sorter, TRAIN_SEGMENT_BYTES};
use super::udp::SocketGroup;

pub use super::stores::{NullStore, StoreDriver};

/// Completions handled in one turn before outputs are drained.
const REAP_BATCH: usize = 512;
/// A turn that took this long is slow.
const SLOW_TURN: Duration = Duration::from_millis(10);
/// Mesh frames taken from one shard in one turn.
const MESH_BATCH: usize = 256;
/// Store completions taken in one turn.
const STORE_BATCH: usize = 8;
/// Rounds of draining outputs in one turn: a datagram socket may take several buffers.
const DRAIN_ROUNDS: usize = 64;
/// Turns between two publications of the counters while busy.
const PUBLISH_TURNS: u64 = 64;
/// How often the wall clock is read, and deadlines of links are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The same while a link has a deadline of less than a second.
const TICK_URGENT: Duration = Duration::from_millis(100);
/// How long a busy datapath works before the executor looks at its own completions.
const STRETCH: Duration = Duration::from_millis(2);
/// The same while a task waits for one of those.
const STRETCH_WAITED_FOR: Duration = Duration::from_micros(250);
/// How long to wait for operations to end when the ring is taken down.
const TEARDOWN_ROUNDS: usize = 100;
/// A shard that had something to do all this time is behind.
const BEHIND: Duration = Duration::from_millis(4);
/// How long a checkpoint waits for a shard that is behind. Until then the journal grows, and with it what a start
/// has to read.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(30);
/// How soon to look again when another shard's queue is full.
const MESH_RETRY: Duration = Duration::from_millis(1);

/// Bounds and sizes of a driver. Defaults suit a shard of a production host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverOptions {
    /// Most connections of the shard, accepted and opened together; at most 2^24.
    pub connections_max: u32,
    /// Most accepted connections of one source, an IPv4 address or an IPv6 /64; 0 is no cap.
    pub connections_per_source_max: u32,
    /// Source addresses without that cap.
    pub uncapped_sources: Arc<[IpAddr]>,
    /// Receive buffers of streams; a power of two, at most 32,768.
    pub stream_buffers: u16,
    /// Octets of each.
    pub stream_buffer_bytes: u32,
    /// Receive buffers of datagram sockets; a power of two, at most 32,768. Each has 64 KiB.
    pub datagram_buffers: u16,
    /// Send equal-sized datagrams up to this size, which the path takes whole, as trains (UDP GSO) and take
    /// joined ones in (UDP GRO); a host tries first whether the kernel can. 0: one by one, both ways.
    pub train_segment_bytes_max: u16,
    /// Limit for connecting a stream.
    pub connect_limit: Duration,
    /// A connection whose peer takes nothing for this long is closed: after twice as long at the latest,
    /// since what it took before is not known the first time.
    pub stall_limit: Duration,
    /// How long a peer that has sent its last octet is still answered.
    pub half_closed_limit: Duration,
    /// How long a peer that is to close a connection may take, before we do; noticed a second later at the latest.
    pub leave_limit: Duration,
    /// Connections that may wait for that at a time; one more is closed at once. The default is for the ends of 20,000
    /// sessions a second of peers that are 0.2 s away.
    pub leaving_max: u32,
    /// How long the octets of a peer are thrown away after we closed, before the socket goes.
    pub linger_limit: Duration,
    /// How long a drain may take before the shard stops anyway.
    pub drain_limit: Duration,
    /// What to run on. The host decides what [`Backend::Auto`] comes to.
    pub backend: Backend,
    /// Octets of the flight recorder; 0 is none.
    pub recorder_bytes: usize,
    /// It keeps bodies of MSRP, too.
    pub recorder_bodies: bool,
    /// How long a wait of a shard without work gathers before something ends it, so that turns are fewer and
    /// larger; zero: not at all. Only where the kernel can (io_uring, Linux 6.12).
    pub gather: Duration,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            connections_max: 130_000,
            connections_per_source_max: 0,
            uncapped_sources: Arc::default(),
            stream_buffers: 1024,
            stream_buffer_bytes: 16 * 1024,
            datagram_buffers: 128,
            train_segment_bytes_max: TRAIN_SEGMENT_BYTES,
            connect_limit: Duration::from_secs(10),
            stall_limit: Duration::from_secs(30),
            half_closed_limit: Duration::from_millis(300),
            leave_limit: Duration::from_secs(1),
            leaving_max: 4096,
            linger_limit: Duration::from_secs(2),
            drain_limit: Duration::from_secs(10),
            backend: Backend::Auto,
            recorder_bytes: 0,
            recorder_bodies: false,
            gather: Duration::ZERO,
        }
    }
}

/// What the shards of a process share: queues, and the wish to stop.
#[derive(Debug)]
pub(super) struct Shared {
    pub mesh: Mesh,
    pub answers: Answers,
    pub stop: AtomicBool,
    /// Somebody outside wants a word with the shard of this place.
    pub asked: Vec<AtomicBool>,
}

/// Why a driver shows its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Somebody asked for it.
    Asked,
    /// About a second has passed.
    Tick,
}

/// A listener of the driver.
pub(super) struct Listener {
    pub fd: OwnedFd,
    pub address: core::net::SocketAddr,
    pub kind: LinkKind,
    pub armed: bool,
}

/// Runs one core on one ring.
pub(super) struct Driver<C, S> {
    pub(super) core: C,
    pub(super) store: S,
    pub(super) ring: Ring,
    /// What the tasks of this thread ask of the ring.
    tasks: Option<Attached>,
    pub(super) links: Links,
    pub(super) listeners: Vec<Listener>,
    pub(super) options: DriverOptions,
    pub(super) now: Timestamp,
    pub(super) counters: Counters,
    pub(super) pool: TxPool,
    pub(super) recorder: Recorder,
    /// Received buffers the core had no room for, in order.
    deferred: VecDeque<Completion>,
    scratch: Vec<Completion>,
    pub(super) due: Vec<u32>,
    pub(super) sorter: Sorter,
    pub(super) refusals: Refusals,
    pub(super) socket_groups: Vec<SocketGroup>,
    /// Datagram sockets that may take a further buffer although one is in flight.
    pub(super) sent_datagrams: Vec<LinkId>,
    pub(super) sends_in_flight: u32,
    pub(super) trains_in_flight: u32,
    batch: StoreBatch,
    /// The store took no more; `batch` is offered again once it has finished something.
    batch_held: bool,
    /// A piece of a checkpoint.
    piece: Vec<u8>,
    /// A checkpoint waits until the shard is no longer behind.
    checkpoint_waits: bool,
    /// The wait before was short, and the next one gathers.
    gathers: bool,
    /// When there was last nothing to do.
    idle_at: Timestamp,
    done: StoreDone,
    pub(super) source: Sources,
    /// A frame whose queue was full. While it waits no other is polled.
    held_frame: Option<MeshFrame>,
    touched: Vec<bool>,
    clock: Clock,
    stats: Arc<DriverStats>,
    shared: Arc<Shared>,
    names: Asker,
    shard: usize,
    next_tick: Timestamp,
    wall_due: bool,
    /// The last turn found something to do.
    busy: bool,
    breathed: Timestamp,
    drain_until: Option<Timestamp>,
}

/// What a turn achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Idle,
    Some,
}

impl<C: Core, S: StoreDriver> Driver<C, S> {
    /// Builds ring and buffers. Must be called in the thread that will run it.
    pub(super) fn new(
        core: C,
        store: S,
        sockets: ShardSockets,
        mut options: DriverOptions,
        (shared, names): (Arc<Shared>, Asker),
        stats: Arc<DriverStats>,
    ) -> io::Result<Self> {
        let mut ring = if options.backend == Backend::Mmsg {
            Ring::Mmsg(PollRing::new()?)
        } else {
            Ring::Uring(RawRing::new(1024, 8192)?)
        };
        ring.add_group(options.stream_buffers, options.stream_buffer_bytes)?;
        let datagram_bytes = u32::try_from(DATAGRAM_HEADROOM).expect("small") + 64 * 1024;
        ring.add_group(options.datagram_buffers, datagram_bytes)?;
        let shard = usize::from(sockets.addresses.shard);
        ring.watch_wake(shared.mesh.wake(shard).fd())?;
        ring.signal_wake(false);
        if !ring.can_gather() {
            options.gather = Duration::ZERO;
        }
        let mut keys = [0_u64; 4];
        for key in &mut keys {
            *key = getrandom::u64().map_err(io::Error::other)?;
        }
        let clock = Clock;
        let bound = options.connections_max.min(SLOTS_MAX - 1);
        let cap = SourceCap::new(
            options.connections_per_source_max,
            Arc::clone(&options.uncapped_sources),
            MapKeys(keys),
        );
        let recorder = Recorder::new(options.recorder_bytes, options.recorder_bodies);
        let mut driver = Self {
            core,
            store,
            ring,
            tasks: None,
            links: Links::new(bound, cap),
            listeners: Vec::new(),
            options,
            now: clock.now(),
            counters: Counters::default(),
            pool: TxPool::default(),
            recorder,
            deferred: VecDeque::new(),
            scratch: Vec::with_capacity(REAP_BATCH),
            due: Vec::new(),
            sorter: Sorter::default(),
            refusals: Refusals::default(),
            socket_groups: Vec::new(),
            sent_datagrams: Vec::new(),
            sends_in_flight: 0,
            trains_in_flight: 0,
            batch: StoreBatch::default(),
            batch_held: false,
            piece: Vec::new(),
            checkpoint_waits: false,
            gathers: false,
            idle_at: clock.now(),
            done: StoreDone::default(),
            source: Sources::default(),
            held_frame: None,
            touched: vec![false; shared.mesh.shards()],
            clock,
            stats,
            shared,
            names,
            shard,
            next_tick: Timestamp::ZERO,
            wall_due: true,
            busy: false,
            breathed: Timestamp::ZERO,
            drain_until: None,
        };
        driver.tick();
        driver.adopt(sockets);
        Ok(driver)
    }

    fn adopt(&mut self, sockets: ShardSockets) {
        self.source = Sources::new(&sockets.addresses);
        let streams = sockets.sip_tcp.into_iter();
        let streams = streams.map(|listener| (LinkKind::SipInbound, listener));
        let msrp = core::iter::once((LinkKind::MsrpInbound, sockets.msrp));
        for (kind, listener) in streams.chain(msrp) {
            self.listeners.push(Listener {
                fd: listener.fd,
                address: listener.address,
                kind,
                armed: false,
            });
        }
        for socket in sockets.sip_udp {
            self.open_datagram_socket(socket);
        }
        self.arm_listeners();
    }

    /// Runs until the core has drained after a stop, or the drain took too long. `observe` sees
    /// the core between two turns, about once a second and at the end, and when it was asked for; true
    /// asks again.
    pub(super) async fn run(
        mut self,
        mut observe: impl FnMut(&mut C, &Recorder, Timestamp, Occasion) -> bool,
    ) -> io::Result<()> {
        let mut parker = self.ring.parker()?;
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        self.tasks = self.ring.attach(&waker);
        self.store.set_waker(waker);
        loop {
            let mut progress = self.turn()?;
            if self.wall_due {
                observe(&mut self.core, &self.recorder, self.now, Occasion::Tick);
            }
            if self.take_asked() {
                // What an order leads to leaves with the next turn.
                progress = Progress::Some;
                if observe(&mut self.core, &self.recorder, self.now, Occasion::Asked) {
                    self.shared.asked[self.shard].store(true, Ordering::Relaxed);
                }
            }
            if self.is_finished() {
                break;
            }
            let went_on = self.run_tasks(progress).await;
            if progress == Progress::Idle && !went_on {
                self.rest(&mut parker).await?;
            }
        }
        self.tear_down()?;
        observe(&mut self.core, &self.recorder, self.now, Occasion::Tick);
        self.publish();
        self.tasks = None;
        parker.finish().await;
        self.store.close().await;
        Ok(())
    }

    pub(super) fn turn(&mut self) -> io::Result<Progress> {
        let mut progress = Progress::Idle;
        self.counters.turns += 1;
        self.take_requests();
        // No progress by itself: the kernel's flag may be stale, see `rest`.
        if self.ring.wants_enter() {
            self.ring.enter(None)?;
        }
        let mut reaped = core::mem::take(&mut self.scratch);
        self.ring.reap(&mut reaped, REAP_BATCH, REAP_BYTES);
        let before = core::mem::replace(&mut self.now, self.clock.now());
        self.core.handed_over(self.now);
        if self.busy {
            let took = self.now.since(before);
            self.counters.slow_turns += u64::from(took >= SLOW_TURN);
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.counters.turn_us.record(us);
        }
        if self.now >= self.next_tick {
            self.tick();
        } else {
            self.wall_due = false;
        }
        if !reaped.is_empty() {
            progress = Progress::Some;
            self.counters.completions += reaped.len() as u64;
            self.counters.batches.record(reaped.len() as u64);
        }
        self.resume_deferred();
        let mut in_turn = reaped.drain(..).peekable();
        while let Some(completion) = in_turn.next() {
            if completion.buffer.is_some() {
                self.foresee(in_turn.peek());
            }
            self.dispatch(completion);
        }
        drop(in_turn);
        self.scratch = reaped;
        if self.take_frames() | self.take_answers() | self.take_stored() | self.check_stop() {
            progress = Progress::Some;
        }
        self.core.advance(self.now);
        let any = self.drain_outputs() | self.feed_checkpoint();
        let readable = !self.deferred.is_empty() && self.core.room();
        let due = self.core.next_deadline().is_some_and(|at| at <= self.now);
        if any || readable || due {
            progress = Progress::Some;
        }
        if progress == Progress::Idle {
            self.idle_at = self.now;
            let goes_on = self.core.caught_up() | core::mem::take(&mut self.checkpoint_waits);
            if goes_on {
                progress = Progress::Some;
            }
        }
        self.busy = progress == Progress::Some;
        if self.counters.turns.is_multiple_of(PUBLISH_TURNS) {
            self.publish();
        }
        Ok(progress)
    }

    /// Once a second or so: the wall clock, overdue links, connected datagram sockets without use,
    /// listeners that ran out of descriptors.
    fn tick(&mut self) {
        self.wall_due = true;
        self.core.handle(self.now, Input::Wall(self.clock.wall()));
        self.counters.cpu_us = self.clock.thread_cpu_us();
        let (writes, reads) = self.store.memory();
        self.counters.store_write_bytes = writes as u64;
        self.counters.store_read_bytes = reads as u64;
        self.counters.note_store(&self.store.totals());
        self.counters.send_bytes = self.pool.idle_bytes() as u64;
        self.sweep();
        self.give_up_idle_sockets();
        self.arm_listeners();
        let pause = if self.links.urgent > 0 {
            TICK_URGENT
        } else {
            TICK
        };
        self.next_tick = self.now + pause;
    }

    /// Brings the next tick forward because a link got a deadline of less than a second.
    pub(super) fn hurry_tick(&mut self) {
        self.next_tick = self.next_tick.min(self.now + TICK_URGENT);
    }

    /// Tells the core what octets come behind those that are next.
    #[inline]
    fn foresee(&mut self, behind: Option<&Completion>) {
        let front = behind.and_then(|completion| {
            let (buffer, len) = (completion.buffer?, usize::try_from(completion.result).ok()?);
            if completion.token.kind == Kind::ReceiveDatagrams {
                return Some(self.ring.received_datagrams(buffer, len)?.payload);
            }
            Some(self.ring.received(STREAM_GROUP.into(), buffer, len))
        });
        self.core.foresee(front.unwrap_or_default());
    }

    fn dispatch(&mut self, completion: Completion) {
        match completion.token.kind {
            Kind::Accept => self.on_accept(completion),
            Kind::Connect => self.on_connect(&completion),
            Kind::Receive | Kind::ReceiveDatagrams => {
                if self.deferred.is_empty() && self.core.room() {
                    self.on_received(&completion);
                } else {
                    self.deferred.push_back(completion);
                }
            }
            Kind::Send => self.on_sent(&completion),
            Kind::SendTrain => self.on_train(&completion),
            Kind::File => self.on_file(&completion),
            Kind::Wake => self.on_wake(&completion),
            Kind::Other => {}
        }
    }

    /// Submits what the tasks of this thread ask for.
    fn take_requests(&mut self) {
        while let Some(request) = self.tasks.as_ref().and_then(Attached::next) {
            self.counters.file_operations += 1;
            self.ring.operate(request);
        }
    }

    fn on_file(&mut self, completion: &Completion) {
        let place = completion.token.index;
        let buffer = self.ring.take_file(place);
        if let Some(tasks) = &self.tasks {
            tasks.finish(place, completion.result, buffer);
        }
    }

    /// The wake-up itself was all: queues are looked at every turn.
    fn on_wake(&mut self, completion: &Completion) {
        if !completion.more {
            let wake = self.shared.mesh.wake(self.shard).fd();
            let watched = self.ring.watch_wake(wake);
            watched.expect("a poll is queued without a system call");
        }
    }

    fn on_received(&mut self, completion: &Completion) {
        if completion.token.kind == Kind::ReceiveDatagrams {
            self.on_datagrams(completion);
        } else {
            self.on_bytes(completion);
        }
        if let Some(buffer) = completion.buffer {
            self.ring.give_back(completion.token.kind.group(), buffer);
        }
        if completion.result == -libc::ENOBUFS {
            self.counters.rx_starved += 1;
        }
    }

    fn resume_deferred(&mut self) {
        while self.core.room() {
            let Some(completion) = self.deferred.pop_front() else {
                return;
            };
            self.on_received(&completion);
        }
        self.counters.paused_turns += 1;
    }

    fn take_frames(&mut self) -> bool {
        let mut any = false;
        for from in 0..self.shared.mesh.shards() {
            for _ in 0..MESH_BATCH {
                let Some(frame) = self.shared.mesh.pop(from, self.shard) else {
                    break;
                };
                any = true;
                self.counters.mesh_in += 1;
                self.core.handle(self.now, Input::Mesh(&frame));
            }
        }
        any
    }

    fn take_answers(&mut self) -> bool {
        let mut any = false;
        while let Some(answer) = self.shared.answers.pop(self.shard) {
            any = true;
            let resolved = Input::Resolved {
                token: answer.token,
                addresses: &answer.addresses,
            };
            self.core.handle(self.now, resolved);
        }
        any
    }

    fn take_stored(&mut self) -> bool {
        for round in 0..STORE_BATCH {
            self.done.clear();
            if !self.store.poll(&mut self.done) {
                return round > 0;
            }
            self.core.handle(self.now, Input::Stored(&self.done));
        }
        true
    }

    /// Whether somebody asked since the last turn: one relaxed load when nobody did.
    #[inline]
    fn take_asked(&self) -> bool {
        let asked = &self.shared.asked[self.shard];
        asked.load(Ordering::Relaxed) && asked.swap(false, Ordering::Acquire)
    }

    fn check_stop(&mut self) -> bool {
        if self.drain_until.is_some() || !self.shared.stop.load(Ordering::Acquire) {
            return false;
        }
        self.drain_until = Some(self.now + self.options.drain_limit);
        self.core.handle(self.now, Input::Drain);
        true
    }

    fn is_finished(&self) -> bool {
        let Some(limit) = self.drain_until else {
            return false;
        };
        let quiet = self.core.is_drained()
            && self.store.is_idle()
            && !self.batch_held
            && self.sends_in_flight == 0
            && self.trains_in_flight == 0
            && !self.tasks.as_ref().is_some_and(Attached::is_waited_for);
        quiet || self.now >= limit
    }

    fn drain_outputs(&mut self) -> bool {
        let mut any = false;
        for _ in 0..DRAIN_ROUNDS {
            while let Some(command) = self.core.poll_link() {
                any = true;
                self.obey(command);
            }
            while let Some(query) = self.core.poll_query() {
                any = true;
                self.names.ask(query);
            }
            any |= self.drain_transmits();
            any |= self.drain_store_work();
            any |= self.drain_frames();
            if !self.release_datagram_sockets() {
                break;
            }
        }
        any
    }

    /// Submits store work until there is none, or the store takes no more for now.
    fn drain_store_work(&mut self) -> bool {
        let mut any = false;
        loop {
            if !self.batch_held && !self.core.poll_store(&mut self.batch) {
                return any;
            }
            self.batch_held = !self.store.submit(&mut self.batch);
            if self.batch_held {
                return any;
            }
            any = true;
        }
    }

    /// Gives the store the next piece of a checkpoint, when it wants one and has all other work. Nobody waits for
    /// a checkpoint, so a shard that is behind catches up first.
    fn feed_checkpoint(&mut self) -> bool {
        if self.batch_held {
            return false;
        }
        let busy = self.now.since(self.idle_at);
        if busy >= BEHIND && busy < CHECKPOINT_WAIT {
            self.checkpoint_waits = true;
            return false;
        }
        let Some(at) = self.store.wants_piece() else {
            return false;
        };
        self.piece.clear();
        let next = self.core.checkpoint(at, &mut self.piece);
        self.store.take_piece(&mut self.piece, next);
        true
    }

    fn obey(&mut self, command: LinkCommand) {
        match command {
            LinkCommand::Connect {
                token,
                kind,
                address,
            } => self.connect(token, kind, address),
            LinkCommand::Close { link } => self.close(link),
            LinkCommand::Leave { link } => self.leave(link),
            LinkCommand::Hold { link, held } => self.hold(link, held),
        }
    }

    fn drain_transmits(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut buffer = self.pool.take();
            let Some(transmit) = self.core.poll_transmit(&mut buffer) else {
                self.pool.put(buffer);
                return any;
            };
            any = true;
            self.counters.transmits += 1;
            self.transmit(transmit.link, buffer);
        }
    }

    fn transmit(&mut self, id: LinkId, buffer: TxBuf) {
        let Some(link) = self.links.lookup(id) else {
            // The link went in this very turn; the core has or will have its `Closed`.
            self.pool.put(buffer);
            return;
        };
        if link.kind == LinkKind::SipUdp {
            self.send_datagrams(id, buffer);
        } else {
            self.send_bytes(id, buffer);
        }
    }

    fn drain_frames(&mut self) -> bool {
        let mut any = false;
        let mut next = self.held_frame.take();
        while let Some(frame) = next.or_else(|| self.core.poll_mesh()) {
            let to = usize::from(frame.to);
            match self.shared.mesh.push(self.shard, frame) {
                Ok(()) => {
                    any = true;
                    self.counters.mesh_out += 1;
                    if let Some(touched) = self.touched.get_mut(to) {
                        *touched = true;
                    }
                }
                Err(frame) => {
                    self.held_frame = Some(frame);
                    break;
                }
            }
            next = None;
        }
        for (shard, touched) in self.touched.iter_mut().enumerate() {
            if core::mem::take(touched) && shard != self.shard {
                self.shared.mesh.wake(shard).notify();
            }
        }
        any
    }

    fn publish(&mut self) {
        self.counters.enters = self.ring.enters();
        self.counters.system_calls = self.ring.system_calls();
        self.counters.rx_starved += self.ring.take_starvations();
        self.counters.open = self.links.len() as u64;
        let names = self.shared.answers.dropped(self.shard);
        self.counters.names_dropped = names.unasked + names.unheard;
        self.counters.names_unasked = names.unasked;
        self.stats.publish(&self.counters);
    }

    /// Ends all operations so that nothing of ours is left with the kernel.
    fn tear_down(&mut self) -> io::Result<()> {
        self.counters.cpu_us = self.clock.thread_cpu_us();
        self.counters.note_store(&self.store.totals());
        self.deferred.clear();
        self.ring.cancel_all(Token::ignored());
        let mut rest = core::mem::take(&mut self.scratch);
        for _ in 0..TEARDOWN_ROUNDS {
            self.ring.enter(Some(Duration::from_millis(10)))?;
            rest.clear();
            self.ring.reap(&mut rest, usize::MAX, usize::MAX);
            if self.ring.in_flight() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Arms the multishot receive of a stream or datagram socket.
    pub(super) fn arm_receive(&mut self, id: LinkId) {
        let Some(link) = self.links.lookup(id) else {
            return;
        };
        link.receiving = true;
        if link.kind == LinkKind::SipUdp {
            let token = Token::new(Kind::ReceiveDatagrams, id.slot, id.generation);
            self.ring
                .receive_datagrams(link.fd(), DATAGRAM_GROUP, token);
        } else {
            let token = Token::new(Kind::Receive, id.slot, id.generation);
            self.ring.receive(link.fd(), STREAM_GROUP, token);
        }
    }

    fn arm_listeners(&mut self) {
        for (index, listener) in (0_u32..).zip(&mut self.listeners) {
            if !listener.armed {
                listener.armed = true;
                let token = Token::new(Kind::Accept, index, 0);
                self.ring.accept(listener.fd.as_fd(), token);
            }
        }
    }
}

mod rest;

#[cfg(test)]
mod tests;
