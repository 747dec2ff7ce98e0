//! Sessions at rest: what is written of a push while nothing is under way in it (layer 3).
//!
//! A session that stands for hours does something every quarter of an hour. Between, it is kept as a few
//! hundred octets ([`Pool`](crate::base::pool::Pool)): its dialog, its timer, whom it serves. Written is
//! everything that may differ from a fresh slot; what may not is held against that in
//! [`Push::is_at_rest`], and the seals are made again from the key. Each field is in one list or the other, or
//! this does not compile.

use crate::base::fold::{Fold, Reader, Writer};
use crate::base::pool::Idle;
use crate::base::slab::Key;
use crate::base::surface::LinkId;
use crate::base::token::{Domain, Minter};
use crate::push::options::Grouping;
use crate::push::post::Post;
use crate::push::{Env, OtherRequest, PeerMedia, Push, PushState};
use crate::sip::transaction::client_invite::ClientInviteState;
use crate::store::index::Mailbox;
use crate::store::op::Hints;

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
            && self.held_back == 0
            && !self.ack_owed
            && !self.in_parts
            && self.session.is_foldable()
            && self.inbound.is_idle()
            && self.forks == 0
    }

    /// It lingers and has nothing to send: [`pump`](crate::push::campaign::pump) would change nothing, and
    /// need not look at its user, who may be at rest.
    #[must_use]
    pub fn is_settled(&self, post: &Post, env: &Env) -> bool {
        !self.guard.is_never()
            && self.is_at_rest()
            && !env.options.linger.is_zero()
            && self.messages_sent > 0
            && self.messages_sent < env.options.max_messages
            && env.dialect(self).grouping != Grouping::Message
            && self
                .user
                .and_then(|user| post.mailbox_ref(user.slot))
                .is_none_or(Mailbox::is_empty)
    }
}

crate::fold_fields!(Push {
    bound_by_us,
    sequence,
    invite_branch,
    invite_filler,
    invite_cseq,
    ack_cseq,
    ack_branch,
    other_branch,
    other_cseq,
    user,
    guard,
    session_end,
    invited,
    stage_from,
    armed,
    timer,
    trunk,
    used_hop,
    set,
    device as digest,
    dialog,
    target,
    tried_hops,
    msrp_link,
    messages_sent,
    octets_sent,
    takes,
    careful,
    dialect,
    conversation,
    agents,
    no_require,
    urgent,
    last_number,
    last_notice,
    media,
    session,
    failed_to,
    note,
    binding,
} but {
    // What `is_at_rest` says.
    state = PushState::Delivering,
    other_request = OtherRequest::None,
    reported = false,
    other = None,
    hop = None,
    // Accepted, at most: a 2xx that comes again is answered without it.
    invite = None,
    forks = 0,
    detained = false,
    ack_owed = false,
    negotiation = None,
    bye_reason = "",
    refresh = None,
    waiting_for = None,
    in_parts = false,
    held_back = 0,
    inflight,
    inbound,
    // Of forks ended none is known.
    fork_tags,
    // Only the first answer asks for it.
    initial = None,
    // Made from the key.
    key,
    sip_seal,
    msrp_seal,
});
crate::fold_fields!(PeerMedia {
    path,
    wrapped_types,
    max_size
});
crate::fold_blanks!(Hints = Hints::default());

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
        Fold::fold(self, out);
    }

    fn unfold(&mut self, keeper: &Sealer, key: Key, from: &mut Reader<'_>) {
        self.inflight.clear();
        self.inbound.reset();
        Fold::unfold(self, from);
        self.key = Some(key);
        self.sip_seal = keeper.minter.seal(Domain::Push, keeper.shard, key);
        self.msrp_seal = keeper.minter.seal(Domain::Media, keeper.shard, key);
    }
}

#[cfg(test)]
mod tests {
    use crate::push::Outcome;
    use crate::registry::device::place_of;
    use crate::sdp::SdpError;

    /// One of each kind; the match is there so that a new kind does not compile until it is listed.
    fn outcomes() -> Vec<Outcome> {
        let status = |status| Outcome::Status {
            status,
            retry_after_s: None,
        };
        let all = vec![
            Outcome::Drained,
            status(302),
            status(422),
            status(486),
            Outcome::NoAnswer,
            Outcome::NoHop,
            Outcome::NoContact,
            Outcome::Sdp(SdpError::Addr),
            Outcome::Sdp(SdpError::Dir),
            Outcome::Sdp(SdpError::None),
            Outcome::Sdp(SdpError::Path),
            Outcome::Sdp(SdpError::Port0),
            Outcome::Sdp(SdpError::Proto),
            Outcome::Sdp(SdpError::Setup),
            Outcome::Sdp(SdpError::Type),
            Outcome::MsrpConnect,
            Outcome::MsrpBind,
            Outcome::MsrpTimeout,
            Outcome::MsrpLost,
            Outcome::MsrpStatus(481),
            Outcome::MsrpStatus(506),
            Outcome::PeerBye,
            Outcome::Refresh,
            Outcome::Cap,
        ];
        for outcome in &all {
            match outcome {
                Outcome::Drained
                | Outcome::Status { .. }
                | Outcome::NoAnswer
                | Outcome::NoHop
                | Outcome::NoContact
                | Outcome::MsrpConnect
                | Outcome::MsrpBind
                | Outcome::MsrpTimeout
                | Outcome::MsrpLost
                | Outcome::MsrpStatus(_)
                | Outcome::PeerBye
                | Outcome::Refresh
                | Outcome::Cap => {}
                Outcome::Sdp(error) => match error {
                    SdpError::Addr
                    | SdpError::Dir
                    | SdpError::None
                    | SdpError::Path
                    | SdpError::Port0
                    | SdpError::Proto
                    | SdpError::Setup
                    | SdpError::Type => {}
                },
            }
        }
        all
    }

    #[test]
    fn whatever_ended_the_last_attempt_does_not_keep_a_device_from_resting() {
        let codes = outcomes().into_iter().map(Outcome::code);
        let mut places: Vec<u8> = codes
            .map(|code| place_of(code).unwrap_or_else(|| panic!("{code} has no place")))
            .collect();
        places.push(place_of("").expect("no attempt yet"));
        places.sort_unstable();
        assert!(places.is_sorted_by(|a, b| a < b), "each has its own");
    }
}
