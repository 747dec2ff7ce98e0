//! Large message mode, the receiving side (INT-13): the INVITE that announces a message, the chunks, and
//! the records that make it one.
//!
//! Order of effects: each chunk is answered 200 when it is here; parts go to the store as they fill; the
//! deposit that lists them is appended once they are durable; the success REPORT, and the push, wait for
//! that deposit. A session that ends before gives back what it wrote, and nothing is delivered.

use std::io::Write as _;

use crate::base::octets;
use crate::base::slab::Key;
use crate::base::surface::LinkKind;
use crate::base::time::Timestamp;
use crate::base::token::{TokenKind, TokenParts};
use crate::cpim::Identifiers;
use crate::push::hops::{COMMON_SET, Offer};
use crate::push::large::{Bye, INVITE_BYTES_MAX, IntakeState};
use crate::sdp::{self, Answer, Setup};
use crate::shard::Shard;
use crate::shard::frames::{Origin, spare_table};
use crate::shard::intake::{FULL_RETRY_AFTER, Refusal};
use crate::shard::requests::Reply;
use crate::shard::timers::cover_intake;
use crate::sip::dialog::{Glare, judge_glare};
use crate::sip::message::{HeaderName, Message, Method, Refresher};
use crate::sip::session_timer::SESSION_INTERVAL_S_MIN;
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::client_non_invite::{
    ClientNonInvite, ClientNonInviteState, NonInviteAction,
};
use crate::sip::transaction::server_invite::{ServerInvite, ServerInviteAction};
use crate::sip::{parser, response};

/// What an INVITE of a large message names as its service, in either place and spelling.
const SERVICES: [&[u8]; 2] = [b"oma.cpm.largemsg", b"oma.cpm.deferred"];

/// What an offer comes to.
struct Plan {
    limit: u64,
    connects: Option<core::net::SocketAddr>,
}

impl Shard {
    /// An INVITE outside a dialog that is not our own: a large message, or refused.
    pub(super) fn handle_large_invite(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
    ) {
        let mut lines = core::mem::take(&mut self.desk.lines);
        lines.clear();
        if let Err(refusal) = self.take_invite(now, origin, message, &mut lines) {
            self.probe.large_refused_total += 1;
            lines.extend_from_slice(refusal.extra);
            let answer = Reply {
                status: refusal.status,
                extra: &lines,
            };
            self.reply(now, origin, message, &answer);
        }
        self.desk.lines = lines;
    }

    fn take_invite(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        lines: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        if self.post.options.large.bytes_max == 0 || !announces_message(message) {
            return Err(Refusal {
                status: 488,
                extra: b"Warning: 304 volley \"large-message mode is not served\"\r\n",
            });
        }
        if self.post.is_failed() || self.post.is_behind(now) || self.desk.draining {
            return Err(Refusal::plain(503));
        }
        if message.bytes().len() > INVITE_BYTES_MAX {
            return Err(Refusal::plain(513));
        }
        let offer = self.judge_large_offer(message, lines)?;
        let user = self.served_user(message.request_uri());
        let plan = user
            .ok_or(Refusal::plain(404))
            .and_then(|user| self.plan_intake(user, &offer));
        if let Some(user) = user {
            self.rearm_user(user);
        }
        self.answer_large(now, origin, message, &offer, &plan?)
    }

