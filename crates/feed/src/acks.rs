//! What each edge has reported as durable, and who waits for it.
//!
//! One row a node: its durable watermark, when it was last seen, and which of its streams counts. A receipt ("version 7 is live on
//! 2 of 2 edges") is a count over the rows; whoever waits for one waits for the changes that every acknowledgement makes.
//!
//! **Invariants**
//! 1. A row's watermark is what the node's newest stream reported, never an older stream's: an edge whose disk was lost counts as
//!    behind from the moment it says so.
//! 2. At most `nodes_max` rows; when full, the row longest unseen and without a stream gives way.
//!
//! **Concurrency**: one short lock, never held across an await.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use seams::Clock;
use types::{FeatureLevel, NodeId, Position};

use crate::changes::{Changes, Changing};

/// Bounds of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcksOptions {
    /// Most rows.
    pub nodes_max: usize,
    /// How long after it was last seen a node without a stream still counts as one that should have the newest state.
    pub active_for: Duration,
}

impl Default for AcksOptions {
    /// 100,000 nodes; ten minutes, as the status of a secret is defined.
    fn default() -> Self {
        Self { nodes_max: 100_000, active_for: Duration::from_secs(600) }
    }
}

/// "Live on `live` of `of` edges."
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Nodes whose durable watermark has reached the position.
    pub live: usize,
    /// Nodes that count: with a stream, or seen a short while ago.
    pub of: usize,
}

impl Liveness {
    /// Whether there is somebody, and all of them have it.
    pub const fn complete(self) -> bool {
        self.of > 0 && self.live == self.of
    }
}

/// What is odd about how a node presents itself. Each is an alarm; none of them keeps a node from being healed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presented {
    /// It holds less than it once acknowledged: its disk was lost or restored from a copy, or it lied.
    pub went_back_from: Option<Position>,
    /// It has another stream here, which is cut in favour of this one.
    pub duplicate: bool,
}

/// One node's row, as others may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRow {
    /// The node.
    pub node: NodeId,
    /// Its durable watermark; none before it holds anything.
    pub durable: Option<Position>,
    /// Whether it has a stream now.
    pub connected: bool,
    /// How long ago it was last seen; zero while it has a stream.
    pub unseen_for: Duration,
    /// The highest feature level it knows.
    pub level: FeatureLevel,
}

struct Row {
    durable: Option<Position>,
    /// The highest it ever acknowledged to this process.
    highest: Option<Position>,
    seen: Duration,
    stream: Option<u64>,
    level: FeatureLevel,
}

#[derive(Default)]
struct Inner {
    rows: BTreeMap<NodeId, Row>,
    streams: u64,
}

/// The table. Shared by all streams of a process.
pub struct Acks {
    options: AcksOptions,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    changed: Changing<u64>,
    hears: OnceLock<Box<Hears>>,
}

/// Who hears of each acknowledgement.
type Hears = dyn Fn(NodeId, Position) + Send + Sync;

/// A stream's place in the table; leaving it ends the stream's claim.
pub(crate) struct StreamClaim {
    acks: Arc<Acks>,
    node: NodeId,
    stream: u64,
}

