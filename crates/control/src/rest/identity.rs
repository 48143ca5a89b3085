//! Who asks, and the accounts that it sees.

use serde::Serialize;
use utoipa::ToSchema;
use wire::v1;

use super::{
    answer::{Answer, Envelope, Failure, ResultInfo},
    ask::Ask,
    objects::time,
};
use crate::operations::{
    self,
    identity::{self, Identity, Seat},
};

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(super) struct User {
    /// The public id of the token: there are no users apart from tokens.
    id: String,
    /// The name of the token's holder.
    email: String,
    /// The same.
    username: String,
}

/// A token, as it is shown to itself.
#[derive(Serialize, ToSchema)]
pub(super) struct Verified {
    id: String,
    /// `active`: any other is not let in.
    status: String,
    /// RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_on: Option<String>,
}

/// An account.
#[derive(Serialize, ToSchema)]
pub(super) struct Account {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    created_on: String,
}

/// That the caller belongs to an account.
#[derive(Serialize, ToSchema)]
pub(super) struct Membership {
    /// The account's.
    id: String,
    status: String,
    account: Account,
    /// Names of roles.
    roles: Vec<String>,
}

/// What an account may hold, and holds.
#[derive(Serialize, ToSchema)]
pub(super) struct Quota {
    secrets: Use,
    /// Beyond Cloudflare's API.
    stores: Use,
}

/// How much of something there may be, and is.
#[derive(Serialize, ToSchema)]
pub(super) struct Use {
    quota: u64,
    usage: u64,
}

impl From<v1::Account> for Account {
    fn from(account: v1::Account) -> Self {
        Self { id: account.id, name: account.name, kind: "standard".to_owned(), created_on: time(account.created_ms) }
    }
}

/// Says who asks.
#[utoipa::path(get, path = "/user", tag = "identity", responses((status = 200, body = Envelope<User>)))]
pub(super) async fn user(ask: Ask) -> Result<Answer<User>, Failure> {
    let Identity { id, name, .. } = ask.read("identity.user", (), identity::identity).await?;
    Ok(Answer::of(User { id, email: name.clone(), username: name }))
}

/// Says whether a token is good.
#[utoipa::path(
    get, path = "/user/tokens/verify", tag = "identity",
    responses((status = 200, body = Envelope<Verified>), (status = 401, description = "It is not: code 1000", body = Envelope<super::answer::Nothing>)),
)]
pub(super) async fn verify(ask: Ask) -> Result<Answer<Verified>, Failure> {
    let Identity { id, expires, .. } = ask.read("tokens.verify", (), identity::identity).await?;
    Ok(Answer::of(Verified { id, status: "active".to_owned(), expires_on: expires.map(|at| time(at.get())) }))
}

/// Lists the accounts that the caller sees.
#[utoipa::path(
    get, path = "/accounts", tag = "identity",
    params(
        ("page" = Option<u64>, Query, description = "From 1"),
        ("per_page" = Option<u64>, Query, description = "20 if not said, at most 100"),
        ("direction" = Option<String>, Query, description = "asc or desc, by name"),
    ),
    responses((status = 200, body = Envelope<Vec<Account>>)),
)]
pub(super) async fn accounts(ask: Ask) -> Result<Answer<Vec<Account>>, Failure> {
    let found = ask.read("accounts.list", ask.window()?, identity::accounts).await?;
    let info = ResultInfo::of(&ask.query, &found);
    Ok(Answer::of(found.items.into_iter().map(|seat| seat.account.into()).collect()).page(info))
}

/// Shows an account.
#[utoipa::path(
    get, path = "/accounts/{account_id}", tag = "identity",
    params(("account_id" = String, Path, description = "The account: its id, or its name")),
    responses((status = 200, body = Envelope<Account>)),
)]
pub(super) async fn account(ask: Ask) -> Result<Answer<Account>, Failure> {
    let seat = ask.read("accounts.show", ask.param("account_id"), identity::account).await?;
    Ok(Answer::of(seat.account.into()))
}

/// Lists what the caller is in the accounts that it sees.
#[utoipa::path(
    get, path = "/memberships", tag = "identity",
    params(
        ("page" = Option<u64>, Query, description = "From 1"),
        ("per_page" = Option<u64>, Query, description = "20 if not said, at most 100"),
        ("direction" = Option<String>, Query, description = "asc or desc, by the account's name"),
    ),
    responses((status = 200, body = Envelope<Vec<Membership>>)),
)]
pub(super) async fn memberships(ask: Ask) -> Result<Answer<Vec<Membership>>, Failure> {
    let found = ask.read("accounts.list", ask.window()?, identity::accounts).await?;
    let info = ResultInfo::of(&ask.query, &found);
    let membership = |Seat { account, roles }: Seat| Membership {
        id: account.id.clone(),
        status: "accepted".to_owned(),
        account: account.into(),
        roles,
    };
    Ok(Answer::of(found.items.into_iter().map(membership).collect()).page(info))
}

/// Shows what an account may hold, and holds.
#[utoipa::path(
    get, path = "/accounts/{account_id}/secrets_store/quota", tag = "stores",
    params(("account_id" = String, Path, description = "The account: its id, or its name")),
    responses((status = 200, body = Envelope<Quota>)),
)]
pub(super) async fn quota(ask: Ask) -> Result<Answer<Quota>, Failure> {
    let wanted = v1::ShowQuotaRequest { account: ask.param("account_id") };
    let quota = ask.read("accounts.show_quota", wanted, operations::accounts::show_quota).await?;
    Ok(Answer::of(Quota {
        secrets: Use { quota: quota.secrets_max, usage: quota.secrets },
        stores: Use { quota: quota.stores_max, usage: quota.stores },
    }))
}
