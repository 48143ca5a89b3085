//! Bindings: what lets a consumer read a secret. Beyond Cloudflare's API, where they come with the upload of a Worker.

use serde::{Deserialize, Serialize};
use types::ConsumerKind;
use utoipa::ToSchema;
use wire::{PublicError, parse::FieldError, v1};

use super::{
    answer::{Answer, Envelope, Failure, Nothing, ResultInfo},
    ask::Ask,
    body,
    objects::time,
};
use crate::operations::{self, lists, retries::Still};

/// Who may read.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct Consumer {
    /// `worker`, `gateway`, `dex`, `access`, `container` or `websearch`.
    #[schema(pattern = "^(worker|gateway|dex|access|container|websearch)$")]
    kind: String,
    #[serde(default)]
    #[schema(required = true, max_length = 255, pattern = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    name: String,
}

/// A binding to be made.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewBinding {
    consumer: Consumer,
    /// What the consumer calls it, once among its bindings.
    #[serde(default)]
    #[schema(required = true, max_length = 255, pattern = "^[A-Za-z_$][A-Za-z0-9_$]*$")]
    name: String,
    /// The store: its id, or its name.
    #[serde(default)]
    #[schema(required = true, min_length = 1)]
    store_id: String,
    /// The secret: its name, or its id. The whole store if left out.
    #[schema(min_length = 1)]
    secret_name: Option<String>,
}

/// A binding.
#[derive(Serialize, ToSchema)]
pub(super) struct Binding {
    consumer: Consumer,
    name: String,
    store_id: String,
    store_name: String,
    /// Empty for a whole store.
    secret_id: String,
    /// Empty for a whole store.
    secret_name: String,
    /// RFC 3339, UTC.
    created: String,
    /// Whether what it names is gone; then it reads nothing.
    target_deleted: bool,
}

impl Consumer {
    fn parse(self, account: String) -> Result<v1::ConsumerRef, FieldError> {
        let kind: ConsumerKind = self.kind.parse().map_err(|error| FieldError::new("consumer.kind", error))?;
        Ok(v1::ConsumerRef { account, kind: v1::ConsumerKind::from(kind).into(), name: self.name })
    }
}

impl From<v1::Binding> for Binding {
    fn from(binding: v1::Binding) -> Self {
        let kind = wire::parse::consumer_kind("kind", binding.consumer_kind).map(|kind| kind.name().to_owned()).unwrap_or_default();
        Self {
            consumer: Consumer { kind, name: binding.consumer_name },
            name: binding.name,
            store_id: binding.store_id,
            store_name: binding.store_name,
            secret_id: binding.secret_id,
            secret_name: binding.secret_name,
            created: time(binding.created_ms),
            target_deleted: binding.target_deleted,
        }
    }
}

/// Lists bindings of an account, or of one consumer.
#[utoipa::path(
    get, path = "/accounts/{account_id}/secrets_store/bindings", tag = "beyond Cloudflare",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        (
            "consumer" = Option<String>, Query, pattern = "^(worker|gateway|dex|access|container|websearch)/[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
            description = "KIND/NAME, such as worker/shop",
        ),
        ("page" = Option<u64>, Query, description = "From 1"),
        ("per_page" = Option<u64>, Query, description = "20 if not said, at most 100"),
    ),
    responses((status = 200, body = Envelope<Vec<Binding>>)),
)]
pub(super) async fn list(ask: Ask) -> Result<Answer<Vec<Binding>>, Failure> {
    let account = ask.param("account_id");
    let consumer = ask.query.get("consumer").map(|text| consumer_of(text, account.clone())).transpose()?;
    let wanted = lists::Bindings { account, consumer, window: ask.window()? };
    let found = ask.read("bindings.list", wanted, lists::bindings).await?;
    let info = ResultInfo::of(&ask.query, &found);
    Ok(Answer::of(found.items.into_iter().map(Binding::from).collect()).page(info))
}

/// A consumer, as a query names it.
pub(super) fn consumer_of(text: &str, account: String) -> Result<v1::ConsumerRef, FieldError> {
    let (kind, name) = text.split_once('/').ok_or_else(|| FieldError::new("consumer", "must be KIND/NAME"))?;
    Consumer { kind: kind.to_owned(), name: name.to_owned() }.parse(account)
}

/// Lets a consumer read a secret, or every secret of a store that its kind may read.
#[utoipa::path(
    post, path = "/accounts/{account_id}/secrets_store/bindings", tag = "beyond Cloudflare",
    params(("account_id" = String, Path, description = "The account: its id, or its name")),
    request_body = NewBinding,
    responses((status = 200, body = Envelope<Binding>)),
)]
pub(super) async fn create(mut ask: Ask) -> Result<Answer<Binding>, Failure> {
    let message = wanted(ask.param("account_id"), &ask.body)?;
    let reply = ask.change("bindings.bind", message, operations::bindings::bind).await?;
    Ok(Answer::of(reply.binding.unwrap_or_default().into()).at(reply.receipt))
}

/// What a body asks to be bound.
pub(super) fn wanted(account: String, body: &[u8]) -> Result<v1::BindRequest, PublicError> {
    let NewBinding { consumer, name, store_id: store, secret_name } = body::json(body)?;
    let target = match secret_name {
        Some(secret) => v1::bind_request::Target::Secret(v1::SecretRef { account: account.clone(), store, secret }),
        None => v1::bind_request::Target::Store(v1::StoreRef { account: account.clone(), store }),
    };
    Ok(v1::BindRequest { consumer: Some(consumer.parse(account)?), name, target: Some(target), ..Default::default() })
}

/// Ends a binding.
#[utoipa::path(
    delete, path = "/accounts/{account_id}/secrets_store/bindings/{kind}/{consumer}/{name}", tag = "beyond Cloudflare",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("kind" = String, Path, description = "The consumer's kind"),
        ("consumer" = String, Path, description = "The consumer's name"),
        ("name" = String, Path, description = "The binding's name"),
    ),
    responses((status = 200, body = Envelope<Nothing>)),
)]
pub(super) async fn delete(mut ask: Ask) -> Result<Answer<Nothing>, Failure> {
    const OPERATION: &str = "bindings.unbind";
    let (account, kind, name) = (ask.param("account_id"), ask.param("kind"), ask.param("name"));
    let consumer = Consumer { kind, name: ask.param("consumer") };
    let said = [consumer.kind.clone(), consumer.name.clone(), name.clone()];
    let consumer = consumer.parse(account.clone()).map_err(|error| Failure::of(OPERATION, error))?;
    ask.count(OPERATION, &[&account], &said, Still::Unbound(consumer.clone(), name.clone())).await?;
    let message = v1::UnbindRequest { consumer: Some(consumer), name, ..Default::default() };
    let reply = ask.change(OPERATION, message, operations::bindings::unbind).await?;
    Ok(Answer::of(Nothing).at(reply.receipt))
}
