//! The SIP side of a push: INVITE, ACK, CANCEL, refresh, BYE (layer 3).
//!
//! Every request is encoded again from the push's state when it has to be repeated: the same state
//! gives the same octets, so nothing is kept for retransmission.

mod answers;
mod offers;
mod refresh;
mod transmit;
mod ways;

use crate::base::outbox::{Destination, Outbox};
use crate::base::time::Timestamp;
use crate::push::hops::Offer;
use crate::push::{Ctx, OtherRequest, Outcome, Push, PushState, guard_after};
use crate::registry::device::NOTE_BYTES_MAX;
use crate::sip::message::{HeaderName, Message};
use crate::sip::session_timer::{InitialMinSe, InitialRetry};
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::client_invite::{
    CancelAction, ClientInvite, ClientInviteState, InviteAction,
};
use crate::sip::transaction::client_non_invite::{ClientNonInvite, NonInviteAction};

pub use answers::{LATE, StrayDialog, end_stray_2xx};
pub use offers::{
    PeerVerdict, acknowledged, await_ack, end_stream, is_repeated_invite, judge_peer_request,
    response_buffer,
};
pub use ways::resume;

/// Second and later dialogs of one INVITE that are answered with ACK and BYE (BAD-20).
pub(super) const FORKS_MAX: usize = 8;

/// Reason values of the BYE (RFC 3326).
mod reason {
    pub(super) const DRAINED: &str = r#"SIP;cause=200;text="deferred queue drained""#;
    pub(super) const ANSWER: &str = r#"SIP;cause=488;text="answer not acceptable""#;
    pub(super) const REFRESH: &str = r#"SIP;cause=481;text="refresh failed""#;
    pub(super) const MEDIA: &str = r#"SIP;cause=500;text="message session failed""#;
    pub(super) const NO_ANSWER: &str = r#"SIP;cause=408;text="no answer""#;
    pub(super) const FORK: &str = r#"SIP;cause=482;text="answered elsewhere""#;
    pub(super) const NO_ACK: &str = r#"SIP;cause=408;text="no ACK""#;
    pub(super) const STREAM_ENDED: &str = r#"SIP;cause=200;text="stream ended by peer""#;
    pub(super) const CAP: &str = r#"SIP;cause=200;text="session limit""#;
}

/// Sends the initial INVITE. The push has its URIs and identifiers filled in.
///
/// `Some(NoHop)` when no hop can take it; the push is over then.
pub fn start(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    let Some((hop, trunk)) = ctx.hops.pick(ctx.out, ctx.now, push.set, offer_of(push)) else {
        push.state = PushState::Ending;
        push.guard = Timestamp::NEVER;
        return Some(Outcome::NoHop);
    };
    take_hop(push, ctx, hop, trunk);
    push.initial = Some(InitialMinSe::new(&ctx.env.options.timer));
    send_new_invite(push, ctx);
    None
}

const fn offer_of(push: &Push) -> Offer {
    if push.urgent {
        Offer::Priority
    } else {
        Offer::Invite
    }
}

fn take_hop(push: &mut Push, ctx: &mut Ctx<'_>, hop: u16, trunk: Destination) {
    ctx.hops.invite_started(hop);
    push.hop = Some(hop);
    push.used_hop = Some(hop);
    push.tried_hops |= ctx.hops.bit(hop);
    push.trunk = Some(trunk);
}

/// The hop failed, not the client: the same request once more by the next hop of the list, as a new
/// transaction with the same Call-ID, tag and CSeq (NH-3). False when no other hop is up.
fn try_next_hop(push: &mut Push, ctx: &mut Ctx<'_>) -> bool {
    let Some((hop, trunk)) = ctx.hops.pick_untried(
        ctx.out,
        ctx.now,
        push.set,
        (offer_of(push), push.tried_hops),
    ) else {
        return false;
    };
    release_hop(push, ctx);
    take_hop(push, ctx, hop, trunk);
    start_invite(push, ctx);
    true
}

/// A new INVITE transaction: the first, or the retry after a 422.
fn send_new_invite(push: &mut Push, ctx: &mut Ctx<'_>) {
    push.invite_cseq = push.dialog.next_cseq();
    start_invite(push, ctx);
}

