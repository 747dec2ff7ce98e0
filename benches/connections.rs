//! The raw limit of new connections: accept, one message in, one answer out, close; no protocol.
//!
//! A server thread does that with plain blocking calls while many clients on another CPU keep its
//! backlog full, so that it hardly ever sleeps. Reported: CPU time of the server's thread per
//! connection, kernel included. A session with a connection of its own cannot cost less.
//!
//! ```text
//! cargo bench --bench connections -- [seconds] [clients] [server cpu] [client cpu]
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

fn client(server: SocketAddr, cpu: usize, ended: &AtomicBool) {
    pin(cpu);
    let mut bytes = [b'x'; MESSAGE];
    while !ended.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(server) else {
            continue;
        };
        // A server that ends closes what is under way.
        let _ = stream
            .write_all(&bytes)
            .and_then(|()| stream.read_exact(&mut bytes[..ANSWER]));
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let number = |at: usize, usual: usize| numbers.get(at).copied().unwrap_or(usual);
    let (seconds, clients) = (number(0, 2), number(1, 64));
    let (server_cpu, client_cpu) = (number(2, 0), number(3, 1));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let ended = Arc::new(AtomicBool::new(false));
    for _ in 0..clients {
        let ended = Arc::clone(&ended);
        thread::spawn(move || client(address, client_cpu, &ended));
    }
    pin(server_cpu);
    let mut bytes = [0; MESSAGE];
    let mut served = 0u32;
    let start = Instant::now();
    let before = cpu_time();
    while start.elapsed() < Duration::from_secs(seconds as u64) {
        let (mut stream, _) = listener.accept().expect("a connection");
        if stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes[..ANSWER]).is_ok() {
            served += 1;
        }
    }
    let used = cpu_time().saturating_sub(before);
    ended.store(true, Ordering::Relaxed);
    let each = used.as_secs_f64() * 1e6 / f64::from(served.max(1));
    writeln!(
        stdout(),
        "{served} connections in {seconds} s, {each:.1} us of CPU each, {:.0} per core-second",
        1e6 / each
    )
    .expect("standard output");
}
