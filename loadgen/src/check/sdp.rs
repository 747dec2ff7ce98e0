//! The offer of a push: SDP-1 to SDP-10 and PUSH-g.

use memchr::memchr;

use super::Bench;
use crate::identity::read_digits;
use crate::rules::Rule;
use crate::scan::parse_number;

/// What the judge takes from an offer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer<'a> {
    /// The whole value of `a=path`.
    pub path: &'a [u8],
    /// Session id of `o=`.
    pub session: &'a [u8],
}

/// Which level the direction attribute is configured for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectionLevel {
    /// Below `m=` (the default of the requirements).
    #[default]
    Media,
    /// Above `m=`.
    Session,
}

/// The last offer found good, cut at its two variable parts: the session id of `o=` and the
/// session-id of the path. Another offer that differs only there needs no second pass.
#[derive(Debug, Default)]
pub struct OfferMould {
    /// Up to the session id of `o=`, from there to the session-id of the path, the rest.
    parts: [Vec<u8>; 3],
    /// Start of the path's value before the session-id, octets.
    path_head: usize,
}

impl OfferMould {
    /// The offer in `body`, when it differs from the mould in the two identifiers only and these are
    /// well-formed.
    #[inline]
    pub fn fits<'a>(&self, body: &'a [u8]) -> Option<Offer<'a>> {
        let [before, middle, after] = &self.parts;
        if before.is_empty() {
            return None;
        }
        let rest = body.strip_prefix(before.as_slice())?;
        let digits = memchr(b' ', &rest[..rest.len().min(24)])?;
        let session = &rest[..digits];
        read_digits(session)?;
        let rest = rest[digits..].strip_prefix(middle.as_slice())?;
        let id = memchr(b';', &rest[..rest.len().min(80)])?;
        if &rest[id..] != after.as_slice() || id < SESSION_ID_MIN {
            return None;
        }
        if !rest[..id].iter().all(|&byte| is_session_octet(byte)) {
            return None;
        }
        // The path's value reaches from its scheme into the rest up to the end of the line.
        let path_start = body.len() - rest.len() - self.path_head;
        let path_end = body.len() - rest.len() + id + ";tcp".len();
        Some(Offer {
            path: &body[path_start..path_end],
            session,
        })
    }

    /// Takes a good offer as the mould.
    pub fn set(&mut self, body: &[u8], offer: Offer<'_>) {
        let Some(uri) = PathUri::parse(offer.path) else {
            return;
        };
        let place = |part: &[u8]| memchr::memmem::find(body, part);
        let (Some(session), Some(path)) = (place(offer.session), place(offer.path)) else {
            return;
        };
        self.path_head = offer.path.len() - uri.session.len() - ";tcp".len();
        let id = path + self.path_head;
        if body
            .get(..session)
            .is_none_or(|before| !before.ends_with(b"o=- "))
            || session > path
        {
            return;
        }
        self.parts = [
            body[..session].to_vec(),
            body[session + offer.session.len()..id].to_vec(),
            body[id + uri.session.len()..].to_vec(),
        ];
    }
}

/// Shortest session-id that can carry 80 random bits.
const SESSION_ID_MIN: usize = 14;

fn is_session_octet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.+=/~".contains(&byte)
}

/// State of one pass over an offer.
#[derive(Default)]
struct Pass<'a> {
    offer: Offer<'a>,
    rank: u8,
    order_ok: bool,
    seen: [u8; 8],
    host: &'a [u8],
    family: &'a [u8],
    media_port: &'a [u8],
    paths: u8,
    directions: u8,
    sendonly: bool,
    direction_in_media: bool,
    accept_types: bool,
    wrapped: bool,
    setup: &'a [u8],
    setups: u8,
    connection: bool,
    cema: bool,
    max_size_ok: bool,
    media_ok: bool,
    origin_ok: bool,
    plain_ok: bool,
}

