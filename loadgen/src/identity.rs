//! Names of users, devices and messages.
//!
//! Every name carries its number in decimal digits at a fixed place, so a look-up is parsing digits
//! and an expectation is a copy with patched digits: no table, no hashing.

/// Digits of a user number: at most ten million users.
pub const USER_DIGITS: usize = 7;
/// Most users of a world.
pub const USERS_MAX: u32 = 10_000_000;
/// Most devices of a user.
pub const DEVICES_MAX: u8 = 8;
/// Digits of a message number.
pub const MESSAGE_DIGITS: usize = 12;

/// What every instance identifier starts with.
const INSTANCE_PREFIX: &str = "urn:uuid:00000000-0000-1000-8000-";

/// Writes `value` as decimal digits over the whole of `out`, with leading zeros.
#[inline]
pub fn put_digits(mut value: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Reads decimal digits; `None` when an octet is not a digit or there are none.
#[inline]
pub fn read_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0u64;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

/// Under which identity a public GRUU was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GruuForm {
    /// The GRUU of the SIP identity.
    Sip,
    /// The GRUU of the telephone identity (`user=phone`).
    Tel,
}

/// Builds and reads the names of one run.
#[derive(Clone, Debug)]
pub struct Names {
    /// `@domain`.
    at_domain: Vec<u8>,
    /// `@phones.domain:5060;transport=tcp;dev=`.
    contact_tail: Vec<u8>,
    /// Eight hexadecimal digits that tell this run's messages from those of another run.
    run: [u8; 8],
    /// Somebody else issued the names: they are told apart and not taken apart.
    foreign: bool,
    /// The number that names write for user 0: users of one worker follow those of another.
    first_user: u32,
}

impl Names {
    /// Names below `domain`; `run` makes message identifiers differ from those of earlier runs.
    pub fn new(domain: &str, run: u32) -> Self {
        let mut digits = [b'0'; 8];
        digits.copy_from_slice(format!("{run:08x}").as_bytes());
        Self {
            at_domain: format!("@{domain}").into_bytes(),
            contact_tail: format!("@phones.{domain}:5060;transport=tcp;dev=").into_bytes(),
            run: digits,
            foreign: false,
            first_user: 0,
        }
    }

    /// The same for a worker whose users are numbered from `first_user` on.
    #[must_use]
    pub fn starting_at(self, first_user: u32) -> Self {
        Self { first_user, ..self }
    }

    /// The number that names write for `user`.
    #[inline]
    pub fn written(&self, user: u32) -> u32 {
        self.first_user + user
    }

    /// The user of a number that a name has; one of another worker is far out of range.
    #[inline]
    pub fn read_user(&self, number: u64) -> u32 {
        (number as u32).wrapping_sub(self.first_user)
    }

    /// Names that somebody else issued, as in a capture: what is asked of them is their form.
    pub fn foreign() -> Self {
        Self {
            foreign: true,
            ..Self::new("", 0)
        }
    }

    /// The eight hexadecimal digits of this run.
    pub fn run_digits(&self) -> &[u8; 8] {
        &self.run
    }

