//! `Nodes`: who is a member, how others become one, and how one is shut out.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use seal::JoinToken;
use state::{
    CommandBody, GrantScope, NewJoinToken, Operation, ReplyBody, State,
    record::{JoinTokenRecord, NodeRecord, NodeRole},
};
use tonic::{Request, Response, Status, async_trait};
use types::{Hash, NodeId, NodeName, TokenId, UnixMillis};
use wire::{
    ErrorKind, PublicError,
    parse::{self, FieldError, IdOrName, PageTarget},
    v1,
};

use super::{Services, after, next};
use crate::{
    call::{change, read},
    caller::Caller,
    core::Core,
    enrol::revoke,
    error::{damaged, unexpected},
    exposure, keys, write,
};

/// How long a join token is good for when nothing else is said.
const USUAL_LIFETIME_MS: u64 = 60 * 60 * 1000;
/// How long this node may take to trade its certificate for one by a new authority, and how often it is looked whether it has.
const TRADES_WITHIN: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Nodes and join tokens are the cluster's, so only who administers all of it sees them, and with a token that may only read too.
fn sees(caller: &Caller) -> Result<(), PublicError> {
    caller.require(Operation::ReadCluster, GrantScope::Cluster)
}

fn administers(caller: &Caller) -> Result<(), PublicError> {
    caller.require(Operation::ManageJoinTokens, GrantScope::Cluster)
}

fn target(text: String) -> Result<IdOrName<NodeId, NodeName>, PublicError> {
    Ok(IdOrName::parse("node", text)?)
}

fn role(record: NodeRole) -> v1::NodeRole {
    match record {
        NodeRole::Control => v1::NodeRole::Control,
        NodeRole::Edge => v1::NodeRole::Edge,
        NodeRole::Relay => v1::NodeRole::Relay,
    }
}

fn role_wanted(number: i32) -> Result<NodeRole, PublicError> {
    match v1::NodeRole::try_from(number) {
        Ok(v1::NodeRole::Control) => Ok(NodeRole::Control),
        Ok(v1::NodeRole::Edge) => Ok(NodeRole::Edge),
        Ok(v1::NodeRole::Relay) => Ok(NodeRole::Relay),
        Ok(v1::NodeRole::Unspecified) | Err(_) => Err(FieldError::new("role", "must be control, edge or relay").into()),
    }
}

fn shown(node: NodeId, record: NodeRecord) -> v1::Node {
    v1::Node {
        node_id: node.get(),
        name: record.name.to_string(),
        role: role(record.role).into(),
        address: record.address.unwrap_or_default(),
        feature_level: record.feature_level.get(),
        labels: record.labels.into_iter().collect(),
        created_ms: record.created.get(),
        revoked_ms: record.revoked.map_or(0, UnixMillis::get),
    }
}

fn shown_token(token: JoinTokenRecord, now: UnixMillis) -> v1::JoinToken {
    let state = if token.revoked.is_some() {
        v1::JoinTokenState::Revoked
    } else if token.uses_left == 0 {
        v1::JoinTokenState::UsedUp
    } else if token.expires <= now {
        v1::JoinTokenState::Expired
    } else {
        v1::JoinTokenState::Usable
    };
    v1::JoinToken {
        token_id: token.token_id.to_string(),
        role: role(token.role).into(),
        name: token.name.map(|name| name.to_string()).unwrap_or_default(),
        labels: token.labels.into_iter().collect(),
        created_by: token.created_by.to_string(),
        created_ms: token.created.get(),
        expires_ms: token.expires.get(),
        uses_left: token.uses_left,
        state: state.into(),
        node_ids: token.enrolled.into_iter().map(NodeId::get).collect(),
    }
}

/// The newest state, once nodes that join find at this node's door the authority that it names. One that was replaced a moment ago, as
/// when a control node is revoked, stays in sight until this node has traded its certificate, which takes seconds.
async fn with_authority_in_sight(core: &Core) -> Result<State, PublicError> {
    let end = core.clock.monotonic() + TRADES_WITHIN;
    loop {
        let state = core.newest().await?;
        let issuing = state.trust().map_err(damaged)?.map_or(0, |trust| trust.issuing);
        let shown = state.certified_by(core.node).map_err(damaged)?.max(core.enrolment.certified_by.load(Ordering::Relaxed));
        if shown >= issuing {
            return Ok(state);
        }
        if core.clock.monotonic() >= end {
            let message =
                "the certificate authority was replaced, and this node shows no certificate by the new one yet: try again in some seconds";
            return Err(PublicError::new(ErrorKind::Unavailable, message));
        }
        core.clock.sleep(LOOK_EVERY).await;
    }
}

/// A fresh token: it names the cluster, its CA and its first signer set, so that a node knows whom it joins.
fn token(core: &Core, state: &State) -> Result<JoinToken, PublicError> {
    let unavailable = || PublicError::new(ErrorKind::Unavailable, "the cluster is not set up yet");
    let authority = state.authority().map_err(damaged)?.ok_or_else(unavailable)?;
    let ca = runtime::tls::authority_fingerprint(&authority.certificate).ok_or_else(|| {
        tracing::error!("the certificate authority's certificate in the state cannot be read");
        PublicError::new(ErrorKind::Internal, "the certificate authority's certificate cannot be read; the log of this node says more")
    })?;
    let first: Hash = state.first_signer_set().map_err(damaged)?.ok_or_else(unavailable)?.hash(core.cluster);
    Ok(JoinToken::generate(&*core.entropy, core.cluster, ca, first))
}