fn start_invite(push: &mut Push, ctx: &mut Ctx<'_>) {
    let options = transaction_options(push, ctx);
    push.invite_branch = push.next_sequence();
    push.invite = Some(ClientInvite::start(ctx.now, &options));
    push.state = PushState::Calling;
    push.guard = Timestamp::NEVER;
    push.invited = ctx.now;
    if !push.stage_from.is_never() {
        ctx.departures.add(push.stage_from);
        push.stage_from = Timestamp::NEVER;
    }
    ctx.probe.invites_sent_total += 1;
    transmit::invite(push, ctx);
}

/// A response whose branch named this push; `sequence` tells which transaction it is for.
pub fn handle_response(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    sequence: u16,
) -> Option<Outcome> {
    let Ok(cseq) = message.cseq() else {
        ctx.probe.responses_stray_total += 1;
        return None;
    };
    let status = message.status();
    if let Some(hop) = push.used_hop
        && ctx.hops.heard(ctx.now, hop, message)
    {
        ctx.probe.overload_feedback_total += 1;
    }
    match cseq.method_bytes {
        // A 2xx counts also on the branch of a hop that was given up for the next: it is the same
        // INVITE, and the device waits for its ACK.
        b"INVITE"
            if cseq.number == push.invite_cseq
                && (sequence == push.invite_branch || (200..300).contains(&status)) =>
        {
            handle_invite_response(push, ctx, message, status)
        }
        b"CANCEL"
            if push.other_request == OtherRequest::Cancel && sequence == push.invite_branch =>
        {
            other_response(push, ctx, message, status)
        }
        b"BYE" | b"UPDATE" if sequence == push.other_branch && cseq.number == push.other_cseq => {
            other_response(push, ctx, message, status)
        }
        b"INVITE" if (200..300).contains(&status) => {
            // Repeated, because the ACK to it was lost, while a newer INVITE is under way.
            if let Some(branch) = offers::earlier_ack(push, cseq.number) {
                ctx.probe.retransmissions_total += 1;
                transmit::ack(push, ctx, cseq.number, branch);
            } else {
                ctx.probe.responses_stray_total += 1;
            }
            None
        }
        _ => {
            ctx.probe.responses_stray_total += 1;
            None
        }
    }
}

fn handle_invite_response(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    status: u16,
) -> Option<Outcome> {
    let Some(invite) = &mut push.invite else {
        // The transaction is gone; only a 2xx still needs an answer.
        if (200..300).contains(&status) {
            return answers::accepted(push, ctx, message);
        }
        ctx.probe.responses_stray_total += 1;
        return None;
    };
    let action = invite.handle_response(ctx.now, status);
    match action {
        InviteAction::Nothing => None,
        InviteAction::Provisional(_) => {
            if push.guard.is_never() {
                match push.state {
                    PushState::Calling => {
                        push.guard = guard_after(ctx.now, ctx.env.options.t_answer);
                    }
                    // A re-INVITE that outlives its session has no timer from here on (see `leave`).
                    PushState::Ending => push.guard = abandon_after(ctx),
                    PushState::Free
                    | PushState::Loading
                    | PushState::Cancelling
                    | PushState::Connecting
                    | PushState::Binding
                    | PushState::Delivering => {}
                }
            }
            None
        }
        // The CANCEL was waiting for this (RFC 3261 section 9.1).
        InviteAction::Cancel(_) => {
            cancel(push, ctx);
            None
        }
        InviteAction::Accepted(_) => answers::accepted(push, ctx, message),
        InviteAction::Failed(status) => {
            let to_value = message.header(HeaderName::To).unwrap_or_default();
            transmit::failure_ack(push, ctx, to_value);
            if push.trunk.is_some_and(|trunk| trunk.address.is_some()) {
                push.failed_to.clear();
                push.failed_to.extend_from_slice(to_value);
            }
            failed(push, ctx, message, status)
        }
        InviteAction::Reack => {
            ctx.probe.retransmissions_total += 1;
            let to_value = core::mem::take(&mut push.failed_to);
            transmit::failure_ack(push, ctx, &to_value);
            push.failed_to = to_value;
            None
        }
        InviteAction::Retransmit
        | InviteAction::TimedOut
        | InviteAction::TransportFailed
        | InviteAction::Terminated => {
            push.invite = None;
            None
        }
    }
}

