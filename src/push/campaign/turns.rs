//! Whose turn it is, and when: users who wait for a decision, for a hop or for a SUBSCRIBE, the pace, and what
//! is put off while the shard is behind.

use core::time::Duration;

use super::Campaigns;
use crate::base::entropy::Jitter;
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::push::lines::{BEGUN_MAX, SPAN};
use crate::push::user::{Ask, UserState};

/// How much of the pace may be used at once.
const PACE_BATCH: Duration = Duration::from_millis(1);

/// A shard that has not caught up for this long is behind. At a pace it can keep it does within a
/// millisecond.
const BEHIND_AFTER: Duration = Duration::from_millis(4);

impl Campaigns {
    /// Something changed for `user`: decide in this turn, or at the end of the window (SEL-2). Who waits
    /// for a hop is decided on when it has room.
    pub fn changed(&mut self, now: Timestamp, user: Key, state: &mut UserState) {
        self.changed_since(now, now, user, state);
    }

    /// As [`Campaigns::changed`], by what came at `since`: the INVITE's time counts from there, and from the
    /// first of what one decision is for.
    pub fn changed_since(
        &mut self,
        now: Timestamp,
        since: Timestamp,
        user: Key,
        state: &mut UserState,
    ) {
        state.triggered_at = state.triggered_at.min(since);
        if state.queued || state.throttled == Some(state.set) {
            return;
        }
        let open_at = state
            .decided_at
            .map_or(now, |at| at + self.options.coalesce);
        if open_at > now {
            state.decide_at = state.decide_at.min(open_at);
            return;
        }
        state.queued = true;
        state.decide_at = Timestamp::NEVER;
        self.queue.push_back(user);
    }

    /// A hop came up or has room again: users who wait for it are looked at in this turn or the next.
    pub const fn hop_room(&mut self) {
        self.throttled_due = !self.throttled.is_empty();
        if !self.asks.is_empty() {
            self.asks_at = Timestamp::ZERO;
        }
    }

    /// The next user to decide on, unless the pace is used up: whose trigger is oldest. Those who found
    /// no hop come before those who come now, for lists of hops that take INVITEs by `has_room`; of them
    /// the line is told, too, for [`Campaigns::came_up`].
    pub fn poll_user(
        &mut self,
        now: Timestamp,
        has_room: impl FnMut(u8) -> bool,
    ) -> Option<(Option<u8>, Key)> {
        self.throttled_due = !self.throttled.is_empty();
        self.throttled_at = Timestamp::NEVER;
        if self.is_paced(now) {
            return None;
        }
        if self.throttled_due {
            if let Some((line, user)) = self.throttled.pop(has_room) {
                return Some((Some(line), user));
            }
            self.throttled_due = false;
        }
        Some((None, self.queue.pop_front()?))
    }

    /// Whether anybody waits for a hop.
    #[must_use]
    pub const fn anyone_waits(&self) -> bool {
        !(self.throttled.is_empty() && self.asks.is_empty())
    }

    /// Users still wait for a hop, and the first whose rate has room again has it at `room_at`.
    pub fn look_again(&mut self, room_at: Timestamp) {
        if !self.throttled.is_empty() {
            self.throttled_at = room_at;
        }
        if !self.asks.is_empty() {
            self.asks_at = self.asks_at.min(room_at);
        }
    }

    /// Whether to decide at all, with so many INVITEs under way: what was begun comes to its end before more
    /// is begun, while the shard is behind with its input.
    #[inline]
    pub fn may_begin(&mut self, now: Timestamp, invites: impl FnOnce() -> u32) -> bool {
        let from = *self.busy_from.get_or_insert(now);
        self.held = now.since(from) >= BEHIND_AFTER && invites() >= self.options.hot_invites;
        !self.held
    }

    /// All input was handled. True when decisions were put off until then.
    pub fn caught_up(&mut self) -> bool {
        self.busy_from = None;
        core::mem::take(&mut self.held) && !(self.queue.is_empty() && self.throttled.is_empty())
    }

    /// Who is decided on next, and then, and after that, if nobody waits for a hop.
    #[must_use]
    pub fn upcoming(&self) -> [Option<Key>; 3] {
        [0, 1, 2].map(|at| self.queue.get(at).copied())
    }

