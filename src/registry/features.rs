//! Feature parameters of a contact, read as RFC 3840 means them (REG-7, SEL-5), and the handset dialect
//! they speak for. Layer 3.

use crate::base::octets;

/// What a contact's parameters say about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Bit i: the i-th accepted ICSI is registered.
    pub icsi: u32,
    /// A `methods` parameter was given that lacks INVITE.
    pub refuses_invite: bool,
    /// At least one feature parameter was given.
    pub speaks: bool,
    /// Bit i: the i-th pattern of features is fitted.
    pub marks: u8,
}

/// Patterns of features that dialects look for: one bit each.
pub const MARKS_MAX: usize = 8;
/// Patterns of User-Agents that dialects look for: one bit each.
pub const AGENTS_MAX: usize = 16;

/// A parameter of a contact that a dialect looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeaturePattern {
    /// Its name, whatever its case.
    pub name: Vec<u8>,
    /// What its value without quotes must fit; `*` stands for any octets.
    pub value: Vec<u8>,
}

/// Bits of the `patterns` that one parameter fits.
pub(crate) fn marks_of(name: &[u8], value: &[u8], patterns: &[FeaturePattern]) -> u8 {
    let mut marks = 0;
    for (bit, pattern) in patterns.iter().enumerate().take(MARKS_MAX) {
        if name.eq_ignore_ascii_case(&pattern.name) && octets::glob(&pattern.value, unquoted(value))
        {
            marks |= 1 << bit;
        }
    }
    marks
}

/// User-Agents that dialects look for, in lower case; `*` stands for any octets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentPatterns(pub Vec<Vec<u8>>);

impl AgentPatterns {
    /// Bits of the patterns that `agent` fits, whatever its case.
    #[must_use]
    pub fn fitting(&self, agent: &[u8]) -> u16 {
        let agent = agent.to_ascii_lowercase();
        let mut found = 0;
        for (bit, pattern) in self.0.iter().enumerate().take(AGENTS_MAX) {
            if octets::glob(pattern, &agent) {
                found |= 1 << bit;
            }
        }
        found
    }
}

/// When a device speaks a dialect: every condition that is there must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialectRule {
    /// Index of the dialect.
    pub dialect: u8,
    /// It registered one of these ICSIs; zero is no condition.
    pub icsi: u32,
    /// It registered none of these.
    pub lacks: u32,
    /// It fits one of these patterns of features; zero is no condition.
    pub marks: u8,
    /// Its User-Agent fits one of these patterns; zero is no condition.
    pub agents: u16,
}

/// Which dialect a device speaks: that of the first rule that holds, else the plain one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialectRules {
    /// The rules, in order.
    pub rules: Vec<DialectRule>,
    /// The features that they look for. At most [`MARKS_MAX`].
    pub features: Vec<FeaturePattern>,
}

impl DialectRules {
    /// Index of the dialect of a device.
    #[must_use]
    #[inline]
    pub fn pick(&self, features: Features, agents: u16) -> u8 {
        let holds = |rule: &&DialectRule| {
            (rule.icsi == 0 || rule.icsi & features.icsi != 0)
                && rule.lacks & features.icsi == 0
                && (rule.marks == 0 || rule.marks & features.marks != 0)
                && (rule.agents == 0 || rule.agents & agents != 0)
        };
        self.rules.iter().find(holds).map_or(0, |rule| rule.dialect)
    }
}

/// Most ICSIs a policy can accept: one bit each.
pub const ICSIS_MAX: usize = 32;
/// ICSI lists remembered.
const LISTS: usize = 4;
/// Longest ICSI list remembered, octets.
const LIST_BYTES_MAX: usize = 1024;

/// What ICSI lists said that were read lately. Phones of one network mostly show the same list, so
/// comparing comes before reading. For one set of accepted ICSIs.
#[derive(Debug, Default)]
pub struct KnownLists {
    lists: [(Vec<u8>, u32); LISTS],
    next: usize,
}

