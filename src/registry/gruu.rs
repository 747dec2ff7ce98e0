//! By which URI a device is reached, and which URIs are fit to be written into a request. Layer 3.
//!
//! The strict rule is the seed's: the public GRUU of the registration document, byte for byte
//! (PUSH-a). Registrars that leave it out are met by configured fallbacks, weakest last; every device
//! records the rule in force.

use crate::base::limits::URI_BYTES_MAX;

/// How far from the strict rule a deployment lets us go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GruuPolicy {
    /// Only a `pub-gruu` of the document.
    #[default]
    Strict,
    /// Else `<aor>;gr=<instance>`, which is what IMS S-CSCFs give out.
    Composed,
    /// Else the contact URI with an Accept-Contact that names the instance.
    ContactByInstance,
    /// Else the bare contact URI.
    Contact,
    /// Only a `pub-gruu`, else the AoR with an Accept-Contact that names the instance (PUSH-a2).
    AorByInstance,
}

impl GruuPolicy {
    /// Whether a device without a public GRUU may be reached by `rule`.
    #[must_use]
    pub const fn allows(self, rule: GruuRule) -> bool {
        match rule {
            GruuRule::None => false,
            GruuRule::PubGruu => true,
            GruuRule::Composed => {
                matches!(
                    self,
                    Self::Composed | Self::ContactByInstance | Self::Contact
                )
            }
            GruuRule::ContactByInstance => matches!(self, Self::ContactByInstance | Self::Contact),
            GruuRule::Contact => matches!(self, Self::Contact),
            GruuRule::AorByInstance => matches!(self, Self::AorByInstance),
        }
    }
}

/// The rule by which a device's Request-URI was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GruuRule {
    /// None applied: the device cannot be pushed to (`D-NO-GRUU`).
    #[default]
    None,
    /// The document's public GRUU.
    PubGruu,
    /// AoR and instance put together.
    Composed,
    /// Contact URI, steered by the instance.
    ContactByInstance,
    /// Contact URI.
    Contact,
    /// AoR, steered by the instance.
    AorByInstance,
}

impl GruuRule {
    /// Whether the request needs an Accept-Contact naming the instance.
    #[must_use]
    pub const fn needs_instance(self) -> bool {
        match self {
            Self::ContactByInstance | Self::AorByInstance => true,
            Self::None | Self::PubGruu | Self::Composed | Self::Contact => false,
        }
    }

    /// Stable text for the inspection interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PubGruu => "pub-gruu",
            Self::Composed => "aor-gr-instance",
            Self::ContactByInstance => "contact-instance",
            Self::Contact => "contact",
            Self::AorByInstance => "aor-instance",
        }
    }
}

/// A `sip:` or `sips:` URI cut at its joints. No decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SipUri<'a> {
    /// Before the `@`, without a password; empty when there is none.
    pub(crate) user: &'a [u8],
    /// Host and port as written.
    pub(crate) host_port: &'a [u8],
    /// From the first `;` on, without it.
    pub(crate) params: &'a [u8],
}

/// Cuts a SIP URI that is safe to write into a start line.
///
/// `None` for other schemes, more than 1 KiB, octets outside visible ASCII, `< > "` and the like,
/// broken percent escapes, header fields, or an empty host (BAD-23).
pub(crate) fn safe_sip_uri(uri: &[u8]) -> Option<SipUri<'_>> {
    if uri.len() > URI_BYTES_MAX || !is_safe_text(uri) {
        return None;
    }
    let rest = strip_scheme(uri)?;
    let (user, rest) = match memchr::memchr(b'@', rest) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (&rest[..0], rest),
    };
    let (host_port, params) = match memchr::memchr(b';', rest) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &rest[rest.len()..]),
    };
    if rest.contains(&b'?') || rest.contains(&b'@') || !is_host_port(host_port) {
        return None;
    }
    let user = user.split(|&byte| byte == b':').next().unwrap_or(user);
    Some(SipUri {
        user,
        host_port,
        params,
    })
}

/// Whether `uri` is a public GRUU: a safe SIP URI with a `gr` parameter that has a value
/// (RFC 5627 section 3.1; a temporary GRUU's has none).
pub(crate) fn public_gruu(uri: &[u8]) -> Option<SipUri<'_>> {
    let parts = safe_sip_uri(uri)?;
    has_one_gr(parts.params).then_some(parts)
}

/// Whether none of the `params` is empty, and exactly one is a `gr` with a value.
fn has_one_gr(params: &[u8]) -> bool {
    let mut found = false;
    for param in params.split(|&byte| byte == b';') {
        if param.is_empty() {
            return false;
        }
        let value = match param {
            [b'g' | b'G', b'r' | b'R'] => &param[..0],
            [b'g' | b'G', b'r' | b'R', b'=', value @ ..] => value,
            _ => continue,
        };
        if found || value.is_empty() {
            return false;
        }
        found = true;
    }
    found
}

