//! Where the recently changed secrets were changed, so that their status can be computed: `pending` until live on every edge.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use state::{ChangeSet, TypedKey};
use types::{Position, SecretId};

/// Secrets remembered at the most. Past it the oldest change is forgotten, and with it all before count as changed there.
const SECRETS_MAX: usize = 65_536;

/// The newest change of each secret that changed lately.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    changed: BTreeMap<SecretId, Position>,
    by_position: BTreeMap<(Position, SecretId), ()>,
    /// Whatever is not remembered was changed here or before.
    floor: Position,
}

impl Recent {
    /// Starts at a state whose past is not known change by change.
    pub(crate) fn start_at(&self, position: Position) {
        *self.lock() = Inner { floor: position, ..Inner::default() };
    }

    /// Takes in what was applied.
    pub(crate) fn applied(&self, set: &ChangeSet) {
        let position = set.position();
        let mut inner = self.lock();
        for change in &set.changes {
            let secret = match change.key.decode() {
                Ok(TypedKey::Secret { secret, .. } | TypedKey::Value { secret, .. }) => secret,
                _ => continue,
            };
            if let Some(before) = inner.changed.insert(secret, position) {
                inner.by_position.remove(&(before, secret));
            }
            inner.by_position.insert((position, secret), ());
        }
        while inner.changed.len() > SECRETS_MAX {
            let Some(((oldest, secret), ())) = inner.by_position.pop_first() else { break };
            inner.changed.remove(&secret);
            inner.floor = inner.floor.max(oldest);
        }
    }

    /// A position at which the newest change of `secret` is certainly included.
    pub(crate) fn changed_at(&self, secret: SecretId) -> Position {
        let inner = self.lock();
        inner.changed.get(&secret).copied().unwrap_or(inner.floor)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
