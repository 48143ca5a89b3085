//! Whether this node knows of a leader that has a majority: for `/readyz`, a metric, and what operators are shown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::health::Check;
use state::State;
use types::NodeId;
use wire::{ErrorKind, PublicError};

use crate::{core::Core, error::damaged};

/// For how long there is no leader before that is told: longer than an ordinary election takes.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// How far two clocks that are well may be apart, with what a tick takes on its way.
const SKEW: Duration = Duration::from_secs(3);
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

    /// This node's own state, while that is no older than the lease: what is cut off from its majority hears of no revocation, so
    /// nobody is identified by it for longer. The age is an edge's: by the wall clock since the last tick that a majority took; and at
    /// least the time for which no leader was heard, lest a clock that was set back make it young. Where the clock is behind the
    /// tick, as after a restart with a wrong one, the age is not known, and the state no good.
    pub(crate) fn heard_lately(&self) -> Result<State, PublicError> {
        let state = self.consensus.local();
        let lease = state.settings().map_err(damaged)?.map_or(Duration::ZERO, |settings| Duration::from_millis(settings.lease_ms));
        let (wall, tick) = (self.clock.wall(), state.last_time());
        let age = wall.since(tick).max(self.leaderless());
        if age <= lease && tick <= wall.plus(SKEW) {
            return Ok(state);
        }
        let message = format!(
            "this control node has had no word of a majority for {} s; after {} s it no longer says whose token is good, for it would not hear of a revocation: ask another control node; or read, on this one's machine, its /readyz, which tells what it lacks",
            age.as_secs(),
            lease.as_secs(),
        );
        Err(PublicError::new(ErrorKind::Unavailable, message))
    }

    /// The other voters that this node does not hear, by name.
    fn unheard(&self) -> Vec<String> {
        let voters = self.consensus.membership().voters;
        let unheard = voters.into_iter().filter(|(node, _)| *node != self.node && !self.standings.is_heard(*node));
        self.names(unheard.map(|(node, _)| node))
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
    let unheard = core.unheard();
    let unheard = if unheard.is_empty() { String::new() } else { format!("; not heard from here: {}", unheard.join(", ")) };
    format!(
        "no leader with a majority for {} s, so nothing can be written: bring the other voters back, or the network to them{unheard}",
        core.leaderless().as_secs()
    )
}
