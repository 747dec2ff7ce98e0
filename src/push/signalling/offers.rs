//! Sessions that are described again: the peer's re-INVITE or UPDATE, and our offer without CEMA.
//!
//! RFC 3261 section 14, RFC 3264 section 8, RFC 3311 section 5.2, RFC 6714 section 4.2. The peer is
//! answered at once, so an INVITE of it is never left without a final response; what waits is its ACK.

use std::io::Write as _;

use crate::base::outbox::Destination;
use crate::base::surface::LinkKind;
use crate::push::negotiation::{Negotiation, OwnOffer};
use crate::push::signalling::{bye, reason, refresh, transaction_options, transmit};
use crate::push::{Ctx, Outcome, Push, PushState, delivery};
use crate::sdp::{self, Answer, Direction, OfferOutcome, Role, SdpError, Setup};
use crate::sip::dialog::{Glare, ends_dialog, judge_glare};
use crate::sip::message::{HeaderName, Message, Method, Refresher};
use crate::sip::session_timer::{Agreement, GLARES_MAX, PeerAnswer, glare_delay};
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::client_invite::ClientInvite;
use crate::sip::transaction::server_invite::{ServerInvite, ServerInviteAction, ServerInviteState};

/// How a peer's request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerVerdict {
    /// The final status.
    pub status: u16,
    /// The peer ended the stream: BYE follows (DLG-10).
    pub ends: bool,
}

impl PeerVerdict {
    const fn refuse(status: u16) -> Self {
        Self {
            status,
            ends: false,
        }
    }
}

/// What the peer's offer asks of us, before anything is changed.
struct Plan<'a> {
    outcome: OfferOutcome,
    peer: Option<Answer<'a>>,
    setup: Setup,
}

/// The negotiation of `push`; made at its first use.
fn negotiation<'a>(push: &'a mut Push, ctx: &Ctx<'_>) -> &'a mut Negotiation {
    if push.negotiation.is_none() {
        let session = Negotiation::new(|version, out| {
            transmit::offer_text(push, ctx, (version, false), out);
        });
        push.negotiation = Some(Box::new(session));
    }
    push.negotiation.as_mut().expect("just made")
}

/// `true` for an INVITE that was answered before; the answer repeats itself.
#[must_use]
pub fn is_repeated_invite(push: &Push, cseq: u32) -> bool {
    push.negotiation
        .as_ref()
        .is_some_and(|session| session.peer_cseq == Some(cseq))
}

/// Judges a peer's INVITE or UPDATE in the dialog of a live session, in order: glare, offer, session
/// timer (DLG-10, DLG-11, ST-14). `lines` and `body` get what the answer carries. What a 2xx agrees to
/// holds when this returns, except for the BYE that [`PeerVerdict::ends`] asks for.
pub fn judge_peer_request(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    lines: &mut Vec<u8>,
    body: &mut Vec<u8>,
) -> PeerVerdict {
    let is_invite = message.method() == Method::Invite;
    let offers = !message.body().is_empty();
    let theirs = (is_invite || offers) && push.awaits_ack();
    let ours = push.is_refreshing() || push.is_offering();
    match judge_glare(ours, theirs, ctx.jitter) {
        Glare::Clear => {}
        Glare::Pending => return PeerVerdict::refuse(491),
        Glare::Unanswered { retry_after_s } => {
            write!(lines, "Retry-After: {retry_after_s}\r\n").expect("writing to memory");
            return PeerVerdict::refuse(500);
        }
    }
    let plan = if offers {
        match read_offer(push, ctx, message) {
            Ok(plan) => Some(plan),
            Err(error) => return refuse_offer(ctx, message, error, lines),
        }
    } else {
        None
    };
    match refresh::peer_refreshed(push, ctx, message) {
        PeerAnswer::TooSmall { min_se_s } => {
            write!(lines, "Min-SE: {min_se_s}\r\n").expect("writing to memory");
            return PeerVerdict::refuse(422);
        }
        PeerAnswer::Accept {
            session_expires,
            require_timer,
        } => write_accept_lines(push, ctx, session_expires, require_timer, lines),
    }
    match &plan {
        Some(plan) => answer_offer(push, ctx, message, plan, body),
        None if is_invite => {
            // No offer: ours goes out in the 2xx and the ACK brings the answer.
            describe_offer(push, ctx, body);
            negotiation(push, ctx).asked = true;
        }
        None => {}
    }
    if !body.is_empty() {
        lines.extend_from_slice(b"Content-Type: application/sdp\r\n");
    }
    PeerVerdict {
        status: 200,
        ends: plan.is_some_and(|plan| plan.outcome == OfferOutcome::Ended),
    }
}

