//! The lookup path over gRPC: `Get`, `GetMany`, `Watch` and the pipelined `Stream`; and the last in frames of our own (`frames.rs`).
//!
//! The server that mounts [`Service`] puts a [`Connection`] into each request's extensions; the rest of a credential is the request's own
//! `authorization` metadata. `Stream` has no task and no channel of its own: the reply stream pulls the request stream, so what is in
//! flight is bounded by HTTP/2's windows, and replies that are ready together leave in one frame. A unary reply has no such bound: it is
//! whole in memory until its reader takes it, so its bytes are counted (`held.rs`).
//!
//! Places are taken by callers that the present root knows, and one caller gets a quarter of them at most (`places.rs`).
//!
//! **Failure**: a refused lookup fails a unary call, and is an outcome in the others. While draining, streams end with "unavailable".

mod frames;
mod held;
mod pipeline;
mod places;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use types::{ConsumerRef, NodeName};
use wire::{
    ErrorKind,
    parse::{ConsumerTarget, FieldError, GetManyTarget, GetTarget, WantedTarget},
    v1,
};

pub use self::{frames::FrameLimits, held::HeldReplies};
use self::{
    held::Held,
    pipeline::{Asking, Pipeline},
    places::{Holder, Place, Places},
};
use crate::{Authenticator, Caller, Credential, Found, Lookup, LookupError, Watch, credential::Label};

/// The largest request: 256 names of the longest kind, with room. Decoding comes before authentication, so a stranger may make a node
/// hold this much.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// What a reply weighs on top of its values.
const REPLY_WEIGHT: usize = 1024;

/// Bounds of the service. One caller gets a quarter of each at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Open watches; one more is answered "busy".
    pub watches_max: usize,
    /// Open lookup streams; one more is answered "busy".
    pub streams_max: usize,
    /// Bytes of unary replies that their readers have not taken yet; a reply more is answered "busy" instead.
    pub reply_bytes_max: usize,
    /// Lookups of one stream that wait for a position at a time; while there are more, the stream is not read.
    pub stream_waiting_max: usize,
    /// How long a lookup waits for its `min_position` when the call has no deadline of its own.
    pub patience: Duration,
    /// How long it waits at the most, whatever the call's deadline.
    pub patience_max: Duration,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            watches_max: 4096,
            streams_max: 1024,
            // Two replies of the largest size for one caller.
            reply_bytes_max: 136 << 20,
            stream_waiting_max: 64,
            patience: Duration::from_secs(1),
            patience_max: Duration::from_secs(30),
        }
    }
}

/// The gRPC service. Clones share everything.
#[derive(Clone)]
pub struct Service {
    lookup: Arc<Lookup>,
    authenticator: Arc<Authenticator>,
    node: NodeName,
    options: ServiceOptions,
    watches: Arc<Places>,
    streams: Arc<Places>,
    reply_bytes: Arc<Places>,
    /// Labels given to calls that came without one.
    labels: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Service {
    /// Serves `lookup` as the edge `node`, until `stop` is cancelled.
    pub fn new(
        lookup: Arc<Lookup>,
        authenticator: Authenticator,
        node: NodeName,
        options: ServiceOptions,
        stop: CancellationToken,
    ) -> Self {
        Self {
            lookup,
            authenticator: Arc::new(authenticator),
            node,
            watches: Places::new("watches", options.watches_max),
            streams: Places::new("lookup streams", options.streams_max),
            reply_bytes: Places::new("bytes of replies", options.reply_bytes_max),
            options,
            labels: Arc::new(AtomicU64::new(1)),
            stop,
        }
    }

    /// The service for tonic's router.
    pub fn into_server(self) -> HeldReplies<v1::lookup_server::LookupServer<Self>> {
        HeldReplies(v1::lookup_server::LookupServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX))
    }

