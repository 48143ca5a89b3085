//! A voter that can be killed: its disk and table outlive it, its clock is the simulated runtime's.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use openraft_rt_sim::{SimInstant, SimRuntime};
use seams::{
    Clock, Disk, OpenMode,
    sim::{SimDisk, SimEntropy},
};
use state::{ChangeSet, State};
use store::LogOptions;
use types::{Hash, NodeId, Position, UnixMillis};

use crate::{
    Applied, AuditLog, AuditOptions, Bootstrap, Consensus, Drive, Limits, MemTables, Options, PeerTransport, Runtime, StartError, Timing,
    Unconnected, lock,
};

/// The simulated runtime's time.
pub(super) struct SimClock;

impl Clock for SimClock {
    fn wall(&self) -> UnixMillis {
        UnixMillis::new(1_700_000_000_000).plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        SimInstant::try_now().map(SimInstant::elapsed_since_start).unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(SimRuntime::sleep(duration))
    }
}

/// How many milliseconds a voter's wall clock is ahead of the true one; outlives its process.
#[derive(Clone, Default)]
pub(super) struct Skew(Arc<AtomicI64>);

impl Skew {
    pub(super) fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl Clock for Skew {
    fn wall(&self) -> UnixMillis {
        UnixMillis::new(SimClock.wall().get().saturating_add_signed(self.0.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Duration {
        SimClock.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        SimClock.sleep(duration)
    }
}

/// Everything that a voter told its listener, checked as it comes: no gap, nothing twice, nothing back.
#[derive(Default)]
pub(super) struct Heard {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    at: Option<Position>,
    sets: BTreeMap<Position, Hash>,
    ticks: Vec<UnixMillis>,
}

impl Applied for Heard {
    fn replaced(&self, state: &State) {
        lock(&self.inner).at = Some(state.position());
    }

    fn applied(&self, sets: &[Arc<ChangeSet>], state: &State) {
        let mut inner = lock(&self.inner);
        for set in sets {
            let position = set.header.position;
            let before = inner.at.replace(position);
            assert!(before.is_some_and(|before| before < position), "{before:?} was followed by {position}");
            let other = inner.sets.insert(position, set.hash);
            assert!(other.is_none_or(|other| other == set.hash), "two change sets at {position}");
        }
        assert_eq!(inner.at, Some(state.position()));
    }

    fn ticked(&self, state: &State, time: UnixMillis) {
        assert!(state.last_time() >= time);
        lock(&self.inner).ticks.push(time);
    }
}

impl Heard {
    /// The change sets by position.
    pub(super) fn sets(&self) -> BTreeMap<Position, Hash> {
        lock(&self.inner).sets.clone()
    }

    /// The times of the ticks.
    pub(super) fn ticks(&self) -> Vec<UnixMillis> {
        lock(&self.inner).ticks.clone()
    }
}

/// Small, so that logs go from segment to segment, and a simulated disk is quick.
pub(super) const SEGMENT_BYTES: u64 = 32 << 10;

/// What of a voter survives its process.
pub(super) struct Rig {
    pub(super) node: NodeId,
    pub(super) disk: SimDisk,
    pub(super) tables: MemTables,
    pub(super) drive: Drive,
    pub(super) limits: Limits,
    pub(super) voters: BTreeMap<NodeId, String>,
    pub(super) audit_bytes_max: u64,
    pub(super) skew: Skew,
}

impl Rig {
    pub(super) fn new(node: u64, voters: &[u64]) -> Self {
        Self {
            node: NodeId::new(node),
            disk: SimDisk::new(),
            tables: MemTables::default(),
            drive: Drive::Manual,
            limits: Limits { snapshot_entries: 40, keep_entries: 10, segment_bytes: SEGMENT_BYTES, ..Limits::default() },
            voters: voters.iter().map(|id| (NodeId::new(*id), format!("voter-{id}"))).collect(),
            audit_bytes_max: 128 * SEGMENT_BYTES,
            skew: Skew::default(),
        }
    }

    fn folder(&self) -> PathBuf {
        PathBuf::from(format!("voter-{}", self.node))
    }

    /// Options of one of its logs.
    pub(super) fn log_options(&self, name: &str) -> LogOptions {
        LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::new(self.folder().join(name)) }
    }

    /// Its audit log: in small files, which a simulated disk copies quickly.
    pub(super) fn audit(&self) -> AuditLog {
        AuditLog::open(Arc::new(self.disk.clone()), self.audit_options()).unwrap()
    }

    fn audit_options(&self) -> AuditOptions {
        AuditOptions { bytes_max: self.audit_bytes_max, ..AuditOptions::new(self.folder().join("audit")) }
    }

    /// What its disk holds of the audit log, read while it runs, on a copy of the disk, and where it was cut.
    pub(super) fn audit_entries(&self) -> (Option<crate::AuditCut>, Vec<state::AuditEntry>) {
        let copy = SimDisk::new();
        for path in self.disk.files() {
            let file = copy.open(&path, OpenMode::CreateNew).unwrap();
            file.write_all_at(&self.disk.read(&path).unwrap(), 0).unwrap();
        }
        let log = AuditLog::open(Arc::new(copy), self.audit_options()).unwrap();
        let stored = log.read(0..u64::MAX, usize::MAX).unwrap();
        (log.cut(), stored.iter().map(|(_, stored)| state::AuditEntry::decode(stored).unwrap()).collect())
    }

    /// Options of a voter on this disk.
    pub(super) fn options(&self, heard: Arc<dyn Applied>, transport: Arc<dyn PeerTransport>, clock: Arc<dyn Clock>) -> Options {
        Options {
            node: self.node,
            disk: Arc::new(self.disk.clone()),
            folder: self.folder(),
            drive: self.drive,
            tables: Some(Box::new(self.tables.clone())),
            clock,
            transport,
            applied: heard,
            audit: Arc::new(self.audit()),
            bootstrap: (!self.voters.is_empty()).then(|| Bootstrap { voters: self.voters.clone() }),
            timing: Timing { deadline: Duration::from_secs(2), ..Timing::default() },
            limits: self.limits,
        }
    }

    /// What is left when the process is gone: the same disk and table.
    pub(super) fn survivor(&self) -> Self {
        Self { disk: self.disk.clone(), tables: self.tables.clone(), voters: self.voters.clone(), skew: self.skew.clone(), ..*self }
    }

    /// Starts the voter alone, in the simulated runtime.
    pub(super) async fn start(&self, heard: Arc<dyn Applied>) -> Result<Consensus, StartError> {
        Consensus::start_on::<SimRuntime>(self.options(heard, Arc::new(Unconnected), Arc::new(self.skew.clone()))).await
    }

    /// Power off. The runtime of the voter must be gone.
    pub(super) fn crash(&self, seed: u64) {
        let entropy = SimEntropy::new(seed);
        self.disk.crash(&entropy);
        self.tables.0.crash(&entropy);
    }
}

/// Runs a future in a new simulated runtime. What it has left running ends with it, as in a crash.
pub(super) fn simulate<T>(seed: u64, future: impl Future<Output = T>) -> T {
    SimRuntime::with_seed(seed).block_on(future)
}
