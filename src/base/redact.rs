//! User identities in logs: printed as a short keyed-less digest unless the operator asks otherwise.

use core::fmt;

/// Wraps an identity so that formatting it never prints it in clear.
///
/// The digest (FNV-1a, 32 bits) lets an operator recognise the same user in two lines; it is not a
/// secret, and a short number can be guessed back. Clear text is an explicit call.
#[derive(Clone, Copy)]
pub struct Redacted<'a>(pub &'a [u8]);

impl Redacted<'_> {
    fn digest(self) -> u32 {
        self.0.iter().fold(0x811c_9dc5, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    }
}

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id:{:08x}", self.digest())
    }
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_never_printed_in_clear() {
        let shown = format!(
            "{} {:?}",
            Redacted(b"sip:alice@x"),
            Redacted(b"sip:alice@x")
        );
        assert!(!shown.contains("alice"));
        assert_ne!(Redacted(b"a").to_string(), Redacted(b"b").to_string());
    }
}
