//! A whole run: the engine, its peers, the work, the faults, and the end.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::entropy::Jitter;
use crate::base::surface::{Core, LinkKind};
use crate::base::time::Timestamp;
use crate::metrics::probe::Probe;
use crate::selection::Policy;
use crate::selection::rules::{Preference, RuleBook, Whose};
use crate::shard::Order;
use crate::sim::host::Seat;
use crate::sim::hub::Hub;
use crate::sim::ledger::{Ledger, Letter};
use crate::sim::net::{Event, Net, Timer};
use crate::sim::options::{Options, Transport};
use crate::sim::phone::{Call, Phone, PhoneId};
use crate::sim::sender::{Senders, sender_address};
use crate::sim::text::{FNV, Sip, fnv};

/// Longest time after the faults until nothing moves any more.
const HEALING_MAX: Duration = Duration::from_secs(8 * 3600);
/// How often the run looks whether all is done.
const LOOK: Duration = Duration::from_secs(20);

/// A user of the SIP core.
#[derive(Debug)]
pub(super) struct User {
    pub(super) aor: String,
    pub(super) absent: bool,
    pub(super) phones: Vec<usize>,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Fingerprint of all that happened, in order.
    pub hash: u64,
    /// For each message: acknowledged, and the devices that have it.
    pub outcome: Vec<(bool, Vec<usize>)>,
    /// Marks that were reached.
    pub reach: Vec<&'static str>,
    /// Laws that were broken; empty is a pass.
    pub violations: Vec<String>,
    /// Virtual time it took.
    pub simulated: Duration,
    /// What happened, when asked for.
    pub trace: Vec<String>,
}

/// The engine and everything around it. Owns all state; one thread, virtual time.
#[derive(Debug)]
pub struct World {
    pub(super) options: Options,
    pub(super) net: Net,
    pub(super) seats: Vec<Seat>,
    pub(super) epoch: u32,
    pub(super) hub: Hub,
    pub(super) users: Vec<User>,
    pub(super) phones: Vec<Phone>,
    pub(super) calls: Vec<Call>,
    pub(super) call_ids: BTreeMap<String, usize>,
    pub(super) sessions: BTreeMap<String, usize>,
    pub(super) senders: Senders,
    pub(super) ledger: Ledger,
    pub(super) dice: Jitter,
    /// The wall clock is wrong.
    pub(super) clock_jumped: bool,
    /// Counters of processes that crashed.
    pub(super) probe: Probe,
    /// The rules of selection in force.
    pub(super) rules: Arc<RuleBook>,
}

