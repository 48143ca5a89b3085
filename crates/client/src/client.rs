//! The client, and the one loop in which every unary call is sent.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use types::RequestId;
use wire::{ErrorKind, PublicError, REQUEST_ID_METADATA};

use crate::{
    ClientError, Config, ConfigError, Retries, Token,
    connect::{self, Route},
    error::public,
    retry,
    trust::{self, Trust},
};

/// A client of one cluster: its control nodes, or one of its edges. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    timeout: Duration,
}

struct Shared {
    trust: Trust,
    /// How many servers the routes lead to.
    servers: usize,
    /// The server in use: the one that answered last. It is left when it fails.
    current: AtomicUsize,
    /// Which of its connections the next call takes.
    turn: AtomicUsize,
    token: Option<Token>,
    retries: Retries,
}

/// What a call is known by, and whether it may be sent again.
pub(crate) struct Ticket {
    /// 32 hex digits; empty when the system gave no randomness.
    id: String,
    repeatable: bool,
    /// Whether an answer may take long, so that a server that is silent is not left for that.
    patient: bool,
}

/// How long a server may be silent before a call that can be repeated goes to another one, if there is another: as long as an election
/// takes at most. A server that hangs, or is cut off from the others, looks alive to the transport.
const SILENCE_MAX: Duration = Duration::from_secs(3);

impl Ticket {
    /// For a call that changes nothing.
    pub(crate) fn read() -> Self {
        Self { id: fresh_id(), repeatable: true, patient: false }
    }

    /// For a call that changes nothing, or nothing when it is sent again, and whose answer may take long.
    pub(crate) fn patient() -> Self {
        Self { patient: true, ..Self::read() }
    }

    /// For a change: under the caller's request id, or under a fresh one, which is put into the request.
    pub(crate) fn change(request_id: &mut String) -> Self {
        if request_id.is_empty() {
            *request_id = fresh_id();
        }
        Self { id: request_id.clone(), repeatable: !request_id.is_empty(), patient: false }
    }

    /// For a change whose reply is shown only once: repeating it would bring a reply without the token. Only a caller who chose
    /// the request id knows what that means.
    pub(crate) fn once(request_id: &str) -> Self {
        if request_id.is_empty() {
            Self { id: fresh_id(), repeatable: false, patient: false }
        } else {
            Self { id: request_id.to_owned(), repeatable: true, patient: false }
        }
    }
}

fn fresh_id() -> String {
    retry::random().map_or_else(String::new, |bytes| RequestId::from_bytes(bytes).to_string())
}

