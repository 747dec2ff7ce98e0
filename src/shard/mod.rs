//! Layer 4: routes inputs to the parts that own them and orders their outputs.
//!
//! A [`Shard`] owns its users outright. It is a deterministic function of its state, the time and
//! the inputs; drivers (`io`, `sim`) implement the rest of the world. Here: which part an input is
//! for, and when it wakes. Not here: what the part does with it.

mod foresee;
mod frames;
mod in_dialog;
mod intake;
mod large;
mod large_media;
mod loads;
mod notices;
pub mod questions;
pub mod recover;
mod registered;
mod requests;
mod responses;
mod special;
mod subscriptions;
mod tidy;
mod timers;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use crate::base::entropy::{Csprng, Jitter};
use crate::base::map::MapKeys;
use crate::base::outbox::Outbox;
use crate::base::pool::Pool;
use crate::base::slab::Key;
use crate::base::surface::{
    Core, Input, LinkCommand, LinkEvent, LinkId, LinkKind, MeshFrame, NameQuery, Room, StoreBatch,
    Transmit, TxBuf,
};
use crate::base::time::{Timestamp, UnixMillis};
use crate::base::token::{Claim, Domain, TokenParts};
use crate::base::wall::{Reading, WallClock};
use crate::metrics::departures::Departures;
use crate::metrics::drops::OutputDropped;
use crate::metrics::probe::Probe;
use crate::msrp::familiar::Frames;
use crate::push::campaign::Campaigns;
use crate::push::folded::Sealer;
use crate::push::hops::{self, Hops, Offer, ProbeKit};
use crate::push::inspect::{self, UserReport};
use crate::push::post::Post;
use crate::push::user::UserState;
use crate::push::{Ctx, Env, Push, Seen, signalling};
use crate::registry::{OutcomeOptions, Registry};
use crate::selection::Moment;
use crate::selection::rules::RuleBook;
use crate::shard::foresee::Foreseen;
use crate::shard::tidy::Tidying;
use crate::sip::message::HeaderTable;
use crate::sip::parser::Familiar;
use crate::sip::transaction::server::ServerTable;
use crate::store::index::Quota;
use crate::store::op::Ledger;
use crate::wheel::Wheel;

pub use options::{ShardOptions, ShardSeed, owner, serves};
mod options;

/// Pushes looked at in one turn after a connection to a hop was lost or made.
const SLOTS_PER_TURN: u32 = 4096;

/// One shard of the engine.
#[derive(Debug)]
pub struct Shard {
    env: Env,
    options: ShardOptions,
    out: Outbox,
    post: Post,
    hops: Hops,
    registry: Registry<UserState>,
    pushes: Pool<Push>,
    campaigns: Campaigns,
    wheel: Wheel,
    server: ServerTable,
    desk: Desk,
    probe: Probe,
}

/// Small things a turn needs.
#[derive(Debug)]
struct Desk {
    wall: WallClock,
    /// Up to when every timer has fired.
    fired_until: Timestamp,
    /// When the hops need attention next.
    hops_at: Timestamp,
    /// Buffers that are lent out within a turn.
    started: Vec<Key>,
    open: Vec<Key>,
    numbers: Vec<u64>,
    identity: Vec<u8>,
    lines: Vec<u8>,
    jitter: Jitter,
    headers: Option<Box<HeaderTable>>,
    familiar: Familiar,
    frames: Frames,
    seen: Seen,
    /// INVITEs of this turn.
    departures: Departures,
    /// What the next message of this read is about.
    foreseen: Foreseen,
    /// What the first message of the next read is about.
    coming: Foreseen,
    /// The push whose session frames of this read were about, and which is to go on.
    stirred: Option<Key>,
    draining: bool,
    /// Documents read in the turn of this moment.
    documents: (Timestamp, u32),
    /// When the next user whose NOTIFY was not read asks for full state.
    dirty_at: Timestamp,
    next_tag: u64,
    tidying: Tidying,
    /// Slots of pushes that are still to be looked at after a connection to a hop was lost or made.
    unseen_slots: u32,
    /// Links that a timer watches.
    watches: usize,
}