    /// What can be said of the INVITE without its recipient: form, session timer, offer.
    fn judge_large_offer<'a>(
        &self,
        message: &Message<'a>,
        lines: &mut Vec<u8>,
    ) -> Result<Answer<'a>, Refusal> {
        let usable = |contact: &[u8]| crate::sip::uri::parse(contact).is_ok();
        if !message
            .contact()
            .is_some_and(|contact| contact.is_ok_and(|contact| usable(contact.uri)))
        {
            return Err(Refusal::plain(400));
        }
        if let Some(status) = refuse_interval(message, lines) {
            return Err(Refusal::plain(status));
        }
        let content_type = message.header(HeaderName::ContentType);
        if !message.body().is_empty() && !content_type.is_some_and(sdp::may_hold_sdp) {
            return Err(Refusal {
                status: 415,
                extra: b"Accept: application/sdp\r\n",
            });
        }
        sdp::judge_sending_offer(message.body(), content_type).map_err(|error| {
            write!(lines, "Warning: 399 volley \"{}\"\r\n", error.code())
                .expect("writing to memory");
            Refusal::plain(488)
        })
    }

    /// How much the user's mailbox has room for, and who connects.
    fn plan_intake(&mut self, user: Key, offer: &Answer<'_>) -> Result<Plan, Refusal> {
        let full = Refusal {
            status: 480,
            extra: FULL_RETRY_AFTER,
        };
        let quota = self.post.options.quota;
        let mailbox = self.post.mailbox(user.slot);
        let room = quota.bytes_max.saturating_sub(mailbox.bytes());
        let held = u32::try_from(mailbox.len()).unwrap_or(u32::MAX);
        let limit = self.post.options.large.bytes_max.min(room);
        if limit == 0 || held >= quota.messages_max {
            return Err(full);
        }
        let guard = self.env.options.media_guard;
        let reachable = offer
            .connect_address()
            .ok()
            .filter(|&address| sdp::address_allowed(address, guard));
        let connects = match offer.setup {
            // RFC 4975 section 5.4: without a word the offerer connects.
            Some(Setup::Active | Setup::Holdconn) | None => None,
            Some(Setup::Actpass) => reachable,
            Some(Setup::Passive) => Some(reachable.ok_or(Refusal {
                status: 488,
                extra: b"Warning: 399 volley \"R-SDP-ADDR\"\r\n",
            })?),
        };
        Ok(Plan { limit, connects })
    }

    fn answer_large(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        offer: &Answer<'_>,
        plan: &Plan,
    ) -> Result<(), Refusal> {
        let options = self.post.intakes.options;
        let Some((key, intake)) = self.post.intakes.insert() else {
            return Err(Refusal::plain(503));
        };
        intake.invite.extend_from_slice(message.bytes());
        intake.path.extend_from_slice(offer.path);
        intake.limit = plan.limit;
        intake.connects = plan.connects.is_some();
        intake.peer_cseq = message.cseq().map_or(0, |cseq| cseq.number);
        intake.guard = Some(now + self.env.options.await_connection);
        intake.end = Some(now + options.session_max);
        self.describe_large(key, message, offer);
        self.send_large_answer(now, origin, message, key);
        if let Some(address) = plan.connects {
            self.probe.msrp_connects_total += 1;
            let token = connect_token(key);
            self.out.connect(token, LinkKind::MsrpOutbound, address);
        }
        self.probe.large_sessions_total += 1;
        self.rearm_intake(key);
        Ok(())
    }

    /// Writes our description of the session, which stays the same for its life.
    fn describe_large(&mut self, key: Key, message: &Message<'_>, offer: &Answer<'_>) {
        let token = self.env.token(TokenKind::LargeSession, key, 0);
        let intake = self.post.intakes.lookup_mut(key).expect("just made");
        let media = &self.env.media;
        let local = sdp::LocalMedia {
            session: u64::from(key.slot) << 28 | u64::from(key.generation),
            version: 1,
            host: media.host,
            port: media.port,
            msrp_session: token.as_bytes(),
            accept_types: b"message/cpim",
            accept_wrapped_types: b"*",
            max_size: Some(intake.limit),
            cema: self.env.dialects[0].cema && offer.cema,
            role: if intake.connects {
                Setup::Active
            } else {
                Setup::Passive
            },
        };
        let content_type = message.header(HeaderName::ContentType);
        let out = &mut intake.description;
        sdp::answer_sending_offer(message.body(), content_type, &local, out)
            .expect("the offer was judged before");
    }

    /// Sends the 200 to an INVITE, the first or one in the dialog, and keeps it until its ACK (SX-4).
    fn send_large_answer(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        key: Key,
    ) {
        let token = self.env.token(TokenKind::LargeSession, key, 0);
        let mut extra = Vec::with_capacity(512);
        self.write_large_lines(message, &mut extra);
        extra.extend_from_slice(b"Content-Type: application/sdp\r\n");
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        intake.way_back = Some(origin.to);
        intake.invite_cseq = message.cseq().map_or(0, |cseq| cseq.number);
        intake.response.clear();
        response::respond(
            message,
            origin.source,
            200,
            "",
            token.as_bytes(),
            &extra,
            &intake.description,
            &mut intake.response,
        );
        let options = TransactionOptions {
            reliable: origin.is_reliable(),
            ..self.env.options.transaction
        };
        let mut server = ServerInvite::start(now, &options);
        server.respond(now, 200);
        intake.server = Some(server);
        if let Some(transaction) = origin.transaction {
            self.server
                .store_response(now, transaction, &intake.response);
        }
        self.out
            .send(origin.to, |out| out.extend_from_slice(&intake.response));
    }

    /// Lines of a 2xx in the dialog of a large message: the peer refreshes, if anybody does.
    fn write_large_lines(&self, message: &Message<'_>, lines: &mut Vec<u8>) {
        lines.extend_from_slice(&self.env.dialects[0].contact_line);
        lines.extend_from_slice(&self.env.media.allow_lines);
        let asked = message.session_expires().and_then(Result::ok);
        let theirs = |refresher: Option<Refresher>| refresher != Some(Refresher::Uas);
        if let Some(asked) = asked
            && message.lists(HeaderName::Supported, b"timer")
            && theirs(asked.refresher)
        {
            write!(
                lines,
                "Require: timer\r\nSession-Expires: {};refresher=uac\r\n",
                asked.interval_s
            )
            .expect("writing to memory");
        }
    }

    /// Whether a request whose To tag names the session of a large message is of its dialog.
    pub(super) fn is_large_dialog(&self, message: &Message<'_>, parts: TokenParts) -> bool {
        let Some(intake) = self
            .intake_of(parts)
            .and_then(|key| self.post.intakes.lookup(key))
        else {
            return false;
        };
        let mut table = spare_table();
        parser::parse(&intake.invite, &mut table).is_ok_and(|invite| {
            invite.call_id() == message.call_id() && invite.from_tag() == message.from_tag()
        })
    }

    /// A request in the dialog of a large message; an ACK too.
    pub(super) fn handle_in_large(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        key: Key,
    ) {
        let Some(intake) = self.post.intakes.lookup_mut(key) else {
            return self.reply(now, origin, message, &Reply::plain(481));
        };
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        if message.method() == Method::Ack {
            if let Some(server) = &mut intake.server
                && cseq == intake.invite_cseq
                && server.handle_ack(now) == ServerInviteAction::Acknowledged
            {
                intake.server = None;
                intake.response = Vec::new();
            }
            return self.rearm_intake(key);
        }
        if cseq < intake.peer_cseq {
            return self.reply(now, origin, message, &Reply::plain(500));
        }
        intake.peer_cseq = cseq;
        if message.method() == Method::Bye {
            self.reply(now, origin, message, &Reply::plain(200));
            self.probe.byes_received_total += 1;
            return self.ended_by_sender(now, key);
        }
        self.refresh_large(now, origin, message, key);
    }

    /// A refresh; the description stays what it was, whatever is offered.
    fn refresh_large(&mut self, now: Timestamp, origin: &Origin, message: &Message<'_>, key: Key) {
        let intake = self.post.intakes.lookup(key).expect("a live session");
        if intake.state == IntakeState::Ending {
            return self.reply(now, origin, message, &Reply::plain(481));
        }
        let is_invite = message.method() == Method::Invite;
        let is_answering = is_invite && intake.server.is_some();
        let mut lines = core::mem::take(&mut self.desk.lines);
        lines.clear();
        let glare = judge_glare(false, is_answering, &mut self.desk.jitter);
        let refusal = if let Glare::Unanswered { retry_after_s } = glare {
            write!(lines, "Retry-After: {retry_after_s}\r\n").expect("writing to memory");
            Some(500)
        } else {
            refuse_interval(message, &mut lines)
        };
        if let Some(status) = refusal {
            let extra = &lines;
            self.reply(now, origin, message, &Reply { status, extra });
        } else if is_invite {
            self.send_large_answer(now, origin, message, key);
            self.rearm_intake(key);
        } else {
            let mut body = Vec::new();
            self.write_large_lines(message, &mut lines);
            if !message.body().is_empty() {
                lines.extend_from_slice(b"Content-Type: application/sdp\r\n");
                let intake = self.post.intakes.lookup(key).expect("still there");
                body.extend_from_slice(&intake.description);
            }
            let answer = Reply {
                status: 200,
                extra: &lines,
            };
            self.reply_with_body(now, origin, message, &answer, &body);
        }
        self.desk.lines = lines;
    }

    /// What an intake's deadline brings.
    pub(super) fn intake_timer(&mut self, now: Timestamp, key: Key) {
        let Some(intake) = self.post.intakes.lookup_mut(key) else {
            return;
        };
        intake.armed = None;
        if intake.deadline() > now {
            return self.rearm_intake(key);
        }
        if intake.bye.is_some() {
            return self.large_bye_timeout(now, key);
        }
        if intake.state == IntakeState::Ending {
            return self.drop_intake(now, key);
        }
        if let Some(server) = intake.server.as_mut().filter(|at| at.deadline() <= now) {
            match server.handle_timeout(now) {
                ServerInviteAction::Retransmit => {
                    self.probe.retransmissions_total += 1;
                    let to = intake.way_back.expect("an INVITE came from somewhere");
                    self.out
                        .send(to, |out| out.extend_from_slice(&intake.response));
                }
                ServerInviteAction::AckMissing => {
                    return self.end_intake(now, key, "SIP ;cause=408 ;text=\"no ACK\"");
                }
                ServerInviteAction::Acknowledged
                | ServerInviteAction::Nothing
                | ServerInviteAction::SendTrying
                | ServerInviteAction::Terminated
                | ServerInviteAction::TimedOut => {}
            }
            return self.rearm_intake(key);
        }
        self.end_intake(now, key, "SIP ;cause=408 ;text=\"idle\"");
    }
}

