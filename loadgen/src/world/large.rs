//! Senders of large messages: an INVITE that announces one, the message by MSRP, the report that it is
//! stored, BYE. The sender waits for the engine's connection.

use memchr::memmem;

use super::World;
use crate::identity::{put_fixed, put_plain, read_digits};
use crate::ledger::Deposit;
use crate::link::LinkId;
use crate::msrp::{Frame, Start, session_id};
use crate::rules::Rule;
use crate::scan::{Header, Message};

/// Octets of a SEND.
const CHUNK: usize = 8192;
/// SENDs of one sender that are not answered.
const WINDOW: u32 = 8;

/// One message on its way to the engine.
#[derive(Debug)]
pub(super) struct Large {
    user: u32,
    class: usize,
    /// Connection of its SIP.
    sip: LinkId,
    /// Connection of its MSRP, once the engine made it.
    media: Option<LinkId>,
    /// To value with the engine's tag.
    to: Vec<u8>,
    /// Contact of the engine.
    target: Vec<u8>,
    /// Path of the engine.
    path: Vec<u8>,
    /// The message.
    cpim: Vec<u8>,
    at: usize,
    unanswered: u32,
    chunks: u32,
}

impl World {
    /// Announces message `number` of `user`.
    pub(super) fn send_large(&mut self, user: u32, class: usize, number: u32, sip: LinkId) {
        let out = self.outbox.buffer(sip);
        self.forms.put_invite(class, user, u64::from(number), out);
        self.request_sent(sip);
        let large = Large {
            user,
            class,
            sip,
            media: None,
            to: Vec::new(),
            target: Vec::new(),
            path: Vec::new(),
            cpim: Vec::new(),
            at: 0,
            unanswered: 0,
            chunks: 0,
        };
        self.larges.insert(number, large);
    }

    /// The engine answers an INVITE of a sender.
    pub(super) fn large_answered(&mut self, message: &Message<'_>, digits: &[u8]) {
        let number = read_digits(digits).and_then(|number| u32::try_from(number).ok());
        let Some(number) = number.filter(|number| self.larges.contains_key(number)) else {
            self.counters.strays += 1;
            return;
        };
        if message.status < 200 {
            return;
        }
        let to = message.value(Header::To).unwrap_or(&[]).to_vec();
        if !self.larges[&number].path.is_empty() {
            // The 2xx came again: so does its ACK.
            return self.large_request(number, b"ACK", b"k", &to, b"");
        }
        if message.status >= 300 {
            self.large_request(number, b"ACK", b"i", &to, b"");
            self.larges.remove(&number);
            return self.deposit_done(u64::from(number), message.status);
        }
        let body = message.body;
        let line = |name: &[u8]| {
            let at = memmem::find(body, name)? + name.len();
            let rest = &body[at..];
            Some(&rest[..memchr::memchr(b'\r', rest)?])
        };
        let contact = message.value(Header::Contact).unwrap_or(&[]);
        let target = memchr::memchr(b'<', contact)
            .zip(memchr::memchr(b'>', contact))
            .map_or(&[][..], |(from, to)| &contact[from + 1..to]);
        let path = line(b"\r\na=path:").unwrap_or(&[]);
        let sound = path.starts_with(b"msrp://")
            && line(b"\r\na=recvonly").is_some()
            && line(b"\r\na=setup:").is_some_and(|setup| setup == b"active")
            && line(b"\r\na=accept-types:").is_some_and(|types| types == b"message/cpim");
        let room = line(b"\r\na=max-size:").and_then(read_digits);
        let large = self.larges.get_mut(&number).expect("looked up above");
        large.path = path.to_vec();
        large.target = target.to_vec();
        large.to.clone_from(&to);
        self.forms
            .put_cpim(large.class, large.user, u64::from(number), &mut large.cpim);
        let fits = room.is_none_or(|room| large.cpim.len() as u64 <= room);
        if !sound || !fits {
            self.violations.record(
                Rule::Int2,
                "an INVITE with a large message is not answered as asked",
                message.bytes,
            );
        }
        self.large_request(number, b"ACK", b"k", &to, b"");
    }

