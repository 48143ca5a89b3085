//! The table behind a follower: the newest copy of what is held, written after it is shown.
//!
//! ```text
//! key                          value
//! 0                            head of the chain and seal, in the batch of the records they account for
//! 1, a record's key            0 and the record's bytes; or 1, the record's hash (32 bytes) and its length (4, little-endian)
//! 2, a record's hash           the bytes of a large value: see `values.rs`; on an edge in a file ([`store::SplitTable`])
//! ```
//!
//! Values go before the records that name them, and are removed after them. A rewrite of many batches takes the head away first and puts it
//! back last, so a table without a head is one that was not finished.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use seams::{Table, TableBatch, TableError};
use state::{BUCKETS, ChainHead, ChangeSet, Content, Key, Loading, Propagated, Signed, record_hash};
use store::{Drive, WriteBehind, WriteBehindOptions};
use types::Hash;

use super::{
    Tables,
    core::Held,
    values::{LARGE_VALUE_KEY, Values},
};
use crate::{Fault, block::block_on, head};

const HEAD_KEY: &[u8] = &[0];
const RECORD: u8 = 1;

/// Begins what the table holds of a record whose bytes follow.
const INLINE: u8 = 0;
/// Begins what it holds of one whose bytes lie under their hash.
const LARGE: u8 = 1;
const LARGE_BYTES: usize = 37;

/// About how many bytes one batch of a rewrite holds.
const REWRITE_BYTES: usize = 4 << 20;

/// So many bytes of values are handed over before they become more, where no batch of records follows soon.
const RELIEVE_BYTES: usize = 1 << 20;

/// How many bytes may wait for the table; large values among them are in memory a second time, to be read there.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// What was found in a table.
pub(super) enum Found {
    /// Nothing.
    Empty,
    /// Records without a head: a rewrite was not finished.
    Unfinished,
    /// A copy; whether it is whole and true, its seal tells.
    Copy { state: Box<Propagated>, seal: Bytes },
}

/// Reads a whole table, record by record.
pub(super) struct Load<'a> {
    values: &'a Arc<Values>,
    head: Option<(ChainHead, Bytes)>,
    loading: Loading,
    records: u64,
    /// Large values that were named, and not seen yet.
    named: BTreeMap<Hash, (Key, u32)>,
    unnamed: Vec<Hash>,
}

impl<'a> Load<'a> {
    /// Of a table whose large values are to be those of `values`, into a state like `empty`.
    pub(super) fn new(values: &'a Arc<Values>, empty: &Propagated) -> Self {
        Self { values, head: None, loading: empty.emptied().load(), records: 0, named: BTreeMap::new(), unnamed: Vec::new() }
    }

    /// Takes the next record; they come by rising key, so values come after the records that name them.
    pub(super) fn visit(&mut self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        match key.split_first() {
            Some((0, [])) => {
                let decoded = head::decode("table head", Bytes::copy_from_slice(value));
                self.head = Some(decoded.map_err(|fault| damaged(fault.to_string()))?);
            }
            Some((&RECORD, key)) => {
                self.records += 1;
                let key = Key::from_bytes(key);
                let content = self.content(&key, value)?;
                self.loading.put(key, content);
            }
            Some((&LARGE_VALUE_KEY, leaf)) => {
                let leaf = leaf.try_into().map(Hash::from_bytes).map_err(|_| damaged("a value under no hash".into()))?;
                match self.named.remove(&leaf) {
                    Some((key, len)) if value.len() == len as usize && record_hash(&key, value) == leaf => {}
                    Some(_) => return Err(damaged("a large value is not what was written".into())),
                    None => self.unnamed.push(leaf),
                }
            }
            _ => return Err(damaged("a key that no table has".into())),
        }
        Ok(())
    }

    fn content(&mut self, key: &Key, value: &[u8]) -> Result<Content, TableError> {
        let unknown = || damaged("a record of an unknown kind".into());
        match value.split_first() {
            Some((&INLINE, bytes)) => Ok(Content::Inline(Bytes::copy_from_slice(bytes))),
            Some((&LARGE, rest)) => {
                let (leaf, len) = rest.split_first_chunk::<32>().ok_or_else(unknown)?;
                let (leaf, len) = (Hash::from_bytes(*leaf), u32::from_le_bytes(len.try_into().map_err(|_| unknown())?));
                self.named.insert(leaf, (key.clone(), len));
                Ok(Content::Large(self.values.adopt(leaf, len)))
            }
            _ => Err(unknown()),
        }
    }

