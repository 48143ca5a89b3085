//! `Feed`: an edge subscribes. Its certificate says which node it is; the registry says whether it may.

use std::{sync::Arc, time::Duration};

use runtime::listen::Peer;
use seams::Spawn;
use state::record::NodeRole;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::{
    ErrorKind, PublicError,
    internal::{SubscribeDown, SubscribeUp, feed_server::Feed},
};

use crate::{caller::Caller, core::Core, feed_link::link};

/// How long the first message of a subscriber may take.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long a subscriber may leave a frame unread before its stream is dropped; it resumes from where it was.
const SEND_WITHIN: Duration = Duration::from_secs(30);

/// The feed's service.
#[derive(Clone)]
pub(crate) struct FeedService(pub(crate) Arc<Core>);

#[async_trait]
impl Feed for FeedService {
    type SubscribeStream = ReceiverStream<Result<SubscribeDown, Status>>;

    async fn subscribe(&self, request: Request<Streaming<SubscribeUp>>) -> Result<Response<Self::SubscribeStream>, Status> {
        let core = &self.0;
        let peer = request.extensions().get::<Peer>().cloned();
        let certificate =
            peer.as_ref().and_then(|peer| peer.certificate()).filter(|certificate| certificate.identity.cluster() == core.cluster);
        let node = certificate.and_then(|certificate| certificate.identity.node());
        let denied = |message: &str| Status::from(PublicError::new(ErrorKind::Denied, message));
        let (Some(certificate), Some(node)) = (certificate, node) else {
            return Err(PublicError::new(ErrorKind::Unauthenticated, "the feed is for nodes: connect with a node's certificate").into());
        };
        if certificate.is_expired(core.now()) {
            return Err(Caller::expired().into());
        }
        // Identity is the key in the registry; the certificate is a lease on it.
        let read = |state: &state::State| state.node(node).map_err(|error| Status::from(crate::error::damaged(error)));
        let record = match read(&core.consensus.local())? {
            // It may have joined at another node a moment ago.
            None => read(&core.newest().await?)?,
            known => known,
        };
        match record {
            None => return Err(denied("this node is not registered: register it, then it connects by itself")),
            Some(record) if record.revoked.is_some() => return Err(PublicError::new(ErrorKind::Revoked, "this node was revoked").into()),
            Some(record) if record.public_key != certificate.public_key => {
                return Err(denied("the certificate's key is not the one registered for this node"));
            }
            Some(record) if record.role == NodeRole::Control => return Err(denied("control nodes follow the log, not the feed")),
            Some(_) => {}
        }
        core.standings.certificate(node, Some(certificate.not_after));
        let (link, frames) = link(request.into_inner(), peer.map_or_else(String::new, |peer| peer.to_string()));
        let session = feed::Session { node, hello_within: HELLO_WITHIN, send_within: SEND_WITHIN };
        let serving = core.clone();
        core.tasks.spawn(
            "feed subscriber",
            Box::pin(async move {
                let cancelled = serving.tasks.token().clone();
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => {}
                    end = feed::serve_subscriber(link, serving.publisher.clone(), session) => tracing::info!(%node, ?end, "a subscriber's stream ended"),
                }
            }),
        );
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}
