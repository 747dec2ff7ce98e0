//! The flight recorder of a shard: the last octets that went over its sockets, for who looks afterwards.
//!
//! A ring of chunks. Events are appended to the newest, and when that is full the oldest is emptied, so
//! that writing is copying and nothing else. SIP is kept whole; of MSRP the headers and end lines, and of
//! its bodies, which are what people say to each other, only the length. What is not kept is shown as as
//! many dots, so that lengths and sequence numbers stay true.
//!
//! ```text
//! event  40 octets of head, then runs until its end
//! run    u32 octets kept, u32 octets blanked, the octets kept
//! ```

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use memchr::memmem::Finder;

use crate::base::surface::{LinkId, LinkKind};
use crate::base::time::Timestamp;

/// Chunks of a ring; one of them is always being filled.
const CHUNKS: usize = 16;
/// Smallest ring, octets; a smaller wish means this one.
pub const RECORDER_BYTES_MIN: usize = 1 << 20;
/// Longest event: what a turn reads or writes at once is cut into such.
const EVENT_BYTES_MAX: usize = 16 * 1024;
/// Of one buffer, octets that are looked at; the rest is blanked.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Frames of one event whose headers are kept.
const FRAMES_MAX: usize = 64;
/// Longest first line of a frame.
const FIRST_LINE_MAX: usize = 256;
const HEAD: usize = 40;
const RUN: usize = 8;

const _: () = assert!(
    HEAD + (FRAMES_MAX + 1) * RUN + EVENT_BYTES_MAX <= RECORDER_BYTES_MIN / CHUNKS,
    "every event finds room in an empty chunk"
);

/// Whose octets, and which way they went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// The link.
    pub link: LinkId,
    /// What it carries.
    pub kind: LinkKind,
    /// The far end; of a datagram its source or destination.
    pub peer: SocketAddr,
    /// We sent them.
    pub outgoing: bool,
}

/// See the module.
pub struct Recorder {
    chunks: Vec<Vec<u8>>,
    chunk_bytes: usize,
    /// Number of the chunk that is being filled; they count up from the start.
    number: u64,
    /// Its place.
    current: usize,
    bodies: bool,
    end_line: Finder<'static>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held: usize = self.chunks.iter().map(Vec::len).sum();
        f.debug_struct("Recorder").field("held", &held).finish()
    }
}

impl Recorder {
    /// A ring of `bytes` octets, filled as events come; 0 records nothing. With `bodies` those of MSRP
    /// are kept, too.
    #[must_use]
    pub fn new(bytes: usize, bodies: bool) -> Self {
        let (chunks, chunk_bytes) = match bytes {
            0 => (0, 0),
            _ => (CHUNKS, bytes.max(RECORDER_BYTES_MIN) / CHUNKS),
        };
        Self {
            chunks: vec![Vec::new(); chunks],
            chunk_bytes,
            number: 0,
            current: 0,
            bodies,
            end_line: Finder::new(b"\r\n-------"),
        }
    }

    /// Whether anything is recorded.
    #[must_use]
    #[inline]
    pub const fn is_on(&self) -> bool {
        self.chunk_bytes > 0
    }

    /// Keeps what went over the wire.
    #[inline]
    pub fn record(&mut self, event: &Event, octets: &[u8]) {
        if self.is_on() {
            self.keep(event, octets);
        }
    }

    fn keep(&mut self, event: &Event, octets: &[u8]) {
        let is_msrp = matches!(event.kind, LinkKind::MsrpInbound | LinkKind::MsrpOutbound);
        let blanks = is_msrp && !self.bodies;
        let mut head = head_of(event);
        if octets.len() <= EVENT_BYTES_MAX {
            return self.piece(&mut head, (octets, 0), blanks);
        }
        let (seen, rest) = octets.split_at(octets.len().min(BUFFER_BYTES_MAX));
        let mut pieces = seen.chunks(EVENT_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let is_last = pieces.peek().is_none();
            let after = if is_last { rest.len() } else { 0 };
            self.piece(&mut head, (piece, after), blanks);
        }
    }

