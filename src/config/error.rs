//! Errors of the configuration file, written for whoever has to mend it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A value that cannot work: which key, what is wrong, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Why the configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    line: Option<usize>,
    key: Option<String>,
    what: String,
    remedy: String,
}

impl ConfigError {
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            key: None,
            what: format!("cannot be read: {error}"),
            remedy: "give the path of a readable file with --config, or write one with \
                     `volley config --example`"
                .to_owned(),
        }
    }

    pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| line_of(text, span.start));
        let message = error
            .message()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let (key, remedy) = suggestion(&message);
        Self {
            path: path.to_owned(),
            line,
            key,
            what: message,
            remedy,
        }
    }

    /// A value at a place that is known: the octet of `text` at which it starts.
    pub(super) fn at(path: &Path, text: &str, start: usize, problem: Problem) -> Self {
        Self {
            path: path.to_owned(),
            line: Some(line_of(text, start)),
            key: Some(problem.key.to_owned()),
            what: problem.what,
            remedy: problem.remedy.to_owned(),
        }
    }

    pub(super) fn value(path: &Path, text: &str, problem: Problem) -> Self {
        Self {
            path: path.to_owned(),
            line: line_of_key(text, problem.key),
            key: Some(problem.key.to_owned()),
            what: problem.what,
            remedy: problem.remedy.to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": key `{key}`")?;
        }
        write!(f, ": {}\n  remedy: {}", self.what, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}

/// The line that sets `key` (`section.name`), or its section's line.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let mut current = "";
    let mut section_line = None;
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        if let Some(header) = content.strip_prefix('[') {
            current = header.trim_matches(|c| c == '[' || c == ']').trim();
            if current == section {
                section_line = Some(line);
            }
        } else if current == section
            && content
                .strip_prefix(name)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        {
            return Some(line);
        }
    }
    section_line
}

/// For "unknown field `x`, expected one of `a`, `b`": the field, and the closest known one.
fn suggestion(message: &str) -> (Option<String>, String) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let generic = || "correct the value; `volley config --example` shows every key".to_owned();
    if !message.starts_with("unknown field") {
        let key = message
            .contains("missing field")
            .then(|| quoted.next().map(str::to_owned));
        return (key.flatten(), generic());
    }
    let Some(unknown) = quoted.next() else {
        return (None, generic());
    };
    let closest = closest(unknown, quoted);
    let remedy = closest.map_or_else(generic, |known| format!("did you mean `{known}`?"));
    (Some(unknown.to_owned()), remedy)
}

/// Which of the known names was meant, if one is near.
pub(crate) fn closest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.map(|known| (distance(unknown, known), known)).min();
    let near = nearest.filter(|&(distance, _)| distance <= 1 + unknown.len() / 3);
    near.map(|(_, known)| known)
}

/// Edit distance, for suggestions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
