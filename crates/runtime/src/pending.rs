//! A file that has its name only when it is whole.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use seams::{Disk, DiskFile, OpenMode};

use crate::RealDisk;

/// A file in the making: it lies beside the final one, with mode 0600, and gets its name when [`PendingFile::finish`] has made it
/// durable. Dropped before that, it is removed: neither a full disk nor a cut connection leaves half a file under the final name.
/// All calls block.
pub struct PendingFile {
    disk: Arc<dyn Disk>,
    file: Option<Box<dyn DiskFile>>,
    beside: PathBuf,
    path: PathBuf,
    written: u64,
}

impl PendingFile {
    /// Begins a file on this machine's disk; what an earlier attempt left beside it is replaced.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::create_on(Arc::new(RealDisk), path)
    }

    /// As [`PendingFile::create`], on another disk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create_on(disk: Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a file name"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".part");
        let beside = path.with_file_name(hidden);
        match disk.remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.open(&beside, OpenMode::CreateNew)?;
        Ok(Self { disk, file: Some(file), beside, path: path.to_owned(), written: 0 })
    }

    /// Appends.
    ///
    /// # Errors
    /// What the disk says; then the file is to be dropped.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_all_at(bytes, self.written)?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }

    /// How many bytes were written.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Makes the file durable and gives it its name, in place of an older one.
    ///
    /// # Errors
    /// What the disk says. Then the final name is what it was before, or, where only the folder could not be synced, may be lost
    /// with the machine's power.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        self.disk.rename(&self.beside, &self.path)?;
        self.file = None;
        self.disk.sync_dir(self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What cannot be removed is replaced by the next attempt.
            let _ = self.disk.remove_file(&self.beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn file_given_up_leaves_the_older_one_and_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cbsnap");
        let write = |content: &[u8], finish: bool| {
            let mut file = PendingFile::create(&path).unwrap();
            file.write(&content[..1]).unwrap();
            file.write(&content[1..]).unwrap();
            assert_eq!(file.written(), content.len() as u64);
            if finish {
                file.finish().unwrap();
            }
        };
        write(b"one", false);
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
        write(b"one", true);
        write(b"two", false);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(b"two", true);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