    /// One event: octets, and how many behind them are blanked.
    fn piece(&mut self, head: &mut [u8; HEAD], (octets, after): (&[u8], usize), blanks: bool) {
        let runs = if blanks { FRAMES_MAX + 1 } else { 1 };
        let most = HEAD + runs * RUN + octets.len();
        if self.room() < most {
            self.turn_over();
        }
        let chunk = &mut self.chunks[self.current];
        let start = chunk.len();
        if !blanks {
            head[..4].copy_from_slice(&number(most));
            chunk.extend_from_slice(head);
            return run(chunk, octets, after);
        }
        chunk.extend_from_slice(head);
        keep_heads(chunk, (octets, after), &self.end_line);
        let length = number(chunk.len() - start);
        chunk[start..start + 4].copy_from_slice(&length);
    }

    fn room(&self) -> usize {
        let chunk = &self.chunks[self.current];
        // Its memory comes with its first event.
        chunk.capacity().min(self.chunk_bytes) - chunk.len()
    }

    /// Goes on in an empty chunk: the next one, or the first when it has no memory yet.
    #[cold]
    fn turn_over(&mut self) {
        if !self.chunks[self.current].is_empty() {
            self.number += 1;
            self.current = (self.current + 1) % CHUNKS;
        }
        let chunk = &mut self.chunks[self.current];
        chunk.clear();
        chunk.reserve_exact(self.chunk_bytes);
    }

    /// The oldest chunk with at least this number, and its number; `None` when there is none yet. The
    /// one that is being filled is last.
    #[must_use]
    pub fn read(&self, from: u64) -> Option<(u64, &[u8])> {
        let oldest = self.number.saturating_sub(CHUNKS as u64 - 1);
        let number = from.max(oldest);
        if !self.is_on() || number > self.number {
            return None;
        }
        let at = usize::try_from(number % CHUNKS as u64).expect("a small number");
        Some((number, &self.chunks[at]))
    }
}

fn number(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}

fn run(chunk: &mut Vec<u8>, kept: &[u8], blanked: usize) {
    chunk.extend_from_slice(&number(kept.len()));
    chunk.extend_from_slice(&number(blanked));
    chunk.extend_from_slice(kept);
}

/// Writes headers and end lines of MSRP frames. What does not begin with one is the rest of a body.
fn keep_heads(chunk: &mut Vec<u8>, (octets, after): (&[u8], usize), end_line: &Finder<'_>) {
    let mut rest = octets;
    for _ in 0..FRAMES_MAX {
        if rest.is_empty() {
            return;
        }
        let (kept, ends) = match head_len(rest) {
            Some(head) => head,
            None if rest.starts_with(b"\r\n-------") => (line_len(rest), true),
            None => (0, false),
        };
        let (head, behind) = rest.split_at(kept);
        if ends {
            run(chunk, head, 0);
            rest = behind;
            continue;
        }
        let blanked = end_line.find(behind).unwrap_or(behind.len());
        let last = blanked == behind.len();
        run(chunk, head, blanked + if last { after } else { 0 });
        rest = &behind[blanked..];
    }
    if !rest.is_empty() {
        run(chunk, &[], rest.len() + after);
    }
}

/// Octets of a frame up to its body, or to its end when it has none, which is then said. `None` when no
/// frame begins here: a body may say `MSRP`, but To-Path comes second (RFC 4975 section 7.1). A frame that
/// is cut before that is blanked.
fn head_len(bytes: &[u8]) -> Option<(usize, bool)> {
    if !bytes.starts_with(b"MSRP ") {
        return None;
    }
    let line = memchr::memchr(b'\n', &bytes[..bytes.len().min(FIRST_LINE_MAX)])?;
    let mut at = line + 1;
    if !bytes[at..].starts_with(b"To-Path:") {
        return None;
    }
    loop {
        let Some(line) = memchr::memchr(b'\n', &bytes[at..]) else {
            return Some((bytes.len(), false));
        };
        at += line + 1;
        match bytes.get(at) {
            Some(b'\r') => return Some(((at + 2).min(bytes.len()), false)),
            Some(b'-') if bytes[at..].starts_with(b"-------") => {
                let end = memchr::memchr(b'\n', &bytes[at..]);
                return Some((end.map_or(bytes.len(), |end| at + end + 1), true));
            }
            Some(_) | None => {}
        }
    }
}

