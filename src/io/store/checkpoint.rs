//! Checkpoints: the index of the core in one file, so that a start reads that and the journal's end.
//!
//! ```text
//! checkpoint      [record][record].. end record, zeros to the block      as in a segment
//! end record      segment and offset of the floor, pieces, shard
//! ```
//!
//! The core gives its state piece by piece between its other work, so pieces are of different
//! moments. The *floor* is the place in the journal up to which everything was known to the core when
//! the first piece was taken; recovery reads all records behind it again, and what the pieces know of
//! them already does no harm. Hence two rules:
//! * the file counts only from when every record submitted before the last piece is durable;
//! * a segment at or behind the floor stays while the file is there, since records in it may say that
//!   messages in the pieces are gone.
//!
//! A checkpoint saves time and nothing else: one that is missing or damaged is passed over, and the
//! whole journal is read. So a failure to write one is no failure of the store.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::io::exec::{self, File, OpenOptions};
use crate::io::store::error::JournalError;
use crate::io::store::format::{self, BLOCK, Found, HEADER, Key, Kind, Stamp};
use crate::io::store::journal::{Shared, State, now};
use crate::io::store::recover::Recovery;
use crate::io::store::segment;

/// Name of the file that counts.
pub(crate) const NAME: &str = "checkpoint";
/// Name while it is written.
const ASIDE: &str = "checkpoint.new";
/// Octets written at once.
const WRITE_BYTES: usize = 256 << 10;
/// Longest piece that is read back: a user's queue, with a margin.
const PIECE_BYTES_MAX: u32 = 1 << 28;
const END_BYTES: usize = 24;

/// What the last record of a checkpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Records behind this place are not in the checkpoint.
    pub(crate) floor: u64,
    pub(crate) epoch: u64,
    pub(crate) shard: u32,
    pub(crate) pieces: u32,
    /// Octets of the file.
    pub(crate) bytes: u64,
}

/// A checkpoint under way.
#[derive(Debug, Default)]
pub(crate) enum Walk {
    /// None.
    #[default]
    Idle,
    /// One is due: the core is asked for the first piece.
    Due,
    /// The core is asked for the piece from here on.
    Next(u64),
    /// A piece waits to be written; then where to go on.
    Piece(Vec<u8>, Option<u64>),
    /// The last piece is written; what was submitted by then must be durable.
    Settling,
}

impl Walk {
    /// Takes the piece that waits to be written, leaving [`Walk::Idle`] until the caller says how it
    /// goes on; in every other state nothing changes.
    fn take_piece(&mut self) -> Option<(Vec<u8>, Option<u64>)> {
        match core::mem::replace(self, Self::Idle) {
            Self::Piece(bytes, next) => Some((bytes, next)),
            other @ (Self::Idle | Self::Due | Self::Next(_) | Self::Settling) => {
                *self = other;
                None
            }
        }
    }
}

/// Works until the journal ends.
pub(crate) async fn run(shared: Rc<Shared>) {
    loop {
        {
            let mut state = shared.state();
            if state.is_over() {
                return;
            }
            if is_due(&shared, &state) {
                state.walk = Walk::Due;
                state.wake();
            }
        }
        if matches!(shared.state().walk, Walk::Idle) {
            shared.checkpoint.wait().await;
            continue;
        }
        let made = make(&shared).await;
        let mut state = shared.state();
        state.walk = Walk::Idle;
        match made {
            Ok(Some(end)) => {
                state.checkpoint = Some((end.floor, end.bytes));
                state.totals.checkpoints += 1;
                drop(state);
                shared.chores.notify();
            }
            // The journal ends, or the disk has no room, or does not say that the name is durable: the next
            // one is tried after as much more.
            Ok(None) | Err(_) => {
                state.checkpoint_at = state.written_to;
                drop(state);
                // Dead segments need not wait for it any more.
                shared.chores.notify();
                std::fs::remove_file(shared.directory.join(ASIDE)).ok();
            }
        }
    }
}

