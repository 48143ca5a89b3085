//! Snapshot files (signatures first; bodies follow).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use seams::Disk;

/// Why a snapshot file failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Damaged.
    #[error("snapshot {file}: damaged at offset {offset}: {detail}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What.
        detail: String,
    },
}

/// What a snapshot file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The file.
    pub path: PathBuf,
    /// What orders snapshots: the larger is the newer.
    pub order: u128,
    /// The caller's bytes from the header.
    pub meta: Bytes,
    /// How many records it holds.
    pub records: u64,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 over everything before the footer.
    pub hash: [u8; 32],
}

/// A folder of snapshot files.
#[derive(Clone)]
pub struct SnapshotFolder(());

impl SnapshotFolder {
    /// Creates the folder if missing and removes what an interrupted writer left.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(_disk: Arc<dyn Disk>, _folder: impl Into<PathBuf>) -> Result<Self, SnapshotError> {
        todo!()
    }
    /// Starts a file. `order` (a log index, or generation << 64 | revision) names it and must not exist yet; meta is at most 1 MiB.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn create(&self, _order: u128, _meta: &[u8]) -> Result<SnapshotWriter, SnapshotError> {
        todo!()
    }
    /// Orders of the files present, newest first; not verified.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn orders(&self) -> Result<Vec<u128>, SnapshotError> {
        todo!()
    }
    /// Reads the whole newest file and those before it until one is valid; returns it and what was wrong with the newer ones.
    ///
    /// # Errors
    /// [`SnapshotError`] when the folder cannot be read.
    pub fn newest_valid(&self) -> Result<(Option<SnapshotInfo>, Vec<SnapshotError>), SnapshotError> {
        todo!()
    }
    /// Opens a file to read its records.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read(&self, _order: u128) -> Result<SnapshotReader, SnapshotError> {
        todo!()
    }
    /// Removes all but the newest `keep` files.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn keep_newest(&self, _keep: usize) -> Result<(), SnapshotError> {
        todo!()
    }
}

/// Writes one file. Dropped before `finish`, it leaves nothing.
pub struct SnapshotWriter(());

impl SnapshotWriter {
    /// Adds a record.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn put(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), SnapshotError> {
        todo!()
    }
    /// Writes the footer, makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn finish(self) -> Result<SnapshotInfo, SnapshotError> {
        todo!()
    }
}

/// Reads one file, chunk by chunk. Only after `next_chunk` has returned none is it known that the file is whole.
pub struct SnapshotReader(());

impl SnapshotReader {
    /// Opens any file.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(_disk: &dyn Disk, _path: &Path) -> Result<Self, SnapshotError> {
        todo!()
    }
    /// The caller's bytes.
    pub fn meta(&self) -> &Bytes {
        todo!()
    }
    /// The order from the header.
    pub fn order(&self) -> u128 {
        todo!()
    }
    /// The next records, or none after the footer was checked.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn next_chunk(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, SnapshotError> {
        todo!()
    }
    /// Reads the rest and checks it.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn verify(self) -> Result<SnapshotInfo, SnapshotError> {
        todo!()
    }
}
