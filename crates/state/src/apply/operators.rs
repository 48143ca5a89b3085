//! Operators' tokens.

use types::{AccountId, PrincipalName, TokenId, UnixMillis};

use super::{Halt, Judged, View, limits, members, refuse, stores::account_of};
use crate::{
    Grant, GrantScope, Keyspace, Operation, Operator, Permission, Prefix, RefusalKind, ReplyBody, TokenHolder, TypedKey,
    limits::{GRANTS_MAX, OPERATOR_TOKENS_MAX, REACH_MAX, TOKENS_PER_MEMBER_MAX},
    record::{MemberRecord, OperatorTokenRecord, StoreRecord, TokenTermsRecord},
    state::{member_of, own_account},
};

/// What is new about a token.
pub(super) struct NewToken {
    pub(super) token: TokenId,
    pub(super) hash: [u8; 32],
    pub(super) expires: Option<UnixMillis>,
}

pub(super) fn create(view: &mut View<'_>, new: &NewToken, name: &PrincipalName, grants: &[Grant]) -> Judged<ReplyBody> {
    check_own(view, grants)?;
    in_future(view, new.expires)?;
    each_is_there(view, grants)?;
    insert(view, new.hash, &record(view, new, name, grants), None)?;
    Ok(ReplyBody::OperatorTokenCreated { token: new.token })
}

fn check_own(_: &View<'_>, grants: &[Grant]) -> Judged<()> {
    if grants.is_empty() || grants.len() > GRANTS_MAX {
        return refuse(RefusalKind::InvalidArgument, format!("{} grants on a token; 1 to {GRANTS_MAX} are allowed", grants.len()));
    }
    Ok(())
}

fn record(view: &View<'_>, new: &NewToken, name: &PrincipalName, grants: &[Grant]) -> OperatorTokenRecord {
    let NewToken { token, expires, .. } = *new;
    OperatorTokenRecord { token_id: token, name: name.clone(), grants: grants.to_vec(), created: view.time, expires }
}

/// Makes a token with a permission, and perhaps with the roles of a member.
pub(super) fn create_with(
    view: &mut View<'_>,
    new: &NewToken,
    holder: &TokenHolder,
    permission: Permission,
    reach: &[GrantScope],
) -> Judged<ReplyBody> {
    in_future(view, new.expires)?;
    if reach.len() > REACH_MAX {
        return refuse(RefusalKind::InvalidArgument, format!("a reach of {} parts; at most {REACH_MAX} are allowed", reach.len()));
    }
    let (record, member) = match holder {
        TokenHolder::Own { name, grants } => {
            check_own(view, grants)?;
            each_is_there(view, grants)?;
            (record(view, new, name, grants), None)
        }
        TokenHolder::Member(member) => {
            members::member_of(view, member)?;
            if let Some(beyond) = reach.iter().find(|reach| !member.home().covers(**reach)) {
                return members::beyond_home(member, *beyond);
            }
            if view.state.member_tokens(member).len() >= TOKENS_PER_MEMBER_MAX {
                let message = format!("{member} has {TOKENS_PER_MEMBER_MAX} tokens, the most that a member can have; revoke one");
                return refuse(RefusalKind::QuotaExceeded, message);
            }
            (record(view, new, &member.name, &[]), Some(member.clone()))
        }
    };
    reach.iter().try_for_each(|scope| is_there(view, *scope))?;
    let terms = TokenTermsRecord { member, permission, reach: reach.to_vec() };
    insert(view, new.hash, &record, Some(&terms))?;
    Ok(ReplyBody::OperatorTokenCreated { token: new.token })
}

fn each_is_there(view: &View<'_>, grants: &[Grant]) -> Judged<()> {
    grants.iter().try_for_each(|grant| is_there(view, grant.scope))
}

/// Whether what a grant reaches exists.
pub(super) fn is_there(view: &View<'_>, scope: GrantScope) -> Judged<()> {
    match scope {
        GrantScope::Cluster => Ok(()),
        GrantScope::Account(account) => account_of(view, account).map(drop),
        GrantScope::Store(account, store) => match view.read::<StoreRecord>(TypedKey::Store { store })? {
            Some(record) if record.account == account && !record.deleting => Ok(()),
            _ => refuse(RefusalKind::NotFound, format!("no store {store}")),
        },
    }
}

/// Puts a token under its hash and its id.
pub(super) fn insert(view: &mut View<'_>, hash: [u8; 32], record: &OperatorTokenRecord, terms: Option<&TokenTermsRecord>) -> Judged<()> {
    let token = record.token_id;
    let (key, by_id) = (TypedKey::OperatorToken { hash }, TypedKey::OperatorTokenId { token });
    if view.has(key.clone()) || view.has(by_id.clone()) {
        return refuse(RefusalKind::AlreadyExists, format!("the token {token} exists already"));
    }
    limits::take_token(view, own_account(&record.grants, member_of(terms)))?;
    let mut totals = view.totals()?;
    if totals.operator_tokens >= OPERATOR_TOKENS_MAX {
        let message = format!("there are {OPERATOR_TOKENS_MAX} operators' tokens, the most that there can be; revoke some");
        return refuse(RefusalKind::QuotaExceeded, message);
    }
    totals.operator_tokens += 1;
    view.put(TypedKey::Totals, &totals);
    view.put(key, record);
    view.put(by_id, &hash);
    if let Some(terms) = terms {
        view.put(TypedKey::TokenTerms { token }, terms);
        if let Some(member) = &terms.member {
            view.put(TypedKey::MemberToken { member: member.clone(), token }, &());
        }
    }
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
    let before = administrators(view)?;
    if before == [token] {
        let message = "this is the last token of a Super Administrator of the cluster; make another one first";
        return refuse(RefusalKind::Precondition, message);
    }
    remove(view, token, hash)?;
    Ok(ReplyBody::OperatorTokenRevoked)
}

