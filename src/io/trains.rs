//! Trains of datagrams: which of a buffer's datagrams travel in one operation, which peers take
//! none, and what this kernel can do.
//!
//! A train is one `sendmsg` with `UDP_SEGMENT`: the kernel's stack is passed once, and the NIC (or a
//! receiver on this host that asks for `UDP_GRO`) cuts. Its datagrams have one size, but for the
//! last, which may be shorter. So the datagrams of a buffer are sorted by size; they need not lie
//! together, each is one part of the operation.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use crate::base::time::Timestamp;

use super::sys;

/// Most datagrams of one train: what every kernel takes that takes any.
pub(super) const TRAIN_DATAGRAMS_MAX: u32 = 64;
/// Most octets of one train: what an IP packet can hold, less headers.
const TRAIN_BYTES_MAX: u32 = 65_000;
/// Largest datagram that may travel in a train where nothing is known of the path: it must fit it
/// unfragmented.
pub(super) const TRAIN_SEGMENT_BYTES: u16 = 1_472;
/// Sizes that are sorted at a time; when there are more, the one begun first is closed.
const SIZES_MAX: usize = 32;
/// Most peers remembered for taking no trains; the one remembered longest makes room.
const REFUSALS_MAX: usize = 16;
/// How long such a peer gets datagrams one by one.
const REFUSAL_LASTS: Duration = Duration::from_secs(60);
/// How long the self-test waits for datagrams that went over the loopback.
const PROBE_WAIT: Duration = Duration::from_millis(200);

/// Where one datagram lies in its buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// First octet.
    pub start: u32,
    /// One past the last octet.
    pub end: u32,
}

/// Parts sent by one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Index of the first part.
    pub first: u32,
    /// How many parts follow one another, at least one.
    pub count: u32,
    /// Octets of each part but the last, or 0 for a single datagram.
    pub segment: u16,
}

/// The socket a run leaves by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exit {
    /// Its slot in the table of links.
    pub slot: u32,
    /// It is connected to the peer, so the run needs no address.
    pub is_connected: bool,
}

/// A run that may take more.
#[derive(Clone, Copy, Debug)]
struct Open {
    size: u32,
    octets: u32,
    count: u32,
    run: u32,
    /// Its datagram, while there is but one.
    only: u32,
}

/// What a run may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunLimits {
    /// Datagrams.
    pub datagrams: u32,
    /// Octets of the largest datagram that may travel with others; 0: each travels by itself.
    pub segment_bytes: u16,
}

/// Sorts the datagrams of a buffer into runs. Keeps its memory from buffer to buffer.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    /// Which run each datagram is of.
    run_of: Vec<u32>,
    open: Vec<Open>,
    /// The datagrams, those of a run one after the other.
    pub parts: Vec<Part>,
    /// The runs, in the order of their first datagrams.
    pub runs: Vec<Run>,
}

impl Sorter {
    /// Sorts datagrams that end at `cuts` into runs within `limits`. Datagrams of one size keep their
    /// order.
    pub(super) fn sort(&mut self, cuts: &[u32], limits: RunLimits) {
        self.run_of.clear();
        self.open.clear();
        self.runs.clear();
        let mut start = 0;
        for (number, &end) in (0_u32..).zip(cuts) {
            let size = end - start;
            start = end;
            self.place(number, size, limits);
        }
        self.join_singles(limits.datagrams);
        self.lay_out(cuts);
    }

    fn place(&mut self, number: u32, size: u32, limits: RunLimits) {
        let most = limits.datagrams;
        let fits = (1..=u32::from(limits.segment_bytes)).contains(&size) && most > 1;
        let place = self.open.iter().position(|open| open.size == size);
        if let Some(at) = place.filter(|_| fits) {
            let open = &mut self.open[at];
            if open.count < most && open.octets + size <= TRAIN_BYTES_MAX {
                open.count += 1;
                open.octets += size;
                self.run_of.push(open.run);
                return;
            }
        }
        let run = u32::try_from(self.runs.len()).expect("the backlog is bounded below 4 GiB");
        self.runs.push(Run {
            // The size, until the parts are laid out.
            first: size,
            count: 0,
            segment: 0,
        });
        self.run_of.push(run);
        if !fits {
            return;
        }
        let fresh = Open {
            size,
            octets: size,
            count: 1,
            run,
            only: number,
        };
        match place {
            Some(at) => self.open[at] = fresh,
            None if self.open.len() < SIZES_MAX => self.open.push(fresh),
            None => {
                self.open.remove(0);
                self.open.push(fresh);
            }
        }
    }

