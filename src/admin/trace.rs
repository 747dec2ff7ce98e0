//! What the flight recorders have, as a capture file: whole messages, each in a packet of its own.
//!
//! Connections are put together again and cut into messages, so that a capture can be narrowed to one
//! user and begins with a whole message. IP and TCP or UDP around them are made up: addresses and ports
//! are the real ones where they are known (our port of a connection that we opened is not), sequence
//! numbers count the octets of the messages shown, checksums are zero.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::admin::ask::Chunk;
use crate::base::surface::LinkKind;
use crate::base::time::{Timestamp, UnixMillis};
use crate::io::listen::ShardAddresses;
use crate::io::recorder::{Event, events};
use crate::sip::framing::{Frame, frame};

/// Octets of a connection that are kept while a message is not whole.
const PARTIAL_MAX: usize = 4 << 20;
/// Octets of a message in one TCP segment.
const SEGMENT_MAX: usize = 32 * 1024;
/// Start of the ports made up for connections that we opened.
const MADE_UP_PORT: u16 = 49_152;

/// A message or frame on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The shard.
    pub shard: u8,
    /// Whose octets; `at` is when the last of them came.
    pub event: Event,
    /// The whole message.
    pub bytes: Vec<u8>,
}

/// What to leave out.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only what is about the user with this number or address: its messages, and all others of the
    /// dialogs and sessions that they name.
    pub user: Option<String>,
    /// Only what is at most this old.
    pub last: Option<Duration>,
}

/// The messages in what was recorded, oldest first.
#[must_use]
pub fn messages(chunks: &[(u8, Chunk)], filter: &Filter) -> Vec<Seen> {
    let mut all: Vec<(u8, Event, Vec<u8>)> = Vec::new();
    for (shard, chunk) in chunks {
        all.extend(events(&chunk.bytes).map(|(event, octets)| (*shard, event, octets)));
    }
    all.sort_by_key(|(_, event, _)| event.at);
    let newest = chunks.iter().map(|(_, chunk)| chunk.now).max();
    let since = match (newest, filter.last) {
        (Some(newest), Some(last)) => newest - last,
        (_, _) => Timestamp::ZERO,
    };
    let mut streams: BTreeMap<(u8, u32, u32, bool), Vec<u8>> = BTreeMap::new();
    let mut seen = Vec::new();
    for (shard, event, octets) in all {
        if event.kind == LinkKind::SipUdp {
            seen.push(Seen {
                shard,
                event,
                bytes: octets,
            });
            continue;
        }
        let link = (
            shard,
            event.link.slot,
            event.link.generation,
            event.outgoing,
        );
        let stream = streams.entry(link).or_default();
        if stream.len() + octets.len() > PARTIAL_MAX {
            stream.clear();
        }
        stream.extend_from_slice(&octets);
        let take = match event.kind {
            LinkKind::MsrpInbound | LinkKind::MsrpOutbound => take_frame,
            LinkKind::SipInbound | LinkKind::SipOutbound | LinkKind::SipUdp => take_message,
        };
        while let Some(bytes) = take(stream) {
            seen.push(Seen {
                shard,
                event,
                bytes,
            });
        }
    }
    seen.retain(|one| one.event.at >= since);
    match &filter.user {
        Some(user) => about(seen, user),
        None => seen,
    }
}

/// Takes the first whole SIP message off a stream. What is none, because the recording begins within
/// one, is passed over.
fn take_message(stream: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if stream.is_empty() {
            return None;
        }
        if !begins_message(stream) && !stream.starts_with(b"\r\n") {
            let next = next_start(stream, begins_message);
            stream.drain(..next.unwrap_or(stream.len()));
            next?;
        }
        match frame(stream, 0) {
            Ok(Frame::Message { len }) => return Some(stream.drain(..len).collect()),
            Ok(Frame::Ping) => drop(stream.drain(..4)),
            Ok(Frame::Pong { len }) => drop(stream.drain(..len)),
            Ok(Frame::Incomplete { .. }) => return None,
            // Not to be read on as messages: as it is, so that it can be seen.
            Err(_) => return Some(core::mem::take(stream)),
        }
    }
}

/// Whether a SIP message may begin here; what is cut off is given the benefit.
fn begins_message(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let whole = line.len() < bytes.len();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let starts = line.first().is_some_and(u8::is_ascii_uppercase);
    line.starts_with(b"SIP/2.0 ") || starts && (!whole || line.ends_with(b" SIP/2.0"))
}