impl KnownLists {
    /// Bits of the `accepted` ICSIs that the list `value` has, quotes and escapes included.
    pub fn icsi(&mut self, value: &[u8], accepted: &[Vec<u8>]) -> u32 {
        if let Some((_, icsi)) = self.lists.iter().find(|(list, _)| list == value) {
            return *icsi;
        }
        let icsi = read_icsi(value, accepted);
        if value.len() <= LIST_BYTES_MAX {
            let (list, known) = &mut self.lists[self.next];
            list.clear();
            list.extend_from_slice(value);
            *known = icsi;
            self.next = (self.next + 1) % LISTS;
        }
        icsi
    }
}

fn read_icsi(value: &[u8], accepted: &[Vec<u8>]) -> u32 {
    let mut found = 0;
    for item in unquoted(value).split(|&byte| byte == b',') {
        for (bit, icsi) in accepted.iter().take(ICSIS_MAX).enumerate() {
            if decoded_equals(item.trim_ascii(), icsi) {
                found |= 1 << bit;
            }
        }
    }
    found
}

impl Features {
    /// Takes one parameter into account. Repeated parameters add up.
    pub fn add(&mut self, name: &[u8], value: &[u8], accepted: &[Vec<u8>]) {
        if name.eq_ignore_ascii_case(b"+g.3gpp.icsi-ref") {
            self.speaks = true;
            self.icsi |= read_icsi(value, accepted);
        } else if name.eq_ignore_ascii_case(b"methods") {
            self.speaks = true;
            self.refuses_invite = !unquoted(value)
                .split(|&byte| byte == b',')
                .any(|method| decoded_equals(method.trim_ascii(), b"INVITE"));
        } else if !is_plain_parameter(name) {
            self.speaks = true;
        }
    }
}

/// Contact parameters that are no feature tags.
fn is_plain_parameter(name: &[u8]) -> bool {
    const PLAIN: [&[u8]; 9] = [
        b"+sip.instance",
        b"reg-id",
        b"expires",
        b"q",
        b"ob",
        b"pub-gruu",
        b"temp-gruu",
        b"temp-gruu-cookie",
        b"received",
    ];
    PLAIN.iter().any(|plain| name.eq_ignore_ascii_case(plain))
}

/// `value` without one pair of outer quotes.
pub(crate) fn unquoted(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// Whether `item` equals `want` after percent-decoding, ignoring case.
fn decoded_equals(item: &[u8], want: &[u8]) -> bool {
    // ICSIs differ at their ends, so most pairs are told apart by one octet.
    if let (Some(&last), Some(wanted)) = (item.last(), want.last())
        && last.is_ascii_alphabetic()
        && !is_escaped_end(item)
        && !last.eq_ignore_ascii_case(wanted)
    {
        return false;
    }
    let mut at = 0;
    for &byte in want {
        let Some(&raw) = item.get(at) else {
            return false;
        };
        let (decoded, width) = match (raw, item.get(at + 1..at + 3)) {
            (b'%', Some(&[high, low])) => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                (_, _) => (raw, 1),
            },
            (_, _) => (raw, 1),
        };
        if !decoded.eq_ignore_ascii_case(&byte) {
            return false;
        }
        at += width;
    }
    at == item.len()
}

