//! All counters in the text form of OpenMetrics 1.0, which Prometheus reads.
//!
//! Every series carries the shard it is of; their number is the number of names times the number of
//! shards, whatever happens on the wire. `tuning/METRICS.md` lists the names; a test keeps it true.

use std::fmt::Write as _;
use std::time::Duration;

use crate::admin::engine::Snapshot;
use crate::io::stats::{Counters, Spread};
use crate::metrics::drops::{self, Drops};
use crate::metrics::histogram::Histogram;
use crate::metrics::probe::Probe;
use crate::shard::{Ages, Population};

/// What a reply of this module is, for the header `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Kind of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One family: its name without the suffix of its samples, and what it says.
#[derive(Clone, Debug)]
struct Family {
    name: String,
    kind: Kind,
    unit: &'static str,
    help: String,
}

/// What a gauge of a shard reads.
type Gauge = (&'static str, &'static str, fn(&Population) -> u64);

/// What a shard holds.
const GAUGES: [Gauge; 8] = [
    ("pushes", "Pushes under way.", |held| held.pushes as u64),
    ("users", "Users something is known of.", |held| {
        held.users as u64
    }),
    ("links", "Connections and datagram sockets open.", |held| {
        held.links as u64
    }),
    (
        "messages_pending",
        "Messages waiting for their devices.",
        |held| held.messages as u64,
    ),
    (
        "messages_stored",
        "Messages whose records are on disk and whose life has not ended.",
        |held| held.stored,
    ),
    (
        "store_space_low",
        "1 while the store refuses deposits: its disk is full, or a segment cannot be made.",
        |held| held.stores_low as u64,
    ),
    (
        "store_failed",
        "1 once a sync of the store failed; it acknowledges nothing more.",
        |held| held.stores_failed as u64,
    ),
    (
        "ledger_balanced",
        "1 while deposited = delivered + expired + rejected + purged + pending.",
        |held| u64::from(held.ledger.balances(held.stored)),
    ),
];

/// What became of the messages of a shard's store, over the life of the store.
const LEDGER: [Gauge; 5] = [
    ("ledger_deposited", "Messages ever taken in.", |held| {
        held.ledger.deposited
    }),
    (
        "ledger_delivered",
        "Messages that ended delivered.",
        |held| held.ledger.delivered,
    ),
    ("ledger_expired", "Messages that ended expired.", |held| {
        held.ledger.expired
    }),
    (
        "ledger_rejected",
        "Messages that ended refused by every device.",
        |held| held.ledger.rejected,
    ),
    (
        "ledger_purged",
        "Messages that were removed by the operator.",
        |held| held.ledger.purged,
    ),
];

/// How long what is next in line has waited when the shard was last looked at, about once a second.
type Age = (&'static str, &'static str, fn(&Ages) -> Duration);

const AGES: [Age; 3] = [
    (
        "oldest_trigger_seconds",
        "Age of what asked for the INVITE that is next in line for a decision or a hop; 0: none waits.",
        |ages| ages.trigger,
    ),
    (
        "oldest_deposit_seconds",
        "Age of the message that is next to become durable; 0: none waits.",
        |ages| ages.deposit,
    ),
    (
        "oldest_pending_seconds",
        "Age of the oldest message that waits for its devices, or more: by 8.2 s or an eighth at most; 0: none waits.",
        |ages| ages.pending,
    ),
];

/// Histograms of a shard.
type Stage = (&'static str, &'static str, fn(&Probe) -> &Histogram);

const STAGES: [Stage; 5] = [
    (
        "push_answer_seconds",
        "From an INVITE to the 2xx that answered it.",
        |probe| &probe.answer_time,
    ),
    (
        "push_delivery_seconds",
        "From when a message was begun in a session, to be sent, to its delivery.",
        |probe| &probe.delivery_time,
    ),
    (
        "push_first_delivery_seconds",
        "From the ACK to the first delivery of the session, with its connection.",
        |probe| &probe.first_delivery_time,
    ),
    (
        "push_trigger_seconds",
        "From what asked for an INVITE (a NOTIFY, a deposit, a wait that ended) to the end of the turn that \
         sent it.",
        |probe| &probe.trigger_time,
    ),
    (
        "timer_lateness_seconds",
        "How long after its tick a timer fired, of whatever kind; the tick is up to one later than its moment.",
        |probe| &probe.timer_lateness,
    ),
];

