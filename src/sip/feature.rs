//! Values of feature tags (RFC 3840 section 9): quoted tag-value-lists such as
//! `"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg,urn%3A..."`. Layer 1.
//!
//! REG-7: outer quotes are stripped, commas split, escapes decoded, and values compared without
//! case. A parameter that a client repeats is the union of its values: ask for each and combine.

use crate::sip::scan::{trim, unquote};
use crate::sip::uri::same_decoded_fold;

/// The values of one list, still percent-encoded, in order; empty ones are skipped.
///
/// `value` is the parameter's value with or without its quotes.
pub fn values(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    unquote(trim(value))
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|part| !part.is_empty())
}

/// `true` when the list holds `icsi` (a URN in plain or encoded form).
///
/// Negated values (`!x`) and string values (`<x>`) are not that ICSI.
#[must_use]
pub fn contains(value: &[u8], icsi: &[u8]) -> bool {
    !icsi.is_empty() && values(value).any(|part| same_decoded_fold(part, icsi))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFERRED: &[u8] = b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred";
    const MESSAGE: &[u8] = b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg";

    // Proves: REG-7, PUSH-b1
    #[test]
    fn finds_an_icsi_in_any_spelling_and_nothing_that_only_resembles_it() {
        let both = b"\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg, URN%3aurn-7%3a3GPP-service.ims.icsi.oma.cpm.deferred\"";
        assert!(contains(both, DEFERRED));
        assert!(contains(both, MESSAGE));
        assert!(contains(DEFERRED, DEFERRED));
        assert!(contains(
            both,
            b"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg"
        ));
        assert!(!contains(both, b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm"));
        assert!(!contains(
            both,
            b"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msgs"
        ));
        assert!(!contains(
            b"\"!urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg\"",
            MESSAGE
        ));
        assert!(!contains(b"\"\"", b""));
        assert!(!contains(b"\"urn%3", DEFERRED));
    }

    #[test]
    fn values_come_in_order_without_quotes_and_blanks() {
        let all: Vec<_> = values(b" \" a,,b%2C , c\" ").collect();
        assert_eq!(all, [&b"a"[..], b"b%2C", b"c"]);
        assert_eq!(values(b"\"").collect::<Vec<_>>(), [&b"\""[..]]);
        assert_eq!(values(b"").count(), 0);
    }
}