/// Splits a shard into the context of a push and the parts beside it.
macro_rules! ctx {
    ($shard:expr, $now:expr) => {
        Ctx {
            now: $now,
            wall: $shard.desk.wall.at($now),
            env: &$shard.env,
            out: &mut $shard.out,
            post: &mut $shard.post,
            hops: &mut $shard.hops,
            probe: &mut $shard.probe,
            jitter: &mut $shard.desk.jitter,
            seen: &mut $shard.desk.seen,
            departures: &mut $shard.desk.departures,
        }
    };
}
use ctx;

impl Core for Shard {
    fn handle(&mut self, now: Timestamp, input: Input<'_>) {
        match input {
            Input::Bytes { link, bytes } => self.handle_bytes(now, link, bytes),
            Input::Datagram {
                link,
                source,
                bytes,
            } => {
                self.handle_datagram(now, link, source, bytes);
            }
            Input::Link { link, event } => self.handle_link(now, link, event),
            Input::ConnectFailed { token } => self.handle_connect_failed(now, token),
            Input::Resolved { token, addresses } => {
                self.hops.resolved(now, token, addresses);
                self.desk.hops_at = self.hops.deadline(now);
            }
            Input::Stored(done) => self.handle_stored(now, done),
            Input::Mesh(frame) => self.handle_mesh(now, frame),
            Input::Wall(wall) => {
                let read = self.desk.wall.read(now, wall);
                self.probe.clock_jumps_total += u64::from(read == Reading::Jumped);
                if !self.starts_nothing() {
                    self.post.consider_cleaning(now);
                }
            }
            Input::Drain => self.desk.draining = true,
        }
    }

    fn advance(&mut self, now: Timestamp) {
        self.fire_timers(now);
        if self.desk.hops_at <= now {
            self.hops.advance(now, &mut self.out);
            let kit = ProbeKit {
                minter: &self.env.minter,
                templates: &self.env.forms.common,
                transaction: self.env.options.transaction,
            };
            self.hops.probe(now, &mut self.out, &kit);
            // A hop's time of avoidance may have passed.
            self.campaigns.hop_room();
            self.resume_detained(now);
        }
        self.desk.hops_at = self.hops.deadline(now);
        if self.post.cleaning_due() <= now && !self.desk.draining {
            self.post.clean(now);
        }
        self.read_again(now);
        self.follow_trunks(now);
        self.run_campaigns(now);
        self.run_asks(now);
        self.tidy(now);
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let wheel = self.wheel.next_deadline().unwrap_or(Timestamp::NEVER);
        let mut earliest = wheel.min(self.desk.hops_at).min(self.server.deadline());
        earliest = earliest.min(self.post.again_due());
        if self.desk.unseen_slots > 0 {
            earliest = Timestamp::ZERO;
        }
        if self.is_untidy() {
            earliest = earliest.min(self.desk.tidying.at);
        }
        if !self.desk.draining {
            earliest = earliest.min(self.post.cleaning_due());
        }
        if !self.starts_nothing() {
            earliest = earliest.min(self.campaigns.due_at());
        }
        (!earliest.is_never()).then_some(earliest)
    }

    fn poll_transmit(&mut self, buffer: &mut TxBuf) -> Option<Transmit> {
        self.out.poll_transmit(buffer)
    }

    fn poll_store(&mut self, batch: &mut StoreBatch) -> bool {
        self.post.poll_store(batch)
    }

    fn poll_mesh(&mut self) -> Option<MeshFrame> {
        self.out.poll_mesh()
    }

    fn poll_link(&mut self) -> Option<LinkCommand> {
        self.out.poll_link()
    }

    fn checkpoint(&self, at: u64, out: &mut Vec<u8>) -> Option<u64> {
        self.save(at, out)
    }

    fn foresee(&mut self, front: &[u8]) {
        let coming = self.foreseen(front);
        self.desk.foreseen = core::mem::replace(&mut self.desk.coming, coming);
    }

    fn handed_over(&mut self, now: Timestamp) {
        let times = &mut self.probe.trigger_time;
        self.desk.departures.left(now, times);
    }

    fn caught_up(&mut self) -> bool {
        self.campaigns.caught_up() | self.tidy_at_leisure()
    }

    fn poll_query(&mut self) -> Option<NameQuery> {
        self.hops.poll_query()
    }

    fn room(&self) -> bool {
        self.post.room() > 0 && !self.out.is_mesh_behind()
    }

