//! What an operator is shown of a user: inputs of a decision, each device's verdict, and what the
//! device's past attempts came to (layer 3). Cold: it allocates, and no push waits for it.

use core::fmt::Write as _;
use core::time::Duration;

use crate::base::time::{Timestamp, UnixMillis};
use crate::push::campaign;
use crate::registry::device::LastOutcome;
use crate::registry::{Device, DeviceState, GruuRule, User};
use crate::selection::rules::{RuleBook, Ruling};
use crate::selection::{Moment, Selection, Verdict};
use crate::store::index::Mailbox;

/// One device of a [`UserReport`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// Its instance id, escaped; else its contact URI.
    pub instance: String,
    /// Its key.
    pub key: u64,
    /// By which rule it is reached.
    pub rule: GruuRule,
    /// Where its INVITE would go, escaped; empty when nowhere.
    pub target: String,
    /// It has an active binding.
    pub active: bool,
    /// How long its last binding lives on; `None` when the notifier said nothing.
    pub expires_in: Option<Duration>,
    /// Preference in thousandths.
    pub q: u16,
    /// Bits of the known ICSIs that it registered.
    pub icsi: u32,
    /// It roams, if known.
    pub roaming: Option<bool>,
    /// Index of its dialect.
    pub dialect: u8,
    /// What its past allows: a word of section 4.
    pub state: &'static str,
    /// Its contact URI, escaped.
    pub contact: String,
    /// The end of its last attempt.
    pub last: LastOutcome,
    /// How long ago that was; `None` when there was none.
    pub last_ago: Option<Duration>,
    /// Reason and Warning of that, escaped (RSP-32).
    pub note: String,
    /// Why it gets a push, or none.
    pub verdict: Verdict,
    /// Place among those pushed to, best first.
    pub place: Option<usize>,
    /// When time alone may change the verdict, wall clock.
    pub until: Option<UnixMillis>,
}

/// What a decision at one moment looks at, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserReport {
    /// Public identity, escaped.
    pub identity: String,
    /// Key of the mailbox, escaped.
    pub canonical: String,
    /// The rules that hold.
    pub ruling: Ruling,
    /// Bits of the ICSIs of which they want one.
    pub accepted: u32,
    /// Line of the policy file with the override that holds; zero for the provider's own policy.
    pub policy_line: u32,
    /// Line of the policy file with the user's preferences; zero when there are none.
    pub preference_line: u32,
    /// Messages held.
    pub messages: usize,
    /// The verdict on the whole user, when its devices were not looked at.
    pub verdict: Option<Verdict>,
    /// End of that, wall clock.
    pub until: Option<UnixMillis>,
    /// Its devices.
    pub devices: Vec<DeviceReport>,
}

impl UserReport {
    /// Devices that would get a push.
    #[must_use]
    pub fn selected(&self) -> usize {
        self.devices
            .iter()
            .filter(|device| device.verdict == Verdict::Selected)
            .count()
    }
}

/// What would be decided for a user with its queue; nothing is changed. The user's ruling counts as it
/// is: see [`campaign::ruling_of`].
#[must_use]
pub fn inspect(
    (user, mailbox): (&User, Option<&Mailbox>),
    rules: &RuleBook,
    moment: Moment,
) -> UserReport {
    let mut selection = Selection::default();
    campaign::weigh(
        (user, mailbox),
        rules,
        moment,
        &mut Vec::new(),
        &mut selection,
    );
    let places: Vec<usize> = selection.selected().collect();
    let devices = user.devices.iter().zip(selection.verdicts());
    let devices = devices
        .enumerate()
        .map(|(index, (device, &verdict))| {
            let place = places.iter().position(|&selected| selected == index);
            device_report(user, device, (verdict, place), moment)
        })
        .collect();
    let verdict = selection.user_verdict();
    UserReport {
        identity: escaped(&user.identity),
        canonical: escaped(&user.canonical),
        ruling: user.ruling,
        accepted: rules.policy(user.ruling).accepted,
        policy_line: rules.policy(user.ruling).line,
        preference_line: rules.preference(user.ruling).map_or(0, |rule| rule.line),
        messages: mailbox.map_or(0, Mailbox::len),
        verdict,
        until: verdict.and_then(|verdict| until(verdict, moment)),
        devices,
    }
}

fn device_report(
    user: &User,
    device: &Device,
    (verdict, place): (Verdict, Option<usize>),
    moment: Moment,
) -> DeviceReport {
    let name = match user.instance(device) {
        [] => user.contact_uri(device.key),
        instance => instance,
    };
    let target = user.target_for(device.key, &user.identity);
    let expires_in = (!device.expires_at.is_never()).then(|| device.expires_at.since(moment.now));
    DeviceReport {
        instance: escaped(name),
        key: device.key,
        rule: device.rule,
        target: target.map_or_else(String::new, |target| escaped(target.uri)),
        active: device.active,
        expires_in,
        q: device.q,
        icsi: device.features.icsi,
        roaming: device.roaming,
        dialect: device.dialect,
        state: match device.history {
            DeviceState::Ready => "ready",
            DeviceState::Backoff { .. } => "backoff",
            DeviceState::WaitRegistration { .. } => "wait",
            DeviceState::Quarantine { .. } => "quarantine",
        },
        contact: escaped(user.contact_uri(device.key)),
        last: device.last,
        last_ago: (device.last != LastOutcome::default()).then(|| moment.now.since(device.last.at)),
        note: escaped(device.note()),
        verdict,
        place,
        until: until(verdict, moment),
    }
}

/// When time alone may end what a verdict says.
fn until(verdict: Verdict, moment: Moment) -> Option<UnixMillis> {
    let wall = |at: Timestamp| {
        let wait = u64::try_from(at.since(moment.now).as_millis()).unwrap_or(u64::MAX);
        Some(UnixMillis(moment.wall.0.saturating_add(wait)))
    };
    match verdict {
        Verdict::UserPrefHold { until } => until,
        Verdict::Quarantine { until } | Verdict::Backoff { until } => wall(until),
        Verdict::UserNotServed
        | Verdict::UserBarred
        | Verdict::NoMessage
        | Verdict::Stopped
        | Verdict::NotActive
        | Verdict::NoGruu
        | Verdict::NoCpm
        | Verdict::PrefExcluded
        | Verdict::Roaming
        | Verdict::BusyPush
        | Verdict::Wait
        | Verdict::NothingForIt
        | Verdict::NoPlace
        | Verdict::FanoutCut
        | Verdict::Throttled
        | Verdict::Selected => None,
    }
}

/// Octets of a peer, fit to be shown: nothing of them can end a line, move a cursor or close a quote
/// (BAD-32).
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7e => out.push(char::from(byte)),
            _ => write!(out, "\\x{byte:02x}").expect("writing to a String cannot fail"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: BAD-32
    #[test]
    fn nothing_of_a_peer_ends_a_line_or_a_quote() {
        let shown = escaped(b"a\x1b[2J\r\n\"}\\ \xc3\xa9");
        assert_eq!(shown, r#"a\x1b[2J\x0d\x0a\"}\\ \xc3\xa9"#);
    }
}
