//! Options resolved and checked: what a run does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Arrivals, Kind, Late, Options, Phone, ReplyStyle, StormShape, Transport, WORKERS_MAX};
use crate::arrivals::{self, Arrival};
use crate::behaviour::{
    BEHAVIOURS, Behaviour, HOPS, Hop, LEAVERS, Leaver, Mix, RECEIVERS, REFRESHERS, REGISTRARS,
    Receiver, Refresher, Registrar,
};
use crate::chaos::Odds;
use crate::forms::BODY_MAX;

/// What `--gather-us` may be, but for 0: what one timer can do, and what no objective would survive.
const GATHER_US: core::ops::RangeInclusive<u32> = 50..=10_000;

/// Which pushes are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// All.
    Full,
    /// None.
    Off,
    /// Every nth.
    Sampled(u32),
}

/// A goal for the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Name as given.
    pub name: String,
    /// What the value is compared with.
    pub bound: f64,
}

/// Everything resolved and checked.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is the option of the same name")]
pub struct Setup {
    pub kind: Kind,
    pub engine: SocketAddr,
    pub scscf_listen: SocketAddr,
    pub msrp_listen: SocketAddr,
    pub transport: Transport,
    /// Datagrams in trains or one by one.
    pub reply_style: ReplyStyle,
    pub path_mtu: Option<usize>,
    pub workers: u16,
    /// Which worker this is the setup of.
    pub worker: u16,
    /// Number of the first user of this worker.
    pub first_user: u32,
    pub connections: u16,
    pub domain: String,
    pub icsi: String,
    pub users: u32,
    pub devices: (u8, u8),
    pub tel_share: f64,
    pub messages: u32,
    pub body_bytes: Vec<usize>,
    pub rate: Option<f64>,
    pub users_in_flight: u32,
    pub arrivals: Arrivals,
    pub rate_to: Option<f64>,
    pub steps: Vec<f64>,
    pub sine_period_s: f64,
    pub sine_depth: f64,
    pub storm_within_s: f64,
    pub storm_shape: StormShape,
    /// The schedule of `replay`, read.
    pub replayed: Arc<[Arrival]>,
    pub late: Late,
    pub late_bound_ms: f64,
    pub pressure_bound: f64,
    pub deposit_rate: Option<f64>,
    pub deposits_in_flight: u32,
    pub warmup_s: f64,
    pub duration_s: f64,
    pub drain_s: f64,
    pub reach_s: f64,
    pub gather_us: u32,
    pub phone: Phone,
    pub mix: Mix<Behaviour>,
    pub receivers: Mix<Receiver>,
    pub leavers: Mix<Leaver>,
    pub registrar: Mix<Registrar>,
    pub next_hops: u8,
    pub dead_hops: u8,
    pub hops: Mix<Hop>,
    pub ring_ms: f64,
    pub late_ms: f64,
    pub slow_ms: f64,
    /// What becomes of datagrams: `loss`, `duplicate`, `delay`, `delay_ms`.
    pub chaos: Odds,
    pub trying: bool,
    pub ringing: bool,
    pub session_timer: bool,
    pub session_expires_s: u32,
    pub refreshers: Mix<Refresher>,
    pub answer_cema: bool,
    pub expect_cema: bool,
    pub sendonly_session_level: bool,
    pub check: Check,
    pub uniqueness_window: usize,
    pub sweep: bool,
    /// Phones hang up the sessions of a hold.
    pub hang_up: bool,
    pub objectives: Vec<Objective>,
    pub goodput_maximum: Option<f64>,
    pub lag_bound_ms: f64,
    pub engine_pid: Option<u32>,
    pub cpu: Option<usize>,
    pub seed: u64,
    pub run_id: u32,
    pub json: Option<PathBuf>,
    pub report_dir: Option<PathBuf>,
    pub ndjson: Option<PathBuf>,
    pub quiet: bool,
    /// DateTime of every message.
    pub date_time: String,
}

