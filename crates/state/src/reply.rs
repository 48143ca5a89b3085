//! What a command is answered with: a reply or a refusal. Both are part of the replicated outcome.

use std::fmt;

use serde::{Deserialize, Serialize};
use types::{AccountId, DekId, NodeId, Position, SecretId, StoreId, TokenId, UnixMillis, Version};

use crate::{JobId, record::BindingTarget};

/// The answer to a command that was done. A retry under the same request id gets the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The position at which what was done is in force: wait for it to see the command's effect on an edge.
    pub position: Position,
    /// Log time.
    pub time: UnixMillis,
    /// What was done.
    pub body: ReplyBody,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are named for the newtypes that they hold")]
pub enum ReplyBody {
    /// The cluster was set up.
    Initialized,
    /// An account was made.
    AccountCreated { account: AccountId },
    /// A store was made.
    StoreCreated { store: StoreId },
    /// A store is gone; a job, if there is one, clears up behind it.
    StoreDeleted { store: StoreId, job: Option<JobId> },
    /// Secrets were made, in the order of the command.
    SecretsCreated { secrets: Vec<(SecretId, Version)> },
    /// A value was added.
    ValueSet { version: Version },
    /// Scopes or comment were changed, or were as asked already.
    SecretEdited,
    /// Secrets are gone; a job, if there is one, clears up behind them.
    SecretsDeleted { job: Option<JobId> },
    /// Pointers as they now are.
    PointersMoved { current: Version, previous: Option<Version>, candidate: Option<Version> },
    /// A value was sealed anew under the current data key.
    ValueResealed { version: Version },
    /// A consumer was made.
    ConsumerCreated,
    /// A consumer is gone, with its tokens and bindings.
    ConsumerDeleted,
    /// A consumer's token was made, or made in place of another.
    ConsumerTokenCreated { token: TokenId },
    /// A consumer's token is void.
    ConsumerTokenRevoked,
    /// A binding was made, to this.
    Bound { target: BindingTarget },
    /// A binding is gone.
    Unbound,
    /// A data key is current.
    DekMinted { dek: DekId },
    /// So many data keys were wrapped anew; the rest had moved on.
    DeksRewrapped { count: u32 },
    /// A KEK epoch has moved along.
    KekEpochMoved,
    /// A node is registered.
    NodeRegistered { node: NodeId },
    /// A node is revoked.
    NodeRevoked,
    /// A signer set is in force.
    SignerSetAdopted { version: u32 },
    /// An operator's token was made.
    OperatorTokenCreated { token: TokenId },
    /// An operator's token is void.
    OperatorTokenRevoked,
    /// A quota is in force.
    QuotaSet,
    /// A feature level is in force.
    LevelRaised,
    /// Log time is the reply's time.
    Ticked,
    /// A step was done; the job is, or is not, finished.
    Stepped { done: bool },
    /// A join token was made.
    JoinTokenCreated { token: TokenId },
    /// A join token is void.
    JoinTokenRevoked,
    /// A node is a member, by this command or by an earlier one of the same node and token.
    NodeEnrolled { node: NodeId },
    /// A node's record says what the node says.
    NodeUpdated,
    /// A new certificate authority issues.
    AuthorityRotated { authority: u32 },
    /// Former certificate authorities are believed no more.
    AuthoritiesDropped,
    /// It is known by which authority a node's certificate is.
    CertificateNoted,
    /// The audit log has a change of the membership.
    MembershipNoted,
    /// A member was made.
    MemberCreated,
    /// A member is gone, and so many tokens of it are void.
    MemberDeleted { tokens: u32 },
    /// A member has a role, now or before already.
    RoleGranted,
    /// A member has a role no more.
    RoleRevoked,
    /// A token took the place of another. `check` is the start of the new one's hash: under an id that was kept, it tells the answer to
    /// this request from that to one that came before.
    OperatorTokenRolled { token: TokenId, check: u64 },
    /// Limits are in force.
    LimitsSet,
    /// A deleted secret is there again.
    SecretUndeleted { current: Version },
    /// A deleted secret, or a version, is gone for good.
    SecretDestroyed,
    /// The audit log has a note of calls.
    CallsNoted,
}

/// What the caller should make of a refusal. Stored; only ever added at the end. The public error table maps each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusalKind {
    /// What is named does not exist, or is another account's.
    NotFound,
    /// The name or id is taken.
    AlreadyExists,
    /// The principal's grants do not allow it.
    Denied,
    /// The principal's token is unknown or has expired.
    Unauthenticated,
    /// The request itself is wrong.
    InvalidArgument,
    /// The state is not as the request expects it.
    Precondition,
    /// The account or cluster is full.
    QuotaExceeded,
    /// The value must be sealed again under the current data key. The sealer does so; callers do not see this.
    Reseal,
    /// More than one command may hold.
    TooLarge,
    /// The request id was used for other content.
    RequestReused,
    /// The command needs a feature level that is not in force yet.
    Level,
}

impl RefusalKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::Denied,
        Self::Unauthenticated,
        Self::InvalidArgument,
        Self::Precondition,
        Self::QuotaExceeded,
        Self::Reseal,
        Self::TooLarge,
        Self::RequestReused,
        Self::Level,
    ];

    /// The kind's name in messages and audit entries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Denied => "denied",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidArgument => "invalid-argument",
            Self::Precondition => "precondition",
            Self::QuotaExceeded => "quota-exceeded",
            Self::Reseal => "reseal",
            Self::TooLarge => "too-large",
            Self::RequestReused => "request-reused",
            Self::Level => "level",
        }
    }
}

/// Why a command was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What the caller should make of it.
    pub kind: RefusalKind,
    /// What was wrong and what to do, for people; holds names and ids, never values.
    pub message: String,
}

impl Refusal {
    /// A refusal with its message.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}
