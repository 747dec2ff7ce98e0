//! Feature parameters of a contact, read as RFC 3840 means them (REG-7, SEL-5). Layer 3.

/// What a contact's parameters say about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Bit i: the i-th accepted ICSI is registered.
    pub icsi: u32,
    /// A `methods` parameter was given that lacks INVITE.
    pub refuses_invite: bool,
    /// At least one feature parameter was given.
    pub speaks: bool,
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
