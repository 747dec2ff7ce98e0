//! The process of the engine: real shards, their links, a store double with a disk that outlives
//! a crash.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::base::surface::{
    Core, Input, LinkCommand, LinkEvent, LinkId, LinkKind, Location, Room, StoreBatch, StoreDone,
    StoreTicket, TxBuf,
};
use crate::base::time::{Timestamp, UnixMillis};
use crate::shard::recover::Recovered;
use crate::shard::{Order, Shard, ShardSeed};
use crate::sim::net::{ConnId, Event, Note, Timer, Way};
use crate::sim::options::{ENGINE, MSRP_PORT, SIP_PORT, Transport};
use crate::sim::text::{Msrp, Sip, find, fnv};
use crate::sim::world::World;
use crate::store::op::DepositFlags;
use crate::store::record;

/// How long a peer may take to close a connection that was left to it.
const LEAVE: Duration = Duration::from_millis(1500);
/// Turns at one moment before the engine counts as spinning.
const SPINS_MAX: u32 = 2000;
/// The wall clock at time zero, milliseconds.
const WALL_MS: u64 = 1_795_000_000_000;
/// How far a clock that jumps goes ahead, milliseconds: longer than any message lives.
const JUMP_MS: u64 = 400 * 86_400_000;

/// What is said of a deposit whose parts are not all on the disk.
const PARTLESS: &str = "a large message is stored before its parts";

/// Records that one commit makes durable.
#[derive(Debug, Default)]
struct Commit {
    appends: Vec<(StoreTicket, Location, Vec<u8>)>,
    reads: Vec<(u64, Location)>,
    dead: Vec<u32>,
}

/// What is on a shard's disk, and what is on the way there.
#[derive(Debug, Default)]
pub(super) struct Disk {
    segments: BTreeMap<u32, Vec<(Location, Vec<u8>)>>,
    segment: u32,
    offset: u32,
    pending: VecDeque<Commit>,
    commit_at: Timestamp,
    /// A sync failed: nothing is written any more, until the process starts again.
    failed: bool,
    /// Too full for more than marks, and the engine knows.
    full: bool,
}

impl Disk {
    /// Segments with anything in them.
    pub(super) fn held_segments(&self) -> usize {
        self.segments
            .values()
            .filter(|records| !records.is_empty())
            .count()
    }
}

/// One shard with its links.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) core: Option<Box<Shard>>,
    pub(super) disk: Disk,
    links: Vec<(u32, Option<ConnId>)>,
    free: Vec<u32>,
    held: VecDeque<Event>,
    wall_at: Option<Timestamp>,
    spins: (Timestamp, u32),
    /// It is known when the shard will have caught up.
    busy: bool,
}

/// The engine's own SIP address of a shard.
pub(super) fn sip_address(shard: u8) -> SocketAddr {
    SocketAddr::from((ENGINE, SIP_PORT + u16::from(shard)))
}

/// The engine's own MSRP address of a shard.
pub(super) fn msrp_address(shard: u8) -> SocketAddr {
    SocketAddr::from((ENGINE, MSRP_PORT + u16::from(shard)))
}

const fn udp_link(epoch: u32) -> LinkId {
    LinkId {
        slot: 0,
        generation: epoch,
    }
}

