//! Reading a snapshot file.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use seams::{Disk, DiskFile, OpenMode};
use sha2::{Digest, Sha256};

use super::{
    SnapshotError, SnapshotInfo,
    format::{CHUNK_HEADER_BYTES, ChunkHeader, FOOTER_BYTES, FORMAT, Footer, HEADER_BYTES, Header},
};

/// Reads one file, chunk by chunk. All calls block.
pub struct SnapshotReader {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    order: u128,
    meta: Bytes,
    /// Where the footer begins.
    end: u64,
    at: u64,
    chunks: u32,
    records: u64,
    hash: Sha256,
    done: Option<[u8; 32]>,
}

impl SnapshotReader {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Damaged`], [`SnapshotError::Newer`].
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SnapshotError> {
        let file = disk.open(path, OpenMode::Read).map_err(SnapshotError::io("open", path))?;
        let len = file.len().map_err(SnapshotError::io("measure", path))?;
        let damaged = |detail| SnapshotError::Damaged { file: path.to_owned(), offset: 0, detail };
        let Some(end) = len.checked_sub(FOOTER_BYTES as u64) else { return Err(damaged("shorter than a footer")) };
        let mut reader = Self {
            path: path.to_owned(),
            file,
            order: 0,
            meta: Bytes::new(),
            end,
            at: 0,
            chunks: 0,
            records: 0,
            hash: Sha256::new(),
            done: None,
        };
        let fixed = reader.take(HEADER_BYTES)?;
        let header = Header::decode(&fixed).ok_or_else(|| damaged("not a snapshot file"))?;
        reader.meta = reader.take(header.meta_len)?;
        reader.order = header.order;
        if !header.checks(&fixed, &reader.meta) {
            return Err(damaged("the header fails its checksum"));
        }
        match header.format {
            FORMAT => Ok(reader),
            found if found > FORMAT => Err(SnapshotError::Newer { file: path.to_owned(), found, known: FORMAT }),
            _ => Err(damaged("the header names an unknown format")),
        }
    }

    /// The caller's bytes.
    pub const fn meta(&self) -> &Bytes {
        &self.meta
    }

    /// The order from the header.
    pub const fn order(&self) -> u128 {
        self.order
    }

    /// The next records, or none after all were read and the footer was checked.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Damaged`].
    pub fn next_chunk(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, SnapshotError> {
        if self.done.is_some() {
            return Ok(None);
        }
        if self.at == self.end {
            return self.footer().map(|()| None);
        }
        let fixed = self.take(CHUNK_HEADER_BYTES)?;
        let header = ChunkHeader::decode(&fixed).ok_or_else(|| self.damaged("not a chunk"))?;
        if header.number != self.chunks {
            return Err(self.damaged("a chunk out of order"));
        }
        let payload = self.take(header.payload_len)?;
        let records = header.records(&fixed, &payload).ok_or_else(|| self.damaged("the chunk before fails its checksum"))?;
        self.chunks += 1;
        self.records += records.len() as u64;
        Ok(Some(records))
    }

    /// Reads the rest and checks it.
    ///
    /// # Errors
    /// As of [`SnapshotReader::next_chunk`].
    pub fn verify(mut self) -> Result<SnapshotInfo, SnapshotError> {
        loop {
            if let Some(hash) = self.done {
                let bytes = self.end + FOOTER_BYTES as u64;
                return Ok(SnapshotInfo { path: self.path, order: self.order, meta: self.meta, records: self.records, bytes, hash });
            }
            self.next_chunk()?;
        }
    }

    fn footer(&mut self) -> Result<(), SnapshotError> {
        let mut bytes = vec![0; FOOTER_BYTES];
        self.file.read_exact_at(&mut bytes, self.end).map_err(SnapshotError::io("read", &self.path))?;
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        let expected = Footer { chunks: self.chunks, records: self.records, len: self.end, hash };
        match Footer::decode(&bytes) {
            Some(footer) if footer == expected => {
                self.done = Some(hash);
                Ok(())
            }
            Some(_) => Err(self.damaged("the footer does not match what was read")),
            None => Err(self.damaged("the footer is missing or fails its checksum")),
        }
    }

    fn take(&mut self, count: usize) -> Result<Bytes, SnapshotError> {
        if self.end - self.at < count as u64 {
            return Err(self.damaged("it ends within a header or a chunk"));
        }
        let mut bytes = vec![0; count];
        self.file.read_exact_at(&mut bytes, self.at).map_err(SnapshotError::io("read", &self.path))?;
        self.hash.update(&bytes);
        self.at += count as u64;
        Ok(Bytes::from(bytes))
    }

    fn damaged(&self, detail: &'static str) -> SnapshotError {
        SnapshotError::Damaged { file: self.path.clone(), offset: self.at, detail }
    }
}
