//! The doors: gRPC on the UNIX socket and over TLS (crate `doors`), and health over HTTP, which answers everybody. Reflection is left to
//! control nodes.

use std::{net::SocketAddr, sync::Arc};

use ::doors::{Offer, bind_tcp};
use runtime::{
    TokioSpawn,
    config::{ConnectionLimits, EdgeConfig},
    health,
    telemetry::Metrics,
    tls::ServerTls,
};
use seams::{Clock, Spawn};
use tokio::net::TcpListener;

use crate::EdgeError;

/// Bound sockets that nobody serves yet.
pub(crate) struct Doors {
    lookups: ::doors::Doors,
    health: TcpListener,
    pub(crate) grpc_address: SocketAddr,
    pub(crate) health_address: SocketAddr,
}

impl Doors {
    /// Binds all three.
    pub(crate) async fn bind(config: &EdgeConfig) -> Result<Self, EdgeError> {
        let (unix, grpc) = (("listen.unix.path", &config.listen.unix), ("listen.grpc", config.listen.grpc));
        let lookups = ::doors::Doors::bind(Some(unix), Some(grpc)).await?;
        let grpc_address = lookups.address().unwrap_or(config.listen.grpc);
        let (health, health_address) = bind_tcp("listen.health", config.listen.health).await?;
        Ok(Self { lookups, health, grpc_address, health_address })
    }

    /// Serves until the token of `tasks` is cancelled, then lets open calls end.
    pub(crate) fn open(
        self,
        offer: Offer,
        limits: &ConnectionLimits,
        tls: ServerTls,
        readiness: health::Readiness,
        metrics: Metrics,
        (tasks, clock): (&TokioSpawn, &Arc<dyn Clock>),
    ) {
        self.lookups.open(offer, limits, tls, tasks, clock);
        let (health, cancel) = (self.health, tasks.token().child_token());
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
