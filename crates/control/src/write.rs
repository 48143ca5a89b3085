//! The write path, top to bottom: identify the caller, check the grant, validate, seal, propose, await what `apply` judged, reply.
//!
//! **Invariants**
//! 1. A plaintext is wiped when the operation ends, and never enters a command: [`SealingKey::seal`] comes before `propose`.
//! 2. Nothing here is decided for good: `apply` checks every grant, name, quota and precondition again at its own index.
//! 3. When `apply` says `Reseal` (the data key was replaced meanwhile), the value is sealed anew under the key then in force.

use state::{CommandBody, NewSecret, Operation, PointerMove, Principal, Reply, RequestKey, Stage, State, record::BoundTo};
use types::{AccountId, BindingName, Comment, NodeId, RequestId, ScopeSet, SecretId, SecretName, StoreId, TokenId, UnixMillis, Version};
use wire::{
    ErrorKind, PublicError,
    parse::{ConsumerTarget, IdOrName, SecretTarget, StoreTarget},
};
use zeroize::Zeroizing;

use crate::{
    call::Call,
    caller::Caller,
    core::Core,
    error::not_sealed,
    keys::{self, SealingKey},
    resolve::{self, FoundSecret, FoundStore},
};

/// How often a value is sealed anew before the caller is told to try again.
const SEALS_MAX: u32 = 4;

/// A value on its way to be sealed.
pub(crate) type Value = Zeroizing<Vec<u8>>;

/// What is new about a secret, beside its value.
pub(crate) struct NewItem {
    pub(crate) name: SecretName,
    pub(crate) scopes: ScopeSet,
    pub(crate) comment: Comment,
    pub(crate) value: Value,
}

/// Creates secrets: all of them, or none.
pub(crate) async fn create_secrets(
    core: &Core,
    call: &Call,
    target: &StoreTarget,
    items: Vec<NewItem>,
    request: Option<RequestId>,
) -> Result<(FoundStore, Reply), PublicError> {
    let content = |store: &FoundStore| {
        let mut parts: Vec<Vec<u8>> = vec![b"create secrets".to_vec(), store.id.as_bytes().to_vec()];
        for item in &items {
            parts.extend([
                item.name.as_str().into(),
                item.comment.as_str().into(),
                u32::from(item.scopes).to_be_bytes().to_vec(),
                item.value.to_vec(),
            ]);
        }
        parts
    };
    for _ in 0..SEALS_MAX {
        let (caller, state, store) = find_store(core, call, target, Operation::ManageSecrets).await?;
        let request = request_key(core, &state, request, || content(&store))?;
        let key = SealingKey::choose(core, &state, store.account)?;
        let sealed = items.iter().map(|item| {
            let id = SecretId::from_bytes(core.entropy.id());
            let value = key.seal(core, store.id, id, &item.name, &item.value)?;
            Ok(NewSecret { id, name: item.name.clone(), scopes: item.scopes, comment: item.comment.clone(), value })
        });
        let items = sealed.collect::<Result<_, PublicError>>()?;
        let body = CommandBody::CreateSecrets { account: store.account, store: store.id, items, new_dek: key.new_dek() };
        match core.propose(call, caller, request, body).await {
            Err(error) if error.kind == ErrorKind::Reseal => continue,
            reply => return Ok((store, reply?)),
        }
    }
    Err(resealed_too_often())
}

