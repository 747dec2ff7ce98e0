//! `volley chaos`: kills the engine under load, again and again, and keeps the books of what it had
//! acknowledged and what the phones got.

mod judge;
mod ledger;
mod text;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::child::Process;
use super::{complain, print, tell};
use judge::Judge;
use volley::io::backend::Backend;
use volley::io::disk::{Disk, FileSystem};

/// A law was broken or something acknowledged is gone.
const BROKEN: u8 = 4;
/// Longest wait for the engine to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Deposits that a process must have acknowledged before its end is due.
const WARM_ACKNOWLEDGED: u64 = 20;
/// Users of a campaign.
const USERS: u64 = 300;
/// Size of a disk that is cut off, MiB; the least an XFS can have, with a margin.
const DISK_MIB: u64 = 512;
/// Room that is left on a disk that gets full, MiB.
const ROOM_MIB: u64 = 10;

/// Arguments of `chaos`.
#[derive(Debug, clap::Args)]
pub(super) struct Chaos {
    /// Rounds that end with SIGKILL at a random moment under load.
    #[arg(long, default_value_t = 15)]
    kills: u32,
    /// Rounds that end with SIGTERM under load: the engine drains.
    #[arg(long, default_value_t = 0)]
    terms: u32,
    /// Rounds with SIGSTOP for a while, SIGCONT, then SIGKILL.
    #[arg(long, default_value_t = 0)]
    stops: u32,
    /// How long SIGSTOP lasts, seconds.
    #[arg(long, default_value_t = 2)]
    stop_s: u64,
    /// Rounds that end with the file system cut off, on ext4 and on XFS each. Root only.
    #[arg(long, default_value_t = 0)]
    power_cuts: u32,
    /// Rounds in which the disk gets full. Root only.
    #[arg(long, default_value_t = 0)]
    full_disks: u32,
    /// Rounds in which a disk that promised room has none: writes and syncs fail underneath the file
    /// system. Root only.
    #[arg(long, default_value_t = 0)]
    thin_disks: u32,
    /// Kills at any moment of a process's life, the start from its store included, one after the other.
    #[arg(long, default_value_t = 0)]
    restarts: u32,
    /// Rounds in which the wall clock jumps ahead by 400 days, with a start meanwhile. Needs libfaketime.
    #[arg(long, default_value_t = 0)]
    clock_jumps: u32,
    /// Chooses moments, users and absences.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Longest time under load before a fault, milliseconds.
    #[arg(long, default_value_t = 1200)]
    round_ms: u64,
    /// Where stores and disk images are made; a directory on a real disk.
    #[arg(long, value_name = "DIR", default_value = "volley-chaos")]
    dir: PathBuf,
    /// What the engine's shards run on.
    #[arg(long, value_enum, default_value = "auto")]
    backend: Backend,
    /// The table as JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Clock,
    Cut(FileSystem),
    Full,
    Kill,
    Restart,
    Stop,
    Term,
    Thin,
}

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Cut(kind) => format!("power cut, {}", kind.name()),
            Self::Clock => "clock +400 days".to_owned(),
            Self::Full => "disk full".to_owned(),
            Self::Kill => "kill -9".to_owned(),
            Self::Restart => "kill at start".to_owned(),
            Self::Stop => "stop, kill -9".to_owned(),
            Self::Term => "SIGTERM".to_owned(),
            Self::Thin => "no room beneath".to_owned(),
        }
    }
}

/// One engine process.
struct Engine {
    process: Process,
    sip: SocketAddr,
    recovery_ms: f64,
    lines: Receiver<String>,
    /// The counters it showed last.
    last: String,
}