fn next_start(bytes: &[u8], begins: fn(&[u8]) -> bool) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes)
        .map(|at| at + 1)
        .find(|&at| at < bytes.len() && begins(&bytes[at..]))
}

/// The same for MSRP.
fn take_frame(stream: &mut Vec<u8>) -> Option<Vec<u8>> {
    let begins = |bytes: &[u8]| bytes.starts_with(b"MSRP ") || b"MSRP ".starts_with(bytes);
    if !begins(stream) {
        let next = next_start(stream, begins);
        stream.drain(..next.unwrap_or(stream.len()));
        next?;
    }
    let id = stream.get(5..)?.split(|&byte| byte == b' ').next()?;
    let end = [b"\r\n-------", id].concat();
    let at = memchr::memmem::find(stream, &end)? + end.len();
    let line = memchr::memchr(b'\n', &stream[at..])?;
    Some(stream.drain(..=at + line).collect())
}

/// Those about one user, and what belongs to the same dialogs and sessions.
fn about(seen: Vec<Seen>, user: &str) -> Vec<Seen> {
    let name = user.split_once(':').map_or(user, |(_, rest)| rest);
    let name = name.split([';', '?']).next().unwrap_or(name);
    let names = |seen: &Seen| memchr::memmem::find(&seen.bytes, name.as_bytes()).is_some();
    let mut calls = BTreeSet::new();
    let mut sessions = BTreeSet::new();
    for one in seen.iter().filter(|one| names(one)) {
        calls.extend(call_id(&one.bytes));
    }
    for one in &seen {
        if call_id(&one.bytes).is_some_and(|call| calls.contains(&call)) {
            sessions.extend(path_sessions(&one.bytes));
        }
    }
    let mut kept = seen;
    kept.retain(|one| {
        let call = call_id(&one.bytes);
        call.is_some_and(|call| calls.contains(&call))
            || path_sessions(&one.bytes)
                .iter()
                .any(|session| sessions.contains(session))
    });
    kept
}

/// Call-ID of a SIP message.
fn call_id(bytes: &[u8]) -> Option<Vec<u8>> {
    let lines = bytes.split(|&byte| byte == b'\n').skip(1);
    for line in lines.take_while(|line| !matches!(line, [] | [b'\r'])) {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"call-id") || name.eq_ignore_ascii_case(b"i") {
            return Some(value.to_vec());
        }
    }
    None
}

/// Session ids of the MSRP URIs in a message: what stands behind the slash.
fn path_sessions(bytes: &[u8]) -> Vec<Vec<u8>> {
    let found = memchr::memmem::find_iter(bytes, b"msrp://");
    let sessions = found.filter_map(|at| {
        let rest = &bytes[at + 7..];
        let slash = memchr::memchr(b'/', &rest[..rest.len().min(128)])?;
        let id = &rest[slash + 1..];
        let end = id.iter().position(|byte| !byte.is_ascii_alphanumeric());
        Some(id[..end.unwrap_or(id.len())].to_vec())
    });
    sessions.filter(|id| !id.is_empty()).collect()
}

/// A capture file of raw IP packets. `wall` is the wall clock at `now` of the shards' clock.
#[must_use]
pub fn pcap(
    seen: &[Seen],
    addresses: &[ShardAddresses],
    (now, wall): (Timestamp, UnixMillis),
) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 262_144, 101] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let mut next: BTreeMap<(SocketAddr, SocketAddr), u32> = BTreeMap::new();
    for one in seen {
        let ours = local(one, addresses);
        let theirs = one.event.peer;
        let (from, to) = if one.event.outgoing {
            (ours, theirs)
        } else {
            (theirs, ours)
        };
        let age = u64::try_from(now.since(one.event.at).as_micros()).unwrap_or(u64::MAX);
        let micros = wall.0.saturating_mul(1000).saturating_sub(age);
        for piece in one.bytes.chunks(SEGMENT_MAX) {
            let ip = if one.event.kind == LinkKind::SipUdp {
                datagram(from, to, piece)
            } else {
                let acked = next.get(&(to, from)).copied().unwrap_or(1);
                let sequence = next.entry((from, to)).or_insert(1);
                let ip = segment(from, to, (*sequence, acked), piece);
                *sequence = sequence.wrapping_add(small(piece.len()));
                ip
            };
            let length = small(ip.len());
            let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
            for word in [low(seconds), low(rest), length, length] {
                out.extend_from_slice(&word.to_be_bytes());
            }
            out.extend_from_slice(&ip);
        }
    }
    out
}

