//! From octets to messages: framing of streams, datagrams, and the routing of MSRP frames.

use core::net::SocketAddr;
use core::time::Duration;

use crate::base::limits;
use crate::base::outbox::{Destination, LINK_BACKLOG_BYTES_MAX};
use crate::base::surface::{LinkId, LinkKind, MeshBody, MeshFrame};
use crate::base::time::Timestamp;
use crate::base::token::{TOKEN_LEN, TokenKind};
use crate::metrics::drops::{MsrpRejected, StreamsBroken};
use crate::msrp::frame::{self as msrp_frame, FrameErrorKind, Parsed, Start};
use crate::msrp::inbound::{self, Binding, Verdict};
use crate::msrp::uri as msrp_uri;
use crate::push::delivery;
use crate::push::{Ctx, PushState};
use crate::shard::{Shard, ctx};
use crate::sip::framing::{self, Frame, FrameError};
use crate::sip::message::{HeaderTable, Message};
use crate::sip::parser;
use crate::sip::transaction::server::ServerKey;

/// Octets added at a time to a partial message while its end is looked for.
const FEED_BYTES: usize = 4096;
/// Longest wait for the rest of a SIP message on a stream (BAD-28).
pub(super) const PARTIAL_MAX: Duration = Duration::from_secs(30);

impl Shard {
    pub(super) fn handle_bytes(&mut self, now: Timestamp, link: LinkId, bytes: &[u8]) {
        if self.out.is_closing(link) {
            return;
        }
        let Some(state) = self.out.lookup_mut(link) else {
            return;
        };
        let kind = state.kind;
        if kind == LinkKind::MsrpInbound && state.bound.is_none() {
            // The read that binds it may be long; one after so much must not be needed (MSRP-19).
            if state.unbound_bytes > limits::MSRP_UNBOUND_BYTES_MAX {
                StreamsBroken::Unbound.count(&mut self.probe.drops);
                self.out.close(link);
                return;
            }
            state.unbound_bytes += bytes.len();
        }
        // The common case: nothing left over from the last read, so nothing is copied.
        if state.rx.is_empty() {
            let taken = self.take_frames(now, link, kind, bytes, 0);
            self.keep_rest(now, link, &bytes[taken..]);
            return;
        }
        let mut rx = core::mem::take(&mut state.rx);
        let mut scanned = state.scanned;
        let mut fed = 0;
        // Only the message cut in two is put together in `rx`; what follows it is read in place.
        while fed < bytes.len() {
            let held = rx.len();
            let piece = &bytes[fed..bytes.len().min(fed + FEED_BYTES)];
            rx.extend_from_slice(piece);
            fed += piece.len();
            let taken = self.take_frames(now, link, kind, &rx, scanned);
            if taken < held || taken == 0 {
                rx.drain(..taken);
                scanned = rx.len();
                if taken > 0 {
                    self.partial_moved(now, link);
                }
                continue;
            }
            rx.clear();
            self.give_back(link, rx);
            if self.out.is_closing(link) {
                return;
            }
            let rest = &bytes[fed - piece.len() + (taken - held)..];
            let used = self.take_frames(now, link, kind, rest, 0);
            self.keep_rest(now, link, &rest[used..]);
            return;
        }
        if let Some(state) = self.out.lookup_mut(link) {
            state.scanned = rx.len();
            state.rx = rx;
        }
    }

    fn partial_moved(&mut self, now: Timestamp, link: LinkId) {
        if let Some(state) = self.out.lookup_mut(link) {
            state.partial_since = now;
        }
    }

    /// Returns the emptied buffer of a link whose partial message is complete.
    fn give_back(&mut self, link: LinkId, rx: Vec<u8>) {
        if let Some(state) = self.out.lookup_mut(link) {
            state.partial_since = Timestamp::NEVER;
            state.scanned = 0;
            state.rx = rx;
        }
    }

    fn keep_rest(&mut self, now: Timestamp, link: LinkId, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let Some(state) = self.out.lookup_mut(link) else {
            return;
        };
        state.rx.extend_from_slice(rest);
        state.scanned = rest.len();
        state.partial_since = now;
        // One timer per link, however many messages are cut in two.
        if !core::mem::replace(&mut state.watched, true) {
            self.watch_link(now, link, PARTIAL_MAX);
        }
    }

