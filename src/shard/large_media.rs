//! Large message mode, its media (INT-13): the connection, the chunks, and the records that make them a
//! message.

use crate::base::outbox::Destination;
use crate::base::slab::Key;
use crate::base::surface::{LinkId, Location};
use crate::base::time::{Timestamp, UnixMillis};
use crate::base::token::{TokenKind, TokenParts};
use crate::cpim;
use crate::msrp::frame::{self, BindFields, Frame, OurPath, ReportFields, Start};
use crate::msrp::inbound::whole_range;
use crate::msrp::uri as msrp_uri;
use crate::push::large::{CLOSING_MAX, Chunk, Head, Incoming, IntakeState, PARTS_AHEAD, Stage};
use crate::push::post::PostOptions;
use crate::shard::large::{identifiers, key_of_token};
use crate::shard::{Shard, intake};
use crate::sip::message::{HeaderName, Message};
use crate::sip::parser;
use crate::store::index::{Admission, NewEntry};
use crate::store::op::{Deposit, DepositFlags, Hints};
use crate::store::parts::write_manifest;
use crate::store::record::encode_deposit;

/// What the deposit of a large message is made of.
struct Maker<'a> {
    user: &'a [u8],
    options: &'a PostOptions,
    invite: &'a Message<'a>,
    wall: UnixMillis,
}

impl<'a> Maker<'a> {
    /// The deposit of message `number` with these header sections and this list of parts. `None` when
    /// the head is none.
    fn deposit(
        &self,
        (number, head, list): (u64, &'a [u8], &'a [u8]),
        lines: &'a mut Vec<u8>,
    ) -> Option<Deposit<'a>> {
        let (invite, options) = (self.invite, self.options);
        let parsed = cpim::parse(head).ok()?;
        let related_icid = intake::repeated_in_push(invite, options.charging, lines);
        let mut flags = intake::flags_of(&parsed, invite).with(DepositFlags::LARGE_MODE);
        if !related_icid.is_empty() || !lines.is_empty() {
            flags = flags.with(DepositFlags::RARE_FIELDS);
        }
        // Expires of an INVITE is about the invitation.
        let life_s = invite.header(HeaderName::MessageExpires);
        let life_s = life_s.and_then(crate::sip::scan::decimal_u32);
        let ids = identifiers(invite);
        Some(Deposit {
            user: self.user,
            identity: intake::identity_of(invite.request_uri()),
            number,
            received: self.wall,
            expires: options.life.expiry(self.wall, invite.date(), life_s),
            flags,
            sender: intake::sender_of(invite),
            imdn_message_id: parsed.find_imdn(b"Message-ID").unwrap_or_default(),
            conversation_id: ids.conversation,
            contribution_id: ids.contribution,
            in_reply_to: ids.in_reply_to,
            related_icid,
            lines,
            target_instance: intake::target_instance(invite),
            content_type: parsed.content_type(),
            cpim: list,
        })
    }
}

impl Shard {
    /// The session of a large message that a To tag or a path names.
    pub(super) fn intake_of(&self, parts: TokenParts) -> Option<Key> {
        let live = parts.kind == TokenKind::LargeSession && parts.shard == self.env.shard;
        (live && self.post.intakes.lookup(parts.key).is_some()).then_some(parts.key)
    }

    /// The same for the To-Path of an MSRP request.
    pub(super) fn intake_named(&self, to_path: &[u8]) -> Option<Key> {
        if self.post.intakes.is_empty() {
            return None;
        }
        let session = msrp_uri::session_id(msrp_uri::first_uri(to_path))?;
        self.intake_of(self.verify(session)?)
    }

    /// An MSRP request for the session of a large message: the status to answer with.
    pub(super) fn large_request(
        &mut self,
        now: Timestamp,
        link: LinkId,
        key: Key,
        frame: &Frame<'_>,
    ) -> u16 {
        let idle = self.post.intakes.options.idle;
        let intake = self.post.intakes.lookup_mut(key).expect("just looked up");
        match intake.link {
            Some(bound) if bound != link => return 506,
            Some(_) => {}
            None if intake.state == IntakeState::Waiting && !intake.connects => {
                self.bind_intake(now, link, key);
            }
            None => return 481,
        }
        if frame.start != Start::Send {
            return 501;
        }
        let intake = self.post.intakes.lookup_mut(key).expect("just looked up");
        intake.guard = Some(now + idle);
        if intake.state == IntakeState::Ending {
            return 481;
        }
        if let Some(fault) = frame.fault {
            return fault.status();
        }
        let status = if frame.body.is_none() {
            200
        } else {
            self.take_chunk(now, key, frame)
        };
        self.hold_or_release(key);
        self.rearm_intake(key);
        status
    }

