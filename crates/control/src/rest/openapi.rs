//! The description of the routes, made from the code.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, header},
    response::IntoResponse,
    routing::get,
};
use utoipa::openapi::{
    Info, License, OpenApi, OpenApiBuilder, Server,
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use super::ROOT;
use crate::core::Core;

/// What is said of all routes.
pub(super) fn head() -> OpenApi {
    let mut info = Info::new("Cinnabar", env!("CARGO_PKG_VERSION"));
    info.description = Some("The Secrets Store as Cloudflare's clients know it, and some more: see docs/rest.md.".to_owned());
    info.license = Some(License::new("Apache-2.0"));
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = utoipa::openapi::ComponentsBuilder::new().security_scheme("token", token).build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new(ROOT)]))
        .components(Some(components))
        .security(Some([SecurityRequirement::new("token", [""; 0])]))
        .build()
}

/// As text.
pub(super) fn text(api: &OpenApi) -> String {
    // Of plain values: it cannot fail but for want of memory.
    api.to_pretty_json().map(|text| text + "\n").unwrap_or_default()
}

/// Serves it. It tells nothing of the cluster, so it is open.
pub(super) fn route(api: &OpenApi) -> OpenApiRouter<Arc<Core>> {
    let text: Arc<str> = text(api).into();
    let answer = move || {
        let text = text.to_string();
        async move { ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response() }
    };
    OpenApiRouter::new().route("/openapi.json", get(answer))
}
