//! From the configuration file to the options of the parts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::wall::ClockOptions;
use crate::config::Config;
use crate::config::dialects::Dialects;
use crate::config::file::{
    CONNECTIONS_LEAST, Goal as GoalKey, Grouping, Gruu, Limits, OnDamage, Scscf, Trains, Transport,
};
use crate::config::policy::{base_policy, known_icsis};
use crate::io::listen::ShardAddresses;
use crate::io::store::{DamagePolicy, JournalOptions};
use crate::msrp::inbound::InboundOptions;
use crate::msrp::session::SessionOptions;
use crate::push::campaign::CampaignOptions;
use crate::push::hops::{COMMON_SET, HopOptions, HopTransport, SetOptions};
use crate::push::large::LargeOptions;
use crate::push::names::NameOptions;
use crate::push::options::{Grouping as PushGrouping, PushOptions};
use crate::push::post::PostOptions;
use crate::reginfo::subscription::SubscribeOptions;
use crate::registry::{GruuPolicy, OutcomeOptions, RegistryOptions};
use crate::shard::{ShardOptions, Tuning};
use crate::sip::session_timer::SessionTimerOptions;
use crate::sip::template::Profile;
use crate::sip::transaction::TransactionOptions;
use crate::sip::transaction::server::ServerOptions;
use crate::store::index::{CleanOptions, Goal, Quota};
use crate::store::op::LifeOptions;

/// Decisions of one turn of a shard.
const DECISIONS_PER_TURN: usize = 256;
/// Pushes whose state stays in the caches of a core, more or less.
const HOT_INVITES: u32 = 2048;
/// Descriptors the process needs beside its shards': standard streams, signals, operators.
const DESCRIPTORS_OF_PROCESS: u64 = 64;
/// Descriptors a shard needs beside connections: rings, listeners, and its journal's open segments.
const DESCRIPTORS_OF_SHARD: u64 = 128;
/// Tick of the timer wheel.
const TICK: Duration = Duration::from_millis(10);

/// The options of the shard that listens at `addresses`.
#[must_use]
pub fn shard_options(config: &Config, addresses: &ShardAddresses) -> ShardOptions {
    let transaction = TransactionOptions {
        t1: Duration::from_millis(config.sip.t1_ms),
        reliable: config.sip.transport == Transport::Tcp,
        ..TransactionOptions::default()
    };
    ShardOptions {
        shard: addresses.shard,
        shards: config.node.shards,
        profile: profile(config, addresses),
        domains: config
            .identity
            .domains
            .iter()
            .map(|domain| domain.to_ascii_lowercase().into_bytes())
            .collect(),
        trusted_peers: config.sip.trusted_peers.clone(),
        hops: hops(config),
        sets: sets(config),
        names: NameOptions {
            hosts: config.sip.hosts.clone().into_iter().collect(),
            resolve: config.sip.resolve,
            ttl: Duration::from_secs(config.sip.resolve_ttl_s),
            ..NameOptions::default()
        },
        message_max: config.sip.max_message,
        push: push_options(config, transaction),
        campaign: campaign_options(config),
        post: post_options(config),
        subscribe: SubscribeOptions {
            expires_s: config.subscription.expires_s,
            trust_register_body: config.subscription.trust_register_body,
            transaction,
            ..SubscribeOptions::default()
        },
        clock: ClockOptions {
            hold: Duration::from_secs(config.store.clock_hold_s),
            ..ClockOptions::default()
        },
        subscribe_always: config.subscription.always,
        subscribe_users: config.subscription.users.clone(),
        subscribe_pace_per_s: share_of(config.subscription.pace_per_s, config),
        inbound: InboundOptions::default(),
        pager_max: config.store.pager_max,
        users_max: config.limits.users_max,
        pushes_max: config.limits.pushes_max,
        pushes_warm: config.limits.pushes_max.min(1024),
        server: ServerOptions {
            t1: transaction.t1,
            transactions_max: config.limits.server_transactions_max,
            ..ServerOptions::default()
        },
        tick: TICK,
    }
}

