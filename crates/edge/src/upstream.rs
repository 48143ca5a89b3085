//! Who may feed this edge: a control node, as this edge's own copy of the node registry has it.
//!
//! Before the first sync there is no copy; then the control nodes count that this edge was told of when it joined. Never afterwards:
//! one control node in the wrong hands could name others that no registry has. A node that is not known is newer than what this edge
//! holds, and is let through on the certificate that the CA gave it: else an edge that slept while every control node was replaced
//! could never follow again. Little hangs on it, because nothing that comes is believed without a signature of the signer set.

use std::sync::Arc;

use enrol::{Peer, Peers};
use lookup::Serving;
use runtime::tls::{Judge, PeerCertificate};
use state::record::{NodeRecord, NodeRole};
use types::{ClusterId, NodeId};

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
        let (record, told) = match root.map(|root| root.state.node(node)) {
            Some(Ok(record)) => (record, None),
            Some(Err(_)) => return Err(format!("this edge's record of node {node} cannot be read")),
            None => (None, self.peers.of(node)),
        };
        self.verdict(node, server, record.as_ref(), told, expired)
    }
}

impl Upstream {
    /// What the registry's record of a node of this cluster, or what was told of it, says of its certificate.
    fn verdict(
        &self,
        node: NodeId,
        server: &PeerCertificate,
        record: Option<&NodeRecord>,
        told: Option<&Peer>,
        expired: bool,
    ) -> Result<(), String> {
        let known_key = match (record, told) {
            (Some(record), _) if record.role != NodeRole::Control => {
                return Err(format!("the server is node {node}, which is no control node"));
            }
            (Some(record), _) if record.revoked.is_some() => return Err(format!("the server is node {node}, which was revoked")),
            (Some(record), _) => Some(&record.public_key),
            (None, Some(peer)) => Some(&peer.public_key),
            (None, None) => None,
        };
        if !server.may_control() {
            return Err(format!("the server is node {node}, which the CA certified for something else than a control node"));
        }
        match known_key {
            Some(key) if *key != server.public_key => Err(format!("the server's key is not the one registered for node {node}")),
            Some(_) if expired && !self.expired => Err(format!(
                "the certificate of node {node} has expired, or its CA is not believed here: it is renewing it, or we have to renew ours, or a clock is wrong"
            )),
            None if expired => Err(format!(
                "the server is node {node}, which this edge does not know yet, and its certificate has expired, or its CA is not believed here"
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runtime::tls::PeerIdentity;
    use seal::KeyRing;
    use seams::sim::ManualClock;
    use types::{FeatureLevel, UnixMillis};

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const KEY: &[u8] = b"the registered key";

    fn upstream(told: &[(u64, &[u8])], expired: bool) -> Upstream {
        let serving = Arc::new(Serving::new(Arc::new(ManualClock::default()), Arc::new(KeyRing::with_cache(CLUSTER, 1))));
        let peer = |(node, key): &(u64, &[u8])| Peer { node: NodeId::new(*node), address: "c:1".into(), public_key: key.to_vec() };
        let peers = Peers(told.iter().map(peer).collect());
        if expired { Upstream::renewal(CLUSTER, serving, peers) } else { Upstream::feed(CLUSTER, serving, peers) }
    }

    fn certificate(identity: PeerIdentity) -> PeerCertificate {
        let at = UnixMillis::new(1);
        PeerCertificate { identity, role: None, public_key: KEY.to_vec(), names: Vec::new(), not_before: at, not_after: at }
    }

    fn node(cluster: ClusterId, node: u64) -> PeerCertificate {
        certificate(PeerIdentity::Node { cluster, node: NodeId::new(node) })
    }

    fn record(role: NodeRole, key: &[u8], revoked: bool) -> NodeRecord {
        NodeRecord {
            name: "n".parse().unwrap(),
            role,
            public_key: key.to_vec(),
            envelope_key: Vec::new(),
            labels: BTreeMap::new(),
            created: UnixMillis::new(1),
            revoked: revoked.then_some(UnixMillis::new(2)),
            address: None,
            feature_level: FeatureLevel::new(1),
        }
    }

    #[test]
    fn upstream_is_judged_by_the_registry_and_an_expired_one_only_renews() {
        let judged = |record: Option<NodeRecord>, told: &[(u64, &[u8])], expired, renewing| {
            let (upstream, server) = (upstream(told, renewing), node(CLUSTER, 7));
            upstream.verdict(NodeId::new(7), &server, record.as_ref(), upstream.peers.of(NodeId::new(7)), expired)
        };
        let control = || Some(record(NodeRole::Control, KEY, false));
        let cases = [
            ("a control node", judged(control(), &[], false, false), ""),
            ("an edge", judged(Some(record(NodeRole::Edge, KEY, false)), &[], false, false), "no control node"),
            (
                "an edge, told of as a control node",
                judged(Some(record(NodeRole::Edge, KEY, false)), &[(7, KEY)], false, false),
                "no control node",
            ),
            ("a revoked one", judged(Some(record(NodeRole::Control, KEY, true)), &[(7, KEY)], false, true), "revoked"),
            ("another key", judged(Some(record(NodeRole::Control, b"other", false)), &[(7, KEY)], false, false), "not the one registered"),
            ("expired, for the feed", judged(control(), &[], true, false), "has expired"),
            ("expired, for renewing", judged(control(), &[], true, true), ""),
            ("told of", judged(None, &[(7, KEY)], false, false), ""),
            ("told of, expired, for renewing", judged(None, &[(7, KEY)], true, true), ""),
            ("told of with another key", judged(None, &[(7, b"other")], false, true), "not the one registered"),
            ("newer than the copy", judged(None, &[(8, KEY)], false, false), ""),
            ("newer than the copy, expired", judged(None, &[], true, true), "does not know yet"),
        ];
        for (what, verdict, expected) in cases {
            match verdict {
                Ok(()) => assert_eq!(expected, "", "{what} was let through"),
                Err(why) => assert!(!expected.is_empty() && why.contains(expected), "{what}: {why}"),
            }
        }
    }

    #[test]
    fn upstream_of_another_cluster_or_without_a_node_is_refused() {
        let judge = upstream(&[], false);
        let other = judge.judge(&node(ClusterId::from_bytes([2; 16]), 7), false).unwrap_err();
        assert!(other.contains("belongs to cluster 0202"), "{other}");
        let consumer = types::ConsumerRef::parse(types::AccountId::from_bytes([9; 16]), "worker/web").unwrap();
        let consumer = judge.judge(&certificate(PeerIdentity::Consumer { cluster: CLUSTER, consumer }), false).unwrap_err();
        assert!(consumer.contains("a consumer's"), "{consumer}");
    }
}
