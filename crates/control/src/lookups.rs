//! Lookups at a control node, when it is configured to serve them: the path of crate `lookup` over the node's own state.
//!
//! An edge serves a root that a verified seal covers. A control node has judged its state itself, so it serves what it has applied,
//! with its own keys. Its age is that of the last tick that it applied, counted as an edge counts from a checkpoint: ticks are commands,
//! so a node that is cut off from its majority applies none, grows old, and obeys `max_age`, the lease and `edge_offline_max` like
//! any edge (P5, P7).
//!
//! **Invariants**
//! 1. Nothing is served before the log is replayed and a majority has confirmed what was in it ([`open_when_recovered`]): from then on the
//!    state is at least as new as before the restart, so the position that readers see never goes back (P3). Until then the
//!    answer is "not synced".
//! 2. The age is unknown until the first tick after that: a tick that was replayed says nothing about now.
//! 3. A control node that applies its own revocation serves nothing more.
//!
//! **Concurrency**: [`Lookups::applied`] and [`Lookups::ticked`] are called by the task that applies, and return at once.
//!
//! **Failure**: a locked node answers "unavailable". What goes wrong at one door ends that door, with an error in the log.
//!
//! **Left out**: serving after a restart without a majority, which an edge can: what this node once showed may be newer than what
//! its log is known to have committed.

mod doors;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use lookup::{Checkpoint, Serving};
use runtime::health::Check;
use seal::KeyRing;
use seams::Clock;
use state::State;
use types::{NodeId, UnixMillis};

pub(crate) use self::doors::{bind, open};
use crate::core::Core;

/// How often readiness and gauges follow: as often as ticks come.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// The pause after a majority was not found in time; it is looked for until the node ends.
const RECOVERY_PAUSE: Duration = Duration::from_secs(1);

/// What the node serves.
pub(crate) struct Lookups {
    node: NodeId,
    serving: Arc<Serving>,
    /// Whether the state may be shown.
    open: Mutex<bool>,
    /// Where the door over TLS listens.
    pub(crate) address: OnceLock<SocketAddr>,
}

impl Lookups {
    /// Serves nothing yet.
    pub(crate) fn new(node: NodeId, clock: Arc<dyn Clock>, keys: Arc<KeyRing>) -> Self {
        let serving = Arc::new(Serving::new(clock, keys));
        Self { node, serving, open: Mutex::new(false), address: OnceLock::new() }
    }

    /// What readers see.
    pub(crate) fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// The state was replaced, or a batch was applied.
    pub(crate) fn applied(&self, state: &State) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if *open {
            self.show(state);
        }
    }

    /// A tick of this time was applied.
    pub(crate) fn ticked(&self, time: UnixMillis) {
        if *self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            self.serving.checkpoint(Checkpoint::received(time, &**self.serving.clock()));
        }
    }

    /// Shows the state from now on; `local` is the newest, and is read while no batch can be shown.
    fn open(&self, local: impl FnOnce() -> State) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open = true;
        self.show(&local());
    }

    fn show(&self, state: &State) {
        match state.node(self.node) {
            Ok(Some(record)) if record.revoked.is_some() => {
                if !self.serving.is_revoked() {
                    tracing::error!(node = %self.node, "this node has been revoked: it answers no lookup any more");
                }
                self.serving.revoke();
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "this node's record cannot be read: the state is damaged"),
        }
        self.serving.publish_own(state.propagated().clone());
    }
}

/// Opens when the log is replayed and confirmed, however long a majority is away.
pub(crate) async fn open_when_recovered(core: Arc<Core>, lookups: Arc<Lookups>) {
    let stop = core.tasks.token().clone();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            recovered = core.consensus.recovered() => match recovered {
                Ok(()) => return lookups.open(|| core.consensus.local()),
                Err(error) => tracing::debug!(%error, "no majority yet; lookups wait for it"),
            },
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = core.clock.sleep(RECOVERY_PAUSE) => {}
        }
    }
}

/// Keeps readiness and gauges up to date until the node stops.
pub(crate) async fn watch(core: Arc<Core>, lookups: Arc<Lookups>, ready: Check) {
    let serving = lookups.serving();
    let mut positions = serving.watch_position();
    loop {
        let (synced, fresh, revoked) = (serving.position().is_some(), serving.fresh_enough(), serving.is_revoked());
        match (synced, fresh, revoked) {
            (_, _, true) => ready.not_ready("this node is revoked"),
            (false, ..) => ready.not_ready("the log is not replayed and confirmed by a majority yet"),
            (_, false, _) => ready.not_ready("the state is too old to serve: no tick comes from a majority"),
            _ => ready.ready(),
        }
        metrics::gauge!("cinnabar_control_lookups_serving").set(f64::from(u8::from(synced && fresh && !revoked)));
        metrics::gauge!("cinnabar_control_lookups_age_seconds")
            .set(serving.age().millis().map_or(f64::INFINITY, |age| age as f64 / 1000.0));
        tokio::select! {
            biased;
            () = core.tasks.token().cancelled() => return,
            () = core.clock.sleep(WATCH_EVERY) => {}
            // Until it serves, the first state and the first tick are news at once.
            Ok(()) = positions.changed(), if !(synced && fresh) => {}
        }
    }
}
