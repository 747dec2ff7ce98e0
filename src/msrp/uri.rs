//! `msrp:` and `msrps:` URIs (RFC 4975 sections 6 and 9). Layer 1.

use crate::base::octets;

/// Why a URI was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriError {
    /// An octet that no URI may hold: control, space, `<`, `>`, `"`.
    Character,
    /// No host, or a malformed one.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// Neither `msrp://` nor `msrps://`.
    Scheme,
    /// No `;transport`.
    Transport,
}

/// A view of one MSRP URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrpUri<'a> {
    /// `msrps`: TLS (RFC 4975 section 14).
    pub secure: bool,
    /// What stands before `@`; plays no part in comparison.
    pub userinfo: Option<&'a [u8]>,
    /// Host name, IPv4 address, or IPv6 address with its brackets.
    pub host: &'a [u8],
    /// `None` when the URI names no port.
    pub port: Option<u16>,
    /// What follows `/`; case counts. `None` for a relay's URI without one.
    pub session: Option<&'a [u8]>,
    /// `tcp`, in practice.
    pub transport: &'a [u8],
    /// What follows the transport, with its leading `;`, or empty.
    pub params: &'a [u8],
}

/// Octets that a URI may hold.
const IN_URI: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0x21_usize;
    while c < 256 {
        table[c] = !matches!(c, 0x22 | 0x3c | 0x3e | 0x7f);
        c += 1;
    }
    table
};

/// Reads one URI.
///
/// # Errors
/// [`UriError`] says which part is malformed.
pub fn parse(uri: &[u8]) -> Result<MsrpUri<'_>, UriError> {
    if !uri
        .iter()
        .fold(true, |all, &c| all & IN_URI[usize::from(c)])
    {
        return Err(UriError::Character);
    }
    let (scheme, rest) = split_once(uri, b':').ok_or(UriError::Scheme)?;
    let secure = if scheme.eq_ignore_ascii_case(b"msrp") {
        false
    } else if scheme.eq_ignore_ascii_case(b"msrps") {
        true
    } else {
        return Err(UriError::Scheme);
    };
    let rest = rest.strip_prefix(b"//").ok_or(UriError::Scheme)?;
    let (hierarchy, transport) = split_once(rest, b';').ok_or(UriError::Transport)?;
    let cut = octets::find(transport, b';').unwrap_or(transport.len());
    let (transport, params) = transport.split_at(cut);
    if transport.is_empty() || !transport.iter().all(u8::is_ascii_alphanumeric) {
        return Err(UriError::Transport);
    }
    let (authority, session) = match split_once(hierarchy, b'/') {
        Some((authority, session)) => (authority, Some(session)),
        None => (hierarchy, None),
    };
    let (userinfo, host_port) = match octets::rfind(authority, b'@') {
        Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
        None => (None, authority),
    };
    let (host, port) = split_host(host_port)?;
    Ok(MsrpUri {
        secure,
        userinfo,
        host,
        port,
        session: session.filter(|session| !session.is_empty()),
        transport,
        params,
    })
}

/// Whether two URIs name the same session endpoint (RFC 4975 section 6.1).
///
/// Scheme, host and transport ignore case, the session-id does not; an absent port equals only an
/// absent port; userinfo and parameters are left out. Malformed URIs equal nothing.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let (Ok(a), Ok(b)) = (parse(a), parse(b)) else {
        return false;
    };
    a.secure == b.secure
        && a.host.eq_ignore_ascii_case(b.host)
        && a.port == b.port
        && a.session == b.session
        && a.transport.eq_ignore_ascii_case(b.transport)
}

/// The first URI of a path.
#[must_use]
pub fn first_uri(path: &[u8]) -> &[u8] {
    &path[..octets::find(path, b' ').unwrap_or(path.len())]
}

/// The URIs of a path, in order.
pub fn uris(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&c| c == b' ').filter(|uri| !uri.is_empty())
}

