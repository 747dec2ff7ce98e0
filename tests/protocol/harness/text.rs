//! SIP messages and MSRP frames as plain text: a reader of its own, so that no fault of the engine's
//! codecs can hide itself.

use volley::base::surface::LinkId;
use volley::base::time::Timestamp;

/// One SIP message the engine sent.
#[derive(Clone, Debug)]
pub(crate) struct Sip {
    /// The link it left by.
    pub(crate) link: LinkId,
    /// Its destination, for a datagram.
    pub(crate) to: Option<std::net::SocketAddr>,
    /// When it left.
    pub(crate) at: Timestamp,
    /// All of it.
    pub(crate) text: String,
    /// Request line or status line.
    pub(crate) start: String,
    /// Names and values in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: String,
}

impl Sip {
    pub(crate) fn parse(
        link: LinkId,
        to: Option<std::net::SocketAddr>,
        at: Timestamp,
        bytes: &[u8],
    ) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("the engine sends UTF-8 in tests");
        let (head, body) = text.split_once("\r\n\r\n").expect("a header section ends");
        let mut lines = head.split("\r\n");
        let start = lines.next().expect("a start line").to_owned();
        let headers = lines
            .map(|line| {
                assert!(!line.contains(['\r', '\n']), "bare line end in {line:?}");
                let (name, value) = line.split_once(": ").expect("name, colon, space, value");
                (name.to_owned(), value.to_owned())
            })
            .collect();
        let body = body.to_owned();
        Self {
            link,
            to,
            at,
            text,
            start,
            headers,
            body,
        }
    }

    /// The only value of header `name`.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "one {name} in\n{}", self.text);
        all[0]
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// `INVITE` of a request, `200` of a response.
    pub(crate) fn what(&self) -> &str {
        let mut words = self.start.split(' ');
        let first = words.next().expect("a word");
        if first == "SIP/2.0" {
            words.next().expect("a status")
        } else {
            first
        }
    }

    pub(crate) fn uri(&self) -> &str {
        self.start.split(' ').nth(1).expect("a Request-URI")
    }

    pub(crate) fn branch(&self) -> &str {
        param(self.get("Via"), "branch")
    }

    pub(crate) fn sender_tag(&self) -> &str {
        param(self.get("From"), "tag")
    }

    pub(crate) fn to_tag(&self) -> &str {
        param(self.get("To"), "tag")
    }

    pub(crate) fn call_id(&self) -> &str {
        self.get("Call-ID")
    }

    pub(crate) fn cseq(&self) -> u32 {
        let number = self.get("CSeq").split(' ').next().expect("a number");
        number.parse().expect("a CSeq number")
    }

    /// The MSRP path in its SDP.
    pub(crate) fn path(&self) -> &str {
        let line = self
            .body
            .split("\r\n")
            .find_map(|l| l.strip_prefix("a=path:"));
        line.expect("an offer has a path")
    }
}

/// The parameter `name` of a header value; empty when absent.
pub(crate) fn param<'a>(value: &'a str, name: &str) -> &'a str {
    value
        .split(';')
        .skip(1)
        .find_map(|item| item.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or("")
}

