//! Responses to requests, as server (RFC 3261 section 8.2.6) (layer 1).
//!
//! A response repeats what the request said: all Via, From, To, Call-ID and CSeq, and Record-Route
//! where a dialog may form. What is repeated was bounded and checked by the parser; folds are
//! joined, so no line of the request begins a line of the response except as one header field.
//!
//! What this does **not** do: deciding the status, and keeping responses for retransmission
//! (`sip::transaction`).

use core::net::{IpAddr, SocketAddr};
use std::io::Write as _;

use crate::base::span::Span;
use crate::sip::message::{Entry, HeaderName, Message, Method, Via};
use crate::sip::scan::find_near;

/// Octets of a response that come neither from the request nor from the caller: the status line,
/// a tag, `received` and `rport`, long names for compact ones.
const OWN_BYTES: usize = 512;

/// Appends a response to `request`, which came from `source`.
///
/// * `reason` - the reason phrase; empty takes [`reason_phrase`].
/// * `to_tag` - added when the request's To has no tag, except to a 100; may be empty for a 100.
/// * `extra_headers` - complete lines with CRLF, put before Content-Length; Content-Type among
///   them when there is a body.
/// * `body` - may be empty.
///
/// The top Via gets `received` when the address in sent-by is not the source, or when `rport` asks
/// for it, which is then filled (SX-3, RFC 3581 section 4). A *name* in sent-by gets `received`
/// over UDP only: over a connection the response goes back on it, and the name cannot be compared.
/// A `received` that the request brought along is dropped, for it is ours to write.
///
/// Call it with a parsed or salvaged message; a header missing in the latter is left out.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of a response; a struct would be built for one call and taken apart"
)]
pub fn respond(
    request: &Message<'_>,
    source: SocketAddr,
    status: u16,
    reason: &str,
    to_tag: &[u8],
    extra_headers: &[u8],
    body: &[u8],
    out: &mut Vec<u8>,
) {
    debug_assert!(request.is_request(), "a response answers a request");
    debug_assert!((100..700).contains(&status), "a status has three digits");
    debug_assert!(
        extra_headers.is_empty() || extra_headers.ends_with(b"\r\n"),
        "extra headers are complete lines"
    );
    let reason = if reason.is_empty() {
        reason_phrase(status)
    } else {
        reason
    };
    out.reserve(request.headers_len() + extra_headers.len() + body.len() + OWN_BYTES);
    put_status_line(status, reason, out);
    copy_vias(request, source, out);
    copy_lines(request, HeaderName::From, b"From: ", out);
    copy_to(request, status, to_tag, out);
    copy_lines(request, HeaderName::CallId, b"Call-ID: ", out);
    copy_lines(request, HeaderName::CSeq, b"CSeq: ", out);
    if status == 100 {
        copy_lines(request, HeaderName::Timestamp, b"Timestamp: ", out);
    } else if (101..300).contains(&status) && may_form_dialog(request.method()) {
        copy_lines(request, HeaderName::RecordRoute, b"Record-Route: ", out);
    }
    out.extend_from_slice(extra_headers);
    if body.is_empty() {
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        return;
    }
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(Decimal::new(body.len() as u64).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Where a response to `request` goes over UDP: to the source address, and to the source port if
/// `rport` asked for that, else to the port of sent-by (RFC 3261 section 18.2.2, RFC 3581).
#[must_use]
pub fn reply_address(request: &Message<'_>, source: SocketAddr) -> SocketAddr {
    match request.via_top() {
        Ok(via) if via.rport.is_none() => SocketAddr::new(source.ip(), via.port.unwrap_or(5060)),
        Ok(_) | Err(_) => source,
    }
}

fn put_status_line(status: u16, reason: &str, out: &mut Vec<u8>) {
    if status == 200 && reason == "OK" {
        out.extend_from_slice(b"SIP/2.0 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"SIP/2.0 ");
    out.extend_from_slice(Decimal::new(u64::from(status)).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn copy_vias(request: &Message<'_>, source: SocketAddr, out: &mut Vec<u8>) {
    let mut lines = request.entries(HeaderName::Via);
    let Some(first) = lines.next() else {
        return;
    };
    let (start, end) = first.value();
    let line = &request.bytes()[start..end];
    if request.top_via_is_alone() {
        put_only_via(request, first, source, out);
    } else if let Some(value) = request.values(HeaderName::Via).next() {
        // The first line may hold empty list elements or more values around the first.
        let span = Span::of(line, value);
        out.extend_from_slice(b"Via: ");
        put_top_via(request, value, source, out);
        put_unfolded(&line[span.start as usize + span.len as usize..], out);
        out.extend_from_slice(b"\r\n");
    }
    for entry in lines {
        copy_line(request, entry, b"Via: ", out);
    }
}

/// Writes the first Via line, which holds one value.
fn put_only_via(request: &Message<'_>, entry: &Entry, source: SocketAddr, out: &mut Vec<u8>) {
    if let Ok(via) = request.via_top()
        && via.rport.is_none()
        && via.received.is_none()
        && !wants_received(&via, source)
    {
        copy_line(request, entry, b"Via: ", out);
        return;
    }
    let (start, end) = entry.value();
    out.extend_from_slice(b"Via: ");
    put_top_via(request, &request.bytes()[start..end], source, out);
    out.extend_from_slice(b"\r\n");
}

/// The address in sent-by is not where the request came from; a name tells only over UDP.
fn wants_received(via: &Via<'_>, source: SocketAddr) -> bool {
    match sent_by_address(via.host) {
        Some(address) => address != canonical(source.ip()),
        None => via.transport.eq_ignore_ascii_case(b"UDP"),
    }
}

/// Writes one Via value with `received` and `rport` as they must be.
fn put_top_via(request: &Message<'_>, value: &[u8], source: SocketAddr, out: &mut Vec<u8>) {
    let Ok(via) = request.via_top() else {
        put_unfolded(value, out);
        return;
    };
    let asks_rport = via.rport.is_some();
    let differs = wants_received(&via, source);
    if asks_rport || via.received.is_some() {
        rewrite_parameters(value, source.port(), out);
    } else {
        put_unfolded(value, out);
    }
    if differs || asks_rport {
        // IPv6 addresses stand here without brackets (RFC 3261 section 25.1, via-received).
        out.extend_from_slice(b";received=");
        put_address(canonical(source.ip()), out);
    }
}

/// Writes a Via value with `rport` filled and without a `received`.
fn rewrite_parameters(value: &[u8], port: u16, out: &mut Vec<u8>) {
    for (index, piece) in split_parameters(value).enumerate() {
        let name = piece.split(|&c| c == b'=').next().unwrap_or_default();
        let name = name.trim_ascii();
        if index > 0 && name.eq_ignore_ascii_case(b"received") {
            continue;
        }
        if index > 0 {
            out.push(b';');
        }
        if index > 0 && name.eq_ignore_ascii_case(b"rport") {
            out.extend_from_slice(b"rport=");
            out.extend_from_slice(Decimal::new(u64::from(port)).as_bytes());
        } else {
            put_unfolded(piece, out);
        }
    }
}

fn put_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(Decimal::new(u64::from(octet)).as_bytes());
            }
        }
        IpAddr::V6(_) => write!(out, "{address}").expect("writing to a Vec cannot fail"),
    }
}

fn copy_to(request: &Message<'_>, status: u16, to_tag: &[u8], out: &mut Vec<u8>) {
    let Some(entry) = request.entries(HeaderName::To).next() else {
        return;
    };
    copy_line(request, entry, b"To: ", out);
    if status != 100 && !to_tag.is_empty() && request.to_tag().is_none() {
        out.truncate(out.len() - 2);
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(to_tag);
        out.extend_from_slice(b"\r\n");
    }
}

#[inline]
fn copy_lines<const N: usize>(
    request: &Message<'_>,
    name: HeaderName,
    text: &[u8; N],
    out: &mut Vec<u8>,
) {
    for entry in request.entries(name) {
        copy_line(request, entry, text, out);
    }
}

/// Copies a line: as it stands where it is written as we write it, `text` being the name with colon
/// and blank.
#[inline]
fn copy_line<const N: usize>(
    request: &Message<'_>,
    entry: &Entry,
    text: &[u8; N],
    out: &mut Vec<u8>,
) {
    let bytes = request.bytes();
    let (start, end) = entry.value();
    let line = bytes.get(entry.line()..end + 2).unwrap_or_default();
    let ours = line.starts_with(text) && line.ends_with(b"\r\n") && entry.line() + N == start;
    if ours && request.is_unfolded() {
        out.extend_from_slice(line);
        return;
    }
    out.extend_from_slice(text);
    put_unfolded(&bytes[start..end], out);
    out.extend_from_slice(b"\r\n");
}

/// Appends `value` with every line end inside it removed; the blank that follows one stays.
#[inline]
fn put_unfolded(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(value);
    // The copy is scanned, not the value: most have no fold.
    if find_near(&out[start..], b'\n').is_some() {
        unfold(start, out);
    }
}

#[cold]
fn unfold(start: usize, out: &mut Vec<u8>) {
    let mut kept = start;
    for at in start..out.len() {
        let byte = out[at];
        out[kept] = byte;
        kept += usize::from(!matches!(byte, b'\r' | b'\n'));
    }
    out.truncate(kept);
}

/// The value before the first semicolon, then each parameter; quoted semicolons do not split.
fn split_parameters(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    value.split(move |&c| {
        let inside = quoted;
        match c {
            _ if escaped => escaped = false,
            b'\\' => escaped = inside,
            b'"' => quoted = !inside,
            _ => {}
        }
        c == b';' && !inside
    })
}

/// The address in sent-by; `None` for a name.
fn sent_by_address(host: &[u8]) -> Option<IpAddr> {
    if let Some(address) = plain_ipv4(host) {
        return Some(address);
    }
    // Addresses begin with a digit or a bracket and end with a digit or a bracket.
    let last = *host.last()?;
    if !(last.is_ascii_hexdigit() || last == b']') || host[0].is_ascii_alphabetic() {
        return None;
    }
    let text = core::str::from_utf8(host).ok()?;
    let text = text
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(text);
    text.parse().ok().map(canonical)
}

/// Four numbers without leading zeros; `None` for all else.
fn plain_ipv4(host: &[u8]) -> Option<IpAddr> {
    let mut octets = [0_u8; 4];
    let mut index = 0;
    let (mut number, mut digits) = (0_u16, 0);
    for &byte in host {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            // The second digit of a number must not follow a zero.
            if digits == 3 || (digits > 0 && number == 0) {
                return None;
            }
            number = number * 10 + u16::from(digit);
            digits += 1;
        } else if byte == b'.' && digits > 0 && index < 3 {
            octets[index] = u8::try_from(number).ok()?;
            index += 1;
            (number, digits) = (0, 0);
        } else {
            return None;
        }
    }
    octets[3] = u8::try_from(number).ok()?;
    (index == 3 && digits > 0).then(|| IpAddr::from(octets))
}

/// An IPv4 peer seen through a dual-stack socket is that IPv4 peer.
const fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Methods whose 18x and 2xx carry a route set (RFC 3261 section 12.1.1, RFC 6665, RFC 3515).
const fn may_form_dialog(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Refer | Method::Subscribe)
}

/// A number in decimal, on the stack.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    digits: [u8; Self::CAPACITY],
    start: usize,
}

impl Decimal {
    /// Digits of the largest 64-bit number.
    const CAPACITY: usize = 20;

    #[inline]
    fn new(value: u64) -> Self {
        let mut digits = [b'0'; Self::CAPACITY];
        let mut start = Self::CAPACITY;
        let mut rest = value;
        loop {
            start -= 1;
            digits[start] += (rest % 10).to_le_bytes()[0];
            rest /= 10;
            if rest == 0 {
                return Self { digits, start };
            }
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// The registered reason phrase, or that of the class.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400..500 => client_error_phrase(status),
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        _ => match status / 100 {
            1 => "Session Progress",
            2 => "OK",
            3 => "Multiple Choices",
            5 => "Server Internal Error",
            _ => "Busy Everywhere",
        },
    }
}

const fn client_error_phrase(status: u16) -> &'static str {
    match status {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        439 => "First Hop Lacks Outbound Support",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        _ => "Bad Request",
    }
}

#[cfg(test)]
mod tests;
