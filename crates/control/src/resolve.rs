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

fn not_found(subject: &'static str, what: impl std::fmt::Display) -> PublicError {
    PublicError::new(ErrorKind::NotFound, format!("no {what}, or none that this token may see")).about(subject)
}

/// The account meant: the one named, or the only one that the caller sees.
pub(crate) fn account(state: &State, caller: &Caller, target: Option<&AccountTarget>) -> Result<AccountId, PublicError> {
    let Some(target) = target else { return only_account(state, caller) };
    let by_id = |id: AccountId| state.account(id).transpose().filter(|_| caller.sees(id)).map(|found| found.map(|_| id));
    let by_name = |name: &AccountName| named(state, caller, name).transpose();
    let found = target.resolve(by_id, by_name).transpose().map_err(damaged)?;
    let found = found.filter(|id| caller.sees(*id)).ok_or_else(|| not_found("account", format_args!("account {target}")))?;
    caller.about(GrantScope::Account(found));
    Ok(found)
}

/// The one account that the caller sees under this name, unless there are several. Whose grants name accounts, for that these are read
/// one by one, as many whatever the name is and however many others there are. Accounts have no index by name: who sees all of them has
/// all looked through.
fn named(state: &State, caller: &Caller, name: &AccountName) -> Result<Option<AccountId>, state::ReadError> {
    let found = match caller.seen_accounts() {
        None => state.accounts_named(name)?,
        Some(seen) => {
            let mut found = Vec::new();
            for id in seen {
                found.extend(state.account(id)?.filter(|record| record.name == *name).map(|_| id));
            }
            found
        }
    };
    Ok(if let [one] = found[..] { Some(one) } else { None })
}

fn only_account(state: &State, caller: &Caller) -> Result<AccountId, PublicError> {
    let seen: Vec<AccountId> = match caller.seen_accounts() {
        Some(granted) => granted.into_iter().collect(),
        None => state.accounts(None, 2, |_| true).map_err(damaged)?.items.iter().map(|(id, _)| *id).collect(),
    };
    match seen.as_slice() {
        [account] => {
            caller.about(GrantScope::Account(*account));
            Ok(*account)
        }
        [] => Err(not_found("account", "account")),
        _ => Err(PublicError::new(ErrorKind::InvalidArgument, "this token sees several accounts: say which one (`-a ACCOUNT`)")),
    }
}

/// The account's record.
pub(crate) fn account_record(state: &State, id: AccountId) -> Result<AccountRecord, PublicError> {
    state.account(id).map_err(damaged)?.ok_or_else(|| not_found("account", format_args!("account {id}")))
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
    let (id, record) = found.ok_or_else(|| not_found("store", format_args!("store {}", target.store)))?;
    let found = FoundStore { account, id, record };
    caller.about(found.reach());
    Ok(found)
}