impl World {
    /// Starts the process: shards with new keys, queues from the disk.
    pub(super) fn boot(&mut self) {
        self.epoch += 1;
        let wall = self.wall();
        for shard in 0..self.shards() {
            let options = self.options.shard(shard);
            let salt = self.options.seed ^ u64::from(self.epoch) << 32;
            let mut seed = ShardSeed {
                identifier_key: [0; 16],
                stream: [0; 32],
            };
            seed.identifier_key[..8].copy_from_slice(&salt.to_le_bytes());
            seed.stream[..8].copy_from_slice(&salt.to_le_bytes());
            seed.stream[8] = shard;
            let core = Shard::new(options, seed, self.net.now, wall);
            let mut core = Box::new(core.expect("the profile of the simulator compiles"));
            let mut found = Recovered::default();
            let seat = &mut self.seats[usize::from(shard)];
            for (location, payload) in seat.disk.segments.values().flatten() {
                core.recover(*location, payload, &mut found);
            }
            core.recovered(self.net.now);
            if self.options.orders > 0 {
                core.operate(&Order::Rules(Arc::clone(&self.rules)));
            }
            if found.unreadable > 0 {
                self.ledger
                    .violation(self.net.now, "recovery found unreadable records");
            }
            if found.messages > 0 {
                self.net.mark("engine/recovered-messages");
            }
            seat.disk.failed = false;
            let full = core::mem::take(&mut seat.disk.full);
            seat.core = Some(core);
            seat.links = vec![(self.epoch, None)];
            seat.free.clear();
            seat.wall_at = None;
            if self.options.transport == Transport::Udp {
                let local = sip_address(shard);
                let event = LinkEvent::Opened {
                    kind: LinkKind::SipUdp,
                    peer: local,
                    local,
                };
                let link = udp_link(self.epoch);
                self.feed(shard, &Input::Link { link, event });
            }
            self.turn(shard);
            if full {
                self.tell_space(shard, true);
            }
        }
    }

    /// What the wall clock reads.
    fn wall(&self) -> UnixMillis {
        let ahead = if self.clock_jumped { JUMP_MS } else { 0 };
        UnixMillis(WALL_MS + ahead + self.net.now.as_millis())
    }

    /// The wall clock jumps ahead by mistake, or is set right.
    pub(super) fn jump_clock(&mut self, jumped: bool) {
        if jumped {
            self.net.mark("fault/clock-jump");
        }
        self.net.note(|| format!("CLOCK JUMPED {jumped}"));
        self.clock_jumped = jumped;
    }

    /// The disks of all shards get full, or have room again.
    pub(super) fn disk_full(&mut self, full: bool) {
        for shard in 0..self.shards() {
            if self.seats[usize::from(shard)].core.is_some() {
                self.tell_space(shard, full && !self.net.healed);
            } else {
                self.seats[usize::from(shard)].disk.full = full && !self.net.healed;
            }
        }
    }

    fn tell_space(&mut self, shard: u8, low: bool) {
        if self.seats[usize::from(shard)].disk.full == low {
            return;
        }
        self.net.note(|| format!("DISK FULL {low}"));
        let done = StoreDone {
            room: Some(if low { Room::NoSpace } else { Room::Enough }),
            ..StoreDone::default()
        };
        self.feed(shard, &Input::Stored(&done));
        self.turn(shard);
        self.seats[usize::from(shard)].disk.full = low;
    }

    /// The process dies; unsynced appends are lost, perhaps but for some at the front.
    pub(super) fn crash(&mut self) {
        if self.seats[0].core.is_none() {
            return;
        }
        self.net.mark("fault/crash");
        if self.senders.is_sending() {
            self.net.mark("fault/crash-in-large");
        }
        self.net.note(|| "CRASH".into());
        for shard in 0..self.shards() {
            let now = self.net.now;
            let seat = &mut self.seats[usize::from(shard)];
            if let Some(core) = seat.core.take() {
                self.probe.merge(&core.probe());
            }
            seat.held.clear();
            let pending = core::mem::take(&mut seat.disk.pending);
            let records: Vec<_> = pending
                .into_iter()
                .flat_map(|commit| commit.appends)
                .collect();
            if !records.is_empty() {
                self.net.mark("fault/unsynced-lost");
            }
            let bound = records.len() as u64 + 1;
            let kept = usize::try_from(self.net.below(bound)).expect("within the list");
            let seat = &mut self.seats[usize::from(shard)];
            for (_, location, payload) in records.into_iter().take(kept) {
                self.ledger.durable(now, &payload);
                if !has_its_parts(&seat.disk, &payload) {
                    self.ledger.violation(now, PARTLESS);
                }
                if is_copy(&payload) {
                    self.net.mark("engine/segment-cleaned");
                }
                seat.disk
                    .segments
                    .entry(location.segment)
                    .or_default()
                    .push((location, payload));
            }
            // A fresh segment after a crash, as a journal would do.
            seat.disk.segment += 1;
            seat.disk.offset = 0;
        }
        for conn in 0..self.net.conns.len() {
            if self.net.conns[conn].epoch == self.epoch {
                self.net.conns[conn].engine_gone = true;
                self.net.reset(conn);
            }
        }
        self.ledger.crashed(self.epoch);
    }

