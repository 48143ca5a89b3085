//! The envelope that every answer comes in.

use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use types::Position;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};
use wire::{PublicError, v1};

use super::{
    codes::{self, Said},
    query::Query,
};
use crate::operations::lists::Listed;

/// At which position a change was made: see `docs/rest.md`.
const RECEIPT_HEADER: &str = "cinnabar-receipt";

/// What was asked for and was done.
pub(super) struct Answer<T> {
    status: StatusCode,
    result: T,
    info: Option<ResultInfo>,
    receipt: Option<Position>,
}

/// The result of what leaves nothing to show: null.
#[derive(Serialize)]
pub(super) struct Nothing;

impl PartialSchema for Nothing {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Null).description(Some("Nothing is shown.")).into()
    }
}

impl ToSchema for Nothing {}

/// Which part of a list this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ResultInfo {
    /// The page, counted from 1.
    pub(super) page: u64,
    /// Entries that a page has at most.
    pub(super) per_page: u64,
    /// Entries on this page.
    pub(super) count: u64,
    /// Entries on all pages.
    pub(super) total_count: u64,
    /// Pages.
    pub(super) total_pages: u64,
}

impl ResultInfo {
    /// Of a list.
    pub(super) fn of<T>(query: &Query, found: &Listed<T>) -> Self {
        let Query { page, per_page, .. } = *query;
        Self { page, per_page, count: found.items.len() as u64, total_count: found.total, total_pages: found.total.div_ceil(per_page) }
    }
}

/// What stands around every answer.
#[derive(Serialize, ToSchema)]
pub(super) struct Envelope<T> {
    /// Whether it was done. Agrees with the status.
    success: bool,
    /// Why not; empty where it was.
    errors: Vec<Said>,
    /// Nothing today.
    messages: Vec<Said>,
    /// What was asked for.
    result: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    result_info: Option<ResultInfo>,
}

impl<T> Answer<T> {
    /// A result.
    pub(super) fn of(result: T) -> Self {
        Self { status: StatusCode::OK, result, info: None, receipt: None }
    }

    /// With another status than 200.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Done at a position: its receipt, by which it can be awaited.
    pub(super) fn at(self, receipt: Option<v1::Receipt>) -> Self {
        Self { receipt: receipt.and_then(|receipt| receipt.position).map(Position::from), ..self }
    }

    /// As a part of a list.
    pub(super) fn page(self, info: ResultInfo) -> Self {
        Self { info: Some(info), ..self }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response<Body> {
        let envelope = Envelope { success: true, errors: Vec::new(), messages: Vec::new(), result: self.result, result_info: self.info };
        let mut response = respond(self.status, &envelope);
        let receipt = self.receipt.and_then(|receipt| HeaderValue::try_from(receipt.to_string()).ok());
        if let Some(receipt) = receipt {
            response.headers_mut().insert(RECEIPT_HEADER, receipt);
        }
        response
    }
}

/// What was not done, and why.
#[derive(Debug)]
pub(super) struct Failure {
    error: PublicError,
    said: Said,
    status: StatusCode,
}

impl Failure {
    /// As the table says it.
    pub(super) fn new(error: PublicError, said: codes::Row) -> Self {
        let status = StatusCode::from_u16(said.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let said = Said::new(said.code, said.message, &error.message);
        Self { error, said, status }
    }

    /// A route has this path, for other methods.
    pub(super) fn no_method(method: &Method) -> Self {
        let message = format!("{method} is not done here: docs/rest.md lists what is");
        Self::new(PublicError::new(wire::ErrorKind::InvalidArgument, message), codes::no_method())
    }

    /// No route has this path.
    pub(super) fn no_route(path: &str) -> Self {
        let error = PublicError::new(wire::ErrorKind::NotFound, format!("no route {path}: the paths are in docs/rest.md"));
        Self::new(error, codes::no_route(path))
    }
}

impl Failure {
    /// What `operation` refused, as the table calls it.
    pub(super) fn of(operation: &str, error: impl Into<PublicError>) -> Self {
        let error = error.into();
        let row = codes::row(operation, &error);
        Self::new(error, row)
    }
}

impl From<PublicError> for Failure {
    fn from(error: PublicError) -> Self {
        Self::of("", error)
    }
}

impl From<wire::parse::FieldError> for Failure {
    fn from(error: wire::parse::FieldError) -> Self {
        PublicError::from(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response<Body> {
        let retry_after = codes::retry_after(&self.error, self.status.as_u16());
        let envelope = Envelope { success: false, errors: vec![self.said], messages: Vec::new(), result: (), result_info: None };
        let mut response = respond(self.status, &envelope);
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        // The SDKs would send what was refused twice more, and what must not be sent again.
        if !codes::worth_retrying(&self.error) {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

/// An answer, whatever its envelope.
pub(super) fn respond(status: StatusCode, envelope: &impl Serialize) -> Response<Body> {
    // Of plain values: it cannot fail but for want of memory.
    let body = serde_json::to_vec(envelope).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