    /// Who is decided on next, and since when the one waits for a hop that has waited longest.
    #[must_use]
    pub fn heads(&self) -> (Option<Key>, Option<Timestamp>) {
        (self.queue.front().copied(), self.throttled.oldest())
    }

    /// A user left a line for INVITEs; `false` when it waits elsewhere, or no more.
    pub fn came_up(state: &mut UserState, line: u8) -> bool {
        state.invite_places.leave(line);
        state.throttled == Some(line)
    }

    /// Whether a SUBSCRIBE for a user of `set` may leave at once: nobody waits for one, and there is room.
    pub fn may_ask(&mut self, now: Timestamp, set: u8) -> bool {
        self.asks.is_empty() && self.begun(now, set) < BEGUN_MAX
    }

    /// `user` is to be asked about when it is its turn.
    pub fn ask_later(&mut self, now: Timestamp, user: Key, state: &mut UserState, why: Ask) {
        if state.ask == Ask::No || state.ask_line != state.set {
            state.ask_line = state.set;
            self.asks.join(&mut state.ask_places, state.set, now, user);
        }
        state.ask = state.ask.max(why);
    }

    /// The next user to ask the registrar about, for lists of hops that are up by `is_up`, and the line
    /// in which it stood.
    pub fn poll_ask(&mut self, now: Timestamp, is_up: impl Fn(u8) -> bool) -> Option<(u8, Key)> {
        self.asks_at = Timestamp::NEVER;
        if self.asks.is_empty() {
            return None;
        }
        let asking = self.asking.count(now);
        let (throttled, queue) = (&self.throttled, self.queue.len());
        let found = self
            .asks
            .pop(|set| is_up(set) && begun(asking, queue + throttled.waiting_for(set)) < BEGUN_MAX);
        // What was asked in vain counts no longer with time, and nobody says so.
        self.asks_at = found.map_or(now + SPAN, |_| Timestamp::ZERO);
        found
    }

    /// Users for whom something was begun that has not come to an INVITE, as those of `set` see it: a
    /// list of hops that takes nothing holds up its own users only.
    fn begun(&mut self, now: Timestamp, set: u8) -> u32 {
        let waiting = self.queue.len() + self.throttled.waiting_for(set);
        begun(self.asking.count(now), waiting)
    }

    /// The subscription of a user became pending, or is no longer.
    pub fn asked(&mut self, now: Timestamp, state: &mut UserState, is_pending: bool) {
        if is_pending {
            state.ask_span = self.asking.began(now);
        } else {
            self.asking.ended(now, state.ask_span);
        }
    }

    fn is_paced(&self, now: Timestamp) -> bool {
        self.paced_until >= now + PACE_BATCH
    }

    /// A push was started: the next ones leave their turn to time. Each takes a little more than its
    /// share, by chance, so that a crowd does not leave in step.
    pub(super) fn pace(&mut self, now: Timestamp, jitter: &mut Jitter) {
        if let Some(share) = Duration::from_secs(1).checked_div(self.options.pushes_per_s) {
            let turn = jitter.duration(share, share + share / 8);
            self.paced_until = self.paced_until.max(now) + turn;
        }
    }

    /// When there is a decision to make next: at once ([`Timestamp::ZERO`]), or when the pace allows.
    #[must_use]
    pub fn due_at(&self) -> Timestamp {
        if self.review_from.is_some() {
            return Timestamp::ZERO;
        }
        if self.held {
            self.asks_at
        } else if self.queue.is_empty() && !self.throttled_due {
            self.asks_at.min(self.throttled_at.max(self.paced_until))
        } else {
            self.asks_at.min(self.paced_until)
        }
    }

    /// `user` waits for a hop. One who stood in line before keeps its place.
    pub(super) fn throttle(&mut self, user: Key, state: &mut UserState, before: Option<u8>) {
        let (places, set, since) = (&mut state.invite_places, state.set, state.triggered_at);
        if before == Some(set) {
            self.throttled.stay(places, set, since, user);
        } else {
            self.throttled.join(places, set, since, user);
        }
        state.throttled = Some(state.set);
    }
}

fn begun(asking: u32, waiting: usize) -> u32 {
    asking.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX))
}