    pub(super) fn shards(&self) -> u8 {
        u8::try_from(self.seats.len()).expect("a handful of shards")
    }

    /// When the engine wants to be called next.
    pub(super) fn engine_deadline(&self) -> Timestamp {
        self.seats
            .iter()
            .filter_map(|seat| seat.core.as_ref()?.next_deadline())
            .min()
            .unwrap_or(Timestamp::NEVER)
    }

    /// Gives every shard that is due its turn.
    pub(super) fn turn_due(&mut self) {
        for shard in 0..self.shards() {
            let seat = &self.seats[usize::from(shard)];
            let Some(core) = &seat.core else { continue };
            if core.next_deadline().is_some_and(|at| at <= self.net.now) {
                let (at, spins) = seat.spins;
                let spins = if at == self.net.now { spins + 1 } else { 0 };
                if spins == SPINS_MAX {
                    self.ledger
                        .violation(self.net.now, "the engine spins: its deadline stays");
                }
                self.seats[usize::from(shard)].spins = (self.net.now, spins);
                self.turn(shard);
            }
        }
    }

    fn feed(&mut self, shard: u8, input: &Input<'_>) {
        let (now, wall) = (self.net.now, self.wall());
        let seat = &mut self.seats[usize::from(shard)];
        let Some(core) = &mut seat.core else { return };
        if seat
            .wall_at
            .is_none_or(|at| at + Duration::from_secs(1) <= now)
        {
            seat.wall_at = Some(now);
            core.handle(now, Input::Wall(wall));
        }
        // An input is not `Copy`; each is taken apart once.
        match input {
            Input::Bytes { link, bytes } => core.handle(now, Input::Bytes { link: *link, bytes }),
            Input::Datagram {
                link,
                source,
                bytes,
            } => {
                core.handle(
                    now,
                    Input::Datagram {
                        link: *link,
                        source: *source,
                        bytes,
                    },
                );
            }
            Input::Link { link, event } => {
                core.handle(
                    now,
                    Input::Link {
                        link: *link,
                        event: *event,
                    },
                );
            }
            Input::ConnectFailed { token } => {
                core.handle(now, Input::ConnectFailed { token: *token });
            }
            Input::Resolved { token, addresses } => {
                let token = *token;
                core.handle(now, Input::Resolved { token, addresses });
            }
            Input::Stored(done) => core.handle(now, Input::Stored(done)),
            Input::Mesh(frame) => core.handle(now, Input::Mesh(frame)),
            Input::Wall(wall) => core.handle(now, Input::Wall(*wall)),
            Input::Drain => core.handle(now, Input::Drain),
        }
    }

    /// Tells every shard to finish.
    pub(super) fn drain(&mut self) {
        for shard in 0..self.shards() {
            self.feed(shard, &Input::Drain);
            self.turn(shard);
        }
    }

    /// An event for the engine.
    pub(super) fn engine_event(&mut self, event: Event) {
        let shard = match &event {
            Event::Bytes { conn, .. } | Event::Opened { conn } | Event::Closed { conn } => {
                self.net.conns[*conn].shard
            }
            Event::Datagram { shard, .. }
            | Event::ConnectFailed { shard, .. }
            | Event::Sent { shard, .. }
            | Event::Stored { shard, .. } => *shard,
            Event::Mesh { frame, .. } => frame.to,
            Event::PeerClosed { .. }
            | Event::Timer(_)
            | Event::ToHub { .. }
            | Event::ToPhone { .. } => unreachable!("for a peer"),
        };
        let seat = &mut self.seats[usize::from(shard)];
        let Some(core) = &seat.core else { return };
        let from_peer = matches!(
            event,
            Event::Bytes { .. }
                | Event::Datagram { .. }
                | Event::Opened { .. }
                | Event::Closed { .. }
        );
        if from_peer && (!core.room() || !seat.held.is_empty()) {
            self.net.mark("engine/no-room");
            seat.held.push_back(event);
            return;
        }
        self.deliver(shard, event);
        self.turn(shard);
        while self.has_room(shard)
            && let Some(event) = self.seats[usize::from(shard)].held.pop_front()
        {
            self.deliver(shard, event);
            self.turn(shard);
        }
    }

