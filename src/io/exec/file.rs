//! Files of the store, through either executor.

use std::fs;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::plain::{current, off_thread};
use super::reactor;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenOptions {
    pub(crate) write: bool,
    pub(crate) create_new: bool,
    pub(crate) create: bool,
    pub(crate) truncate: bool,
}

/// A file of the store.
#[derive(Debug)]
pub(crate) enum File {
    /// Past the page cache, through io_uring: the driver's ring while one runs, else the executor's.
    Dma(Rc<glommio::io::DmaFile>),
    /// Through the page cache, by the helper thread.
    Plain(Arc<fs::File>, PathBuf),
}

/// Memory of a write.
#[derive(Debug)]
pub(crate) enum Buffer {
    Dma(glommio::io::DmaBuffer),
    Plain(Vec<u8>),
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Read {
    Dma(glommio::io::ReadResult),
    Buffer(glommio::io::DmaBuffer),
    Plain(Vec<u8>),
}

impl Deref for Read {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Dma(read) => read,
            Self::Buffer(buffer) => buffer.as_bytes(),
            Self::Plain(bytes) => bytes,
        }
    }
}

impl Buffer {
    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Dma(buffer) => buffer.as_bytes_mut(),
            Self::Plain(bytes) => bytes,
        }
    }
}

impl OpenOptions {
    pub(crate) async fn open(self, path: &Path) -> io::Result<File> {
        if current().is_none() {
            let mut options = glommio::io::OpenOptions::new();
            options
                .read(true)
                .write(self.write)
                .create_new(self.create_new);
            options.create(self.create).truncate(self.truncate);
            let file = elsewhere(options.dma_open(path)).await?;
            return Ok(File::Dma(Rc::new(file)));
        }
        let path = path.to_owned();
        let own = path.clone();
        let file = off_thread(move || {
            let mut options = fs::OpenOptions::new();
            options
                .read(true)
                .write(self.write)
                .create_new(self.create_new);
            options.create(self.create).truncate(self.truncate);
            options.open(&path)
        });
        Ok(File::Plain(Arc::new(file.await?), own))
    }
}

/// Does something that needs the executor's own reactor. What the system answered stays its answer: the
/// library's own way to an [`io::Error`] keeps the words and drops the number.
async fn elsewhere<T>(
    work: impl Future<Output = Result<T, glommio::GlommioError<()>>>,
) -> io::Result<T> {
    use glommio::GlommioError;
    let outcome = reactor::elsewhere(work).await;
    outcome.map_err(|error| match error {
        GlommioError::EnhancedIoError { source, .. } | GlommioError::IoError(source) => source,
        other @ (GlommioError::BuilderError(_)
        | GlommioError::CanNotBeClosed(..)
        | GlommioError::Closed(_)
        | GlommioError::ExecutorError(_)
        | GlommioError::ReactorError(_)
        | GlommioError::TimedOut(_)
        | GlommioError::WouldBlock(_)) => other.into(),
    })
}

/// Makes a new or removed name in `directory` durable.
pub(crate) async fn sync_directory(directory: &Path) -> io::Result<()> {
    if current().is_none() {
        return elsewhere(async {
            let opened = glommio::io::Directory::open(directory).await?;
            opened.sync().await?;
            opened.close().await
        })
        .await;
    }
    let directory = directory.to_owned();
    off_thread(move || fs::File::open(&directory)?.sync_all()).await
}

/// Gives the file at `from` the name `to`, which no file has.
pub(crate) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if current().is_none() {
        return elsewhere(glommio::io::rename(from, to)).await;
    }
    let (from, to) = (from.to_owned(), to.to_owned());
    off_thread(move || fs::rename(from, to)).await
}

async fn write(
    file: &Rc<glommio::io::DmaFile>,
    buffer: glommio::io::DmaBuffer,
    at: u64,
) -> io::Result<usize> {
    match reactor::current() {
        Some(reactor) => reactor.write(file, buffer, at).await,
        None => elsewhere(file.write_at(buffer, at)).await,
    }
}

async fn sync_data(file: &Rc<glommio::io::DmaFile>) -> io::Result<()> {
    match reactor::current() {
        Some(reactor) => reactor.sync_data(file).await?,
        None => elsewhere(file.fdatasync()).await?,
    }
    is_alive(file)
}

/// Refuses what a sync said if the file system was shut down meanwhile. ext4 and XFS can let a sync succeed
/// that is under way when they shut down, as they do by themselves when their own log cannot be written,
/// although what was to become durable is gone. They say what they are first, and fail what is under way
/// after that; so who asks after the sync learns it. A read and a write of nothing touch no block: XFS and
/// ext4 that were shut down refuse the read, an ext4 that makes itself read-only refuses the write.
pub(super) fn is_alive(file: &impl AsFd) -> io::Result<()> {
    rustix::io::pread(file, &mut [0_u8; 0], 0)?;
    rustix::io::pwrite(file, &[], 0)?;
    Ok(())
}

