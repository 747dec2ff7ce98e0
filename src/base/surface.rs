//! The shard's surface: what a driver feeds in and what it takes out.
//!
//! Contract: any number of [`Core::handle`] and one [`Core::advance`] per turn, then every `poll_*`
//! until it returns `None`, then wait until [`Core::next_deadline`]. Time never goes back. When
//! [`Core::room`] is false the driver stops reading from peers until it is true again.

use core::net::{IpAddr, SocketAddr};

use crate::base::time::{Timestamp, UnixMillis};

/// A stream connection or a datagram socket of the driver. Slots are reused, generations differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    /// Small dense index, allocated by the driver.
    pub slot: u32,
    /// Distinguishes two uses of one slot.
    pub generation: u32,
}

/// What a link carries, and which way it came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// MSRP over TCP, accepted.
    MsrpInbound,
    /// MSRP over TCP, connected by us.
    MsrpOutbound,
    /// SIP over TCP, accepted.
    SipInbound,
    /// SIP over TCP, connected by us (trunk to a next hop).
    SipOutbound,
    /// A SIP datagram socket; carries many peers.
    SipUdp,
}

/// A change of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A peer connected, or a datagram socket was bound (`peer` is then the local address).
    Opened {
        /// What it carries.
        kind: LinkKind,
        /// The far end.
        peer: SocketAddr,
        /// Our end.
        local: SocketAddr,
    },
    /// Our [`LinkCommand::Connect`] with this token succeeded; the link is new.
    Connected {
        /// The token of the command.
        token: u64,
        /// What it carries.
        kind: LinkKind,
        /// The far end.
        peer: SocketAddr,
        /// Our end.
        local: SocketAddr,
    },
    /// The last buffer taken by [`Core::poll_transmit`] for this link went to the kernel whole.
    Sent,
    /// The link is gone, by either side. No further event bears this id.
    Closed,
}

/// Something that happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// Octets of a stream, in order, cut anywhere.
    Bytes {
        /// The connection.
        link: LinkId,
        /// At least one octet.
        bytes: &'a [u8],
    },
    /// One datagram.
    Datagram {
        /// The socket.
        link: LinkId,
        /// Who sent it.
        source: SocketAddr,
        /// The whole payload.
        bytes: &'a [u8],
    },
    /// A link opened, drained or closed.
    Link {
        /// The link.
        link: LinkId,
        /// What happened to it.
        event: LinkEvent,
    },
    /// A [`LinkCommand::Connect`] failed or took longer than its limit.
    ConnectFailed {
        /// The token of the command.
        token: u64,
    },
    /// The answer to a [`NameQuery`].
    Resolved {
        /// The token of the query.
        token: u64,
        /// What the name stands for, best first; empty when nobody knows.
        addresses: &'a [IpAddr],
    },
    /// Store operations finished.
    Stored(&'a StoreDone),
    /// A frame another shard passed on.
    Mesh(&'a MeshFrame),
    /// The wall clock, about once a second and before the first frame.
    Wall(UnixMillis),
    /// Stop starting pushes; finish or give up what runs, then report [`Core::is_drained`].
    Drain,
}

/// Bytes for one link. The driver lends an empty buffer and gets a full one.
#[derive(Debug, Default)]
pub struct TxBuf {
    /// What to send.
    pub bytes: Vec<u8>,
    /// For a datagram socket: where each datagram ends, ascending; the last equals `bytes.len()`. The
    /// driver may send them in any order; two buffers for one destination keep theirs.
    pub cuts: Vec<u32>,
    /// For a datagram socket: the destination of all datagrams in this buffer.
    pub destination: Option<SocketAddr>,
}

/// Names the link a filled [`TxBuf`] is for. Until `LinkEvent::Sent` the link gets no second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The link.
    pub link: LinkId,
}

/// A change the core wants made to links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkCommand {
    /// Connect a stream; the outcome names `token`.
    Connect {
        /// Chosen by the core.
        token: u64,
        /// `MsrpOutbound` or `SipOutbound`.
        kind: LinkKind,
        /// Where to.
        address: SocketAddr,
    },
    /// Close after what was taken by `poll_transmit` has gone out. `LinkEvent::Closed` follows.
    Close {
        /// The link.
        link: LinkId,
    },
    /// An accepted connection is needed no more, and its peer, which knows that, is to close it: who closes first
    /// remembers the pair of ports for a minute (TIME-WAIT, RFC 9293 section 3.6.1). The driver closes it after a
    /// while if the peer has not. `LinkEvent::Closed` follows at once, and what the peer still sends is thrown
    /// away.
    Leave {
        /// The link.
        link: LinkId,
    },
    /// Stop reading from a stream, or go on: what stays unread runs its peer into flow control. A
    /// little that was read before may still come after a stop.
    Hold {
        /// The link.
        link: LinkId,
        /// `true` to stop.
        held: bool,
    },
}

/// A host name whose addresses the core wants to know (A and AAAA). The answer may take its time; the
/// core goes on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameQuery {
    /// Chosen by the core.
    pub token: u64,
    /// The name, lower case.
    pub name: String,
}

/// Numbers an append within one run of a shard; counts up from 1 without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTicket(pub u64);

/// Where a record lies in a shard's journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// The segment's number.
    pub segment: u32,
    /// Octets from the segment's start to the record's header.
    pub offset: u32,
    /// Octets of the record's payload.
    pub len: u32,
}

