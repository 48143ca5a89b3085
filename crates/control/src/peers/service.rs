//! The answering half: checks who calls, before it reads what they say, and gives the bytes to consensus.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use consensus::{Consensus, PeerError, PeerRpc};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use runtime::{listen::Peer, tls::PeerCertificate};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming, async_trait,
    service::{Interceptor, interceptor::InterceptedService},
};
use types::{ClusterId, NodeId};
use wire::internal::{
    RaftCall, RaftReply, RaftRequest,
    raft_server::{Raft, RaftServer},
};

use super::{MESSAGE_BYTES_MAX, PeerBook, Standing};

/// Raft's service.
#[derive(Clone)]
pub(crate) struct RaftService {
    cluster: ClusterId,
    node: NodeId,
    book: Arc<dyn PeerBook>,
    consensus: Arc<OnceLock<Consensus>>,
    cancelled: CancellationToken,
}

impl RaftService {
    pub(crate) fn new(cluster: ClusterId, node: NodeId, book: Arc<dyn PeerBook>, cancelled: CancellationToken) -> Self {
        Self { cluster, node, book, consensus: Arc::default(), cancelled }
    }

    /// From now on calls are answered.
    pub(crate) fn open(&self, consensus: &Consensus) {
        // Set once, by whoever started consensus.
        let _ = self.consensus.set(consensus.clone());
    }

    /// The service behind its door.
    pub(crate) fn server(&self) -> InterceptedService<RaftServer<Self>, RaftDoor> {
        let server = RaftServer::new(self.clone());
        let server = server.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
        InterceptedService::new(server, RaftDoor(self.clone()))
    }

    /// The caller's certificate, if it may make such a call; where the kind of call is not known yet, if it may make any.
    fn admit<M>(&self, request: &Request<M>, rpc: Option<PeerRpc>) -> Result<PeerCertificate, Status> {
        let certificate = request.extensions().get::<Peer>().and_then(Peer::certificate);
        let certificate =
            certificate.ok_or_else(|| Status::unauthenticated("Raft is for control nodes: connect with a node's certificate"))?;
        self.check(certificate, rpc)?;
        Ok(certificate.clone())
    }

    fn check(&self, certificate: &PeerCertificate, rpc: Option<PeerRpc>) -> Result<(), Status> {
        let checked = self.book.may_call(certificate).and_then(|(node, standing)| match standing {
            Standing::Vouched if rpc.is_some_and(|rpc| !teaches(rpc)) => {
                Err(format!("this node does not know node {node} yet, and takes entries and votes from it alone"))
            }
            Standing::Known | Standing::Vouched => Ok(()),
        });
        checked.map_err(|reason| {
            metrics::counter!("cinnabar_peer_calls_refused_total").increment(1);
            tracing::warn!(peer = %certificate.identity, reason, "refused a call for Raft");
            Status::permission_denied(reason)
        })
    }

    fn consensus(&self) -> Result<&Consensus, Status> {
        self.consensus.get().ok_or_else(|| Status::failed_precondition("this node is starting"))
    }

    fn meant_for_me(&self, request: &RaftRequest) -> Result<(), Status> {
        if request.cluster == self.cluster.as_bytes()[..] && request.to == self.node.get() {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("this is node {} of cluster {}, not node {}", self.node, self.cluster, request.to)))
    }
}

/// Turns away who is no control node before the body of a call is read: a message of Raft may be long. The service asks again, for
/// the kind of call is in the body, and a node may be revoked while it sends one.
#[derive(Clone)]
pub(crate) struct RaftDoor(RaftService);

impl Interceptor for RaftDoor {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.0.admit(&request, None)?;
        Ok(request)
    }
}

/// Whether a call only serves to bring this node up to date, or to find a leader that will.
const fn teaches(rpc: PeerRpc) -> bool {
    match rpc {
        PeerRpc::Append | PeerRpc::Heartbeat | PeerRpc::Vote | PeerRpc::PreVote | PeerRpc::Snapshot => true,
        PeerRpc::Transfer | PeerRpc::Propose | PeerRpc::ReadIndex | PeerRpc::Change | PeerRpc::Progress | PeerRpc::Clock => false,
    }
}

fn rpc(call: RaftCall) -> Result<PeerRpc, Status> {
    Ok(match call {
        RaftCall::Unspecified => return Err(Status::invalid_argument("an unknown kind of call: update this node")),
        RaftCall::Append => PeerRpc::Append,
        RaftCall::Heartbeat => PeerRpc::Heartbeat,
        RaftCall::Vote => PeerRpc::Vote,
        RaftCall::PreVote => PeerRpc::PreVote,
        RaftCall::Snapshot => PeerRpc::Snapshot,
        RaftCall::Transfer => PeerRpc::Transfer,
        RaftCall::Propose => PeerRpc::Propose,
        RaftCall::ReadIndex => PeerRpc::ReadIndex,
        RaftCall::Change => PeerRpc::Change,
        RaftCall::Progress => PeerRpc::Progress,
        RaftCall::Clock => PeerRpc::Clock,
    })
}

fn status(error: PeerError) -> Status {
    match error {
        PeerError::Malformed { .. } => Status::invalid_argument(error.to_string()),
        PeerError::Stopped | PeerError::Unreachable { .. } | PeerError::Failed { .. } => Status::unavailable(error.to_string()),
    }
}

#[async_trait]
impl Raft for RaftService {
    type AppendStream = BoxStream<'static, Result<RaftReply, Status>>;

    async fn append(&self, request: Request<Streaming<RaftRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        let certificate = self.admit(&request, Some(PeerRpc::Append))?;
        let consensus = self.consensus()?.clone();
        // A stream ends with the first message that must not be taken: the caller was revoked meanwhile, or speaks to another.
        let service = self.clone();
        let requests = stream::unfold(request.into_inner(), move |mut incoming| {
            let (service, certificate) = (service.clone(), certificate.clone());
            async move {
                let request = incoming.message().await.ok().flatten()?;
                service.check(&certificate, Some(PeerRpc::Append)).ok()?;
                service.meant_for_me(&request).ok()?;
                Some((request.body, incoming))
            }
        });
        let requests: BoxStream<'static, Bytes> = requests.boxed();
        let answers = consensus.handle_appends(requests).map(|answer| answer.map(|body| RaftReply { body }).map_err(status));
        Ok(Response::new(answers.take_until(self.cancelled.clone().cancelled_owned()).boxed()))
    }

    async fn call(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let rpc = rpc(request.get_ref().call())?;
        self.admit(&request, Some(rpc))?;
        let consensus = self.consensus()?;
        let request = request.into_inner();
        self.meant_for_me(&request)?;
        let body = consensus.handle(rpc, request.body).await.map_err(status)?;
        Ok(Response::new(RaftReply { body }))
    }
}
