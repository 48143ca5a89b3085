//! gRPC over the connections of one door.

use std::{io, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use runtime::{
    TokioSpawn,
    config::ConnectionLimits,
    listen::{Connection, KeepCallers, Peer},
    tls::PeerIdentity,
};
use seams::{Clock, Spawn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    service::Routes,
    transport::{Server, server::Connected},
};
use tower::util::MapRequestLayer;

/// Flow-control windows: 1 MiB a stream, 4 MiB a connection, so that a pipelined stream is not held up by round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How long open connections get to end by themselves when the node stops; a stream that a client leaves open ends then.
pub(crate) const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(3);
/// A silent connection is probed after this time, so that watches of clients that are gone give up their places.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// A probe that is not answered in this time ends the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that can be made to break.
pub(crate) trait Cut {
    /// The same connection, which breaks when `token` is cancelled.
    fn cut_by(self, token: CancellationToken) -> Self;
}

impl<S> Cut for Connection<S> {
    fn cut_by(self, token: CancellationToken) -> Self {
        Connection::cut_by(self, token)
    }
}

/// Serves until the token of `tasks` is cancelled, then lets open calls end.
pub(crate) fn serve<S>(
    name: &'static str,
    routes: Routes,
    limits: &ConnectionLimits,
    incoming: impl Stream<Item = io::Result<S>> + Send + 'static,
    tasks: &TokioSpawn,
    clock: Arc<dyn Clock>,
) where
    S: AsyncRead + AsyncWrite + Connected<ConnectInfo = Peer> + Cut + Unpin + Send + 'static,
{
    let cancel: CancellationToken = tasks.token().child_token();
    let cut = CancellationToken::new();
    let cutting = cut.clone();
    let incoming = incoming.map(move |connection| connection.map(|connection| connection.cut_by(cutting.clone())));
    let ending = cancel.clone();
    let server = Server::builder()
        .max_concurrent_streams(limits.streams_max)
        .timeout(limits.request_timeout)
        .max_connection_age(limits.connection_age_max)
        // Streams have no end of their own: without this they would hold a connection for ever.
        .max_connection_age_grace(limits.request_timeout)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .layer(KeepCallers)
        .layer(MapRequestLayer::new(with_connection))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, cancel.cancelled_owned());
    tasks.spawn(
        name,
        Box::pin(async move {
            let mut server = std::pin::pin!(server);
            let ended = tokio::select! {
                ended = &mut server => ended,
                () = async {
                    ending.cancelled().await;
                    clock.sleep(CONNECTIONS_END_WITHIN).await;
                } => {
                    cut.cancel();
                    server.await
                }
            };
            if let Err(error) = ended {
                tracing::error!(name, %error, "a gRPC door ended");
            }
        }),
    );
}

/// Tells the services what the transport proved.
fn with_connection(mut request: http::Request<Body>) -> http::Request<Body> {
    if let Some(connection) = request.extensions().get::<Peer>().map(connection) {
        request.extensions_mut().insert(connection);
    }
    request
}

/// What a peer's certificate or uid is to a lookup. A node's certificate is nobody's that reads.
pub(crate) fn connection(peer: &Peer) -> lookup::Connection {
    let identity = match peer.identity() {
        Some(PeerIdentity::Consumer { consumer, .. }) => Some(consumer.clone()),
        Some(PeerIdentity::Node { .. }) | None => None,
    };
    let not_after = peer.certificate().map(|certificate| certificate.not_after);
    lookup::Connection { identity, not_after, uid: peer.uid() }
}
