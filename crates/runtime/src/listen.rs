//! Accepting connections: TLS over TCP and UNIX sockets, as streams that tonic serves.
//!
//! An accept loop takes a connection, and for TLS finishes its handshake in a task of its own, so that a slow client holds up
//! nobody. What comes out is a [`Connection`] that knows its [`Peer`]; tonic puts the peer into the extensions of each request
//! on it, so identity is established once per connection.
//!
//! Who has made no call yet that was answered well is a stranger, and loses its place to a newcomer when all are taken; [`KeepCallers`]
//! tells the others apart. Of those, whoever holds far more places than others gives one.
//!
//! **Invariants**
//! 1. Open connections, handshakes in progress and finished ones that nobody took yet are bounded by [`AcceptLimits`], and by the
//!    descriptors that the process may open.
//! 2. A connection that is handed out over TLS has ended its handshake, and its certificate, if any, names exactly one identity.
//!
//! **Concurrency**: the loop ends when the token is cancelled or the stream is dropped; open connections go on.
//!
//! **Failure**: a table full of callers closes the new connection at once, so that its client tries elsewhere. An error of `accept`
//! (such as too many open files) costs the oldest stranger its place, and is tried again after 100 ms: an overload must not end a server.

mod callers;
mod connection;
mod places;
mod unix;

use std::{io, time::Duration};

use seams::Spawn;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

pub use callers::{KeepCallers, KeepingCallers};
pub use connection::{Connection, Peer, TlsConnection, UnixConnection};
pub use unix::{UnixSocket, accept_unix, bind_unix, unix_channel};

pub use self::places::network;
use self::places::{Holder, Place, Places};
use crate::{TokioSpawn, config::ConnectionLimits, tls::ServerTls};

/// What an accept loop holds at most.
#[derive(Clone, Debug)]
pub struct AcceptLimits {
    /// Open connections; one more takes the place of the oldest that has made no good call, or is closed at once where there is none.
    pub connections_max: usize,
    /// TLS handshakes in progress; one more takes the place of the oldest, once that has lasted a second.
    pub handshakes_max: usize,
    /// A handshake that takes longer is dropped.
    pub handshake_timeout: Duration,
}

impl From<&ConnectionLimits> for AcceptLimits {
    fn from(limits: &ConnectionLimits) -> Self {
        Self { connections_max: limits.connections_max, handshakes_max: limits.handshakes_max, handshake_timeout: limits.handshake_timeout }
    }
}

/// Finished connections that tonic has not taken yet. It takes them at once; the bound only has to exist.
const READY_MAX: usize = 64;

/// How long to wait after `accept` failed: as long as it may take until a connection ends and frees its file.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts TLS connections until the token of `tasks` is cancelled.
pub fn accept_tls(
    listener: TcpListener,
    tls: ServerTls,
    limits: AcceptLimits,
    tasks: &TokioSpawn,
) -> ReceiverStream<io::Result<TlsConnection>> {
    let (ready, taken) = mpsc::channel(READY_MAX);
    let places = Places::new(&limits);
    let (cancel, handshakes) = (tasks.token().child_token(), tasks.clone());
    tasks.spawn(
        "accept_tls",
        Box::pin(async move {
            while let Some((stream, address, place)) = next_tcp(&listener, &places, &cancel).await {
                let (tls, ready, timeout, ending) = (tls.clone(), ready.clone(), limits.handshake_timeout, cancel.clone());
                handshakes.spawn(
                    "handshake",
                    Box::pin(async move {
                        let displaced = place.cut().clone();
                        let finished =
                            displaced.run_until_cancelled(tokio::time::timeout(timeout, handshake(stream, &tls, address, place)));
                        // A server that ends waits for no stranger's handshake.
                        match ending.run_until_cancelled(finished).await.flatten() {
                            // The receiver is gone when the server has ended: nobody is left to serve the connection.
                            Some(Ok(Ok(connection))) => drop(ending.run_until_cancelled(ready.send(Ok(connection))).await),
                            Some(Ok(Err(error))) => refused("handshake", &address, &error),
                            Some(Err(_)) => refused("handshake", &address, &io::Error::from(io::ErrorKind::TimedOut)),
                            None => {}
                        }
                    }),
                );
            }
        }),
    );
    ReceiverStream::new(taken)
}

async fn handshake(stream: TcpStream, tls: &ServerTls, address: std::net::SocketAddr, place: Place) -> io::Result<TlsConnection> {
    stream.set_nodelay(true)?;
    stream.readable().await?;
    place.begin().await;
    let stream = tls.acceptor().accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let met = tls.met(certificates).map_err(io::Error::other)?;
    let (certificate, dropped) = met.map_or((None, None), |met| (Some(met.certificate), met.dropped));
    place.greeted();
    Ok(Connection::new(stream, Peer::tls(address, certificate, place.keep()), place).dropped_by(dropped))
}

/// One line per refused connection at debug only: strangers must not fill the log. The count is for alarms.
fn refused(at: &'static str, address: &dyn std::fmt::Display, error: &io::Error) {
    metrics::counter!("cinnabar_connections_refused_total", "at" => at).increment(1);
    tracing::debug!(at, peer = %address, %error, "connection refused");
}

/// The next TCP connection for which there is a place; none once cancelled.
async fn next_tcp(listener: &TcpListener, places: &Places, cancel: &CancellationToken) -> Option<(TcpStream, std::net::SocketAddr, Place)> {
    loop {
        let (stream, address) = retried(cancel, places, || listener.accept()).await?;
        match cancel.run_until_cancelled(places.admit(Holder::at(address))).await? {
            Some(place) => return Some((stream, address, place)),
            None => refused("full", &address, &io::Error::other("all places are taken")),
        }
    }
}

/// Calls `accept` until it gives a connection; none once cancelled.
#[expect(clippy::disallowed_methods, reason = "a listener exists only in the real world")]
async fn retried<T, F: Future<Output = io::Result<T>>>(cancel: &CancellationToken, places: &Places, accept: impl Fn() -> F) -> Option<T> {
    loop {
        match cancel.run_until_cancelled(accept()).await? {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                places.make_room();
                tracing::warn!(%error, "accepting a connection failed; trying again");
                cancel.run_until_cancelled(tokio::time::sleep(ACCEPT_RETRY)).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