/// A final failure of the initial INVITE or of a refresh by re-INVITE.
fn failed(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    status: u16,
) -> Option<Outcome> {
    // Over a reliable transport the transaction ends here (Timer D is zero); a push that kept it
    // would never be over.
    if push.trunk.is_some_and(|trunk| trunk.address.is_none()) {
        push.invite = None;
    }
    if push.has_session() {
        return reinvite_failed(push, ctx, Some(message), status);
    }
    if push.state == PushState::Calling && status == 422 && retry_after_422(push, ctx, message) {
        return None;
    }
    if push.state == PushState::Calling && matches!(status, 502..=504) && try_next_hop(push, ctx) {
        return None;
    }
    release_hop(push, ctx);
    ctx.probe.invites_failed_total += 1;
    note_reason(push, message);
    let cancelled = push.state == PushState::Cancelling;
    push.state = PushState::Ending;
    push.guard = Timestamp::NEVER;
    if cancelled {
        return Some(Outcome::NoAnswer);
    }
    Some(Outcome::Status {
        status,
        retry_after_s: message.retry_after(),
    })
}

/// Keeps what a refusal or a BYE says of its reason, for the inspection interface (RSP-32).
pub fn note_reason(push: &mut Push, message: &Message<'_>) {
    push.note.clear();
    for (name, header) in [
        (&b"Reason: "[..], HeaderName::Reason),
        (b"Warning: ", HeaderName::Warning),
    ] {
        let Some(value) = message.header(header) else {
            continue;
        };
        if !push.note.is_empty() {
            push.note.extend_from_slice(b"; ");
        }
        push.note.extend_from_slice(name);
        push.note
            .extend_from_slice(&value[..value.len().min(NOTE_BYTES_MAX)]);
    }
}

/// A re-INVITE failed: an offer, a refresh, or one that serves as both.
fn reinvite_failed(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: Option<&Message<'_>>,
    status: u16,
) -> Option<Outcome> {
    if push.is_offering()
        && let Some(outcome) = offers::offer_failed(push, ctx, status)
    {
        return Some(outcome);
    }
    refresh::refresh_failed(push, ctx, message, status)
}

/// 422: once more with a larger interval, in the same Call-ID (ST-2, ST-3).
fn retry_after_422(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) -> bool {
    let min_se_s = message.min_se().and_then(Result::ok);
    let Some(initial) = &mut push.initial else {
        return false;
    };
    match initial.handle_422(min_se_s, &ctx.env.options.timer) {
        InitialRetry::Retry => {
            send_new_invite(push, ctx);
            true
        }
        InitialRetry::GiveUp => false,
    }
}

fn release_hop(push: &mut Push, ctx: &mut Ctx<'_>) {
    if let Some(hop) = push.hop.take() {
        ctx.hops.invite_ended(hop);
    }
}

/// Sends BYE and leaves the session. The dialog counts as ended from here (DLG-8).
pub fn bye(push: &mut Push, ctx: &mut Ctx<'_>, reason: &'static str) {
    push.bye_reason = reason;
    if let Some(session) = &mut push.negotiation
        && session.awaits_ack()
    {
        // Not before the ACK to our 2xx, or the end of its wait (RFC 3261 section 15).
        session.bye_due = true;
        return leave(push, ctx);
    }
    let options = transaction_options(push, ctx);
    push.other_branch = push.next_sequence();
    push.other_cseq = push.dialog.next_cseq();
    push.other_request = OtherRequest::Bye;
    push.other = Some(ClientNonInvite::start(ctx.now, &options));
    leave(push, ctx);
    ctx.probe.byes_sent_total += 1;
    transmit::other(push, ctx);
}

/// The session is over. A re-INVITE of ours that only has a provisional answer has no timer of its own:
/// it is given up after 64*T1, counted from that answer when it comes later.
fn leave(push: &mut Push, ctx: &Ctx<'_>) {
    let unanswered = push
        .invite
        .as_ref()
        .is_some_and(|invite| invite.state() == ClientInviteState::Proceeding);
    push.state = PushState::Ending;
    push.guard = if unanswered {
        abandon_after(ctx)
    } else {
        Timestamp::NEVER
    };
    push.session_end = Timestamp::NEVER;
}

/// When a re-INVITE of a session that is over is given up without a final answer.
fn abandon_after(ctx: &Ctx<'_>) -> Timestamp {
    guard_after(ctx.now, ctx.env.options.transaction.t1 * 64)
}

