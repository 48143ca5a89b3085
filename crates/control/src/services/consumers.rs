//! `Consumers`.

use std::time::Duration;

use seal::ConsumerToken;
use state::{CommandBody, GrantScope, Operation, State, record::ConsumerRecord};
use tonic::{Request, Response, Status, async_trait};
use types::{TokenId, UnixMillis};
use wire::{
    PublicError,
    parse::{self, AccountTarget, ConsumerTarget, FieldError, PageTarget},
    v1,
};

use super::{Services, after, next, parsed};
use crate::{
    call::{change, read},
    caller::Caller,
    error::{damaged, unexpected},
    keys, resolve, show, write,
};

/// The longest life of a token that has an end: what is meant to last for ever is given none.
const LIFETIME_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Until when something lives that gets so many milliseconds; 0 is for ever.
fn ends(field: &str, now: UnixMillis, lifetime_ms: u64) -> Result<Option<UnixMillis>, PublicError> {
    let lifetime = Duration::from_millis(lifetime_ms);
    if lifetime > LIFETIME_MAX {
        return Err(FieldError::new(field, "is longer than 100 years; leave it out for a token without an end").into());
    }
    Ok((lifetime_ms > 0).then(|| now.plus(lifetime)))
}

#[async_trait]
impl v1::consumers_server::Consumers for Services {
    async fn create(&self, request: Request<v1::CreateConsumerRequest>) -> Result<Response<v1::CreateConsumerReply>, Status> {
        change(&self.0, "consumers.create", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                Ok(CommandBody::CreateConsumer { consumer })
            };
            let (body, reply) = write::plain(&core, &call, plan).await?;
            let shown = match body {
                Some(CommandBody::CreateConsumer { consumer }) => Some(show::consumer(&consumer, &ConsumerRecord { created: reply.time })),
                _ => None,
            };
            Ok(v1::CreateConsumerReply { consumer: shown, receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn list(&self, request: Request<v1::ListConsumersRequest>) -> Result<Response<v1::ListConsumersReply>, Status> {
        read(&self.0, "consumers.list", request, async |core, call, message| {
            let account = AccountTarget::parse_optional("account", message.account)?;
            let page = PageTarget::from(message.page);
            let after = after(&page)?;
            core.read(&call, |state, caller| {
                let account = resolve::account(state, caller, account.as_ref())?;
                caller.require(Operation::ReadMetadata, GrantScope::Account(account))?;
                let found = state.consumers(account, after.as_ref(), page.size).map_err(damaged)?;
                let consumers = found.items.iter().map(|(consumer, record)| show::consumer(consumer, record)).collect();
                Ok(v1::ListConsumersReply { consumers, next_page: next(found.next) })
            })
            .await
        })
        .await
    }

    async fn delete(&self, request: Request<v1::DeleteConsumerRequest>) -> Result<Response<v1::DeleteConsumerReply>, Status> {
        change(&self.0, "consumers.delete", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                Ok(CommandBody::DeleteConsumer { consumer })
            };
            let (_, reply) = write::plain(&core, &call, plan).await?;
            Ok(v1::DeleteConsumerReply { receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn create_token(&self, request: Request<v1::CreateConsumerTokenRequest>) -> Result<Response<v1::ConsumerTokenReply>, Status> {
        change(&self.0, "consumers.create_token", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let token = ConsumerToken::generate(&*core.entropy);
            let (id, hash) = (TokenId::from_bytes(core.entropy.id()), token.hash());
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                let expires = ends("lifetime_ms", keys::now(&core, state), message.lifetime_ms)?;
                Ok(CommandBody::CreateConsumerToken { consumer, token: id, hash, expires })
            };
            let (body, reply) = write::plain(&core, &call, plan).await?;
            let expires = body.and_then(|body| if let CommandBody::CreateConsumerToken { expires, .. } = body { expires } else { None });
            token_reply(&token, id, expires, &reply)
        })
        .await
    }

    async fn roll_token(&self, request: Request<v1::RollConsumerTokenRequest>) -> Result<Response<v1::ConsumerTokenReply>, Status> {
        change(&self.0, "consumers.roll_token", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let replaces: TokenId = parse::id("token_id", &message.token_id)?;
            let token = ConsumerToken::generate(&*core.entropy);
            let (id, hash) = (TokenId::from_bytes(core.entropy.id()), token.hash());
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                let now = keys::now(&core, state);
                let (expires, old_until) = (ends("lifetime_ms", now, message.lifetime_ms)?, ends("grace_ms", now, message.grace_ms)?);
                Ok(CommandBody::RollConsumerToken { consumer, replaces, token: id, hash, expires, old_until })
            };
            let (body, reply) = write::plain(&core, &call, plan).await?;
            let expires = body.and_then(|body| if let CommandBody::RollConsumerToken { expires, .. } = body { expires } else { None });
            token_reply(&token, id, expires, &reply)
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeConsumerTokenRequest>,
    ) -> Result<Response<v1::RevokeConsumerTokenReply>, Status> {
        change(&self.0, "consumers.revoke_token", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let token: TokenId = parse::id("token_id", &message.token_id)?;
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                Ok(CommandBody::RevokeConsumerToken { consumer, token })
            };
            let (_, reply) = write::plain(&core, &call, plan).await?;
            Ok(v1::RevokeConsumerTokenReply { receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn list_tokens(&self, request: Request<v1::ListConsumerTokensRequest>) -> Result<Response<v1::ListConsumerTokensReply>, Status> {
        read(&self.0, "consumers.list_tokens", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            core.read(&call, |state, caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ReadMetadata, GrantScope::Account(consumer.account))?;
                let tokens = state.consumer_tokens(&consumer).map_err(damaged)?;
                let shown = |token: &state::record::ConsumerTokenRecord| v1::ConsumerToken {
                    token_id: token.token_id.to_string(),
                    created_ms: token.created.get(),
                    expires_ms: token.expires.map_or(0, UnixMillis::get),
                };
                Ok(v1::ListConsumerTokensReply { tokens: tokens.iter().map(shown).collect() })
            })
            .await
        })
        .await
    }
}

/// The token, this once. When the log already had this request, the token made now is not the one that was stored: the reply
/// names the stored one by its id and shows none, so that the caller can roll it.
fn token_reply(
    token: &ConsumerToken,
    id: TokenId,
    expires: Option<UnixMillis>,
    reply: &state::Reply,
) -> Result<v1::ConsumerTokenReply, PublicError> {
    let state::ReplyBody::ConsumerTokenCreated { token: stored } = &reply.body else { return Err(unexpected()) };
    let first = *stored == id;
    Ok(v1::ConsumerTokenReply {
        token_id: stored.to_string(),
        token: if first { token.text().expose().to_owned() } else { String::new() },
        expires_ms: expires.filter(|_| first).map_or(0, UnixMillis::get),
        receipt: Some(reply.position.into()),
    })
}
