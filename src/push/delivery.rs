//! The MSRP side of a push: connection, binding, SENDs, responses, REPORTs (layer 3).
//!
//! The session machine decides what may be sent; this part finds the bytes and the connection.

use core::net::SocketAddr;
use core::time::Duration;

use crate::base::octets;
use crate::base::outbox::Destination;
use crate::base::slab::Key;
use crate::base::surface::{LinkId, LinkKind, Location};
use crate::base::time::Timestamp;
use crate::base::token::TokenKind;
use crate::msrp::frame::{self, BindFields, Frame, OurPath, SendFields};
use crate::msrp::session::{Evidence, Outcome as Step, SessionFailure};
use crate::push::post::Post;
use crate::push::reason::MessageReason;
use crate::push::{Ctx, Inflight, Outcome, Push, PushState, guard_after};
use crate::sdp::{Answer, Direction, Role, SdpError, Setup};
use crate::store::parts::{Manifest, PartPlace};
use crate::store::record;

/// Marks a connect token as belonging to a push's MSRP connection.
const MSRP_TOKEN: u64 = 1 << 62;

/// The connect token of `key`'s MSRP connection after `moves` others.
#[must_use]
pub const fn connect_token(key: Key, moves: u8) -> u64 {
    MSRP_TOKEN | (moves as u64) << 54 | (key.slot as u64) << 28 | key.generation as u64
}

/// Which connection of its push a token asked for.
#[must_use]
pub fn moves_of_token(token: u64) -> u8 {
    u8::try_from(token >> 54 & 0xff).expect("masked to 8 bits")
}

/// The push a connect token belongs to.
#[must_use]
pub fn push_of_token(token: u64) -> Option<Key> {
    (token & MSRP_TOKEN != 0).then(|| Key {
        slot: u32::try_from(token >> 28 & 0x03ff_ffff).expect("masked to 26 bits"),
        generation: u32::try_from(token & 0x0fff_ffff).expect("masked to 28 bits"),
    })
}

/// Takes what the answer says and sets the MSRP session going.
///
/// # Errors
/// When the address of the answer cannot be used (SDP-21) or its setup cannot (SDP-14).
pub fn attach(push: &mut Push, ctx: &mut Ctx<'_>, answer: &Answer<'_>) -> Result<(), SdpError> {
    // A stream on hold is not waited for (SDP-12 with `inactive_hold` 0).
    if answer.direction == Direction::Inactive {
        return Err(SdpError::Dir);
    }
    take_media(push, answer);
    push.session.reset(&ctx.env.dialect(push).session);
    let role = if answer.setup == Some(Setup::Active) {
        Role::Wait
    } else {
        Role::Connect
    };
    open(push, ctx, answer, role)
}

fn take_media(push: &mut Push, answer: &Answer<'_>) {
    push.media.path.clear();
    push.media.path.extend_from_slice(answer.path);
    // Inside the wrapper a type may be that either list names (RFC 4975 section 8.6).
    let allowed = &mut push.media.wrapped_types;
    allowed.clear();
    if let Some(wrapped) = answer.accept_wrapped_types {
        allowed.extend_from_slice(wrapped);
        allowed.push(b' ');
        allowed.extend_from_slice(answer.accept_types);
    }
    push.media.max_size = answer.max_size;
}

/// Where to connect to, if we may.
fn reachable(ctx: &Ctx<'_>, answer: &Answer<'_>) -> Result<SocketAddr, SdpError> {
    let address = answer.connect_address()?;
    if crate::sdp::address_allowed(address, ctx.env.options.media_guard) {
        Ok(address)
    } else {
        Err(SdpError::Addr)
    }
}

/// Waits for the peer's connection, or makes ours.
fn open(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    answer: &Answer<'_>,
    role: Role,
) -> Result<(), SdpError> {
    if role == Role::Wait {
        push.state = PushState::Binding;
        push.guard = guard_after(ctx.now, ctx.env.options.await_connection);
        return Ok(());
    }
    let address = reachable(ctx, answer)?;
    push.state = PushState::Connecting;
    push.guard = guard_after(ctx.now, ctx.env.options.connect + Duration::from_secs(1));
    let mut moves = 0;
    if let Some(session) = &mut push.negotiation {
        session.connect_to = Some(address);
        moves = session.moves;
    }
    if ctx.env.options.msrp_reuse {
        if let Some(link) = ctx.post.shared_links.open(address) {
            bind(push, ctx, link);
            return Ok(());
        }
        if !ctx.post.shared_links.wait(address, push.key()) {
            return Ok(());
        }
    }
    ctx.probe.msrp_connects_total += 1;
    let token = connect_token(push.key(), moves);
    ctx.out.connect(token, LinkKind::MsrpOutbound, address);
    Ok(())
}

