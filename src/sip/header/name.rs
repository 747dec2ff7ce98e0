//! Header names: an enum, and a perfect hash over length, first, middle and last character.

/// Declares the enum, its spellings and its compact forms in one place, in alphabetical order.
macro_rules! header_names {
    ($(($variant:ident, $text:literal, $compact:literal),)*) => {
        /// A header field this engine reads or writes; everything else is [`HeaderName::Other`].
        ///
        /// Names are compared without case; compact forms map to the same value (RFC 3261 7.3.3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum HeaderName {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// A field whose name this engine does not know.
            Other,
        }

        const ALL: &[HeaderName] = &[$(HeaderName::$variant,)* HeaderName::Other];
        const TEXT: &[&str] = &[$($text,)* ""];
        const COMPACT: &[u8] = &[$($compact,)* 0];
    };
}

header_names! {
    (Accept, "Accept", 0),
    (AcceptContact, "Accept-Contact", b'a'),
    (AcceptEncoding, "Accept-Encoding", 0),
    (AcceptLanguage, "Accept-Language", 0),
    (Allow, "Allow", 0),
    (AllowEvents, "Allow-Events", b'u'),
    (Authorization, "Authorization", 0),
    (CallId, "Call-ID", b'i'),
    (CallInfo, "Call-Info", 0),
    (Contact, "Contact", b'm'),
    (ContentDisposition, "Content-Disposition", 0),
    (ContentEncoding, "Content-Encoding", b'e'),
    (ContentLength, "Content-Length", b'l'),
    (ContentType, "Content-Type", b'c'),
    (ContributionId, "Contribution-ID", 0),
    (ConversationId, "Conversation-ID", 0),
    (CSeq, "CSeq", 0),
    (Date, "Date", 0),
    (Event, "Event", b'o'),
    (Expires, "Expires", 0),
    (From, "From", b'f'),
    (HistoryInfo, "History-Info", 0),
    (InReplyTo, "In-Reply-To", 0),
    (InReplyToContributionId, "InReplyTo-Contribution-ID", 0),
    (MaxForwards, "Max-Forwards", 0),
    (MessageExpires, "Message-Expires", 0),
    (MimeVersion, "MIME-Version", 0),
    (MinExpires, "Min-Expires", 0),
    (MinSe, "Min-SE", 0),
    (Organization, "Organization", 0),
    (PAccessNetworkInfo, "P-Access-Network-Info", 0),
    (PAssertedIdentity, "P-Asserted-Identity", 0),
    (PAssertedService, "P-Asserted-Service", 0),
    (PAssociatedUri, "P-Associated-URI", 0),
    (PCalledPartyId, "P-Called-Party-ID", 0),
    (PChargingFunctionAddresses, "P-Charging-Function-Addresses", 0),
    (PChargingVector, "P-Charging-Vector", 0),
    (PPreferredIdentity, "P-Preferred-Identity", 0),
    (PPreferredService, "P-Preferred-Service", 0),
    (PServedUser, "P-Served-User", 0),
    (PVisitedNetworkId, "P-Visited-Network-ID", 0),
    (Path, "Path", 0),
    (Privacy, "Privacy", 0),
    (ProxyAuthenticate, "Proxy-Authenticate", 0),
    (ProxyAuthorization, "Proxy-Authorization", 0),
    (ProxyRequire, "Proxy-Require", 0),
    (RAck, "RAck", 0),
    (Reason, "Reason", 0),
    (RecordRoute, "Record-Route", 0),
    (ReferTo, "Refer-To", b'r'),
    (ReferredBy, "Referred-By", b'b'),
    (RejectContact, "Reject-Contact", b'j'),
    (RequestDisposition, "Request-Disposition", b'd'),
    (Require, "Require", 0),
    (ResourcePriority, "Resource-Priority", 0),
    (ResponseSource, "Response-Source", 0),
    (RetryAfter, "Retry-After", 0),
    (Route, "Route", 0),
    (RSeq, "RSeq", 0),
    (Server, "Server", 0),
    (ServiceRoute, "Service-Route", 0),
    (SessionExpires, "Session-Expires", b'x'),
    (SessionId, "Session-ID", 0),
    (SipEtag, "SIP-ETag", 0),
    (SipIfMatch, "SIP-If-Match", 0),
    (Subject, "Subject", b's'),
    (SubscriptionState, "Subscription-State", 0),
    (Supported, "Supported", b'k'),
    (Timestamp, "Timestamp", 0),
    (To, "To", b't'),
    (Unsupported, "Unsupported", 0),
    (UserAgent, "User-Agent", 0),
    (Via, "Via", b'v'),
    (Warning, "Warning", 0),
    (WwwAuthenticate, "WWW-Authenticate", 0),
}

