//! The peers' own SIP and MSRP: simple, strict, and sharing nothing with the engine's codecs.
//!
//! What the engine sends must parse here or the run fails: no folded lines, no missing mandatory
//! header, a Content-Length that is exact.

use core::fmt::Write as _;

/// A SIP message, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Sip {
    /// Method; of a response the method of its CSeq.
    pub(super) method: String,
    /// Request-URI; empty for a response.
    pub(super) uri: String,
    /// Status; 0 for a request.
    pub(super) status: u16,
    /// Fields in order.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: Vec<u8>,
    /// A fingerprint of all octets.
    pub(super) print: u64,
}

/// FNV-1a over `bytes`, going on from `hash`.
pub(super) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The start of an FNV-1a hash.
pub(super) const FNV: u64 = 0xcbf2_9ce4_8422_2325;

impl Sip {
    /// One whole message and nothing else.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut all = Self::split(bytes)?;
        match (all.pop(), all.len()) {
            (Some(one), 0) => Ok(one),
            _ => Err("a datagram holds exactly one message".into()),
        }
    }

    /// Whole messages, one after the other; keep-alives between them are skipped.
    pub(super) fn split(mut bytes: &[u8]) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        while !bytes.is_empty() {
            let head = find(bytes, b"\r\n\r\n").ok_or("a header section without end")?;
            let text = core::str::from_utf8(&bytes[..head]).map_err(|_| "octets not UTF-8")?;
            let mut message = Self::head(text)?;
            let length = message
                .header("Content-Length")
                .ok_or("no Content-Length")?
                .parse::<usize>()
                .map_err(|_| "Content-Length is no number")?;
            let end = head + 4 + length;
            message.body = bytes
                .get(head + 4..end)
                .ok_or("shorter than its Content-Length")?
                .to_vec();
            message.print = fnv(FNV, &bytes[..end]);
            all.push(message);
            bytes = &bytes[end..];
        }
        Ok(all)
    }

    fn head(text: &str) -> Result<Self, String> {
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default();
        let mut words = start.splitn(3, ' ');
        let (first, second, third) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let mut message = Self {
            method: first.to_owned(),
            uri: second.to_owned(),
            status: 0,
            headers: Vec::with_capacity(24),
            body: Vec::new(),
            print: 0,
        };
        if first == "SIP/2.0" {
            message.status = second.parse().map_err(|_| format!("status in {start:?}"))?;
            message.uri.clear();
        } else if third != "SIP/2.0" {
            return Err(format!("start line {start:?}"));
        }
        for line in lines {
            let (name, value) = line
                .split_once(": ")
                .ok_or_else(|| format!("header line {line:?}"))?;
            if name.is_empty() || value != value.trim() {
                return Err(format!("header line {line:?}"));
            }
            message.headers.push((name.to_owned(), value.to_owned()));
        }
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            if message.header(name).is_none() {
                return Err(format!("no {name} in {start:?}"));
            }
        }
        let (number, method) = message
            .need("CSeq")
            .split_once(' ')
            .ok_or("CSeq without method")?;
        number.parse::<u32>().map_err(|_| "CSeq without number")?;
        if message.status == 0 && method != message.method {
            return Err(format!("CSeq of another method in {start:?}"));
        }
        message.method = method.to_owned();
        Ok(message)
    }

    /// The first field of `name`.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// A field that was checked to be there, or an empty text.
    pub(super) fn need(&self, name: &str) -> &str {
        self.header(name).unwrap_or_default()
    }

    /// The Call-ID.
    pub(super) fn call_id(&self) -> &str {
        self.need("Call-ID")
    }

    /// The number of the CSeq.
    pub(super) fn cseq(&self) -> u32 {
        let number = self.need("CSeq").split(' ').next().unwrap_or_default();
        number.parse().unwrap_or(0)
    }

    /// The branch of the top Via.
    pub(super) fn branch(&self) -> &str {
        param(self.need("Via"), "branch").unwrap_or_default()
    }

    /// The tag of `name`, if it has one.
    pub(super) fn tag(&self, name: &str) -> Option<&str> {
        param(self.need(name), "tag")
    }

    /// A response to this request. `tag` is put into To when it has none; `extra` are whole lines.
    pub(super) fn answer(&self, status: u16, tag: &str, extra: &str, body: &str) -> Vec<u8> {
        let mut text = format!("SIP/2.0 {status} Reason\r\n");
        for (name, value) in &self.headers {
            let copied = ["Via", "From", "Call-ID", "CSeq"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name));
            if copied {
                let _ = write!(text, "{name}: {value}\r\n");
            } else if name.eq_ignore_ascii_case("To") {
                let tagged = param(value, "tag").is_some() || tag.is_empty();
                let tag = if tagged {
                    String::new()
                } else {
                    format!(";tag={tag}")
                };
                let _ = write!(text, "To: {value}{tag}\r\n");
            }
        }
        text.push_str(extra);
        if !body.is_empty() {
            text.push_str("Content-Type: application/sdp\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
        text.into_bytes()
    }
}

