//! What a run is drawn from: size, faults, and how the engine is set up.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use crate::base::entropy::Jitter;
use crate::push::campaign::CampaignOptions;
use crate::push::hops::{COMMON_SET, HopOptions, HopTransport};
use crate::push::names::NameOptions;
use crate::push::options::{Grouping, PushOptions};
use crate::push::post::PostOptions;
use crate::reginfo::subscription::SubscribeOptions;
use crate::registry::{OutcomeOptions, RegistryOptions};
use crate::selection::Policy;
use crate::shard::ShardOptions;
use crate::sip::session_timer::SessionTimerOptions;
use crate::sip::template::Profile;
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::server::ServerOptions;
use crate::store::index::{CleanOptions, Goal};

/// The engine's only address; shards differ by port.
pub(super) const ENGINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// SIP port of shard 0; shard `n` has the `n`-th after it.
pub(super) const SIP_PORT: u16 = 5060;
/// MSRP port of shard 0.
pub(super) const MSRP_PORT: u16 = 2855;

/// The address of next hop `index`.
pub(super) fn hop_address(index: usize) -> SocketAddr {
    let last = u8::try_from(index + 1).expect("a handful of hops");
    SocketAddr::from(([198, 51, 100, last], 5060))
}

/// A probability in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ratio(pub u16);

impl Ratio {
    /// Never.
    pub const ZERO: Self = Self(0);

    /// Throws the dice.
    pub(super) fn hits(self, dice: &mut Jitter) -> bool {
        self.0 > 0 && dice.below(1000) < u64::from(self.0)
    }
}

/// How SIP travels between the engine and the SIP core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Trunk connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Options of a run. Times are virtual.
#[derive(Clone, Debug)]
pub struct Options {
    /// Determines everything else that is random.
    pub seed: u64,
    /// Shards of the engine, 1..=8.
    pub shards: usize,
    /// How SIP travels.
    pub transport: Transport,
    /// Users.
    pub users: usize,
    /// Most devices of a user, 1..=3.
    pub phones_max: usize,
    /// Messages sent over the whole run.
    pub messages: usize,
    /// How long faults last; then the world heals.
    pub safety: Duration,
    /// Datagrams lost.
    pub loss: Ratio,
    /// Datagrams doubled.
    pub duplication: Ratio,
    /// Shortest and longest way of a datagram or segment.
    pub delay: (Duration, Duration),
    /// Connections reset during the safety phase.
    pub resets: usize,
    /// Crashes of the process during the safety phase.
    pub crashes: usize,
    /// Commits of the store that take five seconds.
    pub stalls: Ratio,
    /// Commits whose sync fails, once: the store has failed from then on.
    pub sync_errors: Ratio,
    /// Records that cannot be read back, this time.
    pub read_errors: Ratio,
    /// Times the disk gets full for a while.
    pub full_disks: usize,
    /// Times the wall clock jumps ahead by a year for a while.
    pub clock_jumps: usize,
    /// Calls that a device does not simply answer.
    pub mischief: Ratio,
    /// Partial documents that leave a version out.
    pub gaps: Ratio,
    /// Requests in a dialog that come in at another shard.
    pub missteered: Ratio,
    /// Responses in which the hop says how many new requests it wants (RFC 7339).
    pub wishes: Ratio,
    /// Users who never register.
    pub absent: Ratio,
    /// The registrar answers 480 for absent users, rather than telling that nobody is there.
    pub absent_480: bool,
    /// Registrations that end and come back during the safety phase.
    pub churn: usize,
    /// Next hops, 1..=2.
    pub hops: usize,
    /// INVITEs in flight per hop.
    pub inflight_max: u32,
    /// How long sessions linger.
    pub linger: Duration,
    /// `Session-Expires` asked for, seconds.
    pub session_expires_s: u32,
    /// Longest session.
    pub max_session: Duration,
    /// Most messages of a session.
    pub max_messages: u32,
    /// One message per session.
    pub one_by_one: bool,
    /// Sessions share MSRP connections.
    pub reuse: bool,
    /// Bodies kept in memory, octets.
    pub cache_bytes: usize,
    /// Octets of a store segment.
    pub segment_bytes: u32,
    /// Unsettled records above which the engine stops reading.
    pub unsettled_max: usize,
    /// Changes of the rules of selection during the safety phase.
    pub orders: usize,
    /// Messages that come by INVITE and MSRP.
    pub large: Ratio,
    /// INVITEs under way from which on an engine that is behind begins no more.
    pub hot_invites: u32,
}

