//! Users who wait until there is room for what they want, whose wait is longest first (layer 3).
//!
//! Two kinds of room: a hop's, for INVITEs and SUBSCRIBEs, and ours, for work that was begun. A shard that
//! begins everything at once under overload finishes nothing: each answer then waits behind all the
//! requests that came meanwhile. So the subscriptions that are asked for at a time are bounded
//! ([`BEGUN_MAX`]); a REGISTER above that is answered, and its user stands in line.
//!
//! What is not here: who decides that a user wants something, and what room there is.

use core::time::Duration;
use std::collections::VecDeque;

use crate::base::fold::{Fold, Reader, Writer};
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::push::hops::SETS_MAX;

/// Most users at a time for whom something was begun and has not come to an INVITE, of one shard. A
/// registrar that takes a quarter of a second for a NOTIFY then still sees sixteen thousand SUBSCRIBEs
/// a second.
pub const BEGUN_MAX: u32 = 4096;

/// A subscription without a NOTIFY that is older than this many spans no longer counts: who is silent
/// holds up nobody else.
const SPANS: usize = 4;
/// Length of a span, as a power of two of milliseconds.
const SPAN_BITS: u32 = 8;
/// The same.
pub const SPAN: Duration = Duration::from_millis(1 << SPAN_BITS);
const _: () = assert!(Duration::from_millis((SPANS as u64) << SPAN_BITS).as_millis() == 1024);

/// The lines in which a user has a place, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places(u32);

impl Places {
    fn enter(&mut self, set: u8) -> bool {
        let bit = 1 << bounded(set);
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }

    /// The user came up in the line of `set`.
    pub fn leave(&mut self, set: u8) {
        self.0 &= !(1 << bounded(set));
    }
}

impl Fold for Places {
    fn fold(&self, out: &mut Writer<'_>) {
        self.0.fold(out);
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        self.0.unfold(from);
    }
}

fn bounded(set: u8) -> usize {
    usize::from(set).min(SETS_MAX - 1)
}

/// Who waits, for each list of hops a line of its own. A user has one place at most in each; it may have
/// some in several when its list changes, and the caller knows which one counts.
#[derive(Debug)]
pub struct Lines {
    lines: Vec<VecDeque<(Timestamp, Key)>>,
    /// Lines with somebody in them, a bit each.
    occupied: u32,
}

const _: () = assert!(SETS_MAX <= 32, "a bit for each line");

impl Default for Lines {
    fn default() -> Self {
        Self {
            lines: (0..SETS_MAX).map(|_| VecDeque::new()).collect(),
            occupied: 0,
        }
    }
}

impl Lines {
    /// `user`, who wants something since `since`, waits behind all others for hops of `set`, or where it
    /// stands already.
    pub fn join(&mut self, places: &mut Places, set: u8, since: Timestamp, user: Key) {
        if places.enter(set) {
            self.line(set).push_back((since, user));
        }
    }

    /// `user` came up in the line of `set` and goes on waiting there, before all others.
    pub fn stay(&mut self, places: &mut Places, set: u8, since: Timestamp, user: Key) {
        if places.enter(set) {
            self.line(set).push_front((since, user));
        }
    }

    fn line(&mut self, set: u8) -> &mut VecDeque<(Timestamp, Key)> {
        let at = bounded(set);
        self.occupied |= 1 << at;
        &mut self.lines[at]
    }

    /// Who has waited longest among those at the head of a line for which `has_room`, and that line.
    pub fn pop(&mut self, mut has_room: impl FnMut(u8) -> bool) -> Option<(u8, Key)> {
        let mut best: Option<(Timestamp, u8)> = None;
        let mut left = self.occupied;
        while left != 0 {
            let set = u8::try_from(left.trailing_zeros()).expect("a bit of a word");
            left &= left - 1;
            let Some(&(since, _)) = self.lines[usize::from(set)].front() else {
                continue;
            };
            if best.is_none_or(|(than, _)| since < than) && has_room(set) {
                best = Some((since, set));
            }
        }
        let (_, set) = best?;
        let line = &mut self.lines[usize::from(set)];
        let (_, user) = line.pop_front()?;
        if line.is_empty() {
            self.occupied &= !(1 << set);
        }
        Some((set, user))
    }

    /// Since when the one waits that has waited longest.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        let heads = self.lines.iter().filter_map(|line| line.front());
        heads.map(|&(since, _)| since).min()
    }

    /// Users in the line of `set`.
    #[must_use]
    pub fn waiting_for(&self, set: u8) -> usize {
        self.lines[bounded(set)].len()
    }

    /// `true` when nobody waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.occupied == 0
    }
}

