//! Every unsafe operation of the program: the io_uring, memory lent to the kernel, raw descriptors.
//!
//! The one rule behind the proofs: whatever a submitted operation points to is owned by
//! [`RawRing`] from before the submission until the operation's last completion was reaped. On a
//! drop with operations in flight that memory is leaked, never freed.
#![expect(unsafe_code, reason = "the one module where it is allowed")]

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering, fence};
use core::time::Duration;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use glommio::io::{BufferedFile, DmaBuffer, DmaFile};
use io_uring::types::{
    BufRingEntry, CancelBuilder, Fd, FsyncFlags, RecvMsgOut, SubmitArgs, Timespec,
};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use socket2::SockAddr;

use crate::base::surface::TxBuf;

use super::exec::{Job, Request};
use super::ring::{Completion, Kind, Token};
use super::trains::{Exit, Part, Run};

pub(super) mod ethtool;

/// Alignment of a ring of provided buffers.
const PAGE: usize = 4096;
/// Octets of receive buffers the kernel is offered at a time while that is enough: what comes in is
/// then written to memory that the caches still hold.
const WINDOW_BYTES: usize = 256 * 1024;
/// Fewest buffers offered.
const WINDOW_MIN: usize = 8;
/// Refills without a shortage after which fewer buffers are offered.
const CALM_REFILLS: u16 = 1024;
/// Octets of control data a received datagram may bring: one `UDP_GRO` message.
const CONTROL_BYTES: usize = 64;
/// Words of control data of a train: one `UDP_SEGMENT` message of 24 octets.
const CONTROL_WORDS: usize = 3;

/// Words of a socket address of any kind.
const NAME_WORDS: usize = size_of::<libc::sockaddr_storage>() / 8;

/// Octets of a receive buffer that the kernel fills before a datagram's payload.
pub(super) const DATAGRAM_HEADROOM: usize =
    16 + size_of::<libc::sockaddr_storage>() + CONTROL_BYTES;