/// Spreads of a driver: name, what it says, and the largest bound that is published. Those in seconds are counted in
/// microseconds.
type Shape = (&'static str, &'static str, u64, fn(&Counters) -> &Spread);

const SHAPES: [Shape; 3] = [
    (
        "driver_turn_seconds",
        "How long a turn took behind which there was no wait, with what the executor did after it.",
        1 << 18,
        |counters| &counters.turn_us,
    ),
    (
        "driver_turn_completions",
        "Completions of each turn that had any.",
        512,
        |counters| &counters.batches,
    ),
    (
        "driver_train_datagrams",
        "Datagrams of each operation that sent some.",
        64,
        |counters| &counters.trains,
    ),
];

/// One reason for which a driver drops something: its label, what it stands for, and how often.
type Reason = (&'static str, &'static str, fn(&Counters) -> u64);

/// What a driver drops, by name.
const DRIVER_DROPS: [(&str, [Reason; 2]); 3] = [
    (
        "datagrams_lost",
        [
            (
                "cut",
                "longer than a buffer, or of a sender that could not be told",
                |counters| counters.datagrams_cut,
            ),
            (
                "unsent",
                "refused by the kernel when it was to be sent",
                |counters| counters.datagrams_unsent,
            ),
        ],
    ),
    (
        "names_dropped",
        [
            (
                "question",
                "as many names of all shards waited for the resolver as may",
                |counters| counters.names_unasked,
            ),
            (
                "answer",
                "the shard had not taken as many answers as may wait for it",
                |counters| {
                    counters
                        .names_dropped
                        .saturating_sub(counters.names_unasked)
                },
            ),
        ],
    ),
    (
        "refused",
        [
            (
                "all",
                "there were 'limits.connections_max', or as many as the limit of open files leaves",
                |counters| counters.refused.saturating_sub(counters.refused_of_source),
            ),
            (
                "source",
                "their source, an IPv4 address or an IPv6 /64, had 'limits.connections_per_source_max'",
                |counters| counters.refused_of_source,
            ),
        ],
    ),
];

/// Counters that are published as reasons of another one.
const DRIVER_PARTS: [&str; 4] = [
    "datagrams_cut",
    "datagrams_unsent",
    "names_unasked",
    "refused_of_source",
];

/// What runs.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Of the program.
    pub version: &'a str,
    /// What its shards run on.
    pub backend: &'a str,
}

/// Writes everything: `shards` and `drivers` in the order of the shards.
#[must_use]
pub fn render(shards: &[Snapshot], drivers: &[Counters], program: Program<'_>) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let build = Family::new(
        "build_info",
        Kind::Gauge,
        "The running program and what its shards run on; always 1.",
    );
    build.head(&mut out);
    let Program { version, backend } = program;
    let labels = format!("version=\"{version}\",backend=\"{backend}\"");
    let _ = writeln!(out, "{}{{{labels}}} 1", build.name);
    let counters = shards
        .iter()
        .map(|shard| shard.probe.plain().collect::<Vec<_>>());
    let counters: Vec<_> = counters.collect();
    for (index, family) in probe_families().iter().enumerate() {
        family.head(&mut out);
        for (shard, counters) in counters.iter().enumerate() {
            family.sample(&mut out, shard, counters[index].1);
        }
    }
    let drops: Vec<_> = shards
        .iter()
        .map(|shard| shard.probe.drops.families())
        .collect();
    for (index, family) in drop_families().iter().enumerate() {
        family.head(&mut out);
        for (shard, kinds) in drops.iter().enumerate() {
            for cell in &kinds[index].cells {
                family.of_reason(&mut out, (shard, cell.reason), cell.count);
            }
        }
    }
    for (family, (_, _, read)) in gauge_families().iter().zip(GAUGES.iter().chain(&LEDGER)) {
        family.head(&mut out);
        for (shard, snapshot) in shards.iter().enumerate() {
            family.sample(&mut out, shard, read(&snapshot.population));
        }
    }
    for (family, (_, _, read)) in age_families().iter().zip(&AGES) {
        family.head(&mut out);
        for (shard, snapshot) in shards.iter().enumerate() {
            let age = read(&snapshot.ages);
            let us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            let _ = writeln!(out, "{}{{shard=\"{shard}\"}} {}", family.name, seconds(us));
        }
    }
    for (family, (_, _, read)) in stage_families().iter().zip(&STAGES) {
        family.head(&mut out);
        for (shard, snapshot) in shards.iter().enumerate() {
            histogram(&mut out, &family.name, shard, read(&snapshot.probe));
        }
    }
    driver_metrics(&mut out, drivers);
    for (family, (_, _, most, read)) in shape_families().iter().zip(&SHAPES) {
        family.head(&mut out);
        for (shard, counters) in drivers.iter().enumerate() {
            spread(&mut out, family, shard, (read(counters), *most));
        }
    }
    out.push_str("# EOF\n");
    out
}

