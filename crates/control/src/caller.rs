//! Who calls. A [`Caller`] is made by authentication alone, so an operation that takes one has been authenticated.

use state::{Grant, GrantScope, Operation, Principal, State};
use types::{AccountId, NodeId, PrincipalName, UnixMillis};
use wire::{ErrorKind, PublicError};

use crate::{call::Call, error};

/// An operator or pipeline with a token, or a node with a certificate.
pub(crate) struct Caller {
    principal: Principal,
    grants: Vec<Grant>,
    who: Who,
}

/// Who a caller is, for showing it to itself.
pub(crate) enum Who {
    /// A holder of an API token.
    Operator { name: PrincipalName, expires: Option<UnixMillis> },
    /// A registered node.
    Node(NodeId),
}

impl Caller {
    /// Finds the token or the node in the state. The same answer for no token, an unknown one and an expired one.
    pub(crate) fn identify(state: &State, call: &Call, now: UnixMillis) -> Result<Self, PublicError> {
        if let Some(hash) = call.token {
            let valid =
                |record: &state::record::OperatorTokenRecord| record.expires.is_none_or(|expires| expires > now.max(state.last_time()));
            let record = state.operator_by_token(hash).map_err(error::damaged)?.filter(valid).ok_or_else(Self::unknown)?;
            let who = Who::Operator { name: record.name, expires: record.expires };
            return Ok(Self { principal: Principal::Operator { token: hash }, grants: record.grants, who });
        }
        let node = call.node.ok_or_else(Self::unknown)?;
        match state.node(node).map_err(error::damaged)? {
            Some(record) if record.revoked.is_none() => {
                Ok(Self { principal: Principal::Node { node }, grants: Vec::new(), who: Who::Node(node) })
            }
            _ => Err(Self::unknown()),
        }
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
        match self.who {
            Who::Operator { .. } => self.grants.iter().any(|grant| grant.scope.account().is_none_or(|granted| granted == account)),
            Who::Node(_) => true,
        }
    }
}
