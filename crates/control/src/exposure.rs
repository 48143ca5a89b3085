//! What a node could open: the values that have to be taken for known to whoever holds it.
//!
//! A node that holds keys gets every epoch that is not destroyed while it is a member. So it could open each value that is sealed under
//! a data key of the time before its revocation, whether it was ever asked for it or not. Values that are gone by now it could open
//! too, but nothing is left that could be listed. A value given since then is sealed under a data key of a later era.

use state::{
    Key, State,
    record::{DekRecord, NodeRecord, NodeRole, SecretRecord},
};
use types::{SecretId, UnixMillis};
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
    let mut exposed = Vec::new();
    let page = state
        .all_secrets(after, limit, |secret, record| {
            let versions = opened(state, secret, record, until)?;
            Ok((!versions.is_empty()).then_some(versions))
        })
        .map_err(damaged)?;
    for (secret, record, versions) in page.items {
        let store = state.store_even_deleting(record.store).map_err(damaged)?;
        exposed.push(v1::ExposedSecret {
            account_id: record.account.to_string(),
            store_id: record.store.to_string(),
            store_name: store.map(|store| store.name.to_string()).unwrap_or_default(),
            secret_id: secret.to_string(),
            secret_name: record.name.to_string(),
            current: versions.contains(&record.current.get()),
            versions,
        });
    }
    Ok((exposed, page.next))
}

/// The versions that are sealed under a data key of before `until`.
fn opened(state: &State, secret: SecretId, record: &SecretRecord, until: UnixMillis) -> Result<Vec<u64>, state::ReadError> {
    let mut versions = Vec::new();
    for entry in &record.versions {
        let Some(value) = state.value(secret, entry.value_id)? else { continue };
        let dek: Option<DekRecord> = state.dek(record.account, value.dek)?;
        if dek.is_some_and(|dek| dek.created <= until) {
            versions.push(entry.version.get());
        }
    }
    Ok(versions)
}
