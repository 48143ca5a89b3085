//! The edge's stream to the control plane: tonic's `Subscribe` as a [`Link`].
//!
//! Each dial opens a fresh connection to the next address: a new handshake shows a renewed certificate, and a connection that went
//! bad is not used again. Both directions are bounded: what is sent waits in a channel of [`OUT_MAX`], what comes waits in HTTP/2's window.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures::future::BoxFuture;
use runtime::{config::HostPort, tls::ClientTls};
use seams::{Dial, DialError, Link, LinkClosed, RecvHalf, SendHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};
use wire::{
    ErrorKind, FEED_MESSAGE_BYTES_MAX, PublicError,
    internal::{Refused, RefusedKind, SubscribeDown, SubscribeUp, feed_client::FeedClient, subscribe_down::Message},
};

/// Messages up that wait: a hello and some acknowledgements, of which the last counts.
const OUT_MAX: usize = 16;

/// How long a revoked node stays away from the node that said so.
const REVOKED_RETRY_MS: u64 = 60_000;

/// Calls the control nodes in turn.
pub(crate) struct ControlDial {
    endpoints: Vec<HostPort>,
    tls: ClientTls,
    next: AtomicUsize,
    /// Set when a control node does not accept this edge's certificate.
    doubted: Arc<AtomicBool>,
}

impl ControlDial {
    pub(crate) fn new(endpoints: Vec<HostPort>, tls: ClientTls, doubted: Arc<AtomicBool>) -> Self {
        Self { endpoints, tls, next: AtomicUsize::new(0), doubted }
    }

    fn open(&self) -> Result<Link<SubscribeUp, SubscribeDown>, DialError> {
        // The configuration is checked to name one at least.
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(to) = self.endpoints.get(turn.checked_rem(self.endpoints.len()).unwrap_or_default()) else {
            return Err(DialError { peer: "nobody".to_owned(), source: "control.endpoints is empty".into() });
        };
        let mut client = FeedClient::new(self.tls.channel(to)).max_decoding_message_size(FEED_MESSAGE_BYTES_MAX);
        let (sender, outgoing) = mpsc::channel(OUT_MAX);
        // The server may answer only when it has seen the first message, which is sent after this returns. So connecting, calling and
        // the answer are all awaited with the first receive.
        let doubted = Arc::clone(&self.doubted);
        let opening = async move {
            let opened = client.subscribe(ReceiverStream::new(outgoing)).await.map(Response::into_inner);
            if opened.as_ref().is_err_and(|status| PublicError::from_status(status).kind == ErrorKind::Unauthenticated) {
                doubted.store(true, Ordering::Relaxed);
            }
            opened
        };
        Ok(Link { sender: Box::new(Up(sender)), receiver: Box::new(Down::Opening(Box::pin(opening))), peer: to.to_string() })
    }
}

impl Dial<SubscribeUp, SubscribeDown> for ControlDial {
    fn dial(&self) -> BoxFuture<'_, Result<Link<SubscribeUp, SubscribeDown>, DialError>> {
        Box::pin(std::future::ready(self.open()))
    }

    fn peers(&self) -> usize {
        self.endpoints.len()
    }
}

struct Up(mpsc::Sender<SubscribeUp>);

impl SendHalf<SubscribeUp> for Up {
    fn send(&mut self, message: SubscribeUp) -> BoxFuture<'_, Result<(), LinkClosed>> {
        Box::pin(async move { self.0.send(message).await.map_err(|_| LinkClosed { reason: "the call has ended".to_owned() }) })
    }
}

/// The receiving half, which first waits for the call to be answered. Its state is kept across a cancelled receive.
enum Down {
    Opening(BoxFuture<'static, Result<Streaming<SubscribeDown>, Status>>),
    Open(Box<Streaming<SubscribeDown>>),
    Ended,
}

impl Down {
    /// A status ends the stream. That this node is revoked is said by status before a stream is opened, and is a message to the follower.
    fn end(&mut self, status: &Status) -> Result<SubscribeDown, LinkClosed> {
        *self = Self::Ended;
        let error = PublicError::from_status(status);
        if error.kind != ErrorKind::Revoked {
            return Err(closed(status));
        }
        let refused = Refused { kind: RefusedKind::Revoked.into(), message: error.message, retry_after_ms: REVOKED_RETRY_MS };
        Ok(SubscribeDown { message: Some(Message::Refused(refused)) })
    }
}

impl RecvHalf<SubscribeDown> for Down {
    fn recv(&mut self) -> BoxFuture<'_, Result<SubscribeDown, LinkClosed>> {
        Box::pin(async move {
            loop {
                match self {
                    Self::Opening(opening) => match opening.await {
                        Ok(stream) => *self = Self::Open(Box::new(stream)),
                        Err(status) => return self.end(&status),
                    },
                    Self::Open(stream) => match stream.message().await {
                        Ok(Some(message)) => return Ok(message),
                        Ok(None) => *self = Self::Ended,
                        Err(status) => return self.end(&status),
                    },
                    Self::Ended => return Err(LinkClosed { reason: "the server ended the stream".to_owned() }),
                }
            }
        })
    }
}

/// What the server said, or what happened on the way to it, with all causes.
fn closed(status: &Status) -> LinkClosed {
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    LinkClosed { reason: causes.fold(PublicError::from_status(status).to_string(), |line, cause| format!("{line}: {cause}")) }
}