/// The status that a session interval below the least one gets, with its header line (BAD-16).
fn refuse_interval(message: &Message<'_>, lines: &mut Vec<u8>) -> Option<u16> {
    let asked = message.session_expires()?.ok()?;
    let is_refusable = message.lists(HeaderName::Supported, b"timer");
    if asked.interval_s >= SESSION_INTERVAL_S_MIN || !is_refusable {
        return None;
    }
    write!(lines, "Min-SE: {SESSION_INTERVAL_S_MIN}\r\n").expect("writing to memory");
    Some(422)
}

/// Whether an INVITE announces a message (INT-13): by the service that the core asserts, else by the
/// feature it asks for (IMS-3). What the core says counts even against the sender's wish.
fn announces_message(message: &Message<'_>) -> bool {
    let names = |value: &[u8]| {
        let value = value.to_ascii_lowercase();
        SERVICES
            .iter()
            .any(|service| memchr::memmem::find(&value, service).is_some())
    };
    match message.values(HeaderName::PAssertedService).next() {
        Some(service) => names(service),
        None => message.headers(HeaderName::AcceptContact).any(names),
    }
}

pub(super) fn identifiers<'a>(invite: &Message<'a>) -> Identifiers<'a> {
    let header = |name| invite.header(name).unwrap_or_default();
    Identifiers {
        conversation: header(HeaderName::ConversationId),
        contribution: header(HeaderName::ContributionId),
        in_reply_to: header(HeaderName::InReplyToContributionId),
    }
}

