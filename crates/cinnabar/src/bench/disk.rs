//! The machine's disk, with every fdatasync counted and timed.
//!
//! Files are told apart by where they lie: the Raft log, the audit log, the logs of edges, and the rest. sled opens its own files, so
//! the tables written behind are not among them; they share the disk all the same.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use runtime::{RealClock, RealDisk};
use seams::{Clock, Disk, DiskFile, OpenMode};

use super::report::{Latencies, Row};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The control node's Raft log: what a write waits for.
    RaftLog,
    /// The audit log beside it, which nobody waits for.
    AuditLog,
    /// An edge's log: what an acknowledgement waits for.
    EdgeLog,
    /// Marks, snapshots, envelopes.
    Other,
}

impl Use {
    const ALL: [Self; 4] = [Self::RaftLog, Self::AuditLog, Self::EdgeLog, Self::Other];

    fn name(self) -> &'static str {
        match self {
            Self::RaftLog => "fdatasync of the Raft log",
            Self::AuditLog => "fdatasync of the audit log",
            Self::EdgeLog => "fdatasync of an edge's log",
            Self::Other => "fdatasync of marks and snapshots",
        }
    }

    /// By the names of the folders it lies in. A segment is opened as `.new` and renamed later.
    fn of(path: &Path) -> Self {
        let segment = path.extension().is_some_and(|extension| extension == "seg" || extension == "new");
        let below = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
        match () {
            () if segment && below("audit") => Self::AuditLog,
            () if segment && below("raft") => Self::RaftLog,
            () if segment && below("feed") => Self::EdgeLog,
            () => Self::Other,
        }
    }
}

/// The disk. Clones share the counts.
#[derive(Clone)]
pub(super) struct CountingDisk {
    clock: RealClock,
    syncs: Arc<[Mutex<Latencies>; Use::ALL.len()]>,
}

impl CountingDisk {
    pub(super) fn new(clock: RealClock) -> Result<Self> {
        let none = || Latencies::new().map(Mutex::new);
        Ok(Self { clock, syncs: Arc::new([none()?, none()?, none()?, none()?]) })
    }

    /// The fdatasyncs since this was last asked, by use.
    pub(super) fn take(&self) -> Result<Vec<(Use, Latencies)>> {
        Use::ALL.into_iter().map(|what| Ok((what, std::mem::replace(&mut *self.lock(what), Latencies::new()?)))).collect()
    }

    fn lock(&self, what: Use) -> MutexGuard<'_, Latencies> {
        self.syncs[what as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row for each use that there was.
pub(super) fn rows(syncs: &[(Use, Latencies)], elapsed: Duration) -> Vec<Row> {
    let there = syncs.iter().filter(|(_, latencies)| latencies.count() > 0);
    there.map(|(what, latencies)| Row::new(what.name(), 1, latencies, Some(elapsed))).collect()
}

/// How long one small write takes to be durable on the disk of `folder` while nothing else happens: 4 KiB into a file that has its
/// length already, then fdatasync.
pub(super) fn probe(folder: &Path, clock: &RealClock) -> Result<Row> {
    const WRITES: u32 = 300;
    let path = folder.join("probe");
    let file = RealDisk.open(&path, OpenMode::CreateNew).context("cannot make a file to probe the disk with")?;
    let block = [7; 4096];
    for at in 0..256 {
        file.write_all_at(&block, at * 4096)?;
    }
    file.sync_data()?;
    let (mut latencies, started) = (Latencies::new()?, clock.monotonic());
    for at in 0..u64::from(WRITES) {
        let began = clock.monotonic();
        file.write_all_at(&block, at % 256 * 4096)?;
        file.sync_data()?;
        latencies.record(clock.monotonic() - began);
    }
    let elapsed = clock.monotonic() - started;
    drop(file);
    RealDisk.remove_file(&path)?;
    Ok(Row::new("the disk alone: write 4 KiB, fdatasync", 1, &latencies, Some(elapsed)))
}

impl Disk for CountingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(CountingFile { file: RealDisk.open(path, mode)?, what: Use::of(path), disk: self.clone() }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn remove_dir(&self, folder: &Path) -> io::Result<()> {
        RealDisk.remove_dir(folder)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_dir(folder)
    }
}

struct CountingFile {
    file: Box<dyn DiskFile>,
    what: Use,
    disk: CountingDisk,
}

impl DiskFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn is_private(&self) -> io::Result<bool> {
        self.file.is_private()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        let began = self.disk.clock.monotonic();
        let synced = self.file.sync_data();
        let took = self.disk.clock.monotonic() - began;
        self.disk.lock(self.what).record(took);
        synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_of_a_file_is_told_by_its_folders() {
        for (path, what) in [
            ("/d/control-1/raft/log/0000000000000001.seg", Use::RaftLog),
            ("/d/control-1/raft/log/0000000000000002.new", Use::RaftLog),
            ("/d/control-1/raft/snapshots/1.snap", Use::Other),
            ("/d/control-1/audit/from-1/0000000000000001.seg", Use::AuditLog),
            ("/d/edge-1/feed/log/0000000000000001.seg", Use::EdgeLog),
            ("/d/edge-1/feed/mark", Use::Other),
        ] {
            assert_eq!(Use::of(Path::new(path)), what, "{path}");
        }
    }

    #[test]
    fn disk_counts_each_sync_under_its_use_once() {
        let folder = tempfile::tempdir().unwrap();
        let disk = CountingDisk::new(RealClock::new()).unwrap();
        let log = folder.path().join("feed");
        disk.create_dir_all(&log).unwrap();
        let file = disk.open(&log.join("1.new"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        let counts = |disk: &CountingDisk| disk.take().unwrap().iter().map(|(_, syncs)| syncs.count()).collect::<Vec<_>>();
        assert_eq!(counts(&disk), [0, 0, 1, 0]);
        assert_eq!(counts(&disk), [0, 0, 0, 0]);
    }
}
