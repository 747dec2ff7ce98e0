//! The way of what a push says in its dialog (NH-2): by the hop of its first Route, or its target's.

use crate::push::hops::Way;
use crate::push::signalling::transmit;
use crate::push::{Ctx, Push};

/// Looks where the dialog's requests go, now that it is there or has another target. What the push has to
/// say waits while that is not known. False when they demand TLS.
pub(super) fn follow(push: &mut Push, ctx: &mut Ctx<'_>) -> bool {
    // Whatever the way: each hop of a sips target must be secure (RFC 3261 section 26.2.2).
    let scheme = push.dialog.remote_target().get(..5);
    if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:")) {
        return false;
    }
    match ctx.hops.way(ctx.now, push.dialog.next_hop_uri()) {
        Way::Own => push.detained = false,
        Way::Hop(hop) => take(push, ctx, hop),
        Way::Refused => return false,
        Way::Waiting => push.detained = ctx.hops.wait(ctx.now, push.key()),
    }
    true
}

fn take(push: &mut Push, ctx: &mut Ctx<'_>, hop: u16) {
    push.detained = false;
    // The connection of the INVITE is as good as any other of its hop.
    if push.used_hop != Some(hop)
        && let Some(trunk) = ctx.hops.destination(hop)
    {
        push.used_hop = Some(hop);
        push.trunk = Some(trunk);
    }
}

/// There is news for a push that waits; without `hope` it waits no longer. Says now what it had to say.
pub fn resume(push: &mut Push, ctx: &mut Ctx<'_>, hope: bool) {
    if !push.detained {
        return;
    }
    match ctx.hops.way(ctx.now, push.dialog.next_hop_uri()) {
        Way::Waiting if hope => {
            push.detained = ctx.hops.wait(ctx.now, push.key());
        }
        Way::Hop(hop) => take(push, ctx, hop),
        Way::Waiting | Way::Own | Way::Refused => push.detained = false,
    }
    if push.detained {
        return;
    }
    if push.ack_cseq > 0 {
        transmit::ack(push, ctx, push.ack_cseq, push.ack_branch);
    }
    if push.has_session() && (push.is_refreshing() || push.is_offering()) && push.invite.is_some() {
        transmit::reinvite(push, ctx);
    }
    if push.other.is_some() {
        transmit::other(push, ctx);
    }
}
