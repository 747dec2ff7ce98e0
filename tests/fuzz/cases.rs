//! What a fuzz target does with its octets: shared by the targets in `fuzz_targets/` and by the seeded
//! short form in `tests/protocol`. A case panics when a law is broken and returns nothing.

use core::time::Duration;

use volley::base::time::Timestamp;
use volley::msrp;
use volley::msrp::frame::{ByteRange, Parsed};
use volley::msrp::session::{Outcome, Session, SessionOptions};
use volley::reginfo::document::Document;
use volley::sip::framing::{self, Frame};
use volley::sip::header::{NameAddr, Via};
use volley::sip::message::{HeaderName, HeaderTable};
use volley::sip::parser;
use volley::sip::transaction::TransactionOptions;
use volley::sip::transaction::client_invite::{ClientInvite, ClientInviteState, InviteAction};
use volley::{cpim, imdn, sdp, store};

/// A case by its target's name.
pub(crate) type Case = (&'static str, fn(&[u8]));

/// Every case.
pub(crate) const CASES: &[Case] = &[
    ("sip_message", sip_message),
    ("sip_framing", sip_framing),
    ("sip_values", sip_values),
    ("msrp_frame", msrp_frame),
    ("sdp_answer", sdp_answer),
    ("cpim", cpim_message),
    ("imdn", imdn_document),
    ("reginfo", reginfo_document),
    ("store_record", store_record),
    ("invite_transaction", invite_transaction),
    ("msrp_session", msrp_session),
];

/// Parsing and every lookup end without a panic, and say the same twice.
pub(crate) fn sip_message(bytes: &[u8]) {
    let (mut table, mut again) = (HeaderTable::new(), HeaderTable::new());
    let first = parser::parse(bytes, &mut table).map(|message| message.status());
    let second = parser::parse(bytes, &mut again).map(|message| message.status());
    assert_eq!(first.is_ok(), second.is_ok(), "the verdict is a function");
    let Ok(message) = parser::parse(bytes, &mut table) else {
        let _ = parser::salvage(bytes, &mut again);
        return;
    };
    for name in [
        HeaderName::Contact,
        HeaderName::RecordRoute,
        HeaderName::Allow,
    ] {
        for value in message.values(name) {
            assert!(value.len() <= bytes.len(), "a value is a part");
        }
    }
    let _ = (
        message.from().is_ok(),
        message.to().is_ok(),
        message.cseq().is_ok(),
    );
    let _ = (message.via_top().is_ok(), message.contact().is_some());
    let _ = (
        message.session_expires().is_some(),
        message.min_se().is_some(),
    );
    assert!(message.body().len() <= bytes.len(), "the body is a part");
}

/// The first frame of a stream is the same however the stream comes in pieces.
pub(crate) fn sip_framing(bytes: &[u8]) {
    let whole = framing::frame(bytes, 0);
    let mut scanned = 0;
    for end in 1..=bytes.len().min(2048) {
        match framing::frame(&bytes[..end], scanned) {
            Ok(Frame::Incomplete { need_at_least }) => {
                assert!(need_at_least > end, "more is asked for");
                scanned = end;
            }
            Ok(Frame::Message { len }) => {
                assert!(len <= end, "no message beyond what is there");
                assert_eq!(whole, Ok(Frame::Message { len }), "whole or in pieces");
                return;
            }
            // A lone CRLF is a pong until more comes; a ping may follow it.
            Ok(Frame::Ping | Frame::Pong { .. }) | Err(_) => return,
        }
    }
}

/// URIs, name-addrs, Vias.
pub(crate) fn sip_values(bytes: &[u8]) {
    let _ = volley::sip::uri::parse(bytes).is_ok();
    let mut canonical = Vec::new();
    let _ = volley::sip::uri::canonical_identity(bytes, &mut canonical).is_ok();
    let _ = msrp::uri::parse(bytes).is_ok();
    if let Ok(address) = NameAddr::parse(bytes) {
        assert!(address.uri.len() <= bytes.len(), "a URI is a part");
    }
    let _ = Via::parse(bytes).is_ok();
}

/// A frame found in pieces is the frame found at once.
pub(crate) fn msrp_frame(bytes: &[u8]) {
    let length = |parsed: &Parsed<'_>| match parsed {
        Parsed::Incomplete => None,
        Parsed::Frame { len, .. } => Some(*len),
    };
    let whole = msrp::frame::parse(bytes, 0).map(|parsed| length(&parsed));
    let mut scanned = 0;
    for end in 1..=bytes.len().min(2048) {
        match msrp::frame::parse(&bytes[..end], scanned).map(|parsed| length(&parsed)) {
            Ok(None) => scanned = end,
            Ok(Some(len)) => {
                assert!(len <= end, "no frame beyond what is there");
                assert_eq!(whole, Ok(Some(len)), "whole or in pieces");
                return;
            }
            Err(_) => return,
        }
    }
}

/// An answer is judged, whatever it is.
pub(crate) fn sdp_answer(bytes: &[u8]) {
    let _ = sdp::judge_answer(bytes, Some(b"application/sdp")).is_ok();
}

/// A CPIM message, and the content it gives.
pub(crate) fn cpim_message(bytes: &[u8]) {
    if let Ok(message) = cpim::parse(bytes) {
        assert!(message.content().len() <= bytes.len(), "content is a part");
        let _ = imdn::is_notice(&message);
        for header in message.headers() {
            let mut text = Vec::new();
            cpim::unescape(header.value, &mut text);
            assert!(text.len() <= header.value.len(), "escapes shrink");
        }
    }
}