impl Setup {
    /// As in reports.
    #[must_use]
    pub const fn reply_style_name(&self) -> &'static str {
        match (self.transport, self.reply_style) {
            (Transport::Tcp, _) => "none",
            (Transport::Udp, ReplyStyle::Trains) => "trains",
            (Transport::Udp, ReplyStyle::Datagrams) => "datagrams",
        }
    }

    /// Resolves options; the error names the option and a remedy.
    pub fn resolve(options: Options, run_id: u32) -> Result<Self, String> {
        let engine = options
            .engine
            .ok_or("--engine: missing; give the engine's SIP address, as 127.0.0.1:5060")?;
        let address = |text: &str| text.parse().expect("a constant address");
        let mixes = Mixes::of(&options)?;
        let setup = Self {
            kind: options.kind.unwrap_or(Kind::Full),
            engine,
            scscf_listen: options
                .scscf_listen
                .unwrap_or_else(|| address("127.0.0.1:15060")),
            msrp_listen: options
                .msrp_listen
                .unwrap_or_else(|| address("127.0.0.1:12855")),
            transport: options.transport.unwrap_or(Transport::Tcp),
            reply_style: options.reply_style.unwrap_or_default(),
            path_mtu: options.path_mtu,
            workers: options.workers.unwrap_or(1),
            worker: 0,
            first_user: 0,
            connections: options.connections.unwrap_or(4),
            domain: options.domain.unwrap_or_else(|| "home.example".to_owned()),
            icsi: options
                .icsi
                .unwrap_or_else(|| "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred".to_owned()),
            users: options.users.unwrap_or(1000),
            devices: parse_devices(options.devices.as_deref().unwrap_or("1-3"))?,
            tel_share: options.tel_share.unwrap_or(0.25),
            messages: options.messages.unwrap_or(1),
            body_bytes: options.body_bytes.unwrap_or_else(|| vec![300]),
            rate: options.rate,
            users_in_flight: options.users_in_flight.unwrap_or(256),
            arrivals: options.arrivals.unwrap_or(Arrivals::Constant),
            rate_to: options.rate_to,
            steps: options.steps.unwrap_or_default(),
            sine_period_s: options.sine_period_s.unwrap_or(10.0),
            sine_depth: options.sine_depth.unwrap_or(0.5),
            storm_within_s: options.storm_within_s.unwrap_or(10.0),
            storm_shape: options.storm_shape.unwrap_or(StormShape::Flat),
            replayed: replayed(options.replay.as_deref(), options.users.unwrap_or(1000))?.into(),
            late: options.late.unwrap_or(Late::Send),
            late_bound_ms: options.late_bound_ms.unwrap_or(50.0),
            pressure_bound: options.pressure_bound.unwrap_or(0.25),
            deposit_rate: options.deposit_rate,
            deposits_in_flight: options.deposits_in_flight.unwrap_or(1024),
            warmup_s: options.warmup_s.unwrap_or(1.0),
            duration_s: options.duration_s.unwrap_or(10.0),
            drain_s: options.drain_s.unwrap_or(10.0),
            reach_s: options.reach_s.unwrap_or(10.0),
            gather_us: options.gather_us.unwrap_or(0),
            phone: options.phone.unwrap_or(Phone::Passive),
            mix: mixes.mix,
            receivers: mixes.receivers,
            leavers: mixes.leavers,
            next_hops: options.next_hops.unwrap_or(1),
            dead_hops: options.dead_hops.unwrap_or(0),
            hops: mixes.hops,
            registrar: mixes.registrar,
            ring_ms: options.ring_ms.unwrap_or(200.0),
            late_ms: options.late_ms.unwrap_or(1000.0),
            slow_ms: options.slow_ms.unwrap_or(100.0),
            chaos: Odds {
                loss: options.loss.unwrap_or(0.0),
                duplicate: options.duplicate.unwrap_or(0.0),
                delay: options.delay.unwrap_or(0.0),
                delay_ms: options.delay_ms.unwrap_or(20.0),
            },
            trying: options.trying.unwrap_or(true),
            ringing: options.ringing.unwrap_or(false),
            session_timer: options.session_timer.unwrap_or(true),
            session_expires_s: options.session_expires_s.unwrap_or(1800),
            refreshers: mixes.refreshers,
            answer_cema: options.answer_cema.unwrap_or(true),
            expect_cema: options.expect_cema.unwrap_or(true),
            sendonly_session_level: options.sendonly_session_level.unwrap_or(false),
            check: parse_check(options.check.as_deref().unwrap_or("full"))?,
            uniqueness_window: options.uniqueness_window.unwrap_or(200_000),
            sweep: options.sweep.unwrap_or(false),
            hang_up: options.hang_up.unwrap_or(false),
            objectives: parse_objectives(options.objective.unwrap_or_default())?,
            goodput_maximum: options.goodput_maximum,
            lag_bound_ms: options.lag_bound_ms.unwrap_or(5.0),
            engine_pid: options.engine_pid,
            cpu: options.cpu,
            seed: options.seed.unwrap_or(1),
            run_id: options.run_id.unwrap_or(run_id),
            json: options.json,
            report_dir: options.report_dir,
            ndjson: options.ndjson,
            quiet: options.quiet.unwrap_or(false),
            date_time: "2026-11-22T05:58:01Z".to_owned(),
        };
        setup.validate()?;
        Ok(setup)
    }

    /// The run as eight hexadecimal digits.
    pub fn run_id_text(&self) -> String {
        format!("{:08x}", self.run_id)
    }

    /// Whether triggers fall due whatever the engine does.
    pub fn open_loop(&self) -> bool {
        self.rate.is_some() || matches!(self.arrivals, Arrivals::Storm | Arrivals::Replay)
    }

    fn validate_times(&self) -> Result<(), String> {
        if self.gather_us == 0 || GATHER_US.contains(&self.gather_us) {
            return self.validate_arrivals();
        }
        Err(format!(
            "--gather-us: {} is not within {} and {}, and not 0",
            self.gather_us,
            GATHER_US.start(),
            GATHER_US.end()
        ))
    }

    fn validate_arrivals(&self) -> Result<(), String> {
        let needs_rate = match self.arrivals {
            Arrivals::Storm | Arrivals::Replay => false,
            Arrivals::Constant => false,
            Arrivals::Poisson
            | Arrivals::Uniform
            | Arrivals::Ramp
            | Arrivals::Steps
            | Arrivals::Sine => true,
        };
        if needs_rate && self.rate.is_none() {
            return Err(
                "--arrivals: this shape needs --rate; without one the loop is closed".into(),
            );
        }
        match self.arrivals {
            Arrivals::Ramp if self.rate_to.is_none() => {
                Err("--arrivals ramp: add --rate-to, the rate at its end".into())
            }
            Arrivals::Steps if self.steps.is_empty() => {
                Err("--arrivals steps: add --steps 1000,2000,..".into())
            }
            Arrivals::Replay if self.replayed.is_empty() => {
                Err("--arrivals replay: add --replay FILE with at least one line".into())
            }
            Arrivals::Sine if !(0.0..=1.0).contains(&self.sine_depth) => Err(format!(
                "--sine-depth: {} is not within 0 and 1",
                self.sine_depth
            )),
            Arrivals::Constant
            | Arrivals::Poisson
            | Arrivals::Uniform
            | Arrivals::Ramp
            | Arrivals::Steps
            | Arrivals::Sine
            | Arrivals::Storm
            | Arrivals::Replay => Ok(()),
        }
    }

    fn validate(&self) -> Result<(), String> {
        self.validate_times()?;
        let positive = |name: &str, value: Option<f64>| match value {
            Some(value) if !(value > 0.0 && value.is_finite()) => {
                Err(format!("--{name}: {value} is not a positive number"))
            }
            _ => Ok(()),
        };
        positive("rate", self.rate)?;
        positive("rate-to", self.rate_to)?;
        for &rate in &self.steps {
            positive("steps", Some(rate))?;
        }
        positive("sine-period-s", Some(self.sine_period_s))?;
        positive("storm-within-s", Some(self.storm_within_s))?;
        positive("late-bound-ms", Some(self.late_bound_ms))?;
        positive("ring-ms", Some(self.ring_ms))?;
        positive("late-ms", Some(self.late_ms))?;
        positive("slow-ms", Some(self.slow_ms))?;
        positive("pressure-bound", Some(self.pressure_bound))?;
        positive("deposit-rate", self.deposit_rate)?;
        positive("duration-s", Some(self.duration_s))?;
        positive("drain-s", Some(self.drain_s))?;
        if self.users == 0 || self.users > crate::identity::USERS_MAX {
            return Err(format!(
                "--users: {} is not within 1 and 10000000",
                self.users
            ));
        }
        if !(0.0..=1.0).contains(&self.tel_share) {
            return Err(format!(
                "--tel-share: {} is not within 0 and 1",
                self.tel_share
            ));
        }
        if !(1..=WORKERS_MAX).contains(&self.workers) || u32::from(self.workers) > self.users {
            return Err(format!(
                "--workers: {} is not within 1 and {WORKERS_MAX}, or more than there are users",
                self.workers
            ));
        }
        if self.connections == 0 || self.users_in_flight == 0 || self.deposits_in_flight == 0 {
            return Err(
                "--connections, --users-in-flight and --deposits-in-flight start at 1".into(),
            );
        }
        if self.body_bytes.is_empty() || self.body_bytes.len() > 16 {
            return Err("--body-bytes: give 1 to 16 sizes".into());
        }
        if let Some(size) = self
            .body_bytes
            .iter()
            .find(|size| !(14..=BODY_MAX).contains(*size))
        {
            return Err(format!(
                "--body-bytes: {size} is not within 14 and {BODY_MAX}"
            ));
        }
        if !(1..=16).contains(&self.next_hops) || self.dead_hops >= self.next_hops {
            return Err("--next-hops is within 1 and 16, and more than --dead-hops".into());
        }
        if self.transport == Transport::Udp && self.next_hops > 1 {
            return Err("--next-hops: several are for --transport tcp".into());
        }
        if self.session_expires_s < 90 {
            return Err(format!(
                "--session-expires-s: {} is less than the 90 s of RFC 4028",
                self.session_expires_s
            ));
        }
        let odds = &self.chaos;
        let shares = [odds.loss, odds.duplicate, odds.delay];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share))
            || shares.iter().sum::<f64>() > 1.0
        {
            return Err("--loss, --duplicate and --delay are shares whose sum is at most 1".into());
        }
        if self.transport == Transport::Tcp && shares.iter().any(|&share| share > 0.0) {
            return Err(
                "--loss, --duplicate and --delay are about datagrams; add --transport udp".into(),
            );
        }
        if self.transport == Transport::Udp && self.path_mtu.is_none() {
            return Err(
                "--transport udp: a push INVITE is over 1300 octets, so UDP needs a known \
                        path MTU; add --path-mtu 65535 for loopback, or use --transport tcp"
                    .into(),
            );
        }
        let host_ok = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        if !host_ok(&self.domain) {
            return Err(format!("--domain: `{}` is not a host name", self.domain));
        }
        Ok(())
    }
}