#[async_trait]
impl v1::nodes_server::Nodes for Services {
    async fn list(&self, request: Request<v1::ListNodesRequest>) -> Result<Response<v1::ListNodesReply>, Status> {
        read(&self.0, "nodes.list", request, async |core, call, message| {
            let page = PageTarget::from(message.page);
            let after = after(&page)?;
            core.read(&call, |state, caller| {
                sees(caller)?;
                let found = state.nodes(after.as_ref(), page.size).map_err(damaged)?;
                let nodes = found.items.into_iter().map(|(node, record)| shown(node, record)).collect();
                Ok(v1::ListNodesReply { nodes, next_page: next(found.next) })
            })
            .await
        })
        .await
    }

    async fn create_join_token(&self, request: Request<v1::CreateJoinTokenRequest>) -> Result<Response<v1::JoinTokenReply>, Status> {
        change(&self.0, "nodes.create_join_token", request, async |core, call, message| {
            let role = role_wanted(message.role)?;
            let name = Some(message.name).filter(|name| !name.is_empty()).map(|name| parse::name("name", name)).transpose()?;
            let labels: BTreeMap<String, String> = message.labels.into_iter().collect();
            let uses = if message.uses == 0 { 1 } else { message.uses };
            let lifetime = if message.expires_in_ms == 0 { USUAL_LIFETIME_MS } else { message.expires_in_ms };
            core.read(&call, |_, caller| administers(caller)).await?;
            let (id, state) = (TokenId::from_bytes(core.entropy.id()), with_authority_in_sight(&core).await?);
            let token = token(&core, &state)?;
            let expires = UnixMillis::new(keys::now(&core, &state).get().saturating_add(lifetime));
            let new = NewJoinToken { id, role, name, labels, uses, expires };
            let plan = |_: &State, caller: &Caller| {
                administers(caller)?;
                Ok(CommandBody::CreateJoinToken { token: new.clone(), hash: token.hash() })
            };
            let (_, reply) = write::plain(&core, &call, plan).await?;
            let ReplyBody::JoinTokenCreated { token: made } = reply.body else { return Err(unexpected()) };
            // Of a request that was answered before, the token was shown then, and is known to nobody here.
            let text = if made == id { token.text().expose().to_owned() } else { String::new() };
            Ok(v1::JoinTokenReply { token_id: made.to_string(), token: text, expires_ms: expires.get() })
        })
        .await
    }

    async fn list_join_tokens(&self, request: Request<v1::ListJoinTokensRequest>) -> Result<Response<v1::ListJoinTokensReply>, Status> {
        read(&self.0, "nodes.list_join_tokens", request, async |core, call, message| {
            let page = PageTarget::from(message.page);
            let after = after(&page)?;
            core.read(&call, |state, caller| {
                sees(caller)?;
                let found = state.join_tokens(after.as_ref(), page.size).map_err(damaged)?;
                let now = keys::now(&core, state);
                let tokens = found.items.into_iter().map(|token| shown_token(token, now)).collect();
                Ok(v1::ListJoinTokensReply { tokens, next_page: next(found.next) })
            })
            .await
        })
        .await
    }

    async fn revoke_join_token(&self, request: Request<v1::RevokeJoinTokenRequest>) -> Result<Response<v1::RevokeJoinTokenReply>, Status> {
        change(&self.0, "nodes.revoke_join_token", request, async |core, call, message| {
            let token: TokenId = parse::id("token_id", &message.token_id)?;
            let plan = |_: &State, caller: &Caller| {
                administers(caller)?;
                Ok(CommandBody::RevokeJoinToken { token })
            };
            write::plain(&core, &call, plan).await?;
            Ok(v1::RevokeJoinTokenReply {})
        })
        .await
    }

    async fn revoke(&self, request: Request<v1::RevokeNodeRequest>) -> Result<Response<v1::RevokeNodeReply>, Status> {
        change(&self.0, "nodes.revoke", request, async |core, call, message| {
            let authority = if message.keep_authority { revoke::Authority::Kept } else { revoke::Authority::Exposed };
            let (node, reply) = revoke::revoke(&core, &call, &target(message.node)?, authority).await?;
            let record = core.consensus.local().node(node).map_err(damaged)?.ok_or_else(unexpected)?;
            Ok(v1::RevokeNodeReply { node: Some(shown(node, record)), receipt: Some(reply.position.into()) })
        })
        .await
    }

    async fn exposure(&self, request: Request<v1::ExposureRequest>) -> Result<Response<v1::ExposureReply>, Status> {
        read(&self.0, "nodes.exposure", request, async |core, call, message| {
            let (page, target) = (PageTarget::from(message.page), target(message.node)?);
            let after = after(&page)?;
            core.read(&call, |state, caller| {
                sees(caller)?;
                let (_, record) = revoke::find(state, &target)?;
                let (secrets, last) = exposure::of(state, &record, after.as_ref(), page.size)?;
                Ok(v1::ExposureReply { secrets, next_page: next(last) })
            })
            .await
        })
        .await
    }
}
