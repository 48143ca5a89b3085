//! The description of the routes, made from the code.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, header},
    response::IntoResponse,
    routing::get,
};
use state::limits::ITEMS_MAX;
use utoipa::{
    PartialSchema,
    openapi::{
        Content, Info, License, OpenApi, OpenApiBuilder, Ref, RefOr, Response, Server,
        path::{Operation, PathItem},
        schema::Schema,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{ROOT, instant::Instant};
use crate::core::Core;

/// What is said of all routes.
pub(super) fn head() -> OpenApi {
    let mut info = Info::new("Cinnabar", env!("CARGO_PKG_VERSION"));
    info.description = Some("The Secrets Store as Cloudflare's clients know it, and some more: see docs/rest.md.".to_owned());
    info.license = Some(License::new("Apache-2.0"));
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    // Only parameters refer to it, which brings nothing along.
    let components = utoipa::openapi::ComponentsBuilder::new().schema("Instant", Instant::schema());
    let components = components.security_scheme("token", token).build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new(ROOT)]))
        .components(Some(components))
        .security(Some([SecurityRequirement::new("token", [""; 0])]))
        .build()
}

/// What any request may be told that is not done, and what those that change something may be told as well.
const REFUSED: [(&str, &str); 8] = [
    ("400", "It is not as this request needs it, or above a quota"),
    ("401", "Nobody knows who asks"),
    ("403", "It is not allowed"),
    ("404", "It is not there, or not for this token"),
    ("413", "The body is too large"),
    ("429", "Too much is asked for; `retry-after` says when to ask again"),
    ("500", "A defect of the node; its log says more"),
    ("503", "This node cannot know, or cannot do it now; `retry-after` says when to ask again"),
];
const CHANGE_REFUSED: (&str, &str) = ("409", "Something else stands in its way, and will when it is sent again");
/// The schema of an envelope without a result.
const REFUSAL: &str = "Envelope_Nothing";

/// Lists that a body may be, with how many entries at the most; none of them may be empty.
const LISTS: [(&str, usize); 3] = [("InKind_NewStore", 1), ("InKind_NewSecret", ITEMS_MAX), ("IdsInAnyForm", ITEMS_MAX)];

/// Says how long they are: of a variant the library takes no such words.
fn bound_lists(api: &mut OpenApi) {
    let Some(components) = &mut api.components else { return };
    for (name, most) in LISTS {
        let Some(RefOr::T(Schema::OneOf(forms))) = components.schemas.get_mut(name) else { continue };
        for form in &mut forms.items {
            if let RefOr::T(Schema::Array(list)) = form {
                (list.min_items, list.max_items) = (Some(1), Some(most));
            }
        }
    }
}

/// Adds what every operation answers when it is not done, and what else is the same for several.
pub(super) fn completed(mut api: OpenApi) -> OpenApi {
    bound_lists(&mut api);
    let mut names = REFUSED.to_vec();
    names.push(CHANGE_REFUSED);
    let components = api.components.get_or_insert_default();
    for (status, text) in names {
        let mut response = Response::new(text);
        let content = Content::new(Some(Ref::from_schema_name(REFUSAL)));
        response.content.insert("application/json".to_owned(), RefOr::T(content));
        components.responses.insert(format!("Refused{status}"), RefOr::T(response));
    }
    let name = |(status, _): (&str, &str)| (status.to_owned(), RefOr::Ref(Ref::from_response_name(format!("Refused{status}"))));
    for item in api.paths.paths.values_mut() {
        let PathItem { get, post, patch, delete, .. } = item;
        let refuse = |operation: &mut Operation, changes: bool| {
            for refusal in REFUSED.into_iter().chain(changes.then_some(CHANGE_REFUSED)) {
                let (status, response) = name(refusal);
                operation.responses.responses.entry(status).or_insert(response);
            }
        };
        get.iter_mut().for_each(|operation| refuse(operation, false));
        [post, patch, delete].into_iter().flatten().for_each(|operation| refuse(operation, true));
    }
    api
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
