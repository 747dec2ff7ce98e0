//! Disposition notifications that clients send in their push sessions: taken, counted as evidence
//! and passed on to the senders (IMDN-9, MSRP-21, MSRP-24, MSRP-25); and those of our own about
//! messages whose life ended (IMDN-4, IMDN-6).

use crate::base::outbox::Destination;
use crate::base::slab::Key;
use crate::base::surface::{LinkId, Location};
use crate::base::time::{Timestamp, UnixMillis};
use crate::base::token::{TokenKind, TokenParts};
use crate::cpim;
use crate::imdn::{self, ImdnStatus, NoticeFields, NoticeStatus};
use crate::metrics::drops::NoticesDropped;
use crate::msrp::frame::{self, Frame, OurPath, ReportFields};
use crate::msrp::inbound::{Collected, whole_range};
use crate::push::Ctx;
use crate::push::delivery;
use crate::push::notices::NoticeParts;
use crate::shard::{Shard, ctx, timers};
use crate::sip::message::{Message, Method};
use crate::sip::uri;
use crate::store::op::Deposit;
use crate::store::record::{self, Record};

/// Longest content type passed on, octets.
const TYPE_BYTES_MAX: usize = 128;

impl Shard {
    /// A chunk of a notification, or of something else that may be one. The status to answer with.
    pub(super) fn collect(
        &mut self,
        now: Timestamp,
        link: LinkId,
        key: Key,
        frame: &Frame<'_>,
    ) -> u16 {
        let push = self.pushes.lookup_mut(key).expect("found by its session");
        let mut inbound = core::mem::take(&mut push.inbound);
        let status = match inbound.accept(frame, &self.options.inbound) {
            Collected::More | Collected::Dropped => 200,
            Collected::Refused(status) => status,
            Collected::Complete(bytes) => {
                let content_type = frame.content_type.unwrap_or_default();
                let status = self.take_notice(now, key, content_type, bytes);
                if status == 200 && frame.success_report {
                    self.report_notice(link, key, frame, bytes);
                }
                status
            }
        };
        if let Some(push) = self.pushes.lookup_mut(key) {
            push.inbound = inbound;
        }
        status
    }

    /// A whole message of the client. Only notifications are taken: they go to their sender as they
    /// came. A notification without CPIM names nobody, so it is evidence only.
    fn take_notice(&mut self, now: Timestamp, key: Key, content_type: &[u8], bytes: &[u8]) -> u16 {
        let is_cpim = cpim::is_type(content_type, b"message/cpim");
        let parsed = if is_cpim {
            cpim::parse(bytes).ok()
        } else {
            None
        };
        if is_cpim && parsed.is_none() {
            return 400;
        }
        if parsed.is_some_and(|parsed| !imdn::is_notice(&parsed)) {
            return 403;
        }
        let xml = parsed.map_or(bytes, |parsed| parsed.content());
        let Ok(notice) = imdn::parse(xml) else {
            return 400;
        };
        // Over our place on the recorded way it goes to the next one there (IMDN-2).
        let route = &self.post.options.imdn_route;
        let routed = parsed
            .filter(|_| !route.is_empty())
            .and_then(|parsed| cpim::take_route(bytes, &parsed, route));
        let addressee = parsed
            .and_then(|parsed| parsed.find_core(b"To"))
            .and_then(cpim::address_uri);
        let (passed, to) = match &routed {
            Some((rest, next)) => (&rest[..], Some(*next)),
            None => (bytes, addressee),
        };
        let to = to.filter(|to| uri::parse(to).is_ok() && content_type.len() <= TYPE_BYTES_MAX);
        if let Some(to) = to {
            self.pass_on(now, key, to, content_type, passed);
        }
        if notice.status == ImdnStatus::Delivered {
            self.confirm(now, key, notice.message_id);
        }
        200
    }

    fn pass_on(&mut self, now: Timestamp, key: Key, to: &[u8], content_type: &[u8], body: &[u8]) {
        let user = self.pushes.lookup_mut(key).map(|push| push.user());
        let Some(entry) = user.and_then(|user| self.registry.entry_mut(user)) else {
            return;
        };
        let parts = NoticeParts {
            from: &entry.user.identity,
            to,
            conversation_id: b"",
            contribution_id: b"",
            content_type,
            body,
        };
        let started = self.campaigns.notices.start(&mut ctx!(self, now), &parts);
        match started {
            Some(notice) => self.rearm_notice(notice),
            None => NoticesDropped::UnderWay.count(&mut self.probe.drops),
        }
    }

