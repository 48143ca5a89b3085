//! Tokens, by which people and programs call the public API.

use std::{sync::Arc, time::Duration};

use seal::OperatorToken;
use state::{
    CommandBody, Grant, GrantScope, Operation, Operator, Permission, Reply, ReplyBody, Role, State, TokenHolder, limits::PAGE_MAX,
};
use types::{PrincipalName, StoreId, StoreName, TokenId, UnixMillis};
use wire::{
    ErrorKind, PublicError,
    parse::{self, AccountTarget, FieldError, IdOrName, PageTarget, StoreTarget},
    v1,
};

use super::{after, members, next};
use crate::{
    call::Call,
    caller::Caller,
    core::Core,
    error::{damaged, unexpected},
    keys, resolve, write,
};

/// Tokens of one name that an error names at the most.
const AMBIGUOUS_SHOWN: usize = 4;
/// The longest life of a token that has an end: what is meant to last for ever is given none.
const LIFETIME_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A reach as it was asked for.
pub(super) struct WantedReach {
    account: Option<AccountTarget>,
    store: Option<IdOrName<StoreId, StoreName>>,
}

impl WantedReach {
    fn read(field: &str, account: String, store: String, home: bool) -> Result<Self, FieldError> {
        let account = AccountTarget::parse_optional(&format!("{field}.account"), account)?;
        let store = IdOrName::parse_optional(&format!("{field}.store"), store)?;
        if store.is_some() && account.is_none() && !home {
            return Err(FieldError::new(format!("{field}.account"), "is missing: a store is named within its account"));
        }
        Ok(Self { account, store })
    }

    /// The reach within the caller's sight; an account or store beyond it is unknown. Where no account is named, `home` is meant.
    fn resolve(&self, state: &State, caller: &Caller, home: GrantScope) -> Result<GrantScope, PublicError> {
        let account = match (&self.account, home.account()) {
            (None, None) => return Ok(GrantScope::Cluster),
            (None, Some(home)) => Some(IdOrName { id: Some(home), name: None }),
            (account, _) => account.clone(),
        };
        match &self.store {
            None => Ok(GrantScope::Account(resolve::account(state, caller, account.as_ref())?)),
            Some(store) => {
                let found = resolve::store(state, caller, &StoreTarget { account, store: store.clone() })?;
                Ok(GrantScope::Store(found.account, found.id))
            }
        }
    }
}

/// A grant as it was asked for.
pub(super) struct WantedGrant {
    role: Role,
    reach: WantedReach,
}

impl WantedGrant {
    /// Reads a message; `home` when a reach may be left to the home of a member.
    pub(super) fn read(field: &str, grant: v1::TokenGrant, home: bool) -> Result<Self, FieldError> {
        let role = Role::from_name(&grant.role)
            .ok_or_else(|| FieldError::new(format!("{field}.role"), "must be super-administrator, admin, deployer or reporter"))?;
        Ok(Self { role, reach: WantedReach::read(field, grant.account, grant.store, home)? })
    }

    /// Reads several.
    pub(super) fn read_all(field: &str, grants: Vec<v1::TokenGrant>, home: bool) -> Result<Vec<Self>, FieldError> {
        let read = |(place, grant)| Self::read(&format!("{field}.{place}"), grant, home);
        grants.into_iter().enumerate().map(read).collect()
    }

    /// The grant within the caller's sight.
    pub(super) fn resolve(&self, state: &State, caller: &Caller, home: GrantScope) -> Result<Grant, PublicError> {
        Ok(Grant { role: self.role, scope: self.reach.resolve(state, caller, home)? })
    }
}

/// A grant as it is shown.
pub(super) fn shown_grant(grant: &Grant) -> v1::TokenGrant {
    let v1::TokenReach { account, store } = shown_reach(&grant.scope);
    v1::TokenGrant { role: grant.role.name().to_owned(), account, store }
}

fn shown_reach(scope: &GrantScope) -> v1::TokenReach {
    let (account, store) = match scope {
        GrantScope::Cluster => (String::new(), String::new()),
        GrantScope::Account(account) => (account.to_string(), String::new()),
        GrantScope::Store(account, store) => (account.to_string(), store.to_string()),
    };
    v1::TokenReach { account, store }
}

