//! The keys of the configuration file and their defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::limits;
use crate::io::backend::Backend;

/// Fewest connections a shard can work with: trunks, some phones, operators' peers.
pub const CONNECTIONS_LEAST: u32 = 64;

/// The whole file. Every section and key has a default except the addresses of the SIP core.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads and placement.
    #[serde(default)]
    pub node: Node,
    /// SIP: where we listen and where the core is.
    pub sip: Sip,
    /// Who we are, and whom we serve.
    pub identity: Identity,
    /// Pushes and their sessions.
    #[serde(default)]
    pub push: Push,
    /// MSRP.
    #[serde(default)]
    pub msrp: Msrp,
    /// Which clients get a user's messages.
    #[serde(default)]
    pub selection: Selection,
    /// Registration subscriptions.
    #[serde(default)]
    pub subscription: Subscription,
    /// Deferred messages.
    #[serde(default)]
    pub store: Store,
    /// Bounds of tables.
    #[serde(default)]
    pub limits: Limits,
    /// What operators look at.
    #[serde(default)]
    pub admin: Admin,
    /// What support engineers look at.
    #[serde(default)]
    pub instruments: Instruments,
    /// Handset dialects beside the built-in ones.
    #[serde(default)]
    pub dialect: Vec<Dialect>,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Shards, one thread each.
    pub shards: usize,
    /// CPU of each shard; empty leaves placement to the kernel.
    pub pin: Vec<usize>,
    /// Seconds a drain may take before running pushes are given up.
    pub drain_s: u64,
    /// What the shards run on.
    pub backend: Backend,
    /// A shard to which things come at shorter distances gathers them for so many microseconds whenever it has no
    /// work, at most 1,000; 0: never. Needs io_uring of Linux 6.12; without it the key does nothing.
    pub gather_us: u64,
    /// Memory in pages of 2 MiB where the host allows it. Fewer look-ups of addresses for a store of many GiB, but
    /// the shard stands while the system clears such a page, each time its memory has grown by one.
    pub huge_pages: bool,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            shards: 1,
            pin: Vec::new(),
            drain_s: 30,
            backend: Backend::Auto,
            gather_us: 100,
            huge_pages: false,
        }
    }
}

/// `[admin]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Unix socket for `volley ctl`; default: `admin.sock` in the store's directory.
    pub socket: Option<PathBuf>,
    /// Address of the metrics endpoint; none without it.
    pub metrics: Option<SocketAddr>,
}

/// `[instruments]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instruments {
    /// Octets of each shard's flight recorder; 0, the default, is none. It costs about 8,000 instructions
    /// a full push.
    pub flight_recorder: Size,
    /// The recorder keeps bodies of MSRP, too: what people say to each other.
    pub msrp_bodies: bool,
    /// Longest time from a trigger to its INVITE, milliseconds; one that takes longer is a reason to dump
    /// the recorders. 0 is none.
    pub objective_trigger_to_invite_ms: u64,
    /// Where recorders are dumped to on SIGUSR2, and when an objective is missed; nowhere without it. A
    /// relative path is taken from the directory of the configuration file.
    pub dump_dir: Option<PathBuf>,
    /// What is logged: `error`, `warn`, `info` or `debug`.
    pub log_level: Level,
    /// Identities stand in logs as they are, and not as short digests.
    pub log_identities: bool,
}

impl Default for Instruments {
    fn default() -> Self {
        Self {
            flight_recorder: Size(0),
            msrp_bodies: false,
            objective_trigger_to_invite_ms: 0,
            dump_dir: None,
            log_level: Level::Info,
            log_identities: false,
        }
    }
}

/// How much is logged: each level with those before it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something may not work for long.
    Warn,
    /// What an operator wants to know of a healthy engine.
    #[default]
    Info,
    /// What whoever looks for a fault wants to know.
    Debug,
}

/// Octets, written as `"4 MiB"`, `"512 KiB"`, `"1 GiB"` or a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size(pub u64);

