//! Requests: who owns them, what is wrong with them, and the answer.

use std::borrow::Cow;

use crate::base::time::Timestamp;
use crate::base::token::{TokenKind, TokenParts, peek_shard};
use crate::metrics::drops::SipDropped;
use crate::push::Env;
use crate::shard::Shard;
use crate::shard::frames::Origin;
use crate::sip::framing::FrameError;
use crate::sip::message::{HeaderName, HeaderTable, Message, Method};
use crate::sip::parser::{self, ParseError};
use crate::sip::response;
use crate::sip::transaction::server::Lookup;
use crate::sip::uri;

/// Methods we answer with something other than 405 or 501.
const ALLOW: &str =
    "Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS, MESSAGE, NOTIFY, REGISTER\r\n";

/// What a stray REGISTER is told: we are no registrar.
pub(super) const ALLOW_WITHOUT_REGISTER: &[u8] =
    b"Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS, MESSAGE, NOTIFY\r\n";

/// A status and header lines for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    pub(super) extra: &'a [u8],
}

impl Reply<'_> {
    pub(super) const fn plain(status: u16) -> Self {
        Self { status, extra: b"" }
    }
}

impl Shard {
    /// A request that parsed (RFC 3261 section 8.2).
    pub(super) fn handle_request(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
    ) {
        let owner = self.shard_of_request(message);
        if owner != self.env.shard {
            self.forward(owner, origin, message.bytes());
            return;
        }
        let mut origin = *origin;
        if !origin.is_reliable() {
            match self.server.lookup(now, message) {
                Lookup::New(key) => origin.transaction = Some(key),
                Lookup::Retransmission { response, .. } => {
                    self.probe.retransmissions_total += 1;
                    if !response.is_empty() {
                        self.out
                            .send(origin.to, |out| out.extend_from_slice(response));
                    }
                    return;
                }
                Lookup::Cancel { key, target } => {
                    origin.transaction = Some(key);
                    let status = if target.is_some() { 200 } else { 481 };
                    return self.reply(now, &origin, message, &Reply::plain(status));
                }
                Lookup::Merged => return self.reply(now, &origin, message, &Reply::plain(482)),
                Lookup::Full => {
                    self.probe.server_transactions_full_total += 1;
                    return self.reply(now, &origin, message, &Reply::plain(503));
                }
                Lookup::Ack(_) | Lookup::DialogAck => {
                    return self.dispatch(now, &origin, message);
                }
                Lookup::Unusable => return,
            }
        }
        let origin = &origin;
        let mut extra = core::mem::take(&mut self.desk.lines);
        extra.clear();
        let refused = Self::refuse_by_form(message, &mut extra);
        if let Some(status) = refused {
            self.probe.sip_rejected_total += 1;
            let extra = &extra;
            self.reply(now, origin, message, &Reply { status, extra });
        }
        self.desk.lines = extra;
        if refused.is_some() {
            return;
        }
        self.dispatch(now, origin, message);
    }

    fn dispatch(&mut self, now: Timestamp, origin: &Origin, message: &Message<'_>) {
        let dialog = self.dialog_of(message);
        if let Some(key) = dialog.and_then(|parts| self.intake_of(parts))
            && matches!(
                message.method(),
                Method::Ack | Method::Bye | Method::Invite | Method::Update
            )
        {
            return self.handle_in_large(now, origin, message, key);
        }
        match (message.method(), dialog) {
            (Method::Notify, _) => self.handle_notify(now, origin, message, dialog),
            (Method::Message, None) => self.handle_deposit(now, origin, message),
            (Method::Register, None) => self.handle_register(now, origin, message),
            (Method::Ack, dialog) => self.handle_ack(now, message, dialog),
            (Method::Bye, Some(parts)) => self.handle_bye(now, origin, message, parts),
            (Method::Update | Method::Invite, Some(parts)) => {
                self.handle_peer_request(now, origin, message, parts);
            }
            (Method::Options, _) => {
                let extra = b"Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS, MESSAGE, NOTIFY, REGISTER\r\nAccept: application/sdp, message/cpim\r\nSupported: timer\r\n";
                self.reply(now, origin, message, &Reply { status: 200, extra });
            }
            (Method::Bye | Method::Update | Method::Cancel, None) => {
                self.reply(now, origin, message, &Reply::plain(481));
            }
            (Method::Invite, None) => {
                let tagged = message.to().is_ok_and(|to| to.tag().is_some());
                self.handle_new_invite(now, origin, message, tagged);
            }
            (Method::Message, Some(_)) => {
                let extra = b"Accept: message/cpim\r\n";
                self.reply(now, origin, message, &Reply { status: 415, extra });
            }
            (Method::Cancel | Method::Register, Some(_)) => {
                self.reply(now, origin, message, &Reply::plain(481));
            }
            (
                Method::Info | Method::Prack | Method::Publish | Method::Refer | Method::Subscribe,
                _,
            ) => self.reply(
                now,
                origin,
                message,
                &Reply {
                    status: 405,
                    extra: ALLOW.as_bytes(),
                },
            ),
            (Method::Unknown, _) => {
                self.reply(
                    now,
                    origin,
                    message,
                    &Reply {
                        status: 501,
                        extra: ALLOW.as_bytes(),
                    },
                );
            }
        }
    }

