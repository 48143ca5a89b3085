//! An edge of a run: the real follower and the real lookup path on a simulated disk, in a process that can die.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use consensus::Drive;
use feed::{
    Anchor, CheckpointSeen, Core, CoreOptions, CoreParts, FeedError, Follower, FollowerOptions, FollowerParts, FollowerStatus, Inline,
    NoKeys, OpenTable, Publish, Tables,
};
use lookup::{Checkpoint, Lookup, Served, Serving};
use openraft::AsyncRuntime;
use seal::KeyRing;
use seams::{Entropy, Table, TableError, sim::SimEntropy};
use state::Root;
use store::{MemTable, table::Visit};
use tokio_util::sync::CancellationToken;
use types::NodeId;

use super::{
    clock::{SimClock, Skew},
    disk::NodeDisk,
    runtime::{NodeRuntime, Process, lock},
    voter::{CLUSTER, Shared, chain},
};

/// How long an edge waits before it opens its disk again after that has failed, as in production.
const REOPEN: Duration = Duration::from_secs(1);
/// Secrets whose lookups are counted.
const SERVED_ROWS: usize = 100;

/// Sizes that are small enough for everything to happen in ten seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct EdgeSizes {
    /// Of a segment of the log.
    pub(super) segment_bytes: u64,
    /// Of log between two snapshot files.
    pub(super) snapshot_every_bytes: u64,
}

/// The edge's table, which outlives its processes and may be lost.
#[derive(Clone, Default)]
struct EdgeTable(Arc<Mutex<MemTable>>);

impl EdgeTable {
    fn image(&self) -> Self {
        let mut copy = MemTable::default();
        let mut batch = seams::TableBatch::default();
        let copied = lock(&self.0).scan(&mut |key, value| {
            batch.put(key, value);
            Ok(())
        });
        copied.and_then(|()| copy.write(&batch)).and_then(|()| copy.flush()).expect("a table in memory");
        Self(Arc::new(Mutex::new(copy)))
    }
}

impl Tables for EdgeTable {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        let table = lock(&self.0).clone();
        match table.scan(visit) {
            Ok(()) => Ok(OpenTable { table: Box::new(table), damage: None }),
            Err(damage) => Ok(OpenTable { table: self.reset()?, damage: Some(damage) }),
        }
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        let table = MemTable::default();
        *lock(&self.0) = table.clone();
        Ok(Box::new(table))
    }
}

/// A copy of an edge's disk and table.
pub(super) struct Backup {
    disk: NodeDisk,
    table: EdgeTable,
}

/// An edge, over all its processes.
pub(super) struct Edge {
    /// Its number.
    pub(super) node: NodeId,
    /// Its clock's error.
    pub(super) skew: Skew,
    disk: Mutex<NodeDisk>,
    table: Mutex<EdgeTable>,
    sizes: EdgeSizes,
    anchor: Anchor,
    keys: Arc<KeyRing>,
    shared: Shared,
    /// Jitter of the next process.
    seeds: SimEntropy,
    lying: AtomicBool,
    /// Its registry entry is revoked, or may be.
    revoked: AtomicBool,
    running: Mutex<Option<Running>>,
}

/// A process of an edge's.
#[derive(Clone)]
struct Running {
    process: Process,
    stop: CancellationToken,
    lookup: Arc<Lookup>,
    faults: Arc<AtomicU64>,
    status: Arc<Mutex<FollowerStatus>>,
    ended: Arc<AtomicBool>,
    /// It has lost its disk and has not opened it again yet.
    closed: Arc<AtomicBool>,
}

/// The readers of an edge, as `edge`'s own glue has them: keys are there already, then the root.
struct Readers {
    node: NodeId,
    serving: Arc<Serving>,
    shared: Shared,
}

impl Publish for Readers {
    fn publish(&self, root: Arc<Root>) {
        if root.state.node(self.node).is_ok_and(|record| record.is_some_and(|record| record.revoked.is_some())) {
            self.serving.revoke();
        }
        self.serving.publish(root.clone());
        // An older one than readers see is passed over.
        if self.serving.position() == Some(root.state.position()) {
            self.shared.oracle.published(self.node, &root);
        }
    }

    fn checkpoint(&self, seen: CheckpointSeen) {
        let clock = &**self.serving.clock();
        self.serving.checkpoint(match seen.restored_wall {
            None => Checkpoint::received(seen.time, clock),
            Some(mark) => Checkpoint::restored(seen.time, mark, clock),
        });
        self.shared.oracle.checkpoint(self.node, seen);
    }
}

/// What a follower is opened with, again and again.
struct Following {
    core: CoreOptions,
    node: NodeId,
    clock: Arc<SimClock>,
    disk: NodeDisk,
    table: EdgeTable,
    readers: Arc<Readers>,
    seeds: SimEntropy,
    shared: Shared,
}

