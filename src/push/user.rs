//! What a shard keeps of a user beside the registration: what waits, for what and until when (layer 3).

use crate::base::outbox::Destination;
use crate::base::time::Timestamp;
use crate::push::hops::COMMON_SET;
use crate::push::lines::Places;
use crate::push::notifier::NotifierDialog;
use crate::registry;
use crate::wheel::TimerId;

/// What the shard keeps per user beside the registration.
#[derive(Debug)]
pub struct UserState {
    /// The wheel entry of the user, and its deadline.
    pub armed: Option<(TimerId, Timestamp)>,
    /// In the queue of users to decide on.
    pub queued: bool,
    /// The line in which the user waits for a hop to take an INVITE.
    pub throttled: Option<u8>,
    /// The lines for INVITEs in which it has a place, that one or not.
    pub invite_places: Places,
    /// Why the user waits for a SUBSCRIBE.
    pub ask: Ask,
    /// The line in which it does.
    pub ask_line: u8,
    /// The lines for SUBSCRIBEs in which it has a place, that one or not.
    pub ask_places: Places,
    /// When the SUBSCRIBE outstanding was begun, in the spans of [`Asking`](crate::push::lines::Asking).
    pub ask_span: u16,
    /// When a decision is due that had to wait.
    pub decide_at: Timestamp,
    /// When the last decision was made.
    pub decided_at: Option<Timestamp>,
    /// When the first of what the next decision is for came; `NEVER` after a decision that leaves nothing
    /// waiting.
    pub triggered_at: Timestamp,
    /// Earliest moment at which a device's wait ends.
    pub retry_at: Timestamp,
    /// Pushes whose outcome is open; the user stays while there are any.
    pub pushes: u32,
    /// When to ask the registrar after a restart, or for what was not read.
    pub subscribe_at: Timestamp,
    /// A NOTIFY was acknowledged unread: full state is to be asked for (SUB-9).
    pub dirty: bool,
    /// When to ask for full state because the registrar named the user and told nothing since.
    pub doubt_at: Timestamp,
    /// The subscription's requests.
    pub subscribe: SubscribeState,
    /// The list of hops of the S-CSCF that serves the user (NH-1).
    pub set: u8,
}

impl Default for UserState {
    fn default() -> Self {
        Self {
            armed: None,
            queued: false,
            throttled: None,
            invite_places: Places::default(),
            ask: Ask::No,
            ask_line: COMMON_SET,
            ask_places: Places::default(),
            ask_span: 0,
            decide_at: Timestamp::NEVER,
            decided_at: None,
            triggered_at: Timestamp::NEVER,
            retry_at: Timestamp::NEVER,
            pushes: 0,
            subscribe_at: Timestamp::NEVER,
            dirty: false,
            doubt_at: Timestamp::NEVER,
            subscribe: SubscribeState::default(),
            set: COMMON_SET,
        }
    }
}

impl UserState {
    /// For the next user of the slot.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Why a user stands in line for a SUBSCRIBE; what is greater says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// It does not.
    #[default]
    No,
    /// There is mail for it, or a rule wants it.
    Wanted,
    /// A third-party REGISTER named it.
    Registered,
}

/// The SUBSCRIBE side of a user's subscription: dialog and transaction. The states are
/// [`reginfo::subscription`](crate::reginfo::subscription)'s.
#[derive(Debug, Default)]
pub struct SubscribeState {
    /// The dialog, once a NOTIFY made it.
    pub dialog: NotifierDialog,
    /// The SUBSCRIBE outstanding is in the dialog; a repeated one stays as it was sent, even when
    /// the NOTIFY that makes the dialog has come meanwhile.
    pub in_dialog: bool,
    /// Where it went.
    pub trunk: Option<Destination>,
    /// The hops that the SUBSCRIBE outstanding was sent to, as bits; only of a first one.
    pub tried_hops: u64,
    /// Requests sent in this dialog, modulo 128.
    pub requests: u16,
    /// A third-party REGISTER came while a SUBSCRIBE was unanswered.
    pub registered_meanwhile: bool,
    /// CSeq of the SUBSCRIBE outstanding.
    pub cseq: u32,
}

impl registry::Extra for UserState {
    fn is_idle(&self) -> bool {
        !self.queued && self.throttled.is_none() && self.ask == Ask::No
    }
}

crate::fold_fields!(UserState {
    armed,
    invite_places,
    ask_places,
    ask_span,
    decide_at,
    decided_at,
    triggered_at,
    retry_at,
    pushes,
    subscribe_at,
    dirty,
    doubt_at,
    subscribe,
    set,
} but { queued = false, throttled = None, ask = Ask::No, ask_line = COMMON_SET });
crate::fold_fields!(SubscribeState {
    dialog,
    in_dialog,
    trunk,
    tried_hops,
    requests,
    registered_meanwhile,
    cseq,
});