impl Size {
    /// The octets.
    #[must_use]
    pub fn octets(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let shift = match unit.trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return None,
        };
        let number: u64 = number.parse().ok()?;
        number.checked_mul(1 << shift).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let size = match Written::deserialize(deserializer) {
            Ok(Written::Number(number)) => Some(Self(number)),
            Ok(Written::Text(text)) => Self::read(&text),
            Err(_) => None,
        };
        size.ok_or_else(|| serde::de::Error::custom("no size: write \"4 MiB\", \"512 KiB\" or 0"))
    }
}

/// Transport towards the SIP core.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The default: our INVITE is longer than 1300 octets (RFC 3261 section 18.1.1).
    #[default]
    Tcp,
    /// Only with `path_mtu`.
    Udp,
}

/// Trains of datagrams.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trains {
    /// Where the kernel can, found by trying at the start.
    #[default]
    Auto,
    /// One datagram at a time, and requests are as long as they are.
    Off,
}

/// One entry of `sip.next_hops`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NextHop {
    /// Where it listens.
    pub address: SocketAddr,
    /// Trunk connections of one shard.
    #[serde(default = "default_connections")]
    pub connections: u16,
    /// Most INVITEs without a final response.
    #[serde(default = "default_inflight")]
    pub invite_inflight_max: u32,
    /// Lower ones are used first; default: the place in the list.
    pub priority: Option<u16>,
    /// Share of the requests among hops of the same priority.
    #[serde(default = "default_weight")]
    pub weight: u16,
}

const fn default_weight() -> u16 {
    1
}

/// One entry of `sip.scscf`: an S-CSCF whose users are reached by hops of its own.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scscf {
    /// `host` or `host:port` by which it names itself in third-party REGISTERs.
    pub names: Vec<String>,
    /// Its hops.
    pub next_hops: Vec<NextHop>,
    /// URI of the first Route; default: its first next hop with `lr`.
    pub route: Option<String>,
}

const fn default_connections() -> u16 {
    4
}

const fn default_inflight() -> u32 {
    20_000
}

/// `[sip]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sip {
    /// The well-known address; shard ports follow it.
    pub listen: SocketAddr,
    /// Towards the core.
    #[serde(default)]
    pub transport: Transport,
    /// Host in Via and Contact; default: the address of `listen`.
    pub advertise: Option<String>,
    /// Path MTU towards the core, octets; required for UDP. What is larger stays out of trains.
    pub path_mtu: Option<u16>,
    /// Datagrams of about one size travel together (UDP GSO and GRO).
    #[serde(default)]
    pub udp_trains: Trains,
    /// Addresses that may talk to us; empty trusts every address.
    #[serde(default)]
    pub trusted_peers: Vec<IpAddr>,
    /// The SIP core, in order of preference.
    pub next_hops: Vec<NextHop>,
    /// URI of the first Route; default: the first next hop with `lr`.
    pub route: Option<String>,
    /// S-CSCFs with next hops of their own.
    #[serde(default)]
    pub scscf: Vec<Scscf>,
    /// Addresses of host names in routes, as in /etc/hosts.
    #[serde(default)]
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Look other host names up (A and AAAA, by the system's resolver).
    #[serde(default = "yes")]
    pub resolve: bool,
    /// How long an answer of the resolver holds, seconds.
    #[serde(default = "default_resolve_ttl")]
    pub resolve_ttl_s: u64,
    /// Largest message taken from a stream, octets.
    #[serde(default = "default_max_message")]
    pub max_message: usize,
    /// Overload control parameters in Via (RFC 7339).
    #[serde(default = "yes")]
    pub overload_control: bool,
    /// URN of this element in the Response-Source header of 4xx and 5xx; default: no such header.
    pub response_source: Option<String>,
    /// Timer T1, milliseconds.
    #[serde(default = "default_t1")]
    pub t1_ms: u64,
}

const fn yes() -> bool {
    true
}

const fn default_resolve_ttl() -> u64 {
    300
}

