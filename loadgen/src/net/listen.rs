//! Listening sockets, taken before the world is built, so that port 0 works.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::DriveError;
use super::udp::datagram_socket;

/// Listening sockets, taken before the world is built, so that port 0 works.
#[derive(Debug)]
pub struct Listeners {
    /// One for each next hop that takes connections, the S-CSCF first.
    pub(super) sip: Vec<std::net::TcpListener>,
    pub(super) datagram: Option<std::net::UdpSocket>,
    pub(super) msrp: std::net::TcpListener,
}

impl Listeners {
    /// Takes the addresses and writes the final ones back.
    pub fn bind(setup: &mut crate::scenario::Setup) -> Result<Self, DriveError> {
        let listen = |name, address: SocketAddr| {
            listener(address).map_err(|error| DriveError::Bind(name, address, error))
        };
        let (mut sip, mut datagram) = (Vec::new(), None);
        match setup.transport {
            crate::scenario::Transport::Tcp => {
                let socket = listen("--scscf-listen", setup.scscf_listen)?;
                if let Ok(address) = socket.local_addr() {
                    setup.scscf_listen = address;
                }
                sip.push(socket);
                for hop in 1..u16::from(setup.next_hops - setup.dead_hops) {
                    let mut address = setup.scscf_listen;
                    address.set_port(address.port() + hop * setup.workers);
                    sip.push(listen("--next-hops", address)?);
                }
            }
            crate::scenario::Transport::Udp => {
                let address = setup.scscf_listen;
                let socket = datagram_socket(address, setup.reply_style)
                    .map_err(|error| DriveError::Bind("--scscf-listen", address, error))?;
                if let Ok(address) = socket.local_addr() {
                    setup.scscf_listen = address;
                }
                datagram = Some(socket);
            }
        }
        let msrp = listen("--msrp-listen", setup.msrp_listen)?;
        if let Ok(address) = msrp.local_addr() {
            setup.msrp_listen = address;
        }
        Ok(Self {
            sip,
            datagram,
            msrp,
        })
    }
}

/// How long an address that is in use is tried again.
const PORT_WAIT: Duration = Duration::from_secs(2);
const PORT_LOOK: Duration = Duration::from_millis(50);

/// A listening socket. The kernel takes back what an ended process left in its ring after the process
/// is gone, so the address of the run before may be free only in a moment.
fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let start = Instant::now();
    loop {
        match try_listener(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < PORT_WAIT =>
            {
                std::thread::sleep(PORT_LOOK);
            }
            other => return other,
        }
    }
}

fn try_listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
