//! The audit log: the entries that `apply` emits, in append-only files beside the Raft log, bounded by age and size.
//!
//! Each entry follows from an entry of the Raft log, which is durable, so nobody waits for it: [`AuditSink::emit`] keeps it in
//! memory, and [`AuditSink::sync`] writes all that waits with one fdatasync. What a crash takes is made again when the log is
//! replayed, and an entry that is stored already is passed over by its sequence.
//!
//! **Invariants**
//! 1. No copy of the state that accounts for an entry is durable before the entry is: neither a record of the table ([`Audited`])
//!    nor a snapshot file. So replay, which begins at such a copy, makes every entry that is not stored; and the Raft log, which is
//!    purged below a snapshot file only, is cut only below entries that are stored.
//! 2. A stored sequence is never stored again.
//! 3. What is cut leaves a record of where the chain goes on ([`AuditCut`]), signed by the node, and durable before the first file goes.
//!    The newest hash of the chain is in the state itself. So what is kept is verified without a cluster ([`verify_entries`]).
//!
//! **Concurrency**: `emit` comes from the task that applies, and takes a lock that is never held during I/O. `sync` blocks: it runs
//! on the table's thread, or where blocking work runs.
//!
//! **Failure**: the first failure of the disk is kept: every later call fails with it, and the voter stops, for mutations must not
//! go unaudited.
//!
//! **Left out**: filters, and who may read what: these are the control node's.

mod parts;
mod proof;

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use seams::{Disk, Table, TableBatch, TableError, TableRead};
use state::AuditEntry;
use store::LogError;
use types::{Hash, LogIndex, UnixMillis};

use crate::lock;
use parts::{Lent, Parts};
pub use proof::{AuditFault, CutSignature, CutSigner, audit_head_signing_bytes, verify_entries};

/// Takes the audit entries that `apply` emits, in the order of their sequence, from the task that applies.
///
/// Replay at start emits entries again that are stored already: a sink keeps each audit sequence once.
pub trait AuditSink: Send + Sync + 'static {
    /// How many entries of the audit chain this sink holds or has passed, durably as of its opening: a copy of the state that
    /// accounts for more is not used at start, since only replay makes the missing entries.
    fn held(&self) -> u64;

    /// Takes the entries of a batch, of which there may be none; `now` is log time after it. Does no I/O. Says whether
    /// [`AuditSink::sync`] is due before more comes, because much or old is waiting.
    ///
    /// # Errors
    /// The failure of an earlier sync; the voter then stops.
    fn emit(&self, entries: Vec<AuditEntry>, now: UnixMillis) -> io::Result<bool>;

    /// Makes all entries so far durable, and cuts what is over the bounds. Called before a snapshot file is written, and before the
    /// table is. Blocks.
    ///
    /// # Errors
    /// What the disk says; the snapshot file is then not made, the table not written, and the voter stops.
    fn sync(&self) -> io::Result<()>;

    /// Syncs and ends; no call follows. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    fn close(&self) -> io::Result<()>;
}

/// A sink that drops everything, for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

impl AuditSink for NoAudit {
    fn held(&self) -> u64 {
        u64::MAX
    }

    fn emit(&self, _entries: Vec<AuditEntry>, _now: UnixMillis) -> io::Result<bool> {
        Ok(false)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the audit log lies, and how much of it is kept.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// The folder; created when missing. It belongs to the audit log alone.
    pub folder: PathBuf,
    /// Bytes on disk. Over it the oldest part goes, about a sixteenth.
    pub bytes_max: u64,
    /// How old an entry may become, in log time; none: as old as there is room. What is older goes within a sixteenth of it.
    pub age_max: Option<Duration>,
}

/// 1 GiB: some three million mutations.
const BYTES_MAX: u64 = 1 << 30;
/// Ninety days: a quarter's review finds the quarter.
const AGE_MAX: Duration = Duration::from_secs(90 * 86_400);

impl AuditOptions {
    /// The defaults, 1 GiB and 90 days, in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), bytes_max: BYTES_MAX, age_max: Some(AGE_MAX) }
    }
}

/// What is left of the entries that were cut: the last of them. The first that is kept names `hash` as its previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditCut {
    /// Its number: all up to it are gone.
    pub sequence: u64,
    /// Its hash; zeros when its file was damaged.
    pub hash: Hash,
    /// The index of its command in the Raft log; 0 when its file was damaged.
    pub index: LogIndex,
    /// Its log time.
    pub time: UnixMillis,
    /// By whom the record is; none where the log was opened without a signer.
    pub signature: Option<CutSignature>,
}

