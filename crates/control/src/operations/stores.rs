//! Stores.

use std::sync::Arc;

use state::{CommandBody, GrantScope, Operation, ReplyBody, State};
use types::{StoreId, StoreName};
use wire::{
    PublicError,
    parse::{self, AccountTarget, PageTarget, StoreTarget},
    v1,
};

use super::{after, next, parsed};
use crate::{call::Call, caller::Caller, core::Core, error::damaged, resolve, show, write};

/// Makes a store.
pub(crate) async fn create(core: Arc<Core>, call: Call, message: v1::CreateStoreRequest) -> Result<v1::CreateStoreReply, PublicError> {
    let account = AccountTarget::parse_optional("account", message.account)?;
    let name: StoreName = parse::name("name", message.name)?;
    let store = StoreId::from_bytes(core.entropy.id());
    let plan = |state: &State, caller: &Caller| {
        let account = resolve::account(state, caller, account.as_ref())?;
        caller.require(Operation::ManageStores, GrantScope::Account(account))?;
        Ok(CommandBody::CreateStore { account, store, name: name.clone() })
    };
    let (_, reply) = write::plain(&core, &call, plan).await?;
    let ReplyBody::StoreCreated { store } = reply.body else { return Err(crate::error::unexpected()) };
    let record = core.consensus.local().store_even_deleting(store).map_err(damaged)?;
    Ok(v1::CreateStoreReply { store: record.map(|record| show::store(store, &record)), receipt: Some(reply.position.into()) })
}

/// Lists the stores that the caller may see, by name.
pub(crate) async fn list(core: Arc<Core>, call: Call, message: v1::ListStoresRequest) -> Result<v1::ListStoresReply, PublicError> {
    let account = AccountTarget::parse_optional("account", message.account)?;
    let page = PageTarget::from(message.page);
    let after = after(&page)?;
    core.read(&call, |state, caller| {
        let account = resolve::account(state, caller, account.as_ref())?;
        let may = |id| caller.may(Operation::ReadMetadata, GrantScope::Store(account, id));
        let found = state.stores(account, after.as_ref(), page.size, may).map_err(damaged)?;
        let stores = found.items.iter().map(|(id, record)| show::store(*id, record)).collect();
        Ok(v1::ListStoresReply { stores, next_page: next(found.next) })
    })
    .await
}

/// Shows one.
pub(crate) async fn show(core: Arc<Core>, call: Call, message: v1::ShowStoreRequest) -> Result<v1::Store, PublicError> {
    let target: StoreTarget = parsed("store", message.store)?;
    core.read(&call, |state, caller| {
        let store = resolve::store(state, caller, &target)?;
        Ok(show::store(store.id, &store.record))
    })
    .await
}

/// Deletes one; with what is in it when forced.
pub(crate) async fn delete(core: Arc<Core>, call: Call, message: v1::DeleteStoreRequest) -> Result<v1::DeleteStoreReply, PublicError> {
    let target: StoreTarget = parsed("store", message.store)?;
    let force = message.force;
    let plan = |state: &State, caller: &Caller| {
        let store = resolve::store(state, caller, &target)?;
        caller.require(Operation::ManageStores, store.reach())?;
        Ok(CommandBody::DeleteStore { account: store.account, store: store.id, force })
    };
    let (_, reply) = write::plain(&core, &call, plan).await?;
    Ok(v1::DeleteStoreReply { receipt: Some(reply.position.into()) })
}
