//! Sessions at rest: what is written of a push while nothing is under way in it (layer 3).
//!
//! A session that stands for hours does something every quarter of an hour. Between, it is kept as a few
//! hundred octets ([`Pool`](crate::base::pool::Pool)): its dialog, its timer, whom it serves. Written is
//! everything that may differ from a fresh slot; what may not is held against that in
//! [`Push::is_at_rest`], and the seals are made again from the key.

use crate::base::fold::{Digest, Fold, Reader, Writer};
use crate::base::pool::Idle;
use crate::base::slab::Key;
use crate::base::surface::LinkId;
use crate::base::token::{Domain, Minter};
use crate::push::{OtherRequest, Push, PushState};
use crate::sip::transaction::client_invite::{ClientInvite, ClientInviteState};

/// What the seals of a push are made from.
#[derive(Debug)]
pub struct Sealer {
    /// Mints tokens.
    pub minter: Minter,
    /// The shard's number.
    pub shard: u8,
}

/// The bits of a link by which sessions on it are found without looking into each.
#[must_use]
pub const fn link_mark(link: Option<LinkId>) -> u8 {
    match link {
        None => 0,
        // Never zero, so that a session without a connection is told from all others.
        Some(link) => (link.slot % 255) as u8 + 1,
    }
}

impl Push {
    /// A drained session in which nothing is under way.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let answered = self
            .invite
            .as_ref()
            .is_none_or(|invite| invite.state() == ClientInviteState::Accepted);
        self.state == PushState::Delivering
            && answered
            && self.other.is_none()
            && self.other_request == OtherRequest::None
            && !self.reported
            && !self.detained
            && self.hop.is_none()
            && self.negotiation.is_none()
            && self.bye_reason.is_empty()
            && self.refresh.is_none()
            && self.waiting_for.is_none()
            && self.inflight.is_empty()
            && !self.in_parts
            && self.session.is_foldable()
            && self.inbound.is_idle()
            && self.forks == 0
    }
}

/// Fields in the order in which they are written; both directions go through this list.
macro_rules! each_field {
    ($push:ident, $with:ident, $wire:ident) => {
        $push.bound_by_us.$with($wire);
        $push.sequence.$with($wire);
        $push.invite_branch.$with($wire);
        $push.invite_filler.$with($wire);
        $push.invite_cseq.$with($wire);
        $push.ack_cseq.$with($wire);
        $push.ack_branch.$with($wire);
        $push.other_branch.$with($wire);
        $push.other_cseq.$with($wire);
        $push.user.$with($wire);
        $push.guard.$with($wire);
        $push.session_end.$with($wire);
        $push.invited.$with($wire);
        $push.triggered.$with($wire);
        $push.timer.$with($wire);
        $push.trunk.$with($wire);
        $push.used_hop.$with($wire);
        $push.set.$with($wire);
        $push.dialog.$with($wire);
        $push.target.$with($wire);
        $push.tried_hops.$with($wire);
        $push.msrp_link.$with($wire);
        $push.messages_sent.$with($wire);
        $push.octets_sent.$with($wire);
        $push.takes.$with($wire);
        $push.careful.$with($wire);
        $push.dialect.$with($wire);
        $push.agents.$with($wire);
        $push.no_require.$with($wire);
        $push.urgent.$with($wire);
        $push.last_number.$with($wire);
        $push.last_notice.$with($wire);
        $push.media.path.$with($wire);
        $push.media.wrapped_types.$with($wire);
        $push.media.max_size.$with($wire);
        $push.session.$with($wire);
        $push.failed_to.$with($wire);
        $push.note.$with($wire);
        $push.binding.$with($wire);
    };
}

impl Idle for Push {
    type Keeper = Sealer;

    fn is_idle(&self) -> bool {
        self.is_at_rest()
    }

    fn cold_mark(&self) -> u8 {
        link_mark(self.msrp_link)
    }

    fn fold(&self, out: &mut Writer<'_>) {
        debug_assert!(self.is_at_rest(), "what is under way is not written");
        each_field!(self, fold, out);
        Digest(self.device).fold(out);
        self.armed.is_some().fold(out);
        if let Some((id, at)) = self.armed {
            id.fold(out);
            at.fold(out);
        }
        self.conversation.is_some().fold(out);
        if let Some(conversation) = self.conversation {
            conversation.fold(out);
        }
        self.invite.is_some().fold(out);
        if let Some(invite) = &self.invite {
            invite.fold(out);
        }
    }

    fn unfold(&mut self, keeper: &Sealer, key: Key, from: &mut Reader<'_>) {
        self.clear();
        self.key = Some(key);
        self.sip_seal = keeper.minter.seal(Domain::Push, keeper.shard, key);
        self.msrp_seal = keeper.minter.seal(Domain::Media, keeper.shard, key);
        self.state = PushState::Delivering;
        each_field!(self, unfold, from);
        let mut device = Digest::default();
        device.unfold(from);
        self.device = device.0;
        let is_there = |from: &mut Reader<'_>| from.number() != 0;
        self.armed = is_there(from).then(|| {
            let mut armed = (
                crate::wheel::TimerId::NONE,
                crate::base::time::Timestamp::ZERO,
            );
            armed.0.unfold(from);
            armed.1.unfold(from);
            armed
        });
        self.conversation = is_there(from).then(|| {
            let mut conversation = crate::store::op::Hints::default();
            conversation.unfold(from);
            conversation
        });
        self.invite = is_there(from).then(|| {
            let mut invite = ClientInvite::default();
            invite.unfold(from);
            invite
        });
    }
}
