//! Whether this node knows of a leader that has a majority: for `/readyz`, a metric, and what operators are shown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::health::Check;
use types::NodeId;

use crate::core::Core;

/// For how long there is no leader before that is told: longer than an ordinary election takes.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When a leader was last confirmed, in milliseconds of the monotonic clock; at first, when the node was started.
pub(crate) struct Majority(AtomicU64);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Majority {
    /// Of a node that is started now.
    pub(crate) fn new(now: Duration) -> Self {
        Self(AtomicU64::new(millis(now)))
    }

    fn seen(&self, now: Duration) {
        self.0.fetch_max(millis(now), Ordering::Relaxed);
    }

    fn missing(&self, now: Duration) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

impl Core {
    /// The leader, if it has shown itself within the time of an election. What Raft names besides may long be dead.
    pub(crate) async fn leader(&self) -> Option<NodeId> {
        let leader = self.consensus.confirmed_leader().await?;
        self.majority.seen(self.clock.monotonic());
        Some(leader)
    }

    /// For how long there was no leader.
    pub(crate) fn leaderless(&self) -> Duration {
        self.majority.missing(self.clock.monotonic())
    }
}

/// Tells in `/readyz` and in a metric whether there is a leader with a majority. An election is passed over.
pub(crate) async fn watch(core: Arc<Core>, check: Check) {
    let cancelled = core.tasks.token().clone();
    loop {
        if core.leader().await.is_some() {
            metrics::gauge!("cinnabar_control_has_leader").set(1.0);
            check.ready();
        } else if core.leaderless() >= TOLD_AFTER {
            metrics::gauge!("cinnabar_control_has_leader").set(0.0);
            check.not_ready(obstacle(&core));
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = core.clock.sleep(LOOK_EVERY) => {}
        }
    }
}

fn obstacle(core: &Core) -> String {
    if !core.consensus.membership().holds(core.node) {
        return "not a member of the cluster, so there is no leader here".to_owned();
    }
    format!(
        "no leader with a majority for {} s, so nothing can be written: bring the other voters back, or the network to them",
        core.leaderless().as_secs()
    )
}