    fn has_room(&self, shard: u8) -> bool {
        self.seats[usize::from(shard)]
            .core
            .as_ref()
            .is_some_and(|core| core.room())
    }

    fn deliver(&mut self, shard: u8, event: Event) {
        match event {
            Event::Bytes { conn, bytes, note } => {
                let state = &self.net.conns[conn];
                if state.dead || state.engine_gone {
                    return;
                }
                let Some(link) = state.link else { return };
                self.net.fold(1, fnv(0, &bytes));
                self.noted(note);
                self.feed(
                    shard,
                    &Input::Bytes {
                        link,
                        bytes: &bytes,
                    },
                );
            }
            Event::Datagram {
                source,
                bytes,
                note,
                ..
            } => {
                self.net.fold(2, fnv(0, &bytes));
                self.noted(note);
                let link = udp_link(self.epoch);
                self.feed(
                    shard,
                    &Input::Datagram {
                        link,
                        source,
                        bytes: &bytes,
                    },
                );
            }
            Event::Opened { conn } => self.open_link(shard, conn),
            Event::Closed { conn } => {
                let state = &mut self.net.conns[conn];
                if core::mem::replace(&mut state.engine_gone, true) {
                    return;
                }
                if state.kind == LinkKind::SipOutbound && state.link.is_some() {
                    self.ledger.trunks_lost += 1;
                }
                if let Some(link) = state.link {
                    let seat = &mut self.seats[usize::from(shard)];
                    seat.links[link.slot as usize] = (link.generation + 1, None);
                    seat.free.push(link.slot);
                    self.feed(
                        shard,
                        &Input::Link {
                            link,
                            event: LinkEvent::Closed,
                        },
                    );
                } else if let Some(token) = state.token {
                    self.feed(shard, &Input::ConnectFailed { token });
                }
            }
            Event::ConnectFailed { epoch, token, .. } if epoch == self.epoch => {
                self.feed(shard, &Input::ConnectFailed { token });
            }
            Event::Sent { epoch, link, .. } if epoch == self.epoch => {
                self.feed(
                    shard,
                    &Input::Link {
                        link,
                        event: LinkEvent::Sent,
                    },
                );
            }
            Event::Stored { epoch, .. } if epoch == self.epoch => self.commit(shard),
            Event::Mesh { epoch, frame } if epoch == self.epoch => {
                self.net.mark("engine/mesh");
                self.feed(shard, &Input::Mesh(&frame));
            }
            Event::ConnectFailed { .. }
            | Event::Mesh { .. }
            | Event::PeerClosed { .. }
            | Event::Sent { .. }
            | Event::Stored { .. }
            | Event::Timer(_)
            | Event::ToHub { .. }
            | Event::ToPhone { .. } => {}
        }
    }

    fn noted(&mut self, note: Option<Note>) {
        let Some(note) = note else { return };
        self.net.note(|| format!("the engine has {note:?}"));
        match note {
            Note::Bye { call_id } => self.ledger.peer_bye(&call_id, self.epoch),
            Note::Final {
                call_id,
                status,
                tag,
            } => {
                let now = self.net.now;
                self.ledger
                    .final_response(now, (&call_id, &tag), status, self.epoch);
            }
            Note::Evidence { call, message } => {
                let call = &self.calls[call];
                self.ledger
                    .evidence(&call.call_id, call.phone, message, self.epoch);
            }
        }
    }

    fn open_link(&mut self, shard: u8, conn: ConnId) {
        let state = &self.net.conns[conn];
        if state.dead || state.engine_gone || state.epoch != self.epoch {
            return;
        }
        let seat = &mut self.seats[usize::from(shard)];
        let slot = seat.free.pop().unwrap_or_else(|| {
            seat.links.push((0, None));
            u32::try_from(seat.links.len() - 1).expect("few links")
        });
        let entry = &mut seat.links[slot as usize];
        entry.1 = Some(conn);
        let link = LinkId {
            slot,
            generation: entry.0,
        };
        let state = &mut self.net.conns[conn];
        state.link = Some(link);
        let (kind, peer, local) = (state.kind, state.peer, state.local);
        let event = match state.token {
            Some(token) => LinkEvent::Connected {
                token,
                kind,
                peer,
                local,
            },
            None => LinkEvent::Opened { kind, peer, local },
        };
        self.feed(shard, &Input::Link { link, event });
    }

