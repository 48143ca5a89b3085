//! What an error is called: one table from the kind of an error and what it is about to status, code and message. Clients tell errors
//! apart by these; our own words stand beside them.

use serde::Serialize;
use utoipa::ToSchema;
use wire::{ErrorKind, PublicError};

/// One error, as clients read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Said {
    /// A number of Cloudflare's API.
    code: u32,
    /// The word that clients know it by, or what went wrong.
    message: String,
    /// What went wrong and what to do, in our words, where the message is a word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    error_chain: Vec<Detail>,
}

/// What stands behind an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Detail {
    /// As above.
    code: u32,
    /// In our words.
    message: String,
}

impl Said {
    pub(super) fn new(code: u32, message: String, detail: &str) -> Self {
        let error_chain = if message == detail { Vec::new() } else { vec![Detail { code, message: detail.to_owned() }] };
        Self { code, message, error_chain }
    }
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) status: u16,
    pub(super) code: u32,
    pub(super) message: String,
}

impl Row {
    fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

/// No route has this path, or an id in it cannot be one.
pub(super) fn no_route(path: &str) -> Row {
    let shown: String = path.chars().take(200).collect();
    Row::new(404, 7003, format!("Could not route to {shown}, perhaps your object identifier is invalid?"))
}

fn unknown_account() -> Row {
    Row::new(404, 7003, "Could not route to this account, perhaps your object identifier is invalid?")
}

fn not_found() -> Row {
    Row::new(404, 1000, "not_found")
}

/// What clients know one code for, whatever the reason; ours stands behind it.
fn not_bound() -> Row {
    Row::new(400, 10021, "secrets store binding authorization failed, check permissions and secret scopes")
}

/// A route has this path, for other methods.
pub(super) fn no_method() -> Row {
    Row::new(405, 10405, "Method not allowed")
}

/// The table: what `error` of `operation` is called.
pub(super) fn row(operation: &str, error: &PublicError) -> Row {
    use ErrorKind as K;
    let field = error.subject.rsplit('.').next().unwrap_or_default();
    let of_store = operation == "stores.create";
    let of_bind = operation == "bindings.bind";
    let of_secrets = matches!(operation, "secrets.create" | "secrets.duplicate");
    let empty = error.message.ends_with("is empty") || error.message.ends_with("is missing");
    match (error.kind, field) {
        // That the account is not there is said as everywhere.
        (K::NotFound | K::Denied | K::Precondition | K::ScopeNotAllowed, _) if of_bind && field != "account" => not_bound(),
        (K::InvalidArgument, "store" | "secret") if of_bind => not_bound(),
        (K::AlreadyExists, _) if of_bind => Row::new(409, 10021, error.message.clone()),
        (K::InvalidArgument, "kind" | "name") if operation == "bindings.unbind" => not_found(),
        (K::InvalidArgument, "name") if operation.starts_with("bindings.") => Row::new(400, 1001, error.message.clone()),
        // What anybody may ask about a token; a client takes any other answer for that of another kind of token.
        (K::Unauthenticated | K::Revoked, _) if operation == "tokens.verify" => Row::new(401, 1000, "Invalid API Token"),
        (K::InvalidArgument, "body") => Row::new(400, 1001, "invalid_json_body"),
        (K::InvalidArgument, "name") if of_store && empty => Row::new(400, 1001, "store_name_empty"),
        (K::InvalidArgument, "name") if of_store => Row::new(400, 1001, "store_name_invalid"),
        (K::InvalidArgument, "name") if empty => Row::new(400, 1001, "secret_name_empty"),
        (K::InvalidArgument, "name") => Row::new(400, 1001, "secret_name_invalid"),
        (K::InvalidArgument, "scopes") => Row::new(400, 1001, "secret_scopes_empty"),
        (K::InvalidArgument, field) if field.starts_with("scopes[") => Row::new(400, 1001, "secret_scope_invalid"),
        // What stands in a path and can be no id or name is nothing that there is.
        (K::InvalidArgument, "account") => unknown_account(),
        (K::InvalidArgument, "store") => Row::new(404, 1001, "store_not_found"),
        (K::InvalidArgument, "secret") => Row::new(404, 1001, "secret_not_found"),
        (K::InvalidArgument, field) if operation == "secrets.delete" && field.starts_with("secrets[") => {
            Row::new(404, 1001, "secret_not_found")
        }
        (K::InvalidArgument, "position") => not_found(),
        (K::InvalidArgument, "comment") => Row::new(400, 1001, "secret_comment_invalid"),
        (K::InvalidArgument | K::Level | K::Unsupported, _) => Row::new(400, 1001, error.message.clone()),
        (K::TooLarge, "") if operation.starts_with("secrets.") => Row::new(400, 1001, "secret_value_too_long"),
        (K::TooLarge, "value") => Row::new(400, 1001, "secret_value_too_long"),
        (K::TooLarge, _) => Row::new(413, 1001, error.message.clone()),
        (K::QuotaExceeded, _) if of_store => Row::new(400, 1003, "maximum_stores_exceeded"),
        (K::QuotaExceeded, _) if of_secrets => Row::new(400, 1003, format!("maximum_secrets_exceeded: max {}", error.subject)),
        (K::QuotaExceeded, _) => Row::new(400, 1003, error.message.clone()),
        (K::AlreadyExists, _) if of_store => Row::new(409, 1003, "store_name_already_exists"),
        (K::AlreadyExists, _) if of_secrets => Row::new(409, 1003, format!("secret_name_already_exists: {}", error.subject)),
        (K::AlreadyExists, _) => Row::new(409, 1003, error.message.clone()),
        (K::Precondition, _) if operation == "stores.delete" => Row::new(409, 1003, "store_not_empty"),
        (K::Precondition, _) if operation == "secrets.delete" => Row::new(409, 1003, "secret_in_use"),
        (K::Precondition | K::RequestReused, _) => Row::new(409, 1003, error.message.clone()),
        (K::NotFound, "account") => unknown_account(),
        (K::NotFound, "store") => Row::new(404, 1001, "store_not_found"),
        (K::NotFound, "secret") => Row::new(404, 1001, "secret_not_found"),
        (K::NotFound | K::NotBound | K::Absent, _) => not_found(),
        (K::Unauthenticated | K::Revoked, _) => Row::new(401, 10000, "Authentication error"),
        (K::Denied | K::ScopeNotAllowed, _) => Row::new(403, 9109, "Unauthorized to access requested resource"),
        (K::Busy, _) => Row::new(429, 971, "Please wait and consider throttling your request speed"),
        (K::Reseal | K::NotLeader | K::Unavailable | K::Locked | K::DeadlineExceeded | K::NotSynced | K::TooStale, _) => {
            Row::new(503, 1105, "service_unavailable")
        }
        (K::Internal, _) => Row::new(500, 1104, "internal_error"),
    }
}

/// Whether a client does well to send the same again.
pub(super) fn worth_retrying(error: &PublicError) -> bool {
    error.kind.retryable()
}

/// After how many seconds to try again, where that is worth saying.
pub(super) fn retry_after(error: &PublicError, status: u16) -> Option<u64> {
    let told = error.retry_after.map(|after| after.as_secs() + u64::from(after.subsec_nanos() > 0));
    told.or_else(|| matches!(status, 429 | 503).then_some(1))
}