/// Whether so much was written since the last one that reading it would take longer than reading
/// another.
fn is_due(shared: &Shared, state: &State) -> bool {
    let behind = state.written_to.saturating_sub(state.checkpoint_at);
    let size = state.checkpoint.map_or(0, |(_, bytes)| bytes);
    let least = shared.options.checkpoint_after_bytes;
    least > 0 && behind >= least.max(size) && !state.room.is_low()
}

/// How far behind its bandwidth a checkpoint may write faster.
const LAG_MAX: Duration = Duration::from_millis(10);

struct Writer {
    file: Rc<File>,
    /// Records not yet written, from `at` on.
    pending: Vec<u8>,
    at: u64,
    serial: u32,
    pieces: u32,
    /// When the next part may be written.
    next: std::time::Instant,
}

async fn make(shared: &Rc<Shared>) -> io::Result<Option<End>> {
    let path = shared.directory.join(ASIDE);
    let options = OpenOptions {
        write: true,
        create: true,
        truncate: true,
        ..OpenOptions::default()
    };
    let file = Rc::new(options.open(&path).await?);
    let mut writer = Writer {
        file,
        pending: Vec::with_capacity(2 * WRITE_BYTES),
        at: 0,
        serial: 0,
        pieces: 0,
        next: now(),
    };
    let Some(floor) = writer.pieces(shared).await? else {
        return Ok(None);
    };
    let settled = shared.state().submitted();
    shared.state().walk = Walk::Settling;
    let payload = end_payload(floor, writer.pieces, shared.options.shard, writer.serial);
    writer.put(Kind::End, shared.stamp.epoch, &payload)?;
    writer.write(shared, true).await?;
    writer.file.sync().await?;
    loop {
        {
            let state = shared.state();
            if state.is_over() {
                return Ok(None);
            }
            if state.acknowledged >= settled {
                break;
            }
        }
        shared.checkpoint.wait().await;
    }
    std::fs::rename(&path, shared.directory.join(NAME))?;
    // From here on it is there, or may be after a crash.
    let synced = segment::sync_directory(&shared.directory).await;
    let bytes = writer.at;
    if let Ok(file) = Rc::try_unwrap(writer.file) {
        // All of it is durable.
        file.close().await.ok();
    }
    if let Err(error) = synced {
        // The next start may find this one or the one before: keep what the earlier of them needs.
        let mut state = shared.state();
        state.checkpoint.get_or_insert((floor, bytes));
        return Err(io::Error::other(error));
    }
    shared.state().checkpoint_at = format::linear(floor, shared.options.segment_bytes);
    Ok(Some(End {
        floor,
        epoch: shared.stamp.epoch,
        shard: shared.options.shard,
        pieces: writer.pieces,
        bytes,
    }))
}

impl Writer {
    /// Takes pieces until the last; the floor, or `None` when the journal ends before.
    async fn pieces(&mut self, shared: &Rc<Shared>) -> io::Result<Option<u64>> {
        loop {
            let taken = {
                let mut state = shared.state();
                if state.is_over() {
                    return Ok(None);
                }
                state.walk.take_piece().map(|piece| (piece, state.floor))
            };
            let Some(((bytes, next), floor)) = taken else {
                shared.checkpoint.wait().await;
                continue;
            };
            if self.pieces == 0 {
                self.serial = format::split(floor).0;
            }
            self.pieces += 1;
            self.put(Kind::Piece, shared.stamp.epoch, &bytes)?;
            {
                let mut state = shared.state();
                state.piece_buffer = bytes;
                let Some(next) = next else {
                    return Ok(Some(floor));
                };
                state.walk = Walk::Next(next);
            }
            if self.pending.len() >= WRITE_BYTES {
                self.write(shared, false).await?;
            }
            shared.state().wake();
        }
    }

