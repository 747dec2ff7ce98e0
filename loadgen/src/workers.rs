//! One run on several threads: each worker has its own world, ring, sockets, users and share of the load.
//!
//! A worker listens on its own ports and is an S-CSCF of its own: the third-party REGISTERs of its users
//! name it, so the engine sends their INVITEs to it (NH-1), dialogs come back by its Record-Route and
//! MSRP by the paths of its phones. No octet crosses threads. Workers change step together
//! ([`Gate`]), and what they found is added up ([`crate::outcome`]).

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::arrivals::Arrival;
use crate::gate::Gate;
use crate::net::{DriveError, Driver, Listeners};
use crate::outcome::Outcome;
use crate::panel::{Glance, Keys, Panel};
use crate::scenario::Setup;
use crate::world::World;

/// How often keys are looked at, and progress shown.
const LOOK: Duration = Duration::from_millis(100);
const SHOW: Duration = Duration::from_secs(1);

/// Why a run gave no outcome.
#[derive(Debug)]
pub enum RunError {
    /// The network did not do.
    Drive(DriveError),
    /// Anything else, in words.
    Other(String),
}

/// The setup of worker `number`: its ports, its users, its share of the load.
#[must_use]
pub fn share(setup: &Setup, number: u16) -> Setup {
    let (count, n) = (u32::from(setup.workers), u32::from(number));
    let first = |n: u32| {
        let share = u64::from(setup.users) * u64::from(n) / u64::from(count);
        u32::try_from(share).unwrap_or(u32::MAX)
    };
    let part = |whole: u32| (whole * (n + 1) / count - whole * n / count).max(1);
    let higher = |mut address: SocketAddr| {
        if address.port() != 0 {
            address.set_port(address.port() + number);
        }
        address
    };
    let users = first(n + 1) - first(n);
    let of = f64::from(count);
    let mut one = setup.clone();
    one.worker = number;
    one.first_user = first(n);
    one.users = users;
    one.scscf_listen = higher(setup.scscf_listen);
    one.msrp_listen = higher(setup.msrp_listen);
    one.users_in_flight = part(setup.users_in_flight);
    one.deposits_in_flight = part(setup.deposits_in_flight);
    one.uniqueness_window = setup.uniqueness_window.div_ceil(usize::from(setup.workers));
    for rate in [&mut one.rate, &mut one.rate_to, &mut one.deposit_rate] {
        *rate = rate.map(|rate| rate / of);
    }
    for rate in &mut one.steps {
        *rate /= of;
    }
    // Message identifiers of one run differ between workers.
    one.run_id = setup.run_id ^ n << 26;
    one.replayed = replayed(setup, one.first_user, users, n);
    one
}

/// The arrivals of a replayed schedule that are a worker's: those of its users, and every nth of those
/// that name no user.
fn replayed(setup: &Setup, first: u32, users: u32, number: u32) -> Arc<[Arrival]> {
    let mut unnamed = 0u32;
    let mine = move |arrival: &Arrival| match arrival.user {
        Some(user) => {
            let user = user.checked_sub(first).filter(|&user| user < users)?;
            Some(Arrival {
                user: Some(user),
                ..*arrival
            })
        }
        None => {
            unnamed += 1;
            ((unnamed - 1) % u32::from(setup.workers) == number).then_some(*arrival)
        }
    };
    setup.replayed.iter().filter_map(mine).collect()
}

/// Runs a setup to its end.
pub fn run(setup: Setup) -> Result<Outcome, RunError> {
    let count = setup.workers;
    let shares: Vec<Setup> = match count {
        1 => vec![setup.clone()],
        _ => (0..count).map(|number| share(&setup, number)).collect(),
    };
    let mut bound = Vec::new();
    for mut one in shares {
        let listeners = Listeners::bind(&mut one).map_err(RunError::Drive)?;
        bound.push((one, listeners));
    }
    let keys = if setup.quiet { None } else { Keys::start() };
    let mut panel = Panel::new(&setup, keys.is_some()).map_err(RunError::Other)?;
    if !setup.quiet {
        for (one, _) in &bound {
            let _ = writeln!(std::io::stderr(), "{}", crate::report::headline(one));
        }
    }
    let gate = Arc::new(Gate::new(u32::from(count)));
    let (sender, receiver) = mpsc::channel();
    let epoch = Instant::now();
    for (one, listeners) in bound {
        let worker = Worker {
            number: usize::from(one.worker),
            gate: Arc::clone(&gate),
            shows: panel.wanted(),
            sender: sender.clone(),
            epoch,
        };
        std::thread::Builder::new()
            .name(format!("judge-{}", one.worker))
            .spawn(move || worker.main(one, listeners))
            .map_err(|error| RunError::Other(format!("cannot start a thread: {error}")))?;
    }
    drop(sender);
    let watch = |glances: &[Glance]| {
        for key in keys.iter().flat_map(Keys::typed) {
            steer(&gate, key);
        }
        if panel.wanted() {
            panel.tick(glances, &setup, epoch.elapsed().as_secs_f64(), SHOW);
        }
    };
    collect(&receiver, count, watch).map(|mut sum| {
        sum.setup = setup;
        sum
    })
}

