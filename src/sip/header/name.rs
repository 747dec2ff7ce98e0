//! Header names: an enum, and a perfect hash over the first sixteen characters, read as two words.

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
/// Octets of a name that are hashed.
const WIDE: usize = 16;
/// Folds letters to lower case and leaves the hyphen alone.
const FOLD: u64 = u64::from_le_bytes([0x20; 8]);

/// A known name in lower case, in the slot of its hash: its first sixteen octets (zeros behind a
/// shorter one), and its last sixteen when it is longer. Zeros throughout in an empty slot.
#[derive(Clone, Copy)]
struct Slot {
    /// Octets 0 to 7, lowest first.
    low: u64,
    /// Octets 8 to 15.
    high: u64,
    len: u8,
    name: HeaderName,
}

const fn fold(text: &[u8], from: usize) -> u128 {
    let mut folded = [0_u8; WIDE];
    let mut at = 0;
    while at < WIDE && from + at < text.len() {
        folded[at] = text[from + at] | 0x20;
        at += 1;
    }
    u128::from_le_bytes(folded)
}

/// The last sixteen octets of each longer name, in lower case.
const fn folded_tails() -> [u128; COUNT] {
    let mut tails = [0; COUNT];
    let mut at = 0;
    while at < COUNT {
        let text = TEXT[at].as_bytes();
        assert!(text.len() <= 2 * WIDE, "head and tail cover a name");
        tails[at] = fold(text, text.len().saturating_sub(WIDE));
        at += 1;
    }
    tails
}

/// What the octets of a name of some length leave of eight.
const fn kept() -> [u64; 9] {
    let mut masks = [0; 9];
    let mut len = 1;
    while len <= 8 {
        masks[len] = u64::MAX >> ((8 - len) * 8);
        len += 1;
    }
    masks
}

/// The slot of a name by its first sixteen octets; the factor makes the slots of all known names
/// distinct.
#[expect(clippy::cast_possible_truncation, reason = "a top octet")]
#[inline]
const fn slot(low: u64, high: u64) -> u8 {
    let mixed = low ^ high << 1;
    (mixed.wrapping_mul(0x11ad_e27c_875e_25e1) >> 56) as u8
}

#[expect(clippy::cast_possible_truncation, reason = "two halves")]
const fn slots() -> [Slot; 256] {
    let mut table = [Slot {
        low: 0,
        high: 0,
        len: 0,
        name: HeaderName::Other,
    }; 256];
    let mut at = 0;
    while at + 1 < COUNT {
        let text = TEXT[at].as_bytes();
        let head = fold(text, 0);
        let (low, high) = (head as u64, (head >> 64) as u64);
        let key = slot(low, high) as usize;
        assert!(
            table[key].len == 0,
            "two names share a slot: choose another factor"
        );
        table[key] = Slot {
            low,
            high,
            len: text.len().to_le_bytes()[0],
            name: ALL[at],
        };
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

static TAILS: [u128; COUNT] = folded_tails();
static KEPT: [u64; 9] = kept();
static SLOTS: [Slot; 256] = slots();
static COMPACT_SLOTS: [u8; 32] = compact_slots();

#[inline]
fn wide(bytes: &[u8]) -> u128 {
    match bytes.first_chunk::<WIDE>() {
        Some(chunk) => u128::from_le_bytes(*chunk),
        None => padded(bytes),
    }
}

/// A name so near the end of its buffer is rare.
#[cold]
fn padded(bytes: &[u8]) -> u128 {
    let octet = |value, (at, byte): (usize, &u8)| value | u128::from(*byte) << (at * 8);
    bytes.iter().take(WIDE).enumerate().fold(0, octet)
}

impl HeaderName {
    /// The name of a field as written, without white space; long or compact form, any case.
    #[inline]
    #[must_use]
    pub fn lookup(name: &[u8]) -> Self {
        Self::lookup_in(name, name.len())
    }

    /// The name that is the first `len` octets of `bytes`; those behind are looked at and do not
    /// count.
    ///
    /// Besides the other case, CR passes for a hyphen, and the parser lets none into a name.
    #[expect(clippy::cast_possible_truncation, reason = "two halves")]
    #[inline]
    pub(crate) fn lookup_in(bytes: &[u8], len: usize) -> Self {
        let head = wide(bytes);
        if len <= 8 {
            return Self::lookup_short(head as u64, len, bytes);
        }
        let low = head as u64 | FOLD;
        let high = ((head >> 64) as u64 | FOLD) & KEPT[(len - 8).min(8)];
        let known = &SLOTS[usize::from(slot(low, high))];
        let same = known.low == low && known.high == high && usize::from(known.len) == len;
        // The last sixteen octets of a longer name overlap its first.
        if same && (len <= WIDE || is_tail(&bytes[len - WIDE..], known.name)) {
            known.name
        } else {
            Self::Other
        }
    }

    /// As [`HeaderName::lookup_in`] for a name of at most eight octets; `head` holds the first eight
    /// of `bytes`.
    #[inline]
    pub(crate) fn lookup_short(head: u64, len: usize, bytes: &[u8]) -> Self {
        if len < 2 {
            return Self::compact(&bytes[..len]);
        }
        let low = (head | FOLD) & KEPT[len.min(8)];
        let known = &SLOTS[usize::from(slot(low, 0))];
        if known.low == low && known.high == 0 {
            known.name
        } else {
            Self::Other
        }
    }

    #[cold]
    fn compact(name: &[u8]) -> Self {
        match name {
            [letter] if letter.is_ascii_alphabetic() => {
                let index = COMPACT_SLOTS[usize::from(letter & 0x1f)];
                ALL.get(usize::from(index)).copied().unwrap_or(Self::Other)
            }
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

/// Whether the last sixteen octets of a name, which `tail` starts with, are those of `name`.
#[inline]
fn is_tail(tail: &[u8], name: HeaderName) -> bool {
    wide(tail) | u128::from_le_bytes([0x20; WIDE]) == TAILS[name.index()]
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
