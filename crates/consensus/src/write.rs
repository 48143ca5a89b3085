//! Proposals and reads, wherever the leader is.
//!
//! The leader proposes by itself. Any other node sends the encoded command to the leader ([`PeerRpc::Propose`]), which checks and
//! stamps it, and after the answer waits until its own state has the entry too: who wrote here reads it here. A read asks the
//! leader how far one has to have applied ([`PeerRpc::ReadIndex`], a round of heartbeats to a majority) and waits for that.
//!
//! **Invariants**
//! 1. A command is proposed again only if it is known not to have been taken, or if it has a request key, by which `apply` knows it.
//! 2. What enters the log has a stamp of this crate ([`Voter::stamp`]); none that came with a command, whoever sent it.
//! 3. Whoever is asked as the leader and is not says so; it passes nothing on, so that no call goes round in circles.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    Config, Instant as _, ReadPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{LinearizableReadError, RaftError},
};
use seams::mutation::{self, Mutation};
use state::{Command, Refusal, Reply, State, limits::CHANGE_SET_BYTES_MAX};
use types::NodeId;

use crate::{
    Runtime,
    engine::Voter,
    error::{ProposeError, ReadError, StopReason},
    network::{Answered, Applied, ProposeCall, Timed, decode_forward, encode_forward},
    peer::{PeerError, PeerRpc},
};

/// The first and the longest wait before something is tried again, such as during an election.
const RETRY_FIRST: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_millis(50);
/// How long the leader's answer is waited for when asking again does no harm: by then another one leads, if it hangs.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Waits that double, with jitter, so that those who wait for the same election do not come back at once.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(RETRY_FIRST)
    }

    pub(crate) async fn wait<R: Runtime>(&mut self) {
        let most = self.0.as_micros() as u64;
        // openraft's own draw from the runtime's randomness, which a simulation seeds.
        let draw = Config { election_timeout_min: most / 2, election_timeout_max: most, ..Config::default() };
        R::sleep(Duration::from_micros(draw.new_rand_election_timeout::<R>())).await;
        self.0 = (self.0 * 2).min(RETRY_MAX);
    }
}

/// What became of a proposal at this node alone.
pub(crate) enum Local {
    /// It is applied, at this index.
    Judged(u64, Result<Reply, Refusal>),
    /// Another node leads.
    To(NodeId, String),
    /// Nobody does, or this node does and no majority has confirmed it yet: a few milliseconds after an election.
    Wait,
    /// It may have been taken.
    Lost(String),
}

/// What became of one attempt, here or at the leader.
enum Attempt {
    Judged(Result<Reply, Refusal>),
    NotProposed(String),
    Lost(String),
    Failed(ProposeError),
}

/// Why work was not taken up, or not seen to its end.
pub(crate) enum Untracked {
    Full(String),
    Stopped,
    Ended(String),
}

impl<R: Runtime> Voter<R> {
    pub(crate) fn running(&self) -> Result<(), StopReason> {
        self.core.stop.reason().map_or(Ok(()), Err)
    }

    /// Whether to stop waiting for a leader: this node is about to end.
    pub(crate) fn gives_up(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// The leader, as far as this node knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader.map(NodeId::new)
    }

    pub(crate) fn leads(&self) -> bool {
        self.leader() == Some(self.node)
    }

