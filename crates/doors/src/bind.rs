//! Addresses, taken before anything is served.

use std::{io, net::SocketAddr, sync::Arc};

use runtime::{
    TokioSpawn,
    config::{ConnectionLimits, UnixListen},
    listen::{AcceptLimits, UnixSocket, accept_tls, accept_unix, bind_unix},
    tls::ServerTls,
};
use seams::Clock;
use tokio::net::TcpListener;

use crate::{Offer, grpc, socket};

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key})")]
pub struct BindError {
    /// The key in the configuration.
    pub key: &'static str,
    /// The address or path.
    pub address: String,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Bound sockets that nobody serves yet.
pub struct Doors {
    unix: Option<UnixSocket>,
    tls: Option<TcpListener>,
    address: Option<SocketAddr>,
}

impl Doors {
    /// Binds those that are configured, each given with its key.
    ///
    /// # Errors
    /// [`BindError`] for the first that cannot be had; the other is free again.
    pub async fn bind(unix: Option<(&'static str, &UnixListen)>, tls: Option<(&'static str, SocketAddr)>) -> Result<Self, BindError> {
        let unix = match unix {
            Some((key, listen)) => {
                let failed = |source| BindError { key, address: listen.path.display().to_string(), source };
                Some(bind_unix(listen).map_err(failed)?)
            }
            None => None,
        };
        let (tls, address) = match tls {
            Some((key, address)) => {
                let (listener, bound) = bind_tcp(key, address).await?;
                (Some(listener), Some(bound))
            }
            None => (None, None),
        };
        Ok(Self { unix, tls, address })
    }

    /// Where the one over TLS listens; a port that the system chose is filled in.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Serves until the token of `tasks` is cancelled.
    pub fn open(self, offer: Offer, limits: &ConnectionLimits, tls: ServerTls, tasks: &TokioSpawn, clock: &Arc<dyn Clock>) {
        let accept = AcceptLimits::from(limits);
        let (service, routes) = offer.into_parts();
        if let Some(unix) = self.unix {
            let connections = socket::divide(accept_unix(unix, &accept, tasks), service, limits, tasks, clock);
            grpc::serve("lookups_unix", routes.clone(), limits, connections, tasks, Arc::clone(clock));
        }
        if let Some(listener) = self.tls {
            grpc::serve("lookups_tls", routes, limits, accept_tls(listener, tls, accept, tasks), tasks, Arc::clone(clock));
        }
    }
}

/// Binds a TCP address given by a key of the configuration: the listener, and where it listens.
///
/// # Errors
/// [`BindError`].
pub async fn bind_tcp(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError { key, address: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
