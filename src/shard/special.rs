//! MESSAGEs that are no mail: a sender takes a message back (DLV-7), or a notification passes by on its
//! recorded way (IMDN-2). And the notice that a message is stored (IMDN-5).

use crate::base::octets;
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::cpim;
use crate::imdn::{self, NoticeStatus, Requested};
use crate::push::Ctx;
use crate::push::campaign::Parts;
use crate::push::delivery;
use crate::push::notices::NoticeParts;
use crate::shard::frames::Origin;
use crate::shard::intake::{Refusal, media_type, sender_of};
use crate::shard::requests::Reply;
use crate::shard::{Shard, ctx};
use crate::sip::message::{HeaderName, Message};
use crate::sip::uri;
use crate::store::op::{Deposit, DepositFlags, RemovalReason};
use crate::store::record::{self, Record};

/// Content type of a request to take a message back.
const REVOKE_TYPE: &[u8; 34] = b"application/vnd.gsma.rcsrevoke+xml";
/// Longest Message-ID in such a request, octets.
const REVOKED_ID_BYTES_MAX: usize = 256;

impl Shard {
    /// Handles a MESSAGE that is no mail; `None` leaves it to intake.
    pub(super) fn take_special(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
    ) -> Option<Result<(), Refusal>> {
        if !self.post.options.imdn_route.is_empty() {
            let ours = self.post.options.imdn_route == uri_of(message.request_uri());
            if ours {
                return Some(self.route_notice(now, origin, message));
            }
        }
        if !self.post.options.revoke {
            return None;
        }
        let content_type = message.header(HeaderName::ContentType).unwrap_or_default();
        octets::is_word(media_type(content_type), REVOKE_TYPE)
            .then(|| self.take_back(now, origin, message))
    }

    /// A notification on its way back comes to us by name: goes on to the next on the way.
    fn route_notice(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let content_type = message.header(HeaderName::ContentType).unwrap_or_default();
        let parsed = cpim::parse(message.body()).map_err(|_| Refusal::plain(404))?;
        if !cpim::is_type(content_type, b"message/cpim") || !imdn::is_notice(&parsed) {
            return Err(Refusal::plain(404));
        }
        let route = &self.post.options.imdn_route;
        let (body, to) =
            cpim::take_route(message.body(), &parsed, route).ok_or(Refusal::plain(404))?;
        if uri::parse(to).is_err() {
            return Err(Refusal::plain(404));
        }
        let header = |name| message.header(name).unwrap_or_default();
        let parts = NoticeParts {
            from: sender_of(message),
            to,
            conversation_id: header(HeaderName::ConversationId),
            contribution_id: header(HeaderName::ContributionId),
            content_type: b"message/cpim",
            body: &body,
        };
        let started = self.campaigns.notices.start(&mut ctx!(self, now), &parts);
        let notice = started.ok_or(Refusal::plain(503))?;
        self.rearm_notice(notice);
        self.reply(now, origin, message, &Reply::plain(202));
        Ok(())
    }

    /// A sender takes its message back. 200: it is gone. 410: too late, a device has it or is getting
    /// it. 404: no such message of this sender is here.
    fn take_back(
        &mut self,
        now: Timestamp,
        origin: &Origin,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let id = revoked_id(message.body()).ok_or(Refusal::plain(400))?;
        let user = self
            .served_user(message.request_uri())
            .ok_or(Refusal::plain(404))?;
        let result = self.revoke(now, user, sender_of(message), id);
        if result.is_ok() {
            self.reply(now, origin, message, &Reply::plain(200));
        }
        self.rearm_user(user);
        result
    }

    fn revoke(
        &mut self,
        now: Timestamp,
        key: Key,
        sender: &[u8],
        id: &[u8],
    ) -> Result<(), Refusal> {
        let named = Deposit {
            sender,
            imdn_message_id: id,
            ..Deposit::default()
        };
        let hash = named.dedupe(self.post.dedupe_keys);
        let mailbox = self.post.mailbox(key.slot);
        let entry = mailbox.find_repeated(hash).ok_or(Refusal::plain(404))?;
        let number = entry.number();
        let is_durable = entry.location().is_some();
        if entry.is_delivered() || !is_durable {
            return Err(Refusal::plain(410));
        }
        let entry = self.registry.entry_mut(key).expect("just found");
        let mut pushes = entry.user.devices.iter().filter_map(|at| at.pushing);
        let moving = pushes.any(|push| {
            let push = self.pushes.lookup_warm(push);
            push.is_some_and(|push| delivery::is_sending(push, number))
        });
        if moving {
            return Err(Refusal::plain(410));
        }
        let mut ctx = ctx!(self, now);
        let mut parts = Parts {
            user: &mut entry.user,
            state: &mut entry.extra,
            ctx: &mut ctx,
        };
        self.campaigns
            .purge(&mut parts, key, number, RemovalReason::Purged);
        self.probe.messages_revoked_total += 1;
        Ok(())
    }

    /// A deposit became durable: tells its sender, if it wants to know and we are to say so. At most
    /// once, since nothing brings a deposit here twice.
    pub(super) fn tell_stored(&mut self, now: Timestamp, user: Key, number: u64) {
        if !self.post.options.stored_notices {
            return;
        }
        let is_notice = self
            .post
            .mailbox(user.slot)
            .lookup(number)
            .is_none_or(|entry| entry.flags().contains(DepositFlags::IS_IMDN));
        // Just written, so it is in memory unless very much was.
        let Some(payload) = self.post.cache.lookup(number).filter(|_| !is_notice) else {
            return;
        };
        let wants = matches!(record::decode(payload), Ok(Record::Deposit(deposit))
            if cpim::parse(deposit.head()).is_ok_and(|cpim| Requested::of(&cpim).processing));
        if wants {
            self.send_own_notice(now, number, NoticeStatus::Stored);
        }
    }
}

/// A Request-URI without its parameters.
fn uri_of(request_uri: &[u8]) -> &[u8] {
    let end = octets::find(request_uri, b';').unwrap_or(request_uri.len());
    &request_uri[..end]
}

/// The Message-ID in a request to take a message back: the text of its only such element.
fn revoked_id(body: &[u8]) -> Option<&[u8]> {
    const OPEN: &[u8] = b"<Message-ID>";
    let start = memchr::memmem::find(body, OPEN)? + OPEN.len();
    let rest = &body[start..];
    let len = memchr::memmem::find(rest, b"</Message-ID>")?;
    let id = rest[..len].trim_ascii();
    let plain = id
        .iter()
        .all(|&c| c.is_ascii_graphic() && !matches!(c, b'<' | b'>' | b'&'));
    let once = memchr::memmem::find(&rest[len..], OPEN).is_none();
    (plain && once && (1..=REVOKED_ID_BYTES_MAX).contains(&id.len())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_only_message_id_and_nothing_odd() {
        let id = |text: &str| revoked_id(text.as_bytes()).map(<[u8]>::to_vec);
        let good = "<imRevoke><Message-ID> m1 </Message-ID></imRevoke>";
        assert_eq!(id(good), Some(b"m1".to_vec()));
        for bad in [
            "",
            "<Message-ID></Message-ID>",
            "<Message-ID>a",
            "<Message-ID>a b</Message-ID>",
            "<Message-ID>a&amp;b</Message-ID>",
            "<Message-ID>a</Message-ID><Message-ID>b</Message-ID>",
        ] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