/// A sink that keeps entries in files, in the order of their sequence.
///
/// A voter that got its state by a snapshot has a gap in its own copy of the chain; others hold what is missing.
pub struct AuditLog {
    held: u64,
    waiting: Mutex<Waiting>,
    parts: Mutex<Parts>,
}

/// What is in memory only.
struct Waiting {
    entries: VecDeque<AuditEntry>,
    weight: usize,
    /// The sequence that comes next; 0 while nothing is held, when any may come.
    next: u64,
    /// Log time.
    now: UnixMillis,
    /// Log time when something should be done though little waits.
    due: UnixMillis,
    failed: Option<String>,
}

/// Entries wait at most this long in log time, where no table asks for a sync sooner.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// Entries in memory weigh at most this much, and what one batch brings.
const WAITING_WEIGHT_MAX: usize = 4 << 20;
/// What an entry weighs beside the secrets that it names.
const ENTRY_WEIGHT: usize = 512;

fn weight(entry: &AuditEntry) -> usize {
    ENTRY_WEIGHT + 16 * entry.target.secrets.len()
}

impl AuditLog {
    /// Opens the log in its folder, or creates it. Reads its newest part: blocks.
    ///
    /// # Errors
    /// [`LogError`]: the disk, or damage.
    pub fn open(disk: Arc<dyn Disk>, options: AuditOptions) -> Result<Self, LogError> {
        Self::open_signing(disk, options, None)
    }

    /// As [`AuditLog::open`], with who signs the records of cuts.
    ///
    /// # Errors
    /// As [`AuditLog::open`].
    pub fn open_signing(disk: Arc<dyn Disk>, options: AuditOptions, signer: Option<Arc<dyn CutSigner>>) -> Result<Self, LogError> {
        let parts = Parts::open(disk, options, signer)?;
        let next = parts.next();
        let waiting = Waiting {
            entries: VecDeque::new(),
            weight: 0,
            next,
            now: UnixMillis::default(),
            due: parts.too_old_at().unwrap_or(UnixMillis::new(u64::MAX)),
            failed: None,
        };
        Ok(Self { held: next.saturating_sub(1), waiting: Mutex::new(waiting), parts: Mutex::new(parts) })
    }

    /// The stored entries of a range of sequences, in order, until `bytes_max` is reached; at least one if there is one. Those that
    /// were cut, or that this voter never had, are missing. Blocks; what is written waits only while a part is opened.
    ///
    /// # Errors
    /// [`LogError`] of the disk.
    pub fn read(&self, sequences: std::ops::Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, Arc<LogError>> {
        let (mut entries, mut bytes, mut at) = (Vec::new(), 0, sequences.start);
        while at < sequences.end && (bytes < bytes_max || entries.is_empty()) {
            let Some(Lent { from, end, reader }) = lock(&self.parts).holding(at)? else { break };
            let range = at.saturating_sub(from)..sequences.end.saturating_sub(from);
            for (place, entry) in reader.read(range, bytes_max - bytes.min(bytes_max))? {
                bytes += entry.len();
                entries.push((from + place, entry));
            }
            at = end;
        }
        Ok(entries)
    }

    /// The last `count_max` of the stored entries of a range of sequences, in order; fewer where they lie in two parts, none if there is
    /// none. Blocks.
    ///
    /// # Errors
    /// [`LogError`] of the disk.
    pub fn read_last(&self, sequences: std::ops::Range<u64>, count_max: u64) -> Result<Vec<(u64, Bytes)>, Arc<LogError>> {
        let mut high = sequences.end;
        while sequences.start < high {
            let Some(Lent { from, reader, .. }) = lock(&self.parts).before(high)? else { break };
            let end = (from + reader.next_index()).min(high);
            let start = end.saturating_sub(count_max).max(from).max(sequences.start);
            if start < end {
                let entries = reader.read(start - from..end - from, usize::MAX)?;
                return Ok(entries.into_iter().map(|(place, entry)| (from + place, entry)).collect());
            }
            high = from;
        }
        Ok(Vec::new())
    }

    /// Entries that are held in memory only are written now, so that [`AuditLog::read`] has all that was
    /// emitted. Blocks.
    ///
    /// # Errors
    /// As [`AuditSink::sync`].
    pub fn settle(&self) -> io::Result<()> {
        // What another call took out it writes under the lock of the parts, for which whoever reads waits.
        if lock(&self.waiting).entries.is_empty() { self.failed() } else { self.sync() }
    }

    /// The sequences between which entries are stored, of which some may be missing: of the first, and of the one that comes next.
    pub fn bounds(&self) -> (u64, u64) {
        let parts = lock(&self.parts);
        (parts.first(), parts.next())
    }

    /// The sequence of the first stored entry that is of this time or later; past the end if there is none. Blocks.
    ///
    /// # Errors
    /// [`LogError`] of the disk.
    pub fn seek(&self, time: UnixMillis) -> Result<u64, Arc<LogError>> {
        // Of two statements, so that the lock is not held while the disk is read.
        let part = lock(&self.parts).begun_before(time)?;
        let Some(Lent { from, reader, .. }) = part else { return Ok(lock(&self.parts).first()) };
        let (mut low, mut high) = (0, reader.next_index());
        while low < high {
            let middle = low.midpoint(high);
            let stored = reader.read(middle..middle + 1, 1)?.pop();
            let entry = stored.map(|(_, stored)| lock(&self.parts).decode("a part", &stored)).transpose()?;
            if entry.is_some_and(|entry| entry.time < time) { low = middle + 1 } else { high = middle }
        }
        Ok(from + low)
    }

    /// Where the log was cut last, if it was.
    pub fn cut(&self) -> Option<AuditCut> {
        lock(&self.parts).cut()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        lock(&self.parts).bytes()
    }

    fn failed(&self) -> io::Result<()> {
        lock(&self.waiting).failed.clone().map_or(Ok(()), |failed| Err(io::Error::other(failed)))
    }
}

impl AuditSink for AuditLog {
    fn held(&self) -> u64 {
        self.held
    }

