//! What to run: options from a scenario file and the command line, resolved into a [`Setup`].

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::forms::Answer;
use crate::world::Step;

mod setup;

pub use setup::{Check, Objective, Setup};

/// Most workers of one run.
pub const WORKERS_MAX: u16 = 64;

/// Scenario files that come with the program.
pub const SHIPPED: &[(&str, &str)] = &[
    ("smoke", include_str!("../scenarios/smoke.toml")),
    ("full", include_str!("../scenarios/full.toml")),
    ("signalling", include_str!("../scenarios/signalling.toml")),
    ("steady", include_str!("../scenarios/steady.toml")),
    ("storm", include_str!("../scenarios/storm.toml")),
    ("mix", include_str!("../scenarios/mix.toml")),
    ("fat", include_str!("../scenarios/fat.toml")),
    ("soak", include_str!("../scenarios/soak.toml")),
    ("chaos", include_str!("../scenarios/chaos.toml")),
    ("refresh", include_str!("../scenarios/refresh.toml")),
    ("sessions", include_str!("../scenarios/sessions.toml")),
];

/// The course of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Deposits for absent users, then a registration wave, every message delivered.
    Full,
    /// INVITE-100-200-ACK-BYE-200 without media: phones answer with port 0.
    Signalling,
    /// Registered users; each deposit is pushed at once.
    Steady,
    /// As full, but sessions stay: the engine lingers, and their timers are judged while they last.
    Hold,
}

impl Kind {
    /// As in scenario files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Signalling => "signalling",
            Self::Steady => "steady",
            Self::Hold => "hold",
        }
    }

    /// The step the figures are about.
    pub fn measured(self) -> Step {
        match self {
            Self::Full => Step::Register,
            Self::Signalling | Self::Steady | Self::Hold => Step::Measure,
        }
    }
}

/// Transport of SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP, the default: a push INVITE is longer than 1300 octets.
    Tcp,
    /// UDP; allowed with a known path MTU.
    Udp,
}

impl Transport {
    /// As in Via.
    pub fn via(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// As in `transport=`.
    pub fn param(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Who opens the MSRP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Phone {
    /// The phone connects to the engine, one connection per session.
    Active,
    /// Every second device is active.
    Mixed,
    /// The engine connects to the phones, which share one address.
    Passive,
}

impl Phone {
    /// What device number `device` answers.
    pub fn answer(self, device: u8) -> Answer {
        match self {
            Self::Active => Answer::Active,
            Self::Mixed if device % 2 == 1 => Answer::Active,
            Self::Mixed | Self::Passive => Answer::Passive,
        }
    }
}

/// When triggers fall due in an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// Equal distances.
    Constant,
    /// Exponential distances of the same mean, seeded.
    Poisson,
    /// Distances drawn evenly between zero and twice the mean, seeded.
    Uniform,
    /// From --rate to --rate-to over the measured time.
    Ramp,
    /// Each of --steps for an equal part of the measured time.
    Steps,
    /// --rate, swinging by --sine-depth in --sine-period-s.
    Sine,
    /// Every user once within --storm-within-s, distributed as --storm-shape.
    Storm,
    /// At the times of --replay.
    Replay,
}

/// How the users of a storm are distributed over its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StormShape {
    /// Evenly.
    Flat,
    /// Most at the start, as when a network comes back.
    Front,
    /// Swelling and dying away.
    Bell,
}

/// What becomes of a trigger that the generator could not send in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Late {
    /// It is sent as soon as possible, and its latency counts from the due time.
    Send,
    /// Later than --late-bound-ms it is left out and counted as missed.
    Skip,
}

/// How datagrams travel between us and the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ReplyStyle {
    /// Datagrams of one size to one peer leave as one operation (UDP GSO), and what the engine sends so
    /// is taken in so (UDP GRO).
    #[default]
    Trains,
    /// Each datagram passes the kernel by itself, both ways.
    Datagrams,
}

