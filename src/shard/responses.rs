//! Responses: from the top Via's branch to the state that waits for them, without a table.

use crate::base::outbox::Destination;
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::base::token::{SEQUENCE_MODULUS, TokenKind, TokenParts, without_filler};
use crate::push::Ctx;
use crate::push::signalling::{self, StrayDialog};
use crate::shard::{Shard, ctx};
use crate::sip::message::{Message, Method, Via};
use crate::sip::scan::{decimal_u32, find_near};

/// What our branches start with (RFC 3261 section 8.1.1.7).
const MAGIC: &[u8] = b"z9hG4bK";
/// First sequence of late dialogs; a push has no 14,000 transactions.
const LATE_FIRST: u16 = SEQUENCE_MODULUS - 2048;

impl Shard {
    /// Routes a response (TX-8, TX-9); `parts` is what [`Shard::token_of`] says. Forged or foreign
    /// ones change nothing.
    pub(super) fn handle_response(
        &mut self,
        now: Timestamp,
        from: Destination,
        message: &Message<'_>,
        parts: Option<TokenParts>,
    ) {
        let Some(parts) = parts.filter(|parts| self.is_ours(message, *parts)) else {
            self.probe.responses_forged_total += 1;
            return;
        };
        // A push knows its hop.
        if parts.kind != TokenKind::PushBranch {
            self.hear_hop(now, from, message);
        }
        match parts.kind {
            TokenKind::PushBranch => self.push_response(now, from, message, parts),
            TokenKind::SubscribeBranch => self.subscribe_response(now, message, parts),
            TokenKind::OtherBranch => self.notice_response(now, message, parts),
            TokenKind::LargeSession => self.large_response(now, message, parts.key),
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

    /// What a response says of the hop that it came from.
    fn hear_hop(&mut self, now: Timestamp, from: Destination, message: &Message<'_>) {
        let is_here = from.address.is_some() || from.shard == self.env.shard;
        if is_here
            && let Some(hop) = self.hops.index_of(from)
            && self.hops.heard(now, hop, message)
        {
            self.probe.overload_feedback_total += 1;
        }
    }

    /// The token in the top Via's branch, if one of our shards made it.
    pub(super) fn token_of(&self, message: &Message<'_>) -> Option<TokenParts> {
        let branch = message.via_top().ok()?.branch?;
        self.verify(without_filler(branch.strip_prefix(MAGIC)?))
    }

    /// The Via is ours alone and the Call-ID is that of the branch's owner.
    fn is_ours(&self, message: &Message<'_>, parts: TokenParts) -> bool {
        let sent_by = |via: Via<'_>| self.is_our_sent_by(via.host, via.port);
        if message.via_count() != 1 || !message.via_top().is_ok_and(sent_by) {
            return false;
        }
        if parts.kind == TokenKind::LargeSession {
            // The Call-ID of such a dialog is the peer's.
            return true;
        }
        let call_id = message.call_id();
        let Some(at) = find_near(call_id, b'@') else {
            return false;
        };
        let local = &call_id[..at];
        match parts.kind {
            TokenKind::PushBranch => match self.pushes.lookup_warm(parts.key) {
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
            | TokenKind::HopBranch
            | TokenKind::LargeSession => true,
        }
    }

    fn is_our_sent_by(&self, host: &[u8], port: Option<u16>) -> bool {
        let ours = &self.env.sent_by;
        let Some(rest) = ours.get(host.len()..) else {
            return false;
        };
        let start = &ours[..host.len()];
        if start != host && !start.eq_ignore_ascii_case(host) {
            return false;
        }
        match (rest, port) {
            ([], None | Some(5060)) => true,
            ([b':', digits @ ..], port) => {
                decimal_u32(digits) == Some(u32::from(port.unwrap_or(5060)))
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
        if let Some(user) = push.user.filter(|_| !push.reported) {
            // It may end here, which its device is told.
            self.registry.foresee_devices(user);
        }
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
            sequences: late_sequences(message.to_tag().unwrap_or_default()),
            reason: signalling::LATE,
        };
        signalling::end_stray_2xx(&mut ctx!(self, now), message, &stray);
    }
}

/// Branch sequences of ACK and BYE to a late 2xx: far from what the push itself used, the same for a
/// repeated 2xx, and others for another fork's.
fn late_sequences(to_tag: &[u8]) -> (u16, u16) {
    const PAIRS: u32 = 512;
    let hash = to_tag.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let pair = u16::try_from((hash ^ hash >> 16) % PAIRS).expect("below 512");
    let ack = LATE_FIRST + 2 * pair;
    (ack, ack + 1)
}

/// The dialog number of a subscription branch: the upper bits of its sequence.
const fn subscribe_dialog(parts: TokenParts) -> u16 {
    parts.sequence >> 7
}