    /// Appends the SIP identity of `user`.
    pub fn put_aor(&self, user: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"sip:");
        put_number(self.written(user), out);
        out.extend_from_slice(&self.at_domain);
    }

    /// Appends the instance identifier (without quotes and angle brackets) of a user as written.
    pub fn put_instance(user: u32, device: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(INSTANCE_PREFIX.as_bytes());
        put_fixed(u64::from(device), 4, out);
        put_fixed(u64::from(user), 8, out);
    }

    /// Appends the public GRUU issued for a device.
    pub fn put_gruu(&self, form: GruuForm, user: u32, device: u8, out: &mut Vec<u8>) {
        self.put_aor(user, out);
        match form {
            GruuForm::Sip => out.extend_from_slice(b";gr="),
            GruuForm::Tel => out.extend_from_slice(b";user=phone;gr="),
        }
        Self::put_instance(self.written(user), device, out);
    }

    /// Appends the Contact URI a phone puts into its answers. It differs from the GRUU on purpose:
    /// requests in the dialog must go to the Contact, not to the old Request-URI (OK-2).
    pub fn put_contact(&self, user: u32, device: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(b"sip:");
        put_number(self.written(user), out);
        out.extend_from_slice(&self.contact_tail);
        put_fixed(u64::from(device), 4, out);
    }

    /// Reads the user of a SIP identity; `None` unless the URI is exactly one of ours.
    #[inline]
    pub fn read_aor(&self, uri: &[u8]) -> Option<u32> {
        if self.foreign {
            return uri.starts_with(b"sip:").then(|| fold(uri));
        }
        let (user, rest) = read_number(uri)?;
        (rest == self.at_domain.as_slice()).then(|| self.read_user(user))
    }

    /// Reads user, device and form of a public GRUU, byte for byte as issued.
    #[inline]
    pub fn read_gruu(&self, uri: &[u8]) -> Option<(u32, u8, GruuForm)> {
        if self.foreign {
            let at = find(uri, b";gr=")?;
            let end = memchr::memchr(b';', uri)?;
            let device = fold(&uri[at..]).to_le_bytes()[0];
            return uri
                .starts_with(b"sip:")
                .then(|| (fold(&uri[..end]), device, GruuForm::Sip));
        }
        let (user, rest) = read_number(uri)?;
        let rest = rest.strip_prefix(self.at_domain.as_slice())?;
        let (form, rest) = match rest.strip_prefix(b";gr=") {
            Some(rest) => (GruuForm::Sip, rest),
            None => (GruuForm::Tel, rest.strip_prefix(b";user=phone;gr=")?),
        };
        let rest = rest.strip_prefix(INSTANCE_PREFIX.as_bytes())?;
        if rest.len() != 12 {
            return None;
        }
        let device = u8::try_from(read_digits(&rest[..4])?).ok()?;
        (read_digits(&rest[4..])? == user).then(|| (self.read_user(user), device, form))
    }

    /// Reads the user and device of a phone's Contact URI, byte for byte as issued.
    #[inline]
    pub fn read_contact(&self, uri: &[u8]) -> Option<(u32, u8)> {
        let (user, rest) = read_number(uri)?;
        let rest = rest.strip_prefix(self.contact_tail.as_slice())?;
        if rest.len() != 4 {
            return None;
        }
        Some((self.read_user(user), u8::try_from(read_digits(rest)?).ok()?))
    }

    /// Guesses which device a Request-URI means, for a URI that is wrong in its details.
    pub fn guess_device(&self, uri: &[u8]) -> Option<(u32, Option<u8>)> {
        if self.foreign {
            let end = memchr::memchr(b';', uri).unwrap_or(uri.len());
            return Some((fold(&uri[..end]), Some(0)));
        }
        let (user, rest) = read_number(uri)?;
        let device = find(rest, INSTANCE_PREFIX.as_bytes())
            .and_then(|at| rest.get(at + INSTANCE_PREFIX.len()..at + INSTANCE_PREFIX.len() + 4))
            .or_else(|| find(rest, b";dev=").and_then(|at| rest.get(at + 5..at + 9)))
            .and_then(read_digits)
            .and_then(|device| u8::try_from(device).ok());
        Some((self.read_user(user), device))
    }

    /// Appends the imdn Message-ID of a message: `v`, the run, the number.
    pub fn put_message_id(&self, message: u64, out: &mut Vec<u8>) {
        out.push(b'v');
        out.extend_from_slice(&self.run);
        put_fixed(message, MESSAGE_DIGITS, out);
    }

    /// Reads the number out of an imdn Message-ID of this run.
    #[inline]
    pub fn read_message_id(&self, id: &[u8]) -> Option<u64> {
        read_digits(id.strip_prefix(b"v")?.strip_prefix(&self.run)?)
    }

    /// Appends the Conversation-ID of a message.
    pub fn put_conversation(&self, message: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.run);
        out.extend_from_slice(b"-0000-4000-9000-");
        put_fixed(message, MESSAGE_DIGITS, out);
    }

    /// Reads the message number of a Conversation-ID (`true`) or a Contribution-ID (`false`).
    #[inline]
    pub fn read_cpm_id(&self, conversation: bool, id: &[u8]) -> Option<u64> {
        if self.foreign {
            return (!id.is_empty()).then_some(0);
        }
        let rest = id.strip_prefix(&self.run)?;
        let middle: &[u8] = if conversation {
            b"-0000-4000-9000-"
        } else {
            b"-0000-4000-8000-"
        };
        let rest = rest.strip_prefix(middle)?;
        if rest.len() == MESSAGE_DIGITS {
            read_digits(rest)
        } else {
            None
        }
    }
}