    /// Handles every whole message at the front of `bytes`; returns the octets used. A stream whose
    /// framing is lost is closed and all its octets count as used.
    fn take_frames(
        &mut self,
        now: Timestamp,
        link: LinkId,
        kind: LinkKind,
        bytes: &[u8],
        scanned: usize,
    ) -> usize {
        let (used, is_broken) = self.take_whole(now, link, kind, bytes, scanned);
        self.go_on(now, None);
        if is_broken {
            StreamsBroken::Framing.count(&mut self.probe.drops);
            self.out.close(link);
        }
        used
    }

    /// As [`Self::take_frames`], but for what follows the last message; true when the framing is lost.
    fn take_whole(
        &mut self,
        now: Timestamp,
        link: LinkId,
        kind: LinkKind,
        bytes: &[u8],
        scanned: usize,
    ) -> (usize, bool) {
        let mut at = 0;
        let mut scanned = scanned;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let step = match kind {
                LinkKind::SipInbound | LinkKind::SipOutbound => {
                    self.take_sip(now, link, kind, rest, scanned)
                }
                LinkKind::MsrpInbound | LinkKind::MsrpOutbound => {
                    self.take_msrp(now, link, rest, scanned)
                }
                LinkKind::SipUdp => Step::Broken,
            };
            scanned = 0;
            match step {
                Step::Used(used) => at += used,
                Step::Wait => return (at, false),
                Step::Broken => return (bytes.len(), true),
            }
        }
        (at, false)
    }

    fn take_sip(
        &mut self,
        now: Timestamp,
        link: LinkId,
        kind: LinkKind,
        bytes: &[u8],
        scanned: usize,
    ) -> Step {
        self.foresee_more();
        let mut table = self.desk.headers.take().unwrap_or_default();
        let recalled = self.desk.familiar.recall(bytes, &mut table);
        if let Some(len) = recalled.filter(|&len| len <= self.options.message_max) {
            self.foresee_next(&bytes[len..]);
            if let Some(origin) = self.origin_of(link, kind) {
                let message = &bytes[..len];
                let parsed = parser::recalled(message, &table);
                self.probe.sip_recalled_total += 1;
                self.act_on(now, &origin, &parsed);
            }
            self.desk.headers = Some(table);
            return Step::Used(len);
        }
        let outlined = parser::outline(bytes, &mut table);
        if let Some(len) = outlined.filter(|&len| len <= self.options.message_max) {
            self.foresee_next(&bytes[len..]);
            if let Some(origin) = self.origin_of(link, kind) {
                let message = &bytes[..len];
                match parser::complete(message, &mut table) {
                    Ok(parsed) => self.learn_and_act_on(now, &origin, &parsed),
                    Err(error) => {
                        self.refuse_malformed(now, &origin, message, error, &mut table);
                    }
                }
            }
            self.desk.headers = Some(table);
            return Step::Used(len);
        }
        self.desk.headers = Some(table);
        let framed = framing::frame(bytes, scanned);
        let longest = self.options.message_max;
        match framed {
            Ok(
                Frame::Message { len: size }
                | Frame::Incomplete {
                    need_at_least: size,
                },
            ) if size > longest => {
                self.refuse_unframed(now, link, bytes, FrameError::MessageTooLong);
                Step::Broken
            }
            Ok(Frame::Message { len }) => {
                if let Some(origin) = self.origin_of(link, kind) {
                    self.handle_sip(now, &origin, &bytes[..len]);
                }
                Step::Used(len)
            }
            Ok(Frame::Ping) => {
                let to = Destination {
                    shard: self.env.shard,
                    link,
                    address: None,
                };
                self.out.send(to, |out| out.extend_from_slice(b"\r\n"));
                Step::Used(4)
            }
            Ok(Frame::Pong { len }) => Step::Used(len),
            Ok(Frame::Incomplete { .. }) => Step::Wait,
            Err(error) => {
                self.refuse_unframed(now, link, bytes, error);
                Step::Broken
            }
        }
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Timestamp,
        link: LinkId,
        source: SocketAddr,
        bytes: &[u8],
    ) {
        if !self.trusts(source.ip()) {
            self.probe.untrusted_total += 1;
            return;
        }
        if bytes
            .iter()
            .all(|&byte| byte == b'\r' || byte == b'\n' || byte == 0)
        {
            return;
        }
        let to = Destination {
            shard: self.env.shard,
            link,
            address: Some(source),
        };
        self.handle_sip(
            now,
            &Origin {
                to,
                kind: LinkKind::SipUdp,
                source,
                transaction: None,
            },
            bytes,
        );
    }

    /// One whole SIP message.
    pub(super) fn handle_sip(&mut self, now: Timestamp, origin: &Origin, bytes: &[u8]) {
        self.foresee_more();
        let mut table = self.desk.headers.take().unwrap_or_default();
        if self.desk.familiar.recall(bytes, &mut table).is_some() {
            self.probe.sip_recalled_total += 1;
            self.act_on(now, origin, &parser::recalled(bytes, &table));
        } else {
            match parser::parse(bytes, &mut table) {
                Ok(parsed) => self.learn_and_act_on(now, origin, &parsed),
                Err(error) => self.refuse_malformed(now, origin, bytes, error, &mut table),
            }
        }
        self.desk.headers = Some(table);
    }

    fn learn_and_act_on(&mut self, now: Timestamp, origin: &Origin, message: &Message<'_>) {
        self.probe.sip_read_total += 1;
        self.desk.familiar.learn(message);
        self.act_on(now, origin, message);
    }

    /// Hands a parsed message to what it is for.
    fn act_on(&mut self, now: Timestamp, origin: &Origin, message: &Message<'_>) {
        if message.is_request() {
            self.handle_request(now, origin, message);
            return;
        }
        match self.token_of(message) {
            Some(parts) if parts.shard != self.env.shard => {
                self.forward(parts.shard, origin, message.bytes());
            }
            parts => self.handle_response(now, origin.to, message, parts),
        }
    }

    /// Where what comes over a stream's link is from; `None` once the link is gone.
    fn origin_of(&self, link: LinkId, kind: LinkKind) -> Option<Origin> {
        let source = self.out.lookup(link)?.peer;
        let to = Destination {
            shard: self.env.shard,
            link,
            address: None,
        };
        Some(Origin {
            to,
            kind,
            source,
            transaction: None,
        })
    }

    /// Passes a message to the shard that owns it.
    pub(super) fn forward(&mut self, shard: u8, origin: &Origin, bytes: &[u8]) {
        if usize::from(shard) >= self.options.shards || origin.to.shard != self.env.shard {
            // Forwarded once already, or to nobody: an identifier that lies.
            self.probe.responses_forged_total += 1;
            return;
        }
        let frame = MeshFrame {
            to: shard,
            from: self.env.shard,
            body: MeshBody::Sip {
                link: origin.to.link,
                kind: origin.kind,
                source: origin.source,
                bytes: bytes.to_vec(),
            },
        };
        self.probe.mesh_sent_total += u64::from(self.out.send_mesh(frame));
    }

    pub(super) fn handle_mesh(&mut self, now: Timestamp, frame: &MeshFrame) {
        match &frame.body {
            MeshBody::Sip {
                link,
                kind,
                source,
                bytes,
            } => {
                let address = (*kind == LinkKind::SipUdp).then_some(*source);
                let to = Destination {
                    shard: frame.from,
                    link: *link,
                    address,
                };
                self.handle_sip(
                    now,
                    &Origin {
                        to,
                        kind: *kind,
                        source: *source,
                        transaction: None,
                    },
                    bytes,
                );
            }
            MeshBody::Send {
                link,
                destination,
                last,
                bytes,
            } => {
                let to = Destination {
                    shard: self.env.shard,
                    link: *link,
                    address: *destination,
                };
                let copy = |out: &mut Vec<u8>| out.extend_from_slice(bytes);
                if *last {
                    self.out.send_last(to, copy);
                } else {
                    self.out.send(to, copy);
                }
            }
        }
    }

    fn take_msrp(&mut self, now: Timestamp, link: LinkId, bytes: &[u8], scanned: usize) -> Step {
        self.foresee_more();
        if let Some((frame, len)) = self.desk.frames.recall(bytes) {
            self.foresee_next(&bytes[len..]);
            self.handle_msrp(now, link, &frame);
            return Step::Used(len);
        }
        match msrp_frame::parse(bytes, scanned) {
            Ok(Parsed::Incomplete) => {
                if bytes.len() > limits::MSRP_HEADER_BYTES_MAX + limits::MSRP_INBOUND_BYTES_MAX {
                    return Step::Broken;
                }
                self.bind_early(now, link, bytes);
                Step::Wait
            }
            Ok(Parsed::Frame { frame, len }) => {
                self.desk.frames.learn(bytes, &frame, len);
                self.foresee_next(&bytes[len..]);
                self.handle_msrp(now, link, &frame);
                Step::Used(len)
            }
            Err(error) if error.kind == FrameErrorKind::BodyTooLong && self.takes_large(link) => {
                self.take_large_frame(now, link, bytes, scanned)
            }
            Err(_) => {
                MsrpRejected::Unreadable.count(&mut self.probe.drops);
                Step::Broken
            }
        }
    }

    /// A chunk of a large message that is longer than what other sessions may send.
    fn take_large_frame(
        &mut self,
        now: Timestamp,
        link: LinkId,
        bytes: &[u8],
        scanned: usize,
    ) -> Step {
        let body_max = limits::MSRP_LARGE_CHUNK_BYTES_MAX;
        match msrp_frame::parse_within(bytes, scanned, body_max) {
            Ok(Parsed::Incomplete) => Step::Wait,
            Ok(Parsed::Frame { frame, len }) => {
                self.handle_msrp(now, link, &frame);
                Step::Used(len)
            }
            Err(_) => {
                MsrpRejected::Unreadable.count(&mut self.probe.drops);
                Step::Broken
            }
        }
    }

    fn handle_msrp(&mut self, now: Timestamp, link: LinkId, frame: &msrp_frame::Frame<'_>) {
        match frame.start {
            Start::Response(status) => self.msrp_response(now, link, frame, status),
            Start::Report => self.msrp_report(now, link, frame),
            Start::Send | Start::Other(_) => self.msrp_request(now, link, frame),
        }
    }

    fn msrp_response(
        &mut self,
        now: Timestamp,
        link: LinkId,
        frame: &msrp_frame::Frame<'_>,
        status: u16,
    ) {
        let parts = self.verify(frame.tid);
        let Some(parts) = parts.filter(|parts| parts.kind == TokenKind::MsrpTransaction) else {
            MsrpRejected::Misplaced.count(&mut self.probe.drops);
            return;
        };
        self.go_on(now, Some(parts.key));
        let Some(push) = self.pushes.lookup_mut(parts.key) else {
            MsrpRejected::Sessionless.count(&mut self.probe.drops);
            return;
        };
        // The path of the answer was checked when it came, so the same text is the same URI.
        let from_peer = frame.from_path == push.media.path
            || msrp_uri::same(
                msrp_uri::first_uri(frame.from_path),
                msrp_uri::first_uri(&push.media.path),
            );
        if push.msrp_link != Some(link) || !from_peer {
            MsrpRejected::Misplaced.count(&mut self.probe.drops);
            return;
        }
        let progress = delivery::handle_response(push, &ctx!(self, now), parts.sequence, status);
        self.after_frame(now, parts.key, progress);
    }

    fn msrp_report(&mut self, now: Timestamp, link: LinkId, frame: &msrp_frame::Frame<'_>) {
        self.probe.msrp_reports_total += 1;
        let Some(key) = self.session_named(frame.to_path) else {
            MsrpRejected::Sessionless.count(&mut self.probe.drops);
            return;
        };
        self.go_on(now, Some(key));
        let Some(push) = self.pushes.lookup_mut(key) else {
            return MsrpRejected::Sessionless.count(&mut self.probe.drops);
        };
        if push.msrp_link != Some(link) {
            MsrpRejected::Misplaced.count(&mut self.probe.drops);
            return;
        }
        let progress = delivery::handle_report(push, &ctx!(self, now), frame);
        self.after_frame(now, key, progress);
    }

    /// The live push whose session the path's last URI names.
    fn session_named(&self, to_path: &[u8]) -> Option<crate::base::slab::Key> {
        // Our URI as we write it, or else any other spelling of it.
        let ours = to_path
            .strip_prefix(&self.env.msrp_prefix[..])
            .and_then(|rest| rest.split_first_chunk::<TOKEN_LEN>())
            .filter(|(_, rest)| *rest == b";tcp");
        let session = match ours {
            Some((session, _)) => session,
            None => msrp_uri::session_id(msrp_uri::first_uri(to_path))?,
        };
        let parts = self.verify(session)?;
        if parts.kind != TokenKind::MsrpSession {
            return None;
        }
        // Only sessions rest.
        let lives = match self.pushes.lookup_warm(parts.key) {
            Some(push) => push.has_session(),
            None => self.pushes.is_cold(parts.key),
        };
        lives.then_some(parts.key)
    }

    fn msrp_request(&mut self, now: Timestamp, link: LinkId, frame: &msrp_frame::Frame<'_>) {
        self.go_on(now, None);
        let Some(key) = self.session_named(frame.to_path) else {
            let large = self.intake_named(frame.to_path);
            let status = large.map_or(481, |key| self.large_request(now, link, key, frame));
            if status >= 300 {
                let reason = large.map_or(MsrpRejected::Sessionless, |_| MsrpRejected::Refused);
                reason.count(&mut self.probe.drops);
            }
            self.msrp_answer(link, frame, status);
            if let Some(key) = large {
                self.report_repeat(key);
            }
            return;
        };
        let push = self.pushes.lookup_mut(key).expect("just looked up");
        let binding = match push.msrp_link {
            Some(bound) if bound == link => Binding::Here,
            Some(_) => Binding::Elsewhere,
            None if push.state == PushState::Binding => {
                delivery::bind(push, &mut ctx!(self, now), link);
                self.unwatch(link);
                Binding::Fresh
            }
            None => Binding::Unknown,
        };
        let verdict = inbound::judge(frame, binding, &self.options.inbound);
        let status = match verdict {
            Verdict::Answer(status) => status,
            Verdict::Collect => self.collect(now, link, key, frame),
            Verdict::Pass => return,
        };
        if status >= 300 {
            let reason = match binding {
                Binding::Elsewhere => MsrpRejected::Misplaced,
                Binding::Unknown => MsrpRejected::Sessionless,
                Binding::Fresh | Binding::Here => MsrpRejected::Refused,
            };
            reason.count(&mut self.probe.drops);
        }
        self.msrp_answer(link, frame, status);
        self.after_bind(now, key);
    }

    /// Answers an MSRP request as far as its Failure-Report wants it (MSRP-21).
    fn msrp_answer(&mut self, link: LinkId, frame: &msrp_frame::Frame<'_>, status: u16) {
        let to = Destination {
            shard: self.env.shard,
            link,
            address: None,
        };
        let wanted = frame.wants_response(status);
        if wanted && self.out.backlog(link) < LINK_BACKLOG_BYTES_MAX / 2 {
            self.out.send(to, |out| {
                let our_path = msrp_uri::first_uri(frame.to_path);
                let comment = msrp_frame::comment(status);
                msrp_frame::encode_response(frame, our_path, status, comment, out);
            });
        }
    }
}

/// What became of the octets at the front of a stream.
enum Step {
    Used(usize),
    Wait,
    Broken,
}

/// Where a message came from, and so where its answers go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The way back.
    pub(super) to: Destination,
    /// What the link is.
    pub(super) kind: LinkKind,
    /// The peer's address.
    pub(super) source: SocketAddr,
    /// The server transaction, over datagrams.
    pub(super) transaction: Option<ServerKey>,
}

impl Origin {
    /// `true` if answers cannot get lost on the way.
    pub(super) const fn is_reliable(&self) -> bool {
        !matches!(self.kind, LinkKind::SipUdp)
    }
}

/// A table for a parse outside the shard's own.
pub(super) fn spare_table() -> Box<HeaderTable> {
    Box::default()
}
