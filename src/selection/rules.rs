//! What the provider and the users want, compiled (inputs S and U of section 9.3). Layer 3.
//!
//! A [`RuleBook`] holds policies of the provider and preferences of users, each once, and says which of
//! them is whose: an exact identity beats a pattern, and of several patterns the first counts. A user
//! looks itself up once per edition of the book and keeps two small numbers ([`Ruling`]), so that no
//! decision compares texts, and a user of whom the book says nothing costs one comparison of numbers.
//!
//! Not here: the file the rules are written in (`config`), decisions (`selection`).

use crate::base::octets;
use crate::base::time::UnixMillis;
use crate::selection::Policy;
use crate::store::op::MediaLimit;

/// Policies, and likewise preferences, of one book.
pub const RULES_MAX: usize = u16::MAX as usize;
/// Patterns of one book, policies and preferences each.
pub const PATTERNS_MAX: usize = 1024;
/// Identities named in one book, policies and preferences each.
pub const IDENTITIES_MAX: usize = 1_000_000;
/// Instances in one list of a preference.
pub const INSTANCES_MAX: usize = 32;
/// Quiet hours of one preference.
pub const QUIET_MAX: usize = 16;

const DAY_MIN: u32 = 24 * 60;
const MINUTE_MS: u64 = 60_000;

/// A stretch of the day, on some days of the week, in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// Days on which it begins: bit 0 is Monday.
    pub days: u8,
    /// First minute of the day.
    pub from_min: u16,
    /// Minute of the day at which it ends; at or before `from_min` it ends on the next day.
    pub to_min: u16,
}

impl Quiet {
    /// Every day of the week.
    pub const DAILY: u8 = 0x7f;

    /// When the stretch that holds the local minute `now_min` (counted from 1970) ends, in the same
    /// count.
    fn end_of(self, now_min: u32) -> Option<u32> {
        let length = match self.to_min.checked_sub(self.from_min) {
            Some(length) if length > 0 => u32::from(length),
            Some(_) | None => DAY_MIN + u32::from(self.to_min) - u32::from(self.from_min),
        };
        let today = now_min / DAY_MIN;
        // It began today or, when it runs past midnight, yesterday.
        [Some(today), today.checked_sub(1)]
            .into_iter()
            .flatten()
            .filter(|day| self.days >> weekday(*day) & 1 == 1)
            .map(|day| day * DAY_MIN + u32::from(self.from_min))
            .find(|&start| start <= now_min && now_min < start + length)
            .map(|start| start + length)
    }
}

/// Monday is 0; the first of January 1970 was a Thursday.
const fn weekday(day: u32) -> u32 {
    (day + 3) % 7
}

/// A limit of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMedia {
    /// The device's key; zero is every device that has no limit of its own.
    pub device: u64,
    /// What it takes.
    pub limit: MediaLimit,
}

/// What a user wants. Default wants nothing special.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// Hold everything (`deferred.mode = hold`).
    pub hold: bool,
    /// When nothing is pushed.
    pub quiet: Vec<Quiet>,
    /// Minutes by which the local time of `quiet` is ahead of UTC.
    pub utc_offset_min: i16,
    /// Keys of the only devices allowed; empty allows all.
    pub allow: Vec<u64>,
    /// Keys of devices never to push to.
    pub deny: Vec<u64>,
    /// Key of the device to serve first; 0 for none.
    pub priority: u64,
    /// Limits of devices.
    pub media: Vec<DeviceMedia>,
    /// Where it was written, for who reads an explanation.
    pub line: u32,
}

impl Preference {
    /// The end of the quiet hours that hold at `wall`; zero when none do.
    #[must_use]
    pub fn quiet_until(&self, wall: UnixMillis) -> UnixMillis {
        let offset = i64::from(self.utc_offset_min);
        let minute = i64::try_from(wall.0 / MINUTE_MS).unwrap_or(i64::MAX);
        let local = u32::try_from(minute.saturating_add(offset)).unwrap_or(0);
        let ends = self.quiet.iter().filter_map(|quiet| quiet.end_of(local));
        ends.max().map_or_else(UnixMillis::default, |end| {
            let minutes = (i64::from(end) - offset).unsigned_abs();
            UnixMillis(minutes * MINUTE_MS)
        })
    }

    /// Whether messages may go to `device` at all.
    #[must_use]
    pub fn admits(&self, device: u64) -> bool {
        !self.deny.contains(&device) && (self.allow.is_empty() || self.allow.contains(&device))
    }

