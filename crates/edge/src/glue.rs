//! Where the feed's output meets the readers: each verified and durable root goes to the keys first, then to those who look up.

use std::sync::Arc;

use feed::{CheckpointSeen, Publish};
use lookup::{Checkpoint, Serving};
use state::Root;
use types::{NodeId, Position};

use crate::{Observer, keys::EdgeKeys, revoked::Mark};

/// Publishes what the follower hands over.
pub(crate) struct Glue {
    pub(crate) node: NodeId,
    pub(crate) serving: Arc<Serving>,
    pub(crate) keys: Arc<EdgeKeys>,
    pub(crate) mark: Arc<Mark>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Glue {
    /// Serves nothing more, drops the keys and removes their envelopes, and marks the data folder, so that a restart changes nothing.
    /// Whether all of that is on the disk; if not, it should be called again.
    pub(crate) fn revoked(&self, by: &'static str) -> bool {
        if !self.serving.is_revoked() {
            tracing::error!(node = %self.node, by, remedy = self.mark.remedy(), "this node has been revoked: it serves nothing more and drops its keys");
        }
        self.keys.forget();
        self.serving.revoke();
        let erased = self.keys.erase();
        let marked = self.mark.set();
        if let Err(error) = &marked {
            tracing::error!(%error, "the mark of the revocation cannot be set; it is tried again");
        }
        erased && marked.is_ok()
    }
}

impl Publish for Glue {
    fn publish(&self, root: Arc<Root>) {
        // Keys first: a reader of the new root finds the epoch that the root announces.
        self.keys.follow(&root.state);
        match root.state.node(self.node) {
            Ok(Some(record)) if record.revoked.is_some() => {
                // The root stays on disk, so it holds after a restart too.
                self.revoked("the chain says so");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "this node's record cannot be read: this copy is damaged"),
        }
        let position = root.state.position();
        self.serving.publish(root);
        if let Some(observer) = &self.observer {
            observer.readable(position);
        }
    }

    fn verified(&self, position: Position) {
        if let Some(observer) = &self.observer {
            observer.verified(position);
        }
    }

    fn checkpoint(&self, seen: CheckpointSeen) {
        let clock = &**self.serving.clock();
        self.serving.checkpoint(match seen.restored_wall {
            None => Checkpoint::received(seen.time, clock),
            Some(mark) => Checkpoint::restored(seen.time, mark, clock),
        });
    }
}
