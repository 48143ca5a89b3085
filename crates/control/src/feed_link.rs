//! The edge's stream as tonic carries it, made into the [`Link`] that the feed is written against.

use futures::future::BoxFuture;
use seams::{Link, LinkClosed, RecvHalf, SendHalf};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use wire::internal::{SubscribeDown, SubscribeUp};

/// Frames that wait for the socket of one subscriber. Full: the sender waits, so a slow edge falls behind and costs no memory.
const FRAMES_MAX: usize = 4;

/// Both ends of a subscriber's stream: the link for the feed, and the frames for tonic to send.
pub(crate) fn link(
    up: Streaming<SubscribeUp>,
    peer: String,
) -> (Link<SubscribeDown, SubscribeUp>, mpsc::Receiver<Result<SubscribeDown, Status>>) {
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    (Link { sender: Box::new(Down(sender)), receiver: Box::new(Up(up)), peer }, frames)
}

struct Down(mpsc::Sender<Result<SubscribeDown, Status>>);

impl SendHalf<SubscribeDown> for Down {
    fn send(&mut self, message: SubscribeDown) -> BoxFuture<'_, Result<(), LinkClosed>> {
        Box::pin(async { self.0.send(Ok(message)).await.map_err(|_| LinkClosed { reason: "the edge went away".into() }) })
    }
}

struct Up(Streaming<SubscribeUp>);

impl RecvHalf<SubscribeUp> for Up {
    fn recv(&mut self) -> BoxFuture<'_, Result<SubscribeUp, LinkClosed>> {
        Box::pin(async {
            match self.0.message().await {
                Ok(Some(message)) => Ok(message),
                Ok(None) => Err(LinkClosed { reason: "the edge closed the stream".into() }),
                Err(status) => Err(LinkClosed { reason: format!("the stream broke: {}", status.message()) }),
            }
        })
    }
}
