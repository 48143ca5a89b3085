//! One voter as in production: tokio, threads, real files, sled.

use std::{path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use seams::{Clock, Disk};
use types::{NodeId, UnixMillis};

use super::{
    commands::{account_id, create_account, init},
    files::RealDisk,
};
use crate::{AuditLog, AuditOptions, Bootstrap, Consensus, Drive, Limits, Options, SledTables, Timing, Unconnected};

/// A clock whose ticks never come due.
struct Still;

impl Clock for Still {
    fn wall(&self) -> UnixMillis {
        UnixMillis::new(1_700_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

async fn start(folder: &Path) -> Consensus {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let audit = AuditLog::open(disk.clone(), AuditOptions::new(folder.join("audit"))).unwrap();
    let voter = Consensus::start(Options {
        node: NodeId::new(1),
        disk,
        folder: folder.to_owned(),
        drive: Drive::Thread,
        tables: Some(Box::new(SledTables { folder: folder.join("table"), options: store::SledOptions::default() })),
        clock: Arc::new(Still),
        transport: Arc::new(Unconnected),
        applied: Arc::new(()),
        audit: Arc::new(audit),
        bootstrap: Some(Bootstrap::alone(NodeId::new(1), "127.0.0.1:0")),
        timing: Timing::default(),
        limits: Limits { snapshot_entries: 100, keep_entries: 20, ..Limits::default() },
    });
    let voter = voter.await.unwrap();
    voter.recovered().await.unwrap();
    voter
}

fn damage(folder: &Path) {
    let file = folder.join("table").join("db");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    for byte in bytes.iter_mut().take(middle + 4096).skip(middle.saturating_sub(4096)) {
        *byte ^= 0x55;
    }
    std::fs::write(&file, bytes).unwrap();
}

#[test]
fn voter_on_real_files_keeps_its_state_whatever_befalls_its_table() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4_u64 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let voter = start(folder.path()).await;
            if round == 0 {
                voter.propose(init(&[1])).await.unwrap();
            }
            for number in 1..=round * 200 {
                assert!(voter.local().account(account_id(number)).unwrap().is_some(), "round {round}: account {number}");
            }
            let writers = (1..=200).map(|number| voter.propose(create_account(round * 200 + number)));
            for result in futures::future::join_all(writers).await {
                result.unwrap();
            }
            assert_eq!(voter.linearizable().await.unwrap().state_root(), voter.local().state_root());
            voter.shutdown().await;
        });
        match round {
            1 => damage(folder.path()),
            2 => std::fs::remove_dir_all(folder.path().join("table")).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn voter_seeded_with_a_state_from_elsewhere_goes_on_from_it_alone() {
    let (before, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let voter = start(before.path()).await;
        voter.propose(init(&[1])).await.unwrap();
        voter.propose(create_account(1)).await.unwrap();
        let state = voter.local();
        voter.shutdown().await;
        let seed = || crate::seed(Arc::new(RealDisk), folder.path(), NodeId::new(1), "127.0.0.1:0", &state);
        seed().unwrap();
        assert_eq!(seed().unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        for account in 2..=3 {
            let voter = start(folder.path()).await;
            assert!(voter.local().applied_index() >= state.applied_index());
            for there in 1..account {
                assert!(voter.local().account(account_id(there)).unwrap().is_some(), "account {there}");
            }
            voter.propose(create_account(account)).await.unwrap();
            voter.shutdown().await;
        }
    });
}
