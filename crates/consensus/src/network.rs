//! Calls between voters: openraft's requests as bytes, on any [`PeerTransport`].
//!
//! Each request and each answer is one form of `format`. An entry travels as its log record, so a follower appends the very
//! bytes that the leader has. A snapshot travels as its file, in chunks, each answered with the bytes received so far.
//!
//! **Invariants**
//! 1. No answer is never taken for one: a call that fails, hangs past its deadline or answers nonsense is an error, for
//!    pre-vote too, where openraft's default would grant and let an isolated voter raise its term.
//! 2. A received snapshot file is verified before Raft hears of it.

mod calls;
mod forms;
mod forwards;
mod server;

use std::{
    future::{Future, ready},
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
pub use forms::{Form, forms};
pub(crate) use forwards::{Answered, Applied, Change, Overview, ProposeCall, Timed, decode_forward, encode_forward};
use futures::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    async_runtime::Select2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, stream_append_sequential},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
    },
};
pub(crate) use server::Server;
use types::NodeId;

use crate::{
    Runtime,
    offload::Offload,
    peer::{PeerError, PeerRpc, PeerTransport},
    raft::{Snapshot, SnapshotMeta, Types, Vote},
    snapshot::{SnapshotFile, Snapshots},
};

/// Makes a connection to each peer.
pub(crate) struct Peers<R> {
    pub(crate) transport: Arc<dyn PeerTransport>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) offload: Offload<R>,
}

impl<R: Runtime> RaftNetworkFactory<Types<R>> for Peers<R> {
    type Network = Peer<R>;

    async fn new_client(&mut self, target: u64, node: &openraft::BasicNode) -> Peer<R> {
        self.peer(target, node, PeerRpc::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &openraft::BasicNode) -> Peer<R> {
        self.peer(target, node, PeerRpc::Heartbeat)
    }
}

impl<R: Runtime> Peers<R> {
    fn peer(&self, target: u64, node: &openraft::BasicNode, append: PeerRpc) -> Peer<R> {
        Peer {
            to: NodeId::new(target),
            address: node.addr.clone(),
            append,
            transport: self.transport.clone(),
            snapshots: self.snapshots.clone(),
            offload: self.offload,
            runtime: PhantomData,
        }
    }
}

/// How long an append in a stream may go unanswered. Far above a slow disk's sync, and below what a person notices; a hung peer holds
/// up nobody but itself.
const STREAMED_ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// One peer.
pub(crate) struct Peer<R> {
    to: NodeId,
    address: String,
    /// As what its appends go out: heartbeats have a connection of their own.
    append: PeerRpc,
    transport: Arc<dyn PeerTransport>,
    snapshots: Arc<Snapshots>,
    offload: Offload<R>,
    runtime: PhantomData<fn() -> R>,
}

fn rpc_error<R: Runtime>(error: PeerError) -> RPCError<Types<R>> {
    match error {
        PeerError::Unreachable { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        PeerError::Failed { .. } | PeerError::Malformed { .. } | PeerError::Stopped => RPCError::Network(NetworkError::new(&error)),
    }
}

impl<R: Runtime> Peer<R> {
    /// The deadline holds even if the transport forgets it: a call that hangs would stop replication to this peer for good.
    async fn call(&self, rpc: PeerRpc, request: Bytes, deadline: Duration) -> Result<Bytes, PeerError> {
        let call = self.transport.call(self.to, &self.address, rpc, request, deadline);
        R::timeout(deadline, call)
            .await
            .unwrap_or_else(|_| Err(PeerError::Failed { to: self.to, reason: format!("no answer within {deadline:?}") }))
    }

    async fn exchange<T>(
        &self,
        rpc: PeerRpc,
        request: Bytes,
        deadline: Duration,
        decode: impl FnOnce(Bytes) -> Result<T, crate::format::FormatError>,
    ) -> Result<T, PeerError> {
        let answer = self.call(rpc, request, deadline).await?;
        decode(answer).map_err(|error| PeerError::Failed { to: self.to, reason: error.to_string() })
    }

    /// Sends the file chunk by chunk. The last answer is the peer's vote, once it has installed the file.
    async fn send_file(&self, vote: &Vote, meta: &SnapshotMeta, file: &SnapshotFile, deadline: Duration) -> Result<Vote, PeerError> {
        let read_failed =
            |error: std::io::Error| PeerError::Failed { to: self.to, reason: format!("cannot read the snapshot file: {error}") };
        let length = file.bytes;
        // A transfer that was cut goes on where it was: an empty chunk asks what the peer has of this very file.
        let ask = calls::SnapshotChunk { vote: *vote, meta: meta.clone(), length, offset: length, bytes: Bytes::new() };
        let held = self.exchange(PeerRpc::Snapshot, ask.encode(), deadline, calls::SnapshotAnswer::decode).await?;
        let mut offset = if held.received < length { held.received } else { 0 };
        loop {
            let (snapshots, opened) = (self.snapshots.clone(), file.clone());
            let wanted = (length - offset).min(self.transport.snapshot_chunk_bytes().max(1) as u64) as usize;
            let bytes = self.offload.run(move || snapshots.read(&opened, offset, wanted)).await.map_err(read_failed)?;
            let last = offset + wanted as u64 == length;
            let request = calls::SnapshotChunk { vote: *vote, meta: meta.clone(), length, offset, bytes };
            let answer = self.exchange(PeerRpc::Snapshot, request.encode(), deadline, calls::SnapshotAnswer::decode).await?;
            if answer.vote > *vote {
                return Ok(answer.vote);
            }
            match answer.received {
                received if last && received == length => return Ok(answer.vote),
                // The peer lost what it had (it restarted, or another leader sent a file): begin again from there.
                received if received <= length && received != offset => offset = received,
                received => {
                    return Err(PeerError::Failed {
                        to: self.to,
                        reason: format!("the peer holds {received} of {length} bytes and does not go on"),
                    });
                }
            }
        }
    }
}

/// The answers of a stream of appends, as openraft takes them.
type Answers<'s, R> = BoxStream<'s, Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>>>;

impl<R: Runtime> RaftNetworkV2<Types<R>> for Peer<R> {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        let request = calls::encode_append(&rpc);
        self.exchange(self.append, request, option.hard_ttl(), calls::decode_append_answer).await.map_err(rpc_error)
    }

    /// Pipelined where the transport can; else one append at a time.
    fn stream_append<'s, S>(&'s mut self, input: S, option: RPCOption) -> BoxFuture<'s, Result<Answers<'s, R>, RPCError<Types<R>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
    {
        if self.append != PeerRpc::Append || !self.transport.pipelines() {
            return stream_append_sequential(self, input, option);
        }
        let mut requests = input.map(|request| calls::encode_append(&request)).boxed();
        let (transport, target, address) = (self.transport.clone(), self.to, self.address.clone());
        // openraft waits after a failure where it makes the next request, so nobody is dialled before there is one. Else a peer that
        // is down would be dialled, and its absence logged, as fast as this node can.
        let answers = stream::once(async move {
            let first = requests.next().await?;
            let requests = stream::once(ready(first)).chain(requests).boxed();
            Some(transport.appends(target, &address, requests, STREAMED_ANSWER_WITHIN))
        })
        .filter_map(ready)
        .flatten();
        let to = self.to;
        let decode = move |answer: Result<Bytes, PeerError>| {
            let decoded = answer.and_then(|bytes| {
                calls::decode_streamed_answer(bytes).map_err(|error| PeerError::Failed { to, reason: error.to_string() })
            });
            decoded.map_err(rpc_error)
        };
        Box::pin(async move { Ok(answers.map(decode).boxed()) })
    }

