//! A directory for a store that is thrown away: where direct I/O works and there is room.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstatvfs, open, statfs};

/// What the demo's journal may need, octets.
const FREE_BYTES_MIN: u64 = 512 << 20;
/// Directories of the same name that are passed over.
const LEFT_OVER_MAX: u32 = 16;
/// File system type of a RAM disk.
const TMPFS: u64 = 0x0102_1994;

/// A directory of ours; removed when dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    keep: bool,
}

impl Place {
    /// `path`, which must be empty or missing, and stays.
    pub(super) fn kept(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        fs::create_dir_all(path)
            .map_err(|error| format!("--keep {shown}: {error}; name a directory to be made"))?;
        let full = fs::read_dir(path)
            .map_err(|error| format!("--keep {shown}: {error}"))?
            .next()
            .is_some();
        if full {
            return Err(format!(
                "--keep {shown}: the directory is not empty; name a new one, the demo judges a \
                 store that starts empty"
            ));
        }
        usable(path).map_err(|why| format!("--keep {shown}: {why}"))?;
        Ok(Self {
            path: path.to_owned(),
            keep: true,
        })
    }

    /// A new directory under the first of `parents` that can hold a store.
    pub(super) fn temporary(parents: &[PathBuf]) -> Result<Self, String> {
        let mut reasons = Vec::new();
        for parent in parents {
            let place = match fresh(parent) {
                Ok(path) => Self { path, keep: false },
                Err(error) => {
                    reasons.push(format!("  {}: {error}", parent.display()));
                    continue;
                }
            };
            match usable(&place.path) {
                Ok(()) => return Ok(place),
                Err(why) => reasons.push(format!("  {}: {why}", parent.display())),
            }
        }
        Err(format!(
            "no directory can hold the demo's store:\n{}\n  remedy: name one on a disk with ext4 or \
             XFS: --keep DIR",
            reasons.join("\n")
        ))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its files live in memory: then a sync costs nothing, and figures say so.
    pub(super) fn in_memory(&self) -> bool {
        statfs(&self.path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            super::complain(&format!(
                "{} could not be removed: {error}",
                self.path.display()
            ));
        }
    }
}

/// Makes a directory under `parent`; one left over from a process of our number is passed over.
fn fresh(parent: &Path) -> io::Result<PathBuf> {
    let number = std::process::id();
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for attempt in 0..LEFT_OVER_MAX {
        let path = parent.join(format!("volley-demo-{number}-{attempt}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Whether a journal can live in `directory`: writable, direct I/O, room.
fn usable(directory: &Path) -> Result<(), String> {
    let probe = directory.join("probe");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = open(&probe, flags, Mode::RUSR | Mode::WUSR).map_err(|error| match error {
        rustix::io::Errno::INVAL => "its file system has no direct I/O".to_owned(),
        other => io::Error::from(other).to_string(),
    })?;
    let space = fstatvfs(&file);
    drop(file);
    let _ = fs::remove_file(&probe);
    let space = space.map_err(|error| io::Error::from(error).to_string())?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < FREE_BYTES_MIN {
        return Err(format!(
            "{} MiB are free, the demo wants {} MiB",
            free >> 20,
            FREE_BYTES_MIN >> 20
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_place_passes_over_bad_parents_and_goes_away() {
        let missing = PathBuf::from("/proc/no-such-place");
        let place = Place::temporary(&[missing.clone(), std::env::temp_dir()]).unwrap();
        let path = place.path().to_owned();
        fs::write(path.join("x"), "x").unwrap();
        drop(place);
        assert!(!path.exists());
        let error = Place::temporary(&[missing]).unwrap_err();
        assert!(
            error.contains("/proc/no-such-place") && error.contains("remedy"),
            "{error}"
        );
    }

    #[test]
    fn a_kept_place_must_be_empty_and_stays() {
        let parent = Place::temporary(&[std::env::temp_dir()])
            .unwrap_or_else(|_| Place::temporary(&[PathBuf::from(".")]).unwrap());
        let path = parent.path().join("kept");
        drop(Place::kept(&path).unwrap());
        assert!(path.exists());
        fs::write(path.join("x"), "x").unwrap();
        assert!(Place::kept(&path).unwrap_err().contains("not empty"));
    }
}
