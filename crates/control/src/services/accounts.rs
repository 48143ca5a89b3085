//! `Accounts`.

use state::{CommandBody, CommandKind, GrantScope, Operation, ReplyBody, State};
use tonic::{Request, Response, Status, async_trait};
use types::AccountId;
use wire::{
    PublicError,
    parse::{self, AccountTarget, PageTarget},
    v1,
};

use super::{Services, after, next};
use crate::{
    call::{change, read},
    caller::Caller,
    error::damaged,
    resolve, show, write,
};

fn target(text: String) -> Result<Option<AccountTarget>, PublicError> {
    Ok(AccountTarget::parse_optional("account", text)?)
}

fn shown(state: &State, id: AccountId) -> Result<v1::Account, PublicError> {
    Ok(show::account(id, &resolve::account_record(state, id)?))
}

fn quota(state: &State, id: AccountId) -> Result<v1::Quota, PublicError> {
    let (quota, usage) = (state.quota(id).map_err(damaged)?, state.usage(id).map_err(damaged)?);
    Ok(v1::Quota {
        stores_max: quota.stores.into(),
        secrets_max: quota.secrets.into(),
        value_bytes_max: quota.value_bytes.into(),
        stores: usage.stores.into(),
        secrets: usage.secrets.into(),
    })
}

#[async_trait]
impl v1::accounts_server::Accounts for Services {
    async fn create(&self, request: Request<v1::CreateAccountRequest>) -> Result<Response<v1::CreateAccountReply>, Status> {
        change(&self.0, "accounts.create", request, async |core, call, message| {
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
        })
        .await
    }

    async fn list(&self, request: Request<v1::ListAccountsRequest>) -> Result<Response<v1::ListAccountsReply>, Status> {
        read(&self.0, "accounts.list", request, async |core, call, message| {
            let page = PageTarget::from(message.page);
            let after = after(&page)?;
            core.read(&call, |state, caller| {
                let found = state.accounts(after.as_ref(), page.size, |id| caller.sees(id)).map_err(damaged)?;
                let seen = found.items.iter().map(|(id, record)| show::account(*id, record)).collect();
                Ok(v1::ListAccountsReply { accounts: seen, next_page: next(found.next) })
            })
            .await
        })
        .await
    }

    async fn show(&self, request: Request<v1::ShowAccountRequest>) -> Result<Response<v1::Account>, Status> {
        read(&self.0, "accounts.show", request, async |core, call, message| {
            let target = target(message.account)?;
            core.read(&call, |state, caller| shown(state, resolve::account(state, caller, target.as_ref())?)).await
        })
        .await
    }

    async fn show_quota(&self, request: Request<v1::ShowQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        read(&self.0, "accounts.show_quota", request, async |core, call, message| {
            let target = target(message.account)?;
            core.read(&call, |state, caller| {
                let account = resolve::account(state, caller, target.as_ref())?;
                caller.require(Operation::ReadMetadata, GrantScope::Account(account))?;
                quota(state, account)
            })
            .await
        })
        .await
    }

    async fn set_quota(&self, request: Request<v1::SetQuotaRequest>) -> Result<Response<v1::SetQuotaReply>, Status> {
        change(&self.0, "accounts.set_quota", request, async |core, call, message| {
            let target = target(message.account)?;
            let narrow = |field: &str, number: Option<u64>| {
                let fits = |number| u32::try_from(number).map_err(|_| parse::FieldError::new(field, "is above 4294967295"));
                number.map(fits).transpose()
            };
            let stores = narrow("stores_max", message.stores_max)?;
            let secrets = narrow("secrets_max", message.secrets_max)?;
            let value_bytes = narrow("value_bytes_max", message.value_bytes_max)?;
            let plan = |state: &State, caller: &Caller| {
                let account = resolve::account(state, caller, target.as_ref())?;
                caller.require(Operation::SetQuota, GrantScope::Account(account))?;
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
            let Some(CommandBody::SetQuota { account, .. } | CommandBody::EditQuota { account, .. }) = body else {
                return Ok(v1::SetQuotaReply { quota: None });
            };
            Ok(v1::SetQuotaReply { quota: Some(quota(&core.consensus.local(), account)?) })
        })
        .await
    }
}
