//! Who leads, as far as that is certain.
//!
//! Raft goes on naming the leader that was until there is another: a leader that has lost its majority does not know it, and a follower
//! that hears nothing asks for votes without giving up whom it followed. So what is shown to people goes by the time of the last contact.

use openraft::{Instant as _, async_runtime::watch::WatchReceiver as _};
use types::NodeId;

use crate::{Runtime, engine::Voter};

impl<R: Runtime> Voter<R> {
    /// The leader, if this node is it and a majority has answered it, or has heard of it, within the longest time that a follower waits
    /// before it asks for votes.
    pub(crate) async fn confirmed(&self) -> Option<NodeId> {
        self.running().ok()?;
        let (leader, alone, acknowledged) = {
            // Let go at once: holding the watch's lock would hold up the Raft core.
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let alone = metrics.membership_config.membership().voter_ids().eq([self.node.get()]);
            (metrics.current_leader.map(NodeId::new)?, alone, metrics.last_quorum_acked.map(|at| *at))
        };
        let contact = match acknowledged.filter(|_| leader == self.node) {
            _ if leader == self.node && alone => return Some(leader),
            Some(at) => Some(at),
            // A leader that was elected just now, by a majority; or a follower, whose vote is renewed by each call of its leader.
            None => {
                let renewed = self.raft.with_raft_state(|state| state.vote_last_modified());
                R::timeout(self.timing.election_max, renewed).await.ok()?.ok()?
            }
        };
        contact.filter(|at| R::Instant::now() - *at <= self.timing.election_max).map(|_| leader)
    }
}