/// Ends a session whose queue has drained (DLV-5).
pub fn bye_drained(push: &mut Push, ctx: &mut Ctx<'_>) {
    bye(push, ctx, reason::DRAINED);
}

/// Ends a session whose MSRP side failed.
pub fn bye_media(push: &mut Push, ctx: &mut Ctx<'_>) {
    bye(push, ctx, reason::MEDIA);
}

fn cancel(push: &mut Push, ctx: &mut Ctx<'_>) {
    let options = transaction_options(push, ctx);
    push.other_request = OtherRequest::Cancel;
    push.other = Some(ClientNonInvite::start(ctx.now, &options));
    ctx.probe.cancels_sent_total += 1;
    transmit::other(push, ctx);
}

fn other_response(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    status: u16,
) -> Option<Outcome> {
    let Some(other) = &mut push.other else {
        ctx.probe.responses_stray_total += 1;
        return None;
    };
    match other.handle_response(ctx.now, status) {
        NonInviteAction::Final(status) => {
            let reliable = push.trunk.is_some_and(|trunk| trunk.address.is_none());
            match push.other_request {
                OtherRequest::Update => {
                    push.other = None;
                    push.other_request = OtherRequest::None;
                    if (200..300).contains(&status) {
                        refresh::refreshed(push, ctx, message);
                        return None;
                    }
                    return refresh::refresh_failed(push, ctx, Some(message), status);
                }
                // Over UDP the transaction stays for Timer K, to absorb repeats.
                OtherRequest::Bye | OtherRequest::Cancel | OtherRequest::None => {
                    if reliable {
                        push.other = None;
                    }
                }
            }
            None
        }
        NonInviteAction::Terminated => {
            push.other = None;
            None
        }
        NonInviteAction::Nothing
        | NonInviteAction::Provisional(_)
        | NonInviteAction::Retransmit
        | NonInviteAction::TransportFailed
        | NonInviteAction::TimedOut => None,
    }
}

/// Everything whose time has come at `ctx.now`.
pub fn handle_timeout(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    let now = ctx.now;
    let is_due = |deadline: Option<Timestamp>| deadline.is_some_and(|at| at <= now);
    if is_due(push.invite.as_ref().map(ClientInvite::deadline))
        && let Some(outcome) = invite_timeout(push, ctx)
    {
        return Some(outcome);
    }
    if is_due(push.other.as_ref().map(ClientNonInvite::deadline))
        && let Some(outcome) = other_timeout(push, ctx)
    {
        return Some(outcome);
    }
    if is_due(push.negotiation.as_ref().map(|session| session.deadline()))
        && let Some(outcome) = offers::handle_timeout(push, ctx)
    {
        return Some(outcome);
    }
    if push.guard <= now {
        push.guard = Timestamp::NEVER;
        if let Some(outcome) = guard_fired(push, ctx) {
            return Some(outcome);
        }
    }
    if push.has_session() && push.session_end <= now {
        bye(push, ctx, reason::CAP);
        return Some(Outcome::Cap);
    }
    if push.has_session() && push.timer.deadline() <= now {
        return refresh::session_timer_fired(push, ctx);
    }
    None
}

fn invite_timeout(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    let invite = push.invite.as_mut().expect("checked by the caller");
    match invite.handle_timeout(ctx.now) {
        InviteAction::Retransmit => {
            if leaves_by_stream(push, ctx)
                && let Some(invite) = &mut push.invite
            {
                invite.delivered_to_stream();
            }
            ctx.probe.retransmissions_total += 1;
            if push.has_dialog() {
                transmit::reinvite(push, ctx)
            } else {
                transmit::invite(push, ctx)
            }
            None
        }
        InviteAction::TimedOut | InviteAction::TransportFailed => {
            push.invite = None;
            if push.has_session() {
                return reinvite_failed(push, ctx, None, 408);
            }
            if let (true, Some(hop)) = (push.state == PushState::Calling, push.used_hop) {
                ctx.hops.unanswered(ctx.now, hop);
            }
            if push.state == PushState::Calling && try_next_hop(push, ctx) {
                return None;
            }
            release_hop(push, ctx);
            ctx.probe.invites_failed_total += 1;
            let cancelled = push.state == PushState::Cancelling;
            push.state = PushState::Ending;
            push.guard = Timestamp::NEVER;
            let outcome = if cancelled {
                Outcome::NoAnswer
            } else {
                Outcome::Status {
                    status: 408,
                    retry_after_s: None,
                }
            };
            Some(outcome)
        }
        InviteAction::Terminated => {
            push.invite = None;
            None
        }
        InviteAction::Nothing
        | InviteAction::Provisional(_)
        | InviteAction::Cancel(_)
        | InviteAction::Accepted(_)
        | InviteAction::Failed(_)
        | InviteAction::Reack => None,
    }
}

