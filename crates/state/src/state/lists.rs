//! Lists in pages, by rising key.

use types::{AccountId, AccountName, BindingName, ConsumerRef, KeyDomain, SecretId, StoreId};

use super::State;
use crate::{
    Content, Key, Keyspace, Prefix, Propagated, ReadError, TypedKey,
    limits::PAGE_MAX,
    propagated::decode_content as decode,
    record::{
        AccountRecord, BindingRecord, BoundTo, ConsumerRecord, ConsumerTokenRecord, DekRecord, JoinTokenRecord, KekEpochRecord, NodeRecord,
        SecretRecord, StoreRecord,
    },
};

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, at most as many as asked for and at most [`PAGE_MAX`].
    pub items: Vec<T>,
    /// Where the next page begins behind; none if this was the last.
    pub next: Option<Key>,
}

/// Reads a page: `item` makes an item of a key and its bytes, or passes it over. What is passed over leaves no trace, in
/// [`Page::next`] neither: a reader who may not see a record must not learn its key from where a page ends.
pub(super) fn page<'a, T>(
    records: impl Iterator<Item = (&'a Key, &'a Content)>,
    limit: usize,
    mut item: impl FnMut(&'a Key, &'a Content) -> Result<Option<T>, ReadError>,
) -> Result<Page<T>, ReadError> {
    let limit = limit.clamp(1, PAGE_MAX);
    let (mut items, mut last) = (Vec::new(), None);
    for (key, content) in records {
        if items.len() == limit {
            return Ok(Page { items, next: last });
        }
        if let Some(item) = item(key, content)? {
            items.push(item);
            last = Some(key.clone());
        }
    }
    Ok(Page { items, next: None })
}

impl Propagated {
    /// Accounts by id, those that `keep` lets through.
    ///
    /// # Errors
    /// [`ReadError`] if a record does not decode, as for all lists here.
    pub fn accounts(
        &self,
        after: Option<&Key>,
        limit: usize,
        keep: impl Fn(AccountId) -> bool,
    ) -> Result<Page<(AccountId, AccountRecord)>, ReadError> {
        page(self.scan_after(&Prefix::keyspace(Keyspace::Account), after), limit, |key, content| match key.decode() {
            Ok(TypedKey::Account { account }) if keep(account) => Ok(Some((account, decode(key, content)?))),
            _ => Ok(None),
        })
    }

