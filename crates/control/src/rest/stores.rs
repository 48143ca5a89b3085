//! Stores.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{PublicError, v1};

use super::{
    answer::{Answer, Envelope, Failure, Nothing, ResultInfo},
    ask::Ask,
    body,
    objects::Store,
};
use crate::operations::{self, lists, retries::Still};

/// A store to be made.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewStore {
    /// Letters, digits, `-` and `_`, at most 255, unique in the account.
    #[serde(default)]
    #[schema(required = true, max_length = 255, pattern = "^[A-Za-z0-9_-]+$")]
    pub(super) name: String,
}

/// One thing, or a list of them: what was sent is answered in kind.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum InKind<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

/// Lists the stores of an account that the caller may see.
#[utoipa::path(
    get, path = "/accounts/{account_id}/secrets_store/stores", tag = "stores",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("page" = Option<u64>, Query, description = "From 1"),
        ("per_page" = Option<u64>, Query, description = "20 if not said, at most 100"),
        ("order" = Option<String>, Query, pattern = "^(name|created|modified)$", description = "name, created or modified"),
        ("direction" = Option<String>, Query, pattern = "^(asc|desc)$", description = "asc or desc"),
    ),
    responses((status = 200, body = Envelope<Vec<Store>>)),
)]
pub(super) async fn list(ask: Ask) -> Result<Answer<Vec<Store>>, Failure> {
    let wanted = lists::Stores { account: ask.param("account_id"), window: ask.window()? };
    let found = ask.read("stores.list", wanted, lists::stores).await?;
    let info = ResultInfo::of(&ask.query, &found);
    Ok(Answer::of(found.items.into_iter().map(Store::from).collect()).page(info))
}

/// Makes a store.
#[utoipa::path(
    post, path = "/accounts/{account_id}/secrets_store/stores", tag = "stores",
    params(("account_id" = String, Path, description = "The account: its id, or its name")),
    request_body = InKind<NewStore>,
    responses((status = 200, body = Envelope<InKind<Store>>)),
)]
pub(super) async fn create(mut ask: Ask) -> Result<Answer<InKind<Store>>, Failure> {
    let (many, NewStore { name }) = wanted(&ask.body)?;
    let account = ask.param("account_id");
    ask.count("stores.create", &[&account], std::slice::from_ref(&name), Still::Made(None)).await?;
    let message = v1::CreateStoreRequest { account, name, ..Default::default() };
    let reply = ask.change("stores.create", message, operations::stores::create).await?;
    let made = Store::from(reply.store.unwrap_or_default());
    Ok(Answer::of(if many { InKind::Many(vec![made]) } else { InKind::One(made) }).at(reply.receipt))
}

/// What a body asks to be made, and whether it stands in a list.
pub(super) fn wanted(body: &[u8]) -> Result<(bool, NewStore), PublicError> {
    if !body::is_list(body) {
        return Ok((false, body::json(body)?));
    }
    let list: Vec<NewStore> = body::json(body)?;
    let [wanted] = <[NewStore; 1]>::try_from(list).map_err(|_| body::malformed("a list of stores to be made holds one"))?;
    Ok((true, wanted))
}

/// Shows a store.
#[utoipa::path(
    get, path = "/accounts/{account_id}/secrets_store/stores/{store_id}", tag = "stores",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
    ),
    responses((status = 200, body = Envelope<Store>)),
)]
pub(super) async fn show(ask: Ask) -> Result<Answer<Store>, Failure> {
    let wanted = v1::ShowStoreRequest { store: Some(ask.store()) };
    Ok(Answer::of(ask.read("stores.show", wanted, operations::stores::show).await?.into()))
}

/// Deletes a store: an empty one, or with all that is in it when forced.
#[utoipa::path(
    delete, path = "/accounts/{account_id}/secrets_store/stores/{store_id}", tag = "stores",
    params(
        ("account_id" = String, Path, description = "The account: its id, or its name"),
        ("store_id" = String, Path, description = "The store: its id, or its name"),
        ("force" = Option<bool>, Query, description = "Also with secrets in it, and with bindings to them"),
    ),
    responses((status = 200, body = Envelope<Nothing>)),
)]
pub(super) async fn delete(mut ask: Ask) -> Result<Answer<Nothing>, Failure> {
    let (store, force) = (ask.store(), ask.query.flag("force")?);
    let target = [store.account.clone(), store.store.clone(), force.to_string()];
    ask.count("stores.delete", &target.each_ref().map(String::as_str), &[], Still::StoreDeleted(store.clone())).await?;
    let message = v1::DeleteStoreRequest { store: Some(store), force, ..Default::default() };
    let reply = ask.change("stores.delete", message, operations::stores::delete).await?;
    Ok(Answer::of(Nothing).at(reply.receipt))
}
