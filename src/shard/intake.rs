//! Intake: MESSAGE into the store, durable before 202 (REQUIREMENTS section 8).

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::base::octets;
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::base::time::UnixMillis;
use crate::base::token::TokenKind;
use crate::cpim::{self, Cpim, Identifiers};
use crate::push::Env;
use crate::push::post::{Post, Reply, Scratch};
use crate::registry::device_key;
use crate::shard::Shard;
use crate::shard::frames::Origin;
use crate::shard::requests::Reply as Answer;
use crate::sip::message::{HeaderName, Message, NameAddr};
use crate::sip::response;
use crate::sip::uri;
use crate::store::index::{Admission, NewEntry};
use crate::store::op::{Deposit, DepositFlags, Hints};

/// Seconds a full mailbox asks the sender to wait (INT-9).
pub(super) const FULL_RETRY_AFTER: &[u8] = b"Retry-After: 300\r\n";

/// Longest header lines a push repeats of its message, octets.
const REPEATED_BYTES_MAX: usize = 2048;
/// Longest charging identifier kept, octets.
const ICID_BYTES_MAX: usize = 256;

/// Built once: most Accept-Contact values are searched in vain.
static INSTANCE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"+sip.instance=\"<"));

/// Why a MESSAGE is not taken.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) extra: &'static [u8],
}

impl Refusal {
    pub(super) const fn plain(status: u16) -> Self {
        Self { status, extra: b"" }
    }
}

impl Shard {
    pub(super) fn handle_deposit(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
    ) {
        if let Err(refusal) = self.take_deposit(now, origin, message) {
            self.probe.deposits_rejected_total += 1;
            let answer = Answer {
                status: refusal.status,
                extra: refusal.extra,
            };
            self.reply(now, origin, message, &answer);
        }
    }

    /// The mailbox of a Request-URI: the user, if its domain is ours (INT-5, INT-11, BAD-10).
    pub(super) fn served_user(&mut self, identity: &[u8]) -> Option<Key> {
        let mut canonical = core::mem::take(&mut self.desk.identity);
        canonical.clear();
        let found = uri::canonical_identity(identity, &mut canonical).is_ok()
            && self.options.serves(identity, &canonical);
        let key = if found {
            self.registry.lookup_or_create(&canonical)
        } else {
            None
        };
        if let Some((key, true)) = key {
            let entry = self.registry.entry_mut(key).expect("just made");
            entry.extra.reset();
            self.post.mailbox(key.slot).reset();
        }
        self.desk.identity = canonical;
        key.map(|(key, _)| key)
    }

    fn take_deposit(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        if self.post.is_failed() || self.post.is_space_low() {
            self.probe.deposits_unwell_total += 1;
            return Err(Refusal::plain(503));
        }
        if self.post.room() == 0 || self.desk.draining {
            return Err(Refusal::plain(503));
        }
        // Without Retry-After: a sender that obeyed it would avoid us for all users (AMB-10).
        if self.post.is_behind(now) {
            self.probe.deposits_overload_total += 1;
            return Err(Refusal::plain(503));
        }
        if let Some(result) = self.take_special(now, origin, message) {
            return result;
        }
        let user = self
            .served_user(message.request_uri())
            .ok_or(Refusal::plain(404))?;
        self.foresee_user(user);
        if self.registry.is_contested(message.request_uri()) {
            return Err(Refusal::plain(485));
        }
        if self.is_barred(user) {
            self.rearm_user(user);
            return Err(Refusal::plain(403));
        }
        self.post.foresee_entries(user.slot);
        self.judge_content(message)?;
        self.post.foresee_memories(user.slot);
        let mut scratch = core::mem::take(&mut self.post.scratch);
        scratch.wrapped.clear();
        scratch.content.clear();
        scratch.lines.clear();
        let result = self.store_deposit(now, origin, message, user, &mut scratch);
        self.post.scratch = scratch;
        if result.is_err() {
            // A user made for a message that was refused is not kept.
            self.rearm_user(user);
        }
        result
    }

