//! Deletes, which may be more than one change set holds.
//!
//! A delete takes effect at once: what does not fit is marked, readers obey the mark, and a job is left that goes on in steps. A
//! job keeps no cursor. What is done is gone from the state, so a step begins at what is still there, whoever runs it.

use types::{AccountId, SecretId, StoreId};

use super::{
    Halt, Judged, View,
    deleted::{self, Keeper},
    refuse, reminders,
    secrets::{At, distinct, secret_of},
    stores::store_of,
};
use crate::{
    JobId, Prefix, RefusalKind, ReplyBody, TypedKey,
    limits::{ITEMS_MAX, STEP_CHANGES_MAX},
    record::{BoundTo, JobKind, JobRecord, SecretRecord, StoreRecord},
};

pub(super) fn delete_store(view: &mut View<'_>, account: AccountId, store: StoreId, force: bool) -> Judged<ReplyBody> {
    let record = store_of(view, account, store)?;
    if !force && view.state.has_secrets(store) {
        let message = format!("the store {} is not empty; delete its secrets first, or use force", record.name);
        return refuse(RefusalKind::Precondition, message);
    }
    if !force && let Some(users) = users(view, BoundTo::Store(store)) {
        let message = format!("the store {} is bound by {users}; unbind it first, or use force", record.name);
        return refuse(RefusalKind::Precondition, message);
    }
    let mut usage = view.usage(account)?;
    usage.stores = usage.stores.saturating_sub(1);
    view.put(TypedKey::Usage { account }, &usage);
    view.delete(TypedKey::StoreName { account, name: record.name.clone() });
    view.put(TypedKey::Store { store }, &StoreRecord { deleting: true, modified: view.time, ..record });
    let job = begin(view, JobRecord { account, kind: JobKind::ClearStore { store } })?;
    Ok(ReplyBody::StoreDeleted { store, job })
}

pub(super) fn delete_secrets(
    view: &mut View<'_>,
    account: AccountId,
    store: StoreId,
    secrets: &[SecretId],
    force: bool,
) -> Judged<ReplyBody> {
    if secrets.is_empty() || secrets.len() > ITEMS_MAX || !distinct(secrets) {
        let message = format!("{} secrets in one command; 1 to {ITEMS_MAX} are allowed, each once", secrets.len());
        return refuse(RefusalKind::InvalidArgument, message);
    }
    let mut keeper = Keeper::new(view, account)?;
    for &secret in secrets {
        let at = At { account, store, secret };
        let record = secret_of(view, at)?;
        if !force && let Some(users) = users(view, BoundTo::Secret(secret)) {
            return refuse(RefusalKind::Precondition, format!("{} is bound by {users}; unbind it first, or use force", record.name));
        }
        unname(view, store, &record)?;
        let reminder = reminders::take(view, at)?;
        keeper.keep(view, at, &record, reminder)?;
        view.put(TypedKey::Secret { store, secret }, &SecretRecord { deleting: true, modified: view.time, ..record });
    }
    let job = begin(view, JobRecord { account, kind: JobKind::ClearSecrets { store, secrets: secrets.to_vec() } })?;
    Ok(ReplyBody::SecretsDeleted { job })
}

/// Who is bound to `target`, for the one who wants to delete it: the first few by name, the others by number.
fn users(view: &View<'_>, target: BoundTo) -> Option<String> {
    const NAMED_MAX: usize = 3;
    let bound = view.state.bound_by(target);
    let (named, others) = bound.split_at(bound.len().min(NAMED_MAX));
    let named: Vec<String> = named.iter().map(|(consumer, name)| format!("{consumer} as {name}")).collect();
    match (named.is_empty(), others.len()) {
        (true, _) => None,
        (false, 0) => Some(named.join(", ")),
        (false, others) => Some(format!("{} and {others} more", named.join(", "))),
    }
}

/// Does the first step at once; leaves a job if there is more.
fn begin(view: &mut View<'_>, record: JobRecord) -> Judged<Option<JobId>> {
    let job = JobId::new(view.index);
    Ok(match clear(view, record)? {
        None => None,
        Some(rest) => {
            view.put(TypedKey::Job { job }, &rest);
            Some(job)
        }
    })
}

