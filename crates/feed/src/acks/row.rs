//! One node's row: what its own stream here said, what other control nodes reported of theirs, and which of these counts.
//!
//! Of several streams of one node the open one counts, of several open ones the newest. Moments are milliseconds of this process's
//! monotonic clock, below zero for what was before its start: a report tells how long ago something was, so no two clocks are compared.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use types::{FeatureLevel, NodeId, Position};

use super::{Report, Via};

/// Milliseconds of the monotonic clock; below zero before this process began.
pub(super) type Moment = i64;

/// How much later than the newer stream's beginning the older one must have been heard, to prove that both live: more than what a
/// report's way adds.
const BOTH_LIVE_MS: i64 = 1000;

pub(super) fn moment(now: Duration) -> Moment {
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn ago(now: Moment, duration: Duration) -> Moment {
    now.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn since(now: Moment, then: Moment) -> Duration {
    Duration::from_millis(u64::try_from(now.saturating_sub(then)).unwrap_or_default())
}

/// What a stream of the node said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) durable: Option<Position>,
    pub(super) connected: bool,
    pub(super) heard: Moment,
    pub(super) claimed: Moment,
    pub(super) level: FeatureLevel,
}

/// What the node's newest stream at this process said.
pub(super) struct Own {
    pub(super) said: Said,
    pub(super) stream: Option<Stream>,
    /// Rises with each change, over all rows: by it others are told what is new.
    pub(super) version: u64,
}

/// The stream that counts at this process.
pub(super) struct Stream {
    pub(super) number: u64,
    /// Its own, so that an acknowledgement of one node wakes nobody who waits for another's end.
    pub(super) superseded: Arc<Notify>,
}

#[derive(Default)]
pub(super) struct Row {
    pub(super) own: Option<Own>,
    /// At most one a reporter.
    remote: Vec<(NodeId, Said)>,
    /// The highest it ever acknowledged, to whomever.
    pub(super) highest: Option<Position>,
    /// When it was counted as seen without having come.
    pub(super) expected: Option<Moment>,
    /// Two streams of it were seen to live at once, and it was told.
    doubled: bool,
}

impl Row {
    /// The process's own stream, if it is this one.
    pub(super) fn own_of(&mut self, number: u64) -> Option<&mut Own> {
        self.own.as_mut().filter(|own| own.stream.as_ref().is_some_and(|stream| stream.number == number))
    }

    pub(super) fn is_of(&self, number: u64) -> bool {
        self.own.as_ref().and_then(|own| own.stream.as_ref()).is_some_and(|stream| stream.number == number)
    }

    /// Tells the process's own stream that it counts no more. The permit waits for it where it does not listen yet.
    pub(super) fn supersede(&self) {
        if let Some(stream) = self.own.as_ref().and_then(|own| own.stream.as_ref()) {
            stream.superseded.notify_one();
        }
    }

    fn all(&self) -> impl Iterator<Item = (Via, &Said)> {
        let remote = self.remote.iter().map(|(reporter, said)| (Via::Node(*reporter), said));
        self.own.iter().map(|own| (Via::Here, &own.said)).chain(remote)
    }

    /// The stream that counts, and where it is.
    pub(super) fn newest(&self) -> Option<(Via, &Said)> {
        self.all().max_by_key(|(_, said)| (said.connected, said.claimed, said.durable))
    }

    pub(super) fn durable(&self) -> Option<Position> {
        self.newest().and_then(|(_, said)| said.durable)
    }

    pub(super) fn level(&self) -> FeatureLevel {
        self.newest().map(|(_, said)| said.level).unwrap_or_default()
    }

    /// Where its stream is open.
    pub(super) fn via(&self) -> Via {
        self.newest().filter(|(_, said)| said.connected).map_or(Via::Nowhere, |(via, _)| via)
    }

    /// When it was last heard, by whomever. None: never.
    pub(super) fn heard(&self) -> Option<Moment> {
        self.all().map(|(_, said)| said.heard).max()
    }

    /// When it last counted as there.
    pub(super) fn last(&self) -> Moment {
        self.heard().max(self.expected).unwrap_or(Moment::MIN)
    }

    pub(super) fn active(&self, now: Moment, active_for: Duration) -> bool {
        self.via() != Via::Nowhere || self.last() >= ago(now, active_for)
    }

    /// Takes in what `reporter` says of its own stream. What a stream holds never goes back; a newer stream's word takes its place.
    /// True when two streams of the node turn out to live at once, for the first time in a row.
    pub(super) fn merge(&mut self, reporter: NodeId, report: &Report, now: Moment) -> bool {
        let mut said = Said {
            durable: report.durable,
            connected: report.connected,
            heard: ago(now, report.heard_ago),
            claimed: ago(now, report.claimed_ago),
            level: report.level,
        };
        self.highest = self.highest.max(report.durable);
        match self.remote.iter_mut().find(|(node, _)| *node == reporter) {
            Some((_, before)) => {
                said.heard = said.heard.max(before.heard);
                *before = said;
            }
            None => self.remote.push((reporter, said)),
        }
        // Of streams that have ended, only the one that counts is worth a place.
        let counts = self.newest().map(|(via, _)| via);
        let heard = self.heard();
        self.remote.retain(|(node, said)| said.connected || Some(said.heard) == heard || counts == Some(Via::Node(*node)));
        let doubled = self.two_live();
        let first = doubled && !self.doubled;
        self.doubled = doubled;
        first
    }

    /// Whether the stream here and one elsewhere both live: the older was heard after the newer began.
    fn two_live(&self) -> bool {
        let Some(own) = self.own.as_ref().map(|own| &own.said).filter(|own| own.connected) else { return false };
        self.remote.iter().filter(|(_, said)| said.connected).any(|(_, said)| {
            let (older, newer) = if said.claimed < own.claimed { (said, own) } else { (own, said) };
            older.heard > newer.claimed.saturating_add(BOTH_LIVE_MS)
        })
    }

    /// `reporter` is gone: what it said stands, but no stream is known to be open there. Whether that changes anything.
    pub(super) fn lost(&mut self, reporter: NodeId, now: Moment) -> bool {
        let said = self.remote.iter_mut().find(|(node, said)| *node == reporter && said.connected);
        let Some((_, said)) = said else { return false };
        said.connected = false;
        said.heard = now;
        true
    }
}
