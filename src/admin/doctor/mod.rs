//! What of this host helps or harms the engine, and what to do about it.
//!
//! Checks only read; [`tune`] is what writes. Every file is looked for under a root, so that tests show
//! hosts that this machine is not; a file that is not there makes a check say that it does not know.

mod checks;
mod devices;
mod disk;
mod groups;
mod nics;
pub mod stalls;
pub mod tune;

use std::path::{Path, PathBuf};

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::io::backend::Backend;
use crate::io::nic::{self, Nics};
use crate::io::trains::TrainSupport;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// This host does not say.
    Unknown,
    /// Worth trying, by measurement.
    Advice,
    /// Costs speed, or will fail under load.
    Warning,
    /// The engine does not run, or its promises do not hold.
    Critical,
}

/// What can be set.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    /// A file of the kernel.
    File {
        /// Below the root, without a leading slash.
        path: PathBuf,
    },
    /// A feature of a network device; its values are `on` and `off`.
    Feature {
        /// The device.
        device: String,
        /// The name that `ethtool -k` gives it, or the kernel's where these differ.
        feature: String,
    },
}

/// A value that is to be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// To what.
    pub value: String,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable name of the check.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is.
    pub current: String,
    /// What should be.
    pub wanted: String,
    /// Why it matters to the engine.
    pub why: &'static str,
    /// What to do; empty when all is fine.
    pub remedy: String,
    /// What `volley tune` would write.
    pub settings: Vec<Setting>,
}

/// What the checks need to know of the engine that is to run here.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Shards.
    pub shards: usize,
    /// CPUs of the shards; empty: the kernel places them.
    pub pin: Vec<usize>,
    /// Directory of the store, or where it will be.
    pub store: PathBuf,
    /// Datagrams towards the core.
    pub datagrams: bool,
    /// What the shards are to run on.
    pub backend: Backend,
    /// Files the process opens at most.
    pub descriptors: u64,
}

/// Limits of a process, octets or descriptors; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub struct ProcessLimits {
    /// Locked memory.
    pub memlock: Option<u64>,
    /// Open files.
    pub nofile: Option<u64>,
}

/// Where the checks look.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    limits: ProcessLimits,
    /// What the kernel said when a ring was tried: nothing when it works.
    ring: Result<(), String>,
    /// What the kernel does with trains of datagrams; `None`: not tried.
    trains: Option<TrainSupport>,
    /// Where network devices are asked.
    nics: Rc<dyn Nics>,
}

impl Place {
    /// That file, given below the root.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into() }
    }
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::File { path } => write!(f, "/{}", path.display()),
            Self::Feature { device, feature } => write!(f, "{device} {feature}"),
        }
    }
}

impl Severity {
    /// Stable text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unknown => "unknown",
            Self::Advice => "advice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Finding {
    /// As JSON, with the keys of the fields.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "id": self.id,
            "severity": self.severity.name(),
            "current": self.current,
            "wanted": self.wanted,
            "why": self.why,
            "remedy": self.remedy,
            "settings": self.settings,
        })
    }
}

impl Host {
    /// The host we run on.
    #[must_use]
    pub fn here() -> Self {
        use rustix::process::{Resource, getrlimit};
        let limits = ProcessLimits {
            memlock: getrlimit(Resource::Memlock).current,
            nofile: getrlimit(Resource::Nofile).current,
        };
        let ring = crate::io::host::probe().map_err(|error| error.to_string());
        let mut host = Self::at(Path::new("/"), limits, ring);
        host.trains = Some(crate::io::trains::probe());
        host
    }

    /// A host whose files are below `root`; its network devices are the kernel's.
    #[must_use]
    pub fn at(root: &Path, limits: ProcessLimits, ring: Result<(), String>) -> Self {
        Self {
            root: root.to_owned(),
            limits,
            ring,
            trains: None,
            nics: Rc::new(nic::Kernel),
        }
    }

    /// Every check, in the order of the list in `tuning/README.md`.
    #[must_use]
    pub fn examine(&self, plan: &Plan) -> Vec<Finding> {
        checks::ALL.iter().map(|check| check(self, plan)).collect()
    }

    /// The trimmed text of a file; `None` when there is none or it cannot be read.
    fn read(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.split_whitespace().next()?.parse().ok()
    }

    /// Names in a directory, in order.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path));
        let entries = entries.into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests;
