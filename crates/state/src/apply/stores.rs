//! Accounts, stores and quotas.

use types::{AccountId, AccountName, StoreId, StoreName, VALUE_BYTES_MAX};

use super::{Judged, View, refuse};
use crate::{
    RefusalKind, ReplyBody, TypedKey,
    limits::{ACCOUNTS_MAX, Quota},
    record::{AccountRecord, StoreRecord},
};

pub(super) fn create_account(view: &mut View<'_>, account: AccountId, name: &AccountName) -> Judged<ReplyBody> {
    view.settings()?;
    if view.has(TypedKey::Account { account }) {
        return refuse(RefusalKind::AlreadyExists, format!("account {account} exists already"));
    }
    let mut totals = view.totals()?;
    if totals.accounts >= ACCOUNTS_MAX {
        return refuse(RefusalKind::QuotaExceeded, format!("the cluster has {ACCOUNTS_MAX} accounts, the most that it can hold"));
    }
    totals.accounts += 1;
    view.put(TypedKey::Totals, &totals);
    let record = AccountRecord { name: name.clone(), created: view.time, current_dek: None, previous_dek: None };
    view.put(TypedKey::Account { account }, &record);
    Ok(ReplyBody::AccountCreated { account })
}

pub(super) fn create_store(view: &mut View<'_>, account: AccountId, store: StoreId, name: &StoreName) -> Judged<ReplyBody> {
    account_of(view, account)?;
    if view.has(TypedKey::Store { store }) {
        return refuse(RefusalKind::AlreadyExists, format!("the store id {store} is taken"));
    }
    let by_name = TypedKey::StoreName { account, name: name.clone() };
    if view.has(by_name.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("a store named {name} exists already"));
    }
    let (mut usage, quota) = (view.usage(account)?, view.state.quota(account)?);
    if usage.stores >= quota.stores {
        let message = format!("the account has {} of {} stores; delete one, or raise the quota", usage.stores, quota.stores);
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    usage.stores += 1;
    view.put(TypedKey::Usage { account }, &usage);
    view.put(by_name, &store);
    let record = StoreRecord { account, name: name.clone(), created: view.time, modified: view.time, deleting: false };
    view.put(TypedKey::Store { store }, &record);
    Ok(ReplyBody::StoreCreated { store })
}

pub(super) fn set_quota(view: &mut View<'_>, account: AccountId, quota: Option<Quota>) -> Judged<ReplyBody> {
    account_of(view, account)?;
    match quota {
        None => view.delete(TypedKey::Quota { account }),
        Some(quota) if quota.value_bytes as usize <= VALUE_BYTES_MAX => view.put(TypedKey::Quota { account }, &quota),
        Some(quota) => {
            let message = format!("a quota of {} bytes a value; at most {VALUE_BYTES_MAX} are possible", quota.value_bytes);
            return refuse(RefusalKind::InvalidArgument, message);
        }
    }
    Ok(ReplyBody::QuotaSet)
}

/// What of a quota is to be changed.
#[derive(Clone, Copy)]
pub(super) struct QuotaEdit {
    pub(super) stores: Option<u32>,
    pub(super) secrets: Option<u32>,
    pub(super) value_bytes: Option<u32>,
}

/// Changes the limits that are named; the others are as this index finds them, so that two edits of different limits both last.
pub(super) fn edit_quota(view: &mut View<'_>, account: AccountId, edit: QuotaEdit) -> Judged<ReplyBody> {
    let QuotaEdit { stores, secrets, value_bytes } = edit;
    account_of(view, account)?;
    if stores.or(secrets).or(value_bytes).is_none() {
        return refuse(RefusalKind::InvalidArgument, "no limit is named; name the stores, the secrets or the bytes of a value");
    }
    let now = view.state.quota(account)?;
    let quota = Quota {
        stores: stores.unwrap_or(now.stores),
        secrets: secrets.unwrap_or(now.secrets),
        value_bytes: value_bytes.unwrap_or(now.value_bytes),
    };
    set_quota(view, account, Some(quota))
}

/// An account that is there.
pub(super) fn account_of(view: &View<'_>, account: AccountId) -> Judged<AccountRecord> {
    match view.read(TypedKey::Account { account })? {
        Some(record) => Ok(record),
        None => refuse(RefusalKind::NotFound, format!("no account {account}")),
    }
}

/// A store of this account that is there and is not being deleted.
pub(super) fn store_of(view: &View<'_>, account: AccountId, store: StoreId) -> Judged<StoreRecord> {
    match view.read::<StoreRecord>(TypedKey::Store { store })? {
        Some(record) if record.account == account && !record.deleting => Ok(record),
        _ => refuse(RefusalKind::NotFound, format!("no store {store}")),
    }
}
