//! Who it is and what they may: the principal as the state knows it, and the operation and reach that each command needs.

use types::{
    FeatureLevel, NodeId, TokenId, UnixMillis,
    mutation::{self, Mutation},
};

use super::{Halt, Judged, Stop, View, operators, refuse, settle};
use crate::{
    Command, CommandBody, FEATURE_LEVEL_MAX, GrantScope, Operation, Operator, Principal, Refusal, RefusalKind, State, TokenHolder,
    TypedKey,
    record::{BindingRecord, NodeRole, RequestOwner},
    state::{managed_within, member_of},
};

/// A principal that the state knows.
pub(super) enum Identity {
    Operator(Box<Operator>),
    Node(NodeId),
    System,
}

impl Identity {
    /// Whose request ids these are; the bootstrap has none.
    pub(super) fn owner(&self) -> Option<RequestOwner> {
        match self {
            Self::Operator(operator) => Some(RequestOwner::Token(operator.token.token_id)),
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
        Principal::Operator { token } => match state.operator(token)? {
            Some(operator) if operator.token.expires.is_none_or(|expires| now < expires) => Ok(Identity::Operator(Box::new(operator))),
            Some(operator) => {
                let message = format!("the token {} has expired; ask for a new one (`cinnabar token create`)", operator.token.token_id);
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
        Identity::Operator(operator) => {
            let (rights, name) = (&operator.rights, &operator.token.name);
            if rights.allows(operation, target) {
                return Ok(());
            }
            match target {
                GrantScope::Account(account) if rights.grants().iter().all(|grant| !reaches_into(grant.scope, target)) => {
                    refuse(RefusalKind::NotFound, format!("no account {account}"))
                }
                GrantScope::Store(_, store) if rights.grants().iter().all(|grant| !grant.scope.covers(target)) => {
                    refuse(RefusalKind::NotFound, format!("no store {store}"))
                }
                _ if operation.roles().is_empty() => {
                    refuse(RefusalKind::Denied, format!("{name} may not {}; control nodes do that by themselves", operation.name()))
                }
                _ if rights.has_role(operation, target) => {
                    let message = format!(
                        "this token of {name} is for reading, so it may not {}; use one with the permission {}",
                        operation.name(),
                        operation.permission().name()
                    );
                    refuse(RefusalKind::Denied, message)
                }
                _ => {
                    let message =
                        format!("{name} may not {} here; a Super Administrator can grant it (`cinnabar role grant`)", operation.name());
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
        (
            CommandBody::RevokeOperatorToken { token } | CommandBody::RollOperatorToken { replaces: token, .. },
            Err(Stop::Refused(Refusal { kind, message })),
        ) => match view.state.operator_by_id(*token)? {
            // Those of one's own reach one may know of: what is missing is the permission to change them.
            Some(_) if may_list(view, identity, *token)? => refuse(kind, message),
            _ => operators::no_token(*token),
        },
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
        | CommandBody::Undelete { account, store, .. }
        | CommandBody::Destroy { account, store, .. }
        | CommandBody::CreateWithReminders { account, store, .. }
        | CommandBody::EditWithReminder { account, store, .. }
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
        CommandBody::RevokeNode { .. } | CommandBody::RevokeLostNode { .. } => (Operation::RevokeNode, GrantScope::Cluster),
        // No one gives away what they do not have: each grant must lie within one's own.
        CommandBody::CreateOperatorToken { grants, .. } | CommandBody::CreateToken { holder: TokenHolder::Own { grants, .. }, .. } => {
            return Ok(manage(managed_within(grants, None)));
        }
        CommandBody::RevokeOperatorToken { token } | CommandBody::RollOperatorToken { replaces: token, .. } => {
            return Ok(manage(scopes_of(view, *token)?));
        }
        // All roles of a member lie within its home, so who administers that gives away nothing else.
        CommandBody::CreateToken { holder: TokenHolder::Member(member), .. }
        | CommandBody::CreateMember { member, .. }
        | CommandBody::DeleteMember { member }
        | CommandBody::GrantRole { member, .. }
        | CommandBody::RevokeRole { member, .. } => (Operation::ManageTokens, member.home()),
        CommandBody::SetQuota { .. } | CommandBody::EditQuota { .. } | CommandBody::EditLimits { .. } => {
            (Operation::SetQuota, GrantScope::Cluster)
        }
        CommandBody::RaiseFeatureLevel { .. } => (Operation::RaiseLevel, GrantScope::Cluster),
        CommandBody::NoteCalls(_) | CommandBody::Tick | CommandBody::Step { .. } => (Operation::Housekeep, GrantScope::Cluster),
    };
    Ok(vec![need])
}

/// What managing a token with these grants needs.
fn manage(scopes: Vec<GrantScope>) -> Vec<(Operation, GrantScope)> {
    scopes.into_iter().map(|scope| (Operation::ManageTokens, scope)).collect()
}

/// All that one has to administer for managing a token; nothing when there is none.
fn scopes_of(view: &View<'_>, token: TokenId) -> Judged<Vec<GrantScope>> {
    let Some(record) = view.state.operator_by_id(token)? else { return Ok(Vec::new()) };
    let terms = view.state.token_terms(token)?;
    Ok(managed_within(&record.grants, member_of(terms.as_ref())))
}

/// Whether the principal finds a token in its list.
fn may_list(view: &View<'_>, identity: &Identity, token: TokenId) -> Judged<bool> {
    let Identity::Operator(operator) = identity else { return Ok(false) };
    Ok(scopes_of(view, token)?.into_iter().all(|scope| operator.rights.allows(Operation::ReadTokens, scope)))
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
