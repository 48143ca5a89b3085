//! One process per data folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Held as long as a node uses its data folder; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why a data folder was not locked.
#[derive(Debug, thiserror::Error)]
pub enum DataLockError {
    /// Another process holds it.
    #[error("{} is in use by another process: stop that one, or give this node a folder of its own", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The disk said no.
    #[error("cannot lock {}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl DataLock {
    /// Locks `folder`, which exists, by the file `lock` in it.
    ///
    /// # Errors
    /// [`DataLockError`]: in use, or not writable.
    pub fn acquire(folder: &Path) -> Result<Self, DataLockError> {
        let failed = |source| DataLockError::Io { folder: folder.to_owned(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DataLockError::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lock_held_is_refused_and_released_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataLock::acquire(folder.path()).unwrap();
        assert!(DataLock::acquire(folder.path()).unwrap_err().to_string().contains("in use by another process"));
        drop(held);
        DataLock::acquire(folder.path()).unwrap();
    }
}
