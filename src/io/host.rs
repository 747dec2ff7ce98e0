//! Starts the shards of a process, one thread each, and stops them.
//!
//! All sockets are bound before the first thread starts, so that a process either listens
//! everywhere or ends with one sentence that names the address and the remedy.

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use crate::base::limits::SHARDS_MAX;
use crate::base::surface::Core;
use crate::base::time::Timestamp;

use super::backend::{self, Backend, Choice};
use super::driver::{Driver, DriverOptions, NullStore, Occasion, Shared, StoreDriver};
use super::exec;
use super::listen::{BindError, Plan, ShardAddresses, ShardSockets};
use super::mesh::Mesh;
use super::names::{self, Answers, Asker};
use super::pin::Pinning;
use super::recorder::Recorder;
use super::ring;
use super::stats::{Counters, DriverStats};
use super::sys::RawRing;
use super::trains::{self, TrainSupport};

/// Far away: the datapath makes room for other tasks by itself, see `park::breathe`.
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);
/// Memory glommio registers per shard for direct I/O of the store, octets.
pub const IO_MEMORY_BYTES: usize = 2 << 20;
/// Depth of glommio's rings.
const EXECUTOR_RING_DEPTH: usize = 128;

/// Whether this process, and what it starts, may have pages of 2 MiB, which the allocator asks for. One is
/// cleared when it is first touched, and whoever touches it stands meanwhile: 0.2 ms, and several where a
/// hypervisor has to find the memory first; tables that grow touch many in a row. No effect where the kernel
/// has no such pages.
pub fn allow_huge_pages(allowed: bool) {
    // Refused only by kernels without the call, which have no such pages.
    let _ = rustix::thread::disable_transparent_huge_pages(!allowed);
}

/// What to start.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Number of shards, 1 to 256; each is a thread.
    pub shards: usize,
    /// CPUs the shards run on, in order; `None` leaves it to the kernel.
    pub pin: Option<Vec<usize>>,
    /// Well-known SIP over TCP address, shared by all shards. Port 0 is an ephemeral one.
    pub sip_tcp: Option<SocketAddr>,
    /// Well-known SIP over UDP address, shared by all shards. Port 0 is an ephemeral one.
    pub sip_udp: Option<SocketAddr>,
    /// Port of shard 0's own SIP sockets, shard 1 has the next, and so on; 0 is ephemeral ports,
    /// `None` no own sockets. The addresses are those of `sip_tcp` and `sip_udp`.
    pub shard_port_base: Option<u16>,
    /// MSRP over TCP address of shard 0; shard 1 has the next port. Port 0 is ephemeral ports.
    pub msrp: SocketAddr,
    /// Bounds and sizes of each driver.
    pub driver: DriverOptions,
}

/// Makes the core and the store of each shard, inside the shard's thread and executor.
pub trait ShardFactory: Send + Sync + 'static {
    /// The engine core.
    type Core: Core + 'static;
    /// Its store.
    type Store: StoreDriver + 'static;

    /// Opens the store, recovers, and makes the core. An error is one sentence for the operator.
    fn make(
        &self,
        addresses: &ShardAddresses,
    ) -> impl Future<Output = Result<(Self::Core, Self::Store), String>>;

    /// Looks at the core about once a second and once at the end: the place to publish a snapshot.
    fn observe(&self, shard: u8, core: &mut Self::Core, now: Timestamp) {
        let _ = (shard, core, now);
    }

    /// Somebody knocked: the place to answer questions, between two turns and with little work. True
    /// when more wait.
    fn attend(
        &self,
        shard: u8,
        core: &mut Self::Core,
        recorder: &Recorder,
        now: Timestamp,
    ) -> bool {
        let _ = (shard, core, recorder, now);
        false
    }
}

/// A factory for cores without a store: a function of the addresses.
#[derive(Clone, Copy, Debug)]
pub struct Storeless<F>(pub F);