    /// A datagram that is alone in its size ends a train of larger ones.
    fn join_singles(&mut self, most: u32) {
        for at in 0..self.open.len() {
            let single = self.open[at];
            if single.count != 1 {
                continue;
            }
            let host = self.open.iter_mut().find(|open| {
                open.size > single.size
                    && open.count > 0
                    && open.count < most
                    && open.octets + single.size <= TRAIN_BYTES_MAX
            });
            if let Some(host) = host {
                self.run_of[single.only as usize] = host.run;
                // Full: nothing may follow a shorter one, and it is no single any more.
                host.count = most;
                self.open[at].count = 0;
            }
        }
    }

    /// Puts the parts of each run together, and drops runs that were joined to others.
    fn lay_out(&mut self, cuts: &[u32]) {
        for &run in &self.run_of {
            self.runs[run as usize].count += 1;
        }
        let mut next = 0;
        for run in &mut self.runs {
            let size = core::mem::replace(&mut run.first, next);
            next += run.count;
            if run.count > 1 {
                run.segment = u16::try_from(size).expect("a segment is below the largest");
            }
            // Counts again below.
            run.count = 0;
        }
        self.parts.clear();
        self.parts.resize(cuts.len(), Part::default());
        let mut start = 0;
        // A shorter datagram must be the last of its run, whenever it came.
        for shorter in [false, true] {
            for (&run, &end) in self.run_of.iter().zip(cuts) {
                let begin = core::mem::replace(&mut start, end);
                let run = &mut self.runs[run as usize];
                let is_shorter = run.segment > 0 && end - begin < u32::from(run.segment);
                if is_shorter == shorter {
                    self.parts[(run.first + run.count) as usize] = Part { start: begin, end };
                    run.count += 1;
                }
            }
            start = 0;
        }
        self.runs.retain(|run| run.count > 0);
    }
}

/// Peers towards whom a train failed, each for a while.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    peers: Vec<(SocketAddr, Timestamp)>,
}

impl Refusals {
    /// Whether `peer` gets datagrams one by one now.
    #[inline]
    pub(super) fn holds(&mut self, peer: SocketAddr, now: Timestamp) -> bool {
        if self.peers.is_empty() {
            return false;
        }
        self.peers.retain(|&(_, until)| until > now);
        self.peers.iter().any(|&(known, _)| known == peer)
    }

    /// A train to `peer` failed. True when that is news.
    pub(super) fn note(&mut self, peer: SocketAddr, now: Timestamp) -> bool {
        if self.holds(peer, now) {
            return false;
        }
        if self.peers.len() >= REFUSALS_MAX {
            self.peers.remove(0);
        }
        self.peers.push((peer, now + REFUSAL_LASTS));
        true
    }
}

/// Whether this error says that the path takes no trains: no checksum offload (`EIO`), a segment
/// that does not fit the path (`EINVAL`, `EMSGSIZE`), a socket without the option.
pub(super) const fn refuses_trains(error: i32) -> bool {
    matches!(
        error,
        libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP | libc::ENOPROTOOPT
    )
}

/// What this kernel does with trains, found by sending one over the loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainSupport {
    /// It cuts what we send (`UDP_SEGMENT`).
    pub sends: bool,
    /// It joins what we receive (`UDP_GRO`).
    pub joins: bool,
}

impl TrainSupport {
    /// For a start line.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match (self.sends, self.joins) {
            (true, true) => "in trains",
            (true, false) => "out in trains, in one by one",
            (false, _) => "one by one",
        }
    }
}

/// Sends a train of three to ourselves and looks at what comes. Takes microseconds when all is well,
/// half a second at most.
#[must_use]
pub fn probe() -> TrainSupport {
    let cut = send_and_receive(false).is_ok_and(|sizes| sizes == [100, 100, 50]);
    TrainSupport {
        sends: cut,
        joins: cut && send_and_receive(true).is_ok_and(|sizes| sizes == [250]),
    }
}

