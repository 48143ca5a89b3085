//! `Status`: what the node is, and who the caller is.

use std::{collections::BTreeMap, time::Duration};

use state::{GrantScope, Operation, limits::PAGE_MAX, record::NodeRole};
use tonic::{Request, Response, Status, async_trait};
use types::{LogIndex, NodeId, UnixMillis};
use wire::{PublicError, v1};

use super::{Services, fleet::lag};
use crate::{call::read, caller::Who, core::Core, error::damaged};

/// Edges and relays that a status names at the most; `Fleet` lists all of them.
const EDGES_SHOWN_MAX: usize = 10_000;

fn edges(core: &Core) -> Result<Vec<v1::EdgeStatus>, PublicError> {
    let state = core.consensus.local();
    let head = state.position();
    let rows: BTreeMap<NodeId, feed::AckRow> = core.publisher.acks().rows().into_iter().map(|row| (row.node, row)).collect();
    let (mut shown, mut after) = (Vec::new(), None);
    loop {
        let page = state.nodes(after.as_ref(), PAGE_MAX).map_err(damaged)?;
        let subscribers = page.items.iter().filter(|(_, record)| record.revoked.is_none() && record.role != NodeRole::Control);
        for (node, record) in subscribers {
            let row = rows.get(node);
            let durable = row.and_then(|row| row.durable);
            shown.push(v1::EdgeStatus {
                node_id: node.get(),
                node_name: record.name.to_string(),
                connected: row.is_some_and(|row| row.connected),
                watermark: durable.map(Into::into),
                lag_revisions: durable.and_then(|durable| lag(head, durable)),
                seen_ms: row.map_or(0, |row| seen(core, row)),
            });
        }
        after = page.next;
        if after.is_none() || shown.len() >= EDGES_SHOWN_MAX {
            shown.truncate(EDGES_SHOWN_MAX);
            return Ok(shown);
        }
    }
}

/// When a subscriber was last seen, by this node's wall clock; 0 for one that no process that lives has seen.
pub(super) fn seen(core: &Core, row: &feed::AckRow) -> u64 {
    let ago = |unseen: Duration| core.clock.wall().get().saturating_sub(u64::try_from(unseen.as_millis()).unwrap_or(u64::MAX)).max(1);
    row.unseen_for.map_or(0, ago)
}

#[async_trait]
impl v1::status_server::Status for Services {
    async fn show(&self, request: Request<v1::ShowStatusRequest>) -> Result<Response<v1::NodeStatus>, Status> {
        read(&self.0, "status.show", request, async |core, call, _| {
            // The node's own view, so that it can be asked also without a majority.
            let (caller, state) = core.identify_here(&call).await?;
            let edges = if caller.may(Operation::ReadMetadata, GrantScope::Cluster) { edges(&core)? } else { Vec::new() };
            let raft = core.consensus.status();
            let leader = core.leader().await.and_then(|leader| state.node(leader).ok().flatten()).map(|record| record.name.to_string());
            Ok(v1::NodeStatus {
                cluster_id: core.cluster.to_string(),
                node_id: core.node.get(),
                node_name: core.name.to_string(),
                role: v1::NodeRole::Control.into(),
                position: Some(state.position().into()),
                chain_hash: state.chain_hash().to_string(),
                applied_index: raft.applied.map_or(0, LogIndex::get),
                leader: leader.unwrap_or_default(),
                unlocked: !core.ring.is_locked(),
                feature_level: state.settings().map_err(damaged)?.map_or(0, |settings| settings.feature_level.get()),
                edges,
                age_ms: None,
                connected: true,
                problems: if core.ring.is_locked() {
                    vec![
                        "the node is locked: it serves metadata and the feed, and hands values over to a node that has the keys".to_owned(),
                    ]
                } else {
                    Vec::new()
                },
                software: concat!("cinnabar ", env!("CARGO_PKG_VERSION")).to_owned(),
            })
        })
        .await
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIReply>, Status> {
        read(&self.0, "status.who_am_i", request, async |core, call, _| {
            core.read(&call, |_, caller| {
                let accounts: Option<Vec<String>> =
                    caller.grants().iter().map(|grant| grant.scope.account().map(|account| account.to_string())).collect();
                let (name, kind, expires) = match caller.who() {
                    Who::Operator { name, expires, .. } => (name.to_string(), v1::PrincipalKind::Operator, *expires),
                    Who::Node(node) => (format!("node {node}"), v1::PrincipalKind::Node, None),
                };
                Ok(v1::WhoAmIReply {
                    name,
                    kind: kind.into(),
                    all_accounts: accounts.is_none(),
                    account_ids: accounts.unwrap_or_default(),
                    roles: caller.grants().iter().map(|grant| grant.role.name().to_owned()).collect(),
                    expires_ms: expires.map_or(0, UnixMillis::get),
                    permission: caller.permission().name().to_owned(),
                })
            })
            .await
        })
        .await
    }
}