    /// The first chunk on a connection has begun: its head names the session, so that the connection is
    /// not taken for one that never says whom it is for (MSRP-19).
    pub(super) fn bind_early(&mut self, now: Timestamp, link: LinkId, bytes: &[u8]) {
        if self.post.intakes.is_empty()
            || self
                .out
                .lookup(link)
                .is_none_or(|state| state.bound.is_some())
        {
            return;
        }
        let named = frame::peek_request(bytes).and_then(|head| self.intake_named(head.to_path));
        let waits = named.filter(|&key| {
            let intake = self.post.intakes.lookup(key);
            intake.is_some_and(|at| at.state == IntakeState::Waiting && !at.connects)
        });
        if let Some(key) = waits {
            self.bind_intake(now, link, key);
            self.rearm_intake(key);
        }
    }

    /// Whether large messages come in on `link`.
    pub(super) fn takes_large(&self, link: LinkId) -> bool {
        !self.post.intakes.is_empty() && self.post.intakes.on(link).is_some()
    }

    fn bind_intake(&mut self, now: Timestamp, link: LinkId, key: Key) {
        if let Some(state) = self.out.lookup_mut(link) {
            // Named so that the link counts as bound; no push has this key and this link.
            state.bound = Some(key);
        }
        self.unwatch(link);
        let idle = self.post.intakes.options.idle;
        let intake = self.post.intakes.lookup_mut(key).expect("just looked up");
        intake.link = Some(link);
        intake.state = IntakeState::Receiving;
        intake.guard = Some(now + idle);
    }

    /// Our connection for a large message is up: an empty SEND binds it (MSRP-17).
    pub(super) fn large_connected(&mut self, now: Timestamp, token: u64, link: LinkId) {
        let key = key_of_token(token);
        let waits = self
            .post
            .intakes
            .lookup(key)
            .is_some_and(|intake| intake.connects && intake.state == IntakeState::Waiting);
        if !waits {
            return self.out.close(link);
        }
        self.bind_intake(now, link, key);
        let session = self.env.token(TokenKind::LargeSession, key, 0);
        let tid = self.env.token(TokenKind::LargeSession, key, 1);
        let intake = self.post.intakes.lookup(key).expect("just bound");
        let fields = BindFields {
            tid: tid.as_bytes(),
            to_path: &intake.path,
            from_path: OurPath {
                prefix: &self.env.msrp_prefix,
                session: session.as_bytes(),
                suffix: b";tcp",
            },
            message_id: &tid.as_bytes()[..16],
        };
        let to = self.here(link);
        self.out.send(to, |out| frame::encode_bind(&fields, out));
        self.rearm_intake(key);
    }

    /// That connection could not be made.
    pub(super) fn large_connect_failed(&mut self, now: Timestamp, token: u64) {
        let key = key_of_token(token);
        if self.post.intakes.lookup(key).is_some() {
            self.end_intake(now, key, "SIP ;cause=408 ;text=\"no connection\"");
        }
    }

    /// The connection of a session is gone; true if there was one.
    pub(super) fn large_lost(&mut self, now: Timestamp, link: LinkId) -> bool {
        if self.post.intakes.is_empty() {
            return false;
        }
        let Some(key) = self.post.intakes.on(link) else {
            return false;
        };
        let intake = self.post.intakes.lookup_mut(key).expect("just found");
        intake.link = None;
        if intake.message.is_none() {
            // The sender is through; its BYE follows, or its silence ends the session.
            return true;
        }
        self.end_intake(now, key, "SIP ;cause=410 ;text=\"connection lost\"");
        true
    }

    fn here(&self, link: LinkId) -> Destination {
        Destination {
            shard: self.env.shard,
            link,
            address: None,
        }
    }

    /// A chunk with a body.
    fn take_chunk(&mut self, now: Timestamp, key: Key, frame: &Frame<'_>) -> u16 {
        let content_type = frame.content_type.unwrap_or_default();
        if !cpim::is_type(content_type, b"message/cpim") {
            return 415;
        }
        if self.post.is_space_low() {
            // The room that is left is for marks.
            self.abandon_coming(now, key);
            return 413;
        }
        let intake = self.post.intakes.lookup_mut(key).expect("just looked up");
        let id = frame.message_id.unwrap_or_default();
        let known = |message: &Incoming| message.message_id == id;
        if intake.closing.iter().any(known) {
            return 200;
        }
        if !intake.message.as_ref().is_some_and(known) {
            if intake.closing.len() >= CLOSING_MAX {
                return 413;
            }
            self.abandon_coming(now, key);
            let intake = self.post.intakes.lookup_mut(key).expect("still there");
            intake.message = Some(Incoming::new(frame));
        }
        let intake = self.post.intakes.lookup_mut(key).expect("still there");
        let limit = intake.limit;
        let message = intake.message.as_mut().expect("just made");
        let status = match message.add(frame, limit) {
            Chunk::Taken => self.move_on(now, key),
            Chunk::Aborted => Err(200),
            Chunk::Refused(status) => Err(status),
        };
        match status {
            Ok(()) => 200,
            Err(status) => {
                self.abandon_coming(now, key);
                status
            }
        }
    }