impl Following {
    fn open(&self) -> Result<Follower, FeedError> {
        let parts = CoreParts {
            clock: self.clock.clone(),
            disk: Arc::new(self.disk.clone()),
            tables: Box::new(self.table.clone()),
            publish: self.readers.clone(),
            keys: Arc::new(NoKeys),
        };
        let core = Core::open(self.core.clone(), parts)?;
        let parts = FollowerParts {
            dial: self.shared.network.dialer(self.node),
            clock: self.clock.clone(),
            entropy: Arc::new(SimEntropy::new(self.seeds.number())),
            offload: Arc::new(Inline),
            keys: Arc::new(NoKeys),
        };
        let options = FollowerOptions { backoff_max: Duration::from_secs(2), ..FollowerOptions::new(CLUSTER, self.node) };
        Ok(Follower::new(core, options, parts))
    }

    /// As production does: a follower that has lost its disk is opened again after a pause, and readers keep what was published.
    async fn run(self, mut follower: Follower, running: Running) {
        loop {
            let status = follower.status();
            *lock(&running.status) = status.borrow().clone();
            let watched = tokio::select! {
                biased;
                ended = follower.run(running.stop.clone()) => ended,
                () = watch(status, &running) => Ok(()),
            };
            let error = match watched {
                Ok(()) => break,
                Err(error) => error,
            };
            self.shared.history.event(format_args!("edge {} has lost its disk: {}", self.node, chain(&error)));
            self.shared.history.count("followers opened again");
            running.closed.store(true, Ordering::Relaxed);
            follower = loop {
                NodeRuntime::sleep(REOPEN).await;
                if running.stop.is_cancelled() {
                    running.ended.store(true, Ordering::Relaxed);
                    return;
                }
                self.shared.oracle.edge_opens_again(self.node);
                match self.open() {
                    Ok(follower) => {
                        running.closed.store(false, Ordering::Relaxed);
                        break follower;
                    }
                    Err(error) => self.shared.history.event(format_args!("edge {} cannot open: {}", self.node, chain(&error))),
                }
            };
        }
        running.ended.store(true, Ordering::Relaxed);
    }
}

/// Keeps the status at hand. Never ends before the follower does.
async fn watch(mut status: tokio::sync::watch::Receiver<FollowerStatus>, running: &Running) {
    let before = running.faults.load(Ordering::Relaxed);
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        running.faults.store(before + now.faults, Ordering::Relaxed);
        *lock(&running.status) = now;
    }
    std::future::pending().await
}

impl Edge {
    /// An edge that has never run.
    pub(super) fn new(
        node: NodeId,
        seed: u64,
        sizes: EdgeSizes,
        anchor: Anchor,
        skew: Skew,
        (keys, shared): (Arc<KeyRing>, Shared),
    ) -> Self {
        shared.oracle.skewed(skew.ms());
        Self {
            node,
            skew,
            disk: Mutex::default(),
            table: Mutex::default(),
            sizes,
            anchor,
            keys,
            shared,
            seeds: SimEntropy::new(seed),
            lying: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            running: Mutex::default(),
        }
    }

    /// From now on what is synced to its disk is not durable, and its table goes with each crash. For mutations.
    pub(super) fn lie(&self) {
        self.lying.store(true, Ordering::Relaxed);
        self.disk().lie();
    }

    /// Its disk, as of now.
    pub(super) fn disk(&self) -> NodeDisk {
        lock(&self.disk).clone()
    }

