//! The order in which completions are taken.
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use super::*;
use crate::io::clock::Clock;

const RECEIVE: Token = Token::new(Kind::Receive, 1, 1);
const GOOD: Token = Token::new(Kind::Send, 2, 1);
const BAD: Token = Token::new(Kind::Send, 3, 1);
const FILE: Token = Token::new(Kind::File, 4, 0);

/// What one turn takes.
const TURN: usize = 64 * 1024;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, peer)
}

fn send(ring: &mut RawRing, socket: &TcpStream, token: Token) {
    let tx = TxBuf {
        bytes: b"x".to_vec(),
        ..TxBuf::default()
    };
    ring.send(socket.as_fd(), token, tx);
}

/// A ring with `sent` in its completion queue, in pieces. The stream stays open while the peer is kept: its end
/// would be one more completion.
fn full_of(sent: &[u8], ours: &TcpStream, peer: &mut TcpStream) -> RawRing {
    let mut ring = RawRing::new(64, 4096).unwrap();
    ring.add_group(1024, 16 * 1024).unwrap();
    ring.kept.groups[0].window = 1024;
    ring.receive(ours.as_fd(), 0, RECEIVE);
    thread::scope(|scope| {
        let writer = scope.spawn(|| peer.write_all(sent));
        let mut calm = 0;
        while calm < 20 {
            let before = ring.io.completion().len();
            ring.enter(Some(Duration::from_millis(2))).unwrap();
            let grew = ring.io.completion().len() > before;
            calm = if grew || !writer.is_finished() {
                0
            } else {
                calm + 1
            };
        }
        writer.join().unwrap().unwrap();
    });
    ring
}

#[test]
fn what_was_begun_overtakes_input_after_a_while_and_input_keeps_its_order() {
    let (ours, mut peer) = pair();
    let (other, _other_peer) = pair();
    let (broken, _broken_peer) = pair();
    broken.shutdown(Shutdown::Write).unwrap();
    let sent: Vec<u8> = (0..3 * 1024 * 1024_u32)
        .flat_map(u32::to_le_bytes)
        .take(3 * 1024 * 1024)
        .collect();
    let mut ring = full_of(&sent, &ours, &mut peer);
    ring.push(opcode::Nop::new().build(), FILE);
    send(&mut ring, &other, GOOD);
    send(&mut ring, &broken, BAD);
    let before = ring.io.completion().len();
    while ring.io.completion().len() < before + 3 {
        ring.enter(Some(Duration::from_millis(2))).unwrap();
    }

    let mut came = Vec::new();
    let mut ends = Vec::new();
    while ring.has_completions() {
        let mut turn = Vec::new();
        ring.reap(&mut turn, 512, TURN);
        assert!(!turn.is_empty());
        for completion in turn {
            match completion.buffer {
                Some(buffer) => {
                    let len = usize::try_from(completion.result).unwrap();
                    came.extend_from_slice(ring.received(0, buffer, len));
                    ring.give_back(0, buffer);
                }
                None => ends.push((completion.token, completion.result, came.len())),
            }
        }
    }
    assert!(came == sent, "whole and in order");
    let tokens: Vec<Token> = ends.iter().map(|&(token, ..)| token).collect();
    assert_eq!(tokens, [FILE, GOOD, BAD]);
    for &(_, result, after) in &ends[..2] {
        assert!(result >= 0);
        let turns = OVERTAKEN..OVERTAKEN + 2 * TURN;
        assert!(turns.contains(&after), "after {after} octets");
    }
    let (_, result, after) = ends[2];
    assert_eq!((result, after), (-libc::EPIPE, sent.len()));
}

#[test]
fn there_is_no_rest_while_operations_wait_for_room_in_the_queue() {
    let (ours, _peer) = pair();
    let mut ring = RawRing::new(8, 64).unwrap();
    ring.add_group(8, 1024).unwrap();
    assert!(ring.may_rest());
    // Cancels of nothing would end at once; receives are quiet.
    for index in 0..20 {
        ring.receive(ours.as_fd(), 0, Token::new(Kind::Receive, index, 1));
    }
    let mut enters = 0;
    while !ring.may_rest() {
        ring.enter(None).unwrap();
        enters += 1;
        assert!(enters < 10, "each takes a queue full of them");
    }
    assert!(enters >= 2, "{enters}");
}

#[test]
fn what_a_peer_acknowledged_is_known() {
    let (mut ours, mut peer) = pair();
    let before = acknowledged(ours.as_fd()).unwrap();
    ours.write_all(&[0; 5000]).unwrap();
    peer.read_exact(&mut [0; 5000]).unwrap();
    let mut looks = 0;
    while acknowledged(ours.as_fd()).unwrap() < before + 5000 {
        looks += 1;
        assert!(looks < 2000, "loopback acknowledges at once, or soon");
        thread::park_timeout(Duration::from_millis(5));
    }
    let (pipe, _) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(acknowledged(pipe.as_fd()), None);
}

#[test]
fn a_wait_gathers_for_its_time_and_then_ends_with_the_first_that_comes() {
    let mut ring = RawRing::new(8, 64).unwrap();
    let time = Duration::from_millis(60);
    if !ring.can_gather() {
        println!("SKIPPED: this kernel knows no shortest wait (Linux 6.12)");
        return;
    }
    ring.gather(time);
    // What is there at once does not end it.
    ring.push(opcode::Nop::new().build(), FILE);
    let from = Clock.now();
    ring.enter(Some(Duration::from_secs(20))).unwrap();
    let took = Clock.now().since(from);
    assert!(took >= time, "gathered for {took:?}");
    assert!(took < Duration::from_secs(15), "and went on");
    assert_eq!(ring.io.completion().len(), 1);

    // A limit below it holds.
    let mut taken = Vec::new();
    ring.reap(&mut taken, 8, TURN);
    ring.gather(Duration::from_secs(20));
    let from = Clock.now();
    ring.enter(Some(Duration::from_millis(5))).unwrap();
    assert!(Clock.now().since(from) < Duration::from_secs(15));

    // What comes after that time ends the wait.
    ring.gather(Duration::from_millis(1));
    let (ours, mut peer) = pair();
    ring.add_group(8, 4096).unwrap();
    ring.receive(ours.as_fd(), 0, RECEIVE);
    let from = Clock.now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::park_timeout(Duration::from_millis(50));
            peer.write_all(b"x").unwrap();
        });
        while !ring.has_completions() && Clock.now().since(from) < Duration::from_secs(15) {
            ring.enter(Some(Duration::from_secs(20))).unwrap();
        }
    });
    assert!(Clock.now().since(from) < Duration::from_secs(15), "at once");
    assert!(ring.has_completions());
}
