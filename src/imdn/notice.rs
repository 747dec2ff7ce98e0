//! The text of our own notifications (RFC 5438 sections 7.2 and 11.1). Layer 1.

use crate::base::time::UnixMillis;
use crate::cpim::datetime;
use crate::imdn::NoticeStatus;

/// What a notification is made of. All texts come from a checked message or are ours.
#[derive(Clone, Copy, Debug)]
pub struct NoticeFields<'a> {
    /// URI of the recipient whose message ended; the notification's CPIM From.
    pub from: &'a [u8],
    /// URI of the message's sender; the notification's CPIM To.
    pub to: &'a [u8],
    /// Now; the notification's CPIM DateTime.
    pub now: UnixMillis,
    /// A fresh id of the notification itself.
    pub notice_id: &'a [u8],
    /// `imdn.Message-ID` of the message.
    pub message_id: &'a [u8],
    /// DateTime of the message, as it was written (IMDN-6).
    pub message_datetime: &'a [u8],
    /// URI in the message's CPIM To.
    pub recipient_uri: &'a [u8],
    /// Required when the message had Original-To; empty leaves it out.
    pub original_recipient_uri: &'a [u8],
    /// What happened.
    pub status: NoticeStatus,
}

/// Appends a CPIM message with a notification that asks for no notification itself (IMDN-6).
pub fn encode_notice(fields: &NoticeFields<'_>, out: &mut Vec<u8>) {
    let f = fields;
    out.extend_from_slice(b"From: <");
    put_line(f.from, out);
    out.extend_from_slice(b">\r\nTo: <");
    put_line(f.to, out);
    out.extend_from_slice(b">\r\nDateTime: ");
    datetime::encode(f.now, out);
    out.extend_from_slice(b"\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: ");
    put_line(f.notice_id, out);
    out.extend_from_slice(
        b"\r\n\r\nContent-Type: message/imdn+xml\r\n\
          Content-Disposition: notification\r\nContent-Length: ",
    );
    // The length stands before the text: write the text once to measure it. Notices are rare.
    let mark = out.len();
    put_xml(f, out);
    let length = out.len() - mark;
    out.truncate(mark);
    put_decimal(length, out);
    out.extend_from_slice(b"\r\n\r\n");
    put_xml(f, out);
    debug_assert!(out.len() > mark + length, "the same text twice");
}

/// [`encode_notice`] with status `failed` (IMDN-4), whatever `fields` says.
pub fn encode_failed(fields: &NoticeFields<'_>, out: &mut Vec<u8>) {
    encode_notice(
        &NoticeFields {
            status: NoticeStatus::Failed,
            ..*fields
        },
        out,
    );
}

fn put_xml(f: &NoticeFields<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n\
          <imdn xmlns=\"urn:ietf:params:xml:ns:imdn\">\r\n",
    );
    put_element(b"message-id", f.message_id, out);
    put_element(b"datetime", f.message_datetime, out);
    put_element(b"recipient-uri", f.recipient_uri, out);
    if !f.original_recipient_uri.is_empty() {
        put_element(b"original-recipient-uri", f.original_recipient_uri, out);
    }
    let (kind, status): (&[u8], &[u8]) = match f.status {
        NoticeStatus::Error => (b"delivery", b"error"),
        NoticeStatus::Failed => (b"delivery", b"failed"),
        NoticeStatus::Forbidden => (b"delivery", b"forbidden"),
        NoticeStatus::Stored => (b"processing", b"stored"),
    };
    for part in [
        b"  <",
        kind,
        b"-notification>\r\n    <status>\r\n      <",
        status,
        b"/>\r\n    </status>\r\n  </",
        kind,
        b"-notification>\r\n</imdn>\r\n",
    ] {
        out.extend_from_slice(part);
    }
}

fn put_element(name: &[u8], text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"  <");
    out.extend_from_slice(name);
    out.push(b'>');
    for &c in text {
        match c {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            // XML 1.0 has no way to write the other control characters.
            0..=8 | 11..=31 | 127 => {}
            _ => out.push(c),
        }
    }
    out.extend_from_slice(b"</");
    out.extend_from_slice(name);
    out.extend_from_slice(b">\r\n");
}

/// Appends a value that stands in a header line, without any control character.
fn put_line(text: &[u8], out: &mut Vec<u8>) {
    out.extend(text.iter().filter(|c| !c.is_ascii_control()));
}

fn put_decimal(value: usize, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut at = text.len();
    let mut rest = value;
    loop {
        at -= 1;
        text[at] = b'0' + u8::try_from(rest % 10).expect("below ten");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}
