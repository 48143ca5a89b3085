//! The write path, top to bottom: identify the caller, check the grant, validate, seal, propose, await what `apply` judged, reply.
//!
//! **Invariants**
//! 1. A plaintext is wiped when the operation ends, and never enters a command: [`SealingKey::seal`] comes before `propose`.
//! 2. Nothing here is decided for good: `apply` checks every grant, name, quota and precondition again at its own index.
//! 3. When `apply` says `Reseal` (the data key was replaced meanwhile), the value is sealed anew under the key then in force.
//! 4. A request that was answered before gets its first answer, before anything is looked up: what it deleted may be gone.
//! 5. Nobody is told that something is missing because this node is behind: what `apply` does not find is looked up once more on the
//!    newest state, as its name may stand for something else by now.

use state::{CommandBody, NewSecret, Operation, PointerMove, Principal, Reminder, ReminderEdit, Reply, Stage, State, record::BoundTo};
use types::{BindingName, Comment, ConsumerRef, ScopeSet, SecretId, SecretName, Version};
use wire::{
    ErrorKind, PublicError,
    parse::{ConsumerTarget, IdOrName, SecretTarget, StoreTarget},
};
use zeroize::Zeroizing;

use crate::{
    call::Call,
    caller::Caller,
    core::Core,
    keys::{self, SealingKey},
    resolve::{self, FoundSecret, FoundStore},
};

/// How often a value is sealed anew before the caller is told to try again.
const SEALS_MAX: u32 = 4;

/// A value on its way to be sealed.
pub(crate) type Value = Zeroizing<Vec<u8>>;

/// Where names are looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Here, which may be behind.
    Here,
    /// On the newest state.
    Newest,
}

impl Seen {
    /// Whether `apply` may have found nothing because the name was looked up by a state that was behind.
    fn may_be_behind(self, error: &PublicError) -> bool {
        self == Self::Here && error.kind == ErrorKind::NotFound
    }
}

/// What is new about a secret, beside its value.
pub(crate) struct NewItem {
    pub(crate) name: SecretName,
    pub(crate) scopes: ScopeSet,
    pub(crate) comment: Comment,
    pub(crate) value: Value,
}

/// What was written, and what it was written to; none when a repeated request's target is gone by now.
pub(crate) type Written<T> = (Option<T>, Reply);

/// Creates secrets: all of them, or none.
pub(crate) async fn create_secrets(
    core: &Core,
    call: &Call,
    target: &StoreTarget,
    items: Vec<NewItem>,
    reminder: Reminder,
) -> Result<Written<FoundStore>, PublicError> {
    if let Some(reply) = core.first_answer(call).await? {
        return Ok((core.find(call, |state, caller| resolve::store(state, caller, target)).await.ok(), reply));
    }
    let mut seen = Seen::Here;
    for _ in 0..SEALS_MAX {
        let (caller, state, store) = find_store(core, call, seen, target).await?;
        let key = SealingKey::choose(core, &state, store.account, items.len())?;
        let sealed = items.iter().map(|item| {
            let id = SecretId::from_bytes(core.entropy.id());
            let value = key.seal(core, store.id, id, &item.name, &item.value)?;
            Ok(NewSecret { id, name: item.name.clone(), scopes: item.scopes, comment: item.comment.clone(), value })
        });
        let items = sealed.collect::<Result<Vec<_>, PublicError>>()?;
        // Of a state that is held, every change has to copy more.
        drop(state);
        let (account, id, new_dek) = (store.account, store.id, key.new_dek());
        let body = if reminder == Reminder::default() {
            CommandBody::CreateSecrets { account, store: id, items, new_dek }
        } else {
            let reminders = vec![reminder; items.len()];
            CommandBody::CreateWithReminders { account, store: id, items, new_dek, reminders }
        };
        match core.propose(call, caller, body).await {
            Err(error) if error.kind == ErrorKind::Reseal => continue,
            Err(error) if seen.may_be_behind(&error) => seen = Seen::Newest,
            reply => return Ok((Some(store), reply?)),
        }
    }
    Err(resealed_too_often())
}

