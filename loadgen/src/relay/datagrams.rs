//! The relay's datagrams: a socket onward for each peer, so that answers find their way back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::UdpSocket;

use super::{Desk, Line, PEERS_MAX, Pair, WAITING_MAX};

/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// One direction: where its datagrams leave.
struct Way {
    desk: Rc<Desk>,
    line: Line,
    socket: Rc<UdpSocket>,
    /// Given when the socket is not connected.
    to: Option<SocketAddr>,
}

/// Opens the socket of a pair and relays from then on.
pub(super) async fn open(desk: Rc<Desk>, pair: Pair, place: u64) -> std::io::Result<()> {
    let socket = Rc::new(UdpSocket::bind(pair.listen).await?);
    socket.writable().await?;
    tokio::task::spawn_local(onward(desk, pair, place, socket));
    Ok(())
}

async fn onward(desk: Rc<Desk>, pair: Pair, place: u64, socket: Rc<UdpSocket>) {
    let mut ways: BTreeMap<SocketAddr, Rc<Way>> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error is about a datagram sent before: a peer that is not there.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let way = match ways.get(&peer) {
            Some(way) => Rc::clone(way),
            None if ways.len() >= PEERS_MAX => {
                desk.count(|done| done.dropped += 1);
                continue;
            }
            None => {
                let line = place + 2 * ways.len() as u64;
                let Some(way) = meet(&desk, pair, (line, peer), &socket).await else {
                    desk.count(|done| done.unreachable += 1);
                    continue;
                };
                ways.insert(peer, Rc::clone(&way));
                way
            }
        };
        send(&way, &buffer[..length]);
    }
}

/// A way onward for a new peer, and one back.
async fn meet(
    desk: &Rc<Desk>,
    pair: Pair,
    (place, peer): (u64, SocketAddr),
    socket: &Rc<UdpSocket>,
) -> Option<Rc<Way>> {
    let any = SocketAddr::new(
        match pair.to {
            SocketAddr::V4(_) => core::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => core::net::Ipv6Addr::UNSPECIFIED.into(),
        },
        0,
    );
    let own = Rc::new(UdpSocket::bind(any).await.ok()?);
    own.connect(pair.to).await.ok()?;
    // Sent to before the runtime knows that it can be, a socket looks full.
    own.writable().await.ok()?;
    let back = Way {
        desk: Rc::clone(desk),
        line: desk.line(place + 1),
        socket: Rc::clone(socket),
        to: Some(peer),
    };
    let from = Rc::clone(&own);
    tokio::task::spawn_local(async move {
        let back = Rc::new(back);
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            if let Ok(length) = from.recv(&mut buffer).await {
                send(&back, &buffer[..length]);
            } else {
                // The other end is not there; its next word may come.
                tokio::task::yield_now().await;
            }
        }
    });
    Some(Rc::new(Way {
        desk: Rc::clone(desk),
        line: desk.line(place),
        socket: own,
        to: None,
    }))
}

fn send(way: &Rc<Way>, bytes: &[u8]) {
    let fate = way.line.fate(&way.desk.faults);
    way.desk.count(|done| {
        done.datagrams += 1;
        done.octets += bytes.len() as u64;
        done.lost += u64::from(fate.first.is_none());
        done.doubled += u64::from(fate.second.is_some());
        done.held += u64::from(fate.held);
    });
    for wait in [fate.first, fate.second].into_iter().flatten() {
        if wait.is_zero() {
            leave(way, bytes);
            continue;
        }
        if Rc::strong_count(way) > WAITING_MAX {
            way.desk.count(|done| done.dropped += 1);
            continue;
        }
        let (way, bytes) = (Rc::clone(way), bytes.to_vec());
        let due = tokio::time::Instant::now() + wait;
        tokio::task::spawn_local(async move {
            tokio::time::sleep_until(due).await;
            leave(&way, &bytes);
        });
    }
}

/// Sends at once; a full socket buffer drops, as networks do.
fn leave(way: &Way, bytes: &[u8]) {
    let sent = match way.to {
        Some(peer) => way.socket.try_send_to(bytes, peer),
        None => way.socket.try_send(bytes),
    };
    if sent.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
        way.desk.count(|done| done.dropped += 1);
    }
}
