//! SIP and MSRP as far as the judge of `chaos` needs them. Shares nothing with the engine.

/// A SIP message as text, and its body.
#[derive(Debug)]
pub(super) struct Sip {
    head: String,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "bodies of SIP are for the tests")
    )]
    pub(super) body: String,
}

impl Sip {
    /// Takes the first whole message off `bytes`.
    pub(super) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let blank = bytes
            .iter()
            .take_while(|byte| b"\r\n".contains(byte))
            .count();
        bytes.drain(..blank);
        let end = find(bytes, b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
        let length = line(&head, "Content-Length").and_then(|text| text.parse::<usize>().ok());
        let total = end + length.unwrap_or(0);
        let body = String::from_utf8_lossy(bytes.get(end..total)?).into_owned();
        bytes.drain(..total);
        Some(Self { head, body })
    }

    /// The method of a request, empty for a response.
    pub(super) fn method(&self) -> &str {
        let first = self.head.split(' ').next().unwrap_or_default();
        if first.starts_with("SIP/") { "" } else { first }
    }

    /// The status of a response, zero for a request.
    pub(super) fn status(&self) -> u16 {
        if !self.method().is_empty() {
            return 0;
        }
        let status = self.head.split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The Request-URI.
    pub(super) fn uri(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        line(&self.head, name).unwrap_or_default()
    }

    /// A response that repeats what a response must.
    pub(super) fn answer(&self, status: &str, extra: &str, body: &str) -> Vec<u8> {
        let mut out = format!("SIP/2.0 {status}\r\n");
        let lines = self.head.split("\r\n");
        for via in lines.filter(|line| line.to_ascii_lowercase().starts_with("via:")) {
            out.push_str(via);
            out.push_str("\r\n");
        }
        let to = self.header("To");
        let tag = if to.contains(";tag=") {
            ""
        } else {
            ";tag=judge"
        };
        let (from, call_id) = (self.header("From"), self.header("Call-ID"));
        let cseq = self.header("CSeq");
        out.push_str(&format!(
            "From: {from}\r\nTo: {to}{tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n{extra}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        out.into_bytes()
    }
}

fn line<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// An MSRP frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) transaction: String,
    pub(super) method: String,
    head: String,
    pub(super) body: Vec<u8>,
    /// `$`, `+` or `#`.
    pub(super) flag: u8,
}

impl Frame {
    /// Takes the first whole frame off `bytes`.
    pub(super) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let first_end = find(bytes, b"\r\n")?;
        let first = String::from_utf8_lossy(&bytes[..first_end]).into_owned();
        let mut words = first.split(' ').skip(1);
        let transaction = words.next().unwrap_or_default().to_owned();
        let method = words.next().unwrap_or_default().to_owned();
        let end_line = format!("-------{transaction}");
        let end = find(bytes, end_line.as_bytes())?;
        let total = end + end_line.len() + 3;
        let flag = *bytes.get(total - 3)?;
        bytes.get(..total)?;
        let whole = &bytes[first_end + 2..end];
        let (head, body) = match find(whole, b"\r\n\r\n") {
            Some(at) => {
                let body = &whole[at + 4..];
                (&whole[..at], body.strip_suffix(b"\r\n").unwrap_or(body))
            }
            None => (whole, &b""[..]),
        };
        let frame = Self {
            transaction,
            method,
            head: format!("\r\n{}", String::from_utf8_lossy(head)),
            body: body.to_vec(),
            flag,
        };
        bytes.drain(..total);
        Some(frame)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        line(&self.head, name).unwrap_or_default()
    }
}

pub(super) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_frames_are_taken_whole_and_in_order() {
        let text =
            "MESSAGE sip:a SIP/2.0\r\nVia: x\r\nTo: <sip:a>\r\nContent-Length: 3\r\n\r\nabcSIP";
        let mut bytes = text.as_bytes().to_vec();
        let cut = bytes.len() - 3;
        let mut part = bytes[..cut - 1].to_vec();
        assert!(Sip::take(&mut part).is_none());
        let sip = Sip::take(&mut bytes).unwrap();
        assert_eq!(
            (sip.method(), sip.uri(), sip.body.as_str()),
            ("MESSAGE", "sip:a", "abc")
        );
        assert_eq!(bytes, b"SIP");
        let answer = String::from_utf8(sip.answer("202 Accepted", "", "")).unwrap();
        assert!(answer.contains("Via: x\r\n") && answer.contains("To: <sip:a>;tag=judge"));
        let text = "MSRP t1 SEND\r\nMessage-ID: m\r\nByte-Range: 1-2/2\r\n\r\nhi\r\n-------t1$\r\n";
        let mut bytes = text.as_bytes().to_vec();
        let frame = Frame::take(&mut bytes).unwrap();
        assert_eq!(
            (frame.method.as_str(), frame.body.as_slice()),
            ("SEND", &b"hi"[..])
        );
        assert_eq!((frame.header("message-id"), frame.flag), ("m", b'$'));
        assert!(bytes.is_empty());
    }
}
