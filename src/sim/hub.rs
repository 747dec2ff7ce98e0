//! The SIP core as the engine sees it: proxy to the devices, registrar and notifier, and the
//! senders of messages. One party with two addresses; it keeps RFC 3261's transactions towards the
//! engine.
//!
//! Deliberately patient where the RFCs let a peer give up for good: a NOTIFY that nobody answered
//! does not end the subscription, and a sender tries again until its message was taken.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::base::surface::LinkKind;
use crate::base::time::Timestamp;
use crate::sim::host::sip_address;
use crate::sim::ledger::TIMEOUT;
use crate::sim::net::{ConnId, Note, Timer, Way};
use crate::sim::options::{SIP_PORT, Transport, hop_address};
use crate::sim::text::{Sip, port_of, uri_of};
use crate::sim::world::World;

pub(super) const T1: Duration = Duration::from_millis(500);
pub(super) const T2: Duration = Duration::from_secs(4);

/// What a request of the core is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A device ends a session.
    Bye,
    /// A message.
    Deposit(usize),
    /// A session for a large message.
    Invite(usize),
    /// A document of a subscription.
    Notify(usize),
    /// Third-party REGISTER for a user.
    Tell(usize),
}

/// A client transaction towards the engine.
#[derive(Debug)]
struct Transaction {
    bytes: Vec<u8>,
    note: Option<Note>,
    purpose: Purpose,
    shard: u8,
    conn: Option<ConnId>,
    interval: Duration,
    deadline: Timestamp,
}

/// What a subscriber was told of a device: binding, REGISTER number, departures before.
type Told = BTreeMap<usize, (u32, u32, u32)>;

/// A subscription to a user's registration.
#[derive(Debug)]
struct Subscription {
    user: usize,
    call_id: String,
    engine: String,
    tag: String,
    target: String,
    cseq: u32,
    version: u64,
    busy: bool,
    full: bool,
    dirty: bool,
    ended: bool,
    told: Told,
    telling: Option<Told>,
}

/// State of the SIP core.
#[derive(Debug, Default)]
pub(super) struct Hub {
    transactions: BTreeMap<String, Transaction>,
    answers: BTreeMap<String, Vec<u8>>,
    subscriptions: Vec<Subscription>,
    inbound: BTreeMap<u8, ConnId>,
    letters: BTreeMap<String, usize>,
    next: u64,
}

impl Hub {
    /// The message that the transaction of `branch` carried.
    pub(super) fn letter_of(&self, branch: &str) -> Option<usize> {
        self.letters.get(branch).copied()
    }

    /// No request waits for its answer.
    pub(super) fn is_quiet(&self) -> bool {
        self.transactions.is_empty()
    }
}

impl World {
    fn is_tcp(&self) -> bool {
        self.options.transport == Transport::Tcp
    }

    /// The connection from the core to a shard, made when there is none.
    fn hub_conn(&mut self, shard: u8) -> Option<ConnId> {
        if let Some(&conn) = self.hub.inbound.get(&shard) {
            let state = &self.net.conns[conn];
            if !state.dead && !state.peer_gone && !state.engine_gone {
                return Some(conn);
            }
        }
        self.seats[usize::from(shard)].core.as_ref()?;
        let mut peer = hop_address(0);
        peer.set_port(40_000 + u16::from(shard));
        let ends = (peer, sip_address(shard));
        let conn = self
            .net
            .connect((shard, self.epoch), LinkKind::SipInbound, None, ends);
        self.hub.inbound.insert(shard, conn);
        Some(conn)
    }

    fn some_shard(&mut self) -> u8 {
        let shards = u64::from(self.shards());
        u8::try_from(self.dice.below(shards)).expect("a handful of shards")
    }