/// Appends `value` with `width` digits.
pub fn put_fixed(value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    put_digits(value, &mut out[start..]);
}

/// Appends `value` in decimal without leading zeros.
pub fn put_plain(value: u64, out: &mut Vec<u8>) {
    let width = value.checked_ilog10().unwrap_or(0) as usize + 1;
    put_fixed(value, width, out);
}

fn put_number(user: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"+1555");
    put_fixed(u64::from(user), USER_DIGITS, out);
}

#[inline]
fn read_number(uri: &[u8]) -> Option<(u64, &[u8])> {
    let rest = uri.strip_prefix(b"sip:+1555")?;
    if rest.len() < USER_DIGITS {
        return None;
    }
    let user = read_digits(&rest[..USER_DIGITS])?;
    Some((user, &rest[USER_DIGITS..]))
}

/// A number for a name of somebody else.
fn fold(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_every_name_it_wrote() {
        let names = Names::new("home.example", 0xabc);
        for (user, device) in [(0, 0), (7, 3), (9_999_999, 7)] {
            let mut out = Vec::new();
            names.put_aor(user, &mut out);
            assert_eq!(names.read_aor(&out), Some(user));
            for form in [GruuForm::Sip, GruuForm::Tel] {
                out.clear();
                names.put_gruu(form, user, device, &mut out);
                assert_eq!(names.read_gruu(&out), Some((user, device, form)));
                assert_eq!(names.guess_device(&out), Some((user, Some(device))));
                out.push(b'x');
                assert_eq!(names.read_gruu(&out), None);
            }
            out.clear();
            names.put_contact(user, device, &mut out);
            assert_eq!(names.read_contact(&out), Some((user, device)));
        }
        let mut out = Vec::new();
        names.put_message_id(123_456, &mut out);
        assert_eq!(names.read_message_id(&out), Some(123_456));
        out.clear();
        names.put_conversation(99, &mut out);
        assert_eq!(names.read_cpm_id(true, &out), Some(99));
        assert_eq!(names.read_cpm_id(false, &out), None);
    }

    #[test]
    fn workers_write_other_numbers_and_know_a_strangers_user() {
        let (first, second) = (
            Names::new("home.example", 1),
            Names::new("home.example", 1).starting_at(500),
        );
        let mut out = Vec::new();
        second.put_gruu(GruuForm::Sip, 7, 1, &mut out);
        assert!(out.starts_with(b"sip:+15550000507@"));
        assert_eq!(second.read_gruu(&out), Some((7, 1, GruuForm::Sip)));
        assert_eq!(first.read_gruu(&out), Some((507, 1, GruuForm::Sip)));
        out.clear();
        first.put_aor(7, &mut out);
        assert!(second.read_aor(&out).is_some_and(|user| user > USERS_MAX));
    }

    #[test]
    fn writes_plain_numbers_without_leading_zeros() {
        let mut out = Vec::new();
        for value in [0, 9, 10, 600_000] {
            put_plain(value, &mut out);
            out.push(b' ');
        }
        assert_eq!(out, b"0 9 10 600000 ");
    }
}
