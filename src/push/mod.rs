//! One push: an INVITE to one client, the session it opens, the messages delivered in it, its BYE.
//!
//! Layer 3. [`Push`] is the state, `signalling` its SIP side, `delivery` its MSRP side, `campaign`
//! what a user's pushes have in common, `post` the messages, `hops` the way to the SIP core.
//!
//! ```text
//! Loading -> Calling -> Connecting|Binding -> Delivering -> Ending -> (slot freed)
//!                 \-> Cancelling -----------------------^
//! ```
//! `Loading` waits for a body from the store, `Connecting` for our MSRP connection, `Binding` for
//! the peer's. Every state has a deadline: the transaction's own, or `guard`.
//! Not here: which clients to push to (`selection`), who is registered (`registry`).

pub mod campaign;
pub mod codes;
pub mod delivery;
pub mod dialect;
pub mod folded;
pub mod hops;
pub mod inspect;
pub mod large;
pub mod lines;
pub mod names;
pub mod negotiation;
pub mod notices;
pub mod notifier;
pub mod options;
pub mod post;
pub mod reason;
pub mod signalling;
pub mod target;
pub mod user;

use core::net::IpAddr;
use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::base::foresee;
use crate::base::outbox::{Destination, Outbox};
use crate::base::slab::Key;
use crate::base::surface::LinkId;
use crate::base::time::{Timestamp, UnixMillis};
use crate::base::token::{
    Claim, Domain, Minter, SEQUENCE_MODULUS, Seal, Token, TokenKind, TokenParts,
};
use crate::metrics::departures::Departures;
use crate::metrics::probe::Probe;
use crate::msrp::inbound::Reassembly;
use crate::msrp::session::Session;
use crate::registry::outcome::BindingId;
use crate::sdp::{Answers, SdpError};
use crate::sip::dialog::{Dialog, Peers};
use crate::sip::session_timer::{InitialMinSe, Refresh, SessionTimer};
use crate::sip::template::Templates;
use crate::sip::transaction::client_invite::{ClientInvite, ClientInviteState};
use crate::sip::transaction::client_non_invite::{ClientNonInvite, ClientNonInviteState};
use crate::store::op::{Hints, MediaLimit, NOTICE_NUMBERS};
use crate::wheel::TimerId;
use dialect::{Dialect, Forms};
use hops::Hops;
use negotiation::{Negotiation, OwnOffer};
use options::PushOptions;
use post::Post;
use target::Target;

/// What never changes while a shard runs.
#[derive(Debug)]
pub struct Env {
    /// This shard's number.
    pub shard: u8,
    /// Mints and verifies identifiers.
    pub minter: Minter,
    /// The compiled profile, for what is no push.
    pub forms: Forms,
    /// `Route` lines for requests outside a dialog, of each S-CSCF that has hops of its own.
    pub set_route_lines: Vec<Vec<u8>>,
    /// How pushes behave.
    pub options: PushOptions,
    /// Our MSRP URI up to the session-id: `msrp://host:port/`.
    pub msrp_prefix: Vec<u8>,
    /// Our `host:port` in Via.
    pub sent_by: Vec<u8>,
    /// `Response-Source` line of our failure responses; empty for none.
    pub response_source_line: Vec<u8>,
    /// `Server` line of our responses.
    pub server_line: Vec<u8>,
    /// How pushes look to devices, the plain form first.
    pub dialects: Vec<Dialect>,
    /// `Route` line of requests outside a dialog.
    pub route_line: Vec<u8>,
    /// What our descriptions of a session say.
    pub media: OwnMedia,
}

/// The part of our session descriptions that is the same for all pushes.
#[derive(Debug)]
pub struct OwnMedia {
    /// Where we listen for MSRP.
    pub host: IpAddr,
    /// The same, the port.
    pub port: u16,
    /// Value of `a=accept-types`.
    pub accept_types: Vec<u8>,
    /// Value of `a=accept-wrapped-types`.
    pub accept_wrapped_types: Vec<u8>,
    /// Value of `a=max-size`, octets.
    pub max_size: Option<u64>,
    /// `Allow` and `Supported` lines of a 2xx inside a dialog.
    pub allow_lines: Vec<u8>,
}

