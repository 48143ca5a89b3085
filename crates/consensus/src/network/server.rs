//! The receiving half of the calls.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use openraft::errors::RaftError;

use super::calls::{self, SnapshotAnswer, SnapshotChunk};
use crate::{
    Runtime,
    format::FormatError,
    lock,
    offload::Offload,
    peer::{PeerError, PeerRpc},
    raft::{LogId, Raft, Snapshot, Types, Vote},
    snapshot::{Incoming, Snapshots},
};

/// Answers other voters.
pub(crate) struct Server<R: Runtime> {
    pub(crate) raft: Raft<R>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) offload: Offload<R>,
    pub(crate) incoming: Mutex<Option<Transfer>>,
}

/// A snapshot file on its way here. There is one leader, so there is one at a time; another replaces it.
pub(crate) struct Transfer {
    vote: Vote,
    last_log_id: Option<LogId>,
    length: u64,
    file: Incoming,
}

/// Snapshot files above this are refused: the state is bounded by memory long before.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 30;

impl<R: Runtime> Server<R> {
    pub(crate) async fn handle(&self, rpc: PeerRpc, request: Bytes) -> Result<Bytes, PeerError> {
        let malformed = |error: FormatError| PeerError::Malformed { rpc, detail: error.to_string() };
        match rpc {
            PeerRpc::Append | PeerRpc::Heartbeat => {
                let answer = self.raft.append_entries(calls::decode_append(request).map_err(malformed)?).await;
                answer.map(|answer| calls::encode_append_answer(&answer)).map_err(stopped)
            }
            PeerRpc::Vote => {
                let answer = self.raft.vote(calls::decode_vote_request(request).map_err(malformed)?).await;
                answer.map(|answer| calls::encode_vote_answer(&answer)).map_err(stopped)
            }
            PeerRpc::PreVote => {
                let answer = self.raft.pre_vote(calls::decode_vote_request(request).map_err(malformed)?).await;
                answer.map(|answer| calls::encode_vote_answer(&answer)).map_err(stopped)
            }
            PeerRpc::Transfer => {
                let answer = self.raft.handle_transfer_leader(calls::decode_transfer(request).map_err(malformed)?).await;
                answer.map(|answer| calls::encode_transfer_answer(&answer)).map_err(|_| PeerError::Stopped)
            }
            PeerRpc::Snapshot => self.chunk(SnapshotChunk::decode(request).map_err(malformed)?).await,
            PeerRpc::Propose | PeerRpc::ReadIndex | PeerRpc::Change | PeerRpc::Progress | PeerRpc::Clock => {
                Err(PeerError::Malformed { rpc, detail: "it is not one of Raft's own calls".to_owned() })
            }
        }
    }

    /// Answers a stream of appends, in order. It ends after the first answer that is no success, as openraft does, and after a
    /// request that is none.
    pub(crate) fn appends(&self, requests: BoxStream<'static, Bytes>) -> BoxStream<'static, Result<Bytes, PeerError>> {
        let decoded = requests.map(|request| calls::decode_append(request).map_err(|error| tracing::error!(%error, "a malformed append")));
        let input =
            decoded.take_while(|request| std::future::ready(request.is_ok())).filter_map(|request| std::future::ready(request.ok()));
        let answers = self.raft.stream_append(input);
        answers.map(|answer| answer.map(|answer| calls::encode_streamed_answer(&answer)).map_err(|_| PeerError::Stopped)).boxed()
    }

    /// Takes a chunk; with the last one the file is verified and installed.
    async fn chunk(&self, chunk: SnapshotChunk) -> Result<Bytes, PeerError> {
        let refused = |detail: String| PeerError::Malformed { rpc: PeerRpc::Snapshot, detail };
        if chunk.length > SNAPSHOT_BYTES_MAX || chunk.offset.checked_add(chunk.bytes.len() as u64).is_none_or(|end| end > chunk.length) {
            return Err(refused("a chunk outside of its file, or a file that is too long".to_owned()));
        }
        let own = self.own_vote().await?;
        if own > chunk.vote {
            return Ok(SnapshotAnswer { vote: own, received: 0 }.encode());
        }
        let vote = chunk.vote;
        if chunk.bytes.is_empty() {
            let received = lock(&self.incoming).as_ref().filter(|transfer| transfer.is_of(&chunk)).map_or(0, |held| held.file.received);
            return Ok(SnapshotAnswer { vote, received }.encode());
        }
        let Some(mut transfer) = self.transfer_for(&chunk) else {
            // Not the next chunk of what is being received: say where to go on.
            let received =
                lock(&self.incoming).as_ref().map_or(0, |transfer| if transfer.is_of(&chunk) { transfer.file.received } else { 0 });
            return Ok(SnapshotAnswer { vote, received }.encode());
        };
        let (bytes, length, meta) = (chunk.bytes, chunk.length, chunk.meta);
        let snapshots = self.snapshots.clone();
        let stored = self.offload.run(move || match snapshots.receive(&mut transfer.file, &bytes) {
            Ok(()) => Ok(transfer),
            Err(error) => {
                snapshots.discard(&transfer.file);
                Err(error)
            }
        });
        let stored = stored.await;
        let transfer = stored.map_err(|error| refused(format!("cannot store the chunk: {error}")))?;
        let received = transfer.file.received;
        if received < length {
            // One that was begun while this chunk was written gives way, and its file with it.
            if let Some(given_up) = lock(&self.incoming).replace(transfer) {
                self.snapshots.discard(&given_up.file);
            }
            return Ok(SnapshotAnswer { vote, received }.encode());
        }
        let (snapshots, wanted) = (self.snapshots.clone(), meta.clone());
        let finished = self.offload.run(move || snapshots.finish(transfer.file, &wanted)).await;
        let snapshot = finished.map_err(|error| refused(format!("the snapshot file does not verify: {error}")))?;
        let path = snapshot.path.clone();
        let answer = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await.map_err(|_| PeerError::Stopped)?;
        // Gone if it was installed. It stays where Raft had no use for it: what it holds was applied meanwhile, or the vote is old.
        let snapshots = self.snapshots.clone();
        let removed = self.offload.run(move || snapshots.remove_received(&path)).await;
        removed.map_err(|error| refused(format!("the received file cannot be removed: {error}")))?;
        Ok(SnapshotAnswer { vote: answer.vote, received }.encode())
    }

    /// Takes the transfer that `chunk` continues, or a new one if it is a first chunk.
    fn transfer_for(&self, chunk: &SnapshotChunk) -> Option<Transfer> {
        let mut incoming = lock(&self.incoming);
        if chunk.offset == 0 {
            let file = self.snapshots.incoming();
            if let Some(given_up) = incoming.take() {
                self.snapshots.discard(&given_up.file);
            }
            return Some(Transfer { vote: chunk.vote, last_log_id: chunk.meta.last_log_id, length: chunk.length, file });
        }
        incoming.take_if(|transfer| transfer.is_of(chunk) && transfer.file.received == chunk.offset)
    }

    async fn own_vote(&self) -> Result<Vote, PeerError> {
        self.raft.with_raft_state(|state| *state.vote_ref()).await.map_err(|_| PeerError::Stopped)
    }
}

impl Transfer {
    fn is_of(&self, chunk: &SnapshotChunk) -> bool {
        self.vote == chunk.vote && self.last_log_id == chunk.meta.last_log_id && self.length == chunk.length
    }
}

fn stopped<R: Runtime>(_error: RaftError<Types<R>>) -> PeerError {
    PeerError::Stopped
}
