use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::io::backend::Backend;
use crate::io::driver::NullStore;
use crate::io::listen::Plan;
use crate::io::udp::tests::{BOTH, Exchange, PLAN, driver_of, refuse_trains};

use super::*;

/// More turns than anything here needs.
const TURNS: usize = 1000;
/// What one peer gets before it has a socket of its own.
const MANY: usize = MANY_DATAGRAMS as usize;

/// A driver and where its socket is.
struct Engine {
    driver: Driver<Exchange, NullStore>,
    address: SocketAddr,
    sent: u64,
}

impl Engine {
    fn new(backend: Backend, plan: Plan) -> Self {
        let (driver, address) = driver_of(backend, Exchange::default(), plan, |_| {});
        Self {
            driver,
            address,
            sent: 0,
        }
    }

    /// Sends `datagrams` as one buffer and takes turns until the kernel has them.
    fn send(&mut self, peer: SocketAddr, datagrams: Vec<Vec<u8>>) {
        self.sent += datagrams.len() as u64;
        self.driver.core.out.push_back((peer, datagrams));
        self.turns_until_sent();
    }

    fn turns_until_sent(&mut self) {
        let sent = self.sent;
        self.turns_until(|driver| {
            let counters = driver.counters;
            counters.tx_datagrams + counters.datagrams_lost == sent
        });
    }

    /// Sends `count` datagrams one by one; each says its number.
    fn send_numbers(&mut self, peer: SocketAddr, count: usize) {
        for number in 0..count {
            self.send(peer, vec![vec![u8::try_from(number).unwrap(); 10]]);
        }
    }

    /// Sends `count` datagrams as `send_numbers` does, but all in one turn, and between us and the kernel
    /// an error of an earlier one comes to the connected socket.
    fn send_into_error(&mut self, peer: SocketAddr, count: usize) {
        for (_, bytes) in numbers(peer, count) {
            self.driver.core.out.push_back((peer, vec![bytes]));
        }
        let before = self.driver.counters.tx_datagrams;
        self.driver.turn().unwrap();
        assert_eq!(self.driver.counters.tx_datagrams, before, "not entered yet");
        self.refuse_earlier();
        self.sent += count as u64;
        self.turns_until_sent();
    }

    /// Takes turns until `count` datagrams have come in: those, sorted.
    fn received(&mut self, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        self.turns_until(|driver| driver.core.got.len() >= count);
        let mut got = core::mem::take(&mut self.driver.core.got);
        got.sort();
        got
    }

    fn turns_until(&mut self, done: impl Fn(&Driver<Exchange, NullStore>) -> bool) {
        for _ in 0..TURNS {
            self.driver.turn().unwrap();
            if done(&self.driver) {
                return;
            }
        }
        panic!("not within {TURNS} turns: {:?}", self.driver.counters);
    }

    /// The peer of each connected socket, as the kernel has it.
    fn peers(&mut self) -> Vec<SocketAddr> {
        let Some(group) = self.driver.socket_groups.first() else {
            return Vec::new();
        };
        let sockets: Vec<LinkId> = group.connected.iter().map(|own| own.link).collect();
        let peer = |id| {
            let socket = SockRef::from(&self.driver.links.lookup(id).unwrap().fd()).peer_addr();
            socket.unwrap().as_socket().unwrap()
        };
        sockets.into_iter().map(peer).collect()
    }

    /// As if no peer had got anything for a long time.
    fn everyone_rests(&mut self) {
        for own in &mut self.driver.socket_groups[0].connected {
            own.used_at = Timestamp::ZERO;
        }
        self.driver.give_up_idle_sockets();
    }

    /// Leaves an error with the connected socket as of an earlier datagram to a closed port.
    fn refuse_earlier(&mut self) {
        let own = self.driver.socket_groups[0].connected[0].link;
        let fd = self.driver.links.lookup(own).unwrap().fd();
        let connected = SockRef::from(&fd);
        let address = connected.peer_addr().unwrap();
        let (closed, nobody) = peer();
        drop(closed);
        connected.connect(&nobody.into()).unwrap();
        connected.send(b"to nobody").unwrap();
        connected.connect(&address).unwrap();
    }

    fn fd_has_octets(&mut self, id: LinkId) -> bool {
        let link = self.driver.links.lookup(id).unwrap();
        rustix::io::ioctl_fionread(link.fd()).unwrap() > 0
    }
}

/// A peer and its address.
fn peer() -> (UdpSocket, SocketAddr) {
    peer_at(Ipv4Addr::LOCALHOST.into())
}

