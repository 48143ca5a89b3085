//! The real disk: `std::fs` with the modes of a secret store.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use seams::{Disk, DiskFile, OpenMode};

/// Mode of new folders: the owner alone.
pub(crate) const FOLDER_MODE: u32 = 0o700;

/// Mode of new files: the owner alone.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Files and folders of the machine. New folders get mode 0700, new files 0600. Symbolic links are followed: a data folder may be one.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true).mode(FILE_MODE);
            }
        }
        let file = options.open(path).map_err(|error| named("open", path, &error))?;
        Ok(Box::new(RealFile(file)))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(folder).map_err(|error| named("list", folder, &error))?;
        let mut names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(|error| named("create folder", folder, &error))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|error| named("rename", from, &error))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|error| named("remove", path, &error))
    }

    fn remove_dir(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir(folder).map_err(|error| named("remove folder", folder, &error))
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| named("sync folder", folder, &error))
    }
}

/// The operating system's error with the path in it: a bare "No such file or directory" helps nobody.
fn named(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {operation} {}: {error}", path.display()))
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn is_private(&self) -> io::Result<bool> {
        Ok(self.0.metadata()?.mode() & 0o077 == 0)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        metrics::counter!("cinnabar_disk_syncs_total").increment(1);
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn disk_new_files_and_folders_belong_to_the_owner_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("a/b");
        RealDisk.create_dir_all(&folder).unwrap();
        RealDisk.create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        RealDisk.sync_dir(&folder).unwrap();
        assert_eq!(file.len().unwrap(), 8);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("..")), mode(&path)), (0o700, 0o700, 0o600));
        let mut bytes = [1; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0\0\0hello");
        assert_eq!(file.read_exact_at(&mut bytes, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn disk_errors_keep_their_kind_and_name_the_path() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("absent");
        let error = RealDisk.open(&path, OpenMode::Read).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("absent"), "{error}");
        RealDisk.open(&path, OpenMode::CreateNew).unwrap();
        assert_eq!(RealDisk.open(&path, OpenMode::CreateNew).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(RealDisk.list(&temporary.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn disk_list_is_sorted_and_rename_replaces() {
        let temporary = tempfile::tempdir().unwrap();
        for name in ["c", "a", "b"] {
            RealDisk.open(&temporary.path().join(name), OpenMode::CreateNew).unwrap();
        }
        RealDisk.rename(&temporary.path().join("c"), &temporary.path().join("a")).unwrap();
        assert_eq!(RealDisk.list(temporary.path()).unwrap(), ["a", "b"]);
        RealDisk.remove_file(&temporary.path().join("a")).unwrap();
        assert_eq!(RealDisk.list(temporary.path()).unwrap(), ["b"]);
    }
}