/// Judges the offer in `body`.
pub fn check<'a>(
    body: &'a [u8],
    level: DirectionLevel,
    cema: bool,
    bench: &mut Bench<'_>,
) -> Offer<'a> {
    let mut pass = Pass {
        order_ok: true,
        max_size_ok: true,
        plain_ok: true,
        ..Pass::default()
    };
    let mut rest = body;
    let mut crlf = body.ends_with(b"\r\n");
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len() - 1);
        let line = &rest[..=end];
        rest = &rest[end + 1..];
        let Some(line) = line.strip_suffix(b"\r\n") else {
            crlf = false;
            continue;
        };
        pass.line(line);
    }
    bench.demand(crlf, Rule::Sdp1, "a line does not end in CRLF");
    pass.judge(level, bench);
    bench.demand(
        pass.cema == cema,
        Rule::Sdp9,
        "msrp-cema against the policy",
    );
    pass.offer
}

/// Places in `Pass::seen` and the rank of each line type in the prescribed order.
fn rank(kind: u8) -> Option<u8> {
    Some(match kind {
        b'v' => 0,
        b'o' => 1,
        b's' => 2,
        b'c' => 3,
        b't' => 4,
        b'm' => 5,
        b'a' => 6,
        _ => return None,
    })
}

impl<'a> Pass<'a> {
    fn line(&mut self, line: &'a [u8]) {
        let (Some(rank), [kind, b'=', value @ ..]) = (line.first().copied().and_then(rank), line)
        else {
            self.order_ok = false;
            return;
        };
        // Attributes may stand above m= only after t=; a c= may repeat below m= in general, but an
        // offer of ours has one.
        self.order_ok &= match kind {
            b'a' => self.rank >= 4,
            b'm' => self.rank >= 4,
            _ => rank >= self.rank && self.seen[usize::from(rank)] == 0,
        };
        self.rank = self.rank.max(rank);
        self.seen[usize::from(rank)] = self.seen[usize::from(rank)].saturating_add(1);
        match kind {
            b'v' => self.plain_ok &= value == b"0",
            b'o' => self.origin(value),
            b's' => self.plain_ok &= value == b"-",
            b't' => self.plain_ok &= value == b"0 0",
            b'c' => {
                let mut parts = value.splitn(3, |&byte| byte == b' ');
                self.plain_ok &= parts.next() == Some(b"IN".as_slice());
                self.family = parts.next().unwrap_or(&[]);
                self.host = parts.next().unwrap_or(&[]);
            }
            b'm' => {
                let rest = value.strip_prefix(b"message ").unwrap_or(&[]);
                let space = memchr(b' ', rest).unwrap_or(0);
                self.media_port = &rest[..space];
                self.media_ok = rest[space..] == *b" TCP/MSRP *";
            }
            _ => self.attribute(value),
        }
    }

    fn origin(&mut self, value: &'a [u8]) {
        let mut parts = value.split(|&byte| byte == b' ');
        self.origin_ok = parts.next() == Some(b"-".as_slice());
        self.offer.session = parts.next().unwrap_or(&[]);
        self.origin_ok &= read_digits(self.offer.session).is_some();
        self.origin_ok &= parts
            .next()
            .is_some_and(|version| read_digits(version).is_some());
        self.origin_ok &= parts.next() == Some(b"IN".as_slice()) && parts.count() == 2;
    }

    fn attribute(&mut self, value: &'a [u8]) {
        let (name, value) = match memchr(b':', value) {
            Some(colon) => (&value[..colon], &value[colon + 1..]),
            None => (value, &[][..]),
        };
        match name {
            b"path" => {
                self.paths = self.paths.saturating_add(1);
                self.offer.path = value;
            }
            b"accept-types" => {
                self.accept_types = value
                    .split(|&byte| byte == b' ')
                    .any(|one| one == b"message/cpim");
            }
            b"accept-wrapped-types" => self.wrapped = value == b"*",
            b"setup" => {
                self.setups = self.setups.saturating_add(1);
                self.setup = value;
            }
            b"connection" => self.connection = true,
            b"msrp-cema" => self.cema = true,
            b"max-size" => self.max_size_ok = read_digits(value).is_some(),
            b"sendonly" | b"recvonly" | b"sendrecv" | b"inactive" => {
                self.directions = self.directions.saturating_add(1);
                self.sendonly = name == b"sendonly";
                self.direction_in_media = self.seen[5] > 0;
            }
            _ => {}
        }
    }

