//! Starts engines and judges as processes of their own and collects the reports.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::report::Report;

/// How long an engine may take to accept connections, and to end when asked.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// A running engine; it is ended when this is dropped.
#[derive(Debug)]
pub struct Engine {
    child: Child,
}

impl Engine {
    /// Starts `command` (words separated by white space) after removing `fresh`, and waits until
    /// `address` accepts a connection.
    pub fn start(
        command: &str,
        fresh: Option<&PathBuf>,
        address: SocketAddr,
    ) -> Result<Self, String> {
        if let Some(dir) = fresh
            && let Err(error) = std::fs::remove_dir_all(dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(format!("--fresh {}: {error}", dir.display()));
        }
        let mut words = command.split_ascii_whitespace();
        let program = words.next().ok_or("the engine's command is empty")?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let mut engine = Self { child };
        let start = Instant::now();
        while TcpStream::connect_timeout(&address, LOOK).is_err() {
            if let Ok(Some(status)) = engine.child.try_wait() {
                return Err(format!(
                    "`{command}` ended ({status}) before it listened on {address}"
                ));
            }
            if start.elapsed() > START {
                return Err(format!("`{command}` does not listen on {address}"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(engine)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        signal(self.child.id(), Signal::TERM);
        // A stopped one would not see it.
        signal(self.child.id(), Signal::CONT);
        let start = Instant::now();
        while start.elapsed() < STOP {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A judge in a process of its own.
#[derive(Debug)]
pub struct Judge {
    child: Child,
    file: PathBuf,
}

impl Judge {
    /// Starts `run` with these arguments.
    pub fn start(args: &[String]) -> Result<Self, String> {
        let name = format!("volley-trial-{}-{}.json", std::process::id(), serial());
        let file = std::env::temp_dir().join(name);
        let child = own()?
            .arg("run")
            .args(args.iter().filter(|arg| *arg != "--quiet"))
            .args(["--quiet", "--json"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("the judge cannot be started: {error}"))?;
        Ok(Self { child, file })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool, String> {
        let status = self.child.try_wait();
        let status = status.map_err(|error| format!("the judge cannot be waited for: {error}"))?;
        Ok(status.is_some())
    }

    /// Waits for its end; gives its report.
    pub fn report(mut self) -> Result<Report, String> {
        let status = self.child.wait();
        let status = status.map_err(|error| format!("the judge cannot be waited for: {error}"))?;
        let report = Report::read(&self.file.display().to_string());
        let _ = std::fs::remove_file(&self.file);
        report.map_err(|_| {
            format!("the judge ended ({status}) without a report; see its message above")
        })
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs `run` with these arguments in a process of its own; gives its report.
pub fn judge(args: &[String]) -> Result<Report, String> {
    Judge::start(args)?.report()
}

/// Sends `signal` to a process that this one started and has not waited for.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// This program again; inside another program the judge is its subcommand `judge`.
fn own() -> Result<Command, String> {
    let path = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let inside = std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "judge");
    let mut command = Command::new(path);
    if inside {
        command.arg("judge");
    }
    Ok(command)
}

fn serial() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The engine's address among the arguments of a run.
pub fn engine_address(args: &[String]) -> Result<SocketAddr, String> {
    let at = args.iter().position(|arg| arg == "--engine");
    at.and_then(|at| args.get(at + 1))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            "give the engine's address behind `--`, as --engine 127.0.0.1:5060".to_owned()
        })
}
