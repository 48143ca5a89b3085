//! Secrets.

use axum::http::StatusCode;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use wire::{PublicError, parse::FieldError, v1};
use zeroize::Zeroizing;

use super::{
    answer::{Answer, Envelope, Failure, Nothing, ResultInfo},
    ask::Ask,
    body,
    objects::{ScopeName, Secret},
    stores::InKind,
};
use crate::operations::{self, lists, retries::Still};

/// A value, as text. It is wiped, and nothing shows it.
struct Plain(Zeroizing<String>);

impl Plain {
    fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.0).into_bytes()
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// A secret to be made.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewSecret {
    /// Letters, digits, `-` and `_`, at most 255, unique in the store.
    #[serde(default)]
    #[schema(required = true, max_length = 255, pattern = "^[A-Za-z0-9_-]+$")]
    name: String,
    /// At most 65,536 bytes.
    #[schema(value_type = String, format = Password, max_length = 65536)]
    value: Option<Plain>,
    /// Where it may be used.
    #[serde(default)]
    #[schema(value_type = Vec<ScopeName>, required = true, min_items = 1)]
    scopes: Vec<String>,
    /// At most 1,024 bytes.
    #[schema(max_length = 1024, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    comment: Option<String>,
}

/// What changes about a secret; what is left out stays.
#[derive(Deserialize, ToSchema)]
pub(super) struct Edits {
    /// A new value, which becomes the current version.
    #[schema(value_type = Option<String>, format = Password, max_length = 65536)]
    value: Option<Plain>,
    /// All scopes that it has from now on.
    #[schema(value_type = Option<Vec<ScopeName>>, min_items = 1)]
    pub(super) scopes: Option<Vec<String>>,
    /// An empty one clears it.
    #[schema(max_length = 1024, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    pub(super) comment: Option<String>,
}

/// The copy of a secret to be made.
#[derive(Deserialize, ToSchema)]
pub(super) struct Copy {
    /// Unique in the store.
    #[serde(default)]
    #[schema(required = true, max_length = 255, pattern = "^[A-Za-z0-9_-]+$")]
    pub(super) name: String,
    /// The source's if left out, or if there are none.
    #[schema(value_type = Option<Vec<ScopeName>>)]
    pub(super) scopes: Option<Vec<String>>,
    /// None if left out.
    #[schema(max_length = 1024, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    pub(super) comment: Option<String>,
}

/// Lists the secrets of a store, without their values.
#[utoipa::path(
    get, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("page" = Option<u64>, Query, description = "From 1"),
        ("per_page" = Option<u64>, Query, description = "20 if not said, at most 100"),
        ("order" = Option<String>, Query, pattern = "^(name|comment|created|modified|status)$", description = "name, comment, created, modified or status"),
        ("direction" = Option<String>, Query, pattern = "^(asc|desc)$", description = "asc or desc"),
        ("search" = Option<String>, Query, description = "What the name or the comment holds; an exact name comes first"),
        ("scopes" = Option<Vec<ScopeName>>, Query, description = "Those that have one of these; repeated, or with commas"),
    ),
    responses((status = 200, body = Envelope<Vec<Secret>>)),
)]
pub(super) async fn list(ask: Ask) -> Result<Answer<Vec<Secret>>, Failure> {
    let wanted = lists::Secrets {
        store: ask.store(),
        window: ask.window()?,
        search: ask.query.get("search").unwrap_or_default().to_owned(),
        scopes: ask.query.all("scopes"),
    };
    let found = ask.read("secrets.list", wanted, lists::secrets).await?;
    let info = ResultInfo::of(&ask.query, &found);
    Ok(Answer::of(found.items.into_iter().map(Secret::from).collect()).page(info))
}

/// Makes secrets: all of them, or none.
#[utoipa::path(
    post, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
    ),
    request_body = InKind<NewSecret>,
    responses((status = 200, body = Envelope<InKind<Secret>>)),
)]
pub(super) async fn create(mut ask: Ask) -> Result<Answer<InKind<Secret>>, Failure> {
    let (many, wanted) = wanted(&ask.body)?;
    let names: Vec<String> = wanted.iter().map(|secret| secret.name.clone()).collect();
    let (account, store) = (ask.param("account_id"), ask.param("store_id"));
    ask.count("secrets.create", &[&account, &store], &names, Still::Made(Some(ask.store()))).await?;
    let message = v1::CreateSecretsRequest { store: Some(ask.store()), secrets: new_secrets(wanted)?, ..Default::default() };
    let reply = ask.change("secrets.create", message, operations::secrets::create).await?;
    let mut made = reply.secrets.into_iter().map(Secret::from);
    Ok(Answer::of(if many {
        InKind::Many(made.collect())
    } else {
        InKind::One(made.next().unwrap_or_else(|| v1::Secret::default().into()))
    }))
}

/// What a body asks to be made, and whether it is a list.
pub(super) fn wanted(body: &[u8]) -> Result<(bool, Vec<NewSecret>), PublicError> {
    let many = body::is_list(body);
    Ok((many, if many { body::json(body)? } else { vec![body::json(body)?] }))
}

