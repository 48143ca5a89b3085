//! What each edge has reported as durable, here or to another control node, and who waits for it.
//!
//! One row a node: its durable watermark, when it was last seen, and which of its streams counts. A receipt ("version 7 is live on
//! 2 of 2 edges") is a count over the rows; whoever waits for one waits for the changes that every acknowledgement makes. Control
//! nodes tell each other of their own subscribers ([`Acks::own_reports`], [`Acks::merge`]), so the count is the same at each.
//!
//! **Invariants**
//! 1. A row's watermark is what the node's newest stream reported, at whichever control node, never an older stream's: an edge
//!    whose disk was lost counts as behind from the moment it says so, and one that changes its upstream is one edge.
//! 2. At most `nodes_max` rows; when full, the row longest unseen and without a stream gives way. A row holds at most one report of
//!    each control node.
//! 3. What another node reported of a subscriber outlives that node, and ages from the moment it was lost.
//!
//! **Concurrency**: one short lock, never held across an await.

mod row;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use seams::Clock;
use tokio::sync::Notify;
use types::{FeatureLevel, NodeId, Position};

use self::row::{Moment, Own, Row, Said, Stream, moment, since};
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

/// Where a node's stream is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// At this process.
    Here,
    /// At another control node, which reported it.
    Node(NodeId),
    /// Nowhere that is known.
    Nowhere,
}

/// One node's row, as others may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRow {
    /// The node.
    pub node: NodeId,
    /// Its durable watermark; none before it holds anything.
    pub durable: Option<Position>,
    /// Where its stream is open.
    pub via: Via,
    /// Whether it has a stream now.
    pub connected: bool,
    /// Whether a receipt waits for it, if the registry says that it may count.
    pub active: bool,
    /// How long ago it was last seen; zero while it has a stream, none when no process that lives has seen it.
    pub unseen_for: Option<Duration>,
    /// The highest feature level it knows.
    pub level: FeatureLevel,
}

/// What one control node tells another of one of its own subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The subscriber.
    pub node: NodeId,
    /// Its durable watermark on the newest stream there; none before it said so.
    pub durable: Option<Position>,
    /// Whether that stream is open.
    pub connected: bool,
    /// How long ago it was heard.
    pub heard_ago: Duration,
    /// How long ago that stream began.
    pub claimed_ago: Duration,
    /// The highest feature level it knows.
    pub level: FeatureLevel,
}

#[derive(Default)]
struct Inner {
    rows: BTreeMap<NodeId, Row>,
    streams: u64,
    /// The last version given to an own row.
    version: u64,
    /// Own rows by their versions.
    changes: BTreeMap<u64, NodeId>,
}

impl Inner {
    /// The row of a node; of a new one only after room was made for it.
    fn row(&mut self, node: NodeId, nodes_max: usize) -> &mut Row {
        if !self.rows.contains_key(&node) && self.rows.len() >= nodes_max {
            let idle = self.rows.iter().filter(|(_, row)| row.via() == Via::Nowhere);
            if let Some(oldest) = idle.min_by_key(|(_, row)| row.last()).map(|(node, _)| *node) {
                self.remove(oldest);
            }
        }
        self.rows.entry(node).or_default()
    }

    fn remove(&mut self, node: NodeId) -> Option<Row> {
        let row = self.rows.remove(&node)?;
        if let Some(own) = &row.own {
            self.changes.remove(&own.version);
        }
        Some(row)
    }

    /// The own part of a row has changed: others are to be told.
    fn touch(&mut self, node: NodeId) {
        self.version += 1;
        if let Some(own) = self.rows.get_mut(&node).and_then(|row| row.own.as_mut()) {
            self.changes.remove(&own.version);
            own.version = self.version;
            self.changes.insert(self.version, node);
        }
    }
}

/// The table. Shared by all streams of a process.
pub struct Acks {
    options: AcksOptions,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    changed: Changing<u64>,
    /// Moves with the own rows alone, so that what came from others is not sent on.
    own_changed: Changing<u64>,
    hears: OnceLock<Box<Hears>>,
}

/// Who hears of each acknowledgement.
type Hears = dyn Fn(NodeId, Position) + Send + Sync;

