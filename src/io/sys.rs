//! Every unsafe operation of the program: the io_uring, memory lent to the kernel, raw descriptors.
//!
//! The one rule behind the proofs: whatever a submitted operation points to is owned by
//! [`RawRing`] from before the submission until the operation's last completion was reaped. On a
//! drop with operations in flight that memory is leaked, never freed.
#![expect(unsafe_code, reason = "the one module where it is allowed")]

use core::mem::ManuallyDrop;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use glommio::io::{BufferedFile, DmaBuffer, DmaFile};
use io_uring::types::{CancelBuilder, Fd, FsyncFlags, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use socket2::SockAddr;

use crate::base::surface::TxBuf;

use super::exec::{Job, Request};
use super::ring::{Completion, Kind, Token};
use super::trains::{Exit, Part, Run};

mod buffers;
#[cfg(feature = "demo")]
pub(super) mod cut;
mod datagrams;
pub(super) mod ethtool;
pub(super) mod options;

use buffers::RxGroup;
pub(super) use datagrams::{Arrived, Datagrams, Outgoing};
#[cfg(test)]
pub(super) use options::defers_accept;
pub(super) use options::{acknowledged, defer_accept, defer_port, enable_gro, set_segment};

/// Octets of control data a received datagram may bring: one `UDP_GRO` message.
const CONTROL_BYTES: usize = 64;
/// Words of control data of a train: one `UDP_SEGMENT` message of 24 octets.
const CONTROL_WORDS: usize = 3;

/// Words of a socket address of any kind.
const NAME_WORDS: usize = size_of::<libc::sockaddr_storage>() / 8;

/// Octets of a receive buffer that the kernel fills before a datagram's payload.
pub(super) const DATAGRAM_HEADROOM: usize =
    16 + size_of::<libc::sockaddr_storage>() + CONTROL_BYTES;

/// Memory of one stream's operation: a connect or a send, never both.
#[derive(Default)]
enum Lent {
    #[default]
    Nothing,
    Address {
        #[expect(dead_code, reason = "the kernel reads it")]
        address: Box<SockAddr>,
    },
    Bytes {
        tx: TxBuf,
        sent: usize,
        busy: bool,
    },
}

/// What an operation on a file uses.
struct LentFile {
    #[expect(dead_code, reason = "keeps the descriptor")]
    file: Rc<DmaFile>,
    buffer: Option<DmaBuffer>,
    busy: bool,
}

struct Block {
    header: libc::msghdr,
    control: [u64; CONTROL_WORDS],
    run: Run,
    exit: Exit,
}

/// Datagrams of one buffer on their way. Blocks are boxed: the kernel keeps their addresses.
struct Train {
    tx: TxBuf,
    /// Where each datagram lies in `tx`, those of a run together. Fixed while one is on its way.
    parts: Vec<libc::iovec>,
    address: Box<SockAddr>,
    #[expect(clippy::vec_box, reason = "a growing vector must not move them")]
    blocks: Vec<Box<Block>>,
    used: usize,
    /// Operations the kernel still works on.
    outstanding: u32,
    /// Operations whose completion the driver has not handled.
    unhandled: u32,
}

/// Everything the kernel may touch while operations are in flight.
struct Kept {
    lent: Vec<Lent>,
    trains: Vec<Option<Box<Train>>>,
    files: Vec<Option<LentFile>>,
    datagram_header: Box<libc::msghdr>,
    groups: Vec<RxGroup>,
}

/// Octets of input for which ends of what was begun wait: a few turns. At once they come one by one, and what
/// is sent then is cut small.
const OVERTAKEN: usize = 512 * 1024;
/// Most completions that others may have overtaken: as many as the queue of a driver's ring has. Beyond, the
/// kernel keeps what comes, and ends accepts that go on by themselves.
const SET_ASIDE_MAX: usize = 8192;

/// An io_uring with the memory of its operations. Lives and dies in one thread.
pub(super) struct RawRing {
    io: IoUring,
    /// The kernel writes it on new work, while it is asked to.
    signal: OwnedFd,
    kept: ManuallyDrop<Kept>,
    backlog: VecDeque<squeue::Entry>,
    /// Completions that others have overtaken.
    set_aside: VecDeque<cqueue::Entry>,
    /// Octets of input taken since there were completions left, or some overtook.
    in_a_row: usize,
    #[expect(
        clippy::vec_box,
        reason = "they keep their box when they go on their way"
    )]
    spare_trains: Vec<Box<Train>>,
    in_flight: u64,
    enters: u64,
    /// For how long a wait gathers.
    gather: Duration,
}

