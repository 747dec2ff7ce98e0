//! Judging the answer of a 2xx: may a push go on, and whereto?

use core::net::SocketAddr;

use super::address::numeric_host;
use super::scan::{check_path, describe, media_type, path_uri, sdp_part, trim};
use super::{Direction, SdpError, Setup};

/// An acceptable answer. Borrows the body; every field was checked by [`judge_answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Host of the governing c= line, numeric or a name.
    pub host: &'a [u8],
    /// Port of the m= line; never 0.
    pub port: u16,
    /// The whole `a=path` value, one or more URIs: the To-Path of everything we send.
    pub path: &'a [u8],
    /// The peer's role; `None` when the attribute is missing: we connect (SDP-14).
    pub setup: Option<Setup>,
    /// Recvonly, inactive, or sendrecv (tolerated and counted, SDP-12).
    pub direction: Direction,
    /// Largest message the peer takes, octets; saturated at 2^64 - 1.
    pub max_size: Option<u64>,
    /// The `a=accept-types` value; covers `message/cpim`.
    pub accept_types: &'a [u8],
    /// The `a=accept-wrapped-types` value, when present.
    pub accept_wrapped_types: Option<&'a [u8]>,
    /// The peer supports RFC 6714.
    pub cema: bool,
}

/// Our part in setting up the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We connect to [`Answer::connect_address`].
    Connect,
    /// The peer connects to our path's port.
    Wait,
}

/// Judges the body of a 2xx to our offer (SDP-11, SDP-12, SDP-14, SDP-20, BAD-25).
///
/// The answer must hold exactly one media line, `message` over `TCP/MSRP` with a port other than
/// 0, a path of plain `msrp` URIs and accept-types covering `message/cpim`. A bare LF as line end
/// is tolerated, a multipart body is searched.
///
/// # Errors
/// The first reason why the session must be ended with a BYE.
pub fn judge_answer<'a>(
    body: &'a [u8],
    content_type: Option<&[u8]>,
) -> Result<Answer<'a>, SdpError> {
    let sdp = describe(sdp_part(body, content_type)?)?;
    if sdp.media_count != 1 || !sdp.media.is_message() {
        return Err(SdpError::Proto);
    }
    if sdp.media.port == 0 {
        return Err(SdpError::Port0);
    }
    let path = sdp.path.ok_or(SdpError::Path)?;
    check_path(path)?;
    let accept_types = sdp.accept_types.ok_or(SdpError::Type)?;
    if !list_covers(accept_types, b"message/cpim") {
        return Err(SdpError::Type);
    }
    match sdp.setup {
        Some(Setup::Actpass | Setup::Holdconn) => return Err(SdpError::Setup),
        Some(Setup::Active | Setup::Passive) | None => {}
    }
    let direction = sdp.direction.unwrap_or(Direction::Sendrecv);
    if direction == Direction::Sendonly {
        return Err(SdpError::Dir);
    }
    Ok(Answer {
        host: sdp.host,
        port: sdp.media.port,
        path,
        setup: sdp.setup,
        direction,
        max_size: sdp.max_size,
        accept_types,
        accept_wrapped_types: sdp.accept_wrapped_types,
        cema: sdp.cema,
    })
}

impl<'a> Answer<'a> {
    /// Whether a CPIM message wrapping `content_type` may be sent (SDP-19).
    ///
    /// A type is allowed inside the wrapper when either list names it (RFC 4975 section 8.6);
    /// parameters of `content_type` are ignored.
    #[must_use]
    pub fn accepts_wrapped(&self, content_type: &[u8]) -> bool {
        let wanted = media_type(content_type);
        list_covers(self.accept_types, wanted)
            || self
                .accept_wrapped_types
                .is_some_and(|list| list_covers(list, wanted))
    }

