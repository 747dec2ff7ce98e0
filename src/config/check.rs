//! Ranges of the keys of the configuration file, and what they ask of each other.

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
        if !(limits::UDP_PAYLOAD_BYTES_MAX..=limits::SIP_MESSAGE_BYTES_MAX)
            .contains(&self.sip.max_message)
        {
            return problem(
                "sip.max_message",
                format!("{} octets is out of range", self.sip.max_message),
                "use 65535 to 262144",
            );
        }
        if !(1..=86_400).contains(&self.sip.resolve_ttl_s) {
            return problem(
                "sip.resolve_ttl_s",
                format!("{} s is out of range", self.sip.resolve_ttl_s),
                "use 1 to 86400",
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
        if self.selection.max_devices == 0
            || self.selection.max_devices > limits::REGINFO_CONTACTS_MAX
        {
            return problem(
                "selection.max_devices",
                format!("{} is out of range", self.selection.max_devices),
                "use 1 to 64",
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
        if !(1..=1024).contains(&self.store.segment_mib) {
            return problem(
                "store.segment_mib",
                format!("{} MiB is out of range", self.store.segment_mib),
                "use 1 to 1024",
            );
        }
        if self.store.free_segments > 1024 {
            return problem(
                "store.free_segments",
                format!("{} segments is out of range", self.store.free_segments),
                "use at most 1024, or 0 to keep none",
            );
        }
        if self.store.pager_max > 64 * 1024 {
            return problem(
                "store.pager_max",
                format!("{} octets is out of range", self.store.pager_max),
                "use at most 65536",
            );
        }
        if self.store.large_max > LARGE_BYTES_MAX {
            return problem(
                "store.large_max",
                format!("{} octets is out of range", self.store.large_max),
                "use at most 268435456, or 0 for no large messages",
            );
        }
        if self.limits.pushes_max == 0 || self.limits.pushes_max > 1 << 26 {
            return problem(
                "limits.pushes_max",
                format!("{} is out of range", self.limits.pushes_max),
                "use 1 to 67108864",
            );
        }
        if self.limits.users_max == 0 || self.limits.users_max > 1 << 26 {
            return problem(
                "limits.users_max",
                format!("{} is out of range", self.limits.users_max),
                "use 1 to 67108864",
            );
        }
        self.check_connections()
    }

    fn check_connections(&self) -> Result<(), Problem> {
        let problem = |key, what: String, remedy| Err(Problem { key, what, remedy });
        if !(CONNECTIONS_LEAST..=CONNECTIONS_MOST).contains(&self.limits.connections_max) {
            return problem(
                "limits.connections_max",
                format!("{} is out of range", self.limits.connections_max),
                "use 64 to 16777215",
            );
        }
        if self.limits.connections_per_source_max > CONNECTIONS_MOST {
            return problem(
                "limits.connections_per_source_max",
                format!("{} is out of range", self.limits.connections_per_source_max),
                "use at most 16777215, or 0 for no cap",
            );
        }
        Ok(())
    }
}