    fn put(&mut self, kind: Kind, epoch: u64, payload: &[u8]) -> io::Result<()> {
        append(
            &mut self.pending,
            self.at,
            self.serial,
            (kind, epoch),
            payload,
        )
        .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))
    }

    /// Writes what is pending: whole blocks, or all with zeros behind it when it is the last; then
    /// pauses so long that the bandwidth is kept.
    async fn write(&mut self, shared: &Shared, last: bool) -> io::Result<()> {
        let mut len = self.pending.len();
        if last {
            len = len.next_multiple_of(BLOCK as usize);
            self.pending.resize(len, 0);
        } else {
            len -= len % BLOCK as usize;
        }
        let mut from = 0;
        while from < len {
            let to = len.min(from + WRITE_BYTES);
            let mut buffer = self.file.buffer(to - from);
            buffer
                .as_bytes_mut()
                .copy_from_slice(&self.pending[from..to]);
            let written = self.file.write_at(buffer, self.at).await?;
            if written != to - from {
                return Err(io::Error::from(io::ErrorKind::WriteZero));
            }
            self.at += written as u64;
            from = to;
            shared.state().totals.checkpoint_bytes += written as u64;
        }
        self.pending.drain(..len);
        let rate = shared.options.checkpoint_bytes_per_s.max(1 << 20);
        let takes = Duration::from_micros(len as u64 * 1_000_000 / rate);
        let now = now();
        // What was not used while there was no piece is not made up for.
        let earliest = now.checked_sub(LAG_MAX).unwrap_or(now);
        self.next = self.next.max(earliest) + takes;
        let rest = self.next.saturating_duration_since(now);
        if !last && !rest.is_zero() {
            exec::sleep(rest).await;
        }
        Ok(())
    }
}

/// Appends a record to `out`, which lies at `at` in the file. `None` when it is too large for one.
fn append(
    out: &mut Vec<u8>,
    at: u64,
    serial: u32,
    (kind, epoch): (Kind, u64),
    payload: &[u8],
) -> Option<()> {
    let place = u32::try_from(at + out.len() as u64).ok()?;
    let size = format::record_bytes(u32::try_from(payload.len()).ok()?)?;
    let from = out.len();
    out.resize(from + size as usize, 0);
    let place = format::position(serial, place);
    let stamp = Stamp {
        epoch,
        key: Key::NONE,
    };
    format::write(&mut out[from..], kind, place, stamp, payload);
    Some(())
}

fn end_payload(floor: u64, pieces: u32, shard: u32, serial: u32) -> [u8; END_BYTES] {
    let mut payload = [0; END_BYTES];
    payload[0..8].copy_from_slice(&floor.to_le_bytes());
    payload[8..12].copy_from_slice(&pieces.to_le_bytes());
    payload[12..16].copy_from_slice(&shard.to_le_bytes());
    payload[16..20].copy_from_slice(&serial.to_le_bytes());
    payload
}

/// Contents of `found` when it is an end record.
fn as_end(found: &Found<'_>, bytes: u64) -> Option<End> {
    let payload: &[u8; END_BYTES] = found.payload.try_into().ok()?;
    let word = |at: usize| {
        payload[at..]
            .first_chunk()
            .map_or(0, |word| u32::from_le_bytes(*word))
    };
    Some(End {
        floor: u64::from(word(4)) << 32 | u64::from(word(0)),
        epoch: found.epoch,
        shard: word(12),
        pieces: word(8),
        bytes,
    })
}

