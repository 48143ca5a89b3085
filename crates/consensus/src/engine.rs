//! A running voter: start, proposals, reads, the rhythm of ticks, and the way down.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use openraft::{
    BasicNode, Instant as _,
    async_runtime::{Select2, watch::WatchReceiver as _},
    errors::{InitializeError, RaftError},
};
use seams::{
    Clock,
    mutation::{self, Mutation},
};
use state::{Command, CommandBody, Origin, Principal, Reply, State};
use store::{LogWriter, WriteBehind};
use tokio::sync::Semaphore;
use types::{LogIndex, NodeId, UnixMillis};

use crate::{
    Runtime,
    clock::{Clocks, Known},
    consensus::Status,
    error::{ProposeError, ReadError, StopReason, chain},
    gather::Gather,
    machine::Core,
    members::{ChangeError, Membership, Overview},
    network::{Change, Server, encode_forward},
    offload::Offload,
    options::{Bootstrap, Limits, Timing},
    peer::{PeerError, PeerRpc, PeerTransport},
    raft::Raft,
    write::encode,
};

/// How often between two ticks a voter that does not lead looks whether it does.
const LOOKS_A_TICK: u32 = 10;
/// Before it is said that a node that is about to end has not recovered.
const CLOSING_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// What [`Consensus`](crate::Consensus) is a handle of, with the runtime hidden.
pub(crate) trait Engine: Send + Sync + 'static {
    fn propose(&self, command: Command, within: Duration) -> BoxFuture<'_, Result<Reply, ProposeError>>;
    fn linearizable(&self) -> BoxFuture<'_, Result<State, ReadError>>;
    fn local(&self) -> State;
    fn recovered(&self) -> BoxFuture<'_, Result<(), ReadError>>;
    fn handle(&self, rpc: PeerRpc, request: Bytes) -> BoxFuture<'_, Result<Bytes, PeerError>>;
    fn handle_appends(&self, requests: BoxStream<'static, Bytes>) -> BoxStream<'static, Result<Bytes, PeerError>>;
    fn membership(&self) -> Membership;
    fn overview(&self) -> BoxFuture<'_, Result<Overview, ReadError>>;
    fn change(&self, change: Change) -> BoxFuture<'_, Result<NodeId, ChangeError>>;
    fn step_down(&self) -> BoxFuture<'_, ()>;
    fn snapshot(&self) -> BoxFuture<'_, Result<(), ReadError>>;
    fn clocks(&self) -> Clocks;
    fn time(&self) -> UnixMillis;
    fn status(&self) -> Status;
    fn confirmed_leader(&self) -> BoxFuture<'_, Option<NodeId>>;
    fn stopped(&self) -> BoxFuture<'_, StopReason>;
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// A voter on the runtime `R`.
pub(crate) struct Voter<R: Runtime> {
    pub(crate) node: NodeId,
    pub(crate) raft: Raft<R>,
    pub(crate) core: Arc<Core>,
    pub(crate) server: Server<R>,
    pub(crate) transport: Arc<dyn PeerTransport>,
    /// Whether what waits for a leader gives up instead.
    pub(crate) closing: AtomicBool,
    /// Held by the change of the membership that is under way here.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What is known of the others' clocks.
    pub(crate) clocks: Mutex<Known>,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    /// Proposals on their way into the log here.
    pub(crate) gather: Gather<R>,
    /// One permit a proposal in flight; closed when the voter goes down.
    pub(crate) slots: Arc<Semaphore>,
    /// One permit a byte of proposals in flight.
    pub(crate) bytes: Arc<Semaphore>,
    pub(crate) writer: LogWriter,
    pub(crate) behind: Option<WriteBehind>,
    pub(crate) offload: Offload<R>,
    /// Whether the task that writes in a simulation goes on: as long as Raft may wait for a disk.
    pub(crate) pumping: Arc<AtomicBool>,
}

impl<R: Runtime> Engine for Arc<Voter<R>> {
    fn propose(&self, command: Command, within: Duration) -> BoxFuture<'_, Result<Reply, ProposeError>> {
        Box::pin(async move {
            let started = R::Instant::now();
            let result = self.submit(command, within).await;
            let outcome = match &result {
                Ok(_) => "applied",
                Err(ProposeError::Refused(_)) => "refused",
                Err(ProposeError::Unknown { .. }) => "unknown",
                Err(_) => "not_proposed",
            };
            metrics::counter!("cinnabar_consensus_proposals_total", "outcome" => outcome).increment(1);
            if outcome == "applied" {
                metrics::histogram!("cinnabar_consensus_commit_seconds").record((R::Instant::now() - started).as_secs_f64());
            }
            result
        })
    }

    fn linearizable(&self) -> BoxFuture<'_, Result<State, ReadError>> {
        Box::pin(self.read())
    }

    fn local(&self) -> State {
        self.core.local()
    }

    fn recovered(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move {
            // Not only what is in the log here: what was shown before the end may lie past it, on a majority of others, and a leader
            // that is new knows less of what is committed than this node once did. Its read index is past all of it.
            let read = self.read().await;
            if read.is_err() && self.gives_up() {
                // A read gives up at once now; who asks again in a loop must not spin until the node has ended.
                R::sleep(CLOSING_PAUSE).await;
            }
            read.map(|_| ())
        })
    }

    fn handle(&self, rpc: PeerRpc, request: Bytes) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(async move {
            match rpc {
                PeerRpc::Propose => self.take_proposal(request).await,
                PeerRpc::ReadIndex => self.take_read(request).await,
                PeerRpc::Change => self.take_change(request).await,
                PeerRpc::Progress => Ok(encode_forward(&self.overview_here())),
                PeerRpc::Clock => Ok(encode_forward(&self.clock.wall().get())),
                _ => self.server.handle(rpc, request).await,
            }
        })
    }

    fn handle_appends(&self, requests: BoxStream<'static, Bytes>) -> BoxStream<'static, Result<Bytes, PeerError>> {
        self.server.appends(requests)
    }

    fn membership(&self) -> Membership {
        self.members()
    }

    fn overview(&self) -> BoxFuture<'_, Result<Overview, ReadError>> {
        Box::pin(self.overview_anywhere())
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<NodeId, ChangeError>> {
        Box::pin(self.change_anywhere(change))
    }

    fn step_down(&self) -> BoxFuture<'_, ()> {
        self.closing.store(true, Ordering::Relaxed);
        Box::pin(self.hand_over_if_leading())
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(self.write_snapshot())
    }

    fn clocks(&self) -> Clocks {
        self.clocks_now()
    }

    fn time(&self) -> UnixMillis {
        self.time_now()
    }

    fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: Option<crate::raft::LogId>| id.map(|id| LogIndex::new(id.index));
        let members = self.members();
        Status {
            node: self.node,
            term: metrics.current_term,
            leader: metrics.current_leader.map(NodeId::new),
            voters: members.voters,
            learners: members.learners,
            progress: self.progress(),
            last_log: metrics.last_log_index.map(LogIndex::new),
            applied: index(metrics.last_applied),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            in_flight: self.limits.proposals_max.saturating_sub(self.slots.available_permits()),
        }
    }

    fn confirmed_leader(&self) -> BoxFuture<'_, Option<NodeId>> {
        Box::pin(self.confirmed())
    }

    fn stopped(&self) -> BoxFuture<'_, StopReason> {
        Box::pin(self.core.stop.wait())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.go_down())
    }
}

