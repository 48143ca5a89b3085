//! `Tokens`: by which people and programs call the public API.

use seal::OperatorToken;
use state::{CommandBody, Grant, GrantScope, Operation, ReplyBody, Role, State, limits::PAGE_MAX, record::OperatorTokenRecord};
use tonic::{Request, Response, Status, async_trait};
use types::{PrincipalName, StoreId, TokenId, UnixMillis};
use wire::{
    ErrorKind, PublicError,
    parse::{self, AccountTarget, FieldError, IdOrName, PageTarget, StoreTarget},
    v1,
};

use super::{Services, after, next};
use crate::{
    call::{change, read},
    caller::Caller,
    error::{damaged, unexpected},
    keys, resolve, write,
};

/// Tokens of one name that an error names at the most.
const AMBIGUOUS_SHOWN: usize = 4;

/// A grant as it was asked for.
struct Wanted {
    role: Role,
    account: Option<AccountTarget>,
    store: Option<IdOrName<StoreId, types::StoreName>>,
}

impl Wanted {
    fn read(place: usize, grant: v1::TokenGrant) -> Result<Self, FieldError> {
        let field = |name: &str| format!("grants.{place}.{name}");
        let role = Role::from_name(&grant.role)
            .ok_or_else(|| FieldError::new(field("role"), "must be super-administrator, admin, deployer or reporter"))?;
        let account = AccountTarget::parse_optional(&field("account"), grant.account)?;
        let store = IdOrName::parse_optional(&field("store"), grant.store)?;
        if store.is_some() && account.is_none() {
            return Err(FieldError::new(field("account"), "is missing: a store is named within its account"));
        }
        Ok(Self { role, account, store })
    }

    /// The grant within the caller's sight; an account or store beyond it is unknown.
    fn resolve(&self, state: &State, caller: &Caller) -> Result<Grant, PublicError> {
        let scope = match (&self.account, &self.store) {
            (None, _) => GrantScope::Cluster,
            (account, None) => GrantScope::Account(resolve::account(state, caller, account.as_ref())?),
            (account, Some(store)) => {
                let target = StoreTarget { account: account.clone(), store: store.clone() };
                let found = resolve::store(state, caller, &target)?;
                GrantScope::Store(found.account, found.id)
            }
        };
        Ok(Grant { role: self.role, scope })
    }
}

/// The token of this name, among those that the caller may revoke.
fn named(state: &State, caller: &Caller, name: &PrincipalName) -> Result<TokenId, PublicError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = state.operator_tokens(after.as_ref(), PAGE_MAX).map_err(damaged)?;
        let reached = |token: &OperatorTokenRecord| token.grants.iter().all(|grant| caller.may(Operation::ManageTokens, grant.scope));
        found.extend(page.items.iter().filter(|token| token.name == *name && reached(token)).map(|token| token.token_id));
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

fn shown(token: OperatorTokenRecord) -> v1::OperatorToken {
    let grant = |grant: &Grant| {
        let (account, store) = match grant.scope {
            GrantScope::Cluster => (String::new(), String::new()),
            GrantScope::Account(account) => (account.to_string(), String::new()),
            GrantScope::Store(account, store) => (account.to_string(), store.to_string()),
        };
        v1::TokenGrant { role: grant.role.name().to_owned(), account, store }
    };
    v1::OperatorToken {
        token_id: token.token_id.to_string(),
        name: token.name.to_string(),
        grants: token.grants.iter().map(grant).collect(),
        created_ms: token.created.get(),
        expires_ms: token.expires.map_or(0, UnixMillis::get),
    }
}

#[async_trait]
impl v1::tokens_server::Tokens for Services {
    async fn create(&self, request: Request<v1::CreateTokenRequest>) -> Result<Response<v1::TokenReply>, Status> {
        change(&self.0, "tokens.create", request, async |core, call, message| {
            let name: PrincipalName = parse::name("name", message.name)?;
            let wanted = message.grants.into_iter().enumerate().map(|(place, grant)| Wanted::read(place, grant));
            let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
            let (id, token) = (TokenId::from_bytes(core.entropy.id()), OperatorToken::generate(&*core.entropy));
            let now = keys::now(&core, &core.consensus.local());
            let expires = (message.expires_in_ms > 0).then(|| UnixMillis::new(now.get().saturating_add(message.expires_in_ms)));
            let plan = |state: &State, caller: &Caller| {
                let grants = wanted.iter().map(|grant| grant.resolve(state, caller)).collect::<Result<Vec<_>, _>>()?;
                grants.iter().try_for_each(|grant| caller.require(Operation::ManageTokens, grant.scope))?;
                Ok(CommandBody::CreateOperatorToken { token: id, hash: token.hash(), name: name.clone(), grants, expires })
            };
            let (_, reply) = write::plain(&core, &call, plan).await?;
            let ReplyBody::OperatorTokenCreated { token: made } = reply.body else { return Err(unexpected()) };
            // Of a request that was answered before, the token was shown then, and is known to nobody here.
            let text = if made == id { token.text().expose().to_owned() } else { String::new() };
            Ok(v1::TokenReply { token_id: made.to_string(), token: text, expires_ms: expires.map_or(0, UnixMillis::get) })
        })
        .await
    }

    async fn list(&self, request: Request<v1::ListTokensRequest>) -> Result<Response<v1::ListTokensReply>, Status> {
        read(&self.0, "tokens.list", request, async |core, call, message| {
            let page = PageTarget::from(message.page);
            let after = after(&page)?;
            core.read(&call, |state, caller| {
                caller.require(Operation::ManageTokens, GrantScope::Cluster)?;
                let found = state.operator_tokens(after.as_ref(), page.size).map_err(damaged)?;
                Ok(v1::ListTokensReply { tokens: found.items.into_iter().map(shown).collect(), next_page: next(found.next) })
            })
            .await
        })
        .await
    }

    async fn revoke(&self, request: Request<v1::RevokeTokenRequest>) -> Result<Response<v1::RevokeTokenReply>, Status> {
        change(&self.0, "tokens.revoke", request, async |core, call, message| {
            let target: IdOrName<TokenId, PrincipalName> = IdOrName::parse("token_id", message.token_id)?;
            let token = match (target.id, &target.name) {
                (Some(id), _) => id,
                // Answered before: the name may be nobody's by now.
                (None, _) if core.first_answer(&call).await?.is_some() => return Ok(v1::RevokeTokenReply {}),
                // On the newest state: one that is behind may know only one of two that have the name.
                (None, Some(name)) => core.read(&call, |state, caller| named(state, caller, name)).await?,
                (None, None) => return Err(FieldError::new("token_id", "is missing").into()),
            };
            // What is within the caller's reach, `apply` knows: a token beyond it is answered as unknown.
            let plan = |_: &State, _: &Caller| Ok(CommandBody::RevokeOperatorToken { token });
            write::plain(&core, &call, plan).await?;
            Ok(v1::RevokeTokenReply {})
        })
        .await
    }
}
