//! Segment files.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::io::exec::{self, File, OpenOptions, Read, Task};
use crate::io::store::error::JournalError;
use crate::io::store::format::{self, BLOCK, SegmentHeader, Stamp};

/// Octets read at once by recovery.
const READ_BYTES: usize = 1 << 20;
/// Reads of one file under way at a time.
const READS: usize = 4;

/// Path of segment `number` in `directory`.
pub(crate) fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.seg"))
}

/// Path of what was segment `number`, kept in `directory` to be written over.
pub(crate) fn free_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.free"))
}

/// The number of a segment's file name.
pub(crate) fn number(name: &str) -> Option<u32> {
    digits(name.strip_suffix(".seg")?)
}

/// The number of the name of a file that is kept to be written over.
pub(crate) fn free_number(name: &str) -> Option<u32> {
    digits(name.strip_suffix(".free")?)
}

fn digits(digits: &str) -> Option<u32> {
    let number = u32::from_str_radix(digits, 16).ok()?;
    (format!("{number:08x}") == digits).then_some(number)
}

fn direct(path: &Path, source: io::Error) -> JournalError {
    // The kernel's answer to O_DIRECT where the file system has none (open(2)).
    match source.raw_os_error() {
        Some(libc::EINVAL) => JournalError::Direct {
            path: path.to_owned(),
        },
        Some(_) | None => JournalError::io("open", path, source),
    }
}

/// Opens a segment that exists.
pub(crate) async fn open(path: &Path, write: bool) -> Result<Rc<File>, JournalError> {
    let options = OpenOptions {
        write,
        ..OpenOptions::default()
    };
    let file = options.open(path).await;
    let file = file.map_err(|source| direct(path, source))?;
    if file.alignment() > u64::from(BLOCK) {
        return Err(JournalError::Direct {
            path: path.to_owned(),
        });
    }
    Ok(Rc::new(file))
}

/// What a new segment is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) number: u32,
    pub(crate) bytes: u32,
    pub(crate) stamp: Stamp,
    pub(crate) shard: u32,
}

/// Makes a segment: preallocated, with a durable header and a durable name. Leaves no file when it
/// fails.
pub(crate) async fn create(directory: &Path, plan: Plan) -> Result<Rc<File>, JournalError> {
    let path = path(directory, plan.number);
    let options = OpenOptions {
        write: true,
        create_new: true,
        ..OpenOptions::default()
    };
    // What is there already is not ours to remove.
    let file = options.open(&path).await;
    let file = file.map_err(|source| direct(&path, source))?;
    let made = async {
        if file.alignment() > u64::from(BLOCK) {
            return Err(JournalError::Direct { path: path.clone() });
        }
        let allocated = file.allocate(u64::from(plan.bytes)).await;
        allocated.map_err(|source| JournalError::io("allocate", &path, source))?;
        begin(&file, &path, plan).await?;
        sync_directory(directory).await
    };
    match made.await {
        Ok(()) => Ok(Rc::new(file)),
        Err(error) => {
            // A leftover would be found empty by the next start and removed there.
            std::fs::remove_file(&path).ok();
            Err(error)
        }
    }
}

/// Makes a segment of what was segment `old`, a lower number: its blocks are written already, so that a
/// sync of what is written over them changes nothing that the file system knows of the file. Leaves no
/// file when it fails.
///
/// What is in it stays until it is written over. None of it passes for a record: it names other places.
pub(crate) async fn renew(
    directory: &Path,
    old: u32,
    plan: Plan,
) -> Result<Rc<File>, JournalError> {
    assert!(
        old < plan.number,
        "a file goes on under higher numbers only"
    );
    let (from, path) = (free_path(directory, old), path(directory, plan.number));
    let made = async {
        // What is there already is not ours to write over.
        if path.exists() {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(JournalError::io("make", &path, exists));
        }
        let file = open(&from, true).await?;
        // Before it has the name, so that no segment is without its header.
        begin(&file, &from, plan).await?;
        let renamed = exec::rename(&from, &path).await;
        renamed.map_err(|source| JournalError::io("rename", &from, source))?;
        let synced = sync_directory(directory).await;
        if synced.is_err() {
            std::fs::remove_file(&path).ok();
        }
        synced.map(|()| file)
    };
    let made = made.await;
    if made.is_err() {
        std::fs::remove_file(&from).ok();
    }
    made
}

