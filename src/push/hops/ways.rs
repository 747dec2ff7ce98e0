//! Where a request inside a dialog goes: to the host of its first Route, or of its target (NH-2;
//! RFC 3263 sections 4.1 and 4.2).
//!
//! A route comes from peers, so it may only lead where we would talk to anyway: to a hop, to another
//! port of a hop's host, or to an address the operator trusts. Everything else goes by the hop that
//! took the INVITE, which is a proxy and reads the Route itself. A URI that demands TLS is refused, not
//! downgraded. SRV and NAPTR are not looked up.
//!
//! A name that is not known yet, or a host we are not connected to yet, makes the request wait: its
//! push leaves its key with [`Hops::wait`] and is called again when there is news, at the latest after
//! [`WAIT_MAX`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use crate::base::slab::Key;
use crate::base::surface::NameQuery;
use crate::base::time::Timestamp;
use crate::push::hops::{FAR_SET, Hop, HopOptions, HopTransport, Hops};
use crate::push::names::Found;
use crate::sip::header::HeaderName;
use crate::sip::message::Message;
use crate::sip::template::Profile;
use crate::sip::uri::{self, Scheme, Uri};

/// Longest wait of a request for its way.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(3);
/// Most pushes that wait at a time; a further one goes by the hop of its INVITE.
const WAITING_MAX: usize = 4096;
/// Most hosts beside the configured hops that routes lead to.
const FAR_MAX: usize = 64;
/// How long a host no route led to is still connected again.
const FAR_IDLE: Duration = Duration::from_secs(120);
/// How long a way that depends on nothing that changes is remembered.
const MEMO_MAX: Duration = Duration::from_secs(60);
/// Port of a URI that names none.
const SIP_PORT: u16 = 5060;

/// An S-CSCF with hops of its own.
#[derive(Clone, Debug, Default)]
pub struct SetOptions {
    /// Hosts by which it calls itself in Contact and From of a third-party REGISTER, lower case, with a
    /// port where one host is several S-CSCFs.
    pub hosts: Vec<(String, Option<u16>)>,
    /// The first Route towards it, in angle brackets; `None` is the common one.
    pub route: Option<String>,
}

impl SetOptions {
    /// The profile of requests to it.
    #[must_use]
    pub fn applied_to(&self, profile: &Profile) -> Profile {
        let mut profile = profile.clone();
        if let Some(route) = &self.route {
            profile.originating_route = match route.strip_suffix('>') {
                Some(open) => format!("{open};orig>"),
                None => format!("{route};orig"),
            };
            profile.route.clone_from(route);
        }
        profile
    }
}

/// Where a request inside a dialog goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To this hop.
    Hop(u16),
    /// Where the INVITE went.
    Own,
    /// The URI demands what we do not have (TLS): it must not be sent.
    Refused,
    /// It will be known soon.
    Waiting,
}

/// The last route and where it led: most dialogs of an S-CSCF have the same.
#[derive(Debug, Default)]
pub(super) struct Memo {
    uri: Vec<u8>,
    way: Option<Way>,
    until: Timestamp,
}

impl Memo {
    pub(super) const fn forget(&mut self) {
        self.way = None;
    }
}

impl Hops {
    /// Where a request whose first Route (or else target) is `uri` goes.
    pub fn way(&mut self, now: Timestamp, uri: &[u8]) -> Way {
        if let Some(way) = self.memo.way
            && self.memo.until > now
            && self.memo.uri == uri
        {
            return way;
        }
        let (way, until) = self.find_way(now, uri);
        if way == Way::Waiting {
            self.memo.forget();
        } else {
            self.memo.uri.clear();
            self.memo.uri.extend_from_slice(uri);
            self.memo.way = Some(way);
            self.memo.until = until;
        }
        way
    }

