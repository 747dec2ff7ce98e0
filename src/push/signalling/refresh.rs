//! The session timer's side of a push: refreshes of ours and of the peer (RFC 4028).

use crate::push::signalling::{bye, offers, reason, transaction_options, transmit, ways};
use crate::push::{Ctx, OtherRequest, Outcome, Push};
use crate::sip::message::{HeaderName, Message};
use crate::sip::session_timer::{
    Agreement, PeerAnswer, PeerRefresh, Refresh, RefreshMethod, RefreshOutcome, SessionAction,
};
use crate::sip::transaction::client_invite::ClientInvite;
use crate::sip::transaction::client_non_invite::ClientNonInvite;

pub(super) fn session_timer_fired(push: &mut Push, ctx: &mut Ctx<'_>) -> Option<Outcome> {
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
    // The re-INVITE under way refreshes the session as well.
    if push.is_offering() {
        return;
    }
    ctx.probe.refreshes_sent_total += 1;
    match refresh.method {
        RefreshMethod::Update => {
            push.other_branch = push.next_sequence();
            push.other_cseq = push.dialog.next_cseq();
            push.other_request = OtherRequest::Update;
            push.other = Some(ClientNonInvite::start(ctx.now, &options));
            transmit::other(push, ctx);
        }
        RefreshMethod::Reinvite => {
            offers::renew_version(push, ctx);
            push.invite_branch = push.next_sequence();
            push.invite_cseq = push.dialog.next_cseq();
            push.invite = Some(ClientInvite::start(ctx.now, &options));
            transmit::reinvite(push, ctx);
        }
    }
}

pub(super) fn refreshed(push: &mut Push, ctx: &mut Ctx<'_>, message: &Message<'_>) {
    if let Some(Ok(contact)) = message.contact() {
        push.dialog.refresh_target(contact.uri);
        ways::follow(push, ctx);
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

pub(super) fn refresh_failed(
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
pub(super) fn peer_refreshed(
    push: &mut Push,
    ctx: &mut Ctx<'_>,
    message: &Message<'_>,
) -> PeerAnswer {
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
        ways::follow(push, ctx);
    }
    answer
}
