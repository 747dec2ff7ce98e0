//! A cheap MSRP tokenizer (RFC 4975): one frame at the start of a receive buffer.

use memchr::{memchr, memmem};

use crate::identity::read_digits;

/// Longest frame taken, octets; header section and body.
pub const FRAME_MAX: usize = 1024 * 1024;
/// Longest header section, octets.
const HEAD_MAX: usize = 8 * 1024;

/// First line of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Another method than SEND and REPORT.
    Other,
    /// REPORT.
    Report,
    /// A response with its status.
    Response(u16),
    /// SEND.
    Send,
}

/// A `Byte-Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First octet, from one.
    pub start: u64,
    /// Last octet; `None` for `*`.
    pub end: Option<u64>,
    /// Octets of the whole message; `None` for `*`.
    pub total: Option<u64>,
}

/// A frame in a receive buffer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The whole frame.
    pub bytes: &'a [u8],
    /// Transaction id.
    pub tid: &'a [u8],
    /// What the first line says.
    pub start: Start,
    /// To-Path.
    pub to_path: &'a [u8],
    /// From-Path.
    pub from_path: &'a [u8],
    /// Message-ID, empty when missing.
    pub message_id: &'a [u8],
    /// Byte-Range.
    pub range: Option<Range>,
    /// Success-Report value, empty when missing.
    pub success_report: &'a [u8],
    /// Failure-Report value, empty when missing.
    pub failure_report: &'a [u8],
    /// Content-Type, empty when missing.
    pub content_type: &'a [u8],
    /// The body; `None` for a frame without.
    pub body: Option<&'a [u8]>,
    /// Continuation flag.
    pub flag: u8,
    /// To-Path was first, From-Path second, Content-Type last.
    pub order_ok: bool,
}

/// What lies at the start of a buffer.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A whole frame and its length.
    Frame(Frame<'a>, usize),
    /// More octets are needed.
    Incomplete,
    /// The stream is lost.
    Error,
}

/// Reads the frame at the start of `buffer`.
pub fn parse(buffer: &[u8]) -> Parsed<'_> {
    let Some(end) = memchr(b'\n', &buffer[..buffer.len().min(HEAD_MAX)]) else {
        return short(buffer, HEAD_MAX);
    };
    let Some((tid, start)) = first_line(crate::scan::trim_end(&buffer[..end])) else {
        return Parsed::Error;
    };
    let mut frame = Frame {
        bytes: buffer,
        tid,
        start,
        to_path: &[],
        from_path: &[],
        message_id: &[],
        range: None,
        success_report: &[],
        failure_report: &[],
        content_type: &[],
        body: None,
        flag: 0,
        order_ok: true,
    };
    let mut at = end + 1;
    let mut index = 0;
    loop {
        let Some(end) = memchr(b'\n', &buffer[at..]) else {
            return short(buffer, HEAD_MAX);
        };
        let line = &buffer[at..at + end];
        let next = at + end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return body(frame, buffer, next);
        }
        if let Some(flag) = end_line(line, tid) {
            frame.flag = flag;
            frame.bytes = &buffer[..next];
            return Parsed::Frame(frame, next);
        }
        if next > HEAD_MAX {
            return Parsed::Error;
        }
        header(&mut frame, line, index);
        index += 1;
        at = next;
    }
}

fn short(buffer: &[u8], max: usize) -> Parsed<'static> {
    if buffer.len() >= max {
        Parsed::Error
    } else {
        Parsed::Incomplete
    }
}

fn first_line(line: &[u8]) -> Option<(&[u8], Start)> {
    let rest = line.strip_prefix(b"MSRP ")?;
    let space = memchr(b' ', rest)?;
    let (tid, what) = (&rest[..space], &rest[space + 1..]);
    let start = match what {
        b"SEND" => Start::Send,
        b"REPORT" => Start::Report,
        _ if what.first().is_some_and(u8::is_ascii_digit) => {
            let status = read_digits(what.get(..3)?)?;
            Start::Response(u16::try_from(status).ok()?)
        }
        _ => Start::Other,
    };
    Some((tid, start))
}

fn end_line(line: &[u8], tid: &[u8]) -> Option<u8> {
    match line.strip_prefix(b"-------")?.strip_prefix(tid)? {
        [flag @ (b'$' | b'+' | b'#')] => Some(*flag),
        _ => None,
    }
}

#[inline]
fn header<'a>(frame: &mut Frame<'a>, line: &'a [u8], index: usize) {
    let Some(colon) = memchr(b':', line) else {
        frame.order_ok = false;
        return;
    };
    let value = crate::scan::trim_start(&line[colon + 1..]);
    if !frame.content_type.is_empty() {
        frame.order_ok = false;
    }
    match &line[..colon] {
        b"To-Path" => {
            frame.order_ok &= index == 0;
            frame.to_path = value;
        }
        b"From-Path" => {
            frame.order_ok &= index == 1;
            frame.from_path = value;
        }
        b"Message-ID" => frame.message_id = value,
        b"Byte-Range" => frame.range = range(value),
        b"Success-Report" => frame.success_report = value,
        b"Failure-Report" => frame.failure_report = value,
        b"Content-Type" => frame.content_type = value,
        _ => {}
    }
}