    /// Does with the octets that came what can be done with them.
    fn move_on(&mut self, now: Timestamp, key: Key) -> Result<(), u16> {
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        let message = intake.message.as_ref().expect("a chunk was taken");
        if message.stage == Stage::Head {
            self.read_head(now, key)?;
        }
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        let mut message = intake.message.take().expect("a chunk was taken");
        if message.stage == Stage::Storing && !message.fits() {
            intake.message = Some(message);
            return Err(413);
        }
        message.cut(key, &mut self.post);
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        if !message.complete {
            intake.message = Some(message);
            return Ok(());
        }
        if message.stage == Stage::Repeat {
            intake.repeat = Some(message);
            return Ok(());
        }
        intake.closing.push_back(message);
        self.close_messages(now, key);
        Ok(())
    }

    /// Gives the message its place once its header sections are here.
    fn read_head(&mut self, now: Timestamp, key: Key) -> Result<(), u16> {
        let mut table = crate::shard::frames::spare_table();
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        let invite = core::mem::take(&mut intake.invite);
        let mut message = intake.message.take().expect("a chunk was taken");
        let limit = intake.limit;
        let parsed = parser::parse(&invite, &mut table).expect("it was parsed when it came");
        let result = match message.read_head(&identifiers(&parsed), &self.post.options.imdn_route) {
            Head::Missing => Ok(()),
            Head::Refused(status) => Err(status),
            Head::Found => self.admit_large(now, &parsed, &mut message, limit),
        };
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        intake.invite = invite;
        intake.message = Some(message);
        result
    }

    fn admit_large(
        &mut self,
        now: Timestamp,
        invite: &Message<'_>,
        message: &mut Incoming,
        limit: u64,
    ) -> Result<(), u16> {
        let user = self.served_user(invite.request_uri()).ok_or(403u16)?;
        let wall = self.desk.wall.at(now);
        let number = self.post.take_number(wall, false);
        let head = core::mem::take(&mut message.head);
        let mut lines = Vec::new();
        let entry = self.registry.entry_mut(user).expect("just found");
        if entry.user.identity.is_empty() {
            let identity = intake::identity_of(invite.request_uri());
            entry.user.identity.extend_from_slice(identity);
        }
        let pushes = entry.extra.pushes;
        let maker = Maker {
            user: &entry.user.canonical,
            options: &self.post.options,
            invite,
            wall,
        };
        let deposit = maker.deposit((number, &head, b""), &mut lines);
        let keys = self.post.dedupe_keys;
        let new = deposit.map(|deposit| NewEntry {
            number,
            dedupe: deposit.dedupe(keys),
            expires_s: u32::try_from(deposit.expires.as_secs()).unwrap_or(u32::MAX),
            bytes: u32::try_from(message.expected(limit)).unwrap_or(u32::MAX),
            target: deposit.target_instance,
            pushes,
            flags: deposit.flags,
            hints: Hints::of(deposit.content_type, deposit.conversation_id),
        });
        let now_s = u32::try_from(wall.as_secs()).unwrap_or(u32::MAX);
        let quota = self.post.options.quota;
        let mailbox = self.post.mailbox(user.slot);
        let admission = new.map(|new| mailbox.admit(&quota, now_s, &new));
        message.head = head;
        let result = match admission {
            None => Err(400),
            Some(Admission::Full) => Err(413),
            Some(Admission::Accepted) => {
                message.stage = Stage::Storing;
                (message.user, message.number) = (Some(user), Some(number));
                Ok(())
            }
            // It is here, or was: taken as if it were new, and told so.
            Some(repeat @ (Admission::Repeat { .. } | Admission::RepeatOfRemoved)) => {
                message.unsure = matches!(repeat, Admission::Repeat { durable: false, .. });
                self.probe.deposits_duplicate_total += 1;
                message.stage = Stage::Repeat;
                message.buffer = Vec::new();
                Ok(())
            }
        };
        self.rearm_user(user);
        result
    }