/// Subscriptions asked for and still without their NOTIFY, but for those that have been so for a second.
#[derive(Debug, Default)]
pub struct Asking {
    /// The span of the last look at a clock.
    span: u16,
    counts: [u32; SPANS],
}

impl Asking {
    /// One more, at `now`; the span to give back to [`Asking::ended`].
    pub fn began(&mut self, now: Timestamp) -> u16 {
        self.follow(now);
        self.counts[usize::from(self.span) % SPANS] += 1;
        self.span
    }

    /// The one that began in `span` came to its end.
    pub fn ended(&mut self, now: Timestamp, span: u16) {
        self.follow(now);
        if usize::from(self.span.wrapping_sub(span)) < SPANS {
            let count = &mut self.counts[usize::from(span) % SPANS];
            *count = count.saturating_sub(1);
        }
    }

    /// How many there are.
    pub fn count(&mut self, now: Timestamp) -> u32 {
        self.follow(now);
        self.counts.iter().sum()
    }

    fn follow(&mut self, now: Timestamp) {
        // The low bits are enough to tell spans apart that are hours from each other.
        let span = u16::try_from(now.as_millis() >> SPAN_BITS & 0xffff).expect("masked");
        let passed = usize::from(span.wrapping_sub(self.span));
        for step in 0..passed.min(SPANS) {
            self.counts[(usize::from(span).wrapping_sub(step)) % SPANS] = 0;
        }
        self.span = span;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> Key {
        Key {
            slot,
            generation: 1,
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_longest_wait_comes_first_among_those_who_have_room() {
        let mut lines = Lines::default();
        for (set, since, slot) in [(3, 10, 1), (0, 20, 2), (3, 30, 3), (31, 5, 4)] {
            lines.join(&mut Places::default(), set, at(since), key(slot));
        }
        assert_eq!([0, 3, 31].map(|set| lines.waiting_for(set)), [1, 2, 1]);
        assert_eq!(lines.pop(|set| set != 31), Some((3, key(1))));
        lines.stay(&mut Places::default(), 3, at(10), key(1));
        assert_eq!(lines.pop(|_| true), Some((31, key(4))));
        assert_eq!(lines.pop(|_| true), Some((3, key(1))), "it kept its place");
        assert_eq!(lines.pop(|set| set == 3), Some((3, key(3))));
        assert_eq!(lines.pop(|set| set == 3), None);
        assert!(!lines.is_empty());
        assert_eq!(lines.pop(|_| true), Some((0, key(2))));
        assert!(lines.is_empty() && lines.pop(|_| true).is_none());
    }

    #[test]
    fn who_changes_lines_for_ever_has_one_place_in_each() {
        let (mut lines, mut places) = (Lines::default(), Places::default());
        for turn in 0..1000 {
            let set = [0, 7, 31][turn % 3];
            lines.join(&mut places, set, at(10), key(1));
            lines.stay(&mut places, set, at(10), key(1));
        }
        assert_eq!([0, 7, 31].map(|set| lines.waiting_for(set)), [1, 1, 1]);
        assert_eq!(lines.pop(|set| set == 7), Some((7, key(1))));
        places.leave(7);
        lines.join(&mut places, 7, at(20), key(1));
        assert_eq!(lines.waiting_for(7), 1);
    }

    #[test]
    fn what_was_asked_a_second_ago_and_is_not_answered_holds_up_nobody() {
        let mut asking = Asking::default();
        let mut open = Vec::new();
        for ms in 100_000..100_200 {
            open.push(asking.began(at(ms)));
        }
        assert_eq!(asking.count(at(100_200)), 200);
        let late = open.split_off(150);
        for span in open {
            asking.ended(at(100_700), span);
        }
        assert_eq!(asking.count(at(100_700)), 50);
        let young = asking.began(at(100_900));
        assert_eq!(asking.count(at(101_500)), 1, "the old ones are forgotten");
        for span in late {
            asking.ended(at(101_500), span);
        }
        assert_eq!(asking.count(at(101_500)), 1, "and end without a trace");
        asking.ended(at(101_500), young);
        assert_eq!(asking.count(at(101_500)), 0);
        asking.began(at(101_500));
        assert_eq!(asking.count(at(101_500) + Duration::from_secs(86_400)), 0);
        // Sixteen bits of spans come round in less than five hours.
        assert_eq!(asking.count(at(101_500 + (1 << 24))), 0);
    }
}
