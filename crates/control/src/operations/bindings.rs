//! Bindings.

use std::sync::Arc;

use state::{CommandBody, GrantScope, Operation, ReplyBody, State, record::BindingRecord};
use types::BindingName;
use wire::{
    PublicError,
    parse::{self, AccountTarget, ConsumerTarget, FieldError, PageTarget},
    v1,
};

use super::{after, next, parsed};
use crate::{
    call::Call,
    caller::Caller,
    core::Core,
    error::{damaged, unexpected},
    resolve, show,
    write::{self, BindTarget},
};

/// Lets a consumer read a secret or a store.
pub(crate) async fn bind(core: Arc<Core>, call: Call, message: v1::BindRequest) -> Result<v1::BindReply, PublicError> {
    let consumer: ConsumerTarget = parsed("consumer", message.consumer)?;
    let name: BindingName = parse::name("name", message.name)?;
    let target = match message.target {
        Some(v1::bind_request::Target::Secret(secret)) => BindTarget::Secret(parsed("secret", Some(secret))?),
        Some(v1::bind_request::Target::Store(store)) => BindTarget::Store(parsed("store", Some(store))?),
        None => return Err(FieldError::missing("target").into()),
    };
    let (consumer, reply) = write::bind(&core, &call, &consumer, &name, &target).await?;
    let ReplyBody::Bound { target } = reply.body else { return Err(unexpected()) };
    let state = core.consensus.local();
    let shown = consumer.map(|consumer| {
        // It may have been bound so before.
        let record = state.binding(&consumer, &name).map_err(damaged)?.filter(|record| record.target == target);
        let record = record.unwrap_or(BindingRecord { target: target.clone(), created: reply.time });
        show::binding(&state, &consumer, &name, &record)
    });
    let shown = shown.transpose()?;
    Ok(v1::BindReply { binding: shown, receipt: Some(reply.position.into()) })
}

/// Ends that.
pub(crate) async fn unbind(core: Arc<Core>, call: Call, message: v1::UnbindRequest) -> Result<v1::UnbindReply, PublicError> {
    let target: ConsumerTarget = parsed("consumer", message.consumer)?;
    let name: BindingName = parse::name("name", message.name)?;
    let plan = |state: &State, caller: &Caller| {
        let consumer = resolve::consumer(state, caller, &target)?;
        // Whose store it is bound to is for `apply`; here it is enough that some grant could allow it.
        let found = state.binding(&consumer, &name).map_err(damaged)?;
        let reach = found.map_or(GrantScope::Account(consumer.account), |found| GrantScope::Store(consumer.account, found.target.store()));
        caller.require(Operation::Bind, reach)?;
        Ok(CommandBody::Unbind { consumer, name: name.clone() })
    };
    let (_, reply) = write::plain(&core, &call, plan).await?;
    Ok(v1::UnbindReply { receipt: Some(reply.position.into()) })
}

/// Lists bindings of a consumer, or of an account.
pub(crate) async fn list(core: Arc<Core>, call: Call, message: v1::ListBindingsRequest) -> Result<v1::ListBindingsReply, PublicError> {
    let account = AccountTarget::parse_optional("account", message.account)?;
    let consumer = message.consumer.map(|consumer| parsed::<ConsumerTarget, _>("consumer", Some(consumer))).transpose()?;
    let page = PageTarget::from(message.page);
    let after = after(&page)?;
    core.read(&call, |state, caller| {
        let may =
            |account| move |record: &BindingRecord| caller.may(Operation::ReadMetadata, GrantScope::Store(account, record.target.store()));
        let (rows, following): (Vec<_>, _) = match &consumer {
            Some(target) => {
                let consumer = resolve::consumer(state, caller, target)?;
                let found = state.bindings(&consumer, after.as_ref(), page.size, may(consumer.account)).map_err(damaged)?;
                (found.items.into_iter().map(|(name, record)| (consumer.clone(), name, record)).collect(), found.next)
            }
            None => {
                let account = resolve::account(state, caller, account.as_ref())?;
                let found = state.bindings_of_account(account, after.as_ref(), page.size, may(account)).map_err(damaged)?;
                (found.items, found.next)
            }
        };
        let bindings = rows.iter().map(|(consumer, name, record)| show::binding(state, consumer, name, record));
        Ok(v1::ListBindingsReply { bindings: bindings.collect::<Result<_, _>>()?, next_page: next(following) })
    })
    .await
}