/// Whether a new description of the peer leaves the connection, or the wait for it, as it is.
fn keeps_connection(push: &Push, answer: &Answer<'_>, role: Role) -> bool {
    let connects = push.state == PushState::Connecting;
    push.media.path == answer.path
        && (push.msrp_link.is_some() || connects == (role == Role::Connect))
}

/// Whether [`renew`] would succeed.
///
/// # Errors
/// As [`renew`].
pub fn can_renew(
    push: &Push,
    ctx: &Ctx<'_>,
    answer: &Answer<'_>,
    role: Role,
) -> Result<(), SdpError> {
    if role == Role::Wait || keeps_connection(push, answer, role) {
        return Ok(());
    }
    reachable(ctx, answer).map(drop)
}

/// Takes over a new description of a session that is agreed. Another path is another MSRP session
/// (RFC 4975 section 8.2): its connection is made anew, and what was under way is sent again there.
///
/// # Errors
/// When we are to connect to an address that cannot be used (SDP-21); nothing is changed then.
pub fn renew(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    answer: &Answer<'_>,
    role: Role,
) -> Result<(), SdpError> {
    can_renew(push, ctx, answer, role)?;
    let kept = keeps_connection(push, answer, role);
    take_media(push, answer);
    if kept {
        if push.state == PushState::Binding {
            push.guard = guard_after(ctx.now, ctx.env.options.await_connection);
        }
        return Ok(());
    }
    unbind(push, ctx);
    push.inflight.clear();
    push.last_number = 0;
    push.waiting_for = None;
    push.bound_by_us = false;
    push.inbound.reset();
    push.session.reset(&ctx.env.dialect(push).session);
    if let Some(session) = &mut push.negotiation {
        session.moves = session.moves.wrapping_add(1);
    }
    open(push, ctx, answer, role)
}

/// Whether a connection to `peer`, asked for as connect number `moves`, is the one the push waits for.
#[must_use]
pub fn awaits(push: &Push, moves: u8, peer: Option<SocketAddr>) -> bool {
    let Some(expected) = &push.negotiation else {
        return push.state == PushState::Connecting;
    };
    let same_place = match (peer, expected.connect_to) {
        // A shared connection was asked for by another push, perhaps.
        (Some(peer), Some(to)) => peer == to,
        (Some(_), None) | (None, _) => expected.moves == moves,
    };
    push.state == PushState::Connecting && same_place
}

/// The session has its connection: from here messages may flow.
pub fn bind(push: &mut Push, ctx: &mut Ctx<'_>, link: LinkId) {
    let key = push.key();
    if let Some(state) = ctx.out.lookup_mut(link) {
        state.bound = Some(key);
        state.bound_count += 1;
    }
    push.msrp_link = Some(link);
    push.state = PushState::Delivering;
    push.guard = Timestamp::NEVER;
}

/// Gives up the connection; the last session to leave a private one closes it.
pub fn unbind(push: &mut Push, ctx: &mut Ctx<'_>) {
    let Some(link) = push.msrp_link.take() else {
        return;
    };
    let place = core::mem::take(&mut push.held_back);
    if place > 0 {
        ctx.post.leave_line(link, place);
    }
    let Some(state) = ctx.out.lookup_mut(link) else {
        return;
    };
    state.bound_count = state.bound_count.saturating_sub(1);
    if state.bound_count > 0 {
        return;
    }
    // Who opened it closes it: the peer heard of the end by BYE.
    if state.kind == LinkKind::MsrpInbound {
        ctx.out.leave(link);
    } else if !ctx.env.options.msrp_reuse {
        ctx.out.close(link);
    }
}

/// What sending needs to know of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It may be sent.
    Send {
        /// Octets of the CPIM.
        total: u64,
        /// It lies in parts.
        in_parts: bool,
    },
    /// The record must be read first.
    Load,
    /// Larger than the peer takes (SDP-18).
    TooLarge,
    /// Of a type the peer does not take (SDP-19).
    Type,
    /// The record makes no sense.
    Unreadable,
}

