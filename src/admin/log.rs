//! What a running engine says of itself: lines on standard error, in a form of the operator's choice.
//!
//! Events come through `tracing`, ours and those of the executor. This subscriber is small on purpose:
//! levels by module that can change at any time, three forms, and a bound for each place that logs, so
//! that a fault which repeats ten thousand times a second is a handful of lines with a count of what was
//! left out. Shards log nothing themselves; what they count is looked at by `watch`.

#![expect(
    clippy::disallowed_types,
    reason = "threads of the interface share one log; no shard takes part"
)]

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use crate::admin::explain::time_text;
use crate::base::redact::Redacted;
use crate::base::time::{Timestamp, UnixMillis};
use crate::config::error::closest;
use crate::config::file::Level;
use crate::io::clock::Clock;

/// Lines of one place in one [`WINDOW`]; further ones are counted.
const LINES_MAX: u32 = 10;
/// For how long the lines of one place are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Modules with a level of their own.
const MODULES_MAX: usize = 32;

/// Modules that write lines, those of the executor by its name.
const SPEAKERS: [&str; 6] = [
    "admin::api",
    "admin::watch",
    "cli::run",
    "figures",
    "glommio",
    "io::store::keeper",
];

/// A field whose text stands for message and fields of an event in the forms for people.
const WORDS: &str = "words";

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A JSON object.
    Json,
    /// `<6>` and the text: what journald reads as a priority.
    JournaldPrefix,
    /// Time, level, module, text.
    #[default]
    Text,
}

/// The log of the process; see the module.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    form: Form,
    level: AtomicU8,
    identities: AtomicBool,
    modules: Mutex<Vec<(String, Level)>>,
    sites: Mutex<Vec<(Identifier, Site)>>,
    /// Lines go here instead of standard error.
    #[cfg(test)]
    lines: Mutex<Vec<String>>,
}

/// The lines of one place.
#[derive(Clone, Copy, Debug)]
struct Site {
    since: Timestamp,
    lines: u32,
    suppressed: u64,
}

/// Whether a line goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// It does, after so many that did not.
    Goes(u64),
    /// It is counted.
    Suppressed,
}

impl Site {
    fn pass(&mut self, now: Timestamp) -> Passage {
        if now.since(self.since) >= WINDOW {
            let suppressed = self.suppressed;
            *self = Self {
                since: now,
                lines: 1,
                suppressed: 0,
            };
            return Passage::Goes(suppressed);
        }
        if self.lines < LINES_MAX {
            self.lines += 1;
            return Passage::Goes(0);
        }
        self.suppressed += 1;
        Passage::Suppressed
    }
}

/// Why a level cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogError {
    /// No level has this name.
    Level,
    /// Too many modules have levels of their own.
    Full,
    /// No such module writes lines; one of this name does.
    Module(Option<&'static str>),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level => f.write_str("there are the levels error, warn, info and debug"),
            Self::Full => write!(f, "{MODULES_MAX} modules have levels of their own already"),
            Self::Module(meant) => {
                f.write_str("no such module writes lines; ")?;
                if let Some(meant) = meant {
                    write!(f, "did you mean {meant}? ")?;
                }
                let known = SPEAKERS.join(", ");
                write!(f, "there are {known}, and what one of them is in, as io")
            }
        }
    }
}

impl std::error::Error for LogError {}

/// The level of this name.
///
/// # Errors
/// When there is none.
pub fn level_of(name: &str) -> Result<Level, LogError> {
    Ok(match name {
        "error" => Level::Error,
        "warn" => Level::Warn,
        "info" => Level::Info,
        "debug" => Level::Debug,
        _ => return Err(LogError::Level),
    })
}

