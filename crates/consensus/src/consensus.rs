//! The handle of a voter.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;
use state::{Command, Reply, State};
use types::{LogIndex, NodeId, UnixMillis};

use crate::{
    Runtime,
    clock::Clocks,
    engine::Engine,
    error::{ProposeError, ReadError, StartError, StopReason},
    members::{ChangeError, Membership, Overview, Progress},
    network::Change,
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
    /// The leader of the term, when known; it may have lost its majority, or be gone: [`Consensus::confirmed_leader`].
    pub leader: Option<NodeId>,
    /// The voters and their addresses.
    pub voters: Vec<(NodeId, String)>,
    /// The learners and their addresses.
    pub learners: Vec<(NodeId, String)>,
    /// On the leader: how far each member has come. Empty elsewhere.
    pub progress: Vec<Progress>,
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

    /// Proposes a command, and waits until it is applied here. A node that does not lead sends it to the one that does, which
    /// stamps it: the command's own stamp counts nowhere. While there is no leader it tries again within the deadline instead of failing.
    ///
    /// A command with a request key is sent again also when an answer was lost: `apply` returns the first reply. One without is
    /// never sent twice, unless it is known not to have arrived. Safe to cancel in this sense: once called, the proposal goes on
    /// alone.
    ///
    /// # Errors
    /// [`ProposeError`]: its variants say whether anything was proposed.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        self.engine.propose(command, Duration::MAX).await
    }

    /// As [`Consensus::propose`], for a caller who waits no longer than `within`; the proposal's own deadline stands above it. The time goes
    /// along to the leader. A command that a leader has applied is answered as done also where this node has not got the entry by then:
    /// it is committed, and the reply has its position, which a read at any node asks the leader for.
    ///
    /// # Errors
    /// As of [`Consensus::propose`].
    pub async fn propose_within(&self, command: Command, within: Duration) -> Result<Reply, ProposeError> {
        self.engine.propose(command, within).await
    }

    /// The state, at least as new as every write acknowledged anywhere before this call (ReadIndex). A node that does not lead
    /// asks the one that does how far it must have applied. Waits for an election within the deadline.
    ///
    /// # Errors
    /// [`ReadError`]: no majority confirms a leader, or this node is too far behind it.
    pub async fn linearizable(&self) -> Result<State, ReadError> {
        self.engine.linearizable().await
    }

    /// The state as applied here, which may be behind. It never goes back while the process lives.
    pub fn local(&self) -> State {
        self.engine.local()
    }

    /// Completes when everything that was committed before this call is applied here, so that the local state is at least as new as
    /// it ever was before the restart: also where this voter had shown what its own disk had not got yet.
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

    /// Answers a stream of [`PeerRpc::Append`] calls of one peer, in order: the receiving half of
    /// [`PeerTransport::appends`](crate::PeerTransport::appends). It ends with the first answer that is no success.
    pub fn handle_appends(&self, requests: BoxStream<'static, Bytes>) -> BoxStream<'static, Result<Bytes, PeerError>> {
        self.engine.handle_appends(requests)
    }

    /// Who votes and who learns, as this node knows it.
    pub fn membership(&self) -> Membership {
        self.engine.membership()
    }

    /// How the members stand, as the leader sees them; asked of the leader.
    ///
    /// # Errors
    /// [`ReadError`]: no leader answers.
    pub async fn overview(&self) -> Result<Overview, ReadError> {
        self.engine.overview().await
    }

    /// Makes `node` a learner, which gets the log and the state and does not vote; or gives a member another address.
    /// To do so again changes nothing. Asked of the leader, as are the other changes.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn add_learner(&self, node: NodeId, address: impl Into<String>) -> Result<(), ChangeError> {
        self.engine.change(Change::Add { node: node.get(), address: address.into() }).await.map(|_| ())
    }

    /// Makes a learner a voter, once it has caught up; waits for that within the deadline.
    ///
    /// # Errors
    /// [`ChangeError`]; [`ChangeError::Behind`] when the learner needs more time.
    pub async fn promote(&self, node: NodeId) -> Result<(), ChangeError> {
        self.engine.change(Change::Promote { node: node.get() }).await.map(|_| ())
    }

    /// Takes a member out. The last voter stays; so does one without which no majority would be reachable, unless `force`.
    /// A leader that is taken out hands leadership over first.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn remove(&self, node: NodeId, force: bool) -> Result<(), ChangeError> {
        self.engine.change(Change::Remove { node: node.get(), force }).await.map(|_| ())
    }

    /// Hands leadership to `to`, or to the voter that has come furthest. Returns who leads then.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, ChangeError> {
        self.engine.change(Change::Transfer { to: to.map(NodeId::get) }).await
    }

    /// Before the node ends: if it leads and another can, hands leadership over, which takes a second at most. From here on
    /// nothing waits for a leader any more: proposals and reads that find none are answered at once.
    pub async fn step_down(&self) {
        self.engine.step_down().await;
    }

    /// Writes a snapshot file now and cuts the log below it. Returns when the file is durable.
    ///
    /// # Errors
    /// [`ReadError::Stopped`] or [`ReadError::Unavailable`] when the deadline passes.
    pub async fn snapshot(&self) -> Result<(), ReadError> {
        self.engine.snapshot().await
    }

    /// The voters' wall clocks, as this node reads them once a second, and how its own stands among them.
    pub fn clocks(&self) -> Clocks {
        self.engine.clocks()
    }

    /// The time that a command would be stamped with if this node led: its wall clock's where a majority agrees with it, else the
    /// majority's, else the last log time and what has gone by since.
    pub fn time(&self) -> UnixMillis {
        self.engine.time()
    }

    /// How the voter stands.
    pub fn status(&self) -> Status {
        self.engine.status()
    }

    /// The leader, if it has shown itself within [`Timing::election_max`](crate::Timing::election_max): to this node by a call, or, where
    /// this node leads, by the answers of a majority. None without a majority, and for a moment during an election.
    pub async fn confirmed_leader(&self) -> Option<NodeId> {
        self.engine.confirmed_leader().await
    }

    /// Completes when the voter has stopped by itself, and says why. The process should then end: a voter that failed to
    /// write or to decode must not go on.
    pub async fn stopped(&self) -> StopReason {
        self.engine.stopped().await
    }

    /// Hands leadership over, takes no more proposals, waits for those in flight up to the drain time, stops Raft, and flushes and ends the writers.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }
}