/// The parameter `name` behind the address or the sent-by of a header value.
pub(super) fn param<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let after = value.rfind('>').map_or(value, |at| &value[at..]);
    after.split(';').skip(1).find_map(|item| {
        let (key, text) = item.split_once('=').unwrap_or((item, ""));
        key.eq_ignore_ascii_case(name).then_some(text)
    })
}

/// The URI between the angle brackets.
pub(super) fn uri_of(value: &str) -> &str {
    let start = value.find('<').map_or(0, |at| at + 1);
    let end = value.find('>').unwrap_or(value.len());
    &value[start..end]
}

/// The port of `host:port`, of a URI or a sent-by with a numeric host.
pub(super) fn port_of(text: &str) -> Option<u16> {
    let (_, tail) = text.rsplit_once(':')?;
    let digits: String = tail.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The value of the first SDP line `a=<name>:`.
pub(super) fn sdp_attribute<'a>(body: &'a [u8], name: &str) -> Option<&'a str> {
    let text = core::str::from_utf8(body).ok()?;
    text.split("\r\n").find_map(|line| {
        let rest = line.strip_prefix("a=")?.strip_prefix(name)?;
        rest.strip_prefix(':')
    })
}

/// First place of `needle`.
pub(super) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|part| part == needle)
}

/// An MSRP frame, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Msrp {
    /// Transaction id.
    pub(super) tid: String,
    /// `SEND`, `REPORT`, or empty for a response.
    pub(super) method: String,
    /// Status of a response.
    pub(super) status: u16,
    /// Fields in order.
    pub(super) headers: Vec<(String, String)>,
    /// The body, if there was one.
    pub(super) body: Option<Vec<u8>>,
    /// Continuation flag.
    pub(super) flag: u8,
}

