//! `Cluster`: who votes, who leads, and how that is changed. Any node answers; changes are asked of the leader.
//!
//! Neither is in the state: members are Raft's own entries. So grants are checked here, on the newest state where there is a majority;
//! the audit log gets every change by two commands of its own ([`noted`]), of which the first judges the grant once more.

use std::time::Duration;

use consensus::{ChangeError, Membership, Overview};
use state::{GrantScope, MemberChange, Operation, State, record::NodeRole};
use tonic::{Request, Response, Status, async_trait};
use types::{LogIndex, NodeId};
use wire::{ErrorKind, PublicError, v1};

use super::{Services, members::noted};
use crate::{
    call::{Call, change, read},
    core::Core,
    enrol::{replace, signers},
    error::{damaged, not_read},
};

/// How long `status` waits for an election before it says that nobody leads.
const ELECTED_WITHIN: Duration = Duration::from_secs(3);

fn not_changed(error: ChangeError) -> PublicError {
    let kind = match &error {
        ChangeError::Refused { .. } => ErrorKind::Precondition,
        ChangeError::Behind { .. } | ChangeError::Unavailable { .. } => ErrorKind::Unavailable,
        ChangeError::Unknown { .. } => ErrorKind::DeadlineExceeded,
    };
    PublicError::new(kind, error.to_string())
}

/// A node by number or name. Names that nodes had before they were revoked count too: they may have to be removed.
fn find(state: &State, text: &str) -> Result<NodeId, PublicError> {
    if let Ok(node) = text.parse::<NodeId>() {
        return Ok(node);
    }
    let mut after = None;
    let mut found = None;
    loop {
        let page = state.nodes(after.as_ref(), 1000).map_err(damaged)?;
        for (node, record) in page.items.into_iter().filter(|(_, record)| record.name.as_str() == text) {
            // One in good standing goes before one that was revoked.
            if found.is_none() || record.revoked.is_none() {
                found = Some(node);
            }
        }
        after = page.next;
        if after.is_none() {
            return found.ok_or_else(|| {
                PublicError::new(ErrorKind::NotFound, format!("no node is called {text:?}: `cinnabar node list` shows them"))
            });
        }
    }
}

fn row(state: &State, members: &Membership, leader: Option<NodeId>, node: NodeId) -> v1::Member {
    let role = if members.votes(node) { v1::MemberRole::Voter } else { v1::MemberRole::Learner };
    v1::Member {
        node_id: node.get(),
        name: state.node(node).ok().flatten().map(|record| record.name.to_string()).unwrap_or_default(),
        address: members.address(node).unwrap_or_default().to_owned(),
        role: role.into(),
        leader: leader == Some(node),
    }
}

/// The member that was changed, as this node has it by now.
fn changed(core: &Core, node: NodeId) -> v1::ClusterChangeReply {
    let (state, members) = (core.consensus.local(), core.consensus.membership());
    let mut member = row(&state, &members, core.consensus.status().leader, node);
    if !members.holds(node) {
        member.role = v1::MemberRole::Unspecified.into();
    }
    v1::ClusterChangeReply { member: Some(member) }
}

/// The state to look names up in, for a caller who may change the membership.
async fn allowed(core: &Core, call: &Call) -> Result<State, PublicError> {
    core.read(call, |state, caller| {
        caller.require(Operation::ManageMembership, GrantScope::Cluster)?;
        Ok(state.clone())
    })
    .await
}

/// The members as the leader sees them; none when there is no leader, and has not been for longer than an election takes.
async fn overview(core: &Core) -> Result<Option<Overview>, PublicError> {
    if core.leader().await.is_none() && core.leaderless() >= ELECTED_WITHIN {
        return Ok(None);
    }
    tokio::select! {
        biased;
        found = core.consensus.overview() => found.map(Some).map_err(not_read),
        () = core.clock.sleep(ELECTED_WITHIN) => Ok(None),
    }
}

