//! What bounds an account since feature level 3, and what it holds of that.

use std::collections::BTreeMap;

use types::{AccountId, FeatureLevel};

use super::{Halt, Judged, View, operators, refuse, stores};
use crate::{
    LimitsEdit, RefusalKind, ReplyBody, TypedKey,
    limits::{UNDELETE_BYTES_MAX, UNDELETE_SECRETS_MAX, UNDELETE_WINDOW_MAX},
    record::{HoldingsRecord, LimitsRecord},
    state::own_account,
};

/// The level that brought these limits. Below it nothing is counted, and nothing bounded by them.
pub(super) const LEVEL: FeatureLevel = FeatureLevel::new(3);

pub(super) fn edit(view: &mut View<'_>, account: Option<AccountId>, edit: &LimitsEdit) -> Judged<ReplyBody> {
    let LimitsEdit { stores, secrets, value_bytes, tokens, undelete_window_ms, undelete_secrets, undelete_bytes } = *edit;
    let quota = stores::QuotaEdit { stores, secrets, value_bytes };
    let of_quota = stores.or(secrets).or(value_bytes).is_some();
    let more = tokens.or(undelete_secrets).is_some() || undelete_window_ms.or(undelete_bytes).is_some();
    match account {
        Some(account) => drop(stores::account_of(view, account)?),
        None if of_quota => {
            let message = "stores, secrets and the bytes of a value are limited account by account; name the account";
            return refuse(RefusalKind::InvalidArgument, message);
        }
        None => {}
    }
    if !of_quota && !more {
        return refuse(RefusalKind::InvalidArgument, "no limit is named");
    }
    if undelete_window_ms.is_some_and(|window| u128::from(window) > UNDELETE_WINDOW_MAX.as_millis()) {
        let message = format!("deleted secrets can be kept for {} days at the most", UNDELETE_WINDOW_MAX.as_secs() / 86_400);
        return refuse(RefusalKind::InvalidArgument, message);
    }
    if undelete_secrets.is_some_and(|most| most > UNDELETE_SECRETS_MAX) || undelete_bytes.is_some_and(|most| most > UNDELETE_BYTES_MAX) {
        let message = format!("at most {UNDELETE_SECRETS_MAX} deleted secrets and {UNDELETE_BYTES_MAX} bytes of them can be kept");
        return refuse(RefusalKind::InvalidArgument, message);
    }
    if let (Some(account), true) = (account, of_quota) {
        stores::edit_quota(view, account, quota)?;
    }
    if more {
        let now = view.state.limits_set(account)?;
        let limits = LimitsRecord {
            tokens: tokens.or(now.tokens),
            undelete_window_ms: undelete_window_ms.or(now.undelete_window_ms),
            undelete_secrets: undelete_secrets.or(now.undelete_secrets),
            undelete_bytes: undelete_bytes.or(now.undelete_bytes),
        };
        view.put(TypedKey::Limits { account }, &limits);
    }
    Ok(ReplyBody::LimitsSet)
}

pub(super) fn holdings(view: &View<'_>, account: AccountId) -> Result<HoldingsRecord, Halt> {
    Ok(view.read(TypedKey::Holdings { account: Some(account) })?.unwrap_or_default())
}

/// Takes a place for a token of an account's own. Expired ones make room when there is none.
pub(super) fn take_token(view: &mut View<'_>, account: Option<AccountId>) -> Judged<()> {
    let Some(account) = account else { return Ok(()) };
    if view.level()? < LEVEL {
        return Ok(());
    }
    let most = view.state.limits(account)?.tokens;
    if holdings(view, account)?.tokens >= most {
        operators::drop_expired(view, account)?;
    }
    let mut held = holdings(view, account)?;
    if held.tokens >= most {
        let message = format!("the account has {} of {most} tokens; revoke some, or raise the quota", held.tokens);
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    held.tokens += 1;
    view.put(TypedKey::Holdings { account: Some(account) }, &held);
    Ok(())
}

/// Gives the place of a token back.
pub(super) fn give_token(view: &mut View<'_>, account: Option<AccountId>) -> Result<(), Halt> {
    let Some(account) = account else { return Ok(()) };
    if view.level()? < LEVEL {
        return Ok(());
    }
    let mut held = holdings(view, account)?;
    held.tokens = held.tokens.saturating_sub(1);
    view.put(TypedKey::Holdings { account: Some(account) }, &held);
    Ok(())
}

/// Counts what there is when the level is raised to the one that counts.
pub(super) fn begin_to_count(view: &mut View<'_>) -> Result<(), Halt> {
    let mut tokens = BTreeMap::<AccountId, u32>::new();
    operators::each(view, |operator| {
        if let Some(account) = own_account(&operator.token.grants, operator.member()) {
            *tokens.entry(account).or_default() += 1;
        }
    })?;
    for (account, tokens) in tokens {
        let held = HoldingsRecord { tokens, ..holdings(view, account)? };
        view.put(TypedKey::Holdings { account: Some(account) }, &held);
    }
    Ok(())
}
