//! From ids and names to the one thing meant, as far as the caller may know of it. What a caller may not know is not found, by
//! the same reads and in the same words as what does not exist.

use state::{
    GrantScope, Operation, State,
    record::{AccountRecord, SecretRecord, StoreRecord},
};
use types::{AccountId, AccountName, ConsumerRef, SecretId, SecretName, StoreId};
use wire::{
    ErrorKind, PublicError,
    parse::{AccountTarget, ConsumerTarget, IdOrName, SecretTarget, StoreTarget},
};

use crate::{caller::Caller, error::damaged};

/// Stores that are read at a time while one is looked for.
const STORES_AT_A_TIME: usize = 1000;

/// A store, found.
pub(crate) struct FoundStore {
    pub(crate) account: AccountId,
    pub(crate) id: StoreId,
    pub(crate) record: StoreRecord,
}

impl FoundStore {
    /// What a grant has to cover.
    pub(crate) fn reach(&self) -> GrantScope {
        GrantScope::Store(self.account, self.id)
    }
}

/// A secret, found.
pub(crate) struct FoundSecret {
    pub(crate) store: FoundStore,
    pub(crate) id: SecretId,
    pub(crate) record: SecretRecord,
}

fn not_found(what: impl std::fmt::Display) -> PublicError {
    PublicError::new(ErrorKind::NotFound, format!("no {what}, or none that this token may see"))
}

/// The account meant: the one named, or the only one that the caller sees.
pub(crate) fn account(state: &State, caller: &Caller, target: Option<&AccountTarget>) -> Result<AccountId, PublicError> {
    let Some(target) = target else { return only_account(state, caller) };
    let by_id = |id: AccountId| state.account(id).transpose().filter(|_| caller.sees(id)).map(|found| found.map(|_| id));
    let by_name = |name: &AccountName| state.accounts_named(name).map(|found| only(&found, |id| caller.sees(*id))).transpose();
    let found = target.resolve(by_id, by_name).transpose().map_err(damaged)?;
    found.filter(|id| caller.sees(*id)).ok_or_else(|| not_found(format_args!("account {target}")))
}

/// The one element that fits, unless there are several.
fn only<T: Copy>(all: &[T], fits: impl Fn(&T) -> bool) -> Option<T> {
    let mut fitting = all.iter().filter(|one| fits(one));
    fitting.next().copied().filter(|_| fitting.next().is_none())
}

fn only_account(state: &State, caller: &Caller) -> Result<AccountId, PublicError> {
    let seen: Vec<AccountId> = match caller.seen_accounts() {
        Some(granted) => granted.into_iter().collect(),
        None => state.accounts(None, 2, |_| true).map_err(damaged)?.items.iter().map(|(id, _)| *id).collect(),
    };
    match seen.as_slice() {
        [account] => Ok(*account),
        [] => Err(not_found("account")),
        _ => Err(PublicError::new(ErrorKind::InvalidArgument, "this token sees several accounts: say which one (`-a ACCOUNT`)")),
    }
}

/// The account's record.
pub(crate) fn account_record(state: &State, id: AccountId) -> Result<AccountRecord, PublicError> {
    state.account(id).map_err(damaged)?.ok_or_else(|| not_found(format_args!("account {id}")))
}

/// The store meant, if the caller may read its metadata.
pub(crate) fn store(state: &State, caller: &Caller, target: &StoreTarget) -> Result<FoundStore, PublicError> {
    let account = account(state, caller, target.account.as_ref())?;
    // A store of another account does not even shadow a name.
    let by_id = |id: StoreId| match state.store(id) {
        Ok(found) => found.filter(|record| record.account == account).map(|record| Ok((id, record))),
        Err(error) => Some(Err(error)),
    };
    let by_name = |name: &types::StoreName| state.store_by_name(account, name).transpose();
    let found = target.store.resolve(by_id, by_name).transpose().map_err(damaged)?;
    let found =
        found.filter(|(id, record)| record.account == account && caller.may(Operation::ReadMetadata, GrantScope::Store(account, *id)));
    let (id, record) = found.ok_or_else(|| not_found(format_args!("store {}", target.store)))?;
    Ok(FoundStore { account, id, record })
}

/// The secret meant, if the caller may read its metadata.
pub(crate) fn secret(state: &State, caller: &Caller, target: &SecretTarget) -> Result<FoundSecret, PublicError> {
    let missing = |store: &str| not_found(format_args!("secret {} in store {store}", target.secret));
    if let Some(named) = &target.store {
        let store = store(state, caller, &StoreTarget { account: target.account.clone(), store: named.clone() })?;
        return in_store(state, store, &target.secret)?.ok_or_else(|| missing(&named.to_string()));
    }
    // Only an id came: it may lie in any store of the account. As an id alone: a secret that somebody named like it must not
    // be taken for it.
    let by_id_alone = IdOrName { id: target.secret.id, name: None };
    let account = account(state, caller, target.account.as_ref())?;
    let mut after = None;
    loop {
        let may = |id| caller.may(Operation::ReadMetadata, GrantScope::Store(account, id));
        let page = state.stores(account, after.as_ref(), STORES_AT_A_TIME, may).map_err(damaged)?;
        for (id, record) in page.items {
            if let Some(found) = in_store(state, FoundStore { account, id, record }, &by_id_alone)? {
                return Ok(found);
            }
        }
        after = page.next;
        if after.is_none() {
            return Err(missing("of the account"));
        }
    }
}

fn in_store(state: &State, store: FoundStore, secret: &IdOrName<SecretId, SecretName>) -> Result<Option<FoundSecret>, PublicError> {
    let by_id = |id: SecretId| state.secret(store.id, id).transpose().map(|found| found.map(|record| (id, record)));
    let by_name = |name: &SecretName| state.secret_by_name(store.id, name).transpose();
    let found = secret.resolve(by_id, by_name).transpose().map_err(damaged)?;
    Ok(found.map(|(id, record)| FoundSecret { store, id, record }))
}

/// The id of a secret in a store that was found already.
pub(crate) fn id_in_store(state: &State, store: &FoundStore, secret: &IdOrName<SecretId, SecretName>) -> Result<SecretId, PublicError> {
    let same = FoundStore { account: store.account, id: store.id, record: store.record.clone() };
    let found = in_store(state, same, secret)?;
    found.map(|found| found.id).ok_or_else(|| not_found(format_args!("secret {secret} in store {}", store.record.name)))
}

/// The consumer meant; whether it exists is for `apply` to say.
pub(crate) fn consumer(state: &State, caller: &Caller, target: &ConsumerTarget) -> Result<ConsumerRef, PublicError> {
    let account = account(state, caller, target.account.as_ref())?;
    Ok(ConsumerRef { account, kind: target.kind, name: target.name.clone() })
}
