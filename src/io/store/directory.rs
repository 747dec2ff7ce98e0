//! The directory of a journal: lock, format, list of segments.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::io::store::error::JournalError;
use crate::io::store::format::{FORMAT_OLDEST, FORMAT_VERSION};
use crate::io::store::segment;

const FORMAT_NAME: &str = "volley journal ";

/// Makes the directory when it is missing, takes its lock and checks its format.
///
/// The lock lasts as long as the file: the kernel drops it with the process, however that ends.
pub(crate) fn claim(directory: &Path) -> Result<File, JournalError> {
    fs::create_dir_all(directory).map_err(|source| JournalError::io("make", directory, source))?;
    let lock = lock(directory)?;
    check_format(directory)?;
    Ok(lock)
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join("LOCK");
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = file.map_err(|source| JournalError::io("open", &path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Who holds it is a courtesy; without it the sentence still says what to do.
            file.take(32).read_to_string(&mut holder).ok();
            let holder = match holder.trim() {
                "" => "(unknown)".to_owned(),
                holder => holder.to_owned(),
            };
            return Err(JournalError::Held { path, holder });
        }
        Err(source) => return Err(JournalError::io("lock", &path, source)),
    }
    let holder = format!("{}\n", std::process::id());
    let written = file
        .set_len(0)
        .and_then(|()| file.write_all(holder.as_bytes()));
    written.map_err(|source| JournalError::io("write", &path, source))?;
    Ok(file)
}

fn check_format(directory: &Path) -> Result<(), JournalError> {
    let path = directory.join("FORMAT");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            if !segments(directory)?.is_empty() {
                return Err(JournalError::Foreign {
                    path: directory.to_owned(),
                });
            }
            return write_format(directory);
        }
        Err(source) if source.kind() == io::ErrorKind::InvalidData => {
            return Err(JournalError::Foreign { path });
        }
        Err(source) => return Err(JournalError::io("read", &path, source)),
    };
    let version = text
        .strip_prefix(FORMAT_NAME)
        .map(str::trim_end)
        .map(str::parse::<u32>);
    match version {
        Some(Ok(found)) if found > FORMAT_VERSION => Err(JournalError::Newer { path, found }),
        Some(Ok(FORMAT_OLDEST..=FORMAT_VERSION)) => Ok(()),
        Some(_) | None => Err(JournalError::Foreign { path }),
    }
}

/// Says that the directory is of this version from now on. Called once everything was read: an
/// earlier version must not find what only this one writes.
pub(crate) fn mark_format(directory: &Path) -> Result<(), JournalError> {
    let path = directory.join("FORMAT");
    let text =
        fs::read_to_string(&path).map_err(|source| JournalError::io("read", &path, source))?;
    if text.trim_end() == format!("{FORMAT_NAME}{FORMAT_VERSION}") {
        return Ok(());
    }
    write_format(directory)
}

/// Written aside and renamed, so that it is there whole or not at all.
fn write_format(directory: &Path) -> Result<(), JournalError> {
    let (path, aside) = (directory.join("FORMAT"), directory.join("FORMAT.new"));
    let write = || {
        let mut file = File::create(&aside)?;
        writeln!(file, "{FORMAT_NAME}{FORMAT_VERSION}")?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| JournalError::io("write", &path, source))
}

/// Numbers of all segments, ascending.
pub(crate) fn segments(directory: &Path) -> Result<Vec<u32>, JournalError> {
    list(directory, segment::number)
}

/// Numbers that files which are kept to be written over had as segments, ascending.
pub(crate) fn free(directory: &Path) -> Result<Vec<u32>, JournalError> {
    list(directory, segment::free_number)
}

fn list(directory: &Path, number: impl Fn(&str) -> Option<u32>) -> Result<Vec<u32>, JournalError> {
    let broken = |source| JournalError::io("list", directory, source);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(broken)? {
        let name = entry.map_err(broken)?.file_name();
        if let Some(number) = name.to_str().and_then(&number) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
