//! What operators may ask a running engine: over its Unix socket everything, over TCP its metrics.

#![expect(
    clippy::disallowed_types,
    reason = "threads of this interface share a board of figures; no shard waits for it"
)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use crossbeam::queue::ArrayQueue;
use serde_json::{Value, json};

use crate::admin::answers::Shown;
use crate::admin::engine::Engine;
use crate::admin::http::{self, Request, Response};
use crate::admin::inquiry::{self, Inquiry, Query};
use crate::admin::log::{self, Log};
use crate::admin::metrics;
use crate::admin::reload::Reloaded;
use crate::admin::report::Board;
use crate::base::time::Timestamp;
use crate::config::Config;
use crate::io::backend::Choice;
use crate::io::clock::Clock;
use crate::io::host::StopHandle;
use crate::io::listen::ShardAddresses;
use crate::io::stats::DriverStats;

/// Longest path of a Unix socket, with its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 108;
/// What there is to ask.
const PATHS: &str = "there are GET /status, /shards, /metrics, /health, /user, /sessions, /timers, /mem, /trace \
                     and POST /push, /drain, /reload, /log";
/// Name of the socket in the store's directory, unless the configuration names another.
const SOCKET_NAME: &str = "admin.sock";

/// What the threads of the interface share with the one that runs the engine.
#[derive(Debug)]
pub struct Desk {
    board: Mutex<Board>,
    drivers: Vec<Arc<DriverStats>>,
    addresses: Vec<ShardAddresses>,
    stop: StopHandle,
    backend: Choice,
    drain_asked: AtomicBool,
    begun: Timestamp,
    inquiry: Inquiry,
    log: Log,
    /// Who wants the configuration read again, and waits for what that came to.
    reloads: ArrayQueue<Sender<Reload>>,
}

/// What a reload came to, or the sentence why nothing changed.
pub type Reload = Result<Reloaded, String>;

/// Orders to reload that may wait.
const RELOADS_MAX: usize = 4;
/// How long a reload may take: it reads two files.
const RELOAD_MAX: Duration = Duration::from_secs(10);

/// Where the interface was opened. No socket: its default path is longer than a socket's may be.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The Unix socket.
    pub socket: Option<PathBuf>,
    /// The metrics endpoint.
    pub metrics: Option<SocketAddr>,
}

/// Why the interface cannot be opened.
#[derive(Debug)]
pub struct DeskError(String);

impl core::fmt::Display for DeskError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for DeskError {}

/// Where the engine of `config` takes orders.
#[must_use]
pub fn socket_path(config: &Config) -> PathBuf {
    let default = || config.store.dir.join(SOCKET_NAME);
    config.admin.socket.clone().unwrap_or_else(default)
}

impl Desk {
    /// The desk of an engine that runs with `config`.
    #[must_use]
    pub fn new(engine: &Engine, config: &Config, log: Log) -> Self {
        Self {
            board: Mutex::new(Board::new(engine.host.addresses().len())),
            drivers: engine.host.stats().to_vec(),
            addresses: engine.host.addresses().to_vec(),
            stop: engine.host.stop_handle(),
            backend: engine.host.backend().clone(),
            drain_asked: AtomicBool::new(false),
            begun: Clock.now(),
            inquiry: Inquiry::new(engine, config),
            log,
            reloads: ArrayQueue::new(RELOADS_MAX),
        }
    }

    /// Questions to the shards.
    #[must_use]
    pub const fn inquiry(&self) -> &Inquiry {
        &self.inquiry
    }

    /// Who waits for the configuration to be read again; to be told what it came to.
    pub fn take_reload(&self) -> Option<Sender<Reload>> {
        self.reloads.pop()
    }

