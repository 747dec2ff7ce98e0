//! Which devices of a user get a push now, and why the others do not (PUSH-0, section 9.3). Layer 3.
//!
//! [`evaluate`] is a pure function of its inputs: (U, D, M, S, now) to a verdict per device, so that
//! a decision can be replayed from a log. The first rule that fires, in the table's order, gives the
//! reason. [`Debounce`] says when to decide (SEL-2), [`rules`] what provider and users want. Not here:
//! acting on the verdicts.

pub mod rules;

use core::time::Duration;

use crate::base::time::{Timestamp, UnixMillis};
use crate::metrics::probe::Probe;
use crate::registry::device::Device;
use crate::registry::gruu::GruuRule;
use crate::registry::outcome::DeviceState;
use crate::registry::user::{DEVICES_HELD_MAX, User};
use crate::selection::rules::Preference;

/// Most devices one evaluation looks at.
pub const CANDIDATES_MAX: usize = DEVICES_HELD_MAX;
/// When to look again after a device that found no place: messages also leave without an event of the user.
const PLACE_AGAIN: Duration = Duration::from_secs(60);

/// A reason code of section 9.3. Times say when to look again; `NEVER` is "when something changes".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The user is unknown or not provisioned.
    UserNotServed,
    /// The user is suspended or barred.
    UserBarred,
    /// Preferences say hold, or quiet hours until then.
    UserPrefHold {
        /// End of the quiet hours, wall clock; `None` for an open-ended hold.
        until: Option<UnixMillis>,
    },
    /// No live message.
    NoMessage,
    /// The provider's switch is off, or overload stops everything.
    Stopped,
    /// No active binding, or one that ends too soon.
    NotActive,
    /// No usable address.
    NoGruu,
    /// No accepted feature tag, or INVITE is not among its methods.
    NoCpm,
    /// Denied or not allowed by the user.
    PrefExcluded,
    /// Its access network is forbidden.
    Roaming,
    /// A push is open or pending; messages join it.
    BusyPush,
    /// W: until its registration changes.
    Wait,
    /// Q until then.
    Quarantine {
        /// When it is forgiven.
        until: Timestamp,
    },
    /// B until then.
    Backoff {
        /// When the next attempt may start.
        until: Timestamp,
    },
    /// No message fits it.
    NothingForIt,
    /// As many devices as a mailbox tells apart took messages that still wait for others.
    NoPlace,
    /// Others come first and the number is limited.
    FanoutCut,
    /// No token of the next hop is left; it stays queued.
    Throttled,
    /// Push to it.
    Selected,
}

