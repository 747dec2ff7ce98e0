//! What a 2xx to the INVITE leads to: the dialog, its ACK, forks, and answers that come too late.

use crate::base::outbox::Destination;
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::base::token::{SEQUENCE_MODULUS, TokenKind};
use crate::push::signalling::transmit::{self, Names, Place};
use crate::push::signalling::{FORKS_MAX, bye, offers, reason, release_hop, ways};
use crate::push::{Ctx, Outcome, Push, PushState, delivery};
use crate::sip::dialog::DialogError;
use crate::sip::message::{HeaderName, Message};
use crate::sip::session_timer::Agreement;
use crate::sip::template::DialogFields;

/// A 2xx to an INVITE of ours: the first, a repeat, a fork's, or a refresh's.
pub(super) fn accepted(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
) -> Option<Outcome> {
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
                let ours = push.is_refreshing() || push.is_offering();
                if let (true, Some(Ok(contact))) = (ours, message.contact()) {
                    push.dialog.refresh_target(contact.uri);
                    ways::follow(push, ctx);
                }
            } else {
                ctx.probe.retransmissions_total += 1;
            }
            transmit::ack(push, ctx, push.invite_cseq, push.ack_branch);
            if push.has_session() && (push.is_refreshing() || push.is_offering()) {
                return offers::accepted(push, ctx, message);
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
    let took = ctx.now.since(push.invited);
    ctx.probe.answer_time.record(took);
    if let Err(error) = push.dialog.establish(message, &mut ctx.seen.peers) {
        return no_dialog(push, ctx, message, error);
    }
    if !ways::follow(push, ctx) {
        push.dialog.abandon();
        return no_dialog(push, ctx, message, DialogError::BadRoute);
    }
    push.ack_branch = push.next_sequence();
    push.ack_cseq = push.invite_cseq;
    push.stage_from = ctx.now;
    transmit::ack(push, ctx, push.invite_cseq, push.ack_branch);
    if cancelled {
        ctx.probe.late_2xx_total += 1;
        bye(push, ctx, reason::NO_ANSWER);
        return Some(Outcome::NoAnswer);
    }
    let content_type = message.header(HeaderName::ContentType);
    let answer = match ctx.seen.answers.judge(message.body(), content_type) {
        Ok(answer) => answer,
        Err(error) => {
            bye(push, ctx, reason::ANSWER);
            return Some(Outcome::Sdp(error));
        }
    };
    if ctx.env.options.reads_agents
        && let Some(agent) = message.header(HeaderName::UserAgent)
    {
        push.agents = Some(ctx.env.options.agents.fitting(agent));
    }
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
        Ok(()) => {
            let dialect = ctx.env.dialect(push);
            if dialect.cema && answer.needs_cema_fallback(dialect.setup) {
                offers::offer_without_cema(push, ctx);
            }
            None
        }
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
    transmit::failure_ack_with(
        push,
        ctx,
        message.header(HeaderName::To).unwrap_or_default(),
        (sequence, 0),
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
    let names = Names::new(push, ctx, sequence);
    let fields = DialogFields {
        request_uri: push.target.request_uri(),
        route_lines: ctx.env.route_line_of(push.set),
        to_value: message.header(HeaderName::To).unwrap_or_default(),
        reason: reason::ANSWER.as_bytes(),
        ..names.in_dialog(push, push.invite_cseq + 1)
    };
    transmit::transmit(push, ctx, Place::Last, |templates, out| {
        templates.bye(&fields, out);
    });
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
    let trunk = transmit::way_out(push, ctx);
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
    pub key: Key,
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
    if let (Ok(()), Ok(cseq)) = (
        dialog.establish(message, &mut ctx.seen.peers),
        message.cseq(),
    ) {
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
            from_uri: b"",
        };
        ctx.out.send(stray.trunk, |out| {
            env.forms.common.ack(&fields, out);
        });
        ctx.probe.acks_sent_total += 1;
        fields.branch = bye.as_bytes();
        fields.cseq = cseq.number.wrapping_add(1);
        ctx.out.send_last(stray.trunk, |out| {
            env.forms.common.bye(&fields, out);
        });
        ctx.probe.byes_sent_total += 1;
    }
    ctx.post.scratch_dialog = dialog;
}
