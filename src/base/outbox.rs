//! Links as the core keeps them: what arrived but is not yet a whole message, and what waits to go
//! out. One buffer per link and turn, so that a turn costs one write per connection at most.
//!
//! A link has at most one buffer at the driver ([`Outbox::poll_transmit`] until
//! [`Outbox::sent`]) and one that fills here; both are bounded by [`Outbox::backlog`] checks of the
//! writers. Buffers circulate, so a warm link allocates nothing.
//!
//! Datagrams of one buffer go out in any order, for the driver sorts them by size into trains. What
//! must not overtake another message to the same destination is sent by [`Outbox::send_last`]: a
//! destination has two queues, and the second leaves only when the first is empty. So an ACK precedes
//! the BYE of its dialog, and an INVITE its CANCEL, also within a turn.

use core::net::SocketAddr;
use std::collections::VecDeque;

use crate::base::slab::Key;
use crate::base::surface::{LinkCommand, LinkId, LinkKind, MeshBody, MeshFrame, Transmit, TxBuf};
use crate::base::time::Timestamp;
use crate::wheel::TimerId;

/// Octets that may wait for one link before its writers must hold back.
pub const LINK_BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Frames that may wait for other shards. Reading stops at half of it; past it a frame is dropped.
pub const MESH_BACKLOG_MAX: usize = 65_536;
/// Most links of one shard.
pub const LINKS_MAX: usize = 1 << 20;
/// Buffers at or below this capacity are kept with an idle link; larger ones are given back.
const KEEP_BYTES_MAX: usize = 256 * 1024;

/// Output of an MSRP link up to this size is copied into the driver's buffer, and its own goes to the
/// next link that writes.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// Most small buffers that wait for a link to write.
const SPARE_MAX: usize = 1024;

/// Where a message goes: a link, on a datagram socket with an address, maybe of another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The shard that owns the link.
    pub shard: u8,
    /// The link.
    pub link: LinkId,
    /// The far end, for datagram sockets.
    pub address: Option<SocketAddr>,
}

/// Datagrams that wait, in one buffer.
#[derive(Debug, Default)]
struct Lane {
    bytes: Vec<u8>,
    cuts: Vec<u32>,
}

/// One datagram destination's queues of a socket.
#[derive(Debug, Default)]
struct Train {
    destination: Option<SocketAddr>,
    first: Lane,
    last: Lane,
}

impl Train {
    const fn waiting(&self) -> usize {
        self.first.bytes.len() + self.last.bytes.len()
    }
}

/// What the core knows of one link.
#[derive(Debug)]
pub struct Link {
    /// Which use of the slot this is.
    pub id: LinkId,
    /// What it carries.
    pub kind: LinkKind,
    /// The far end; for a datagram socket, our own address.
    pub peer: SocketAddr,
    /// Octets received that are not yet a whole message.
    pub rx: Vec<u8>,
    /// Octets of `rx` already looked at by the framing.
    pub scanned: usize,
    /// When the oldest octet of `rx` came in; `NEVER` while `rx` is empty.
    pub partial_since: Timestamp,
    /// The push bound last on an MSRP connection.
    pub bound: Option<Key>,
    /// Pushes bound to an MSRP connection.
    pub bound_count: u32,
    /// Octets that came before the first push was bound (MSRP-19).
    pub unbound_bytes: usize,
    /// A session holds back because of this link's backlog.
    pub stalled: bool,
    /// A timer watches over partial messages.
    pub watched: bool,
    /// The timer that watches over the link, if it still does.
    pub watch: Option<TimerId>,
    open: bool,
    busy: bool,
    dirty: bool,
    closing: Option<Ending>,
    tx: Vec<u8>,
    trains: Vec<Train>,
    next_train: usize,
}

/// How we end a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Close,
    Leave,
}

impl Ending {
    const fn command(self, link: LinkId) -> LinkCommand {
        match self {
            Self::Close => LinkCommand::Close { link },
            Self::Leave => LinkCommand::Leave { link },
        }
    }
}

impl Link {
    fn new(id: LinkId, kind: LinkKind, peer: SocketAddr) -> Self {
        Self {
            id,
            kind,
            peer,
            rx: Vec::new(),
            scanned: 0,
            partial_since: Timestamp::NEVER,
            bound: None,
            bound_count: 0,
            unbound_bytes: 0,
            stalled: false,
            watched: false,
            watch: None,
            open: true,
            busy: false,
            dirty: false,
            closing: None,
            tx: Vec::new(),
            trains: Vec::new(),
            next_train: 0,
        }
    }

