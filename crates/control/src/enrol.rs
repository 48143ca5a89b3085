//! Enrolment: how nodes become members, and keep their certificates fresh.
//!
//! [`EnrolService`] answers `Join`, the one call that a stranger may make, and `Renew`, which a member may make with a certificate that
//! has ended. Who becomes what is decided by `apply`, in one command; the certificate is made after it, from the state that it led to.
//!
//! **Invariants**
//! 1. A certificate is issued only for a key that the newest state has registered and not revoked.
//! 2. The authority's key is opened for one certificate at a time, and wiped after it. It needs no unlocked ring.
//! 3. What a stranger asks for costs a bounded amount of work, whoever and however many they are: [`Visitors`].

mod authority;
mod join;
mod names;
mod own;
mod renew;
mod renewals;
pub(crate) mod replace;
pub(crate) mod revoke;
pub(crate) mod signers;
mod visitors;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use runtime::listen::Peer;
use seal::{FileRoot, NodeKeyPair};
use seams::Disk;
use state::{State, record::NodeRole};
use tonic::{Request, Response, Status, async_trait};
use types::{NodeId, RootKeyId};
use wire::{
    ErrorKind, PublicError,
    internal::{ControlNode, JoinReply, JoinRequest, RenewReply, RenewRequest, enrol_server::Enrol},
};

pub(crate) use own::renewal;
pub(crate) use renewals::Renewals;
pub(crate) use visitors::Visitors;

use crate::{call::read, core::Core, error::damaged};

/// Control nodes that a reply names: as many as there can be signers.
const CONTROL_NODES_MAX: usize = state::limits::SIGNERS_MAX;

/// This node's own keys, as far as others need them, and what it enrols others with.
pub(crate) struct Enrolment {
    /// Opens what is sealed for this node: key epochs, and the authority's key.
    pub(crate) envelope_key: NodeKeyPair,
    /// Where the root key lies, when this node has one.
    pub(crate) root_file: PathBuf,
    /// The root key's id, when it was there at the start.
    pub(crate) root_id: Option<RootKeyId>,
    pub(crate) disk: Arc<dyn Disk>,
    /// How long the certificates count that this node issues.
    pub(crate) lifetime: Duration,
    /// What this node itself is called: names that no other kind of node gets.
    pub(crate) names: Vec<String>,
    /// By which authority this node's own certificate is, when the registry does not say so yet; 0: nothing to say.
    pub(crate) certified_by: AtomicU32,
    /// Who is asking to be let in.
    pub(crate) visitors: Visitors,
    /// Which nodes have asked for certificates lately.
    pub(crate) renewals: Renewals,
}

impl Enrolment {
    /// The root key, for one use; none when this node has none.
    pub(crate) fn root(&self) -> Option<FileRoot> {
        crate::epochs::open_root(&*self.disk, &self.root_file)
    }
}

/// The service.
#[derive(Clone)]
pub(crate) struct EnrolService(pub(crate) Arc<Core>);

#[async_trait]
impl Enrol for EnrolService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let core = &self.0;
        let from = request.extensions().get::<Peer>().and_then(Peer::address).map(|address| address.ip());
        read(core, "enrol.join", request, async |core, call, message| {
            let _place = core.enrolment.visitors.enter(from, core.clock.monotonic())?;
            // Boxed: what is made for a node on the way is large.
            Box::pin(join::join(&core, &call, message)).await
        })
        .await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let core = &self.0;
        let peer = request.extensions().get::<Peer>().cloned();
        read(core, "enrol.renew", request, async |core, call, message| renew::renew(&core, &call, peer.as_ref(), message).await).await
    }
}

/// The control nodes in good standing, as the state has them.
fn control_nodes(state: &State) -> Result<Vec<ControlNode>, PublicError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = state.nodes(after.as_ref(), state::limits::PAGE_MAX).map_err(damaged)?;
        let standing = page.items.into_iter().filter(|(_, record)| record.role == NodeRole::Control && record.revoked.is_none());
        found.extend(standing.map(|(node, record)| ControlNode {
            node: node.get(),
            name: record.name.to_string(),
            public_key: record.public_key.into(),
            address: record.address.unwrap_or_default(),
        }));
        after = page.next;
        if after.is_none() || found.len() >= CONTROL_NODES_MAX {
            return Ok(found);
        }
    }
}

/// The number that the next node gets: one more than the highest that was ever given.
fn next_id(state: &State) -> Result<NodeId, PublicError> {
    let (mut highest, mut after) = (0, None);
    loop {
        let page = state.nodes(after.as_ref(), state::limits::PAGE_MAX).map_err(damaged)?;
        highest = page.items.last().map_or(highest, |(node, _)| node.get());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let full = || PublicError::new(ErrorKind::Precondition, "there is no number left for another node");
    highest.checked_add(1).map(NodeId::new).ok_or_else(full)
}

/// Reads a certificate request, whose signature shows that the caller holds the key.
fn certificate_request(der: &[u8]) -> Result<enrol::CertificateRequest, PublicError> {
    enrol::CertificateRequest::read(der)
        .map_err(|error| PublicError::new(ErrorKind::InvalidArgument, format!("field `certificate_request`: {error}")))
}
