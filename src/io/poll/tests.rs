#![expect(
    clippy::disallowed_methods,
    reason = "the peers of these tests are plain blocking threads"
)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;

use super::*;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);
const RECEIVE: Token = Token::new(Kind::Receive, 1, 1);
const SEND: Token = Token::new(Kind::Send, 1, 1);
const CONNECT: Token = Token::new(Kind::Connect, 1, 1);
const DATAGRAMS: Token = Token::new(Kind::ReceiveDatagrams, 1, 1);
const EXIT: Exit = Exit {
    slot: 1,
    is_connected: false,
};

/// A ring with `buffers` of `each` octets for streams, and some for datagrams.
fn ring(buffers: u16, each: u32) -> PollRing {
    let mut ring = PollRing::new().unwrap();
    ring.add_group(buffers, each);
    ring.add_group(16, 65_536);
    ring
}

fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours.into(), peer)
}

/// Waits for completions: those of one enter.
fn next(ring: &mut PollRing) -> Vec<Completion> {
    let mut out = Vec::new();
    ring.enter(Some(PATIENCE)).unwrap();
    ring.reap(&mut out, 1024, usize::MAX);
    out
}

/// Reads a stream until its end or failure: the octets, and how it ended.
fn read_all(ring: &mut PollRing) -> (Vec<u8>, i32) {
    let mut all = Vec::new();
    for _ in 0..100_000 {
        for completion in next(ring) {
            let Some(buffer) = completion.buffer else {
                assert!(!completion.more);
                return (all, completion.result);
            };
            let len = usize::try_from(completion.result).unwrap();
            all.extend_from_slice(ring.received(0, buffer, len));
            ring.give_back(0, buffer);
        }
    }
    panic!("no end after {} octets", all.len());
}

fn octets(count: usize) -> Vec<u8> {
    (0..251_u8).cycle().take(count).collect()
}