    /// Appends the deposits of messages all of whose parts are durable, oldest first.
    fn close_messages(&mut self, now: Timestamp, key: Key) {
        let mut at = 0;
        loop {
            let intake = self.post.intakes.lookup(key).expect("a live session");
            let Some(message) = intake.closing.get(at) else {
                return;
            };
            let whole = message.pending == 0 && !message.closed;
            if whole && !self.close_message(now, key, at) {
                let intake = self.post.intakes.lookup_mut(key).expect("a live session");
                let message = intake.closing.remove(at).expect("just seen");
                self.give_up(now, message);
                continue;
            }
            at += 1;
        }
    }

    /// False when the deposit cannot be written.
    fn close_message(&mut self, now: Timestamp, key: Key, at: usize) -> bool {
        let wall = self.desk.wall.at(now);
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        let invite = core::mem::take(&mut intake.invite);
        let mut message = core::mem::take(&mut intake.closing[at]);
        let mut table = crate::shard::frames::spare_table();
        let parsed = parser::parse(&invite, &mut table).expect("it was parsed when it came");
        let (user, number) = message.user.zip(message.number).expect("it was admitted");
        let mut list = Vec::new();
        write_manifest(message.stored, &message.head, &message.places, &mut list);
        let mut lines = Vec::new();
        let mut record = Vec::new();
        let written = self.registry.entry(user).is_some_and(|entry| {
            let maker = Maker {
                user: &entry.user.canonical,
                options: &self.post.options,
                invite: &parsed,
                wall,
            };
            let deposit = maker.deposit((number, &message.head, &list), &mut lines);
            deposit.is_some_and(|deposit| encode_deposit(&deposit, &mut record).is_ok())
        });
        if written {
            let bytes = u32::try_from(message.stored).unwrap_or(u32::MAX);
            self.post.mailbox(user.slot).resize(number, bytes);
            let places = core::mem::take(&mut message.places);
            self.post.parts.insert(number, places.into());
            self.post.cache.insert(number, &record);
            self.post.append_closing(key, user, number, &record);
            message.closed = true;
            for reply in message.waiting.drain(..) {
                self.post.reply_after_all(reply);
            }
        }
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        intake.invite = invite;
        intake.closing[at] = message;
        written
    }

    /// A part is durable at `location`, or its store has failed.
    pub(super) fn part_stored(
        &mut self,
        now: Timestamp,
        (key, number): (Key, u64),
        location: Option<Location>,
    ) {
        let message = self
            .post
            .intakes
            .lookup_mut(key)
            .and_then(|intake| intake.message_mut(number));
        match (message, location) {
            (Some(message), Some(location)) => {
                message.pending -= 1;
                message.places.push(location);
                self.post.segments.deposit(location);
                self.close_messages(now, key);
                self.hold_or_release(key);
            }
            (None, Some(location)) => {
                // Its session ended meanwhile: written for nothing.
                self.post.segments.deposit(location);
                self.post.segments.dead(location);
            }
            (Some(_), None) => {
                self.end_intake(now, key, "SIP ;cause=503 ;text=\"store\"");
            }
            (None, None) => {}
        }
    }

    /// The deposit of a series of parts is durable at `location`, or its store has failed.
    pub(super) fn large_stored(
        &mut self,
        now: Timestamp,
        (key, user, number): (Key, Key, u64),
        location: Option<Location>,
    ) {
        let Some(location) = location else {
            self.post.mailbox(user.slot).cancel(number);
            self.post.parts.remove(number);
            self.post.cache.remove(number);
            if self.post.intakes.lookup(key).is_some() {
                self.end_intake(now, key, "SIP ;cause=503 ;text=\"store\"");
            }
            return;
        };
        if self.post.mailbox(user.slot).stored(number, location) {
            self.post.queue.arrived(number);
        }
        self.post.ledger.deposited += 1;
        self.post.segments.deposit(location);
        self.probe.deposits_total += 1;
        self.probe.large_messages_total += 1;
        if let Some(intake) = self.post.intakes.lookup_mut(key)
            && let Some(at) = intake
                .closing
                .iter()
                .position(|message| message.number == Some(number))
        {
            let message = intake.closing.remove(at).expect("just found");
            self.report(key, &message);
        }
        self.drop_if_through(now, key);
        self.tell_stored(now, user, number);
        self.deposited(now, now, user);
    }

    /// The last chunk of a repeat is answered: its sender is told what became of the first.
    pub(super) fn report_repeat(&mut self, key: Key) {
        let intake = self.post.intakes.lookup_mut(key);
        if let Some(message) = intake.and_then(|intake| intake.repeat.take()) {
            self.report(key, &message);
        }
    }

