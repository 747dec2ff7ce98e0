//! What the shards run on: io_uring where the host allows it, else epoll with calls for many messages.
//!
//! [`choose`] finds out which before anything is bound; `Ring` is the one or the other for the driver.

use core::net::SocketAddr;
use core::task::Waker;
use core::time::Duration;
use std::io;
use std::os::fd::BorrowedFd;

use glommio::io::DmaBuffer;
use serde::{Deserialize, Serialize};

use super::exec::{self, Attached, Request};
use super::host::HostError;
use super::park::Parker;
use super::poll::PollRing;
use super::ring::{Completion, Kind, Token};
use super::sys::{DATAGRAM_HEADROOM, RawRing};
use super::trains::{Exit, Part, Run};
use crate::base::surface::TxBuf;

/// What the fallback costs, for the line at the start and `volley doctor`.
pub const FALLBACK_COSTS: &str = "shards make several system calls a turn instead of one, and their stores write \
     through the page cache by a helper thread each; nothing else differs";

/// What the shards run on. Spelled in files and on the command line as [`Backend::name`] says.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Backend {
    /// io_uring where the kernel gives one, else `mmsg`.
    #[default]
    Auto,
    /// io_uring, or no start.
    IoUring,
    /// epoll, `recvmmsg` and `sendmmsg`; files by a helper thread of each shard.
    Mmsg,
}

impl Backend {
    /// As configured and printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Mmsg => "mmsg",
        }
    }
}

/// What a wish comes to on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Never [`Backend::Auto`].
    pub backend: Backend,
    /// Why it is not io_uring although that was not excluded: one sentence with the remedy.
    pub refused: Option<String>,
}

/// Decides what to run on.
///
/// # Errors
/// io_uring was demanded and is not to be had, or the process has no descriptor left:
/// [`HostError::Ring`] or [`HostError::Executor`], with the remedy.
pub fn choose(wanted: Backend) -> Result<Choice, HostError> {
    let taken = |backend, refused| Ok(Choice { backend, refused });
    match wanted {
        Backend::Mmsg => taken(Backend::Mmsg, None),
        Backend::IoUring => {
            super::host::probe()?;
            taken(Backend::IoUring, None)
        }
        Backend::Auto => match super::host::probe() {
            Ok(()) => taken(Backend::IoUring, None),
            // The other backend has as few descriptors.
            Err(error) if error.is_shortage() => Err(error),
            Err(error) => taken(Backend::Mmsg, Some(error.to_string())),
        },
    }
}

/// One of the two, behind one surface; see [`RawRing`] for what the methods promise.
pub(super) enum Ring {
    Uring(RawRing),
    Mmsg(PollRing),
}

/// A received buffer of a datagram socket, taken apart.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub source: SocketAddr,
    /// Octets of each datagram but the last.
    pub segment: usize,
    pub payload: &'a [u8],
}

macro_rules! both {
    ($self:ident, $ring:ident => $uring:expr, $mmsg:expr) => {
        match $self {
            Self::Uring($ring) => $uring,
            Self::Mmsg($ring) => $mmsg,
        }
    };
}

impl Ring {
    pub(super) fn add_group(&mut self, entries: u16, each: u32) -> io::Result<()> {
        both!(self, ring => ring.add_group(entries, each), {
            ring.add_group(entries, each);
            Ok(())
        })
    }

    /// Ends a wait whenever `wake`, an eventfd, is written. To be asked for again when the completion of
    /// [`Kind::Wake`] says that there are no more.
    pub(super) fn watch_wake(&mut self, wake: BorrowedFd<'_>) -> io::Result<()> {
        both!(self, ring => {
            ring.watch_wake(wake);
            Ok(())
        }, ring.register_wake(wake))
    }

    pub(super) fn signal_wake(&mut self, on: bool) {
        both!(self, ring => ring.signal_wake(on), {
            let _ = ring;
        });
    }

    /// By what to wait in the executor for this ring's news.
    pub(super) fn parker(&self) -> io::Result<Parker> {
        both!(
            self,
            ring => Parker::on_signal(ring.signal().try_clone_to_owned()?),
            Ok(Parker::on_epoll(ring.fd().try_clone_to_owned()?))
        )
    }

    /// Makes this ring do what the tasks of this thread ask for, where it is one of the kernel's; `driver`
    /// wakes who turns it.
    pub(super) fn attach(&self, driver: &Waker) -> Option<Attached> {
        both!(self, ring => {
            let _ = ring;
            Some(exec::attach(driver.clone()))
        }, {
            let _ = (ring, driver);
            None
        })
    }

    /// True when a turn would find nothing, and the kernel has all that was begun.
    pub(super) fn may_rest(&mut self) -> bool {
        both!(self, ring => ring.may_rest(), !ring.has_work())
    }

    /// True when only an enter shows what there is. epoll always has to be asked.
    pub(super) fn wants_enter(&mut self) -> bool {
        both!(self, ring => ring.wants_enter(), {
            let _ = ring;
            true
        })
    }

