//! Bindings: what lets a consumer read a secret. Beyond Cloudflare's API, where they come with the upload of a Worker.

use serde::{Deserialize, Serialize};
use types::ConsumerKind;
use utoipa::ToSchema;
use wire::{parse::FieldError, v1};

use super::{
    answer::{Answer, Envelope, Failure, Nothing},
    ask::Ask,
    body,
    objects::time,
};
use crate::operations;

/// Bindings in one answer at the most. More are asked for consumer by consumer.
const LIST_MAX: u32 = 1000;

/// Who may read.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct Consumer {
    /// `worker`, `gateway`, `dex`, `access`, `container` or `websearch`.
    kind: String,
    #[serde(default)]
    name: String,
}

/// A binding to be made.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewBinding {
    consumer: Consumer,
    /// What the consumer calls it, once among its bindings.
    #[serde(default)]
    name: String,
    /// The store: its id, or its name.
    #[serde(default)]
    store_id: String,
    /// The secret: its name, or its id. The whole store if left out.
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
        ("consumer" = Option<String>, Query, description = "KIND/NAME, such as worker/shop"),
    ),
    responses((status = 200, body = Envelope<Vec<Binding>>)),
)]
pub(super) async fn list(ask: Ask) -> Result<Answer<Vec<Binding>>, Failure> {
    let account = ask.param("account_id");
    let consumer = ask.query.get("consumer").map(|text| -> Result<_, FieldError> {
        let (kind, name) = text.split_once('/').ok_or_else(|| FieldError::new("consumer", "must be KIND/NAME"))?;
        Consumer { kind: kind.to_owned(), name: name.to_owned() }.parse(account.clone())
    });
    let consumer = consumer.transpose()?;
    let page = Some(v1::Page { size: LIST_MAX, token: ask.query.get("cursor").unwrap_or_default().to_owned() });
    let wanted = v1::ListBindingsRequest { account, consumer, page };
    let reply = ask.read("bindings.list", wanted, operations::bindings::list).await?;
    Ok(Answer::of(reply.bindings.into_iter().map(Binding::from).collect()))
}

/// Lets a consumer read a secret, or every secret of a store that its kind may read.
#[utoipa::path(
    post, path = "/accounts/{account_id}/secrets_store/bindings", tag = "beyond Cloudflare",
    params(("account_id" = String, Path, description = "The account: its id, or its name")),
    request_body = NewBinding,
    responses((status = 200, body = Envelope<Binding>), (status = 400, description = "It may not be bound: code 10021", body = Envelope<Nothing>)),
)]
pub(super) async fn create(mut ask: Ask) -> Result<Answer<Binding>, Failure> {
    let account = ask.param("account_id");
    let NewBinding { consumer, name, store_id: store, secret_name } = body::json(&ask.body)?;
    let target = match secret_name {
        Some(secret) => v1::bind_request::Target::Secret(v1::SecretRef { account: account.clone(), store, secret }),
        None => v1::bind_request::Target::Store(v1::StoreRef { account: account.clone(), store }),
    };
    let message = v1::BindRequest { consumer: Some(consumer.parse(account)?), name, target: Some(target), ..Default::default() };
    let reply = ask.change("bindings.bind", message, operations::bindings::bind).await?;
    Ok(Answer::of(reply.binding.unwrap_or_default().into()).at(reply.receipt))
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
    let consumer = Consumer { kind: ask.param("kind"), name: ask.param("consumer") }.parse(ask.param("account_id"))?;
    let message = v1::UnbindRequest { consumer: Some(consumer), name: ask.param("name"), ..Default::default() };
    let reply = ask.change("bindings.unbind", message, operations::bindings::unbind).await?;
    Ok(Answer::of(Nothing).at(reply.receipt))
}
