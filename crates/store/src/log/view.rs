//! What a log shows: the entries in the order in which they were appended, wherever they are by now.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use seams::DiskFile;

use super::{LogError, Operation, recover::Recovered, segments::Located};

/// A segment file as readers hold it: an unlinked one stays readable until they let go.
#[derive(Clone)]
pub(super) struct ReadFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

/// Where an entry can be had.
pub(super) enum Place {
    Memory(Bytes),
    Disk(ReadFile, Located),
}

/// The visible log: durable entries, then those that wait for the disk.
#[derive(Default)]
pub(super) struct View {
    first: u64,
    located: VecDeque<Located>,
    /// The last of the durable entries, as far as they fit.
    cache: VecDeque<Bytes>,
    cache_bytes: usize,
    cache_bytes_max: usize,
    /// Each with the operation that brought it: a truncation may remove it and another take its index before it is durable.
    pending: VecDeque<(u64, Bytes)>,
    note: Bytes,
    slots: [Option<Bytes>; 2],
    files: BTreeMap<u64, ReadFile>,
}

impl View {
    pub(super) fn new(recovered: Recovered, cache_bytes_max: usize) -> Self {
        Self {
            first: recovered.first,
            located: recovered.entries,
            cache_bytes_max,
            note: recovered.note,
            slots: recovered.slots,
            ..Self::default()
        }
    }

    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn durable(&self) -> u64 {
        self.first + self.located.len() as u64
    }

    pub(super) fn next(&self) -> u64 {
        self.durable() + self.pending.len() as u64
    }

    pub(super) fn note(&self) -> Bytes {
        self.note.clone()
    }

    pub(super) fn slot(&self, slot: super::Slot) -> Option<Bytes> {
        self.slots[slot.number()].clone()
    }

    /// Takes over the segment files; `first` and `last` are the numbers of the oldest and the newest, so that a group that
    /// changed none of them costs nothing.
    pub(super) fn set_files(&mut self, (first, last): (u64, u64), files: impl Iterator<Item = (u64, ReadFile)>) {
        let held = |entry: Option<(&u64, &ReadFile)>| entry.map_or(0, |(number, _)| *number);
        if (held(self.files.first_key_value()), held(self.files.last_key_value())) != (first, last) {
            self.files = files.collect();
        }
    }

    /// Whether an operation may follow what is visible. `false`: it would change nothing.
    pub(super) fn check(&self, operation: &Operation) -> Result<bool, LogError> {
        match operation {
            Operation::Append { first, .. } if *first != self.next() => Err(LogError::Gap { expected: self.next(), got: *first }),
            Operation::Truncate { from } if *from > self.next() => Err(LogError::Gap { expected: self.next(), got: *from }),
            Operation::Truncate { from } if *from < self.first => Err(LogError::Purged { index: *from, first: self.first }),
            Operation::Truncate { from } => Ok(*from < self.next()),
            Operation::Purge { before, .. } => Ok(*before > self.first),
            Operation::Append { .. } | Operation::Slot { .. } => Ok(true),
        }
    }

    /// Makes a checked operation visible.
    pub(super) fn show(&mut self, id: u64, operation: &Operation) {
        match operation {
            Operation::Append { entries, .. } => self.pending.extend(entries.iter().map(|entry| (id, entry.clone()))),
            Operation::Truncate { from } => {
                let keep = (from - self.first) as usize;
                self.pending.truncate(keep.saturating_sub(self.located.len()));
                let cached_from = self.located.len() - self.cache.len();
                self.located.truncate(keep);
                for gone in self.cache.drain(self.located.len().saturating_sub(cached_from).min(self.cache.len())..) {
                    self.cache_bytes -= gone.len();
                }
            }
            Operation::Purge { before, note } => {
                let gone = before - self.first;
                let gone_located = usize::try_from(gone).unwrap_or(usize::MAX).min(self.located.len());
                let cached_from = self.located.len() - self.cache.len();
                self.located.drain(..gone_located);
                for gone in self.cache.drain(..gone_located.saturating_sub(cached_from)) {
                    self.cache_bytes -= gone.len();
                }
                let gone_pending = usize::try_from(gone).unwrap_or(usize::MAX).saturating_sub(gone_located).min(self.pending.len());
                self.pending.drain(..gone_pending);
                self.first = *before;
                self.note = note.clone();
            }
            Operation::Slot { slot, bytes } => self.slots[slot.number()] = Some(bytes.clone()),
        }
    }

    /// Notes where the entries of a durable append lie, as far as they are still visible.
    pub(super) fn settle(&mut self, id: u64, first: u64, located: &[Located]) {
        for (index, place) in (first..).zip(located) {
            if index == self.durable()
                && let Some((_, entry)) = self.pending.pop_front_if(|(owner, _)| *owner == id)
            {
                self.located.push_back(*place);
                self.cache_bytes += entry.len();
                self.cache.push_back(entry);
            }
        }
        while self.cache_bytes > self.cache_bytes_max
            && let Some(oldest) = self.cache.pop_front()
        {
            self.cache_bytes -= oldest.len();
        }
    }

    /// Where the entries of `range` are, until `bytes_max` is reached; at least one if there is one. Returns the first index too.
    pub(super) fn places(&self, range: Range<u64>, bytes_max: usize) -> (u64, Vec<Place>) {
        let start = range.start.max(self.first);
        let (mut places, mut bytes) = (Vec::new(), 0usize);
        for index in start..range.end.min(self.next()) {
            let Some((place, len)) = self.place((index - self.first) as usize) else { break };
            bytes = bytes.saturating_add(len);
            if bytes > bytes_max && !places.is_empty() {
                break;
            }
            places.push(place);
        }
        (start, places)
    }

    fn place(&self, at: usize) -> Option<(Place, usize)> {
        let cached_from = self.located.len() - self.cache.len();
        if at >= self.located.len() {
            let (_, entry) = self.pending.get(at - self.located.len())?;
            return Some((Place::Memory(entry.clone()), entry.len()));
        }
        if at >= cached_from {
            let entry = self.cache.get(at - cached_from)?;
            return Some((Place::Memory(entry.clone()), entry.len()));
        }
        let located = *self.located.get(at)?;
        let file = self.files.get(&located.segment)?;
        Some((Place::Disk(file.clone(), located), located.len as usize))
    }
}
