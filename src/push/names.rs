//! Host names of routes: what the configuration says, what was looked up, and for how long that holds
//! (NH-2). Layer 3.
//!
//! The core never waits for a name. [`Names::look`] answers from what is known; what is not known
//! becomes a [`NameQuery`] for the driver, and its answer comes as an input. A name that was looked up
//! stays good for a fixed time, since the system's resolver does not tell the TTL of its records; then
//! it is asked about again, and what was known serves until the answer is there.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

use crate::base::surface::NameQuery;
use crate::base::time::Timestamp;

/// Most names that are remembered; the one looked up longest ago makes room.
pub const NAMES_MAX: usize = 256;
/// Most addresses kept of one name.
pub const ADDRESSES_MAX: usize = 4;
/// Longest name that is looked up, octets (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// How long an answer may take.
pub const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Options of name resolution.
#[derive(Clone, Debug)]
pub struct NameOptions {
    /// Names whose addresses are configured: these are never looked up.
    pub hosts: Vec<(String, Vec<IpAddr>)>,
    /// Whether other names are looked up.
    pub resolve: bool,
    /// How long an answer holds.
    pub ttl: Duration,
    /// How long a name nobody knows is not asked about again.
    pub negative_ttl: Duration,
}

impl Default for NameOptions {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            resolve: false,
            ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(30),
        }
    }
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Its addresses, best first; at least one.
    Known(&'a [IpAddr]),
    /// Nothing yet: the answer is under way.
    Asked,
    /// It has no address, or names are not looked up.
    Absent,
}

#[derive(Debug)]
struct Entry {
    name: String,
    addresses: Vec<IpAddr>,
    /// Until when `addresses`, even if empty, need no new query.
    until: Timestamp,
    /// A query is under way; when it was asked.
    asked: Option<Timestamp>,
    /// Names the query under way, so that the answer to an older one is nobody's.
    token: u64,
    fixed: bool,
}

/// The names of a shard.
#[derive(Debug)]
pub struct Names {
    options: NameOptions,
    entries: Vec<Entry>,
    queries: VecDeque<NameQuery>,
    next_token: u64,
    /// Names for which there was no place.
    crowded: u64,
}

impl Names {
    /// Knows what the configuration says.
    #[must_use]
    pub fn new(mut options: NameOptions) -> Self {
        let hosts = core::mem::take(&mut options.hosts);
        let fixed = hosts.into_iter().filter(|(_, list)| !list.is_empty());
        let entries = fixed.map(|(name, addresses)| Entry {
            name: name.to_ascii_lowercase(),
            addresses,
            until: Timestamp::NEVER,
            asked: None,
            token: 0,
            fixed: true,
        });
        Self {
            entries: entries.collect(),
            options,
            queries: VecDeque::new(),
            next_token: 1,
            crowded: 0,
        }
    }

    /// What is known of `name` (any case), and until when that stays so. Asks for what is not known.
    pub fn look(&mut self, now: Timestamp, name: &[u8]) -> (Found<'_>, Timestamp) {
        let index = match self.place(name) {
            Some(index) => index,
            None => match self.insert(now, name) {
                Some(index) => index,
                None => return (Found::Absent, now + self.options.negative_ttl),
            },
        };
        if self.entries[index].until <= now {
            self.ask(now, index);
        }
        let entry = &self.entries[index];
        if !entry.addresses.is_empty() {
            // Old news while new ones are under way are looked at again soon.
            return (Found::Known(&entry.addresses), entry.until);
        }
        match entry.asked {
            Some(_) => (Found::Asked, now),
            None => (Found::Absent, entry.until),
        }
    }