impl RawRing {
    /// A ring with `entries` submissions and `completions` completions between two enters.
    pub(super) fn new(entries: u32, completions: u32) -> io::Result<Self> {
        let io = IoUring::builder()
            .setup_cqsize(completions)
            .setup_clamp()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)?;
        // Blocking on purpose: an io_uring read of a non-blocking eventfd fails instead of waiting.
        let signal = eventfd(0, EventfdFlags::CLOEXEC)?;
        io.submitter().register_eventfd(signal.as_raw_fd())?;
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
        header.msg_namelen = name_bytes();
        header.msg_controllen = CONTROL_BYTES;
        Ok(Self {
            io,
            signal,
            kept: ManuallyDrop::new(Kept {
                lent: Vec::new(),
                trains: Vec::new(),
                files: Vec::new(),
                datagram_header: Box::new(header),
                groups: Vec::new(),
            }),
            backlog: VecDeque::new(),
            set_aside: VecDeque::new(),
            in_a_row: 0,
            spare_trains: Vec::new(),
            in_flight: 0,
            enters: 0,
            gather: Duration::ZERO,
        })
    }

    /// True where the kernel knows a shortest wait (Linux 6.12).
    pub(super) fn can_gather(&self) -> bool {
        self.io.params().is_feature_min_timeout()
    }

    /// Lets waits go on until they have lasted `time`, although there is something; for who [`Self::can_gather`].
    pub(super) const fn gather(&mut self, time: Duration) {
        self.gather = time;
    }

    /// Adds a group of receive buffers; groups number from 0. `entries` is a power of two.
    pub(super) fn add_group(&mut self, entries: u16, each: u32) -> io::Result<()> {
        let mut group = RxGroup::new(entries, each);
        let number = u16::try_from(self.kept.groups.len()).expect("a handful of groups");
        let address = group.ring_address();
        let address = u64::try_from(address).expect("addresses have 64 bits");
        let submitter = self.io.submitter();
        // SAFETY: the memory holds `entries` entries, is page aligned, and lives until no
        // operation is in flight (`Kept`).
        unsafe { submitter.register_buf_ring_with_flags(address, entries, number, 0) }?;
        group.refill();
        self.kept.groups.push(group);
        Ok(())
    }

    /// Ends a wait in the ring whenever `wake`, an eventfd that nobody reads, is written.
    pub(super) fn watch_wake(&mut self, wake: BorrowedFd<'_>) {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let entry = opcode::PollAdd::new(Fd(wake.as_raw_fd()), events)
            .multi(true)
            .build();
        self.push(entry, Token::new(Kind::Wake, 0, 0));
    }

    /// The eventfd that [`Self::signal_wake`] is about.
    pub(super) fn signal(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }

    /// Lets the kernel write the eventfd on new work, or not.
    pub(super) fn signal_wake(&mut self, on: bool) {
        let queue = self.io.completion();
        if on {
            queue.enable_eventfd();
        } else {
            queue.disable_eventfd();
        }
        // The kernel raises its flag, then reads ours; we write ours, then read its flag.
        fence(Ordering::SeqCst);
    }

    /// True when a reap would find something.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.set_aside.is_empty() || !self.io.completion().is_empty()
    }

    /// True when a reap would find nothing and one enter submits all there is. What does not fit into the
    /// submission queue is unknown to the kernel: nothing of it would end a wait.
    pub(super) fn may_rest(&mut self) -> bool {
        self.backlog.is_empty() && !self.has_completions()
    }

    /// True when there is something to submit, or the kernel has put work off until an enter.
    pub(super) fn wants_enter(&mut self) -> bool {
        let queue = self.io.submission();
        queue.taskrun() || queue.cq_overflow() || !queue.is_empty() || !self.backlog.is_empty()
    }

    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(entry, token);
    }

    pub(super) fn receive(&mut self, stream: BorrowedFd<'_>, group: u16, token: Token) {
        let entry = opcode::RecvMulti::new(Fd(stream.as_raw_fd()), group).build();
        self.push(entry, token);
    }

    pub(super) fn receive_datagrams(&mut self, socket: BorrowedFd<'_>, group: u16, token: Token) {
        let header: *const libc::msghdr = &raw const *self.kept.datagram_header;
        let entry = opcode::RecvMsgMulti::new(Fd(socket.as_raw_fd()), header, group).build();
        self.push(entry, token);
    }

    /// Sends all of `tx`; the buffer comes back by [`Self::take_sent`].
    pub(super) fn send(&mut self, stream: BorrowedFd<'_>, token: Token, tx: TxBuf) {
        let lent = self.lent(token.index);
        assert!(
            !matches!(lent, Lent::Bytes { busy: true, .. } | Lent::Address { .. }),
            "one operation at a time lends memory of a stream"
        );
        *lent = Lent::Bytes {
            tx,
            sent: 0,
            busy: false,
        };
        self.send_rest(stream, token, 0);
    }

    /// Goes on with a send of which `more` further octets were taken. False when none are left.
    pub(super) fn send_rest(&mut self, stream: BorrowedFd<'_>, token: Token, more: usize) -> bool {
        let Lent::Bytes { tx, sent, busy } = self.lent(token.index) else {
            return false;
        };
        assert!(!*busy, "a send goes on only after its completion");
        *sent += more;
        let Some(rest) = tx.bytes.get(*sent..).filter(|rest| !rest.is_empty()) else {
            return false;
        };
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let address = rest.as_ptr();
        *busy = true;
        let entry = opcode::Send::new(Fd(stream.as_raw_fd()), address, len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry, token);
        true
    }

    /// The buffer of a send that has completed, whole or not.
    pub(super) fn take_sent(&mut self, index: u32) -> Option<TxBuf> {
        let lent = self.lent(index);
        match core::mem::take(lent) {
            Lent::Bytes { tx, busy, .. } => {
                assert!(!busy, "the kernel still reads this buffer");
                Some(tx)
            }
            other @ (Lent::Nothing | Lent::Address { .. }) => {
                *lent = other;
                None
            }
        }
    }

    pub(super) fn connect(&mut self, stream: BorrowedFd<'_>, token: Token, address: SockAddr) {
        let address = Box::new(address);
        let pointer = address.as_ptr().cast::<libc::sockaddr>();
        let len = address.len();
        let lent = self.lent(token.index);
        assert!(matches!(lent, Lent::Nothing), "a fresh slot lends nothing");
        *lent = Lent::Address { address };
        let entry = opcode::Connect::new(Fd(stream.as_raw_fd()), pointer, len).build();
        self.push(entry, token);
    }

    /// Sends the `runs` of `parts` of `tx` to `address`, one operation each. The train's number.
    pub(super) fn send_train(
        &mut self,
        socket: BorrowedFd<'_>,
        exit: Exit,
        tx: TxBuf,
        address: SockAddr,
        (parts, runs): (&[Part], &[Run]),
    ) -> u32 {
        let mut train = self.spare_trains.pop().unwrap_or_else(Train::new);
        train.load(tx, parts);
        *train.address = address;
        let free = self.kept.trains.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.kept.trains.push(None);
            self.kept.trains.len() - 1
        });
        self.kept.trains[index] = Some(train);
        let index = u32::try_from(index).expect("bounded by the buffers in flight");
        for &run in runs {
            self.push_run(socket, exit, index, run);
        }
        index
    }

    /// Sends one more part of a train that is on its way, by `socket`, which is `exit`.
    pub(super) fn push_run(&mut self, socket: BorrowedFd<'_>, exit: Exit, index: u32, run: Run) {
        let train = self.train(index);
        let number = train.prepare(run, exit);
        train.outstanding += 1;
        train.unhandled += 1;
        let header = &train.blocks[number].header;
        let number = u32::try_from(number).expect("a buffer has fewer than 2^32 octets");
        let entry = if run.count == 1 {
            // Without a header for the kernel to copy.
            let part = &train.parts[run.first as usize];
            let len = u32::try_from(part.iov_len).expect("a part of a buffer");
            opcode::Send::new(Fd(socket.as_raw_fd()), part.iov_base.cast(), len)
                .flags(libc::MSG_NOSIGNAL)
                .dest_addr(header.msg_name.cast())
                .dest_addr_len(header.msg_namelen)
                .build()
        } else {
            let header: *const libc::msghdr = header;
            opcode::SendMsg::new(Fd(socket.as_raw_fd()), header)
                .flags(libc::MSG_NOSIGNAL.cast_unsigned())
                .build()
        };
        self.push(entry, Token::new(Kind::SendTrain, index, number));
    }

    /// Where block `number` of train `index` lies, and the socket it left by.
    pub(super) fn train_run(&mut self, index: u32, number: u32) -> (Run, Exit) {
        let block = &self.train(index).blocks[number as usize];
        (block.run, block.exit)
    }

    /// Where train `index` goes.
    pub(super) fn train_destination(&mut self, index: u32) -> Option<core::net::SocketAddr> {
        self.train(index).tx.destination
    }

    /// One completion of train `index` was handled; the buffer if it was the last.
    pub(super) fn finish_run(&mut self, index: u32) -> Option<TxBuf> {
        let train = self.train(index);
        train.unhandled -= 1;
        let entry = &mut self.kept.trains[index as usize];
        let mut train = entry.take_if(|train| train.unhandled == 0 && train.outstanding == 0)?;
        let tx = core::mem::take(&mut train.tx);
        train.used = 0;
        self.spare_trains.push(train);
        Some(tx)
    }

    /// Does what a task asks for; its buffer comes back by [`Self::take_file`].
    pub(super) fn operate(&mut self, request: Request) {
        let Request { place, file, job } = request;
        let fd = Fd(file.as_raw_fd());
        let length = |buffer: &DmaBuffer| u32::try_from(buffer.len()).expect("a bounded buffer");
        let (entry, buffer) = match job {
            Job::Read { mut buffer, at } => {
                let len = length(&buffer);
                let memory = buffer.as_bytes_mut().as_mut_ptr();
                let read = opcode::Read::new(fd, memory, len).offset(at);
                (read.build(), Some(buffer))
            }
            Job::Write { buffer, at } => {
                let len = length(&buffer);
                let write = opcode::Write::new(fd, buffer.as_bytes().as_ptr(), len).offset(at);
                (write.build(), Some(buffer))
            }
            Job::SyncData => {
                let sync = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC);
                (sync.build(), None)
            }
        };
        let index = place as usize;
        let files = &mut self.kept.files;
        if files.len() <= index {
            files.resize_with(index + 1, || None);
        }
        assert!(files[index].is_none(), "a place has one operation");
        // Moving a buffer moves what leads to its memory, and not that.
        files[index] = Some(LentFile {
            file,
            buffer,
            busy: true,
        });
        self.push(entry, Token::new(Kind::File, place, 0));
    }

    /// The buffer of an operation on a file that has completed.
    pub(super) fn take_file(&mut self, place: u32) -> Option<DmaBuffer> {
        let entry = self.kept.files.get_mut(place as usize)?;
        entry.take_if(|lent| !lent.busy)?.buffer
    }

    pub(super) fn cancel(&mut self, target: Token, token: Token) {
        let entry = opcode::AsyncCancel::new(target.encode()).build();
        self.push(entry, token);
    }

    pub(super) fn cancel_all(&mut self, token: Token) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
        self.push(entry, token);
    }

    /// Submits what is queued, runs the kernel's deferred work, and waits for one completion for
    /// at most `wait` (`None`: does not wait).
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.refill();
        for group in &mut self.kept.groups {
            group.refill();
        }
        self.enters += 1;
        let outcome = if let Some(wait) = wait {
            let limit = timespec(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
            let args = SubmitArgs::new().timespec(&limit);
            let gather = u32::try_from(self.gather.min(wait).as_micros()).unwrap_or(u32::MAX);
            // Not more than there is room for without the kernel keeping some back.
            let most = self.io.params().cq_entries() as usize / 2;
            match gather {
                0 => self.io.submitter().submit_with_args(1, &args),
                _ => {
                    let args = args.min_wait_usec(gather);
                    self.io.submitter().submit_with_args(most, &args)
                }
            }
        } else {
            let queued = u32::try_from(self.io.submission().len()).expect("a ring is small");
            let flags = EnterFlags::GETEVENTS.bits();
            let submitter = self.io.submitter();
            // SAFETY: `queued` entries are in the queue and no argument is passed.
            unsafe { submitter.enter::<libc::sigset_t>(queued, 0, flags, None) }
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                Some(_) | None => Err(error),
            },
        }
    }

    /// Appends up to `limit` completions to `out`, fewer once those taken brought `octets` octets.
    ///
    /// While calls leave some, after each [`OVERTAKEN`] octets of input the ends of files' operations and of
    /// sends overtake what was received, and all of them are taken: megabytes of input may be in the queue, and
    /// what was begun is not to wait for what is new. A send that failed overtakes nothing: what came before
    /// from its peer is still to be read.
    pub(super) fn reap(&mut self, out: &mut Vec<Completion>, limit: usize, octets: usize) {
        let mut queue = self.io.completion();
        let kept = &mut *self.kept;
        if self.in_a_row >= OVERTAKEN {
            self.in_a_row = 0;
            while self.set_aside.len() < SET_ASIDE_MAX
                && let Some(entry) = queue.next()
            {
                let overtakes = match Token::decode(entry.user_data()).kind {
                    Kind::File => true,
                    Kind::Send | Kind::SendTrain => entry.result() >= 0,
                    Kind::Accept
                    | Kind::Connect
                    | Kind::Other
                    | Kind::Receive
                    | Kind::ReceiveDatagrams
                    | Kind::Wake => false,
                };
                if overtakes {
                    self.in_flight = self.in_flight.saturating_sub(1);
                    out.push(kept.complete(&entry));
                } else {
                    self.set_aside.push_back(entry);
                }
            }
        }
        let mut brought = 0;
        while out.len() < limit && brought < octets {
            let next = self.set_aside.pop_front().or_else(|| queue.next());
            let Some(entry) = next else {
                break;
            };
            let completion = kept.complete(&entry);
            if !completion.more {
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            if completion.buffer.is_some() {
                brought += usize::try_from(completion.result).unwrap_or(0);
            }
            out.push(completion);
        }
        let is_behind = !self.set_aside.is_empty() || !queue.is_empty();
        self.in_a_row = if is_behind {
            self.in_a_row + brought
        } else {
            0
        };
    }

    /// The first `len` octets of a received buffer.
    pub(super) fn received(&self, group: usize, buffer: u16, len: usize) -> &[u8] {
        self.kept.groups[group].read(buffer, len)
    }

    /// A received buffer taken apart: peer, control data, payload.
    pub(super) fn received_datagram(
        &self,
        group: usize,
        buffer: u16,
        len: usize,
    ) -> Option<RecvMsgOut<'_>> {
        let bytes = self.received(group, buffer, len);
        RecvMsgOut::parse(bytes, &self.kept.datagram_header).ok()
    }

    /// Gives a received buffer back to the kernel.
    pub(super) fn give_back(&mut self, group: usize, buffer: u16) {
        self.kept.groups[group].give(buffer);
    }

    /// Operations whose last completion was not reaped yet.
    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Calls of `io_uring_enter` so far.
    pub(super) const fn enters(&self) -> u64 {
        self.enters
    }

    fn lent(&mut self, index: u32) -> &mut Lent {
        let index = index as usize;
        if self.kept.lent.len() <= index {
            self.kept.lent.resize_with(index + 1, Lent::default);
        }
        &mut self.kept.lent[index]
    }

    fn train(&mut self, index: u32) -> &mut Train {
        self.kept.trains[index as usize]
            .as_mut()
            .expect("a train stays until it is taken, and it is taken with nothing in flight")
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) {
        self.in_flight += 1;
        let entry = entry.user_data(token.encode());
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            self.backlog.push_back(entry);
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        let mut queue = self.io.submission();
        // SAFETY: every pointer of an entry leads into `Kept`, which outlives the operation.
        unsafe { queue.push(entry) }.is_ok()
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }
}

