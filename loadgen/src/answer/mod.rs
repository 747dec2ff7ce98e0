//! An answering peer for any caller: INVITE-100-200-ACK-BYE-200 with one account of both sides.
//!
//! The same program answers SIPp, Kamailio, a stack in Rust and our own engine, on one thread that never
//! sleeps, and divides the calls completed in a window by the CPU time of the caller's processes in it.
//! It counts by Call-ID, and prints a rate only when every call had its INVITE, ACK and BYE. An engine is
//! made to push by the registrar beside it.

mod bare;
mod phones;
mod registrar;
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use bare::Call;

use self::phones::{Counts, Phones};
use self::registrar::Registrar;
use self::wire::{LineId, Lines, Role, Wire};
use crate::cpu::{self, Usage};
use crate::scan::{Message, Method};
use crate::scenario::{Options, Setup, Transport};

/// How long nothing comes before a run is over, once its window is; longer while calls are open, whose
/// caller may wait for a CPU.
const QUIET: Duration = Duration::from_millis(800);
const QUIET_OPEN: Duration = Duration::from_secs(8);
/// How long the first call may take, and the rest of all.
const PATIENCE: Duration = Duration::from_secs(40);

const EXAMPLES: &str = "\
Examples:
  volley-loadgen answer --listen 127.0.0.1:15060 --transport udp --pid 4711 --cpu 1
      Answers, and says what a call costs process 4711 with its children.
  volley-loadgen answer --listen 127.0.0.1:15060 --drive 127.0.0.1:16060 --pid 4711 --cpu 1
      The same for an engine, which is made to push by NOTIFYs.

Stop the caller when `measured` appears on standard error; the end comes when nothing was said for a second.
Exit codes: 0 every call is complete, 2 usage, 4 it is not.";

/// What to answer and whom to measure.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Answer {
    /// Where calls come to
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15060")]
    pub listen: SocketAddr,
    /// Transport of SIP
    #[arg(long, value_enum, default_value = "tcp")]
    pub transport: Transport,
    /// Take trains of datagrams joined (`UDP_GRO`), and answer in trains (`UDP_SEGMENT`); else the kernel
    /// cuts them before they arrive, and each answer travels by itself
    #[arg(long)]
    pub trains: bool,
    /// CPU of this peer, which it takes whole
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// Processes of the caller, whose children count too
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Make the engine at this address push, as its S-CSCF
    #[arg(long, value_name = "HOST:PORT")]
    pub drive: Option<SocketAddr>,
    /// Users of that engine
    #[arg(long, default_value_t = 1000)]
    pub users: u32,
    /// Devices of each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub devices: u8,
    /// Users with a trigger outstanding
    #[arg(long, default_value_t = 64)]
    pub users_in_flight: u32,
    /// Seconds of calls before the window
    #[arg(long, default_value_t = 1.0)]
    pub warmup_s: f64,
    /// Seconds of the window
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    transport: &'static str,
    trains: bool,
    /// Length of the window.
    window_s: f64,
    /// Calls that ended within the window.
    pushes: u64,
    /// CPU of the caller within the window, of so many processes.
    caller_cpu_s: f64,
    caller_processes: usize,
    /// How much of the window the caller used of a CPU, and how much it waited for one.
    caller_busy: f64,
    caller_waited: f64,
    /// How much of the window this peer had something to do: near one, it was the limit.
    peer_busy: f64,
    /// Of the whole run.
    totals: Counts,
    /// Calls that lack something.
    open: usize,
    /// Requests of the registrar that were refused, and users who got no push.
    refused: u64,
    unserved: u32,
}

impl Report {
    /// Whether both ends agree on every call.
    pub fn is_reconciled(&self) -> bool {
        let all = self.totals;
        all.invites > 0
            && all.invites == all.acks
            && all.invites == all.byes
            && all.invites == all.completed
            && all.strays == 0
            && self.open == 0
            && self.refused == 0
            && self.unserved == 0
    }

    /// As JSON or for people; without a rate when the calls do not add up.
    pub fn text(&self, json: bool) -> String {
        let reconciled = self.is_reconciled();
        let measured = self.pushes > 0 && self.caller_cpu_s > 0.0;
        let per_push_us = self.caller_cpu_s * 1e6 / self.pushes.max(1) as f64;
        if json {
            let mut value = serde_json::to_value(self).unwrap_or_default();
            value["reconciled"] = reconciled.into();
            if reconciled && measured {
                value["us_per_push"] = per_push_us.into();
                value["pushes_per_core_s"] = (1e6 / per_push_us).into();
            }
            return format!("{value}\n");
        }
        let Counts {
            invites,
            acks,
            byes,
            completed,
            repeats,
            strays,
        } = self.totals;
        let mut text = format!(
            "calls    {invites} INVITE, {acks} ACK, {byes} BYE, {completed} complete, {} open, \
             {repeats} repeated, {strays} stray; refused {}, unserved {}\n",
            self.open, self.refused, self.unserved
        );
        if !reconciled {
            text.push_str("no rate: the calls do not add up\n");
        } else if measured {
            text.push_str(&format!(
                "caller   {per_push_us:.2} us CPU a call, {:.0} calls per core-second ({} in {:.2} s, \
                 {} processes busy {:.0} %, waited {:.0} %; this peer busy {:.0} %)\n",
                1e6 / per_push_us,
                self.pushes,
                self.window_s,
                self.caller_processes,
                self.caller_busy * 100.0,
                self.caller_waited * 100.0,
                self.peer_busy * 100.0,
            ));
        }
        text
    }
}

