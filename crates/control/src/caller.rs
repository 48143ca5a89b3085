//! Who calls. A [`Caller`] is made by authentication alone, so an operation that takes one has been authenticated.

use std::collections::BTreeSet;

use state::{
    Grant, GrantScope, Operation, Principal, State,
    record::{NodeRole, RequestOwner},
};
use types::{AccountId, NodeId, PrincipalName, TokenId, UnixMillis};
use wire::{ErrorKind, PublicError};

use crate::{
    call::{Call, Credential},
    error,
};

/// An operator or pipeline with a token, or a control node with its certificate.
pub(crate) struct Caller {
    principal: Principal,
    grants: Vec<Grant>,
    who: Who,
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
                let valid =
                    |record: &state::record::OperatorTokenRecord| record.expires.is_none_or(|expires| expires > now.max(state.last_time()));
                let record = state.operator_by_token(*hash).map_err(error::damaged)?.filter(valid).ok_or_else(Self::unknown)?;
                let who = Who::Operator { name: record.name, token: record.token_id, expires: record.expires };
                Ok(Self { principal: Principal::Operator { token: *hash }, grants: record.grants, who })
            }
            // Identity is the key in the registry; and of nodes, only control nodes have business with metadata.
            Credential::Node { node, public_key } => match state.node(*node).map_err(error::damaged)? {
                Some(record) if record.revoked.is_none() && record.public_key == *public_key && record.role == NodeRole::Control => {
                    Ok(Self { principal: Principal::Node { node: *node }, grants: Vec::new(), who: Who::Node(*node) })
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

    /// What its token grants.
    pub(crate) fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Whether any grant allows `operation` on `target`.
    pub(crate) fn may(&self, operation: Operation, target: GrantScope) -> bool {
        match self.who {
            Who::Operator { .. } => self.grants.iter().any(|grant| grant.allows(operation, target)),
            Who::Node(_) => operation.open_to_nodes(),
        }
    }

    /// Refuses what no grant allows. To save the work only: `apply` judges again.
    pub(crate) fn require(&self, operation: Operation, target: GrantScope) -> Result<(), PublicError> {
        if self.may(operation, target) {
            return Ok(());
        }
        let message = format!("this token may not {}: it needs a role that allows it here", operation.name());
        Err(PublicError::new(ErrorKind::Denied, message))
    }

    /// Whether the caller may know that something in `account` exists.
    pub(crate) fn sees(&self, account: AccountId) -> bool {
        self.seen_accounts().is_none_or(|seen| seen.contains(&account))
    }

    /// The accounts that the caller may know of; none for all of them.
    pub(crate) fn seen_accounts(&self) -> Option<BTreeSet<AccountId>> {
        match self.who {
            Who::Operator { .. } => self.grants.iter().map(|grant| grant.scope.account()).collect(),
            Who::Node(_) => None,
        }
    }
}
