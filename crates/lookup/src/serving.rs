//! What a node serves: one immutable root, its age, and the keys.
//!
//! **Invariants**
//! 1. The position that readers see never goes back ([`Serving::publish`] ignores an older root).
//! 2. A reader that loaded a root keeps it whole for as long as it holds it.
//!
//! **Concurrency**: any number of readers, lock-free; one publisher.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwapOption, Guard};
use seal::KeyRing;
use seams::Clock;
use state::{Propagated, Root};
use tokio::sync::watch;
use types::{Position, UnixMillis};

use crate::{Age, Checkpoint};

/// How old a state may be, as the cluster's settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The bound of what is marked fail-closed.
    pub lease: Duration,
    /// After this age nothing is served; none for never.
    pub edge_offline_max: Option<Duration>,
}

impl Bounds {
    /// The bounds while a state has no settings record: those that a new cluster starts with.
    pub const DEFAULT: Self = Self { lease: Duration::from_secs(60), edge_offline_max: Some(Duration::from_secs(7 * 24 * 3600)) };
}

/// One root with what is read from it at every lookup, decoded once.
pub(crate) struct View {
    pub(crate) state: Propagated,
    /// The sealed root that the state came in; none where the node judged it itself.
    root: Option<Arc<Root>>,
    pub(crate) bounds: Bounds,
}

impl View {
    pub(crate) fn position(&self) -> Position {
        self.state.position()
    }
}

/// The one place where a node's readers find what it serves.
pub struct Serving {
    clock: Arc<dyn Clock>,
    keys: Arc<KeyRing>,
    view: ArcSwapOption<View>,
    checkpoint: ArcSwapOption<Checkpoint>,
    /// Set once, when the chain says that this node is revoked.
    revoked: AtomicBool,
    /// Wakes those who wait for a position. Holds the position served, none before the first root.
    position: watch::Sender<Option<Position>>,
}

impl Serving {
    /// Serves nothing yet.
    pub fn new(clock: Arc<dyn Clock>, keys: Arc<KeyRing>) -> Self {
        Self {
            clock,
            keys,
            view: ArcSwapOption::empty(),
            checkpoint: ArcSwapOption::empty(),
            revoked: AtomicBool::new(false),
            position: watch::Sender::new(None),
        }
    }

    /// Makes `root` what readers see. A root before the one served is ignored (and told in the log): readers never go back.
    pub fn publish(&self, root: Arc<Root>) {
        self.show(root.state.clone(), Some(root));
    }

    /// As [`Serving::publish`], at a control node: it has judged the state itself, so there is no seal to go with it.
    pub fn publish_own(&self, state: Propagated) {
        self.show(state, None);
    }

    fn show(&self, state: Propagated, root: Option<Arc<Root>>) {
        let position = state.position();
        if let Some(served) = self.position().filter(|served| *served > position) {
            tracing::error!(%served, offered = %position, "a root before the one served was offered and ignored: report this");
            return;
        }
        let bounds = bounds_of(&state);
        self.view.store(Some(Arc::new(View { state, root, bounds })));
        self.position.send_replace(Some(position));
    }

    /// Counts age from `checkpoint` on. One that is not newer than the last is ignored: one from the disk may not take the place of the
    /// same that was received, and one that is repeated makes nothing younger.
    pub fn checkpoint(&self, checkpoint: Checkpoint) {
        if self.checkpoint.load().as_ref().is_some_and(|last| last.time() >= checkpoint.time()) {
            return;
        }
        let stale = !self.fresh_enough();
        self.checkpoint.store(Some(Arc::new(checkpoint)));
        if stale {
            // Lookups that wait, and watches, look again: what was too old is not any more.
            self.position.send_modify(|_| {});
        }
    }

    /// This node has been revoked: every lookup from now on is refused. There is no way back but another process with another identity.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// Whether this node has been revoked.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// The sealed root that readers see, if there is one.
    pub fn root(&self) -> Option<Arc<Root>> {
        self.view.load().as_ref().and_then(|view| view.root.clone())
    }

    /// The position that readers see; none before the first root.
    pub fn position(&self) -> Option<Position> {
        *self.position.borrow()
    }