impl Msrp {
    /// Whole frames, one after the other.
    pub(super) fn split(mut bytes: &[u8]) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (frame, used) = Self::one(bytes)?;
            all.push(frame);
            bytes = &bytes[used..];
        }
        Ok(all)
    }

    fn one(bytes: &[u8]) -> Result<(Self, usize), String> {
        let line = find(bytes, b"\r\n").ok_or("MSRP without a line")?;
        let start = core::str::from_utf8(&bytes[..line]).map_err(|_| "MSRP start line")?;
        let mut words = start.split(' ');
        let (proto, tid, what) = (words.next(), words.next(), words.next());
        let (Some("MSRP"), Some(tid), Some(what)) = (proto, tid, what) else {
            return Err(format!("MSRP start line {start:?}"));
        };
        let closing = format!("\r\n-------{tid}");
        let end = find(bytes, closing.as_bytes()).ok_or("MSRP frame without end-line")?;
        let flag_at = end + closing.len();
        let flag = *bytes.get(flag_at).ok_or("MSRP end-line without flag")?;
        if !b"$+#".contains(&flag) || bytes.get(flag_at + 1..flag_at + 3) != Some(b"\r\n") {
            return Err("MSRP end-line".into());
        }
        let inner = bytes.get(line + 2..end).unwrap_or_default();
        let (head, body) = match find(inner, b"\r\n\r\n") {
            Some(at) => (&inner[..at], Some(inner[at + 4..].to_vec())),
            None => (inner, None),
        };
        let head = core::str::from_utf8(head).map_err(|_| "MSRP header not UTF-8")?;
        let mut headers = Vec::new();
        for text in head.split("\r\n") {
            let (name, value) = text
                .split_once(": ")
                .ok_or_else(|| format!("MSRP header {text:?}"))?;
            headers.push((name.to_owned(), value.to_owned()));
        }
        let status = what.parse().unwrap_or(0);
        let frame = Self {
            tid: tid.to_owned(),
            method: if status == 0 {
                what.to_owned()
            } else {
                String::new()
            },
            status,
            headers,
            body,
            flag,
        };
        if frame.need("To-Path").is_empty() || frame.need("From-Path").is_empty() {
            return Err("MSRP without paths".into());
        }
        Ok((frame, flag_at + 3))
    }

    /// The first field of `name`, or an empty text.
    pub(super) fn need(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value.as_str())
    }

    /// Byte-Range as (start, end, total).
    pub(super) fn range(&self) -> Option<(usize, usize, usize)> {
        let (span, total) = self.need("Byte-Range").split_once('/')?;
        let (start, end) = span.split_once('-')?;
        Some((start.parse().ok()?, end.parse().ok()?, total.parse().ok()?))
    }

    /// The session-id in the To-Path.
    pub(super) fn session(&self) -> &str {
        session_of(self.need("To-Path"))
    }

    /// A response to this frame.
    pub(super) fn answer(&self, status: u16) -> Vec<u8> {
        let (tid, to, from) = (&self.tid, self.need("From-Path"), self.need("To-Path"));
        format!(
            "MSRP {tid} {status} Status\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n-------{tid}$\r\n"
        )
        .into_bytes()
    }

    /// A REPORT on octets `range` of the message this frame is of.
    pub(super) fn report(&self, tid: &str, range: (usize, usize, usize), status: u16) -> Vec<u8> {
        let (to, from) = (self.need("From-Path"), self.need("To-Path"));
        let id = self.need("Message-ID");
        let (start, end, total) = range;
        format!(
            "MSRP {tid} REPORT\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {id}\r\n\
             Byte-Range: {start}-{end}/{total}\r\nStatus: 000 {status} OK\r\n-------{tid}$\r\n"
        )
        .into_bytes()
    }
}

/// The session-id of an MSRP URI.
pub(super) fn session_of(path: &str) -> &str {
    let tail = path.rsplit('/').next().unwrap_or_default();
    tail.split(';').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_apart_and_answered() {
        let text = "BYE sip:a@h SIP/2.0\r\nVia: SIP/2.0/TCP h:5061;branch=z9hG4bKx;oc\r\n\
                    From: <sip:p@h>;tag=f\r\nTo: <sip:u@h>\r\nCall-ID: c\r\nCSeq: 7 BYE\r\n\
                    Content-Length: 2\r\n\r\nhi";
        let sip = Sip::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (sip.branch(), sip.cseq(), sip.tag("From")),
            ("z9hG4bKx", 7, Some("f"))
        );
        assert_eq!(
            port_of(sip.need("Via").split(';').next().unwrap()),
            Some(5061)
        );
        let answer = Sip::parse(&sip.answer(200, "t", "", "")).unwrap();
        assert_eq!((answer.status, answer.tag("To")), (200, Some("t")));
        assert!(Sip::parse(&text.as_bytes()[..text.len() - 1]).is_err());
        assert!(Sip::parse(text.replace("Call-ID: c\r\n", "").as_bytes()).is_err());
    }

    #[test]
    fn frames_are_split_at_their_end_lines() {
        let text = "MSRP ab SEND\r\nTo-Path: msrp://h:1/s1;tcp\r\nFrom-Path: msrp://h:2/s2;tcp\r\n\
                    Message-ID: m\r\nByte-Range: 1-2/2\r\nContent-Type: message/cpim\r\n\r\nhi\r\n\
                    -------ab$\r\nMSRP cd 200 OK\r\nTo-Path: x\r\nFrom-Path: y\r\n-------cd$\r\n";
        let frames = Msrp::split(text.as_bytes()).unwrap();
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].body.as_deref(), Some(&b"hi"[..]));
        assert_eq!(
            (frames[0].session(), frames[0].range()),
            ("s1", Some((1, 2, 2)))
        );
        assert_eq!((frames[1].status, frames[1].body.is_none()), (200, true));
    }
}
