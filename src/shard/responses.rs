//! Responses: from the top Via's branch to the state that waits for them, without a table.

use crate::base::outbox::Destination;
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::base::token::{SEQUENCE_MODULUS, TokenKind, TokenParts};
use crate::push::Ctx;
use crate::push::signalling::{self, StrayDialog};
use crate::shard::{Shard, ctx};
use crate::sip::message::{Message, Method};

/// What our branches start with (RFC 3261 section 8.1.1.7).
const MAGIC: &[u8] = b"z9hG4bK";

impl Shard {
    /// Routes a response (TX-8, TX-9). Forged or foreign ones change nothing.
    pub(super) fn handle_response(
        &mut self,
        now: Timestamp,
        from: Destination,
        message: &Message<'_>,
    ) {
        let Some(parts) = self.owner_of(message) else {
            self.probe.responses_forged_total += 1;
            return;
        };
        match parts.kind {
            TokenKind::PushBranch => self.push_response(now, from, message, parts),
            TokenKind::SubscribeBranch => self.subscribe_response(now, message, parts),
            TokenKind::OtherBranch => self.notice_response(now, message, parts),
            TokenKind::HopBranch => {
                self.hops.probe_answered(parts);
                self.campaigns.hop_room();
            }
            TokenKind::PushCallId
            | TokenKind::PushTag
            | TokenKind::MsrpSession
            | TokenKind::MsrpTransaction
            | TokenKind::SubscribeCallId
            | TokenKind::SubscribeTag
            | TokenKind::ServerTag
            | TokenKind::ChargingId
            | TokenKind::SubscribeChargingId
            | TokenKind::OtherCallId => self.probe.responses_forged_total += 1,
        }
    }

    /// The token of the top branch, if the Via is ours alone and the Call-ID matches it.
    fn owner_of(&self, message: &Message<'_>) -> Option<TokenParts> {
        let via = message.via_top().ok()?;
        if message.via_count() != 1 || !self.is_our_sent_by(via.host, via.port) {
            return None;
        }
        let parts = self.verify(via.branch?.strip_prefix(MAGIC)?)?;
        let call_id = message.call_id();
        let local = &call_id[..memchr::memchr(b'@', call_id)?];
        let matches = match parts.kind {
            TokenKind::PushBranch => match self.pushes.lookup(parts.key) {
                Some(push) => local == push.token(&self.env, TokenKind::PushCallId, 0).as_bytes(),
                None => {
                    local
                        == self
                            .env
                            .token(TokenKind::PushCallId, parts.key, 0)
                            .as_bytes()
                }
            },
            TokenKind::SubscribeBranch => {
                let dialog = subscribe_dialog(parts);
                local
                    == self
                        .env
                        .token(TokenKind::SubscribeCallId, parts.key, dialog)
                        .as_bytes()
            }
            TokenKind::PushCallId
            | TokenKind::PushTag
            | TokenKind::MsrpSession
            | TokenKind::MsrpTransaction
            | TokenKind::SubscribeCallId
            | TokenKind::SubscribeTag
            | TokenKind::OtherBranch
            | TokenKind::ServerTag
            | TokenKind::ChargingId
            | TokenKind::SubscribeChargingId
            | TokenKind::OtherCallId
            | TokenKind::HopBranch => true,
        };
        matches.then_some(parts)
    }

    fn is_our_sent_by(&self, host: &[u8], port: Option<u16>) -> bool {
        let ours = &self.env.sent_by;
        let Some(rest) = ours.get(host.len()..) else {
            return false;
        };
        if !ours[..host.len()].eq_ignore_ascii_case(host) {
            return false;
        }
        match (rest, port) {
            ([], None | Some(5060)) => true,
            ([b':', digits @ ..], port) => {
                let port = port.unwrap_or(5060);
                core::str::from_utf8(digits).is_ok_and(|text| text.parse() == Ok(port))
            }
            _ => false,
        }
    }

    fn push_response(
        &mut self,
        now: Timestamp,
        from: Destination,
        message: &Message<'_>,
        parts: TokenParts,
    ) {
        let Some(push) = self.pushes.lookup_mut(parts.key) else {
            self.late_response(now, from, message, parts.key);
            return;
        };
        let mut ctx = ctx!(self, now);
        let outcome = signalling::handle_response(push, &mut ctx, message, parts.sequence);
        self.after_push(now, parts.key, outcome);
    }

    /// The push is gone. A 2xx to its INVITE must still be answered, or the phone rings on: ACK and
    /// BYE from what the response itself carries.
    fn late_response(
        &mut self,
        now: Timestamp,
        from: Destination,
        message: &Message<'_>,
        key: Key,
    ) {
        let is_invite = message
            .cseq()
            .is_ok_and(|cseq| cseq.method == Method::Invite);
        if !is_invite || !(200..300).contains(&message.status()) {
            self.probe.responses_stray_total += 1;
            return;
        }
        self.probe.late_2xx_total += 1;
        let stray = StrayDialog {
            key,
            trunk: from,
            // Far from what the push itself used, and the same for a repeated 2xx.
            sequences: (SEQUENCE_MODULUS - 2, SEQUENCE_MODULUS - 1),
            reason: signalling::LATE,
        };
        signalling::end_stray_2xx(&mut ctx!(self, now), message, &stray);
    }
}

/// The dialog number of a subscription branch: the upper bits of its sequence.
const fn subscribe_dialog(parts: TokenParts) -> u16 {
    parts.sequence >> 7
}