    /// Whether the operator or the provider's rules bar the user (INT-5).
    pub(super) fn is_barred(&mut self, user: Key) -> bool {
        let Some(entry) = self.registry.entry_mut(user) else {
            return false;
        };
        self.campaigns.rule(&mut entry.user);
        entry.user.barred || self.campaigns.rules().policy(entry.user.ruling).barred
    }

    /// Content rules (INT-6, INT-7, INT-14, BAD-11, BAD-17).
    fn judge_content(&self, message: &Message<'_>) -> Result<(), Refusal> {
        const TYPES: &[u8] = b"Accept: message/cpim, text/plain\r\n";
        if message
            .header(HeaderName::ContentEncoding)
            .is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"))
        {
            return Err(Refusal {
                status: 415,
                extra: b"Accept-Encoding: identity\r\n",
            });
        }
        let Some(content_type) = message.header(HeaderName::ContentType) else {
            return Err(Refusal::plain(400));
        };
        let essence = media_type(content_type);
        if octets::is_word(essence, b"application/pkcs7-mime") {
            return Err(Refusal::plain(493));
        }
        if !octets::is_word(essence, b"message/cpim") && !octets::is_word(essence, b"text/plain") {
            return Err(Refusal {
                status: 415,
                extra: TYPES,
            });
        }
        if message.body().len() > self.options.pager_max {
            return Err(Refusal::plain(413));
        }
        Ok(())
    }

    fn store_deposit(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
        user: Key,
        scratch: &mut Scratch,
    ) -> Result<(), Refusal> {
        let wall = self.desk.wall.at(now);
        let sender = sender_of(message);
        let header = |name| message.header(name).unwrap_or_default();
        let ids = Identifiers {
            conversation: header(HeaderName::ConversationId),
            contribution: header(HeaderName::ContributionId),
            in_reply_to: header(HeaderName::InReplyToContributionId),
        };
        let Scratch {
            wrapped,
            content,
            lines,
        } = scratch;
        let parsed = compose(message, sender, wall, &ids, wrapped, content)?;
        let route = &self.post.options.imdn_route;
        if !route.is_empty() && parsed.find_imdn(b"Disposition-Notification").is_some() {
            cpim::record_route(route, content);
        }
        let content = &content[..];
        let related_icid = repeated_in_push(message, self.post.options.charging, lines);
        let mut flags = flags_of(&parsed, message);
        if !related_icid.is_empty() || !lines.is_empty() {
            flags = flags.with(DepositFlags::RARE_FIELDS);
        }
        let is_notice = flags.contains(DepositFlags::IS_IMDN);
        let life = self.post.options.life;
        let life = if is_notice { life.of_notices() } else { life };
        let expires_s = message.expires().and_then(Result::ok);
        let expires = life.expiry(self.desk.wall.intake(now), message.date(), expires_s);
        let number = self.post.take_number(wall, is_notice);
        let entry = self.registry.entry_mut(user).expect("found above");
        if entry.user.identity.is_empty() {
            let identity = identity_of(message.request_uri());
            entry.user.identity.extend_from_slice(identity);
        }
        let deposit = Deposit {
            user: &entry.user.canonical,
            identity: &entry.user.identity,
            number,
            received: wall,
            expires,
            flags,
            sender,
            imdn_message_id: parsed.find_imdn(b"Message-ID").unwrap_or_default(),
            conversation_id: ids.conversation,
            contribution_id: ids.contribution,
            in_reply_to: ids.in_reply_to,
            related_icid,
            lines,
            target_instance: target_instance(message),
            content_type: parsed.content_type(),
            cpim: content,
        };
        let arrival = Arrival {
            now,
            origin,
            message,
            user,
            pushes: entry.extra.pushes,
        };
        match admit(&mut self.post, &self.env, &arrival, &deposit)? {
            Taken::Stored => {}
            Taken::Repeat(reply) => self.repeated(now, reply),
        }
        Ok(())
    }

