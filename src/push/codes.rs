//! What the stable reason codes say, in words for who is shown one (SEL-3, SEL-6).

/// Every code, and what it says.
pub const WORDS: [(&str, &str); 51] = [
    ("DELIVERED", "all that waited was delivered"),
    ("D-BACKOFF", "failed lately; tried again later"),
    ("D-BUSY-PUSH", "a push to it is open"),
    ("D-FANOUT-CUT", "other devices come first"),
    (
        "D-NO-CPM",
        "registered no accepted service, or takes no INVITE",
    ),
    ("D-NO-GRUU", "no address that may be used"),
    ("D-NOT-ACTIVE", "not registered, or not for long enough"),
    ("D-NOTHING-FOR-IT", "no waiting message is for it"),
    ("D-PREF-EXCLUDED", "the user excludes the device"),
    ("D-QUARANTINE", "refused; left alone for this binding"),
    ("D-ROAMING", "roams, which the provider forbids"),
    ("D-WAIT", "waits for its registration to change"),
    (
        "M-DUPLICATE",
        "the message was a repeat of one taken before",
    ),
    ("M-EXPIRED", "the life of the message ended"),
    ("M-NONE", "no message waits"),
    (
        "M-POISON",
        "the device lost its connection over the message three times in a row",
    ),
    (
        "M-REJ-400",
        "the device refused the message: 400, it cannot read it",
    ),
    (
        "M-REJ-403",
        "the device refused the message: 403, it may not be sent",
    ),
    (
        "M-REJ-413",
        "the device refused the message: 413, it wants no more of it",
    ),
    (
        "M-REJ-415",
        "the device refused the message: 415, it does not take its type",
    ),
    (
        "M-REJ-423",
        "the device refused the message: 423, a parameter is out of bounds",
    ),
    (
        "M-TOO-LARGE-FOR-DEVICE",
        "the message is larger than the device said it takes",
    ),
    (
        "M-TYPE",
        "the device said that it does not take the type of the message",
    ),
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
    ("S-STOPPED", "the provider has stopped all pushes"),
    ("S-THROTTLED", "no next hop has room"),
    ("SELECTED", "is pushed to"),
    ("U-BARRED", "the user is barred"),
    ("U-NOT-SERVED", "the user is not served here"),
    ("U-PREF-HOLD", "the user wants messages held"),
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
    use crate::base::time::Timestamp;
    use crate::push::reason::MessageReason;
    use crate::registry::device::CODES;
    use crate::selection::Verdict;

    const VERDICTS: [Verdict; 18] = [
        Verdict::UserNotServed,
        Verdict::UserBarred,
        Verdict::UserPrefHold { until: None },
        Verdict::NoMessage,
        Verdict::Stopped,
        Verdict::NotActive,
        Verdict::NoGruu,
        Verdict::NoCpm,
        Verdict::PrefExcluded,
        Verdict::Roaming,
        Verdict::BusyPush,
        Verdict::Wait,
        Verdict::Quarantine {
            until: Timestamp::NEVER,
        },
        Verdict::Backoff {
            until: Timestamp::NEVER,
        },
        Verdict::NothingForIt,
        Verdict::FanoutCut,
        Verdict::Throttled,
        Verdict::Selected,
    ];

    #[test]
    fn every_code_is_in_the_table_once_with_its_words_and_no_other_is() {
        for (at, verdict) in VERDICTS.into_iter().enumerate() {
            assert_eq!(verdict.index(), at, "all of them, in their order");
            if verdict.code() != "U-PREF-HOLD" {
                assert_eq!(words(verdict.code()), verdict.rule().1);
            }
        }
        let messages = [
            MessageReason::TooLarge,
            MessageReason::Type,
            MessageReason::Rejected(400),
            MessageReason::Rejected(403),
            MessageReason::Rejected(413),
            MessageReason::Rejected(415),
            MessageReason::Rejected(423),
            MessageReason::Poison,
            MessageReason::Expired,
            MessageReason::Duplicate,
        ];
        // Of attempts; that these are all is tested where devices are folded.
        let attempts = CODES.into_iter().filter(|code| !code.is_empty());
        let mut codes: Vec<&str> = attempts.collect();
        codes.extend(VERDICTS.map(Verdict::code));
        codes.extend(messages.map(MessageReason::code));
        codes.sort_unstable();
        codes.dedup();
        let mut known = WORDS.map(|(code, _)| code);
        known.sort_unstable();
        assert_eq!(codes, known);
        assert!(WORDS.iter().all(|(_, words)| !words.is_empty()));
        assert_eq!(words(""), "");
    }
}
