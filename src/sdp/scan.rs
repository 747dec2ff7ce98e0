//! One pass over a description: lines, the session's defaults, the first media line.

use memchr::{memchr, memmem};

use super::{Direction, SdpError, Setup};
use crate::base::limits::{MSRP_PATH_URIS_MAX, SDP_BYTES_MAX, URI_BYTES_MAX};
use crate::base::octets;

/// Most lines of a description that we judge (BAD-25); a handset writes about fifteen.
const LINES_MAX: usize = 512;
/// Longest host name of a path URI, octets (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// One `x=value` line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub kind: u8,
    pub value: &'a [u8],
}

/// Iterates lines; a bare LF is tolerated. Ends after the first error.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Lines<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self {
            rest: body,
            left: LINES_MAX,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, SdpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.iter().all(|&c| matches!(c, b'\r' | b'\n')) {
            return None;
        }
        let end = line_end(self.rest);
        let good = match (end, self.rest) {
            (Some((end, next)), &[kind, b'=', ..])
                if end >= 2 && self.left > 0 && kind.is_ascii_lowercase() =>
            {
                let value = &self.rest[2..end];
                self.rest = &self.rest[next..];
                Some(Line { kind, value })
            }
            (Some(_) | None, _) => None,
        };
        if let Some(line) = good {
            self.left -= 1;
            return Some(Ok(line));
        }
        self.rest = b"";
        Some(Err(SdpError::None))
    }
}

/// Where the first line of `text` ends, and where the next one starts. A CR or NUL inside a line
/// would travel into our requests and logs: `None`.
#[inline]
fn line_end(text: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    loop {
        at += octets::find_control(&text[at..]).at;
        match (text.get(at), text.get(at + 1)) {
            (None, _) => return Some((at, at)),
            (Some(b'\n'), _) | (Some(b'\r'), None) => return Some((at, at + 1)),
            (Some(b'\r'), Some(b'\n')) => return Some((at, at + 2)),
            (Some(b'\r' | 0), Some(_) | None) => return None,
            (Some(_), _) => at += 1,
        }
    }
}

/// A media line's four fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct MediaLine<'a> {
    pub media: &'a [u8],
    pub port: u16,
    pub port_text: &'a [u8],
    pub proto: &'a [u8],
    pub formats: &'a [u8],
}

impl<'a> MediaLine<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, SdpError> {
        let mut rest = value;
        let mut field = || {
            let end = octets::find(rest, b' ').filter(|&end| end > 0);
            let end = end.ok_or(SdpError::None)?;
            let field = &rest[..end];
            rest = &rest[end + 1..];
            Ok(field)
        };
        let (media, port, proto, formats) = (field()?, field()?, field()?, rest);
        if formats.is_empty() {
            return Err(SdpError::None);
        }
        Ok(Self {
            media,
            port: parse_port(port).ok_or(SdpError::None)?,
            port_text: port,
            proto,
            formats,
        })
    }

    /// `true` for the one kind of media we carry.
    pub(super) fn is_message(&self) -> bool {
        octets::is_word(self.media, b"message") && octets::is_word(self.proto, b"tcp/msrp")
    }
}

/// What a description says about its first `message` line, session defaults applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description<'a> {
    /// Media lines of any kind.
    pub media_count: usize,
    /// The first line of kind `message`, or the first of all when there is none.
    pub media: MediaLine<'a>,
    /// Host of the c= line that governs it.
    pub host: &'a [u8],
    pub path: Option<&'a [u8]>,
    pub accept_types: Option<&'a [u8]>,
    pub accept_wrapped_types: Option<&'a [u8]>,
    pub setup: Option<Setup>,
    pub direction: Option<Direction>,
    pub max_size: Option<u64>,
    pub cema: bool,
}

/// What is collected at one level; the session's and one media's have the same shape.
#[derive(Clone, Copy, Debug, Default)]
struct Level<'a> {
    host: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    accept_types: Option<&'a [u8]>,
    accept_wrapped_types: Option<&'a [u8]>,
    setup: Option<Setup>,
    direction: Option<Direction>,
    max_size: Option<u64>,
    cema: bool,
}

/// Whether an attribute with a value has a meaning for us; see [`Level::take_attribute`].
pub(super) fn is_read(name: &[u8]) -> bool {
    matches!(
        name,
        b"path" | b"accept-types" | b"accept-wrapped-types" | b"setup" | b"max-size" | b"msrp-cema"
    )
}