    /// Receives that found no buffer and did not say so by a completion.
    pub(super) fn take_starvations(&mut self) -> u64 {
        both!(self, ring => {
            let _ = ring;
            0
        }, ring.take_starvations())
    }

    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        both!(self, ring => ring.accept(listener, token), ring.accept(listener, token));
    }

    pub(super) fn receive(&mut self, stream: BorrowedFd<'_>, group: u16, token: Token) {
        both!(self, ring => ring.receive(stream, group, token), ring.receive(stream, token));
    }

    pub(super) fn receive_datagrams(&mut self, socket: BorrowedFd<'_>, group: u16, token: Token) {
        both!(
            self,
            ring => ring.receive_datagrams(socket, group, token),
            ring.receive(socket, token)
        );
    }

    pub(super) fn send(&mut self, stream: BorrowedFd<'_>, token: Token, tx: TxBuf) {
        both!(self, ring => ring.send(stream, token, tx), ring.send(stream, token, tx));
    }

    pub(super) fn send_rest(&mut self, stream: BorrowedFd<'_>, token: Token, more: usize) -> bool {
        both!(self, ring => ring.send_rest(stream, token, more), {
            // It said so when it had sent all.
            let _ = ring;
            false
        })
    }

    pub(super) fn take_sent(&mut self, index: u32) -> Option<TxBuf> {
        both!(self, ring => ring.take_sent(index), ring.take_sent(index))
    }

    pub(super) fn connect(&mut self, stream: BorrowedFd<'_>, token: Token, address: SocketAddr) {
        both!(
            self,
            ring => ring.connect(stream, token, address.into()),
            ring.connect(stream, token, address)
        );
    }

    pub(super) fn send_train(
        &mut self,
        socket: BorrowedFd<'_>,
        exit: Exit,
        tx: TxBuf,
        address: SocketAddr,
        sorted: (&[Part], &[Run]),
    ) {
        both!(self, ring => {
            ring.send_train(socket, exit, tx, address.into(), sorted);
        }, {
            ring.send_train(exit, tx, address, sorted);
        });
    }

    pub(super) fn push_run(&mut self, socket: BorrowedFd<'_>, exit: Exit, index: u32, run: Run) {
        both!(
            self,
            ring => ring.push_run(socket, exit, index, run),
            ring.push_run(exit, index, run)
        );
    }

    pub(super) fn train_run(&mut self, index: u32, number: u32) -> (Run, Exit) {
        both!(self, ring => ring.train_run(index, number), ring.train_run(index, number))
    }

    pub(super) fn train_destination(&mut self, index: u32) -> Option<SocketAddr> {
        both!(self, ring => ring.train_destination(index), ring.train_destination(index))
    }

    pub(super) fn finish_run(&mut self, index: u32) -> Option<TxBuf> {
        both!(self, ring => ring.finish_run(index), ring.finish_run(index))
    }

    /// Does what a task asks for. Only a ring of the kernel's is asked: see [`super::exec`].
    pub(super) fn operate(&mut self, request: Request) {
        both!(self, ring => ring.operate(request), {
            let _ = ring;
            unreachable!("files of this backend are a helper thread's")
        });
    }

    pub(super) fn take_file(&mut self, place: u32) -> Option<DmaBuffer> {
        both!(self, ring => ring.take_file(place), {
            let _ = ring;
            None
        })
    }

    pub(super) fn cancel(&mut self, target: Token, token: Token) {
        both!(self, ring => ring.cancel(target, token), ring.cancel(target));
    }

    pub(super) fn cancel_all(&mut self, token: Token) {
        both!(self, ring => ring.cancel_all(token), ring.cancel_all());
    }

    /// See [`RawRing::gather`]; epoll cannot.
    pub(super) fn can_gather(&self) -> bool {
        both!(self, ring => ring.can_gather(), {
            let _ = ring;
            false
        })
    }

    pub(super) const fn gather(&mut self, time: Duration) {
        both!(self, ring => ring.gather(time), {
            let _ = (ring, time);
        });
    }

    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        both!(self, ring => ring.enter(wait), ring.enter(wait))
    }

    pub(super) fn reap(&mut self, out: &mut Vec<Completion>, limit: usize, octets: usize) {
        both!(self, ring => ring.reap(out, limit, octets), ring.reap(out, limit, octets));
    }

    pub(super) fn received(&self, group: usize, buffer: u16, len: usize) -> &[u8] {
        both!(self, ring => ring.received(group, buffer, len), ring.received(group, buffer, len))
    }

    /// A received buffer of a datagram socket; `None` when it was cut off or came from nowhere.
    pub(super) fn received_datagrams(&self, buffer: u16, len: usize) -> Option<Received<'_>> {
        let group = Kind::ReceiveDatagrams.group();
        match self {
            Self::Uring(ring) => {
                let bytes = ring.received(group, buffer, len);
                let message = ring.received_datagram(group, buffer, len)?;
                if message.is_payload_truncated() {
                    return None;
                }
                let octets = message.payload_data().len();
                let payload = bytes.get(DATAGRAM_HEADROOM..)?.get(..octets)?;
                Some(Received {
                    source: super::udp::address(message.name_data())?,
                    segment: super::udp::segment(message.control_data()).unwrap_or(octets),
                    payload,
                })
            }
            Self::Mmsg(ring) => {
                let arrived = ring.arrived(group, buffer);
                Some(Received {
                    source: arrived.source?,
                    segment: arrived.segment.unwrap_or(len),
                    payload: ring.received(group, buffer, len),
                })
            }
        }
    }

    pub(super) fn give_back(&mut self, group: usize, buffer: u16) {
        both!(self, ring => ring.give_back(group, buffer), ring.give_back(group, buffer));
    }

    pub(super) const fn in_flight(&self) -> u64 {
        both!(self, ring => ring.in_flight(), ring.in_flight())
    }

    pub(super) const fn system_calls(&self) -> u64 {
        both!(self, ring => ring.enters(), ring.system_calls())
    }

    pub(super) const fn enters(&self) -> u64 {
        both!(self, ring => ring.enters(), ring.enters())
    }
}
