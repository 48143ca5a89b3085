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
use tokio::sync::Notify;
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
    stream: Option<Stream>,
    level: FeatureLevel,
}

impl Row {
    fn is_of(&self, number: u64) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.number == number)
    }

    /// Tells the stream that it counts no more. The permit waits for it where it does not listen yet.
    fn supersede(&self) {
        if let Some(stream) = &self.stream {
            stream.superseded.notify_one();
        }
    }
}

/// The stream that counts for a row.
struct Stream {
    number: u64,
    /// Its own, so that an acknowledgement of one node wakes nobody who waits for another's end.
    superseded: Arc<Notify>,
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
    superseded: Arc<Notify>,
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
            // While one is behind, the count is not looked at again: else a thousand acknowledgements would look at a thousand rows
            // each, for everyone who waits. Whoever is lowest goes rarely, a handful of times among a thousand in any order.
            let behind = self.first_behind(position, &counts);
            changed.changed().await;
            while behind.is_some_and(|node| self.is_behind(node, position)) {
                changed.changed().await;
            }
        }
    }

    /// The lowest node that counts, passes `counts`, and does not hold `position` durably.
    fn first_behind(&self, position: Position, counts: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let now = self.clock.monotonic();
        let inner = self.lock();
        let mut behind = inner.rows.iter().filter(|(_, row)| self.active(row, now) && row.durable < Some(position));
        behind.find(|(node, _)| counts(**node)).map(|(node, _)| *node)
    }

    fn is_behind(&self, node: NodeId, position: Position) -> bool {
        let now = self.clock.monotonic();
        self.lock().rows.get(&node).is_some_and(|row| self.active(row, now) && row.durable < Some(position))
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
        if let Some(row) = self.lock().rows.remove(&node) {
            row.supersede();
        }
        self.moved();
    }

    /// A node opens a stream; what it holds is [presented](StreamClaim::present) when its history is known to be this one. True when
    /// it has another stream here, which is cut in favour of this one: an alarm.
    pub(crate) fn claim(self: &Arc<Self>, node: NodeId, level: FeatureLevel) -> (StreamClaim, bool) {
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
        let duplicate = row.stream.is_some();
        row.supersede();
        let superseded = Arc::new(Notify::new());
        let counts = Stream { number: stream, superseded: superseded.clone() };
        *row = Row { durable: None, highest: row.highest, seen: now, stream: Some(counts), level };
        drop(inner);
        self.moved();
        (StreamClaim { acks: self.clone(), node, stream, superseded }, duplicate)
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
    /// The node.
    pub(crate) const fn node(&self) -> NodeId {
        self.node
    }

    /// The node holds `held`, and its readers see it if `shown`; only then does it count as durable. Returns what it once acknowledged
    /// when that is more: its disk was lost or restored from a copy, or it lied. An alarm, and nothing that keeps it from being healed.
    pub(crate) fn present(&self, held: Option<Position>, shown: bool) -> Option<Position> {
        let mut inner = self.acks.lock();
        let row = inner.rows.get_mut(&self.node).filter(|row| row.is_of(self.stream))?;
        let went_back_from = row.highest.filter(|highest| held < Some(*highest));
        if shown {
            row.durable = row.durable.max(held);
            row.highest = row.highest.max(held);
        }
        drop(inner);
        self.acks.moved();
        went_back_from
    }

    /// Records a durable watermark. False when a newer stream of the node has taken over: this one must end.
    pub(crate) fn acknowledge(&self, durable: Position, level: FeatureLevel) -> bool {
        if let Some(hears) = self.acks.hears.get() {
            hears(self.node, durable);
        }
        let now = self.acks.clock.monotonic();
        let mut inner = self.acks.lock();
        let Some(row) = inner.rows.get_mut(&self.node).filter(|row| row.is_of(self.stream)) else {
            return false;
        };
        row.durable = row.durable.max(Some(durable));
        row.highest = row.highest.max(Some(durable));
        row.seen = now;
        row.level = level;
        drop(inner);
        self.acks.moved();
        true
    }

    /// Whether this is still the node's newest stream.
    pub(crate) fn stands(&self) -> bool {
        self.acks.lock().rows.get(&self.node).is_some_and(|row| row.is_of(self.stream))
    }

    /// Completes when a newer stream of the node has taken over. Safe to cancel.
    pub(crate) async fn superseded(&self) {
        while self.stands() {
            self.superseded.notified().await;
        }
    }
}