    /// The shard of a port, or now and then another.
    fn steer(&mut self, port: Option<u16>) -> u8 {
        let shard = port
            .and_then(|port| port.checked_sub(SIP_PORT))
            .unwrap_or(0);
        let shard = u8::try_from(shard).unwrap_or(0).min(self.shards() - 1);
        if !self.net.healed && self.options.missteered.hits(&mut self.dice) {
            self.net.mark("fault/missteered");
            return self.some_shard();
        }
        shard
    }

    /// Sends a request of the core and keeps its transaction. `text` is everything behind the Via.
    pub(super) fn core_request(
        &mut self,
        (method, uri): (&str, &str),
        shard: u8,
        purpose: Purpose,
        text: &str,
        note: Option<Note>,
    ) {
        self.hub.next += 1;
        let branch = format!("z9hG4bKcore{}", self.hub.next);
        if let Purpose::Deposit(letter) = purpose {
            self.hub.letters.insert(branch.clone(), letter);
        }
        let protocol = if self.is_tcp() { "TCP" } else { "UDP" };
        let bytes = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{protocol} {};branch={branch}\r\n\
             Max-Forwards: 70\r\n{text}",
            hop_address(0)
        )
        .into_bytes();
        self.net
            .note(|| format!("< {method} {uri} {purpose:?} {branch} to {shard}"));
        let transaction = Transaction {
            bytes,
            note,
            purpose,
            shard,
            conn: None,
            interval: T1,
            deadline: self.net.now + TIMEOUT,
        };
        self.hub.transactions.insert(branch.clone(), transaction);
        self.transmit_transaction(&branch);
    }

    /// Sends a request that has no transaction of its own.
    pub(super) fn core_send(
        &mut self,
        (method, uri): (&str, &str),
        shard: u8,
        branch: &str,
        text: &str,
    ) {
        let protocol = if self.is_tcp() { "TCP" } else { "UDP" };
        let hop = hop_address(0);
        let bytes = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{protocol} {hop};branch={branch}\r\n\
             Max-Forwards: 70\r\n{text}"
        )
        .into_bytes();
        self.net
            .note(|| format!("< {method} {uri} {branch} to {shard}"));
        if !self.is_tcp() {
            return self.net.datagram_to_shard(shard, hop, &bytes, None);
        }
        if let Some(conn) = self.hub_conn(shard) {
            self.net.stream_to_engine(conn, &bytes, None);
        }
    }

    /// The branch of the last request.
    pub(super) fn last_branch(&self) -> String {
        format!("z9hG4bKcore{}", self.hub.next)
    }

    fn transmit_transaction(&mut self, branch: &str) {
        let Some(transaction) = self.hub.transactions.get(branch) else {
            return;
        };
        let (shard, bytes) = (transaction.shard, transaction.bytes.clone());
        let note = transaction.note.clone();
        let timer = Timer::Transaction(branch.to_owned());
        if !self.is_tcp() {
            self.net
                .datagram_to_shard(shard, hop_address(0), &bytes, note.as_ref());
            let wait = self.hub.transactions[branch].interval;
            return self.net.after(wait, timer);
        }
        let conn = self.hub_conn(shard);
        let now = self.net.now;
        let transaction = self
            .hub
            .transactions
            .get_mut(branch)
            .expect("looked up above");
        transaction.conn = conn;
        match conn {
            Some(conn) => {
                self.net.stream_to_engine(conn, &bytes, note);
                self.net.after(TIMEOUT, timer);
            }
            None => {
                transaction.deadline = now + Duration::from_secs(1);
                self.net.after(Duration::from_secs(1), timer);
            }
        }
    }

    pub(super) fn transaction_due(&mut self, branch: &str) {
        let now = self.net.now;
        let Some(transaction) = self.hub.transactions.get_mut(branch) else {
            return;
        };
        if transaction.deadline <= now {
            let purpose = transaction.purpose;
            self.hub.transactions.remove(branch);
            self.net.mark("peer/transaction-timeout");
            return self.answered(purpose, 408);
        }
        transaction.interval = (transaction.interval * 2).min(T2);
        if transaction.conn.is_none() {
            self.transmit_transaction(branch);
        }
    }

    /// A connection of the core is gone: what waited on it is tried again.
    pub(super) fn hub_closed(&mut self, conn: ConnId) {
        let lost: Vec<String> = self
            .hub
            .transactions
            .iter()
            .filter(|(_, transaction)| transaction.conn == Some(conn))
            .map(|(branch, _)| branch.clone())
            .collect();
        for branch in lost {
            if let Some(transaction) = self.hub.transactions.remove(&branch) {
                self.answered(transaction.purpose, 503);
            }
        }
    }

    /// A request of the core has its final answer.
    fn answered(&mut self, purpose: Purpose, status: u16) {
        let again = Duration::from_millis(1000 + self.net.below(3000));
        match purpose {
            Purpose::Bye => {}
            Purpose::Deposit(letter) => {
                if status == 202 {
                    self.ledger.letters[letter].acked = true;
                } else {
                    self.net.mark("peer/deposit-refused");
                    self.net.after(again, Timer::Deposit(letter));
                }
            }
            Purpose::Invite(sender) => self.sender_answered(sender, status, None),
            Purpose::Notify(at) => self.notified(at, status, again),
            Purpose::Tell(user) => {
                if status != 200 {
                    self.net.after(again, Timer::Tell(user));
                }
            }
        }
    }

    /// A SIP message of the engine has arrived.
    pub(super) fn hub_message(&mut self, way: Way, message: &Sip) {
        if message.status >= 200 {
            let branch = message.branch();
            if let Some(transaction) = self.hub.transactions.remove(branch) {
                let (purpose, status) = (transaction.purpose, message.status);
                self.net.note(|| format!("answer {status} to {purpose:?}"));
                match purpose {
                    Purpose::Invite(sender) => self.sender_answered(sender, status, Some(message)),
                    Purpose::Bye | Purpose::Deposit(_) | Purpose::Notify(_) | Purpose::Tell(_) => {
                        self.answered(purpose, status)
                    }
                }
            } else if message.method == "INVITE" {
                self.sender_repeated(message);
            }
            return;
        }
        if message.status > 0 {
            return;
        }
        let key = format!("{} {}", message.branch(), message.method);
        if let Some(bytes) = self.hub.answers.get(&key) {
            let bytes = bytes.clone();
            return self.respond(way, message, &bytes, None);
        }
        let bytes = match message.method.as_str() {
            "INVITE" => return self.invite(way, message),
            "ACK" => return self.ack(message),
            "CANCEL" => self.cancel(way, message),
            "BYE" if self.sender_got_bye(message) => message.answer(200, "", "", ""),
            "BYE" => self.bye(message),
            "UPDATE" => self.update(message),
            "SUBSCRIBE" => self.subscribe(message),
            _ => message.answer(405, "core", "", ""),
        };
        self.hub.answers.insert(key, bytes.clone());
        self.respond(way, message, &bytes, None);
    }

    /// A response back where the request came from (RFC 3261 section 18.2.2).
    pub(super) fn respond(&mut self, way: Way, request: &Sip, bytes: &[u8], note: Option<Note>) {
        let sent_by = request.need("Via").split(';').next().and_then(port_of);
        let wished = self.with_wish(bytes);
        let bytes = wished.as_deref().unwrap_or(bytes);
        self.net.note(|| {
            let line = bytes
                .split(|&byte| byte == b'\r')
                .next()
                .unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            format!("< {line} {} {}", request.method, request.call_id())
        });
        if !self.is_tcp() {
            let shard = self.steer(sent_by);
            return self
                .net
                .datagram_to_shard(shard, way.at, bytes, note.as_ref());
        }
        let open = way.conn.filter(|&conn| {
            let state = &self.net.conns[conn];
            !state.dead && !state.peer_gone && !state.engine_gone
        });
        let shard = self.steer(sent_by);
        let conn = if shard == way.shard { open } else { None };
        if let Some(conn) = conn.or_else(|| self.hub_conn(shard)) {
            self.net.stream_to_engine(conn, bytes, note);
        }
    }

    /// A response in which the hop says, now and then, how many new requests it wants, and for how long.
    fn with_wish(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        const OFFER: &str = ";oc;oc-algo=\"loss,rate\"";
        const WISHES: [&str; 6] = [
            "oc=0;oc-algo=\"loss\"",
            "oc=30;oc-algo=\"loss\"",
            "oc=100;oc-algo=\"loss\"",
            "oc=0;oc-algo=\"rate\"",
            "oc=1;oc-algo=\"rate\"",
            "oc=40;oc-algo=\"rate\"",
        ];
        if self.net.healed || !self.options.wishes.hits(&mut self.dice) {
            return None;
        }
        let mut pick =
            |among: usize| usize::try_from(self.dice.below(among as u64)).expect("one of a few");
        let (wish, validity) = (WISHES[pick(6)], [0, 400, 5000, 30_000][pick(4)]);
        let at = memchr::memmem::find(bytes, OFFER.as_bytes())?;
        self.net.mark("peer/wish");
        // Its words come in order of time.
        let seq = self.net.now.as_millis();
        let said = format!(";{wish};oc-validity={validity};oc-seq={seq}.0");
        let mut text = bytes[..at].to_vec();
        text.extend_from_slice(said.as_bytes());
        text.extend_from_slice(&bytes[at + OFFER.len()..]);
        Some(text)
    }

    fn subscribe(&mut self, message: &Sip) -> Vec<u8> {
        let user = self.users.iter().position(|user| user.aor == message.uri);
        let expires = message.need("Expires").to_owned();
        let granted = format!(
            "Contact: <sip:{}>\r\nExpires: {expires}\r\n",
            hop_address(0)
        );
        if message.tag("To").is_some() {
            let found = self.hub.subscriptions.iter().position(|subscription| {
                subscription.call_id == message.call_id() && !subscription.ended
            });
            let Some(at) = found else {
                return message.answer(481, "", "", "");
            };
            self.net.mark("engine/subscription-refresh");
            self.hub.subscriptions[at].full = true;
            self.net.after(Duration::from_millis(5), Timer::Notify(at));
            return message.answer(200, "", &granted, "");
        }
        let Some(user) = user else {
            return message.answer(404, "core", "", "");
        };
        let registered = self.users[user]
            .phones
            .iter()
            .any(|&phone| self.phones[phone].registered);
        if !registered && self.options.absent_480 {
            self.net.mark("peer/480-to-subscribe");
            return message.answer(480, "core", "", "");
        }
        let at = self.hub.subscriptions.len();
        let tag = format!("sub{at}");
        self.hub.subscriptions.push(Subscription {
            user,
            call_id: message.call_id().to_owned(),
            engine: message.need("From").to_owned(),
            tag: tag.clone(),
            target: uri_of(message.need("Contact")).to_owned(),
            cseq: 0,
            version: 0,
            busy: false,
            full: true,
            dirty: false,
            ended: false,
            told: Told::new(),
            telling: None,
        });
        self.net.after(Duration::from_millis(5), Timer::Notify(at));
        message.answer(200, &tag, &granted, "")
    }

    /// The user's registration changed: tell the engine, and whoever subscribed.
    pub(super) fn registration_changed(&mut self, user: usize) {
        self.tell_registration(user);
        for at in 0..self.hub.subscriptions.len() {
            let subscription = &mut self.hub.subscriptions[at];
            if subscription.user == user && !subscription.ended {
                subscription.dirty = true;
                self.net.after(Duration::from_millis(5), Timer::Notify(at));
            }
        }
    }

    /// Third-party REGISTER (3GPP TS 24.229 section 5.4.1.7).
    pub(super) fn tell_registration(&mut self, user: usize) {
        let here = self.users[user]
            .phones
            .iter()
            .any(|&phone| self.phones[phone].registered);
        let expires = if here { 600_000 } else { 0 };
        let number = self.hub.next + 1;
        let (hop, aor) = (hop_address(0), self.users[user].aor.clone());
        let text = format!(
            "From: <sip:{hop}>;tag=tell{number}\r\nTo: <{aor}>\r\nCall-ID: tell{number}\r\n\
             CSeq: 1 REGISTER\r\nContact: <sip:{hop}>\r\nExpires: {expires}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let shard = self.some_shard();
        let uri = format!("sip:{}", sip_address(0));
        self.core_request(("REGISTER", &uri), shard, Purpose::Tell(user), &text, None);
    }

    /// Sends what the subscriber does not know yet.
    pub(super) fn notify(&mut self, at: usize) {
        let (user, full) = {
            let subscription = &self.hub.subscriptions[at];
            if subscription.ended || subscription.busy {
                return;
            }
            (subscription.user, subscription.full)
        };
        let mut present = Told::new();
        for &phone in &self.users[user].phones {
            let state = &self.phones[phone];
            if state.registered {
                present.insert(
                    phone,
                    (state.binding, state.register_cseq, state.departures),
                );
            }
        }
        let told = self.hub.subscriptions[at].told.clone();
        if !full && told == present {
            self.hub.subscriptions[at].dirty = false;
            return;
        }
        let calm = self.net.healed || full;
        let gap = !calm && self.options.gaps.hits(&mut self.dice);
        let ends = !calm && self.dice.below(25) == 0 && self.options.mischief.0 > 0;
        let contacts = if full {
            present
                .iter()
                .map(|(&phone, &seen)| self.contact(phone, seen, true))
                .collect()
        } else if gap {
            self.net.mark("fault/notify-gap");
            String::new()
        } else {
            self.net.mark("peer/notify-partial");
            self.changes(&told, &present)
        };
        let subscription = &mut self.hub.subscriptions[at];
        subscription.version += if gap { 2 } else { 1 };
        subscription.busy = true;
        subscription.full = false;
        subscription.dirty = false;
        subscription.telling = (!gap && !ends).then(|| present.clone());
        if gap {
            // What was left out is only told in answer to a refresh.
            subscription.told.clone_from(&present);
        }
        subscription.ended = ends;
        let kind = if full { "full" } else { "partial" };
        let here = if present.is_empty() {
            "terminated"
        } else {
            "active"
        };
        let aor = &self.users[user].aor;
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<reginfo \
             xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
             xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"{}\" state=\"{kind}\">\n\
             <registration aor=\"{aor}\" id=\"r{user}\" state=\"{here}\">\n{contacts}\
             </registration>\n</reginfo>\n",
            subscription.version
        );
        self.send_notify(at, &body, ends);
    }

    fn send_notify(&mut self, at: usize, body: &str, ends: bool) {
        let subscription = &mut self.hub.subscriptions[at];
        subscription.cseq += 1;
        let aor = &self.users[subscription.user].aor;
        let (call_id, tag, cseq) = (&subscription.call_id, &subscription.tag, subscription.cseq);
        let (engine, target) = (&subscription.engine, subscription.target.clone());
        let (state, body) = if ends {
            ("terminated;reason=deactivated", "")
        } else {
            ("active;expires=599999", body)
        };
        let content = if ends {
            ""
        } else {
            "Content-Type: application/reginfo+xml\r\n"
        };
        let text = format!(
            "From: <{aor}>;tag={tag}\r\nTo: {engine}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} NOTIFY\r\nContact: <sip:{}>\r\nEvent: reg\r\n\
             Subscription-State: {state}\r\n{content}Content-Length: {}\r\n\r\n{body}",
            hop_address(0),
            body.len()
        );
        if ends {
            self.net.mark("peer/subscription-deactivated");
        }
        let shard = self.steer(port_of(&target));
        self.core_request(("NOTIFY", &target), shard, Purpose::Notify(at), &text, None);
    }

    fn notified(&mut self, at: usize, status: u16, again: Duration) {
        let now = self.net.now;
        let subscription = &mut self.hub.subscriptions[at];
        subscription.busy = false;
        let telling = subscription.telling.take();
        match status {
            200 => {
                if let Some(told) = telling {
                    for (&phone, &(_, _, departures)) in &told {
                        let state = &mut self.phones[phone];
                        if state.registered && state.departures == departures {
                            state.known_since.get_or_insert(now);
                        }
                    }
                    subscription.told = told;
                }
                if subscription.dirty || subscription.full {
                    self.net.after(Duration::from_millis(5), Timer::Notify(at));
                }
            }
            481 | 489 => {
                self.net.mark("peer/subscription-unknown");
                subscription.ended = true;
            }
            _ => {
                self.net.mark("peer/notify-again");
                subscription.full = true;
                self.net.after(again, Timer::Notify(at));
            }
        }
    }

    fn changes(&self, told: &Told, present: &Told) -> String {
        let mut text = String::new();
        for (&phone, &was) in told {
            if present.get(&phone).is_none_or(|now| now.0 != was.0) {
                text.push_str(&self.contact(phone, was, false));
            }
        }
        for (&phone, &now) in present {
            if told.get(&phone) != Some(&now) {
                text.push_str(&self.contact(phone, now, true));
            }
        }
        text
    }

    fn contact(&self, phone: usize, seen: (u32, u32, u32), active: bool) -> String {
        let (binding, cseq, _) = seen;
        let state = &self.phones[phone];
        let (how, expires) = if active {
            (
                "state=\"active\" event=\"registered\"",
                " expires=\"600000\"",
            )
        } else {
            ("state=\"terminated\" event=\"unregistered\"", "")
        };
        let service = if state.capable { "deferred" } else { "other" };
        let (instance, gruu, address) = (&state.instance, &state.gruu, state.address);
        format!(
            "<contact id=\"c{phone}b{binding}\" {how} callid=\"reg-{phone}-{binding}\" \
             cseq=\"{cseq}\"{expires}>\n<uri>sip:dev{phone}@{address}</uri>\n\
             <unknown-param name=\"+sip.instance\">\"&lt;{instance}&gt;\"</unknown-param>\n\
             <unknown-param name=\"+g.3gpp.icsi-ref\">\
             \"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.{service}\"</unknown-param>\n\
             <gr:pub-gruu uri=\"{gruu}\"/>\n</contact>\n"
        )
    }

    /// A sender sends, or sends again, its message.
    pub(super) fn deposit(&mut self, at: usize) {
        let letter = &mut self.ledger.letters[at];
        if letter.acked {
            return;
        }
        letter.tries += 1;
        if letter.is_large {
            return self.deposit_large(at, false);
        }
        let aor = self.users[letter.user].aor.clone();
        let body = format!(
            "From: <sip:+15550177@ims.example.net>\r\nTo: <{aor}>\r\n\
             DateTime: 2026-11-22T05:58:01Z\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
             imdn.Message-ID: imdn{at:06}\r\n\r\n\
             Content-Type: text/plain; charset=UTF-8\r\n\r\n{}",
            letter.text
        );
        let number = self.hub.next + 1;
        let text = format!(
            "From: <sip:+15550177@ims.example.net>;tag=snd{number}\r\nTo: <{aor}>\r\n\
             Call-ID: msg{number}\r\nCSeq: 1 MESSAGE\r\n\
             P-Asserted-Identity: <sip:+15550177@ims.example.net>\r\n\
             Conversation-ID: conv-{at:06}\r\nContribution-ID: contrib-{at:06}\r\n\
             Content-Type: message/cpim\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let shard = self.some_shard();
        self.core_request(("MESSAGE", &aor), shard, Purpose::Deposit(at), &text, None);
    }
}
