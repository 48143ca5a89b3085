//! The voter of a run: the real consensus, publisher and stream service on a simulated disk, in a process that can die.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use consensus::{
    Applied, AuditLog, AuditOptions, Bootstrap, Consensus, Drive, Limits, MemTables, Options, ProposeError, Timing, Unconnected,
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
    net::Network,
    oracle::Oracle,
    runtime::{NodeRuntime, Process, lock},
};

/// The one voter.
pub const VOTER: NodeId = NodeId::new(1);
/// The cluster of a run.
pub const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(20);

/// Sizes that are small enough for everything to happen in a minute.
#[derive(Clone, Copy, Debug)]
pub struct VoterSizes {
    /// Change sets that the window holds: an edge that is further behind gets a snapshot.
    pub window_sets: usize,
    /// Entries between two snapshot files.
    pub snapshot_entries: u64,
    /// Entries kept below one.
    pub keep_entries: u64,
    /// Bytes of a segment of its logs.
    pub segment_bytes: u64,
    /// Bytes of one batch of the feed.
    pub batch_bytes: usize,
    /// Bytes of one chunk of a snapshot of the feed.
    pub chunk_bytes: usize,
}

/// The voter, over all its processes.
pub struct Voter {
    /// Its disk.
    pub disk: NodeDisk,
    /// Its table.
    pub table: MemTable,
    /// Its clock's error.
    pub skew: Skew,
    sizes: VoterSizes,
    key_seed: u64,
    network: Network,
    oracle: Oracle,
    history: History,
    running: Mutex<Option<Running>>,
}

/// A process of the voter's.
#[derive(Clone)]
struct Running {
    process: Process,
    consensus: Consensus,
    acks: Arc<Acks>,
    clock: Arc<SimClock>,
}

/// What a client learns when it sends a command.
pub enum Answer {
    /// Nobody listened: nothing was proposed.
    NotSent,
    /// The connection broke before the answer came.
    Lost,
    /// The voter's own answer.
    Replied(Result<Reply, ProposeError>),
}

/// Tells the feed first, as in production, and then the books.
struct Listener {
    publisher: Arc<Publisher>,
    oracle: Oracle,
}

impl Applied for Listener {
    fn replaced(&self, state: &State) {
        self.oracle.began(state);
        self.publisher.replaced(state);
    }

    fn applied(&self, sets: &[Arc<ChangeSet>], state: &State) {
        self.oracle.committed(sets, state);
        self.publisher.applied(sets, state);
    }

    fn ticked(&self, state: &State, time: UnixMillis) {
        self.oracle.ticked(state, time);
        self.publisher.ticked(state, time);
    }
}

impl Voter {
    /// A voter that has never run.
    pub fn new(seed: u64, sizes: VoterSizes, skew: Skew, network: Network, oracle: Oracle, history: History) -> Self {
        Self {
            disk: NodeDisk::default(),
            table: MemTable::default(),
            skew,
            sizes,
            key_seed: seed,
            network,
            oracle,
            history,
            running: Mutex::default(),
        }
    }

