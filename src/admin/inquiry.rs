//! The part of the operators' interface that asks shards: one user, sessions, timers, memory.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::answers::{self, Beside, Names, Shown};
use crate::admin::ask::{AskError, Line};
use crate::admin::engine::Engine;
use crate::admin::http::{Request, Response};
use crate::admin::options::{dialect_names, registry_options};
use crate::admin::trace::{self, Filter};
use crate::config::Config;
use crate::io::backend::Backend;
use crate::io::clock::Clock;
use crate::io::driver::DriverOptions;
use crate::io::host::IO_MEMORY_BYTES;
use crate::io::listen::ShardAddresses;
use crate::io::stats::DriverStats;
use crate::metrics::histogram::Histogram;
use crate::push::inspect::escaped;
use crate::shard::questions::{Answer, Question};

/// Rows of sessions that are shown without a limit in the question.
const SESSIONS_SHOWN: usize = 20;
/// Most rows of one answer.
const SESSIONS_SHOWN_MAX: usize = 100_000;

/// What it takes to ask.
#[derive(Debug)]
pub struct Inquiry {
    line: Line,
    names: Names,
    /// Octets of the drivers' receive buffers.
    buffers: u64,
    /// Octets of the flight recorders.
    recorders: u64,
    /// Octets of the buffers that the executors of io_uring keep registered.
    executors: u64,
    drivers: Vec<Arc<DriverStats>>,
    records: bool,
    addresses: Vec<ShardAddresses>,
}

/// The values of a query, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the question mark of a request.
    pub(super) fn of(request: &Request) -> Self {
        let pairs = request.query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        Self(pairs.collect())
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the answer is to be text, or JSON as without a word about it.
    pub(super) fn wants_text(&self) -> bool {
        self.value("format") == Some("text")
    }
}

