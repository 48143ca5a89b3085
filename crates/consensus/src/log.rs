//! openraft's log storage on the segment log.
//!
//! Every write goes through the one writer of the segment log, in order: votes, entries, truncation, purge mark and committed
//! hint. An append returns when its entries can be read, and calls back when they are durable; the store makes the groups.
//!
//! **Invariants**
//! 1. A vote is durable before [`RaftLogStorage::save_vote`] returns.
//! 2. Nothing is purged above the newest durable snapshot file ([`SnapshotMark`]).
//! 3. The committed hint costs no write of its own: it becomes durable with the next group of entries.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{Stream, stream};
use openraft::{LogState, OptionalSend, RaftLogReader, storage::RaftLogStorage};
use seams::mutation::{self, Mutation};
use store::{LogError, LogReader, LogWriter, Slot, completion};

use crate::{
    Runtime, format, lock,
    offload::Offload,
    raft::{Entry, IoFlushed, LogId, Types, Vote, log_id},
};

/// Bytes of entries that are read at a time for replication or for applying.
const READ_BYTES_MAX: usize = 2 << 20;

/// Bytes that go to the log in one append; openraft hands over all that waits at once, which may be more than the log takes.
const APPEND_BYTES_MAX: usize = 16 << 20;

/// Up to where a durable snapshot file reaches; none in openraft's own test suite, which has no files.
#[derive(Clone, Default)]
pub(crate) struct SnapshotMark(Option<Arc<Mutex<Option<u64>>>>);

impl SnapshotMark {
    pub(crate) fn new(index: Option<u64>) -> Self {
        Self(Some(Arc::new(Mutex::new(index))))
    }

    /// A file up to `index` is durable.
    pub(crate) fn raise(&self, index: u64) {
        if let Some(mark) = &self.0 {
            let mut mark = lock(mark);
            *mark = (*mark).max(Some(index));
        }
    }

    fn covers(&self, index: u64) -> bool {
        self.0.as_ref().is_none_or(|mark| *lock(mark) >= Some(index))
    }
}

/// The Raft log. Clones share it.
pub(crate) struct RaftLog<R> {
    writer: LogWriter,
    reader: LogReader,
    snapshots: SnapshotMark,
    offload: Offload<R>,
}

impl<R> Clone for RaftLog<R> {
    fn clone(&self) -> Self {
        Self { writer: self.writer.clone(), reader: self.reader.clone(), snapshots: self.snapshots.clone(), offload: self.offload }
    }
}

fn failed(error: Arc<LogError>) -> io::Error {
    io::Error::other(error)
}

fn malformed(error: format::FormatError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Splits records into appends of bounded size.
fn parts(records: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for record in records {
        if bytes + record.len() > APPEND_BYTES_MAX && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += record.len();
        if let Some(part) = parts.last_mut() {
            part.push(record);
        }
    }
    parts
}

impl<R: Runtime> RaftLog<R> {
    pub(crate) fn new(writer: LogWriter, reader: LogReader, snapshots: SnapshotMark, offload: Offload<R>) -> Self {
        Self { writer, reader, snapshots, offload }
    }

    /// The last purged entry.
    pub(crate) fn purged(&self) -> io::Result<Option<LogId>> {
        let note = self.reader.purge_note();
        if note.is_empty() { Ok(None) } else { format::decode_log_id(note).map(Some).map_err(malformed) }
    }

    /// The last entry, or the last purged one when there is none.
    pub(crate) async fn last(&self) -> io::Result<Option<LogId>> {
        let next = self.reader.next_index();
        match next.checked_sub(1) {
            Some(last) if next > self.reader.first_index() => Ok(self.read(last, next).await?.pop().map(|entry| entry.log_id)),
            _ => self.purged(),
        }
    }

    /// Whether nothing was ever written: no vote, no entry, no purge.
    pub(crate) fn is_pristine(&self) -> bool {
        self.reader.slot(Slot::Vote).is_none() && self.holds_nothing()
    }

    fn holds_nothing(&self) -> bool {
        self.reader.next_index() == self.reader.first_index() && self.reader.purge_note().is_empty()
    }

    fn vote(&self) -> io::Result<Option<Vote>> {
        self.reader.slot(Slot::Vote).map(format::decode_vote).transpose().map_err(malformed)
    }

    /// Entries of the range from its start, up to about [`READ_BYTES_MAX`]; at least one if the log holds the first.
    async fn read(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let records = match self.reader.cached(start..end, READ_BYTES_MAX).map_err(failed)? {
            Some(records) => records,
            None => {
                let reader = self.reader.clone();
                self.offload.run(move || reader.read(start..end, READ_BYTES_MAX).map_err(failed)).await?
            }
        };
        records.into_iter().map(|(index, record)| format::decode_entry(index, record).map_err(malformed)).collect()
    }

    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        (start.max(self.reader.first_index()), end.min(self.reader.next_index()))
    }
}

