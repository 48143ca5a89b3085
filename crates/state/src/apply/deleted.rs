//! Deleted secrets: kept for a while, brought back, destroyed.
//!
//! A deleted secret is gone for edges and consumers at once. What is kept of it are copies of its record and of its sealed values, where
//! control nodes alone have them; bringing it back is putting them where they were. They stay sealed as they were: data keys are kept as
//! long as anything may be sealed under them, and a key epoch is destroyed only when it wraps none. So a copy opens after it came back
//! whatever was rotated meanwhile, and a secret whose values a revoked node could open is listed as exposed again.
//!
//! What is kept is bounded by a window of log time, and by number and bytes for each account. The oldest is destroyed first.

use std::collections::VecDeque;

use types::{AccountId, SecretId, StoreId, Version};

use super::{
    Halt, Judged, View, limits, refuse, reminders,
    secrets::{At, room_for, secret_of},
    stores::store_of,
};
use crate::{
    Key, Keyspace, Prefix, RefusalKind, Reminder, ReplyBody, TypedKey,
    limits::{DELETED_SWEPT_MAX, Limits},
    record::{DeletedRecord, HoldingsRecord, SecretRecord},
};

/// Keeps what one command deletes.
pub(super) struct Keeper {
    account: AccountId,
    /// None: nothing is kept.
    limits: Option<Limits>,
    /// Where the account's oldest copies from before this command were looked for.
    after: Option<Key>,
    /// What this command has kept, the oldest first.
    kept: VecDeque<(StoreId, SecretId)>,
}

impl Keeper {
    pub(super) fn new(view: &View<'_>, account: AccountId) -> Result<Self, Halt> {
        let limits = match view.level()? >= limits::LEVEL {
            true => Some(view.state.limits(account)?).filter(|limits| limits.undelete_window_ms > 0 && limits.undelete_secrets > 0),
            false => None,
        };
        Ok(Self { account, limits, after: None, kept: VecDeque::new() })
    }

    /// Keeps a secret that is being deleted, if it fits: all its versions, or else the current and the previous one.
    pub(super) fn keep(&mut self, view: &mut View<'_>, at: At, record: &SecretRecord, reminder: Reminder) -> Result<(), Halt> {
        let Some(limits) = self.limits else { return Ok(()) };
        let mut secret = SecretRecord { deleting: false, ..record.clone() };
        let mut bytes = bytes_of(view, at.secret, &secret);
        if bytes > limits.undelete_bytes {
            secret.versions.retain(|entry| entry.version == record.current || Some(entry.version) == record.previous);
            secret.candidate = secret.candidate.filter(|candidate| secret.version(*candidate).is_some());
            bytes = bytes_of(view, at.secret, &secret);
        }
        if bytes > limits.undelete_bytes {
            return Ok(());
        }
        for entry in &secret.versions {
            let copy = view.raw(&TypedKey::Value { secret: at.secret, value: entry.value_id }.encode());
            view.put_raw(TypedKey::DeletedValue { secret: at.secret, value: entry.value_id }, copy);
        }
        let until = view.time.plus(std::time::Duration::from_millis(limits.undelete_window_ms));
        let (deleted, index) = (view.time, view.index);
        let record = DeletedRecord { secret, reminder, deleted, until, index, bytes };
        let At { account, store, secret } = at;
        view.put(TypedKey::Deleted { store, secret }, &record);
        view.put(TypedKey::DeletedUntil { until, store, secret }, &());
        view.put(TypedKey::DeletedOf { account, index, store, secret }, &());
        self.kept.push_back((store, secret));
        let mut held = limits::holdings(view, account)?;
        held.deleted_secrets += 1;
        held.deleted_bytes += bytes;
        view.put(TypedKey::Holdings { account: Some(account) }, &held);
        self.make_room(view, limits)
    }

    /// Destroys the oldest copies while there are too many.
    fn make_room(&mut self, view: &mut View<'_>, limits: Limits) -> Result<(), Halt> {
        let full = |held: &HoldingsRecord| held.deleted_secrets > limits.undelete_secrets || held.deleted_bytes > limits.undelete_bytes;
        while full(&limits::holdings(view, self.account)?) {
            let all = Prefix::deleted_of(self.account);
            let oldest = view.state.control_after(&all, self.after.as_ref()).next().map(|(key, _)| key.clone());
            let oldest = match oldest {
                Some(key) => {
                    let found = match key.decode() {
                        Ok(TypedKey::DeletedOf { store, secret, .. }) => Some((store, secret)),
                        _ => None,
                    };
                    self.after = Some(key);
                    found
                }
                None => match self.kept.pop_front() {
                    Some(kept) => Some(kept),
                    None => return Ok(()),
                },
            };
            if let Some((store, secret)) = oldest {
                destroy(view, store, secret)?;
            }
        }
        Ok(())
    }
}

fn bytes_of(view: &View<'_>, secret: SecretId, record: &SecretRecord) -> u64 {
    let length = |value| view.raw(&TypedKey::Value { secret, value }.encode()).map_or(0, |bytes| bytes.len() as u64);
    record.versions.iter().map(|entry| length(entry.value_id)).sum()
}

