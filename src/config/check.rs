//! Ranges of the keys of the configuration file, and what they ask of each other.

use core::ops::RangeInclusive;

use crate::base::limits;
use crate::config::error::Problem;
use crate::config::file::{CONNECTIONS_LEAST, Config, Scscf, Transport};
use crate::config::{dialects, policy};
use crate::push::hops::{HOPS_PER_SET_MAX, SETS_MAX};
use crate::push::large::LARGE_BYTES_MAX;
use crate::registry::features::ICSIS_MAX;

/// Longest time that a wait gathers, microseconds.
const GATHER_US_MAX: u64 = 1000;
/// Largest flight recorder of a shard.
const RECORDER_BYTES_MAX: u64 = 1 << 30;
/// Most connections a shard can tell apart.
const CONNECTIONS_MOST: u32 = (1 << 24) - 1;

impl Config {
    /// Ranges and relations between keys.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let problem = |key, what: String, remedy| Err(Problem { key, what, remedy });
        if self.node.shards == 0 || self.node.shards > limits::SHARDS_MAX {
            return problem(
                "node.shards",
                format!("{} shards cannot work", self.node.shards),
                "use 1 to 256, normally one per dedicated core",
            );
        }
        if !self.node.pin.is_empty() && self.node.pin.len() != self.node.shards {
            return problem(
                "node.pin",
                format!(
                    "{} CPUs for {} shards",
                    self.node.pin.len(),
                    self.node.shards
                ),
                "name one CPU per shard, or leave the list empty",
            );
        }
        if self.node.gather_us > GATHER_US_MAX {
            return problem(
                "node.gather_us",
                format!("{} is more than a millisecond", self.node.gather_us),
                "use 0 to 1000; what it gathers for is added to every latency, up to twice",
            );
        }
        if self.sip.next_hops.is_empty() {
            return problem(
                "sip.next_hops",
                "the list is empty".to_owned(),
                "name at least one S-CSCF or I-CSCF: next_hops = [{ address = \"192.0.2.1:5060\" }]",
            );
        }
        self.check_hops()?;
        if self.sip.transport == Transport::Udp && self.sip.path_mtu.is_none() {
            return problem(
                "sip.transport",
                "UDP without a known path MTU is not allowed: our INVITE is longer than 1300 octets \
                 (RFC 3261 section 18.1.1)"
                    .to_owned(),
                "set sip.path_mtu to the path MTU towards the core, or use transport = \"tcp\"",
            );
        }
        if self.instruments.flight_recorder.0 > RECORDER_BYTES_MAX {
            return problem(
                "instruments.flight_recorder",
                format!("{} octets are too many", self.instruments.flight_recorder.0),
                "use at most \"1 GiB\" for each shard",
            );
        }
        self.check_services()?;
        dialects::check(self)
    }

    fn check_hops(&self) -> Result<(), Problem> {
        let problem = |key, what: String, remedy| Err(Problem { key, what, remedy });
        let sets = self.sip.scscf.iter().map(|scscf| &scscf.next_hops);
        let mut lists = core::iter::once(&self.sip.next_hops).chain(sets);
        let mut hops = lists.clone().flatten();
        if let Some(long) = lists.find(|list| list.len() > HOPS_PER_SET_MAX) {
            return problem(
                "sip.next_hops",
                format!("{} hops in one list are too many", long.len()),
                "name at most 64 in a list",
            );
        }
        if hops.clone().any(|hop| !(1..=64).contains(&hop.connections)) {
            return problem(
                "sip.next_hops",
                "connections is out of range".to_owned(),
                "use 1 to 64 trunk connections per shard",
            );
        }
        if hops.any(|hop| hop.weight == 0) {
            return problem(
                "sip.next_hops",
                "a weight of 0 gets no requests".to_owned(),
                "use 1 to 65535, or leave the hop out",
            );
        }
        if self.sip.scscf.len() >= SETS_MAX {
            return problem(
                "sip.scscf",
                format!("{} S-CSCFs are too many", self.sip.scscf.len()),
                "name at most 31; the rest share sip.next_hops",
            );
        }
        let is_empty = |scscf: &Scscf| scscf.names.is_empty() || scscf.next_hops.is_empty();
        if self.sip.scscf.iter().any(is_empty) {
            return problem(
                "sip.scscf",
                "an S-CSCF needs names and next_hops".to_owned(),
                "give both: { names = [\"scscf2.home\"], next_hops = [{ address = \"192.0.2.2:5060\" }] }",
            );
        }
        Ok(())
    }

    fn check_services(&self) -> Result<(), Problem> {
        let problem = |key, what: String, remedy| Err(Problem { key, what, remedy });
        if self.identity.domains.is_empty() {
            return problem(
                "identity.domains",
                "the list is empty".to_owned(),
                "name the home domains whose users are served",
            );
        }
        if self.push.session_expires_s != 0 && self.push.session_expires_s < 90 {
            return problem(
                "push.session_expires_s",
                format!(
                    "{} s is below the minimum of RFC 4028",
                    self.push.session_expires_s
                ),
                "use 90 or more, or 0 for no session timer",
            );
        }
        let known = policy::known_icsis(self).len();
        if known > ICSIS_MAX {
            return problem(
                "identity.accepted_icsi",
                format!("{known} services, those of dialects and well-known ones included"),
                "name fewer: 32 are told apart",
            );
        }
        self.check_ranges()
    }

    /// Keys that are numbers within bounds.
    fn check_ranges(&self) -> Result<(), Problem> {
        const POOL_MAX: u64 = 1 << 26;
        let (sip, store, own) = (&self.sip, &self.store, &self.limits);
        let largest = limits::UDP_PAYLOAD_BYTES_MAX as u64..=limits::SIP_MESSAGE_BYTES_MAX as u64;
        let connections = u64::from(CONNECTIONS_MOST);
        let rows: [(_, u64, RangeInclusive<u64>, _, _); 11] = [
            (
                "sip.max_message",
                sip.max_message as u64,
                largest,
                " octets",
                "use 65535 to 262144",
            ),
            (
                "sip.resolve_ttl_s",
                sip.resolve_ttl_s,
                1..=86_400,
                " s",
                "use 1 to 86400",
            ),
            (
                "selection.max_devices",
                self.selection.max_devices as u64,
                1..=limits::REGINFO_CONTACTS_MAX as u64,
                "",
                "use 1 to 64",
            ),
            (
                "store.segment_mib",
                u64::from(store.segment_mib),
                1..=1024,
                " MiB",
                "use 1 to 1024",
            ),
            (
                "store.free_segments",
                u64::from(store.free_segments),
                0..=1024,
                " segments",
                "use at most 1024, or 0 to keep none",
            ),
            (
                "store.pager_max",
                store.pager_max as u64,
                0..=64 * 1024,
                " octets",
                "use at most 65536",
            ),
            (
                "store.large_max",
                store.large_max,
                0..=LARGE_BYTES_MAX,
                " octets",
                "use at most 268435456, or 0 for no large messages",
            ),
            (
                "limits.pushes_max",
                own.pushes_max as u64,
                1..=POOL_MAX,
                "",
                "use 1 to 67108864",
            ),
            (
                "limits.users_max",
                own.users_max as u64,
                1..=POOL_MAX,
                "",
                "use 1 to 67108864",
            ),
            (
                "limits.connections_max",
                u64::from(own.connections_max),
                u64::from(CONNECTIONS_LEAST)..=connections,
                "",
                "use 64 to 16777215",
            ),
            (
                "limits.connections_per_source_max",
                u64::from(own.connections_per_source_max),
                0..=connections,
                "",
                "use at most 16777215, or 0 for no cap",
            ),
        ];
        let wrong = rows
            .into_iter()
            .find(|(_, value, range, ..)| !range.contains(value));
        wrong.map_or(Ok(()), |(key, value, _, unit, remedy)| {
            Err(Problem {
                key,
                what: format!("{value}{unit} is out of range"),
                remedy,
            })
        })
    }
}
