//! A running voter: start, proposals, reads, the rhythm of ticks, and the way down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::{
    BasicNode, Instant as _, ReadPolicy,
    async_runtime::{Select2, watch::WatchReceiver as _},
    errors::{ClientWriteError, ForwardToLeader, InitializeError, LinearizableReadError, RaftError},
};
use seams::Clock;
use state::{Command, CommandBody, Origin, Principal, Reply, State, limits::CHANGE_SET_BYTES_MAX};
use store::{LogWriter, WriteBehind};
use tokio::sync::Semaphore;
use types::{LogIndex, NodeId};

use crate::{
    Runtime,
    consensus::Status,
    error::{ProposeError, ReadError, StopReason, chain},
    machine::Core,
    network::Server,
    offload::Offload,
    options::{Bootstrap, Limits, Timing},
    peer::{PeerError, PeerRpc},
    raft::{Proposal, Raft, Types},
};

/// What [`Consensus`](crate::Consensus) is a handle of, with the runtime hidden.
pub(crate) trait Engine: Send + Sync + 'static {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Reply, ProposeError>>;
    fn linearizable(&self) -> BoxFuture<'_, Result<State, ReadError>>;
    fn local(&self) -> State;
    fn recovered(&self) -> BoxFuture<'_, Result<(), ReadError>>;
    fn handle(&self, rpc: PeerRpc, request: Bytes) -> BoxFuture<'_, Result<Bytes, PeerError>>;
    fn snapshot(&self) -> BoxFuture<'_, Result<(), ReadError>>;
    fn status(&self) -> Status;
    fn stopped(&self) -> BoxFuture<'_, StopReason>;
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// The first and the longest wait before a proposal or a read is tried again after an election.
const RETRY_FIRST: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_millis(50);

/// A voter on the runtime `R`.
pub(crate) struct Voter<R: Runtime> {
    pub(crate) node: NodeId,
    pub(crate) raft: Raft<R>,
    pub(crate) core: Arc<Core>,
    pub(crate) server: Server<R>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
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
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Reply, ProposeError>> {
        Box::pin(async move {
            let started = R::Instant::now();
            let result = self.submit(command).await;
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
        Box::pin(self.read_index())
    }

    fn local(&self) -> State {
        self.core.local()
    }

    fn recovered(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move {
            self.running().map_err(ReadError::Stopped)?;
            let waited = self.raft.wait_for_recovery(Some(self.timing.deadline)).await;
            waited.map(|_| ()).map_err(|_| self.no_majority_for_read())
        })
    }

    fn handle(&self, rpc: PeerRpc, request: Bytes) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(self.server.handle(rpc, request))
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(self.write_snapshot())
    }

    fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: Option<crate::raft::LogId>| id.map(|id| LogIndex::new(id.index));
        Status {
            node: self.node,
            term: metrics.current_term,
            leader: metrics.current_leader.map(NodeId::new),
            voters: voters(metrics.membership_config.membership()),
            last_log: metrics.last_log_index.map(LogIndex::new),
            applied: index(metrics.last_applied),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            in_flight: self.limits.proposals_max.saturating_sub(self.slots.available_permits()),
        }
    }

    fn stopped(&self) -> BoxFuture<'_, StopReason> {
        Box::pin(self.core.stop.wait())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.go_down())
    }
}

fn voters(membership: &crate::raft::Membership) -> Vec<(NodeId, String)> {
    membership.voter_ids().map(|id| (NodeId::new(id), membership.get_node(&id).map(|node| node.addr.clone()).unwrap_or_default())).collect()
}

/// What to do when this voter cannot take a request as the leader.
enum Redirect {
    /// Another voter leads.
    To(NodeId, String),
    /// Nobody does, or this one does and no majority has confirmed it yet: a few milliseconds after an election. Try again.
    Wait,
}

impl<R: Runtime> Voter<R> {
    fn running(&self) -> Result<(), StopReason> {
        self.core.stop.reason().map_or(Ok(()), Err)
    }

    fn redirect(&self, forward: ForwardToLeader<Types<R>>) -> Redirect {
        match forward {
            ForwardToLeader { leader_id: Some(leader), leader_node, .. } if leader != self.node.get() => {
                Redirect::To(NodeId::new(leader), leader_node.map(|node| node.addr).unwrap_or_default())
            }
            _ => Redirect::Wait,
        }
    }

