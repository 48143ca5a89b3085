//! Parts of a list by their place in it. What lies before is counted leaf by leaf and not read: the ten thousandth page of a list of a
//! million costs a few milliseconds.

use types::{SecretId, StoreId};

use crate::{Prefix, Propagated, ReadError, limits::PAGE_MAX, propagated::decode_content as decode, record::SecretRecord};

impl Propagated {
    /// How many secrets a store has; those being deleted are not among them.
    ///
    /// # Errors
    /// [`ReadError`] if the store's record does not decode.
    pub fn secrets_number(&self, store: StoreId) -> Result<usize, ReadError> {
        Ok(match self.store(store)? {
            Some(_) => self.scan_behind(&Prefix::secret_names(store), usize::MAX).0,
            None => 0,
        })
    }

    /// Secrets of a store by name, from behind the first `skip`, at most `limit` and at most [`PAGE_MAX`].
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode.
    pub fn secrets_from(&self, store: StoreId, skip: usize, limit: usize) -> Result<Vec<(SecretId, SecretRecord)>, ReadError> {
        let mut found = Vec::new();
        if self.store(store)?.is_none() {
            return Ok(found);
        }
        let names = Prefix::secret_names(store);
        for (key, content) in self.scan_behind(&names, skip).1.take(limit.min(PAGE_MAX)) {
            let secret: SecretId = decode(key, content)?;
            if let Some(record) = self.secret_even_deleting(store, secret)?.filter(|record| !record.deleting) {
                found.push((secret, record));
            }
        }
        Ok(found)
    }
}
