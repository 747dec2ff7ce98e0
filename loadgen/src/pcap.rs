//! Capture files in the classic format: packets read strictly and without trust, TCP streams put
//! together, and a writer for messages that are to be looked at elsewhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of out-of-order segments kept for one stream.
const EARLY_MAX: usize = 4 * 1024 * 1024;

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From where.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// TCP sequence number of the first octet; `None` for UDP.
    pub sequence: Option<u32>,
    /// The segment opens its stream.
    pub opens: bool,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// Big or little endian, as the file was written.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self.0 {
            u32::from_be_bytes(four)
        } else {
            u32::from_le_bytes(four)
        })
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Reads a capture file; packets that are neither TCP nor UDP are left out.
pub fn read(file: &[u8]) -> Result<Vec<Packet>, String> {
    let order = match file.get(..4) {
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => Order(false),
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => Order(true),
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => {
            return Err("this is a pcapng file; convert it with `editcap -F pcap`".into());
        }
        _ => return Err("not a pcap file".into()),
    };
    let link = order.u32(file, 20).ok_or("the file header is cut off")? & 0xffff;
    let mut packets = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let length = order
            .u32(file, at + 8)
            .ok_or("a packet header is cut off")? as usize;
        let frame = file
            .get(at + 16..)
            .and_then(|rest| rest.get(..length))
            .ok_or("a packet is cut off")?;
        if let Some(packet) = network(link, frame)?.and_then(internet) {
            packets.push(packet);
        }
        at += 16 + length;
    }
    Ok(packets)
}

/// The IP packet in a frame.
fn network(link: u32, frame: &[u8]) -> Result<Option<&[u8]>, String> {
    let skip = match link {
        // BSD loopback, Ethernet (with VLAN tags), raw IP, Linux cooked 1 and 2.
        0 | 108 => 4,
        1 => {
            let mut at = 12;
            while matches!(be16(frame, at), Some(0x8100 | 0x88a8)) {
                at += 4;
            }
            at + 2
        }
        12 | 14 | 101 | 228 | 229 => 0,
        113 => 16,
        276 => 20,
        other => return Err(format!("link type {other} is not known here")),
    };
    Ok(frame.get(skip..))
}

fn internet(bytes: &[u8]) -> Option<Packet> {
    let (protocol, from, to, rest) = match bytes.first()? >> 4 {
        4 => {
            let head = usize::from(bytes[0] & 15) * 4;
            let total = usize::from(be16(bytes, 2)?);
            // A fragment behind the first has no ports.
            if be16(bytes, 6)? & 0x1fff != 0 {
                return None;
            }
            let address = |at: usize| {
                let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(four)))
            };
            let rest = bytes.get(head..total.min(bytes.len()))?;
            (*bytes.get(9)?, address(12)?, address(16)?, rest)
        }
        6 => {
            let address = |at: usize| {
                let all: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(all)))
            };
            let end = 40 + usize::from(be16(bytes, 4)?);
            let rest = bytes.get(40..end.min(bytes.len()))?;
            (*bytes.get(6)?, address(8)?, address(24)?, rest)
        }
        _ => return None,
    };
    let from = SocketAddr::new(from, be16(rest, 0)?);
    let to = SocketAddr::new(to, be16(rest, 2)?);
    match protocol {
        17 => Some(Packet {
            from,
            to,
            sequence: None,
            opens: false,
            payload: rest.get(8..)?.to_vec(),
        }),
        6 => {
            let sequence = Order(true).u32(rest, 4)?;
            let opens = rest.get(13)? & 2 != 0;
            let head = usize::from(rest.get(12)? >> 4) * 4;
            Some(Packet {
                from,
                to,
                sequence: Some(sequence.wrapping_add(u32::from(opens))),
                opens,
                payload: rest.get(head..)?.to_vec(),
            })
        }
        _ => None,
    }
}

/// One direction of a TCP connection.
#[derive(Debug, Default)]
pub struct Stream {
    next: Option<u32>,
    early: BTreeMap<u32, Vec<u8>>,
    held: usize,
    /// Octets in order that nobody took yet.
    pub buffer: Vec<u8>,
}

