//! Why a journal does not open; each sentence names the path and the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::io::store::format::FORMAT_VERSION;

/// Why [`Journal::open`](crate::io::store::Journal::open) refused.
#[derive(Debug)]
pub enum JournalError {
    /// Acknowledged records are damaged, and the options say to stop then.
    Damaged {
        /// The segment with the first damaged place.
        path: PathBuf,
        /// Octets from its start.
        offset: u32,
        /// Damaged places found in all segments.
        places: usize,
    },
    /// The file system has no direct I/O, or with blocks larger than ours.
    Direct {
        /// The file that was tried.
        path: PathBuf,
    },
    /// Files are there that no journal wrote.
    Foreign {
        /// The file or directory.
        path: PathBuf,
    },
    /// No segment has a whole header, so that none of the records can be told.
    Headless {
        /// One that is not empty.
        segment: u32,
    },
    /// Another process, or another journal of this one, has the directory.
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into it, normally its process number.
        holder: String,
    },
    /// The system refused an operation.
    Io {
        /// What was tried, as "cannot ..".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The checkpoint knows of messages in segments that are not there.
    Missing {
        /// The directory.
        path: PathBuf,
        /// How many.
        messages: u64,
    },
    /// Written by a later version.
    Newer {
        /// The format file.
        path: PathBuf,
        /// The version it names.
        found: u32,
    },
    /// An option has an impossible value.
    Options {
        /// Which and why.
        what: &'static str,
    },
    /// A segment came here from another store.
    OtherStore {
        /// Which.
        segment: u32,
    },
    /// The directory belongs to another shard.
    OtherShard {
        /// The segment that says so.
        segment: u32,
        /// The shard it names.
        found: u32,
        /// The shard that opens it.
        wanted: u32,
    },
    /// A tool's write failed or the disk is full.
    Stopped {
        /// The directory.
        path: PathBuf,
    },
}

impl JournalError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    const TABLE: [(Kind, &str); 7] = [
        (
            Kind::PermissionDenied,
            "give the user volley runs as write access to it, or set store.dir to another",
        ),
        (
            Kind::ReadOnlyFilesystem,
            "mount it writable, or set store.dir to another place",
        ),
        (
            Kind::StorageFull,
            "free space there, or set store.dir to a larger disk",
        ),
        (
            Kind::QuotaExceeded,
            "raise the quota, or set store.dir to a larger disk",
        ),
        (
            Kind::FileTooLarge,
            "raise the file size limit (ulimit -f), or make store.segment_mib smaller",
        ),
        (
            Kind::NotFound,
            "set store.dir to a directory that can be made",
        ),
        (
            Kind::NotADirectory,
            "set store.dir to a directory that can be made",
        ),
    ];
    if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return "raise RLIMIT_NOFILE (ulimit -n, or LimitNOFILE= in the service unit)";
    }
    let known = TABLE.iter().find(|(kind, _)| *kind == source.kind());
    known.map_or("look at the disk and the system's log", |(_, remedy)| {
        remedy
    })
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged {
                path,
                offset,
                places,
            } => write!(
                f,
                "store: {} is damaged at octet {offset} ({places} damaged places in all): records \
                 that were acknowledged cannot be read; restore the directory from a copy, or set \
                 store.on_damage = \"skip\" to go on without them",
                path.display()
            ),
            Self::Direct { path } => write!(
                f,
                "store: {} lies on a file system without direct I/O in blocks of 4096 octets; set \
                 store.dir to a disk with ext4 or XFS",
                path.display()
            ),
            Self::Foreign { path } => write!(
                f,
                "store: {} was not written by volley; set store.dir to an empty directory",
                path.display()
            ),
            Self::Headless { segment } => write!(
                f,
                "store: segment {segment:08x} is damaged at octet 0, and no other says what the records \
                 of this store are made with: none can be read; restore the directory from a copy"
            ),
            Self::Held { path, holder } => write!(
                f,
                "store: {} is locked by process {holder}; stop that one first, or set \
                 store.dir to another directory",
                path.display()
            ),
            Self::Io {
                doing,
                path,
                source,
            } => write!(
                f,
                "store: cannot {doing} {}: {source}; {}",
                path.display(),
                remedy(source)
            ),
            Self::Missing { path, messages } => write!(
                f,
                "store: {} has lost segments with {messages} messages that were acknowledged; restore \
                 the directory from a copy, or set store.on_damage = \"skip\" to go on without them",
                path.display()
            ),
            Self::Newer { path, found } => write!(
                f,
                "store: {} says format {found}, this volley reads up to {FORMAT_VERSION}; run the \
                 version that wrote it, or a later one",
                path.display()
            ),
            Self::Options { what } => write!(f, "store: {what}"),
            Self::Stopped { path } => write!(
                f,
                "store: {} could not be written to the end; what was there is unharmed; look at the \
                 disk's space and the system's log, then run it again",
                path.display()
            ),
            Self::OtherStore { segment } => write!(
                f,
                "store: segment {segment:08x} was written by another store than the segments before it; \
                 move it out of the directory, or restore the directory from a copy"
            ),
            Self::OtherShard {
                segment,
                found,
                wanted,
            } => write!(
                f,
                "store: segment {segment:08x} in the directory of shard {wanted} belongs to shard \
                 {found}; give each shard its own directory and keep the number of shards"
            ),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Damaged { .. }
            | Self::Direct { .. }
            | Self::Foreign { .. }
            | Self::Headless { .. }
            | Self::Held { .. }
            | Self::Missing { .. }
            | Self::Newer { .. }
            | Self::Options { .. }
            | Self::OtherShard { .. }
            | Self::OtherStore { .. }
            | Self::Stopped { .. } => None,
        }
    }
}
