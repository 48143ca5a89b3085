//! The door: who shows no valid token or node's certificate is turned away before the body of a call is read. Health alone is
//! open. Reflection stands behind the same door: the schema is no secret, but nothing answers strangers.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tonic::{
    Request, Status,
    codegen::http,
    service::{Interceptor, interceptor::InterceptedService},
};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower::{Layer, Service};
use wire::{ErrorKind, PublicError};

use crate::{
    call::{Call, bearer_hash},
    caller::Caller,
    core::Core,
};

/// Reflection, behind the door.
pub(crate) fn reflection(
    door: Door,
) -> Result<InterceptedService<ServerReflectionServer<impl ServerReflection>, Door>, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(wire::DESCRIPTORS).build_v1()?;
    Ok(InterceptedService::new(reflection, door))
}

/// Before the door: lets this node catch up with the cluster when a caller comes whose token it does not know. One that was made at
/// another node a moment ago is as good here. How many strangers may ask for that at once is bounded; the others find the door as it is.
#[derive(Clone)]
pub(crate) struct CatchUp {
    core: Arc<Core>,
    places: Arc<Semaphore>,
}

/// Strangers for whom a node catches up at once: all of them share one question to the leader.
const STRANGERS_MAX: usize = 64;

impl CatchUp {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, places: Arc::new(Semaphore::new(STRANGERS_MAX)) }
    }
}

impl<S> Layer<S> for CatchUp {
    type Service = CatchingUp<S>;

    fn layer(&self, inner: S) -> CatchingUp<S> {
        CatchingUp { before: self.clone(), inner }
    }
}

/// What [`CatchUp`] makes of a service.
#[derive(Clone)]
pub(crate) struct CatchingUp<S> {
    before: CatchUp,
    inner: S,
}

impl<S, B> Service<http::Request<B>> for CatchingUp<S>
where
    S: Service<http::Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // The one that was polled ready takes the call; its copy waits to be.
        let waiting = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, waiting);
        let core = self.before.core.clone();
        if !is_strange(&core, request.headers()) {
            return Box::pin(ready.call(request));
        }
        let place = self.before.places.clone().try_acquire_owned();
        Box::pin(async move {
            if place.is_ok() {
                // Whatever came of it, the door judges.
                let _ = core.newest().await;
            }
            drop(place);
            ready.call(request).await
        })
    }
}

/// Whether a token is shown that this node does not know, and another might.
fn is_strange(core: &Core, headers: &http::HeaderMap) -> bool {
    let leads = || core.consensus.status().leader == Some(core.node);
    let Some(hash) = headers.get("authorization").and_then(bearer_hash) else { return false };
    core.is_open() && matches!(core.consensus.local().operator_by_token(hash), Ok(None)) && !leads()
}

/// Lets pass who can be identified by this node's state. Each operation identifies its caller again, on the state it works with.
#[derive(Clone)]
pub(crate) struct Door(pub(crate) Arc<Core>);

impl Interceptor for Door {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let core = &self.0;
        let call = Call::of(core, &request);
        if !core.is_open() {
            return Err(waiting().with_request_id(call.origin.request).into());
        }
        Caller::identify(&core.consensus.local(), &call, core.now()).map_err(|error| error.with_request_id(call.origin.request.clone()))?;
        request.extensions_mut().insert(call);
        Ok(request)
    }
}

/// Lets pass once the node is up; who may come in is asked behind it.
#[derive(Clone)]
pub(crate) struct Opened(pub(crate) Arc<Core>);

impl Interceptor for Opened {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.0.is_open() { Ok(request) } else { Err(waiting().into()) }
    }
}

fn waiting() -> PublicError {
    PublicError::new(ErrorKind::Unavailable, "this control node is not ready yet: ask another one, or read its /readyz")
}