/// Descriptors the process opens at most, with so many shards and these limits.
#[must_use]
pub fn descriptors(shards: usize, limits: &Limits) -> u64 {
    let shard = DESCRIPTORS_OF_SHARD + u64::from(limits.connections_max);
    DESCRIPTORS_OF_PROCESS + shard * shards as u64
}

/// Connections a shard may have where the process may open `nofile` files. A peer that is refused knows
/// so at once; one that no descriptor is left for waits, and so do the store's segments.
#[must_use]
pub fn connections_max(config: &Config, nofile: Option<u64>) -> u32 {
    let wanted = config.limits.connections_max;
    let Some(nofile) = nofile else {
        return wanted;
    };
    let share = nofile.saturating_sub(DESCRIPTORS_OF_PROCESS) / config.node.shards as u64;
    let left = share.saturating_sub(DESCRIPTORS_OF_SHARD);
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    wanted.min(left.max(CONNECTIONS_LEAST))
}

/// A shard's share of a pace of the process; 0 stays 0.
fn share_of(pace_per_s: u32, config: &Config) -> u32 {
    let shards = u32::try_from(config.node.shards).unwrap_or(u32::MAX);
    pace_per_s.div_ceil(shards.max(1))
}

/// The options of that shard's journal.
#[must_use]
pub fn journal_options(config: &Config, shard: u8) -> JournalOptions {
    JournalOptions {
        segment_bytes: config.store.segment_mib << 20,
        commit_age: Duration::from_micros(config.store.commit_us),
        checkpoint_after_bytes: u64::from(config.store.checkpoint_mib) << 20,
        free_segments: config.store.free_segments,
        shard: u32::from(shard),
        on_damage: match config.store.on_damage {
            OnDamage::Refuse => DamagePolicy::Refuse,
            OnDamage::Skip => DamagePolicy::Skip,
        },
        ..JournalOptions::default()
    }
}

/// `host:port` with brackets where IPv6 needs them.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn profile(config: &Config, addresses: &ShardAddresses) -> Profile {
    let udp = config.sip.transport == Transport::Udp;
    let own = if udp {
        addresses.sip_udp
    } else {
        addresses.sip_tcp
    };
    let own = own.unwrap_or(config.sip.listen);
    let host = config
        .sip
        .advertise
        .clone()
        .unwrap_or_else(|| own.ip().to_string());
    let sent_by = host_port(&host, own.port());
    let transport = if udp { "udp" } else { "tcp" };
    let hop = config.sip.next_hops.first().map_or(own, |hop| hop.address);
    let route = config
        .sip
        .route
        .clone()
        .unwrap_or_else(|| format!("sip:{hop};transport={transport};lr"));
    let product = format!(
        "CPM-serv/{} volley/{}",
        config.identity.cpm_release,
        env!("CARGO_PKG_VERSION")
    );
    let domain = config.identity.domains.first().cloned().unwrap_or_default();
    Profile {
        datagram_max: datagram_max(config, hop),
        contact_uri: format!("sip:push@{sent_by};transport={transport}"),
        sent_by,
        transport: transport.to_ascii_uppercase(),
        route: format!("<{route}>"),
        originating_route: format!("<{route};orig>"),
        pf_uri: config.identity.pf_uri.clone(),
        feature_value: config.identity.icsi.clone(),
        asserted_service: Some(config.identity.icsi.clone()),
        user_agent: product.clone(),
        server: product,
        icid_generated_at: host.clone(),
        orig_ioi: config.identity.orig_ioi.clone().unwrap_or(domain),
        oc: config.sip.overload_control,
        accept_require: config.push.accept_require,
        accept_explicit: config.push.accept_explicit,
        session_expires_s: Some(config.push.session_expires_s).filter(|&interval| interval > 0),
        msrp_host: msrp_host(config, addresses.msrp),
        msrp_port: addresses.msrp.port(),
        call_id_host: host,
        response_source: config.sip.response_source.clone().unwrap_or_default(),
        ..Profile::default()
    }
}