fn range(value: &[u8]) -> Option<Range> {
    let dash = memchr(b'-', value)?;
    let slash = memchr(b'/', value)?;
    let number = |digits: &[u8]| match digits {
        b"*" => Some(None),
        _ => read_digits(digits).map(Some),
    };
    let end = number(value.get(dash + 1..slash)?)?;
    Some(Range {
        start: read_digits(&value[..dash])?,
        end,
        total: number(&value[slash + 1..])?,
    })
}

/// Finds the end of the body: where Byte-Range says it is, else by search.
fn body<'a>(mut frame: Frame<'a>, buffer: &'a [u8], at: usize) -> Parsed<'a> {
    if let Some(Range {
        start,
        end: Some(end),
        ..
    }) = frame.range
        && end + 1 >= start
        && end - start < FRAME_MAX as u64
    {
        let stop = at + (end + 1 - start) as usize;
        let needed = stop + 2 + 7 + frame.tid.len() + 1 + 2;
        if buffer.len() < needed {
            return Parsed::Incomplete;
        }
        if &buffer[stop..stop + 2] == b"\r\n"
            && let Some(flag) = end_line(&buffer[stop + 2..needed - 2], frame.tid)
            && &buffer[needed - 2..needed] == b"\r\n"
        {
            frame.flag = flag;
            frame.body = Some(&buffer[at..stop]);
            frame.bytes = &buffer[..needed];
            return Parsed::Frame(frame, needed);
        }
    }
    search(frame, buffer, at)
}

fn search<'a>(mut frame: Frame<'a>, buffer: &'a [u8], at: usize) -> Parsed<'a> {
    let mut from = at;
    while let Some(found) = memmem::find(&buffer[from..], b"\r\n-------") {
        let line_at = from + found + 2;
        let Some(end) = memchr(b'\n', &buffer[line_at..]) else {
            break;
        };
        if let Some(flag) = end_line(
            crate::scan::trim_end(&buffer[line_at..line_at + end]),
            frame.tid,
        ) {
            let next = line_at + end + 1;
            frame.flag = flag;
            frame.body = Some(&buffer[at..from + found]);
            frame.bytes = &buffer[..next];
            return Parsed::Frame(frame, next);
        }
        from = line_at;
    }
    short(buffer, FRAME_MAX)
}

/// Whether `text` is `ident` of RFC 4975: 4 to 32 characters.
pub fn is_ident(text: &[u8]) -> bool {
    (4..=32).contains(&text.len())
        && text[0].is_ascii_alphanumeric()
        && text
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b".-+%=".contains(&byte))
}

/// Session-id of the first URI of a path: between the last slash and the semicolon.
pub fn session_id(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"msrp://")?;
    let slash = memchr(b'/', rest)?;
    let rest = &rest[slash + 1..];
    Some(&rest[..memchr(b';', rest)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: &[u8] = b"MSRP t4Ke91XbQz07WmPd SEND\r\n\
        To-Path: msrp://198.51.100.7:2855/Zt4hVd0PqL8nKx2cJf6u;tcp\r\n\
        From-Path: msrp://192.0.2.10:2855/k9Qv3tZs1mXbW7aEoR2y;tcp\r\n\
        Message-ID: vM0000a1.u7F3kQ\r\nSuccess-Report: yes\r\nByte-Range: 1-11/11\r\n\
        Content-Type: message/cpim\r\n\r\nab\r\n-------c\r\n-------t4Ke91XbQz07WmPd$\r\n";

    #[test]
    fn reads_a_send_whose_body_looks_like_an_end_line() {
        let bytes: Vec<u8> = SEND
            .to_vec()
            .windows(1)
            .flat_map(<[u8]>::to_vec)
            .collect::<Vec<u8>>();
        let text = String::from_utf8(bytes)
            .unwrap()
            .replace("1-11/11", "1-12/12");
        let Parsed::Frame(frame, length) = parse(text.as_bytes()) else {
            panic!("no frame");
        };
        assert_eq!(length, text.len());
        assert_eq!(frame.start, Start::Send);
        assert_eq!(frame.body, Some(b"ab\r\n-------c".as_slice()));
        assert_eq!(frame.flag, b'$');
        assert!(frame.order_ok);
        assert_eq!(
            session_id(frame.to_path),
            Some(b"Zt4hVd0PqL8nKx2cJf6u".as_slice())
        );
        for end in 0..text.len() {
            assert!(
                matches!(parse(&text.as_bytes()[..end]), Parsed::Incomplete),
                "{end}"
            );
        }
    }

    #[test]
    fn finds_the_end_when_the_range_lies() {
        let Parsed::Frame(frame, length) = parse(SEND) else {
            panic!("no frame");
        };
        assert_eq!(length, SEND.len());
        assert_eq!(frame.body, Some(b"ab\r\n-------c".as_slice()));
        assert_eq!(frame.range.unwrap().total, Some(11));
    }

    #[test]
    fn never_panics_on_mutated_input() {
        let mut state = 0x1234_5678_9abc_def1u64;
        for _ in 0..20_000 {
            let mut bytes = SEND.to_vec();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state % bytes.len() as u64) as usize;
                bytes[at] = (state >> 32) as u8;
            }
            if let Parsed::Frame(frame, _) = parse(&bytes) {
                let _ = session_id(frame.to_path);
            }
        }
    }
}