/// Shuts the file system that `directory` lies on down at once, as a power cut would: what its own
/// journal has not written is lost, and every later operation fails. For tests; needs root.
///
/// # Errors
/// What the system said; a file system that cannot do it is "inappropriate ioctl".
#[cfg(feature = "demo")]
pub fn cut_power(directory: &std::path::Path) -> io::Result<()> {
    /// `FS_IOC_SHUTDOWN`, which ext4 and XFS share: `_IOR('X', 125, __u32)`.
    const SHUTDOWN: libc::Ioctl = 0x8004_587d;
    /// Do not write the log first.
    const NO_LOG_FLUSH: u32 = 2;
    let file = std::fs::File::open(directory)?;
    let how = NO_LOG_FLUSH;
    // SAFETY: the descriptor is open, and the kernel reads one u32, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SHUTDOWN, &raw const how) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

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

/// Receive buffers of equal size, and the ring through which the kernel takes them.
struct RxGroup {
    ring: NonNull<BufRingEntry>,
    data: NonNull<u8>,
    entries: u16,
    each: u32,
    tail: u16,
    /// True while a buffer is ours to read.
    held: Vec<bool>,
    /// Free buffers that the kernel does not have; the one freed last is offered next.
    idle: Vec<u16>,
    /// Buffers the kernel has and has not filled.
    offered: u16,
    /// How many the kernel is offered at a time.
    window: u16,
    /// Refills since the kernel last ran out, up to [`CALM_REFILLS`].
    calm: u16,
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

    /// Lets a wait go on until it has lasted `time`, at most, although there is something; false where the
    /// kernel does not know how (before 6.12).
    pub(super) fn gather(&mut self, time: Duration) -> bool {
        let can = self.io.params().is_feature_min_timeout();
        self.gather = if can { time } else { Duration::ZERO };
        can
    }

    /// Adds a group of receive buffers; groups number from 0. `entries` is a power of two.
    pub(super) fn add_group(&mut self, entries: u16, each: u32) -> io::Result<()> {
        let mut group = RxGroup::new(entries, each);
        let number = u16::try_from(self.kept.groups.len()).expect("a handful of groups");
        let address = group.ring.as_ptr().addr();
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

impl RxGroup {
    fn new(entries: u16, each: u32) -> Self {
        assert!(entries.is_power_of_two(), "the kernel masks the index");
        let ring = allocate(Self::ring_layout(entries)).cast();
        let data = allocate(Self::data_layout(entries, each));
        Self {
            ring,
            data,
            entries,
            each,
            tail: 0,
            held: vec![false; usize::from(entries)],
            idle: (0..entries).rev().collect(),
            offered: 0,
            window: Self::least(entries, each),
            calm: 0,
        }
    }

    /// The window while nobody asks for more: what stays in the caches.
    fn least(entries: u16, each: u32) -> u16 {
        let few = (WINDOW_BYTES / each as usize).max(WINDOW_MIN);
        u16::try_from(few).unwrap_or(entries).min(entries)
    }

    /// Offers the kernel what it may have. The window doubles when the kernel runs out, and shrinks
    /// again after a calm time.
    fn refill(&mut self) {
        self.calm += 1;
        if self.calm >= CALM_REFILLS {
            self.calm = 0;
            self.window = (self.window / 2).max(Self::least(self.entries, self.each));
        }
        while self.offered < self.window {
            let Some(buffer) = self.idle.pop() else {
                return;
            };
            self.offer(buffer);
        }
    }

    /// The kernel filled a buffer.
    fn took(&mut self, buffer: u16) {
        self.held[usize::from(buffer)] = true;
        self.offered -= 1;
    }

    /// A receive found no buffer.
    fn ran_out(&mut self) {
        if self.offered == 0 {
            self.window = self.window.saturating_mul(2).min(self.entries);
            self.calm = 0;
        }
    }

    fn give(&mut self, buffer: u16) {
        let held = core::mem::take(&mut self.held[usize::from(buffer)]);
        assert!(held, "given back twice");
        self.idle.push(buffer);
    }

    fn ring_layout(entries: u16) -> Layout {
        let bytes = usize::from(entries) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes.max(PAGE), PAGE).expect("at most half a mebibyte")
    }

    fn data_layout(entries: u16, each: u32) -> Layout {
        let bytes = usize::from(entries) * each as usize;
        Layout::from_size_align(bytes, PAGE).expect("the configuration bounds it")
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.entries, "the kernel knows only our buffers");
        let offset = usize::from(buffer) * self.each as usize;
        // SAFETY: the allocation has `entries` buffers of `each` octets, and `buffer < entries`.
        unsafe { self.data.as_ptr().add(offset) }
    }

    fn read(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(self.held[usize::from(buffer)], "the kernel owns it");
        assert!(len <= self.each as usize, "the kernel fills no more");
        // SAFETY: in bounds by the assertions; initialised by `alloc_zeroed`; the kernel does not
        // write a held buffer, and `give` needs `&mut self`.
        unsafe { core::slice::from_raw_parts(self.address(buffer), len) }
    }

    fn offer(&mut self, buffer: u16) {
        self.offered += 1;
        let address = u64::try_from(self.address(buffer).addr()).expect("addresses have 64 bits");
        let place = usize::from(self.tail & (self.entries - 1));
        // SAFETY: `place < entries`, and the ring has `entries` entries.
        let entry = unsafe { self.ring.as_ptr().add(place) };
        // SAFETY: valid, aligned, zero-initialised memory; the kernel reads an entry only after
        // the tail has passed it, and writes none.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(self.each);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring is aligned and its first entry initialised.
        let tail = unsafe { BufRingEntry::tail(self.ring.as_ptr()) };
        // SAFETY: the kernel reads this field atomically; it is aligned and lives as long as us.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for RxGroup {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.ring.as_ptr().cast(), Self::ring_layout(self.entries)) };
        let layout = Self::data_layout(self.entries, self.each);
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.data.as_ptr(), layout) };
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

/// One datagram, or a train of them, that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    pub bytes: &'a [u8],
    /// Where the datagrams lie in `bytes`.
    pub parts: &'a [Part],
    /// Octets of each datagram but the last, or 0 for a single one.
    pub segment: u16,
    /// `None` from a connected socket.
    pub address: Option<&'a SockAddr>,
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub octets: usize,
    /// The value of `UDP_GRO`, when the kernel joined datagrams.
    pub segment: Option<usize>,
    /// `None` when the kernel named none, or had to cut the datagram.
    pub source: Option<core::net::SocketAddr>,
}

/// Headers for calls that move many datagrams at once. Nothing in it leads anywhere between two calls.
#[derive(Default)]
pub(super) struct Datagrams {
    headers: Vec<libc::mmsghdr>,
    parts: Vec<libc::iovec>,
    control: Vec<[u64; CONTROL_BYTES / 8]>,
    names: Vec<[u64; NAME_WORDS]>,
}