    /// How old what readers see may be.
    pub fn age(&self) -> Age {
        self.checkpoint.load().as_ref().map_or(Age::Unknown, |checkpoint| checkpoint.age(&*self.clock))
    }

    /// The time of the last checkpoint.
    pub fn checkpoint_time(&self) -> Option<UnixMillis> {
        self.checkpoint.load().as_ref().map(|checkpoint| checkpoint.time())
    }

    /// The bounds on age that are in force.
    pub fn bounds(&self) -> Bounds {
        self.view.load().as_ref().map_or(Bounds::DEFAULT, |view| view.bounds)
    }

    /// Whether lookups without demands of their own are answered: there is a root, and it is not too old.
    pub fn fresh_enough(&self) -> bool {
        let view = self.view.load();
        view.as_ref().is_some_and(|view| view.bounds.edge_offline_max.is_none_or(|bound| self.age().within(bound)))
    }

    /// The keys.
    pub fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// The clock that ages are counted by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Waits until readers see `wanted` or more, for at most `patience`. Whether they do.
    pub async fn reached(&self, wanted: Position, patience: Duration) -> bool {
        self.waited(patience, |seen| seen.is_some_and(|seen| seen >= wanted)).await
    }

    /// Whether a lookup that demands `wanted` would be answered: readers see it, and what they see is not too old for the cluster.
    pub(crate) fn answers_at(&self, wanted: Position) -> bool {
        self.position().is_some_and(|seen| seen >= wanted) && self.fresh_enough()
    }

    /// Waits until a lookup that demands `wanted` would be answered, for at most `patience`. An edge that has just synced knows its
    /// age only when the next checkpoint comes, within a second.
    pub(crate) async fn answers(&self, wanted: Position, patience: Duration) -> bool {
        self.waited(patience, |seen| seen.is_some_and(|seen| seen >= wanted) && self.fresh_enough()).await
    }

    async fn waited(&self, patience: Duration, until: impl Fn(Option<Position>) -> bool) -> bool {
        let mut position = self.position.subscribe();
        tokio::select! {
            biased;
            seen = position.wait_for(|seen| until(*seen)) => seen.is_ok(),
            () = self.clock.sleep(patience) => false,
        }
    }

    /// The position that readers see, woken at each published root; none before the first.
    pub fn watch_position(&self) -> watch::Receiver<Option<Position>> {
        self.position.subscribe()
    }

    /// The root of this moment.
    pub(crate) fn view(&self) -> Guard<Option<Arc<View>>> {
        self.view.load()
    }

    /// The time by which tokens expire.
    pub(crate) fn now(&self) -> UnixMillis {
        self.checkpoint.load().as_ref().map_or_else(|| self.clock.wall(), |checkpoint| checkpoint.now(&*self.clock))
    }
}

/// The bounds that a state sets; while it has none, those of a new cluster. A record that cannot be read sets the strictest.
fn bounds_of(state: &Propagated) -> Bounds {
    match state.settings() {
        Ok(Some(settings)) => Bounds {
            lease: Duration::from_millis(settings.lease_ms),
            edge_offline_max: settings.edge_offline_max_ms.map(Duration::from_millis),
        },
        Ok(None) => Bounds::DEFAULT,
        Err(error) => {
            tracing::error!(%error, "the settings cannot be read: this copy is damaged, nothing is served from it");
            Bounds { lease: Duration::ZERO, edge_offline_max: Some(Duration::ZERO) }
        }
    }
}

#[cfg(test)]
mod tests {
    use seams::sim::ManualClock;
    use types::ClusterId;

    use super::*;

    #[test]
    fn checkpoint_from_the_disk_does_not_replace_the_same_that_was_received() {
        let clock = Arc::new(ManualClock::at(UnixMillis::new(10_000)));
        let serving = Serving::new(clock.clone(), Arc::new(KeyRing::new(ClusterId::from_bytes([1; 16]))));
        let time = UnixMillis::new(9_000);
        serving.checkpoint(Checkpoint::received(time, &*clock));
        clock.advance(Duration::from_secs(5));
        clock.set_wall(UnixMillis::new(9_000));
        serving.checkpoint(Checkpoint::restored(time, time, &*clock));
        assert_eq!(serving.age(), Age::Known(Duration::from_secs(6)), "it became no younger");
    }
}
