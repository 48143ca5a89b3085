//! `Bindings`.

use state::{CommandBody, GrantScope, Operation, State};
use tonic::{Request, Response, Status, async_trait};
use types::{BindingName, ConsumerRef};
use wire::{
    parse::{self, AccountTarget, ConsumerTarget, FieldError, PageTarget},
    v1,
};

use super::{Services, after, next, parsed};
use crate::{
    call::serve,
    caller::Caller,
    error::{damaged, unexpected},
    resolve, show,
    write::{self, BindTarget},
};

#[async_trait]
impl v1::bindings_server::Bindings for Services {
    async fn bind(&self, request: Request<v1::BindRequest>) -> Result<Response<v1::BindReply>, Status> {
        serve(&self.0, "bindings.bind", request, async |core, call, message| {
            let consumer: ConsumerTarget = parsed("consumer", message.consumer)?;
            let name: BindingName = parse::name("name", message.name)?;
            let request = parse::request_id(&message.request_id)?;
            let target = match message.target {
                Some(v1::bind_request::Target::Secret(secret)) => BindTarget::Secret(parsed("secret", Some(secret))?),
                Some(v1::bind_request::Target::Store(store)) => BindTarget::Store(parsed("store", Some(store))?),
                None => return Err(FieldError::missing("target").into()),
            };
            let reply = write::bind(&core, &call, &consumer, name.clone(), &target, request).await?;
            let state = core.consensus.local();
            let account = resolve::account(&state, &Caller::identify(&state, &call, core.clock.wall())?, consumer.account.as_ref())?;
            let consumer = ConsumerRef { account, kind: consumer.kind, name: consumer.name };
            let record = state.binding(&consumer, &name).map_err(damaged)?.ok_or_else(unexpected)?;
            Ok(v1::BindReply { binding: Some(show::binding(&state, &consumer, &name, &record)?), receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn unbind(&self, request: Request<v1::UnbindRequest>) -> Result<Response<v1::UnbindReply>, Status> {
        serve(&self.0, "bindings.unbind", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let name: BindingName = parse::name("name", message.name)?;
            let request = parse::request_id(&message.request_id)?;
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                // Whose store it is bound to is for `apply`; here it is enough that some grant could allow it.
                let found = state.binding(&consumer, &name).map_err(damaged)?;
                let reach =
                    found.map_or(GrantScope::Account(consumer.account), |found| GrantScope::Store(consumer.account, found.target.store()));
                caller.require(Operation::Bind, reach)?;
                Ok(CommandBody::Unbind { consumer, name: name.clone() })
            };
            let (_, reply) = write::plain(&core, &call, request, plan).await?;
            Ok(v1::UnbindReply { receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn list(&self, request: Request<v1::ListBindingsRequest>) -> Result<Response<v1::ListBindingsReply>, Status> {
        serve(&self.0, "bindings.list", request, async |core, call, message| {
            let account = AccountTarget::parse_optional("account", message.account)?;
            let consumer = message.consumer.map(|consumer| parsed::<ConsumerTarget, _>("consumer", Some(consumer))).transpose()?;
            let page = PageTarget::from(message.page);
            let after = after(&page)?;
            core.read(&call, |state, caller| {
                let (rows, following) = match &consumer {
                    Some(target) => {
                        let consumer = resolve::consumer(state, caller, target)?;
                        let found = state.bindings(&consumer, after.as_ref(), page.size).map_err(damaged)?;
                        (found.items.into_iter().map(|(name, record)| (consumer.clone(), name, record)).collect(), found.next)
                    }
                    None => {
                        let account = resolve::account(state, caller, account.as_ref())?;
                        let found = state.bindings_of_account(account, after.as_ref(), page.size).map_err(damaged)?;
                        (found.items, found.next)
                    }
                };
                let may = |(consumer, _, record): &&(ConsumerRef, BindingName, state::record::BindingRecord)| {
                    caller.may(Operation::ReadMetadata, GrantScope::Store(consumer.account, record.target.store()))
                };
                let rows: Vec<_> = rows;
                let bindings = rows.iter().filter(may).map(|(consumer, name, record)| show::binding(state, consumer, name, record));
                Ok(v1::ListBindingsReply { bindings: bindings.collect::<Result<_, _>>()?, next_page: next(following) })
            })
            .await
        })
        .await
    }
}