    fn place(&self, name: &[u8]) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.name.as_bytes().eq_ignore_ascii_case(name))
    }

    fn insert(&mut self, now: Timestamp, name: &[u8]) -> Option<usize> {
        let text = core::str::from_utf8(name).ok()?;
        if !self.options.resolve || text.is_empty() || text.len() > NAME_BYTES_MAX {
            return None;
        }
        let entry = Entry {
            name: text.to_ascii_lowercase(),
            addresses: Vec::new(),
            until: now,
            asked: None,
            token: 0,
            fixed: false,
        };
        if self.entries.len() < NAMES_MAX {
            self.entries.push(entry);
            return Some(self.entries.len() - 1);
        }
        let place = (0..self.entries.len())
            .filter(|&at| !self.entries[at].fixed && self.entries[at].asked.is_none())
            .min_by_key(|&at| self.entries[at].until);
        match place {
            Some(place) => self.entries[place] = entry,
            None => self.crowded += 1,
        }
        place
    }

    /// Times a name found all places taken by names that are being looked up.
    #[must_use]
    pub const fn crowded(&self) -> u64 {
        self.crowded
    }

    fn ask(&mut self, now: Timestamp, index: usize) {
        let entry = &mut self.entries[index];
        if entry.asked.is_some() || entry.fixed {
            return;
        }
        entry.asked = Some(now);
        entry.token = self.next_token;
        self.next_token += 1;
        self.queries.push_back(NameQuery {
            token: entry.token,
            name: entry.name.clone(),
        });
    }

    /// The next query for the driver.
    pub fn poll(&mut self) -> Option<NameQuery> {
        self.queries.pop_front()
    }

    /// The answer to a query. False when nobody asked, or it came too late.
    pub fn resolved(&mut self, now: Timestamp, token: u64, addresses: &[IpAddr]) -> bool {
        let asked = |entry: &&mut Entry| entry.asked.is_some() && entry.token == token;
        let Some(entry) = self.entries.iter_mut().find(asked) else {
            return false;
        };
        entry.asked = None;
        if addresses.is_empty() {
            // What was known before is better than nothing, for a while.
            entry.until = now + self.options.negative_ttl;
        } else {
            entry.addresses.clear();
            let first = addresses.iter().take(ADDRESSES_MAX);
            entry.addresses.extend(first);
            entry.until = now + self.options.ttl;
        }
        true
    }

    /// Gives up what nobody answered in time. True when there was such a name.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let mut any = false;
        for entry in &mut self.entries {
            if entry.asked.is_some_and(|at| at + ANSWER_MAX <= now) {
                entry.asked = None;
                entry.until = now + self.options.negative_ttl;
                any = true;
            }
        }
        any
    }

    /// When [`Self::expire`] has work next.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        let asked = self.entries.iter().filter_map(|entry| entry.asked);
        asked
            .min()
            .map_or(Timestamp::NEVER, |first| first + ANSWER_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(NameOptions {
            hosts: vec![("Edge.Example".into(), vec![ip(9)])],
            resolve: true,
            ..NameOptions::default()
        })
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn configured_hosts_are_never_asked_about() {
        let mut names = names();
        assert_eq!(names.look(at(1), b"edge.EXAMPLE").0, Found::Known(&[ip(9)]));
        assert_eq!(names.poll(), None);
    }

    #[test]
    fn an_answer_holds_for_its_time_and_serves_until_the_next() {
        let mut names = names();
        assert_eq!(names.look(at(1), b"s.example").0, Found::Asked);
        assert_eq!(names.look(at(1), b"S.example").0, Found::Asked);
        let query = names.poll().unwrap();
        assert_eq!(query.name, "s.example");
        assert_eq!(names.poll(), None, "asked once");
        assert!(names.resolved(at(2), query.token, &[ip(1), ip(2)]));
        assert!(!names.resolved(at(2), query.token, &[ip(3)]), "answered");
        let (found, until) = names.look(at(301), b"s.example");
        assert_eq!((found, until), (Found::Known(&[ip(1), ip(2)]), at(302)));
        assert_eq!(names.poll(), None);
        assert_eq!(
            names.look(at(302), b"s.example").0,
            Found::Known(&[ip(1), ip(2)]),
            "old news serve while new ones are fetched"
        );
        let again = names.poll().unwrap();
        assert!(names.resolved(at(303), again.token, &[]));
        let (found, until) = names.look(at(304), b"s.example");
        assert_eq!((found, until), (Found::Known(&[ip(1), ip(2)]), at(333)));
    }

    #[test]
    fn a_name_nobody_knows_is_left_alone_for_a_while() {
        let mut names = names();
        assert_eq!(names.look(at(1), b"gone.example").0, Found::Asked);
        assert_eq!(names.deadline(), at(4));
        assert!(!names.expire(at(3)));
        assert!(names.expire(at(4)));
        assert_eq!(names.look(at(5), b"gone.example").0, Found::Absent);
        let late = names.poll().unwrap();
        assert!(!names.resolved(at(6), late.token, &[ip(1)]), "too late");
        assert_eq!(names.look(at(34), b"gone.example").0, Found::Asked);
    }

    #[test]
    fn the_table_is_bounded_and_odd_names_are_no_queries() {
        let mut names = names();
        for number in 0..NAMES_MAX * 100 {
            let name = format!("n{number}.example");
            let (found, _) = names.look(at(1), name.as_bytes());
            let expected = if number < NAMES_MAX - 1 {
                Found::Asked
            } else {
                Found::Absent
            };
            assert_eq!(found, expected, "{number}");
        }
        assert_eq!(names.entries.len(), NAMES_MAX);
        assert_eq!(names.queries.len(), NAMES_MAX - 1);
        assert_eq!(names.crowded(), 99 * NAMES_MAX as u64 + 1);
        names.expire(at(9));
        assert_eq!(names.look(at(9), b"new.example").0, Found::Asked);
        assert_eq!(names.entries.len(), NAMES_MAX);
        assert_eq!(names.look(at(9), b"").0, Found::Absent);
        assert_eq!(names.look(at(9), &[b'a'; 300]).0, Found::Absent);
        assert_eq!(names.look(at(9), &[0xff]).0, Found::Absent);
        assert_eq!(
            names.crowded(),
            99 * NAMES_MAX as u64 + 1,
            "odd ones count not"
        );
    }
}
