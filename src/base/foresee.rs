//! Lines of the cache asked for ahead of their use (layer 0).
//!
//! Thousands of pushes are under way at a time, and what a message is about left the caches since the last
//! one came. Who knows the next message while it handles this one asks for that memory, and nothing waits for
//! it. A wrong guess costs a line of the cache and no more: nothing is read.

use core::ptr;

use prefetch_index::prefetch_index;

/// Octets of a line.
const LINE: usize = 64;

/// Asks for the lines of `octets` from the first one of `value` on; more than it has is allowed, so that an
/// empty text names the memory that it will be written to.
#[inline]
pub fn bring<T: ?Sized>(value: &T, octets: usize) {
    let start = ptr::from_ref(value).addr();
    for address in (start & !(LINE - 1)..start.wrapping_add(octets)).step_by(LINE) {
        bring_line(address);
    }
}

/// Asks for all lines of `value`.
#[inline]
pub fn bring_whole<T: ?Sized>(value: &T) {
    bring(value, size_of_val(value));
}

#[inline]
fn bring_line(address: usize) {
    // A place is named by how far it is from another one, whatever lies between.
    const HERE: &[u8] = &[];
    prefetch_index(HERE, address.wrapping_sub(HERE.as_ptr().addr()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_wherever_it_points() {
        bring(&[0_u8; 3][..], 1 << 20);
        bring(&Vec::<u8>::new()[..], 640);
        bring_whole(&[[7_u64; 100]; 3]);
        bring_line(0);
        bring_line(usize::MAX);
    }
}