const fn default_max_message() -> usize {
    limits::SIP_MESSAGE_BYTES_MAX
}

const fn default_t1() -> u64 {
    500
}

/// `[identity]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Our URI in IMDN-Record-Route headers; default: none is added.
    pub imdn_route: Option<String>,
    /// Our public service identity: From and P-Asserted-Identity.
    pub pf_uri: String,
    /// Home domains: whose users we serve.
    pub domains: Vec<String>,
    /// The ICSI in Contact and Accept-Contact.
    #[serde(default = "default_icsi")]
    pub icsi: String,
    /// ICSIs a device must have registered one of.
    #[serde(default = "default_accepted")]
    pub accepted_icsi: Vec<String>,
    /// CPM release token of User-Agent.
    #[serde(default = "default_release")]
    pub cpm_release: String,
    /// `orig-ioi`; default: the first domain.
    pub orig_ioi: Option<String>,
}

fn default_icsi() -> String {
    "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred".to_owned()
}

fn default_accepted() -> Vec<String> {
    ["deferred", "largemsg", "msg"]
        .map(|name| format!("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.{name}"))
        .to_vec()
}

fn default_release() -> String {
    "OMA2.2".to_owned()
}

/// `push.grouping`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grouping {
    /// One session for each conversation, one after the other.
    Conversation,
    /// One session carries everything queued for the user.
    #[default]
    User,
    /// One message per session.
    Message,
}

/// `push.goal`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// One device has it.
    Any,
    /// One device has it, and no other that could take it still waits.
    #[default]
    EachSelected,
    /// Every device that appears while the message lives.
    UntilExpiry,
}

/// `dialect.setup`
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OfferSetup {
    /// We connect.
    Active,
    /// The client chooses.
    Actpass,
}

/// `[[dialect]]`: pushes to some handsets look otherwise. A name that is built in changes that one; keys
/// that are absent are as in `like`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dialect {
    /// Its name.
    pub name: String,
    /// The dialect it builds upon; default: the built-in one of its name, else `plain`.
    pub like: Option<String>,
    /// It is for devices that registered one of these services.
    #[serde(default)]
    pub match_icsi: Vec<String>,
    /// And none of these.
    #[serde(default)]
    pub unless_icsi: Vec<String>,
    /// And one of these features: `name`, or `name=value` with `*` for any characters.
    #[serde(default)]
    pub match_features: Vec<String>,
    /// And whose User-Agent, as they answered before, fits one of these; `*` is any characters.
    #[serde(default)]
    pub match_user_agent: Vec<String>,
    /// The service in Contact, Accept-Contact and P-Asserted-Service.
    pub icsi: Option<String>,
    /// User-Agent.
    pub user_agent: Option<String>,
    /// URI of P-Asserted-Identity.
    pub asserted_identity: Option<String>,
    /// The sender in Referred-By.
    pub referred_by: Option<bool>,
    /// The sender in From and P-Asserted-Identity.
    pub from_sender: Option<bool>,
    /// Ask for MSRP success reports.
    pub success_report: Option<bool>,
    /// Who connects.
    pub setup: Option<OfferSetup>,
    /// Offer `a=msrp-cema`.
    pub cema: Option<bool>,
    /// Messages of a session.
    pub grouping: Option<Grouping>,
    /// Further header lines of the INVITE.
    #[serde(default)]
    pub headers: Vec<String>,
}

