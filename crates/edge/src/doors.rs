//! The doors: gRPC on the UNIX socket, gRPC over TLS, and health over HTTP.
//!
//! Both gRPC doors offer the same services. A layer turns what the transport proved ([`Peer`]) into [`lookup::Connection`]; tokens are
//! looked at by the services. Health answers everybody; reflection is left to control nodes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use runtime::{
    TokioSpawn,
    config::{ConnectionLimits, EdgeConfig},
    health,
    listen::{AcceptLimits, Connection, Peer, UnixSocket, accept_tls, accept_unix, bind_unix},
    telemetry::Metrics,
    tls::{PeerIdentity, ServerTls},
};
use seams::{Clock, Spawn};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes, transport::Server};
use tower::util::MapRequestLayer;

use crate::EdgeError;

/// Flow-control windows: 1 MiB a stream, 4 MiB a connection, so that a pipelined stream is not held up by round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How long open connections get to end by themselves when the edge stops; a stream that a client leaves open ends then.
const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(3);
/// A silent connection is probed after this time, so that watches of clients that are gone give up their places.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// A probe that is not answered in this time ends the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bound sockets that nobody serves yet.
pub(crate) struct Doors {
    unix: UnixSocket,
    grpc: TcpListener,
    health: TcpListener,
    pub(crate) grpc_address: SocketAddr,
    pub(crate) health_address: SocketAddr,
    clock: Arc<dyn Clock>,
}

impl Doors {
    /// Binds all three.
    pub(crate) async fn bind(config: &EdgeConfig, clock: Arc<dyn Clock>) -> Result<Self, EdgeError> {
        let unix_failed =
            |source| EdgeError::Listen { key: "listen.unix.path", address: config.listen.unix.path.display().to_string(), source };
        let unix = bind_unix(&config.listen.unix).map_err(unix_failed)?;
        let (grpc, grpc_address) = bind("listen.grpc", config.listen.grpc).await?;
        let (health, health_address) = bind("listen.health", config.listen.health).await?;
        Ok(Self { unix, grpc, health, grpc_address, health_address, clock })
    }

    /// Serves until the token of `tasks` is cancelled, then lets open calls end.
    pub(crate) fn open(
        self,
        routes: Routes,
        limits: &ConnectionLimits,
        tls: ServerTls,
        readiness: health::Readiness,
        metrics: Metrics,
        tasks: &TokioSpawn,
    ) {
        let accept = AcceptLimits::from(limits);
        let unix = accept_unix(self.unix, &accept, tasks);
        serve("grpc_unix", routes.clone(), limits, unix, tasks, Arc::clone(&self.clock));
        let grpc = accept_tls(self.grpc, tls, accept, tasks);
        serve("grpc_tls", routes, limits, grpc, tasks, self.clock);
        let cancel = tasks.token().child_token();
        let health = self.health;
        tasks.spawn(
            "health",
            Box::pin(async move {
                if let Err(error) = health::serve(health, readiness, metrics, cancel).await {
                    tracing::error!(%error, "the health door ended");
                }
            }),
        );
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), EdgeError> {
    let failed = |source| EdgeError::Listen { key, address: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn serve<S>(
    name: &'static str,
    routes: Routes,
    limits: &ConnectionLimits,
    incoming: impl Stream<Item = io::Result<Connection<S>>> + Send + 'static,
    tasks: &TokioSpawn,
    clock: Arc<dyn Clock>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
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
fn connection(peer: &Peer) -> lookup::Connection {
    let identity = match peer.identity() {
        Some(PeerIdentity::Consumer { consumer, .. }) => Some(consumer.clone()),
        Some(PeerIdentity::Node { .. }) | None => None,
    };
    let not_after = peer.certificate().map(|certificate| certificate.not_after);
    lookup::Connection { identity, not_after, uid: peer.uid() }
}
