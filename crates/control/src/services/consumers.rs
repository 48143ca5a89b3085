//! `Consumers`.

use std::time::Duration;

use seal::ConsumerToken;
use state::{CommandBody, GrantScope, Operation, State};
use tonic::{Request, Response, Status, async_trait};
use types::{TokenId, UnixMillis};
use wire::{
    parse::{self, AccountTarget, ConsumerTarget, PageTarget},
    v1,
};

use super::{Services, after, next, parsed};
use crate::{call::serve, caller::Caller, error::damaged, keys, resolve, show, write};

fn ends(now: UnixMillis, lifetime_ms: u64) -> Option<UnixMillis> {
    (lifetime_ms > 0).then(|| now.plus(Duration::from_millis(lifetime_ms)))
}

#[async_trait]
impl v1::consumers_server::Consumers for Services {
    async fn create(&self, request: Request<v1::CreateConsumerRequest>) -> Result<Response<v1::CreateConsumerReply>, Status> {
        serve(&self.0, "consumers.create", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let request = parse::request_id(&message.request_id)?;
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                Ok(CommandBody::CreateConsumer { consumer })
            };
            let (body, reply) = write::plain(&core, &call, request, plan).await?;
            let CommandBody::CreateConsumer { consumer } = body else { return Err(crate::error::unexpected()) };
            let record = core.consensus.local().consumer(&consumer).map_err(damaged)?;
            let shown = record.map(|record| show::consumer(&consumer, &record));
            Ok(v1::CreateConsumerReply { consumer: shown, receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn list(&self, request: Request<v1::ListConsumersRequest>) -> Result<Response<v1::ListConsumersReply>, Status> {
        serve(&self.0, "consumers.list", request, async |core, call, message| {
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
        serve(&self.0, "consumers.delete", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let request = parse::request_id(&message.request_id)?;
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                Ok(CommandBody::DeleteConsumer { consumer })
            };
            let (_, reply) = write::plain(&core, &call, request, plan).await?;
            Ok(v1::DeleteConsumerReply { receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn create_token(&self, request: Request<v1::CreateConsumerTokenRequest>) -> Result<Response<v1::ConsumerTokenReply>, Status> {
        serve(&self.0, "consumers.create_token", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let request = parse::request_id(&message.request_id)?;
            let token = ConsumerToken::generate(&*core.entropy);
            let (id, hash) = (TokenId::from_bytes(core.entropy.id()), token.hash());
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                let expires = ends(keys::now(&core, state), message.lifetime_ms);
                Ok(CommandBody::CreateConsumerToken { consumer, token: id, hash, expires })
            };
            let (body, reply) = write::plain(&core, &call, request, plan).await?;
            let CommandBody::CreateConsumerToken { expires, .. } = body else { return Err(crate::error::unexpected()) };
            token_reply(&token, id, expires, &reply)
        })
        .await
    }

    async fn roll_token(&self, request: Request<v1::RollConsumerTokenRequest>) -> Result<Response<v1::ConsumerTokenReply>, Status> {
        serve(&self.0, "consumers.roll_token", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let replaces: TokenId = parse::id("token_id", &message.token_id)?;
            let request = parse::request_id(&message.request_id)?;
            let token = ConsumerToken::generate(&*core.entropy);
            let (id, hash) = (TokenId::from_bytes(core.entropy.id()), token.hash());
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                let now = keys::now(&core, state);
                let (expires, old_until) = (ends(now, message.lifetime_ms), ends(now, message.grace_ms));
                Ok(CommandBody::RollConsumerToken { consumer, replaces, token: id, hash, expires, old_until })
            };
            let (body, reply) = write::plain(&core, &call, request, plan).await?;
            let CommandBody::RollConsumerToken { expires, .. } = body else { return Err(crate::error::unexpected()) };
            token_reply(&token, id, expires, &reply)
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeConsumerTokenRequest>,
    ) -> Result<Response<v1::RevokeConsumerTokenReply>, Status> {
        serve(&self.0, "consumers.revoke_token", request, async |core, call, message| {
            let target: ConsumerTarget = parsed("consumer", message.consumer)?;
            let token: TokenId = parse::id("token_id", &message.token_id)?;
            let request = parse::request_id(&message.request_id)?;
            let plan = |state: &State, caller: &Caller| {
                let consumer = resolve::consumer(state, caller, &target)?;
                caller.require(Operation::ManageConsumers, GrantScope::Account(consumer.account))?;
                Ok(CommandBody::RevokeConsumerToken { consumer, token })
            };
            let (_, reply) = write::plain(&core, &call, request, plan).await?;
            Ok(v1::RevokeConsumerTokenReply { receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn list_tokens(&self, request: Request<v1::ListConsumerTokensRequest>) -> Result<Response<v1::ListConsumerTokensReply>, Status> {
        serve(&self.0, "consumers.list_tokens", request, async |core, call, message| {
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

/// The token, this once. When the log already had this request, the token made now is not the one that was stored: a token is
/// shown once, so the caller learns its id and rolls it.
fn token_reply(
    token: &ConsumerToken,
    id: TokenId,
    expires: Option<UnixMillis>,
    reply: &state::Reply,
) -> Result<v1::ConsumerTokenReply, wire::PublicError> {
    let state::ReplyBody::ConsumerTokenCreated { token: stored } = &reply.body else { return Err(crate::error::unexpected()) };
    if *stored != id {
        let message = format!("this request was done before and made token {stored}, which was shown then; roll it to get a new one");
        return Err(wire::PublicError::new(wire::ErrorKind::AlreadyExists, message));
    }
    Ok(v1::ConsumerTokenReply {
        token_id: id.to_string(),
        token: token.text().expose().to_owned(),
        expires_ms: expires.map_or(0, UnixMillis::get),
        receipt: Some(reply.position.into()),
    })
}
