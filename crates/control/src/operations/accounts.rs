//! Accounts and their quotas.

use std::sync::Arc;

use state::{CommandBody, CommandKind, GrantScope, LimitsEdit, Operation, ReplyBody, State};
use types::AccountId;
use wire::{
    PublicError,
    parse::{self, AccountTarget, PageTarget},
    v1,
};

use super::{after, next};
use crate::{call::Call, caller::Caller, core::Core, error::damaged, resolve, show, write};

fn target(text: String) -> Result<Option<AccountTarget>, PublicError> {
    Ok(AccountTarget::parse_optional("account", text)?)
}

fn shown(state: &State, id: AccountId) -> Result<v1::Account, PublicError> {
    Ok(show::account(id, &resolve::account_record(state, id)?))
}

/// What an account may hold, and holds.
pub(crate) fn quota(state: &State, id: AccountId) -> Result<v1::Quota, PublicError> {
    let (quota, usage) = (state.quota(id).map_err(damaged)?, state.usage(id).map_err(damaged)?);
    let (limits, held) = (state.limits(id).map_err(damaged)?, state.holdings(id).map_err(damaged)?);
    Ok(v1::Quota {
        stores_max: quota.stores.into(),
        secrets_max: quota.secrets.into(),
        value_bytes_max: quota.value_bytes.into(),
        stores: usage.stores.into(),
        secrets: usage.secrets.into(),
        tokens_max: limits.tokens.into(),
        tokens: held.tokens.into(),
        undelete_window_ms: limits.undelete_window_ms,
        undelete_secrets_max: limits.undelete_secrets.into(),
        undelete_bytes_max: limits.undelete_bytes,
        deleted_secrets: held.deleted_secrets.into(),
        deleted_bytes: held.deleted_bytes,
    })
}

/// Makes an account.
pub(crate) async fn create(core: Arc<Core>, call: Call, message: v1::CreateAccountRequest) -> Result<v1::CreateAccountReply, PublicError> {
    let name: types::AccountName = parse::name("name", message.name)?;
    let given: Option<AccountId> = if message.id.is_empty() { None } else { Some(parse::id("id", &message.id)?) };
    let account = given.unwrap_or_else(|| AccountId::from_bytes(core.entropy.id()));
    let plan = |_: &State, caller: &Caller| {
        caller.require(Operation::ManageAccounts, GrantScope::Cluster)?;
        Ok(CommandBody::CreateAccount { account, name: name.clone() })
    };
    let (_, reply) = write::plain(&core, &call, plan).await?;
    let ReplyBody::AccountCreated { account } = reply.body else { return Err(crate::error::unexpected()) };
    let account = Some(shown(&core.consensus.local(), account)?);
    Ok(v1::CreateAccountReply { account, receipt: Some(reply.position.into()) })
}

/// Lists the accounts that the caller sees.
pub(crate) async fn list(core: Arc<Core>, call: Call, message: v1::ListAccountsRequest) -> Result<v1::ListAccountsReply, PublicError> {
    let page = PageTarget::from(message.page);
    let after = after(&page)?;
    core.read(&call, |state, caller| {
        let found = state.accounts(after.as_ref(), page.size, |id| caller.sees(id)).map_err(damaged)?;
        let seen = found.items.iter().map(|(id, record)| show::account(*id, record)).collect();
        Ok(v1::ListAccountsReply { accounts: seen, next_page: next(found.next) })
    })
    .await
}

/// Shows one.
pub(crate) async fn show(core: Arc<Core>, call: Call, message: v1::ShowAccountRequest) -> Result<v1::Account, PublicError> {
    let target = target(message.account)?;
    core.read(&call, |state, caller| shown(state, resolve::account(state, caller, target.as_ref())?)).await
}

/// Shows what an account may hold, and holds.
pub(crate) async fn show_quota(core: Arc<Core>, call: Call, message: v1::ShowQuotaRequest) -> Result<v1::Quota, PublicError> {
    let target = target(message.account)?;
    core.read(&call, |state, caller| {
        let account = resolve::account(state, caller, target.as_ref())?;
        caller.require(Operation::ReadMetadata, GrantScope::Account(account))?;
        quota(state, account)
    })
    .await
}

/// Changes that.
pub(crate) async fn set_quota(core: Arc<Core>, call: Call, message: v1::SetQuotaRequest) -> Result<v1::SetQuotaReply, PublicError> {
    let target = target(message.account)?;
    let narrow = |field: &str, number: Option<u64>| {
        let fits = |number| u32::try_from(number).map_err(|_| parse::FieldError::new(field, "is above 4294967295"));
        number.map(fits).transpose()
    };
    let stores = narrow("stores_max", message.stores_max)?;
    let secrets = narrow("secrets_max", message.secrets_max)?;
    let value_bytes = narrow("value_bytes_max", message.value_bytes_max)?;
    let edit = LimitsEdit {
        stores,
        secrets,
        value_bytes,
        tokens: narrow("tokens_max", message.tokens_max)?,
        undelete_window_ms: message.undelete_window_ms,
        undelete_secrets: narrow("undelete_secrets_max", message.undelete_secrets_max)?,
        undelete_bytes: message.undelete_bytes_max,
    };
    // What levels below 3 know of.
    let quota_alone = edit == LimitsEdit { stores, secrets, value_bytes, ..LimitsEdit::default() };
    if message.all_accounts && target.is_some() {
        return Err(parse::FieldError::new("account", "is not named together with all_accounts").into());
    }
    let plan = |state: &State, caller: &Caller| {
        if message.all_accounts {
            caller.require(Operation::SetQuota, GrantScope::Cluster)?;
            return Ok(CommandBody::EditLimits { account: None, edit });
        }
        let account = resolve::account(state, caller, target.as_ref())?;
        caller.require(Operation::SetQuota, GrantScope::Cluster)?;
        if !quota_alone {
            return Ok(CommandBody::EditLimits { account: Some(account), edit });
        }
        if state.feature_level().map_err(damaged)? >= CommandKind::EditQuota.level() {
            return Ok(CommandBody::EditQuota { account, stores, secrets, value_bytes });
        }
        // Before level 2 a quota is set as a whole: of two changes at the same moment the later one stands.
        let mut quota = state.quota(account).map_err(damaged)?;
        quota.stores = stores.unwrap_or(quota.stores);
        quota.secrets = secrets.unwrap_or(quota.secrets);
        quota.value_bytes = value_bytes.unwrap_or(quota.value_bytes);
        Ok(CommandBody::SetQuota { account, quota: Some(quota) })
    };
    let (body, _) = write::plain(&core, &call, plan).await?;
    let account = match body {
        Some(CommandBody::SetQuota { account, .. } | CommandBody::EditQuota { account, .. }) => account,
        Some(CommandBody::EditLimits { account: Some(account), .. }) => account,
        _ => return Ok(v1::SetQuotaReply { quota: None }),
    };
    Ok(v1::SetQuotaReply { quota: Some(quota(&core.consensus.local(), account)?) })
}