    fn repeated(&mut self, now: Timestamp, reply: Option<Reply>) {
        self.probe.deposits_duplicate_total += 1;
        if let Some(reply) = reply {
            self.send_reply(now, reply);
        }
    }

    /// A deposit that came at `since` became durable: push it at once to a user who is there (INT-10), or find out
    /// whether the user is.
    pub(super) fn deposited(&mut self, now: Timestamp, since: Timestamp, user: Key) {
        let Some(entry) = self.registry.entry_mut(user) else {
            return;
        };
        if entry.user.is_registered() {
            // A session that lingers takes the message; otherwise a decision is due.
            let mut open = core::mem::take(&mut self.desk.open);
            open.extend(
                entry
                    .user
                    .devices
                    .iter()
                    .filter_map(|device| device.pushing),
            );
            self.campaigns
                .changed_since(now, since, user, &mut entry.extra);
            for key in open.drain(..) {
                self.after_push(now, key, None);
            }
            self.desk.open = open;
        } else {
            self.want_subscription(now, user);
        }
        self.rearm_user(user);
    }

    pub(super) fn send_reply(&mut self, now: Timestamp, reply: Reply) {
        if let Some(key) = reply.transaction {
            self.server.store_response(now, key, &reply.bytes);
        }
        self.out
            .send(reply.to, |out| out.extend_from_slice(&reply.bytes));
        self.post.recycle(reply.bytes);
    }

    /// The store failed under a deposit: 503 in place of its 202.
    pub(super) fn refuse_stored(&mut self, now: Timestamp, reply: Reply) {
        self.send_instead(now, reply, b"SIP/2.0 503 Service Unavailable\r\n");
    }

    /// The large message that a MESSAGE repeated will not come whole: 500 in place of the 202, so that the
    /// sender tries again. Not 503, which would turn all senders behind that hop away from us.
    pub(super) fn refuse_repeat(&mut self, now: Timestamp, reply: Reply) {
        self.send_instead(now, reply, b"SIP/2.0 500 Server Internal Error\r\n");
    }

    /// A failure after all: it is the final response of the transaction, so repeats of the request get it
    /// again (RFC 3261 section 17.2.2).
    fn send_instead(&mut self, now: Timestamp, mut reply: Reply, status_line: &[u8]) {
        let rest = memchr::memchr(b'\n', &reply.bytes).map_or(0, |at| at + 1);
        let source = &self.env.response_source_line[..];
        let bytes = [status_line, source, &reply.bytes[rest..]].concat();
        let promised = core::mem::replace(&mut reply.bytes, bytes);
        self.post.recycle(promised);
        self.send_reply(now, reply);
    }
}

/// A message with where it came from and whom it is for.
struct Arrival<'a> {
    now: Timestamp,
    origin: &'a Origin,
    message: &'a Message<'a>,
    user: Key,
    /// Pushes of the user under way.
    pushes: u32,
}

/// What became of a message that was not refused.
enum Taken {
    /// It is being written; its 202 follows.
    Stored,
    /// It is here already, or was: its 202 goes now, unless it waits with that of the first.
    Repeat(Option<Reply>),
}

