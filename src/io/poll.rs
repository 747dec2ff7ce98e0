//! The fallback for hosts that forbid io_uring: epoll with `recvmmsg`, `sendmmsg` and non-blocking
//! streams, behind the surface of `sys::RawRing`. The driver does not know which it has.
//!
//! Operations wait at their descriptor until epoll says that they can go on (edge triggered, one
//! registration per descriptor); what they achieve becomes a [`Completion`] as the ring would give it.
//! A multishot receive is an operation that stays. An operation without a free receive buffer waits
//! for one, so a peer that is not read from runs into flow control, as with a ring.
//!
//! *Holds:* a descriptor that may have octets is in a queue, or starved and noted at its buffers, or
//! its last call said that there are none and epoll has been told to speak up since. So nothing is
//! forgotten while [`PollRing::has_work`] is false and epoll is silent.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use socket2::SockAddr;

use crate::base::surface::TxBuf;

use super::ring::{Completion, Kind, REAP_BYTES, Token};
use super::sys::{Arrived, Datagrams, OpenFd, Outgoing};
use super::trains::{Exit, Part, Run};

/// Events taken from epoll at a time.
const EVENTS: usize = 256;
/// Connections accepted from one listener in one enter.
const ACCEPTS: usize = 64;
/// Receives of one stream in a row.
const READS: usize = 4;
/// Datagram receives of one call. Each costs its preparation whether a datagram came or not, so what is
/// mostly idle asks for few, and a socket that gave as many is asked again.
const RECEIVES: usize = 16;
/// Datagrams and trains of one call.
const SENDS: usize = 64;
/// Completions that wait for the driver before nothing more is received.
const DONE_MAX: usize = 64;
/// Trains kept for the next, with their memory.
const SPARE_TRAINS_MAX: usize = 64;
/// What the registration of the wake-up says instead of a slot.
const WAKE: u64 = u64::MAX;
/// Added to a listener's index.
const LISTENER: u64 = 1 << 32;

/// What a descriptor waits for.
#[derive(Debug, Default)]
struct Slot {
    /// Only used while an operation names it: the driver closes it no earlier. `None` before the first.
    fd: Option<OpenFd>,
    /// The use of the slot for which it was registered.
    generation: Option<u32>,
    receive: Option<Token>,
    send: Option<Token>,
    connect: Option<Token>,
    tx: TxBuf,
    sent: usize,
    /// Runs of datagrams that wait: train and number.
    runs: VecDeque<(u32, u32)>,
    readable: bool,
    writable: bool,
    /// The peer sent its last octet, or the descriptor failed: epoll will not say so again.
    over: bool,
    in_receiving: bool,
    in_sending: bool,
    starved: bool,
}

impl Slot {
    /// The descriptor of the operation under way.
    fn fd(&self) -> OpenFd {
        self.fd.expect("an operation registers its slot first")
    }
}

#[derive(Debug, Default)]
struct Listener {
    fd: Option<OpenFd>,
    token: Option<Token>,
    ready: bool,
}

/// Datagrams of one buffer on their way.
#[derive(Debug)]
struct Train {
    tx: TxBuf,
    parts: Vec<Part>,
    /// Each with the socket it leaves by.
    runs: Vec<(Run, Exit)>,
    peer: SockAddr,
    outstanding: u32,
}

/// Receive buffers of one kind.
#[derive(Debug)]
struct Group {
    buffers: Vec<Vec<u8>>,
    /// The one freed last is used next.
    idle: Vec<u16>,
    /// What each buffer of a datagram socket holds.
    arrived: Vec<Arrived>,
    /// Slots that found no buffer.
    starved: Vec<u32>,
}

/// The descriptors of one shard.
pub(super) struct PollRing {
    epoll: OwnedFd,
    wake: Option<OwnedFd>,
    slots: Vec<Slot>,
    listeners: Vec<Listener>,
    groups: Vec<Group>,
    /// Slots of which a receive may go on.
    receiving: VecDeque<u32>,
    /// Slots of which a connect or a send may go on.
    sending: VecDeque<u32>,
    /// A listener had more than its share.
    accepting: bool,
    done: VecDeque<Completion>,
    trains: Vec<Option<Train>>,
    spare_trains: Vec<Train>,
    datagrams: Datagrams,
    numbers: Vec<u16>,
    starvations: u64,
    in_flight: u64,
    enters: u64,
    /// Of system calls.
    calls: u64,
}

