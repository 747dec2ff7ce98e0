//! Writing what the checks want, in a way that can be taken back.
//!
//! Before a file is written, what it held is appended to a journal; reverting writes the journal back,
//! last first, and removes it. Only files of the kernel are written, and features of network devices turned on
//! and off; nothing survives a reboot. What should is in the profiles under `tuning/`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Finding, Host, Place, Setting, Severity};

/// One line of the journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Undo {
    /// What was set.
    #[serde(flatten)]
    pub place: Place,
    /// What it held.
    pub before: String,
    /// What was written.
    pub after: String,
}

/// Why something was not written, with its place.
#[derive(Debug)]
pub struct TuneError(String);

impl core::fmt::Display for TuneError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for TuneError {}

/// What of the findings can be written, from `least` on.
#[must_use]
pub fn settings(findings: &[Finding], least: Severity) -> Vec<&Setting> {
    let due = findings.iter().filter(|finding| finding.severity >= least);
    due.flat_map(|finding| &finding.settings).collect()
}

/// A shell script that does the same as [`apply`], and, behind each line, what takes it back, as far as `host`
/// says what is set now.
#[must_use]
pub fn script(host: &Host, findings: &[Finding], least: Severity) -> String {
    let mut text = String::from(
        "#!/bin/sh\n# Made by `volley tune --script`; lost at the next boot.\nset -eu\n",
    );
    for finding in findings.iter().filter(|finding| finding.severity >= least) {
        if finding.settings.is_empty() {
            let _ = writeln!(
                text,
                "\n# {}: by hand: {}",
                finding.id,
                one_line(&finding.remedy)
            );
            continue;
        }
        let _ = writeln!(
            text,
            "\n# {}: {} (is: {})",
            finding.id,
            finding.why,
            one_line(&finding.current)
        );
        for setting in &finding.settings {
            let _ = writeln!(text, "{}", command(&setting.place, &setting.value));
            if let Ok(before) = look(host, &setting.place) {
                let undo = command(&setting.place, &one_line(&before));
                let _ = writeln!(text, "# to undo: {undo}");
            }
        }
    }
    text
}

/// What sets it in a shell.
fn command(place: &Place, value: &str) -> String {
    match place {
        Place::File { path } => format!("echo '{value}' > /{}", path.display()),
        Place::Feature { device, feature } => format!("ethtool -K {device} {feature} {value}"),
    }
}

/// What is set there now.
fn look(host: &Host, place: &Place) -> io::Result<String> {
    match place {
        Place::File { path } => {
            let text = std::fs::read_to_string(host.root.join(path))?;
            Ok(selected(text.trim()).to_owned())
        }
        Place::Feature { device, feature } => {
            let features = host.nics.features(device)?;
            let feature = features.get(feature).ok_or(io::ErrorKind::NotFound)?;
            Ok(if feature.on { "on" } else { "off" }.to_owned())
        }
    }
}

fn set(host: &Host, place: &Place, value: &str) -> io::Result<()> {
    match place {
        Place::File { path } => std::fs::write(host.root.join(path), value),
        Place::Feature { device, feature } => host.nics.set(device, feature, value == "on"),
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Writes `settings` to `host`, noting in `journal` what was there. What is right already is left
/// alone. Returns what was written.
///
/// # Errors
/// The first place that cannot be read, noted or written. What was written before it is in the journal.
pub fn apply(host: &Host, journal: &Path, settings: &[&Setting]) -> Result<Vec<Undo>, TuneError> {
    let mut done = Vec::new();
    for setting in settings {
        let place = &setting.place;
        let fail = |what: &str, error: io::Error| {
            TuneError(format!(
                "{place}: cannot be {what}: {error}; run as root, outside a container"
            ))
        };
        let before = look(host, place).map_err(|error| fail("read", error))?;
        if before
            .split_whitespace()
            .eq(setting.value.split_whitespace())
        {
            continue;
        }
        let undo = Undo {
            place: place.clone(),
            before,
            after: setting.value.clone(),
        };
        note(journal, &undo)?;
        set(host, place, &setting.value).map_err(|error| fail("written", error))?;
        done.push(undo);
    }
    Ok(done)
}

/// Of `always [madvise] never` the word in brackets is what holds.
fn selected(text: &str) -> &str {
    let inner = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(text, |(word, _)| word)
}

fn note(journal: &Path, undo: &Undo) -> Result<(), TuneError> {
    let fail = |error: io::Error| {
        TuneError(format!(
            "{}: the journal cannot be written: {error}; name another with --journal",
            journal.display()
        ))
    };
    if let Some(parent) = journal.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(journal)
        .map_err(fail)?;
    let line = serde_json::to_string(undo).map_err(|error| fail(error.into()))?;
    writeln!(file, "{line}").map_err(fail)?;
    file.sync_all().map_err(fail)
}

/// Writes back what `journal` noted, last first, and removes it. Returns what was written back.
///
/// # Errors
/// No journal, a line that is none, or a file that cannot be written; the journal then stays.
pub fn revert(host: &Host, journal: &Path) -> Result<Vec<Undo>, TuneError> {
    let text = std::fs::read_to_string(journal).map_err(|error| {
        TuneError(format!(
            "{}: no journal to take back: {error}",
            journal.display()
        ))
    })?;
    let mut done = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        let undo: Undo = serde_json::from_str(line).map_err(|error| {
            TuneError(format!(
                "{}:{}: not a line of this journal: {error}",
                journal.display(),
                number + 1
            ))
        })?;
        set(host, &undo.place, &undo.before).map_err(|error| {
            TuneError(format!(
                "{}: cannot be written back: {error}; run as root",
                undo.place
            ))
        })?;
        done.push(undo);
    }
    std::fs::remove_file(journal)
        .map_err(|error| TuneError(format!("{}: cannot be removed: {error}", journal.display())))?;
    Ok(done)
}
