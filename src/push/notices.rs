//! Notices of clients on their way to the senders: a small pool of MESSAGE transactions (layer 3).
//!
//! A disposition notification that a client sent in its push session is passed on as it came
//! (IMDN-9), on the client's behalf, by the originating route. A refused MESSAGE is sent anew with
//! growing waits, five times at most (IMDN-8). Notices live in memory only: the client's own report
//! is the evidence, a lost notice costs the sender an indication. Notices of our own go the same way
//! (IMDN-4); what they say is the shard's to write.

use core::time::Duration;

use crate::base::outbox::Destination;
use crate::base::slab::{Key, Slab};
use crate::base::time::Timestamp;
use crate::base::token::{SEQUENCE_MODULUS, TokenKind};
use crate::push::Ctx;
use crate::push::hops::{COMMON_SET, Offer};
use crate::sip::template::MessageFields;
use crate::sip::transaction::client_non_invite::{ClientNonInvite, NonInviteAction};
use crate::wheel::TimerId;

/// Notices on their way at one time; more are dropped and counted by the caller.
pub const NOTICES_MAX: usize = 4096;
/// Times a notice is sent, retransmissions aside.
const TRIES_MAX: u8 = 5;
/// First wait after a refusal; doubles.
const RETRY_MIN: Duration = Duration::from_secs(30);

/// One notice. Its slot's buffers are reused.
#[derive(Debug, Default)]
pub struct Notice {
    /// The wheel entry that covers it, and its deadline.
    pub armed: Option<(TimerId, Timestamp)>,
    from: Vec<u8>,
    to: Vec<u8>,
    conversation_id: Vec<u8>,
    contribution_id: Vec<u8>,
    content_type: Vec<u8>,
    body: Vec<u8>,
    trunk: Option<Destination>,
    transaction: Option<ClientNonInvite>,
    retry_at: Timestamp,
    tries: u8,
    /// Names the request: its Call-ID and our tag.
    sequence: u16,
    /// Names its transaction.
    branch: u16,
    /// The hops that this request was sent to, as bits.
    tried_hops: u64,
}

impl Notice {
    /// When it has something to do without input.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.transaction
            .as_ref()
            .map_or(self.retry_at, ClientNonInvite::deadline)
    }
}

/// What a notice says and to whom.
#[derive(Clone, Copy, Debug)]
pub struct NoticeParts<'a> {
    /// The client's user, on whose behalf it goes.
    pub from: &'a [u8],
    /// The sender of the message it is about.
    pub to: &'a [u8],
    /// Conversation-ID of that message; empty leaves it out.
    pub conversation_id: &'a [u8],
    /// Contribution-ID of the notice; empty leaves it out.
    pub contribution_id: &'a [u8],
    /// Type of the body, as the client sent it.
    pub content_type: &'a [u8],
    /// The body, as the client sent it.
    pub body: &'a [u8],
}

/// All notices of a shard.
#[derive(Debug)]
pub struct Notices {
    slots: Slab<Notice>,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            slots: Slab::new(NOTICES_MAX, 0),
        }
    }
}

impl Notices {
    /// The notice of `key`.
    pub fn lookup_mut(&mut self, key: Key) -> Option<&mut Notice> {
        self.slots.lookup_mut(key)
    }