    fn memory(&self) -> usize {
        let lane = |lane: &Lane| lane.bytes.capacity() + lane.cuts.capacity() * size_of::<u32>();
        let trains = self.trains.iter();
        let lanes: usize = trains
            .map(|train| lane(&train.first) + lane(&train.last))
            .sum();
        let own = size_of::<Self>() + self.trains.capacity() * size_of::<Train>();
        own + self.rx.capacity() + self.tx.capacity() + lanes
    }

    fn waiting(&self) -> usize {
        self.tx.len() + self.trains.iter().map(Train::waiting).sum::<usize>()
    }
}

/// All links of one shard.
#[derive(Debug)]
pub struct Outbox {
    shard: u8,
    links: Vec<Option<Box<Link>>>,
    dirty: VecDeque<LinkId>,
    commands: VecDeque<LinkCommand>,
    mesh: VecDeque<MeshFrame>,
    /// Empty buffers of MSRP links that have nothing to say, at most [`COPY_BYTES_MAX`] large.
    spare: Vec<Vec<u8>>,
    dropped: Dropped,
}

/// Messages that no link and no other shard took, by the reason. What is refused is counted here, whoever sent
/// it: some senders repeat what was not taken, and do not look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The link was gone.
    pub link_gone: u64,
    /// It was being closed by us.
    pub link_closing: u64,
    /// [`LINK_BACKLOG_BYTES_MAX`] waited for it.
    pub link_full: u64,
    /// It was lost before its turn came: datagrams each, the octets of a stream as one.
    pub link_lost: u64,
    /// [`MESH_BACKLOG_MAX`] frames waited.
    pub mesh_full: u64,
}

impl Outbox {
    /// No links yet.
    #[must_use]
    pub fn new(shard: u8) -> Self {
        Self {
            shard,
            links: Vec::new(),
            dirty: VecDeque::with_capacity(64),
            commands: VecDeque::new(),
            mesh: VecDeque::new(),
            spare: Vec::new(),
            dropped: Dropped::default(),
        }
    }

    /// The shard these links belong to.
    #[must_use]
    pub const fn shard(&self) -> u8 {
        self.shard
    }