/// What this node knows of the members by itself.
fn leaderless(core: &Core, state: &State) -> v1::ClusterStatusReply {
    let (members, here, clocks) = (core.consensus.membership(), core.consensus.status(), core.consensus.clocks());
    let status = |node: NodeId| v1::MemberStatus {
        member: Some(row(state, &members, None, node)),
        progress: None,
        clock_ahead_ms: clocks.ahead_ms(node),
    };
    v1::ClusterStatusReply {
        members: ids(&members).map(status).collect(),
        joint: members.joint,
        term: here.term,
        last_index: here.last_log.map_or(0, LogIndex::get),
        leaderless_ms: Some(u64::try_from(core.leaderless().as_millis()).unwrap_or(u64::MAX)),
    }
}

fn ids(members: &Membership) -> impl Iterator<Item = NodeId> {
    members.voters.iter().chain(&members.learners).map(|(node, _)| *node)
}

#[async_trait]
impl v1::cluster_server::Cluster for Services {
    async fn members(&self, request: Request<v1::ClusterMembersRequest>) -> Result<Response<v1::ClusterMembersReply>, Status> {
        read(&self.0, "cluster.members", request, async |core, call, _| {
            // The node's own view: it is asked most of all when there is no majority.
            let (caller, state) = core.identify_here(&call).await?;
            caller.require(Operation::ReadCluster, GrantScope::Cluster)?;
            let (members, leader) = (core.consensus.membership(), core.leader().await);
            let rows = ids(&members).map(|node| row(&state, &members, leader, node)).collect();
            Ok(v1::ClusterMembersReply { members: rows, joint: members.joint })
        })
        .await
    }

    async fn status(&self, request: Request<v1::ClusterStatusRequest>) -> Result<Response<v1::ClusterStatusReply>, Status> {
        read(&self.0, "cluster.status", request, async |core, call, _| {
            let (caller, state) = core.identify_here(&call).await?;
            caller.require(Operation::ReadCluster, GrantScope::Cluster)?;
            let Some(overview) = overview(&core).await? else { return Ok(leaderless(&core, &state)) };
            let (members, clocks) = (core.consensus.membership(), core.consensus.clocks());
            let status = |node: NodeId| {
                let progress = overview.progress.iter().find(|row| row.node == node);
                v1::MemberStatus {
                    member: Some(row(&state, &members, Some(overview.leader), node)),
                    progress: progress.map(|row| v1::MemberProgress {
                        matched_index: row.matched.map(LogIndex::get),
                        contact_ms: row.contact.map(|contact| u64::try_from(contact.as_millis()).unwrap_or(u64::MAX)),
                    }),
                    clock_ahead_ms: clocks.ahead_ms(node),
                }
            };
            Ok(v1::ClusterStatusReply {
                members: ids(&members).map(status).collect(),
                joint: members.joint,
                term: overview.term,
                last_index: overview.last_log.map_or(0, LogIndex::get),
                leaderless_ms: None,
            })
        })
        .await
    }

    async fn add(&self, request: Request<v1::ClusterAddRequest>) -> Result<Response<v1::ClusterChangeReply>, Status> {
        read(&self.0, "cluster.add", request, async |core, call, message: v1::ClusterAddRequest| {
            let state = allowed(&core, &call).await?;
            let node = find(&state, &message.node)?;
            let precondition = |text: String| PublicError::new(ErrorKind::Precondition, text);
            let record = state.node(node).map_err(damaged)?;
            let record = record.ok_or_else(|| precondition(format!("node {node} is not registered: it has to join first")))?;
            if record.role != NodeRole::Control || record.revoked.is_some() {
                return Err(precondition(format!("node {node} is no control node in good standing, so it cannot be a member")));
            }
            let told = Some(message.address).filter(|address| !address.is_empty()).or(record.address);
            let address = told.ok_or_else(|| {
                PublicError::new(ErrorKind::InvalidArgument, "this node has not said where it is reached: give its address, as HOST:PORT")
            })?;
            let address: runtime::config::HostPort = address
                .parse()
                .map_err(|error: runtime::config::UnitError| PublicError::new(ErrorKind::InvalidArgument, error.to_string()))?;
            let (change, to, consensus) = (MemberChange::Add { address: address.to_string() }, address.to_string(), core.consensus.clone());
            noted(&core, &call, (Some(node), change), async move { consensus.add_learner(node, to).await.map_err(not_changed) }).await?;
            signers::come(&core, &call, node).await;
            tracing::info!(%node, %address, request = call.origin.request, "an operator added a member");
            Ok(changed(&core, node))
        })
        .await
    }