/// Gives a secret a new value, and other scopes and another comment if these are there.
pub(crate) async fn set_value(
    core: &Core,
    call: &Call,
    target: &SecretTarget,
    value: Value,
    (expect, stage): (Option<Version>, Stage),
    (scopes, comment): (Option<ScopeSet>, Option<Comment>),
) -> Result<Written<FoundSecret>, PublicError> {
    if let Some(reply) = core.first_answer(call).await? {
        return Ok((again(core, call, target).await, reply));
    }
    let mut seen = Seen::Here;
    for _ in 0..SEALS_MAX {
        let (caller, state, secret) = find_secret(core, call, seen, target).await?;
        let key = SealingKey::choose(core, &state, secret.store.account, 1)?;
        let sealed = key.seal(core, secret.store.id, secret.id, &secret.record.name, &value)?;
        drop(state);
        let body = CommandBody::SetValue {
            account: secret.store.account,
            store: secret.store.id,
            secret: secret.id,
            value: sealed,
            expect,
            stage,
            scopes,
            comment: comment.clone(),
            new_dek: key.new_dek(),
        };
        match core.propose(call, caller, body).await {
            Err(error) if error.kind == ErrorKind::Reseal => continue,
            Err(error) if seen.may_be_behind(&error) => seen = Seen::Newest,
            reply => return Ok((Some(secret), reply?)),
        }
    }
    Err(resealed_too_often())
}

/// Copies a secret's current value under a new name in the same store. The value is opened and sealed anew inside this node.
pub(crate) async fn duplicate(
    core: &Core,
    call: &Call,
    source: &SecretTarget,
    name: SecretName,
    scopes: Option<ScopeSet>,
    comment: Comment,
) -> Result<Written<FoundSecret>, PublicError> {
    if let Some(reply) = core.first_answer(call).await? {
        return Ok((again(core, call, source).await, reply));
    }
    let mut seen = Seen::Here;
    for _ in 0..SEALS_MAX {
        let (caller, state, secret) = find_secret(core, call, seen, source).await?;
        let key = SealingKey::choose(core, &state, secret.store.account, 1)?;
        let current =
            secret.record.current_entry().ok_or_else(|| PublicError::new(ErrorKind::Precondition, "the source has no current value"))?;
        let plaintext = keys::open(core, &state, secret.id, &secret.record, current.value_id)?;
        let id = SecretId::from_bytes(core.entropy.id());
        let value = key.seal(core, secret.store.id, id, &name, plaintext.expose())?;
        drop((plaintext, state));
        let body = CommandBody::DuplicateSecret {
            account: secret.store.account,
            store: secret.store.id,
            source: secret.id,
            source_version: current.version,
            item: NewSecret { id, name: name.clone(), scopes: scopes.unwrap_or(secret.record.scopes), comment: comment.clone(), value },
            new_dek: key.new_dek(),
        };
        match core.propose(call, caller, body).await {
            Err(error) if error.kind == ErrorKind::Reseal => continue,
            Err(error) if seen.may_be_behind(&error) => seen = Seen::Newest,
            reply => return Ok((Some(secret), reply?)),
        }
    }
    Err(resealed_too_often())
}

/// Changes scopes, comment or reminder; the value is not touched.
pub(crate) async fn edit_secret(
    core: &Core,
    call: &Call,
    target: &SecretTarget,
    scopes: Option<ScopeSet>,
    comment: Option<Comment>,
    reminder: ReminderEdit,
) -> Result<Written<FoundSecret>, PublicError> {
    on_secret(core, call, target, |secret| {
        let (account, store, secret, comment) = (secret.store.account, secret.store.id, secret.id, comment.clone());
        if reminder == ReminderEdit::default() {
            CommandBody::EditSecret { account, store, secret, scopes, comment }
        } else {
            CommandBody::EditWithReminder { account, store, secret, scopes, comment, reminder }
        }
    })
    .await
}

/// Moves a secret's pointers; nothing is sealed again.
pub(crate) async fn move_pointer(
    core: &Core,
    call: &Call,
    target: &SecretTarget,
    to: PointerMove,
) -> Result<Written<FoundSecret>, PublicError> {
    on_secret(core, call, target, |secret| CommandBody::MovePointer {
        account: secret.store.account,
        store: secret.store.id,
        secret: secret.id,
        to,
        expect: None,
    })
    .await
}

async fn on_secret(
    core: &Core,
    call: &Call,
    target: &SecretTarget,
    body: impl Fn(&FoundSecret) -> CommandBody,
) -> Result<Written<FoundSecret>, PublicError> {
    if let Some(reply) = core.first_answer(call).await? {
        return Ok((again(core, call, target).await, reply));
    }
    let mut seen = Seen::Here;
    loop {
        let (caller, _, secret) = find_secret(core, call, seen, target).await?;
        match core.propose(call, caller, body(&secret)).await {
            Err(error) if seen.may_be_behind(&error) => seen = Seen::Newest,
            reply => return Ok((Some(secret), reply?)),
        }
    }
}

