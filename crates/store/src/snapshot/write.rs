//! Writing a snapshot file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use seams::{Disk, DiskFile, OpenMode};
use sha2::{Digest, Sha256};

use super::{
    SnapshotError, SnapshotInfo,
    format::{ChunkBuilder, Footer, Header, KEY_BYTES_MAX, META_BYTES_MAX, VALUE_BYTES_MAX},
};

/// Writes one file, record by record. All calls block. Dropped before [`SnapshotWriter::finish`], it leaves nothing.
pub struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    new: PathBuf,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    order: u128,
    meta: Bytes,
    chunk: ChunkBuilder,
    chunks: u32,
    records: u64,
    len: u64,
    hash: Sha256,
    finished: bool,
}

impl SnapshotWriter {
    pub(super) fn create(disk: Arc<dyn Disk>, folder: &Path, order: u128, meta: &[u8]) -> Result<Self, SnapshotError> {
        limit("meta", meta.len(), META_BYTES_MAX)?;
        let new = folder.join(format!("{order:032x}.new"));
        let file = disk.open(&new, OpenMode::CreateNew).map_err(SnapshotError::io("create", &new))?;
        let mut writer = Self {
            disk,
            folder: folder.to_owned(),
            path: folder.join(super::folder::name(order)),
            new,
            file,
            order,
            meta: Bytes::copy_from_slice(meta),
            chunk: ChunkBuilder::new(),
            chunks: 0,
            records: 0,
            len: 0,
            hash: Sha256::new(),
            finished: false,
        };
        writer.write(&Header::encode(order, meta))?;
        Ok(writer)
    }

    /// Adds a record. The order of records is the caller's.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`] for a key over 4 KiB or a value over 1 MiB, [`SnapshotError::Full`], [`SnapshotError::Io`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        limit("key", key.len(), KEY_BYTES_MAX)?;
        limit("value", value.len(), VALUE_BYTES_MAX)?;
        self.chunk.put(key, value);
        self.records += 1;
        if self.chunk.is_full() { self.end_chunk() } else { Ok(()) }
    }

    /// Writes the footer, makes the file durable and gives it its name, in place of an older one of the same order.
    ///
    /// # Errors
    /// [`SnapshotError::Full`], [`SnapshotError::Io`]; then nothing is left of it.
    pub fn finish(mut self) -> Result<SnapshotInfo, SnapshotError> {
        if !self.chunk.is_empty() {
            self.end_chunk()?;
        }
        let hash: [u8; 32] = self.hash.finalize_reset().into();
        let footer = Footer { chunks: self.chunks, records: self.records, len: self.len, hash };
        self.write(&footer.encode())?;
        self.file.sync_data().map_err(SnapshotError::io("sync", &self.new))?;
        self.disk.rename(&self.new, &self.path).map_err(SnapshotError::io("rename", &self.new))?;
        self.finished = true;
        self.disk.sync_dir(&self.folder).map_err(SnapshotError::io("sync", &self.folder))?;
        Ok(SnapshotInfo {
            path: self.path.clone(),
            order: self.order,
            meta: self.meta.clone(),
            records: self.records,
            bytes: self.len,
            hash,
        })
    }

    fn end_chunk(&mut self) -> Result<(), SnapshotError> {
        let mut chunk = std::mem::replace(&mut self.chunk, ChunkBuilder::new());
        self.write(chunk.seal(self.chunks))?;
        chunk.clear();
        self.chunk = chunk;
        self.chunks += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_all_at(bytes, self.len).map_err(SnapshotError::io("write", &self.new))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is removed when the folder is opened.
            let _ = self.disk.remove_file(&self.new);
        }
    }
}

fn limit(what: &'static str, got: usize, max: usize) -> Result<(), SnapshotError> {
    if got > max { Err(SnapshotError::TooLarge { what, got, max }) } else { Ok(()) }
}
