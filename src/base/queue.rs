//! FIFO with a bound that is allocated once and hands a refused element back.

use std::collections::VecDeque;

/// A bounded queue. `push` on a full queue returns the element; nothing grows after `new`.
#[derive(Debug)]
pub struct BoundedQueue<T> {
    items: VecDeque<T>,
    bound: usize,
}

impl<T> BoundedQueue<T> {
    /// A queue for at most `bound` elements.
    ///
    /// # Panics
    /// When `bound` is zero: such a queue could never carry anything.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        assert!(bound > 0, "a queue needs room for one element");
        Self {
            items: VecDeque::with_capacity(bound),
            bound,
        }
    }

    /// Appends `item`, or gives it back when the queue is full.
    ///
    /// # Errors
    /// The element itself when there is no room.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() == self.bound {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Removes the oldest element.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The oldest element, left in place.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    /// Elements waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// `true` when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Elements that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bound - self.items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_hands_the_element_back() {
        let mut queue = BoundedQueue::new(2);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(3));
        assert_eq!((queue.pop(), queue.room()), (Some(1), 1));
    }
}
