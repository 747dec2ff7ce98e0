//! Answering a peer's offer in a re-INVITE or UPDATE (DLG-10).

use core::net::IpAddr;

use super::answer::list_covers;
use super::scan::{Line, Lines, MediaLine, check_path, describe, media_type, sdp_part};
use super::{Answer, Direction, SdpError, Setup};

/// Our side of the session, for the answer's text.
#[derive(Clone, Copy, Debug)]
pub struct LocalMedia<'a> {
    /// The o= session id of our offer.
    pub session: u64,
    /// The o= version: that of our last description, plus one when the text changes (SDP-2).
    pub version: u32,
    /// Where we listen for MSRP; also the o= and c= address.
    pub host: IpAddr,
    /// Port of the path and the m= line.
    pub port: u16,
    /// The session-id of our path URI.
    pub msrp_session: &'a [u8],
    /// Value of `a=accept-types`.
    pub accept_types: &'a [u8],
    /// Value of `a=accept-wrapped-types`.
    pub accept_wrapped_types: &'a [u8],
    /// Value of `a=max-size`, octets.
    pub max_size: Option<u64>,
    /// Whether we state `a=msrp-cema`.
    pub cema: bool,
    /// The role we already have; `Active` or `Passive` as agreed.
    pub role: Setup,
}

/// What follows for the push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferOutcome {
    /// Delivery goes on; we answered sendonly.
    Continue,
    /// The stream was offered with port 0: answer, then BYE.
    Ended,
    /// The stream is inactive: delivery pauses until another offer.
    Paused,
}

/// The peer's new side and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferAnswer<'a> {
    /// What the push does now.
    pub outcome: OfferOutcome,
    /// The peer's media as offered; `None` when the stream ended. Its path may differ from before.
    pub peer: Option<Answer<'a>>,
}

/// Appends our answer to the peer's offer and says what follows.
///
/// Our direction stays: sendonly to an offer that lets us send, inactive to one that does not.
/// Media lines other than the first `message` line get port 0 (RFC 3264 section 6).
///
/// # Errors
/// The offer cannot be answered (488 is due); nothing was appended then.
pub fn answer_offer<'a>(
    body: &'a [u8],
    content_type: Option<&[u8]>,
    local: &LocalMedia<'_>,
    out: &mut Vec<u8>,
) -> Result<OfferAnswer<'a>, SdpError> {
    let text = sdp_part(body, content_type)?;
    let answer = judge(text)?;
    write_answer(text, local, answer.outcome, out);
    Ok(answer)
}

/// What [`answer_offer`] would say, without the answer's text.
///
/// # Errors
/// The offer cannot be answered: 488 is due.
pub fn judge_offer<'a>(
    body: &'a [u8],
    content_type: Option<&[u8]>,
) -> Result<OfferAnswer<'a>, SdpError> {
    judge(sdp_part(body, content_type)?)
}

/// Whether a body of this type can be an offer at all; else 415 is due.
#[must_use]
pub fn may_hold_sdp(content_type: &[u8]) -> bool {
    let essence = media_type(content_type);
    essence.eq_ignore_ascii_case(b"application/sdp")
        || essence
            .get(..10)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

fn judge(text: &[u8]) -> Result<OfferAnswer<'_>, SdpError> {
    let sdp = describe(text)?;
    if !sdp.media.is_message() {
        return Err(SdpError::Proto);
    }
    let (outcome, peer) = if sdp.media.port == 0 {
        (OfferOutcome::Ended, None)
    } else {
        let path = sdp.path.ok_or(SdpError::Path)?;
        check_path(path)?;
        let accept_types = sdp.accept_types.ok_or(SdpError::Type)?;
        if !list_covers(accept_types, b"message/cpim") {
            return Err(SdpError::Type);
        }
        let direction = sdp.direction.unwrap_or(Direction::Sendrecv);
        let outcome = match direction {
            Direction::Recvonly | Direction::Sendrecv => OfferOutcome::Continue,
            Direction::Inactive | Direction::Sendonly => OfferOutcome::Paused,
        };
        let peer = Answer {
            host: sdp.host,
            port: sdp.media.port,
            path,
            setup: sdp.setup,
            direction,
            max_size: sdp.max_size,
            accept_types,
            accept_wrapped_types: sdp.accept_wrapped_types,
            cema: sdp.cema,
        };
        (outcome, Some(peer))
    };
    Ok(OfferAnswer { outcome, peer })
}

