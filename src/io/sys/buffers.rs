//! Receive buffers that the kernel takes as it needs them.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use io_uring::types::BufRingEntry;

/// Alignment of a ring of provided buffers.
const PAGE: usize = 4096;
/// Octets of receive buffers the kernel is offered at a time while that is enough: what comes in is
/// then written to memory that the caches still hold.
const WINDOW_BYTES: usize = 256 * 1024;
/// Fewest buffers offered.
const WINDOW_MIN: usize = 8;
/// Refills without a shortage after which fewer buffers are offered.
const CALM_REFILLS: u16 = 1024;

/// Receive buffers of equal size, and the ring through which the kernel takes them.
pub(super) struct RxGroup {
    ring: NonNull<BufRingEntry>,
    data: NonNull<u8>,
    entries: u16,
    each: u32,
    tail: u16,
    /// True while a buffer is ours to read.
    held: Vec<bool>,
    /// Free buffers that the kernel does not have; the one freed last is offered next.
    idle: Vec<u16>,
    /// Buffers the kernel has and has not filled.
    offered: u16,
    /// How many the kernel is offered at a time.
    pub(super) window: u16,
    /// Refills since the kernel last ran out, up to [`CALM_REFILLS`].
    calm: u16,
}

impl RxGroup {
    pub(super) fn new(entries: u16, each: u32) -> Self {
        assert!(entries.is_power_of_two(), "the kernel masks the index");
        let ring = allocate(Self::ring_layout(entries)).cast();
        let data = allocate(Self::data_layout(entries, each));
        Self {
            ring,
            data,
            entries,
            each,
            tail: 0,
            held: vec![false; usize::from(entries)],
            idle: (0..entries).rev().collect(),
            offered: 0,
            window: Self::least(entries, each),
            calm: 0,
        }
    }

    /// Where the kernel finds the ring.
    pub(super) fn ring_address(&self) -> usize {
        self.ring.as_ptr().addr()
    }

    /// The window while nobody asks for more: what stays in the caches.
    fn least(entries: u16, each: u32) -> u16 {
        let few = (WINDOW_BYTES / each as usize).max(WINDOW_MIN);
        u16::try_from(few).unwrap_or(entries).min(entries)
    }

    /// Offers the kernel what it may have. The window doubles when the kernel runs out, and shrinks
    /// again after a calm time.
    pub(super) fn refill(&mut self) {
        self.calm += 1;
        if self.calm >= CALM_REFILLS {
            self.calm = 0;
            self.window = (self.window / 2).max(Self::least(self.entries, self.each));
        }
        while self.offered < self.window {
            let Some(buffer) = self.idle.pop() else {
                return;
            };
            self.offer(buffer);
        }
    }

    /// The kernel filled a buffer.
    pub(super) fn took(&mut self, buffer: u16) {
        self.held[usize::from(buffer)] = true;
        self.offered -= 1;
    }

    /// A receive found no buffer.
    pub(super) fn ran_out(&mut self) {
        if self.offered == 0 {
            self.window = self.window.saturating_mul(2).min(self.entries);
            self.calm = 0;
        }
    }

    pub(super) fn give(&mut self, buffer: u16) {
        let held = core::mem::take(&mut self.held[usize::from(buffer)]);
        assert!(held, "given back twice");
        self.idle.push(buffer);
    }

    fn ring_layout(entries: u16) -> Layout {
        let bytes = usize::from(entries) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes.max(PAGE), PAGE).expect("at most half a mebibyte")
    }

    fn data_layout(entries: u16, each: u32) -> Layout {
        let bytes = usize::from(entries) * each as usize;
        Layout::from_size_align(bytes, PAGE).expect("the configuration bounds it")
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.entries, "the kernel knows only our buffers");
        let offset = usize::from(buffer) * self.each as usize;
        // SAFETY: the allocation has `entries` buffers of `each` octets, and `buffer < entries`.
        unsafe { self.data.as_ptr().add(offset) }
    }

    pub(super) fn read(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(self.held[usize::from(buffer)], "the kernel owns it");
        assert!(len <= self.each as usize, "the kernel fills no more");
        // SAFETY: in bounds by the assertions; initialised by `alloc_zeroed`; the kernel does not
        // write a held buffer, and `give` needs `&mut self`.
        unsafe { core::slice::from_raw_parts(self.address(buffer), len) }
    }

    fn offer(&mut self, buffer: u16) {
        self.offered += 1;
        let address = u64::try_from(self.address(buffer).addr()).expect("addresses have 64 bits");
        let place = usize::from(self.tail & (self.entries - 1));
        // SAFETY: `place < entries`, and the ring has `entries` entries.
        let entry = unsafe { self.ring.as_ptr().add(place) };
        // SAFETY: valid, aligned, zero-initialised memory; the kernel reads an entry only after
        // the tail has passed it, and writes none.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(self.each);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring is aligned and its first entry initialised.
        let tail = unsafe { BufRingEntry::tail(self.ring.as_ptr()) };
        // SAFETY: the kernel reads this field atomically; it is aligned and lives as long as us.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for RxGroup {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.ring.as_ptr().cast(), Self::ring_layout(self.entries)) };
        let layout = Self::data_layout(self.entries, self.each);
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.data.as_ptr(), layout) };
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0, "an empty group has no use");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
