//! What the world wants sent, by connection; the driver carries it out.

use std::net::SocketAddr;

use crate::chaos::{Chaos, Fate};

/// Number of a connection.
pub type LinkId = u32;

/// What travels on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MSRP over TCP.
    Msrp,
    /// SIP over TCP.
    Sip,
    /// SIP over UDP: one peer of the one socket.
    SipDatagram,
}

/// A connection that the driver shall open.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// The link it gets.
    pub link: LinkId,
    /// Where to.
    pub address: SocketAddr,
    /// What for.
    pub protocol: Protocol,
}

/// One connection's output.
#[derive(Debug)]
pub struct Link {
    /// Octets to send.
    pub buffer: Vec<u8>,
    /// Datagram ends within `buffer`.
    pub ends: Vec<u32>,
    /// What travels here.
    pub protocol: Protocol,
    /// The other side.
    pub peer: SocketAddr,
    /// Which next hop took the connection.
    pub hop: u8,
    /// Device index plus one of a connection that serves one session; zero for shared ones.
    pub device: u32,
    dirty: bool,
    /// Whether the connection is gone; output is dropped.
    pub closed: bool,
}

/// All connections' output.
#[derive(Debug, Default)]
pub struct Outbox {
    links: Vec<Link>,
    free: Vec<LinkId>,
    /// Links with new output since the driver looked.
    pub dirty: Vec<LinkId>,
    /// Connections to open.
    pub connects: Vec<Connect>,
    /// Connections to close after their output is sent.
    pub closes: Vec<LinkId>,
    /// Octets queued in all.
    pub bytes: u64,
    /// Ends of messages are kept on streams, too.
    pub ends_kept: bool,
    /// Connections to reset instead of closing them.
    pub resets: Vec<LinkId>,
    /// What chance does with datagrams.
    pub chaos: Option<Chaos>,
    /// Datagrams held back: link, nanoseconds, octets.
    pub held: Vec<(LinkId, u64, Vec<u8>)>,
}

impl Outbox {
    /// An outbox whose datagrams are left to chance.
    pub fn new(chaos: Option<Chaos>) -> Self {
        Self {
            chaos,
            ..Self::default()
        }
    }

    /// Registers a connection.
    pub fn add(&mut self, protocol: Protocol, peer: SocketAddr) -> LinkId {
        let fresh = || Link {
            buffer: Vec::new(),
            ends: Vec::new(),
            protocol,
            peer,
            hop: 0,
            device: 0,
            dirty: false,
            closed: false,
        };
        if let Some(id) = self.free.pop() {
            self.links[id as usize] = fresh();
            return id;
        }
        self.links.push(fresh());
        (self.links.len() - 1) as LinkId
    }

    /// Registers a connection and asks the driver to open it.
    pub fn connect(&mut self, protocol: Protocol, address: SocketAddr) -> LinkId {
        let link = self.add(protocol, address);
        self.connects.push(Connect {
            link,
            address,
            protocol,
        });
        link
    }

    /// A connection.
    pub fn link(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id as usize]
    }

    /// A connection, to look at.
    pub fn peek(&self, id: LinkId) -> &Link {
        &self.links[id as usize]
    }

    /// The buffer to append one message to; [`Outbox::sent`] must follow.
    #[inline]
    pub fn buffer(&mut self, id: LinkId) -> &mut Vec<u8> {
        &mut self.links[id as usize].buffer
    }

    /// Ends the message appended last.
    #[inline]
    pub fn sent(&mut self, id: LinkId) {
        let link = &mut self.links[id as usize];
        if link.closed {
            link.buffer.clear();
            return;
        }
        if link.protocol == Protocol::SipDatagram || self.ends_kept {
            link.ends.push(link.buffer.len() as u32);
        }
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(id);
        }
    }

    /// The message that ended last on a datagram link.
    pub fn last(&self, id: LinkId) -> &[u8] {
        let link = &self.links[id as usize];
        match link.ends.as_slice() {
            [.., before, end] => &link.buffer[*before as usize..*end as usize],
            [end] => &link.buffer[..*end as usize],
            [] => &[],
        }
    }

    /// Lets chance have its way with the message that ended last on a datagram link.
    pub fn fate(&mut self, id: LinkId) {
        let Some(chaos) = &mut self.chaos else {
            return;
        };
        let link = &mut self.links[id as usize];
        if link.protocol != Protocol::SipDatagram {
            return;
        }
        let start = match link.ends.as_slice() {
            [.., before, _] => *before as usize,
            _ => 0,
        };
        match chaos.draw() {
            Fate::Pass => {}
            Fate::Drop => {
                link.ends.pop();
                link.buffer.truncate(start);
            }
            Fate::Twice => {
                link.buffer.extend_from_within(start..);
                link.ends.push(link.buffer.len() as u32);
            }
            Fate::Later(wait) => {
                link.ends.pop();
                let bytes = link.buffer.split_off(start);
                self.held.push((id, wait, bytes));
            }
        }
    }

    /// Takes a link's output into `spare` (empty) in exchange.
    pub fn take(&mut self, id: LinkId, spare: &mut Vec<u8>) {
        let link = &mut self.links[id as usize];
        core::mem::swap(&mut link.buffer, spare);
        link.ends.clear();
        link.dirty = false;
        self.bytes += spare.len() as u64;
    }

    /// Marks a link's output as taken by other means.
    pub fn taken(&mut self, id: LinkId) {
        let link = &mut self.links[id as usize];
        self.bytes += link.buffer.len() as u64;
        link.buffer.clear();
        link.ends.clear();
        link.dirty = false;
    }

    /// Marks a connection as gone. Its number may be used again only after [`Outbox::release`].
    pub fn close(&mut self, id: LinkId) {
        let link = &mut self.links[id as usize];
        link.closed = true;
        link.buffer = Vec::new();
    }

    /// Gives a closed connection's number free; nobody may hold it any more.
    pub fn release(&mut self, id: LinkId) {
        self.close(id);
        self.free.push(id);
    }
}
