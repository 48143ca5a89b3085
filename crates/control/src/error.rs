//! From inner errors to the public one. No wildcard arm: a new inner kind has to be placed here.

use consensus::{ProposeError, ReadError};
use seal::SealError;
use state::{Refusal, RefusalKind};
use wire::{ErrorKind, PublicError};

/// What `apply` refused, as the caller reads it.
pub(crate) fn refused(refusal: Refusal) -> PublicError {
    let kind = match refusal.kind {
        RefusalKind::NotFound => ErrorKind::NotFound,
        RefusalKind::AlreadyExists => ErrorKind::AlreadyExists,
        RefusalKind::Denied => ErrorKind::Denied,
        RefusalKind::Unauthenticated => ErrorKind::Unauthenticated,
        RefusalKind::InvalidArgument => ErrorKind::InvalidArgument,
        RefusalKind::Precondition => ErrorKind::Precondition,
        RefusalKind::QuotaExceeded => ErrorKind::QuotaExceeded,
        RefusalKind::Reseal => ErrorKind::Reseal,
        RefusalKind::TooLarge => ErrorKind::TooLarge,
        RefusalKind::RequestReused => ErrorKind::RequestReused,
        RefusalKind::Level => ErrorKind::Level,
    };
    PublicError::new(kind, refusal.message)
}

/// Why a command was not applied, or may not have been.
pub(crate) fn not_proposed(error: ProposeError) -> PublicError {
    match error {
        ProposeError::Refused(refusal) => refused(refusal),
        ProposeError::Unavailable { .. } => PublicError::new(ErrorKind::Unavailable, error.to_string()),
        ProposeError::Unknown { .. } => PublicError::new(ErrorKind::DeadlineExceeded, error.to_string()),
        ProposeError::TooLarge { .. } => PublicError::new(ErrorKind::TooLarge, error.to_string()),
        ProposeError::Stopped(_) => {
            PublicError::new(ErrorKind::Unavailable, "this control node has stopped: ask another, and look at its log")
        }
    }
}

/// Why the newest state could not be read. Never "not found": a node without a majority knows nothing about absence.
pub(crate) fn not_read(error: ReadError) -> PublicError {
    match error {
        ReadError::Unavailable { .. } => PublicError::new(ErrorKind::Unavailable, error.to_string()),
        ReadError::Stopped(_) => {
            PublicError::new(ErrorKind::Unavailable, "this control node has stopped: ask another, and look at its log")
        }
    }
}

/// Why a value could not be sealed or opened. What the key hierarchy knows stays in the log.
pub(crate) fn not_sealed(error: &SealError) -> PublicError {
    match error {
        SealError::KeyUnavailable { .. } => {
            PublicError::new(ErrorKind::Locked, "this node has not the key that the value needs: unlock it, or ask another node")
        }
        SealError::TooLong { .. } => PublicError::new(ErrorKind::TooLarge, error.to_string()),
        _ => {
            tracing::error!(%error, "a value could not be sealed or opened");
            PublicError::new(ErrorKind::Internal, "the value could not be sealed; the log of this node says why")
        }
    }
}

/// A record of this node's own state that cannot be read: damage, which the log names and the caller does not see.
pub(crate) fn damaged(error: state::ReadError) -> PublicError {
    match &error {
        state::ReadError::Format { source, .. } => {
            tracing::error!(%error, cause = %source, "a record of the state cannot be read; replace this node from its peers");
            PublicError::new(ErrorKind::Internal, "a record of this node's state is damaged; its log names the record")
        }
        state::ReadError::Unreadable { source, .. } => {
            tracing::warn!(%error, cause = %source, "a large value cannot be read now");
            PublicError::new(ErrorKind::Unavailable, "a value cannot be read from this node's disk now; ask another node")
        }
    }
}

/// A reply of another kind than the command asks for: a defect, which the log names.
pub(crate) fn unexpected() -> PublicError {
    tracing::error!("the log answered a command with the reply of another");
    PublicError::new(ErrorKind::Internal, "the log answered with something else than was asked; this is a defect of Cinnabar")
}