impl Drop for RawRing {
    fn drop(&mut self) {
        if self.in_flight == 0 {
            // SAFETY: dropped once, here, and no operation can touch the memory any more.
            unsafe { ManuallyDrop::drop(&mut self.kept) };
        }
    }
}

impl Kept {
    /// What a completion says; its operation may let go of what it used.
    fn complete(&mut self, entry: &cqueue::Entry) -> Completion {
        let token = Token::decode(entry.user_data());
        let result = entry.result();
        let buffer = cqueue::buffer_select(entry.flags());
        let mut accepted = None;
        match token.kind {
            Kind::Accept if result >= 0 => {
                // SAFETY: the kernel just made this descriptor for us, and only here is it
                // taken from a completion, each of which comes here once.
                accepted = Some(unsafe { OwnedFd::from_raw_fd(result) });
            }
            Kind::Receive | Kind::ReceiveDatagrams => {
                let group = &mut self.groups[token.kind.group()];
                if let Some(buffer) = buffer {
                    group.took(buffer);
                } else if result == -libc::ENOBUFS {
                    group.ran_out();
                }
            }
            Kind::Send | Kind::Connect => self.finished(token.index),
            Kind::SendTrain => {
                if let Some(Some(train)) = self.trains.get_mut(token.index as usize) {
                    train.outstanding = train.outstanding.saturating_sub(1);
                }
            }
            Kind::File => {
                if let Some(Some(lent)) = self.files.get_mut(token.index as usize) {
                    lent.busy = false;
                }
            }
            Kind::Accept | Kind::Other | Kind::Wake => {}
        }
        Completion {
            token,
            result,
            more: cqueue::more(entry.flags()),
            buffer,
            accepted,
        }
    }

