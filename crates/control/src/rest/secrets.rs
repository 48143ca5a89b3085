//! Secrets.

use axum::http::StatusCode;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use wire::{parse::FieldError, v1};
use zeroize::Zeroizing;

use super::{
    answer::{Answer, Envelope, Failure, Nothing, ResultInfo},
    ask::Ask,
    body,
    objects::Secret,
    stores::InKind,
};
use crate::operations::{self, lists};

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
    name: String,
    /// At most 65,536 bytes.
    #[schema(value_type = String, format = Password)]
    value: Option<Plain>,
    /// Where it may be used: `workers`, `ai_gateway`, `dex`, `access`, `containers`, `websearch`.
    #[serde(default)]
    scopes: Vec<String>,
    /// At most 1,024 bytes.
    comment: Option<String>,
}

/// What changes about a secret; what is left out stays.
#[derive(Deserialize, ToSchema)]
pub(super) struct Edits {
    /// A new value, which becomes the current version.
    #[schema(value_type = Option<String>, format = Password)]
    value: Option<Plain>,
    /// All scopes that it has from now on.
    scopes: Option<Vec<String>>,
    /// An empty one clears it.
    comment: Option<String>,
}

/// The copy of a secret to be made.
#[derive(Deserialize, ToSchema)]
pub(super) struct Copy {
    /// Unique in the store.
    #[serde(default)]
    name: String,
    /// The source's if left out.
    scopes: Option<Vec<String>>,
    /// None if left out.
    comment: Option<String>,
}

/// Lists the secrets of a store, without their values.
#[utoipa::path(
    get, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("page" = Option<u64>, Query, description = "From 1"),
        ("per_page" = Option<u64>, Query, description = "20 if not said, at most 100"),
        ("order" = Option<String>, Query, description = "name, comment, created, modified or status"),
        ("direction" = Option<String>, Query, description = "asc or desc"),
        ("search" = Option<String>, Query, description = "What the name or the comment holds; an exact name comes first"),
        ("scopes" = Option<Vec<String>>, Query, description = "Those that have one of these; repeated, or with commas"),
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
    request_body = Vec<NewSecret>,
    responses((status = 200, body = Envelope<Vec<Secret>>)),
)]
pub(super) async fn create(mut ask: Ask) -> Result<Answer<InKind<Secret>>, Failure> {
    let many = body::is_list(&ask.body);
    let wanted: Vec<NewSecret> = if many { body::json(&ask.body)? } else { vec![body::json(&ask.body)?] };
    let names: Vec<String> = wanted.iter().map(|secret| secret.name.clone()).collect();
    ask.count("secrets.create", &[&ask.param("account_id"), &ask.param("store_id")], &names).await?;
    let one = |(place, secret): (usize, NewSecret)| -> Result<v1::NewSecret, FieldError> {
        let value = secret.value.ok_or_else(|| FieldError::missing(format!("secrets[{place}].value")))?;
        let (name, scopes) = (secret.name, secret.scopes);
        Ok(v1::NewSecret { name, value: value.into_bytes(), scopes, comment: secret.comment.unwrap_or_default() })
    };
    let secrets = wanted.into_iter().enumerate().map(one).collect::<Result<_, _>>()?;
    let message = v1::CreateSecretsRequest { store: Some(ask.store()), secrets, ..Default::default() };
    let reply = ask.change("secrets.create", message, operations::secrets::create).await?;
    let mut made = reply.secrets.into_iter().map(Secret::from);
    Ok(Answer::of(if many {
        InKind::Many(made.collect())
    } else {
        InKind::One(made.next().unwrap_or_else(|| v1::Secret::default().into()))
    }))
}

/// Deletes secrets: all of them, or none.
#[utoipa::path(
    delete, path = "/accounts/{account_id}/secrets_store/stores/{store_id}/secrets", tag = "secrets",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("force" = Option<bool>, Query, description = "Also where something is bound to them"),
    ),
    request_body = body::Ids,
    responses((status = 202, body = Envelope<Nothing>)),
)]
pub(super) async fn delete_many(mut ask: Ask) -> Result<Answer<Nothing>, Failure> {
    let body::Ids { ids } = body::ids(&ask.body)?;
    let message =
        v1::DeleteSecretsRequest { store: Some(ask.store()), secrets: ids, force: ask.query.flag("force")?, ..Default::default() };
    let reply = ask.change("secrets.delete", message, operations::secrets::delete).await?;
    Ok(Answer::of(Nothing).with_status(StatusCode::ACCEPTED).at(reply.receipt))
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
    let message = v1::DeleteSecretsRequest { store: Some(ask.store()), secrets, force: ask.query.flag("force")?, ..Default::default() };
    let reply = ask.change("secrets.delete", message, operations::secrets::delete).await?;
    Ok(Answer::of(Nothing).at(reply.receipt))
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
    ask.count("secrets.duplicate", &target.each_ref().map(String::as_str), std::slice::from_ref(&name)).await?;
    let message = v1::DuplicateSecretRequest { source: Some(ask.secret()), name, scopes, comment, ..Default::default() };
    let reply = ask.change("secrets.duplicate", message, operations::secrets::duplicate).await?;
    Ok(Answer::of(reply.secret.unwrap_or_default().into()).at(reply.receipt))
}
