//! The SIP side of a push: INVITE, ACK, CANCEL, refresh, BYE (layer 3).
//!
//! Every request is encoded again from the push's state when it has to be repeated: the same state
//! gives the same octets, so nothing is kept for retransmission.

use crate::base::outbox::Destination;
use core::time::Duration;

use crate::base::time::Timestamp;
use crate::base::token::{SEQUENCE_MODULUS, Token, TokenKind};
use crate::push::delivery;
use crate::push::hops::hop_bit;
use crate::push::{Ctx, OtherRequest, Outcome, Push, PushState, guard_after};
use crate::registry::outcome::RETRY_AFTER_MAX;
use crate::sdp;
use crate::sip::dialog::DialogError;
use crate::sip::message::{HeaderName, Message};
use crate::sip::session_timer::{
    Agreement, InitialMinSe, InitialRetry, PeerAnswer, PeerRefresh, Refresh, RefreshMethod,
    RefreshOutcome, SessionAction,
};
use crate::sip::template::{AckFields, CancelFields, DialogFields, InviteFields};
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::client_invite::{CancelAction, ClientInvite, InviteAction};
use crate::sip::transaction::client_non_invite::{ClientNonInvite, NonInviteAction};

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
    pub(super) const CAP: &str = r#"SIP;cause=200;text="session limit""#;
}

/// Sends the initial INVITE. The push has its URIs and identifiers filled in.
///
/// `Some(NoHop)` when no hop can take it; the push is over then.
pub fn start(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    let Some((hop, trunk)) = ctx.hops.pick(ctx.now, true) else {
        push.state = PushState::Ending;
        push.guard = Timestamp::NEVER;
        return Some(Outcome::NoHop);
    };
    take_hop(push, ctx, hop, trunk);
    push.initial = Some(InitialMinSe::new(&ctx.env.options.timer));
    send_new_invite(push, ctx);
    None
}

fn take_hop(push: &mut Push, ctx: &mut Ctx<'_>, hop: u16, trunk: Destination) {
    ctx.hops.invite_started(hop);
    push.hop = Some(hop);
    push.used_hop = Some(hop);
    push.tried_hops |= hop_bit(hop);
    push.trunk = Some(trunk);
}