/// Gives `deposit` its place and has it written, unless it is a repeat or there is no room.
fn admit(
    post: &mut Post,
    env: &Env,
    arrival: &Arrival<'_>,
    deposit: &Deposit<'_>,
) -> Result<Taken, Refusal> {
    let &Arrival {
        now,
        origin,
        message,
        user,
        pushes,
    } = arrival;
    let number = deposit.number;
    let new = NewEntry {
        number,
        dedupe: deposit.dedupe(post.dedupe_keys),
        expires_s: u32::try_from(deposit.expires.as_secs()).unwrap_or(u32::MAX),
        bytes: u32::try_from(deposit.cpim.len()).unwrap_or(u32::MAX),
        target: deposit.target_instance,
        pushes,
        flags: deposit.flags,
        hints: Hints::of(deposit.content_type, deposit.conversation_id),
    };
    let quota = post.options.quota;
    let now_s = u32::try_from(deposit.received.as_secs()).unwrap_or(u32::MAX);
    match post.mailbox(user.slot).admit(&quota, now_s, &new) {
        Admission::Accepted => {
            let reply = accepted(post, env, origin, message, number);
            if post
                .append_deposit(now, user, deposit, Some(reply))
                .is_err()
            {
                post.mailbox(user.slot).cancel(number);
                return Err(Refusal::plain(400));
            }
            Ok(Taken::Stored)
        }
        Admission::Repeat {
            number: first,
            durable: false,
        } => {
            let reply = accepted(post, env, origin, message, number);
            match post.reply_after(first, reply) {
                None => Ok(Taken::Repeat(None)),
                Some(reply) => {
                    post.recycle(reply.bytes);
                    Err(Refusal::plain(500))
                }
            }
        }
        Admission::Repeat { durable: true, .. } | Admission::RepeatOfRemoved => {
            let reply = accepted(post, env, origin, message, number);
            Ok(Taken::Repeat(Some(reply)))
        }
        Admission::Full => Err(Refusal {
            status: 480,
            extra: FULL_RETRY_AFTER,
        }),
    }
}

/// Puts the CPIM to be delivered into `content`: as it came plus the CPM identifiers (CPIM-5), or
/// wrapped around plain text (CPIM-3), which is done in `wrapped`. What the headers say is read once.
fn compose<'a>(
    message: &Message<'a>,
    sender: &[u8],
    wall: UnixMillis,
    ids: &Identifiers<'_>,
    wrapped: &'a mut Vec<u8>,
    content: &mut Vec<u8>,
) -> Result<Cpim<'a>, Refusal> {
    let refuse = |error: cpim::CpimError| Refusal::plain(error.sip_status());
    let content_type = message.header(HeaderName::ContentType).unwrap_or_default();
    let bytes = if octets::is_word(media_type(content_type), b"text/plain") {
        let private = message.lists(HeaderName::Privacy, b"id");
        let fields = cpim::TextFields {
            from: if private { cpim::ANONYMOUS } else { sender },
            to: message.request_uri(),
            when: message.date().unwrap_or(wall),
            content_type,
            content: message.body(),
        };
        cpim::wrap_text(&fields, wrapped).map_err(refuse)?;
        &wrapped[..]
    } else {
        message.body()
    };
    let parsed = cpim::parse(bytes).map_err(refuse)?;
    cpim::add_identifiers(bytes, &parsed, ids, content).map_err(refuse)?;
    Ok(parsed)
}

/// The sender: P-Asserted-Identity, believed since only trusted peers reach us; else From.
pub(super) fn sender_of<'a>(message: &Message<'a>) -> &'a [u8] {
    message
        .header(HeaderName::PAssertedIdentity)
        .and_then(|value| NameAddr::parse(value).ok())
        .or_else(|| message.from().ok())
        .map_or(&b""[..], |address| address.uri)
}