    /// A request of the sender in its dialog.
    fn large_request(&mut self, number: u32, method: &[u8], kind: &[u8], to: &[u8], target: &[u8]) {
        let large = &self.larges[&number];
        let target = if target.is_empty() {
            &large.target
        } else {
            target
        };
        let (user, sip) = (large.user, large.sip);
        let out = self.outbox.buffer(sip);
        self.forms
            .put_in_invite(user, u64::from(number), (method, kind), (target, to), out);
        if method == b"ACK" {
            self.outbox.sent(sip);
            self.outbox.fate(sip);
        } else {
            self.request_sent(sip);
        }
    }

    /// The message whose sender's session a frame is for.
    fn large_of(&self, frame: &Frame<'_>) -> Option<u32> {
        let digits = session_id(frame.to_path)?.strip_prefix(b"l")?;
        let number = u32::try_from(read_digits(digits)?).ok()?;
        self.larges.contains_key(&number).then_some(number)
    }

    /// A frame of the engine for a sender; false when it is for none.
    pub(super) fn large_frame(&mut self, link: LinkId, frame: &Frame<'_>) -> bool {
        let Some(number) = self.large_of(frame) else {
            return false;
        };
        match frame.start {
            Start::Send => {
                self.respond(link, frame, b"200 OK");
                let large = self.larges.get_mut(&number).expect("looked up");
                large.media.get_or_insert(link);
                self.pump_large(number);
            }
            Start::Response(200) => {
                let large = self.larges.get_mut(&number).expect("looked up");
                large.unanswered = large.unanswered.saturating_sub(1);
                self.pump_large(number);
            }
            Start::Response(status) => self.end_large(number, status),
            Start::Report => {
                let good = memmem::find(frame.bytes, b"\r\nStatus: 000 200").is_some();
                self.end_large(number, if good { 202 } else { 408 });
            }
            Start::Other => return false,
        }
        true
    }

    /// Sends what the window has room for.
    fn pump_large(&mut self, number: u32) {
        let listen = self.setup.msrp_listen;
        let large = self.larges.get_mut(&number).expect("looked up");
        let Some(link) = large.media else { return };
        let total = large.cpim.len();
        while large.unanswered < WINDOW && large.at < total {
            let end = (large.at + CHUNK).min(total);
            large.chunks += 1;
            large.unanswered += 1;
            let mut tid = b"lrg".to_vec();
            put_fixed(u64::from(number), 10, &mut tid);
            put_fixed(u64::from(large.chunks), 6, &mut tid);
            let out = self.outbox.buffer(link);
            out.extend_from_slice(b"MSRP ");
            out.extend_from_slice(&tid);
            out.extend_from_slice(b" SEND\r\nTo-Path: ");
            out.extend_from_slice(&large.path);
            out.extend_from_slice(b"\r\nFrom-Path: msrp://");
            out.extend_from_slice(listen.to_string().as_bytes());
            out.extend_from_slice(b"/l");
            put_fixed(u64::from(number), 12, out);
            out.extend_from_slice(b";tcp\r\nMessage-ID: lrg");
            put_fixed(u64::from(number), 12, out);
            out.extend_from_slice(b"\r\nSuccess-Report: yes\r\nByte-Range: ");
            put_plain(large.at as u64 + 1, out);
            out.push(b'-');
            put_plain(end as u64, out);
            out.push(b'/');
            put_plain(total as u64, out);
            out.extend_from_slice(b"\r\nContent-Type: message/cpim\r\n\r\n");
            out.extend_from_slice(&large.cpim[large.at..end]);
            out.extend_from_slice(b"\r\n-------");
            out.extend_from_slice(&tid);
            let flag = if end == total { b'$' } else { b'+' };
            out.extend_from_slice(&[flag, b'\r', b'\n']);
            large.at = end;
            self.outbox.sent(link);
            self.counters.chunks_deposited += 1;
        }
    }

    /// The engine has the message, or will not have it.
    fn end_large(&mut self, number: u32, status: u16) {
        let to = self.larges[&number].to.clone();
        self.large_request(number, b"BYE", b"l", &to, b"");
        self.larges.remove(&number);
        let sent = self.ledger.row(u64::from(number));
        if sent.is_some_and(|row| row.deposit == Deposit::Sent) {
            self.deposit_done(u64::from(number), status);
        }
    }
}