    /// Who calls, as far as the credential says. A refusal counts.
    fn caller(&self, credential: &Credential, consumer: Option<ConsumerTarget>) -> Result<Caller, LookupError> {
        credential.caller(&self.authenticator, consumer).map_err(|error| self.lookup.refused(error))
    }

    /// The failure of a call, under the label that it came with, or gets here; by it the log finds the call.
    fn status(&self, call: &'static str, label: Option<String>, error: &LookupError) -> Status {
        let request = label.unwrap_or_else(|| format!("{}-{}", self.node, self.labels.fetch_add(1, Ordering::Relaxed)));
        let public = error.public();
        // What callers do wrong is theirs to see, and could fill a log; it is counted.
        if public.kind == ErrorKind::Internal {
            tracing::error!(node = %self.node, call, request, %error, "a lookup failed by a fault of this node");
        } else {
            tracing::debug!(node = %self.node, call, request, kind = public.kind.name(), "a lookup was refused");
        }
        public.with_request_id(request).into()
    }

    /// A reply that counts by the bytes of the values in it until it has left.
    fn held<T>(&self, caller: &Caller, values: usize, reply: impl FnOnce() -> T) -> Result<Response<T>, LookupError> {
        let place = self.reply_bytes.take(Holder::Consumer(self.known(caller)?), REPLY_WEIGHT + values)?;
        let mut response = Response::new(reply());
        response.extensions_mut().insert(Held::new(place));
        Ok(response)
    }

    /// Whom the caller stands for in the present root.
    fn known(&self, caller: &Caller) -> Result<ConsumerRef, LookupError> {
        self.lookup.whoami(caller).map(|(consumer, _)| consumer)
    }

    fn found(&self, found: &Found) -> v1::Found {
        v1::Found {
            // The one copy of a plaintext: the message owns it until prost has encoded it (P2's named exception).
            value: found.value.expose().to_vec(),
            version: found.version.get(),
            position: Some(found.position.into()),
            age_ms: found.age.millis(),
            edge: self.node.to_string(),
        }
    }

    fn outcome(&self, outcome: Result<Found, LookupError>) -> v1::Outcome {
        outcome.map(|found| self.found(&found)).map_err(|error| error.public()).into()
    }

    async fn one(&self, credential: Credential, request: v1::GetRequest) -> Result<Response<v1::Found>, LookupError> {
        let get = GetTarget::try_from(request).map_err(|error| self.lookup.refused(error))?;
        let caller = self.caller(&credential, get.consumer)?;
        self.lookup.ready(get.freshness, credential.patience(&self.options)).await;
        let found = self.lookup.fetch(&caller, &get.wanted, get.freshness).await?;
        self.held(&caller, found.value.expose().len(), || self.found(&found))
    }

    async fn many(&self, credential: Credential, request: v1::GetManyRequest) -> Result<Response<v1::GetManyReply>, LookupError> {
        let many = GetManyTarget::try_from(request).map_err(|error| self.lookup.refused(error))?;
        let caller = self.caller(&credential, many.consumer)?;
        self.lookup.ready(many.freshness, credential.patience(&self.options)).await;
        let good: Vec<_> = many.wanted.iter().filter_map(|wanted| wanted.as_ref().ok().cloned()).collect();
        let found = self.lookup.fetch_many(&caller, &good, many.freshness).await;
        if found.iter().all(Result::is_err) {
            // Nothing of size. But whom the root does not know gets no good answer: by those a connection keeps its place.
            self.known(&caller).map_err(|error| self.lookup.refused(error))?;
            return Ok(Response::new(self.reply(many.wanted, found)));
        }
        let values = found.iter().flatten().map(|found| found.value.expose().len()).sum();
        self.held(&caller, values, || self.reply(many.wanted, found))
    }

    /// Outcomes in the order of what was asked, of which only what could be read was looked up.
    fn reply(&self, wanted: Vec<Result<WantedTarget, FieldError>>, found: Vec<Result<Found, LookupError>>) -> v1::GetManyReply {
        let mut found = found.into_iter();
        let outcomes = wanted.into_iter().filter_map(|wanted| match wanted {
            Ok(_) => found.next().map(|outcome| self.outcome(outcome)),
            Err(error) => Some(self.outcome(Err(self.lookup.refused(error)))),
        });
        v1::GetManyReply { outcomes: outcomes.collect() }
    }

