//! A table: an ordered local copy of a state, rebuilt from elsewhere whenever it is in doubt.

use std::sync::Arc;

/// Puts and deletes that become visible, and survive a crash, together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableBatch {
    /// Key and new value, or none to delete, in the order of application.
    pub writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl TableBatch {
    /// Adds or replaces a record.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((key.into(), Some(value.into())));
    }

    /// Removes a record; one that is not there is fine.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.writes.push((key.into(), None));
    }
}

/// Why a table failed. The answer to each is the same: move it aside and rebuild.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A stored record fails its checksum or its format.
    #[error("table {operation}: damaged: {detail}")]
    Damaged {
        /// What was being done.
        operation: &'static str,
        /// What was found.
        detail: String,
    },
    /// The disk or the library below failed or panicked.
    #[error("table {operation} failed")]
    Failed {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reads single records of a table beside its writer. Calls block.
pub trait TableRead: Send + Sync {
    /// One record, of the batches written so far.
    ///
    /// # Errors
    /// [`TableError`], also when the table has been dropped.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;
}

/// An ordered map on a disk. One writer. Calls block.
pub trait Table: Send {
    /// Visits every record in the order of keys; stops at the first error of `visit`.
    ///
    /// # Errors
    /// [`TableError`] of the table or of `visit`.
    #[allow(clippy::type_complexity, reason = "a name for the visitor would hide more than it says")]
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), TableError>) -> Result<(), TableError>;

    /// One record.
    ///
    /// # Errors
    /// [`TableError`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;

    /// A handle for reads beside the writer.
    fn reader(&self) -> Arc<dyn TableRead>;

    /// Applies a batch. Visible on return; durable only after [`Table::flush`].
    ///
    /// # Errors
    /// [`TableError`]; then none of the batch is visible.
    fn write(&mut self, batch: &TableBatch) -> Result<(), TableError>;

    /// Makes all batches so far durable, against power loss too.
    ///
    /// # Errors
    /// [`TableError`].
    fn flush(&mut self) -> Result<(), TableError>;

    /// Bytes on disk, for deciding when to rebuild; 0 for a table in memory.
    fn disk_bytes(&self) -> u64;
}
