//! The replicated state: commands go in, change sets come out, and [`apply`](State::apply) is the only judge between them.
//!
//! [`State`] is an ordered map of [records](record) under typed [`Key`]s. A [`Command`] that consensus has placed in the log is
//! judged against the state at its own index and yields a [`Reply`] or a [`Refusal`], the writes, at most one [`ChangeSet`] of
//! the propagated part and an [`AuditEntry`]. [`Propagated`] is that part alone: what control and edge nodes both hold, chained
//! by hashes and summed up in a state root that a signed [`SealStatement`] covers.
//!
//! **Invariants**
//! 1. Pure: no I/O, no clock, no randomness, no unordered map, no logging. Equal logs give equal states, hashes and roots.
//! 2. Hashes cover stored bytes, labelled and length-prefixed, never a re-encoding.
//! 3. A command is applied whole or not at all; a refusal changes nothing but the audit head and the remembered reply.
//! 4. A change set carries propagated keys only, and a follower that accepts every set holds the leader's propagated state.
//! 5. Nothing here holds a plaintext or a key, and no Debug or Display shows the bytes of a sealed value or of a wrapped key.
//!
//! **Failure**: a [`Refusal`] goes to the caller and is part of the replicated outcome. A [`Halt`] means that this node cannot
//! follow the log (a newer level, an unknown command, a damaged record): it must stop before applying. A [`ChainError`] means
//! that an edge must refuse the whole batch and ask again.
//!
//! **Left out**: signatures (`feed` signs and verifies [`statement`]s), keys (`seal`), disks (`store`), the log (`consensus`).

mod access;
mod apply;
mod audit;
mod change_set;
mod command;
mod digest;
mod format;
mod generation;
mod key;
mod large;
pub mod limits;
mod map;
mod notes;
mod packed;
mod propagated;
mod reads;
pub mod record;
mod reply;
mod state;
pub mod statement;

pub use access::{Grant, GrantScope, MemberRef, Operation, Permission, Rights, Role, RoleSet};
pub use apply::{Halt, Outcome};
pub use audit::{AuditDetail, AuditEntry, AuditOutcome, AuditPrincipal, AuditTarget};
pub use change_set::{Change, ChangeSet, ChangeSetError, ChangeSetHeader};
pub use command::{
    AuthorityShare, ChangePhase, Command, CommandBody, CommandError, CommandKind, EnrolNode, InitCluster, KekStep, LimitsEdit,
    MemberChange, MemberNote, NewDek, NewEpoch, NewJoinToken, NewNode, NewSecret, NewSignerSet, NodeEnvelope, Origin, PointerMove,
    Principal, Reminder, ReminderEdit, RequestKey, Rewrap, RotateAuthority, SealedInput, Stage, TokenHolder,
};
pub use format::FormatError;
pub use generation::{Beginning, Begun, GenerationError, GenerationStatement, REVISIONS_SPARED, SignedGeneration, begin_generation};
pub use key::{JobId, Key, KeyError, Keyspace, Prefix, Recipient, ReminderKind, TypedKey};
pub use large::{Content, LARGE_VALUE_BYTES, LARGE_VALUE_WEIGHT, LargeValue, LargeValues, Unreadable, record_weight};
pub use notes::{CallNotes, CallRow, NOTE_ROWS_MAX, NOTE_TEXT_BYTES_MAX, NotedPrincipal};
pub use propagated::{
    BUCKETS, ChainError, ChainHead, Loading, Propagated, ReadError, Root, bucket_hash, bucket_of, leaf as record_hash, root_of_buckets,
};
#[cfg(feature = "reads")]
pub use reads::reads_of;
pub use reply::{Refusal, RefusalKind, Reply, ReplyBody};
pub use state::{Applied, LoadError, Operator, Page, SealingDek, State, Write};
pub use statement::{AckStatement, CheckpointStatement, SealStatement, Signed, Statement, StatementError};

use types::FeatureLevel;

/// The newest feature level that this build can apply. A log or a stream of a newer one stops the node.
///
/// | level | what it brought |
/// |---|---|
/// | 1 | the beginning |
/// | 2 | [`CommandBody::EditQuota`]: a change of one limit leaves the others alone |
/// | 3 | members and the permissions of tokens, rolled tokens, limits of an account; deleted secrets that can be brought back, reminders; notes of calls in the audit log |
pub const FEATURE_LEVEL_MAX: FeatureLevel = FeatureLevel::new(3);