impl<'a> Level<'a> {
    fn take(&mut self, line: Line<'a>) -> Result<(), SdpError> {
        match line.kind {
            b'c' => {
                // Several c= lines mean layered multicast: no place to connect to.
                let host = connection_host(line.value)?;
                once(&mut self.host, host, SdpError::Addr)
            }
            b'a' => self.take_attribute(line.value),
            _ => Ok(()),
        }
    }

    fn take_attribute(&mut self, text: &'a [u8]) -> Result<(), SdpError> {
        let colon = octets::find(text, b':');
        let (name, value) = match colon {
            Some(at) => {
                let value = &text[at + 1..];
                (&text[..at], trim(value.strip_prefix(b" ").unwrap_or(value)))
            }
            None => (trim(text), &b""[..]),
        };
        match name {
            b"path" => once(&mut self.path, value, SdpError::Path),
            b"accept-types" => once(&mut self.accept_types, value, SdpError::Type),
            b"accept-wrapped-types" => once(&mut self.accept_wrapped_types, value, SdpError::Type),
            b"setup" => {
                let setup = Setup::parse(value).ok_or(SdpError::Setup)?;
                once(&mut self.setup, setup, SdpError::Setup)
            }
            b"max-size" => {
                let size = parse_size(value).ok_or(SdpError::None)?;
                once(&mut self.max_size, size, SdpError::None)
            }
            b"msrp-cema" => {
                self.cema = true;
                Ok(())
            }
            _ if colon.is_none() => match Direction::parse(name) {
                Some(direction) => once(&mut self.direction, direction, SdpError::Dir),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Sets `slot`; a repetition with another value is an error, as no reading of it is safe.
fn once<T: PartialEq>(slot: &mut Option<T>, value: T, error: SdpError) -> Result<(), SdpError> {
    match slot {
        Some(old) if *old != value => Err(error),
        Some(_) => Ok(()),
        None => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// Reads `body`, which must be a whole description within [`SDP_BYTES_MAX`].
pub(super) fn describe(body: &[u8]) -> Result<Description<'_>, SdpError> {
    if body.len() > SDP_BYTES_MAX {
        return Err(SdpError::None);
    }
    let mut lines = Lines::new(body);
    match lines.next() {
        Some(Ok(Line { kind: b'v', value })) if value == b"0" => {}
        Some(_) | None => return Err(SdpError::None),
    }
    let mut session = Level::default();
    let mut current = Level::default();
    let mut chosen: Option<(MediaLine<'_>, Level<'_>)> = None;
    // The level being filled: the session, the chosen media, or one that we pass over.
    let (mut media_count, mut filling) = (0, true);
    for line in lines {
        let line = line?;
        if line.kind == b'm' {
            media_count += 1;
            let media = MediaLine::parse(line.value)?;
            if media_count == 1 {
                session = current;
            } else if let (true, Some((_, level))) = (filling, chosen.as_mut()) {
                *level = current;
            }
            let better = media.is_message() && chosen.is_some_and(|(old, _)| !old.is_message());
            filling = chosen.is_none() || better;
            if filling {
                chosen = Some((media, Level::default()));
                current = Level::default();
            }
        } else if filling && matches!(line.kind, b'a' | b'c') {
            current.take(line)?;
        }
    }
    let (media, level) = chosen.ok_or(SdpError::None)?;
    let level = if filling { current } else { level };
    Ok(Description {
        media_count,
        media,
        host: level.host.or(session.host).ok_or(SdpError::Addr)?,
        path: level.path,
        accept_types: level.accept_types,
        accept_wrapped_types: level.accept_wrapped_types,
        setup: level.setup.or(session.setup),
        direction: level.direction.or(session.direction),
        max_size: level.max_size,
        cema: level.cema || session.cema,
    })
}

/// The `application/sdp` part of a body, searched in multipart bodies one level deep (SDP-20).
pub(super) fn sdp_part<'a>(
    body: &'a [u8],
    content_type: Option<&[u8]>,
) -> Result<&'a [u8], SdpError> {
    let content_type = content_type.ok_or(SdpError::None)?;
    let essence = media_type(content_type);
    if octets::is_word(essence, b"application/sdp") {
        return if body.is_empty() {
            Err(SdpError::None)
        } else {
            Ok(body)
        };
    }
    if !essence
        .get(..10)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
    {
        return Err(SdpError::None);
    }
    let boundary = boundary(content_type).ok_or(SdpError::None)?;
    multipart_part(body, boundary).ok_or(SdpError::None)
}

/// The type and subtype of a Content-Type value, parameters cut.
pub(super) fn media_type(value: &[u8]) -> &[u8] {
    trim(&value[..octets::find(value, b';').unwrap_or(value.len())])
}

fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let mut rest = content_type;
    loop {
        rest = &rest[memchr(b';', rest)? + 1..];
        let parameter = trim(rest);
        let Some(name) = parameter.get(..9) else {
            continue;
        };
        if !name.eq_ignore_ascii_case(b"boundary=") {
            continue;
        }
        let value = &parameter[9..];
        let value = match value.strip_prefix(b"\"") {
            Some(quoted) => &quoted[..memchr(b'"', quoted)?],
            None => media_type(value),
        };
        // RFC 2046 section 5.1.1: 1 to 70 characters.
        return (1..=70).contains(&value.len()).then_some(value);
    }
}

fn multipart_part<'a>(body: &'a [u8], boundary: &[u8]) -> Option<&'a [u8]> {
    let mut starts = memmem::find_iter(body, boundary).filter(|&at| {
        // A delimiter stands at the start of a line behind two hyphens.
        at >= 2 && &body[at - 2..at] == b"--" && (at == 2 || body[at - 3] == b'\n')
    });
    let mut start = starts.next()? + boundary.len();
    for next in starts {
        let part = &body[start..next - 2];
        start = next + boundary.len();
        let part = &part[memchr(b'\n', part)? + 1..];
        let part = part
            .strip_suffix(b"\r\n")
            .or_else(|| part.strip_suffix(b"\n"))
            .unwrap_or(part);
        if let Some(content) = sdp_content(part) {
            return Some(content);
        }
    }
    None
}

