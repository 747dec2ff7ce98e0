//! Writing CPIM: a wrapper for plain messages and the CPM identifiers. Layer 1.

use crate::base::octets;
use crate::base::time::UnixMillis;
use crate::cpim::{
    Cpim, CpimError, CpimErrorKind, HEADER_BYTES_MAX, HEADER_LINES_MAX, NAMESPACES_MAX, NS_CPM,
    datetime, parse,
};

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

/// The CPM identifiers a message is to have; empty ones are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identifiers<'a> {
    /// Conversation-ID.
    pub conversation: &'a [u8],
    /// Contribution-ID.
    pub contribution: &'a [u8],
    /// InReplyTo-Contribution-ID.
    pub in_reply_to: &'a [u8],
}

/// Appends `cpim` with those of the three CPM identifiers that it lacks (CPIM-5).
///
/// # Errors
/// What [`parse`] says of the message, or those of [`add_identifiers`]; nothing is appended.
pub fn ensure_cpm_headers(
    cpim: &[u8],
    conversation: &[u8],
    contribution: &[u8],
    in_reply_to: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CpimError> {
    let ids = Identifiers {
        conversation,
        contribution,
        in_reply_to,
    };
    add_identifiers(cpim, &parse(cpim)?, &ids, out)
}

/// Appends `bytes`, which [`parse`] read as `cpim`, with those of the CPM identifiers that it lacks.
///
/// They go to the end of the header section, under the prefix the message has for the namespace,
/// else under a new `NS: cpm` line; every other octet is copied. What [`parse`] found in the message
/// it finds in the result too.
///
/// # Errors
/// `BadValue` for an identifier that cannot stand in a header, and what [`parse`] would say of the
/// longer message; nothing is appended.
pub fn add_identifiers(
    bytes: &[u8],
    cpim: &Cpim<'_>,
    ids: &Identifiers<'_>,
    out: &mut Vec<u8>,
) -> Result<(), CpimError> {
    let known = &cpim.known;
    let wanted = [
        (
            &b"Conversation-ID: "[..],
            ids.conversation,
            known.conversation,
        ),
        (b"Contribution-ID: ", ids.contribution, known.contribution),
        (
            b"InReplyTo-Contribution-ID: ",
            ids.in_reply_to,
            known.in_reply_to,
        ),
    ];
    if !wanted.iter().all(|(_, value, _)| is_clean_or_empty(value)) {
        return Err(CpimError::new(CpimErrorKind::BadValue, 0));
    }
    let headers_len = cpim.headers.len();
    let start = out.len();
    out.reserve(bytes.len() + 512);
    out.extend_from_slice(&bytes[..headers_len]);
    let (mut lines, mut prefix) = (known.lines, known.cpm_prefix);
    for (name, value, present) in wanted {
        if value.is_empty() || present.is_some() {
            continue;
        }
        let prefix = *prefix.get_or_insert_with(|| {
            out.extend_from_slice(b"NS: cpm <");
            out.extend_from_slice(NS_CPM);
            out.extend_from_slice(b">\r\n");
            lines += 1;
            b"cpm"
        });
        if !prefix.is_empty() {
            out.extend_from_slice(prefix);
            out.push(b'.');
        }
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        lines += 1;
    }
    let added = out.len() - start - headers_len;
    let error = match added {
        0 => None,
        _ if headers_len + added + 2 > HEADER_BYTES_MAX || lines > HEADER_LINES_MAX => {
            Some(CpimErrorKind::TooLong)
        }
        // At the limit a further namespace is refused, unless it takes over a prefix.
        _ if known.cpm_prefix.is_none()
            && known.namespaces == NAMESPACES_MAX
            && parse(&[&out[start..], b"\r\n\r\n"].concat()).is_err() =>
        {
            Some(CpimErrorKind::Namespace)
        }
        _ => None,
    };
    if let Some(kind) = error {
        out.truncate(start);
        return Err(CpimError::new(kind, headers_len));
    }
    out.extend_from_slice(&bytes[headers_len..]);
    Ok(())
}

fn is_clean(value: &[u8]) -> bool {
    !value.is_empty() && is_clean_or_empty(value)
}

fn is_clean_or_empty(value: &[u8]) -> bool {
    let seen = octets::find_control(value);
    seen.at == value.len() && (seen.ascii || core::str::from_utf8(value).is_ok())
}
