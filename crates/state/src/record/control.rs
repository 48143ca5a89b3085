//! Records that stay on control nodes.

use serde::{Deserialize, Serialize};
use types::{AccountId, ChainId, Hash, LogIndex, Position, PrincipalName, RequestId, SecretId, StoreId, TokenId, UnixMillis};

use super::RequestOwner;
use crate::{Grant, Refusal, Reply, format::stored};

/// Where the state stands, one record; written by every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The index of the last command.
    pub applied: LogIndex,
    /// Log time: the highest stamp so far.
    pub time: UnixMillis,
    /// The chain of change sets.
    pub chain: ChainId,
    /// The position of the last change set.
    pub position: Position,
    /// Its hash.
    pub chain_hash: Hash,
    /// Its time.
    pub changed: UnixMillis,
    /// The root of the propagated records, by which a loaded copy is checked.
    pub state_root: Hash,
}
stored!(HeadRecord, "a head record");

/// An operator's or pipeline's token, under the SHA-256 of the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorTokenRecord {
    /// Its public id.
    pub token_id: TokenId,
    /// Who holds it, for audit.
    pub name: PrincipalName,
    /// What it allows.
    pub grants: Vec<Grant>,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// The first moment of log time at which it is refused; none means never.
    pub expires: Option<UnixMillis>,
}
stored!(OperatorTokenRecord, "an operator token record");

/// The head of the audit chain, one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHeadRecord {
    /// How many entries there have been.
    pub sequence: u64,
    /// The hash of the last.
    pub hash: Hash,
}
stored!(AuditHeadRecord, "an audit head record");

impl Default for AuditHeadRecord {
    /// The head before the first entry.
    fn default() -> Self {
        Self { sequence: 0, hash: Hash::ZERO }
    }
}

/// The first reply to a request id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// A keyed hash of the request's content.
    pub fingerprint: [u8; 32],
    /// The first moment of log time at which it is forgotten.
    pub expires: UnixMillis,
    /// What was replied.
    pub result: Result<Reply, Refusal>,
}
stored!(RequestRecord, "a request record");

/// Which request was remembered at an index, so that the oldest can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAgeRecord {
    /// Whose request.
    pub owner: RequestOwner,
    /// Its id.
    pub request: RequestId,
    /// When it expires.
    pub expires: UnixMillis,
}
stored!(RequestAgeRecord, "a request age record");

/// What a background job has to do; what it has done is seen in the state itself, so that it can be resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobKind {
    /// Clear away a store that is marked as deleting, with all in it.
    ClearStore {
        /// The store.
        store: StoreId,
    },
    /// Clear away secrets that are marked as deleting.
    ClearSecrets {
        /// Their store.
        store: StoreId,
        /// What is left to do.
        secrets: Vec<SecretId>,
    },
}

/// An unfinished background job, under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Whose data it works on.
    pub account: AccountId,
    /// What it does.
    pub kind: JobKind,
}
stored!(JobRecord, "a job record");

/// What an account holds, for its quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Stores that are not being deleted.
    pub stores: u32,
    /// Secrets that are not being deleted.
    pub secrets: u32,
    /// Consumers.
    pub consumers: u32,
}
stored!(UsageRecord, "a usage record");

/// What the cluster holds, for its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalsRecord {
    /// Accounts.
    pub accounts: u32,
    /// Nodes, revoked ones included.
    pub nodes: u32,
    /// Operators' tokens.
    pub operator_tokens: u32,
    /// Remembered requests.
    pub requests: u32,
}
stored!(TotalsRecord, "a totals record");

/// What a consumer holds, for its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerUsageRecord {
    /// Bindings.
    pub bindings: u32,
    /// Tokens.
    pub tokens: u32,
}
stored!(ConsumerUsageRecord, "a consumer usage record");
