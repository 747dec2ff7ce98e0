//! Encoding of a push's requests, each from the state alone, so that a repeat has the same octets.

use crate::base::outbox::Destination;
use crate::base::token::{FilledToken, Token, TokenKind, TokenParts};
use crate::push::hops::{Offer, Way};
use crate::push::signalling::reason;
use crate::push::{Ctx, OtherRequest, Push};
use crate::sip::template::{AckFields, CancelFields, DialogFields, InviteFields, Templates};

/// The trunk of the push; when its connection is gone another one (NH-9): of the hop the dialog's route
/// names, else of the hop that had the INVITE, whatever that asks for. Only what a dialog owes goes to any
/// other hop; outside of one that would make a second call.
pub(super) fn way_out(push: &Push, ctx: &mut Ctx<'_>) -> Destination {
    let trunk = push.trunk.expect("a push that sends has its trunk");
    if ctx.out.lookup(trunk.link).is_some() {
        return trunk;
    }
    let named = match push.has_dialog() {
        true => ctx.hops.way(ctx.now, push.dialog.next_hop_uri()),
        false => Way::Own,
    };
    if let Way::Hop(hop) = named
        && let Some(other) = ctx.hops.destination(hop)
    {
        return other;
    }
    if let Some(other) = push.used_hop.and_then(|hop| ctx.hops.destination(hop)) {
        return other;
    }
    if !push.has_dialog() {
        return trunk;
    }
    ctx.hops
        .pick(ctx.out, ctx.now, push.set, Offer::Owed)
        .map_or(trunk, |(_, other)| other)
}

/// Whether a request may overtake another of this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An INVITE, an ACK.
    Any,
    /// What comes after them in a dialog, and CANCEL.
    Last,
}

/// Appends one request to the push's trunk. What a full or lost link does not take is dropped,
/// and `false`: its transaction repeats it or runs out.
pub(super) fn transmit(
    push: &Push,
    ctx: &mut Ctx<'_>,
    place: Place,
    encode: impl FnOnce(&Templates, &mut Vec<u8>),
) -> bool {
    if push.detained {
        return true;
    }
    let trunk = way_out(push, ctx);
    let forms = &ctx.env.dialect(push).forms;
    let templates = forms.of(push.set, trunk.address.is_none());
    let encode = |out: &mut Vec<u8>| encode(templates, out);
    match place {
        Place::Any => ctx.out.send(trunk, encode),
        Place::Last => ctx.out.send_last(trunk, encode),
    }
}

/// `o=` session id: unique per dialog while the slot and generation are (SDP-2).
pub(super) fn sdp_session(push: &Push) -> u64 {
    let key = push.key();
    u64::from(key.generation) << 26 | u64::from(key.slot)
}

/// The session-id of our MSRP URI.
pub(super) fn msrp_session(push: &Push, ctx: &Ctx<'_>) -> Token {
    push.token(ctx.env, TokenKind::MsrpSession, 0)
}

/// The identifiers of one request.
pub(super) struct Names {
    branch: Token,
    tag: Token,
    call_id: Token,
}

impl Names {
    pub(super) fn new(push: &Push, ctx: &Ctx<'_>, sequence: u16) -> Self {
        let tag = push.token(ctx.env, TokenKind::PushTag, 0);
        Self {
            branch: sibling(tag, push, ctx, (TokenKind::PushBranch, sequence)),
            tag,
            call_id: sibling(tag, push, ctx, (TokenKind::PushCallId, 0)),
        }
    }

    /// The fields that all requests inside the dialog share.
    pub(super) fn in_dialog<'a>(&'a self, push: &'a Push, cseq: u32) -> DialogFields<'a> {
        DialogFields {
            request_uri: push.dialog.request_uri(),
            branch: self.branch.as_bytes(),
            route_lines: push.dialog.route_lines(),
            from_tag: self.tag.as_bytes(),
            to_value: push.dialog.to_value(),
            call_id: self.call_id.as_bytes(),
            cseq,
            sdp_session: sdp_session(push),
            sdp_version: 1,
            from_uri: push.target.from_uri(),
            ..DialogFields::default()
        }
    }
}