impl Verdict {
    /// The stable, public code (SEL-3).
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UserNotServed => "U-NOT-SERVED",
            Self::UserBarred => "U-BARRED",
            Self::UserPrefHold { .. } => "U-PREF-HOLD",
            Self::NoMessage => "M-NONE",
            Self::Stopped => "S-STOPPED",
            Self::NotActive => "D-NOT-ACTIVE",
            Self::NoGruu => "D-NO-GRUU",
            Self::NoCpm => "D-NO-CPM",
            Self::PrefExcluded => "D-PREF-EXCLUDED",
            Self::Roaming => "D-ROAMING",
            Self::BusyPush => "D-BUSY-PUSH",
            Self::Wait => "D-WAIT",
            Self::Quarantine { .. } => "D-QUARANTINE",
            Self::Backoff { .. } => "D-BACKOFF",
            Self::NothingForIt => "D-NOTHING-FOR-IT",
            Self::NoPlace => "D-NO-PLACE",
            Self::FanoutCut => "D-FANOUT-CUT",
            Self::Throttled => "S-THROTTLED",
            Self::Selected => "SELECTED",
        }
    }

    /// The rule that decided: its step in the procedure and what it says. No step for a device that
    /// passed them all.
    #[must_use]
    pub const fn rule(self) -> (Option<u8>, &'static str) {
        match self {
            Self::UserNotServed => (Some(1), "the user is not served here"),
            Self::UserBarred => (Some(2), "the user is barred"),
            Self::UserPrefHold { until: None } => (Some(3), "the user wants everything held"),
            Self::UserPrefHold { until: Some(_) } => (Some(3), "the user has quiet hours"),
            Self::NoMessage => (Some(4), "no message waits"),
            Self::Stopped => (Some(5), "the provider has stopped all pushes"),
            Self::NotActive => (Some(6), "not registered, or not for long enough"),
            Self::NoGruu => (Some(7), "no address that may be used"),
            Self::NoCpm => (
                Some(8),
                "registered no accepted service, or takes no INVITE",
            ),
            Self::PrefExcluded => (Some(9), "the user excludes the device"),
            Self::Roaming => (Some(10), "roams, which the provider forbids"),
            Self::BusyPush => (Some(11), "a push to it is open"),
            Self::Wait => (Some(12), "waits for its registration to change"),
            Self::Quarantine { .. } => (Some(12), "refused; left alone for this binding"),
            Self::Backoff { .. } => (Some(12), "failed lately; tried again later"),
            Self::NothingForIt => (Some(13), "no waiting message is for it"),
            Self::NoPlace => (Some(13), "too many others took messages that still wait"),
            Self::FanoutCut => (Some(14), "other devices come first"),
            Self::Throttled => (Some(15), "no next hop has room"),
            Self::Selected => (None, "is pushed to"),
        }
    }

    /// Small dense number for counters.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::UserNotServed => 0,
            Self::UserBarred => 1,
            Self::UserPrefHold { .. } => 2,
            Self::NoMessage => 3,
            Self::Stopped => 4,
            Self::NotActive => 5,
            Self::NoGruu => 6,
            Self::NoCpm => 7,
            Self::PrefExcluded => 8,
            Self::Roaming => 9,
            Self::BusyPush => 10,
            Self::Wait => 11,
            Self::Quarantine { .. } => 12,
            Self::Backoff { .. } => 13,
            Self::NothingForIt => 14,
            Self::FanoutCut => 15,
            Self::Throttled => 16,
            Self::Selected => 17,
            Self::NoPlace => 18,
        }
    }

    /// The counter of this verdict (SEL-3).
    pub const fn counter(self, probe: &mut Probe) -> &mut u64 {
        match self {
            Self::UserNotServed => &mut probe.verdict_user_not_served_total,
            Self::UserBarred => &mut probe.verdict_user_barred_total,
            Self::UserPrefHold { .. } => &mut probe.verdict_user_pref_hold_total,
            Self::NoMessage => &mut probe.verdict_no_message_total,
            Self::Stopped => &mut probe.verdict_stopped_total,
            Self::NotActive => &mut probe.verdict_not_active_total,
            Self::NoGruu => &mut probe.verdict_no_gruu_total,
            Self::NoCpm => &mut probe.verdict_no_cpm_total,
            Self::PrefExcluded => &mut probe.verdict_pref_excluded_total,
            Self::Roaming => &mut probe.verdict_roaming_total,
            Self::BusyPush => &mut probe.verdict_busy_push_total,
            Self::Wait => &mut probe.verdict_wait_total,
            Self::Quarantine { .. } => &mut probe.verdict_quarantine_total,
            Self::Backoff { .. } => &mut probe.verdict_backoff_total,
            Self::NothingForIt => &mut probe.verdict_nothing_for_it_total,
            Self::NoPlace => &mut probe.verdict_no_place_total,
            Self::FanoutCut => &mut probe.verdict_fanout_cut_total,
            Self::Throttled => &mut probe.verdict_throttled_total,
            Self::Selected => &mut probe.verdict_selected_total,
        }
    }

    /// The verdict on the whole user, when the reason is not the device's.
    #[must_use]
    pub const fn is_for_user(self) -> bool {
        self.index() <= 4
    }
}

/// Number of distinct [`Verdict::index`] values.
pub const VERDICTS: usize = 19;

/// Input U: what is provisioned for the user.
#[derive(Clone, Copy, Debug)]
pub struct UserView<'a> {
    /// Provisioned and served here.
    pub served: bool,
    /// Suspended or barred.
    pub barred: bool,
    /// Hold everything.
    pub hold: bool,
    /// Quiet hours end then; past or zero means none.
    pub quiet_until: UnixMillis,
    /// Keys of the only devices allowed; empty allows all.
    pub allow: &'a [u64],
    /// Keys of devices never to push to.
    pub deny: &'a [u64],
    /// Key of the device to serve first; 0 for none.
    pub priority: u64,
}

