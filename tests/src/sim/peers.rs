//! Calls between voters: each takes its own time, so that they overtake each other; some get lost, some come late.
//!
//! A call is carried by a task of nobody's, as packets are: it arrives though the caller has given up or died meanwhile, and the peer
//! works on what it got though nobody waits for the answer. Across a cut a call fails at once or hangs, as with a router that
//! answers for the dead and one that does not.

use std::time::Duration;

use bytes::Bytes;
use consensus::{PeerError, PeerRpc, PeerTransport};
use futures::{
    StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use types::NodeId;

use super::net::Network;

/// The longest that a call across a cut hangs.
const HANG_MAX: Duration = Duration::from_secs(3);
/// Appends that are under way in one stream.
const UNDER_WAY: usize = 16;
/// Of a hundred chunks of snapshot files so many get lost, or their answers: a transfer goes on where it was cut.
const CHUNKS_LOST: u64 = 12;

/// Of a snapshot file: so small that one takes several, and is cut in the middle.
const CHUNK_BYTES: usize = 16 << 10;

/// One voter's way to the others.
pub(super) struct Port {
    pub(super) network: Network,
    pub(super) from: NodeId,
    /// Whether appends go out in streams.
    pub(super) pipelines: bool,
}

impl PeerTransport for Port {
    fn call(
        &self,
        to: NodeId,
        _address: &str,
        rpc: PeerRpc,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (network, from) = (self.network.clone(), self.from);
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            drop(SimRuntime::spawn(async move {
                // Nobody may be waiting any more.
                let _ = done.send(carry(&network, (from, to), rpc, request, deadline).await);
            }));
            answer.await.unwrap_or_else(|_| Err(failed(to, "it was lost")))
        })
    }

    fn pipelines(&self) -> bool {
        self.pipelines
    }

    fn snapshot_chunk_bytes(&self) -> usize {
        CHUNK_BYTES
    }

    fn appends(
        &self,
        to: NodeId,
        _address: &str,
        requests: BoxStream<'static, Bytes>,
        deadline: Duration,
    ) -> BoxStream<'static, Result<Bytes, PeerError>> {
        Appends::new(&self.network, (self.from, to), requests, deadline).map_or_else(
            || stream::once(ready(Err(unreachable(to, "down")))).boxed(),
            |appends| stream::unfold(appends, Appends::next).fuse().boxed(),
        )
    }
}

/// A stream of appends as its caller sees it. As over a real transport, requests go out without waiting, answers come in order, one that
/// is due for too long ends the stream, and a stream with nothing under way ends in silence.
struct Appends {
    to: NodeId,
    requests: BoxStream<'static, Bytes>,
    /// Gone when the last request has been sent.
    send: Option<mpsc::Sender<Bytes>>,
    answers: mpsc::Receiver<Result<Bytes, PeerError>>,
    under_way: usize,
    deadline: Duration,
    ended: bool,
}

/// What happens next in a stream of appends.
enum Event {
    Request(Option<Bytes>),
    Answer(Option<Result<Bytes, PeerError>>),
    Late,
}

impl Appends {
    /// A stream to a peer that is up. What is under way is carried by tasks of nobody's, and ends with the first that gets lost.
    fn new(network: &Network, (from, to): (NodeId, NodeId), requests: BoxStream<'static, Bytes>, deadline: Duration) -> Option<Self> {
        let peer = network.endpoint(to)?;
        let (send, mut sent) = mpsc::channel::<Bytes>(UNDER_WAY);
        let (arrive, arrived) = mpsc::channel::<Bytes>(UNDER_WAY);
        let (answer, mut answered) = mpsc::channel::<Result<Bytes, PeerError>>(UNDER_WAY);
        let (back, answers) = mpsc::channel::<Result<Bytes, PeerError>>(UNDER_WAY);
        let there = network.clone();
        drop(SimRuntime::spawn(async move {
            while let Some(request) = sent.recv().await {
                if travel(&there, from, to, deadline).await.is_err() || arrive.send(request).await.is_err() {
                    return;
                }
            }
        }));
        let consensus = peer.consensus.clone();
        peer.process.spawn(async move {
            let mut answered = consensus.handle_appends(ReceiverStream::new(arrived).boxed());
            while let Some(one) = answered.next().await {
                if answer.send(one).await.is_err() {
                    return;
                }
            }
        });
        let network = network.clone();
        drop(SimRuntime::spawn(async move {
            while let Some(one) = answered.recv().await {
                if travel(&network, to, from, deadline).await.is_err() || back.send(one).await.is_err() {
                    return;
                }
            }
        }));
        Some(Self { to, requests, send: Some(send), answers, under_way: 0, deadline, ended: false })
    }