    /// Accounts by their display name: all that have it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn accounts_named(&self, name: &AccountName) -> Result<Vec<AccountId>, ReadError> {
        let all = Prefix::keyspace(Keyspace::Account);
        let mut found = Vec::new();
        for (key, content) in self.scan(&all) {
            if let Ok(TypedKey::Account { account }) = key.decode()
                && decode::<AccountRecord>(key, content)?.name == *name
            {
                found.push(account);
            }
        }
        Ok(found)
    }

    /// Stores of an account that `keep` lets through, by name; those being deleted are not among them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn stores(
        &self,
        account: AccountId,
        after: Option<&Key>,
        limit: usize,
        keep: impl Fn(StoreId) -> bool,
    ) -> Result<Page<(StoreId, StoreRecord)>, ReadError> {
        page(self.scan_after(&Prefix::store_names(account), after), limit, |key, content| {
            let store: StoreId = decode(key, content)?;
            if !keep(store) {
                return Ok(None);
            }
            Ok(self.store(store)?.map(|record| (store, record)))
        })
    }

    /// Secrets of a store, by name; those being deleted are not among them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn secrets(&self, store: StoreId, after: Option<&Key>, limit: usize) -> Result<Page<(SecretId, SecretRecord)>, ReadError> {
        if self.store(store)?.is_none() {
            return Ok(Page { items: Vec::new(), next: None });
        }
        page(self.scan_after(&Prefix::secret_names(store), after), limit, |key, content| {
            let secret: SecretId = decode(key, content)?;
            Ok(self.secret_even_deleting(store, secret)?.filter(|record| !record.deleting).map(|record| (secret, record)))
        })
    }

    /// Secrets of all accounts and stores, by store and id, those being deleted included, for which `keep` says something; with that.
    ///
    /// # Errors
    /// [`ReadError`], also of `keep`.
    pub fn all_secrets<T>(
        &self,
        after: Option<&Key>,
        limit: usize,
        keep: impl Fn(SecretId, &SecretRecord) -> Result<Option<T>, ReadError>,
    ) -> Result<Page<(SecretId, SecretRecord, T)>, ReadError> {
        page(self.scan_after(&Prefix::keyspace(Keyspace::Secret), after), limit, |key, content| match key.decode() {
            Ok(TypedKey::Secret { secret, .. }) => {
                let record: SecretRecord = decode(key, content)?;
                Ok(keep(secret, &record)?.map(|kept| (secret, record, kept)))
            }
            _ => Ok(None),
        })
    }

    /// Consumers of an account, by kind and name.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn consumers(
        &self,
        account: AccountId,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page<(ConsumerRef, ConsumerRecord)>, ReadError> {
        page(self.scan_after(&Prefix::consumers(account), after), limit, |key, content| match key.decode() {
            Ok(TypedKey::Consumer { consumer }) => Ok(Some((consumer, decode(key, content)?))),
            _ => Ok(None),
        })
    }

    /// Bindings of a consumer that `keep` lets through, by name.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn bindings(
        &self,
        consumer: &ConsumerRef,
        after: Option<&Key>,
        limit: usize,
        keep: impl Fn(&BindingRecord) -> bool,
    ) -> Result<Page<(BindingName, BindingRecord)>, ReadError> {
        page(self.scan_after(&Prefix::bindings(consumer), after), limit, |key, content| match key.decode() {
            Ok(TypedKey::Binding { name, .. }) => Ok(Some(decode(key, content)?).filter(&keep).map(|record| (name, record))),
            _ => Ok(None),
        })
    }

    /// The bindings of all consumers of an account that `keep` lets through, in the order of consumers and names.
    ///
    /// # Errors
    /// [`ReadError`] when a record is damaged.
    pub fn bindings_of_account(
        &self,
        account: AccountId,
        after: Option<&Key>,
        limit: usize,
        keep: impl Fn(&BindingRecord) -> bool,
    ) -> Result<Page<(ConsumerRef, BindingName, BindingRecord)>, ReadError> {
        page(self.scan_after(&Prefix::bindings_of_account(account), after), limit, |key, content| match key.decode() {
            Ok(TypedKey::Binding { consumer, name }) => {
                Ok(Some(decode(key, content)?).filter(&keep).map(|record| (consumer, name, record)))
            }
            _ => Ok(None),
        })
    }

    /// Nodes by id, revoked ones included.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn nodes(&self, after: Option<&Key>, limit: usize) -> Result<Page<(types::NodeId, NodeRecord)>, ReadError> {
        page(self.scan_after(&Prefix::keyspace(Keyspace::Node), after), limit, |key, content| match key.decode() {
            Ok(TypedKey::Node { node }) => Ok(Some((node, decode(key, content)?))),
            _ => Ok(None),
        })
    }

    /// KEK epochs of a domain, by number.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn kek_epochs(&self, domain: &KeyDomain, after: Option<&Key>, limit: usize) -> Result<Page<KekEpochRecord>, ReadError> {
        page(self.scan_after(&Prefix::kek_epochs(domain), after), limit, |key, content| decode(key, content).map(Some))
    }

    /// All KEK epochs, by domain and number.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn all_kek_epochs(&self, after: Option<&Key>, limit: usize) -> Result<Page<KekEpochRecord>, ReadError> {
        page(self.scan_after(&Prefix::keyspace(Keyspace::KekEpoch), after), limit, |key, content| decode(key, content).map(Some))
    }

    /// Data keys of an account, by id.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn deks(&self, account: AccountId, after: Option<&Key>, limit: usize) -> Result<Page<DekRecord>, ReadError> {
        page(self.scan_after(&Prefix::deks(account), after), limit, |key, content| decode(key, content).map(Some))
    }
}

impl State {
    /// Join tokens by public id, those that have come to their end included.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn join_tokens(&self, after: Option<&Key>, limit: usize) -> Result<Page<JoinTokenRecord>, ReadError> {
        let all = Prefix::keyspace(Keyspace::JoinTokenId);
        let records = self.control.scan(all.as_bytes(), after.map(Key::as_bytes));
        page(records, limit, |key, content| self.join_token(decode(key, content)?))
    }

    /// Tokens of a consumer, by public id.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn consumer_tokens(&self, consumer: &ConsumerRef) -> Result<Vec<ConsumerTokenRecord>, ReadError> {
        let all = Prefix::consumer_tokens(consumer);
        let found = self.scan_control(&all).map(|(key, content)| self.consumer_by_token(decode(key, content)?));
        found.filter_map(Result::transpose).collect()
    }

    /// Who has a secret or store bound, and under which names.
    pub fn bound_by(&self, target: BoundTo) -> Vec<(ConsumerRef, BindingName)> {
        let all = Prefix::bound_by(target);
        let keys = self.scan_control(&all).map(|(key, _)| key.decode());
        keys.filter_map(|key| match key {
            Ok(TypedKey::BoundBy { consumer, name, .. }) => Some((consumer, name)),
            _ => None,
        })
        .take(PAGE_MAX)
        .collect()
    }
}