/// Distinct values of [`HeaderName`], `Other` included.
pub(crate) const COUNT: usize = ALL.len();
const NONE: u8 = 0xff;
const NAME_BYTES_MAX: usize = 32;

/// A name in lower case, padded with zeros.
#[derive(Clone, Copy)]
struct Folded {
    text: [u8; NAME_BYTES_MAX],
    len: usize,
}

const fn fold(text: &str) -> Folded {
    let bytes = text.as_bytes();
    assert!(bytes.len() <= NAME_BYTES_MAX, "names fit the table");
    let mut folded = [0_u8; NAME_BYTES_MAX];
    let mut at = 0;
    while at < bytes.len() {
        folded[at] = bytes[at] | 0x20;
        at += 1;
    }
    Folded {
        text: folded,
        len: bytes.len(),
    }
}

const fn folded_names() -> [Folded; COUNT] {
    let mut names = [Folded {
        text: [0; NAME_BYTES_MAX],
        len: 0,
    }; COUNT];
    let mut at = 0;
    while at < COUNT {
        names[at] = fold(TEXT[at]);
        at += 1;
    }
    names
}

/// The slot of a name of `len` characters; the factors make the slots of all known names distinct.
#[inline]
const fn slot(len: u8, first: u8, middle: u8, last: u8) -> u8 {
    let a = len.wrapping_mul(82);
    let b = (first | 0x20).wrapping_mul(214);
    let c = (last | 0x20).wrapping_mul(189);
    let d = (middle | 0x20).wrapping_mul(207);
    a.wrapping_add(b).wrapping_add(c).wrapping_add(d)
}

const fn slots() -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut at = 0;
    while at + 1 < COUNT {
        let name = &FOLDED[at];
        let len = name.len;
        let key = slot(
            len.to_le_bytes()[0],
            name.text[0],
            name.text[len / 2],
            name.text[len - 1],
        ) as usize;
        assert!(
            table[key] == NONE,
            "two names share a slot: choose other factors"
        );
        table[key] = at.to_le_bytes()[0];
        at += 1;
    }
    table
}

const fn compact_slots() -> [u8; 32] {
    let mut table = [NONE; 32];
    let mut at = 0;
    while at < COUNT {
        if COMPACT[at] != 0 {
            let key = (COMPACT[at] & 0x1f) as usize;
            assert!(table[key] == NONE, "two names share a compact form");
            table[key] = at.to_le_bytes()[0];
        }
        at += 1;
    }
    table
}

static FOLDED: [Folded; COUNT] = folded_names();
static SLOTS: [u8; 256] = slots();
static COMPACT_SLOTS: [u8; 32] = compact_slots();

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let part: [u8; 8] = bytes[at..at + 8]
        .try_into()
        .expect("the slice has eight octets");
    u64::from_le_bytes(part)
}

#[inline]
fn half(bytes: &[u8], at: usize) -> u32 {
    let part: [u8; 4] = bytes[at..at + 4]
        .try_into()
        .expect("the slice has four octets");
    u32::from_le_bytes(part)
}