impl<R: Runtime> RaftLogReader<Types<R>> for RaftLog<R> {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(&mut self, range: B) -> io::Result<Vec<Entry>> {
        let (mut next, end) = self.bounds(&range);
        let mut entries = Vec::new();
        while next < end {
            let read = self.read(next, end).await?;
            let Some(last) = read.last() else { break };
            next = last.log_id.index + 1;
            entries.extend(read);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote()
    }

    /// One read of bounded size: what goes into one append call.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (start, end) = self.bounds(&(start..end));
        self.read(start, end).await
    }

    /// What is to be applied, read piece by piece: a follower that was away must not hold all of it in memory.
    async fn entries_stream<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: B,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend {
        let (start, end) = self.bounds(&range);
        let ahead = (self.clone(), start, end, Vec::new().into_iter());
        stream::try_unfold(ahead, |(log, mut next, end, mut entries): (Self, u64, u64, std::vec::IntoIter<Entry>)| async move {
            loop {
                if let Some(entry) = entries.next() {
                    next = entry.log_id.index + 1;
                    return Ok(Some((entry, (log, next, end, entries))));
                }
                if next >= end {
                    return Ok(None);
                }
                entries = log.read(next, end).await?.into_iter();
                if entries.len() == 0 {
                    return Ok(None);
                }
            }
        })
    }
}

impl<R: Runtime> RaftLogStorage<Types<R>> for RaftLog<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<R>>> {
        Ok(LogState { last_purged_log_id: self.purged()?, last_log_id: self.last().await? })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if mutation::is_on(Mutation::VoteForgotten) {
            return Ok(());
        }
        let (done, durable) = completion();
        self.writer.write_slot(Slot::Vote, format::encode_vote(vote), done).await.map_err(failed)?;
        durable.await.map_err(failed)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let bytes = committed.as_ref().map(format::encode_log_id).unwrap_or_default();
        // A hint: nobody waits for it. A failure of the log shows in the next append.
        self.writer.write_slot(Slot::Committed, bytes, Box::new(|_| ())).await.map_err(failed)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let hint = match self.reader.slot(Slot::Committed) {
            Some(bytes) if !bytes.is_empty() => format::decode_log_id(bytes).map_err(malformed)?,
            _ => return Ok(None),
        };
        // The hint may have outlived entries that were committed by others and not yet durable here. What is left of the log was
        // a prefix of the committed one when the hint was written, so all of it is committed.
        let last = self.last().await?;
        Ok(if last.is_none_or(|last| last.index < hint.index) { last } else { Some(hint) })
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed<R>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut first = None;
        let records: Vec<Bytes> = entries
            .into_iter()
            .map(|entry| {
                first.get_or_insert(entry.log_id.index);
                format::encode_entry(&entry)
            })
            .collect();
        let Some(mut first) = first else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        metrics::counter!("cinnabar_consensus_entries_appended_total").increment(records.len() as u64);
        if first > self.reader.next_index() && self.holds_nothing() {
            // Only openraft's own test suite begins a log elsewhere than at 0. It then is as if all before had been purged.
            let before = format::encode_log_id(&log_id(0, first - 1));
            self.writer.purge_before(first, before, Box::new(|_| ())).await.map_err(failed)?;
        }
        let mut parts = parts(records);
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let count = part.len() as u64;
            // The last part's callback speaks for all: the log is durable in order, and a failure stops it.
            self.writer.append(first, part, Box::new(|_| ())).await.map_err(failed)?;
            first += count;
        }
        if mutation::is_on(Mutation::AppendAcknowledgedEarly) {
            self.writer.append(first, last, Box::new(|_| ())).await.map_err(failed)?;
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.writer.append(first, last, Box::new(move |durable| callback.io_completed(durable.map_err(failed)))).await.map_err(failed)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(self.reader.first_index(), |id| id.index + 1).min(self.reader.next_index());
        let (done, durable) = completion();
        self.writer.truncate_from(from, done).await.map_err(failed)?;
        durable.await.map_err(failed)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let upto = if mutation::is_on(Mutation::PurgedEarly) { self.last().await?.unwrap_or(upto) } else { upto };
        if !self.snapshots.covers(upto.index) && !mutation::is_on(Mutation::PurgedEarly) {
            return Err(io::Error::other(format!(
                "refused to purge the log up to entry {}: no durable snapshot file reaches there",
                upto.index
            )));
        }
        let done = Box::new(move |durable: Result<(), Arc<LogError>>| {
            if let Err(error) = durable {
                tracing::warn!(index = upto.index, %error, "the log was not purged");
            }
        });
        self.writer.purge_before(upto.index + 1, format::encode_log_id(&upto), done).await.map_err(failed)
    }
}
