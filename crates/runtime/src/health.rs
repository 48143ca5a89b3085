//! `/livez`, `/readyz` and `/metrics` over plain HTTP/1, on loopback unless configured otherwise.
//!
//! Alive means that the process answers. Ready means that every named [`Check`] is: a load balancer sends work here only then.
//! Nothing else answers without credentials, so nothing here tells more than names of checks, their state, and numbers.
//!
//! **Invariants**
//! 1. A check starts as not ready, and no check is not ready either, so a server that forgets to set one is never taken for ready.
//! 2. Connections are bounded; what is over the bound waits in the kernel's queue.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

/// How each check stands.
type Checks = Arc<Mutex<BTreeMap<&'static str, Standing>>>;

#[derive(Debug)]
enum Standing {
    Ready,
    /// Ready, with a reason for people to look.
    Limited(String),
    NotReady(String),
}

/// The checks of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Checks);

/// One named condition for being ready.
#[derive(Clone, Debug)]
pub struct Check {
    name: &'static str,
    checks: Checks,
}

impl Readiness {
    /// No checks yet, and so not ready: the port may answer before the server has said what there is to check.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that is not ready yet.
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check { name, checks: self.0.clone() };
        check.not_ready("starting");
        check
    }

    /// Whether there is a check, and every check is ready.
    pub fn is_ready(&self) -> bool {
        let checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !checks.is_empty() && !checks.values().any(|standing| matches!(standing, Standing::NotReady(_)))
    }

    /// One line per check, in the order of names: `[+] disk ready`, `[!] feed ready, but reason`, or `[-] feed not ready: reason`.
    pub fn report(&self) -> String {
        let checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = String::new();
        for (name, standing) in checks.iter() {
            // Writing to a String does not fail.
            let _ = match standing {
                Standing::Ready => writeln!(lines, "[+] {name} ready"),
                Standing::Limited(reason) => writeln!(lines, "[!] {name} ready, but {reason}"),
                Standing::NotReady(reason) => writeln!(lines, "[-] {name} not ready: {reason}"),
            };
        }
        lines
    }
}

impl Check {
    /// The condition holds.
    pub fn ready(&self) {
        self.set(Standing::Ready);
    }

    /// The condition holds, and a person should look. The reason is shown to anybody.
    pub fn limited(&self, reason: impl Into<String>) {
        self.set(Standing::Limited(reason.into()));
    }

    /// The condition does not hold. The reason is shown to anybody: no names of secrets or stores.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Standing::NotReady(reason.into()));
    }

    fn set(&self, standing: Standing) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name, standing);
    }
}

/// Connections at a time: a scraper, a probe or two, and a person.
const CONNECTIONS_MAX: usize = 32;

/// A connection may take so long in all: who holds one and says nothing, or reads nothing, must not shut out whoever asks whether the server
/// lives. A scraper that keeps its connection opens another.
const CONNECTION_WITHIN: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

/// How often samples are folded into histograms when nobody scrapes.
const FOLD_INTERVAL: Duration = Duration::from_secs(5);

/// Serves until `cancel` is cancelled, then ends what is open.
///
/// # Errors
/// As of the operating system, when the listener fails.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: Metrics, cancel: CancellationToken) -> io::Result<()> {
    let listener = Bounded { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    let router = router(readiness, metrics.clone());
    let served = cancel.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(served.cancelled_owned());
    tokio::select! {
        biased;
        ended = serving.into_future() => ended,
        () = metrics.fold_regularly(FOLD_INTERVAL) => Ok(()),
    }
}

/// The routes; apart from [`serve`] for servers that mount them elsewhere.
pub fn router(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .with_state((readiness, metrics))
}

async fn readyz(State((readiness, _)): State<(Readiness, Metrics)>) -> impl IntoResponse {
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, readiness.report())
}

async fn render_metrics(State((_, metrics)): State<(Readiness, Metrics)>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}

/// A listener that accepts while there are places.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        // The semaphore is never closed; waiting for ever would be the right answer if it were.
        let Ok(place) = self.places.clone().acquire_owned().await else { std::future::pending().await };
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        (Placed { stream, end: deadline(), _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its place and its end.
struct Placed {
    stream: TcpStream,
    end: Pin<Box<tokio::time::Sleep>>,
    _place: OwnedSemaphorePermit,
}

#[expect(clippy::disallowed_methods, reason = "the health door exists only in the real world")]
fn deadline() -> Pin<Box<tokio::time::Sleep>> {
    Box::pin(tokio::time::sleep(CONNECTION_WITHIN))
}

impl Placed {
    /// Whether its time is over. Wakes when it is.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.end.is_elapsed() || self.end.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::telemetry::init_metrics;

    async fn request(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn health_answers_while_more_connections_than_there_are_places_say_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Readiness::new(), init_metrics().unwrap(), CancellationToken::new()));
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(request(address, "/livez").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn health_is_ready_only_when_every_check_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, cancel) = (Readiness::new(), CancellationToken::new());
        let server = tokio::spawn(serve(listener, readiness.clone(), init_metrics().unwrap(), cancel.clone()));

        assert!(request(address, "/readyz").await.starts_with("HTTP/1.1 503"), "nothing to check yet");
        let (disk, feed) = (readiness.check("disk"), readiness.check("feed"));
        assert!(request(address, "/livez").await.starts_with("HTTP/1.1 200"));
        disk.ready();
        let answer = request(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("[+] disk ready\n[-] feed not ready: starting\n"), "{answer}");
        feed.ready();
        assert!(request(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        feed.not_ready("not synced yet");
        assert!(request(address, "/readyz").await.contains("feed not ready: not synced yet"));
        metrics::counter!("cinnabar_health_test_total").increment(2);
        assert!(request(address, "/metrics").await.contains("cinnabar_health_test_total 2"));
        assert!(request(address, "/secrets").await.starts_with("HTTP/1.1 404"));

        cancel.cancel();
        server.await.unwrap().unwrap();
    }
}