    fn is_drained(&self) -> bool {
        self.desk.draining
            && self.pushes.is_empty()
            && self.post.intakes.is_empty()
            && self.post.is_settled()
    }
}

impl Shard {
    /// A shard with its options; `seed` determines every random choice and identifier.
    ///
    /// # Errors
    /// When the profile cannot be compiled into templates.
    pub fn new(
        options: ShardOptions,
        seed: ShardSeed,
        now: Timestamp,
        wall: UnixMillis,
    ) -> Result<Self, crate::sip::template::ProfileError> {
        let mut stream = Csprng::from_seed(seed.stream);
        let keys = MapKeys([
            stream.next_u64(),
            stream.next_u64(),
            stream.next_u64(),
            stream.next_u64(),
        ]);
        let env = options.env(seed.identifier_key)?;
        Ok(Self {
            out: Outbox::new(options.shard),
            post: Post::new(&options.post, keys, wall),
            hops: Hops::new(options.shard, &options.hops, options.routing()),
            registry: Registry::new(keys, options.users_max, 0, options.post.kept_warm),
            pushes: Pool::new(
                Sealer {
                    minter: env.minter.clone(),
                    shard: options.shard,
                },
                options.pushes_max,
                options.pushes_warm,
                options.post.kept_warm,
            ),
            campaigns: Campaigns::new(options.campaign.clone()),
            wheel: Wheel::new(options.tick, options.timers_max(), now),
            server: ServerTable::new(&options.server, keys),
            desk: Desk {
                wall: WallClock::new(options.clock, wall, now),
                fired_until: now,
                hops_at: now,
                started: Vec::with_capacity(64),
                open: Vec::with_capacity(64),
                numbers: Vec::new(),
                identity: Vec::with_capacity(256),
                lines: Vec::with_capacity(1024),
                jitter: Jitter::new(stream.next_u64()),
                headers: Some(Box::default()),
                familiar: Familiar::new(),
                frames: Frames::new(),
                seen: Seen::default(),
                departures: Departures::default(),
                foreseen: Foreseen::Nothing,
                coming: Foreseen::Nothing,
                stirred: None,
                draining: false,
                documents: (now, 0),
                dirty_at: now,
                next_tag: 0,
                unseen_slots: 0,
                watches: 0,
                tidying: Tidying::new(now),
            },
            probe: Probe::default(),
            env,
            options,
        })
    }

    /// What an operator wants. An input as any other: the same orders between the same inputs lead to
    /// the same outputs, which follow the next [`Core::advance`].
    pub fn operate(&mut self, order: &Order) {
        match order {
            Order::Reload { rules, tuning } => {
                self.tune(tuning);
                self.campaigns.adopt(rules);
                self.probe.rules_adopted_total += 1;
            }
            Order::Rules(rules) => {
                self.campaigns.adopt(rules);
                self.probe.rules_adopted_total += 1;
            }
        }
    }

    fn tune(&mut self, tuning: &Tuning) {
        let options = &mut self.campaigns.options;
        options.coalesce = tuning.coalesce;
        options.outcome = tuning.outcome;
        options.pushes_per_s = tuning.pushes_per_s;
        self.post.options.quota = tuning.quota;
    }