    /// The key that it signs seals with.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::generate(&SimEntropy::new(self.key_seed))
    }

    /// Starts a process on what is on the disk.
    ///
    /// # Errors
    /// Why it did not start, in words.
    pub async fn start(&self) -> Result<(), String> {
        self.history.event(format_args!("voter starts"));
        let process = Process::new();
        let clock = Arc::new(SimClock::new(self.skew.clone()));
        let acks = Acks::new(AcksOptions::default(), clock.clone());
        let parts = PublisherParts { clock: clock.clone(), offload: Arc::new(Inline), handover: Arc::new(NoHandover), acks: acks.clone() };
        let mut options = PublisherOptions::new(CLUSTER, VOTER);
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
        self.network.listen(Some(Arc::new(move |edge, link| {
            let publisher = clocked.clone();
            owner.spawn(async move {
                let _end = serve_subscriber(link, publisher, Session::new(edge)).await;
            });
        })));
        *lock(&self.running) = Some(Running { process, consensus, acks, clock });
        Ok(())
    }

    async fn consensus(&self, process: &Process, publisher: Arc<Publisher>, clock: Arc<SimClock>) -> Result<Consensus, String> {
        let disk: Arc<dyn seams::Disk> = Arc::new(self.disk.clone());
        // Small parts of small files, which a simulated disk copies quickly.
        let audited = AuditOptions { bytes_max: 128 * self.sizes.segment_bytes, ..AuditOptions::new("voter/audit") };
        let audit = AuditLog::open(disk.clone(), audited).map_err(|error| chain(&error))?;
        let options = Options {
            node: VOTER,
            disk,
            folder: "voter".into(),
            drive: Drive::Manual,
            tables: Some(Box::new(MemTables(self.table.clone()))),
            clock,
            transport: Arc::new(Unconnected),
            applied: Arc::new(Listener { publisher, oracle: self.oracle.clone() }),
            audit: Arc::new(audit),
            bootstrap: Some(Bootstrap::alone(VOTER, "voter:1")),
            timing: Timing::default(),
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
    pub fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }

    /// The wall clock as the running process sees it.
    pub fn wall(&self) -> Option<UnixMillis> {
        lock(&self.running).as_ref().map(|running| running.clock.wall())
    }

    /// Sends a command, waits for its answer, and may lose either on the way.
    pub async fn propose(&self, command: Command) -> Answer {
        let Some(Running { process, consensus, .. }) = lock(&self.running).clone() else { return Answer::NotSent };
        match process.call(async move { consensus.propose(command).await }).await {
            Some(answer) => Answer::Replied(answer),
            None => Answer::Lost,
        }
    }

    /// The newest state, or none when it cannot be had now.
    pub async fn read(&self) -> Option<State> {
        let Running { process, consensus, .. } = lock(&self.running).clone()?;
        process.call(async move { consensus.linearizable().await }).await?.ok()
    }

    /// Why the running process's voter has stopped by itself, if it has.
    pub fn stopped(&self) -> Option<String> {
        let consensus = lock(&self.running).as_ref().map(|running| running.consensus.clone())?;
        consensus.stopped().now_or_never().map(|reason| reason.to_string())
    }

    /// What the running process holds to be durable at an edge goes into the books.
    pub fn note_acknowledgements(&self) {
        let rows = lock(&self.running).as_ref().map(|running| running.acks.rows()).unwrap_or_default();
        for row in rows {
            if let Some(durable) = row.durable {
                self.oracle.durable(row.node, durable);
            }
        }
    }

    /// Forgets an edge whose disk is gone.
    pub fn forget(&self, edge: NodeId) {
        if let Some(running) = &*lock(&self.running) {
            running.acks.forget(edge);
        }
    }

    /// Writes a snapshot file now, if it can.
    pub async fn snapshot(&self) {
        let running = lock(&self.running).clone();
        if let Some(Running { process, consensus, .. }) = running {
            let _ = process.call(async move { consensus.snapshot().await }).await;
        }
    }

    /// Ends the process in good order.
    pub async fn stop(&self) {
        self.note_acknowledgements();
        self.network.listen(None);
        let Some(Running { process, consensus, .. }) = lock(&self.running).take() else { return };
        let _ = process.call(async move { consensus.shutdown().await }).await;
        self.end(&process);
        self.history.event(format_args!("voter stopped"));
    }

    /// The power goes: the process ends where it is, and the disk keeps what was synced, and maybe more.
    pub fn crash(&self, entropy: &dyn Entropy) {
        self.note_acknowledgements();
        self.network.listen(None);
        if let Some(Running { process, .. }) = lock(&self.running).take() {
            self.end(&process);
        }
        self.disk.crash(entropy);
        self.table.crash(entropy);
        self.history.event(format_args!("voter crashed"));
    }

    fn end(&self, process: &Process) {
        process.kill();
        if process.panics() > 0 {
            self.history.violated("no panic", format_args!("{} tasks of the voter panicked", process.panics()));
        }
    }
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