    /// The message a positive-delivery notification is about is delivered (DLV-2).
    fn confirm(&mut self, now: Timestamp, key: Key, message_id: &[u8]) {
        let push = self.pushes.lookup_mut(key).expect("found by its session");
        let found = push
            .inflight
            .iter()
            .map(|message| message.number)
            .find(|&number| {
                let payload = self.post.cache.lookup(number).map(record::decode);
                matches!(payload, Some(Ok(Record::Deposit(deposit)))
                if deposit.imdn_message_id == message_id)
            });
        let Some(number) = found else { return };
        let step = push.session.confirm(delivery::handle_of(number));
        let progress = delivery::progress(push, step);
        self.after_progress(now, key, progress);
    }

    /// The removal of an expired message is durable: its sender may be told now.
    pub(super) fn owe_notice(&mut self, now: Timestamp, number: u64, of: Location) {
        if !self.post.owe(number, of) {
            NoticesDropped::Owed.count(&mut self.probe.drops);
            self.forget_expired(number, of);
        }
        self.pay_notices(now);
    }

    /// Sends notices of our own while there is room for them.
    fn pay_notices(&mut self, now: Timestamp) {
        while self.campaigns.notices.has_room()
            && let Some((number, of)) = self.post.poll_owed()
        {
            self.send_own_notice(now, number, NoticeStatus::Failed);
            self.forget_expired(number, of);
        }
    }

    /// A record came back that a notice waited for.
    pub(super) fn read_for_notice(&mut self, now: Timestamp, number: u64) {
        if let Some(of) = self.post.take_reading(number) {
            // Unreadable or pushed out again: the notice is lost rather than asked for for ever.
            self.send_own_notice(now, number, NoticeStatus::Failed);
            self.forget_expired(number, of);
            self.pay_notices(now);
        }
    }

    /// The deposit was needed for its notice only.
    fn forget_expired(&mut self, number: u64, of: Location) {
        self.post.cache.remove(number);
        self.post.segments.dead(of);
    }

    /// Tells the sender of message `number` what became of it (IMDN-4, IMDN-5): a CPIM of our own from its
    /// recipient, by the originating route, in the same conversation.
    pub(super) fn send_own_notice(&mut self, now: Timestamp, number: u64, status: NoticeStatus) {
        let id = self.server_tag();
        let mut text = core::mem::take(&mut self.desk.lines);
        text.clear();
        // A copy: sending may need the cache. Ends of messages that owe a notice are rare.
        let payload = self.post.cache.lookup(number).map(<[u8]>::to_vec);
        let record = payload.as_deref().map(record::decode);
        let mut started = Err(NoticesDropped::Record);
        if let Some(Ok(Record::Deposit(deposit))) = record
            && write_own(
                &deposit,
                self.desk.wall.at(now),
                (id.as_bytes(), status),
                &mut text,
            )
        {
            let parts = NoticeParts {
                from: deposit.identity,
                to: deposit.sender,
                conversation_id: deposit.conversation_id,
                contribution_id: id.as_bytes(),
                content_type: b"message/cpim",
                body: &text,
            };
            let notice = self.campaigns.notices.start(&mut ctx!(self, now), &parts);
            started = notice.ok_or(NoticesDropped::UnderWay);
        }
        self.desk.lines = text;
        match started {
            Ok(notice) => {
                match status {
                    NoticeStatus::Stored => self.probe.notices_stored_total += 1,
                    NoticeStatus::Error | NoticeStatus::Failed | NoticeStatus::Forbidden => {
                        self.probe.notices_failed_total += 1;
                    }
                }
                self.rearm_notice(notice);
            }
            Err(reason) => reason.count(&mut self.probe.drops),
        }
    }