impl Engine {
    /// Segments and checkpoints are small, so that every round sees new ones.
    fn command(
        home: &Path,
        store: &Path,
        trunk: u16,
        clock: Option<&Clock>,
    ) -> Result<Command, String> {
        let config = home.join("chaos.toml");
        let text = format!(
            "[node]\ndrain_s = 5\n[sip]\nlisten = \"127.0.0.1:0\"\n\
             next_hops = [{{ address = \"127.0.0.1:{trunk}\", connections = 2 }}]\n\
             [identity]\npf_uri = \"sip:pf@home.example\"\ndomains = [\"home.example\"]\n\
             [msrp]\nlisten = \"127.0.0.1:0\"\nguard = false\n[push]\nlinger_ms = 50\n\
             [selection]\ncoalesce_ms = 20\n[store]\ndir = \"{}\"\nsegment_mib = 2\n\
             checkpoint_mib = 4\nclean_mib_s = 64\n[limits]\nusers_max = 10000\n\
             pushes_max = 10000\n",
            store.display()
        );
        std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command
            .args(["run", "--json", "--quiet", "--lifeline", "--config"])
            .arg(&config)
            .stdout(Stdio::piped());
        if let Some(clock) = clock {
            command
                .env("LD_PRELOAD", &clock.library)
                .env("FAKETIME_TIMESTAMP_FILE", &clock.file)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        Ok(command)
    }

    fn start(mut command: Command) -> Result<Self, String> {
        let mut process = Process::start(&mut command).map_err(|error| error.to_string())?;
        let lines = process.lines().map_err(|error| error.to_string())?;
        let first = lines
            .recv_timeout(PATIENCE)
            .map_err(|_| "the engine did not become ready".to_owned())?;
        let first: Value = serde_json::from_str(&first).map_err(|error| error.to_string())?;
        let ready = &first["ready"];
        let sip = ready["shards"][0]["sip_tcp"].as_str();
        let sip = sip.and_then(|address| address.parse().ok());
        Ok(Self {
            process,
            sip: sip.ok_or("the engine's first line names no address")?,
            recovery_ms: ready["recovery_ms"].as_f64().unwrap_or(0.0),
            lines,
            last: String::new(),
        })
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops every thread of it, and waits until they stand.
    fn freeze(&self) {
        self.signal(Signal::STOP);
        for _ in 0..1000 {
            if self.stands() {
                break;
            }
            std::thread::park_timeout(Duration::from_micros(100));
        }
    }

    /// Whether all its threads are stopped; those of the kernel that serve its ring never are.
    fn stands(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id()));
        let mut tasks = tasks.into_iter().flatten().flatten();
        tasks.all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit(") ").next().unwrap_or_default();
            stat.contains("(iou-") || state.starts_with('T')
        })
    }

    /// Takes what it says.
    fn listen(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.last = line;
        }
    }

    /// A number of what it showed last.
    fn shown(&self, part: &str, name: &str) -> u64 {
        let last: Value = serde_json::from_str(&self.last).unwrap_or_default();
        last[part][name].as_u64().unwrap_or(0)
    }

    /// Waits for its end; `meanwhile` is called again and again.
    fn wait(&mut self, meanwhile: &mut dyn FnMut(Duration)) -> Result<Option<i32>, String> {
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            if let Some(status) = self.process.ended() {
                return Ok(status.code());
            }
            self.listen();
            meanwhile(step);
            std::thread::park_timeout(step);
            waited += step;
        }
        Err("the engine does not end".to_owned())
    }
}

/// A wall clock of the engine's own, that can be set.
#[derive(Debug)]
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Where packages put the library that gives a process another clock.
    const LIBRARIES: [&str; 4] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib64/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ];

    fn new(home: &Path) -> Result<Self, String> {
        let mut libraries = Self::LIBRARIES.iter().map(PathBuf::from);
        let library = libraries.find(|library| library.exists());
        let clock = Self {
            library: library.ok_or("libfaketime is not installed")?,
            file: home.join("clock"),
        };
        clock.set("+0")?;
        Ok(clock)
    }

    fn set(&self, ahead: &str) -> Result<(), String> {
        // In one step, since the engine may read it at any time.
        let aside = self.file.with_extension("new");
        std::fs::write(&aside, format!("{ahead}\n"))
            .and_then(|()| std::fs::rename(&aside, &self.file))
            .map_err(|error| format!("{}: {error}", self.file.display()))
    }
}

/// A campaign: one store, one judge, many engines.
struct Campaign<'a> {
    options: &'a Chaos,
    fault: Fault,
    home: PathBuf,
    disk: Option<Disk>,
    clock: Option<Clock>,
    judge: Judge,
    slowest_ms: f64,
    /// Rounds in which the fault was seen by the engine.
    full: u32,
    /// Messages that cleaning copied.
    cleaned: u64,
}

