//! Who may feed this edge: a control node, as this edge's own copy of the node registry has it.
//!
//! Before the first sync there is no copy; then the control nodes count that were there when the edge joined. A node that neither
//! knows is newer than what this edge holds, and is let through on the certificate that the CA gave it: else an edge that slept while
//! every control node was replaced could never follow again. Little hangs on it, because nothing that comes is believed without a
//! signature of the signer set.

use std::sync::Arc;

use enrol::Peers;
use lookup::Serving;
use runtime::tls::{Judge, PeerCertificate};
use state::record::NodeRole;
use types::ClusterId;

/// Judges servers by the newest copy of the registry.
pub(crate) struct Upstream {
    cluster: ClusterId,
    serving: Arc<Serving>,
    peers: Peers,
    /// Whether a known control node may show an expired certificate: for renewing our own, when a whole cluster has slept.
    expired: bool,
}

impl Upstream {
    /// Whom the feed may come from.
    pub(crate) fn feed(cluster: ClusterId, serving: Arc<Serving>, peers: Peers) -> Self {
        Self { cluster, serving, peers, expired: false }
    }

    /// Who may renew this edge's certificate.
    pub(crate) fn renewal(cluster: ClusterId, serving: Arc<Serving>, peers: Peers) -> Self {
        Self { expired: true, ..Self::feed(cluster, serving, peers) }
    }
}

impl Judge for Upstream {
    fn judge(&self, server: &PeerCertificate, expired: bool) -> Result<(), String> {
        let node = match server.identity.node() {
            Some(node) if server.identity.cluster() == self.cluster => node,
            Some(_) => return Err(format!("the server belongs to cluster {}", server.identity.cluster())),
            None => return Err("the server's certificate is a consumer's".to_owned()),
        };
        let root = self.serving.root();
        let record = match root.map(|root| root.state.node(node)) {
            Some(Ok(record)) => record,
            Some(Err(_)) => return Err(format!("this edge's record of node {node} cannot be read")),
            None => None,
        };
        let known_key = match (&record, self.peers.of(node)) {
            (Some(record), _) if record.role != NodeRole::Control => {
                return Err(format!("the server is node {node}, which is no control node"));
            }
            (Some(record), _) if record.revoked.is_some() => return Err(format!("the server is node {node}, which was revoked")),
            (Some(record), _) => Some(&record.public_key),
            (None, Some(peer)) => Some(&peer.public_key),
            (None, None) => None,
        };
        match known_key {
            Some(key) if *key != server.public_key => Err(format!("the server's key is not the one registered for node {node}")),
            Some(_) if expired && !self.expired => {
                Err(format!("the certificate of node {node} has expired: it is renewing it, or its clock is wrong, or ours"))
            }
            None if expired => {
                Err(format!("the server is node {node}, which this edge does not know yet, and its certificate has expired"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
