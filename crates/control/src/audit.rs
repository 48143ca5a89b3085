//! The audit log as callers read it: filtered, a page at a time, or streamed whole.
//!
//! A control node answers from its own copy, which is complete up to what the node has applied; a caller is identified on the newest
//! state first, so what was acknowledged before the question is in the answer. What a caller may see follows from the one table of
//! operations ([`Operation::ReadAudit`]) and from what an entry is about ([`filter::reach`]).
//!
//! **Invariants**
//! 1. No call looks at more than a bound of stored bytes; whoever wants more comes again with the cursor.
//! 2. An entry that is about something beyond the caller's reach is neither shown nor counted.
//! 3. The disk is read off the async threads, and by a bounded number of callers at once.

mod export;
pub(crate) mod filter;
mod notes;
pub(crate) mod scan;
mod show;

use std::{sync::Arc, time::Duration};

use consensus::{AuditLog, CutSigner};
use state::{GrantScope, Operation, State};
use store::LogError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::{ErrorKind, PAGE_MAX, PAGE_USUAL, PublicError, parse::FieldError, v1};

use crate::{call::Call, caller::Caller, core::Core, error::damaged};
pub(crate) use export::{Parts, export};
pub(crate) use filter::{Filter, Sight};
pub(crate) use notes::{Notes, Spool, Trace, keep};
pub(crate) use scan::{Page, Span, scan};
pub use show::exported;

/// Callers who read the log at once; one more is answered `busy`.
const READERS_MAX: usize = 8;
/// Exports under way at once, of these readers.
const EXPORTS_MAX: usize = 4;

/// This node's copy of the audit log, and who signs for it.
pub(crate) struct Audit {
    pub(crate) log: Arc<AuditLog>,
    signer: Arc<dyn CutSigner>,
    readers: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    /// Calls that wait to be noted.
    pub(crate) notes: Notes,
}

impl Audit {
    pub(crate) fn new(log: Arc<AuditLog>, signer: Arc<dyn CutSigner>) -> Self {
        Self {
            log,
            signer,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            notes: Notes::default(),
        }
    }
}

fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, PublicError> {
    places.clone().try_acquire_owned().map_err(|_| {
        PublicError::new(ErrorKind::Busy, "as many callers read the audit log as this node lets at once")
            .with_retry_after(Duration::from_millis(250))
    })
}

/// The answer to whoever asks a node that cannot read its copy.
fn unread(error: &LogError) -> PublicError {
    tracing::error!(error = error as &dyn std::error::Error, "the audit log of this node cannot be read");
    PublicError::new(
        ErrorKind::Unavailable,
        "this node's copy of the audit log cannot be read, and its log says why: ask another control node",
    )
}

/// Reads the log where blocking work runs.
pub(crate) async fn look<T: Send + 'static>(
    core: &Arc<Core>,
    work: impl FnOnce(&AuditLog) -> Result<T, Arc<LogError>> + Send + 'static,
) -> Result<T, PublicError> {
    let (place, log) = (place(&core.audit.readers)?, core.audit.log.clone());
    let work = tokio::task::spawn_blocking(move || {
        let _place = place;
        work(&log)
    });
    let done = work.await.map_err(|_| PublicError::new(ErrorKind::Internal, "the thread that reads the audit log ended"))?;
    done.map_err(|error| unread(&error))
}

/// What a question comes to on the newest state: whose, about what.
pub(crate) struct Asked {
    pub(crate) sight: Sight,
    pub(crate) filter: Filter,
    pub(crate) state: State,
}

/// Identifies the caller, and finds out what the filter names.
pub(crate) async fn asked(core: &Core, call: &Call, filter: Option<v1::AuditFilter>) -> Result<Asked, PublicError> {
    let wanted = filter::Wanted::read(filter.unwrap_or_default())?;
    core.read(call, |state, caller| {
        let sight = may_read(caller)?;
        Ok(Asked { sight, filter: wanted.resolve(state, caller)?, state: state.clone() })
    })
    .await
}

/// What the caller may read of the log; refused where that is nothing.
pub(crate) fn may_read(caller: &Caller) -> Result<Sight, PublicError> {
    let sight = Sight::of(caller);
    if sight.is_empty() {
        caller.require(Operation::ReadAudit, GrantScope::Cluster)?;
    }
    Ok(sight)
}

/// A page of the log.
pub(crate) async fn list(core: Arc<Core>, call: Call, message: v1::ListAuditRequest) -> Result<v1::ListAuditReply, PublicError> {
    let cursor = match message.cursor.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| FieldError::new("cursor", "is not one that a page before this one gave out"))?),
    };
    let limit = match message.limit as usize {
        0 => PAGE_USUAL,
        limit => limit.min(PAGE_MAX),
    };
    let Asked { sight, filter, state } = asked(&core, &call, message.filter).await?;
    let head = state.audit_head().map_err(damaged)?;
    drop(state);
    let span = Span { since: filter.since, before: filter.before, cursor, newest_first: !message.oldest_first, limit };
    let Page { items, next, held_from, missing } = look(&core, move |log| {
        scan(log, &span, |entry, stored| filter.pick(&sight, entry).map(|entry| show::entry(&entry, stored, false)))
    })
    .await?;
    Ok(v1::ListAuditReply {
        entries: items,
        next_cursor: next.map(|next| next.to_string()).unwrap_or_default(),
        held_from,
        missing: missing.into_iter().map(|(first, last)| v1::AuditGap { first, last }).collect(),
        head: Some(v1::AuditHead { sequence: head.sequence, hash: head.hash.to_string() }),
    })
}
