//! SIP over datagrams: one socket for every peer.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::{Shared, flush};

pub(super) fn datagram_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.bind(&address.into())?;
    socket.set_recv_buffer_size(16 * 1024 * 1024)?;
    socket.set_send_buffer_size(4 * 1024 * 1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// One socket for every SIP peer over UDP.
pub(super) fn datagrams(shared: &Rc<Shared>, socket: Rc<tokio::net::UdpSocket>) {
    let (reader, writer) = (Rc::clone(shared), Rc::clone(shared));
    let sending = Rc::clone(&socket);
    tokio_uring::spawn(async move {
        let mut buffer = vec![0u8; 65_536];
        while socket.readable().await.is_ok() {
            receive_batch(&reader, &socket, &mut buffer);
            flush(&reader);
        }
    });
    tokio_uring::spawn(async move {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        loop {
            let next = {
                let mut world = writer.world.borrow_mut();
                let link = world.outbox.dirty.pop();
                link.map(|link| {
                    let entry = world.outbox.link(link);
                    ends.clear();
                    ends.extend_from_slice(&entry.ends);
                    let peer = entry.peer;
                    world.outbox.take(link, &mut bytes);
                    peer
                })
            };
            let Some(peer) = next else {
                writer.datagrams.notified().await;
                continue;
            };
            let mut from = 0;
            for &end in &ends {
                let _ = sending.send_to(&bytes[from..end as usize], peer).await;
                from = end as usize;
            }
            bytes.clear();
        }
    });
}

fn receive_batch(shared: &Rc<Shared>, socket: &tokio::net::UdpSocket, buffer: &mut [u8]) {
    let mut world = shared.world.borrow_mut();
    let now = shared.now();
    world.now = now;
    world.counters.turns += 1;
    for _ in 0..256 {
        let Ok((count, peer)) = socket.try_recv_from(buffer) else {
            break;
        };
        world.counters.bytes_in += count as u64;
        let link = world.datagram_link(peer);
        world.handle_datagram(link, &buffer[..count]);
    }
    world.pump(now);
}