    fn reload(&self, query: &Query) -> Response {
        let (sender, receiver) = bounded(1);
        if self.reloads.push(sender).is_err() {
            return Response::error(503, "others wait for a reload already; ask again");
        }
        match receiver.recv_timeout(RELOAD_MAX) {
            Ok(Ok(done)) => {
                let shown = Shown {
                    text: format!("{}\n", done.text()),
                    json: done.json(),
                };
                inquiry::respond(query, &shown)
            }
            Ok(Err(error)) => Response::error(400, &error),
            Err(_) => Response::error(504, "the engine did not read its files in time"),
        }
    }

    fn set_log(&self, query: &Query) -> Response {
        let module = query.value("module");
        let set = log::level_of(query.value("level").unwrap_or_default())
            .and_then(|level| self.log.set_level(level, module));
        match set {
            Ok(()) => {
                let level = query.value("level").unwrap_or_default();
                tracing::info!(level, module, "the log's level was changed");
                let text = format!("{}: {level}\n", module.unwrap_or("all modules"));
                let json = json!({ "module": module, "level": level });
                inquiry::respond(query, &Shown { text, json })
            }
            Err(error) => Response::error(400, &error.to_string()),
        }
    }

    /// True once an operator asked for a drain: the engine is to stop as with SIGTERM.
    #[must_use]
    pub fn is_drain_asked(&self) -> bool {
        self.drain_asked.load(Ordering::Acquire)
    }

    /// Works on what the shards have shown.
    pub fn with_board<T>(&self, work: impl FnOnce(&mut Board) -> T) -> T {
        // A thread that ended in between left figures of the last second, nothing worse.
        work(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens what `config` names and answers there until the process ends.
    ///
    /// # Errors
    /// An address or path that cannot be listened on, with its key and what to do.
    pub fn open(self: &Arc<Self>, config: &Config) -> Result<Places, DeskError> {
        let mut places = Places::default();
        let path = socket_path(config);
        let length = path.as_os_str().len();
        if length < SOCKET_PATH_BYTES_MAX {
            let listener = bind(&path).map_err(|error| {
                DeskError(format!(
                    "admin.socket: {} cannot be listened on: {error}; name another path",
                    path.display()
                ))
            })?;
            let desk = Arc::clone(self);
            let all = move |request: &Request| desk.answer(request);
            http::serve_unix(listener, Arc::new(all)).map_err(no_thread)?;
            places.socket = Some(path);
        } else if config.admin.socket.is_some() {
            return Err(DeskError(format!(
                "admin.socket: {} has {length} octets, a socket's path at most {}; name a shorter one",
                path.display(),
                SOCKET_PATH_BYTES_MAX - 1
            )));
        }
        let Some(address) = config.admin.metrics else {
            return Ok(places);
        };
        let listener = TcpListener::bind(address).map_err(|error| {
            DeskError(format!(
                "admin.metrics: {address} cannot be listened on: {error}; name another address"
            ))
        })?;
        let desk = Arc::clone(self);
        let some = move |request: &Request| match request.path.as_str() {
            "/metrics" | "/health" => desk.answer(request),
            _ => Response::error(404, "here are /metrics and /health only"),
        };
        places.metrics = listener.local_addr().ok();
        http::serve_tcp(listener, Arc::new(some)).map_err(no_thread)?;
        Ok(places)
    }

    fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/metrics") => self.metrics(),
            ("GET", "/health") => self.health(),
            ("GET", "/status") => Response::json(&self.status()),
            ("GET", "/shards") => Response::json(&self.shards()),
            ("POST", "/reload") => self.reload(&Query::of(request)),
            ("POST", "/log") => self.set_log(&Query::of(request)),
            ("POST", "/drain") => {
                self.drain_asked.store(true, Ordering::Release);
                Response {
                    status: 202,
                    ..Response::json(&json!({ "draining": true }))
                }
            }
            (_, "/metrics" | "/health" | "/status" | "/shards") => Response::error(405, "GET"),
            (_, "/drain" | "/reload" | "/log") => Response::error(405, "POST"),
            _ => {
                let late = || self.with_board(|board| board.total().timer_lateness);
                if request.method == "POST" {
                    let query = Query::of(request);
                    let user = self.log.identity(query.value("id").unwrap_or_default());
                    let order = &request.path;
                    tracing::info!(order, user, "an operator's order");
                }
                let answer = self.inquiry.answer(request, late);
                answer.unwrap_or_else(|| Response::error(404, PATHS))
            }
        }
    }

