//! Audit entries: one for each mutation and for each refusal that `apply` decides, in a chain of hashes.
//!
//! The state holds only the head of the chain. An entry names the one before by hash, so a file of entries is verified without a
//! cluster: [`AuditEntry::hash_of`] the stored bytes of one is `previous` of the next, and the last is the head.

use serde::{Deserialize, Serialize};
use types::{
    AccountId, BindingName, ConsumerRef, Hash, LogIndex, NodeId, Position, PrincipalName, RequestId, SecretId, StoreId, TokenId, UnixMillis,
};

use crate::{ChangePhase, CommandKind, MemberChange, Origin, RefusalKind, digest::Digest, format::stored};

/// Who acted, as the state knew them at the command's index. Never a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditPrincipal {
    /// The holder of an operator's token.
    Operator {
        /// The token's public id.
        token: TokenId,
        /// The holder's name.
        name: PrincipalName,
    },
    /// A node, as the command says; whether the registry has it shows in the outcome.
    Node {
        /// Its id.
        node: NodeId,
    },
    /// The bootstrap.
    System,
    /// The holder of a token that the state does not know.
    Unknown,
    /// The holder of the offline recovery key.
    RecoveryKey,
}

/// What was acted on; what does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTarget {
    /// The account.
    pub account: Option<AccountId>,
    /// The store.
    pub store: Option<StoreId>,
    /// The secrets.
    pub secrets: Vec<SecretId>,
    /// The secret that a duplicate was made from.
    pub duplicated_from: Option<SecretId>,
    /// Whether a secret's value was changed.
    pub value_modified: bool,
    /// The consumer.
    pub consumer: Option<ConsumerRef>,
    /// The name in the consumer's program.
    pub binding: Option<BindingName>,
    /// The node.
    pub node: Option<NodeId>,
    /// The token, by its public id.
    pub token: Option<TokenId>,
    /// What became of the membership: the entry before a change says that it was asked for, the one after how it ended.
    pub member: Option<(MemberChange, ChangePhase)>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditOutcome {
    /// Done; the position at which it is in force.
    Done {
        /// That position.
        position: Position,
    },
    /// Refused.
    Refused {
        /// Why.
        kind: RefusalKind,
        /// The message that the caller got.
        message: String,
    },
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// The hash of the entry before; [`Hash::ZERO`] before the first.
    pub previous: Hash,
    /// The index of the command.
    pub index: LogIndex,
    /// Log time.
    pub time: UnixMillis,
    /// Who acted.
    pub principal: AuditPrincipal,
    /// What was done, or tried.
    pub action: CommandKind,
    /// What it was done to.
    pub target: AuditTarget,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// The caller's request id.
    pub request: Option<RequestId>,
    /// Where the request came from.
    pub origin: Origin,
}
stored!(AuditEntry, "an audit entry");

impl AuditEntry {
    /// The hash of an entry's stored bytes.
    pub fn hash_of(stored: &[u8]) -> Hash {
        Digest::new("cinnabar audit entry v1").part(stored).end()
    }
}
