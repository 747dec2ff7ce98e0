//! Many datagrams by one call, where there is no ring.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

use super::{CONTROL_BYTES, CONTROL_WORDS, NAME_WORDS, name_bytes, segment_message};
use crate::io::trains::Part;
use crate::io::udp;

/// One datagram, or a train of them, that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) struct Outgoing<'a> {
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
pub(in crate::io) struct Arrived {
    pub octets: usize,
    /// The value of `UDP_GRO`, when the kernel joined datagrams.
    pub segment: Option<usize>,
    /// `None` when the kernel named none, or had to cut the datagram.
    pub source: Option<core::net::SocketAddr>,
}

/// Headers for calls that move many datagrams at once. Nothing in it leads anywhere between two calls.
#[derive(Default)]
pub(in crate::io) struct Datagrams {
    headers: Vec<libc::mmsghdr>,
    parts: Vec<libc::iovec>,
    control: Vec<[u64; CONTROL_BYTES / 8]>,
    names: Vec<[u64; NAME_WORDS]>,
}

impl Datagrams {
    /// Sends `runs` in order, each as one operation: how many the kernel took, at least one. Does not
    /// block.
    pub(in crate::io) fn send<'a>(
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
    pub(in crate::io) fn receive(
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
    pub(in crate::io) fn arrived(&self, at: usize) -> Arrived {
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
            segment: udp::segment(&control[..filled]),
            source: udp::address(&name).filter(|_| whole),
        }
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: all-zero is a valid header: null pointers with zero lengths.
    unsafe { core::mem::zeroed() }
}
