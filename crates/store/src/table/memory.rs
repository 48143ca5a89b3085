//! A table in memory, that forgets in a crash what was not flushed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use seams::{Entropy, Table, TableBatch, TableError, TableRead};

use super::check_sizes;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Content {
    now: Records,
    durable: Records,
    unflushed: Vec<TableBatch>,
}

/// A table in memory, for simulation and tests. Clones share it: one stands for the medium, and outlives the process's own.
#[derive(Clone, Default)]
pub struct MemTable(Arc<Mutex<Content>>);

impl MemTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Power off and on: of the batches that were not flushed, a random number of the first ones is kept.
    pub fn crash(&self, entropy: &dyn Entropy) {
        let mut content = self.lock();
        let unflushed = std::mem::take(&mut content.unflushed);
        let kept = entropy.number() as usize % (unflushed.len() + 1);
        for batch in &unflushed[..kept] {
            apply(&mut content.durable, batch);
        }
        content.now = content.durable.clone();
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(records: &mut Records, batch: &TableBatch) {
    for (key, value) in &batch.writes {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}

struct MemReader(MemTable);

impl TableRead for MemReader {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.0.get(key)
    }
}

impl Table for MemTable {
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
        let records = self.lock().now.clone();
        records.iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.lock().now.get(key).cloned())
    }

    fn reader(&self) -> Arc<dyn TableRead> {
        Arc::new(MemReader(self.clone()))
    }

    fn write(&mut self, batch: &TableBatch) -> Result<(), TableError> {
        check_sizes(batch)?;
        let mut content = self.lock();
        apply(&mut content.now, batch);
        content.unflushed.push(batch.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TableError> {
        let mut content = self.lock();
        for batch in std::mem::take(&mut content.unflushed) {
            apply(&mut content.durable, &batch);
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
