//! `volley doctor` and `volley tune`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use volley::admin::doctor::{Finding, Host, Place, Plan, Severity, stalls, tune};
use volley::admin::options::descriptors;
use volley::config::file::{Limits, Transport};
use volley::io::backend::Backend;

use super::{USAGE, complain, print};

/// Something is critical.
const CRITICAL: u8 = 3;
/// Where `tune --apply` notes what was there.
const JOURNAL: &str = "/var/lib/volley/tune.journal";

/// What the engine will be, as far as it matters to a host.
#[derive(Debug, clap::Args)]
struct Engine {
    /// Configuration the engine will run with; without it one shard and the default directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    engine: Engine,
    /// One JSON array of findings.
    #[arg(long)]
    json: bool,
    /// Show what is fine, too.
    #[arg(long)]
    all: bool,
    /// Keep the CPUs of the shards (without node.pin all) busy for so long and see how often they are taken away: what
    /// no engine can be quicker than. Not beside one that runs.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    stalls: Option<u16>,
}

/// Arguments of `tune`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["script", "apply", "revert"]))]
pub(super) struct Tune {
    #[command(flatten)]
    engine: Engine,
    /// Print a shell script that would do it.
    #[arg(long)]
    script: bool,
    /// Write the settings, noting what was there.
    #[arg(long)]
    apply: bool,
    /// Write back what was there.
    #[arg(long)]
    revert: bool,
    /// Advice, too, not only warnings and what is critical.
    #[arg(long)]
    advice: bool,
    /// Where is noted what was there.
    #[arg(long, value_name = "FILE", default_value = JOURNAL)]
    journal: PathBuf,
    /// What is or would be written as JSON.
    #[arg(long)]
    json: bool,
}

impl Engine {
    fn plan(&self) -> Result<Plan, ExitCode> {
        let Some(path) = &self.config else {
            return Ok(Plan {
                shards: 1,
                pin: Vec::new(),
                store: PathBuf::from("/var/lib/volley"),
                datagrams: false,
                backend: Backend::Auto,
                descriptors: descriptors(1, &Limits::default()),
            });
        };
        match volley::config::load(path) {
            Ok(config) => Ok(Plan {
                descriptors: descriptors(config.node.shards, &config.limits),
                shards: config.node.shards,
                pin: config.node.pin,
                store: std::path::absolute(&config.store.dir).unwrap_or(config.store.dir),
                datagrams: config.sip.transport == Transport::Udp,
                backend: config.node.backend,
            }),
            Err(error) => {
                complain(&error.to_string());
                Err(ExitCode::from(USAGE))
            }
        }
    }
}

/// Watches the CPUs of the shards, and says so, since it takes its time.
fn watch_stalls(pin: Vec<usize>, seconds: u16) -> Result<Finding, String> {
    let cpus = if pin.is_empty() {
        stalls::usable()
    } else {
        pin
    };
    let names: Vec<String> = cpus.iter().map(usize::to_string).collect();
    complain(&format!(
        "watching CPU {} for {seconds} s",
        names.join(", ")
    ));
    let time = Duration::from_secs(seconds.into());
    let seen = stalls::watch(&cpus, time)?;
    Ok(stalls::judge(&seen, time))
}

impl Doctor {
    pub(super) fn main(&self) -> ExitCode {
        let plan = match self.engine.plan() {
            Ok(plan) => plan,
            Err(code) => return code,
        };
        let mut found = Host::here().examine(&plan);
        if let Some(seconds) = self.stalls {
            match watch_stalls(plan.pin, seconds) {
                Ok(finding) => found.push(finding),
                Err(error) => {
                    complain(&error);
                    return ExitCode::from(USAGE);
                }
            }
        }
        if self.json {
            let all: Vec<_> = found.iter().map(Finding::json).collect();
            print(&format!("{}\n", json!(all)));
        } else {
            print(&self.text(&found));
        }
        match found.iter().map(|finding| finding.severity).max() {
            Some(Severity::Critical) => ExitCode::from(CRITICAL),
            Some(Severity::Warning) => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        }
    }