    /// Registers a link the driver reported. Refuses slots past [`LINKS_MAX`].
    pub fn opened(&mut self, id: LinkId, kind: LinkKind, peer: SocketAddr) -> bool {
        let slot = id.slot as usize;
        if slot >= LINKS_MAX {
            return false;
        }
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, || None);
        }
        match &mut self.links[slot] {
            // The slot's buffers are kept for the next connection.
            Some(link) => {
                let (rx, tx) = (core::mem::take(&mut link.rx), core::mem::take(&mut link.tx));
                **link = Link::new(id, kind, peer);
                link.rx = recycled(rx);
                link.tx = recycled(tx);
            }
            empty => *empty = Some(Box::new(Link::new(id, kind, peer))),
        }
        true
    }

    /// Forgets a link; what waited for it is dropped.
    pub fn closed(&mut self, id: LinkId) {
        if let Some(link) = self.lookup_mut(id) {
            link.open = false;
            let datagrams = |train: &Train| train.first.cuts.len() + train.last.cuts.len();
            let lost = link.trains.iter().map(datagrams).sum::<usize>();
            let lost = (lost + usize::from(!link.tx.is_empty())) as u64;
            link.tx.clear();
            link.trains.clear();
            link.rx.clear();
            self.dropped.link_lost += lost;
        }
    }

    /// The link, while it is open.
    #[must_use]
    pub fn lookup(&self, id: LinkId) -> Option<&Link> {
        let link = self.links.get(id.slot as usize)?.as_deref()?;
        (link.open && link.id == id).then_some(link)
    }

    /// The link, mutable, while it is open.
    pub fn lookup_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        let link = self.links.get_mut(id.slot as usize)?.as_deref_mut()?;
        (link.open && link.id == id).then_some(link)
    }

    /// Octets waiting for the link here; zero for an unknown one.
    #[must_use]
    pub fn backlog(&self, id: LinkId) -> usize {
        self.lookup(id).map_or(0, Link::waiting)
    }

    /// `true` while the link is being closed by us: what it still brings is not looked at.
    #[must_use]
    pub fn is_closing(&self, id: LinkId) -> bool {
        self.lookup(id).is_some_and(|link| link.closing.is_some())
    }

    /// Whether a session held back since the last call.
    pub fn take_stalled(&mut self, id: LinkId) -> bool {
        self.lookup_mut(id)
            .is_some_and(|link| core::mem::take(&mut link.stalled))
    }

    /// `true` if a stream link is open and has room for more output.
    #[must_use]
    pub fn is_writable(&self, id: LinkId) -> bool {
        self.lookup(id)
            .is_some_and(|link| link.closing.is_none() && link.waiting() < LINK_BACKLOG_BYTES_MAX)
    }

    /// Lets `encode` append one message for `to`. False, and nothing sent, when the link is gone or
    /// its backlog is full.
    #[inline]
    pub fn send(&mut self, to: Destination, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.send_in(to, false, encode)
    }

    /// The same for a message that must not overtake what waits for the destination already: a request
    /// within a dialog, a CANCEL. Streams keep every order anyway.
    #[inline]
    pub fn send_last(&mut self, to: Destination, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.send_in(to, true, encode)
    }

    #[inline]
    fn send_in(&mut self, to: Destination, last: bool, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        if to.shard != self.shard {
            let mut bytes = Vec::with_capacity(2048);
            encode(&mut bytes);
            let body = MeshBody::Send {
                link: to.link,
                destination: to.address,
                last,
                bytes,
            };
            return self.send_mesh(MeshFrame {
                to: to.shard,
                from: self.shard,
                body,
            });
        }
        if !self.is_writable(to.link) {
            self.refused(to.link);
            return false;
        }
        let link = self.links[to.link.slot as usize]
            .as_deref_mut()
            .expect("a writable link is present");
        match to.address {
            Some(address) if link.kind == LinkKind::SipUdp => {
                let train = train_of(&mut link.trains, address);
                let lane = if last {
                    &mut train.last
                } else {
                    &mut train.first
                };
                encode(&mut lane.bytes);
                lane.cuts.push(
                    u32::try_from(lane.bytes.len()).expect("the backlog is bounded below 4 GiB"),
                );
            }
            _ => {
                if link.tx.capacity() == 0
                    && is_msrp(link.kind)
                    && let Some(spare) = self.spare.pop()
                {
                    link.tx = spare;
                }
                encode(&mut link.tx);
            }
        }
        if !link.dirty && !link.busy {
            link.dirty = true;
            self.dirty.push_back(to.link);
        }
        true
    }

    /// Counts a message that `link` did not take.
    #[cold]
    fn refused(&mut self, link: LinkId) {
        let of_link = match self.lookup(link) {
            None => &mut self.dropped.link_gone,
            Some(link) if link.closing.is_some() => &mut self.dropped.link_closing,
            Some(_) => &mut self.dropped.link_full,
        };
        *of_link += 1;
    }

    /// Asks the driver to connect.
    pub fn connect(&mut self, token: u64, kind: LinkKind, address: SocketAddr) {
        self.commands.push_back(LinkCommand::Connect {
            token,
            kind,
            address,
        });
    }

    /// Asks the driver to close the link once its output has gone out; takes no more output.
    pub fn close(&mut self, id: LinkId) {
        self.end(id, Ending::Close);
    }

    /// Asks the driver to leave the link to its peer, which is to close it, once its output has gone out; takes no
    /// more output.
    pub fn leave(&mut self, id: LinkId) {
        self.end(id, Ending::Leave);
    }

    fn end(&mut self, id: LinkId, ending: Ending) {
        let Some(link) = self.lookup_mut(id) else {
            return;
        };
        if link.closing.is_some() {
            return;
        }
        link.closing = Some(ending);
        if !link.busy && link.waiting() == 0 {
            self.commands.push_back(ending.command(id));
        }
    }

    /// Asks the driver to stop reading from the link (`held`), or to go on.
    pub fn hold(&mut self, id: LinkId, held: bool) {
        if self.lookup(id).is_some_and(|link| link.closing.is_none()) {
            self.commands
                .push_back(LinkCommand::Hold { link: id, held });
        }
    }

    /// The driver sent the buffer it had taken.
    pub fn sent(&mut self, id: LinkId) {
        let Some(link) = self.lookup_mut(id) else {
            return;
        };
        link.busy = false;
        let (waiting, closing) = (link.waiting() > 0, link.closing);
        if waiting && !link.dirty {
            link.dirty = true;
            self.dirty.push_back(id);
        } else if let (Some(ending), false) = (closing, waiting) {
            self.commands.push_back(ending.command(id));
        }
    }

    /// Fills `buffer` for the next link that is idle at the driver and has output.
    pub fn poll_transmit(&mut self, buffer: &mut TxBuf) -> Option<Transmit> {
        debug_assert!(buffer.bytes.is_empty() && buffer.cuts.is_empty());
        while let Some(id) = self.dirty.pop_front() {
            let Some(link) = self.lookup_mut(id) else {
                continue;
            };
            link.dirty = false;
            if link.busy {
                continue;
            }
            buffer.destination = None;
            if !link.tx.is_empty() && is_msrp(link.kind) && link.tx.capacity() <= COPY_BYTES_MAX {
                // There are many such links and few of them write: none keeps a buffer of its own.
                buffer.bytes.extend_from_slice(&link.tx);
                let mut spare = core::mem::take(&mut link.tx);
                link.busy = true;
                if self.spare.len() < SPARE_MAX {
                    spare.clear();
                    self.spare.push(spare);
                }
                return Some(Transmit { link: id });
            } else if !link.tx.is_empty() {
                core::mem::swap(&mut link.tx, &mut buffer.bytes);
            } else if !take_train(link, buffer) {
                continue;
            }
            link.busy = true;
            return Some(Transmit { link: id });
        }
        None
    }

    /// The next connect or close for the driver.
    pub fn poll_link(&mut self) -> Option<LinkCommand> {
        self.commands.pop_front()
    }

    /// Passes a frame to another shard; false, and counted, when too many wait.
    pub fn send_mesh(&mut self, frame: MeshFrame) -> bool {
        if self.mesh.len() >= MESH_BACKLOG_MAX {
            self.dropped.mesh_full += 1;
            return false;
        }
        self.mesh.push_back(frame);
        true
    }

    /// Whether the driver should stop reading until other shards have caught up.
    #[must_use]
    pub fn is_mesh_behind(&self) -> bool {
        self.mesh.len() >= MESH_BACKLOG_MAX / 2
    }

    /// The next frame for another shard.
    pub fn poll_mesh(&mut self) -> Option<MeshFrame> {
        self.mesh.pop_front()
    }

    /// Messages that were not taken, or not sent.
    #[must_use]
    pub const fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Slots of links, open or not.
    #[must_use]
    pub fn slots(&self) -> u32 {
        u32::try_from(self.links.len()).expect("at most LINKS_MAX")
    }

    /// Octets that the links of some slots own, with their buffers.
    #[must_use]
    pub fn memory_of(&self, slots: core::ops::Range<u32>) -> usize {
        let end = (slots.end as usize).min(self.links.len());
        let start = (slots.start as usize).min(end);
        let links = self.links[start..end].iter().flatten();
        links.map(|link| link.memory()).sum()
    }

    /// Octets of what belongs to no link: the table, buffers that wait for one, frames for other shards.
    #[must_use]
    pub fn memory(&self) -> usize {
        let spare: usize = self.spare.iter().map(Vec::capacity).sum();
        self.links.capacity() * size_of::<Option<Box<Link>>>()
            + self.dirty.capacity() * size_of::<LinkId>()
            + self.mesh.capacity() * size_of::<MeshFrame>()
            + spare
    }

    /// All open links.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links
            .iter()
            .flatten()
            .map(|link| &**link)
            .filter(|link| link.open)
    }
}