    /// Next hops that the configuration names: their addresses, and whether they are reached.
    pub fn hops_reached(&self) -> impl Iterator<Item = (SocketAddr, bool)> + '_ {
        self.hops.reached()
    }

    /// What is known of the user with this public identity, and what would be decided at `now`.
    #[must_use]
    pub fn inspect(&self, now: Timestamp, identity: &[u8]) -> Option<UserReport> {
        let mut canonical = Vec::new();
        crate::sip::uri::canonical_identity(identity, &mut canonical).ok()?;
        let key = self.registry.lookup(&canonical)?;
        let entry = self.registry.entry(key)?;
        let moment = Moment {
            now,
            wall: self.desk.wall.at(now),
            tokens: self
                .hops
                .invite_room(&self.out, now, entry.extra.set, Offer::Invite)
                .min(self.post.load_room()),
        };
        let user = &entry.user;
        let mailbox = self.post.mailbox_ref(key.slot);
        Some(inspect::inspect(
            (user, mailbox),
            self.campaigns.rules(),
            moment,
        ))
    }

    /// The shard's counters, as they are now.
    #[must_use]
    pub fn probe(&self) -> Probe {
        let mut probe = self.probe.clone();
        let dropped = self.out.dropped();
        for (reason, count) in [
            (OutputDropped::LinkGone, dropped.link_gone),
            (OutputDropped::LinkClosing, dropped.link_closing),
            (OutputDropped::LinkFull, dropped.link_full),
            (OutputDropped::LinkLost, dropped.link_lost),
            (OutputDropped::MeshFull, dropped.mesh_full),
        ] {
            reason.count_many(&mut probe.drops, count);
        }
        probe.names_crowded_total = self.hops.names_crowded();
        probe
    }

    /// Live pushes, users known and messages pending.
    #[must_use]
    pub fn population(&self) -> Population {
        Population {
            pushes: self.pushes.len(),
            users: self.registry.len(),
            messages: self.post.pending(),
            links: self.out.iter().count(),
            stores_low: usize::from(self.post.is_space_low()),
            stores_full: usize::from(self.post.store_room() == Room::NoSpace),
            stores_failed: usize::from(self.post.is_failed()),
            ledger: self.post.ledger,
            cleaned: self.post.cleaned(),
            stored: self.post.pending_on_disk() as u64,
        }
    }

    /// How long what is next in line has waited.
    #[must_use]
    pub fn ages(&self, now: Timestamp) -> Ages {
        let (user, for_hop) = self.campaigns.heads();
        let for_decision = user.and_then(|user| {
            let entry = self.registry.entry(user)?;
            Some(entry.extra.triggered_at)
        });
        let oldest = for_decision.into_iter().chain(for_hop).min();
        let age = |since: Option<Timestamp>| since.map_or(Duration::ZERO, |since| now.since(since));
        Ages {
            trigger: age(oldest),
            deposit: age(self.post.deposit_since()),
            pending: self
                .post
                .oldest_age(self.desk.wall.at(now))
                .unwrap_or_default(),
        }
    }

    /// `true` when no push may start: at the end, and once the store has failed, since what a
    /// device gets could not be recorded and would come again after the next start.
    const fn starts_nothing(&self) -> bool {
        self.desk.draining || self.post.is_failed()
    }

    /// Pushes whose requests waited for a name or a connection say what they had to say.
    fn resume_detained(&mut self, now: Timestamp) {
        let mut keys = core::mem::take(&mut self.desk.open);
        keys.clear();
        let late = self.hops.take_waiting(now, &mut keys);
        for &key in &keys {
            if let Some(push) = self.pushes.lookup_mut(key) {
                signalling::resume(push, &mut ctx!(self, now), late == Some(false));
            }
        }
        keys.clear();
        self.desk.open = keys;
    }

    /// After the loss of a connection to a hop pushes repeat what may be lost with it, and when one is there
    /// again what found none, before anything new leaves. So many in a turn, from the last slot to the first;
    /// a change meanwhile starts again.
    fn follow_trunks(&mut self, now: Timestamp) {
        let end = self.desk.unseen_slots;
        let start = end.saturating_sub(SLOTS_PER_TURN);
        self.desk.unseen_slots = start;
        for slot in (start..end).rev() {
            // One at rest has nothing outstanding.
            let Some((key, push)) = self.pushes.warm_in(slot) else {
                continue;
            };
            if signalling::is_stranded(push, &self.out) {
                let outcome = signalling::repeat_stranded(push, &mut ctx!(self, now));
                self.after_push(now, key, outcome);
            }
        }
    }

    /// The parts of `text` if it is a token of ours. One that names a push under way is compared with what
    /// the push keeps; only others cost a MAC.
    fn verify(&self, text: &[u8]) -> Option<TokenParts> {
        let claim = Claim::read(text)?;
        if claim.parts.shard == self.env.shard
            && matches!(claim.parts.kind.domain(), Domain::Push | Domain::Media)
            && let Some(push) = self.pushes.lookup_warm(claim.parts.key)
        {
            return push.confirms(&claim).then_some(claim.parts);
        }
        self.env.minter.confirm(&claim)
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        self.options.trusted_peers.is_empty() || self.options.trusted_peers.contains(&peer)
    }

    fn handle_link(&mut self, now: Timestamp, link: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Opened { kind, peer, .. } => {
                if !self.out.opened(link, kind, peer) {
                    return;
                }
                match kind {
                    LinkKind::SipUdp => self.hops.socket_bound(link),
                    LinkKind::SipInbound if !self.trusts(peer.ip()) => {
                        self.probe.untrusted_total += 1;
                        self.out.close(link);
                    }
                    LinkKind::MsrpInbound => self.watch_unbound(now, link),
                    LinkKind::SipInbound | LinkKind::MsrpOutbound | LinkKind::SipOutbound => {}
                }
            }
            LinkEvent::Connected {
                token, kind, peer, ..
            } => {
                if !self.out.opened(link, kind, peer) {
                    return;
                }
                if hops::is_trunk_token(token) {
                    self.hops.connected(token, link);
                    self.desk.unseen_slots = self.pushes.slots();
                    self.desk.hops_at = self.hops.deadline(now);
                    self.campaigns.hop_room();
                } else {
                    self.msrp_connected(now, token, link);
                }
            }
            LinkEvent::Sent => {
                self.out.sent(link);
                self.trunk_drained(link);
                self.link_drained(now, link);
            }
            LinkEvent::Closed => self.handle_closed(now, link),
        }
    }

    /// A trunk wrote: users who wait for room may go on.
    fn trunk_drained(&mut self, link: LinkId) {
        let is_trunk = self
            .out
            .lookup(link)
            .is_some_and(|state| matches!(state.kind, LinkKind::SipOutbound | LinkKind::SipUdp));
        if is_trunk && hops::has_room(&self.out, link) {
            self.campaigns.hop_room();
        }
    }

    fn handle_closed(&mut self, now: Timestamp, link: LinkId) {
        self.disarm_watch(link);
        let kind = self.out.lookup(link).map(|state| state.kind);
        if self.hops.closed(now, link) {
            self.desk.hops_at = self.hops.deadline(now);
            self.out.closed(link);
            self.desk.unseen_slots = self.pushes.slots();
            return;
        }
        if matches!(kind, Some(LinkKind::MsrpInbound | LinkKind::MsrpOutbound)) {
            self.msrp_lost(now, link);
        }
        self.out.closed(link);
    }

    fn handle_connect_failed(&mut self, now: Timestamp, token: u64) {
        if hops::is_trunk_token(token) {
            self.hops.connect_failed(now, token, &mut self.desk.jitter);
            self.desk.hops_at = self.hops.deadline(now);
        } else {
            self.msrp_connect_failed(now, token);
        }
    }
}