/// An IMDN document.
pub(crate) fn imdn_document(bytes: &[u8]) {
    let _ = imdn::extract(b"message/imdn+xml", bytes).is_some();
}

/// A document reads the same into a new store and over the remains of another.
pub(crate) fn reginfo_document(bytes: &[u8]) {
    let mut document = Document::new();
    let first = document.parse(bytes);
    assert_eq!(
        document.parse(bytes),
        first,
        "nothing of the last parse stays"
    );
}

/// What decodes came from somewhere; what does not is refused.
pub(crate) fn store_record(bytes: &[u8]) {
    let _ = store::record::decode(bytes).is_ok();
    if let Some((content_type, content)) = store::record::content_of(bytes) {
        assert!(
            content_type.len() + content.len() <= bytes.len(),
            "both are parts"
        );
    }
}

/// Operations of two octets each on one INVITE transaction; its own checks run after each.
pub(crate) fn invite_transaction(bytes: &[u8]) {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let options = TransactionOptions {
        reliable: first & 1 == 1,
        ..TransactionOptions::default()
    };
    let mut now = Timestamp::ZERO;
    let mut machine = ClientInvite::start(now, &options);
    let (mut cancels, mut finals) = (0, 0);
    for pair in rest.chunks_exact(2) {
        let was = machine.state();
        let action = match pair[0] % 5 {
            0 => {
                now = now + Duration::from_millis(u64::from(pair[1]) * 40);
                machine.handle_timeout(now)
            }
            1 => {
                if !machine.deadline().is_never() {
                    now = now.max(machine.deadline());
                }
                machine.handle_timeout(now)
            }
            2 => machine.handle_response(now, u16::from(pair[1]) * 3),
            3 => {
                use volley::sip::transaction::client_invite::CancelAction;
                cancels += u32::from(machine.cancel(now) == CancelAction::Send);
                InviteAction::Nothing
            }
            _ => machine.handle_transport_error(),
        };
        cancels += u32::from(matches!(action, InviteAction::Cancel(_)));
        finals += u32::from(matches!(action, InviteAction::Failed(_)));
        if was == ClientInviteState::Terminated {
            assert_eq!(action, InviteAction::Nothing, "it is over");
            assert_eq!(machine.state(), was, "it stays over");
        }
        assert!(cancels <= 1, "one CANCEL");
        assert!(finals <= 1, "one failure");
    }
}

/// Operations of three octets each on one MSRP session: a message ends once, and is delivered only
/// when octets of it were sent.
pub(crate) fn msrp_session(bytes: &[u8]) {
    let mut session = Session::default();
    session.reset(&SessionOptions::default());
    let mut now = Timestamp::ZERO;
    let (mut next, mut sequences) = (0_u32, Vec::new());
    // Per handle: octets sent, size, ended.
    let mut messages: Vec<(u64, u64, bool)> = Vec::new();
    for op in bytes.chunks_exact(3) {
        let (a, b) = (op[1], op[2]);
        let outcome = match op[0] % 7 {
            0 if session.can_start() => {
                let total = u64::from(a) * 400;
                session.start_message(next, total);
                messages.push((0, total, false));
                next += 1;
                Outcome::None
            }
            1 => {
                if let Some(chunk) = session.poll_chunk(now) {
                    let at = usize::try_from(chunk.handle).expect("small");
                    assert_eq!(chunk.start, messages[at].0 + 1, "chunks follow each other");
                    messages[at].0 += u64::from(chunk.len);
                    assert!(
                        messages[at].0 <= messages[at].1,
                        "no octet beyond the message"
                    );
                    assert!(!messages[at].2, "no chunk of what has ended");
                    sequences.push(chunk.sequence);
                }
                Outcome::None
            }
            2 => {
                session.handle_sent(now);
                Outcome::None
            }
            3 if !sequences.is_empty() => {
                let sequence = sequences[usize::from(a) % sequences.len()];
                let status = [200, 200, 200, 400, 403, 413, 415, 481, 506][usize::from(b) % 9];
                session.handle_response(now, sequence, status)
            }
            4 => {
                let handle = u32::from(a) % (next + 1);
                let total = messages.get(handle as usize).map_or(7, |row| row.1);
                let end = total.min(u64::from(b) * 400);
                let range = ByteRange {
                    start: 1,
                    end: Some(end),
                    total: Some(total),
                };
                session.handle_report(now, handle, range, if a == 255 { 413 } else { 200 })
            }
            5 => {
                now = now + Duration::from_millis(u64::from(a) * 200);
                session.handle_timeout(now)
            }
            _ => session.confirm(u32::from(a) % (next + 1)),
        };
        settle(outcome, &mut messages);
    }
}

fn settle(outcome: Outcome, messages: &mut [(u64, u64, bool)]) {
    let handle = match outcome {
        Outcome::None
        | Outcome::Bound
        | Outcome::HopAcked { .. }
        | Outcome::SessionFailed { .. } => return,
        Outcome::Delivered { handle, .. } => {
            let (sent, total, _) = messages[handle as usize];
            assert_eq!(sent, total, "delivered means that all of it was sent");
            handle
        }
        Outcome::MessageRefused { handle, .. }
        | Outcome::MessageFailed { handle, .. }
        | Outcome::Unconfirmed { handle } => handle,
    };
    let ended = &mut messages[handle as usize].2;
    assert!(!*ended, "a message ends once");
    *ended = true;
}