/// Whether `gruu` is a public GRUU of the address of record `aor` (RFC 5627: the AoR plus `gr`).
///
/// For a `tel:` AoR the user part must be its number, and the host that of `home`, the user's SIP
/// identity, when that is known. `plain` says that `aor` is a safe SIP URI without parameters: then
/// what follows it in the GRUU is all there is to look at.
pub(crate) fn is_gruu_of(gruu: &[u8], aor: &[u8], plain: bool, home: &[u8]) -> bool {
    if plain && let Some([b';', params @ ..]) = gruu.strip_prefix(aor) {
        if gruu.len() > URI_BYTES_MAX {
            return false;
        }
        let (every, some) = classes_of(params);
        // As nearly always: `gr` alone, of octets that mean nothing.
        if let [b'g', b'r', b'=', _, ..] = params
            && every & OCTET != 0
            && some & !OCTET == 0
        {
            return true;
        }
        return is_safe_text(params)
            && !params.iter().any(|byte| matches!(byte, b'?' | b'@'))
            && has_one_gr(params);
    }
    let Some(gruu) = public_gruu(gruu) else {
        return false;
    };
    if let Some(number) = strip_prefix_ignore_case(aor, b"tel:") {
        let number = number.split(|&byte| byte == b';').next().unwrap_or(number);
        let same_number = digits_of(number).eq(gruu.user.iter().copied());
        return same_number && host_of(home).is_none_or(|host| same_host(host, gruu.host_port));
    }
    match safe_sip_uri(aor) {
        Some(aor) => aor.user == gruu.user && same_host(aor.host_port, gruu.host_port),
        None => false,
    }
}

/// Whether `instance` may stand inside the quotes of an Accept-Contact value.
pub(crate) fn is_safe_instance(instance: &[u8]) -> bool {
    !instance.is_empty() && instance.len() <= 256 && instance.iter().all(|&b| is_uri_octet(b))
}

fn host_of(uri: &[u8]) -> Option<&[u8]> {
    safe_sip_uri(uri).map(|parts| parts.host_port)
}

fn same_host(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn digits_of(number: &[u8]) -> impl Iterator<Item = u8> + '_ {
    number
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'-' | b'.' | b'(' | b')'))
}

pub(crate) fn strip_prefix_ignore_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix)
        .then(|| &text[prefix.len()..])
}

/// `uri` without `sip:` or `sips:`.
pub(crate) fn strip_scheme(uri: &[u8]) -> Option<&[u8]> {
    strip_prefix_ignore_case(uri, b"sip:").or_else(|| strip_prefix_ignore_case(uri, b"sips:"))
}

/// Only octets that may stand in a URI, and whole escapes.
fn is_safe_text(text: &[u8]) -> bool {
    let (every, some) = classes_of(text);
    every & OCTET != 0 && (some & ESCAPE == 0 || escapes_are_whole(text))
}

/// What all octets are, and what some are.
fn classes_of(text: &[u8]) -> (u8, u8) {
    text.iter().fold((OCTET, 0), |(every, some), &byte| {
        let class = CLASSES[usize::from(byte)];
        (every & class, some | class)
    })
}

const OCTET: u8 = 1;
const ESCAPE: u8 = 2;
/// Ends a part of a URI.
const JOINT: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        if is_uri_octet(byte) {
            table[byte as usize] = match byte {
                b'%' => OCTET | ESCAPE,
                b';' | b'?' | b'@' => OCTET | JOINT,
                _ => OCTET,
            };
        }
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

const fn is_uri_octet(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
        && !matches!(
            byte,
            b'<' | b'>' | b'"' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#'
        )
}

fn escapes_are_whole(uri: &[u8]) -> bool {
    memchr::memchr_iter(b'%', uri).all(|at| {
        uri.get(at + 1..at + 3)
            .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    })
}

