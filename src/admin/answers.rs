//! Answers of shards, for people and for programs.
//!
//! Identities are shown in clear: the socket is for its owner only. Every octet of a peer is escaped.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::explain::{Explanation, time_text};
use crate::base::time::UnixMillis;
use crate::metrics::histogram::Histogram;
use crate::push::inspect::UserReport;
use crate::shard::questions::{
    Memory, MessageReport, Pushed, SessionReport, TIMER_KINDS, TimerKind, Timers, UserDetails,
};
use crate::store::index::Fate;

/// An answer in both forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// Names that answers use for small numbers.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The ICSIs that are read, by their bits.
    pub icsis: Vec<String>,
    /// The dialects, by their index.
    pub dialects: Vec<String>,
}

impl Names {
    fn explanation(&self, at: UnixMillis, report: &UserReport) -> Explanation {
        Explanation {
            at,
            user: report.clone(),
            icsis: self.icsis.clone(),
            dialects: self.dialects.clone(),
            waiting: Vec::new(),
        }
    }

    /// A user with its registration, queue, pushes, and what would be decided now.
    #[must_use]
    pub fn user(&self, shard: u8, details: &UserDetails) -> Shown {
        let explanation = self.explanation(details.at, &details.report);
        let mut text = String::new();
        let report = &details.report;
        let _ = writeln!(
            text,
            "user          {} ({}), on shard {shard}",
            report.canonical, report.identity
        );
        let _ = write!(text, "registration  {}", details.subscription);
        if let Some(version) = details.version {
            let _ = write!(text, ", document {version}");
        }
        if let Some(left) = details.subscription_expires_in {
            let _ = write!(text, ", granted for {} more", span(left));
        }
        if !details.scscf.is_empty() {
            let _ = write!(text, ", S-CSCF {}", details.scscf);
        }
        text.push('\n');
        let ago = details.decided_ago.map(|ago| format!("{} ago", span(ago)));
        let _ = write!(text, "decided       {}", ago.as_deref().unwrap_or("never"));
        if let Some(wait) = details.decides_in {
            let _ = write!(text, ", again in {}", span(wait));
        }
        let _ = writeln!(
            text,
            "\nqueue         {} messages, {} octets",
            report.messages, details.bytes
        );
        for message in &details.messages {
            text.push_str(&message_line(message, report));
        }
        let _ = writeln!(text, "pushes        {} under way", details.pushes.len());
        for push in &details.pushes {
            let _ = writeln!(text, "  {}", push_words(push, report));
        }
        for device in &report.devices {
            let _ = writeln!(
                text,
                "contact       {}: {}",
                device.instance, device.contact
            );
        }
        text.push_str(&explanation.text());
        let mut json = explanation.json();
        json["shard"] = json!(shard);
        json["registration"] = json!({
            "subscription": details.subscription,
            "expires_s": details.subscription_expires_in.map(|left| left.as_secs()),
            "version": details.version,
            "scscf": details.scscf,
        });
        json["decided_ago_s"] = json!(details.decided_ago.map(|ago| ago.as_secs_f64()));
        json["decides_in_s"] = json!(details.decides_in.map(|wait| wait.as_secs_f64()));
        json["bytes"] = json!(details.bytes);
        json["messages"] = details
            .messages
            .iter()
            .map(|message| message_json(message, report))
            .collect();
        json["pushes"] = details.pushes.iter().map(session_json).collect();
        Shown { text, json }
    }

    /// What a decision would say, and nothing happened.
    #[must_use]
    pub fn dry_run(&self, details: &UserDetails) -> Shown {
        let explanation = self.explanation(details.at, &details.report);
        let mut json = explanation.json();
        json["dry_run"] = json!(true);
        Shown {
            text: format!(
                "{}nothing was sent: this was a dry run\n",
                explanation.text()
            ),
            json,
        }
    }

    /// A decision that was made, with what it started.
    #[must_use]
    pub fn pushed(&self, at: UnixMillis, pushed: &Pushed) -> Shown {
        let report = &pushed.report;
        let explanation = self.explanation(at, report);
        let mut text = explanation.text();
        if pushed.stopped {
            text.push_str("nothing is started: the shard drains, or its store has failed\n");
        } else if pushed.waits {
            text.push_str("the decision waits: others are before it, or the pace is used up\n");
        }
        let _ = writeln!(text, "{} pushes started", pushed.started.len());
        for push in &pushed.started {
            let _ = writeln!(text, "  {}", push_words(push, report));
        }
        let mut json = explanation.json();
        json["dry_run"] = json!(false);
        json["stopped"] = json!(pushed.stopped);
        json["waits"] = json!(pushed.waits);
        json["started"] = pushed.started.iter().map(session_json).collect();
        Shown { text, json }
    }
}