impl Campaign<'_> {
    fn store(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.path().join("store"),
            None => self.home.join("store"),
        }
    }

    fn command(&self) -> Result<Command, String> {
        let (store, trunk) = (self.store(), self.judge.trunk_port());
        let mut command = Engine::command(&self.home, &store, trunk, self.clock.as_ref())?;
        command.args(["--backend", self.options.backend.name()]);
        Ok(command)
    }

    /// Kills an engine, and takes what it said last.
    fn kill(&mut self, mut engine: Engine) -> Result<(), String> {
        engine.listen();
        self.cleaned += engine.shown("held", "cleaned_messages");
        engine.signal(Signal::KILL);
        engine.wait(&mut |_| ()).map(|_| ())
    }

    fn start(&mut self) -> Result<Engine, String> {
        let engine = Engine::start(self.command()?)?;
        self.slowest_ms = self.slowest_ms.max(engine.recovery_ms);
        let begun = self.judge.begin(engine.sip);
        begun.map_err(|error| format!("the engine does not listen: {error}"))?;
        Ok(engine)
    }

    fn round(&mut self) -> Result<(), String> {
        self.judge.feeding = true;
        match self.fault {
            Fault::Full | Fault::Thin => return self.full_round(),
            Fault::Clock => return self.clock_round(),
            Fault::Restart => return self.restart_round(),
            Fault::Cut(_) | Fault::Kill | Fault::Stop | Fault::Term => {}
        }
        let mut engine = self.start()?;
        // On a busy machine a process needs a while before anything can be lost.
        self.judge.warm_up(WARM_ACKNOWLEDGED, PATIENCE);
        let time = 50 + self.judge.dice.below(self.options.round_ms);
        self.judge.play(Duration::from_millis(time));
        engine.listen();
        match self.fault {
            Fault::Clock | Fault::Full | Fault::Kill | Fault::Restart | Fault::Thin => {
                self.kill(engine)?;
            }
            Fault::Stop => {
                engine.signal(Signal::STOP);
                self.judge.play(Duration::from_secs(self.options.stop_s));
                engine.signal(Signal::CONT);
                self.judge.resume();
                self.judge.play(Duration::from_millis(300));
                self.kill(engine)?;
            }
            Fault::Term => {
                engine.signal(Signal::TERM);
                let judge = &mut self.judge;
                let code = engine.wait(&mut |step| judge.play(step))?;
                if code != Some(0) {
                    self.judge
                        .ledger
                        .broken(format!("a drain under load ended with {code:?}"));
                }
            }
            Fault::Cut(_) => {
                // A process does not outlive the power. Yet every second one runs on, for file systems
                // shut down by themselves, too: what it acknowledges had better be on the disk.
                let runs_on = self.judge.dice.below(2) == 0;
                if !runs_on {
                    engine.freeze();
                }
                self.disk.as_ref().ok_or("no disk")?.cut()?;
                if runs_on {
                    self.judge.play(Duration::from_millis(100));
                }
                self.kill(engine)?;
            }
        }
        self.judge.end();
        if let (Fault::Cut(_), Some(disk)) = (self.fault, &self.disk) {
            disk.unmount()?;
            disk.mount()?;
        }
        Ok(())
    }

    /// A process that is killed before it is ready or soon after, then one that is let work a little.
    fn restart_round(&mut self) -> Result<(), String> {
        let mut process =
            Process::start(&mut self.command()?).map_err(|error| error.to_string())?;
        self.judge.begin_unready();
        let time = Duration::from_millis(self.judge.dice.below(150));
        self.judge.play(time);
        let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process(id, Signal::KILL);
        }
        while process.ended().is_none() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.judge.end();
        let engine = self.start()?;
        let time = self.judge.dice.below(self.options.round_ms);
        self.judge.play(Duration::from_millis(time));
        self.kill(engine)?;
        self.judge.end();
        Ok(())
    }

    /// The clock jumps ahead under load, a process starts by the wrong clock, and it is set right.
    fn clock_round(&mut self) -> Result<(), String> {
        let set = |campaign: &Self, ahead| match &campaign.clock {
            Some(clock) => clock.set(ahead),
            None => Err("no clock".to_owned()),
        };
        let mut engine = self.start()?;
        self.judge.warm_up(WARM_ACKNOWLEDGED, PATIENCE);
        set(self, "+400d")?;
        self.judge.play(Duration::from_millis(3000));
        engine.listen();
        let noticed = engine.shown("counters", "clock_jumps_total") > 0;
        let expired = engine.shown("ledger", "expired");
        self.kill(engine)?;
        self.judge.end();
        let mut engine = self.start()?;
        self.judge.warm_up(WARM_ACKNOWLEDGED, PATIENCE);
        set(self, "+0")?;
        self.judge.play(Duration::from_millis(2500));
        engine.listen();
        let expired = expired + engine.shown("ledger", "expired");
        if !noticed || expired > 0 {
            let what =
                format!("a clock that jumped: noticed {noticed}, messages expired {expired}");
            self.judge.ledger.broken(what);
        }
        self.full += u32::from(noticed);
        self.kill(engine)?;
        self.judge.end();
        Ok(())
    }

    /// Everybody is absent until the disk is full, or fails; then everybody comes: still on the full disk,
    /// or once the disk beneath has room again.
    fn full_round(&mut self) -> Result<(), String> {
        let absent = core::mem::replace(&mut self.judge.absent_percent, 100);
        let thin = self.fault == Fault::Thin;
        if let (true, Some(disk)) = (thin, &self.disk) {
            disk.set_room(Some(ROOM_MIB))?;
        }
        let mut engine = self.start()?;
        self.judge.refused = 0;
        for _ in 0..300 {
            self.judge.play(Duration::from_millis(100));
            engine.listen();
            let failed = engine.shown("held", "stores_failed") > 0;
            if self.judge.refused > 20 && (failed || !thin) {
                self.full += 1;
                break;
            }
        }
        self.kill(engine)?;
        self.judge.end();
        if let (true, Some(disk)) = (thin, &self.disk) {
            disk.set_room(None)?;
            disk.unmount()?;
            disk.mount()?;
        }
        self.judge.absent_percent = 0;
        let mut engine = self.start()?;
        let before = self.judge.ledger.sums().acknowledged;
        let mut taken = false;
        for _ in 0..300 {
            self.judge.play(Duration::from_millis(100));
            engine.listen();
            taken = self.judge.ledger.sums().acknowledged > before + 20;
            if taken && self.judge.ledger.waiting() < 100 {
                break;
            }
        }
        if !taken {
            let what = "deposits are not taken again although the phones took theirs";
            self.judge.ledger.broken(what.to_owned());
        }
        self.kill(engine)?;
        self.judge.end();
        self.judge.absent_percent = absent;
        Ok(())
    }

    /// The last engine: everyone is there, nothing more is sent, and all must come.
    fn settle(&mut self) -> Result<(), String> {
        self.judge.feeding = false;
        self.judge.absent_percent = 0;
        let mut engine = self.start()?;
        if !self.judge.settle(Duration::from_secs(120)) {
            engine.listen();
            let (lost, last) = (self.judge.ledger.lost(), &engine.last);
            let what = format!("acknowledged and never delivered: {lost:?} ..; {last}");
            self.judge.ledger.broken(what);
        }
        engine.signal(Signal::TERM);
        let judge = &mut self.judge;
        let code = engine.wait(&mut |step| judge.play(step))?;
        if code != Some(0) {
            self.judge
                .ledger
                .broken(format!("the last engine ended with {code:?}"));
        }
        self.judge.end();
        if self.judge.ledger.sums().acknowledged == 0 {
            let what = "nothing was acknowledged, so nothing was shown";
            self.judge.ledger.broken(what.to_owned());
        }
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let verify = Command::new(own)
            .args(["store", "verify", "--json", "--dir"])
            .arg(self.store())
            .output()
            .map_err(|error| error.to_string())?;
        if !verify.status.success() {
            let said = String::from_utf8_lossy(&verify.stdout).into_owned();
            self.judge
                .ledger
                .broken(format!("volley store verify: {said}"));
        }
        Ok(())
    }

    fn row(&self, rounds: u32) -> Value {
        let sums = self.judge.ledger.sums();
        json!({
            "fault": self.fault.name(),
            "rounds": rounds,
            "sent": sums.sent,
            "acknowledged": sums.acknowledged,
            "refused": sums.refused,
            "delivered": sums.delivered,
            "lost": sums.lost,
            "repeated": sums.repeated,
            "oldest_unmarked_ms": self.judge.ledger.longest_unmarked.as_millis(),
            "slowest_recovery_ms": self.slowest_ms,
            "fault_seen": self.full,
            "old_dialogs_refused": self.judge.old_dialogs,
            "cleaned": self.cleaned,
            "violations": self.judge.ledger.violations,
        })
    }
}