    /// What was found, when all was read.
    pub(super) fn end(self) -> Result<Found, TableError> {
        if !self.named.is_empty() {
            return Err(damaged(format!("{} large values are missing", self.named.len())));
        }
        self.unnamed.into_iter().for_each(|leaf| self.values.unnamed(leaf));
        Ok(match self.head {
            Some((head, seal)) => Found::Copy { state: Box::new(self.loading.finish(head)), seal },
            None if self.records == 0 => Found::Empty,
            None => Found::Unfinished,
        })
    }
}

fn damaged(detail: String) -> TableError {
    TableError::Damaged { operation: "load", detail }
}

/// The table and its writer; none after it failed and could not be replaced.
pub(super) struct TableBehind {
    behind: Option<WriteBehind>,
    values: Arc<Values>,
    drive: Drive,
    /// The number of the last batch.
    number: u64,
    /// Whether large values went with a table that failed: they are found again by a start, in snapshot file and log.
    lost: bool,
}

impl TableBehind {
    /// Takes over a table that was opened, or none.
    pub(super) fn new(table: Option<Box<dyn Table>>, values: Arc<Values>, drive: Drive) -> Self {
        let mut behind = Self { behind: None, values, drive, number: 0, lost: false };
        let reader = table.as_ref().map(|table| table.reader());
        behind.start(table);
        behind.values.attach(reader.filter(|_| behind.behind.is_some()));
        behind
    }

    /// Hands over what changed; a table that has failed is replaced by a full one.
    pub(super) fn push(&mut self, sets: &[Arc<ChangeSet>], held: &Held, tables: &mut dyn Tables) {
        let mut batch = TableBatch::default();
        for change in sets.iter().flat_map(|set| &set.changes) {
            // As it is held now, whatever a set in between said.
            match held.state.get(&change.key) {
                Some(content) => batch.put(record_key(&change.key), encode_content(content)),
                None => batch.delete(record_key(&change.key)),
            }
        }
        put_head(&mut batch, held);
        if !(self.put_values() && self.hand_over(batch) && self.remove_values()) {
            self.rebuild(held, tables);
        }
    }

    /// Hands over large values when they have become many, so that no more of them are in memory than the writer's queue holds. Records
    /// that name them follow later, or never do.
    pub(super) fn relieve(&mut self) {
        if self.values.fresh_bytes() >= RELIEVE_BYTES {
            // A failure shows when records follow.
            self.put_values();
        }
    }

    /// Removes large values that the last readers have let go of. No records may be on their way that name them no more.
    pub(super) fn sweep(&mut self) {
        self.remove_values();
    }

    /// Whether there is none, because none could be opened.
    pub(super) const fn is_gone(&self) -> bool {
        self.behind.is_none()
    }

    /// Whether large values that are named went with a table.
    pub(super) const fn has_lost(&self) -> bool {
        self.lost
    }

    /// Makes the table that holds `before` hold `held`.
    pub(super) fn replace(&mut self, before: &Propagated, held: &Held, tables: &mut dyn Tables) {
        if !self.rewrite(before, held) {
            self.rebuild(held, tables);
        }
    }

    /// Sets the table aside and fills a new one.
    fn rebuild(&mut self, held: &Held, tables: &mut dyn Tables) {
        if self.behind.is_none() {
            // It failed before, and so did its replacement; the next start tries again.
            return;
        }
        tracing::error!(position = %held.state.position(), "the table failed: it is set aside and filled anew");
        metrics::counter!("cinnabar_feed_table_rebuilds_total").increment(1);
        self.lost = !self.reset(tables);
        if !self.lost && !self.rewrite(&held.state.emptied(), held) {
            self.close();
        }
    }

    /// Sets the table aside and takes an empty one, or none. False when large values that are named lay there alone.
    pub(super) fn reset(&mut self, tables: &mut dyn Tables) -> bool {
        self.close();
        let table = tables.reset().inspect_err(|error| {
            tracing::error!(error = error as &dyn std::error::Error, "no table can be opened: running on log and snapshot files");
        });
        let table = table.ok();
        let reader = table.as_ref().map(|table| table.reader());
        self.start(table);
        self.values.begin_anew(reader.filter(|_| self.behind.is_some()))
    }