fn refuse_offer(
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    error: SdpError,
    lines: &mut Vec<u8>,
) -> PeerVerdict {
    ctx.probe.offers_refused_total += 1;
    let is_sdp = message
        .header(HeaderName::ContentType)
        .is_some_and(sdp::may_hold_sdp);
    if !is_sdp {
        lines.extend_from_slice(b"Accept: application/sdp\r\n");
        return PeerVerdict::refuse(415);
    }
    write!(lines, "Warning: 399 volley \"{}\"\r\n", error.code()).expect("writing to memory");
    PeerVerdict::refuse(488)
}

fn write_accept_lines(
    push: &Push,
    ctx: &Ctx<'_>,
    session_expires: Option<(u32, Refresher)>,
    require_timer: bool,
    lines: &mut Vec<u8>,
) {
    lines.extend_from_slice(&ctx.env.dialect(push).contact_line);
    lines.extend_from_slice(&ctx.env.media.allow_lines);
    if require_timer {
        lines.extend_from_slice(b"Require: timer\r\n");
    }
    if let Some((interval_s, refresher)) = session_expires {
        let refresher = match refresher {
            Refresher::Uac => "uac",
            Refresher::Uas => "uas",
        };
        write!(
            lines,
            "Session-Expires: {interval_s};refresher={refresher}\r\n"
        )
        .expect("writing to memory");
    }
}

/// Reads an offer and decides our part, without changing anything.
fn read_offer<'a>(push: &Push, ctx: &Ctx<'_>, message: &Message<'a>) -> Result<Plan<'a>, SdpError> {
    let content_type = message.header(HeaderName::ContentType);
    let offer = sdp::judge_offer(message.body(), content_type)?;
    let Some(peer) = offer.peer else {
        return Ok(Plan {
            outcome: offer.outcome,
            peer: None,
            setup: Setup::Passive,
        });
    };
    let setup = our_setup(push, ctx, &peer)?;
    delivery::can_renew(push, ctx, &peer, role_of(setup))?;
    Ok(Plan {
        outcome: offer.outcome,
        peer: Some(peer),
        setup,
    })
}

/// Who connects from here on. A choice left to us keeps what is (RFC 4145 section 4.1).
fn our_setup(push: &Push, ctx: &Ctx<'_>, peer: &Answer<'_>) -> Result<Setup, SdpError> {
    let moved = push.media.path != peer.path;
    let setup = match peer.setup {
        Some(Setup::Holdconn) => return Err(SdpError::Setup),
        Some(Setup::Active) => Setup::Passive,
        Some(Setup::Passive) => Setup::Active,
        // Without the attribute whoever offers connects (RFC 4975 section 5.4).
        None if moved => Setup::Passive,
        Some(Setup::Actpass) | None => current_setup(push, ctx),
    };
    if moved && setup == Setup::Passive && ctx.env.dialect(push).setup == Setup::Active {
        return Err(SdpError::Setup);
    }
    Ok(setup)
}

fn current_setup(push: &Push, ctx: &Ctx<'_>) -> Setup {
    let connects = match push.msrp_link {
        None => push.state == PushState::Connecting,
        Some(link) => ctx
            .out
            .lookup(link)
            .is_some_and(|state| state.kind == LinkKind::MsrpOutbound),
    };
    if connects {
        Setup::Active
    } else {
        Setup::Passive
    }
}

const fn role_of(setup: Setup) -> Role {
    match setup {
        Setup::Active => Role::Connect,
        Setup::Actpass | Setup::Holdconn | Setup::Passive => Role::Wait,
    }
}

/// Writes the answer to an offer that was read, and takes over what it says.
fn answer_offer(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    plan: &Plan<'_>,
    body: &mut Vec<u8>,
) {
    ctx.probe.offers_answered_total += 1;
    let env = ctx.env;
    let msrp = transmit::msrp_session(push, ctx);
    let number = transmit::sdp_session(push);
    let cema = env.dialect(push).cema;
    let session = negotiation(push, ctx);
    let media = &env.media;
    let cema = cema && !session.without_cema && plan.peer.is_some_and(|peer| peer.cema);
    let written = session.describe(|version, out| {
        let local = sdp::LocalMedia {
            session: number,
            version,
            host: media.host,
            port: media.port,
            msrp_session: msrp.as_bytes(),
            accept_types: &media.accept_types,
            accept_wrapped_types: &media.accept_wrapped_types,
            max_size: media.max_size,
            cema,
            role: plan.setup,
        };
        let content_type = message.header(HeaderName::ContentType);
        sdp::answer_offer(message.body(), content_type, &local, out)
            .expect("the offer was judged before");
    });
    body.extend_from_slice(written);
    session.paused = plan.outcome == OfferOutcome::Paused;
    if let Some(peer) = &plan.peer {
        delivery::renew(push, ctx, peer, role_of(plan.setup)).expect("it was tried before");
    }
}