    /// Which messages `device` takes.
    #[must_use]
    pub fn limit_of(&self, device: u64) -> MediaLimit {
        let of = |key| self.media.iter().find(move |media| media.device == key);
        of(device)
            .or_else(|| of(0))
            .map_or(MediaLimit::NONE, |media| media.limit)
    }
}

/// Which rules of the book are a user's, as of one edition of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// The edition; zero is none, so that a new user looks itself up.
    pub edition: u32,
    /// Index of the policy; zero is the provider's own.
    pub policy: u16,
    /// Index of the preference; zero is none.
    pub preference: u16,
}

/// Why a rule was not taken into the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleError {
    /// More rules than the book has room for.
    Full,
    /// An identity that another rule of the same kind names too.
    Twice,
}

/// Whose a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose<'a> {
    /// Of the user with this canonical identity.
    Identity(&'a [u8]),
    /// Of the users whose canonical identity this fits; `*` stands for any octets.
    Pattern(&'a [u8]),
}

/// Who has which rule of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scope {
    /// Sorted by identity once the book is sealed.
    exact: Vec<(Box<[u8]>, u16)>,
    /// In the order of the file.
    patterns: Vec<(Box<[u8]>, u16)>,
}

impl Scope {
    fn add(&mut self, whose: Whose<'_>, rule: u16) -> Result<(), RuleError> {
        let (list, text, max) = match whose {
            Whose::Identity(text) => (&mut self.exact, text, IDENTITIES_MAX),
            Whose::Pattern(text) => (&mut self.patterns, text, PATTERNS_MAX),
        };
        if list.len() == max {
            return Err(RuleError::Full);
        }
        list.push((text.into(), rule));
        Ok(())
    }

    fn seal(&mut self) -> Result<(), RuleError> {
        self.exact.sort_unstable();
        let twice = self.exact.windows(2).any(|pair| pair[0].0 == pair[1].0);
        if twice { Err(RuleError::Twice) } else { Ok(()) }
    }

    const fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }

    fn find_exact(&self, identity: &[u8]) -> Option<u16> {
        let at = self
            .exact
            .binary_search_by(|(known, _)| known.as_ref().cmp(identity))
            .ok()?;
        Some(self.exact[at].1)
    }

    /// The rule of a user with these identities.
    fn find<'a>(&self, identities: impl Iterator<Item = &'a [u8]> + Clone) -> u16 {
        if self.is_empty() {
            return 0;
        }
        let mut exact = identities.clone();
        if let Some(rule) = exact.find_map(|identity| self.find_exact(identity)) {
            return rule;
        }
        let fits = |(pattern, _): &&(Box<[u8]>, u16)| {
            let mut identities = identities.clone();
            identities.any(|identity| octets::glob(pattern, identity))
        };
        self.patterns.iter().find(fits).map_or(0, |&(_, rule)| rule)
    }
}

/// The rules in force; see the module. Immutable once sealed, shared by the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleBook {
    edition: u32,
    policies: Vec<Policy>,
    preferences: Vec<Preference>,
    barred: Scope,
    policy_of: Scope,
    preference_of: Scope,
}

/// Index of the policy of barred users; what else they are given does not count.
const BARRED: u16 = 1;

impl RuleBook {
    /// A book in which `provider` holds for all users, and nobody wants anything special.
    #[must_use]
    pub fn new(provider: Policy) -> Self {
        Self {
            edition: 1,
            policies: vec![
                provider,
                Policy {
                    barred: true,
                    ..provider
                },
            ],
            preferences: vec![Preference::default()],
            barred: Scope::default(),
            policy_of: Scope::default(),
            preference_of: Scope::default(),
        }
    }

    /// Takes in a policy for some users in place of the provider's own.
    ///
    /// # Errors
    /// [`RuleError::Full`].
    pub fn add_policy(&mut self, policy: Policy) -> Result<u16, RuleError> {
        let rule = u16::try_from(self.policies.len()).map_err(|_| RuleError::Full)?;
        self.policies.push(policy);
        Ok(rule)
    }

    /// Takes in what some users want.
    ///
    /// # Errors
    /// [`RuleError::Full`].
    pub fn add_preference(&mut self, preference: Preference) -> Result<u16, RuleError> {
        let rule = u16::try_from(self.preferences.len()).map_err(|_| RuleError::Full)?;
        self.preferences.push(preference);
        Ok(rule)
    }

    /// The policy numbered `rule` is for `whose`.
    ///
    /// # Errors
    /// [`RuleError::Full`].
    pub fn give_policy(&mut self, whose: Whose<'_>, rule: u16) -> Result<(), RuleError> {
        self.policy_of.add(whose, rule)
    }

