//! Work that a command left for later, a bounded step at a time: clearing what a deleted store or secret held.

use std::{sync::Arc, time::Duration};

use state::{CommandBody, Principal};

use crate::{bootstrap::own_call, core::Core};

/// How often the log is looked at for open jobs.
const EVERY: Duration = Duration::from_millis(500);

/// Runs until the node stops. A step that fails is tried again at the next round: jobs are in the state, so nothing is lost.
pub(crate) async fn run(core: Arc<Core>) {
    let cancelled = core.tasks.token().clone();
    loop {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = core.clock.sleep(EVERY) => {}
        }
        // Only the leader proposes; a follower would be told to go there.
        if core.consensus.status().leader != Some(core.node) {
            continue;
        }
        while let Some(job) = core.consensus.local().next_job().filter(|_| !cancelled.is_cancelled()) {
            let call = own_call(&core);
            let step = core.propose(&call, Principal::Node { node: core.node }, CommandBody::Step { job });
            if let Err(error) = step.await {
                tracing::warn!(%job, kind = error.kind.name(), reason = error.message, "a background step was not taken; it is tried again");
                break;
            }
        }
    }
}
