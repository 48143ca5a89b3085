//! The memory of requests: a retry gets the first answer, and an id is not used twice for different things.
//!
//! Remembered is what a handler answered, for 24 hours of log time. Not remembered are `Reseal` and `NotFound`, after which whoever
//! proposed tries again under the same id, sealed anew or with the name looked up anew, and what the gate or the table of operations
//! refused. When the memory is full the oldest is forgotten first.

use types::mutation::{self, Mutation};

use super::{Halt, Identity, View};
use crate::{
    Command, Keyspace, Prefix, Refusal, RefusalKind, Reply, TypedKey,
    limits::{REQUEST_AGE, REQUESTS_MAX, REQUESTS_SWEPT_MAX},
    propagated::decode_content,
    record::{RequestAgeRecord, RequestRecord},
};

/// What is remembered of a request.
pub(super) enum Known {
    /// Nothing.
    New,
    /// It was answered: this is a retry.
    Answered(Result<Reply, Refusal>),
    /// Its id was used for something else.
    Reused,
}

/// Looks a request up.
pub(super) fn recall(view: &View<'_>, identity: &Identity, command: &Command) -> Result<Known, Halt> {
    let (Some(owner), Some(request)) = (identity.owner(), command.request) else { return Ok(Known::New) };
    let first: Option<RequestRecord> = view.read(TypedKey::Request { owner, request: request.id })?;
    Ok(match first.filter(|first| view.time < first.expires) {
        None => Known::New,
        Some(first) if first.fingerprint == request.fingerprint => Known::Answered(first.result),
        Some(_) => Known::Reused,
    })
}

/// The refusal of a request id that was used for something else.
pub(super) fn reused() -> Refusal {
    Refusal::new(RefusalKind::RequestReused, "the request id was used before, for something else; use a new one for a new request")
}

/// Keeps a handler's answer.
pub(super) fn remember(view: &mut View<'_>, identity: &Identity, command: &Command, result: &Result<Reply, Refusal>) -> Result<(), Halt> {
    let (Some(owner), Some(request)) = (identity.owner(), command.request) else { return Ok(()) };
    if matches!(result, Err(Refusal { kind: RefusalKind::Reseal | RefusalKind::NotFound, .. }))
        || mutation::is_on(Mutation::RequestForgotten)
    {
        return Ok(());
    }
    let expires = view.time.plus(REQUEST_AGE);
    let record = RequestRecord { fingerprint: request.fingerprint, expires, result: result.clone() };
    view.put(TypedKey::Request { owner, request: request.id }, &record);
    view.put(TypedKey::RequestAge { index: view.index }, &RequestAgeRecord { owner, request: request.id, expires });
    let mut totals = view.totals()?;
    totals.requests += 1;
    view.put(TypedKey::Totals, &totals);
    Ok(())
}

/// Forgets some of what has expired, and the oldest when there is too much.
pub(super) fn sweep(view: &mut View<'_>) -> Result<(), Halt> {
    let ages = Prefix::keyspace(Keyspace::RequestAge);
    let mut totals = view.totals()?;
    let before = totals;
    let state = view.state;
    for (key, content) in state.scan_control(&ages).take(REQUESTS_SWEPT_MAX) {
        let age: RequestAgeRecord = decode_content(key, content)?;
        if view.time < age.expires && totals.requests <= REQUESTS_MAX {
            break;
        }
        let Ok(age_key) = key.decode() else { return Err(Halt::Broken { what: "a request's age lies under a key that is none" }) };
        view.delete(age_key);
        let request = TypedKey::Request { owner: age.owner, request: age.request };
        // The same id may have been used again since; that one has an age of its own.
        if view.read::<RequestRecord>(request.clone())?.is_some_and(|record| record.expires == age.expires) {
            view.delete(request);
        }
        totals.requests = totals.requests.saturating_sub(1);
    }
    if totals != before {
        view.put(TypedKey::Totals, &totals);
    }
    Ok(())
}
