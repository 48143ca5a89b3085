//! openraft's storage suite on our log and state machine, on real files and on the simulated disk.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use openraft_rt_tokio::TokioRuntime;
use seams::{Disk, sim::SimDisk};
use store::{Drive, LogOptions, LogWriter, MemTable, WriteBehind, WriteBehindOptions};

use super::{files::RealDisk, rig::SEGMENT_BYTES};
use crate::{
    NoAudit,
    log::{RaftLog, SnapshotMark},
    machine::{Core, Machine},
    offload::Offload,
    raft::Types,
    recovery,
    snapshot::Snapshots,
    stop::Stop,
};

type Raft = Types<TokioRuntime>;

struct OnRealFiles;

impl StoreBuilder<Raft, RaftLog<TokioRuntime>, Machine<TokioRuntime>, tempfile::TempDir> for OnRealFiles {
    async fn build(&self) -> Result<(tempfile::TempDir, RaftLog<TokioRuntime>, Machine<TokioRuntime>), StorageError<Raft>> {
        let folder = tempfile::tempdir().unwrap();
        let (log, machine) = storage(Arc::new(RealDisk), folder.path(), Drive::Thread);
        Ok((folder, log, machine))
    }
}

/// One disk for all voters of the suite: it hands the snapshot file of one to another by its path.
#[derive(Default)]
struct OnSimDisk {
    disk: SimDisk,
    voters: AtomicU64,
}

impl StoreBuilder<Raft, RaftLog<TokioRuntime>, Machine<TokioRuntime>> for OnSimDisk {
    async fn build(&self) -> Result<((), RaftLog<TokioRuntime>, Machine<TokioRuntime>), StorageError<Raft>> {
        let folder = format!("voter-{}", self.voters.fetch_add(1, Ordering::Relaxed));
        let (log, machine) = storage(Arc::new(self.disk.clone()), folder.as_ref(), Drive::Inline);
        Ok(((), log, machine))
    }
}

fn storage(disk: Arc<dyn Disk>, folder: &std::path::Path, drive: Drive) -> (RaftLog<TokioRuntime>, Machine<TokioRuntime>) {
    let offload = Offload::new(drive);
    // The suite purges without snapshots.
    let (writer, reader) =
        LogWriter::open(disk.clone(), LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::new(folder.join("log")) }, drive).unwrap();
    let log = RaftLog::new(writer, reader, SnapshotMark::default(), offload);
    let snapshots = Snapshots::open(disk, &folder.join("snapshots"), folder.join("incoming"), SnapshotMark::default()).unwrap();
    let (standing, state) = recovery::nothing();
    let core = Core {
        shown: state.into(),
        applied: Arc::new(()),
        audit: Arc::new(NoAudit),
        level_max: state::FEATURE_LEVEL_MAX,
        stop: Stop::new(),
    };
    let behind = WriteBehind::start(Box::new(MemTable::default()), WriteBehindOptions::default(), drive).unwrap();
    (log, Machine::new(Arc::new(core), standing, Some(behind), Arc::new(snapshots), offload))
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_suite_of_openraft_passes_on_real_files() {
    Suite::<Raft, _, _, _, _>::test_all(OnRealFiles).await.unwrap();
}

#[tokio::test]
pub(super) async fn storage_suite_of_openraft_passes_on_the_simulated_disk() {
    Suite::<Raft, _, _, _, _>::test_all(OnSimDisk::default()).await.unwrap();
}

#[tokio::test]
async fn purge_above_the_newest_snapshot_file_is_refused() {
    use openraft::storage::RaftLogStorage;

    let disk = Arc::new(SimDisk::new());
    let (writer, reader) = LogWriter::open(disk, LogOptions::new("log"), Drive::Inline).unwrap();
    let mark = SnapshotMark::new(None);
    let mut log = RaftLog::<TokioRuntime>::new(writer, reader, mark.clone(), Offload::new(Drive::Inline));
    assert!(log.purge(crate::raft::log_id(1, 3)).await.unwrap_err().to_string().contains("no durable snapshot file"));
    mark.raise(2);
    assert!(log.purge(crate::raft::log_id(1, 3)).await.is_err());
    mark.raise(3);
    log.purge(crate::raft::log_id(1, 3)).await.unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(crate::raft::log_id(1, 3)));
}