/// Takes a token away, with all that belongs to it.
pub(super) fn remove(view: &mut View<'_>, token: TokenId, hash: [u8; 32]) -> Result<(), Halt> {
    let record: Option<OperatorTokenRecord> = view.read(TypedKey::OperatorToken { hash })?;
    let terms: Option<TokenTermsRecord> = view.read(TypedKey::TokenTerms { token })?;
    if let Some(record) = &record {
        limits::give_token(view, own_account(&record.grants, member_of(terms.as_ref())))?;
    }
    let mut totals = view.totals()?;
    totals.operator_tokens = totals.operator_tokens.saturating_sub(1);
    view.put(TypedKey::Totals, &totals);
    view.delete(TypedKey::OperatorToken { hash });
    view.delete(TypedKey::OperatorTokenId { token });
    if let Some(terms) = terms {
        view.delete(TypedKey::TokenTerms { token });
        if let Some(member) = terms.member {
            view.delete(TypedKey::MemberToken { member, token });
        }
    }
    Ok(())
}

/// Makes a token in the place of another, with all that this one allows.
pub(super) fn roll(view: &mut View<'_>, replaces: TokenId, new: &NewToken, old_until: Option<UnixMillis>) -> Judged<ReplyBody> {
    let hash: Option<[u8; 32]> = view.read(TypedKey::OperatorTokenId { token: replaces })?;
    let Some(hash) = hash else { return no_token(replaces) };
    let Some(old) = view.read::<OperatorTokenRecord>(TypedKey::OperatorToken { hash })? else { return no_token(replaces) };
    let terms: Option<TokenTermsRecord> = view.read(TypedKey::TokenTerms { token: replaces })?;
    let expires = new.expires.or(old.expires);
    in_future(view, expires)?;
    let old_until = old_until.filter(|until| *until > view.time);
    match old_until {
        None => remove(view, replaces, hash)?,
        Some(_) if new.token == replaces => {
            let message = "a token that keeps its id takes over at once; leave the time out for which the old one stays good, or let it have a new id";
            return refuse(RefusalKind::InvalidArgument, message);
        }
        Some(until) => {
            let until = old.expires.map_or(until, |expires| expires.min(until));
            view.put(TypedKey::OperatorToken { hash }, &OperatorTokenRecord { expires: Some(until), ..old.clone() });
        }
    }
    let record = OperatorTokenRecord { token_id: new.token, created: view.time, expires, ..old };
    insert(view, new.hash, &record, terms.as_ref())?;
    let check = new.hash.first_chunk().map_or(0, |start| u64::from_be_bytes(*start));
    Ok(ReplyBody::OperatorTokenRolled { token: new.token, check })
}

/// The answer for a token that is not there, or not for this principal.
pub(super) fn no_token<T>(token: TokenId) -> Judged<T> {
    refuse(RefusalKind::NotFound, format!("no token {token}"))
}

/// The tokens by which the cluster can be administered.
pub(super) fn administrators(view: &View<'_>) -> Result<Vec<TokenId>, Halt> {
    let mut found = Vec::new();
    each(view, |operator| {
        let alive = operator.token.expires.is_none_or(|expires| view.time < expires);
        if alive && operator.rights.allows(Operation::ManageTokens, GrantScope::Cluster) {
            found.push(operator.token.token_id);
        }
    })?;
    Ok(found)
}

/// Clears away the tokens of an account's own that have expired.
pub(super) fn drop_expired(view: &mut View<'_>, account: AccountId) -> Result<(), Halt> {
    let mut expired = Vec::new();
    each(view, |operator| {
        let ended = operator.token.expires.is_some_and(|expires| expires <= view.time);
        if ended && own_account(&operator.token.grants, operator.member()) == Some(account) {
            expired.push(operator.token.token_id);
        }
    })?;
    for token in expired {
        if let Some(hash) = view.read(TypedKey::OperatorTokenId { token })? {
            remove(view, token, hash)?;
        }
    }
    Ok(())
}

/// Looks at all tokens that there were before this command, as the view now has them.
pub(super) fn each(view: &View<'_>, mut look: impl FnMut(&Operator)) -> Result<(), Halt> {
    let tokens = Prefix::keyspace(Keyspace::OperatorToken);
    for (key, _) in view.state.scan_control(&tokens) {
        let Ok(key @ TypedKey::OperatorToken { .. }) = key.decode() else { continue };
        let Some(record) = view.read::<OperatorTokenRecord>(key)? else { continue };
        let terms: Option<TokenTermsRecord> = view.read(TypedKey::TokenTerms { token: record.token_id })?;
        let member = match member_of(terms.as_ref()) {
            Some(member) => view.read::<MemberRecord>(TypedKey::Member { member: member.clone() })?,
            None => None,
        };
        look(&Operator::new(record, terms, member));
    }
    Ok(())
}
