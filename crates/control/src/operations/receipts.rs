//! Receipts: where a change has arrived.

use std::{sync::Arc, time::Duration};

use state::{GrantScope, Operation};
use types::Position;
use wire::{
    ErrorKind, PublicError,
    parse::{FieldError, required},
    v1,
};

use crate::{call::Call, core::Core};

/// What is left of a request's time when its wait is over, for the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Names of edges that are behind, and of control nodes that are not heard, at the most.
const NAMES_MAX: usize = 100;

/// Waits until a position is live on all edges.
pub(crate) async fn wait_live(core: Arc<Core>, call: Call, message: v1::WaitLiveRequest) -> Result<v1::WaitLiveReply, PublicError> {
    let position = Position::from(required("position", message.position)?);
    // Whoever is identified may wait: how many edges hold a position names no secret. Who they are is for those who may
    // read the cluster's metadata.
    let (head, names) =
        core.read(&call, |state, caller| Ok((state.position(), caller.may(Operation::ReadMetadata, GrantScope::Cluster)))).await?;
    if position > head {
        return Err(FieldError::new("position", format_args!("is {position}, past the newest, {head}")).into());
    }
    let wait = Duration::from_millis(message.deadline_ms).min(core.request_timeout.saturating_sub(ANSWER_WITHIN));
    let (live, unheard) = tokio::select! {
        biased;
        live = core.wait_live(position) => (live, Vec::new()),
        () = core.clock.sleep(wait) => (core.live(position), core.heard_elsewhere()),
        () = core.tasks.token().cancelled() => return Err(PublicError::new(ErrorKind::Unavailable, "the node is shutting down: ask another")),
    };
    let behind = if names { core.behind(position, NAMES_MAX) } else { Vec::new() };
    Ok(v1::WaitLiveReply {
        position: Some(position.into()),
        edges_live: u32::try_from(live.live).unwrap_or(u32::MAX),
        edges_known: u32::try_from(live.of).unwrap_or(u32::MAX),
        behind,
        controls_unheard: u32::try_from(unheard.len()).unwrap_or(u32::MAX),
        unheard: if names { core.names(unheard.into_iter().take(NAMES_MAX)) } else { Vec::new() },
    })
}