    fn report_notice(&mut self, link: LinkId, key: Key, sent: &Frame<'_>, bytes: &[u8]) {
        let session = self.env.token(TokenKind::MsrpSession, key, 0);
        let tid = self.server_tag();
        let fields = ReportFields {
            tid: tid.as_bytes(),
            to_path: sent.from_path,
            from_path: OurPath {
                prefix: &self.env.msrp_prefix,
                session: session.as_bytes(),
                suffix: b";tcp",
            },
            message_id: sent.message_id.unwrap_or_default(),
            range: whole_range(bytes.len() as u64),
            status: 200,
        };
        let to = Destination {
            shard: self.env.shard,
            link,
            address: None,
        };
        self.out.send(to, |out| frame::encode_report(&fields, out));
    }

    /// A response to a MESSAGE of ours.
    pub(super) fn notice_response(
        &mut self,
        now: Timestamp,
        message: &Message<'_>,
        parts: TokenParts,
    ) {
        let ours = message
            .cseq()
            .is_ok_and(|cseq| cseq.method == Method::Message);
        let known = self.campaigns.notices.lookup_mut(parts.key).is_some();
        if !ours || !known {
            self.probe.responses_stray_total += 1;
            return;
        }
        let status = message.status();
        let mut ctx = ctx!(self, now);
        let notices = &mut self.campaigns.notices;
        let done = notices.handle_response(&mut ctx, parts.key, parts.sequence, status);
        self.settle_notice(now, parts.key, done);
    }

    pub(super) fn notice_timer(&mut self, now: Timestamp, key: Key) {
        let Some(notice) = self.campaigns.notices.lookup_mut(key) else {
            return;
        };
        notice.armed = None;
        let due = notice.deadline() <= now;
        let mut ctx = ctx!(self, now);
        let done = due && self.campaigns.notices.handle_timeout(&mut ctx, key);
        self.settle_notice(now, key, done);
    }

    fn settle_notice(&mut self, now: Timestamp, key: Key, done: bool) {
        if !done {
            return self.rearm_notice(key);
        }
        if let Some(notice) = self.campaigns.notices.lookup_mut(key)
            && let Some((id, _)) = notice.armed.take()
        {
            self.wheel.disarm(id);
        }
        self.campaigns.notices.remove(key);
        self.pay_notices(now);
    }

    pub(super) fn rearm_notice(&mut self, key: Key) {
        let Some(notice) = self.campaigns.notices.lookup_mut(key) else {
            return;
        };
        let deadline = notice.deadline();
        match notice.armed {
            Some((_, at)) if at <= deadline => {}
            Some((id, _)) => {
                assert!(
                    self.wheel.rearm(id, deadline),
                    "an armed entry is in the wheel"
                );
                notice.armed = Some((id, deadline));
            }
            None => {
                let id = self
                    .wheel
                    .arm(deadline, timers::notice_timer_key(key))
                    .expect("notices are few");
                notice.armed = Some((id, deadline));
            }
        }
    }
}

/// The text of a notice of ours about `deposit`, as CPIM. False when there is nobody to tell or nothing to
/// name the message by.
fn write_own(
    deposit: &Deposit<'_>,
    now: UnixMillis,
    (id, status): (&[u8], NoticeStatus),
    out: &mut Vec<u8>,
) -> bool {
    let Ok(parsed) = cpim::parse(deposit.head()) else {
        return false;
    };
    if deposit.imdn_message_id.is_empty() || uri::parse(deposit.sender).is_err() {
        return false;
    }
    let mut received = Vec::new();
    let message_datetime = parsed.find_core(b"DateTime").unwrap_or_else(|| {
        cpim::datetime::encode(deposit.received, &mut received);
        &received
    });
    let recipient = parsed.find_core(b"To").and_then(cpim::address_uri);
    let recipient_uri = recipient.unwrap_or(deposit.identity);
    let original = parsed.find_imdn(b"Original-To");
    let original = original.map(|value| cpim::address_uri(value).unwrap_or(value));
    let fields = NoticeFields {
        from: deposit.identity,
        to: deposit.sender,
        now,
        notice_id: id,
        message_id: deposit.imdn_message_id,
        message_datetime,
        recipient_uri,
        original_recipient_uri: original.unwrap_or(recipient_uri),
        status,
    };
    imdn::encode_notice(&fields, out);
    true
}
