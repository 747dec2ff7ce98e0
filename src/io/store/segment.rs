//! Segment files.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{Directory, DmaFile, OpenOptions};

use crate::io::store::error::JournalError;
use crate::io::store::format::{self, BLOCK};

/// Octets read at once by recovery.
const READ_BYTES: usize = 1 << 20;

/// Path of segment `number` in `directory`.
pub(crate) fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.seg"))
}

/// The number of a segment's file name.
pub(crate) fn number(name: &str) -> Option<u32> {
    let digits = name
        .strip_suffix(".seg")
        .filter(|digits| digits.len() == 8)?;
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
pub(crate) async fn open(path: &Path, write: bool) -> Result<Rc<DmaFile>, JournalError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(write).dma_open(path).await;
    let file = file.map_err(|source| direct(path, source.into()))?;
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
    pub(crate) epoch: u64,
    pub(crate) shard: u32,
}

/// Makes a segment: preallocated, with a durable header and a durable name. Leaves no file when it
/// fails.
pub(crate) async fn create(directory: &Path, plan: Plan) -> Result<Rc<DmaFile>, JournalError> {
    let path = path(directory, plan.number);
    match create_at(&path, directory, plan).await {
        Ok(file) => Ok(file),
        Err(error) => {
            // A leftover would be found empty by the next start and removed there.
            std::fs::remove_file(&path).ok();
            Err(error)
        }
    }
}

async fn create_at(path: &Path, directory: &Path, plan: Plan) -> Result<Rc<DmaFile>, JournalError> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .dma_open(path)
        .await;
    let file = file.map_err(|source| direct(path, source.into()))?;
    if file.alignment() > u64::from(BLOCK) {
        return Err(JournalError::Direct {
            path: path.to_owned(),
        });
    }
    let allocated = file.pre_allocate(u64::from(plan.bytes), false).await;
    allocated.map_err(|source| JournalError::io("allocate", path, source))?;
    let mut block = file.alloc_dma_buffer(BLOCK as usize);
    format::write_segment_header(block.as_bytes_mut(), plan.number, plan.epoch, plan.shard);
    let written = file.write_at(block, 0).await;
    let written = written.map_err(|source| JournalError::io("write", path, source))?;
    if written != BLOCK as usize {
        return Err(JournalError::io(
            "write",
            path,
            io::Error::from(io::ErrorKind::WriteZero),
        ));
    }
    file.fdatasync()
        .await
        .map_err(|source| JournalError::io("sync", path, source))?;
    sync_directory(directory).await?;
    Ok(Rc::new(file))
}

/// Makes names made or removed in `directory` durable.
pub(crate) async fn sync_directory(directory: &Path) -> Result<(), JournalError> {
    let opened = Directory::open(directory).await;
    let opened = opened.map_err(|source| JournalError::io("open", directory, source))?;
    let synced = opened.sync().await;
    synced.map_err(|source| JournalError::io("sync", directory, source))?;
    opened
        .close()
        .await
        .map_err(|source| JournalError::io("close", directory, source))
}

/// Reads a whole segment into `out`, replacing what is there.
pub(crate) async fn load(
    file: &DmaFile,
    path: &Path,
    out: &mut Vec<u8>,
) -> Result<(), JournalError> {
    out.clear();
    loop {
        let read = file.read_at_aligned(out.len() as u64, READ_BYTES).await;
        let read = read.map_err(|source| JournalError::io("read", path, source))?;
        out.extend_from_slice(&read);
        // A segment's length ends inside a block once recovery has cut it; so does its last read.
        if read.len() < READ_BYTES {
            return Ok(());
        }
        if u32::try_from(out.len()).is_err() {
            return Err(JournalError::Foreign {
                path: path.to_owned(),
            });
        }
    }
}
