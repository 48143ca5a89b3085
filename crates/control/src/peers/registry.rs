//! Who is a control node of this cluster.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use ::enrol::Peers;
use consensus::Consensus;
use runtime::tls::{CertifiedRole, Judge, PeerCertificate, Registered};
use state::{State, record::NodeRole};
use types::{ClusterId, NodeId};

use crate::core::Core;

/// For how long a node has had no leader before it hears peers that it does not know: an election, or a moment's cut, is no reason.
const STRANDED_AFTER: Duration = Duration::from_secs(5);

/// Why a caller is believed to be a control node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The registry has it, or this node was told of it when it joined and knows no registry of that time yet.
    Known,
    /// By its certificate alone: it was registered after what this node knows.
    Vouched,
}

/// Says who may call this node as another control node, and who may be called.
pub(crate) trait PeerBook: Send + Sync + 'static {
    /// Whether the holder of `certificate` is a control node in good standing. The CA has signed it; it may have expired.
    ///
    /// # Errors
    /// Why not, for the log and for who is turned away.
    fn may_call(&self, certificate: &PeerCertificate) -> Result<(NodeId, Standing), String>;

    /// Where a member is reached now, if that is known better than by who calls it.
    fn address(&self, node: NodeId) -> Option<String>;
}

/// By the newest applied state; until that knows this node itself, also by what it was told when it joined.
pub(crate) struct Registry {
    cluster: ClusterId,
    told: Peers,
    consensus: OnceLock<Consensus>,
    /// Says for how long there was no leader. It holds this registry, so it is not held in turn.
    core: OnceLock<Weak<Core>>,
}

impl Registry {
    pub(crate) fn new(cluster: ClusterId, told: Peers) -> Self {
        Self { cluster, told, consensus: OnceLock::new(), core: OnceLock::new() }
    }

    /// From now on there is a state to look into.
    pub(crate) fn watch(&self, core: &Arc<Core>) {
        // Set once, by whoever started consensus.
        let _ = self.consensus.set(core.consensus.clone());
        let _ = self.core.set(Arc::downgrade(core));
    }

    /// Whether the registry has this node itself. What it was told when it joined is of that moment: whoever stood there then is in the
    /// registry now, or was taken out of it.
    fn has_caught_up(&self) -> bool {
        let core = self.core.get().and_then(Weak::upgrade);
        core.is_some_and(|core| matches!(core.consensus.local().node(core.node), Ok(Some(_))))
    }

    /// Whether a node that the registry does not have is to be heard on the CA's word. It must be newer than all that the registry
    /// has, for numbers rise and are never given twice; and this node must be lost without it, for whoever has stolen the CA's key can
    /// certify anybody.
    fn vouched(&self, node: NodeId, certificate: &PeerCertificate) -> Result<(), String> {
        let unknown = |why: &str| Err(format!("this node does not know node {node} yet, {why}"));
        let Some(core) = self.core.get().and_then(Weak::upgrade) else { return unknown("and has just begun to look") };
        if certificate.role != Some(CertifiedRole::Control) {
            return unknown("and the CA did not certify it as a control node");
        }
        if certificate.is_expired(core.now()) {
            return unknown("and its certificate counts no more");
        }
        let state = core.consensus.local();
        if highest(&state)?.is_some_and(|highest| node <= highest) {
            return unknown("and its number is not newer than those that it knows");
        }
        if state.trust().map_err(|error| error.to_string())?.is_some_and(|trust| trust.exposed.is_some()) {
            return unknown("and the CA's word does not count now, for its key is to be replaced");
        }
        let led_by_unknown =
            core.consensus.status().leader.is_some_and(|leader| leader != core.node && matches!(state.node(leader), Ok(None)));
        if core.leaderless() < STRANDED_AFTER && !led_by_unknown {
            return unknown("and needs no other to hear of it");
        }
        Ok(())
    }
}

/// The highest number in the registry.
fn highest(state: &State) -> Result<Option<NodeId>, String> {
    let (mut highest, mut after) = (None, None);
    loop {
        let page = state.nodes(after.as_ref(), state::limits::PAGE_MAX).map_err(|error| error.to_string())?;
        highest = page.items.last().map(|(node, _)| *node).or(highest);
        after = page.next;
        if after.is_none() {
            return Ok(highest);
        }
    }
}

impl PeerBook for Registry {
    fn may_call(&self, certificate: &PeerCertificate) -> Result<(NodeId, Standing), String> {
        let node = certificate.identity.node().filter(|_| certificate.identity.cluster() == self.cluster);
        let node = node.ok_or_else(|| format!("{} is no node of this cluster", certificate.identity))?;
        let record = match self.consensus.get() {
            Some(consensus) => consensus.local().node(node).map_err(|error| error.to_string())?,
            None => None,
        };
        if !certificate.may_control() {
            return Err(format!("the CA certified node {node} for something else than a control node"));
        }
        match (record, self.told.of(node).filter(|_| !self.has_caught_up())) {
            (Some(record), _) if record.revoked.is_some() => Err(format!("node {node} was revoked")),
            (Some(record), _) if record.role != NodeRole::Control => Err(format!("node {node} is no control node")),
            (Some(record), _) if record.public_key == certificate.public_key => Ok((node, Standing::Known)),
            (None, Some(told)) if told.public_key == certificate.public_key => Ok((node, Standing::Known)),
            (Some(_), _) | (None, Some(_)) => Err(format!("node {node} is registered with another key")),
            (None, None) => self.vouched(node, certificate).map(|()| (node, Standing::Vouched)),
        }
    }

    fn address(&self, node: NodeId) -> Option<String> {
        self.consensus.get()?.membership().address(node).map(str::to_owned)
    }
}

impl Registered for Registry {
    fn is_registered(&self, certificate: &PeerCertificate) -> bool {
        let node = certificate.identity.node().filter(|_| certificate.identity.cluster() == self.cluster);
        let Some((node, consensus)) = node.zip(self.consensus.get()) else { return false };
        let record = consensus.local().node(node).ok().flatten();
        record.is_some_and(|record| record.revoked.is_none() && record.public_key == certificate.public_key)
    }
}

/// Accepts the one node that is meant, at its address.
pub(crate) struct Exactly {
    pub(crate) node: NodeId,
    pub(crate) book: Arc<dyn PeerBook>,
}

impl Judge for Exactly {
    fn judge(&self, server: &PeerCertificate, expired: bool) -> Result<(), String> {
        match self.book.may_call(server)? {
            (node, Standing::Vouched) if expired => Err(format!("node {node} is not known yet, and its certificate counts no more")),
            (node, _) if node == self.node => Ok(()),
            (other, _) => Err(format!("node {other} answers where node {} was expected", self.node)),
        }
    }
}