impl<'a> UserView<'a> {
    /// The view of `user`, who wants `preference`, at `wall`.
    #[must_use]
    pub fn of(user: &User, preference: Option<&'a Preference>, wall: UnixMillis) -> Self {
        let view = Self {
            served: user.served,
            barred: user.barred,
            hold: false,
            quiet_until: UnixMillis::default(),
            allow: &[],
            deny: &[],
            priority: 0,
        };
        let Some(preference) = preference else {
            return view;
        };
        Self {
            hold: preference.hold,
            quiet_until: preference.quiet_until(wall),
            allow: &preference.allow,
            deny: &preference.deny,
            priority: preference.priority,
            ..view
        }
    }
}

/// Input D: one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// The device's key.
    pub key: u64,
    /// It has an active binding.
    pub active: bool,
    /// When its last binding ends.
    pub expires_at: Timestamp,
    /// When its latest binding was made.
    pub registered_at: Timestamp,
    /// Preference in thousandths.
    pub q: u16,
    /// How it can be addressed.
    pub rule: GruuRule,
    /// Bits of the known ICSIs it registered.
    pub icsi: u32,
    /// It registered some feature parameter.
    pub speaks: bool,
    /// Its `methods` lack INVITE.
    pub refuses_invite: bool,
    /// It roams, if known.
    pub roaming: Option<bool>,
    /// It has an open or pending push.
    pub pushing: bool,
    /// Its past.
    pub history: DeviceState,
}

impl DeviceView {
    /// The view of `device`.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        Self {
            key: device.key,
            active: device.active,
            expires_at: device.expires_at,
            registered_at: device.registered_at,
            q: device.q,
            rule: device.rule,
            icsi: device.features.icsi,
            speaks: device.features.speaks,
            refuses_invite: device.features.refuses_invite,
            roaming: device.roaming,
            pushing: device.pushing.is_some(),
            history: device.history,
        }
    }
}

/// Input M: the user's queue as the devices see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueView {
    /// Live, unexpired messages.
    pub live: u32,
    /// Bit i: some live message fits the i-th device (target, size, type) and is neither delivered
    /// to it nor refused by it.
    pub fitting: u32,
    /// Bit i: no message names the i-th device, and not every such device may find a place.
    pub unplaced: u32,
    /// How many of those can.
    pub places: u32,
}

/// How many devices get a message (section 9.3 step 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fanout {
    /// Every device that can.
    #[default]
    All,
    /// The best one.
    First,
    /// The best n.
    Best(u8),
}

/// Input S: the provider's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The users it is for are barred.
    pub barred: bool,
    /// Everything is stopped.
    pub stopped: bool,
    /// Bits of the known ICSIs of which a device needs one (step 8). Default: all.
    pub accepted: u32,
    /// A binding must live this much longer. Default 10 s.
    pub min_remaining: Duration,
    /// Take devices without any feature parameter. Default no.
    pub assume_when_silent: bool,
    /// Push to roaming devices. Default yes.
    pub allow_roaming: bool,
    /// How many devices.
    pub fanout: Fanout,
    /// Most devices of one user pushed to at once, open pushes included (RSP-31). Default 8.
    pub devices_max: u8,
    /// Where it was written, for who reads an explanation; zero for the provider's own.
    pub line: u32,
}

impl Policy {
    /// Whether a device can be given a CPM session by what it registered (steps 7 and 8): how it is
    /// addressed, an accepted ICSI or permitted silence, and INVITE among its methods.
    #[must_use]
    pub(crate) const fn is_capable(&self, device: &DeviceView) -> bool {
        !matches!(device.rule, GruuRule::None) && self.takes_cpm(device)
    }

    const fn takes_cpm(&self, device: &DeviceView) -> bool {
        let has_cpm =
            device.icsi & self.accepted != 0 || (!device.speaks && self.assume_when_silent);
        has_cpm && !device.refuses_invite
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            barred: false,
            stopped: false,
            accepted: u32::MAX,
            min_remaining: Duration::from_secs(10),
            assume_when_silent: false,
            allow_roaming: true,
            fanout: Fanout::All,
            devices_max: 8,
            line: 0,
        }
    }
}

/// The moment of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic.
    pub now: Timestamp,
    /// Wall clock, for quiet hours.
    pub wall: UnixMillis,
    /// INVITEs the next hop may get now (rate and overload verdict).
    pub tokens: u32,
}

