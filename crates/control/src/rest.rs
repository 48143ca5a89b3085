//! REST under `/client/v4`, in the form that Cloudflare's clients know: see `docs/rest.md`.
//!
//! A request is labelled and its sender identified before its body is read (`ask.rs`); a handler makes the message of one operation of it
//! and shows what came back (`objects.rs`) in the envelope (`answer.rs`). What an error is called is said by one table (`codes.rs`). The
//! routes and their description (`openapi.rs`) are made from the same attributes.
//!
//! **Invariants**
//! 1. Every answer is an envelope, with a status that agrees with its `success`, and carries the request's id.
//! 2. A path that is no route is 404 with code 7003; what a node cannot know is never 404.
//! 3. No rule lives here: what is allowed, `operations` and `apply` say.
//!
//! **Failure**: bodies, queries and the time to send them are bounded; what is above is refused before it is parsed.

mod answer;
mod ask;
mod audit;
mod bindings;
mod body;
mod codes;
pub(crate) mod forms;
mod headers;
mod identity;
mod instant;
mod objects;
mod openapi;
mod query;
mod secrets;
mod stores;
mod versions;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Uri, header, uri::PathAndQuery},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Collected};
use tower::{Layer, ServiceExt};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::answer::Failure;
use crate::{call::Call, core::Core, door::CatchUp};

/// Where all of it lies.
pub(crate) const ROOT: &str = "/client/v4";

/// The routes, and what they are described by.
fn described() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(stores::list, stores::create))
        .routes(routes!(stores::show, stores::delete))
        .routes(routes!(secrets::list, secrets::create, secrets::delete_many))
        .routes(routes!(secrets::show, secrets::edit, secrets::delete))
        .routes(routes!(secrets::duplicate))
        .routes(routes!(identity::quota))
        .routes(routes!(identity::user))
        .routes(routes!(identity::verify))
        .routes(routes!(identity::accounts))
        .routes(routes!(identity::account))
        .routes(routes!(identity::memberships))
        .routes(routes!(audit::list))
        .routes(routes!(audit::history))
        .routes(routes!(audit::product_categories))
        .routes(routes!(audit::list_v1))
        .routes(routes!(versions::list))
        .routes(routes!(versions::rollback))
        .routes(routes!(versions::receipt))
        .routes(routes!(bindings::list, bindings::create))
        .routes(routes!(bindings::delete))
}

/// What answers under [`ROOT`], and whatever no other service has.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let (routes, api) = described().split_for_parts();
    let api = openapi::completed(api);
    let routes = Router::new()
        .nest(ROOT, routes.merge(openapi::route(&api)))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(core.clone(), labelled))
        .with_state(core);
    let plain = routes.clone();
    // Clients join a base and a path without a look at their slashes.
    Router::new().fallback(move |mut request: Request| {
        let (routes, plain) = (routes.clone(), plain.clone());
        async move {
            match joined(request.uri()) {
                Some(uri) => {
                    *request.uri_mut() = uri;
                    plain.oneshot(request).await
                }
                None => routes.oneshot(request).await,
            }
        }
    })
}

/// Answers a request that came by no connection.
pub(crate) type Answering = Arc<dyn Fn(http::Request<Bytes>) -> BoxFuture<'static, http::Response<Bytes>> + Send + Sync>;

/// What answers them, behind the same door.
pub(crate) fn answering(core: &Arc<Core>) -> Answering {
    let service = CatchUp(core.clone()).layer(router(core.clone()));
    Arc::new(move |request: http::Request<Bytes>| -> BoxFuture<'static, http::Response<Bytes>> {
        let service = service.clone();
        Box::pin(async move {
            let Ok(answer) = service.oneshot(request.map(Body::from)).await;
            let (head, body) = answer.into_parts();
            // It is all there already: it cannot break off.
            let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
            http::Response::from_parts(head, body)
        })
    })
}

/// The same address with single slashes; none where it has them already.
fn joined(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") {
        return None;
    }
    let mut single = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        single.push('/');
        single.push_str(part);
    }
    if path.ends_with('/') {
        single.push('/');
    }
    if let Some(query) = uri.query() {
        single.push('?');
        single.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(single).ok()?);
    Uri::from_parts(parts).ok()
}

/// Labels a request and its answer.
async fn labelled(State(core): State<Arc<Core>>, mut request: Request, next: Next) -> Response {
    let call = Call::of_rest(&core, &request);
    let label = HeaderValue::from_str(&call.origin.request).ok();
    request.extensions_mut().insert(call);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(label) = label {
        // Clients show the one in their messages.
        headers.insert("cf-ray", label.clone());
        headers.insert(wire::REQUEST_ID_METADATA, label);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn no_route(request: Request) -> Response {
    // A stranger to both protocols is told in the one that it speaks.
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if kind.starts_with(b"application/grpc") {
        return tonic::Status::unimplemented("").into_http::<axum::body::Body>();
    }
    Failure::no_route(request.uri().path()).into_response()
}

async fn no_method(request: Request) -> Response {
    Failure::no_method(request.method()).into_response()
}

#[cfg(test)]
mod tests;
