//! The relay's streams: pieces as they are read, each with its time to go on, in order.

use core::cell::Cell;
use core::time::Duration;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::{Desk, Line, PEERS_MAX, Pair};

/// Octets read at once.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// Pieces of one direction that wait; then no more are read.
const PIECES_MAX: usize = 64;
/// Octets that leave one by one when a piece is split.
const SPLIT_BYTES_MAX: usize = 64;

/// Octets on their way.
struct Piece {
    due: Instant,
    /// They leave one by one.
    split: bool,
    /// The connection is reset after them.
    is_last: bool,
    bytes: Vec<u8>,
}

/// The end of a connection that is no orderly one, for all of its four halves.
#[derive(Default)]
struct Cut {
    is_cut: Cell<bool>,
    news: Notify,
}

impl Cut {
    fn cut(&self) {
        self.is_cut.set(true);
        self.news.notify_waiters();
    }

    async fn wait(&self) {
        while !self.is_cut.get() {
            self.news.notified().await;
        }
    }
}

/// Opens the listener of a pair and relays from then on.
pub(super) async fn open(desk: Rc<Desk>, pair: Pair, place: u64) -> std::io::Result<()> {
    let listener = TcpListener::bind(pair.listen).await?;
    tokio::task::spawn_local(async move {
        let alive = Rc::new(());
        let mut number = 0;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: those who leave make room.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            if Rc::strong_count(&alive) > PEERS_MAX {
                desk.count(|done| done.dropped += 1);
                continue;
            }
            let (desk, alive) = (Rc::clone(&desk), Rc::clone(&alive));
            let line = place + 2 * number;
            number += 1;
            tokio::task::spawn_local(async move {
                connection(&desk, stream, pair.to, line).await;
                drop(alive);
            });
        }
    });
    Ok(())
}

async fn connection(desk: &Desk, near: TcpStream, to: SocketAddr, place: u64) {
    desk.count(|done| done.connections += 1);
    let (onward, back) = (desk.line(place), desk.line(place + 1));
    if onward.chance(desk.faults.refuse) {
        desk.count(|done| done.refused += 1);
        reset(&near);
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else {
        desk.count(|done| done.unreachable += 1);
        reset(&near);
        return;
    };
    // Else the kernel would put the pieces together again.
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let cut = Cut::default();
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let there = pump(desk, &onward, near_in, far_out, &cut);
    let here = pump(desk, &back, far_in, near_out, &cut);
    let ((near, far_out), (_far, near_out)) = tokio::join!(there, here);
    if cut.is_cut.get() {
        reset(near.as_ref());
        reset(far_out.as_ref());
        // Dropped they would end their streams in order.
        far_out.forget();
        near_out.forget();
    }
}

/// What a close with this set does is a reset.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Carries one direction until its end, or until the connection is cut.
async fn pump(
    desk: &Desk,
    line: &Line,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    cut: &Cut,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let (sender, mut pieces) = mpsc::channel::<Piece>(PIECES_MAX);
    let reads = async move {
        let mut buffer = vec![0; PIECE_BYTES_MAX];
        let mut last = Instant::now();
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                () = cut.wait() => break,
            };
            let length = match read {
                Ok(0) => break,
                Ok(length) => length,
                Err(_) => {
                    cut.cut();
                    break;
                }
            };
            let is_last = line.chance(desk.faults.reset);
            let split = line.chance(desk.faults.split);
            desk.count(|done| {
                done.pieces += 1;
                done.split += u64::from(split);
                done.resets += u64::from(is_last);
                done.octets += length as u64;
            });
            // A stream stays in order, however its pieces are delayed.
            last = last.max(Instant::now() + line.delay(&desk.faults));
            let piece = Piece {
                due: last,
                split,
                is_last,
                bytes: buffer[..length].to_vec(),
            };
            if sender.send(piece).await.is_err() || is_last {
                break;
            }
        }
        from
    };
    let writes = async move {
        while let Some(piece) = pieces.recv().await {
            tokio::select! {
                () = tokio::time::sleep_until(piece.due) => {}
                () = cut.wait() => break,
            }
            let written = tokio::select! {
                written = write(&mut to, &piece) => written.is_ok(),
                () = cut.wait() => break,
            };
            if !written || piece.is_last {
                cut.cut();
                break;
            }
        }
        // The end of a stream is passed on, too.
        if !cut.is_cut.get() {
            let _ = to.shutdown().await;
        }
        to
    };
    tokio::join!(reads, writes)
}

async fn write(to: &mut OwnedWriteHalf, piece: &Piece) -> std::io::Result<()> {
    let singles = match piece.split {
        true => piece.bytes.len().min(SPLIT_BYTES_MAX),
        false => 0,
    };
    for octet in piece.bytes[..singles].chunks(1) {
        to.write_all(octet).await?;
        tokio::task::yield_now().await;
    }
    to.write_all(&piece.bytes[singles..]).await
}