/// The connect token of a session: of neither a trunk nor a push.
const fn connect_token(key: Key) -> u64 {
    (key.slot as u64) << 28 | key.generation as u64
}

pub(super) fn key_of_token(token: u64) -> Key {
    Key {
        slot: u32::try_from(token >> 28 & 0x03ff_ffff).expect("masked to 26 bits"),
        generation: u32::try_from(token & 0x0fff_ffff).expect("masked to 28 bits"),
    }
}

/// The first octets of a Contact's URI up to what must not follow in a Request-URI.
fn request_uri(contact: &[u8]) -> &[u8] {
    let end = octets::find(contact, b'?').unwrap_or(contact.len());
    &contact[..end]
}

impl Shard {
    /// BYE as the callee: the route set is as recorded, From and To change places.
    pub(super) fn send_large_bye(&mut self, now: Timestamp, key: Key, reason: &str) {
        let picked = self.hops.pick(&self.out, now, COMMON_SET, Offer::Owed);
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        let way_back = intake.way_back.expect("an INVITE came from somewhere");
        let to = picked.map_or(way_back, |(_, to)| to);
        let token = self.env.token(TokenKind::LargeSession, key, 0);
        let branch = self.env.token(TokenKind::LargeSession, key, 2);
        let mut table = spare_table();
        let invite = parser::parse(&intake.invite, &mut table).expect("it was parsed once");
        let contact = invite.contact().and_then(Result::ok);
        let target = contact.map_or(&b""[..], |contact| request_uri(contact.uri));
        let transport: &[u8] = if to.address.is_none() { b"TCP" } else { b"UDP" };
        let header = |name| invite.header(name).unwrap_or_default();
        let mut bytes = Vec::with_capacity(1024);
        for piece in [
            b"BYE ",
            target,
            b" SIP/2.0\r\nVia: SIP/2.0/",
            transport,
            b" ",
            &self.env.sent_by,
            b";branch=z9hG4bK",
            branch.as_bytes(),
            b"\r\nMax-Forwards: 70\r\n",
        ] {
            bytes.extend_from_slice(piece);
        }
        for route in invite.header_lines(HeaderName::RecordRoute) {
            bytes.extend_from_slice(b"Route: ");
            bytes.extend(route.iter().map(|&c| if c < b' ' { b' ' } else { c }));
            bytes.extend_from_slice(b"\r\n");
        }
        let folded = |value: &[u8], out: &mut Vec<u8>| {
            out.extend(value.iter().map(|&c| if c < b' ' { b' ' } else { c }));
        };
        bytes.extend_from_slice(b"From: ");
        folded(header(HeaderName::To), &mut bytes);
        bytes.extend_from_slice(b";tag=");
        bytes.extend_from_slice(token.as_bytes());
        bytes.extend_from_slice(b"\r\nTo: ");
        folded(header(HeaderName::From), &mut bytes);
        bytes.extend_from_slice(b"\r\nCall-ID: ");
        bytes.extend_from_slice(invite.call_id());
        bytes.extend_from_slice(b"\r\nCSeq: 1 BYE\r\nReason: ");
        bytes.extend_from_slice(reason.as_bytes());
        bytes.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
        let options = TransactionOptions {
            reliable: to.address.is_none(),
            ..self.env.options.transaction
        };
        self.out.send(to, |out| out.extend_from_slice(&bytes));
        self.probe.byes_sent_total += 1;
        intake.bye = Some(Bye {
            bytes,
            to,
            transaction: ClientNonInvite::start(now, &options),
        });
    }

