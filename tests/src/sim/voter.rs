//! A voter of a run: the real consensus, publisher and stream service on a simulated disk, in a process that can die.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use consensus::{
    Applied, AuditLog, AuditOptions, Bootstrap, ChangeError, Consensus, Drive, Limits, MemTables, Options, ProposeError, Status, Timing,
};
use feed::{
    Acks, AcksOptions, Inline, NoHandover, Publisher, PublisherOptions, PublisherParts, Session, SigningKey, WindowLimits, serve_subscriber,
};
use futures::FutureExt;
use openraft::AsyncRuntime;
use seams::{Clock, Entropy, sim::SimEntropy};
use state::{ChangeSet, Command, Reply, State};
use store::MemTable;
use types::{ClusterId, NodeId, UnixMillis};

use super::{
    clock::{SimClock, Skew},
    disk::NodeDisk,
    history::History,
    net::{Endpoint, Network},
    oracle::Oracle,
    peers::Port,
    runtime::{NodeRuntime, Process, lock},
};

/// The cluster of a run.
pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(20);
/// How long a proposal, a read or a change of members waits, an election included.
const DEADLINE: Duration = Duration::from_secs(2);

/// Sizes that are small enough for everything to happen in ten seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoterSizes {
    /// Change sets that the window holds: an edge that is further behind gets a snapshot.
    pub(super) window_sets: usize,
    /// Entries between two snapshot files.
    pub(super) snapshot_entries: u64,
    /// Entries kept below one.
    pub(super) keep_entries: u64,
    /// Bytes of a segment of its logs.
    pub(super) segment_bytes: u64,
    /// Bytes of one batch of the feed.
    pub(super) batch_bytes: usize,
    /// Bytes of one chunk of a snapshot of the feed.
    pub(super) chunk_bytes: usize,
    /// Between two ticks.
    pub(super) tick: Duration,
    /// Whether appends go out in streams.
    pub(super) pipelines: bool,
}

/// What all nodes of a run share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) history: History,
}

/// A voter, over all its processes.
pub(super) struct Voter {
    pub(super) node: NodeId,
    /// Its disk.
    pub(super) disk: NodeDisk,
    /// Its clock's error.
    pub(super) skew: Skew,
    table: MemTable,
    sizes: VoterSizes,
    key_seed: u64,
    /// The first voters of the cluster, if it is one of them.
    first: Vec<NodeId>,
    shared: Shared,
    /// Its disk is gone for ever, or it was removed: it never starts again.
    gone: AtomicBool,
    /// Its disk was full: it may stop by itself.
    pub(super) may_stop: AtomicBool,
    running: Mutex<Option<Running>>,
}

/// A process of a voter's.
#[derive(Clone)]
struct Running {
    process: Process,
    consensus: Consensus,
    acks: Arc<Acks>,
    clock: Arc<SimClock>,
}

/// What a client learns when it sends a command.
pub(super) enum Answer {
    /// Nobody listened: nothing was proposed.
    NotSent,
    /// The connection broke before the answer came.
    Lost,
    /// The voter's own answer.
    Replied(Result<Reply, ProposeError>),
}

/// A change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add(NodeId),
    Promote(NodeId),
    Remove(NodeId),
}

/// Tells the books first, for what the feed makes of it goes out at once.
struct Listener {
    node: NodeId,
    publisher: Arc<Publisher>,
    oracle: Oracle,
}

impl Applied for Listener {
    fn replaced(&self, state: &State) {
        self.oracle.began(self.node, state);
        self.publisher.replaced(state);
    }

    fn applied(&self, sets: &[Arc<ChangeSet>], state: &State) {
        self.oracle.committed(self.node, sets, state);
        self.publisher.applied(sets, state);
    }

    fn ticked(&self, state: &State, time: UnixMillis) {
        self.oracle.ticked(state, time);
        self.publisher.ticked(state, time);
    }
}

impl Voter {
    /// A voter that has never run. `first`: those that found the cluster; none for one that is added later.
    pub(super) fn new(node: NodeId, first: Vec<NodeId>, seed: u64, sizes: VoterSizes, skew: Skew, shared: Shared) -> Self {
        shared.oracle.skewed(skew.ms());
        Self {
            node,
            disk: NodeDisk::default(),
            skew,
            table: MemTable::default(),
            sizes,
            key_seed: seed,
            first,
            shared,
            gone: AtomicBool::new(false),
            may_stop: AtomicBool::new(false),
            running: Mutex::default(),
        }
    }

