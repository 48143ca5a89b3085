//! The synchronous core of the log: turns a group of operations into one durable block.

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use bytes::Bytes;
use seams::{Disk, DiskFile, OpenMode};

use super::{
    LogError, LogOptions, Slot,
    format::{ALIGN, BlockBuilder, ENTRY_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, block_len},
    marks::{Mark, Marks, SlotValue},
    recover,
};

/// One change of the log.
#[derive(Clone)]
pub enum Operation {
    /// Entries at `first`, which must be the next index.
    Append {
        /// The index of the first one.
        first: u64,
        /// The entries.
        entries: Vec<Bytes>,
    },
    /// Entries from this index on are gone.
    Truncate {
        /// The first that goes.
        from: u64,
    },
    /// Entries before this index are gone; it may lie past the end.
    Purge {
        /// The first that stays.
        before: u64,
        /// Kept with the mark, at most [`super::SMALL_BYTES_MAX`].
        note: Bytes,
    },
    /// A slot gets a value.
    Slot {
        /// Which one.
        slot: Slot,
        /// The value, at most [`super::SMALL_BYTES_MAX`].
        bytes: Bytes,
    },
}

impl Operation {
    /// An upper bound of its bytes in a block.
    pub(super) fn encoded_len(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(|entry| ENTRY_HEADER_BYTES + entry.len()).sum(),
            Self::Truncate { .. } => 9,
            Self::Purge { note, .. } => 11 + note.len(),
            Self::Slot { bytes, .. } => 12 + bytes.len(),
        }
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Append { first, entries } => write!(f, "Append({} at {first})", entries.len()),
            Self::Truncate { from } => write!(f, "Truncate(from {from})"),
            Self::Purge { before, .. } => write!(f, "Purge(before {before})"),
            Self::Slot { slot, bytes } => write!(f, "Slot({slot:?}, {} bytes)", bytes.len()),
        }
    }
}

/// Where an entry lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The segment's number.
    pub segment: u64,
    /// Where its bytes begin in the file.
    pub offset: u32,
    /// How many they are.
    pub len: u32,
}

/// What the blocks so far amount to.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) note: Bytes,
    pub(super) slots: [SlotValue; 2],
}

pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
    /// The highest entry that lives in it.
    pub(super) last: Option<u64>,
}

/// The files of a log, open for writing. Its caller serialises everything; see [`super::LogWriter`].
pub struct SegmentLog {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: PathBuf,
    /// What metrics call it.
    pub(super) name: &'static str,
    pub(super) segment_bytes: u64,
    /// Oldest first; the last one is written.
    pub(super) segments: VecDeque<Segment>,
    pub(super) offset: u64,
    pub(super) chain: u32,
    pub(super) marks: Marks,
    pub(super) summary: Summary,
    /// Whether the committed hint is newer than the last block.
    pub(super) hint_pending: bool,
    pub(super) spare: Option<(u64, Arc<dyn DiskFile>)>,
    /// No spare is prepared again for this segment number: it failed.
    pub(super) spare_failed: u64,
    pub(super) block: BlockBuilder,
    pub(super) stopped: Option<Arc<LogError>>,
}

impl Segment {
    pub(super) fn truncate(&mut self, from: u64) {
        let last_left = from.checked_sub(1);
        self.last = self.last.and_then(|last| last_left.map(|left| last.min(left)));
    }
}

pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