/// Options of `run`, each also a key of a scenario file (with `_` for `-`); the command line wins.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Course of the run [default: full]
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,
    /// Address of the engine's well-known SIP port
    #[arg(long, value_name = "HOST:PORT")]
    pub engine: Option<SocketAddr>,
    /// Address this S-CSCF listens on [default: 127.0.0.1:15060]
    #[arg(long, value_name = "HOST:PORT")]
    pub scscf_listen: Option<SocketAddr>,
    /// Address the phones' MSRP listens on [default: 127.0.0.1:12855]
    #[arg(long, value_name = "HOST:PORT")]
    pub msrp_listen: Option<SocketAddr>,
    /// Transport of SIP [default: tcp]
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,
    /// How answers leave and what comes in over UDP: trains of datagrams or one by one [default: trains]
    #[arg(long, value_enum)]
    pub reply_style: Option<ReplyStyle>,
    /// Path MTU over which UDP may carry the INVITE [default: unknown]
    #[arg(long, value_name = "OCTETS")]
    pub path_mtu: Option<usize>,
    /// Threads of this generator, each with its share of the users and of the load; worker n listens n
    /// ports higher, and the engine needs an entry of `sip.scscf` for each but the first [default: 1]
    #[arg(long, value_name = "N")]
    pub workers: Option<u16>,
    /// SIP connections of each worker to the engine [default: 4]
    #[arg(long)]
    pub connections: Option<u16>,
    /// Home domain of the users [default: home.example]
    #[arg(long)]
    pub domain: Option<String>,
    /// CPM service the engine pushes with; with dialects several, comma-separated, the usual one first
    /// [default: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred]
    #[arg(long)]
    pub icsi: Option<String>,
    /// Users [default: 1000]
    #[arg(long)]
    pub users: Option<u32>,
    /// Devices of a user, one number or MIN-MAX [default: 1-3]
    #[arg(long, value_name = "N|MIN-MAX")]
    pub devices: Option<String>,
    /// Share of users registered under a telephone identity too, 0 to 1 [default: 0.25]
    #[arg(long)]
    pub tel_share: Option<f64>,
    /// Messages deposited for each user before it registers [default: 1]
    #[arg(long)]
    pub messages: Option<u32>,
    /// Body octets; several sizes take turns; above 65000 by INVITE and MSRP [default: 300]
    #[arg(long, value_delimiter = ',')]
    pub body_bytes: Option<Vec<usize>>,
    /// Pushes per second, open loop: latencies count from the intended time
    #[arg(long, value_name = "PUSHES/S")]
    pub rate: Option<f64>,
    /// Users with a trigger outstanding, closed loop: as fast as the engine goes [default: 256]
    #[arg(long, value_name = "N")]
    pub users_in_flight: Option<u32>,
    /// Distances between triggers of an open loop [default: constant]
    #[arg(long, value_enum)]
    pub arrivals: Option<Arrivals>,
    /// Rate at the end of a ramp
    #[arg(long, value_name = "PUSHES/S")]
    pub rate_to: Option<f64>,
    /// Rates of `--arrivals steps`, in turn
    #[arg(long, value_name = "PUSHES/S", value_delimiter = ',')]
    pub steps: Option<Vec<f64>>,
    /// Seconds of one swing of `--arrivals sine` [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub sine_period_s: Option<f64>,
    /// How far `--arrivals sine` swings, as a share of the rate, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    pub sine_depth: Option<f64>,
    /// Seconds within which every user of a storm comes [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub storm_within_s: Option<f64>,
    /// How the users of a storm are distributed over its time [default: flat]
    #[arg(long, value_enum)]
    pub storm_shape: Option<StormShape>,
    /// Schedule to repeat: a line for each trigger, SECONDS and perhaps a USER
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// What becomes of triggers the generator is late with [default: send]
    #[arg(long, value_enum)]
    pub late: Option<Late>,
    /// Lateness above which `--late skip` leaves a trigger out, milliseconds [default: 50]
    #[arg(long, value_name = "MS")]
    pub late_bound_ms: Option<f64>,
    /// Deposits per second before the wave; without it as fast as the engine answers
    #[arg(long, value_name = "MESSAGES/S")]
    pub deposit_rate: Option<f64>,
    /// Unanswered deposits at a time [default: 1024]
    #[arg(long, value_name = "N")]
    pub deposits_in_flight: Option<u32>,
    /// Seconds of load before measuring (signalling, steady) [default: 1]
    #[arg(long, value_name = "SECONDS")]
    pub warmup_s: Option<f64>,
    /// Seconds measured (signalling, steady) [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub duration_s: Option<f64>,
    /// Longest wait without progress before a run is ended, seconds [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub drain_s: Option<f64>,
    /// Longest wait for the engine to accept the first connection, seconds [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub reach_s: Option<f64>,
    /// SIP over TCP is read and triggers leave every so many microseconds, as behind a network device that gathers its
    /// interrupts: fewer and larger turns on both sides, and up to twice as much in every latency; 0: at once
    /// [default: 0]
    #[arg(long, value_name = "US")]
    pub gather_us: Option<u32>,
    /// Who opens the MSRP connection [default: passive]
    #[arg(long, value_enum)]
    pub phone: Option<Phone>,
    /// What phones do with a push, NAME:WEIGHT of answer, ring, late, fork, hang-up, busy, absent,
    /// decline, not-acceptable, too-small, unavailable, silent; may repeat [default: answer]
    #[arg(long, value_name = "NAME:WEIGHT", value_delimiter = ',')]
    pub mix: Option<Vec<String>>,
    /// What phones do with a SEND, NAME:WEIGHT of read, slow, partial, refuse, abort, reset;
    /// may repeat [default: read]
    #[arg(long, value_name = "NAME:WEIGHT", value_delimiter = ',')]
    pub receivers: Option<Vec<String>>,
    /// What phones that opened a connection do with it after the engine's BYE, NAME:WEIGHT of close, wait (for the
    /// engine to close it, 4 s at most); may repeat [default: close]
    #[arg(long, value_name = "NAME:WEIGHT", value_delimiter = ',')]
    pub leavers: Option<Vec<String>>,
    /// Next hops, each on a port of its own: those of worker n follow in steps of --workers. The first is
    /// the S-CSCF itself [default: 1]
    #[arg(long, value_name = "N")]
    pub next_hops: Option<u8>,
    /// How many of them refuse connections, the last ones [default: 0]
    #[arg(long, value_name = "N")]
    pub dead_hops: Option<u8>,
    /// What a next hop does with an INVITE, NAME:WEIGHT of good, busy, close, oc, rate; may repeat
    /// [default: good]
    #[arg(long, value_name = "NAME:WEIGHT", value_delimiter = ',')]
    pub hops: Option<Vec<String>>,
    /// What the registrar does with a trigger, NAME:WEIGHT of full, partial, gap, stale, refresh, gone,
    /// gruu-less, storm, and ends of subscriptions deactivated, probation, giveup, timeout, rejected,
    /// noresource, invariant; may repeat [default: full]
    #[arg(long, value_name = "NAME:WEIGHT", value_delimiter = ',')]
    pub registrar: Option<Vec<String>>,
    /// How long phones that ring ring, and phones that hang up stay, milliseconds [default: 200]
    #[arg(long, value_name = "MS")]
    pub ring_ms: Option<f64>,
    /// How late phones that are late answer, milliseconds [default: 1000]
    #[arg(long, value_name = "MS")]
    pub late_ms: Option<f64>,
    /// How long slow receivers take over a SEND, milliseconds [default: 100]
    #[arg(long, value_name = "MS")]
    pub slow_ms: Option<f64>,
    /// Share of datagrams lost on purpose, in both directions (UDP) [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub loss: Option<f64>,
    /// Share of datagrams that come twice (UDP) [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub duplicate: Option<f64>,
    /// Share of datagrams that are late and so out of order (UDP) [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub delay: Option<f64>,
    /// Longest such delay, milliseconds [default: 20]
    #[arg(long, value_name = "MS")]
    pub delay_ms: Option<f64>,
    /// Send 100 before the 200 [default: true]
    #[arg(long, value_name = "BOOL")]
    pub trying: Option<bool>,
    /// Send 180 before the 200 [default: false]
    #[arg(long, value_name = "BOOL")]
    pub ringing: Option<bool>,
    /// Phones answer with a session timer [default: true]
    #[arg(long, value_name = "BOOL")]
    pub session_timer: Option<bool>,
    /// Interval phones answer with, seconds [default: 1800]
    #[arg(long, value_name = "SECONDS")]
    pub session_expires_s: Option<u32>,
    /// Who refreshes sessions, NAME:WEIGHT of engine, phone, silent; may repeat; judged in kind hold
    /// [default: engine]
    #[arg(long, value_name = "NAME:WEIGHT", value_delimiter = ',')]
    pub refreshers: Option<Vec<String>>,
    /// Phones answer with msrp-cema [default: true]
    #[arg(long, value_name = "BOOL")]
    pub answer_cema: Option<bool>,
    /// Offers must carry msrp-cema [default: true]
    #[arg(long, value_name = "BOOL")]
    pub expect_cema: Option<bool>,
    /// Offers carry sendonly at session level [default: false]
    #[arg(long, value_name = "BOOL")]
    pub sendonly_session_level: Option<bool>,
    /// Which messages are judged: full, off, or sampled:N (every Nth push) [default: full]
    #[arg(long)]
    pub check: Option<String>,
    /// Pushes whose identifiers are remembered to find repeats [default: 200000]
    #[arg(long, value_name = "N")]
    pub uniqueness_window: Option<usize>,
    /// After signalling, let the phones accept and fetch every message the engine kept [default: false]
    #[arg(long, value_name = "BOOL")]
    pub sweep: Option<bool>,
    /// In kind hold, phones hang up all sessions at the end; the step is in the report
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub hang_up: Option<bool>,
    /// Goal such as p99_trigger_to_invite_ms=5 or min_pushes_per_s=1000; may repeat
    #[arg(long, value_name = "NAME=VALUE")]
    pub objective: Option<Vec<String>>,
    /// Most pushes a second the engine can do, as a search found it, for objective min_goodput
    /// [default: the best second of the run]
    #[arg(long, value_name = "PUSHES")]
    pub goodput_maximum: Option<f64>,
    /// Send lag (p99) above which an open-loop run is invalid, milliseconds [default: 5]
    #[arg(long, value_name = "MS")]
    pub lag_bound_ms: Option<f64>,
    /// Share of its wanted CPU time that engine or generator may wait for a CPU in an open loop
    /// before the run is invalid, 0 to 1 [default: 0.25]
    #[arg(long, value_name = "SHARE")]
    pub pressure_bound: Option<f64>,
    /// Process whose CPU time is the engine's
    #[arg(long, value_name = "PID")]
    pub engine_pid: Option<u32>,
    /// Pin this generator to a CPU; worker n to the nth one after it
    #[arg(long, value_name = "CPU")]
    pub cpu: Option<usize>,
    /// Seed of everything drawn [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Tells this run's messages from those of other runs [default: from the clock]
    #[arg(long)]
    pub run_id: Option<u32>,
    /// Write the result as JSON, - for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write report.txt and report.json here
    #[arg(long, value_name = "DIR")]
    pub report_dir: Option<PathBuf>,
    /// Write progress as a JSON object a line each second, - for standard output
    #[arg(long, value_name = "FILE")]
    pub ndjson: Option<PathBuf>,
    /// No progress lines
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub quiet: Option<bool>,
}

