//! Phones that answer whoever calls, and the book of their calls.

use ahash::AHashMap;
use serde::Serialize;

use super::wire::{LineId, Lines};
use crate::check::Hasher;
use crate::identity::put_fixed;
use crate::scan::{Header, Message, Method};

const INVITE: u8 = 1;
const ACK: u8 = 2;
const BYE: u8 = 4;

/// What came, one count for each call, whatever was repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Calls by an INVITE of a Call-ID not open.
    pub(super) invites: u64,
    /// Calls that were acknowledged.
    pub(super) acks: u64,
    /// Calls that were ended.
    pub(super) byes: u64,
    /// Calls with all three.
    pub(super) completed: u64,
    /// Requests that came once more.
    pub(super) repeats: u64,
    /// ACK and BYE of no open call, and anything else.
    pub(super) strays: u64,
}

impl Counts {
    /// What came since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            invites: self.invites - earlier.invites,
            acks: self.acks - earlier.acks,
            byes: self.byes - earlier.byes,
            completed: self.completed - earlier.completed,
            repeats: self.repeats - earlier.repeats,
            strays: self.strays - earlier.strays,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Call {
    seen: u8,
    serial: u32,
    /// Whom it was for, for whoever started it; unused otherwise.
    user: u32,
}

/// The answering side of every call: INVITE is answered 100 and 200, with media port 0, BYE 200.
#[derive(Debug)]
pub(super) struct Phones {
    hasher: Hasher,
    open: AHashMap<u64, Call>,
    serial: u32,
    /// From Contact to the end of the 200 to an INVITE.
    answer: Vec<u8>,
    /// What came so far.
    pub(super) counts: Counts,
}

impl Phones {
    /// Phones behind `host`, an address and port, and a transport parameter.
    pub(super) fn new(host: &str, param: &str) -> Self {
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=message 0 TCP/MSRP *\r\na=path:msrp://127.0.0.1:2855/p0;tcp\r\n\
                   a=accept-types:message/cpim\r\na=setup:active\r\na=recvonly\r\n";
        let answer = format!(
            "Contact: <sip:answer@{host};transport={param}>\r\n\
             Allow: INVITE, ACK, CANCEL, BYE, UPDATE\r\nContent-Type: application/sdp\r\n\
             Content-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        Self {
            hasher: Hasher::default(),
            open: AHashMap::with_capacity(1 << 16),
            serial: 0,
            answer: answer.into_bytes(),
            counts: Counts::default(),
        }
    }

    /// Calls that wait for something.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    fn key(&self, message: &Message<'_>) -> u64 {
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        self.hasher.hash(1, call_id)
    }

    /// An INVITE for `user`.
    pub(super) fn invite(
        &mut self,
        line: LineId,
        message: &Message<'_>,
        user: u32,
        lines: &mut Lines,
    ) {
        let key = self.key(message);
        let serial = match self.open.get(&key) {
            Some(call) => {
                self.counts.repeats += 1;
                call.serial
            }
            None => {
                self.counts.invites += 1;
                self.serial += 1;
                let serial = self.serial;
                let seen = INVITE;
                self.open.insert(key, Call { seen, serial, user });
                let out = lines.buffer(line);
                put_head(out, message, b"100 Trying", None);
                out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
                lines.end(line);
                serial
            }
        };
        let out = lines.buffer(line);
        put_head(out, message, b"200 OK", Some((b"an", serial)));
        out.extend_from_slice(&self.answer);
        lines.end(line);
    }

    /// An ACK or a BYE; whom the call was for, if it is over with this.
    pub(super) fn in_dialog(
        &mut self,
        line: LineId,
        message: &Message<'_>,
        lines: &mut Lines,
    ) -> Option<u32> {
        let bit = if message.method == Method::Bye {
            let out = lines.buffer(line);
            put_head(out, message, b"200 OK", None);
            out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
            lines.end(line);
            BYE
        } else {
            ACK
        };
        let key = self.key(message);
        let Some(call) = self.open.get_mut(&key) else {
            self.counts.strays += 1;
            return None;
        };
        if call.seen & bit != 0 {
            self.counts.repeats += 1;
            return None;
        }
        call.seen |= bit;
        if bit == ACK {
            self.counts.acks += 1;
        } else {
            self.counts.byes += 1;
        }
        if call.seen != INVITE | ACK | BYE {
            return None;
        }
        let user = call.user;
        self.open.remove(&key);
        self.counts.completed += 1;
        Some(user)
    }
}

/// The head of a response up to CSeq; the tag is letters and a number.
pub(super) fn put_head(
    out: &mut Vec<u8>,
    message: &Message<'_>,
    status: &[u8],
    tag: Option<(&[u8], u32)>,
) {
    let value = |header| message.value(header).unwrap_or(&[]);
    out.extend_from_slice(b"SIP/2.0 ");
    out.extend_from_slice(status);
    for via in message.values(Header::Via) {
        out.extend_from_slice(b"\r\nVia: ");
        out.extend_from_slice(via);
    }
    out.extend_from_slice(b"\r\nFrom: ");
    out.extend_from_slice(value(Header::From));
    out.extend_from_slice(b"\r\nTo: ");
    out.extend_from_slice(value(Header::To));
    if let Some((letters, number)) = tag {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(letters);
        put_fixed(u64::from(number), 8, out);
    }
    out.extend_from_slice(b"\r\nCall-ID: ");
    out.extend_from_slice(value(Header::CallId));
    out.extend_from_slice(b"\r\nCSeq: ");
    out.extend_from_slice(value(Header::CSeq));
    out.extend_from_slice(b"\r\n");
}