/// Whether `target` is `module`, or within it.
fn is_within(target: &str, module: &str) -> bool {
    let rest = target.strip_prefix(module);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether a level of `module` says anything.
fn speaks(module: &str) -> Result<(), LogError> {
    let inner = module.strip_prefix("volley::").unwrap_or(module);
    let of_executor = is_within(inner, "glommio");
    if of_executor || SPEAKERS.iter().any(|speaker| is_within(speaker, inner)) {
        return Ok(());
    }
    let last = |speaker: &&&str| speaker.rsplit("::").next() == Some(inner);
    let meant = SPEAKERS.iter().find(last).copied();
    let speakers = SPEAKERS.iter().copied();
    Err(LogError::Module(meant.or_else(|| closest(inner, speakers))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done by a thread that ended in between.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// A log that takes what has this level.
    #[must_use]
    pub fn new(form: Form, level: Level, identities: bool) -> Self {
        Self(Arc::new(Shared {
            form,
            level: AtomicU8::new(level as u8),
            identities: AtomicBool::new(identities),
            // The executor's warnings are about its own tuning, and none of an operator's business.
            modules: Mutex::new(vec![("glommio".to_owned(), Level::Error)]),
            sites: Mutex::new(Vec::new()),
            #[cfg(test)]
            lines: Mutex::new(Vec::new()),
        }))
    }

    /// Makes it the log of the process. Only the first one of a process becomes that.
    pub fn install(&self) {
        let _ = tracing::subscriber::set_global_default(self.clone());
    }

    /// Takes what has this level from now on, of one module only if it is named: `admin::watch`, `io`,
    /// `glommio`.
    ///
    /// # Errors
    /// When no such module writes lines, or too many modules have levels of their own.
    pub fn set_level(&self, level: Level, module: Option<&str>) -> Result<(), LogError> {
        match module {
            None => self.0.level.store(level as u8, Ordering::Relaxed),
            Some(name) => {
                speaks(name)?;
                let mut modules = lock(&self.0.modules);
                if let Some(known) = modules.iter_mut().find(|(known, _)| known == name) {
                    known.1 = level;
                } else if modules.len() < MODULES_MAX {
                    modules.push((name.to_owned(), level));
                } else {
                    return Err(LogError::Full);
                }
            }
        }
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Shows identities as they are, or as digests.
    pub fn set_identities(&self, shown: bool) {
        self.0.identities.store(shown, Ordering::Relaxed);
    }

    /// An identity as this log may show it.
    #[must_use]
    pub fn identity(&self, identity: &str) -> String {
        if self.0.identities.load(Ordering::Relaxed) {
            crate::push::inspect::escaped(identity.as_bytes())
        } else {
            Redacted(identity.as_bytes()).to_string()
        }
    }

    /// The level of a module: that of the longest name that fits.
    fn level_for(&self, target: &str) -> u8 {
        let inner = target.strip_prefix("volley::").unwrap_or(target);
        let fits = |name: &str| is_within(inner, name) || is_within(target, name);
        let modules = lock(&self.0.modules);
        let own = modules.iter().filter(|(name, _)| fits(name));
        let own = own.max_by_key(|(name, _)| name.len());
        own.map_or_else(
            || self.0.level.load(Ordering::Relaxed),
            |&(_, level)| level as u8,
        )
    }

    fn pass(&self, site: Identifier) -> Passage {
        let now = Clock.now();
        let mut sites = lock(&self.0.sites);
        if let Some((_, known)) = sites.iter_mut().find(|(known, _)| *known == site) {
            return known.pass(now);
        }
        let first = Site {
            since: now,
            lines: 1,
            suppressed: 0,
        };
        sites.push((site, first));
        Passage::Goes(0)
    }

    fn write(&self, line: &str) {
        #[cfg(test)]
        lock(&self.0.lines).push(line.to_owned());
        #[cfg(not(test))]
        let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
    }
}

fn number(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => Level::Error as u8,
        tracing::Level::WARN => Level::Warn as u8,
        tracing::Level::INFO => Level::Info as u8,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug as u8,
    }
}

/// A time to the millisecond.
fn moment(wall: UnixMillis) -> String {
    let text = time_text(wall);
    let seconds = text.strip_suffix('Z').unwrap_or(&text);
    format!("{seconds}.{:03}Z", wall.0 % 1000)
}

impl Subscriber for Log {
    fn register_callsite(
        &self,
        metadata: &'static Metadata<'static>,
    ) -> tracing::subscriber::Interest {
        // Traces are for who debugs the executor, and stand in its loops.
        if *metadata.level() == tracing::Level::TRACE || metadata.is_span() {
            return tracing::subscriber::Interest::never();
        }
        tracing::subscriber::Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() != tracing::Level::TRACE
            && number(*metadata.level()) <= self.level_for(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let modules = lock(&self.0.modules);
        let own = modules.iter().map(|&(_, level)| level as u8).max();
        let highest = self.0.level.load(Ordering::Relaxed).max(own.unwrap_or(0));
        Some(match highest {
            0 => LevelFilter::ERROR,
            1 => LevelFilter::WARN,
            2 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        })
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let Passage::Goes(suppressed) = self.pass(metadata.callsite()) else {
            return;
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        if suppressed > 0 {
            fields
                .others
                .insert("suppressed".to_owned(), json!(suppressed));
        }
        let line = fields.line(self.0.form, metadata, Clock.wall());
        self.write(&line);
    }

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

/// What an event says.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    words: Option<String>,
    others: Map<String, Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else if field.name() == WORDS {
            self.words = Some(format!("{value:?}"));
        } else {
            let value = json!(format!("{value:?}"));
            self.others.insert(field.name().to_owned(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().to_owned(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.insert(field.name().to_owned(), json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.insert(field.name().to_owned(), json!(value));
    }
}

impl Fields {
    fn line(self, form: Form, metadata: &Metadata<'_>, wall: UnixMillis) -> String {
        let level = *metadata.level();
        let target = metadata.target();
        let target = target.strip_prefix("volley::").unwrap_or(target);
        if form == Form::Json {
            let mut line = self.others;
            line.insert("at".to_owned(), json!(moment(wall)));
            line.insert(
                "level".to_owned(),
                json!(level.as_str().to_ascii_lowercase()),
            );
            line.insert("module".to_owned(), json!(target));
            line.insert("message".to_owned(), json!(self.message));
            return format!("{}\n", Value::Object(line));
        }
        let mut line = match form {
            Form::JournaldPrefix => {
                let priority = match number(level) {
                    0 => 3,
                    1 => 4,
                    2 => 6,
                    _ => 7,
                };
                format!("<{priority}>volley: ")
            }
            Form::Json | Form::Text => {
                format!("{} {level:<5} volley {target}: ", moment(wall))
            }
        };
        // One event is one line, whatever is in it.
        let end = line.len();
        line.push_str(self.words.as_deref().unwrap_or(&self.message));
        let others = self.others.iter().filter(|_| self.words.is_none());
        for (name, value) in others {
            let _ = write!(line, " {name}={value}");
        }
        let text = line.split_off(end).replace(['\n', '\r'], " ");
        line.push_str(&text);
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(form: Form, level: Level, work: impl Fn(&Log)) -> Vec<String> {
        let log = Log::new(form, level, false);
        let to = log.clone();
        tracing::subscriber::with_default(to, || work(&log));
        core::mem::take(&mut lock(&log.0.lines))
    }

    #[test]
    fn levels_hold_for_all_or_for_one_module_and_change_at_run_time() {
        let found = lines(Form::Text, Level::Warn, |log| {
            let speak = || {
                tracing::info!("one");
                tracing::info!(target: "volley::io::store::keeper", "two");
            };
            speak();
            log.set_level(Level::Info, Some("io")).expect("room");
            speak();
            log.set_level(Level::Error, Some("io::store"))
                .expect("room");
            log.set_level(Level::Debug, None).expect("room");
            speak();
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].ends_with(" INFO  volley io::store::keeper: two\n"),
            "{found:?}"
        );
        assert!(
            found[1].contains("volley admin::log::tests: one\n"),
            "{found:?}"
        );
    }

    #[test]
    fn a_module_that_writes_nothing_is_refused_with_those_that_do() {
        let log = Log::new(Form::Text, Level::Info, false);
        for name in [
            "io",
            "io::store",
            "volley::admin",
            "figures",
            "glommio::executor",
        ] {
            assert_eq!(log.set_level(Level::Debug, Some(name)), Ok(()), "{name}");
        }
        for (name, meant) in [
            ("figure", Some("figures")),
            ("watch", Some("admin::watch")),
            ("io::stor", None),
            ("i", None),
            ("", None),
        ] {
            let refused = log.set_level(Level::Debug, Some(name)).unwrap_err();
            assert_eq!(refused, LogError::Module(meant), "{name}");
            assert!(
                refused.to_string().contains("admin::watch, cli::run"),
                "{refused}"
            );
        }
    }

    #[test]
    fn every_module_that_writes_lines_is_known() {
        let mut places = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
        let root = places[0].clone();
        let mut found = vec!["figures".to_owned(), "glommio".to_owned()];
        while let Some(place) = places.pop() {
            if place.is_dir() {
                let inside = std::fs::read_dir(&place).expect("a directory of ours");
                places.extend(inside.map(|entry| entry.expect("an entry").path()));
                continue;
            }
            let text = std::fs::read_to_string(&place).unwrap_or_default();
            let text = text.split("mod tests {").next().unwrap_or_default();
            // Those that speak for another module name it.
            let levels = ["error!(", "warn!(", "info!(", "debug!("];
            let text = text.replace("info!(\n            target: \"volley::figures\"", "");
            if levels
                .iter()
                .any(|level| text.contains(&format!("tracing::{level}")))
            {
                let path = place
                    .strip_prefix(&root)
                    .expect("inside")
                    .with_extension("");
                let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
                found.push(parts.join("::").replace("::mod", ""));
            }
        }
        found.sort();
        assert_eq!(found, SPEAKERS);
    }

    #[test]
    fn what_is_said_in_words_to_people_is_said_in_numbers_to_programs() {
        let speak = |_: &Log| {
            let words = "stored 7 | delivered 3";
            tracing::info!(words = %words, deposits = 7_u64, oldest_pending_s = 0.25, "figures");
        };
        let json = lines(Form::Json, Level::Info, speak).concat();
        let value: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["message"], "figures");
        assert_eq!(value["deposits"], 7);
        assert_eq!(value["oldest_pending_s"], 0.25);
        assert!(value.get("words").is_none());
        let text = lines(Form::Text, Level::Info, speak).concat();
        assert!(text.ends_with(": stored 7 | delivered 3\n"), "{text}");
    }

    #[test]
    fn a_line_that_repeats_is_counted_and_not_written() {
        let found = lines(Form::Json, Level::Info, |_| {
            for n in 0..50_u64 {
                tracing::warn!(n, "again");
            }
            tracing::warn!("another place");
        });
        assert_eq!(found.len(), 11);
        let mut site = Site {
            since: Timestamp::ZERO,
            lines: LINES_MAX,
            suppressed: 40,
        };
        let soon = Timestamp::ZERO + Duration::from_secs(9);
        assert_eq!(site.pass(soon), Passage::Suppressed);
        let later = Timestamp::ZERO + WINDOW;
        assert_eq!(site.pass(later), Passage::Goes(41));
        assert_eq!(site.pass(later), Passage::Goes(0));
    }

    #[test]
    fn each_form_keeps_an_event_on_one_line_and_identities_are_digests() {
        let speak = |log: &Log| {
            let user = log.identity("sip:alice@h");
            tracing::error!(user, count = 2, "lost\nand found");
        };
        let text = lines(Form::Text, Level::Error, speak).concat();
        assert!(text.contains("lost and found count=2 user=\"id:"), "{text}");
        assert!(!text.contains("alice"));
        let json = lines(Form::Json, Level::Error, speak).concat();
        let value: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["level"], "error");
        assert_eq!(value["message"], "lost\nand found");
        assert_eq!(value["count"], 2);
        let prefixed = lines(Form::JournaldPrefix, Level::Error, speak).concat();
        assert!(
            prefixed.starts_with("<3>volley: lost and found"),
            "{prefixed}"
        );
        let log = Log::new(Form::Text, Level::Info, true);
        assert_eq!(log.identity("sip:alice@h"), "sip:alice@h");
        log.set_identities(false);
        assert!(log.identity("sip:alice@h").starts_with("id:"));
        assert_eq!(level_of("verbose"), Err(LogError::Level));
    }
}