/// Sessions, a line each.
#[must_use]
pub fn sessions(rows: &[SessionReport], more: bool) -> Shown {
    let mut text = format!(
        "{:>5} {:<11} {:>8} {:>9} {:>9} {:>5} {:>9}  {:<33} user, target\n",
        "shard", "state", "age", "refresher", "timer in", "msgs", "octets", "Call-ID"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:>5} {:<11} {:>8} {:>9} {:>9} {:>5} {:>9}  {:<33} {}, {}",
            row.shard,
            row.state,
            or_dash(row.age),
            row.refresher.unwrap_or("-"),
            or_dash(row.timer_in),
            row.messages,
            row.octets,
            row.call_id,
            row.user,
            row.target,
        );
    }
    let _ = writeln!(
        text,
        "{} sessions{}",
        rows.len(),
        if more {
            ", and there are more: --limit"
        } else {
            ""
        }
    );
    let all: Vec<Value> = rows.iter().map(session_json).collect();
    let json = json!({ "sessions": all, "more": more });
    Shown { text, json }
}

/// Timers by kind over all shards, and how late they were.
#[must_use]
pub fn timers(shards: &[Timers], late: &Histogram) -> Shown {
    let mut sum = Timers::default();
    for timers in shards {
        sum.merge(timers);
    }
    let mut text = format!(
        "{:<8} {:>10} {:>9} {:>10}\n",
        "kind", "armed", "overdue", "next in"
    );
    let rows = TIMER_KINDS.iter().zip(&sum.kinds);
    for (name, kind) in rows.clone() {
        let _ = writeln!(
            text,
            "{name:<8} {:>10} {:>9} {:>10}",
            kind.armed,
            kind.overdue,
            or_dash(kind.next_in)
        );
    }
    let at = |quantile: f64| late.at_most_us(quantile);
    let us = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us} us"));
    let _ = writeln!(
        text,
        "late     p50 <= {}  p99 <= {}  p99.9 <= {}  of {} fired",
        us(at(0.5)),
        us(at(0.99)),
        us(at(0.999)),
        late.count()
    );
    let kind_json = |kind: &TimerKind| {
        json!({
            "armed": kind.armed,
            "overdue": kind.overdue,
            "next_in_s": kind.next_in.map(|left| left.as_secs_f64()),
        })
    };
    let kinds: serde_json::Map<String, Value> = rows
        .map(|(name, kind)| ((*name).to_owned(), kind_json(kind)))
        .collect();
    let json = json!({
        "kinds": kinds,
        "lateness": {
            "fired": late.count(),
            "p50_at_most_us": at(0.5),
            "p99_at_most_us": at(0.99),
            "p999_at_most_us": at(0.999),
        },
    });
    Shown { text, json }
}

/// Octets beside what shards tell of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside {
    /// The drivers' receive buffers, whether they were used or not.
    pub receive_buffers: u64,
    /// Their send buffers that nobody uses just now.
    pub send_buffers: u64,
    /// What the stores gather to write.
    pub store_writes: u64,
    /// What the stores have read.
    pub store_reads: u64,
    /// Buffers that executors keep registered with the kernel.
    pub executors: u64,
    /// The flight recorders.
    pub recorders: u64,
    /// Of the whole process, in memory.
    pub resident: Option<u64>,
}

impl Beside {
    /// Every component with its name.
    fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("receive_buffers", self.receive_buffers),
            ("send_buffers", self.send_buffers),
            ("store_writes", self.store_writes),
            ("store_reads", self.store_reads),
            ("executors", self.executors),
            ("recorders", self.recorders),
        ]
        .into_iter()
    }
}