/// Renders our offer as the next description; `out` gets it.
fn describe_offer(push: &mut Push, ctx: &Ctx<'_>, out: &mut Vec<u8>) {
    negotiation(push, ctx);
    let mut session = push.negotiation.take().expect("just made");
    let without_cema = session.without_cema;
    let written = session.describe(|version, out| {
        transmit::offer_text(push, ctx, (version, without_cema), out);
    });
    out.extend_from_slice(written);
    push.negotiation = Some(session);
}

/// Gives the re-INVITE that is about to be sent its version, if any description went before it.
pub(super) fn renew_version(push: &mut Push, ctx: &Ctx<'_>) {
    if push.negotiation.is_some() {
        describe_offer(push, ctx, &mut Vec::new());
    }
}

/// The final response to the peer's INVITE, ready in [`Negotiation::response`], is on its way to `to`:
/// it is repeated until its ACK comes (SX-4).
pub fn await_ack(push: &mut Push, ctx: &Ctx<'_>, to: Destination, cseq: u32, status: u16) {
    let options = TransactionOptions {
        reliable: to.address.is_none(),
        ..ctx.env.options.transaction
    };
    let session = negotiation(push, ctx);
    let mut invite = ServerInvite::start(ctx.now, &options);
    invite.respond(ctx.now, status);
    session.answering = Some(invite);
    session.peer_cseq = Some(cseq);
    session.way_back = Some(to);
}

/// Lends the buffer for the answer to a peer's INVITE.
pub fn response_buffer<'a>(push: &'a mut Push, ctx: &Ctx<'_>) -> &'a mut Vec<u8> {
    let response = &mut negotiation(push, ctx).response;
    response.clear();
    response
}

/// The peer ended the stream with port 0, and was answered: BYE (DLG-10).
pub fn end_stream(push: &mut Push, ctx: &mut Ctx<'_>) -> Outcome {
    bye(push, ctx, reason::STREAM_ENDED);
    Outcome::PeerBye
}

/// The peer's ACK: nothing is repeated any more, and what waited for it goes on.
pub fn acknowledged(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) -> Option<Outcome> {
    let cseq = message.cseq().ok()?.number;
    let session = push.negotiation.as_mut()?;
    if session.peer_cseq != Some(cseq) {
        return None;
    }
    let invite = session.answering.as_mut()?;
    if invite.handle_ack(ctx.now) != ServerInviteAction::Acknowledged {
        return None;
    }
    session.answering = None;
    if core::mem::take(&mut session.bye_due) {
        bye(push, ctx, push.bye_reason);
        return None;
    }
    if core::mem::take(&mut session.asked) && push.has_session() {
        return settle(push, ctx, message, true);
    }
    None
}

/// Takes over the peer's answer to an offer of ours. A `strict` one must be usable; to a mere refresh
/// a body that says nothing new, or nothing at all, is no reason to end the session.
fn settle(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    strict: bool,
) -> Option<Outcome> {
    let content_type = message.header(HeaderName::ContentType);
    let judged = match sdp::judge_answer(message.body(), content_type) {
        Ok(answer) => {
            let paused = answer.direction == Direction::Inactive;
            if paused != push.is_paused() {
                negotiation(push, ctx).paused = paused;
            }
            let role = match answer.setup {
                Some(Setup::Active) => Role::Wait,
                Some(Setup::Actpass | Setup::Holdconn | Setup::Passive) | None => Role::Connect,
            };
            delivery::renew(push, ctx, &answer, role)
        }
        Err(error) if strict || error == SdpError::Port0 => Err(error),
        Err(_) => Ok(()),
    };
    match judged {
        Ok(()) => None,
        Err(error) => {
            bye(push, ctx, reason::ANSWER);
            Some(Outcome::Sdp(error))
        }
    }
}

/// Offers the session once more without `a=msrp-cema`: an anchor that does not know it changed where
/// the peer is, and the peer is to find us (SDP-16).
pub(super) fn offer_without_cema(push: &mut Push, ctx: &mut Ctx<'_>) {
    ctx.probe.reoffers_sent_total += 1;
    let earlier = (push.ack_cseq, push.ack_branch);
    let session = negotiation(push, ctx);
    session.without_cema = true;
    session.earlier_ack = Some(earlier);
    send_offer(push, ctx);
}