impl PollRing {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            wake: None,
            slots: Vec::new(),
            listeners: Vec::new(),
            groups: Vec::new(),
            receiving: VecDeque::new(),
            sending: VecDeque::new(),
            accepting: false,
            done: VecDeque::new(),
            trains: Vec::new(),
            spare_trains: Vec::new(),
            datagrams: Datagrams::default(),
            numbers: Vec::new(),
            starvations: 0,
            in_flight: 0,
            enters: 0,
            calls: 0,
        })
    }

    pub(super) fn add_group(&mut self, entries: u16, each: u32) {
        let nothing = Arrived {
            octets: 0,
            segment: None,
            source: None,
        };
        self.groups.push(Group {
            // Touched, and so made, by the kernel when first used.
            buffers: (0..entries).map(|_| vec![0; each as usize]).collect(),
            idle: (0..entries).rev().collect(),
            arrived: vec![nothing; usize::from(entries)],
            starved: Vec::new(),
        });
    }

    pub(super) fn register_wake(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let flags = epoll::EventFlags::IN;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(WAKE), flags)?;
        self.wake = Some(fd.try_clone_to_owned()?);
        Ok(())
    }

    /// What becomes readable when there is something to do.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// True when there is something to do that epoll will not tell of.
    pub(super) fn has_work(&self) -> bool {
        !self.done.is_empty()
            || !self.receiving.is_empty()
            || !self.sending.is_empty()
            || self.accepting
    }

    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        let index = token.index as usize;
        if self.listeners.len() <= index {
            self.listeners.resize_with(index + 1, Listener::default);
        }
        let entry = &mut self.listeners[index];
        self.in_flight += 1;
        #[expect(unsafe_code, reason = "the descriptor outlives this call")]
        // SAFETY: a listener is closed with the driver, after which nobody polls this ring.
        let fd = unsafe { OpenFd::new(listener) };
        if entry.fd.replace(fd) != Some(fd) {
            let data = epoll::EventData::new_u64(LISTENER + u64::from(token.index));
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            let registered = rustix::io::ioctl_fionbio(listener, true)
                .and_then(|()| epoll::add(&self.epoll, listener, data, flags));
            if let Err(error) = registered {
                entry.fd = None;
                self.complete(token, -error.raw_os_error());
                return;
            }
        }
        entry.token = Some(token);
        entry.ready = true;
        self.accepting = true;
    }

    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, token: Token) {
        self.in_flight += 1;
        if let Err(error) = self.register(socket, token, true) {
            self.complete(token, -error.raw_os_error());
            return;
        }
        self.slots[token.index as usize].receive = Some(token);
        self.queue_receive(token.index);
    }

    /// Sends all of `tx`; the buffer comes back by [`Self::take_sent`]. One completion tells of the
    /// whole, or of the failure.
    pub(super) fn send(&mut self, stream: BorrowedFd<'_>, token: Token, tx: TxBuf) {
        self.in_flight += 1;
        let registered = self.register(stream, token, true);
        let slot = &mut self.slots[token.index as usize];
        assert!(slot.send.is_none(), "one send at a time");
        slot.tx = tx;
        slot.sent = 0;
        match registered {
            Ok(()) => {
                slot.send = Some(token);
                self.queue_send(token.index);
            }
            Err(error) => self.complete(token, -error.raw_os_error()),
        }
    }

    pub(super) fn take_sent(&mut self, index: u32) -> Option<TxBuf> {
        let slot = self.slots.get_mut(index as usize)?;
        slot.send.is_none().then(|| core::mem::take(&mut slot.tx))
    }

    pub(super) fn connect(&mut self, stream: BorrowedFd<'_>, token: Token, address: SocketAddr) {
        self.in_flight += 1;
        let begun = rustix::io::ioctl_fionbio(stream, true)
            .and_then(|()| rustix::net::connect(stream, &address));
        // Registered after the connect began: before, epoll would call it hung up.
        let registered = self.register(stream, token, false);
        match (begun, registered) {
            (Err(Errno::INPROGRESS), Ok(())) => {
                self.slots[token.index as usize].connect = Some(token);
            }
            (Ok(()), Ok(())) => self.complete(token, 0),
            (Err(Errno::INPROGRESS) | Ok(()), Err(error)) | (Err(error), _) => {
                self.complete(token, -error.raw_os_error());
            }
        }
    }

    /// Sends the `runs` of `parts` of `tx` by the socket of `exit`, which receives and so is known, to
    /// `peer`; each has a completion of its own.
    pub(super) fn send_train(
        &mut self,
        exit: Exit,
        tx: TxBuf,
        peer: SocketAddr,
        (parts, runs): (&[Part], &[Run]),
    ) {
        let mut train = self.spare_trains.pop().unwrap_or_else(|| Train {
            tx: TxBuf::default(),
            parts: Vec::new(),
            runs: Vec::new(),
            peer: peer.into(),
            outstanding: 0,
        });
        train.tx = tx;
        train.peer = peer.into();
        train.parts.clear();
        train.parts.extend_from_slice(parts);
        train.runs.clear();
        let free = self.trains.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.trains.push(None);
            self.trains.len() - 1
        });
        self.trains[index] = Some(train);
        let index = u32::try_from(index).expect("bounded by the buffers in flight");
        for &run in runs {
            self.push_run(exit, index, run);
        }
    }

    /// Sends one more part of a train that is on its way, by the socket of `exit`.
    pub(super) fn push_run(&mut self, exit: Exit, index: u32, run: Run) {
        let train = self.train(index);
        let number = u32::try_from(train.runs.len()).expect("a bounded buffer");
        train.runs.push((run, exit));
        train.outstanding += 1;
        let slot = &mut self.slots[exit.slot as usize];
        slot.runs.push_back((index, number));
        self.in_flight += 1;
        self.queue_send(exit.slot);
    }

    /// Run `number` of train `index`, and the socket it left by.
    pub(super) fn train_run(&mut self, index: u32, number: u32) -> (Run, Exit) {
        self.train(index).runs[number as usize]
    }

    pub(super) fn train_destination(&mut self, index: u32) -> Option<SocketAddr> {
        self.train(index).tx.destination
    }

    /// One completion of train `index` was handled; the buffer if it was the last.
    pub(super) fn finish_run(&mut self, index: u32) -> Option<TxBuf> {
        let train = self.train(index);
        train.outstanding -= 1;
        let entry = &mut self.trains[index as usize];
        let mut train = entry.take_if(|train| train.outstanding == 0)?;
        let tx = core::mem::take(&mut train.tx);
        if self.spare_trains.len() < SPARE_TRAINS_MAX {
            self.spare_trains.push(train);
        }
        Some(tx)
    }

    pub(super) fn cancel(&mut self, target: Token) {
        let Some(slot) = self.slots.get_mut(target.index as usize) else {
            return;
        };
        let place = match target.kind {
            Kind::Receive | Kind::ReceiveDatagrams => &mut slot.receive,
            Kind::Connect => &mut slot.connect,
            Kind::Accept | Kind::File | Kind::Other | Kind::Send | Kind::SendTrain | Kind::Wake => {
                return;
            }
        };
        if place.take_if(|token| *token == target).is_some() {
            self.complete(target, -libc::ECANCELED);
        }
    }

    pub(super) fn cancel_all(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let operations = [slot.receive.take(), slot.send.take(), slot.connect.take()];
            let runs = core::mem::take(&mut slot.runs);
            for token in operations.into_iter().flatten() {
                self.complete(token, -libc::ECANCELED);
            }
            for (train, run) in runs {
                let token = Token::new(Kind::SendTrain, train, run);
                self.complete(token, -libc::ECANCELED);
            }
        }
        for index in 0..self.listeners.len() {
            if let Some(token) = self.listeners[index].token.take() {
                self.complete(token, -libc::ECANCELED);
            }
        }
    }

    /// Does what can be done, and waits for at most `wait` when that is nothing.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.enters += 1;
        self.look()?;
        self.work();
        if let Some(wait) = wait.filter(|_| !self.has_work()) {
            self.calls += 1;
            self.wait(wait)?;
            self.look()?;
            self.work();
        }
        Ok(())
    }

    /// Waits by `poll`, which knows parts of a millisecond on every kernel.
    fn wait(&self, wait: Duration) -> io::Result<()> {
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn look(&mut self) -> io::Result<()> {
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let empty = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut events = [empty; EVENTS];
        self.calls += 1;
        let count = match epoll::wait(&self.epoll, &mut events, Some(&NOW)) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            // Copied out: the kernel's structure is packed.
            let (flags, data) = (event.flags, event.data);
            self.note(data.u64(), flags);
        }
        Ok(())
    }

    fn note(&mut self, data: u64, flags: epoll::EventFlags) {
        if data == WAKE {
            if let Some(wake) = &self.wake {
                let _ = rustix::io::read(wake, &mut [0; 8]);
            }
            return;
        }
        if let Some(listener) = data.checked_sub(LISTENER) {
            let index = usize::try_from(listener).ok();
            if let Some(entry) = index.and_then(|index| self.listeners.get_mut(index)) {
                entry.ready = true;
                self.accepting = true;
            }
            return;
        }
        let Ok(index) = u32::try_from(data) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let failed = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        slot.over |= failed || flags.contains(epoll::EventFlags::RDHUP);
        slot.readable |= failed || flags.contains(epoll::EventFlags::IN);
        slot.writable |= failed || flags.contains(epoll::EventFlags::OUT);
        let sends = slot.send.is_some() || slot.connect.is_some() || !slot.runs.is_empty();
        let (reads, writes) = (slot.readable, slot.writable && sends);
        if writes {
            self.queue_send(index);
        }
        if reads {
            self.queue_receive(index);
        }
    }

    fn work(&mut self) {
        if core::mem::take(&mut self.accepting) {
            for index in 0..self.listeners.len() {
                self.accept_some(index);
            }
        }
        for _ in 0..self.sending.len() {
            let Some(index) = self.sending.pop_front() else {
                break;
            };
            self.slots[index as usize].in_sending = false;
            self.connect_one(index);
            self.send_some(index);
            self.send_runs(index);
        }
        for _ in 0..self.receiving.len() {
            if self.done.len() >= DONE_MAX {
                break;
            }
            let Some(index) = self.receiving.pop_front() else {
                break;
            };
            self.slots[index as usize].in_receiving = false;
            self.receive_some(index);
        }
    }

    fn accept_some(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        let (Some(token), Some(fd), true) = (listener.token, listener.fd, listener.ready) else {
            return;
        };
        for _ in 0..ACCEPTS {
            self.calls += 1;
            match fd.with(|fd| rustix::net::accept_with(fd, SocketFlags::CLOEXEC)) {
                Ok(accepted) => {
                    self.done.push_back(Completion {
                        token,
                        result: 0,
                        more: true,
                        buffer: None,
                        accepted: Some(accepted),
                    });
                }
                Err(Errno::AGAIN) => {
                    self.listeners[index].ready = false;
                    return;
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    self.listeners[index].token = None;
                    self.complete(token, -error.raw_os_error());
                    return;
                }
            }
        }
        self.accepting = true;
    }

    fn connect_one(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.writable {
            return;
        }
        if let Some(token) = slot.connect.take() {
            let outcome = slot.fd().with(|fd| rustix::net::sockopt::socket_error(fd));
            let result = match outcome {
                Ok(Ok(())) => 0,
                Ok(Err(error)) | Err(error) => -error.raw_os_error(),
            };
            self.complete(token, result);
        }
    }

    fn send_some(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(token) = slot.send.filter(|_| slot.writable) else {
            return;
        };
        while let Some(rest) = slot
            .tx
            .bytes
            .get(slot.sent..)
            .filter(|rest| !rest.is_empty())
        {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            self.calls += 1;
            match slot.fd().with(|fd| rustix::net::send(fd, rest, flags)) {
                Ok(octets) => slot.sent += octets,
                Err(Errno::AGAIN) => {
                    slot.writable = false;
                    return;
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    slot.send = None;
                    self.complete(token, -error.raw_os_error());
                    return;
                }
            }
        }
        slot.send = None;
        let result = i32::try_from(slot.sent).unwrap_or(i32::MAX);
        self.complete(token, result);
    }

    fn send_runs(&mut self, index: u32) {
        loop {
            let slot = &self.slots[index as usize];
            if !slot.writable || slot.runs.is_empty() {
                return;
            }
            let trains = &self.trains;
            let runs = slot
                .runs
                .iter()
                .take(SENDS)
                .map(|&(number, run)| outgoing(trains, number, run));
            let datagrams = &mut self.datagrams;
            self.calls += 1;
            match slot.fd().with(|fd| datagrams.send(fd, runs)) {
                Ok(count @ 1..) => {
                    for _ in 0..count {
                        self.finish_front_run(index, None);
                    }
                }
                Ok(_) => {
                    self.slots[index as usize].writable = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.slots[index as usize].writable = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.finish_front_run(index, error.raw_os_error()),
            }
        }
    }

    /// The run that waited longest went out, or failed.
    fn finish_front_run(&mut self, index: u32, error: Option<i32>) {
        let Some((number, run)) = self.slots[index as usize].runs.pop_front() else {
            return;
        };
        let result = error.map_or_else(
            || {
                let octets = outgoing(&self.trains, number, run)
                    .parts
                    .iter()
                    .map(|part| part.end - part.start)
                    .sum::<u32>();
                i32::try_from(octets).unwrap_or(i32::MAX)
            },
            |error| -error,
        );
        self.complete(Token::new(Kind::SendTrain, number, run), result);
    }

    fn receive_some(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let Some(token) = slot.receive.filter(|_| slot.readable) else {
            return;
        };
        let outcome = if token.kind == Kind::ReceiveDatagrams {
            self.receive_datagrams(index, token)
        } else {
            self.receive_octets(index, token)
        };
        match outcome {
            Ok(More::Maybe) => self.queue_receive(index),
            Ok(More::No) => self.slots[index as usize].readable = false,
            Ok(More::Starved) => {
                self.starvations += 1;
                let starved = &mut self.slots[index as usize].starved;
                if !core::mem::replace(starved, true) {
                    self.groups[token.kind.group()].starved.push(index);
                }
            }
            Ok(More::End) => {
                self.slots[index as usize].receive = None;
                self.complete(token, 0);
            }
            Err(Errno::AGAIN) => self.slots[index as usize].readable = false,
            Err(Errno::INTR) => self.queue_receive(index),
            Err(error) => {
                self.slots[index as usize].receive = None;
                self.complete(token, -error.raw_os_error());
            }
        }
    }

    fn receive_octets(&mut self, index: u32, token: Token) -> Result<More, Errno> {
        let slot = &self.slots[index as usize];
        let group = &mut self.groups[token.kind.group()];
        for _ in 0..READS {
            let Some(buffer) = group.idle.pop() else {
                return Ok(More::Starved);
            };
            let place = &mut group.buffers[usize::from(buffer)];
            let room = place.len();
            self.calls += 1;
            let got = slot
                .fd()
                .with(|fd| rustix::net::recv(fd, place.as_mut_slice(), RecvFlags::DONTWAIT));
            let octets = match got {
                Ok((octets @ 1.., _)) => octets,
                Ok(_) => {
                    group.idle.push(buffer);
                    return Ok(More::End);
                }
                Err(error) => {
                    group.idle.push(buffer);
                    return Err(error);
                }
            };
            self.done.push_back(Completion {
                token,
                result: i32::try_from(octets).unwrap_or(i32::MAX),
                more: true,
                buffer: Some(buffer),
                accepted: None,
            });
            // Less than there was room for: that was all, and epoll tells of more. But of an end it
            // may have told before we read the octets in front of it.
            if octets < room && !slot.over {
                return Ok(More::No);
            }
        }
        Ok(More::Maybe)
    }

    /// Empties a socket as far as there are buffers, or until there is as much as a turn takes: more than
    /// that is as well off in the socket, but with less a burst overflows it (nobody holds datagrams back).
    fn receive_datagrams(&mut self, index: u32, token: Token) -> Result<More, Errno> {
        let mut brought = 0;
        while brought < REAP_BYTES {
            let asked = self.groups[token.kind.group()].idle.len().min(RECEIVES);
            if asked == 0 {
                return Ok(More::Starved);
            }
            let (got, octets) = self.receive_batch(index, token, asked)?;
            if got < asked {
                return Ok(More::No);
            }
            brought += octets;
        }
        Ok(More::Maybe)
    }

    /// Receives up to `asked` datagrams, as many as there are buffers at most: how many, and their octets.
    fn receive_batch(
        &mut self,
        index: u32,
        token: Token,
        asked: usize,
    ) -> Result<(usize, usize), Errno> {
        let group = &mut self.groups[token.kind.group()];
        let fd = self.slots[index as usize].fd();
        self.numbers.clear();
        self.numbers.extend(group.idle.iter().rev().take(asked));
        let (datagrams, numbers) = (&mut self.datagrams, &self.numbers);
        self.calls += 1;
        let got = fd.with(|fd| datagrams.receive(fd, &mut group.buffers, numbers));
        let got = got.map_err(|error| {
            let number = error.raw_os_error();
            Errno::from_raw_os_error(number.expect("the system said no"))
        })?;
        group.idle.truncate(group.idle.len() - got);
        let mut octets = 0;
        for (at, &buffer) in self.numbers[..got].iter().enumerate() {
            let arrived = self.datagrams.arrived(at);
            group.arrived[usize::from(buffer)] = arrived;
            octets += arrived.octets;
            self.done.push_back(Completion {
                token,
                result: i32::try_from(arrived.octets).unwrap_or(i32::MAX),
                more: true,
                buffer: Some(buffer),
                accepted: None,
            });
        }
        Ok((got, octets))
    }

    /// Appends up to `limit` completions to `out`, fewer once those taken brought `octets` octets.
    pub(super) fn reap(&mut self, out: &mut Vec<Completion>, limit: usize, octets: usize) {
        let mut brought = 0;
        while out.len() < limit && brought < octets {
            let Some(completion) = self.done.pop_front() else {
                break;
            };
            if completion.buffer.is_some() {
                brought += usize::try_from(completion.result).unwrap_or(0);
            }
            out.push(completion);
        }
    }

    pub(super) fn received(&self, group: usize, buffer: u16, len: usize) -> &[u8] {
        &self.groups[group].buffers[usize::from(buffer)][..len]
    }

    /// What a received buffer of a datagram socket holds.
    pub(super) fn arrived(&self, group: usize, buffer: u16) -> Arrived {
        self.groups[group].arrived[usize::from(buffer)]
    }

    pub(super) fn give_back(&mut self, group: usize, buffer: u16) {
        self.groups[group].idle.push(buffer);
        if self.groups[group].starved.is_empty() {
            return;
        }
        let mut starved = core::mem::take(&mut self.groups[group].starved);
        for index in starved.drain(..) {
            self.slots[index as usize].starved = false;
            self.queue_receive(index);
        }
        self.groups[group].starved = starved;
    }

    /// Receives that found no buffer since this was asked last.
    pub(super) fn take_starvations(&mut self) -> u64 {
        core::mem::take(&mut self.starvations)
    }

    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) const fn system_calls(&self) -> u64 {
        self.calls
    }

    pub(super) const fn enters(&self) -> u64 {
        self.enters
    }

    /// Makes the slot of `token` one of this descriptor, known to epoll. It is `tried` once before
    /// epoll says anything.
    fn register(&mut self, fd: BorrowedFd<'_>, token: Token, tried: bool) -> Result<(), Errno> {
        let index = token.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        if slot.generation == Some(token.generation) {
            return Ok(());
        }
        let data = epoll::EventData::new_u64(u64::from(token.index));
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(&self.epoll, fd, data, flags)?;
        #[expect(unsafe_code, reason = "the descriptor outlives this call")]
        // SAFETY: the table of links closes a descriptor, and that of a connected datagram socket as any other,
        // only when no operation names its slot, and the slot's is used for an operation under way alone; bound
        // datagram sockets live as long as the driver.
        let lent = unsafe { OpenFd::new(fd) };
        slot.fd = Some(lent);
        slot.generation = Some(token.generation);
        slot.readable = tried;
        slot.writable = tried;
        slot.over = false;
        Ok(())
    }

    fn queue_receive(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !core::mem::replace(&mut slot.in_receiving, true) {
            self.receiving.push_back(index);
        }
    }

    fn queue_send(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !core::mem::replace(&mut slot.in_sending, true) {
            self.sending.push_back(index);
        }
    }

    /// The last completion of an operation.
    fn complete(&mut self, token: Token, result: i32) {
        self.in_flight -= 1;
        self.done.push_back(Completion {
            token,
            result,
            more: false,
            buffer: None,
            accepted: None,
        });
    }

    fn train(&mut self, index: u32) -> &mut Train {
        self.trains[index as usize]
            .as_mut()
            .expect("a train stays until it is taken, and it is taken with nothing in flight")
    }
}

/// Whether a descriptor may have more for us.
enum More {
    /// The peer sent its last octet.
    End,
    /// It should be asked again.
    Maybe,
    /// Not before epoll says so.
    No,
    /// There was no buffer.
    Starved,
}

fn outgoing(trains: &[Option<Train>], number: u32, run: u32) -> Outgoing<'_> {
    let train = trains[number as usize]
        .as_ref()
        .expect("a train stays until its runs are over");
    let (run, exit) = train.runs[run as usize];
    Outgoing {
        bytes: &train.tx.bytes,
        parts: &train.parts[run.first as usize..][..run.count as usize],
        segment: run.segment,
        address: (!exit.is_connected).then_some(&train.peer),
    }
}

#[cfg(test)]
mod tests;