/// A decision, with its reasons. Reused.
#[derive(Debug)]
pub struct Selection {
    verdicts: [Verdict; CANDIDATES_MAX],
    len: usize,
    order: [u8; CANDIDATES_MAX],
    selected: usize,
    user: Option<Verdict>,
    again_at: Timestamp,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            verdicts: [Verdict::NotActive; CANDIDATES_MAX],
            len: 0,
            order: [0; CANDIDATES_MAX],
            selected: 0,
            user: None,
            again_at: Timestamp::NEVER,
        }
    }
}

impl Selection {
    /// The verdict on each device, in the order of the input.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts[..self.len]
    }

    /// Indices of the selected devices, best first.
    pub fn selected(&self) -> impl Iterator<Item = usize> + '_ {
        self.order[..self.selected]
            .iter()
            .map(|&index| usize::from(index))
    }

    /// The reason when the whole user was stopped.
    #[must_use]
    pub const fn user_verdict(&self) -> Option<Verdict> {
        self.user
    }

    /// When time alone may change the decision: the earliest end of a backoff or quarantine. A quiet
    /// hour's end is wall time and stands in the user verdict.
    #[must_use]
    pub const fn again_at(&self) -> Timestamp {
        self.again_at
    }

    fn stop(&mut self, verdict: Verdict, devices: usize) {
        self.user = Some(verdict);
        self.verdicts[..devices].fill(verdict);
    }
}

/// Decides for all `devices` (the first [`CANDIDATES_MAX`] of them), into `selection`.
pub fn evaluate(
    user: &UserView<'_>,
    devices: &[DeviceView],
    queue: &QueueView,
    policy: &Policy,
    moment: Moment,
    selection: &mut Selection,
) {
    let devices = &devices[..devices.len().min(CANDIDATES_MAX)];
    selection.len = devices.len();
    selection.selected = 0;
    selection.user = None;
    selection.again_at = Timestamp::NEVER;
    if let Some(verdict) = judge_user(user, queue, policy, moment.wall) {
        selection.stop(verdict, devices.len());
        return;
    }
    let mut survivors = 0;
    let mut busy = 0;
    for (index, device) in devices.iter().enumerate() {
        let fits = queue.fitting & (1 << index) != 0;
        let verdict = judge_device(user, device, fits, policy, moment.now);
        selection.verdicts[index] = verdict;
        match verdict {
            Verdict::Selected => {
                selection.order[survivors] = small(index);
                survivors += 1;
            }
            Verdict::BusyPush => busy += 1,
            Verdict::Backoff { until } | Verdict::Quarantine { until } => {
                selection.again_at = selection.again_at.min(until);
            }
            Verdict::UserNotServed
            | Verdict::UserBarred
            | Verdict::UserPrefHold { .. }
            | Verdict::NoMessage
            | Verdict::Stopped
            | Verdict::NotActive
            | Verdict::NoGruu
            | Verdict::NoCpm
            | Verdict::PrefExcluded
            | Verdict::Roaming
            | Verdict::Wait
            | Verdict::NothingForIt
            | Verdict::NoPlace
            | Verdict::FanoutCut
            | Verdict::Throttled => {}
        }
    }
    rank(user, devices, &mut selection.order[..survivors]);
    let survivors = seat(queue, survivors, moment.now, selection);
    cut(policy, (survivors, busy), moment.tokens, selection);
}

/// Steps 1 to 5.
fn judge_user(
    user: &UserView<'_>,
    queue: &QueueView,
    policy: &Policy,
    wall: UnixMillis,
) -> Option<Verdict> {
    if !user.served {
        Some(Verdict::UserNotServed)
    } else if user.barred || policy.barred {
        Some(Verdict::UserBarred)
    } else if user.hold {
        Some(Verdict::UserPrefHold { until: None })
    } else if user.quiet_until > wall {
        Some(Verdict::UserPrefHold {
            until: Some(user.quiet_until),
        })
    } else if queue.live == 0 {
        Some(Verdict::NoMessage)
    } else if policy.stopped {
        Some(Verdict::Stopped)
    } else {
        None
    }
}