/// Destroys the copy of a deleted secret; says how many records that took.
pub(super) fn destroy(view: &mut View<'_>, store: StoreId, secret: SecretId) -> Result<usize, Halt> {
    let Some(record) = view.read::<DeletedRecord>(TypedKey::Deleted { store, secret })? else { return Ok(1) };
    for entry in &record.secret.versions {
        view.delete(TypedKey::DeletedValue { secret, value: entry.value_id });
    }
    let account = record.secret.account;
    view.delete(TypedKey::Deleted { store, secret });
    view.delete(TypedKey::DeletedUntil { until: record.until, store, secret });
    view.delete(TypedKey::DeletedOf { account, index: record.index, store, secret });
    let mut held = limits::holdings(view, account)?;
    held.deleted_secrets = held.deleted_secrets.saturating_sub(1);
    held.deleted_bytes = held.deleted_bytes.saturating_sub(record.bytes);
    view.put(TypedKey::Holdings { account: Some(account) }, &held);
    Ok(record.secret.versions.len() + 3)
}

/// Destroys what is over, a bounded part of it with each command.
pub(super) fn sweep(view: &mut View<'_>) -> Result<(), Halt> {
    let all = Prefix::keyspace(Keyspace::DeletedUntil);
    let (state, mut changes) = (view.state, 0);
    for (key, _) in state.scan_control(&all) {
        let Ok(TypedKey::DeletedUntil { until, store, secret }) = key.decode() else { continue };
        if view.time < until || changes >= DELETED_SWEPT_MAX {
            break;
        }
        changes += destroy(view, store, secret)?;
    }
    Ok(())
}

/// A deleted secret of this account and store whose time is not over.
fn deleted_of(view: &View<'_>, At { account, store, secret }: At) -> Judged<DeletedRecord> {
    store_of(view, account, store)?;
    match view.read::<DeletedRecord>(TypedKey::Deleted { store, secret })? {
        Some(record) if record.secret.account == account && view.time < record.until => Ok(record),
        _ => refuse(RefusalKind::NotFound, format!("no deleted secret {secret} in this store; it may have been destroyed")),
    }
}

pub(super) fn undelete(view: &mut View<'_>, at: At) -> Judged<ReplyBody> {
    let record = deleted_of(view, at)?;
    let At { account, store, secret } = at;
    let (key, name) = (TypedKey::Secret { store, secret }, record.secret.name.clone());
    if view.has(key.clone()) {
        return refuse(RefusalKind::Precondition, format!("{name} is still being cleared away; try again in a moment"));
    }
    let by_name = TypedKey::SecretName { store, name: name.clone() };
    if view.has(by_name.clone()) {
        let message = format!("a secret named {name} exists already in this store; delete it first, or copy what you need of it");
        return refuse(RefusalKind::AlreadyExists, message);
    }
    room_for(view, account, 1)?;
    for entry in &record.secret.versions {
        let copy = view.raw(&TypedKey::DeletedValue { secret, value: entry.value_id }.encode());
        view.put_raw(TypedKey::Value { secret, value: entry.value_id }, copy);
    }
    destroy(view, store, secret)?;
    let back = SecretRecord { modified: view.time, ..record.secret };
    view.put(by_name, &secret);
    view.put(key, &back);
    reminders::put(view, at, &back, record.reminder);
    Ok(ReplyBody::SecretUndeleted { current: back.current })
}

/// Destroys a deleted secret, or one version of a secret.
pub(super) fn destroy_what(view: &mut View<'_>, at: At, version: Option<Version>) -> Judged<ReplyBody> {
    let Some(version) = version else {
        if let Err(missing) = deleted_of(view, at) {
            // One that is there has to be deleted first: two steps, for what cannot be undone.
            let record = secret_of(view, at).map_err(|_| missing)?;
            return refuse(
                RefusalKind::Precondition,
                format!("{} is not deleted; delete it first (`cinnabar secret delete`)", record.name),
            );
        }
        destroy(view, at.store, at.secret)?;
        return Ok(ReplyBody::SecretDestroyed);
    };
    let mut record = secret_of(view, at)?;
    if version == record.current {
        let message = format!("version {version} of {} is current; give it a new value, or roll back, first", record.name);
        return refuse(RefusalKind::Precondition, message);
    }
    let Some(entry) = record.version(version).copied() else {
        let message = format!("{} has no version {version} (`cinnabar secret versions` lists them)", record.name);
        return refuse(RefusalKind::NotFound, message);
    };
    view.delete(TypedKey::Value { secret: at.secret, value: entry.value_id });
    record.versions.retain(|entry| entry.version != version);
    record.previous = record.previous.filter(|previous| *previous != version);
    record.candidate = record.candidate.filter(|candidate| *candidate != version);
    record.modified = view.time;
    view.put(TypedKey::Secret { store: at.store, secret: at.secret }, &record);
    Ok(ReplyBody::SecretDestroyed)
}