impl<R: Runtime> Voter<R> {
    /// openraft has ended: the first cause is kept, which may be our own, given before.
    pub(crate) fn fatal(&self, fatal: &crate::raft::Fatal<R>) {
        let ended = self.raft.metrics().borrow_watched().running_state.clone();
        match (fatal, ended) {
            (crate::raft::Fatal::<R>::Stopped, Err(cause)) => self.core.stop.because(StopReason(chain(&cause))),
            // A call whose answer was dropped knows no cause. The core, which is about to end, tells it a moment later: `tick` sees it.
            (crate::raft::Fatal::<R>::Stopped, Ok(())) => {}
            (fatal, _) => self.core.stop.because(StopReason(chain(fatal))),
        }
    }

    async fn write_snapshot(&self) -> Result<(), ReadError> {
        self.running().map_err(ReadError::Stopped)?;
        let applied = self.raft.metrics().borrow_watched().last_applied;
        self.raft.trigger().snapshot().await.map_err(|fatal| ReadError::Stopped(StopReason(fatal.to_string())))?;
        let wait = self.raft.wait(Some(self.timing.deadline));
        let written = wait.metrics(move |metrics| metrics.snapshot >= applied, "a snapshot file").await;
        written.map(|_| ()).map_err(|_| ReadError::Unavailable { reason: format!("no snapshot file within {:?}", self.timing.deadline) })
    }

