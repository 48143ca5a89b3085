//! The server: every gRPC service and REST, each behind its door.

use std::{io, sync::Arc, time::Duration};

use runtime::{
    config::ConnectionLimits,
    listen::{KeepCallers, TlsConnection},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, interceptor::InterceptedService};
use wire::{
    FEED_MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX,
    internal::{enrol_server::EnrolServer, feed_server::FeedServer},
    v1,
};

use crate::{
    core::Core,
    door::{self, CatchUp, Door, Opened},
    enrol::EnrolService,
    peers::RaftService,
    rest,
    services::{FeedService, Services},
    watermarks::{Exchange, PeersService},
};

/// HTTP/2 windows: a stream's, and a connection's.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How long open connections get to end by themselves when the node stops; a stream that a client leaves open ends then.
const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(3);
/// A connection on which nothing came for this long is probed, and ended when no answer comes in as long again: receipts wait for what an
/// edge that is not heard acknowledges, until it has gone elsewhere.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// The longest request to join: a certificate request, two keys and some text take a quarter of it.
const JOIN_BYTES_MAX: usize = 16 * 1024;

/// What is served beside what all operations share.
pub(crate) struct Internal {
    pub(crate) raft: RaftService,
    pub(crate) exchange: Arc<Exchange>,
}

/// Serves until the node stops.
pub(crate) async fn serve(
    core: Arc<Core>,
    internal: Internal,
    connections: ReceiverStream<io::Result<TlsConnection>>,
    limits: ConnectionLimits,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let services = Services(core.clone());
    let door = Door(core.clone());
    let secrets = v1::secrets_server::SecretsServer::new(services.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let feed = FeedServer::new(FeedService(core.clone()))
        .max_decoding_message_size(FEED_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(FEED_MESSAGE_BYTES_MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<v1::secrets_server::SecretsServer<Services>>().await;
    let cancelled = core.tasks.token().clone();
    let cut = CancellationToken::new();
    let cutting = cut.clone();
    let connections = connections.map(move |connection| connection.map(|connection| connection.cut_by(cutting.clone())));
    let services_and_rest = Routes::from(rest::router(core.clone()))
        .add_service(InterceptedService::new(v1::accounts_server::AccountsServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::stores_server::StoresServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(secrets, door.clone()))
        .add_service(InterceptedService::new(v1::consumers_server::ConsumersServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::bindings_server::BindingsServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::audit_server::AuditServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::levels_server::LevelsServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::receipts_server::ReceiptsServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::snapshots_server::SnapshotsServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::fleet_server::FleetServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::cluster_server::ClusterServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::nodes_server::NodesServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::members_server::MembersServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::tokens_server::TokensServer::new(services.clone()), door.clone()))
        .add_service(InterceptedService::new(v1::status_server::StatusServer::new(services), door.clone()))
        // The feed has a door of its own: edges, by the key in the registry. So have control nodes.
        .add_service(InterceptedService::new(feed, Opened(core.clone())))
        .add_service(PeersService { core: core.clone(), exchange: internal.exchange }.server())
        // Strangers with a join token, and nodes whose certificates have ended. Answers from the start, as far as there is a majority.
        .add_service(EnrolServer::new(EnrolService(core.clone())).max_decoding_message_size(JOIN_BYTES_MAX))
        // Answers from the start: without it no majority comes about.
        .add_service(internal.raft.server())
        .add_service(health_service)
        .add_service(door::reflection(door)?);
    let server = tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.streams_max)
        .max_connection_age(limits.connection_age_max)
        .layer(KeepCallers)
        .layer(CatchUp(core.clone()))
        .add_routes(services_and_rest)
        .serve_with_incoming_shutdown(connections, cancelled.clone().cancelled_owned());
    let mut server = std::pin::pin!(server);
    tokio::select! {
        ended = &mut server => return Ok(ended?),
        () = async {
            cancelled.cancelled().await;
            core.clock.sleep(CONNECTIONS_END_WITHIN).await;
        } => cut.cancel(),
    }
    Ok(server.await?)
}