    /// The operation that borrowed memory of stream `index` is over.
    fn finished(&mut self, index: u32) {
        let Some(lent) = self.lent.get_mut(index as usize) else {
            return;
        };
        match lent {
            Lent::Nothing => {}
            Lent::Address { .. } => *lent = Lent::Nothing,
            Lent::Bytes { busy, .. } => *busy = false,
        }
    }
}

impl Train {
    fn new() -> Box<Self> {
        let nowhere = core::net::SocketAddr::from(([0, 0, 0, 0], 0));
        Box::new(Self {
            tx: TxBuf::default(),
            parts: Vec::new(),
            address: Box::new(nowhere.into()),
            blocks: Vec::new(),
            used: 0,
            outstanding: 0,
            unhandled: 0,
        })
    }

    /// Takes a buffer whose datagrams lie at `parts`.
    fn load(&mut self, tx: TxBuf, parts: &[Part]) {
        assert!(self.outstanding == 0, "the kernel reads the parts");
        self.tx = tx;
        self.parts.clear();
        for part in parts {
            let bytes = &self.tx.bytes[part.start as usize..part.end as usize];
            self.parts.push(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
    }

    /// Fills the next block for `run` and returns its number. A connected socket is told no address:
    /// the kernel would look up the route again.
    fn prepare(&mut self, run: Run, exit: Exit) -> usize {
        let number = self.used;
        self.used += 1;
        if self.blocks.len() == number {
            // SAFETY: all-zero is a valid block: null pointers with zero lengths, integers, false.
            self.blocks.push(Box::new(unsafe { core::mem::zeroed() }));
        }
        let parts = &mut self.parts[run.first as usize..][..run.count as usize];
        let block = &mut *self.blocks[number];
        block.run = run;
        block.exit = exit;
        if exit.is_connected {
            block.header.msg_name = core::ptr::null_mut();
            block.header.msg_namelen = 0;
        } else {
            block.header.msg_name = self.address.as_ptr().cast_mut().cast();
            block.header.msg_namelen = self.address.len();
        }
        block.header.msg_iov = parts.as_mut_ptr();
        block.header.msg_iovlen = parts.len();
        if run.segment == 0 {
            block.header.msg_control = core::ptr::null_mut();
            block.header.msg_controllen = 0;
        } else {
            block.control = segment_message(run.segment);
            block.header.msg_control = block.control.as_mut_ptr().cast();
            block.header.msg_controllen = size_of_val(&block.control);
        }
        number
    }
}

/// The control message `UDP_SEGMENT` with this value.
fn segment_message(segment: u16) -> [u64; CONTROL_WORDS] {
    // struct cmsghdr: length, then level and type; then the value, padded.
    let level = u64::from(libc::SOL_UDP.cast_unsigned());
    let kind = u64::from(libc::UDP_SEGMENT.cast_unsigned());
    if cfg!(target_endian = "little") {
        [18, level | kind << 32, u64::from(segment)]
    } else {
        [18, level << 32 | kind, u64::from(segment) << 48]
    }
}

fn name_bytes() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>())
        .expect("a socket address is small")
}

/// A descriptor whose owner keeps it open while an operation names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFd(RawFd);

impl OpenFd {
    /// # Safety
    /// `fd` stays open whenever [`OpenFd::with`] is called on the value or on a copy of it.
    pub(super) unsafe fn new(fd: BorrowedFd<'_>) -> Self {
        Self(fd.as_raw_fd())
    }

    /// Lends it for one call.
    pub(super) fn with<T>(self, to: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        // SAFETY: open, as was promised to `new`, and not -1, as it comes from a borrowed one.
        to(unsafe { BorrowedFd::borrow_raw(self.0) })
    }
}

/// A glommio file over a descriptor, for reading an eventfd.
pub(super) fn executor_file(fd: OwnedFd) -> BufferedFile {
    // SAFETY: the descriptor is open and ours; the file becomes its only owner.
    unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) }
}

fn timespec(nanos: u64) -> Timespec {
    let rest = u32::try_from(nanos % 1_000_000_000).expect("a remainder is smaller");
    Timespec::new().sec(nanos / 1_000_000_000).nsec(rest)
}

#[cfg(test)]
mod tests;