/// What is drawn by weight.
struct Mixes {
    mix: Mix<Behaviour>,
    receivers: Mix<Receiver>,
    leavers: Mix<Leaver>,
    registrar: Mix<Registrar>,
    hops: Mix<Hop>,
    refreshers: Mix<Refresher>,
}

impl Mixes {
    fn of(options: &Options) -> Result<Self, String> {
        let seed = options.seed.unwrap_or(1);
        let texts = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        Ok(Self {
            mix: Mix::parse(
                "mix",
                &texts(&options.mix),
                BEHAVIOURS,
                Behaviour::Answer,
                seed,
            )?,
            receivers: Mix::parse(
                "receivers",
                &texts(&options.receivers),
                RECEIVERS,
                Receiver::Read,
                seed ^ 0x6d73_7270,
            )?,
            leavers: Mix::parse(
                "leavers",
                &texts(&options.leavers),
                LEAVERS,
                Leaver::Close,
                seed ^ 0x6c65_6176,
            )?,
            registrar: Mix::parse(
                "registrar",
                &texts(&options.registrar),
                REGISTRARS,
                Registrar::Full,
                seed ^ 0x7265_6769,
            )?,
            hops: Mix::parse(
                "hops",
                &texts(&options.hops),
                HOPS,
                Hop::Good,
                seed ^ 0x686f_7073,
            )?,
            refreshers: Mix::parse(
                "refreshers",
                &texts(&options.refreshers),
                REFRESHERS,
                Refresher::Engine,
                seed ^ 0x7265_6672,
            )?,
        })
    }
}

