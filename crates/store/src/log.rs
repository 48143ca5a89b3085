//! The segment log: numbered records in append-only files, made durable in groups. It is the Raft log of a voter and the log
//! of change sets of an edge.
//!
//! [`LogWriter`] takes operations and makes them visible at once; whoever drives the log ([`Drive`]) drains the queue, and hands
//! the group to [`SegmentLog`], which turns it into one block, one write and one fdatasync; then each operation's [`Done`] is
//! called. [`LogReader`] reads what is visible, from memory or disk.
//!
//! # The files of a log's folder
//! All numbers are little-endian; CRC means CRC32C.
//!
//! `%016x.seg`: a segment, named by its number, preallocated with zeros, never used again. Older ones are whole; blocks are added
//! to the last.
//! ```text
//! segment header, 512 bytes
//! 0      8    "CNBRSEG" 0
//! 8      4    format, 1
//! 12     4    chain: CRC of the last block header of the segment before; 0 in the first
//! 16     8    segment number, from 1
//! 24     8    length of the file in bytes
//! 32     476  zeros
//! 508    4    CRC of bytes 0 to 508 (here in every later format too)
//!
//! block, at a multiple of 512; blocks follow each other without gaps, then zeros
//! 0      4    "CNBB"
//! 4      4    length of the payload in bytes, at least 1
//! 8      4    count of records
//! 12     4    chain: CRC of the header of the block before, in the first block that of the segment header
//! 16     4    CRC of payload and padding
//! 20     4    CRC of segment number (8), offset in the file (8) and bytes 0 to 20
//! 24     n    payload: records one after the other
//! 24+n        zeros to the next multiple of 512
//!
//! record
//! 1  entry:    index 8, length 4, CRC of index and bytes 4, bytes
//! 2  truncate: index 8; entries from it on are gone
//! 3  purge:    index 8, length 2, note; entries before it are gone
//! 4  slot:     slot 1 (0 vote, 1 committed), sequence 8, length 2, bytes
//! 5  carry:    next index 8, first index 8, length 2, note; the first record of each segment, then the slots
//! ```
//!
//! `marks`: two places of 4,096 bytes, at 0 and 4,096. The valid one with the higher sequence counts.
//! ```text
//! 0      4    "CNBM"
//! 4      4    format, 1
//! 8      8    sequence
//! 16     8    mark: segment; 0 before the first block
//! 24     8    mark: offset up to which that segment is known to be durable
//! 32     4    mark: chain there
//! 36          vote, then committed: sequence 8 (0: none), length 2, bytes
//! ...         zeros
//! 4092   4    CRC of place number (8) and bytes 0 to 4092 (here in every later format too)
//! ```
//! `%016x.new` and `marks.new` are files in the making; they are removed when the log is opened.
//!
//! # Torn or damaged
//! One block is in flight at a time: the next is written only after fdatasync of the one before has returned. So a crash can tear
//! the last block alone. When a block does not check, it is cut as torn only if all of this holds; else the log refuses to open:
//! it lies in the last segment; it lies behind the mark, which is written after each fdatasync (without a sync of its own, but
//! synced at each vote, purge, and close); nothing follows the block's length; and no valid block header stands anywhere behind.
//! What is cut is overwritten with zeros, so that it cannot come back.
//!
//! What remains: a last block, acknowledged, whose mark was not on the medium at power loss, and which then rots, looks torn.
//!
//! **Invariants**
//! 1. An operation whose `done` was called with success survives a crash, unless a later operation undoes it.
//! 2. Operations become durable in the order in which they became visible, none without those before it.
//! 3. Entries are contiguous.
//! 4. A segment is unlinked only when a durable purge covers all its entries.
//!
//! **Concurrency**: handles are cheap clones over one mutex that is never held during I/O. Senders wait while the queue is full.
//! `done` runs on the thread that writes and must not block.
//!
//! **Failure**: the first failed write or sync, a full disk included, stops the log: every later operation and read fails with
//! [`LogError::Stopped`], since nothing is known of what reached the disk. The node must be restarted.
//!
//! **Left out**: locking the folder against a second process (the data folder has a lock of its own).

mod error;
mod format;
mod marks;
mod reader;
mod recover;
mod segments;
mod view;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

pub use error::LogError;
pub use reader::LogReader;
pub use recover::{Cut, Recovered};
pub use segments::{Located, Operation, SegmentLog};
pub use writer::LogWriter;

/// The longest slot value or purge note.
pub const SMALL_BYTES_MAX: usize = 1024;

/// The longest entry: twice the largest command.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;

/// Called once, when an operation is durable or has failed, on the thread that writes. It must not block.
pub type Done = Box<dyn FnOnce(Result<(), Arc<LogError>>) + Send>;

/// A [`Done`] and the future that it completes.
pub fn completion() -> (Done, Completion) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done: Done = Box::new(move |result| {
        let _ = sender.send(result);
    });
    (done, Completion(receiver))
}

/// Completes when the operation is durable or has failed. Dropping it cancels nothing.
#[derive(Debug)]
pub struct Completion(tokio::sync::oneshot::Receiver<Result<(), Arc<LogError>>>);

impl Future for Completion {
    type Output = Result<(), Arc<LogError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|received| received.unwrap_or_else(|_| Err(Arc::new(LogError::Closed))))
    }
}

/// Small values kept beside the entries, the newest of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The Raft vote: durable when its `done` is called.
    Vote,
    /// A hint how far the log was known to be committed. Its `done` is called when it would survive the end of the process; it
    /// survives a power loss with the next group at the latest, so that it costs no sync of its own. It may lie past the last entry.
    Committed,
}

impl Slot {
    const ALL: [Self; 2] = [Self::Vote, Self::Committed];

    const fn number(self) -> usize {
        match self {
            Self::Vote => 0,
            Self::Committed => 1,
        }
    }
}

/// Who writes what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// A thread of its own, with group commit.
    Thread,
    /// The caller, within each call: what returned is durable. For simulation.
    Inline,
    /// Nobody, until `run_pending` is called. For simulation of crashes between visible and durable.
    Manual,
}

/// Where a log lies and how large its parts are.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The folder; created if missing. It belongs to this log alone.
    pub folder: PathBuf,
    /// What metrics call it: the label `log`.
    pub name: &'static str,
    /// The size of a segment file, 4 KiB to 2 GiB; a larger block gets a larger segment.
    pub segment_bytes: u64,
    /// How many bytes of recent durable entries stay in memory.
    pub cache_bytes_max: usize,
    /// How many bytes may wait for the disk; senders wait beyond it.
    pub queue_bytes_max: usize,
    /// How many bytes one group takes at most (a single larger append still goes in one).
    pub group_bytes_max: usize,
}

impl LogOptions {
    /// The defaults, in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            name: "other",
            segment_bytes: 32 << 20,
            cache_bytes_max: 32 << 20,
            queue_bytes_max: 32 << 20,
            group_bytes_max: 4 << 20,
        }
    }
}