/// The table of all families, as `tuning/METRICS.md` shows it.
#[must_use]
pub fn table() -> String {
    let mut out = String::from("| name | kind | what it says |\n|---|---|---|\n");
    let build = Family::new(
        "build_info",
        Kind::Gauge,
        "The running program and what its shards run on; always 1.",
    );
    let families = core::iter::once(build)
        .chain(probe_families())
        .chain(drop_families())
        .chain(gauge_families())
        .chain(age_families())
        .chain(stage_families())
        .chain(driver_families())
        .chain(shape_families());
    for family in families {
        let suffix = if family.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "| `{}{suffix}` | {} | {} |",
            family.name,
            family.kind.name(),
            family.help
        );
    }
    out
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Family {
    fn new(name: &str, kind: Kind, help: &str) -> Self {
        let unit = if name.ends_with("seconds") {
            "seconds"
        } else if name.ends_with("bytes") {
            "bytes"
        } else {
            ""
        };
        Self {
            name: format!("volley_{name}"),
            kind,
            unit,
            help: help
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .replace('`', "'"),
        }
    }

    fn head(&self, out: &mut String) {
        let _ = writeln!(out, "# TYPE {} {}", self.name, self.kind.name());
        if !self.unit.is_empty() {
            let _ = writeln!(out, "# UNIT {} {}", self.name, self.unit);
        }
        let help = self.help.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(out, "# HELP {} {help}", self.name);
    }

    fn sample(&self, out: &mut String, shard: usize, value: u64) {
        let suffix = if self.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        let _ = writeln!(out, "{}{suffix}{{shard=\"{shard}\"}} {value}", self.name);
    }

    /// A sample of a counter that has reasons.
    fn of_reason(&self, out: &mut String, (shard, reason): (usize, &str), value: u64) {
        let labels = format!("shard=\"{shard}\",reason=\"{reason}\"");
        let _ = writeln!(out, "{}_total{{{labels}}} {value}", self.name);
    }
}

fn probe_families() -> Vec<Family> {
    let probe = Probe::default();
    let named = probe.plain().zip(Probe::help());
    let family = |((name, _), help): ((&'static str, u64), &'static str)| {
        Family::new(
            name.strip_suffix("_total").unwrap_or(name),
            Kind::Counter,
            help,
        )
    };
    named.map(family).collect()
}

/// What was dropped: the label `reason` says why, and the help what each of them stands for.
fn drop_families() -> Vec<Family> {
    let kinds = Drops::default().families();
    let family = |kind: &drops::Family| {
        let reasons = kind.cells.iter().map(|cell| (cell.reason, cell.help));
        Family::new(kind.name, Kind::Counter, &with_reasons(kind.help, reasons))
    };
    kinds.iter().map(family).collect()
}

/// A help text, and what each value of the label `reason` stands for.
fn with_reasons<'a>(help: &str, reasons: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = help.trim().trim_end_matches('.').to_owned();
    text.push_str("; by 'reason'");
    for (nth, (reason, help)) in reasons.enumerate() {
        let before = if nth == 0 { ':' } else { ';' };
        let _ = write!(text, "{before} '{reason}', {}", help.trim());
    }
    text.push('.');
    text
}