impl Stream {
    fn push(&mut self, sequence: u32, opens: bool, payload: &[u8]) {
        if opens || self.next.is_none() {
            self.next = Some(sequence);
        }
        self.put(sequence, payload);
        while let Some(next) = self.next
            && let Some(found) = self
                .early
                .keys()
                .copied()
                .find(|&early| next.wrapping_sub(early) < 0x8000_0000)
        {
            let Some(payload) = self.early.remove(&found) else {
                return;
            };
            self.held -= payload.len();
            self.put(found, &payload);
        }
    }

    /// Appends what is new of a segment that starts at or before the next octet.
    fn put(&mut self, sequence: u32, payload: &[u8]) {
        let next = self.next.unwrap_or(sequence);
        let known = next.wrapping_sub(sequence);
        if known >= 0x8000_0000 {
            if !payload.is_empty() && self.held + payload.len() <= EARLY_MAX {
                self.held += payload.len();
                if let Some(old) = self.early.insert(sequence, payload.to_vec()) {
                    self.held -= old.len();
                }
            }
            return;
        }
        if let Some(new) = payload.get(known as usize..) {
            self.buffer.extend_from_slice(new);
            self.next = Some(next.wrapping_add(new.len() as u32));
        }
    }
}

/// Every direction of every TCP connection in a capture.
#[derive(Debug, Default)]
pub struct Streams(BTreeMap<(SocketAddr, SocketAddr), Stream>);

impl Streams {
    /// Enters a segment; gives its stream.
    pub fn push(&mut self, packet: &Packet, sequence: u32) -> &mut Stream {
        let stream = self.0.entry((packet.from, packet.to)).or_default();
        stream.push(sequence, packet.opens, &packet.payload);
        stream
    }
}

/// Writes messages as a capture of raw IP packets, each as one datagram between these ports of
/// loopback. Longer ones are cut.
pub fn write<'a>(messages: impl Iterator<Item = &'a [u8]>, from: u16, to: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0002_0004, 0, 0, 65_535, 101] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for message in messages {
        let message = &message[..message.len().min(65_000)];
        let total = 28 + message.len() as u32;
        for word in [0, 0, total, total] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&[0x45, 0]);
        out.extend_from_slice(&(total as u16).to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        for half in [from, to, total as u16 - 20, 0] {
            out.extend_from_slice(&half.to_be_bytes());
        }
        out.extend_from_slice(message);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let file = write([b"one".as_slice(), b"another"].into_iter(), 5060, 5070);
        let packets = read(&file).unwrap();
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[1].payload, b"another");
        assert_eq!((packets[0].from.port(), packets[0].to.port()), (5060, 5070));
        for end in 0..file.len() {
            let _ = read(&file[..end]);
        }
        assert!(read(b"nonsense").is_err());
        assert!(
            read(&[0x0a, 0x0d, 0x0d, 0x0a])
                .unwrap_err()
                .contains("editcap")
        );
    }

    #[test]
    fn segments_out_of_order_repeated_and_overlapping_become_the_stream() {
        let text: Vec<u8> = (0..200u8).collect();
        let mut stream = Stream::default();
        let first = u32::MAX - 50;
        stream.push(first, true, b"");
        for (from, to) in [(0, 20), (60, 90), (40, 70), (10, 40), (90, 200), (150, 200)] {
            stream.push(first.wrapping_add(from as u32), false, &text[from..to]);
        }
        assert_eq!(stream.buffer, text);
        assert_eq!(stream.held, 0);
    }

    #[test]
    fn never_panics_on_mutated_files() {
        let file = write(
            [b"INVITE sip:a@b SIP/2.0\r\n".as_slice(); 3].into_iter(),
            1,
            2,
        );
        let mut state = 0x1357_9bdf_2468_ace1u64;
        for _ in 0..20_000 {
            let mut bytes = file.clone();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state % bytes.len() as u64) as usize;
                bytes[at] = (state >> 32) as u8;
            }
            let _ = read(&bytes);
        }
    }
}