#[test]
fn octets_and_an_end_that_came_with_them_are_both_told() {
    for armed_before in [true, false] {
        let (ours, mut peer) = pair();
        let mut ring = ring(4, 4096);
        if armed_before {
            ring.receive(ours.as_fd(), RECEIVE);
            ring.enter(None).unwrap();
        }
        peer.write_all(b"last words").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        thread::sleep(Duration::from_millis(20));
        if !armed_before {
            ring.receive(ours.as_fd(), RECEIVE);
        }
        assert_eq!(read_all(&mut ring), (b"last words".to_vec(), 0));
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn an_end_after_the_octets_were_read_is_told() {
    let (ours, mut peer) = pair();
    let mut ring = ring(4, 4096);
    ring.receive(ours.as_fd(), RECEIVE);
    peer.write_all(b"x").unwrap();
    let got = next(&mut ring);
    assert_eq!((got[0].result, got[0].more), (1, true));
    drop(peer);
    assert_eq!(read_all(&mut ring), (Vec::new(), 0));
}

#[test]
fn a_stream_longer_than_all_buffers_comes_in_whole_and_in_order() {
    let (ours, mut peer) = pair();
    let mut ring = ring(2, 1000);
    ring.receive(ours.as_fd(), RECEIVE);
    let sent = octets(3_000_000);
    let wanted = sent.clone();
    let feeding = thread::spawn(move || peer.write_all(&sent).unwrap());
    let (got, end) = read_all(&mut ring);
    assert_eq!(end, 0);
    assert!(got == wanted, "{} octets", got.len());
    feeding.join().unwrap();
}

#[test]
fn a_receive_without_a_buffer_rests_until_one_is_given_back() {
    let (ours, mut peer) = pair();
    let mut ring = ring(2, 4);
    ring.receive(ours.as_fd(), RECEIVE);
    peer.write_all(b"abcdefghijkl").unwrap();
    thread::sleep(Duration::from_millis(20));
    let first = next(&mut ring);
    assert_eq!(first.len(), 2, "as many as there are buffers");
    ring.enter(None).unwrap();
    assert!(!ring.has_work(), "it would spin");
    assert_eq!(ring.take_starvations(), 1);
    let buffer = first[0].buffer.unwrap();
    assert_eq!(ring.received(0, buffer, 4), b"abcd");
    ring.give_back(0, buffer);
    // Nothing new arrived, so epoll says nothing: the ring must know by itself.
    assert!(ring.has_work());
    ring.enter(None).unwrap();
    let mut more = Vec::new();
    ring.reap(&mut more, 8, usize::MAX);
    assert_eq!(more.len(), 1);
    assert_eq!(ring.received(0, more[0].buffer.unwrap(), 4), b"ijkl");
}

#[test]
fn a_send_that_the_kernel_takes_in_parts_ends_once_and_whole() {
    let (ours, mut peer) = pair();
    let mut ring = ring(2, 4096);
    let sent = octets(20_000_000);
    let mut tx = TxBuf::default();
    tx.bytes.clone_from(&sent);
    ring.send(ours.as_fd(), SEND, tx);
    ring.enter(None).unwrap();
    assert!(!ring.has_work(), "the peer reads nothing yet");
    assert_eq!(
        ring.take_sent(1).map(|tx| tx.bytes.len()),
        None,
        "on its way"
    );
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    let done = next_some(&mut ring);
    assert_eq!(done.len(), 1);
    assert_eq!(usize::try_from(done[0].result), Ok(sent.len()));
    assert!(ring.take_sent(1).is_some());
    drop(ours);
    let got = reading.join().unwrap();
    assert!(got == sent, "{} octets", got.len());
}

/// Enters until there are completions.
fn next_some(ring: &mut PollRing) -> Vec<Completion> {
    for _ in 0..100_000 {
        let done = next(ring);
        if !done.is_empty() {
            return done;
        }
    }
    panic!("nothing happens");
}

#[test]
fn a_send_to_a_peer_that_is_gone_fails() {
    let (ours, peer) = pair();
    rustix::net::shutdown(&ours, rustix::net::Shutdown::Write).unwrap();
    let mut ring = ring(2, 4096);
    let tx = TxBuf {
        bytes: vec![1; 10],
        ..TxBuf::default()
    };
    ring.send(ours.as_fd(), SEND, tx);
    let done = next_some(&mut ring);
    assert_eq!(done[0].result, -libc::EPIPE);
    assert!(ring.take_sent(1).is_some());
    drop(peer);
}

#[test]
fn connects_end_with_a_connection_a_refusal_or_a_cancel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    // Bound and not listening refuses for certain; a port let go could be anybody's next.
    let holder = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    holder.bind(&any.into()).unwrap();
    let closed = holder.local_addr().unwrap().as_socket().unwrap();
    for (address, wanted) in [(open, 0), (closed, -libc::ECONNREFUSED)] {
        let mut ring = ring(2, 4096);
        let ours = stream();
        ring.connect(ours.as_fd(), CONNECT, address);
        let done = next_some(&mut ring);
        assert_eq!((done[0].token, done[0].result), (CONNECT, wanted));
        assert_eq!(ring.in_flight(), 0);
    }
    let mut ring = ring(2, 4096);
    let ours = stream();
    // TEST-NET-1: nobody answers, or the host says at once that it knows no way.
    ring.connect(ours.as_fd(), CONNECT, "192.0.2.1:9".parse().unwrap());
    ring.cancel(CONNECT);
    let done = next_some(&mut ring);
    assert!(done[0].result < 0);
    assert_eq!(ring.in_flight(), 0);
}

fn stream() -> OwnedFd {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .unwrap()
        .into()
}

#[test]
fn what_is_sent_right_after_a_connect_is_received() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut ring = ring(4, 4096);
    let ours = stream();
    ring.connect(ours.as_fd(), CONNECT, address);
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"welcome").unwrap();
    drop(peer);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(next_some(&mut ring)[0].result, 0);
    ring.receive(ours.as_fd(), RECEIVE);
    assert_eq!(read_all(&mut ring), (b"welcome".to_vec(), 0));
}

#[test]
fn more_connections_than_a_share_are_all_accepted() {
    const COUNT: usize = ACCEPTS + 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut ring = ring(4, 4096);
    ring.accept(listener.as_fd(), Token::new(Kind::Accept, 0, 0));
    ring.enter(None).unwrap();
    let peers: Vec<_> = (0..COUNT)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut accepted = 0;
    while accepted < COUNT {
        let done = next_some(&mut ring);
        accepted += done.iter().filter(|done| done.accepted.is_some()).count();
    }
    assert_eq!(accepted, peers.len());
}

