//! Changes of the membership and of the leader, made by the leader and asked for by any node.
//!
//! A change of voters goes through a joint membership: two entries. If the leader is lost between them, the joint one stays in force,
//! which is safe; whatever change comes next finishes it first.
//!
//! **Invariants**
//! 1. One change at a time is under way on a leader.
//! 2. A learner votes only once its log reaches the leader's end as it was when it was asked to.
//! 3. What a membership says counts as done only once its entry is committed: what is only in a leader's log may go with that leader.
//! 4. A removal that would leave no reachable majority is refused, unless it is forced; the last voter is never removed.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    BasicNode, ChangeMembers, Instant as _,
    async_runtime::watch::WatchReceiver as _,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use types::{LogIndex, NodeId};

use crate::{
    Runtime,
    engine::Voter,
    error::ReadError,
    members::{ChangeError, Membership, Overview, Progress},
    network::{self, Answered, Change, Timed, decode_forward, encode_forward},
    options::{ADDRESS_BYTES_MAX, MEMBERS_MAX},
    peer::{PeerError, PeerRpc},
    raft::Types,
    write::{Backoff, Untracked},
};

/// A member that answered within this time counts as reachable. Several times what an election takes, so that one that is busy is
/// not taken for dead.
const REACHABLE_WITHIN: Duration = Duration::from_secs(3);
/// Left of the deadline when a promotion stops waiting for the learner, so that the answer still arrives.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);
/// How long a handover of leadership may take.
const TRANSFER_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take at the end of a node: the others elect a leader in little more.
const LAST_TRANSFER_WITHIN: Duration = Duration::from_secs(1);
/// How often a learner that catches up is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends a change early.
type Stopped = Answered<u64>;

impl<T> Answered<T> {
    /// Why it is not done, for people.
    pub(crate) fn problem(self) -> String {
        match self {
            Self::Done(_) => "done".to_owned(),
            Self::NotLeader(Some((node, address))) => format!("node {node} at {address} leads"),
            Self::NotLeader(None) => "no leader is known".to_owned(),
            Self::NotDone(reason) | Self::Unknown(reason) | Self::Refused(reason) => reason,
            Self::Behind { .. } => "a learner is behind".to_owned(),
        }
    }
}

impl<R: Runtime> Voter<R> {
    /// The newest membership in this node's log.
    pub(crate) fn members(&self) -> Membership {
        let metrics = self.raft.metrics();
        let stored = metrics.borrow_watched().membership_config.clone();
        let membership = stored.membership();
        let row = |id: u64| (NodeId::new(id), membership.get_node(&id).map(|node| node.addr.clone()).unwrap_or_default());
        Membership {
            voters: membership.voter_ids().collect::<BTreeSet<_>>().into_iter().map(row).collect(),
            learners: membership.learner_ids().collect::<BTreeSet<_>>().into_iter().map(row).collect(),
            joint: membership.get_joint_config().len() > 1,
        }
    }

