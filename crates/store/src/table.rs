//! Tables (signatures first; bodies follow).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use seams::{Entropy, Table, TableBatch, TableError};

use crate::log::Drive;

/// How a sled table is opened.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// sled's page cache.
    pub cache_bytes: u64,
    /// Below this size on disk the folder is never copied to save space.
    pub compact_bytes_min: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, compact_bytes_min: 64 << 20 }
    }
}

/// A table over sled.
pub struct SledTable(());

impl SledTable {
    /// Opens or creates.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn open(_folder: &Path, _options: SledOptions) -> Result<Self, TableError> {
        todo!()
    }
    /// A handle for reads beside the writer.
    pub fn reader(&self) -> SledReader {
        todo!()
    }
}

/// Reads beside the writer; clones share the table.
#[derive(Clone)]
pub struct SledReader(());

impl SledReader {
    /// One record.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        todo!()
    }
}

impl Table for SledTable {
    fn scan(&self, _visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
        todo!()
    }
    fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        todo!()
    }
    fn write(&mut self, _batch: &TableBatch) -> Result<(), TableError> {
        todo!()
    }
    fn flush(&mut self) -> Result<(), TableError> {
        todo!()
    }
    fn disk_bytes(&self) -> u64 {
        todo!()
    }
}

/// What [`open_or_set_aside`] found.
pub struct OpenedTable {
    /// The table: as it was, or new and empty.
    pub table: SledTable,
    /// Where a damaged folder was moved, and why.
    pub set_aside: Option<(PathBuf, TableError)>,
}

/// Opens a table and scans all of it with `visit`; on any failure moves the folder aside and opens an empty one. When
/// `set_aside` is present, what `visit` saw must be thrown away.
///
/// # Errors
/// [`TableError`] when even an empty table cannot be opened, or another process holds the folder.
pub fn open_or_set_aside(
    _folder: &Path,
    _options: SledOptions,
    _visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>,
) -> Result<OpenedTable, TableError> {
    todo!()
}

/// A table in memory; clones share it.
#[derive(Clone, Default)]
pub struct MemTable(());

impl MemTable {
    /// Loses what was not flushed, but for a random number of whole batches.
    pub fn crash(&self, _entropy: &dyn Entropy) {
        todo!()
    }
}

impl Table for MemTable {
    fn scan(&self, _visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError> {
        todo!()
    }
    fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        todo!()
    }
    fn write(&mut self, _batch: &TableBatch) -> Result<(), TableError> {
        todo!()
    }
    fn flush(&mut self) -> Result<(), TableError> {
        todo!()
    }
    fn disk_bytes(&self) -> u64 {
        todo!()
    }
}

/// Bounds of a [`WriteBehind`].
#[derive(Clone, Debug)]
pub struct WriteBehindOptions {
    /// How many bytes may wait; senders wait beyond it.
    pub queue_bytes_max: usize,
    /// How many bytes are merged into one batch of the table.
    pub merge_bytes_max: usize,
}

impl Default for WriteBehindOptions {
    fn default() -> Self {
        Self { queue_bytes_max: 64 << 20, merge_bytes_max: 8 << 20 }
    }
}

/// How far a table is durable.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// The mark of the last durable batch; 0 before the first.
    pub mark: u64,
    /// The first failure; after it nothing more is written.
    pub error: Option<Arc<TableError>>,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteBehindError {
    /// The table failed earlier.
    #[error("the table failed; move it aside and rebuild")]
    Failed(#[source] Arc<TableError>),
    /// It was closed.
    #[error("the table is closed")]
    Closed,
}

/// Applies batches to a table behind the caller's back, in order.
#[derive(Clone)]
pub struct WriteBehind(());

impl WriteBehind {
    /// Takes the table over.
    ///
    /// # Errors
    /// [`TableError`] when no thread can be started.
    pub fn start(_table: Box<dyn Table>, _options: WriteBehindOptions, _drive: Drive) -> Result<Self, TableError> {
        todo!()
    }
    /// Hands over a batch; waits while the queue is full. Marks must not go down.
    ///
    /// # Errors
    /// [`WriteBehindError`].
    pub async fn push(&self, _mark: u64, _batch: TableBatch) -> Result<(), WriteBehindError> {
        todo!()
    }
    /// How far the table is durable.
    pub fn durable(&self) -> Durable {
        todo!()
    }
    /// Changes of it.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Durable> {
        todo!()
    }
    /// With [`Drive::Manual`]: one turn; false when nothing waits.
    pub fn run_pending(&self) -> bool {
        todo!()
    }
    /// Writes what waits, stops, and drops the table. Blocks.
    ///
    /// # Errors
    /// [`WriteBehindError`].
    pub fn close(&self) -> Result<(), WriteBehindError> {
        todo!()
    }
}
