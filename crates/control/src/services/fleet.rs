//! `Fleet`: all nodes, and how far each is.

use feed::Via;
use state::{
    GrantScope, Operation, State,
    record::{NodeRecord, NodeRole},
};
use tonic::{Request, Response, Status, async_trait};
use types::{NodeId, Position, UnixMillis};
use wire::{PublicError, parse::PageTarget, v1};

use super::{Services, after, next, status::seen};
use crate::{call::read, core::Core, error::damaged};

/// What an operator calls the node that leads.
const LEADER: &str = "leader";

#[async_trait]
impl v1::fleet_server::Fleet for Services {
    async fn list(&self, request: Request<v1::ListFleetRequest>) -> Result<Response<v1::ListFleetReply>, Status> {
        read(&self.0, "fleet.list", request, async |core, call, message| {
            let page = PageTarget::from(message.page);
            let after = after(&page)?;
            // The node's own view, so that it can be asked also without a majority: that is when it is needed most.
            let (caller, state) = core.identify_here(&call).await?;
            caller.require(Operation::ReadMetadata, GrantScope::Cluster)?;
            let leader = core.leader().await;
            let found = state.nodes(after.as_ref(), page.size).map_err(damaged)?;
            let there = found.items.iter().filter(|(_, record)| record.revoked.is_none());
            let nodes = there.map(|(node, record)| shown(&core, &state, leader, *node, record)).collect::<Result<_, PublicError>>()?;
            Ok(v1::ListFleetReply { nodes, next_page: next(found.next), position: Some(state.position().into()) })
        })
        .await
    }
}

fn shown(core: &Core, state: &State, leader: Option<NodeId>, node: NodeId, record: &NodeRecord) -> Result<v1::FleetNode, PublicError> {
    let mut shown = v1::FleetNode {
        node_id: node.get(),
        node_name: record.name.to_string(),
        certificate_ends_ms: core.standings.certificate_ends(node).map_or(0, UnixMillis::get),
        ..Default::default()
    };
    let durable = match record.role {
        NodeRole::Control => {
            shown.role = v1::NodeRole::Control.into();
            shown.connected_to = if leader == Some(node) { LEADER.to_owned() } else { String::new() };
            control(core, state, node, &mut shown)
        }
        NodeRole::Edge | NodeRole::Relay => {
            shown.role = if record.role == NodeRole::Edge { v1::NodeRole::Edge } else { v1::NodeRole::Relay }.into();
            subscriber(core, state, node, &mut shown)?
        }
    };
    shown.durable = durable.map(Into::into);
    shown.lag_revisions = durable.and_then(|durable| lag(state.position(), durable));
    Ok(shown)
}

/// How many revisions `held` is behind `head`. Between two generations there is no such number: the later one jumps ahead.
pub(super) fn lag(head: Position, held: Position) -> Option<u64> {
    (head.generation == held.generation).then(|| head.revision.get().saturating_sub(held.revision.get()))
}

/// A control node: this one from what it knows, another from what it last told.
fn control(core: &Core, state: &State, node: NodeId, shown: &mut v1::FleetNode) -> Option<Position> {
    let now = core.clock.wall();
    if node == core.node {
        shown.seen_ms = now.get();
        shown.feature_level = core.level_max.get();
        return Some(state.position());
    }
    let known = core.standings.control(node)?;
    let silent = if known.now { std::time::Duration::ZERO } else { core.clock.monotonic().saturating_sub(known.at) };
    shown.seen_ms = now.get().saturating_sub(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)).max(1);
    shown.feature_level = known.standing.level.get();
    Some(known.standing.applied)
}

/// An edge or a relay, from what it said to whichever control node.
fn subscriber(core: &Core, state: &State, node: NodeId, shown: &mut v1::FleetNode) -> Result<Option<Position>, PublicError> {
    let Some(row) = core.publisher.acks().row(node) else { return Ok(None) };
    shown.seen_ms = seen(core, &row);
    shown.feature_level = row.level.get();
    shown.connected_to = match row.via {
        Via::Here => core.name.to_string(),
        Via::Node(at) => state.node(at).map_err(damaged)?.map_or_else(|| at.to_string(), |record| record.name.to_string()),
        Via::Nowhere => String::new(),
    };
    Ok(row.durable)
}

#[cfg(test)]
mod tests {
    use types::{Generation, Revision};

    use super::*;

    #[test]
    fn lag_between_two_generations_is_not_known() {
        let at = |generation, revision| Position { generation: Generation::new(generation), revision: Revision::new(revision) };
        assert_eq!(lag(at(1, 20), at(1, 17)), Some(3));
        assert_eq!(lag(at(1, 17), at(1, 20)), Some(0));
        assert_eq!(lag(at(2, 4_294_967_316), at(1, 20)), None);
    }
}