/// A stream's place in the table; dropping it ends the stream's claim.
pub struct StreamClaim {
    acks: Arc<Acks>,
    node: NodeId,
    stream: u64,
    superseded: Arc<Notify>,
}

impl Acks {
    /// An empty table.
    pub fn new(options: AcksOptions, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (changed, own_changed) = (Changing::new(0), Changing::new(0));
        Arc::new(Self { options, clock, inner: Mutex::default(), changed, own_changed, hears: OnceLock::new() })
    }

    /// How many nodes that count, and pass `counts` (not revoked, an edge), hold `position` durably.
    pub fn live(&self, position: Position, counts: impl Fn(NodeId) -> bool) -> Liveness {
        let now = self.now();
        let inner = self.lock();
        let active = inner.rows.iter().filter(|(node, row)| self.active(row, now) && counts(**node));
        active.fold(Liveness::default(), |sum, (_, row)| Liveness {
            live: sum.live + usize::from(row.durable() >= Some(position)),
            of: sum.of + 1,
        })
    }

    /// Counts nodes as seen now that have not come yet, after a start of this process: what they hold is not known, so nothing
    /// is live everywhere until they have said so or stayed away for as long as any node may.
    pub fn expect(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let now = self.now();
        let mut inner = self.lock();
        for node in nodes {
            let row = inner.row(node, self.options.nodes_max);
            if row.heard().is_none() {
                row.expected = Some(now);
            }
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

    /// The lowest node that counts, passes `counts`, and does not hold `position` durably. Looks at rows until it has found one: cheap
    /// for a position that few hold yet.
    pub fn first_behind(&self, position: Position, counts: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let now = self.now();
        let inner = self.lock();
        let mut behind = inner.rows.iter().filter(|(_, row)| self.active(row, now) && row.durable() < Some(position));
        behind.find(|(node, _)| counts(**node)).map(|(node, _)| *node)
    }

    fn is_behind(&self, node: NodeId, position: Position) -> bool {
        let now = self.now();
        self.lock().rows.get(&node).is_some_and(|row| self.active(row, now) && row.durable() < Some(position))
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
        let now = self.now();
        self.lock().rows.iter().map(|(node, row)| self.shown(*node, row, now)).collect()
    }

    /// The row of one node; none when nothing was heard of it and nothing is expected.
    pub fn row(&self, node: NodeId) -> Option<AckRow> {
        let now = self.now();
        self.lock().rows.get(&node).map(|row| self.shown(node, row, now))
    }

    fn shown(&self, node: NodeId, row: &Row, now: Moment) -> AckRow {
        let via = row.via();
        let connected = via != Via::Nowhere;
        AckRow {
            node,
            durable: row.durable(),
            via,
            connected,
            active: self.active(row, now),
            unseen_for: if connected { Some(Duration::ZERO) } else { row.heard().map(|heard| since(now, heard)) },
            level: row.level(),
        }
    }

    /// The highest position that an edge is known to hold: a recovery of the control plane must start above it.
    pub fn highest(&self) -> Option<Position> {
        self.lock().rows.values().filter_map(|row| row.highest).max()
    }

    /// Forgets a node, when it is removed from the registry.
    pub fn forget(&self, node: NodeId) {
        if let Some(row) = self.lock().remove(node) {
            row.supersede();
        }
        self.moved();
    }

    /// What this process's own subscribers have said after the version `after` (0: all), at most `most` of them, the longest
    /// unchanged first, and the version up to which this is.
    pub fn own_reports(&self, after: u64, most: usize) -> (Vec<Report>, u64) {
        let now = self.now();
        let inner = self.lock();
        let changed = inner.changes.range(after.saturating_add(1)..).take(most);
        let (mut reports, mut version) = (Vec::new(), after);
        for (changed, node) in changed {
            version = *changed;
            let Some(own) = inner.rows.get(node).and_then(|row| row.own.as_ref()) else { continue };
            reports.push(Report {
                node: *node,
                durable: own.said.durable,
                connected: own.said.connected,
                heard_ago: since(now, own.said.heard),
                claimed_ago: since(now, own.said.claimed),
                level: own.said.level,
            });
        }
        (reports, version)
    }

    /// Moves whenever there is more for [`Acks::own_reports`].
    pub fn subscribe_own(&self) -> Changes<u64> {
        self.own_changed.changes()
    }

    /// Takes in what another control node says of its own subscribers. A node with a stream here and one there that both live is an
    /// alarm: two machines run with one identity.
    pub fn merge(&self, reporter: NodeId, reports: &[Report]) {
        let now = self.now();
        let mut inner = self.lock();
        let mut doubled = Vec::new();
        for report in reports {
            if inner.row(report.node, self.options.nodes_max).merge(reporter, report, now) {
                doubled.push(report.node);
            }
        }
        drop(inner);
        for node in doubled {
            metrics::counter!("cinnabar_feed_duplicate_streams_total").increment(1);
            tracing::error!(%node, at = %reporter, "one node id has a stream here and another at another control node, and both live: two machines run with its identity. Revoke it, and enrol both anew");
        }
        if !reports.is_empty() {
            self.moved();
        }
    }

    /// Another control node is gone, or can't be reached: what it said stands and ages from now on.
    pub fn lost(&self, reporter: NodeId) {
        let now = self.now();
        let mut inner = self.lock();
        let changed = inner.rows.values_mut().filter_map(|row| row.lost(reporter, now).then_some(())).count();
        drop(inner);
        if changed > 0 {
            self.moved();
        }
    }

    /// A node opens a stream; what it holds is presented (`StreamClaim::present`) when its history is known to be this one. True when
    /// it has another stream here, which is cut in favour of this one: an alarm.
    pub fn claim(self: &Arc<Self>, node: NodeId, level: FeatureLevel) -> (StreamClaim, bool) {
        let now = self.now();
        let mut inner = self.lock();
        inner.streams += 1;
        let stream = inner.streams;
        let superseded = Arc::new(Notify::new());
        let counts = Stream { number: stream, superseded: superseded.clone() };
        let said = Said { durable: None, connected: true, heard: now, claimed: now, level };
        let row = inner.row(node, self.options.nodes_max);
        row.supersede();
        let before = row.own.take();
        let duplicate = before.as_ref().is_some_and(|own| own.stream.is_some());
        // The version of before, so that it leaves the index with the new one.
        row.own = Some(Own { said, stream: Some(counts), version: before.map_or(0, |own| own.version) });
        inner.touch(node);
        drop(inner);
        self.own_moved();
        (StreamClaim { acks: self.clone(), node, stream, superseded }, duplicate)
    }

    fn active(&self, row: &Row, now: Moment) -> bool {
        row.active(now, self.options.active_for)
    }

    fn now(&self) -> Moment {
        moment(self.clock.monotonic())
    }

    fn moved(&self) {
        self.changed.change(|version| *version = version.wrapping_add(1));
    }

    fn own_moved(&self) {
        self.own_changed.change(|version| *version = version.wrapping_add(1));
        self.moved();
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
            row.highest = row.highest.max(held);
            if let Some(own) = &mut row.own {
                own.said.durable = own.said.durable.max(held);
            }
            inner.touch(self.node);
        }
        drop(inner);
        self.acks.own_moved();
        went_back_from
    }

    /// Records a durable watermark. False when a newer stream of the node has taken over: this one must end.
    pub fn acknowledge(&self, durable: Position, level: FeatureLevel) -> bool {
        if let Some(hears) = self.acks.hears.get() {
            hears(self.node, durable);
        }
        let now = self.acks.now();
        let mut inner = self.acks.lock();
        let Some(row) = inner.rows.get_mut(&self.node) else { return false };
        let Some(own) = row.own_of(self.stream) else { return false };
        own.said = Said { durable: own.said.durable.max(Some(durable)), heard: now, level, ..own.said };
        row.highest = row.highest.max(Some(durable));
        inner.touch(self.node);
        drop(inner);
        self.acks.own_moved();
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
        let now = self.acks.now();
        let mut inner = self.acks.lock();
        if let Some(own) = inner.rows.get_mut(&self.node).and_then(|row| row.own_of(self.stream)) {
            own.stream = None;
            own.said = Said { connected: false, heard: now, ..own.said };
            inner.touch(self.node);
        }
        drop(inner);
        self.acks.own_moved();
    }
}

#[cfg(test)]
mod tests;
