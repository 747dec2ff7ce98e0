//! Dumps of the flight recorders to files: on a signal, and when an objective was missed. Bounded: one
//! a minute by itself, and only the last files are kept.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admin::inquiry::Inquiry;
use crate::admin::trace::Filter;
use crate::base::time::Timestamp;
use crate::io::clock::Clock;
use crate::metrics::histogram::Histogram;

/// Files kept in the directory; the oldest go.
const FILES_MAX: usize = 32;
/// Least time between two dumps that nobody asked for.
const PAUSE: Duration = Duration::from_secs(60);
const PREFIX: &str = "volley-";
const SUFFIX: &str = ".pcap";

/// When to dump, and what was dumped.
#[derive(Debug, Default)]
pub struct Dumps {
    /// INVITEs that were late, at the last look.
    late: u64,
    last: Option<Timestamp>,
}

impl Dumps {
    /// How many INVITEs left later than `objective` since the last look; `None` when that is no reason
    /// for a dump: none did, or the last dump is too new.
    pub fn breach(&mut self, trigger_time: &Histogram, objective: Duration) -> Option<u64> {
        if objective.is_zero() {
            return None;
        }
        let late = trigger_time.over(objective);
        let more = late.saturating_sub(core::mem::replace(&mut self.late, late));
        let now = Clock.now();
        let rests = self.last.is_some_and(|last| now.since(last) < PAUSE);
        if more == 0 || rests {
            return None;
        }
        self.last = Some(now);
        Some(more)
    }
}

/// Writes what the recorders have into `directory`; the file.
///
/// # Errors
/// One sentence: no recorder, no directory, a shard that does not answer, a file that cannot be written.
pub fn write(inquiry: &Inquiry, directory: Option<&Path>) -> Result<PathBuf, String> {
    let directory = directory.ok_or("instruments.dump_dir names no directory to dump to")?;
    let bytes = inquiry
        .trace(&Filter::default())
        .map_err(|error| error.to_string())?;
    save(directory, Clock.wall().0, &bytes)
        .map_err(|error| format!("{}: cannot be written: {error}", directory.display()))
}

fn save(directory: &Path, stamp: u64, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut maker = fs::DirBuilder::new();
    maker.recursive(true).mode(0o700).create(directory)?;
    let path = directory.join(format!("{PREFIX}{stamp:015}{SUFFIX}"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&path)?.write_all(bytes)?;
    // Names begin with their times, so the first are the oldest.
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
        })
        .collect();
    files.sort();
    let extra = files.len().saturating_sub(FILES_MAX);
    for old in &files[..extra] {
        fs::remove_file(old)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_last_files_are_kept_and_are_their_owners_only() {
        let name = format!("volley-dump-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let other = directory.join("notes.txt");
        for stamp in 0..FILES_MAX as u64 + 5 {
            let path = save(&directory, stamp, b"octets").expect("it can be written");
            let mode = fs::metadata(&path)
                .expect("it is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            fs::write(&other, "stay").expect("it can be written");
        }
        let count = fs::read_dir(&directory).expect("it is there").count();
        assert_eq!(count, FILES_MAX + 1);
        assert!(other.exists());
        assert!(!directory.join("volley-000000000000004.pcap").exists());
        fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn a_breach_is_told_once_and_not_again_within_a_minute() {
        let mut times = Histogram::default();
        let mut dumps = Dumps::default();
        let objective = Duration::from_millis(50);
        times.record(Duration::from_millis(1));
        assert_eq!(dumps.breach(&times, objective), None);
        times.record(Duration::from_secs(1));
        assert_eq!(dumps.breach(&times, Duration::ZERO), None, "no objective");
        assert_eq!(dumps.breach(&times, objective), Some(1));
        assert_eq!(dumps.breach(&times, objective), None);
        times.record(Duration::from_secs(1));
        assert_eq!(dumps.breach(&times, objective), None, "too soon");
    }
}