fn send_offer(push: &mut Push, ctx: &mut Ctx<'_>) {
    negotiation(push, ctx).offer = OwnOffer::InFlight;
    describe_offer(push, ctx, &mut Vec::new());
    let options = transaction_options(push, ctx);
    push.invite_branch = push.next_sequence();
    push.invite_cseq = push.dialog.next_cseq();
    push.invite = Some(ClientInvite::start(ctx.now, &options));
    transmit::reinvite(push, ctx);
}

/// The branch of the ACK to an earlier 2xx than that of the last INVITE, which came again.
#[must_use]
pub(super) fn earlier_ack(push: &Push, cseq: u32) -> Option<u16> {
    let (earlier, branch) = push.negotiation.as_ref()?.earlier_ack?;
    (earlier == cseq).then_some(branch)
}

/// A 2xx to a re-INVITE of ours, acknowledged: refresh, new offer or both.
pub(super) fn accepted(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
) -> Option<Outcome> {
    let offering = push.is_offering();
    if push.is_refreshing() {
        refresh::refreshed(push, ctx, message);
    } else {
        let asked_s = push.timer.request_fields().map(|(asked_s, ..)| asked_s);
        push.timer.on_2xx(
            ctx.now,
            asked_s,
            message.session_expires().and_then(Result::ok),
            message.lists(HeaderName::Allow, b"UPDATE"),
            Agreement {
                options: &ctx.env.options.timer,
                dice: ctx.jitter,
            },
        );
    }
    if let Some(session) = &mut push.negotiation {
        session.offer = OwnOffer::None;
        session.glares = 0;
    }
    settle(push, ctx, message, offering)
}

/// Our own offer was refused, or nobody answered it (`status` 408). The session stays as it was
/// agreed, unless the dialog is gone (RFC 3261 section 14.1).
pub(super) fn offer_failed(push: &mut Push, ctx: &mut Ctx<'_>, status: u16) -> Option<Outcome> {
    let session = push.negotiation.as_mut()?;
    session.offer = OwnOffer::None;
    if status == 491 && session.glares < GLARES_MAX {
        session.glares += 1;
        session.offer = OwnOffer::Due(ctx.now + glare_delay(ctx.jitter));
        return None;
    }
    if !ends_dialog(status) {
        return None;
    }
    bye(push, ctx, reason::REFRESH);
    Some(Outcome::Refresh)
}

/// What is due: a repetition of our answer, the end of the wait for its ACK, our postponed offer.
pub(super) fn handle_timeout(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    let session = push.negotiation.as_mut()?;
    if let Some(invite) = &mut session.answering
        && invite.deadline() <= ctx.now
    {
        let awaited = invite.state() == ServerInviteState::Accepted;
        match invite.handle_timeout(ctx.now) {
            ServerInviteAction::Retransmit => {
                ctx.probe.retransmissions_total += 1;
                let to = session.way_back.expect("an answer has its way back");
                ctx.out
                    .send(to, |out| out.extend_from_slice(&session.response));
            }
            ServerInviteAction::AckMissing
            | ServerInviteAction::TimedOut
            | ServerInviteAction::Terminated => {
                session.answering = None;
                if awaited {
                    return ack_missing(push, ctx);
                }
            }
            ServerInviteAction::Nothing
            | ServerInviteAction::SendTrying
            | ServerInviteAction::Acknowledged => {}
        }
        return None;
    }
    let is_due = matches!(session.offer, OwnOffer::Due(at) if at <= ctx.now);
    if !is_due {
        return None;
    }
    if !push.has_session() {
        negotiation(push, ctx).offer = OwnOffer::None;
    } else if push.awaits_ack() || push.is_refreshing() {
        let later = ctx.now + glare_delay(ctx.jitter);
        negotiation(push, ctx).offer = OwnOffer::Due(later);
    } else {
        send_offer(push, ctx);
    }
    None
}

/// Nobody acknowledged our 2xx: BYE (RFC 3261 section 13.3.1.4).
fn ack_missing(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    let session = push.negotiation.as_mut().expect("checked by the caller");
    if core::mem::take(&mut session.bye_due) {
        bye(push, ctx, push.bye_reason);
        return None;
    }
    bye(push, ctx, reason::NO_ACK);
    Some(Outcome::Refresh)
}