fn shown(operator: &Operator) -> v1::OperatorToken {
    let Operator { token, terms, rights } = operator;
    v1::OperatorToken {
        token_id: token.token_id.to_string(),
        name: token.name.to_string(),
        grants: rights.grants().iter().map(shown_grant).collect(),
        created_ms: token.created.get(),
        expires_ms: token.expires.map_or(0, UnixMillis::get),
        member: operator.member().map(members::shown_ref),
        permission: rights.permission().name().to_owned(),
        reach: terms.iter().flat_map(|terms| &terms.reach).map(shown_reach).collect(),
    }
}

/// Whether the caller may do `operation` on all that a token is managed by.
fn reaches(caller: &Caller, operation: Operation, token: &Operator) -> bool {
    token.managed_within().into_iter().all(|scope| caller.may(operation, scope))
}

/// The token of this name, among those that the caller may change.
fn named(state: &State, caller: &Caller, name: &PrincipalName) -> Result<TokenId, PublicError> {
    let (mut found, mut after) = (Vec::new(), None);
    let fits = |token: &Operator| token.token.name == *name && reaches(caller, Operation::ManageTokens, token);
    loop {
        let page = state.operators(after.as_ref(), PAGE_MAX, fits).map_err(damaged)?;
        found.extend(page.items.iter().map(|token| token.token.token_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    match found[..] {
        [token] => Ok(token),
        // What was asked for is not said again: somebody may have pasted a token in the place of its id.
        [] => Err(PublicError::new(ErrorKind::NotFound, "no token has this id or name: `cinnabar token list` shows them")),
        _ => {
            let shown: Vec<String> = found.iter().take(AMBIGUOUS_SHOWN).map(ToString::to_string).collect();
            let text =
                format!("{} tokens are called {name}: give the id of the one that is meant, such as {}", found.len(), shown.join(", "));
            Err(PublicError::new(ErrorKind::Precondition, text))
        }
    }
}

/// Until when something lives that gets so many milliseconds; 0 says nothing of it.
fn ends(field: &str, now: UnixMillis, lifetime_ms: u64) -> Result<Option<UnixMillis>, FieldError> {
    let lifetime = Duration::from_millis(lifetime_ms);
    if lifetime > LIFETIME_MAX {
        return Err(FieldError::new(field, "is longer than 100 years; leave it out for a token without an end"));
    }
    Ok((lifetime_ms > 0).then(|| now.plus(lifetime)))
}

/// Makes a token.
pub(crate) async fn create(core: Arc<Core>, call: Call, message: v1::CreateTokenRequest) -> Result<v1::TokenReply, PublicError> {
    let member = message.member.map(|member| members::Wanted::read("member", member)).transpose()?;
    if member.is_some() && !(message.name.is_empty() && message.grants.is_empty()) {
        return Err(FieldError::new("member", "stands in the place of a name and of grants: give the one or the others").into());
    }
    let name: Option<PrincipalName> = member.is_none().then(|| parse::name("name", message.name)).transpose()?;
    let wanted = WantedGrant::read_all("grants", message.grants, false)?;
    let permission = match message.permission.as_str() {
        "" => Permission::Edit,
        name => Permission::from_name(name).ok_or_else(|| FieldError::new("permission", "must be read or edit"))?,
    };
    let reach = message.reach.into_iter().enumerate();
    let reach = reach.map(|(place, reach)| WantedReach::read(&format!("reach.{place}"), reach.account, reach.store, member.is_some()));
    let reach = reach.collect::<Result<Vec<_>, _>>()?;
    let (id, token) = (TokenId::from_bytes(core.entropy.id()), OperatorToken::generate(&*core.entropy));
    let hash = token.hash();
    let expires = ends("expires_in_ms", keys::now(&core, &core.consensus.local()), message.expires_in_ms)?;
    let plan = |state: &State, caller: &Caller| {
        let holder = match (&member, &name) {
            (Some(member), _) => {
                let member = member.resolve(state, caller)?;
                caller.require(Operation::ManageTokens, member.home())?;
                TokenHolder::Member(member)
            }
            (None, Some(name)) => {
                let grants = wanted.iter().map(|grant| grant.resolve(state, caller, GrantScope::Cluster));
                let grants = grants.collect::<Result<Vec<_>, _>>()?;
                grants.iter().try_for_each(|grant| caller.require(Operation::ManageTokens, grant.scope))?;
                TokenHolder::Own { name: name.clone(), grants }
            }
            (None, None) => return Err(FieldError::new("name", "is missing").into()),
        };
        let home = if let TokenHolder::Member(member) = &holder { member.home() } else { GrantScope::Cluster };
        let reach = reach.iter().map(|reach| reach.resolve(state, caller, home)).collect::<Result<Vec<_>, _>>()?;
        Ok(match holder {
            // As it always was, at every level.
            TokenHolder::Own { name, grants } if permission == Permission::Edit && reach.is_empty() => {
                CommandBody::CreateOperatorToken { token: id, hash, name, grants, expires }
            }
            holder => CommandBody::CreateToken { token: id, hash, holder, permission, reach, expires },
        })
    };
    let (_, reply) = write::plain(&core, &call, plan).await?;
    made(&core, &token, id, &reply)
}

/// The token, this once. Of a request that was answered before, it was shown then, and is known to nobody here.
fn made(core: &Core, token: &OperatorToken, id: TokenId, reply: &Reply) -> Result<v1::TokenReply, PublicError> {
    let (made, first) = match reply.body {
        ReplyBody::OperatorTokenCreated { token: made } => (made, made == id),
        ReplyBody::OperatorTokenRolled { token: made, check } => {
            (made, token.hash().first_chunk().is_some_and(|start| u64::from_be_bytes(*start) == check))
        }
        _ => return Err(unexpected()),
    };
    let record = core.consensus.local().operator_by_id(made).map_err(damaged)?;
    Ok(v1::TokenReply {
        token_id: made.to_string(),
        token: if first { token.text().expose().to_owned() } else { String::new() },
        expires_ms: record.and_then(|record| record.expires).map_or(0, UnixMillis::get),
    })
}

/// Lists the tokens within the caller's reach.
pub(crate) async fn list(core: Arc<Core>, call: Call, message: v1::ListTokensRequest) -> Result<v1::ListTokensReply, PublicError> {
    let page = PageTarget::from(message.page);
    let after = after(&page)?;
    core.read(&call, |state, caller| {
        caller.require_somewhere(Operation::ReadTokens)?;
        let seen = |token: &Operator| reaches(caller, Operation::ReadTokens, token);
        let found = state.operators(after.as_ref(), page.size, seen).map_err(damaged)?;
        Ok(v1::ListTokensReply { tokens: found.items.iter().map(shown).collect(), next_page: next(found.next) })
    })
    .await
}

/// The token that is meant; none when the request was answered before, for then its name may be nobody's by now.
async fn meant(core: &Core, call: &Call, text: String) -> Result<Option<TokenId>, PublicError> {
    let target: IdOrName<TokenId, PrincipalName> = IdOrName::parse("token_id", text)?;
    match (target.id, &target.name) {
        (Some(id), _) => Ok(Some(id)),
        (None, _) if core.first_answer(call).await?.is_some() => Ok(None),
        // On the newest state: one that is behind may know only one of two that have the name.
        (None, Some(name)) => core.read(call, |state, caller| named(state, caller, name)).await.map(Some),
        (None, None) => Err(FieldError::new("token_id", "is missing").into()),
    }
}

/// Makes a token in the place of another.
pub(crate) async fn roll(core: Arc<Core>, call: Call, message: v1::RollTokenRequest) -> Result<v1::TokenReply, PublicError> {
    let meant = meant(&core, &call, message.token_id).await?;
    let token = OperatorToken::generate(&*core.entropy);
    let (fresh, hash) = (TokenId::from_bytes(core.entropy.id()), token.hash());
    let id = if message.keep_id { meant.unwrap_or(fresh) } else { fresh };
    let now = keys::now(&core, &core.consensus.local());
    let (expires, old_until) = (ends("expires_in_ms", now, message.expires_in_ms)?, ends("grace_ms", now, message.grace_ms)?);
    // What is within the caller's reach, `apply` knows: a token beyond it is answered as unknown. Without one the first answer is given.
    let replaces = meant.unwrap_or(fresh);
    let plan = |_: &State, _: &Caller| Ok(CommandBody::RollOperatorToken { replaces, token: id, hash, expires, old_until });
    let (_, reply) = write::plain(&core, &call, plan).await?;
    made(&core, &token, id, &reply)
}

/// Voids a token.
pub(crate) async fn revoke(core: Arc<Core>, call: Call, message: v1::RevokeTokenRequest) -> Result<v1::RevokeTokenReply, PublicError> {
    let Some(token) = meant(&core, &call, message.token_id).await? else { return Ok(v1::RevokeTokenReply {}) };
    // As above.
    let plan = |_: &State, _: &Caller| Ok(CommandBody::RevokeOperatorToken { token });
    write::plain(&core, &call, plan).await?;
    Ok(v1::RevokeTokenReply {})
}
