//! The calling half.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use consensus::{PeerError, PeerRpc, PeerTransport};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use runtime::{
    config::{HostPort, TlsFiles},
    tls::{ClientTls, ConnectError, Expect},
};
use seams::Clock;
use tonic::{Code, Status, transport::Channel};
use types::{ClusterId, NodeId};
use wire::internal::{RaftCall, RaftRequest, raft_client::RaftClient};

use super::{
    MESSAGE_BYTES_MAX, PeerBook,
    registry::Exactly,
    stream::{Appends, Opening},
};

/// Calls that share a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Entries,
    Pulse,
    Forwarded,
    Files,
}

const fn lane(rpc: PeerRpc) -> Lane {
    match rpc {
        PeerRpc::Append => Lane::Entries,
        PeerRpc::Heartbeat | PeerRpc::Vote | PeerRpc::PreVote | PeerRpc::Transfer | PeerRpc::Clock => Lane::Pulse,
        PeerRpc::Propose | PeerRpc::ReadIndex | PeerRpc::Change | PeerRpc::Progress => Lane::Forwarded,
        PeerRpc::Snapshot => Lane::Files,
    }
}

const fn number(rpc: PeerRpc) -> RaftCall {
    match rpc {
        PeerRpc::Append => RaftCall::Append,
        PeerRpc::Heartbeat => RaftCall::Heartbeat,
        PeerRpc::Vote => RaftCall::Vote,
        PeerRpc::PreVote => RaftCall::PreVote,
        PeerRpc::Snapshot => RaftCall::Snapshot,
        PeerRpc::Transfer => RaftCall::Transfer,
        PeerRpc::Propose => RaftCall::Propose,
        PeerRpc::ReadIndex => RaftCall::ReadIndex,
        PeerRpc::Change => RaftCall::Change,
        PeerRpc::Progress => RaftCall::Progress,
        PeerRpc::Clock => RaftCall::Clock,
    }
}

/// Connections to other control nodes. Clones share them.
#[derive(Clone)]
pub(crate) struct Transport(Arc<Inner>);

struct Inner {
    cluster: ClusterId,
    files: TlsFiles,
    book: Arc<dyn PeerBook>,
    clock: Arc<dyn Clock>,
    peers: Mutex<HashMap<NodeId, Peer>>,
}

struct Peer {
    tls: ClientTls,
    links: HashMap<Lane, (String, Channel)>,
}

impl Transport {
    pub(crate) fn new(cluster: ClusterId, files: TlsFiles, book: Arc<dyn PeerBook>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { cluster, files, book, clock, peers: Mutex::default() }))
    }

    /// Shows the certificate that is in the files now at every connection from here on.
    pub(crate) fn reload(&self) {
        for (node, peer) in self.peers().iter() {
            if let Err(error) = peer.tls.reload(&self.0.files) {
                tracing::error!(%node, error = &error as &dyn Error, "the certificate for calls to another control node was not reloaded");
            }
        }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<NodeId, Peer>> {
        // Rows are replaced whole, so a panic elsewhere leaves none half-changed.
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel to a control node: to no other node than it, and only while it is in good standing.
    ///
    /// # Errors
    /// The address is none, or this node's certificate cannot be read.
    pub(crate) fn channel(&self, to: NodeId, address: &str) -> Result<Channel, PeerError> {
        self.link(to, address, Lane::Forwarded)
    }

    fn link(&self, to: NodeId, address: &str, lane: Lane) -> Result<Channel, PeerError> {
        let unusable = |error: &dyn Error| PeerError::Unreachable { to, reason: chain(error) };
        // A task that began before the peer moved still has the old address.
        let moved = self.0.book.address(to).filter(|known| !known.is_empty());
        let address = moved.as_deref().unwrap_or(address);
        let mut peers = self.peers();
        let peer = match peers.entry(to) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let judge = Arc::new(Exactly { node: to, book: self.0.book.clone() });
                let tls = ClientTls::load(&self.0.files, Expect::Judge(judge)).map_err(|error| unusable(&error))?;
                entry.insert(Peer { tls, links: HashMap::new() })
            }
        };
        if let Some((_, channel)) = peer.links.get(&lane).filter(|(known, _)| known == address) {
            return Ok(channel.clone());
        }
        let at: HostPort = address.parse().map_err(|error| unusable(&error))?;
        let channel = peer.tls.channel(&at);
        peer.links.insert(lane, (address.to_owned(), channel.clone()));
        Ok(channel)
    }

    fn client(&self, to: NodeId, address: &str, rpc: PeerRpc) -> Result<RaftClient<Channel>, PeerError> {
        let client = RaftClient::new(self.link(to, address, lane(rpc))?);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn request(&self, to: NodeId, rpc: PeerRpc, body: Bytes) -> RaftRequest {
        RaftRequest { cluster: Bytes::copy_from_slice(self.0.cluster.as_bytes()), to: to.get(), call: number(rpc).into(), body }
    }
}

impl PeerTransport for Transport {
    fn call(
        &self,
        to: NodeId,
        address: &str,
        rpc: PeerRpc,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (client, request, clock) = (self.client(to, address, rpc), self.request(to, rpc, request), self.0.clock.clone());
        Box::pin(async move {
            let mut client = client?;
            tokio::select! {
                biased;
                answer = client.call(request) => answer.map(|reply| reply.into_inner().body).map_err(|status| failure(to, &status)),
                () = clock.sleep(deadline) => Err(PeerError::Failed { to, reason: format!("no answer within {deadline:?}") }),
            }
        })
    }

    fn pipelines(&self) -> bool {
        true
    }

    fn appends(
        &self,
        to: NodeId,
        address: &str,
        requests: BoxStream<'static, Bytes>,
        deadline: Duration,
    ) -> BoxStream<'static, Result<Bytes, PeerError>> {
        let mut client = match self.client(to, address, PeerRpc::Append) {
            Ok(client) => client,
            Err(error) => return stream::once(ready(Err(error))).boxed(),
        };
        let transport = self.clone();
        let requests = requests.map(move |body| transport.request(to, PeerRpc::Append, body)).boxed();
        let open: Opening = Box::new(move |sent| {
            async move {
                let answers = client.append(sent).await.map_err(|status| failure(to, &status))?;
                Ok(answers.into_inner().map(move |answer| answer.map(|reply| reply.body).map_err(|status| failure(to, &status))).boxed())
            }
            .boxed()
        });
        Appends::new(to, requests, open, self.0.clock.clone(), deadline).into_stream()
    }
}

/// An error and its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a failed call says about whether it arrived. Only two things say for certain that nothing was done: no connection came about,
/// or the peer's door turned it away.
pub(crate) fn failure(to: NodeId, status: &Status) -> PeerError {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref::<ConnectError>().is_some() {
            return PeerError::Unreachable { to, reason: chain(error) };
        }
        cause = error.source();
    }
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => {
            PeerError::Unreachable { to, reason: status.message().to_owned() }
        }
        code => PeerError::Failed { to, reason: format!("{code:?}: {}", status.message()) },
    }
}
