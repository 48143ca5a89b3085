//! Deleted secrets: listed, brought back, destroyed. And what is noted of the times of secrets.

use std::sync::Arc;

use state::{CommandBody, Operation, Reminder, ReminderEdit, State, record::DeletedRecord};
use types::{SecretId, UnixMillis, Version};
use wire::{
    PublicError,
    parse::{PageTarget, SecretTarget, StoreTarget},
    v1,
};

use super::{after, next, parsed};
use crate::{call::Call, caller::Caller, core::Core, error::damaged, resolve, show, write};

/// What is noted with new secrets; 0 stands for nothing.
pub(super) fn reminder(message: Option<v1::Reminder>) -> Reminder {
    let v1::Reminder { expires_ms, rotate_every_ms } = message.unwrap_or_default();
    Reminder { expires: time(expires_ms), rotate_every_ms: number(rotate_every_ms) }
}

/// What changes of it; 0 takes it away.
pub(super) fn reminder_edit(expires_ms: Option<u64>, rotate_every_ms: Option<u64>) -> ReminderEdit {
    ReminderEdit { expires: expires_ms.map(time), rotate_every_ms: rotate_every_ms.map(number) }
}

fn time(ms: u64) -> Option<UnixMillis> {
    number(ms).map(UnixMillis::new)
}

fn number(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// Lists the deleted secrets of a store that can be brought back, by id.
pub(crate) async fn list(core: Arc<Core>, call: Call, message: v1::ListDeletedSecretsRequest) -> Result<v1::ListSecretsReply, PublicError> {
    let target: StoreTarget = parsed("store", message.store)?;
    let page = PageTarget::from(message.page);
    let after = after(&page)?;
    core.read(&call, |state, caller| {
        let store = resolve::store(state, caller, &target)?;
        let found = state.deleted_secrets(store.id, after.as_ref(), page.size).map_err(damaged)?;
        let shown = |(id, record): &(SecretId, DeletedRecord)| show::deleted(state, *id, record);
        Ok(v1::ListSecretsReply { secrets: found.items.iter().map(shown).collect::<Result<_, _>>()?, next_page: next(found.next) })
    })
    .await
}

/// Brings a deleted secret back.
pub(crate) async fn undelete(
    core: Arc<Core>,
    call: Call,
    message: v1::UndeleteSecretRequest,
) -> Result<v1::UndeleteSecretReply, PublicError> {
    let target: SecretTarget = parsed("secret", message.secret)?;
    let plan = |state: &State, caller: &Caller| {
        let (store, secret) = resolve::deleted(state, caller, &target)?;
        caller.require(Operation::ManageSecrets, store.reach())?;
        Ok(CommandBody::Undelete { account: store.account, store: store.id, secret })
    };
    let (body, reply) = write::plain(&core, &call, plan).await?;
    let secret = match body {
        Some(CommandBody::Undelete { store, secret, .. }) => Some(show::written(&core, store, secret, reply.position)?),
        _ => None,
    };
    Ok(v1::UndeleteSecretReply { secret, receipt: Some(reply.position.into()) })
}

/// Destroys a deleted secret, or one version of a secret.
pub(crate) async fn destroy(core: Arc<Core>, call: Call, message: v1::DestroySecretRequest) -> Result<v1::DestroySecretReply, PublicError> {
    let target: SecretTarget = parsed("secret", message.secret)?;
    let version = number(message.version).map(Version::new);
    let plan = |state: &State, caller: &Caller| {
        let (store, secret) = match version {
            None => resolve::deleted(state, caller, &target)?,
            Some(_) => {
                let found = resolve::secret(state, caller, &target)?;
                (found.store, found.id)
            }
        };
        caller.require(Operation::ManageSecrets, store.reach())?;
        Ok(CommandBody::Destroy { account: store.account, store: store.id, secret, version })
    };
    let (_, reply) = write::plain(&core, &call, plan).await?;
    Ok(v1::DestroySecretReply { receipt: Some(reply.position.into()) })
}