#[test]
fn a_slot_used_again_has_nothing_of_its_last_use() {
    let mut ring = ring(4, 4096);
    let (ours, mut peer) = pair();
    ring.receive(ours.as_fd(), RECEIVE);
    peer.write_all(b"first").unwrap();
    drop(peer);
    assert_eq!(read_all(&mut ring), (b"first".to_vec(), 0));
    drop(ours);
    // The descriptor most likely has the same number.
    let (ours, mut peer) = pair();
    let again = Token::new(Kind::Receive, 1, 2);
    ring.receive(ours.as_fd(), again);
    ring.enter(None).unwrap();
    assert!(!ring.has_work(), "nothing came yet");
    peer.write_all(b"second").unwrap();
    let done = next_some(&mut ring);
    assert_eq!((done[0].token, done[0].result), (again, 6));
}

#[test]
fn a_wake_up_ends_the_wait_once() {
    let mut ring = ring(4, 4096);
    let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    ring.register_wake(wake.as_fd()).unwrap();
    rustix::io::write(&wake, &1_u64.to_ne_bytes()).unwrap();
    // Blocks for ever if the count is not there.
    ring.enter(Some(PATIENCE)).unwrap();
    let mut fds = [PollFd::new(&ring.epoll, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    assert_eq!(
        rustix::event::poll(&mut fds, Some(&now)),
        Ok(0),
        "it was read"
    );
}

fn sockets() -> (UdpSocket, UdpSocket) {
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, peer)
}

#[test]
fn datagrams_come_in_with_their_source_however_many() {
    const COUNT: u8 = 50;
    let (ours, peer) = sockets();
    let mut ring = ring(4, 4096);
    ring.receive(ours.as_fd(), DATAGRAMS);
    for number in 0..COUNT {
        let sent = vec![number; usize::from(number)];
        peer.send_to(&sent, ours.local_addr().unwrap()).unwrap();
    }
    let mut got = Vec::new();
    while got.len() < usize::from(COUNT) {
        for completion in next_some(&mut ring) {
            let buffer = completion.buffer.unwrap();
            let len = usize::try_from(completion.result).unwrap();
            got.push(ring.received(1, buffer, len).to_vec());
            let arrived = ring.arrived(1, buffer);
            assert_eq!(arrived.source, peer.local_addr().ok());
            ring.give_back(1, buffer);
        }
    }
    for (number, got) in (0..COUNT).zip(got) {
        assert_eq!(got, vec![number; usize::from(number)]);
    }
}

#[test]
fn one_round_empties_a_socket_as_far_as_there_are_buffers() {
    const BUFFERS: u16 = 100;
    let (ours, peer) = sockets();
    let mut ring = PollRing::new().unwrap();
    ring.add_group(4, 4096);
    ring.add_group(BUFFERS, 65_536);
    ring.receive(ours.as_fd(), DATAGRAMS);
    let mut got = Vec::new();
    for (sent, taken) in [(90, 90), (110, usize::from(BUFFERS))] {
        for _ in 0..sent {
            peer.send_to(b"x", ours.local_addr().unwrap()).unwrap();
        }
        ring.enter(None).unwrap();
        ring.reap(&mut got, usize::MAX, usize::MAX);
        assert_eq!(got.len(), taken);
        for completion in got.drain(..) {
            ring.give_back(1, completion.buffer.unwrap());
        }
    }
    ring.enter(None).unwrap();
    ring.reap(&mut got, usize::MAX, usize::MAX);
    assert_eq!(got.len(), 10, "those that found no buffer");
    for completion in got.drain(..) {
        ring.give_back(1, completion.buffer.unwrap());
    }
    // Larger ones are a turn's worth before the buffers are used up.
    const LARGE: usize = REAP_BYTES / RECEIVES;
    for _ in 0..RECEIVES + 4 {
        let sent = peer.send_to(&[0; LARGE], ours.local_addr().unwrap());
        assert_eq!(sent.unwrap(), LARGE);
    }
    for taken in [RECEIVES, 4] {
        ring.enter(None).unwrap();
        ring.reap(&mut got, usize::MAX, usize::MAX);
        assert_eq!(got.len(), taken);
        got.clear();
    }
}

#[test]
fn runs_go_out_in_order_as_singles_and_as_trains() {
    let (ours, peer) = sockets();
    let mut ring = ring(4, 4096);
    ring.receive(ours.as_fd(), DATAGRAMS);
    let mut tx = TxBuf {
        destination: peer.local_addr().ok(),
        ..TxBuf::default()
    };
    let mut parts = Vec::new();
    for number in 0..100_u8 {
        let start = u32::try_from(tx.bytes.len()).unwrap();
        tx.bytes.extend_from_slice(&[number; 90]);
        let end = start + 90;
        parts.push(Part { start, end });
    }
    // A train of ten, then singles: more than one call takes.
    let mut runs = vec![Run {
        first: 0,
        count: 10,
        segment: 90,
    }];
    runs.extend((10..100).map(|first| Run {
        first,
        count: 1,
        segment: 0,
    }));
    let destination = tx.destination.unwrap();
    ring.send_train(EXIT, tx, destination, (&parts, &runs));
    let mut sent = 0;
    let mut buffers = 0;
    while sent < runs.len() {
        for completion in next_some(&mut ring) {
            assert_eq!(completion.token.kind, Kind::SendTrain);
            let (index, number) = (completion.token.index, completion.token.generation);
            let (run, exit) = ring.train_run(index, number);
            assert_eq!(exit, EXIT);
            assert_eq!(completion.result, 90 * i32::try_from(run.count).unwrap());
            buffers += usize::from(ring.finish_run(index).is_some());
            sent += 1;
        }
    }
    assert_eq!(buffers, 1, "the buffer comes back once, with the last");
    let mut buffer = [0; 200];
    for number in 0..100_u8 {
        let len = peer.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], [number; 90]);
    }
    assert_eq!(ring.in_flight(), 1, "the receive");
}

