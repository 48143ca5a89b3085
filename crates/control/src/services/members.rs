//! The audit log's share in a change of the membership.
//!
//! Members are Raft's own entries, which carry no audit entry. So each change that an operator asks for is preceded by a command that
//! says who asked for what, without which it is not made, and followed by one that says how it ended. Where the second is missing (the
//! node died, or the majority went with the change) the end is not known, and the log says no more than that it was asked for.
//!
//! **Left out**: what nodes do by themselves: a leader that hands over as it stops, and a member that tells where it is reached now, which
//! the registry's own record of it is audited for.

use std::{future::Future, sync::Arc, time::Duration};

use seams::Spawn;
use state::{ChangePhase, CommandBody, MemberChange, MemberNote};
use types::NodeId;
use wire::{ErrorKind, PublicError};

use crate::{call::Call, core::Core};

/// The most bytes of a reason that a note keeps.
const REASON_BYTES_MAX: usize = 255;

/// How long an answer waits for the note that follows the change.
const NOTED_WITHIN: Duration = Duration::from_secs(3);

/// Has `work` done, between two notes of it. It goes on to its end when the caller hangs up.
pub(super) async fn noted<T: Send + 'static>(
    core: &Arc<Core>,
    call: &Call,
    (node, change): (Option<NodeId>, MemberChange),
    work: impl Future<Output = Result<T, PublicError>> + Send + 'static,
) -> Result<T, PublicError> {
    let note = MemberNote { node, change, phase: ChangePhase::Asked };
    let (send, answer) = tokio::sync::oneshot::channel();
    let (core, call, tasks) = (core.clone(), call.clone(), core.tasks.clone());
    tasks.spawn(
        "change of the membership",
        Box::pin(async move {
            // The caller may have hung up, which is its right.
            let _ = send.send(between(&core, &call, note, work).await);
        }),
    );
    answer.await.unwrap_or_else(|_| Err(PublicError::new(ErrorKind::Unavailable, "the node is shutting down: try another")))
}

async fn between<T>(
    core: &Core,
    call: &Call,
    asked: MemberNote,
    work: impl Future<Output = Result<T, PublicError>>,
) -> Result<T, PublicError> {
    note(core, call, asked.clone()).await?;
    let done = work.await;
    let phase = match &done {
        Ok(_) => ChangePhase::Done,
        Err(error) => {
            let reason = &error.message;
            ChangePhase::Failed { reason: reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned() }
        }
    };
    // Not waited for beyond this: a node that has just removed itself hears of no majority any more.
    tokio::select! {
        biased;
        noted = note(core, call, MemberNote { phase, ..asked }) => {
            if let Err(error) = noted {
                tracing::warn!(kind = error.kind.name(), reason = error.message, "the audit log has not got how a change of the membership ended");
            }
        }
        () = core.clock.sleep(NOTED_WITHIN) => tracing::warn!("it is not known whether the audit log has how a change of the membership ended"),
    }
    done
}

async fn note(core: &Core, call: &Call, note: MemberNote) -> Result<(), PublicError> {
    // Judged by `apply` once more: by now the token may be revoked.
    let caller = core.read(call, |_, caller| Ok(caller.principal())).await?;
    core.propose(call, caller, CommandBody::NoteMembership(Box::new(note))).await.map(drop)
}