    /// The leader and its address, unless it is this node or none is known.
    pub(crate) fn leader_elsewhere(&self) -> Option<(NodeId, String)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.filter(|leader| *leader != self.node.get())?;
        let address = metrics.membership_config.membership().get_node(&leader)?.addr.clone();
        Some((NodeId::new(leader), address))
    }

    /// Why nothing can be asked of anybody: for longer than an election takes, no membership was heard of.
    fn no_member(&self, waited: Duration) -> Option<String> {
        let metrics = self.raft.metrics();
        let none = metrics.borrow_watched().membership_config.membership().nodes().next().is_none();
        (none && waited > self.timing.election_max)
            .then(|| "this node is no member of the cluster yet: add it with `cinnabar cluster add`".to_owned())
    }

    /// Asks another node; the deadline holds even if the transport forgets it.
    pub(crate) async fn ask(&self, to: NodeId, address: &str, rpc: PeerRpc, request: Bytes, within: Duration) -> Result<Bytes, PeerError> {
        metrics::counter!("cinnabar_consensus_forwards_total", "call" => rpc.name()).increment(1);
        let call = self.transport.call(to, address, rpc, request, within);
        let late = || PeerError::Failed { to, reason: format!("no answer within {within:?}") };
        R::timeout(within, call).await.unwrap_or_else(|_| Err(late()))
    }

    /// Runs `work` as a task of its own, in a place among the proposals in flight.
    pub(crate) async fn tracked<T: Send + 'static>(
        self: &Arc<Self>,
        bytes: usize,
        within: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Untracked> {
        let slot = match self.slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(Untracked::Stopped),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                return Err(Untracked::Full(format!("{} proposals are in flight", self.limits.proposals_max)));
            }
        };
        let weight = bytes.min(self.limits.proposal_bytes_max) as u32;
        let full = || Untracked::Full(format!("{} bytes of proposals are in flight", self.limits.proposal_bytes_max));
        let room = self.bytes.clone().try_acquire_many_owned(weight).map_err(|_| full())?;
        let (answer, answered) = futures::channel::oneshot::channel();
        // Not joined: the permits count it, and shutdown waits for them.
        drop(R::spawn(async move {
            let result = work.await;
            drop((slot, room));
            let _ = answer.send(result);
        }));
        // Longer than the inner deadline, so that what was not proposed is not reported as unknown; for a caller in a hurry not much.
        let grace = if within < self.timing.deadline { RETRY_MAX } else { Duration::from_secs(1) };
        match R::timeout(within + grace, answered).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(Untracked::Ended("the voter ended".to_owned())),
            Err(_) => Err(Untracked::Ended(format!("no majority has confirmed it within {within:?}"))),
        }
    }

    /// Has a command proposed, here or at the leader.
    pub(crate) async fn submit(self: &Arc<Self>, command: Command, within: Duration) -> Result<Reply, ProposeError> {
        self.running().map_err(ProposeError::Stopped)?;
        let within = within.min(self.timing.deadline);
        let again = command.request.is_some();
        let bytes = encode(&Command { stamp: self.stamp().await, ..command })?;
        let voter = self.clone();
        let work = self.tracked(bytes.len(), within, async move { voter.write(bytes, again, within).await }).await;
        work.unwrap_or_else(|untracked| {
            Err(match untracked {
                Untracked::Full(reason) => ProposeError::Unavailable { reason },
                Untracked::Stopped => ProposeError::Stopped(StopReason("shutting down".to_owned())),
                Untracked::Ended(reason) => ProposeError::Unknown { reason },
            })
        })
    }

    /// Tries until the deadline. `again`: whether the command may be sent a second time.
    pub(crate) async fn write(self: &Arc<Self>, bytes: Bytes, again: bool, within: Duration) -> Result<Reply, ProposeError> {
        let deadline = R::Instant::now() + within;
        let (mut backoff, mut lost) = (Backoff::new(), false);
        loop {
            // After an attempt that was lost nothing but a judgement says that nothing was proposed.
            if let Err(reason) = self.running() {
                return Err(if lost { ProposeError::Unknown { reason: reason.0 } } else { ProposeError::Stopped(reason) });
            }
            let left = deadline - R::Instant::now();
            let reason = match self.attempt(&bytes, left, again).await {
                Attempt::Judged(judged) => return judged.map_err(ProposeError::Refused),
                Attempt::Failed(error) if lost => return Err(ProposeError::Unknown { reason: error.to_string() }),
                Attempt::Failed(error) => return Err(error),
                Attempt::Lost(reason) if !again && !mutation::is_on(Mutation::LostProposalRepeated) => {
                    return Err(ProposeError::Unknown { reason });
                }
                Attempt::Lost(reason) => {
                    lost = true;
                    reason
                }
                Attempt::NotProposed(reason) => reason,
            };
            if let Some(reason) = self.no_member(within.saturating_sub(left)) {
                return Err(if lost { ProposeError::Unknown { reason } } else { ProposeError::Unavailable { reason } });
            }
            if R::Instant::now() + RETRY_MAX >= deadline || self.gives_up() {
                let reason = format!("no leader with a majority within {within:.1?} ({reason})");
                return Err(if lost { ProposeError::Unknown { reason } } else { ProposeError::Unavailable { reason } });
            }
            metrics::counter!("cinnabar_consensus_proposal_retries_total").increment(1);
            backoff.wait::<R>().await;
        }
    }

    async fn attempt(self: &Arc<Self>, bytes: &Bytes, left: Duration, again: bool) -> Attempt {
        let (leader, address) = match self.leader_elsewhere() {
            Some(leader) => leader,
            None => match self.propose_here(bytes.clone(), R::Instant::now() + left).await {
                Local::Judged(_, judged) => return Attempt::Judged(judged),
                Local::To(leader, address) => (leader, address),
                Local::Lost(reason) => return Attempt::Lost(reason),
                Local::Wait => return Attempt::NotProposed("no leader is known".to_owned()),
            },
        };
        let asked = R::Instant::now();
        let within = if again { left.min(ATTEMPT) } else { left };
        let call = ProposeCall { within, command: bytes.clone() };
        let answer = match self.ask(leader, &address, PeerRpc::Propose, call.encode(), within).await {
            Ok(answer) => decode_forward::<Answered<Applied>>("answer to a proposal", answer),
            Err(error @ PeerError::Unreachable { .. }) => return Attempt::NotProposed(error.to_string()),
            Err(error) => return Attempt::Lost(error.to_string()),
        };
        match answer {
            Ok(Answered::Done((index, judged))) => {
                // It is committed whether or not this node has it yet, so it is answered as done, with its position. Who reads here
                // afterwards should see it, so what is left of the time is waited for it; a read asks the leader anyway.
                self.await_applied(index, left.saturating_sub(R::Instant::now() - asked)).await;
                Attempt::Judged(judged)
            }
            Ok(Answered::NotLeader(_)) => Attempt::NotProposed(format!("node {leader} does not lead any more")),
            Ok(Answered::NotDone(reason)) => Attempt::NotProposed(reason),
            Ok(Answered::Unknown(reason)) => Attempt::Lost(reason),
            Ok(Answered::Refused(reason)) => Attempt::Failed(ProposeError::Unavailable { reason }),
            Ok(Answered::Behind { .. }) => Attempt::Lost("an answer to something else".to_owned()),
            Err(error) => Attempt::Lost(error.to_string()),
        }
    }

    /// Answers [`PeerRpc::Propose`].
    pub(crate) async fn take_proposal(self: &Arc<Self>, request: Bytes) -> Result<Bytes, PeerError> {
        let malformed = |detail: String| PeerError::Malformed { rpc: PeerRpc::Propose, detail };
        let call = ProposeCall::decode(request).map_err(|error| malformed(error.to_string()))?;
        let within = call.within.min(self.timing.deadline);
        // Decoded before it enters the log: an entry that cannot be would stop every voter.
        let answer = match Command::decode(&call.command) {
            Err(error) => Answered::Refused(format!("the leader cannot take it: {error}")),
            Ok(command) => {
                let bytes = encode(&Command { stamp: self.stamp().await, ..command }).map_err(|error| malformed(error.to_string()))?;
                let voter = self.clone();
                match self.tracked(bytes.len(), within, async move { voter.lead(bytes, within).await }).await {
                    Ok(answer) => answer,
                    Err(Untracked::Full(reason)) => Answered::NotDone(reason),
                    Err(Untracked::Stopped) => Answered::NotLeader(None),
                    Err(Untracked::Ended(reason)) => Answered::Unknown(reason),
                }
            }
        };
        Ok(encode_forward::<Answered<Applied>>(&answer))
    }

    /// Proposes for another node, as the leader or not at all.
    async fn lead(self: &Arc<Self>, bytes: Bytes, within: Duration) -> Answered<Applied> {
        let deadline = R::Instant::now() + within;
        let mut backoff = Backoff::new();
        loop {
            match self.propose_here(bytes.clone(), deadline).await {
                Local::Judged(index, judged) => return Answered::Done((index, judged)),
                Local::To(leader, address) => return Answered::NotLeader(Some((leader.get(), address))),
                Local::Lost(reason) => return Answered::Unknown(reason),
                Local::Wait if self.leads() && R::Instant::now() < deadline && !self.gives_up() => backoff.wait::<R>().await,
                Local::Wait => return Answered::NotLeader(None),
            }
        }
    }

    /// Waits until the entry is applied here. False when it is not within the time.
    async fn await_applied(&self, index: u64, within: Duration) -> bool {
        self.raft.wait(Some(within)).applied_index_at_least(Some(index), "an entry applied elsewhere").await.is_ok()
    }

    /// The newest state.
    pub(crate) async fn read(&self) -> Result<State, ReadError> {
        if mutation::is_on(Mutation::ReadIndexSkipped) {
            return Ok(self.core.local());
        }
        let deadline = R::Instant::now() + self.timing.deadline;
        let mut backoff = Backoff::new();
        loop {
            self.running().map_err(ReadError::Stopped)?;
            let left = deadline - R::Instant::now();
            let reason = match self.read_index(left.min(ATTEMPT)).await {
                Ok(index) if self.await_applied(index, deadline - R::Instant::now()).await => return Ok(self.core.local()),
                Ok(index) => format!("this node has not applied entry {index} yet"),
                Err(reason) => reason,
            };
            if let Some(reason) = self.no_member(self.timing.deadline.saturating_sub(left)) {
                return Err(ReadError::Unavailable { reason });
            }
            if R::Instant::now() + RETRY_MAX >= deadline || self.gives_up() {
                let reason = format!("no majority has confirmed a leader within {:?} ({reason})", self.timing.deadline);
                return Err(ReadError::Unavailable { reason });
            }
            backoff.wait::<R>().await;
        }
    }

    /// How far one has to have applied to read the newest state, from the leader.
    async fn read_index(&self, within: Duration) -> Result<u64, String> {
        let (leader, address) = match self.leader_elsewhere() {
            Some(leader) => leader,
            None => match self.read_index_here(within).await {
                Answered::Done(index) => return Ok(index),
                Answered::NotLeader(Some((leader, address))) => (NodeId::new(leader), address),
                other => return Err(other.problem()),
            },
        };
        let request = encode_forward(&Timed::new(within, ()));
        let answer = self.ask(leader, &address, PeerRpc::ReadIndex, request, within).await.map_err(|error| error.to_string())?;
        match decode_forward::<Answered<u64>>("answer to a read", answer).map_err(|error| error.to_string())? {
            Answered::Done(index) => Ok(index),
            other => Err(other.problem()),
        }
    }

    /// Answers [`PeerRpc::ReadIndex`].
    pub(crate) async fn take_read(&self, request: Bytes) -> Result<Bytes, PeerError> {
        let malformed = |error: crate::format::FormatError| PeerError::Malformed { rpc: PeerRpc::ReadIndex, detail: error.to_string() };
        let call: Timed<()> = decode_forward("read call", request).map_err(malformed)?;
        Ok(encode_forward(&self.read_index_here(call.within().min(ATTEMPT)).await))
    }

    async fn read_index_here(&self, within: Duration) -> Answered<u64> {
        let deadline = R::Instant::now() + within;
        let mut backoff = Backoff::new();
        loop {
            let left = deadline - R::Instant::now();
            match R::timeout(left, self.raft.get_read_linearizer(ReadPolicy::ReadIndex)).await {
                Ok(Ok(linearizer)) => return Answered::Done(linearizer.read_log_id().index()),
                Ok(Err(RaftError::Fatal(fatal))) => {
                    self.fatal(&fatal);
                    return Answered::NotDone(fatal.to_string());
                }
                Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                    if let Some((leader, address)) = self.elsewhere(forward) {
                        return Answered::NotLeader(Some((leader.get(), address)));
                    }
                    if !self.leads() {
                        return Answered::NotLeader(None);
                    }
                }
                Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => {}
                Err(_) => return Answered::NotDone("no majority confirms the leader".to_owned()),
            }
            backoff.wait::<R>().await;
        }
    }
}

pub(crate) fn encode(command: &Command) -> Result<Bytes, ProposeError> {
    let bytes = command.encode();
    if bytes.is_empty() {
        return Err(ProposeError::Unavailable { reason: "the command cannot be encoded".to_owned() });
    }
    if bytes.len() > CHANGE_SET_BYTES_MAX {
        return Err(ProposeError::TooLarge { bytes: bytes.len(), max: CHANGE_SET_BYTES_MAX });
    }
    Ok(bytes)
}
