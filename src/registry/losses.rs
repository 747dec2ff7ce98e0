//! Messages during whose transfer a device lost its session (BAD-30). Layer 3.

/// Sessions lost in a row during one message after which it is poison for the device.
pub const LOSSES_MAX: u8 = 3;
/// Messages suspected at a time; those that were sent first come first.
const SUSPECTS_MAX: usize = 8;

/// The messages that were in transfer when the session was lost, with how often in a row. Message
/// numbers are never zero; a row of zero is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    rows: [(u64, u8); SUSPECTS_MAX],
}

impl Losses {
    /// One more session was lost while the messages of `inflight` were in transfer, oldest first. The
    /// message with which it happened once too often, if any; it is no longer suspected then.
    pub fn lost_during(&mut self, inflight: impl IntoIterator<Item = u64>) -> Option<u64> {
        let mut rows = [(0, 0); SUSPECTS_MAX];
        let mut poison = None;
        for (row, number) in rows.iter_mut().zip(inflight) {
            let before = self.rows.iter().find(|&&(suspect, _)| suspect == number);
            let count = before.map_or(0, |&(_, count)| count) + 1;
            if count >= LOSSES_MAX && poison.is_none() {
                poison = Some(number);
            } else {
                *row = (number, count);
            }
        }
        self.rows = rows;
        poison
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: BAD-30
    #[test]
    fn the_third_loss_in_a_row_names_the_message_and_others_are_cleared() {
        let mut losses = Losses::default();
        assert_eq!(losses.lost_during([7, 8]), None);
        assert_eq!(losses.lost_during([8]), None);
        assert_eq!(losses.lost_during([8]), Some(8));
        assert_eq!(losses.lost_during([8]), None, "it starts anew");
        // Seven was not there meanwhile: its count starts anew, too.
        assert_eq!(losses.lost_during([7]), None);
        assert_eq!(
            losses.lost_during([]),
            None,
            "a loss with nothing in transfer clears"
        );
        assert_eq!(losses.lost_during([7]), None);
        assert_eq!(losses.lost_during([7]), None);
        assert_eq!(losses.lost_during([7]), Some(7));
        let many: Vec<u64> = (1..100).collect();
        for _ in 0..2 {
            assert_eq!(losses.lost_during(many.iter().copied()), None, "bounded");
        }
        assert_eq!(losses.lost_during(many.iter().copied()), Some(1));
    }
}