/// Whether the last octet belongs to a percent escape.
fn is_escaped_end(item: &[u8]) -> bool {
    item.len() >= 3 && item[item.len() - 3] == b'%'
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

crate::fold_fields!(Features {
    icsi,
    refuses_invite,
    speaks,
    marks
});

#[cfg(test)]
mod tests {
    use super::*;

    fn read(params: &[(&str, &str)]) -> Features {
        let accepted = [
            b"urn:urn-7:x.deferred".to_vec(),
            b"urn:urn-7:x.largemsg".to_vec(),
        ];
        let mut features = Features::default();
        for (name, value) in params {
            features.add(name.as_bytes(), value.as_bytes(), &accepted);
        }
        features
    }

    // Proves: REG-7
    #[test]
    fn feature_values_are_decoded_and_compared_without_case() {
        for value in [
            "\"urn%3Aurn-7%3Ax.deferred\"",
            "\"urn%3aurn-7%3aX.Deferred\"",
            "urn:urn-7:x.deferred",
            "\"urn%3Aurn-7%3Ax.msg, urn%3Aurn-7%3Ax.deferred\"",
        ] {
            assert_eq!(read(&[("+g.3gpp.ICSI-ref", value)]).icsi, 1, "{value}");
        }
        for value in [
            "\"urn%3Aurn-7%3Ax.deferred2\"",
            "\"urn%3Aurn-7%3Ax.defer\"",
            "",
            "%3",
            "!",
        ] {
            assert_eq!(read(&[("+g.3gpp.icsi-ref", value)]).icsi, 0, "{value}");
        }
        let twice = [
            ("+g.3gpp.icsi-ref", "\"urn%3Aurn-7%3Ax.deferred\""),
            ("+g.3gpp.icsi-ref", "\"urn%3Aurn-7%3Ax.largemsg\""),
        ];
        assert_eq!(
            read(&twice).icsi,
            3,
            "a repeated parameter is read as the union"
        );
    }

    // Proves: REG-7
    #[test]
    fn a_list_that_is_remembered_says_what_it_said_when_read() {
        let accepted = [b"urn:a".to_vec(), b"urn:b".to_vec()];
        let mut known = KnownLists::default();
        for _ in 0..3 {
            for (value, want) in [
                ("", 0),
                ("\"urn%3Aa\"", 1),
                ("\"urn%3Ab\"", 2),
                ("urn%3Ab,urn:a", 3),
                ("urn%3Ac", 0),
                ("URN:A", 1),
                ("URN:B", 2),
            ] {
                assert_eq!(known.icsi(value.as_bytes(), &accepted), want, "{value}");
            }
        }
    }

    // Proves: AMB-4
    #[test]
    fn the_first_rule_whose_conditions_all_hold_names_the_dialect() {
        let rules = DialectRules {
            rules: vec![
                DialectRule {
                    dialect: 1,
                    marks: 1,
                    agents: 2,
                    ..DialectRule::default()
                },
                DialectRule {
                    dialect: 2,
                    icsi: 0b110,
                    lacks: 0b001,
                    ..DialectRule::default()
                },
            ],
            features: vec![FeaturePattern {
                name: b"+g.gsma.rcs.cpm.pager-large".to_vec(),
                value: b"*".to_vec(),
            }],
        };
        let features = |icsi, marks| Features {
            icsi,
            marks,
            ..Features::default()
        };
        assert_eq!(rules.pick(features(0b001, 0), 0), 0);
        assert_eq!(rules.pick(features(0b010, 0), 0), 2);
        assert_eq!(
            rules.pick(features(0b011, 0), 0),
            0,
            "it has what it must lack"
        );
        assert_eq!(rules.pick(features(0b100, 1), 1), 2, "another agent");
        assert_eq!(rules.pick(features(0b100, 1), 2), 1);
        assert_eq!(DialectRules::default().pick(features(7, 7), 7), 0);
        let mark = |name: &[u8], value: &[u8]| marks_of(name, value, &rules.features);
        assert_eq!(mark(b"+G.gsma.rcs.cpm.pager-large", b""), 1);
        assert_eq!(mark(b"+g.gsma.rcs.cpm.pager", b""), 0);
        let agents = AgentPatterns(vec![b"rcs-client/*".to_vec(), b"*acme*".to_vec()]);
        assert_eq!(agents.fitting(b"RCS-client/1 ACME/2"), 3);
        assert_eq!(agents.fitting(b"other"), 0);
    }

    // Proves: SEL-5
    #[test]
    fn methods_without_invite_refuse_a_session() {
        assert!(read(&[("methods", "\"MESSAGE,OPTIONS\"")]).refuses_invite);
        assert!(!read(&[("methods", "\"MESSAGE, invite\"")]).refuses_invite);
        assert!(!read(&[]).refuses_invite);
    }

    #[test]
    fn a_contact_with_bookkeeping_parameters_only_is_silent() {
        assert!(!read(&[("+sip.instance", "\"<urn:x>\""), ("reg-id", "1")]).speaks);
        assert!(read(&[("audio", "")]).speaks);
    }
}