impl Chaos {
    pub(super) fn main(&self) -> ExitCode {
        match self.run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(BROKEN),
            Err(reason) => {
                complain(&reason);
                ExitCode::FAILURE
            }
        }
    }

    fn run(&self) -> Result<bool, String> {
        let dir = std::path::absolute(&self.dir).map_err(|error| error.to_string())?;
        let plan = [
            (Fault::Kill, self.kills),
            (Fault::Term, self.terms),
            (Fault::Stop, self.stops),
            (Fault::Cut(FileSystem::Ext4), self.power_cuts),
            (Fault::Cut(FileSystem::Xfs), self.power_cuts),
            (Fault::Full, self.full_disks),
            (Fault::Thin, self.thin_disks),
            (Fault::Restart, self.restarts),
            (Fault::Clock, self.clock_jumps),
        ];
        let (mut fine, mut rows) = (true, Vec::new());
        for (fault, rounds) in plan.into_iter().filter(|&(_, rounds)| rounds > 0) {
            let home = dir.join(format!("{}", rows.len()));
            std::fs::create_dir_all(&home)
                .map_err(|error| format!("{}: {error}", home.display()))?;
            let row = match self.campaign(fault, rounds, &home) {
                Ok(row) => row,
                Err(Refused::Skip(why)) => {
                    tell(&format!("SKIPPED: {} ({why})", fault.name()));
                    json!({ "fault": fault.name(), "rounds": 0, "skipped": why })
                }
                Err(Refused::Failed(why)) => return Err(format!("{}: {why}", fault.name())),
            };
            let broken = row["violations"].as_array().map_or(0, Vec::len);
            fine &= broken == 0;
            if fine {
                let _ = std::fs::remove_dir_all(&home);
            }
            tell(&table_row(&row));
            rows.push(row);
        }
        let _ = std::fs::remove_dir(&dir);
        let result = json!({ "seed": self.seed, "fine": fine, "rows": rows });
        if self.json {
            print(&format!("{result}\n"));
        } else {
            print(&table(&rows));
        }
        Ok(fine)
    }

    fn campaign(&self, fault: Fault, rounds: u32, home: &Path) -> Result<Value, Refused> {
        let disk = match fault {
            Fault::Cut(kind) => Some(Disk::new(home, kind, DISK_MIB).map_err(Refused::Skip)?),
            Fault::Full => {
                let disk = Disk::new(home, FileSystem::Ext4, 96).map_err(Refused::Skip)?;
                disk.fill(ROOM_MIB).map_err(Refused::Skip)?;
                Some(disk)
            }
            Fault::Thin => Some(Disk::thin(home, DISK_MIB).map_err(Refused::Skip)?),
            Fault::Clock | Fault::Kill | Fault::Restart | Fault::Stop | Fault::Term => None,
        };
        let clock = match fault {
            Fault::Clock => Some(Clock::new(home).map_err(Refused::Skip)?),
            Fault::Cut(_)
            | Fault::Full
            | Fault::Kill
            | Fault::Restart
            | Fault::Stop
            | Fault::Term
            | Fault::Thin => None,
        };
        let judge = Judge::new(self.seed, USERS).map_err(|error| error.to_string())?;
        let mut campaign = Campaign {
            options: self,
            fault,
            home: home.to_owned(),
            disk,
            clock,
            judge,
            slowest_ms: 0.0,
            full: 0,
            cleaned: 0,
        };
        for round in 1..=rounds {
            campaign.round()?;
            if round.is_multiple_of(10) {
                tell(&format!("{}: {round} of {rounds}", fault.name()));
            }
        }
        campaign.settle()?;
        Ok(campaign.row(rounds))
    }
}

