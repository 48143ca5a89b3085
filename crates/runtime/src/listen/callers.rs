//! Who has made a call that was answered well, and so keeps its place: see [`places`](super::places).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tonic::codegen::http;
use tower::{Layer, Service};

use super::Peer;

/// The calls that count. What anybody may ask, such as the standard health service, does not.
const OWN_CALLS: &str = "/cinnabar.";
/// What a caller is known by, unless it is by its certificate.
const TOKEN: http::HeaderName = http::header::AUTHORIZATION;
/// Where gRPC says at once that a call has failed; the head of a good answer does not have it.
const STATUS: &str = "grpc-status";

/// A layer over the services of a door, outside of everything that judges calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepCallers;

impl<S> Layer<S> for KeepCallers {
    type Service = KeepingCallers<S>;

    fn layer(&self, inner: S) -> KeepingCallers<S> {
        KeepingCallers(inner)
    }
}

/// What [`KeepCallers`] makes of a service.
#[derive(Clone, Debug)]
pub struct KeepingCallers<S>(S);

impl<S, A, B> Service<http::Request<A>> for KeepingCallers<S>
where
    S: Service<http::Request<A>, Response = http::Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().filter(|_| request.uri().path().starts_with(OWN_CALLS)).cloned();
        // Only who still has to be told apart is looked at: one call of a connection.
        let token = peer.as_ref().filter(|peer| !peer.keeps_place()).and_then(|_| request.headers().get(TOKEN).cloned());
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(peer) = peer.filter(|_| answer.status().is_success() && !answer.headers().contains_key(STATUS)) {
                peer.keep_place_of(token.as_ref().map(|token| token.as_bytes()));
            }
            Ok(answer)
        })
    }
}
