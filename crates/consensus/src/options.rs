//! What a voter is started with.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use seams::{Clock, Disk, Table, TableError};
use state::{ChangeSet, FEATURE_LEVEL_MAX, State};
use store::{Drive, MemTable, SledOptions};
use types::{FeatureLevel, NodeId, UnixMillis};

use crate::{audit::AuditSink, peer::PeerTransport};

/// Hears what was applied, in the order of the log, from the task that applies: it must return at once and never block.
///
/// The calls tell one story without gaps: [`Applied::replaced`] with the state to begin from (once at start, and again when a
/// snapshot from the leader replaces everything), then what each batch of entries changed. Replay at start is told too.
pub trait Applied: Send + Sync + 'static {
    /// Everything before is void: `state` is the new beginning.
    fn replaced(&self, state: &State);

    /// A batch was applied: its change sets in order (there may be none), and the state after the last of them.
    fn applied(&self, sets: &[Arc<ChangeSet>], state: &State);

    /// The batch held a `Tick`, the last of them with this `time`; `state` is the state after the batch.
    fn ticked(&self, state: &State, time: UnixMillis);
}

/// A listener that does nothing.
impl Applied for () {
    fn replaced(&self, _state: &State) {}
    fn applied(&self, _sets: &[Arc<ChangeSet>], _state: &State) {}
    fn ticked(&self, _state: &State, _time: UnixMillis) {}
}

/// What each record of a table is shown to.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), TableError> + 'a;

/// Where the table is opened. Calls block and come from one thread.
pub trait Tables: Send + 'static {
    /// Opens the table and shows all of it to `visit`. None in the second place: it was damaged and is empty now, so that what
    /// `visit` saw is void.
    ///
    /// # Errors
    /// [`TableError`]: not even an empty table can be opened. The voter then runs without one.
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError>;

    /// Moves what is there aside and opens an empty table, after [`Tables::open`] gave a state that is not whole.
    ///
    /// # Errors
    /// [`TableError`]: not even an empty table can be opened. The voter then runs without one.
    fn reset(&mut self) -> Result<Box<dyn Table>, TableError>;
}

/// A table that was opened.
pub struct OpenTable {
    /// The table.
    pub table: Box<dyn Table>,
    /// Whether it is as it was left; false when it was damaged and is now empty.
    pub whole: bool,
}

/// A table in sled, in a folder of its own.
#[derive(Clone, Debug)]
pub struct SledTables {
    /// The folder.
    pub folder: PathBuf,
    /// How it is opened.
    pub options: SledOptions,
}

impl Tables for SledTables {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        let opened = store::open_or_set_aside(&self.folder, self.options.clone(), visit)?;
        Ok(OpenTable { whole: opened.set_aside.is_none(), table: Box::new(opened.table) })
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        let mut refuse =
            |_: &[u8], _: &[u8]| Err(TableError::Damaged { operation: "load", detail: "its records are not one whole state".to_owned() });
        Ok(self.open(&mut refuse)?.table)
    }
}

/// A table in memory, for tests: clones share it, as the restarts of one voter do.
#[derive(Clone, Default)]
pub struct MemTables(pub MemTable);

impl Tables for MemTables {
    fn open(&mut self, visit: &mut Visit<'_>) -> Result<OpenTable, TableError> {
        let whole = self.0.scan(visit).is_ok();
        if !whole {
            self.0 = MemTable::default();
        }
        Ok(OpenTable { table: Box::new(self.0.clone()), whole })
    }

    fn reset(&mut self) -> Result<Box<dyn Table>, TableError> {
        self.0 = MemTable::default();
        Ok(Box::new(self.0.clone()))
    }
}

/// Addresses are stored with a length of two bytes.
pub(crate) const ADDRESS_BYTES_MAX: usize = 512;
/// More members than any cluster has.
pub(crate) const MEMBERS_MAX: usize = 99;

/// The first membership of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The voters and their addresses, this one among them. Every one of them may be started with the same value.
    pub voters: BTreeMap<NodeId, String>,
}

impl Bootstrap {
    /// A cluster of one.
    pub fn alone(node: NodeId, address: impl Into<String>) -> Self {
        Self { voters: BTreeMap::from([(node, address.into())]) }
    }
}

/// Times. The defaults are for voters within a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// A follower that hears nothing for a random time between this and [`Timing::election_max`] asks for votes.
    pub election_min: Duration,
    /// See [`Timing::election_min`]; also the lease of a leader that hears from no majority.
    pub election_max: Duration,
    /// Between two proposals of `Tick` by the leader.
    pub tick: Duration,
    /// How long a proposal or a read waits, an election included.
    pub deadline: Duration,
    /// How long [`Consensus::shutdown`](crate::Consensus::shutdown) waits for what is in flight.
    pub drain: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            tick: Duration::from_secs(1),
            deadline: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Proposals in flight; one more is answered with [`ProposeError::Unavailable`](crate::ProposeError::Unavailable).
    pub proposals_max: usize,
    /// Bytes of commands in flight; one more is answered likewise.
    pub proposal_bytes_max: usize,
    /// Entries applied since the last snapshot file before the next is written.
    pub snapshot_entries: u64,
    /// Entries that stay in the log below a snapshot, so that a follower a little behind needs no snapshot.
    pub keep_entries: u64,
    /// The size of a segment file of the log.
    pub segment_bytes: u64,
    /// The feature level up to which this voter goes along; it stops before a command that needs a higher one. At most that of the build.
    pub level_max: FeatureLevel,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            proposals_max: 4096,
            proposal_bytes_max: 64 << 20,
            snapshot_entries: 50_000,
            keep_entries: 10_000,
            segment_bytes: 32 << 20,
            level_max: FEATURE_LEVEL_MAX,
        }
    }
}

/// What a voter is started with.
pub struct Options {
    /// This voter.
    pub node: NodeId,
    /// The disk of log, snapshot files and votes.
    pub disk: Arc<dyn Disk>,
    /// Holds `log` and `snapshots`; created when missing.
    pub folder: PathBuf,
    /// Who does the disk's work: threads of their own in production; in a simulation the calling task, or (manual) a task of
    /// the runtime that takes a random while, so that a crash can fall between visible and durable.
    pub drive: Drive,
    /// Where the table is opened; none for a voter that loads the newest snapshot file and replays the log at every start.
    pub tables: Option<Box<dyn Tables>>,
    /// For the stamp and the rhythm of `Tick`.
    pub clock: Arc<dyn Clock>,
    /// To other voters; [`Unconnected`](crate::Unconnected) for a voter that is alone.
    pub transport: Arc<dyn PeerTransport>,
    /// Hears what was applied.
    pub applied: Arc<dyn Applied>,
    /// Takes the audit entries that `apply` emits.
    pub audit: Arc<dyn AuditSink>,
    /// The first membership, used only while log and vote are empty.
    pub bootstrap: Option<Bootstrap>,
    /// Times.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
}
