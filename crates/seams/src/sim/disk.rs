//! A disk in memory that loses in a crash what was not synced, tears the last write, and fails on demand.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Disk, DiskFile, Entropy, OpenMode};

/// Faults that stay in force until they are changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    /// Writes that would take the disk past this many bytes fail with `StorageFull`.
    pub capacity: Option<u64>,
    /// Every write fails with `ReadOnlyFilesystem`.
    pub read_only: bool,
    /// Every sync fails.
    pub sync_fails: bool,
}

type Content = Arc<Mutex<File>>;

#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    /// What a crash leaves at least.
    durable: Vec<u8>,
    /// Writes since the last sync, in order: offset and bytes, or a new length.
    unsynced: Vec<Unsynced>,
}

#[derive(Clone)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Len(u64),
}

#[derive(Default)]
struct Inner {
    /// Names as the process sees them.
    now: BTreeMap<PathBuf, Content>,
    /// Names as they are after a crash.
    durable: BTreeMap<PathBuf, Content>,
    faults: DiskFaults,
    syncs: u64,
}

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {}", path.display()))
}

impl File {
    fn apply(content: &mut Vec<u8>, change: &Unsynced) {
        match change {
            Unsynced::Len(len) => content.resize(*len as usize, 0),
            Unsynced::Write(offset, bytes) => {
                let end = *offset as usize + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset as usize..end].copy_from_slice(bytes);
            }
        }
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts faults in force; the default ends them.
    pub fn set_faults(&self, faults: DiskFaults) {
        lock(&self.0).faults = faults;
    }

    /// How many syncs were made, of files and folders.
    pub fn syncs(&self) -> u64 {
        lock(&self.0).syncs
    }

    /// Power off and on. Of what was not synced, each file keeps a random number of its writes, the last of them torn at a
    /// random byte; names that were not synced are as they were. Handles opened before must not be used any more.
    pub fn crash(&self, entropy: &dyn Entropy) {
        let mut inner = lock(&self.0);
        let names = inner.durable.clone();
        for content in names.values() {
            let mut file = lock(content);
            let unsynced = std::mem::take(&mut file.unsynced);
            let kept = entropy.number() as usize % (unsynced.len() + 1);
            let mut after = std::mem::take(&mut file.durable);
            for change in &unsynced[..kept] {
                File::apply(&mut after, change);
            }
            if let Some(Unsynced::Write(offset, bytes)) = unsynced.get(kept) {
                let torn = entropy.number() as usize % (bytes.len() + 1);
                if torn > 0 {
                    File::apply(&mut after, &Unsynced::Write(*offset, bytes[..torn].to_vec()));
                }
            }
            file.now = after.clone();
            file.durable = after;
        }
        // Handles of before keep their old content: a fresh copy makes late writes of a dead process harmless.
        inner.now = names.into_iter().map(|(path, content)| (path, Arc::new(Mutex::new(lock(&content).clone())))).collect();
        inner.durable = inner.now.clone();
    }