    /// The preference numbered `rule` is of `whose`.
    ///
    /// # Errors
    /// [`RuleError::Full`].
    pub fn give_preference(&mut self, whose: Whose<'_>, rule: u16) -> Result<(), RuleError> {
        self.preference_of.add(whose, rule)
    }

    /// Bars users, whatever other rules say.
    ///
    /// # Errors
    /// [`RuleError::Full`].
    pub fn bar(&mut self, whose: Whose<'_>) -> Result<(), RuleError> {
        self.barred.add(whose, BARRED)
    }

    /// Ends the writing: from here on users can be looked up.
    ///
    /// # Errors
    /// [`RuleError::Twice`] when two rules of a kind name one identity.
    pub fn seal(&mut self) -> Result<(), RuleError> {
        self.barred.seal()?;
        self.policy_of.seal()?;
        self.preference_of.seal()
    }

    /// Makes this the edition after `before`, so that users look themselves up again.
    pub fn follow(&mut self, before: &Self) {
        // Zero is no edition.
        self.edition = before.edition.checked_add(1).unwrap_or(1);
    }

    /// Counts up with each change.
    #[must_use]
    pub const fn edition(&self) -> u32 {
        self.edition
    }

    /// Whether every user has the same rules.
    #[must_use]
    pub const fn is_uniform(&self) -> bool {
        self.barred.is_empty() && self.policy_of.is_empty() && self.preference_of.is_empty()
    }

    /// The rules of a user with these canonical identities.
    #[must_use]
    pub fn look_up<'a>(&self, identities: impl Iterator<Item = &'a [u8]> + Clone) -> Ruling {
        let policy = match self.barred.find(identities.clone()) {
            0 => self.policy_of.find(identities.clone()),
            barred => barred,
        };
        Ruling {
            edition: self.edition,
            policy,
            preference: self.preference_of.find(identities),
        }
    }

    /// The provider's policy towards a user; of another edition, the provider's own.
    #[must_use]
    pub fn policy(&self, ruling: Ruling) -> &Policy {
        let rule = if ruling.edition == self.edition {
            usize::from(ruling.policy)
        } else {
            0
        };
        self.policies.get(rule).unwrap_or(&self.policies[0])
    }

    /// What a user wants, when that is anything special.
    #[must_use]
    pub fn preference(&self, ruling: Ruling) -> Option<&Preference> {
        if ruling.preference == 0 || ruling.edition != self.edition {
            return None;
        }
        self.preferences.get(usize::from(ruling.preference))
    }

    /// Which messages of the user a device takes.
    #[must_use]
    pub fn limit_of(&self, ruling: Ruling, device: u64) -> MediaLimit {
        self.preference(ruling)
            .map_or(MediaLimit::NONE, |preference| preference.limit_of(device))
    }

    /// Policies beside the provider's own, and preferences.
    #[must_use]
    pub const fn counts(&self) -> (usize, usize) {
        (self.policies.len() - 2, self.preferences.len() - 1)
    }
}

impl Default for RuleBook {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

crate::fold_fields!(Ruling {
    edition,
    policy,
    preference
});

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-11-25, a Wednesday, 12:00:00 UTC.
    const NOON: u64 = 1_795_608_000;

    fn at(hour: u64, minute: u64) -> UnixMillis {
        UnixMillis::from_secs(NOON - 12 * 3600 + hour * 3600 + minute * 60)
    }

    fn quiet(days: u8, from: (u16, u16), to: (u16, u16)) -> Quiet {
        Quiet {
            days,
            from_min: from.0 * 60 + from.1,
            to_min: to.0 * 60 + to.1,
        }
    }

    #[test]
    fn an_identity_beats_patterns_and_the_first_pattern_the_others() {
        let mut book = RuleBook::default();
        let policies: Vec<u16> = (1..=3)
            .map(|devices_max| {
                book.add_policy(Policy {
                    devices_max,
                    ..Policy::default()
                })
                .unwrap()
            })
            .collect();
        book.give_policy(Whose::Pattern(b"*@test.example"), policies[0])
            .unwrap();
        book.give_policy(Whose::Pattern(b"a*"), policies[1])
            .unwrap();
        book.give_policy(Whose::Identity(b"abba@test.example"), policies[2])
            .unwrap();
        book.seal().unwrap();
        let max = |identities: &[&[u8]]| {
            let ruling = book.look_up(identities.iter().copied());
            book.policy(ruling).devices_max
        };
        assert_eq!(max(&[b"abba@test.example"]), 3);
        assert_eq!(max(&[b"anna@test.example"]), 1);
        assert_eq!(max(&[b"anna@other.example"]), 2);
        assert_eq!(max(&[b"bert@other.example"]), Policy::default().devices_max);
        assert_eq!(
            max(&[b"+1555", b"abba@test.example"]),
            3,
            "any identity of the user counts"
        );
        book.bar(Whose::Pattern(b"*@test.example")).unwrap();
        book.seal().unwrap();
        let ruling = book.look_up([&b"abba@test.example"[..]].into_iter());
        assert!(book.policy(ruling).barred, "barring beats all");
        let stale = Ruling {
            edition: book.edition() + 1,
            policy: 3,
            preference: 0,
        };
        assert_eq!(book.policy(stale), &Policy::default());
    }

