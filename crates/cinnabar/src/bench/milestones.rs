//! When each change reached each edge.
//!
//! The marks are set on the threads where things happen (the control node's applying task, each edge's follower), by one store of
//! a number each. Changes that an edge took together get their marks together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use runtime::RealClock;
use seams::Clock;
use tokio::sync::Notify;
use types::{NodeId, Position};

use crate::prepare::FIRST_EDGE;

/// What becomes of a change at an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Its batch was verified against its seal.
    Verified,
    /// It is durable in the edge's log, and lookups see it.
    Readable,
    /// The control node has the edge's acknowledgement.
    Acknowledged,
}

impl Mark {
    pub(super) const ALL: [Self; 3] = [Self::Verified, Self::Readable, Self::Acknowledged];
}

/// Moments of changes by revision, counted from the first one measured; in nanoseconds, 0 for not yet.
struct Track {
    moments: Vec<AtomicU64>,
    /// Changes marked so far.
    next: AtomicU64,
}

/// All marks. Shared with the nodes that set them.
pub(super) struct Milestones {
    clock: RealClock,
    /// The last revision before those measured; `u64::MAX` while nothing is.
    base: AtomicU64,
    applied: Track,
    /// One for each mark, of each edge.
    edges: Vec<[Track; 3]>,
    /// Of each change, how many edges have acknowledged it.
    acknowledged: Vec<AtomicU32>,
    moved: Notify,
}

impl Track {
    fn new(changes: usize) -> Self {
        Self { moments: (0..changes).map(|_| AtomicU64::new(0)).collect(), next: AtomicU64::new(0) }
    }

    /// Marks what is not marked yet, up to the change with this number. One caller at a time. Gives the numbers that it marked.
    fn mark(&self, number: u64, now: Duration) -> std::ops::Range<u64> {
        let from = self.next.load(Ordering::Relaxed);
        let to = (number + 1).min(self.moments.len() as u64);
        for moment in self.moments.iter().take(to as usize).skip(from as usize) {
            moment.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.next.store(to.max(from), Ordering::Release);
        from..to.max(from)
    }

    fn moment(&self, number: usize) -> Result<Duration> {
        let nanos = self.moments.get(number).map_or(0, |moment| moment.load(Ordering::Relaxed));
        if nanos == 0 { Err(anyhow::anyhow!("change {number} never came")) } else { Ok(Duration::from_nanos(nanos)) }
    }
}

impl Milestones {
    /// Room for so many changes.
    pub(super) fn new(clock: RealClock, edges: u16, changes: usize) -> Arc<Self> {
        Arc::new(Self {
            clock,
            base: AtomicU64::new(u64::MAX),
            applied: Track::new(changes),
            edges: (0..edges).map(|_| [Track::new(changes), Track::new(changes), Track::new(changes)]).collect(),
            acknowledged: (0..changes).map(|_| AtomicU32::new(0)).collect(),
            moved: Notify::new(),
        })
    }

    /// From now on, what comes after `position` is measured.
    pub(super) fn begin(&self, position: Position) {
        self.base.store(position.revision.get(), Ordering::Release);
    }

    /// The number of a change among those measured.
    pub(super) fn number(&self, position: Position) -> Option<u64> {
        let base = self.base.load(Ordering::Acquire);
        position.revision.get().checked_sub(base)?.checked_sub(1)
    }

    /// Waits until all edges have acknowledged the change with this number.
    pub(super) async fn everywhere(&self, number: u64) -> Result<()> {
        let count = self.acknowledged.get(number as usize).context("more changes came than were measured")?;
        loop {
            let moved = self.moved.notified();
            if count.load(Ordering::Acquire) as usize >= self.edges.len() {
                return Ok(());
            }
            moved.await;
        }
    }

    /// When the change was applied at the control node.
    pub(super) fn applied(&self, number: usize) -> Result<Duration> {
        self.applied.moment(number)
    }

    /// When it got this mark, at each edge.
    pub(super) fn reached(&self, mark: Mark, number: usize) -> Result<Vec<Duration>> {
        self.edges.iter().map(|tracks| tracks[mark as usize].moment(number)).collect()
    }

    /// The watcher of the control node.
    pub(super) fn control(self: &Arc<Self>) -> Arc<dyn control::Observer> {
        Arc::new(ControlWatcher(self.clone()))
    }

    /// The watchers of the edges, by number.
    pub(super) fn edges(self: &Arc<Self>) -> Vec<Arc<dyn edge::Observer>> {
        (0..self.edges.len()).map(|edge| Arc::new(EdgeWatcher(self.clone(), edge)) as _).collect()
    }

    fn mark(&self, edge: usize, mark: Mark, position: Position) {
        let now = self.clock.monotonic();
        let (Some(number), Some(tracks)) = (self.number(position), self.edges.get(edge)) else { return };
        let marked = tracks[mark as usize].mark(number, now);
        if mark == Mark::Acknowledged {
            for number in marked {
                let edges = self.acknowledged[number as usize].fetch_add(1, Ordering::AcqRel) + 1;
                if edges as usize == self.edges.len() {
                    self.moved.notify_waiters();
                }
            }
        }
    }
}

struct ControlWatcher(Arc<Milestones>);

impl control::Observer for ControlWatcher {
    fn applied(&self, position: Position) {
        let now = self.0.clock.monotonic();
        if let Some(number) = self.0.number(position) {
            self.0.applied.mark(number, now);
        }
    }

    fn acknowledged(&self, node: NodeId, position: Position) {
        if let Some(edge) = node.get().checked_sub(FIRST_EDGE) {
            self.0.mark(edge as usize, Mark::Acknowledged, position);
        }
    }
}

struct EdgeWatcher(Arc<Milestones>, usize);

impl edge::Observer for EdgeWatcher {
    fn verified(&self, position: Position) {
        self.0.mark(self.1, Mark::Verified, position);
    }

    fn readable(&self, position: Position) {
        self.0.mark(self.1, Mark::Readable, position);
    }
}

#[cfg(test)]
mod tests {
    use types::{Generation, Revision};

    use super::*;

    fn at(revision: u64) -> Position {
        Position::new(Generation::new(1), Revision::new(revision))
    }

    #[tokio::test]
    async fn milestones_mark_what_came_together_and_nothing_before_the_beginning() {
        let all = Milestones::new(RealClock::new(), 2, 3);
        let (control, edges) = (all.control(), all.edges());
        control.applied(at(7));
        edges[0].readable(at(7));
        all.begin(at(7));
        control.applied(at(8));
        control.applied(at(10));
        assert!(all.applied(0).unwrap() <= all.applied(1).unwrap());
        assert_eq!(all.applied(1).unwrap(), all.applied(2).unwrap());
        edges[0].readable(at(9));
        edges[1].readable(at(8));
        assert_eq!(all.reached(Mark::Readable, 0).unwrap().len(), 2);
        assert!(all.reached(Mark::Readable, 1).is_err(), "edge 2 has not got there");
        for node in [101, 102] {
            control.acknowledged(NodeId::new(node), at(10));
            control.acknowledged(NodeId::new(node), at(10));
        }
        all.everywhere(2).await.unwrap();
        assert!(all.everywhere(3).await.is_err());
    }
}