impl Drop for StreamClaim {
    fn drop(&mut self) {
        let now = self.acks.clock.monotonic();
        if let Some(row) = self.acks.lock().rows.get_mut(&self.node).filter(|row| row.is_of(self.stream)) {
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
        let (one, _) = acks.claim(NodeId::new(1), LEVEL);
        let (two, _) = acks.claim(NodeId::new(2), LEVEL);
        two.present(Some(at(5)), true);
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
        let (one, _) = acks.claim(NodeId::new(1), LEVEL);
        let (two, _) = acks.claim(NodeId::new(2), LEVEL);
        let mut wait = Box::pin(acks.wait_live(at(3), |_| true));
        assert!(wait.as_mut().now_or_never().is_none());
        one.acknowledge(at(3), LEVEL);
        assert!(wait.as_mut().now_or_never().is_none());
        two.acknowledge(at(4), LEVEL);
        assert_eq!(wait.as_mut().now_or_never(), Some(Liveness { live: 2, of: 2 }));
    }

    #[test]
    fn acks_wait_ends_whichever_comes_last_and_when_the_last_one_behind_counts_no_more() {
        let (clock, acks) = table();
        let (one, _) = acks.claim(NodeId::new(1), LEVEL);
        let (two, _) = acks.claim(NodeId::new(2), LEVEL);
        let mut wait = Box::pin(acks.wait_live(at(3), |_| true));
        assert!(wait.as_mut().now_or_never().is_none());
        two.acknowledge(at(3), LEVEL);
        assert!(wait.as_mut().now_or_never().is_none());
        one.acknowledge(at(3), LEVEL);
        assert_eq!(wait.as_mut().now_or_never(), Some(Liveness { live: 2, of: 2 }));

        let mut wait = Box::pin(acks.wait_live(at(4), |_| true));
        assert!(wait.as_mut().now_or_never().is_none());
        drop(one);
        two.acknowledge(at(4), LEVEL);
        assert!(wait.as_mut().now_or_never().is_none(), "gone for a moment only");
        clock.advance(Duration::from_secs(601));
        two.acknowledge(at(5), LEVEL);
        assert_eq!(wait.as_mut().now_or_never(), Some(Liveness { live: 1, of: 1 }));
    }

    #[test]
    fn acks_presenting_less_or_twice_is_told_and_the_newest_stream_counts() {
        let (_, acks) = table();
        let (old, duplicate) = acks.claim(NodeId::new(1), LEVEL);
        assert_eq!((duplicate, old.present(Some(at(9)), true)), (false, None));
        let (new, duplicate) = acks.claim(NodeId::new(1), LEVEL);
        assert_eq!((duplicate, new.present(None, true)), (true, Some(at(9))));
        assert_eq!(old.present(Some(at(9)), true), None);
        assert!(!old.acknowledge(at(10), LEVEL));
        assert!(old.superseded().now_or_never().is_some());
        assert_eq!(acks.live(at(1), |_| true), Liveness { live: 0, of: 1 }, "the lost disk counts as lost");
        drop(old);
        assert!(new.stands(), "the old stream's end does not end the new one's claim");
        assert_eq!(acks.highest(), Some(at(9)));
    }

    #[test]
    fn acks_count_only_what_is_presented_and_shown() {
        let (_, acks) = table();
        let (one, _) = acks.claim(NodeId::new(1), LEVEL);
        assert_eq!(acks.live(at(1), |_| true), Liveness { live: 0, of: 1 }, "its history was not compared yet");
        assert_eq!(one.present(Some(at(5)), false), None);
        assert_eq!(acks.live(at(1), |_| true), Liveness { live: 0, of: 1 }, "its readers do not see it");
        assert_eq!(one.present(Some(at(5)), true), None);
        assert_eq!(acks.live(at(5), |_| true), Liveness { live: 1, of: 1 });
    }

    #[test]
    fn acks_of_one_node_wake_no_other_nodes_stream() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let (_, acks) = table();
        let (one, _) = acks.claim(NodeId::new(1), LEVEL);
        let (two, _) = acks.claim(NodeId::new(2), LEVEL);
        let woken = Arc::new(Woken(false.into()));
        let waker = woken.clone().into();
        let mut context = std::task::Context::from_waker(&waker);
        let mut waiting = Box::pin(one.superseded());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        two.acknowledge(at(1), LEVEL);
        one.acknowledge(at(1), LEVEL);
        assert!(!woken.0.load(std::sync::atomic::Ordering::Relaxed));
        acks.forget(NodeId::new(1));
        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed));
        assert!(waiting.as_mut().poll(&mut context).is_ready(), "who is forgotten is superseded too");
    }

    #[test]
    fn acks_full_table_drops_the_row_longest_unseen() {
        let (clock, acks) = table();
        for node in 1..=3 {
            drop(acks.claim(NodeId::new(node), LEVEL));
            clock.advance(Duration::from_secs(1));
        }
        let _four = acks.claim(NodeId::new(4), LEVEL);
        assert_eq!(acks.rows().iter().map(|row| row.node.get()).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
