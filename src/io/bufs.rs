//! Send buffers on loan to the core and the kernel, reused.

use crate::base::surface::TxBuf;

/// Most idle buffers kept.
const POOL_MAX: usize = 1024;
/// An idle buffer larger than this is freed, so that one burst does not hold memory for ever. A busy
/// trunk fills some MiB a turn: giving that back would mean growing it again in every turn.
const KEEP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Octets of all idle buffers.
const IDLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Idle send buffers. As many more are on loan as sends are in flight, at most one per link.
#[derive(Debug, Default)]
pub(super) struct TxPool {
    idle: Vec<TxBuf>,
    idle_bytes: usize,
}

impl TxPool {
    /// An empty buffer, warm if there is one.
    pub(super) fn take(&mut self) -> TxBuf {
        let buffer = self.idle.pop().unwrap_or_default();
        // A fresh buffer has no capacity.
        self.idle_bytes -= buffer.bytes.capacity();
        buffer
    }

    /// Octets of the idle ones.
    pub(super) const fn idle_bytes(&self) -> usize {
        self.idle_bytes
    }

    pub(super) fn put(&mut self, mut buffer: TxBuf) {
        let size = buffer.bytes.capacity();
        if self.idle.len() >= POOL_MAX
            || size > KEEP_BYTES_MAX
            || self.idle_bytes + size > IDLE_BYTES_MAX
        {
            return;
        }
        self.idle_bytes += size;
        buffer.bytes.clear();
        buffer.cuts.clear();
        buffer.destination = None;
        self.idle.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_a_huge_one_does_not() {
        let mut pool = TxPool::default();
        let mut buffer = pool.take();
        buffer.bytes.extend_from_slice(b"x");
        buffer.cuts.push(1);
        pool.put(buffer);
        let buffer = pool.take();
        assert!(buffer.bytes.is_empty() && buffer.cuts.is_empty());
        assert!(buffer.bytes.capacity() > 0);
        pool.put(TxBuf {
            bytes: Vec::with_capacity(KEEP_BYTES_MAX + 1),
            ..TxBuf::default()
        });
        assert_eq!(pool.take().bytes.capacity(), 0);
    }
}