    /// Who connects, given what our offer said (SDP-14).
    ///
    /// # Errors
    /// [`SdpError::Setup`] when both sides want to connect or both want to wait.
    pub const fn role(&self, offered: Setup) -> Result<Role, SdpError> {
        match (offered, self.setup) {
            (Setup::Actpass | Setup::Active, None | Some(Setup::Passive)) => Ok(Role::Connect),
            (Setup::Actpass | Setup::Passive, Some(Setup::Active)) => Ok(Role::Wait),
            (
                Setup::Active | Setup::Actpass | Setup::Holdconn | Setup::Passive,
                Some(Setup::Active | Setup::Actpass | Setup::Holdconn | Setup::Passive) | None,
            ) => Err(SdpError::Setup),
        }
    }

    /// The first URI of the path.
    #[must_use]
    pub fn first_path_uri(&self) -> &'a [u8] {
        self.path_uris().next().unwrap_or_default()
    }

    /// `true` when the path leads through relays.
    #[must_use]
    pub fn has_relay(&self) -> bool {
        self.path_uris().nth(1).is_some()
    }

    /// Where to connect: the c= and m= address when the peer supports CEMA and uses no relay, else
    /// the first path URI (SDP-15). Not yet judged by [`super::address_allowed`].
    ///
    /// # Errors
    /// [`SdpError::Addr`] when the host is a name, [`SdpError::Path`] never for a judged answer.
    pub fn connect_address(&self) -> Result<SocketAddr, SdpError> {
        let (host, port) = if self.cema && !self.has_relay() {
            (self.host, self.port)
        } else {
            path_uri(self.first_path_uri())?
        };
        numeric_host(host)
            .map(|ip| SocketAddr::new(ip, port))
            .ok_or(SdpError::Addr)
    }

    /// Whether the offer must be repeated without CEMA: an anchor that does not know CEMA changed
    /// c= and m= but not the path, and the peer is to find us by its view of our path (SDP-16).
    #[must_use]
    pub fn needs_cema_fallback(&self, offered: Setup) -> bool {
        if self.cema || self.role(offered) != Ok(Role::Wait) || self.path_names_media() {
            return false;
        }
        if self.has_relay() {
            return false;
        }
        let Ok((host, port)) = path_uri(self.first_path_uri()) else {
            return false;
        };
        let same_host = match (numeric_host(host), numeric_host(self.host)) {
            (Some(a), Some(b)) => a == b,
            (Some(_) | None, Some(_) | None) => host.eq_ignore_ascii_case(self.host),
        };
        // Port 9 of an active peer is a placeholder (RFC 6135 section 4.2), not a change.
        !same_host || (port != self.port && self.port != 9)
    }

    /// Whether the path starts with what c= and m= say, as nearly every path does. The port 9 of an
    /// active peer is not compared.
    fn path_names_media(&self) -> bool {
        let Some(rest) = self.path.strip_prefix(b"msrp://") else {
            return false;
        };
        let Some((b":", port)) = rest
            .strip_prefix(self.host)
            .and_then(|rest| rest.split_at_checked(1))
        else {
            return false;
        };
        let digits = port.iter().take(6).take_while(|c| c.is_ascii_digit());
        let port = digits.fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0'));
        self.port == 9 || port == u32::from(self.port)
    }

    fn path_uris(&self) -> impl Iterator<Item = &'a [u8]> {
        self.path
            .split(|&c| c == b' ')
            .filter(|uri| !uri.is_empty())
    }
}

/// Whether a list of media ranges (`*`, `type/*`, `type/subtype`) holds `wanted`.
pub fn list_covers(list: &[u8], wanted: &[u8]) -> bool {
    // The common list names it first and in lower case.
    if let Some(rest) = list.strip_prefix(wanted)
        && matches!(rest.first(), None | Some(b' ' | b';' | b'\t'))
        && !wanted.is_empty()
    {
        return true;
    }
    list.split(|&c| c == b' ' || c == b'\t').any(|entry| {
        let entry = trim(&entry[..memchr::memchr(b';', entry).unwrap_or(entry.len())]);
        match entry {
            b"*" => true,
            [kind @ .., b'/', b'*'] => {
                wanted.len() > kind.len()
                    && wanted[kind.len()] == b'/'
                    && wanted[..kind.len()].eq_ignore_ascii_case(kind)
            }
            exact => !exact.is_empty() && exact.eq_ignore_ascii_case(wanted),
        }
    })
}
