//! The listening side: one stream from each other control node, merged into one table.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use seams::Entropy;
use tokio_util::sync::CancellationToken;
use types::NodeId;

use super::{Exchange, PeerCalls, SILENCE_MAX};

/// How often it is looked which control nodes there are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long opening a stream may take.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// The first and the longest pause before a stream is opened again; jitter takes up to half of it away.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Listens to all other control nodes until `stop`.
pub(crate) async fn listen(exchange: Arc<Exchange>, calls: Arc<dyn PeerCalls>, entropy: Arc<dyn Entropy>, stop: CancellationToken) {
    let mut listening: BTreeMap<NodeId, CancellationToken> = BTreeMap::new();
    let mut streams: FuturesUnordered<BoxFuture<'static, NodeId>> = FuturesUnordered::new();
    loop {
        // The own one too is renewed while the node runs.
        exchange.standings.certificate(exchange.node, (exchange.own)().certificate_ends);
        let others = calls.others();
        for node in others.iter().filter(|node| **node != exchange.node) {
            listening.entry(*node).or_insert_with(|| {
                let end = stop.child_token();
                let ear = Ear { exchange: exchange.clone(), calls: calls.clone(), entropy: entropy.clone(), node: *node };
                streams.push(Box::pin(ear.listen(end.clone())));
                end
            });
        }
        for (node, end) in &listening {
            if !others.contains(node) {
                end.cancel();
            }
        }
        let silent = listening.keys().filter(|node| !exchange.standings.is_heard(**node)).count();
        metrics::gauge!("cinnabar_control_peers_silent").set(silent as f64);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = streams.next(), if !streams.is_empty() => {
                listening.remove(&ended);
            }
            () = exchange.clock.sleep(LOOK_EVERY) => {}
        }
    }
}

/// One other control node, listened to.
struct Ear {
    exchange: Arc<Exchange>,
    calls: Arc<dyn PeerCalls>,
    entropy: Arc<dyn Entropy>,
    node: NodeId,
}

impl Ear {
    /// Listens, again after each failure, until `stop`.
    async fn listen(self, stop: CancellationToken) -> NodeId {
        let mut pause = RETRY_FIRST;
        loop {
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                heard = self.hear() => heard,
            };
            self.exchange.lost(self.node);
            if heard.any {
                tracing::warn!(node = %self.node, reason = heard.end, "a control node is not heard any more: what its subscribers hold stands as last reported");
                pause = RETRY_FIRST;
            } else {
                tracing::debug!(node = %self.node, reason = heard.end, "a control node can't be heard; it is tried again");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.exchange.clock.sleep(self.jittered(pause)) => {}
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
        self.exchange.lost(self.node);
        self.node
    }

    /// One stream, from its opening to its end.
    async fn hear(&self) -> Heard {
        let clock = &self.exchange.clock;
        let mut any = false;
        let opened = tokio::select! {
            biased;
            opened = self.calls.watermarks(self.node) => opened,
            () = clock.sleep(OPEN_WITHIN) => return Heard { any, end: "no answer".to_owned() },
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return Heard { any, end: format!("{error}: {}", error.source) },
        };
        loop {
            let reply = tokio::select! {
                biased;
                reply = stream.recv() => reply,
                () = clock.sleep(SILENCE_MAX) => return Heard { any, end: "it fell silent".to_owned() },
            };
            match reply {
                Ok(reply) => self.exchange.take(self.node, reply),
                Err(closed) => return Heard { any, end: closed.to_string() },
            }
            if !any {
                tracing::info!(node = %self.node, "another control node tells of its subscribers");
            }
            any = true;
        }
    }

    fn jittered(&self, pause: Duration) -> Duration {
        let mut byte = [0];
        self.entropy.fill(&mut byte);
        pause - pause * u32::from(byte[0]) / 512
    }
}

/// How listening to one stream ended.
struct Heard {
    /// Whether anything came.
    any: bool,
    /// Why it ended, for the log.
    end: String,
}
