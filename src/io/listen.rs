//! Binding the sockets of all shards before the first thread starts, with errors that help.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

/// Pending connections of a listener before the kernel drops new ones (it caps at `somaxconn`).
const BACKLOG: i32 = 4096;
/// Tries to find one ephemeral port free for both TCP and UDP.
const PAIR_TRIES: usize = 32;
/// Receive and send buffer asked for on datagram sockets, octets.
const DATAGRAM_SOCKET_BYTES: usize = 4 * 1024 * 1024;

/// Where one shard listens, as bound: no port is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardAddresses {
    /// The shard's number.
    pub shard: u8,
    /// SIP over TCP of this shard alone; the shared address when it has none of its own.
    pub sip_tcp: Option<SocketAddr>,
    /// SIP over UDP of this shard alone; the shared address when it has none of its own.
    pub sip_udp: Option<SocketAddr>,
    /// MSRP over TCP of this shard.
    pub msrp: SocketAddr,
    /// The well-known SIP over TCP address all shards share.
    pub shared_sip_tcp: Option<SocketAddr>,
    /// The well-known SIP over UDP address all shards share.
    pub shared_sip_udp: Option<SocketAddr>,
}

/// A socket could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// For what: `SIP/TCP`, `SIP/UDP` or `MSRP/TCP`.
    pub what: &'static str,
    /// The address and port asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, address) = (self.what, self.address);
        write!(f, "cannot listen for {what} on {address}: ")?;
        match self.error.raw_os_error() {
            Some(libc::EADDRINUSE) => write!(
                f,
                "port {} is in use; stop the process that holds it (ss -lntup 'sport = :{}') or \
                 configure another port",
                address.port(),
                address.port()
            ),
            Some(libc::EADDRNOTAVAIL) => write!(
                f,
                "this machine has no address {}; configure one of its own (ip addr) or 0.0.0.0",
                address.ip()
            ),
            Some(libc::EACCES | libc::EPERM) => write!(
                f,
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE; grant it or configure \
                 a higher port"
            ),
            Some(_) | None => write!(f, "{}", self.error),
        }
    }
}

impl core::error::Error for BindError {}

/// A stream listener with its address.
#[derive(Debug)]
pub(super) struct StreamListener {
    pub fd: OwnedFd,
    pub address: SocketAddr,
}

/// A bound datagram socket with its address.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    pub fd: OwnedFd,
    pub address: SocketAddr,
    pub sharing: Sharing,
}

/// The sockets of one shard.
#[derive(Debug)]
pub(super) struct ShardSockets {
    pub addresses: ShardAddresses,
    pub sip_tcp: Vec<StreamListener>,
    pub msrp: StreamListener,
    pub sip_udp: Vec<DatagramSocket>,
}

/// Which addresses to bind; see `HostConfig`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub shards: usize,
    pub sip_tcp: Option<SocketAddr>,
    pub sip_udp: Option<SocketAddr>,
    pub shard_port_base: Option<u16>,
    pub msrp: SocketAddr,
}

impl Plan {
    /// Binds everything for every shard.
    pub(super) fn bind(mut self) -> Result<Vec<ShardSockets>, BindError> {
        if let Some(address) = self.sip_tcp.filter(|address| address.port() != 0) {
            claim_stream(address)?;
        }
        if let Some(address) = self.sip_udp.filter(|address| address.port() != 0) {
            claim_datagram(address)?;
        }
        let mut all = Vec::with_capacity(self.shards);
        for shard in (0..=u8::MAX).take(self.shards) {
            let sockets = self.bind_shard(shard)?;
            // An ephemeral port is chosen by the first shard's bind, and shared by the others'.
            self.sip_tcp = sockets.addresses.shared_sip_tcp;
            self.sip_udp = sockets.addresses.shared_sip_udp;
            all.push(sockets);
        }
        Ok(all)
    }

    fn bind_shard(&self, shard: u8) -> Result<ShardSockets, BindError> {
        let mut sip_tcp = Vec::new();
        let mut sip_udp = Vec::new();
        if let Some(address) = self.sip_tcp {
            sip_tcp.push(stream("SIP/TCP", address, Sharing::Shared)?);
        }
        if let Some(address) = self.sip_udp {
            let sharing = if self.shards > 1 {
                Sharing::Shared
            } else {
                Sharing::Alone
            };
            sip_udp.push(datagram(address, sharing)?);
        }
        let shared_sip_tcp = sip_tcp.first().map(|shared| shared.address);
        let shared_sip_udp = sip_udp.first().map(|shared| shared.address);
        let (own_tcp, own_udp) = self.bind_own(shard)?;
        let msrp_address = with_port_offset(self.msrp, shard);
        let msrp = stream("MSRP/TCP", msrp_address, Sharing::Alone)?;
        // Who opened an MSRP connection speaks first, and at once (RFC 4975 section 5.4): the connection and
        // its first octets are one turn's work. A wish: a kernel that cannot tells us of both.
        let _ = sys::defer_accept(msrp.fd.as_fd());
        let addresses = ShardAddresses {
            shard,
            sip_tcp: own_tcp.as_ref().map(|own| own.address).or(shared_sip_tcp),
            sip_udp: own_udp.as_ref().map(|own| own.address).or(shared_sip_udp),
            msrp: msrp.address,
            shared_sip_tcp,
            shared_sip_udp,
        };
        sip_tcp.extend(own_tcp);
        sip_udp.extend(own_udp);
        Ok(ShardSockets {
            addresses,
            sip_tcp,
            msrp,
            sip_udp,
        })
    }