fn small(length: usize) -> u32 {
    u32::try_from(length).expect("at most a segment")
}

fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked")
}

/// Our end of the link.
fn local(seen: &Seen, addresses: &[ShardAddresses]) -> SocketAddr {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let Some(own) = addresses.iter().find(|own| own.shard == seen.shard) else {
        return nowhere;
    };
    let slot = u16::try_from(seen.event.link.slot % 16_384).expect("a small number");
    let made_up = |address: SocketAddr| SocketAddr::new(address.ip(), MADE_UP_PORT + slot);
    let sip = own.shared_sip_tcp.or(own.sip_tcp).unwrap_or(nowhere);
    match seen.event.kind {
        LinkKind::MsrpInbound => own.msrp,
        LinkKind::MsrpOutbound => made_up(own.msrp),
        LinkKind::SipInbound => sip,
        LinkKind::SipOutbound => made_up(sip),
        LinkKind::SipUdp => own.sip_udp.or(own.shared_sip_udp).unwrap_or(nowhere),
    }
}

fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut udp = Vec::with_capacity(8 + payload.len());
    let length = u16::try_from(8 + payload.len()).expect("a piece is short");
    for half in [from.port(), to.port(), length, 0] {
        udp.extend_from_slice(&half.to_be_bytes());
    }
    udp.extend_from_slice(payload);
    internet(from.ip(), to.ip(), 17, &udp)
}

