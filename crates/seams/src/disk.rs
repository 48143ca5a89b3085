//! A disk: what is written is lost in a crash until it was synced.

use std::{io, path::Path};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A file that must not exist yet, to read and write. On a real disk it is created with mode 0600.
    CreateNew,
}

/// Folders and files. All calls block: callers keep them off the async threads.
///
/// The contract is that of POSIX at its weakest: the bytes of a file survive a crash once [`DiskFile::sync_data`] returned,
/// the name of a file (created, renamed or removed) once [`Disk::sync_dir`] of its folder returned.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// As of the operating system: `NotFound`, `AlreadyExists`, `PermissionDenied`, `StorageFull` and others.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// The names, not the paths, of what a folder holds, sorted.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Creates a folder and those above it; an existing one is fine. On a real disk it gets mode 0700.
    ///
    /// # Errors
    /// As of the operating system.
    fn create_dir_all(&self, folder: &Path) -> io::Result<()>;

    /// Gives a file or folder another name, in place of a file that has it.
    ///
    /// # Errors
    /// As of the operating system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As of the operating system.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder. A disk that keeps no folders has nothing to do.
    ///
    /// # Errors
    /// As of the operating system.
    fn remove_dir(&self, folder: &Path) -> io::Result<()> {
        let _ = folder;
        Ok(())
    }

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As of the operating system.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// The length in bytes.
    ///
    /// # Errors
    /// As of the operating system.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds nothing.
    ///
    /// # Errors
    /// As of [`DiskFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Whether nobody but the owner may read or write the file, asked of the open file, so that it cannot change in between.
    /// A disk that knows no permissions answers yes.
    ///
    /// # Errors
    /// As of the operating system.
    fn is_private(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends first.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, making the file longer where needed.
    ///
    /// # Errors
    /// As of the operating system; then any part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeros.
    ///
    /// # Errors
    /// As of the operating system.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable (fdatasync).
    ///
    /// # Errors
    /// As of the operating system. After an error nothing is known of what is durable: the caller stops using the file.
    fn sync_data(&self) -> io::Result<()>;
}
