//! A node's disk: loses power in the middle of the work, and may lie about what it has made durable.
//!
//! A disk of `seams` is cut between polls only, where no task is in the middle of anything. [`NodeDisk`] lets a chosen operation of
//! the disk fail, and all after it: what a process finds when the power goes while it writes. Whoever waits for
//! [`NodeDisk::power_lost`] then crashes the process.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use seams::{
    Disk, DiskFile, Entropy, OpenMode,
    sim::{DiskFaults, SimDisk, Survived},
};
use tokio::sync::Notify;

use super::runtime::lock;

/// The disk of one node, over all its processes. Clones share it.
#[derive(Clone, Default)]
pub(super) struct NodeDisk {
    disk: SimDisk,
    power: Arc<Power>,
}

#[derive(Default)]
struct Power {
    state: Mutex<PowerState>,
    lost: Notify,
}

#[derive(Default)]
struct PowerState {
    /// So many changes and syncs still succeed; none for any number.
    left: Option<u64>,
    /// Syncs of the log's files report success and do nothing.
    lying: bool,
    /// No file can grow.
    full: bool,
}

impl NodeDisk {
    /// The power goes after `operations` more changes and syncs.
    pub(super) fn lose_power_after(&self, operations: u64) {
        lock(&self.power.state).left = Some(operations);
    }

    /// Completes when an operation has failed because the power is gone.
    pub(super) async fn power_lost(&self) {
        self.power.lost.notified().await;
    }

    /// From now on the log's files are not synced, though it is promised: what was acknowledged was not durable. For mutations.
    pub(super) fn lie(&self) {
        lock(&self.power.state).lying = true;
    }

    /// Power off, and on again: what was not synced is lost, or not, in order or otherwise.
    pub(super) fn crash(&self, entropy: &dyn Entropy) -> Survived {
        lock(&self.power.state).left = None;
        self.disk.crash(entropy)
    }

    /// The process is gone, and the system is not: the disk holds all that was written, and syncs what it likes, or nothing.
    pub(super) fn outlive(&self) {
        lock(&self.power.state).left = None;
    }

    /// No file can grow any more, or again.
    pub(super) fn full(&self, full: bool) {
        lock(&self.power.state).full = full;
        self.disk.set_faults(DiskFaults { capacity: full.then_some(0), ..DiskFaults::default() });
    }

    /// Whether it was made to fail.
    pub(super) fn is_failing(&self) -> bool {
        let state = lock(&self.power.state);
        state.full || state.left.is_some()
    }

    /// All files below folders of this name are gone, as when somebody deletes them.
    pub(super) fn lose(&self, folder: &str) {
        for path in self.disk.files() {
            if path.components().any(|part| part.as_os_str() == folder) {
                self.disk.remove_file(&path).expect("a file that is there");
            }
        }
        self.disk.sync_dir(Path::new("")).expect("a disk that works");
    }

    /// A copy of what is on it now, as a backup of a running node takes it.
    pub(super) fn image(&self) -> Self {
        let copy = SimDisk::new();
        for path in self.disk.files() {
            let bytes = self.disk.read(&path).unwrap_or_default();
            let file = copy.open(&path, OpenMode::CreateNew).expect("an empty disk");
            file.write_all_at(&bytes, 0).and_then(|()| file.sync_data()).expect("an empty disk");
        }
        copy.sync_dir(Path::new("")).expect("a disk that works");
        Self { disk: copy, ..Self::default() }
    }

    fn spend(&self) -> io::Result<()> {
        let mut state = lock(&self.power.state);
        match &mut state.left {
            None => Ok(()),
            Some(0) => {
                drop(state);
                self.power.lost.notify_one();
                Err(io::Error::other("simulated: the power is gone"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Disk for NodeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            self.spend()?;
        }
        let log = path.components().any(|part| part.as_os_str() == "log");
        Ok(Box::new(NodeFile { file: self.disk.open(path, mode)?, disk: self.clone(), log }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.disk.create_dir_all(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend()?;
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        self.disk.remove_file(path)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.spend()?;
        self.disk.sync_dir(folder)
    }
}

struct NodeFile {
    file: Box<dyn DiskFile>,
    disk: NodeDisk,
    /// Whether it is a file of the log, about which the disk may lie.
    log: bool,
}

impl DiskFile for NodeFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.spend()?;
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.spend()?;
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.spend()?;
        if self.log && lock(&self.disk.power.state).lying {
            return Ok(());
        }
        self.file.sync_data()
    }
}