    /// Writes what waits and drops the table.
    pub(super) fn close(&mut self) {
        // Before the table goes: readers of roots that outlive it are told so, and do not take it for damaged.
        self.values.attach(None);
        if let Some(behind) = self.behind.take()
            && let Err(error) = behind.close()
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the table was closed with an error");
        }
    }

    fn start(&mut self, table: Option<Box<dyn Table>>) {
        self.behind = table.and_then(|table| {
            let options =
                WriteBehindOptions { queue_bytes_max: QUEUE_BYTES_MAX, merge_bytes_max: QUEUE_BYTES_MAX / 2, ..Default::default() };
            let started = WriteBehind::start(table, options, self.drive);
            started.inspect_err(|error| tracing::error!(error = error as &dyn std::error::Error, "the table's writer cannot start")).ok()
        });
        if let Some(behind) = &self.behind {
            let values = Arc::downgrade(&self.values);
            behind.on_written(move |number| {
                if let Some(values) = values.upgrade() {
                    values.written(number);
                }
            });
        }
    }

    /// Hands over what is fresh among large values. Without a table they stay in memory.
    fn put_values(&mut self) -> bool {
        while self.behind.is_some()
            && let Some(batch) = self.values.take_fresh(self.number + 1)
        {
            if !self.hand_over(batch) {
                return false;
            }
        }
        true
    }

    fn remove_values(&mut self) -> bool {
        match self.values.take_unnamed() {
            Some(batch) => self.hand_over(batch),
            None => true,
        }
    }

    fn hand_over(&mut self, batch: TableBatch) -> bool {
        self.number += 1;
        let Some(behind) = &self.behind else { return true };
        match block_on(behind.push(self.number, batch)) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the table refused a batch");
                false
            }
        }
    }

    /// Writes the difference of two states, bucket by bucket.
    fn rewrite(&mut self, before: &Propagated, held: &Held) -> bool {
        if !self.put_values() {
            return false;
        }
        let (old, new) = (before.bucket_hashes(), held.state.bucket_hashes());
        let mut batch = TableBatch::default();
        batch.delete(HEAD_KEY);
        let mut bytes = 0;
        for bucket in (0..BUCKETS).filter(|bucket| old[usize::from(*bucket)] != new[usize::from(*bucket)]) {
            let gone = before.bucket_records(bucket..bucket + 1).filter(|(key, _)| held.state.get(key).is_none());
            for (key, _) in gone {
                batch.delete(record_key(key));
            }
            let come = held.state.bucket_records(bucket..bucket + 1).filter(|(key, content)| before.get(key) != Some(*content));
            for (key, content) in come {
                let value = encode_content(content);
                bytes += key.as_bytes().len() + value.len();
                batch.put(record_key(key), value);
            }
            if bytes > REWRITE_BYTES {
                bytes = 0;
                if !self.hand_over(std::mem::take(&mut batch)) {
                    return false;
                }
            }
        }
        put_head(&mut batch, held);
        self.hand_over(batch) && self.remove_values()
    }
}

impl Drop for TableBehind {
    fn drop(&mut self) {
        // As in `close`; the writer's thread writes what waits, and drops the table.
        self.values.attach(None);
    }
}

fn record_key(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.as_bytes().len());
    bytes.push(RECORD);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// What the table holds under a record's key.
fn encode_content(content: &Content) -> Vec<u8> {
    match content {
        Content::Inline(bytes) => {
            let mut value = Vec::with_capacity(1 + bytes.len());
            value.push(INLINE);
            value.extend_from_slice(bytes);
            value
        }
        Content::Large(large) => {
            let mut value = Vec::with_capacity(LARGE_BYTES);
            value.push(LARGE);
            value.extend_from_slice(large.leaf().as_bytes());
            value.extend_from_slice(&large.len().to_le_bytes());
            value
        }
    }
}

fn put_head(batch: &mut TableBatch, held: &Held) {
    if let Some(seal) = &held.seal {
        batch.put(HEAD_KEY, encode_head(&held.state, &Signed::encode(seal)).to_vec());
    }
}

/// Head and seal, for the table and for snapshot files.
pub(super) fn encode_head(state: &Propagated, seal: &[u8]) -> Bytes {
    head::encode(&state.head(), [seal])
}

/// Head and seal of a snapshot file.
pub(super) fn decode_head(meta: &Bytes) -> Result<(ChainHead, Bytes), Fault> {
    head::decode("snapshot file", meta.clone())
}