    fn large_bye_timeout(&mut self, now: Timestamp, key: Key) {
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        let bye = intake.bye.as_mut().expect("checked by the caller");
        match bye.transaction.handle_timeout(now) {
            NonInviteAction::Retransmit => {
                self.probe.retransmissions_total += 1;
                self.out
                    .send(bye.to, |out| out.extend_from_slice(&bye.bytes));
            }
            NonInviteAction::TimedOut
            | NonInviteAction::TransportFailed
            | NonInviteAction::Terminated => return self.drop_intake(now, key),
            NonInviteAction::Nothing
            | NonInviteAction::Provisional(_)
            | NonInviteAction::Final(_) => {}
        }
        self.rearm_intake(key);
    }

    /// A response to our BYE.
    pub(super) fn large_response(&mut self, now: Timestamp, message: &Message<'_>, key: Key) {
        let Some(intake) = self.post.intakes.lookup_mut(key) else {
            self.probe.responses_stray_total += 1;
            return;
        };
        let Some(bye) = &mut intake.bye else {
            self.probe.responses_stray_total += 1;
            return;
        };
        let action = bye.transaction.handle_response(now, message.status());
        let over = bye.transaction.state() == ClientNonInviteState::Terminated;
        if over && matches!(action, NonInviteAction::Final(_)) {
            return self.drop_intake(now, key);
        }
        self.rearm_intake(key);
    }

    /// Makes the wheel cover a session's deadline.
    pub(super) fn rearm_intake(&mut self, key: Key) {
        if let Some(intake) = self.post.intakes.lookup_mut(key) {
            cover_intake(&mut self.wheel, intake, key);
        }
    }
}
