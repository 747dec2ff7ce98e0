//! What an operator asks a running shard. Cold: answers allocate, and no push waits for them.
//!
//! A question is answered between two turns and looks at a bounded number of slots. One that is about
//! more of them is asked again from where its answer ended: the asker adds up, the shard forgets.

use core::ops::Range;
use core::time::Duration;

use crate::base::slab::Key;
use crate::base::time::{Timestamp, UnixMillis};
use crate::base::token::TokenKind;
use crate::push::Push;
use crate::push::inspect::{UserReport, escaped};
use crate::registry::Registry;
use crate::shard::{Shard, timers};
use crate::sip::message::Refresher;
use crate::sip::uri;
use crate::store::index::{Entry, Fate};
use crate::store::record::{self, Record};

/// Slots of pushes, users or links that one question looks at.
const SLOTS_PER_QUESTION: u32 = 2048;
/// Nodes of the wheel that one question looks at; they lie side by side.
const NODES_PER_QUESTION: u32 = 16_384;
/// Messages of a user that an answer lists.
pub const MESSAGES_LISTED_MAX: usize = 1000;

/// A question; see [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What is held in memory, from this place on; zero begins.
    Memory {
        /// Where the last answer ended.
        from: u64,
    },
    /// Decide for this user now, as if something had changed.
    Push(Vec<u8>),
    /// Established sessions.
    Sessions {
        /// Public identity of the only user that is of interest.
        user: Option<Vec<u8>>,
        /// Where the last answer ended; zero begins.
        from: u32,
        /// Most rows.
        limit: usize,
    },
    /// Armed timers.
    Timers {
        /// Where the last answer ended; zero begins.
        from: u32,
    },
    /// Everything about the user with this public identity.
    User(Vec<u8>),
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Memory of some slots, and where to go on.
    Memory(Memory, Option<u64>),
    /// A decision was made.
    Pushed(Box<Pushed>),
    /// Sessions of some slots, and where to go on.
    Sessions(Vec<SessionReport>, Option<u32>),
    /// Timers of some nodes, and where to go on.
    Timers(Timers, Option<u32>),
    /// Nobody here has this identity.
    Unknown,
    /// The user.
    User(Box<UserDetails>),
}

/// What an order to push came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What the decision saw, and its verdicts.
    pub report: UserReport,
    /// Pushes that it started.
    pub started: Vec<SessionReport>,
    /// Nothing is started at all: the shard drains, or its store has failed.
    pub stopped: bool,
    /// The decision was not made in this turn: others are before it, or the pace is used up.
    pub waits: bool,
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDetails {
    /// The wall clock at the answer.
    pub at: UnixMillis,
    /// Devices, and what would be decided now.
    pub report: UserReport,
    /// State of the subscription to the user's registration.
    pub subscription: &'static str,
    /// How long what the notifier granted lasts.
    pub subscription_expires_in: Option<Duration>,
    /// Version of the last document.
    pub version: Option<u64>,
    /// S-CSCF that named the user last, escaped; may be empty.
    pub scscf: String,
    /// How long ago the last decision was made.
    pub decided_ago: Option<Duration>,
    /// In how long the next one is due, when one waits.
    pub decides_in: Option<Duration>,
    /// Octets of the bodies that wait.
    pub bytes: u64,
    /// What waits, oldest first, [`MESSAGES_LISTED_MAX`] at most.
    pub messages: Vec<MessageReport>,
    /// Pushes under way.
    pub pushes: Vec<SessionReport>,
}

/// One message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageReport {
    /// Its place in the shard's order of intake.
    pub number: u64,
    /// Octets of its body.
    pub bytes: u32,
    /// How long it has been here; `None` when its record is on disk only.
    pub age: Option<Duration>,
    /// From when on no device gets it.
    pub expires: UnixMillis,
    /// Its deposit is on disk.
    pub durable: bool,
    /// What devices did with it, by their keys; those that are not named have not had it.
    pub fates: Vec<(u64, Fate)>,
}

/// A push: from its INVITE to its BYE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReport {
    /// The shard it lives on.
    pub shard: u8,
    /// Key of the user's mailbox, escaped.
    pub user: String,
    /// Key of its device.
    pub device: u64,
    /// Instance id of that, escaped; empty when it has none, or is gone.
    pub instance: String,
    /// Where its INVITE went, escaped.
    pub target: String,
    /// Call-ID.
    pub call_id: String,
    /// Where it stands.
    pub state: &'static str,
    /// Since its INVITE.
    pub age: Option<Duration>,
    /// Who refreshes the session; `None` without a session timer.
    pub refresher: Option<&'static str>,
    /// The interval agreed.
    pub interval: Option<Duration>,
    /// When the session timer acts next: we refresh, or give the peer up.
    pub timer_in: Option<Duration>,
    /// Messages judged in this session.
    pub messages: u32,
    /// Messages whose fate is open.
    pub inflight: usize,
    /// Octets of content sent.
    pub octets: u64,
}