/// `[push]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// Session-Expires, seconds; 0 asks for no session timer.
    pub session_expires_s: u32,
    /// Longest ringing, seconds.
    pub answer_s: u64,
    /// How long a drained session stays open, milliseconds.
    pub linger_ms: u64,
    /// Longest session, seconds.
    pub max_session_s: u64,
    /// Most messages of a session.
    pub max_messages: u32,
    /// Sessions and messages.
    pub grouping: Grouping,
    /// When a message is done with several devices.
    pub goal: Goal,
    /// Whether a next hop's 200 counts when no report comes.
    pub accept_hop_ack: bool,
    /// Wait for a report after the last 200, milliseconds.
    pub report_wait_ms: u64,
    /// Demand the feature of the client (`require` in Accept-Contact), until three 480 in a row.
    pub accept_require: bool,
    /// The same for `explicit`.
    pub accept_explicit: bool,
    /// Most pushes started a second by the process; 0 leaves it to what the hops take.
    pub pace_per_s: u32,
    /// Repeat a message's charging identifier and addresses in its push.
    pub charging: bool,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            session_expires_s: 1800,
            answer_s: 60,
            linger_ms: 2000,
            max_session_s: 300,
            max_messages: 1000,
            grouping: Grouping::User,
            goal: Goal::EachSelected,
            accept_hop_ack: true,
            report_wait_ms: 10_000,
            accept_require: false,
            accept_explicit: false,
            pace_per_s: 0,
            charging: false,
        }
    }
}

/// `[msrp]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Msrp {
    /// Where phones connect; shard n listens n ports higher.
    pub listen: SocketAddr,
    /// Address in SDP; default: the address of `listen`.
    pub advertise: Option<IpAddr>,
    /// Share one connection between sessions to the same address.
    pub reuse: bool,
    /// Refuse private, loopback and low-port addresses in answers.
    pub guard: bool,
}

impl Default for Msrp {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 2855)),
            advertise: None,
            reuse: false,
            guard: true,
        }
    }
}

/// `selection.gruu`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gruu {
    /// Only a public GRUU from the NOTIFY.
    #[default]
    Strict,
    /// Also AoR plus `gr=` of the registered instance.
    Instance,
    /// Also the contact with the instance in Accept-Contact.
    Contact,
    /// Also the bare contact.
    Any,
}

/// `[selection]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Rules of provider and users, a file of its own that is read again on SIGHUP; a relative path
    /// is taken from the directory of the configuration file.
    pub policy: Option<PathBuf>,
    /// To devices that registered largemsg and not the service of `identity.icsi`, push with largemsg.
    pub tag_fallback: bool,
    /// Most devices of a user that are pushed to.
    pub max_devices: usize,
    /// Shortest remaining binding life, seconds.
    pub min_remaining_s: u64,
    /// How a device without GRUU is addressed.
    pub gruu: Gruu,
    /// Take devices that registered no feature tags.
    pub assume_when_silent: bool,
    /// Changes within this time of a decision become one more decision, milliseconds.
    pub coalesce_ms: u64,
    /// First wait after a failed push, milliseconds.
    pub backoff_ms: u64,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            policy: None,
            tag_fallback: true,
            max_devices: limits::DEVICES_PER_USER_MAX,
            min_remaining_s: 10,
            gruu: Gruu::Strict,
            assume_when_silent: false,
            coalesce_ms: 250,
            backoff_ms: 30_000,
        }
    }
}

/// `[subscription]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Subscription {
    /// Expires of SUBSCRIBE, seconds.
    pub expires_s: u32,
    /// Subscribe on every registration, not only for users with mail.
    pub always: bool,
    /// Users subscribed at start, whatever the registrar tells.
    pub users: Vec<String>,
    /// SUBSCRIBEs a second after a restart, by the process.
    pub pace_per_s: u32,
    /// Take over the contacts in the body of a third-party REGISTER, and do not subscribe then.
    pub trust_register_body: bool,
}

impl Default for Subscription {
    fn default() -> Self {
        Self {
            expires_s: 600_000,
            always: false,
            users: Vec::new(),
            pace_per_s: 2000,
            trust_register_body: false,
        }
    }
}

/// `store.on_damage`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDamage {
    /// Do not start while acknowledged records cannot be read.
    #[default]
    Refuse,
    /// Go on without them.
    Skip,
}

