//! What answers show. Never a value: nothing here has a place for one.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};
use wire::v1;

/// A store.
#[derive(Serialize, ToSchema)]
pub(super) struct Store {
    /// 32 hex digits.
    id: String,
    name: String,
    account_id: String,
    /// RFC 3339, UTC.
    created: String,
    /// RFC 3339, UTC.
    modified: String,
}

impl From<v1::Store> for Store {
    fn from(store: v1::Store) -> Self {
        let (created, modified) = (time(store.created_ms), time(store.modified_ms));
        Self { id: store.id, name: store.name, account_id: store.account_id, created, modified }
    }
}

/// A secret, without its value, which nothing shows.
#[derive(Serialize, ToSchema)]
pub(super) struct Secret {
    /// 32 hex digits.
    id: String,
    store_id: String,
    name: String,
    /// `pending` until every edge holds its newest change, then `active`; `deleted` while it is cleared away.
    #[schema(value_type = String)]
    status: &'static str,
    /// Left out when none was ever given.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    comment: String,
    /// Sorted.
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<String>,
    /// RFC 3339, UTC.
    created: String,
    /// RFC 3339, UTC.
    modified: String,
    /// The number of its current version. Beyond Cloudflare's API.
    version: u64,
}

impl From<v1::Secret> for Secret {
    fn from(secret: v1::Secret) -> Self {
        let status = match secret.status() {
            v1::SecretStatus::Active => "active",
            v1::SecretStatus::Deleted => "deleted",
            v1::SecretStatus::Pending | v1::SecretStatus::Unspecified => "pending",
        };
        let mut scopes = secret.scopes;
        scopes.sort_unstable();
        Self {
            status,
            id: secret.id,
            store_id: secret.store_id,
            name: secret.name,
            comment: secret.comment,
            scopes,
            created: time(secret.created_ms),
            modified: time(secret.modified_ms),
            version: secret.current_version,
        }
    }
}

/// The name of a scope, for the description of the routes.
pub(super) enum ScopeName {}

impl PartialSchema for ScopeName {
    fn schema() -> RefOr<Schema> {
        // What guides write is taken too.
        let names = types::Scope::all().map(types::Scope::name).chain(["ai-gateway"]);
        ObjectBuilder::new().schema_type(Type::String).description(Some("Where a secret may be used.")).enum_values(Some(names)).into()
    }
}

impl ToSchema for ScopeName {}

/// RFC 3339, UTC, in thousandths of a second.
pub(super) fn time(ms: u64) -> String {
    // What a clock can say; past the year 9999 there is no such text.
    const LAST_MS: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS))).to_string()
}