impl<C, F> ShardFactory for Storeless<F>
where
    C: Core + 'static,
    F: Fn(&ShardAddresses) -> C + Send + Sync + 'static,
{
    type Core = C;
    type Store = NullStore;

    async fn make(&self, addresses: &ShardAddresses) -> Result<(C, NullStore), String> {
        Ok((self.0(addresses), NullStore::default()))
    }
}

/// Why a host did not start, or ended.
#[derive(Debug)]
pub enum HostError {
    /// A socket could not be bound.
    Bind(BindError),
    /// The configuration cannot be right.
    Config(&'static str),
    /// The core or its store could not be made.
    Core {
        /// The shard.
        shard: u8,
        /// One sentence.
        reason: String,
    },
    /// The executor could not be started or failed.
    Executor {
        /// The shard.
        shard: u8,
        /// What glommio said.
        reason: String,
    },
    /// The shard's thread panicked.
    Panicked {
        /// The shard.
        shard: u8,
    },
    /// The kernel refused or broke the ring.
    Ring {
        /// What to do.
        remedy: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Config(reason) => f.write_str(reason),
            Self::Core { shard, reason } => write!(f, "shard {shard}: {reason}"),
            Self::Executor { shard, reason } => {
                write!(f, "shard {shard}: the executor failed: {reason}")?;
                ring::executor_remedy(reason).map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            Self::Panicked { shard } => write!(f, "shard {shard} panicked"),
            Self::Ring { remedy, error } => write!(f, "{remedy} ({error})"),
        }
    }
}

impl HostError {
    /// True when it is for want of descriptors, which no backend does without.
    pub(super) fn is_shortage(&self) -> bool {
        match self {
            Self::Ring { error, .. } => {
                matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
            }
            Self::Executor { reason, .. } => ring::is_shortage(reason),
            Self::Bind(_) | Self::Config(_) | Self::Core { .. } | Self::Panicked { .. } => false,
        }
    }
}

impl core::error::Error for HostError {}

impl From<BindError> for HostError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

impl From<io::Error> for HostError {
    fn from(error: io::Error) -> Self {
        Self::Ring {
            remedy: ring::refusal(&error),
            error,
        }
    }
}

/// Asks all shards to drain and stop. Cheap to clone; may be used from any thread, repeatedly.
#[derive(Clone, Debug)]
pub struct StopHandle(Arc<Shared>);

impl StopHandle {
    /// Starts the drain; returns at once. `Host::join` waits for the end.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.mesh.wake_all();
    }

    /// True once a stop was asked for, or a shard ended and took the others with it.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }
}

/// Makes shards attend to who asks; see [`ShardFactory::attend`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Knocker(Arc<Shared>);

impl Knocker {
    /// Lets `shard` attend after its turn, and wakes it if it rests. What it shall find must be there
    /// before.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn knock(&self, shard: u8) {
        let shard = usize::from(shard);
        self.0.asked[shard].store(true, Ordering::Release);
        self.0.mesh.wake(shard).notify();
    }
}

/// The running shards.
#[derive(Debug)]
pub struct Host {
    addresses: Vec<ShardAddresses>,
    stats: Vec<Arc<DriverStats>>,
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    choice: Choice,
    trains: TrainSupport,
}