    fn find_way(&mut self, now: Timestamp, uri: &[u8]) -> (Way, Timestamp) {
        let lasting = now + MEMO_MAX;
        let Ok(parsed) = uri::parse(uri) else {
            return (Way::Own, lasting);
        };
        match parsed.scheme {
            Scheme::Sip => {}
            Scheme::Sips => return (Way::Refused, lasting),
            Scheme::Tel | Scheme::Other => return (Way::Own, lasting),
        }
        let transport = match self.transport_of(&parsed) {
            Ok(transport) => transport,
            Err(way) => return (way, lasting),
        };
        let maddr = parsed.param(b"maddr").filter(|host| !host.is_empty());
        let host = maddr.unwrap_or(parsed.host);
        let port = parsed.port.unwrap_or(SIP_PORT);
        let is_own = |(own, own_port): &(String, u16)| {
            *own_port == port && own.as_bytes().eq_ignore_ascii_case(host)
        };
        if self.own_routes.iter().any(is_own) {
            return (Way::Own, lasting);
        }
        let mut list = [IpAddr::V4(Ipv4Addr::UNSPECIFIED); crate::push::names::ADDRESSES_MAX];
        let mut count = 1;
        let mut until = lasting;
        if let Some(ip) = numeric(host) {
            list[0] = ip;
        } else {
            let (found, holds) = self.names.look(now, host);
            until = until.min(holds);
            match found {
                Found::Known(known) => {
                    count = known.len().min(list.len());
                    list[..count].copy_from_slice(&known[..count]);
                }
                Found::Asked => return (Way::Waiting, now),
                Found::Absent => return (Way::Own, until),
            }
        }
        let admitted = list[..count].iter().find(|&&ip| self.admits(ip));
        let Some(&ip) = admitted else {
            return (Way::Own, until);
        };
        (self.reach(now, SocketAddr::new(ip, port), transport), until)
    }

    /// The transport a URI asks for; without a parameter, that of our requests.
    fn transport_of(&self, uri: &Uri<'_>) -> Result<HopTransport, Way> {
        let configured = self.hops.first().map(|hop| hop.options.transport);
        let usual = configured.unwrap_or(HopTransport::Tcp);
        let Some(value) = uri.param(b"transport") else {
            return Ok(usual);
        };
        if value.eq_ignore_ascii_case(b"tcp") {
            return Ok(HopTransport::Tcp);
        }
        if value.eq_ignore_ascii_case(b"udp") {
            // Without a known path MTU our requests are too long for it (NH-4).
            return Ok(usual);
        }
        let secure = value.eq_ignore_ascii_case(b"tls") || value.eq_ignore_ascii_case(b"wss");
        Err(if secure { Way::Refused } else { Way::Own })
    }

    /// Whether a route may lead to `ip`.
    fn admits(&self, ip: IpAddr) -> bool {
        let is_hop = |hop: &Hop| hop.options.set != FAR_SET && hop.options.address.ip() == ip;
        self.hops.iter().any(is_hop) || self.trusted.contains(&ip)
    }

    /// The hop at `address`, made when there is none.
    fn reach(&mut self, now: Timestamp, address: SocketAddr, transport: HopTransport) -> Way {
        let is_it =
            |hop: &Hop| hop.options.address == address && hop.options.transport == transport;
        // A host is in several sets, or has gone down in one of them.
        let up = |hop: &Hop| is_it(hop) && hop.trunk().is_some();
        let known = self.hops.iter().position(up);
        let place = known.or_else(|| self.hops.iter().position(is_it));
        let place = match place {
            Some(place) => place,
            None => match self.far_place(now) {
                Some(place) => {
                    self.open_far(place, address, transport);
                    place
                }
                None => return Way::Own,
            },
        };
        let hop = &mut self.hops[place];
        hop.used_at = now;
        if hop.trunk().is_some() {
            return Way::Hop(u16::try_from(place).expect("fewer hops than 2^16"));
        }
        // One that failed is tried again, but nobody waits for that.
        let is_new = hop.trunks.iter().all(|trunk| trunk.failures == 0);
        if hop.options.set == FAR_SET && is_new {
            Way::Waiting
        } else {
            Way::Own
        }
    }

    /// A place for one more host: a new one, or that of the host no route led to for longest.
    fn far_place(&self, now: Timestamp) -> Option<usize> {
        let far = |hop: &Hop| hop.options.set == FAR_SET;
        if self.hops.iter().filter(|hop| far(hop)).count() < FAR_MAX {
            return Some(self.hops.len());
        }
        let is_resting =
            |hop: &Hop| far(hop) && hop.is_idle(now) && !hop.trunks.iter().any(|t| t.connecting);
        (0..self.hops.len())
            .filter(|&place| is_resting(&self.hops[place]))
            .min_by_key(|&place| self.hops[place].used_at)
    }

