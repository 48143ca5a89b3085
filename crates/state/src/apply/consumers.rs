//! Consumers, their tokens and their bindings.

use types::{BindingName, ConsumerRef, Scope, StoreId, TokenId, UnixMillis};

use super::{
    Halt, Identity, Judged, View, gate,
    operators::in_future,
    refuse,
    secrets::{At, secret_of},
    stores::{account_of, store_of},
};
use crate::{
    GrantScope, Operation, Prefix, RefusalKind, ReplyBody, TypedKey,
    limits::{BINDINGS_PER_CONSUMER_MAX, CONSUMERS_PER_ACCOUNT_MAX, TOKENS_PER_CONSUMER_MAX},
    record::{BindingRecord, BindingTarget, BoundTo, ConsumerRecord, ConsumerTokenRecord, ConsumerUsageRecord},
};

pub(super) fn create(view: &mut View<'_>, consumer: &ConsumerRef) -> Judged<ReplyBody> {
    let account = consumer.account;
    account_of(view, account)?;
    let key = TypedKey::Consumer { consumer: consumer.clone() };
    if view.has(key.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("the consumer {consumer} exists already"));
    }
    let mut usage = view.usage(account)?;
    if usage.consumers >= CONSUMERS_PER_ACCOUNT_MAX {
        let message = format!("the account has {CONSUMERS_PER_ACCOUNT_MAX} consumers, the most that it can hold");
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    usage.consumers += 1;
    view.put(TypedKey::Usage { account }, &usage);
    view.put(key, &ConsumerRecord { created: view.time });
    Ok(ReplyBody::ConsumerCreated)
}

/// Deletes a consumer with all it has, which the limits keep within one change set.
pub(super) fn delete(view: &mut View<'_>, consumer: &ConsumerRef) -> Judged<ReplyBody> {
    consumer_of(view, consumer)?;
    let bindings = Prefix::bindings(consumer);
    let keys: Vec<_> = view.state.scan(&bindings).filter_map(|(key, _)| key.decode().ok()).collect();
    for key in keys {
        if let TypedKey::Binding { name, .. } = key {
            remove_binding(view, consumer, &name)?;
        }
    }
    let tokens = Prefix::consumer_tokens(consumer);
    let keys: Vec<_> = view.state.scan_control(&tokens).filter_map(|(key, _)| key.decode().ok()).collect();
    for key in keys {
        if let Some(hash) = view.read(key.clone())? {
            view.delete(TypedKey::ConsumerToken { hash });
        }
        view.delete(key);
    }
    let account = consumer.account;
    let mut usage = view.usage(account)?;
    usage.consumers = usage.consumers.saturating_sub(1);
    view.put(TypedKey::Usage { account }, &usage);
    view.delete(TypedKey::ConsumerUsage { consumer: consumer.clone() });
    view.delete(TypedKey::Consumer { consumer: consumer.clone() });
    Ok(ReplyBody::ConsumerDeleted)
}

fn consumer_of(view: &View<'_>, consumer: &ConsumerRef) -> Judged<()> {
    if view.has(TypedKey::Consumer { consumer: consumer.clone() }) {
        return Ok(());
    }
    refuse(RefusalKind::NotFound, format!("no consumer {consumer}; make it first (`cinnabar consumer create {consumer}`)"))
}

fn usage_of(view: &View<'_>, consumer: &ConsumerRef) -> Result<ConsumerUsageRecord, Halt> {
    Ok(view.read(TypedKey::ConsumerUsage { consumer: consumer.clone() })?.unwrap_or_default())
}

fn put_usage(view: &mut View<'_>, consumer: &ConsumerRef, usage: ConsumerUsageRecord) {
    let key = TypedKey::ConsumerUsage { consumer: consumer.clone() };
    if usage == ConsumerUsageRecord::default() { view.delete(key) } else { view.put(key, &usage) }
}

pub(super) fn create_token(
    view: &mut View<'_>,
    consumer: &ConsumerRef,
    token: TokenId,
    hash: [u8; 32],
    expires: Option<UnixMillis>,
) -> Judged<ReplyBody> {
    consumer_of(view, consumer)?;
    in_future(view, expires)?;
    drop_expired(view, consumer)?;
    let key = TypedKey::ConsumerToken { hash };
    let by_id = TypedKey::ConsumerTokenId { consumer: consumer.clone(), token };
    if view.has(key.clone()) || view.has(by_id.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("the token {token} exists already"));
    }
    let mut usage = usage_of(view, consumer)?;
    if usage.tokens >= TOKENS_PER_CONSUMER_MAX {
        let message = format!("{consumer} has {TOKENS_PER_CONSUMER_MAX} tokens, the most that it can have; revoke one");
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    usage.tokens += 1;
    put_usage(view, consumer, usage);
    view.put(key, &ConsumerTokenRecord { consumer: consumer.clone(), token_id: token, created: view.time, expires });
    view.put(by_id, &hash);
    Ok(ReplyBody::ConsumerTokenCreated { token })
}

/// Ends a token, at once or at a time that is yet to come.
pub(super) fn retire_token(view: &mut View<'_>, consumer: &ConsumerRef, token: TokenId, until: Option<UnixMillis>) -> Judged<()> {
    let by_id = TypedKey::ConsumerTokenId { consumer: consumer.clone(), token };
    let Some(hash) = view.read::<[u8; 32]>(by_id.clone())? else {
        return refuse(RefusalKind::NotFound, format!("{consumer} has no token {token}"));
    };
    let key = TypedKey::ConsumerToken { hash };
    match (until.filter(|until| *until > view.time), view.read::<ConsumerTokenRecord>(key.clone())?) {
        (Some(until), Some(record)) => {
            let expires = Some(record.expires.map_or(until, |expires| expires.min(until)));
            view.put(key, &ConsumerTokenRecord { expires, ..record });
        }
        _ => remove_token(view, consumer, token, hash)?,
    }
    Ok(())
}

