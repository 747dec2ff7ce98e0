//! `volley ctl` and `volley top`: questions to a running engine over its Unix socket.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use super::{USAGE, complain, print};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The engine answered that it is not well.
const UNWELL: u8 = 3;

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

#[derive(Debug, Subcommand)]
enum Question {
    /// Counters, what is held, the ledger, stage latencies.
    Status {
        /// The whole answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// One line a shard: addresses, load, batches.
    Shards {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// All metrics, as a scraper gets them.
    Metrics,
    /// Serving, draining, or not well; the exit code says it, too.
    Health,
    /// Stop as with SIGTERM: no new pushes, running ones may finish.
    Drain,
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
}

/// An answer: status and body.
type Answer = (u16, String);

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
        let (method, path) = match self.question {
            Question::Status { .. } => ("GET", "/status"),
            Question::Shards { .. } => ("GET", "/shards"),
            Question::Metrics => ("GET", "/metrics"),
            Question::Health => ("GET", "/health"),
            Question::Drain => ("POST", "/drain"),
        };
        let (status, body) = match ask(&socket, method, path) {
            Ok(answer) => answer,
            Err(error) => {
                complain(&error);
                return ExitCode::FAILURE;
            }
        };
        let text = match (&self.question, serde_json::from_str::<Value>(&body)) {
            (Question::Status { json: false }, Ok(value)) => status_text(&value),
            (Question::Shards { json: false }, Ok(value)) => shards_text(&value),
            _ => body,
        };
        print(&text);
        match status {
            200..300 => ExitCode::SUCCESS,
            503 => ExitCode::from(UNWELL),
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
        let redraws = std::io::stdout().is_terminal();
        let mut last: Option<Value> = None;
        let mut looks = 0;
        loop {
            let status = match ask(&socket, "GET", "/status").and_then(|(_, body)| {
                serde_json::from_str::<Value>(&body).map_err(|error| error.to_string())
            }) {
                Ok(status) => status,
                Err(error) => {
                    complain(&error);
                    return ExitCode::FAILURE;
                }
            };
            let shards = ask(&socket, "GET", "/shards")
                .ok()
                .and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok())
                .unwrap_or_default();
            let mut text = String::new();
            if redraws {
                text.push_str("\x1b[2J\x1b[H");
            }
            text.push_str(&panel(&status, &shards, last.as_ref(), self.interval));
            print(&text);
            last = Some(status);
            looks += 1;
            if self.count.is_some_and(|count| looks >= count) {
                return ExitCode::SUCCESS;
            }
            std::thread::park_timeout(Duration::from_secs_f64(self.interval));
        }
    }
}

/// Asks the engine at `socket`.
fn ask(socket: &Path, method: &str, path: &str) -> Result<Answer, String> {
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
    let text = String::from_utf8_lossy(&bytes);
    let parsed = text.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parsed.ok_or_else(|| format!("{}: what answers there is no engine", socket.display()))
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn status_text(status: &Value) -> String {
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
    let balances = status.pointer("/ledger/balances") == Some(&Value::Bool(true));
    let draining = status.pointer("/draining") == Some(&Value::Bool(true));
    format!(
        "volley {} on {}, up {} s{}\n\
         held      {} pushes, {} users, {} messages, {} links\n\
         pushes    {} sent, {} accepted, {} failed\n\
         messages  {} deposited, {} delivered, {} expired, {} refused, {} pending: the books {}\n\
         answer    {}\n\
         delivery  {}\n\
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
        stage("answer"),
        stage("delivery"),
        if count("/held/stores_failed") > 0 {
            "FAILED: nothing more is acknowledged"
        } else if count("/held/stores_low") > 0 {
            "short of space: deposits are refused"
        } else {
            "well"
        },
    )
}

fn milliseconds(us: u64) -> String {
    if us < 1000 {
        format!("{us} us")
    } else {
        format!("{} ms", us.div_ceil(1000))
    }
}

fn shards_text(shards: &Value) -> String {
    let mut text =
        String::from("shard    users   pushes messages    links     cpu s   batch  own sip/tcp\n");
    for shard in shards.as_array().into_iter().flatten() {
        let float = |path: &str| shard.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
        text.push_str(&format!(
            "{:>5} {:>8} {:>8} {:>8} {:>8} {:>9.2} {:>7.1}  {}\n",
            number(shard, "/shard"),
            number(shard, "/users"),
            number(shard, "/pushes"),
            number(shard, "/messages"),
            number(shard, "/links"),
            float("/cpu_s"),
            float("/completions_per_turn"),
            shard
                .pointer("/sip_tcp")
                .and_then(Value::as_str)
                .unwrap_or("-"),
        ));
    }
    text
}

/// One look of `top`: rates since the last one, then the shards.
fn panel(status: &Value, shards: &Value, last: Option<&Value>, interval: f64) -> String {
    let rate = |name: &str| {
        let path = format!("/counters/{name}");
        let before = last.map_or(0, |last| number(last, &path));
        let more = number(status, &path).saturating_sub(before);
        if last.is_none() {
            return "-".to_owned();
        }
        #[expect(clippy::cast_precision_loss, reason = "shown with no decimals")]
        let rate = more as f64 / interval;
        format!("{rate:.0}")
    };
    format!(
        "{}\n\
         per second: deposits {}  INVITEs {}  accepted {}  failed {}  delivered {}  NOTIFYs {}  \
         repeats {}\n\n{}",
        status_text(status),
        rate("deposits_total"),
        rate("invites_sent_total"),
        rate("invites_accepted_total"),
        rate("pushes_failed_total"),
        rate("delivered_total"),
        rate("notifies_total"),
        rate("retransmissions_total"),
        shards_text(shards),
    )
}
