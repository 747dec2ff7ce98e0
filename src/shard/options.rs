//! What a shard is told at its start.

use core::net::IpAddr;
use core::time::Duration;

use crate::base::octets;
use crate::base::token::Minter;
use crate::base::wall::ClockOptions;
use crate::msrp::inbound::InboundOptions;
use crate::push::campaign::CampaignOptions;
use crate::push::dialect::{Dialect, DialectOptions, Forms};
use crate::push::hops::{HopOptions, RoutingOptions, SetOptions};
use crate::push::names::NameOptions;
use crate::push::notices::NOTICES_MAX;
use crate::push::options::PushOptions;
use crate::push::post::PostOptions;
use crate::push::{Env, OwnMedia};
use crate::reginfo::subscription::SubscribeOptions;
use crate::shard::timers::WATCHES_MAX;
use crate::sip::template::{Profile, ProfileError};
use crate::sip::transaction::server::ServerOptions;
use crate::sip::uri;

/// Options of one shard. `config` fills them.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// This shard's number.
    pub shard: u8,
    /// Shards of the process.
    pub shards: usize,
    /// What our requests look like.
    pub profile: Profile,
    /// Home domains, lower case.
    pub domains: Vec<Vec<u8>>,
    /// Addresses that may talk SIP to us; empty trusts all.
    pub trusted_peers: Vec<IpAddr>,
    /// Next hops.
    pub hops: Vec<HopOptions>,
    /// S-CSCFs with hops of their own.
    pub sets: Vec<SetOptions>,
    /// Host names of routes.
    pub names: NameOptions,
    /// Largest SIP message taken from a stream, octets; at most [`SIP_MESSAGE_BYTES_MAX`](crate::base::limits::SIP_MESSAGE_BYTES_MAX).
    pub message_max: usize,
    /// Pushes.
    pub push: PushOptions,
    /// Campaigns.
    pub campaign: CampaignOptions,
    /// Messages.
    pub post: PostOptions,
    /// When a jump of the wall clock is believed.
    pub clock: ClockOptions,
    /// Subscriptions.
    pub subscribe: SubscribeOptions,
    /// Subscribe on every registration.
    pub subscribe_always: bool,
    /// Identities subscribed at start.
    pub subscribe_users: Vec<String>,
    /// SUBSCRIBEs a second after a restart.
    pub subscribe_pace_per_s: u32,
    /// What peers may send in a push session.
    pub inbound: InboundOptions,
    /// Largest pager-mode body, octets.
    pub pager_max: usize,
    /// Most users.
    pub users_max: usize,
    /// Most pushes.
    pub pushes_max: usize,
    /// Push slots made at start.
    pub pushes_warm: usize,
    /// Server transactions over datagrams.
    pub server: ServerOptions,
    /// Tick of the timer wheel.
    pub tick: Duration,
}

/// Everything random about a shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardSeed {
    /// Key of identifiers; the same for all shards of a process, new at every start.
    pub identifier_key: [u8; 16],
    /// Seed of the shard's own streams.
    pub stream: [u8; 32],
}

impl ShardOptions {
    /// Timers that may be armed at once: one for each push, user, notice and session of a large message, and
    /// those of links, which have no more than their share.
    #[must_use]
    pub fn timers_max(&self) -> usize {
        let owners = self.users_max + self.pushes_max + self.post.large.sessions_max;
        (owners + NOTICES_MAX + WATCHES_MAX).min(crate::wheel::TIMERS_MAX)
    }

    /// Whether we serve `identity`, whose canonical form is `canonical`: a user of a home domain, or
    /// a telephone number (the S-CSCF sends us only its own users').
    #[must_use]
    pub fn serves(&self, identity: &[u8], canonical: &[u8]) -> bool {
        serves(&self.domains, identity, canonical)
    }

    /// Whether a P-Visited-Network-ID names a network of a home domain.
    #[must_use]
    pub fn is_home(&self, network: &[u8]) -> bool {
        let end = octets::find(network, b';').unwrap_or(network.len());
        let name = octets::trim(&network[..end]);
        let name = name.strip_prefix(b"\"").unwrap_or(name);
        let name = name.strip_suffix(b"\"").unwrap_or(name);
        self.domains.iter().any(|domain| {
            let Some(at) = name.len().checked_sub(domain.len()) else {
                return false;
            };
            let (before, tail) = name.split_at(at);
            tail.eq_ignore_ascii_case(domain) && matches!(before.last(), None | Some(b'.'))
        })
    }

    /// The shard that owns the user of `canonical` (FNV-1a, so that it is stable).
    #[must_use]
    pub fn owner(&self, canonical: &[u8]) -> u8 {
        owner(canonical, self.shards)
    }

