//! Who is a control node of this cluster.

use std::sync::{Arc, OnceLock};

use ::enrol::Peers;
use consensus::Consensus;
use runtime::tls::{Judge, PeerCertificate};
use state::record::NodeRole;
use types::{ClusterId, NodeId};

/// Says who may call this node as another control node, and who may be called.
pub(crate) trait PeerBook: Send + Sync + 'static {
    /// Whether the holder of `certificate` is a control node in good standing. The CA has signed it; it may have expired.
    ///
    /// # Errors
    /// Why not, for the log and for who is turned away.
    fn may_call(&self, certificate: &PeerCertificate) -> Result<NodeId, String>;

    /// Where a member is reached now, if that is known better than by who calls it.
    fn address(&self, node: NodeId) -> Option<String>;
}

/// By the newest applied state; where that does not know the node, by what this node was told when it joined.
pub(crate) struct Registry {
    cluster: ClusterId,
    told: Peers,
    consensus: OnceLock<Consensus>,
}

impl Registry {
    pub(crate) fn new(cluster: ClusterId, told: Peers) -> Self {
        Self { cluster, told, consensus: OnceLock::new() }
    }

    /// From now on there is a state to look into.
    pub(crate) fn watch(&self, consensus: &Consensus) {
        // Set once, by whoever started consensus.
        let _ = self.consensus.set(consensus.clone());
    }
}

impl PeerBook for Registry {
    fn may_call(&self, certificate: &PeerCertificate) -> Result<NodeId, String> {
        let node = certificate.identity.node().filter(|_| certificate.identity.cluster() == self.cluster);
        let node = node.ok_or_else(|| format!("{} is no node of this cluster", certificate.identity))?;
        let record = match self.consensus.get() {
            Some(consensus) => consensus.local().node(node).map_err(|error| error.to_string())?,
            None => None,
        };
        match (record, self.told.of(node)) {
            (Some(record), _) if record.revoked.is_some() => Err(format!("node {node} was revoked")),
            (Some(record), _) if record.role != NodeRole::Control => Err(format!("node {node} is no control node")),
            (Some(record), _) if record.public_key == certificate.public_key => Ok(node),
            (None, Some(told)) if told.public_key == certificate.public_key => Ok(node),
            (Some(_), _) | (None, Some(_)) => Err(format!("node {node} is registered with another key")),
            (None, None) => Err(format!("this node does not know node {node} yet")),
        }
    }

    fn address(&self, node: NodeId) -> Option<String> {
        self.consensus.get()?.membership().address(node).map(str::to_owned)
    }
}

/// Accepts the one node that is meant, at its address.
pub(crate) struct Exactly {
    pub(crate) node: NodeId,
    pub(crate) book: Arc<dyn PeerBook>,
}

impl Judge for Exactly {
    fn judge(&self, server: &PeerCertificate, _expired: bool) -> Result<(), String> {
        match self.book.may_call(server)? {
            node if node == self.node => Ok(()),
            other => Err(format!("node {other} answers where node {} was expected", self.node)),
        }
    }
}