impl Host {
    /// Binds, starts every shard, and returns when all are ready to serve.
    ///
    /// # Errors
    /// The first thing that went wrong; nothing is left running then.
    pub fn start<F: ShardFactory>(config: &HostConfig, factory: F) -> Result<Self, HostError> {
        if config.shards == 0 || config.shards > SHARDS_MAX {
            return Err(HostError::Config("shards must be 1 to 256"));
        }
        let choice = backend::choose(config.driver.backend)?;
        let plan = Plan {
            shards: config.shards,
            sip_tcp: config.sip_tcp,
            sip_udp: config.sip_udp,
            shard_port_base: config.shard_port_base,
            msrp: config.msrp,
        };
        let sockets = plan.bind()?;
        let shared = Arc::new(Shared {
            mesh: Mesh::new(config.shards)?,
            answers: Answers::new(config.shards),
            stop: AtomicBool::new(false),
            asked: (0..config.shards).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut host = Self {
            addresses: sockets.iter().map(|shard| shard.addresses).collect(),
            stats: Vec::new(),
            shared,
            threads: Vec::new(),
            choice,
            trains: if config.sip_udp.is_some() && config.driver.train_segment_bytes_max > 0 {
                trains::probe()
            } else {
                TrainSupport::default()
            },
        };
        match host.spawn(config, Arc::new(factory), sockets) {
            Ok(()) => Ok(host),
            Err(error) => {
                host.stop_handle().stop();
                let _ = host.join();
                Err(error)
            }
        }
    }

    fn spawn<F: ShardFactory>(
        &mut self,
        config: &HostConfig,
        factory: Arc<F>,
        sockets: Vec<ShardSockets>,
    ) -> Result<(), HostError> {
        let pinning = Pinning::new(config.pin.clone());
        let (ready, started) = sync_channel(sockets.len());
        let askers = names::start(&self.shared, sockets.len())?;
        for (sockets, names) in sockets.into_iter().zip(askers) {
            let shard = sockets.addresses.shard;
            let stats = Arc::new(DriverStats::default());
            self.stats.push(Arc::clone(&stats));
            let job = Job {
                factory: Arc::clone(&factory),
                sockets,
                options: DriverOptions {
                    train_segment_bytes_max: if self.trains.sends {
                        config.driver.train_segment_bytes_max
                    } else {
                        0
                    },
                    backend: self.choice.backend,
                    ..config.driver.clone()
                },
                shared: Arc::clone(&self.shared),
                names,
                stats,
                ready: ready.clone(),
            };
            if self.choice.backend == Backend::Mmsg {
                let cpu = pinning.cpu(usize::from(shard));
                self.threads
                    .push(Thread::Plain(spawn_plain(job, shard, cpu)?));
                continue;
            }
            let thread = LocalExecutorBuilder::new(pinning.placement(usize::from(shard)))
                .name(&format!("shard{shard}"))
                .preempt_timer(PREEMPT_TIMER)
                .io_memory(IO_MEMORY_BYTES)
                .ring_depth(EXECUTOR_RING_DEPTH)
                .spawn(move || job.run())
                .map_err(|error| HostError::Executor {
                    shard,
                    reason: error.to_string(),
                })?;
            self.threads.push(Thread::Glommio(thread));
        }
        drop(ready);
        let mut count = 0;
        while let Ok(()) = started.recv() {
            count += 1;
            if count == self.threads.len() {
                return Ok(());
            }
        }
        // A shard ended before it was ready: its thread knows why.
        self.stop_handle().stop();
        self.join_threads()?;
        Err(HostError::Config("a shard ended before it was ready"))
    }

    /// Where each shard listens.
    #[must_use]
    pub fn addresses(&self) -> &[ShardAddresses] {
        &self.addresses
    }

    /// What the shards run on, and why.
    #[must_use]
    pub const fn backend(&self) -> &Choice {
        &self.choice
    }

    /// How datagrams travel: what the options allow and this kernel can.
    #[must_use]
    pub const fn trains(&self) -> TrainSupport {
        self.trains
    }

    /// Counters of each shard's driver; they may be kept beyond the host's life.
    #[must_use]
    pub fn stats(&self) -> &[Arc<DriverStats>] {
        &self.stats
    }

    /// The counters of every shard as last published.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.stats.iter().map(|stats| stats.read()).collect()
    }

    /// Whether the shards are stopping: they were asked to, or one of them has ended.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// A handle that stops the shards.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(Arc::clone(&self.shared))
    }

    /// A handle that makes shards attend.
    #[must_use]
    pub fn knocker(&self) -> Knocker {
        Knocker(Arc::clone(&self.shared))
    }

    /// Waits until every shard has ended.
    ///
    /// # Errors
    /// The first shard's that did not end well.
    pub fn join(mut self) -> Result<(), HostError> {
        self.join_threads()
    }

