//! Where the feed's output meets the readers: each verified and durable root goes to the keys first, then to those who look up.

use std::sync::Arc;

use feed::{CheckpointSeen, Publish};
use lookup::{Checkpoint, Serving};
use state::Root;
use types::NodeId;

use crate::keys::EdgeKeys;

/// Publishes what the follower hands over.
pub(crate) struct Glue {
    pub(crate) node: NodeId,
    pub(crate) serving: Arc<Serving>,
    pub(crate) keys: Arc<EdgeKeys>,
}

impl Publish for Glue {
    fn publish(&self, root: Arc<Root>) {
        // Keys first: a reader of the new root finds the epoch that the root announces.
        self.keys.follow(&root.state);
        match root.state.node(self.node) {
            Ok(Some(record)) if record.revoked.is_some() => {
                // The chain itself says so, and the root stays on disk: it holds after a restart too.
                tracing::error!(node = %self.node, position = %root.state.position(), "this node has been revoked: it serves nothing more and drops its keys");
                self.serving.revoke();
                self.serving.keys().lock();
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "this node's record cannot be read: this copy is damaged"),
        }
        self.serving.publish(root);
    }

    fn checkpoint(&self, seen: CheckpointSeen) {
        let clock = &**self.serving.clock();
        self.serving.checkpoint(match seen.restored_wall {
            None => Checkpoint::received(seen.time, clock),
            Some(mark) => Checkpoint::restored(seen.time, mark, clock),
        });
    }
}
