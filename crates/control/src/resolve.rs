//! From ids and names to the one thing meant, as far as the caller may know of it. What a caller may not know is not found, by
//! the same reads and in the same words as what does not exist.

use state::{
    GrantScope, Operation, State,
    record::{AccountRecord, SecretRecord, StoreRecord},
};
use types::{AccountId, AccountName, ConsumerRef, SecretId, StoreId};
use wire::{
    ErrorKind, PublicError,
    parse::{AccountTarget, ConsumerTarget, SecretTarget, StoreTarget},
};

use crate::{caller::Caller, error::damaged};

/// Accounts that one call looks through for the one a caller means.
const ACCOUNTS_SEEN_MAX: usize = 1000;

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
    let by_id = |id: AccountId| state.account(id).transpose().map(|found| found.map(|_| id));
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
    let accounts = state.accounts(None, ACCOUNTS_SEEN_MAX).map_err(damaged)?.items;
    let seen: Vec<AccountId> = accounts.iter().map(|(id, _)| *id).filter(|id| caller.sees(*id)).collect();
    match seen.as_slice() {
        [account] => Ok(*account),
        [] => Err(not_found("account")),
        _ => Err(PublicError::new(
            ErrorKind::InvalidArgument,
            format!("this token sees {} accounts: say which one (`-a ACCOUNT`)", seen.len()),
        )),
    }
}

/// The account's record.
pub(crate) fn account_record(state: &State, id: AccountId) -> Result<AccountRecord, PublicError> {
    state.account(id).map_err(damaged)?.ok_or_else(|| not_found(format_args!("account {id}")))
}

/// The store meant, if the caller may read its metadata.
pub(crate) fn store(state: &State, caller: &Caller, target: &StoreTarget) -> Result<FoundStore, PublicError> {
    let account = account(state, caller, target.account.as_ref())?;
    let by_id = |id: StoreId| state.store(id).transpose().map(|found| found.map(|record| (id, record)));
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
        return in_store(state, store, target)?.ok_or_else(|| missing(&named.to_string()));
    }
    // Only an id came: it may lie in any store of the account.
    let account = account(state, caller, target.account.as_ref())?;
    let mut after = None;
    loop {
        let page = state.stores(account, after.as_ref(), ACCOUNTS_SEEN_MAX).map_err(damaged)?;
        for (id, record) in page.items {
            let store = FoundStore { account, id, record };
            if caller.may(Operation::ReadMetadata, store.reach())
                && let Some(found) = in_store(state, store, target)?
            {
                return Ok(found);
            }
        }
        after = page.next;
        if after.is_none() {
            return Err(missing("of the account"));
        }
    }
}

fn in_store(state: &State, store: FoundStore, target: &SecretTarget) -> Result<Option<FoundSecret>, PublicError> {
    let by_id = |id: SecretId| state.secret(store.id, id).transpose().map(|found| found.map(|record| (id, record)));
    let by_name = |name: &types::SecretName| state.secret_by_name(store.id, name).transpose();
    let found = target.secret.resolve(by_id, by_name).transpose().map_err(damaged)?;
    Ok(found.map(|(id, record)| FoundSecret { store, id, record }))
}

/// The consumer meant; whether it exists is for `apply` to say.
pub(crate) fn consumer(state: &State, caller: &Caller, target: &ConsumerTarget) -> Result<ConsumerRef, PublicError> {
    let account = account(state, caller, target.account.as_ref())?;
    Ok(ConsumerRef { account, kind: target.kind, name: target.name.clone() })
}