    /// Takes a place among the proposals in flight, and proposes in a task of its own.
    async fn submit(self: &Arc<Self>, command: Command) -> Result<Reply, ProposeError> {
        self.running().map_err(ProposeError::Stopped)?;
        let bytes = encode(&command)?;
        let full = |what: &str| ProposeError::Unavailable { reason: format!("{what} are in flight") };
        let slot = match self.slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(ProposeError::Stopped(StopReason("shutting down".to_owned()))),
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err(full(&format!("{} proposals", self.limits.proposals_max))),
        };
        let weight = bytes.len().min(self.limits.proposal_bytes_max) as u32;
        let room = self
            .bytes
            .clone()
            .try_acquire_many_owned(weight)
            .map_err(|_| full(&format!("{} bytes of proposals", self.limits.proposal_bytes_max)))?;
        let (answer, answered) = futures::channel::oneshot::channel();
        let voter = self.clone();
        // Not joined: the permits count it, and shutdown waits for them.
        drop(R::spawn(async move {
            let result = voter.write(bytes).await;
            drop((slot, room));
            let _ = answer.send(result);
        }));
        let unknown = |reason: String| Err(ProposeError::Unknown { reason });
        // Longer than the inner deadline, so that what was not proposed is not reported as unknown.
        match R::timeout(self.timing.deadline + Duration::from_secs(1), answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => unknown("the voter ended".to_owned()),
            Err(_) => unknown(format!("no majority has confirmed it within {:?}", self.timing.deadline)),
        }
    }

    /// Proposes, and again while an election is going on, until the deadline. Once the leader has taken it, waits for its end.
    async fn write(&self, bytes: Bytes) -> Result<Reply, ProposeError> {
        let deadline = R::Instant::now() + self.timing.deadline;
        let mut wait = RETRY_FIRST;
        loop {
            self.running().map_err(ProposeError::Stopped)?;
            let error = match self.raft.client_write(Proposal(bytes.clone())).await {
                Ok(written) => {
                    return match written.data.0 {
                        Some(outcome) => outcome.map_err(ProposeError::Refused),
                        None => Err(ProposeError::Unknown { reason: "the entry was applied without a reply".to_owned() }),
                    };
                }
                Err(error) => error,
            };
            match error {
                RaftError::Fatal(fatal) => {
                    self.fatal(&fatal);
                    return Err(ProposeError::Unknown { reason: format!("the voter stopped: {fatal}") });
                }
                RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => match self.redirect(forward) {
                    Redirect::To(leader, address) => return Err(ProposeError::NotLeader { leader: Some((leader, address)) }),
                    Redirect::Wait if R::Instant::now() + wait >= deadline => {
                        return Err(ProposeError::Unavailable {
                            reason: format!("no leader with a majority within {:?}", self.timing.deadline),
                        });
                    }
                    Redirect::Wait => {
                        metrics::counter!("cinnabar_consensus_proposal_retries_total").increment(1);
                        R::sleep(wait).await;
                        wait = (wait * 2).min(RETRY_MAX);
                    }
                },
                RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                    return Err(ProposeError::Unknown { reason: "the leader changed".to_owned() });
                }
                RaftError::APIError(other @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_))) => {
                    return Err(ProposeError::Unavailable { reason: other.to_string() });
                }
            }
        }
    }

    async fn read_index(&self) -> Result<State, ReadError> {
        let deadline = R::Instant::now() + self.timing.deadline;
        let mut wait = RETRY_FIRST;
        loop {
            self.running().map_err(ReadError::Stopped)?;
            let left = deadline - R::Instant::now();
            if left.is_zero() {
                return Err(self.no_majority_for_read());
            }
            match R::timeout(left, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
                Ok(Ok(_)) => return Ok(self.core.local()),
                Ok(Err(RaftError::Fatal(fatal))) => {
                    self.fatal(&fatal);
                    return Err(ReadError::Stopped(StopReason(fatal.to_string())));
                }
                Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                    if let Redirect::To(leader, address) = self.redirect(forward) {
                        return Err(ReadError::NotLeader { leader: Some((leader, address)) });
                    }
                }
                Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => {}
                Err(_) => return Err(self.no_majority_for_read()),
            }
            R::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn no_majority_for_read(&self) -> ReadError {
        ReadError::Unavailable { reason: format!("no majority has confirmed the leader within {:?}", self.timing.deadline) }
    }

    /// openraft has ended: the first cause is kept, which may be our own, given before.
    fn fatal(&self, fatal: &crate::raft::Fatal<R>) {
        self.core.stop.because(StopReason(chain(fatal)));
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

    /// While this voter leads: proposes a tick a second. Ends with the voter.
    pub(crate) async fn tick(self: Arc<Self>) {
        loop {
            if let Select2::First(_) = R::select2(self.core.stop.wait(), self.clock.sleep(self.timing.tick)).await {
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
            let Some(tick) = leads.then(|| self.tick_command()).flatten() else { continue };
            match encode(&tick) {
                Ok(bytes) => {
                    if let Err(error) = self.write(bytes).await {
                        tracing::debug!(%error, "a tick was not applied");
                    }
                }
                Err(error) => tracing::error!(%error, "a tick cannot be encoded"),
            }
        }
    }

    /// None while there is no cluster in the state yet, or it does not know this node: a refused tick would only fill the audit log.
    fn tick_command(&self) -> Option<Command> {
        let state = self.core.local();
        let level = state.settings().ok()??.feature_level;
        let known = state.node(self.node).ok()?.is_some_and(|node| node.revoked.is_none());
        known.then(|| Command {
            level,
            principal: Principal::Node { node: self.node },
            stamp: self.clock.wall(),
            request: None,
            origin: Origin::default(),
            body: CommandBody::Tick,
        })
    }

    async fn go_down(&self) {
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

fn encode(command: &Command) -> Result<Bytes, ProposeError> {
    let bytes = command.encode();
    if bytes.is_empty() {
        return Err(ProposeError::Unavailable { reason: "the command cannot be encoded".to_owned() });
    }
    if bytes.len() > CHANGE_SET_BYTES_MAX {
        return Err(ProposeError::TooLarge { bytes: bytes.len(), max: CHANGE_SET_BYTES_MAX });
    }
    Ok(bytes)
}
