//! Options of sockets that no library sets.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Asks the kernel to join datagrams of one sender into one receive. False where it cannot.
pub(in crate::io) fn enable_gro(socket: BorrowedFd<'_>) -> bool {
    switch_on(socket, libc::SOL_UDP, libc::UDP_GRO)
}

/// Lets the kernel cut what is sent on `socket` into datagrams of `segment` octets. False where it
/// cannot.
pub(in crate::io) fn set_segment(socket: BorrowedFd<'_>, segment: u16) -> bool {
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, segment.into())
}

/// Lets a bind to port 0 leave the choice of the port to the connect, where it is by four-tuple.
pub(in crate::io) fn defer_port(socket: BorrowedFd<'_>) -> bool {
    switch_on(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// Lets a listener's connections wait in the kernel for their first octets, for a second at most (until the kernel has
/// repeated its half of the handshake once). False where it cannot.
pub(in crate::io) fn defer_accept(listener: BorrowedFd<'_>) -> bool {
    switch_on(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT)
}

/// Octets the peer of a stream has acknowledged so far; `None` where the kernel does not say.
pub(in crate::io) fn acknowledged(socket: BorrowedFd<'_>) -> Option<u64> {
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

/// Whether [`defer_accept`] is in force.
#[cfg(test)]
pub(in crate::io) fn defers_accept(listener: BorrowedFd<'_>) -> bool {
    let mut seconds: libc::c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of_val(&seconds)).expect("four octets");
    // SAFETY: the kernel writes an int where the pointer leads, and its length.
    let outcome = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw mut seconds).cast(),
            &raw mut len,
        )
    };
    outcome == 0 && seconds > 0
}

fn switch_on(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> bool {
    set_int(socket, level, option, 1)
}

/// Sets a socket option that takes an int. False where the kernel refuses.
pub(in crate::io) fn set_int(
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