    async fn promote(&self, request: Request<v1::ClusterPromoteRequest>) -> Result<Response<v1::ClusterChangeReply>, Status> {
        read(&self.0, "cluster.promote", request, async |core, call, message: v1::ClusterPromoteRequest| {
            let node = find(&allowed(&core, &call).await?, &message.node)?;
            let consensus = core.consensus.clone();
            let work = async move { consensus.promote(node).await.map_err(not_changed) };
            noted(&core, &call, (Some(node), MemberChange::Promote), work).await?;
            tracing::info!(%node, request = call.origin.request, "an operator made a member a voter");
            Ok(changed(&core, node))
        })
        .await
    }

    async fn remove(&self, request: Request<v1::ClusterRemoveRequest>) -> Result<Response<v1::ClusterChangeReply>, Status> {
        read(&self.0, "cluster.remove", request, async |core, call, message: v1::ClusterRemoveRequest| {
            let node = find(&allowed(&core, &call).await?, &message.node)?;
            let (consensus, force) = (core.consensus.clone(), message.force);
            let work = async move { consensus.remove(node, force).await.map_err(not_changed) };
            noted(&core, &call, (Some(node), MemberChange::Remove { force }), work).await?;
            signers::leave(&core, &call, node).await;
            tracing::info!(%node, force = message.force, request = call.origin.request, "an operator removed a member");
            Ok(changed(&core, node))
        })
        .await
    }

    async fn show_authority(&self, request: Request<v1::ShowAuthorityRequest>) -> Result<Response<v1::ShowAuthorityReply>, Status> {
        read(&self.0, "cluster.show_authority", request, async |core, call, _| {
            core.read(&call, |state, caller| {
                let administers = caller.require(Operation::ManageAuthority, GrantScope::Cluster).is_ok();
                replace::shown(state, administers)
            })
            .await
        })
        .await
    }

    async fn rotate_authority(&self, request: Request<v1::RotateAuthorityRequest>) -> Result<Response<v1::ShowAuthorityReply>, Status> {
        change(&self.0, "cluster.rotate_authority", request, async |core, call, message: v1::RotateAuthorityRequest| {
            replace::rotate(&core, &call, message.keep_ms).await?;
            replace::shown(&core.newest().await?, true)
        })
        .await
    }

    async fn finish_authority(&self, request: Request<v1::FinishAuthorityRequest>) -> Result<Response<v1::ShowAuthorityReply>, Status> {
        change(&self.0, "cluster.finish_authority", request, async |core, call, message: v1::FinishAuthorityRequest| {
            replace::finish(&core, &call, message.force).await?;
            replace::shown(&core.newest().await?, true)
        })
        .await
    }

    async fn transfer(&self, request: Request<v1::ClusterTransferRequest>) -> Result<Response<v1::ClusterChangeReply>, Status> {
        read(&self.0, "cluster.transfer", request, async |core, call, message: v1::ClusterTransferRequest| {
            let state = allowed(&core, &call).await?;
            let to = if message.node.is_empty() { None } else { Some(find(&state, &message.node)?) };
            let consensus = core.consensus.clone();
            let work = async move { consensus.transfer(to).await.map_err(not_changed) };
            let leader = noted(&core, &call, (to, MemberChange::Transfer), work).await?;
            tracing::info!(%leader, request = call.origin.request, "an operator handed leadership over");
            Ok(changed(&core, leader))
        })
        .await
    }
}