/// Whether message `number` can be sent in this session now.
pub fn judge(push: &Push, ctx: &Ctx<'_>, number: u64) -> Fit {
    let Some(payload) = ctx.post.cache.lookup(number) else {
        return Fit::Load;
    };
    let Some((content_type, cpim)) = record::content_of(payload) else {
        return Fit::Unreadable;
    };
    let in_parts = record::is_large(payload);
    let mut total = u64::try_from(cpim.len()).unwrap_or(u64::MAX);
    if in_parts {
        let Some(list) = Manifest::read(cpim) else {
            return Fit::Unreadable;
        };
        total = list.total;
    }
    if push.media.max_size.is_some_and(|max| total > max) {
        return Fit::TooLarge;
    }
    if !push.media.wrapped_types.is_empty()
        && !crate::sdp::list_covers(&push.media.wrapped_types, media_type(content_type))
    {
        return Fit::Type;
    }
    Fit::Send { total, in_parts }
}

/// A content type without its parameters.
fn media_type(content_type: &[u8]) -> &[u8] {
    let end = octets::find(content_type, b';').unwrap_or(content_type.len());
    octets::trim(&content_type[..end])
}

/// Hands message `number` of `total` octets to the session machine. Its record is in the cache, or it lies
/// in parts.
pub fn begin(push: &mut Push, now: Timestamp, number: u64, (total, in_parts): (u64, bool)) {
    push.inflight.push(Inflight { number, since: now });
    push.in_parts = in_parts;
    push.messages_sent += 1;
    push.session.start_message(handle_of(number), total);
}

/// The session machine's name of a message. Numbers of different starts of the engine differ above
/// bit 32 alone, so that all bits must count; two of one name are not sent at a time ([`is_named`]).
#[must_use]
pub const fn handle_of(number: u64) -> u32 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// Whether a message in flight has the name that `number` would get: it has to end first.
#[must_use]
pub fn is_named(push: &Push, number: u64) -> bool {
    number_of(push, handle_of(number)).is_some()
}

/// Whether message `number` is in flight.
#[must_use]
pub fn is_sending(push: &Push, number: u64) -> bool {
    push.inflight.iter().any(|message| message.number == number)
}

/// The message in flight that `handle` names.
#[must_use]
pub fn number_of(push: &Push, handle: u32) -> Option<u64> {
    push.inflight
        .iter()
        .map(|message| message.number)
        .find(|&number| handle_of(number) == handle)
}

/// A record that a session needs and that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The message's number, or the key of its part.
    pub key: u64,
    /// Where a part lies; a message's place is in its mailbox.
    pub part: Option<Location>,
}

/// The part that the next chunk of `push` comes from, while it sends a message that lies in parts.
#[must_use]
pub fn part_of(push: &Push, post: &Post) -> Option<PartPlace> {
    let message = push.inflight.last().filter(|_| push.in_parts)?;
    post.parts
        .find(message.number, u64::from(push.session.taken()))
}

/// The octets of a message, or of a part of it, in a record.
fn body_of(payload: &[u8]) -> Option<&[u8]> {
    record::part_bytes(payload).or_else(|| record::content_of(payload).map(|(_, cpim)| cpim))
}