fn sync_plain(file: &fs::File) -> io::Result<()> {
    file.sync_data()?;
    is_alive(file)
}

impl File {
    /// The helper thread's part of an operation on a plain file.
    async fn off_thread<T: Send + 'static>(
        file: &Arc<fs::File>,
        job: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = Arc::clone(file);
        off_thread(move || job(&file)).await
    }

    /// What offsets and lengths must be multiples of.
    pub(crate) fn alignment(&self) -> u64 {
        match self {
            Self::Dma(file) => file.alignment(),
            Self::Plain(..) => 1,
        }
    }

    /// A zeroed buffer for a write.
    pub(crate) fn buffer(&self, size: usize) -> Buffer {
        match self {
            Self::Dma(file) => Buffer::Dma(file.alloc_dma_buffer(size)),
            Self::Plain(..) => Buffer::Plain(vec![0; size]),
        }
    }

    pub(crate) async fn allocate(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Dma(file) => elsewhere(file.pre_allocate(bytes, false)).await,
            Self::Plain(file, _) => {
                Self::off_thread(file, move |file| {
                    let flags = rustix::fs::FallocateFlags::empty();
                    Ok(rustix::fs::fallocate(file, flags, 0, bytes)?)
                })
                .await
            }
        }
    }

    /// Writes `buffer` at `at`; how much was written.
    pub(crate) async fn write_at(&self, buffer: Buffer, at: u64) -> io::Result<usize> {
        match (self, buffer) {
            (Self::Dma(file), Buffer::Dma(buffer)) => write(file, buffer, at).await,
            (Self::Plain(file, _), Buffer::Plain(bytes)) => {
                Self::off_thread(file, move |file| {
                    file.write_all_at(&bytes, at)?;
                    Ok(bytes.len())
                })
                .await
            }
            (Self::Dma(_) | Self::Plain(..), Buffer::Dma(_) | Buffer::Plain(_)) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        }
    }

    /// Writes all of `buffer` at `at` and makes it durable.
    pub(crate) async fn write_durably(&self, buffer: Buffer, at: u64) -> io::Result<()> {
        match (self, buffer) {
            (Self::Dma(file), Buffer::Dma(buffer)) => {
                let size = buffer.len();
                if write(file, buffer, at).await? != size {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                sync_data(file).await
            }
            (Self::Plain(file, _), Buffer::Plain(bytes)) => {
                // One job: two would cost the helper thread another wake-up for each group.
                Self::off_thread(file, move |file| {
                    file.write_all_at(&bytes, at)?;
                    sync_plain(file)
                })
                .await
            }
            (Self::Dma(_) | Self::Plain(..), Buffer::Dma(_) | Buffer::Plain(_)) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        }
    }

    /// Reads up to `len` octets, fewer at the end of the file.
    pub(crate) async fn read_at(&self, at: u64, len: usize) -> io::Result<Read> {
        match self {
            Self::Dma(file) => match reactor::current() {
                Some(reactor) => {
                    let buffer = file.alloc_dma_buffer(len);
                    Ok(Read::Buffer(reactor.read(file, buffer, at).await?))
                }
                None => Ok(Read::Dma(elsewhere(file.read_at_aligned(at, len)).await?)),
            },
            Self::Plain(file, _) => {
                let read = Self::off_thread(file, move |file| {
                    let mut bytes = vec![0; len];
                    let mut filled = 0;
                    while filled < len {
                        match file.read_at(&mut bytes[filled..], at + filled as u64) {
                            Ok(0) => break,
                            Ok(more) => filled += more,
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            Err(error) => return Err(error),
                        }
                    }
                    bytes.truncate(filled);
                    Ok(bytes)
                });
                Ok(Read::Plain(read.await?))
            }
        }
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        match self {
            Self::Dma(file) => sync_data(file).await,
            Self::Plain(file, _) => Self::off_thread(file, sync_plain).await,
        }
    }

    pub(crate) async fn size(&self) -> io::Result<u64> {
        match self {
            Self::Dma(file) => elsewhere(file.file_size()).await,
            Self::Plain(file, _) => Self::off_thread(file, |file| Ok(file.metadata()?.len())).await,
        }
    }

    pub(crate) async fn truncate(&self, size: u64) -> io::Result<()> {
        match self {
            Self::Dma(file) => elsewhere(file.truncate(size)).await,
            Self::Plain(file, _) => Self::off_thread(file, move |file| file.set_len(size)).await,
        }
    }

    /// Removes its name.
    pub(crate) async fn remove(&self) -> io::Result<()> {
        match self {
            Self::Dma(file) => elsewhere(file.remove()).await,
            Self::Plain(file, path) => {
                let path = path.clone();
                Self::off_thread(file, move |_| fs::remove_file(&path)).await
            }
        }
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        match self {
            // With an operation on it under way it is closed after that.
            Self::Dma(file) => match Rc::try_unwrap(file) {
                Ok(file) => elsewhere(file.close()).await,
                Err(_) => Ok(()),
            },
            Self::Plain(..) => Ok(()),
        }
    }
}
