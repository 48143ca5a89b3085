//! Why a log failed, and what to do.

use std::{io, path::PathBuf, sync::Arc};

/// Why a log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system failed.
    #[error("log: {operation} {file} failed")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No space is left.
    #[error("log: {operation} {file}: the disk is full; free space, then restart the node")]
    Full {
        /// What was being done.
        operation: &'static str,
        /// The file.
        file: PathBuf,
    },
    /// What is stored is not what was written. Nothing was cut.
    #[error(
        "log {file} is damaged at offset {offset}: {detail}. Nothing was cut. Replace a voter from its peers under a new identity; \
         on an edge, move the log's folder aside and let it sync again"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        detail: String,
    },
    /// Written by a newer version than this.
    #[error("log {file} has format {found}, newest known here is {known}: start the newer Cinnabar that wrote it")]
    Newer {
        /// The file.
        file: PathBuf,
        /// The format found.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// A write or sync failed, now or earlier; nothing is known since of what is durable.
    #[error("log: stopped by a failure; restart the node when its cause is gone")]
    Stopped(#[source] Arc<LogError>),
    /// It was closed.
    #[error("log: closed")]
    Closed,
    /// The thread that writes ended unexpectedly.
    #[error("log: the writing thread ended unexpectedly; restart the node")]
    WriterDied,
    /// An index that does not follow. Nothing was done.
    #[error("log: the next index is {expected}, got {got}")]
    Gap {
        /// The index that would follow.
        expected: u64,
        /// The index that came.
        got: u64,
    },
    /// An index that was purged already. Nothing was done.
    #[error("log: index {index} was purged, the first is {first}")]
    Purged {
        /// The index asked for.
        index: u64,
        /// The first that is held.
        first: u64,
    },
    /// Too many bytes. Nothing was done.
    #[error("log: {what} of {got} bytes, at most {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// An option out of its range.
    #[error("log: option {option} must be {expected}, is {got}")]
    Option {
        /// Which one.
        option: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: u64,
    },
}

impl LogError {
    pub(super) fn io(operation: &'static str, file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { operation, file },
            _ => Self::Io { operation, file, source },
        }
    }
}