    /// What the hops know about their surroundings.
    pub(super) fn routing(&self) -> RoutingOptions {
        let set_routes = self.sets.iter().filter_map(|set| set.route.as_ref());
        let routes = core::iter::once(&self.profile.route).chain(set_routes);
        let own = routes.filter_map(|route| {
            let bare = route.strip_prefix('<').unwrap_or(route);
            let bare = bare.strip_suffix('>').unwrap_or(bare);
            let uri = uri::parse(bare.as_bytes()).ok()?;
            let host = core::str::from_utf8(uri.host).ok()?;
            Some((host.to_owned(), uri.port.unwrap_or(5060)))
        });
        RoutingOptions {
            shards: u32::try_from(self.shards).expect("at most 256"),
            trusted: self.trusted_peers.clone(),
            own_routes: own.collect(),
            sets: self.sets.clone(),
            names: self.names.clone(),
        }
    }

    /// Compiles what the pushes need.
    pub(super) fn env(&self, identifier_key: [u8; 16]) -> Result<Env, ProfileError> {
        let mut msrp_prefix = b"msrp://".to_vec();
        let host = match self.profile.msrp_host {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        msrp_prefix.extend_from_slice(host.as_bytes());
        msrp_prefix.extend_from_slice(format!(":{}/", self.profile.msrp_port).as_bytes());
        let profile = &self.profile;
        let source = &profile.response_source;
        let response_source_line = if source.is_empty() {
            Vec::new()
        } else {
            format!("Response-Source: fe=\"<{source}>\"\r\n").into_bytes()
        };
        let plain = [DialectOptions::default()];
        let dialects = match &self.push.dialects[..] {
            [] => &plain,
            dialects => dialects,
        };
        let dialects = dialects
            .iter()
            .map(|dialect| Dialect::compile(dialect, profile, &self.sets, &self.push));
        Ok(Env {
            response_source_line,
            server_line: format!("Server: {}\r\n", profile.server).into_bytes(),
            dialects: dialects.collect::<Result<_, _>>()?,
            route_line: format!("Route: {}\r\n", profile.route).into_bytes(),
            media: OwnMedia {
                host: profile.msrp_host,
                port: profile.msrp_port,
                accept_types: profile.accept_types.clone().into_bytes(),
                accept_wrapped_types: profile.accept_wrapped_types.clone().into_bytes(),
                max_size: profile.max_size,
                allow_lines: format!("Allow: {}\r\nSupported: timer\r\n", profile.allow)
                    .into_bytes(),
            },
            shard: self.shard,
            minter: Minter::new(identifier_key),
            forms: Forms::compile(profile, &self.sets)?,
            set_route_lines: self
                .sets
                .iter()
                .map(|set| format!("Route: {}\r\n", set.applied_to(profile).route).into_bytes())
                .collect(),
            options: self.push.clone(),
            msrp_prefix,
            sent_by: self.profile.sent_by.clone().into_bytes(),
        })
    }
}

/// The shard, of so many, that owns the user of `canonical`.
///
/// # Panics
/// When there are no shards, or more than 256.
#[must_use]
pub fn owner(canonical: &[u8], shards: usize) -> u8 {
    let hash = canonical
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let shards = u64::try_from(shards).expect("at most 256");
    u8::try_from((hash ^ hash >> 32) % shards).expect("at most 256 shards")
}

/// Whether a user of `domains` (lower case) has this identity, whose canonical form is `canonical`; see
/// [`ShardOptions::serves`].
#[must_use]
#[inline]
pub fn serves(domains: &[Vec<u8>], identity: &[u8], canonical: &[u8]) -> bool {
    let served = |host: &[u8]| {
        let mut domains = domains.iter();
        domains.any(|domain| domain.eq_ignore_ascii_case(host))
    };
    // An address holds its host; only a number leaves it to the URI.
    if let Some(at) = octets::rfind(canonical, b'@') {
        return at > 0 && served(&canonical[at + 1..]);
    }
    // A number leaves its host to the URI, mostly one with nothing unusual behind the `@`.
    if let Some(at) = octets::find(identity, b'@')
        && let host = &identity[at + 1..]
        && octets::find(host, b'@').is_none()
        && octets::is_word(&identity[..4.min(at)], b"sip:")
    {
        let end = host.iter().position(|c| matches!(c, b':' | b';' | b'?'));
        return at > 4 && served(&host[..end.unwrap_or(host.len())]);
    }
    let Ok(parsed) = uri::parse(identity) else {
        return false;
    };
    if parsed.scheme == uri::Scheme::Tel {
        return canonical.starts_with(b"+");
    }
    parsed.user.is_some() && served(parsed.host)
}