/// Options that a running shard takes over. Meanings are those of where they are kept.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Changes within this time of a decision wait for its end (SEL-2).
    pub coalesce: Duration,
    /// Waits after failures.
    pub outcome: OutcomeOptions,
    /// Most pushes started a second; 0 leaves it to what the hops take.
    pub pushes_per_s: u32,
    /// Bounds of each mailbox. One that holds more already takes nothing new.
    pub quota: Quota,
}

/// What an operator may want of a running shard.
#[derive(Clone, Debug)]
pub enum Order {
    /// Other rules and other options hold from now on, both at once.
    Reload {
        /// As in [`Order::Rules`].
        rules: Arc<RuleBook>,
        /// The options.
        tuning: Tuning,
    },
    /// Other rules of selection hold from now on; users with mail are decided on anew (SEL-1).
    Rules(Arc<RuleBook>),
}

/// How long what is next in line has waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// For a decision or a hop, since what asked for it came.
    pub trigger: Duration,
    /// For the store, since the message came.
    pub deposit: Duration,
    /// For a device, since the message came: of the oldest there is, or up to an eighth more.
    pub pending: Duration,
}

/// How much a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Live pushes.
    pub pushes: usize,
    /// Users with mail or a registration.
    pub users: usize,
    /// Messages not yet delivered to every selected device.
    pub messages: usize,
    /// Open links.
    pub links: usize,
    /// Stores that take marks only: a segment could not be made.
    pub stores_low: usize,
    /// Those of them whose disk is full.
    pub stores_full: usize,
    /// Stores that failed: nothing is accepted until the process is started again.
    pub stores_failed: usize,
    /// The stores' books.
    pub ledger: Ledger,
    /// Messages and octets that cleaning has copied.
    pub cleaned: (u64, u64),
    /// Messages that the books must have as pending.
    pub stored: u64,
}