fn gauge_families() -> Vec<Family> {
    let gauge = |(name, help, _): &Gauge| Family::new(name, Kind::Gauge, help);
    GAUGES.iter().chain(&LEDGER).map(gauge).collect()
}

fn age_families() -> Vec<Family> {
    let age = |(name, help, _): &Age| Family::new(name, Kind::Gauge, help);
    AGES.iter().map(age).collect()
}

fn stage_families() -> Vec<Family> {
    let stage = |(name, help, _): &Stage| Family::new(name, Kind::Histogram, help);
    STAGES.iter().map(stage).collect()
}

/// `open` goes up and down; CPU time is published in seconds, as its convention wants.
fn driver_families() -> Vec<Family> {
    let named = Counters::default().list().into_iter().zip(Counters::help());
    let named = named.filter(|((name, _), _)| !DRIVER_PARTS.contains(name));
    let family = |((name, _), help): ((&'static str, u64), &'static str)| match name {
        name if let Some(reasons) = reasons_of(name) => {
            let reasons = reasons.iter().map(|&(reason, help, _)| (reason, help));
            let help = with_reasons(help, reasons);
            Family::new(&format!("driver_{name}"), Kind::Counter, &help)
        }
        "open" => Family::new("driver_connections", Kind::Gauge, help),
        "send_bytes"
        | "store_read_bytes"
        | "store_segments"
        | "store_segments_free"
        | "store_write_bytes" => Family::new(&format!("driver_{name}"), Kind::Gauge, help),
        "cpu_us" => Family::new(
            "driver_cpu_seconds",
            Kind::Counter,
            "CPU time of the shard's thread.",
        ),
        name => Family::new(&format!("driver_{name}"), Kind::Counter, help),
    };
    named.map(family).collect()
}

fn shape_families() -> Vec<Family> {
    let shape = |(name, help, ..): &Shape| Family::new(name, Kind::Histogram, help);
    SHAPES.iter().map(shape).collect()
}

fn spread(out: &mut String, family: &Family, shard: usize, (spread, most): (&Spread, u64)) {
    let name = &family.name;
    let figure = |figure: u64| {
        if family.unit == "seconds" {
            seconds(figure)
        } else {
            format!("{figure}.0")
        }
    };
    let mut count = 0;
    for (bound, up_to) in spread.cumulative(most) {
        count = up_to;
        let bound = bound.map_or_else(|| "+Inf".to_owned(), figure);
        let _ = writeln!(
            out,
            "{name}_bucket{{shard=\"{shard}\",le=\"{bound}\"}} {up_to}"
        );
    }
    let _ = writeln!(out, "{name}_count{{shard=\"{shard}\"}} {count}");
    let _ = writeln!(
        out,
        "{name}_sum{{shard=\"{shard}\"}} {}",
        figure(spread.sum())
    );
}

fn reasons_of(counter: &str) -> Option<&'static [Reason; 2]> {
    let found = DRIVER_DROPS.iter().find(|(name, _)| *name == counter);
    found.map(|(_, reasons)| reasons)
}

fn driver_metrics(out: &mut String, drivers: &[Counters]) {
    let list = |counters: &Counters| {
        let mut list = counters.list();
        list.retain(|(name, _)| !DRIVER_PARTS.contains(name));
        list
    };
    let names = list(&Counters::default());
    let lists: Vec<_> = drivers.iter().map(list).collect();
    for (index, family) in driver_families().iter().enumerate() {
        family.head(out);
        if let Some(reasons) = reasons_of(names[index].0) {
            for (shard, counters) in drivers.iter().enumerate() {
                for (reason, _, read) in reasons {
                    family.of_reason(out, (shard, reason), read(counters));
                }
            }
            continue;
        }
        for (shard, list) in lists.iter().enumerate() {
            let value = list[index].1;
            if family.unit == "seconds" {
                let _ = writeln!(
                    out,
                    "{}_total{{shard=\"{shard}\"}} {}",
                    family.name,
                    seconds(value)
                );
            } else {
                family.sample(out, shard, value);
            }
        }
    }
}