    fn emit(&self, entries: Vec<AuditEntry>, now: UnixMillis) -> io::Result<bool> {
        self.failed()?;
        let mut waiting = lock(&self.waiting);
        waiting.now = waiting.now.max(now);
        for entry in entries {
            // Replay brings what is stored, or waits, once more.
            if entry.sequence < waiting.next {
                continue;
            }
            if waiting.entries.is_empty() {
                waiting.due = waiting.due.min(now.plus(SYNC_AFTER));
            }
            waiting.next = entry.sequence + 1;
            waiting.weight += weight(&entry);
            waiting.entries.push_back(entry);
        }
        Ok(waiting.weight >= WAITING_WEIGHT_MAX || waiting.now >= waiting.due)
    }

    fn sync(&self) -> io::Result<()> {
        // Held all along, so that entries are stored in the order in which they are taken out.
        let mut parts = lock(&self.parts);
        self.failed()?;
        let (entries, now) = {
            let mut waiting = lock(&self.waiting);
            waiting.weight = 0;
            (std::mem::take(&mut waiting.entries), waiting.now)
        };
        let stored = parts.store(entries).and_then(|()| parts.keep_bounds(now));
        let mut waiting = lock(&self.waiting);
        if let Err(error) = &stored {
            waiting.failed = Some(format!("the audit log has stopped: {}", crate::error::chain(error)));
        }
        waiting.due = parts.too_old_at().unwrap_or(UnixMillis::new(u64::MAX));
        if !waiting.entries.is_empty() {
            waiting.due = waiting.due.min(waiting.now.plus(SYNC_AFTER));
        }
        stored.map_err(io::Error::other)
    }

    fn close(&self) -> io::Result<()> {
        self.sync()?;
        lock(&self.parts).close().map_err(io::Error::other)
    }
}

/// A table that is written only when the audit entries that its records account for are durable.
pub(crate) struct Audited {
    pub(crate) table: Box<dyn Table>,
    pub(crate) audit: Arc<dyn AuditSink>,
}

impl Table for Audited {
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
        self.table.scan(visit)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.table.get(key)
    }

    fn write(&mut self, batch: &TableBatch) -> Result<(), TableError> {
        self.audit.sync().map_err(|error| TableError::Failed { operation: "audit", source: Box::new(error) })?;
        self.table.write(batch)
    }

    fn flush(&mut self) -> Result<(), TableError> {
        self.table.flush()
    }

    fn disk_bytes(&self) -> u64 {
        self.table.disk_bytes()
    }

    fn reader(&self) -> Arc<dyn TableRead> {
        self.table.reader()
    }
}
