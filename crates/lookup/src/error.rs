//! Why a lookup was refused.
//!
//! A message says what was wrong and with what; what to do about it is said by its kind, in `wire`'s table, and by the message only where
//! it knows better.
//!
//! Who may learn what: a caller who proved nothing learns only that. A consumer learns about the names of its own bindings. What stands
//! behind a binding to one secret was shown to the operator who bound it, so "scope not allowed" and "deleted" are told apart there.
//! Behind a binding to a store the caller chooses the name, so a secret that it may not read is answered exactly as one that does not
//! exist. No message holds the name of a secret or store that the caller did not send.

use std::time::Duration;

use state::ReadError;
use types::{BindingName, ConsumerRef, KekEpoch, KeyDomain, Position, Scope, SecretName};
use wire::{
    ErrorKind, PublicError,
    frames::FrameError,
    parse::{FieldError, Which},
};

use crate::Age;

/// When to ask again an edge that is catching up: about what a catch-up of a few batches takes.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Why a lookup was refused, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nothing proves who is calling.
    #[error(
        "nothing proves who you are: send the metadata `authorization: Bearer cbc_...`, or show a client certificate, or connect to the UNIX socket as a user that this edge's configuration maps to a consumer ([[peer]])"
    )]
    Unauthenticated,
    /// The text sent as a token is none.
    #[error("the credential sent is {reason}")]
    NotAToken {
        /// What is wrong with it, without the text itself.
        reason: String,
    },
    /// The uid is mapped to no consumer that was asked for.
    #[error("uid {uid} may not act as {wanted}: add a [[peer]] rule to this edge's configuration, or send the consumer's token")]
    PeerNotMapped {
        /// The peer's uid.
        uid: u32,
        /// The consumer it asked for, or "any consumer".
        wanted: String,
    },
    /// The uid may act as several consumers and the request does not say as which.
    #[error("uid {uid} may act as more than one consumer: name one in the request, with its account's id")]
    PeerAmbiguous {
        /// The peer's uid.
        uid: u32,
    },
    /// The credential is of another consumer than the request names.
    #[error(
        "the credential belongs to {proven}, not to {wanted}: leave the consumer out of the request, or use the credential of {wanted}"
    )]
    OtherConsumer {
        /// Whom the credential proves.
        proven: ConsumerRef,
        /// Whom the request names.
        wanted: String,
    },
    /// The credential no longer, or not yet, stands for anyone in this copy.
    #[error(
        "{what} (at position {position}): it was revoked or has ended, or is newer than this edge's copy; then demand its position as min_position"
    )]
    Revoked {
        /// What is not known: "this token is unknown" or "consumer KIND/NAME does not exist".
        what: String,
        /// The position of the copy that was asked.
        position: Position,
    },
    /// The consumer has no such binding.
    #[error("{consumer} has no binding {binding} (at position {position})")]
    NotBound {
        /// Who asked.
        consumer: ConsumerRef,
        /// For what.
        binding: BindingName,
        /// The position of the copy that was asked.
        position: Position,
    },
    /// The secret lacks the scope of the consumer's kind.
    #[error("the secret bound as {binding} may not be used by {consumer}: it lacks the scope {scope}")]
    ScopeNotAllowed {
        /// Who asked.
        consumer: ConsumerRef,
        /// For what.
        binding: BindingName,
        /// The scope that is missing.
        scope: Scope,
    },
    /// What was bound has been deleted. A new one of the same name is another secret.
    #[error("what {consumer} has bound as {binding} was deleted; a new one of the same name is another: bind it again")]
    Deleted {
        /// Who asked.
        consumer: ConsumerRef,
        /// For what.
        binding: BindingName,
    },
    /// The bound store holds no secret of this name that the consumer may read.
    #[error("the store bound as {binding} holds no secret {secret} with the scope {scope}: check the spelling, make it, or add the scope")]
    NoSuchSecret {
        /// For what.
        binding: BindingName,
        /// The name that was asked for.
        secret: SecretName,
        /// The scope that the consumer needs.
        scope: Scope,
    },
    /// The secret has no such version.
    #[error("the secret bound as {binding} has no {}", version(wanted))]
    NoSuchVersion {
        /// For what.
        binding: BindingName,
        /// What was asked for.
        wanted: Which,
    },
    /// This node has no state yet.
    #[error("this edge has not synced yet, so it cannot say what exists")]
    NotSynced,
    /// The state is older than the request or the cluster allows.
    #[error("the state of this edge is too old: age {age}, allowed {allowed} ms ({bound})")]
    TooStale {
        /// How old it is.
        age: Age,
        /// The bound in milliseconds.
        allowed: u64,
        /// Which bound: `max_age` or `edge_offline_max`.
        bound: &'static str,
    },
    /// The state has not reached the position that the request demands.
    #[error("this edge is at position {position}, before the {wanted} that was asked for")]
    BehindPosition {
        /// Where it is.
        position: Position,
        /// What was asked for.
        wanted: Position,
    },
    /// The key that opens the value is not here.
    #[error("this edge lacks KEK epoch {epoch} of key domain {domain}, which the value needs; it comes when the control plane is reached")]
    KeyMissing {
        /// The key domain.
        domain: KeyDomain,
        /// The KEK epoch under which the data key is wrapped.
        epoch: KekEpoch,
    },
    /// The record does not open under its own data: this copy or its keys are damaged.
    #[error("the value does not open on this edge: its copy or its keys are damaged; ask another edge")]
    Damaged,
    /// The value lies on the disk of this node and cannot be read there now.
    #[error("the value cannot be read from the disk of this edge, which is being put right; ask again, or another edge")]
    Unreadable,
    /// This node may serve no longer.
    #[error("this edge has been revoked; ask another edge")]
    NodeRevoked,
    /// The node is shutting down.
    #[error("this edge is shutting down; ask another edge, or connect again")]
    Stopping,
    /// More watches, streams or bytes of replies than this node allows at once.
    #[error("too many {what} at once: at most {max} {whose}")]
    Busy {
        /// What there are too many of.
        what: &'static str,
        /// Of whom: "on this edge" or "for one caller".
        whose: &'static str,
        /// The bound.
        max: usize,
    },
    /// What a connection in frames brought is no frame.
    #[error("what this connection sent is no request in frames: {reason}")]
    BadFrame {
        /// What is wrong with it.
        reason: FrameError,
    },
    /// A connection in frames has lasted as long as it may.
    #[error("this connection has lasted as long as it may; connect again")]
    ConnectionOld,
    /// The request itself is wrong.
    #[error(transparent)]
    Invalid(#[from] FieldError),
}