pub(super) fn step(view: &mut View<'_>, job: JobId) -> Judged<ReplyBody> {
    let Some(record) = view.read::<JobRecord>(TypedKey::Job { job })? else {
        return refuse(RefusalKind::NotFound, format!("no job {job}; it may be finished"));
    };
    let rest = clear(view, record)?;
    match &rest {
        Some(rest) => view.put(TypedKey::Job { job }, rest),
        None => view.delete(TypedKey::Job { job }),
    }
    Ok(ReplyBody::Stepped { done: rest.is_none() })
}

/// Clears away as much as one step may; returns what is left to do.
fn clear(view: &mut View<'_>, record: JobRecord) -> Result<Option<JobRecord>, Halt> {
    let mut left = STEP_CHANGES_MAX;
    let kind = match record.kind {
        JobKind::ClearStore { store } => {
            for secret in some_secrets(view, store) {
                if !remove(view, store, secret, &mut left)? {
                    return Ok(Some(JobRecord { kind: JobKind::ClearStore { store }, ..record }));
                }
            }
            // Nothing can be brought back without its store.
            for secret in some_deleted(view, store) {
                let changes = deleted::destroy(view, store, secret)?;
                if left < changes {
                    return Ok(Some(JobRecord { kind: JobKind::ClearStore { store }, ..record }));
                }
                left -= changes;
            }
            view.delete(TypedKey::Store { store });
            None
        }
        JobKind::ClearSecrets { store, mut secrets } => {
            let mut done = 0;
            while let Some(secret) = secrets.get(done)
                && remove(view, store, *secret, &mut left)?
            {
                done += 1;
            }
            secrets.drain(..done);
            (!secrets.is_empty()).then_some(JobKind::ClearSecrets { store, secrets })
        }
    };
    Ok(kind.map(|kind| JobRecord { account: record.account, kind }))
}

/// The first secrets of a store: more than one step can remove, since each takes several changes.
fn some_secrets(view: &View<'_>, store: StoreId) -> Vec<SecretId> {
    let prefix = Prefix::secrets(store);
    let keys = view.state.scan(&prefix).take(STEP_CHANGES_MAX).map(|(key, _)| key.decode());
    keys.filter_map(|key| match key {
        Ok(TypedKey::Secret { secret, .. }) => Some(secret),
        _ => None,
    })
    .collect()
}

/// The first deleted secrets of a store that could be brought back: more than one step can destroy, since each takes several changes.
fn some_deleted(view: &View<'_>, store: StoreId) -> Vec<SecretId> {
    let prefix = Prefix::deleted(store);
    let keys = view.state.scan_control(&prefix).take(STEP_CHANGES_MAX).map(|(key, _)| key.decode());
    keys.filter_map(|key| match key {
        Ok(TypedKey::Deleted { secret, .. }) => Some(secret),
        _ => None,
    })
    .collect()
}

/// Removes a secret with all its versions if that fits in the changes that are left; says whether it is gone.
fn remove(view: &mut View<'_>, store: StoreId, secret: SecretId, left: &mut usize) -> Result<bool, Halt> {
    let key = TypedKey::Secret { store, secret };
    let Some(record) = view.read::<SecretRecord>(key.clone())? else { return Ok(true) };
    let changes = record.versions.len() + 2;
    if changes > *left {
        return Ok(false);
    }
    *left -= changes;
    for version in &record.versions {
        view.delete(TypedKey::Value { secret, value: version.value_id });
    }
    if !record.deleting {
        unname(view, store, &record)?;
        reminders::take(view, At { account: record.account, store, secret })?;
    }
    view.delete(key);
    Ok(true)
}

/// Frees a secret's name and its place in the quota.
fn unname(view: &mut View<'_>, store: StoreId, record: &SecretRecord) -> Result<(), Halt> {
    let account = record.account;
    let mut usage = view.usage(account)?;
    usage.secrets = usage.secrets.saturating_sub(1);
    view.put(TypedKey::Usage { account }, &usage);
    view.delete(TypedKey::SecretName { store, name: record.name.clone() });
    Ok(())
}