/// The secret meant, if the caller may read its metadata.
pub(crate) fn secret(state: &State, caller: &Caller, target: &SecretTarget) -> Result<FoundSecret, PublicError> {
    let missing = |store: &str| not_found("secret", format_args!("secret {} in store {store}", target.secret));
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

/// The deleted secret meant, if the caller may read the metadata of its store: by id; by name where only one had it.
pub(crate) fn deleted(state: &State, caller: &Caller, target: &SecretTarget) -> Result<(FoundStore, SecretId), PublicError> {
    let Some(named) = &target.store else {
        return Err(PublicError::new(ErrorKind::InvalidArgument, "a deleted secret is named with its store"));
    };
    let store = store(state, caller, &StoreTarget { account: target.account.clone(), store: named.clone() })?;
    if let Some(id) = target.secret.id
        && state.deleted_secret(store.id, id).map_err(damaged)?.is_some()
    {
        return Ok((store, id));
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = state.deleted_secrets(store.id, after.as_ref(), STORES_AT_A_TIME).map_err(damaged)?;
        let fits = |name: &SecretName| target.secret.name.as_ref() == Some(name);
        found.extend(page.items.iter().filter(|(_, record)| fits(&record.secret.name)).map(|(id, _)| *id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    match found[..] {
        [id] => Ok((store, id)),
        [] => Err(not_found("secret", format_args!("deleted secret {} in store {named}", target.secret))),
        [one, ..] => {
            let text = format!("{} deleted secrets had this name: give the id of the one that is meant, such as {one}", found.len());
            Err(PublicError::new(ErrorKind::Precondition, text))
        }
    }
}

/// The id of a secret in a store that was found already.
pub(crate) fn id_in_store(state: &State, store: &FoundStore, secret: &IdOrName<SecretId, SecretName>) -> Result<SecretId, PublicError> {
    let same = FoundStore { account: store.account, id: store.id, record: store.record.clone() };
    let found = in_store(state, same, secret)?;
    found.map(|found| found.id).ok_or_else(|| not_found("secret", format_args!("secret {secret} in store {}", store.record.name)))
}

/// The consumer meant; whether it exists is for `apply` to say.
pub(crate) fn consumer(state: &State, caller: &Caller, target: &ConsumerTarget) -> Result<ConsumerRef, PublicError> {
    let account = account(state, caller, target.account.as_ref())?;
    Ok(ConsumerRef { account, kind: target.kind, name: target.name.clone() })
}

#[cfg(test)]
mod tests {
    use state::{CommandBody, Grant, Principal, Role, reads_of};
    use types::{TokenId, UnixMillis};

    use super::*;
    use crate::{
        call::{Call, Credential},
        snapshots::tests::world::{TOKEN_HASH, World},
    };

    const OTHERS: AccountId = AccountId::from_bytes([0x41; 16]);
    const STORE_OF_OTHERS: StoreId = StoreId::from_bytes([0x42; 16]);
    const MINE: AccountId = AccountId::from_bytes([2; 16]);

    fn text(id: impl std::fmt::Display) -> String {
        id.to_string()
    }

    #[test]
    fn id_of_another_account_is_answered_as_an_unknown_one_by_the_same_reads() {
        let mut world = World::new(1);
        let operator = Principal::Operator { token: TOKEN_HASH };
        world.apply(operator, CommandBody::CreateAccount { account: OTHERS, name: "others".parse().unwrap() });
        world.apply(operator, CommandBody::CreateStore { account: OTHERS, store: STORE_OF_OTHERS, name: "theirs".parse().unwrap() });
        let grants = vec![Grant { role: Role::Admin, scope: GrantScope::Account(MINE) }];
        let (hash, token) = ([0x55; 32], TokenId::from_bytes([0x56; 16]));
        world.apply(operator, CommandBody::CreateOperatorToken { token, hash, name: "mine".parse().unwrap(), grants, expires: None });
        let state = &world.state;
        let call = Call::of_a_test(Credential::Token(hash));
        let caller = Caller::identify(state, &call, UnixMillis::new(0)).unwrap();

        let mine = text(StoreId::from_bytes([3; 16]));
        let stores = |account: &str, name: &str| StoreTarget {
            account: Some(IdOrName::parse("account", account.to_owned()).unwrap()),
            store: IdOrName::parse("store", name.to_owned()).unwrap(),
        };
        let secrets = |account: &str, store: &str, secret: &str| SecretTarget {
            account: Some(IdOrName::parse("account", account.to_owned()).unwrap()),
            store: Some(IdOrName::parse("store", store.to_owned()).unwrap()),
            secret: IdOrName::parse("secret", secret.to_owned()).unwrap(),
        };
        let unknown = "e".repeat(32);
        let ask_store = |account: &str, name: &str| {
            let (found, reads) = reads_of(|| store(state, &caller, &stores(account, name)).map(drop));
            (found.unwrap_err().to_string().replace(name, "STORE").replace(account, "ACCOUNT"), reads)
        };
        let ask_secret = |account: &str, name: &str, secret_name: &str| {
            let target = secrets(account, name, secret_name);
            let (found, reads) = reads_of(|| secret(state, &caller, &target).map(drop));
            (found.unwrap_err().to_string().replace(secret_name, "SECRET").replace(name, "STORE").replace(account, "ACCOUNT"), reads)
        };
        let (me, them) = (text(MINE), text(OTHERS));
        let pairs = [
            ("account", ask_store(&them, &text(STORE_OF_OTHERS)), ask_store(&unknown, &text(STORE_OF_OTHERS))),
            ("account by name", ask_store("others", &mine), ask_store("nobody", &mine)),
            ("store", ask_store(&me, &text(STORE_OF_OTHERS)), ask_store(&me, &unknown)),
            ("store by name", ask_store(&me, "theirs"), ask_store(&me, "nothing")),
            ("secret in a store", ask_secret(&me, &text(STORE_OF_OTHERS), "A"), ask_secret(&me, &unknown, "A")),
        ];
        for (what, of_others, of_nobody) in pairs {
            assert!(!of_others.1.is_empty(), "{what}: the reads are counted");
            assert_eq!(of_others, of_nobody, "{what}");
        }
        assert!(store(state, &caller, &stores(&me, &mine)).is_ok());
    }

    #[test]
    fn name_of_an_account_costs_as_many_reads_as_the_caller_has_accounts() {
        let mut world = World::new(1);
        let operator = Principal::Operator { token: TOKEN_HASH };
        let grants = vec![Grant { role: Role::Admin, scope: GrantScope::Account(MINE) }];
        let (hash, token) = ([0x55; 32], TokenId::from_bytes([0x56; 16]));
        world.apply(operator, CommandBody::CreateOperatorToken { token, hash, name: "mine".parse().unwrap(), grants, expires: None });
        let own = world.state.account(MINE).unwrap().unwrap().name.to_string();
        let asked = |state: &State, name: &str| {
            let call = Call::of_a_test(Credential::Token(hash));
            let caller = Caller::identify(state, &call, UnixMillis::new(0)).unwrap();
            let target = IdOrName::parse("account", name.to_owned()).unwrap();
            let (found, reads) = reads_of(|| account(state, &caller, Some(&target)).ok());
            assert!(reads.iter().all(|(scan, _)| !scan), "{name}: {reads:?}");
            (found, reads.len())
        };
        let unknown = "e".repeat(32);
        let names = [own.as_str(), "theirs", "nobody", &unknown];
        let before = names.map(|name| asked(&world.state, name));
        assert_eq!(before, [(Some(MINE), 1), (None, 1), (None, 1), (None, 2)], "an id is looked up as such before");
        for number in 0..50 {
            let account = AccountId::from_bytes([0x80 | number; 16]);
            world.apply(operator, CommandBody::CreateAccount { account, name: "theirs".parse().unwrap() });
        }
        // One of them has the caller's own name; it sees its own alone.
        let account = AccountId::from_bytes([0x70; 16]);
        world.apply(operator, CommandBody::CreateAccount { account, name: own.parse().unwrap() });
        assert_eq!(names.map(|name| asked(&world.state, name)), before);
    }
}