/// What the push repeats of a message: header lines into `lines`, and the charging identifier. Values
/// that would not stand in one line are left out, and so is what is longer than anybody needs.
pub(super) fn repeated_in_push<'a>(
    message: &Message<'a>,
    charging: bool,
    lines: &mut Vec<u8>,
) -> &'a [u8] {
    let names: [(HeaderName, &[u8], bool); 2] = [
        (HeaderName::ResourcePriority, b"Resource-Priority: ", true),
        (
            HeaderName::PChargingFunctionAddresses,
            b"P-Charging-Function-Addresses: ",
            charging,
        ),
    ];
    for (name, text, wanted) in names {
        if !wanted {
            continue;
        }
        for value in message.header_lines(name).filter(|value| is_plain(value)) {
            if lines.len() + value.len() > REPEATED_BYTES_MAX {
                break;
            }
            lines.extend_from_slice(text);
            lines.extend_from_slice(value);
            lines.extend_from_slice(b"\r\n");
        }
    }
    if !charging {
        return b"";
    }
    let vector = message.parameterized(HeaderName::PChargingVector);
    let icid = vector.and_then(|vector| {
        let value = vector.value;
        let at = octets::find(value, b'=')?;
        octets::is_word(octets::trim(&value[..at]), b"icid-value")
            .then(|| octets::trim(&value[at + 1..]))
    });
    let icid = icid.unwrap_or_default();
    let icid = icid
        .strip_prefix(b"\"")
        .and_then(|icid| icid.strip_suffix(b"\""))
        .unwrap_or(icid);
    let is_fit = icid.len() <= ICID_BYTES_MAX
        && is_plain(icid)
        && !icid.contains(&b'"')
        && !icid.contains(&b'\\');
    if is_fit { icid } else { b"" }
}

/// Whether a header value can be repeated as it is: one line, no control characters.
fn is_plain(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|&c| c == b'\t' || !c.is_ascii_control())
}

pub(super) fn media_type(value: &[u8]) -> &[u8] {
    let end = octets::find(value, b';').unwrap_or(value.len());
    octets::trim(&value[..end])
}

pub(super) fn flags_of(cpim: &Cpim<'_>, message: &Message<'_>) -> DepositFlags {
    let mut flags = DepositFlags::empty();
    if message.header(HeaderName::ResourcePriority).is_some() {
        flags = flags.with(DepositFlags::PRIORITY);
    }
    let wanted = cpim.find_imdn(b"Disposition-Notification");
    for item in wanted.unwrap_or_default().split(|&c| c == b',') {
        let item = octets::trim(item.strip_prefix(b" ").unwrap_or(item));
        if octets::is_word(item, b"negative-delivery") {
            flags = flags.with(DepositFlags::IMDN_NEGATIVE);
        } else if octets::is_word(item, b"positive-delivery") {
            flags = flags.with(DepositFlags::IMDN_POSITIVE);
        }
    }
    if octets::is_word(media_type(cpim.content_type()), b"message/imdn+xml") {
        flags = flags.with(DepositFlags::IS_IMDN);
    }
    flags
}

/// Key of the only device an Accept-Contact with `+sip.instance` leaves (INT-12); zero for all.
pub(super) fn target_instance(message: &Message<'_>) -> u64 {
    for value in message.headers(HeaderName::AcceptContact) {
        let Some(at) = INSTANCE.find(value) else {
            continue;
        };
        let rest = &value[at + 16..];
        if let Some(end) = memchr::memchr(b'>', rest) {
            return device_key(&rest[..end]);
        }
    }
    0
}

/// The 202 of a deposit, encoded now, sent when its time has come (INT-2).
fn accepted(
    post: &mut Post,
    env: &Env,
    origin: &Origin,
    message: &Message<'_>,
    number: u64,
) -> Reply {
    let slot = u32::try_from(number & 0x03ff_ffff).expect("masked to 26 bits");
    let generation = u32::try_from(number >> 26 & 0x0fff_ffff).expect("masked to 28 bits");
    let tag = env.token(TokenKind::ServerTag, Key { slot, generation }, 1);
    let mut bytes = post.spare();
    response::respond(
        message,
        origin.source,
        202,
        "",
        tag.as_bytes(),
        &env.server_line,
        b"",
        &mut bytes,
    );
    Reply {
        to: origin.to,
        bytes,
        transaction: origin.transaction,
    }
}

/// The public identity of a Request-URI, without `gr` and other parameters.
pub(super) fn identity_of(request_uri: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', request_uri).unwrap_or(request_uri.len());
    &request_uri[..end]
}