/// Gives a secret a new value.
pub(crate) async fn set_value(
    core: &Core,
    call: &Call,
    target: &SecretTarget,
    value: Value,
    expect: Option<Version>,
    stage: Stage,
    request: Option<RequestId>,
) -> Result<(FoundSecret, Reply), PublicError> {
    for _ in 0..SEALS_MAX {
        let (caller, state, secret) = find_secret(core, call, target, Operation::ManageSecrets).await?;
        let candidate = u8::from(stage == Stage::Candidate);
        let expected = expect.map_or(0, Version::get).to_be_bytes();
        let request = request_key(core, &state, request, || {
            vec![b"set value".to_vec(), secret.id.as_bytes().to_vec(), vec![candidate], expected.to_vec(), value.to_vec()]
        })?;
        let key = SealingKey::choose(core, &state, secret.store.account)?;
        let sealed = key.seal(core, secret.store.id, secret.id, &secret.record.name, &value)?;
        let body = CommandBody::SetValue {
            account: secret.store.account,
            store: secret.store.id,
            secret: secret.id,
            value: sealed,
            expect,
            stage,
            scopes: None,
            comment: None,
            new_dek: key.new_dek(),
        };
        match core.propose(call, caller, request, body).await {
            Err(error) if error.kind == ErrorKind::Reseal => continue,
            reply => return Ok((secret, reply?)),
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
    comment: Option<Comment>,
    request: Option<RequestId>,
) -> Result<(FoundSecret, Reply), PublicError> {
    for _ in 0..SEALS_MAX {
        let (caller, state, secret) = find_secret(core, call, source, Operation::ManageSecrets).await?;
        let scopes = scopes.unwrap_or(secret.record.scopes);
        let comment = comment.clone().unwrap_or_default();
        let content = || {
            vec![
                b"duplicate".to_vec(),
                secret.id.as_bytes().to_vec(),
                name.as_str().into(),
                comment.as_str().into(),
                u32::from(scopes).to_be_bytes().to_vec(),
            ]
        };
        let request = request_key(core, &state, request, content)?;
        let key = SealingKey::choose(core, &state, secret.store.account)?;
        let current =
            secret.record.current_entry().ok_or_else(|| PublicError::new(ErrorKind::Precondition, "the source has no current value"))?;
        let plaintext = keys::open(core, &state, secret.id, &secret.record, current.value_id)?;
        let id = SecretId::from_bytes(core.entropy.id());
        let value = key.seal(core, secret.store.id, id, &name, plaintext.expose())?;
        drop(plaintext);
        let body = CommandBody::DuplicateSecret {
            account: secret.store.account,
            store: secret.store.id,
            source: secret.id,
            source_version: current.version,
            item: NewSecret { id, name: name.clone(), scopes, comment, value },
            new_dek: key.new_dek(),
        };
        match core.propose(call, caller, request, body).await {
            Err(error) if error.kind == ErrorKind::Reseal => continue,
            reply => return Ok((secret, reply?)),
        }
    }
    Err(resealed_too_often())
}

/// Changes scopes or comment; the value is not touched.
pub(crate) async fn edit_secret(
    core: &Core,
    call: &Call,
    target: &SecretTarget,
    scopes: Option<ScopeSet>,
    comment: Option<Comment>,
    request: Option<RequestId>,
) -> Result<(FoundSecret, Reply), PublicError> {
    let (caller, state, secret) = find_secret(core, call, target, Operation::ManageSecrets).await?;
    let content = || {
        let scopes = scopes.map_or(u32::MAX, u32::from).to_be_bytes().to_vec();
        vec![
            b"edit".to_vec(),
            secret.id.as_bytes().to_vec(),
            scopes,
            comment.as_ref().map_or_else(|| vec![0], |text| [b"1", text.as_str().as_bytes()].concat()),
        ]
    };
    let request = request_key(core, &state, request, content)?;
    let body = CommandBody::EditSecret {
        account: secret.store.account,
        store: secret.store.id,
        secret: secret.id,
        scopes,
        comment: comment.clone(),
    };
    let reply = core.propose(call, caller, request, body).await?;
    Ok((secret, reply))
}

/// Moves a secret's pointers; nothing is sealed again.
pub(crate) async fn move_pointer(
    core: &Core,
    call: &Call,
    target: &SecretTarget,
    to: PointerMove,
    request: Option<RequestId>,
) -> Result<(FoundSecret, Reply), PublicError> {
    let (caller, state, secret) = find_secret(core, call, target, Operation::ManageSecrets).await?;
    let request =
        request_key(core, &state, request, || vec![b"move".to_vec(), secret.id.as_bytes().to_vec(), format!("{to:?}").into_bytes()])?;
    let body = CommandBody::MovePointer { account: secret.store.account, store: secret.store.id, secret: secret.id, to, expect: None };
    let reply = core.propose(call, caller, request, body).await?;
    Ok((secret, reply))
}

/// Deletes secrets of one store: all of them, or none.
pub(crate) async fn delete_secrets(
    core: &Core,
    call: &Call,
    target: &StoreTarget,
    secrets: &[IdOrName<SecretId, SecretName>],
    force: bool,
    request: Option<RequestId>,
) -> Result<Reply, PublicError> {
    let find = |state: &State, caller: &Caller| {
        let store = resolve::store(state, caller, target)?;
        caller.require(Operation::ManageSecrets, store.reach())?;
        let one = |secret: &IdOrName<SecretId, SecretName>| {
            let target = SecretTarget { account: target.account.clone(), store: Some(target.store.clone()), secret: secret.clone() };
            resolve::secret(state, caller, &target).map(|found| found.id)
        };
        let ids = secrets.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        Ok((caller.principal(), state.clone(), store, ids))
    };
    let (caller, state, store, ids) = core.find(call, find).await?;
    let content = || {
        std::iter::once(b"delete secrets".to_vec())
            .chain([vec![u8::from(force)]])
            .chain(ids.iter().map(|id| id.as_bytes().to_vec()))
            .collect()
    };
    let request = request_key(core, &state, request, content)?;
    core.propose(call, caller, request, CommandBody::DeleteSecrets { account: store.account, store: store.id, secrets: ids.clone(), force })
        .await
}

/// Lets a consumer read a secret or a store: the first of the two permission checks.
pub(crate) async fn bind(
    core: &Core,
    call: &Call,
    consumer: &ConsumerTarget,
    name: BindingName,
    target: &BindTarget,
    request: Option<RequestId>,
) -> Result<Reply, PublicError> {
    let find = |state: &State, caller: &Caller| {
        let consumer = resolve::consumer(state, caller, consumer)?;
        let (store, bound_to) = match target {
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
        Ok((caller.principal(), state.clone(), consumer, store, bound_to))
    };
    let (caller, state, consumer, store, target) = core.find(call, find).await?;
    let content = || {
        vec![
            b"bind".to_vec(),
            consumer.account.as_bytes().to_vec(),
            consumer.to_string().into_bytes(),
            name.as_str().into(),
            format!("{target:?}").into_bytes(),
        ]
    };
    let request = request_key(core, &state, request, content)?;
    let body = CommandBody::Bind { consumer: consumer.clone(), name: name.clone(), store: store.id, target, replace: false };
    core.propose(call, caller, request, body).await
}

/// What is bound.
pub(crate) enum BindTarget {
    /// One secret.
    Secret(SecretTarget),
    /// Every secret of a store.
    Store(StoreTarget),
}

/// A write that carries no value: what it is allowed by, and the command that follows from the caller's state.
pub(crate) async fn plain(
    core: &Core,
    call: &Call,
    request: Option<RequestId>,
    plan: impl Fn(&State, &Caller) -> Result<CommandBody, PublicError>,
) -> Result<(CommandBody, Reply), PublicError> {
    let (caller, state, body) = core.find(call, |state, caller| Ok((caller.principal(), state.clone(), plan(state, caller)?))).await?;
    // Ids that were drawn for this attempt are no part of what the caller asked for.
    let request = request_key(core, &state, request, || vec![b"plain".to_vec(), asked_for(&body)])?;
    let reply = core.propose(call, caller, request, body.clone()).await?;
    Ok((body, reply))
}

/// What a command asks for, without the ids and hashes that were drawn for it.
fn asked_for(body: &CommandBody) -> Vec<u8> {
    let none_account = AccountId::from_bytes([0; 16]);
    let none_store = StoreId::from_bytes([0; 16]);
    let none_token = TokenId::from_bytes([0; 16]);
    let mut body = body.clone();
    match &mut body {
        CommandBody::CreateAccount { account, .. } => *account = none_account,
        CommandBody::CreateStore { store, .. } => *store = none_store,
        CommandBody::CreateConsumerToken { token, hash, .. } | CommandBody::RollConsumerToken { token, hash, .. } => {
            *token = none_token;
            *hash = [0; 32];
        }
        _ => {}
    }
    let command = state::Command {
        level: types::FeatureLevel::new(1),
        principal: Principal::Node { node: NodeId::new(0) },
        stamp: UnixMillis::new(0),
        request: None,
        origin: state::Origin::default(),
        body,
    };
    command.encode().to_vec()
}

/// The request id with a keyed hash of the content, by which `apply` tells a retry from another request under the same id.
fn request_key(
    core: &Core,
    state: &State,
    request: Option<RequestId>,
    content: impl FnOnce() -> Vec<Vec<u8>>,
) -> Result<Option<RequestKey>, PublicError> {
    let Some(id) = request else { return Ok(None) };
    let epoch = keys::active_epoch(core, state)?;
    let content: Vec<Zeroizing<Vec<u8>>> = content().into_iter().map(Zeroizing::new).collect();
    let parts: Vec<&[u8]> = content.iter().map(|part| part.as_slice()).collect();
    let fingerprint = core.ring.fingerprint(&core.domain, epoch, &parts).map_err(|error| not_sealed(&error))?;
    Ok(Some(RequestKey { id, fingerprint }))
}

async fn find_store(
    core: &Core,
    call: &Call,
    target: &StoreTarget,
    operation: Operation,
) -> Result<(Principal, State, FoundStore), PublicError> {
    let find = |state: &State, caller: &Caller| {
        let store = resolve::store(state, caller, target)?;
        caller.require(operation, store.reach())?;
        Ok((caller.principal(), state.clone(), store))
    };
    core.find(call, find).await
}

async fn find_secret(
    core: &Core,
    call: &Call,
    target: &SecretTarget,
    operation: Operation,
) -> Result<(Principal, State, FoundSecret), PublicError> {
    let find = |state: &State, caller: &Caller| {
        let secret = resolve::secret(state, caller, target)?;
        caller.require(operation, secret.store.reach())?;
        Ok((caller.principal(), state.clone(), secret))
    };
    core.find(call, find).await
}

fn resealed_too_often() -> PublicError {
    PublicError::new(ErrorKind::Reseal, "the account's data key was replaced again and again while the value was sealed: try again")
}
