//! Requests of a peer inside the dialog of a push: BYE, re-INVITE, UPDATE, and the ACK to our answers.

use crate::base::time::Timestamp;
use crate::base::token::{TokenKind, TokenParts};
use crate::push::signalling::{self, PeerVerdict};
use crate::push::{Ctx, Outcome};
use crate::shard::frames::Origin;
use crate::shard::requests::{Reply, lines_of};
use crate::shard::{Shard, ctx};
use crate::sip::message::{Message, Method};
use crate::sip::response;

impl Shard {
    pub(super) fn handle_bye(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        parts: TokenParts,
    ) {
        if parts.kind != TokenKind::PushTag {
            return self.reply(now, origin, message, &Reply::plain(481));
        }
        let push = self
            .pushes
            .lookup_mut(parts.key)
            .expect("dialog_of checked");
        let in_order = message
            .cseq()
            .is_ok_and(|cseq| push.dialog.accept_remote_cseq(cseq.number).is_ok());
        if !in_order {
            return self.reply(now, origin, message, &Reply::plain(500));
        }
        self.reply(now, origin, message, &Reply::plain(200));
        self.probe.byes_received_total += 1;
        let push = self
            .pushes
            .lookup_mut(parts.key)
            .expect("dialog_of checked");
        if let Some(session) = &mut push.negotiation {
            session.stop();
        }
        if push.has_session() {
            signalling::note_reason(push, message);
        }
        let outcome = push.has_session().then(|| {
            signalling::ended_by_peer(push, &ctx!(self, now));
            Outcome::PeerBye
        });
        self.after_push(now, parts.key, outcome);
    }

    /// The peer's UPDATE or re-INVITE: its refresh of the session (ST-14), a new offer (DLG-10), or
    /// both. It is answered finally at once.
    pub(super) fn handle_peer_request(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        parts: TokenParts,
    ) {
        if parts.kind != TokenKind::PushTag {
            return self.reply(now, origin, message, &Reply::plain(481));
        }
        let push = self
            .pushes
            .lookup_mut(parts.key)
            .expect("dialog_of checked");
        let is_invite = message.method() == Method::Invite;
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        if is_invite && signalling::is_repeated_invite(push, cseq) {
            return;
        }
        if !push.has_session() {
            return self.reply(now, origin, message, &Reply::plain(481));
        }
        if push.dialog.accept_remote_cseq(cseq).is_err() {
            return self.reply(now, origin, message, &Reply::plain(500));
        }
        let mut lines = core::mem::take(&mut self.desk.lines);
        let mut body = core::mem::take(&mut self.desk.identity);
        lines.clear();
        body.clear();
        let mut ctx = ctx!(self, now);
        let verdict =
            signalling::judge_peer_request(push, &mut ctx, message, &mut lines, &mut body);
        let extra = &lines[..];
        let reply = Reply {
            status: verdict.status,
            extra,
        };
        // A failure over a connection needs no repetition; beside a 2xx that awaits its ACK there is no
        // room for one, and the peer asks again.
        let repeats = verdict.status < 300 || (!origin.is_reliable() && !push.awaits_ack());
        if is_invite && repeats {
            self.answer_invite(now, origin, message, parts, (&reply, &body));
        } else {
            self.reply_with_body(now, origin, message, &reply, &body);
        }
        self.desk.lines = lines;
        self.desk.identity = body;
        self.after_peer_request(now, parts, verdict);
    }

    /// Answers a peer's INVITE and keeps the answer until its ACK (SX-4).
    fn answer_invite(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        parts: TokenParts,
        (reply, body): (&Reply<'_>, &[u8]),
    ) {
        let push = self
            .pushes
            .lookup_mut(parts.key)
            .expect("dialog_of checked");
        let extra = lines_of(&self.env, reply);
        let ctx = ctx!(self, now);
        let bytes = signalling::response_buffer(push, &ctx);
        response::respond(
            message,
            origin.source,
            reply.status,
            "",
            b"",
            &extra,
            body,
            bytes,
        );
        ctx.out.send(origin.to, |out| out.extend_from_slice(bytes));
        if let Some(key) = origin.transaction {
            self.server.store_response(now, key, bytes);
        }
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        signalling::await_ack(push, &ctx!(self, now), origin.to, cseq, reply.status);
    }

    fn after_peer_request(&mut self, now: Timestamp, parts: TokenParts, verdict: PeerVerdict) {
        let push = self
            .pushes
            .lookup_mut(parts.key)
            .expect("dialog_of checked");
        let outcome = verdict
            .ends
            .then(|| signalling::end_stream(push, &mut ctx!(self, now)));
        self.after_push(now, parts.key, outcome);
    }

    /// An ACK: for our answer to a peer's INVITE, or stray.
    pub(super) fn handle_ack(
        &mut self,
        now: Timestamp,
        message: &Message<'_>,
        dialog: Option<TokenParts>,
    ) {
        let Some(parts) = dialog.filter(|parts| parts.kind == TokenKind::PushTag) else {
            return;
        };
        let push = self
            .pushes
            .lookup_mut(parts.key)
            .expect("dialog_of checked");
        let outcome = signalling::acknowledged(push, &mut ctx!(self, now), message);
        self.after_push(now, parts.key, outcome);
    }
}