    /// One turn's end: due timers, then every output.
    pub(super) fn turn(&mut self, shard: u8) {
        let at = usize::from(shard);
        let now = self.net.now;
        let Some(core) = &mut self.seats[at].core else {
            return;
        };
        core.advance(now);
        let mut buffer = TxBuf::default();
        while let Some(out) = self.seats[at]
            .core
            .as_mut()
            .and_then(|core| core.poll_transmit(&mut buffer))
        {
            self.transmit(shard, out.link, &buffer);
            buffer.bytes.clear();
            buffer.cuts.clear();
            buffer.destination = None;
        }
        while let Some(command) = self.seats[at]
            .core
            .as_mut()
            .and_then(|core| core.poll_link())
        {
            self.link_command(shard, command);
        }
        while let Some(frame) = self.seats[at]
            .core
            .as_mut()
            .and_then(|core| core.poll_mesh())
        {
            let wait = Duration::from_micros(self.net.below(200));
            let epoch = self.epoch;
            self.net.at(now + wait, Event::Mesh { epoch, frame });
        }
        let mut batch = StoreBatch::default();
        while self.seats[at]
            .core
            .as_mut()
            .is_some_and(|core| core.poll_store(&mut batch))
        {
            self.submit(shard, &batch);
            batch = StoreBatch::default();
        }
        if let Some(core) = &mut self.seats[at].core {
            core.handed_over(now);
        }
        if !core::mem::replace(&mut self.seats[at].busy, true) {
            let wait = Duration::from_micros(self.net.below(30_000));
            self.net.after(wait, Timer::CaughtUp(shard));
        }
    }

    /// Time passes between turns of a shard only because it is said to be busy for so long.
    pub(super) fn caught_up(&mut self, shard: u8) {
        let seat = &mut self.seats[usize::from(shard)];
        seat.busy = false;
        if seat.core.as_mut().is_some_and(|core| core.caught_up()) {
            self.turn(shard);
        }
    }

    fn transmit(&mut self, shard: u8, link: LinkId, buffer: &TxBuf) {
        let wait = Duration::from_micros(100 + self.net.below(3000));
        let (epoch, now) = (self.epoch, self.net.now);
        self.net.at(now + wait, Event::Sent { shard, epoch, link });
        if self.options.transport == Transport::Udp && link.slot == 0 {
            let Some(at) = buffer.destination else {
                return self.ledger.violation(now, "a datagram without destination");
            };
            let mut start = 0;
            for &cut in &buffer.cuts {
                let bytes = &buffer.bytes[start..cut as usize];
                start = cut as usize;
                match Sip::parse(bytes) {
                    Ok(message) => {
                        self.observe(&message);
                        self.net.datagram_to_hub(
                            Way {
                                conn: None,
                                shard,
                                at,
                            },
                            &message,
                        );
                    }
                    Err(error) => self.ledger.violation(now, &format!("engine sent: {error}")),
                }
            }
            return;
        }
        let seat = &self.seats[usize::from(shard)];
        let Some(&(generation, Some(conn))) = seat.links.get(link.slot as usize) else {
            return self.ledger.violation(now, "the engine sends on no link");
        };
        if generation != link.generation {
            return self
                .ledger
                .violation(now, "the engine sends on a link of the past");
        }
        let is_sip = matches!(
            self.net.conns[conn].kind,
            LinkKind::SipInbound | LinkKind::SipOutbound
        );
        let sent = if is_sip {
            self.transmit_sip(shard, conn, &buffer.bytes)
        } else {
            self.transmit_msrp(conn, &buffer.bytes)
        };
        if let Err(error) = sent {
            self.ledger.violation(now, &format!("engine sent: {error}"));
        }
    }