impl World {
    /// A world with nobody in it yet, the engine running.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut world = Self {
            net: Net::new(&options),
            seats: (0..options.shards).map(|_| Seat::default()).collect(),
            epoch: 0,
            hub: Hub::default(),
            users: Vec::new(),
            phones: Vec::new(),
            calls: Vec::new(),
            call_ids: BTreeMap::new(),
            sessions: BTreeMap::new(),
            senders: Senders::new(options.seed),
            ledger: Ledger::default(),
            dice: Jitter::new(options.seed ^ 0x776f_726b),
            clock_jumped: false,
            probe: Probe::default(),
            rules: Arc::default(),
            options,
        };
        world.boot();
        world
    }

    /// The run that its options describe: users, devices, messages and faults, all from the seed.
    #[must_use]
    pub fn populated(options: Options) -> Self {
        let mut world = Self::new(options);
        world.populate();
        world.plan_faults();
        world
    }

    /// Keeps an account of what happens.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.net.trace = Some(Vec::new());
        self
    }

    fn populate(&mut self) {
        let safety = millis(self.options.safety);
        for index in 0..self.options.users {
            let absent = self.options.absent.hits(&mut self.dice);
            let user = self.add_user(format!("sip:+1555010{index:04}@ims.example.net"), absent);
            let phones_max = self.options.phones_max as u64;
            for _ in 0..=self.dice.below(phones_max) {
                let phone = self.add_phone(user);
                self.phones[phone].capable = self.dice.below(10) > 0;
                let wait = Duration::from_millis(self.dice.below(safety / 2));
                if !absent {
                    self.net.after(wait, Timer::Register(phone));
                }
            }
        }
        for _ in 0..self.options.messages {
            let user = self.dice.below(self.users.len() as u64);
            let size = [30, 900, 5000, 14_000][usize::try_from(self.dice.below(4)).expect("small")];
            let large = self.senders.draw(self.options.large);
            let user = usize::try_from(user).expect("few");
            let letter = self.write_letter(user, large.unwrap_or(size));
            self.ledger.letters[letter].is_large = large.is_some();
            let wait = Duration::from_millis(self.dice.below(safety));
            self.net.after(wait, Timer::Deposit(letter));
        }
        for _ in 0..self.options.churn {
            let phone = self.dice.below(self.phones.len() as u64);
            let phone = usize::try_from(phone).expect("few");
            let wait = Duration::from_millis(self.dice.below(safety));
            let leaves = self.dice.below(2) == 0;
            if self.users[self.phones[phone].user].absent {
                continue;
            }
            if leaves {
                self.net.after(wait, Timer::Unregister(phone));
            }
            let back = wait + Duration::from_millis(self.dice.below(safety / 4));
            self.net.after(back, Timer::Register(phone));
        }
    }

    fn plan_faults(&mut self) {
        let safety = millis(self.options.safety);
        for _ in 0..self.options.resets {
            let wait = Duration::from_millis(self.dice.below(safety));
            self.net.after(wait, Timer::Reset);
        }
        for _ in 0..self.options.crashes {
            let wait = Duration::from_millis(self.dice.below(safety));
            self.net.after(wait, Timer::Crash);
        }
        for _ in 0..self.options.full_disks {
            let wait = Duration::from_millis(self.dice.below(safety));
            let long = Duration::from_millis(2000 + self.dice.below(30_000));
            self.net.after(wait, Timer::DiskFull(true));
            self.net.after(wait + long, Timer::DiskFull(false));
        }
        for _ in 0..self.options.clock_jumps {
            let wait = Duration::from_millis(self.dice.below(safety));
            let long = Duration::from_millis(2000 + self.dice.below(600_000));
            self.net.after(wait, Timer::ClockJump(true));
            self.net.after(wait + long, Timer::ClockJump(false));
        }
        // A stream of its own: the other draws are what they were without.
        let mut operator = Jitter::new(self.options.seed ^ 0x6f70_6572);
        for _ in 0..self.options.orders {
            let wait = Duration::from_millis(operator.below(safety));
            self.net.after(wait, Timer::Order(operator.below(u64::MAX)));
        }
        self.net.after(self.options.safety, Timer::Heal);
    }

    /// The operator stops everything, or has some users' messages held, or neither, and changes how many
    /// devices a message goes to.
    fn order(&mut self, draw: u64) {
        if self.net.healed {
            return;
        }
        let provider = Policy {
            stopped: draw.is_multiple_of(4),
            ..Policy::default()
        };
        let mut book = RuleBook::new(provider);
        let hold = book.add_preference(Preference {
            hold: true,
            ..Preference::default()
        });
        let ending = format!("*{}", draw % 3);
        let holder = Whose::Pattern(ending.as_bytes());
        hold.and_then(|rule| book.give_preference(holder, rule))
            .and_then(|()| book.seal())
            .expect("two rules fit into a book");
        self.net.mark("operator/rules");
        self.adopt(book);
    }

    fn adopt(&mut self, book: RuleBook) {
        self.rules = Arc::new(book);
        for shard in 0..self.shards() {
            let order = Order::Rules(Arc::clone(&self.rules));
            if let Some(core) = &mut self.seats[usize::from(shard)].core {
                core.operate(&order);
                self.turn(shard);
            }
        }
    }

    pub(super) fn add_user(&mut self, aor: String, absent: bool) -> usize {
        self.users.push(User {
            aor,
            absent,
            phones: Vec::new(),
        });
        self.users.len() - 1
    }

    pub(super) fn add_phone(&mut self, user: usize) -> usize {
        let phone = self.phones.len();
        let address = if self.options.reuse { 0 } else { phone };
        let last = u8::try_from(address + 1).expect("few devices");
        let address = SocketAddr::from(([203, 0, 113, last], 7000));
        let seed = self.options.seed ^ (phone as u64 + 1) << 40;
        let aor = self.users[user].aor.clone();
        self.phones
            .push(Phone::new((user, phone), &aor, address, seed));
        self.users[user].phones.push(phone);
        phone
    }

    /// A message to a user, `size` octets of text; not sent yet.
    pub(super) fn write_letter(&mut self, user: usize, size: usize) -> usize {
        let number = self.ledger.letters.len();
        let mut text = format!("msg-{number:06} ");
        while text.len() < size {
            text.push(char::from(
                b'a' + u8::try_from(text.len() * 7 % 23).expect("small"),
            ));
        }
        self.ledger.letters.push(Letter {
            user,
            text,
            phones: self.users[user].phones.clone(),
            ..Letter::default()
        });
        number
    }

    /// Runs to the end of the faults, then until nothing moves, and checks the laws.
    #[must_use]
    pub fn run(mut self) -> Report {
        let healed_at = self.net.now + self.options.safety + Duration::from_secs(1);
        self.run_until(healed_at);
        let limit = healed_at + HEALING_MAX;
        while self.net.now < limit && self.ledger.violations.is_empty() {
            let now = self.net.now;
            if self.is_settled() {
                // Some waits still end, and start what was not under way: look again.
                self.run_until(now + Duration::from_secs(70));
                if self.is_settled() {
                    break;
                }
            }
            self.run_until(now + LOOK);
        }
        self.finish()
    }

    /// What the run has come to, without waiting for anything more than the drain.
    #[must_use]
    pub fn finish(mut self) -> Report {
        if self.ledger.violations.is_empty() {
            self.end();
        }
        self.report()
    }

    fn end(&mut self) {
        let now = self.net.now;
        self.run_until(now + Duration::from_secs(70));
        // A refusal that held for long may have ended just now: a session that began then lasts its time.
        let limit = self.net.now + self.options.max_session + Duration::from_secs(70);
        while self.population().0 > 0 && self.net.now < limit {
            self.run_until(self.net.now + LOOK);
        }
        self.check_end();
        self.drain();
        let now = self.net.now;
        self.run_until(now + Duration::from_secs(70));
        let drained = self
            .seats
            .iter()
            .all(|seat| seat.core.as_ref().is_some_and(|core| core.is_drained()));
        if !drained {
            self.ledger.violation(now, "a drain does not end");
        }
        self.check_segments();
    }

    /// Law: a store in which nothing is pending has given back every segment but the newest.
    fn check_segments(&mut self) {
        let now = self.net.now;
        for (shard, seat) in self.seats.iter().enumerate() {
            let core = seat.core.as_ref();
            let is_empty = core.is_some_and(|core| core.population().messages == 0);
            let held = seat.disk.held_segments();
            if is_empty && held > 1 {
                let what = format!("shard {shard} keeps {held} segments for nothing");
                self.ledger.violation(now, &what);
            }
        }
    }

    fn report(self) -> Report {
        let outcome = self.ledger.letters.iter().map(|letter| {
            let devices = letter.receipts.iter();
            let devices = devices
                .filter(|(_, receipt)| receipt.count > 0)
                .map(|(&at, _)| at);
            (letter.acked, devices.collect())
        });
        Report {
            hash: self.net.hash,
            outcome: outcome.collect(),
            reach: self.net.reach.iter().copied().collect(),
            violations: self.ledger.violations,
            simulated: self.net.now.since(Timestamp::ZERO),
            trace: self.net.trace.unwrap_or_default(),
        }
    }

    /// Moves time on to `until`.
    pub(super) fn run_until(&mut self, until: Timestamp) {
        loop {
            let next = self.net.next_at().min(self.engine_deadline());
            if next > until || !self.ledger.violations.is_empty() {
                break;
            }
            self.net.now = self.net.now.max(next);
            self.turn_due();
            while let Some(event) = self.net.pop() {
                self.dispatch(event);
            }
            self.ledger.settle(self.net.now);
        }
        self.net.now = self.net.now.max(until);
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Timer(timer) => self.timer(timer),
            Event::ToHub { way, message } => self.hub_message(way, &message),
            Event::ToPhone { conn, frame } => {
                if !self.sender_frame(conn, &frame) {
                    self.phone_frame(conn, &frame);
                }
            }
            Event::PeerClosed { conn } => {
                let state = &mut self.net.conns[conn];
                if core::mem::replace(&mut state.peer_gone, true) {
                    return;
                }
                match state.kind {
                    LinkKind::SipInbound | LinkKind::SipOutbound => self.hub_closed(conn),
                    LinkKind::MsrpInbound | LinkKind::MsrpOutbound => {
                        self.phone_closed(conn);
                        self.sender_closed(conn);
                    }
                    LinkKind::SipUdp => {}
                }
            }
            Event::Bytes { .. }
            | Event::Closed { .. }
            | Event::ConnectFailed { .. }
            | Event::Datagram { .. }
            | Event::Mesh { .. }
            | Event::Opened { .. }
            | Event::Sent { .. }
            | Event::Stored { .. } => self.engine_event(event),
        }
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Answer(call, generation) => self.answer_due(call, generation),
            Timer::CaughtUp(shard) => self.caught_up(shard),
            Timer::Connect(call) => self.connect_msrp(call),
            Timer::Crash => {
                self.crash();
                let wait = Duration::from_millis(500 + self.net.below(20_000));
                self.net.after(wait, Timer::Restart);
            }
            Timer::ClockJump(jumped) => self.jump_clock(jumped),
            Timer::DiskFull(full) => self.disk_full(full),
            Timer::Deposit(letter) => self.deposit(letter),
            Timer::HangUp(call) => self.hang_up(call),
            Timer::Heal => self.heal(),
            Timer::Order(draw) => self.order(draw),
            Timer::Notify(subscription) => self.notify(subscription),
            Timer::Register(phone) => self.register_phone(phone),
            Timer::Report(call, letter, ranges, paths) => {
                self.send_reports(call, letter, &ranges, &paths);
            }
            Timer::Reset => self.reset_something(),
            Timer::Restart => {
                if self.seats[0].core.is_none() {
                    self.net.note(|| "RESTART".into());
                    self.boot();
                }
            }
            Timer::SendAgain(letter, epoch) => self.send_again(letter, epoch),
            Timer::Sender(number) => self.sender_due(number),
            Timer::Tell(user) => self.tell_registration(user),
            Timer::Transaction(branch) => self.transaction_due(&branch),
            Timer::Unregister(phone) => self.unregister_phone(phone),
        }
    }

    fn reset_something(&mut self) {
        let open: Vec<usize> = (0..self.net.conns.len())
            .filter(|&conn| {
                let state = &self.net.conns[conn];
                !state.dead && !state.engine_gone && !state.peer_gone
            })
            .collect();
        if open.is_empty() || self.net.healed {
            return;
        }
        let at = usize::try_from(self.net.below(open.len() as u64)).expect("within the list");
        let conn = open[at];
        self.net.mark(match self.net.conns[conn].kind {
            LinkKind::MsrpInbound | LinkKind::MsrpOutbound => "fault/msrp-reset",
            LinkKind::SipInbound | LinkKind::SipOutbound | LinkKind::SipUdp => "fault/sip-reset",
        });
        self.net.note(|| format!("RESET connection {conn}"));
        self.net.reset(conn);
    }

    /// From here on the network is perfect and every device is willing; those who are not absent
    /// for good come back with a new binding.
    pub(super) fn heal(&mut self) {
        self.net.note(|| "HEAL".into());
        self.net.healed = true;
        self.net.mark("phase/healed");
        if self.options.orders > 0 {
            self.adopt(RuleBook::default());
        }
        for phone in 0..self.phones.len() {
            self.phones[phone].script.clear();
            if !self.users[self.phones[phone].user].absent {
                let wait = Duration::from_millis(100 + 400 * phone as u64);
                self.net.after(wait, Timer::Register(phone));
            }
        }
    }

    /// Whether a connection attempt of the engine is taken.
    pub(super) fn accepts(&self, kind: LinkKind, address: SocketAddr) -> bool {
        match kind {
            LinkKind::SipOutbound => true,
            LinkKind::MsrpOutbound if address == sender_address() => true,
            LinkKind::MsrpOutbound => {
                let mut here = self.phones.iter().filter(|phone| phone.address == address);
                here.any(|phone| self.net.healed || phone.refuses_until <= self.net.now)
            }
            LinkKind::MsrpInbound | LinkKind::SipInbound | LinkKind::SipUdp => false,
        }
    }

    /// Everything of the engine that crosses its border as SIP.
    pub(super) fn observe(&mut self, message: &Sip) {
        let now = self.net.now;
        self.net
            .fold(4, fnv(FNV, message.need("CSeq").as_bytes()) ^ message.print);
        self.net.note(|| {
            let Sip {
                method,
                uri,
                status,
                ..
            } = message;
            format!(
                "> {status} {method} {uri} cseq {} {}",
                message.cseq(),
                message.call_id()
            )
        });
        if message.status > 0 {
            if message.method == "MESSAGE"
                && let Some(letter) = self.hub.letter_of(message.branch())
            {
                self.ledger.answered(now, letter, message.status);
            }
            return;
        }
        if message.method == "INVITE" && message.tag("To").is_none() {
            match self.phone_of(&message.uri) {
                Some(phone) => {
                    if !self.phones[phone].capable {
                        self.ledger
                            .violation(now, "an INVITE to a device without the service");
                    }
                    self.ledger.invite(now, message, phone, self.epoch);
                }
                None => self.ledger.violation(now, "an INVITE to nobody"),
            }
        }
        let reliable = self.options.transport == Transport::Tcp;
        self.ledger.request(now, message, reliable);
    }

    pub(super) fn phone_of(&self, uri: &str) -> Option<usize> {
        self.phones.iter().position(|phone| phone.gruu == uri)
    }

    /// Live pushes, and messages pending, over all shards.
    pub(super) fn population(&self) -> (usize, usize) {
        let cores = self.seats.iter().filter_map(|seat| seat.core.as_ref());
        cores
            .map(|core| core.population())
            .fold((0, 0), |(pushes, messages), population| {
                (pushes + population.pushes, messages + population.messages)
            })
    }

    /// Counters over all shards and processes.
    #[must_use]
    pub fn probe(&self) -> Probe {
        let mut sum = self.probe.clone();
        for core in self.seats.iter().filter_map(|seat| seat.core.as_ref()) {
            sum.merge(&core.probe());
        }
        sum
    }

    /// Devices that must have `letter`: known to the engine before the message was acknowledged,
    /// and ever since.
    fn owed<'a>(&'a self, letter: &'a Letter) -> impl Iterator<Item = usize> + 'a {
        let durable = letter.durable_at.filter(|_| letter.acked);
        self.users[letter.user]
            .phones
            .iter()
            .copied()
            .filter(move |&phone| {
                let state = &self.phones[phone];
                let known = state
                    .known_since
                    .zip(durable)
                    .is_some_and(|(known, at)| known <= at);
                let receipt = letter.receipts.get(&phone);
                let done = receipt.is_some_and(|receipt| receipt.count > 0 || receipt.refused);
                state.capable && state.registered && known && !done
            })
    }

    fn has_willing(&self, user: usize) -> bool {
        self.users[user].phones.iter().any(|&phone| {
            let state = &self.phones[phone];
            state.capable && state.registered
        })
    }

    /// Nothing is under way that would change anything.
    fn is_settled(&self) -> bool {
        let (pushes, messages) = self.population();
        let (least, most) = self.pending_bounds();
        pushes == 0
            && self.hub.is_quiet()
            && self.senders.is_quiet()
            && (least..=most).contains(&messages)
            && self.ledger.letters.iter().all(|letter| letter.acked)
            && self
                .ledger
                .letters
                .iter()
                .all(|letter| self.owed(letter).count() <= letter.poisoned)
    }

    /// How many messages may be pending: those of users who have no device now. One that no device
    /// ever had must be there.
    fn pending_bounds(&self) -> (usize, usize) {
        let kept = self.ledger.letters.iter().filter(|letter| {
            let refused = letter.receipts.values().any(|receipt| receipt.refused);
            let refused = refused || letter.poisoned > 0;
            letter.durable_at.is_some() && (refused || !self.has_willing(letter.user))
        });
        let untouched = kept.clone().filter(|letter| {
            letter
                .receipts
                .values()
                .all(|receipt| receipt.count == 0 && !receipt.refused)
                && letter.poisoned == 0
        });
        (untouched.count(), kept.count())
    }

    /// The laws of the end.
    fn check_end(&mut self) {
        let now = self.net.now;
        let (pushes, messages) = self.population();
        if pushes > 0 {
            self.ledger
                .violation(now, &format!("{pushes} pushes are left"));
        }
        let (least, most) = self.pending_bounds();
        // One whose record a device does without until the next start stays for that start.
        let put_off = usize::try_from(self.probe().store_put_off_total).unwrap_or(usize::MAX);
        if !(least..=most + put_off).contains(&messages) {
            let what = format!("{messages} messages pending, expected {least} to {most}");
            self.ledger.violation(now, &what);
        }
        let (mut wrong, mut missing, mut excused) = (Vec::new(), Vec::new(), 0);
        for (number, letter) in self.ledger.letters.iter().enumerate() {
            if !letter.acked && letter.tries > 0 {
                wrong.push(format!("message {number} was never acknowledged"));
            }
            excused += self.owed(letter).take(letter.poisoned).count();
            for phone in self.owed(letter).skip(letter.poisoned) {
                missing.push(format!("device {phone} never got message {number}"));
            }
            let nobody = letter.receipts.values().all(|receipt| receipt.count == 0);
            if letter.acked && nobody && self.has_willing(letter.user) {
                let refused = letter.receipts.values().any(|receipt| receipt.refused);
                if !refused && letter.poisoned == 0 && put_off == 0 {
                    wrong.push(format!("nobody got message {number}"));
                }
            }
        }
        if missing.len() > put_off {
            wrong.append(&mut missing);
        }
        // What excuses a missing receipt must have been a refusal that the engine counted.
        let refused = self.probe().refused_total;
        if excused as u64 > refused + put_off as u64 {
            wrong.push(format!(
                "{excused} receipts excused, {refused} refusals counted"
            ));
        }
        let delivered = self.probe().delivered_total;
        if delivered > self.ledger.receipts_total {
            let had = self.ledger.receipts_total;
            wrong.push(format!("{delivered} deliveries counted, {had} made"));
        }
        for what in wrong {
            self.ledger.violation(now, &what);
        }
        let streams_broke = self.options.transport == Transport::Tcp && self.options.resets > 0;
        self.ledger.close(now, self.epoch, streams_broke);
    }

    /// A user with one device, registered now; for scenarios.
    pub fn register(&mut self, aor: &str) -> PhoneId {
        let user = self.add_user(aor.to_owned(), false);
        let phone = self.add_phone(user);
        self.register_phone(phone);
        PhoneId(phone)
    }

    /// Sends a message of `size` octets to the user of `phone` now.
    pub fn send(&mut self, phone: PhoneId, size: usize) {
        let letter = self.write_letter(self.phones[phone.0].user, size);
        self.deposit(letter);
    }

    /// Lets `time` pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.net.now + time;
        self.run_until(until);
    }

    /// Every response of `phone` takes `time` longer.
    pub fn hold_responses_for(&mut self, phone: PhoneId, time: Duration) {
        self.phones[phone.0].hold = time;
    }

    /// The requests `phone` was sent, in order.
    #[must_use]
    pub fn sent(&self, phone: PhoneId) -> &[String] {
        &self.phones[phone.0].requests
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