    /// The key that it signs seals with.
    pub(super) fn signing_key(&self) -> SigningKey {
        SigningKey::generate(&SimEntropy::new(self.key_seed))
    }

    /// It never starts again.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Starts a process on what is on the disk.
    ///
    /// # Errors
    /// Why it did not start, in words.
    pub(super) async fn start(&self) -> Result<(), String> {
        self.shared.history.event(format_args!("voter {} starts", self.node));
        self.may_stop.store(false, Ordering::Relaxed);
        let process = Process::new();
        let clock = Arc::new(SimClock::new(self.skew.clone()));
        let acks = Acks::new(AcksOptions::default(), clock.clone());
        let parts = PublisherParts { clock: clock.clone(), offload: Arc::new(Inline), handover: Arc::new(NoHandover), acks: acks.clone() };
        let mut options = PublisherOptions::new(CLUSTER, self.node);
        options.window = WindowLimits { sets_max: self.sizes.window_sets, mark_every: 16, ..WindowLimits::default() };
        (options.batch_bytes_max, options.chunk_bytes) = (self.sizes.batch_bytes, self.sizes.chunk_bytes);
        let publisher = Publisher::new(options, self.signing_key(), parts, &State::empty());
        let started = self.consensus(&process, publisher.clone(), clock.clone()).await;
        let consensus = match started {
            Ok(consensus) => consensus,
            Err(error) => {
                process.kill();
                return Err(error);
            }
        };
        let (owner, clocked) = (process.clone(), publisher);
        let accept = Arc::new(move |edge, link| {
            let publisher = clocked.clone();
            owner.spawn(async move {
                let _end = serve_subscriber(link, publisher, Session::new(edge)).await;
            });
        });
        self.shared.network.up(self.node, Endpoint { process: process.clone(), consensus: consensus.clone() }, accept);
        *lock(&self.running) = Some(Running { process, consensus, acks, clock });
        Ok(())
    }

    async fn consensus(&self, process: &Process, publisher: Arc<Publisher>, clock: Arc<SimClock>) -> Result<Consensus, String> {
        let disk: Arc<dyn seams::Disk> = Arc::new(self.disk.clone());
        // Small parts of small files, which a simulated disk copies quickly.
        let audited = AuditOptions { bytes_max: 128 * self.sizes.segment_bytes, ..AuditOptions::new("voter/audit") };
        let audit = AuditLog::open(disk.clone(), audited).map_err(|error| chain(&error))?;
        let voters: BTreeMap<NodeId, String> = self.first.iter().map(|node| (*node, address(*node))).collect();
        let port = Port { network: self.shared.network.clone(), from: self.node, pipelines: self.sizes.pipelines };
        let options = Options {
            node: self.node,
            disk,
            folder: "voter".into(),
            drive: Drive::Manual,
            tables: Some(Box::new(MemTables(self.table.clone()))),
            clock,
            transport: Arc::new(port),
            applied: Arc::new(Listener { node: self.node, publisher, oracle: self.shared.oracle.clone() }),
            audit: Arc::new(audit),
            bootstrap: (!voters.is_empty()).then_some(Bootstrap { voters }),
            timing: Timing { deadline: DEADLINE, tick: self.sizes.tick, drain: DEADLINE, ..Timing::default() },
            limits: Limits {
                snapshot_entries: self.sizes.snapshot_entries,
                keep_entries: self.sizes.keep_entries,
                segment_bytes: self.sizes.segment_bytes,
                ..Limits::default()
            },
        };
        tokio::select! {
            biased;
            started = process.inside(Box::pin(Consensus::start_on::<NodeRuntime>(options))) => started.map_err(|error| chain(&error)),
            () = NodeRuntime::sleep(START_MAX) => Err(format!("it has not started after {START_MAX:?}")),
        }
    }

