//! Numeric hosts and the guard against being made a port scanner (SDP-21).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address of a numeric host, brackets of an IPv6 reference allowed. Names give `None`.
pub(super) fn numeric_host(host: &[u8]) -> Option<IpAddr> {
    let text = core::str::from_utf8(host).ok()?;
    if let Some(inner) = text.strip_prefix('[') {
        return inner
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6);
    }
    text.parse().ok()
}

/// Whether we may connect to `address`.
///
/// With `guard` on, addresses that only make sense inside somebody's network or host are refused,
/// and so are well-known ports except 9 (SDP-21). Port 0 and unspecified addresses are refused
/// always: nothing listens there.
#[must_use]
pub fn address_allowed(address: SocketAddr, guard: bool) -> bool {
    if address.port() == 0 || address.ip().is_unspecified() {
        return false;
    }
    if !guard {
        return true;
    }
    if address.port() < 1024 && address.port() != 9 {
        return false;
    }
    match address.ip() {
        IpAddr::V4(ip) => v4_is_public(ip),
        IpAddr::V6(ip) => v6_is_public(ip),
    }
}

fn v4_is_public(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    // 100.64/10 is the carrier's inside (RFC 6598); 240/4 is reserved and holds the broadcast.
    let shared = first == 100 && second & 0xc0 == 64;
    !(ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || shared
        || first == 0
        || first >= 240)
}

fn v6_is_public(ip: Ipv6Addr) -> bool {
    // ::ffff:0:0/96, ::/96 and 64:ff9b::/96 reach IPv4 hosts by another spelling.
    let embedded = match ip.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some((u32::from(high) << 16) | u32::from(low))
        }
        _ => None,
    };
    if let Some(bits) = embedded {
        return v4_is_public(Ipv4Addr::from_bits(bits));
    }
    !(ip.is_loopback()
        || ip.is_multicast()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        // fec0::/10, the withdrawn site-local range (RFC 3879).
        || ip.segments()[0] & 0xffc0 == 0xfec0)
}