/// The largest datagram that travels in a train to `hop`; 0 when none does.
pub(super) fn datagram_max(config: &Config, hop: SocketAddr) -> u16 {
    const HEADERS: (u16, u16) = (20 + 8, 40 + 8);
    let trains = config.sip.transport == Transport::Udp && config.sip.udp_trains == Trains::Auto;
    let headers = if hop.is_ipv6() { HEADERS.1 } else { HEADERS.0 };
    let mtu = config.sip.path_mtu.filter(|_| trains).unwrap_or(0);
    mtu.saturating_sub(headers)
}

fn msrp_host(config: &Config, listen: SocketAddr) -> IpAddr {
    let fallback = if listen.ip().is_unspecified() {
        config.sip.listen.ip()
    } else {
        listen.ip()
    };
    config.msrp.advertise.unwrap_or(fallback)
}

fn hops(config: &Config) -> Vec<HopOptions> {
    let transport = match config.sip.transport {
        Transport::Tcp => HopTransport::Tcp,
        Transport::Udp => HopTransport::Udp,
    };
    let lists = config.sip.scscf.iter().map(|scscf| &scscf.next_hops);
    let lists = core::iter::once(&config.sip.next_hops).chain(lists);
    let mut all = Vec::new();
    for (set, list) in (COMMON_SET..).zip(lists) {
        all.extend((0_u16..).zip(list).map(|(place, hop)| HopOptions {
            address: hop.address,
            transport,
            connections: hop.connections,
            invite_inflight_max: hop.invite_inflight_max,
            set,
            priority: hop.priority.unwrap_or(place),
            weight: hop.weight,
        }));
    }
    all
}

/// The S-CSCFs with hops of their own, in the order that numbers their sets.
fn sets(config: &Config) -> Vec<SetOptions> {
    let transport = match config.sip.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let host_of = |name: &String| {
        let (host, port) = match name.rsplit_once(':') {
            Some((host, digits)) => match digits.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (name.as_str(), None),
            },
            None => (name.as_str(), None),
        };
        (host.to_ascii_lowercase(), port)
    };
    let set = |scscf: &Scscf| SetOptions {
        hosts: scscf.names.iter().map(host_of).collect(),
        route: scscf.route.clone().map_or_else(
            || {
                let hop = scscf.next_hops.first()?;
                Some(format!("<sip:{};transport={transport};lr>", hop.address))
            },
            |route| Some(format!("<{route}>")),
        ),
    };
    config.sip.scscf.iter().map(set).collect()
}

fn push_options(config: &Config, transaction: TransactionOptions) -> PushOptions {
    let push = &config.push;
    let dialects = Dialects::of(config);
    PushOptions {
        transaction,
        t_answer: Duration::from_secs(push.answer_s),
        timer: SessionTimerOptions {
            ask_s: Some(push.session_expires_s).filter(|&interval| interval > 0),
            ..SessionTimerOptions::default()
        },
        linger: Duration::from_millis(push.linger_ms),
        max_session: Duration::from_secs(push.max_session_s),
        max_messages: push.max_messages,
        media_guard: config.msrp.guard,
        msrp_reuse: config.msrp.reuse,
        grouping: match push.grouping {
            Grouping::Conversation => PushGrouping::Conversation,
            Grouping::User => PushGrouping::User,
            Grouping::Message => PushGrouping::Message,
        },
        dialects: dialects.options,
        reads_agents: !dialects.agents.0.is_empty(),
        agents: dialects.agents,
        session: SessionOptions {
            report_wait: Duration::from_millis(push.report_wait_ms),
            accept_hop_ack: push.accept_hop_ack,
            ..SessionOptions::default()
        },
        ..PushOptions::default()
    }
}