    /// Whether a process is running.
    pub(super) fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }

    fn now(&self) -> Option<Running> {
        lock(&self.running).clone()
    }

    /// How the running process stands.
    pub(super) fn status(&self) -> Option<Status> {
        self.now().map(|running| running.consensus.status())
    }

    /// What the running process has applied.
    pub(super) fn local(&self) -> Option<State> {
        self.now().map(|running| running.consensus.local())
    }

    /// The wall clock as the running process sees it.
    pub(super) fn wall(&self) -> Option<UnixMillis> {
        self.now().map(|running| running.clock.wall())
    }

    /// Sends a command, waits for its answer, and may lose either on the way.
    pub(super) async fn propose(&self, command: Command) -> Answer {
        let Some(Running { process, consensus, .. }) = self.now() else { return Answer::NotSent };
        match process.call(async move { consensus.propose(command).await }).await {
            Some(answer) => Answer::Replied(answer),
            None => Answer::Lost,
        }
    }

    /// The newest state, or none when it cannot be had now.
    pub(super) async fn read(&self) -> Option<State> {
        let Running { process, consensus, .. } = self.now()?;
        process.call(async move { consensus.linearizable().await }).await?.ok()
    }

    /// Has the members changed. None when the process has died meanwhile.
    pub(super) async fn change(&self, change: Change) -> Option<Result<(), ChangeError>> {
        let Running { process, consensus, .. } = self.now()?;
        let work = async move {
            match change {
                Change::Add(node) => consensus.add_learner(node, address(node)).await,
                Change::Promote(node) => consensus.promote(node).await,
                Change::Remove(node) => consensus.remove(node, false).await,
            }
        };
        process.call(work).await
    }

    /// Has leadership handed over, to anybody.
    pub(super) async fn transfer(&self) {
        if let Some(Running { process, consensus, .. }) = self.now() {
            let _ = process.call(async move { consensus.transfer(None).await }).await;
        }
    }

    /// Its disk takes so many times as long.
    pub(super) fn slow_disk(&self, times: u32) {
        if let Some(running) = self.now() {
            running.process.slow_disk(times);
        }
    }

    /// Why the running process's voter has stopped by itself, if it has.
    pub(super) fn stopped(&self) -> Option<String> {
        self.now()?.consensus.stopped().now_or_never().map(|reason| reason.to_string())
    }

    /// What the running process holds to be durable at an edge goes into the books.
    pub(super) fn note_acknowledgements(&self) {
        let rows = self.now().map(|running| running.acks.rows()).unwrap_or_default();
        for row in rows {
            if let Some(durable) = row.durable {
                self.shared.oracle.durable(row.node, durable);
            }
        }
    }

    /// Forgets an edge whose disk is gone.
    pub(super) fn forget(&self, edge: NodeId) {
        if let Some(running) = self.now() {
            running.acks.forget(edge);
        }
    }

    /// Writes a snapshot file now, if it can.
    pub(super) async fn snapshot(&self) {
        if let Some(Running { process, consensus, .. }) = self.now() {
            let _ = process.call(async move { consensus.snapshot().await }).await;
        }
    }

    /// Ends the process in good order.
    pub(super) async fn stop(&self) {
        self.note_acknowledgements();
        let Some(Running { process, consensus, .. }) = lock(&self.running).take() else { return };
        let _ = process.call(async move { consensus.shutdown().await }).await;
        self.shared.network.down(self.node);
        self.end(&process);
        self.shared.history.event(format_args!("voter {} stopped", self.node));
    }

    /// The power goes: the process ends where it is, and the disk keeps what was synced, and maybe more.
    pub(super) fn crash(&self, entropy: &dyn Entropy) {
        self.die();
        self.shared.history.survived(self.node, self.disk.crash(entropy));
        self.table.crash(entropy);
        self.shared.history.event(format_args!("voter {} crashed", self.node));
    }

    /// The process ends where it is, and the system goes on: the next one finds all that was written, synced or not. What the table
    /// had not written is gone.
    pub(super) fn kill(&self, entropy: &dyn Entropy) {
        self.die();
        self.disk.outlive();
        self.table.crash(entropy);
        self.shared.history.count("processes killed while writing");
        self.shared.history.event(format_args!("voter {} was killed", self.node));
    }

    fn die(&self) {
        self.note_acknowledgements();
        self.shared.network.down(self.node);
        if let Some(Running { process, .. }) = lock(&self.running).take() {
            self.end(&process);
        }
    }

    fn end(&self, process: &Process) {
        process.kill();
        if process.panics() > 0 {
            self.shared.history.violated("no panic", format_args!("{} tasks of voter {} panicked", process.panics(), self.node));
        }
    }
}

fn address(node: NodeId) -> String {
    format!("voter:{node}")
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