    fn metrics(&self) -> Response {
        let drivers: Vec<_> = self.drivers.iter().map(|stats| stats.read()).collect();
        let program = metrics::Program {
            version: env!("CARGO_PKG_VERSION"),
            backend: self.backend.backend.name(),
        };
        Response {
            status: 200,
            content_type: metrics::CONTENT_TYPE,
            body: self
                .with_board(|board| metrics::render(board.shards(), &drivers, program))
                .into_bytes(),
        }
    }

    /// 200 while the engine takes and pushes messages, 503 with the reason otherwise.
    fn health(&self) -> Response {
        let held = self.with_board(|board| board.population());
        if held.stores_failed > 0 {
            return Response::error(503, "the store failed; restart once its disk is well");
        }
        if self.stop.is_stopping() {
            return Response::error(503, "draining");
        }
        Response::json(&json!({
            "serving": true,
            "store_space_low": held.stores_low > 0,
            "store_full": held.stores_full > 0,
        }))
    }

    fn status(&self) -> Value {
        let counters: Vec<_> = self.drivers.iter().map(|stats| stats.read()).collect();
        let mut status = self.with_board(|board| {
            let mut status = board.json(&counters);
            let total = board.total();
            let stage = |histogram: &crate::metrics::histogram::Histogram| {
                json!({
                    "count": histogram.count(),
                    "p50_at_most_us": histogram.at_most_us(0.5),
                    "p99_at_most_us": histogram.at_most_us(0.99),
                    "p999_at_most_us": histogram.at_most_us(0.999),
                })
            };
            status["stages"] = json!({
                "trigger": stage(&total.trigger_time),
                "answer": stage(&total.answer_time),
                "first_delivery": stage(&total.first_delivery_time),
                "delivery": stage(&total.delivery_time),
                "timer_lateness": stage(&total.timer_lateness),
            });
            status
        });
        status["version"] = json!(env!("CARGO_PKG_VERSION"));
        status["backend"] = json!(self.backend.backend.name());
        status["backend_reason"] = json!(self.backend.refused);
        status["uptime_s"] = json!(Clock.now().since(self.begun).as_secs());
        status["draining"] = json!(self.stop.is_stopping());
        status
    }

    fn shards(&self) -> Value {
        let row = |(addresses, stats): (&ShardAddresses, &Arc<DriverStats>)| {
            let counters = stats.read();
            let shown = |board: &mut Board| {
                let shard = &board.shards()[usize::from(addresses.shard)];
                (shard.population, shard.ages)
            };
            let (held, ages) = self.with_board(shown);
            json!({
                "shard": addresses.shard,
                "sip_tcp": addresses.sip_tcp,
                "sip_udp": addresses.sip_udp,
                "msrp": addresses.msrp,
                "users": held.users,
                "pushes": held.pushes,
                "messages": held.messages,
                "links": held.links,
                "oldest_pending_s": ages.pending.as_secs_f64(),
                "cpu_s": counters.cpu_us as f64 / 1e6,
                "turns": counters.turns,
                "completions": counters.completions,
                "enters": counters.enters,
                "completions_per_turn": counters.completions as f64 / counters.turns.max(1) as f64,
            })
        };
        self.addresses.iter().zip(&self.drivers).map(row).collect()
    }
}

fn no_thread(error: io::Error) -> DeskError {
    DeskError(format!("a thread cannot be started: {error}"))
}

/// Listens at `path`, for its owner only. A socket that nobody answers at is what a killed engine left.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another engine answers there",
            ));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
