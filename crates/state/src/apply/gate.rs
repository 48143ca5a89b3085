//! Who it is and what they may: the principal as the state knows it, and the operation and reach that each command needs.

use types::{
    FeatureLevel, NodeId, UnixMillis,
    mutation::{self, Mutation},
};

use super::{Halt, Judged, Stop, View, operators, refuse, settle};
use crate::{
    Command, CommandBody, FEATURE_LEVEL_MAX, GrantScope, Operation, Principal, Refusal, RefusalKind, State, TypedKey,
    record::{BindingRecord, NodeRole, OperatorTokenRecord, RequestOwner},
};

/// A principal that the state knows.
pub(super) enum Identity {
    Operator(Box<OperatorTokenRecord>),
    Node(NodeId),
    System,
}

impl Identity {
    /// Whose request ids these are; the bootstrap has none.
    pub(super) fn owner(&self) -> Option<RequestOwner> {
        match self {
            Self::Operator(token) => Some(RequestOwner::Token(token.token_id)),
            Self::Node(node) => Some(RequestOwner::Node(*node)),
            Self::System => None,
        }
    }
}

/// The feature level in force; 1 before there are settings.
pub(super) fn level(state: &State) -> Result<FeatureLevel, Halt> {
    Ok(state.settings()?.map_or(FeatureLevel::new(1), |settings| settings.feature_level))
}

/// Lets a command in: its level is in force, and its principal is known.
pub(super) fn enter(view: &View<'_>, command: &Command) -> Judged<Identity> {
    let (needed, level) = (command.level.max(command.body.kind().level()), level(view.state)?);
    if needed > level {
        let message = format!("the command {} needs feature level {needed}, in force is {level}", command.body.kind());
        return refuse(RefusalKind::Level, message);
    }
    match identify(view.state, command.principal, view.time) {
        Err(Stop::Refused(_)) if mutation::is_on(Mutation::StaleGrantAccepted) => Ok(Identity::System),
        identified => identified,
    }
}

fn identify(state: &State, principal: Principal, now: UnixMillis) -> Judged<Identity> {
    match principal {
        Principal::System => Ok(Identity::System),
        Principal::Node { node } => match state.node(node)? {
            Some(record) if record.revoked.is_none() && record.role == NodeRole::Control => Ok(Identity::Node(node)),
            Some(_) => refuse(RefusalKind::Denied, format!("node {node} is revoked, or is no control node")),
            None => refuse(RefusalKind::Unauthenticated, format!("node {node} is not registered")),
        },
        Principal::Operator { token } => match state.operator_by_token(token)? {
            Some(record) if record.expires.is_none_or(|expires| now < expires) => Ok(Identity::Operator(Box::new(record))),
            Some(record) => {
                let message = format!("the token {} has expired; ask for a new one (`cinnabar token create`)", record.token_id);
                refuse(RefusalKind::Unauthenticated, message)
            }
            None => refuse(RefusalKind::Unauthenticated, "the token is not known; it may have been revoked"),
        },
    }
}

/// Whether a principal may do `operation` on `target`. One that has nothing to do with the target learns no more than that it does
/// not know it.
pub(super) fn permit(identity: &Identity, operation: Operation, target: GrantScope) -> Judged<()> {
    match identity {
        Identity::System if operation == Operation::Housekeep => Ok(()),
        Identity::System => refuse(RefusalKind::Denied, "the bootstrap may only set up an empty cluster"),
        Identity::Node(_) if operation.open_to_nodes() => Ok(()),
        Identity::Node(node) => refuse(RefusalKind::Denied, format!("node {node} may not {} by itself", operation.name())),
        Identity::Operator(token) => {
            if token.grants.iter().any(|grant| grant.allows(operation, target)) {
                return Ok(());
            }
            match target {
                GrantScope::Account(account) if token.grants.iter().all(|grant| !reaches_into(grant.scope, target)) => {
                    refuse(RefusalKind::NotFound, format!("no account {account}"))
                }
                GrantScope::Store(_, store) if token.grants.iter().all(|grant| !grant.scope.covers(target)) => {
                    refuse(RefusalKind::NotFound, format!("no store {store}"))
                }
                _ if operation.roles().is_empty() => {
                    refuse(RefusalKind::Denied, format!("{} may not {}; control nodes do that by themselves", token.name, operation.name()))
                }
                _ => {
                    let message = format!(
                        "{} may not {} here; a Super Administrator can grant it (`cinnabar role grant`)",
                        token.name,
                        operation.name()
                    );
                    refuse(RefusalKind::Denied, message)
                }
            }
        }
    }
}

/// Whether a grant has to do with an account, be it with one of its stores only.
fn reaches_into(grant: GrantScope, account: GrantScope) -> bool {
    grant.covers(account) || grant.account() == account.account()
}

/// Whether the principal may do all that a command needs.
pub(super) fn permit_body(view: &View<'_>, identity: &Identity, body: &CommandBody) -> Judged<()> {
    let permitted = needs(view, body)?.into_iter().try_for_each(|(operation, target)| permit(identity, operation, target));
    match (body, permitted) {
        (CommandBody::InitCluster(_), _) if matches!(identity, Identity::System) => Ok(()),
        (CommandBody::InitCluster(_), _) => refuse(RefusalKind::Denied, "only the bootstrap sets up a cluster"),
        // A token beyond one's reach is as unknown as one that never was.
        (CommandBody::RevokeOperatorToken { token }, Err(Stop::Refused(_))) => operators::no_token(*token),
        (_, permitted) => permitted,
    }
}

