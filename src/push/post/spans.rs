//! When the messages that wait came, in memory that does not grow with their number.
//!
//! A number says when its message came, to [`SPAN_MS`] ([`Post::take_number`](super::Post::take_number)).
//! Messages that came together are one row: of them only how many there are. Rows are joined as they get
//! older, so that a few hundred reach back for years. What is told is therefore never less than the age of
//! the oldest message, and more by [`SPAN_MS`] or by an eighth of it at most, whichever is more.

use crate::base::time::UnixMillis;
use crate::store::op::NOTICE_NUMBERS;

/// A number that is taken so long after the last one that was set by the clock is set by it again.
pub(super) const SPAN_MS: u64 = 8192;
/// Digits of a number below its milliseconds.
pub(super) const NUMBER_BITS: u32 = 20;
/// Rows that make a second look at what can be joined worth its time.
const ROWS_MAX: usize = 256;
/// Rows are joined when they then last no longer than this part of their age.
const WIDTH_PART: u64 = 8;

/// Messages that came together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    /// When the first came that may be among them, milliseconds since 1970.
    start: u64,
    /// What comes from then on is not among them.
    end: u64,
    live: u64,
}

/// Messages by when they came.
#[derive(Clone, Debug)]
pub struct Spans {
    /// Ascending, and apart.
    rows: Vec<Row>,
    /// Of all rows together.
    count: usize,
}

/// When the message came that has this number.
const fn moment(number: u64) -> u64 {
    (number & !NOTICE_NUMBERS) >> NUMBER_BITS
}

/// The number to go on with after `next`, when the clock is so far ahead of it.
pub(super) const fn number_of_clock(wall: UnixMillis, next: u64) -> Option<u64> {
    // The two highest digits are taken: a clock that needs them is wrong by centuries.
    let is_sane = wall.0 < 1 << (62 - NUMBER_BITS);
    if is_sane && wall.0 >= moment(next) + SPAN_MS {
        Some(wall.0 << NUMBER_BITS)
    } else {
        None
    }
}

impl Default for Spans {
    fn default() -> Self {
        Self {
            rows: Vec::with_capacity(ROWS_MAX),
            count: 0,
        }
    }
}

impl Spans {
    /// Message `number` waits from now on.
    pub fn arrived(&mut self, number: u64) {
        self.count += 1;
        let at = moment(number);
        match self.row_of(at) {
            Some(row) => self.rows[row].live += 1,
            None => self.insert(at),
        }
    }

    /// Message `number` waits no more.
    ///
    /// # Panics
    /// When it did not wait.
    pub fn left(&mut self, number: u64) {
        let row = self.row_of(moment(number));
        let row = row.expect("a message that leaves had arrived");
        let live = &mut self.rows[row].live;
        assert!(*live > 0, "every message leaves once");
        *live -= 1;
        self.count -= 1;
    }

    /// How many wait.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// When the oldest message came that waits, or earlier by what the module's head says.
    #[must_use]
    pub fn oldest(&self) -> Option<UnixMillis> {
        let row = self.rows.iter().find(|row| row.live > 0)?;
        Some(UnixMillis(row.start))
    }

    /// Octets of the table.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
    }

    /// The row that `at` belongs to. Nearly always it is the last one.
    fn row_of(&self, at: u64) -> Option<usize> {
        let last = self.rows.last()?;
        let after = if last.start <= at {
            self.rows.len()
        } else {
            self.rows.partition_point(|row| row.start <= at)
        };
        let row = after.checked_sub(1)?;
        (at < self.rows[row].end).then_some(row)
    }

    #[cold]
    fn insert(&mut self, at: u64) {
        if self.rows.len() >= ROWS_MAX {
            self.join();
        }
        let place = self.rows.partition_point(|row| row.start <= at);
        let next = self.rows.get(place).map_or(u64::MAX, |row| row.start);
        let end = at.saturating_add(SPAN_MS).min(next);
        let row = Row {
            start: at,
            end,
            live: 1,
        };
        self.rows.insert(place, row);
    }

    /// Makes room: rows of nobody go, neighbours become one where that costs no more than its share of
    /// their age; and the two oldest, should that not be enough.
    fn join(&mut self) {
        self.rows.retain(|row| row.live > 0);
        let now = self.rows.last().map_or(0, |row| row.end);
        self.rows.dedup_by(|later, row| {
            let joins = (later.end - row.start) * WIDTH_PART <= now - later.end;
            if joins {
                (row.end, row.live) = (later.end, row.live + later.live);
            }
            joins
        });
        if self.rows.len() >= ROWS_MAX {
            let second = self.rows.remove(1);
            let first = &mut self.rows[0];
            (first.end, first.live) = (second.end, first.live + second.live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn number(ms: u64) -> u64 {
        ms << NUMBER_BITS
    }

    #[test]
    fn the_oldest_is_known_through_years_of_messages_to_an_eighth_of_its_age() {
        let mut spans = Spans::default();
        let mut waiting = std::collections::BTreeMap::new();
        let (mut seed, mut now) = (7_u64, 1_700_000_000_000_u64);
        let mut most = 0;
        for n in 0..60_000_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let draw = seed >> 33;
            now += draw % 1_200_000;
            waiting.insert(now, number(now) + n);
            spans.arrived(number(now) + n);
            // Some stay for long; what leaves is anywhere.
            if waiting.len() > 40 + (n / 300) as usize {
                let nth = (draw as usize >> 3) % waiting.len();
                let nth = if n % 5_000 == 0 { 0 } else { nth };
                let at = *waiting.keys().nth(nth).unwrap();
                spans.left(waiting.remove(&at).unwrap());
            }
            most = most.max(spans.rows.len());
            let true_age = now - waiting.keys().next().unwrap();
            let told = now - spans.oldest().unwrap().0;
            assert!(told >= true_age, "{told} for {true_age}");
            let over = told - true_age;
            assert!(
                over <= SPAN_MS.max(told / WIDTH_PART),
                "{told} for {true_age}"
            );
        }
        assert!(most <= ROWS_MAX);
        for number in waiting.into_values() {
            spans.left(number);
        }
        assert_eq!(spans.oldest(), None);
    }

    #[test]
    fn messages_of_earlier_processes_come_in_any_order_and_notices_count_by_their_time() {
        let mut spans = Spans::default();
        let hours = |hours: u64| hours * 3_600_000;
        for at in [9, 3, 7, 5, 3] {
            spans.arrived(number(hours(at)));
        }
        spans.arrived(number(hours(1)) | NOTICE_NUMBERS);
        assert_eq!(spans.oldest(), Some(UnixMillis(hours(1))));
        spans.left(number(hours(1)) | NOTICE_NUMBERS);
        assert_eq!(spans.oldest(), Some(UnixMillis(hours(3))));
        spans.left(number(hours(3)));
        assert_eq!(spans.oldest(), Some(UnixMillis(hours(3))));
        spans.left(number(hours(3)));
        assert_eq!(spans.oldest(), Some(UnixMillis(hours(5))));
    }
}
