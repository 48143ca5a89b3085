//! Commands: what consensus places in the log and [`State::apply`](crate::State::apply) judges.
//!
//! ```text
//! offset  bytes  content of an encoded command
//! 0       1      format: 1
//! 1       4      feature level of the proposer, big-endian
//! 5       2      kind of the body, big-endian
//! 7       n      principal, stamp, request, origin and body, as postcard
//! ```
//!
//! Level and kind stand in front so that a node which cannot follow sees it without decoding what it does not know. All that
//! chance or a clock decides (ids, stamps, sealed bytes) is in the command.

mod body;
mod kind;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{FeatureLevel, NodeId, RequestId, UnixMillis};

pub use body::{
    AuthorityShare, ChangePhase, CommandBody, EnrolNode, InitCluster, KekStep, LimitsEdit, MemberChange, MemberNote, NewDek, NewEpoch,
    NewJoinToken, NewNode, NewSecret, NewSignerSet, NodeEnvelope, PointerMove, Reminder, ReminderEdit, Rewrap, RotateAuthority,
    SealedInput, Stage, TokenHolder,
};
pub use kind::CommandKind;

use crate::{
    FEATURE_LEVEL_MAX,
    format::{self, FormatError},
    limits::CHANGE_SET_BYTES_MAX,
};

/// Who proposes a command, as authentication found it. `apply` looks it up again at its own index.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Principal {
    /// The holder of an operator's token.
    Operator {
        /// SHA-256 of the token.
        token: [u8; 32],
    },
    /// A control node, for housekeeping.
    Node {
        /// Its id in the registry.
        node: NodeId,
    },
    /// The bootstrap of an empty cluster; may do nothing else.
    System,
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { .. } => f.write_str("Operator"),
            Self::Node { node } => write!(f, "Node({node})"),
            Self::System => f.write_str("System"),
        }
    }
}

/// A request id, and a keyed hash of the content that it was first used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey {
    /// The caller's id.
    pub id: RequestId,
    /// HMAC of the request's content, value included, under a key that only unlocked control nodes have.
    pub fingerprint: [u8; 32],
}

/// Where a request came from, for audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The peer, such as `10.0.0.7:51020` or `uds:1000`; at most 128 bytes are kept.
    pub peer: String,
    /// The id under which logs know the request; at most 128 bytes are kept.
    pub request: String,
}

/// What consensus replicates.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The feature level that the proposer went by.
    pub level: FeatureLevel,
    /// Who wants it.
    pub principal: Principal,
    /// The proposer's clock.
    pub stamp: UnixMillis,
    /// For telling a retry from a new request.
    pub request: Option<RequestKey>,
    /// For audit.
    pub origin: Origin,
    /// What is wanted.
    pub body: CommandBody,
}

/// Bytes that are no command that this build can apply. A node that meets one in its log must stop before applying.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A newer Cinnabar proposed it.
    #[error("a command of feature level {got}; this build applies up to {}: update this node", FEATURE_LEVEL_MAX)]
    Level {
        /// The command's level.
        got: FeatureLevel,
    },
    /// The kind of command is not known.
    #[error("a command of unknown kind {number}: update this node")]
    Kind {
        /// The kind's number.
        number: u16,
    },
    /// Longer than a command may be.
    #[error("a command of {bytes} bytes; at most {CHANGE_SET_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The bytes do not decode.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Bytes before the postcard part.
const HEADER_BYTES: usize = 7;
const FORMAT: u8 = 1;
const WHAT: &str = "a command";

type Rest<P, O, B> = (P, UnixMillis, Option<RequestKey>, O, B);

impl Command {
    /// The bytes of the log entry, laid out as in the module's header.
    pub fn encode(&self) -> Bytes {
        let ([l0, l1, l2, l3], [k0, k1]) = (self.level.get().to_be_bytes(), self.body.kind().number().to_be_bytes());
        let rest: Rest<_, _, _> = (self.principal, self.stamp, self.request, &self.origin, &self.body);
        format::encode_behind(&[FORMAT, l0, l1, l2, l3, k0, k1], &rest).into()
    }

    /// Reads a log entry.
    ///
    /// # Errors
    /// [`CommandError`]; the node must then stop before applying.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        if bytes.len() > CHANGE_SET_BYTES_MAX {
            return Err(CommandError::TooLarge { bytes: bytes.len() });
        }
        let damaged = |detail: String| FormatError::Damaged { what: WHAT, bytes: bytes.len(), detail };
        let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged("it is cut off".into()))?;
        let [format, l0, l1, l2, l3, k0, k1] = *head;
        if format != FORMAT {
            return Err(FormatError::Newer { what: WHAT, got: format, known: FORMAT }.into());
        }
        let level = FeatureLevel::new(u32::from_be_bytes([l0, l1, l2, l3]));
        if level > FEATURE_LEVEL_MAX {
            return Err(CommandError::Level { got: level });
        }
        let number = u16::from_be_bytes([k0, k1]);
        let kind = CommandKind::from_number(number).ok_or(CommandError::Kind { number })?;
        let (read, left): (Rest<Principal, Origin, CommandBody>, _) =
            postcard::take_from_bytes(rest).map_err(|error| damaged(error.to_string()))?;
        if !left.is_empty() {
            return Err(damaged(format!("{} bytes too many", left.len())).into());
        }
        let (principal, stamp, request, origin, body) = read;
        if body.kind() != kind {
            return Err(damaged(format!("its head says {kind}, its body is {}", body.kind())).into());
        }
        Ok(Self { level, principal, stamp, request, origin, body })
    }
}

impl fmt::Display for Command {
    /// Kind and length only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.body.kind(), self.encode().len())
    }
}

impl fmt::Debug for Command {
    /// Kind, principal, request id and stamp; nothing of the body but its kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("kind", &self.body.kind())
            .field("level", &self.level)
            .field("principal", &self.principal)
            .field("stamp", &self.stamp)
            .field("request", &self.request.map(|request| request.id))
            .finish_non_exhaustive()
    }
}