fn campaign_options(config: &Config) -> CampaignOptions {
    let selection = &config.selection;
    CampaignOptions {
        coalesce: Duration::from_millis(selection.coalesce_ms),
        policy: base_policy(config),
        registry: registry_options(config),
        outcome: OutcomeOptions {
            backoff_min: Duration::from_millis(selection.backoff_ms),
            ..OutcomeOptions::default()
        },
        goal: match config.push.goal {
            GoalKey::Any => Goal::Any,
            GoalKey::EachSelected => Goal::EachSelected,
            GoalKey::UntilExpiry => Goal::UntilExpiry,
        },
        decisions_per_turn: DECISIONS_PER_TURN,
        hot_invites: HOT_INVITES,
        pushes_per_s: share_of(config.push.pace_per_s, config),
    }
}

/// Options that a running shard takes over.
#[must_use]
pub fn tuning(config: &Config) -> Tuning {
    let campaign = campaign_options(config);
    Tuning {
        coalesce: campaign.coalesce,
        outcome: campaign.outcome,
        pushes_per_s: campaign.pushes_per_s,
        quota: post_options(config).quota,
    }
}

/// Names of the dialects, by their index.
#[must_use]
pub fn dialect_names(config: &Config) -> Vec<String> {
    let dialects = Dialects::of(config).options.into_iter();
    dialects.map(|dialect| dialect.name).collect()
}

/// How registration documents are read.
#[must_use]
pub fn registry_options(config: &Config) -> RegistryOptions {
    let selection = &config.selection;
    RegistryOptions {
        accepted_icsi: known_icsis(config)
            .into_iter()
            .map(String::into_bytes)
            .collect(),
        dialects: Dialects::of(config).rules,
        gruu: match selection.gruu {
            Gruu::Strict => GruuPolicy::Strict,
            Gruu::Instance => GruuPolicy::Composed,
            Gruu::Contact => GruuPolicy::ContactByInstance,
            Gruu::Any => GruuPolicy::Contact,
        },
        ..RegistryOptions::default()
    }
}

fn post_options(config: &Config) -> PostOptions {
    let store = &config.store;
    PostOptions {
        quota: Quota {
            messages_max: store.quota_messages,
            bytes_max: store.quota_bytes,
        },
        life: LifeOptions {
            default_life_s: store.default_life_s,
            max_life_s: store.max_life_s,
            notice_life_s: store.notice_life_s,
            ..LifeOptions::default()
        },
        cache_bytes_max: store.cache_mib << 20,
        large: LargeOptions {
            bytes_max: store.large_max,
            sessions_max: store.large_sessions,
            ..LargeOptions::default()
        },
        revoke: store.revoke,
        stored_notices: store.stored_notices,
        imdn_route: config
            .identity
            .imdn_route
            .clone()
            .unwrap_or_default()
            .into_bytes(),
        clean: CleanOptions {
            segment_bytes: u64::from(store.segment_mib) << 20,
            bytes_per_s: u64::from(store.clean_mib_s) << 20,
            ..CleanOptions::default()
        },
        charging: config.push.charging,
        ..PostOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::file::EXAMPLE;

    /// A limit that distributions and container runtimes set.
    const COMMON: u64 = 1 << 20;

    #[test]
    fn defaults_of_eight_shards_fit_into_a_common_limit_of_open_files() {
        let mut config =
            crate::config::parse(Path::new("volley.toml"), EXAMPLE).expect("it is one");
        for shards in 1..=64 {
            config.node.shards = shards;
            let wanted = config.limits.connections_max;
            let fits = descriptors(shards, &config.limits) <= COMMON;
            // The start and `volley doctor` are of one mind.
            assert_eq!(
                fits,
                connections_max(&config, Some(COMMON)) == wanted,
                "{shards}"
            );
            assert!(fits || shards > 8, "{shards} shards");
        }
    }
}