    fn judge(&self, level: DirectionLevel, bench: &mut Bench<'_>) {
        let once = self.seen[..5].iter().all(|&seen| seen == 1);
        bench.demand(
            self.order_ok && once,
            Rule::Sdp1,
            "lines missing or out of order",
        );
        bench.demand(
            self.plain_ok,
            Rule::Sdp1,
            "v=, s=, t= or c= not as prescribed",
        );
        let family_ok = match self.family {
            b"IP4" => memchr(b':', self.host).is_none(),
            b"IP6" => memchr(b':', self.host).is_some(),
            _ => false,
        };
        bench.demand(
            family_ok,
            Rule::Sdp1,
            "address family does not match the address",
        );
        bench.demand(self.origin_ok, Rule::Sdp2, "o= malformed");
        bench.demand(
            self.seen[5] == 1 && self.media_ok,
            Rule::Sdp3,
            "not one m=message <port> TCP/MSRP *",
        );
        self.judge_path(bench);
        bench.demand(
            self.accept_types,
            Rule::Sdp5,
            "accept-types without message/cpim",
        );
        bench.demand(self.wrapped, Rule::Sdp6, "accept-wrapped-types is not *");
        bench.demand(self.max_size_ok, Rule::Sdp7, "max-size is no number");
        bench.demand(
            self.setups == 1 && self.setup == b"actpass",
            Rule::Sdp8,
            "setup is not actpass",
        );
        bench.demand(!self.connection, Rule::Sdp8, "a=connection in an offer");
        bench.demand(
            self.directions == 1,
            Rule::Sdp10,
            "not exactly one direction attribute",
        );
        if self.directions == 1 {
            bench.demand(self.sendonly, Rule::PushGI, "direction is not sendonly");
            let media = level == DirectionLevel::Media;
            bench.demand(
                !self.sendonly || self.direction_in_media == media,
                Rule::PushGI,
                "sendonly at the wrong level",
            );
        }
    }

    fn judge_path(&self, bench: &mut Bench<'_>) {
        bench.demand(self.paths == 1, Rule::Sdp4, "not exactly one a=path");
        if self.paths != 1 {
            return;
        }
        let Some(uri) = PathUri::parse(self.offer.path) else {
            bench.fail(
                Rule::Sdp4,
                "path URI without explicit port, session-id or ;tcp",
            );
            return;
        };
        bench.demand(
            uri.session.len() >= SESSION_ID_MIN,
            Rule::Sdp4,
            "session-id shorter than 14 characters",
        );
        let host = uri
            .host
            .strip_prefix(b"[")
            .and_then(|host| host.strip_suffix(b"]"));
        let same_host = host.unwrap_or(uri.host) == self.host;
        if self.media_ok {
            let same_port = uri.port == self.media_port;
            bench.demand(
                same_port && same_host,
                Rule::Sdp3,
                "m= port or c= address is not the path's",
            );
        }
    }
}

/// Parts of an MSRP URI in `a=path`.
#[derive(Clone, Copy, Debug)]
pub struct PathUri<'a> {
    /// Host as written, brackets included.
    pub host: &'a [u8],
    /// Port digits.
    pub port: &'a [u8],
    /// Session-id.
    pub session: &'a [u8],
}

impl<'a> PathUri<'a> {
    /// Parses `msrp://host:port/session;tcp`; `None` for anything else.
    pub fn parse(uri: &'a [u8]) -> Option<Self> {
        let rest = uri.strip_prefix(b"msrp://")?;
        let slash = memchr(b'/', rest)?;
        let (authority, rest) = (&rest[..slash], &rest[slash + 1..]);
        let colon = memchr::memrchr(b':', authority)?;
        let (host, port) = (&authority[..colon], &authority[colon + 1..]);
        let session = rest.strip_suffix(b";tcp")?;
        let port_ok = parse_number(port).is_some_and(|port| (1..=65_535).contains(&port));
        let session_ok = !session.is_empty() && session.iter().all(|&byte| is_session_octet(byte));
        (port_ok && session_ok && !host.is_empty()).then_some(Self {
            host,
            port,
            session,
        })
    }
}