/// Writes the header, durably.
async fn begin(file: &File, path: &Path, plan: Plan) -> Result<(), JournalError> {
    let mut block = file.buffer(BLOCK as usize);
    let header = SegmentHeader {
        stamp: plan.stamp,
        shard: plan.shard,
    };
    format::write_segment_header(block.as_bytes_mut(), plan.number, header);
    let written = file.write_at(block, 0).await;
    let written = written.map_err(|source| JournalError::io("write", path, source))?;
    if written != BLOCK as usize {
        return Err(JournalError::io(
            "write",
            path,
            io::Error::from(io::ErrorKind::WriteZero),
        ));
    }
    let synced = file.sync().await;
    synced.map_err(|source| JournalError::io("sync", path, source))
}

/// Closes `file`, unless something still uses it.
pub(crate) async fn close(file: Rc<File>, path: &Path) -> Result<(), JournalError> {
    match Rc::try_unwrap(file) {
        Ok(file) => {
            let closed = file.close().await;
            closed.map_err(|source| JournalError::io("close", path, source))
        }
        Err(_) => Ok(()),
    }
}

/// Length of the file at `path`, octets; zero when it is not there.
pub(crate) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

/// Makes names made or removed in `directory` durable.
pub(crate) async fn sync_directory(directory: &Path) -> Result<(), JournalError> {
    let synced = exec::sync_directory(directory).await;
    synced.map_err(|source| JournalError::io("sync", directory, source))
}

/// Reads a whole segment into `out`, replacing what is there.
pub(crate) async fn load(
    file: &Rc<File>,
    path: &Path,
    out: &mut Vec<u8>,
) -> Result<(), JournalError> {
    out.clear();
    let size = file.size().await;
    let mut size = size.map_err(|source| JournalError::io("look at", path, source))?;
    if u32::try_from(size).is_err() {
        return Err(JournalError::Foreign {
            path: path.to_owned(),
        });
    }
    // Made ahead and never written: all behind the header is a hole, not worth reading.
    if size > u64::from(BLOCK) && !has_data(path, u64::from(BLOCK)) {
        size = u64::from(BLOCK);
    }
    let mut ahead = Ahead::new(Rc::clone(file), size);
    let outcome = loop {
        match ahead.next().await {
            // A segment's length ends inside a block once recovery has cut it.
            Some(Ok(read)) => out.extend_from_slice(&read),
            Some(Err(source)) => break Err(JournalError::io("read", path, source)),
            None => break Ok(()),
        }
    };
    ahead.end().await;
    outcome
}

/// Whether anything was ever written at `from` or behind it. True when in doubt.
fn has_data(path: &Path, from: u64) -> bool {
    let Ok(file) = std::fs::File::open(path) else {
        return true;
    };
    let found = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(from));
    found != Err(rustix::io::Errno::NXIO)
}

/// Reads a file from its start, a few reads ahead of who takes them.
#[derive(Debug)]
pub(crate) struct Ahead {
    file: Rc<File>,
    size: u64,
    asked: u64,
    reads: VecDeque<Task<io::Result<Read>>>,
}

impl Ahead {
    pub(crate) fn new(file: Rc<File>, size: u64) -> Self {
        Self {
            file,
            size,
            asked: 0,
            reads: VecDeque::with_capacity(READS),
        }
    }

    /// The next octets; `None` behind the last.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Read>> {
        while self.reads.len() < READS && self.asked < self.size {
            let (file, at) = (Rc::clone(&self.file), self.asked);
            let len = self.size.saturating_sub(at).min(READ_BYTES as u64);
            let len = usize::try_from(len).expect("bounded");
            self.reads.push_back(exec::spawn_local(async move {
                file.read_at(at, len.next_multiple_of(BLOCK as usize)).await
            }));
            self.asked += READ_BYTES as u64;
        }
        let read = self.reads.pop_front()?;
        Some(read.await)
    }

    /// Waits for what is still under way, so that nothing uses the file any more.
    pub(crate) async fn end(self) {
        for read in self.reads {
            read.cancel().await;
        }
    }
}
