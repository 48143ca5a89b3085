//! What the subscribers of all control nodes hold, known at each of them.
//!
//! An edge follows one control node, and only that one hears its acknowledgements; a receipt asked for anywhere has to count all of
//! them. So each control node tells the others of its own subscribers ([`Telling`]: all rows, then changes, at most every
//! 100 ms) and merges what it is told into [`feed::Acks`] ([`listen`]). What is computed from there (receipts, the status of a secret,
//! `status`, `fleet`) is then the same at every node, but for those 100 ms and the way.
//!
//! **Invariants**
//! 1. A node tells only what its own subscribers told it: nothing is passed on, so nothing goes in circles.
//! 2. A node that is silent for [`SILENCE_MAX`] counts as gone: its subscribers stand as last reported, and age from then on. Until they
//!    are found elsewhere or are ten minutes old, a receipt waits for them.
//! 3. While a node is silent here and heard by another control node that is heard here, nothing counts as live everywhere: it lives, and
//!    what its subscribers hold is not known ([`Standings::heard_elsewhere`]). One that nobody hears holds nothing up.
//!
//! **Concurrency**: one task listens to all others; one stream a listener on the other side.
//!
//! **Failure**: soft state. Whatever breaks is begun anew with all rows after a pause with jitter.
//!
//! **Left out**: passing on for nodes that can't reach each other: a control node that can't reach another one does not know what
//! happens at that one's subscribers, and says "pending" until it does.

mod calls;
mod listen;
mod service;
mod standings;
mod tell;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use feed::{Acks, Report};
use futures::future::BoxFuture;
use runtime::tls::ServerTls;
use seams::{Clock, DialError, RecvHalf};
use types::{FeatureLevel, Generation, NodeId, Position, Revision, UnixMillis};
use wire::internal;

use crate::core::Core;

pub(crate) use self::{calls::Members, listen::listen, service::PeersService, standings::Standings, tell::Telling};

/// Rows in one message: about 64 KiB.
const ROWS_MAX: usize = 1000;
/// Two messages that tell of changes are at least this far apart.
const EVERY: Duration = Duration::from_millis(100);
/// Without a change, a message comes this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A control node that is silent for so long counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How other control nodes are reached.
pub(crate) trait PeerCalls: Send + Sync + 'static {
    /// The other control nodes of this moment: in the registry, and not revoked. Cheap: it is asked every second.
    fn others(&self) -> Vec<NodeId>;

    /// Opens the stream of what `node`'s subscribers hold.
    fn watermarks(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn RecvHalf<internal::WatermarksReply>>, DialError>>;
}

/// How a control node stands, as it tells others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What it has applied.
    pub(crate) applied: Position,
    /// The highest feature level that it knows.
    pub(crate) level: FeatureLevel,
    /// Whether it has its keys.
    pub(crate) unlocked: bool,
    /// When its certificate ends.
    pub(crate) certificate_ends: Option<UnixMillis>,
}

/// What both sides of the exchange work with.
pub(crate) struct Exchange {
    pub(crate) node: NodeId,
    pub(crate) acks: Arc<Acks>,
    pub(crate) standings: Arc<Standings>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How this node stands now.
    pub(crate) own: Box<dyn Fn() -> Standing + Send + Sync>,
}

impl Exchange {
    /// The exchange of a running node.
    pub(crate) fn of(core: &Arc<Core>, tls: ServerTls) -> Arc<Self> {
        let standing = core.clone();
        let own = move || Standing {
            applied: standing.consensus.local().position(),
            level: standing.level_max,
            unlocked: !standing.ring.is_locked(),
            // Looked up each time: certificates are renewed while the node runs.
            certificate_ends: Some(tls.own().not_after),
        };
        Arc::new(Self {
            node: core.node,
            acks: core.publisher.acks().clone(),
            standings: core.standings.clone(),
            clock: core.clock.clone(),
            own: Box::new(own),
        })
    }

    /// What the own subscribers have said since the version `after`, and the version up to which that is.
    fn reply(&self, after: u64) -> (internal::WatermarksReply, u64) {
        let (reports, version) = self.acks.own_reports(after, ROWS_MAX);
        let own = (self.own)();
        let rows = reports.iter().map(|report| internal::Watermark {
            node: report.node.get(),
            durable: report.durable.map(position_out),
            connected: report.connected,
            heard_ms_ago: millis(report.heard_ago),
            claimed_ms_ago: millis(report.claimed_ago),
            feature_level: report.level.get(),
            certificate_ends_ms: self.standings.certificate_ends(report.node).map_or(0, UnixMillis::get),
        });
        let standing = internal::ControlStanding {
            applied: Some(position_out(own.applied)),
            feature_level: own.level.get(),
            unlocked: own.unlocked,
            certificate_ends_ms: own.certificate_ends.map_or(0, UnixMillis::get),
            hears: self.standings.hears().into_iter().map(NodeId::get).collect(),
        };
        (internal::WatermarksReply { rows: rows.collect(), standing: Some(standing) }, version)
    }

    /// Takes in what `from` told.
    fn take(&self, from: NodeId, reply: internal::WatermarksReply) {
        let reports: Vec<Report> = reply.rows.iter().map(report).collect();
        for row in &reply.rows {
            self.standings.certificate(NodeId::new(row.node), ends(row.certificate_ends_ms));
        }
        if let Some(told) = reply.standing {
            let standing = Standing {
                applied: told.applied.map(position_in).unwrap_or_default(),
                level: FeatureLevel::new(told.feature_level),
                unlocked: told.unlocked,
                certificate_ends: ends(told.certificate_ends_ms),
            };
            self.standings.heard(from, standing, told.hears.into_iter().map(NodeId::new), self.clock.monotonic());
        }
        self.acks.merge(from, &reports);
    }

    /// `from` is not heard any more.
    fn lost(&self, from: NodeId) {
        self.acks.lost(from);
        self.standings.lost(from, self.clock.monotonic());
    }
}

fn report(row: &internal::Watermark) -> Report {
    Report {
        node: NodeId::new(row.node),
        durable: row.durable.map(position_in),
        connected: row.connected,
        heard_ago: Duration::from_millis(row.heard_ms_ago),
        claimed_ago: Duration::from_millis(row.claimed_ms_ago),
        level: FeatureLevel::new(row.feature_level),
    }
}

fn ends(ms: u64) -> Option<UnixMillis> {
    (ms != 0).then(|| UnixMillis::new(ms))
}

fn position_in(position: internal::FeedPosition) -> Position {
    Position::new(Generation::new(position.generation), Revision::new(position.revision))
}

fn position_out(position: Position) -> internal::FeedPosition {
    internal::FeedPosition { generation: position.generation.get(), revision: position.revision.get() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