/// `true` for a connection of one or a few sessions, of which there may be very many.
const fn is_msrp(kind: LinkKind) -> bool {
    matches!(kind, LinkKind::MsrpInbound | LinkKind::MsrpOutbound)
}

fn recycled(mut buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() > KEEP_BYTES_MAX {
        return Vec::new();
    }
    buffer.clear();
    buffer
}

fn train_of(trains: &mut Vec<Train>, address: SocketAddr) -> &mut Train {
    let found = trains
        .iter()
        .position(|train| train.destination == Some(address))
        .or_else(|| trains.iter().position(|train| train.waiting() == 0));
    let at = found.unwrap_or_else(|| {
        trains.push(Train::default());
        trains.len() - 1
    });
    trains[at].destination = Some(address);
    &mut trains[at]
}

fn take_train(link: &mut Link, buffer: &mut TxBuf) -> bool {
    for step in 0..link.trains.len() {
        let at = (link.next_train + step) % link.trains.len();
        let train = &mut link.trains[at];
        let lane = if !train.first.bytes.is_empty() {
            &mut train.first
        } else if !train.last.bytes.is_empty() {
            &mut train.last
        } else {
            continue;
        };
        core::mem::swap(&mut lane.bytes, &mut buffer.bytes);
        core::mem::swap(&mut lane.cuts, &mut buffer.cuts);
        buffer.destination = train.destination;
        link.next_train = at + 1;
        return true;
    }
    false
}