impl Options {
    /// A small world without faults.
    #[must_use]
    pub const fn calm() -> Self {
        Self {
            seed: 1,
            shards: 1,
            transport: Transport::Tcp,
            users: 0,
            phones_max: 1,
            messages: 0,
            safety: Duration::from_secs(60),
            loss: Ratio::ZERO,
            duplication: Ratio::ZERO,
            delay: (Duration::from_millis(2), Duration::from_millis(2)),
            resets: 0,
            crashes: 0,
            stalls: Ratio::ZERO,
            sync_errors: Ratio::ZERO,
            read_errors: Ratio::ZERO,
            full_disks: 0,
            clock_jumps: 0,
            mischief: Ratio::ZERO,
            gaps: Ratio::ZERO,
            missteered: Ratio::ZERO,
            wishes: Ratio::ZERO,
            absent: Ratio::ZERO,
            absent_480: false,
            churn: 0,
            hops: 1,
            inflight_max: 64,
            linger: Duration::from_secs(2),
            session_expires_s: 1800,
            max_session: Duration::from_secs(300),
            max_messages: 1000,
            one_by_one: false,
            reuse: false,
            cache_bytes: 1 << 20,
            segment_bytes: 64 * 1024,
            unsettled_max: 1024,
            orders: 0,
            large: Ratio::ZERO,
            hot_invites: 2048,
        }
    }

    /// The run that `seed` stands for: size, faults and set-up from streams of their own.
    #[must_use]
    pub fn drawn(seed: u64, shards: usize) -> Self {
        let mut dice = Jitter::new(seed ^ 0x0b57_ac1e);
        let mut pick = |choices: &[u64]| {
            let at = dice.below(choices.len() as u64);
            choices[usize::try_from(at).expect("a short list")]
        };
        let udp = pick(&[0, 1]) == 1;
        let ratio = |value: u64| Ratio(u16::try_from(value).expect("thousandths"));
        let size = |value: u64| usize::try_from(value).expect("a small number");
        let slow = Duration::from_millis(pick(&[2, 20, 150, 600]));
        Self {
            seed,
            shards,
            transport: if udp { Transport::Udp } else { Transport::Tcp },
            users: size(pick(&[2, 4, 6])),
            phones_max: size(pick(&[1, 2, 3])),
            messages: size(pick(&[6, 12, 24])),
            safety: Duration::from_secs(pick(&[120, 400])),
            loss: ratio(if udp { pick(&[0, 30, 200, 350]) } else { 0 }),
            duplication: ratio(if udp { pick(&[0, 50, 300]) } else { 0 }),
            delay: (Duration::from_millis(1), slow),
            resets: size(pick(&[0, 0, 3, 12])),
            crashes: size(pick(&[0, 0, 1, 3])),
            stalls: ratio(pick(&[0, 50, 300])),
            mischief: ratio(pick(&[0, 300, 600, 900])),
            gaps: ratio(pick(&[0, 200])),
            missteered: ratio(pick(&[0, 300])),
            absent: ratio(pick(&[0, 250])),
            absent_480: pick(&[0, 1]) == 1,
            churn: size(pick(&[0, 4, 12])),
            hops: size(pick(&[1, 2])),
            inflight_max: u32::try_from(pick(&[1, 3, 64])).expect("small"),
            linger: Duration::from_secs(pick(&[0, 2, 150])),
            session_expires_s: u32::try_from(pick(&[90, 1800])).expect("small"),
            max_session: Duration::from_secs(pick(&[100, 300])),
            max_messages: u32::try_from(pick(&[2, 1000])).expect("small"),
            one_by_one: pick(&[0, 0, 0, 1]) == 1,
            reuse: pick(&[0, 0, 1]) == 1,
            cache_bytes: size(pick(&[3000, 1 << 20])),
            segment_bytes: u32::try_from(pick(&[4096, 65_536])).expect("small"),
            unsettled_max: size(pick(&[2, 1024])),
            sync_errors: ratio(pick(&[0, 0, 0, 30])),
            read_errors: ratio(pick(&[0, 0, 150])),
            full_disks: size(pick(&[0, 0, 2])),
            clock_jumps: size(pick(&[0, 0, 1])),
            orders: size(pick(&[0, 0, 2, 5])),
            large: ratio(pick(&[0, 0, 400])),
            hot_invites: u32::try_from(pick(&[1, 2048])).expect("small"),
            wishes: ratio(pick(&[0, 0, 60, 500])),
        }
    }