    #[test]
    fn one_identity_in_two_rules_is_refused() {
        let mut book = RuleBook::default();
        let rule = book.add_preference(Preference::default()).unwrap();
        book.give_preference(Whose::Identity(b"+1555"), rule)
            .unwrap();
        book.give_preference(Whose::Identity(b"+1555"), rule)
            .unwrap();
        assert_eq!(book.seal(), Err(RuleError::Twice));
    }

    // Proves: PUSH-0
    #[test]
    fn quiet_hours_end_when_the_clock_of_the_user_says() {
        let night = quiet(Quiet::DAILY, (22, 0), (7, 0));
        let mut preference = Preference {
            quiet: vec![night],
            ..Preference::default()
        };
        let until = |preference: &Preference, wall| {
            let until = preference.quiet_until(wall);
            (until != UnixMillis::default()).then_some(until)
        };
        assert_eq!(until(&preference, at(21, 59)), None);
        assert_eq!(until(&preference, at(22, 0)), Some(at(31, 0)));
        assert_eq!(until(&preference, at(23, 59)), Some(at(31, 0)));
        assert_eq!(until(&preference, at(24, 0)), Some(at(31, 0)));
        assert_eq!(until(&preference, at(6, 59)), Some(at(7, 0)));
        assert_eq!(until(&preference, at(7, 0)), None);
        // An hour ahead of UTC, everything is an hour earlier; behind it, later.
        preference.utc_offset_min = 60;
        assert_eq!(until(&preference, at(21, 0)), Some(at(30, 0)));
        assert_eq!(until(&preference, at(6, 0)), None);
        preference.utc_offset_min = -210;
        assert_eq!(until(&preference, at(10, 29)), Some(at(10, 30)));
        assert_eq!(until(&preference, at(10, 30)), None);
    }

    #[test]
    fn quiet_hours_begin_on_their_days_and_the_longest_counts() {
        let wednesday = 1 << 2;
        let mut preference = Preference {
            quiet: vec![quiet(wednesday, (22, 0), (7, 0))],
            ..Preference::default()
        };
        assert_eq!(preference.quiet_until(at(23, 0)), at(31, 0));
        assert_eq!(preference.quiet_until(at(24 + 3, 0)), at(31, 0), "Thursday");
        assert_eq!(preference.quiet_until(at(3, 0)), UnixMillis::default());
        assert_eq!(
            preference.quiet_until(at(24 + 23, 0)),
            UnixMillis::default()
        );
        preference
            .quiet
            .push(quiet(Quiet::DAILY, (23, 30), (8, 15)));
        assert_eq!(preference.quiet_until(at(23, 45)), at(32, 15));
        // From one hour to the same is the whole day round.
        preference.quiet = vec![quiet(wednesday, (9, 0), (9, 0))];
        assert_eq!(preference.quiet_until(at(8, 59)), UnixMillis::default());
        assert_eq!(preference.quiet_until(at(9, 0)), at(33, 0));
        assert_eq!(preference.quiet_until(at(32, 59)), at(33, 0));
        assert_eq!(preference.quiet_until(at(33, 0)), UnixMillis::default());
    }

    #[test]
    fn the_limit_of_a_device_is_its_own_or_that_of_all() {
        let limit = |bytes_max| MediaLimit {
            bytes_max,
            ..MediaLimit::NONE
        };
        let preference = Preference {
            media: vec![
                DeviceMedia {
                    device: 0,
                    limit: limit(10),
                },
                DeviceMedia {
                    device: 7,
                    limit: limit(5),
                },
            ],
            ..Preference::default()
        };
        assert_eq!(preference.limit_of(7), limit(5));
        assert_eq!(preference.limit_of(8), limit(10));
        assert_eq!(Preference::default().limit_of(8), MediaLimit::NONE);
    }
}
