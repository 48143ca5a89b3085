//! The way to other control nodes: the members of the cluster, over the connections that Raft's forwarded calls have too.

use std::{error::Error, sync::Arc};

use futures::future::BoxFuture;
use seams::{DialError, LinkClosed, RecvHalf};
use tonic::Streaming;
use types::NodeId;
use wire::internal::{WatermarksReply, WatermarksRequest, peers_client::PeersClient};

use super::PeerCalls;
use crate::core::Core;

/// The members of the cluster, as this node's log has them.
pub(crate) struct Members(pub(crate) Arc<Core>);

impl PeerCalls for Members {
    fn others(&self) -> Vec<NodeId> {
        others(&self.0)
    }

    fn watermarks(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn RecvHalf<WatermarksReply>>, DialError>> {
        Box::pin(async move {
            let failed = |source: Box<dyn Error + Send + Sync>| DialError { peer: node.to_string(), source };
            let membership = self.0.consensus.membership();
            let address = membership.address(node).ok_or_else(|| failed("it is no member any more".into()))?;
            let channel = self.0.transport.channel(node, address).map_err(|error| failed(Box::new(error)))?;
            let request = WatermarksRequest { cluster: self.0.cluster.as_bytes().to_vec().into(), from: self.0.node.get(), to: node.get() };
            let stream = PeersClient::new(channel).watermarks(request).await.map_err(|status| failed(status.message().into()))?;
            Ok(Box::new(Told(stream.into_inner())) as Box<dyn RecvHalf<_>>)
        })
    }
}

/// The other members that are not revoked.
fn others(core: &Core) -> Vec<NodeId> {
    let (membership, state) = (core.consensus.membership(), core.consensus.local());
    let members = membership.voters.iter().chain(&membership.learners).map(|(node, _)| *node);
    let revoked = |node: NodeId| state.node(node).ok().flatten().is_some_and(|record| record.revoked.is_some());
    members.filter(|node| *node != core.node && !revoked(*node)).collect()
}

impl Core {
    /// The other members that are silent here and heard elsewhere. What their subscribers hold is not known here.
    pub(crate) fn heard_elsewhere(&self) -> Vec<NodeId> {
        let elsewhere = self.standings.heard_elsewhere(self.node);
        if elsewhere.is_empty() {
            return Vec::new();
        }
        others(self).into_iter().filter(|node| elsewhere.contains(node)).collect()
    }
}

struct Told(Streaming<WatermarksReply>);

impl RecvHalf<WatermarksReply> for Told {
    fn recv(&mut self) -> BoxFuture<'_, Result<WatermarksReply, LinkClosed>> {
        Box::pin(async {
            match self.0.message().await {
                Ok(Some(message)) => Ok(message),
                Ok(None) => Err(LinkClosed { reason: "it ended the stream".into() }),
                Err(status) => Err(LinkClosed { reason: status.message().to_owned() }),
            }
        })
    }
}