/// Sends chunks while the window and the connection have room. A body that is not in memory stops
/// the flow until it is loaded; what is to be loaded is returned then.
pub fn flow(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Missing> {
    let link = push.msrp_link?;
    while push.session.has_chunk() {
        if ctx.out.backlog(link) >= ctx.env.options.msrp_backlog_bytes_max {
            if let Some(state) = ctx.out.lookup_mut(link) {
                state.stalled = true;
            }
            if push.held_back == 0 {
                push.held_back = ctx.post.hold_back(link, push.key());
                ctx.probe.msrp_held_back_total += 1;
            }
            break;
        }
        // One message is being sent at a time: the last one that was begun.
        let number = push.inflight.last()?.number;
        let part = if push.in_parts {
            let part = part_of(push, ctx.post);
            if part.is_none() {
                let key = number;
                return Some(Missing { key, part: None });
            }
            part
        } else {
            None
        };
        let key = part.map_or(number, |part| part.key);
        let Some(payload) = ctx.post.cache.lookup(key) else {
            let part = part.map(|part| part.location);
            return Some(Missing { key, part });
        };
        let chunk = push.session.poll_chunk(ctx.now)?;
        assert!(
            chunk.handle == handle_of(number),
            "the machine sends what was begun last"
        );
        let octets = body_of(payload).expect("the cache holds what was checked");
        let octets_len = octets.len();
        let before = part.map_or(0, |part| part.start);
        let start = usize::try_from(chunk.start - 1 - before).expect("bounded by the record");
        let body = &octets[start..start + chunk.len as usize];
        let mut sequence = chunk.sequence;
        let mut tid = push.token(ctx.env, TokenKind::MsrpTransaction, sequence);
        while frame::end_line_collides(body, tid.as_bytes()) {
            sequence = push.session.renumber(sequence);
            tid = push.token(ctx.env, TokenKind::MsrpTransaction, sequence);
        }
        let session = push.token(ctx.env, TokenKind::MsrpSession, 0);
        let mut message_id = [0; MESSAGE_ID_LEN];
        write_message_id(ctx.env.shard, number, &mut message_id);
        let fields = SendFields {
            tid: tid.as_bytes(),
            to_path: &push.media.path,
            from_path: OurPath {
                prefix: &ctx.env.msrp_prefix,
                session: session.as_bytes(),
                suffix: b";tcp",
            },
            message_id: &message_id,
            start: chunk.start,
            end: chunk.start + u64::from(chunk.len) - 1,
            total: chunk.total,
            success_report: ctx.env.dialect(push).success_report,
            failure_report: true,
            content_type: b"message/cpim",
            body,
            continuation: chunk.continuation,
        };
        let to = Destination {
            shard: ctx.env.shard,
            link,
            address: None,
        };
        ctx.out.send(to, |out| frame::encode_send(&fields, out));
        ctx.probe.msrp_sends_total += 1;
        ctx.probe.msrp_content_bytes_total += u64::from(chunk.len);
        push.octets_sent += u64::from(chunk.len);
        let is_last = start + chunk.len as usize == octets_len;
        if part.is_some() && is_last && ctx.post.waiter(key).is_none() {
            // Read once: it would only push smaller messages out.
            ctx.post.cache.remove(key);
        }
    }
    None
}

/// Binds a connection of ours on which there is no message to send yet.
pub fn send_bind(push: &mut Push, ctx: &mut Ctx<'_>) {
    let Some(link) = push.msrp_link else { return };
    let Some(sequence) = push.session.poll_bind(ctx.now) else {
        return;
    };
    let tid = push.token(ctx.env, TokenKind::MsrpTransaction, sequence);
    let session = push.token(ctx.env, TokenKind::MsrpSession, 0);
    let fields = BindFields {
        tid: tid.as_bytes(),
        to_path: &push.media.path,
        from_path: OurPath {
            prefix: &ctx.env.msrp_prefix,
            session: session.as_bytes(),
            suffix: b";tcp",
        },
        message_id: &tid.as_bytes()[..16],
    };
    let to = Destination {
        shard: ctx.env.shard,
        link,
        address: None,
    };
    ctx.out.send(to, |out| frame::encode_bind(&fields, out));
}

/// Characters of an MSRP Message-ID of ours.
pub const MESSAGE_ID_LEN: usize = 20;

/// The Message-ID of message `number`: the same on every attempt and every device (MSRP-4).
pub fn write_message_id(shard: u8, number: u64, out: &mut [u8; MESSAGE_ID_LEN]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out[0] = b'v';
    for (at, slot) in out[1..17].iter_mut().enumerate() {
        *slot = HEX[usize::try_from(number >> (60 - 4 * at) & 15).expect("four bits")];
    }
    out[17] = b'.';
    out[18] = HEX[usize::from(shard >> 4)];
    out[19] = HEX[usize::from(shard & 15)];
}

/// The message number in a Message-ID of ours.
#[must_use]
pub fn read_message_id(text: &[u8]) -> Option<u64> {
    let text: &[u8; MESSAGE_ID_LEN] = text.try_into().ok()?;
    if text[0] != b'v' || text[17] != b'.' {
        return None;
    }
    text[1..17].iter().try_fold(0u64, |number, &c| {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

/// What a step of the session machine means for the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to record.
    None,
    /// The device has the message.
    Delivered {
        /// Which one.
        number: u64,
        /// How we know.
        by: Evidence,
        /// When it was begun.
        since: Timestamp,
    },
    /// The device refused the message for good.
    Refused {
        /// Which one.
        number: u64,
        /// Why (SEL-6).
        reason: MessageReason,
    },
    /// This attempt at the message failed; it stays pending.
    Failed {
        /// Which one.
        number: u64,
    },
    /// The session failed.
    Session(Outcome),
}

/// Translates a step and keeps the list of messages in flight.
pub fn progress(push: &mut Push, step: Step) -> Progress {
    match step {
        Step::None | Step::HopAcked { .. } | Step::Bound => Progress::None,
        Step::Delivered { handle, by } => match take(push, handle) {
            Some(Inflight { number, since }) => Progress::Delivered { number, by, since },
            None => Progress::None,
        },
        Step::MessageRefused { handle, status } => match take(push, handle) {
            Some(Inflight { number, .. }) => Progress::Refused {
                number,
                reason: MessageReason::Rejected(status),
            },
            None => Progress::None,
        },
        // Our mistake or the peer's: the message is stopped, the others go on (MSRP-11, MSRP-15).
        Step::MessageFailed {
            handle,
            status: status @ (400 | 423),
        } => match take(push, handle) {
            Some(Inflight { number, .. }) => Progress::Refused {
                number,
                reason: MessageReason::Rejected(status),
            },
            None => Progress::None,
        },
        Step::MessageFailed { handle, .. } | Step::Unconfirmed { handle } => {
            match take(push, handle) {
                Some(Inflight { number, .. }) => Progress::Failed { number },
                None => Progress::None,
            }
        }
        Step::SessionFailed { reason } => Progress::Session(match reason {
            SessionFailure::Timeout => Outcome::MsrpTimeout,
            SessionFailure::InUse => Outcome::MsrpStatus(506),
            SessionFailure::NoSession
            | SessionFailure::BadRequests
            | SessionFailure::BindRefused
            | SessionFailure::NotImplemented => Outcome::MsrpStatus(481),
        }),
    }
}

fn take(push: &mut Push, handle: u32) -> Option<Inflight> {
    let at = push
        .inflight
        .iter()
        .position(|message| handle_of(message.number) == handle)?;
    Some(push.inflight.remove(at))
}

/// A response to one of our SENDs.
pub fn handle_response(push: &mut Push, ctx: &Ctx<'_>, sequence: u16, status: u16) -> Progress {
    let step = push.session.handle_response(ctx.now, sequence, status);
    progress(push, step)
}

/// A REPORT for one of our messages.
pub fn handle_report(push: &mut Push, ctx: &Ctx<'_>, frame: &Frame<'_>) -> Progress {
    let Some((message_id, range, status)) = frame.report() else {
        return Progress::None;
    };
    let Some(number) = read_message_id(message_id) else {
        return Progress::None;
    };
    let step = push
        .session
        .handle_report(ctx.now, handle_of(number), range, status);
    progress(push, step)
}

/// A timer of the MSRP machine, if one is due.
pub fn handle_timeout(push: &mut Push, ctx: &Ctx<'_>) -> Progress {
    if !push.has_session() || push.session.deadline() > ctx.now {
        return Progress::None;
    }
    let step = push.session.handle_timeout(ctx.now);
    progress(push, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: MSRP-4
    #[test]
    fn a_message_id_is_the_same_each_time_and_names_its_message() {
        let (mut first, mut second) = ([0; MESSAGE_ID_LEN], [0; MESSAGE_ID_LEN]);
        write_message_id(0xa7, 0x0123_4567_89ab_cdef, &mut first);
        write_message_id(0xa7, 0x0123_4567_89ab_cdef, &mut second);
        assert_eq!(&first, b"v0123456789abcdef.a7");
        assert_eq!(first, second);
        assert_eq!(read_message_id(&first), Some(0x0123_4567_89ab_cdef));
        for foreign in [
            &b"v0123456789abcdef"[..],
            b"x0123456789abcdef.a7",
            b"v012345678gabcdef.a7",
        ] {
            assert_eq!(read_message_id(foreign), None);
        }
    }

    /// Numbers begin with the wall clock in milliseconds, shifted; one may come from each start.
    #[test]
    fn messages_of_different_starts_have_different_names() {
        let mut names = std::collections::BTreeSet::new();
        for start in 0..4096_u64 {
            for step in 0..16 {
                names.insert(handle_of((1_795_000_000_000 + start * 4096) << 20 | step));
            }
        }
        assert_eq!(names.len(), 4096 * 16);
    }
}