/// Work for the store, collected during a turn. The driver lends an empty one and gets a full one.
#[derive(Debug, Default)]
pub struct StoreBatch {
    /// Payloads of the records to append, one after the other.
    pub bytes: Vec<u8>,
    /// For each record its ticket (ascending by one) and payload length.
    pub appends: Vec<(StoreTicket, u32)>,
    /// Records to read back: a token for the answer, and where.
    pub reads: Vec<(u64, Location)>,
    /// Segments all of whose records are dead, to be reclaimed.
    pub dead_segments: Vec<u32>,
}

/// Outcome of store work. Reused by the driver.
#[derive(Debug, Default)]
pub struct StoreDone {
    /// Appends now durable, in ticket order, with where each record went.
    pub stored: Vec<(StoreTicket, Location)>,
    /// Every append from this ticket on has failed, for good: the store stopped (fails shut).
    pub failed_from: Option<StoreTicket>,
    /// Finished reads: token, range of `bytes`; an empty range is an unreadable record.
    pub loaded: Vec<(u64, u32, u32)>,
    /// Payloads of `loaded`.
    pub bytes: Vec<u8>,
    /// Set when it changed: what room the store has. Without enough it takes marks only.
    pub room: Option<Room>,
}

/// What room a store has for records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Segments are made ahead.
    #[default]
    Enough,
    /// A segment could not be made, for another reason than the next one.
    NoSegment,
    /// The disk, or what we may have of it, is full.
    NoSpace,
}

impl Room {
    /// `true` when what room is left is for marks.
    #[must_use]
    pub const fn is_low(self) -> bool {
        !matches!(self, Self::Enough)
    }
}

impl StoreDone {
    /// Empties it; keeps its capacity.
    pub fn clear(&mut self) {
        self.stored.clear();
        self.failed_from = None;
        self.loaded.clear();
        self.bytes.clear();
        self.room = None;
    }

    /// `true` when nothing finished and nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.stored.is_empty()
            && self.failed_from.is_none()
            && self.loaded.is_empty()
            && self.room.is_none()
    }
}

/// A frame on its way between shards of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshFrame {
    /// The shard that must get it.
    pub to: u8,
    /// The shard that sent it.
    pub from: u8,
    /// What to do with it.
    pub body: MeshBody,
}

/// Contents of a [`MeshFrame`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshBody {
    /// A SIP message that belongs to the receiving shard, with where it came in.
    Sip {
        /// The link on the sending shard.
        link: LinkId,
        /// What the link is.
        kind: LinkKind,
        /// The peer.
        source: SocketAddr,
        /// The whole message.
        bytes: Vec<u8>,
    },
    /// Bytes to be sent on a link of the receiving shard.
    Send {
        /// The link.
        link: LinkId,
        /// For a datagram socket, the destination.
        destination: Option<SocketAddr>,
        /// It must not overtake what already waits for the destination.
        last: bool,
        /// What to send.
        bytes: Vec<u8>,
    },
}

/// A deterministic engine core as its drivers see it.
pub trait Core {
    /// Takes one input at `now`.
    fn handle(&mut self, now: Timestamp, input: Input<'_>);
    /// Fires timers due at `now`; bounded work, so call again when `next_deadline` is still past.
    fn advance(&mut self, now: Timestamp);
    /// When `advance` next has work, never later than that.
    fn next_deadline(&self) -> Option<Timestamp>;
    /// Fills `buffer` (empty on entry) with everything one idle link has to send.
    fn poll_transmit(&mut self, buffer: &mut TxBuf) -> Option<Transmit>;
    /// Moves pending store work into `batch` (empty on entry); false when there is none.
    fn poll_store(&mut self, batch: &mut StoreBatch) -> bool;
    /// The next frame for another shard.
    fn poll_mesh(&mut self) -> Option<MeshFrame>;
    /// The next connect or close.
    fn poll_link(&mut self) -> Option<LinkCommand>;
    /// Appends the next piece of a checkpoint to `out`: what the store's records say, as far as the
    /// driver has reported them durable. Zero begins; `Some` is where to go on, in any later turn
    /// once all work for the store was taken; `None` ends it. Bounded work.
    fn checkpoint(&self, at: u64, out: &mut Vec<u8>) -> Option<u64> {
        let _ = (at, out);
        None
    }
    /// The next name to look up; answered by [`Input::Resolved`], never within this call.
    fn poll_query(&mut self) -> Option<NameQuery> {
        None
    }
    /// What the next input of octets begins with, or nothing: said before each one, with the one behind it, by
    /// drivers that know. For speed only; it changes nothing that a peer can see.
    fn foresee(&mut self, front: &[u8]) {
        let _ = front;
    }
    /// The kernel has, at `now`, what the last turn said. For figures only: a driver that reads the clock for
    /// its next turn says it then.
    fn handed_over(&mut self, now: Timestamp) {
        let _ = now;
    }
    /// The driver has nothing more to do: all that came was handled, all that was said has left. True when
    /// the core has: it does some of it here, or lets begin with the next `advance` what was put off, and wants
    /// to be told again as soon as the driver has nothing to do.
    fn caught_up(&mut self) -> bool {
        false
    }
    /// False while the driver must not read from peers.
    fn room(&self) -> bool;
    /// True once a drain has finished.
    fn is_drained(&self) -> bool;
}