impl Client {
    /// A client; it connects at its first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ConfigError`] when an address, certificate or key cannot be used.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let (token, timeout, retries, servers) = (config.token.clone(), config.timeout, config.retries, config.servers());
        let (every, trust) = (config.trust_asked_every, Trust::new(config)?);
        let (current, turn) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let client = Self { shared: Arc::new(Shared { trust, servers, current, turn, token, retries }), timeout };
        if let Some(every) = every {
            let shared = Arc::downgrade(&client.shared);
            tokio::spawn(trust::ask_every(every, move || Some(Self { shared: shared.upgrade()?, timeout })));
        }
        Ok(client)
    }

    /// The same client with another deadline for its calls.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        Self { shared: self.shared.clone(), timeout }
    }

    /// Sends `request` until it is answered, fails for good, or the time is over.
    pub(crate) async fn call<Q, A, F>(
        &self,
        call: &'static str,
        ticket: Ticket,
        request: Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut attempts = 0;
        loop {
            let (server, route) = self.route();
            let begun = Instant::now();
            // What can be sent again waits for one server only so long.
            let hurried = self.shared.servers > 1 && ticket.repeatable && !ticket.patient;
            let end = if hurried { deadline.min(begun + SILENCE_MAX) } else { deadline };
            let mut request = self.request(&ticket.id, request.clone());
            request.set_timeout(end.saturating_duration_since(begun));
            attempts += 1;
            let trace = |outcome: &str| {
                let (took, server, id) = (begun.elapsed(), &*route.server, &ticket.id);
                tracing::debug!(call, server, request = id, attempt = attempts, ?took, outcome, "called");
            };
            let (error, unsent) = match timeout_at(end, send(route.channel, request)).await {
                Ok(Ok(response)) => {
                    trace("ok");
                    self.note_trust(&response);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => (public(&status), connect::never_sent(&status)),
                Err(_) if end < deadline => (PublicError::new(ErrorKind::Unavailable, format!("no answer within {SILENCE_MAX:?}")), false),
                Err(_) => (self.overdue(), false),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            // The transport's own timer may win against ours by a hair, and calls it a cancellation.
            let error = if left.is_zero() && error.kind == ErrorKind::Unavailable { self.overdue() } else { error };
            trace(error.kind.name());
            if error.kind.retryable() {
                self.leave(server);
            }
            let random = retry::random().map_or(0, u64::from_le_bytes);
            match self.shared.retries.pause_after(&error, attempts, left, random).filter(|_| ticket.repeatable || unsent) {
                Some(pause) => retry::wait(pause).await,
                None => return Err(failure(call, &route.server, &ticket.id, error, attempts)),
            }
        }
    }

    /// Opens a stream, once, within the deadline.
    pub(crate) async fn open<Q, A, F>(
        &self,
        call: &'static str,
        request: Q,
        send: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<(A, Route), ClientError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let ticket = Ticket::read();
        let (server, route) = self.route();
        let opened = tokio::time::timeout(self.timeout, send(route.channel.clone(), self.request(&ticket.id, request))).await;
        let outcome = if matches!(opened, Ok(Ok(_))) { "open" } else { "failed" };
        tracing::debug!(call, server = &*route.server, request = ticket.id, outcome, "opened a stream");
        let error = match opened {
            Ok(Ok(response)) => {
                self.note_trust(&response);
                return Ok((response.into_inner(), route));
            }
            Ok(Err(status)) => public(&status),
            Err(_) => self.overdue(),
        };
        self.leave(server);
        Err(failure(call, &route.server, &ticket.id, error, 1))
    }

    /// The rule for repetitions, for streams that reopen themselves.
    pub(crate) fn retries(&self) -> Retries {
        self.shared.retries
    }

    /// The server in use, and a way to it. Its connections are taken in turn.
    fn route(&self) -> (usize, Route) {
        let Shared { trust, servers, current, turn, .. } = &*self.shared;
        let server = current.load(Ordering::Relaxed);
        trust.routes(|routes| {
            let connection = turn.fetch_add(1, Ordering::Relaxed) % (routes.len() / servers);
            // `connect::routes` makes at least one, and lists all servers for the first connection, then for the second.
            (server, routes[connection * servers + server].clone())
        })
    }

    /// Whom it believes.
    pub(crate) fn trust(&self) -> &Trust {
        &self.shared.trust
    }

    #[cfg(test)]
    pub(crate) fn server_in_use(&self) -> usize {
        self.shared.current.load(Ordering::Relaxed)
    }

    /// Goes on to the next server, unless another call has done so.
    fn leave(&self, server: usize) {
        let next = (server + 1) % self.shared.servers;
        let _ = self.shared.current.compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn request<Q>(&self, id: &str, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(token) = &self.shared.token
            && let Ok(mut bearer) = MetadataValue::<Ascii>::try_from(token.bearer().as_str())
        {
            // Kept out of the transport's Debug and out of its header compression table.
            bearer.set_sensitive(true);
            request.metadata_mut().insert("authorization", bearer);
        }
        if let Ok(id) = MetadataValue::try_from(id) {
            request.metadata_mut().insert(REQUEST_ID_METADATA, id);
        }
        request
    }

    fn overdue(&self) -> PublicError {
        PublicError::new(ErrorKind::DeadlineExceeded, format!("no answer within {:?}", self.timeout))
    }
}

/// The error with what is known on this side: the server's request id stands, else ours.
pub(crate) fn failure(call: &'static str, server: &str, id: &str, mut error: PublicError, attempts: u32) -> ClientError {
    if error.request_id.is_empty() {
        error.request_id = id.to_owned();
    }
    ClientError { call, server: server.to_owned(), error, attempts }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.trust().routes(|routes| routes.iter().map(|route| route.server.clone()).collect());
        f.debug_struct("Client").field("servers", &servers).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