    fn transmit_sip(&mut self, shard: u8, conn: ConnId, bytes: &[u8]) -> Result<(), String> {
        for message in Sip::split(bytes)? {
            self.observe(&message);
            let at = self.net.stream_to_peer_at(conn);
            let way = Way {
                conn: Some(conn),
                shard,
                at: self.net.conns[conn].peer,
            };
            self.net.at(
                at,
                Event::ToHub {
                    way,
                    message: Box::new(message),
                },
            );
        }
        Ok(())
    }

    fn transmit_msrp(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), String> {
        for frame in Msrp::split(bytes)? {
            self.net.fold(3, fnv(0, frame.tid.as_bytes()));
            let at = self.net.stream_to_peer_at(conn);
            self.net.at(
                at,
                Event::ToPhone {
                    conn,
                    frame: Box::new(frame),
                },
            );
        }
        Ok(())
    }

    fn link_command(&mut self, shard: u8, command: LinkCommand) {
        let epoch = self.epoch;
        match command {
            LinkCommand::Connect {
                token,
                kind,
                address,
            } => {
                let accepts = self.accepts(kind, address);
                let local = if kind == LinkKind::SipOutbound {
                    sip_address(shard)
                } else {
                    msrp_address(shard)
                };
                if accepts {
                    self.net
                        .connect((shard, epoch), kind, Some(token), (address, local));
                } else {
                    self.net.mark("fault/connect-refused");
                    let at = self.net.now + self.net.way_time();
                    self.net.at(
                        at,
                        Event::ConnectFailed {
                            shard,
                            epoch,
                            token,
                        },
                    );
                }
            }
            // Octets go on coming: as those that were read before the engine asked.
            LinkCommand::Hold { .. } => self.net.mark("engine/hold"),
            LinkCommand::Close { link } => self.close((shard, link), Duration::ZERO),
            LinkCommand::Leave { link } => {
                self.net.mark("engine/leave");
                self.close((shard, link), LEAVE);
            }
        }
    }

    fn close(&mut self, (shard, link): (u8, LinkId), time: Duration) {
        let entry = self.seats[usize::from(shard)].links.get(link.slot as usize);
        if let Some(&(generation, Some(conn))) = entry
            && generation == link.generation
        {
            self.net.close_by_engine(conn, time);
        }
    }

    fn submit(&mut self, shard: u8, batch: &StoreBatch) {
        let mut wait = Duration::from_millis(1 + self.net.below(8));
        if !self.net.healed && self.options.stalls.hits(&mut self.dice) {
            self.net.mark("fault/store-stall");
            wait = Duration::from_millis(5000);
        }
        let now = self.net.now;
        let disk = &mut self.seats[usize::from(shard)].disk;
        let mut commit = Commit {
            reads: batch.reads.clone(),
            dead: batch.dead_segments.clone(),
            ..Commit::default()
        };
        let mut at = 0;
        for &(ticket, len) in &batch.appends {
            let payload = batch.bytes[at..at + len as usize].to_vec();
            at += len as usize;
            if disk.full && is_body(&payload) {
                self.ledger
                    .violation(now, "a body is taken although the disk is full");
            }
            if disk.full {
                self.net.mark("fault/mark-on-full-disk");
            }
            if disk.offset > 0 && disk.offset + len > self.options.segment_bytes {
                disk.segment += 1;
                disk.offset = 0;
            }
            let location = Location {
                segment: disk.segment,
                offset: disk.offset,
                len,
            };
            disk.offset += len + 32;
            commit.appends.push((ticket, location, payload));
        }
        disk.pending.push_back(commit);
        disk.commit_at = disk.commit_at.max(self.net.now + wait);
        let (at, epoch) = (disk.commit_at, self.epoch);
        self.net.at(at, Event::Stored { shard, epoch });
    }

