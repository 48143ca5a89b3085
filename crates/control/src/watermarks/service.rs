//! `Peers` over gRPC: another control node listens. Its certificate says which node it is; the registry says whether it may.

use std::sync::Arc;

use futures::stream::{self, BoxStream};
use runtime::listen::Peer;
use state::record::NodeRole;
use tonic::{
    Request, Response, Status, async_trait,
    service::{Interceptor, interceptor::InterceptedService},
};
use types::NodeId;
use wire::{
    ErrorKind, PublicError,
    internal::{
        HandOverReply, HandOverRequest, WatermarksReply, WatermarksRequest,
        peers_server::{Peers, PeersServer},
    },
};

use super::{Exchange, Telling};
use crate::{core::Core, hand_over};

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
        self.meant_for_me(&message.cluster, message.from, message.to, node)?;
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

    async fn hand_over(&self, request: Request<HandOverRequest>) -> Result<Response<HandOverReply>, Status> {
        let (node, _) = self.caller(&request)?;
        let message = request.into_inner();
        self.meant_for_me(&message.cluster, message.from, message.to, node)?;
        if !self.core.is_open() {
            return Err(PublicError::new(ErrorKind::Denied, "this control node is not ready yet").into());
        }
        Ok(Response::new(hand_over::take_over(&self.core, message).await?))
    }
}

impl PeersService {
    /// The service behind its door.
    pub(crate) fn server(self) -> InterceptedService<PeersServer<Self>, PeersDoor> {
        let server = PeersServer::new(self.clone()).max_decoding_message_size(hand_over::MESSAGE_BYTES_MAX);
        InterceptedService::new(server, PeersDoor(self))
    }

    /// Whether a message is for this node, and from the one whose certificate the connection has.
    fn meant_for_me(&self, cluster: &[u8], from: u64, to: u64, caller: NodeId) -> Result<(), PublicError> {
        if cluster == &self.core.cluster.as_bytes()[..] && to == self.core.node.get() && from == caller.get() {
            return Ok(());
        }
        let this = format!("this is node {} of cluster {}: the address is another node's now", self.core.node, self.core.cluster);
        Err(PublicError::new(ErrorKind::Denied, this))
    }

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

/// Turns away who is no control node before the body of a call is read: what is handed over may be long. The service asks again.
#[derive(Clone)]
pub(crate) struct PeersDoor(PeersService);

impl Interceptor for PeersDoor {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.0.caller(&request)?;
        Ok(request)
    }
}