    fn text(&self, found: &[Finding]) -> String {
        let mut text = String::new();
        let mut shown: Vec<_> = found.iter().collect();
        shown.sort_by_key(|finding| core::cmp::Reverse(finding.severity));
        for finding in shown {
            if finding.severity > Severity::Unknown {
                text.push_str(&format!(
                    "{:<9} {}: {}\n          wanted: {}\n          why:    {}\n          do:     {}\n",
                    finding.severity.name(),
                    finding.id,
                    finding.current,
                    finding.wanted,
                    finding.why,
                    finding.remedy,
                ));
            } else if self.all {
                let (name, id) = (finding.severity.name(), finding.id);
                text.push_str(&format!("{name:<9} {id}: {}\n", finding.current));
            }
        }
        let count = |severity| {
            found
                .iter()
                .filter(|finding| finding.severity == severity)
                .count()
        };
        text.push_str(&format!(
            "{} checks: {} critical, {} warnings, {} advice, {} unknown, {} fine\n",
            found.len(),
            count(Severity::Critical),
            count(Severity::Warning),
            count(Severity::Advice),
            count(Severity::Unknown),
            count(Severity::Fine),
        ));
        text
    }
}

impl Tune {
    pub(super) fn main(&self) -> ExitCode {
        let host = Host::here();
        if self.revert {
            return self.report(tune::revert(&host, &self.journal), "taken back", &[]);
        }
        let plan = match self.engine.plan() {
            Ok(plan) => plan,
            Err(code) => return code,
        };
        let least = if self.advice {
            Severity::Advice
        } else {
            Severity::Warning
        };
        let found = host.examine(&plan);
        let due = |finding: &&Finding| finding.severity >= least;
        let by_hand: Vec<_> = found
            .iter()
            .filter(due)
            .filter(|finding| finding.settings.is_empty())
            .collect();
        if self.script {
            if self.json {
                let due: Vec<_> = found.iter().filter(due).map(Finding::json).collect();
                print(&format!("{}\n", json!({ "would_write": due })));
            } else {
                print(&tune::script(&host, &found, least));
            }
            return ExitCode::SUCCESS;
        }
        let settings = tune::settings(&found, least);
        let done = tune::apply(&host, &self.journal, &settings);
        self.report(done, "written", &by_hand)
    }

    fn report(
        &self,
        done: Result<Vec<tune::Undo>, tune::TuneError>,
        verb: &str,
        by_hand: &[&Finding],
    ) -> ExitCode {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                complain(&error.to_string());
                return ExitCode::FAILURE;
            }
        };
        let change = |undo: &tune::Undo| {
            let (before, after) = (undo.before.clone(), undo.after.clone());
            if verb == "written" {
                (before, after)
            } else {
                (after, before)
            }
        };
        if self.json {
            let changes = done.iter().map(|undo| {
                let (from, to) = change(undo);
                match &undo.place {
                    Place::File { path } => {
                        json!({ "path": Path::new("/").join(path), "from": from, "to": to })
                    }
                    Place::Feature { device, feature } => {
                        json!({ "device": device, "feature": feature, "from": from, "to": to })
                    }
                }
            });
            let by_hand = by_hand
                .iter()
                .map(|finding| json!({ "id": finding.id, "remedy": finding.remedy }));
            let key = verb.replace(' ', "_");
            let report = json!({
                key: changes.collect::<Vec<_>>(),
                "by_hand": by_hand.collect::<Vec<_>>(),
            });
            print(&format!("{report}\n"));
            return ExitCode::SUCCESS;
        }
        for undo in &done {
            let (from, to) = change(undo);
            print(&format!("{}: {from} -> {to}\n", undo.place));
        }
        print(&format!("{} settings {verb}\n", done.len()));
        for finding in by_hand {
            print(&format!("by hand: {}: {}\n", finding.id, finding.remedy));
        }
        ExitCode::SUCCESS
    }
}
