//! `volley ctl` and `volley top`: questions to a running engine over its Unix socket.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use super::look::{Look, shards_text};
use super::{USAGE, complain, print};

/// How long an answer may take: more than an engine takes to say that a shard does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The engine answered that it is not well.
const UNWELL: u8 = 3;
/// The engine does not know whom it was asked about.
const UNKNOWN: u8 = 4;
/// A shard did not answer in time.
const SILENT: u8 = 5;

/// Where the engine answers.
#[derive(Debug, clap::Args)]
struct Place {
    /// Socket of the engine.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// Configuration file of the engine; its socket is used.
    #[arg(long, value_name = "FILE", required_unless_present = "socket")]
    config: Option<PathBuf>,
}

/// Arguments of `ctl`.
#[derive(Debug, clap::Args)]
pub(super) struct Ctl {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    question: Question,
}

/// What to write of what the flight recorders have.
#[derive(Debug, clap::Args)]
struct Capture {
    /// Only what is about this user: a sip: or tel: URI, or a number.
    user: Option<String>,
    /// File to write; one that is there is replaced.
    #[arg(long, value_name = "FILE")]
    pcap: PathBuf,
    /// Only the last seconds: 5s, 500ms, 2m.
    #[arg(long, value_name = "TIME", value_parser = milliseconds_of)]
    last: Option<u64>,
    /// Say what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// Of `trace`, which is `ctl trace`.
pub(super) const TRACE_EXAMPLES: &str = "Examples:
  volley trace --config volley.toml --pcap all.pcap
  volley trace --config volley.toml tel:+15551234 --pcap one.pcap --last 5s
The same as `volley ctl trace`. The file has whole SIP messages, those with texts included, and is its owner's only
(mode 0600).
Exit codes: 0 written, 1 nothing was recorded in that time or nothing is recorded at all, 2 wrong usage, 4 no such
user, 5 a shard did not answer in time.";

/// Arguments of `trace`.
#[derive(Debug, clap::Args)]
pub(super) struct Trace {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    capture: Capture,
}

impl Trace {
    pub(super) fn main(self) -> ExitCode {
        let Self { place, capture } = self;
        let question = Question::Trace(capture);
        Ctl { place, question }.main()
    }
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Counters, what is held, the ledger, stage latencies.
    #[command(after_help = "Examples:\n  volley ctl --config volley.toml status\n  \
                      volley ctl --config volley.toml status --json | jq .stages")]
    Status {
        /// The whole answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// One line a shard: addresses, load, batches.
    #[command(after_help = "Examples:\n  volley ctl --config volley.toml shards\n  \
                      volley ctl --config volley.toml shards --json | jq '.[].cpu_s'")]
    Shards {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// All metrics, as a scraper gets them: OpenMetrics text, which is its own form for machines.
    #[command(
        after_help = "Examples:\n  volley ctl --config volley.toml metrics | grep push_trigger\n\
                      Each name is explained in tuning/METRICS.md."
    )]
    Metrics,
    /// Serving, draining, or not well; the exit code says it, too.
    #[command(
        after_help = "Examples:\n  volley ctl --config volley.toml health && echo well\n  \
                      volley ctl --config volley.toml health --json\n\
                      Exit codes: 0 serving, 1 no engine answers, 3 draining, or its store failed."
    )]
    Health {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop as with SIGTERM: no new pushes, running ones may finish.
    #[command(after_help = "Examples:\n  volley ctl --config volley.toml drain\n\
                      How long it may take is node.drain_s; `ctl health` says when it is over.")]
    Drain {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Everything about one user: registration, devices, queue, pushes, and what would be decided now.
    #[command(
        after_help = "Examples:\n  volley ctl --config volley.toml user sip:+15551234@home.example\n  \
                      volley ctl --config volley.toml user tel:+15551234 --json\n\
                      Identities are shown in clear: the socket is its owner's only (mode 0600)."
    )]
    User {
        /// Public identity: a sip: URI, or tel: with a + number.
        uri: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Decide for one user now, and push to the devices that are selected.
    #[command(
        after_help = "Examples:\n  volley ctl --config volley.toml push tel:+15551234 --dry-run   who \
                      would get one, and why not\n  volley ctl --config volley.toml push tel:+15551234\n\
                      What a device's past forbids (backoff, quarantine) stays forbidden."
    )]
    Push {
        /// Public identity: a sip: URI, or tel: with a + number.
        uri: String,
        /// Only say what would be decided.
        #[arg(long)]
        dry_run: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Established sessions: device, Call-ID, state, refresher, age, octets.
    #[command(
        after_help = "Examples:\n  volley ctl --config volley.toml sessions --limit 100\n  \
                      volley ctl --config volley.toml sessions --user tel:+15551234"
    )]
    Sessions {
        /// Only this user's; pushes whose session is not yet there, too.
        #[arg(long, value_name = "URI")]
        user: Option<String>,
        /// Most rows.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Armed timers by kind: how many, overdue, the next; and how late timers fired.
    #[command(after_help = "Examples:\n  volley ctl --config volley.toml timers\n  \
                      volley ctl --config volley.toml timers --json")]
    Timers {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write what the flight recorders have as a capture file, for Wireshark or `volley-loadgen check`.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(Capture),
    /// Change what the engine logs, until it stops or is told otherwise.
    #[command(
        after_help = "Examples:\n  volley ctl --config volley.toml log debug\n  \
                      volley ctl --config volley.toml log warn --module figures"
    )]
    Log {
        /// error, warn, info or debug.
        level: String,
        /// Only of this module: figures, admin::watch, glommio.
        #[arg(long, value_name = "M")]
        module: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read the configuration and the policy again, as on SIGHUP. Names what needs a restart.
    #[command(after_help = "Example:\n  volley ctl --config volley.toml reload\n\
                      A mistake in a file changes nothing; file, line, key and remedy are named, and the \
                      exit code is 2.")]
    Reload {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Octets held in memory, by component and per session.
    #[command(after_help = "Examples:\n  volley ctl --config volley.toml mem\n  \
                      volley ctl --config volley.toml mem --json")]
    Mem {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Question {
    /// Method and path of the request.
    fn request(&self) -> (&'static str, String) {
        let form = |json: bool| if json { "json" } else { "text" };
        match self {
            Self::Status { .. } => ("GET", "/status".to_owned()),
            Self::Shards { .. } => ("GET", "/shards".to_owned()),
            Self::Metrics => ("GET", "/metrics".to_owned()),
            Self::Health { .. } => ("GET", "/health".to_owned()),
            Self::Drain { .. } => ("POST", "/drain".to_owned()),
            Self::User { uri, json } => {
                let id = escaped(uri);
                ("GET", format!("/user?id={id}&format={}", form(*json)))
            }
            Self::Push { uri, dry_run, json } => {
                let id = escaped(uri);
                let dry = if *dry_run { "&dry_run=1" } else { "" };
                ("POST", format!("/push?id={id}{dry}&format={}", form(*json)))
            }
            Self::Sessions { user, limit, json } => {
                let user = user.as_ref().map(|user| format!("&user={}", escaped(user)));
                let user = user.unwrap_or_default();
                let form = form(*json);
                (
                    "GET",
                    format!("/sessions?limit={limit}{user}&format={form}"),
                )
            }
            Self::Trace(Capture { user, last, .. }) => {
                let user = user.as_ref().map(|user| format!("&user={}", escaped(user)));
                let last = last.map(|last| format!("&last_ms={last}"));
                let (user, last) = (user.unwrap_or_default(), last.unwrap_or_default());
                ("GET", format!("/trace?{user}{last}"))
            }
            Self::Log {
                level,
                module,
                json,
            } => {
                let module = module.as_ref().map(|m| format!("&module={}", escaped(m)));
                let (module, form) = (module.unwrap_or_default(), form(*json));
                let level = escaped(level);
                ("POST", format!("/log?level={level}{module}&format={form}"))
            }
            Self::Reload { json } => ("POST", format!("/reload?format={}", form(*json))),
            Self::Timers { json } => ("GET", format!("/timers?format={}", form(*json))),
            Self::Mem { json } => ("GET", format!("/mem?format={}", form(*json))),
        }
    }
}

/// Milliseconds of a time with its unit.
fn milliseconds_of(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        _ => return Err("write 5s, 500ms or 2m".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "no number".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "far too long".to_owned())
}

/// Writes a capture for its owner only.
fn save(path: &Path, bytes: &[u8], json: bool) -> ExitCode {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    match options
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
    {
        Ok(()) => {
            let octets = bytes.len();
            if json {
                let report = serde_json::json!({ "file": path, "octets": octets });
                print(&format!("{report}\n"));
            } else {
                print(&format!("{}: {octets} octets\n", path.display()));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{}: cannot be written: {error}", path.display()));
            ExitCode::FAILURE
        }
    }
}

/// A value as it stands in a query.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub(super) struct Top {
    #[command(flatten)]
    place: Place,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    interval: f64,
    /// Looks to take; without it until interrupted.
    #[arg(long, value_name = "N")]
    count: Option<u32>,
    /// Two looks, an interval apart, so that there are rates; only the second is shown.
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// A line of JSON a look: status, shards, and what happened a second since the look before.
    #[arg(long)]
    json: bool,
}

/// An answer: status and body.
pub(super) type Answer = (u16, Vec<u8>);

/// What octets say.
fn text_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

impl Place {
    fn socket(&self) -> Result<PathBuf, ExitCode> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let path = self
            .config
            .as_deref()
            .unwrap_or_else(|| Path::new("volley.toml"));
        match volley::config::load(path) {
            Ok(config) => Ok(volley::admin::api::socket_path(&config)),
            Err(error) => {
                complain(&error.to_string());
                Err(ExitCode::from(USAGE))
            }
        }
    }
}

impl Ctl {
    pub(super) fn main(&self) -> ExitCode {
        let socket = match self.place.socket() {
            Ok(socket) => socket,
            Err(code) => return code,
        };
        let (method, path) = self.question.request();
        let (status, body) = match ask(&socket, method, &path) {
            Ok(answer) => answer,
            Err(error) => {
                complain(&error);
                return ExitCode::FAILURE;
            }
        };
        if let (Question::Trace(Capture { pcap, json, .. }), 200) = (&self.question, status) {
            return save(pcap, &body, *json);
        }
        let body = text_of(&body);
        let text = match (&self.question, serde_json::from_str::<Value>(&body)) {
            (Question::Status { json: false }, Ok(value)) => status_text(&value),
            (Question::Shards { json: false }, Ok(value)) => shards_text(&value),
            (Question::Health { json: false }, Ok(value)) => health_text(&value),
            (Question::Drain { json: false }, Ok(_)) => {
                "draining: no new pushes, running ones may finish\n".to_owned()
            }
            _ => body,
        };
        if (200..300).contains(&status) {
            print(&text);
            return ExitCode::SUCCESS;
        }
        self.refused(status, &text)
    }
}

impl Ctl {
    /// The engine has an answer that is none: shown as a sentence, but for the old questions, whose
    /// whole answer was always shown.
    fn refused(&self, status: u16, body: &str) -> ExitCode {
        let json = serde_json::from_str::<Value>(body).unwrap_or_default();
        match (&self.question, json.get("error").and_then(Value::as_str)) {
            (Question::Health { .. } | Question::Status { .. } | Question::Shards { .. }, _)
            | (_, None) => print(body),
            (_, Some(error)) => complain(error),
        }
        match status {
            400 => ExitCode::from(USAGE),
            404 => ExitCode::from(UNKNOWN),
            503 => ExitCode::from(UNWELL),
            504 => ExitCode::from(SILENT),
            _ => ExitCode::FAILURE,
        }
    }
}

impl Top {
    pub(super) fn main(&self) -> ExitCode {
        let socket = match self.place.socket() {
            Ok(socket) => socket,
            Err(code) => return code,
        };
        if !(0.1..=3600.0).contains(&self.interval) {
            complain("--interval: between 0.1 and 3600 seconds");
            return ExitCode::from(USAGE);
        }
        let redraws = std::io::stdout().is_terminal() && !self.json && !self.once;
        let mut last: Option<Look> = None;
        let mut looks = 0;
        loop {
            let look = match Look::take(&socket) {
                Ok(look) => look,
                Err(error) => {
                    complain(&error);
                    return ExitCode::FAILURE;
                }
            };
            looks += 1;
            let shown = if self.json {
                format!("{}\n", look.json(last.as_ref()))
            } else {
                look.panel(last.as_ref())
            };
            if redraws {
                print("\x1b[2J\x1b[H");
            }
            if !self.once || last.is_some() {
                print(&shown);
            }
            last = Some(look);
            let enough = if self.once { Some(2) } else { self.count };
            if enough.is_some_and(|enough| looks >= enough) {
                return ExitCode::SUCCESS;
            }
            std::thread::park_timeout(Duration::from_secs_f64(self.interval));
        }
    }
}

/// Asks the engine at `socket`.
pub(super) fn ask(socket: &Path, method: &str, path: &str) -> Result<Answer, String> {
    let fail = |error: std::io::Error| {
        format!(
            "{}: no engine answers there: {error}; is `volley run` running, and is this its socket \
             (admin.socket, or admin.sock in store.dir)?",
            socket.display()
        )
    };
    let mut stream = UnixStream::connect(socket).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: volley\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(fail)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(fail)?;
    let parsed = memchr::memmem::find(&bytes, b"\r\n\r\n").and_then(|end| {
        let (head, body) = bytes.split_at(end);
        let status = text_of(head).split(' ').nth(1)?.parse().ok()?;
        Some((status, body[4..].to_vec()))
    });
    parsed.ok_or_else(|| format!("{}: what answers there is no engine", socket.display()))
}

pub(super) fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

pub(super) fn status_text(status: &Value) -> String {
    let count = |path: &str| number(status, path);
    let stage = |name: &str| {
        let at = |quantile: &str| {
            let us = status.pointer(&format!("/stages/{name}/{quantile}_at_most_us"));
            us.and_then(Value::as_u64)
                .map_or_else(|| "-".to_owned(), milliseconds)
        };
        format!(
            "p50 <= {}  p99 <= {}  p99.9 <= {}",
            at("p50"),
            at("p99"),
            at("p999")
        )
    };
    let age = |of: &str| {
        let seconds = status.pointer(&format!("/oldest/{of}"));
        let seconds = seconds.and_then(Value::as_f64).unwrap_or(0.0);
        if seconds > 0.0 {
            format!("{seconds:.3} s")
        } else {
            "-".to_owned()
        }
    };
    let balances = status.pointer("/ledger/balances") == Some(&Value::Bool(true));
    let draining = status.pointer("/draining") == Some(&Value::Bool(true));
    format!(
        "volley {} on {}, up {} s{}\n\
         held      {} pushes, {} users, {} messages, {} links\n\
         pushes    {} sent, {} accepted, {} failed\n\
         messages  {} deposited, {} delivered, {} expired, {} refused, {} pending: the books {}\n\
         oldest    message {} in its queue (at most), trigger {}, deposit {}\n\
         trigger   {}\n\
         answer    {}\n\
         first     {}\n\
         delivery  {}\n\
         timers    {}\n\
         store     {}\n",
        status
            .pointer("/version")
            .and_then(Value::as_str)
            .unwrap_or("?"),
        status
            .pointer("/backend")
            .and_then(Value::as_str)
            .unwrap_or("?"),
        count("/uptime_s"),
        if draining { ", draining" } else { "" },
        count("/held/pushes"),
        count("/held/users"),
        count("/held/messages"),
        count("/held/links"),
        count("/counters/invites_sent_total"),
        count("/counters/invites_accepted_total"),
        count("/counters/pushes_failed_total"),
        count("/ledger/deposited"),
        count("/ledger/delivered"),
        count("/ledger/expired"),
        count("/ledger/rejected"),
        count("/ledger/pending"),
        if balances {
            "balance"
        } else {
            "DO NOT BALANCE"
        },
        age("pending_s"),
        age("trigger_s"),
        age("deposit_s"),
        stage("trigger"),
        stage("answer"),
        stage("first_delivery"),
        stage("delivery"),
        stage("timer_lateness"),
        store_text(
            count("/held/stores_failed") > 0,
            count("/held/stores_low") > 0,
            count("/held/stores_full") > 0,
        ),
    )
}

/// How the stores fare: whether one failed, refuses deposits, and does so because its disk is full.
const fn store_text(failed: bool, low: bool, full: bool) -> &'static str {
    match (failed, low, full) {
        (true, ..) => "FAILED: nothing more is acknowledged",
        (false, true, true) => "disk full: deposits are refused",
        (false, true, false) => "no segment can be made, the log says why: deposits are refused",
        (false, false, _) => "well",
    }
}

fn health_text(health: &Value) -> String {
    if let Some(error) = health.get("error").and_then(Value::as_str) {
        return format!("{error}\n");
    }
    let is = |key: &str| health.get(key) == Some(&Value::Bool(true));
    if is("store_space_low") {
        let text = store_text(false, true, is("store_full"));
        return format!("serving; store: {text}\n");
    }
    "serving\n".to_owned()
}

fn milliseconds(us: u64) -> String {
    if us < 1000 {
        format!("{us} us")
    } else {
        // Rounded up, as it is an upper bound.
        let tenths = us.div_ceil(100);
        format!("{}.{} ms", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_store_without_segments_is_not_called_full_unless_its_disk_is() {
        let health = |low: bool, full: bool| {
            health_text(&json!({ "serving": true, "store_space_low": low, "store_full": full }))
        };
        assert_eq!(health(false, false), "serving\n");
        assert!(health(true, true).contains("disk full: deposits are refused"));
        let other = health(true, false);
        assert!(
            other.contains("the log says why") && !other.contains("full"),
            "{other}"
        );
        // One of before says no more than that deposits are refused.
        assert!(health_text(&json!({ "store_space_low": true })).contains("refused"));
    }
}
