//! A disk in memory that loses in a crash what was not synced, in order or with holes, and fails on demand.

mod power;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::power::{Loss, Survived};
use crate::{Disk, DiskFile, OpenMode};

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

/// A change of names that happens as one: a file made, a file removed, a file or a folder renamed.
struct Renamed {
    /// What it was asked for.
    what: Vec<PathBuf>,
    /// The names that it changes, and what they stand for then.
    names: Vec<(PathBuf, Option<Content>)>,
}

#[derive(Default)]
struct Inner {
    /// Names as the process sees them.
    now: BTreeMap<PathBuf, Content>,
    /// Names that are there after a crash for certain.
    durable: BTreeMap<PathBuf, Content>,
    /// Changes of names since they were last synced, in order.
    renamed: Vec<Renamed>,
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

/// Makes a name stand for something, or for nothing.
fn point(names: &mut BTreeMap<PathBuf, Content>, (path, content): &(PathBuf, Option<Content>)) {
    match content {
        Some(content) => drop(names.insert(path.clone(), content.clone())),
        None => drop(names.remove(path)),
    }
}

impl Inner {
    fn rename(&mut self, what: &[&Path], names: Vec<(PathBuf, Option<Content>)>) {
        names.iter().for_each(|name| point(&mut self.now, name));
        self.renamed.push(Renamed { what: what.iter().map(|path| path.to_path_buf()).collect(), names });
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
                inner.rename(&[path], vec![(path.to_owned(), Some(content.clone()))]);
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
        let mut names = Vec::with_capacity(2 * moved.len());
        for path in moved {
            let rest = path.strip_prefix(from).unwrap_or(Path::new("")).to_owned();
            let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            let content = inner.now.get(&path).cloned();
            names.extend([(path, None), (target, content)]);
        }
        inner.rename(&[from, to], names);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = lock(&self.0);
        if !inner.now.contains_key(path) {
            return Err(not_found(path));
        }
        inner.rename(&[path], vec![(path.to_owned(), None)]);
        Ok(())
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
        inner.renamed.iter_mut().for_each(|renamed| renamed.names.retain(|(path, _)| !path.starts_with(folder)));
        inner.renamed.retain(|renamed| !renamed.names.is_empty());
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