/// The content of a part whose headers say `application/sdp`.
fn sdp_content(part: &[u8]) -> Option<&[u8]> {
    let mut rest = part;
    let mut is_sdp = false;
    loop {
        let end = memchr(b'\n', rest)?;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            return (is_sdp && !rest.is_empty()).then_some(rest);
        }
        let Some(colon) = memchr(b':', line) else {
            continue;
        };
        if trim(&line[..colon]).eq_ignore_ascii_case(b"content-type") {
            is_sdp = media_type(&line[colon + 1..]).eq_ignore_ascii_case(b"application/sdp");
        }
    }
}

/// Octets that may stand in a path URI.
const IN_URI: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0x21;
    while c < 0x7f {
        table[c] = true;
        c += 1;
    }
    table
};

/// Octets that may stand in one behind its scheme: no userinfo, fragment, query or delimiter.
const IN_PLAIN_URI: [bool; 256] = {
    let mut table = IN_URI;
    let refused = *b"@#<>\"?";
    let mut at = 0;
    while at < refused.len() {
        table[refused[at] as usize] = false;
        at += 1;
    }
    table
};

/// Octets of a host name or IPv4 address.
const IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0_u8;
    while c < 128 {
        table[c as usize] = c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        c += 1;
    }
    table
};

fn all_in(text: &[u8], table: &[bool; 256]) -> bool {
    text.iter()
        .fold(true, |all, &c| all & table[usize::from(c)])
}

/// Host and port of one plain `msrp` URI. Userinfo, fragments and `msrps` are refused (BAD-25).
pub(super) fn path_uri(uri: &[u8]) -> Result<(&[u8], u16), SdpError> {
    let bad = SdpError::Path;
    let (scheme, rest) = uri.split_first_chunk::<7>().ok_or(bad)?;
    if uri.len() > URI_BYTES_MAX || !octets::is_word(scheme, b"msrp://") {
        return Err(bad);
    }
    if !all_in(rest, &IN_PLAIN_URI) {
        return Err(bad);
    }
    let slash = octets::find(rest, b'/').ok_or(bad)?;
    let (authority, behind) = (&rest[..slash], &rest[slash + 1..]);
    // A slash behind the first semicolon is none of the address.
    if octets::find(authority, b';').is_some() {
        return Err(bad);
    }
    let semicolon = octets::find(behind, b';').filter(|&session_len| session_len > 0);
    let transport = &behind[semicolon.ok_or(bad)? + 1..];
    let transport = &transport[..octets::find(transport, b';').unwrap_or(transport.len())];
    if !octets::is_word(transport, b"tcp") {
        return Err(bad);
    }
    let colon = octets::rfind(authority, b':').ok_or(bad)?;
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    let port = parse_port(port).filter(|&port| port != 0).ok_or(bad)?;
    if host_is_plausible(host) {
        Ok((host, port))
    } else {
        Err(bad)
    }
}

fn host_is_plausible(host: &[u8]) -> bool {
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return false;
    }
    match host {
        [b'[', inner @ .., b']'] => {
            !inner.is_empty()
                && inner
                    .iter()
                    .all(|c| c.is_ascii_hexdigit() || b":.".contains(c))
        }
        name => all_in(name, &IN_HOST),
    }
}

