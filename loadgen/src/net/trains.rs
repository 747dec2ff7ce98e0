//! Trains of datagrams: those of one size to one peer, which leave as one operation (`UDP_SEGMENT`).

use std::io::IoSlice;
use std::os::fd::RawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

/// Datagrams and octets of one train.
const DATAGRAMS: usize = 64;
const OCTETS: usize = 64_000;
/// Trains that may still take a datagram: sizes are few and the last trains the likely ones.
const OPEN: usize = 32;

/// Datagrams of one size, by where each lies.
#[derive(Debug, Default)]
pub(crate) struct Train {
    size: usize,
    octets: usize,
    parts: Vec<(u32, u32)>,
    closed: bool,
}

impl Train {
    /// Start and end of each datagram.
    pub(crate) fn parts(&self) -> &[(u32, u32)] {
        &self.parts
    }

    /// Sends it to `peer`: all of it or nothing.
    pub(crate) fn send(
        &self,
        socket: RawFd,
        bytes: &[u8],
        peer: &SockaddrStorage,
    ) -> nix::Result<()> {
        let slices: Vec<IoSlice<'_>> = self
            .parts
            .iter()
            .map(|&(start, end)| IoSlice::new(&bytes[start as usize..end as usize]))
            .collect();
        let segment = u16::try_from(self.size).unwrap_or(0);
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let control = if self.parts.len() > 1 {
            &control[..]
        } else {
            &[]
        };
        sendmsg(socket, &slices, control, MsgFlags::MSG_DONTWAIT, Some(peer)).map(drop)
    }
}

/// What leaves for one peer, sorted. Keeps its memory.
#[derive(Debug)]
pub(crate) struct Trains {
    trains: Vec<Train>,
    used: usize,
    segment_max: usize,
}

impl Trains {
    /// Larger datagrams than `segment_max` travel by themselves.
    pub(crate) const fn new(segment_max: usize) -> Self {
        Self {
            trains: Vec::new(),
            used: 0,
            segment_max,
        }
    }

    /// Puts the datagrams that end at `ends` together by size, in the order in which the sizes came up.
    pub(crate) fn sort(&mut self, ends: &[u32]) -> &[Train] {
        self.used = 0;
        let mut start = 0;
        for &end in ends {
            let size = (end - start) as usize;
            let part = (core::mem::replace(&mut start, end), end);
            let open = self.trains[..self.used]
                .iter_mut()
                .rev()
                .take(OPEN)
                .find(|train| !train.closed && train.size == size);
            if let Some(train) = open {
                train.parts.push(part);
                train.octets += size;
                train.closed = train.parts.len() == DATAGRAMS || train.octets + size > OCTETS;
                continue;
            }
            if self.trains.len() == self.used {
                self.trains.push(Train::default());
            }
            let train = &mut self.trains[self.used];
            self.used += 1;
            train.size = size;
            train.octets = size;
            train.closed = size > self.segment_max;
            train.parts.clear();
            train.parts.push(part);
        }
        &self.trains[..self.used]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_one_size_form_trains_of_so_many_at_most() {
        let mut sizes = vec![300, 900, 300, 2000, 2000];
        sizes.extend([700; 68]);
        let mut end = 0;
        let mut ends = Vec::new();
        for size in sizes {
            end += size;
            ends.push(end);
        }
        let mut trains = Trains::new(1472);
        let sorted: Vec<_> = trains
            .sort(&ends)
            .iter()
            .map(|train| (train.size, train.parts.len()))
            .collect();
        assert_eq!(
            sorted,
            [
                (300, 2),
                (900, 1),
                (2000, 1),
                (2000, 1),
                (700, 64),
                (700, 4)
            ]
        );
        assert_eq!(trains.trains[0].parts, [(0, 300), (1200, 1500)]);
        let mut wide = Trains::new(9000);
        assert_eq!(wide.sort(&ends)[2].parts.len(), 2, "the path takes more");
    }
}