impl Env {
    /// What requests outside pushes for a user of `set` are made of.
    #[must_use]
    pub fn templates_of(&self, set: u8) -> &Templates {
        self.forms.of(set, false)
    }

    /// `Route` line of requests outside a dialog for a user of `set`.
    #[must_use]
    pub fn route_line_of(&self, set: u8) -> &[u8] {
        let own = usize::from(set).checked_sub(1);
        own.and_then(|place| self.set_route_lines.get(place))
            .unwrap_or(&self.route_line)
    }

    /// How pushes to the device of `push` look.
    #[must_use]
    #[inline]
    pub fn dialect(&self, push: &Push) -> &Dialect {
        &self.dialects[usize::from(push.dialect)]
    }

    /// A token of `kind` for `key`.
    #[must_use]
    pub fn token(&self, kind: TokenKind, key: Key, sequence: u16) -> Token {
        self.minter.mint(TokenParts {
            kind,
            shard: self.shard,
            key,
            sequence,
        })
    }
}

/// The parts of a shard that a push works with.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The moment of this turn.
    pub now: Timestamp,
    /// The wall clock at this turn.
    pub wall: UnixMillis,
    /// Fixed surroundings.
    pub env: &'a Env,
    /// Links.
    pub out: &'a mut Outbox,
    /// Messages.
    pub post: &'a mut Post,
    /// Next hops.
    pub hops: &'a mut Hops,
    /// Counters.
    pub probe: &'a mut Probe,
    /// Random waits.
    pub jitter: &'a mut Jitter,
    /// What peers wrote before.
    pub seen: &'a mut Seen,
    /// INVITEs of this turn.
    pub departures: &'a mut Departures,
}

/// What peers wrote before, so that the like of it is not read with care again.
#[derive(Debug, Default)]
pub struct Seen {
    /// Answers to our offers.
    pub answers: Answers,
    /// Contacts and routes.
    pub peers: Peers,
}

/// Where a push stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushState {
    /// The slot is not in use.
    #[default]
    Free,
    /// Waits for the first message's record.
    Loading,
    /// INVITE sent.
    Calling,
    /// No answer in time: CANCEL due or sent.
    Cancelling,
    /// Session agreed; our MSRP connection is being made.
    Connecting,
    /// Session agreed; the peer must connect and bind.
    Binding,
    /// Bound: messages flow, or linger for more.
    Delivering,
    /// BYE sent; only its transaction is left.
    Ending,
}

impl PushState {
    /// A word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Loading => "loading",
            Self::Calling => "calling",
            Self::Cancelling => "cancelling",
            Self::Connecting => "connecting",
            Self::Binding => "binding",
            Self::Delivering => "delivering",
            Self::Ending => "ending",
        }
    }
}

/// How a push ended, for the device's history (REQUIREMENTS sections 4 and 9, SEL-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything for the device was sent and judged.
    Drained,
    /// A final response other than 2xx, or 408 for our own timeout.
    Status {
        /// The code.
        status: u16,
        /// Its Retry-After, seconds.
        retry_after_s: Option<u32>,
    },
    /// No final response within `t_answer`.
    NoAnswer,
    /// No hop could carry the INVITE.
    NoHop,
    /// 2xx without a Contact we can use.
    NoContact,
    /// The answer cannot be used.
    Sdp(SdpError),
    /// The MSRP connection could not be made.
    MsrpConnect,
    /// The peer did not connect or bind.
    MsrpBind,
    /// A SEND was not answered in time.
    MsrpTimeout,
    /// The connection was lost.
    MsrpLost,
    /// The peer does not know the session (481) or it is bound elsewhere (506).
    MsrpStatus(u16),
    /// The peer sent BYE.
    PeerBye,
    /// A refresh failed or none came.
    Refresh,
    /// `max_session` or `max_messages` was reached; a fresh decision follows at once.
    Cap,
}