/// Why a campaign did not happen.
enum Refused {
    Failed(String),
    Skip(String),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

const COLUMNS: [&str; 12] = [
    "rounds",
    "sent",
    "acknowledged",
    "refused",
    "delivered",
    "lost",
    "repeated",
    "oldest_unmarked_ms",
    "slowest_recovery_ms",
    "fault_seen",
    "old_dialogs_refused",
    "cleaned",
];

fn table_row(row: &Value) -> String {
    let mut text = format!("| {:<16} |", row["fault"].as_str().unwrap_or_default());
    if let Some(why) = row["skipped"].as_str() {
        text.push_str(&format!(" SKIPPED: {why} |"));
        return text;
    }
    for column in COLUMNS {
        let value = row[column].as_f64().unwrap_or(0.0);
        text.push_str(&format!(" {value:.0} |"));
    }
    let violations = row["violations"].as_array().map_or(0, Vec::len);
    text.push_str(&format!(" {violations} |"));
    for what in row["violations"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "\n  BROKEN: {}",
            what.as_str().unwrap_or_default()
        ));
    }
    text
}

fn table(rows: &[Value]) -> String {
    let mut text = String::from("| fault |");
    for column in COLUMNS {
        text.push_str(&format!(" {} |", column.replace('_', " ")));
    }
    text.push_str(" laws broken |\n|");
    text.push_str(&"---|".repeat(COLUMNS.len() + 2));
    text.push('\n');
    for row in rows {
        text.push_str(&table_row(row));
        text.push('\n');
    }
    text
}