/// The sizes of what arrives when 250 octets were sent in segments of 100.
fn send_and_receive(joined: bool) -> io::Result<Vec<usize>> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    receiver.set_read_timeout(Some(PROBE_WAIT))?;
    if joined && !sys::enable_gro(receiver.as_fd()) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    if !sys::set_segment(sender.as_fd(), 100) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let sent: Vec<u8> = (0..250).collect();
    sender.send_to(&sent, receiver.local_addr()?)?;
    let mut sizes = Vec::new();
    let mut buffer = [0; 512];
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let len = match receiver.recv(&mut buffer) {
            Ok(len) => len,
            // A ring that this thread closed a moment ago does that to a wait with a timeout.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        got.extend_from_slice(&buffer[..len]);
        sizes.push(len);
    }
    if got != sent {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each run as its segment size and its datagrams as (start, end).
    fn runs(cuts: &[u32], most: u32) -> Vec<(u16, Vec<(u32, u32)>)> {
        let mut sorter = Sorter::default();
        let limits = RunLimits {
            datagrams: most,
            segment_bytes: TRAIN_SEGMENT_BYTES,
        };
        sorter.sort(cuts, limits);
        sorter
            .runs
            .iter()
            .map(|run| {
                let parts = &sorter.parts[run.first as usize..][..run.count as usize];
                let parts = parts.iter().map(|part| (part.start, part.end)).collect();
                (run.segment, parts)
            })
            .collect()
    }

    fn sizes(cuts: &[u32], most: u32) -> Vec<(u16, Vec<u32>)> {
        runs(cuts, most)
            .into_iter()
            .map(|(segment, parts)| (segment, parts.iter().map(|(a, b)| b - a).collect()))
            .collect()
    }

    #[test]
    fn datagrams_of_one_size_travel_together_wherever_they_lie() {
        assert_eq!(
            runs(&[100, 300, 400, 600], 16),
            [
                (100, vec![(0, 100), (300, 400)]),
                (200, vec![(100, 300), (400, 600)])
            ]
        );
        assert_eq!(
            sizes(&[100, 200, 300], 2),
            [(100, vec![100, 100]), (0, vec![100])]
        );
        assert_eq!(sizes(&[100, 200], 1), [(0, vec![100]), (0, vec![100])]);
        assert_eq!(sizes(&[3000, 6000], 16), [(0, vec![3000]), (0, vec![3000])]);
        assert_eq!(sizes(&[], 16), []);
    }

    #[test]
    fn what_the_path_takes_whole_may_travel_in_a_train() {
        let mut sorter = Sorter::default();
        for (segment_bytes, count) in [(1600, 1), (1599, 3)] {
            let limits = RunLimits {
                datagrams: 16,
                segment_bytes,
            };
            sorter.sort(&[1600, 3200, 4800], limits);
            assert_eq!(sorter.runs.len(), count);
        }
    }

    #[test]
    fn one_of_its_size_ends_a_train_of_larger_ones_whenever_it_came() {
        assert_eq!(
            sizes(&[50, 150, 250], 16),
            [(100, vec![100, 100, 50])],
            "the short one came first"
        );
        assert_eq!(sizes(&[100, 150], 16), [(100, vec![100, 50])]);
        // Only one may end a train.
        assert_eq!(
            sizes(&[100, 150, 190], 16),
            [(100, vec![100, 50]), (0, vec![40])]
        );
    }

    #[test]
    fn runs_hold_every_datagram_once_and_the_kernel_could_cut_them() {
        let mut state = 0x9e37_79b9_u32;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        for _ in 0..2000 {
            let mut cuts = Vec::new();
            let mut end = 0;
            for _ in 0..random() % 120 {
                end += match random() % 8 {
                    0..=2 => 300,
                    3 => 299,
                    4 => 1500,
                    _ => 200 + random() % 60,
                };
                cuts.push(end);
            }
            let mut seen = Vec::new();
            for (segment, parts) in runs(&cuts, 16) {
                assert!((1..=16).contains(&parts.len()));
                assert_eq!(segment == 0, parts.len() == 1);
                let (last, full) = parts.split_last().unwrap();
                assert!(full.iter().all(|(a, b)| b - a == u32::from(segment)));
                assert!(segment == 0 || last.1 - last.0 <= u32::from(segment));
                let octets: u32 = parts.iter().map(|(a, b)| b - a).sum();
                assert!(octets <= TRAIN_BYTES_MAX);
                let ordered = full.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(ordered, "datagrams of one size keep their order");
                seen.extend(parts);
            }
            seen.sort_unstable();
            let mut start = 0;
            assert_eq!(seen.len(), cuts.len());
            for (part, &cut) in seen.iter().zip(&cuts) {
                assert_eq!(*part, (start, cut));
                start = cut;
            }
        }
    }

    #[test]
    fn a_peer_without_trains_is_remembered_for_a_while_and_few_are() {
        let mut refusals = Refusals::default();
        let peer = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let now = Timestamp::from_millis(1000);
        assert!(!refusals.holds(peer(1), now));
        assert!(refusals.note(peer(1), now));
        assert!(!refusals.note(peer(1), now), "known");
        assert!(refusals.holds(peer(1), now));
        assert!(!refusals.holds(peer(2), now));
        assert!(!refusals.holds(peer(1), now + REFUSAL_LASTS), "tried again");
        for port in 0..1000 {
            refusals.note(peer(port), now);
        }
        assert_eq!(refusals.peers.len(), REFUSALS_MAX);
        assert!(refusals.holds(peer(999), now));
    }

    #[test]
    fn what_the_probe_finds_is_what_the_kernel_lets_a_socket_do() {
        let found = probe();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Loopback cuts and joins by software, so a kernel that takes the options keeps them.
        let sends = sys::set_segment(socket.as_fd(), 100);
        let joins = sends && sys::enable_gro(socket.as_fd());
        assert_eq!(found, TrainSupport { sends, joins });
        assert!(!found.text().is_empty());
    }
}
