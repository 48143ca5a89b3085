//! Audit entries: one for each mutation and for each refusal that `apply` decides, in a chain of hashes.
//!
//! The state holds only the head of the chain. An entry names the one before by hash, so a file of entries is verified without a
//! cluster: [`AuditEntry::hash_of`] the stored bytes of one is `previous` of the next, and the last is the head.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{
    AccountId, BindingName, ConsumerRef, Hash, LogIndex, NodeId, Position, PrincipalName, RequestId, SecretId, StoreId, TokenId,
    UnixMillis, Version,
};

use crate::{
    CallNotes, ChangePhase, CommandKind, FormatError, Grant, MemberChange, MemberRef, Origin, RefusalKind,
    digest::Digest,
    format::{self, Stored},
};

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

/// More about what was acted on: what commands since feature level 3 speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDetail {
    /// The member.
    pub member: Option<MemberRef>,
    /// The role that was granted or revoked.
    pub grant: Option<Grant>,
    /// The token that another took the place of.
    pub replaced: Option<TokenId>,
    /// The version.
    pub version: Option<Version>,
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
    /// Done: a control node's notes of calls that left no command. Since level 3.
    Noted {
        /// The position, at which nothing has changed.
        position: Position,
        /// What it saw.
        notes: Box<CallNotes>,
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
    /// More about the target; none where [`AuditTarget`] says all.
    #[serde(skip)]
    pub detail: Option<AuditDetail>,
}

/// Of the two formats of an entry: the one of levels 1 and 2, and of all entries without a detail.
const PLAIN: u8 = 1;
/// The other one, with the detail behind the fields of the first.
const DETAILED: u8 = 2;

impl Stored for AuditEntry {
    const WHAT: &'static str = "an audit entry";
    const FORMAT: u8 = PLAIN;
}

/// A detailed entry as it is stored.
#[derive(Serialize, Deserialize)]
struct Detailed<E, D> {
    entry: E,
    detail: D,
}

impl Stored for Detailed<AuditEntry, AuditDetail> {
    const WHAT: &'static str = <AuditEntry as Stored>::WHAT;
    const FORMAT: u8 = DETAILED;
}

impl AuditEntry {
    /// The stored bytes: one format byte, then the fields in order as postcard. Format 1 has no detail, format 2 has one at its end.
    pub fn encode(&self) -> Bytes {
        match &self.detail {
            None => format::encode(PLAIN, self),
            Some(detail) => format::encode(DETAILED, &Detailed { entry: self, detail }),
        }
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`FormatError`] for a newer format, damage, or bytes left over.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.first() == Some(&PLAIN) {
            return format::decode(<Self as Stored>::WHAT, PLAIN, bytes);
        }
        let Detailed { entry, detail } = format::decode::<Detailed<Self, AuditDetail>>(<Self as Stored>::WHAT, DETAILED, bytes)?;
        Ok(Self { detail: Some(detail), ..entry })
    }

    /// The hash of an entry's stored bytes.
    pub fn hash_of(stored: &[u8]) -> Hash {
        Digest::new("cinnabar audit entry v1").part(stored).end()
    }
}
