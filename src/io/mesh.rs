//! Frames between the shards of one process: a bounded queue per ordered pair, and wake-ups.

use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crossbeam::queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};

use crate::base::surface::MeshFrame;

/// Frames one shard may owe another before it has to hold them back.
pub const MESH_QUEUE_FRAMES: usize = 1024;

/// Wakes one driver from its wait, which is for this eventfd among others. Nobody reads it.
///
/// Its owner writes to it at every park, so it has its lines of the cache for itself: wakes of several
/// shards stand side by side.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Wake {
    fd: OwnedFd,
    parked: AtomicBool,
}

impl Wake {
    pub(super) fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            fd,
            parked: AtomicBool::new(false),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Says that the owner is about to park; it must look at its queues once more after this.
    pub(super) fn announce_park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(super) fn awake(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Wakes the owner if it parks. What it shall find must be visible before.
    pub(super) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst) {
            self.force();
        }
    }

    /// Wakes the owner whether it parks or not.
    pub(super) fn force(&self) {
        // Fails only when 2^64 - 2 wake-ups are unread; then the owner has one to read anyway.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }
}

/// All queues between `shards` shards. Frames of one pair arrive in order; a full queue is a value.
#[derive(Debug)]
pub(super) struct Mesh {
    shards: usize,
    queues: Vec<ArrayQueue<MeshFrame>>,
    wakes: Vec<Wake>,
}

impl Mesh {
    pub(super) fn new(shards: usize) -> std::io::Result<Self> {
        let pairs = if shards > 1 { shards * shards } else { 0 };
        let queues = (0..pairs)
            .map(|_| ArrayQueue::new(MESH_QUEUE_FRAMES))
            .collect();
        let wakes = (0..shards)
            .map(|_| Wake::new())
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self {
            shards,
            queues,
            wakes,
        })
    }

    pub(super) fn wake(&self, shard: usize) -> &Wake {
        &self.wakes[shard]
    }

    pub(super) fn wake_all(&self) {
        for wake in &self.wakes {
            wake.force();
        }
    }

    /// Queues `frame`; gives it back when the queue is full. An unknown shard swallows it.
    pub(super) fn push(&self, from: usize, frame: MeshFrame) -> Result<(), MeshFrame> {
        let to = usize::from(frame.to);
        match self.queues.get(from * self.shards + to) {
            Some(queue) if to < self.shards => queue.push(frame),
            Some(_) | None => Ok(()),
        }
    }

    /// The next frame from `from` to `to`.
    pub(super) fn pop(&self, from: usize, to: usize) -> Option<MeshFrame> {
        self.queues.get(from * self.shards + to)?.pop()
    }

    /// True when nothing waits for `to`.
    pub(super) fn is_empty_for(&self, to: usize) -> bool {
        (0..self.shards).all(|from| {
            self.queues
                .get(from * self.shards + to)
                .is_none_or(ArrayQueue::is_empty)
        })
    }

    pub(super) const fn shards(&self) -> usize {
        self.shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::surface::{LinkId, MeshBody};

    fn frame(from: u8, to: u8) -> MeshFrame {
        MeshFrame {
            to,
            from,
            body: MeshBody::Send {
                link: LinkId {
                    slot: 0,
                    generation: 0,
                },
                destination: None,
                last: false,
                bytes: Vec::new(),
            },
        }
    }

    #[test]
    fn a_full_queue_gives_the_frame_back_and_other_pairs_do_not_notice() {
        let mesh = Mesh::new(2).unwrap();
        for _ in 0..MESH_QUEUE_FRAMES {
            mesh.push(0, frame(0, 1)).unwrap();
        }
        assert_eq!(mesh.push(0, frame(0, 1)), Err(frame(0, 1)));
        mesh.push(1, frame(1, 0)).unwrap();
        assert_eq!(mesh.pop(0, 1), Some(frame(0, 1)));
        assert_eq!(mesh.pop(1, 0), Some(frame(1, 0)));
        assert_eq!(mesh.pop(1, 0), None);
        assert!(mesh.is_empty_for(0));
        assert!(!mesh.is_empty_for(1));
    }

    #[test]
    fn no_two_shards_write_to_one_line_of_the_cache() {
        // Two lines: processors fetch them in pairs.
        const LINES: usize = 128;
        assert!(align_of::<Wake>() >= LINES);
        assert!(align_of::<crate::io::stats::DriverStats>() >= LINES);
        assert!(align_of::<ArrayQueue<MeshFrame>>() >= LINES);
        let mesh = Mesh::new(3).unwrap();
        let line_of = |wake: &Wake| core::ptr::from_ref(wake).addr() / LINES;
        let lines: Vec<_> = mesh.wakes.iter().map(line_of).collect();
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "{lines:?}");
        let line_of = |queue: &ArrayQueue<MeshFrame>| core::ptr::from_ref(queue).addr() / LINES;
        let lines: Vec<_> = mesh.queues.iter().map(line_of).collect();
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "{lines:?}");
    }

    #[test]
    fn notify_writes_only_while_the_owner_parks() {
        let wake = Wake::new().unwrap();
        wake.notify();
        wake.announce_park();
        wake.notify();
        wake.notify();
        let mut count = [0_u8; 8];
        rustix::io::read(wake.fd(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