fn histogram(out: &mut String, name: &str, shard: usize, histogram: &Histogram) {
    for (bound, up_to) in histogram.octaves() {
        let bound = bound.map_or_else(|| "+Inf".to_owned(), seconds);
        let _ = writeln!(
            out,
            "{name}_bucket{{shard=\"{shard}\",le=\"{bound}\"}} {up_to}"
        );
    }
    let _ = writeln!(
        out,
        "{name}_count{{shard=\"{shard}\"}} {}",
        histogram.count()
    );
    let _ = writeln!(
        out,
        "{name}_sum{{shard=\"{shard}\"}} {}",
        seconds(histogram.sum_us())
    );
}

/// Microseconds as seconds, without rounding.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = include_str!("../../tuning/METRICS.md");

    #[test]
    fn the_list_in_tuning_is_what_is_published() {
        let (before, list) = LIST.split_once("| name |").expect("the list has a table");
        let table = table();
        if std::env::var_os("VOLLEY_TIDY_WRITE").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/METRICS.md");
            std::fs::write(path, format!("{before}{table}")).expect("the tree is writable");
            return;
        }
        let (_, want) = table.split_once("| name |").expect("so has this");
        assert!(
            list.trim_end() == want.trim_end(),
            "tuning/METRICS.md is old: run this test with VOLLEY_TIDY_WRITE=1"
        );
    }

    #[test]
    fn every_family_is_declared_once_before_its_samples_and_the_end_is_marked() {
        let mut snapshot = Snapshot::default();
        snapshot.probe.invites_sent_total = 7;
        snapshot
            .probe
            .answer_time
            .record(Duration::from_micros(1500));
        let mut driver = Counters {
            cpu_us: 2_500_000,
            ..Counters::default()
        };
        driver.turn_us.record(300);
        driver.batches.record(17);
        (driver.refused, driver.refused_of_source) = (7, 4);
        (driver.names_dropped, driver.names_unasked) = (5, 2);
        drops::OutputDropped::LinkFull.count_many(&mut snapshot.probe.drops, 3);
        let program = Program {
            version: "1.2.3",
            backend: "mmsg",
        };
        let text = render(&[snapshot.clone(), snapshot], &[driver, driver], program);
        assert!(text.ends_with("# EOF\n"));
        let mut declared = std::collections::BTreeSet::new();
        let mut current = "";
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().expect("a name");
                assert!(declared.insert(current), "{current} twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(current), "{line} under {current}");
            }
        }
        for line in [
            "volley_build_info{version=\"1.2.3\",backend=\"mmsg\"} 1",
            "volley_invites_sent_total{shard=\"1\"} 7",
            "volley_driver_cpu_seconds_total{shard=\"0\"} 2.500000",
            "volley_push_answer_seconds_bucket{shard=\"0\",le=\"0.002048\"} 1",
            "volley_push_answer_seconds_bucket{shard=\"0\",le=\"0.001024\"} 0",
            "volley_push_answer_seconds_sum{shard=\"0\"} 0.001500",
            "volley_ledger_balanced{shard=\"0\"} 1",
            "volley_driver_turn_seconds_bucket{shard=\"0\",le=\"0.000512\"} 1",
            "volley_driver_turn_seconds_sum{shard=\"1\"} 0.000300",
            "volley_driver_turn_completions_bucket{shard=\"0\",le=\"16.0\"} 0",
            "volley_driver_turn_completions_bucket{shard=\"0\",le=\"32.0\"} 1",
            "volley_driver_turn_completions_sum{shard=\"0\"} 17.0",
            "volley_output_dropped_total{shard=\"1\",reason=\"link_full\"} 3",
            "volley_output_dropped_total{shard=\"1\",reason=\"link_gone\"} 0",
            "volley_driver_names_dropped_total{shard=\"0\",reason=\"question\"} 2",
            "volley_driver_names_dropped_total{shard=\"1\",reason=\"answer\"} 3",
            "volley_driver_refused_total{shard=\"0\",reason=\"all\"} 3",
            "volley_driver_refused_total{shard=\"1\",reason=\"source\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }
}
