//! Child processes that never outlive this one.
//!
//! A child's standard input is a pipe whose other end only we hold. However we end, the kernel
//! closes it, and the child ([`super::lifeline`]) takes that as the wish to stop.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use volley::io::clock::Clock;

/// How often a waiting parent looks.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// Lines of a child kept until the parent looks.
const LINES_MAX: usize = 1024;

/// A running child, killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Largest resident size seen, KiB.
    pub peak_kib: u64,
}

impl Process {
    /// Starts `command` with the pipe as its standard input.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.stdin(Stdio::piped()).spawn()?;
        Ok(Self { child, peak_kib: 0 })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.note_memory();
        // An error is "no such child", which is an end, too; the next look says so again.
        self.child.try_wait().unwrap_or(None)
    }

    /// Asks it to end in order; kills it after `patience`. `None` if it had to be killed.
    pub(super) fn stop(mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let clock = Clock;
        let limit = clock.now() + patience;
        while clock.now() < limit {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::park_timeout(LOOK);
        }
        None
    }

    /// The lines of its standard output, as they come; the channel ends with the output.
    pub(super) fn lines(&mut self) -> io::Result<Receiver<String>> {
        let (sender, receiver) = sync_channel(LINES_MAX);
        let out: Option<ChildStdout> = self.child.stdout.take();
        let out = out.ok_or_else(|| io::Error::other("its output is not piped"))?;
        std::thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            })?;
        Ok(receiver)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Not yet waited for, so the number is still its own; an error means it has ended.
            let _ = kill_process(pid, signal);
        }
    }

    fn note_memory(&mut self) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let peak = status.ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        });
        self.peak_kib = self.peak_kib.max(peak.unwrap_or(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
