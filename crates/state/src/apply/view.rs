//! What a handler sees and writes: the state, with what the command has written so far laid over it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use types::{
    AccountId, FeatureLevel, LogIndex, Position, UnixMillis,
    mutation::{self, Mutation},
};

use super::{Halt, Judged, refuse};
use crate::{
    Change, ChangeSet, Key, RefusalKind, State, TypedKey, Write,
    format::{self, Stored},
    limits::{CHANGE_SET_BYTES_MAX, CHANGES_MAX, RECORD_BYTES_MAX},
    propagated::{read, record_bytes},
    record::{SettingsRecord, TotalsRecord, UsageRecord},
};

pub(super) struct View<'a> {
    pub(super) state: &'a State,
    pub(super) index: LogIndex,
    pub(super) time: UnixMillis,
    overlay: BTreeMap<Key, Option<Bytes>>,
}

impl<'a> View<'a> {
    pub(super) const fn new(state: &'a State, index: LogIndex, time: UnixMillis) -> Self {
        Self { state, index, time, overlay: BTreeMap::new() }
    }

    pub(super) fn read<T: Stored>(&self, key: TypedKey) -> Result<Option<T>, Halt> {
        let key = key.encode();
        let stored = match self.overlay.get(&key) {
            Some(written) => written.as_ref(),
            None => self.state.stored(&key),
        };
        Ok(read(&key, stored)?)
    }

    pub(super) fn has(&self, key: TypedKey) -> bool {
        let key = key.encode();
        self.overlay.get(&key).map_or_else(|| self.state.stored(&key).is_some(), Option::is_some)
    }

    pub(super) fn put<T: Stored>(&mut self, key: TypedKey, record: &T) {
        self.overlay.insert(key.encode(), Some(format::encode(T::FORMAT, record)));
    }

    /// The stored bytes under a key.
    pub(super) fn raw(&self, key: &Key) -> Option<Bytes> {
        self.overlay.get(key).map_or_else(|| self.state.stored(key).cloned(), Clone::clone)
    }

    /// Puts stored bytes, as they were found elsewhere; shared, not copied.
    pub(super) fn put_raw(&mut self, key: TypedKey, bytes: Option<Bytes>) {
        self.overlay.insert(key.encode(), bytes);
    }

    pub(super) fn delete(&mut self, key: TypedKey) {
        self.overlay.insert(key.encode(), None);
    }

    /// Forgets all that was written.
    pub(super) fn discard(&mut self) {
        self.overlay.clear();
    }

    /// The settings; every command but the first meets an initialised cluster.
    pub(super) fn settings(&self) -> Judged<SettingsRecord> {
        match self.read(TypedKey::Settings)? {
            Some(settings) => Ok(settings),
            None => refuse(RefusalKind::Precondition, "the cluster is not set up yet; run `cinnabar cluster init`"),
        }
    }

    /// The feature level in force; 1 before there are settings.
    pub(super) fn level(&self) -> Result<FeatureLevel, Halt> {
        let settings: Option<SettingsRecord> = self.read(TypedKey::Settings)?;
        Ok(settings.map_or(FeatureLevel::new(1), |settings| settings.feature_level))
    }

    pub(super) fn usage(&self, account: AccountId) -> Result<UsageRecord, Halt> {
        Ok(self.read(TypedKey::Usage { account })?.unwrap_or_default())
    }

    pub(super) fn totals(&self) -> Result<TotalsRecord, Halt> {
        Ok(self.read(TypedKey::Totals)?.unwrap_or_default())
    }

    /// Reads a count, changes it, and keeps no record of a zero.
    pub(super) fn count(&mut self, key: TypedKey, change: impl FnOnce(u64) -> Option<u64>) -> Result<(), Halt> {
        let count = self.read(key.clone())?.unwrap_or(0_u64);
        match change(count).ok_or(Halt::Broken { what: "a count would leave its range" })? {
            0 => self.delete(key),
            count => self.put(key, &count),
        }
        Ok(())
    }

    /// Whether what was written differs from the state.
    fn differs(&self, key: &Key, value: Option<&Bytes>) -> bool {
        self.state.stored(key) != value
    }

    /// All writes, by rising key: the changes of the set, if any, whose keys lie before all others, and the rest.
    pub(super) fn writes(&self, set: Option<&ChangeSet>) -> Vec<Write> {
        let changes = set.map_or(&[][..], |set| &set.changes);
        let mut writes = Vec::with_capacity(self.overlay.len() + 1);
        writes.extend(changes.iter().map(|change| Write { key: change.key.clone(), value: change.value.clone() }));
        let control = self.overlay.iter().filter(|(key, value)| !key.is_propagated() && self.differs(key, value.as_ref()));
        writes.extend(control.map(|(key, value)| Write { key: key.clone(), value: value.clone() }));
        writes
    }

    /// The change set of what was written to propagated keys, if anything was.
    pub(super) fn change_set(&self) -> Judged<Option<Arc<ChangeSet>>> {
        let mut changes = Vec::new();
        for (key, value) in &self.overlay {
            let size = record_bytes(key, value.as_deref());
            if size > RECORD_BYTES_MAX {
                return refuse(
                    RefusalKind::TooLarge,
                    format!("the command would make a record of {size} bytes; at most {RECORD_BYTES_MAX} are allowed"),
                );
            }
            if key.is_propagated() && self.differs(key, value.as_ref()) {
                changes.push(Change { key: key.clone(), value: value.clone() });
            }
        }
        if changes.is_empty() {
            return Ok(None);
        }
        if changes.len() > CHANGES_MAX {
            let message = format!("the command makes {} changes; at most {CHANGES_MAX} are allowed: do it in parts", changes.len());
            return refuse(RefusalKind::TooLarge, message);
        }
        let head = self.state.head();
        let position = next(head.position).ok_or(Halt::Broken { what: "the revision is at the end of its range" })?;
        let position =
            if mutation::is_on(Mutation::RevisionReused) && position.revision.get().is_multiple_of(16) { head.position } else { position };
        let set = ChangeSet::new(head.chain, position, self.time, head.hash, changes);
        if set.encoded().len() > CHANGE_SET_BYTES_MAX {
            let message = format!(
                "the command makes {} bytes of changes; at most {CHANGE_SET_BYTES_MAX} are allowed: do it in parts",
                set.encoded().len()
            );
            return refuse(RefusalKind::TooLarge, message);
        }
        Ok(Some(Arc::new(set)))
    }
}

/// The position after one; the first is 1.1.
fn next(position: Position) -> Option<Position> {
    let generation = if position == Position::default() { position.generation.next()? } else { position.generation };
    Some(Position::new(generation, position.revision.next()?))
}
