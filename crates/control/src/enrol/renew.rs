//! `Renew`: a fresh certificate for a key that the registry knows, also when the old one has ended.

use runtime::{config::HostPort, listen::Peer};
use state::{CommandBody, Principal, record::TrustRecord};
use types::{FeatureLevel, NodeId};
use wire::{
    ErrorKind, PublicError,
    internal::{RenewReply, RenewRequest},
};

use super::{authority, certificate_request, control_nodes, names, replace};
use crate::{call::Call, core::Core, error::damaged};

pub(super) async fn renew(core: &Core, call: &Call, peer: Option<&Peer>, message: RenewRequest) -> Result<RenewReply, PublicError> {
    let (node, public_key) = holder(core, peer)?;
    // Counted against the node only by its own key: a certificate for another one, by a stolen authority, must not keep it from renewing.
    let registered = core.consensus.local().node(node).map_err(damaged)?.is_some_and(|record| record.public_key == public_key);
    core.enrolment.renewals.enter(registered.then_some(node), core.clock.monotonic())?;
    let request = certificate_request(&message.certificate_request)?;
    if request.public_key != public_key {
        let message =
            "the request is for another key than the connection's certificate; a node keeps its key: to change it, let it join anew";
        return Err(PublicError::new(ErrorKind::Denied, message));
    }
    // At the newest state: a node that was revoked a moment ago, and knows of a control node that lags, gets nothing from it.
    let state = core.newest().await?;
    let record = match state.node(node).map_err(damaged)? {
        None => return Err(PublicError::new(ErrorKind::Denied, "this node is not registered: let it join with a join token")),
        Some(record) if record.revoked.is_some() => return Err(PublicError::new(ErrorKind::Revoked, "this node was revoked")),
        Some(record) if record.public_key != public_key => {
            return Err(PublicError::new(ErrorKind::Denied, "the certificate's key is not the one registered for this node"));
        }
        Some(record) => record,
    };
    let level = FeatureLevel::new(message.feature_level);
    if level > FeatureLevel::new(0) && level != record.feature_level {
        let update = CommandBody::UpdateNode { node, address: record.address.clone(), feature_level: level };
        // The certificate does not wait for it: the next renewal says it again.
        if let Err(error) = core.propose(call, Principal::Node { node: core.node }, update).await {
            tracing::warn!(%node, %level, kind = error.kind.name(), reason = error.message, "a node's feature level was not noted");
        }
    }
    let own = record.address.as_ref().and_then(|address| address.parse::<HostPort>().ok()).map(|address| address.host().to_owned());
    let names: Vec<String> = own.into_iter().chain(names::allowed(core, &state, record.role, &request.names)?).collect();
    // Before the certificate is made: a node that is counted as having one, and has none, asks again.
    replace::note(core, call, &state, node).await?;
    let issuer = authority::issuer(core, &state)?;
    let certificates = authority::certify(core, &state, &issuer, (node, record.role), &public_key, &names)?;
    let trust = state.trust().map_err(damaged)?;
    let authorities = trust.iter().flat_map(TrustRecord::certificates).map(bytes::Bytes::copy_from_slice).collect();
    let trust_version = trust.as_ref().map_or(0, |trust| trust.version);
    Ok(RenewReply { certificates, control_nodes: control_nodes(&state)?, authorities, trust_version })
}

/// The node that the connection's certificate names, and its key: proved by the handshake, whenever the certificate ended.
fn holder(core: &Core, peer: Option<&Peer>) -> Result<(NodeId, Vec<u8>), PublicError> {
    let certificate = peer.and_then(Peer::certificate).filter(|certificate| certificate.identity.cluster() == core.cluster);
    let node = certificate.and_then(|certificate| Some((certificate.identity.node()?, certificate.public_key.clone())));
    node.ok_or_else(|| {
        PublicError::new(ErrorKind::Unauthenticated, "only nodes renew certificates: connect with a node's certificate, ended or not")
    })
}
