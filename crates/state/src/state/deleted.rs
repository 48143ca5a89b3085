//! What was deleted and can be brought back, and what people want to be reminded of.

use types::{SecretId, StoreId, UnixMillis, ValueId};

use super::{Page, State, lists::page};
use crate::{
    Key, Keyspace, Prefix, ReadError, ReminderKind, TypedKey,
    propagated::decode_content as decode,
    record::{DeletedRecord, ReminderRecord, ValueRecord},
};

impl State {
    /// A deleted secret that can be brought back.
    ///
    /// # Errors
    /// [`ReadError`] if the record does not decode, as for all here.
    pub fn deleted_secret(&self, store: StoreId, secret: SecretId) -> Result<Option<DeletedRecord>, ReadError> {
        if self.store(store)?.is_none() {
            return Ok(None);
        }
        let record: Option<DeletedRecord> = self.read_control(TypedKey::Deleted { store, secret })?;
        Ok(record.filter(|record| self.time < record.until))
    }

    /// Deleted secrets of a store that can be brought back, by id.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn deleted_secrets(&self, store: StoreId, after: Option<&Key>, limit: usize) -> Result<Page<(SecretId, DeletedRecord)>, ReadError> {
        if self.store(store)?.is_none() {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let all = Prefix::deleted(store);
        page(self.control_after(&all, after), limit, |key, content| match key.decode() {
            Ok(TypedKey::Deleted { secret, .. }) => {
                let record: DeletedRecord = decode(key, content)?;
                Ok((self.time < record.until).then_some((secret, record)))
            }
            _ => Ok(None),
        })
    }

    /// Deleted secrets of all accounts and stores that can be brought back, by store and id, for which `keep` says something; with that.
    ///
    /// # Errors
    /// [`ReadError`], also of `keep`.
    pub fn all_deleted_secrets<T>(
        &self,
        after: Option<&Key>,
        limit: usize,
        keep: impl Fn(SecretId, &DeletedRecord) -> Result<Option<T>, ReadError>,
    ) -> Result<Page<(SecretId, DeletedRecord, T)>, ReadError> {
        let all = Prefix::keyspace(Keyspace::Deleted);
        page(self.control_after(&all, after), limit, |key, content| match key.decode() {
            Ok(TypedKey::Deleted { store, secret }) => {
                let record: DeletedRecord = decode(key, content)?;
                if record.until <= self.time || self.store(store)?.is_none() {
                    return Ok(None);
                }
                Ok(keep(secret, &record)?.map(|kept| (secret, record, kept)))
            }
            _ => Ok(None),
        })
    }

    /// A sealed value of a deleted secret.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn deleted_value(&self, secret: SecretId, value: ValueId) -> Result<Option<ValueRecord>, ReadError> {
        self.read_control(TypedKey::DeletedValue { secret, value })
    }

    /// When people want to be reminded of a secret; none: not at all.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn reminder(&self, store: StoreId, secret: SecretId) -> Result<Option<ReminderRecord>, ReadError> {
        self.read_control(TypedKey::Reminder { store, secret })
    }

    /// How many secrets have a reminder of a time that has passed, by kind. Costs as much as there are, and stops at `most`.
    pub fn overdue(&self, now: UnixMillis, most: usize) -> [(ReminderKind, usize); 2] {
        let all = Prefix::keyspace(Keyspace::Due);
        let mut counts = ReminderKind::ALL.map(|kind| (kind, 0));
        for (key, _) in self.scan_control(&all).take(most) {
            let Ok(TypedKey::Due { at, kind, .. }) = key.decode() else { continue };
            if now < at {
                break;
            }
            counts.iter_mut().filter(|(counted, _)| *counted == kind).for_each(|(_, count)| *count += 1);
        }
        counts
    }
}