/// Another SIP token of the push.
fn sibling(token: Token, push: &Push, ctx: &Ctx<'_>, (kind, sequence): (TokenKind, u16)) -> Token {
    token.sibling(TokenParts {
        kind,
        shard: ctx.env.shard,
        key: push.key(),
        sequence,
    })
}

pub(super) fn invite(push: &mut Push, ctx: &mut Ctx<'_>) {
    let names = Names::new(push, ctx, push.invite_branch);
    let icid = sibling(names.tag, push, ctx, (TokenKind::ChargingId, 0));
    let msrp = msrp_session(push, ctx);
    let fields = InviteFields {
        request_uri: push.target.request_uri(),
        branch: names.branch.as_bytes(),
        from_tag: names.tag.as_bytes(),
        to_uri: push.target.to_uri(),
        call_id: names.call_id.as_bytes(),
        cseq: push.invite_cseq,
        icid: icid.as_bytes(),
        session_expires_s: push.initial.and_then(|initial| initial.session_expires_s),
        min_se: push.initial.and_then(|initial| initial.min_se_s),
        conversation_id: push.target.conversation_id(),
        contribution_id: push.target.contribution_id(),
        sdp_session: sdp_session(push),
        sdp_version: 1,
        msrp_session: msrp.as_bytes(),
        no_require: push.no_require,
        related_icid: push.target.related_icid(),
        extra_accept_contact: push.target.accept_contact(),
        extra_headers: push.target.lines(),
        from_uri: push.target.from_uri(),
    };
    let mut filler = push.invite_filler;
    transmit(push, ctx, Place::Any, |templates, out| {
        filler = templates.invite(&fields, out);
    });
    push.invite_filler = filler;
}

pub(super) fn reinvite(push: &mut Push, ctx: &mut Ctx<'_>) {
    let names = Names::new(push, ctx, push.invite_branch);
    let msrp = msrp_session(push, ctx);
    let mut fields = names.in_dialog(push, push.invite_cseq);
    fields.msrp_session = msrp.as_bytes();
    put_refresh(push, &mut fields);
    if push.refresh.is_none()
        && let Some((interval_s, refresher, min_se_s)) = push.timer.request_fields()
    {
        fields.session_expires = Some((interval_s, refresher));
        fields.min_se = min_se_s;
    }
    let mut without_cema = false;
    if let Some(session) = &push.negotiation {
        fields.sdp_version = session.version();
        without_cema = session.without_cema;
    }
    let mut filler = push.invite_filler;
    transmit(push, ctx, Place::Last, |templates, out| {
        filler = encode_reinvite(templates, &fields, without_cema, out);
    });
    push.invite_filler = filler;
}

fn encode_reinvite(
    templates: &Templates,
    fields: &DialogFields<'_>,
    without_cema: bool,
    out: &mut Vec<u8>,
) -> u8 {
    if without_cema {
        templates.reinvite_without_cema(fields, out)
    } else {
        templates.reinvite(fields, out)
    }
}

/// Appends the body of a re-INVITE with this o= version, with `a=msrp-cema` or without it.
pub(super) fn offer_text(
    push: &Push,
    ctx: &Ctx<'_>,
    (version, without_cema): (u32, bool),
    out: &mut Vec<u8>,
) {
    let names = Names::new(push, ctx, push.invite_branch);
    let msrp = msrp_session(push, ctx);
    let mut fields = names.in_dialog(push, push.invite_cseq);
    fields.msrp_session = msrp.as_bytes();
    fields.sdp_version = version;
    let start = out.len();
    encode_reinvite(
        &ctx.env.dialect(push).forms.common,
        &fields,
        without_cema,
        out,
    );
    let head = memchr::memmem::find(&out[start..], b"\r\n\r\n").expect("a message has a body");
    out.drain(start..start + head + 4);
}