    /// Notices on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// `true` when one more can be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.slots.len() < NOTICES_MAX
    }

    /// `true` when none is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a notice and sends it; `None` when the pool is full.
    pub fn start(&mut self, ctx: &mut Ctx<'_>, parts: &NoticeParts<'_>) -> Option<Key> {
        let (key, notice) = self.slots.insert()?;
        for (buffer, bytes) in [
            (&mut notice.from, parts.from),
            (&mut notice.to, parts.to),
            (&mut notice.conversation_id, parts.conversation_id),
            (&mut notice.contribution_id, parts.contribution_id),
            (&mut notice.content_type, parts.content_type),
            (&mut notice.body, parts.body),
        ] {
            buffer.clear();
            buffer.extend_from_slice(bytes);
        }
        (notice.armed, notice.transaction, notice.trunk) = (None, None, None);
        (notice.tries, notice.sequence, notice.branch) = (0, 0, 0);
        send(notice, ctx, key);
        Some(key)
    }

    /// A response to the MESSAGE of `key`. True when the notice is done with.
    pub fn handle_response(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: Key,
        sequence: u16,
        status: u16,
    ) -> bool {
        let Some(notice) = self.slots.lookup_mut(key) else {
            return false;
        };
        if sequence != notice.branch {
            return false;
        }
        let Some(transaction) = &mut notice.transaction else {
            return false;
        };
        match transaction.handle_response(ctx.now, status) {
            NonInviteAction::Final(200..=299) => true,
            NonInviteAction::Final(502..=504) if try_next_hop(notice, ctx, key) => false,
            NonInviteAction::Final(_) => refused(notice, ctx.now),
            NonInviteAction::Nothing
            | NonInviteAction::Provisional(_)
            | NonInviteAction::Retransmit
            | NonInviteAction::Terminated
            | NonInviteAction::TimedOut
            | NonInviteAction::TransportFailed => false,
        }
    }

    /// The deadline of `key` has come. True when the notice is done with.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx<'_>, key: Key) -> bool {
        let Some(notice) = self.slots.lookup_mut(key) else {
            return false;
        };
        let Some(transaction) = &mut notice.transaction else {
            if notice.retry_at <= ctx.now {
                send(notice, ctx, key);
            }
            return false;
        };
        match transaction.handle_timeout(ctx.now) {
            NonInviteAction::Retransmit => {
                ctx.probe.retransmissions_total += 1;
                transmit(notice, ctx, key);
                false
            }
            NonInviteAction::TimedOut | NonInviteAction::TransportFailed
                if try_next_hop(notice, ctx, key) =>
            {
                false
            }
            NonInviteAction::TimedOut
            | NonInviteAction::TransportFailed
            | NonInviteAction::Terminated => refused(notice, ctx.now),
            NonInviteAction::Nothing
            | NonInviteAction::Provisional(_)
            | NonInviteAction::Final(_) => false,
        }
    }

    /// Frees the slot of a notice that is done with.
    pub fn remove(&mut self, key: Key) {
        self.slots.remove(key);
    }
}

/// Plans the next try; true when there were enough.
fn refused(notice: &mut Notice, now: Timestamp) -> bool {
    notice.transaction = None;
    notice.retry_at = now + RETRY_MIN.saturating_mul(1 << notice.tries.min(7));
    notice.tries >= TRIES_MAX
}

/// A new request; without a next hop, one more wait.
fn send(notice: &mut Notice, ctx: &mut Ctx<'_>, key: Key) {
    let Some((hop, trunk)) = ctx.hops.pick(ctx.out, ctx.now, COMMON_SET, Offer::New) else {
        notice.transaction = None;
        notice.retry_at = ctx.now + RETRY_MIN;
        return;
    };
    // Only what leaves is a try: a hop may be away for hours.
    notice.tries += 1;
    notice.tried_hops = 0;
    notice.sequence = (notice.branch + 1) % SEQUENCE_MODULUS;
    start(notice, ctx, key, (hop, trunk));
}

/// The hop failed, not the sender of the message: the same request once more by the next hop of the list, as
/// a new transaction with the same Call-ID, tag and CSeq (NH-3). False when no other hop is up.
fn try_next_hop(notice: &mut Notice, ctx: &mut Ctx<'_>, key: Key) -> bool {
    let untried = (Offer::New, notice.tried_hops);
    let picked = ctx.hops.pick_untried(ctx.out, ctx.now, COMMON_SET, untried);
    if let Some(picked) = picked {
        start(notice, ctx, key, picked);
    }
    picked.is_some()
}

/// A new transaction of the request.
fn start(notice: &mut Notice, ctx: &mut Ctx<'_>, key: Key, (hop, trunk): (u16, Destination)) {
    let mut options = ctx.env.options.transaction;
    options.reliable = trunk.address.is_none();
    notice.trunk = Some(trunk);
    notice.tried_hops |= ctx.hops.bit(hop);
    notice.branch = (notice.branch + 1) % SEQUENCE_MODULUS;
    notice.transaction = Some(ClientNonInvite::start(ctx.now, &options));
    ctx.probe.notices_sent_total += 1;
    transmit(notice, ctx, key);
}

fn transmit(notice: &Notice, ctx: &mut Ctx<'_>, key: Key) {
    let env = ctx.env;
    let branch = env.token(TokenKind::OtherBranch, key, notice.branch);
    let tag = env.token(TokenKind::ServerTag, key, notice.sequence);
    let call_id = env.token(TokenKind::OtherCallId, key, notice.sequence);
    let fields = MessageFields {
        request_uri: &notice.to,
        branch: branch.as_bytes(),
        from_uri: &notice.from,
        from_tag: tag.as_bytes(),
        to_uri: &notice.to,
        call_id: call_id.as_bytes(),
        cseq: 1,
        asserted_identity: &notice.from,
        conversation_id: &notice.conversation_id,
        contribution_id: &notice.contribution_id,
        extra_headers: b"",
        content_type: &notice.content_type,
        body: &notice.body,
    };
    let trunk = notice.trunk.expect("a notice that is sent has its trunk");
    ctx.out
        .send(trunk, |out| env.forms.common.message(&fields, out));
}
