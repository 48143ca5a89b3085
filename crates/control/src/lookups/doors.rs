//! The doors: gRPC on a UNIX socket and over TLS, for lookups alone.
//!
//! Both offer `Lookup` and health. What the transport proved becomes a [`lookup::Connection`]; tokens are looked at by the service.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use lookup::{Authenticator, Lookup, PeerPattern, PeerRule, PeerRules, Served, Service, ServiceOptions};
use runtime::{
    config::{ConnectionLimits, ConsumerPattern, ControlConfig},
    health::Readiness,
    listen::{AcceptLimits, Connection, Peer, UnixSocket, accept_tls, accept_unix, bind_unix},
    tls::{PeerIdentity, ServerTls},
};
use seams::Spawn;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes, transport::Server};
use tower::util::MapRequestLayer;

use super::Lookups;
use crate::core::Core;

/// Secrets whose served lookups are counted one by one: as many as at an edge.
const SERVED_ROWS_MAX: usize = 10_000;
/// Flow-control windows: 1 MiB a stream, 4 MiB a connection, so that a pipelined stream is not held up by round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How long open connections get to end by themselves when the node stops; a stream that a client leaves open ends then.
const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(3);
/// A silent connection is probed after this time, so that watches of clients that are gone give up their places.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// A probe that is not answered in this time ends the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bound sockets that nobody serves yet.
pub(crate) struct Doors {
    unix: Option<UnixSocket>,
    grpc: Option<TcpListener>,
    /// Where the one over TLS listens.
    pub(crate) address: Option<SocketAddr>,
}

impl Doors {
    /// Binds what `[lookups]` names. The error comes with the address.
    pub(crate) async fn bind(config: &ControlConfig) -> Result<Self, (String, io::Error)> {
        let unix = match &config.lookups.unix {
            Some(listen) => Some(bind_unix(listen).map_err(|error| (format!("{} (lookups.unix)", listen.path.display()), error))?),
            None => None,
        };
        let (mut grpc, mut address) = (None, None);
        if let Some(at) = config.lookups.grpc {
            let failed = |error| (format!("{at} (lookups.grpc)"), error);
            let listener = TcpListener::bind(at).await.map_err(failed)?;
            address = Some(listener.local_addr().map_err(failed)?);
            grpc = Some(listener);
        }
        Ok(Self { unix, grpc, address })
    }
}

/// Opens the doors. They answer "not synced" until the state may be shown.
pub(crate) async fn open(
    core: &Arc<Core>,
    lookups: &Arc<Lookups>,
    doors: Doors,
    config: &ControlConfig,
    tls: ServerTls,
    readiness: &Readiness,
) {
    if let Some(address) = doors.address {
        let _ = lookups.address.set(address);
    }
    let lookup = Lookup::new(lookups.serving().clone(), Arc::new(Served::new(SERVED_ROWS_MAX)), &core.name);
    let options = ServiceOptions {
        watches_max: config.lookups.watches_max,
        stream_waiting_max: config.lookups.pipelined_max,
        // The lookup answers by itself before the door cuts the call.
        patience_max: config.connections.request_timeout / 10 * 9,
        ..ServiceOptions::default()
    };
    let authenticator = Authenticator::new(peer_rules(config));
    let service = Service::new(Arc::new(lookup), authenticator, core.name.clone(), options, core.tasks.token().child_token());
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<wire::v1::lookup_server::LookupServer<Service>>().await;
    let routes = Routes::new(health).add_service(service.into_server()).prepare();
    let accept = AcceptLimits::from(&config.connections);
    if let Some(unix) = doors.unix {
        serve(core, "lookups_unix", routes.clone(), &config.connections, accept_unix(unix, &accept, &core.tasks));
    }
    if let Some(grpc) = doors.grpc {
        serve(core, "lookups_tls", routes, &config.connections, accept_tls(grpc, tls, accept, &core.tasks));
    }
    let ready = readiness.check("lookups");
    core.tasks.spawn("open lookups", Box::pin(super::open_when_recovered(core.clone(), lookups.clone())));
    core.tasks.spawn("watch lookups", Box::pin(super::watch(core.clone(), lookups.clone(), ready)));
}

/// The configuration's `[[peer]]` as rules.
fn peer_rules(config: &ControlConfig) -> PeerRules {
    let rules = config.peer.iter().flat_map(|rule| {
        rule.consumers.iter().map(|pattern| {
            let pattern = match pattern {
                ConsumerPattern::Any => PeerPattern::Any,
                ConsumerPattern::Kind(kind) => PeerPattern::Kind(*kind),
                ConsumerPattern::One(kind, name) => PeerPattern::One(*kind, name.clone()),
            };
            PeerRule { uid: rule.uid, account: rule.account, pattern }
        })
    });
    PeerRules::new(rules.collect())
}

fn serve<S>(
    core: &Arc<Core>,
    name: &'static str,
    routes: Routes,
    limits: &ConnectionLimits,
    incoming: impl Stream<Item = io::Result<Connection<S>>> + Send + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cancel: CancellationToken = core.tasks.token().child_token();
    let cut = CancellationToken::new();
    let cutting = cut.clone();
    let incoming = incoming.map(move |connection| connection.map(|connection| connection.cut_by(cutting.clone())));
    let (ending, clock) = (cancel.clone(), core.clock.clone());
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
    core.tasks.spawn(
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
                tracing::error!(name, %error, "a door for lookups ended");
            }
        }),
    );
}

/// Tells the service what the transport proved.
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