impl Datagrams {
    /// Sends `runs` in order, each as one operation: how many the kernel took, at least one. Does not
    /// block.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        runs: impl Iterator<Item = Outgoing<'a>> + Clone,
    ) -> io::Result<usize> {
        self.headers.clear();
        self.parts.clear();
        self.control.clear();
        for run in runs.clone() {
            let mut control = [0; CONTROL_BYTES / 8];
            control[..CONTROL_WORDS].copy_from_slice(&segment_message(run.segment));
            self.control.push(control);
            for part in run.parts {
                let bytes = &run.bytes[part.start as usize..part.end as usize];
                self.parts.push(libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                });
            }
        }
        let mut parts = &mut self.parts[..];
        for (run, control) in runs.zip(&mut self.control) {
            let (own, rest) = parts.split_at_mut(run.parts.len());
            parts = rest;
            let mut header = empty_header();
            if let Some(address) = run.address {
                header.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
                header.msg_hdr.msg_namelen = address.len();
            }
            header.msg_hdr.msg_iov = own.as_mut_ptr();
            header.msg_hdr.msg_iovlen = own.len();
            if run.segment > 0 {
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL_WORDS]>();
            }
            self.headers.push(header);
        }
        let count = u32::try_from(self.headers.len()).expect("a bounded batch");
        let headers = self.headers.as_mut_ptr();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `count` headers, whose names, parts and control data were borrowed by the caller or
        // by us before and live through the call; of all this the kernel writes only the headers.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers, count, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Fills the buffers called `numbers`, in order and one each: how many; [`Self::arrived`] tells of
    /// each. Does not block.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: &mut [Vec<u8>],
        numbers: &[u16],
    ) -> io::Result<usize> {
        let count = numbers.len();
        // A name the kernel leaves alone is one of no family.
        self.names.clear();
        self.names.resize(count, [0; NAME_WORDS]);
        self.control.resize(count, [0; CONTROL_BYTES / 8]);
        self.headers.clear();
        self.parts.clear();
        for &number in numbers {
            let buffer = &mut buffers[usize::from(number)];
            self.parts.push(libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            });
        }
        let rest = self.names.iter_mut().zip(&mut self.control);
        for (part, (name, control)) in self.parts.iter_mut().zip(rest) {
            let mut header = empty_header();
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = name_bytes();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
            self.headers.push(header);
        }
        let length = u32::try_from(count).expect("a bounded batch");
        let headers = self.headers.as_mut_ptr();
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: `length` headers; each leads to a name, control data and a buffer of its own with the
        // lengths given, all borrowed mutably through the call and not looked at meanwhile.
        let got = unsafe { libc::recvmmsg(fd, headers, length, flags, core::ptr::null_mut()) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// What the last receive put into its buffer number `at`.
    pub(super) fn arrived(&self, at: usize) -> Arrived {
        let header = &self.headers[at];
        let octets = header.msg_len as usize;
        let mut control = [0; CONTROL_BYTES];
        for (out, word) in control.chunks_exact_mut(8).zip(&self.control[at]) {
            out.copy_from_slice(&word.to_ne_bytes());
        }
        let filled = header.msg_hdr.msg_controllen.min(CONTROL_BYTES);
        let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        let mut name = [0; size_of::<libc::sockaddr_in6>().next_multiple_of(8)];
        for (out, word) in name.chunks_exact_mut(8).zip(&self.names[at]) {
            out.copy_from_slice(&word.to_ne_bytes());
        }
        Arrived {
            octets,
            segment: super::udp::segment(&control[..filled]),
            source: super::udp::address(&name).filter(|_| whole),
        }
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: all-zero is a valid header: null pointers with zero lengths.
    unsafe { core::mem::zeroed() }
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

/// Asks the kernel to join datagrams of one sender into one receive. False where it cannot.
pub(super) fn enable_gro(socket: BorrowedFd<'_>) -> bool {
    switch_on(socket, libc::SOL_UDP, libc::UDP_GRO)
}

/// Lets the kernel cut what is sent on `socket` into datagrams of `segment` octets. False where it
/// cannot.
pub(super) fn set_segment(socket: BorrowedFd<'_>, segment: u16) -> bool {
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, segment.into())
}

/// Lets a bind to port 0 leave the choice of the port to the connect, where it is by four-tuple.
pub(super) fn defer_port(socket: BorrowedFd<'_>) -> bool {
    switch_on(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// Octets the peer of a stream has acknowledged so far; `None` where the kernel does not say.
pub(super) fn acknowledged(socket: BorrowedFd<'_>) -> Option<u64> {
    /// Where `tcpi_bytes_acked` of `struct tcp_info` begins (linux/tcp.h, since Linux 4.1).
    const AT: usize = 120;
    let mut info = [0_u8; AT + 8];
    let size = libc::socklen_t::try_from(info.len()).expect("a few octets");
    let mut len = size;
    // SAFETY: the kernel writes `len` octets at most, which are ours, and how many it wrote.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let octets = info[AT..]
        .first_chunk()
        .map(|octets| u64::from_ne_bytes(*octets));
    octets.filter(|_| outcome == 0 && len == size)
}

fn switch_on(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> bool {
    set_int(socket, level, option, 1)
}

/// Sets a socket option that takes an int. False where the kernel refuses.
pub(super) fn set_int(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> bool {
    let len = libc::socklen_t::try_from(size_of_val(&value)).expect("four octets");
    // SAFETY: every option set here takes an int, and the pointer leads to one.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            len,
        )
    };
    outcome == 0
}

fn allocate(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0, "an empty group has no use");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

fn timespec(nanos: u64) -> Timespec {
    let rest = u32::try_from(nanos % 1_000_000_000).expect("a remainder is smaller");
    Timespec::new().sec(nanos / 1_000_000_000).nsec(rest)
}

#[cfg(test)]
mod tests;