/// Memory by component over all shards, and what of the process is not among them: code, stacks, what the allocator
/// keeps. It is negative where what is reserved was never touched.
#[must_use]
pub fn memory(shards: &[Memory], beside: &Beside) -> Shown {
    let resident = beside.resident;
    let mut sum = Memory::default();
    for memory in shards {
        sum.merge(memory);
    }
    let mut text = format!("{:<15} {:>12} {:>14}\n", "component", "count", "octets");
    let mut components = serde_json::Map::new();
    let mut total = 0;
    for (name, held) in sum.iter() {
        total += held.bytes;
        // Room for some, and none there.
        let count = match held.count {
            0 if held.bytes > 0 => "reserved".to_owned(),
            count => count.to_string(),
        };
        let _ = writeln!(text, "{name:<15} {count:>12} {:>14}", held.bytes);
        let json = json!({ "count": held.count, "bytes": held.bytes });
        components.insert(name.to_owned(), json);
    }
    for (name, bytes) in beside.iter() {
        total += bytes;
        let _ = writeln!(text, "{name:<15} {:>12} {bytes:>14}", "");
        components.insert(name.to_owned(), json!({ "bytes": bytes }));
    }
    let _ = writeln!(text, "{:<15} {:>12} {total:>14}", "together", "");
    let unaccounted = resident.map(|resident| i128::from(resident) - i128::from(total));
    if let (Some(resident), Some(unaccounted)) = (resident, unaccounted) {
        let _ = writeln!(text, "{:<15} {:>12} {resident:>14}", "resident", "");
        let _ = writeln!(text, "{:<15} {:>12} {unaccounted:>14}", "unaccounted", "");
    }
    let each = sum.session_bytes.checked_div(sum.sessions);
    let _ = writeln!(
        text,
        "sessions     {} established, {} octets each with slot, texts and timer",
        sum.sessions,
        each.map_or_else(|| "-".to_owned(), |each| each.to_string())
    );
    let json = json!({
        "components": components,
        "total_bytes": total,
        "resident_bytes": resident,
        "unaccounted_bytes": unaccounted.and_then(|bytes| i64::try_from(bytes).ok()),
        "sessions": sum.sessions,
        "bytes_per_session": each,
    });
    Shown { text, json }
}

fn session_json(row: &SessionReport) -> Value {
    json!({
        "shard": row.shard,
        "user": row.user,
        "device": row.instance,
        "device_key": format!("{:016x}", row.device),
        "target": row.target,
        "call_id": row.call_id,
        "state": row.state,
        "age_s": row.age.map(|age| age.as_secs_f64()),
        "refresher": row.refresher,
        "interval_s": row.interval.map(|interval| interval.as_secs()),
        "timer_in_s": row.timer_in.map(|left| left.as_secs_f64()),
        "messages": row.messages,
        "inflight": row.inflight,
        "octets": row.octets,
    })
}

fn instance_of(report: &UserReport, key: u64) -> Option<&str> {
    let device = report.devices.iter().find(|device| device.key == key)?;
    Some(&device.instance)
}

fn push_words(push: &SessionReport, report: &UserReport) -> String {
    let mut text = format!(
        "{} {}, Call-ID {}",
        push.state,
        instance_of(report, push.device).unwrap_or(&push.target),
        push.call_id
    );
    if let Some(age) = push.age {
        let _ = write!(text, ", invited {} ago", span(age));
    }
    if let (Some(refresher), Some(left)) = (push.refresher, push.timer_in) {
        let _ = write!(text, ", refreshed by {refresher}, timer in {}", span(left));
    }
    let _ = write!(
        text,
        ", {} messages done, {} open, {} octets",
        push.messages, push.inflight, push.octets
    );
    text
}

/// A device by its name, or by its key when it is no longer here.
fn device_words(key: u64, report: &UserReport) -> String {
    instance_of(report, key).map_or_else(|| format!("{key:016x}"), str::to_owned)
}

const fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Delivered => "delivered",
        Fate::Refused => "refused",
    }
}

fn message_line(message: &MessageReport, report: &UserReport) -> String {
    let mut line = format!(
        "  {} {} octets, age {}, expires {}{}",
        message.number,
        message.bytes,
        message.age.map_or_else(|| "on disk only".to_owned(), span),
        time_text(message.expires),
        if message.durable {
            ""
        } else {
            ", not yet durable"
        }
    );
    for &(key, fate) in &message.fates {
        let _ = write!(line, ", {} {}", device_words(key, report), fate_word(fate));
    }
    line.push('\n');
    line
}

fn message_json(message: &MessageReport, report: &UserReport) -> Value {
    let fates: Vec<Value> = message
        .fates
        .iter()
        .map(|&(key, fate)| json!({ "device": device_words(key, report), "fate": fate_word(fate) }))
        .collect();
    json!({
        "number": message.number,
        "bytes": message.bytes,
        "age_s": message.age.map(|age| age.as_secs_f64()),
        "expires": time_text(message.expires),
        "durable": message.durable,
        "devices": fates,
    })
}

fn or_dash(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), span)
}

/// A duration in the unit that fits it.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..=9 => format!("{:.1} s", time.as_secs_f64()),
        10..=7199 => format!("{seconds} s"),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
