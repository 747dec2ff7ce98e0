//! The way of notifications (RFC 5438 section 8): our place on it, and the next one after us. Layer 1.

use crate::cpim::{Cpim, HEADER_BYTES_MAX, NS_IMDN, address_uri, lines};

/// Puts `IMDN-Record-Route: <uri>` before all others of a message, whose header section must declare
/// the namespace; does nothing when it does not, or when the section would get too long.
pub fn record_route(uri: &[u8], message: &mut Vec<u8>) {
    let mut at = 0;
    let mut place = None;
    for line in lines(message) {
        if line.is_empty() {
            break;
        }
        at += line.len() + 2;
        if let Some(value) = line.strip_prefix(b"NS:")
            && memchr::memmem::find(value, NS_IMDN).is_some()
            && let Some(end) = memchr::memchr(b'<', value)
        {
            place = Some((at, value[..end].trim_ascii().to_vec()));
        }
    }
    let Some((place, prefix)) = place else { return };
    let mut added = prefix;
    if !added.is_empty() {
        added.push(b'.');
    }
    for piece in [&b"IMDN-Record-Route: <"[..], uri, b">\r\n"] {
        added.extend_from_slice(piece);
    }
    if at + added.len() < HEADER_BYTES_MAX {
        message.splice(place..place, added);
    }
}

/// Takes our own entry from the top of the way that a notification is to go, and says who is next: the
/// entry after it, else the CPIM's To. `None` when the way does not begin with `uri`.
#[must_use]
pub fn take_route<'a>(bytes: &'a [u8], cpim: &Cpim<'a>, uri: &[u8]) -> Option<(Vec<u8>, &'a [u8])> {
    let top = cpim.find_imdn(b"IMDN-Route").and_then(address_uri)?;
    if top != uri {
        return None;
    }
    let is_route = |line: &[u8]| {
        let colon = memchr::memchr(b':', line).unwrap_or(0);
        let name = &line[..colon];
        name == b"IMDN-Route" || name.ends_with(b".IMDN-Route")
    };
    let mut rest = Vec::with_capacity(bytes.len());
    let (mut at, mut next, mut taken) = (0, None, false);
    for line in lines(bytes) {
        if line.is_empty() {
            break;
        }
        at += line.len() + 2;
        if is_route(line) && !taken {
            taken = true;
            continue;
        }
        if is_route(line) && next.is_none() {
            let colon = memchr::memchr(b':', line)?;
            next = address_uri(&line[colon + 1..]);
        }
        rest.extend_from_slice(line);
        rest.extend_from_slice(b"\r\n");
    }
    rest.extend_from_slice(&bytes[at..]);
    let next = next.or_else(|| cpim.find_core(b"To").and_then(address_uri))?;
    taken.then_some((rest, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpim::parse;

    const HEAD: &str = "From: <sip:a@x>\r\nTo: <sip:b@x>\r\nNS: n <urn:ietf:params:imdn>\r\n";
    const TAIL: &str = "\r\nContent-Type: text/plain\r\n\r\nIMDN-Route: <sip:no@x>";

    #[test]
    fn our_entry_comes_first_under_the_messages_own_prefix() {
        let mut message = format!("{HEAD}n.IMDN-Record-Route: <sip:old@x>\r\n{TAIL}").into_bytes();
        record_route(b"sip:pf@x", &mut message);
        let expected = format!(
            "{HEAD}n.IMDN-Record-Route: <sip:pf@x>\r\nn.IMDN-Record-Route: <sip:old@x>\r\n{TAIL}"
        );
        assert_eq!(message, expected.as_bytes());
        assert!(parse(&message).is_ok());
        let bare = format!("From: <sip:a@x>\r\nTo: <sip:b@x>\r\n{TAIL}");
        let mut message = bare.clone().into_bytes();
        record_route(b"sip:pf@x", &mut message);
        assert_eq!(message, bare.as_bytes(), "no namespace, no entry");
    }

    #[test]
    fn the_top_of_the_way_is_taken_off_and_the_next_one_named() {
        let routes = "n.IMDN-Route: <sip:pf@x>\r\nn.IMDN-Route: <sip:next@x>\r\n";
        let text = format!("{HEAD}{routes}{TAIL}");
        let parsed = parse(text.as_bytes()).unwrap();
        let (rest, next) = take_route(text.as_bytes(), &parsed, b"sip:pf@x").unwrap();
        assert_eq!(next, b"sip:next@x");
        assert_eq!(
            rest,
            format!("{HEAD}n.IMDN-Route: <sip:next@x>\r\n{TAIL}").as_bytes()
        );
        let parsed = parse(&rest).unwrap();
        assert!(
            take_route(&rest, &parsed, b"sip:pf@x").is_none(),
            "not ours"
        );
        let (last, next) = take_route(&rest, &parsed, b"sip:next@x").unwrap();
        assert_eq!(
            (next, last),
            (&b"sip:b@x"[..], format!("{HEAD}{TAIL}").into_bytes())
        );
    }
}