/// Length of the SIP message at the front of a stream, by its Content-Length.
pub(crate) fn sip_len(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("headers are UTF-8");
    let line = text
        .split("\r\n")
        .find_map(|l| l.strip_prefix("Content-Length: "));
    let len: usize = line
        .expect("a stream message has its length")
        .parse()
        .expect("a number");
    (bytes.len() >= head + len).then_some(head + len)
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// One MSRP frame the engine sent.
#[derive(Clone, Debug)]
pub(crate) struct Msrp {
    /// The connection.
    pub(crate) link: LinkId,
    /// All of it.
    pub(crate) text: String,
    /// Transaction identifier.
    pub(crate) tid: String,
    /// `SEND`, `REPORT` or the status.
    pub(crate) what: String,
    /// The body, empty when there is none.
    pub(crate) body: String,
    /// `$`, `+` or `#`.
    pub(crate) flag: char,
}

impl Msrp {
    /// The frame at the front of a stream, with its length.
    pub(crate) fn parse(link: LinkId, bytes: &[u8]) -> Option<(Self, usize)> {
        let line_end = find(bytes, b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..line_end]).expect("UTF-8");
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("MSRP"), "{line}");
        let tid = words.next().expect("a transaction").to_owned();
        let what = words.next().expect("a method or status").to_owned();
        let mark = format!("-------{tid}");
        let end = find(bytes, mark.as_bytes())?;
        let len = end + mark.len() + 3;
        if bytes.len() < len {
            return None;
        }
        let flag = char::from(bytes[len - 3]);
        assert_eq!(&bytes[len - 2..len], b"\r\n", "an end-line ends");
        let text = String::from_utf8(bytes[..len].to_vec()).expect("UTF-8 in tests");
        let body = match text[..end].split_once("\r\n\r\n") {
            Some((_, body)) => body
                .strip_suffix("\r\n")
                .expect("CRLF after a body")
                .to_owned(),
            None => String::new(),
        };
        let frame = Self {
            link,
            text,
            tid,
            what,
            body,
            flag,
        };
        Some((frame, len))
    }

    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        let value = self
            .text
            .split("\r\n")
            .find_map(|l| l.strip_prefix(&*prefix));
        value.unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }

    /// `start, end, total` of the Byte-Range.
    pub(crate) fn range(&self) -> (u64, u64, u64) {
        let value = self.get("Byte-Range");
        let (range, total) = value.split_once('/').expect("a total");
        let (start, end) = range.split_once('-').expect("a range");
        let number = |text: &str| text.parse().expect("a number");
        (number(start), number(end), number(total))
    }
}

/// Writes CRLF for every line end of `text`.
pub(crate) fn crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

/// Identifiers that differ from run to run replaced by `*`, so that a message can be compared with
/// an example header by header, order included.
pub(crate) fn normalised(text: &str) -> String {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let body: Vec<String> = body.split("\r\n").map(normalised_sdp).collect();
    let body = body.join("\r\n");
    let head: Vec<String> = head
        .split("\r\n")
        .map(|line| match line.split_once(": ") {
            Some(("Content-Length", _)) => format!("Content-Length: {}", body.len()),
            Some(("Call-ID", value)) => {
                let host = value.split_once('@').map_or("", |(_, host)| host);
                format!("Call-ID: *@{host}")
            }
            Some(("Via" | "From" | "To" | "P-Charging-Vector", _)) => starred(line),
            _ => line.to_owned(),
        })
        .collect();
    format!("{}\r\n\r\n{body}", head.join("\r\n"))
}

fn normalised_sdp(line: &str) -> String {
    if let Some(rest) = line.strip_prefix("o=- ") {
        let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
        return format!("o=- * {rest}");
    }
    match line.strip_prefix("a=path:") {
        Some(path) => format!("a=path:{}", starred_path(path)),
        None => line.to_owned(),
    }
}

fn starred(line: &str) -> String {
    let items: Vec<String> = line
        .split(';')
        .map(|item| {
            for name in ["branch=", "tag=", "P-Charging-Vector: icid-value="] {
                if item.starts_with(name) {
                    return format!("{name}*");
                }
            }
            item.to_owned()
        })
        .collect();
    items.join(";")
}

fn starred_path(path: &str) -> String {
    let (front, session) = path.rsplit_once('/').expect("a path has a session");
    let suffix = session.split_once(';').map_or("", |(_, suffix)| suffix);
    format!("{front}/*;{suffix}")
}

/// As [`normalised`], for MSRP.
pub(crate) fn normalised_msrp(text: &str) -> String {
    let tid = text.split(' ').nth(1).expect("a transaction");
    let text = text.replace(tid, "*");
    let lines: Vec<String> = text
        .split("\r\n")
        .map(|line| match line.split_once(": ") {
            Some((name @ ("To-Path" | "From-Path"), path)) => {
                format!("{name}: {}", starred_path(path))
            }
            Some(("Message-ID", _)) => "Message-ID: *".to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    lines.join("\r\n")
}
