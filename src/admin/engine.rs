//! A running engine: shards with their journals, made from the configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use rustix::process::{Resource, getrlimit};

use crate::admin::ask::{Line, Questions};
use crate::admin::options::{
    connections_max, datagram_max, descriptors, journal_options, shard_options,
};
use crate::base::surface::Location;
use crate::base::time::Timestamp;
use crate::config::Config;
use crate::config::file::Transport;
use crate::io::clock::Clock;
use crate::io::driver::DriverOptions;
use crate::io::host::{Host, HostConfig, HostError, ShardFactory, allow_huge_pages};
use crate::io::listen::ShardAddresses;
use crate::io::recorder::Recorder;
use crate::io::store::{Journal, Recovery};
use crate::metrics::probe::Probe;
use crate::selection::rules::RuleBook;
use crate::shard::recover::Recovered;
use crate::shard::{Ages, Order, Population, Shard, ShardSeed, Tuning};
use crate::sip::template::ProfileError;

/// What a shard shows once a second.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its counters.
    pub probe: Probe,
    /// How much it holds.
    pub population: Population,
    /// How long what is next in line has waited.
    pub ages: Ages,
    /// Next hops, and whether they are reached.
    pub hops: Vec<(SocketAddr, bool)>,
}

/// The last snapshot of each shard, newest wins. Single producer, any reader.
#[derive(Clone, Debug)]
pub struct Snapshots(Arc<Vec<ArrayQueue<Snapshot>>>);

impl Snapshots {
    fn new(shards: usize) -> Self {
        Self(Arc::new((0..shards).map(|_| ArrayQueue::new(1)).collect()))
    }

    fn publish(&self, shard: u8, snapshot: Snapshot) {
        self.0[usize::from(shard)].force_push(snapshot);
    }

    /// Takes what each shard published since the last call.
    pub fn take(&self) -> impl Iterator<Item = (usize, Snapshot)> + '_ {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(shard, queue)| Some((shard, queue.pop()?)))
    }
}

/// What each shard is to do next, in order.
#[derive(Clone, Debug)]
struct Orders(Arc<Vec<ArrayQueue<Order>>>);

/// Orders of one shard that wait; the oldest is dropped for one more, and the rules it had are old.
const ORDERS_MAX: usize = 4;

impl Orders {
    fn new(shards: usize) -> Self {
        let queue = |_| ArrayQueue::new(ORDERS_MAX);
        Self(Arc::new((0..shards).map(queue).collect()))
    }

    fn give(&self, order: &Order) {
        for queue in self.0.iter() {
            queue.force_push(order.clone());
        }
    }

    fn take(&self, shard: u8) -> Option<Order> {
        self.0[usize::from(shard)].pop()
    }
}

/// Makes shards inside their threads.
struct Factory {
    config: Config,
    rules: Arc<RuleBook>,
    orders: Orders,
    questions: Questions,
    identifier_key: [u8; 16],
    snapshots: Snapshots,
    recovered: Arc<ArrayQueue<Recovered>>,
}

impl ShardFactory for Factory {
    type Core = Shard;
    type Store = Journal;

    async fn make(&self, addresses: &ShardAddresses) -> Result<(Shard, Journal), String> {
        let clock = Clock;
        let mut stream = [0; 32];
        getrandom::fill(&mut stream).map_err(|error| format!("no random numbers: {error}"))?;
        let seed = ShardSeed {
            identifier_key: self.identifier_key,
            stream,
        };
        let options = shard_options(&self.config, addresses);
        let rules = Arc::clone(&self.rules);
        let make = || {
            let mut shard = Shard::new(options.clone(), seed, clock.now(), clock.wall())?;
            shard.operate(&Order::Rules(Arc::clone(&rules)));
            Ok::<_, ProfileError>(shard)
        };
        let shard =
            make().map_err(|error| format!("the configured identity cannot be used: {error}"))?;
        let directory = self
            .directory(addresses.shard)
            .map_err(|error| format!("store.dir is no path: {error}; set it to a directory"))?;
        std::fs::create_dir_all(&directory).map_err(|error| {
            format!(
                "store directory {} cannot be made: {error}; set store.dir to a writable directory",
                directory.display()
            )
        })?;
        let begun = clock.now();
        let mut loader = Loader {
            shard,
            found: Recovered::default(),
            make,
        };
        let options = journal_options(&self.config, addresses.shard);
        let journal = Journal::open_with(&directory, &options, &mut loader)
            .await
            .map_err(|error| error.to_string())?;
        let Loader {
            mut shard,
            mut found,
            ..
        } = loader;
        shard.recovered(clock.now());
        found.took = clock.now().since(begun);
        self.recovered.force_push(found);
        Ok((shard, journal))
    }

    fn attend(&self, shard: u8, core: &mut Shard, recorder: &Recorder, now: Timestamp) -> bool {
        while let Some(order) = self.orders.take(shard) {
            core.operate(&order);
        }
        self.questions.attend(shard, (core, recorder), now)
    }

    fn observe(&self, shard: u8, core: &mut Shard, now: Timestamp) {
        let snapshot = Snapshot {
            probe: core.probe(),
            population: core.population(),
            ages: core.ages(now),
            hops: core.hops_reached().collect(),
        };
        self.snapshots.publish(shard, snapshot);
    }
}

/// Fills a shard from its store.
struct Loader<F> {
    shard: Shard,
    found: Recovered,
    /// Makes an empty one, for when a checkpoint turns out to be damaged.
    make: F,
}

