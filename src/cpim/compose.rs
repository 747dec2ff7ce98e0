//! Writing CPIM: a wrapper for plain messages and the CPM identifiers. Layer 1.

use crate::base::time::UnixMillis;
use crate::cpim::{Cpim, CpimError, CpimErrorKind, NS_CPM, Namespaces, datetime, parse};

/// What to write as From when the sender asked for anonymity (RFC 3323 section 4.1.1.3, CPIM-4).
pub const ANONYMOUS: &[u8] = b"sip:anonymous@anonymous.invalid";

/// What a wrapper is made of (CPIM-3).
#[derive(Clone, Copy, Debug)]
pub struct TextFields<'a> {
    /// URI of the sender: P-Asserted-Identity, or [`ANONYMOUS`] under `Privacy: id`.
    pub from: &'a [u8],
    /// URI of the recipient: the identity in the Request-URI.
    pub to: &'a [u8],
    /// The SIP Date, or when the message came.
    pub when: UnixMillis,
    /// Content-Type as it came, with parameters.
    pub content_type: &'a [u8],
    /// The message, unchanged.
    pub content: &'a [u8],
}

/// Appends a CPIM message around content that came without one (CPIM-3).
///
/// # Errors
/// `BadValue` when a URI or the content type could not stand in a header; nothing is appended.
pub fn wrap_text(fields: &TextFields<'_>, out: &mut Vec<u8>) -> Result<(), CpimError> {
    let f = fields;
    let uris_fit = [f.from, f.to]
        .iter()
        .all(|uri| is_clean(uri) && !uri.iter().any(|c| matches!(c, b' ' | b'<' | b'>')));
    if !uris_fit || !is_clean(f.content_type) {
        return Err(CpimError::new(CpimErrorKind::BadValue, 0));
    }
    out.extend_from_slice(b"From: <");
    out.extend_from_slice(f.from);
    out.extend_from_slice(b">\r\nTo: <");
    out.extend_from_slice(f.to);
    out.extend_from_slice(b">\r\nDateTime: ");
    datetime::encode(f.when, out);
    out.extend_from_slice(b"\r\n\r\nContent-Type: ");
    out.extend_from_slice(f.content_type);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(f.content);
    Ok(())
}

/// Appends `cpim` with those of the three CPM identifiers that it lacks (CPIM-5).
///
/// Empty identifiers are left out. They go to the end of the header section, under the prefix the
/// message has for the namespace, else under a new `NS: cpm` line; every other octet is copied.
///
/// # Errors
/// What [`parse`] says of the message, or `BadValue` for an identifier that cannot stand in a
/// header; nothing is appended.
pub fn ensure_cpm_headers(
    cpim: &[u8],
    conversation: &[u8],
    contribution: &[u8],
    in_reply_to: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CpimError> {
    let parsed = parse(cpim)?;
    let wanted = [
        (&b"Conversation-ID"[..], conversation),
        (b"Contribution-ID", contribution),
        (b"InReplyTo-Contribution-ID", in_reply_to),
    ];
    if !wanted.iter().all(|(_, value)| is_clean_or_empty(value)) {
        return Err(CpimError::new(CpimErrorKind::BadValue, 0));
    }
    let missing =
        |&&(name, value): &&(&[u8], &[u8])| !value.is_empty() && parsed.find_cpm(name).is_none();
    let headers_len = parsed.headers.len();
    out.extend_from_slice(&cpim[..headers_len]);
    if wanted.iter().any(|row| missing(&row)) {
        let prefix = known_prefix(&parsed);
        if prefix.is_none() {
            out.extend_from_slice(b"NS: cpm <");
            out.extend_from_slice(NS_CPM);
            out.extend_from_slice(b">\r\n");
        }
        for (name, value) in wanted.iter().filter(missing) {
            match prefix {
                Some([]) => {}
                Some(prefix) => {
                    out.extend_from_slice(prefix);
                    out.push(b'.');
                }
                None => out.extend_from_slice(b"cpm."),
            }
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(&cpim[headers_len..]);
    Ok(())
}

/// The prefix bound to the CPM namespace where the header section ends.
fn known_prefix<'a>(cpim: &Cpim<'a>) -> Option<&'a [u8]> {
    let mut namespaces = Namespaces::default();
    for header in cpim.headers() {
        if header.prefix.is_empty() && header.name == b"NS" {
            namespaces.learn(header.value);
        }
    }
    namespaces.prefix_of(NS_CPM)
}

fn is_clean(value: &[u8]) -> bool {
    !value.is_empty() && is_clean_or_empty(value)
}

fn is_clean_or_empty(value: &[u8]) -> bool {
    core::str::from_utf8(value).is_ok() && !value.iter().any(u8::is_ascii_control)
}
