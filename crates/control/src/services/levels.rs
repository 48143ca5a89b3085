//! `Levels`: the feature level in force, who knows which, and the step to the next.
//!
//! `apply` refuses a step that a control node has not reported to know. Which edges are up is not in the state, so of these the node
//! that is asked judges, by what they acknowledge; one that comes later and knows less is refused by the feed.

use std::collections::BTreeMap;

use state::{CommandBody, GrantScope, Operation, ReplyBody, State, limits::PAGE_MAX, record::NodeRole};
use tonic::{Request, Response, Status, async_trait};
use types::{FeatureLevel, NodeId};
use wire::{ErrorKind, PublicError, v1};

use super::Services;
use crate::{
    call::{change, read},
    caller::Caller,
    core::Core,
    error::{damaged, unexpected},
    write,
};

/// Nodes that a refusal names at the most.
const NAMED_MAX: usize = 8;

/// What each node in good standing knows.
fn nodes(core: &Core, state: &State) -> Result<Vec<v1::NodeFeatureLevel>, PublicError> {
    let rows: BTreeMap<NodeId, feed::AckRow> = core.publisher.acks().rows().into_iter().map(|row| (row.node, row)).collect();
    let (mut known, mut after) = (Vec::new(), None);
    loop {
        let page = state.nodes(after.as_ref(), PAGE_MAX).map_err(damaged)?;
        for (node, record) in page.items.iter().filter(|(_, record)| record.revoked.is_none()) {
            let row = rows.get(node).filter(|_| record.role != NodeRole::Control);
            // What a stream says of its node is newer than what the registry knows; a row without a stream yet says nothing.
            let said = row.map(|row| row.level).filter(|level| *level > FeatureLevel::default());
            known.push(v1::NodeFeatureLevel {
                node_id: node.get(),
                node_name: record.name.to_string(),
                role: role(record.role).into(),
                feature_level: said.unwrap_or(record.feature_level).get(),
                counts: record.role == NodeRole::Control || row.is_some_and(|row| row.active),
            });
        }
        after = page.next;
        if after.is_none() {
            return Ok(known);
        }
    }
}

const fn role(role: NodeRole) -> v1::NodeRole {
    match role {
        NodeRole::Control => v1::NodeRole::Control,
        NodeRole::Edge => v1::NodeRole::Edge,
        NodeRole::Relay => v1::NodeRole::Relay,
    }
}

/// Why `to` cannot be in force yet.
fn blockers(core: &Core, nodes: &[v1::NodeFeatureLevel], to: FeatureLevel) -> Vec<String> {
    let mut blockers = Vec::new();
    if to > core.level_max {
        let known = core.level_max;
        blockers.push(format!("this control node knows feature levels up to {known}, not {to}: update it, or ask one that does"));
    }
    let behind: Vec<_> = nodes.iter().filter(|node| node.counts && node.feature_level < to.get()).collect();
    for node in behind.iter().take(NAMED_MAX) {
        let what = if node.role() == v1::NodeRole::Control { "control node" } else { "edge" };
        blockers.push(format!("{what} {} knows feature levels up to {}, not {to}: update it first", node.node_name, node.feature_level));
    }
    if behind.len() > NAMED_MAX {
        blockers.push(format!("so do {} more nodes", behind.len() - NAMED_MAX));
    }
    blockers
}

fn next(level: FeatureLevel) -> FeatureLevel {
    level.next().unwrap_or(level)
}

#[async_trait]
impl v1::levels_server::Levels for Services {
    async fn show(&self, request: Request<v1::ShowLevelRequest>) -> Result<Response<v1::ShowLevelReply>, Status> {
        read(&self.0, "levels.show", request, async |core, call, _| {
            core.read(&call, |state, caller| {
                caller.require(Operation::ReadMetadata, GrantScope::Cluster)?;
                let (in_force, nodes) = (state.feature_level().map_err(damaged)?, nodes(&core, state)?);
                let blockers = blockers(&core, &nodes, next(in_force));
                Ok(v1::ShowLevelReply { in_force: in_force.get(), nodes, blockers })
            })
            .await
        })
        .await
    }

    async fn raise(&self, request: Request<v1::RaiseLevelRequest>) -> Result<Response<v1::RaiseLevelReply>, Status> {
        change(&self.0, "levels.raise", request, async |core, call, message| {
            let plan = |state: &State, caller: &Caller| {
                caller.require(Operation::RaiseLevel, GrantScope::Cluster)?;
                let in_force = state.feature_level().map_err(damaged)?;
                let to = message.to.map_or(next(in_force), FeatureLevel::new);
                if to == next(in_force) {
                    let blockers = blockers(&core, &nodes(&core, state)?, to);
                    if !blockers.is_empty() {
                        return Err(PublicError::new(ErrorKind::Level, blockers.join("; ")));
                    }
                }
                Ok(CommandBody::RaiseFeatureLevel { to })
            };
            let (_, reply) = write::plain(&core, &call, plan).await?;
            let ReplyBody::LevelRaised = reply.body else { return Err(unexpected()) };
            let in_force = core.consensus.local().feature_level().map_err(damaged)?;
            Ok(v1::RaiseLevelReply { in_force: in_force.get(), receipt: Some(reply.position.into()) })
        })
        .await
    }
}