/// What a command needs: operations and their reach.
fn needs(view: &View<'_>, body: &CommandBody) -> Judged<Vec<(Operation, GrantScope)>> {
    let need = match body {
        CommandBody::InitCluster(_) => return Ok(Vec::new()),
        CommandBody::CreateAccount { .. } => (Operation::ManageAccounts, GrantScope::Cluster),
        CommandBody::CreateStore { account, .. } => (Operation::ManageStores, GrantScope::Account(*account)),
        CommandBody::DeleteStore { account, store, .. } => (Operation::ManageStores, GrantScope::Store(*account, *store)),
        CommandBody::CreateSecrets { account, store, .. }
        | CommandBody::SetValue { account, store, .. }
        | CommandBody::EditSecret { account, store, .. }
        | CommandBody::DeleteSecrets { account, store, .. }
        | CommandBody::DuplicateSecret { account, store, .. }
        | CommandBody::MovePointer { account, store, .. } => (Operation::ManageSecrets, GrantScope::Store(*account, *store)),
        CommandBody::ResealValue { account, store, .. } => (Operation::ManageDataKeys, GrantScope::Store(*account, *store)),
        CommandBody::CreateConsumer { consumer }
        | CommandBody::DeleteConsumer { consumer }
        | CommandBody::CreateConsumerToken { consumer, .. }
        | CommandBody::RollConsumerToken { consumer, .. }
        | CommandBody::RevokeConsumerToken { consumer, .. } => (Operation::ManageConsumers, GrantScope::Account(consumer.account)),
        CommandBody::Bind { consumer, store, .. } => (Operation::Bind, GrantScope::Store(consumer.account, *store)),
        CommandBody::Unbind { consumer, name } => {
            let bound = view.read::<BindingRecord>(TypedKey::Binding { consumer: consumer.clone(), name: name.clone() })?;
            let reach = |binding: BindingRecord| GrantScope::Store(consumer.account, binding.target.store());
            (Operation::Bind, bound.map_or(GrantScope::Account(consumer.account), reach))
        }
        CommandBody::MintDek { account, .. } => (Operation::ManageDataKeys, GrantScope::Account(*account)),
        CommandBody::RewrapDeks { .. } => (Operation::ManageDataKeys, GrantScope::Cluster),
        CommandBody::KekEpoch { .. } => (Operation::ManageKekEpochs, GrantScope::Cluster),
        CommandBody::RegisterNode { .. }
        | CommandBody::SetSignerSet { .. }
        | CommandBody::UpdateNode { .. }
        | CommandBody::NoteCertificate { .. } => (Operation::ManageNodes, GrantScope::Cluster),
        CommandBody::NoteMembership(_) => (Operation::ManageMembership, GrantScope::Cluster),
        CommandBody::CreateJoinToken { .. } | CommandBody::RevokeJoinToken { .. } => (Operation::ManageJoinTokens, GrantScope::Cluster),
        CommandBody::EnrolNode(_) => (Operation::EnrolNodes, GrantScope::Cluster),
        CommandBody::RotateAuthority(_) | CommandBody::FinishAuthority { .. } => (Operation::ManageAuthority, GrantScope::Cluster),
        CommandBody::RevokeNode { .. } => (Operation::RevokeNode, GrantScope::Cluster),
        // No one gives away what they do not have: each grant must lie within one's own.
        CommandBody::CreateOperatorToken { grants, .. } => return Ok(manage(grants.iter().map(|grant| grant.scope))),
        CommandBody::RevokeOperatorToken { token } => {
            let grants = view.state.operator_by_id(*token)?.map(|token| token.grants).unwrap_or_default();
            return Ok(manage(grants.iter().map(|grant| grant.scope)));
        }
        CommandBody::SetQuota { .. } | CommandBody::EditQuota { .. } => (Operation::SetQuota, GrantScope::Cluster),
        CommandBody::RaiseFeatureLevel { .. } => (Operation::RaiseLevel, GrantScope::Cluster),
        CommandBody::Tick | CommandBody::Step { .. } => (Operation::Housekeep, GrantScope::Cluster),
    };
    Ok(vec![need])
}

/// What managing a token with these grants needs.
fn manage(scopes: impl Iterator<Item = GrantScope>) -> Vec<(Operation, GrantScope)> {
    scopes.map(|scope| (Operation::ManageTokens, scope)).collect()
}

/// [`State::authorize`].
pub(crate) fn authorize(
    state: &State,
    principal: Principal,
    operation: Operation,
    target: GrantScope,
    now: UnixMillis,
) -> Result<Result<(), Refusal>, Halt> {
    settle(identify(state, principal, now).and_then(|identity| permit(&identity, operation, target)))
}

/// [`State::authorize_body`].
pub(crate) fn authorize_body(
    state: &State,
    principal: Principal,
    body: &CommandBody,
    now: UnixMillis,
) -> Result<Result<(), Refusal>, Halt> {
    if let CommandBody::RaiseFeatureLevel { to } = body
        && *to > FEATURE_LEVEL_MAX
    {
        // In the log it would stop this node, and every other of this build.
        let message = format!("this build knows feature levels up to {FEATURE_LEVEL_MAX}, not {to}; update all nodes first");
        return Ok(Err(Refusal::new(RefusalKind::Level, message)));
    }
    let view = View::new(state, state.applied_index(), now);
    settle(identify(state, principal, now).and_then(|identity| permit_body(&view, &identity, body)))
}