fn remove_token(view: &mut View<'_>, consumer: &ConsumerRef, token: TokenId, hash: [u8; 32]) -> Result<(), Halt> {
    view.delete(TypedKey::ConsumerToken { hash });
    view.delete(TypedKey::ConsumerTokenId { consumer: consumer.clone(), token });
    let mut usage = usage_of(view, consumer)?;
    usage.tokens = usage.tokens.saturating_sub(1);
    put_usage(view, consumer, usage);
    Ok(())
}

/// Clears away tokens that have expired, so that they do not count.
fn drop_expired(view: &mut View<'_>, consumer: &ConsumerRef) -> Result<(), Halt> {
    let tokens = Prefix::consumer_tokens(consumer);
    let keys: Vec<_> = view.state.scan_control(&tokens).filter_map(|(key, _)| key.decode().ok()).collect();
    for key in keys {
        let TypedKey::ConsumerTokenId { token, .. } = key else { continue };
        let Some(hash) = view.read::<[u8; 32]>(key)? else { continue };
        let record = view.read::<ConsumerTokenRecord>(TypedKey::ConsumerToken { hash })?;
        if record.and_then(|record| record.expires).is_some_and(|expires| expires <= view.time) {
            remove_token(view, consumer, token, hash)?;
        }
    }
    Ok(())
}

pub(super) fn bind(
    view: &mut View<'_>,
    identity: &Identity,
    consumer: &ConsumerRef,
    name: &BindingName,
    (store, target): (StoreId, BoundTo),
    replace: bool,
) -> Judged<ReplyBody> {
    consumer_of(view, consumer)?;
    let target = resolve(view, consumer, store, target)?;
    let key = TypedKey::Binding { consumer: consumer.clone(), name: name.clone() };
    match view.read::<BindingRecord>(key.clone())? {
        Some(bound) if bound.target == target => return Ok(ReplyBody::Bound { target }),
        Some(_) if !replace => {
            let message = format!("{consumer} has {name} bound to something else; unbind it first, or replace it");
            return refuse(RefusalKind::AlreadyExists, message);
        }
        Some(bound) => {
            // What is taken away may be in another store than what is given.
            gate::permit(identity, Operation::Bind, GrantScope::Store(consumer.account, bound.target.store()))?;
            remove_binding(view, consumer, name)?;
        }
        None => {}
    }
    let mut usage = usage_of(view, consumer)?;
    if usage.bindings >= BINDINGS_PER_CONSUMER_MAX {
        let message = format!("{consumer} has {BINDINGS_PER_CONSUMER_MAX} bindings, the most that it can have; unbind some");
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    usage.bindings += 1;
    put_usage(view, consumer, usage);
    view.put(key, &BindingRecord { target: target.clone(), created: view.time });
    view.put(TypedKey::BoundBy { target: target.bound_to(), consumer: consumer.clone(), name: name.clone() }, &());
    Ok(ReplyBody::Bound { target })
}

/// The target with its name, if it is there and the consumer may have it. Of a store, lookups check each secret's scopes.
fn resolve(view: &View<'_>, consumer: &ConsumerRef, store: StoreId, target: BoundTo) -> Judged<BindingTarget> {
    let account = consumer.account;
    let record = store_of(view, account, store)?;
    match target {
        BoundTo::Store(same) if same == store => Ok(BindingTarget::Store { store, name: record.name }),
        BoundTo::Store(_) => refuse(RefusalKind::InvalidArgument, "the binding names two stores"),
        BoundTo::Secret(secret) => {
            let record = secret_of(view, At { account, store, secret })?;
            let scope = Scope::of_kind(consumer.kind);
            if !record.scopes.contains(scope) {
                let message = format!(
                    "{} has not the scope {scope}, which {consumer} needs; add it (`cinnabar secret edit --scope {scope}`)",
                    record.name
                );
                return refuse(RefusalKind::Denied, message);
            }
            Ok(BindingTarget::Secret { store, secret, name: record.name })
        }
    }
}

pub(super) fn unbind(view: &mut View<'_>, consumer: &ConsumerRef, name: &BindingName) -> Judged<ReplyBody> {
    if !view.has(TypedKey::Binding { consumer: consumer.clone(), name: name.clone() }) {
        return refuse(RefusalKind::NotFound, format!("{consumer} has nothing bound to {name}"));
    }
    remove_binding(view, consumer, name)?;
    Ok(ReplyBody::Unbound)
}

fn remove_binding(view: &mut View<'_>, consumer: &ConsumerRef, name: &BindingName) -> Result<(), Halt> {
    let key = TypedKey::Binding { consumer: consumer.clone(), name: name.clone() };
    let Some(bound) = view.read::<BindingRecord>(key.clone())? else { return Ok(()) };
    view.delete(TypedKey::BoundBy { target: bound.target.bound_to(), consumer: consumer.clone(), name: name.clone() });
    view.delete(key);
    let mut usage = usage_of(view, consumer)?;
    usage.bindings = usage.bindings.saturating_sub(1);
    put_usage(view, consumer, usage);
    Ok(())
}