/// Armed timers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerKind {
    /// How many.
    pub armed: u64,
    /// Of these, due already.
    pub overdue: u64,
    /// In how long the first is due; `None` when there is none.
    pub next_in: Option<Duration>,
}

impl TimerKind {
    fn add(&mut self, now: Timestamp, due: Timestamp) {
        self.merge(Self {
            armed: 1,
            overdue: u64::from(due < now),
            next_in: Some(due.since(now)),
        });
    }

    /// Both together.
    pub fn merge(&mut self, other: Self) {
        self.armed += other.armed;
        self.overdue += other.overdue;
        self.next_in = match (self.next_in, other.next_in) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Words for the kinds of [`Timers`].
pub const TIMER_KINDS: [&str; 5] = ["push", "user", "link", "notice", "intake"];

/// Armed timers by what they are for, in the order of [`TIMER_KINDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// The kinds.
    pub kinds: [TimerKind; TIMER_KINDS.len()],
}

impl Timers {
    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        for (kind, more) in self.kinds.iter_mut().zip(other.kinds) {
            kind.merge(more);
        }
    }
}

macro_rules! memory {
    ($($(#[doc = $doc:expr])+ $name:ident,)+) => {
        /// What is held in memory: how many of each, and octets. Capacities, not what is used of them;
        /// what the allocator adds does not count.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Memory {
            $($(#[doc = $doc])+ pub $name: Held,)+
            /// Sessions established.
            pub sessions: u64,
            /// Octets of slots, texts and timers of pushes with an established session.
            pub session_bytes: u64,
        }

        impl Memory {
            /// Every component with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, Held)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// Both together.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name.merge(other.$name);)+
                self.sessions += other.sessions;
                self.session_bytes += other.session_bytes;
            }
        }
    };
}

memory! {
    /// Slots of pushes, without what is at rest; all live ones are counted.
    push_slots,
    /// What pushes own beside their slots.
    push_texts,
    /// Sessions at rest, in their short form.
    cold_sessions,
    /// The table of users and what they own, without what is at rest; all are counted.
    users,
    /// Users at rest, in their short form.
    cold_users,
    /// Rows of devices, and what they own.
    devices,
    /// Finds users by their identities.
    identities,
    /// Queues: what is known in memory of each message that waits.
    queues,
    /// Records of messages kept in memory.
    cache,
    /// Connections with their buffers.
    links,
    /// The timer wheel.
    wheel,
}

/// One component of [`Memory`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many there are.
    pub count: u64,
    /// Octets.
    pub bytes: u64,
}

impl Held {
    fn add(&mut self, count: usize, bytes: usize) {
        self.merge(Self {
            count: count as u64,
            bytes: bytes as u64,
        });
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// Slots of one answer about memory: of most of them nothing is looked at but that they are cold.
const SLOTS_PER_SURVEY: u32 = 65_536;
/// Octets of a slot and of a timer in the wheel.
const SLOT: usize = 8;
const TIMER: usize = 24;
/// Parts of a walk through the memory, in order.
const WALKS: u64 = 3;

impl Shard {
    /// Answers `question`; to be called between two turns. What an order leads to follows the next
    /// [`Core::advance`](crate::base::surface::Core::advance), as for any input.
    pub fn ask(&mut self, now: Timestamp, question: &Question) -> Answer {
        match question {
            Question::Memory { from } => self.tell_memory(*from),
            Question::Push(identity) => self.push_now(now, identity),
            Question::Sessions { user, from, limit } => {
                let only = match user {
                    None => None,
                    Some(identity) => match self.find(identity) {
                        None => return Answer::Unknown,
                        user => user,
                    },
                };
                self.tell_sessions(now, only, *from, *limit)
            }
            Question::Timers { from } => {
                let (range, next) = page(*from, self.wheel.nodes(), NODES_PER_QUESTION);
                Answer::Timers(self.survey(now, range), next)
            }
            Question::User(identity) => self.tell_user(now, identity),
        }
    }

    /// The user with this identity, who knows which rules hold now.
    fn find_ruled(&mut self, identity: &[u8]) -> Option<Key> {
        let key = self.find(identity)?;
        let entry = self.registry.entry_mut(key)?;
        self.campaigns.rule(&mut entry.user);
        Some(key)
    }

    fn find(&self, identity: &[u8]) -> Option<Key> {
        let mut canonical = Vec::new();
        uri::canonical_identity(identity, &mut canonical).ok()?;
        self.registry.lookup(&canonical)
    }

    fn tell_user(&mut self, now: Timestamp, identity: &[u8]) -> Answer {
        let key = self.find_ruled(identity);
        let known = key.zip(self.inspect(now, identity));
        let Some((key, report)) = known else {
            return Answer::Unknown;
        };
        let entry = self.registry.entry(key).expect("just found");
        let (user, state) = (&entry.user, &entry.extra);
        let mailbox = self.post.mailbox_ref(key.slot);
        let messages = mailbox.into_iter().flat_map(|mailbox| {
            let listed = mailbox.iter().take(MESSAGES_LISTED_MAX);
            listed.map(|entry| self.tell_message(now, entry, mailbox.fates(entry.number())))
        });
        Answer::User(Box::new(UserDetails {
            at: self.desk.wall.at(now),
            subscription: user.subscription.state().as_str(),
            subscription_expires_in: until(now, user.subscription.expires_at()),
            version: user.registration.known.then_some(user.registration.version),
            scscf: escaped(&user.scscf),
            decided_ago: state.decided_at.map(|at| now.since(at)),
            decides_in: until(now, state.decide_at),
            bytes: mailbox.map_or(0, |mailbox| mailbox.bytes()),
            messages: messages.collect(),
            pushes: self.pushes_of(now, key),
            report,
        }))
    }

    fn tell_message(
        &self,
        now: Timestamp,
        entry: &Entry,
        fates: impl Iterator<Item = (u64, Fate)>,
    ) -> MessageReport {
        let record = self.post.cache.lookup(entry.number()).map(record::decode);
        let age = match record {
            Some(Ok(Record::Deposit(deposit))) => {
                let wall = self.desk.wall.at(now).0;
                Some(Duration::from_millis(
                    wall.saturating_sub(deposit.received.0),
                ))
            }
            Some(_) | None => None,
        };
        MessageReport {
            number: entry.number(),
            bytes: entry.bytes(),
            age,
            expires: UnixMillis::from_secs(u64::from(entry.expires_s())),
            durable: entry.location().is_some(),
            fates: fates.collect(),
        }
    }

    /// The pushes of a user: one per device at most, and what is left of earlier ones is nobody's.
    fn pushes_of(&self, now: Timestamp, user: Key) -> Vec<SessionReport> {
        let pushes = self.push_keys(user).into_iter();
        pushes
            .filter_map(|push| Some(self.tell_push(now, &*self.pushes.peek(push)?)))
            .collect()
    }

    fn tell_push(&self, now: Timestamp, push: &Push) -> SessionReport {
        let entry = push.user.and_then(|user| self.registry.entry(user));
        let user = entry.as_ref().map(|entry| &entry.user);
        let instance = user.and_then(|user| {
            let device = user.device(push.device)?;
            Some(escaped(user.instance(device)))
        });
        let fields = push.timer.request_fields();
        let timer = push.has_session().then(|| push.timer.deadline());
        let call_id = push.token(&self.env, TokenKind::PushCallId, 0);
        SessionReport {
            shard: self.env.shard,
            user: user.map_or_else(String::new, |user| escaped(&user.canonical)),
            device: push.device,
            instance: instance.unwrap_or_default(),
            target: escaped(push.target.request_uri()),
            call_id: escaped(call_id.as_bytes()),
            state: push.state.as_str(),
            age: (!push.invited.is_never()).then(|| now.since(push.invited)),
            refresher: fields.map(|(_, refresher, _)| match refresher {
                Refresher::Uac => "us",
                Refresher::Uas => "peer",
            }),
            interval: push
                .timer
                .interval_s()
                .map(|interval| Duration::from_secs(u64::from(interval))),
            timer_in: timer.and_then(|at| until(now, at)),
            messages: push.messages_sent,
            inflight: push.inflight.len(),
            octets: push.octets_sent,
        }
    }

    fn push_now(&mut self, now: Timestamp, identity: &[u8]) -> Answer {
        let Some(key) = self.find_ruled(identity) else {
            return Answer::Unknown;
        };
        // The operator does not wait for the end of a window (SEL-2).
        let entry = self.registry.entry_mut(key).expect("just found");
        entry.extra.decided_at = None;
        let report = self.inspect(now, identity).expect("just found");
        let before = self.push_keys(key);
        let entry = self.registry.entry_mut(key).expect("just found");
        self.campaigns.changed(now, key, &mut entry.extra);
        self.run_campaigns(now);
        self.rearm_user(key);
        let started = self.push_keys(key).into_iter();
        let started = started.filter(|push| !before.contains(push));
        let started = started.filter_map(|push| self.pushes.peek(push));
        Answer::Pushed(Box::new(Pushed {
            started: started.map(|push| self.tell_push(now, &push)).collect(),
            stopped: self.starts_nothing(),
            waits: self
                .registry
                .entry(key)
                .is_some_and(|entry| entry.extra.queued),
            report,
        }))
    }

    fn push_keys(&self, user: Key) -> Vec<Key> {
        let entry = self.registry.entry(user);
        let devices = entry.iter().flat_map(|entry| &entry.user.devices);
        devices.filter_map(|device| device.pushing).collect()
    }

    fn tell_sessions(&self, now: Timestamp, only: Option<Key>, from: u32, limit: usize) -> Answer {
        if let Some(user) = only {
            let mut rows = self.pushes_of(now, user);
            rows.truncate(limit);
            return Answer::Sessions(rows, None);
        }
        let (range, mut next) = page(from, self.pushes.slots(), SLOTS_PER_QUESTION);
        let mut rows = Vec::new();
        for slot in range {
            let Some(push) = self.pushes.at(slot).filter(|push| push.has_session()) else {
                continue;
            };
            if rows.len() == limit {
                next = Some(slot);
                break;
            }
            rows.push(self.tell_push(now, &push));
        }
        Answer::Sessions(rows, next)
    }

    fn survey(&self, now: Timestamp, nodes: Range<u32>) -> Timers {
        let mut found = Timers::default();
        for (key, due) in self.wheel.survey(nodes) {
            if let Some(kind) = found.kinds.get_mut(timers::kind_of(key)) {
                kind.add(now, due);
            }
        }
        found
    }

    /// The walk has parts; `from` has the part in its upper half and the slot in its lower.
    fn tell_memory(&self, from: u64) -> Answer {
        let mut memory = Memory::default();
        let part = from >> 32;
        let slot = u32::try_from(from & u64::from(u32::MAX)).expect("masked");
        let slots = match part {
            0 => self.pushes.slots(),
            1 => self.registry.slots(),
            _ => self.out.slots(),
        };
        let (range, next) = page(slot, slots, SLOTS_PER_SURVEY);
        match part {
            0 => self.measure_pushes(range, &mut memory),
            1 => self.measure_users(range, &mut memory),
            _ => memory.links.add(0, self.out.memory_of(range)),
        }
        if from == 0 {
            self.measure_tables(&mut memory);
        }
        let next = match next {
            Some(slot) => Some(part << 32 | u64::from(slot)),
            None => (part + 1 < WALKS).then_some((part + 1) << 32),
        };
        Answer::Memory(memory, next)
    }

    fn measure_pushes(&self, slots: Range<u32>, memory: &mut Memory) {
        for slot in slots {
            let Some(push) = self.pushes.warm_of(slot) else {
                continue;
            };
            let texts = push.memory();
            memory.push_texts.add(0, texts);
            if push.has_session() {
                memory.sessions += 1;
                memory.session_bytes += (SLOT + size_of::<Push>() + texts + TIMER) as u64;
            }
        }
    }

    fn measure_users(&self, slots: Range<u32>, memory: &mut Memory) {
        for slot in slots {
            if let Some(entry) = self.registry.warm_of(slot) {
                let (own, devices) = entry.user.memory();
                memory.users.add(0, own);
                memory.devices.add(entry.user.devices.len(), devices);
            }
            if let Some(mailbox) = self.post.mailbox_ref(slot) {
                memory.queues.add(0, mailbox.memory());
            }
        }
    }

    fn measure_tables(&self, memory: &mut Memory) {
        let (users, identities) = Registry::memory(&self.registry);
        let queues = self.post.mailboxes.memory();
        let (sessions, octets) = self.pushes.cold();
        memory.cold_sessions.add(sessions, octets);
        let slots = self.pushes.memory() - octets;
        memory.push_slots.add(self.pushes.len(), slots);
        memory.sessions += sessions as u64;
        memory.session_bytes += (octets + sessions * (SLOT + TIMER)) as u64;
        let (cold_users, octets) = self.registry.cold();
        memory.cold_users.add(cold_users, octets);
        memory.users.add(self.registry.len(), users - octets);
        memory.identities.add(0, identities);
        memory.queues.add(self.post.pending(), queues);
        memory.cache.add(0, self.post.cache.bytes());
        memory.links.add(self.out.iter().count(), self.out.memory());
        memory.wheel.add(self.wheel.len(), self.wheel.memory());
    }
}

/// The next slots to look at, and where to go on.
fn page(from: u32, slots: u32, most: u32) -> (Range<u32>, Option<u32>) {
    let end = from.saturating_add(most).min(slots);
    (from.min(end)..end, (end < slots).then_some(end))
}

fn until(now: Timestamp, at: Timestamp) -> Option<Duration> {
    (!at.is_never()).then(|| at.since(now))
}
