//! Looking at a store that nobody serves: for the tools of the command line.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use crate::base::surface::{Location, StoreBatch, StoreDone, StoreTicket};
use crate::io::exec;
use crate::io::store::error::JournalError;
use crate::io::store::format::FORMAT_VERSION;
use crate::io::store::journal::{Journal, JournalOptions, Recovered};
use crate::io::store::recover::Recovery;
use crate::io::store::{directory, recover, segment};

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its number.
    pub number: u32,
    /// Its length, octets.
    pub bytes: u64,
}

/// What a look at a store came to.
#[derive(Clone, Debug)]
pub struct Survey {
    /// What was read.
    pub recovered: Recovered,
    /// The segments, ascending.
    pub segments: Vec<SegmentFile>,
    /// Files kept to be written over, by the number each had.
    pub free: Vec<SegmentFile>,
    /// Octets of the checkpoint file; zero without one.
    pub checkpoint_bytes: u64,
    /// Version of the format, as this program writes it.
    pub format: u32,
}

/// Which view of the store is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As a start would see it: checkpoint first, if there is one.
    Checkpoint,
    /// Every record.
    Records,
}

/// Reads the store in `directory` without changing it. Its lock is held meanwhile, so a store that
/// is being served is refused. Inside an executor.
///
/// # Errors
/// As [`Journal::open`](crate::io::store::Journal::open), but for damage, which the result tells.
pub async fn survey(
    directory: &Path,
    shard: u32,
    view: View,
    recovery: &mut dyn Recovery,
) -> Result<Survey, JournalError> {
    if !directory.join("FORMAT").exists() {
        return Err(JournalError::Foreign {
            path: directory.to_owned(),
        });
    }
    let _lock = directory::claim(directory)?;
    let outcome = match view {
        View::Checkpoint => recover::run(directory, shard, recovery).await?,
        View::Records => recover::run_all(directory, shard, recovery).await?,
    };
    let files = |numbers: Vec<u32>, path: fn(&Path, u32) -> PathBuf| {
        let file = |number| SegmentFile {
            number,
            bytes: segment::length(&path(directory, number)),
        };
        numbers.into_iter().map(file).collect()
    };
    Ok(Survey {
        recovered: outcome.recovered,
        segments: files(directory::segments(directory)?, segment::path),
        free: files(directory::free(directory)?, segment::free_path),
        checkpoint_bytes: segment::length(&directory.join(super::checkpoint::NAME)),
        format: FORMAT_VERSION,
    })
}

/// Octets that gather before they are handed to the journal.
const BATCH_BYTES: usize = 256 << 10;
/// How often a tool looks whether its work is done.
const LOOK: Duration = Duration::from_micros(100);

/// Runs `work` in an executor of its own, on this thread, and waits for it.
///
/// # Errors
/// When the system gives no executor; one sentence.
pub fn block_on<T, F>(work: F) -> Result<T, String>
where
    F: Future<Output = T> + 'static,
    T: 'static,
{
    if crate::io::host::probe().is_err() {
        return exec::run(work).map_err(|error| format!("no executor for the store: {error}"));
    }
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(2 << 20);
    let executor = builder
        .make()
        .map_err(|error| format!("no executor for the store: {error}"))?;
    Ok(executor.run(work))
}

/// Writes to a store that nobody serves, record by record.
#[derive(Debug)]
pub struct Rewriter {
    journal: Journal,
    directory: PathBuf,
    batch: StoreBatch,
    done: StoreDone,
    ticket: u64,
    acknowledged: u64,
    first: Option<u32>,
    /// Where records lie that were appended since their places were last wanted.
    placed: Vec<Location>,
    wants_places: bool,
}