impl Outcome {
    /// The stable reason code (SEL-6).
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Drained => "DELIVERED",
            Self::Status { status: 422, .. } => "R-422",
            Self::Status {
                status: 300..=399, ..
            } => "R-REDIRECT",
            Self::Status { .. } => "R-SIP",
            Self::NoAnswer => "R-NO-ANSWER",
            Self::NoHop => "S-THROTTLED",
            Self::NoContact => "R-NO-CONTACT",
            Self::Sdp(error) => error.code(),
            Self::MsrpConnect => "R-MSRP-CONNECT",
            Self::MsrpBind => "R-MSRP-BIND",
            Self::MsrpTimeout => "R-MSRP-TIMEOUT",
            Self::MsrpLost => "R-MSRP-LOST",
            Self::MsrpStatus(506) => "R-MSRP-506",
            Self::MsrpStatus(_) => "R-MSRP-481",
            Self::PeerBye => "R-PEER-BYE",
            Self::Refresh => "R-REFRESH",
            Self::Cap => "S-CAP",
        }
    }
}

/// Which request the non-INVITE transaction of a push carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherRequest {
    /// None.
    #[default]
    None,
    /// BYE: the last one of a dialog.
    Bye,
    /// CANCEL of the INVITE.
    Cancel,
    /// UPDATE as session refresh.
    Update,
}

/// Messages of one session whose fate is open, oldest first.
pub const INFLIGHT_MAX: usize = 32;

/// A message being sent, or sent and not judged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflight {
    /// Which one.
    pub number: u64,
    /// When it was begun.
    pub since: Timestamp,
}

/// What the answer allows; copied out of the 2xx.
#[derive(Debug, Default)]
pub struct PeerMedia {
    /// The peer's whole path, as it came.
    pub path: Vec<u8>,
    /// Its `accept-wrapped-types`, empty when absent.
    pub wrapped_types: Vec<u8>,
    /// Largest message it takes, octets; `None` for no bound.
    pub max_size: Option<u64>,
}