crate::fold_fields!(Destination {
    shard,
    link,
    address
});
crate::fold_blanks!(
    Destination = Destination {
        shard: 0,
        link: crate::base::fold::Blank::blank(),
        address: None
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        "127.0.0.1:5060".parse().unwrap()
    }

    fn open(outbox: &mut Outbox, kind: LinkKind) -> Destination {
        let link = LinkId {
            slot: 0,
            generation: 1,
        };
        assert!(outbox.opened(link, kind, address()));
        Destination {
            shard: 0,
            link,
            address: None,
        }
    }

    #[test]
    fn a_message_sent_last_leaves_behind_what_waits_for_its_destination() {
        let mut outbox = Outbox::new(0);
        let to = open(&mut outbox, LinkKind::SipUdp);
        let at = |port| Destination {
            address: Some(SocketAddr::from(([192, 0, 2, 1], port))),
            ..to
        };
        let next = |outbox: &mut Outbox| {
            let mut buffer = TxBuf::default();
            outbox.poll_transmit(&mut buffer)?;
            outbox.sent(to.link);
            let port = buffer.destination.unwrap().port();
            Some((port, String::from_utf8(buffer.bytes).unwrap()))
        };
        assert!(outbox.send_last(at(1), |out| out.extend_from_slice(b"bye1 ")));
        assert!(outbox.send(at(1), |out| out.extend_from_slice(b"ack2 ")));
        assert!(outbox.send(at(2), |out| out.extend_from_slice(b"other ")));
        assert!(outbox.send_last(at(1), |out| out.extend_from_slice(b"bye2 ")));
        assert_eq!(outbox.backlog(to.link), 21);
        assert_eq!(next(&mut outbox), Some((1, "ack2 ".into())));
        // What comes between two polls goes before the last ones, too.
        assert!(outbox.send(at(1), |out| out.extend_from_slice(b"ack3 ")));
        assert_eq!(next(&mut outbox), Some((2, "other ".into())));
        assert_eq!(next(&mut outbox), Some((1, "ack3 ".into())));
        assert_eq!(next(&mut outbox), Some((1, "bye1 bye2 ".into())));
        assert_eq!(next(&mut outbox), None);
    }

    #[test]
    fn an_msrp_link_with_nothing_to_say_holds_no_buffer_and_the_next_one_takes_it() {
        let mut outbox = Outbox::new(0);
        let mut places = Vec::new();
        for slot in 0..3 {
            let link = LinkId {
                slot,
                generation: 1,
            };
            assert!(outbox.opened(link, LinkKind::MsrpInbound, address()));
            let to = Destination {
                shard: 0,
                link,
                address: None,
            };
            assert!(outbox.send(to, |out| {
                out.extend_from_slice(b"one");
                places.push(out.as_ptr().addr());
            }));
            let mut buffer = TxBuf::default();
            assert_eq!(outbox.poll_transmit(&mut buffer), Some(Transmit { link }));
            assert_eq!(buffer.bytes, b"one");
            assert_eq!(outbox.backlog(link), 0);
            assert_eq!(outbox.lookup(link).unwrap().tx.capacity(), 0);
        }
        assert!(places.iter().all(|place| *place == places[0]));
        assert_eq!(outbox.spare.len(), 1);
    }

    #[test]
    fn one_buffer_is_out_at_a_time_and_later_output_waits() {
        let mut outbox = Outbox::new(0);
        let to = open(&mut outbox, LinkKind::SipInbound);
        assert!(outbox.send(to, |out| out.extend_from_slice(b"one")));
        assert!(outbox.send(to, |out| out.extend_from_slice(b"two")));
        let mut buffer = TxBuf::default();
        assert!(outbox.poll_transmit(&mut buffer).is_some());
        assert_eq!(buffer.bytes, b"onetwo");
        assert!(outbox.send(to, |out| out.extend_from_slice(b"three")));
        buffer.bytes.clear();
        assert!(
            outbox.poll_transmit(&mut buffer).is_none(),
            "the link is busy"
        );
        outbox.sent(to.link);
        assert!(outbox.poll_transmit(&mut buffer).is_some());
        assert_eq!(buffer.bytes, b"three");
    }

    #[test]
    fn a_link_is_left_once_its_output_went_out_and_not_closed_as_well() {
        let mut outbox = Outbox::new(0);
        let to = open(&mut outbox, LinkKind::MsrpInbound);
        assert!(outbox.send(to, |out| out.extend_from_slice(b"200")));
        outbox.leave(to.link);
        outbox.close(to.link);
        assert!(outbox.poll_link().is_none());
        assert!(outbox.poll_transmit(&mut TxBuf::default()).is_some());
        outbox.sent(to.link);
        let command = LinkCommand::Leave { link: to.link };
        assert_eq!(outbox.poll_link(), Some(command));
        assert_eq!(outbox.poll_link(), None);
    }

    #[test]
    fn a_close_waits_for_the_output_before_it() {
        let mut outbox = Outbox::new(0);
        let to = open(&mut outbox, LinkKind::SipInbound);
        assert!(outbox.send(to, |out| out.extend_from_slice(b"bye")));
        outbox.close(to.link);
        assert!(outbox.poll_link().is_none());
        assert!(
            !outbox.send(to, |out| out.extend_from_slice(b"late")),
            "closing takes no more"
        );
        let mut buffer = TxBuf::default();
        assert!(outbox.poll_transmit(&mut buffer).is_some());
        outbox.sent(to.link);
        assert_eq!(
            outbox.poll_link(),
            Some(LinkCommand::Close { link: to.link })
        );
    }

    #[test]
    fn datagrams_keep_their_cuts_per_destination() {
        let mut outbox = Outbox::new(0);
        let mut to = open(&mut outbox, LinkKind::SipUdp);
        to.address = Some(address());
        assert!(outbox.send(to, |out| out.extend_from_slice(b"abc")));
        assert!(outbox.send(to, |out| out.extend_from_slice(b"de")));
        let mut buffer = TxBuf::default();
        assert!(outbox.poll_transmit(&mut buffer).is_some());
        assert_eq!(
            (buffer.bytes.as_slice(), buffer.cuts.as_slice()),
            (&b"abcde"[..], &[3, 5][..])
        );
        assert_eq!(buffer.destination, Some(address()));
    }

    #[test]
    fn the_queue_to_other_shards_is_bounded() {
        let mut outbox = Outbox::new(0);
        let link = LinkId {
            slot: 0,
            generation: 1,
        };
        let to = Destination {
            shard: 1,
            link,
            address: None,
        };
        for waiting in 0..MESH_BACKLOG_MAX {
            assert_eq!(outbox.is_mesh_behind(), waiting >= MESH_BACKLOG_MAX / 2);
            assert!(outbox.send(to, |out| out.push(1)));
        }
        assert!(!outbox.send(to, |out| out.push(1)), "full");
        assert_eq!(outbox.dropped().mesh_full, 1);
        assert!(outbox.poll_mesh().is_some());
        assert!(outbox.send(to, |out| out.push(1)));
    }

    #[test]
    fn what_is_not_taken_or_not_sent_is_counted_by_its_reason() {
        let mut outbox = Outbox::new(0);
        let to = open(&mut outbox, LinkKind::SipInbound);
        let message = |out: &mut Vec<u8>| out.push(1);
        let much = |out: &mut Vec<u8>| out.resize(LINK_BACKLOG_BYTES_MAX, 0);
        assert!(outbox.send(to, much));
        assert!(!outbox.send(to, message));
        outbox.close(to.link);
        assert!(!outbox.send_last(to, message));
        outbox.closed(to.link);
        outbox.closed(to.link);
        assert!(!outbox.send(to, message));
        let to = Destination {
            address: Some(address()),
            ..open(&mut outbox, LinkKind::SipUdp)
        };
        assert!(outbox.send(to, message) && outbox.send(to, message));
        assert!(outbox.send_last(to, message));
        outbox.closed(to.link);
        let dropped = Dropped {
            link_gone: 1,
            link_closing: 1,
            link_full: 1,
            link_lost: 4,
            mesh_full: 0,
        };
        assert_eq!(outbox.dropped(), dropped);
    }

    #[test]
    fn a_stale_link_takes_nothing() {
        let mut outbox = Outbox::new(0);
        let to = open(&mut outbox, LinkKind::MsrpInbound);
        outbox.closed(to.link);
        assert!(!outbox.send(to, |out| out.push(1)));
        let again = LinkId {
            slot: 0,
            generation: 2,
        };
        assert!(outbox.opened(again, LinkKind::MsrpInbound, address()));
        assert!(outbox.lookup(to.link).is_none());
        assert!(outbox.lookup(again).is_some());
    }
}
