//! Where audit entries go: append-only segments beside the Raft log.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use seams::Disk;
use state::AuditEntry;
use store::{Drive, LogError, LogOptions, LogReader, LogWriter, completion};

use crate::lock;

/// Takes the audit entries that `apply` emits, in the order of their sequence, from the task that applies.
///
/// Replay at start emits entries again that are stored already: a sink keeps each audit sequence once.
pub trait AuditSink: Send + Sync + 'static {
    /// How many entries of the audit chain this sink holds or has passed, durably as of its opening: a copy of the state that
    /// accounts for more is not used at start, since only replay makes the missing entries.
    fn held(&self) -> u64;

    /// Takes the entries of a batch. They need not be durable yet: the log that they come from is.
    ///
    /// # Errors
    /// What the disk says; the voter then stops, for mutations must not go unaudited.
    fn emit<'a>(&'a self, entries: &'a [AuditEntry]) -> BoxFuture<'a, io::Result<()>>;

    /// Makes all entries so far durable: called before the log below a snapshot may be purged.
    ///
    /// # Errors
    /// What the disk says; the snapshot is then not made, and the voter stops.
    fn flush(&self) -> BoxFuture<'_, io::Result<()>>;

    /// Flushes and ends; no call follows. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    fn close(&self) -> io::Result<()>;

    /// With [`Drive::Manual`]: writes one group; false when nothing waits.
    fn run_pending(&self) -> bool {
        false
    }
}

/// A sink that drops everything, for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

impl AuditSink for NoAudit {
    fn held(&self) -> u64 {
        u64::MAX
    }

    fn emit<'a>(&'a self, _entries: &'a [AuditEntry]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn flush(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink that stores each entry under its audit sequence in a segment log.
///
/// A voter that got its state by a snapshot has a gap in its own copy of the chain (others hold what is missing). The log after
/// a gap is a new one: `from-N` holds the entries from sequence N on, without gaps.
pub struct AuditLog {
    disk: Arc<dyn Disk>,
    /// As given; the folder holds the logs' folders.
    options: LogOptions,
    drive: Drive,
    held: u64,
    current: Mutex<Current>,
}

#[derive(Clone)]
struct Current {
    writer: LogWriter,
    reader: LogReader,
    /// The log index 0 stands for this sequence.
    from: u64,
}

impl Current {
    fn open(disk: &Arc<dyn Disk>, options: &LogOptions, from: u64, drive: Drive) -> Result<Self, LogError> {
        let options = LogOptions { folder: options.folder.join(format!("from-{from:020}")), ..options.clone() };
        let (writer, reader) = LogWriter::open(disk.clone(), options, drive)?;
        Ok(Self { writer, reader, from })
    }

    fn next(&self) -> u64 {
        self.from + self.reader.next_index()
    }
}

/// Audit sequences count from 1.
const FIRST_SEQUENCE: u64 = 1;

impl AuditLog {
    /// Opens the newest log in `folder`, or creates the first. Blocks.
    ///
    /// # Errors
    /// [`LogError`]: the disk, or damage.
    pub fn open(disk: Arc<dyn Disk>, folder: impl Into<PathBuf>, drive: Drive) -> Result<Self, LogError> {
        Self::open_with(disk, LogOptions::new(folder), drive)
    }

    /// As [`AuditLog::open`], with other sizes of segments, caches and queues.
    ///
    /// # Errors
    /// As of [`AuditLog::open`].
    pub fn open_with(disk: Arc<dyn Disk>, options: LogOptions, drive: Drive) -> Result<Self, LogError> {
        let names = match disk.list(&options.folder) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(LogError::Io { operation: "list", file: options.folder, source: error }),
        };
        let from = names.iter().filter_map(|name| name.strip_prefix("from-")?.parse().ok()).max().unwrap_or(FIRST_SEQUENCE);
        let current = Current::open(&disk, &options, from, drive)?;
        Ok(Self { held: current.next() - FIRST_SEQUENCE, disk, options, drive, current: Mutex::new(current) })
    }

    /// The entries of the log without gaps that is being written, by sequence; for export and verification. Blocks.
    ///
    /// # Errors
    /// [`LogError`] of the disk.
    pub fn read(&self, sequences: std::ops::Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, Arc<LogError>> {
        let current = lock(&self.current).clone();
        let range = sequences.start.saturating_sub(current.from)..sequences.end.saturating_sub(current.from);
        Ok(current.reader.read(range, bytes_max)?.into_iter().map(|(index, entry)| (current.from + index, entry)).collect())
    }

    /// Goes on after a gap. The log before it stays where it is.
    fn skip_to(&self, sequence: u64) -> io::Result<Current> {
        let next = Current::open(&self.disk, &self.options, sequence, self.drive).map_err(io::Error::other)?;
        let before = std::mem::replace(&mut *lock(&self.current), next.clone());
        before.writer.close().map_err(io::Error::other)?;
        Ok(next)
    }
}

impl AuditSink for AuditLog {
    fn held(&self) -> u64 {
        self.held
    }

    fn emit<'a>(&'a self, entries: &'a [AuditEntry]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut current = lock(&self.current).clone();
            let fresh = entries.iter().position(|entry| entry.sequence >= current.next()).map_or(&entries[..0], |from| &entries[from..]);
            let Some(first) = fresh.first() else { return Ok(()) };
            if first.sequence > current.next() {
                current = self.skip_to(first.sequence)?;
            }
            let records = fresh.iter().map(AuditEntry::encode).collect();
            current.writer.append(first.sequence - current.from, records, Box::new(|_| ())).await.map_err(io::Error::other)
        })
    }

    fn flush(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let current = lock(&self.current).clone();
            let (done, durable) = completion();
            // A purge of nothing takes its turn behind all entries before it; unlike an append it names no index.
            current.writer.purge_before(0, Bytes::new(), done).await.map_err(io::Error::other)?;
            durable.await.map_err(io::Error::other)
        })
    }

    fn run_pending(&self) -> bool {
        lock(&self.current).writer.run_pending()
    }

    fn close(&self) -> io::Result<()> {
        let current = lock(&self.current).clone();
        current.writer.close().map_err(io::Error::other)
    }
}