/// `[store]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Directory; one sub-directory per shard.
    pub dir: PathBuf,
    /// Size of a segment, MiB.
    pub segment_mib: u32,
    /// Longest wait for more records before a commit, microseconds.
    pub commit_us: u64,
    /// What to do about damaged records at start.
    pub on_damage: OnDamage,
    /// Journal written after which a checkpoint of the index is made, MiB; 0 makes none.
    pub checkpoint_mib: u32,
    /// Dead segments kept to be written over, beyond an eighth of those in use; 0 keeps none.
    pub free_segments: u32,
    /// Octets of sparse segments that are written again in a second so that they can go, MiB; 0 never.
    pub clean_mib_s: u32,
    /// How long the wall clock must stay where it jumped until lives are counted by it, seconds; 0
    /// believes it at once.
    pub clock_hold_s: u64,
    /// Bodies kept in memory, MiB per shard.
    pub cache_mib: usize,
    /// Most messages of a user.
    pub quota_messages: u32,
    /// Most octets of a user.
    pub quota_bytes: u64,
    /// Life of a message without Expires, seconds.
    pub default_life_s: u32,
    /// Longest life, seconds.
    pub max_life_s: u32,
    /// Longest life of a message that is itself a notice, seconds.
    pub notice_life_s: u32,
    /// Largest pager-mode body, octets.
    pub pager_max: usize,
    /// Largest message of large-message mode, octets; 0 refuses them.
    pub large_max: u64,
    /// Sessions of a shard in which large messages are taken in at a time.
    pub large_sessions: usize,
    /// Let senders take back messages that are not being sent yet.
    pub revoke: bool,
    /// Tell senders who ask for `processing` notices that their message is stored.
    pub stored_notices: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("volley-data"),
            segment_mib: 64,
            commit_us: 1000,
            on_damage: OnDamage::Refuse,
            checkpoint_mib: 128,
            free_segments: 4,
            clean_mib_s: 8,
            clock_hold_s: 900,
            cache_mib: 64,
            quota_messages: 1000,
            quota_bytes: 32 * 1024 * 1024,
            default_life_s: 7 * 86_400,
            max_life_s: 30 * 86_400,
            notice_life_s: 2 * 86_400,
            pager_max: 1300,
            large_max: 10 * 1024 * 1024,
            large_sessions: 256,
            revoke: false,
            stored_notices: false,
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Users a shard knows at a time.
    pub users_max: usize,
    /// Pushes a shard runs at a time.
    pub pushes_max: usize,
    /// Server transactions a shard remembers (UDP).
    pub server_transactions_max: usize,
    /// Connections of a shard, accepted and opened together; fewer where RLIMIT_NOFILE leaves fewer.
    pub connections_max: u32,
    /// Connections a shard accepts from one IPv4 address or one IPv6 /64, whose addresses are one host's to
    /// choose from; 0: as many as from all. [`Config::uncapped`] lists
    /// the addresses without this cap.
    pub connections_per_source_max: u32,
    /// Addresses of SBCs, relays and gateways that many phones come through.
    pub uncapped_sources: Vec<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            users_max: 4_000_000,
            pushes_max: 1_000_000,
            server_transactions_max: 262_144,
            // Eight shards with it fit into 1,048,576 files, a common hard limit.
            connections_max: 130_000,
            connections_per_source_max: 16_384,
            uncapped_sources: Vec::new(),
        }
    }
}

impl Config {
    /// Addresses that may open as many connections as there is room for: those that are named for it,
    /// peers that are trusted, and the SIP core, by whichever key it is known.
    #[must_use]
    pub fn uncapped(&self) -> BTreeSet<IpAddr> {
        let sets = self.sip.scscf.iter().flat_map(|set| &set.next_hops);
        let hops = self.sip.next_hops.iter().chain(sets);
        let hops = hops.map(|hop| hop.address.ip());
        let named = self.limits.uncapped_sources.iter();
        let named = named.chain(&self.sip.trusted_peers);
        let named = named.chain(self.sip.hosts.values().flatten());
        hops.chain(named.copied()).collect()
    }
}

/// A complete file with every default, for `volley config --example`.
pub const EXAMPLE: &str = include_str!("example.toml");