    fn join_threads(&mut self) -> Result<(), HostError> {
        let mut outcome = Ok(());
        for (shard, thread) in (0_u8..).zip(self.threads.drain(..)) {
            let ended = thread.join(shard);
            outcome = outcome.and(ended);
        }
        outcome
    }
}

/// A shard's thread.
#[derive(Debug)]
enum Thread {
    Glommio(ExecutorJoinHandle<Result<(), HostError>>),
    Plain(std::thread::JoinHandle<Result<(), HostError>>),
}

impl Thread {
    fn join(self, shard: u8) -> Result<(), HostError> {
        match self {
            Self::Plain(thread) => thread.join().unwrap_or(Err(HostError::Panicked { shard })),
            Self::Glommio(thread) => {
                let join = core::panic::AssertUnwindSafe(|| thread.join());
                match std::panic::catch_unwind(join) {
                    Ok(Ok(result)) => result,
                    Ok(Err(error)) => Err(HostError::Executor {
                        shard,
                        reason: error.to_string(),
                    }),
                    Err(_) => Err(HostError::Panicked { shard }),
                }
            }
        }
    }
}

/// Starts a shard on the executor without io_uring.
fn spawn_plain<F: ShardFactory>(
    job: Job<F>,
    shard: u8,
    cpu: Option<usize>,
) -> Result<std::thread::JoinHandle<Result<(), HostError>>, HostError> {
    let failed = move |error: &io::Error| HostError::Executor {
        shard,
        reason: error.to_string(),
    };
    let thread = std::thread::Builder::new().name(format!("shard{shard}"));
    let thread = thread.spawn(move || {
        if let Some(cpu) = cpu {
            let mut set = rustix::thread::CpuSet::new();
            set.set(cpu);
            rustix::thread::sched_setaffinity(None, &set).map_err(|error| failed(&error.into()))?;
        }
        exec::run(job.run()).map_err(|error| failed(&error))?
    });
    thread.map_err(|error| failed(&error))
}

/// What a shard's thread starts from.
struct Job<F> {
    factory: Arc<F>,
    sockets: ShardSockets,
    options: DriverOptions,
    shared: Arc<Shared>,
    names: Asker,
    stats: Arc<DriverStats>,
    ready: SyncSender<()>,
}

/// Stops every shard when one ends, however it ends: a host with a hole is no host.
struct EndOfAll(Arc<Shared>);

impl Drop for EndOfAll {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.mesh.wake_all();
    }
}

impl<F: ShardFactory> Job<F> {
    async fn run(self) -> Result<(), HostError> {
        let _end = EndOfAll(Arc::clone(&self.shared));
        let addresses = self.sockets.addresses;
        let shard = addresses.shard;
        let made = self.factory.make(&addresses).await;
        let (core, store) = made.map_err(|reason| HostError::Core { shard, reason })?;
        let driver = Driver::new(
            core,
            store,
            self.sockets,
            self.options,
            (self.shared, self.names),
            self.stats,
        )?;
        // The receiver is gone only if another shard failed; then a stop follows.
        let _ = self.ready.send(());
        drop(self.ready);
        let factory = self.factory;
        driver
            .run(|core, recorder, now, occasion| match occasion {
                Occasion::Asked => factory.attend(shard, core, recorder, now),
                Occasion::Tick => {
                    factory.observe(shard, core, now);
                    false
                }
            })
            .await?;
        Ok(())
    }
}

/// Finds out, before anything is bound, whether this host gives us what the shards do with io_uring: a
/// ring of the datapath, and an executor.
///
/// # Errors
/// [`HostError::Ring`] or [`HostError::Executor`], with the remedy.
pub fn probe() -> Result<(), HostError> {
    RawRing::new(8, 16)?;
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(PREEMPT_TIMER)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .make();
    executor.map(drop).map_err(|error| HostError::Executor {
        shard: 0,
        reason: error.to_string(),
    })
}
