//! `Peers` over gRPC: another control node listens. Its certificate says which node it is; the registry says whether it may.

use std::sync::Arc;

use futures::stream::{self, BoxStream};
use runtime::listen::Peer;
use state::record::NodeRole;
use tonic::{Request, Response, Status, async_trait};
use types::NodeId;
use wire::{
    ErrorKind, PublicError,
    internal::{WatermarksReply, WatermarksRequest, peers_server::Peers},
};

use super::{Exchange, Telling};
use crate::core::Core;

/// The service.
#[derive(Clone)]
pub(crate) struct PeersService {
    pub(crate) core: Arc<Core>,
    pub(crate) exchange: Arc<Exchange>,
}

#[async_trait]
impl Peers for PeersService {
    type WatermarksStream = BoxStream<'static, Result<WatermarksReply, Status>>;

    async fn watermarks(&self, request: Request<WatermarksRequest>) -> Result<Response<Self::WatermarksStream>, Status> {
        let (node, key) = self.caller(&request)?;
        let message = request.get_ref();
        if message.cluster[..] != self.core.cluster.as_bytes()[..] || message.to != self.core.node.get() || message.from != node.get() {
            let this = format!("this is node {} of cluster {}: the address is another node's now", self.core.node, self.core.cluster);
            return Err(PublicError::new(ErrorKind::InvalidArgument, this).into());
        }
        let telling = Telling::new(self.exchange.clone());
        let begin = (self.clone(), telling, node, key);
        Ok(Response::new(Box::pin(stream::unfold(Some(begin), |on| async move {
            let (service, mut telling, node, key) = on?;
            let reply = tokio::select! {
                biased;
                () = service.core.tasks.token().cancelled() => return None,
                reply = telling.next() => reply,
            };
            // Looked at for every message, one a second at least: a revocation that is applied here cuts the stream.
            match service.admit(node, &key) {
                Ok(()) => Some((Ok(reply), Some((service, telling, node, key)))),
                Err(refusal) => Some((Err(refusal.into()), None)),
            }
        }))))
    }
}

impl PeersService {
    /// The control node that calls, and its key.
    fn caller<M>(&self, request: &Request<M>) -> Result<(NodeId, Vec<u8>), PublicError> {
        let certificate = request.extensions().get::<Peer>().and_then(Peer::certificate);
        let certificate = certificate.filter(|certificate| certificate.identity.cluster() == self.core.cluster);
        let known = certificate.and_then(|certificate| Some((certificate.identity.node()?, certificate)));
        let Some((node, certificate)) = known else {
            return Err(PublicError::new(ErrorKind::Unauthenticated, "this is for control nodes: connect with a node's certificate"));
        };
        self.admit(node, &certificate.public_key)?;
        Ok((node, certificate.public_key.clone()))
    }

    /// Whether the registry knows the node by this key as a control node that is not revoked.
    fn admit(&self, node: NodeId, key: &[u8]) -> Result<(), PublicError> {
        match self.core.consensus.local().node(node).map_err(crate::error::damaged)? {
            Some(record) if record.revoked.is_some() => Err(PublicError::new(ErrorKind::Revoked, "this node was revoked")),
            Some(record) if record.role == NodeRole::Control && record.public_key == key => Ok(()),
            _ => Err(PublicError::new(ErrorKind::Denied, "this is for registered control nodes")),
        }
    }
}