/// Steps 6 to 13.
fn judge_device(
    user: &UserView<'_>,
    device: &DeviceView,
    fits: bool,
    policy: &Policy,
    now: Timestamp,
) -> Verdict {
    if !device.active || device.expires_at < now + policy.min_remaining {
        Verdict::NotActive
    } else if device.rule == GruuRule::None {
        Verdict::NoGruu
    } else if !policy.takes_cpm(device) {
        Verdict::NoCpm
    } else if user.deny.contains(&device.key)
        || !(user.allow.is_empty() || user.allow.contains(&device.key))
    {
        Verdict::PrefExcluded
    } else if device.roaming == Some(true) && !policy.allow_roaming {
        Verdict::Roaming
    } else if device.pushing {
        Verdict::BusyPush
    } else {
        match device.history {
            DeviceState::WaitRegistration { .. } => Verdict::Wait,
            DeviceState::Quarantine { until, .. } if until > now => Verdict::Quarantine { until },
            DeviceState::Backoff { until, .. } if until > now => Verdict::Backoff { until },
            DeviceState::Ready | DeviceState::Quarantine { .. } | DeviceState::Backoff { .. } => {
                if fits {
                    Verdict::Selected
                } else {
                    Verdict::NothingForIt
                }
            }
        }
    }
}

/// Step 14, the order of the survivors.
fn rank(user: &UserView<'_>, devices: &[DeviceView], order: &mut [u8]) {
    let rank = |&index: &u8| {
        let device = &devices[usize::from(index)];
        let first = user.priority != 0 && device.key == user.priority;
        // Ascending sort: the best must compare least.
        (
            !first,
            u16::MAX - device.q,
            core::cmp::Reverse(device.registered_at),
            index,
        )
    };
    order.sort_unstable_by_key(rank);
}

/// Takes those out, the last ones first, whose taking a message could not be remembered; how many are left.
fn seat(queue: &QueueView, survivors: usize, now: Timestamp, selection: &mut Selection) -> usize {
    if queue.unplaced == 0 {
        return survivors;
    }
    let (mut kept, mut places) = (0, queue.places);
    for place in 0..survivors {
        let index = selection.order[place];
        if queue.unplaced & 1 << index != 0 {
            let Some(left) = places.checked_sub(1) else {
                selection.verdicts[usize::from(index)] = Verdict::NoPlace;
                selection.again_at = selection.again_at.min(now + PLACE_AGAIN);
                continue;
            };
            places = left;
        }
        selection.order[kept] = index;
        kept += 1;
    }
    kept
}

/// Steps 14 and 15: cuts at the limits. Open pushes use up places.
fn cut(policy: &Policy, (survivors, busy): (usize, usize), tokens: u32, selection: &mut Selection) {
    let wanted = match policy.fanout {
        Fanout::All => usize::from(policy.devices_max),
        Fanout::First => usize::from(policy.devices_max.min(1)),
        Fanout::Best(n) => usize::from(n.min(policy.devices_max)),
    };
    let places = wanted.saturating_sub(busy);
    let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
    for (place, &index) in selection.order[..survivors].iter().enumerate() {
        if place >= places {
            selection.verdicts[usize::from(index)] = Verdict::FanoutCut;
        } else if place >= tokens {
            selection.verdicts[usize::from(index)] = Verdict::Throttled;
        }
    }
    selection.selected = survivors.min(places).min(tokens);
}

fn small(index: usize) -> u8 {
    u8::try_from(index).expect("at most 32 candidates")
}

/// What a trigger leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decide {
    /// Decide now.
    Now,
    /// A decision is due then; arm a timer, unless one is armed for that moment.
    At(Timestamp),
}

/// Spaces a user's decisions: the first trigger decides at once, those in the window after a
/// decision make one more at its end (SEL-2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debounce {
    window_ends: Timestamp,
    pending: bool,
}

impl Debounce {
    /// Something changed at `now`. After [`Decide::Now`] the window of `window` runs.
    pub fn trigger(&mut self, now: Timestamp, window: Duration) -> Decide {
        if now < self.window_ends {
            self.pending = true;
            return Decide::At(self.window_ends);
        }
        self.decided(now, window);
        Decide::Now
    }

    /// The timer of [`Decide::At`] fired: whether to decide now.
    pub fn handle_timeout(&mut self, now: Timestamp, window: Duration) -> bool {
        let due = self.pending && now >= self.window_ends;
        if due {
            self.decided(now, window);
        }
        due
    }

    /// When [`Debounce::handle_timeout`] has work.
    #[must_use]
    pub const fn deadline(&self) -> Timestamp {
        if self.pending {
            self.window_ends
        } else {
            Timestamp::NEVER
        }
    }

    fn decided(&mut self, now: Timestamp, window: Duration) {
        self.window_ends = now + window;
        self.pending = false;
    }
}

crate::fold_fields!(Debounce {
    window_ends,
    pending
});

#[cfg(test)]
mod tests;
