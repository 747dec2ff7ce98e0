//! Names of ring operations, their completions, and what to say when the kernel refuses a ring.

use std::io;
use std::os::fd::OwnedFd;

/// Bits of a token's index; slots, listeners and trains stay below `2^INDEX_BITS`.
const INDEX_BITS: u32 = 24;

/// Most connections a driver can name.
pub(super) const SLOTS_MAX: u32 = 1 << INDEX_BITS;

/// The group of receive buffers of streams.
pub(super) const STREAM_GROUP: u16 = 0;
/// The group of receive buffers of datagram sockets.
pub(super) const DATAGRAM_GROUP: u16 = 1;
/// Octets received that end a turn's batch: what a turn reads and writes should fit the caches.
pub(super) const REAP_BYTES: usize = 64 * 1024;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Multishot accept; the index is the listener's.
    Accept,
    /// A connect; the index is the slot's.
    Connect,
    /// An operation on a file; the index is the place of its request.
    File,
    /// Anything whose completion needs no action.
    Other,
    /// Multishot receive of a stream; the index is the slot's.
    Receive,
    /// Multishot receive of a datagram socket; the index is the slot's.
    ReceiveDatagrams,
    /// A send of a stream; the index is the slot's.
    Send,
    /// A part of a train; the index is the train's, the generation the block's number.
    SendTrain,
    /// Multishot poll of what other threads wake us by.
    Wake,
}

impl Kind {
    /// The buffer group a receive takes from.
    pub(super) const fn group(self) -> usize {
        match self {
            Self::ReceiveDatagrams => DATAGRAM_GROUP as usize,
            Self::Accept
            | Self::Connect
            | Self::File
            | Self::Other
            | Self::Receive
            | Self::Send
            | Self::SendTrain
            | Self::Wake => STREAM_GROUP as usize,
        }
    }

    const fn number(self) -> u64 {
        match self {
            Self::Accept => 1,
            Self::Connect => 2,
            Self::Other => 0,
            Self::Receive => 3,
            Self::ReceiveDatagrams => 4,
            Self::Send => 5,
            Self::SendTrain => 6,
            Self::File => 7,
            Self::Wake => 8,
        }
    }

    const fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Accept,
            2 => Self::Connect,
            3 => Self::Receive,
            4 => Self::ReceiveDatagrams,
            5 => Self::Send,
            6 => Self::SendTrain,
            7 => Self::File,
            8 => Self::Wake,
            _ => Self::Other,
        }
    }
}

/// The user data of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub index: u32,
    pub generation: u32,
}

impl Token {
    pub(super) const fn new(kind: Kind, index: u32, generation: u32) -> Self {
        Self {
            kind,
            index,
            generation,
        }
    }

    /// A token whose completion is ignored.
    pub(super) const fn ignored() -> Self {
        Self::new(Kind::Other, 0, 0)
    }

    pub(super) const fn encode(self) -> u64 {
        assert!(self.index < SLOTS_MAX, "an index has 24 bits");
        self.kind.number() << 56 | (self.index as u64) << 32 | self.generation as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the fields are masked out")]
    pub(super) const fn decode(data: u64) -> Self {
        Self {
            kind: Kind::from_number(data >> 56),
            index: (data >> 32) as u32 & (SLOTS_MAX - 1),
            generation: data as u32,
        }
    }
}

/// One reaped completion.
#[derive(Debug)]
pub(super) struct Completion {
    pub token: Token,
    /// As the system call would return it: at least 0, or a negated error number.
    pub result: i32,
    /// True while the operation goes on by itself.
    pub more: bool,
    /// The receive buffer that was filled.
    pub buffer: Option<u16>,
    /// The new connection of an accept.
    pub accepted: Option<OwnedFd>,
}

/// What keeps this machine from giving us a ring, with the remedy, in one sentence.
#[must_use]
pub(super) fn refusal(error: &io::Error) -> &'static str {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.is_ok_and(|value| value.trim() != "0");
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled => {
            "io_uring is switched off by sysctl: set kernel.io_uring_disabled=0 (or 1 and add this \
             user to kernel.io_uring_group)"
        }
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            "io_uring is refused, most likely by a container's seccomp profile: allow the system \
             calls io_uring_setup, io_uring_enter and io_uring_register, and check that the kernel \
             is 6.1 or newer"
        }
        Some(libc::EINVAL) => "the kernel is too old for this ring: run Linux 6.1 or newer",
        Some(libc::ENOMEM) => {
            "no memory may be locked for io_uring: raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the \
             service unit) to 8 MiB or more per shard"
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "no file descriptor is left: raise RLIMIT_NOFILE (LimitNOFILE= in the service unit)"
        }
        Some(_) | None => "the kernel refused an io_uring",
    }
}

/// What to do when the executor's own rings were refused. The library tells only in words.
pub(super) fn executor_remedy(reason: &str) -> Option<&'static str> {
    if reason.contains("MemLockLimit") || reason.contains("os error 12") {
        return Some(
            "raise RLIMIT_MEMLOCK (ulimit -l, or LimitMEMLOCK= in the service unit) to 8 MiB or \
             more per shard",
        );
    }
    is_shortage(reason).then_some(
        "raise RLIMIT_NOFILE (ulimit -n, or LimitNOFILE= in the service unit) to 1024 or more, \
         and more for many phones",
    )
}

/// Whether the executor was refused for want of descriptors.
pub(super) fn is_shortage(reason: &str) -> bool {
    reason.contains("os error 24")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for kind in [
            Kind::Accept,
            Kind::Connect,
            Kind::File,
            Kind::Other,
            Kind::Receive,
            Kind::ReceiveDatagrams,
            Kind::Send,
            Kind::SendTrain,
            Kind::Wake,
        ] {
            for (index, generation) in [(0, 0), (SLOTS_MAX - 1, u32::MAX), (77, 5)] {
                let token = Token::new(kind, index, generation);
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
    }

    #[test]
    fn a_refusal_names_its_remedy() {
        let seccomp = refusal(&io::Error::from_raw_os_error(libc::ENOSYS));
        assert!(seccomp.contains("seccomp"));
        let memory = refusal(&io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(memory.contains("RLIMIT_MEMLOCK"));
        let old = refusal(&io::Error::from_raw_os_error(libc::EINVAL));
        assert!(old.contains("6.1"));
        let locked = "IO error occurred: MemLockLimit(65536/524288)";
        assert!(executor_remedy(locked).is_some_and(|remedy| remedy.contains("RLIMIT_MEMLOCK")));
        let files = io::Error::from_raw_os_error(libc::EMFILE).to_string();
        assert!(executor_remedy(&files).is_some_and(|remedy| remedy.contains("RLIMIT_NOFILE")));
        assert_eq!(executor_remedy("out of luck"), None);
    }
}
