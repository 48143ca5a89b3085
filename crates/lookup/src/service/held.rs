//! Replies that hold their places until they have left.
//!
//! A handler is done when its reply is encoded, but the reply stays in memory until its reader has taken it. So the handler puts the place
//! into the reply's extensions, and [`HeldReplies`] moves it into the body, which is dropped when the last frame could be sent, or the
//! call was given up.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, Service, http},
    server::NamedService,
};

use super::places::Place;

/// What a reply holds.
#[derive(Clone)]
pub(super) struct Held(#[expect(dead_code, reason = "held for its drop")] Arc<Place>);

impl Held {
    pub(super) fn new(place: Place) -> Self {
        Self(Arc::new(place))
    }
}

/// A gRPC service whose replies hold the places of their bytes until they have left.
#[derive(Clone)]
pub struct HeldReplies<S>(pub(super) S);

impl<S: NamedService> NamedService for HeldReplies<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for HeldReplies<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let reply = self.0.call(request);
        Box::pin(async move {
            let (mut head, body) = reply.await?.into_parts();
            let body = match head.extensions.remove::<Held>() {
                Some(held) => Body::new(HeldBody { body, _held: held }),
                None => body,
            };
            Ok(http::Response::from_parts(head, body))
        })
    }
}

struct HeldBody {
    body: Body,
    _held: Held,
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