/// Deletes secrets of one store: all of them, or none.
pub(crate) async fn delete_secrets(
    core: &Core,
    call: &Call,
    target: &StoreTarget,
    secrets: &[IdOrName<SecretId, SecretName>],
    force: bool,
) -> Result<Reply, PublicError> {
    let (_, reply) = plain(core, call, |state, caller| {
        let store = resolve::store(state, caller, target)?;
        caller.require(Operation::ManageSecrets, store.reach())?;
        let ids = secrets.iter().map(|secret| resolve::id_in_store(state, &store, secret)).collect::<Result<_, _>>()?;
        Ok(CommandBody::DeleteSecrets { account: store.account, store: store.id, secrets: ids, force })
    })
    .await?;
    Ok(reply)
}

/// What is bound.
pub(crate) enum BindTarget {
    /// One secret.
    Secret(SecretTarget),
    /// Every secret of a store.
    Store(StoreTarget),
}

/// Lets a consumer read a secret or a store: the first of the two permission checks.
pub(crate) async fn bind(
    core: &Core,
    call: &Call,
    consumer: &ConsumerTarget,
    name: &BindingName,
    target: &BindTarget,
) -> Result<Written<ConsumerRef>, PublicError> {
    let (body, reply) = plain(core, call, |state, caller| {
        let consumer = resolve::consumer(state, caller, consumer)?;
        let (store, target) = match target {
            BindTarget::Secret(target) => {
                let secret = resolve::secret(state, caller, target)?;
                (secret.store, BoundTo::Secret(secret.id))
            }
            BindTarget::Store(target) => {
                let store = resolve::store(state, caller, target)?;
                let id = store.id;
                (store, BoundTo::Store(id))
            }
        };
        caller.require(Operation::Bind, store.reach())?;
        Ok(CommandBody::Bind { consumer, name: name.clone(), store: store.id, target, replace: false })
    })
    .await?;
    let consumer = match body {
        Some(CommandBody::Bind { consumer, .. }) => Some(consumer),
        _ => None,
    };
    Ok((consumer, reply))
}

/// A write that carries no value: what it is allowed by, and the command that follows from the caller's state.
pub(crate) async fn plain(
    core: &Core,
    call: &Call,
    plan: impl Fn(&State, &Caller) -> Result<CommandBody, PublicError>,
) -> Result<Written<CommandBody>, PublicError> {
    if let Some(reply) = core.first_answer(call).await? {
        return Ok((core.find(call, plan).await.ok(), reply));
    }
    let mut seen = Seen::Here;
    loop {
        let (caller, body) = find_on(core, seen, call, |state, caller| Ok((caller.principal(), plan(state, caller)?))).await?;
        match core.propose(call, caller, body.clone()).await {
            Err(error) if seen.may_be_behind(&error) => seen = Seen::Newest,
            reply => return Ok((Some(body), reply?)),
        }
    }
}

async fn find_on<T>(
    core: &Core,
    seen: Seen,
    call: &Call,
    find: impl Fn(&State, &Caller) -> Result<T, PublicError>,
) -> Result<T, PublicError> {
    match seen {
        Seen::Here => core.find(call, find).await,
        Seen::Newest => core.read(call, find).await,
    }
}

/// The target of a repeated request, if it is still there.
async fn again(core: &Core, call: &Call, target: &SecretTarget) -> Option<FoundSecret> {
    core.find(call, |state, caller| resolve::secret(state, caller, target)).await.ok()
}

async fn find_store(core: &Core, call: &Call, seen: Seen, target: &StoreTarget) -> Result<(Principal, State, FoundStore), PublicError> {
    let find = |state: &State, caller: &Caller| {
        let store = resolve::store(state, caller, target)?;
        caller.require(Operation::ManageSecrets, store.reach())?;
        Ok((caller.principal(), state.clone(), store))
    };
    find_on(core, seen, call, find).await
}

async fn find_secret(core: &Core, call: &Call, seen: Seen, target: &SecretTarget) -> Result<(Principal, State, FoundSecret), PublicError> {
    let find = |state: &State, caller: &Caller| {
        let secret = resolve::secret(state, caller, target)?;
        caller.require(Operation::ManageSecrets, secret.store.reach())?;
        Ok((caller.principal(), state.clone(), secret))
    };
    find_on(core, seen, call, find).await
}

fn resealed_too_often() -> PublicError {
    PublicError::new(ErrorKind::Reseal, "the account's data key was replaced again and again while the value was sealed: try again")
}