/// The same as a message.
pub(super) fn new_secrets(wanted: Vec<NewSecret>) -> Result<Vec<v1::NewSecret>, FieldError> {
    let one = |(place, secret): (usize, NewSecret)| -> Result<v1::NewSecret, FieldError> {
        let value = secret.value.ok_or_else(|| FieldError::missing(format!("secrets[{place}].value")))?;
        let (name, scopes) = (secret.name, secret.scopes);
        Ok(v1::NewSecret { name, value: value.into_bytes(), scopes, comment: secret.comment.unwrap_or_default() })
    };
    wanted.into_iter().enumerate().map(one).collect()
}

/// Deletes secrets: all of them, or none.
#[utoipa::path(
    delete, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("force" = Option<bool>, Query, description = "Also where something is bound to them"),
    ),
    request_body = body::IdsInAnyForm,
    responses((status = 202, body = Envelope<Nothing>)),
)]
pub(super) async fn delete_many(mut ask: Ask) -> Result<Answer<Nothing>, Failure> {
    let body::Ids { ids } = body::ids(&ask.body)?;
    let receipt = gone(&mut ask, ids).await?;
    Ok(Answer::of(Nothing).with_status(StatusCode::ACCEPTED).at(receipt))
}

/// Has secrets deleted.
async fn gone(ask: &mut Ask, secrets: Vec<String>) -> Result<Option<v1::Receipt>, Failure> {
    let (store, force) = (ask.store(), ask.query.flag("force")?);
    let target = [store.account.clone(), store.store.clone(), force.to_string()];
    ask.count("secrets.delete", &target.each_ref().map(String::as_str), &secrets, Still::Deleted(store.clone(), secrets.clone())).await?;
    let message = v1::DeleteSecretsRequest { store: Some(store), secrets, force, ..Default::default() };
    Ok(ask.change("secrets.delete", message, operations::secrets::delete).await?.receipt)
}

/// Shows a secret, without its value.
#[utoipa::path(
    get, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("secret_id" = String, Path, description = "The secret: its id, or its name"),
    ),
    responses((status = 200, body = Envelope<Secret>)),
)]
pub(super) async fn show(ask: Ask) -> Result<Answer<Secret>, Failure> {
    let wanted = v1::ShowSecretRequest { secret: Some(ask.secret()) };
    Ok(Answer::of(ask.read("secrets.show", wanted, operations::secrets::show).await?.into()))
}

/// Changes a secret.
#[utoipa::path(
    patch, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("secret_id" = String, Path, description = "The secret: its id, or its name"),
    ),
    request_body = Edits,
    responses((status = 200, body = Envelope<Secret>)),
)]
pub(super) async fn edit(mut ask: Ask) -> Result<Answer<Secret>, Failure> {
    let Edits { value, scopes, comment } = body::json(&ask.body)?;
    let (secret, scopes) = (Some(ask.secret()), scopes.map(|scopes| v1::ScopeList { scopes }));
    let (changed, receipt) = match value {
        Some(value) => {
            let value = value.into_bytes();
            let message = v1::SetValueRequest { secret, value, scopes, comment, ..Default::default() };
            let reply = ask.change("secrets.set_value", message, operations::secrets::set_value).await?;
            (reply.secret, reply.receipt)
        }
        None => {
            let message = v1::EditSecretRequest { secret, scopes, comment, ..Default::default() };
            let reply = ask.change("secrets.edit", message, operations::secrets::edit).await?;
            (reply.secret, reply.receipt)
        }
    };
    Ok(Answer::of(changed.unwrap_or_default().into()).at(receipt))
}

/// Deletes a secret.
#[utoipa::path(
    delete, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("secret_id" = String, Path, description = "The secret: its id, or its name"),
        ("force" = Option<bool>, Query, description = "Also where something is bound to it"),
    ),
    responses((status = 200, body = Envelope<Nothing>)),
)]
pub(super) async fn delete(mut ask: Ask) -> Result<Answer<Nothing>, Failure> {
    let secrets = vec![ask.param("secret_id")];
    Ok(Answer::of(Nothing).at(gone(&mut ask, secrets).await?))
}

/// Copies a secret, with its value, under a new name in the same store.
#[utoipa::path(
    post, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets/{secret_id}/duplicate", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("secret_id" = String, Path, description = "The source: its id, or its name"),
    ),
    request_body = Copy,
    responses((status = 200, body = Envelope<Secret>)),
)]
pub(super) async fn duplicate(mut ask: Ask) -> Result<Answer<Secret>, Failure> {
    let Copy { name, scopes, comment } = body::json(&ask.body)?;
    let (scopes, comment) = (scopes.unwrap_or_default(), comment.unwrap_or_default());
    let target = [ask.param("account_id"), ask.param("store_id"), ask.param("secret_id")];
    let still = Still::Made(Some(ask.store()));
    ask.count("secrets.duplicate", &target.each_ref().map(String::as_str), std::slice::from_ref(&name), still).await?;
    let message = v1::DuplicateSecretRequest { source: Some(ask.secret()), name, scopes, comment, ..Default::default() };
    let reply = ask.change("secrets.duplicate", message, operations::secrets::duplicate).await?;
    Ok(Answer::of(reply.secret.unwrap_or_default().into()).at(reply.receipt))
}
