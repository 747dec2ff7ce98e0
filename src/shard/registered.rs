//! The registration that comes along with a third-party REGISTER: copies of the UE's REGISTER and of its
//! 200 (ISC-3). Read only where the operator trusts the S-CSCF to send them; it spares the subscription.
//!
//! The 200 names every contact of the user with its GRUU, so it says what a full registration document
//! would: it is written down as one and goes the same way as those of NOTIFYs.

use std::io::Write as _;

use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::shard::Shard;
use crate::shard::frames::spare_table;
use crate::sip::header::Parameterized;
use crate::sip::message::{HeaderName, Message, NameAddr};
use crate::sip::parser;

/// Most contacts read.
const CONTACTS_MAX: usize = 32;

impl Shard {
    /// Takes over the contacts in the body of a third-party REGISTER; true if the user's registration is
    /// known from it.
    pub(super) fn take_registered(
        &mut self,
        now: Timestamp,
        key: Key,
        message: &Message<'_>,
    ) -> bool {
        let Some(answer) = copied_answer(message) else {
            return false;
        };
        let mut text = Vec::with_capacity(2048);
        let entry = self.registry.entry_mut(key).expect("found by the caller");
        if !write_document(&entry.user.identity, answer, &mut text) {
            return false;
        }
        if self.campaigns.document.parse(&text).is_err() {
            self.probe.reginfo_rejected_total += 1;
            return false;
        }
        let campaigns = &mut self.campaigns;
        let entry = self.registry.entry_mut(key).expect("found by the caller");
        // No document of a subscription came before, or none is wanted any more.
        entry.user.registration.restart();
        let applied = entry.user.apply(
            now,
            &campaigns.document,
            &campaigns.options.registry,
            &mut campaigns.lists,
        );
        entry.user.registration.restart();
        if applied.changed || applied.new_or_rebound_devices > 0 {
            self.campaigns.changed(now, key, &mut entry.extra);
        }
        applied.active_devices > 0
    }
}

/// The copy of a 200 to a REGISTER among the `message/sip` parts of a body.
fn copied_answer<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let content_type = message.header(HeaderName::ContentType)?;
    let kind = Parameterized::parse(content_type);
    let is_answer = |part: &[u8]| part.starts_with(b"SIP/2.0 200 ");
    if kind.value.eq_ignore_ascii_case(b"message/sip") {
        return Some(message.body()).filter(|body| is_answer(body));
    }
    if !kind.value.eq_ignore_ascii_case(b"multipart/mixed") {
        return None;
    }
    let boundary = kind.params.find(b"boundary")?;
    let boundary = boundary
        .strip_prefix(b"\"")
        .and_then(|quoted| quoted.strip_suffix(b"\""))
        .unwrap_or(boundary);
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let delimiter = [b"\r\n--", boundary].concat();
    let mut rest = message.body();
    let first = &delimiter[2..];
    rest = match rest.strip_prefix(first) {
        Some(rest) => rest,
        None => &rest[memchr::memmem::find(rest, &delimiter)? + delimiter.len()..],
    };
    loop {
        let end = memchr::memmem::find(rest, &delimiter)?;
        let part = &rest[..end];
        rest = &rest[end + delimiter.len()..];
        let head = memchr::memmem::find(part, b"\r\n\r\n")?;
        let lines = part[..head].to_ascii_lowercase();
        let content = &part[head + 4..];
        if memchr::memmem::find(&lines, b"message/sip").is_some() && is_answer(content) {
            return Some(content);
        }
    }
}

/// Writes the contacts of `answer` as a full registration document of `identity`; false when it has none
/// that could be used.
fn write_document(identity: &[u8], answer: &[u8], out: &mut Vec<u8>) -> bool {
    let mut table = spare_table();
    let Ok(answer) = parser::parse(answer, &mut table) else {
        return false;
    };
    out.extend_from_slice(
        b"<?xml version=\"1.0\"?><reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
          xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"0\" state=\"full\">\
          <registration aor=\"",
    );
    put_text(identity, out);
    out.extend_from_slice(b"\" id=\"copy\" state=\"active\">");
    let mut count = 0;
    for value in answer.values(HeaderName::Contact).take(CONTACTS_MAX) {
        let Ok(contact) = NameAddr::parse(value) else {
            continue;
        };
        count += 1;
        let fallback = answer.header(HeaderName::Expires).unwrap_or(b"600000");
        let expires = contact.params.find(b"expires").unwrap_or(fallback);
        write!(
            out,
            "<contact id=\"c{count}\" state=\"active\" event=\"registered\" expires=\""
        )
        .expect("writing to memory");
        put_text(expires, out);
        out.extend_from_slice(b"\" callid=\"");
        put_text(answer.call_id(), out);
        let cseq = answer.cseq().map_or(0, |cseq| cseq.number);
        write!(out, "\" cseq=\"{cseq}\"><uri>").expect("writing to memory");
        put_text(contact.uri, out);
        out.extend_from_slice(b"</uri>");
        let mut gruu = None;
        for param in contact.params.iter() {
            if param.name.eq_ignore_ascii_case(b"pub-gruu") {
                gruu = Some(param.unquoted());
            } else if param.name.starts_with(b"+") {
                out.extend_from_slice(b"<unknown-param name=\"");
                put_text(param.name, out);
                out.extend_from_slice(b"\">");
                put_text(param.value.unwrap_or_default(), out);
                out.extend_from_slice(b"</unknown-param>");
            }
        }
        if let Some(gruu) = gruu {
            out.extend_from_slice(b"<gr:pub-gruu uri=\"");
            put_text(gruu, out);
            out.extend_from_slice(b"\"/>");
        }
        out.extend_from_slice(b"</contact>");
    }
    out.extend_from_slice(b"</registration></reginfo>");
    count > 0
}

/// Appends text as XML; what XML cannot hold is left out.
fn put_text(text: &[u8], out: &mut Vec<u8>) {
    for &c in text {
        match c {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            0..=31 | 127 => {}
            _ => out.push(c),
        }
    }
}