impl Rewriter {
    /// Opens the store in `directory` and hands it to `recovery` record by record.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub async fn open(
        directory: &Path,
        options: &JournalOptions,
        recovery: &mut dyn Recovery,
    ) -> Result<Self, JournalError> {
        // All records, since tools want to see every one, and no checkpoint of theirs. Who compacts a store
        // wants its room back.
        let options = JournalOptions {
            checkpoint_after_bytes: 0,
            free_segments: 0,
            ..*options
        };
        let mut visit = |at: Location, payload: &[u8]| recovery.record(at, payload);
        let journal = Journal::open(directory, &options, &mut visit).await?;
        Ok(Self {
            journal,
            directory: directory.to_owned(),
            batch: StoreBatch::default(),
            done: StoreDone::default(),
            ticket: 0,
            acknowledged: 0,
            first: None,
            placed: Vec::new(),
            wants_places: false,
        })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`JournalError::Stopped`] when the store cannot be written.
    pub async fn append(&mut self, payload: &[u8]) -> Result<(), JournalError> {
        let len = u32::try_from(payload.len()).map_err(|_| self.stopped())?;
        self.ticket += 1;
        self.batch.bytes.extend_from_slice(payload);
        self.batch.appends.push((StoreTicket(self.ticket), len));
        if self.batch.bytes.len() >= BATCH_BYTES {
            self.submit().await?;
        }
        Ok(())
    }

    /// Appends records and waits until they are durable; their places, in order.
    ///
    /// # Errors
    /// [`JournalError::Stopped`] when the store cannot be written.
    pub async fn append_placed(
        &mut self,
        payloads: &[Vec<u8>],
    ) -> Result<Vec<Location>, JournalError> {
        self.settle().await?;
        self.wants_places = true;
        for payload in payloads {
            self.append(payload).await?;
        }
        self.settle().await?;
        self.wants_places = false;
        Ok(core::mem::take(&mut self.placed))
    }

    /// Reads records back; one that cannot be read is `None`.
    ///
    /// # Errors
    /// [`JournalError::Stopped`] when the store cannot be written.
    pub async fn read(
        &mut self,
        places: &[Location],
    ) -> Result<Vec<Option<Vec<u8>>>, JournalError> {
        let mut found = vec![None; places.len()];
        let mut left = places.len();
        self.submit().await?;
        let tokens = (0_u64..).zip(places).map(|(token, &at)| (token, at));
        self.batch.reads.extend(tokens);
        self.submit().await?;
        while left > 0 {
            self.collect(&mut found, &mut left)?;
            exec::sleep(LOOK).await;
        }
        Ok(found)
    }

    /// Waits until everything appended is durable.
    ///
    /// # Errors
    /// [`JournalError::Stopped`] when the store cannot be written.
    pub async fn settle(&mut self) -> Result<(), JournalError> {
        self.submit().await?;
        while self.acknowledged < self.ticket {
            self.collect(&mut [], &mut 0)?;
            exec::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The first segment that has a record of ours in it, or that would.
    #[must_use]
    pub fn border(&self) -> u32 {
        self.first.unwrap_or_else(|| self.journal.current_segment())
    }

    /// Removes every segment before `border`, durably and in order, and ends.
    ///
    /// # Errors
    /// [`JournalError::Stopped`] when the store cannot be written.
    pub async fn finish(mut self, border: Option<u32>) -> Result<(), JournalError> {
        self.settle().await?;
        if let Some(border) = border {
            self.journal.forget_checkpoint().await?;
            let numbers = directory::segments(&self.directory)?;
            let dead = numbers.into_iter().filter(|&number| number < border);
            self.batch.dead_segments.extend(dead);
            self.submit().await?;
            while !self.journal.is_idle() {
                self.collect(&mut [], &mut 0)?;
                exec::sleep(LOOK).await;
            }
        }
        self.journal.close().await;
        Ok(())
    }

    async fn submit(&mut self) -> Result<(), JournalError> {
        while !self.journal.submit(&mut self.batch) {
            self.collect(&mut [], &mut 0)?;
            exec::sleep(LOOK).await;
        }
        Ok(())
    }

    fn collect(
        &mut self,
        found: &mut [Option<Vec<u8>>],
        left: &mut usize,
    ) -> Result<(), JournalError> {
        while self.journal.poll(&mut self.done) {
            if self.done.failed_from.is_some() {
                return Err(self.stopped());
            }
            for &(ticket, at) in &self.done.stored {
                self.acknowledged = ticket.0;
                self.first.get_or_insert(at.segment);
                if self.wants_places {
                    self.placed.push(at);
                }
            }
            for &(token, from, to) in &self.done.loaded {
                let place = usize::try_from(token).ok().and_then(|at| found.get_mut(at));
                *left = left.saturating_sub(1);
                if let (Some(place), true) = (place, from < to) {
                    *place = Some(self.done.bytes[from as usize..to as usize].to_vec());
                }
            }
        }
        Ok(())
    }

    fn stopped(&self) -> JournalError {
        JournalError::Stopped {
            path: self.directory.clone(),
        }
    }
}
