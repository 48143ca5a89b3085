//! skeleton
use std::sync::Arc;
use types::{LogIndex, UnixMillis};
use crate::{AuditEntry, ChangeSet, Command, GrantScope, Operation, Principal, ReadError, Refusal, RefusalKind, Reply, State, Write};

/// Why this node cannot go on: it must stop before applying, and neither reply nor serve what it holds as the newest state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The index does not follow.
    #[error("applying index {index}: index {applied} was applied already; the log and the state do not belong together")]
    Order {
        /// The command's index.
        index: LogIndex,
        /// The state's.
        applied: LogIndex,
    },
    /// The command needs a newer build.
    #[error("applying index {index}: it needs feature level {level}, this build knows up to {}: update this node", crate::FEATURE_LEVEL_MAX)]
    Level {
        /// The command's index.
        index: LogIndex,
        /// The level that it needs.
        level: types::FeatureLevel,
    },
    /// A record does not decode.
    #[error("applying a command: the state is damaged")]
    Damaged(#[from] ReadError),
    /// A number is at the end of its range.
    #[error("applying a command: {what} is at the end of its range")]
    Exhausted {
        /// Which number.
        what: &'static str,
    },
}

/// What a command does to a state, before it is done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer to the caller.
    pub result: Result<Reply, Refusal>,
    /// All records that change, by rising key, but the head.
    pub writes: Vec<Write>,
    /// What edges must hear of.
    pub change_set: Option<Arc<ChangeSet>>,
    /// What auditors must hear of.
    pub audit: Option<AuditEntry>,
    /// Log time afterwards.
    pub time: UnixMillis,
}

pub(crate) fn apply(state: &State, _index: LogIndex, _command: &Command) -> Result<Outcome, Halt> {
    Ok(Outcome { result: Err(Refusal::new(RefusalKind::Level, "not yet")), writes: vec![], change_set: None, audit: None, time: state.time })
}

pub(crate) fn authorize(_state: &State, _principal: Principal, _operation: Operation, _target: GrantScope, _now: UnixMillis) -> Result<Result<(), Refusal>, Halt> {
    Ok(Ok(()))
}
