//! A table of small records and files of large values as one.

use std::{collections::BTreeSet, sync::Arc};

use seams::{Table, TableBatch, TableError, TableRead};

use super::ValueFiles;
use crate::table::{check_sizes, failed};

/// A table whose values under keys with a first byte of their own, greater than every other key's, lie in files.
///
/// The contract is that of [`Table`], but for this: a value that is deleted can be read until the next flush, and what a flush has made
/// durable are the records; see [`crate::values`]. A batch that fails may leave values behind that no record names.
pub struct SplitTable {
    records: Box<dyn Table>,
    values: ValueFiles,
    /// To be removed with the next flush, when the records that named them are gone for certain.
    gone: BTreeSet<Vec<u8>>,
}

impl SplitTable {
    /// Over a table of `records`.
    pub fn new(records: Box<dyn Table>, values: ValueFiles) -> Self {
        Self { records, values, gone: BTreeSet::new() }
    }
}

struct SplitReader {
    records: Arc<dyn TableRead>,
    values: ValueFiles,
}

impl TableRead for SplitReader {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        if self.values.owns(key) { self.values.get(key) } else { self.records.get(key) }
    }
}

impl Table for SplitTable {
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
        self.records.scan(visit)?;
        self.values.scan(visit)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        if self.values.owns(key) { self.values.get(key) } else { self.records.get(key) }
    }

    fn reader(&self) -> Arc<dyn TableRead> {
        Arc::new(SplitReader { records: self.records.reader(), values: self.values.clone() })
    }

    fn write(&mut self, batch: &TableBatch) -> Result<(), TableError> {
        check_sizes(batch)?;
        if batch.writes.iter().any(|(key, _)| key.first() > Some(&self.values.first)) {
            return Err(failed("write", "a key that would come behind the values"));
        }
        let mut records = TableBatch::default();
        for (key, value) in &batch.writes {
            match value {
                _ if !self.values.owns(key) => records.writes.push((key.clone(), value.clone())),
                Some(value) => {
                    self.values.put(key, value)?;
                    self.gone.remove(key);
                }
                None => drop(self.gone.insert(key.clone())),
            }
        }
        self.records.write(&records)
    }

    fn flush(&mut self) -> Result<(), TableError> {
        self.records.flush()?;
        std::mem::take(&mut self.gone).iter().try_for_each(|key| self.values.remove(key))
    }

    /// Of the records: files take what they hold.
    fn disk_bytes(&self) -> u64 {
        self.records.disk_bytes()
    }
}
