//! The handle of a voter.

use std::sync::Arc;

use bytes::Bytes;
use state::{Command, Reply, State};
use types::{LogIndex, NodeId};

use crate::{
    Runtime,
    engine::Engine,
    error::{ProposeError, ReadError, StartError, StopReason},
    options::Options,
    peer::{PeerError, PeerRpc},
    start,
};

/// How a voter stands. A copy of one moment, for status pages and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This voter.
    pub node: NodeId,
    /// The current term.
    pub term: u64,
    /// The leader of the term, when known.
    pub leader: Option<NodeId>,
    /// The voters and their addresses.
    pub voters: Vec<(NodeId, String)>,
    /// The last entry in the log here.
    pub last_log: Option<LogIndex>,
    /// The last entry applied here.
    pub applied: Option<LogIndex>,
    /// The last entry that the newest snapshot file holds.
    pub snapshot: Option<LogIndex>,
    /// The last entry purged from the log.
    pub purged: Option<LogIndex>,
    /// Proposals in flight.
    pub in_flight: usize,
}

/// A voter. Clones are handles to the same one; dropping them all stops nothing: call [`Consensus::shutdown`].
#[derive(Clone)]
pub struct Consensus {
    engine: Arc<dyn Engine>,
}

impl Consensus {
    /// Starts a voter on the tokio runtime: opens the log, loads the state from the table or the newest snapshot file, and
    /// applies the log again up to the committed hint. On return [`Consensus::local`] is at least as new as that hint.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        Self::start_on::<openraft_rt_tokio::TokioRuntime>(options).await
    }

    /// As [`Consensus::start`], on another runtime, such as the simulated one.
    ///
    /// # Errors
    /// As of [`Consensus::start`].
    pub async fn start_on<R: Runtime>(options: Options) -> Result<Self, StartError> {
        Ok(Self { engine: start::start::<R>(options).await? })
    }

    /// Proposes a command exactly as it is, and waits until it is applied here. Right after an election it tries again
    /// within the deadline instead of failing. Safe to cancel in this sense: once called, the proposal goes on alone.
    ///
    /// # Errors
    /// [`ProposeError`]: its variants say whether anything was proposed.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        self.engine.propose(command).await
    }

    /// The state, at least as new as every write acknowledged anywhere before this call (ReadIndex). Waits for an election
    /// within the deadline.
    ///
    /// # Errors
    /// [`ReadError`]: no majority confirms this voter, or another one leads.
    pub async fn linearizable(&self) -> Result<State, ReadError> {
        self.engine.linearizable().await
    }

    /// The state as applied here, which may be behind. It never goes back while the process lives.
    pub fn local(&self) -> State {
        self.engine.local()
    }

    /// Completes when everything that was in this voter's log at start is known to be committed or replaced, and applied: from
    /// then on the local state is at least as new as before the restart.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] when no majority was found within the deadline.
    pub async fn recovered(&self) -> Result<(), ReadError> {
        self.engine.recovered().await
    }

    /// Answers a call of another voter: the receiving half of [`PeerTransport`](crate::PeerTransport). The caller has checked
    /// that the peer is a voter.
    ///
    /// # Errors
    /// [`PeerError::Malformed`] or [`PeerError::Stopped`].
    pub async fn handle(&self, rpc: PeerRpc, request: Bytes) -> Result<Bytes, PeerError> {
        self.engine.handle(rpc, request).await
    }

    /// Writes a snapshot file now and cuts the log below it. Returns when the file is durable.
    ///
    /// # Errors
    /// [`ReadError::Stopped`] or [`ReadError::Unavailable`] when the deadline passes.
    pub async fn snapshot(&self) -> Result<(), ReadError> {
        self.engine.snapshot().await
    }

    /// How the voter stands.
    pub fn status(&self) -> Status {
        self.engine.status()
    }

    /// Completes when the voter has stopped by itself, and says why. The process should then end: a voter that failed to
    /// write or to decode must not go on.
    pub async fn stopped(&self) -> StopReason {
        self.engine.stopped().await
    }

    /// Takes no more proposals, waits for those in flight up to the drain time, stops Raft, and flushes and ends the writers.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }
}
