//! What a node could open: the values that have to be taken for known to whoever holds it.
//!
//! A node that holds keys gets every epoch that is not destroyed while it is a member. So it could open each value that is sealed under
//! a data key of the time before its revocation, whether it was ever asked for it or not. What was deleted and can be brought back comes
//! last: it would come back with these values. Values that are gone by now the node could open too, but nothing is left that could be
//! listed. A value given since then is sealed under a data key of a later era.

use state::{
    Key, State, TypedKey,
    record::{DekRecord, NodeRecord, NodeRole, SecretRecord, ValueRecord},
};
use types::{SecretId, UnixMillis, ValueId};
use wire::{PublicError, v1};

use crate::error::damaged;

/// A page of the secrets of which the node could open values, and where the next one begins.
pub(crate) fn of(
    state: &State,
    node: &NodeRecord,
    after: Option<&Key>,
    limit: usize,
) -> Result<(Vec<v1::ExposedSecret>, Option<Key>), PublicError> {
    if node.role == NodeRole::Relay {
        return Ok((Vec::new(), None));
    }
    let until = node.revoked.unwrap_or(UnixMillis::new(u64::MAX));
    let some = |versions: Vec<u64>| Some(versions).filter(|versions| !versions.is_empty());
    let deleted_before = after.filter(|key| matches!(key.decode(), Ok(TypedKey::Deleted { .. })));
    let mut exposed = Vec::new();
    if deleted_before.is_none() {
        let page =
            state.all_secrets(after, limit, |secret, record| opened(state, record, until, |value| state.value(secret, value)).map(some));
        let page = page.map_err(damaged)?;
        let last = page.items.last().map(|(secret, record, _)| TypedKey::Secret { store: record.store, secret: *secret });
        for (secret, record, versions) in page.items {
            exposed.push(shown(state, secret, &record, versions, None)?);
        }
        if page.next.is_some() {
            return Ok((exposed, page.next));
        }
        // What was deleted begins behind the last of these.
        if exposed.len() >= limit {
            return Ok((exposed, last.map(|key| key.encode())));
        }
    }
    let page = state.all_deleted_secrets(deleted_before, limit - exposed.len(), |secret, record| {
        opened(state, &record.secret, until, |value| state.deleted_value(secret, value)).map(some)
    });
    let page = page.map_err(damaged)?;
    for (secret, record, versions) in page.items {
        exposed.push(shown(state, secret, &record.secret, versions, Some(record.deleted))?);
    }
    Ok((exposed, page.next))
}

fn shown(
    state: &State,
    secret: SecretId,
    record: &SecretRecord,
    versions: Vec<u64>,
    deleted: Option<UnixMillis>,
) -> Result<v1::ExposedSecret, PublicError> {
    let store = state.store_even_deleting(record.store).map_err(damaged)?;
    Ok(v1::ExposedSecret {
        account_id: record.account.to_string(),
        store_id: record.store.to_string(),
        store_name: store.map(|store| store.name.to_string()).unwrap_or_default(),
        secret_id: secret.to_string(),
        secret_name: record.name.to_string(),
        current: versions.contains(&record.current.get()),
        versions,
        deleted_ms: deleted.map_or(0, UnixMillis::get),
    })
}

/// The versions that are sealed under a data key of before `until`; `sealed` finds a version's value.
fn opened(
    state: &State,
    record: &SecretRecord,
    until: UnixMillis,
    sealed: impl Fn(ValueId) -> Result<Option<ValueRecord>, state::ReadError>,
) -> Result<Vec<u64>, state::ReadError> {
    let mut versions = Vec::new();
    for entry in &record.versions {
        let Some(value) = sealed(entry.value_id)? else { continue };
        let dek: Option<DekRecord> = state.dek(record.account, value.dek)?;
        if dek.is_some_and(|dek| dek.created <= until) {
            versions.push(entry.version.get());
        }
    }
    Ok(versions)
}