impl<F, E> Recovery for Loader<F>
where
    F: FnMut() -> Result<Shard, E>,
{
    fn piece(&mut self, bytes: &[u8]) -> bool {
        self.shard.load(bytes, &mut self.found)
    }

    fn restart(&mut self) {
        self.found = Recovered::default();
        if let Ok(shard) = (self.make)() {
            self.shard = shard;
        }
    }

    fn record(&mut self, at: Location, payload: &[u8]) {
        self.shard.recover(at, payload, &mut self.found);
    }

    fn finish(&mut self, segments: &[u32]) -> u64 {
        self.shard.forget_absent(segments)
    }
}

impl Factory {
    /// Absolute, because the executor opens directories by absolute paths only.
    fn directory(&self, shard: u8) -> std::io::Result<PathBuf> {
        let name = format!("shard-{shard:03}");
        std::path::absolute(self.config.store.dir.join(name))
    }
}

/// Why the engine did not start.
#[derive(Debug)]
pub enum StartError {
    /// No random numbers for keys.
    Entropy(getrandom::Error),
    /// A socket, the ring, the store or a thread.
    Host(HostError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entropy(error) => write!(f, "the system gives no random numbers: {error}"),
            Self::Host(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    /// Its threads.
    pub host: Host,
    /// What its shards show.
    pub snapshots: Snapshots,
    /// What each shard found in its store.
    pub recovered: Vec<Recovered>,
    /// Connections each shard has room for.
    pub connections_max: u32,
    /// Why that is less than `limits.connections_max`: the process may open only so many files, and
    /// would have to be allowed this many.
    pub files_short: Option<(u64, u64)>,
    orders: Orders,
    questions: Questions,
    rules: Arc<RuleBook>,
}

impl Engine {
    /// Opens the stores, binds, and serves by these rules.
    ///
    /// # Errors
    /// The first thing that went wrong; nothing is left running then.
    pub fn start(config: &Config, rules: RuleBook) -> Result<Self, StartError> {
        // Whoever started us may have refused them for itself.
        allow_huge_pages(config.node.huge_pages);
        let mut identifier_key = [0; 16];
        getrandom::fill(&mut identifier_key).map_err(StartError::Entropy)?;
        let snapshots = Snapshots::new(config.node.shards);
        let recovered = Arc::new(ArrayQueue::new(config.node.shards));
        let orders = Orders::new(config.node.shards);
        let questions = Questions::new(config.node.shards);
        // The edition that a shard has before is the book's of its options.
        let mut rules = rules;
        rules.follow(&RuleBook::default());
        let rules = Arc::new(rules);
        let factory = Factory {
            config: config.clone(),
            rules: Arc::clone(&rules),
            orders: orders.clone(),
            questions: questions.clone(),
            identifier_key,
            snapshots: snapshots.clone(),
            recovered: Arc::clone(&recovered),
        };
        let nofile = getrlimit(Resource::Nofile).current;
        let host_config = host_config(config, nofile);
        let connections_max = host_config.driver.connections_max;
        let host = Host::start(&host_config, factory).map_err(StartError::Host)?;
        let found = core::iter::from_fn(|| recovered.pop()).collect();
        Ok(Self {
            host,
            snapshots,
            recovered: found,
            connections_max,
            files_short: nofile
                .filter(|_| connections_max < config.limits.connections_max)
                .map(|limit| (limit, descriptors(config.node.shards, &config.limits))),
            orders,
            questions,
            rules,
        })
    }

    /// Puts other rules and other options in force, in each shard both at once and between two turns. Users
    /// with mail are decided on anew.
    pub fn retune(&mut self, mut rules: RuleBook, tuning: Tuning) {
        rules.follow(&self.rules);
        self.rules = Arc::new(rules);
        let rules = Arc::clone(&self.rules);
        self.orders.give(&Order::Reload { rules, tuning });
        let knocker = self.host.knocker();
        for addresses in self.host.addresses() {
            knocker.knock(addresses.shard);
        }
    }

    /// A line to the shards, for questions.
    #[must_use]
    pub fn line(&self) -> Line {
        Line::new(self.questions.clone(), self.host.knocker())
    }
}

fn host_config(config: &Config, nofile: Option<u64>) -> HostConfig {
    let udp = config.sip.transport == Transport::Udp;
    HostConfig {
        shards: config.node.shards,
        pin: Some(config.node.pin.clone()).filter(|cpus| !cpus.is_empty()),
        // The core may send over TCP whatever we use towards it.
        sip_tcp: Some(config.sip.listen),
        sip_udp: udp.then_some(config.sip.listen),
        shard_port_base: Some(match config.sip.listen.port() {
            0 => 0,
            port => port.saturating_add(1),
        }),
        msrp: config.msrp.listen,
        driver: DriverOptions {
            connections_max: connections_max(config, nofile),
            connections_per_source_max: config.limits.connections_per_source_max,
            uncapped_sources: config.uncapped().into_iter().collect(),
            train_segment_bytes_max: datagram_max(config, config.sip.listen),
            backend: config.node.backend,
            drain_limit: std::time::Duration::from_secs(config.node.drain_s),
            recorder_bytes: config.instruments.flight_recorder.octets(),
            recorder_bodies: config.instruments.msrp_bodies,
            gather: std::time::Duration::from_micros(config.node.gather_us),
            ..DriverOptions::default()
        },
    }
}
