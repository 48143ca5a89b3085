//! Bounds on what is stored and sent. The defaults of quotas are adjustable per account; all else is fixed for a feature level.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most bytes of one stored record, key included: 96 KiB, room for the longest sealed value and what stands around it.
pub const RECORD_BYTES_MAX: usize = 96 * 1024;
/// The most bytes of an encoded command, and of an encoded change set: 8 MiB, what one log entry and one message may hold.
pub const CHANGE_SET_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most changes in one change set; bigger jobs go in steps.
pub const CHANGES_MAX: usize = 4096;
/// The most changes that a delete makes at once; a bigger one leaves a marker and goes on in steps of this size, so that other
/// commands pass in between.
pub const STEP_CHANGES_MAX: usize = 1000;
/// The most secrets that one command creates or deletes.
pub const ITEMS_MAX: usize = 1000;
/// Versions kept per secret, those that pointers name included. An older one goes when a new one comes; its number stays used.
pub const VERSIONS_MAX: usize = 64;
/// Bindings of one consumer, so that deleting it fits one change set.
pub const BINDINGS_PER_CONSUMER_MAX: u32 = 1000;
/// Tokens of one consumer: enough to roll them one by one over a fleet.
pub const TOKENS_PER_CONSUMER_MAX: u32 = 16;
/// Consumers of one account.
pub const CONSUMERS_PER_ACCOUNT_MAX: u32 = 10_000;
/// Accounts of one cluster.
pub const ACCOUNTS_MAX: u32 = 100_000;
/// Nodes in the registry, revoked ones included.
pub const NODES_MAX: u32 = 10_000;
/// Operator tokens of one cluster.
pub const OPERATOR_TOKENS_MAX: u32 = 10_000;
/// Grants of one operator token.
pub const GRANTS_MAX: usize = 64;
/// Scopes that bound one operator token.
pub const REACH_MAX: usize = 16;
/// Members at home in one account, and in the cluster.
pub const MEMBERS_MAX: u32 = 10_000;
/// Tokens of one member, so that deleting it fits one command.
pub const TOKENS_PER_MEMBER_MAX: usize = 64;
/// Records of deleted secrets that one command sweeps away when their time is over: bounded work, and faster than they come.
pub const DELETED_SWEPT_MAX: usize = 256;
/// How often a secret may ask to be given a new value, at the least: a minute.
pub const ROTATE_EVERY_MIN_MS: u64 = 60_000;
/// The same at the most: a hundred years.
pub const ROTATE_EVERY_MAX_MS: u64 = 100 * 365 * 86_400_000;
/// How long a deleted secret can be brought back at the most.
pub const UNDELETE_WINDOW_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Deleted secrets that one account may be allowed to keep.
pub const UNDELETE_SECRETS_MAX: u32 = 100_000;
/// Bytes of their sealed values: 1 GiB.
pub const UNDELETE_BYTES_MAX: u64 = 1 << 30;
/// Join tokens of one cluster, those included that are kept to be looked at.
pub const JOIN_TOKENS_MAX: usize = 1000;
/// Nodes that join by one token.
pub const JOIN_TOKEN_USES_MAX: u32 = 1000;
/// How long a join token may be good for.
pub const JOIN_TOKEN_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a join token is kept to be looked at after it has expired, in log time.
pub const JOIN_TOKEN_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of the address where a node is reached: a host name of 253 bytes, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 259;
/// KEK epochs of all domains that are not destroyed: what a node's key ring holds.
pub const OPEN_EPOCHS_MAX: usize = 64;
/// Labels of one node.
pub const LABELS_MAX: usize = 32;
/// Envelopes that one command hands over for a KEK epoch.
pub const ENVELOPES_MAX: usize = 4000;
/// Former certificate authorities that are still believed; when one more is replaced, the oldest is dropped.
pub const FORMER_AUTHORITIES_MAX: usize = 3;
/// Signers in one set.
pub const SIGNERS_MAX: usize = 64;
/// Bytes of one wrapped key or envelope; the longest today is an X-Wing envelope of about 1,200 bytes.
pub const WRAP_BYTES_MAX: usize = 4096;
/// Key domains that one data key is wrapped for.
pub const WRAPS_MAX: usize = 16;
/// Remembered request ids. When full, the oldest is forgotten first.
pub const REQUESTS_MAX: u32 = 100_000;
/// Expired request ids that one command sweeps away: bounded work, and faster than they come.
pub const REQUESTS_SWEPT_MAX: usize = 4;
/// How long a request id is remembered, in log time.
pub const REQUEST_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the replaced data key of an account is still accepted, in log time: what a sealer may be behind.
pub const DEK_GRACE: Duration = Duration::from_secs(5 * 60);
/// Values sealed under one data key. Each value has its own derived key, so this bounds what one leaked data key opens.
pub const DEK_USES_MAX: u64 = 1 << 20;
/// Records in one page of a list.
pub const PAGE_MAX: usize = 1000;

/// What an account may hold. Adjustable per account by [`SetQuota`](crate::CommandBody::SetQuota).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Secrets over all stores of the account.
    pub secrets: u32,
    /// Stores.
    pub stores: u32,
    /// Bytes of one plaintext, at most [`types::VALUE_BYTES_MAX`].
    pub value_bytes: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { secrets: 100, stores: 10, value_bytes: types::VALUE_BYTES_MAX as u32 }
    }
}

/// What else bounds an account, since feature level 3. Adjustable per account, and for all that have no limit of their own, by
/// [`EditLimits`](crate::CommandBody::EditLimits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Operators' tokens of the account's own: those that reach nothing else.
    pub tokens: u32,
    /// For how long a deleted secret can be brought back, in log time; 0: not at all.
    pub undelete_window_ms: u64,
    /// Deleted secrets that are kept at the most; the oldest goes first.
    pub undelete_secrets: u32,
    /// Bytes of their sealed values at the most.
    pub undelete_bytes: u64,
}

impl Default for Limits {
    /// 100 tokens; seven days, 100 secrets and 16 MiB for what was deleted.
    fn default() -> Self {
        Self { tokens: 100, undelete_window_ms: 7 * 24 * 60 * 60 * 1000, undelete_secrets: 100, undelete_bytes: 16 << 20 }
    }
}