    fn handle_new_invite(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        tagged: bool,
    ) {
        // Our own push that came back by the terminating filter criteria (AMB-9).
        if self.is_own_push(message) {
            self.reply(now, origin, message, &Reply::plain(482));
        } else if tagged {
            self.reply(now, origin, message, &Reply::plain(481));
        } else {
            self.handle_large_invite(now, origin, message);
        }
    }

    fn is_own_push(&self, message: &Message<'_>) -> bool {
        let call_id = message.call_id();
        let local = memchr::memchr(b'@', call_id).map_or(call_id, |at| &call_id[..at]);
        self.verify(local).is_some()
    }

    /// The dialog or subscription the To tag names, if it is one of ours.
    fn dialog_of(&self, message: &Message<'_>) -> Option<TokenParts> {
        let parts = self.verify(message.to().ok()?.tag()?)?;
        match parts.kind {
            TokenKind::PushTag => {
                let push = self.pushes.peek(parts.key)?;
                let from_peer = message
                    .from()
                    .ok()?
                    .tag()
                    .is_some_and(|tag| tag.eq_ignore_ascii_case(push.dialog.remote_tag()));
                (from_peer
                    && message
                        .call_id()
                        .starts_with(push.token(&self.env, TokenKind::PushCallId, 0).as_bytes()))
                .then_some(parts)
            }
            TokenKind::SubscribeTag => Some(parts),
            TokenKind::LargeSession => self.is_large_dialog(message, parts).then_some(parts),
            TokenKind::PushBranch
            | TokenKind::PushCallId
            | TokenKind::MsrpSession
            | TokenKind::MsrpTransaction
            | TokenKind::SubscribeBranch
            | TokenKind::SubscribeCallId
            | TokenKind::OtherBranch
            | TokenKind::ServerTag
            | TokenKind::ChargingId
            | TokenKind::SubscribeChargingId
            | TokenKind::OtherCallId
            | TokenKind::HopBranch => None,
        }
    }

    fn shard_of_request(&mut self, message: &Message<'_>) -> u8 {
        if self.options.shards == 1 {
            return self.env.shard;
        }
        let tag = message.to().ok().and_then(|to| to.tag());
        if let Some(shard) = tag.and_then(peek_shard) {
            return shard;
        }
        let identity = match message.method() {
            Method::Message | Method::Invite => message.request_uri(),
            Method::Register => message.to().map_or(&b""[..], |to| to.uri),
            Method::Ack
            | Method::Bye
            | Method::Cancel
            | Method::Info
            | Method::Notify
            | Method::Options
            | Method::Prack
            | Method::Publish
            | Method::Refer
            | Method::Subscribe
            | Method::Update
            | Method::Unknown => return self.env.shard,
        };
        self.owner_of_identity(identity).unwrap_or(self.env.shard)
    }

    /// The shard that owns a user: by hash of the canonical identity, the same on every shard and
    /// after every restart.
    fn owner_of_identity(&mut self, identity: &[u8]) -> Option<u8> {
        let mut canonical = core::mem::take(&mut self.desk.identity);
        canonical.clear();
        let found = uri::canonical_identity(identity, &mut canonical).is_ok();
        let owner = found.then(|| self.options.owner(&canonical));
        self.desk.identity = canonical;
        owner
    }

    /// Checks that hold for every method (BAD-7, BAD-9): a status, and lines for it in `extra`.
    fn refuse_by_form(message: &Message<'_>, extra: &mut Vec<u8>) -> Option<u16> {
        if matches!(message.method(), Method::Ack | Method::Cancel) {
            return None;
        }
        if !has_known_scheme(message.request_uri()) {
            return Some(416);
        }
        for option in message.values(HeaderName::Require) {
            if !option.eq_ignore_ascii_case(b"timer") {
                let before: &[u8] = if extra.is_empty() {
                    b"Unsupported: "
                } else {
                    b", "
                };
                extra.extend_from_slice(before);
                extra.extend_from_slice(option);
            }
        }
        if extra.is_empty() {
            return None;
        }
        extra.extend_from_slice(b"\r\n");
        Some(420)
    }

    /// Answers `message`; over UDP the answer is kept for its retransmissions.
    pub(super) fn reply(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        reply: &Reply<'_>,
    ) {
        self.reply_with_body(now, origin, message, reply, b"");
    }