fn peer_at(ip: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What has come to a peer, in order: all was sent over the loopback, so it is there.
fn arrived(peer: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut got = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match peer.recv_from(&mut buffer) {
            Ok((len, source)) => got.push((source, buffer[..len].to_vec())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return got,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// `count` datagrams from `source`, each with its number.
fn numbers(source: SocketAddr, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let number = |number| (source, vec![u8::try_from(number).unwrap(); 10]);
    (0..count).map(number).collect()
}

#[test]
fn who_gets_many_datagrams_gets_a_socket_and_notices_nothing() {
    let by_six = Plan {
        sip_udp: Some(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))),
        ..PLAN
    };
    // Not every host has an address of the second kind.
    let has_six = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let plans = [PLAN, by_six].into_iter().take(1 + usize::from(has_six));
    for (backend, plan) in plans.flat_map(|plan| BOTH.map(|backend| (backend, plan))) {
        let mut engine = Engine::new(backend, plan);
        let at = plan.sip_udp.unwrap().ip();
        let (socket, address) = peer_at(at);
        engine.send_numbers(address, MANY);
        assert_eq!(engine.peers(), []);
        engine.send_numbers(address, 50);
        assert_eq!(engine.peers(), [address]);
        let mut expected = numbers(engine.address, MANY);
        expected.extend(numbers(engine.address, 50));
        assert_eq!(arrived(&socket), expected, "in order, from one address");
        let counters = engine.driver.counters;
        assert_eq!(counters.tx_connected_datagrams, 50);
        assert_eq!((counters.udp_connected, counters.datagrams_lost), (1, 0));
        // What comes back is received whichever socket it came to, and so is what others send.
        let (other, elsewhere) = peer_at(at);
        for number in 0..20 {
            socket.send_to(&[number; 10], engine.address).unwrap();
            other.send_to(&[number; 10], engine.address).unwrap();
        }
        let mut expected = numbers(address, 20);
        expected.extend(numbers(elsewhere, 20));
        expected.sort();
        assert_eq!(engine.received(40), expected);
        let own = engine.driver.socket_groups[0].connected[0].link;
        socket
            .send_to(b"to the connected one", engine.address)
            .unwrap();
        assert!(engine.fd_has_octets(own));
    }
}

#[test]
fn what_comes_while_a_socket_is_being_connected_is_received() {
    for backend in BOTH {
        let mut engine = Engine::new(backend, PLAN);
        let (socket, address) = peer();
        let others: Vec<_> = (0..16).map(|_| peer()).collect();
        let driver = &mut engine.driver;
        // As `open_connected` does it, but slowly.
        driver.share_port(0, true);
        let beside = bind_beside(engine.address).unwrap();
        for (other, _) in &others {
            other.send_to(&[0; 10], engine.address).unwrap();
        }
        let queued = rustix::io::ioctl_fionread(&beside).unwrap();
        assert!(queued > 0, "the kernel gave it a share");
        beside.connect(&address.into()).unwrap();
        beside.set_reuse_port(false).unwrap();
        driver.share_port(0, false);
        driver.adopt_connected(0, address, Ok(beside.into()));
        let mut expected: Vec<_> = others
            .iter()
            .flat_map(|(_, from)| numbers(*from, 1))
            .collect();
        expected.sort();
        assert_eq!(engine.received(16), expected);
        engine.send_numbers(address, 5);
        assert_eq!(arrived(&socket), numbers(engine.address, 5));
        assert_eq!(engine.driver.counters.tx_connected_datagrams, 5);
    }
}

#[test]
fn nobody_else_can_bind_once_a_socket_is_connected() {
    let mut engine = Engine::new(BOTH[0], PLAN);
    let (_socket, address) = peer();
    engine.send_numbers(address, MANY + 1);
    assert_eq!(engine.driver.counters.udp_connected, 1);
    let error = bind_beside(engine.address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_peer_that_is_gone_costs_bounded_work_and_gets_all_once_it_is_back() {
    for backend in BOTH {
        let mut engine = Engine::new(backend, PLAN);
        let (socket, address) = peer();
        engine.send_numbers(address, MANY + 1);
        assert_eq!(engine.peers(), [address]);
        // The kernel answers what comes to a closed port with an error, which the next send gets.
        drop(socket);
        engine.send_into_error(address, 20);
        engine.send_numbers(address, 20);
        let counters = engine.driver.counters;
        assert_eq!(counters.datagrams_lost, 0);
        let repeated = counters.tx_repeated_datagrams;
        assert!((1..=40).contains(&repeated), "{repeated}");
        assert!(counters.completions < 4 * engine.sent, "{counters:?}");
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        engine.send_numbers(address, 20);
        assert_eq!(arrived(&socket), numbers(engine.address, 20));
        for _ in 0..5 {
            engine.send_into_error(address, 20);
            let mut got = arrived(&socket);
            got.sort();
            assert_eq!(got, numbers(engine.address, 20));
        }
        for number in 0..20 {
            socket.send_to(&[number; 10], engine.address).unwrap();
        }
        assert_eq!(engine.received(20), numbers(address, 20));
        let before = engine.driver.counters;
        assert!(before.tx_connected_datagrams > 20, "still connected");
        for _ in 0..100 {
            engine.driver.turn().unwrap();
        }
        let after = engine.driver.counters.completions;
        assert_eq!(after, before.completions, "nothing to do");
    }
}

#[test]
fn an_error_that_the_receive_gets_does_not_end_it() {
    for backend in BOTH {
        let mut engine = Engine::new(backend, PLAN);
        let (socket, address) = peer();
        engine.send_numbers(address, MANY + 1);
        for round in 0..5 {
            let before = engine.driver.counters.completions;
            engine.refuse_earlier();
            engine.turns_until(|driver| driver.counters.completions > before);
            socket.send_to(&[round; 10], engine.address).unwrap();
            assert_eq!(engine.received(1), [(address, vec![round; 10])]);
        }
    }
}

#[test]
fn few_sockets_are_connected_and_the_others_go_on_without() {
    for backend in BOTH {
        let mut engine = Engine::new(backend, PLAN);
        let peers: Vec<_> = (0..CONNECTED_MAX + 3).map(|_| peer()).collect();
        for (_, address) in &peers {
            engine.send_numbers(*address, MANY + 10);
        }
        let connected: Vec<_> = peers[..CONNECTED_MAX].iter().map(|(_, at)| *at).collect();
        assert_eq!(engine.peers(), connected);
        for (socket, _) in &peers {
            assert_eq!(arrived(socket), numbers(engine.address, MANY + 10));
        }
        let counters = engine.driver.counters;
        assert_eq!(counters.tx_connected_datagrams, 10 * CONNECTED_MAX as u64);
        assert_eq!(
            (counters.udp_connects_failed, counters.datagrams_lost),
            (0, 0)
        );
    }
}

#[test]
fn a_socket_without_use_is_read_to_its_end_and_closed() {
    for backend in BOTH {
        let mut engine = Engine::new(backend, PLAN);
        let (socket, address) = peer();
        let links = engine.driver.links.len();
        for round in 1..=3 {
            engine.send_numbers(address, MANY + 1);
            assert_eq!(engine.driver.links.len(), links + 1);
            engine.driver.give_up_idle_sockets();
            assert_eq!(engine.peers(), [address], "it is in use");
            let bound = engine.driver.core.link.unwrap();
            let own = engine.driver.socket_groups[0].connected[0].link;
            // Unread when the socket is given up.
            for number in 0..5 {
                socket.send_to(&[number; 10], engine.address).unwrap();
            }
            assert!(engine.fd_has_octets(own) && !engine.fd_has_octets(bound));
            engine.everyone_rests();
            for number in 5..10 {
                socket.send_to(&[number; 10], engine.address).unwrap();
            }
            assert!(engine.fd_has_octets(bound), "they come here again");
            arrived(&socket);
            engine.send_numbers(address, 3);
            assert_eq!(arrived(&socket), numbers(engine.address, 3));
            assert_eq!(engine.received(10), numbers(address, 10));
            engine.driver.give_up_idle_sockets();
            engine.turns_until(|driver| driver.socket_groups[0].connected.is_empty());
            assert_eq!(engine.driver.links.len(), links);
            assert_eq!(engine.driver.counters.udp_disconnected, round);
            arrived(&socket);
            engine.send_numbers(address, 3);
            assert_eq!(arrived(&socket), numbers(engine.address, 3));
            socket.send_to(&[0; 10], engine.address).unwrap();
            assert_eq!(engine.received(1), numbers(address, 1));
        }
        assert_eq!(engine.driver.counters.udp_connected, 3);
        assert_eq!(engine.driver.counters.datagrams_lost, 0);
    }
}

#[test]
fn trains_leave_by_a_connected_socket_and_are_refused_there_as_elsewhere() {
    for backend in BOTH {
        let mut engine = Engine::new(backend, PLAN);
        let (socket, address) = peer();
        engine.send_numbers(address, MANY + 1);
        arrived(&socket);
        let train: Vec<Vec<u8>> = (0..6).map(|number| vec![number; 300]).collect();
        let expected: Vec<_> = train
            .iter()
            .map(|one| (engine.address, one.clone()))
            .collect();
        engine.send(address, train.clone());
        assert_eq!(arrived(&socket), expected);
        let counters = engine.driver.counters;
        assert_eq!((counters.tx_trains, counters.tx_train_datagrams), (1, 6));
        assert_eq!(counters.tx_connected_datagrams, 7);
        let own = engine.driver.socket_groups[0].connected[0].link;
        for id in [own, engine.driver.core.link.unwrap()] {
            refuse_trains(engine.driver.links.lookup(id).unwrap().fd());
        }
        for _ in 0..2 {
            engine.send(address, train.clone());
            assert_eq!(arrived(&socket), expected);
        }
        let counters = engine.driver.counters;
        assert_eq!((counters.tx_trains, counters.datagrams_lost), (1, 0));
        assert_eq!(counters.train_fallbacks, 1, "told once");
        assert_eq!(counters.tx_repeated_datagrams, 6, "once");
        assert_eq!(
            counters.tx_connected_datagrams, 13,
            "one by one is no error"
        );
        assert_eq!(engine.driver.trains_in_flight, 0);
    }
}

#[test]
fn a_port_of_several_shards_and_a_wildcard_stay_unconnected() {
    let wildcard = Plan {
        sip_udp: Some(SocketAddr::from(([0, 0, 0, 0], 0))),
        ..PLAN
    };
    for (plan, connected) in [(PLAN, 1), (wildcard, 0), (Plan { shards: 2, ..PLAN }, 0)] {
        let mut engine = Engine::new(BOTH[0], plan);
        let (socket, address) = peer();
        engine.send_numbers(address, MANY + 10);
        assert_eq!(arrived(&socket).len(), MANY + 10);
        assert_eq!(engine.driver.counters.udp_connected, connected);
    }
}

#[test]
fn where_no_socket_is_to_be_had_datagrams_go_on_and_it_is_tried_again_later() {
    for backend in BOTH {
        let mut engine = Engine::new(backend, PLAN);
        let (socket, address) = peer();
        let (_held, taken) = peer();
        let own = engine.address;
        engine.driver.socket_groups[0].address = taken;
        engine.send_numbers(address, 2 * MANY);
        engine.send_numbers(address, 2 * MANY);
        assert_eq!(engine.driver.counters.udp_connects_failed, 1);
        assert_eq!(arrived(&socket).len(), 4 * MANY);
        engine.driver.socket_groups[0].address = own;
        engine.driver.socket_groups[0].retry_at = Timestamp::ZERO;
        engine.send_numbers(address, MANY + 1);
        assert_eq!(engine.peers(), [address]);
        let counters = engine.driver.counters;
        assert_eq!(
            (counters.udp_connects_failed, counters.datagrams_lost),
            (1, 0)
        );
    }
}

#[test]
fn who_gets_many_among_many_is_found() {
    let bound = LinkId {
        slot: 0,
        generation: 1,
    };
    let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
    let mut group = SocketGroup::new(bound, at(5060));
    let now = Timestamp::from_millis(1000);
    let mut found = false;
    let connected = Connected {
        link: bound,
        peer: at(2),
        runs: 0,
        used_at: now,
        stage: Stage::Receiving,
    };
    for round in 0..100 {
        found |= group.count(at(1), 1, now);
        for stranger in 0..4 {
            assert!(!group.count(at(1000 + 4 * round + stranger), 1, now));
        }
        assert!(group.counted.len() <= COUNTED_MAX);
    }
    assert!(found);
    // Nobody is connected to where sockets go when they leave.
    assert!(!group.count(at(5060), MANY_DATAGRAMS, now));
    assert!(!group.count(at(5060), MANY_DATAGRAMS, now));
    // What is on its way by the bound socket must not be overtaken, and one socket is enough.
    group.connected.push(connected);
    group.runs = 1;
    assert_eq!(group.socket_of(at(2), now), None);
    assert!(!group.count(at(2), MANY_DATAGRAMS, now));
    assert!(!group.count(at(2), MANY_DATAGRAMS, now));
    group.runs = 0;
    assert_eq!(group.socket_of(at(2), now), Some(bound));
    group.runs = 1;
    assert_eq!(group.socket_of(at(2), now), Some(bound), "once begun");
}

#[test]
fn what_came_before_a_socket_was_connected_is_handled_before_what_comes_to_it() {
    // More octets than a turn takes, so that some are unread when the socket is opened.
    const UNREAD: u8 = 64;
    for backend in BOTH {
        let mut engine = Engine::new(backend, PLAN);
        let (socket, address) = peer();
        engine.send_numbers(address, MANY);
        let datagram = |number: u8| vec![number; 3000];
        for number in 0..UNREAD {
            socket.send_to(&datagram(number), engine.address).unwrap();
        }
        engine
            .driver
            .core
            .out
            .push_back((address, vec![vec![0; 10]]));
        engine.driver.turn().unwrap();
        assert_eq!(engine.peers(), [address]);
        let bound = engine.driver.core.link.unwrap();
        assert!(engine.fd_has_octets(bound), "not all are read");
        for number in UNREAD..2 * UNREAD {
            socket.send_to(&datagram(number), engine.address).unwrap();
        }
        let all = usize::from(2 * UNREAD);
        engine.turns_until(|driver| driver.core.got.len() == all);
        let got = engine.driver.core.got.iter().map(|(_, bytes)| bytes[0]);
        assert!(got.eq(0..2 * UNREAD), "in order");
    }
}
