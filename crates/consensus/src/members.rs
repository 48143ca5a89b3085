//! Who votes and who learns, as callers see it.

use std::time::Duration;

use types::{LogIndex, NodeId};

/// The membership as this node's log has it; the newest entry counts, committed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The voters and their addresses, by id. During a change, those of before and of after.
    pub voters: Vec<(NodeId, String)>,
    /// The learners and their addresses, by id.
    pub learners: Vec<(NodeId, String)>,
    /// Whether a change of voters is under way, or was interrupted: then the next change finishes it first.
    pub joint: bool,
}

impl Membership {
    /// Whether there is no membership yet: the node waits to be added.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty() && self.learners.is_empty()
    }

    /// Whether `node` votes.
    pub fn votes(&self, node: NodeId) -> bool {
        self.voters.iter().any(|(voter, _)| *voter == node)
    }

    /// The address of a member.
    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.voters.iter().chain(&self.learners).find(|(member, _)| *member == node).map(|(_, address)| address.as_str())
    }

    /// Whether `node` is a member.
    pub fn holds(&self, node: NodeId) -> bool {
        self.address(node).is_some()
    }
}

/// How far a member has come, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub node: NodeId,
    /// The last entry up to which its log is known to be the leader's; none before the first answer.
    pub matched: Option<LogIndex>,
    /// How long ago it was last heard of; none if never in this term.
    pub contact: Option<Duration>,
}

/// The members as the leader sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub term: u64,
    /// The last entry of its log.
    pub last_log: Option<LogIndex>,
    /// How far each member has come, the leader among them.
    pub progress: Vec<Progress>,
}

/// Why the membership, or the leader, was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It cannot be done, or not safely; nothing was changed.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// The learner is not far enough to vote; nothing was changed. Ask again: it goes on catching up meanwhile.
    #[error(
        "the learner has {} of {} entries; ask again when it has caught up",
        matched.map_or(0, |index| index.get() + 1),
        last.map_or(0, |index| index.get() + 1)
    )]
    Behind {
        /// Up to where its log is the leader's.
        matched: Option<LogIndex>,
        /// The leader's last entry.
        last: Option<LogIndex>,
    },
    /// Nothing was changed: no leader, or no majority, within the deadline.
    #[error("not changed: {reason}; try again")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// It may have been changed, or be halfway. The same command again finishes it.
    #[error("outcome not known: {reason}; give the same command again, which finishes what was begun")]
    Unknown {
        /// Why it is not known.
        reason: String,
    },
}
