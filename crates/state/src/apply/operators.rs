//! Operators' tokens.

use types::{PrincipalName, TokenId, UnixMillis};

use super::{Judged, View, refuse, stores::account_of};
use crate::{
    Grant, GrantScope, Keyspace, Prefix, RefusalKind, ReplyBody, Role, TypedKey,
    limits::{GRANTS_MAX, OPERATOR_TOKENS_MAX},
    record::{OperatorTokenRecord, StoreRecord},
};

pub(super) fn create(
    view: &mut View<'_>,
    token: TokenId,
    hash: [u8; 32],
    name: &PrincipalName,
    grants: &[Grant],
    expires: Option<UnixMillis>,
) -> Judged<ReplyBody> {
    if grants.is_empty() || grants.len() > GRANTS_MAX {
        return refuse(RefusalKind::InvalidArgument, format!("{} grants on a token; 1 to {GRANTS_MAX} are allowed", grants.len()));
    }
    in_future(view, expires)?;
    for grant in grants {
        match grant.scope {
            GrantScope::Cluster => {}
            GrantScope::Account(account) => drop(account_of(view, account)?),
            GrantScope::Store(account, store) => match view.read::<StoreRecord>(TypedKey::Store { store })? {
                Some(record) if record.account == account && !record.deleting => {}
                _ => return refuse(RefusalKind::NotFound, format!("no store {store}")),
            },
        }
    }
    let record = OperatorTokenRecord { token_id: token, name: name.clone(), grants: grants.to_vec(), created: view.time, expires };
    insert(view, hash, &record)?;
    Ok(ReplyBody::OperatorTokenCreated { token })
}

/// Puts a token under its hash and its id.
pub(super) fn insert(view: &mut View<'_>, hash: [u8; 32], record: &OperatorTokenRecord) -> Judged<()> {
    let (key, by_id) = (TypedKey::OperatorToken { hash }, TypedKey::OperatorTokenId { token: record.token_id });
    if view.has(key.clone()) || view.has(by_id.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("the token {} exists already", record.token_id));
    }
    let mut totals = view.totals()?;
    if totals.operator_tokens >= OPERATOR_TOKENS_MAX {
        let message = format!("there are {OPERATOR_TOKENS_MAX} operators' tokens, the most that there can be; revoke some");
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    totals.operator_tokens += 1;
    view.put(TypedKey::Totals, &totals);
    view.put(key, record);
    view.put(by_id, &hash);
    Ok(())
}

pub(super) fn in_future(view: &View<'_>, expires: Option<UnixMillis>) -> Judged<()> {
    match expires {
        Some(expires) if expires <= view.time => refuse(RefusalKind::InvalidArgument, "the token would have expired before it is made"),
        _ => Ok(()),
    }
}

pub(super) fn revoke(view: &mut View<'_>, token: TokenId) -> Judged<ReplyBody> {
    let hash: Option<[u8; 32]> = view.read(TypedKey::OperatorTokenId { token })?;
    let Some(hash) = hash else { return no_token(token) };
    if is_last_administrator(view, token)? {
        let message = "this is the last token of a Super Administrator of the cluster; make another one first";
        return refuse(RefusalKind::Precondition, message);
    }
    let mut totals = view.totals()?;
    totals.operator_tokens = totals.operator_tokens.saturating_sub(1);
    view.put(TypedKey::Totals, &totals);
    view.delete(TypedKey::OperatorToken { hash });
    view.delete(TypedKey::OperatorTokenId { token });
    Ok(ReplyBody::OperatorTokenRevoked)
}

/// The answer for a token that is not there, or not for this principal.
pub(super) fn no_token<T>(token: TokenId) -> Judged<T> {
    refuse(RefusalKind::NotFound, format!("no token {token}"))
}

/// Whether nobody could administer the cluster without this token.
fn is_last_administrator(view: &View<'_>, token: TokenId) -> Judged<bool> {
    let all = Grant { role: Role::SuperAdministrator, scope: GrantScope::Cluster };
    let tokens = Prefix::keyspace(Keyspace::OperatorToken);
    let (mut it_is, mut others) = (false, false);
    for (key, _) in view.state.scan_control(&tokens) {
        let Ok(key @ TypedKey::OperatorToken { .. }) = key.decode() else { continue };
        let Some(record) = view.read::<OperatorTokenRecord>(key)? else { continue };
        let administers = record.grants.contains(&all) && record.expires.is_none_or(|expires| view.time < expires);
        if record.token_id == token { it_is = administers } else { others |= administers }
    }
    Ok(it_is && !others)
}