macro_rules! take {
    ($into:expr, $from:expr; $($field:ident),* $(,)?) => {
        $( if $from.$field.is_some() { $into.$field = $from.$field; } )*
    };
}

impl Options {
    /// Lays `other` over these options.
    pub fn overlay(&mut self, other: Self) {
        take!(self, other; kind, engine, scscf_listen, msrp_listen, transport, reply_style, path_mtu,
            workers, connections, domain, icsi, users, devices, tel_share, messages, body_bytes, rate,
            users_in_flight, arrivals, rate_to, steps, sine_period_s, sine_depth, storm_within_s,
            storm_shape, replay, late, late_bound_ms, pressure_bound, deposit_rate, deposits_in_flight, warmup_s, duration_s,
            drain_s, reach_s, gather_us, phone, mix, receivers, leavers, registrar, next_hops, dead_hops, hops, ring_ms, late_ms, slow_ms, loss, duplicate, delay, delay_ms, trying, ringing, session_timer, session_expires_s, refreshers, answer_cema, expect_cema,
            sendonly_session_level, check, uniqueness_window, sweep, hang_up, objective, goodput_maximum, lag_bound_ms,
            engine_pid, cpu, seed, run_id, json, report_dir, ndjson, quiet);
    }

    /// Reads a scenario file by the name of a shipped one or by path.
    pub fn read(name: &str) -> Result<Self, String> {
        if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Self::parse(name, text);
        }
        let text = std::fs::read_to_string(name).map_err(|error| {
            let known: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
            format!(
                "--scenario {name}: {error}; give a path to a TOML file or one of {}",
                known.join(", ")
            )
        })?;
        Self::parse(name, &text)
    }

    /// Parses the text of a scenario file; errors name file, line, key and remedy.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| {
                text[..span.start.min(text.len())].matches('\n').count() + 1
            });
            format!("{file}:{line}: {}", explain(error.message()))
        })
    }
}