#[test]
fn a_run_that_fails_does_not_stop_those_behind_it() {
    let (ours, peer) = sockets();
    let mut ring = ring(4, 4096);
    ring.receive(ours.as_fd(), DATAGRAMS);
    let tx = TxBuf {
        bytes: vec![7; 70_010],
        ..TxBuf::default()
    };
    let parts = [
        // Longer than a datagram can be.
        Part {
            start: 0,
            end: 70_000,
        },
        Part {
            start: 70_000,
            end: 70_010,
        },
    ];
    let run = |first| Run {
        first,
        count: 1,
        segment: 0,
    };
    let address = peer.local_addr().unwrap();
    ring.send_train(EXIT, tx, address, (&parts, &[run(0), run(1)]));
    let done = next_some(&mut ring);
    assert_eq!(done[0].result, -libc::EMSGSIZE);
    assert_eq!(done[1].result, 10);
    assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 10);
}

#[test]
fn what_is_cancelled_at_the_end_is_told_and_leaves_nothing() {
    let (ours, _peer) = pair();
    let (socket, other) = sockets();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ring = ring(2, 4096);
    ring.accept(listener.as_fd(), Token::new(Kind::Accept, 0, 0));
    ring.receive(ours.as_fd(), RECEIVE);
    let datagrams = Token::new(Kind::ReceiveDatagrams, 2, 1);
    ring.receive(socket.as_fd(), datagrams);
    let tx = TxBuf {
        bytes: octets(20_000_000),
        ..TxBuf::default()
    };
    ring.send(ours.as_fd(), SEND, tx);
    let tx = TxBuf {
        bytes: vec![1; 10],
        ..TxBuf::default()
    };
    let part = Part { start: 0, end: 10 };
    let run = Run {
        first: 0,
        count: 1,
        segment: 0,
    };
    let exit = Exit { slot: 2, ..EXIT };
    ring.send_train(exit, tx, other.local_addr().unwrap(), (&[part], &[run]));
    assert_eq!(ring.in_flight(), 5);
    ring.cancel_all();
    let done = next_some(&mut ring);
    assert_eq!(done.len(), 5);
    assert!(done.iter().all(|done| done.result == -libc::ECANCELED));
    assert_eq!(ring.in_flight(), 0);
}