fn replayed(path: Option<&Path>, users: u32) -> Result<Vec<Arrival>, String> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let file = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("--replay {file}: {error}"))?;
    arrivals::parse_replay(&file, &text, users)
}

fn parse_devices(text: &str) -> Result<(u8, u8), String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.trim().parse::<u8>(), high.trim().parse::<u8>()) {
        (Ok(low), Ok(high)) if low >= 1 && low <= high && high <= crate::identity::DEVICES_MAX => {
            Ok((low, high))
        }
        _ => Err(format!(
            "--devices: `{text}` is not a number or MIN-MAX within 1 and 8"
        )),
    }
}

fn parse_check(text: &str) -> Result<Check, String> {
    match text {
        "full" => Ok(Check::Full),
        "off" => Ok(Check::Off),
        _ => text
            .strip_prefix("sampled:")
            .and_then(|n| n.parse().ok())
            .filter(|&n| n > 0)
            .map(Check::Sampled)
            .ok_or_else(|| format!("--check: `{text}` is not full, off or sampled:N")),
    }
}

fn parse_objectives(texts: Vec<String>) -> Result<Vec<Objective>, String> {
    texts
        .into_iter()
        .map(|text| {
            let (name, bound) = text
                .split_once('=')
                .and_then(|(name, bound)| Some((name.trim(), bound.trim().parse().ok()?)))
                .ok_or_else(|| format!("--objective: `{text}` is not NAME=NUMBER"))?;
            if !crate::stats::objective_known(name) {
                return Err(format!(
                    "--objective: `{name}` is unknown; write p50|p90|p99|p999|max_STAGE_ms with STAGE \
                     of {}, or min_pushes_per_s, max_engine_us_per_push, \
                     min_pushes_per_core_second, min_goodput (a share), max_recovery_s",
                    crate::stats::Stage::names().join(", ")
                ));
            }
            Ok(Objective { name: name.to_owned(), bound })
        })
        .collect()
}