    /// The shard's own SIP sockets, TCP and UDP with the same port where both are wanted.
    fn bind_own(
        &self,
        shard: u8,
    ) -> Result<(Option<StreamListener>, Option<DatagramSocket>), BindError> {
        let Some(base) = self.shard_port_base else {
            return Ok((None, None));
        };
        let ephemeral = base == 0;
        let port = if ephemeral {
            0
        } else {
            base.saturating_add(u16::from(shard))
        };
        let at = |ip: IpAddr, port: u16| SocketAddr::new(ip, port);
        let mut tries = 0;
        loop {
            tries += 1;
            let tcp = match self.sip_tcp {
                Some(shared) => Some(stream("SIP/TCP", at(shared.ip(), port), Sharing::Alone)?),
                None => None,
            };
            let Some(shared) = self.sip_udp else {
                return Ok((tcp, None));
            };
            let port = tcp.as_ref().map_or(port, |own| own.address.port());
            match datagram(at(shared.ip(), port), Sharing::Alone) {
                Ok(udp) => return Ok((tcp, Some(udp))),
                Err(error) if !ephemeral || tries == PAIR_TRIES => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// Whether other shards of this process bind the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Alone,
    Shared,
}

/// Checks that no other process holds `address`, which `SO_REUSEPORT` would hide.
fn claim_stream(address: SocketAddr) -> Result<(), BindError> {
    stream("SIP/TCP", address, Sharing::Alone).map(drop)
}

fn claim_datagram(address: SocketAddr) -> Result<(), BindError> {
    datagram(address, Sharing::Alone).map(drop)
}

fn with_port_offset(address: SocketAddr, shard: u8) -> SocketAddr {
    if address.port() == 0 {
        return address;
    }
    let port = address.port().saturating_add(u16::from(shard));
    SocketAddr::new(address.ip(), port)
}

fn stream(
    what: &'static str,
    address: SocketAddr,
    sharing: Sharing,
) -> Result<StreamListener, BindError> {
    let bind = || -> io::Result<StreamListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if sharing == Sharing::Shared {
            socket.set_reuse_port(true)?;
        }
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let address = local(&socket)?;
        Ok(StreamListener {
            fd: socket.into(),
            address,
        })
    };
    bind().map_err(|error| BindError {
        what,
        address,
        error,
    })
}

fn datagram(address: SocketAddr, sharing: Sharing) -> Result<DatagramSocket, BindError> {
    let bind = || -> io::Result<DatagramSocket> {
        let socket = unbound_datagram(address)?;
        if sharing == Sharing::Shared {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        let address = local(&socket)?;
        let fd = socket.into();
        Ok(DatagramSocket {
            fd,
            address,
            sharing,
        })
    };
    bind().map_err(|error| BindError {
        what: "SIP/UDP",
        address,
        error,
    })
}

/// A datagram socket for addresses like this one, with the buffers that all of ours have.
pub(super) fn unbound_datagram(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    // Wishes: the kernel caps them at net.core.{r,w}mem_max.
    let _ = socket.set_recv_buffer_size(DATAGRAM_SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(DATAGRAM_SOCKET_BYTES);
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Plan {
            shards: 2,
            sip_tcp: Some(any),
            sip_udp: Some(any),
            shard_port_base: Some(0),
            msrp: any,
        }
    }

    #[test]
    fn every_shard_gets_its_own_ports_and_the_shared_one() {
        let sockets = plan().bind().unwrap();
        let [first, second] = &sockets[..] else {
            panic!("two shards");
        };
        assert_eq!(
            first.addresses.shared_sip_tcp,
            second.addresses.shared_sip_tcp
        );
        assert_ne!(first.addresses.sip_tcp, second.addresses.sip_tcp);
        assert_ne!(first.addresses.msrp, second.addresses.msrp);
        let own = first.addresses.sip_tcp.unwrap().port();
        assert_eq!(first.addresses.sip_udp.unwrap().port(), own);
        assert_ne!(own, 0);
    }

    #[test]
    fn a_port_in_use_is_named_with_a_remedy_even_if_it_is_shareable() {
        let held = stream(
            "SIP/TCP",
            SocketAddr::from(([127, 0, 0, 1], 0)),
            Sharing::Shared,
        )
        .unwrap();
        let error = Plan {
            sip_tcp: Some(held.address),
            ..plan()
        }
        .bind()
        .unwrap_err()
        .to_string();
        assert!(error.contains(&held.address.to_string()), "{error}");
        assert!(error.contains("in use"), "{error}");
    }

    #[test]
    fn only_a_connection_whose_opener_speaks_first_waits_for_its_first_octets() {
        let sockets = plan().bind().unwrap();
        assert!(sys::defers_accept(sockets[0].msrp.fd.as_fd()));
        for sip in &sockets[0].sip_tcp {
            assert!(!sys::defers_accept(sip.fd.as_fd()));
        }
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let error = Plan {
            msrp: SocketAddr::from(([192, 0, 2, 1], 0)),
            ..plan()
        }
        .bind()
        .unwrap_err()
        .to_string();
        assert!(error.contains("192.0.2.1"), "{error}");
    }
}
