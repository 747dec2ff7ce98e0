//! What a frame between two shards costs: queue, wake-up, the copy of the message that is passed on.
//!
//! Two cores without a protocol pass messages of 950 octets to each other and keep a number of them under way:
//! with few each frame wakes its receiver, with many a turn takes a batch. Reported per frame: CPU time of both
//! shards' threads together (user and kernel, from the kernel's own account), turns and waits. What a wait and a
//! turn cost is in it: beside real work there are fewer of both.
//!
//! ```text
//! cargo bench --bench mesh -- [in flight,..] [seconds] [rounds] [CPU,CPU]
//! ```
//! Lines are those of `benches/record` without the commit, which a bench does not know.
#![expect(clippy::disallowed_methods, reason = "a bench reads clocks and waits")]

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{Write, stdout};
use std::thread;
use std::time::Instant;

use volley::base::surface::{
    Core, Input, LinkCommand, LinkId, MeshBody, MeshFrame, StoreBatch, Transmit, TxBuf,
};
use volley::base::time::Timestamp;
use volley::io::driver::DriverOptions;
use volley::io::host::{Host, HostConfig, Storeless};
use volley::io::listen::ShardAddresses;
use volley::io::stats::Counters;

#[path = "shared/runs.rs"]
mod runs;
use runs::{after_tick, list};

const MESSAGE: usize = 950;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers each frame with one, as a shard passes a message on: by a copy of its octets.
struct Passing {
    shard: u8,
    /// Frames the first shard begins with.
    begin: usize,
    message: Vec<u8>,
    out: VecDeque<MeshFrame>,
}

impl Passing {
    fn pass(&mut self, to: u8) {
        let link = LinkId {
            slot: 0,
            generation: 0,
        };
        self.out.push_back(MeshFrame {
            to,
            from: self.shard,
            body: MeshBody::Send {
                link,
                destination: None,
                last: false,
                bytes: self.message.clone(),
            },
        });
    }
}

impl Core for Passing {
    fn handle(&mut self, _now: Timestamp, input: Input<'_>) {
        match input {
            Input::Mesh(frame) => self.pass(frame.from),
            // Once a second: the first one begins.
            Input::Wall(_) => {
                for _ in 0..core::mem::take(&mut self.begin) {
                    self.pass(1);
                }
            }
            Input::Bytes { .. }
            | Input::ConnectFailed { .. }
            | Input::Datagram { .. }
            | Input::Drain
            | Input::Link { .. }
            | Input::Resolved { .. }
            | Input::Stored(_) => {}
        }
    }

    fn advance(&mut self, _now: Timestamp) {}

    fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    fn poll_transmit(&mut self, _buffer: &mut TxBuf) -> Option<Transmit> {
        None
    }

    fn poll_store(&mut self, _batch: &mut StoreBatch) -> bool {
        false
    }

    fn poll_mesh(&mut self) -> Option<MeshFrame> {
        self.out.pop_front()
    }

    fn poll_link(&mut self) -> Option<LinkCommand> {
        None
    }

    fn room(&self) -> bool {
        true
    }

    fn is_drained(&self) -> bool {
        true
    }
}

fn measure(under_way: usize, seconds: u64, cpus: &[usize]) -> String {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = HostConfig {
        shards: 2,
        pin: Some(cpus.to_vec()),
        sip_tcp: Some(any),
        sip_udp: None,
        shard_port_base: None,
        msrp: any,
        driver: DriverOptions::default(),
    };
    let factory = Storeless(move |addresses: &ShardAddresses| Passing {
        shard: addresses.shard,
        begin: if addresses.shard == 0 { under_way } else { 0 },
        message: vec![b'x'; MESSAGE],
        out: VecDeque::new(),
    });
    let host = Host::start(&config, factory).expect("the host starts");
    // The first tick begins; the CPU account comes out with ticks, so the window is cut at two of them.
    thread::sleep(Duration::from_millis(2500));
    let (first, start) = (after_tick(&host), Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (last, took) = (after_tick(&host), start.elapsed());
    host.stop_handle().stop();
    host.join().expect("the host ended well");
    let sum = |of: fn(&Counters) -> u64| {
        let each = last.iter().zip(&first);
        each.map(|(last, first)| (of(last) - of(first)) as f64)
            .sum::<f64>()
    };
    let frames = sum(|counters| counters.mesh_out).max(1.0);
    let ns = sum(|counters| counters.cpu_us) * 1000.0 / frames;
    format!(
        ",mesh,frame/{under_way}_under_way,{ns:.0},ns,{:.0} frames/s; CPU of both shards; {:.3} turns and {:.3} \
         waits a frame; {MESSAGE} octets; CPUs {cpus:?}",
        frames / took.as_secs_f64(),
        sum(|counters| counters.turns) / frames,
        sum(|counters| counters.waits) / frames,
    )
}

fn main() {
    let cpus = list(3, "0,1");
    for _ in 0..list(2, "5")[0] {
        for under_way in list(0, "1,32,512") {
            let line = measure(under_way, list(1, "3")[0], &cpus);
            let _ = writeln!(stdout(), "{line}");
        }
    }
}