/// The session-id of a URI, if it is well formed and has one.
#[must_use]
pub fn session_id(uri: &[u8]) -> Option<&[u8]> {
    parse(uri).ok()?.session
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = octets::find(bytes, separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn split_host(host_port: &[u8]) -> Result<(&[u8], Option<u16>), UriError> {
    let host_len = if host_port.first() == Some(&b'[') {
        octets::find(host_port, b']').ok_or(UriError::Host)? + 1
    } else {
        octets::find(host_port, b':').unwrap_or(host_port.len())
    };
    let (host, port) = host_port.split_at(host_len);
    if !host_is_plausible(host) {
        return Err(UriError::Host);
    }
    match port {
        [] => Ok((host, None)),
        [b':', digits @ ..] => Ok((host, Some(port_number(digits)?))),
        [_, ..] => Err(UriError::Host),
    }
}

fn host_is_plausible(host: &[u8]) -> bool {
    match host {
        [b'[', inner @ .., b']'] => {
            inner.len() > 1
                && inner
                    .iter()
                    .all(|&c| c.is_ascii_hexdigit() || matches!(c, b':' | b'.'))
        }
        [] => false,
        [..] => host
            .iter()
            .all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_')),
    }
}

fn port_number(digits: &[u8]) -> Result<u16, UriError> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(UriError::Port);
    }
    let value = digits
        .iter()
        .fold(0u32, |value, &d| value * 10 + u32::from(d - b'0'));
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(UriError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: MSRP-26, MSRP-28
    #[test]
    fn reads_every_part_of_a_uri() {
        let uri = parse(b"msrp://192.0.2.10:2855/k9Qv3t;tcp;x=y;z").unwrap();
        assert!(!uri.secure);
        assert_eq!(uri.host, b"192.0.2.10");
        assert_eq!(uri.port, Some(2855));
        assert_eq!(uri.session, Some(&b"k9Qv3t"[..]));
        assert_eq!(uri.transport, b"tcp");
        assert_eq!(uri.params, b";x=y;z");
        let uri = parse(b"MSRPS://bob@[2001:db8::1]/s;tcp").unwrap();
        assert!(uri.secure);
        assert_eq!(uri.userinfo, Some(&b"bob"[..]));
        assert_eq!(uri.host, b"[2001:db8::1]");
        assert_eq!(uri.port, None);
        assert_eq!(session_id(b"msrp://relay.example:1;tcp"), None);
    }

    #[test]
    fn refuses_malformed_uris() {
        for (uri, error) in [
            (&b"sip:a@b"[..], UriError::Scheme),
            (b"msrp:h/s;tcp", UriError::Scheme),
            (b"msrp://h/s", UriError::Transport),
            (b"msrp://h/s;", UriError::Transport),
            (b"msrp:///s;tcp", UriError::Host),
            (b"msrp://[::1/s;tcp", UriError::Host),
            (b"msrp://[::1]x/s;tcp", UriError::Host),
            (b"msrp://h:0/s;tcp", UriError::Port),
            (b"msrp://h:65536/s;tcp", UriError::Port),
            (b"msrp://h:/s;tcp", UriError::Port),
            (b"msrp://h /s;tcp", UriError::Character),
            (b"msrp://h/\r\n;tcp", UriError::Character),
            (b"", UriError::Scheme),
        ] {
            assert_eq!(parse(uri), Err(error), "{}", uri.escape_ascii());
        }
    }

    // Proves: MSRP-26
    #[test]
    fn compares_as_the_rfc_says() {
        let base = b"msrp://Host.Example:9/AbC;tcp";
        for same_one in [
            &b"MSRP://host.example:9/AbC;TCP"[..],
            b"msrp://user@host.example:9/AbC;tcp",
            b"msrp://host.example:9/AbC;tcp;p=1",
        ] {
            assert!(same(base, same_one), "{}", same_one.escape_ascii());
        }
        for other in [
            &b"msrps://host.example:9/AbC;tcp"[..],
            b"msrp://host.example:9/abc;tcp",
            b"msrp://host.example/AbC;tcp",
            b"msrp://host.example:8/AbC;tcp",
            b"msrp://host2.example:9/AbC;tcp",
            b"junk",
        ] {
            assert!(!same(base, other), "{}", other.escape_ascii());
        }
        assert!(!same(b"junk", b"junk"));
    }

    #[test]
    fn a_path_yields_its_uris_in_order() {
        let path = b"msrp://a/1;tcp msrp://b/2;tcp";
        assert_eq!(first_uri(path), b"msrp://a/1;tcp");
        assert_eq!(uris(path).count(), 2);
        assert_eq!(first_uri(b""), b"");
    }
}