/// Waits for every worker; the first that fails ends the run.
fn collect(
    receiver: &Receiver<(usize, Word)>,
    count: u16,
    mut watch: impl FnMut(&[Glance]),
) -> Result<Outcome, RunError> {
    let mut found: Vec<Option<Outcome>> = (0..count).map(|_| None).collect();
    let mut glances = vec![Glance::default(); usize::from(count)];
    while found.iter().any(Option::is_none) {
        match receiver.recv_timeout(LOOK) {
            Ok((number, Word::Done(outcome))) => found[number] = Some(*outcome),
            Ok((number, Word::Glance(glance))) => glances[number] = *glance,
            Ok((_, Word::Failed(error))) => return Err(RunError::Drive(error)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(RunError::Other(
                    "a thread of the judge ended; is io_uring allowed here (sysctl \
                     kernel.io_uring_disabled)?"
                        .to_owned(),
                ));
            }
        }
        watch(&glances);
    }
    found
        .into_iter()
        .flatten()
        .reduce(|mut sum, one| {
            sum.absorb(one);
            sum
        })
        .ok_or_else(|| RunError::Other("no worker ran".to_owned()))
}

/// Does what a key asks for.
fn steer(gate: &Gate, key: u8) {
    match key {
        b'+' => gate.scale(1.1),
        b'-' => gate.scale(1.0 / 1.1),
        b'q' => gate.cut_short(),
        _ => {}
    }
}

/// What a worker says.
enum Word {
    /// How it stands.
    Glance(Box<Glance>),
    /// Its part of the run is over.
    Done(Box<Outcome>),
    /// It could not run.
    Failed(DriveError),
}

/// What a worker's thread has beside its world.
struct Worker {
    number: usize,
    gate: Arc<Gate>,
    /// Somebody looks at what it shows.
    shows: bool,
    sender: Sender<(usize, Word)>,
    epoch: Instant,
}

/// A runtime whose completions do not interrupt it while it runs, where the kernel can (Linux 5.19): whoever brings
/// one about pays for the interrupt, and over loopback that is the engine.
fn runtime() -> tokio_uring::Builder {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun();
    let mut runtime = tokio_uring::builder();
    runtime.entries(4096);
    if ring.build(2).is_ok() {
        runtime.uring_builder(&ring);
    }
    runtime
}

impl Worker {
    /// Nobody listens when the run has failed elsewhere.
    fn say(&self, word: Word) {
        let _ = self.sender.send((self.number, word));
    }

    fn main(self, setup: Setup, listeners: Listeners) {
        pin(setup.cpu.map(|cpu| cpu + self.number));
        runtime().start(async move {
            let word = match self.drive(setup, listeners).await {
                Ok(outcome) => Word::Done(Box::new(outcome)),
                Err(error) => Word::Failed(error),
            };
            self.say(word);
            // Dropping a ring with operations in flight would wait for them.
            std::future::pending::<()>().await;
        });
    }

    async fn drive(&self, setup: Setup, listeners: Listeners) -> Result<Outcome, DriveError> {
        let mut world = World::new(setup);
        world.director.gate = Some(Arc::clone(&self.gate));
        let driver = Driver::start(world, listeners, self.epoch);
        let mut done = core::pin::pin!(driver.done());
        let mut last = Instant::now();
        loop {
            if let Ok(outcome) = tokio::time::timeout(LOOK, &mut done).await {
                outcome?;
                break;
            }
            if self.shows && last.elapsed() >= SHOW {
                last = Instant::now();
                let glance = driver.world(|world| Glance::new(world));
                self.say(Word::Glance(Box::new(glance)));
            }
        }
        let marks = driver.marks();
        Ok(driver.world(|world| {
            world.finish();
            Outcome::take(world, marks)
        }))
    }
}

/// Keeps the calling thread on a CPU; says so where that fails.
pub(crate) fn pin(cpu: Option<usize>) {
    let Some(cpu) = cpu else {
        return;
    };
    let mut set = rustix::thread::CpuSet::new();
    if cpu < rustix::thread::CpuSet::MAX_CPU {
        set.set(cpu);
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        let _ = writeln!(
            std::io::stderr(),
            "volley-loadgen: --cpu {cpu}: {error}; not pinned"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Options;

    fn setup(text: &str) -> Setup {
        let text = format!("engine = \"127.0.0.1:5060\"\n{text}");
        Setup::resolve(Options::parse("test", &text).unwrap(), 7).unwrap()
    }

    #[test]
    fn users_and_load_are_shared_out_whole() {
        let all = setup("users = 1003\nworkers = 4\nrate = 1000.0\nusers_in_flight = 10\n");
        let shares: Vec<Setup> = (0..4).map(|number| share(&all, number)).collect();
        assert_eq!(shares.iter().map(|one| one.users).sum::<u32>(), 1003);
        for pair in shares.windows(2) {
            assert_eq!(pair[0].first_user + pair[0].users, pair[1].first_user);
            assert_ne!(pair[0].run_id, pair[1].run_id);
            assert_eq!(pair[0].scscf_listen.port() + 1, pair[1].scscf_listen.port());
        }
        let in_flight: u32 = shares.iter().map(|one| one.users_in_flight).sum();
        assert_eq!(in_flight, 10);
        assert_eq!(shares[3].rate, Some(250.0));
    }

    #[test]
    fn a_world_shared_out_has_the_same_users() {
        let text = "users = 100\ndevices = \"1-3\"\nseed = 9\n";
        let whole = World::new(setup(text));
        let all = setup(&format!("{text}workers = 3\n"));
        let parts: usize = (0..3)
            .map(|number| World::new(share(&all, number)).device_count())
            .sum();
        assert_eq!(parts, whole.device_count());
    }
}