/// The state of one push. Lives in a slab slot whose buffers are reused.
///
/// The order of the fields is the order in memory: first what every response looks at, then what the
/// session's agreement needs, last what only messages and rare answers touch. Thousands of pushes are
/// under way at a time and none stays in a cache between two of its messages.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Push {
    /// Where it stands.
    pub state: PushState,
    /// What `other` carries.
    pub other_request: OtherRequest,
    /// Whether the push's end was reported to its campaign.
    pub reported: bool,
    /// Whether we sent an empty SEND to bind the connection.
    pub bound_by_us: bool,
    sequence: u16,
    invite_branch: u16,
    /// Characters of filler behind that branch.
    invite_filler: u8,
    invite_cseq: u32,
    ack_cseq: u32,
    ack_branch: u16,
    other_branch: u16,
    other_cseq: u32,
    /// Its own key.
    pub key: Option<Key>,
    /// The user it serves.
    pub user: Option<Key>,
    /// When the state's own wait ends; `NEVER` when the transactions' timers are enough.
    pub guard: Timestamp,
    /// Hard end of the session (DLV-6).
    pub session_end: Timestamp,
    /// When the INVITE left that started the session.
    pub invited: Timestamp,
    /// When its stage began that is not measured yet: when what its decision was for came, until the INVITE is
    /// written; when the 2xx was acknowledged, until something is delivered; else `NEVER`.
    pub stage_from: Timestamp,
    /// The wheel entry that covers [`Push::deadline`], and its deadline.
    pub armed: Option<(TimerId, Timestamp)>,
    /// Seals our SIP identifiers.
    pub sip_seal: Seal,
    /// The INVITE transaction: initial or refresh.
    pub invite: Option<ClientInvite>,
    /// CANCEL, UPDATE or BYE.
    pub other: Option<ClientNonInvite>,
    /// The trunk all its SIP leaves by.
    pub trunk: Option<Destination>,
    /// Hop of the INVITE, while it counts as in flight there.
    pub hop: Option<u16>,
    /// Hop the INVITE went to.
    pub used_hop: Option<u16>,
    forks: u8,
    /// The list of hops its user belongs to.
    pub set: u8,
    /// What it has to say in its dialog waits until the way there is known.
    pub detained: bool,
    /// The connection did not take the last ACK: it goes before whatever the dialog says next.
    pub ack_owed: bool,
    /// What only sessions have that are described again.
    pub negotiation: Option<Box<Negotiation>>,
    /// The device it serves (stable hash).
    pub device: u64,
    /// The dialog.
    pub dialog: Dialog,
    initial: Option<InitialMinSe>,
    /// Whom the INVITE addresses.
    pub target: Target,
    /// Seals our MSRP identifiers.
    pub msrp_seal: Seal,
    /// Reason value of the BYE.
    pub bye_reason: &'static str,
    /// Hops of its set that were tried, as bits.
    pub tried_hops: u64,
    /// The session timer.
    pub timer: SessionTimer,
    refresh: Option<Refresh>,
    /// The connection the session is bound to.
    pub msrp_link: Option<LinkId>,
    /// The record the push waits for, if any.
    pub waiting_for: Option<u64>,
    /// Messages judged in this session so far (DLV-6).
    pub messages_sent: u32,
    /// Octets of content sent in this session.
    pub octets_sent: u64,
    /// Which messages the device takes, as its user wants it.
    pub takes: MediaLimit,
    /// The message being sent lies in parts.
    pub in_parts: bool,
    /// Its connection is full: its place in the line of those that go on when there is room. 0: none.
    pub held_back: u64,
    /// Send one message at a time: sessions of this device were lost lately (BAD-30).
    pub careful: bool,
    /// Index of the device's dialect.
    pub dialect: u8,
    /// Sessions are of one conversation: that of this session's first message.
    pub conversation: Option<Hints>,
    /// Patterns that the device's User-Agent fits, when they are looked at and it named itself.
    pub agents: Option<u16>,
    /// Leave `require` and `explicit` out of the INVITE (RSP-17).
    pub no_require: bool,
    /// Its INVITE goes whatever a hop's overload control asks for (OVL-11).
    pub urgent: bool,
    /// Reason and Warning of a refusal or of the peer's BYE, for show only (RSP-32).
    pub note: Vec<u8>,
    /// The device's binding when the push was decided on: the one its outcome is about.
    pub binding: BindingId,
    /// Number of the last message looked at in this session.
    pub last_number: u64,
    /// The same among messages that are notices themselves, which come after the others (IMDN-7).
    pub last_notice: u64,
    /// What the peer accepts.
    pub media: PeerMedia,
    /// Messages in flight in this session.
    pub inflight: Vec<Inflight>,
    /// The MSRP machine.
    pub session: Session,
    /// A message of the client that is being put together.
    pub inbound: Reassembly,
    /// To value of the last failure, for repeated ACKs.
    pub failed_to: Vec<u8>,
    /// Hashes of the To tags of the forks ended so far.
    fork_tags: [u64; signalling::FORKS_MAX],
}

/// Octets of the text of a target.
const TARGET_BYTES: usize = 256;
/// Octets of the text of a dialog.
const DIALOG_BYTES: usize = 512;

impl Push {
    /// Octets of a push that its SIP messages touch.
    pub const FRONT_BYTES: usize = core::mem::offset_of!(Self, last_number);

    /// Asks for what its next message leads to.
    #[inline]
    pub fn foresee(&self) {
        if self.state == PushState::Calling {
            self.dialog.foresee(DIALOG_BYTES);
        } else if self.state == PushState::Delivering {
            foresee::bring_whole(&self.media.path[..]);
            foresee::bring_whole(&self.inflight[..]);
        }
    }

    /// Asks for what another push will be made in; its own octets first.
    pub(crate) fn foresee_reuse(&self) {
        foresee::bring(self, core::mem::offset_of!(Self, session));
        let behind = size_of::<Self>() - core::mem::offset_of!(Self, inbound);
        foresee::bring(&self.inbound, behind);
    }