impl LookupError {
    /// What the caller should do: the row of the table in `wire`.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unauthenticated | Self::NotAToken { .. } => ErrorKind::Unauthenticated,
            Self::PeerNotMapped { .. } | Self::OtherConsumer { .. } => ErrorKind::Denied,
            Self::PeerAmbiguous { .. } | Self::BadFrame { .. } | Self::Invalid(_) => ErrorKind::InvalidArgument,
            Self::Revoked { .. } => ErrorKind::Revoked,
            Self::NotBound { .. } => ErrorKind::NotBound,
            Self::ScopeNotAllowed { .. } => ErrorKind::ScopeNotAllowed,
            Self::Deleted { .. } | Self::NoSuchSecret { .. } | Self::NoSuchVersion { .. } => ErrorKind::Absent,
            Self::NotSynced | Self::BehindPosition { .. } => ErrorKind::NotSynced,
            Self::TooStale { .. } => ErrorKind::TooStale,
            Self::KeyMissing { .. } | Self::Unreadable | Self::NodeRevoked | Self::Stopping | Self::ConnectionOld => ErrorKind::Unavailable,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Damaged => ErrorKind::Internal,
        }
    }

    /// The error as a caller sees it.
    pub fn public(&self) -> PublicError {
        let error = PublicError::new(self.kind(), self.to_string());
        match self {
            Self::Invalid(field) => field.clone().into(),
            Self::NotSynced | Self::BehindPosition { .. } | Self::Busy { .. } => error.with_retry_after(RETRY_AFTER),
            _ => error,
        }
    }

    /// Whether no later change of the state mends it: who calls is not proved, the request is wrong, or this node is done.
    pub const fn is_final(&self) -> bool {
        match self.kind() {
            ErrorKind::Unauthenticated | ErrorKind::Denied | ErrorKind::InvalidArgument | ErrorKind::Revoked => true,
            _ => matches!(self, Self::NodeRevoked | Self::Stopping),
        }
    }
}

/// A record that does not decode is damage of this copy; what is known of it goes to the log.
impl From<ReadError> for LookupError {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Format { source, .. } => {
                tracing::error!(%error, cause = %source, "a record of the served state cannot be read: this copy is damaged");
                Self::Damaged
            }
            ReadError::Unreadable { source, .. } => {
                tracing::warn!(%error, cause = %source, "a large value cannot be read now");
                Self::Unreadable
            }
        }
    }
}

/// A version that was asked for, in words.
fn version(which: &Which) -> String {
    match which {
        Which::Current => "current value".to_owned(),
        Which::Previous => "previous value".to_owned(),
        Which::Exact(version) => format!("version {version}: it was never made, is no longer kept, or is not live yet"),
    }
}
