//! Work that a command left for later, a bounded step at a time: clearing what a deleted store or secret held. And what a node says of
//! itself: which feature level it knows, when the registry knows it otherwise.

use std::{sync::Arc, time::Duration};

use state::{CommandBody, Principal};

use crate::{bootstrap::own_call, core::Core, enrol::replace};

/// How often the log is looked at for open jobs.
const EVERY: Duration = Duration::from_millis(500);

/// Reminders that are counted at the most: more are as good as so many.
const OVERDUE_MAX: usize = 10_000;

/// Runs until the node stops. A step that fails is tried again at the next round: jobs are in the state, so nothing is lost.
pub(crate) async fn run(core: Arc<Core>) {
    let cancelled = core.tasks.token().clone();
    loop {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = core.clock.sleep(EVERY) => {}
        }
        count_overdue(&core);
        report_level(&core).await;
        replace::report(&core).await;
        // Only the leader takes steps: two that do the same would only fill the log.
        if core.consensus.status().leader != Some(core.node) {
            continue;
        }
        replace::keep_up(&core).await;
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

/// Tells how many secrets have a reminder of a time that has passed. By kind, without names; it costs as much as there are, bounded.
fn count_overdue(core: &Core) {
    let now = core.consensus.time();
    for (kind, count) in core.consensus.local().overdue(now, OVERDUE_MAX) {
        metrics::gauge!("cinnabar_control_secrets_overdue", "kind" => kind.name()).set(count as f64);
    }
}

/// A build that was replaced, or a level that the operator holds, is reported once. A node that is not registered has nothing to say.
async fn report_level(core: &Core) {
    let record = core.consensus.local().node(core.node).ok().flatten();
    let Some(record) = record.filter(|record| record.revoked.is_none() && record.feature_level != core.level_max) else { return };
    let (node, feature_level) = (core.node, core.level_max);
    let update = CommandBody::UpdateNode { node, address: record.address, feature_level };
    if let Err(error) = core.propose(&own_call(core), Principal::Node { node }, update).await {
        tracing::debug!(kind = error.kind.name(), reason = error.message, "the feature level was not reported; it is tried again");
    }
}