/// Octets of an end line that starts with CRLF, with its own CRLF if that is there.
fn line_len(line: &[u8]) -> usize {
    let end = memchr::memchr(b'\n', line.get(2..).unwrap_or_default());
    end.map_or(line.len(), |at| at + 3)
}

fn head_of(event: &Event) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let ip = match event.peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    head[4..12].copy_from_slice(&event.at.as_nanos().to_le_bytes());
    head[12..16].copy_from_slice(&event.link.slot.to_le_bytes());
    head[16..20].copy_from_slice(&event.link.generation.to_le_bytes());
    head[20..36].copy_from_slice(&ip.octets());
    head[36..38].copy_from_slice(&event.peer.port().to_le_bytes());
    head[38] = match event.kind {
        LinkKind::MsrpInbound => 0,
        LinkKind::MsrpOutbound => 1,
        LinkKind::SipInbound => 2,
        LinkKind::SipOutbound => 3,
        LinkKind::SipUdp => 4,
    };
    head[39] = u8::from(event.outgoing);
    head
}

/// The events of a chunk, oldest first, with their octets.
pub fn events(chunk: &[u8]) -> impl Iterator<Item = (Event, Vec<u8>)> + '_ {
    let mut rest = chunk;
    core::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let (event, after) = rest.split_at_checked(length)?;
        rest = after;
        Some((event_of(event)?, octets_of(event.get(HEAD..)?)))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn event_of(head: &[u8]) -> Option<Event> {
    let nanos = u64::from_le_bytes(head.get(4..12)?.try_into().ok()?);
    let ip: [u8; 16] = head.get(20..36)?.try_into().ok()?;
    let port = u16::from_le_bytes(head.get(36..38)?.try_into().ok()?);
    let kind = match head.get(38)? {
        0 => LinkKind::MsrpInbound,
        1 => LinkKind::MsrpOutbound,
        2 => LinkKind::SipInbound,
        3 => LinkKind::SipOutbound,
        _ => LinkKind::SipUdp,
    };
    Some(Event {
        at: Timestamp::from_nanos(nanos),
        link: LinkId {
            slot: u32_at(head, 12)?,
            generation: u32_at(head, 16)?,
        },
        kind,
        peer: SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port),
        outgoing: *head.get(39)? == 1,
    })
}