/// Adds a suggestion to serde's complaint about an unknown key.
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown ") {
        return message.to_owned();
    }
    let Some(unknown) = quoted.next() else {
        return message.to_owned();
    };
    let nearest = quoted.min_by_key(|known| distance(unknown, known));
    let what = if message.starts_with("unknown variant") {
        "value"
    } else {
        "key"
    };
    match nearest {
        Some(known) if distance(unknown, known) <= 3 => {
            format!("unknown {what} `{unknown}`; did you mean `{known}`?")
        }
        _ => message.to_owned(),
    }
}

/// The known name that is nearest to an unknown one, when it is near enough for a typo.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (distance(unknown, known), known))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, _)| distance <= 3)
        .map(|(_, known)| known)
}

/// Edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, &right) in b.iter().enumerate() {
            let cost = corner + usize::from(left != right);
            corner = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_files_parse_and_resolve() {
        for (name, text) in SHIPPED {
            let mut options = Options::parse(name, text).unwrap();
            options.engine = Some("127.0.0.1:5060".parse().unwrap());
            Setup::resolve(options, 1).unwrap();
        }
    }

    #[test]
    fn a_typo_in_a_file_names_line_key_and_remedy() {
        let error = Options::parse("x.toml", "kind = \"full\"\nusrs = 5\n").unwrap_err();
        assert_eq!(error, "x.toml:2: unknown key `usrs`; did you mean `users`?");
        let error = Options::parse("x.toml", "kind = \"ful\"\n").unwrap_err();
        assert_eq!(error, "x.toml:1: unknown value `ful`; did you mean `full`?");
    }

    #[test]
    fn gathers_for_no_time_or_for_one_that_makes_sense() {
        let resolve = |gather_us| {
            let options = Options {
                engine: Some("127.0.0.1:5060".parse().unwrap()),
                gather_us: Some(gather_us),
                ..Options::default()
            };
            Setup::resolve(options, 1)
        };
        for gather_us in [0, 50, 10_000] {
            assert_eq!(resolve(gather_us).unwrap().gather_us, gather_us);
        }
        for gather_us in [1, 49, 10_001] {
            let error = resolve(gather_us).unwrap_err();
            assert!(error.contains("not within 50 and 10000"), "{error}");
        }
    }

    #[test]
    fn refuses_udp_without_path_mtu_and_names_the_remedy() {
        let options = Options {
            engine: Some("127.0.0.1:5060".parse().unwrap()),
            transport: Some(Transport::Udp),
            ..Options::default()
        };
        assert!(
            Setup::resolve(options, 1)
                .unwrap_err()
                .contains("--path-mtu")
        );
    }
}
