//! An edge of a run: the real follower on a simulated disk, in a process that can die.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use consensus::Drive;
use feed::{
    Anchor, CheckpointSeen, Core, CoreOptions, CoreParts, Follower, FollowerOptions, FollowerParts, FollowerStatus, Inline, NoKeys,
    OpenTable, Publish, Tables,
};
use seams::{Entropy, Table, TableError, sim::SimEntropy};
use state::Root;
use store::{MemTable, table::Visit};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::NodeId;

use super::{
    clock::{SimClock, Skew},
    disk::NodeDisk,
    history::History,
    net::Network,
    oracle::Oracle,
    runtime::{Process, lock},
    voter::{CLUSTER, chain},
};

/// Sizes that are small enough for everything to happen in a minute.
#[derive(Clone, Copy, Debug)]
pub struct EdgeSizes {
    /// Of a segment of the log.
    pub segment_bytes: u64,
    /// Of log between two snapshot files.
    pub snapshot_every_bytes: u64,
}

/// The edge's table, which outlives its processes and may be lost.
#[derive(Clone, Default)]
struct EdgeTable(Arc<Mutex<MemTable>>);

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

/// An edge, over all its processes.
pub struct Edge {
    /// Its number.
    pub node: NodeId,
    /// Its clock's error.
    pub skew: Skew,
    disk: Mutex<NodeDisk>,
    table: EdgeTable,
    sizes: EdgeSizes,
    anchor: Anchor,
    network: Network,
    oracle: Oracle,
    history: History,
    /// Jitter of the next process.
    seeds: SimEntropy,
    lying: AtomicBool,
    running: Mutex<Option<Running>>,
}

struct Running {
    process: Process,
    stop: CancellationToken,
    status: watch::Receiver<FollowerStatus>,
    ended: Arc<Mutex<Option<String>>>,
}

/// The readers of an edge.
struct Readers {
    node: NodeId,
    oracle: Oracle,
}

impl Publish for Readers {
    fn publish(&self, root: Arc<Root>) {
        self.oracle.published(self.node, &root);
    }

    fn checkpoint(&self, seen: CheckpointSeen) {
        self.oracle.checkpoint(self.node, seen);
    }
}

impl Edge {
    /// An edge that has never run.
    #[allow(clippy::too_many_arguments, reason = "the parts of a world, named one by one where it is made")]
    pub fn new(
        node: NodeId,
        seed: u64,
        sizes: EdgeSizes,
        anchor: Anchor,
        skew: Skew,
        network: Network,
        oracle: Oracle,
        history: History,
    ) -> Self {
        Self {
            node,
            skew,
            disk: Mutex::default(),
            table: EdgeTable::default(),
            sizes,
            anchor,
            network,
            oracle,
            history,
            seeds: SimEntropy::new(seed),
            lying: AtomicBool::new(false),
            running: Mutex::default(),
        }
    }

    /// From now on what is synced to its disk is not durable, and its table goes with each crash. For mutations.
    pub fn lie(&self) {
        self.lying.store(true, Ordering::Relaxed);
        self.disk().lie();
    }

    /// Its disk, as of now.
    pub fn disk(&self) -> NodeDisk {
        lock(&self.disk).clone()
    }

    /// Starts a process on what is on the disk. It must show at once what it holds, whether or not the voter is there.
    ///
    /// # Errors
    /// Why it did not start, in words.
    pub async fn start(&self) -> Result<(), String> {
        self.history.event(format_args!("edge {} starts", self.node));
        self.oracle.edge_starts(self.node);
        let process = Process::new();
        let clock = Arc::new(SimClock::new(self.skew.clone()));
        let mut options = CoreOptions::new(CLUSTER, self.anchor, "edge");
        options.drive = Drive::Inline;
        // So small that the values of a run are large ones.
        options.inline_bytes_max = 32;
        (options.segment_bytes, options.snapshot_every_bytes) = (self.sizes.segment_bytes, self.sizes.snapshot_every_bytes);
        let parts = CoreParts {
            clock: clock.clone(),
            disk: Arc::new(self.disk()),
            tables: Box::new(self.table.clone()),
            publish: Arc::new(Readers { node: self.node, oracle: self.oracle.clone() }),
            keys: Arc::new(NoKeys),
        };
        let opened = process.call(async move { Core::open(options, parts) }).await;
        let core = match opened.unwrap_or(Err(feed::FeedError::Lost)) {
            Ok(core) => core,
            Err(error) => {
                process.kill();
                return Err(chain(&error));
            }
        };
        self.oracle.edge_recovered(self.node);
        let parts = FollowerParts {
            dial: self.network.dialer(self.node),
            clock,
            entropy: Arc::new(SimEntropy::new(self.seeds.number())),
            offload: Arc::new(Inline),
            keys: Arc::new(NoKeys),
        };
        let follower = Follower::new(core, FollowerOptions::new(CLUSTER, self.node), parts);
        let (stop, status, ended) = (CancellationToken::new(), follower.status(), Arc::new(Mutex::new(None)));
        let (token, end, history, node) = (stop.clone(), ended.clone(), self.history.clone(), self.node);
        process.spawn(async move {
            let result = follower.run(token).await;
            let text = result.map_or_else(|error| chain(&error), |()| "stopped".to_owned());
            history.event(format_args!("edge {node} ended: {text}"));
            *lock(&end) = Some(text);
        });
        *lock(&self.running) = Some(Running { process, stop, status, ended });
        Ok(())
    }

    /// Whether a process is running.
    pub fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }

    /// Why the follower has ended by itself, if it has.
    pub fn ended(&self) -> Option<String> {
        lock(&self.running).as_ref().and_then(|running| lock(&running.ended).clone())
    }

    /// What the follower says of itself.
    pub fn status(&self) -> Option<FollowerStatus> {
        lock(&self.running).as_ref().map(|running| running.status.borrow().clone())
    }

    /// Ends the process in good order.
    pub async fn stop(&self) {
        let Some(running) = lock(&self.running).take() else { return };
        running.stop.cancel();
        let ended = running.ended.clone();
        super::clock::until(move || lock(&ended).is_some(), std::time::Duration::from_secs(5)).await;
        self.end(&running);
        self.history.event(format_args!("edge {} stopped", self.node));
    }

    /// The power goes: the process ends where it is, and the disk keeps what was synced, and maybe more.
    pub fn crash(&self, entropy: &dyn Entropy) {
        if let Some(running) = lock(&self.running).take() {
            self.end(&running);
        }
        lock(&self.disk).crash(entropy);
        lock(&self.table.0).crash(entropy);
        if self.lying.load(Ordering::Relaxed) {
            self.lose_table();
        }
        self.history.event(format_args!("edge {} crashed", self.node));
    }

    /// The table is gone, as when somebody deletes its folder. The edge must not be running.
    pub fn lose_table(&self) {
        *lock(&self.table.0) = MemTable::default();
    }

    /// The whole disk is gone. The edge must not be running.
    pub fn lose_disk(&self) {
        *lock(&self.disk) = NodeDisk::default();
        self.lose_table();
        self.oracle.edge_lost_everything(self.node);
    }

    fn end(&self, Running { process, status, .. }: &Running) {
        let faults = status.borrow().faults;
        (0..faults).for_each(|_| self.history.count("faults refused"));
        process.kill();
        if process.panics() > 0 {
            self.history.violated("no panic", format_args!("{} tasks of edge {} panicked", process.panics(), self.node));
        }
    }
}