/// ACK to a 2xx of the INVITE numbered `cseq`.
pub(super) fn ack(push: &mut Push, ctx: &mut Ctx<'_>, cseq: u32, branch: u16) {
    if push.detained {
        return;
    }
    let names = Names::new(push, ctx, branch);
    let fields = names.in_dialog(push, cseq);
    ctx.probe.acks_sent_total += 1;
    let sent = transmit(push, ctx, Place::Any, |templates, out| {
        templates.ack(&fields, out);
    });
    // Of an earlier one that is repeated its peer asks again.
    if cseq == push.ack_cseq {
        push.ack_owed = !sent;
    }
}

/// ACK to a failure: the INVITE's own branch, Request-URI and route (RFC 3261 section 17.1.1.3).
pub(super) fn failure_ack(push: &Push, ctx: &mut Ctx<'_>, to_value: &[u8]) {
    failure_ack_with(
        push,
        ctx,
        to_value,
        (push.invite_branch, push.invite_filler),
    );
}

/// The same with another branch, its sequence and filler: for an answer that makes no dialog.
pub(super) fn failure_ack_with(
    push: &Push,
    ctx: &mut Ctx<'_>,
    to_value: &[u8],
    (sequence, filler): (u16, u8),
) {
    let names = Names::new(push, ctx, sequence);
    let branch = FilledToken::new(names.branch, filler);
    let dialog = push.has_dialog().then_some(&push.dialog);
    let fields = AckFields {
        request_uri: dialog
            .map_or_else(|| push.target.request_uri(), |dialog| dialog.request_uri()),
        branch: branch.as_bytes(),
        route_lines: dialog.map(|dialog| dialog.route_lines()),
        from_tag: names.tag.as_bytes(),
        to_value,
        call_id: names.call_id.as_bytes(),
        cseq: push.invite_cseq,
        from_uri: push.target.from_uri(),
    };
    transmit(push, ctx, Place::Any, |templates, out| {
        templates.ack_failure(&fields, out);
    });
}

/// The request that `other` carries.
pub(super) fn other(push: &mut Push, ctx: &mut Ctx<'_>) {
    if push.ack_owed {
        ack(push, ctx, push.ack_cseq, push.ack_branch);
    }
    match push.other_request {
        OtherRequest::None => {}
        OtherRequest::Cancel => {
            let names = Names::new(push, ctx, push.invite_branch);
            let branch = FilledToken::new(names.branch, push.invite_filler);
            let fields = CancelFields {
                request_uri: push.target.request_uri(),
                branch: branch.as_bytes(),
                from_tag: names.tag.as_bytes(),
                to_uri: push.target.to_uri(),
                call_id: names.call_id.as_bytes(),
                cseq: push.invite_cseq,
                reason: reason::NO_ANSWER.as_bytes(),
                from_uri: push.target.from_uri(),
            };
            transmit(push, ctx, Place::Last, |templates, out| {
                templates.cancel(&fields, out);
            });
        }
        OtherRequest::Bye => {
            let names = Names::new(push, ctx, push.other_branch);
            let mut fields = names.in_dialog(push, push.other_cseq);
            fields.reason = push.bye_reason.as_bytes();
            transmit(push, ctx, Place::Last, |templates, out| {
                templates.bye(&fields, out);
            });
        }
        OtherRequest::Update => {
            let names = Names::new(push, ctx, push.other_branch);
            let mut fields = names.in_dialog(push, push.other_cseq);
            put_refresh(push, &mut fields);
            transmit(push, ctx, Place::Last, |templates, out| {
                templates.update(&fields, out);
            });
        }
    }
}

fn put_refresh(push: &Push, fields: &mut DialogFields<'_>) {
    if let Some(refresh) = &push.refresh {
        fields.session_expires = Some((refresh.session_expires_s, refresh.refresher));
        fields.min_se = refresh.min_se_s;
    }
}
