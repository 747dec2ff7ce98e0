//! What `volley run` prints: one line when it is ready, one a second while something happens, and
//! the totals at the end; as text or as JSON lines.

use std::fmt::Write as _;

use serde_json::json;

use crate::admin::api::Places;
use crate::admin::engine::{Engine, Snapshot, Snapshots};
use crate::io::backend::{Backend, FALLBACK_COSTS};
use crate::io::stats::Counters;
use crate::metrics::probe::Probe;
use crate::shard::{Ages, Population};

/// Merges snapshots of the shards into one view.
#[derive(Debug)]
pub struct Board {
    shards: Vec<Snapshot>,
    last: Probe,
}

impl Board {
    /// A view of `shards` shards that have shown nothing yet.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            shards: vec![Snapshot::default(); shards],
            last: Probe::default(),
        }
    }

    /// Takes new snapshots; true if anything was counted since the last call.
    pub fn update(&mut self, snapshots: &Snapshots) -> bool {
        self.absorb(snapshots);
        let total = self.total();
        let moved = total != self.last;
        self.last = total;
        moved
    }

    /// Takes what the shards have shown since.
    pub fn absorb(&mut self, snapshots: &Snapshots) {
        for (shard, snapshot) in snapshots.take() {
            self.shards[shard] = snapshot;
        }
    }

    /// What each shard has shown last.
    #[must_use]
    pub fn shards(&self) -> &[Snapshot] {
        &self.shards
    }

    /// Counters over all shards.
    #[must_use]
    pub fn total(&self) -> Probe {
        let mut total = Probe::default();
        for shard in &self.shards {
            total.merge(&shard.probe);
        }
        total
    }

    /// What all shards hold.
    #[must_use]
    pub fn population(&self) -> Population {
        self.shards
            .iter()
            .fold(Population::default(), |sum, shard| Population {
                pushes: sum.pushes + shard.population.pushes,
                users: sum.users + shard.population.users,
                messages: sum.messages + shard.population.messages,
                links: sum.links + shard.population.links,
                stores_low: sum.stores_low + shard.population.stores_low,
                stores_full: sum.stores_full + shard.population.stores_full,
                cleaned: (
                    sum.cleaned.0 + shard.population.cleaned.0,
                    sum.cleaned.1 + shard.population.cleaned.1,
                ),
                stores_failed: sum.stores_failed + shard.population.stores_failed,
                ledger: sum.ledger.plus(shard.population.ledger),
                stored: sum.stored + shard.population.stored,
            })
    }

    /// How long what has waited longest has waited, of all shards.
    #[must_use]
    pub fn ages(&self) -> Ages {
        let ages = self.shards.iter().map(|shard| shard.ages);
        ages.fold(Ages::default(), |most, shard| Ages {
            trigger: most.trigger.max(shard.trigger),
            deposit: most.deposit.max(shard.deposit),
            pending: most.pending.max(shard.pending),
        })
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let (probe, held) = (self.total(), self.population());
        format!(
            "stored {} | pushes {} sent, {} accepted, {} failed | delivered {} | pending {} \
             messages, {} pushes, {} users, {} links",
            probe.deposits_total,
            probe.invites_sent_total,
            probe.invites_accepted_total,
            probe.pushes_failed_total,
            probe.delivered_total,
            held.messages,
            held.pushes,
            held.users,
            held.links,
        )
    }

    /// Logs the figures: as one line for people, as numbers for programs.
    pub fn log(&self) {
        let (probe, held, ages) = (self.total(), self.population(), self.ages());
        tracing::info!(
            target: "volley::figures",
            words = %self.line(),
            deposits = probe.deposits_total,
            invites_sent = probe.invites_sent_total,
            invites_accepted = probe.invites_accepted_total,
            pushes_failed = probe.pushes_failed_total,
            delivered = probe.delivered_total,
            messages_pending = held.messages,
            oldest_pending_s = ages.pending.as_secs_f64(),
            pushes = held.pushes,
            users = held.users,
            links = held.links,
            "figures"
        );
    }

    /// Everything, for programs.
    #[must_use]
    pub fn json(&self, driver: &[Counters]) -> serde_json::Value {
        let probe: serde_json::Map<String, serde_json::Value> = self
            .total()
            .iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        let held = self.population();
        let driver: Vec<serde_json::Value> = driver
            .iter()
            .map(|counters| {
                let list = counters.list().into_iter();
                list.map(|(name, value)| (name.to_owned(), json!(value)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })
            .collect();
        let (ledger, ages) = (held.ledger, self.ages());
        let kinds = self.total().drops.families().into_iter();
        let dropped: serde_json::Map<String, serde_json::Value> = kinds
            .map(|kind| {
                let cells = kind.cells.iter();
                let reasons = cells.map(|cell| (cell.reason.to_owned(), json!(cell.count)));
                (
                    kind.name.to_owned(),
                    reasons.collect::<serde_json::Map<_, _>>().into(),
                )
            })
            .collect();
        json!({
            "counters": probe,
            "dropped": dropped,
            "ledger": {
                "deposited": ledger.deposited,
                "delivered": ledger.delivered,
                "expired": ledger.expired,
                "purged": ledger.purged,
                "rejected": ledger.rejected,
                "pending": held.stored,
                "balances": ledger.balances(held.stored),
            },
            "held": {
                "messages": held.messages,
                "pushes": held.pushes,
                "users": held.users,
                "links": held.links,
                "stores_low": held.stores_low,
                "stores_full": held.stores_full,
                "cleaned_messages": held.cleaned.0,
                "cleaned_bytes": held.cleaned.1,
                "stores_failed": held.stores_failed,
            },
            "oldest": {
                "trigger_s": ages.trigger.as_secs_f64(),
                "deposit_s": ages.deposit.as_secs_f64(),
                "pending_s": ages.pending.as_secs_f64(),
            },
            "driver": driver,
        })
    }
}

/// The same as [`ready`], for programs: the first line of `volley run --json`.
#[must_use]
pub fn ready_json(engine: &Engine, places: &Places) -> serde_json::Value {
    let shards: Vec<serde_json::Value> = engine
        .host
        .addresses()
        .iter()
        .map(|addresses| {
            json!({
                "shard": addresses.shard,
                "sip_tcp": addresses.shared_sip_tcp,
                "sip_udp": addresses.shared_sip_udp,
                "own_sip_tcp": addresses.sip_tcp,
                "own_sip_udp": addresses.sip_udp,
                "msrp": addresses.msrp,
            })
        })
        .collect();
    let messages: u64 = engine.recovered.iter().map(|found| found.messages).sum();
    let saved: u64 = engine.recovered.iter().map(|found| found.saved).sum();
    let records: u64 = engine.recovered.iter().map(|found| found.records).sum();
    let took = engine.recovered.iter().map(|found| found.took).max();
    json!({ "ready": {
        "shards": shards,
        "backend": engine.host.backend().backend.name(),
        "backend_reason": engine.host.backend().refused,
        "connections_max": engine.connections_max,
        "udp_trains": { "sent": engine.host.trains().sends, "joined": engine.host.trains().joins },
        "recovered_messages": messages,
        "recovered_from_checkpoint": saved,
        "recovered_records": records,
        "recovery_ms": took.unwrap_or_default().as_secs_f64() * 1000.0,
        "admin": { "socket": places.socket, "metrics": places.metrics },
    } })
}

/// When the shards run without io_uring: why, what it costs, and what to do, in one line.
#[must_use]
pub fn fallback(engine: &Engine) -> Option<String> {
    let choice = engine.host.backend();
    if choice.backend == Backend::IoUring {
        return None;
    }
    let why = choice.refused.as_deref().unwrap_or(
        "the configuration says so; take node.backend = \"auto\" for io_uring where there is one",
    );
    let name = choice.backend.name();
    Some(format!(
        "backend {name}, without io_uring: {why}; meanwhile {FALLBACK_COSTS}"
    ))
}

/// When the limit of open files leaves the shards less room than configured: how much, and what to do.
#[must_use]
pub fn shortage(engine: &Engine) -> Option<String> {
    let (limit, wanted) = engine.files_short?;
    let room = engine.connections_max;
    Some(format!(
        "a shard takes {room} connections and not limits.connections_max: RLIMIT_NOFILE is {limit}; raise it \
         to {wanted} (ulimit -n, or LimitNOFILE= in the service unit), or make limits.connections_max smaller"
    ))
}

/// What was found and where we listen, once at the start.
#[must_use]
pub fn ready(engine: &Engine, places: &Places) -> String {
    let mut text = format!("ready: backend {};", engine.host.backend().backend.name());
    for addresses in engine.host.addresses() {
        let _ = write!(text, " shard {}", addresses.shard);
        if let Some(sip) = addresses.shared_sip_tcp {
            let _ = write!(text, " sip/tcp {sip}");
        }
        if let Some(own) = addresses.sip_tcp {
            let _ = write!(text, " (own {own})");
        }
        if let Some(sip) = addresses.sip_udp {
            let trains = engine.host.trains().text();
            let _ = write!(text, " sip/udp {sip} ({trains})");
        }
        let _ = write!(text, " msrp {};", addresses.msrp);
    }
    let messages: u64 = engine.recovered.iter().map(|found| found.messages).sum();
    let _ = write!(text, " {messages} messages in the store");
    if let Some(metrics) = places.metrics {
        let _ = write!(text, "; metrics at http://{metrics}/metrics");
    }
    match &places.socket {
        Some(socket) => {
            let _ = write!(text, "; orders at {}", socket.display());
        }
        None => text.push_str("; no admin socket: store.dir is too long for one, set admin.socket"),
    }
    text
}
