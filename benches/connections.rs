//! The raw limit of new connections, no protocol: what a session with a connection of its own cannot go below.
//!
//! A server thread uses plain blocking calls while many clients on another CPU keep its backlog full, so that
//! it hardly ever sleeps. Reported: CPU time of the server's thread per connection, kernel included, in turn of two
//! kinds:
//!
//! * `once`: accept, a message in, an answer out, close. The least that a connection can be for.
//! * `session`: what a push does with a connection that its phone opened, with as many octets: accept, the phone's first SEND
//!   in; its answer and a SEND out; the answer to that and a REPORT in; the end of the stream, since the phone closes
//!   first; close. 64 sessions are taken at a time, so that the phones have time to answer.
//!
//! ```text
//! cargo bench --bench connections -- [seconds] [clients] [server cpu] [client cpu] [rounds]
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads clocks and starts its clients"
)]

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{Read, Write, stdout};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Octets of a SEND with a 300-octet message, and of the answers to it.
const MESSAGE: usize = 900;
const ANSWER: usize = 500;
/// Octets of a SEND without a message, and of the answer to it.
const EMPTY: usize = 350;
const EMPTY_ANSWER: usize = 200;
/// Sessions taken at a time.
const TOGETHER: usize = 64;

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    // On a machine with fewer CPUs both share what there is.
    let _ = sched_setaffinity(None, &set);
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn client(server: SocketAddr, cpu: usize, kind: Kind, ended: &AtomicBool) {
    pin(cpu);
    let mut bytes = [b'x'; EMPTY_ANSWER + MESSAGE];
    while !ended.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(server) else {
            continue;
        };
        // A server that ends closes what is under way.
        let _ = match kind {
            Kind::Once => stream
                .write_all(&bytes[..MESSAGE])
                .and_then(|()| stream.read_exact(&mut bytes[..ANSWER])),
            Kind::Session => stream
                .write_all(&bytes[..EMPTY])
                .and_then(|()| stream.read_exact(&mut bytes))
                .and_then(|()| stream.write_all(&bytes[..ANSWER])),
        };
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Once,
    Session,
}

/// One connection of the first kind, or as many of the other as are taken together; gives how many went well.
fn serve(listener: &TcpListener, kind: Kind, bytes: &mut [u8], open: &mut Vec<TcpStream>) -> u32 {
    let mut served = 0;
    match kind {
        Kind::Once => {
            let (mut stream, _) = listener.accept().expect("a connection");
            let read = stream.read_exact(&mut bytes[..MESSAGE]);
            served += u32::from(read.is_ok() && stream.write_all(&bytes[..ANSWER]).is_ok());
        }
        Kind::Session => {
            for _ in 0..TOGETHER {
                let (mut stream, _) = listener.accept().expect("a connection");
                let read = stream.read_exact(&mut bytes[..EMPTY]);
                if read.is_ok() && stream.write_all(&bytes[..EMPTY_ANSWER + MESSAGE]).is_ok() {
                    open.push(stream);
                }
            }
            for mut stream in open.drain(..) {
                let read = stream.read_exact(&mut bytes[..ANSWER]);
                served += u32::from(read.is_ok() && stream.read(bytes).is_ok_and(|n| n == 0));
            }
        }
    }
    served
}

/// Connections served and CPU time of each, microseconds.
fn measure(
    kind: Kind,
    numbers: (usize, usize),
    (server_cpu, client_cpu): (usize, usize),
) -> (u32, f64) {
    let (seconds, clients) = numbers;
    // Who closes first keeps its port for a while; addresses of one's own give each client enough of them.
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let ended = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..=u8::MAX)
        .cycle()
        .take(clients)
        .map(|n| {
            let ended = Arc::clone(&ended);
            let address = SocketAddr::from(([127, 0, 1, n], port));
            thread::spawn(move || client(address, client_cpu, kind, &ended))
        })
        .collect();
    pin(server_cpu);
    let mut bytes = [0; EMPTY_ANSWER + MESSAGE];
    let mut open = Vec::with_capacity(TOGETHER);
    let mut served = 0u32;
    let start = Instant::now();
    let before = cpu_time();
    while start.elapsed() < Duration::from_secs(seconds as u64) {
        served += serve(&listener, kind, &mut bytes, &mut open);
    }
    let used = cpu_time().saturating_sub(before);
    ended.store(true, Ordering::Relaxed);
    drop(listener);
    for client in clients {
        client.join().expect("a client ends");
    }
    (served, used.as_secs_f64() * 1e6 / f64::from(served.max(1)))
}

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let number = |at: usize, usual: usize| numbers.get(at).copied().unwrap_or(usual);
    let (seconds, cpus) = (number(0, 2), (number(2, 0), number(3, 1)));
    let clients = number(1, 0);
    for _ in 0..number(4, 1) {
        for (kind, usual, what) in [(Kind::Once, 64, "once"), (Kind::Session, 256, "session")] {
            let clients = if clients == 0 { usual } else { clients };
            let (served, each) = measure(kind, (seconds, clients), cpus);
            writeln!(
                stdout(),
                "{what:<8} {served} connections in {seconds} s, {each:.1} us of CPU each, {:.0} per core-second",
                1e6 / each
            )
            .expect("standard output");
        }
    }
}
