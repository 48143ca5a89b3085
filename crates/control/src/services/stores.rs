//! `Stores`.

use state::{CommandBody, GrantScope, Operation, ReplyBody, State};
use tonic::{Request, Response, Status, async_trait};
use types::{StoreId, StoreName};
use wire::{
    parse::{self, AccountTarget, PageTarget, StoreTarget},
    v1,
};

use super::{Services, after, next, parsed};
use crate::{
    call::{change, read},
    caller::Caller,
    error::damaged,
    resolve, show, write,
};

#[async_trait]
impl v1::stores_server::Stores for Services {
    async fn create(&self, request: Request<v1::CreateStoreRequest>) -> Result<Response<v1::CreateStoreReply>, Status> {
        change(&self.0, "stores.create", request, async |core, call, message| {
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
        })
        .await
    }

    async fn list(&self, request: Request<v1::ListStoresRequest>) -> Result<Response<v1::ListStoresReply>, Status> {
        read(&self.0, "stores.list", request, async |core, call, message| {
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
        })
        .await
    }

    async fn show(&self, request: Request<v1::ShowStoreRequest>) -> Result<Response<v1::Store>, Status> {
        read(&self.0, "stores.show", request, async |core, call, message| {
            let target: StoreTarget = parsed("store", message.store)?;
            core.read(&call, |state, caller| {
                let store = resolve::store(state, caller, &target)?;
                Ok(show::store(store.id, &store.record))
            })
            .await
        })
        .await
    }

    async fn delete(&self, request: Request<v1::DeleteStoreRequest>) -> Result<Response<v1::DeleteStoreReply>, Status> {
        change(&self.0, "stores.delete", request, async |core, call, message| {
            let target: StoreTarget = parsed("store", message.store)?;
            let force = message.force;
            let plan = |state: &State, caller: &Caller| {
                let store = resolve::store(state, caller, &target)?;
                caller.require(Operation::ManageStores, store.reach())?;
                Ok(CommandBody::DeleteStore { account: store.account, store: store.id, force })
            };
            let (_, reply) = write::plain(&core, &call, plan).await?;
            Ok(v1::DeleteStoreReply { receipt: Some(reply.position.into()) })
        })
        .await
    }
}
