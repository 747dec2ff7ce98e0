//! The relay on real sockets.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use volley_loadgen::relay::{Done, Faults, Pair, Relay};

/// A port that stays free once it is let go: no other test is given one of this address.
fn free_port() -> SocketAddr {
    static HOST: AtomicU8 = AtomicU8::new(1);
    let host = HOST.fetch_add(1, Ordering::Relaxed);
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 77, host), 0)).unwrap();
    listener.local_addr().unwrap()
}

fn relay(datagrams: bool, to: SocketAddr, faults: Faults) -> (SocketAddr, JoinHandle<Done>) {
    let listen = free_port();
    let relay = Relay {
        pairs: vec![Pair {
            datagrams,
            listen,
            to,
        }],
        faults,
        seed: 11,
        seconds: Some(6.0),
        json: false,
    };
    let thread = std::thread::spawn(move || relay.run().unwrap());
    (listen, thread)
}

/// Connects once the relay listens.
fn connect(to: SocketAddr) -> TcpStream {
    for _ in 0..200 {
        if let Ok(stream) = TcpStream::connect(to) {
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            return stream;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("the relay does not listen");
}

#[test]
fn datagrams_are_lost_doubled_and_overtaken_and_answers_come_back() {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, peer)) = echo.recv_from(&mut buffer) {
            if length == 0 {
                break;
            }
            echo.send_to(&buffer[..length], peer).unwrap();
        }
    });
    let faults = Faults {
        loss: 0.1,
        burst: 1,
        duplicate: 0.1,
        reorder: 0.1,
        reorder_ms: 20,
        ..Faults::default()
    };
    let (listen, thread) = relay(true, to, faults);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(1000)))
        .unwrap();
    while UdpSocket::bind(listen).is_ok() {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let ears = socket.try_clone().unwrap();
    let ears = std::thread::spawn(move || {
        let mut got = Vec::new();
        let mut buffer = [0; 100];
        while let Ok(4) = ears.recv(&mut buffer) {
            got.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
        }
        got
    });
    for number in 0..1000_u32 {
        socket.send_to(&number.to_be_bytes(), listen).unwrap();
        // Not faster than the small buffers of a socket.
        if number % 10 == 0 {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    let got = ears.join().unwrap();
    let mut distinct = got.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let overtaken = got.windows(2).filter(|pair| pair[0] > pair[1]).count();
    let done = thread.join().unwrap();
    // There and back: 81 of 100 survive.
    assert!(
        (700..=900).contains(&distinct.len()),
        "{} of 1000 came back",
        distinct.len()
    );
    assert!(
        got.len() > distinct.len() + 50,
        "{} doubled",
        got.len() - distinct.len()
    );
    assert!(overtaken > 50, "{overtaken} overtaken");
    assert!(
        done.lost > 100 && done.doubled > 100 && done.held > 100,
        "{done}"
    );
    assert_eq!(done.dropped, 0, "{done}");
}

#[test]
fn a_stream_keeps_its_octets_however_it_is_cut_and_delayed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(b"the end").unwrap();
        all
    });
    let faults = Faults {
        split: 0.5,
        delay_ms: 3,
        jitter_ms: 3,
        ..Faults::default()
    };
    let (listen, thread) = relay(false, to, faults);
    let mut stream = connect(listen);
    let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    for part in sent.chunks(7_000) {
        stream.write_all(part).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(
        answer, "the end",
        "what comes after the other's end comes too"
    );
    assert!(peer.join().unwrap() == sent, "the octets are others");
    let done = thread.join().unwrap();
    assert!(done.split > 0 && done.resets == 0, "{done}");
}

#[test]
fn a_reset_reaches_both_ends_after_what_came_before() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        (
            stream.read_to_end(&mut all).map_err(|error| error.kind()),
            all,
        )
    });
    let faults = Faults {
        reset: 1.0,
        ..Faults::default()
    };
    let (listen, thread) = relay(false, to, faults);
    let mut stream = connect(listen);
    stream.write_all(b"first").unwrap();
    let ended = stream.read(&mut [0; 10]).map_err(|error| error.kind());
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    let (ended, _) = peer.join().unwrap();
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(thread.join().unwrap().resets, 1);
}