/// Judges the offer of a session in which the peer sends us a message (INT-13): what it offers to send
/// must be `message/cpim` or left open, and it must be able to send at all.
///
/// # Errors
/// The offer cannot be answered: 488 is due.
pub fn judge_sending_offer<'a>(
    body: &'a [u8],
    content_type: Option<&[u8]>,
) -> Result<Answer<'a>, SdpError> {
    let sdp = describe(sdp_part(body, content_type)?)?;
    if !sdp.media.is_message() {
        return Err(SdpError::Proto);
    }
    if sdp.media.port == 0 {
        return Err(SdpError::Port0);
    }
    let path = sdp.path.ok_or(SdpError::Path)?;
    check_path(path)?;
    let accept_types = sdp.accept_types.ok_or(SdpError::Type)?;
    if !list_covers(accept_types, b"message/cpim") {
        return Err(SdpError::Type);
    }
    let direction = sdp.direction.unwrap_or(Direction::Sendrecv);
    match (direction, sdp.setup) {
        (Direction::Recvonly | Direction::Inactive, _) => return Err(SdpError::Dir),
        (_, Some(Setup::Holdconn)) => return Err(SdpError::Setup),
        (
            Direction::Sendonly | Direction::Sendrecv,
            Some(Setup::Active | Setup::Actpass | Setup::Passive) | None,
        ) => {}
    }
    Ok(Answer {
        host: sdp.host,
        port: sdp.media.port,
        path,
        setup: sdp.setup,
        direction,
        max_size: sdp.max_size,
        accept_types,
        accept_wrapped_types: sdp.accept_wrapped_types,
        cema: sdp.cema,
    })
}

/// Appends our answer to an offer that [`judge_sending_offer`] took: we receive.
///
/// # Errors
/// When the body holds no description; it was not judged then.
pub fn answer_sending_offer(
    body: &[u8],
    content_type: Option<&[u8]>,
    local: &LocalMedia<'_>,
    out: &mut Vec<u8>,
) -> Result<(), SdpError> {
    let text = sdp_part(body, content_type)?;
    write_lines(text, local, (local.port, Direction::Recvonly), out);
    Ok(())
}

fn write_answer(offer: &[u8], local: &LocalMedia<'_>, outcome: OfferOutcome, out: &mut Vec<u8>) {
    let ours = match outcome {
        OfferOutcome::Continue => (local.port, Direction::Sendonly),
        OfferOutcome::Ended => (0, Direction::Inactive),
        OfferOutcome::Paused => (local.port, Direction::Inactive),
    };
    write_lines(offer, local, ours, out);
}

fn write_lines(offer: &[u8], local: &LocalMedia<'_>, ours: (u16, Direction), out: &mut Vec<u8>) {
    write_session(local, out);
    let mut ours_done = false;
    for line in Lines::new(offer).flatten() {
        let Line { kind: b'm', value } = line else {
            continue;
        };
        let Ok(media) = MediaLine::parse(value) else {
            continue;
        };
        if media.is_message() && !ours_done {
            ours_done = true;
            write_ours(local, ours, out);
        } else {
            for piece in [
                b"m=",
                media.media,
                b" 0 ",
                media.proto,
                b" ",
                media.formats,
                b"\r\n",
            ] {
                out.extend_from_slice(piece);
            }
        }
    }
}

fn write_session(local: &LocalMedia<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"v=0\r\no=- ");
    put_decimal(out, local.session);
    out.push(b' ');
    put_decimal(out, u64::from(local.version));
    out.push(b' ');
    put_connection(out, local.host);
    out.extend_from_slice(b"\r\ns=-\r\nc=");
    put_connection(out, local.host);
    out.extend_from_slice(b"\r\nt=0 0\r\n");
}

fn write_ours(local: &LocalMedia<'_>, (port, direction): (u16, Direction), out: &mut Vec<u8>) {
    out.extend_from_slice(b"m=message ");
    put_decimal(out, u64::from(port));
    out.extend_from_slice(b" TCP/MSRP *\r\na=path:msrp://");
    put_host(out, local.host);
    out.push(b':');
    put_decimal(out, u64::from(local.port));
    for piece in [
        b"/",
        local.msrp_session,
        b";tcp\r\na=accept-types:",
        local.accept_types,
        b"\r\na=accept-wrapped-types:",
        local.accept_wrapped_types,
        b"\r\n",
    ] {
        out.extend_from_slice(piece);
    }
    if let Some(size) = local.max_size {
        out.extend_from_slice(b"a=max-size:");
        put_decimal(out, size);
        out.extend_from_slice(b"\r\n");
    }
    for piece in [
        "a=setup:",
        local.role.as_str(),
        if local.cema {
            "\r\na=msrp-cema\r\na="
        } else {
            "\r\na="
        },
        direction.as_str(),
        "\r\n",
    ] {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// Appends `IN IP4 host` or `IN IP6 host`.
fn put_connection(out: &mut Vec<u8>, host: IpAddr) {
    out.extend_from_slice(if host.is_ipv4() {
        b"IN IP4 "
    } else {
        b"IN IP6 "
    });
    put_text(out, format_args!("{host}"));
}

/// Appends the host as a URI writes it.
fn put_host(out: &mut Vec<u8>, host: IpAddr) {
    match host {
        IpAddr::V4(host) => put_text(out, format_args!("{host}")),
        IpAddr::V6(host) => put_text(out, format_args!("[{host}]")),
    }
}

fn put_decimal(out: &mut Vec<u8>, value: u64) {
    put_text(out, format_args!("{value}"));
}

fn put_text(out: &mut Vec<u8>, text: core::fmt::Arguments<'_>) {
    std::io::Write::write_fmt(out, text).expect("writing to a Vec cannot fail");
}