    /// The oldest commit is on the disk now.
    fn commit(&mut self, shard: u8) {
        let now = self.net.now;
        let disk = &mut self.seats[usize::from(shard)].disk;
        let Some(mut commit) = disk.pending.pop_front() else {
            return;
        };
        let mut done = StoreDone::default();
        let failed = core::mem::take(&mut disk.failed);
        if !failed && !self.net.healed && !commit.appends.is_empty() {
            let error = self.options.sync_errors.hits(&mut self.dice);
            if error {
                // Some of it may be on the disk all the same; the sync after it would succeed.
                self.net.mark("fault/sync-error");
                self.net.note(|| "SYNC ERROR".into());
                done.failed_from = commit.appends.first().map(|(ticket, ..)| *ticket);
                let bound = commit.appends.len() as u64 + 1;
                let kept = usize::try_from(self.net.below(bound)).expect("within the list");
                commit.appends.truncate(kept);
                let wait = Duration::from_millis(1000 + self.net.below(20_000));
                self.net.after(wait, Timer::Crash);
            }
        }
        let disk = &mut self.seats[usize::from(shard)].disk;
        disk.failed = failed || done.failed_from.is_some();
        if failed {
            // A journal that failed takes appends and drops them.
            commit.appends.clear();
            commit.dead.clear();
        }
        let unanswered = disk.failed;
        for (ticket, location, payload) in commit.appends {
            self.ledger.durable(now, &payload);
            if !has_its_parts(disk, &payload) {
                self.ledger.violation(now, PARTLESS);
            }
            if is_copy(&payload) {
                self.net.mark("engine/segment-cleaned");
            }
            if !unanswered {
                done.stored.push((ticket, location));
            }
            disk.segments
                .entry(location.segment)
                .or_default()
                .push((location, payload));
        }
        for (token, location) in commit.reads {
            self.net.mark("engine/store-read");
            let start = u32::try_from(done.bytes.len()).expect("small batches");
            if !self.net.healed && self.options.read_errors.hits(&mut self.dice) {
                self.net.mark("fault/read-error");
                done.loaded.push((token, start, start));
                continue;
            }
            let found = disk.segments.get(&location.segment).and_then(|records| {
                records
                    .iter()
                    .find(|(at, _)| *at == location)
                    .map(|(_, payload)| payload)
            });
            match found {
                Some(payload) => done.bytes.extend_from_slice(payload),
                None => self
                    .ledger
                    .violation(now, "a read of a record that was given up"),
            }
            let end = u32::try_from(done.bytes.len()).expect("small batches");
            done.loaded.push((token, start, end));
        }
        for segment in commit.dead {
            self.net.mark("engine/segment-reclaimed");
            if segment == disk.segment {
                disk.segment += 1;
                disk.offset = 0;
            }
            disk.segments.remove(&segment);
        }
        self.feed(shard, &Input::Stored(&done));
    }
}

/// Whether a record is a copy of a deposit.
fn is_copy(payload: &[u8]) -> bool {
    matches!(record::decode(payload), Ok(record::Record::Deposit(deposit))
        if deposit.flags.contains(DepositFlags::COPY))
}

/// Whether a record is one that a full disk has no room for: a body, or a part of one. The list that
/// makes parts a message is written all the same, since they are there.
fn is_body(payload: &[u8]) -> bool {
    match record::decode(payload) {
        Ok(record::Record::Deposit(deposit)) => deposit.parts().is_none(),
        Ok(record::Record::Part(_)) => true,
        Ok(record::Record::Mark(_)) | Err(_) => false,
    }
}

/// Law: a deposit in parts is durable after all of its parts.
fn has_its_parts(disk: &Disk, payload: &[u8]) -> bool {
    let Ok(record::Record::Deposit(deposit)) = record::decode(payload) else {
        return true;
    };
    let Some(list) = deposit.parts() else {
        return true;
    };
    let mut places = list.places().enumerate();
    places.all(|(index, place)| {
        let records = disk.segments.get(&place.segment);
        let mut records = records.into_iter().flatten();
        let found = records.find(|(at, _)| *at == place);
        found.is_some_and(|(_, payload)| {
            matches!(record::decode(payload), Ok(record::Record::Part(part))
                if part.number == deposit.number && part.index as usize == index)
        })
    })
}

/// The number in the mark that a deposit's record carries, if it is one.
pub(super) fn deposit_mark(payload: &[u8]) -> Option<usize> {
    let at = find(payload, b"contrib-")? + 8;
    core::str::from_utf8(payload.get(at..at + 6)?)
        .ok()?
        .parse()
        .ok()
}
