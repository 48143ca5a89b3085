//! The door: who shows no valid token or node's certificate is turned away before the body of a call is read. Health alone is
//! open. Reflection stands behind the same door: the schema is no secret, but nothing answers strangers.

use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use runtime::listen::Peer;
use tonic::{
    Request, Status,
    codegen::http,
    service::{Interceptor, interceptor::InterceptedService},
};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower::{Layer, Service};
use wire::{ErrorKind, PublicError};

use crate::{
    audit::Notes,
    call::{Call, shown_token},
    caller::{Caller, token_in_force},
    core::Core,
};

/// Reflection, behind the door.
pub(crate) fn reflection(
    door: Door,
) -> Result<InterceptedService<ServerReflectionServer<impl ServerReflection>, Door>, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(wire::DESCRIPTORS).build_v1()?;
    Ok(InterceptedService::new(reflection, door))
}

/// Before anybody is judged: what it costs to show a token that this node does not know. It may have been made at another node a moment
/// ago, and then it is as good here, so this node catches up with the cluster; how often it does so for whom is limited
/// ([`Limits`](crate::limits::Limits)), and beyond that the stranger is told to wait.
///
/// A token that has expired takes the same way as one that never was, so that the time until the refusal does not tell them apart.
pub(crate) async fn meet(core: &Core, headers: &http::HeaderMap, from: Option<IpAddr>) -> Result<(), PublicError> {
    let Some(token) = stranger(core, headers) else { return Ok(()) };
    core.limits.stranger(from)?;
    let leads = core.consensus.status().leader == Some(core.node);
    if !leads
        && token.is_some()
        && let Some(_place) = core.limits.place_to_ask()
    {
        // Whatever came of it, the door judges.
        let _ = core.newest().await;
    }
    if stranger(core, headers).is_some() {
        metrics::counter!("cinnabar_control_failed_logins_total").increment(1);
    }
    Ok(())
}

/// What is shown as a token and is none, as far as this node knows: its hash, where it has the form of one.
fn stranger(core: &Core, headers: &http::HeaderMap) -> Option<Option<[u8; 32]>> {
    let shown = shown_token(headers).filter(|_| core.is_open())?;
    let known = |hash| !matches!(token_in_force(&core.consensus.local(), &hash, core.now()), Ok(None));
    (!shown.is_some_and(known)).then_some(shown)
}

/// [`meet`], before all services. Those that ask for no token pay no heed to what it says.
#[derive(Clone)]
pub(crate) struct CatchUp(pub(crate) Arc<Core>);

/// What a stranger is told who has to wait.
#[derive(Clone)]
struct Refused(PublicError);

impl<S> Layer<S> for CatchUp {
    type Service = CatchingUp<S>;

    fn layer(&self, inner: S) -> CatchingUp<S> {
        CatchingUp { core: self.0.clone(), inner }
    }
}

/// What [`CatchUp`] makes of a service.
#[derive(Clone)]
pub(crate) struct CatchingUp<S> {
    core: Arc<Core>,
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

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // The one that was polled ready takes the call; its copy waits to be.
        let waiting = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, waiting);
        let core = self.core.clone();
        if stranger(&core, request.headers()).is_none() {
            return Box::pin(ready.call(request));
        }
        let headers = request.headers().clone();
        let from = request.extensions().get::<Peer>().and_then(Peer::address).map(|address| address.ip());
        Box::pin(async move {
            if let Err(error) = meet(&core, &headers, from).await {
                request.extensions_mut().insert(Refused(error));
            }
            ready.call(request).await
        })
    }
}

/// Lets pass who can be identified by this node's state. Each operation identifies its caller again, on the state it works with.
#[derive(Clone)]
pub(crate) struct Door(pub(crate) Arc<Core>);

impl Interceptor for Door {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let core = &self.0;
        let call = Call::of(core, &request);
        admit(core, &call, request.extensions()).map_err(|error| error.with_request_id(call.origin.request.clone()))?;
        request.extensions_mut().insert(call);
        Ok(request)
    }
}

/// Lets pass a call whose sender this node's state knows, once the node is up.
pub(crate) fn admit(core: &Core, call: &Call, met: &http::Extensions) -> Result<(), PublicError> {
    if !core.is_open() {
        return Err(waiting());
    }
    if let Some(Refused(error)) = met.get::<Refused>() {
        return Err(error.clone());
    }
    let known = Caller::identify(&core.consensus.local(), call, core.now()).map(drop);
    // Of a token that has ended one knows whose it was; of strangers nothing is noted.
    known.inspect_err(|error| Notes::refused(core, call, "door", error))
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