/// Phones, and whoever makes the engine call them.
struct Host {
    phones: Phones,
    registrar: Option<Registrar>,
}

impl Role for Host {
    fn message(&mut self, line: LineId, message: &Message<'_>, lines: &mut Lines) {
        if message.status != 0 {
            if let Some(registrar) = &mut self.registrar {
                registrar.answered(message);
            }
            return;
        }
        match message.method {
            Method::Invite => {
                let named = self.registrar.as_ref().map(|it| it.user_of(message));
                self.phones
                    .invite(line, message, named.unwrap_or(u32::MAX), lines);
            }
            Method::Ack | Method::Bye => {
                let over = self.phones.in_dialog(line, message, lines);
                if let (Some(user), Some(registrar)) = (over, &mut self.registrar) {
                    registrar.pushed(user);
                }
            }
            Method::Subscribe => match &mut self.registrar {
                Some(registrar) => registrar.subscribe(line, message, lines),
                None => self.phones.counts.strays += 1,
            },
            Method::Cancel
            | Method::Message
            | Method::Notify
            | Method::Options
            | Method::Other
            | Method::Register
            | Method::Update => self.phones.counts.strays += 1,
        }
    }
}

/// Both sides at one moment.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    counts: Counts,
    caller: Usage,
    processes: usize,
    busy: Duration,
}

impl Answer {
    /// Answers until the caller has stopped; the error is a sentence.
    pub fn run(&self) -> Result<Report, String> {
        crate::workers::pin(self.cpu);
        let wire = Wire::bind(self.listen, self.transport, self.trains);
        let mut wire = wire.map_err(|error| format!("--listen {}: {error}", self.listen))?;
        let mut host = Host {
            phones: Phones::new(&self.listen.to_string(), self.transport.param()),
            registrar: None,
        };
        if let Some(engine) = self.drive {
            let registrar = Registrar::new(&self.setup(engine)?, &mut wire);
            host.registrar = Some(registrar.map_err(|error| format!("--drive {engine}: {error}"))?);
        }
        self.serve(&mut wire, &mut host)
            .map_err(|error| format!("{}: {error}", self.listen))
    }

    fn setup(&self, engine: SocketAddr) -> Result<Setup, String> {
        let options = Options {
            engine: Some(engine),
            scscf_listen: Some(self.listen),
            transport: Some(self.transport),
            path_mtu: (self.transport == Transport::Udp).then_some(65_535),
            users: Some(self.users),
            devices: Some(self.devices.to_string()),
            users_in_flight: Some(self.users_in_flight),
            ..Options::default()
        };
        Setup::resolve(options, std::process::id())
    }

    fn serve(&self, wire: &mut Wire, host: &mut Host) -> std::io::Result<Report> {
        let start = Instant::now();
        let (mut last, mut heard, mut busy) = (start, start, Duration::ZERO);
        let mut first_call = None;
        let (mut begin, mut end) = (None, None);
        loop {
            let count = wire.turn(host)?;
            if let Some(registrar) = &mut host.registrar {
                registrar.pump(wire)?;
            }
            let now = Instant::now();
            if count > 0 {
                busy += now - last;
                heard = now;
            }
            last = now;
            let mark = || {
                let (processes, caller) = cpu::read_families(&self.pids);
                Mark {
                    at: now,
                    counts: host.phones.counts,
                    caller,
                    processes,
                    busy,
                }
            };
            let warm = host.registrar.as_ref().is_none_or(Registrar::is_warm);
            if first_call.is_none() && warm && host.phones.counts.invites > 0 {
                first_call = Some(now);
            }
            match (first_call, begin, end) {
                (Some(first), None, _) if now - first >= seconds(self.warmup_s) => {
                    begin = Some(mark());
                }
                (_, Some(mark_of_begin), None)
                    if now - mark_of_begin.at >= seconds(self.seconds) =>
                {
                    end = Some((mark_of_begin, mark()));
                    if let Some(registrar) = &mut host.registrar {
                        registrar.ending = true;
                    }
                    let _ = writeln!(std::io::stderr(), "measured");
                }
                _ => {}
            }
            let open = host.phones.open() > 0;
            let quiet = if open { QUIET_OPEN } else { QUIET };
            let over = end.is_some() && now - heard > quiet;
            let late = begin.is_none() && now - start > PATIENCE;
            if over || late || now - heard > PATIENCE {
                return Ok(self.report(host, end));
            }
        }
    }

    fn report(&self, host: &Host, window: Option<(Mark, Mark)>) -> Report {
        let registrar = host.registrar.as_ref();
        let mut report = Report {
            transport: self.transport.param(),
            trains: self.trains,
            window_s: 0.0,
            pushes: 0,
            caller_cpu_s: 0.0,
            caller_processes: 0,
            caller_busy: 0.0,
            caller_waited: 0.0,
            peer_busy: 0.0,
            totals: host.phones.counts,
            open: host.phones.open(),
            refused: registrar.map_or(0, |it| it.refused),
            unserved: registrar.map_or(0, Registrar::unserved),
        };
        if let Some((begin, end)) = window {
            let took = (end.at - begin.at).as_secs_f64();
            let used = end.caller.since(&begin.caller);
            report.window_s = took;
            report.pushes = end.counts.since(&begin.counts).completed;
            report.caller_cpu_s = used.run_ns as f64 / 1e9;
            report.caller_processes = end.processes;
            report.caller_busy = report.caller_cpu_s / took;
            report.caller_waited = used.wait_ns as f64 / 1e9 / took;
            report.peer_busy = (end.busy - begin.busy).as_secs_f64() / took;
        }
        report
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