/// Compares by words; `| 0x20` folds letters and leaves the hyphen alone.
///
/// The only other octets it maps onto a letter or hyphen are control characters, and the parser
/// lets none of them into a name.
#[inline]
fn same(name: &[u8], known: &[u8; NAME_BYTES_MAX]) -> bool {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    const FOLD_HALF: u32 = 0x2020_2020;
    let len = name.len();
    if len >= 8 {
        let mut at = 0;
        while at + 8 <= len {
            if word(name, at) | FOLD != word(known, at) {
                return false;
            }
            at += 8;
        }
        word(name, len - 8) | FOLD == word(known, len - 8)
    } else if len >= 4 {
        half(name, 0) | FOLD_HALF == half(known, 0)
            && half(name, len - 4) | FOLD_HALF == half(known, len - 4)
    } else {
        name.iter().zip(known).all(|(a, b)| a | 0x20 == *b)
    }
}

impl HeaderName {
    /// The name of a field as written, without white space; long or compact form, any case.
    #[inline]
    #[must_use]
    pub fn lookup(name: &[u8]) -> Self {
        let (&[first, ..], &[.., last]) = (name, name) else {
            return Self::Other;
        };
        if name.len() == 1 {
            if !first.is_ascii_alphabetic() {
                return Self::Other;
            }
            let index = COMPACT_SLOTS[usize::from(first & 0x1f)];
            return ALL.get(usize::from(index)).copied().unwrap_or(Self::Other);
        }
        let Ok(len) = u8::try_from(name.len()) else {
            return Self::Other;
        };
        let index = usize::from(SLOTS[usize::from(slot(len, first, name[name.len() / 2], last))]);
        match FOLDED.get(index) {
            Some(known) if known.len == name.len() && same(name, &known.text) => ALL[index],
            _ => Self::Other,
        }
    }

    /// The long form as RFC 3261 and its kin spell it; empty for [`HeaderName::Other`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        TEXT[self as usize]
    }

    /// Position in tables with one cell per name.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_in_its_compact_form() {
        for (index, &name) in ALL.iter().enumerate() {
            if name == HeaderName::Other {
                continue;
            }
            assert_eq!(name.index(), index);
            let text = name.as_str();
            assert_eq!(HeaderName::lookup(text.as_bytes()), name);
            assert_eq!(
                HeaderName::lookup(text.to_ascii_uppercase().as_bytes()),
                name
            );
            assert_eq!(
                HeaderName::lookup(text.to_ascii_lowercase().as_bytes()),
                name
            );
            if COMPACT[index] != 0 {
                assert_eq!(HeaderName::lookup(&[COMPACT[index]]), name);
                assert_eq!(
                    HeaderName::lookup(&[COMPACT[index].to_ascii_uppercase()]),
                    name
                );
            }
        }
    }

    #[test]
    fn a_name_with_one_character_changed_is_unknown() {
        for &name in ALL {
            let text = name.as_str().as_bytes();
            for at in 0..text.len() {
                let mut other = text.to_vec();
                other[at] = if other[at] == b'q' { b'z' } else { b'q' };
                let oracle = ALL
                    .iter()
                    .find(|known| known.as_str().as_bytes().eq_ignore_ascii_case(&other))
                    .copied();
                assert_eq!(
                    HeaderName::lookup(&other),
                    oracle.unwrap_or(HeaderName::Other)
                );
                assert_eq!(HeaderName::lookup(&text[..at]), {
                    let cut = &text[..at];
                    let known = ALL.iter().enumerate().find(|(index, known)| {
                        known.as_str().as_bytes().eq_ignore_ascii_case(cut)
                            || (cut.len() == 1 && COMPACT[*index] == cut[0].to_ascii_lowercase())
                    });
                    known.map_or(HeaderName::Other, |(_, name)| *name)
                });
            }
        }
    }

    #[test]
    fn odd_names_are_unknown() {
        for name in [&b""[..], b"z", b"1", b"\x16", b"{", b"To:", &[b'a'; 300]] {
            assert_eq!(HeaderName::lookup(name), HeaderName::Other);
        }
    }
}