    /// The success REPORT of a message, if its sender wants one.
    fn report(&mut self, key: Key, message: &Incoming) {
        let Some(intake) = self.post.intakes.lookup(key) else {
            return;
        };
        let Some(link) = intake
            .link
            .filter(|_| message.success_report && !message.unsure)
        else {
            return;
        };
        let session = self.env.token(TokenKind::LargeSession, key, 0);
        let tid = self.server_tag();
        let fields = ReportFields {
            tid: tid.as_bytes(),
            to_path: &message.from_path,
            from_path: OurPath {
                prefix: &self.env.msrp_prefix,
                session: session.as_bytes(),
                suffix: b";tcp",
            },
            message_id: &message.message_id,
            range: whole_range(message.received),
            status: 200,
        };
        let to = self.here(link);
        self.out.send(to, |out| frame::encode_report(&fields, out));
    }

    /// Stops reading from a session's connection while the store is behind with its parts.
    fn hold_or_release(&mut self, key: Key) {
        let Some(intake) = self.post.intakes.lookup_mut(key) else {
            return;
        };
        let pending = intake.parts_pending();
        let held = if intake.held {
            pending * 2 > PARTS_AHEAD
        } else {
            pending >= PARTS_AHEAD
        };
        if held != intake.held {
            intake.held = held;
            if held {
                self.probe.large_held_total += 1;
            }
            if let Some(link) = intake.link {
                self.out.hold(link, held);
            }
        }
    }

    /// Drops the message that is coming, with what is stored of it.
    fn abandon_coming(&mut self, now: Timestamp, key: Key) {
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        if let Some(message) = intake.message.take() {
            self.give_up(now, message);
        }
    }

    /// Gives back what a message took that will not come whole. One whose deposit is being written
    /// stays: it is whole.
    fn give_up(&mut self, now: Timestamp, message: Incoming) {
        if message.closed {
            return;
        }
        for reply in message.waiting {
            self.refuse_repeat(now, reply);
        }
        for place in message.places {
            self.post.segments.dead(place);
        }
        if message.stage == Stage::Storing {
            self.probe.large_abandoned_total += 1;
        }
        if let (Some(user), Some(number)) = (message.user, message.number) {
            self.post.mailbox(user.slot).cancel(number);
            self.rearm_user(user);
        }
    }

    /// The sender ended the session. What came whole is still made a message.
    pub(super) fn ended_by_sender(&mut self, now: Timestamp, key: Key) {
        self.abandon_coming(now, key);
        let idle = self.post.intakes.options.idle;
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        if intake.closing.is_empty() {
            return self.drop_intake(now, key);
        }
        intake.state = IntakeState::Ending;
        intake.server = None;
        intake.guard = Some(now + idle);
        if let Some(link) = intake.link.take() {
            self.out.close(link);
        }
        self.rearm_intake(key);
    }

    /// A session that waited only for the records of its messages is over with the last one.
    fn drop_if_through(&mut self, now: Timestamp, key: Key) {
        let through = self.post.intakes.lookup(key).is_some_and(|intake| {
            let ended = intake.state == IntakeState::Ending && intake.bye.is_none();
            ended && intake.closing.is_empty()
        });
        if through {
            self.drop_intake(now, key);
        }
    }

    /// The peer ended the session, or nothing is left of it.
    pub(super) fn drop_intake(&mut self, now: Timestamp, key: Key) {
        self.abandon_coming(now, key);
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        let closing = core::mem::take(&mut intake.closing);
        let (link, armed) = (intake.link.take(), intake.armed.take());
        for message in closing {
            self.give_up(now, message);
        }
        if let Some((id, _)) = armed {
            self.wheel.disarm(id);
        }
        if let Some(link) = link {
            self.out.close(link);
        }
        self.post.intakes.remove(key);
    }

    /// Ends the session from our side: BYE, and the slot is free once that is answered or given up.
    pub(super) fn end_intake(&mut self, now: Timestamp, key: Key, reason: &str) {
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        if intake.state == IntakeState::Ending {
            return;
        }
        self.abandon_coming(now, key);
        let intake = self.post.intakes.lookup_mut(key).expect("a live session");
        intake.state = IntakeState::Ending;
        intake.server = None;
        let closing = core::mem::take(&mut intake.closing);
        let link = intake.link.take();
        for message in closing {
            self.give_up(now, message);
        }
        if let Some(link) = link {
            self.out.close(link);
        }
        self.send_large_bye(now, key, reason);
        self.rearm_intake(key);
    }
}
