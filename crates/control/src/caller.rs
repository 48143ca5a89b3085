//! Who calls. A [`Caller`] is made by authentication alone, so an operation that takes one has been authenticated.

use std::collections::BTreeSet;

use seams::mutation::{self, Mutation};
use state::{
    Grant, GrantScope, Operation, Operator, Permission, Principal, Rights, State,
    record::{NodeRole, RequestOwner},
};
use types::{AccountId, NodeId, PrincipalName, TokenId, UnixMillis};
use wire::{ErrorKind, PublicError};

use crate::{
    audit::Trace,
    call::{Call, Credential},
    error,
};

/// An operator or pipeline with a token, or a control node with its certificate.
pub(crate) struct Caller {
    principal: Principal,
    rights: Rights,
    who: Who,
    trace: Trace,
}

/// A token that is there and has not expired: whoever asks learns of the others no more than that they are none.
pub(crate) fn token_in_force(state: &State, hash: &[u8; 32], now: UnixMillis) -> Result<Option<Operator>, state::ReadError> {
    let valid = |operator: &Operator| operator.token.expires.is_none_or(|expires| expires > now.max(state.last_time()));
    Ok(state.operator(*hash)?.filter(valid))
}

/// Who a caller is, for showing it to itself.
pub(crate) enum Who {
    /// A holder of an API token.
    Operator { name: PrincipalName, token: TokenId, expires: Option<UnixMillis> },
    /// A registered control node.
    Node(NodeId),
}

impl Caller {
    /// Finds the token or the node in the state. The same answer for nothing, an unknown one and an expired one.
    pub(crate) fn identify(state: &State, call: &Call, now: UnixMillis) -> Result<Self, PublicError> {
        match &call.credential {
            Credential::None | Credential::Malformed => Err(Self::unknown()),
            Credential::Expired => Err(Self::expired()),
            Credential::Token(hash) => {
                let Operator { token, rights, .. } = token_in_force(state, hash, now).map_err(error::damaged)?.ok_or_else(Self::unknown)?;
                let who = Who::Operator { name: token.name, token: token.token_id, expires: token.expires };
                Ok(Self { principal: Principal::Operator { token: *hash }, rights, who, trace: call.trace.clone() })
            }
            // Identity is the key in the registry; and of nodes, only control nodes have business with metadata.
            Credential::Node { node, public_key } => match state.node(*node).map_err(error::damaged)? {
                Some(record) if record.revoked.is_none() && record.public_key == *public_key && record.role == NodeRole::Control => {
                    let none = Rights::new(Permission::Read, Vec::new(), &[]);
                    Ok(Self { principal: Principal::Node { node: *node }, rights: none, who: Who::Node(*node), trace: call.trace.clone() })
                }
                _ => Err(Self::unknown()),
            },
        }
    }

    /// The answer to a node whose certificate has ended.
    pub(crate) fn expired() -> PublicError {
        let message = "the certificate of this connection has expired: a running node renews it by itself, and its log says why it did not; compare the clocks, too";
        PublicError::new(ErrorKind::Unauthenticated, message)
    }

    /// The answer to whoever cannot be identified.
    pub(crate) fn unknown() -> PublicError {
        PublicError::new(
            ErrorKind::Unauthenticated,
            "no valid token or certificate: send `authorization: Bearer cbo_…` with a token that is neither expired nor revoked",
        )
    }

    /// Whom commands name.
    pub(crate) fn principal(&self) -> Principal {
        self.principal
    }

    /// Under whom its requests are remembered.
    pub(crate) fn owner(&self) -> RequestOwner {
        match self.who {
            Who::Operator { token, .. } => RequestOwner::Token(token),
            Who::Node(node) => RequestOwner::Node(node),
        }
    }

    /// Who it is.
    pub(crate) fn who(&self) -> &Who {
        &self.who
    }

    /// What its roles and the reach of its token have in common.
    pub(crate) fn grants(&self) -> &[Grant] {
        self.rights.grants()
    }

    /// What its token may be used for.
    pub(crate) fn permission(&self) -> Permission {
        self.rights.permission()
    }

    /// Whether role, reach and permission allow `operation` on `target`.
    pub(crate) fn may(&self, operation: Operation, target: GrantScope) -> bool {
        match self.who {
            Who::Operator { .. } => self.rights.allows(operation, target),
            Who::Node(_) => operation.open_to_nodes(),
        }
    }

    /// Refuses who may do `operation` nowhere: what is listed then is what lies within the caller's reach.
    pub(crate) fn require_somewhere(&self, operation: Operation) -> Result<(), PublicError> {
        match self.grants().iter().find(|grant| self.may(operation, grant.scope)) {
            Some(_) => Ok(()),
            None => self.require(operation, GrantScope::Cluster),
        }
    }

    /// Refuses what role, reach or permission does not allow. To save the work only: `apply` judges again.
    pub(crate) fn require(&self, operation: Operation, target: GrantScope) -> Result<(), PublicError> {
        self.about(target);
        if self.may(operation, target) {
            return Ok(());
        }
        if matches!(self.who, Who::Operator { .. }) && self.rights.has_role(operation, target) {
            let (what, needed) = (operation.name(), operation.permission().name());
            let message = format!("this token is for reading, so it may not {what}: use one with the permission {needed}");
            return Err(PublicError::new(ErrorKind::Denied, message));
        }
        let message = format!("this token may not {}: it needs a role that allows it here", operation.name());
        Err(PublicError::new(ErrorKind::Denied, message))
    }

    /// Tells the audit log what the caller asks about.
    pub(crate) fn about(&self, reach: GrantScope) {
        self.trace.about(reach);
    }

    /// Whether the caller may know that something in `account` exists.
    pub(crate) fn sees(&self, account: AccountId) -> bool {
        self.seen_accounts().is_none_or(|seen| seen.contains(&account)) || mutation::is_on(Mutation::ForeignAccountShown)
    }

    /// The accounts that the caller may know of; none for all of them.
    pub(crate) fn seen_accounts(&self) -> Option<BTreeSet<AccountId>> {
        match self.who {
            Who::Operator { .. } => self.grants().iter().map(|grant| grant.scope.account()).collect(),
            Who::Node(_) => None,
        }
    }
}
