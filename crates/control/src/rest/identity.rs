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
    /// What it may hold, and holds, for those who may read its quota. Beyond Cloudflare's API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    quota: Option<Quota>,
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

/// What an account may hold, and holds. All but the secrets is beyond Cloudflare's API.
#[derive(Serialize, ToSchema)]
pub(super) struct Quota {
    secrets: Use,
    stores: Use,
    /// Operators' tokens that reach this account and nothing else.
    tokens: Use,
    /// Deleted secrets that can be brought back.
    deleted_secrets: Use,
    /// Bytes of their sealed values.
    deleted_bytes: Use,
    /// Bytes of one value.
    value_bytes_max: u64,
    /// For how long a deleted secret can be brought back.
    undelete_window_ms: u64,
}

/// How much of something there may be, and is.
#[derive(Serialize, ToSchema)]
pub(super) struct Use {
    quota: u64,
    usage: u64,
}

impl From<v1::Quota> for Quota {
    fn from(quota: v1::Quota) -> Self {
        Self {
            secrets: Use { quota: quota.secrets_max, usage: quota.secrets },
            stores: Use { quota: quota.stores_max, usage: quota.stores },
            tokens: Use { quota: quota.tokens_max, usage: quota.tokens },
            deleted_secrets: Use { quota: quota.undelete_secrets_max, usage: quota.deleted_secrets },
            deleted_bytes: Use { quota: quota.undelete_bytes_max, usage: quota.deleted_bytes },
            value_bytes_max: quota.value_bytes_max,
            undelete_window_ms: quota.undelete_window_ms,
        }
    }
}

impl Account {
    fn new(account: v1::Account, quota: Option<v1::Quota>) -> Self {
        let created_on = time(account.created_ms);
        Self { id: account.id, name: account.name, kind: "standard".to_owned(), created_on, quota: quota.map(Quota::from) }
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
    responses((status = 200, body = Envelope<Verified>)),
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
        ("direction" = Option<String>, Query, pattern = "^(asc|desc)$", description = "asc or desc, by name"),
    ),
    responses((status = 200, body = Envelope<Vec<Account>>)),
)]
pub(super) async fn accounts(ask: Ask) -> Result<Answer<Vec<Account>>, Failure> {
    let found = ask.read("accounts.list", ask.window()?, identity::accounts).await?;
    let info = ResultInfo::of(&ask.query, &found);
    Ok(Answer::of(found.items.into_iter().map(|seat| Account::new(seat.account, seat.quota)).collect()).page(info))
}

/// Shows an account.
#[utoipa::path(
    get, path = "/accounts/{account_id}", tag = "identity",
    params(("account_id" = String, Path, description = "The account: its id, or its name")),
    responses((status = 200, body = Envelope<Account>)),
)]
pub(super) async fn account(ask: Ask) -> Result<Answer<Account>, Failure> {
    let seat = ask.read("accounts.show", ask.param("account_id"), identity::account).await?;
    Ok(Answer::of(Account::new(seat.account, seat.quota)))
}

/// Lists what the caller is in the accounts that it sees.
#[utoipa::path(
    get, path = "/memberships", tag = "identity",
    params(
        ("page" = Option<u64>, Query, description = "From 1"),
        ("per_page" = Option<u64>, Query, description = "20 if not said, at most 100"),
        ("direction" = Option<String>, Query, pattern = "^(asc|desc)$", description = "asc or desc, by the account's name"),
    ),
    responses((status = 200, body = Envelope<Vec<Membership>>)),
)]
pub(super) async fn memberships(ask: Ask) -> Result<Answer<Vec<Membership>>, Failure> {
    let found = ask.read("accounts.list", ask.window()?, identity::accounts).await?;
    let info = ResultInfo::of(&ask.query, &found);
    let membership = |Seat { account, roles, .. }: Seat| Membership {
        id: account.id.clone(),
        status: "accepted".to_owned(),
        account: Account::new(account, None),
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
    Ok(Answer::of(ask.read("accounts.show_quota", wanted, operations::accounts::show_quota).await?.into()))
}