/// Percent escapes decoded; what is none stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let escape = more
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|digits| core::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escape.unwrap_or(first));
        rest = if escape.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Inquiry {
    /// Asks the shards of `engine`, which runs with `config`.
    #[must_use]
    pub fn new(engine: &Engine, config: &Config) -> Self {
        let options = registry_options(config);
        let icsis = options.accepted_icsi.iter().map(|icsi| escaped(icsi));
        let driver = DriverOptions::default();
        let streams = u64::from(driver.stream_buffers) * u64::from(driver.stream_buffer_bytes);
        let recorder = config.instruments.flight_recorder.0;
        let datagrams = u64::from(driver.datagram_buffers) * 64 * 1024;
        Self {
            line: engine.line(),
            names: Names {
                icsis: icsis.collect(),
                dialects: dialect_names(config),
            },
            buffers: (streams + datagrams) * config.node.shards as u64,
            recorders: recorder * config.node.shards as u64,
            executors: match engine.host.backend().backend {
                Backend::Mmsg => 0,
                Backend::Auto | Backend::IoUring => (IO_MEMORY_BYTES * config.node.shards) as u64,
            },
            drivers: engine.host.stats().to_vec(),
            records: recorder > 0,
            addresses: engine.host.addresses().to_vec(),
        }
    }

    /// The answer to a request that is for shards; `None` for another one. `late` says how late timers
    /// fired so far.
    pub(super) fn answer(
        &self,
        request: &Request,
        late: impl FnOnce() -> Histogram,
    ) -> Option<Response> {
        let query = Query::of(request);
        let shown = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/user") => self.user(&query),
            ("POST", "/push") => self.push(&query),
            ("GET", "/sessions") => self.sessions(&query),
            ("GET", "/trace") => {
                return Some(match self.trace_of(&filter_of(&query)) {
                    Ok(file) => Response::capture(file),
                    Err(error) => Response::error(status_of(error), &error.to_string()),
                });
            }
            ("GET", "/timers") => self
                .line
                .timers()
                .map(|timers| answers::timers(&timers, &late())),
            ("GET", "/mem") => self.line.memory().map(|memory| {
                let drivers = self.drivers.iter().map(|stats| stats.read());
                let mut beside = Beside {
                    receive_buffers: self.buffers,
                    recorders: self.recorders,
                    executors: self.executors,
                    resident: resident(),
                    ..Beside::default()
                };
                for driver in drivers {
                    beside.send_buffers += driver.send_bytes;
                    beside.store_writes += driver.store_write_bytes;
                    beside.store_reads += driver.store_read_bytes;
                }
                answers::memory(&memory, &beside)
            }),
            (_, "/user" | "/push" | "/sessions" | "/timers" | "/mem" | "/trace") => {
                return Some(Response::error(405, "GET, and POST for /push"));
            }
            _ => return None,
        };
        Some(match shown {
            Ok(shown) => respond(&query, &shown),
            Err(error) => Response::error(status_of(error), &error.to_string()),
        })
    }

    /// What the flight recorders have, as a capture file.
    ///
    /// # Errors
    /// When a shard does not answer; [`AskError::Off`] when none records.
    pub fn trace(&self, filter: &Filter) -> Result<Vec<u8>, AskError> {
        if !self.records {
            return Err(AskError::Off);
        }
        self.recorded(filter).map(|(_, file)| file)
    }

    /// The same for somebody who asked: who is not known, and that there is nothing, is told.
    fn trace_of(&self, filter: &Filter) -> Result<Vec<u8>, AskError> {
        if !self.records {
            return Err(AskError::Off);
        }
        let (messages, file) = self.recorded(filter)?;
        if messages > 0 {
            return Ok(file);
        }
        if let Some(user) = &filter.user {
            let user = if user.contains(':') {
                user.clone()
            } else {
                format!("tel:{user}")
            };
            self.line.ask_about(&user, Question::User)?;
        }
        Err(AskError::Nothing)
    }

    fn recorded(&self, filter: &Filter) -> Result<(usize, Vec<u8>), AskError> {
        let chunks = self.line.recorded()?;
        let seen = trace::messages(&chunks, filter);
        let clock = (Clock.now(), Clock.wall());
        Ok((seen.len(), trace::pcap(&seen, &self.addresses, clock)))
    }

    fn user(&self, query: &Query) -> Result<Shown, AskError> {
        let id = query.value("id").unwrap_or_default();
        let (shard, answer) = self.line.ask_about(id, Question::User)?;
        let Answer::User(details) = answer else {
            unfit(shard)
        };
        Ok(self.names.user(shard, &details))
    }

    fn push(&self, query: &Query) -> Result<Shown, AskError> {
        let id = query.value("id").unwrap_or_default();
        if query.value("dry_run").is_some() {
            let (shard, answer) = self.line.ask_about(id, Question::User)?;
            let Answer::User(details) = answer else {
                unfit(shard)
            };
            return Ok(self.names.dry_run(&details));
        }
        let (shard, answer) = self.line.ask_about(id, Question::Push)?;
        let Answer::Pushed(pushed) = answer else {
            unfit(shard)
        };
        Ok(self.names.pushed(Clock.wall(), &pushed))
    }

    fn sessions(&self, query: &Query) -> Result<Shown, AskError> {
        let limit = query.value("limit").and_then(|limit| limit.parse().ok());
        let limit = limit.unwrap_or(SESSIONS_SHOWN).min(SESSIONS_SHOWN_MAX);
        let Some(id) = query.value("user") else {
            let (rows, more) = self.line.sessions(limit)?;
            return Ok(answers::sessions(&rows, more));
        };
        let of = |user| Question::Sessions {
            user: Some(user),
            from: 0,
            limit,
        };
        let (shard, answer) = self.line.ask_about(id, of)?;
        let Answer::Sessions(rows, more) = answer else {
            unfit(shard)
        };
        Ok(answers::sessions(&rows, more.is_some()))
    }
}

/// Octets of the process that are in memory; `None` where the host does not say.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

fn filter_of(query: &Query) -> Filter {
    let last = query.value("last_ms").and_then(|last| last.parse().ok());
    Filter {
        user: query.value("user").map(str::to_owned),
        last: last.map(Duration::from_millis),
    }
}

/// An answer in the form that was asked for.
pub(super) fn respond(query: &Query, shown: &Shown) -> Response {
    if query.wants_text() {
        Response::text(shown.text.clone())
    } else {
        Response::json(&shown.json)
    }
}

/// A shard answered another question than it was asked.
fn unfit(shard: u8) -> ! {
    unreachable!("shard {shard} answers what it is asked")
}

const fn status_of(error: AskError) -> u16 {
    match error {
        AskError::BadIdentity => 400,
        AskError::Unknown => 404,
        AskError::Nothing | AskError::Off => 409,
        AskError::Busy { .. } | AskError::Gone { .. } => 503,
        AskError::Late { .. } | AskError::Long { .. } => 504,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_what_is_no_escape_stays() {
        let request = Request {
            method: "GET".to_owned(),
            path: "/user".to_owned(),
            query: "id=sip%3A%2b1555%40h&x=100%&y=%zz&format=text".to_owned(),
        };
        let query = Query::of(&request);
        assert_eq!(query.value("id"), Some("sip:+1555@h"));
        assert_eq!(query.value("x"), Some("100%"));
        assert_eq!(query.value("y"), Some("%zz"));
        assert!(query.wants_text() && query.value("z").is_none());
    }
}
