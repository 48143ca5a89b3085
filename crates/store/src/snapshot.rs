//! Snapshot files: all records of a state at one moment, in a plain file that can be checked without a cluster.
//!
//! [`SnapshotWriter`] streams records into a file beside the others; finished, it is made durable and gets its name, so that a
//! file with a name is whole unless the disk damaged it. [`SnapshotReader`] streams them back. [`SnapshotFolder`] holds several
//! and finds the newest that is whole.
//!
//! # The file
//! `%032x.snap`, named by its order; `%032x.new` while it is written. Numbers are little-endian, CRC means CRC32C.
//! ```text
//! header
//! 0      8    "CNBSNAP" 0
//! 8      4    format, 1
//! 12     4    length of meta, at most 1 MiB
//! 16     16   order
//! 32     4    CRC of bytes 0 to 32 and of meta (here in every later format too)
//! 36     n    meta, the caller's
//!
//! chunk, any number of them
//! 0      4    "CNBC"
//! 4      4    chunk number, from 0
//! 8      4    length of the payload: the chunk ends with the record that takes it to 256 KiB
//! 12     4    count of records
//! 16     4    CRC of bytes 0 to 16 and of the payload
//! 20          payload, per record: key length 4, value length 4, key, value
//!
//! footer, the last 60 bytes
//! 0      4    "CNBF"
//! 4      4    count of chunks
//! 8      8    count of records
//! 16     8    length of the file before the footer
//! 24     32   SHA-256 of all bytes before the footer
//! 56     4    CRC of bytes 0 to 56
//! ```
//!
//! **Invariants**
//! 1. A file gets its name only after its bytes are durable.
//! 2. Only after [`SnapshotReader::next_chunk`] returned none is it known that nothing is missing: until then, what was read is
//!    not to be used.
//!
//! **Failure**: a damaged file is reported and passed over; one of a newer format refuses to be read and says so.
//!
//! **Left out**: what the records mean and who signed them; `meta` carries that for the caller.

mod folder;
mod format;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

use bytes::Bytes;
pub use folder::SnapshotFolder;
pub use format::{KEY_BYTES_MAX, META_BYTES_MAX, VALUE_BYTES_MAX};
pub use read::SnapshotReader;
pub use write::SnapshotWriter;

/// What a snapshot file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The file.
    pub path: PathBuf,
    /// What orders snapshots: the larger is the newer. A log index, or `generation << 64 | revision`.
    pub order: u128,
    /// The caller's bytes from the header.
    pub meta: Bytes,
    /// How many records it holds.
    pub records: u64,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of everything before the footer.
    pub hash: [u8; 32],
}

/// Why a snapshot file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system failed.
    #[error("snapshot: {operation} {file} failed")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No space is left. The file in the making was removed; those before it are untouched.
    #[error("snapshot: {operation} {file}: the disk is full; free space, the next snapshot tries again")]
    Full {
        /// What was being done.
        operation: &'static str,
        /// The file.
        file: PathBuf,
    },
    /// What is stored is not what was written.
    #[error("snapshot {file} is damaged at offset {offset}: {detail}; an older one, or a peer, has to serve")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        detail: &'static str,
    },
    /// Written by a newer version than this.
    #[error("snapshot {file} has format {found}, newest known here is {known}: start the newer Cinnabar that wrote it")]
    Newer {
        /// The file.
        file: PathBuf,
        /// The format found.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// Too many bytes.
    #[error("snapshot: {what} of {got} bytes, at most {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The limit.
        max: usize,
    },
}

impl SnapshotError {
    fn io(operation: &'static str, file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { operation, file },
            _ => Self::Io { operation, file, source },
        }
    }
}
