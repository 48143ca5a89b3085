//! Large values in files of their own, so that no page cache but the system's holds them.
//!
//! [`ValueFiles`] is a folder of files, one for each value, found by its key; [`SplitTable`] is a table whose small records lie in another
//! table, and whose large values lie in such a folder. What is a large value is for the caller to say: its key begins with a byte of their
//! own, and the value under a key is never another (keys are hashes).
//!
//! ```text
//! FOLDER/ab/abcd...        the rest of the key in hex; ab is its first byte
//! FOLDER/ab/abcd....new    being written, or left by a crash
//!
//! 0   1   format, 1
//! 1   4   length of the value, little-endian
//! 5   4   CRC32C of key length (4), key and value; little-endian
//! 9   n   value
//! ```
//!
//! **Invariants**
//! 1. A value that is read is one that was written under that key, or the read is an error.
//! 2. Between two flushes nothing is removed, so after a crash no record that survived names a value that was removed on purpose.
//!
//! **Failure**: files are not synced: a value is never here alone, and thousands of syncs would hold up whoever fills a table. So a loss
//! of power may take a value that a durable record names, or tear it. A scan finds that: it shows no value that is not whole, and the
//! caller misses what its records name. A file that is not whole, and one that was being written, is removed by the scan.

mod split;

#[cfg(test)]
mod tests;

use std::{
    fmt::Write as _,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use seams::{Disk, DiskFile, OpenMode, TableError};

pub use self::split::SplitTable;
use crate::table::{VALUE_BYTES_MAX, Visit, crc, failed};

const FORMAT: u8 = 1;
const PREFIX_BYTES: usize = 9;

/// The longest key without its first byte: in hex it is a file's name.
const NAME_BYTES_MAX: usize = 100;

/// A folder of values. Clones share it. One writer; reads beside it.
#[derive(Clone)]
pub struct ValueFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    first: u8,
}

impl ValueFiles {
    /// The values whose keys begin with `first`, in `folder`, which comes to be with the first of them.
    pub fn new(disk: Arc<dyn Disk>, folder: impl Into<PathBuf>, first: u8) -> Self {
        Self { disk, folder: folder.into(), first }
    }

    /// Whether the value under `key` belongs here.
    pub(crate) fn owns(&self, key: &[u8]) -> bool {
        key.first() == Some(&self.first)
    }

    fn path(&self, operation: &'static str, key: &[u8]) -> Result<PathBuf, TableError> {
        match key {
            [_, rest @ ..] if (1..=NAME_BYTES_MAX).contains(&rest.len()) => {
                let name = hex(rest);
                Ok(self.folder.join(&name[..2]).join(name))
            }
            _ => Err(failed(operation, format!("a value's key of {} bytes, at least 2 and at most {}", key.len(), NAME_BYTES_MAX + 1))),
        }
    }

    /// The value under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.read("get", &self.path("get", key)?, key)
    }

    fn read(&self, operation: &'static str, path: &Path, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let file = match self.disk.open(path, OpenMode::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io(operation))?,
        };
        decode(&*file, key).map(Some).map_err(|error| match error {
            Unread::Io(error) => io(operation)(error),
            Unread::Damaged(detail) => TableError::Damaged { operation, detail: detail.to_owned() },
        })
    }

    /// Writes beside, then renames: under its own name a file is whole, but for a loss of power.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        let path = self.path("write", key)?;
        let fresh = path.with_extension("new");
        let written = self.create(&fresh).and_then(|file| file.write_all_at(&encode(key, value), 0));
        written.and_then(|()| self.disk.rename(&fresh, &path)).map_err(io("write"))
    }

    fn create(&self, fresh: &Path) -> io::Result<Box<dyn DiskFile>> {
        match self.disk.open(fresh, OpenMode::CreateNew) {
            Err(error) if error.kind() == ErrorKind::NotFound => self.disk.create_dir_all(fresh.parent().unwrap_or(&self.folder))?,
            // Left by a write that failed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.disk.remove_file(fresh)?,
            opened => return opened,
        }
        self.disk.open(fresh, OpenMode::CreateNew)
    }

    fn remove(&self, key: &[u8]) -> Result<(), TableError> {
        self.remove_file(&self.path("remove", key)?)
    }

    fn remove_file(&self, path: &Path) -> Result<(), TableError> {
        match self.disk.remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove")(error)),
            _ => Ok(()),
        }
    }

    /// Visits every value in the order of keys, one at a time in memory; removes files that are not whole.
    pub(crate) fn scan(&self, visit: &mut Visit<'_>) -> Result<(), TableError> {
        for part in self.list(&self.folder)?.into_iter().filter(|part| part.len() == 2 && unhex(part).is_some()) {
            let folder = self.folder.join(&part);
            for name in self.list(&folder)? {
                let path = folder.join(&name);
                let Some(rest) = unhex(&name).filter(|_| name.starts_with(&part)) else {
                    if name.ends_with(".new") {
                        self.remove_file(&path)?;
                    }
                    continue;
                };
                let key = [&[self.first], &rest[..]].concat();
                match self.read("scan", &path, &key) {
                    Ok(Some(value)) => visit(&key, &value)?,
                    Ok(None) => {}
                    Err(error @ TableError::Damaged { .. }) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, file = %path.display(), "removed a value that is not whole");
                        self.remove_file(&path)?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, TableError> {
        match self.disk.list(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(io("scan")),
        }
    }

    /// Moves all of them into the folder of a table that was set aside. What a crash leaves behind instead is named by no record, and found
    /// by the next scan.
    pub(crate) fn set_aside(&self, aside: &Path) -> Result<(), TableError> {
        if self.list(&self.folder)?.is_empty() {
            return Ok(());
        }
        let moved = self.disk.create_dir_all(aside).and_then(|()| self.disk.rename(&self.folder, &aside.join("values")));
        moved.map_err(io("move aside"))
    }
}

fn io(operation: &'static str) -> impl FnOnce(io::Error) -> TableError {
    move |error| TableError::Failed { operation, source: Box::new(error) }
}

fn encode(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + value.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc(key, value).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

enum Unread {
    Io(io::Error),
    Damaged(&'static str),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        // The file has become shorter since it was measured.
        if error.kind() == ErrorKind::UnexpectedEof { Self::Damaged("a value is cut off") } else { Self::Io(error) }
    }
}

fn decode(file: &dyn DiskFile, key: &[u8]) -> Result<Vec<u8>, Unread> {
    let mut prefix = [0; PREFIX_BYTES];
    file.read_exact_at(&mut prefix, 0)?;
    let [format, len @ .., c0, c1, c2, c3] = prefix;
    if format != FORMAT {
        return Err(Unread::Damaged("a value has an unknown format"));
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > VALUE_BYTES_MAX || file.len()? != (PREFIX_BYTES + len) as u64 {
        return Err(Unread::Damaged("a value is not as long as it says"));
    }
    let mut value = vec![0; len];
    file.read_exact_at(&mut value, PREFIX_BYTES as u64)?;
    if crc(key, &value) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(Unread::Damaged("a value fails its checksum"));
    }
    Ok(value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that [`hex`] gave this text for; none for any other.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    bytes.filter(|bytes| hex(bytes) == text)
}