    fn begin_watch(&self, credential: &Credential, request: v1::GetRequest) -> Result<Watching, LookupError> {
        let get = GetTarget::try_from(request).map_err(|error| self.lookup.refused(error))?;
        let caller = self.caller(credential, get.consumer)?;
        let known = self.known(&caller).map_err(|error| self.lookup.refused(error))?;
        let place = self.watches.take(Holder::Consumer(known), 1)?;
        let watch = Watch::new(Arc::clone(&self.lookup), caller, get.wanted, get.freshness);
        Ok(Watching { service: self.clone(), watch, ended: false, _place: place })
    }

    fn begin_stream(&self, credential: Credential, requests: Streaming<v1::StreamRequest>) -> Result<Pipeline, LookupError> {
        let place = self.stream_place(&credential)?;
        Ok(Pipeline { asking: Asking::new(self.clone(), credential), requests, ended: false, _place: place })
    }

    /// A place among the open streams, for whom the credential stands for in the present root.
    fn stream_place(&self, credential: &Credential) -> Result<Place, LookupError> {
        let holder = match credential.caller(&self.authenticator, None) {
            Ok(caller) => Holder::Consumer(self.known(&caller).map_err(|error| self.lookup.refused(error))?),
            // Each request says as whom.
            Err(LookupError::PeerAmbiguous { uid }) => Holder::Uid(uid),
            Err(error) => return Err(self.lookup.refused(error)),
        };
        self.streams.take(holder, 1)
    }
}

/// One open watch.
struct Watching {
    service: Service,
    watch: Watch,
    ended: bool,
    _place: Place,
}

impl Watching {
    /// The next reply, and the watch after it. After an error that no change mends, the stream ends.
    async fn step(mut self) -> Option<(Result<v1::WatchReply, Status>, Self)> {
        if self.ended {
            return None;
        }
        let answer = tokio::select! {
            biased;
            () = self.service.stop.cancelled() => Err(LookupError::Stopping),
            answer = self.watch.next() => answer,
        };
        self.ended = answer.as_ref().is_err_and(LookupError::is_final);
        let reply = v1::WatchReply { outcome: Some(self.service.outcome(answer)) };
        Some((Ok(reply), self))
    }
}

#[tonic::async_trait]
impl v1::lookup_server::Lookup for Service {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Found>, Status> {
        let (credential, label) = (Credential::of(&request), Label::of(&request));
        self.one(credential, request.into_inner()).await.map_err(|error| self.status("get", label.text(), &error))
    }

    async fn get_many(&self, request: Request<v1::GetManyRequest>) -> Result<Response<v1::GetManyReply>, Status> {
        let (credential, label) = (Credential::of(&request), Label::of(&request));
        self.many(credential, request.into_inner()).await.map_err(|error| self.status("get_many", label.text(), &error))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchReply, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::GetRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (credential, label) = (Credential::of(&request), Label::of(&request));
        let begun = self.begin_watch(&credential, request.into_inner());
        let watching = begun.map_err(|error| self.status("watch", label.text(), &error))?;
        Ok(Response::new(Box::pin(stream::unfold(watching, Watching::step))))
    }

    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::StreamReply, Status>> + Send>>;

    async fn stream(&self, request: Request<Streaming<v1::StreamRequest>>) -> Result<Response<Self::StreamStream>, Status> {
        let (credential, label) = (Credential::of(&request), Label::of(&request));
        let begun = self.begin_stream(credential, request.into_inner());
        let pipeline = begun.map_err(|error| self.status("stream", label.text(), &error))?;
        Ok(Response::new(Box::pin(stream::unfold(pipeline, Pipeline::step))))
    }
}