    /// Flips bits of a stored byte, on the medium.
    ///
    /// # Errors
    /// `NotFound`, or `UnexpectedEof` past the end.
    pub fn damage(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let inner = lock(&self.0);
        let content = inner.now.get(path).ok_or_else(|| not_found(path))?;
        let mut file = lock(content);
        let at = offset as usize;
        *file.now.get_mut(at).ok_or(io::ErrorKind::UnexpectedEof)? ^= mask;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= mask;
        }
        Ok(())
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        lock(&self.0).now.keys().cloned().collect()
    }

    /// A file's bytes.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        lock(&self.0).now.get(path).map(|content| lock(content).now.clone())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = lock(&self.0);
        let found = inner.now.get(path).cloned();
        let content = match (mode, found) {
            (OpenMode::CreateNew, Some(_)) => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("file {} exists", path.display())));
            }
            (OpenMode::CreateNew, None) => {
                if inner.faults.read_only {
                    return Err(io::ErrorKind::ReadOnlyFilesystem.into());
                }
                let content = Content::default();
                inner.now.insert(path.to_owned(), content.clone());
                content
            }
            (_, Some(content)) => content,
            (_, None) => return Err(not_found(path)),
        };
        Ok(Box::new(SimFile { disk: self.clone(), content, writable: mode != OpenMode::Read }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inner = lock(&self.0);
        let mut names: Vec<String> = inner
            .now
            .keys()
            .filter_map(|path| path.strip_prefix(folder).ok())
            .filter_map(|rest| rest.components().next())
            .map(|first| first.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn create_dir_all(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = lock(&self.0);
        if inner.faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let moved: Vec<PathBuf> = inner.now.keys().filter(|path| path.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(not_found(from));
        }
        for path in moved {
            let rest = path.strip_prefix(from).unwrap_or(Path::new("")).to_owned();
            let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            if let Some(content) = inner.now.remove(&path) {
                inner.now.insert(target, content);
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        lock(&self.0).now.remove(path).map(|_| ()).ok_or_else(|| not_found(path))
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let mut inner = lock(&self.0);
        if inner.faults.sync_fails {
            return Err(io::Error::other("simulated: sync failed"));
        }
        inner.syncs += 1;
        // A renamed folder takes its files along, so everything below counts as synced with it.
        inner.durable.retain(|path, _| !path.starts_with(folder));
        let below: Vec<_> = inner.now.iter().filter(|(path, _)| path.starts_with(folder)).map(|(p, c)| (p.clone(), c.clone())).collect();
        inner.durable.extend(below);
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    content: Content,
    writable: bool,
}

impl SimFile {
    fn change(&self, change: Unsynced) -> io::Result<()> {
        let inner = lock(&self.disk.0);
        if !self.writable || inner.faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Some(capacity) = inner.faults.capacity {
            let others: u64 = inner.now.values().filter(|c| !Arc::ptr_eq(c, &self.content)).map(|c| lock(c).now.len() as u64).sum();
            let end = match &change {
                Unsynced::Write(offset, bytes) => offset + bytes.len() as u64,
                Unsynced::Len(len) => *len,
            };
            let own = lock(&self.content).now.len() as u64;
            if end > own && others + end > capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let mut file = lock(&self.content);
        File::apply(&mut file.now, &change);
        file.unsynced.push(change);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).now.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let file = lock(&self.content);
        let start = offset as usize;
        let bytes = file.now.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Unsynced::Write(offset, bytes.to_vec()))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(Unsynced::Len(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = lock(&self.disk.0);
        if inner.faults.sync_fails {
            return Err(io::Error::other("simulated: sync failed"));
        }
        inner.syncs += 1;
        let mut file = lock(&self.content);
        for change in std::mem::take(&mut file.unsynced) {
            File::apply(&mut file.durable, &change);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimEntropy;

    #[test]
    fn disk_crash_keeps_what_was_synced_and_only_that_for_certain() {
        let (mut kept, mut lost) = (false, false);
        for seed in 0..50 {
            let disk = SimDisk::new();
            let path = Path::new("a/file");
            let file = disk.open(path, OpenMode::CreateNew).unwrap();
            file.write_all_at(b"durable", 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("a")).unwrap();
            file.write_all_at(b"tail", 7).unwrap();
            disk.crash(&SimEntropy::new(seed));
            let after = disk.read(path).unwrap();
            assert!(after.starts_with(b"durable"));
            assert!(b"durabletail".starts_with(&after[..]));
            kept |= after.len() == 11;
            lost |= after.len() == 7;
        }
        assert!(kept && lost, "both outcomes must occur");
    }

    #[test]
    fn disk_crash_forgets_a_name_that_was_not_synced() {
        let disk = SimDisk::new();
        disk.open(Path::new("a/file"), OpenMode::CreateNew).unwrap().sync_data().unwrap();
        disk.crash(&SimEntropy::new(1));
        assert!(disk.files().is_empty());
    }

    #[test]
    fn disk_full_fails_the_write_that_does_not_fit() {
        let disk = SimDisk::new();
        disk.set_faults(DiskFaults { capacity: Some(10), ..DiskFaults::default() });
        let file = disk.open(Path::new("f"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[1; 10], 0).unwrap();
        assert_eq!(file.write_all_at(&[1; 1], 10).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_all_at(&[2; 10], 0).unwrap();
    }
}