    /// Then its texts.
    pub(crate) fn foresee_texts(&self) {
        self.target.foresee(TARGET_BYTES);
    }

    /// Makes the slot ready for another push; buffers keep their capacity.
    pub fn reset(&mut self, env: &Env, key: Key, user: Key, device: u64) {
        self.state = PushState::Loading;
        self.other_request = OtherRequest::None;
        self.reported = false;
        self.bound_by_us = false;
        self.sequence = 0;
        self.invite_branch = 0;
        self.invite_filler = 0;
        self.invite_cseq = 0;
        self.ack_cseq = 0;
        self.ack_branch = 0;
        self.other_branch = 0;
        self.other_cseq = 0;
        self.key = Some(key);
        self.user = Some(user);
        self.guard = Timestamp::NEVER;
        self.session_end = Timestamp::NEVER;
        self.invited = Timestamp::NEVER;
        self.stage_from = Timestamp::NEVER;
        // The place may be that of one at rest, which took its timer along.
        self.armed = None;
        self.sip_seal = env.minter.seal(Domain::Push, env.shard, key);
        self.invite = None;
        self.other = None;
        self.trunk = None;
        self.hop = None;
        self.used_hop = None;
        self.forks = 0;
        self.set = hops::COMMON_SET;
        self.detained = false;
        self.ack_owed = false;
        self.negotiation = None;
        self.device = device;
        self.dialog.reset();
        self.initial = None;
        self.target.clear();
        self.msrp_seal = env.minter.seal(Domain::Media, env.shard, key);
        self.bye_reason = "";
        self.tried_hops = 0;
        self.timer = SessionTimer::default();
        self.refresh = None;
        self.msrp_link = None;
        self.waiting_for = None;
        self.messages_sent = 0;
        self.octets_sent = 0;
        self.takes = MediaLimit::NONE;
        self.in_parts = false;
        self.held_back = 0;
        self.careful = false;
        self.dialect = 0;
        self.conversation = None;
        self.agents = None;
        self.note.clear();
        self.no_require = false;
        self.urgent = false;
        self.last_number = 0;
        self.last_notice = NOTICE_NUMBERS;
        self.media.path.clear();
        self.media.wrapped_types.clear();
        self.media.max_size = None;
        self.inflight.clear();
        self.inbound.reset();
        self.failed_to.clear();
    }