fn segment(
    from: SocketAddr,
    to: SocketAddr,
    (sequence, acked): (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    /// PSH and ACK, behind a header of five words.
    const FLAGS: u16 = 0x5018;
    let mut tcp = Vec::with_capacity(20 + payload.len());
    for half in [from.port(), to.port()] {
        tcp.extend_from_slice(&half.to_be_bytes());
    }
    for word in [sequence, acked] {
        tcp.extend_from_slice(&word.to_be_bytes());
    }
    for half in [FLAGS, u16::MAX, 0, 0] {
        tcp.extend_from_slice(&half.to_be_bytes());
    }
    tcp.extend_from_slice(payload);
    internet(from.ip(), to.ip(), 6, &tcp)
}

/// An IP packet; IPv6 unless both ends are IPv4.
fn internet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = Vec::with_capacity(40 + payload.len());
    let short = |length: usize| u16::try_from(length).expect("a piece is short");
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) {
        ip.extend_from_slice(&[0x45, 0]);
        ip.extend_from_slice(&short(20 + payload.len()).to_be_bytes());
        ip.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
        ip.extend_from_slice(&from.octets());
        ip.extend_from_slice(&to.octets());
    } else {
        let wide = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        ip.extend_from_slice(&[0x60, 0, 0, 0]);
        ip.extend_from_slice(&short(payload.len()).to_be_bytes());
        ip.extend_from_slice(&[protocol, 64]);
        ip.extend_from_slice(&wide(from));
        ip.extend_from_slice(&wide(to));
    }
    ip.extend_from_slice(payload);
    ip
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::surface::LinkId;
    use crate::io::recorder::Recorder;

    fn event(kind: LinkKind, at: u64, slot: u32, outgoing: bool) -> Event {
        Event {
            at: Timestamp::from_millis(at),
            link: LinkId {
                slot,
                generation: 1,
            },
            kind,
            peer: SocketAddr::from(([192, 0, 2, 7], 5060)),
            outgoing,
        }
    }

    fn message(call: &str, user: &str, body: &str) -> String {
        format!(
            "INVITE sip:{user}@h SIP/2.0\r\nCall-ID: {call}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn chunks(recorder: &Recorder, now: u64) -> Vec<(u8, Chunk)> {
        let (number, bytes) = recorder.read(0).expect("something is recorded");
        let chunk = Chunk {
            number,
            now: Timestamp::from_millis(now),
            bytes: bytes.to_vec(),
        };
        vec![(0, chunk)]
    }

    fn texts(seen: &[Seen]) -> Vec<String> {
        let text = |one: &Seen| String::from_utf8_lossy(&one.bytes).into_owned();
        seen.iter().map(text).collect()
    }

    #[test]
    fn messages_are_whole_however_the_stream_was_cut_and_wherever_recording_began() {
        let (a, b) = (message("a", "+1", "v=0"), message("b", "+2", ""));
        let stream = format!("of a message\r\n\r\nINVITE is a word\r\n{a}\r\n\r\n{b}{a}");
        for cut in 1..stream.len() {
            let mut recorder = Recorder::new(1, false);
            let (first, second) = stream.as_bytes().split_at(cut);
            recorder.record(&event(LinkKind::SipInbound, 1, 0, false), first);
            recorder.record(&event(LinkKind::SipInbound, 2, 0, false), second);
            let seen = messages(&chunks(&recorder, 9), &Filter::default());
            assert_eq!(texts(&seen), [&a[..], &b, &a], "{cut}");
        }
    }

    #[test]
    fn one_user_is_its_messages_and_what_belongs_to_their_dialogs_and_sessions() {
        let mut recorder = Recorder::new(1, false);
        let sip = |slot| event(LinkKind::SipOutbound, 10, slot, true);
        let mine = message("a", "+15551", "a=path:msrp://10.0.0.1:9/s1;tcp\r\n");
        let other = message("b", "+15552", "a=path:msrp://10.0.0.1:9/s2;tcp\r\n");
        recorder.record(&sip(1), format!("{mine}{other}").as_bytes());
        let answer = "SIP/2.0 200 OK\r\ni: a\r\nl: 0\r\n\r\n";
        recorder.record(
            &event(LinkKind::SipOutbound, 11, 1, false),
            answer.as_bytes(),
        );
        let frame =
            |id| format!("MSRP t1 SEND\r\nTo-Path: msrp://10.0.0.1:9/{id};tcp\r\n-------t1$\r\n");
        let frames = format!("{}{}", frame("s1"), frame("s2"));
        recorder.record(
            &event(LinkKind::MsrpInbound, 12, 2, false),
            frames.as_bytes(),
        );
        let filter = Filter {
            user: Some("tel:+15551".to_owned()),
            last: None,
        };
        let seen = messages(&chunks(&recorder, 20), &filter);
        assert_eq!(texts(&seen), [&mine[..], answer, &frame("s1")]);
        let late = Filter {
            user: None,
            last: Some(Duration::from_millis(9)),
        };
        let seen = messages(&chunks(&recorder, 20), &late);
        assert_eq!(seen.len(), 3, "the answer and two frames are not too old");
    }

    #[test]
    fn a_capture_counts_octets_and_tells_real_time() {
        let mut recorder = Recorder::new(1, false);
        let text = message("a", "+1", "");
        for at in [1_000, 2_500] {
            recorder.record(&event(LinkKind::SipInbound, at, 0, false), text.as_bytes());
        }
        recorder.record(&event(LinkKind::SipUdp, 2_600, 1, true), text.as_bytes());
        let seen = messages(&chunks(&recorder, 3_000), &Filter::default());
        let clock = (Timestamp::from_millis(3_000), UnixMillis(1_800_000_000_000));
        let file = pcap(&seen, &[], clock);
        let word = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().expect("four"));
        let length = 40 + text.len();
        let second = 24 + 16 + length;
        assert_eq!(word(24), 1_799_999_998);
        assert_eq!((word(second), word(second + 4)), (1_799_999_999, 500_000));
        assert_eq!(word(second + 8) as usize, length);
        assert_eq!(word(24 + 16 + 24), 1, "the first octet of the stream");
        assert_eq!(word(second + 16 + 24) as usize, 1 + text.len());
        assert_eq!(file[second + 16 + 9], 6);
        let third = second + 16 + length;
        assert_eq!(file[third + 16 + 9], 17);
        assert_eq!(file.len(), third + 16 + 28 + text.len());
    }

    #[test]
    fn octets_that_are_no_messages_make_no_panic_and_lose_nothing_else() {
        let mut recorder = Recorder::new(1, false);
        let bad = "INVITE sip:a@h SIP/2.0\r\nContent-Length: x\r\n\r\n";
        recorder.record(&event(LinkKind::SipInbound, 1, 0, false), bad.as_bytes());
        recorder.record(&event(LinkKind::MsrpInbound, 2, 1, false), b"\r\n\r\nMSR");
        recorder.record(&event(LinkKind::SipInbound, 3, 2, false), &[0xff; 300]);
        let seen = messages(&chunks(&recorder, 9), &Filter::default());
        assert_eq!(texts(&seen), [bad]);
    }
}