    /// How far each member has come; empty where this node does not lead.
    pub(crate) fn progress(&self) -> Vec<Progress> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let (Some(replication), Some(heartbeats)) = (metrics.replication, metrics.heartbeat) else { return Vec::new() };
        let now = R::Instant::now();
        let row = |(id, _): (&u64, &BasicNode)| {
            if *id == self.node.get() {
                return Progress { node: self.node, matched: metrics.last_log_index.map(LogIndex::new), contact: Some(Duration::ZERO) };
            }
            let matched = replication.get(id).copied().flatten().map(|matched| LogIndex::new(matched.index));
            let contact = heartbeats.get(id).copied().flatten().map(|heard| now - *heard);
            Progress { node: NodeId::new(*id), matched, contact }
        };
        metrics.membership_config.membership().nodes().map(row).collect()
    }

    /// Whether the newest membership in this node's log is applied, and so committed.
    fn is_settled(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        *metrics.membership_config.log_id() <= metrics.last_applied
    }

    /// Waits until the newest membership is committed.
    async fn settled(&self, deadline: R::Instant) -> Result<(), Stopped> {
        while !self.is_settled() {
            if !self.leads() {
                return Err(Answered::NotLeader(None));
            }
            if R::Instant::now() + ANSWER_MARGIN >= deadline {
                return Err(Answered::Unknown("no majority has confirmed the change before this one in time".to_owned()));
            }
            R::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Has a change made, here or at the leader. Each change may be asked for again, so it is, until the deadline.
    pub(crate) async fn change_anywhere(self: &Arc<Self>, change: Change) -> Result<NodeId, ChangeError> {
        let deadline = R::Instant::now() + self.timing.deadline;
        let (mut backoff, mut unknown, mut attempts) = (Backoff::new(), false, 0);
        loop {
            self.running().map_err(|reason| ChangeError::Unavailable { reason: format!("this node has stopped: {reason}") })?;
            let left = deadline - R::Instant::now();
            let mut answer = match self.leader_elsewhere().or_else(|| self.somebody(attempts)) {
                Some((leader, address)) => self.ask_for_change(leader, &address, &change, left).await,
                None => self.change_tracked(change.clone(), left).await,
            };
            // A leader that this node does not hear of, such as one that looks for it at an old address.
            if let Answered::NotLeader(Some((leader, address))) = &answer
                && *leader != self.node.get()
            {
                answer = self.ask_for_change(NodeId::new(*leader), address, &change, deadline - R::Instant::now()).await;
            }
            attempts += 1;
            let reason = match answer {
                Answered::Done(node) => return Ok(NodeId::new(node)),
                // What was asked for before and lost may have been done.
                Answered::Refused(_) if unknown && self.is_done(&change) => return Ok(self.node),
                Answered::Refused(reason) => return Err(ChangeError::Refused { reason }),
                Answered::Behind { matched, last } => {
                    return Err(ChangeError::Behind { matched: matched.map(LogIndex::new), last: last.map(LogIndex::new) });
                }
                Answered::Unknown(reason) => {
                    unknown = true;
                    reason
                }
                other @ (Answered::NotLeader(_) | Answered::NotDone(_)) => other.problem(),
            };
            if R::Instant::now() + LOOK_EVERY * 4 >= deadline || self.gives_up() {
                return Err(if unknown { ChangeError::Unknown { reason } } else { ChangeError::Unavailable { reason } });
            }
            backoff.wait::<R>().await;
        }
    }

    /// A member to ask while no leader is known, another one each time; this node itself first.
    fn somebody(&self, attempts: usize) -> Option<(NodeId, String)> {
        let members = self.members();
        let others = members.voters.into_iter().filter(|(node, _)| *node != self.node);
        let turns: Vec<_> = std::iter::once(None).chain(others.map(Some)).collect();
        turns.into_iter().cycle().nth(attempts % MEMBERS_MAX).flatten().filter(|_| !self.leads())
    }

    fn is_done(&self, change: &Change) -> bool {
        // In this order: what is settled afterwards was committed with all before it.
        let members = self.members();
        if !self.is_settled() {
            return false;
        }
        match change {
            Change::Add { node, address } => members.address(NodeId::new(*node)) == Some(address),
            Change::Promote { node } => !members.joint && members.votes(NodeId::new(*node)),
            Change::Remove { node, .. } => !members.joint && !members.holds(NodeId::new(*node)),
            Change::Transfer { .. } => false,
        }
    }

    async fn ask_for_change(&self, leader: NodeId, address: &str, change: &Change, within: Duration) -> Stopped {
        let request = encode_forward(&Timed::new(within, change.clone()));
        match self.ask(leader, address, PeerRpc::Change, request, within).await {
            Ok(answer) => decode_forward("answer to a change", answer).unwrap_or_else(|error| Answered::Unknown(error.to_string())),
            Err(error @ PeerError::Unreachable { .. }) => Answered::NotDone(error.to_string()),
            Err(error) => Answered::Unknown(error.to_string()),
        }
    }

    /// Answers [`PeerRpc::Change`].
    pub(crate) async fn take_change(self: &Arc<Self>, request: Bytes) -> Result<Bytes, PeerError> {
        let malformed = |error: crate::format::FormatError| PeerError::Malformed { rpc: PeerRpc::Change, detail: error.to_string() };
        let call: Timed<Change> = decode_forward("change call", request).map_err(malformed)?;
        let within = call.within().min(self.timing.deadline);
        Ok(encode_forward(&self.change_tracked(call.ask, within).await))
    }

    /// In a task of its own: a caller that goes away does not leave a change halfway.
    async fn change_tracked(self: &Arc<Self>, change: Change, within: Duration) -> Stopped {
        let voter = self.clone();
        let work = async move {
            let deadline = R::Instant::now() + within;
            voter.change_here(change, deadline).await.unwrap_or_else(|stopped| stopped)
        };
        match self.tracked(0, within, work).await {
            Ok(answer) => answer,
            Err(Untracked::Full(reason)) => Answered::NotDone(reason),
            Err(Untracked::Stopped) => Answered::NotLeader(None),
            Err(Untracked::Ended(reason)) => Answered::Unknown(reason),
        }
    }

    /// Makes a change as the leader, or says who leads.
    async fn change_here(&self, change: Change, deadline: R::Instant) -> Result<Stopped, Stopped> {
        if !self.leads() {
            return Err(Answered::NotLeader(self.leader_elsewhere().map(|(leader, address)| (leader.get(), address))));
        }
        let busy = |_| Answered::NotDone("another change is under way".to_owned());
        let _alone = R::timeout(deadline - R::Instant::now(), self.changing.lock()).await.map_err(busy)?;
        self.settled(deadline).await?;
        let interrupted = self.members().joint;
        if interrupted {
            tracing::info!("finishing a change of the membership that was interrupted");
            self.within(deadline, self.raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false)).await?;
        }
        match change {
            Change::Add { node, address } => self.add(node, address, deadline).await,
            Change::Promote { node } => self.make_voter(node, deadline).await,
            Change::Remove { node, force } => self.take_out(node, force, interrupted, deadline).await,
            Change::Transfer { to } => self.hand_over(to.map(NodeId::new)).await,
        }
    }

    async fn add(&self, node: u64, address: String, deadline: R::Instant) -> Result<Stopped, Stopped> {
        let members = self.members();
        let known = members.address(NodeId::new(node));
        if known == Some(address.as_str()) {
            return Ok(Answered::Done(node));
        }
        if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
            return Err(Answered::Refused(format!("an address has 1 to {ADDRESS_BYTES_MAX} bytes, as HOST:PORT")));
        }
        if known.is_none() && members.voters.len() + members.learners.len() >= MEMBERS_MAX {
            return Err(Answered::Refused(format!("a cluster has at most {MEMBERS_MAX} members")));
        }
        let moved = known.is_some();
        let rows = [(node, BasicNode { addr: address })].into();
        // A peer proves by its certificate that it is the node that is called, so another address can be no other node.
        let change = if moved { ChangeMembers::SetNodes(rows) } else { ChangeMembers::AddNodes(rows) };
        self.within(deadline, self.raft.change_membership(change, true)).await?;
        tracing::info!(node, moved, "a member was added, or got another address");
        Ok(Answered::Done(node))
    }

    async fn make_voter(&self, node: u64, deadline: R::Instant) -> Result<Stopped, Stopped> {
        let members = self.members();
        if members.votes(NodeId::new(node)) {
            return Ok(Answered::Done(node));
        }
        if !members.holds(NodeId::new(node)) {
            return Err(Answered::Refused(format!("node {node} is no learner: add it first, with `cinnabar cluster add`")));
        }
        self.await_caught_up(node, deadline).await?;
        self.within(deadline, self.raft.change_membership(ChangeMembers::AddVoterIds([node].into()), true)).await?;
        tracing::info!(node, "a learner was made a voter");
        Ok(Answered::Done(node))
    }

    async fn await_caught_up(&self, node: u64, deadline: R::Instant) -> Result<(), Stopped> {
        let target = self.raft.metrics().borrow_watched().last_log_index;
        loop {
            if !self.leads() {
                return Err(Answered::NotLeader(None));
            }
            let found = self.progress().into_iter().find(|row| row.node.get() == node);
            let matched = found.and_then(|row| row.matched).map(LogIndex::get);
            if matched >= target {
                return Ok(());
            }
            if R::Instant::now() + ANSWER_MARGIN >= deadline {
                return Err(Answered::Behind { matched, last: target });
            }
            R::sleep(LOOK_EVERY).await;
        }
    }

    async fn take_out(&self, node: u64, force: bool, interrupted: bool, deadline: R::Instant) -> Result<Stopped, Stopped> {
        let (members, id) = (self.members(), NodeId::new(node));
        if !members.holds(id) {
            // The change that was interrupted may have been this one.
            return if interrupted { Ok(Answered::Done(node)) } else { Err(Answered::Refused(format!("node {node} is no member"))) };
        }
        if !members.votes(id) {
            self.within(deadline, self.raft.change_membership(ChangeMembers::RemoveNodes([node].into()), true)).await?;
            tracing::info!(node, "a learner was removed");
            return Ok(Answered::Done(node));
        }
        self.check_quorum_without(id, &members, force)?;
        if id == self.node {
            let next = self.hand_over(None).await?;
            return Err(match next {
                Answered::Done(leader) => {
                    Answered::NotLeader(members.address(NodeId::new(leader)).map(|address| (leader, address.to_owned())))
                }
                other => other,
            });
        }
        self.within(deadline, self.raft.change_membership(ChangeMembers::RemoveVoters([node].into()), false)).await?;
        tracing::info!(node, force, "a voter was removed");
        Ok(Answered::Done(node))
    }

    fn check_quorum_without(&self, id: NodeId, members: &Membership, force: bool) -> Result<(), Stopped> {
        let left: Vec<NodeId> = members.voters.iter().map(|(voter, _)| *voter).filter(|voter| *voter != id).collect();
        if left.is_empty() {
            return Err(Answered::Refused(format!("node {id} is the last voter: make another one a voter first")));
        }
        let reachable = self.reachable();
        let dead: Vec<String> = left.iter().filter(|voter| !reachable.contains(voter)).map(ToString::to_string).collect();
        if !force && left.len() - dead.len() < left.len() / 2 + 1 {
            return Err(Answered::Refused(format!(
                "without node {id} no majority would be reachable: {} of the other {} voters do not answer (nodes {}). \
                 Bring them back or remove them first, or use --force",
                dead.len(),
                left.len(),
                dead.join(", ")
            )));
        }
        Ok(())
    }

    /// The members that have answered lately, this node among them.
    fn reachable(&self) -> BTreeSet<NodeId> {
        let rows = self.progress().into_iter();
        rows.filter(|row| row.contact.is_some_and(|contact| contact <= REACHABLE_WITHIN)).map(|row| row.node).collect()
    }

    pub(crate) async fn hand_over(&self, to: Option<NodeId>) -> Result<Stopped, Stopped> {
        let (members, reachable) = (self.members(), self.reachable());
        let to = match to {
            Some(to) if to == self.node => return Ok(Answered::Done(to.get())),
            Some(to) if !members.votes(to) => return Err(Answered::Refused(format!("node {to} does not vote, so it cannot lead"))),
            Some(to) if !reachable.contains(&to) => return Err(Answered::Refused(format!("node {to} does not answer"))),
            Some(to) => to,
            None => {
                let rows = self.progress().into_iter();
                let able = rows.filter(|row| row.node != self.node && members.votes(row.node) && reachable.contains(&row.node));
                let best = able.max_by_key(|row| (row.matched, std::cmp::Reverse(row.node)));
                best.ok_or_else(|| Answered::Refused("no other voter answers, so none can lead".to_owned()))?.node
            }
        };
        let failed = |fatal: crate::raft::Fatal<R>| Answered::NotDone(fatal.to_string());
        self.raft.trigger().transfer_leader(to.get()).await.map_err(failed)?;
        let wait = self.raft.wait(Some(TRANSFER_WITHIN));
        let node = self.node.get();
        let moved = wait.metrics(move |metrics| metrics.current_leader.is_some_and(|leader| leader != node), "another leader").await;
        match moved.ok().and_then(|metrics| metrics.current_leader) {
            Some(leader) => {
                tracing::info!(leader, "leadership was handed over");
                Ok(Answered::Done(leader))
            }
            None => Err(Answered::NotDone(format!("node {to} has not taken leadership within {TRANSFER_WITHIN:?}"))),
        }
    }

    /// Hands leadership over if this node has it and another can take it.
    pub(crate) async fn hand_over_if_leading(&self) {
        if !self.leads() || self.members().voters.len() < 2 {
            return;
        }
        if let Ok(Err(stopped)) | Ok(Ok(stopped @ Answered::NotDone(_))) = R::timeout(LAST_TRANSFER_WITHIN, self.hand_over(None)).await {
            tracing::info!(reason = stopped.problem(), "leadership was not handed over; the others elect a leader when this one is gone");
        }
    }

    /// Waits for a change of the membership, up to the deadline.
    async fn within<T: Send>(
        &self,
        deadline: R::Instant,
        change: impl Future<Output = Result<T, RaftError<Types<R>, ClientWriteError<Types<R>>>>> + Send,
    ) -> Result<(), Stopped> {
        match R::timeout(deadline - R::Instant::now(), change).await {
            Err(_) => Err(Answered::Unknown("no majority has confirmed the change in time".to_owned())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(fatal))) => {
                self.fatal(&fatal);
                Err(Answered::Unknown(fatal.to_string()))
            }
            Ok(Err(RaftError::APIError(error))) => Err(match error {
                ClientWriteError::ForwardToLeader(_) => Answered::NotLeader(None),
                ClientWriteError::LogEntryDiscarded(_) => Answered::Unknown("the leader changed".to_owned()),
                ClientWriteError::ChangeMembershipError(
                    error @ (ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)),
                ) => Answered::NotDone(error.to_string()),
                ClientWriteError::ChangeMembershipError(error) => Answered::Refused(error.to_string()),
                // Of the second step: the joint membership is in force, and the next attempt finishes it.
                ClientWriteError::PreconditionFailed(error) => Answered::Unknown(error.to_string()),
            }),
        }
    }

    /// How the members stand, from the leader.
    pub(crate) async fn overview_anywhere(&self) -> Result<Overview, ReadError> {
        let deadline = R::Instant::now() + self.timing.deadline;
        let mut backoff = Backoff::new();
        loop {
            self.running().map_err(ReadError::Stopped)?;
            let left = deadline - R::Instant::now();
            let found = match self.leader_elsewhere() {
                Some((leader, address)) => {
                    let request = encode_forward(&Timed::new(left, ()));
                    let answer = self.ask(leader, &address, PeerRpc::Progress, request, left.min(REACHABLE_WITHIN)).await;
                    answer
                        .map_err(|error| error.to_string())
                        .and_then(|answer| decode_forward("answer about the members", answer).map_err(|error| error.to_string()))
                }
                None => Ok(self.overview_here()),
            };
            let reason = match found {
                Ok(Answered::Done(network::Overview { leader, term, last_log, progress })) => {
                    let row = |(node, matched, contact): (u64, Option<u64>, Option<u64>)| Progress {
                        node: NodeId::new(node),
                        matched: matched.map(LogIndex::new),
                        contact: contact.map(Duration::from_millis),
                    };
                    let progress = progress.into_iter().map(row).collect();
                    return Ok(Overview { leader: NodeId::new(leader), term, last_log: last_log.map(LogIndex::new), progress });
                }
                Ok(other) => other.problem(),
                Err(reason) => reason,
            };
            if R::Instant::now() + LOOK_EVERY * 4 >= deadline || self.gives_up() {
                return Err(ReadError::Unavailable { reason });
            }
            backoff.wait::<R>().await;
        }
    }

    /// Answers [`PeerRpc::Progress`].
    pub(crate) fn overview_here(&self) -> Answered<network::Overview> {
        let (term, last_log) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.last_log_index)
        };
        let progress = self.progress();
        if progress.is_empty() {
            return Answered::NotLeader(self.leader_elsewhere().map(|(leader, address)| (leader.get(), address)));
        }
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let row = |row: Progress| (row.node.get(), row.matched.map(LogIndex::get), row.contact.map(millis));
        Answered::Done(network::Overview { leader: self.node.get(), term, last_log, progress: progress.into_iter().map(row).collect() })
    }
}