/// The hop failed, not the client: the same request once more by the next hop of the list, as a new
/// transaction with the same Call-ID, tag and CSeq (NH-3). False when no other hop is up.
fn try_next_hop(push: &mut Push, ctx: &mut Ctx<'_>) -> bool {
    let Some((hop, trunk)) = ctx.hops.pick_untried(ctx.now, true, push.tried_hops) else {
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
    ctx.probe.invites_sent_total += 1;
    transmit_invite(push, ctx);
}

/// The trunk of the push; another one when its connection is gone (NH-9).
fn way_out(push: &Push, ctx: &mut Ctx<'_>) -> Destination {
    let trunk = push.trunk.expect("a push that sends has its trunk");
    if ctx.out.lookup(trunk.link).is_some() {
        return trunk;
    }
    ctx.hops
        .pick(ctx.now, false)
        .map_or(trunk, |(_, other)| other)
}

fn transmit_invite(push: &Push, ctx: &mut Ctx<'_>) {
    let key = push.key();
    let env = ctx.env;
    let branch = env.token(TokenKind::PushBranch, key, push.invite_branch);
    let icid = env.token(TokenKind::ChargingId, key, 0);
    let msrp = env.token(TokenKind::MsrpSession, key, 0);
    let fields = InviteFields {
        request_uri: &push.request_uri,
        branch: branch.as_bytes(),
        from_tag: push.tag.as_bytes(),
        to_uri: &push.to_uri,
        call_id: push.call_id.as_bytes(),
        cseq: push.invite_cseq,
        icid: icid.as_bytes(),
        session_expires_s: push.initial.and_then(|initial| initial.session_expires_s),
        min_se: push.initial.and_then(|initial| initial.min_se_s),
        conversation_id: &push.conversation_id,
        contribution_id: &push.contribution_id,
        sdp_session: sdp_session(push),
        sdp_version: 1,
        msrp_session: msrp.as_bytes(),
        extra_accept_contact: &push.accept_contact,
        extra_headers: b"",
    };
    let trunk = way_out(push, ctx);
    if !ctx
        .out
        .send(trunk, |out| env.templates.invite(&fields, out))
    {
        ctx.probe.output_dropped_total += 1;
    }
}

/// `o=` session id: unique per dialog while the slot and generation are (SDP-2).
fn sdp_session(push: &Push) -> u64 {
    let key = push.key();
    u64::from(key.generation) << 26 | u64::from(key.slot)
}

/// The branch of a request inside the dialog, with the fields all of them share.
struct InDialog {
    branch: Token,
}

impl InDialog {
    fn new(push: &Push, ctx: &Ctx<'_>, sequence: u16) -> Self {
        Self {
            branch: ctx.env.token(TokenKind::PushBranch, push.key(), sequence),
        }
    }

    fn fields<'a>(&'a self, push: &'a Push, cseq: u32) -> DialogFields<'a> {
        DialogFields {
            request_uri: push.dialog.request_uri(),
            branch: self.branch.as_bytes(),
            route_lines: push.dialog.route_lines(),
            from_tag: push.tag.as_bytes(),
            to_value: push.dialog.to_value(),
            call_id: push.call_id.as_bytes(),
            cseq,
            session_expires: None,
            min_se: None,
            reason: b"",
            sdp_session: sdp_session(push),
            sdp_version: 1,
            msrp_session: b"",
        }
    }
}

fn transmit_ack(push: &Push, ctx: &mut Ctx<'_>) {
    let parts = InDialog::new(push, ctx, push.ack_branch);
    let fields = parts.fields(push, push.invite_cseq);
    let env = ctx.env;
    let trunk = way_out(push, ctx);
    ctx.probe.acks_sent_total += 1;
    if !ctx.out.send(trunk, |out| env.templates.ack(&fields, out)) {
        ctx.probe.output_dropped_total += 1;
    }
}

/// ACK to a failure: the INVITE's own branch, Request-URI and route (RFC 3261 section 17.1.1.3).
fn transmit_failure_ack(push: &Push, ctx: &mut Ctx<'_>, to_value: &[u8]) {
    transmit_failure_ack_with(push, ctx, to_value, push.invite_branch);
}

fn transmit_failure_ack_with(push: &Push, ctx: &mut Ctx<'_>, to_value: &[u8], sequence: u16) {
    let parts = InDialog::new(push, ctx, sequence);
    let env = ctx.env;
    let in_dialog = push.has_dialog();
    let fields = AckFields {
        request_uri: if in_dialog {
            push.dialog.request_uri()
        } else {
            &push.request_uri
        },
        branch: parts.branch.as_bytes(),
        route_lines: if in_dialog {
            Some(push.dialog.route_lines())
        } else {
            None
        },
        from_tag: push.tag.as_bytes(),
        to_value,
        call_id: push.call_id.as_bytes(),
        cseq: push.invite_cseq,
    };
    let trunk = way_out(push, ctx);
    if !ctx
        .out
        .send(trunk, |out| env.templates.ack_failure(&fields, out))
    {
        ctx.probe.output_dropped_total += 1;
    }
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
    match cseq.method_bytes {
        b"INVITE" if sequence == push.invite_branch && cseq.number == push.invite_cseq => {
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
            return accepted(push, ctx, message);
        }
        ctx.probe.responses_stray_total += 1;
        return None;
    };
    let action = invite.handle_response(ctx.now, status);
    match action {
        InviteAction::Nothing => None,
        InviteAction::Provisional(_) => {
            if push.state == PushState::Calling && push.guard.is_never() {
                push.guard = guard_after(ctx.now, ctx.env.options.t_answer);
            }
            None
        }
        // The CANCEL was waiting for this (RFC 3261 section 9.1).
        InviteAction::Cancel(_) => {
            cancel(push, ctx);
            None
        }
        InviteAction::Accepted(_) => accepted(push, ctx, message),
        InviteAction::Failed(status) => {
            let to_value = message.header(HeaderName::To).unwrap_or_default();
            transmit_failure_ack(push, ctx, to_value);
            if push.trunk.is_some_and(|trunk| trunk.address.is_some()) {
                push.failed_to.clear();
                push.failed_to.extend_from_slice(to_value);
            }
            failed(push, ctx, message, status)
        }
        InviteAction::Reack => {
            ctx.probe.retransmissions_total += 1;
            let to_value = core::mem::take(&mut push.failed_to);
            transmit_failure_ack(push, ctx, &to_value);
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

/// A 2xx to an INVITE of ours: the first, a repeat, a fork's, or a refresh's.
fn accepted(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) -> Option<Outcome> {
    match push.state {
        PushState::Calling | PushState::Cancelling => first_2xx(push, ctx, message),
        PushState::Connecting | PushState::Binding | PushState::Delivering | PushState::Ending => {
            if !push.dialog.is_same_fork(message) {
                end_fork(push, ctx, message);
                return None;
            }
            if push.ack_cseq != push.invite_cseq {
                push.ack_branch = push.next_sequence();
                push.ack_cseq = push.invite_cseq;
                // The 2xx to a refresh may move the target, of its own ACK too (OK-2a).
                if let (true, Some(Ok(contact))) = (push.refresh.is_some(), message.contact()) {
                    push.dialog.refresh_target(contact.uri);
                }
            } else {
                ctx.probe.retransmissions_total += 1;
            }
            transmit_ack(push, ctx);
            if push.has_session() && push.refresh.is_some() {
                refreshed(push, ctx, message);
            }
            None
        }
        PushState::Free | PushState::Loading => None,
    }
}

fn first_2xx(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) -> Option<Outcome> {
    release_hop(push, ctx);
    let cancelled = push.state == PushState::Cancelling;
    ctx.probe.invites_accepted_total += 1;
    if let Err(error) = push.dialog.establish(message) {
        return no_dialog(push, ctx, message, error);
    }
    push.ack_branch = push.next_sequence();
    push.ack_cseq = push.invite_cseq;
    transmit_ack(push, ctx);
    if cancelled {
        ctx.probe.late_2xx_total += 1;
        bye(push, ctx, reason::NO_ANSWER);
        return Some(Outcome::NoAnswer);
    }
    let answer = match sdp::judge_answer(message.body(), message.header(HeaderName::ContentType)) {
        Ok(answer) => answer,
        Err(error) => {
            bye(push, ctx, reason::ANSWER);
            return Some(Outcome::Sdp(error));
        }
    };
    let answered = message.session_expires().and_then(Result::ok);
    push.timer.on_2xx(
        ctx.now,
        push.initial.and_then(|initial| initial.session_expires_s),
        answered,
        message.lists(HeaderName::Allow, b"UPDATE"),
        Agreement {
            options: &ctx.env.options.timer,
            dice: ctx.jitter,
        },
    );
    push.guard = Timestamp::NEVER;
    push.session_end = ctx.now + ctx.env.options.max_session;
    match delivery::attach(push, ctx, &answer) {
        Ok(()) => None,
        Err(error) => {
            bye(push, ctx, reason::ANSWER);
            Some(Outcome::Sdp(error))
        }
    }
}

/// A 2xx that makes no dialog: acknowledged to the INVITE's own target, then given up (BAD-24), or
/// ended at once when only the Contact was missing (OK-2b).
fn no_dialog(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
    error: DialogError,
) -> Option<Outcome> {
    let sequence = push.next_sequence();
    transmit_failure_ack_with(
        push,
        ctx,
        message.header(HeaderName::To).unwrap_or_default(),
        sequence,
    );
    ctx.probe.acks_sent_total += 1;
    if error == DialogError::NoContact {
        bye_without_target(push, ctx, message);
    } else {
        push.state = PushState::Ending;
        push.guard = Timestamp::NEVER;
        push.invite = None;
    }
    Some(Outcome::NoContact)
}

/// BYE to a peer that gave no Contact: to the INVITE's own target, by its own route (OK-2b). It is
/// sent once; nobody is known who would answer it.
fn bye_without_target(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) {
    let sequence = push.next_sequence();
    let parts = InDialog::new(push, ctx, sequence);
    let fields = DialogFields {
        request_uri: &push.request_uri,
        route_lines: &ctx.env.route_line,
        to_value: message.header(HeaderName::To).unwrap_or_default(),
        reason: reason::ANSWER.as_bytes(),
        ..parts.fields(push, push.invite_cseq + 1)
    };
    let env = ctx.env;
    let trunk = way_out(push, ctx);
    ctx.out.send(trunk, |out| env.templates.bye(&fields, out));
    ctx.probe.byes_sent_total += 1;
    push.state = PushState::Ending;
    push.guard = Timestamp::NEVER;
    push.invite = None;
}

/// A second dialog from the same INVITE: ACK, then BYE (DLG-4).
fn end_fork(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) {
    let tag = message
        .to()
        .ok()
        .and_then(|to| to.tag())
        .unwrap_or_default();
    let fork = tag_hash(tag);
    let known = usize::from(push.forks);
    let index = push.fork_tags[..known]
        .iter()
        .position(|&seen| seen == fork);
    let index = match index {
        Some(index) => index,
        None if known < FORKS_MAX => {
            push.fork_tags[known] = fork;
            push.forks += 1;
            ctx.probe.forks_ended_total += 1;
            known
        }
        None => {
            ctx.probe.responses_stray_total += 1;
            return;
        }
    };
    // A repeated 2xx gets the same ACK and the same BYE again, not a second end.
    let offset = u16::try_from(index).expect("below FORKS_MAX");
    let ack = SEQUENCE_MODULUS - 4 - 2 * offset;
    let (ack, bye) = (ack, ack + 1);
    let key = push.key();
    let trunk = way_out(push, ctx);
    end_stray_2xx(
        ctx,
        message,
        &StrayDialog {
            key,
            trunk,
            sequences: (ack, bye),
            reason: reason::FORK,
        },
    );
}

/// FNV-1a of a tag; tags compare without regard to case.
fn tag_hash(tag: &[u8]) -> u64 {
    tag.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What is needed to end a dialog no push owns.
#[derive(Debug)]
pub struct StrayDialog {
    /// The key its identifiers carry.
    pub key: crate::base::slab::Key,
    /// Where the 2xx came from.
    pub trunk: Destination,
    /// Branch sequences of ACK and BYE.
    pub sequences: (u16, u16),
    /// Reason value of the BYE.
    pub reason: &'static str,
}

/// Reason of a BYE to a dialog we had given up.
pub const LATE: &str = reason::NO_ANSWER;

/// ACK and BYE for a 2xx whose dialog we do not want, from the response alone.
pub fn end_stray_2xx(ctx: &mut Ctx<'_>, message: &Message<'_>, stray: &StrayDialog) {
    let mut dialog = core::mem::take(&mut ctx.post.scratch_dialog);
    dialog.reset();
    if let (Ok(()), Ok(cseq)) = (dialog.establish(message), message.cseq()) {
        let env = ctx.env;
        let tag = env.token(TokenKind::PushTag, stray.key, 0);
        let call_id = env.token(TokenKind::PushCallId, stray.key, 0);
        let ack = env.token(TokenKind::PushBranch, stray.key, stray.sequences.0);
        let bye = env.token(TokenKind::PushBranch, stray.key, stray.sequences.1);
        let mut fields = DialogFields {
            request_uri: dialog.request_uri(),
            branch: ack.as_bytes(),
            route_lines: dialog.route_lines(),
            from_tag: tag.as_bytes(),
            to_value: dialog.to_value(),
            call_id: call_id.as_bytes(),
            cseq: cseq.number,
            session_expires: None,
            min_se: None,
            reason: stray.reason.as_bytes(),
            sdp_session: 0,
            sdp_version: 1,
            msrp_session: b"",
        };
        ctx.out
            .send(stray.trunk, |out| env.templates.ack(&fields, out));
        ctx.probe.acks_sent_total += 1;
        fields.branch = bye.as_bytes();
        fields.cseq = cseq.number.wrapping_add(1);
        ctx.out
            .send(stray.trunk, |out| env.templates.bye(&fields, out));
        ctx.probe.byes_sent_total += 1;
    }
    ctx.post.scratch_dialog = dialog;
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
        return refresh_failed(push, ctx, Some(message), status);
    }
    if push.state == PushState::Calling && status == 422 && retry_after_422(push, ctx, message) {
        return None;
    }
    if push.state == PushState::Calling && matches!(status, 502..=504) {
        if let (503, Some(hop), Some(hold_s)) = (status, push.used_hop, message.retry_after()) {
            let hold = Duration::from_secs(u64::from(hold_s)).min(RETRY_AFTER_MAX);
            ctx.hops.avoid(hop, ctx.now + hold);
        }
        if try_next_hop(push, ctx) {
            return None;
        }
    }
    release_hop(push, ctx);
    ctx.probe.invites_failed_total += 1;
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
    let options = transaction_options(push, ctx);
    push.bye_reason = reason;
    push.other_branch = push.next_sequence();
    push.other_cseq = push.dialog.next_cseq();
    push.other_request = OtherRequest::Bye;
    push.other = Some(ClientNonInvite::start(ctx.now, &options));
    push.state = PushState::Ending;
    push.guard = Timestamp::NEVER;
    push.session_end = Timestamp::NEVER;
    ctx.probe.byes_sent_total += 1;
    transmit_other(push, ctx);
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
    transmit_other(push, ctx);
}

fn transmit_other(push: &Push, ctx: &mut Ctx<'_>) {
    let env = ctx.env;
    let trunk = way_out(push, ctx);
    let sent = match push.other_request {
        OtherRequest::None => true,
        OtherRequest::Cancel => {
            let parts = InDialog::new(push, ctx, push.invite_branch);
            let fields = CancelFields {
                request_uri: &push.request_uri,
                branch: parts.branch.as_bytes(),
                from_tag: push.tag.as_bytes(),
                to_uri: &push.to_uri,
                call_id: push.call_id.as_bytes(),
                cseq: push.invite_cseq,
                reason: reason::NO_ANSWER.as_bytes(),
            };
            ctx.out
                .send(trunk, |out| env.templates.cancel(&fields, out))
        }
        OtherRequest::Bye => {
            let parts = InDialog::new(push, ctx, push.other_branch);
            let mut fields = parts.fields(push, push.other_cseq);
            fields.reason = push.bye_reason.as_bytes();
            ctx.out.send(trunk, |out| env.templates.bye(&fields, out))
        }
        OtherRequest::Update => {
            let parts = InDialog::new(push, ctx, push.other_branch);
            let mut fields = parts.fields(push, push.other_cseq);
            put_refresh(push, &mut fields);
            ctx.out
                .send(trunk, |out| env.templates.update(&fields, out))
        }
    };
    if !sent {
        ctx.probe.output_dropped_total += 1;
    }
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
                        refreshed(push, ctx, message);
                        return None;
                    }
                    return refresh_failed(push, ctx, Some(message), status);
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
    if push
        .invite
        .as_ref()
        .is_some_and(|invite| invite.deadline() <= now)
        && let Some(outcome) = invite_timeout(push, ctx)
    {
        return Some(outcome);
    }
    if push
        .other
        .as_ref()
        .is_some_and(|other| other.deadline() <= now)
        && let Some(outcome) = other_timeout(push, ctx)
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
        return session_timer_fired(push, ctx);
    }
    None
}

fn invite_timeout(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    let invite = push.invite.as_mut().expect("checked by the caller");
    match invite.handle_timeout(ctx.now) {
        InviteAction::Retransmit => {
            ctx.probe.retransmissions_total += 1;
            if push.has_dialog() {
                transmit_reinvite(push, ctx)
            } else {
                transmit_invite(push, ctx)
            }
            None
        }
        InviteAction::TimedOut | InviteAction::TransportFailed => {
            push.invite = None;
            if push.has_session() {
                return refresh_failed(push, ctx, None, 408);
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
    let other = push.other.as_mut().expect("checked by the caller");
    match other.handle_timeout(ctx.now) {
        NonInviteAction::Retransmit => {
            ctx.probe.retransmissions_total += 1;
            transmit_other(push, ctx);
            None
        }
        NonInviteAction::TimedOut | NonInviteAction::TransportFailed => {
            push.other = None;
            if push.other_request == OtherRequest::Update {
                push.other_request = OtherRequest::None;
                return refresh_failed(push, ctx, None, 408);
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
        PushState::Free | PushState::Cancelling | PushState::Ending => None,
    }
}

fn session_timer_fired(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
    match push.timer.handle_timeout(ctx.now) {
        SessionAction::Nothing => None,
        SessionAction::Refresh(refresh) => {
            send_refresh(push, ctx, refresh);
            None
        }
        SessionAction::Expire => {
            bye(push, ctx, reason::REFRESH);
            Some(Outcome::Refresh)
        }
    }
}

fn send_refresh(push: &mut Push, ctx: &mut Ctx<'_>, refresh: Refresh) {
    let options = transaction_options(push, ctx);
    push.refresh = Some(refresh);
    ctx.probe.refreshes_sent_total += 1;
    match refresh.method {
        RefreshMethod::Update => {
            push.other_branch = push.next_sequence();
            push.other_cseq = push.dialog.next_cseq();
            push.other_request = OtherRequest::Update;
            push.other = Some(ClientNonInvite::start(ctx.now, &options));
            transmit_other(push, ctx);
        }
        RefreshMethod::Reinvite => {
            push.invite_branch = push.next_sequence();
            push.invite_cseq = push.dialog.next_cseq();
            push.invite = Some(ClientInvite::start(ctx.now, &options));
            transmit_reinvite(push, ctx);
        }
    }
}

fn put_refresh(push: &Push, fields: &mut DialogFields<'_>) {
    if let Some(refresh) = &push.refresh {
        fields.session_expires = Some((refresh.session_expires_s, refresh.refresher));
        fields.min_se = refresh.min_se_s;
    }
}

fn transaction_options(push: &Push, ctx: &Ctx<'_>) -> TransactionOptions {
    let mut options = ctx.env.options.transaction;
    options.reliable = push.trunk.is_some_and(|trunk| trunk.address.is_none());
    options
}

fn transmit_reinvite(push: &Push, ctx: &mut Ctx<'_>) {
    let parts = InDialog::new(push, ctx, push.invite_branch);
    let mut fields = parts.fields(push, push.invite_cseq);
    let msrp = ctx.env.token(TokenKind::MsrpSession, push.key(), 0);
    fields.msrp_session = msrp.as_bytes();
    put_refresh(push, &mut fields);
    let env = ctx.env;
    let trunk = way_out(push, ctx);
    if !ctx
        .out
        .send(trunk, |out| env.templates.reinvite(&fields, out))
    {
        ctx.probe.output_dropped_total += 1;
    }
}

fn refreshed(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) {
    if let Some(Ok(contact)) = message.contact() {
        push.dialog.refresh_target(contact.uri);
    }
    push.timer
        .set_peer_updates(message.lists(HeaderName::Allow, b"UPDATE"));
    let outcome = RefreshOutcome {
        status: message.status(),
        answered: message.session_expires().and_then(Result::ok),
        min_se_s: None,
        retry_after_s: None,
    };
    push.refresh = None;
    let agreement = Agreement {
        options: &ctx.env.options.timer,
        dice: ctx.jitter,
    };
    let action = push.timer.refresh_outcome(ctx.now, &outcome, agreement);
    debug_assert_eq!(action, SessionAction::Nothing, "a 2xx asks for nothing");
}

fn refresh_failed(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: Option<&Message<'_>>,
    status: u16,
) -> Option<Outcome> {
    let outcome = RefreshOutcome {
        status,
        answered: None,
        min_se_s: message.and_then(Message::min_se).and_then(Result::ok),
        retry_after_s: message.and_then(Message::retry_after),
    };
    push.refresh = None;
    let agreement = Agreement {
        options: &ctx.env.options.timer,
        dice: ctx.jitter,
    };
    match push.timer.refresh_outcome(ctx.now, &outcome, agreement) {
        SessionAction::Nothing => None,
        SessionAction::Refresh(refresh) => {
            send_refresh(push, ctx, refresh);
            None
        }
        SessionAction::Expire => {
            bye(push, ctx, reason::REFRESH);
            Some(Outcome::Refresh)
        }
    }
}

/// A peer's refresh: who refreshes, and how often, may change (ST-14, OK-2a).
pub fn peer_refreshed(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) -> PeerAnswer {
    let request = PeerRefresh {
        session_expires: message.session_expires().and_then(Result::ok),
        min_se_s: message.min_se().and_then(Result::ok),
        lists_timer: message.lists(HeaderName::Supported, b"timer"),
    };
    let agreement = Agreement {
        options: &ctx.env.options.timer,
        dice: ctx.jitter,
    };
    let answer = push.timer.handle_peer_refresh(ctx.now, &request, agreement);
    if let (PeerAnswer::Accept { .. }, Some(Ok(contact))) = (answer, message.contact()) {
        push.dialog.refresh_target(contact.uri);
    }
    answer
}

/// The peer sent BYE: the dialog is over, our INVITE transaction aside.
pub fn ended_by_peer(push: &mut Push) {
    push.state = PushState::Ending;
    push.guard = Timestamp::NEVER;
    push.session_end = Timestamp::NEVER;
    push.other = None;
    push.other_request = OtherRequest::None;
}
