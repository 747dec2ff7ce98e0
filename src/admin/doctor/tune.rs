//! Writing what the checks want, in a way that can be taken back.
//!
//! Before a file is written, what it held is appended to a journal; reverting writes the journal back,
//! last first, and removes it. Only files of the kernel are written, nothing survives a reboot; what
//! should is in the profiles under `tuning/`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Finding, Setting, Severity};

/// One line of the journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Undo {
    /// Path below the root.
    pub path: PathBuf,
    /// What it held.
    pub before: String,
    /// What was written.
    pub after: String,
}

/// Why something was not written, with the file.
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

/// A shell script that does the same as [`apply`], and, behind each line, what takes it back, as far as the files
/// below `root` can be read.
#[must_use]
pub fn script(root: &Path, findings: &[Finding], least: Severity) -> String {
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
            let _ = writeln!(
                text,
                "echo '{}' > /{}",
                setting.value,
                setting.path.display()
            );
            if let Ok(before) = std::fs::read_to_string(root.join(&setting.path)) {
                let before = one_line(selected(before.trim()));
                let _ = writeln!(
                    text,
                    "# to undo: echo '{before}' > /{}",
                    setting.path.display()
                );
            }
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Writes `settings` below `root`, noting in `journal` what was there. What is right already is left
/// alone. Returns what was written.
///
/// # Errors
/// The first file that cannot be read, noted or written. What was written before it is in the journal.
pub fn apply(root: &Path, journal: &Path, settings: &[&Setting]) -> Result<Vec<Undo>, TuneError> {
    let mut done = Vec::new();
    for setting in settings {
        let path = root.join(&setting.path);
        let fail = |what: &str, error: std::io::Error| {
            TuneError(format!(
                "{}: cannot be {what}: {error}; run as root, outside a container",
                path.display()
            ))
        };
        let before = std::fs::read_to_string(&path).map_err(|error| fail("read", error))?;
        let before = selected(before.trim()).to_owned();
        if before
            .split_whitespace()
            .eq(setting.value.split_whitespace())
        {
            continue;
        }
        let undo = Undo {
            path: setting.path.clone(),
            before,
            after: setting.value.clone(),
        };
        note(journal, &undo)?;
        std::fs::write(&path, &setting.value).map_err(|error| fail("written", error))?;
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
    let fail = |error: std::io::Error| {
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
pub fn revert(root: &Path, journal: &Path) -> Result<Vec<Undo>, TuneError> {
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
        let path = root.join(&undo.path);
        std::fs::write(&path, &undo.before).map_err(|error| {
            TuneError(format!(
                "{}: cannot be written back: {error}; run as root",
                path.display()
            ))
        })?;
        done.push(undo);
    }
    std::fs::remove_file(journal)
        .map_err(|error| TuneError(format!("{}: cannot be removed: {error}", journal.display())))?;
    Ok(done)
}