    async fn next(mut self) -> Option<(Result<Bytes, PeerError>, Self)> {
        while !self.ended {
            let room = self.send.is_some() && self.under_way < UNDER_WAY;
            let event = tokio::select! {
                biased;
                answer = self.answers.recv() => Event::Answer(answer),
                request = self.requests.next(), if room => Event::Request(request),
                () = SimRuntime::sleep(self.deadline), if self.under_way > 0 => Event::Late,
            };
            let answer = match event {
                Event::Request(Some(request)) => {
                    let sent = self.send.as_ref().is_some_and(|send| send.try_send(request).is_ok());
                    self.under_way += usize::from(sent);
                    if sent { continue } else { Err(failed(self.to, "the stream is gone")) }
                }
                Event::Request(None) => {
                    self.send = None;
                    self.ended = self.under_way == 0;
                    continue;
                }
                Event::Answer(None) if self.under_way == 0 => return None,
                Event::Answer(None) => Err(failed(self.to, "the peer has ended the stream")),
                Event::Answer(Some(answer)) => answer,
                Event::Late => Err(failed(self.to, "no answer")),
            };
            self.under_way = self.under_way.saturating_sub(1);
            self.ended = answer.is_err() || self.send.is_none() && self.under_way == 0;
            return Some((answer, self));
        }
        None
    }
}

/// A call and its answer.
async fn carry(
    network: &Network,
    (from, to): (NodeId, NodeId),
    rpc: PeerRpc,
    request: Bytes,
    deadline: Duration,
) -> Result<Bytes, PeerError> {
    travel(network, from, to, deadline).await.map_err(|reason| unreachable(to, reason))?;
    let chunk = rpc == PeerRpc::Snapshot;
    if chunk && network.loses_chunk(CHUNKS_LOST) {
        network.history().count("chunks of snapshots lost");
        return Err(unreachable(to, "a chunk was lost"));
    }
    let peer = network.endpoint(to).ok_or_else(|| unreachable(to, "down"))?;
    if chunk {
        network.history().count("chunks of snapshots");
        network.snapshot_arrived(to);
    }
    let answered = peer.process.call(async move { peer.consensus.handle(rpc, request).await }).await;
    let answer = answered.unwrap_or_else(|| Err(failed(to, "the process died")))?;
    travel(network, to, from, deadline).await.map_err(|reason| failed(to, reason))?;
    if chunk && network.loses_chunk(CHUNKS_LOST) {
        network.history().count("chunks of snapshots lost");
        return Err(failed(to, "the answer to a chunk was lost"));
    }
    Ok(answer)
}

async fn travel(network: &Network, from: NodeId, to: NodeId, deadline: Duration) -> Result<(), &'static str> {
    SimRuntime::sleep(network.delay()).await;
    if network.is_cut(from, to) {
        if network.draw(2) == 0 {
            SimRuntime::sleep(deadline.min(HANG_MAX)).await;
        }
        return Err("cut off");
    }
    if network.loses() {
        network.history().count("calls lost");
        return Err("lost");
    }
    Ok(())
}

fn unreachable(to: NodeId, reason: &str) -> PeerError {
    PeerError::Unreachable { to, reason: reason.to_owned() }
}

fn failed(to: NodeId, reason: &str) -> PeerError {
    PeerError::Failed { to, reason: reason.to_owned() }
}