    /// Sets the first membership, if nobody has.
    pub(crate) async fn bootstrap(&self, bootstrap: Bootstrap) -> Result<(), StopReason> {
        let members: std::collections::BTreeMap<u64, BasicNode> =
            bootstrap.voters.into_iter().map(|(node, addr)| (node.get(), BasicNode { addr })).collect();
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            // Another voter was faster, or this one had begun before.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(StopReason(chain(&error))),
        }
    }

    /// A sole voter has nobody to wait for: it stands for election at once instead of after an election timeout.
    pub(crate) async fn elect_if_alone(&self) -> Result<(), StopReason> {
        let node = self.node.get();
        let alone = self.raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([node])).await;
        if alone.map_err(|fatal| StopReason(chain(&fatal)))? {
            self.raft.trigger().elect(true).await.map_err(|fatal| StopReason(chain(&fatal)))?;
        }
        Ok(())
    }

    /// While this voter leads: proposes a tick a second, the first soon: until then edges and lookups that have just begun know no
    /// age. Ends with the voter.
    pub(crate) async fn tick(self: Arc<Self>) {
        let mut led = false;
        loop {
            if let Select2::First(_) = R::select2(self.core.stop.wait(), Box::pin(self.until_tick(led))).await {
                return;
            }
            let (leads, running) = {
                // Cloned out at once: holding the watch's lock would hold up the Raft core.
                let receiver = self.raft.metrics();
                let metrics = receiver.borrow_watched();
                (metrics.current_leader == Some(self.node.get()), metrics.running_state.clone())
            };
            if let Err(fatal) = running {
                self.fatal(&fatal);
                return;
            }
            led = leads;
            if mutation::is_on(Mutation::TickUncommitted) {
                self.core.applied.ticked(&self.core.local(), self.clock.wall());
                continue;
            }
            if !leads {
                continue;
            }
            let Some(tick) = self.tick_command().await else { continue };
            match encode(&tick) {
                Ok(bytes) => {
                    if let Err(error) = self.write(bytes, false, self.timing.deadline).await {
                        tracing::debug!(%error, "a tick was not applied");
                    }
                }
                Err(error) => tracing::error!(%error, "a tick cannot be encoded"),
            }
        }
    }

    /// The time between two ticks; less where this voter comes to lead.
    async fn until_tick(&self, led: bool) {
        if led {
            return self.clock.sleep(self.timing.tick).await;
        }
        for _ in 0..LOOKS_A_TICK {
            self.clock.sleep(self.timing.tick / LOOKS_A_TICK).await;
            if self.leads() {
                return;
            }
        }
    }

    /// None while there is no cluster in the state yet, or it does not know this node: a refused tick would only fill the audit log.
    async fn tick_command(&self) -> Option<Command> {
        let state = self.core.local();
        let level = state.settings().ok()??.feature_level;
        let known = state.node(self.node).ok()?.is_some_and(|node| node.revoked.is_none());
        if !known {
            return None;
        }
        Some(Command {
            level,
            principal: Principal::Node { node: self.node },
            stamp: self.stamp().await,
            request: None,
            origin: Origin::default(),
            body: CommandBody::Tick,
        })
    }

    async fn go_down(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.hand_over_if_leading().await;
        let all = u32::try_from(self.limits.proposals_max).unwrap_or(u32::MAX);
        // Waiting for all permits queues before any later proposal, whose `try_acquire` then finds none.
        let drained = R::timeout(self.timing.drain, self.slots.acquire_many(all)).await;
        if drained.is_err() {
            tracing::warn!(drain = ?self.timing.drain, "proposals were still in flight at the end of the drain time; their outcome is not known");
        }
        // Closed before the permits come back, so that nothing slips in between.
        self.slots.close();
        drop(drained);
        self.core.stop.because(StopReason("shut down".to_owned()));
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the Raft core did not end well");
        }
        self.pumping.store(false, Ordering::Relaxed);
        let (writer, behind, audit) = (self.writer.clone(), self.behind.clone(), self.core.audit.clone());
        let closed = self.offload.run(move || {
            let table = behind.map_or(Ok(()), |behind| behind.close());
            if let Err(error) = table {
                tracing::warn!(error = %chain(&error), "the table was not flushed; it is rebuilt at the next start");
            }
            audit.close()?;
            writer.close().map_err(std::io::Error::other)
        });
        if let Err(error) = closed.await {
            tracing::error!(error = %chain(&error), "the writers did not end well");
        }
    }
}