/// What was kept, with dots for what was not.
fn octets_of(runs: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = runs;
    while let (Some(kept), Some(blanked)) = (u32_at(rest, 0), u32_at(rest, 4)) {
        let Some(bytes) = rest.get(RUN..RUN + kept as usize) else {
            break;
        };
        octets.extend_from_slice(bytes);
        octets.resize(octets.len() + blanked as usize, b'.');
        rest = &rest[RUN + kept as usize..];
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: LinkKind, at: u64) -> Event {
        Event {
            at: Timestamp::from_millis(at),
            link: LinkId {
                slot: 3,
                generation: 9,
            },
            kind,
            peer: SocketAddr::from(([192, 0, 2, 7], 5060)),
            outgoing: at.is_multiple_of(2),
        }
    }

    fn all(recorder: &Recorder) -> Vec<(Event, Vec<u8>)> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some((number, chunk)) = recorder.read(from) {
            found.extend(events(chunk));
            from = number + 1;
        }
        found
    }

    #[test]
    fn the_newest_octets_are_kept_in_order_and_the_ring_does_not_grow() {
        let mut recorder = Recorder::new(RECORDER_BYTES_MIN, false);
        let text: Vec<u8> = (0..40_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for at in 0..200 {
            recorder.record(&event(LinkKind::SipInbound, at), &text);
        }
        let found = all(&recorder);
        let held: usize = found.iter().map(|(_, octets)| octets.len()).sum();
        assert!(held > RECORDER_BYTES_MIN / 2, "{held}");
        assert!(held < RECORDER_BYTES_MIN);
        let times: Vec<u64> = found
            .iter()
            .map(|(event, _)| event.at.as_millis())
            .collect();
        assert!(times.is_sorted());
        assert_eq!(times.last(), Some(&199));
        let last: Vec<u8> = found
            .iter()
            .filter(|(event, _)| event.at.as_millis() == 199)
            .flat_map(|(_, octets)| octets.clone())
            .collect();
        assert_eq!(last, text);
        assert_eq!(
            found.last().map(|last| last.0),
            Some(event(LinkKind::SipInbound, 199))
        );
        for chunk in &recorder.chunks {
            assert_eq!(chunk.capacity(), recorder.chunk_bytes);
        }
    }

    #[test]
    fn of_msrp_nothing_that_people_say_is_kept_and_every_length_is() {
        let body = "Content-Type: message/cpim\r\n\r\nMSRP secret\r\n\r\nis -------a\r\n-------";
        let send = format!("MSRP a1 SEND\r\nTo-Path: msrp://x\r\n{body}a1$\r\n");
        let reply = "MSRP a1 200 OK\r\nTo-Path: msrp://y\r\n-------a1$\r\n";
        let stream = format!("{reply}{send}{send}{reply}{send}").into_bytes();
        for cut in 0..=stream.len() {
            let mut recorder = Recorder::new(RECORDER_BYTES_MIN, false);
            let (first, second) = stream.split_at(cut);
            recorder.record(&event(LinkKind::MsrpInbound, 1), first);
            recorder.record(&event(LinkKind::MsrpInbound, 3), second);
            let found: Vec<u8> = all(&recorder).into_iter().flat_map(|(_, o)| o).collect();
            assert_eq!(found.len(), stream.len(), "{cut}");
            let text = String::from_utf8(found).expect("ASCII");
            assert!(!text.contains("secret"), "{cut}: {text}");
            if cut == 0 {
                assert_eq!(text.matches(reply).count(), 2, "{text}");
                assert_eq!(text.matches("message/cpim\r\n\r\n.").count(), 3, "{text}");
                assert_eq!(text.matches(".\r\n-------a1$\r\n").count(), 3, "{text}");
            }
        }
        let mut recorder = Recorder::new(RECORDER_BYTES_MIN, true);
        recorder.record(&event(LinkKind::MsrpInbound, 1), &stream);
        assert_eq!(
            all(&recorder)[0].1,
            stream,
            "bodies are kept when they are wanted"
        );
    }

    #[test]
    fn nothing_is_kept_when_it_is_off() {
        let mut recorder = Recorder::new(0, false);
        recorder.record(&event(LinkKind::SipUdp, 1), b"OPTIONS");
        assert!(recorder.read(0).is_none());
    }

    #[test]
    fn frames_beyond_the_bound_and_long_buffers_are_blanked() {
        let mut recorder = Recorder::new(RECORDER_BYTES_MIN, false);
        let reply = b"MSRP a1 200 OK\r\nTo-Path: x\r\n-------a1$\r\n";
        let many = reply.repeat(FRAMES_MAX + 10);
        recorder.record(&event(LinkKind::MsrpOutbound, 1), &many);
        let (_, octets) = &all(&recorder)[0];
        assert_eq!(octets.len(), many.len());
        assert!(octets.ends_with(b"...") && octets.starts_with(reply));
        let long = vec![b'x'; BUFFER_BYTES_MAX + 5];
        let mut recorder = Recorder::new(RECORDER_BYTES_MIN, false);
        recorder.record(&event(LinkKind::SipOutbound, 2), &long);
        let octets: Vec<u8> = all(&recorder).into_iter().flat_map(|(_, o)| o).collect();
        assert!(octets.ends_with(b"x....."));
        assert_eq!(octets.len(), long.len());
    }
}