fn other_timeout(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    let action = push
        .other
        .as_mut()
        .expect("checked by the caller")
        .handle_timeout(ctx.now);
    match action {
        NonInviteAction::Retransmit => {
            if leaves_by_stream(push, ctx)
                && let Some(other) = &mut push.other
            {
                other.delivered_to_stream();
            }
            ctx.probe.retransmissions_total += 1;
            transmit::other(push, ctx);
            None
        }
        NonInviteAction::TimedOut | NonInviteAction::TransportFailed => {
            push.other = None;
            if push.other_request == OtherRequest::Update {
                push.other_request = OtherRequest::None;
                return refresh::refresh_failed(push, ctx, None, 408);
            }
            None
        }
        NonInviteAction::Terminated => {
            push.other = None;
            None
        }
        NonInviteAction::Nothing | NonInviteAction::Provisional(_) | NonInviteAction::Final(_) => {
            None
        }
    }
}

/// The state's own wait is over.
fn guard_fired(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    match push.state {
        PushState::Calling => {
            push.state = PushState::Cancelling;
            let invite = push.invite.as_mut()?;
            if invite.cancel(ctx.now) == CancelAction::Send {
                cancel(push, ctx);
            }
            None
        }
        PushState::Connecting => {
            bye_media(push, ctx);
            Some(Outcome::MsrpConnect)
        }
        PushState::Binding => {
            bye_media(push, ctx);
            Some(Outcome::MsrpBind)
        }
        // The linger is over and nothing came.
        PushState::Delivering => {
            bye_drained(push, ctx);
            Some(Outcome::Drained)
        }
        PushState::Loading => {
            push.state = PushState::Ending;
            Some(Outcome::Drained)
        }
        PushState::Ending => {
            push.invite = None;
            None
        }
        PushState::Free | PushState::Cancelling => None,
    }
}

/// The options of a transaction whose request leaves now. While no connection takes it, it is repeated like
/// over datagrams, so that the phone learns of it when one is back (NH-9).
fn transaction_options(push: &mut Push, ctx: &mut Ctx<'_>) -> TransactionOptions {
    let mut options = ctx.env.options.transaction;
    options.reliable = leaves_by_stream(push, ctx);
    options
}

/// Whether something of the push has no answer yet and may be lost with its connection to the hop.
#[must_use]
pub fn is_stranded(push: &Push, out: &Outbox) -> bool {
    let waits = push.invite.is_some() || push.other.is_some();
    waits
        && push
            .trunk
            .is_some_and(|trunk| trunk.address.is_none() && out.lookup(trunk.link).is_none())
}

/// Sends what a stranded push waits for on another connection (NH-9), now and until one takes it. Branch and
/// CSeq stay, so that whoever has it already knows it. An INVITE with a provisional answer is the hop's, which
/// answers on a connection of its own.
pub fn repeat_stranded(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    if let Some(invite) = &mut push.invite {
        invite.lost_with_stream(ctx.now);
    }
    if let Some(other) = &mut push.other {
        other.lost_with_stream(ctx.now);
    }
    handle_timeout(push, ctx)
}

/// Whether what leaves now goes into a stream, which needs no repeat. The push stays with that stream.
fn leaves_by_stream(push: &mut Push, ctx: &mut Ctx<'_>) -> bool {
    let way = transmit::way_out(push, ctx);
    let is_taken = way.address.is_none() && ctx.out.is_writable(way.link);
    // Of a stream, its link says all. What is not written again can be read without waiting for that.
    let stays = push
        .trunk
        .is_some_and(|trunk| (trunk.shard, trunk.link) == (way.shard, way.link));
    if is_taken && !stays {
        push.trunk = Some(way);
    }
    is_taken
}

/// The peer sent BYE: the dialog is over, our INVITE transaction aside.
pub fn ended_by_peer(push: &mut Push, ctx: &Ctx<'_>) {
    leave(push, ctx);
    push.other = None;
    push.other_request = OtherRequest::None;
}
