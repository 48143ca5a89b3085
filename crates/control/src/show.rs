//! From records to the messages that show them. Never a value: no message here has a place for one.

use state::{
    State,
    record::{AccountRecord, BindingRecord, BindingTarget, ConsumerRecord, DeletedRecord, ReminderRecord, SecretRecord, StoreRecord},
};
use types::{AccountId, BindingName, ConsumerRef, Position, SecretId, StoreId, UnixMillis, Version};
use wire::{PublicError, v1};

use crate::{core::Core, error::damaged};

/// An account.
pub(crate) fn account(id: AccountId, record: &AccountRecord) -> v1::Account {
    v1::Account { id: id.to_string(), name: record.name.to_string(), created_ms: record.created.get() }
}

/// A store.
pub(crate) fn store(id: StoreId, record: &StoreRecord) -> v1::Store {
    v1::Store {
        id: id.to_string(),
        account_id: record.account.to_string(),
        name: record.name.to_string(),
        created_ms: record.created.get(),
        modified_ms: record.modified.get(),
    }
}

/// A secret's metadata, with the status that it has now: pending until every edge seen lately holds its newest change. `live` is
/// what they all hold; a change that was made just now, at `written`, may not be known by the secret yet.
pub(crate) fn secret(
    core: &Core,
    state: &State,
    id: SecretId,
    record: &SecretRecord,
    live: Option<Position>,
    written: Position,
) -> Result<v1::Secret, PublicError> {
    let store = state.store_even_deleting(record.store).map_err(damaged)?;
    let status = match is_live(core, id, live, written) {
        _ if record.deleting => v1::SecretStatus::Deleted,
        true => v1::SecretStatus::Active,
        false => v1::SecretStatus::Pending,
    };
    Ok(v1::Secret {
        id: id.to_string(),
        store_id: record.store.to_string(),
        name: record.name.to_string(),
        scopes: record.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        comment: record.comment.as_str().to_owned(),
        created_ms: record.created.get(),
        modified_ms: record.modified.get(),
        status: status.into(),
        current_version: record.current.get(),
        previous_version: record.previous.map_or(0, Version::get),
        candidate_version: record.candidate.map_or(0, Version::get),
        store_name: store.map(|store| store.name.to_string()).unwrap_or_default(),
        ..reminded(state, state.reminder(record.store, id).map_err(damaged)?)
    })
}

/// What there is to show of a reminder.
fn reminded(state: &State, record: Option<ReminderRecord>) -> v1::Secret {
    let Some(record) = record else { return v1::Secret::default() };
    let due = record.due();
    v1::Secret {
        expires_ms: record.reminder.expires.map_or(0, UnixMillis::get),
        rotate_every_ms: record.reminder.rotate_every_ms.unwrap_or_default(),
        due_ms: due.map_or(0, UnixMillis::get),
        overdue: due.is_some_and(|due| due <= state.last_time()),
        ..v1::Secret::default()
    }
}

/// A deleted secret that can be brought back.
pub(crate) fn deleted(state: &State, id: SecretId, record: &DeletedRecord) -> Result<v1::Secret, PublicError> {
    let secret = &record.secret;
    let store = state.store(secret.store).map_err(damaged)?;
    Ok(v1::Secret {
        id: id.to_string(),
        store_id: secret.store.to_string(),
        name: secret.name.to_string(),
        scopes: secret.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        comment: secret.comment.as_str().to_owned(),
        created_ms: secret.created.get(),
        modified_ms: secret.modified.get(),
        status: v1::SecretStatus::Deleted.into(),
        current_version: secret.current.get(),
        previous_version: secret.previous.map_or(0, Version::get),
        candidate_version: secret.candidate.map_or(0, Version::get),
        store_name: store.map(|store| store.name.to_string()).unwrap_or_default(),
        deleted_ms: record.deleted.get(),
        undelete_until_ms: record.until.get(),
        expires_ms: record.reminder.expires.map_or(0, UnixMillis::get),
        rotate_every_ms: record.reminder.rotate_every_ms.unwrap_or_default(),
        ..v1::Secret::default()
    })
}

/// Whether every edge that counts holds a secret's newest change; see [`secret`].
pub(crate) fn is_live(core: &Core, id: SecretId, live: Option<Position>, written: Position) -> bool {
    live.is_some_and(|live| live >= core.recent.changed_at(id).max(written))
}

/// A secret as it stands now.
pub(crate) fn present(core: &Core, state: &State, id: SecretId, record: &SecretRecord) -> Result<v1::Secret, PublicError> {
    secret(core, state, id, record, core.live_since(state, core.recent.changed_at(id)), Position::default())
}

/// A secret as it stands after a write. One that is gone by now was written all the same, and is shown as deleted.
pub(crate) fn written(core: &Core, store: StoreId, id: SecretId, written: Position) -> Result<v1::Secret, PublicError> {
    let state = core.consensus.local();
    match state.secret_even_deleting(store, id).map_err(damaged)? {
        Some(record) => {
            let live = core.live_since(&state, core.recent.changed_at(id).max(written));
            secret(core, &state, id, &record, live, written)
        }
        // Done where the leader is, and not here yet when the caller's time was over: to say that it is gone would be wrong.
        None if state.position() < written => Ok(v1::Secret {
            id: id.to_string(),
            store_id: store.to_string(),
            status: v1::SecretStatus::Pending.into(),
            ..Default::default()
        }),
        None => Ok(v1::Secret {
            id: id.to_string(),
            store_id: store.to_string(),
            status: v1::SecretStatus::Deleted.into(),
            ..Default::default()
        }),
    }
}

/// A secret's versions, newest first.
pub(crate) fn versions(record: &SecretRecord) -> Vec<v1::SecretVersion> {
    let one = |entry: &state::record::VersionEntry| v1::SecretVersion {
        version: entry.version.get(),
        created_ms: entry.created.get(),
        current: record.current == entry.version,
        previous: record.previous == Some(entry.version),
        candidate: record.candidate == Some(entry.version),
    };
    record.versions.iter().rev().map(one).collect()
}

/// A consumer.
pub(crate) fn consumer(consumer: &ConsumerRef, record: &ConsumerRecord) -> v1::Consumer {
    v1::Consumer {
        account_id: consumer.account.to_string(),
        kind: v1::ConsumerKind::from(consumer.kind).into(),
        name: consumer.name.to_string(),
        created_ms: record.created.get(),
    }
}

/// A binding, with whether its target is still there.
pub(crate) fn binding(
    state: &State,
    consumer: &ConsumerRef,
    name: &BindingName,
    record: &BindingRecord,
) -> Result<v1::Binding, PublicError> {
    let store_id = record.target.store();
    let store = state.store(store_id).map_err(damaged)?;
    let (secret_id, secret_name, gone) = match &record.target {
        BindingTarget::Secret { secret, name, .. } => {
            let found = state.secret(store_id, *secret).map_err(damaged)?;
            (secret.to_string(), name.to_string(), found.is_none())
        }
        BindingTarget::Store { .. } => (String::new(), String::new(), store.is_none()),
    };
    Ok(v1::Binding {
        account_id: consumer.account.to_string(),
        consumer_kind: v1::ConsumerKind::from(consumer.kind).into(),
        consumer_name: consumer.name.to_string(),
        name: name.to_string(),
        store_id: store_id.to_string(),
        store_name: store.map(|store| store.name.to_string()).unwrap_or_default(),
        secret_id,
        secret_name,
        created_ms: record.created.get(),
        target_deleted: gone,
    })
}