/// Reads the checkpoint of `directory` and hands its pieces to `recovery`. `None` when there is none
/// or it cannot be used; `recovery` may have seen some pieces then.
pub(crate) async fn load(
    directory: &Path,
    shard: u32,
    recovery: &mut dyn Recovery,
) -> Result<Option<End>, JournalError> {
    let path = directory.join(NAME);
    if !path.exists() {
        return Ok(None);
    }
    let file = segment::open(&path, false).await?;
    let size = file.size().await;
    let size = size.map_err(|source| JournalError::io("look at", &path, source))?;
    let mut ahead = segment::Ahead::new(Rc::clone(&file), size);
    let mut bytes = Vec::new();
    let mut scan = Scan::default();
    let outcome = loop {
        // What cannot be read, or ends too early, is a checkpoint that is damaged.
        let Some(Ok(read)) = ahead.next().await else {
            break None;
        };
        bytes.extend_from_slice(&read);
        match scan.step(&mut bytes, recovery) {
            Step::More => {}
            Step::End(end) => break Some(end).filter(|end| end.shard == shard),
            Step::Bad => break None,
        }
    };
    ahead.end().await;
    if let Ok(file) = Rc::try_unwrap(file) {
        file.close().await.ok();
    }
    Ok(outcome)
}

/// Reads a checkpoint record by record.
#[derive(Debug, Default)]
struct Scan {
    /// Octets behind us.
    at: u64,
    serial: Option<u32>,
    pieces: u32,
}

enum Step {
    /// More octets are needed.
    More,
    /// The end record, and everything before it, was there.
    End(End),
    /// Not a checkpoint, or a damaged one.
    Bad,
}

impl Scan {
    /// Takes whole records from the front of `bytes`.
    fn step(&mut self, bytes: &mut Vec<u8>, recovery: &mut dyn Recovery) -> Step {
        let mut taken = 0;
        let step = loop {
            let rest = &bytes[taken..];
            let Some(len) = format::claimed_bytes(rest) else {
                break if rest.len() < HEADER as usize {
                    Step::More
                } else {
                    Step::Bad
                };
            };
            if len > PIECE_BYTES_MAX {
                break Step::Bad;
            }
            if rest.len() < len as usize {
                break Step::More;
            }
            let serial = *self.serial.get_or_insert_with(|| {
                format::claimed_place(rest).map_or(0, |at| format::split(at).0)
            });
            let offset = u32::try_from(self.at + taken as u64).unwrap_or(u32::MAX);
            let Some(found) = format::read(rest, format::position(serial, offset), Key::NONE)
            else {
                break Step::Bad;
            };
            taken += found.bytes as usize;
            match found.kind {
                Kind::Piece => {
                    self.pieces += 1;
                    if !recovery.piece(found.payload) {
                        break Step::Bad;
                    }
                }
                Kind::End => {
                    let end = as_end(&found, self.at + taken as u64);
                    break match end.filter(|end| end.pieces == self.pieces) {
                        Some(end) => Step::End(end),
                        None => Step::Bad,
                    };
                }
                Kind::Commit | Kind::Data | Kind::Segment => break Step::Bad,
            }
        };
        self.at += taken as u64;
        bytes.drain(..taken);
        step
    }
}

/// A checkpoint file of `pieces`, and how many octets of it are used. For tests.
#[cfg(test)]
pub(crate) fn image(pieces: &[Vec<u8>], floor: u64, epoch: u64, shard: u32) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let serial = format::split(floor).0;
    for piece in pieces {
        append(&mut out, 0, serial, (Kind::Piece, epoch), piece).expect("small");
    }
    let count = u32::try_from(pieces.len()).expect("few");
    let payload = end_payload(floor, count, shard, serial);
    append(&mut out, 0, serial, (Kind::End, epoch), &payload).expect("small");
    let used = out.len();
    out.resize(used.next_multiple_of(BLOCK as usize), 0);
    (out, used)
}

/// Reads a checkpoint file of [`image`].
#[cfg(test)]
pub(crate) fn read_image(bytes: &[u8], recovery: &mut dyn Recovery) -> Option<End> {
    match Scan::default().step(&mut bytes.to_vec(), recovery) {
        Step::End(end) => Some(end),
        Step::Bad | Step::More => None,
    }
}
