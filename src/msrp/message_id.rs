//! Message-IDs that are a function of the stored message (RFC 4975 sections 5.4 and 7.1.1). Layer 1.
//!
//! The same stored message has the same id on every device, attempt and after every restart, and no
//! other content ever gets it; so a device can drop what it has seen. The id reads back, so that a
//! REPORT needs no table.

/// Octets of an id.
pub const MESSAGE_ID_LEN: usize = 28;

const DIGITS: usize = 13;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What names a stored message for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoredMessage {
    /// Drawn once per store and mixed with the mailbox; two mailboxes that ever lived differ.
    pub scope: u64,
    /// Counts within the scope and is never used again.
    pub number: u64,
}

/// The id of `message`, as text: `v`, scope, `.`, number.
#[must_use]
pub fn encode(message: StoredMessage) -> [u8; MESSAGE_ID_LEN] {
    let mut text = [b'.'; MESSAGE_ID_LEN];
    text[0] = b'v';
    put(message.scope, &mut text[1..=DIGITS]);
    put(message.number, &mut text[DIGITS + 2..]);
    text
}

/// The message named by an id of ours; `None` for every other text.
#[must_use]
pub fn parse(text: &[u8]) -> Option<StoredMessage> {
    let text: &[u8; MESSAGE_ID_LEN] = text.try_into().ok()?;
    if text[0] != b'v' || text[DIGITS + 1] != b'.' {
        return None;
    }
    let scope = take(&text[1..=DIGITS])?;
    let number = take(&text[DIGITS + 2..])?;
    Some(StoredMessage { scope, number })
}

fn put(value: u64, out: &mut [u8]) {
    let mut rest = value;
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[usize::try_from(rest % 32).expect("below 32")];
        rest /= 32;
    }
}

fn take(text: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for &c in text {
        let digit = match c {
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        value = value.checked_mul(32)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: MSRP-4
    #[test]
    fn ids_are_stable_idents_that_read_back_and_differ() {
        let mut seen = Vec::new();
        for scope in [0, 1, 31, 32, u64::MAX] {
            for number in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
                let message = StoredMessage { scope, number };
                let text = encode(message);
                assert_eq!(text, encode(message));
                assert!(text[0].is_ascii_alphanumeric() && text.len() <= 32);
                assert!(text.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'.'));
                assert_eq!(parse(&text), Some(message));
                assert!(!seen.contains(&text));
                seen.push(text);
            }
        }
    }

    #[test]
    fn foreign_ids_are_not_ours() {
        let ours = encode(StoredMessage {
            scope: 5,
            number: 6,
        });
        for at in 0..MESSAGE_ID_LEN {
            let mut forged = ours;
            forged[at] = b'!';
            assert_eq!(parse(&forged), None);
        }
        assert_eq!(parse(&ours[1..]), None);
        assert_eq!(parse(b"v7777777777777.aaaaaaaaaaaaa"), None, "over 64 bits");
        assert_eq!(parse(b"not-mine"), None);
    }
}