    /// The engine's options of `shard`.
    pub(super) fn shard(&self, shard: u8) -> ShardOptions {
        let reliable = self.transport == Transport::Tcp;
        let transaction = TransactionOptions {
            reliable,
            ..TransactionOptions::default()
        };
        let port = SIP_PORT + u16::from(shard);
        let (lower, upper) = if reliable {
            ("tcp", "TCP")
        } else {
            ("udp", "UDP")
        };
        let sent_by = format!("{ENGINE}:{port}");
        ShardOptions {
            shard,
            shards: self.shards,
            profile: Profile {
                contact_uri: format!("sip:push@{sent_by};transport={lower}"),
                transport: upper.into(),
                // Our INVITE is larger there; the others fill their size classes.
                datagram_max: if reliable { 0 } else { 1472 },
                route: format!("<sip:{};lr>", hop_address(0)),
                originating_route: format!("<sip:{};lr;orig>", hop_address(0)),
                call_id_host: ENGINE.to_string(),
                session_expires_s: Some(self.session_expires_s),
                msrp_host: IpAddr::V4(ENGINE),
                msrp_port: MSRP_PORT + u16::from(shard),
                sent_by,
                ..Profile::default()
            },
            domains: vec![b"ims.example.net".to_vec()],
            trusted_peers: Vec::new(),
            hops: self.hop_options(reliable),
            sets: Vec::new(),
            names: NameOptions::default(),
            message_max: crate::base::limits::SIP_MESSAGE_BYTES_MAX,
            push: self.push_options(transaction),
            campaign: CampaignOptions {
                coalesce: Duration::from_millis(50),
                policy: Policy::default(),
                registry: RegistryOptions::default(),
                outcome: OutcomeOptions {
                    decline_hold: Duration::from_secs(120),
                    ..OutcomeOptions::default()
                },
                goal: Goal::EachSelected,
                decisions_per_turn: 16,
                hot_invites: self.hot_invites,
                pushes_per_s: 0,
            },
            post: PostOptions {
                cache_bytes_max: self.cache_bytes,
                unsettled_max: self.unsettled_max,
                clean: CleanOptions {
                    segment_bytes: u64::from(self.segment_bytes),
                    slack_segments: 1,
                    bytes_per_s: 4 << 20,
                    ..CleanOptions::default()
                },
                // Whether what rests is folded is nobody's to notice.
                kept_warm: if self.seed.is_multiple_of(2) {
                    0
                } else {
                    crate::base::limits::WARM_KEPT
                },
                ..PostOptions::default()
            },
            clock: crate::base::wall::ClockOptions::default(),
            subscribe: SubscribeOptions {
                transaction,
                ..SubscribeOptions::default()
            },
            subscribe_always: false,
            subscribe_users: Vec::new(),
            subscribe_pace_per_s: 50,
            inbound: crate::msrp::inbound::InboundOptions::default(),
            pager_max: 16 * 1024,
            users_max: 1000,
            pushes_max: 1000,
            pushes_warm: 4,
            server: ServerOptions {
                transactions_max: 4096,
                ..ServerOptions::default()
            },
            tick: Duration::from_millis(10),
        }
    }

    fn hop_options(&self, reliable: bool) -> Vec<HopOptions> {
        let transport = if reliable {
            HopTransport::Tcp
        } else {
            HopTransport::Udp
        };
        (0..self.hops)
            .map(|index| HopOptions {
                address: hop_address(index),
                transport,
                connections: if reliable { 2 } else { 1 },
                invite_inflight_max: self.inflight_max,
                set: COMMON_SET,
                priority: u16::try_from(index).expect("a handful of hops"),
                weight: 1,
            })
            .collect()
    }

    fn push_options(&self, transaction: TransactionOptions) -> PushOptions {
        PushOptions {
            transaction,
            timer: SessionTimerOptions {
                ask_s: Some(self.session_expires_s),
                ..SessionTimerOptions::default()
            },
            linger: self.linger,
            max_session: self.max_session,
            max_messages: self.max_messages,
            msrp_reuse: self.reuse,
            grouping: if self.one_by_one {
                Grouping::Message
            } else {
                Grouping::User
            },
            ..PushOptions::default()
        }
    }
}