    /// Somebody has asked for its revocation.
    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    pub(super) fn may_be_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }

    /// Starts a process on what is on the disk. It must show at once what it holds, whether or not any voter is there.
    ///
    /// # Errors
    /// Why it did not start, in words.
    pub(super) async fn start(&self) -> Result<(), String> {
        self.shared.history.event(format_args!("edge {} starts", self.node));
        self.shared.oracle.edge_starts(self.node);
        let process = Process::new();
        let clock = Arc::new(SimClock::new(self.skew.clone()));
        let serving = Arc::new(Serving::new(clock.clone(), self.keys.clone()));
        let name = format!("edge-{}", self.node).parse().expect("a name");
        let lookup = Arc::new(Lookup::new(serving.clone(), Arc::new(Served::new(SERVED_ROWS)), &name));
        let mut core = CoreOptions::new(CLUSTER, self.anchor, "edge");
        core.drive = Drive::Inline;
        // So small that the values of a run are large ones.
        core.inline_bytes_max = 32;
        (core.segment_bytes, core.snapshot_every_bytes) = (self.sizes.segment_bytes, self.sizes.snapshot_every_bytes);
        let following = Following {
            core,
            node: self.node,
            clock,
            disk: self.disk(),
            table: lock(&self.table).clone(),
            readers: Arc::new(Readers { node: self.node, serving, shared: self.shared.clone() }),
            seeds: SimEntropy::new(self.seeds.number()),
            shared: self.shared.clone(),
        };
        let opened = process.call(async move { following.open().map(|follower| (following, follower)) }).await;
        let (following, follower) = match opened.unwrap_or(Err(FeedError::Lost)) {
            Ok(opened) => opened,
            Err(error) => {
                process.kill();
                return Err(chain(&error));
            }
        };
        self.shared.oracle.edge_recovered(self.node);
        let running = Running {
            process: process.clone(),
            stop: CancellationToken::new(),
            lookup,
            faults: Arc::default(),
            status: Arc::default(),
            ended: Arc::default(),
            closed: Arc::default(),
        };
        process.spawn(following.run(follower, running.clone()));
        *lock(&self.running) = Some(running);
        Ok(())
    }

    /// Whether a process is running.
    pub(super) fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }

    /// What the follower says of itself.
    pub(super) fn status(&self) -> Option<FollowerStatus> {
        lock(&self.running).as_ref().map(|running| lock(&running.status).clone())
    }

    /// Where its clients look up, while it runs.
    pub(super) fn lookup(&self) -> Option<Arc<Lookup>> {
        lock(&self.running).as_ref().map(|running| running.lookup.clone())
    }

    /// Whether values that lie on its disk cannot be read: it was made to fail, or is not open again yet.
    pub(super) fn disk_fails(&self) -> bool {
        self.disk().is_failing() || lock(&self.running).as_ref().is_some_and(|running| running.closed.load(Ordering::Relaxed))
    }

    /// Ends the process in good order.
    pub(super) async fn stop(&self) {
        let Some(running) = lock(&self.running).take() else { return };
        running.stop.cancel();
        let ended = running.ended.clone();
        super::clock::until(move || ended.load(Ordering::Relaxed), Duration::from_secs(5)).await;
        self.end(&running);
        self.shared.history.event(format_args!("edge {} stopped", self.node));
    }

    /// The power goes: the process ends where it is, and the disk keeps what was synced, and maybe more.
    pub(super) fn crash(&self, entropy: &dyn Entropy) {
        self.die();
        let survived = lock(&self.disk).crash(entropy);
        self.shared.history.survived(self.node, survived);
        lock(&lock(&self.table).0).crash(entropy);
        if self.lying.load(Ordering::Relaxed) {
            self.lose_table();
        }
        self.shared.history.event(format_args!("edge {} crashed", self.node));
    }

    /// The process ends where it is, and the system goes on: the next one finds all that was written, synced or not. What the table
    /// had not written is gone.
    pub(super) fn kill(&self, entropy: &dyn Entropy) {
        self.die();
        lock(&self.disk).outlive();
        lock(&lock(&self.table).0).crash(entropy);
        if self.lying.load(Ordering::Relaxed) {
            self.lose_table();
        }
        self.shared.history.count("processes killed while writing");
        self.shared.history.event(format_args!("edge {} was killed", self.node));
    }

    fn die(&self) {
        if let Some(running) = lock(&self.running).take() {
            self.end(&running);
        }
    }

    /// The table is gone, as when somebody deletes its folder. The edge must not be running.
    pub(super) fn lose_table(&self) {
        *lock(&self.table) = EdgeTable::default();
    }

    /// The log is gone, and the table. The edge must not be running.
    pub(super) fn lose_log(&self) {
        self.disk().lose("log");
        self.lose_table();
        self.shared.network.sever(self.node);
        self.shared.oracle.edge_lost_its_log(self.node);
    }

    /// The whole disk is gone. The edge must not be running.
    pub(super) fn lose_disk(&self) {
        *lock(&self.disk) = NodeDisk::default();
        self.lose_table();
        self.shared.network.sever(self.node);
        self.shared.oracle.edge_lost_everything(self.node);
    }

    /// What is on its disk now.
    pub(super) fn backup(&self) -> Backup {
        Backup { disk: self.disk().image(), table: lock(&self.table).image() }
    }

    /// The disk is that of a backup again. The edge must not be running.
    pub(super) fn restore(&self, backup: Backup) {
        *lock(&self.disk) = backup.disk;
        *lock(&self.table) = backup.table;
        self.shared.network.sever(self.node);
        self.shared.oracle.edge_lost_everything(self.node);
    }

    fn end(&self, Running { process, faults, .. }: &Running) {
        (0..faults.load(Ordering::Relaxed)).for_each(|_| self.shared.history.count("faults refused"));
        process.kill();
        if process.panics() > 0 {
            self.shared.history.violated("no panic", format_args!("{} tasks of edge {} panicked", process.panics(), self.node));
        }
    }
}