impl SegmentLog {
    /// Opens or creates the log; returns with it what its blocks hold.
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Newer`], [`LogError::Io`], [`LogError::Full`], [`LogError::Option`].
    pub fn open(disk: Arc<dyn Disk>, options: &LogOptions) -> Result<(Self, recover::Recovered), LogError> {
        if !(4096..=1 << 31).contains(&options.segment_bytes) {
            return Err(LogError::Option { option: "segment_bytes", expected: "4 KiB to 2 GiB", got: options.segment_bytes });
        }
        recover::open(disk, options)
    }

    /// Makes a group of operations durable: one block, one write, one sync. Returns where each entry lies, in order.
    ///
    /// # Errors
    /// [`LogError`]; after one, every later call fails with [`LogError::Stopped`].
    pub fn commit(&mut self, operations: &[Operation]) -> Result<Vec<Located>, LogError> {
        if let Some(cause) = &self.stopped {
            return Err(LogError::Stopped(cause.clone()));
        }
        self.try_commit(operations).map_err(|error| self.stop(error))
    }

    /// Makes the end of the log known as durable, so that later damage to its last block cannot pass for a torn write.
    ///
    /// # Errors
    /// [`LogError`], as of [`SegmentLog::commit`].
    pub fn finish(&mut self) -> Result<(), LogError> {
        if self.stopped.is_some() {
            return Ok(());
        }
        let done = if self.hint_pending { self.try_block(&[]).map(|_| ()) } else { Ok(()) };
        done.and_then(|()| self.marks.write(&self.mark())).and_then(|()| self.marks.sync()).map_err(|error| self.stop(error))
    }

    /// Records the failure; what is returned still tells the cause itself.
    fn stop(&mut self, error: LogError) -> LogError {
        let cause = Arc::new(error);
        self.stopped = Some(cause.clone());
        LogError::Stopped(cause)
    }

    fn try_commit(&mut self, operations: &[Operation]) -> Result<Vec<Located>, LogError> {
        for operation in operations {
            if let Operation::Slot { slot: Slot::Committed, bytes } = operation {
                self.set_slot(Slot::Committed, bytes);
                self.hint_pending = true;
            }
        }
        let is_hint = |operation: &Operation| matches!(operation, Operation::Slot { slot: Slot::Committed, .. });
        let located = if operations.iter().all(is_hint) { Vec::new() } else { self.try_block(operations)? };
        self.marks.write(&self.mark())?;
        let marked = |operation: &Operation| matches!(operation, Operation::Slot { slot: Slot::Vote, .. } | Operation::Purge { .. });
        if operations.iter().any(marked) {
            self.marks.sync()?;
        }
        self.unlink_purged()?;
        Ok(located)
    }

    fn try_block(&mut self, operations: &[Operation]) -> Result<Vec<Located>, LogError> {
        let hint = 12 + self.summary.slots[Slot::Committed.number()].bytes.len();
        let payload = hint as u64 + operations.iter().map(|operation| operation.encoded_len() as u64).sum::<u64>();
        self.block.clear();
        // The first block of a segment carries on what the ones before it amount to, so that they can be unlinked.
        let carry = 19 + self.summary.note.len() + self.summary.slots.iter().map(|slot| 12 + slot.bytes.len()).sum::<usize>();
        let room = |log: &Self| log.active().map_or(0, |segment| segment.len - log.offset);
        if block_len(payload + carry as u64) > room(self) && (block_len(payload) > room(self) || self.offset == SEGMENT_HEADER_BYTES) {
            self.roll(block_len(payload + carry as u64))?;
        }
        if self.offset == SEGMENT_HEADER_BYTES {
            self.push_carry();
        }
        let mut located = Vec::new();
        for operation in operations {
            self.push(operation, &mut located);
        }
        if self.hint_pending {
            let hint = &self.summary.slots[Slot::Committed.number()];
            self.block.slot(Slot::Committed, hint.sequence, &hint.bytes);
            self.hint_pending = false;
        }
        if !self.block.is_empty() {
            self.write_block()?;
        }
        Ok(located)
    }

    fn push_carry(&mut self) {
        self.block.carry(self.summary.next, self.summary.first, &self.summary.note);
        for slot in Slot::ALL {
            let value = &self.summary.slots[slot.number()];
            if value.sequence > 0 {
                self.block.slot(slot, value.sequence, &value.bytes);
            }
        }
    }

    fn push(&mut self, operation: &Operation, located: &mut Vec<Located>) {
        match operation {
            Operation::Append { first, entries } => {
                for (index, entry) in (*first..).zip(entries) {
                    let at = self.block.entry(index, entry);
                    let segment = self.active().map_or(0, |segment| segment.number);
                    located.push(Located { segment, offset: (self.offset + at) as u32, len: entry.len() as u32 });
                }
                self.summary.next = first + entries.len() as u64;
                if let Some(segment) = self.segments.back_mut()
                    && !entries.is_empty()
                {
                    segment.last = self.summary.next.checked_sub(1);
                }
            }
            Operation::Truncate { from } => {
                self.block.truncate(*from);
                self.summary.next = self.summary.next.min(*from);
                self.segments.iter_mut().for_each(|segment| segment.truncate(*from));
            }
            Operation::Purge { before, note } => {
                self.block.purge(*before, note);
                self.summary.first = *before;
                self.summary.next = self.summary.next.max(*before);
                self.summary.note = note.clone();
            }
            Operation::Slot { slot: Slot::Vote, bytes } => {
                let sequence = self.set_slot(Slot::Vote, bytes);
                self.block.slot(Slot::Vote, sequence, bytes);
            }
            // Pushed once, at the end of the block.
            Operation::Slot { slot: Slot::Committed, .. } => {}
        }
    }

    fn set_slot(&mut self, slot: Slot, bytes: &Bytes) -> u64 {
        let value = &mut self.summary.slots[slot.number()];
        value.sequence += 1;
        value.bytes = bytes.clone();
        value.sequence
    }

    fn write_block(&mut self) -> Result<(), LogError> {
        let Some(segment) = self.segments.back() else { return Err(LogError::Closed) };
        let (bytes, chain) = self.block.seal(segment.number, self.offset, self.chain);
        segment.file.write_all_at(bytes, self.offset).map_err(LogError::io("write", &segment.path))?;
        segment.file.sync_data().map_err(LogError::io("sync", &segment.path))?;
        metrics::counter!("cinnabar_log_groups_total", "log" => self.name).increment(1);
        self.offset += bytes.len() as u64;
        self.chain = chain;
        Ok(())
    }

    fn mark(&self) -> Mark {
        let segment = self.active().map_or(0, |segment| segment.number);
        Mark { segment, offset: self.offset, chain: self.chain, slots: self.summary.slots.clone() }
    }

    fn active(&self) -> Option<&Segment> {
        self.segments.back()
    }

    /// Starts the next segment, with room for a block of `block` bytes.
    fn roll(&mut self, block: u64) -> Result<(), LogError> {
        let number = self.active().map_or(0, |segment| segment.number) + 1;
        let len = self.segment_bytes.max(SEGMENT_HEADER_BYTES + block).next_multiple_of(ALIGN);
        let new = self.folder.join(format!("{number:016x}.new"));
        let file = match self.spare.take() {
            Some((spare_len, file)) if spare_len == len => file,
            other => {
                if other.is_some() {
                    self.disk.remove_file(&new).map_err(LogError::io("remove", &new))?;
                }
                self.preallocate(&new, len)?
            }
        };
        let (header, chain) = SegmentHeader { chain: self.chain, number, len }.encode();
        file.write_all_at(&header, 0).map_err(LogError::io("write", &new))?;
        file.sync_data().map_err(LogError::io("sync", &new))?;
        let path = self.folder.join(segment_name(number));
        self.disk.rename(&new, &path).map_err(LogError::io("rename", &new))?;
        self.disk.sync_dir(&self.folder).map_err(LogError::io("sync", &self.folder))?;
        self.segments.push_back(Segment { number, path, file, len, last: None });
        self.offset = SEGMENT_HEADER_BYTES;
        self.chain = chain;
        Ok(())
    }

    /// Zeros on the medium: a later fdatasync then has no length or extent to make durable, and what was never written reads as zeros.
    fn preallocate(&self, path: &PathBuf, len: u64) -> Result<Arc<dyn DiskFile>, LogError> {
        let file = self.disk.open(path, OpenMode::CreateNew).map_err(LogError::io("create", path))?;
        let zeros = vec![0; len.min(1 << 20) as usize];
        let mut at = 0;
        while at < len {
            let count = (len - at).min(zeros.len() as u64);
            file.write_all_at(&zeros[..count as usize], at).map_err(LogError::io("preallocate", path))?;
            at += count;
        }
        file.sync_data().map_err(LogError::io("sync", path))?;
        Ok(Arc::from(file))
    }

    /// Whether [`SegmentLog::prepare_spare`] has something to do.
    pub fn wants_spare(&self) -> bool {
        self.stopped.is_none()
            && self.spare.is_none()
            && self.active().is_some_and(|segment| self.offset > segment.len / 2 && self.spare_failed != segment.number)
    }

    /// Preallocates the next segment ahead of need, so that no group waits for it. A failure (a full disk) is not one of the log yet.
    pub fn prepare_spare(&mut self) {
        let Some(active) = self.active().map(|segment| segment.number) else { return };
        let path = self.folder.join(format!("{:016x}.new", active + 1));
        let len = self.segment_bytes.next_multiple_of(ALIGN);
        match self.preallocate(&path, len) {
            Ok(file) => self.spare = Some((len, file)),
            Err(error) => {
                self.spare_failed = active;
                let _ = self.disk.remove_file(&path);
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot preallocate the next log segment");
            }
        }
    }

    /// Removes the oldest segments as far as a durable purge covers them.
    pub(super) fn unlink_purged(&mut self) -> Result<(), LogError> {
        let mut removed = false;
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
            && oldest.last.is_none_or(|last| last < self.summary.first)
        {
            self.disk.remove_file(&oldest.path).map_err(LogError::io("remove", &oldest.path))?;
            self.segments.pop_front();
            removed = true;
        }
        if removed {
            self.disk.sync_dir(&self.folder).map_err(LogError::io("sync", &self.folder))?;
        }
        Ok(())
    }

    /// The numbers of the oldest and the newest segment; 0 when there is none.
    pub(super) fn numbers(&self) -> (u64, u64) {
        let number = |segment: Option<&Segment>| segment.map_or(0, |segment| segment.number);
        (number(self.segments.front()), number(self.segments.back()))
    }

    /// The open segments by number, for readers.
    pub(super) fn files(&self) -> impl Iterator<Item = (u64, &PathBuf, &Arc<dyn DiskFile>)> {
        self.segments.iter().map(|segment| (segment.number, &segment.path, &segment.file))
    }
}