    /// The same with a body, whose Content-Type is among the reply's lines.
    pub(super) fn reply_with_body(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        reply: &Reply<'_>,
        body: &[u8],
    ) {
        if message.method() == Method::Ack {
            return;
        }
        let tag = self.server_tag();
        let source = origin.source;
        let extra = lines_of(&self.env, reply);
        let extra = &extra[..];
        if origin.is_reliable() {
            self.out.send(origin.to, |out| {
                response::respond(
                    message,
                    source,
                    reply.status,
                    "",
                    tag.as_bytes(),
                    extra,
                    body,
                    out,
                );
            });
            return;
        }
        let mut bytes = core::mem::take(&mut self.post.scratch.content);
        bytes.clear();
        response::respond(
            message,
            source,
            reply.status,
            "",
            tag.as_bytes(),
            extra,
            body,
            &mut bytes,
        );
        if let Some(key) = origin.transaction {
            self.server.store_response(now, key, &bytes);
        }
        self.out
            .send(origin.to, |out| out.extend_from_slice(&bytes));
        self.post.scratch.content = bytes;
    }

    /// A tag for a response outside any dialog.
    pub(super) fn server_tag(&mut self) -> crate::base::token::Token {
        self.desk.next_tag += 1;
        let n = self.desk.next_tag;
        let slot = u32::try_from(n & 0x03ff_ffff).expect("masked to 26 bits");
        let generation = u32::try_from(n >> 26 & 0x0fff_ffff).expect("masked to 28 bits");
        let key = crate::base::slab::Key { slot, generation };
        self.env.token(TokenKind::ServerTag, key, 0)
    }

    /// Bytes that did not parse: 400 and the like when an answer can be routed, else nothing.
    pub(super) fn refuse_malformed(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        bytes: &[u8],
        error: ParseError,
        table: &mut HeaderTable,
    ) {
        let answer = error.reject().and_then(|reject| {
            let message = parser::salvage(bytes, table)?;
            (message.is_request() && message.method() != Method::Ack).then_some((message, reject))
        });
        let Some((message, reject)) = answer else {
            return dropped_as(bytes).count(&mut self.probe.drops);
        };
        self.probe.sip_rejected_total += 1;
        self.reply(now, origin, &message, &Reply::plain(reject.status));
    }

    /// A stream whose framing is lost: 400 or 513 if the head can be read, then it is closed.
    pub(super) fn refuse_unframed(
        &mut self,
        now: Timestamp,
        link: crate::base::surface::LinkId,
        bytes: &[u8],
        error: FrameError,
    ) {
        let Some(state) = self.out.lookup(link) else {
            return;
        };
        let to = crate::base::outbox::Destination {
            shard: self.env.shard,
            link,
            address: None,
        };
        let origin = Origin {
            to,
            kind: state.kind,
            source: state.peer,
            transaction: None,
        };
        let mut table = crate::shard::frames::spare_table();
        let message = parser::salvage(bytes, &mut table)
            .filter(|message| message.is_request() && message.method() != Method::Ack);
        let Some(message) = message else {
            return dropped_as(bytes).count(&mut self.probe.drops);
        };
        self.probe.sip_rejected_total += 1;
        self.reply(
            now,
            &origin,
            &message,
            &Reply::plain(unframed_status(error)),
        );
    }
}

/// The header lines of a response; a failure also says who failed, where that is wanted (IMS-8).
pub(super) fn lines_of<'a>(env: &Env, reply: &Reply<'a>) -> Cow<'a, [u8]> {
    let source = &env.response_source_line;
    if source.is_empty() || !(400..600).contains(&reply.status) {
        return Cow::Borrowed(reply.extra);
    }
    Cow::Owned([reply.extra, source].concat())
}

/// `sip:`, `sips:` and `tel:` are ours to judge; anything else is 416 (BAD-9).
fn has_known_scheme(request_uri: &[u8]) -> bool {
    let end = memchr::memchr(b':', request_uri).unwrap_or(0);
    let scheme = &request_uri[..end];
    [&b"sip"[..], b"sips", b"tel"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
}

/// What was dropped, of octets that got no answer.
fn dropped_as(bytes: &[u8]) -> SipDropped {
    let start = bytes.trim_ascii_start();
    if start.starts_with(b"SIP/") {
        SipDropped::Response
    } else if start.starts_with(b"ACK ") {
        SipDropped::Ack
    } else {
        SipDropped::Unanswerable
    }
}

/// The answer to a head whose message cannot be framed (NH-6, BAD-12).
const fn unframed_status(error: FrameError) -> u16 {
    match error {
        FrameError::HeaderTooLong | FrameError::MessageTooLong => 513,
        FrameError::BadContentLength | FrameError::MissingContentLength | FrameError::NotSip => 400,
    }
}