impl Acks {
    /// An empty table.
    pub fn new(options: AcksOptions, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { options, clock, inner: Mutex::default(), changed: Changing::new(0), hears: OnceLock::new() })
    }

    /// How many nodes that count, and pass `counts` (not revoked, an edge), hold `position` durably.
    pub fn live(&self, position: Position, counts: impl Fn(NodeId) -> bool) -> Liveness {
        let now = self.clock.monotonic();
        let inner = self.lock();
        let active = inner.rows.iter().filter(|(node, row)| self.active(row, now) && counts(**node));
        active.fold(Liveness::default(), |sum, (_, row)| Liveness {
            live: sum.live + usize::from(row.durable >= Some(position)),
            of: sum.of + 1,
        })
    }

    /// Counts nodes as seen now that have not come yet, after a start of this process: what they hold is not known, so nothing
    /// is live everywhere until they have said so or stayed away for as long as any node may.
    pub fn expect(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let seen = self.clock.monotonic();
        let mut inner = self.lock();
        for node in nodes {
            inner.rows.entry(node).or_insert(Row { durable: None, highest: None, seen, stream: None, level: FeatureLevel::default() });
        }
    }

    /// Waits until all nodes that count hold `position`, and there is at least one. The caller sets the deadline. Safe to cancel.
    pub async fn wait_live(&self, position: Position, counts: impl Fn(NodeId) -> bool) -> Liveness {
        let mut changed = self.changed.changes();
        loop {
            let now = self.live(position, &counts);
            if now.complete() {
                return now;
            }
            changed.changed().await;
        }
    }

    /// Moves whenever a watermark, a stream or a row changes.
    pub fn subscribe(&self) -> Changes<u64> {
        self.changed.changes()
    }

    /// Has `hears` called with each acknowledgement, on the stream's own task, for measuring: it must return at once. The first
    /// call counts.
    pub fn on_acknowledged(&self, hears: impl Fn(NodeId, Position) + Send + Sync + 'static) {
        let _ = self.hears.set(Box::new(hears));
    }

    /// All rows in the order of node numbers.
    pub fn rows(&self) -> Vec<AckRow> {
        let now = self.clock.monotonic();
        let inner = self.lock();
        let row = |(node, row): (&NodeId, &Row)| AckRow {
            node: *node,
            durable: row.durable,
            connected: row.stream.is_some(),
            unseen_for: if row.stream.is_some() { Duration::ZERO } else { now.saturating_sub(row.seen) },
            level: row.level,
        };
        inner.rows.iter().map(row).collect()
    }

    /// The highest position that an edge is known to hold: a recovery of the control plane must start above it.
    pub fn highest(&self) -> Option<Position> {
        self.lock().rows.values().filter_map(|row| row.highest).max()
    }

    /// Forgets a node, when it is removed from the registry.
    pub fn forget(&self, node: NodeId) {
        self.lock().rows.remove(&node);
        self.moved();
    }

    /// A node opens a stream and says what it holds.
    pub(crate) fn claim(self: &Arc<Self>, node: NodeId, durable: Option<Position>, level: FeatureLevel) -> (StreamClaim, Presented) {
        let now = self.clock.monotonic();
        let mut inner = self.lock();
        inner.streams += 1;
        let stream = inner.streams;
        if !inner.rows.contains_key(&node) && inner.rows.len() >= self.options.nodes_max {
            let idle = inner.rows.iter().filter(|(_, row)| row.stream.is_none());
            if let Some(oldest) = idle.min_by_key(|(_, row)| row.seen).map(|(node, _)| *node) {
                inner.rows.remove(&oldest);
            }
        }
        let row = inner.rows.entry(node).or_insert(Row { durable: None, highest: None, seen: now, stream: None, level });
        let presented =
            Presented { went_back_from: row.highest.filter(|highest| durable < Some(*highest)), duplicate: row.stream.is_some() };
        *row = Row { durable, highest: row.highest.max(durable), seen: now, stream: Some(stream), level };
        drop(inner);
        self.moved();
        (StreamClaim { acks: self.clone(), node, stream }, presented)
    }

    fn active(&self, row: &Row, now: Duration) -> bool {
        row.stream.is_some() || now.saturating_sub(row.seen) <= self.options.active_for
    }

    fn moved(&self) {
        self.changed.change(|version| *version = version.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamClaim {
    /// Records a durable watermark. False when a newer stream of the node has taken over: this one must end.
    pub(crate) fn acknowledge(&self, durable: Position, level: FeatureLevel) -> bool {
        if let Some(hears) = self.acks.hears.get() {
            hears(self.node, durable);
        }
        let now = self.acks.clock.monotonic();
        let mut inner = self.acks.lock();
        let Some(row) = inner.rows.get_mut(&self.node).filter(|row| row.stream == Some(self.stream)) else {
            return false;
        };
        *row = Row { durable: row.durable.max(Some(durable)), highest: row.highest.max(Some(durable)), seen: now, level, ..*row };
        drop(inner);
        self.acks.moved();
        true
    }

    /// Whether this is still the node's newest stream.
    pub(crate) fn stands(&self) -> bool {
        self.acks.lock().rows.get(&self.node).is_some_and(|row| row.stream == Some(self.stream))
    }

    /// Completes when a newer stream of the node has taken over. Safe to cancel.
    pub(crate) async fn superseded(&self) {
        let mut changed = self.acks.changed.changes();
        while self.stands() {
            changed.changed().await;
        }
    }
}

impl Drop for StreamClaim {
    fn drop(&mut self) {
        let now = self.acks.clock.monotonic();
        if let Some(row) = self.acks.lock().rows.get_mut(&self.node).filter(|row| row.stream == Some(self.stream)) {
            row.stream = None;
            row.seen = now;
        }
        self.acks.moved();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use seams::sim::ManualClock;
    use types::{Generation, Revision, UnixMillis};

    use super::*;

    fn at(revision: u64) -> Position {
        Position::new(Generation::new(1), Revision::new(revision))
    }

    const LEVEL: FeatureLevel = FeatureLevel::new(1);

    fn table() -> (Arc<ManualClock>, Arc<Acks>) {
        let clock = Arc::new(ManualClock::at(UnixMillis::new(0)));
        (clock.clone(), Acks::new(AcksOptions { nodes_max: 3, ..AcksOptions::default() }, clock))
    }

    #[test]
    fn acks_count_connected_and_recent_nodes() {
        let (clock, acks) = table();
        let (one, _) = acks.claim(NodeId::new(1), None, LEVEL);
        let (two, _) = acks.claim(NodeId::new(2), Some(at(5)), LEVEL);
        assert_eq!(acks.live(at(5), |_| true), Liveness { live: 1, of: 2 });
        assert!(one.acknowledge(at(5), LEVEL));
        assert_eq!(acks.live(at(5), |_| true), Liveness { live: 2, of: 2 });
        assert_eq!(acks.live(at(6), |node| node == NodeId::new(1)), Liveness { live: 0, of: 1 });
        drop(two);
        clock.advance(Duration::from_secs(601));
        assert_eq!(
            acks.live(at(5), |_| true),
            Liveness { live: 1, of: 1 },
            "a connected node counts however quiet, a gone one for ten minutes"
        );
    }

    #[test]
    fn acks_wait_ends_with_the_last_acknowledgement() {
        let (_, acks) = table();
        let (one, _) = acks.claim(NodeId::new(1), None, LEVEL);
        let (two, _) = acks.claim(NodeId::new(2), None, LEVEL);
        let mut wait = Box::pin(acks.wait_live(at(3), |_| true));
        assert!(wait.as_mut().now_or_never().is_none());
        one.acknowledge(at(3), LEVEL);
        assert!(wait.as_mut().now_or_never().is_none());
        two.acknowledge(at(4), LEVEL);
        assert_eq!(wait.as_mut().now_or_never(), Some(Liveness { live: 2, of: 2 }));
    }

    #[test]
    fn acks_presenting_less_or_twice_is_told_and_the_newest_stream_counts() {
        let (_, acks) = table();
        let (old, first) = acks.claim(NodeId::new(1), Some(at(9)), LEVEL);
        assert_eq!(first, Presented::default());
        let (new, second) = acks.claim(NodeId::new(1), None, LEVEL);
        assert_eq!(second, Presented { went_back_from: Some(at(9)), duplicate: true });
        assert!(!old.acknowledge(at(10), LEVEL));
        assert!(old.superseded().now_or_never().is_some());
        assert_eq!(acks.live(at(1), |_| true), Liveness { live: 0, of: 1 }, "the lost disk counts as lost");
        drop(old);
        assert!(new.stands(), "the old stream's end does not end the new one's claim");
        assert_eq!(acks.highest(), Some(at(9)));
    }

    #[test]
    fn acks_full_table_drops_the_row_longest_unseen() {
        let (clock, acks) = table();
        for node in 1..=3 {
            drop(acks.claim(NodeId::new(node), Some(at(1)), LEVEL));
            clock.advance(Duration::from_secs(1));
        }
        let _four = acks.claim(NodeId::new(4), Some(at(1)), LEVEL);
        assert_eq!(acks.rows().iter().map(|row| row.node.get()).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
