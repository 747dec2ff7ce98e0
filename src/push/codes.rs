//! What the reason codes of attempts say, in words for who is shown one (SEL-3, SEL-6). Verdicts say it themselves
//! ([`Verdict::rule`](crate::selection::Verdict::rule)).

/// Every code of an attempt, and what it says.
const WORDS: [(&str, &str); 24] = [
    ("DELIVERED", "all that waited was delivered"),
    (
        "R-422",
        "the device wants a longer session interval than we may grant",
    ),
    ("R-MSRP-481", "the device does not know the MSRP session"),
    (
        "R-MSRP-506",
        "the MSRP session is bound to another connection",
    ),
    (
        "R-MSRP-BIND",
        "the device did not connect for MSRP, or sent nothing over its connection",
    ),
    (
        "R-MSRP-CONNECT",
        "no MSRP connection to the device could be made",
    ),
    ("R-MSRP-LOST", "the MSRP connection was lost"),
    (
        "R-MSRP-TIMEOUT",
        "the device did not answer what was sent over MSRP",
    ),
    ("R-NO-ANSWER", "no final answer to the INVITE came in time"),
    ("R-NO-CONTACT", "the 2xx has no Contact that can be used"),
    (
        "R-PEER-BYE",
        "the device ended the session before everything was sent",
    ),
    (
        "R-REDIRECT",
        "the INVITE was redirected (3xx), which is not followed",
    ),
    ("R-REFRESH", "the session was not refreshed"),
    (
        "R-SDP-ADDR",
        "the answer names no address that may be connected to",
    ),
    (
        "R-SDP-DIR",
        "the answer does not take media in our direction",
    ),
    ("R-SDP-NONE", "the 2xx has no answer in SDP"),
    ("R-SDP-PATH", "the answer has no MSRP path that can be used"),
    ("R-SDP-PORT0", "the answer declines the media (port 0)"),
    ("R-SDP-PROTO", "the answer's media is no MSRP over TCP"),
    (
        "R-SDP-SETUP",
        "the answer does not say who connects, or both wait",
    ),
    ("R-SDP-TYPE", "the answer does not take message/cpim"),
    (
        "R-SIP",
        "the INVITE was refused with the status that is shown",
    ),
    (
        "S-CAP",
        "the session had lasted, or brought, as much as one may; the rest follows in another",
    ),
    ("S-THROTTLED", "no next hop has room"),
];

/// What `code` says; nothing for the empty one, which is that of no attempt.
#[must_use]
pub fn words(code: &str) -> &'static str {
    let found = WORDS.iter().find(|(known, _)| *known == code);
    found.map_or("", |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::device::CODES;

    #[test]
    fn every_code_is_in_the_table_once_with_its_words_and_no_other_is() {
        // That these are all of attempts is tested where devices are folded.
        let mut codes: Vec<&str> = CODES.into_iter().filter(|code| !code.is_empty()).collect();
        codes.sort_unstable();
        let mut known = WORDS.map(|(code, _)| code);
        known.sort_unstable();
        assert_eq!(codes, known);
        assert!(WORDS.iter().all(|(_, words)| !words.is_empty()));
        assert_eq!(words(""), "");
    }
}