fn is_host_port(host_port: &[u8]) -> bool {
    let (host, port) = match host_port {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else {
                return false;
            };
            if !rest[..end]
                .iter()
                .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
            {
                return false;
            }
            (&host_port[..end + 2], &rest[end + 1..])
        }
        _ => {
            let end = memchr::memchr(b':', host_port).unwrap_or(host_port.len());
            let host = &host_port[..end];
            if !host
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
            {
                return false;
            }
            (host, &host_port[end..])
        }
    };
    let port_is_good = match port {
        [] => true,
        [b':', digits @ ..] => {
            (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    !host.is_empty() && port_is_good
}

crate::fold_variants!(GruuRule {
    None,
    PubGruu,
    Composed,
    ContactByInstance,
    Contact,
    AorByInstance,
});

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: BAD-23, PUSH-a
    #[test]
    fn only_a_clean_sip_uri_with_a_gr_value_is_a_public_gruu() {
        let long = [b"sip:a@h;gr=".as_slice(), &[b'x'; 1100]].concat();
        for (uri, want) in [
            (b"sip:a@h.example;gr=urn:uuid:f81d4fae".as_slice(), true),
            (b"sip:+1555@h.example;user=phone;gr=urn:uuid:f8", true),
            (b"SIPS:a@[2001:db8::1]:5061;gr=1", true),
            (b"sip:a@h;gr=%0d%0aX%3a", true),
            (b"sip:a%0d%0aX@h;gr=1", true),
            (b"sip:a@h;gr=%0", false),
            (b"sip:a@h;gr", false),
            (b"sip:a@h;gr=", false),
            (b"sip:a@h;gr=1;gr=2", false),
            (b"sip:a@h", false),
            (b"sip:a@;gr=1", false),
            (b"sip:a@h;;gr=1", false),
            (b"sip:a b@h;gr=1", false),
            (b"sip:a@h;gr=1\r\nX: y", false),
            (b"sip:a@h;gr=<1>", false),
            (b"sip:a@h;gr=1?subject=x", false),
            (b"sip:a@h:x;gr=1", false),
            (b"tel:+1555;gr=1", false),
            (b"sip:a\x80@h;gr=1", false),
            (b"", false),
            (&long, false),
        ] {
            assert_eq!(
                public_gruu(uri).is_some(),
                want,
                "{}",
                String::from_utf8_lossy(uri)
            );
        }
    }

    // Proves: BAD-23
    #[test]
    fn a_gruu_belongs_to_its_address_of_record() {
        let home = b"sip:+1555@ims.example";
        for (gruu, aor, want) in [
            (
                b"sip:alice@ims.example;gr=1".as_slice(),
                b"sip:alice@ims.example".as_slice(),
                true,
            ),
            (
                b"sip:alice@IMS.example;gr=1",
                b"sip:alice@ims.example",
                true,
            ),
            (
                b"sip:victim@ims.example;gr=1",
                b"sip:alice@ims.example",
                false,
            ),
            (
                b"sip:alice@203.0.113.66;gr=1",
                b"sip:alice@ims.example",
                false,
            ),
            (
                b"sip:+1555@ims.example;user=phone;gr=1",
                b"tel:+1-555",
                true,
            ),
            (
                b"sip:+1556@ims.example;user=phone;gr=1",
                b"tel:+1555",
                false,
            ),
            (
                b"sip:+1555@evil.example;user=phone;gr=1",
                b"tel:+1555",
                false,
            ),
        ] {
            assert_eq!(
                is_gruu_of(gruu, aor, false, home),
                want,
                "{}",
                String::from_utf8_lossy(gruu)
            );
        }
    }

    // Proves: BAD-23
    #[test]
    fn a_gruu_that_starts_with_its_identity_is_judged_like_any_other() {
        let aor = b"sip:alice@ims.example";
        for tail in [
            ";gr=1",
            ";GR=urn:uuid:f81d4fae",
            ";gr=%41",
            ";gr=%4",
            ";gr",
            ";gr=",
            ";gr=1;gr=2",
            ";gr=1;",
            ";;gr=1",
            ";user=phone;gr=1",
            ";grx=1",
            ";gr=1?a=b",
            ";gr=a@b",
            ";gr=a b",
            ";gr=<1>",
            ";gr=\u{e9}",
            ";gr=1\r\nX: y",
            ".evil;gr=1",
            ":5060;gr=1",
            "",
            "?x;gr=1",
        ] {
            let gruu = [aor.as_slice(), tail.as_bytes()].concat();
            let careful = is_gruu_of(&gruu, aor, false, b"");
            assert_eq!(is_gruu_of(&gruu, aor, true, b""), careful, "{tail}");
        }
        let long = [aor.as_slice(), b";gr=", &[b'x'; 1024]].concat();
        assert!(!is_gruu_of(&long, aor, true, b""));
    }

    // Proves: PUSH-a2
    #[test]
    fn strict_policy_allows_only_the_documents_gruu() {
        for rule in [
            GruuRule::Composed,
            GruuRule::ContactByInstance,
            GruuRule::Contact,
            GruuRule::AorByInstance,
        ] {
            assert!(!GruuPolicy::Strict.allows(rule));
        }
        assert!(GruuPolicy::Strict.allows(GruuRule::PubGruu));
        assert!(GruuPolicy::Contact.allows(GruuRule::Composed));
        assert!(!GruuPolicy::AorByInstance.allows(GruuRule::Composed));
        assert!(!GruuPolicy::Contact.allows(GruuRule::None));
    }
}