    /// The key of a live push.
    ///
    /// # Panics
    /// On a slot that was never reset; only live slots are handed out.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key.expect("a live push has its key")
    }

    /// A token of `kind` for this push.
    ///
    /// # Panics
    /// For kinds that no push has, and on a slot that was never reset.
    #[must_use]
    pub fn token(&self, env: &Env, kind: TokenKind, sequence: u16) -> Token {
        let seal = match kind.domain() {
            Domain::Push => &self.sip_seal,
            Domain::Media => &self.msrp_seal,
            Domain::Subscription | Domain::Other => unreachable!("not a token of a push"),
        };
        seal.mint(TokenParts {
            kind,
            shard: env.shard,
            key: self.key(),
            sequence,
        })
    }

    /// Whether `claim`, which names this push, is one of its tokens.
    #[must_use]
    pub fn confirms(&self, claim: &Claim) -> bool {
        match claim.parts.kind.domain() {
            Domain::Push => self.sip_seal.confirms(claim),
            Domain::Media => self.msrp_seal.confirms(claim),
            Domain::Subscription | Domain::Other => false,
        }
    }

    /// The user of a live push.
    ///
    /// # Panics
    /// On a slot that was never reset.
    #[must_use]
    pub fn user(&self) -> Key {
        self.user.expect("a live push has its user")
    }

    /// When the push has something to do without input; never later than that.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        let mut earliest = self.guard.min(self.session_end);
        // Timer M only makes an accepted INVITE be forgotten. Whatever is due next does that as well, and a session
        // at rest is not woken for it.
        if let Some(invite) = &self.invite
            && invite.state() != ClientInviteState::Accepted
        {
            earliest = earliest.min(invite.deadline());
        }
        if let Some(other) = &self.other {
            earliest = earliest.min(other.deadline());
        }
        if let Some(session) = &self.negotiation {
            earliest = earliest.min(session.deadline());
        }
        match self.state {
            PushState::Connecting | PushState::Binding | PushState::Delivering => earliest
                .min(self.timer.deadline())
                .min(self.session.deadline()),
            PushState::Free
            | PushState::Loading
            | PushState::Calling
            | PushState::Cancelling
            | PushState::Ending => earliest,
        }
    }

    /// `true` once nothing of the push is left and its slot can be freed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // An accepted INVITE leaves nothing to wait for: a late 2xx is answered without state. Nor does
        // an answered BYE, whose Timer K only keeps repeats of the answer off: they name a slot of
        // another generation. Five seconds of ended pushes would be what the caches hold instead of
        // running ones.
        let invite_over = self
            .invite
            .as_ref()
            .is_none_or(|invite| invite.state() == ClientInviteState::Accepted);
        let other_over = self
            .other
            .as_ref()
            .is_none_or(|other| other.state() == ClientNonInviteState::Completed);
        self.state == PushState::Ending
            && invite_over
            && other_over
            && self
                .negotiation
                .as_ref()
                .is_none_or(|session| session.answering.is_none())
    }

    /// `true` while a session is agreed and not yet being ended.
    #[must_use]
    pub fn has_session(&self) -> bool {
        matches!(
            self.state,
            PushState::Connecting | PushState::Binding | PushState::Delivering
        )
    }

    /// `true` once a 2xx made the dialog, also after its BYE: an INVITE outstanding is a refresh then.
    #[must_use]
    pub fn has_dialog(&self) -> bool {
        !self.dialog.remote_tag().is_empty()
    }

    /// `true` while a refresh of ours waits for its answer.
    #[must_use]
    pub const fn is_refreshing(&self) -> bool {
        self.refresh.is_some()
    }

    /// Message `number` was looked at in this session and is not looked at again.
    pub const fn looked_at(&mut self, number: u64) {
        if number < NOTICE_NUMBERS {
            self.last_number = number;
        } else {
            self.last_notice = number;
        }
    }

    /// `true` when `number` is being sent from parts: the record of its deposit would be of no use then.
    #[must_use]
    pub fn lacks_parts(&self, number: u64) -> bool {
        self.in_parts
            && self
                .inflight
                .last()
                .is_some_and(|last| last.number == number)
    }

    /// `true` while an offer of ours that is no refresh waits for its answer.
    #[must_use]
    pub fn is_offering(&self) -> bool {
        self.negotiation
            .as_ref()
            .is_some_and(|session| session.offer == OwnOffer::InFlight)
    }

    /// `true` while our 2xx to an INVITE of the peer is not acknowledged.
    #[must_use]
    pub fn awaits_ack(&self) -> bool {
        self.negotiation
            .as_ref()
            .is_some_and(|session| session.awaits_ack())
    }

    /// `true` while the peer has the stream inactive.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.negotiation
            .as_ref()
            .is_some_and(|session| session.paused)
    }

    /// Octets that it owns beside its slot. A description that is negotiated again counts with its place
    /// alone.
    #[must_use]
    pub fn memory(&self) -> usize {
        let again = self.negotiation.as_ref();
        self.dialog.memory()
            + self.target.memory()
            + self.media.path.capacity()
            + self.media.wrapped_types.capacity()
            + self.inflight.capacity() * size_of::<Inflight>()
            + self.inbound.memory()
            + self.failed_to.capacity()
            + self.note.capacity()
            + again.map_or(0, |_| size_of::<Negotiation>())
    }

    fn next_sequence(&mut self) -> u16 {
        self.sequence = (self.sequence + 1) % SEQUENCE_MODULUS;
        self.sequence
    }
}

/// The earlier of two moments counted from `now`, as a guard.
#[must_use]
pub fn guard_after(now: Timestamp, wait: Duration) -> Timestamp {
    now + wait
}
