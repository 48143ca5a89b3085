//! The table behind a follower: the newest copy of what is held, written after it is shown.
//!
//! Records lie under a one and their key; the head of the chain and the seal lie under a zero, and are written in the batch of the
//! records they account for. A rewrite of many batches takes the head away first and puts it back last, so a
//! table without a head is one that was not finished.

use std::sync::Arc;

use bytes::Bytes;
use seams::{Table, TableBatch, TableError};
use state::{BUCKETS, ChainHead, ChangeSet, Key, Propagated, Signed};
use store::{Drive, WriteBehind, WriteBehindOptions};
use types::Position;

use super::{Tables, core::Held};
use crate::{Fault, block::block_on, head};

const HEAD_KEY: &[u8] = &[0];
const RECORD: u8 = 1;

/// About how many bytes one batch of a rewrite holds.
const REWRITE_BYTES: usize = 4 << 20;

/// What was found in a table.
pub(super) enum Found {
    /// Nothing.
    Empty,
    /// Records without a head: a rewrite was not finished.
    Unfinished,
    /// A copy; whether it is whole and true, its seal tells.
    Copy { head: ChainHead, seal: Bytes, records: Vec<(Key, Bytes)> },
}

/// Reads a whole table.
pub(super) fn load(table: &dyn Table) -> Result<Found, TableError> {
    let mut found = None;
    let mut records = Vec::new();
    let damaged = |detail: String| TableError::Damaged { operation: "load", detail };
    table.scan(&mut |key, value| {
        match key.split_first() {
            Some((0, [])) => {
                let decoded = head::decode("table head", Bytes::copy_from_slice(value));
                found = Some(decoded.map_err(|fault| damaged(fault.to_string()))?);
            }
            Some((&RECORD, key)) => {
                records.push((Key::from_bytes(key), Bytes::copy_from_slice(value)));
            }
            _ => return Err(damaged("a key that no table has".into())),
        }
        Ok(())
    })?;
    Ok(match found {
        Some((head, seal)) => Found::Copy { head, seal, records },
        None if records.is_empty() => Found::Empty,
        None => Found::Unfinished,
    })
}

/// The table and its writer; none after it failed and could not be replaced.
pub(super) struct TableBehind {
    behind: Option<WriteBehind>,
    drive: Drive,
}

impl TableBehind {
    /// Takes over a table that was opened, or none.
    pub(super) fn new(table: Option<Box<dyn Table>>, drive: Drive) -> Self {
        let mut behind = Self { behind: None, drive };
        behind.start(table);
        behind
    }

    /// Hands over what changed; a table that has failed is replaced by a full one.
    pub(super) fn push(&mut self, sets: &[Arc<ChangeSet>], held: &Held, tables: &mut dyn Tables) {
        let mut batch = TableBatch::default();
        for change in sets.iter().flat_map(|set| &set.changes) {
            batch.writes.push((record_key(&change.key), change.value.as_ref().map(|value| value.to_vec())));
        }
        put_head(&mut batch, held);
        if !self.hand_over(held.state.position(), batch) {
            self.rebuild(held, tables);
        }
    }

    /// Makes the table that holds `before` hold `held`.
    pub(super) fn replace(&mut self, before: &Propagated, held: &Held, tables: &mut dyn Tables) {
        if !self.rewrite(before, held) {
            self.rebuild(held, tables);
        }
    }

    /// Sets the table aside and fills a new one.
    pub(super) fn rebuild(&mut self, held: &Held, tables: &mut dyn Tables) {
        if self.behind.is_none() {
            // It failed before, and so did its replacement; the next start tries again.
            return;
        }
        self.close();
        tracing::error!(position = %held.state.position(), "the table failed: it is set aside and filled anew from memory");
        metrics::counter!("cinnabar_feed_table_rebuilds_total").increment(1);
        match tables.reset() {
            Ok(table) => {
                self.start(Some(table));
                if !self.rewrite(&Propagated::empty(), held) {
                    self.close();
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no table can be opened: running on log and snapshot files")
            }
        }
    }

    /// Writes what waits and drops the table.
    pub(super) fn close(&mut self) {
        if let Some(behind) = self.behind.take()
            && let Err(error) = behind.close()
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the table was closed with an error");
        }
    }

    fn start(&mut self, table: Option<Box<dyn Table>>) {
        self.behind = table.and_then(|table| {
            let started = WriteBehind::start(table, WriteBehindOptions::default(), self.drive);
            started.inspect_err(|error| tracing::error!(error = error as &dyn std::error::Error, "the table's writer cannot start")).ok()
        });
    }

    fn hand_over(&self, position: Position, batch: TableBatch) -> bool {
        let Some(behind) = &self.behind else { return true };
        match block_on(behind.push(position.revision.get(), batch)) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the table refused a batch");
                false
            }
        }
    }

    /// Writes the difference of two states, bucket by bucket.
    fn rewrite(&self, before: &Propagated, held: &Held) -> bool {
        let (old, new) = (before.bucket_hashes(), held.state.bucket_hashes());
        // Marks must not go down, and only the last batch has the position.
        let mut batch = TableBatch::default();
        batch.delete(HEAD_KEY);
        let mut bytes = 0;
        for bucket in (0..BUCKETS).filter(|bucket| old[usize::from(*bucket)] != new[usize::from(*bucket)]) {
            let gone = before.bucket_records(bucket..bucket + 1).filter(|(key, _)| held.state.get(key).is_none());
            for (key, _) in gone {
                batch.delete(record_key(key));
            }
            let come = held.state.bucket_records(bucket..bucket + 1).filter(|(key, value)| before.get(key) != Some(*value));
            for (key, value) in come {
                bytes += key.as_bytes().len() + value.len();
                batch.put(record_key(key), value.to_vec());
            }
            if bytes > REWRITE_BYTES {
                bytes = 0;
                if !self.hand_over(before.position(), std::mem::take(&mut batch)) {
                    return false;
                }
            }
        }
        put_head(&mut batch, held);
        self.hand_over(held.state.position(), batch)
    }
}

fn record_key(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.as_bytes().len());
    bytes.push(RECORD);
    bytes.extend_from_slice(key.as_bytes());
    bytes
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