    async fn vote(&mut self, rpc: VoteRequest<Types<R>>, option: RPCOption) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        let request = calls::encode_vote_request(&rpc);
        self.exchange(PeerRpc::Vote, request, option.hard_ttl(), calls::decode_vote_answer).await.map_err(rpc_error)
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types<R>>, option: RPCOption) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        let request = calls::encode_vote_request(&rpc);
        self.exchange(PeerRpc::PreVote, request, option.hard_ttl(), calls::decode_vote_answer).await.map_err(rpc_error)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let sent = self.send_file(&vote, &snapshot.meta, &snapshot.snapshot, option.hard_ttl());
        match R::select2(cancel, sent).await {
            Select2::First(closed) => Err(StreamingError::Closed(closed)),
            Select2::Second(Ok(vote)) => Ok(SnapshotResponse::new(vote)),
            Select2::Second(Err(error)) => Err(rpc_error::<R>(error).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        let bytes = calls::encode_transfer(&request);
        self.exchange(PeerRpc::Transfer, bytes, option.hard_ttl(), calls::decode_transfer_answer).await.map_err(rpc_error)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures::FutureExt;
    use openraft_rt_sim::SimRuntime;
    use seams::sim::SimDisk;

    use super::*;
    use crate::{Drive, log::SnapshotMark};

    /// Nobody is there; counts who tried.
    #[derive(Default)]
    struct Down(AtomicUsize);

    impl PeerTransport for Down {
        fn call(&self, to: NodeId, _: &str, _: PeerRpc, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, PeerError>> {
            async move { Err(PeerError::Unreachable { to, reason: "down".to_owned() }) }.boxed()
        }

        fn pipelines(&self) -> bool {
            true
        }

        fn appends(&self, to: NodeId, _: &str, _: BoxStream<'static, Bytes>, _: Duration) -> BoxStream<'static, Result<Bytes, PeerError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            stream::once(ready(Err(PeerError::Unreachable { to, reason: "down".to_owned() }))).boxed()
        }
    }

    fn peer(transport: Arc<Down>) -> Peer<SimRuntime> {
        let disk = Arc::new(SimDisk::new());
        let snapshots = Snapshots::open(disk, Path::new("/snapshots"), "/incoming".into(), SnapshotMark::new(None)).unwrap();
        Peer {
            to: NodeId::new(2),
            address: "control-2:7400".to_owned(),
            append: PeerRpc::Append,
            transport,
            snapshots: Arc::new(snapshots),
            offload: Offload::new(Drive::Manual),
            runtime: PhantomData,
        }
    }

    /// The wait between two attempts is in openraft's stream of requests.
    #[test]
    fn appends_before_the_first_request_dial_nobody() {
        let down = Arc::new(Down::default());
        let mut peer = peer(down.clone());
        let option = || RPCOption::new(Duration::from_secs(1));
        {
            let opened = peer.stream_append(stream::pending(), option());
            let mut answers = opened.now_or_never().unwrap().unwrap();
            assert!(answers.next().now_or_never().is_none(), "it waits for a request");
            assert_eq!(down.0.load(Ordering::Relaxed), 0);
        }
        let request = AppendEntriesRequest { vote: Vote::new(1, 1), prev_log_id: None, entries: Vec::new(), leader_commit: None };
        let opened = peer.stream_append(stream::iter([request]), option());
        let mut answers = opened.now_or_never().unwrap().unwrap();
        assert!(matches!(answers.next().now_or_never(), Some(Some(Err(RPCError::Unreachable(_))))));
        assert_eq!(down.0.load(Ordering::Relaxed), 1);
    }
}