/// Checks every URI of a path; the first is the one a connection goes to.
pub(super) fn check_path(path: &[u8]) -> Result<(), SdpError> {
    let mut count = 0;
    let mut rest = path;
    while !rest.is_empty() {
        let end = octets::find(rest, b' ').unwrap_or(rest.len());
        if end > 0 {
            path_uri(&rest[..end])?;
            count += 1;
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    if (1..=MSRP_PATH_URIS_MAX).contains(&count) {
        Ok(())
    } else {
        Err(SdpError::Path)
    }
}

/// The host of `IN IP4 host` or `IN IP6 host`; multicast forms with a slash are refused.
fn connection_host(value: &[u8]) -> Result<&[u8], SdpError> {
    if let Some((b"IN IP4 ", host)) = value.split_first_chunk::<7>()
        && !host.is_empty()
        && host.len() <= HOST_BYTES_MAX
        && all_in(host, &IN_HOST)
    {
        return Ok(host);
    }
    let mut fields = value
        .split(|&c| c == b' ')
        .filter(|field| !field.is_empty());
    let (net, family, host) = (fields.next(), fields.next(), fields.next());
    let plain = net.is_some_and(|net| net.eq_ignore_ascii_case(b"IN"))
        && family.is_some_and(|family| {
            family.eq_ignore_ascii_case(b"IP4") || family.eq_ignore_ascii_case(b"IP6")
        })
        && fields.next().is_none();
    host.filter(|host| plain && host.len() <= HOST_BYTES_MAX && !host.contains(&b'/'))
        .ok_or(SdpError::Addr)
}

/// A port in decimal, 0 to 65,535.
pub(super) fn parse_port(text: &[u8]) -> Option<u16> {
    if text.is_empty() || text.len() > 5 {
        return None;
    }
    parse_size(text).and_then(|port| u16::try_from(port).ok())
}

/// Digits as a number; saturates, as a size beyond 64 bits is merely "large".
fn parse_size(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |value, &digit| {
        value
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

/// Without blanks at both ends.
#[inline]
pub(super) const fn trim(text: &[u8]) -> &[u8] {
    octets::trim(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines up to the first error, octet by octet; `false` at the end says there was one.
    fn plainly(body: &[u8]) -> (Vec<(u8, Vec<u8>)>, bool) {
        let (mut lines, mut at) = (Vec::new(), 0);
        while !body[at..].iter().all(|c| b"\r\n".contains(c)) {
            let stop = |c: &u8| b"\r\n\0".contains(c);
            let end = body[at..].iter().position(stop);
            let end = end.map_or(body.len(), |end| at + end);
            let next = match &body[end..] {
                [] | [b'\r'] => body.len(),
                [b'\n', ..] => end + 1,
                [b'\r', b'\n', ..] => end + 2,
                _ => return (lines, false),
            };
            match &body[at..end] {
                [kind, b'=', value @ ..] if kind.is_ascii_lowercase() => {
                    lines.push((*kind, value.to_vec()));
                }
                _ => return (lines, false),
            }
            at = next;
        }
        (lines, true)
    }

    #[test]
    fn lines_are_those_of_a_plain_reading() {
        const PIECES: [&[u8]; 12] = [
            b"a=",
            b"b=",
            b"m=",
            b"\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"\t",
            b"xyz",
            b"\xc3\xa9",
            b"\x7f",
        ];
        let mut state = 1_u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % below
        };
        let (mut whole, mut broken) = (0, 0);
        for _ in 0..200_000 {
            let mut body = Vec::new();
            for _ in 0..next(8) {
                // Mostly good lines, so that many come to their end.
                if next(3) == 0 {
                    body.extend_from_slice(PIECES[next(PIECES.len())]);
                } else {
                    body.extend_from_slice(PIECES[next(3)]);
                    body.resize(body.len() + next(40), b'v');
                    body.extend_from_slice(PIECES[3 + next(3)]);
                }
            }
            let (mut lines, mut good) = (Vec::new(), true);
            for line in Lines::new(&body) {
                match line {
                    Ok(line) => lines.push((line.kind, line.value.to_vec())),
                    Err(_) => good = false,
                }
            }
            assert_eq!(
                (lines, good),
                plainly(&body),
                "{:?}",
                body.escape_ascii().to_string()
            );
            *if good { &mut whole } else { &mut broken } += 1;
        }
        assert!(whole > 10_000 && broken > 10_000, "{whole} {broken}");
    }
}