    fn open_far(&mut self, place: usize, address: SocketAddr, transport: HopTransport) {
        let options = HopOptions {
            address,
            transport,
            connections: 1,
            invite_inflight_max: u32::MAX,
            set: FAR_SET,
            priority: 0,
            weight: 1,
        };
        let mut hop = Hop::new(options, self.shards, (place + 1, 0));
        if transport == HopTransport::Udp {
            hop.trunks[0].link = self.socket;
        }
        match self.hops.get_mut(place) {
            Some(old) => {
                if old.options.transport == HopTransport::Tcp {
                    self.retired.extend(old.trunk());
                }
                *old = hop;
            }
            None => self.hops.push(hop),
        }
        self.memo.forget();
    }

    /// `push` waits for its way. False when too many do: it goes by the hop of its INVITE then.
    pub fn wait(&mut self, now: Timestamp, push: Key) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        if self.waiting.is_empty() {
            self.waiting_since = now;
        }
        self.waiting.push(push);
        true
    }

    /// Those who wait, when there is news or they have waited long enough; the flag says which: `true`
    /// is that no more waiting helps.
    pub fn take_waiting(&mut self, now: Timestamp, into: &mut Vec<Key>) -> Option<bool> {
        let is_late = self.waiting_since + WAIT_MAX <= now;
        let news = core::mem::take(&mut self.news);
        if self.waiting.is_empty() || !(news || is_late) {
            return None;
        }
        into.append(&mut self.waiting);
        Some(is_late)
    }

    pub(super) fn tell(&mut self) {
        self.memo.forget();
        self.news = !self.waiting.is_empty();
    }

    /// The next name to look up.
    pub fn poll_query(&mut self) -> Option<NameQuery> {
        self.names.poll()
    }

    /// Times a name was taken for unknown because too many were being looked up.
    #[must_use]
    pub const fn names_crowded(&self) -> u64 {
        self.names.crowded()
    }

    /// What a name stands for.
    pub fn resolved(&mut self, now: Timestamp, token: u64, addresses: &[IpAddr]) {
        if self.names.resolved(now, token, addresses) {
            self.tell();
        }
    }

    /// The set of the S-CSCF that a third-party REGISTER comes from: its Contact names it, or else its
    /// From (3GPP TS 24.229 section 5.7.1.1). `None` when it names none of ours.
    #[must_use]
    pub fn set_named_by(&self, message: &Message<'_>) -> Option<u8> {
        if self.sets.is_empty() {
            return None;
        }
        let contact = message
            .header(HeaderName::Contact)
            .and_then(|_| message.contact())
            .and_then(Result::ok)
            .map(|contact| contact.uri);
        let from = message.from().ok().map(|from| from.uri);
        [contact, from]
            .into_iter()
            .flatten()
            .find_map(|uri| self.set_of(uri))
    }

    /// The set whose S-CSCF `uri` names, by name or by the address of a hop.
    #[must_use]
    pub fn set_of(&self, uri: &[u8]) -> Option<u8> {
        if self.sets.is_empty() {
            return None;
        }
        let uri = uri::parse(uri).ok()?;
        let port = uri.port.unwrap_or(SIP_PORT);
        let is_named = |(host, of): &(String, Option<u16>)| {
            of.is_none_or(|of| of == port) && host.as_bytes().eq_ignore_ascii_case(uri.host)
        };
        let named = self
            .sets
            .iter()
            .position(|set| set.hosts.iter().any(is_named));
        if let Some(place) = named {
            return u8::try_from(place + 1).ok();
        }
        let address = SocketAddr::new(numeric(uri.host)?, port);
        let at = |hop: &&Hop| hop.options.address == address && hop.options.set != FAR_SET;
        self.hops.iter().find(at).map(|hop| hop.options.set)
    }
}

impl Hop {
    /// A host that no route led to lately: it is not connected again.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.options.set == FAR_SET && self.used_at + FAR_IDLE <= now
    }
}

/// The address that a host of a URI is, if it is no name.
fn numeric(host: &[u8]) -> Option<IpAddr> {
    let text = core::str::from_utf8(host).ok()?;
    match text.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}
